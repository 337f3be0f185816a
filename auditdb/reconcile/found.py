"""What reconciling found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["changed", "undone", "between", "unlogged", "gone", "back", "count"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where a table and its log do not say the same.

    Attributes:
        kind: `changed` (the row has another value than its last event), `undone` (it has the value
            from before that event), `between` (an event found another value, or a row, than the
            events before it left), `unlogged` (a row of which no event says that it came), `gone`
            (a row is gone, and no event says so), `back` (a row is there of which an event says
            that it went), `count` (of rows that cannot be told apart: there are more or fewer).
        row: the identifier that events have of the row; nothing where none tells it.
        column: the column, of a value.
        logged: what the events say: a value, or how many rows.
        stored: what the table says, or the event that does not fit.
        event: the last event that says what is logged; of `between`, the one that does not fit.
        since: of `between`, the event before.
    """

    kind: Kind
    row: str | None
    column: str | None = None
    logged: Any = None
    stored: Any = None
    event: int | None = None
    since: int | None = None


@dataclass(kw_only=True)
class Reconciled:
    """A table beside its log.

    Attributes:
        table: its name, as PostgreSQL writes it.
        rows: how many it has.
        events: how many events tell of them.
        differences: the first of those that were found, at most as many as were asked for.
        found: how many there are.
        left_out: columns that are not compared, and why: redacted, ignored, generated.
        notes: what could not be compared, and how often.
        skipped: why the table was not compared at all; nothing if it was.
    """

    table: str
    rows: int = 0
    events: int = 0
    differences: list[Difference] = field(default_factory=list)
    found: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: str | None = None
