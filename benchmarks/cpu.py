"""Measures the processor time that a transaction costs the application's own process.

python -m benchmarks.cpu            # an embedded server
python -m benchmarks.cpu --dsn ...  # any server; databases bench_* are made and dropped

Each transaction is BEGIN, UPDATE, COMMIT on one connection. The ways are interleaved, and each
sample is the user and system time of many transactions.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import psycopg

from benchmarks import report
from benchmarks.capture import address, databases
from benchmarks.clients import TRANSACTIONS, UPDATE, Conn
from benchmarks.contenders import CONTENDERS
from benchmarks.workloads import ROWS

SET_CONFIG = "select set_config('auditdb.context', %s, true)"
CONTEXT = (
    '{"actor_id": "u_4711", "actor_type": "user", "source": "web", '
    '"details": {"ip": "203.0.113.9", "request_id": "7f3c2f1e-5a0b"}}'
)


def _set_config(conn: Conn, row: int, name: str, typical: bool) -> None:
    del typical
    with conn.transaction():
        conn.execute(SET_CONFIG, [CONTEXT], prepare=True)
        conn.execute(UPDATE, [name, row], prepare=True)


WAYS: dict[str, Callable[[Conn, int, str, bool], None]] = {
    "bare": TRANSACTIONS["plain"],
    "one set_config by hand": _set_config,
    "auditdb.context": TRANSACTIONS["auditdb"],
    "INSERT by hand": TRANSACTIONS["by_hand"],
}


def measure(
    dsn: str, *, rounds: Iterable[int], transactions: int, autocommit: bool = True
) -> dict[str, list[float]]:
    """Return the processor seconds of one transaction, for each round of each way."""
    by_name = {contender.name: contender for contender in CONTENDERS}
    samples: dict[str, list[float]] = {name: [] for name in WAYS}
    with contextlib.ExitStack() as stack:
        own = [by_name["auditdb"], by_name["by hand"]]
        attached, by_hand = stack.enter_context(databases(dsn, own)).values()
        conns: dict[str, psycopg.Connection[Any]] = {
            name: stack.enter_context(
                psycopg.connect(
                    by_hand if name == "INSERT by hand" else attached, autocommit=autocommit
                )
            )
            for name in WAYS
        }
        names = list(WAYS)
        for round_number in rounds:
            for name in names[round_number % len(names) :] + names[: round_number % len(names)]:
                transaction, conn = WAYS[name], conns[name]
                gc.collect()
                started = time.process_time()
                for n in range(transactions):
                    transaction(conn, 1 + n % ROWS, f"name {n} {round_number}", False)
                if round_number > 0:
                    samples[name].append((time.process_time() - started) / transactions)
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.cpu", description=__doc__)
    parser.add_argument("--dsn", help="a superuser's address; an embedded server by default")
    parser.add_argument("--rounds", type=int, default=30, help="(default %(default)s)")
    parser.add_argument("--transactions", type=int, default=300, help="of a round (%(default)s)")
    parser.add_argument("--no-autocommit", action="store_true", help="as psycopg connects")
    options = parser.parse_args()
    with address(options.dsn) as dsn:
        samples = measure(
            dsn,
            rounds=range(options.rounds + 1),
            transactions=options.transactions,
            autocommit=not options.no_autocommit,
        )
    print(f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__}), {os.cpu_count()} processors")
    print(report.table(report.summary(samples, 1e6, added_to="bare")))


if __name__ == "__main__":
    main()
