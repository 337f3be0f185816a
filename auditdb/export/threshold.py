"""A threshold: selects the event that reaches a count within a time window.

The counts are saved with the place. They depend only on the events and their order, not on the
exporter. Their size is bounded.
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

# Maximum number of stored times, for all keys together.
_MOST = 20_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The count, the window in microseconds, and the column to count by."""

    at_least: int
    within: int
    per: Path | None = None


@dataclass(slots=True)
class _Counted:
    """The last times of one key, twice as many as the count, by arrival and sorted."""

    arrived: deque[int] = field(default_factory=deque)
    ordered: list[int] = field(default_factory=list)
    sent: int | None = None


class Counts:
    """The counts so far.

    Args:
        threshold: what is counted.
        kept: the saved result of `as_json`. Default: no counts.
    """

    def __init__(self, threshold: Threshold, kept: list[Any] | None = None) -> None:
        self._threshold = threshold
        # Keys are in the order of their last event.
        self._keys = OrderedDict(
            (key, _Counted(deque(times), sorted(times), sent)) for key, sent, times in kept or ()
        )
        self._size = sum(len(counted.arrived) for counted in self._keys.values())

    def as_json(self) -> list[Any]:
        """Return the counts in the form for the database."""
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
        """Return the digest of a value to count by: values may be long, or need erasure."""
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
        # Keep more times than needed: a late event must not push out the others.
        if len(counted.arrived) > 2 * self._threshold.at_least:
            oldest = counted.arrived.popleft()
            del counted.ordered[bisect_left(counted.ordered, oldest)]
            self._size -= 1
        return counted

    def _forget(self, at: int) -> None:
        """Delete keys whose times expired and, if there are too many, the longest inactive ones.

        The key that was just counted stays.
        """
        while len(self._keys) > 1:
            key = next(iter(self._keys))
            counted = self._keys[key]
            is_over = counted.ordered[-1] < at - 2 * self._threshold.within
            if not is_over and self._size <= _MOST:
                return
            self._size -= len(self._keys.pop(key).arrived)

    def _is_reached(self, ordered: list[int], at: int) -> bool:
        """Return whether enough times, including this one, lie in the window."""
        more = self._threshold.at_least - 1
        here = bisect_left(ordered, at)
        return any(
            ordered[first + more] - ordered[first] <= self._threshold.within
            for first in range(max(0, here - more), min(here, len(ordered) - 1 - more) + 1)
        )


def _microseconds(event: Values) -> int | None:
    """Return the time of an event, or None for a time that RFC 3339 cannot write."""
    _, at = place_of(event.row.line) if event.row.line else (None, None)
    if at is None:
        return None
    return (datetime.fromisoformat(at) - _EPOCH) // timedelta(microseconds=1)
