"""Export: all events of the filters as CSV or JSON lines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Literal

from anyio import CancelScope, fail_after
from psycopg import AsyncConnection
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from auditdb.errors import InvalidInput
from auditdb.read.export import Export, read_blocks_async
from auditdb.web.address import LOOKS, PLACES
from auditdb.web.listing import filters_of, readable
from auditdb.web.problem import Problem
from auditdb.web.reading import record_reading
from auditdb.web.site import Visit

# Concurrent exports of one viewer, and seconds for a client to read a block. Both are limited
# because each export holds a connection.
AT_ONCE, STALLED = 2, 60.0
_MEDIA = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}


async def csv(visited: Visit) -> Response:
    """Return the events as CSV; `formulas=keep` leaves cells that a spreadsheet would run."""
    return await _taken(visited, "csv")


async def jsonl(visited: Visit) -> Response:
    """Return the events as JSON lines."""
    return await _taken(visited, "jsonl")


async def _taken(visited: Visit, format: Literal["csv", "jsonl"]) -> Response:
    headers = visited.request.headers
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise Problem("cross_site")
    if visited.request.method == "HEAD":
        return Response(media_type=_MEDIA[format])
    if visited.address["signal"]:
        raise InvalidInput("signals cannot be exported; filter by action or result")
    formulas: Any = visited.address["formulas"] or "escape"
    filters = await filters_of(visited)
    async with visited.opened() as conn:
        organizations = await readable(visited, conn)
    exports = {
        organization: Export(
            visited.principal(organization).organization_id, format, formulas, None, filters
        )
        for organization in organizations
    }
    stream = _stream(visited, exports, format)
    # The first block is read before the answer begins, so that a refusal is a page.
    first = await anext(stream, b"")
    return _Taken(first, stream, format)


class _Taken(StreamingResponse):
    """A stream that always runs its cleanup."""

    def __init__(self, first: bytes, stream: AsyncGenerator[bytes, None], format: str) -> None:
        self._first, self._stream = first, stream
        name = f"audit-log-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.{format}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        super().__init__(self._blocks(), media_type=_MEDIA[format], headers=headers)

    async def _blocks(self) -> AsyncIterator[bytes]:
        yield self._first
        async for block in self._stream:
            yield block

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def prompt(message: Message) -> None:
            with fail_after(STALLED):
                await send(message)

        try:
            await super().__call__(scope, receive, prompt)
        finally:
            with CancelScope(shield=True):
                await self._stream.aclose()


async def _stream(
    visited: Visit, exports: dict[str, Export], format: str
) -> AsyncGenerator[bytes, None]:
    """Read the organisations one after the other; the CSV header is written once.

    Each export is recorded before its first byte is sent, and again at its end, so no export is
    unseen.
    """
    own = str(visited.access.viewer_id)
    running = visited.site.exporting
    if running[own] >= AT_ONCE:
        raise Problem("busy")
    running[own] += 1
    try:
        for number, (organization, export) in enumerate(exports.items()):
            if number and format == "csv":
                export.take()
            async with aclosing(_one(visited, organization, export, format)) as blocks:
                async for block in blocks:
                    yield block
    finally:
        running[own] -= 1
        if not running[own]:
            del running[own]


async def _one(
    visited: Visit, organization: str, export: Export, format: str
) -> AsyncGenerator[bytes, None]:
    """Read one organisation; never hold two connections at once."""
    has_begun = False
    try:
        async with visited.opened() as conn:
            await _record(visited, conn, organization, "export_started", export, format)
            has_begun = True
            blocks = read_blocks_async(
                conn, visited.principal(organization), export, visited.site.archive
            )
            async with aclosing(blocks):
                async for block in blocks:
                    yield block
    finally:
        if has_begun:
            with CancelScope(shield=True):
                async with visited.opened() as other:
                    await _record(visited, other, organization, "exported", export, format)


async def _record(
    visited: Visit, conn: AsyncConnection[Any], organization: str, verb: str, export: Export,
    format: str,
) -> None:  # fmt: skip
    apart = (*LOOKS, *PLACES, "organization")
    kept = {name: value for name, value in visited.address.given.items() if name not in apart}
    details: dict[str, Any] = {"format": format, "filter": kept}
    if verb == "exported":
        details |= {"events": export.count, "is_complete": export.is_over}
    await record_reading(conn, visited.access, visited.principal(organization), verb, details)
