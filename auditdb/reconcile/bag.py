"""Compares rows without a key: counts equal rows, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from auditdb.reconcile.compare import Comparison, Row, Tally
from auditdb.reconcile.found import Difference
from auditdb.reconcile.replay import Event
from auditdb.reconcile.told import Told
from auditdb.reconcile.values import canonical, is_withheld

# Number of rows in memory at a time: about 100 MB.
MOST = 500_000


class Vague(Exception):
    """The images of events cannot be compared with rows, because the columns differ."""


def compare_counts(
    comparison: Comparison, rows: Iterable[Row], events: Iterable[Event], told: Told
) -> tuple[int, int]:
    """Compare only the number of rows; return the numbers of rows and events."""
    tally, n, seen = Tally(), 0, 0
    ends = {id_ for id_, source in told.truncated if not told.is_partitioned or source == told.name}
    after = max(ends, default=0)
    for event in events:
        seen += 1
        if event.id > after:
            tally.count(event)
    for _ in rows:
        n += 1
    comparison.counted(tally, n, None, None)
    return n, seen


def compare_images(
    comparison: Comparison,
    rows: Callable[[], Iterable[Row]],
    events: Callable[[], Iterable[Event]],
    told: Told,
) -> tuple[int, int]:
    """Compare the number of rows of each image; return the numbers of rows and events.

    Raises:
        Vague: an event has other columns than the table.
    """
    columns = [c for c in told.columns.values() if c.left_out is None]
    after = max((id_ for id_, _ in told.truncated), default=0)

    def key(image: dict[str, Any] | None) -> bytes:
        if image is None or any(c.name not in image for c in columns):
            raise Vague
        shown = tuple(
            "[redacted]" if is_withheld(image[c.name]) else canonical(image[c.name], c.base)
            for c in columns
        )
        return hashlib.blake2b(repr(shown).encode(), digest_size=12).digest()

    n = sum(1 for _ in rows())
    passes = n // MOST + 1
    for part in range(passes):
        tallies, seen = dict[bytes, Tally](), 0
        for event in events():
            seen += 1
            if event.id <= after:
                continue
            if event.lost or event.is_erased or (event.old is event.new is None):
                raise Vague
            for image, sign in ((event.old, -1), (event.new, 1)):
                if image is not None and (digest := key(image))[0] % passes == part:
                    tally = tallies.setdefault(digest, Tally())
                    tally.add(sign, is_baseline=event.is_baseline)
        stored = dict[bytes, int]()
        for _, image, _ in rows():
            if (digest := key(image))[0] % passes == part:
                stored[digest] = stored.get(digest, 0) + 1
        more = less = 0
        for digest in tallies.keys() | stored.keys():
            tally, there = tallies.get(digest, Tally()), stored.get(digest, 0)
            less += max(tally.rows - there, 0)
            if told.has_births:
                more += max(there - max(tally.rows, 0) - tally.slack, 0)
        if less:
            comparison.add(Difference(kind="gone", row=None, logged=less, stored=0))
        if more:
            comparison.add(Difference(kind="unlogged", row=None, logged=0, stored=more))
    return n, seen
