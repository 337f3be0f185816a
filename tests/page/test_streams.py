"""The page of streams, its twin as JSON, and those who would use them in another's name."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from html import unescape
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from auditdb.errors import InvalidInput
from auditdb.export.sinks.webhook import stream_secret
from auditdb.web import forms
from tests.conftest import Database
from tests.page.conftest import MEMBER, OTHER, OWNER, fetch, texts

Make = Callable[..., Any]
MASTER = "0123456789abcdef0123456789abcdef"
HOOK = "https://hooks.acme.test/audit"
OWN = {"sec-fetch-site": "same-origin"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json"}


@pytest.fixture
def make(site: Make) -> Make:
    def made(*who: Any, **given: Any) -> Any:
        return site(*who, **{"stream_secret": MASTER, **given})

    return made


def send(
    application: Any, method: str, path: str, body: str = "", **headers: str
) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, path, content=body, headers=named)

    return asyncio.run(ask())


def token(application: Any, path: str = "/streams") -> str:
    (page,) = fetch(application, path)
    found = re.search(r'name="token" value="([^"]+)"', page.text)
    assert found is not None, page.text
    return unescape(found[1])


def post(application: Any, path: str, headers: dict[str, str] = OWN, **fields: str) -> Any:
    fields = {"token": token(application)} | fields
    return send(application, "POST", path, urlencode(fields), **headers, **FORM)


def listed(application: Any) -> list[dict[str, Any]]:
    (answer,) = fetch(application, "/api/streams")
    assert answer.status_code == 200, answer.text
    streams: list[dict[str, Any]] = answer.json()["streams"]
    return streams


def test_an_admin_makes_pauses_resumes_and_drops_one_without_script(make: Make) -> None:
    application = make()
    made = post(application, "/streams", sink=HOOK, format="ocsf")
    assert (made.status_code, made.headers["location"]) == (303, "/streams")
    (stream,) = listed(application)
    assert (stream["sink"], stream["format"], stream["state"]) == (HOOK, "ocsf", "active")
    assert stream["secret"] == stream_secret(MASTER, stream["name"])
    (page,) = fetch(application, "/streams")
    assert HOOK in page.text and stream["secret"] in page.text and "<script" not in page.text
    for what, state in (("pause", "paused"), ("resume", "active")):
        assert post(application, f"/streams/{stream['name']}/{what}").status_code == 303
        assert [s["state"] for s in listed(application)] == [state]
    assert post(application, f"/streams/{stream['name']}/drop").status_code == 303
    assert listed(application) == []
    (log,) = fetch(application, "/")
    assert [text.partition(" Recorded")[0] for text in texts(log.text)[:4]] == [
        "1 dropped a stream of this log",
        "1 paused or resumed a stream of this log",
        "1 paused or resumed a stream of this log",
        "1 made a stream of this log",
    ]
    assert 'href="/streams"' in log.text


@pytest.mark.parametrize("code", ["en", "de"])
def test_what_is_wrong_stands_at_the_field_and_what_was_given_is_kept(
    make: Make, code: str
) -> None:
    application = make(language=code)
    for sink in ("http://a.test/<b>", "https://169.254.169.254/", "", 'https://a.test/"><i>'):
        answer = post(application, "/streams", sink=sink)
        assert answer.status_code == 400
        assert 'aria-invalid="true"' in answer.text and 'role="alert"' in answer.text
        assert f'value="{sink}"' in answer.text.replace("&lt;", "<").replace("&gt;", ">").replace(
            "&#34;", '"')  # fmt: skip
        assert "<i>" not in answer.text and "<b>" not in answer.text
    said = "keine Adresse" if code == "de" else "no address of a stream"
    assert said in answer.text
    for _ in range(5):
        assert post(application, "/streams", sink=HOOK).status_code == 303
    answer = post(application, "/streams", sink=HOOK)
    assert answer.status_code == 409 and 'aria-invalid="true"' in answer.text
    assert len(listed(application)) == 5


def test_no_other_site_posts_in_the_name_of_an_admin(make: Make) -> None:
    application = make()
    for site in ("cross-site", "same-site", "none", "x"):
        for headers in (
            {"sec-fetch-site": site},
            {"sec-fetch-site": site, "origin": "http://shop.test"},
        ):
            assert post(application, "/streams", headers, sink=HOOK).status_code == 403
    for origin in ("https://evil.test", "http://shop.test.evil.test", "http://shop.test:81"):
        assert post(application, "/streams", {"origin": origin}, sink=HOOK).status_code == 403
    # A sandboxed page of another site says null, too: it does not know the token.
    for wrong in ("", "x", "1.y", "99999999999.00", token(make(OTHER, [2]))):
        for headers in ({"origin": "null"}, OWN, {}):
            answer = post(application, "/streams", headers, sink=HOOK, token=wrong)
            assert (answer.status_code, "has expired" in answer.text) == (403, True)
    assert listed(application) == []
    # An older browser on the page itself.
    for headers in ({"origin": "null"}, {"origin": "http://shop.test"}):
        assert post(application, "/streams", headers, sink=HOOK).status_code == 303
    (first, _) = listed(application)
    for what in ("pause", "drop"):
        path = f"/streams/{first['name']}/{what}"
        assert post(application, path, {"sec-fetch-site": "cross-site"}).status_code == 403
        assert post(application, path, token="").status_code == 403
        assert fetch(application, path)[0].status_code == 405
    assert [s["state"] for s in listed(application)] == ["active"] * 2


def test_a_form_is_over_after_half_a_day(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    application = make()
    monkeypatch.setattr(forms, "_LIFETIME", -1)
    assert post(application, "/streams", sink=HOOK).status_code == 403
    monkeypatch.setattr(forms, "_LIFETIME", 5)
    assert post(application, "/streams", sink=HOOK).status_code == 303


def test_no_other_site_sends_json_in_the_name_of_an_admin(make: Make) -> None:
    application, body = make(), f'{{"sink": "{HOOK}"}}'
    path = "/api/streams"
    assert send(application, "POST", path, body, **JSON).status_code == 201
    assert send(application, "POST", path, body, **JSON, **OWN).status_code == 201
    for headers in (
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "null"},
        {"origin": "https://evil.test"},
    ):  # fmt: skip
        assert send(application, "POST", path, body, **JSON, **headers).status_code == 403
        one = f"{path}/{listed(application)[0]['name']}"
        assert send(application, "DELETE", one, **headers).status_code == 403
        assert send(application, "POST", f"{one}/pause", **JSON, **headers).status_code == 403
    # What a form of another site can send without being asked for leave.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = send(application, "POST", path, body, content_type=kind)
        assert answer.status_code == 400 and "application/json" in answer.json()["help"]
    assert len(listed(application)) == 2


def test_streams_as_json(make: Make) -> None:
    application = make()
    made = send(application, "POST", "/api/streams", f'{{"sink": "{HOOK}"}}', **JSON)
    stream = made.json()
    assert made.status_code == 201 and listed(application) == [stream]
    path = f"/api/streams/{stream['name']}"
    assert send(application, "POST", f"{path}/pause", **JSON).status_code == 204
    assert listed(application)[0]["state"] == "paused"
    assert send(application, "POST", f"{path}/drop/x", **JSON).status_code == 404
    assert send(application, "POST", f"{path}/explode", **JSON).status_code == 404
    assert send(application, "DELETE", path).status_code == 204
    assert send(application, "DELETE", path).status_code == 404
    for body, status, error in (
        ("{", 400, "bad_address"), ("[]", 400, "bad_address"), ("{}", 400, "stream_address"),
        ('{"sink": 7}', 400, "stream_address"), ('{"sink": "\\u0000"}', 400, "stream_address"),
        ('{"sink": "https://a.test/", "format": "csv"}', 400, "bad_address"),
        ('{"sink": "' + "x" * 20_000 + '"}', 400, "bad_address"),
    ):  # fmt: skip
        answer = send(application, "POST", "/api/streams", body, **JSON)
        assert (answer.status_code, answer.json()["error"]) == (status, error), body
    assert listed(application) == []


def test_who_is_no_admin_of_it_has_no_streams(make: Make, shop: Database, auditors: None) -> None:
    application = make()
    send(application, "POST", "/api/streams", f'{{"sink": "{HOOK}"}}', **JSON)
    (stream,) = listed(application)
    body = f'{{"sink": "{HOOK}"}}'
    member, other, staff = make(MEMBER, [1]), make(OTHER, [2]), make("s", [1], is_staff=True)
    # A member in the shop after its day is an admin; one of whom nobody heard is none.
    stranger = make("77", [1])
    assert member is not None
    for who, status in ((stranger, 403), (make(OTHER, [1]), 403), (staff, 404), (make(None), 401)):
        assert fetch(who, "/streams")[0].status_code == status
        assert fetch(who, "/api/streams")[0].status_code == status
        assert send(who, "POST", "/api/streams", body, **JSON).status_code == status
        for method, path in (("DELETE", ""), ("POST", "/pause")):
            answer = send(who, method, f"/api/streams/{stream['name']}{path}", **JSON)
            assert answer.status_code == status
    assert send(other, "DELETE", f"/api/streams/{stream['name']}").status_code == 404
    assert listed(other) == []
    shop.connect("app").execute("delete from membership where user_id = 1")
    assert fetch(application, "/api/streams")[0].status_code == 403
    (left,) = listed(member)
    assert (left["name"], left["state"]) == (stream["name"], "active")


def test_of_several_organisations_one_is_chosen(make: Make, shop: Database) -> None:
    shop.connect("app").execute("insert into membership values (2, 1, 'OWNER', now())")
    application = make(OWNER, [1, 2])
    (page, api) = fetch(application, "/streams", "/api/streams")
    assert page.status_code == 200 and "/streams?organization=2" in page.text
    assert api.status_code == 400
    fields = {"token": token(application, "/streams?organization=2"), "sink": HOOK}
    made = send(application, "POST", "/streams?organization=2", urlencode(fields), **OWN, **FORM)
    assert made.headers["location"] == "/streams?organization=2"
    assert len(listed(make(OTHER, [2]))) == 1 and listed(make()) == []


def test_without_a_secret_there_are_none(site: Make) -> None:
    application = site()
    (log, page, api) = fetch(application, "/", "/streams", "/api/streams")
    assert "/streams" not in log.text and (page.status_code, api.status_code) == (404, 404)
    answer = send(application, "POST", "/api/streams", f'{{"sink": "{HOOK}"}}', **JSON)
    assert answer.status_code == 404
    with pytest.raises(InvalidInput, match="at least 32 characters"):
        site(stream_secret="short")


def test_the_new_one_of_two_secrets_is_shown(make: Make) -> None:
    new = "f" * 40
    application = make(stream_secret=[new, MASTER])
    send(application, "POST", "/api/streams", f'{{"sink": "{HOOK}"}}', **JSON)
    (stream,) = listed(application)
    assert stream["secret"] == stream_secret(new, stream["name"])
