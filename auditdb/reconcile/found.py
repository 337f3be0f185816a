"""The results of reconciling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["changed", "undone", "between", "unlogged", "gone", "back", "count"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A difference between a table and its log.

    Attributes:
        kind: `changed` (the row has another value than its last event), `undone` (it has the value
            from before that event), `between` (an event found another value, or a row, than the
            events before it left), `unlogged` (a row of which no event says that it came), `gone`
            (a row is gone, and no event says so), `back` (a row is there of which an event says
            that it went), `count` (of rows that cannot be told apart: there are more or fewer).
        row: the identifier of the row in events; None if there is none.
        column: the column of a value.
        logged: the value or number of rows according to the events.
        stored: the value in the table, or in the event that does not fit.
        event: the last event with the logged value; for `between`, the one that does not fit.
        since: for `between`, the event before it.
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
    """The comparison of a table with its log.

    Attributes:
        table: its name, as PostgreSQL writes it.
        rows: its number of rows.
        events: the number of events of them.
        differences: the first differences, up to the limit.
        found: the number of differences.
        left_out: columns that are not compared, with the reason: redacted, ignored, generated.
        notes: what could not be compared, and how often.
        skipped: why the table was not compared at all; None if it was.
    """

    table: str
    rows: int = 0
    events: int = 0
    differences: list[Difference] = field(default_factory=list)
    found: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: str | None = None
