"""Compares the rows of a table with the events of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import groupby
from typing import Any

from auditdb.reconcile.found import Difference, Reconciled
from auditdb.reconcile.replay import Event, Known, Replay, State
from auditdb.reconcile.told import Told
from auditdb.reconcile.values import Spelling, canonical, is_withheld, parse

Row = tuple[str | None, dict[str, Any] | None, list[str]]
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNCLEAR = {
    "aged": "values of columns that were added, ignored or of another type when they were logged",
    "unborn": "rows that were there before the log: auditdb attach --baseline records such",
    "untold": "values that no event tells of, since the column or the key of the row got its "
    "name later",
    "degraded": "rows with an event that lost their values",
    "withheld": "values that hold a secret and are shown in part",
    "unnamed": "rows or events whose identifier is a secret, or was lost",
    "left": "rows that went with a partition, or left it under another name",
    "explained": "rows that differ, and no more than events that lost the identifier of their row",
    "unread": "times whose zone was logged by an abbreviation, in the DateStyle of a session",
    "uncounted": "rows that do not count, whose coming or going is no event",
}


class Comparison:
    """Compares one table, and keeps its differences."""

    def __init__(self, told: Told, spelling: Spelling, made: Reconciled, limit: int) -> None:
        """Prepare the comparison of a table; keep at most so many differences."""
        self._told = told
        self._spelling = spelling
        self._made = made
        self._limit = limit
        self._replay = Replay(told, spelling)
        self.unclear = Counter[str]()
        self._gone_digests = list[Difference]()
        #: Rows whose identifier is a secret, and events that lost theirs.
        self._nameless = [0, 0]
        self._differing = 0
        self._latest: str | None = ""

    def run(
        self,
        rows: Iterable[Row],
        events: Iterable[tuple[str | None, Event]],
        progress: Callable[[int, str], object] | None = None,
    ) -> None:
        """Compare two streams that are sorted by identifier."""

        def tell(stream: Iterable[Row]) -> Iterator[Row]:
            for row in stream:
                self._made.rows += 1
                if progress and self._made.rows % 1000 == 0:
                    progress(1000, self._told.name)
                yield row

        def count(stream: Iterable[tuple[str | None, Event]]) -> Iterator[tuple[str, Event]]:
            for identifier, event in stream:
                self._made.events += event.moved != "out"
                yield identifier or "", event

        there = groupby(tell(rows), key=lambda row: row[0] or "")
        logged = groupby(count(events), key=lambda pair: pair[0])
        row, log = next(there, None), next(logged, None)
        while row or log:
            name = min(n for n in (row and row[0], log and log[0]) if n is not None)
            present = list(row[1]) if row and row[0] == name else []
            said = (e for _, e in log[1]) if log and log[0] == name else iter(())
            if not name:
                self._nameless[0] += len(present)
                self._nameless[1] += sum(1 for _ in said)
            elif self._told.is_unique:
                self._one(name, present[0] if present else None, self._replay.replay(said))
            else:
                self._several(name, present, said)
            row = next(there, None) if row and row[0] == name else row
            log = next(logged, None) if log and log[0] == name else log
        self._finish()

    def _finish(self) -> None:
        """Drop differences that unknown identifiers may explain."""
        self.unclear["unnamed"] += sum(self._nameless)
        self.unclear["unread"] += self._spelling.unread
        for difference in self._gone_digests:
            if len(self._gone_digests) > self._nameless[0]:
                self.add(difference)
        if 0 < self._differing <= self._nameless[1]:
            # Their changes are unknown, and may explain all differences.
            self.unclear["explained"] = self._differing
            self._made.found, self._made.differences = 0, []
        self._made.notes += [
            f"{n:,} {_UNCLEAR[why]}" for why, n in sorted(self.unclear.items()) if n
        ]

    def add(self, difference: Difference) -> None:
        """Keep a difference."""
        self._made.found += 1
        self._differing += difference.row != self._latest
        self._latest = difference.row
        if len(self._made.differences) < self._limit:
            self._made.differences.append(difference)

    def _one(self, name: str, row: Row | None, state: State) -> None:
        for broken in state.broken:
            self.add(Difference(
                kind="between", row=name, column=broken.column, logged=broken.said,
                stored=broken.found, event=broken.event.id, since=broken.since))  # fmt: skip
        last = state.last and state.last.id
        if row is None:
            if state.exists and not (state.is_unborn and state.last is None):
                self._report_missing(name, state)
        elif state.last is None:
            if self._told.has_births:
                self.add(Difference(kind="unlogged", row=name))
            else:
                self.unclear["unborn"] += 1
        elif state.exists is False:
            if self._told.may_begin_untold or self._told.may_be_handed_off:
                self.unclear["uncounted"] += 1
            else:
                self.add(Difference(kind="back", row=name, event=last))
        else:
            self.unclear["unborn"] += state.is_unborn
            self._values(name, row, state)

    def _report_missing(self, name: str, state: State) -> None:
        assert state.last is not None
        difference = Difference(kind="gone", row=name, event=state.last.id)
        if self._told.is_partitioned and (
            state.may_be_gone or state.source not in self._told.present
        ):
            self.unclear["left"] += 1
        elif self._told.may_end_untold:
            self.unclear["uncounted"] += 1
        elif _DIGEST.fullmatch(name):
            self._gone_digests.append(difference)
        else:
            self.add(difference)

    def _values(self, name: str, row: Row, state: State) -> None:
        _, image, lost = row
        if image is None or state.is_degraded:
            self.unclear["degraded"] += 1
        for column, stored in (image or {}).items():
            told = self._told.columns.get(column)
            if told is None or told.left_out in ("ignored", "generated") or column in lost:
                continue
            known = state.columns.get(column)
            if known is None:
                self.unclear["untold"] += not (state.is_unborn or state.is_degraded)
            elif difference := self._differs(name, column, stored, known):
                self.add(difference)

    def _differs(self, name: str, column: str, stored: Any, known: Known) -> Difference | None:
        told = self._told.columns[column]
        key = canonical(stored, told.base)
        if key in known.values:
            return None
        for logged in known.values.values():
            if (is_withheld(stored) or is_withheld(logged)) and None not in (stored, logged):
                self.unclear["withheld"] += told.left_out != "redacted"
                return None
            if self._spelling.same(logged, stored, told.base):
                return None
        if self._replay.is_unclear(column, known) or (told.may_be_new and stored is None):
            self.unclear["aged"] += 1
            return None
        return Difference(
            kind="undone" if key in known.before else "changed", row=name, column=column,
            logged=next(iter(known.values.values())), stored=stored, event=known.event.id,
        )  # fmt: skip

    def _several(self, name: str, rows: list[Row], events: Iterator[Event]) -> None:
        """Compare rows that share an identifier: their number, and unknown values."""
        said: dict[str, set[Hashable]] = {}
        tally = Tally()
        last = None
        for last in self._standing(events):
            tally.count(last)
            for image in (last.old, last.new):
                for column, value in (image or {}).items():
                    if told := self._told.columns.get(column):
                        said.setdefault(column, set()).add(canonical(value, told.base))
        if last is None and not self._told.has_births:
            self.unclear["unborn"] += len(rows)
            return
        self.counted(tally, len(rows), name, last and last.id)
        for _, image, lost in rows:
            for column, stored in (image or {}).items():
                told = self._told.columns.get(column)
                if (
                    tally.is_whole and told and not told.left_out and column not in lost
                    and column in said and not is_withheld(stored) and not told.since_id
                    and told.since_time == float("-inf")
                    and canonical(stored, told.base) not in said[column]
                    and self._told.has_births
                ):  # fmt: skip
                    self.add(Difference(kind="changed", row=name, column=column, stored=stored,
                                        event=last and last.id))  # fmt: skip

    def _standing(self, events: Iterator[Event]) -> Iterator[Event]:
        """Yield events without a later TRUNCATE."""
        ends = [id_ for id_, source in self._told.truncated
                if not self._told.is_partitioned or source == self._told.name]  # fmt: skip
        after = max(ends, default=0)
        return (event for event in events if event.id > after)

    def counted(self, tally: Tally, n: int, name: str | None, event: int | None) -> None:
        """Compare the number of rows with that in the log."""
        if tally.is_vague or self._told.may_begin_untold or self._told.may_end_untold:
            return
        most = tally.rows + tally.slack if self._told.has_births else float("inf")
        if not tally.rows <= n <= most:
            self.add(Difference(kind="count", row=name, logged=tally.rows, stored=n, event=event))


class Tally:
    """The number of rows according to events."""

    def __init__(self) -> None:
        """Begin with none."""
        self.rows = 0
        self._born = 0
        #: Rows that a baseline has, and a creation may have said before.
        self.slack = 0
        self.is_vague = False
        self.is_whole = True

    def add(self, rows: int, *, is_baseline: bool) -> None:
        """Count rows that came or went."""
        if is_baseline and self._born > 0:
            self.slack += rows
            return
        self.rows += rows
        self._born += 0 if is_baseline else rows

    def count(self, event: Event) -> None:
        """Count an event."""
        self.add({"birth": 1, "death": -1}.get(event.op, 0), is_baseline=event.is_baseline)
        self.is_whole = self.is_whole and not (event.is_erased or event.lost)
        if event.old is event.new is None and not (event.degraded or {}).get("op"):
            self.is_vague = True


def row_of(row: tuple[Any, ...]) -> Row:
    """Return a row of the query."""
    identifier, image, lost = row
    return identifier, parse(image), lost or []
