"""Replays the events of one row, transaction by transaction.

Inside a transaction, events may be in another order than the changes: if a trigger of the
application changes the row it fires for, its event comes first. So the result of a transaction for
a column is the value that its events set and that no other of its events replaced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from auditdb.reconcile.told import Told
from auditdb.reconcile.values import Spelling, canonical, is_withheld, parse


class Event(NamedTuple):
    """An event of a row."""

    id: int
    transaction: str
    time: float
    source: str
    is_baseline: bool
    old: dict[str, Any] | None
    new: dict[str, Any] | None
    degraded: dict[str, Any] | None
    is_erased: bool
    #: The row got its identifier by this update, or lost it: None if neither.
    moved: str | None

    @property
    def op(self) -> str:
        """birth, death or update."""
        if self.moved:
            return {"in": "birth", "out": "death"}[self.moved]
        if self.old is None and self.new is None:
            said = (self.degraded or {}).get("op")
            return {"INSERT": "birth", "DELETE": "death"}.get(said or "", "update")
        return "birth" if self.old is None else "death" if self.new is None else "update"

    @property
    def says_nothing(self) -> bool:
        """Whether all its values are lost."""
        return self.is_erased or "row" in self.lost or self.old is self.new is None

    @property
    def lost(self) -> list[str]:
        """Columns without their exact value in the event."""
        told = self.degraded or {}
        return [*(told.get("lost") or ()), *(told.get("as_text") or ())]


@dataclass(slots=True)
class Known:
    """The possible values of a column according to the log, and the event that set them."""

    values: dict[Hashable, Any]
    event: Event
    before: dict[Hashable, Any]


class Broken(NamedTuple):
    """An event that does not fit those before it."""

    event: Event
    column: str | None
    said: Any
    found: Any
    since: int | None


@dataclass(slots=True)
class State:
    """A row according to its events."""

    exists: bool | None = None
    columns: dict[str, Known] = field(default_factory=dict)
    last: Event | None = None
    source: str = ""
    #: No event tells of its insert.
    is_unborn: bool = False
    is_degraded: bool = False
    #: A partition that may contain it was truncated.
    may_be_gone: bool = False
    broken: list[Broken] = field(default_factory=list)


class Replay:
    """Rebuilds rows from events."""

    def __init__(self, told: Told, spelling: Spelling) -> None:
        """Replay the events of a table."""
        self._told = told
        self._spelling = spelling

    def replay(self, events: Iterable[Event]) -> State:
        """Return the row that results from the events of one identifier."""
        state = State()
        group: list[Event] = []
        for event in events:
            if group and group[-1].transaction != event.transaction:
                self._apply(state, group)
                group = []
            group.append(event)
        if group:
            self._apply(state, group)
        self._truncate(state, None)
        return state

    def _truncate(self, state: State, before: int | None) -> None:
        """Apply a TRUNCATE between the last event and the next one."""
        if state.last is None:
            return
        for id_, source in self._told.truncated:
            if not state.last.id < id_ or (before is not None and before < id_):
                continue
            if not self._told.is_partitioned or source in (state.source, self._told.name):
                state.exists, state.columns = False, {}
            # A baseline does not say in which partition it found the row.
            state.may_be_gone = state.last.is_baseline

    def _apply(self, state: State, group: list[Event]) -> None:
        self._truncate(state, group[0].id)
        self._exist(state, group)
        state.last, state.may_be_gone = group[-1], False
        births = [e for e in group if e.op == "birth"]
        state.source = (births or group)[-1].source
        if any(e.says_nothing for e in group):
            state.columns, state.is_degraded = {}, True
            return
        if any(e.moved for e in group):
            # Its former state has another identifier, or may be that of another row.
            state.columns = {}
            if any(e.op == "death" for e in group):
                return
        if not state.columns and len(group) == 1 and group[0].op == "birth" and not group[0].lost:
            self._begin(state, group[0])
            return
        names = {name for e in group for name in (*(e.old or ()), *(e.new or ()))}
        for name in names & self._told.columns.keys():
            if self._told.columns[name].left_out not in ("ignored", "generated"):
                self._flow(state, group, name)
        if state.exists is False:
            state.columns = {}

    def _begin(self, state: State, event: Event) -> None:
        """Fast path: most rows have only one event."""
        for name, value in (event.new or {}).items():
            column = self._told.columns.get(name)
            if column is not None and column.left_out not in ("ignored", "generated"):
                key = canonical(value, column.base)
                state.columns[name] = Known({key: value}, event, {})

    def _exist(self, state: State, group: list[Event]) -> None:
        """Update whether the row exists; report an event that does not fit."""
        ops = Counter(e.op for e in group if not e.is_baseline)
        first = group[0]
        before = state.exists
        if before is None:
            state.is_unborn = not ops["birth"] and not any(e.is_baseline for e in group)
            before = ops["death"] > ops["birth"] or not ops["birth"]
            if state.is_unborn and self._told.has_births and first.id > self._told.births_until:
                state.broken.append(Broken(first, None, "no row", "a row", None))
        elif before is False and (ops["death"] > ops["birth"] or not ops["birth"]):
            if not self._told.may_begin_untold:
                state.broken.append(Broken(first, None, "no row", "a row", self._since(state)))
            before, state.columns = True, {}
        elif before and ops["birth"] > ops["death"]:
            if not (self._told.may_end_untold or self._told.may_be_handed_off
                    or self._told.is_partitioned):  # fmt: skip
                state.broken.append(Broken(first, None, "a row", "no row", self._since(state)))
            before, state.columns = False, {}
        state.exists = int(before) + ops["birth"] - ops["death"] > 0 or (
            any(e.is_baseline for e in group) and not ops["death"]
        )

    @staticmethod
    def _since(state: State) -> int | None:
        return state.last.id if state.last else None

    def _flow(self, state: State, group: list[Event], name: str) -> None:
        """Update a column after a transaction; report an event that does not fit."""
        column = self._told.columns[name]
        came, went = dict[Hashable, Any](), dict[Hashable, Any]()
        balance = Counter[Hashable]()
        teller = None
        for event in group:
            if name in event.lost:
                state.columns.pop(name, None)
                return
            for values, sign, seen in ((event.new, 1, came), (event.old, -1, went)):
                if values is not None and name in values:
                    key = canonical(values[name], column.base)
                    seen[key] = values[name]
                    balance[key] += sign
                    teller = event
        assert teller is not None
        ends = {key: came[key] for key, n in balance.items() if n > 0}
        starts = {key: went[key] for key, n in balance.items() if n < 0}
        known = state.columns.get(name)
        if known and all(e.is_baseline for e in group):
            self._compare(state, known, came, teller, name)
        elif known and went:
            self._compare(state, known, starts or went, teller, name)
        if ends:
            state.columns[name] = Known(ends, teller, starts)
        elif came and not (known and known.values.keys() & came.keys()):
            state.columns[name] = Known(came, teller, {})

    def _compare(
        self, state: State, known: Known, found: Mapping[Hashable, Any], event: Event, name: str
    ) -> None:
        if known.values.keys() & found.keys() or self.is_unclear(name, known):
            return
        for logged in known.values.values():
            for value in found.values():
                if (
                    (is_withheld(logged) or is_withheld(value))
                    and (logged is not None and value is not None)
                ) or self._spelling.same(logged, value, self._told.columns[name].base):
                    return
        said = next(iter(known.values.values()))
        state.broken.append(Broken(event, name, said, next(iter(found.values())), known.event.id))

    def is_unclear(self, name: str, known: Known) -> bool:
        """Return whether a value may have changed without an event, by a change of the table."""
        column = self._told.columns[name]
        return known.event.id < column.since_id or known.event.time < column.since_time


def event_of(row: tuple[Any, ...]) -> Event:
    """Return the event of a row of the query: images as text."""
    id_, transaction, time, source, is_baseline, old, new, degraded, is_erased, moved = row
    return Event(
        id_, transaction, float(time), source, is_baseline, parse(old), parse(new),
        degraded, is_erased, moved,
    )  # fmt: skip
