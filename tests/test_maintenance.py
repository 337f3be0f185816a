"""Maintenance: partitions ahead, DEFAULT drained, retention; never in a writer's way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

import auditdb
from auditdb.cli import main
from auditdb.operate import doctor
from auditdb.operate.maintain import maintain, steps
from tests.conftest import Database
from tests.test_catalog import UNGUARDED


def default_count(db: Database) -> int:
    row = db.connect().execute("select count(*) from audit.event_default").fetchone()
    assert row is not None
    return int(row[0])


def fill(db: Database, month: str, events: int = 3, *, late: bool = False) -> None:
    """Write events of another month, as only a superuser who becomes the owner can.

    Their ids are as if they had been written then, or late, the next ones.
    """
    with psycopg.connect(db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.execute(
            "insert into audit.event (id, occurred_at, action, result, actor_type, source) "
            "select case when %s then nextval('audit.event_id_seq') "
            "else extract(epoch from %s::timestamptz) - 4e9 + g end, "
            "%s::timestamptz, 'test.old', 'success', 'system', 'test' "
            "from generate_series(1, %s) as g",
            [late, f"{month}-15 12:00+00", f"{month}-15 12:00+00", events],
        )
        if not late:
            # Ids of before the first series of ticks are those of events that were there already.
            conn.execute("select audit_private.begin_series('restored', audit_private.last_id())")


def test_second_run_has_nothing_to_do(empty_db: Database) -> None:
    conn = empty_db.connect("app_owner")
    maintain(conn)
    assert maintain(conn) == []


def test_partitions_are_made_as_far_ahead_as_asked(empty_db: Database) -> None:
    conn = empty_db.connect("app_owner")
    made = maintain(conn, ahead=14)
    assert len(made) == 11  # Install made this month and three more.
    assert all(line.startswith("created the partition of ") for line in made)


def test_events_in_default_move_to_partitions_of_their_months(empty_db: Database) -> None:
    fill(empty_db, "2020-03", 5)
    fill(empty_db, "2020-04", 2)
    assert default_count(empty_db) == 7
    before = empty_db.events()
    assert maintain(empty_db.connect("app_owner")) == ["moved 7 events out of DEFAULT"]
    assert default_count(empty_db) == 0
    assert empty_db.events() == before
    owner = empty_db.connect()
    (found,) = owner.execute("select count(*) from audit.event_2020_03").fetchone() or (None,)
    assert found == 5


def test_a_drained_log_is_as_guarded_as_before(empty_db: Database) -> None:
    fill(empty_db, "2020-03")
    maintain(empty_db.connect("app_owner"))
    superuser = empty_db.connect()
    for table in ("event_default", "event_2020_03"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            superuser.execute(f"truncate audit.{table}".encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        superuser.execute("delete from audit.event_2020_03")
    assert superuser.execute(UNGUARDED.encode()).fetchall() == []


def insert_old(conn: psycopg.Connection[Any], target: str) -> None:
    conn.execute(
        "insert into audit.event (occurred_at, action, result, actor_type, source, target_id) "
        "values ('2020-03-20', 'test.old', 'success', 'system', 'test', %s)",
        [target],
    )


def skip_the_wait(db: Database) -> None:
    """Let the drain begin to copy as if no transaction were open yet."""
    db.connect().execute(
        "create or replace function audit_private.await_transactions() returns void"
        " language plpgsql volatile set search_path = pg_catalog, pg_temp as 'begin end'"
    )


def started(conn: psycopg.Connection[Any]) -> tuple[threading.Thread, list[str]]:
    """Start maintenance, and return its thread and what it will have done."""
    done: list[str] = []
    thread = threading.Thread(target=lambda: done.extend(maintain(conn)))
    thread.start()
    return thread, done


def wait_for_sleep(
    watch: psycopg.Connection[Any], drain: psycopg.Connection[Any], thread: threading.Thread
) -> None:
    """Wait until maintenance has copied once, and waits for a lock that it cannot have."""
    while not watch.execute(
        "select from pg_stat_activity where pid = %s and wait_event = 'PgSleep'",
        [drain.info.backend_pid],
    ).fetchall():
        assert thread.is_alive()


def test_events_that_arrive_while_others_are_moved_are_moved_too(empty_db: Database) -> None:
    fill(empty_db, "2020-03", 500)
    skip_the_wait(empty_db)
    before = {event["id"]: event for event in empty_db.events()}
    writer = empty_db.connect(autocommit=False)
    writer.execute("set role audit_owner")
    insert_old(writer, "first")
    writer.execute("savepoint s")
    insert_old(writer, "in a savepoint")
    drain = empty_db.connect("app_owner")
    thread, done = started(drain)
    watch = empty_db.connect()
    # The 500 are copied; the open transaction keeps the drain from its lock.
    wait_for_sleep(watch, drain, thread)
    held = watch.execute(
        "select relation::regclass::text, mode from pg_locks where pid = %s and granted and "
        "relation in ('audit.event'::regclass, 'audit.event_default'::regclass)",
        [drain.info.backend_pid],
    ).fetchall()
    for table in ("audit.event", "audit.event_default"):
        assert (table, "ShareUpdateExclusiveLock") in held
    assert {mode for _, mode in held} <= {"AccessShareLock", "ShareUpdateExclusiveLock"}
    watch.execute("set lock_timeout = '5s'")
    watch.execute("set role audit_owner")
    insert_old(watch, "meanwhile")
    writer.commit()
    thread.join()
    assert done == ["moved 503 events out of DEFAULT"]
    after = {event["id"]: event for event in empty_db.events()}
    assert sorted(e["target_id"] for i, e in after.items() if i not in before) == [
        "first", "in a savepoint", "meanwhile",
    ]  # fmt: skip
    assert {i: e for i, e in after.items() if i in before} == before
    assert default_count(empty_db) == 0
    superuser = empty_db.connect()
    expected = {"audit_private.await_transactions()"}  # altered above
    assert {f.object for f in doctor.diagnose(superuser) if f.check_name != "readers"} == expected


def test_events_of_a_transaction_older_than_the_first_copy_are_moved_too(
    empty_db: Database,
) -> None:
    skip_the_wait(empty_db)
    writer = empty_db.connect(autocommit=False)
    writer.execute("set role audit_owner")
    insert_old(writer, "in flight")
    # A later transaction ends before it: the snapshot of the copy has an end beyond both, and sees
    # but this one.
    fill(empty_db, "2020-03", 1)
    drain, watch = empty_db.connect("app_owner"), empty_db.connect()
    thread, done = started(drain)
    wait_for_sleep(watch, drain, thread)
    writer.commit()
    thread.join()
    assert done == ["moved 2 events out of DEFAULT"]
    assert len(empty_db.events("target_id = 'in flight'")) == 1


def test_events_that_are_committed_while_the_drain_waits_for_its_lock_are_moved_too(
    empty_db: Database,
) -> None:
    fill(empty_db, "2020-03", 1)
    skip_the_wait(empty_db)
    # As if the writer were just in time.
    watch = empty_db.connect()
    watch.execute(
        "create or replace function audit_private.try_locks(relations regclass[], modes text[])"
        " returns boolean language plpgsql as $$ begin"
        " execute format('lock table only %s in %s mode', relations[1], modes[1]);"
        " return true; end $$"
    )
    writer = empty_db.connect(autocommit=False)
    writer.execute("set role audit_owner")
    insert_old(writer, "in time")
    drain = empty_db.connect("app_owner")
    thread, done = started(drain)
    while not watch.execute(
        "select from pg_locks where pid = %s and not granted and mode = 'AccessExclusiveLock'",
        [drain.info.backend_pid],
    ).fetchall():
        assert thread.is_alive()
    writer.commit()
    thread.join()
    assert done == ["moved 2 events out of DEFAULT"]
    assert len(empty_db.events("target_id = 'in time'")) == 1


def test_a_drained_log_can_be_drained_again(empty_db: Database) -> None:
    owner = empty_db.connect("app_owner")
    for month in ("2020-03", "2020-05"):
        fill(empty_db, month, 5)
        assert maintain(owner) == ["moved 5 events out of DEFAULT"]
    assert len(empty_db.events()) == 10


def test_nothing_is_copied_while_a_transaction_stays_that_has_the_log_open(
    empty_db: Database,
) -> None:
    fill(empty_db, "2020-03", 5)
    reader = empty_db.connect(autocommit=False)
    reader.execute("select count(*) from audit.event")
    pid = reader.info.backend_pid
    # What would be copied would be thrown away: it makes no table to copy to.
    watch = empty_db.connect()
    watch.execute("create or replace function audit_private.copy_default(inout seen pg_snapshot,"
                  " inout months date[], out copied bigint) language plpgsql as"
                  " $$ begin raise 'copied'; end $$")  # fmt: skip
    with pytest.raises(auditdb.Refused, match=f"not moved .* process {pid} has had the log open"):
        maintain(empty_db.connect("app_owner"))
    reader.rollback()
    with pytest.raises(auditdb.Refused, match="copied"):
        maintain(empty_db.connect("app_owner"))


def test_short_transactions_hinder_no_drain(empty_db: Database) -> None:
    fill(empty_db, "2020-03", 5)
    reader, watch = empty_db.connect(autocommit=False), empty_db.connect()
    drain = empty_db.connect("app_owner")
    reader.execute("select count(*) from audit.event")
    thread, done = started(drain)
    wait_for_sleep(watch, drain, thread)
    # Another one begins before the first ends: at each moment the log is open.
    second = empty_db.connect(autocommit=False)
    second.execute("select count(*) from audit.event")
    reader.rollback()
    while not watch.execute(
        "select from pg_locks where pid = %s and mode = 'ShareUpdateExclusiveLock'",
        [drain.info.backend_pid],
    ).fetchall():
        assert thread.is_alive()
    second.rollback()
    thread.join()
    assert done == ["moved 5 events out of DEFAULT"]


def test_the_server_ends_maintenance_whose_client_was_killed(empty_db: Database) -> None:
    owner = empty_db.connect()
    owner.execute(
        "create or replace function audit_private.drain() returns bigint"
        " language plpgsql as $$ begin perform pg_sleep(3600); return 0; end $$"
    )
    client = subprocess.Popen(
        [sys.executable, "-m", "auditdb", "maintain"],
        env={**os.environ, "AUDITDB_DSN": empty_db.conninfo("app_owner")},
    )
    running = "select from pg_stat_activity where application_name = 'auditdb'"
    while not owner.execute(f"{running} and wait_event = 'PgSleep'").fetchall():
        assert client.poll() is None
    client.kill()
    client.wait()
    until = time.monotonic() + 60
    while owner.execute(running).fetchall():
        assert time.monotonic() < until, "it works on for nobody"


def test_progress_is_reported_only_if_asked_for(empty_db: Database) -> None:
    conn, said, reported = empty_db.connect("app_owner"), [], []

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        said.append(notice.message_primary)

    def progress(count: int, text: str) -> None:
        reported.append((count, text))

    conn.add_notice_handler(hear)
    fill(empty_db, "2020-03", 5)
    assert list(steps(conn)) == ["moved 5 events out of DEFAULT"]
    assert said == []
    fill(empty_db, "2020-05", 5)
    assert list(steps(conn, progress=progress)) == ["moved 5 events out of DEFAULT"]
    assert reported == [(5, "copied out of DEFAULT")]


def test_the_command_moves_events_whatever_the_default_isolation_is(empty_db: Database) -> None:
    fill(empty_db, "2020-03", 5)
    name = empty_db.connect().info.dbname
    empty_db.connect().execute(
        f"alter database {name} set default_transaction_isolation = 'serializable'".encode()
    )
    done = CliRunner().invoke(main, ["--dsn", empty_db.conninfo("app_owner"), "maintain"])
    assert done.stdout == "moved 5 events out of DEFAULT\n"


def test_events_are_not_moved_under_a_snapshot_that_misses_new_ones(empty_db: Database) -> None:
    fill(empty_db, "2020-03", 5)
    owner = empty_db.connect("app_owner")
    owner.execute("set default_transaction_isolation = 'repeatable read'")
    with pytest.raises(auditdb.Refused, match="Use read committed"):
        maintain(owner)
    assert default_count(empty_db) == 5


def yesterday(db: Database) -> None:
    """Write an event of two days ago: the clock did not jump since."""
    with psycopg.connect(db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.execute(
            """insert into audit.event (occurred_at, action, result, actor_type, source)
            values (now() - interval '2 days', 'test.old', 'success', 'user', 'test')"""
        )


def test_retention_drops_nothing_when_the_clock_has_jumped(empty_db: Database) -> None:
    fill(empty_db, "2020-03", 4)
    owner = empty_db.connect("app_owner")
    while maintain(owner):
        pass
    with pytest.raises(auditdb.Refused, match="no event is from the 40 days before"):
        maintain(owner, keep="24months")
    assert len(empty_db.events("action = 'test.old'")) == 4


def test_retention_drops_whole_months_and_records_each(empty_db: Database) -> None:
    fill(empty_db, "2020-03", 4)
    fill(empty_db, "2020-04", 1)
    yesterday(empty_db)
    owner = empty_db.connect("app_owner")
    while maintain(owner):
        pass
    assert maintain(owner, keep="24months") == [
        "dropped 2020-03: 4 events",
        "dropped 2020-04: 1 events",
    ]
    assert len(empty_db.events("action = 'test.old'")) == 1
    with psycopg.connect(empty_db.dsn) as conn:
        rows = conn.execute(
            "select target_id, details ->> 'events', db_user from audit.event "
            "where action = 'audit.month_dropped' order by id"
        ).fetchall()
    assert rows == [("2020-03", "4", "app_owner"), ("2020-04", "1", "app_owner")]


def months_ago(db: Database, number: int) -> str:
    row = db.connect().execute(
        "select to_char(date_trunc('month', now() at time zone 'UTC')"
        " - make_interval(months => %s), 'YYYY-MM')", [number],
    ).fetchone()  # fmt: skip
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize("keep", [2, 24])
def test_retention_keeps_the_month_in_which_it_ends_and_all_later_ones(
    empty_db: Database, keep: int
) -> None:
    older, boundary, later = (months_ago(empty_db, keep + n) for n in (1, 0, -1))
    for month in (older, boundary, later):
        fill(empty_db, month, 2)
    yesterday(empty_db)
    owner = empty_db.connect("app_owner")
    while maintain(owner):
        pass
    assert maintain(owner, keep=f"{keep} months") == [f"dropped {older}: 2 events"]
    assert len(empty_db.events("action = 'test.old'")) == 5
    assert maintain(owner, keep=f"{keep} months") == []


def test_retention_never_touches_the_last_full_month(empty_db: Database) -> None:
    owner = empty_db.connect("app_owner")
    with pytest.raises(auditdb.Refused, match=r"would drop the present.*Keep at least 2 months"):
        maintain(owner, keep="1 month")
    with pytest.raises(auditdb.Refused, match="would drop the present"):
        maintain(owner, keep="-1 year")


@pytest.mark.parametrize("role", ["app", "app_reader", "app_auditor", "stranger"])
def test_only_operators_maintain(empty_db: Database, role: str) -> None:
    with pytest.raises(auditdb.Refused, match="permission denied"):
        maintain(empty_db.connect(role))


def test_two_at_once_are_safe(empty_db: Database) -> None:
    fill(empty_db, "2020-03", 50)
    done: list[list[str]] = []
    conns = [empty_db.connect("app_owner") for _ in range(4)]
    threads = [
        threading.Thread(target=lambda c=conn: done.append(maintain(c, ahead=6))) for conn in conns
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [line for part in done for line in part if not line.startswith("nothing done")]
    assert sorted(lines) == sorted(set(lines)) and len(done) == 4
    assert len(empty_db.events("action = 'test.old'")) == 50


def test_writers_go_on_while_maintenance_runs(db: Database) -> None:
    fill(db, "2020-03", 2000)
    stop = threading.Event()
    failures: list[Exception] = []
    written = 0

    def write() -> None:
        nonlocal written
        with psycopg.connect(db.conninfo("app"), autocommit=True) as conn:
            while not stop.is_set():
                try:
                    conn.execute("update workflow set name = name || 'x' where id = 1")
                    written += 1
                except psycopg.Error as error:
                    failures.append(error)
                    return

    db.connect("app").execute("insert into workflow (organization_id, name) values (1, 'w')")
    writer = threading.Thread(target=write)
    writer.start()
    done = maintain(db.connect("app_owner"), ahead=12)
    stop.set()
    writer.join()
    assert failures == []
    assert "moved 2000 events out of DEFAULT" in done
    assert len(db.events("action = 'workflow.modified'")) == written


def test_a_month_begins_at_midnight_utc_whatever_the_time_zone(empty_db: Database) -> None:
    conn = empty_db.connect()
    for zone in ("UTC", "Asia/Kathmandu", "America/New_York"):
        conn.execute(f"set timezone = '{zone}'".encode())
        row = conn.execute("select * from audit_private.month_bounds('2026-03-31')").fetchone()
        assert row == (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))


def test_maintenance_does_nothing_while_an_install_is_running(empty_db: Database) -> None:
    fill(empty_db, "2020-03", 3)
    installing = empty_db.connect(autocommit=False)
    installing.execute("select pg_advisory_xact_lock(hashtextextended('auditdb', 0))")
    owner = empty_db.connect("app_owner")
    [said] = maintain(owner)
    assert said.startswith("nothing done")
    assert default_count(empty_db) == 3
    installing.rollback()
    assert maintain(owner) == ["moved 3 events out of DEFAULT"]


@pytest.fixture
def vacuuming(empty_db: Database) -> Iterator[Database]:
    """A database in which autovacuum looks after tables every second."""
    for statement in ("alter system set autovacuum_naptime = '1s'", "select pg_reload_conf()"):
        empty_db.connect().execute(statement.encode())
    yield empty_db
    for statement in ("alter system reset autovacuum_naptime", "select pg_reload_conf()"):
        empty_db.connect().execute(statement.encode())


FROZEN = """
select relpages > 0 and relallvisible = relpages and age(relfrozenxid) < 1000
    and reltuples = %s from pg_class where oid = %s::regclass
