"""What a request reads: transactions of a viewer or of an auditor, with a bound of time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from auditdb.connection.address import connect_async
from auditdb.connection.begin import Row, Statement, begin_with_async
from auditdb.connection.checks import raises_audit_errors
from auditdb.errors import ConnectionFailed
from auditdb.read.viewer import Auditor, Viewer
from auditdb.values.convert import as_text, from_json, json_value
from auditdb.web.access import Access
from auditdb.web.change import CUT

Connect: TypeAlias = str | Callable[[], AbstractAsyncContextManager[AsyncConnection[Any]]]

# Levels of a value that are shown.
_DEEPEST = 100


@asynccontextmanager
async def opened(connect: Connect) -> AsyncIterator[AsyncConnection[Any]]:
    """Open a connection, or take one of the host's.

    Raises:
        ConnectionFailed: the server cannot be reached.
    """
    if isinstance(connect, str):
        conn = await connect_async(connect, autocommit=True, application_name="auditdb")
        async with conn:
            yield conn
        return
    async with AsyncExitStack() as stack:
        try:
            conn = await stack.enter_async_context(connect())
        except psycopg.OperationalError as error:
            raise ConnectionFailed(" ".join(str(error).split())) from error
        yield conn


@dataclass(frozen=True)
class Reading:
    """A transaction in which an organisation's events are read."""

    conn: AsyncConnection[Any]
    principal: Viewer | Auditor

    @property
    def organization_id(self) -> str | None:
        """The organisation to ask for where row-level security does not: an auditor's."""
        return self.principal.organization_id

    async def rows(self, statement: Statement) -> list[Row]:
        """Run a query and return its rows."""
        query, values = statement
        with raises_audit_errors(self.conn, self.principal.role):
            cursor = psycopg.AsyncCursor(self.conn, row_factory=dict_row)
            set_json_loads(_value, cursor)
            # Of views over all months most of the time is the planner's.
            await cursor.execute(query, values, binary=True, prepare=True)
            return await cursor.fetchall()


def _value(data: bytes | str) -> Any:
    """Return the value of JSON; of what is nested too deeply to be shown, its size."""
    value = from_json(data)
    level, depth = [value], 0
    while level and depth < _DEEPEST:
        depth += 1
        level = [
            part
            for found in level
            if isinstance(found, dict | list)
            for part in (found.values() if isinstance(found, dict) else found)
        ]
    # What Python cannot nest is text.
    return {CUT: len(data)} if level or isinstance(value, str) else value


def bounded(seconds: float) -> Statement:
    """Return the statement that bounds each query of a transaction in time."""
    milliseconds = str(int(seconds * 1000))
    return "select pg_catalog.set_config('statement_timeout', %s, true)", [milliseconds]


@asynccontextmanager
async def reading(
    conn: AsyncConnection[Any], principal: Viewer | Auditor, seconds: float, *first: Statement
) -> AsyncIterator[Reading]:
    """Open a transaction as a viewer or an auditor, each of whose queries is bounded in time."""
    statements = (*first, bounded(seconds), principal.become())
    async with begin_with_async(conn, principal.role, *statements, undo=True):
        yield Reading(conn, principal)


async def record_reading(
    conn: AsyncConnection[Any],
    access: Access,
    principal: Viewer | Auditor,
    verb: str,
    details: dict[str, Any] | None = None,
) -> None:
    """Record that a log was viewed or exported, in a transaction of its own.

    Raises:
        AuditError: it could not be recorded.
    """
    bound: Statement = (
        "select pg_catalog.set_config('auditdb.viewer', %s, true)", [principal.token()]
    )  # fmt: skip
    record: Statement = (
        "select audit.record_reading(%s, %s::text::pg_catalog.jsonb, %s, %s) as id",
        [
            verb, None if details is None else json.dumps(json_value(details)),
            principal.organization_id, as_text("viewer_id", access.viewer_id),
        ],
    )  # fmt: skip
    async with begin_with_async(conn, principal.role, bound, record):
        pass
