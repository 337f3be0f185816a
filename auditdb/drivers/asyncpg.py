"""asyncpg: the same blocks, with asyncpg's own transactions."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from functools import cache
from typing import Any

import asyncpg

from auditdb.errors import from_message, lacks_character
from auditdb.write.async_block import async_block
from auditdb.write.claim import Claim
from auditdb.write.event import RECORD, NewEvent
from auditdb.write.failure import Attempt
from auditdb.write.scope import claim_within, current_claim, in_scope
from auditdb.write.setting import ENTER_INNER, READ, RESTORE, SET

_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


def check_connection(conn: object) -> None:
    """Refuse an object that is not a connection.

    Raises:
        TypeError: the message says what to give.
    """
    if not isinstance(conn, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy):
        raise TypeError(
            f"conn is a {type(conn).__name__}; give a connection of asyncpg, such as that of "
            "`async with pool.acquire() as conn`"
        )


@async_block
async def open_context(conn: Any, claim: Claim) -> AsyncIterator[None]:
    """Open the block of `auditdb.context`."""
    sent = claim_within(conn, claim)
    async with _block(conn) as is_outermost:
        before = None
        if not is_outermost or await _value(conn, SET, {"setting": sent.setting}) is None:
            before = await _value(conn, ENTER_INNER, sent.parameters())
        with in_scope(claim, conn):
            yield
        if not is_outermost:
            await _run(conn, RESTORE, {"before": before})


async def record(conn: Any, event: NewEvent, claim: Claim | None) -> int:
    """Record an event, and return its id."""
    parameters = event.parameters(claim)
    with _raises_audit_errors(conn):
        is_inside = conn.is_in_transaction()
    # Outside a transaction, a pooler may send Parse and Bind to different servers.
    async with nullcontext() if is_inside else _block(conn):
        return int(await _value(conn, RECORD, parameters) or 0)


@async_block
async def open_attempt(conn: Any, attempt: Attempt) -> AsyncIterator[None]:
    """Open the block of `auditdb.attempt`."""
    with _raises_audit_errors(conn):
        is_inside = conn.is_in_transaction()
    if attempt.connect is None and is_inside:
        raise TypeError(
            "attempt() inside of a transaction of asyncpg needs connect=pool.acquire: what it "
            "records must outlive the rollback, and asyncpg tells no address of a connection"
        )
    claim = current_claim(conn)
    before = None
    try:
        async with _block(conn):
            before = await _value(conn, READ)
            yield
            if attempt.success:
                await record(conn, attempt.event, claim)
    except Exception as error:
        try:
            async with _second(conn, attempt) as second, _block(second):
                await _run(second, RESTORE, {"before": before})
                await record(second, attempt.failed(error), claim)
        except Exception as unrecorded:
            attempt.note(error, unrecorded)
        raise


@asynccontextmanager
async def _block(conn: Any) -> AsyncIterator[bool]:
    """Open a transaction block or a savepoint; yield whether it is the outermost block."""
    with _raises_audit_errors(conn):
        is_outermost = not conn.is_in_transaction()
        transaction = conn.transaction()
        await transaction.start()
    try:
        yield is_outermost
    except BaseException:
        # Raise the first error, not that of a rollback on a lost connection.
        with suppress(*_ERRORS):
            await transaction.rollback()
        raise
    await transaction.commit()


@asynccontextmanager
async def _second(conn: Any, attempt: Attempt) -> AsyncIterator[Any]:
    """Yield the connection that records: the same one, if its own transaction has ended."""
    if attempt.connect is None:
        yield conn
    else:
        async with attempt.connect() as second:
            yield second


async def _run(conn: Any, query: str, parameters: Any = None) -> Any:
    """Run a statement, and return the first value of its first row."""
    numbered, names = _numbered(query)
    return await conn.fetchval(numbered, *(parameters[name] for name in names))


async def _value(conn: Any, query: str, parameters: Any = None) -> Any:
    """Return the value of a statement of auditdb, and translate its errors."""
    with _raises_audit_errors(conn):
        return await _run(conn, query, parameters)


@contextmanager
def _raises_audit_errors(conn: Any) -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        if isinstance(error.__cause__, UnicodeEncodeError):
            raise lacks_character(error.__cause__) from error
        if not isinstance(error, asyncpg.PostgresError):
            # Not from the server: the connection is closed, released to its pool, or busy.
            raise from_message(str(error), None, None, None) from error
        is_denied = isinstance(error, asyncpg.InsufficientPrivilegeError)
        user = conn.get_settings().session_authorization if is_denied else None
        raise from_message(str(error), error.detail, error.hint, error.sqlstate, user) from error


@cache
def _numbered(query: str) -> tuple[str, tuple[str, ...]]:
    """Return a query with numbered parameters, and their names."""
    names = tuple(dict.fromkeys(re.findall(r"%\((\w+)\)s", query)))
    for number, name in enumerate(names, 1):
        query = query.replace(f"%({name})s", f"${number}")
    return query, names
