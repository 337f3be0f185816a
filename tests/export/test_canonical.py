"""The canonical bytes of an event: SQL and Python make the same ones, whatever an event holds."""

from __future__ import annotations

import functools
import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from auditdb import Event, InvalidInput
from auditdb.export.canonical import (
    COLUMNS,
    VALUES,
    dumps,
    fields_of,
    key_of,
    line_of,
    loads,
    place_of,
)
from tests.conftest import Database

SERIES = "0b1c9f2e-8d4a-4c55-9a07-3f1e5d6c7b8a"
TEXTS = [field.name for field in fields(Event) if field.type in ("str", "str | None")]
NEEDED = {"action", "result", "actor_type", "db_user", "source"}
# Escapes, controls, what JSON in JavaScript chokes on, pairs of surrogates, and what the bytes
# themselves consist of.
ODD = [
    *"\"\\/',:{}[]\x01\x08\t\n\x0b\x0c\r\x1b\x1f\x7f\x80\x85\xa0\u2028\u2029\ufeff\uffff",
    "\U0001f600", "\U0010ffff", "ä", "e\u0301", "\ud7ff", "\ue000", "\\u0000", "null",
    '"new_values":', ',"details":', '{"version":1', "}",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(ODD), max_size=5).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8
)
NUMBER = st.sampled_from([
    "0", "-0", "0.0", "-0.0", "1.10", "1e5", "-1E+5", "1e-7", "0e10", "9007199254740993", "1e400",
    "123456789012345678901234567890.123456789012345678901234567890", "1" * 5000, "-0." + "3" * 5000,
    "1E-400", "18446744073709551616", "1.0000000000000000", "100e-2",
])  # fmt: skip
ANY_NUMBER = (
    NUMBER | st.integers().map(str) | st.decimals(allow_nan=False, allow_infinity=False).map(str)
)


def _member(pair: tuple[str, str]) -> str:
    return f"{json.dumps(pair[0], ensure_ascii=False)} :{pair[1]}"


JSON = st.recursive(
    ANY_NUMBER
    | st.sampled_from(["true", "false", "null"])
    | TEXT.map(json.dumps)
    | TEXT.map(functools.partial(json.dumps, ensure_ascii=False)),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(TEXT, inner), max_size=4).map(
            lambda pairs: "{ " + ",".join(map(_member, pairs)) + "}"
        )
    ),
    max_leaves=8,
)
TIME = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
ROW = st.fixed_dictionaries(
    {
        **{name: TEXT if name in NEEDED else st.none() | TEXT for name in TEXTS},
        **{name: st.none() | JSON for name in VALUES},
        "id": st.integers(-(2**63), 2**63 - 1),
        "transaction_id": st.integers(0, 2**64 - 1).map(str),
        "occurred_at": TIME,
    }
)


def write(conn: psycopg.Connection[Any], row: dict[str, Any]) -> None:
    """Put an event into the log as no application can; values are text of JSON."""
    names = ", ".join(row)
    marks = ", ".join(f"%({name})s{'::jsonb' * (name in VALUES)}" for name in row)
    conn.execute(f"insert into audit.event ({names}) values ({marks})".encode(), row)


def read(conn: psycopg.Connection[Any], number: int, at: object) -> tuple[Event, bytes]:
    """Return an event as it is read, and its bytes as the server makes them."""
    row = conn.execute(
        """select e.*, e.transaction_id::text, audit.canonical(e, %s::uuid) as line
        from audit.event as e where id = %s and occurred_at = %s""",
        (SERIES, number, at),
    ).fetchone()
    assert row is not None
    line = row.pop("line").encode()
    row |= {"transaction_id": int(row["transaction_id"]), "series_id": None}
    return Event(**row), line


