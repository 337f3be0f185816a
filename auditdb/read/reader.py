"""The reader: one organisation's events, for one of its admins, through row-level security."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Unpack

from psycopg import AsyncConnection, Connection

from auditdb.connection.begin import Statement, begin_with, begin_with_async
from auditdb.read.event import Event, Page
from auditdb.read.export import (
    Export,
    Format,
    Formulas,
    Output,
    write_block,
)
from auditdb.read.filters import Filters, shown_filters
from auditdb.read.query import PageQuery
from auditdb.read.recorded import (
    record_reading,
    record_reading_async,
    recorded_blocks,
    recorded_blocks_async,
)
from auditdb.read.viewer import Auditor, Viewer

if TYPE_CHECKING:
    from auditdb.archive.read import Archive


class Reader:
    """Reads the events of an organisation, or of all; made by `reader` or `auditor`.

    Filters, all of which an event must pass: `action`; `category`, the part of an action before the
    dot; `person_id`, who acted, impersonated or is the subject; `actor_id`, who acted or
    impersonated; `actor_type`, such as `api_key`; `target_type`, `target_id`; `subject_id`, the
    user it is about; `result`; `source`; `ip`; `transaction_id`; `series_id`, within which that is
    unique; `text`, which is in an id, a value or a detail, upper and lower case alike, or else an
    id is one of `text_ids`, which the application knows by that text; `since` and `until`, from the
    one to just before the other, as datetimes with a zone, dates (midnight UTC), or either in
    ISO 8601. What tables held already when they were attached (`<kind>.baseline`) is left out,
    unless `action` asks for it, or `baseline=True`.
    """

    def __init__(
        self, conn: Connection[Any], principal: Viewer | Auditor, archive: Archive | None = None
    ) -> None:
        self._conn = conn
        self._principal = principal
        self._archive = archive

    def become(self) -> Statement:
        """Return the statement that makes the rest of a transaction the reader's."""
        return self._principal.become()

    def page(
        self,
        *,
        limit: int = 50,
        after: str | None = None,
        before: str | None = None,
        within: int | None = None,
        **filters: Unpack[Filters],
    ) -> Page:
        """Return the newest events, or those that come after a cursor or before one.

        Args:
            limit: the most events that the page may hold, 1 to 10,000.
            after: `next` of the page before; with the same filters.
            before: `previous` of the page after; with the same filters.
            within: the most events that are looked at, so that filters which hardly any passes take
                no longer than others; see `Page.looked_back_to`. Default: all.
            filters: see `Reader`.

        Raises:
            InvalidInput: an invalid limit, cursor or filter.
            Refused: the login is no member of `audit_reader`, or of `audit_auditor`.
            ConnectionFailed: the connection is lost.

        Example:
            >>> page = log.page(category="membership")  # doctest: +SKIP
            >>> log.page(category="membership", after=page.next)  # doctest: +SKIP
        """
        query = self._query(limit, filters, after=after, before=before, within=within)
        return self._page(query, self._record(filters), limit, filters, after, before)

    def events(self, *, batch: int = 500, **filters: Unpack[Filters]) -> Iterator[Event]:
        """Return an iterator over all events, newest first, that holds a batch or two in memory.

        Each batch is a read of its own, not a server-side cursor: no transaction stays open and no
        snapshot is held while the caller works, who may use the connection meanwhile; no token has
        to outlive its minute; and an admin who is demoted reads no further.

        Args:
            batch: events to read at a time, 1 to 10,000.
            filters: see `Reader`.

        Raises:
            AuditError: as `page`, for filters at once.

        Example:
            >>> sum(1 for event in log.events(result="denied"))  # doctest: +SKIP
            3
        """
        PageQuery(batch, filters)
        return self._events(batch, filters)

    def blocks(
        self,
        *,
        format: Format = "jsonl",
        csv_formulas: Formulas = "escape",
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> Iterator[bytes]:
        r"""Return an iterator over an export, newest first, in blocks of whole lines in UTF-8.

        The server makes the lines: this is many times faster than `events`, and reads in chunks,
        each a read of its own, in the same way. Memory holds a chunk at the most, and never much
        more than 32 MB and one event. What drives a terminal or hides is escaped.

        Args:
            format: "jsonl", a line of JSON for each event, exact; or "csv", with a heading, lines
                that end in \r\n, and null and the empty text alike.
            csv_formulas: "escape" quotes every cell, and puts an ' before what a spreadsheet would
                run; "keep" does not.
            limit: the most events. Default: all.
            filters: see `Reader`.

        Raises:
            InvalidInput: an invalid argument, at once; or the connection is in a pipeline.
            AuditError: as `page`.

        Example:
            >>> response = Stream(log.blocks(format="csv", since="2026-01-01"))  # doctest: +SKIP
        """
        export = Export(self._principal.organization_id, format, csv_formulas, limit, filters)
        return recorded_blocks(self._conn, self._principal, export, self._archive)

    def export(
        self,
        out: Output,
        *,
        format: Format = "jsonl",
        csv_formulas: Formulas = "escape",
        limit: int | None = None,
        progress: Callable[[int], object] | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """Write an export to a file, newest first, and return how many events it holds.

        Args:
            out: a file of bytes or of text; what was written ends with a whole line, always.
            format: see `blocks`, as of `csv_formulas` and `limit`.
            csv_formulas: see `blocks`.
            limit: see `blocks`.
            progress: called with the events that are written, from time to time.
            filters: see `Reader`.

        Raises:
            AuditError: as `blocks`.

        Example:
            >>> with open("log.jsonl", "wb") as out:  # doctest: +SKIP
            ...     log.export(out, since="2026-01-01")
            48213
        """
        export = Export(self._principal.organization_id, format, csv_formulas, limit, filters)
        with closing(recorded_blocks(self._conn, self._principal, export, self._archive)) as blocks:
            for block in blocks:
                write_block(out, block)
                if progress is not None:
                    progress(export.count)
        return export.count

    def _events(self, batch: int, filters: Filters) -> Iterator[Event]:
        own = self._record(filters)
        after: str | None = None
        while True:
            query = self._query(batch, filters, after=after)
            page = self._page(query, own, batch, filters, after)
            yield from page.events
            if page.next is None:
                return
            after = page.next

    def _query(self, limit: int, filters: Filters, **place: Any) -> PageQuery:
        return PageQuery(limit, filters, organization_id=self._principal.organization_id, **place)

    def _record(self, filters: Filters) -> int | None:
        """Record that an auditor reads; of admins, who read what is theirs, nothing."""
        if isinstance(self._principal, Viewer):
            return None
        details = {"filter": shown_filters(filters)}
        return record_reading(self._conn, self._principal, "viewed", details)

    def _page(
        self, query: PageQuery, own: int | None, limit: int, filters: Filters,
        after: str | None, before: str | None = None,
    ) -> Page:  # fmt: skip
        principal = self._principal
        query.leave_out(own)
        with begin_with(
            self._conn, principal.role, principal.become(), query.statement, undo=True
        ) as (_, rows):
            page = query.page_of(rows)
            if self._archive is None:
                return page
            scope = self._archive.scope(self._conn, principal)
        return self._archive.fill(page, scope, filters, limit, after=after, before=before)


class AsyncReader:
    """Reads events as `Reader` does; made by `reader` or `auditor`."""

    def __init__(
        self, conn: AsyncConnection[Any], principal: Viewer | Auditor,
        archive: Archive | None = None,
    ) -> None:  # fmt: skip
        self._conn = conn
        self._principal = principal
        self._archive = archive

    async def page(
        self,
        *,
        limit: int = 50,
        after: str | None = None,
        before: str | None = None,
        within: int | None = None,
        **filters: Unpack[Filters],
    ) -> Page:
        """Return a page as `Reader.page` does."""
        query = self._query(limit, filters, after=after, before=before, within=within)
        return await self._page(query, await self._record(filters), limit, filters, after, before)

    def events(self, *, batch: int = 500, **filters: Unpack[Filters]) -> AsyncIterator[Event]:
        """Return an iterator as `Reader.events` does."""
        PageQuery(batch, filters)
        return self._events(batch, filters)

    def blocks(
        self,
        *,
        format: Format = "jsonl",
        csv_formulas: Formulas = "escape",
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> AsyncIterator[bytes]:
        """Return an iterator as `Reader.blocks` does.

        Example:
            >>> async for block in log.blocks(format="csv"):  # doctest: +SKIP
            ...     await response.write(block)
        """
        export = Export(self._principal.organization_id, format, csv_formulas, limit, filters)
        return recorded_blocks_async(self._conn, self._principal, export, self._archive)

    async def _events(self, batch: int, filters: Filters) -> AsyncIterator[Event]:
        own = await self._record(filters)
        after: str | None = None
        while True:
            query = self._query(batch, filters, after=after)
            page = await self._page(query, own, batch, filters, after)
            for event in page.events:
                yield event
            if page.next is None:
                return
            after = page.next

    def _query(self, limit: int, filters: Filters, **place: Any) -> PageQuery:
        return PageQuery(limit, filters, organization_id=self._principal.organization_id, **place)

    async def _record(self, filters: Filters) -> int | None:
        if isinstance(self._principal, Viewer):
            return None
        details = {"filter": shown_filters(filters)}
        return await record_reading_async(self._conn, self._principal, "viewed", details)

    async def _page(
        self, query: PageQuery, own: int | None, limit: int, filters: Filters,
        after: str | None, before: str | None = None,
    ) -> Page:  # fmt: skip
        principal = self._principal
        query.leave_out(own)
        async with begin_with_async(
            self._conn, principal.role, principal.become(), query.statement, undo=True
        ) as (_, rows):
            page = query.page_of(rows)
            if self._archive is None:
                return page
            scope = await self._archive.scope_async(self._conn, principal)
        return await asyncio.to_thread(
            self._archive.fill, page, scope, filters, limit, after=after, before=before
        )
