"""Formats: each is valid by the schema of those who made it, and nothing of an event is lost."""

from __future__ import annotations

import csv
import json
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from auditdb import Event
from auditdb.cli import export
from auditdb.export.canonical import VALUES, fields_of, line_of, loads
from auditdb.export.formats import FORMATS
from auditdb.export.formats.ocsf_mapping import mapping, meaning_of
from auditdb.values.plain import as_cell, as_json_cell
from tests import ocsf
from tests.conftest import Database
from tests.export.test_canonical import EVENT, JSON, ROW, SERIES, TEXT

DOCS = Path(__file__).parents[2] / "docs"
DETAILS = st.none() | JSON | st.fixed_dictionaries(
    {},
    optional={
        "ip": st.sampled_from(
            ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "fe80::1%eth0", "10.0.0.1:443", "", 7]
        ),
        "method": st.sampled_from(["GET", "totp", "passkey", "carrier pigeon", None, ["sms"]]),
        "group": st.none() | st.just({"type": "team", "id": "5"}) | TEXT,
        **{
            name: TEXT | st.integers() | st.none()
            for name in ("user_agent", "request_id", "route", "reason", "new_role", "device",
                         "device_id")
        },
    },
).map(json.dumps)  # fmt: skip
ACTION = st.sampled_from(sorted({*mapping()["action"], "report.exported", "odd", "a.b_c"})) | TEXT
LINE = st.builds(
    lambda row, action, details, result, actor_type, source, series: line_of(
        Event(**{
            **row, "transaction_id": int(row["transaction_id"]), "series_id": None,
            "action": action, "result": result, "actor_type": actor_type, "source": source,
            **{name: loads(row[name] or "null") for name in VALUES},
            "details": loads(details or "null"),
        }),
        series,
    ),
    ROW,
    ACTION,
    DETAILS,
    st.sampled_from(["success", "failure", "denied"]) | TEXT,
    st.sampled_from(["user", "api_key", "system", "agent", "database"]) | TEXT,
    st.sampled_from(["web", "saml", "oauth"]) | TEXT,
    st.sampled_from([SERIES, None]),
)  # fmt: skip


@cache
def official(class_name: str, profiles: tuple[str, ...]) -> Draft202012Validator:
    """Return what validates an event of a class against the official schema."""
    schemas = OcsfJsonSchemaEmbedded(_ocsf())
    return Draft202012Validator(schemas.get_class_schema(class_name, profiles=list(profiles)))


def _int(digits: str) -> int:
    """Return a whole number; what Python would refuse to read is one all the same."""
    return int(digits[:4000])


@cache
def _ocsf() -> Any:
    return get_ocsf_schema(version=mapping()["version"])


def problems(line: bytes) -> list[str]:
    """Return what the official schema finds wrong with an event as OCSF."""
    event = json.loads(FORMATS["ocsf"].convert(line), parse_int=_int)
    (name,) = (n for n, c in mapping()["class"].items() if c["uid"] == event["class_uid"])
    validator = official(name, tuple(event["metadata"]["profiles"]))
    return [error.message[:300] for error in validator.iter_errors(event)]


RICH: dict[str, Any] = {
    "actor_id": "7", "actor_type": "user", "impersonator_id": "1", "db_user": "app",
    "db_role": "app_writer", "organization_id": "1", "target_type": "membership",
    "target_id": "1/2", "subject_id": "2", "source": "saml", "captured_from": "public.membership",
    "old_values": {"role": "MEMBER"}, "new_values": {"role": "OWNER"},
    "details": {
        "ip": "192.0.2.1", "user_agent": "curl", "request_id": "r", "method": "totp",
        "route": "/members", "reason": "ticket", "new_role": "OWNER", "device": "laptop",
        "group": {"type": "team", "id": "5"},
    },
}  # fmt: skip
POOR: dict[str, Any] = {"actor_type": "system", "db_user": "app", "source": "cron"}


@pytest.mark.parametrize(
    "action", sorted({*ocsf.built_in(), *mapping()["action"], "a.b", "a.read"})
)
def test_every_action_is_valid_ocsf_rich_or_poor(action: str) -> None:
    for said, result in product((RICH, POOR), ("success", "failure", "denied", "unheard")):
        event = {name: getattr(EVENT, name) for name in EVENT.__slots__}
        line = line_of(Event(**{**event, **said, "action": action, "result": result}), SERIES)
        assert problems(line) == []


@settings(max_examples=100, deadline=None)
@given(line=LINE)
def test_any_event_is_valid_ocsf(line: bytes) -> None:
    assert problems(line) == []


