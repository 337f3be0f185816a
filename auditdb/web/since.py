"""Polling: every committed event of an organisation once, in order, from a cursor on, as JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg import AsyncConnection
from psycopg.sql import SQL, Composed
from starlette.responses import Response

from auditdb.connection.begin import Row, Statement, begin_with_async
from auditdb.errors import AuditError, InvalidInput
from auditdb.read.filters import as_number, filter_conditions
from auditdb.web import queries
from auditdb.web.address import CHOSEN
from auditdb.web.listing import PROBLEMS, note_staff
from auditdb.web.problem import Problem
from auditdb.web.reading import Reading, bounded
from auditdb.web.site import Visit

# Number of events of a response, default and maximum; and its maximum size in bytes.
FEW, MOST, BYTES = 100, 1000, 8_000_000

# What is committed is in a tick that was committed before: so one is made in a transaction of its
# own, at most each second. Events that are moved meanwhile are seen under READ COMMITTED alone.
_COMMITTED: Statement = ("set transaction isolation level read committed", [])
_TICK: Statement = ("select audit_private.try_tick()", [])
_SINCE = SQL(
    "with batch as materialized (select b.n, b.cursor, b.is_more, s.key, b.tick_id, b.event, "
    "audit.canonical(b.event, s.key) as line from audit.events_since("
    "%(cursor)s::text, %(limit)s::int, %(organization)s::text, %(actions)s::text[]"
    ") with ordinality as b (series_id, tick_id, event, cursor, is_more, n) "
    "left join audit.series as s on s.id = b.series_id), "
    "sized as (select *, sum(octet_length(line)) over (order by n) - octet_length(line) as behind "
    "from batch) "
    "select n, line, is_more, coalesce(cursor, "
    "audit_private.tick_cursor(key, tick_id, (event).occurred_at, (event).id)) as cursor "
    "from sized where line is null or behind < {} order by n"
)


async def since(visited: Visit) -> Response:
    """Return the events after a cursor, in the order of ticks, and the next cursor."""
    organization, query = _query_of(visited)
    async with visited.opened() as conn:
        await note_staff(visited, conn)
        await _close_tick(visited, conn, organization)
        async with _reading(visited, conn, organization) as read:
            *found, last = await read.rows(query)
    # If the size limit ended it, continue after its last event.
    is_cut = len(found) < last["n"] - 1
    return _answer([row["line"] for row in found], found[-1] if is_cut else last, is_cut)


def _query_of(visited: Visit) -> tuple[str, tuple[Composed, dict[str, object]]]:
    """Return of which organisation, and the query.

    Raises:
        InvalidInput: a value is none, there are several organisations, or another filter is given.
    """
    address = visited.address
    for name in CHOSEN:
        if address[name] and name != "action":
            raise InvalidInput(f"{name} is no filter here; give action, an action or a category")
    if len(visited.organizations) > 1:
        raise InvalidInput("each organisation has cursors of its own; give organization")
    (organization,) = visited.organizations
    filters = address.filters(visited.zone)
    filter_conditions(**filters)  # Refuses what is no action.
    action = filters.get("action") or filters.get("category")
    limit = as_number("limit", address["limit"] or FEW)
    if not limit or limit > MOST:
        raise InvalidInput(f"limit is {limit}; give a number from 1 to {MOST}")
    return organization, (
        _SINCE.format(BYTES),
        {"cursor": address["cursor"] or None, "limit": limit,
         "organization": visited.principal(organization).organization_id,
         "actions": [action] if action else None},
    )  # fmt: skip


async def _close_tick(visited: Visit, conn: AsyncConnection[object], organization: str) -> None:
    """Make a tick, so that committed events can be read, if the viewer may read."""
    principal = visited.principal(organization)
    token: Statement = (
        "select pg_catalog.set_config('auditdb.viewer', %s, true)", [principal.token()]
    )  # fmt: skip
    statements = [_COMMITTED, bounded(visited.seconds_left), token]
    if not visited.access.is_staff:
        statements.append(queries.PROBLEM)
    rows: list[Row]
    try:
        async with begin_with_async(conn, principal.role, *statements) as (_, rows):
            if problem := rows[0].get("problem"):
                raise Problem(PROBLEMS[problem])
            await Reading(conn, principal).rows(_TICK)
    except AuditError as error:
        # Of a large log nobody made one for long; there are those of before.
        if getattr(error.__cause__, "sqlstate", None) != "57014":
            raise


@asynccontextmanager
async def _reading(
    visited: Visit, conn: AsyncConnection[object], organization: str
) -> AsyncIterator[Reading]:
    try:
        async with visited.reading(conn, organization, _COMMITTED) as read:
            yield read
    except AuditError as error:
        state = getattr(error.__cause__, "sqlstate", None)
        if state == "22023":
            raise InvalidInput(str(error)) from error
        if state == "55000":
            raise Problem("cursor_lost") from error
        if state == "42501":
            raise Problem("forbidden") from error
        raise


def _answer(lines: list[str], last: Row, is_cut: bool) -> Response:
    """Return the events as they are exported, byte for byte, in an object."""
    body = b'{"events":[%s],"cursor":%s,"is_more":%s}' % (
        b",".join(line.encode() for line in lines),
        json.dumps(last["cursor"]).encode(),
        json.dumps(is_cut or last["is_more"]).encode(),
    )
    return Response(body, media_type="application/json")
