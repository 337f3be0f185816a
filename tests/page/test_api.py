"""The interface as JSON, and its description."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import openapi_spec_validator
import pytest

from auditdb import Event
from tests.page.conftest import MEMBER, fetch

Make = Callable[..., Any]


def test_an_event_holds_everything_and_the_sentence(site: Make) -> None:
    (page,) = fetch(site(), "/api/events?action=membership.role_changed&result=success")
    (event,) = page.json()["events"]
    assert {field.name for field in fields(Event)} < event.keys()
    assert event["sentence"] == "1 changed the role of bob@new.test from MEMBER to ADMIN"
    assert event["names"] == {"2": "bob@new.test"}
    assert (event["old_values"], event["new_values"]) == ({"role": "MEMBER"}, {"role": "ADMIN"})
    (one,) = fetch(site(), f"/api/events/{event['place']}")
    assert one.json() == event


def test_its_description_is_what_it_answers(site: Make) -> None:
    application = site()
    (described,) = fetch(application, "/api/openapi.json", root="/audit")
    document = described.json()
    assert document["openapi"].startswith("3.1") and document["servers"] == [{"url": "/audit/api"}]
    schema = document["components"]["schemas"]["Event"]
    (page,) = fetch(application, "/api/events")
    for event in page.json()["events"]:
        assert event.keys() == schema["properties"].keys()
        for name, value in event.items():
            kinds = schema["properties"][name]["type"]
            kind = {str: "string", int: "integer", dict: "object", type(None): "null"}[type(value)]
            assert kind == kinds or kind in kinds, (name, value)
    # Each parameter is taken, and none is missing.
    get = document["paths"]["/events"]["get"]
    examples = {"result": "denied", "actor_type": "user", "last": "7d",
                "from": "2026-01-01", "to": "2036-01-01",
                "zone": "UTC", "language": "de", "within": "5", "organization": "1",
                "transaction_id": "1", "series_id": "1", "action": "auth",
                "signal": "new_owner"}  # fmt: skip
    cursors = {"after": page.json()["next"], "before": page.json()["previous"]}
    for parameter in get["parameters"]:
        name = parameter["name"]
        value = cursors.get(name, examples.get(name, "x"))
        if value is not None:
            (answer,) = fetch(application, f"/api/events?{name}={value}")
            assert answer.status_code == 200, (name, answer.text)


def test_the_description_is_valid(site: Make) -> None:
    (described,) = fetch(site(), "/api/openapi.json")
    openapi_spec_validator.validate(described.json())


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("actoin=auth", "unknown part, 'actoin'"),
        ("result=good", "it is one of success, failure, denied"),
        ("action=Auth.", "give category.verb"),
        ("last=1y", "it is one of 24h, 7d, 30d, 90d"),
        ("zone=Mars/Olympus", "there is no time zone"),
        ("language=xx", "there is no language"),
        ("after=nonsense", "is not a cursor"),
        ("from=2026-02-31", "no day"),
        ("from=2026-02-02&to=2026-02-01", "not before the other"),
        ("within=many", "whole number"),
        ("transaction_id=-1", "whole number"),
        ("text=%00", "NUL"),
    ],
)
def test_a_wrong_address_is_told_in_a_line(site: Make, query: str, said: str) -> None:
    api, page = fetch(site(), f"/api/events?{query}", f"/?{query}")
    assert (api.status_code, page.status_code) == (400, 400)
    assert said in api.json()["help"]
    assert "Traceback" not in page.text and "This address cannot be shown" in page.text


def test_one_who_may_not_read_is_told_so_as_json(site: Make) -> None:
    nobody, member, other = (
        fetch(site(who, organizations), "/api/events")[0]
        for who, organizations in ((None, [1]), (MEMBER, []), ("4", [2]))
    )
    assert [nobody.status_code, member.status_code, other.status_code] == [401, 403, 403]
    assert other.json()["error"] == "forbidden"
