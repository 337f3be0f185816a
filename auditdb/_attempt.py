"""Attempts: events of actions that were denied or failed, which outlive their rollback."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from typing import Any, TypeAlias, Unpack

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import make_conninfo

from auditdb._context import RESTORE
from auditdb._record import (
    Fields,
    call_statement,
    event_statement,
    record,
    record_async,
    send_event,
    send_event_async,
)
from auditdb.connection.begin import Row, Statement, begin_with, begin_with_async

_READ_CONTEXT: Statement = (
    "select pg_catalog.current_setting('auditdb.context', true) as before",
    (),
)

Connect: TypeAlias = Callable[[], AbstractContextManager[Connection[Any]]]
ConnectAsync: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]
Denied: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


@contextmanager
def attempt(
    conn: Connection[Any],
    action: str,
    *,
    denied: Denied = (),
    connect: Connect | None = None,
    success: bool = False,
    **fields: Unpack[Fields],
) -> Iterator[psycopg.Transaction]:
    """Open a transaction block for an action, and record it if it is denied or fails.

    Such an event must outlive the rollback of its action, so it is written on a second connection,
    under the context that was in force when the block was entered. `details.error` says what was
    raised: its type, its SQLSTATE, and the first line of its message with quoted values left out.
    What was raised goes on to the caller; if even the event could not be written, a note on it
    says so. What is no `Exception` (KeyboardInterrupt, SystemExit, a cancelled task) and
    `psycopg.Rollback` are interruptions or decisions, no failures: they roll back, and that is all.

    Args:
        conn: the connection on which the action is done. Its block is that of `context`.
        action: `category.verb`.
        denied: exception types of the application that mean a refusal, besides PermissionError and
            `psycopg.errors.InsufficientPrivilege`. Others mean failure.
        connect: returns a context manager of the second connection, such as `pool.connection` (of
            a pool that has one left). By default one is opened as `conn` was, within 10 seconds.
        success: whether a success is recorded as well, in the action's own transaction. Captured
            changes need no such event.
        fields: as in `record`.

    Yields:
        The transaction; `raise psycopg.Rollback(transaction)` leaves it without an error.

    Raises:
        InvalidInput: an identifier is no string, integer or UUID; raised before the action begins.

    Example:
        >>> with attempt(conn, "workflow.deleted", target_id=5):  # doctest: +SKIP
        ...     conn.execute("delete from workflow where id = 5")
    """
    call_statement("attempt()", action, "failure", fields)
    before: Row = {"before": None}
    try:
        with begin_with(conn, "audit_writer", _READ_CONTEXT) as (transaction, rows):
            before = rows[0]
            yield transaction
            if success:
                record(conn, action, **fields)
    except Exception as error:
        try:
            with (connect or _connect_like(conn))() as second, second.transaction():
                second.execute(RESTORE, before)
                send_event(second, _failure_statement(action, error, denied, fields))
        except Exception as unrecorded:
            error.add_note(_note(action, unrecorded))
        raise


@asynccontextmanager
async def attempt_async(
    conn: AsyncConnection[Any],
    action: str,
    *,
    denied: Denied = (),
    connect: ConnectAsync | None = None,
    success: bool = False,
    **fields: Unpack[Fields],
) -> AsyncIterator[psycopg.AsyncTransaction]:
    """Open a block as `attempt` does.

    Example:
        >>> async with attempt_async(conn, "workflow.deleted", target_id=5):  # doctest: +SKIP
        ...     await conn.execute("delete from workflow where id = 5")
    """
    call_statement("attempt_async()", action, "failure", fields)
    before: Row = {"before": None}
    try:
        async with begin_with_async(conn, "audit_writer", _READ_CONTEXT) as (transaction, rows):
            before = rows[0]
            yield transaction
            if success:
                await record_async(conn, action, **fields)
    except Exception as error:
        try:
            async with (
                (connect or _connect_like_async(conn))() as second,
                second.transaction(),
            ):
                await second.execute(RESTORE, before)
                await send_event_async(second, _failure_statement(action, error, denied, fields))
        except Exception as unrecorded:
            error.add_note(_note(action, unrecorded))
        raise


def mask_values(message: str) -> str:
    r"""Return the first line of an error's message without what it quotes, which may be a value.

    >>> mask_values("invalid input syntax for type integer: \"hunter2\"\nLINE 1")
    'invalid input syntax for type integer: …'
    """
    line = message.strip().partition("\n")[0]
    return re.sub(r"(['\"`]).*\1", "…", line)[:200]


def _failure_statement(action: str, error: Exception, denied: Denied, fields: Fields) -> Statement:
    refusals = (psycopg.errors.InsufficientPrivilege, PermissionError)
    result = "denied" if isinstance(error, refusals) or isinstance(error, denied) else "failure"
    details = {"type": type(error).__name__, "message": mask_values(str(error))}
    if isinstance(error, psycopg.Error) and error.sqlstate:
        details["sqlstate"] = error.sqlstate
    known: Fields = {**fields, "details": {**(fields.get("details") or {}), "error": details}}
    return event_statement(action, result, **known)


def _note(action: str, error: Exception) -> str:
    return f"auditdb could not record that {action} failed: {type(error).__name__}: {error}"


def _connect_like(conn: Connection[Any]) -> Connect:
    return lambda: psycopg.Connection.connect(_conninfo(conn))


def _connect_like_async(conn: AsyncConnection[Any]) -> ConnectAsync:
    @asynccontextmanager
    async def connect() -> AsyncIterator[AsyncConnection[Any]]:
        async with await psycopg.AsyncConnection.connect(_conninfo(conn)) as second:
            yield second

    return connect


def _conninfo(conn: Connection[Any] | AsyncConnection[Any]) -> str:
    given = conn.info.get_parameters()
    secret = {"password": conn.info.password} if conn.info.password else {}
    return make_conninfo("", **{"connect_timeout": "10", **given, **secret})
