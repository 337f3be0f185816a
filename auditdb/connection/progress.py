"""Progress of long work, as the server reports it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.errors import Diagnostic

Progress = Callable[[int, str], object]


@contextmanager
def reports_progress(conn: psycopg.Connection[Any], progress: Progress | None) -> Iterator[None]:
    """Ask the server to report how far it is, and call `progress` with each report.

    The request lasts until the end of the transaction; `audit_private.report_progress` sends
    reports.

    Args:
        conn: the connection on which the block works, in a transaction.
        progress: called with the number of things done since the last report, and a text. If None,
            no report is requested.
    """
    if progress is None:
        yield
        return

    def hear(diagnostic: Diagnostic) -> None:
        word, _, rest = (diagnostic.message_primary or "").partition(" ")
        number, _, text = rest.partition(" ")
        if diagnostic.severity_nonlocalized == "INFO" and word == "auditdb:" and number.isdecimal():
            progress(int(number), text)

    conn.add_notice_handler(hear)
    try:
        query = "select pg_catalog.set_config('auditdb.progress', 'on', true)"
        psycopg.Cursor(conn).execute(query)
        yield
    finally:
        conn.remove_notice_handler(hear)
