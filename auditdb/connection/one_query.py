"""Transaction blocks whose BEGIN and first statement are one simple query: the fast path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection, Connection, IsolationLevel, generators
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus

from auditdb.connection.state import in_pipeline, is_idle, is_stuck
from auditdb.errors import from_psycopg

# `OneQueryTransaction` uses private names of psycopg. Without them, `begin_with` is the fallback.
_KNOWS_PSYCOPG = hasattr(generators, "execute") and all(
    hasattr(psycopg.Transaction, name) for name in ("_enter_gen", "_get_enter_commands")
)
_SUCCESS = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)


class OneQueryTransaction(psycopg.Transaction):
    """An outermost transaction block whose BEGIN and first statement travel as one simple query.

    It is faster than `begin_with`, but does not return the rows of the statement.
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
            if is_stuck(conn):
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
    """The asynchronous form of `OneQueryTransaction`."""

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
            if is_stuck(conn):
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
    """Send the query of a block; psycopg enters the block after the server has begun it."""
    pgconn = transaction.pgconn
    pgconn.send_query(query)
    for result in (yield from generators.execute(pgconn)):
        if result.status not in _SUCCESS:
            raise error_from_result(result, encoding=transaction._conn.info.encoding)
    yield from transaction._enter_gen()


def _has_begun(transaction: OneQueryTransaction | AsyncOneQueryTransaction) -> Iterator[bytes]:
    """Let psycopg enter a block whose transaction has already begun."""
    transaction._outer_transaction, transaction._savepoint_name = True, ""
    return iter(())


def can_use_one_query(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Return whether `OneQueryTransaction` works here: a pipeline takes no simple query."""
    return _KNOWS_PSYCOPG and is_idle(conn) and not in_pipeline(conn)


def _begin(conn: Connection[Any] | AsyncConnection[Any]) -> bytes:
    """Return BEGIN with the transaction characteristics of the connection."""
    begin = "begin"
    if conn.isolation_level is not None:
        begin += f" isolation level {IsolationLevel(conn.isolation_level).name.replace('_', ' ')}"
    if conn.read_only is not None:
        begin += " read only" if conn.read_only else " read write"
    if conn.deferrable is not None:
        begin += " deferrable" if conn.deferrable else " not deferrable"
    return f"{begin};".encode()
