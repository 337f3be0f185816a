"""Attacks upon the export: by who may only write, by sinks that lie, by who is beside."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

from auditdb.export import serve
from auditdb.export.conditions import Condition
from auditdb.export.engine import Engine
from auditdb.export.state import Filter, Subscription
from auditdb.export.threshold import Threshold
from tests.conftest import Database
from tests.export import test_engine as engine_tests
from tests.export.fakes import FakeKeeper, FakeSink, Kept, Log
from tests.export.receivers import Answer, Request, receiver
from tests.export.test_subscriptions import claim, done, lines_in, mine, record


def test_who_may_only_write_stops_no_tick(empty_db: Database, tmp_path: Path) -> None:
    """Any login may take any advisory lock, and those of exporters are known from the code."""
    writer = empty_db.connect("app")
    writer.execute("select pg_advisory_lock(hashtextextended('auditdb ticks', 0))")
    record(empty_db, ("workflow.created", "1"))
    done(empty_db, "app_auditor", "export", "s", "--to", f"file://{tmp_path}")
    assert mine(lines_in(tmp_path)) == [("workflow.created", "1")]


def test_who_may_only_write_is_taken_for_no_living_exporter(empty_db: Database) -> None:
    auditor, writer = empty_db.connect("app_auditor", autocommit=False), empty_db.connect("app")
    row = auditor.execute("select audit_private.begin_exporting()").fetchone()
    assert row is not None
    auditor.rollback()
    writer.execute("select pg_advisory_lock(hashtext('auditdb exporter'), %s)", row)
    assert empty_db.connect(None).execute(
        "select audit_private.is_exporting(%s)", row).fetchone() == (False,)  # fmt: skip


def test_an_exporter_does_not_wait_for_a_lock_that_somebody_took(empty_db: Database) -> None:
    auditor, writer = empty_db.connect("app_auditor"), empty_db.connect("app")
    writer.execute("select pg_advisory_lock(hashtext('auditdb exporter'), %s)",
                   [auditor.info.backend_pid])  # fmt: skip
    auditor.execute("set statement_timeout = '5s'")
    try:
        auditor.execute("select audit_private.begin_exporting()")
    except psycopg.errors.LockNotAvailable as error:
        assert "lock of this exporter" in str(error)
    else:
        raise AssertionError("it has a lock that is another's")


def test_two_subscriptions_with_one_directory_overwrite_nothing(
    empty_db: Database, tmp_path: Path
) -> None:
    for organization in ("1", "2"):
        done(empty_db, "app_auditor", "subscription", "create", f"s{organization}",
             "--to", f"file://{tmp_path}", "--organization-id", organization)  # fmt: skip
    record(empty_db, ("workflow.created", "1"), ("workflow.deleted", "2"))
    done(empty_db, "app_auditor", "export", "--all")
    assert sorted(mine(lines_in(tmp_path))) == [
        ("workflow.created", "1"), ("workflow.deleted", "2")]  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [{"name": "../../../../tmp/evil"}, {"name": "0001-1f2e3d4c/1\r\nx: y"}, {"name": None},
     {"tick_id": "1"}, {"series": "x"}, {"after": None},
     {"part": {"tick": 1, "at": "2026-01-01", "id": "1) or (true", "n": 1}}],
)  # fmt: skip
def test_a_batch_that_no_exporter_makes_is_not_kept(
    empty_db: Database, wrong: dict[str, Any]
) -> None:
    """It is read by whoever exports next, who may be a superuser."""
    done(empty_db, "app_auditor", "subscription", "create", "s", "--to", "-")
    record(empty_db, ("workflow.created", "1"))
    conn = empty_db.connect("app_auditor")
    tick = conn.execute("select audit.make_tick()").fetchone()
    row = conn.execute("select tick_id from audit.subscription").fetchone()
    assert row is not None and tick is not None
    right = {"after": {"tick_id": row[0], "part": None}, "tick_id": tick[0], "part": None,
             "name": "0001-1f2e3d4c/000000000012-000000000015", "series": str(uuid.uuid4()),
             "events": 1}  # fmt: skip

    assert not claim(conn, 7, row[0], right | wrong)
    assert claim(conn, 7, row[0], right)


def test_a_place_is_no_sql(empty_db: Database) -> None:
    conn = empty_db.connect("app_auditor")
    query = "select audit_private.part_query(gen_random_uuid(), 'true', 1, null, %s, 1)"
    part = {"tick": 1, "at": "2026-01-01", "id": "1) or (true", "n": 1}
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        conn.execute(query, [json.dumps(part)])


def test_one_that_was_dropped_and_made_anew_is_another() -> None:
    """Its events go to its own sink, and all of them: whatever was looked at for the former one."""
    log, kept, sinks = Log(), Kept(), {}
    log.add("other", "1")
    kept.add("s", "1")
    former, later = FakeSink(), FakeSink()

    def opened(subscription: Subscription) -> FakeSink:
        sinks[subscription.sink] = former if subscription.sink == "https://s.test/" else later
        return sinks[subscription.sink]

    async def work() -> None:
        made = Engine(log, FakeKeeper(kept), opened, names=None, follow=True, poll=0.01)
        serving = asyncio.create_task(made.run())
        async with asyncio.timeout(10):
            while not former.taken:
                await asyncio.sleep(0.01)
            del kept.subscriptions["s"]
            kept.add("s", "other", sink="https://new.test/", created_at="later")
            while not later.taken:
                await asyncio.sleep(0.01)
        made.end()
        await serving

    kept.living.add(1)
    asyncio.run(work())
    assert (former.ids, later.ids, former.is_closed) == ([2], [1], True)


def test_a_reset_is_not_undone_by_who_had_nothing_to_send(empty_db: Database) -> None:
    """An exporter notes what it looked at: of what it knows, which a reset has changed."""
    done(empty_db, "app_auditor", "subscription", "create", "s", "--to", "-")
    conn = empty_db.connect("app_auditor")
    record(empty_db, ("workflow.created", "1"))
    conn.execute("select audit.make_tick()")
    query = "select created_at::text, tick_id from audit.subscription"
    row = conn.execute(query).fetchone()
    assert row is not None

    def advance(until: int, **of: Any) -> bool:
        given = [{"name": "s", "tick_id": row[1], "part": None, "created_at": row[0]} | of]
        found = conn.execute("select * from audit_private.advance_subscriptions(%s, %s)",
                             [json.dumps(given), until]).fetchall()  # fmt: skip
        return found == [("s",)]

    assert advance(row[1] + 1)
    done(empty_db, "app_auditor", "subscription", "reset", "s", "--to", "start")
    assert not advance(row[1] + 1, tick_id=row[1] + 1)
    assert not advance(row[1] + 1, part={"tick": 1, "at": "2026-01-01", "id": 1, "n": 1})
    assert not advance(row[1] + 1, created_at="2026-01-01")
    assert conn.execute(query).fetchone() == row
    assert advance(row[1] + 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"search_path": "evil, public", "datestyle": "German, DMY", "timezone": "Asia/Kathmandu",
         "bytea_output": "escape", "intervalstyle": "sql_standard", "client_encoding": "latin1"},
        {"row_security": "off", "default_transaction_isolation": "serializable"},
        {"standard_conforming_strings": "off", "backslash_quote": "on",
         "default_transaction_deferrable": "on", "quote_all_identifiers": "on"},
        {"lock_timeout": "1ms", "idle_in_transaction_session_timeout": "900",
         "idle_session_timeout": "900"},
        {"transaction_timeout": "900"},
    ],
    ids=lambda given: next(iter(given)),
)  # fmt: skip
def test_no_setting_of_a_role_stops_or_alters_the_export(
    empty_db: Database, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    owner = empty_db.connect(None)
    owner.execute("create schema evil")
    if "transaction_timeout" in settings and owner.info.server_version < 170000:
        pytest.skip("PostgreSQL 17 has it")
    monkeypatch.setattr(serve, "_LOOK", 0.2)
    record(empty_db, ("workflow.created", "\u65e5\u672c \\' \U0001f600"))
    with receiver() as web:

        def decide(request: Request) -> Answer:
            time.sleep(2)
            return Answer()

        web.decide = decide
        for name, value in settings.items():
            owner.execute(f"alter role app_auditor set {name} = '{value}'"
                          if name != "search_path" else
                          f"alter role app_auditor set {name} = {value}")  # fmt: skip
        try:
            done(empty_db, "app_auditor", "export", "s", "--to", f"http://127.0.0.1:{web.port}/")
        finally:
            owner.execute("alter role app_auditor reset all")
    lines = [json.loads(line) for r in web.requests for line in r.body.splitlines()]
    assert mine(lines) == [("workflow.created", "\u65e5\u672c \\' \U0001f600")]


def test_an_event_longer_than_a_value_may_be_stops_no_other(empty_db: Database) -> None:
    """Control characters are six bytes each in JSON: of 220 MB they make more than a gigabyte."""
    conn = empty_db.connect(None)
    query = """
        select audit_private.line_of(jsonb_populate_record(null::audit.event, '{"id": 1,
            "occurred_at": "2026-11-28", "transaction_id": "1", "action": "a.b",
            "result": "success"}' || jsonb_build_object('details', %s::jsonb)), null, %s)"""
    assert conn.execute(query, ['{"a": 1}', 10]).fetchone() != (None,)
    large = json.dumps({"a": [str(n) * 10 for n in range(20_000)]})
    assert conn.execute(query, [large, 10]).fetchone() == (None,)
    assert conn.execute(query, [large, 10**7]).fetchone() != (None,)
    huge = conn.execute(query.replace(
        "%s::jsonb", "jsonb_build_array(repeat(chr(1), 110000000), repeat(chr(1), 110000000))"),
        [10**10]).fetchone()  # fmt: skip
    assert huge == (None,)


def test_an_event_that_cannot_be_read_is_set_aside() -> None:
    log, kept, sinks = Log(), Kept(), {"s": FakeSink()}
    log.add("1", "1")
    log.rows[0] = log.rows[0]._replace(line=b"")
    kept.add("s", filter=Filter(conditions=(Condition.of("actor_id=7"),)))
    kept.add("t", filter=Filter(threshold=Threshold(at_least=2, within=10**6)))
    engine_tests.serve(log, kept, sinks)
    assert sinks["s"].ids == [2]
    assert [(name, id) for name, id, _ in kept.aside] == [("s", 1)]
