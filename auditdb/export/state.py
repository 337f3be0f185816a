"""The progress of subscriptions in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import dict_row, tuple_row
from psycopg.types.json import Jsonb

from auditdb.connection.pin import pinned_async
from auditdb.export.conditions import Condition, Values, path_of
from auditdb.export.place import Place
from auditdb.export.threshold import Threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """The filter of a subscription; a condition that is None lets all events pass."""

    organization_id: str | None = None
    actions: frozenset[str] | None = None
    categories: frozenset[str] | None = None
    results: frozenset[str] | None = None
    conditions: tuple[Condition, ...] = ()
    threshold: Threshold | None = None

    def passes(self, event: Values) -> bool:
        """Return whether an event passes, without the threshold."""
        row = event.row
        return (
            (self.organization_id is None or row.organization_id == self.organization_id)
            and (self.actions is None or row.action in self.actions)
            and (self.categories is None or row.action.partition(".")[0] in self.categories)
            and (self.results is None or row.result in self.results)
            and (not self.conditions or all(c.holds(event) for c in self.conditions))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A subscription as an exporter sees it; a stream is one that a customer made.

    A new subscription with a reused name has another `created_at`.
    """

    name: str
    created_at: str
    sink: str
    format: str
    options: dict[str, Any]
    filter: Filter
    place: Place
    pending: dict[str, Any] | None
    delivered: int
    state: str
    problem: str | None
    is_stream: bool = False
    counts: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A batch to deliver, or only new counts of a threshold."""

    of: Subscription
    pending: dict[str, Any] | None = None
    counts: list[Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it for the database, with the expected position of the subscription."""
        place = self.of.place
        return {
            "name": self.of.name, "created_at": self.of.created_at, "tick_id": place.tick_id,
            "part": place.part.as_json() if place.part else None, "pending": self.pending,
            "counts": self.counts,
        }  # fmt: skip


_READ: LiteralString = """
select name, created_at::text, sink, format, options, organization_id, actions, categories,
    results, conditions, at_least,
    (pg_catalog.date_part('epoch', within) * 1000000)::bigint as within, per,
    tick_id, part, pending, counts, delivered, state, problem,
    made_by is not null as is_stream
from audit.subscription
where %(names)s::text[] is null or name = any (%(names)s)
order by name
"""


class State:
    """The subscriptions in the database. Each call commits."""

    def __init__(self, conn: AsyncConnection[Any], exporter: int) -> None:
        self._conn, self._exporter = conn, exporter
        # Only one transaction at a time, because deliveries may end at any time.
        self._turn = asyncio.Lock()

    async def read(self, names: Sequence[str] | None) -> list[Subscription]:
        """Return the subscriptions of some names, or all; streams skip hidden events."""
        given = {"names": None if names is None else list(names)}
        async with (
            self._turn, pinned_async(self._conn),
            self._conn.cursor(row_factory=dict_row) as cursor,
        ):  # fmt: skip
            await cursor.execute("select audit_private.skip_hidden_everywhere()")
            await cursor.execute(_READ, given)
            return [_subscription(row) for row in await cursor.fetchall()]

    async def claim(self, claims: Iterable[Claim]) -> set[str]:
        """Claim batches before delivery, and return the names of those that may be delivered."""
        given = [claim.as_json() for claim in claims]
        query: LiteralString = "select * from audit_private.claim_batches(%s, %s)"
        return {name for (name,) in await self._rows(query, self._exporter, Jsonb(given))}

    async def finish(self, name: str, pending: dict[str, Any], delivered: int) -> bool:
        """Save that a batch was delivered; return false if another exporter has it now."""
        query: LiteralString = "select audit_private.finish_batch(%s, %s, %s, %s)"
        rows = await self._rows(query, self._exporter, name, Jsonb(pending), delivered)
        return bool(rows[0][0])

    async def leave(self, name: str, problem: str, *, failed: bool) -> None:
        """Save the problem of a batch."""
        query: LiteralString = "select audit_private.leave_batch(%s, %s, %s, %s)"
        await self._rows(query, self._exporter, name, problem.replace("\0", ""), failed)

    async def set_aside(self, name: str, tick_id: int, id: int, at: str, problem: str) -> None:
        """Save an event that the sink refuses."""
        query: LiteralString = (
            "select audit_private.set_event_aside(%s, %s, %s, %s, %s::timestamptz, %s)"
        )
        problem = problem.replace("\0", "")
        await self._rows(query, self._exporter, name, tick_id, id, at, problem)

    async def advance(self, claims: Iterable[Claim], tick_id: int) -> set[str]:
        """Save that subscriptions are complete up to a tick, and return their names."""
        given = [claim.as_json() for claim in claims]
        query: LiteralString = "select * from audit_private.advance_subscriptions(%s, %s)"
        return {name for (name,) in await self._rows(query, Jsonb(given), tick_id)}

    async def _rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        async with (
            self._turn, pinned_async(self._conn),
            self._conn.cursor(row_factory=tuple_row) as cursor,
        ):  # fmt: skip
            await cursor.execute(query, values)
            return await cursor.fetchall()


def _subscription(row: dict[str, Any]) -> Subscription:
    return Subscription(
        name=row["name"], created_at=row["created_at"], sink=row["sink"], format=row["format"],
        options=row["options"], filter=_filter(row), place=Place.of(row["tick_id"], row["part"]),
        pending=row["pending"], counts=row["counts"], delivered=row["delivered"],
        state=row["state"], problem=row["problem"], is_stream=row["is_stream"],
    )  # fmt: skip


def _filter(row: dict[str, Any]) -> Filter:
    def words(name: str) -> frozenset[str] | None:
        return None if row[name] is None else frozenset(row[name])

    conditions = sorted(map(Condition.of, row["conditions"] or ()), key=lambda c: c.cost)
    threshold = None
    if row["at_least"] is not None:
        per = None if row["per"] is None else path_of(row["per"])
        threshold = Threshold(at_least=row["at_least"], within=row["within"], per=per)
    return Filter(
        organization_id=row["organization_id"], actions=words("actions"),
        categories=words("categories"), results=words("results"),
        conditions=tuple(conditions), threshold=threshold)  # fmt: skip
