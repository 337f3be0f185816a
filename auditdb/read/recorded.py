"""Records reads and exports of the log as events, with reader and filters."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, closing, suppress
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import AsyncConnection, Connection
from psycopg.pq import TransactionStatus

from auditdb.connection.begin import Row, Statement, begin_with, begin_with_async
from auditdb.connection.state import AnyConnection, in_pipeline, is_idle
from auditdb.errors import AuditError
from auditdb.read.export import Export, read_blocks, read_blocks_async, refuse_pipeline
from auditdb.read.viewer import Auditor, Viewer
from auditdb.values.convert import Id, as_text, json_value
from auditdb.write.scope import current_claim

if TYPE_CHECKING:
    from auditdb.archive.read import Archive

_BEFORE: LiteralString = """
select pg_catalog.current_setting('role') as role,
    pg_catalog.current_setting('auditdb.viewer', true) as viewer,
    pg_catalog.current_setting('auditdb.context', true) as context
"""
_RESTORE: LiteralString = """
select pg_catalog.set_config('role', %(role)s, true),
    pg_catalog.set_config('auditdb.viewer', coalesce(%(viewer)s, ''), true),
    pg_catalog.set_config('auditdb.context', coalesce(%(context)s, ''), true)
"""
_BECOME: LiteralString = """
select pg_catalog.set_config('role', %(role)s, true),
    pg_catalog.set_config('auditdb.viewer', %(token)s, true),
    pg_catalog.set_config('auditdb.context', coalesce(
        %(context)s, pg_catalog.current_setting('auditdb.context', true), ''), true)
"""
# For a viewer who may not read, no event is recorded. The other columns are for _RESTORE.
_RECORD: LiteralString = """
select case when %(token)s = '' or audit.viewer_organization() is not null then
        audit.record_reading(%(verb)s,
            cast(cast(%(details)s as pg_catalog.text) as pg_catalog.jsonb),
            %(organization_id)s, null, %(subject_id)s) end as id,
    cast(%(before_role)s as pg_catalog.text) as role,
    cast(%(before_viewer)s as pg_catalog.text) as viewer,
    cast(%(before_context)s as pg_catalog.text) as context
"""


def record_reading(
    conn: Connection[Any],
    principal: Viewer | Auditor,
    verb: str,
    details: Mapping[str, Any] | None = None,
    *,
    subject_id: Id | None = None,
) -> int | None:
    """Record that the log was read; in the caller's transaction, or else committed.

    Returns the id of the event, if there is one.

    Args:
        conn: the caller's connection, whose settings are left as they were.
        principal: who reads, and which organisation's log.
        verb: `viewed`, recorded once in 15 minutes, `export_started`, `exported`; for an auditor
            also `verified`, `bundled`, `accessed`.
        details: more details, such as the filters.
        subject_id: the user whom the reading is about.

    Raises:
        Refused: it cannot be recorded: on a standby, in a read-only transaction, or for want of a
            role. Then nothing may be read either.
    """
    before: Row = {}
    if not is_idle(conn):
        with begin_with(conn, principal.role, (_BEFORE, ())) as (_, rows):
            before = rows[0]
    statements = _statements(conn, principal, verb, details, subject_id, before)
    with begin_with(conn, principal.role, *statements, leave=_RESTORE) as (_, rows):
        recorded: int | None = rows[0]["id"]
    return recorded


async def record_reading_async(
    conn: AsyncConnection[Any],
    principal: Viewer | Auditor,
    verb: str,
    details: Mapping[str, Any] | None = None,
    *,
    subject_id: Id | None = None,
) -> int | None:
    """Record as `record_reading` does."""
    before: Row = {}
    if not is_idle(conn):
        async with begin_with_async(conn, principal.role, (_BEFORE, ())) as (_, rows):
            before = rows[0]
    statements = _statements(conn, principal, verb, details, subject_id, before)
    async with begin_with_async(conn, principal.role, *statements, leave=_RESTORE) as (_, rows):
        recorded: int | None = rows[0]["id"]
    return recorded


def _statements(
    conn: AnyConnection,
    principal: Viewer | Auditor,
    verb: str,
    details: Mapping[str, Any] | None,
    subject_id: Id | None,
    before: Row,
) -> tuple[Statement, Statement]:
    claim, token = current_claim(conn), principal.token()
    become = {
        "role": principal.role, "token": token, "context": None if claim is None else claim.setting
    }  # fmt: skip
    record = {
        "token": token, "verb": verb, "organization_id": principal.organization_id,
        "subject_id": as_text("subject_id", subject_id),
        "details": None if details is None else json.dumps(json_value(details)),
        **{f"before_{name}": before.get(name) for name in ("role", "viewer", "context")},
    }  # fmt: skip
    return (_BECOME, become), (_RECORD, record)


def recorded_blocks(
    conn: Connection[Any],
    principal: Viewer | Auditor,
    export: Export,
    archive: Archive | None = None,
) -> Generator[bytes, None, None]:
    """Read the blocks of an export; record its start before the first block, then its end."""
    refuse_pipeline(conn)
    export.leave_out(record_reading(conn, principal, "export_started", export.details))
    try:
        with closing(read_blocks(conn, principal, export, archive)) as blocks:
            yield from blocks
    except BaseException:
        if _can_record(conn):
            with suppress(AuditError):
                record_reading(conn, principal, "exported", export.details | export.outcome)
        raise
    record_reading(conn, principal, "exported", export.details | export.outcome)


async def recorded_blocks_async(
    conn: AsyncConnection[Any],
    principal: Viewer | Auditor,
    export: Export,
    archive: Archive | None = None,
) -> AsyncGenerator[bytes, None]:
    """Read as `recorded_blocks` does."""
    refuse_pipeline(conn)
    export.leave_out(await record_reading_async(conn, principal, "export_started", export.details))
    try:
        async with aclosing(read_blocks_async(conn, principal, export, archive)) as blocks:
            async for block in blocks:
                yield block
    except BaseException:
        if _can_record(conn):
            with suppress(AuditError):
                await record_reading_async(
                    conn, principal, "exported", export.details | export.outcome
                )
        raise
    await record_reading_async(conn, principal, "exported", export.details | export.outcome)


def _can_record(conn: AnyConnection) -> bool:
    """Return whether the connection is usable: no failed transaction, no running statement."""
    usable = (TransactionStatus.IDLE, TransactionStatus.INTRANS)
    return conn.pgconn.transaction_status in usable and not in_pipeline(conn)
