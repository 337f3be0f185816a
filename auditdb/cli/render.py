"""Output for people: events as a table, and the status."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from auditdb.cli.hold import describe_hold, describe_visible
from auditdb.export.subscription import SubscriptionStatus
from auditdb.operate.status import Status
from auditdb.read.event import Event
from auditdb.read.summary import actor_of, change, origin_of
from auditdb.values.plain import counted, plain

# Number of events that determine the width of the columns.
_CHUNK = 500
RESULT_STYLE = {"success": "green", "failure": "yellow", "denied": "red"}


def print_table(console: Console, events: Iterable[Event], *, title: str | None = None) -> int:
    """Print events as a table and return how many there were.

    On a narrow terminal, less important columns are shortened or omitted. The first events
    determine the width of the columns, so that they are printed before more events are read.
    """
    is_medium = console.width < 120
    headings = ["time", "action", "result", "actor", "about", "change"]
    headings += [] if is_medium else ["source", "how"]
    rows = (_row(console.width, event) for event in events)
    widths: list[int] | None = None
    count = 0
    while chunk := list(islice(rows, _CHUNK)):
        if widths is None:
            table = _table(*headings)
            table.title, table.title_justify = title and Text(title), "left"
            widths = _widths(table, chunk, console.width)
            _print_rows(console, table, widths, chunk)
        else:
            _print_more(console, headings, widths, chunk)
        count += len(chunk)
    return count


def _print_rows(
    console: Console, table: Table, widths: list[int], rows: Iterable[list[Text]]
) -> None:
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _print_more(
    console: Console, headings: list[str], widths: list[int], rows: list[list[Text]]
) -> None:
    """Print more rows with the same widths, as plain lines, which is much faster."""
    for row in rows:
        sized = list(zip(row, widths, strict=True))
        if not console.is_terminal and all(cell.cell_len <= width for cell, width in sized):
            line = "  ".join(cell.plain + " " * (width - cell.cell_len) for cell, width in sized)
            console.file.write(f"{line}\n")
            continue
        table = _table(*headings)
        table.show_header = False
        for column in table.columns:
            column.no_wrap = False
        _print_rows(console, table, widths, [row])


def _row(width: int, event: Event) -> list[Text]:
    is_narrow, is_medium = width < 100, width < 120
    about = event.subject_id or " ".join(filter(None, (event.target_type, event.target_id)))
    people = [plain(actor_of(event)), plain(about)]
    time = f"{event.occurred_at.astimezone():%Y-%m-%d %H:%M:%S}"
    ways = [] if is_medium else [Text(plain(event.source)), Text(origin_of(event))]
    return [
        Text(time[5:16] if is_narrow else time),
        Text(plain(event.action)),
        Text(plain(event.result), style=RESULT_STYLE.get(event.result, "")),
        *(Text(_middle_out(name) if width < 140 else name) for name in people),
        Text(plain(change(event))),
        *ways,
    ]


def _widths(table: Table, rows: list[list[Text]], room: int) -> list[int]:
    """Return the width of each column; shrink the widest column that may be folded."""
    widths = [
        max(cell_len(str(column.header)), *(cell.cell_len for cell in cells))
        for column, cells in zip(table.columns, zip(*rows, strict=True), strict=True)
    ]
    folded = [n for n, column in enumerate(table.columns) if not column.no_wrap]
    over = sum(widths) + 2 * (len(widths) - 1) - room
    while over > 0 and max(widths[n] for n in folded) > 1:
        widths[max(folded, key=widths.__getitem__)] -= 1
        over -= 1
    return widths


def _middle_out(name: str) -> str:
    """Return a long name without its middle, because UUIDs may differ only at the end."""
    return name if len(name) <= 17 else f"{name[:8]}…{name[-8:]}"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        whole = heading in ("time", "action", "result", "how")
        table.add_column(Text(heading), overflow="fold", no_wrap=whole)
    return table


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave a closed pipe to the caller; rich would exit with 1."""
        raise


