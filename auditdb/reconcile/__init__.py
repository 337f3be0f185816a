"""Replays the log of attached tables against their rows, and says where they differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL

from auditdb.connection.checks import check_connection, raises_audit_errors
from auditdb.connection.progress import Progress
from auditdb.errors import Refused
from auditdb.reconcile.bag import Vague, compare_counts, compare_images
from auditdb.reconcile.compare import Comparison, row_of
from auditdb.reconcile.found import Difference, Reconciled
from auditdb.reconcile.read import open_events, open_rows
from auditdb.reconcile.told import Told, describe
from auditdb.reconcile.values import Spelling

__all__ = ["Difference", "Reconciled", "reconcile"]

_SET = """
select pg_catalog.set_config(name, value, true)
from (values ('search_path', 'pg_catalog, pg_temp'), ('TimeZone', 'UTC'), ('DateStyle', 'ISO'),
    ('IntervalStyle', 'postgres'), ('row_security', 'on'), ('cursor_tuple_fraction', '1'),
    ('standard_conforming_strings', 'on'), ('statement_timeout', '0'),
    ('idle_in_transaction_session_timeout', '0')) as s (name, value)
"""
_TABLES = """
select a.target, a.name, audit_private.table_name(a.target) as present, c.relkind,
    has_schema_privilege(c.relnamespace, 'usage') as may_look,
    has_table_privilege(c.oid, 'select') as may_read,
    (select o.relowner::regrole::text from pg_class as o
        where o.oid = audit_private.foreign_to_plan(a.target)) as runs_as,
    pg_catalog.pg_has_role('audit_auditor', 'usage') as is_auditor
from audit_private.attachment as a
    left join pg_class as c on c.oid = a.target and c.reltype = a.row_type
