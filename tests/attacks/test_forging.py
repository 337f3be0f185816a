"""Forging and rewriting: what nobody may do to the log, nor make it say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb
from pytest_postgresql.executors import NoopExecutor

import auditdb
from auditdb.operate.doctor import diagnose
from tests.attacks.conftest import Arena, act, count, look, newest, unnoticed
from tests.attacks.hostile import heard, whom
from tests.attacks.report import attack
from tests.conftest import Database
from tests.server import Server
from tests.viewer import sign

GROUP = "Forging and rewriting"
ROLES = ["app", "app_reader", "app_auditor", "app_owner", "stranger"]
RELATIONS = ["<log>", "<month>", "<default>", "<later>"]

INSERTS = {
    "insert": "insert into {} (action, result, actor_type, source)"
    " values ('membership.role_changed', 'success', 'user', 'web')",
    "insert with id": "insert into {} (id, occurred_at, action, result, actor_type, source)"
    " values (1, '2020-01-01', 'membership.role_changed', 'success', 'user', 'web')",
    "overriding system value": "insert into {} (id, action, result, actor_type, source)"
    " overriding system value values (1, 'membership.role_changed', 'success', 'user', 'web')",
    "copy": "copy {} (action, result, actor_type, source) from program 'true'",
    "on conflict": "insert into {} (id, occurred_at, action, result, actor_type, source)"
    " values (1, now(), 'a.b', 'success', 'user', 'web') on conflict do nothing",
    "merge": "merge into {} using (values (1)) as v (i) on false when not matched then"
    " insert (action, result, actor_type, source) values ('a.b', 'success', 'user', 'web')",
}

CHANGES = {
    "update": "update {} set action = 'nothing.happened'",
    "delete": "delete from {}",
    "truncate": "truncate {}",
    "merge update": "merge into {} as t using (values (1)) as v (i) on true"
    " when matched then update set action = 'nothing.happened'",
    "merge delete": "merge into {} as t using (values (1)) as v (i) on true"
    " when matched then delete",
    "on conflict do update": "insert into {} (id, occurred_at, action, result, actor_type, source)"
    " values (1, now(), 'a.b', 'success', 'user', 'web')"
    " on conflict (occurred_at, id) do update set action = 'nothing.happened'",
    "where current of": "do $$ declare c cursor for select * from {} for update; r record; begin"
    " open c; fetch c into r; update {} set action = 'nothing.happened' where current of c; end $$",
    "select for update": "select * from {} for update",
    "writable cte": "with gone as (delete from {} returning *) select count(*) from gone",
    "lock": "lock table {} in access exclusive mode",
}

DEFINITIONS = {
    "drop table": "drop table {} cascade",
    "drop column": "alter table {} drop column source",
    "rename column": "alter table {} rename column action to was",
    "change type": "alter table {} alter column result type varchar(9) using 'x'",
    "set default": "alter table {} alter column action set default 'nothing.happened'",
    "add check": "alter table {} add constraint refuse check (action <> 'x') not valid",
    "rename": "alter table {} rename to gone",
    "set schema": "alter table {} set schema playground",
    "owner": "alter table {} owner to current_user",
    "disable triggers": "alter table {} disable trigger user",
    "disable row level security": "alter table {} disable row level security",
    "no force": "alter table {} no force row level security",
    "create policy": "create policy mine on {} using (true)",
    "create trigger": "create trigger swallow before insert on {} for each row"
    " execute function suppress_redundant_updates_trigger()",
    "create rule": "create rule swallow as on insert to {} do instead nothing",
    "create index": "create unique index refuse on {} (occurred_at)",
    "foreign key": "alter table {} add foreign key (actor_id) references playground.none (id)",
    "comment": "comment on table {} is 'nothing happened'",
    "replica identity": "alter table {} replica identity nothing",
    "publication": "create publication leak for table {}",
}

PARTITIONS = {
    "detach": "alter table <log> detach partition <month>",
    "attach": "alter table <log> attach partition <spare> for values from ('2095-01-01')"
    " to ('2096-01-01')",
    "inherit": "alter table <month> inherit <spare>",
    "partition of": "create table playground.mine partition of <log>"
    " for values from ('2095-01-01') to ('2096-01-01')",
    "drop partition": "drop table <month>",
}


@attack(GROUP, "INSERT, COPY, OVERRIDING SYSTEM VALUE into the log", outcome="B")
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("how", INSERTS)
def test_no_role_writes_events_by_itself(arena: Arena, how: str, relation: str) -> None:
    statement = INSERTS[how].format(relation)
    for role in ROLES:
        if how == "copy":
            with arena.login(role) as conn, conn.cursor() as cursor:
                copy = arena.audit.write(f"copy {relation} (action, result) from stdin")
                with pytest.raises(pg.InsufficientPrivilege), cursor.copy(copy.encode()) as rows:
                    rows.write(b"a.b\tsuccess\n")
        else:
            arena.refuses(role, statement)


@attack(GROUP, "INSERT, COPY, OVERRIDING SYSTEM VALUE into the log", outcome="B", twin=True)
@pytest.mark.parametrize("how", INSERTS)
def test_a_naive_log_takes_events_from_anyone_who_writes_them(arena: Arena, how: str) -> None:
    if how == "copy":
        with arena.login("naive_app") as conn, conn.cursor() as cursor:
            with cursor.copy("copy naive.log (action, result) from stdin") as rows:
                rows.write(b"a.b\tsuccess\n")
        return
    arena.naive_falls(INSERTS[how].format("<log>"))


@attack(GROUP, "UPDATE, DELETE, TRUNCATE, MERGE, ON CONFLICT, WHERE CURRENT OF", outcome="B")
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("how", CHANGES)
def test_no_role_changes_or_removes_events(arena: Arena, how: str, relation: str) -> None:
    for role in ROLES:
        arena.refuses(role, CHANGES[how].format(relation, relation))


@attack(GROUP, "UPDATE, DELETE, TRUNCATE, MERGE, ON CONFLICT, WHERE CURRENT OF", outcome="B")
@pytest.mark.parametrize("relation", ["<log>", "<month>", "<later>"])
@pytest.mark.parametrize("how", ["update", "delete", "truncate", "merge update", "merge delete"])
@pytest.mark.parametrize("replica", [False, True])
def test_not_even_a_superuser_changes_events_while_the_guard_stands(
    arena: Arena, how: str, relation: str, replica: bool
) -> None:
    with arena.trial() as conn:
        conn.execute(
            "insert into audit.event (action, result, actor_type, source, occurred_at)"
            f" select 'a.b', 'success', 'system', 'test', to_date(right('{arena.audit.later}', 7),"
            " 'YYYY_MM') + 3"
        )
        if replica:
            conn.execute("set session_replication_role = replica")
        with pytest.raises(pg.InsufficientPrivilege, match="append-only"):
            conn.execute(arena.audit.write(CHANGES[how].format(relation)).encode())


@attack(
    GROUP, "UPDATE, DELETE, TRUNCATE, MERGE, ON CONFLICT, WHERE CURRENT OF", outcome="B", twin=True
)
@pytest.mark.parametrize("how", CHANGES)
def test_a_naive_log_is_rewritten(arena: Arena, how: str) -> None:
    arena.naive_falls(CHANGES[how].format("<log>", "<log>"))


@attack(GROUP, "ALTER TABLE, CREATE RULE, CREATE TRIGGER by non-owners", outcome="B")
@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("how", DEFINITIONS)
def test_no_role_redefines_the_log(arena: Arena, how: str, relation: str) -> None:
    for role in ROLES:
        before = "create table if not exists playground.none (id text primary key)"
        arena.refuses(role, before, DEFINITIONS[how].format(relation))


@attack(GROUP, "ALTER TABLE, CREATE RULE, CREATE TRIGGER by non-owners", outcome="B", twin=True)
@pytest.mark.parametrize("how", sorted(DEFINITIONS.keys() - {"publication"}))
def test_a_naive_log_is_redefined(arena: Arena, how: str) -> None:
    before = "create table if not exists playground.none (id text primary key)"
    arena.naive_falls(before, DEFINITIONS[how].format("<log>"))


@attack(GROUP, "ATTACH and DETACH PARTITION, INHERIT by non-owners", outcome="B")
@pytest.mark.parametrize("how", PARTITIONS)
def test_no_role_moves_partitions(arena: Arena, how: str) -> None:
    for role in ROLES:
        with arena.login() as conn:
            conn.execute(f"alter table {arena.audit.spare} owner to {role}")
            act(conn, role)
            with pytest.raises(pg.InsufficientPrivilege):
                conn.execute(arena.audit.write(PARTITIONS[how]).encode())


@attack(GROUP, "ATTACH and DETACH PARTITION, INHERIT by non-owners", outcome="B", twin=True)
@pytest.mark.parametrize("how", sorted(PARTITIONS.keys() - {"inherit"}))
def test_partitions_of_a_naive_log_are_moved(arena: Arena, how: str) -> None:
    arena.naive_falls("truncate naive.log_default", PARTITIONS[how])


@attack(GROUP, "Switching off the guard and rewriting, by the superuser", outcome="D", twin=True)
def test_a_guard_switched_off_and_on_is_found_though_the_rewriting_is_not(arena: Arena) -> None:
    with arena.trial() as conn:
        conn.execute("alter table audit.event disable trigger refuse_change")
        changed = conn.execute("update audit.event set action = 'nothing.happened'").rowcount
        conn.execute("alter table audit.event enable always trigger refuse_change")
        assert changed > 0
        found = conn.execute(
            "select check_name, problem from audit.doctor() where object ~ 'audit.event'"
        ).fetchall()
        assert found, "doctor sees nothing"
        conn.execute(
            "create function naive.refuse() returns trigger language plpgsql"
            " as $$ begin raise 'append-only'; end $$"
        )
        conn.execute(
            "create trigger refuse before update or delete on naive.log for each row"
            " execute function naive.refuse()"
        )
        with unnoticed(conn):
            conn.execute("alter table naive.log disable trigger refuse")
            conn.execute("update naive.log set action = 'nothing.happened'")
            conn.execute("alter table naive.log enable trigger refuse")


@attack(
    GROUP, "Forged INSERT by a superuser", outcome="U", twin=True,
    documented="A superuser can disable the guard, rewrite or insert events",
)  # fmt: skip
def test_a_superuser_can_write_an_event(arena: Arena) -> None:
    with arena.trial() as conn:
        conn.execute(
            "insert into audit.event (action, result, actor_type, source, captured_from, db_user)"
            " values ('membership.removed', 'success', 'user', 'web', 'public.membership', 'app')"
        )
        assert newest(conn)[0]["db_user"] == "app"
        assert not conn.execute("select from audit.doctor() where severity <> 'notice'").fetchall()
        with unnoticed(conn, rows=1):
            conn.execute("insert into naive.log (action) values ('deletemembership')")


@attack(GROUP, "Our trigger function on one's own or a temporary table", outcome="B")
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("temporary", ["temp", ""])
def test_capture_function_serves_no_other_table(arena: Arena, role: str, temporary: str) -> None:
    table = "mine" if temporary else "playground.mine"
    arena.refuses(
        role,
        f"create {temporary} table {table} (organization_id int, user_id int, role text,"
        " updated_at timestamptz)",
        f"create trigger forge after insert on {table} for each row execute function <capture>()",
    )


@attack(GROUP, "Our trigger function on one's own or a temporary table", outcome="B", twin=True)
def test_naive_capture_function_forges_from_a_temp_table(arena: Arena) -> None:
    with arena.trial() as conn:
        before = count(conn, "naive.log")
        act(conn, "app")
        conn.execute("create temp table mine (organization_id int, role text)")
        conn.execute(
            "create trigger forge after insert on mine for each row"
            " execute function naive.capture()"
        )
        conn.execute("insert into mine values (1, 'OWNER')")
        assert count(conn, "naive.log") == before + 1


@attack(
    GROUP,
    "An operator opens a capture function and puts it on another table",
    outcome="B",
    twin=True,
)
@pytest.mark.parametrize("call", ["audit.attach('public.membership', 'membership')",
                                  "audit.reattach('public.membership')",
                                  "audit.attest('public.membership')"])  # fmt: skip
def test_no_call_of_an_operator_leaves_a_capture_function_open(arena: Arena, call: str) -> None:
    with arena.trial() as conn:
        rows = conn.execute(
            "select distinct tgfoid::regproc::text as f from pg_trigger"
            " where tgrelid = 'public.membership'::regclass and tgname ~ '^auditdb_'"
        ).fetchall()
        for role in ("app_owner", "oper", "other_owner"):
            act(conn, role)
            with contextlib.suppress(psycopg.Error), conn.transaction():
                conn.execute(f"select {call}".encode())
            conn.execute(f"create temp table mine_{role} (id int)".encode())
            for row in rows:
                with pytest.raises(pg.InsufficientPrivilege), conn.transaction():
                    conn.execute(
                        f"create trigger forge after insert on mine_{role} for each row"
                        f" execute function {row['f']}()".encode()
                    )
        with unnoticed(conn, rows=1):
            act(conn, "naive_app")
            conn.execute("create temp table membership (like naive.membership)")
            conn.execute(
                "create trigger forge after insert on pg_temp.membership for each row"
                " execute function naive.capture()"
            )
            conn.execute("insert into pg_temp.membership values (1, 2, 'OWNER')")
        row = conn.execute("select action from naive.log order by id desc limit 1").fetchone()
        assert row == {"action": "insertmembership"}


# Every way in which code of the application can meet ours: it waits to be run, and then tries to
# read the keys, forge, rewrite, and take over functions. What it manages, it writes down.
PAYLOAD = """
create schema evil;
grant usage on schema evil to public;
create table evil.loot (did text, as_whom text);
grant all on evil.loot to public;
create function evil.try(what text) returns void language plpgsql as $$
begin
    execute what;
    insert into evil.loot values (what, current_user);
