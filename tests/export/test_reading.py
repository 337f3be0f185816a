"""`auditdb.export.read`: batches of events, each with the cursor of the next."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

import auditdb
from auditdb.export import Batch, read, read_async
from auditdb.export.subscription import create_subscription, list_subscriptions
from tests.conftest import Database
from tests.viewer import sign


def test_an_auditor_reads_on_from_the_cursor_of_the_batch_before(db: Database) -> None:
    conn, app = db.connect("app_auditor"), db.connect("app")
    for _ in range(5):
        app.execute("select audit.record_event('auth.login', 'o1')")
    conn.execute("select audit.make_tick()")
    ids, cursor, more = [], None, True
    while more:
        batch = read(conn, cursor, at_most=2, actions=["auth"])
        assert len(batch.events) == len(batch.places) <= 2
        ids += [event.id for event in batch.events]
        cursor, more = batch.cursor, batch.is_more
    assert ids == [event["id"] for event in db.events("action = 'auth.login'")]
    assert read(conn, cursor).events == []
    app.execute("select audit.record_event('auth.login', 'o1')")
    conn.execute("select audit.make_tick()")
    [event] = read(conn, cursor, organization_id="o1").events
    assert event.category == "auth" and isinstance(event.transaction_id, int)


def test_a_viewer_reads_on_an_asynchronous_connection(db: Database) -> None:
    db.connect("app").execute("select audit.record_event('auth.login', '1')")
    db.connect("app_auditor").execute("select audit.make_tick()")
    token = sign(db.key, "1", "1")

    async def polled() -> Batch:
        async with await psycopg.AsyncConnection.connect(db.conninfo("app_reader")) as conn:
            await conn.execute("select set_config('auditdb.viewer', %s, true)", [token])
            return await read_async(conn)

    batch = asyncio.run(polled())
    assert {event.organization_id for event in batch.events} == {"1"}


def test_what_goes_wrong_is_an_error_of_auditdb(db: Database) -> None:
    with pytest.raises(auditdb.AuditError, match=r"is no cursor.*now"):
        read(db.connect("app_auditor"), "nonsense")
    with pytest.raises(auditdb.AuditError, match="the viewer is unknown"):
        read(db.connect("app_reader"))


def test_a_string_of_actions_is_refused_and_not_taken_apart(db: Database) -> None:
    conn = db.connect("app_auditor")
    with pytest.raises(auditdb.InvalidInput, match=r"actions is a string; give a list: \['auth'\]"):
        read(conn, actions="auth")
    for given in ({"actions": "auth.login"}, {"categories": "auth"}, {"results": "denied"},
                  {"where": "action=auth.login"}):  # fmt: skip
        with pytest.raises(auditdb.InvalidInput, match="is a string; give a list"):
            create_subscription(conn, "s", sink="-", **given)  # type: ignore[arg-type]
    assert list_subscriptions(conn) == []
