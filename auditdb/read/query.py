"""The queries of a page: one reads the newest months first, one looks at a limited number."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import LiteralString

from psycopg.sql import SQL, Composable, Composed, Identifier

from auditdb.connection.begin import Row, Statement
from auditdb.errors import InvalidInput
from auditdb.read.event import Event, Page, cursor_of, read_cursor
from auditdb.read.filters import OF_TIME, Filters, filter_conditions, refuse_unknown

_LONGEST_PAGE = 10_000
# Number of months, back from the newest possible one, in which events are searched first.
_WINDOWS = (1, 7, 31)
_MOST_LOOKED_AT = 10_000_000
# Fast path: nearly every event is of the last series, which is looked up once.
SERIES: LiteralString = (
    "case when event.id > (select max(series.after_id) from audit.series as series "
    "where series.began <> 'continued') then (select max(series.id) from audit.series as series "
    "where series.began <> 'continued') else (select max(series.id) from audit.series as series "
    "where series.began <> 'continued' and series.after_id < event.id) end"
)
_NEWEST_FIRST = SQL("order by occurred_at desc, id desc limit %(limit)s")
_OLDEST_FIRST = SQL("order by occurred_at, id limit %(limit)s")


def column(name: str) -> Composable:
    """Return a field of `Event`, of a row of `audit.event` that is called event."""
    if name == "series_id":
        return SQL(f"{SERIES} as series_id")
    if name == "transaction_id":
        return SQL("transaction_id::text::bigint as transaction_id")
    return Identifier(name)


_COLUMNS = SQL(", ").join(column(field.name) for field in fields(Event))


class PageQuery:
    """The query of a page: a number of events of an organisation, newest first, from a position.

    Args:
        limit: the most events that the page may hold, 1 to 10,000.
        filters: see `Reader`.
        organization_id: for an auditor, the organisation whose events are read.
        after: a cursor; events older than its place.
        before: a cursor; events newer than its place.
        within: the most events of the organisation that are looked at. Default: all.
        columns: of an event, which are made of those of `audit.event`.

    Raises:
        InvalidInput: an invalid limit, cursor or filter.
    """

    def __init__(
        self,
        limit: int,
        filters: Filters,
        *,
        organization_id: str | None = None,
        after: str | None = None,
        before: str | None = None,
        within: int | None = None,
        columns: Composable = _COLUMNS,
    ) -> None:
        if isinstance(limit, bool) or not 1 <= limit <= _LONGEST_PAGE:
            raise InvalidInput(f"a page cannot hold {limit} events; give 1 to {_LONGEST_PAGE}")
        if within is not None and (isinstance(within, bool) or not 1 <= within <= _MOST_LOOKED_AT):
            raise InvalidInput(f"a page cannot look at {within} events; give 1 to 10,000,000")
        if after is not None and before is not None:
            raise InvalidInput("a page is after a cursor or before one, not both")
        refuse_unknown(filters)
        self._limit, self._within, self._columns = limit, within, columns
        self._after, self._before = after, before
        conditions, self._values = filter_conditions(**filters)
        self._range = [condition for condition in conditions if condition in OF_TIME]
        self._conditions = [condition for condition in conditions if condition not in OF_TIME]
        if organization_id is not None:
            self._range.append(SQL("organization_id = %(organization_id)s"))
            self._values["organization_id"] = organization_id
        now = datetime.now(UTC)
        self._latest = min(self._values["until"] or now, now)
        # Redundant, but only the first comparison prunes partitions.
        if after is not None:
            self._latest, _ = self._at(after)
            self._range.append(
                SQL("occurred_at <= %(at)s and (occurred_at, id) < (%(at)s, %(id)s)")
            )
        elif before is not None:
            self._at(before)
            self._range.append(
                SQL("occurred_at >= %(at)s and (occurred_at, id) > (%(at)s, %(id)s)")
            )

    def leave_out(self, event_id: int | None) -> None:
        """Leave out the event that records this read."""
        if event_id is not None:
            self._range.append(SQL("id <> %(own_id)s"))
            self._values["own_id"] = event_id

    def _at(self, cursor: str) -> tuple[datetime, int]:
        at, number = read_cursor(cursor)
        self._values |= {"at": at, "id": number}
        return at, number

    @property
    def statement(self) -> Statement:
        """The query, which asks for one event more than the page holds, and its values.

        Conditions compare only text with text and time with time: other operators are not
        leakproof, so row-level security would prevent the use of an index.
        """
        self._values["limit"] = self._limit + 1
        if self._within is not None and self._conditions:
            return self._bounded(self._within), self._values
        conditions = [*self._range, *self._conditions]
        if self._before is not None:
            where = _where(conditions)
            oldest = SQL("select {} from audit.event {}{}")
            return oldest.format(self._columns, where, _OLDEST_FIRST), self._values
        since = self._values["since"]
        starts = [s for s in _months_before(self._latest) if since is None or s > since]
        self._values |= {f"start_{n}": start for n, start in enumerate(starts)}
        windows = [
            _window(n, len(starts), conditions, self._columns) for n in range(len(starts) + 1)
        ]
        found = SQL(" union all ").join(
            SQL(f"select * from window_{n}") for n in range(len(windows))
        )
        query = SQL("with {} {} {}").format(SQL(", ").join(windows), found, _NEWEST_FIRST)
        return query, self._values

    def _bounded(self, within: int) -> Composed:
        """Return the query that looks at a limited number of events, and fetches those that pass.

        If the filters need only columns of an index, other events are read only in the index. If
        the limit ends the search before the page is full, the last row is the position where it
        ended.
        """
        self._values["within"] = within
        order = SQL("occurred_at, id" if self._before else "occurred_at desc, id desc")
        return SQL(
            "with looked_at as materialized ("
            "select occurred_at, id, {passes} as passes from audit.event {where}"
            "order by {order} limit %(within)s), "
            "found as materialized ("
            "select occurred_at, id from looked_at where passes order by {order} limit %(limit)s), "
            "ended as (select occurred_at, id from looked_at "
            "where (select count(*) from found) < %(limit)s offset %(within)s - 1) "
            "select {columns}, false as is_end from (select e.* from found cross join lateral ("
            "select * from audit.event as e "
            "where e.occurred_at = found.occurred_at and e.id = found.id) as e) as event "
            "union all "
            "select {nothing}, true from ended"
        ).format(
            passes=SQL(" and ").join(self._conditions),
            where=_where(self._range),
            order=order,
            columns=self._columns,
            nothing=SQL(", ").join(
                SQL("ended.{}").format(Identifier(field.name))
                if field.name in ("id", "occurred_at")
                else SQL("null")
                for field in fields(Event)
            ),
        )

    def page_of(self, rows: list[Row]) -> Page:
        """Return the page that the rows of the query make."""
        end: tuple[datetime, int] | None = None
        rows = [*rows]
        for row in rows:
            if row.pop("is_end", False):
                end = row["occurred_at"], row["id"]
        if end is not None:
            rows = [row for row in rows if row["actor_type"] is not None]
        rows.sort(key=lambda row: (row["occurred_at"], row["id"]), reverse=True)
        is_full = len(rows) > self._limit
        if self._before is not None:
            events = [Event(**row) for row in rows[-self._limit :]]
        else:
            events = [Event(**row) for row in rows[: self._limit]]
        newest = cursor_of(events[0].occurred_at, events[0].id) if events else None
        oldest = cursor_of(events[-1].occurred_at, events[-1].id) if events else None
        further = cursor_of(*end) if end is not None else None
        if self._before is not None:
            return Page(
                events=events,
                next=oldest or self._before,
                previous=newest if is_full else further,
                looked_back_to=end and end[0],
            )
        return Page(
            events=events,
            next=oldest if is_full else further,
            previous=newest or self._after if self._after else None,
            looked_back_to=end and end[0],
        )


def _where(conditions: list[Composable]) -> Composable:
    return SQL("where {} ").format(SQL(" and ").join(conditions)) if conditions else SQL("")


def _months_before(latest: datetime) -> list[datetime]:
    """Return starts of months: the log is partitioned by these, although any would be correct."""
    months = latest.year * 12 + latest.month - 1
    starts = [divmod(months - back, 12) for back in _WINDOWS]
    return [datetime(year, month + 1, 1, tzinfo=UTC) for year, month in starts if year >= 1]


def _window(
    number: int, last: int, conditions: list[Composable], columns: Composable
) -> Composable:
    """Return the part of a page's query that reads some months, if those before are not enough."""
    conditions = [*conditions]
    if number < last:
        conditions.append(SQL(f"occurred_at >= %(start_{number})s"))
    if number > 0:
        conditions.append(SQL(f"occurred_at < %(start_{number - 1})s"))
    events = SQL("select {} from audit.event {}{}").format(
        columns, _where(conditions), _NEWEST_FIRST
    )
    if number > 0:
        # The inner limit is for the planner. The outer limit may be 0; then nothing is read at all.
        counts = SQL(" - ").join(SQL(f"(select count(*) from window_{n})") for n in range(number))
        events = SQL("select * from ({}) as e limit %(limit)s - {}").format(events, counts)
    return SQL("{} as materialized ({})").format(Identifier(f"window_{number}"), events)
