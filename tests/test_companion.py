"""An event whose organisation comes later in its transaction: a second one, at the commit."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from auditdb.operate import doctor
from tests.conftest import Database

# As n8n and others do it: a row that says whose another row is comes after that row.
SHARED = """
create table flow (id int primary key, name text, secret_token text, archived_at timestamptz);
create table shared_flow (
    flow_id int references flow on delete cascade, organization_id int references organization,
    primary key (flow_id, organization_id)
);
grant all on flow, shared_flow to app;
select audit.attach('flow', 'workflow', organization =>
    '(select min(s.organization_id) from public.shared_flow as s where s.flow_id = r.id)');
"""
FLOW = "insert into flow (id, name, secret_token) values (1, 'w', 'canary')"
SHARE = "insert into shared_flow values (1, 2)"


@pytest.fixture
def shared(db: Database) -> Database:
    db.connect("app_owner").execute(SHARED)
    return db


def told(db: Database) -> list[tuple[Any, ...]]:
    """Return action, organisation and what it completes of the events of the table."""
    return [
        (e["action"], e["organization_id"], (e["details"] or {}).get("completes"))
        for e in db.events("captured_from = 'public.flow'")
    ]


def left_over(db: Database) -> int:
    row = db.connect().execute("select count(*) from audit_private.unfiled").fetchone()
    assert row is not None
    return int(row[0])


def transaction(db: Database, *statements: str) -> None:
    with psycopg.connect(db.conninfo("app")) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def test_the_organisation_gets_the_event_when_the_row_that_names_it_came(shared: Database) -> None:
    transaction(
        shared,
        "select audit.set_context('7', source => 'web', details => '{\"ip\": \"203.0.113.9\"}')",
        FLOW,
        # What the event says of who acts is said once.
        "select audit.set_context('8', source => 'cli')",
        SHARE,
    )
    first, second = shared.events("captured_from = 'public.flow'")
    assert (first["organization_id"], second["organization_id"]) == (None, "2")
    assert second["details"] == {"ip": "203.0.113.9", "completes": first["id"]}
    own = {"id", "occurred_at", "organization_id", "details"}
    assert {k: v for k, v in first.items() if k not in own} == {
        k: v for k, v in second.items() if k not in own
    }
    assert second["actor_id"] == "7" and second["action"] == "workflow.created"
    assert second["new_values"]["secret_token"] == "[redacted]"
    assert left_over(shared) == 0


def test_an_event_that_has_an_organisation_or_never_gets_one_stays_alone(shared: Database) -> None:
    transaction(shared, FLOW)
    transaction(shared, SHARE)
    transaction(shared, "update flow set name = 'x'")
    assert told(shared) == [("workflow.created", None, None), ("workflow.modified", "2", None)]
    transaction(shared, "select audit.set_context('7', organization_id => '1')",
        "insert into flow (id) values (2)", "insert into shared_flow values (2, 2)")  # fmt: skip
    assert told(shared)[2:] == [("workflow.created", "1", None)]
    assert left_over(shared) == 0


def test_each_event_of_a_row_is_completed_but_not_one_that_was_rolled_back(
    shared: Database,
) -> None:
    transaction(
        shared, FLOW, "savepoint a", "update flow set name = 'no'", "rollback to a",
        "update flow set name = 'x'", SHARE, "update flow set name = 'y'",
    )  # fmt: skip
    first, second = (e["id"] for e in shared.events("captured_from = 'public.flow'")[:2])
    assert told(shared)[2:] == [
        ("workflow.modified", "2", None),
        ("workflow.created", "2", first), ("workflow.modified", "2", second),
    ]  # fmt: skip


def test_a_user_who_comes_before_the_first_membership_is_told_to_that_organisation(
    empty_db: Database,
) -> None:
    empty_db.connect("app_owner").execute(
        """create table organization (id int primary key);
        create table app_user (id int primary key, email text, password_hash text);
        create table membership (organization_id int references organization, user_id int
            references app_user, role text, primary key (organization_id, user_id));
        select audit.attach('organization', 'organization');
        select audit.attach('membership', 'membership');
        select audit.attach('app_user', 'user');
        insert into organization values (1);
        begin;
        insert into app_user values (1, 'a@x', 'h');
        update app_user set email = 'b@x', password_hash = 'g';
        insert into membership values (1, 1, 'owner');
        commit;
        begin;
        insert into app_user values (2, 'c@x', 'h');
        delete from app_user where id = 2;
        commit"""
    )
    assert [(e["action"], e["organization_id"]) for e in empty_db.events()][1:] == [
        ("user.created", None), ("auth.email_changed", None), ("auth.password_changed", None),
        ("membership.added", "1"),
        ("user.created", "1"), ("auth.email_changed", "1"), ("auth.password_changed", "1"),
        ("user.created", None), ("user.deleted", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "setting",
    [
        "set constraints all immediate",
        "set local session_replication_role = replica",
        "set local row_security = off",
        "set local lock_timeout = '1ms'",
        "set local search_path = pg_temp",
        "set local role app",
    ],
)
def test_no_setting_of_the_session_keeps_the_second_event_away(
    shared: Database, setting: str
) -> None:
    with psycopg.connect(shared.dsn) as conn:
        conn.execute(setting.encode())
        conn.execute("insert into public.flow (id) values (1)")
        conn.execute("insert into public.shared_flow values (1, 2)")
    assert [organization for _, organization, _ in told(shared)] == [None, "2"]
    assert left_over(shared) == 0


def test_a_prepared_transaction_is_completed_before_it_is_prepared(shared: Database) -> None:
    conn = shared.connect("app")
    conn.execute("begin")
    conn.execute(FLOW)
    conn.execute(SHARE)
    conn.execute("prepare transaction 'auditdb-late'")
    conn.execute("commit prepared 'auditdb-late'")
    assert [organization for _, organization, _ in told(shared)] == [None, "2"]


def test_a_table_that_changed_since_it_was_attached_is_completed_too(shared: Database) -> None:
    shared.connect("app_owner").execute("alter table flow add note text")
    transaction(shared, FLOW, SHARE)
    first, second = shared.events("captured_from = 'public.flow'")
    assert second["organization_id"] == "2" and second["details"]["completes"] == first["id"]


@pytest.mark.parametrize(
    "body",
    [
        "raise exception 'no'",
        "raise assert_failure",
        "raise sqlstate 'AU001'",
        "perform 1 / 0",
        "return repeat('x', 201)",
        "return null",
        "perform set_config('search_path', 'evil', false), pg_advisory_lock(42); return null",
    ],
)
def test_whatever_the_lookup_does_at_the_commit_the_action_is_committed(
    db: Database, body: str
) -> None:
    owner = db.connect("app_owner")
    owner.execute(
        """create table flow (id int primary key, name text);
        create function of_flow(id int) returns text language plpgsql as 'begin return null; end';
        grant all on flow to app;
        select audit.attach('flow', 'workflow', organization => 'public.of_flow(r.id)')"""
    )
    with psycopg.connect(db.conninfo("app")) as conn:
        conn.execute("insert into flow values (1, 'w')")
        owner.execute(
            f"create or replace function of_flow(id int) returns text language plpgsql as"
            f" $$begin {body}; return 'x'; end$$".encode()
        )
        conn.commit()
        assert conn.execute("show search_path").fetchone() == ('"$user", public',)
        held = "select count(*) from pg_locks where locktype = 'advisory'"
        assert conn.execute(held).fetchone() == (0,)
    assert told(db) == [("workflow.created", None, None)]
    assert left_over(db) == 0


def test_only_columns_that_the_way_takes_are_put_aside_and_no_secret(shared: Database) -> None:
    with psycopg.connect(shared.dsn) as conn:
        conn.execute("create table seen (late jsonb)")
        conn.execute(
            "create function see() returns trigger language plpgsql security definer as"
            " 'begin insert into public.seen values (new.late); return new; end'"
        )
        conn.execute(
            "create trigger see before insert on audit_private.unfiled"
            " for each row execute function public.see()"
        )
        conn.execute(FLOW.encode())
        conn.execute("insert into flow (id) values (2)")
        seen = [row[0]["inputs"] for row in conn.execute("select late from seen")]
    assert seen == [["1"], ["2"]]


def test_transactions_that_are_serializable_do_not_fail_of_it(shared: Database) -> None:
    one, two = shared.connect("app"), shared.connect("app")
    for conn in (one, two):
        conn.execute("begin isolation level serializable")
    one.execute("insert into flow (id) values (1)")
    two.execute("insert into flow (id) values (2)")
    one.execute("commit")
    two.execute("commit")
    assert told(shared) == [("workflow.created", None, None)] * 2


# Where the lookup itself reads other pages of the application's tables than the other one writes.
FAR = (10, 900_000)
FILL = """
select audit.detach('flow');
insert into flow select generate_series(1000, 4000);
insert into shared_flow select id, 1 from flow;
analyze flow, shared_flow;
"""


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("end", ["commit", "prepare transaction '{0}'; commit prepared '{0}'"])
def test_transactions_at_once_are_completed_whatever_their_isolation(
    shared: Database, level: str, end: str
) -> None:
    owner = shared.connect("app_owner")
    for statement in (FILL + SHARED.partition(";\ngrant all")[2].partition(";")[2]).split(";"):
        owner.execute(statement.encode())
    pairs = [(shared.connect("app"), key) for key in FAR]
    for conn, _ in pairs:
        conn.execute(f"begin isolation level {level}".encode())
        conn.execute("select from organization")
    for conn, key in pairs:
        conn.execute("insert into flow (id) values (%s)", (key,))
        conn.execute("insert into shared_flow values (%s, 2)", (key,))
        # Both look at what the other one goes on to write beside.
        conn.execute("set constraints all immediate")
    for conn, _ in pairs:
        conn.execute("insert into workflow (organization_id, name) values (1, 'x')")
    for conn, key in pairs:
        for statement in end.format(f"auditdb-{key}").split(";"):
            conn.execute(statement.encode())
    first, other = (e["id"] for e in shared.events("organization_id is null"))
    assert told(shared) == [
        ("workflow.created", None, None), ("workflow.created", "2", first),
        ("workflow.created", None, None), ("workflow.created", "2", other),
    ]  # fmt: skip


def test_constraints_that_are_set_before_the_organisation_comes_do_not_lose_it(
    shared: Database,
) -> None:
    early = ("set constraints all immediate", "set constraints all deferred")
    transaction(
        shared, FLOW, "insert into flow (id) values (2), (3)", *early, SHARE, *early,
        "insert into shared_flow values (2, 1)", "Set Constraints All Immediate",
    )  # fmt: skip
    assert [organization for _, organization, _ in told(shared)] == [None, None, None, "2", "1"]
    # One message has one time of its statement: nothing is looked at for ever.
    shared.connect("app").execute(
        "insert into flow (id) values (4); set constraints all immediate;"
        " insert into shared_flow values (4, 1); insert into flow (id) values (5)"
    )
    assert [organization for _, organization, _ in told(shared)][5:] == [None, None, "1"]
    assert left_over(shared) == 0


def test_what_a_savepoint_took_back_names_nothing(shared: Database) -> None:
    transaction(
        shared, "set constraints all immediate", "savepoint a", FLOW, "release a",
        "savepoint b", "insert into flow (id) values (2)", "insert into shared_flow values (2, 1)",
        "rollback to b", "savepoint c", "insert into shared_flow values (1, 1)", "rollback to c",
        "select 1", "savepoint d", SHARE, "release d",
    )  # fmt: skip
    assert told(shared) == [
        ("workflow.created", None, None),
        ("workflow.created", "2", shared.events()[0]["id"]),
    ]


def test_a_publication_of_all_tables_takes_what_is_put_aside(shared: Database) -> None:
    shared.connect().execute("create publication everything for all tables")
    transaction(shared, FLOW, SHARE)
    assert [organization for _, organization, _ in told(shared)] == [None, "2"]


def test_a_bulk_of_rows_without_organisation_is_committed(shared: Database) -> None:
    transaction(
        shared, "insert into flow (id) select generate_series(1, 3000)",
        "insert into shared_flow select id, 1 from flow where id % 2 = 0",
    )  # fmt: skip
    rows = shared.connect().execute(
        "select count(*), count(organization_id), count(distinct details ->> 'completes')"
        " from audit.event where captured_from = 'public.flow'"
    )
    assert rows.fetchone() == (4500, 1500, 1500)


def test_one_trigger_waits_for_the_commit_whatever_the_number_of_rows(shared: Database) -> None:
    waiting = "select count(*), count(*) filter (where is_first) from audit_private.unfiled"
    with psycopg.connect(shared.dsn) as conn:
        conn.execute("savepoint a")
        conn.execute("insert into flow (id) values (1), (2)")
        conn.execute("rollback to a")
        conn.execute("insert into flow (id) select generate_series(3, 40)")
        conn.execute("savepoint b")
        conn.execute("insert into flow (id) values (41)")
        assert conn.execute(waiting).fetchone() == (39, 1)
        conn.execute("insert into shared_flow select id, 1 from flow")
    assert len([o for _, o, _ in told(shared) if o == "1"]) == 39
    assert left_over(shared) == 0


def test_who_detaches_the_table_in_between_keeps_nobody_from_committing(shared: Database) -> None:
    with psycopg.connect(shared.dsn) as conn:
        conn.execute(FLOW.encode())
        conn.execute(SHARE.encode())
        conn.execute("set constraints all deferred")
        conn.execute("drop function audit_private.organization_7_late, audit_private.read_7")
    assert [organization for _, organization, _ in told(shared)] == [None]


def test_the_doctor_finds_the_trigger_missing_and_puts_it_back(shared: Database) -> None:
    conn = shared.connect()
    for harm in (
        "alter table audit_private.unfiled disable trigger complete_event",
        "drop trigger complete_event on audit_private.unfiled",
        "alter table audit_private.unfiled no force row level security",
    ):
        conn.execute(harm.encode())
        found = [f for f in doctor.diagnose(conn) if f.object == "audit_private.unfiled"]
        assert [f.severity for f in found] == ["critical"], harm
        conn.execute(found[0].mend.encode())
        assert [f for f in doctor.diagnose(conn) if f.object == "audit_private.unfiled"] == []
    transaction(shared, FLOW, SHARE)
    assert [organization for _, organization, _ in told(shared)] == [None, "2"]
