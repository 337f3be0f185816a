"""Ticks after kills and a promotion: nothing is read twice or missed, and what is lost is said."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest

import auditdb
from tests.export.test_ticks import RECORD, read, tick
from tests.server import Server, running, standby
from tests.test_crash import kill, patiently

KILLS = int(os.environ.get("AUDITDB_TICK_KILLS", "6"))


@pytest.fixture
def victim() -> Iterator[tuple[Server, str]]:
    """A server of its own, for this one is killed and promoted away from."""
    with running() as server:
        dsn = f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres"
        auditdb.install(dsn)
        yield server, dsn


def logged(dsn: str) -> list[int]:
    with psycopg.connect(dsn) as conn:
        return [row[0] for row in conn.execute("select id from audit.event")]


def test_a_promotion_begins_a_series_and_a_cursor_of_a_lost_tick_is_refused(
    victim: tuple[Server, str],
) -> None:
    server, dsn = victim
    with psycopg.connect(dsn, autocommit=True) as primary:
        primary.execute(RECORD)
        tick(primary)
        kept, cursor = read(primary)
        with standby(server) as port:
            copy = dsn.replace(str(server.port), str(port))
            with psycopg.connect(copy, autocommit=True) as conn:
                # A standby gives what ticks there are, and makes none.
                assert read(conn)[0] == kept
                with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="written"):
                    tick(conn)
                conn.execute("alter system set primary_conninfo = ''")
                conn.execute("select pg_reload_conf()")
                while conn.execute("select from pg_stat_wal_receiver").fetchone() is not None:
                    time.sleep(0.05)
                primary.execute(RECORD)
                tick(primary)
                lost, newer = read(primary, cursor)
                assert lost
                conn.execute("select pg_promote()")
                conn.execute(RECORD)
                conn.execute(RECORD)
                tick(conn)
                began = conn.execute("select began from audit.series order by id").fetchall()
                assert began == [("installed",), ("continued",)]
                assert Counter(kept + read(conn, cursor)[0]) == Counter(logged(copy))
                with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not know"):
                    read(conn, newer)


def write(server: Server, dsn: str, stop: threading.Event, number: int) -> None:
    chance = random.Random(number)
    while not stop.is_set():
        conn = patiently(server, dsn, stop)
        if conn is None:
            return
        with contextlib.suppress(psycopg.Error), contextlib.closing(conn):
            while not stop.is_set():
                with conn.transaction():
                    # What the server forgets in a crash was not promised.
                    conn.execute("set local synchronous_commit = off")
                    for _ in range(chance.randint(1, 3)):
                        conn.execute(RECORD)


def test_no_kill_loses_or_repeats_what_was_read(victim: tuple[Server, str]) -> None:
    server, dsn = victim
    stop = threading.Event()
    threads = [
        threading.Thread(target=write, args=(server, dsn, stop, number)) for number in range(4)
    ]
    ids: list[int] = []
    cursor: str | None = None
    chance = random.Random(4711)
    for thread in threads:
        thread.start()
    try:
        for _ in range(KILLS):
            until = time.monotonic() + chance.uniform(0.2, 1)
            while time.monotonic() < until:
                conn = patiently(server, dsn, threading.Event())
                assert conn is not None
                with contextlib.suppress(psycopg.Error), contextlib.closing(conn):
                    conn.execute("set synchronous_commit = off")
                    tick(conn)
                    more, cursor = read(conn, cursor, 100)
                    ids += more
            kill(server, dsn, chance.choice(["backend", "postmaster"]))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    conn = patiently(server, dsn, threading.Event())
    assert conn is not None
    with conn:
        tick(conn)
        ids += read(conn, cursor)[0]
    assert len(ids) > 100
    assert Counter(ids) == Counter(logged(dsn))