exception when others then
    null;
end $$;
create function evil.attack() returns void language plpgsql as $$
begin
    perform evil.try('select secret from audit_private.signing_key');
    perform evil.try($q$insert into audit.event (action, result, actor_type, source)
        values ('for.ged', 'success', 'user', 'web')$q$);
    perform evil.try('update audit.event set action = action');
    perform evil.try('delete from audit.event');
    perform evil.try('alter table audit.event disable trigger all');
    perform evil.try('create table audit.mine (i int)');
    perform evil.try('create or replace function audit.viewer_organization() returns text '
        'language sql as $q$select 2::text$q$');
    perform evil.try('alter function audit.viewer_organization() set search_path = evil');
    perform evil.try('grant audit_owner to app');
    perform evil.try('grant audit_mapper to app');
    perform evil.try('set local role audit_owner');
    perform evil.try('set local session authorization audit_owner');
    perform evil.try('select audit.record_event(''for.ged'')');
    perform evil.try('select audit.create_key()');
    perform evil.try('select audit_private.append(null, null, null, null, null, null, null, null, '
        'null, '
        'null)');
    perform evil.try('alter role app superuser');
end $$;
create function evil.concat(name, text) returns text language plpgsql as $$
begin
    perform evil.attack();
    return $1::text operator(pg_catalog.||) $2;
