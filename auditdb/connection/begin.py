"""How statements of auditdb reach the server: in a block, in one round trip, with clear errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, LiteralString, Self, TypeAlias

import psycopg
from psycopg import AsyncConnection, Connection, IsolationLevel, generators
from psycopg.abc import Params, PQGen
from psycopg.errors import InsufficientPrivilege, error_from_result
from psycopg.pq import ExecStatus, PipelineStatus, TransactionStatus
from psycopg.rows import dict_row, tuple_row
from psycopg.sql import Composed, Identifier
from psycopg.types.json import set_json_loads

from auditdb.errors import Refused, describe, from_psycopg
from auditdb.values.convert import from_json

# What `OneQueryTransaction` uses is not public; a psycopg without it is served by `block`.
_KNOWS_PSYCOPG = hasattr(generators, "execute") and all(
    hasattr(psycopg.Transaction, name) for name in ("_enter_gen", "_get_enter_commands")
)
_SUCCESS = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)

Row: TypeAlias = dict[str, Any]
Statement: TypeAlias = tuple[LiteralString | Composed, Params]


@contextmanager
def explained(
    conn: Connection[Any] | AsyncConnection[Any], needs: str, *others: str
) -> Iterator[None]:
    """Turn what PostgreSQL refuses into an AuditError that names the role which may be missing.

    Args:
        conn: the connection on which the block works.
        needs: the role that the block needs.
        others: roles that would do as well.
    """
    check_connection(conn)
    try:
        yield
    except InsufficientPrivilege as error:
        if _holds_any(conn, [needs, *others]):
            raise from_psycopg(error) from error
        user = Identifier(conn.info.user).as_string(None)
        also = f" (or {' or '.join(others)})" if others else ""
        raise Refused(f"{describe(error)}; run: grant {needs} to {user}{also}") from error
    except psycopg.Error as error:
        raise from_psycopg(error) from error


def check_connection(conn: object, *, is_async: bool | None = None) -> None:
    """Refuse what is no connection, or one of the other kind.

    Raises:
        TypeError: with what to give.
    """
    if not hasattr(conn, "pgconn"):
        raise TypeError(
            f"conn is a {type(conn).__name__}; give a connection of psycopg, as psycopg.connect() "
            "returns it"
        )
    if is_async is False and isinstance(conn, AsyncConnection):
        raise TypeError(
            "conn is an AsyncConnection; give a psycopg.Connection, or use the function whose name "
            "ends in _async, such as context_async, record_async or reader_async"
        )
    if is_async and isinstance(conn, Connection):
        raise TypeError(
            "conn is a Connection; give a psycopg.AsyncConnection, or use the function whose name "
            "does not end in _async, such as context, record or reader"
        )


def _holds_any(conn: Connection[Any] | AsyncConnection[Any], roles: list[str]) -> bool:
    """Return whether the login is known to hold one of some roles, so that none is missing."""
    is_usable = conn.pgconn.transaction_status in (
        TransactionStatus.IDLE,
        TransactionStatus.INTRANS,
    )
    if isinstance(conn, AsyncConnection) or not is_usable or _in_pipeline(conn):
        return False
    query = "select 1 from pg_catalog.pg_roles where rolname operator(pg_catalog.=) any (%s)"
    query += " and pg_catalog.pg_has_role(oid, 'usage') limit 1"
    with conn.transaction():
        cursor = psycopg.Cursor(conn, row_factory=tuple_row).execute(query.encode(), [roles])
        return cursor.fetchone() is not None


class OneQueryTransaction(psycopg.Transaction):
    """An outermost transaction block whose BEGIN and first statement travel as one simple query.

    Costs the client less than `block`, which needs the rows of its statements.
    """

    def __init__(self, conn: Connection[Any], statement: bytes) -> None:
        super().__init__(conn)
        self._query = _begin(conn) + statement

    def __enter__(self) -> Self:
        conn = self._conn
        _check_unused(self)
        try:
            with conn.lock:
                conn.wait(_begin_gen(self, self._query))
        except BaseException as error:
            if _is_stuck(conn):
                conn.close()
            if not conn.closed:
                conn.rollback()
            if isinstance(error, psycopg.Error):
                raise from_psycopg(error) from error
            raise
        return self

    def _get_enter_commands(self) -> Iterator[bytes]:
        return _has_begun(self)


class AsyncOneQueryTransaction(psycopg.AsyncTransaction):
    """A block as `OneQueryTransaction`."""

    def __init__(self, conn: AsyncConnection[Any], statement: bytes) -> None:
        super().__init__(conn)
        self._query = _begin(conn) + statement

    async def __aenter__(self) -> Self:
        conn = self._conn
        _check_unused(self)
        try:
            async with conn.lock:
                await conn.wait(_begin_gen(self, self._query))
        except BaseException as error:
            if _is_stuck(conn):
                await conn.close()
            if not conn.closed:
                await conn.rollback()
            if isinstance(error, psycopg.Error):
                raise from_psycopg(error) from error
            raise
        return self

    def _get_enter_commands(self) -> Iterator[bytes]:
        return _has_begun(self)


def _check_unused(transaction: OneQueryTransaction | AsyncOneQueryTransaction) -> None:
    if transaction._outer_transaction:
        raise TypeError("transaction blocks can be used only once")


def _begin_gen(
    transaction: OneQueryTransaction | AsyncOneQueryTransaction, query: bytes
) -> PQGen[None]:
    """Send the query of a block, and let psycopg enter it when the server has begun it."""
    pgconn = transaction.pgconn
    pgconn.send_query(query)
    for result in (yield from generators.execute(pgconn)):
        if result.status not in _SUCCESS:
            raise error_from_result(result, encoding=transaction._conn.info.encoding)
    yield from transaction._enter_gen()


def _has_begun(transaction: OneQueryTransaction | AsyncOneQueryTransaction) -> Iterator[bytes]:
    """Make a block that psycopg enters that of a transaction which has begun already."""
    transaction._outer_transaction, transaction._savepoint_name = True, ""
    return iter(())


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
    check_connection(conn, is_async=False)
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
    check_connection(conn, is_async=True)
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


def can_begin(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Return whether `OneQueryTransaction` serves: a pipeline takes no simple query."""
    return _KNOWS_PSYCOPG and is_idle(conn) and not _in_pipeline(conn)


