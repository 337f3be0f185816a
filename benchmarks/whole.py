"""Measures exports of the whole log by `auditdb log`, beside what a plain COPY of the table costs.

Part of `python -m benchmarks.read`; `--only export` measures nothing else.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

# A process of its own, whose largest child is the command: of its own children a process knows the
# largest alone.
_CHILD = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss)
"""
_COPY = """
import psycopg, sys
with psycopg.connect(sys.argv[1]) as conn:
    with conn.cursor().copy("copy (select * from audit.event) to stdout") as rows:
        for row in rows:
            pass
"""


def exports(target: str, key: str, rounds: Iterable[int]) -> dict[str, dict[str, Any]]:
    """Return what exports cost, in turn, of the whole log and of the largest organisation."""
    with psycopg.connect(target) as conn:
        counted = conn.execute(
            "select count(*), count(*) filter (where organization_id = '1') from audit.event"
        ).fetchone()
    assert counted is not None
    log = [sys.executable, "-m", "auditdb", "--dsn", target, "log"]
    commands = {"copy, all": ([sys.executable, "-c", _COPY, target], counted[0])}
    for form in ("jsonl", "csv"):
        commands[f"{form}, auditor"] = (
            [*log, "--auditor", "--all", "--format", form], counted[0]
        )  # fmt: skip
        commands[f"{form}, viewer"] = (
            [*log, "--viewer-id=1", "--organization-id=1", "--all", "--format",
             form], counted[1]
        )  # fmt: skip
    limit = min(10_000, counted[0])
    commands["table, auditor"] = (
        [*log, "--auditor", "--limit", str(limit)], limit
    )  # fmt: skip
    costs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    for _ in rounds:
        for name, (command, _) in commands.items():
            costs[name].append(cost_of(command, key))
    return {
        name: {
            "events": events,
            "per_second": round(events / statistics.median(c[0] for c in costs[name])),
            "per_second_best": round(events / min(c[0] for c in costs[name])),
            "client_cpu_us": round(1e6 * min(c[1] for c in costs[name]) / events, 2),
            "rss_mb": round(max(c[2] for c in costs[name])),
        }
        for name, (_, events) in commands.items()
    }


def cost_of(command: list[str], key: str = "") -> tuple[float, float, float]:
    """Return seconds, seconds of processor time of the client, and its megabytes."""
    environment = {**os.environ, "AUDITDB_KEY": key, "PYTHONPATH": str(Path.cwd())}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        subprocess.run(
            [sys.executable, "-c", _CHILD, *command], env=environment, check=True, stdout=out
        )
        seconds = time.perf_counter() - started
        out.seek(0)
        size = int(out.read())
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, size / 1024


def report_exports(found: dict[str, dict[str, Any]]) -> None:
    """Print what each export cost."""
    for name, cost in found.items():
        print(
            f"  {name:16} {cost['events']:10,} events {cost['per_second']:9,} a second, at best "
            f"{cost['per_second_best']:9,}; client {cost['client_cpu_us']:6.2f} us an event, "
            f"{cost['rss_mb']} MB"
        )
