"""The result of the capture benchmark as text, JSON and a plot."""

from __future__ import annotations

import json
import statistics
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
    ("update", "In the server: UPDATE of one row, µs added"),
    ("insert_many", "In the server: INSERT of 5,000 rows at once, µs added"),
    ("typical, 1 client", "As an application sees it: three SELECTs, UPDATE, µs added"),
)


def summary(
    samples: dict[str, list[float]], factor: float = 1.0, *, added_to: str | None = None
) -> list[dict[str, Any]]:
    """Return a row for each way: median and least of its samples, times a factor.

    With `added_to`, also what they are beyond those of that way.
    """
    rows = []
    for name, of in samples.items():
        row: dict[str, Any] = {"": name}
        for what, statistic in (("median", statistics.median), ("least", min)):
            row[what] = round(statistic(of) * factor, 1)
            if added_to is not None:
                more = statistic(of) - statistic(samples[added_to])
                row[f"{what}, added"] = round(more * factor, 1)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]], columns: tuple[str, ...] = ()) -> str:
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


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    columns = [c for c in rows[0] if c != "waits"]
    lines = [columns, [":--" if isinstance(rows[0][c], str) else "--:" for c in columns]]
    lines += [[f"{r[c]:,}" if isinstance(r[c], int) else str(r[c]) for c in columns] for r in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def numbers(found: dict[str, float]) -> list[dict[str, Any]]:
    """Return numbers by what they are as rows."""
    return [{"": what, "measured": round(value, 2)} for what, value in found.items()]


def show(rows: list[dict[str, Any]], found: dict[str, float]) -> None:
    """Print rows, and numbers by what they are."""
    print(f"{table(rows)}\n\n{table(numbers(found))}")


def text(result: dict[str, Any], *, brief: bool = False) -> str:
    """Return every table of a result; brief, that of all shapes alone."""
    parts = []
    if result["shapes"]:
        parts.append(f"Times the floor, by shape\n{table(result['shapes'])}")
    if brief:
        return parts[0]
    parts += [
        f"{workload['title']} (microseconds and bytes for each row, beyond the change itself)\n"
        + table(workload["contenders"], _SERVER)
        for workload in result["in_server"].values()
    ]
    parts += [
        f"Of a new connection: {name.replace('_', ' ')}\n{table(rows)}"
        for name, rows in result["session"].items()
    ]
    parts += [
        f"{title} (microseconds for each transaction)\n{table(rows, _APPLICATION)}"
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
    (folder / "capture.svg").write_text(chart.bars(panels), "utf-8")
