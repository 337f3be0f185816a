"""Every committed event, once and in order, whatever is killed: exporter, backend or postmaster."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import auditdb
from auditdb.export.conditions import Values
from auditdb.export.place import Row
from auditdb.export.threshold import Counts, Threshold
from tests.export.receivers import Answer, Receiver, Request, receiver
from tests.server import Server, running
from tests.test_crash import kill, patiently

KILLS = int(os.environ.get("AUDITDB_CRASH_KILLS", "20"))
EVENTS = int(os.environ.get("AUDITDB_CRASH_EVENTS", "12000"))
WRITERS = 8
# Seconds after each transaction, so that a short run lasts as long as its kills.
PAUSE = 0.02 if EVENTS < 100_000 else 0.0

NAIVE = """
select id from audit.event where id > %s order by id limit 2000
"""


@pytest.fixture
def victim() -> Iterator[tuple[Server, str]]:
    """A server of its own, for this one is killed."""
    with running() as server:
        dsn = f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres"
        auditdb.install(dsn)
        yield server, dsn


class Writers:
    """Eight that write events in transactions of any length; some roll back."""

    def __init__(self, dsn: str, server: Server) -> None:
        self.dsn, self.server = dsn, server
        self.stop = threading.Event()
        self.written = [0] * WRITERS
        self.threads = [threading.Thread(target=self._work, args=(i,)) for i in range(WRITERS)]

    def _work(self, number: int) -> None:
        chance = random.Random(number)
        while not self.stop.is_set():
            conn = patiently(self.server, self.dsn, self.stop)
            if conn is None:
                return
            with contextlib.suppress(psycopg.Error), contextlib.closing(conn):
                while not self.stop.is_set():
                    events = chance.choice([1, 1, 2, 5])
                    with conn.transaction(force_rollback=chance.random() < 0.1) as block:
                        for _ in range(events):
                            conn.execute(
                                "select audit.record_event('auth.login', %s)",
                                [str(chance.randrange(5))],
                            )
                            # What is slow commits after others that began later.
                            self.stop.wait(chance.choice([0, 0, 0, 0.01]))
                    self.stop.wait(PAUSE)
                    if not block.force_rollback:
                        self.written[number] += events


class Exporter:
    """The command, as a service would run it: started again whenever it is gone."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn, self.folder = dsn, folder
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None

    def see_to(self) -> None:
        """Start it if it is not there."""
        if self.process is None or self.process.poll() is not None:
            self.starts += 1
            with (self.folder / "exporter.log").open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "auditdb", "--dsn", self.dsn, "export", "--all",
                     "--follow"], stdout=log, stderr=log)  # fmt: skip

    def kill(self) -> None:
        """Kill it, without a word."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def end(self) -> None:
        """End it as a service is ended."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)


class Naive:
    """The naive twin: whatever has a higher id than the last."""

    def __init__(self, dsn: str, server: Server) -> None:
        self.stop = threading.Event()
        self.ids: list[int] = []
        self.thread = threading.Thread(target=self._work, args=(dsn, server))

    def _work(self, dsn: str, server: Server) -> None:
        while not self.stop.is_set():
            conn = patiently(server, dsn, self.stop)
            if conn is None:
                return
            with contextlib.suppress(psycopg.Error), contextlib.closing(conn):
                while not self.stop.wait(0.02):
                    last = self.ids[-1] if self.ids else 0
                    self.ids += [id for (id,) in conn.execute(NAIVE.encode(), [last])]


def unreliable(chance: random.Random, taken: list[Request]) -> Receiver:
    """A receiver that is busy at times, and at times takes all and does not say so."""

    def decide(request: Request) -> Answer:
        luck = chance.random()
        if luck < 0.05:
            return Answer(503)
        taken.append(request)
        return Answer(act="reset") if luck < 0.1 else Answer()

    return Receiver(decide=decide)


def filed(folder: Path) -> list[int]:
    """Return the ids in the files, in the order of their names."""
    return [
        int(json.loads(line)["id"])
        for path in sorted(folder.rglob("*.jsonl.gz"))
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]


def deduplicated(taken: list[Request]) -> list[int]:
    """Return the ids that a receiver got, which tells repeats by their webhook-id alone."""
    bodies: dict[str, bytes] = {}
    for request in taken:
        body = bodies.setdefault(request.headers["webhook-id"], request.body)
        assert body == request.body, "the same id, and other events"
    return [int(json.loads(line)["id"]) for body in bodies.values() for line in body.splitlines()]


def in_order(dsn: str) -> list[int]:
    """Return all events by tick, time and id, as ticks promise."""
    ids: list[int] = []
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select audit.make_tick()")
        cursor, is_more = None, True
        while is_more:
            *events, (_, cursor, is_more) = conn.execute(
                "select (event).id, cursor, is_more from audit.events_since(%s, 10000)", [cursor]
            ).fetchall()
            ids += [row[0] for row in events]
        row = conn.execute("select count(*) from audit.event").fetchone()
        assert row == (len(ids),) and len(set(ids)) == len(ids)
    return ids


