"""The manifest beside the Parquet file of a month; docs/archive.md explains each key."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg

from auditdb.errors import AuditError
from auditdb.evidence.tree import HASH, Edge

VERSION = 1
# The ticks whose events a month may hold.
_TICKS = """
select t.series_id, m.tick_id, m.events, m.first_id, m.last_id
from audit.tick_month as m join audit.tick as t on t.id = m.tick_id
where m.month = %s order by m.tick_id"""
_SERIES = "select s.id, s.key::text, s.began, s.after_id from audit.series as s order by s.id"
_HEAD = """
select audit.version(), to_char(now() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""


def root_of(
    conn: psycopg.Connection[Any], month: str, most: int | None = None
) -> tuple[str, int, int]:
    """Return the root of the sealed leaves of a month, their number, and the last leaf + 1.

    Args:
        conn: a connection of an auditor.
        month: its first day.
        most: only the first so many leaves.
    """
    edge, end, last = Edge(), 0, 0
    query = """select s.id, s.first_leaf, cardinality(s.ids), s.leaves from audit.seal as s
        where s.month = %s and s.id > %s order by s.id limit 1"""
    while row := conn.execute(query, [month, last]).fetchone():
        last, first, events, leaves = row
        events = events if most is None else min(events, most - edge.size)
        if not events:
            break
        end = max(end, first + len(leaves) // HASH)
        for _ in edge.append(bytes(leaves)[: events * HASH]):
            pass
    root = edge.root() if edge.size else sha256().digest()
    return root.hex(), edge.size, end


def manifest_of(
    conn: psycopg.Connection[Any], month: str, row: dict[str, Any], erasures: list[int]
) -> dict[str, Any]:
    """Return the manifest of a month.

    Args:
        conn: a connection of an auditor.
        month: its first day.
        row: of audit.archive.
        erasures: ids of those that took something of events in the file.
    """
    series: dict[int, dict[str, Any]] = {}
    for number, key, began, after in conn.execute(_SERIES).fetchall():
        series[number] = {"key": key, "began": began, "after_id": after, "ticks": []}
    for number, *tick in conn.execute(_TICKS, [month]).fetchall():
        series[number]["ticks"].append(tick)
    root, sealed, end = root_of(conn, month)
    note = conn.execute(
        "select note from audit.checkpoint where size >= %s order by size desc, id desc limit 1",
        [end],
    ).fetchone()
    is_sealed = bool(row["is_sealed"]) and sealed == row["events"]
    version, now = conn.execute(_HEAD).fetchone() or ("", "")
    return {
        "version": VERSION,
        "database": row["database"],
        "month": month[:7],
        "events": row["events"],
        "bytes": row["bytes"],
        "sha256": row["sha256"],
        "digest": row["digest"],
        "sealed": is_sealed,
        "root": root if is_sealed else None,
        "checkpoint": note[0] if is_sealed and note else None,
        "series": list(series.values()),
        "erasures": erasures,
        "schema_version": version,
        "written_at": now,
    }


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest to a file."""
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest from a file.

    Raises:
        AuditError: the file is not a manifest, or is from a later release.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version = found["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AuditError("the manifest is none of an archived month") from error
    if version != VERSION:
        raise AuditError(f"the manifest is of version {version}, and this release reads {VERSION}")
    return dict(found)


def differences(
    conn: psycopg.Connection[Any], found: dict[str, Any], row: dict[str, Any], erasures: list[int]
) -> list[str]:
    """Return the keys of a manifest that differ from the database or from the Parquet file.

    Args:
        conn: a connection of an auditor.
        found: the manifest.
        row: of audit.archive.
        erasures: ids of those that took something of events in the file.
    """
    made = manifest_of(conn, row["month"], row, erasures)
    made["sealed"] = bool(row["is_sealed"])
    # Events that arrived late were sealed and signed after the manifest.
    made["root"] = root_of(conn, row["month"], row["events"])[0] if made["sealed"] else None
    notes = conn.execute("select note from audit.checkpoint").fetchall() if made["sealed"] else []
    made["checkpoint"] = next((note for (note,) in notes if note == found.get("checkpoint")), None)
    if made["sealed"] and made["checkpoint"] is None:
        made["checkpoint"] = "one of audit.checkpoint"
    if _is_part(found.get("series"), made["series"], row["events"] if made["sealed"] else None):
        made["series"] = found["series"]
    for name in ("schema_version", "written_at"):
        del made[name]
    nothing = object()
    return [name for name, value in made.items() if found.get(name, nothing) != value]


def _is_part(found: Any, series: list[dict[str, Any]], events: int | None) -> bool:
    """Return whether the database has these series and ticks, with at least as many events."""
    try:
        known = {one["key"]: (one["began"], one["after_id"]) for one in series}
        ticks = {(one["key"], *tick) for one in series for tick in one["ticks"]}
        told = [(one["key"], *tick) for one in found for tick in one["ticks"]]
        return (
            all(known.get(one["key"]) == (one["began"], one["after_id"]) for one in found)
            and ticks.issuperset(told)
            and len(set(told)) == len(told)
            and (events is None or sum(tick[2] for tick in told) == events)
        )
    except (TypeError, KeyError, IndexError):
        return False