def columns_of(event: dict[str, Any]) -> dict[str, Any]:
    """Return the columns that an event of OCSF was made of."""
    rest = dict(event.get("unmapped", {}))
    if "entity" in event:
        rest["old_values"] = event["entity"].get("data")
        rest["new_values"] = event.get("entity_result", {}).get("data")
    uid = event["metadata"]["uid"].split(":")
    user = event["actor"].get("user", {})
    return {
        **dict.fromkeys((name for name in EVENT.__slots__ if name != "series_id"), None),
        **rest,
        "version": 1,
        "series": None if uid[0] == "-" else uid[0],
        "id": uid[1],
        "occurred_at": event["metadata"]["original_time"],
        "transaction_id": event["metadata"]["correlation_uid"].split(":")[1],
        "action": event["metadata"]["event_code"],
        "result": event["status_code"],
        "actor_id": user.get("uid", user.get("name")),
        "organization_id": event["metadata"].get("tenant_uid"),
    }


@settings(max_examples=100, deadline=None)
@given(line=LINE)
def test_nothing_of_an_event_is_lost_in_ocsf(line: bytes) -> None:
    assert columns_of(loads(FORMATS["ocsf"].convert(line))) == loads(line)


def test_captions_and_numbers_are_those_of_the_official_schema() -> None:
    classes = _ocsf()["classes"]
    for name, its in mapping()["class"].items():
        said = classes[name]
        assert (its["uid"], its["caption"]) == (said["uid"], said["caption"])
        assert its["category"] == [said["category_uid"], said["category_name"]]
        known = said["attributes"]["activity_id"]["enum"]
        assert its["activities"] == {key: value["caption"] for key, value in known.items()}
    tables = {
        "severity": ("classes", "authentication", "severity_id"),
        "actor": ("objects", "user", "type_id"),
        "entity": ("objects", "managed_entity", "type_id"),
        "factor": ("objects", "auth_factor", "factor_type_id"),
        "protocol": ("classes", "authentication", "auth_protocol_id"),
    }
    for table, (group, name, attribute) in tables.items():
        known = _ocsf()[group][name]["attributes"][attribute]["enum"]
        for key, value in mapping()[table].items():
            number, caption = (key, value) if table == "severity" else value
            assert known[str(number)]["caption"] == caption, (table, key)


def test_every_built_in_action_and_verb_has_a_meaning_of_its_own(db: Database) -> None:
    with db.connect() as conn:
        own = {name for (name,) in conn.execute("select name from audit.action where is_built_in")}
    assert own <= ocsf.built_in()
    data = mapping()
    unsaid = {
        action
        for action in own | ocsf.built_in()
        if action not in data["action"] and action.rpartition(".")[2] not in data["verb"]
    }
    assert unsaid == set()
    # Nothing of auditdb's own falls to the rule for verbs that anybody may use.
    assert {a for a in own if a.startswith(("audit.", "auth."))} <= set(data["action"])


@pytest.mark.parametrize(
    ("action", "has_target", "expected"),
    [
        ("auth.login", True, (3002, 1, "Logon")),
        ("auth.impersonation_started", True, (3002, 7, "Account Switch")),
        ("auth.password_changed", True, (3001, 3, "Password Change")),
        ("auth.two_factor_enabled", True, (3001, 10, "MFA Factor Enable")),
        ("auth.two_factor_disabled", True, (3001, 11, "MFA Factor Disable")),
        ("membership.added", True, (3006, 3, "Add User")),
        ("membership.removed", True, (3006, 4, "Remove User")),
        ("membership.role_changed", True, (3005, 1, "Assign Privileges")),
        ("api_key.created", True, (3004, 1, "Create")),
        ("workflow.modified", True, (3004, 3, "Update")),
        ("invoice.deleted", True, (3004, 4, "Delete")),
        ("invoice.sent_twice", True, (3004, 99, "Sent twice")),
        ("report.deleted", False, (6003, 99, "Deleted")),
    ],
)
def test_actions_mean_what_the_design_says(
    action: str, has_target: bool, expected: tuple[int, int, str]
) -> None:
    name, activity, caption, _ = meaning_of(action, has_target=has_target)
    assert (mapping()["class"][name]["uid"], activity, caption) == expected


def test_who_acts_as_whom_from_where_is_told_in_ocsf() -> None:
    line = line_of(Event(**{**_event(), **RICH, "action": "membership.role_changed",
                            "result": "denied"}), SERIES)  # fmt: skip
    event = json.loads(FORMATS["ocsf"].convert(line))
    assert event["actor"] == {
        "user": {"uid": "7", "type_id": 1, "type": "User"}, "session": {"issuer": "1"}
    }  # fmt: skip
    assert event["src_endpoint"] == {"ip": "192.0.2.1"}
    assert event["device"] == {"name": "laptop", "type_id": 0}
    assert (event["status_id"], event["status_code"], event["severity"]) == (2, "denied", "Medium")
    assert (event["privileges"], event["user"]["uid"]) == (["OWNER"], "2")
    assert event["metadata"]["uid"] == f"{SERIES}:1"
    assert event["metadata"]["tenant_uid"] == "1"
    assert event["time_dt"] == "2026-01-02T00:00:00.000000Z"
    assert event["time"] == 1767312000000


