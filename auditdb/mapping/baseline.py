"""The baseline of an attached table: the rows that were there before, an event each."""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable
from psycopg.pq import TransactionStatus
from psycopg.rows import scalar_row

from auditdb.connection.checks import check_connection, raises_audit_errors
from auditdb.connection.progress import Progress
from auditdb.errors import Refused
from auditdb.mapping.attach import raise_if_missing

# How long a row that somebody is changing is waited for, and how often it is looked at.
_PATIENCE, _PAUSE = 60.0, 0.2
# Every name says its schema but the user's.
_NEXT = "select audit.baseline(%s::pg_catalog.regclass, %s)"


def baseline(
    conn: psycopg.Connection[Any],
    table: str,
    *,
    batch: int = 200,
    patience: float = _PATIENCE,
    progress: Progress | None = None,
) -> int:
    """Record what the rows of an attached table are now, as events `<kind>.baseline`.

    A batch at a time, each in a transaction of its own, while writers go on. Interrupted, it goes
    on where it was when it is called again; once all rows are recorded it does nothing. Inside of
    the caller's transaction all is one.

    Args:
        conn: a connection of the table's owner, who holds `audit_operator`.
        table: its name as PostgreSQL writes it.
        batch: so many rows at a time. Who changes one of them waits until they are recorded.
        patience: seconds to wait for a row that another transaction is changing.
        progress: called with how many more rows are recorded, and the name of the table.

    Returns:
        How many rows it recorded.

    Raises:
        Refused: no such table, not attached, no privilege; or a row is being changed for longer
            than `patience`: call it again when that has ended.

    Example:
        >>> baseline(conn, "public.invoice")  # doctest: +SKIP
        48213
    """
    check_connection(conn, is_async=False)
    done = 0
    until = time.monotonic() + patience
    while True:
        try:
            rows = _next(conn, table, batch)
        except Refused as error:
            if not isinstance(error.__cause__, LockNotAvailable):
                raise_if_missing(conn, table, error)
                raise
            if time.monotonic() > until:
                raise Refused(
                    f"{table} is busy: another transaction is changing a row. {done} rows are "
                    "recorded; run it again to go on"
                ) from error
            time.sleep(_PAUSE)
            continue
        if rows is None:
            return done
        done += rows
        until = time.monotonic() + patience
        if progress is not None:
            progress(rows, table)


def _next(conn: psycopg.Connection[Any], table: str, batch: int) -> int | None:
    """Record the next batch; return how many rows it had, nothing if there is none."""
    is_own = conn.info.transaction_status == TransactionStatus.IDLE
    with raises_audit_errors(conn, "audit_operator"), conn.transaction():
        if is_own:
            psycopg.Cursor(conn).execute("select audit_private.end_with_client()")
        cursor = psycopg.Cursor(conn, row_factory=scalar_row)
        rows: int | None = cursor.execute(_NEXT, (table, batch)).fetchone()
        return rows
