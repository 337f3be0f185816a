"""Hears from the server how far long work is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg.errors import Diagnostic

Progress = Callable[[int, str], object]

# For the transaction: functions say it by audit_private.report_progress(n, text).
ASK: LiteralString = "select pg_catalog.set_config('auditdb.progress', 'on', true)"


@contextmanager
def heard(conn: psycopg.Connection[Any], progress: Progress | None) -> Iterator[None]:
    """Call `progress` with how many more are done, and with what, as the server says it.

    Args:
        conn: the connection on which the block works, in a transaction that ran `ASK`.
        progress: what to call; nothing is heard without it.
    """
    if progress is None:
        yield
        return

    def hear(diagnostic: Diagnostic) -> None:
        word, _, rest = (diagnostic.message_primary or "").partition(" ")
        number, _, text = rest.partition(" ")
        if diagnostic.severity_nonlocalized == "INFO" and word == "auditdb:" and number.isdigit():
            progress(int(number), text)

    conn.add_notice_handler(hear)
    try:
        yield
    finally:
        conn.remove_notice_handler(hear)
