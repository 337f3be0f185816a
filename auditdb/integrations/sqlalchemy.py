"""SQLAlchemy 2: engines whose transactions say who acts, events and attempts on sessions.

`instrument(engine)` once, where the engine is made; then `with auditdb.context(actor_id=7):` around
the work of a request, whatever sessions and connections it uses. Engines of psycopg, psycopg2 and
asyncpg, synchronous or not.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from typing import Any, TypeAlias, Unpack, overload

from sqlalchemy import Connection, Engine, Function, TextClause, event, text
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.sql import visitors

from auditdb.errors import from_message
from auditdb.write.attempt import OPTIONS
from auditdb.write.claim import Claim
from auditdb.write.event import RECORD, EventFields, NewEvent, new_event
from auditdb.write.failure import Attempt, Denied, sqlstate
from auditdb.write.scope import current_claim

Work: TypeAlias = Session | scoped_session[Any] | Connection
AsyncWork: TypeAlias = AsyncSession | async_scoped_session[Any] | AsyncConnection

_WORK = (Session, scoped_session, Connection)
_ASYNC_WORK = (AsyncSession, async_scoped_session, AsyncConnection)
_RECORD = text(re.sub(r"%\((\w+)\)s", r":\1", RECORD))
# In the info of a DBAPI connection: what its transaction has been sent, None where that is unknown.
_SENT = "auditdb.context"
_BEGUN = "auditdb.begun"
_SET = "select pg_catalog.set_config('auditdb.context', {}, true)"
_WRITES = re.compile(r"\s*(insert|update|delete|merge|with|copy|call)\b", re.IGNORECASE)
_HARMLESS = re.compile(
    r"\s*(show|set|reset|begin|start|commit|rollback|savepoint|release|prepare|explain|vacuum|"
    r"analyze|listen|unlisten|discard|close|fetch|lock|checkpoint)\b",
    re.IGNORECASE,
)


def instrument(engine: Engine | AsyncEngine) -> None:
    """Let every transaction of an engine say who acts, as `auditdb.context` has it.

    What the context says is sent before the first statement that may write, once a transaction;
    again after the rollback of a savepoint, or when the context has changed. Transactions that only
    read by SELECTs of the ORM or of Core without functions of your own cost nothing. Where the
    isolation level is AUTOCOMMIT, a statement that writes is put into a transaction of its own.
    Nothing stays on a connection that goes back to its pool.

    Args:
        engine: of psycopg, psycopg2 or asyncpg; to do it twice changes nothing.

    Raises:
        TypeError: it is no engine, or none of PostgreSQL.

    Example:
        >>> engine = create_engine("postgresql+psycopg://app@db/shop")  # doctest: +SKIP
        >>> instrument(engine)  # doctest: +SKIP
    """
    engine = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    if not isinstance(engine, Engine):
        raise TypeError(
            f"engine is a {type(engine).__name__}; give what create_engine() or "
            "create_async_engine() returned"
        )
    if engine.dialect.name != "postgresql":
        raise TypeError(f"the engine is one of {engine.dialect.name}; auditdb is for PostgreSQL")
    for name, listener in _LISTENERS.items():
        if not event.contains(engine, name, listener):
            event.listen(engine, name, listener)


def _begin(conn: Connection, *_: Any) -> None:
    conn.info[_SENT] = ""


def _rolled_back_to_savepoint(conn: Connection, *_: Any) -> None:
    # What was sent after the savepoint is undone.
    conn.info[_SENT] = None


def _before(
    conn: Connection,
    cursor: Any,
    statement: str,
    parameters: Any,
    context: ExecutionContext | None,
    executemany: bool,
) -> None:
    claim = current_claim()
    wanted = "" if claim is None else claim.setting
    if conn.info.get(_SENT, "") == wanted or not _may_write(statement, context):
        return
    if _is_autocommit(conn):
        if claim is None or not _WRITES.match(statement):
            return
        _run(conn, "begin")
        conn.info[_BEGUN] = True
        _send(conn, wanted)
        return
    _send(conn, wanted)
    conn.info[_SENT] = wanted


def _after(conn: Connection, *_: Any) -> None:
    if conn.info.pop(_BEGUN, False):
        _run(conn, "commit")


def _failed(context: Any) -> None:
    conn = context.connection
    if conn is not None and not context.is_disconnect and conn.info.pop(_BEGUN, False):
        _run(conn, "rollback")


_LISTENERS: dict[str, Any] = {
    "begin": _begin,
    "begin_twophase": _begin,
    "rollback_savepoint": _rolled_back_to_savepoint,
    "before_cursor_execute": _before,
    "after_cursor_execute": _after,
    "handle_error": _failed,
}


def _may_write(statement: str, context: Any) -> bool:
    """Whether a statement may change a row, also through a function that it calls."""
    if _WRITES.match(statement):
        return True
    if _HARMLESS.match(statement):
        return False
    compiled = getattr(context, "compiled", None)
    asked = getattr(compiled, "statement", None)
    if asked is None or isinstance(asked, TextClause):
        return True
    # Functions that SQLAlchemy knows, such as count, are of other classes.
    return any(type(part) is Function or isinstance(part, TextClause)
               for part in visitors.iterate(asked))  # fmt: skip


def _is_autocommit(conn: Connection) -> bool:
    return bool(getattr(conn.connection.dbapi_connection, "autocommit", False))


def _send(conn: Connection, setting: str) -> None:
    is_numeric = "numeric" in conn.dialect.paramstyle
    _run(conn, _SET.format("$1" if is_numeric else "%s"), (setting,))


def _run(conn: Connection, statement: str, parameters: tuple[str, ...] = ()) -> None:
    cursor = conn.connection.cursor()
    try:
        cursor.execute(statement, parameters)
    finally:
        cursor.close()


@overload
def record(
    work: Work, event: NewEvent | str, *, result: str | None = None, **fields: Unpack[EventFields]
) -> int: ...
@overload
def record(
    work: AsyncWork,
    event: NewEvent | str,
    *,
    result: str | None = None,
    **fields: Unpack[EventFields],
) -> Awaitable[int]: ...
def record(
    work: Any, event: NewEvent | str, *, result: str | None = None, **fields: Unpack[EventFields]
) -> Any:
    """Record an event in the transaction of a session or connection, and return its id.

    Args:
        work: a session or connection, synchronous or not; of an `audit_writer`.
        event: an event as the functions of `auditdb.auth` return, or an action with fields.
        result: `success`, `failure` or `denied`. Default: success.
        fields: as in `auditdb.record`.

    Raises:
        TypeError: a field is misspelt, or `work` is neither session nor connection.
        AuditError: as `auditdb.record`.

    Example:
        >>> record(session, auth.login(7, organization_id=1))  # doctest: +SKIP
        1042
    """
    draft = new_event("record()", event, result, fields)
    if isinstance(work, _ASYNC_WORK):
        return _record_async(work, draft, current_claim())
    return _record(_checked(work), draft, current_claim())


def _record(work: Any, draft: NewEvent, claim: Claim | None) -> int:
    try:
        return int(work.execute(_RECORD, draft.parameters(claim)).scalar_one())
    except DBAPIError as error:
        raise _translated(error) from error


async def _record_async(work: Any, draft: NewEvent, claim: Claim | None) -> int:
    try:
        return int((await work.execute(_RECORD, draft.parameters(claim))).scalar_one())
    except DBAPIError as error:
        raise _translated(error) from error


@overload
def attempt(
    work: Work,
    event: NewEvent | str,
    *,
    denied: Denied = (),
    success: bool = False,
    **fields: Unpack[EventFields],
) -> AbstractContextManager[None]: ...
@overload
def attempt(
    work: AsyncWork,
    event: NewEvent | str,
    *,
    denied: Denied = (),
    success: bool = False,
    **fields: Unpack[EventFields],
) -> AbstractAsyncContextManager[None]: ...
def attempt(
    work: Any,
    event: NewEvent | str,
    *,
    denied: Denied = (),
    success: bool = False,
    **fields: Unpack[EventFields],
) -> Any:
    """Open a transaction block for an action, and record it if it is denied or fails.

    The block is that of `begin()`, inside of a transaction that of `begin_nested()`: what fails in
    it is rolled back and raised as it is. The event is written by another connection of the same
    engine, so that it outlives the rollback; the pool needs one that is free.

    Args:
        work: a session or connection, synchronous or not.
        event: an event, or its action, `category.verb`, whose fields follow.
        denied: exception types of the application that mean a refusal; others mean failure.
        success: whether a success is recorded as well, in the action's own transaction.
        fields: as in `auditdb.record`.

    Raises:
        TypeError: a field is misspelt, or `work` is neither session nor connection.
        InvalidInput: an identifier is no string, integer or UUID; raised before the action begins.

    Example:
        >>> with attempt(session, "workflow.deleted", target_id=5):  # doctest: +SKIP
        ...     session.delete(workflow)
    """
    draft = new_event("attempt()", event, None, fields, OPTIONS - {"connect"})
    given = Attempt(event=draft, denied=denied, success=success)
    if isinstance(work, _ASYNC_WORK):
        return _attempt_async(work, given)
    return _attempt(_checked(work), given)


@contextmanager
def _attempt(work: Any, given: Attempt) -> Iterator[None]:
    claim = current_claim()
    engine = _engine_of(work)
    try:
        with work.begin_nested() if work.in_transaction() else work.begin():
            yield
            if given.success:
                _record(work, given.event, claim)
    except Exception as error:
        try:
            with engine.connect() as second, second.begin():
                _record(second, given.failed(error), claim)
        except Exception as unrecorded:
            given.note(error, unrecorded)
        raise


@asynccontextmanager
async def _attempt_async(work: Any, given: Attempt) -> AsyncIterator[None]:
    claim = current_claim()
    sync = work.sync_session if hasattr(work, "sync_session") else work.sync_connection
    engine = AsyncEngine(_engine_of(sync))
    try:
        async with work.begin_nested() if work.in_transaction() else work.begin():
            yield
            if given.success:
                await _record_async(work, given.event, claim)
    except Exception as error:
        try:
            async with engine.connect() as second, second.begin():
                await _record_async(second, given.failed(error), claim)
        except Exception as unrecorded:
            given.note(error, unrecorded)
        raise


def _checked(work: Any) -> Any:
    if isinstance(work, _WORK):
        return work
    raise TypeError(
        f"work is a {type(work).__name__}; give a session or a connection of SQLAlchemy"
        + (", such as engine.connect()" if isinstance(work, Engine | AsyncEngine) else "")
    )


def _engine_of(work: Any) -> Engine:
    bind = work.engine if isinstance(work, Connection) else work.get_bind()
    engine: Engine = bind.engine
    return engine


def _translated(error: DBAPIError) -> Exception:
    original: Any = error.orig
    source = getattr(original, "__cause__", None) or original
    diag = getattr(source, "diag", None)
    message = getattr(diag, "message_primary", None) or getattr(source, "message", None)
    hint = getattr(diag, "message_hint", None) or getattr(source, "hint", None)
    return from_message(message or str(source), None, hint, sqlstate(source) or sqlstate(original))