end $$;
create operator evil.|| (leftarg = name, rightarg = text, function = evil.concat);
create function evil.same(text, text) returns boolean language plpgsql as $$
begin
    perform evil.attack();
    return $1 operator(pg_catalog.=) $2;
end $$;
create operator evil.= (leftarg = text, rightarg = text, function = evil.same);
create function evil.format(text, int) returns text language plpgsql as $$
begin
    perform evil.attack();
    return pg_catalog.format($1, $2);
end $$;
create function evil.to_jsonb(anyelement) returns jsonb language plpgsql as $$
begin
    perform evil.attack();
    return pg_catalog.to_jsonb($1);
end $$;
create function evil.coalesced(jsonb, jsonb) returns jsonb language plpgsql as $$
begin
    perform evil.attack();
    return $1 operator(pg_catalog.||) $2;
end $$;
create operator evil.|| (leftarg = jsonb, rightarg = jsonb, function = evil.coalesced);
create function evil.organization(id int, fail boolean default false) returns text
language plpgsql as $$
begin
    perform evil.attack();
    -- For good: past the function's own setting, which the naive author trusts.
    perform pg_catalog.set_config('search_path', 'evil, pg_catalog', false);
    perform pg_catalog.set_config('row_security', 'off', false);
    if fail then
        raise exception 'and fail';
    end if;
    return case when id <> 0 then id end;
