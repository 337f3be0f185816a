"""The baseline of an attached table: an event for each row that existed before."""

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
from auditdb.values.plain import counted

# How long to wait for a row that another transaction changes, and the pause between attempts.
_PATIENCE, _PAUSE = 60.0, 0.2
# Every name except the user's has its schema.
_NEXT = "select audit.baseline(%s::pg_catalog.regclass, %s)"


def baseline(
    conn: psycopg.Connection[Any],
    table: str,
    *,
    batch: int = 200,
    patience: float = _PATIENCE,
    progress: Progress | None = None,
) -> int:
    """Record the existing rows of an attached table, as events `<kind>.baseline`.

    It works in batches, each in its own transaction, while writers continue. After an interruption,
    call it again to continue. After all rows are recorded, it does nothing. Inside the caller's
    transaction, all batches are one.

    Args:
        conn: a connection of the table's owner, who holds `audit_operator`.
        table: its name as PostgreSQL writes it.
        batch: number of rows in a batch. A writer of one of them waits until they are recorded.
        patience: seconds to wait for a row that another transaction is changing.
        progress: called with the number of rows recorded since the last call, and the table.

    Returns:
        The number of recorded rows.

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
                    f"{table} is busy: another transaction is changing a row. "
                    f"Recorded so far: {counted(done, 'row')}; run it again to continue"
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
    """Record the next batch; return its number of rows, or None if nothing is left."""
    is_own = conn.info.transaction_status == TransactionStatus.IDLE
    with raises_audit_errors(conn, "audit_operator"), conn.transaction():
        if is_own:
            psycopg.Cursor(conn).execute("select audit_private.end_with_client()")
        cursor = psycopg.Cursor(conn, row_factory=scalar_row)
        rows: int | None = cursor.execute(_NEXT, (table, batch)).fetchone()
        return rows
