"""Code of a second service that waits to be run, every way in which it is met, and what it tries.

The service is `other_owner`: it owns schema svc, is an operator of its own tables, and nothing
else. What its code says, it says in notices: those outlive a block that is rolled back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from tests.attacks.conftest import act, look

# What the hostile code does is the body of svc.hostile; everything below leads there.
ROADS = """
create function svc.hostile_text(i int) returns text language plpgsql as $f$
begin
    perform svc.hostile();
    return i;
end $f$;
create function svc.hostile_true(i int) returns boolean language plpgsql as $f$
begin
    perform svc.hostile();
    return true;
end $f$;
create function svc.hostile_constant(t text) returns boolean immutable language plpgsql as $f$
begin
    perform svc.hostile();
    return true;
end $f$;
create function svc.hostile_sum(a int, b int) returns int language plpgsql as $f$
begin
    perform svc.hostile();
    return a;
end $f$;
create operator svc.<+> (leftarg = int, rightarg = int, function = svc.hostile_sum);
create function svc.hostile_default(i int, t text default svc.hostile_text(1)) returns text
language plpgsql as 'begin return i; end';
create function svc.hostile_inlined(i int) returns text language sql
as 'select svc.hostile_text(i)';
create domain svc.checked as int check (svc.hostile_true(value));
create type svc.mood as enum ('fine', 'sad');
create type svc.pair as (a int, b int);
create function svc.mood_json(svc.mood) returns json language plpgsql as $f$
begin
    perform svc.hostile();
    return '"fine"';
end $f$;
create function svc.mood_text(svc.mood) returns text language plpgsql as $f$
begin
    perform svc.hostile();
    return 'fine';
end $f$;
create function svc.pair_json(svc.pair) returns json language plpgsql as $f$
begin
    perform svc.hostile();
    return '[]';
end $f$;
create table svc.team (id int primary key, organization_id int);
insert into svc.team values (1, 1), (2, 2);
create table svc.hidden (id int primary key, organization_id int);
insert into svc.hidden values (1, 1), (2, 2);
alter table svc.hidden enable row level security;
create policy all_of_it on svc.hidden using (true);
create policy strictly on svc.hidden as restrictive using (svc.hostile_true(id));
create view svc.teams as select id, organization_id from svc.team where svc.hostile_true(id);
create table svc.thing (
    id int primary key, organization_id int, mood svc.mood, pair svc.pair, v text
);
grant all on svc.thing, svc.team, svc.hidden, svc.teams to app;
"""

LOOKUP = "(select t.organization_id::text from {} as t where t.id = r.organization_id)"


@dataclass(frozen=True)
class Road:
    """One way in which the log meets the service's code.

    Attributes:
        organization: the mapping of svc.thing.
        after: what the service does once the table is attached.
    """

    organization: str = "r.organization_id"
    after: str = ""


ROADS_TO_CAPTURE = {
    "a function": Road("svc.hostile_text(r.organization_id)"),
    "a function that SQL inlines": Road("svc.hostile_inlined(r.organization_id)"),
    "a default of an argument": Road("svc.hostile_default(r.organization_id)"),
    "an operator": Road("(r.organization_id operator(svc.<+>) 1)::text"),
    "a domain": Road("(r.organization_id::svc.checked)::text"),
    "a domain in an array literal": Road("((array[r.organization_id]::svc.checked[])[1])::text"),
    "a domain in a literal of an array": Road("coalesce((('{1}'::svc.checked[])[1])::text, r.v)"),
    "a domain in a text that becomes an array": Road(
        "(((('{' || r.organization_id) || '}')::svc.checked[])[1])::text"
    ),
    "a restrictive policy of a lookup table": Road(LOOKUP.format("svc.hidden")),
    "a view that is looked up": Road(LOOKUP.format("svc.teams")),
    "a cast of an enum to json": Road(
        after="create cast (svc.mood as json) with function svc.mood_json(svc.mood)"
    ),
    "a cast of an enum to text": Road(
        "coalesce(nullif(r.organization_id, 1)::text, r.mood::text)",
        after="create cast (svc.mood as text) with function svc.mood_text(svc.mood) as implicit",
    ),
    "a cast of a row type to json": Road(
        after="create cast (svc.pair as json) with function svc.pair_json(svc.pair)"
    ),
    "a function that a replaced view calls": Road(
        LOOKUP.format("svc.team"),
        after="alter table svc.team rename to was; create view svc.team as"
        " select id, organization_id from svc.was where svc.hostile_true(id);"
        " grant select on svc.team to audit_mapper",
    ),
}


def build(conn: psycopg.Connection[Any], body: str, road: Road | None = None) -> None:
    """Let the service build its code, and attach its table if a road is given."""
    act(conn, "other_owner")
    conn.execute(
        f"create function svc.hostile() returns void language plpgsql as $h$ {body} $h$".encode()
    )
    conn.execute(ROADS.encode())
    if road is not None:
        conn.execute(
            "select audit.attach('svc.thing', 'thing', organization => %s)", (road.organization,)
        )
        if road.after:
            conn.execute(road.after.encode())


@contextlib.contextmanager
def heard(conn: psycopg.Connection[Any]) -> Iterator[list[str]]:
    """Collect the notices of a block."""
    said: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        said.append(str(diagnostic.message_primary))

    conn.add_notice_handler(note)
    try:
        yield said
    finally:
        conn.remove_notice_handler(note)


def whom(said: list[str]) -> set[str]:
    """Return the roles that hostile code ran as, from its notices."""
    return {line.removeprefix("ran as ") for line in said if line.startswith("ran as ")}


def mapper_functions(conn: psycopg.Connection[Any]) -> list[str]:
    """Return every function that runs as audit_mapper."""
    look(conn)
    rows = conn.execute(
        "select p.oid::regprocedure::text as name from pg_proc as p join pg_namespace as n"
        " on n.oid = p.pronamespace where p.proowner = 'audit_mapper'::regrole"
        " and n.nspname in ('audit', 'audit_private') order by 1"
    ).fetchall()
    return [row["name"] for row in rows]
