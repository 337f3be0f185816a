"""Silencing the capture: changes that are to leave no event."""

from __future__ import annotations

import contextlib
import re
import threading
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql
from psycopg.rows import dict_row

from tests import test_crash
from tests.attacks.conftest import NAIVE, Arena, act, count, look, newest, unnoticed
from tests.attacks.hostile import heard, mapper_functions, whom
from tests.attacks.report import attack
from tests.conftest import Database
from tests.server import Server

GROUP = "Silencing the capture"
ROLES = ["app", "app_reader", "app_auditor", "stranger"]
CHANGE = "update {} set role = 'ADMIN' where user_id = 2"


def findings(conn: psycopg.Connection[Any], where: str) -> list[dict[str, Any]]:
    """Return what doctor finds, as the superuser."""
    look(conn)
    return conn.execute(f"select * from audit.doctor() where {where}".encode()).fetchall()


NON_OWNERS = {
    "ALTER TABLE ... DISABLE TRIGGER by a role that does not own the table": [
        "alter table <table> disable trigger <trigger>",
        "alter table <table> disable trigger user",
        "alter table <table> enable trigger <trigger>",
        "alter table <table> enable replica trigger <trigger>",
        "alter trigger <trigger> on <table> rename to gone",
    ],
    "DROP TRIGGER, DROP FUNCTION CASCADE, DROP SCHEMA CASCADE by app and writer roles": [
        "drop trigger <trigger> on <table>",
        "drop function <capture> cascade",
        "drop schema <schema> cascade",
        "alter schema <schema> rename to gone",
        "alter function <capture> security invoker",
        "alter function <capture> set search_path = playground",
        "alter function <capture> rename to gone",
        "create or replace function <capture>() returns trigger language plpgsql"
        " as 'begin return null; end'",
        "drop table <log> cascade",
        "drop table <table> cascade",
        "create rule hide as on update to <table> do instead nothing",
        "alter table <table> rename to gone",
        "drop extension plpgsql cascade",
        "drop role audit_owner",
    ],
}
FIXED_BY_POSTGRES = ("drop extension", "drop role")


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(statement, marks=attack(GROUP, name, outcome="B", twin=True))
        for name, statements in NON_OWNERS.items()
        for statement in statements
    ],
)
def test_no_role_but_the_owner_silences_capture(arena: Arena, statement: str) -> None:
    for role in ROLES:
        arena.refuses(role, statement)
    if not statement.startswith(FIXED_BY_POSTGRES):
        arena.naive_falls(statement)


@attack(
    GROUP, "DROP FUNCTION or DROP SCHEMA by the table's owner and operator", outcome="B", twin=True
)
@pytest.mark.parametrize(
    "statement", ["drop function <capture> cascade", "drop schema <schema> cascade",
                  "alter function <capture> security invoker", "drop table <log>"],
)  # fmt: skip
def test_the_owner_of_the_tables_has_no_hold_on_the_log(arena: Arena, statement: str) -> None:
    arena.refuses("app_owner", statement)
    arena.naive_falls(statement + ("" if "cascade" in statement or "invoker" in statement
                                   else " cascade"))  # fmt: skip


BY_OWNER = {
    "disabled": ["alter table <table> disable trigger <trigger>"],
    "disabled and enabled again": [
        "alter table <table> disable trigger <trigger>",
        CHANGE.format("<table>"),
        "alter table <table> enable always trigger <trigger>",
    ],
    "all disabled and enabled again": [
        "alter table <table> disable trigger user",
        CHANGE.format("<table>"),
        "alter table <table> enable trigger user",
    ],
    "dropped": ["drop trigger <trigger> on <table>"],
    "renamed": ["alter trigger <trigger> on <table> rename to gone"],
    "replica only": ["alter table <table> enable replica trigger <trigger>"],
}


@attack(
    GROUP, "DISABLE TRIGGER by the owner, also when re-enabled within the transaction", outcome="D"
)
@pytest.mark.parametrize("how", BY_OWNER)
@pytest.mark.parametrize("role", ["app_owner", "superuser"])
def test_a_trigger_touched_by_the_owner_is_found(arena: Arena, how: str, role: str) -> None:
    with arena.trial() as conn:
        assert not findings(conn, "check_name = 'triggers'")
        if role != "superuser":
            act(conn, role)
        for statement in BY_OWNER[how]:
            conn.execute(arena.audit.write(statement).encode())
        assert findings(conn, "check_name = 'triggers' and object ~ 'membership'")


@attack(
    GROUP,
    "DISABLE TRIGGER by the owner, also when re-enabled within the transaction",
    outcome="D",
    twin=True,
)
def test_a_naive_trigger_disabled_for_a_moment_leaves_no_trace(arena: Arena) -> None:
    with arena.trial() as conn, unnoticed(conn):
        act(conn, "naive_app")
        conn.execute("alter table naive.membership disable trigger naive_capture")
        conn.execute(CHANGE.format("naive.membership").encode())
        conn.execute("alter table naive.membership enable trigger naive_capture")


