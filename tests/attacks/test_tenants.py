"""Organisations that come, go and come again: each one's log begins where it did."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from auditdb.operate import doctor
from tests.attacks.report import attack
from tests.conftest import Database
from tests.viewer import read

GROUP = "Reading what is not yours"
REUSED = "An organisation's identifier that is used again, and the log of the former one"
ACTIONS = "select action from audit.log order by id"


def seen(db: Database, user: str = "2", organization: str = "7") -> list[str]:
    """Return the actions that a user of an organisation reads."""
    return [action for (action,) in read(db, user, organization, ACTIONS)]


def live(conn: psycopg.Connection[Any], user: int) -> None:
    """Let organisation 7 be founded by a user, and work."""
    conn.execute("insert into organization (id, name) values (7, 'x')")
    conn.execute(f"insert into membership values (7, {user}, 'OWNER')".encode())
    conn.execute("insert into workflow (organization_id, name) values (7, 'secret plan')")


@attack(GROUP, REUSED, outcome="B")
def test_an_owner_reads_nothing_of_a_former_organization_of_the_same_id(db: Database) -> None:
    conn = db.connect("app")
    live(conn, 1)
    own = ["organization.created", "membership.added", "workflow.created"]
    assert seen(db, "1") == own
    conn.execute("delete from organization where id = 7")
    live(conn, 2)
    assert seen(db, "2") == own
    assert seen(db, "1") == []
    assert len(db.events("organization_id = '7'")) > 2 * len(own)


@attack(GROUP, REUSED, outcome="B", twin=True)
def test_without_its_table_an_owner_reads_it_all_and_doctor_says_so(db: Database) -> None:
    owner, conn = db.connect("app_owner"), db.connect("app")

    def found() -> list[tuple[str, str]]:
        findings = doctor.diagnose(db.connect())
        return [(f.object, f.severity) for f in findings if f.check_name == "tenants"]

    assert found() == []
    owner.execute("select audit.detach('organization')")
    live(conn, 1)
    conn.execute("delete from organization where id = 7")
    live(conn, 2)
    assert seen(db).count("workflow.created") == 2
    assert found() == [("public.membership", "notice")]


@pytest.mark.parametrize(
    "harm",
    ["alter table organization add more int", "alter table organization rename name to label",
     "alter table organization alter name type varchar(99)"],
)  # fmt: skip
def test_a_log_begins_anew_also_where_the_row_is_read_by_the_fallback(
    db: Database, harm: str
) -> None:
    conn = db.connect("app")
    live(conn, 1)
    conn.execute("delete from organization where id = 7")
    db.connect("app_owner").execute(harm.encode())
    conn.execute("insert into organization values (7, 'x')")
    conn.execute("insert into membership values (7, 2, 'OWNER')")
    assert seen(db) == ["organization.created", "membership.added"]


def test_a_log_begins_anew_also_where_nothing_of_the_row_could_be_read(db: Database) -> None:
    conn = db.connect("app")
    live(conn, 1)
    conn.execute("delete from organization where id = 7")
    admin = db.connect()
    admin.execute("alter table organization add more int")
    admin.execute("drop function audit_private.rescue")
    conn.execute("insert into organization values (7, 'x')")
    conn.execute("insert into membership values (7, 2, 'OWNER')")
    event, added = (e for e in db.events("organization_id = '7'")[-2:])
    assert event["details"]["degraded"]["lost"] == ["row"]
    assert seen(db) == [event["action"], added["action"]]


def test_what_is_rolled_back_begins_nothing(db: Database) -> None:
    conn = db.connect("app")
    live(conn, 1)
    before = seen(db, "1")
    with pytest.raises(psycopg.Error), conn.transaction():
        conn.execute("insert into organization (id, name) values (8, 'x'), (7, 'twice')")
    assert seen(db, "1") == before


def test_a_row_that_is_restored_is_the_same_organization(db: Database) -> None:
    db.connect("app_owner").execute("alter table organization add deleted_at timestamptz")
    db.connect("app_owner").execute("select audit.attach('organization', 'organization')")
    conn = db.connect("app")
    live(conn, 1)
    conn.execute("update organization set deleted_at = now() where id = 7")
    conn.execute("update organization set deleted_at = null where id = 7")
    assert seen(db, "1") == [
        "organization.created", "membership.added", "workflow.created", "organization.deleted",
        "organization.created",
    ]  # fmt: skip


def test_a_part_of_an_organization_begins_no_log(db: Database) -> None:
    owner, conn = db.connect("app_owner"), db.connect("app")
    owner.execute("alter table organization add parent_id int")
    owner.execute(
        "select audit.attach('organization', 'organization',"
        " organization => 'coalesce(r.parent_id, r.id)')"
    )
    live(conn, 1)
    conn.execute("insert into organization (id, name, parent_id) values (70, 'team', 7)")
    assert seen(db, "1")[0] == "organization.created"
    assert len(seen(db, "1")) == 4
    conn.execute("delete from organization where id = 7")
    live(conn, 2)
    assert len(seen(db)) == 3
    started = db.connect().execute("select organization_id from audit_private.organization_start")
    assert started.fetchall() == [("7",), ("7",)]


@attack(GROUP, REUSED, outcome="B")
def test_taking_the_identifier_of_a_former_organization_opens_nothing(db: Database) -> None:
    conn = db.connect("app")
    live(conn, 1)
    conn.execute("delete from organization where id = 7")
    conn.execute("insert into organization (id, name) values (8, 'y')")
    conn.execute("update organization set id = 7 where id = 8")
    conn.execute("insert into membership values (7, 2, 'OWNER')")
    assert seen(db) == ["organization.updated", "membership.added"]


def test_a_row_that_moves_between_partitions_is_the_same_organization(db: Database) -> None:
    owner, conn = db.connect("app_owner"), db.connect("app")
    owner.execute("""
        select audit.detach('organization');
        create table tenant (id int, plan text, primary key (id, plan)) partition by list (plan);
        create table tenant_free partition of tenant for values in ('free');
        create table tenant_paid partition of tenant for values in ('paid');
        grant all on tenant to app;
        select audit.attach('tenant', 'organization', organization => 'id', target_id => 'id')""")
    conn.execute("insert into organization (id, name) values (7, 'x')")
    conn.execute("insert into tenant values (7, 'free')")
    conn.execute("insert into membership values (7, 1, 'OWNER')")
    before = seen(db, "1")
    conn.execute("update tenant set plan = 'paid' where id = 7")
    assert seen(db, "1")[: len(before)] == before


@attack(GROUP, "A second table of organisations, by which a log would be hidden", outcome="B")
def test_a_second_table_of_organizations_begins_no_log_and_is_found(db: Database) -> None:
    owner, conn = db.connect("app_owner"), db.connect("app")
    live(conn, 1)
    before = seen(db, "1")
    owner.execute("create table tenant (id int primary key); grant all on tenant to app")
    owner.execute("select audit.attach('tenant', 'organization')")
    conn.execute("insert into tenant values (7)")
    assert seen(db, "1")[: len(before)] == before
    (found,) = [f for f in doctor.diagnose(db.connect()) if f.check_name == "tenants"]
    assert found.object == "public.tenant" and "organization" in found.problem
    owner.execute(found.mend.encode())
    assert [f for f in doctor.diagnose(db.connect()) if f.check_name == "tenants"] == []


@attack(
    GROUP, "A second table of organisations, by which a log would be hidden", outcome="B", twin=True
)
def test_the_first_table_of_organizations_does_begin_logs(db: Database) -> None:
    live(db.connect("app"), 1)
    before = seen(db, "1")
    db.connect("app_owner").execute("select audit.detach('organization')")
    db.connect("app_owner").execute("create table tenant (id int primary key)")
    db.connect("app_owner").execute("select audit.attach('tenant', 'organization')")
    db.connect("app_owner").execute("insert into tenant values (7)")
    assert seen(db, "1")[: len(before)] != before
