"""asyncpg: the same blocks, by its own transactions."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import asyncpg

from auditdb.errors import from_message
from auditdb.write.claim import Claim
from auditdb.write.event import RECORD, NewEvent
from auditdb.write.failure import Attempt
from auditdb.write.scope import current_claim, in_scope
from auditdb.write.setting import READ, SET, inherit


def check_connection(conn: object) -> None:
    """Refuse what is no connection.

    Raises:
        TypeError: with what to give.
    """
    if not hasattr(conn, "fetchval") or not hasattr(conn, "transaction"):
        raise TypeError(
            f"conn is a {type(conn).__name__}; give a connection of asyncpg, such as one of "
            "pool.acquire()"
        )


@asynccontextmanager
async def open_context(conn: Any, claim: Claim) -> AsyncIterator[None]:
    """Open the block of `auditdb.context`."""
    outer = current_claim(conn)
    is_outermost = not conn.is_in_transaction()
    async with conn.transaction():
        before = await _value(conn, READ)
        sent = claim if outer is None else outer.with_inner(claim)
        await _value(conn, SET, {"setting": inherit(before, sent)})
        with in_scope(claim, conn):
            yield
        if not is_outermost:
            await _value(conn, SET, {"setting": before or ""})


async def record(conn: Any, event: NewEvent, claim: Claim | None) -> int:
    """Record an event, and return its id."""
    return int(await _value(conn, RECORD, event.parameters(claim)) or 0)


@asynccontextmanager
async def open_attempt(conn: Any, attempt: Attempt) -> AsyncIterator[None]:
    """Open the block of `auditdb.attempt`."""
    if attempt.connect is None and conn.is_in_transaction():
        raise TypeError(
            "attempt() inside of a transaction of asyncpg needs connect=pool.acquire, a second "
            "connection for what must outlive the rollback"
        )
    claim = current_claim(conn)
    before = None
    try:
        async with conn.transaction():
            before = await _value(conn, READ)
            yield
            if attempt.success:
                await record(conn, attempt.event, claim)
    except Exception as error:
        try:
            async with _second(conn, attempt) as second, second.transaction():
                await _value(second, SET, {"setting": before or ""})
                await record(second, attempt.failed(error), claim)
        except Exception as unrecorded:
            attempt.note(error, unrecorded)
        raise


@asynccontextmanager
async def _second(conn: Any, attempt: Attempt) -> AsyncIterator[Any]:
    """Yield the connection that records: the same, where its own transaction has ended."""
    if attempt.connect is None:
        yield conn
    else:
        async with attempt.connect() as second:
            yield second


async def _value(conn: Any, query: str, parameters: Any = None) -> Any:
    numbered, names = _numbered(query)
    try:
        return await conn.fetchval(numbered, *(parameters[name] for name in names))
    except asyncpg.PostgresError as error:
        raise from_message(str(error), error.detail, error.hint, error.sqlstate) from error


@cache
def _numbered(query: str) -> tuple[str, tuple[str, ...]]:
    """Return a query with numbered parameters, and their names."""
    names = tuple(dict.fromkeys(re.findall(r"%\((\w+)\)s", query)))
    for number, name in enumerate(names, 1):
        query = query.replace(f"%({name})s", f"${number}")
    return query, names
