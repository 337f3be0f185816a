"""The pin: fixed settings for queries of auditdb, above all the search_path.

Without the pin, anybody who may create a function in a schema of the session's search_path could
run it with the rights of the user of auditdb.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.rows import tuple_row

from auditdb.errors import InvalidInput

# These run before the pin, so every name has its schema.
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
# psycopg reads times only in ISO style. The settings are those of the capture functions, so that
# expressions mean the same. With row_security off, PostgreSQL would raise an error instead of
# filtering rows.
_PINNED = ("pg_catalog, pg_temp", "ISO", "postgres", "on", "on")


@contextmanager
def pinned(conn: Connection[Any], *, writes: bool = False) -> Iterator[None]:
    """Open a transaction block with the pin.

    The settings end with the block, so that a pooler cannot pass them to another client. In the
    block, cursors and rows are those of psycopg, not of the caller's factories.

    Args:
        conn: the caller's connection. Inside a transaction the block is a savepoint.
        writes: keep the writes of the block. By default the block is rolled back, with every
            setting that code of the application changed in it.
    """
    with _plain(conn), conn.transaction(force_rollback=not writes):
        before = conn.execute(_READ).fetchone()
        conn.execute(_SET, _PINNED)
        yield
        if writes:
            # A released savepoint would keep the settings until the transaction of the caller ends.
            conn.execute(_SET, before)


@contextmanager
def pinned_session(conn: Connection[Any]) -> Iterator[None]:
    """Pin a whole session for many transactions, and restore its settings at the end.

    Meanwhile cursors and rows are those of psycopg, not of the caller's factories.

    Args:
        conn: a connection to the server itself, in autocommit mode.

    Raises:
        InvalidInput: the connection is not in autocommit mode.
    """
    if not conn.autocommit:
        raise InvalidInput("this needs several transactions; give a connection in autocommit mode")
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
    """Let a connection use psycopg's own cursors and tuples instead of the caller's factories."""
    cursors, rows = conn.cursor_factory, conn.row_factory
    conn.cursor_factory, conn.row_factory = psycopg.Cursor, tuple_row
    try:
        yield
    finally:
        conn.cursor_factory, conn.row_factory = cursors, rows


@asynccontextmanager
async def pinned_async(conn: AsyncConnection[Any]) -> AsyncIterator[None]:
    """Open a transaction with the pin on auditdb's own connection, and commit it."""
    async with conn.transaction():
        await conn.execute(_SET, _PINNED)
        yield


class Pinned:
    """A connection in autocommit mode that runs each query in a pinned transaction.

    Args:
        conn: the connection.

    Attributes:
        info: the `info` of the connection.
        transaction: opens a transaction block, as the connection does.
    """

    def __init__(self, conn: Connection[Any]) -> None:
        self._conn, self.info, self.transaction = conn, conn.info, conn.transaction

    def execute(self, query: Any, params: Any = None) -> psycopg.Cursor[Any]:
        """Run a query and return its cursor, with all rows fetched."""
        with pinned(self._conn, writes=True):
            return self._conn.execute(query, params)
