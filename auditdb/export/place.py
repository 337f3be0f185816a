"""Places in the order of events, and chunks of events between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Part:
    """A position inside a tick: its number, time and id of the last event, number of parts."""

    tick_id: int
    at: str
    id: int
    n: int

    def as_json(self) -> dict[str, Any]:
        """Return it in the form for the database."""
        return {"tick": self.tick_id, "at": self.at, "id": self.id, "n": self.n}


@dataclass(frozen=True, slots=True)
class Place:
    """A position after a whole tick, and perhaps after a part of the next one."""

    tick_id: int
    part: Part | None = None

    @classmethod
    def of(cls, tick_id: int, part: dict[str, Any] | None) -> Place:
        """Return the place from its form in the database."""
        if part is None:
            return cls(tick_id)
        return cls(tick_id, Part(part["tick"], part["at"], part["id"], part["n"]))


class Row(NamedTuple):
    """An event: the columns for filters, and its canonical bytes.

    The bytes are empty if they are too long to be read.
    """

    tick_id: int
    id: int
    at: str
    organization_id: str | None
    action: str
    result: str
    line: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """The events between two places of one series.

    Attributes:
        series_id: the series of its ticks.
        series_key: the key of that series, unique across databases.
        first_tick: the first tick that it contains events of.
        end: the place after it.
        rows: the events, in order.
        is_full: whether it reached its size limit.
    """

    series_id: int
    series_key: str
    first_tick: int
    end: Place
    rows: Sequence[Row]
    is_full: bool

    @property
    def name(self) -> str:
        """The name of a batch of it. Names sort in the order of the batches."""
        last = self.end.part.tick_id if self.end.part else self.end.tick_id
        ticks = f"{self.first_tick:012d}-{last:012d}"
        part = f"-{self.end.part.n:06d}" if self.end.part else ""
        return f"{self.series_id:04d}-{self.series_key[:8]}/{ticks}{part}"
