"""What every sink is: it takes a delivery as a whole, or says what came in the way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

# Of PostgreSQL in UTC; infinity, years before Christ and of five digits have no way in RFC 3339.
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ T]([0-9:]{8}(?:[.][0-9]{1,6})?)(?:[+]00|Z)")


class Line(NamedTuple):
    """One event as it goes out.

    Attributes:
        key: tells it from every other event, and a repeat of it: series and id.
        moment: when it occurred, as PostgreSQL says it in UTC.
        data: its bytes in the format of the subscription, without an end of line.
    """

    key: str
    moment: str | None
    data: bytes

    @property
    def at(self) -> str | None:
        """When it occurred, in RFC 3339, if that has a way to say it."""
        found = _TIME.fullmatch(self.moment or "")
        return f"{found[1]}T{found[2]}Z" if found else None


@dataclass(slots=True)
class Progress:
    """What became of the parts of a delivery, while the rest has to be tried again.

    Attributes:
        taken: names of parts that the sink took.
        refused: what it said of those that it does not take.
    """

    taken: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A batch of events as it goes out, the same again whenever it is repeated.

    Attributes:
        subscription: the name of the subscription.
        name: its series and ticks; names sort in the order of the events.
        lines: the events.
        media_type: of one line.
        suffix: of a file that holds it, such as "jsonl".
        head: what a file begins with, such as the heading of CSV.
        progress: of the tries before; nothing of it is sent twice that a sink takes apart.
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
        """What tells a receiver that it got the same delivery before."""
        return f"{self.subscription}-{self.name.replace('/', '-')}"

    @property
    def body(self) -> bytes:
        """All lines, each with its end."""
        return self.head + b"".join([line.data + b"\n" for line in self.lines])

    def halves(self) -> tuple[Delivery, Delivery]:
        """Return it as two, whose names are the same whenever it is cut."""
        middle = len(self.lines) // 2
        return (
            replace(self, lines=self.lines[:middle], name=f"{self.name}-a"),
            replace(self, lines=self.lines[middle:], name=f"{self.name}-b"),
        )


class Sink(Protocol):
    """Takes deliveries, one after the other."""

    async def put(self, delivery: Delivery) -> None:
        """Deliver; when it returns, the other side has all of it.

        Raises:
            Retry: it is worth trying again.
            Rejected: it is not, until a person has mended something.
            Poison: the other side does not take these very bytes.
        """

    async def close(self) -> None:
        """Let go of connections."""


class SinkError(Exception):
    """Base of what comes in the way of a delivery; its text is one line, without secrets."""


class Retry(SinkError):
    """Something that passes: a timeout, a full disk, a busy server."""

    def __init__(self, problem: str, after: float | None = None) -> None:
        super().__init__(problem)
        self.after = after


class Rejected(SinkError):
    """Something that a person has to mend: a credential, an address, a right."""


class Poison(SinkError):
    """Something in these bytes that the other side refuses."""
