"""Measures evidence: what it costs to seal, to verify and to bundle, with many organisations.

python -m benchmarks.evidence [--events 1000000] [--organizations 10000] [--ticks 10]
python -m benchmarks.evidence --beside 60    # seconds of full load: lag of seals, cost to writers

Processor time of the server's connection and of the client; bytes are of the tables of evidence.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import psutil
import psycopg

import auditdb
from auditdb.evidence import verify
from auditdb.evidence.bundle import Bundler
from auditdb.evidence.check import Verifier
from auditdb.evidence.keys import PrivateKey
from auditdb.evidence.seal import Sealer
from auditdb.evidence.state import State
from benchmarks.archive import Measured
from benchmarks.export import beside, command, report, write_fast
from benchmarks.report import show
from tests.server import running

EVENTS = """
insert into audit.event (action, result, actor_id, actor_type, organization_id, target_type,
    target_id, source, new_values)
select 'document.changed', 'success', 'user-' || i %% 1000, 'user', 'org-' || (random() * %s)::int,
    'document', 'd-' || i, 'web', jsonb_build_object('name', 'x' || i)
from generate_series(1, %s) as i
"""
# Age of events when the first checkpoint that has them is kept, in seconds.
AGES = """
select count(*)::int, percentile_cont(0.5) within group (order by age),
    percentile_cont(0.99) within group (order by age), max(age)::float8
from (
    select extract(epoch from signed.at - e.occurred_at) as age
    from audit.seal as s
        cross join lateral (
            select min(c.made_at) as at from audit.checkpoint as c
            where c.size >= s.first_leaf + octet_length(s.leaves) / 32) as signed
        join audit.event as e on e.id = any (s.ids)
    where e.action = 'membership.role_changed' and e.id % 50 = 0
) as a
"""
TABLES = ("seal", "tile", "checkpoint", "sealed_organization", "organization_seal")


@contextmanager
def measured(
    rows: list[dict[str, Any]], what: str, events: int, conn: psycopg.Connection[Any]
) -> Iterator[None]:
    """Add to rows what a block took, by a million events."""
    server = psutil.Process(conn.info.backend_pid)

    def clocks() -> tuple[float, float, float]:
        times = server.cpu_times()
        return time.monotonic(), time.process_time(), times.user + times.system

    before = clocks()
    yield
    wall, client, at_server = (b - a for a, b in zip(before, clocks(), strict=True))
    rows.append({
        "": what, "events": events, "s": round(wall, 2),
        "client, s of CPU a million": round(client / events * 1e6, 1),
        "server, s of CPU a million": round(at_server / events * 1e6, 1),
    })  # fmt: skip


def run(dsn: str, events: int, organizations: int, ticks: int, path: Path) -> Measured:
    """Measure each of them once: what it took, and the sizes."""
    rows: list[dict[str, Any]] = []
    sizes: dict[str, float] = {}
    auditdb.install(dsn)
    key, state = PrivateKey.make("example.com/audit"), State(path / "state")
    with psycopg.connect(dsn, autocommit=True) as conn:
        for _ in range(ticks):
            conn.execute(
                EVENTS.encode(),
                [organizations - 1, events // ticks],
            )
            conn.execute("select audit.make_tick()")
        conn.execute("vacuum analyze audit.event")
        with measured(rows, f"seal {ticks} ticks", events, conn):
            Sealer(conn, key, state).run()
        for table in TABLES:
            (size,) = conn.execute(  # type: ignore[misc]
                f"select pg_total_relation_size('audit.{table}')".encode()
            ).fetchone()
            sizes[f"audit.{table}, bytes an event"] = size / events
        for many in (1, 100):
            conn.execute(EVENTS.encode(),
                         [organizations - 1, many])  # fmt: skip
            conn.execute("select audit.make_tick()")
            with measured(rows, f"seal a tick of {many}", many, conn):
                conn.execute("select audit.seal_next()")
        Sealer(conn, key, state).run()
        with measured(rows, "verify", events, conn):
            findings = Verifier(conn, [key.key]).run().findings
        assert findings == [], findings
        output = path / "bundle.zip"
        (organization, total) = conn.execute(  # type: ignore[misc]
            "select organization_id, total from audit.sealed_organization order by id limit 1"
        ).fetchone()
        with measured(rows, "bundle", total, conn):
            Bundler(conn).bundle(organization, output)
        sizes["bundle, bytes an event"] = output.stat().st_size / total
        ZipFile(output).extractall(path / "out")
        with measured(rows, "verify.py", total, conn):
            verify.verify(str(key.key), path / "out")
    return rows, sizes


@contextmanager
def sealing(dsn: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Seal every second, in a process of its own."""
    file = path / "key"
    subprocess.run(command(dsn, "seal", "init", "--key-file", str(file)), check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    process = subprocess.Popen(
        command(dsn, "seal", "--every", "1s", "--key-file", str(file)), stdout=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait()


def beside_writers(dsn: str, seconds: int, path: Path) -> None:
    """Measure how old events are when they are sealed and signed, and what writers pay."""
    auditdb.install(dsn)
    with sealing(dsn, path) as process, psycopg.connect(dsn, autocommit=True) as conn:
        time.sleep(3)
        rate = write_fast(dsn, seconds)
        time.sleep(10)
        ages = conn.execute(AGES).fetchone()
        report("lag", {"written a second": rate, **dict(zip(
            ("sealed", "p50, s", "p99, s", "most, s"), ages or (), strict=True))})  # fmt: skip
        report("writers", beside(dsn, process, range(21)))


def main() -> None:
    """Start a server, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--organizations", type=int, default=10_000)
    parser.add_argument("--ticks", type=int, default=10)
    parser.add_argument("--beside", type=int, metavar="SECONDS")
    given = parser.parse_args()
    with running() as server, tempfile.TemporaryDirectory() as path:
        dsn = f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres"
        if given.beside:
            beside_writers(dsn, given.beside, Path(path))
        else:
            show(*run(dsn, given.events, given.organizations, given.ticks, Path(path)))


if __name__ == "__main__":
    main()
