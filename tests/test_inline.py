"""The short way of capture: it says what the long way says, and gives way where it cannot."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import Database

TABLES = """
create type mood as enum ('fine', 'with space');
create table short (
    organization_id int, user_id int, role {role}, at timestamptz, mood mood, tags text[],
    score numeric, note json, key_hash text, removed_at date, updated_at timestamptz,
    primary key (user_id)
);
create table long (like short including all);
select audit.attach('short', 'membership', redact => '{{mood}}', admin => 'false');
select audit.attach('long', 'membership', redact => '{{mood}}', admin => 'false',
    organization => 'r.organization_id + 0');
grant all on short, long to app;
"""
STATEMENTS = [
    "insert into {} values (1, 1, 'MEMBER', '2020-01-01', 'fine', '{{a,NULL}}', 1.0, '[1]', 'h')",
    "insert into {} (user_id, role) values (2, null)",
    "insert into {} (user_id, role, removed_at) values (3, 'MEMBER', 'infinity')",
    "insert into {} (user_id, organization_id, role) values (4, 2, repeat('x', 201))",
    r"""insert into {} (user_id, note) values (5, '"\u0000"')""",
    "update {} set role = 'member' where user_id = 1",
    "update {} set role = 'OWNER', score = 1.00, mood = 'with space' where user_id < 3",
    "update {} set organization_id = null, tags = '[2:2]={{b}}', key_hash = 'i' where user_id = 1",
    "update {} set updated_at = '2021-01-01'",
    "update {} set role = role",
    "update {} set removed_at = '2020-01-01', role = 'GONE' where user_id < 3",
    "update {} set removed_at = null where user_id < 4",
    "update {} set note = '{{\"a\": 1}}', score = 'NaN', at = '-infinity', mood = null",
    "update {} set user_id = user_id + 10 where user_id = 2",
    "delete from {}",
]
CONTEXTS = [
    "", "no json", "[1]", '{"actor_id": "7"}',
    '{"actor_id": "7", "actor_type": "user", "impersonator_id": "8", "source": "web",'
    ' "organization_id": "o", "details": {"ip": "::1", "new_role": "claimed"}}',
    '{"details": 3, "source": null}',
]  # fmt: skip
COLLATION = """create collation loose
    (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"""


def inline(db: Database) -> dict[str, bool]:
    """Return which attached tables take the short way."""
    query = "select target::text, audit.is_inline(target, mapping) from audit.attachment"
    return dict(db.connect().execute(query).fetchall())


def loosen(owner: psycopg.Connection[Any]) -> None:
    """Create a collation to which upper and lower case are equal, where the server can."""
    try:
        owner.execute(COLLATION)
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this server was built without ICU")


def said(db: Database, table: str) -> list[dict[str, Any]]:
    own = ("id", "occurred_at", "transaction_id", "captured_from")
    events = db.events(f"captured_from = 'public.{table}'")
    return [{name: e[name] for name in e if name not in own} for e in events]


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("role", ["text", "mood_role", "char(9)", "text collate loose"])
def test_both_ways_say_the_same(empty_db: Database, role: str, context: str) -> None:
    owner = empty_db.connect("app_owner")
    if "loose" in role:
        loosen(owner)
    names = ["MEMBER", "member", "OWNER", "GONE", "x" * 63]
    owner.execute(f"create type mood_role as enum ({', '.join(map(repr, names))})".encode())
    owner.execute(TABLES.format(role=role).encode())
    assert inline(empty_db) == {"short": True, "long": False}
    app = empty_db.connect("app")
    for statement in STATEMENTS:
        if "repeat" in statement and not role.startswith("text"):
            continue
        for table in ("short", "long"):
            with app.transaction():
                app.execute("select set_config('auditdb.context', %s, true)", [context])
                app.execute(statement.format(table).encode())
    assert len(said(empty_db, "short")) > 20
    assert said(empty_db, "short") == said(empty_db, "long")


def test_a_collation_that_came_later_hides_no_change(empty_db: Database) -> None:
    owner = empty_db.connect("app_owner")
    loosen(owner)
    owner.execute(TABLES.format(role="text").encode())
    for table in ("short", "long"):
        owner.execute(f"insert into {table} (user_id, role) values (1, 'admin')".encode())
        owner.execute(f"alter table {table} alter role type text collate loose".encode())
        app = empty_db.connect("app")
        app.execute(f"update {table} set role = 'ADMIN'".encode())
        assert said(empty_db, table)[-1]["new_values"] == {"role": "ADMIN"}


def test_a_hundred_changes_take_one_transaction_id(empty_db: Database) -> None:
    empty_db.connect("app_owner").execute(TABLES.format(role="text").encode())
    app = empty_db.connect("app")
    with app.transaction():
        for number in range(100):
            app.execute("insert into short (user_id) values (%s)", [number])
    query = "select count(*), count(distinct xmin::text) from audit.event where captured_from"
    row = empty_db.connect().execute(f"{query} = 'public.short'".encode()).fetchone()
    assert row == (100, 1)


def test_a_session_without_row_security_is_captured_in_whole(empty_db: Database) -> None:
    empty_db.connect("app_owner").execute(TABLES.format(role="text").encode())
    app: psycopg.Connection[Any] = empty_db.connect("app")
    for setting in ("on", "off"):
        app.execute(f"set row_security = {setting}".encode())
        app.execute("insert into short (user_id, role) values (1, 'a')")
        app.execute("update short set role = 'b'")
        app.execute("delete from short")
    events = said(empty_db, "short")
    assert len(events) == 6
    assert events[:3] == events[3:]