def _event() -> dict[str, Any]:
    return {name: getattr(EVENT, name) for name in EVENT.__slots__}


@pytest.mark.parametrize("at", ["infinity", "0044-03-15T12:00:00.000000Z BC"])
def test_a_time_that_nobody_can_write_stays_in_original_time(at: str) -> None:
    line = line_of(Event(**{**_event(), **POOR, "action": "a.b", "result": "success",
                            "occurred_at": at}), SERIES)  # fmt: skip
    assert problems(line) == []
    event = json.loads(FORMATS["ocsf"].convert(line))
    assert (event["time"], event["metadata"]["original_time"]) == (0, at)
    assert "time" not in json.loads(FORMATS["cloudevents"].convert(line))


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_what_is_nested_beyond_reason_passes(name: str) -> None:
    line = line_of(Event(**{**_event(), **RICH, "action": "a.b", "result": "success"}), SERIES)
    deep = b"[" * 100_000 + b"]" * 100_000
    head, _, _ = line.partition(b',"details":')
    assert deep in FORMATS[name].convert(head + b',"details":' + deep + b"}")


@settings(max_examples=100, deadline=None)
@given(line=LINE)
def test_a_line_is_valid_by_its_schema(line: bytes) -> None:
    schema = json.loads((DOCS / "event-1.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    assert FORMATS["jsonl"].convert(line) == line
    event = json.loads(line, parse_int=_int)
    assert [error.message for error in Draft202012Validator(schema).iter_errors(event)] == []


def test_the_schema_of_a_line_refuses_another_version_or_column() -> None:
    validator = Draft202012Validator(json.loads((DOCS / "event-1.schema.json").read_text()))
    line = line_of(Event(**{**_event(), **RICH, "action": "a.b", "result": "success"}), SERIES)
    event = json.loads(line)
    for wrong in ({"version": 2}, {"more": 1}, {"id": 1}, {"occurred_at": "2026-01-01"}):
        assert not validator.is_valid({**event, **wrong})


@settings(max_examples=100, deadline=None)
@given(line=LINE)
def test_cloudevents_are_read_by_the_official_library(line: bytes) -> None:
    made = FORMATS["cloudevents"].convert(line)
    assert made.endswith(b'"data":' + line + b"}")
    attributes = loads(made)
    assert attributes.pop("data") == loads(line)
    event = JSONFormat().read(None, json.dumps({**attributes, "data": {}}))
    fields = fields_of(line)
    assert (event.get_id(), event.get_source()) == (
        fields["id"], f"urn:uuid:{SERIES}" if fields["series"] else "urn:auditdb")  # fmt: skip
    for value in attributes.values():
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in value)


@settings(max_examples=100, deadline=None)
@given(line=LINE)
def test_csv_has_a_cell_for_each_column_and_no_formula(line: bytes) -> None:
    made = FORMATS["csv"].head + FORMATS["csv"].convert(line) + b"\n"
    names, cells = csv.reader(made.decode().splitlines(keepends=True), strict=True)
    fields = fields_of(line)
    assert names == list(fields)
    assert not any(cell[:1] in "=+-@\t\r\n" for cell in cells if cell)
    for name, cell in zip(names, cells, strict=True):
        if name in ("version", "series", "occurred_at", "transaction_id"):
            assert cell == str(fields[name] or "")


def test_the_document_of_ocsf_is_made_of_the_mapping() -> None:
    assert (DOCS / "ocsf.md").read_text() == ocsf.markdown()


@settings(max_examples=100, deadline=None)
@given(line=LINE)
def test_a_cell_of_csv_is_what_as_cell_makes_of_its_value(line: bytes) -> None:
    (cells,) = csv.reader([FORMATS["csv"].convert(line).decode()], strict=True)
    for (name, value), cell in zip(fields_of(line).items(), cells, strict=True):
        if name in VALUES:
            value = None if value == "null" else value
            is_json = value is not None and value[:1] in ("{", "[")
            assert cell == (as_json_cell(str(value)) if is_json else as_cell(value))
        else:
            assert cell == as_cell(value)


def test_formats_are_the_same_wherever_they_are_named(db: Database) -> None:
    """In the registry, in the command, which loads no package before it has to, and in SQL."""
    assert sorted(export.FORMATS) == sorted(FORMATS)
    conn = db.connect()
    check = "select audit_private.check_subscription('s', '-', %s, '{}', '1 day')"
    for name in FORMATS:
        conn.execute(check, [name])
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
        conn.execute(check, ["xml"])
    named = str(refused.value).splitlines()[0].partition("one of ")[2]
    assert sorted(named.split(", ")) == sorted(FORMATS)
