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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

import asyncpg
import psycopg
import psycopg2

import auditdb
from auditdb.embedded import server

ROUNDS, EACH = 30, 100
CHANGE = "update member set role = case role when 'a' then 'b' else 'a' end where id = 1"
DETAILS = {"ip": "203.0.113.9", "user_agent": "Firefox", "request_id": "5f3a"}
SETUP = """
alter role postgres set synchronous_commit = off;
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
        names = {"dbname": "database", "user": "user", "host": "host", "port": "port"}
        arguments: dict[str, Any] = {names[k]: v for k, v in given.items() if k in names}
        conn = runner.run(asyncpg.connect(**arguments))

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


def measure(contender: Contender, dsn: str) -> list[tuple[float, float]]:
    """Return wall-clock and processor time of a transaction, by hand and under a context."""
    with contender(dsn) as runs:
        taken: list[list[tuple[float, float]]] = [[], []]
        for number in range(ROUNDS + 2):
            for run, times in zip(runs, taken, strict=True):
                before = time.perf_counter(), time.process_time()
                run(EACH)
                after = time.perf_counter(), time.process_time()
                if number >= 2:
                    times.append(((after[0] - before[0]) / EACH, (after[1] - before[1]) / EACH))
    return [
        (statistics.median(t[0] for t in times) * 1e6, statistics.median(t[1] for t in times) * 1e6)
        for times in taken
    ]


def main() -> None:
    names = sys.argv[1:] or list(CONTENDERS)
    with server() as dsn:
        auditdb.install(dsn)
        with psycopg.connect(dsn) as conn:
            conn.execute(SETUP)
        print(f"{'':16}{'by hand':>18}{'under a context':>18}{'more':>18}    µs (of them CPU)")
        for name in names:
            hand, audited = measure(CONTENDERS[name], dsn)
            more = (audited[0] - hand[0], audited[1] - hand[1])
            cells = "".join(f"{f'{a:.0f} ({b:.0f})':>18}" for a, b in (hand, audited, more))
            print(f"{name:16}{cells}")


if __name__ == "__main__":
    main()
