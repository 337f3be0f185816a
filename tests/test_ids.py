"""Ids stand once, months are months, and no replication makes events double or stops unnoticed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import auditdb
from auditdb.operate import doctor
from auditdb.operate.doctor import Finding
from tests.conftest import Database
from tests.server import Server
from tests.test_restored import restored


def run(conn: psycopg.Connection[Any], text: str) -> None:
    with conn.transaction():
        conn.execute(text.encode())


def found(db: Database, *checks: str) -> list[Finding]:
    return [f for f in doctor.diagnose(db.connect()) if f.check_name in checks]


def add(db: Database, first: int, last: int, at: str) -> None:
    """Make events of the log's owner, with ids as they are given."""
    run(db.connect(), "set local role audit_owner;"
        "insert into audit.event (id, occurred_at, action, result, actor_type, source)"
        f" select n, {at} + (n - {first}) * interval '1 ms', 'a.b', 'success', 'user', 'x'"
        f" from generate_series({first}, {last}) as n")  # fmt: skip


def age(db: Database) -> None:
    """Let all events be of the day before yesterday."""
    run(
        db.connect(),
        "alter table audit.event disable trigger refuse_change;"
        "update audit.event set occurred_at = occurred_at - interval '2 days'",
    )


def test_a_sequence_that_is_behind_is_found_and_install_mends_it(db: Database) -> None:
    add(db, 5000, 5000, "now()")
    [finding] = found(db, "ids")
    assert finding.severity == "critical" and "there are events up to 5000" in finding.problem
    assert finding.mend == "auditdb install"
    auditdb.install(db.dsn)
    assert found(db, "ids") == []
    run(db.connect("app"), "update workflow set name = name || 'x';"
                           "update membership set role = 'ADMIN' where user_id = 2")  # fmt: skip
    assert db.events()[-1]["id"] > 5000


def test_events_that_a_restore_made_have_ids_of_others(db: Database, server: Server) -> None:
    run(db.connect("app"), "insert into workflow (organization_id, name) select 1, n::text"
                           " from generate_series(1, 50) as n")  # fmt: skip
    # The data come after the triggers, and each row of a table is captured again.
    with restored(db, server, ("-s",), ("-a",)) as there:
        auditdb.install(there.dsn)
        [finding] = found(there, "ids")
        assert finding.severity == "critical" and "ids are used twice" in finding.problem
        assert "--disable-triggers" in finding.mend


def test_naive_twin_nothing_keeps_an_id_from_standing_twice(db: Database) -> None:
    assert found(db, "ids") == []
    add(db, 1, 3, "now()")
    add(db, 1, 3, "now() + interval '1 s'")
    assert len(db.events("id = 2")) >= 2


def test_ids_that_began_anew_are_found_where_no_newest_event_stands_twice(db: Database) -> None:
    age(db)
    run(db.connect(), "select setval('audit.event_id_seq', 20000)")
    add(db, 10_001, 14_000, "now() - interval '3 hours'")
    assert found(db, "ids") == []
    add(db, 3_000, 6_000, "now()")
    [finding] = found(db, "ids")
    assert finding.severity == "warning" and "ids restarted" in finding.problem


def test_a_few_events_in_gaps_of_the_ids_are_found(db: Database) -> None:
    """Data that are restored with their triggers on: no id need stand twice."""
    age(db)
    run(db.connect(), "select setval('audit.event_id_seq', 2000)")
    add(db, 900, 950, "now() - interval '5 hours'")
    assert found(db, "ids") == []
    add(db, 801, 804, "now()")
    [finding] = found(db, "ids")
    assert finding.severity == "warning" and "ids restarted" in finding.problem


def test_writers_of_one_moment_may_be_out_of_order(db: Database) -> None:
    age(db)
    run(db.connect(), "select setval('audit.event_id_seq', 20000)")
    add(db, 10_001, 10_500, "now() - interval '1 h'")
    add(db, 9_901, 10_000, "now() - interval '1 h' + interval '10 s'")
    assert found(db, "ids") == []


MONTHS = {
    "create table audit.extra (like audit.event including all); alter table audit.event"
    " attach partition audit.extra for values from ('1990-01-01') to ('1990-02-01')":
        ("audit.extra", "its name is no month"),
    "create table public.event_1990_01 (like audit.event including all); alter table audit.event"
    " attach partition public.event_1990_01 for values from ('1990-01-01Z') to ('1990-02-01Z')":
        ("public.event_1990_01", "outside of the schema audit"),
    "create table audit.event_1990_01 (like audit.event including all); alter table audit.event"
    " attach partition audit.event_1990_01 for values from ('1990-01-01Z') to ('1990-03-01Z')":
        ("audit.event_1990_01", "holds other events than those of its month"),
    "create extension postgres_fdw; create server far foreign data wrapper postgres_fdw;"
    " create foreign table audit.event_1990_01 partition of audit.event"
    " for values from ('1990-01-01Z') to ('1990-02-01Z') server far":
        ("audit.event_1990_01", "that another server holds"),
}  # fmt: skip


