"""The command that compares attached tables with their log."""

from __future__ import annotations

import json
from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from auditdb.cli.common import connection, print_json, print_lines
from auditdb.cli.progress import progress
from auditdb.values.plain import counted

if TYPE_CHECKING:
    from auditdb.reconcile.found import Difference, Reconciled


@click.command()
@click.argument("table", required=False)
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True,
              help="Show at most this many differences a table; all are counted.")  # fmt: skip
@click.pass_context
def reconcile(ctx: click.Context, table: str | None, json_: bool, limit: int) -> None:
    """Compare TABLE, or all attached tables, with the log; exit 1 for a difference.

    Replays the events of each row. Reports changes without an event, and events without their
    change. Writes nothing. Needs a login that holds audit_auditor and may read the tables. A table
    that it may not read is reported as a difference.
    """
    from auditdb.reconcile import reconcile as compare

    with connection(ctx) as conn, progress("rows") as advance:
        made = []
        for found in compare(conn, table, limit=limit, progress=advance):
            made.append(found)
            if not json_:
                print_lines(*lines(found))
    if json_:
        print_json(_plain([asdict(m) for m in made]))
    elif not made:
        print_lines("no table is attached")
    if any(m.found or m.skipped for m in made):
        raise click.exceptions.Exit(1)


def lines(made: Reconciled) -> list[str]:
    """Return the result for a table as lines."""
    if made.skipped:
        return [f"{made.table}: not compared: {made.skipped}"]
    head = (
        f"{made.table}: {counted(made.rows, 'row')} and {counted(made.events, 'event')}, "
        f"{counted(made.found, 'difference')}"
    )
    rest = made.found - len(made.differences)
    return [
        head,
        *(f"  {describe(d)}" for d in made.differences),
        *([f"  and {rest:,} more"] if rest else []),
        *(f"  note: {note}" for note in made.notes),
        *([f"  left out: {_columns(made.left_out)}"] if made.left_out else []),
    ]


def describe(d: Difference) -> str:
    """Return a difference as a sentence."""
    row = "rows" if d.row is None else f"row {d.row}"
    match d.kind:
        case "changed":
            return f"{row}: {d.column} is {_show(d.stored)}; event {d.event} says {_show(d.logged)}"
        case "undone":
            return f"{row}: {d.column} is {_show(d.stored)}, as before event {d.event}, which " \
                   f"says {_show(d.logged)}"  # fmt: skip
        case "between":
            where = f"event {d.event}" + (f", after event {d.since}," if d.since else "")
            if d.column is None:
                return f"{row}: {where} found {d.stored} where the log has {d.logged}"
            return f"{row}: {d.column} was {_show(d.stored)} to {where} where the log has " \
                   f"{_show(d.logged)}"  # fmt: skip
        case "unlogged" if d.row is None:
            return f"{counted(d.stored, 'row')} in the table without an event of the insert"
        case "unlogged":
            return f"{row}: no event says that it came"
        case "gone" if d.row is None:
            return f"{counted(d.logged, 'row')} gone from the table without an event of the delete"
        case "gone":
            return f"{row}: it is gone, and no event after {d.event} says so"
        case "back":
            return f"{row}: it is there, and event {d.event} says that it went"
        case _:
            return f"{row}: {d.stored:,} are there, and the log has {d.logged:,}"


def _show(value: Any) -> str:
    text = json.dumps(_plain(value), ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _columns(left_out: dict[str, str]) -> str:
    return ", ".join(f"{name} ({why})" for name, why in left_out.items())


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold; a number that a float cannot hold becomes text."""
    if isinstance(value, Decimal):
        return float(value) if Decimal(str(float(value))) == value else str(value)
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value
