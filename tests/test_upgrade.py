"""Installing again, while the application writes and attached tables stay attached."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import auditdb
from tests.conftest import Database
from tests.server import Server

WRITERS = 4


class Writer(threading.Thread):
    """A client that writes until it is stopped; what it could not do is in `errors`."""

    def __init__(self, db: Database, number: int) -> None:
        super().__init__()
        self.conninfo = db.conninfo("app")
        self.number = number
        self.stop = threading.Event()
        self.started = threading.Event()
        self.written = 0
        self.errors: list[str] = []

    def run(self) -> None:
        # A lock that is held longer than this would be an outage.
        with psycopg.connect(self.conninfo, autocommit=True, options="-c lock_timeout=2s") as conn:
            while not self.stop.is_set():
                try:
                    self.write(conn)
                except psycopg.Error as error:
                    self.errors.append(str(error))
                    return
                self.started.set()

    def write(self, conn: psycopg.Connection[Any]) -> None:
        """Make four events in one transaction, of which every tenth is rolled back."""
        undone = self.written % 40 == 36
        with conn.transaction(force_rollback=undone):
            conn.execute(
                "insert into workflow (organization_id, name) values (1, %s)", [f"w{self.number}"]
            )
            conn.execute(
                "update workflow set config = '{\"a\": 1}' where id = currval('workflow_id_seq')"
            )
            conn.execute(
                "insert into workflow_step (workflow_id, position)"
                " values (currval('workflow_id_seq'), 1)"
            )
            conn.execute("delete from workflow_step where id = currval('workflow_step_id_seq')")
        self.written += 4


@pytest.fixture
def writers(db: Database) -> Iterator[list[Writer]]:
    with psycopg.connect(db.dsn) as conn:
        conn.execute("grant usage on all sequences in schema public to app")
    threads = [Writer(db, number) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        assert thread.started.wait(30), thread.errors
    yield threads
    for thread in threads:
        thread.stop.set()
        thread.join()


def triggers(db: Database) -> list[tuple[Any, ...]]:
    with psycopg.connect(db.dsn) as conn:
        return conn.execute(
            "select oid, xmin, tgrelid, tgfoid, tgenabled from pg_trigger"
            " where tgname like 'auditdb%' order by oid"
        ).fetchall()


def test_writers_lose_no_event_and_see_no_error_while_auditdb_is_installed_again(
    db: Database, writers: list[Writer]
) -> None:
    before = triggers(db)
    for _ in range(3):
        auditdb.install(db.dsn)
    with psycopg.connect(db.dsn) as conn:
        conn.execute(auditdb.script().encode())
    for thread in writers:
        thread.stop.set()
        thread.join()
    assert [thread.errors for thread in writers] == [[]] * WRITERS
    assert triggers(db) == before
    kept = sum(
        4 for thread in writers for done in range(0, thread.written, 4) if done % 40 != 36
    )  # fmt: skip
    events = db.events("target_type = 'workflow'")
    assert len(events) == kept
    assert not any("degraded" in (event["details"] or {}) for event in events)


def test_many_installs_at_once_while_tables_are_attached_end_well(
    db: Database, writers: list[Writer]
) -> None:
    problems: list[BaseException] = []

    def attach_again() -> None:
        try:
            with psycopg.connect(db.conninfo("app_owner"), autocommit=True) as conn:
                for _ in range(5):
                    conn.execute("select audit.attach('workflow', 'workflow')")
        except psycopg.Error as error:
            problems.append(error)

    def install() -> None:
        try:
            auditdb.install(db.dsn)
        except auditdb.AuditError as error:
            problems.append(error)

    threads = [threading.Thread(target=install) for _ in range(3)]
    threads.append(threading.Thread(target=attach_again))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert [writer.errors for writer in writers] == [[]] * WRITERS


def test_a_session_that_captured_before_an_upgrade_captures_after_it(db: Database) -> None:
    conn = db.connect("app")
    for n in range(8):
        conn.execute("update workflow set name = %s", [str(n)], prepare=True)
        conn.execute("update membership set role = %s where user_id = 2", [str(n)], prepare=True)
    auditdb.install(db.dsn)
    conn.execute("update membership set role = %s where user_id = 2", ["ADMIN"], prepare=True)
    event = db.events()[-1]
    assert event["action"] == "membership.role_changed"
    assert "degraded" not in event["details"]


def test_mappings_outlive_an_upgrade(db: Database) -> None:
    with psycopg.connect(db.dsn) as conn:
        query = (
            "select target, kind, mapping, attached_at from audit_private.attachment order by id"
        )
        before = conn.execute(query).fetchall()
        auditdb.install(db.dsn)
        assert conn.execute(query).fetchall() == before


def test_an_upgrade_passes_over_an_attached_table_that_was_dropped(db: Database) -> None:
    owner = db.connect("app_owner")
    owner.execute("drop table workflow_step")
    owner.execute("alter table workflow rename config to settings")
    auditdb.install(db.dsn)
    conn = db.connect("app")
    conn.execute("insert into workflow (organization_id, name) values (1, 'w')")
    assert db.actions() == ["workflow.created"]


@pytest.fixture
def publisher(server: Server, empty_db: Database) -> Iterator[psycopg.Connection[Any]]:
    """Another database of the server, that publishes a table."""
    admin = empty_db.connect()
    name = f"{admin.info.dbname}_publisher"
    admin.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
    with psycopg.connect(make_conninfo(empty_db.dsn, dbname=name), autocommit=True) as conn:
        if conn.execute("show wal_level").fetchone() != ("logical",):
            pytest.skip("the server does not replicate logically")
        conn.execute("create table item (id int primary key, n int)")
        conn.execute("create publication items for table item")
        conn.execute("select pg_create_logical_replication_slot('auditdb_test', 'pgoutput')")
        yield conn
        conn.execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots"
            " where slot_name = 'auditdb_test' and active"
        )
    empty_db.connect().execute(
        sql.SQL("drop database {} with (force)").format(sql.Identifier(name))
    )


def test_what_logical_replication_applies_is_captured(
    empty_db: Database, publisher: psycopg.Connection[Any]
) -> None:
    owner = empty_db.connect("app_owner")
    owner.execute("create table item (id int primary key, n int)")
    owner.execute("select audit.attach('item', 'item')")
    admin = empty_db.connect()
    info = publisher.info
    there = make_conninfo(
        "", host=info.host, port=info.port, user=info.user, dbname=info.dbname,
        password=info.password or None,
    )  # fmt: skip
    admin.execute(
        sql.SQL(
            "create subscription items connection {} publication items"
            " with (create_slot = false, slot_name = 'auditdb_test', copy_data = false)"
        ).format(sql.Literal(there))
    )
    try:
        publisher.execute("insert into item values (1, 0), (2, 0)")
        publisher.execute("update item set n = 1 where id = 1")
        publisher.execute("delete from item where id = 2")
        publisher.execute("truncate item")
        verbs = ["created", "created", "updated", "deleted", "truncated"]
        expected = [f"item.{verb}" for verb in verbs]
        until = time.monotonic() + 60
        while len(empty_db.actions()) < len(expected) and time.monotonic() < until:
            time.sleep(0.05)
        assert empty_db.actions() == expected
        assert not any("degraded" in (event["details"] or {}) for event in empty_db.events())
    finally:
        admin.execute("alter subscription items disable")
        admin.execute("alter subscription items set (slot_name = none)")
        admin.execute("drop subscription items")
        slots = "select active_pid from pg_replication_slots where slot_name = 'auditdb_test'"
        until = time.monotonic() + 30
        while publisher.execute(slots).fetchone() != (None,) and time.monotonic() < until:
            time.sleep(0.05)
        publisher.execute("select pg_drop_replication_slot('auditdb_test')")


def test_what_was_granted_by_hand_to_a_role_of_the_log_does_not_outlive_an_upgrade(
    db: Database,
) -> None:
    admin = db.connect()
    held = """select format('%s on %s to %s', privilege_type, o.name, grantee::regrole) from (
            select oid::regclass::text, relacl from pg_class
            where relnamespace::regnamespace::text ~ '^audit'
            union all select oid::regprocedure::text, proacl from pg_proc
            where pronamespace::regnamespace::text ~ '^audit'
        ) as o (name, acl), aclexplode(acl) order by 1"""
    before = admin.execute(held.encode()).fetchall()
    admin.execute(
        """grant select on audit_private.signing_key to audit_reader, audit_auditor;
        grant insert on audit.event to audit_writer;
        grant update on audit_private.attachment to audit_operator;
        grant usage on audit.event_id_seq to audit_writer;
        grant execute on all functions in schema audit, audit_private
            to audit_reader, audit_auditor, audit_writer, audit_operator"""
    )
    assert len(admin.execute(held.encode()).fetchall()) > len(before) + 100
    auditdb.install(db.dsn)
    assert admin.execute(held.encode()).fetchall() == before


def test_an_install_is_an_event(db: Database) -> None:
    query = "select count(*), max(target_id) from audit.event where action = 'audit.installed'"
    for number in (1, 2):
        assert db.connect().execute(query.encode()).fetchone() == (number, auditdb.__version__)
        auditdb.install(db.dsn)


def test_an_upgrade_closes_the_schema_to_public(db: Database) -> None:
    db.connect().execute("grant usage, create on schema audit to public")
    auditdb.install(db.dsn)
    row = db.connect("stranger").execute(
        "select has_schema_privilege('audit', 'usage'), has_schema_privilege('audit', 'create')"
    )
    assert row.fetchone() == (False, False)


def test_an_upgrade_writes_the_functions_of_attached_tables_anew(db: Database) -> None:
    admin = db.connect()
    written = (
        "select proname, prosrc from pg_proc"
        " where proname"
        " ~ '^(capture|baseline|image|fall_back|read|organization|admin)_[0-9]+(_[a-z]+)?$'"
        " order by 1"
    )
    before = admin.execute(written.encode()).fetchall()
    assert len(before) > 20
    for name, _ in before:
        # As an older version may have written them.
        if name.startswith("capture"):
            admin.execute(
                f"create or replace function audit_private.{name}() returns trigger "
                "language plpgsql security definer as 'begin return null; end'".encode()
            )
    auditdb.install(db.dsn)
    assert admin.execute(written.encode()).fetchall() == before
    db.connect("app").execute("update membership set role = 'ADMIN' where user_id = 2")
    assert db.actions() == ["membership.role_changed"]
