"""The context: who acts, and from where, for the length of a block."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any, Unpack, overload

from auditdb.drivers import AsyncpgConnection, Psycopg2Connection, driver_of
from auditdb.write.claim import ContextFields, make_claim
from auditdb.write.scope import in_scope

if TYPE_CHECKING:
    import psycopg


_NO_CONNECTION: Any = object()


@overload
def context(**given: Unpack[ContextFields]) -> AbstractContextManager[None]: ...
@overload
def context(
    conn: psycopg.Connection[Any], **given: Unpack[ContextFields]
) -> AbstractContextManager[psycopg.Transaction]: ...
@overload
def context(
    conn: psycopg.AsyncConnection[Any], **given: Unpack[ContextFields]
) -> AbstractAsyncContextManager[psycopg.AsyncTransaction]: ...
@overload
def context(
    conn: AsyncpgConnection, **given: Unpack[ContextFields]
) -> AbstractAsyncContextManager[None]: ...
@overload
def context(
    conn: Psycopg2Connection, **given: Unpack[ContextFields]
) -> AbstractContextManager[None]: ...
def context(conn: Any = _NO_CONNECTION, **given: Unpack[ContextFields]) -> Any:
    """Say who acts, and from where, for the length of a block.

    Without a connection, it is said to what auditdb is built into: engines of SQLAlchemy that are
    instrumented, Django, `record`, and each `context(conn)` inside of the block. Tasks and threads
    have each their own, as of any `contextvars` variable.

    With a connection, it also opens a transaction block on it, for plain SQL of psycopg, psycopg2
    or asyncpg: the block commits, or rolls back if an exception leaves it; inside of a transaction
    it is a savepoint. `async with` where the connection is asynchronous. BEGIN and the context
    travel in one round trip. What was set ends with the block, so that no pool can carry it to the
    next user.

    A context inside of another inherits what it is not given, `details` key by key, and gives way
    to it at its end.

    Args:
        conn: a connection on which the work of the block is done, of an `audit_writer`.
        given: `actor_id`, who acts, while impersonating the user who is impersonated; `actor_type`,
            `user`, `api_key` or `system`, by default `user` where an `actor_id` is given;
            `impersonator_id`, the administrator who acts as the actor; `source`, the way in, such
            as `api`, `saml`, `scim`, `cli` or `system`, by default `web`; `organization_id`, for
            events whose row belongs to no organisation; `details`, a mapping of what else each
            event shall say, such as `ip`, `user_agent` or `request_id`. Values under names of
            secrets are redacted; texts are not searched.

    Yields:
        With a connection of psycopg the transaction; `raise psycopg.Rollback(transaction)` leaves
        it without an error. Else nothing.

    Raises:
        TypeError: an argument is misspelt, or `conn` is no connection of these drivers.
        InvalidInput: an identifier is no string, integer or UUID, or longer than 200 characters;
            or `actor_type` is none of these.
        Refused: the login may not set a context.
        ConnectionFailed: the connection is lost. Errors of the block itself are not changed.

    Example:
        >>> with context(conn, actor_id=7, source="api"):  # doctest: +SKIP
        ...     conn.execute("update membership set role = 'ADMIN' where user_id = 9")
        >>> with context(actor_id=7, details={"ip": "203.0.113.9"}):  # doctest: +SKIP
        ...     session.commit()
    """
    claim = make_claim("context()", given)
    if conn is _NO_CONNECTION:
        return in_scope(claim)
    return driver_of(conn).open_context(conn, claim)
