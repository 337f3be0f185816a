"""Runs the workloads in the server: interleaved rounds over all contenders."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.contenders import Contender
from benchmarks.workloads import Workload

TABLES = "member, wide, seat, account, task, ticket"


@dataclass
class Samples:
    """What was measured of one contender in one workload: a value for each round, by row.

    Attributes:
        micros: that passed, by the clock.
        cpu: microseconds that its backend ran; another process of a busy machine adds little.
    """

    micros: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    wal_bytes: list[float] = field(default_factory=list)
    log_bytes: float = 0.0

    def of(self, statistic: str) -> float:
        """Return the microseconds for each row, by "median", "min", "cpu_median" or "cpu_min"."""
        values = self.cpu if statistic.startswith("cpu") else self.micros
        return min(values) if statistic.endswith("min") else statistics.median(values)


_LOG_SIZE = """
select coalesce(sum(pg_total_relation_size(leaf.relid)), 0)
from unnest(%s::regclass[]) as root, pg_partition_tree(root) as leaf
"""
_LOG_SIZE_PLAIN = """
select coalesce(sum(pg_total_relation_size(t)), 0)
from unnest(%s::regclass[]) as t join pg_class as c on c.oid = t where c.relkind = 'r'
    and not c.relispartition
"""
_LOG_SIZE_OUTSIDE = """
select coalesce(sum(pg_total_relation_size(c.oid)), 0)
from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname !~ '^(public$|information_schema$|pg_)'
"""


def _log_size(conn: psycopg.Connection[Any], contender: Contender) -> float:
    if not contender.log:
        row = conn.execute(_LOG_SIZE_OUTSIDE).fetchone()
        assert row is not None
        return float(row[0])
    total = 0.0
    for query in (_LOG_SIZE, _LOG_SIZE_PLAIN):
        row = conn.execute(query, [list(contender.log)]).fetchone()
        assert row is not None
        total += float(row[0])
    return total


def wal_position(conn: psycopg.Connection[Any]) -> int:
    """Return the bytes of write-ahead log that the server has written so far."""
    row = conn.execute("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(row[0])


def _ran(conn: psycopg.Connection[Any]) -> float:
    """Return the microseconds that a backend ran so far; 0 where that cannot be known."""
    try:
        return int(Path(f"/proc/{conn.info.backend_pid}/schedstat").read_text().split()[0]) / 1000
    except OSError:
        return 0.0


def _measure(
    conn: psycopg.Connection[Any],
    contender: Contender,
    workload: Workload,
    samples: Samples,
    round_number: int,
) -> None:
    conn.execute(f"vacuum {TABLES}".encode())
    block = workload.block(
        round_number=round_number, context=contender.context, floor=contender.floor
    )
    size, wal = _log_size(conn, contender), wal_position(conn)
    before = _ran(conn)
    conn.execute(block.encode())
    ran = _ran(conn) - before
    wal = wal_position(conn) - wal
    row = conn.execute("select current_setting('bench.elapsed')::float8").fetchone()
    assert row is not None
    if round_number > 0:
        samples.micros.append(row[0] * 1e6 / workload.rows)
        samples.cpu.append(ran / workload.rows)
        samples.wal_bytes.append(wal / workload.rows)
        samples.log_bytes = (_log_size(conn, contender) - size) / workload.rows


def run(
    contenders: list[Contender],
    dsns: dict[str, str],
    work: Sequence[Workload],
    *,
    rounds: Iterable[int],
) -> dict[str, dict[str, Samples]]:
    """Return the samples by workload and contender; the first round warms up and does not count.

    Args:
        contenders: who is measured.
        dsns: address of each contender's database, by its name.
        work: what is measured, in this order.
        rounds: their numbers, from 0.
    """
    results: dict[str, dict[str, Samples]] = defaultdict(lambda: defaultdict(Samples))
    conns = {c.name: psycopg.connect(dsns[c.name], autocommit=True) for c in contenders}
    try:
        for round_number in rounds:
            # Each round starts with another contender, so that none always follows the same one.
            first = round_number % len(contenders)
            order = contenders[first:] + contenders[:first]
            for workload in work:
                for contender in order:
                    if contender.shapes or workload.table in ("member", "wide"):
                        samples = results[workload.name][contender.name]
                        _measure(conns[contender.name], contender, workload, samples, round_number)
    finally:
        for conn in conns.values():
            conn.close()
    return {name: dict(by_contender) for name, by_contender in results.items()}


def summarise(samples: dict[str, Samples]) -> list[dict[str, Any]]:
    """Return one row for each contender: what it adds to the change itself, and the ratios."""
    base = samples["no audit"]
    # By minimum: a full page after a checkpoint belongs to no row.
    base_wal = min(base.wal_bytes)

    def added(name: str, statistic: str) -> float:
        return samples[name].of(statistic) - base.of(statistic)

    return [
        {
            "contender": name,
            "added_us_median": round(added(name, "median"), 2),
            "added_us_min": round(added(name, "min"), 2),
            "times_floor_median": _ratio(added(name, "median"), added("floor", "median")),
            "times_floor_min": _ratio(added(name, "min"), added("floor", "min")),
            "cpu_us_median": round(added(name, "cpu_median"), 2),
            "cpu_us_min": round(added(name, "cpu_min"), 2),
            "times_auditdb_median": _ratio(
                added(name, "cpu_median"), added("auditdb", "cpu_median")
            ),
            "times_auditdb_min": _ratio(added(name, "cpu_min"), added("auditdb", "cpu_min")),
            "wal_bytes": round(min(s.wal_bytes) - base_wal),
            "wal_bytes_with_change": round(min(s.wal_bytes)),
            "log_bytes": round(s.log_bytes),
            "total_us_median": round(s.of("median"), 2),
        }
        for name, s in samples.items()
    ]


def by_shape(work: Sequence[Workload], results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each operation and shape: times the floor, auditdb and the plain trigger."""
    rows = []
    for workload in work:
        if workload.shape:
            of = {row["contender"]: row for row in results[workload.name]["contenders"]}
            rows.append(
                {"operation": workload.op.upper(), "shape": workload.shape}
                | {
                    f"{name}, {statistic}": of[name][f"times_floor_{statistic}"]
                    for name in ("auditdb", "jsonb trigger")
                    for statistic in ("median", "min")
                }
                | {
                    "floor_us": of["floor"]["added_us_min"],
                    "auditdb_us": of["auditdb"]["added_us_min"],
                    "trigger_us": of["jsonb trigger"]["added_us_min"],
                    "wal_bytes": of["auditdb"]["wal_bytes"],
                }
            )
    return rows


def _ratio(value: float, base: float) -> float | None:
    return round(value / base, 2) if base > 0 else None
