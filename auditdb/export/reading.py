"""Batches of events by ticks, each with the cursor of the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from auditdb.errors import from_psycopg
from auditdb.read.event import Event
from auditdb.read.query import SERIES
from auditdb.values.arguments import as_list

_NAMES = [field.name for field in fields(Event)]
_COLUMNS = {
    "transaction_id": "(event).transaction_id::text::bigint",
    "series_id": SERIES.replace("event.id", "(event).id"),
}
_QUERY = (
    "select series_id, tick_id, cursor, is_more, "
    + ", ".join(_COLUMNS.get(name, f"(event).{name}") for name in _NAMES)
    + " from audit.events_since(%s::text, %s, %s::text, %s::text[])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Events in the order of ticks, time and id, and the cursor to continue from.

    `places` holds series and tick of each event: a `transaction_id` is unique within a series.
    Save `cursor` after the events are safe; it is None while the log has no tick. `is_more` says
    whether to read again at once.
    """

    events: list[Event]
    places: list[tuple[int, int]]
    cursor: str | None
    is_more: bool


def read(
    conn: psycopg.Connection[Any],
    cursor: str | None = None,
    *,
    at_most: int = 1000,
    organization_id: str | None = None,
    actions: Sequence[str] | None = None,
) -> Batch:
    """Return the events after a cursor, as an auditor, or as a viewer whose token is set.

    A committed event is in the second next batch, at most a second later: a read makes a tick, and
    the next read returns its events. So the connection must commit in between.

    Args:
        conn: a connection of a role with audit_auditor or audit_reader, in autocommit.
        cursor: the cursor of the batch before. None is the beginning of the log, "now" its end.
        at_most: the maximum number of events, 1 to 100,000.
        organization_id: only events of this organisation.
        actions: only these actions. A word without a dot is a category.

    Raises:
        AuditError: the cursor is invalid, or of a tick that this database does not have.
        InvalidInput: `actions` is a string instead of a list.
    """
    with _audit_errors(), conn.cursor(row_factory=tuple_row) as opened:
        opened.execute(_QUERY.encode(), _arguments(cursor, at_most, organization_id, actions))
        return _batch(opened.fetchall())


async def read_async(
    conn: psycopg.AsyncConnection[Any],
    cursor: str | None = None,
    *,
    at_most: int = 1000,
    organization_id: str | None = None,
    actions: Sequence[str] | None = None,
) -> Batch:
    """Return the events after a cursor on an asynchronous connection; see `read`."""
    with _audit_errors():
        async with conn.cursor(row_factory=tuple_row) as opened:
            await opened.execute(
                _QUERY.encode(), _arguments(cursor, at_most, organization_id, actions)
            )
            return _batch(await opened.fetchall())


@contextmanager
def _audit_errors() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise from_psycopg(error) from error


def _arguments(
    cursor: str | None, at_most: int, organization_id: str | None, actions: Sequence[str] | None
) -> list[Any]:
    return [cursor, at_most, organization_id, as_list("actions", actions)]


def _batch(rows: list[tuple[Any, ...]]) -> Batch:
    *found, last = rows
    return Batch(
        events=[Event(**dict(zip(_NAMES, row[4:], strict=True))) for row in found],
        places=[(row[0], row[1]) for row in found],
        cursor=last[2],
        is_more=last[3],
    )
