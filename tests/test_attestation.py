"""The attestation remembers what stood, cannot be rewritten, and survives what is no tampering."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import auditdb
from auditdb.operate import doctor
from tests.conftest import Database, run


def own_events(db: Database, verb: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(db.dsn) as conn:
        return conn.execute(
            "select target_id, db_user, old_values, new_values from audit.event"
            " where action = %s order by id", [f"audit.{verb}"],
        ).fetchall()  # fmt: skip


def count(db: Database) -> int:
    with psycopg.connect(db.dsn) as conn:
        row = conn.execute("select count(*) from audit_private.attestation").fetchone()
    assert row is not None
    return int(row[0])


def test_attaching_attests_the_triggers_and_functions_of_the_table(db: Database) -> None:
    rows = db.connect("app_auditor").execute(
        "select kind, count(*), min(attested_by), min(occasion) from audit_private.attestation"
        " where scope = 'membership'::regclass group by kind order by kind").fetchall()  # fmt: skip
    assert [(kind, by, occasion) for kind, _, by, occasion in rows] == [
        ("functions", "app_owner", "attach"),
        ("table", "app_owner", "attach"),
        ("trigger", "app_owner", "attach"),
    ]
    assert dict((kind, n) for kind, n, _, _ in rows)["trigger"] == 4


@pytest.mark.parametrize("statement", [
    "update audit_private.attestation set fact = null",
    "delete from audit_private.attestation",
    "truncate audit_private.attestation",
])  # fmt: skip
def test_not_even_its_owner_rewrites_the_attestation(db: Database, statement: str) -> None:
    conn = db.connect()
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        conn.execute("set session_replication_role = replica")
        conn.execute(statement.encode())


@pytest.mark.parametrize("role", ["app", "app_reader", "app_owner", "app_auditor"])
def test_no_login_role_writes_the_attestation(db: Database, role: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
        db.connect(role).execute(
            "insert into audit_private.attestation (occasion, scope, kind, relation, name)"
            " select 'attach', oid, 'trigger', oid, 'x' from pg_class limit 1"
        )


@pytest.mark.parametrize("role", ["app", "app_reader", "app_auditor"])
def test_only_an_operator_attests(db: Database, role: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.connect(role).execute("select audit.attest('public.membership')")


def test_attesting_what_changed_is_an_event_that_says_what_stood_before(db: Database) -> None:
    conn = db.connect("app_owner")
    run(conn, "alter table membership disable trigger auditdb_delete;"
              "alter table membership enable always trigger auditdb_delete")  # fmt: skip
    run(conn, "select audit.attest('membership')")
    [(target, by, was, stands)] = own_events(db, "attested")
    assert (target, by) == ("public.membership", "app_owner")
    [(name, before)] = was.items()
    assert name == "trigger auditdb_delete on public.membership"
    assert before["xmin"] != stands[name]["xmin"]


def test_enabling_a_trigger_again_by_attaching_is_an_event_too(db: Database) -> None:
    conn = db.connect("app_owner")
    run(conn, "alter table membership disable trigger auditdb_delete")
    run(conn, "select audit.attach('membership', 'membership')")
    assert [target for target, _, _, _ in own_events(db, "attested")] == ["public.membership"] * 2
    # What was found is told before it is mended.
    states = db.connect().execute(
        'select old_values::text ~ \'"enabled": "D"\', new_values::text ~ \'"enabled": "D"\''
        " from audit.event where action = 'audit.attested' order by id"
    )
    assert states.fetchall() == [(False, True), (True, False)]


def test_attaching_again_unchanged_is_no_event(db: Database) -> None:
    run(db.connect("app_owner"), "select audit.attach('membership', 'membership')")
    assert own_events(db, "attested") == []
    assert doctor.diagnose(db.connect("app_owner")) != []  # no key yet, and nothing else
    assert [f.check_name for f in doctor.diagnose(db.connect())] == ["keys"]


def test_remapping_and_detaching_are_no_findings(db: Database) -> None:
    assert db.key
    conn = db.connect("app_owner")
    run(conn, "select audit.attach('workflow', 'workflow', ignore => '{config}')")
    run(conn, "select audit.detach('api_key')")
    assert doctor.diagnose(conn) == []
    run(conn, "select audit.attach('api_key', 'api_key')")
    assert doctor.diagnose(conn) == []


def test_a_rolled_back_attach_attests_nothing(db: Database) -> None:
    before = count(db)
    with db.connect("app_owner").transaction(force_rollback=True) as tx:
        tx.connection.execute("select audit.attach('organization', 'tenant')")
    assert count(db) == before


def test_installing_again_does_not_forgive_a_trigger_that_was_disabled(db: Database) -> None:
    assert db.key
    run(db.connect("app_owner"), "alter table membership disable trigger auditdb_delete;"
        "alter table membership enable always trigger auditdb_delete")  # fmt: skip
    auditdb.install(db.dsn)
    [finding] = doctor.diagnose(db.connect())
    assert finding.check_name == "triggers"


def test_housekeeping_is_not_mistaken_for_tampering(db: Database) -> None:
    assert db.key
    conn = db.connect()
    for statement in (
        "vacuum full pg_trigger", "vacuum (freeze) pg_trigger", "vacuum full pg_proc",
        "vacuum (freeze) pg_proc", "analyze", "reindex table membership", "cluster membership using"
        " membership_pkey", "create index on membership (role)", "vacuum full membership",
        "comment on table membership is 'x'", "grant select on membership to stranger",
        "alter table membership set (fillfactor = 90)", "alter table membership add check (true)",
        "create trigger other after insert on membership for each row"
        " execute function suppress_redundant_updates_trigger()",
    ):  # fmt: skip
        conn.execute(statement.encode())
    auditdb.install(db.dsn)
    conn.execute("select audit.maintain(ahead => 12)")
    assert doctor.diagnose(conn) == []
