"""Values that abort a plain `to_jsonb(NEW)`, and values that look as if they could."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.conftest import Database

# Types that an application, or an extension it uses, may bring along.
TYPES = """
create type mood as enum ('fine', 'with space', 'ü');
create type pair as (a int, "B b" text);
create type grudge as enum ('a');
create type secretive as enum ('a');
create domain short as text check (length(value) < 5);
create domain nested as pair[];
create type int_range as range (subtype = int8);
create function refuse_grudge(grudge) returns json language plpgsql as $$
begin
    raise exception 'no json of mine' using errcode = 'AP001';
end $$;
create cast (grudge as json) with function refuse_grudge(grudge);
create function assert_secretive(secretive) returns json language plpgsql as $$
begin
    assert false, 'not here';
end $$;
create cast (secretive as json) with function assert_secretive(secretive);
"""

# A base type as extensions make them, whose output function fails for every value: it stores an
# integer and prints it as a value of an enum.
BROKEN = """
create type broken;
create function broken_in(cstring) returns broken language internal strict immutable as 'int4in';
create function broken_out(broken) returns cstring language internal strict stable as 'enum_out';
create type broken (input = broken_in, output = broken_out, like = int4);
"""

DEEP = "(repeat('[', 500) || repeat(']', 500))"


@dataclass(frozen=True)
class Poison:
    """One value: what it is stored as, and what its event may lose."""

    name: str
    type: str
    value: str
    #: "" where the event is complete, `as_text` or `lost` where it cannot be.
    degraded: str = ""


POISONS = [
    Poison("json with a null character", "json", r"""'{"a": "x\u0000y"}'""", "as_text"),
    Poison("json with a lone high surrogate", "json", r"""'"\ud800"'""", "as_text"),
    Poison("json with a lone low surrogate", "json", r"""'["\udc00"]'""", "as_text"),
    Poison("json number beyond numeric", "json", "'1e1000000'", "as_text"),
    Poison("json array with a null character", "json[]", r"""array['"\u0000"'::json]""", "as_text"),
    Poison("json with duplicate keys", "json", """'{"a": 1, "a": 2}'"""),
    Poison("json null", "json", "'null'"),
    Poison("json in deep nesting", "json", f"{DEEP}::json"),
    Poison("jsonb in deep nesting", "jsonb", f"{DEEP}::jsonb"),
    Poison("jsonb number of 400 digits", "jsonb", "'1e400'"),
    Poison("jsonb with an empty key", "jsonb", """'{"": {"": null}}'"""),
    Poison("jsonb that looks like a redaction", "jsonb", """'"[redacted]"'"""),
    Poison("numeric NaN", "numeric", "'NaN'"),
    Poison("numeric infinity", "numeric", "'-Infinity'"),
    Poison("numeric with 4,000 digits", "numeric", "('1' || repeat('0', 3999))::numeric"),
    Poison("float NaN", "float8", "'NaN'"),
    Poison("float infinity", "float4", "'Infinity'"),
    Poison("float minus zero", "float8", "'-0'"),
    Poison("float denormal", "float8", "'5e-324'"),
    Poison("timestamptz infinity", "timestamptz", "'infinity'"),
    Poison("timestamp minus infinity", "timestamp", "'-infinity'"),
    Poison("date infinity", "date", "'infinity'"),
    Poison("date before Christ", "date", "'4713-01-01 BC'"),
    Poison("timestamptz before Christ", "timestamptz", "'0044-03-15 BC'"),
    Poison("date in year 5,874,897", "date", "'5874897-12-31'"),
    Poison("time of 24:00", "time", "'24:00'"),
    Poison("timetz of 24:00", "timetz", "'24:00:00-1559'"),
    Poison("interval at its end", "interval", "'178000000 years'"),
    Poison("interval of mixed signs", "interval", "'1 mon -1 day +00:00:00.000001'"),
    Poison("money", "money", "'-92233720368547758.08'"),
    Poison("bytea of all bytes", "bytea", r"decode('00ff5c27', 'hex')"),
    Poison("text of 10 MB", "text", "repeat('x', 10000000)"),
    Poison("text with every quote", "text", r"""E'\'"\\\\$$\n\r\t\u2028\U0001F600'"""),
    Poison("text with format directives", "text", "'%s %I %1$L {} %%'"),
    Poison("empty text", "text", "''"),
    Poison("padded char", "char(10)", "'x'"),
    Poison('single-byte "char"', '"char"', r"""'\377'"""),
    Poison("xml", "xml", "'<a b=\"c\">d</a>'::xml"),
    Poison("inet", "inet", "'fe80::1/64'"),
    Poison("cidr", "cidr", "'10.0.0.0/8'"),
    Poison("macaddr8", "macaddr8", "'08:00:2b:01:02:03:04:05'"),
    Poison("bit varying", "varbit", "B'10101'"),
    Poison("tsvector", "tsvector", "'fat:1A cat:2'"),
    Poison("tsquery", "tsquery", "'fat & !cat'"),
    Poison("point with NaN", "point", "'(NaN,Infinity)'"),
    Poison("polygon", "polygon", "'((0,0),(1,1),(1,0))'"),
    Poison("uuid", "uuid", "'00000000-0000-0000-0000-000000000000'"),
    Poison("pg_lsn", "pg_lsn", "'FFFFFFFF/FFFFFFFF'"),
    Poison("regclass of no table", "regclass", "'4000000000'"),
    Poison("jsonpath", "jsonpath", "'$.a[*] ? (@ > 1)'"),
    Poison("array with nulls and odd bounds", "int[]", "'[5:6]={1,NULL}'"),
    Poison("array of six dimensions", "int[]", "'{{{{{{1}}}}}}'"),
    Poison("enum with a space", "mood", "'with space'"),
    Poison("array of enums", "mood[]", "'{fine,ü}'"),
    Poison("composite with a quoted field", "pair", "row(1, 'x')"),
    Poison("array of composites in a domain", "nested", "array[row(1, 'x')::pair]"),
    Poison("composite of nulls", "pair", "row(null, null)"),
    Poison("domain", "short", "'abc'"),
    Poison("range, empty", "int4range", "'empty'"),
    Poison("range of infinity", "tstzrange", "'[-infinity,infinity]'"),
    Poison("range of one's own", "int_range", "'[1,9)'"),
    Poison("multirange", "datemultirange", "'{[2020-01-01,2020-02-01)}'"),
    Poison("type whose cast to json raises", "grudge", "'a'", "as_text"),
    Poison("type whose cast to json fails an assertion", "secretive", "'a'", "as_text"),
    Poison("array of a type whose cast to json raises", "grudge[]", "'{a}'", "as_text"),
    Poison("type whose output fails", "broken", "'5'", "lost"),
    Poison("array of a type whose output fails", "broken[]", "array['5'::broken]", "lost"),
]


def possible(conn: psycopg.Connection[Any], poison: Poison) -> bool:
    """Return whether this server has the type: some are built without XML."""
    try:
        conn.execute("select xml '<a/>'")
    except psycopg.errors.FeatureNotSupported:
        return poison.type != "xml"
    return True


@pytest.fixture
def poisoned(empty_db: Database) -> Database:
    """A database with one attached table for each poison, and one like it that is not attached."""
    with psycopg.connect(empty_db.dsn) as conn:
        conn.execute(BROKEN)
    with psycopg.connect(empty_db.conninfo("app_owner")) as conn:
        conn.execute(TYPES)
        for number, poison in enumerate(POISONS):
            for table in (f"poison_{number}", f"naive_{number}"):
                conn.execute(f"create table {table} (id int primary key, v {poison.type}, n int)")
            conn.execute(f"select audit.attach('poison_{number}', 'poison', ignore => '{{-v}}')")
            conn.execute(NAIVE.format(number))
        conn.execute("grant all on all tables in schema public to app")
    return empty_db


NAIVE = """
create or replace function naive() returns trigger language plpgsql as $$
begin
    perform to_jsonb(new);
    return null;