def console() -> Console:
    """Return the console. If output is not a terminal, lines are not folded.

    Its text is never interpreted as markup.
    """
    width = None if Console().is_terminal else 200
    return _Console(width=width, markup=False, emoji=False, highlight=False)


def print_status(status: Status) -> None:
    """Print what `auditdb status` found."""
    out = console()
    out.print(f"auditdb {plain(status.version)}\n")
    if status.tables:
        out.print(_attached(status))
    else:
        out.print("no table is attached; auditdb detect proposes tables")
    out.print()
    months = Table(box=None, pad_edge=False, header_style="bold")
    months.add_column("partition")
    months.add_column("events", justify="right")
    months.add_column("size", justify="right")
    for month in status.partitions:
        count = f"{'~' if month.is_estimate else ''}{month.events:,}"
        months.add_row(*map(Text, (plain(month.name), count, f"{month.bytes / 1024:,.0f} kB")))
    out.print(months)
    out.print()
    if status.subscriptions:
        out.print(subscriptions_table(status.subscriptions))
        out.print()
    for role in status.roles:
        out.print(Text(f"{plain(role.role_name)}: {', '.join(map(plain, role.members)) or '-'}"))
    for limit in status.limits:
        login = plain(limit.login)
        out.print(
            Text(f"{login} records at most {counted(limit.per_minute, 'event')} a minute by calls")
        )
    for line in [*map(describe_hold, status.holds), *map(describe_visible, status.visible[:20])]:
        out.print(Text(line))
    if (more := len(status.visible) - 20) > 0:
        out.print(Text(f"and {counted(more, 'more organisation')}: auditdb visible"))
    if status.context:
        settings = ", ".join(map(plain, status.context))
        out.print(Text(f"without a context, the actor is read from {settings}"))


def _attached(status: Status) -> Table:
    tables = _table("table", "kind", "mapping", "attached", "problem")
    for table in status.tables:
        given = table.mapping.get("given", {})
        mapped = [
            f"{name}: {_one_line(table.mapping[name])}{'' if name in given else ' (default)'}"
            for name in MAPPED
            if name in table.mapping
        ]
        attached = f"{table.attached_at.astimezone():%Y-%m-%d %H:%M} by {plain(table.attached_by)}"
        tables.add_row(
            Text(plain(table.target)),
            Text(plain(table.kind)),
            Text("\n".join(mapped)),
            Text(attached),
            Text(plain(table.problem or ""), style="red"),
        )
    return tables


def subscriptions_table(found: Iterable[SubscriptionStatus]) -> Table:
    """Return the subscriptions with progress and problems."""
    table = _table("subscription", "sink", "state", "delivered", "behind", "problem")
    for one in found:
        behind = (
            f"{counted(one.lag_events, 'event')}, {one.lag_seconds:,.0f} s"
            if one.lag_events
            else "-"
        )
        problems = [
            one.problem or "",
            f"{counted(one.set_aside, 'event')} set aside" if one.set_aside else "",
            f"up to {counted(one.missed, 'event')} missed" if one.missed else "",
        ]
        cells = (one.state, f"{one.delivered:,}", behind, "; ".join(filter(None, problems)))
        table.add_row(
            Text(plain(one.name)),
            Text("\n".join(map(plain, [f"{one.sink} ({one.format})", *_rule(one)]))),
            *(Text(plain(cell)) for cell in cells),
        )
    return table


def _rule(one: SubscriptionStatus) -> list[str]:
    """Return the conditions of a subscription, and its threshold."""
    threshold = f"at least {one.at_least} within {one.within}" if one.at_least else ""
    return [*(one.conditions or ()), *filter(None, [threshold, one.per and f"per {one.per}"])]


def _one_line(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return plain(" ".join(text.split()))


# Options of a mapping that are shown, the most important ones first.
MAPPED = (
    "organization", "target_id", "subject", "role", "alive", "admin", "parent", "ignore", "redact",
)  # fmt: skip
