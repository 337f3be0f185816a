"""A transaction block whose BEGIN and first statements travel in one round trip."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, LiteralString, TypeAlias

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.abc import Params
from psycopg.rows import dict_row
from psycopg.sql import Composed
from psycopg.types.json import set_json_loads

from auditdb.connection.checks import check_connection, raises_audit_errors
from auditdb.connection.state import in_pipeline, is_failed, is_idle, is_stuck
from auditdb.values.convert import from_json

Row: TypeAlias = dict[str, Any]
Statement: TypeAlias = tuple[LiteralString | Composed, Params]


@contextmanager
def begin_with(
    conn: Connection[Any],
    role: str,
    *statements: Statement,
    leave: LiteralString | None = None,
    undo: bool = False,
) -> Iterator[tuple[psycopg.Transaction, list[Row]]]:
    """Open a transaction block whose BEGIN and first statements travel in one round trip.

    Args:
        conn: the caller's connection. If it is in a pipeline, it stays in it.
        role: the role that a login needs for the statements.
        statements: the statements, with parameters.
        leave: for a nested block that succeeds: a statement to run at its end, with the first row
            as parameters.
        undo: for a nested block: undo at its end what the statements set.

    Yields:
        The transaction, and the rows of the last statement.
    """
    check_connection(conn, is_async=False)
    outermost = is_idle(conn)
    with ExitStack() as stack:
        with raises_audit_errors(conn, role):
            if outermost and not conn.autocommit:
                # Otherwise psycopg, which does not know of the BEGIN in the pipeline, would send
                # another one and wait for it. Inside a transaction, autocommit has no effect.
                conn.autocommit = True
                stack.callback(_end_autocommit, conn)
            # conn.transaction() works in a pipeline of the caller. In our own it would wait for
            # BEGIN.
            begin = conn.transaction if in_pipeline(conn) else partial(psycopg.Transaction, conn)
            with _pipeline(conn):
                transaction = stack.enter_context(begin(force_rollback=undo and not outermost))
                for query, params in statements:
                    cursor = psycopg.Cursor(conn, row_factory=dict_row)
                    set_json_loads(from_json, cursor)
                    cursor.execute(query, params, binary=True)
            rows = cursor.fetchall()
        yield transaction, rows
        if leave and not outermost and not is_failed(conn):
            with _pipeline(conn):
                psycopg.Cursor(conn).execute(leave, rows[0])
                stack.close()


@asynccontextmanager
async def begin_with_async(
    conn: AsyncConnection[Any],
    role: str,
    *statements: Statement,
    leave: LiteralString | None = None,
    undo: bool = False,
) -> AsyncIterator[tuple[psycopg.AsyncTransaction, list[Row]]]:
    """Open a block as `begin_with` does."""
    check_connection(conn, is_async=True)
    outermost = is_idle(conn)
    async with AsyncExitStack() as stack:
        with raises_audit_errors(conn, role):
            if outermost and not conn.autocommit:
                await conn.set_autocommit(True)
                stack.push_async_callback(_end_autocommit_async, conn)
            begin = (
                conn.transaction if in_pipeline(conn) else partial(psycopg.AsyncTransaction, conn)
            )
            async with _pipeline_async(conn):
                transaction = await stack.enter_async_context(
                    begin(force_rollback=undo and not outermost)
                )
                for query, params in statements:
                    cursor = psycopg.AsyncCursor(conn, row_factory=dict_row)
                    set_json_loads(from_json, cursor)
                    await cursor.execute(query, params, binary=True)
            rows = await cursor.fetchall()
        yield transaction, rows
        if leave and not outermost and not is_failed(conn):
            async with _pipeline_async(conn):
                await psycopg.AsyncCursor(conn).execute(leave, rows[0])
                await stack.aclose()


@contextmanager
def _pipeline(conn: Connection[Any]) -> Iterator[None]:
    """Open a pipeline.

    After an error in the block, leaving the pipeline raises the same error again, and psycopg would
    log it.
    """
    if not psycopg.Pipeline.is_supported():
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(conn.pipeline())
        try:
            yield
        except psycopg.Error:
            with suppress(psycopg.Error):
                stack.close()
            raise
        try:
            stack.close()
        except psycopg.Error as error:
            raise _interrupt(error) or error from None


@asynccontextmanager
async def _pipeline_async(conn: AsyncConnection[Any]) -> AsyncIterator[None]:
    """Open a pipeline as `_pipeline` does."""
    if not psycopg.AsyncPipeline.is_supported():
        yield
        return
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(conn.pipeline())
        try:
            yield
        except psycopg.Error:
            with suppress(psycopg.Error):
                await stack.aclose()
            raise
        try:
            await stack.aclose()
        except psycopg.Error as error:
            raise _interrupt(error) or error from None


def _interrupt(error: psycopg.Error) -> BaseException | None:
    """Return the interrupt, such as Ctrl+C, that was raised when a pipeline failed to end."""
    during = error.__context__
    return None if isinstance(during, Exception) else during


def _end_autocommit(conn: Connection[Any]) -> None:
    if not conn.closed:
        if is_stuck(conn):
            conn.close()
        else:
            conn.autocommit = False


async def _end_autocommit_async(conn: AsyncConnection[Any]) -> None:
    if not conn.closed:
        if is_stuck(conn):
            await conn.close()
        else:
            await conn.set_autocommit(False)
