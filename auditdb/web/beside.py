"""Parts of the first page beside the list: signals, and events a day.

For a large organisation they take longer than the list. Slow results are cached for a minute.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from auditdb.connection.begin import Row, Statement
from auditdb.errors import AuditError
from auditdb.web import queries
from auditdb.web.listing import why_nothing
from auditdb.web.problem import problem_of
from auditdb.web.render import time_of
from auditdb.web.site import Visit

HISTOGRAM = 48
# The cache: minimum duration of a query in seconds, lifetime in seconds, number of entries.
LONG, KEPT, MOST = 0.05, 60, 1_000


async def summary(visited: Visit, conn: AsyncConnection[Any]) -> dict[str, Any]:
    """Return the parts beside the list."""
    is_first = not visited.address["after"] and not visited.address["before"]
    actions: list[str] = []
    logged_rows: list[Row] = []
    bars: dict[Any, Row] = {}
    signals: dict[str, int] = {}
    is_slow = False
    shown_since: datetime | None = None
    for organization in visited.organizations:
        async with visited.reading(conn, organization) as read:
            actions = [row["name"] for row in await read.rows(queries.ACTIONS)]
            logged_rows += await read.rows(queries.LOGGED)
            if len(visited.organizations) == 1:
                [shown] = await read.rows(queries.SHOWN_SINCE)
                shown_since = shown["since"]
            # A cached result was read by another viewer, so check the right again.
            may_read = await why_nothing(read) is None
        if is_first and may_read and not visited.address.is_filtered and not is_slow:
            own = visited.principal(organization).organization_id
            today = datetime.now(visited.zone).date()
            days = await _rows(
                visited, conn, organization, queries.days_query(visited.zone, today, own)
            )
            found = await _rows(visited, conn, organization, queries.signals_query(own))
            is_slow = days is None or found is None
            for row in days or ():
                bar = bars.setdefault(row["day"], {"day": row["day"], "count": 0})
                bar["count"] += row["count"]
            for row in found or ():
                signals[row["name"]] = signals.get(row["name"], 0) + row["count"]
    return {
        "actions": actions,
        "is_slow": is_slow,
        "shown_since": shown_since and time_of(shown_since, visited),
        "signals": [
            {
                "name": visited.words.term("signal", name),
                "count": f"{queries.MOST_SIGNALS}+" if count >= queries.MOST_SIGNALS else count,
                "link": visited.address.only(visited.root + "/", signal=name),
            }
            for name in queries.SIGNALS
            if (count := signals.get(name))
        ],
        "nothing_attached": not logged_rows,
        "bars": queries.bars(list(bars.values()), HISTOGRAM),
        "histogram": HISTOGRAM,
    }


async def _rows(
    visited: Visit, conn: AsyncConnection[Any], organization: str, statement: Statement
) -> list[Row] | None:
    """Return the rows of a query, or None if it takes too long."""
    kept = visited.site.kept
    key = (organization, str(statement))
    began = time.monotonic()
    if key in kept and kept[key][0] > began:
        return kept[key][1]
    kept.pop(key, None)
    try:
        async with visited.reading(conn, organization) as read:
            rows = await read.rows(statement)
    except AuditError as error:
        if problem_of(error).key != "slow":
            raise
        # Not cached: the next page may have more time left.
        return None
    if time.monotonic() - began > LONG:
        if len(kept) >= MOST:
            kept.pop(next(iter(kept)))
        kept[key] = (time.monotonic() + KEPT, rows)
    return rows
