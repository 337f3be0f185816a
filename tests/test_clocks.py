"""Clocks that are wrong by years: nothing is dropped, nothing is hidden, and doctor says so."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import make_conninfo

import auditdb
from auditdb.cli import main
from auditdb.operate.maintain import maintain
from tests.conftest import ROLES, Database
from tests.server import Server, running
from tests.test_maintenance import fill, months_ago, yesterday

HERE = datetime.now(UTC)
LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def run(db: Database, *args: str) -> Result:
    return CliRunner().invoke(main, ["--dsn", db.dsn, *args])


def keep(db: Database, *args: str) -> Result:
    return run(db, "maintain", "--keep", "24months", *args)


@dataclass
class Clocked:
    """A database on a server whose clock a test sets."""

    db: Database
    file: Path

    def turn(self, hours: int) -> None:
        """Let the server's clock differ from ours by so many hours, and wait until it does."""
        until = time.monotonic() + 60
        while True:
            self.file.write_text(f"{hours:+}h\n")
            with psycopg.connect(self.db.dsn) as conn:
                row = conn.execute("select extract(epoch from clock_timestamp())").fetchone()
            assert row is not None
            if abs(float(row[0]) - time.time() - hours * 3600) < 600:
                return
            assert time.monotonic() < until, "the clock does not turn"

    def write(self) -> None:
        """Record an event, as an application does."""
        with psycopg.connect(self.db.conninfo("app")) as conn:
            conn.execute("select audit.record_event('auth.login', '1')")

    def log(self) -> set[tuple[Any, ...]]:
        """Return the whole log, as the owner reads it."""
        with psycopg.connect(self.db.dsn) as conn:
            return set(conn.execute(
                "select id, occurred_at::text, action, organization_id from audit.event"
            ))  # fmt: skip


