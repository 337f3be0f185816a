"""The plugin for tests of applications, in a pytest of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auditdb import context
from auditdb.testing import AuditAssertions
from tests.conftest import Database, address

pytest_plugins = ["pytester"]

CONFTEST = f"""
from pathlib import Path
from pytest_postgresql import factories
from auditdb.testing import load

pytest_plugins = ["auditdb.testing"]
template = factories.postgresql_noproc(
    **{address!r}, dbname="auditdb_testing",
    load=[Path("schema.sql"), load("auditdb.toml", sql=Path("more.sql").read_text())],
)
postgresql = factories.postgresql("template")
"""
SCHEMA = """
create table organization (id int primary key);
create table membership (
    organization_id int references organization, user_id int, role text,
    primary key (organization_id, user_id)
);
insert into organization values (1);
insert into membership values (1, 2, 'MEMBER');
"""
MAPPING = """
[[table]]
name = "public.membership"
kind = "membership"
organization = "organization_id"
subject = "user_id"
role = "role"
"""
TESTS = """
import pytest
import auditdb

def promote(conn):
    with auditdb.context(conn, actor_id=7):
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")

def test_it_is_recorded(postgresql, assert_audited):
    promote(postgresql)
    event = assert_audited("membership.role_changed", organization_id=1, subject_id=2, actor_id=7)
    assert event.new_values["role"] == "ADMIN"

def test_each_test_has_its_own_database(postgresql, assert_audited):
    assert_audited.nothing()
    roles = postgresql.execute("select role from membership order by user_id").fetchall()
    assert roles == [("MEMBER",), ("GUEST",)]

def test_a_wrong_actor_is_shown(postgresql, assert_audited):
    promote(postgresql)
    assert_audited("membership.role_changed", actor_id=9)
"""


def test_an_application_is_tested_in_four_lines(pytester: pytest.Pytester, server: Any) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    Path("schema.sql").write_text(SCHEMA, "utf-8")
    Path("more.sql").write_text("insert into membership values (1, 3, 'GUEST')", "utf-8")
    Path("auditdb.toml").write_text(MAPPING, "utf-8")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    result.assert_outcomes(passed=2, failed=1, warnings=0)
    result.stdout.fnmatch_lines([
        "*no event membership.role_changed with actor_id='9' since the test began",
        "*the nearest of 1 differs in:", "*actor_id: '7', not '9'",
    ])  # fmt: skip


@pytest.fixture
def audited(db: Database) -> AuditAssertions:
    """Assertions on a database in which somebody was promoted before."""
    conn = db.connect("app")
    conn.execute("update membership set role = 'GUEST' where user_id = 4")
    found = AuditAssertions(db.connect())
    with context(conn, actor_id=7, source="api", details={"ip": "192.0.2.1", "n": 1}):
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
    return found


def test_what_is_given_must_hold_and_the_rest_may(audited: AuditAssertions) -> None:
    event = audited(
        "membership.role_changed", organization_id=1, actor_id=7, source="api",
        impersonator_id=None, old_values={"role": "MEMBER"}, details={"ip": "192.0.2.1"},
    )  # fmt: skip
    assert (event.result, event.captured_from) == ("success", "public.membership")
    assert len(audited.events) == 1
    with pytest.raises(AttributeError):
        event.color  # noqa: B018


@pytest.mark.parametrize(
    ("action", "expected", "told"),
    [
        ("membership.role_changed", {"actor_id": 8}, "actor_id: '7', not '8'"),
        ("membership.role_changed", {"impersonator_id": 1}, "impersonator_id: None, not '1'"),
        ("membership.role_changed", {"details": {"n": 2}}, r"details\['n'\]: 1, not 2"),
        ("membership.role_changed", {"details": {"m": 2}}, r"details\['m'\]: None, not 2"),
        ("membership.role_changed", {"details": None}, "details: {.*}, not None"),
        ("membership.role_change", {}, r"did you mean membership.role_changed\?"),
        ("workflow.deleted", {}, "(?s)recorded were:.*membership.role_changed result='success'"),
    ],
)
def test_what_differs_is_shown(
    audited: AuditAssertions, action: str, expected: dict[str, Any], told: str
) -> None:
    with pytest.raises(AssertionError, match=told):
        audited(action, **expected)


def test_what_must_not_be_is_found(audited: AuditAssertions) -> None:
    audited.nothing("membership.removed")
    audited.nothing("membership.role_changed", actor_id=8)
    calls: list[Callable[[], None]] = [audited.nothing, lambda: audited.nothing(actor_id=7)]
    for call in calls:
        with pytest.raises(AssertionError, match=r"must not be: membership\.role_changed"):
            call()


@pytest.mark.parametrize("action", ["membership", "Membership.removed", "membership removed"])
def test_what_is_no_action_would_always_be_missing_and_is_refused(
    audited: AuditAssertions, action: str
) -> None:
    with pytest.raises(ValueError, match=f"'{action}' is no action, such as membership.removed"):
        audited.nothing(action)


def test_a_misspelt_column_is_named(audited: AuditAssertions) -> None:
    with pytest.raises(TypeError, match=r"no argument 'org_id'\. Did you mean 'organization_id'"):
        audited("membership.role_changed", org_id=1)
    with pytest.raises(TypeError, match="no argument 'actor'"):
        audited.nothing(actor=1)


def test_where_nothing_is_visible_the_reasons_are_named(db: Database) -> None:
    with pytest.raises(AssertionError, match=r"is the table attached.*audit_auditor"):
        AuditAssertions(db.connect())("membership.added")


def test_events_of_an_open_transaction_are_seen_on_its_own_connection(db: Database) -> None:
    conn = db.connect(autocommit=False)
    audited = AuditAssertions(conn)
    conn.execute("update membership set role = 'ADMIN' where user_id = 2")
    audited("membership.role_changed")
    with pytest.raises(AssertionError, match="is the change committed"):
        AuditAssertions(db.connect())("membership.role_changed")
