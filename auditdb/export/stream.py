"""The state of a subscription while an exporter serves it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from auditdb.export.canonical import key_of
from auditdb.export.conditions import Values
from auditdb.export.formats import FORMATS
from auditdb.export.place import Chunk, Place, Row
from auditdb.export.sinks.base import Delivery, Line, Progress, Sink
from auditdb.export.sinks.open import options_of, pause_of
from auditdb.export.state import Claim, Subscription
from auditdb.export.threshold import Counts


@dataclass(slots=True, kw_only=True)
class Batch:
    """A delivery in progress."""

    pending: dict[str, Any]
    delivery: Delivery
    rows: dict[str, Row]
    unencoded: list[tuple[Row, str]]
    is_full: bool

    @property
    def end(self) -> Place:
        """The place after it."""
        return Place.of(self.pending["tick_id"], self.pending["part"])


@dataclass(slots=True)
class Stream:
    """One subscription while an exporter serves it.

    Attributes:
        subscription: its last row in the database, with the saved place.
        place: the current place; it may be later than the saved one, because places without
            matching events are not saved each time.
        sink: its sink.
        failures: number of failures in a row.
        ready_at: the monotonic time before which it is not served.
        task: the delivery in progress.
        is_stale: whether its row in the database may have changed.
        given_up: why it is no longer served.
        counts: the counts of its threshold up to its place, if it has one.
        progress: the parts of the current batch that the sink has accepted.
    """

    subscription: Subscription
    place: Place
    sink: Sink
    failures: int = 0
    ready_at: float = 0.0
    task: asyncio.Task[None] | None = None
    is_stale: bool = False
    given_up: str | None = None
    delivered: int = 0
    batches: int = 0
    rows: list[Row] = field(default_factory=list)
    counts: Counts | None = None
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        """Continue from the saved counts."""
        self.count_from(self.subscription.counts)

    @property
    def name(self) -> str:
        """Of the subscription."""
        return self.subscription.name

    @property
    def every(self) -> float:
        """Seconds between two deliveries, unless it is behind."""
        return pause_of(self.subscription.sink, options_of(self.subscription.options))

    def count_from(self, kept: list[Any] | None) -> None:
        """Accept the counts up to its place."""
        threshold = self.subscription.filter.threshold
        self.counts = Counts(threshold, kept) if threshold else None

    def wants(self, event: Values) -> bool:
        """Return whether an event is for it; must be called once for each event, in order."""
        return self.subscription.filter.passes(event) and (
            self.counts is None or self.counts.reaches(event)
        )

    def claim(self, chunk: Chunk) -> Claim:
        """Return the batch for it from the rows of a chunk; it is claimed before delivery."""
        self.progress = Progress()
        pending = {
            "after": _place(self.place), "tick_id": chunk.end.tick_id,
            "part": chunk.end.part.as_json() if chunk.end.part else None,
            "name": chunk.name, "series": chunk.series_key, "events": len(self.rows),
        }  # fmt: skip
        if self.counts is not None:
            pending["chosen"] = [row.id for row in self.rows]
            pending["counts"] = self.counts.as_json()
        return Claim(self.subscription, pending)

    def batch(self, pending: dict[str, Any], rows: Iterable[Row], *, is_full: bool) -> Batch:
        """Return the delivery for a claimed batch; a repetition gives the same bytes."""
        form = FORMATS[self.subscription.format]
        lines, of_line, unencoded = [], {}, []
        series = pending["series"]
        for row in rows:
            if not row.line:
                unencoded.append((row, "is longer than 256 MB as a line"))
                continue
            try:
                key = key_of(series, row.id)
                line = Line(key, row.at, form.convert(row.line))
            except Exception as error:  # A bad event must not stop the others.
                problem = f"cannot be written as {self.subscription.format}: {error}"
                unencoded.append((row, " ".join(problem.split())))
                continue
            lines.append(line)
            of_line[key] = row
        delivery = Delivery(
            subscription=self.name, name=pending["name"], lines=lines, head=form.head,
            media_type=form.media_type, suffix=form.suffix, progress=self.progress)  # fmt: skip
        return Batch(pending=pending, delivery=delivery, rows=of_line, unencoded=unencoded,
                     is_full=is_full)  # fmt: skip

    def again(self, pending: dict[str, Any], rows: Iterable[Row]) -> list[Row]:
        """Return the rows that belong to a claimed batch."""
        if "chosen" in pending:
            chosen = set(pending["chosen"])
            return [row for row in rows if row.id in chosen]
        passes = self.subscription.filter.passes
        return [row for row in rows if passes(Values(row))]


def _place(place: Place) -> dict[str, Any]:
    return {"tick_id": place.tick_id, "part": place.part.as_json() if place.part else None}


def distribute(rows: Iterable[Row], streams: Sequence[Stream]) -> None:
    """Assign each event to the streams that want it."""
    of_all: list[Stream] = []
    of_one: defaultdict[str | None, list[Stream]] = defaultdict(list)
    for stream in streams:
        stream.rows = []
        organization = stream.subscription.filter.organization_id
        (of_all if organization is None else of_one[organization]).append(stream)
    for row in rows:
        event = Values(row)
        for stream in (*of_all, *of_one.get(row.organization_id, ())):
            if stream.wants(event):
                stream.rows.append(row)
