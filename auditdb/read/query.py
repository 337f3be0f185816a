"""The query of one page, which reads the newest months first."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime

from psycopg.sql import SQL, Composable, Identifier

from auditdb.connection.begin import Row, Statement
from auditdb.errors import InvalidInput
from auditdb.read.event import Event, Page, cursor_after, read_cursor
from auditdb.read.filters import Filters, filter_conditions, refuse_unknown

_LONGEST_PAGE = 10_000
# Months before the newest that a page may begin with, in which its events are looked for first.
_WINDOWS = (1, 7, 31)
_NEWEST_FIRST = SQL("order by occurred_at desc, id desc limit %(limit)s")
_COLUMNS = SQL(", ").join(
    SQL("transaction_id::text::bigint as transaction_id")
    if field.name == "transaction_id"
    else Identifier(field.name)
    for field in fields(Event)
)


def page_query(
    limit: int, after: str | None, filters: Filters, organization_id: str | None = None
) -> Statement:
    """Return the query of one page, which asks for one event more than the page holds.

    It reads the newest months, and older ones only if these do not fill the page. Conditions
    compare text with text and time with time: other operators are not leakproof, and row-level
    security would keep them away from any index.

    Raises:
        InvalidInput: an invalid limit, cursor or filter.
    """
    if isinstance(limit, bool) or not 1 <= limit <= _LONGEST_PAGE:
        raise InvalidInput(f"a page cannot hold {limit} events; give 1 to {_LONGEST_PAGE}")
    refuse_unknown(filters)
    conditions, values = filter_conditions(**filters)
    if organization_id is not None:
        conditions.append(SQL("organization_id = %(organization_id)s"))
        values["organization_id"] = organization_id
    now = datetime.now(UTC)
    latest = min(values["until"] or now, now)
    if after is not None:
        # The first comparison is implied by the second, and prunes partitions, as it cannot.
        conditions.append(
            SQL("occurred_at <= %(after_at)s and (occurred_at, id) < (%(after_at)s, %(after_id)s)")
        )
        values["after_at"], values["after_id"] = latest, _ = read_cursor(after)
    since = values["since"]
    starts = [start for start in _months_before(latest) if since is None or start > since]
    values |= {f"start_{n}": start for n, start in enumerate(starts)}
    windows = [_window(n, len(starts), conditions) for n in range(len(starts) + 1)]
    found = SQL(" union all ").join(SQL(f"select * from window_{n}") for n in range(len(windows)))
    query = SQL("with {} {} {}").format(SQL(", ").join(windows), found, _NEWEST_FIRST)
    return query, {**values, "limit": limit + 1}


def _months_before(latest: datetime) -> list[datetime]:
    """Return starts of months: the log is partitioned by these, although any would be correct."""
    months = latest.year * 12 + latest.month - 1
    starts = [divmod(months - back, 12) for back in _WINDOWS]
    return [datetime(year, month + 1, 1, tzinfo=UTC) for year, month in starts if year >= 1]


def _window(number: int, last: int, conditions: list[Composable]) -> Composable:
    """Return the part of a page's query that reads some months, if those before are not enough."""
    conditions = [*conditions]
    if number < last:
        conditions.append(SQL(f"occurred_at >= %(start_{number})s"))
    if number > 0:
        conditions.append(SQL(f"occurred_at < %(start_{number - 1})s"))
    where = SQL("where {} ").format(SQL(" and ").join(conditions)) if conditions else SQL("")
    events = SQL("select {} from audit.event {}{}").format(_COLUMNS, where, _NEWEST_FIRST)
    if number > 0:
        # The planner reckons with the limit within; at 0, that without reads nothing at all.
        counts = SQL(" - ").join(SQL(f"(select count(*) from window_{n})") for n in range(number))
        events = SQL("select * from ({}) as e limit %(limit)s - {}").format(events, counts)
    return SQL("{} as materialized ({})").format(Identifier(f"window_{number}"), events)


def page_of(rows: list[Row], limit: int) -> Page:
    """Return the page that the rows of `page_query` make."""
    events = [Event(**row) for row in rows[:limit]]
    return Page(events=events, next=cursor_after(events[-1]) if len(rows) > limit else None)
