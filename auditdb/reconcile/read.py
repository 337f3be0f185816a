"""Reads the rows of a table, and the events of each, in one order and one snapshot."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composable, Identifier, Literal

from auditdb.errors import Refused
from auditdb.reconcile.replay import Event, event_of
from auditdb.reconcile.told import Told

_PAGE = 1000

# An update of the key belongs to two identifiers: it ends one and begins the other.
_EVENTS: LiteralString = """
select x.id, e.id, e.transaction_id::text, extract(epoch from e.occurred_at)::float8,
    e.captured_from, e.action like '%.baseline', e.old_values::text, e.new_values::text,
    e.details -> 'degraded',
    coalesce(e.details ? 'erased' and e.old_values is null and e.new_values is null, false), x.moved
from audit.event as e
    cross join lateral (
        select {identifier} as id,
            case when e.old_values ?| {key} and e.new_values ?| {key} then 'in' end as moved
        union all
        select {former}, 'out' where e.old_values ?| {key} and e.new_values ?| {key}
    ) as x
where e.id > {since} and e.captured_from = any ({names}) and e.action not like '%.truncated'
    and coalesce(e.details ? 'completes', false) is false
    -- Of a row that moved between organisations, the event of the former one says the same.
    and (e.old_values is null or e.new_values is null
        or coalesce(e.organization_id <> e.details #>> '{{moved,from}}', true))
order by {order}e.id
"""
_ROWS: LiteralString = """
select x.id, (x.image -> 'row')::text, x.image -> 'lost'
from (
    select i.image, i.image ->> 'id' as id
    from (
        select audit_private.{image}(null::{table}, r.*) as image from {only} {table} as r
        offset 0
    ) as i
    offset 0
) as x{order}
"""


def open_events(conn: psycopg.Connection[Any], told: Told) -> Generator[tuple[str | None, Event]]:
    """Yield the events of a table with the identifier of their row, sorted by it, then by id."""
    names = [name for name, until in told.names.items() if until is None]
    query = SQL(_EVENTS).format(
        identifier=SQL("e.details ->> 'row_id'" if told.part == "row_id" else "e.target_id"
                       if told.part else "null::text"),
        former=_former(told), key=Literal(told.key or []), since=Literal(told.since),
        names=Literal(names),
        order=SQL("{}, ").format(_order(conn)) if told.is_keyed else SQL(""),
    )  # fmt: skip
    cursor = psycopg.ServerCursor(conn, "auditdb_events", row_factory=tuple_row)
    cursor.itersize = _PAGE
    with cursor:
        cursor.execute(query)
        for identifier, *rest in cursor:
            yield identifier, event_of(tuple(rest))


def _former(told: Told) -> Composable:
    """Return the identifier that a row had before an update of its key."""
    identifier = SQL("e.details ->> 'row_id'" if told.part == "row_id" else "e.target_id")
    parts = [
        SQL("case when e.old_values ? {name} then {value} else {rest} end").format(
            name=Literal(name), value=_spelt(told, name),
            rest=SQL("split_part({}, ',', {})").format(identifier, Literal(n)))
        for n, name in enumerate(told.key or [], 1)
    ]  # fmt: skip
    return SQL("concat_ws(',', {})").format(SQL(", ").join(parts)) if parts else identifier


def _spelt(told: Told, name: str) -> Composable:
    """Return the SQL of a key value in the form of identifiers."""
    value = SQL("(e.old_values ->> {})").format(Literal(name))
    base = told.columns[name].base if name in told.columns else ""
    if base == "timestamp with time zone":
        return SQL("to_jsonb({}::timestamptz at time zone 'UTC') #>> '{{}}'").format(value)
    return SQL("substr({}, 3)").format(value) if base == "bytea" else value


def open_rows(
    conn: psycopg.Connection[Any], told: Told, table: str, *, has_parts: bool
) -> psycopg.ServerCursor[Any]:
    """Return a cursor of the rows of a table as capture sees them, in the order of the events.

    Raises:
        Refused: row-level security hides rows from the reader.
    """
    query = SQL(_ROWS).format(
        image=Identifier(f"image_{told.id}"), table=SQL(table),
        only=SQL("" if has_parts else "only"),
        order=SQL(" order by {}").format(_order(conn)) if told.is_keyed else SQL(""),
    )  # fmt: skip
    cursor = psycopg.ServerCursor(conn, "auditdb_rows", row_factory=tuple_row)
    cursor.itersize = _PAGE
    try:
        # Raise an error for a policy that hides rows: they would look deleted.
        with conn.transaction():
            psycopg.Cursor(conn).execute("set local row_security = off")
            cursor.execute(query)
            psycopg.Cursor(conn).execute("set local row_security = on")
    except psycopg.errors.InsufficientPrivilege as error:
        cursor.close()
        if "row-level security" not in str(error):
            raise
        raise Refused(
            f"row-level security would hide rows of {told.name} from {conn.info.user}: "
            "run it as a role with bypassrls"
        ) from error
    return cursor


def _order(conn: psycopg.Connection[Any]) -> Composable:
    """Return an order that is the same as in Python."""
    if conn.info.parameter_status("server_encoding") in ("UTF8", "SQL_ASCII"):
        return SQL('x.id collate "C"')
    return SQL("convert_to(x.id, 'UTF8')")