@contextmanager
def server_with_a_clock() -> Iterator[tuple[Server, Path]]:
    """Start a server whose clock is that of this machine, and what a file says more."""
    if LIBRARY is None:
        pytest.skip("libfaketime is not installed (Debian: faketime)")
    # The server runs as another user, who may not look into pytest's folders.
    with tempfile.TemporaryDirectory(prefix="auditdb-clock-") as folder:
        Path(folder).chmod(0o755)
        file = Path(folder) / "offset"
        file.write_text("+0\n")
        env = {"LD_PRELOAD": str(LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(file),
               "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}  # fmt: skip
        with running(env=env) as server:
            yield server, file


@pytest.fixture
def clocked() -> Iterator[Clocked]:
    with server_with_a_clock() as (server, file):
        address = make_conninfo("", host=server.host, port=server.port, user=server.user,
                                dbname="postgres")  # fmt: skip
        auditdb.install(address)
        with psycopg.connect(address) as conn:
            conn.execute(ROLES.encode())
        db = Database(address)
        for number in range(1, 24):
            fill(db, months_ago(db, number))
        yesterday(db)
        assert keep(db).exit_code == 0
        yield Clocked(db, file)
        db.close()


def test_a_clock_that_is_years_ahead_drops_nothing(clocked: Clocked) -> None:
    db, before = clocked.db, clocked.log()
    # Twice, and then for two days.
    for hours in (0, 0, *range(1, 49, 3)):
        clocked.turn(1461 * 24 + hours)
        clocked.write()
        result = keep(db)
        assert result.exit_code == 1
        assert "and the last maintenance was on" in result.stderr and "--force" in result.stderr
    clocked.turn(0)
    found = run(db, "doctor").stdout
    assert "warning: audit.event: holds " in found and "events of the future" in found
    assert clocked.log() >= before
    # Set right, it goes on as before: what is of the future keeps it from nothing.
    assert keep(db).exit_code == 0
    assert clocked.log() >= before
    # A token of now is good, and the newest page begins with the future.
    assert "auth.login" in run(db, "log", "--auditor", "--limit", "5").stdout


def test_events_of_a_clock_that_was_years_behind_are_not_dropped(clocked: Clocked) -> None:
    db = clocked.db
    clocked.turn(-1095 * 24)
    clocked.write()
    behind = keep(db)
    assert behind.exit_code == 0, (
        behind.output
    )  # Nothing is that old, so there is nothing to refuse.
    before = {row for row in clocked.log() if row[2] == "auth.login"}
    assert len(before) == 1
    clocked.turn(0)
    clocked.write()
    clocked.write()
    done = keep(db)
    assert done.exit_code == 0, done.output
    assert "1 of its 1 events were written later than they say" in done.stdout
    assert clocked.log() >= before
    forced = keep(db, "--force")
    assert "dropped " in forced.stdout and not clocked.log() >= before


def last_maintenance(db: Database) -> datetime:
    with psycopg.connect(db.dsn) as conn:
        row = conn.execute("select maintained_at from audit_private.installation").fetchone()
    assert row is not None
    return datetime.fromisoformat(str(row[0]))


def test_a_clock_that_moves_by_less_than_a_month_is_believed(clocked: Clocked) -> None:
    for days, believed in ((27, 27), (54, 54), (90, 54), (50, 54)):
        clocked.turn(days * 24)
        run(clocked.db, "maintain")
        assert (last_maintenance(clocked.db) - HERE).days == believed


def believe(db: Database, maintained_at: str) -> None:
    """Let the last maintenance have been at another time."""
    with psycopg.connect(db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.execute(f"update audit_private.installation set maintained_at = {maintained_at}"
                     .encode())  # fmt: skip


@pytest.mark.parametrize("last", ["now() - interval '40 days'", "now() + interval '2 days'"])
def test_retention_refuses_a_clock_far_from_the_last_maintenance(
    empty_db: Database, last: str
) -> None:
    fill(empty_db, "2020-03", 4)
    yesterday(empty_db)
    owner = empty_db.connect("app_owner")
    maintain(owner)
    believe(empty_db, last)
    # The second run is no better off than the first: that one did not count.
    for _ in range(2):
        with pytest.raises(auditdb.Refused, match=r"and the last maintenance was on .*--force"):
            maintain(owner, keep="24months")
    assert len(empty_db.events("action = 'test.old'")) == 5
    said = maintain(owner, keep="24months", dry_run=True)
    assert [line.partition(": ")[0] for line in said] == ["would drop nothing"]
    assert maintain(owner, keep="24months", force=True)[-1] == "dropped 2020-03: 4 events"
    assert maintain(owner, keep="24months") == []


def test_a_month_that_got_events_late_is_kept_and_others_go(empty_db: Database) -> None:
    yesterday(empty_db)
    fill(empty_db, "2020-03", 4)
    fill(empty_db, "2020-04", 2)
    fill(empty_db, "2020-04", 3, late=True)
    owner = empty_db.connect("app_owner")
    maintain(owner)
    kept = ("keep 2020-04: 3 of its 5 events were written later than they say, as under a clock "
            "that was behind; they are kept as long as events of when they were written, unless "
            "forced")  # fmt: skip
    assert maintain(owner, keep="24months", dry_run=True) == [
        "would drop 2020-03: 4 events", f"would {kept}",
    ]  # fmt: skip
    assert maintain(owner, keep="24months") == [kept, "dropped 2020-03: 4 events"]
    assert maintain(owner, keep="24months") == [kept]
    assert maintain(owner, keep="24months", force=True) == ["dropped 2020-04: 5 events"]


def test_a_naive_retention_drops_events_seconds_after_they_were_written(
    empty_db: Database,
) -> None:
    yesterday(empty_db)
    fill(empty_db, "2020-04", 3, late=True)
    # By time alone, which is what a partition says.
    with psycopg.connect(empty_db.dsn) as conn:
        row = conn.execute(
            "select count(*) from audit.event where occurred_at < now() - interval '24 months'"
        ).fetchone()
    assert row == (3,)


def test_dry_run_writes_and_locks_nothing(empty_db: Database) -> None:
    fill(empty_db, "2020-03", 4)
    yesterday(empty_db)
    believe(empty_db, "now() - interval '1 hour'")
    conn = empty_db.connect("app_owner", autocommit=False)
    said = maintain(conn, keep="24months", ahead=4, dry_run=True)
    assert said[0] == "would move 4 events out of DEFAULT"
    assert said[1].startswith("would create the partition of ")
    assert said[2:] == ["would drop 2020-03: 4 events"]
    # In a transaction of ours, what is locked stays locked.
    with empty_db.connect("app_owner", autocommit=False) as held:
        held.execute("select * from audit.maintain('24 months', 4, dry_run => true)")
        modes = empty_db.connect().execute(
            "select distinct mode from pg_locks where pid = %s and locktype in "
            "('relation', 'advisory')", [held.info.backend_pid],
        ).fetchall()  # fmt: skip
        assert modes == [("AccessShareLock",)]
        row = held.execute("select pg_current_xact_id_if_assigned()").fetchone()
        assert row == (None,)
    out = run(empty_db, "maintain", "--keep", "24months", "--dry-run")
    assert out.exit_code == 0 and "would drop 2020-03: 4 events\n" in out.stdout
    assert len(empty_db.events("action = 'test.old'")) == 5


def test_exit_status_says_when_nothing_was_done(empty_db: Database) -> None:
    assert run(empty_db, "maintain").exit_code == 0
    assert run(empty_db, "maintain").stdout == "nothing to do\n"
    installing = empty_db.connect(autocommit=False)
    installing.execute("select pg_advisory_xact_lock(hashtextextended('auditdb', 0))")
    result = run(empty_db, "maintain")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: nothing done: install, attach or another")


def test_what_was_done_before_a_refusal_is_said(empty_db: Database) -> None:
    fill(empty_db, "2020-03", 4)
    result = keep(empty_db)
    assert result.exit_code == 1
    assert result.stdout == "moved 4 events out of DEFAULT\n"
    assert "no event is from the 40 days before" in result.stderr


ODD = ("infinity", "-infinity", "0044-03-15 BC", "12000-01-01")


def test_events_of_no_month_stay_in_default_and_stop_nothing(empty_db: Database) -> None:
    with psycopg.connect(empty_db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.cursor().executemany(
            "insert into audit.event (occurred_at, action, result, actor_type, source) "
            "values (%s::timestamptz, 'test.odd', 'success', 'system', 'test')",
            [(odd,) for odd in ODD],
        )
    owner = empty_db.connect("app_owner")
    assert maintain(owner) == []
    fill(empty_db, "2020-03", 2)
    assert maintain(owner) == ["moved 2 events out of DEFAULT"]
    query = "select occurred_at::text from audit.event_default where action = 'test.odd'"
    assert len(empty_db.connect().execute(query).fetchall()) == len(ODD)
    found = [f for f in auditdb.operator.diagnose(owner) if "audit.event" in f.object]
    assert [(f.object, f.problem) for f in found] == [
        ("audit.event_default", "holds 4 events of no month")
    ]
    assert maintain(owner) == []


def test_what_is_odd_for_over_a_week_is_no_warning(empty_db: Database) -> None:
    with psycopg.connect(empty_db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.execute(
            "insert into audit.event (id, occurred_at, action, result, actor_type, source) "
            "values (-5, now() + interval '2 years', 'test.odd', 'success', 'system', 'test'), "
            "(-4, 'infinity', 'test.odd', 'success', 'system', 'test')"
        )
    maintain(empty_db.connect("app_owner"))
    found = [f for f in auditdb.operator.diagnose(empty_db.connect()) if f.check_name == "events"]
    assert [(f.object, f.severity, f.problem) for f in found] == [
        ("audit.event", "notice", "holds 1 events of the future"),
        ("audit.event_default", "notice", "holds 1 events of no month"),
    ]
