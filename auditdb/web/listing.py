"""Shared by pages and JSON: a list of events, one event, what is logged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from psycopg import AsyncConnection

from auditdb.connection.begin import Row
from auditdb.errors import InvalidInput
from auditdb.read.event import Event, Page, cursor_of, read_cursor
from auditdb.read.filters import Filters, as_number
from auditdb.read.query import PageQuery
from auditdb.read.viewer import Auditor
from auditdb.web import queries
from auditdb.web.address import read_event_path
from auditdb.web.names import Known, ask_search
from auditdb.web.problem import Problem
from auditdb.web.reading import Reading, record_reading
from auditdb.web.site import Visit
from auditdb.web.told import names_of

if TYPE_CHECKING:
    from auditdb.archive.read import Archive

T = TypeVar("T")
LISTED = 50
# Number of events that a page looks at, and a page that searches further back.
LOOKED_AT, FURTHER = 20_000, 500_000


async def filters_of(visited: Visit) -> Filters:
    """Return what the address looks for, with ids of what the host knows by its text.

    Raises:
        InvalidInput: a value is none.
    """
    filters = visited.address.filters(visited.zone)
    if "text" in filters:
        site = visited.site
        filters["text_ids"] = await ask_search(site.search, filters["text"], site.seconds)
    return filters


async def listed(
    visited: Visit, conn: AsyncConnection[Any], filters: Filters
) -> tuple[Page, dict[str, Known], dict[int, str]]:
    """Return the page of events that the address asks for, of all chosen organisations together.

    With it come the names that each organisation's log knows, and of which organisation each event
    is, by its id.

    Raises:
        InvalidInput: a value of the address is none.
        Problem: the viewer may read none of them.
    """
    found: list[Page] = []
    known: dict[str, Known] = {}
    homes: dict[int, str] = {}
    problems: list[Problem] = []
    for organization in visited.organizations:
        async with visited.reading(conn, organization) as read:
            page = await _page(read, visited, filters)
            if not page.events and (problem := await why_nothing(read)):
                problems.append(problem)
            known[organization] = await names_of(read, page.events)
        homes |= {event.id: organization for event in page.events}
        found.append(page)
    if len(problems) == len(visited.organizations):
        raise problems[0]
    before = visited.address["before"]
    place = before or visited.address["after"] or None
    page = together(found, LISTED, place=place, is_before=bool(before))
    return page, known, homes


PROBLEMS = {
    "token": "token", "key retired": "key_retired", "clock": "clock", "no rule": "no_rule",
    "no admin": "forbidden",
}  # fmt: skip


async def why_nothing(read: Reading) -> Problem | None:
    """Return why a viewer sees nothing; None if they may read, and for an auditor."""
    if isinstance(read.principal, Auditor):
        return None
    (row,) = await read.rows(queries.PROBLEM)
    return Problem(PROBLEMS[row["problem"]]) if row["problem"] else None


async def readable(visited: Visit, conn: AsyncConnection[Any]) -> list[str]:
    """Return the organisations whose log the viewer may read, of those that are asked for.

    Raises:
        Problem: there is none.
    """
    found: list[str] = []
    problems: list[Problem] = []
    for organization in visited.organizations:
        async with visited.reading(conn, organization) as read:
            problem = await why_nothing(read)
        if problem is None:
            found.append(organization)
        else:
            problems.append(problem)
    if not found:
        raise problems[0]
    return found


async def logged_kinds(visited: Visit) -> tuple[list[Row], list[str], datetime | None]:
    """Return which kinds of objects are logged, from how many tables, since when; and all actions.

    These are the same for all organisations. The third is from when on events are shown, where the
    viewer of one organisation does not see all.

    Raises:
        Problem: the viewer may read the log of no organisation that is asked for.
    """
    async with visited.opened() as conn:
        first, *others = await readable(visited, conn)
        async with visited.reading(conn, first) as read:
            kinds = await read.rows(queries.LOGGED)
            actions = await read.rows(queries.ACTIONS)
            [shown] = await read.rows(queries.SHOWN_SINCE)
    return kinds, [row["name"] for row in actions], None if others else shown["since"]


def together(pages: list[Page], limit: int, *, place: str | None, is_before: bool) -> Page:
    """Return the page of several organisations' events, of a page of each.

    Args:
        pages: of each.
        limit: the most events.
        place: the cursor after or before which they are, if there is one.
        is_before: whether they are before it.
    """
    if len(pages) == 1:
        return pages[0]
    events = sorted(
        (event for page in pages for event in page.events),
        key=lambda event: (event.occurred_at, event.id),
        reverse=True,
    )
    # If one was not searched to its end, leave events beyond that position to the next page.
    ends = [
        read_cursor(cursor)
        for page in pages
        if page.looked_back_to and (cursor := page.previous if is_before else page.next)
    ]
    end = (min(ends) if is_before else max(ends)) if ends else None
    if end is not None:
        events = [e for e in events if ((e.occurred_at, e.id) <= end) == is_before
                  or (e.occurred_at, e.id) == end]  # fmt: skip
    total = sum(len(page.events) for page in pages)
    events = events[-limit:] if is_before else events[:limit]
    is_over = total == len(events)
    places = [(event.occurred_at, event.id) for event in events]
    here = read_cursor(place) if place else None
    older, newer = (places[-1], places[0]) if places else (here, here)
    if end is not None and len(events) < limit:
        older, newer = (older, end) if is_before else (end, newer)
    more_older = any(page.next for page in pages) or (not is_over and not is_before)
    more_newer = any(page.previous for page in pages) or (not is_over and is_before)
    return Page(
        events=events,
        next=cursor_of(*older) if older and more_older else None,
        previous=cursor_of(*newer) if newer and more_newer else None,
        looked_back_to=end[0] if end and len(events) < limit else None,
    )


async def _page(read: Reading, visited: Visit, filters: Filters) -> Page:
    """Return the page of one organisation, or of what a signal points to."""
    signal = visited.address["signal"]
    if signal:
        if signal not in queries.SIGNALS:
            raise InvalidInput(
                f"signal is {signal[:40]!r}; it is one of {', '.join(queries.SIGNALS)}"
            )
        rows = await read.rows(queries.signal_query(signal, read.organization_id))
        return Page(events=[Event(**row) for row in rows], next=None)
    after, before = visited.address["after"] or None, visited.address["before"] or None
    query = PageQuery(
        LISTED,
        filters,
        organization_id=read.organization_id,
        after=after,
        before=before,
        within=min(as_number("within", visited.address["within"] or LOOKED_AT) or 1, FURTHER),
        columns=queries.columns(queries.LISTED),
    )
    page = query.page_of(await read.rows(query.statement))
    if (archive := visited.site.archive) is None:
        return page
    scope = await archive.scope_async(read.conn, read.principal)
    return await _in_time(visited, archive, partial(
        archive.fill, page, scope, filters, LISTED, after=after, before=before))  # fmt: skip


async def _in_time(visited: Visit, archive: Archive, ask: Callable[..., T]) -> T:
    """Ask the archive, no longer than a query may take.

    Raises:
        Problem: it takes longer.
    """
    left = visited.seconds_left
    loop = asyncio.get_running_loop()
    asked = loop.run_in_executor(archive.threads, partial(ask, seconds=left))
    try:
        return await asyncio.wait_for(asked, left + 1)
    except TimeoutError:
        raise Problem("slow") from None


@asynccontextmanager
async def event_of(visited: Visit) -> AsyncIterator[tuple[Event, str, Reading]]:
    """Find the event of a permalink and its organisation; the transaction stays open.

    Raises:
        InvalidInput: the path is that of no event.
        Problem: there is none, or the viewer may not read it.
    """
    at, event_id = read_event_path(visited.request.path_params["place"])
    async with visited.opened() as conn:
        await note_staff(visited, conn)
        for organization in visited.organizations:
            async with visited.reading(conn, organization) as read:
                rows = await read.rows(queries.one_event(at, event_id, read.organization_id))
                if not rows and (archive := visited.site.archive) is not None:
                    scope = await archive.scope_async(read.conn, read.principal)
                    if scope is not None:
                        ask = partial(archive.one, scope, at, event_id)
                        rows = await _in_time(visited, archive, ask)
                if rows:
                    yield Event(**rows[0]), organization, read
                    return
    raise Problem("not_found")


async def note_staff(visited: Visit, conn: AsyncConnection[Any]) -> None:
    """Record that the vendor's staff look at a log, where a customer sees it."""
    if visited.access.is_staff:
        for organization in visited.organizations:
            await record_reading(conn, visited.access, visited.principal(organization), "viewed")
