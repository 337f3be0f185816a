"""The result of the capture benchmark as text, JSON and a plot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import chart

LEVELS = ("shapes", "session", "in_server", "as_application")
_SERVER = ("contender", "added_us_median", "added_us_min", "times_floor_median",
           "wal_bytes", "wal_bytes_with_change", "log_bytes")  # fmt: skip
_APPLICATION = ("contender", "p50_us", "p95_us", "p99_us", "per_second", "added_us",
                "times_by_hand")  # fmt: skip
# What the plot shows of each level: in the server by minimum, which a busy machine moves least.
_PLOTTED = (
    ("update", "In the server: UPDATE of one row"),
    ("insert_many", "In the server: INSERT of 5,000 rows at once"),
    ("typical, 1 client", "As an application sees it: three SELECTs, UPDATE"),
)


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...] = ()) -> str:
    columns = columns or tuple(rows[0])
    cells = [list(columns)] + [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def text(result: dict[str, Any], *, brief: bool = False) -> str:
    """Return every table of a result; brief, that of all shapes alone."""
    parts = []
    if result["shapes"]:
        parts.append(f"Times the floor, by shape\n{_table(result['shapes'])}")
    if brief:
        return parts[0]
    parts += [
        f"{workload['title']} (microseconds and bytes for each row, beyond the change itself)\n"
        + _table(workload["contenders"], _SERVER)
        for workload in result["in_server"].values()
    ]
    parts += [
        f"Of a new connection: {name.replace('_', ' ')}\n{_table(rows)}"
        for name, rows in result["session"].items()
    ]
    parts += [
        f"{title} (microseconds for each transaction)\n{_table(rows, _APPLICATION)}"
        for title, rows in result["as_application"].items()
    ]
    return "\n\n".join(parts)


def comparison(result: dict[str, Any], shown: tuple[str, ...] = ()) -> str:
    """Return the tables of docs/compare.md: times auditdb, and bytes, of some contenders or all."""
    work = result["in_server"]
    rows = {name: {row["contender"]: row for row in w["contenders"]} for name, w in work.items()}
    names = [name for name in next(iter(rows.values())) if name not in ("no audit", "floor")]
    ratios = [["times auditdb", *(w["title"].removesuffix(", plain key") for w in work.values())]]
    single = [name for name in work if name in ("update", "insert", "delete")]
    sizes = [["bytes a row", *(name.upper() for name in single)]]
    for name in shown or names:
        of = [rows[w][name] for w in work]
        ratios.append(
            [name, *(f"{r['times_auditdb_median']} ({r['times_auditdb_min']})" for r in of)]
        )
        of = [rows[w][name] for w in single]
        sizes.append([name, *(f"{r['wal_bytes']}, {r['log_bytes']}" for r in of)])
    return "\n\n".join(map(_markdown, (ratios, sizes)))


def _markdown(lines: list[list[str]]) -> str:
    rule = ["---", *("---:" for _ in lines[0][1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def write(result: dict[str, Any], folder: Path, name: str) -> None:
    """Write the JSON, and of the capture a plot; what was not measured keeps its old numbers."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        for level in LEVELS:
            result[level] = result[level] or before.get(level, {})
    path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    if name != "capture":
        return
    panels = []
    for key, title in _PLOTTED:
        workload = result["in_server"].get(key, {})
        rows = workload.get("contenders") or result["as_application"].get(key)
        bars = [
            (row["contender"], float(row.get("added_us_min", row.get("added_us"))))
            for row in rows or []
            if row["contender"] not in ("no audit", "auditdb without context")
        ]
        if bars:
            panels.append((title, bars))
    (folder / "capture.svg").write_text(chart.bars(panels, unit="µs"), "utf-8")
