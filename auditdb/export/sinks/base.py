"""The base of all sinks: a sink accepts a whole delivery or raises an error."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

# Times of PostgreSQL in UTC. RFC 3339 cannot write infinity, years BC, and years over 9999.
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ T]([0-9:]{8}(?:[.][0-9]{1,6})?)(?:[+]00|Z)")


class Line(NamedTuple):
    """An event for delivery.

    Attributes:
        key: its unique key, series and id; the same in a repetition.
        moment: its time, as PostgreSQL writes it in UTC.
        data: its bytes in the format of the subscription, without a line end.
    """

    key: str
    moment: str | None
    data: bytes

    @property
    def at(self) -> str | None:
        """Its time in RFC 3339, or None if RFC 3339 cannot write it."""
        found = _TIME.fullmatch(self.moment or "")
        return f"{found[1]}T{found[2]}Z" if found else None


@dataclass(slots=True)
class Progress:
    """The progress of a delivery whose other parts need a retry.

    Attributes:
        taken: names of the parts that the sink accepted.
        refused: the error of each part that the sink refused.
    """

    taken: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A batch of events for delivery. A repetition has the same bytes.

    Attributes:
        subscription: the name of the subscription.
        name: its series and ticks; names sort in the order of the events.
        lines: the events.
        media_type: media type of a line.
        suffix: suffix of its file, such as "jsonl".
        head: the first line of its file, such as the header of CSV.
        progress: of earlier attempts. A sink that splits deliveries does not repeat accepted parts.
    """

    subscription: str
    name: str
    lines: Sequence[Line]
    media_type: str = "application/x-ndjson"
    suffix: str = "jsonl"
    head: bytes = b""
    progress: Progress | None = field(default=None, compare=False, repr=False)

    @property
    def id(self) -> str:
        """The id by which a receiver recognises a repeated delivery."""
        return f"{self.subscription}-{self.name.replace('/', '-')}"

    @property
    def body(self) -> bytes:
        """All lines, with line ends."""
        return self.head + b"".join([line.data + b"\n" for line in self.lines])

    def halves(self) -> tuple[Delivery, Delivery]:
        """Split it into two; the names are the same each time."""
        middle = len(self.lines) // 2
        return (
            replace(self, lines=self.lines[:middle], name=f"{self.name}-a"),
            replace(self, lines=self.lines[middle:], name=f"{self.name}-b"),
        )


class Sink(Protocol):
    """Accepts deliveries, one after the other."""

    async def put(self, delivery: Delivery) -> None:
        """Deliver. When this returns, the receiver has everything.

        Raises:
            Retry: a retry may succeed.
            Rejected: a retry fails until an operator fixes something.
            Poison: the receiver refuses these bytes.
        """

    async def close(self) -> None:
        """Close connections."""


class SinkError(Exception):
    """Base of the errors of a delivery. Its text is one line, without secrets."""


class Retry(SinkError):
    """A temporary problem: a timeout, a full disk, a busy server."""

    def __init__(self, problem: str, after: float | None = None) -> None:
        super().__init__(problem)
        self.after = after


class Rejected(SinkError):
    """A problem for an operator: a credential, an address, a right."""


class Poison(SinkError):
    """The receiver refuses these bytes."""
