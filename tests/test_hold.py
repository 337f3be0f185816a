"""Legal hold: retention keeps what is held, whatever is forced, and says so."""

from __future__ import annotations

import json
import threading

import psycopg
import pytest
from click.testing import CliRunner, Result

from auditdb.cli import main
from auditdb.errors import Refused
from auditdb.operate import doctor
from auditdb.operate.maintain import maintain
from auditdb.operator import hold_organization, list_holds, release_organization
from tests.conftest import Database
from tests.test_maintenance import yesterday

HELD = "keep 2020-03: organisation acme is under legal hold, and it has events of then"


def old(db: Database, organization: str = "acme") -> None:
    """Write events of March of an organisation and of April of another, in their months."""
    with psycopg.connect(db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.execute(
            "insert into audit.event (id, occurred_at, action, result, actor_type, source,"
            " organization_id) select m - 100, make_date(2020, m, 15), 'test.old', 'success',"
            " 'system', 'test', case m when 3 then %s else 'other' end"
            " from generate_series(3, 4) as m",
            [organization],
        )
        conn.execute("select audit_private.begin_series('restored', audit_private.last_id())")
    yesterday(db)
    maintain(db.connect("app_owner"))


def run(db: Database, role: str, *args: str) -> Result:
    return CliRunner().invoke(main, ["--dsn", db.conninfo(role), *args], catch_exceptions=False)


@pytest.mark.parametrize("force", [False, True])
def test_a_month_that_holds_events_of_a_held_organisation_stays(
    empty_db: Database, force: bool
) -> None:
    old(empty_db)
    auditor, owner = empty_db.connect("app_auditor"), empty_db.connect("app_owner")
    assert hold_organization(auditor, "acme", reason="case 1") == 1
    assert hold_organization(auditor, "acme", reason="case 1") == 1
    assert hold_organization(auditor, "acme", reason="case 2") == 1
    told = maintain(owner, keep="24 months", force=force, dry_run=True)
    assert told == [f"would {HELD}", "would drop 2020-04: 1 events"]
    assert maintain(owner, keep="24 months", force=force) == [HELD, "dropped 2020-04: 1 events"]
    assert empty_db.actions("organization_id = 'acme'") == ["test.old"]
    release_organization(auditor, "acme", reason="case 1")
    assert maintain(owner, keep="24 months", force=force) == [HELD]
    release_organization(auditor, "acme", reason="case 2")
    assert maintain(owner, keep="24 months", force=force) == ["dropped 2020-03: 1 events"]
    events = empty_db.connect().execute(
        "select action, target_id, old_values, new_values, db_user from audit.event"
        " where action like 'audit.organization%' order by id"
    )
    held, released = "audit.organization_held", "audit.organization_released"
    assert events.fetchall() == [
        (held, "acme", None, {"reason": "case 1"}, "app_auditor"),
        (held, "acme", None, {"reason": "case 2"}, "app_auditor"),
        (released, "acme", {"reason": "case 1"}, None, "app_auditor"),
        (released, "acme", {"reason": "case 2"}, None, "app_auditor"),
    ]


def test_several_that_are_held_are_told_in_a_line(empty_db: Database) -> None:
    old(empty_db)
    auditor = empty_db.connect("app_auditor")
    for name in ("acme", "other", "strange"):
        hold_organization(auditor, name, reason="case 1")
    fill_both = "insert into audit.event (id, occurred_at, action, result, actor_type, source," \
                " organization_id) values (-1, '2020-04-02', 'test.old', 'success', 'system'," \
                " 'test', 'acme')"  # fmt: skip
    empty_db.connect().execute(f"set role audit_owner; {fill_both}".encode())
    lines = maintain(empty_db.connect("app_owner"), keep="24 months", force=True)
    assert lines == [HELD, "keep 2020-04: 2 organisations, acme among them, are under legal hold, "
                           "and it has events of then"]  # fmt: skip


def test_a_hold_waits_for_the_maintenance_that_has_counted(empty_db: Database) -> None:
    old(empty_db)
    owner, auditor = empty_db.connect("app_owner"), empty_db.connect("app_auditor")
    admin, reader = empty_db.connect(), empty_db.connect()
    asked = "select from pg_locks where relation = 'audit.event'::regclass and not granted"
    told: list[list[str]] = []
    held: list[int] = []
    maintaining = threading.Thread(
        target=lambda: told.append(maintain(owner, keep="24 months", force=True))
    )
    holding = threading.Thread(
        target=lambda: held.append(hold_organization(auditor, "acme", reason="case 1"))
    )
    with reader.transaction():
        reader.execute("lock table audit.event in access share mode")
        maintaining.start()
        while not admin.execute(asked).fetchall():
            assert maintaining.is_alive()
        holding.start()
        holding.join(1)
    maintaining.join(30)
    holding.join(30)
    assert told == [["dropped 2020-03: 1 events", "dropped 2020-04: 1 events"]]
    # It says what there is, and not what was.
    assert held == [0]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_transaction_that_began_before_a_hold_drops_nothing(
    empty_db: Database, isolation: str
) -> None:
    old(empty_db)
    owner = empty_db.connect("app_owner")
    drop = "select * from audit.maintain(keep => '24 months', force => true)"
    with pytest.raises(psycopg.Error, match=f"months cannot be dropped under {isolation}"):
        with owner.transaction():
            owner.execute(f"set transaction isolation level {isolation}".encode())
            owner.execute("select")
            owner.execute("select count(*) from audit.legal_hold")
            hold_organization(empty_db.connect("app_auditor"), "acme", reason="case 1")
            owner.execute(drop)
    assert empty_db.actions("organization_id is not null") == ["test.old"] * 2


@pytest.mark.parametrize("role", ["app_owner", "app", "app_reader"])
def test_only_auditors_hold_and_release(empty_db: Database, role: str) -> None:
    conn = empty_db.connect(role)
    for function in (hold_organization, release_organization):
        with pytest.raises(Refused, match="audit_auditor"):
            function(conn, "acme", reason="case 1")
    for statement in ("insert into audit.legal_hold values ('acme', 'x')",
                      "delete from audit.legal_hold", "truncate audit.legal_hold",
                      "update audit.legal_hold set organization_id = 'x'"):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(statement.encode())


def test_who_erases_is_told_who_is_held(empty_db: Database) -> None:
    auditor = empty_db.connect("app_auditor")

    def held() -> list[bool]:
        with psycopg.connect(empty_db.dsn) as conn:
            conn.execute("set role audit_owner")
            query = "select audit_private.is_held(o) from unnest('{acme,other,null}'::text[]) as o"
            return [is_held for (is_held,) in conn.execute(query.encode())]

    assert held() == [False, False, False]
    for reason in ("case 1", "case 2"):
        hold_organization(auditor, "acme", reason=reason)
    assert held() == [True, False, False]
    release_organization(auditor, "acme", reason="case 1")
    assert held() == [True, False, False]
    release_organization(auditor, "acme", reason="case 2")
    assert held() == [False, False, False]


def test_who_may_write_every_table_releases_nobody(empty_db: Database) -> None:
    hold_organization(empty_db.connect("app_auditor"), "acme", reason="case 1")
    empty_db.connect().execute("grant pg_write_all_data, pg_read_all_data to stranger")
    try:
        conn = empty_db.connect("stranger")
        assert conn.execute("delete from audit.legal_hold").rowcount == 0
    finally:
        empty_db.connect().execute("revoke pg_write_all_data, pg_read_all_data from stranger")
    assert len(list_holds(empty_db.connect("app_owner"))) == 1


def test_a_release_names_the_reason(empty_db: Database) -> None:
    auditor = empty_db.connect("app_auditor")
    with pytest.raises(Refused, match=r"not under legal hold for this reason.*not held at all"):
        release_organization(auditor, "acme", reason="case 1")
    hold_organization(auditor, "acme", reason="case 1")
    with pytest.raises(Refused, match="It is held for: case 1"):
        release_organization(auditor, "acme", reason="case 2")
    for reason in ("", "x" * 201):
        with pytest.raises(Refused, match="a reason of 1 to 200 characters"):
            hold_organization(auditor, "acme", reason=reason)
    assert [h.reason for h in list_holds(auditor)] == ["case 1"]


def test_the_command_says_which_interval_it_takes(db: Database) -> None:
    done = run(db, "app_owner", "visible", "1", "--keep", "3 minutes")
    assert (done.exit_code, done.output) == (
        1,
        "Error: viewers cannot see 00:03:00: it is not from 1 hour to 1000 years. "
        "Give an interval such as 30 days\n",
    )


def test_the_command_holds_lists_and_releases(db: Database) -> None:
    db.connect("app").execute("select audit.record_event('auth.login', '1')")
    told = "1 is under legal hold: 1 month with events of it\n"
    assert run(db, "app_auditor", "hold", "1", "--reason", "case 1").output == told
    assert "no event of it" in run(db, "app_auditor", "hold", "x", "--reason", "case 2").output
    listed = run(db, "app_owner", "hold").output.splitlines()
    assert [line.partition(" since ")[0] for line in listed] == [
        "1 is under legal hold", "x is under legal hold"]  # fmt: skip
    assert listed[0].endswith("by app_auditor: case 1")
    assert [h["reason"] for h in json.loads(run(db, "app_owner", "hold", "--json").output)] == [
        "case 1", "case 2"]  # fmt: skip
    status = run(db, "app_owner", "status")
    assert set(listed) <= set(status.output.splitlines())
    found = {(f.severity, f.object, f.problem.partition(" since ")[0])
             for f in doctor.diagnose(db.connect()) if f.check_name == "holds"}  # fmt: skip
    assert found == {
        ("notice", "1", "is under legal hold"),
        ("warning", "x", "is under legal hold, and the log has no event of it"),
    }
    for name, case in (("1", "case 1"), ("x", "case 2")):
        done = run(db, "app_auditor", "hold", name, "--reason", case, "--release")
        assert (done.exit_code, done.output) == (0, f"{name} is released\n")
    assert run(db, "app_owner", "hold").output == "no legal hold\n"
    for wrong in (["hold", "1"], ["hold", "--reason", "x"], ["hold", "--release"]):
        assert run(db, "app_auditor", *wrong).exit_code == 2
