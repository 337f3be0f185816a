"""The live check behind every read: what its code does is undone, and who is gone reads nothing."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.viewer import read, sign


def organization_of(conn: psycopg.Connection[Any], token: str) -> Any:
    """Return which organisation the database lets the bearer of a token read."""
    conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
    row = conn.execute("select audit.viewer_organization()").fetchone()
    assert row is not None
    return row[0]


def test_what_code_of_the_application_sets_does_not_outlive_the_check(db: Database) -> None:
    db.connect("app_owner").execute(
        """create function mark(role text) returns boolean language plpgsql as $$
            begin
                perform set_config('app.tenant', 'another', false);
                return role = 'OWNER';
            end $$;
        select audit.attach('membership', 'membership', admin => 'public.mark(r.role)')"""
    )
    conn = db.connect("app_reader", autocommit=False)
    conn.execute("set app.tenant = 'mine'")
    assert organization_of(conn, sign(db.key, "1", "1")) == "1"  # the code ran
    assert conn.execute("show app.tenant").fetchone() == ("mine",)


def test_naive_twin_what_a_function_sets_outlives_its_call(db: Database) -> None:
    owner = db.connect("app_owner")
    owner.execute(
        "create function mark() returns void language sql as "
        "$$ select set_config('app.tenant', 'another', false) $$"
    )
    owner.execute("set app.tenant = 'mine'; select mark()")
    assert owner.execute("show app.tenant").fetchone() == ("another",)


@pytest.mark.parametrize("options", ["", ", alive => 'r.deleted_at is null'"])
def test_an_admin_who_was_softly_deleted_reads_nothing(db: Database, options: str) -> None:
    owner = db.connect("app_owner")
    owner.execute("alter table membership add deleted_at timestamptz")
    owner.execute(f"select audit.attach('membership', 'membership'{options})".encode())
    db.connect("app").execute("update membership set role = 'GUEST' where user_id = 2")
    assert read(db, "1", "1", "select action from audit.event")
    owner.execute("update membership set deleted_at = now() where user_id = 1")
    assert read(db, "1", "1", "select action from audit.event") == []
    owner.execute("update membership set deleted_at = null where user_id = 1")
    assert read(db, "1", "1", "select action from audit.event")


def test_a_check_that_fails_lets_nobody_in_and_leaves_the_others_in_force(db: Database) -> None:
    owner = db.connect("app_owner")
    owner.execute("create table member (organization_id int, user_id int, role text)")
    owner.execute("insert into member values (1, 1, 'OWNER'), (1, 2, 'OWNER'), (2, 3, 'OWNER')")
    owner.execute("select audit.attach('member', 'membership')")
    owner.execute("alter table membership rename role to position")  # the check of the older fails
    conn = db.connect("app_reader", autocommit=False)
    assert organization_of(conn, sign(db.key, "2", "1")) == "1"
    assert organization_of(conn, sign(db.key, "4", "2")) is None
    assert organization_of(conn, sign(db.key, "9", "1")) is None
