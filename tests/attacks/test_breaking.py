"""Breaking the action through its capture: nothing in a row or a mapping stops it."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

import auditdb
from tests.attacks.conftest import Arena, act, count, look, newest, unnoticed
from tests.attacks.report import attack
from tests.conftest import Database

GROUP = "Breaking the action through the capture"
NAIVE = (
    "create trigger plain after insert or update or delete on {0} for each row"
    " execute function naive.capture()"
)


def degraded(event: dict[str, Any]) -> Any:
    return (event["details"] or {}).get("degraded")


DRIFT = {
    "renamed": ("alter table {t} rename column role to rank", "rank"),
    "dropped": ("alter table {t} drop column role", "updated_at"),
    "retyped": ("alter table {t} alter column role type int using 7", "role"),
    "organisation renamed": ("alter table {t} rename column organization_id to tenant", "role"),
    "organisation dropped": ("alter table {t} drop column organization_id cascade", "role"),
    "added": ("alter table {t} add column extra jsonb default '[]'", "role"),
}


@attack(GROUP, "Mapped column renamed, dropped, retyped; column added", outcome="S")
@pytest.mark.parametrize("how", DRIFT)
def test_a_table_that_changed_is_written_to_and_recorded(arena: Arena, how: str) -> None:
    statement, column = DRIFT[how]
    value = {"updated_at": "now()", "role": "'8'"}.get(column, "'x'")
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute(statement.format(t="membership").encode())
        before = count(conn)
        act(conn, "app")
        conn.execute(f"update membership set {column} = {value} where user_id = 2".encode())
        conn.execute("delete from membership where user_id = 2")
        events = newest(conn, count(conn) - before)
        assert events and events[-1]["action"] == "membership.removed"
        if column != "updated_at":
            assert len(events) == 2 and column in events[0]["new_values"]


@attack(GROUP, "Mapped column renamed, dropped, retyped; column added", outcome="S", twin=True)
def test_a_trigger_that_names_columns_breaks_when_they_go(arena: Arena) -> None:
    with arena.login("naive_app") as conn:
        conn.execute(
            "create function naive.by_name() returns trigger language plpgsql as $$ begin"
            " insert into naive.log (action, new_values) values ('x', to_jsonb(new.role));"
            " return null; end $$"
        )
        conn.execute(
            "create trigger by_name after update on naive.membership for each row"
            " execute function naive.by_name()"
        )
        conn.execute("alter table naive.membership rename column role to rank")
        with pytest.raises(pg.UndefinedColumn):
            conn.execute("update naive.membership set rank = 'x'")


LOOKUPS = {
    "raises": "drop table playground.team",
    "returns none": "delete from playground.team",
    "returns several": "insert into playground.team values (1, 1), (1, 2)",
    "asserts": "create or replace function playground.team_of(i int) returns text"
    " language plpgsql as $$ begin assert false; end $$",
    "raises an error": "create or replace function playground.team_of(i int) returns text"
    " language plpgsql as $$ begin raise 'no'; end $$",
    "is gone": "drop function playground.team_of(int)",
    "may not be read": "revoke all on playground.team from audit_mapper",
    "is far too long": "create or replace function playground.team_of(i int) returns text"
    " language sql as $$ select repeat(md5(random()::text), 10000) $$",
}


@attack(GROUP, "Lookup dropped, raising an error, returning none or several rows", outcome="S")
@pytest.mark.parametrize("how", LOOKUPS)
def test_a_lookup_that_fails_costs_detail_only(arena: Arena, how: str) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute("create table playground.team (id int, organization_id int)")
        conn.execute(
            "create function playground.team_of(i int) returns text language plpgsql as $$ begin"
            " return i; end $$"
        )
        conn.execute("create table playground.task (id int primary key, team_id int, name text)")
        conn.execute("grant all on playground.task to app")
        conn.execute(
            "select audit.attach('playground.task', 'task', organization => 'coalesce((select"
            " t.organization_id::text from playground.team as t where t.id = r.team_id),"
            " playground.team_of(r.team_id))')"
        )
        conn.execute("insert into playground.team values (1, 1)")
        conn.execute(LOOKUPS[how].encode())
        if how in ("asserts", "raises an error", "is far too long"):
            conn.execute("delete from playground.team")
        before = count(conn)
        act(conn, "app")
        for statement in ("insert into {} values (1, 1, 'n')", "update {} set name = 'm'",
                          "delete from {}"):  # fmt: skip
            conn.execute(statement.format("playground.task").encode())
        events = newest(conn, 3)
        assert count(conn) == before + 3
        assert [e["action"] for e in events] == ["task.created", "task.updated", "task.deleted"]
        assert events[1]["new_values"] == {"name": "m"}
        if how not in ("returns none",):
            assert all(degraded(event) for event in events), events


@attack(GROUP, "statement_timeout, lock_timeout, cancel during capture", outcome="S")
def test_a_lookup_that_recurses_without_end_fails_both_or_costs_detail(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        for statement in (
            "create function playground.endless(i int) returns text language plpgsql as"
            " 'begin return playground.endless(i + 1); end'",
            "create table playground.task (id int primary key, name text)",
            "grant all on playground.task to app",
            "select audit.attach('playground.task', 'task',"
            " organization => 'playground.endless(r.id)')",
        ):
            conn.execute(statement.encode())
        before = count(conn)
        act(conn, "app")
        went = True
        try:
            with conn.transaction():
                conn.execute("insert into playground.task values (1, 'n')")
        except pg.StatementTooComplex:
            went = False
        assert count(conn) == before + went
        if went:
            assert degraded(newest(conn)[0])


@attack(
    GROUP,
    "Lookup dropped, raising an error, returning none or several rows",
    outcome="S",
    twin=True,
)
def test_a_naive_lookup_breaks_the_action(arena: Arena) -> None:
    with arena.login("naive_app") as conn:
        conn.execute(
            "create function naive.lookup() returns trigger language plpgsql as $$ begin"
            " insert into naive.log (action, organization_id) values ('x',"
            " (select name from naive.team where id = new.organization_id)); return null; end $$"
        )
        conn.execute(
            "create trigger lookup after update on naive.membership for each row"
            " execute function naive.lookup()"
        )
        with pytest.raises(pg.UndefinedTable):
            conn.execute("update naive.membership set role = 'x'")


VALUES = {
    "json null character": ("json", r"""'{"a": "\u0000"}'"""),
    "json lone surrogate": ("json", r"""'"\ud800"'"""),
    "json 1e1000000": ("json", "'1e1000000'"),
    "json nested deep": ("json", "(repeat('[', 400) || repeat(']', 400))::json"),
    "NaN": ("float8", "'NaN'"),
    "infinity": ("numeric", "'infinity'"),
    "infinite date": ("date", "'infinity'"),
    "infinite time": ("timestamptz", "'-infinity'"),
    "BC": ("timestamptz", "'4713-01-01 BC'"),
    "range": ("int4range", "'empty'"),
    "multirange": ("int8multirange", "'{[1,2),[5,)}'"),
    "composite": ("playground.pair", "row(1, 'a')"),
    "domain": ("playground.short", "'ab'"),
    "array of enums": ("playground.mood[]", "'{fine,sad}'"),
    "bytea": ("bytea", r"'\x00ff'"),
    "array with bounds": ("int[]", "'[-5:-4]={1,2}'"),
    "money": ("money", "'12.34'"),
    "bits": ("varbit", "'101'"),
    "tsvector": ("tsvector", "'a:1A'"),
    "interval": ("interval", "'-178000000 years'"),
}
ABORTS_NAIVE = {"json null character", "json lone surrogate", "json 1e1000000"}


@attack(
    GROUP, "Values that jsonb cannot hold, and values of every odd type", outcome="S", twin=True
)
@pytest.mark.parametrize("how", VALUES)
def test_no_value_stops_its_row(arena: Arena, how: str) -> None:
    type_, value = VALUES[how]
    with arena.trial() as conn:
        act(conn, "app_owner")
        for statement in (
            "create type playground.pair as (a int, b text)",
            "create domain playground.short as text check (length(value) < 3)",
            "create type playground.mood as enum ('fine', 'sad')",
            f"create table playground.odd (id int primary key, organization_id int, v {type_})",
            "grant all on playground.odd to app, naive_app",
            "select audit.attach('playground.odd', 'odd', ignore => '{-v}')",
        ):
            conn.execute(statement.encode())
        act(conn, "app")
        conn.execute(f"insert into playground.odd values (1, 1, {value}), (2, 1, null)".encode())
        conn.execute(f"update playground.odd set v = {value} where id = 2".encode())
        conn.execute("delete from playground.odd")
        events = newest(conn, 5)
        assert [e["action"] for e in events] == [
            "odd.created", "odd.created", "odd.updated", "odd.deleted", "odd.deleted"]  # fmt: skip
        assert all(e["organization_id"] == "1" for e in events)
        assert bool(degraded(events[0])) == (how in ABORTS_NAIVE)
        if how in ABORTS_NAIVE:
            conn.execute(NAIVE.format("playground.odd").encode())
            act(conn, "app")
            with pytest.raises(psycopg.DataError):
                conn.execute(f"insert into playground.odd values (3, 1, {value})".encode())


@attack(GROUP, "A table of 1,600 columns", outcome="S", twin=True)
def test_a_table_as_wide_as_can_be_is_captured(arena: Arena) -> None:
    columns = ", ".join(f"secret_{i} smallint" for i in range(1597))
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute(
            "create table playground.wide (id int primary key, organization_id int,"
            f" name text, {columns})".encode()
        )
        conn.execute("select audit.attach('playground.wide', 'wide')")
        conn.execute("insert into playground.wide (id, organization_id, secret_7) values (1, 1, 5)")
        conn.execute("update playground.wide set name = 'n', secret_1596 = 5")
        created, updated = newest(conn, 2)
    assert len(created["new_values"]) == 1600
    assert created["new_values"]["secret_7"] == "[redacted]"
    assert updated["new_values"] == {"name": "n", "secret_1596": "[redacted]"}
    # Twin: a trigger that names every column passes more arguments than a function takes.
    with arena.login("naive_app") as conn:
        conn.execute(f"create table playground.wide (id int, {columns})".encode())
        pairs = ", ".join(f"'secret_{i}', new.secret_{i}" for i in range(1597))
        conn.execute(
            "create function playground.name_all() returns trigger language plpgsql as $$ begin"
            " insert into naive.log (action, new_values)"
            f" values ('x', jsonb_build_object({pairs})); return null; end $$".encode()
        )
        conn.execute(
            "create trigger name_all after insert on playground.wide for each row"
            " execute function playground.name_all()"
        )
        with pytest.raises(pg.TooManyArguments):
            conn.execute("insert into playground.wide (id, secret_7) values (1, 5)")


@attack(GROUP, "A value beyond 256 MB", outcome="S", twin=True)
def test_a_value_beyond_what_jsonb_holds_is_recorded_as_lost(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute(
            "create unlogged table playground.big"
            " (id int primary key, organization_id int, v bpchar)"
        )
        # Compressing it would take most of the time.
        conn.execute("alter table playground.big alter column v set storage external")
        insert = "insert into playground.big values (1, 1, repeat('x', 270000000))"
        # Twin: before the row is written, which would take as long again.
        with pytest.raises(pg.ProgramLimitExceeded), conn.transaction():
            conn.execute(
                "create trigger plain before insert on playground.big for each row"
                " execute function naive.capture()"
            )
            conn.execute(insert)
        conn.execute("select audit.attach('playground.big', 'big')")
        conn.execute(insert)
        event = newest(conn)[0]
        assert event["organization_id"] == "1" and event["target_id"] == "1" and degraded(event)


MB = 3_000_000
CONTEXTS = {
    "no json": "{actor",
    "array": "[1, 2]",
    "string": '"x"',
    "number": "5",
    "null": "null",
    "null character": r'{"actor_id": "\u0000"}',
    "details a number": '{"details": 5}',
    "details an array": '{"details": [1]}',
    "actor an object": '{"actor_id": {"a": 1}, "source": ["x"]}',
    "deeply nested": "[" * 100_000,
    "megabytes": '{"actor_id": "' + "x" * MB + '", "details": {"a": "' + "y" * MB + '"}}',
    "odd characters": '{"actor_id": "\u202eadmin\u0007\U0001f600"}',
    "only a space": " ",
}  # fmt: skip


@attack(
    GROUP, "A context that is no JSON, of the wrong shape, huge, or odd", outcome="S", twin=True
)
@pytest.mark.parametrize("how", CONTEXTS)
def test_no_context_stops_the_action(arena: Arena, how: str) -> None:
    with arena.trial() as conn:
        act(conn, "app")
        conn.execute("select set_config('auditdb.context', %s, true)", (CONTEXTS[how],))
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
        event = newest(conn)[0]
        assert event["organization_id"] == "1" and event["db_user"] == "app"
        assert event["new_values"] == {"role": "ADMIN"}
        assert len(event["actor_id"] or "") <= 200
        if how in ("no json", "null character", "deeply nested", "only a space"):
            assert "context" in degraded(event)["lost"]
            act(conn, "naive_app")
            conn.execute("select set_config('naive.context', %s, true)", (CONTEXTS[how],))
            with pytest.raises(psycopg.Error):
                conn.execute("update naive.membership set role = 'ADMIN'")


@attack(GROUP, "No partition for today; clock before the first partition", outcome="S", twin=True)
@pytest.mark.parametrize("what", ["today's", "all"])
def test_an_event_without_a_partition_lands_in_default(arena: Arena, what: str) -> None:
    with arena.trial() as conn:
        partitions = conn.execute(
            "select inhrelid::regclass::text as name from pg_inherits"
            " where inhparent = 'audit.event'::regclass"
            " and inhrelid <> 'audit.event_default'::regclass"
        ).fetchall()
        for partition in partitions:
            if what == "all" or partition["name"] == arena.audit.month:
                conn.execute(
                    f"alter table audit.event detach partition {partition['name']}".encode()
                )
        act(conn, "app")
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
        look(conn)
        row = conn.execute("select count(*) as n from audit.event_default").fetchone()
        assert row == {"n": 1}
        conn.execute("alter table naive.log detach partition naive.log_default")
        conn.execute("alter table naive.log detach partition naive.log_month")
        act(conn, "naive_app")
        with pytest.raises(pg.CheckViolation):
            conn.execute("update naive.membership set role = 'ADMIN' where user_id = 2")


@attack(GROUP, "statement_timeout, lock_timeout, cancel during capture", outcome="S")
@pytest.mark.parametrize("how", ["statement_timeout", "lock_timeout", "cancel"])
def test_action_and_event_fail_together(db: Database, how: str) -> None:
    with psycopg.connect(db.conninfo("app_owner")) as conn:
        conn.execute("create table gate (id int primary key)")
        conn.execute("insert into gate values (1)")
        conn.execute(
            "create function slow(int) returns text language plpgsql as $$ begin"
            + (" lock table gate;" if how == "lock_timeout" else " perform pg_sleep(30);")
            + " return 1; end $$"
        )
        conn.execute("create table task (id int primary key, team int)")
        conn.execute("grant all on task to app; grant all on gate to audit_mapper")
        conn.execute("select audit.attach('task', 'task', organization => 'public.slow(r.team)')")
    holder = db.connect("app_owner", autocommit=False)
    holder.execute("lock table gate")
    app = db.connect("app", autocommit=False)
    app.execute("update membership set role = 'x' where user_id = 2")
    if how == "cancel":
        timer = threading.Timer(0.3, app.cancel_safe)
        timer.start()
    else:
        app.execute(f"set {how} = '200ms'".encode())
    # A lock that is not had in time is an error like any other: the lookup is lost, no more.
    if how == "lock_timeout":
        app.execute("insert into task values (1, 1)")
        app.commit()
        holder.rollback()
        assert degraded(db.events("target_type = 'task'")[0])
        return
    with pytest.raises(pg.QueryCanceled):
        app.execute("insert into task values (1, 1)")
    app.rollback()
    holder.rollback()
    assert db.events("action in ('task.created', 'membership.role_changed')") == []
    assert db.connect().execute("select count(*) from task").fetchone() == (0,)


@attack(GROUP, "statement_timeout, lock_timeout, cancel during capture", outcome="S", twin=True)
@pytest.mark.parametrize("how", ["statement_timeout", "lock_timeout"])
def test_a_naive_log_that_forgives_errors_loses_the_event_alone(arena: Arena, how: str) -> None:
    with arena.trial() as conn, arena.login("app_owner") as holder:
        act(conn, "naive_app")
        wait = "pg_sleep(30)" if how == "statement_timeout" else "pg_advisory_xact_lock(4711)"
        holder.execute("select pg_advisory_xact_lock(4711)")
        conn.execute(
            "create function naive.forgiving() returns trigger language plpgsql as $$ begin"
            f" perform {wait}; insert into naive.log (action) values ('x'); return null;"
            " exception when query_canceled or others then return null; end $$".encode()
        )
        conn.execute("drop trigger naive_capture on naive.membership")
        conn.execute(
            "create trigger forgiving after update on naive.membership for each row"
            " execute function naive.forgiving()"
        )
        with unnoticed(conn):
            conn.execute(f"set local {how} = '100ms'".encode())
            done = conn.execute("update naive.membership set role = 'x' where user_id = 2")
            assert done.rowcount == 1


@attack(GROUP, "Application role without any privilege on schema audit", outcome="S", twin=True)
def test_a_role_that_knows_nothing_of_the_log_is_recorded(arena: Arena) -> None:
    with arena.trial() as conn:
        conn.execute("grant select, update on membership to stranger")
        act(conn, "stranger")
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
        assert newest(conn)[0]["db_user"] == "stranger"
        # Twin: without SECURITY DEFINER the trigger needs privileges that the role does not have.
        conn.execute("alter function naive.capture() security invoker")
        conn.execute("grant select, update on naive.membership to stranger")
        act(conn, "stranger")
        with pytest.raises(pg.InsufficientPrivilege):
            conn.execute("update naive.membership set role = 'ADMIN' where user_id = 2")


@attack(GROUP, "Maintenance, install, upgrade and attach while writers run", outcome="S")
def test_writers_go_on_while_the_log_is_worked_on(db: Database) -> None:
    stop = threading.Event()
    waits: list[float] = []
    errors: list[Exception] = []
    done = [0, 0]

    def write(number: int) -> None:
        conn = db.connect("app")
        try:
            while not stop.is_set():
                started = time.monotonic()
                conn.execute(
                    "insert into workflow (organization_id, name) values (1, %s)", (str(number),)
                )
                waits.append(time.monotonic() - started)
                done[number] += 1
        except Exception as error:
            errors.append(error)

    # One that has written and does not end: whoever needs an exclusive lock would wait for it.
    idle = db.connect("app", autocommit=False)
    idle.execute("insert into workflow (organization_id, name) values (1, 'idle')")
    writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(2):
            auditdb.install(db.dsn)
            with psycopg.connect(db.conninfo("app_owner")) as conn:
                conn.execute("select audit.attach('public.membership', 'membership')")
                conn.execute("create table if not exists invoice (id int primary key)")
                conn.execute("select audit.attach('invoice', 'invoice')")
                conn.execute("select audit_private.create_months(30)")
                conn.execute("select * from audit.maintain()")
    finally:
        stop.set()
        for writer in writers:
            writer.join()
        idle.commit()
    assert not errors
    assert len(db.events("action = 'workflow.created'")) == sum(done) + 1
    print(f"longest wait of a writer: {max(waits) * 1000:.0f} ms in {sum(done)} writes")


@attack(GROUP, "Maintenance, install, upgrade and attach while writers run", outcome="S", twin=True)
def test_making_a_partition_of_a_naive_log_locks_out_writers(arena: Arena) -> None:
    make = (
        "create table naive.log_2095 partition of naive.log"
        " for values from ('2095-01-01') to ('2096-01-01')"
    )
    change = "update naive.membership set role = 'x' where user_id = 2"
    for first, second in ((change, make), (make, change)):
        with arena.trial() as one, arena.login("naive_app") as two:
            one.execute(first.encode())
            two.execute("set local lock_timeout = '100ms'")
            with pytest.raises(pg.LockNotAvailable):
                two.execute(second.encode())


@attack(GROUP, "Two transactions on two organisations in opposite order", outcome="S", twin=True)
def test_opposite_order_is_no_deadlock(db: Database) -> None:
    one, two = (db.connect("app", autocommit=False) for _ in range(2))
    change = "update membership set role = role || 'x' where organization_id = %s and user_id = %s"
    for conn, first in ((one, (1, 1)), (two, (2, 3))):
        conn.execute("set local statement_timeout = '5s'")
        conn.execute(change, first)
    one.execute(change, (2, 4))
    two.execute(change, (1, 2))
    one.commit()
    two.commit()
    assert len(db.events("action = 'membership.role_changed'")) == 4
    # Twin: a log that chains the events of an organisation locks its head row, and deadlocks.
    with psycopg.connect(db.conninfo("app_owner")) as conn:
        conn.execute("create table head (org int primary key, n int default 0)")
        conn.execute("insert into head values (1), (2)")
        conn.execute("grant all on head to app")
    for conn, org in ((one, 1), (two, 2)):
        conn.execute("update head set n = n + 1 where org = %s", (org,))
    failed: list[Exception] = []

    def cross(conn: psycopg.Connection[Any], org: int) -> None:
        try:
            conn.execute("update head set n = n + 1 where org = %s", (org,))
        except pg.DeadlockDetected as error:
            failed.append(error)
        conn.rollback()

    threads = [threading.Thread(target=cross, args=pair) for pair in ((one, 2), (two, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 1


CONFORM = "Session whose strings do not conform: patterns and expressions read otherwise"
NOT_CONFORMING = "set local standard_conforming_strings = off"


@attack(GROUP, CONFORM, outcome="S")
@pytest.mark.parametrize("drift", ["", "alter table playground.note add column more int"])
def test_strings_that_do_not_conform_change_no_event(arena: Arena, drift: str) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute("create table playground.note (id int primary key, body text, org int)")
        conn.execute("grant all on playground.note to app")
        conn.execute(
            "select audit.attach('playground.note', 'note', organization =>"
            r" $$case when r.body not like 'in\_%' then r.org end$$)"
        )
        if drift:
            conn.execute(drift.encode())
        act(conn, "app")
        conn.execute(NOT_CONFORMING)
        conn.execute("insert into playground.note values (1, 'inner token: Bearer abc12345', 2)")
        (event,) = newest(conn, 1)
        assert event["organization_id"] == "2" and "abc12345" not in str(event["new_values"])
        assert not degraded(event)


@attack(GROUP, CONFORM, outcome="S", twin=True)
def test_a_trigger_with_a_pattern_matches_nothing_then(arena: Arena) -> None:
    with arena.login("naive_app") as conn:
        conn.execute(
            "create function naive.redacted() returns trigger language plpgsql as $$ begin"
            r" insert into naive.log (action, new_values) values ('x', to_jsonb(regexp_replace("
            r" new.role, 'Bearer\s+\S+', 'Bearer [redacted]')));"
            " return null; end $$"
        )
        conn.execute(
            "create trigger redacted after update on naive.membership for each row"
            " execute function naive.redacted()"
        )
        conn.execute(NOT_CONFORMING)
        conn.execute("update naive.membership set role = 'Bearer abc12345' where user_id = 1")
        row = conn.execute("select new_values::text from naive.log order by id desc").fetchone()
        assert row is not None and row["new_values"] == '"Bearer abc12345"'
