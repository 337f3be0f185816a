"""Attempts: events of actions that were denied or failed, which outlive their rollback."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, Unpack, overload

from auditdb.drivers import AsyncpgConnection, Psycopg2Connection, driver_of
from auditdb.write.event import EventFields, NewEvent, new_event
from auditdb.write.failure import Attempt, Denied

if TYPE_CHECKING:
    import psycopg

OPTIONS = frozenset(("denied", "connect", "success"))


@overload
def attempt(
    conn: psycopg.Connection[Any],
    event: NewEvent | str,
    *,
    denied: Denied = (),
    connect: Callable[[], AbstractContextManager[psycopg.Connection[Any]]] | None = None,
    success: bool = False,
    **fields: Unpack[EventFields],
) -> AbstractContextManager[psycopg.Transaction]: ...
@overload
def attempt(
    conn: psycopg.AsyncConnection[Any],
    event: NewEvent | str,
    *,
    denied: Denied = (),
    connect: Callable[[], AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]] | None = None,
    success: bool = False,
    **fields: Unpack[EventFields],
) -> AbstractAsyncContextManager[psycopg.AsyncTransaction]: ...
@overload
def attempt(
    conn: AsyncpgConnection,
    event: NewEvent | str,
    *,
    denied: Denied = (),
    connect: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
    success: bool = False,
    **fields: Unpack[EventFields],
) -> AbstractAsyncContextManager[None]: ...
@overload
def attempt(
    conn: Psycopg2Connection,
    event: NewEvent | str,
    *,
    denied: Denied = (),
    connect: Callable[[], AbstractContextManager[Any]] | None = None,
    success: bool = False,
    **fields: Unpack[EventFields],
) -> AbstractContextManager[None]: ...
def attempt(
    conn: Any,
    event: NewEvent | str,
    *,
    denied: Denied = (),
    connect: Callable[[], Any] | None = None,
    success: bool = False,
    **fields: Unpack[EventFields],
) -> Any:
    """Open a transaction block for an action, and record it if it is denied or fails.

    Such an event must outlive the rollback of its action, so it is written on a second connection,
    under the context that was in force when the block was entered. `details.error` says what was
    raised: its type, its SQLSTATE, and the first line of its message with quoted values left out.
    What was raised goes on to the caller; if even the event could not be written, a note on it
    says so. What is no `Exception` (KeyboardInterrupt, SystemExit, a cancelled task) and
    `psycopg.Rollback` are interruptions or decisions, no failures: they roll back, and that is all.

    Args:
        conn: the connection on which the action is done, as in `record`. Its block is that of
            `context`.
        event: the event, or its action, `category.verb`, whose fields follow.
        denied: exception types of the application that mean a refusal, besides PermissionError and
            PostgreSQL's own (SQLSTATE 42501). Others mean failure.
        connect: returns a context manager of the second connection, such as `pool.connection` (of
            a pool that has one left). By default one is opened as `conn` was, within 10 seconds.
        success: whether a success is recorded as well, in the action's own transaction. Captured
            changes need no such event.
        fields: as in `record`.

    Yields:
        With psycopg the transaction; `raise psycopg.Rollback(transaction)` leaves it without an
        error.

    Raises:
        TypeError: a field is misspelt, or `conn` is no connection of these drivers.
        InvalidInput: an identifier is no string, integer or UUID; raised before the action begins.

    Example:
        >>> with attempt(conn, "workflow.deleted", target_id=5):  # doctest: +SKIP
        ...     conn.execute("delete from workflow where id = 5")
    """
    draft = new_event("attempt()", event, None, fields, OPTIONS)
    given = Attempt(event=draft, denied=denied, connect=connect, success=success)
    return driver_of(conn).open_attempt(conn, given)