@pytest.fixture
def conn(db: Database) -> psycopg.Connection[Any]:
    """A superuser's connection, which reads numbers without loss."""
    conn = db.connect(row_factory=dict_row)
    conn.execute("set time zone 'UTC'")
    set_json_loads(loads, conn)
    return conn


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(row=ROW)
def test_python_makes_the_same_bytes_as_the_server(
    conn: psycopg.Connection[Any], row: dict[str, Any]
) -> None:
    with conn.transaction(force_rollback=True):
        write(conn, row)
        event, line = read(conn, row["id"], row["occurred_at"])
    assert line_of(event, SERIES) == line

    fields = fields_of(line)
    assert loads(line).keys() == fields.keys() == set(COLUMNS)
    assert (fields["id"], fields["actor_id"]) == (str(row["id"]), row["actor_id"])
    for name in VALUES:
        assert loads(fields[name]) == getattr(event, name)
    assert place_of(line)[0] == key_of(SERIES, row["id"])


_NOTHING: dict[str, Any] = dict.fromkeys([*TEXTS, *VALUES])
EVENT = Event(
    **_NOTHING, id=1, occurred_at=datetime(2026, 1, 2, tzinfo=UTC), transaction_id=7,
    series_id=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("written", "expected", "rfc3339"),
    [
        ("2026-01-02 03:04:05+00", "2026-01-02T03:04:05.000000Z", True),
        ("2026-01-02 03:04:05.1+05:30", "2026-01-01T21:34:05.100000Z", True),
        ("0001-01-01 00:00:00+00", "0001-01-01T00:00:00.000000Z", True),
        ("9999-12-31 23:59:59.999999+00", "9999-12-31T23:59:59.999999Z", True),
        ("0044-03-15 12:00:00.5+00 BC", "0044-03-15T12:00:00.500000Z BC", False),
        ("4713-11-24 00:00:00+00 BC", "4713-11-24T00:00:00.000000Z BC", False),
        ("10000-01-01 00:00:00+00", "10000-01-01T00:00:00.000000Z", False),
        ("294276-12-31 23:59:59.999999+00", "294276-12-31T23:59:59.999999Z", False),
        ("infinity", "infinity", False),
        ("-infinity", "-infinity", False),
    ],
)
def test_any_time_is_written_in_one_way(
    conn: psycopg.Connection[Any], written: str, expected: str, rfc3339: bool
) -> None:
    conn.execute(
        """insert into audit.event (id, occurred_at, action, result, actor_type, source)
        values (1000000, %s, 'a.b', 'success', 'user', 'web')""",
        (written,),
    )
    row = conn.execute(
        "select audit.canonical(e, %s) as line from audit.event as e where id = 1000000", (SERIES,)
    ).fetchone()
    assert row is not None
    line = row["line"].encode()
    assert fields_of(line)["occurred_at"] == json.loads(line)["occurred_at"] == expected
    assert place_of(line) == (f"{SERIES}:1000000", expected if rfc3339 else None)
    # Of a time that is no datetime, Python is given the text.
    event = replace(EVENT, occurred_at=expected)  # type: ignore[arg-type]
    assert fields_of(line_of(event, SERIES))["occurred_at"] == expected


