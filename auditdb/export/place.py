"""Places in the order of events, and chunks of events between two of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Part:
    """How far a tick was taken: its number, time and id of the last event, and how many parts."""

    tick_id: int
    at: str
    id: int
    n: int

    def as_json(self) -> dict[str, Any]:
        """Return it as the database keeps it."""
        return {"tick": self.tick_id, "at": self.at, "id": self.id, "n": self.n}


@dataclass(frozen=True, slots=True)
class Place:
    """After a tick that was taken as a whole, and maybe a part of the one that follows."""

    tick_id: int
    part: Part | None = None

    @classmethod
    def of(cls, tick_id: int, part: dict[str, Any] | None) -> Place:
        """Return the place that the database keeps."""
        if part is None:
            return cls(tick_id)
        return cls(tick_id, Part(part["tick"], part["at"], part["id"], part["n"]))


class Row(NamedTuple):
    """An event as it was read: what filters look at, and its canonical bytes.

    These are empty where they are too many to be read.
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
    """What lies between two places, of one series.

    Attributes:
        series_id: the series of its ticks.
        series_key: what tells that series from those of other databases.
        first_tick: the first tick that it reaches into.
        end: the place behind it.
        rows: the events, in their order.
        is_full: whether there was more than it may hold.
    """

    series_id: int
    series_key: str
    first_tick: int
    end: Place
    rows: Sequence[Row]
    is_full: bool

    @property
    def name(self) -> str:
        """What a batch of it is called; names sort as the batches come."""
        last = self.end.part.tick_id if self.end.part else self.end.tick_id
        ticks = f"{self.first_tick:012d}-{last:012d}"
        part = f"-{self.end.part.n:06d}" if self.end.part else ""
        return f"{self.series_id:04d}-{self.series_key[:8]}/{ticks}{part}"
