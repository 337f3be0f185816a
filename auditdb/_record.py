"""Recorded events: what no table shows, such as a sign-in, and attempts that came to nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from typing import Any, LiteralString, TypeAlias, TypedDict, Unpack

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import make_conninfo
from psycopg.rows import scalar_row

from auditdb._context import RESTORE, check_actor_type, type_of
from auditdb.connection.begin import Row, Statement, block, block_async, check_connection, explained
from auditdb.errors import InvalidInput
from auditdb.values.arguments import MEANT, unexpected
from auditdb.values.convert import Id, as_json, as_text

# Each name says its schema: the session's search_path is the application's.
# Where neither the call nor the context names an actor, it is the default one, if there is one.
_RECORD: LiteralString = """
select audit.record_event(
    action => %(action)s,
    organization_id => %(organization_id)s,
    target_type => %(target_type)s,
    target_id => %(target_id)s,
    subject_id => %(subject_id)s,
    result => %(result)s,
    actor_id => coalesce(%(actor_id)s, c operator(pg_catalog.->>) 'actor_id',
        case when coalesce(c operator(pg_catalog.->>) 'actor_type', 'user')
            operator(pg_catalog.=) 'user' then %(default_actor)s end),
    actor_type => coalesce(%(actor_type)s, c operator(pg_catalog.->>) 'actor_type',
        %(default_type)s),
    impersonator_id => %(impersonator_id)s,
    source => %(source)s,
    old_values => %(old_values)s,
    new_values => %(new_values)s,
    details => %(details)s)
from audit.current_context() as c
"""
_READ_CONTEXT: Statement = (
    "select pg_catalog.current_setting('auditdb.context', true) as before",
    (),
)

Connect: TypeAlias = Callable[[], AbstractContextManager[Connection[Any]]]
ConnectAsync: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]
Denied: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


RESULTS = ("success", "failure", "denied")


class Fields(TypedDict, total=False):
    """What an event says besides its action and its result."""

    organization_id: Id | None
    target_type: str | None
    target_id: Id | None
    subject_id: Id | None
    actor_id: Id | None
    actor_type: str | None
    impersonator_id: Id | None
    source: str | None
    old_values: Mapping[str, Any] | None
    new_values: Mapping[str, Any] | None
    details: Mapping[str, Any] | None


def record(
    conn: Connection[Any], action: str, *, result: str = "success", **fields: Unpack[Fields]
) -> int:
    """Record an event in the connection's transaction, and return its id.

    Args:
        conn: a connection of an `audit_writer`; the event is committed with its transaction.
        action: `category.verb`, such as `auth.login`.
        result: `success`, `failure` or `denied`.
        fields: `organization_id`; `target_type` and `target_id`, the object it was done to;
            `subject_id`, the user it is about; `actor_id`, who did it, with `actor_type` (`user`,
            `api_key`, `system`; by default `user`); `impersonator_id`, the administrator who acted
            as the actor; `source`, the way in; `old_values`, `new_values` and `details`, mappings.
            Who and from where come from the context if not given; `details` add to those of it.

    Raises:
        TypeError: a field is misspelt.
        InvalidInput: an identifier is no string, integer or UUID; the result or the type of the
            actor is none of these.
        Refused: the action is malformed, or the login may not record.
        ConnectionFailed: the connection is lost.

    Example:
        >>> record(conn, "report.exported", target_type="report", target_id=5)  # doctest: +SKIP
        1042
    """
    return run(conn, _given("record()", action, result, fields))


async def record_async(
    conn: AsyncConnection[Any], action: str, *, result: str = "success", **fields: Unpack[Fields]
) -> int:
    """Record an event as `record` does.

    Example:
        >>> await record_async(conn, "report.exported", target_id=5)  # doctest: +SKIP
        1042
    """
    return await run_async(conn, _given("record_async()", action, result, fields))


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
    _given("attempt()", action, "failure", fields)
    before: Row = {"before": None}
    try:
        with block(conn, "audit_writer", _READ_CONTEXT) as (transaction, rows):
            before = rows[0]
            yield transaction
            if success:
                record(conn, action, **fields)
    except Exception as error:
        try:
            with (connect or _same_as(conn))() as second, second.transaction():
                second.execute(RESTORE, before)
                run(second, _failed(action, error, denied, fields))
        except Exception as unrecorded:
            error.add_note(_unrecorded(action, unrecorded))
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
    _given("attempt_async()", action, "failure", fields)
    before: Row = {"before": None}
    try:
        async with block_async(conn, "audit_writer", _READ_CONTEXT) as (transaction, rows):
            before = rows[0]
            yield transaction
            if success:
                await record_async(conn, action, **fields)
    except Exception as error:
        try:
            async with (
                (connect or _same_as_async(conn))() as second,
                second.transaction(),
            ):
                await second.execute(RESTORE, before)
                await run_async(second, _failed(action, error, denied, fields))
        except Exception as unrecorded:
            error.add_note(_unrecorded(action, unrecorded))
        raise


def run(conn: Connection[Any], query: Statement) -> int:
    """Record what `statement` made, and return the event's id."""
    check_connection(conn, is_async=False)
    with explained(conn, "audit_writer"):
        row = psycopg.Cursor(conn, row_factory=scalar_row).execute(*query).fetchone()
    return int(row or 0)


