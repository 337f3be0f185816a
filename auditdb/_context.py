"""The context: who acts, and from where, for the length of one transaction block."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from typing import Any, LiteralString
from weakref import WeakSet

import psycopg
from psycopg import AsyncConnection, Connection

from auditdb._claim import ARGUMENTS, Claim, make_claim, set_context_parameters, setting_statement
from auditdb.connection.begin import begin_with, begin_with_async
from auditdb.connection.checks import check_connection
from auditdb.connection.one_query import (
    AsyncOneQueryTransaction,
    OneQueryTransaction,
    can_use_one_query,
)
from auditdb.connection.state import is_idle
from auditdb.values.arguments import check_details
from auditdb.values.convert import Id

# Each name says its schema: the session's search_path is the application's.
# Outside of a transaction no context can be in force.
_ENTER: LiteralString = """
select audit.set_context(%(actor_id)s, coalesce(%(actor_type)s, 'user'), %(impersonator_id)s,
    coalesce(%(source)s, 'web'), %(organization_id)s,
    case when %(details)s operator(pg_catalog.<>) '{}' then %(details)s end)
"""
# Inside of one, what is not given comes from the context in force, which only the server knows for
# certain: a savepoint that was rolled back, or SQL of the application, may have changed it.
_ENTER_INNER: LiteralString = """
select before, audit.set_context(
    coalesce(%(actor_id)s, c operator(pg_catalog.->>) 'actor_id'),
    coalesce(%(actor_type)s, c operator(pg_catalog.->>) 'actor_type', 'user'),
    coalesce(%(impersonator_id)s, c operator(pg_catalog.->>) 'impersonator_id'),
    coalesce(%(source)s, c operator(pg_catalog.->>) 'source', 'web'),
    coalesce(%(organization_id)s, c operator(pg_catalog.->>) 'organization_id'),
    (
        select d
        from (
            select coalesce(c operator(pg_catalog.->) 'details', '{}')
                operator(pg_catalog.||) %(details)s as d
        ) as merged
        where d operator(pg_catalog.<>) '{}'
    ))
from pg_catalog.current_setting('auditdb.context', true) as before, audit.current_context() as c
"""
# Those whose login has proved that it may set a context, which later ones do at less cost.
_writers: WeakSet[Connection[Any] | AsyncConnection[Any]] = WeakSet()
RESTORE: LiteralString = """
select pg_catalog.set_config('auditdb.context', coalesce(%(before)s, ''), true)
"""


def context(
    conn: Connection[Any],
    *,
    actor_id: Id | None = None,
    actor_type: str | None = None,
    impersonator_id: Id | None = None,
    source: str | None = None,
    organization_id: Id | None = None,
    **details: Any,
) -> AbstractContextManager[psycopg.Transaction]:
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
        details: what else each event shall say, such as `ip`, `user_agent` or `request_id`. Values
            under names of secrets are redacted; texts are not searched.

    Yields:
        The transaction; `raise psycopg.Rollback(transaction)` leaves it without an error.

    Raises:
        TypeError: a detail is named as, or nearly as, an argument or a column of the log.
        InvalidInput: an identifier is no string, integer or UUID, or longer than 200 characters;
            or `actor_type` is none of these.
        Refused: the login may not set a context.
        ConnectionFailed: the connection is lost. Errors of the block itself are not changed.

    Example:
        >>> with context(conn, actor_id=7, source="api", ip="203.0.113.9"):  # doctest: +SKIP
        ...     conn.execute("update membership set role = 'ADMIN' where user_id = 9")
    """
    check_details("context()", details, ARGUMENTS)
    check_connection(conn, is_async=False)
    claim = make_claim(actor_id, actor_type, impersonator_id, source, organization_id, details)
    return _Context(conn, claim)


def context_async(
    conn: AsyncConnection[Any],
    *,
    actor_id: Id | None = None,
    actor_type: str | None = None,
    impersonator_id: Id | None = None,
    source: str | None = None,
    organization_id: Id | None = None,
    **details: Any,
) -> AbstractAsyncContextManager[psycopg.AsyncTransaction]:
    """Open a block as `context` does.

    Example:
        >>> async with context_async(conn, actor_id=7, source="api"):  # doctest: +SKIP
        ...     await conn.execute("delete from api_key where id = 3")
    """
    check_details("context_async()", details, ARGUMENTS)
    check_connection(conn, is_async=True)
    claim = make_claim(actor_id, actor_type, impersonator_id, source, organization_id, details)
    return _AsyncContext(conn, claim)


class _Context(AbstractContextManager[psycopg.Transaction]):
    __slots__ = ("_block", "_claim", "_conn")

    def __init__(self, conn: Connection[Any], claim: Claim) -> None:
        self._conn = conn
        self._claim = claim

    def __enter__(self) -> psycopg.Transaction:
        conn, claim = self._conn, self._claim
        self._block: AbstractContextManager[psycopg.Transaction]
        if conn in _writers and can_use_one_query(conn):
            self._block = OneQueryTransaction(conn, setting_statement(conn, claim))
        else:
            self._block = _through_set_context(conn, claim)
        return self._block.__enter__()

    def __exit__(self, *error: Any) -> bool | None:
        return self._block.__exit__(*error)


class _AsyncContext(AbstractAsyncContextManager[psycopg.AsyncTransaction]):
    __slots__ = ("_block", "_claim", "_conn")

    def __init__(self, conn: AsyncConnection[Any], claim: Claim) -> None:
        self._conn = conn
        self._claim = claim

    async def __aenter__(self) -> psycopg.AsyncTransaction:
        conn, claim = self._conn, self._claim
        self._block: AbstractAsyncContextManager[psycopg.AsyncTransaction]
        if conn in _writers and can_use_one_query(conn):
            self._block = AsyncOneQueryTransaction(conn, setting_statement(conn, claim))
        else:
            self._block = _through_set_context_async(conn, claim)
        return await self._block.__aenter__()

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._block.__aexit__(*error)


@contextmanager
def _through_set_context(conn: Connection[Any], claim: Claim) -> Iterator[psycopg.Transaction]:
    enter = (_ENTER if is_idle(conn) else _ENTER_INNER, set_context_parameters(claim))
    with begin_with(conn, "audit_writer", enter, leave=RESTORE) as (transaction, _):
        _writers.add(conn)
        yield transaction


@asynccontextmanager
async def _through_set_context_async(
    conn: AsyncConnection[Any], claim: Claim
) -> AsyncIterator[psycopg.AsyncTransaction]:
    enter = (_ENTER if is_idle(conn) else _ENTER_INNER, set_context_parameters(claim))
    async with begin_with_async(conn, "audit_writer", enter, leave=RESTORE) as (transaction, _):
        _writers.add(conn)
        yield transaction
