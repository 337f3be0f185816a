"""A consumer of the package: tests/test_types.py says what type checkers must find."""

from __future__ import annotations

from typing import assert_type

import psycopg

import auditdb
from auditdb import auth, operator


def use(conn: psycopg.Connection[tuple[object, ...]]) -> None:
    """Use what works at once."""
    with auditdb.context(conn, actor_id=7, source="api", details={"ip": "192.0.2.1"}) as block:
        assert_type(block, psycopg.Transaction)
    with auditdb.context(actor_id=7):
        assert_type(auditdb.record(conn, auth.login(7, organization_id=1)), int)
    with auditdb.attempt(conn, "workflow.deleted", target_id=5, denied=KeyError):
        pass
    log = auditdb.reader(conn, key="k.s", viewer_id=7, organization_id=1)
    assert_type(log, auditdb.Reader)
    assert_type(log.page(limit=50).events[0].actor_id, str | None)
    assert_type(operator.maintain(conn, keep="24 months"), list[str])
    assert_type([finding.severity for finding in operator.diagnose(conn)], list[str])


async def use_async(conn: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    """Use what is awaited."""
    async with auditdb.context(conn, actor_id=7) as block:
        assert_type(block, psycopg.AsyncTransaction)
    assert_type(await auditdb.record(conn, "report.exported", target_id=5), int)
    async with auditdb.attempt(conn, auth.logout(7)):
        pass
    log = auditdb.auditor(conn)
    assert_type(log, auditdb.AsyncReader)
    async for event in log.events(since="2026-01-01"):
        assert_type(event, auditdb.Event)


def misuse(conn: psycopg.Connection[tuple[object, ...]]) -> None:
    """Use what is refused: each line is an error."""
    auditdb.context(conn, actor=7)
    auditdb.context(conn, ip="192.0.2.1")
    auditdb.record(conn, "report.exported", org_id=1)
    auth.login(7, organisation_id=1)
    auditdb.record("dbname=shop", "report.exported")
    auditdb.context(None, actor_id=7)
    auditdb.reader(conn, viewer_id=7, organization_id=1)
