"""SQLAlchemy 2: engines that send the actor in transactions; events and attempts on sessions.

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
    contextmanager,
    suppress,
)
from typing import Any, TypeAlias, Unpack, overload
from weakref import WeakKeyDictionary

from sqlalchemy import (
    ColumnClause,
    Connection,
    Engine,
    SelectBase,
    TextClause,
    TextualSelect,
    UpdateBase,
    event,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.sql import visitors
from sqlalchemy.sql.functions import FunctionElement

from auditdb.errors import AuditError
from auditdb.write.async_block import async_block
from auditdb.write.attempt import OPTIONS
from auditdb.write.event import RECORD, EventFields, NewEvent, new_event
from auditdb.write.failure import Attempt, Denied, from_wrapped
from auditdb.write.scope import current_claim

Work: TypeAlias = Session | scoped_session[Any] | Connection
AsyncWork: TypeAlias = AsyncSession | async_scoped_session[Any] | AsyncConnection

_WORK = (Session, scoped_session, Connection)
_ASYNC_WORK = (AsyncSession, async_scoped_session, AsyncConnection)
_RECORD = text(re.sub(r"%\((\w+)\)s", r":\1", RECORD))
# Key in the info of a DBAPI connection: the setting sent in its transaction; None if unknown.
_SENT = "auditdb.context"
_BEGUN = "auditdb.begun"
_SET = "select pg_catalog.set_config('auditdb.context', "
_START = r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*"
_WRITES = re.compile(_START + r"(insert|update|delete|merge|with|copy|call)\b", re.I | re.S)
_HARMLESS = re.compile(
    _START + r"(show|set|reset|begin|start|commit|end|rollback|abort|savepoint|release|prepare|"
    r"vacuum|listen|unlisten|discard|close|lock|checkpoint)\b",
    re.I | re.S,
)
# Statements that may run in their own transaction; procedures that commit may not.
_FITS = re.compile(
    _START + r"(select|values|table|insert|update|delete|merge|with|copy)\b", re.I | re.S
)
# In text and in SQLAlchemy's clauses for savepoints: afterwards the setting on the server may
# differ from the one that was sent.
_UNDOES = re.compile(r"\b(rollback|abort|commit|end|reset|discard)\b", re.I)
# Common functions of PostgreSQL that write nothing.
_PURE = frozenset({
    "array_agg", "avg", "coalesce", "concat", "count", "current_date", "current_timestamp", "max",
    "min", "now", "row_number", "sum",
})  # fmt: skip
_reads: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def instrument(engine: Engine | AsyncEngine) -> None:
    """Let every transaction of an engine send the actor, from `auditdb.context`.

    The context is sent once in a transaction, before the first statement that may write. It is sent
    again after a rollback to a savepoint, or after the context changed. It is not sent in
    transactions that only read with SELECTs of the ORM or of Core, without your own functions. With
    isolation level AUTOCOMMIT, a statement that may write runs in its own transaction, except CALL
    and DO, which may commit. Nothing stays on a connection that goes back to its pool.

    Args:
        engine: an engine of psycopg, psycopg2 or asyncpg. A second call changes nothing.

    Raises:
        TypeError: it is not an engine of PostgreSQL.

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
    conn.info.pop(_SENT, None)
    conn.info.pop(_BEGUN, None)


def _before(
    conn: Connection,
    cursor: Any,
    statement: str,
    parameters: Any,
    context: Any,
    executemany: bool,
) -> None:
    if statement.startswith(_SET):
        return
    claim = current_claim()
    wanted = "" if claim is None else claim.setting
    info = conn.info
    if info.get(_SENT, "") != wanted and _may_write(statement, context, _SENT in info):
        if not _is_autocommit(conn):
            _send(conn, wanted)
            info[_SENT] = wanted
        elif _is_in_transaction(conn):
            # The application began it with its own SQL, so its end is unknown.
            _send(conn, wanted)
            info[_SENT] = None
        elif claim is not None and _FITS.match(statement) and not _is_streamed(context):
            _begin_with(conn, wanted)
    if _SENT in info and _is_text(context) and _UNDOES.search(statement):
        info[_SENT] = None


def _after(conn: Connection, *_: Any) -> None:
    if conn.info.pop(_BEGUN, False):
        conn.exec_driver_sql("commit")


def _failed(context: Any) -> None:
    conn = context.connection
    if conn is None or conn.invalidated or context.is_disconnect:
        return
    if conn.info.pop(_BEGUN, False):
        _roll_back(conn)


_LISTENERS: dict[str, Any] = {
    "begin": _begin,
    "begin_twophase": _begin,
    "before_cursor_execute": _before,
    "after_cursor_execute": _after,
    "handle_error": _failed,
}