end $$;
create trigger naive after insert on naive_{0} for each row execute function naive();
"""


def degraded(event: dict[str, Any]) -> str:
    loss = (event["details"] or {}).get("degraded", {})
    return "lost" if "lost" in loss else "as_text" if "as_text" in loss else ""


def test_no_value_keeps_a_row_from_being_written_or_recorded(poisoned: Database) -> None:
    conn = poisoned.connect("app")
    poisons = [(n, p) for n, p in enumerate(POISONS) if possible(conn, p)]
    assert len(poisons) >= 40
    for number, poison in poisons:
        conn.execute(f"insert into poison_{number} values (1, {poison.value}, 0)")
        conn.execute(f"update poison_{number} set n = 1")
        conn.execute(f"update poison_{number} set v = null")
        conn.execute(f"update poison_{number} set v = {poison.value}")
        conn.execute(f"delete from poison_{number}")
    verbs = ["created", "updated", "updated", "updated", "deleted"]
    outcome = Counter[str]()
    for number, poison in poisons:
        events = poisoned.events(f"captured_from = 'public.poison_{number}'")
        assert [e["action"] for e in events] == [f"poison.{v}" for v in verbs], poison
        assert {e["target_id"] for e in events} == {"1"}, poison
        created, counted, emptied, filled, deleted = events
        for event in (created, emptied, filled, deleted):
            assert degraded(event) == poison.degraded, (poison, event)
        assert created["new_values"].keys() == {"id", "v", "n"}, poison
        assert (counted["old_values"], counted["new_values"]) == ({"n": 0}, {"n": 1}), poison
        assert degraded(counted) == "", poison
        outcome[poison.degraded or "complete"] += 1
    assert outcome == Counter(p.degraded or "complete" for _, p in poisons)


def test_a_value_kept_as_text_is_the_value(poisoned: Database) -> None:
    conn = poisoned.connect("app")
    for number, poison in enumerate(POISONS):
        if poison.degraded == "as_text":
            conn.execute(f"insert into poison_{number} values (1, {poison.value}, 0)")
            row = conn.execute(f"select v::text from poison_{number}").fetchone()
            assert row is not None
            (event,) = poisoned.events(f"captured_from = 'public.poison_{number}'")
            assert event["new_values"]["v"] == row[0], poison
            assert event["details"]["degraded"]["as_text"] == ["v"]


def test_a_naive_trigger_aborts_on_every_degraded_value(poisoned: Database) -> None:
    """The twin: what the others lose, rows and all."""
    conn = poisoned.connect("app")
    for number, poison in enumerate(POISONS):
        if not possible(conn, poison):
            continue
        try:
            conn.execute(f"insert into naive_{number} values (1, {poison.value}, 0)")
            aborted = False
        except psycopg.Error:
            aborted = True
        assert aborted == bool(poison.degraded), poison


def test_json_nested_as_deep_as_the_server_takes_is_recorded(poisoned: Database) -> None:
    number = next(n for n, p in enumerate(POISONS) if p.name == "json in deep nesting")
    owner = poisoned.connect("app_owner")
    owner.execute(f"drop trigger naive on naive_{number}")
    admin = poisoned.connect()
    conn = poisoned.connect("app")

    def insert(table: str, depth: int) -> None:
        conn.execute(
            f"insert into {table}_{number}"
            " values (%s, (repeat('[', %s) || repeat(']', %s))::json, 0)",
            [depth, depth, depth],
        )

    low, high = 1000, 1_000_000
    while high - low > 20:
        depth = (low + high) // 2
        try:
            insert("naive", depth)
            low = depth
        except psycopg.errors.StatementTooComplex:
            high = depth
    insert("poison", low)
    insert("poison", low // 2)
    # Python's own parser would not take them.
    recorded = admin.execute("select count(*) from audit.event where action = 'poison.created'")
    assert recorded.fetchone() == (2,)


def test_text_too_long_for_jsonb_is_recorded_as_redacted(poisoned: Database) -> None:
    number = next(n for n, p in enumerate(POISONS) if p.name == "text of 10 MB")
    conn = poisoned.connect("app")
    conn.execute(f"insert into poison_{number} values (1, repeat('x', 270000000), 0)")
    (event,) = poisoned.events()
    assert event["target_id"] == "1"
    assert event["new_values"] == {"id": 1, "v": "[redacted]", "n": 0}


CONTEXTS = [
    "no json", "[1, 2]", "3", "null", '"text"', "{", '{"actor_id": {"a": 1}}', '{"details": 3}',
    '{"details": [1]}', r'{"actor_id": "\u0000"}', '{"actor_id": null}', '{"source": ["web"]}',
    '{"organization_id": "' + "x" * 10_000 + '"}', '{"details": {"a": "' + "x" * 3_000_000 + '"}}',
    "[" * 5000 + "]" * 5000, "\t \n", "{}", '{"actor_id": "💥 \' \\" %s"}',
]  # fmt: skip


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda c: c[:20])
def test_no_context_keeps_a_row_from_being_written_or_recorded(db: Database, context: str) -> None:
    conn = db.connect("app")
    with conn.transaction():
        conn.execute("select set_config('auditdb.context', %s, true)", [context])
        conn.execute("update membership set role = 'OWNER' where user_id = 2")
        conn.execute("insert into workflow (organization_id, name) values (1, 'w')")
    changed, created = db.events()[-2:]
    assert changed["action"] == "membership.role_changed"
    assert created["action"] == "workflow.created"
    assert changed["db_user"] == created["db_user"] == "app"
    assert changed["new_values"] == {"role": "OWNER"}


@pytest.mark.parametrize("name", ["actor_id", "actor_type", "impersonator_id", "source",
                                  "organization_id"])  # fmt: skip
def test_no_identifier_of_the_context_is_too_long_for_a_change_of_a_plain_table(
    db: Database, name: str
) -> None:
    owner = db.connect("app_owner")
    owner.execute("create table note (id int primary key, said text); grant all on note to app")
    owner.execute("select audit.attach('note', 'note')")
    # No repetition, which would be compressed to something that an index takes.
    long = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(20_000))
    conn = db.connect("app")
    with conn.transaction():
        conn.execute("select set_config('auditdb.context', %s, true)", [json.dumps({name: long})])
        conn.execute("insert into note values (1, 'a')")
        conn.execute("update note set said = 'b'")
        conn.execute("delete from note")
    events = db.events("target_type = 'note'")
    assert [event["action"] for event in events] == ["note.created", "note.updated", "note.deleted"]
    assert {event[name] for event in events} == {long[:200]}
