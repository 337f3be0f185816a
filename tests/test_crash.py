"""Change and event commit together, whatever is killed: backend or postmaster, at any moment."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import auditdb
from tests.server import Server, running

KILLS = int(os.environ.get("AUDITDB_CRASH_KILLS", "20"))
TRANSACTIONS = int(os.environ.get("AUDITDB_CRASH_TRANSACTIONS", "20000"))
WORKERS = 4
BATCH = 1_000_000_000

TABLES = """
create table item (id bigint primary key, organization_id int, n int);
create table naive_item (id bigint primary key);
create table naive_log (id bigint);
"""


@pytest.fixture
def victim() -> Iterator[tuple[Server, str]]:
    """A server of its own, for this one is killed."""
    with running() as server:
        dsn = f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres"
        auditdb.install(dsn)
        with psycopg.connect(dsn) as conn:
            conn.execute(TABLES.encode())
            conn.execute("select audit.attach('public.item', 'item')")
        yield server, dsn


def patiently(server: Server, dsn: str, stop: threading.Event) -> psycopg.Connection[Any] | None:
    """Connect as soon as the server takes connections again."""
    while not stop.is_set():
        with contextlib.suppress(psycopg.OperationalError):
            return psycopg.connect(dsn, autocommit=True)
        stop.wait(0.05)
    return None


class Load:
    """Workers that insert and update rows, and remember what the server acknowledged."""

    def __init__(self, server: Server, dsn: str) -> None:
        self.server, self.dsn = server, dsn
        self.stop = threading.Event()
        self.acknowledged: list[list[int]] = [[] for _ in range(WORKERS)]
        self.threads = [threading.Thread(target=self._work, args=(i,)) for i in range(WORKERS)]

    def count(self) -> int:
        """Return how many transactions were acknowledged so far."""
        return sum(map(len, self.acknowledged))

    def _work(self, worker: int) -> None:
        number = worker * BATCH
        while not self.stop.is_set():
            conn = patiently(self.server, self.dsn, self.stop)
            if conn is None:
                return
            with contextlib.suppress(psycopg.Error), contextlib.closing(conn):
                while not self.stop.is_set():
                    number += 1
                    with conn.transaction():
                        conn.execute("insert into item values (%s, 1, 0)", [number])
                        # The naive twin: the event follows in a transaction of its own.
                        conn.execute("insert into naive_item values (%s)", [number])
                    self.acknowledged[worker].append(number)
                    conn.execute("insert into naive_log values (%s)", [number])


def restarted(server: Server) -> None:
    """Start a server whose postmaster was killed, once its orphans are gone."""
    for _ in range(100):
        with contextlib.suppress(RuntimeError):
            server.run("pg_ctl", "-w", "-t", "60", "-l", str(server.data) + "/log", "start")
            return
        time.sleep(0.1)
    raise AssertionError("the server did not come back")


def kill(server: Server, dsn: str, what: str) -> None:
    assert server.data is not None
    if what == "postmaster":
        pid = int((server.data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(pid, signal.SIGKILL)
        restarted(server)
        return
    with contextlib.suppress(psycopg.Error), psycopg.connect(dsn, autocommit=True) as conn:
        row = conn.execute(
            "select pid from pg_stat_activity where backend_type = 'client backend' "
            "and pid <> pg_backend_pid() order by random() limit 1"
        ).fetchone()
        if row:
            os.kill(row[0], signal.SIGKILL)


def test_no_change_without_event_and_no_event_without_change(victim: tuple[Server, str]) -> None:
    server, dsn = victim
    chance = random.Random(4711)
    load = Load(server, dsn)
    for thread in load.threads:
        thread.start()
    try:
        for done in range(KILLS):
            target = (done + 1) * TRANSACTIONS // (KILLS + 1)
            deadline = time.monotonic() + 120
            while load.count() < target and time.monotonic() < deadline:
                load.stop.wait(chance.uniform(0.001, 0.02))
            kill(server, dsn, chance.choice(["backend", "backend", "postmaster"]))
        deadline = time.monotonic() + 120
        while load.count() < TRANSACTIONS and time.monotonic() < deadline:
            load.stop.wait(0.02)
    finally:
        load.stop.set()
        for thread in load.threads:
            thread.join()
    conn = patiently(server, dsn, threading.Event())
    assert conn is not None
    acknowledged = sorted(n for part in load.acknowledged for n in part)
    assert len(acknowledged) >= TRANSACTIONS
    checks = {
        "changes without event": "select count(*) from item where not exists "
        "(select from seen where seen.id = item.id)",
        "events without change": "select count(*) from seen where not exists "
        "(select from item where item.id = seen.id)",
        "duplicates": "select count(*) - count(distinct id) from seen",
        "acknowledged and lost": "select count(*) from acknowledged where not exists "
        "(select from item where item.id = acknowledged.id)",
        "naive": "select count(*) from naive_item where not exists "
        "(select from naive_log where naive_log.id = naive_item.id)",
    }
    with conn, conn.cursor() as cursor:
        cursor.execute(
            "create table seen as select target_id::bigint as id from audit.event "
            "where action = 'item.created'"
        )
        cursor.execute(
            "create table acknowledged as select unnest(%s::bigint[]) id", [acknowledged]
        )
        cursor.execute("create index on seen (id); create index on naive_log (id)")
        found = {}
        for name, query in checks.items():
            row = cursor.execute(query.encode()).fetchone()
            assert row is not None
            found[name] = row[0]
    assert found.pop("naive") > 0, "no kill came at a bad moment: nothing was tested"
    assert set(found.values()) == {0}, found
