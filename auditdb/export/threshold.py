"""A threshold: of many events the one with which there are so many within a time.

What it counted is kept with the place up to where it was taken, and is the same whoever counts:
it depends on the events and their order alone. Its size has a bound, whatever the events are.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from auditdb.export.canonical import place_of
from auditdb.export.conditions import Path, Values

# Times that are remembered at the most, of all keys together.
_MOST = 20_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """How many events within how many microseconds, and for each value of what."""

    at_least: int
    within: int
    per: Path | None = None


@dataclass(slots=True)
class _Counted:
    """Of one key: the last times, twice as many as it takes, as they came and in order."""

    arrived: deque[int] = field(default_factory=deque)
    ordered: list[int] = field(default_factory=list)
    sent: int | None = None


class Counts:
    """What was counted so far.

    Args:
        threshold: what is counted.
        kept: as `as_json` returned it; by default nothing was.
    """

    def __init__(self, threshold: Threshold, kept: list[Any] | None = None) -> None:
        self._threshold = threshold
        # The key that was counted last is the last.
        self._keys = OrderedDict(
            (key, _Counted(deque(times), sorted(times), sent)) for key, sent, times in kept or ()
        )
        self._size = sum(len(counted.arrived) for counted in self._keys.values())

    def as_json(self) -> list[Any]:
        """Return it as the database keeps it."""
        return [[key, c.sent, list(c.arrived)] for key, c in self._keys.items()]

    def reaches(self, event: Values) -> bool:
        """Count an event, and return whether it is the one to be sent."""
        at = _microseconds(event)
        if at is None:
            return False
        counted = self._count(self._key(event), at)
        self._forget(at)
        within = self._threshold.within
        is_said = counted.sent is not None and abs(at - counted.sent) < within
        if is_said or not self._is_reached(counted.ordered, at):
            return False
        counted.sent = at
        return True

    def _key(self, event: Values) -> str:
        """Return what is counted apart: a digest, for values are long, or to be erased."""
        if self._threshold.per is None:
            return ""
        texts = sorted(event.texts(self._threshold.per) or ())
        return sha256("\0".join(texts).encode(errors="surrogatepass")).hexdigest()[:16]

    def _count(self, key: str, at: int) -> _Counted:
        counted = self._keys.pop(key, None) or _Counted()
        self._keys[key] = counted
        counted.arrived.append(at)
        insort(counted.ordered, at)
        self._size += 1
        # More than it takes: an event that comes late must not hide the others.
        if len(counted.arrived) > 2 * self._threshold.at_least:
            oldest = counted.arrived.popleft()
            del counted.ordered[bisect_left(counted.ordered, oldest)]
            self._size -= 1
        return counted

    def _forget(self, at: int) -> None:
        """Forget keys that count no more, and those that were quiet longest where there are many.

        The last one stays, which was counted just now.
        """
        while len(self._keys) > 1:
            key = next(iter(self._keys))
            counted = self._keys[key]
            is_over = counted.ordered[-1] < at - 2 * self._threshold.within
            if not is_over and self._size <= _MOST:
                return
            self._size -= len(self._keys.pop(key).arrived)

    def _is_reached(self, ordered: list[int], at: int) -> bool:
        """Return whether enough times, this one among them, lie within the time."""
        more = self._threshold.at_least - 1
        here = bisect_left(ordered, at)
        return any(
            ordered[first + more] - ordered[first] <= self._threshold.within
            for first in range(max(0, here - more), min(here, len(ordered) - 1 - more) + 1)
        )


def _microseconds(event: Values) -> int | None:
    """Return when an event occurred; nothing of a time that is in no calendar."""
    _, at = place_of(event.row.line) if event.row.line else (None, None)
    if at is None:
        return None
    return (datetime.fromisoformat(at) - _EPOCH) // timedelta(microseconds=1)
