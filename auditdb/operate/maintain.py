"""Keeps partitions ahead, DEFAULT empty, and the log within its retention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.connection.progress import Progress, reports_progress

# The beginning of the line that reports another running install, attach or maintenance.
BUSY = "nothing done"


def maintain(
    conn: psycopg.Connection[Any],
    *,
    keep: str | None = None,
    ahead: int = 3,
    force: bool = False,
    dry_run: bool = False,
) -> list[str]:
    """Maintain the log, and return what was done, one line for each action; safe from cron.

    Args:
        conn: a connection of a member of `audit_operator`, outside of a transaction.
        keep: how long events are kept, as a PostgreSQL interval such as `24 months`. Older months
            are dropped as a whole, each recorded as an event. Default: nothing is dropped.
        ahead: for how many months to come there must be partitions.
        force: drop months although the clock seems wrong, or events in them were written later
            than they say.
        dry_run: return what would be done, and do nothing.

    Raises:
        Refused: no privilege, a retention under two months, a clock that seems to have jumped, or a
            lock timeout.
        InvalidInput: `keep` is not an interval.

    Example:
        >>> maintain(conn, keep="24 months")  # doctest: +SKIP
        ['created the partition of 2027-02', 'dropped 2024-10: 48213 events']
    """
    return list(steps(conn, keep=keep, ahead=ahead, force=force, dry_run=dry_run))


def steps(
    conn: psycopg.Connection[Any],
    *,
    keep: str | None = None,
    ahead: int = 3,
    force: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Iterator[str]:
    """Do the same as `maintain`, and yield each line after its action is committed.

    Args:
        conn: as for `maintain`, as are the others.
        keep: how long events are kept.
        ahead: how many months ahead.
        force: whatever the clock says.
        dry_run: only say it.
        progress: called with how many more events were moved, and a note.
    """
    if dry_run:
        yield from _call(conn, [keep, ahead, force, True], None)
        return
    # Each call does one kind of work, so that locks are short. Retention comes last, in its own
    # call, so that its refusal undoes nothing else.
    for _ in range(3):
        lines = _call(conn, [None, ahead, force, False], progress)
        yield from lines
        if lines and lines[0].startswith(BUSY):
            return
        if not lines:
            break
    if keep is not None:
        yield from _call(conn, [keep, ahead, force, False], progress)


def _call(
    conn: psycopg.Connection[Any], arguments: list[object], progress: Progress | None
) -> list[str]:
    """Return the lines of one call of audit.maintain()."""
    is_own = conn.info.transaction_status == TransactionStatus.IDLE
    with (
        raises_audit_errors(conn, "audit_operator"),
        pinned(conn, writes=True),
        reports_progress(conn, progress),
    ):
        cursor = psycopg.Cursor(conn, row_factory=tuple_row)
        if is_own:
            # Otherwise the server would continue for a lost client, and roll back at the end.
            cursor.execute("select audit_private.end_with_client()")
        query = "select * from audit.maintain(%s::interval, %s, %s, %s)"
        return [line for (line,) in cursor.execute(query, arguments)]
