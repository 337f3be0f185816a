"""Ticks of a log that has grown, and what its clock, its months and slow transactions do to them.

A small log is looked through for each tick. These make ticks as a large log does, which looks at
the last minutes, and at everything from time to time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import auditdb
from tests.conftest import Database
from tests.export.test_ticks import RECORD, agrees, logged, read, tick
from tests.test_clocks import Clocked, server_with_a_clock

WRITE = (
    "insert into audit.event (occurred_at, action, result, actor_type, source) "
    "values (%s::timestamptz, 'auth.login', 'success', 'user', 'web') returning id"
)


def as_large(db: Database) -> None:
    """Let a log make ticks as if it were large."""
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        ((text,),) = conn.execute(
            "select pg_get_functiondef('audit_private.is_whole_due'::regproc)"
        ).fetchall()
        assert text.count("< 16 * 1024 * 1024") == 1
        conn.execute(text.replace("< 16 * 1024 * 1024", "< 0").encode())


def places(conn: psycopg.Connection[Any], cursor: str | None = None) -> list[tuple[Any, ...]]:
    """Return tick, time and id of the events after a cursor, as they are read."""
    return conn.execute(
        "select tick_id, (event).occurred_at, (event).id from audit.events_since(%s, 100000) "
        "where event is distinct from null", [cursor]
    ).fetchall()  # fmt: skip


@pytest.fixture
def clocked() -> Iterator[Clocked]:
    """A server with an empty log, whose clock a test sets."""
    with server_with_a_clock() as (server, file):
        db = Database(f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres")
        auditdb.install(db.dsn)
        as_large(db)
        yield Clocked(db, file)
        db.close()


def test_a_clock_that_jumps_loses_nothing_and_keeps_the_order(clocked: Clocked) -> None:
    db = clocked.db
    conn, writer = db.connect(), db.connect()
    ids: list[int] = []
    cursor: str | None = None
    naive: set[int] = set()
    newest = "-infinity"

    def look() -> None:
        nonlocal cursor, newest
        tick(conn)
        more, cursor = read(conn, cursor, 3)
        ids.extend(more)
        found = conn.execute(
            "select id, occurred_at::text from audit.event where occurred_at > %s", [newest]
        ).fetchall()
        naive.update(i for i, _ in found)
        newest = conn.execute(
            "select greatest(%s::timestamptz, max(occurred_at))::text from audit.event", [newest]
        ).fetchall()[0][0]

    look()
    # Back by an hour, forward by a day, to the next months, which have no partition yet, and back.
    for hours in (0, -1, 24, 23, 24 * 120, 0, -25):
        late = db.connect(autocommit=False)
        late.execute(RECORD)
        clocked.turn(hours)
        for _ in range(3):
            writer.execute(RECORD)
        look()
        # What began before the clock was set commits after.
        late.execute(RECORD)
        late.commit()
        writer.execute(RECORD)
        look()
        look()
    assert sorted(ids) == sorted(logged(db))
    assert naive < set(ids), "by time nothing was missed: nothing was tested"
    found = places(conn)
    assert found == sorted(found) and [i for *_, i in found] == ids
    wholes = conn.execute("select count(*) from audit.tick where since <> '-infinity'").fetchone()
    assert wholes != (0,), "each tick looked at everything: nothing was tested"


def test_what_was_prepared_long_before_is_in_a_tick_once_it_commits(db: Database) -> None:
    as_large(db)
    conn, app = db.connect("app_auditor"), db.connect("app")
    tick(conn)
    prepared = {}
    for number in range(3):
        writer = db.connect("app", autocommit=False)
        prepared[f"late {number}"] = writer.execute(RECORD).fetchall()[0][0]
        writer.execute(f"prepare transaction 'late {number}'".encode())
        writer.commit()
        for _ in range(3):
            app.execute(RECORD)
            tick(conn)
    before, cursor = read(conn)
    assert not set(before) & set(prepared.values())
    app.execute("commit prepared 'late 1'")
    app.execute("rollback prepared 'late 2'")
    tick(conn)
    ids, cursor = read(conn, cursor)
    assert ids == [prepared["late 1"]]
    for _ in range(3):
        app.execute(RECORD)
        tick(conn)
    app.execute("commit prepared 'late 0'")
    tick(conn)
    assert prepared["late 0"] in read(conn, cursor)[0]
    agrees(db)


def test_a_transaction_that_began_before_the_last_whole_tick_is_missed_by_none(
    db: Database,
) -> None:
    """Its events are older than what the other ticks look at, and their ids lower."""
    as_large(db)
    conn, superuser = db.connect("app_auditor"), db.connect()
    superuser.execute(RECORD)
    tick(conn)
    late = db.connect(autocommit=False)
    early = late.execute(WRITE, ["2026-01-02 03:04:05+00"]).fetchall()[0][0]
    for _ in range(4):
        superuser.execute(RECORD)
        tick(conn)
    _, cursor = read(conn)
    late.execute(RECORD)
    late.commit()
    tick(conn)
    ids, cursor = read(conn, cursor)
    # As a tick that looks at the last minutes alone: the whole one takes what is older.
    superuser.execute("select audit_private.lock_ticks(true), audit_private.add_tick(true)")
    assert early in ids + read(conn, cursor)[0]
    agrees(db)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_seventy_savepoints_are_one_transaction_to_a_tick(db: Database, isolation: str) -> None:
    """A snapshot holds no more than 64 of them."""
    as_large(db)
    conn, writer = db.connect("app_auditor"), db.connect("app", autocommit=False)
    tick(conn)
    writer.execute(f"set transaction isolation level {isolation}".encode())
    with writer.transaction():
        for number in range(80):
            with writer.transaction(force_rollback=number % 7 == 0):
                writer.execute(RECORD)
            if number % 20 == 0:
                db.connect("app").execute(RECORD)
                tick(conn)
    _, cursor = read(conn)
    writer.commit()
    db.connect("app").execute(RECORD)
    tick(conn)
    assert len(read(conn, cursor)[0]) == 80 - 12 + 1
    agrees(db)


def test_a_tick_of_several_months_is_read_in_pieces_while_default_is_drained(db: Database) -> None:
    as_large(db)
    superuser, conn = db.connect(), db.connect("app_auditor")
    for month in ("2026-10", "2026-11", "2031-01", "2031-02"):
        for day in ("01 00:00", "28 23:59:59.999999", "15 12:00"):
            superuser.execute(WRITE, [f"{month}-{day}+00"])
    superuser.execute(WRITE, ["infinity"])
    tick(conn)
    whole = [i for i, in conn.execute(
        "select (event).id from audit.events_since(null, 1000) where event is distinct from null"
    )]  # fmt: skip
    ids: list[int] = []
    cursor: str | None = None
    for number in range(200):
        *events, (_, cursor, is_more) = conn.execute(
            "select (event).id, cursor, is_more from audit.events_since(%s, 1)", [cursor]
        ).fetchall()
        ids += [i for i, *_ in events]
        if number in (4, 8):
            superuser.execute("select audit.maintain(force => true)")
            superuser.execute(WRITE, [f"203{number}-01-01 00:00+00"])
        if not is_more and not events:
            break
    assert ids[: len(whole)] == whole
    tick(conn)
    ids += read(conn, cursor)[0]
    assert sorted(ids) == sorted(logged(db))
    agrees(db)


def test_chance_finds_no_order_of_things_that_loses_an_event(db: Database) -> None:
    """Commits, savepoints, prepared transactions, rollbacks, odd times, ticks, in any order."""
    as_large(db)
    superuser, conn = db.connect(), db.connect("app_auditor")
    chance = random.Random(4711)
    open_ = [db.connect(autocommit=False) for _ in range(5)]
    prepared: list[str] = []
    times = ["now", "2026-11-27", "2020-01-01", "2033-03-03", "-infinity"]
    ids: list[int] = []
    cursor: str | None = None
    for step in range(400):
        writer = chance.choice(open_)
        act = chance.choice(["write", "write", "write", "odd", "commit", "commit", "roll back",
                             "prepare", "end", "tick", "tick", "read"])  # fmt: skip
        if act == "write":
            with writer.transaction(force_rollback=chance.random() < 0.2):
                writer.execute(RECORD)
        elif act == "odd":
            writer.execute(WRITE, [chance.choice(times)])
        elif act == "commit":
            writer.commit()
        elif act == "roll back":
            writer.rollback()
        elif act == "prepare":
            writer.execute("select pg_current_xact_id()")
            writer.execute(f"prepare transaction 'p{step}'".encode())
            writer.commit()
            prepared.append(f"p{step}")
        elif act == "end" and prepared:
            name = prepared.pop(chance.randrange(len(prepared)))
            how = chance.choice(["commit", "rollback"])
            superuser.execute(f"{how} prepared '{name}'".encode())
        elif act == "tick":
            tick(conn)
        else:
            more, cursor = read(conn, cursor, chance.choice([1, 2, 50]))
            ids += more
    for writer in open_:
        writer.commit()
    for name in prepared:
        superuser.execute(f"commit prepared '{name}'".encode())
    tick(conn)
    superuser.execute("select audit_private.lock_ticks(true), audit_private.add_tick(true)")
    ids += read(conn, cursor)[0]
    assert len(ids) > 50 and sorted(ids) == sorted(logged(db))
    agrees(db)


def test_a_tick_that_many_wrote_is_looked_up_by_block(db: Database) -> None:
    """In the order of time each event is in another block than the one before."""
    conn = db.connect("app_auditor")
    tick(conn)
    writers = [db.connect(autocommit=False) for _ in range(8)]
    for _ in range(40):
        for writer in writers:
            writer.execute(RECORD)
    for writer in writers:
        writer.commit()
    tick(conn)
    with conn.transaction():
        conn.execute("set local enable_seqscan = off; set local jit = off")
        ((source,),) = conn.execute(
            "select audit_private.part_events(p.condition, p.events) "
            "from audit_private.tick_parts(audit_private.place_cursor("
            "audit_private.last_tick() - 1, null), 1) as p"
        ).fetchall()
        plan = conn.execute(
            f"explain (analyze, buffers, format json) select e.* from {source}".encode()
        ).fetchall()[0][0][0]["Plan"]
    assert plan["Actual Rows"] == 320
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 160
