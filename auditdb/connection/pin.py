"""The pin: in queries of auditdb a name means PostgreSQL's own object, whatever the session says.

Whoever may create a function in a schema of the session's search_path could otherwise have it run
with the rights of whoever runs auditdb.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.rows import tuple_row

from auditdb.errors import InvalidInput

# Every name here says its schema: these run before the pin.
_READ: LiteralString = """
select pg_catalog.current_setting('search_path'), pg_catalog.current_setting('DateStyle'),
    pg_catalog.current_setting('IntervalStyle'),
    pg_catalog.current_setting('standard_conforming_strings'),
    pg_catalog.current_setting('row_security')
"""
_SET: LiteralString = """
select pg_catalog.set_config('search_path', %s, true), pg_catalog.set_config('DateStyle', %s, true),
    pg_catalog.set_config('IntervalStyle', %s, true),
    pg_catalog.set_config('standard_conforming_strings', %s, true),
    pg_catalog.set_config('row_security', %s, true)
"""
# psycopg reads times in the styles of ISO alone. Expressions mean what they mean to their capture.
# Without row-level security PostgreSQL would refuse what it filters.
_PINNED = ("pg_catalog, pg_temp", "ISO", "postgres", "on", "on")


@contextmanager
def pinned(conn: Connection[Any], *, writes: bool = False) -> Iterator[None]:
    """Open a transaction block with the pin, which leaves the session's settings as they were.

    Nothing is set for the session, only for the block: a pooler that hands the server connection
    to another client after the block hands on nothing of it. Cursors and rows are plain in it,
    whatever the caller's factories make.

    Args:
        conn: the caller's connection; inside of a transaction the block is a savepoint.
        writes: keep what the block wrote. By default it is rolled back, and with it every setting
            that code of the application may have changed in it.
    """
    with _plain(conn), conn.transaction(force_rollback=not writes):
        before = conn.execute(_READ).fetchone()
        conn.execute(_SET, _PINNED)
        yield
        if writes:
            # A savepoint that is kept would keep them until the caller's transaction ends.
            conn.execute(_SET, before)


@contextmanager
def pinned_session(conn: Connection[Any]) -> Iterator[None]:
    """Pin a whole session for work of many transactions, and leave its settings as they were.

    Cursors and rows are plain meanwhile, whatever the caller's factories make.

    Args:
        conn: a connection to the server itself, in autocommit mode.

    Raises:
        InvalidInput: it is not in autocommit mode: then nothing would be committed on the way.
    """
    if not conn.autocommit:
        raise InvalidInput("this takes many transactions: give a connection in autocommit mode")
    with _plain(conn):
        before = conn.execute(_READ).fetchone()
        conn.execute(_SET.replace("true", "false"), _PINNED)
        try:
            yield
        finally:
            if not conn.closed and not conn.broken:
                conn.execute(_SET.replace("true", "false"), before)


@contextmanager
def _plain(conn: Connection[Any]) -> Iterator[None]:
    """Let a connection make psycopg's own cursors and tuples, whatever its caller chose."""
    cursors, rows = conn.cursor_factory, conn.row_factory
    conn.cursor_factory, conn.row_factory = psycopg.Cursor, tuple_row
    try:
        yield
    finally:
        conn.cursor_factory, conn.row_factory = cursors, rows


@asynccontextmanager
async def pinned_async(conn: AsyncConnection[Any]) -> AsyncIterator[None]:
    """Open a transaction with the pin on a connection of auditdb's own, and commit it."""
    async with conn.transaction():
        await conn.execute(_SET, _PINNED)
        yield


class Pinned:
    """A connection of which each query is pinned: in autocommit mode each is a transaction.

    Args:
        conn: the connection.

    Attributes:
        info: what the connection says of itself.
        transaction: opens a transaction block, as the connection does.
    """

    def __init__(self, conn: Connection[Any]) -> None:
        self._conn, self.info, self.transaction = conn, conn.info, conn.transaction

    def execute(self, query: Any, params: Any = None) -> psycopg.Cursor[Any]:
        """Run a query; what it gave is there, and the session is as it was."""
        with pinned(self._conn, writes=True):
            return self._conn.execute(query, params)
