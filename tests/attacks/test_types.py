"""Types of an application that run code when they are cast, where capture takes the short way."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.attacks.report import attack
from tests.conftest import Database

GROUP = "Forging and rewriting"
NAME = "Code of the application in a type that a column gets after attaching"

SETUP = """
create schema evil;
grant usage on schema evil to public;
create type evil.mood as enum ('1');
create table evil.thing (id int primary key, n int not null default 0, v {0});
create table evil.naive (like evil.thing including all);
grant all on evil.thing, evil.naive to app;
select audit.attach('evil.thing', 'membership', organization => 'v', target_id => 'v',
    subject => 'v', role => 'v', admin => 'false');
"""
NAIVE = """
create function naive() returns trigger language plpgsql security definer as $$
begin
    perform to_jsonb(new), new.v::text;
    return null;
end $$;
create trigger naive after insert or update on evil.naive
    for each row execute function naive();
"""
# A notice outlives the guarded block that what raised it is rolled back with.
CAST = """
create function evil.as_{1}({0}) returns {1} language plpgsql as $$
begin
    raise notice 'ran as %', current_user;
    return '1';
end $$;
create cast ({0} as {1}) with function evil.as_{1}({0}) as implicit;
"""
# What makes the type, what the column becomes, the type with the casts, and a value.
TYPES = {
    "enum": ("create type evil.trap as enum ('1')", "evil.trap", "evil.trap", "1"),
    "array": ("create type evil.trap as enum ('1')", "evil.trap[]", "evil.trap", "{1}"),
    "composite": ("create type evil.trap as (a int)", "evil.trap", "evil.trap", "(1)"),
    "range": ("create type evil.trap as range (subtype = int)", "evil.trap", "evil.trap", "[1,2)"),
    "domain": ("create domain evil.trap as evil.mood", "evil.trap", "evil.mood", "1"),
    "enum that it was": ("", "", "evil.mood", "1"),
}
CHANGES = {
    "retyped": "alter table {0} alter v type {1} using null",
    "dropped and added": "alter table {0} drop v; alter table {0} add v {1}",
}


def change(conn: psycopg.Connection[Any], table: str, value: str) -> set[str]:
    """Make five changes, and return whom hostile code ran as meanwhile."""
    ran = set[str]()
    conn.add_notice_handler(lambda n: ran.add(str(n.message_primary)))
    for statement in (
        "insert into {0} values (1, 0, '{1}')",
        "update {0} set n = 1",
        "update {0} set v = null",
        "update {0} set v = '{1}'",
        "delete from {0}",
    ):
        conn.execute(statement.format(table, value).encode())
    return {message.removeprefix("ran as ") for message in ran if message.startswith("ran as ")}


@attack(GROUP, NAME, outcome="B", twin=True)
@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("becomes", TYPES)
@pytest.mark.parametrize("was", ["text", "int", "int[]", "evil.mood"])
def test_a_type_with_hostile_casts_never_meets_the_owner_of_the_log(
    empty_db: Database, was: str, becomes: str, how: str
) -> None:
    create, column, trap, value = TYPES[becomes]
    if not column and (was != "evil.mood" or how != "retyped"):
        pytest.skip("only an enum can be the enum that it was")
    admin, owner, app = empty_db.connect(), empty_db.connect("app_owner"), empty_db.connect("app")
    admin.execute(f"grant create on database {admin.info.dbname} to app_owner".encode())
    owner.execute(SETUP.format(was).encode())
    admin.execute(NAIVE)
    for _ in range(7):  # Past the custom plans of a prepared statement.
        assert not change(app, "evil.thing", "{1}" if was == "int[]" else "1")
    if column:
        owner.execute(create.encode())
        for table in ("evil.thing", "evil.naive"):
            owner.execute(CHANGES[how].format(table, column).encode())
    for to in ("json", "text", "int"):
        owner.execute(CAST.format(trap, to).encode())

    assert "postgres" in change(empty_db.connect("app"), "evil.naive", value)
    before = len(empty_db.events())
    ran = change(app, "evil.thing", value)
    app.execute("discard plans")
    ran |= change(app, "evil.thing", value)
    ran |= change(empty_db.connect("app"), "evil.thing", value)
    ran |= change(empty_db.connect(), "evil.thing", value)
    assert ran <= {"audit_mapper", "app"}
    # A member who is another now is told to both.
    assert len(empty_db.events()) >= before + 4 * 5
