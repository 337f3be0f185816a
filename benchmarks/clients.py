"""Runs whole transactions as an application sends them: a process for each client, psycopg 3.

Two kinds: `short` is BEGIN, UPDATE, COMMIT; `typical` has three SELECTs before its UPDATE. Every
contender tells who acts, in the way its own library does.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import signal
import statistics
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection as Pipe
from typing import Any

import psycopg

import auditdb
from benchmarks.contenders import AS_APPLICATION, METADATA, POSTGRESQL_AUDIT_CONTEXT
from benchmarks.workloads import ROWS

CLIENTS = (1, 8)
KINDS = ("short", "typical")

SELECTS = (
    "select * from member where id = %s",
    "select role from member where user_id = %s and id = user_id limit 1",
    "select id, name from member where id between %s and %s + 5",
)
UPDATE = (
    "update member set name = %s, quota = quota + 1, updated_at = clock_timestamp() where id = %s"
)
INSERT_EVENT = """
insert into audit.event (
    action, result, actor_id, actor_type, organization_id, target_type, target_id, subject_id,
    source, old_values, new_values, details
) values ('membership.updated', 'success', %s, 'user', %s, 'membership', %s, %s, 'web', %s, %s, %s)
"""
Conn = psycopg.Connection[Any]


def _work(conn: Conn, row: int, name: str, *, typical: bool) -> None:
    if typical:
        conn.execute(SELECTS[0], [row], prepare=True).fetchone()
        conn.execute(SELECTS[0], [ROWS - row], prepare=True).fetchone()
        conn.execute(SELECTS[2], [row, row], prepare=True).fetchall()
    conn.execute(UPDATE, [name, row], prepare=True)


def _plain(conn: Conn, row: int, name: str, typical: bool) -> None:
    with conn.transaction():
        _work(conn, row, name, typical=typical)


def _by_hand(conn: Conn, row: int, name: str, typical: bool) -> None:
    with conn.transaction():
        _work(conn, row, name, typical=typical)
        # The application knows the values before and after; only a statement is left to send.
        values = [
            "u_4711", str(row % 50), str(row), str(row),
            json.dumps({"name": "name", "quota": row}),
            json.dumps({"name": name, "quota": row + 1}),
            '{"ip": "203.0.113.9", "request_id": "7f3c2f1e-5a0b"}',
        ]  # fmt: skip
        conn.execute(INSERT_EVENT, values, prepare=True)


def _auditdb(conn: Conn, row: int, name: str, typical: bool) -> None:
    with auditdb.context(
        conn, actor_id="u_4711", details={"ip": "203.0.113.9", "request_id": "7f3c2f1e-5a0b"}
    ):
        _work(conn, row, name, typical=typical)


def _postgresql_audit(conn: Conn, row: int, name: str, typical: bool) -> None:
    with conn.transaction():
        conn.execute(POSTGRESQL_AUDIT_CONTEXT.encode(), prepare=True)
        _work(conn, row, name, typical=typical)


def _prefixed(prefix: str) -> Callable[[Conn, int, str, bool], None]:
    """Return the transaction of a Django package: its context goes before each statement.

    Django binds parameters on the client, so that both travel in one round trip.
    """
    settings = (
        f"select set_config('{prefix}.context_id', %s, true), "
        f"set_config('{prefix}.context_metadata', %s, true); "
    )

    def transaction(conn: Conn, row: int, name: str, typical: bool) -> None:
        with conn.transaction(), psycopg.ClientCursor(conn) as cursor:
            if typical:
                cursor.execute(SELECTS[0], [row]).fetchone()
                cursor.execute(SELECTS[0], [ROWS - row]).fetchone()
                cursor.execute(SELECTS[2], [row, row]).fetchall()
            query = (settings + UPDATE).encode()
            cursor.execute(query, [str(uuid.uuid4()), METADATA, name, row])

    return transaction


TRANSACTIONS: dict[str, Callable[[Conn, int, str, bool], None]] = {
    "plain": _plain,
    "by_hand": _by_hand,
    "auditdb": _auditdb,
    "postgresql_audit": _postgresql_audit,
    "auditrum": _prefixed("auditrum"),
    "pghistory": _prefixed("pghistory"),
}


def _client(pipe: Pipe, dsns: dict[str, str], number: int) -> None:
    """Serve one client's process: receive what to run, return the seconds of each transaction."""
    # Ctrl+C is for the parent, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    share = ROWS // max(CLIENTS)
    conns = {name: psycopg.connect(dsn, autocommit=True) for name, dsn in dsns.items()}
    kinds = {c.name: TRANSACTIONS[c.client] for c in AS_APPLICATION if c.client}
    for job in iter(pipe.recv, None):
        name, kind, count = job
        conn, transaction = conns[name], kinds[name]
        seconds = []
        for n in range(count):
            row = 1 + number * share + n % share
            started = time.perf_counter()
            transaction(conn, row, f"name {started}", kind == "typical")
            seconds.append(time.perf_counter() - started)
        pipe.send(seconds)
    for conn in conns.values():
        conn.close()


