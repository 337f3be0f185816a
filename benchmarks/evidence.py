"""Measures evidence: what it costs to seal, to verify and to bundle, with many organizations.

python -m benchmarks.evidence [--events 1000000] [--organizations 10000] [--ticks 10]

Processor time of the server's connection and of the client; bytes are of the tables of evidence.
"""

from __future__ import annotations

import argparse
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
from tests.server import running

EVENTS = """
insert into audit.event (action, result, actor_id, actor_type, organization_id, target_type,
    target_id, source, new_values)
select 'document.changed', 'success', 'user-' || i %% 1000, 'user', 'org-' || (random() * %s)::int,
    'document', 'd-' || i, 'web', jsonb_build_object('name', 'x' || i)
from generate_series(1, %s) as i
"""
TABLES = ("seal", "tile", "checkpoint", "sealed_organization", "organization_seal")


@contextmanager
def measured(what: str, events: int, conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Print what a block took, by a million events."""
    server = psutil.Process(conn.info.backend_pid)

    def clocks() -> tuple[float, float, float]:
        times = server.cpu_times()
        return time.monotonic(), time.process_time(), times.user + times.system

    before = clocks()
    yield
    wall, client, at_server = (b - a for a, b in zip(before, clocks(), strict=True))
    print(f"{what}: {wall:.2f} s; a million events: client {client / events * 1e6:.1f} s, "
          f"server {at_server / events * 1e6:.1f} s of CPU")  # fmt: skip


def run(dsn: str, events: int, organizations: int, ticks: int, path: Path) -> None:
    """Measure each of them once."""
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
        with measured(f"seal {events} events in {ticks} ticks", events, conn):
            Sealer(conn, key, state).run()
        for table in TABLES:
            (size,) = conn.execute(  # type: ignore[misc]
                f"select pg_total_relation_size('audit.{table}')".encode()
            ).fetchone()
            print(f"audit.{table}: {size / events:.1f} bytes an event")
        for many in (1, 100):
            conn.execute(EVENTS.encode(),
                         [organizations - 1, many])  # fmt: skip
            conn.execute("select audit.make_tick()")
            with measured(f"seal a tick of {many}", many, conn):
                conn.execute("select audit.seal_next()")
        Sealer(conn, key, state).run()
        with measured("verify", events, conn):
            report = Verifier(conn, [key.key]).run()
        assert report.findings == [], report.findings
        output = path / "bundle.zip"
        (organization, total) = conn.execute(  # type: ignore[misc]
            "select organization_id, total from audit.sealed_organization order by id limit 1"
        ).fetchone()
        with measured(f"bundle of {total} events", total, conn):
            Bundler(conn).bundle(organization, output)
        print(f"bundle: {output.stat().st_size} bytes")
        ZipFile(output).extractall(path / "out")
        with measured("verify.py", total, conn):
            print(verify.verify(str(key.key), path / "out"))


def main() -> None:
    """Start a server, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--organizations", type=int, default=10_000)
    parser.add_argument("--ticks", type=int, default=10)
    given = parser.parse_args()
    with running() as server, tempfile.TemporaryDirectory() as path:
        dsn = f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres"
        run(dsn, given.events, given.organizations, given.ticks, Path(path))


if __name__ == "__main__":
    main()
