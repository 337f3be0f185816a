"""Prints events: as a table for people, as JSON lines or CSV for machines."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from auditdb._query import Event
from auditdb._status import Status

RESULT_STYLE = {"success": "green", "failure": "yellow", "denied": "red"}


def plain(value: object) -> str:
    r"""Return text that is safe on a terminal: what a client sent may hold escape sequences.

    >>> plain("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value)
    )


def change(event: Event) -> str:
    """Return what an event changed, in words.

    A role change reads `MEMBER → ADMIN`, an update `name: old → new`.
    """
    details = event.details or {}
    if "new_role" in details:
        return f"{details.get('previous_role') or '-'} → {details.get('new_role') or '-'}"
    if event.old_values is not None and event.new_values is not None:
        old, new = event.old_values, event.new_values
        return ", ".join(f"{k}: {_short(old.get(k))} → {_short(v)}" for k, v in new.items())
    error = details.get("error")
    return str(
        details.get("reason") or (error.get("message", "") if isinstance(error, dict) else "")
    )


def _short(value: Any) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:39] + "…"


def who(event: Event) -> str:
    """Return the actor, as `admin as user` while impersonating."""
    if event.impersonator_id and event.impersonator_id != event.actor_id:
        return f"{event.impersonator_id} as {event.actor_id or '?'}"
    return event.actor_id or "-"


def print_table(console: Console, events: Iterable[Event], *, title: str | None = None) -> int:
    """Print events as a table and return how many there were."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in ("time", "action", "result", "actor", "about", "change", "source"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "time")
    count = 0
    for event in events:
        count += 1
        about = event.subject_id or " ".join(filter(None, (event.target_type, event.target_id)))
        table.add_row(
            f"{event.occurred_at.astimezone():%Y-%m-%d %H:%M:%S}",
            plain(event.action),
            Text(plain(event.result), style=RESULT_STYLE.get(event.result, "")),
            *(Text(plain(cell)) for cell in (who(event), about, change(event), event.source)),
        )
    if count:
        console.print(table)
    return count


def _fields(event: Event) -> dict[str, Any]:
    return dataclasses.asdict(event)


def print_jsonl(out: TextIO, events: Iterable[Event]) -> int:
    """Write one JSON object a line and return how many there were."""
    count = 0
    for event in events:
        count += 1
        out.write(json.dumps(_fields(event), default=_text, ensure_ascii=False) + "\n")
    return count


def print_csv(out: TextIO, events: Iterable[Event]) -> int:
    """Write CSV with a heading and return how many events there were."""
    writer = csv.writer(out)
    writer.writerow(field.name for field in dataclasses.fields(Event))
    count = 0
    for event in events:
        count += 1
        writer.writerow(
            json.dumps(value, default=_text, ensure_ascii=False)
            if isinstance(value, dict)
            else "" if value is None else _text(value)
            for value in _fields(event).values()
        )  # fmt: skip
    return count


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def console() -> Console:
    """Return the console; where output is no terminal, lines are not folded to its width."""
    probe = Console()
    return probe if probe.is_terminal else Console(width=200)


def print_status(status: Status) -> None:
    """Print what `auditdb status` found."""
    out = console()
    out.print(f"auditdb {status.version}\n")
    tables = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("table", "kind", "mapping", "attached", "problem"):
        tables.add_column(heading, overflow="fold")
    for table in status.tables:
        given = table.mapping.get("given", {})
        shown = {name: table.mapping[name] for name in MAPPED if name in table.mapping}
        tables.add_row(
            plain(table.target),
            table.kind,
            Text("\n".join(
                f"{name}: {_one_line(value)}{'' if name in given else ' (default)'}"
                for name, value in shown.items()
            )),
            f"{table.attached_at.astimezone():%Y-%m-%d %H:%M} by {plain(table.attached_by)}",
            Text(table.problem or "", style="red"),
        )  # fmt: skip
    out.print(tables if status.tables else "no table is attached: auditdb detect proposes some")
    out.print()
    months = Table(box=None, pad_edge=False, header_style="bold")
    months.add_column("partition")
    months.add_column("events", justify="right")
    months.add_column("size", justify="right")
    for month in status.partitions:
        count = f"{'~' if month.is_estimate else ''}{month.events:,}"
        months.add_row(month.name, count, f"{month.bytes / 1024:,.0f} kB")
    out.print(months)
    out.print()
    for role in status.roles:
        out.print(Text(f"{role.role_name}: {', '.join(map(plain, role.members)) or '-'}"))


def _one_line(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, list) else str(value)
    return plain(" ".join(text.split()))


# What a mapping says of a row, in the order in which people ask.
MAPPED = (
    "organization", "target_id", "subject", "role", "alive", "admin", "parent", "ignore", "redact",
)  # fmt: skip