def is_idle(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Return whether a block on the connection would be the outermost, with none around it."""
    return conn.pgconn.transaction_status == TransactionStatus.IDLE


def _begin(conn: Connection[Any] | AsyncConnection[Any]) -> bytes:
    """Return BEGIN with the characteristics that the connection asks for."""
    begin = "begin"
    if conn.isolation_level is not None:
        begin += f" isolation level {IsolationLevel(conn.isolation_level).name.replace('_', ' ')}"
    if conn.read_only is not None:
        begin += " read only" if conn.read_only else " read write"
    if conn.deferrable is not None:
        begin += " deferrable" if conn.deferrable else " not deferrable"
    return f"{begin};".encode()


def _is_failed(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    return conn.pgconn.transaction_status == TransactionStatus.INERROR


def _in_pipeline(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    return conn.pgconn.pipeline_status != PipelineStatus.OFF


@contextmanager
def _pipeline(conn: Connection[Any]) -> Iterator[None]:
    """Open a pipeline.

    Where an error is known before the end, leaving the pipeline fails of the same, which psycopg
    would log.
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
    """Return the interrupt, such as Ctrl-C, during which leaving a pipeline failed."""
    during = error.__context__
    return None if isinstance(during, Exception) else during


def _end_autocommit(conn: Connection[Any]) -> None:
    if not conn.closed:
        if _is_stuck(conn):
            conn.close()
        else:
            conn.autocommit = False


async def _end_autocommit_async(conn: AsyncConnection[Any]) -> None:
    if not conn.closed:
        if _is_stuck(conn):
            await conn.close()
        else:
            await conn.set_autocommit(False)


def _is_stuck(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Return whether an interrupt left a statement under way, so that nobody can use the rest."""
    return conn.pgconn.transaction_status == TransactionStatus.ACTIVE
