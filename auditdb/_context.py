"""The context: who acts, and from where, for the length of one transaction block."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
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
from psycopg.pq import Escaping

from auditdb._arguments import check_details
from auditdb._details import without_secrets
from auditdb._session import (
    AsyncBegun,
    Begun,
    block,
    block_async,
    can_begin,
    check_connection,
    is_idle,
)
from auditdb._values import Id, as_json, as_text
from auditdb.errors import InvalidInput

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
_encode = json.JSONEncoder(ensure_ascii=False).encode
_ARGUMENTS = frozenset(("actor_id", "actor_type", "impersonator_id", "source", "organization_id"))
ACTOR_TYPES = ("user", "api_key", "system", "database")
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
    check_details("context()", details, _ARGUMENTS)
    check_connection(conn, is_async=False)
    who = _parameters(actor_id, actor_type, impersonator_id, source, organization_id, details)
    return _Context(conn, who)


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
    check_details("context_async()", details, _ARGUMENTS)
    check_connection(conn, is_async=True)
    who = _parameters(actor_id, actor_type, impersonator_id, source, organization_id, details)
    return _AsyncContext(conn, who)


class _Context(AbstractContextManager[psycopg.Transaction]):
    def __init__(self, conn: Connection[Any], who: dict[str, Any]) -> None:
        self._conn = conn
        self._who = who

    def __enter__(self) -> psycopg.Transaction:
        conn, who = self._conn, self._who
        self._block: AbstractContextManager[psycopg.Transaction]
        if conn in _writers and can_begin(conn):
            self._block = Begun(conn, _setting(conn, who))
        else:
            self._block = _block(conn, who)
        return self._block.__enter__()

    def __exit__(self, *error: Any) -> bool | None:
        return self._block.__exit__(*error)


class _AsyncContext(AbstractAsyncContextManager[psycopg.AsyncTransaction]):
    def __init__(self, conn: AsyncConnection[Any], who: dict[str, Any]) -> None:
        self._conn = conn
        self._who = who

    async def __aenter__(self) -> psycopg.AsyncTransaction:
        conn, who = self._conn, self._who
        self._block: AbstractAsyncContextManager[psycopg.AsyncTransaction]
        if conn in _writers and can_begin(conn):
            self._block = AsyncBegun(conn, _setting(conn, who))
        else:
            self._block = _block_async(conn, who)
        return await self._block.__aenter__()

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._block.__aexit__(*error)


@contextmanager
def _block(conn: Connection[Any], who: dict[str, Any]) -> Iterator[psycopg.Transaction]:
    enter = (_ENTER if is_idle(conn) else _ENTER_INNER, who)
    with block(conn, "audit_writer", enter, leave=RESTORE) as (transaction, _):
        _writers.add(conn)
        yield transaction


@asynccontextmanager
async def _block_async(
    conn: AsyncConnection[Any], who: dict[str, Any]
) -> AsyncIterator[psycopg.AsyncTransaction]:
    enter = (_ENTER if is_idle(conn) else _ENTER_INNER, who)
    async with block_async(conn, "audit_writer", enter, leave=RESTORE) as (transaction, _):
        _writers.add(conn)
        yield transaction


def _setting(conn: Connection[Any] | AsyncConnection[Any], who: dict[str, Any]) -> bytes:
    """Return the statement that does as `audit.set_context` does, at less cost.

    Raises:
        InvalidInput: the connection's encoding lacks a character.
    """
    given = {
        **who,
        "actor_type": who["actor_type"] or "user",
        "source": "web" if who["source"] is None else who["source"],
        "details": _without_nulls(who["details"].obj or None),
    }
    context = _encode({key: value for key, value in given.items() if value is not None})
    # As psycopg: SQL_ASCII takes any bytes.
    encoding = conn.info.encoding.replace("ascii", "utf-8")
    try:
        literal = Escaping(conn.pgconn).escape_literal(context.encode(encoding))
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"the client_encoding of the connection has no {error.object[error.start]!r}, which "
            "the context holds"
        ) from error
    if conn.info.server_version >= 180000:
        # Takes no plan and returns no row; but older servers' pg_stat_statements would keep a line
        # for each value.
        return b"set local auditdb.context = " + bytes(literal)
    return b"select pg_catalog.set_config('auditdb.context', " + bytes(literal) + b", true)"


def _without_nulls(value: Any) -> Any:
    """Return what jsonb_strip_nulls would."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def type_of(actor_id: Id | None) -> str | None:
    """Return the type of an actor given without one; that of an outer actor says nothing of it."""
    return None if actor_id is None else "user"


def check_actor_type(actor_type: str | None) -> None:
    """Refuse what is no type of an actor.

    Raises:
        InvalidInput: it is none of them.
    """
    if actor_type not in (None, *ACTOR_TYPES):
        raise InvalidInput(f"actor_type is {actor_type!r}; it is one of {', '.join(ACTOR_TYPES)}")


def _parameters(
    actor_id: Id | None,
    actor_type: str | None,
    impersonator_id: Id | None,
    source: str | None,
    organization_id: Id | None,
    details: Mapping[str, Any],
) -> dict[str, Any]:
    who = {
        "actor_id": as_text("actor_id", actor_id),
        "actor_type": as_text("actor_type", actor_type) or type_of(actor_id),
        "impersonator_id": as_text("impersonator_id", impersonator_id),
        "source": as_text("source", source),
        "organization_id": as_text("organization_id", organization_id),
    }
    for name, value in who.items():
        if value is not None and len(value) > 200:
            raise InvalidInput(
                f"{name} is longer than 200 characters; put long values into details"
            )
    check_actor_type(who["actor_type"])
    given = as_json(details)
    given.obj = without_secrets(given.obj)
    return {**who, "details": given}