def test_times_of_any_zone_are_the_same_bytes() -> None:
    india = datetime(2026, 1, 2, 5, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert line_of(replace(EVENT, occurred_at=india), None) == line_of(EVENT, None)


HOSTILE = {
    "TimeZone": "Asia/Kolkata",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "iso_8601",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "escape_string_warning": "off",
    "search_path": "mine, pg_catalog",
    "lc_numeric": "C",
    "quote_all_identifiers": "on",
    "transform_null_equals": "on",
}


def test_no_setting_of_the_session_changes_the_bytes(conn: psycopg.Connection[Any]) -> None:
    write(conn, {
        "id": 1000000, "occurred_at": "2026-03-29 01:30:00.000001+00", "action": "a.b",
        "result": "success", "actor_type": "user", "source": "\\ \" ä \x01",
        "details": '{"b": 1.10, "a": [1e3, "\\u00e4\\n"], "\\\\": null}',
    })  # fmt: skip
    query = "select audit.canonical(e, %s) as line from audit.event as e where id = 1000000"
    before = conn.execute(query, (SERIES,)).fetchone()
    conn.execute("create schema mine")
    conn.execute("""create function mine.to_char(timestamp, text) returns text
        language sql immutable return 'never'""")
    conn.execute("""create function mine.to_json(text) returns json
        language sql immutable return '"never"'::json""")
    for name, value in HOSTILE.items():
        conn.execute("select set_config(%s, %s, false)", (name, value))
    assert conn.execute(query, (SERIES,)).fetchone() == before
    assert "never" not in str(before)


def test_a_line_has_a_series_or_none(conn: psycopg.Connection[Any]) -> None:
    row = conn.execute(
        "select audit.canonical(e, null) as line from audit.event as e limit 1"
    ).fetchone()
    assert row is not None
    assert row["line"].startswith('{"version":1,"series":null,"id":"')
    assert place_of(row["line"].encode())[0].startswith("-:")


@pytest.mark.parametrize("role", ["app_reader", "app_auditor"])
def test_who_reads_events_may_have_their_bytes(db: Database, role: str) -> None:
    conn = db.connect(role)
    query = "select count(audit.canonical(e, null)) = count(*) from audit.event as e"
    assert conn.execute(query).fetchone() == (True,)


def test_an_event_of_half_a_surrogate_pair_is_refused() -> None:
    for field in (
        {"actor_id": "\ud800"},
        {"details": {"\udfff": 1}},
        {"details": {"a": ["\udfff"]}},
    ):
        with pytest.raises(InvalidInput, match="surrogate"):
            line_of(replace(EVENT, **field), SERIES)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), Decimal("NaN"), {1}, {1: 2}, b""])
def test_what_is_none_of_json_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="JSON"):
        dumps({"a": [value]})


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e16, "10000000000000000"), (-0.0, "0.0"), (1e-7, "0.0000001"),
     (True, "true"), (Decimal("1E+3"), "1000"), ((1, [None]), "[1, [null]]"),
     ({"ä": 1, "aa": 2, "z": 3, "a": 4}, '{"a": 4, "z": 3, "aa": 2, "ä": 1}')],
)  # fmt: skip
def test_values_made_in_python_are_written_as_jsonb_would_be(
    conn: psycopg.Connection[Any], value: object, text: str
) -> None:
    assert dumps(value) == text
    assert dumps(10**5000) == "1" + "0" * 5000
    row = conn.execute("select %s::jsonb::text as text", (text,)).fetchone()
    assert row is not None
    assert row["text"] == text


@pytest.mark.parametrize(
    "line", [b"", b"{}", b'{"version":2,"series":null,"id":"1"', line_of(EVENT, None)[:-40]]
)
def test_bytes_of_no_event_are_refused(line: bytes) -> None:
    with pytest.raises(InvalidInput):
        fields_of(line)


VECTORS = json.loads(
    (Path(__file__).parents[2] / "docs" / "event-1.vectors.json").read_text(encoding="ascii")
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["what"])
def test_the_vectors_of_the_documents_hold(
    conn: psycopg.Connection[Any], vector: dict[str, Any]
) -> None:
    made = conn.execute(
        """with given as (
            select jsonb_populate_record(null::audit.event, %(event)s::jsonb || jsonb_build_object(
                'old_values', %(old_values)s::jsonb, 'new_values', %(new_values)s::jsonb,
                'details', %(details)s::jsonb)) as event
        )
        select audit.canonical(event, %(series)s) as line,
            encode(sha256(convert_to(audit.canonical(event, %(series)s), 'UTF8')), 'hex') as sha256
        from given""",
        {
            **dict.fromkeys(VALUES), **vector["values"],
            "event": json.dumps(vector["event"]), "series": vector["series"],
        },
    ).fetchone()  # fmt: skip
    assert made == {"line": vector["line"], "sha256": vector["sha256"]}
    line = vector["line"].encode()
    assert sha256(line).hexdigest() == vector["sha256"]
    fields = fields_of(line)
    event = Event(**{
        name: loads(fields[name]) if name in VALUES else fields[name] for name in _NOTHING
    } | {name: fields[name] for name in ("id", "occurred_at", "transaction_id")},
        series_id=None)  # fmt: skip
    assert line_of(event, vector["series"]) == line