"""


def test_a_month_that_is_over_is_frozen_and_analysed_once(vacuuming: Database) -> None:
    month = months_ago(vacuuming, 4)
    name = f"audit.event_{month.replace('-', '_')}"
    fill(vacuuming, month, 500)
    yesterday(vacuuming)
    watch = vacuuming.connect()
    # Ages show only whether all was frozen if time has passed since.
    for _ in range(1100):
        watch.execute("select pg_current_xact_id()")
    owner = vacuuming.connect("app_owner")
    done = maintain(owner)
    assert done[-1].startswith("closed ") and f"closed {month}" in done
    assert maintain(owner) == []
    until = time.monotonic() + 120
    while watch.execute(FROZEN, [500, name]).fetchone() != (True,):
        assert time.monotonic() < until, "nothing froze it"
    # The planner knows of times and ids, and of nothing else.
    known = (
        "select distinct attname from pg_stats where schemaname = 'audit' "
        "and tablename ~ '^event' order by 1"
    )
    while (found := watch.execute(known.encode()).fetchall()) == []:
        assert time.monotonic() < until, "nothing analysed it"
    assert found == [("id",), ("occurred_at",)]
    # There is nothing left to do until the month gets events.
    counts = "select autovacuum_count, autoanalyze_count, n_ins_since_vacuum, "
    counts += "n_mod_since_analyze from pg_stat_all_tables where relid = %s::regclass"
    row = watch.execute(counts, [name]).fetchone()
    assert row is not None and row[2:] == (0, 0)


def test_no_month_that_still_gets_events_is_closed(empty_db: Database) -> None:
    fill(empty_db, months_ago(empty_db, 4))
    yesterday(empty_db)
    owner, superuser = empty_db.connect("app_owner"), empty_db.connect()
    maintain(owner)
    options = (
        "select relname from pg_class where relname ~ '^event_[0-9]+_[0-9]+$' and "
        "reloptions is not null order by 1"
    )
    closed = [name for (name,) in superuser.execute(options.encode()).fetchall()]
    this = f"event_{months_ago(empty_db, 0).replace('-', '_')}"
    assert closed and this not in closed
    # As a clock that was ahead by less than a month would have left it.
    superuser.execute(f"alter table audit.{this} set (autovacuum_vacuum_insert_threshold = 0)"
                      .encode())  # fmt: skip
    assert maintain(owner) == [f"reopened {months_ago(empty_db, 0)}"]
    assert [name for (name,) in superuser.execute(options.encode()).fetchall()] == closed
