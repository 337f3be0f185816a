"""Measures formats: how many events a second the server makes bytes of, and a client each format.

python -m benchmarks.formats [--events 100000] [--repeats 5]

Processor time of whoever does the work, the server's connection or the client: the best of some
runs. On one machine both have a core each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import psutil
import psycopg

import auditdb
from auditdb.export.formats import FORMATS
from auditdb.export.formats.base import Format
from benchmarks.capture import address, database

EVENTS = """
insert into audit.event (
    action, result, actor_id, actor_type, organization_id, target_type, target_id, subject_id,
    source, captured_from, old_values, new_values, details
)
select 'membership.role_changed', 'success', 'user-' || i %% 1000, 'user', 'org-' || i %% 100,
    'membership', 'm-' || i, 'user-' || i %% 500, 'web', 'public.membership',
    jsonb_build_object('role', 'MEMBER', 'updated_at', now()),
    jsonb_build_object('role', 'ADMIN', 'updated_at', now()),
    jsonb_build_object('ip', '192.0.2.' || i %% 250, 'request_id', 'r-' || i, 'user_agent',
        'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0')
from generate_series(1, %s) as i
"""
SERIES = "0b1c9f2e-8d4a-4c55-9a07-3f1e5d6c7b8a"
COPY = (
    f"copy (select audit.canonical(e, '{SERIES}') from audit.event as e) to stdout "
    "with (format csv, delimiter e'\\x02', quote e'\\x01')"
)


def _copy(conn: psycopg.Connection[Any]) -> list[bytes]:
    with conn.cursor().copy(COPY.encode()) as rows:
        return [bytes(row)[:-1] for row in rows]


def _rows(conn: psycopg.Connection[Any]) -> None:
    conn.execute("select * from audit.event").fetchall()


def _clock_of(pid: int) -> Callable[[], float]:
    """Return a clock of the processor time of a connection of a server on this machine."""
    process = psutil.Process(pid)

    def clock() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    return clock


def _convert(form: Format, lines: list[bytes]) -> None:
    for line in lines:
        form.convert(line)


def measure(server: str, events: int, rounds: Iterable[int]) -> dict[str, float]:
    """Return microseconds an event of each way."""
    with database(server, "bench_formats") as dsn:
        auditdb.install(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(EVENTS.encode(), (events,))
            conn.execute("vacuum analyze audit.event")
            conn.execute("set max_parallel_workers_per_gather = 0")
            lines = _copy(conn)
            sizes = f"select sum(length(audit.canonical(e, '{SERIES}'))) from audit.event as e"
            server_time = _clock_of(conn.info.backend_pid)
            ways: dict[str, tuple[Callable[[], float], Callable[[], Any]]] = {
                "server: audit.canonical": (server_time, lambda: conn.execute(sizes.encode())),
                "server: COPY of it": (server_time, lambda: _copy(conn)),
                "client: COPY of it": (time.process_time, lambda: _copy(conn)),
                "client: rows as columns": (time.process_time, lambda: _rows(conn)),
                **{
                    f"client: {name}, of the bytes": (
                        time.process_time, partial(_convert, form, lines))
                    for name, form in FORMATS.items()
                },
            }  # fmt: skip
            best: dict[str, float] = {}
            for _ in rounds:
                for name, (clock, work) in ways.items():
                    before = clock()
                    work()
                    best[name] = min(best.get(name, 1e9), clock() - before)
    return {name: seconds / len(lines) * 1e6 for name, seconds in best.items()}


def main() -> None:
    """Print microseconds an event, and events a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with address(None) as server:
        found = measure(server, given.events, range(given.repeats))
    for name, cost in found.items():
        print(f"{name:32} {cost:7.2f} us an event, {1e6 / cost:9,.0f} events a second")


if __name__ == "__main__":
    main()
