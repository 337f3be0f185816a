"""Keeps partitions ahead, DEFAULT empty, and the log within its retention."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import tuple_row

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned


def maintain(
    conn: psycopg.Connection[Any], *, keep: str | None = None, ahead: int = 3
) -> list[str]:
    """Do the log's maintenance and return what was done, a line each; safe from cron.

    Args:
        conn: a connection of a member of `audit_operator`, outside of a transaction.
        keep: how long events are kept, as a PostgreSQL interval such as `24 months`. Older months
            are dropped as a whole, each recorded as an event. Default: nothing is dropped.
        ahead: for how many months to come there must be partitions.

    Raises:
        Refused: no privilege, a retention under two months, or no lock was to be had.
        InvalidInput: `keep` is no interval.

    Example:
        >>> maintain(conn, keep="24 months")  # doctest: +SKIP
        ['created the partition of 2027-02', 'dropped 2024-10: 48213 events']
    """
    done: list[str] = []
    # Each call does one kind of work, so that no lock outlasts what it is for.
    for _ in range(3):
        with raises_audit_errors(conn, "audit_operator"), pinned(conn, writes=True):
            cursor = psycopg.Cursor(conn, row_factory=tuple_row)
            query = "select * from audit.maintain(%s::interval, %s)"
            lines = [line for (line,) in cursor.execute(query, [keep, ahead])]
        done += lines
        if not lines or lines[0].startswith("nothing done"):
            break
    return done
