"""The source of an exporter: the ticks of a database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, LiteralString

from psycopg import AsyncConnection, AsyncCursor
from psycopg.errors import LockNotAvailable
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from auditdb.connection.pin import pinned_async
from auditdb.export.place import Chunk, Part, Place, Row

# Maximum number of events in a chunk; the database also limits it to 16 MB.
_MOST = 5000
# Seconds between two ticks that one exporter makes.
_EVERY = 1.0
_READ: LiteralString = """
select tick_id, id, at, organization_id, action, result,
    pg_catalog.convert_to(coalesce(line, ''), 'UTF8'), series_id, series_key::text, is_end, is_more
from audit_private.read_batch(%s, %s, %s, %s, %s, %s)
"""


class Ticks:
    """Reads and makes ticks over one connection.

    After a full chunk, the next one is read ahead during its delivery.
    """

    def __init__(self, conn: AsyncConnection[Any], *, most: int | None = None) -> None:
        self._conn, self._most = conn, most or _MOST
        self._turn = asyncio.Lock()
        self._made_at = -_EVERY
        self._head = 0
        self._ahead: tuple[Place, list[str] | None, asyncio.Task[Chunk | None]] | None = None

    async def close(self) -> None:
        """Cancel the read-ahead."""
        if self._ahead is not None:
            task = self._ahead[2]
            self._ahead = None
            task.cancel()
            await asyncio.wait([task])

    async def head(self) -> int:
        """Make a tick, and return the number of the last tick.

        Raises:
            psycopg.Error: no tick can be made, for instance on a standby or after a restore.
        """
        if self.due() > 0:
            return self._head
        self._made_at = time.monotonic()
        # Another session may be making one.
        with suppress(LockNotAvailable):
            async with self._turn, pinned_async(self._conn):
                await self._conn.execute("select audit.make_tick()")
        self._head = await self.last()
        return self._head

    def due(self) -> float:
        """Return the seconds until `head` makes a tick again."""
        return self._made_at + _EVERY - time.monotonic()

    async def last(self) -> int:
        """Return the number of the last known tick."""
        async with (
            self._turn, pinned_async(self._conn),
            AsyncCursor(self._conn, row_factory=tuple_row) as cursor,
        ):  # fmt: skip
            await cursor.execute("select audit_private.last_tick()")
            (last,) = await cursor.fetchone() or (0,)
        return int(last)

    async def read(
        self, after: Place, until: Place, organizations: Sequence[str] | None, *,
        whole: bool = False,
    ) -> Chunk | None:  # fmt: skip
        """Return the events between two places, or a first part of them; None without events."""
        wanted = None if organizations is None else list(organizations)
        if whole:
            return await self._read(after, until, wanted, None)
        chunk = await self._read_ahead(after, wanted)
        if chunk is None:
            chunk = await self._read(after, until, wanted, self._most)
        if chunk is not None and chunk.is_full and self._ahead is None:
            following = self._read(chunk.end, until, wanted, self._most)
            self._ahead = chunk.end, wanted, asyncio.create_task(following)
        return chunk

    async def _read_ahead(self, after: Place, wanted: list[str] | None) -> Chunk | None:
        if self._ahead is None:
            return None
        if self._ahead[:2] == (after, wanted):
            task = self._ahead[2]
            self._ahead = None
            return await task
        if self._ahead[2].done():
            await self.close()
        return None

    async def _read(
        self, after: Place, until: Place, wanted: list[str] | None, most: int | None
    ) -> Chunk | None:
        values = [*_arguments(after), *_arguments(until), wanted, most]
        async with (
            self._turn, pinned_async(self._conn),
            AsyncCursor(self._conn, row_factory=tuple_row) as cursor,
        ):  # fmt: skip
            await cursor.execute(_READ, values, binary=True)
            found = await cursor.fetchall()
        if not found:
            return None
        end = found.pop()
        rows = [Row._make(row[:7]) for row in found]
        return Chunk(
            series_id=end[7], series_key=end[8], first_tick=rows[0].tick_id if rows else end[0],
            end=_end(after, end[0], end[2], end[1], bool(end[9])), rows=rows,
            is_full=bool(end[10]),
        )  # fmt: skip


def _arguments(place: Place) -> tuple[int, Jsonb | None]:
    return place.tick_id, Jsonb(place.part.as_json()) if place.part else None


def _end(after: Place, tick_id: int, at: str, id: int, is_end: bool) -> Place:
    """Return the place after a tick, or inside it."""
    if is_end:
        return Place(tick_id)
    is_same = after.part is not None and after.part.tick_id == tick_id
    n = after.part.n + 1 if after.part is not None and is_same else 1
    return Place(tick_id - 1, Part(tick_id, at, id, n))