end $$;
create type evil.mood as enum ('fine');
create type evil.pair as (a int, b int);
create function evil.cast_mood(evil.mood) returns json language plpgsql as $$
begin
    perform evil.organization(1);
    return '"fine"';
end $$;
create function evil.cast_pair(evil.pair) returns json language plpgsql as $$
begin
    perform evil.organization(1);
    return '[]';
end $$;
create table evil.thing (id int primary key, organization_id int, mood evil.mood, pair evil.pair);
grant all on evil.thing to app;
"""
CASTS = """
create cast (evil.mood as json) with function evil.cast_mood(evil.mood);
create cast (evil.pair as json) with function evil.cast_pair(evil.pair);
"""

TRAPS = {
    "a mapping expression": "evil.organization(r.organization_id)",
    "a mapping expression that fails": "evil.organization(r.organization_id, true)",
    "a mapping expression that finds none": "evil.organization(0)",
    "a cast made before attaching": "organization_id",
    "a cast made after attaching": "organization_id",
}


def loot(conn: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    look(conn)
    conn.execute("set search_path = public")
    return conn.execute("select * from evil.loot").fetchall()


@attack(GROUP, "Code of the application in mappings, casts and overloaded operators", outcome="B")
@pytest.mark.parametrize("how", TRAPS)
@pytest.mark.parametrize("by", ["app", "superuser"])
@pytest.mark.parametrize("context", ["", "no json"])
def test_code_that_capture_meets_gains_nothing_by_it(
    arena: Arena, how: str, by: str, context: str
) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute(PAYLOAD.encode())
        if how == "a cast made before attaching":
            look(conn)  # casts belong to whoever owns one of the types
            conn.execute(CASTS.encode())
            act(conn, "app_owner")
        conn.execute(
            "select audit.attach('evil.thing', 'thing', organization => %s)", (TRAPS[how],)
        )
        if how == "a cast made after attaching":
            look(conn)
            conn.execute(CASTS.encode())
        before = count(conn)
        if by == "app":
            act(conn, "app")
        conn.execute("select set_config('auditdb.context', %s, true)", (context,))
        for statement in (
            "insert into evil.thing values (1, 1, 'fine', '(1,2)')",
            "update evil.thing set pair = '(3,4)', mood = null",
            "delete from evil.thing",
        ):
            conn.execute(statement.encode())
        did = loot(conn)
        assert count(conn) == before + 3
        assert {row["as_whom"] for row in did} <= {"audit_mapper"}, did
        assert not did, did


@attack(
    GROUP,
    "Code of the application in mappings, casts and overloaded operators",
    outcome="B",
    twin=True,
)
def test_code_that_a_naive_capture_meets_takes_over(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute(PAYLOAD.encode())
        look(conn)
        conn.execute("grant usage on schema evil to naive_app")
        act(conn, "app_owner")
        conn.execute("set search_path = evil, pg_catalog")
        conn.execute(
            "create function evil.rewrite() returns void language sql as"
            " 'delete from naive.log; insert into evil.loot values ($$deleted$$, current_user)'"
        )
        conn.execute(
            "create or replace function evil.to_jsonb(anyelement) returns jsonb language sql as"
            " 'select evil.rewrite(); select pg_catalog.to_jsonb($1)'"
        )
        act(conn, "naive_app")
        conn.execute("set search_path = evil, pg_catalog")
        conn.execute("update naive.membership set role = 'x' where user_id = 1")
        did = loot(conn)
    assert did and {row["as_whom"] for row in did} == {"naive_app"}


@attack(GROUP, "Code of the application in the check for admins", outcome="B")
def test_code_that_the_check_for_admins_meets_gains_nothing_by_it(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute(PAYLOAD.encode())
        conn.execute(
            "create view evil.admin as select 9 as organization_id, 9 as user_id"
            " where evil.organization(1) is not null"
        )
        conn.execute("select audit.attach('evil.admin', 'admin')")
        conn.execute("create table evil.last (organization_id int, user_id int, role text)")
        conn.execute("select audit.attach('evil.last', 'membership')")
        look(conn)
        conn.execute("select set_config('auditdb.viewer', %s, true)", (sign(arena.key, "8", "9"),))
        act(conn, "app_reader")
        conn.execute("select count(*) from audit.event")
        search_path = conn.execute("show search_path").fetchone()
        assert not loot(conn)
        assert search_path is not None and "evil" not in search_path["search_path"]


@attack(GROUP, "Code of the application in the check for admins", outcome="B", twin=True)
def test_code_that_a_naive_check_for_admins_meets_takes_over(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute(PAYLOAD.encode())
        conn.execute(
            "create or replace function evil.same(text, text) returns boolean language plpgsql as"
            " $$ begin delete from naive.log; insert into evil.loot values ('deleted',"
            " current_user); return true; end $$"
        )
        act(conn, "naive_app")
        conn.execute(
            "create function naive.is_boss(o text) returns boolean language plpgsql"
            " security definer as $$ begin return exists (select from naive.membership"
            " where organization_id::text = o); end $$"
        )
        act(conn, "naive_reader")
        conn.execute("set search_path = evil, pg_catalog")
        conn.execute("select naive.is_boss('1')")
        did = loot(conn)
    assert did and {row["as_whom"] for row in did} == {"naive_app"}


@attack(
    GROUP,
    "Code of the application that alters or drops functions of audit_mapper",
    outcome="D",
    twin=True,
)
@pytest.mark.parametrize("how", ["alter function %s set search_path = evil", "drop function %s"])
def test_mapper_functions_that_were_tampered_with_are_found_and_no_event_is_lost(
    arena: Arena, how: str
) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute(PAYLOAD.encode())
        conn.execute(
            "create function evil.tamper(id int) returns text language plpgsql as $$ declare"
            " f text; begin raise notice 'ran as %', current_user; for f in select"
            " oid::regprocedure from pg_catalog.pg_proc where proowner = 'audit_mapper'::regrole"
            f" loop perform evil.try(pg_catalog.format('{how}', f)); end loop; return id; end $$"
        )
        conn.execute("select audit.attach('evil.thing', 'thing', organization =>"
            " 'evil.tamper(r.organization_id)')")  # fmt: skip
        before = count(conn)
        act(conn, "app")
        with heard(conn) as said:
            conn.execute("insert into evil.thing values (1, 1)")
            conn.execute("update membership set role = 'ADMIN' where user_id = 2")
        assert whom(said) == {"audit_mapper"}
        did = loot(conn)
        assert {row["as_whom"] for row in did} <= {"audit_mapper"}
        assert count(conn) == before + 2
        found = conn.execute("select * from audit.doctor() where check_name = 'functions'")
        # What it did is rolled back, or found.
        assert bool(found.fetchall()) == bool(did)
        act(conn, "app_owner")
        conn.execute(
            "create or replace function evil.to_jsonb(anyelement) returns jsonb language plpgsql as"
            " $e$ begin execute 'create or replace function naive.capture() returns trigger"
            " language plpgsql as $$ begin return null; end $$';"
            " return pg_catalog.to_jsonb($1); end $e$"
        )
        with unnoticed(conn, rows=1):
            act(conn, "naive_app")
            conn.execute("set search_path = evil, pg_catalog")
            for user in (1, 2):  # the second change is lost
                conn.execute("update naive.membership set role = 'x' where user_id = %s", (user,))


@attack(
    GROUP, "record_event with a forged time, id, transaction id or db_user", outcome="B", twin=True
)
@pytest.mark.parametrize(
    "parameter", ["id => 1", "occurred_at => now()", "transaction_id => '1'::xid8",
                  "db_user => 'boss'", "captured_from => 'public.membership'"],
)  # fmt: skip
def test_what_record_event_attests_is_no_parameter(arena: Arena, parameter: str) -> None:
    with arena.login("app") as conn, pytest.raises(pg.UndefinedFunction):
        conn.execute(f"select audit.record_event('auth.login', {parameter})".encode())
    with arena.login("naive_app") as conn:
        conn.execute(
            "insert into naive.log (id, occurred_at, action) values (-1, '2001-01-01', 'x')"
        )


@attack(
    GROUP, "record_event for an action of the log itself, or as if a trigger had captured it",
    outcome="B", twin=True,
)  # fmt: skip
def test_a_recorded_event_never_passes_for_a_captured_one(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "app")
        conn.execute(
            "select audit.record_event('membership.role_changed', '1', 'membership', '1,2', '2',"
            """ details => '{"previous_role": "MEMBER", "new_role": "OWNER"}')"""
        )
        event = newest(conn)[0]
        assert event["captured_from"] is None and event["db_user"] == "app"
        assert not conn.execute(
            "select from audit.role_change where user_id = '2' and new_role = 'OWNER'"
        ).fetchall()
        act(conn, "app")
        with pytest.raises(pg.InvalidParameterValue, match="reserved for the log itself"):
            conn.execute("select audit.record_event('audit.key_created')")
    with arena.login("naive_app") as conn:
        conn.execute("insert into naive.log (action, new_values) values ('updatemembership', '{}')")


@attack(GROUP, "A context that claims another actor", outcome="S", twin=True)
def test_a_claimed_actor_does_not_hide_who_logged_in(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "app")
        conn.execute("""set local auditdb.context = '{"actor_id": "boss", "db_user": "boss"}'""")
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
        event = newest(conn)[0]
    assert (event["actor_id"], event["db_user"]) == ("boss", "app")
    with arena.trial() as conn:
        act(conn, "naive_app")
        conn.execute("""set local naive.context = '{"actor_id": "boss"}'""")
        conn.execute("update naive.membership set role = 'ADMIN' where user_id = 2")
        look(conn)
        row = conn.execute("select * from naive.log order by id desc limit 1").fetchone()
    assert row is not None and "app" not in str(row["actor_id"]) and "db_user" not in row


@attack(GROUP, "Roles above one's own", outcome="B")
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "how",
    [
        "set role audit_owner",
        "set role audit_mapper",
        "set session authorization audit_owner",
        "grant audit_owner to current_user",
        "grant audit_mapper to current_user",
        "alter role audit_owner login",
        "drop owned by audit_owner",
        "reassign owned by audit_owner to current_user",
        "alter default privileges for role audit_owner grant all on tables to public",
        "alter schema audit owner to current_user",
    ],
)
def test_no_role_becomes_the_owner_of_the_log(arena: Arena, role: str, how: str) -> None:
    arena.refuses(role, how)


@attack(GROUP, "Roles above one's own", outcome="B", twin=True)
def test_the_naive_application_is_the_owner_of_its_log(arena: Arena) -> None:
    arena.naive_falls("set role naive_app", "alter schema naive owner to current_user",
        "drop owned by naive_app cascade")  # fmt: skip


@contextlib.contextmanager
def installed_by_other_than_superuser(template: NoopExecutor, server: Server) -> Iterator[Database]:
    address = make_conninfo(
        "", host=server.host, port=server.port, user=server.user, password=server.password
    )
    with psycopg.connect(address, dbname="postgres", autocommit=True) as admin:
        admin.execute("create role installer login createrole password 'secret'")
        if admin.info.server_version >= 160000:
            # What CREATE ROLE would have given, had these roles not been there already.
            admin.execute(
                "grant audit_owner, audit_mapper, audit_operator to installer"
                " with admin true, inherit false, set false"
            )
        admin.execute("create database auditdb_installed owner installer")
        database = Database(make_conninfo(address, dbname="auditdb_installed"))
        try:
            auditdb.install(database.conninfo("installer"))
            yield database
        finally:
            admin.execute("drop database auditdb_installed with (force)")
            if admin.info.server_version >= 160000:
                admin.execute("revoke audit_owner, audit_mapper, audit_operator from installer"
                    " cascade")  # fmt: skip
            admin.execute("revoke audit_owner, audit_mapper, audit_operator from installer")
            admin.execute("drop role installer")


@attack(GROUP, "SET ROLE audit_owner by the installing role, after install", outcome="B", twin=True)
def test_the_installing_role_has_resigned(
    arena: Arena, template: NoopExecutor, server: Server
) -> None:
    with installed_by_other_than_superuser(template, server) as database:
        conn = database.connect("installer")
        for role in ("audit_owner", "audit_mapper"):
            with pytest.raises(pg.InsufficientPrivilege):
                conn.execute(f"set role {role}".encode())
        for statement in ("delete from audit.event", "select secret from audit_private.signing_key",
                          "drop schema audit cascade", "truncate audit.event"):  # fmt: skip
            with pytest.raises(pg.InsufficientPrivilege):
                conn.execute(statement.encode())
        database.close()
    arena.naive_falls("delete from <log>", "table naive.signing_key", "drop schema naive cascade")


@attack(GROUP, "The installing role makes itself audit_owner again", outcome="D", twin=True)
def test_a_creator_of_roles_that_comes_back_is_found(
    arena: Arena, template: NoopExecutor, server: Server
) -> None:
    with installed_by_other_than_superuser(template, server) as database:
        conn = database.connect("installer")
        conn.execute("grant audit_owner to installer")
        found = database.connect().execute(
            "select problem from audit.doctor() where check_name = 'roles' and object = 'installer'"
            " and severity = 'critical'"
        )
        assert any("audit_owner" in row[0] for row in found.fetchall())
        database.close()
    with arena.trial() as conn, unnoticed(conn):
        conn.execute("grant naive_app to stranger")
        act(conn, "stranger")
        conn.execute("update naive.log set action = 'nothing.happened'")
        look(conn)
        conn.execute("revoke naive_app from stranger")


MAINTENANCE = [
    "audit.maintain()", "audit.maintain('10 years')", "audit_private.create_months(3)",
    "audit.create_key()", "audit.list_keys()", "audit.detach('public.membership')",
    "audit_private.forget('public.membership')", "audit_private.close_capture(1)",
    "audit.define_action('a.b', 'x')", "audit.mend_guards()", "audit.attest('audit.event')",
    "audit.attach('public.membership', 'membership')", "audit.doctor()",
]  # fmt: skip
INTERNAL = [
    "audit_private.drop_months('10 years', false)", "audit_private.drain()",
    "audit_private.regenerate()",
    "audit_private.finish_install()", "audit_private.guard('audit.event')",
    "audit_private.generate(1)",
    "audit_private.record_own('x', null, null, null)", "audit_private.hmac_sha256('', '')",
    "audit_private.is_admin('1', '1')",
    "audit_private.rescue('INSERT', 1, 1, '{}', '')", "audit_private.admin_1('1', '1')",
]  # fmt: skip


@attack(GROUP, "Retention and maintenance by others than the operator", outcome="B")
@pytest.mark.parametrize("call", MAINTENANCE + INTERNAL)
def test_only_operators_call_what_is_theirs_and_nobody_calls_the_rest(
    arena: Arena, call: str
) -> None:
    for role in ("app", "app_reader", "app_auditor", "stranger"):
        if not (role == "app_auditor" and call == "audit.doctor()"):
            arena.refuses(role, f"select {call}")
    if call in INTERNAL:
        arena.refuses("app_owner", f"select {call}")


@attack(GROUP, "Retention and maintenance by others than the operator", outcome="B", twin=True)
def test_anyone_calls_the_retention_of_a_naive_log(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        conn.execute(
            "create function naive.purge(keep interval) returns void language sql security definer"
            " as 'delete from naive.log where occurred_at < now() - keep'"
        )
        before = count(conn, "naive.log")
        act(conn, "stranger")
        conn.execute("select naive.purge('0')")
        assert count(conn, "naive.log") < before


@attack(GROUP, "Retention with an interval that would drop the present", outcome="B", twin=True)
@pytest.mark.parametrize("keep", ["0", "-1 year", "1 month", "59 days", "-178000000 years"])
def test_retention_never_reaches_the_present(arena: Arena, keep: str) -> None:
    with arena.login("app_owner") as conn, pytest.raises(psycopg.Error):
        conn.execute("select audit.maintain(%s::interval)", (keep,))
    with arena.login("naive_app") as conn:
        done = conn.execute("delete from naive.log where occurred_at < now() - interval '-1 year'")
        assert done.rowcount > 0


@attack(GROUP, "pg_write_all_data: keys, mappings and events", outcome="B")
@pytest.mark.parametrize(
    "statement",
    [
        "insert into audit.event (action, result, actor_type, source)"
        " values ('a.b', 'success', 'user', 'web')",
        "insert into audit_private.signing_key (id, secret) values ('mine', 'mine')",
        "insert into audit_private.attachment (target, kind, mapping, name)"
        " values ('pg_class'::regclass, 'x', '{}', 'x')",
        "insert into audit_private.attestation (occasion, scope, kind, relation, name)"
        " values ('x', 'audit.event'::regclass, 'x', 'audit.event'::regclass, 'x')",
    ],
)
def test_one_who_may_write_all_data_writes_none_of_the_log(arena: Arena, statement: str) -> None:
    with arena.trial() as conn:
        conn.execute("grant pg_write_all_data, pg_read_all_data to stranger")
        act(conn, "stranger")
        with pytest.raises(pg.InsufficientPrivilege):
            conn.execute(statement.encode())


@attack(GROUP, "pg_write_all_data: keys, mappings and events", outcome="B", twin=True)
@pytest.mark.parametrize(
    "table",
    [
        "audit.event",
        "audit_private.signing_key",
        "audit_private.attachment",
        "audit_private.attestation",
    ],
)
def test_one_who_may_write_all_data_changes_none_of_the_log(arena: Arena, table: str) -> None:
    assert arena.key
    with arena.trial() as conn:
        conn.execute("grant pg_write_all_data, pg_read_all_data to stranger")
        act(conn, "stranger")
        for statement in (f"delete from {table}", f"update {table} set id = id"):
            with contextlib.suppress(psycopg.Error), conn.transaction():
                assert conn.execute(statement.encode()).rowcount == 0
        look(conn)
        left = conn.execute(f"select count(*) as n from {table}".encode()).fetchone()
        assert left is not None and left["n"] > 0
        conn.execute("grant pg_write_all_data to naive_reader")
        conn.execute("alter table naive.log disable row level security")
        act(conn, "naive_reader")
        assert conn.execute("delete from naive.log").rowcount > 0


CLAIMS = (
    "Details of the context that look like the log's own (previous_role, new_role, row_id,"
    " degraded, moved)"
)
OWN = {
    "previous_role": "typo fixed",
    "new_role": "typo fixed",
    "row_id": "7",
    "degraded": {"sqlstate": "XX000", "lost": ["organization"]},
    "moved": {"from": "1", "to": "2"},
}
ACTS = {
    "workflow": "update workflow set name = 'transfer everything' where organization_id = 1",
    "new workflow": "insert into workflow (organization_id, name) values (1, 'n')",
    "role": "update membership set role = 'ADMIN' where user_id = 2",
    "member": "delete from membership where user_id = 2",
    "user": "update app_user set email = 'n@x.test' where id = 2",
    "child": "insert into workflow_step (id, workflow_id, position)"
    " select 900, min(id), 1 from workflow",
    "truncate": "truncate api_key",
}


@attack(GROUP, CLAIMS, outcome="B")
@pytest.mark.parametrize("what", ACTS)
@pytest.mark.parametrize("through", ["set_context", "setting"])
def test_no_detail_of_the_context_passes_for_the_logs_own(
    arena: Arena, what: str, through: str
) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute("grant truncate on api_key to app")
        conn.execute("savepoint a")
        act(conn, "app")
        conn.execute(ACTS[what].encode())
        expected = newest(conn)[0]
        conn.execute("rollback to a")
        act(conn, "app")
        details = Jsonb(OWN | {"ip": "203.0.113.9"})
        if through == "set_context":
            conn.execute("select audit.set_context('7', details => %s)", (details,))
        else:
            conn.execute("select set_config('auditdb.context', jsonb_build_object('actor_id', '7',"
                         " 'details', %s)::text, true)", (details,))  # fmt: skip
        conn.execute(ACTS[what].encode())
        event = newest(conn)[0]
        for key in OWN:
            assert (event["details"] or {}).get(key) == (expected["details"] or {}).get(key), key
        assert event["details"]["ip"] == "203.0.113.9"
        shown = [
            conn.execute("select change from audit.log where id = %s", (e["id"],)).fetchone()
            for e in (event,)
        ]
        assert "typo fixed" not in str(shown)
        if what == "workflow":
            assert "transfer everything" in str(shown)
        assert not conn.execute("select from audit.doctor() where check_name = 'events'").fetchall()


@attack(GROUP, CLAIMS, outcome="B", twin=True)
def test_a_naive_log_shows_what_the_context_says(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        conn.execute(
            "create or replace function naive.capture() returns trigger language plpgsql as $$"
            " begin insert into naive.log (action, new_values) values ('x', to_jsonb(new) ||"
            " coalesce(current_setting('naive.context', true), '{}')::jsonb); return null; end $$"
        )
        conn.execute("select set_config('naive.context', '{\"role\": \"typo fixed\"}', true)")
        conn.execute("update naive.membership set role = 'OWNER' where user_id = 2")
        row = conn.execute("select new_values ->> 'role' as r from naive.log"
                           " order by id desc limit 1").fetchone()  # fmt: skip
        assert row == {"r": "typo fixed"}


RECORDED = (
    "A recorded event that makes doctor report degradation, or passes for a captured one in a view"
)


@attack(GROUP, RECORDED, outcome="B")
@pytest.mark.parametrize("action", ["auth.login", "membership.role_changed", "workflow.modified",
                                    "api_key.created"])  # fmt: skip
def test_a_recorded_event_keeps_its_details_and_proves_nothing(arena: Arena, action: str) -> None:
    with arena.trial() as conn:
        act(conn, "app")
        conn.execute(
            "select audit.record_event(%s, '1', 'x', '1,2', '2', details => %s)",
            (action, Jsonb(OWN)),
        )
        event = newest(conn)[0]
        assert event["captured_from"] is None
        assert {key: event["details"].get(key) for key in OWN} == OWN
        assert not conn.execute(
            "select from audit.doctor() where check_name = 'events' or problem ~ 'degraded'"
        ).fetchall()
        assert not conn.execute("select from audit.role_change where user_id = '2' and"
                                " new_role = 'typo fixed'").fetchall()  # fmt: skip
        assert not conn.execute("select from audit.api_key_lifecycle where api_key_id = '1,2'"
                                ).fetchall()  # fmt: skip


@attack(GROUP, RECORDED, outcome="B", twin=True)
def test_a_naive_log_takes_a_written_event_for_a_captured_one(arena: Arena) -> None:
    with arena.trial() as conn, unnoticed(conn, rows=1):
        act(conn, "naive_app")
        conn.execute("insert into naive.log (action, new_values) values"
                     " ('updatemembership', '{\"role\": \"OWNER\"}')")  # fmt: skip


FORGED = "the owner of a table hands rows to its baseline that were never there"
# As audit.baseline does it, by hand.
OPEN = "insert into audit_private.request (verb, target) values ('baseline', 'workflow')"
ROW = "select audit_private.baseline_{}(null::workflow, row(66, 2, 'forged', '{{}}')::workflow)"
NOTE = (
    "insert into audit_private.request (verb, target, given)"
    " values ('baselined', 'workflow', '{\"after\": [\"0\"], \"is_over\": %s}')"
)


def forge(db: Database, *after: str) -> list[str]:
    """Forge a row of a baseline as the owner of its table; return what doctor says of it."""
    owner = db.connect("app_owner")
    with owner.transaction():
        for statement in (OPEN, ROW.format(attachment_of(owner)), *after):
            owner.execute(statement.encode())
    assert [e["new_values"]["name"] for e in db.events("action = 'workflow.baseline'")] == [
        "forged"
    ]
    return problems(db)


def problems(db: Database) -> list[str]:
    return [f.problem for f in diagnose(db.connect()) if f.object == "public.workflow"]


@attack(GROUP, FORGED, outcome="D")
def test_a_baseline_that_is_forged_by_hand_shows_for_good(db: Database) -> None:
    db.connect("app").execute("insert into workflow (organization_id, name) values (1, 'real')")
    assert problems(db) == []
    told = forge(db)
    assert any("by hand" in line for line in told) and any("has not ended" in line for line in told)
    owner = db.connect("app_owner")
    assert owner.execute("select audit.baseline('workflow')").fetchone() == (1,)
    assert owner.execute("select audit.baseline('workflow')").fetchone() == (None,)
    (left,) = problems(db)
    assert "by hand" in left


@attack(
    GROUP,
    FORGED,
    outcome="U",
    documented="Of rows that were noted with others it finds nothing",
)
def test_a_forged_row_that_is_noted_counts_and_the_end_tells(db: Database) -> None:
    assert [line for line in forge(db, NOTE % "true") if "baseline" in line] == []
    row = db.connect().execute(
        "select new_values ->> 'rows' from audit.event where action = 'audit.baselined'"
    )
    assert row.fetchone() == ("1",)
    # After the end there is no more.
    owner = db.connect("app_owner")
    with owner.transaction(force_rollback=True), pytest.raises(pg.InsufficientPrivilege):
        owner.execute(OPEN)
        owner.execute(ROW.format(attachment_of(owner)).encode())


def attachment_of(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("select id from audit_private.attachment where name ~ 'workflow$'")
    return int((row.fetchone() or (0,))[0])


@attack(GROUP, FORGED, outcome="D", twin=True)
def test_a_naive_baseline_takes_any_row(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        with unnoticed(conn, rows=1):
            act(conn, "naive_app")
            conn.execute(
                "insert into naive.log (action, organization_id, new_values)"
                " values ('membership.baseline', '2', '{\"role\": \"OWNER\"}')"
            )


@attack(GROUP, FORGED, outcome="U", twin=True, documented="Of rows that were noted with others")
def test_a_naive_log_has_no_end_of_a_baseline(arena: Arena) -> None:
    with arena.trial() as conn, unnoticed(conn, rows=2):
        act(conn, "naive_app")
        for _ in range(2):
            conn.execute("insert into naive.log (action) values ('membership.baseline')")
