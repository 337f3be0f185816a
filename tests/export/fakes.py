"""A log, its bookkeeping and sinks in memory, for tests of the engine alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from auditdb.export.canonical import line_of
from auditdb.export.place import Chunk, Part, Place, Row
from auditdb.export.sinks.base import Delivery
from auditdb.export.state import Claim, Filter, Subscription
from auditdb.read.event import Event

KEY = "1f2e3d4c-0000-0000-0000-000000000000"


def row(tick_id: int, id: int, organization: str | None, action: str = "workflow.created") -> Row:
    at: Any = f"2026-11-28T12:00:00.{id:06d}Z"
    event = Event(
        id=id, occurred_at=at, transaction_id=tick_id, action=action, result="success",
        actor_id="7", actor_type="user", impersonator_id=None, db_user="app",
        organization_id=organization, target_type="workflow", target_id="w", subject_id=None,
        source="web", captured_from=None, old_values=None, new_values=None, details=None,
        db_role=None, series_id=1)  # fmt: skip
    return Row(tick_id, id, at, organization, action, "success", line_of(event, KEY))


@dataclass
class Log:
    """Ticks of events, read in chunks."""

    rows: list[Row] = field(default_factory=list)
    limit: int = 10
    reads: int = 0
    wait: float = 1.0

    def add(self, *organizations: str | None) -> None:
        """Close a tick of one event for each organisation."""
        tick = self.rows[-1].tick_id + 1 if self.rows else 1
        for organization in organizations:
            self.rows.append(row(tick, len(self.rows) + 1, organization))

    async def head(self) -> int:
        """Return the last tick."""
        return self.rows[-1].tick_id if self.rows else 0

    def due(self) -> float:
        """Return for how long there is nothing new."""
        return self.wait

    async def last(self) -> int:
        """Return the last tick."""
        return await self.head()

    async def read(
        self, after: Place, until: Place, organizations: Sequence[str] | None, *,
        whole: bool = False,
    ) -> Chunk | None:  # fmt: skip
        """Return a chunk."""
        self.reads += 1
        await asyncio.sleep(0)

        def key(place: Place) -> tuple[int, int]:
            if place.part:
                return place.part.tick_id, place.part.id
            return place.tick_id, 10**9

        found = [
            r
            for r in self.rows
            if key(after) < (r.tick_id, r.id) <= key(until)
            and (organizations is None or r.organization_id in organizations)
        ]
        if not found:
            return None
        is_full = not whole and len(found) > self.limit
        end = until
        if is_full:
            found = found[: self.limit]
            last = found[-1]
            same = after.part if after.part and after.part.tick_id == last.tick_id else None
            end = Place(last.tick_id - 1, Part(last.tick_id, last.at, last.id,
                                               same.n + 1 if same else 1))  # fmt: skip
        return Chunk(series_id=1, series_key=KEY, first_tick=found[0].tick_id, end=end,
                     rows=found, is_full=is_full)  # fmt: skip


@dataclass
class Kept:
    """What the database would keep; two exporters may share it."""

    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    exporters: dict[str, int] = field(default_factory=dict)
    aside: list[tuple[str, int, str]] = field(default_factory=list)
    living: set[int] = field(default_factory=set)

    def add(self, name: str, organization: str | None = None, **given: Any) -> None:
        """Make a subscription."""
        self.subscriptions[name] = Subscription(
            name=name, created_at="first", sink=f"https://{name}.test/", format="jsonl", options={},
            filter=Filter(organization_id=organization), place=Place(0), pending=None,
            delivered=0, state="active", problem=None)  # fmt: skip
        self.change(name, **given)

    def change(self, name: str, **given: Any) -> None:
        """Change it."""
        self.subscriptions[name] = replace(self.subscriptions[name], **given)


@dataclass
class FakeKeeper:
    """The bookkeeping of one exporter."""

    kept: Kept
    exporter: int = 1
    dies_before_finish: bool = False
    dies_before_leave: bool = False

    async def read(self, names: Sequence[str] | None) -> list[Subscription]:
        """Read."""
        return [s for n, s in self.kept.subscriptions.items() if names is None or n in names]

    def stands(self, claim: Claim) -> bool:
        """Return whether a subscription is the one, and where, it is taken to be."""
        s = self.kept.subscriptions[claim.of.name]
        return (s.created_at, s.place) == (claim.of.created_at, claim.of.place)

    async def claim(self, claims: Iterable[Claim]) -> set[str]:
        """Claim."""
        taken = set()
        for claim in claims:
            name = claim.of.name
            s = self.kept.subscriptions[name]
            owner = self.kept.exporters.get(name)
            is_free = owner in (None, self.exporter) or owner not in self.kept.living
            fits = self.stands(claim) and s.pending in (None, claim.pending)
            if s.state == "active" and is_free and fits:
                self.kept.change(name, pending=claim.pending)
                self.kept.exporters[name] = self.exporter
                taken.add(name)
        return taken

    async def finish(self, name: str, pending: dict[str, Any], delivered: int) -> bool:
        """Finish."""
        if self.dies_before_finish:
            raise ConnectionError("the database is gone")
        s = self.kept.subscriptions[name]
        if self.kept.exporters.get(name) != self.exporter or s.pending != pending:
            return False
        del self.kept.exporters[name]
        place = Place.of(pending["tick_id"], pending["part"])
        self.kept.change(name, place=place, pending=None, counts=pending.get("counts"),
                         delivered=s.delivered + delivered)  # fmt: skip
        return True

    async def leave(self, name: str, problem: str, *, failed: bool) -> None:
        """Leave."""
        if self.dies_before_leave:
            raise ConnectionError("the database is gone")
        self.kept.exporters.pop(name, None)
        self.kept.change(name, problem=problem, **({"state": "failed"} if failed else {}))

    async def set_aside(self, name: str, tick_id: int, id: int, at: str, problem: str) -> None:
        """Set aside."""
        self.kept.aside.append((name, id, problem))

    async def advance(self, claims: Iterable[Claim], tick_id: int) -> set[str]:
        """Advance."""
        noted = set()
        for claim in claims:
            if self.stands(claim) and self.kept.subscriptions[claim.of.name].pending is None:
                self.kept.change(claim.of.name, place=Place(tick_id), counts=claim.counts)
                noted.add(claim.of.name)
        return noted


@dataclass
class FakeSink:
    """Takes what a test lets it take."""

    act: Callable[[Delivery], Awaitable[None]] | None = None
    taken: list[Delivery] = field(default_factory=list)
    tried: list[Delivery] = field(default_factory=list)
    is_closed: bool = False

    async def put(self, delivery: Delivery) -> None:
        """Take it."""
        self.tried.append(delivery)
        if self.act is not None:
            await self.act(delivery)
        self.taken.append(delivery)

    async def close(self) -> None:
        """Close."""
        self.is_closed = True

    @property
    def ids(self) -> list[int]:
        """The events that it took, in their order."""
        return [int(json.loads(line.data)["id"]) for d in self.taken for line in d.lines]
