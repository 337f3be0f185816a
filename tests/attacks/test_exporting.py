"""Attacks upon the export: by who may only write, by sinks that lie, by who is beside."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.conftest import Database
from tests.export.test_subscriptions import done, lines_in, mine, record, run


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
