"""What the page says when it cannot show the log, and that it is no way to anything else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import httpx
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from auditdb import InvalidInput
from auditdb.web import Access, app
from tests.conftest import Database
from tests.page.conftest import OWNER, fetch, texts

Make = Callable[..., Any]


def page_of(application: Any, path: str = "/") -> tuple[int, str]:
    (page,) = fetch(application, path)
    found = re.search(r"<h1>(.*?)</h1>\s*<p>(.*?)</p>", page.text, re.DOTALL)
    assert found and "Traceback" not in page.text
    return page.status_code, f"{found[1]}: {found[2]}"


def test_the_database_is_away(site: Make, shop: Database) -> None:
    status, said = page_of(site(connect=make_conninfo(shop.dsn, port=1)))
    assert status == 503 and said.startswith("The database cannot be reached: Try again")


def test_the_connection_of_the_host_is_lost(site: Make, shop: Database) -> None:
    class Lost:
        async def __aenter__(self) -> Any:
            raise psycopg.OperationalError("the pool is empty")

        async def __aexit__(self, *error: Any) -> None: ...

    status, said = page_of(site(connect=Lost))
    assert status == 503 and said.startswith("The database cannot be reached")


def test_the_login_is_no_reader(
    site: Make, shop: Database, caplog: pytest.LogCaptureFixture
) -> None:
    status, said = page_of(site(connect=shop.conninfo("stranger")))
    assert status == 503
    assert said == (
        "The database refused: An operator finds the reason in the application&#39;s log."
    )
    assert 'run: grant audit_reader to "stranger"' in caplog.text


def test_the_key_is_retired(site: Make, shop: Database) -> None:
    application = site()
    shop.connect().execute("select audit.create_key('0 seconds')")
    status, said = page_of(application)
    assert status == 503 and said == (
        "The signing key is retired: An operator makes a new one with auditdb key create, and sets"
        " it as AUDITDB_KEY."
    )


def test_the_key_is_of_another_database(site: Make, shop: Database) -> None:
    assert page_of(site(key="00000000.secret"))[1].startswith("The signing key is not one of this")
    # Nobody learns more by a key whose secret is wrong.
    wrong = shop.key.split(".")[0] + ".secret"
    assert page_of(site(key=wrong))[1].startswith("The signing key is not one of this")


def test_it_is_not_installed(site: Make, shop: Database) -> None:
    status, said = page_of(site(connect=make_conninfo(shop.dsn, dbname="postgres")))
    assert status == 503 and said.startswith("The audit log is not installed here: An operator")


def test_nothing_is_attached_and_nobody_is_an_admin(site: Make, shop: Database) -> None:
    owner = shop.connect("app_owner")
    for (table,) in shop.connect().execute("select name from audit_private.attachment").fetchall():
        owner.execute("select audit.detach(%s::regclass)", [table])
    status, said = page_of(site())
    assert status == 503 and said.startswith("Nobody is an admin yet")


def test_there_are_no_events_yet(site: Make, db: Database) -> None:
    admin = db.connect("app")
    admin.execute("insert into organization (id, name) values (7, 'New')")
    admin.execute("insert into membership values (7, 1, 'OWNER', now())")
    (page,) = fetch(site(OWNER, [7]), "/?from=2031-01-01")
    assert page.status_code == 200 and "No event matches" in page.text


def test_a_query_that_takes_too_long_is_told(site: Make, shop: Database) -> None:
    # A policy's function of the application that dawdles.
    owner = shop.connect()
    owner.execute("revoke all on audit.event from audit_reader")
    owner.execute(
        "create function public.dawdle() returns boolean language sql volatile"
        " as 'select pg_sleep(3) is null'"
    )
    status, said = page_of(site(seconds=0.001, connect=shop.conninfo("app_reader")))
    assert status == 503
    assert said.startswith("This took too long: Narrow it") or said.startswith("The database")


def test_an_unknown_path_and_other_methods(site: Make) -> None:
    for path in ("/nothing/here", "/logged/", "/event/..%2f"):
        status, said = page_of(site(), path)
        assert status == 404 and said.startswith("There is no such page")

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app=site())
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return [
                (await client.request(method, path)).status_code
                for method in ("POST", "PUT", "DELETE", "PATCH")
                for path in ("/", "/events.csv", "/api/events")
            ]

    assert set(asyncio.run(ask())) == {405}


@pytest.mark.parametrize("path", [
    "/", "/logged", "/events.csv", "/api/events", "/nothing", "/logged/", "/api/openapi.json",
    "/style.css",
])  # fmt: skip
def test_every_answer_forbids_what_the_page_does_not_need(site: Make, path: str) -> None:
    (answer,) = fetch(site(), path)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'")
    assert "unsafe" not in policy and "script-src" not in policy
    assert "frame-ancestors 'none'" in policy and answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    kept = "max-age=3600" if path == "/style.css" else "no-store"
    assert answer.headers["cache-control"] == kept
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("root", ["//evil.test", "/\\evil.test", "/\t/evil.test"])
def test_the_path_of_the_mount_names_no_other_host(site: Make, root: str) -> None:
    answers: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        answers.append(message)

    for query in (b"text=&result=denied", b"result=denied"):
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "method": "GET",
            "http_version": "1.1", "path": f"{root}/", "raw_path": b"/", "query_string": query,
            "headers": [], "root_path": root, "scheme": "http", "server": ("shop.test", 80),
            "client": ("127.0.0.1", 1),
        }  # fmt: skip
        asyncio.run(site()(scope, receive, send))
    sent = str(dict(answers[0]["headers"])[b"location"]) + answers[3]["body"].decode()
    assert answers[0]["status"] == 303 and answers[2]["status"] == 200
    assert not re.search(r"""["'](/[/\\\t]|[a-z]+:)[^"']*evil""", sent)


def test_the_host_may_show_it_in_a_frame(site: Make) -> None:
    (own,) = fetch(site(frame_ancestors="'self'"), "/")
    assert own.headers["x-frame-options"] == "SAMEORIGIN"
    (other,) = fetch(site(frame_ancestors="https://shop.test"), "/")
    assert "frame-ancestors https://shop.test" in other.headers["content-security-policy"]
    assert "x-frame-options" not in other.headers


HOSTILE = [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "{{ 7*7 }}", "a\u202egnp.exe",
    "\x1b[2J\x1b[31m", "' onmouseover='alert(1)", "javascript:alert(1)", "\u2066x\u2069", "a\r\nb",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_does_nothing(site: Make, db: Database, text: str) -> None:
    app_conn = db.connect("app")
    for values in ({"name": text}, {text: "x"}):
        app_conn.execute(
            "select audit.record_event('report.exported', '1', %s, %s, actor_id => %s,"
            " source => %s, new_values => %s, details => %s)",
            [text[:60], text, text, text[:60], psycopg.types.json.Jsonb(values),
             psycopg.types.json.Jsonb({"ip": text, "user_agent": text, text: text})],
        )  # fmt: skip
    application = site(names=lambda kind, ids: {found: text for found in ids})
    (api,) = fetch(application, "/api/events")
    place = api.json()["events"][0]["place"]
    for path in ("/", f"/event/{place}", f"/?{urlencode({'actor_id': text, 'ip': text})}",
                 f"/?{urlencode({'text': text})}"):  # fmt: skip
        (page,) = fetch(application, path)
        assert page.status_code == 200, path
        # What the viewer's own fields hold goes back as it came.
        shown = re.sub(r'<input [^>]*value="[^"]*"', "", page.text)
        assert not set("\u202e\x1b\u2066\u2069") & set(shown)
        Harmless().feed(page.text)


class Harmless(HTMLParser):
    """Fails on an element, an attribute or a link that no template has."""

    ELEMENTS = frozenset(
        "html head meta title link body a div main footer form input details summary label datalist"
        " option select button header h1 h2 p nav ul li section figure figcaption svg g rect table"
        " caption span thead tr th tbody td bdi time optgroup dl dt dd code em strong".split()
    )

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.ELEMENTS, tag
        for name, value in attrs:
            assert not name.startswith("on") and name not in ("style", "src", "srcset"), name
            if name in ("href", "action"):
                assert value in ("", "data:,", "#main") or str(value).startswith(("/", "?")), value


def test_values_of_ten_megabytes_do_not_reach_the_list(site: Make, db: Database) -> None:
    app_conn = db.connect("app")
    app_conn.execute(
        "insert into workflow (organization_id, name, config) select 1, 'big' || i,"
        " jsonb_build_object('x', (select string_agg(md5(n::text), '') from"
        " generate_series(1, 300000) as n)) from generate_series(1, 2) as i"
    )
    application = site()
    page, api = fetch(application, "/", "/api/events")
    assert len(page.content) < 200_000 and len(api.content) < 200_000
    event = api.json()["events"][0]
    assert event["new_values"] == {"auditdb.cut": event["new_values"]["auditdb.cut"]}
    (one,) = fetch(application, f"/event/{event['place']}")
    assert one.status_code == 200 and "too long to be shown" in one.text
    (taken,) = fetch(application, "/events.jsonl?action=workflow.created")
    assert len(taken.content) > 18_000_000


def test_a_long_value_is_shortened_and_says_so(site: Make, db: Database) -> None:
    db.connect("app").execute(
        "insert into workflow (organization_id, name) values (1, repeat('long ', 2000))"
    )
    application = site()
    (api,) = fetch(application, "/api/events")
    (page,) = fetch(application, f"/event/{api.json()['events'][0]['place']}")
    assert "more characters: 8000" in page.text and len(page.content) < 30_000


def test_wrong_settings_are_refused_at_once(shop: Database) -> None:
    good: dict[str, Any] = {"connect": shop.dsn, "key": shop.key, "viewer": lambda request: None}
    for wrong in (
        {"key": "nonsense"}, {"language": "xx"}, {"viewer": "ann"}, {"connect": "postgres://[::"},
        {"connect": 7}, {"stylesheets": "/shop.css"}, {"seconds": 0}, {"seconds": -1},
        {"frame_ancestors": "'self'; script-src *"}, {"frame_ancestors": "x\r\nSet-Cookie: a=1"},
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            app(**{**good, **wrong})
    good = {"viewer_id": 1, "organizations": [1]}
    for wrong in (
        {"viewer_id": ""}, {"organizations": "acme"}, {"zone": "Mars"}, {"scheme": "blue"},
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            Access(**{**good, **wrong})


@pytest.mark.parametrize(
    ("language", "spoken"), [("de", "de"), ("de-AT", "de"), ("de_CH", "de"), ("fr", "en")]
)
def test_a_viewer_whose_language_there_is_not_reads_another(
    site: Make, language: str, spoken: str
) -> None:
    (page,) = fetch(site(language=language), "/")
    assert page.status_code == 200 and f'<html lang="{spoken}"' in page.text


def test_an_error_of_the_host_is_no_wrong_address(site: Make) -> None:
    def viewer(request: Any) -> Access:
        return Access(viewer_id=OWNER, organizations=[1], zone="Mars")

    application = app(connect="", key="00000000.secret", viewer=viewer)
    with pytest.raises(InvalidInput, match="Mars"):
        fetch(application, "/")


class Waits:
    def __await__(self) -> Any:
        yield


def test_a_header_that_is_nothing_or_waits_is_not_shown_as_such(site: Make) -> None:
    (page,) = fetch(site(header=lambda request: None), "/")
    assert page.status_code == 200 and "None" not in page.text
    with pytest.raises(TypeError, match="not asynchronous"):
        fetch(site(footer=lambda request: Waits()), "/")


def fails(*arguments: Any) -> Any:
    raise ZeroDivisionError("a secret of the host")


@pytest.mark.parametrize("given", [
    {"viewer": fails}, {"header": fails}, {"search": fails}, {"connect": fails},
    {"connect": lambda: None}, {"viewer": lambda request: "ann"},
])  # fmt: skip
def test_an_error_of_the_host_is_a_page_and_goes_into_its_log(
    site: Make, shop: Database, given: dict[str, Any]
) -> None:
    access = Access(viewer_id=OWNER, organizations=[1])
    application = app(**{
        "connect": shop.conninfo("app_reader"), "key": shop.key,
        "viewer": lambda request: access, **given})  # fmt: skip

    async def ask(raises: bool) -> list[httpx.Response]:
        transport = httpx.ASGITransport(application, raises, "/audit")
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return [await client.get(f"/audit{path}?text=ann") for path in ("/", "/api/events")]

    page, api = asyncio.run(ask(raises=False))
    assert page.status_code == 500 and "<h1>The application failed</h1>" in page.text
    assert "secret of the host" not in page.text + api.text
    if "header" not in given:
        assert api.json()["error"] == "host" and api.status_code == 500
    for answer in (page, api):
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["cache-control"] == "no-store"
    with pytest.raises((ZeroDivisionError, TypeError)):
        asyncio.run(ask(raises=True))


def test_fifty_requests_at_once_are_answered(site: Make) -> None:
    application = site()

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            answers = await asyncio.gather(*(client.get("/") for _ in range(50)))
            assert all(len(texts(answer.text)) == 8 for answer in answers)
            return [answer.status_code for answer in answers]

    assert asyncio.run(ask()) == [200] * 50
