"""Pages of archived events, with the rights that the reader has now."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor
from psycopg.rows import dict_row

from auditdb.archive.format import COLUMNS, TooLarge, literal, need_duckdb
from auditdb.archive.place import EVENTS, Place, folder
from auditdb.connection.begin import Row
from auditdb.errors import AuditError
from auditdb.read.event import FIRST_ID, Event, Page, cursor_of, read_cursor
from auditdb.read.filters import EQUAL, Filters, filter_conditions
from auditdb.read.viewer import Auditor, Viewer
from auditdb.values.convert import from_json

if TYPE_CHECKING:
    import duckdb

# Runs in the transaction of a viewer or an auditor: which events they may read, and which months
# exist only in the archive. An expired token reads nothing.
_SCOPE: LiteralString = """
select a.database, a.months, v.organization_id, v.first_id, nullif(v.since, '-infinity') as since,
    array(select s.id from audit.series as s where s.began <> 'continued' order by s.id) as series,
    array(select s.after_id from audit.series as s where s.began <> 'continued' order by s.id)
        as after_ids
from audit_private.archived_months() as a cross join (select {} offset 0) as v
"""
# Each value is computed once. If one is null, nothing is read.
_VIEWER = _SCOPE.replace("{}", """audit.viewer_organization() as organization_id,
    (audit_private.viewer_start())[1] as first_id,
    (audit_private.visible_since())[1] as since""") + (
    "where v.organization_id is not null and v.first_id is not null and v.since is not null"
)  # fmt: skip
_AUDITOR = _SCOPE.replace("{}", """%(organization_id)s::text as organization_id,
    null::bigint as first_id, null::timestamptz as since""")  # fmt: skip
# The conditions of filters.py in the SQL of DuckDB.
_CONDITIONS = {
    **{name: f"{name} = ${name}" for name in EQUAL},
    "category": "action > $category and action < $category_end",
    "person_id": "(actor_id = $person_id or impersonator_id = $person_id"
    " or subject_id = $person_id)",
    "actor_id": "(actor_id = $actor_id or impersonator_id = $actor_id)",
    "ip": "json_extract_string(details, '$.ip') = $ip",
    "transaction_id": "transaction_id = $transaction_id",
    "text": "(list_contains($text_ids, actor_id) or list_contains($text_ids, impersonator_id)"
    " or list_contains($text_ids, subject_id) or list_contains($text_ids, target_id)"
    " or contains(lower(concat_ws(' ', action, actor_id, impersonator_id, subject_id, target_id,"
    " case when strlen(new_values) < 4000 then new_values end,"
    " case when strlen(old_values) < 4000 then old_values end,"
    " case when strlen(details) < 4000 then details end)), lower($text)))",
    "since": "occurred_at >= $since",
    "until": "occurred_at < $until",
}
_APART = "(captured_from is null or action not like '%.baseline')"
# Number of months per query, until the page is full.
_STEPS = (1, 2, 9, 36)
_JSON = ("old_values", "new_values", "details")


class TooSlow(AuditError, TimeoutError):
    """The archive did not answer in time."""


class Archive:
    """The archived months of a log, for readers to read together with the database.

    Create one and keep it. It is safe to use from several threads.

    Args:
        url: where the archive is.

    Raises:
        InvalidInput: the address is invalid, or a package is missing.

    Example:
        >>> archive = Archive("s3://audit/archive")  # doctest: +SKIP
        >>> log = auditdb.reader(conn, key=key, viewer_id=1, organization_id=1,
        ...                      archive=archive)  # doctest: +SKIP
    """

    def __init__(self, url: str) -> None:
        self._place = Place(url)
        self._duck: duckdb.DuckDBPyConnection = need_duckdb().connect(
            config={
                "memory_limit": "512MB", "threads": 2, "autoinstall_known_extensions": "false",
                # Otherwise DuckDB would write events to the current directory.
                "autoload_known_extensions": "false", "temp_directory": "",
            }
        )  # fmt: skip
        self._duck.execute("set timezone = 'UTC'")
        self._place.register(self._duck)
        self._lock = threading.Lock()
        # Its own threads: a store that hangs must not block those of the application.
        self.threads = ThreadPoolExecutor(4, "auditdb-archive")

    @staticmethod
    def scope_query(principal: Viewer | Auditor) -> tuple[LiteralString, dict[str, Any]]:
        """Return the query of `scope`, which returns at most one row."""
        if isinstance(principal, Auditor):
            return _AUDITOR, {"organization_id": principal.organization_id}
        return _VIEWER, {}

    def scope(self, conn: Connection[Any], principal: Viewer | Auditor) -> Row | None:
        """Return what the reader may read of the archive; runs in the transaction of the reader."""
        return Cursor(conn, row_factory=dict_row).execute(*self.scope_query(principal)).fetchone()

    async def scope_async(
        self, conn: AsyncConnection[Any], principal: Viewer | Auditor
    ) -> Row | None:
        """Return the same as `scope`, asynchronously."""
        cursor = AsyncCursor(conn, row_factory=dict_row)
        return await (await cursor.execute(*self.scope_query(principal))).fetchone()

    @staticmethod
    def since(scope: Row, older_than: tuple[datetime, int] | None) -> tuple[bool, datetime | None]:
        """Return whether the events before a position are in archived months, and back to when.

        Args:
            scope: what `scope` returned.
            older_than: time and id of an event. None means all events.

        Returns:
            Whether they are, and the time at which the archived months begin; None: no bound.
        """
        is_archived, since = False, None
        for start in map(_start, reversed(scope["months"])):
            end = (start + timedelta(days=32)).replace(day=1)
            if is_archived and end != since:
                break
            if not is_archived and (older_than is None or (end, FIRST_ID) < older_than):
                return False, end
            if older_than is not None and (start, FIRST_ID) < older_than:
                is_archived, since = True, start
        return is_archived, since

    def fill(
        self, live: Page, scope: Row | None, filters: Filters, limit: int, *,
        after: str | None = None, before: str | None = None, seconds: float | None = None,
    ) -> Page:  # fmt: skip
        """Return a page of the database, completed with the archived events of its range.

        Args:
            live: the page of the database.
            scope: what `scope` returned: what the reader may read.
            filters: those of the page.
            limit: the most events that it may hold.
            after: its cursor, if it is after one.
            before: its cursor, if it is before one.
            seconds: time limit of a query of the archive. Default: none.

        Raises:
            AuditError: the archive cannot be read.
        """
        if scope is None:
            return live
        older = read_cursor(after) if after else None
        newer = read_cursor(before) if before else None
        # Events beyond the end of the page of the database belong to the next page.
        if before and live.previous:
            older = read_cursor(live.previous)
        elif not before and live.next:
            newer = read_cursor(live.next)
        found = self.rows(scope, filters, limit + 1, older_than=older, newer_than=newer,
                          oldest_first=bool(before), seconds=seconds)  # fmt: skip
        if not found:
            return live
        events = sorted(
            [*live.events, *(Event(**row) for row in found)],
            key=lambda event: (event.occurred_at, event.id),
            reverse=True,
        )
        is_over = len(events) > limit
        events = events[-limit:] if before else events[:limit]
        newest, oldest = (cursor_of(e.occurred_at, e.id) for e in (events[0], events[-1]))
        if before:
            previous = newest if is_over else live.previous
            return Page(events=events, next=oldest, previous=previous,
                        looked_back_to=None if is_over else live.looked_back_to)  # fmt: skip
        return Page(events=events, next=oldest if is_over else live.next,
                    previous=newest if after else None,
                    looked_back_to=None if is_over else live.looked_back_to)  # fmt: skip

    def one(
        self, scope: Row, at: datetime, event_id: int, *, seconds: float | None = None
    ) -> list[Row]:
        """Return the event of a time and an id, or None."""
        moment = timedelta(microseconds=1)
        return self.rows(
            scope, {"baseline": True, "since": at, "until": at + moment}, 1, older_than=None,
            newer_than=None, event_id=event_id, seconds=seconds,
        )  # fmt: skip

    def rows(
        self, scope: Row, filters: Filters, limit: int, *, older_than: tuple[datetime, int] | None,
        newer_than: tuple[datetime, int] | None, oldest_first: bool = False,
        event_id: int | None = None, seconds: float | None = None,
    ) -> list[Row]:  # fmt: skip
        """Return events as rows of `Event`, by default newest first.

        Args:
            scope: what `scope` returned: what the reader may read.
            filters: see `Reader`.
            limit: the most.
            older_than: time and id of an event before which they are.
            newer_than: time and id of an event after which they are.
            oldest_first: return the oldest events, oldest first.
            event_id: only this one.
            seconds: as of `fill`.

        Raises:
            AuditError: the archive cannot be read, or not in time.
        """
        found = self._rows(scope, filters, limit, older_than, newer_than, oldest_first=oldest_first,
                           event_id=event_id, seconds=seconds)  # fmt: skip
        return [_event(row, scope) for row in found]

    def json(
        self, scope: Row, filters: Filters, limit: int, *, older_than: tuple[datetime, int],
        since: datetime, seconds: float | None = None,
    ) -> tuple[str, int]:  # fmt: skip
        """Return events, newest first, as a JSON array of rows of audit.event, and the limit.

        Args:
            scope: what `scope` returned: what the reader may read.
            filters: see `Reader`.
            limit: the most. If they do not fit into memory, a lower limit is used and returned.
            older_than: time and id of an event before which they are.
            since: the time from which they are.
            seconds: as of `fill`.

        Raises:
            AuditError: the archive cannot be read, or not in time.
        """
        while True:
            try:
                rows = self._rows(
                    scope, filters, limit, older_than, (since, FIRST_ID), seconds=seconds
                )
            except TooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // 8)
                continue
            return f"[{','.join(map(_json, rows))}]", limit

    def _rows(
        self, scope: Row, filters: Filters, limit: int, older_than: tuple[datetime, int] | None,
        newer_than: tuple[datetime, int] | None, *, oldest_first: bool = False,
        event_id: int | None = None, seconds: float | None = None,
    ) -> list[Row]:  # fmt: skip
        conditions, values = _conditions(filters)
        bounds = _bounds(scope, values, older_than, newer_than, conditions)
        if event_id is not None:
            conditions.append("id = $event_id")
            values["event_id"] = event_id
        months = [m for m in scope["months"] if _touches(m, *bounds)]
        if not oldest_first:
            months.reverse()
        order = "occurred_at, id" if oldest_first else "occurred_at desc, id desc"
        found: list[Row] = []
        for part in _parts(months):
            paths = ", ".join(
                literal(self._place.address(f"{folder(scope['database'], month)}/{EVENTS}"))
                for month in part
            )
            found += self._ask(
                f"select {', '.join(COLUMNS)} from read_parquet([{paths}], hive_partitioning = "
                f"false) where {' and '.join(conditions)} order by {order} "
                f"limit {limit - len(found)}",
                values,
                seconds,
            )
            if len(found) >= limit:
                break
        return found

    def _ask(self, query: str, values: dict[str, Any], seconds: float | None) -> list[Row]:
        given = {name: value for name, value in values.items() if f"${name}" in query}
        with self._lock:
            cursor = self._duck.cursor()
        timer = threading.Timer(seconds or 0, cursor.interrupt)
        if seconds is not None:
            timer.start()
        try:
            cursor.execute(query, given)
            rows = cursor.fetchall()
        except Exception as error:  # Each store has its own error types.
            if isinstance(error, need_duckdb().OutOfMemoryException):
                raise TooLarge("the archive's events do not fit into its memory") from error
            if timer.is_alive() or seconds is None:
                reason = " ".join(str(error).split())[:300] or type(error).__name__
                raise AuditError(f"cannot read the archive: {reason}") from error
            raise TooSlow(f"the archive took longer than {seconds:.1f} s") from error
        finally:
            timer.cancel()
            cursor.close()
        return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def _conditions(filters: Filters) -> tuple[list[str], dict[str, Any]]:
    _, values = filter_conditions(**filters)
    series = values.pop("series_id")
    given = [text for name, text in _CONDITIONS.items() if values[name] is not None]
    if not filters.get("baseline") and filters.get("action") is None:
        given.append(_APART)
    if series is not None:
        given.append("id > $series_after and id <= $series_until")
        values["series"] = series
    return given, values


def _bounds(
    scope: Row, values: dict[str, Any], older_than: tuple[datetime, int] | None,
    newer_than: tuple[datetime, int] | None, conditions: list[str],
) -> tuple[datetime, datetime]:  # fmt: skip
    """Add the conditions of the right and of the page; return the remaining time range."""
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    if scope["organization_id"] is not None:
        conditions.append("organization_id = $organization_id")
        values["organization_id"] = scope["organization_id"]
    if scope["first_id"] is not None:
        conditions.append("id >= $first_id")
        values["first_id"] = scope["first_id"]
    if scope["since"] is not None:
        conditions.append("occurred_at >= $visible_since")
        values["visible_since"] = first = scope["since"]
    if older_than is not None:
        conditions.append("occurred_at <= $older_at and (occurred_at, id) < ($older_at, $older_id)")
        values["older_at"], values["older_id"] = older_than
        last = older_than[0]
    if newer_than is not None:
        conditions.append("occurred_at >= $newer_at and (occurred_at, id) > ($newer_at, $newer_id)")
        values["newer_at"], values["newer_id"] = newer_than
        first = max(first, newer_than[0])
    if "series" in values:
        ends = [*scope["after_ids"][1:], 2**63 - 1]
        places = dict(zip(scope["series"], zip(scope["after_ids"], ends, strict=True), strict=True))
        values["series_after"], values["series_until"] = places.get(values.pop("series"), (0, -1))
    return max(first, values["since"] or first), min(last, values["until"] or last)


def _start(month: str) -> datetime:
    return datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)


def _touches(month: str, first: datetime, last: datetime) -> bool:
    starts = _start(month)
    ends = (starts + timedelta(days=32)).replace(day=1)
    return starts <= last and ends > first


def _parts(months: list[str]) -> Iterator[list[str]]:
    steps = iter(_STEPS)
    while months:
        step = next(steps, _STEPS[-1])
        yield months[:step]
        months = months[step:]


def _json(row: Row) -> str:
    parts = (
        f"{json.dumps(name)}:{value if name in _JSON else json.dumps(value, default=str)}"
        for name, value in row.items()
        if value is not None
    )
    return "{" + ",".join(parts) + "}"


def _event(row: Row, scope: Row) -> Row:
    """Convert a row to the types of `Event`."""
    for name in _JSON:
        row[name] = None if row[name] is None else from_json(row[name])
    before = [s for s, after in zip(scope["series"], scope["after_ids"], strict=True)
              if after < row["id"]]  # fmt: skip
    row["series_id"] = max(before, default=None)
    return row
