"""What a reader may write: that a log was read or exported, under the name that the token says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from tests.conftest import Database
from tests.viewer import sign


def readings(db: Database) -> list[tuple[Any, ...]]:
    """Return action, actor, organisation and details of what was written of readings."""
    return db.connect().execute(
        "select action, actor_id, organization_id, details from audit.event"
        " where action ~ '^audit[.](viewed|export)' order by id"
    ).fetchall()  # fmt: skip


def record(conn: psycopg.Connection[Any], token: str, *given: Any) -> Any:
    """Record a reading in a transaction of a token."""
    with conn.transaction():
        conn.execute("select set_config('auditdb.viewer', %s, true)", [token])
        places = ", ".join(["%s"] * len(given))
        return conn.execute(f"select audit.record_reading({places})".encode(), given).fetchone()


def test_the_token_says_who_reads_and_which_log(db: Database) -> None:
    conn = db.connect("app_reader")
    record(conn, sign(db.key, "1", "1"), "exported", '{"events": 7}', "2", "somebody else")
    assert readings(db) == [("audit.exported", "1", "1", {"events": 7})]
    (event,) = db.connect().execute(
        "select result, actor_type, source, target_type, captured_from, db_user from audit.event"
        " where action = 'audit.exported'"
    ).fetchall()  # fmt: skip
    assert event == ("success", "user", "web", "audit", None, "app_reader")


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("none", "the viewer is unknown"),
        ("expired", "may not read this log"),
        ("other key", "may not read this log"),
        ("member", "may not read this log"),
        ("other organization", "may not read this log"),
    ],
)
def test_without_a_good_token_nothing_is_written(db: Database, token: str, said: str) -> None:
    tokens = {
        "none": "", "expired": sign(db.key, "1", "1", seconds=-1),
        "other key": sign(db.key.split(".")[0] + ".secret", "1", "1"),
        "member": sign(db.key, "2", "1"), "other organization": sign(db.key, "1", "2"),
    }  # fmt: skip
    with pytest.raises(pg.InsufficientPrivilege, match=said):
        record(db.connect("app_reader"), tokens[token], "exported", None, "1", "1")
    assert readings(db) == []


def test_a_token_that_is_void_is_not_the_word_of_an_auditor(db: Database) -> None:
    for token in ("nonsense", sign(db.key, "1", "1", seconds=-1), sign(db.key, "2", "1")):
        with pytest.raises(pg.InsufficientPrivilege, match="may not read this log"):
            record(db.connect("app_auditor"), token, "exported", None, "1", "1")
    assert readings(db) == []


@pytest.mark.parametrize("role", ["app", "app_owner", "stranger"])
def test_nobody_else_writes_of_readings(db: Database, role: str) -> None:
    with pytest.raises(pg.InsufficientPrivilege):
        record(db.connect(role), sign(db.key, "1", "1"), "exported", None)
    assert readings(db) == []


def test_an_auditor_says_who_reads_or_is_it(db: Database) -> None:
    conn = db.connect("app_auditor")
    record(conn, "", "viewed", None, "2", "support-7")
    record(conn, "", "viewed", None, "2", None)
    assert readings(db) == [
        ("audit.viewed", "support-7", "2", None), ("audit.viewed", "app_auditor", "2", None),
    ]  # fmt: skip
    with pytest.raises(pg.InvalidParameterValue, match="actor_id is empty"):
        record(conn, "", "viewed", None, "2", "")


def test_a_log_that_is_looked_at_again_is_one_reading(db: Database) -> None:
    conn = db.connect("app_auditor")
    for organization, name in (("1", "sam"), ("1", "sam"), ("2", "sam"), ("1", "kim")):
        record(conn, "", "viewed", None, organization, name)
    assert [row[1:3] for row in readings(db)] == [("sam", "1"), ("sam", "2"), ("kim", "1")]
    # Each export is one.
    for _ in range(2):
        record(conn, "", "exported", None, "1", "sam")
    assert len(readings(db)) == 5


def test_the_minutes_go_on_in_a_transaction_that_stays_open(db: Database) -> None:
    with psycopg.connect(db.conninfo("app_auditor")) as conn:
        db.connect().execute(
            "insert into audit.event (occurred_at, action, result, actor_id, actor_type, source,"
            " db_user, organization_id, target_type) values (clock_timestamp() - interval"
            " '14 min 58 s', 'audit.viewed', 'success', 'sam', 'user', 'sql', 'app_auditor', '1',"
            " 'audit')"
        )
        for wait, count in ((0, 1), (3, 2)):
            conn.execute("select pg_sleep(%s)", [wait])
            conn.execute("select audit.record_reading('viewed', null, '1', 'sam')")
            (found,) = conn.execute(
                "select count(*) from audit.event where action = 'audit.viewed'"
            ).fetchone() or (0,)
            assert found == count


@pytest.mark.parametrize("verb", ["key_created", "month_dropped", "", None, "viewed; x"])
def test_nothing_else_of_the_log_itself_can_be_claimed(db: Database, verb: str) -> None:
    with pytest.raises(psycopg.Error):
        record(db.connect("app_auditor"), "", verb, None, "1", "sam")
    assert readings(db) == []


def test_secrets_in_a_filter_are_redacted_and_long_texts_refused(db: Database) -> None:
    conn = db.connect("app_auditor")
    record(conn, "", "exported", '{"filter": {"password": "hunter2"}}', "1", "sam")
    assert readings(db)[0][3] == {"filter": {"password": "[redacted]"}}
    with pytest.raises(psycopg.Error):
        record(conn, "", "exported", None, "1", "x" * 1000)


@pytest.fixture
def limited(db: Database) -> Iterator[None]:
    """The login of readers may record three events a minute."""
    db.connect("app_owner").execute("select audit.limit_recording('app_reader', 3)")
    yield
    db.connect("app_owner").execute("select audit.limit_recording('app_reader', null)")


@pytest.mark.usefixtures("limited")
def test_a_flood_of_exports_is_limited_as_other_calls_are(db: Database) -> None:
    conn, written = db.connect("app_reader"), 0
    with pytest.raises(pg.ConfigurationLimitExceeded):
        for _ in range(9):
            record(conn, sign(db.key, "1", "1"), "exported")
            written += 1
    assert 3 <= written <= 6


def problem(db: Database, token: str, role: str = "app_reader") -> str | None:
    """Return why a token shows nothing."""
    conn = db.connect(role)
    with conn.transaction():
        conn.execute("select set_config('auditdb.viewer', %s, true)", [token])
        row = conn.execute("select audit.viewer_problem()").fetchone()
        assert row is not None
        return None if row[0] is None else str(row[0])


def test_why_a_token_shows_nothing_is_told_to_who_holds_the_key(db: Database) -> None:
    good = sign(db.key, "1", "1")
    assert problem(db, good) is None
    assert problem(db, sign(db.key, "2", "1")) == problem(db, sign(db.key, "1", "2")) == "no admin"
    assert problem(db, sign(db.key, "1", "1", seconds=-1)) == "clock"
    assert problem(db, sign(db.key, "1", "1", seconds=4000)) == "clock"
    db.connect().execute("select audit.create_key('0 seconds')")
    assert problem(db, good) == "key retired"


def test_why_a_token_shows_nothing_is_not_told_to_others(db: Database) -> None:
    key_id = db.key.split(".")[0]
    forged = [
        sign(f"{key_id}.secret", who, "1", seconds=s) for who in ("1", "2") for s in (60, -1, 4000)
    ]
    for token in ("", "v1", "x" * 3000, *forged, sign(db.key, "1", "1")[:-1]):
        assert problem(db, token) == "token"
    db.connect().execute("update audit_private.signing_key set retires_at = now()")
    assert {problem(db, token) for token in forged} == {"token"}


def test_nobody_is_an_admin_where_nothing_says_so(db: Database) -> None:
    db.connect("app_owner").execute("select audit.detach('membership')")
    assert problem(db, sign(db.key, "1", "1")) == "no rule"


def test_what_is_logged_is_told_to_admins_and_auditors_alone(db: Database) -> None:
    def logged(role: str, token: str) -> list[str]:
        conn = db.connect(role)
        with conn.transaction():
            conn.execute("select set_config('auditdb.viewer', %s, true)", [token])
            return [kind for (kind,) in conn.execute("select kind from audit.list_logged()")]

    kinds = ["api_key", "membership", "organization", "user", "workflow"]
    assert logged("app_reader", sign(db.key, "1", "1")) == logged("app_auditor", "") == kinds
    for token in ("", sign(db.key, "2", "1"), sign(db.key, "1", "1", seconds=-1)):
        assert logged("app_reader", token) == []
    with pytest.raises(pg.InsufficientPrivilege):
        logged("app", sign(db.key, "1", "1"))
