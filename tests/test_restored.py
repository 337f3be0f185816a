"""After a restore capture goes on, the doctor says one thing, and one command settles it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import auditdb
from auditdb.operate import doctor
from tests.conftest import Database, run
from tests.server import Server


def value(db: Database, sql: str) -> Any:
    with psycopg.connect(db.dsn) as conn:
        [(found,)] = conn.execute(sql.encode()).fetchall()
    return found


def found(db: Database, role: str | None = None) -> list[tuple[str, str, str]]:
    return [(f.check_name, f.severity, f.object) for f in doctor.diagnose(db.connect(role))]


RESTORE = [("restore", "warning", "schema audit")]


@contextmanager
def restored(
    db: Database, server: Server, *steps: tuple[str, ...], before: str = ""
) -> Iterator[Database]:
    """Yield a database restored from a dump, or from a dump for each step."""
    if server.bin is None or not (server.bin / "pg_dump").exists():
        pytest.skip("no pg_dump for this server")
    assert db.key
    name = db.connect().info.dbname
    # The tools may be older than the libpq that wrote the address.
    known = {k: v for k, v in conninfo_to_dict(db.dsn).items() if k in ("host", "port", "user")}
    copy = f"{name}_restored"
    admin = db.connect()
    admin.execute(f'drop database if exists "{copy}"'.encode())
    admin.execute(f'create database "{copy}"'.encode())
    there = Database(make_conninfo(db.dsn, dbname=copy))

    def tool(tool: str, dbname: str, *args: str, text: str | None = None) -> str:
        assert server.bin is not None
        done = subprocess.run(
            [server.bin / tool, *args, "-d", make_conninfo("", **known, dbname=dbname)],
            input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        run(there.connect(), before or "select")
        for options in steps or ((),):
            tool("psql", copy, "-X", "-q", "-v", "ON_ERROR_STOP=1",
                 text=tool("pg_dump", name, *options))  # fmt: skip
        yield there
    finally:
        there.close()
        admin.execute(f'drop database "{copy}" with (force)'.encode())


def test_a_restore_is_one_finding_and_install_settles_it(db: Database, server: Server) -> None:
    with restored(db, server) as there:
        assert found(there) == found(there, "app_auditor") == RESTORE
        auditdb.install(there.dsn)
        assert doctor.diagnose(there.connect()) == []
        [event] = there.connect().execute(
            "select target_id, old_values - 'server' = new_values - 'server',"
            " old_values -> 'cluster' = new_values -> 'cluster', details -> 'gone'"
            " from audit.event where action = 'audit.restored'"
        )  # fmt: skip
        assert event == (there.connect().info.dbname, False, True, None)
        run(there.connect("app_owner"), "alter table membership disable trigger auditdb_update;"
            "alter table membership enable always trigger auditdb_update")  # fmt: skip
        [finding] = doctor.diagnose(there.connect())
        assert "altered and put back" in finding.problem


def test_a_copy_by_template_is_no_restore(db: Database) -> None:
    # Every database of the tests is one, of a template that has another oid.
    noted = "select catalog is not null and cluster is not null from audit_private.installation"
    assert value(db, noted) is True
    assert value(db, "select audit_private.is_restored()") is False


def test_another_cluster_is_a_restore_also_with_the_same_oids(db: Database) -> None:
    # As after pg_upgrade, had it kept the oids of schemas.
    run(db.connect(), "update audit_private.installation set cluster = '1'")
    assert found(db) == RESTORE
    auditdb.install(db.dsn)
    assert db.key and doctor.diagnose(db.connect()) == []


def test_a_server_that_hides_its_cluster_is_known_by_its_catalogs(db: Database) -> None:
    run(db.connect(), "update audit_private.installation set cluster = null")
    assert db.key and doctor.diagnose(db.connect()) == []
    run(db.connect(), "update audit_private.installation set catalog = 1")
    assert found(db) == RESTORE


def test_until_then_capture_and_reading_go_on(db: Database, server: Server) -> None:
    with restored(db, server) as there:
        run(there.connect("app"), "update membership set role = 'ADMIN' where user_id = 2")
        [event] = there.events("target_type = 'membership' and old_values ->> 'role' = 'MEMBER'")
        assert event["action"] == "membership.role_changed"
        assert "degraded" not in event["details"]
        with psycopg.connect(there.conninfo("app_reader")) as conn:
            reader = auditdb.reader(conn, key=db.key, viewer_id=1, organization_id=1)
            assert "membership.role_changed" in [e.action for e in reader.page().events]


def test_until_then_a_new_secret_column_is_known_by_the_row_and_not_by_an_oid(
    db: Database, server: Server
) -> None:
    with restored(db, server) as there:
        run(there.connect(), "update audit_private.attachment set target = null;"
            "alter table api_key add material text")  # fmt: skip
        run(there.connect("app"), "insert into api_key (organization_id, name, key_hash, material)"
                                  " values (1, 'x', 'y', 'hunter2')")  # fmt: skip
        [event] = there.events("action = 'api_key.created'")
        assert event["new_values"]["material"] == "[redacted]"


@pytest.mark.parametrize("call", [
    "audit.attach('public.membership', 'membership')", "audit.detach('public.membership')",
    "audit.reattach('public.membership')", "audit.attest('public.membership')",
    "audit_private.forget_gone()", "audit.attach('public.workflow', 'invoice')",
])  # fmt: skip
def test_until_then_nothing_is_attached_detached_or_attested(
    db: Database, server: Server, call: str
) -> None:
    with restored(db, server) as there:
        # The oids are those of the other database: here they may be anybody's.
        run(there.connect(), "update audit_private.attachment set target = name::regclass,"
            "row_type = (select reltype from pg_class where oid = name::regclass)")  # fmt: skip
        with pytest.raises(psycopg.Error) as error:
            run(there.connect("app_owner"), f"select {call}")
        assert "was restored" in str(error.value) and "auditdb install" in str(error.value)


def test_doctor_fix_changes_nothing_in_a_restored_database(db: Database, server: Server) -> None:
    with restored(db, server) as there:
        run(there.connect("app_owner"), "drop trigger auditdb_update on membership")
        conn = there.connect()
        assert doctor.fix(conn, doctor.diagnose(conn)) == []


MONTH = """
set local role audit_owner;
select audit_private.join_month('2020-01-01');
select audit_private.record_attestation('month', 'audit.event', '{trigger}', renew => false)
"""
DAMAGE = {
    "drop trigger auditdb_update on membership": ("triggers", "public.membership"),
    "alter table membership disable trigger auditdb_update": ("triggers", "public.membership"),
    "alter table membership add note text": ("mappings", "public.membership"),
    "alter table workflow owner to postgres": ("tables", "public.workflow"),
    "alter table audit.event detach partition audit.event_2020_01": (
        "partitions",
        "audit.event_2020_01",
    ),
    "drop table audit.event_2020_01": ("partitions", "audit.event_2020_01"),
    'update audit_private.attachment set mapping = mapping || \'{"ignore": ["role"]}\''
    " where kind = 'membership'": ("mappings", "public.membership"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_the_restore_lacks_is_found_after_install(
    db: Database, server: Server, damage: str
) -> None:
    run(db.connect(), MONTH)
    with restored(db, server) as there:
        run(there.connect(), damage)
        auditdb.install(there.dsn)
        assert DAMAGE[damage] in [(check, about) for check, _, about in found(there)]


def test_a_database_that_lacks_a_table_keeps_the_mappings_of_the_others(
    db: Database, server: Server
) -> None:
    with restored(db, server, ("-T", "public.workflow_step")) as there:
        auditdb.install(there.dsn)
        [finding] = doctor.diagnose(there.connect())
        assert (finding.object, finding.problem) == (
            "public.workflow_step", "is not in this database"
        )  # fmt: skip
        gone = "select problem from audit.list_tables() where target = 'public.workflow_step'"
        assert value(there, gone) == "the table is gone"
        assert doctor.fix(there.connect("app_owner"), [finding]) == [finding.mend]
        assert doctor.diagnose(there.connect()) == []
        detached = "select target_id, details from audit.event where action = 'audit.detached'"
        assert there.connect().execute(detached).fetchall() == [
            ("public.workflow_step", {"gone": True})
        ]
        run(there.connect("app"), "insert into workflow (organization_id, name) values (1, 'x')")
        assert there.actions()[-1] == "workflow.created"


def test_naive_twin_a_regclass_loses_every_row_of_such_a_restore(
    db: Database, server: Server
) -> None:
    run(db.connect(), "create table naive_mapping as select target::regclass, kind"
                      " from audit_private.attachment")  # fmt: skip
    with (
        pytest.raises(AssertionError, match=r'relation "public.workflow_step" does not exist'),
        restored(db, server, ("-T", "public.workflow_step")),
    ):
        pass


def test_a_stranger_with_the_oid_of_a_dropped_table_is_never_touched(
    db: Database, server: Server
) -> None:
    run(db.connect("app_owner"), "drop table workflow_step")
    with restored(db, server) as there:
        owner = there.connect("app_owner")
        run(owner, "create table innocent (card_number text)")
        run(there.connect(), "update audit_private.attachment set target = 'innocent'::regclass,"
            " row_type = (select reltype from pg_class where relname = 'innocent')"
            " where name = 'public.workflow_step'")  # fmt: skip
        auditdb.install(there.dsn)
        doctor.fix(owner, doctor.diagnose(owner))
        assert doctor.diagnose(there.connect()) == []
        with pytest.raises(psycopg.Error, match="is not attached"):
            run(owner, "select audit.reattach('innocent')")
        assert value(there, "select count(*) from pg_trigger"
                            " where tgrelid = 'innocent'::regclass") == 0  # fmt: skip


def test_nor_is_one_in_the_same_database(db: Database) -> None:
    owner = db.connect("app_owner")
    run(owner, "drop table workflow_step; create table innocent (card_number text)")
    run(db.connect(), "update audit_private.attachment set target = 'innocent'::regclass"
                      " where name = 'public.workflow_step'")  # fmt: skip
    assert db.key
    [finding] = doctor.diagnose(db.connect())
    assert (finding.object, finding.problem) == ("public.workflow_step", "was dropped")
    for call in ("audit.reattach('innocent')", "audit.detach('innocent')"):
        with pytest.raises(psycopg.Error, match="is not attached"):
            run(owner, f"select {call}")
    assert doctor.fix(owner, [finding]) == [finding.mend]
    assert doctor.diagnose(db.connect()) == []


def test_a_table_that_was_renamed_before_the_dump_is_known_by_its_triggers(
    db: Database, server: Server
) -> None:
    run(db.connect("app_owner"), "alter table api_key rename to secret_key")
    with restored(db, server) as there:
        auditdb.install(there.dsn)
        [finding] = doctor.diagnose(there.connect())
        assert (finding.severity, finding.object) == ("notice", "public.secret_key")


def test_a_restore_without_owners_is_one_finding(db: Database, server: Server) -> None:
    with restored(db, server, ("-O", "-x")) as there:
        assert found(there) == [("restore", "critical", "schema audit")]
        [finding] = doctor.diagnose(there.connect("app"))
        assert finding.mend == "auditdb install" and "a restore without owners" in finding.problem


def test_a_restore_without_privileges_is_one_finding(db: Database, server: Server) -> None:
    with restored(db, server, ("-x",)) as there:
        assert found(there) == found(there, "app_auditor") == RESTORE
        auditdb.install(there.dsn)
        conn = there.connect()
        doctor.fix(conn, doctor.diagnose(conn))
        # Who is an admin, the owner of the memberships says again.
        for finding in doctor.diagnose(conn):
            assert finding.check_name == "readers"
            run(there.connect("app_owner"), finding.mend)
        assert doctor.diagnose(conn) == []


def test_a_restore_with_disabled_triggers_is_mended(db: Database, server: Server) -> None:
    with restored(db, server, ("-s",), ("-a", "--disable-triggers")) as there:
        assert found(there) == RESTORE
        auditdb.install(there.dsn)
        findings = doctor.diagnose(there.connect())
        downgraded = {f.object for f in findings if "downgraded" in f.problem}
        assert {"public.membership", "public.api_key", "public.app_user"} <= downgraded
        doctor.fix(there.connect(), findings)
        assert doctor.diagnose(there.connect()) == []


def test_ids_go_on_after_the_highest_of_the_log(db: Database, server: Server) -> None:
    run(db.connect("app"), "insert into workflow (organization_id, name) select 1, n::text"
                           " from generate_series(1, 50) as n")  # fmt: skip
    with restored(db, server) as there:
        last = value(there, "select max(id) from audit.event")
        run(there.connect(), "select setval('audit.event_id_seq', 1)")
        auditdb.install(there.dsn)
        assert value(there, f"select count(*) from audit.event where action = 'audit.restored'"
                            f" and id > {last}") == 1  # fmt: skip