@pytest.mark.parametrize("damage", MONTHS)
def test_a_partition_that_is_no_month_is_found(empty_db: Database, damage: str) -> None:
    about, problem = MONTHS[damage]
    conn = empty_db.connect()
    if "foreign" in damage:
        available = "select from pg_available_extensions where name = 'postgres_fdw'"
        if conn.execute(available).fetchone() is None:
            damage = damage.replace("create extension postgres_fdw; ", "create foreign data wrapper"
                                    " none; ").replace("postgres_fdw", "none")  # fmt: skip
        # A foreign table takes no primary key.
        run(conn, "alter table audit.event drop constraint event_pkey cascade")
    run(conn, damage)
    said = [(f.object, f.problem) for f in found(empty_db, "partitions")]
    assert [object_ for object_, text in said if problem in text] == [about]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Adak"])
def test_a_month_is_one_in_utc_whatever_the_zone_of_the_session(empty_db: Database, zone: str
) -> None:  # fmt: skip
    conn = empty_db.connect()
    conn.execute(f"set timezone = '{zone}'".encode())
    assert doctor.diagnose(conn) == []
    run(conn, "set local role audit_owner; select audit_private.join_month('2020-03-01');"
              "select audit_private.record_attestation('month', renew => false)")  # fmt: skip
    assert doctor.diagnose(conn) == []


@pytest.mark.parametrize("publication", [
    "for all tables", "for table audit.event", "for tables in schema audit",
])  # fmt: skip
def test_a_publication_that_a_new_month_breaks_is_found(db: Database, publication: str) -> None:
    run(db.connect(), f"create publication ship {publication}")
    [finding] = found(db, "replication")
    assert (finding.severity, finding.object) == ("warning", "publication ship")
    run(db.connect(), finding.mend)
    assert found(db, "replication") == []


def test_a_publication_of_other_tables_is_none_of_ours(db: Database) -> None:
    run(db.connect(), "create publication ship for table workflow")
    assert found(db, "replication") == []


@pytest.fixture
def copy(db: Database, server: Server) -> Iterator[Database]:
    """A copy of the database that gets what is written there from then on."""
    name = db.connect().info.dbname
    copied = f"{name}_copy"
    assert db.key
    run(db.connect(), "create publication ship for table audit.event, membership"
                      " with (publish_via_partition_root = true);")  # fmt: skip
    db.close()
    there = Database(make_conninfo(db.dsn, dbname=copied))
    with psycopg.connect(db.dsn, dbname="postgres", autocommit=True) as admin:
        admin.execute(f'create database "{copied}" template "{name}"'.encode())
    source = db.connect()
    source.execute("select pg_create_logical_replication_slot('ship', 'pgoutput')")
    options = "create_slot = false, slot_name = ship, copy_data = false"
    if source.info.server_version >= 160000:
        options += ", run_as_owner = true"
    here = f"host={server.host} port={server.port} user={server.user} dbname={name}"
    there.connect().execute(
        sql.SQL("create subscription ship connection {} publication ship with ({})").format(
            here, sql.SQL(options)
        )
    )
    yield there
    there.connect().execute("alter subscription ship disable")
    there.connect().execute("alter subscription ship set (slot_name = none)")
    there.connect().execute("drop subscription ship")
    there.close()
    deadline = time.monotonic() + 30
    while True:
        try:
            db.connect().execute("select pg_drop_replication_slot('ship')")
            break
        except psycopg.errors.ObjectInUse:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    db.connect().execute(f'drop database "{copied}" with (force)'.encode())


def events_of(there: Database, user: int, count: int) -> int:
    """Return how many events there are of a membership's role, once as many as were made."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        run(there.connect(), "select")
        [(role,)] = there.connect().execute(
            "select role from membership where user_id = %s", [user]
        ).fetchall()  # fmt: skip
        if role == f"ROLE{count}":
            return len(there.events(f"new_values ->> 'role' = '{role}'"))
        time.sleep(0.05)
    raise AssertionError("the copy does not catch up")


def change(db: Database, count: int) -> None:
    run(db.connect("app"), f"update membership set role = 'ROLE{count}' where user_id = 2")


def test_a_subscription_that_doubles_events_is_found_and_mended(
    db: Database, copy: Database
) -> None:
    change(db, 1)
    assert events_of(copy, 2, 1) == 2
    [finding] = found(copy, "replication", "triggers")
    assert (finding.severity, finding.object) == ("warning", "public.membership")
    run(copy.connect("app_owner"), finding.mend)
    assert found(copy, "replication", "triggers") == []
    change(db, 2)
    assert events_of(copy, 2, 2) == 1
    # Who writes there is captured all the same.
    run(copy.connect("app"), "update membership set role = 'THERE' where user_id = 4")
    assert len(copy.events("new_values ->> 'role' = 'THERE'")) == 1


def test_without_the_subscription_the_triggers_have_to_fire_always(
    db: Database, copy: Database
) -> None:
    [finding] = found(copy, "replication", "triggers")
    run(copy.connect("app_owner"), finding.mend)
    run(copy.connect(), "create publication none; alter subscription ship disable;"
                        "delete from pg_subscription_rel")  # fmt: skip
    [finding] = found(copy, "replication", "triggers")
    assert "downgraded from ENABLE ALWAYS" in finding.problem
    run(copy.connect("app_owner"), finding.mend)
    assert found(copy, "replication", "triggers") == []
