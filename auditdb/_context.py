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
from typing import Any, LiteralString, TypeAlias
from weakref import WeakSet

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.pq import Escaping
from psycopg.types.json import Jsonb

from auditdb.connection.begin import (
    AsyncOneQueryTransaction,
    OneQueryTransaction,
    block,
    block_async,
    can_begin,
    check_connection,
    is_idle,
)
from auditdb.errors import InvalidInput
from auditdb.values.arguments import check_details
from auditdb.values.convert import Id, as_text
from auditdb.values.details import details_without_secrets

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
# Names and texts of those that are given, and `details`.
Claim: TypeAlias = dict[str, Any]
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
    claim = _claim(actor_id, actor_type, impersonator_id, source, organization_id, details)
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
    check_details("context_async()", details, _ARGUMENTS)
    check_connection(conn, is_async=True)
    claim = _claim(actor_id, actor_type, impersonator_id, source, organization_id, details)
    return _AsyncContext(conn, claim)


class _Context(AbstractContextManager[psycopg.Transaction]):
    __slots__ = ("_block", "_claim", "_conn")

    def __init__(self, conn: Connection[Any], claim: Claim) -> None:
        self._conn = conn
        self._claim = claim

    def __enter__(self) -> psycopg.Transaction:
        conn, claim = self._conn, self._claim
        self._block: AbstractContextManager[psycopg.Transaction]
        if conn in _writers and can_begin(conn):
            self._block = OneQueryTransaction(conn, _setting(conn, claim))
        else:
            self._block = _block(conn, claim)
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
        if conn in _writers and can_begin(conn):
            self._block = AsyncOneQueryTransaction(conn, _setting(conn, claim))
        else:
            self._block = _block_async(conn, claim)
        return await self._block.__aenter__()

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._block.__aexit__(*error)


@contextmanager
def _block(conn: Connection[Any], claim: Claim) -> Iterator[psycopg.Transaction]:
    enter = (_ENTER if is_idle(conn) else _ENTER_INNER, _parameters(claim))
    with block(conn, "audit_writer", enter, leave=RESTORE) as (transaction, _):
        _writers.add(conn)
        yield transaction


@asynccontextmanager
async def _block_async(
    conn: AsyncConnection[Any], claim: Claim
) -> AsyncIterator[psycopg.AsyncTransaction]:
    enter = (_ENTER if is_idle(conn) else _ENTER_INNER, _parameters(claim))
    async with block_async(conn, "audit_writer", enter, leave=RESTORE) as (transaction, _):
        _writers.add(conn)
        yield transaction


def _setting(conn: Connection[Any] | AsyncConnection[Any], claim: Claim) -> bytes:
    """Return the statement that does as `audit.set_context` does, at less cost.

    Raises:
        InvalidInput: the connection's encoding lacks a character.
    """
    context = {"actor_type": "user", "source": "web", **claim}
    if claim["details"]:
        context["details"] = _without_nulls(claim["details"])
    else:
        del context["details"]
    # As psycopg: SQL_ASCII takes any bytes.
    encoding = conn.info.encoding.replace("ascii", "utf-8")
    try:
        literal = Escaping(conn.pgconn).escape_literal(_encode(context).encode(encoding))
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


def _claim(
    actor_id: Id | None,
    actor_type: str | None,
    impersonator_id: Id | None,
    source: str | None,
    organization_id: Id | None,
    details: Mapping[str, Any],
) -> Claim:
    """Return what was given, checked; without secrets."""
    claim: Claim = {"details": details_without_secrets(details)}
    if actor_id is not None:
        claim["actor_id"] = _identifier("actor_id", actor_id)
        claim["actor_type"] = "user"
    if actor_type:
        claim["actor_type"] = as_text("actor_type", actor_type)
        check_actor_type(claim["actor_type"])
    if impersonator_id is not None:
        claim["impersonator_id"] = _identifier("impersonator_id", impersonator_id)
    if source is not None:
        claim["source"] = _identifier("source", source)
    if organization_id is not None:
        claim["organization_id"] = _identifier("organization_id", organization_id)
    return claim


def _identifier(name: str, value: Id) -> str:
    text = as_text(name, value)
    if len(text) > 200:
        raise InvalidInput(f"{name} is longer than 200 characters; put long values into details")
    return text


def _parameters(claim: Claim) -> dict[str, Any]:
    """Return the parameters of `_ENTER`."""
    return {**dict.fromkeys(_ARGUMENTS), **claim, "details": Jsonb(claim["details"])}
