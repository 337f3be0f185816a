"""Measures a centre: events a second that it collects, how late they come, and what they take.

python -m benchmarks.collect [--events 100000]

Source and centre are on one server, which is started for it: it needs wal_level = logical.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable

import psycopg
from psycopg.conninfo import make_conninfo

import auditdb
from auditdb.collect import collect
from auditdb.collect.publish import publish_log
from benchmarks.capture import database
from benchmarks.export import RECORD
from benchmarks.formats import EVENTS
from benchmarks.report import numbers, table
from tests.server import running

SIZE = (
    "select sum(pg_total_relation_size(relid))::float8 / 2^20 "
    "from pg_partition_tree('{}') where isleaf"
)


def measure(events: int, rounds: Iterable[int]) -> dict[str, float]:
    """Return what it takes to collect events that are there, as many that come, and single ones."""
    with running() as own:
        server = make_conninfo("", host=own.host, port=own.port, user=own.user, dbname="postgres")
        with database(server, "bench_source") as source, database(server, "bench_centre") as centre:
            for dsn in (source, centre):
                auditdb.install(dsn)
            with psycopg.connect(source) as conn:
                conn.execute("create role bench_collector login replication")
                publish_log(conn, "bench_collector")
            with (
                psycopg.connect(source, autocommit=True) as there,
                psycopg.connect(centre, autocommit=True) as here,
            ):
                try:
                    return _measured(there, here, source, events, rounds)
                finally:
                    collect.drop_source(here, "source")


def _measured(
    there: psycopg.Connection, here: psycopg.Connection, source: str, events: int,
    rounds: Iterable[int],
) -> dict[str, float]:  # fmt: skip
    def arrived() -> float:
        """Return the seconds until the centre has every event of the source."""
        started = time.perf_counter()
        ((last,),) = there.execute("select max(id) from audit.event").fetchall()
        query = "select from audit_collected.event where database = 'source' and id = %s"
        while not here.execute(query, [last]).fetchall():
            time.sleep(0.005)
        return time.perf_counter() - started

    there.execute(EVENTS.encode(), [events])
    collect.collect_source(here, "source", make_conninfo(source, user="bench_collector"))
    first = arrived()
    sizes = {
        f"{where}, MB for {events:,} events": float(conn.execute(
            SIZE.format(log).encode()).fetchall()[0][0])
        for where, conn, log in (
            ("centre", here, "audit_collected.event"), ("source", there, "audit.event"))
    }  # fmt: skip
    started = time.perf_counter()
    there.execute(EVENTS.encode(), [events])
    arrived()
    later = time.perf_counter() - started
    lags = []
    for _ in rounds:
        there.execute(RECORD.encode())
        lags.append(arrived())
    return {
        "first copy, events a second": events / first,
        "later, events a second": events / later,
        "from commit to centre, s": statistics.median(lags),
        "from commit to centre, s, at most": max(lags),
        **sizes,
    }


def main() -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    given = parser.parse_args()
    print(table(numbers(measure(given.events, range(20)))))


if __name__ == "__main__":
    main()
