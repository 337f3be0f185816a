"""Measures ticks and the export: reading a tick, what writers pay, events a second, the lag.

python -m benchmarks.export                     # an embedded server; 3 million events, ten minutes
python -m benchmarks.export --only ticks --millions 20
python -m benchmarks.export --only writers      # or throughput, lag, subscriptions
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

from auditdb.export.serve import Exporter
from auditdb.export.sinks.base import Delivery, Sink
from benchmarks import read
from benchmarks.capture import address
from benchmarks.report import numbers, table
from tests.server import default_bin

PARTS = ("ticks", "throughput", "writers", "lag", "subscriptions")
WRITERS, EACH = 8, 75
RECORD = (
    "select audit.record_event('membership.role_changed', '7', target_type => 'membership', "
    "target_id => 'm-4711', subject_id => 'user-11', details => '{\"ip\": \"192.0.2.7\", "
    '"request_id": "7f3c2f1e-5a0b", "user_agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/126.0", '
    '"previous_role": "MEMBER", "new_role": "ADMIN"}\')'
)
# Of one tick: what tick_parts() says is read as audit.events_since does.
PART = (
    "select audit_private.part_events(condition, events) "
    "from audit_private.tick_parts(audit_private.place_cursor(%s, null), 1)"
)


def write(dsn: str, events: int) -> None:
    """Write events, a transaction each."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for _ in range(events):
            conn.execute(RECORD.encode())


def write_together(dsn: str) -> None:
    """Write the events of a tick, from several connections at once."""
    threads = [
        threading.Thread(target=write, args=(dsn, EACH), daemon=True) for _ in range(WRITERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def make_tick(conn: psycopg.Connection[Any]) -> tuple[int, float]:
    """Make a tick; return its number and the seconds."""
    started = time.perf_counter()
    ((number,),) = conn.execute("select audit.make_tick()").fetchall()
    return int(number or 0), time.perf_counter() - started


def buffers(plan: dict[str, Any]) -> int:
    """Return how many buffers a plan looked at."""
    return int(plan.get("Shared Hit Blocks", 0) + plan.get("Shared Read Blocks", 0))


def ticks(target: str, rounds: Iterable[int]) -> dict[str, float]:
    """Return what the first tick of a log takes, what others take, and to read one."""
    took: list[float] = []
    plans: list[dict[str, Any]] = []
    with psycopg.connect(target, autocommit=True) as conn:
        conn.execute("set jit = off")
        _, first = make_tick(conn)
        for _ in rounds:
            write_together(target)
            number, seconds = make_tick(conn)
            took.append(seconds)
            for _ in range(2):
                # What says how it is read holds for the transaction.
                with conn.transaction():
                    ((source,),) = conn.execute(PART.encode(), [number - 1]).fetchall()
                    query = (
                        f"explain (analyze, buffers, format json) select e.* from {source} "
                        "order by e.occurred_at, e.id limit 1000"
                    )
                    ((plan,),) = conn.execute(query.encode()).fetchall()
            assert plan[0]["Plan"]["Actual Rows"] == WRITERS * EACH, plan
            plans.append(plan[0])
    return {
        "first tick, s": first,
        "a tick of 600 events, ms": statistics.median(took) * 1000,
        "reading it, ms": statistics.median(p["Execution Time"] for p in plans),
        "reading it, ms, at most": max(p["Execution Time"] for p in plans),
        "planning it, ms": statistics.median(p["Planning Time"] for p in plans),
        "buffers": statistics.median(buffers(p["Plan"]) for p in plans),
        "buffers, at most": max(buffers(p["Plan"]) for p in plans),
    }


# A process of its own, whose largest child is the command.
_CHILD = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss, used.ru_utime + used.ru_stime)
"""


def command(target: str, *args: str) -> list[str]:
    """Return the command line of the export."""
    return [sys.executable, "-m", "auditdb", "--dsn", target, *args]


def on_cpu(pid: int) -> int:
    """Return the nanoseconds for which a process ran."""
    return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[0])


def watch(target: str, ended: threading.Event, cost: dict[int, int]) -> None:
    """Note what the connections of an exporter take of the server's processor, until it ended."""
    with psycopg.connect(target, autocommit=True) as conn:
        while not ended.wait(0.2):
            for (pid,) in conn.execute(
                "select pid from pg_stat_activity where application_name = 'auditdb export'"
            ):
                with suppress(OSError):
                    cost[pid] = on_cpu(pid)


def throughput(target: str) -> dict[str, float]:
    """Return events a second to files of all that there is, processor time, and memory.

    Client and server work beside each other: with a processor each, the slower says how fast it is.
    """
    server: dict[int, int] = {}
    ended = threading.Event()
    watcher = threading.Thread(target=watch, args=(target, ended, server), daemon=True)
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(target, autocommit=True) as conn:
        make_tick(conn)
        ((events,),) = conn.execute("select count(*) from audit.event").fetchall()
        watcher.start()
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _CHILD,
             *command(target, "export", "bench", "--to", Path(folder).as_uri())],
            check=True, stdout=subprocess.PIPE, text=True)  # fmt: skip
        seconds = time.perf_counter() - started
        ended.set()
        watcher.join()
        conn.execute("select audit.drop_subscription('bench')")
    kilobytes, client = map(float, done.stdout.split())
    return {"events": events, "events a second": events / seconds,
            "client's processor, us an event": client / events * 1e6,
            "server's processor, us an event": sum(server.values()) / events / 1000,
            "memory, MB": kilobytes / 1024}  # fmt: skip


