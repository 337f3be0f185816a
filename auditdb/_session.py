"""How statements of auditdb reach the server: in a block, in one round trip, with clear errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from functools import partial
from typing import Any, LiteralString, TypeAlias

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.abc import Params
from psycopg.errors import InsufficientPrivilege
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg.sql import Composed, Identifier
from psycopg.types.json import set_json_loads

from auditdb._values import from_json
from auditdb.errors import Refused, describe, from_psycopg

Row: TypeAlias = dict[str, Any]
Statement: TypeAlias = tuple[LiteralString | Composed, Params]


@contextmanager
def explained(conn: Connection[Any] | AsyncConnection[Any], needs: str) -> Iterator[None]:
    """Turn what PostgreSQL refuses into an AuditError that names the role which may be missing."""
    try:
        yield
    except InsufficientPrivilege as error:
        user = Identifier(conn.info.user).as_string(None)
        raise Refused(f"{describe(error)}; run: grant {needs} to {user}") from error
    except psycopg.Error as error:
        raise from_psycopg(error) from error


@contextmanager
def block(
    conn: Connection[Any],
    needs: str,
    *statements: Statement,
    leave: LiteralString | None = None,
    undo: bool = False,
) -> Iterator[tuple[psycopg.Transaction, list[Row]]]:
    """Open a transaction block whose BEGIN and first statements travel in one round trip.

    Args:
        conn: the caller's connection; a pipeline that it is in is left as it is.
        needs: the role that a login needs for the statements.
        statements: what to run, with parameters.
        leave: run with the first row as parameters when a block inside of another ends well.
        undo: when a block inside of another ends, take back what the statements set.

    Yields:
        The transaction, and the rows of the last statement.
    """
    outermost = is_idle(conn)
    with ExitStack() as stack:
        with explained(conn, needs):
            if outermost and not conn.autocommit:
                # Or psycopg, unaware of the BEGIN that waits in the pipeline, would send another
                # and wait for it. Inside of a transaction autocommit means nothing.
                conn.autocommit = True
                stack.callback(_end_autocommit, conn)
            # conn.transaction() serves pipelines of the caller; in one of ours it waits for BEGIN.
            begin = conn.transaction if _in_pipeline(conn) else partial(psycopg.Transaction, conn)
            with _pipeline(conn):
                transaction = stack.enter_context(begin(force_rollback=undo and not outermost))
                for query, params in statements:
                    cursor = psycopg.Cursor(conn, row_factory=dict_row)
                    set_json_loads(from_json, cursor)
                    cursor.execute(query, params, binary=True)
            rows = cursor.fetchall()
        yield transaction, rows
        if leave and not outermost and not _is_failed(conn):
            with _pipeline(conn):
                psycopg.Cursor(conn).execute(leave, rows[0])
                stack.close()


@asynccontextmanager
async def block_async(
    conn: AsyncConnection[Any],
    needs: str,
    *statements: Statement,
    leave: LiteralString | None = None,
    undo: bool = False,
) -> AsyncIterator[tuple[psycopg.AsyncTransaction, list[Row]]]:
    """Open a block as `block` does."""
    outermost = is_idle(conn)
    async with AsyncExitStack() as stack:
        with explained(conn, needs):
            if outermost and not conn.autocommit:
                await conn.set_autocommit(True)
                stack.push_async_callback(_end_autocommit_async, conn)
            begin = (
                conn.transaction if _in_pipeline(conn) else partial(psycopg.AsyncTransaction, conn)
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
        if leave and not outermost and not _is_failed(conn):
            async with _pipeline_async(conn):
                await psycopg.AsyncCursor(conn).execute(leave, rows[0])
                await stack.aclose()


def is_idle(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Return whether a block on the connection would be the outermost, with none around it."""
    return conn.info.transaction_status == TransactionStatus.IDLE


def _is_failed(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    return conn.info.transaction_status == TransactionStatus.INERROR


def _in_pipeline(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    return conn.info.pipeline_status != psycopg.pq.PipelineStatus.OFF


def _pipeline(conn: Connection[Any]) -> AbstractContextManager[Any]:
    return conn.pipeline() if psycopg.Pipeline.is_supported() else nullcontext()


def _pipeline_async(conn: AsyncConnection[Any]) -> AbstractAsyncContextManager[Any]:
    return conn.pipeline() if psycopg.AsyncPipeline.is_supported() else nullcontext()


def _end_autocommit(conn: Connection[Any]) -> None:
    if not conn.closed:
        conn.autocommit = False


async def _end_autocommit_async(conn: AsyncConnection[Any]) -> None:
    if not conn.closed:
        await conn.set_autocommit(False)
