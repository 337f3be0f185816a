"""Measures many tables: attaching them by a file while clients write, commands, and memory.

All are parts of benchmarks.operate.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import psycopg
from psycopg import errors as pg

import auditdb
from auditdb.mapping.apply import apply
from auditdb.mapping.file import TableMapping
from auditdb.operate.doctor import diagnose
from auditdb.operate.preview import preview
from auditdb.operate.status import status
from benchmarks.session import private_kb

Conn = psycopg.Connection[Any]
TABLES = (60, 300)
ROUNDS = 3
# As an application's tables are: a key, an organisation, a user, some values.
TABLE = """
create table if not exists many_{n} (
    id int primary key, organization_id int, user_id int, name text, config jsonb, state text,
    api_token text, updated_at timestamptz
);
insert into many_{n} values (1, 1, 1, 'a', '{{}}', 'x', 'x', now()) on conflict do nothing
"""
# The floor: what PostgreSQL takes for triggers that do nothing.
PLAIN = "".join(
    f"create trigger plain_{op} after {op} on many_{{n}} for each row execute function plain(); "
    f"alter table many_{{n}} enable always trigger plain_{op}; "
    for op in ("insert", "update", "delete")
)
FUNCTION = """
create or replace function plain() returns trigger language plpgsql as $$ begin return null; end $$
"""


def create(conn: Conn, count: int) -> None:
    """Create tables, as far as they are not there."""
    conn.execute(FUNCTION)
    for n in range(count):
        conn.execute(TABLE.format(n=n).encode())


class Writer:
    """A client that updates a row of some tables, a transaction each time, until it is stopped."""

    def __init__(self, dsn: str, *tables: int) -> None:
        self.longest, self.deadlocks, self.done = 0.0, 0, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, args=(dsn, tables), daemon=True)
        self._thread.start()

    def _write(self, dsn: str, tables: tuple[int, ...]) -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not self._stop.wait(0.001):
                started = time.perf_counter()
                try:
                    with conn.transaction():
                        for n in tables:
                            query = f"update many_{n} set name = name || 'x' where id = 1"
                            conn.execute(query.encode())
                except pg.DeadlockDetected:
                    self.deadlocks += 1
                self.longest = max(self.longest, time.perf_counter() - started)
                self.done += 1

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join()


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def plain_triggers(conn: Conn, count: int) -> None:
    """Create triggers that do nothing, in a transaction for each table."""
    for n in range(count):
        with conn.transaction():
            conn.execute(PLAIN.format(n=n).encode())


def attach(
    dsns: dict[str, str], tables: Sequence[int] = TABLES, rounds: Iterable[int] = range(ROUNDS)
) -> list[dict[str, Any]]:
    """Return what attaching many tables takes, and how long writers waited meanwhile."""
    samples: dict[tuple[int, str], list[dict[str, float]]] = {}
    # A connection for each, as the command has: the second knows nothing of the first.
    for _ in rounds:
        for count in tables:
            mappings = [TableMapping(f"public.many_{n}", "thing") for n in range(count)]
            with psycopg.connect(dsns["no audit"], autocommit=True) as conn:
                create(conn, count)
                floor = timed(lambda: plain_triggers(conn, count))  # noqa: B023
                for n in range(count):
                    conn.execute(f"drop table many_{n}".encode())
            with psycopg.connect(dsns["auditdb"], autocommit=True) as conn:
                create(conn, count)
            for run in ("quiet", "again", "writers"):
                if run == "writers":
                    detach_all(dsns["auditdb"])
                places = [(0,), (count // 2,), (count - 1,), (5 * count // 6, min(5, count - 1))]
                busy = run == "writers"
                writers = [Writer(dsns["auditdb"], *p) for p in places] if busy else []
                with psycopg.connect(dsns["auditdb"], autocommit=True) as conn:
                    seconds = timed(lambda: apply(conn, mappings))  # noqa: B023
                for writer in writers:
                    writer.stop()
                samples.setdefault((count, run), []).append({
                    "seconds": seconds, "times_plain": seconds / floor,
                    "longest_ms": 1000 * max((w.longest for w in writers), default=0),
                    "deadlocks": sum(w.deadlocks for w in writers),
                })  # fmt: skip
            detach_all(dsns["auditdb"])
    return [
        {
            "tables": count, "run": run,
            "s_median": round(statistics.median(s["seconds"] for s in of), 2),
            "s_min": round(min(s["seconds"] for s in of), 2),
            "ms_a_table": round(1000 * min(s["seconds"] for s in of) / count, 1),
            "times_plain_triggers": round(min(s["times_plain"] for s in of), 1),
            "longest_transaction_ms": round(statistics.median(s["longest_ms"] for s in of)),
            "deadlocks": round(sum(s["deadlocks"] for s in of)),
        }
        for (count, run), of in samples.items()
    ]  # fmt: skip


def commands(
    dsns: dict[str, str], tables: Sequence[int] = TABLES, rounds: Iterable[int] = range(ROUNDS)
) -> list[dict[str, Any]]:
    """Return what other commands take where many tables are attached."""
    dsn = dsns["auditdb"]
    rows = []
    for count in tables:
        with psycopg.connect(dsn, autocommit=True) as conn:
            create(conn, count)
            apply(conn, [TableMapping(f"public.many_{n}", "thing") for n in range(count)])
            works: dict[str, Callable[[], object]] = {
                "status": partial(status, conn),
                "doctor": partial(diagnose, conn),
                "install again": partial(auditdb.install, dsn),
                "install --dry-run": partial(preview, dsn),
            }
            samples: dict[str, list[float]] = {name: [] for name in works}
            for _ in rounds:
                for name, work in works.items():
                    samples[name].append(timed(work))
        rows += [
            {"tables": count, "command": name, "s_median": round(statistics.median(of), 2),
             "s_min": round(min(of), 2)}
            for name, of in samples.items()
        ]  # fmt: skip
        detach_all(dsn)
    return rows


def detach_all(dsn: str) -> None:
    """Detach the tables again."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        query = "select target from audit_private.attachment where kind = 'thing'"
        for (target,) in conn.execute(query).fetchall():
            conn.execute("select audit.detach(%s::oid::regclass)", [target])