@contextmanager
def exporting(target: str, sink: str, **given: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run an exporter that follows, and end it."""
    with psycopg.connect(target, autocommit=True) as conn:
        # Else what was written before would be among the first that it gives out.
        make_tick(conn)
        conn.execute("select audit.subscribe('bench', %s, options => %s, from_now => true)",
                     [sink, Jsonb(given)])  # fmt: skip
    process = subprocess.Popen(
        command(target, "export", "bench", "--follow"), stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        with psycopg.connect(target) as conn:
            conn.execute("select audit.drop_subscription('bench')")


def writers(target: str, rounds: Iterable[int], events: int = 4000) -> dict[str, float]:
    """Return what a writer's connection pays while an exporter follows and makes ticks."""
    with (
        tempfile.TemporaryDirectory() as folder,
        exporting(target, Path(folder).as_uri(), every=0) as process,
    ):
        return beside(target, process, rounds, events)


def beside(
    target: str, process: subprocess.Popen[bytes], rounds: Iterable[int], events: int = 4000
) -> dict[str, float]:
    """Return what a writer's connection pays while a process is at work.

    In turn, with the process at work and stopped: nanoseconds of the writer's connection on the
    processor, which another process on the same machine does not add to.
    """
    cost: dict[bool, list[float]] = {True: [], False: []}
    with psycopg.connect(target, autocommit=True) as conn:
        time.sleep(3)
        for number in rounds:
            for is_on in (True, False) if number % 2 == 0 else (False, True):
                process.send_signal(signal.SIGCONT if is_on else signal.SIGSTOP)
                before = on_cpu(conn.info.backend_pid)
                for _ in range(events):
                    conn.execute(RECORD.encode())
                if number > 0:
                    took = on_cpu(conn.info.backend_pid) - before
                    cost[is_on].append(took / events / 1000)
        ((made,),) = conn.execute("select count(*) from audit.tick").fetchall()
    process.send_signal(signal.SIGCONT)
    pairs = [on / off for on, off in zip(cost[True], cost[False], strict=True)]
    return {
        "alone, us an event": statistics.median(cost[False]),
        "beside it, us an event": statistics.median(cost[True]),
        "more, percent, median of pairs": (statistics.median(pairs) - 1) * 100,
        "more, percent, least of each": (min(cost[True]) / min(cost[False]) - 1) * 100,
        "pairs": len(pairs), "ticks": made,
    }  # fmt: skip


def write_fast(target: str, seconds: int) -> float:
    """Write from eight connections as fast as they can; return the events a second."""
    known = conninfo_to_dict(target)
    environment = {**os.environ, **{
        variable: str(known[name]) for variable, name in (
            ("PGHOST", "host"), ("PGPORT", "port"), ("PGUSER", "user"), ("PGDATABASE", "dbname"))
        if name in known
    }}  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(f"{RECORD};\n")
        script.flush()
        done = subprocess.run(
            [default_bin() / "pgbench", "-n", "-c", str(WRITERS), "-T", str(seconds), "-f",
             script.name], env=environment, check=True, capture_output=True, text=True)  # fmt: skip
    rate = re.search(r"tps = ([\d.]+)", done.stdout)
    assert rate is not None, done.stdout
    return float(rate[1])


def lag(target: str, seconds: int) -> dict[str, float]:
    """Return how old events are when they leave an exporter, while eight write at full speed."""
    ages: list[float] = []
    with exporting(target, "-") as process:
        time.sleep(3)

        def listen() -> None:
            assert process.stdout is not None
            for number, line in enumerate(process.stdout):
                if number % 20 == 0 and b'"membership.role_changed"' in line:
                    at = datetime.fromisoformat(json.loads(line)["occurred_at"])
                    ages.append(time.time() - at.timestamp())

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        rate = write_fast(target, seconds)
        time.sleep(5)
    assert len(ages) > 100
    ages.sort()
    return {"written a second": rate, "seen": len(ages) * 20,
            "p50, s": ages[len(ages) // 2], "p99, s": ages[len(ages) * 99 // 100],
            "most, s": ages[-1]}  # fmt: skip


class Counter(Sink):
    """Takes all, and counts it."""

    taken = 0

    async def put(self, delivery: Delivery) -> None:
        """Count."""
        Counter.taken += len(delivery.lines)

    async def close(self) -> None:
        """Do nothing."""


def reads_of(conn: psycopg.Connection[Any]) -> int:
    """Return how often ticks were read by exporters, as far as the server counted it."""
    conn.execute("select pg_stat_clear_snapshot()")
    ((calls,),) = conn.execute(
        "select coalesce(sum(calls), 0) from pg_stat_user_functions where funcname = 'read_batch'"
    ).fetchall()
    return int(calls)


def subscriptions(target: str, events: int = 20_000) -> dict[str, float]:
    """Return what it takes to serve one subscription of all, and thousands of organisations."""
    found: dict[str, float] = {}
    organizations = read.ORGANIZATIONS
    counting = make_conninfo(target, options="-c track_functions=pl")
    with psycopg.connect(target, autocommit=True) as conn:
        make_tick(conn)
        for many in (1, 2000):
            conn.execute(
                "select audit.subscribe('s' || n, '-', organization_id => case when %s > 1 then "
                "(1 + (n - 1) %% %s)::text end, from_now => true) from generate_series(1, %s) as n",
                [many, organizations, many])  # fmt: skip
            for _ in range(10):
                conn.execute(
                    "select audit.record_event('auth.login', (1 + n %% %s)::text) "
                    "from generate_series(1, %s) as n", [organizations, events // 10])  # fmt: skip
                make_tick(conn)
            Counter.taken, before_reads = 0, reads_of(conn)
            exporter = Exporter(counting, lambda _: Counter(), names=None, follow=False)
            started, before = time.perf_counter(), time.process_time()
            asyncio.run(exporter.run())
            found[f"{many} subscriptions: s"] = time.perf_counter() - started
            found[f"{many} subscriptions: s of the processor"] = time.process_time() - before
            found[f"{many} subscriptions: deliveries of events"] = Counter.taken
            found[f"{many} subscriptions: reads"] = reads_of(conn) - before_reads
            conn.execute("select audit.drop_subscription(name) from audit.list_subscriptions()")
    return found


def report(name: str, found: dict[str, float]) -> None:
    """Print what was found."""
    print(f"\n{name}\n{table(numbers(found))}", flush=True)


def main() -> None:
    """Fill a log, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--dsn", help="a server that is up, as its superuser")
    parser.add_argument("--log", help="instead: a database whose log is filled")
    given: Any = parser.parse_args()
    with ExitStack() as stack:
        target = given.log
        if target is None:
            dsn = stack.enter_context(address(given.dsn))
            filled = read.filled(make_conninfo(dsn), int(given.millions * 1e6))
            target, _ = stack.enter_context(filled)
        if "ticks" in given.only:
            report("ticks", ticks(target, range(given.rounds)))
        if "throughput" in given.only:
            report("to files", throughput(target))
        if "writers" in given.only:
            report("writers", writers(target, range(given.rounds + 1)))
        if "lag" in given.only:
            report("lag", lag(target, given.seconds))
        if "subscriptions" in given.only:
            report("subscriptions", subscriptions(target))


if __name__ == "__main__":
    main()