def _may_write(statement: str, context: Any, is_unsure: bool) -> bool:
    """Whether a statement may change a row, directly or through a function.

    Args:
        statement: the SQL.
        context: SQLAlchemy's own.
        is_unsure: whether another actor may be in force, whom no view may act for either.
    """
    if _WRITES.match(statement):
        return True
    # A harmless word may be the first of several statements.
    if _HARMLESS.match(statement) and ";" not in statement.rstrip("; \n"):
        return False
    compiled = getattr(context, "compiled", None)
    if is_unsure or compiled is None:
        return True
    reads = _reads.get(compiled)
    if reads is None:
        reads = _reads[compiled] = _only_reads(compiled.statement)
    return not reads


def _only_reads(asked: Any) -> bool:
    """Whether it is a SELECT without raw text and without unknown functions."""
    return isinstance(asked, SelectBase) and not any(
        isinstance(part, TextClause | TextualSelect)
        or (isinstance(part, ColumnClause) and part.is_literal and part.name != "*")
        or (isinstance(part, FunctionElement) and not _is_pure(part))
        for part in visitors.iterate(asked)
    )


def _is_pure(function: Any) -> bool:
    name, packages = getattr(function, "name", None), getattr(function, "packagenames", ())
    return name in _PURE and not packages


def _is_text(context: Any) -> bool:
    compiled = getattr(context, "compiled", None)
    return compiled is None or not isinstance(compiled.statement, SelectBase | UpdateBase)


def _is_streamed(context: Any) -> bool:
    return bool(getattr(context, "_is_server_side", False))


def _is_autocommit(conn: Connection) -> bool:
    return bool(getattr(conn.connection.dbapi_connection, "autocommit", False))


def _is_in_transaction(conn: Connection) -> bool:
    driver: Any = conn.connection.driver_connection
    if conn.dialect.driver == "asyncpg":
        return bool(driver.is_in_transaction())
    return bool(driver.info.transaction_status)


def _begin_with(conn: Connection, setting: str) -> None:
    conn.exec_driver_sql("begin")
    try:
        _send(conn, setting)
    except Exception:
        with suppress(Exception):
            _roll_back(conn)
        raise
    conn.info[_BEGUN] = True


def _send(conn: Connection, setting: str) -> None:
    # Through SQLAlchemy, which wraps errors of the driver and discards a lost connection.
    place = "$1" if "numeric" in conn.dialect.paramstyle else "%s"
    conn.exec_driver_sql(
        f"{_SET}{place}, true)", (setting,), execution_options={"stream_results": False}
    )


def _roll_back(conn: Connection) -> None:
    cursor = conn.connection.cursor()
    try:
        cursor.execute("rollback")
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
        return _record_async(work, draft)
    return _record(_checked(work), draft)


def _record(work: Any, draft: NewEvent) -> int:
    # Flush first: the events of pending changes must come before this one.
    if getattr(work, "autoflush", False):
        work.flush()
    try:
        return int(work.execute(_RECORD, draft.parameters(current_claim())).scalar_one())
    except DBAPIError as error:
        raise _refused(work, error) from error


async def _record_async(work: Any, draft: NewEvent) -> int:
    if getattr(work, "autoflush", False):
        await work.flush()
    try:
        return int((await work.execute(_RECORD, draft.parameters(current_claim()))).scalar_one())
    except DBAPIError as error:
        raise _refused(work, error) from error


def _refused(work: Any, error: DBAPIError) -> AuditError:
    return from_wrapped(error, _engine_of(work).url.username)


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
    work = work() if isinstance(work, scoped_session) else work
    engine = _engine_of(work)
    try:
        with work.begin_nested() if work.in_transaction() else work.begin():
            yield
            if given.success:
                _record(work, given.event)
    except Exception as error:
        try:
            with engine.connect() as second, second.begin():
                _record(second, given.failed(error))
        except Exception as unrecorded:
            given.note(error, unrecorded)
        raise


@async_block
async def _attempt_async(work: Any, given: Attempt) -> AsyncIterator[None]:
    work = work() if isinstance(work, async_scoped_session) else work
    engine = AsyncEngine(_engine_of(work))
    try:
        async with work.begin_nested() if work.in_transaction() else work.begin():
            yield
            if given.success:
                await _record_async(work, given.event)
    except Exception as error:
        try:
            async with engine.connect() as second, second.begin():
                await _record_async(second, given.failed(error))
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
    work = work() if isinstance(work, scoped_session | async_scoped_session) else work
    if isinstance(work, AsyncSession | AsyncConnection):
        work = work.sync_session if isinstance(work, AsyncSession) else work.sync_connection
    bind = work.engine if isinstance(work, Connection) else work.get_bind()
    engine: Engine = bind.engine
    return engine