def subscribe(dsn: str, folder: Path, port: int) -> None:
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "select audit.subscribe('files', %s, options => '{\"every\": 0}'), "
            "audit.subscribe('web', %s), "
            "audit.subscribe('one', %s, organization_id => '3', options => '{\"every\": 0}'), "
            "audit.subscribe('alarm', %s, conditions => '{action=auth.login}', at_least => 40, "
            "within => '2 s', per => 'organization_id', options => '{\"every\": 0}')",
            [(folder / "files").as_uri(), f"http://127.0.0.1:{port}/", (folder / "one").as_uri(),
             (folder / "alarm").as_uri()],
        )  # fmt: skip
    for name in ("files", "one", "alarm"):
        (folder / name).mkdir()


def harm(what: str, server: Server, dsn: str, exporter: Exporter) -> None:
    if what == "exporter":
        exporter.kill()
    else:
        kill(server, dsn, what)
    exporter.see_to()


@contextlib.contextmanager
def at_work(*threads: threading.Thread, stops: list[threading.Event]) -> Iterator[None]:
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for stop in stops:
            stop.set()
        for thread in threads:
            thread.join()


def test_no_event_is_missing_or_repeated_whatever_is_killed(
    victim: tuple[Server, str], tmp_path: Path
) -> None:
    server, dsn = victim
    chance = random.Random(4711)
    taken: list[Request] = []
    writers, naive = Writers(dsn, server), Naive(dsn, server)
    exporter = Exporter(dsn, tmp_path)
    with receiver() as web:
        web.decide = unreliable(random.Random(1), taken).decide
        subscribe(dsn, tmp_path, web.port)
        exporter.see_to()
        try:
            with at_work(*writers.threads, naive.thread, stops=[writers.stop, naive.stop]):
                for done in range(KILLS):
                    await_progress(dsn, server, exporter)
                    while sum(writers.written) < (done + 1) * EVENTS // (KILLS + 1):
                        writers.stop.wait(0.05)
                    writers.stop.wait(chance.uniform(0.0, 0.5))
                    harm(chance.choice(["exporter", "exporter", "backend", "postmaster"]),
                         server, dsn, exporter)  # fmt: skip
                while sum(writers.written) < EVENTS:
                    writers.stop.wait(0.05)
            exporter.see_to()
            expected = in_order(dsn)
            until = time.monotonic() + 120
            while behind(dsn) and time.monotonic() < until:
                exporter.see_to()
                time.sleep(0.2)
        finally:
            exporter.end()
    assert len(expected) >= EVENTS
    assert filed(tmp_path / "files") == expected
    assert deduplicated(taken) == expected
    check_one(dsn, filed(tmp_path / "one"), expected)
    check_alarm(dsn, filed(tmp_path / "alarm"), expected)
    missed = len(set(expected) - set(naive.ids))
    repeated = Counter(request.headers["webhook-id"] for request in taken)
    assert missed > 0, "the naive twin missed nothing: nothing was tested"
    assert max(repeated.values()) > 1, "no delivery was repeated: nothing was tested"


def await_progress(dsn: str, server: Server, exporter: Exporter) -> None:
    """Wait until something more was delivered: who is killed should be at work."""

    def delivered() -> int:
        with contextlib.suppress(psycopg.Error), psycopg.connect(dsn) as conn:
            row = conn.execute("select sum(delivered)::int from audit.subscription").fetchone()
            return int(row[0]) if row else 0
        return -1

    before, until = delivered(), time.monotonic() + 60
    while delivered() <= before and time.monotonic() < until:
        exporter.see_to()
        time.sleep(0.05)


def behind(dsn: str) -> bool:
    with psycopg.connect(dsn) as conn:
        row = conn.execute(
            "select coalesce(bool_or(lag_events > 0), true) from audit.list_subscriptions()"
        ).fetchone()
    return row is None or bool(row[0])


def check_one(dsn: str, found: list[int], expected: list[int]) -> None:
    """A customer's own stream has the customer's events, and no other."""
    with psycopg.connect(dsn) as conn:
        own = {
            id for (id,) in conn.execute("select id from audit.event where organization_id = '3'")
        }
    assert found == [id for id in expected if id in own]


def check_alarm(dsn: str, found: list[int], expected: list[int]) -> None:
    """A threshold chose what it chooses of all events in one go."""
    counts = Counts(Threshold(at_least=40, within=2_000_000, per=("organization_id",)))
    with psycopg.connect(dsn) as conn:
        lines: dict[int, str] = dict(conn.execute(
            "select id, audit.canonical(e, null) from audit.event as e where action = 'auth.login'"
        ).fetchall())  # fmt: skip
    rows = [Row(0, id, "", json.loads(lines[id])["organization_id"], "auth.login", "success",
                lines[id].encode()) for id in expected if id in lines]  # fmt: skip
    chosen = [row.id for row in rows if counts.reaches(Values(row))]
    assert found == chosen
    assert len(chosen) > 10, "nothing was tested"
