"""A row read as audit_owner, as audit_mapper, and by the fallback says the same."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import Database

TABLES = """
create type mood as enum ('fine', 'with space');
create table typed (
    organization_id int, user_id int, role {role}, at timestamptz, mood mood, tags text[],
    score numeric, note json, key_hash text, removed_at date, updated_at timestamptz,
    primary key (user_id)
);
create table raw (like typed including all);
create table fallen (like typed including all);
select audit.attach('typed', 'membership', redact => '{{mood}}', admin => 'false');
select audit.attach('raw', 'membership', redact => '{{mood}}', admin => 'false',
    organization => 'r.organization_id + 0', subject => 'r.user_id + 0',
    target_id => 'r.user_id + 0');
select audit.attach('fallen', 'membership', redact => '{{mood}}', admin => 'false');
grant all on typed, raw, fallen to app;
"""
WAYS = ("typed", "raw", "fallen")
STATEMENTS = [
    "insert into {} values (1, 1, 'MEMBER', '2020-01-01', 'fine', '{{a,NULL}}', 1.0, '[1]', 'h')",
    "insert into {} (user_id, role) values (2, null)",
    "insert into {} (user_id, role, removed_at) values (3, 'MEMBER', 'infinity')",
    "insert into {} (user_id, organization_id, role) values (4, 2, repeat('x', 201))",
    r"""insert into {} (user_id, note) values (5, '{{"api_key": "k"}}')""",
    "update {} set role = 'member' where user_id = 1",
    "update {} set role = 'OWNER', score = 1.00, mood = 'with space' where user_id < 3",
    "update {} set organization_id = null, tags = '[2:2]={{b}}', key_hash = 'i' where user_id = 1",
    "update {} set organization_id = 7 where user_id in (1, 4)",
    "update {} set updated_at = '2021-01-01'",
    "update {} set role = role",
    "update {} set removed_at = '2020-01-01', role = 'GONE' where user_id < 3",
    "update {} set removed_at = null where user_id < 4",
    "update {} set note = '{{\"a\": 1}}', score = 'NaN', at = '-infinity', mood = null",
    "update {} set user_id = user_id + 10 where user_id = 2",
    "delete from {}",
]
CONTEXTS = [
    "", '{"actor_id": "7"}',
    '{"actor_id": "7", "actor_type": "user", "impersonator_id": "8", "source": "web",'
    ' "organization_id": "o", "details": {"ip": "::1", "new_role": "claimed"}}',
    '{"details": 3, "source": null}',
]  # fmt: skip


def said(db: Database, table: str) -> list[dict[str, Any]]:
    own = ("id", "occurred_at", "transaction_id", "captured_from")
    events = db.events(f"captured_from = 'public.{table}'")
    return [{name: e[name] for name in e if name not in own} for e in events]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("role", ["text", "mood_role", "char(9)"])
def test_all_ways_say_the_same(empty_db: Database, role: str, context: str) -> None:
    owner = empty_db.connect("app_owner")
    names = ["MEMBER", "member", "OWNER", "GONE", "x" * 63]
    owner.execute(f"create type mood_role as enum ({', '.join(map(repr, names))})".encode())
    owner.execute(TABLES.format(role=role).encode())
    app = empty_db.connect("app")
    for statement in STATEMENTS:
        if "repeat" in statement and not role.startswith("text"):
            continue
        for table in WAYS:
            with app.transaction():
                app.execute("select set_config('auditdb.context', %s, true)", [context])
                if table == "fallen":  # As in a session that restores a dump.
                    app.execute("set local row_security = off")
                app.execute(statement.format(table).encode())
    typed = said(empty_db, "typed")
    assert len(typed) > 20
    assert not any("degraded" in (event["details"] or {}) for event in typed)
    for table in WAYS[1:]:
        assert said(empty_db, table) == typed, table


def test_the_three_ways_are_the_ones_that_are_meant(empty_db: Database) -> None:
    empty_db.connect("app_owner").execute(TABLES.format(role="text").encode())
    conn = empty_db.connect()
    reads = "select count(*) from pg_proc where proname ~ '^read_[0-9]+$'"
    assert conn.execute(reads).fetchone() == (1,)


def test_a_hundred_changes_take_one_transaction_id(empty_db: Database) -> None:
    empty_db.connect("app_owner").execute(TABLES.format(role="text").encode())
    app = empty_db.connect("app")
    for table in WAYS:
        with app.transaction():
            for number in range(100):
                app.execute(f"insert into {table} (user_id) values (%s)".encode(), [number])
        query = "select count(*), count(distinct xmin::text) from audit.event where captured_from"
        row = empty_db.connect().execute(f"{query} = 'public.{table}'".encode()).fetchone()
        assert row == (100, 1), table


def test_a_session_without_row_security_is_captured_in_whole(empty_db: Database) -> None:
    empty_db.connect("app_owner").execute(TABLES.format(role="text").encode())
    app: psycopg.Connection[Any] = empty_db.connect("app")
    for setting in ("on", "off"):
        app.execute(f"set row_security = {setting}".encode())
        app.execute("insert into typed (user_id, role) values (1, 'a')")
        app.execute("update typed set role = 'b'")
        app.execute("delete from typed")
    events = said(empty_db, "typed")
    assert len(events) == 6
    assert events[:3] == events[3:]


def test_columns_that_audit_mapper_reads_are_told_where_they_change(empty_db: Database) -> None:
    owner = empty_db.connect("app_owner")
    owner.execute("create domain address as text check (value like '%@%')")
    owner.execute("create domain amount as int check (value > 0)")
    owner.execute("create table contact (id int primary key, email address, n amount, note text)")
    owner.execute("select audit.attach('contact', 'contact')")
    for statement in (
        "insert into contact values (1, 'a@b', 1, 'x')",
        "update contact set email = 'c@d: token=canary'",
        "update contact set n = 2",
        "update contact set note = 'y'",
        "update contact set note = 'y', n = null",
        "update contact set note = 'y'",
    ):
        owner.execute(statement.encode())
    told = [(e["old_values"], e["new_values"]) for e in empty_db.events()]
    assert told == [
        (None, {"id": 1, "email": "a@b", "n": 1, "note": "x"}),
        ({"email": "a@b"}, {"email": "c@d: token=[redacted]"}),
        ({"n": 1}, {"n": 2}),
        ({"note": "x"}, {"note": "y"}),
        ({"n": 2}, {"n": None}),
    ]
    assert not any("degraded" in (e["details"] or {}) for e in empty_db.events())
