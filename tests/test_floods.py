"""Floods: a login records no more than it may, and an organisation that writes much is noticed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

import auditdb
from auditdb.cli import main
from auditdb.operate import doctor
from tests.conftest import Database

RECORD = "select audit.record_event('auth.login', '1')"
LIMIT = psycopg.errors.ConfigurationLimitExceeded


def limit(db: Database, per_minute: int | None, login: str = "app") -> None:
    db.connect("app_owner").execute("select audit.limit_recording(%s, %s)", [login, per_minute])


def within_a_minute(work: Callable[[], int]) -> int:
    """Return what work returns when no minute ended meanwhile."""
    while True:
        minute = time.time() // 60
        found = work()
        if time.time() // 60 == minute:
            return found


def let_through(conn: psycopg.Connection[Any], calls: int) -> int:
    """Record so often, and return how many of the calls were let through."""
    done = 0
    for _ in range(calls):
        try:
            conn.execute(RECORD)
            done += 1
        except LIMIT as error:
            assert error.diag.message_hint is not None
            assert error.diag.message_hint.startswith("Try again in the next minute.")
    return done


def fresh_minute(db: Database) -> None:
    """Let the counters be of a minute long ago."""
    with psycopg.connect(db.dsn) as conn:
        for (name,) in conn.execute(
            "select oid::regclass::text from pg_class where relname ~ '^recorded_[0-9]+$'"
        ).fetchall():
            conn.execute("select setval(%s, 1)", [name])


def test_a_login_records_so_many_events_a_minute_and_no_more(db: Database) -> None:
    limit(db, 3)
    app = db.connect("app")

    def calls() -> int:
        fresh_minute(db)
        return let_through(app, 6)

    assert within_a_minute(calls) == 3
    fresh_minute(db)
    assert let_through(app, 1) == 1


def test_the_error_says_what_to_do(db: Database) -> None:
    limit(db, 0)
    with pytest.raises(auditdb.Refused, match='login "app" records more than 0 events a minute'):
        auditdb.record(db.connect("app"), "auth.login", organization_id=1)
    done = CliRunner().invoke(main, ["--dsn", db.conninfo("app"), "record", "auth.login"])
    assert done.exit_code == 1 and "audit.limit_recording(login, per_minute)" in done.stderr


def test_what_is_rolled_back_counts_too(db: Database) -> None:
    limit(db, 3)
    app = db.connect("app")

    def calls() -> int:
        fresh_minute(db)
        for _ in range(3):
            with app.transaction(force_rollback=True):
                app.execute(RECORD)
        return let_through(app, 2)

    assert within_a_minute(calls) == 0


def test_no_writer_waits_for_another_to_be_counted(db: Database) -> None:
    limit(db, 100)
    fresh_minute(db)
    first, second = (db.connect("app", autocommit=False) for _ in range(2))
    for conn in (first, second, first, second):
        conn.execute("set local lock_timeout = '10s'")
        conn.execute(RECORD)
    waiting = "select from pg_locks where not granted"
    assert db.connect().execute(waiting).fetchall() == []
    # Who raises the limit waits for nobody either.
    operator = db.connect("app_owner")
    operator.execute("set lock_timeout = '10s'")
    operator.execute("select audit.limit_recording('app', 200)")
    first.commit()
    second.commit()
    assert len(db.events()) == 4


def test_naive_counting_in_a_row_makes_writers_wait(db: Database) -> None:
    db.connect().execute(
        "create table naive (login text, calls int); insert into naive values ('app', 0);"
        "grant all on naive to app"
    )
    first, second = (db.connect("app", autocommit=False) for _ in range(2))
    first.execute("update naive set calls = calls + 1")
    second.execute("set local lock_timeout = '50ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        second.execute("update naive set calls = calls + 1")


def test_captured_events_are_never_limited(db: Database) -> None:
    limit(db, 0)
    app = db.connect("app")
    for role in ("ADMIN", "MEMBER", "ADMIN"):
        app.execute("update membership set role = %s where user_id = 2", [role])
    assert len(db.events()) == 3


def test_other_logins_are_not_limited_and_null_removes_the_limit(db: Database) -> None:
    limit(db, 0)
    assert let_through(db.connect(), 2) == 2
    limit(db, None)
    assert let_through(db.connect("app"), 2) == 2
    assert db.connect("app_owner").execute("select from audit.list_limits()").fetchall() == []


def test_no_writer_waits_for_a_limit_that_goes(db: Database) -> None:
    limit(db, 5)
    first, operator = db.connect("app", autocommit=False), db.connect("app_owner")
    first.execute(RECORD)
    operator.execute("set lock_timeout = '10s'")
    for number in (None, 6):
        operator.execute("select audit.limit_recording('app', %s)", [number])
    first.rollback()


def test_a_limit_is_an_event_a_line_of_status_and_no_finding(db: Database) -> None:
    limit(db, 5)
    limit(db, 5)
    limit(db, 7)
    with psycopg.connect(db.dsn) as conn:
        rows = conn.execute(
            "select target_id, old_values -> 'per_minute', new_values -> 'per_minute', db_user "
            "from audit.event where action = 'audit.recording_limited' order by id"
        ).fetchall()
    assert rows == [("app", None, 5, "app_owner"), ("app", 5, 7, "app_owner")]
    show = ["--dsn", db.conninfo("app_auditor"), "status"]
    assert "app records at most 7 events a minute by calls" in CliRunner().invoke(main, show).stdout
    found = json.loads(CliRunner().invoke(main, [*show, "--json"]).stdout)
    assert [(x["login"], x["per_minute"]) for x in found["limits"]] == [("app", 7)]
    assert [f for f in doctor.diagnose(db.connect()) if f.severity != "notice"] == []


@pytest.mark.parametrize(("login", "per_minute", "says"), [
    ("nobody", 3, 'there is no login "nobody"'), ("app", -1, "the limit is -1"),
    ("app", 2_000_000, "the limit is 2000000"),
])  # fmt: skip
def test_a_limit_that_is_none_is_refused(
    db: Database, login: str, per_minute: int, says: str
) -> None:
    with pytest.raises(psycopg.Error, match=says):
        limit(db, per_minute, login)


@pytest.mark.parametrize("role", ["app", "app_reader", "app_auditor", "stranger"])
def test_only_operators_limit(db: Database, role: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.connect(role).execute("select audit.limit_recording('app', 1)")


def write(db: Database, organization: str | None, hours: int, events: int) -> None:
    with psycopg.connect(db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.execute(
            "insert into audit.event (occurred_at, action, result, actor_type, source, "
            "organization_id) select now() - make_interval(hours => %s), 'auth.login', 'success', "
            "'user', 'web', %s from generate_series(1, %s)",
            [hours, organization, events],
        )


def floods(db: Database) -> list[tuple[str, str]]:
    found = doctor.diagnose(db.connect())
    return [(f.object, f.problem) for f in found if "events in 24 hours" in f.problem]


@pytest.mark.parametrize("organization", ["7", None])
def test_an_organisation_that_writes_a_hundred_times_its_usual_is_found(
    empty_db: Database, organization: str | None
) -> None:
    name = "organisation 7" if organization else "no organisation"
    write(empty_db, organization, 40 * 24, 1)
    write(empty_db, organization, 10 * 24, 336)
    write(empty_db, organization, 2, 1200)
    [(object_, problem)] = floods(empty_db)
    assert object_ == name
    assert problem.endswith("events in 24 hours, and 336 in the 28 days before")
    # One more, and it is less than a hundred times the mean day.
    write(empty_db, organization, 11 * 24, 10)
    assert floods(empty_db) == []


def test_one_that_was_silent_is_found_and_a_new_one_is_not(empty_db: Database) -> None:
    write(empty_db, "silent", 40 * 24, 1)
    for organization in ("silent", "new"):
        write(empty_db, organization, 2, 1001)
    # Nor is one that writes no more than a thousand.
    write(empty_db, "small", 40 * 24, 1)
    write(empty_db, "small", 2, 1000)
    assert [object_ for object_, _ in floods(empty_db)] == ["organisation silent"]


def test_a_naive_ratio_alone_finds_every_small_organisation(empty_db: Database) -> None:
    write(empty_db, "small", 40 * 24, 1)
    write(empty_db, "small", 2, 30)
    with psycopg.connect(empty_db.dsn) as conn:
        row = conn.execute(
            "select count(*) filter (where occurred_at > now() - interval '1 day') * 28 >= 100 * "
            "count(*) filter (where occurred_at < now() - interval '1 day' and occurred_at > "
            "now() - interval '29 days') from audit.event where organization_id = 'small'"
        ).fetchone()
    assert row == (True,)
    assert floods(empty_db) == []
