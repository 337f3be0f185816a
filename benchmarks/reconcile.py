"""Measures `auditdb reconcile`: a table beside its log, which has two events of each row.

python -m benchmarks.reconcile [--rows 200000]
"""

from __future__ import annotations

import argparse
import sys

import psycopg

import auditdb
from benchmarks.capture import address, database
from benchmarks.report import numbers, table
from benchmarks.whole import cost_of

SETUP = """
create table member (id int primary key, organization_id int, user_id int, name text, role text);
select audit.attach('member', 'membership');
"""
CHANGES = (
    "insert into member select n, n %% 50, n, 'name ' || n, 'MEMBER' "
    "from generate_series(1, %s) as n",
    "update member set role = 'ADMIN' where id <= %s",
)


def measure(server: str, rows: int) -> dict[str, float]:
    """Return what the command takes."""
    with database(server, "bench_reconcile") as dsn:
        auditdb.install(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(SETUP.encode())
            for change in CHANGES:
                conn.execute(change.encode(), [rows])
            conn.execute("vacuum analyze")
        command = [sys.executable, "-m", "auditdb", "--dsn", dsn, "reconcile"]
        seconds, client, megabytes = cost_of(command)
    return {"rows": rows, "events": rows * len(CHANGES), "seconds": seconds,
            "client, s of CPU": client, "memory, MB": megabytes}  # fmt: skip


def main() -> None:
    """Start a server, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dsn", help="a superuser's address; an embedded server by default")
    given = parser.parse_args()
    with address(given.dsn) as server:
        print(table(numbers(measure(server, given.rows))))


if __name__ == "__main__":
    main()