@contextlib.contextmanager
def _processes(dsns: dict[str, str]) -> Iterator[list[Pipe]]:
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for number in range(max(CLIENTS)):
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_client, args=(theirs, dsns, number))
        process.start()
        pipes.append(ours)
        processes.append(process)
    try:
        yield pipes
    finally:
        for pipe in pipes:
            pipe.send(None)
        for process in processes:
            process.join(timeout=10)


def run(dsns: dict[str, str], *, rounds: Iterable[int], transactions: int) -> dict[str, Any]:
    """Return latencies and throughput by kind, number of clients and contender.

    Args:
        dsns: address of each contender's database, by its name.
        rounds: their numbers, from 0, which warms up.
        transactions: of each client in each round.
    """
    seconds: dict[tuple[str, int, str], list[list[float]]] = defaultdict(list)
    contenders = [c for c in AS_APPLICATION if c.name in dsns]
    with _processes({c.name: dsns[c.name] for c in contenders}) as pipes:
        for round_number in rounds:
            first = round_number % len(contenders)
            for contender in contenders[first:] + contenders[:first]:
                for kind in KINDS:
                    for clients in CLIENTS:
                        for pipe in pipes[:clients]:
                            pipe.send((contender.name, kind, transactions // clients))
                        measured = [s for pipe in pipes[:clients] for s in pipe.recv()]
                        if round_number > 0:
                            seconds[kind, clients, contender.name].append(measured)
    return {
        f"{kind}, {clients} client{'s' if clients > 1 else ''}": _summarise(
            {c.name: seconds[kind, clients, c.name] for c in contenders}, clients
        )
        for kind in KINDS
        for clients in CLIENTS
    }


def _summarise(by_name: dict[str, list[list[float]]], clients: int) -> list[dict[str, Any]]:
    def added(name: str) -> float:
        """Return the median over rounds of what the median transaction takes longer, in us."""
        return 1e6 * statistics.median(
            statistics.median(mine) - statistics.median(none)
            for mine, none in zip(by_name[name], by_name["no audit"], strict=True)
        )

    rows = []
    for name, rounds in by_name.items():
        every = sorted(s for seconds in rounds for s in seconds)
        cuts = statistics.quantiles(every, n=100)
        rows.append(
            {
                "contender": name,
                "p50_us": round(cuts[49] * 1e6),
                "p95_us": round(cuts[94] * 1e6),
                "p99_us": round(cuts[98] * 1e6),
                "per_second": round(clients * len(every) / sum(every)),
                "added_us": round(added(name), 1),
                "times_by_hand": round(added(name) / added("by hand"), 2)
                if added("by hand") > 0
                else None,
            }
        )
    return rows
