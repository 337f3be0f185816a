"""What an integration costs a client: a transaction by hand, and one under a context.

    python -m benchmarks.integrations [name ...]

Each transaction is one UPDATE of an attached table; the contenders take turns, so that what else
the machine does hits both alike. Figures are medians of the wall-clock time and of the client's
processor time, in microseconds.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeAlias

import asyncpg
import psycopg
import psycopg2
from psycopg import sql

import auditdb
from auditdb.embedded import server
from benchmarks import report

ROUNDS, EACH = 30, 100
WAYS = ("by hand", "under a context")
CHANGE = "update member set role = case role when 'a' then 'b' else 'a' end where id = 1"
DETAILS = {"ip": "203.0.113.9", "user_agent": "Firefox", "request_id": "5f3a"}
SETUP = """
create table member (id int primary key, organization_id int, user_id int, role text);
insert into member values (1, 1, 2, 'a');
select audit.attach('member', 'membership');
"""

# Runs a number of transactions: by hand, and under a context.
Run: TypeAlias = Callable[[int], None]
Contender: TypeAlias = Callable[[str], AbstractContextManager[tuple[Run, Run]]]


@contextmanager
def _psycopg(dsn: str) -> Iterator[tuple[Run, Run]]:
    with psycopg.connect(dsn, autocommit=True) as conn:

        def by_hand(times: int) -> None:
            for _ in range(times):
                with conn.transaction():
                    conn.execute(CHANGE)

        def audited(times: int) -> None:
            for _ in range(times):
                with auditdb.context(conn, actor_id=7, details=DETAILS):
                    conn.execute(CHANGE)

        yield by_hand, audited


@contextmanager
def _psycopg2(dsn: str) -> Iterator[tuple[Run, Run]]:
    conn = psycopg2.connect(dsn)
    cursor = conn.cursor()

    def by_hand(times: int) -> None:
        for _ in range(times):
            cursor.execute(CHANGE)
            conn.commit()

    def audited(times: int) -> None:
        for _ in range(times):
            with auditdb.context(conn, actor_id=7, details=DETAILS):
                cursor.execute(CHANGE)

    yield by_hand, audited
    conn.close()


@contextmanager
def _asyncpg(dsn: str) -> Iterator[tuple[Run, Run]]:
    with asyncio.Runner() as runner:
        given = psycopg.conninfo.conninfo_to_dict(dsn)
        taken = ("user", "password", "host", "port")
        arguments: dict[str, Any] = {k: v for k, v in given.items() if k in taken}
        conn = runner.run(asyncpg.connect(database=str(given["dbname"]), **arguments))

        async def by_hand(times: int) -> None:
            for _ in range(times):
                async with conn.transaction():
                    await conn.execute(CHANGE)

        async def audited(times: int) -> None:
            for _ in range(times):
                async with auditdb.context(conn, actor_id=7, details=DETAILS):
                    await conn.execute(CHANGE)

        yield lambda times: runner.run(by_hand(times)), lambda times: runner.run(audited(times))
        runner.run(conn.close())


CONTENDERS: dict[str, Contender] = {
    "psycopg": _psycopg,
    "psycopg2": _psycopg2,
    "asyncpg": _asyncpg,
}


def measure(dsn: str, names: list[str], rounds: Iterable[int]) -> list[dict[str, Any]]:
    """Return wall-clock and processor time of a transaction, by hand and under a context."""
    auditdb.install(dsn)
    with psycopg.connect(dsn) as conn:
        conn.execute(SETUP)
        # Of its own database alone, which is dropped.
        conn.execute(
            sql.SQL("alter database {} set synchronous_commit = off").format(
                sql.Identifier(conn.info.dbname)
            )
        )
    wall: dict[tuple[str, str], list[float]] = defaultdict(list)
    cpu: dict[tuple[str, str], list[float]] = defaultdict(list)
    with ExitStack() as stack:
        runs = {name: stack.enter_context(CONTENDERS[name](dsn)) for name in names}
        for number in rounds:
            for name, both in runs.items():
                for run, way in zip(both, WAYS, strict=True):
                    before = time.perf_counter(), time.process_time()
                    run(EACH)
                    after = time.perf_counter(), time.process_time()
                    if number > 0:
                        wall[name, way].append((after[0] - before[0]) / EACH * 1e6)
                        cpu[name, way].append((after[1] - before[1]) / EACH * 1e6)
    rows = []
    for name in names:
        row: dict[str, Any] = {"us": name}
        for unit, of in (("", wall), (", CPU", cpu)):
            hand, audited = (statistics.median(of[name, way]) for way in WAYS)
            row |= {f"{WAYS[0]}{unit}": round(hand), f"{WAYS[1]}{unit}": round(audited),
                    f"more{unit}": round(audited - hand)}  # fmt: skip
        rows.append(row)
    return rows


def main() -> None:
    with server() as dsn:
        print(report.table(measure(dsn, sys.argv[1:] or list(CONTENDERS), range(ROUNDS + 1))))


if __name__ == "__main__":
    main()
