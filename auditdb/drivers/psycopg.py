"""psycopg 3: connections of both kinds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from typing import Any
from weakref import WeakSet

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import make_conninfo
from psycopg.pq import Escaping
from psycopg.rows import scalar_row

from auditdb.connection.begin import Row, begin_with, begin_with_async
from auditdb.connection.checks import check_connection as check_connection
from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.one_query import (
    AsyncOneQueryTransaction,
    OneQueryTransaction,
    can_use_one_query,
)
from auditdb.connection.state import AnyConnection, is_idle
from auditdb.errors import lacks_character
from auditdb.write.async_block import AsyncOnly, async_block
from auditdb.write.claim import Claim
from auditdb.write.event import RECORD, NewEvent
from auditdb.write.failure import Attempt
from auditdb.write.scope import claim_within, current_claim, in_scope
from auditdb.write.setting import ENTER, ENTER_INNER, READ, RESTORE

# Connections whose login may set a context. Later calls use the fast path, without that check.
_writers: WeakSet[AnyConnection] = WeakSet()


def open_context(
    conn: AnyConnection, claim: Claim
) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]:
    """Return the block of `auditdb.context`."""
    if isinstance(conn, AsyncConnection):
        return _AsyncContext(conn, claim)
    return _Context(conn, claim)


def record(conn: AnyConnection, event: NewEvent, claim: Claim | None) -> Any:
    """Record an event, and return its id, or what is awaited for it."""
    parameters = event.parameters(claim)
    if isinstance(conn, AsyncConnection):
        return _record_async(conn, parameters)
    with raises_audit_errors(conn, "audit_writer"):
        cursor = psycopg.Cursor(conn, row_factory=scalar_row)
        return int(cursor.execute(RECORD, parameters).fetchone() or 0)


async def _record_async(conn: AsyncConnection[Any], parameters: Any) -> int:
    with raises_audit_errors(conn, "audit_writer"):
        cursor = await psycopg.AsyncCursor(conn, row_factory=scalar_row).execute(RECORD, parameters)
        return int(await cursor.fetchone() or 0)


def open_attempt(
    conn: AnyConnection, attempt: Attempt
) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]:
    """Return the block of `auditdb.attempt`."""
    if isinstance(conn, AsyncConnection):
        return _attempt_async(conn, attempt)
    return _attempt(conn, attempt)


class _Context(AbstractContextManager[psycopg.Transaction]):
    __slots__ = ("_block", "_claim", "_conn", "_in_force")

    def __init__(self, conn: Connection[Any], claim: Claim) -> None:
        self._conn = conn
        self._claim = claim

    def __enter__(self) -> psycopg.Transaction:
        conn = self._conn
        claim = claim_within(conn, self._claim)
        self._block: AbstractContextManager[psycopg.Transaction]
        if conn in _writers and can_use_one_query(conn):
            self._block = OneQueryTransaction(conn, _set_statement(conn, claim))
        else:
            self._block = _through_set_context(conn, claim)
        transaction = self._block.__enter__()
        self._in_force = in_scope(self._claim, conn)
        self._in_force.__enter__()
        return transaction

    def __exit__(self, *error: Any) -> bool | None:
        self._in_force.__exit__()
        return self._block.__exit__(*error)


class _AsyncContext(AsyncOnly, AbstractAsyncContextManager[psycopg.AsyncTransaction]):
    __slots__ = ("_block", "_claim", "_conn", "_in_force")

    def __init__(self, conn: AsyncConnection[Any], claim: Claim) -> None:
        self._conn = conn
        self._claim = claim

    async def __aenter__(self) -> psycopg.AsyncTransaction:
        conn = self._conn
        claim = claim_within(conn, self._claim)
        self._block: AbstractAsyncContextManager[psycopg.AsyncTransaction]
        if conn in _writers and can_use_one_query(conn):
            self._block = AsyncOneQueryTransaction(conn, _set_statement(conn, claim))
        else:
            self._block = _through_set_context_async(conn, claim)
        transaction = await self._block.__aenter__()
        self._in_force = in_scope(self._claim, conn)
        self._in_force.__enter__()
        return transaction

    async def __aexit__(self, *error: Any) -> bool | None:
        self._in_force.__exit__()
        return await self._block.__aexit__(*error)


@contextmanager
def _through_set_context(conn: Connection[Any], claim: Claim) -> Iterator[psycopg.Transaction]:
    enter = (ENTER if is_idle(conn) else ENTER_INNER, claim.parameters())
    with begin_with(conn, "audit_writer", enter, leave=RESTORE) as (transaction, _):
        _writers.add(conn)
        yield transaction


@asynccontextmanager
async def _through_set_context_async(
    conn: AsyncConnection[Any], claim: Claim
) -> AsyncIterator[psycopg.AsyncTransaction]:
    enter = (ENTER if is_idle(conn) else ENTER_INNER, claim.parameters())
    async with begin_with_async(conn, "audit_writer", enter, leave=RESTORE) as (transaction, _):
        _writers.add(conn)
        yield transaction


def _set_statement(conn: AnyConnection, claim: Claim) -> bytes:
    """Return a faster statement with the same effect as `audit.set_context`.

    Raises:
        InvalidInput: the connection's encoding lacks a character.
    """
    # The same as in psycopg: SQL_ASCII takes any bytes.
    encoding = conn.info.encoding.replace("ascii", "utf-8")
    try:
        literal = Escaping(conn.pgconn).escape_literal(claim.setting.encode(encoding))
    except UnicodeEncodeError as error:
        raise lacks_character(error) from error
    if conn.info.server_version >= 180000:
        # SET needs no plan and returns no row. On older servers, pg_stat_statements would keep an
        # entry for each value.
        return b"set local auditdb.context = " + bytes(literal)
    return b"select pg_catalog.set_config('auditdb.context', " + bytes(literal) + b", true)"


@contextmanager
def _attempt(conn: Connection[Any], attempt: Attempt) -> Iterator[psycopg.Transaction]:
    claim = current_claim(conn)
    before: Row = {"before": None}
    try:
        with begin_with(conn, "audit_writer", (READ, ())) as (transaction, rows):
            before = rows[0]
            yield transaction
            if attempt.success:
                record(conn, attempt.event, claim)
    except psycopg.Rollback:
        raise  # of a block around
    except Exception as error:
        try:
            with (attempt.connect or _connect_like(conn))() as second, second.transaction():
                second.execute(RESTORE, before)
                record(second, attempt.failed(error), claim)
        except Exception as unrecorded:
            attempt.note(error, unrecorded)
        raise


@async_block
async def _attempt_async(
    conn: AsyncConnection[Any], attempt: Attempt
) -> AsyncIterator[psycopg.AsyncTransaction]:
    claim = current_claim(conn)
    before: Row = {"before": None}
    try:
        async with begin_with_async(conn, "audit_writer", (READ, ())) as (transaction, rows):
            before = rows[0]
            yield transaction
            if attempt.success:
                await record(conn, attempt.event, claim)
    except psycopg.Rollback:
        raise  # of a block around
    except Exception as error:
        try:
            connect = attempt.connect or _connect_like_async(conn)
            async with connect() as second, second.transaction():
                await second.execute(RESTORE, before)
                await record(second, attempt.failed(error), claim)
        except Exception as unrecorded:
            attempt.note(error, unrecorded)
        raise


def _connect_like(conn: Connection[Any]) -> Callable[[], AbstractContextManager[Connection[Any]]]:
    return lambda: psycopg.Connection.connect(_conninfo(conn))


def _connect_like_async(
    conn: AsyncConnection[Any],
) -> Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]:
    @asynccontextmanager
    async def connect() -> AsyncIterator[AsyncConnection[Any]]:
        async with await psycopg.AsyncConnection.connect(_conninfo(conn)) as second:
            yield second

    return connect


def _conninfo(conn: AnyConnection) -> str:
    given = conn.info.get_parameters()
    secret = {"password": conn.info.password} if conn.info.password else {}
    return make_conninfo("", **{"connect_timeout": "10", **given, **secret})