async def run_async(conn: AsyncConnection[Any], query: Statement) -> int:
    """Record as `run` does."""
    check_connection(conn, is_async=True)
    with explained(conn, "audit_writer"):
        cursor = await psycopg.AsyncCursor(conn, row_factory=scalar_row).execute(*query)
        row = await cursor.fetchone()
    return int(row or 0)


def _given(function: str, action: str, result: str, fields: Fields) -> Statement:
    """Return the statement of a call, or refuse a misspelt argument with the one that was meant."""
    for name in fields.keys() - Fields.__annotations__.keys():
        own = {"denied", "connect", "success"} if "attempt" in function else {"result"}
        raise unexpected(function, name, own | Fields.__annotations__.keys(), MEANT)
    return statement(action, result, **fields)


def statement(
    action: str,
    result: str,
    *,
    default_actor: Id | None = None,
    default_type: str | None = None,
    organization_id: Id | None = None,
    target_type: str | None = None,
    target_id: Id | None = None,
    subject_id: Id | None = None,
    actor_id: Id | None = None,
    actor_type: str | None = None,
    impersonator_id: Id | None = None,
    source: str | None = None,
    old_values: Mapping[str, Any] | None = None,
    new_values: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
) -> Statement:
    """Return the call of `audit.record_event`; the default actor acts where nobody else does."""
    if result not in RESULTS:
        raise InvalidInput(f"result is {result!r}; it is one of {', '.join(RESULTS)}")
    check_actor_type(actor_type)
    texts: dict[str, Id | None] = {
        "action": action,
        "result": result,
        "default_actor": default_actor,
        "default_type": default_type,
        "organization_id": organization_id,
        "target_type": target_type,
        "target_id": target_id,
        "subject_id": subject_id,
        "actor_id": actor_id,
        "actor_type": actor_type or type_of(actor_id),
        "impersonator_id": impersonator_id,
        "source": source,
    }
    return _RECORD, {
        **{name: as_text(name, value) for name, value in texts.items()},
        "old_values": as_json(old_values),
        "new_values": as_json(new_values),
        "details": as_json(details),
    }


def masked(message: str) -> str:
    r"""Return the first line of an error's message without what it quotes, which may be a value.

    >>> masked("invalid input syntax for type integer: \"hunter2\"\nLINE 1")
    'invalid input syntax for type integer: …'
    """
    line = message.strip().partition("\n")[0]
    return re.sub(r"(['\"`]).*\1", "…", line)[:200]


def _failed(action: str, error: Exception, denied: Denied, fields: Fields) -> Statement:
    refusals = (psycopg.errors.InsufficientPrivilege, PermissionError)
    result = "denied" if isinstance(error, refusals) or isinstance(error, denied) else "failure"
    about = {"type": type(error).__name__, "message": masked(str(error))}
    if isinstance(error, psycopg.Error) and error.sqlstate:
        about["sqlstate"] = error.sqlstate
    known: Fields = {**fields, "details": {**(fields.get("details") or {}), "error": about}}
    return statement(action, result, **known)


def _unrecorded(action: str, error: Exception) -> str:
    return f"auditdb could not record that {action} failed: {type(error).__name__}: {error}"


def _same_as(conn: Connection[Any]) -> Connect:
    return lambda: psycopg.Connection.connect(_conninfo(conn))


def _same_as_async(conn: AsyncConnection[Any]) -> ConnectAsync:
    @asynccontextmanager
    async def connect() -> AsyncIterator[AsyncConnection[Any]]:
        async with await psycopg.AsyncConnection.connect(_conninfo(conn)) as second:
            yield second

    return connect


def _conninfo(conn: Connection[Any] | AsyncConnection[Any]) -> str:
    given = conn.info.get_parameters()
    secret = {"password": conn.info.password} if conn.info.password else {}
    return make_conninfo("", **{"connect_timeout": "10", **given, **secret})
