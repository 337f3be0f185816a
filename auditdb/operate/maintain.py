"""Keeps partitions ahead, DEFAULT empty, and the log within its retention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.rows import scalar_row, tuple_row

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned

# How a line begins that says that another install, attach or maintenance was at work.
BUSY = "nothing done"


def maintain(
    conn: psycopg.Connection[Any],
    *,
    keep: str | None = None,
    ahead: int = 3,
    force: bool = False,
    dry_run: bool = False,
) -> list[str]:
    """Do the log's maintenance and return what was done, a line each; safe from cron.

    Args:
        conn: a connection of a member of `audit_operator`, outside of a transaction.
        keep: how long events are kept, as a PostgreSQL interval such as `24 months`. Older months
            are dropped as a whole, each recorded as an event. Default: nothing is dropped.
        ahead: for how many months to come there must be partitions.
        force: drop months although the clock seems wrong, or events in them were written later
            than they say.
        dry_run: return what would be done, and do nothing.

    Raises:
        Refused: no privilege, a retention under two months, a clock that seems to have jumped, or
            no lock was to be had.
        InvalidInput: `keep` is no interval.

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
    progress: bool = False,
) -> Iterator[str]:
    """Do what `maintain` does, and yield each line when what it says is committed.

    Args:
        conn: as for `maintain`, as are the others.
        keep: how long events are kept.
        ahead: how many months ahead.
        force: whatever the clock says.
        dry_run: only say it.
        progress: have the server send a message of severity INFO after each month it copied.
    """
    if dry_run:
        yield from _call(conn, [keep, ahead, force, True], progress=False)
        return
    # Each call does one kind of work, so that no lock outlasts what it is for. What retention
    # refuses undoes nothing else: it comes last, and alone.
    for _ in range(3):
        lines = _call(conn, [None, ahead, force, False], progress=progress)
        yield from lines
        if lines and lines[0].startswith(BUSY):
            return
        if not lines:
            break
    if keep is not None:
        yield from _call(conn, [keep, ahead, force, False], progress=progress)


def _call(conn: psycopg.Connection[Any], arguments: list[object], *, progress: bool) -> list[str]:
    """Return the lines of one call of audit.maintain()."""
    with raises_audit_errors(conn, "audit_operator"), pinned(conn, writes=True):
        cursor = psycopg.Cursor(conn, row_factory=tuple_row)
        if progress:
            cursor.execute("select set_config('auditdb.progress', 'on', true)")
        with _watched(conn):
            query = "select * from audit.maintain(%s::interval, %s, %s, %s)"
            return [line for (line,) in cursor.execute(query, arguments)]


@contextmanager
def _watched(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Have the server notice within a second that the client is gone, where it can notice at all.

    Without it, a maintenance whose client was killed works on, and then rolls all of it back.
    """
    query = "select set_config(%s, %s, true)"
    cursor = psycopg.Cursor(conn, row_factory=scalar_row)
    name = "client_connection_check_interval"
    before = cursor.execute("select current_setting(%s)", [name]).fetchone()
    with suppress(psycopg.errors.InvalidParameterValue), conn.transaction():
        cursor.execute(query, [name, "1s"])
    yield
    cursor.execute(query, [name, before])
