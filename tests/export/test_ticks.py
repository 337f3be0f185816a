"""Ticks: every committed event is in one of them, once, whatever the order of commits."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import Any

import psycopg
import pytest

import auditdb
from tests.conftest import Database
from tests.viewer import sign

RECORD = "select audit.record_event('auth.login', 'o1')"


def tick(conn: psycopg.Connection[Any]) -> int | None:
    row = conn.execute("select audit.make_tick()").fetchone()
    assert row is not None
    return row[0] if row[0] is None else int(row[0])


def read(
    conn: psycopg.Connection[Any], cursor: str | None = None, at_most: int = 1000
) -> tuple[list[int], str | None]:
    """Return the ids of the events after a cursor, until there are no more, and the next one."""
    ids: list[int] = []
    while True:
        *events, last = conn.execute(
            "select (event).id, cursor, is_more from audit.events_since(%s, %s)", [cursor, at_most]
        ).fetchall()
        ids += [row[0] for row in events]
        cursor = last[1]
        if not last[2]:
            return ids, cursor


def logged(db: Database) -> list[int]:
    with psycopg.connect(db.dsn) as conn:
        return [row[0] for row in conn.execute("select id from audit.event")]


def agrees(db: Database) -> None:
    """What the ticks say agrees with the log, however it is read."""
    conn = db.connect("app_auditor")
    conn.execute("select audit.make_tick()")
    ids, _ = read(conn)
    assert Counter(ids) == Counter(logged(db))
    with psycopg.connect(db.dsn) as superuser:
        months = superuser.execute(
            "select audit_private.month_of(occurred_at)::text, count(*) from audit.event group by 1"
        )
        sums = superuser.execute(
            "select month::text, sum(events)::bigint from audit.tick_month group by month"
        )
        assert sorted(months) == sorted(sums)
        wrong = superuser.execute(
            "select id from audit.tick as t where events <> "
            "(select sum(events) from audit.tick_month where tick_id = t.id)"
        )
        assert wrong.fetchall() == []


def test_what_commits_late_is_in_a_later_tick_and_lost_by_id(db: Database) -> None:
    early, late, reader = db.connect("app"), db.connect("app"), db.connect("app_auditor")
    tick(reader)
    _, cursor = read(reader)
    (last,) = reader.execute("select max(id) from audit.event").fetchone() or (0,)
    late.autocommit = False
    (late_id,) = late.execute(RECORD).fetchone() or (0,)
    (early_id,) = early.execute(RECORD).fetchone() or (0,)
    assert late_id < early_id
    tick(reader)
    ids, cursor = read(reader, cursor)
    naive = [i for (i,) in reader.execute("select id from audit.event where id > %s", [last])]
    assert ids == naive == [early_id]
    late.commit()
    tick(reader)
    ids, cursor = read(reader, cursor)
    naive = [i for (i,) in reader.execute("select id from audit.event where id > %s", [max(naive)])]
    assert (ids, naive) == ([late_id], [])
    assert read(reader, cursor)[0] == []
    agrees(db)


ISOLATION = ["read committed", "repeatable read", "serializable"]


@pytest.mark.parametrize("isolation", ISOLATION)
def test_a_snapshot_that_is_older_than_a_commit_makes_no_tick(db: Database, isolation: str) -> None:
    conn, writer = db.connect("app_auditor"), db.connect("app")
    tick(conn)
    writer.autocommit = False
    writer.execute(f"set transaction isolation level {isolation}".encode())
    writer.execute("select count(*) from pg_class")
    db.connect("app").execute(RECORD)
    tick(conn)
    writer.execute(RECORD)
    writer.commit()
    agrees(db)
    conn.autocommit = False
    conn.execute(f"set transaction isolation level {isolation}".encode())
    if isolation == "read committed":
        tick(conn)
    else:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=isolation):
            tick(conn)
        conn.rollback()
        conn.execute(f"set transaction isolation level {isolation}".encode())
        with pytest.raises(psycopg.errors.InvalidTransactionState, match=isolation):
            read(conn)
    conn.rollback()


def test_savepoints_and_rolled_back_ids_leave_no_gap_in_what_is_read(db: Database) -> None:
    conn, writer = db.connect("app_auditor"), db.connect("app")
    writer.autocommit = False
    writer.execute(RECORD)
    with writer.transaction():
        writer.execute(RECORD)
    with pytest.raises(psycopg.errors.DivisionByZero), writer.transaction():
        writer.execute(RECORD)
        writer.execute("select 1 / 0")
    tick(conn)
    with writer.transaction():
        writer.execute(RECORD)
    writer.commit()
    db.connect("app").execute(RECORD)
    rolled = db.connect("app")
    rolled.autocommit = False
    rolled.execute(RECORD)
    tick(conn)
    rolled.rollback()
    agrees(db)


def test_what_is_prepared_is_in_a_tick_once_it_is_committed(db: Database) -> None:
    conn, writer = db.connect("app_auditor"), db.connect("app", autocommit=False)
    (event,) = writer.execute(RECORD).fetchone() or (0,)
    writer.execute("prepare transaction 'late'")
    writer.commit()
    db.connect("app").execute(RECORD)
    tick(conn)
    ids, cursor = read(conn)
    assert event not in ids
    db.connect("app").execute("commit prepared 'late'")
    tick(conn)
    assert read(conn, cursor)[0] == [event]
    agrees(db)


def test_a_transaction_that_makes_a_tick_has_its_own_events_in_the_next(db: Database) -> None:
    conn = db.connect()
    reader = db.connect("app_auditor")
    tick(reader)
    _, cursor = read(reader)
    with conn.transaction():
        conn.execute(RECORD)
        db.connect("app").execute(RECORD)
        tick(conn)
        # A tick that may still be rolled back is nobody's.
        assert read(conn, cursor)[0] == []
        conn.execute(RECORD)
    assert len(read(reader, cursor)[0]) == 1
    agrees(db)


def test_the_clock_may_say_anything(db: Database) -> None:
    # psycopg reads no infinity: events are told by their ids alone.
    conn, superuser = db.connect("app_auditor"), db.connect()
    writes = (
        "insert into audit.event (occurred_at, action, result, actor_type, source) "
        "values (%s, 'auth.login', 'success', 'user', 'web')"
    )
    times = ["2001-02-03", "infinity", "-infinity", "0044-03-15 BC", "9999-12-31", "2099-01-01"]
    for time in times:
        superuser.execute(writes, [time])
        tick(conn)
        agrees(db)
    superuser.execute("select audit.maintain() from generate_series(1, 5)")
    agrees(db)


def test_ticks_that_look_at_the_last_minutes_leave_the_rest_to_a_whole_one(db: Database) -> None:
    superuser, conn = db.connect(), db.connect("app_auditor")
    superuser.execute(
        "create or replace function audit_private.is_whole_due(tick audit.tick, former audit.tick)"
        " returns boolean language sql as 'select former.id is null'"
    )
    tick(conn)
    back = (
        "insert into audit.event (occurred_at, action, result, actor_type, source) "
        "values (clock_timestamp() - '1 hour'::interval, 'auth.login', 'success', 'user', 'web')"
    )
    [(held,)] = superuser.execute("select sum(events) from audit.tick").fetchall()
    superuser.execute(back)
    late = db.connect("app", autocommit=False)
    late.execute(RECORD)
    superuser.execute(RECORD)
    tick(conn)
    late.commit()
    superuser.execute(back)
    superuser.execute(RECORD)
    tick(conn)
    assert superuser.execute("select sum(events) from audit.tick").fetchone() == (held + 3,)
    with superuser.transaction():
        superuser.execute("select audit_private.lock_ticks(true)")
        superuser.execute("select audit_private.add_tick(is_whole => true)")
    superuser.execute(RECORD)
    agrees(db)


def test_a_copy_by_template_begins_a_series_and_refuses_no_cursor_of_before(db: Database) -> None:
    conn = db.connect()
    tick(conn)
    series = conn.execute("select began, database from audit.series order by id").fetchall()
    assert [began for began, _ in series] == ["installed", "continued"]
    _, cursor = read(conn)
    conn.execute(RECORD)
    tick(conn)
    _, newer = read(conn, cursor)
    assert newer is not None
    # As if a tick that was read had been lost.
    conn.execute("set session_replication_role = replica")
    conn.execute("alter table audit.tick disable trigger refuse_change")
    conn.execute("delete from audit.tick where id = (select max(id) from audit.tick)")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="does not know"):
        read(conn, newer)
    for wrong in ("x", "bm8", newer[:-3]):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="is no cursor"):
            read(conn, wrong)


def test_a_cursor_of_another_database_is_refused_as_one(db: Database) -> None:
    conn = db.connect("app_auditor")
    tick(conn)
    with psycopg.connect(db.dsn) as superuser:
        (cursor,) = superuser.execute(
            "select audit_private.tick_cursor(gen_random_uuid(), 1, now(), 1)"
        ).fetchone() or ("",)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="does not know") as said:
        read(conn, cursor)
    assert said.value.diag.message_detail == "It knows no tick of that series."


@pytest.mark.parametrize("table", ["series", "tick", "tick_month"])
def test_ticks_are_append_only(db: Database, table: str) -> None:
    conn = db.connect()
    tick(conn)
    for change in (f"delete from audit.{table}", f"truncate audit.{table}"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            conn.execute(change.encode())
    for role in ("app_owner", "app", "app_reader", "app_auditor"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.connect(role).execute(
                f"insert into audit.{table} select * from audit.{table}".encode()
            )


def test_a_viewer_polls_their_own_organisation_and_nobody_without_a_token(db: Database) -> None:
    app, reader = db.connect("app"), db.connect("app_reader")
    for organization in ("1", "2", "1"):
        app.execute("select audit.record_event('auth.login', %s)", [organization])
    tick(db.connect("app_auditor"))
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="the viewer is unknown"):
        read(reader)
    with reader.transaction():
        reader.execute("select set_config('auditdb.viewer', %s, true)", [sign(db.key, "1", "1")])
        seen = reader.execute(
            "select (event).organization_id from audit.events_since(null, 100) "
            "where event is distinct from null"
        ).fetchall()
        assert set(seen) == {("1",)} and len(seen) >= 2
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("select * from audit.tick")


def test_events_of_one_organisation_or_action_and_in_small_batches(db: Database) -> None:
    conn, app = db.connect("app_auditor"), db.connect("app")
    for n in range(30):
        app.execute(
            "select audit.record_event(%s, %s)",
            [("auth.login", "membership.added")[n % 2], f"o{n % 3}"],
        )
        if n % 4 == 0:
            tick(conn)
    tick(conn)
    some = conn.execute(
        "select count(*) - 1 from audit.events_since(null, 1000, 'o1', '{auth}')"
    ).fetchone()
    assert some == (5,)
    whole = read(conn)[0]
    assert read(conn, None, 1)[0] == read(conn, None, 7)[0] == whole
    *_, end = conn.execute("select cursor from audit.events_since('now')").fetchall()
    app.execute(RECORD)
    tick(conn)
    assert len(read(conn, end[0])[0]) == 1


def test_a_month_is_kept_while_ticks_and_events_differ(db: Database) -> None:
    superuser = db.connect()
    superuser.execute(
        "insert into audit.event (occurred_at, action, result, actor_type, source) "
        "select now() - '200 days'::interval, 'auth.login', 'success', 'user', 'web' "
        "from generate_series(1, 3)"
    )
    superuser.execute(
        "insert into audit.event (occurred_at, action, result, actor_type, source) "
        "values (now() - '10 days'::interval, 'auth.login', 'success', 'user', 'web')"
    )
    while superuser.execute("select audit.maintain()").fetchall():
        pass
    tick(superuser)
    superuser.execute("alter table audit.tick_month disable trigger refuse_change")
    superuser.execute(
        "update audit.tick_month set events = events + 1 where month < now() - '190 days'::interval"
    )
    superuser.execute("alter table audit.tick_month enable always trigger refuse_change")
    said = superuser.execute("select audit.maintain('3 months')").fetchall()
    assert len(said) == 1 and "the ticks hold 4 of it" in said[0][0]
    said = superuser.execute("select audit.maintain('3 months', force => true)").fetchall()
    assert "dropped" in said[0][0]


def test_a_restore_begins_a_series_and_holds_what_the_last_tick_did_not(db: Database) -> None:
    superuser, conn = db.connect(), db.connect("app_auditor")
    tick(conn)
    late = db.connect("app", autocommit=False)
    late.execute(RECORD)
    superuser.execute(RECORD)
    tick(conn)
    late.commit()
    before, cursor = read(conn)
    # As a restore would: other catalogs, and transaction ids that mean something else.
    superuser.execute(
        "insert into audit.event (transaction_id, action, result, actor_type, source) "
        "values ('4000000000', 'auth.login', 'success', 'user', 'web')"
    )
    superuser.execute("update audit_private.installation set catalog = 1")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="restored"):
        tick(conn)
    superuser.execute(RECORD)
    auditdb.install(db.dsn)
    began = superuser.execute("select began from audit.series order by id desc limit 1").fetchone()
    assert began == ("restored",)
    tick(conn)
    after, _ = read(conn, cursor)
    assert Counter(before + after) == Counter(logged(db))
    agrees(db)
    series = superuser.execute("select distinct series_id from audit.log order by 1").fetchall()
    assert series[-1] == superuser.execute("select max(id) from audit.series").fetchone()


WRITERS, EVENTS = 6, 150


def work(db: Database, number: int) -> None:
    chance = random.Random(number)
    with psycopg.connect(db.conninfo("app")) as conn:
        for _ in range(EVENTS):
            for _ in range(chance.randint(1, 3)):
                conn.execute(RECORD)
            if chance.random() < 0.3:
                conn.execute("select pg_sleep(0.005)")
            if chance.random() < 0.2:
                conn.rollback()
            else:
                conn.commit()


def test_under_six_writers_every_event_is_read_once_and_by_id_some_are_lost(db: Database) -> None:
    conn = db.connect("app_auditor")
    late = db.connect("app", autocommit=False)
    late.execute(RECORD)
    threads = [threading.Thread(target=work, args=(db, number)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    ids, naive, cursor, last = [], [], None, 0
    alive = True
    while alive:
        alive = any(thread.is_alive() for thread in threads)
        tick(conn)
        more, cursor = read(conn, cursor, 50)
        ids += more
        found = [
            i
            for (i,) in conn.execute("select id from audit.event where id > %s order by id", [last])
        ]
        naive += found
        last = max([last, *found])
        if last:
            late.commit()
    tick(conn)
    ids += read(conn, cursor)[0]
    assert Counter(ids) == Counter(logged(db))
    assert len(naive) < len(ids), "nothing committed out of order: nothing was tested"
    agrees(db)