where a.kind <> 'admin' and (%(target)s::oid is null or a.target = %(target)s)
order by a.name
"""


def reconcile(
    conn: psycopg.Connection[Any],
    table: str | None = None,
    *,
    limit: int = 100,
    progress: Progress | None = None,
) -> Iterator[Reconciled]:
    """Compare attached tables with what the log says of them, a table at a time.

    It only reads. Each table is read in one snapshot, so that writers can continue and cause no
    differences. The snapshot is held until the table is compared, as by pg_dump. Rows and events
    come sorted and in pages, so memory use is constant.

    Args:
        conn: a connection of a member of `audit_auditor` who may also read the tables.
        table: the name of a table, as PostgreSQL writes it. Default: all attached tables.
        limit: the maximum number of differences to keep for each table; all are counted.
        progress: called with the number of rows compared since the last call, and the table.

    Raises:
        Refused: no such table, not attached, no privilege, or the connection is within a
            transaction.

    Example:
        >>> [t.table for t in reconcile(conn) if t.found]  # doctest: +SKIP
        ['public.membership']
    """
    check_connection(conn, is_async=False)
    if conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        raise Refused("reconcile needs its own snapshots; call it outside of a transaction")
    for entry in _entries(conn, table):
        yield _reconcile(conn, entry, limit, progress, is_asked=table is not None)


def _entries(conn: psycopg.Connection[Any], table: str | None) -> list[dict[str, Any]]:
    """Return the tables to compare."""
    with raises_audit_errors(conn, "audit_auditor"), conn.transaction(force_rollback=True):
        cursor = psycopg.Cursor(conn, row_factory=dict_row)
        target = None
        if table is not None:
            # By the search_path of the caller.
            row = cursor.execute("select pg_catalog.to_regclass(%s)::oid as oid", (table,))
            target = (row.fetchone() or {})["oid"]
            if target is None:
                raise Refused(f"there is no table {table}; auditdb status lists what is attached")
        cursor.execute(_SET)
        found = cursor.execute(_TABLES, {"target": target}).fetchall()
    if table is not None and not found:
        raise Refused(f"{table} is not attached; auditdb status lists what is")
    return found


def _hindrance(conn: psycopg.Connection[Any], entry: dict[str, Any]) -> str | None:
    """Return why a table cannot be read, with a remedy."""
    name, user = entry["name"], psycopg.sql.Identifier(conn.info.user).as_string(None)
    if entry["present"] is None or entry["relkind"] is None:
        return f"{name} is gone, or another table has its name: auditdb doctor says what to do"
    if not entry["is_auditor"]:
        return f"{user} may not read the log; run: grant audit_auditor to {user}"
    if not entry["may_look"]:
        schema = entry["present"].rpartition(".")[0]
        return f"{user} may not look into the schema of {name}; run: grant usage on schema " \
               f"{schema} to {user}"  # fmt: skip
    if not entry["may_read"]:
        return f"{user} may not read {name}; run: grant select on {entry['present']} to {user}"
    if entry["runs_as"]:
        return f"reading {name} would run functions of its owner as {user}; " \
               f"run it as {entry['runs_as']}, who needs audit_auditor"  # fmt: skip
    return None


def _reconcile(
    conn: psycopg.Connection[Any],
    entry: dict[str, Any],
    limit: int,
    progress: Progress | None,
    *,
    is_asked: bool,
) -> Reconciled:
    made = Reconciled(table=entry["present"] or entry["name"], skipped=_hindrance(conn, entry))
    if made.skipped is None:
        try:
            with raises_audit_errors(conn, "audit_auditor"):
                _compare(conn, entry, made, limit, progress)
        except Refused as error:
            if conn.closed:
                raise
            made.skipped = str(error)
    if made.skipped and is_asked:
        raise Refused(made.skipped)
    return made


def _compare(
    conn: psycopg.Connection[Any],
    entry: dict[str, Any],
    made: Reconciled,
    limit: int,
    progress: Progress | None,
) -> None:
    """Compare a table in a transaction of its own."""
    with conn.transaction(force_rollback=True):
        cursor = psycopg.Cursor(conn)
        cursor.execute("set transaction isolation level repeatable read, read only")
        # Before the snapshot, because a move of events between partitions does not fit a snapshot.
        cursor.execute("lock table audit.event in access share mode")
        cursor.execute(SQL("lock table {} in access share mode").format(SQL(entry["present"])))
        cursor.execute(_SET)
        told = describe(conn, entry["target"])
        if told is None or told.name != entry["present"]:
            raise Refused(f"{made.table} changed meanwhile; try again")
        made.left_out = {c.name: c.left_out for c in told.columns.values() if c.left_out}
        comparison = Comparison(told, Spelling(conn), made, limit)
        has_parts = entry["relkind"] in ("p", b"p")
        if told.is_keyed:
            with (
                open_rows(conn, told, made.table, has_parts=has_parts) as rows,
                closing(open_events(conn, told)) as events,
            ):
                comparison.run(map(row_of, rows), events, progress)
        else:
            _compare_unkeyed(conn, told, comparison, made, has_parts=has_parts)


def _compare_unkeyed(
    conn: psycopg.Connection[Any],
    told: Told,
    comparison: Comparison,
    made: Reconciled,
    *,
    has_parts: bool,
) -> None:
    """Compare a table without a key: by row images, or only by the number of rows."""

    def rows() -> Iterator[Any]:
        with open_rows(conn, told, made.table, has_parts=has_parts) as cursor:
            yield from map(row_of, cursor)

    def events() -> Iterator[Any]:
        with closing(open_events(conn, told)) as found:
            yield from (event for _, event in found)

    if told.part is None:
        try:
            made.rows, made.events = compare_images(comparison, rows, events, told)
        except Vague:
            pass
        else:
            made.notes.append("no key tells its rows apart: equal ones are counted")
            return
    made.rows, made.events = compare_counts(comparison, rows(), events(), told)
    made.notes.append(
        "only the number of rows is compared: "
        + ("their identifier is a secret" if told.is_secret
           else "no column tells them apart" if told.part is not None
           else "the columns are not those of all events")
    )  # fmt: skip