def count_naive(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("select count(*) as n from naive.log").fetchone()
    assert row is not None
    return int(row["n"])


@attack(GROUP, "session_replication_role = replica", outcome="B", twin=True)
def test_replication_role_silences_nothing(arena: Arena) -> None:
    arena.refuses("app", "set session_replication_role = replica")
    with arena.trial() as conn:
        conn.execute("set local session_replication_role = replica")
        before = count(conn), count_naive(conn)
        conn.execute(CHANGE.format("membership").encode())
        conn.execute(CHANGE.format("naive.membership").encode())
        assert (count(conn), count_naive(conn)) == (before[0] + 1, before[1])


@attack(
    GROUP, "pg_dump --disable-triggers, which downgrades ALWAYS to origin", outcome="D", twin=True
)
def test_triggers_downgraded_by_a_restore_are_found(arena: Arena) -> None:
    with arena.trial() as conn:
        for statement in ("disable trigger all", "enable trigger all"):
            conn.execute(f"alter table membership {statement}".encode())
        assert findings(conn, "check_name = 'triggers' and problem ~ 'downgraded'")
        # What it opens: the naive trigger has been there from the start.
        conn.execute("set local session_replication_role = replica")
        before = count(conn)
        conn.execute(CHANGE.format("membership").encode())
        assert count(conn) == before
        with unnoticed(conn):
            conn.execute("alter table naive.membership disable trigger all")
            conn.execute("alter table naive.membership enable trigger all")
            conn.execute(CHANGE.format("naive.membership").encode())


@attack(GROUP, "A restore of a dump, whose script sets row_security = off", outcome="S", twin=True)
def test_row_security_off_neither_silences_nor_breaks(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "app")
        conn.execute("set local row_security = off")
        conn.execute(CHANGE.format("membership").encode())
        assert newest(conn)[0]["action"] == "membership.role_changed"
        conn.execute("alter table naive.log force row level security")
        act(conn, "naive_app")
        conn.execute("set local row_security = off")
        with pytest.raises(pg.InsufficientPrivilege):
            conn.execute(CHANGE.format("naive.membership").encode())


@attack(GROUP, "Attached table dropped and recreated", outcome="D", twin=True)
def test_a_recreated_table_is_found(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute("drop table membership")
        conn.execute("create table membership (organization_id int, user_id int, role text)")
        before = count(conn)
        conn.execute("insert into membership values (1, 2, 'OWNER')")
        assert count(conn) == before
        assert findings(conn, "check_name = 'tables' and problem <> ''")
        with unnoticed(conn):
            act(conn, "naive_app")
            conn.execute("drop table naive.membership")
            conn.execute("create table naive.membership (organization_id int, role text)")
            conn.execute("insert into naive.membership values (1, 'OWNER')")


@attack(GROUP, "Attached table renamed, or moved to another schema", outcome="S", twin=True)
@pytest.mark.parametrize("how", ["rename to members", "set schema playground"])
def test_a_renamed_or_moved_table_is_captured_under_its_new_name(arena: Arena, how: str) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute(f"alter table membership {how}".encode())
        name = "public.members" if "rename" in how else "playground.membership"
        act(conn, "app")
        conn.execute(CHANGE.format(name).encode())
        event = newest(conn)[0]
        assert (event["captured_from"], event["action"]) == (name, "membership.role_changed")
        assert "degraded" not in event["details"]
        # Twin: a trigger that writes the name into a check of its own loses the row's kind.
        act(conn, "naive_app")
        conn.execute("alter table naive.membership rename to members")
        conn.execute("update naive.members set role = 'x' where user_id = 1")
        row = conn.execute("select action from naive.log order by id desc limit 1").fetchone()
        assert row is not None and row["action"] != "updatemembership"


@attack(GROUP, "TRUNCATE, TRUNCATE ... CASCADE, TRUNCATE of one partition", outcome="S", twin=True)
@pytest.mark.parametrize(
    ("statement", "truncated"),
    [
        ("truncate membership", ["membership.truncated"]),
        ("truncate app_user cascade",
         ["api_key.truncated", "membership.truncated", "user.truncated"]),
        ("truncate playground.part_1", ["thing.truncated"]),
        ("truncate playground.part_2", ["thing.truncated"]),
    ],
)  # fmt: skip
def test_truncate_is_an_event(arena: Arena, statement: str, truncated: list[str]) -> None:
    with arena.trial() as conn:
        partitioned(conn)
        act(conn, "app_owner")
        conn.execute(statement.encode())
        actions = sorted(event["action"] for event in newest(conn, len(truncated)))
        assert actions == truncated
        before = count_naive(conn)
        conn.execute("truncate naive.membership")
        assert count_naive(conn) == before


def partitioned(conn: psycopg.Connection[Any]) -> None:
    """Attach a table of two partitions, and add a third afterwards."""
    act(conn, "app_owner")
    conn.execute(
        "create table playground.part (id int primary key, organization_id int)"
        " partition by range (id)"
    )
    for number in (1, 2):
        conn.execute(
            f"create table playground.part_{number} partition of playground.part"
            f" for values from ({number}00) to ({number + 1}00)".encode()
        )
    conn.execute("select audit.attach('playground.part', 'thing')")
    conn.execute(
        "create table playground.part_3 partition of playground.part for values from (300) to (400)"
    )
    conn.execute("grant all on playground.part, playground.part_2, playground.part_3 to app")


def naively_partitioned(conn: psycopg.Connection[Any], level: str = "row") -> None:
    """Make a partitioned table whose capture, by row or by statement, is on the parent."""
    act(conn, "naive_app")
    for statement in (
        "create table playground.plain (id int primary key, organization_id int)"
        " partition by range (id)",
        "create table playground.plain_1 partition of playground.plain for values from (1) to (9)",
        "create function playground.plain_capture() returns trigger language plpgsql as $$ begin"
        " insert into naive.log (action) values (lower(tg_op) || tg_table_name); return null; end"
        " $$",
        "create trigger capture after insert or update or delete on playground.plain"
        f" for each {level} execute function playground.plain_capture()",
    ):
        conn.execute(statement.encode())


@attack(GROUP, "TRUNCATE of a partition made after attaching, by the owner", outcome="D", twin=True)
def test_a_partition_without_a_trigger_for_truncate_is_found_and_mended(arena: Arena) -> None:
    with arena.trial() as conn:
        partitioned(conn)
        assert findings(conn, "check_name = 'triggers' and object = 'playground.part_3'")
        act(conn, "app_owner")
        conn.execute("select audit.reattach('playground.part')")
        conn.execute("truncate playground.part_3")
        assert newest(conn)[0]["action"] == "thing.truncated"
        assert not findings(conn, "check_name = 'triggers'")
        naively_partitioned(conn)
        conn.execute("insert into playground.plain values (1, 1)")
        with unnoticed(conn):
            act(conn, "naive_app")
            conn.execute("truncate playground.plain_1")


SWALLOW = {
    "before trigger": [
        "create function playground.swallow() returns trigger language plpgsql"
        " as 'begin return null; end'",
        "create trigger swallow before insert on <log> for each row"
        " execute function playground.swallow()",
    ],
    "before trigger on a partition": [
        "create function playground.swallow() returns trigger language plpgsql"
        " as 'begin return null; end'",
        "create trigger swallow before insert on <month> for each row"
        " execute function playground.swallow()",
    ],
    "rule": ["create rule swallow as on insert to <log> do instead nothing"],
    "rule on a partition": ["create rule swallow as on insert to <month> do instead nothing"],
}


@attack(
    GROUP, "A BEFORE trigger or a RULE on the log, by roles without TRIGGER", outcome="B", twin=True
)
@pytest.mark.parametrize("how", SWALLOW)
def test_no_role_puts_a_trigger_or_rule_on_the_log(arena: Arena, how: str) -> None:
    for role in [*ROLES, "app_owner"]:
        arena.refuses(role, *SWALLOW[how])
    with arena.login("naive_app") as conn:
        before = count_naive(conn)
        for statement in SWALLOW["rule" if "rule" in how else "before trigger"]:
            conn.execute(statement.replace("<log>", "naive.log").encode())
        conn.execute(CHANGE.format("naive.membership").encode())
        assert count_naive(conn) == before


@attack(
    GROUP,
    "A BEFORE trigger or a RULE on the log, by its owner or a superuser",
    outcome="D",
    twin=True,
)
@pytest.mark.parametrize("how", SWALLOW)
def test_a_trigger_or_rule_on_the_log_is_found(arena: Arena, how: str) -> None:
    with arena.trial() as conn:
        for statement in SWALLOW[how]:
            conn.execute(arena.audit.write(statement).encode())
        assert findings(conn, "check_name = 'log' and problem ~ 'swallow'")
        with unnoticed(conn):
            act(conn, "naive_app")
            for statement in SWALLOW[how]:
                conn.execute(NAIVE.write(statement.replace("swallow", "gulp")).encode())
            if "rule on" in how:
                conn.execute("insert into naive.log_month (action) values ('x')")
            else:
                conn.execute(CHANGE.format("naive.membership").encode())


UNUSUAL = {
    "copy": (None, 2),
    "merge": (
        "merge into {t} as t using (values (1, 1, 'ADMIN'), (1, 9, 'x')) as v (o, u, r)"
        " on t.organization_id = v.o and t.user_id = v.u"
        " when matched then update set role = v.r"
        " when not matched then insert (organization_id, user_id, role) values (o, u, r)",
        2,
    ),
    "merge delete": ("merge into {t} as t using (values (1)) as v on t.user_id = 2"
                     " when matched then delete", 1),
    "on conflict do update": (
        "insert into {t} (organization_id, user_id, role) values (1, 2, 'x'), (1, 9, 'y')"
        " on conflict (organization_id, user_id) do update set role = excluded.role",
        2,
    ),
    "on conflict do nothing": (
        "insert into {t} (organization_id, user_id, role) values (1, 2, 'x'), (1, 9, 'y')"
        " on conflict do nothing",
        1,
    ),
    "writable cte": (
        "with d as (delete from {t} where user_id = 2 returning *)"
        " insert into {t} (organization_id, user_id, role) select 2, user_id, role from d",
        2,
    ),
    "update from": ("update {t} as t set role = o.name from organization as o"
                    " where o.id = t.organization_id", 4),
    "dynamic in a do block": ("do $$ begin execute 'update {t} set role = 1'; end $$", 4),
    "prepared": ("prepare q as update {t} set role = 'x'; execute q; deallocate q", 4),
    "cursor": (
        "do $$ declare c cursor for select * from {t} for update; r record; begin open c;"
        " fetch c into r; update {t} set role = 'q' where current of c; end $$",
        1,
    ),
}  # fmt: skip


@attack(GROUP, "Statements that fire row triggers in unusual ways", outcome="S")
@pytest.mark.parametrize("how", UNUSUAL)
def test_every_row_of_an_unusual_statement_is_an_event(arena: Arena, how: str) -> None:
    statement, rows = UNUSUAL[how]
    with arena.trial() as conn:
        for i in (10, 9):
            conn.execute("insert into app_user (id, email) values (%s, %s)", (i, f"{i}@x.test"))
        before = count(conn)
        act(conn, "app")
        if statement is None:
            with (
                conn.cursor() as cursor,
                cursor.copy("copy membership (organization_id, user_id, role) from stdin") as copy,
            ):
                copy.write(b"1\t9\tx\n1\t10\ty\n")
        else:
            for part in (
                statement.format(t="membership").split("; ")
                if "prepare" in statement
                else [statement.format(t="membership")]
            ):
                conn.execute(part.encode())
        assert count(conn) == before + rows


@attack(GROUP, "Statements that fire row triggers in unusual ways", outcome="S")
def test_partitions_cascades_and_nested_triggers_lose_nothing(arena: Arena) -> None:
    with arena.trial() as conn:
        partitioned(conn)
        act(conn, "app")
        conn.execute("insert into playground.part values (101, 1), (201, 1), (301, 1)")
        conn.execute("insert into playground.part_2 values (202, 1)")
        conn.execute("update playground.part_3 set organization_id = null")
        assert [e["target_id"] for e in newest(conn, 5)] == ["101", "201", "301", "202", "301"]
        before = count(conn)
        act(conn, "app")
        conn.execute("update playground.part set id = 102 where id = 201")
        moved = newest(conn, count(conn) - before)
        assert {e["transaction_id"] for e in moved} == {moved[0]["transaction_id"]}
        assert {e["target_id"] for e in moved} == {"201", "102"}
        act(conn, "app_owner")
        conn.execute(
            "create function playground.again() returns trigger language plpgsql as $$ begin"
            " update membership set role = 'nested' where user_id = 4; return null; end $$"
        )
        conn.execute(
            "create trigger again after update on workflow for each row"
            " execute function playground.again()"
        )
        conn.execute("insert into workflow (id, organization_id, name) values (50, 1, 'w')")
        act(conn, "app")
        conn.execute("update workflow set name = 'v' where id = 50")
        assert sorted(e["action"] for e in newest(conn, 2)) == [
            "membership.role_changed", "workflow.modified",
        ]  # fmt: skip
        before = count(conn)
        act(conn, "app")
        conn.execute("delete from organization where id = 1")
        gone = newest(conn, count(conn) - before)
        assert {e["action"] for e in gone} >= {"membership.removed", "workflow.deleted"}
        assert all(e["organization_id"] == "1" for e in gone if e["action"] != "user.updated")


@attack(GROUP, "Statements that fire row triggers in unusual ways", outcome="S")
def test_a_change_by_a_deferred_trigger_is_an_event(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute(
            "create function playground.later() returns trigger language plpgsql as $$ begin"
            " update membership set role = 'later' where user_id = 4; return null; end $$"
        )
        conn.execute(
            "create constraint trigger later after update on workflow deferrable initially"
            " deferred for each row execute function playground.later()"
        )
        act(conn, "app")
        before = count(conn)
        conn.execute("update workflow set name = 'w' where organization_id = 1")
        assert count(conn) == before + 1
        conn.execute("set constraints all immediate")
        assert newest(conn)[0]["new_values"] == {"role": "later"}


# A log by rules, by triggers of statements, and by the application that sends the statement.
BY_RULE = (
    "drop trigger naive_capture on naive.membership",
    "create rule log as on insert to naive.membership do also"
    " insert into naive.log (action) values ('insertmembership')",
)
CASCADE = (
    "create table playground.team (id int primary key)",
    "create table playground.player (id int references playground.team on delete cascade)",
    "insert into playground.team values (1)",
    "insert into playground.player values (1), (1)",
)
INSERT = "insert into naive.membership values (1, 99, 'x')"
LOSES = {
    "direct DML on a partition": ((), "insert into playground.plain_1 values (1, 1)", 0),
    "foreign key cascade": (
        CASCADE,
        "with gone as (delete from playground.team returning id)"
        " insert into naive.log (action) select 'deleteteam' from gone",
        1,
    ),
    "copy": (BY_RULE, None, 0),
    "on conflict": (BY_RULE, INSERT + " on conflict (organization_id, user_id) do update"
                    " set role = 'x'", None),
    "merge": (BY_RULE, "merge into naive.membership as t using (values (1)) as v on false"
              " when not matched then insert values (1, 99, 'x')", None),
    "writable cte": (BY_RULE, f"with w as ({INSERT} returning *) select * from w", None),
}  # fmt: skip


@attack(GROUP, "Statements that fire row triggers in unusual ways", outcome="S", twin=True)
@pytest.mark.parametrize("how", LOSES)
def test_naive_logs_lose_the_rows_of_unusual_statements(arena: Arena, how: str) -> None:
    before, statement, events = LOSES[how]
    with arena.trial() as conn:
        naively_partitioned(conn, "statement")
        for part in before:
            conn.execute(part.encode())
        if events is None:
            with pytest.raises(pg.FeatureNotSupported):
                conn.execute(str(statement).encode())
            return
        with unnoticed(conn, rows=events):
            act(conn, "naive_app")
            if statement is not None:
                conn.execute(statement.encode())
                return
            with conn.cursor() as cursor, cursor.copy("copy naive.membership from stdin") as copy:
                copy.write(b"1\t99\tx\t\\N\n")


@attack(GROUP, "Logical replication apply", outcome="S", twin=True)
def test_what_replication_applies_is_an_event_a_row(arena: Arena, db: Database) -> None:
    table = "create table sent (id int primary key, organization_id int)"
    source, target = arena.database.connect(), db.connect()
    if source.execute("show wal_level").fetchone() != ("logical",):
        pytest.skip("a server given by its address may not replicate")
    for conn in (source, target):
        conn.execute(table.encode())
    target.execute("create table plain_log (id int)")
    target.execute(
        "create function plain_capture() returns trigger language plpgsql as $$ begin"
        " insert into plain_log values (coalesce(new.id, old.id)); return null; end $$"
    )
    target.execute(
        "create trigger plain after insert or update or delete on sent for each row"
        " execute function plain_capture()"
    )
    target.execute("select audit.attach('sent', 'thing')")
    source.execute("create publication attack for table sent")
    source.execute("select pg_create_logical_replication_slot('attack', 'pgoutput')")
    try:
        target.execute(
            sql.SQL(
                "create subscription attack connection {} publication attack"
                " with (create_slot = false, slot_name = 'attack', copy_data = false)"
            ).format(sql.Literal(arena.database.dsn))
        )
        for statement in ("insert into sent values (1, 1), (2, 1)",
                          "update sent set organization_id = null where id = 1",
                          "delete from sent where id = 2"):  # fmt: skip
            source.execute(statement.encode())
        applied = threading.Event()
        for _ in range(600):
            if len(db.events("target_type = 'thing'")) == 4:
                break
            applied.wait(0.05)
        assert db.actions("target_type = 'thing'") == [
            "thing.created", "thing.created", "thing.updated", "thing.deleted"]  # fmt: skip
        assert target.execute("select count(*) from plain_log").fetchone() == (0,)
    finally:
        if target.execute("select from pg_subscription where subname = 'attack'").rowcount:
            target.execute("alter subscription attack disable")
            target.execute("alter subscription attack set (slot_name = none)")
            target.execute("drop subscription attack")
        source.execute("select pg_terminate_backend(active_pid, 5000) from pg_replication_slots"
                       " where slot_name = 'attack' and active")  # fmt: skip
        source.execute("select pg_drop_replication_slot('attack')")
        source.execute("drop table sent cascade")
        source.execute("drop publication attack")


# A server of its own, for this one is killed.
victim = test_crash.victim


@attack(GROUP, "Crash by SIGKILL of a backend and of the postmaster", outcome="S", twin=True)
def test_a_crash_leaves_no_change_without_event(
    victim: tuple[Server, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_crash, "KILLS", 5)
    monkeypatch.setattr(test_crash, "TRANSACTIONS", 1500)
    test_crash.test_no_change_without_event_and_no_event_without_change(victim)


@attack(GROUP, "Savepoint rollback and two-phase commit", outcome="S", twin=True)
def test_event_is_exactly_where_the_change_is(arena: Arena) -> None:
    with arena.trial() as conn:
        before = count(conn)
        with contextlib.suppress(ZeroDivisionError), conn.transaction():
            conn.execute(CHANGE.format("membership").encode())
            raise ZeroDivisionError
        assert count(conn) == before
        conn.execute("savepoint a")
        conn.execute(CHANGE.format("membership").encode())
        conn.execute("release a")
        assert count(conn) == before + 1
    for end, kept in (("rollback", 0), ("commit", 1)):
        with arena.trial() as conn:
            conn.execute("delete from workflow")
            conn.execute("insert into workflow (organization_id, name) values (1, 'two-phase')")
            conn.execute("prepare transaction 'attack'")
            conn.execute(f"{end} prepared 'attack'".encode())
            row = conn.execute(
                "select (select count(*) from workflow where name = 'two-phase') as rows,"
                " (select count(*) from audit.event"
                " where new_values ->> 'name' = 'two-phase') as events"
            ).fetchone()
            assert row == {"rows": kept, "events": kept}
    # Twin: a log on a connection of its own keeps the event of a change that was rolled back.
    with arena.trial() as conn, arena.login("naive_app") as other:
        before = count_naive(other)
        other.execute("insert into naive.log (action) values ('update')")
        conn.execute("rollback")
        assert count_naive(other) == before + 1
        conn.execute("begin")


UNSEEN = {
    "ALTER TABLE ... TYPE ... USING, which rewrites rows without a trigger": (
        "alter table {}membership alter column role type text using 'OWNER'",
        "ALTER TABLE … ALTER COLUMN … TYPE … USING",
    ),
    "ALTER TABLE ... DETACH PARTITION or DROP TABLE of a partition, by the owner": (
        "drop table playground.{}_1",
        "removes them by dropping or detaching a partition",
    ),
}


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(statement, marks=attack(GROUP, name, outcome="U", twin=True, documented=words))
        for name, (statement, words) in UNSEEN.items()
    ],
)
def test_what_definitions_do_to_rows_is_not_seen(arena: Arena, statement: str) -> None:
    drops = statement.startswith("drop")
    with arena.trial() as conn:
        partitioned(conn)
        act(conn, "app")
        conn.execute("insert into playground.part values (101, 1)")
        before = count(conn)
        act(conn, "app_owner")
        conn.execute(statement.format("part" if drops else "public.").encode())
        assert count(conn) == before
        naively_partitioned(conn)
        with unnoticed(conn):
            act(conn, "naive_app")
            conn.execute(statement.format("plain" if drops else "naive.").encode())


SWAP = (
    "create table {0}_new (like {0} including all)",
    "insert into {0}_new select * from {0}",
    "alter table {0} rename to {1}_old",
    "alter table {0}_new rename to {1}",
)
SWAP_BACK = (
    "alter table {0} rename to {1}_new",
    "alter table {0}_old rename to {1}",
)
SWAP_ROW = "Rename swap of an attached table (create, copy, rename), and the rename back"
# By name, or by schema; the second leaves the oid and the short name as they were.
SWAPS = {
    "renamed": (SWAP, SWAP_BACK),
    "moved to another schema": (
        ("create table playground.{1} (like {0} including all)",
         "alter table {0} set schema svc", "alter table playground.{1} set schema public"),
        ("alter table {0} set schema playground", "alter table svc.{1} set schema public"),
    ),
    "a view put in its place": (
        ("alter table {0} rename to {1}_old", "create view {0} as select * from {0}_old"),
        ("drop view {0}", "alter table {0}_old rename to {1}"),
    ),
    "the schema swapped": (
        ("create schema other", "create table other.{1} (like {0} including all)",
         "alter table {0} set schema svc", "alter table other.{1} set schema public"),
        ("alter table {0} set schema other", "alter table svc.{1} set schema public"),
    ),
}  # fmt: skip
CRITICAL = "severity = 'critical' and (object ~ '{0}' or problem ~ '{0}')"


@attack(GROUP, SWAP_ROW, outcome="D")
@pytest.mark.parametrize("how", SWAPS)
@pytest.mark.parametrize("table", ["workflow", "api_key", "membership"])
def test_a_swapped_table_is_found_meanwhile_and_after(arena: Arena, table: str, how: str) -> None:
    there, back = SWAPS[how]
    with arena.trial() as conn:
        conn.execute("grant all on schema svc to app_owner")
        conn.execute("grant all on all tables in schema public to app")
        assert not findings(conn, CRITICAL.format(table))
        act(conn, "app_owner")
        for statement in there:
            conn.execute(statement.format(f"public.{table}", table).encode())
        meanwhile = findings(conn, CRITICAL.format(table))
        assert meanwhile, "doctor finds nothing while another table bears the name"
        act(conn, "app_owner")
        for statement in back:
            conn.execute(statement.format(f"public.{table}", table).encode())
        assert findings(conn, CRITICAL.format(table)), "nothing is left of the swap"
        # Until somebody answers for it.
        act(conn, "app_owner")
        conn.execute("select audit.attest(%s::regclass)", (f"public.{table}",))
        assert not findings(conn, CRITICAL.format(table))


@attack(GROUP, SWAP_ROW, outcome="D", twin=True)
def test_a_naive_log_does_not_notice_a_swap(arena: Arena) -> None:
    with arena.trial() as conn, unnoticed(conn):
        act(conn, "naive_app")
        for statement in SWAP:
            conn.execute(statement.format("naive.membership", "membership").encode())
        conn.execute("update naive.membership set role = 'OWNER'")
        for statement in SWAP_BACK:
            conn.execute(statement.format("naive.membership", "membership").encode())


ALTERED = "A function of audit_mapper altered, given away, renamed, moved, made STRICT or dropped"
ALTERATIONS = {
    "security invoker": "alter function {f} security invoker",
    "set search_path": "alter function {f} set search_path = svc, pg_catalog",
    "reset search_path": "alter function {f} reset search_path",
    "reset all": "alter function {f} reset all",
    "set role": "alter function {f} set role = 'app'",
    "set session authorization": "alter function {f} set session_authorization = 'app'",
    "set row_security": "alter function {f} set row_security = off",
    "set read only": "alter function {f} set transaction_read_only = on",
    "set lock_timeout": "alter function {f} set lock_timeout = 1",
    "set statement_timeout": "alter function {f} set statement_timeout = 1",
    "set datestyle": "alter function {f} set datestyle = 'German'",
    "set conflicts": "alter function {f} set plpgsql.variable_conflict = 'error'",
    "set unknown": "alter function {f} set svc.x = 'y'",
    "owner": "alter function {f} owner to other_owner",
    "owner superuser": "alter function {f} owner to postgres",
    "schema": "alter function {f} set schema svc",
    "rename": "alter function {f} rename to gone_{n}",
    "strict": "alter function {f} strict",
    "leakproof": "alter function {f} leakproof",
    "parallel safe": "alter function {f} parallel safe",
    "immutable": "alter function {f} immutable",
    "volatile": "alter function {f} volatile",
    "cost": "alter function {f} cost 1000000",
    "drop": "drop function {f}",
    "drop cascade": "drop function {f} cascade",
    "revoke": "revoke all on function {f} from public, audit_owner, audit_mapper",
    "grant": "grant execute on function {f} to public",
    "body": None,
    "body that raises": None,
    "body that returns null": None,
}
# Where the event is told the same, and nobody could have done it unseen.
HARMLESS = {"cost", "parallel safe", "leakproof", "volatile", "set datestyle", "set unknown",
            "immutable"}  # fmt: skip
BODIES = {
    "body": "begin raise notice 'ran as %', current_user; return null; end",
    "body that raises": "begin raise exception 'no'; end",
    "body that returns null": "begin return null; end",
}
CAPTURED = {
    "public.membership": (
        "insert into public.membership values (2, 2, 'MEMBER')",
        "update public.membership set role = 'ADMIN' where user_id = 2 and organization_id = 2",
        "delete from public.membership where user_id = 2 and organization_id = 2",
    ),
    "public.workflow_step": (
        "insert into public.workflow_step (id, workflow_id, position) values (77, 76, 1)",
        "update public.workflow_step set position = 2 where id = 77",
        "delete from public.workflow_step where id = 77",
    ),
    "svc.odd": (
        "insert into svc.odd values (1, 1, '{1}')",
        "update svc.odd set v = '{2}'",
        "delete from svc.odd",
    ),
}


def alter(conn: psycopg.Connection[Any], how: str, name: str, number: int) -> None:
    """Alter a function in one way."""
    statement = ALTERATIONS[how]
    if statement is not None:
        conn.execute(statement.format(f=name, n=number).encode())
        return
    row = conn.execute(
        "select pg_get_functiondef(oid) as def, prosrc as source, 'o' = any (proargmodes) as many"
        " from pg_proc where oid = %s::regprocedure",
        (name,),
    ).fetchone()
    assert row is not None
    body = BODIES[how].replace("return null", "return") if row["many"] else BODIES[how]
    conn.execute(row["def"].replace(row["source"], body).encode())


@attack(GROUP, ALTERED, outcome="S")
@pytest.mark.parametrize("how", sorted(ALTERATIONS.keys() - BODIES.keys()))  # not the mapper's
@pytest.mark.parametrize("context", ["", "no json"])
def test_an_altered_function_costs_detail_only(arena: Arena, how: str, context: str) -> None:
    """All of them at once, as one who has become audit_mapper would."""
    with arena.trial() as conn:
        act(conn, "other_owner")
        # An array of domains takes the long way, whichever that is; a child looks its parent up.
        conn.execute("create domain svc.small as int check (value < 9)")
        conn.execute("create table svc.odd (id int primary key, organization_id int,"
                     " v svc.small[])")  # fmt: skip
        conn.execute("grant all on svc.odd to app")
        conn.execute("select audit.attach('svc.odd', 'odd',"
                     " organization => 'coalesce(r.organization_id, r.id)')")  # fmt: skip
        look(conn)
        conn.execute("insert into workflow (id, organization_id, name) values (76, 1, 'w')")
        for number, name in enumerate(mapper_functions(conn)):
            alter(conn, how, name, number)
        # Nothing may be known of the functions from before.
        conn.execute("discard plans")
        for table, statements in CAPTURED.items():
            act(conn, "app")
            with heard(conn) as said:
                for statement in statements:
                    before = count(conn)
                    act(conn, "app")
                    conn.execute("select set_config('auditdb.context', %s, true)", (context,))
                    conn.execute(statement.encode())
                    assert count(conn) == before + 1, f"no event of: {statement}"
                    event = newest(conn)[0]
                    assert event["captured_from"] == table
                    complete = event["target_id"] and event["organization_id"] and (
                        event["old_values"] or event["new_values"])  # fmt: skip
                    assert complete or (event["details"] or {}).get("degraded"), event
            assert whom(said) <= {"audit_mapper"}, said


@attack(GROUP, ALTERED, outcome="D")
@pytest.mark.parametrize("how", ALTERATIONS)
def test_an_altered_function_is_found(arena: Arena, how: str) -> None:
    with arena.trial() as conn:
        # One of each kind: those of other tables are made by the same code.
        names = {re.sub("[0-9]+", "", name): name for name in mapper_functions(conn)}.values()
        assert not findings(conn, "severity = 'critical'")
        for number, name in enumerate(names):
            with conn.transaction(force_rollback=True):
                alter(conn, how, name, number)
                look(conn)
                found = findings(conn, "severity in ('critical', 'warning')")
                assert found, f"doctor does not find {name} altered"
                if how not in HARMLESS:
                    assert [f for f in found if f["severity"] == "critical"], found


@attack(GROUP, ALTERED, outcome="S", twin=True)
def test_a_naive_function_that_is_dropped_breaks_the_action(arena: Arena) -> None:
    with arena.login("naive_app") as conn:
        for statement in (
            "create function naive.image(i int) returns text language sql as 'select i::text'",
            "create or replace function naive.capture() returns trigger language plpgsql as $$"
            " begin insert into naive.log (action) values (naive.image(1)); return null; end $$",
            "drop function naive.image(int)",
        ):
            conn.execute(statement.encode())
        with pytest.raises(pg.UndefinedFunction):
            conn.execute(CHANGE.format("naive.membership").encode())


@attack(GROUP, ALTERED, outcome="D", twin=True)
def test_a_naive_function_made_strict_loses_events_unnoticed(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        conn.execute(
            "create function naive.image(o naive.membership, n naive.membership) returns text"
            " language plpgsql as $$ begin return 'x'; end $$"
        )
        conn.execute(
            "create or replace function naive.capture() returns trigger language plpgsql as $$"
            " declare a text := naive.image(old, new); begin if a is not null then"
            " insert into naive.log (action) values (a); end if; return null; end $$"
        )
        with unnoticed(conn):
            act(conn, "naive_app")
            conn.execute("alter function naive.image strict")
            conn.execute("insert into naive.membership values (9, 9, 'OWNER')")


LESS = "A mapping in force that says less than what was asked for (verbs, ignore, target type)"
LESSER = {
    "no verbs": "mapping || '{\"verbs\": {}}'",
    "other verbs": "jsonb_set(mapping, '{verbs,changed}', '\"workflow.modified\"')",
    "verbs of the log": "jsonb_set(mapping, '{verbs,born}', '\"audit.attested\"')",
    "all ignored": "jsonb_set(mapping, '{ignore}', mapping -> 'columns')",
    "another type": "jsonb_set(mapping, '{target_type}', '\"nothing\"')",
    "another organisation": "jsonb_set(mapping, '{organization}', '\"null\"')",
    "another subject": "jsonb_set(mapping, '{subject}', '\"''7''\"')",
    "another admin": "jsonb_set(mapping, '{admin}', '\"true\"')",
    "nothing redacted": "jsonb_set(mapping, '{redact}', '[]')",
    "never alive": "jsonb_set(mapping, '{alive}', '\"false\"')",
}


@attack(GROUP, LESS, outcome="D")
@pytest.mark.parametrize("how", LESSER)
def test_a_mapping_in_force_that_says_less_is_found(arena: Arena, how: str) -> None:
    """Written by a superuser, since nobody else can: what is in force is what doctor compares."""
    with arena.trial() as conn:
        table = "public.app_user" if how == "nothing redacted" else "public.membership"
        changed = conn.execute(
            f"update audit_private.attachment set mapping = {LESSER[how]} where target = '{table}'"
            f"::regclass and mapping <> {LESSER[how]}".encode()
        )
        assert changed.rowcount == 1
        assert findings(conn, CRITICAL.format(table.split(".")[1])), "doctor finds nothing"


@attack(GROUP, LESS, outcome="B")
@pytest.mark.parametrize("how", LESSER)
@pytest.mark.parametrize("role", ["app_owner", "oper", "other_owner", "app", "app_auditor"])
def test_nobody_stores_a_mapping_of_their_own(arena: Arena, how: str, role: str) -> None:
    with arena.login(role) as conn:
        for statement in (
            f"update audit_private.attachment set mapping = {LESSER[how]}",
            "insert into audit_private.attachment (target, kind, mapping, name)"
            f" select 'organization'::regclass, kind, {LESSER[how]}, name"
            " from audit_private.attachment limit 1",
        ):
            with pytest.raises(pg.InsufficientPrivilege), conn.transaction():
                conn.execute(statement.encode())


@attack(GROUP, LESS, outcome="B", twin=True)
def test_a_naive_mapping_is_anyones_to_change(arena: Arena) -> None:
    with arena.login("naive_app") as conn:
        conn.execute("insert into naive.mapping values ('naive.membership', 'r.organization_id')")
        assert conn.execute("update naive.mapping set organization = 'null'").rowcount == 1


@attack(GROUP, LESS, outcome="D", twin=True)
def test_a_naive_doctor_finds_nothing_wrong_with_a_changed_mapping(arena: Arena) -> None:
    with arena.trial() as conn, unnoticed(conn):
        act(conn, "naive_app")
        conn.execute("insert into naive.mapping values ('naive.membership', 'r.organization_id')")
        act(conn, "stranger")
        conn.execute("update naive.mapping set organization = 'null'")
        act(conn, "naive_app")
        assert conn.execute("select naive.doctor()").fetchall() == []


CHECKS = {
    "another rule": ("membership", "membership", '{"admin": "true"}'),
    "less of it": ("workflow", "workflow", '{"ignore": ["name", "config"]}'),
    "none": ("workflow", None, None),
}


@attack(GROUP, LESS, outcome="B")
@pytest.mark.parametrize("how", CHECKS)
@pytest.mark.parametrize("first", ["", "set constraints all immediate"])
def test_a_mapping_that_is_only_checked_is_never_in_force(
    db: Database, how: str, first: str
) -> None:
    owner = db.connect("app_owner")
    query = "select kind, mapping from audit_private.attachment order by id"
    before = meanwhile = owner.execute(query).fetchall()
    with pytest.raises(pg.InvalidTransactionTermination), owner.transaction():
        owner.execute(first.encode() or b"select")
        owner.execute(
            "insert into audit_private.request (verb, target, kind, given)"
            " values ('check', %s::regclass, %s, %s)", CHECKS[how]
        )  # fmt: skip
        # What goes on is rolled back at the end.
        meanwhile = owner.execute(query).fetchall()
    assert owner.execute(query).fetchall() == before != meanwhile
    assert db.connect().execute(
        "select from audit.event where action in ('audit.detached', 'audit.remapped')"
    ).fetchall() == []  # fmt: skip


@attack(GROUP, LESS, outcome="D")
@pytest.mark.parametrize("how", ["disable trigger refuse_check", "enable trigger refuse_check"])
def test_checks_that_could_be_committed_are_found_and_mended(db: Database, how: str) -> None:
    db.connect().execute(f"alter table audit_private.request {how}".encode())
    owner = db.connect("app_owner", row_factory=dict_row)
    found = findings(db.connect(row_factory=dict_row), "object = 'audit_private.request'")
    assert [f["mend"] for f in found] == ["select audit.mend_guards()"]
    owner.execute("select audit.mend_guards()")
    assert findings(db.connect(row_factory=dict_row), "object = 'audit_private.request'") == []
