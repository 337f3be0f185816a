"""The context: who acts, and from where, for the length of one transaction block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection, Connection

from auditdb._session import block, block_async, is_idle
from auditdb._values import Id, as_json, as_text

# Outside of a transaction no context can be in force.
_ENTER: LiteralString = """
select audit.set_context(%(actor_id)s, coalesce(%(actor_type)s, 'user'), %(impersonator_id)s,
    coalesce(%(source)s, 'web'), %(organization_id)s, nullif(%(details)s, '{}'))
"""
# Inside of one, what is not given comes from the context in force, which only the server knows for
# certain: a savepoint that was rolled back, or SQL of the application, may have changed it.
_ENTER_INNER: LiteralString = """
select before, audit.set_context(
    coalesce(%(actor_id)s, c ->> 'actor_id'),
    coalesce(%(actor_type)s, c ->> 'actor_type', 'user'),
    coalesce(%(impersonator_id)s, c ->> 'impersonator_id'),
    coalesce(%(source)s, c ->> 'source', 'web'),
    coalesce(%(organization_id)s, c ->> 'organization_id'),
    nullif(coalesce(c -> 'details', '{}') || %(details)s, '{}'))
from current_setting('auditdb.context', true) as before, audit.current_context() as c
"""
RESTORE: LiteralString = "select set_config('auditdb.context', coalesce(%(before)s, ''), true)"


@contextmanager
def context(
    conn: Connection[Any],
    *,
    actor_id: Id | None = None,
    actor_type: str | None = None,
    impersonator_id: Id | None = None,
    source: str | None = None,
    organization_id: Id | None = None,
    **details: Any,
) -> Iterator[psycopg.Transaction]:
    """Open a transaction block whose events say who acts, and from where.

    The block is that of `Connection.transaction`: it commits, or rolls back if an exception leaves
    it; inside of a transaction it is a savepoint. BEGIN and the context travel in one round trip.
    The context ends with its block, so that no pool can carry it to the next user. One inside of
    another inherits what it is not given, `details` key by key, and gives way to it at its end.

    Args:
        conn: the connection on which the work of the block is done, of an `audit_writer`.
        actor_id: who acts; while impersonating, the user who is impersonated.
        actor_type: `user`, `api_key` or `system`; by default `user` where an `actor_id` is given.
        impersonator_id: the administrator who acts as the actor.
        source: the way in, such as `api`, `saml`, `scim`, `cli` or `system`; by default `web`.
        organization_id: for events whose row belongs to no organisation.
        details: what else each event shall say, such as `ip`, `user_agent` or `request_id`.

    Yields:
        The transaction; `raise psycopg.Rollback(transaction)` leaves it without an error.

    Raises:
        InvalidInput: an identifier is no string, integer or UUID.
        Refused: the login may not set a context, or `actor_type` is none of these.
        ConnectionFailed: the connection is lost. Errors of the block itself are not changed.

    Example:
        >>> with context(conn, actor_id=7, source="api", ip="203.0.113.9"):  # doctest: +SKIP
        ...     conn.execute("update membership set role = 'ADMIN' where user_id = 9")
    """
    who = _parameters(actor_id, actor_type, impersonator_id, source, organization_id, details)
    enter = (_ENTER if is_idle(conn) else _ENTER_INNER, who)
    with block(conn, "audit_writer", enter, leave=RESTORE) as (transaction, _):
        yield transaction


@asynccontextmanager
async def context_async(
    conn: AsyncConnection[Any],
    *,
    actor_id: Id | None = None,
    actor_type: str | None = None,
    impersonator_id: Id | None = None,
    source: str | None = None,
    organization_id: Id | None = None,
    **details: Any,
) -> AsyncIterator[psycopg.AsyncTransaction]:
    """Open a block as `context` does.

    Example:
        >>> async with context_async(conn, actor_id=7, source="api"):  # doctest: +SKIP
        ...     await conn.execute("delete from api_key where id = 3")
    """
    who = _parameters(actor_id, actor_type, impersonator_id, source, organization_id, details)
    enter = (_ENTER if is_idle(conn) else _ENTER_INNER, who)
    async with block_async(conn, "audit_writer", enter, leave=RESTORE) as (transaction, _):
        yield transaction


def type_of(actor_id: Id | None) -> str | None:
    """Return the type of an actor given without one; that of an outer actor says nothing of it."""
    return None if actor_id is None else "user"


def _parameters(
    actor_id: Id | None,
    actor_type: str | None,
    impersonator_id: Id | None,
    source: str | None,
    organization_id: Id | None,
    details: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "actor_id": as_text("actor_id", actor_id),
        "actor_type": as_text("actor_type", actor_type) or type_of(actor_id),
        "impersonator_id": as_text("impersonator_id", impersonator_id),
        "source": as_text("source", source),
        "organization_id": as_text("organization_id", organization_id),
        "details": as_json(details),
    }