STATEMENTS = {
    "INSERT": ("insert into many_{n} values (2, 1, 1, 'b', '{{}}', 'x', 'x', now())",),
    "INSERT, UPDATE, DELETE": (
        "insert into many_{n} values (2, 1, 1, 'b', '{{}}', 'x', 'x', now())",
        "update many_{n} set name = 'c', state = 'y' where id = 2",
        "delete from many_{n} where id = 2",
    ),
}


def memory(dsns: dict[str, str], counts: Sequence[int] = (1, 10, 100)) -> list[dict[str, Any]]:
    """Return the private MB of a connection that wrote to so many tables."""
    for name, dsn in dsns.items():
        with psycopg.connect(dsn, autocommit=True) as conn:
            create(conn, max(counts))
            if name == "auditdb":
                apply(conn, [TableMapping(f"public.many_{n}", "thing") for n in range(max(counts))])
    rows = []
    for what, statements in STATEMENTS.items():
        for count in counts:
            row: dict[str, Any] = {"statements": what, "tables": count}
            for name, dsn in dsns.items():
                with psycopg.connect(dsn) as conn:
                    for n in range(count):
                        for statement in statements:
                            conn.execute(statement.format(n=n).encode())
                    row[f"{name}_mb"] = round(private_kb(conn.info.backend_pid) / 1024, 1)
                    conn.rollback()
            row["more_mb_a_table"] = round((row["auditdb_mb"] - row["no audit_mb"]) / count, 2)
            rows.append(row)
    return rows
