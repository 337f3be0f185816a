"""The reader: one organisation's events, for one of its admins, through row-level security."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Unpack

from psycopg import AsyncConnection, Connection

from auditdb.connection.begin import Statement, begin_with, begin_with_async
from auditdb.connection.checks import check_connection
from auditdb.read.event import Event, Page
from auditdb.read.filters import Filters
from auditdb.read.query import page_of, page_query
from auditdb.read.viewer import Auditor, Viewer
from auditdb.values.convert import Id

__all__ = [
    "AsyncReader",
    "Event",
    "Page",
    "Reader",
    "auditor",
    "auditor_async",
    "reader",
    "reader_async",
]


class Reader:
    """Reads the events of an organisation, or of all; made by `reader` or `auditor`.

    Filters, all of which an event must pass: `action`; `category`, the part of an action before the
    dot; `actor_id`, who acted or impersonated; `target_type`, `target_id`; `subject_id`, the user
    it is about; `result`; `source`; `since` and `until`, from the one to just before the other, as
    datetimes with a zone, dates (midnight UTC), or either in ISO 8601.
    """

    def __init__(self, conn: Connection[Any], principal: Viewer | Auditor) -> None:
        check_connection(conn, is_async=False)
        self._conn = conn
        self._principal = principal

    def become(self) -> Statement:
        """Return the statement that makes the rest of a transaction the reader's."""
        return self._principal.become()

    def page(
        self, *, limit: int = 50, after: str | None = None, **filters: Unpack[Filters]
    ) -> Page:
        """Return the newest events, or those that come after a cursor.

        Args:
            limit: the most events that the page may hold, 1 to 10,000.
            after: `next` of the page before; with the same filters.
            filters: see `Reader`.

        Raises:
            InvalidInput: an invalid limit, cursor or filter.
            Refused: the login is no member of `audit_reader`, or of `audit_auditor`.
            ConnectionFailed: the connection is lost.

        Example:
            >>> page = log.page(category="membership")  # doctest: +SKIP
            >>> log.page(category="membership", after=page.next)  # doctest: +SKIP
        """
        query = page_query(limit, after, filters, self._principal.organization_id)
        principal = self._principal
        with begin_with(self._conn, principal.role, principal.become(), query, undo=True) as (
            _,
            rows,
        ):
            return page_of(rows, limit)

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
        page_query(batch, None, filters)
        return self._events(batch, filters)

    def _events(self, batch: int, filters: Filters) -> Iterator[Event]:
        page = self.page(limit=batch, **filters)
        yield from page.events
        while page.next:
            page = self.page(limit=batch, after=page.next, **filters)
            yield from page.events


class AsyncReader:
    """Reads events as `Reader` does; made by `reader_async` or `auditor_async`."""

    def __init__(self, conn: AsyncConnection[Any], principal: Viewer | Auditor) -> None:
        check_connection(conn, is_async=True)
        self._conn = conn
        self._principal = principal

    async def page(
        self, *, limit: int = 50, after: str | None = None, **filters: Unpack[Filters]
    ) -> Page:
        """Return a page as `Reader.page` does."""
        query = page_query(limit, after, filters, self._principal.organization_id)
        principal = self._principal
        async with begin_with_async(
            self._conn, principal.role, principal.become(), query, undo=True
        ) as (_, rows):
            return page_of(rows, limit)

    def events(self, *, batch: int = 500, **filters: Unpack[Filters]) -> AsyncIterator[Event]:
        """Return an iterator as `Reader.events` does."""
        page_query(batch, None, filters)
        return self._events(batch, filters)

    async def _events(self, batch: int, filters: Filters) -> AsyncIterator[Event]:
        after: str | None = None
        while True:
            page = await self.page(limit=batch, after=after, **filters)
            for event in page.events:
                yield event
            if page.next is None:
                return
            after = page.next


def reader(
    conn: Connection[Any], *, key: str, viewer_id: Id, organization_id: Id, lifetime: int = 60
) -> Reader:
    """Return a reader of an organisation's events on behalf of one of its admins or owners.

    Whether the viewer may read is decided by the database, live, at each read. One who may not sees
    an empty log: no error tells why. Each read is a transaction of its own (inside of another, a
    savepoint), read-only and as `audit_reader`, with a token of its own; it leaves no trace on the
    connection.

    Args:
        conn: a connection whose login is a member of `audit_reader`.
        key: a signing key, `key_id.secret`, from `AUDITDB_KEY` or a file.
        viewer_id: the user who reads, as the memberships have it. Authenticate them first.
        organization_id: the organisation whose events are read.
        lifetime: seconds for which a token is good, more than the clocks of the application and of
            the database may differ.

    Raises:
        InvalidInput: the key is malformed, or an id is empty.

    Example:
        >>> log = reader(conn, key=key, viewer_id=1, organization_id=1)  # doctest: +SKIP
        >>> log.page().events[0].action  # doctest: +SKIP
        'membership.role_changed'
    """
    return Reader(conn, Viewer(key, viewer_id, organization_id, lifetime))


def reader_async(
    conn: AsyncConnection[Any], *, key: str, viewer_id: Id, organization_id: Id, lifetime: int = 60
) -> AsyncReader:
    """Return a reader as `reader` does, on an asynchronous connection.

    Example:
        >>> log = reader_async(conn, key=key, viewer_id=1, organization_id=1)  # doctest: +SKIP
        >>> [event.action async for event in log.events()]  # doctest: +SKIP
    """
    return AsyncReader(conn, Viewer(key, viewer_id, organization_id, lifetime))


def auditor(conn: Connection[Any], *, organization_id: Id | None = None) -> Reader:
    """Return a reader of all events for an auditor: no key, no viewer.

    It reads also what nobody else can: the log of an organisation that was deleted, with its
    memberships, and events that belong to none. Otherwise it reads as `reader` does.

    Args:
        conn: a connection whose login is a member of `audit_auditor`.
        organization_id: the organisation whose events are read. Default: every event.

    Raises:
        InvalidInput: the id is no string, integer or UUID.

    Example:
        >>> for event in auditor(conn, organization_id=7).events():  # doctest: +SKIP
        ...     archive.write(event)
    """
    return Reader(conn, Auditor(organization_id))


def auditor_async(conn: AsyncConnection[Any], *, organization_id: Id | None = None) -> AsyncReader:
    """Return a reader as `auditor` does, on an asynchronous connection.

    Example:
        >>> log = auditor_async(conn, organization_id=7)  # doctest: +SKIP
        >>> [event.action async for event in log.events()]  # doctest: +SKIP
    """
    return AsyncReader(conn, Auditor(organization_id))
