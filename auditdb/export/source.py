"""Where an exporter's events come from: the ticks of a database."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.errors import LockNotAvailable
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from auditdb.connection.pin import pinned_async
from auditdb.export.place import Chunk, Part, Place, Row

# Events of a chunk; the database ends it at 16 MB.
_MOST = 5000
# Seconds between two ticks that one exporter makes.
_EVERY = 0.5
_READ: LiteralString = """
select tick_id, series_id, series_key::text, id, at, organization_id, action, result, line, is_end,
    is_more
from audit_private.read_batch(%s, %s, %s, %s, %s, %s)
"""


class Ticks:
    """Reads ticks over one connection, and makes them over the same."""

    def __init__(self, conn: AsyncConnection[Any], *, most: int = _MOST) -> None:
        self._conn, self._most = conn, most
        self._made_at = -_EVERY
        self._head = 0

    async def head(self) -> int:
        """Make a tick of what there is, and return the number of the last.

        Raises:
            psycopg.Error: no tick can be made: a standby, a database that was restored.
        """
        if time.monotonic() - self._made_at < _EVERY:
            return self._head
        try:
            async with pinned_async(self._conn):
                await self._conn.execute("select audit.make_tick()")
        except LockNotAvailable:
            pass  # Somebody else is making one.
        async with pinned_async(self._conn), self._conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute("select audit_private.last_tick()")
            (self._head,) = await cursor.fetchone() or (0,)
        self._made_at = time.monotonic()
        return self._head

    async def read(
        self, after: Place, until: Place, organizations: Sequence[str] | None, *,
        whole: bool = False,
    ) -> Chunk | None:  # fmt: skip
        """Return the events between two places, or the first of them; nothing where none are."""
        values = [
            *_arguments(after), *_arguments(until),
            None if organizations is None else list(organizations), None if whole else self._most,
        ]  # fmt: skip
        async with pinned_async(self._conn), self._conn.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(_READ, values)
            found = await cursor.fetchall()
        if not found:
            return None
        *events, end = found
        rows = [Row(r[0], r[3], r[4], r[5], r[6], r[7], r[8].encode()) for r in events]
        return Chunk(
            series_id=end[1], series_key=end[2], first_tick=rows[0].tick_id if rows else end[0],
            end=_end(after, end[0], end[4], end[3], end[9]), rows=rows, is_full=bool(end[10]),
        )  # fmt: skip


def _arguments(place: Place) -> tuple[int, Jsonb | None]:
    return place.tick_id, Jsonb(place.part.as_json()) if place.part else None


def _end(after: Place, tick_id: int, at: str, id: int, is_end: bool) -> Place:
    """Return the place behind a tick, or within it."""
    if is_end:
        return Place(tick_id)
    is_same = after.part is not None and after.part.tick_id == tick_id
    n = after.part.n + 1 if after.part is not None and is_same else 1
    return Place(tick_id - 1, Part(tick_id, at, id, n))
