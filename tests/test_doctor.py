"""The doctor is silent for a healthy log, and finds exactly what was broken and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

import auditdb
from auditdb.operate import doctor
from auditdb.operate.doctor import Finding
from tests.conftest import Database, run

SUPERUSER = None
OWNER = "app_owner"


@dataclass(frozen=True)
class Damage:
    """One thing broken, by whom, and the finding that must come of it."""

    sql: str
    check: str
    object: str
    problem: str
    by: str | None = SUPERUSER
    severity: str = "critical"
    # Who runs the command that the finding names; it must leave nothing to be found.
    mended_by: str | None = SUPERUSER


TRIGGERS = {
    "a_trigger_disabled_by_the_owner": Damage(
        "alter table membership disable trigger auditdb_update",
        "triggers", "public.membership", "auditdb_update disabled", by=OWNER, mended_by=OWNER,
    ),
    "a_trigger_disabled_and_enabled_in_one_transaction": Damage(
        "alter table membership disable trigger auditdb_update;"
        "alter table membership enable always trigger auditdb_update",
        "triggers", "public.membership", "auditdb_update altered and put back",
        by=OWNER, mended_by=OWNER,
    ),
    "all_triggers_downgraded_as_by_pg_restore": Damage(
        "alter table membership disable trigger all; alter table membership enable trigger all",
        "triggers", "public.membership",
        "auditdb_delete, auditdb_insert, auditdb_truncate, auditdb_update downgraded from",
        mended_by=OWNER,
    ),
    "a_trigger_for_replicas_only": Damage(
        "alter table api_key enable replica trigger auditdb_insert",
        "triggers", "public.api_key", "auditdb_insert downgraded to ENABLE REPLICA",
        by=OWNER, mended_by=OWNER,
    ),
    "a_trigger_dropped": Damage(
        "drop trigger auditdb_delete on api_key",
        "triggers", "public.api_key", "auditdb_delete missing", by=OWNER, mended_by=OWNER,
    ),
    "a_trigger_dropped_and_created_again": Damage(
        """
        do $$
        declare
            _definition text := (select pg_get_triggerdef(oid) from pg_trigger
                where tgrelid = 'membership'::regclass and tgname = 'auditdb_delete');
        begin
            drop trigger auditdb_delete on membership;
            execute _definition;
            alter table membership enable always trigger auditdb_delete;
        end
        $$
        """,
        "triggers", "public.membership", "auditdb_delete dropped and created again",
        mended_by=OWNER,
    ),
    "a_capture_function_on_another_table": Damage(
        """
        create table lookalike (like membership);
        do $$
        begin
            execute 'create trigger auditdb_insert after insert on lookalike for each row '
                'execute function ' || (select tgfoid::regprocedure from pg_trigger
                    where tgrelid = 'membership'::regclass and tgname = 'auditdb_insert');
        end
        $$
        """,
        "triggers", "public.lookalike", "auditdb_insert calls audit_private.capture_1_insert()",
    ),
    "a_capture_function_of_another_operation": Damage(
        """
        do $$
        begin
            execute 'create trigger forge after insert on membership for each row execute function '
                || (select replace(tgfoid::regprocedure::text, 'insert', 'delete') from pg_trigger
                    where tgrelid = 'membership'::regclass and tgname = 'auditdb_insert');
        end
        $$
        """,
        "triggers", "public.membership", "forge calls audit_private.capture_1_delete()",
    ),
    "a_trigger_narrowed_by_a_condition": Damage(
        """
        do $$
        declare
            _function text := (select tgfoid::regprocedure::text from pg_trigger
                where tgrelid = 'membership'::regclass and tgname = 'auditdb_delete');
        begin
            execute 'create or replace trigger auditdb_delete after delete on membership
                for each row when (old.role <> ''OWNER'') execute function ' || _function;
        end
        $$
        """,
        "triggers", "public.membership", "auditdb_delete calling something else",
    ),
}  # fmt: skip

GUARDS = {
    "a_guard_disabled": Damage(
        "alter table audit.event_default disable trigger refuse_change",
        "guards", "audit.event_default", "refuse_change disabled", mended_by=OWNER,
    ),
    "a_guard_disabled_and_enabled_on_the_parent": Damage(
        "alter table only audit.event disable trigger refuse_truncate;"
        "alter table only audit.event enable always trigger refuse_truncate",
        "guards", "audit.event", "refuse_truncate altered and put back", mended_by=OWNER,
    ),
    "a_guard_dropped": Damage(
        "drop trigger refuse_truncate on audit.event_default",
        "guards", "audit.event_default", "refuse_truncate missing", mended_by=OWNER,
    ),
    "the_guard_of_the_attestation_disabled": Damage(
        "alter table audit_private.attestation disable trigger refuse_change",
        "guards", "audit_private.attestation", "refuse_change disabled", mended_by=OWNER,
    ),
    "row_level_security_off_on_a_partition": Damage(
        "alter table audit.event_default disable row level security",
        "guards", "audit.event_default", "row-level security is off", mended_by=OWNER,
    ),
    "row_level_security_off_on_the_keys": Damage(
        "alter table audit_private.signing_key disable row level security",
        "guards", "audit_private.signing_key", "row-level security is off", mended_by=OWNER,
    ),
    "row_level_security_off_on_the_mappings": Damage(
        "alter table audit_private.attachment disable row level security",
        "guards", "audit_private.attachment", "row-level security is off", mended_by=OWNER,
    ),
    "row_level_security_not_forced_on_the_parent": Damage(
        "alter table audit.event no force row level security",
        "guards", "audit.event", "row-level security is not forced", mended_by=OWNER,
    ),
}  # fmt: skip

LOG = {
    "a_rule_that_swallows_events": Damage(
        "create rule swallow as on insert to audit.event_default do instead nothing",
        "log", "audit.event_default", "has rule swallow",
    ),
    "a_foreign_trigger_on_the_log": Damage(
        "create function public.swallow() returns trigger language plpgsql"
        " as 'begin return null; end';"
        "create trigger swallow before insert on audit.event"
        " for each row execute function public.swallow()",
        "log", "audit.event", "has trigger swallow",
    ),
    "a_constraint_that_refuses_events": Damage(
        "alter table audit.event add constraint small check (id < 10000000)",
        "log", "audit.event", "has constraint small",
    ),
    "a_unique_index_that_refuses_events": Damage(
        "create unique index once on audit.event_default (target_id)",
        "log", "audit.event_default", "index audit.once is none of auditdb's, and unique",
    ),
    "an_index_of_somebody_s": Damage(
        "create index mine on audit.event (organization_id, action)",
        "indexes", "audit.event", "index audit.mine is none of auditdb's", severity="notice",
    ),
    "a_unique_index_on_a_table_of_the_log": Damage(
        "create unique index mine on audit_private.attachment (kind, target)",
        "indexes", "audit_private.attachment", "index audit_private.mine is none of auditdb's",
    ),
    "a_policy_that_opens_the_log": Damage(
        "create policy open on audit.event for select to public using (true)",
        "log", "audit.event", "policy open is none of auditdb's",
    ),
    "a_view_without_security_invoker": Damage(
        "alter view audit.auth_log reset (security_invoker)",
        "views", "audit.auth_log", "reads the log with its owner's rights",
    ),
    "a_view_of_the_application_over_the_log": Damage(
        "create view public.everything as select * from audit.event",
        "views", "public.everything", "reads the log with its owner's rights",
    ),
    "a_copy_of_the_log": Damage(
        "create materialized view public.copied as select * from audit.log",
        "views", "public.copied", "copies the log",
    ),
    "a_table_of_the_log_given_away": Damage(
        "alter table audit.action owner to app_owner",
        "ownership", "table audit.action", "belongs to app_owner, not to audit_owner",
    ),
    "a_function_that_is_none_of_auditdb": Damage(
        "set role audit_owner;"
        "create function audit.extra() returns int language sql as 'select 1'; reset role",
        "functions", "audit.extra()", "is none of auditdb's",
    ),
    "a_capture_function_altered_and_put_back": Damage(
        "do $$ begin execute (select format('alter function %s cost 5;"
        " alter function %1$s cost 100', tgfoid::regprocedure) from pg_trigger"
        " where tgrelid = 'api_key'::regclass"
        " and tgname = 'auditdb_insert'); end $$",
        "functions", "audit_private.capture_", "was altered or granted, and put back",
        severity="warning",
        mended_by=OWNER,
    ),
    "a_capture_function_that_does_nothing": Damage(
        "do $$ begin execute (select format('create or replace function %s returns trigger language"
        " plpgsql stable security definer as ''begin return null; end''', tgfoid::regprocedure)"
        " from pg_trigger where tgrelid = 'api_key'::regclass"
        " and tgname = 'auditdb_insert'); end $$",
        "functions", "audit_private.capture_", "is not as it was installed", mended_by=OWNER,
    ),
}  # fmt: skip

GRANTS = {
    "a_table_opened_to_a_stranger": Damage(
        "grant select on audit.event to stranger",
        "grants", "SELECT on table audit.event to stranger", "was not granted by auditdb",
    ),
    "a_column_opened": Damage(
        "grant select (secret) on audit_private.signing_key to app",
        "grants", "SELECT (secret) on table audit_private.signing_key to app",
        "was not granted by auditdb",
    ),
    "a_partition_opened": Damage(
        "grant insert on audit.event_default to audit_writer",
        "grants", "INSERT on table audit.event_default to audit_writer", "was not granted",
    ),
    "a_function_opened_to_all": Damage(
        "grant execute on function audit_private.refuse_change() to public",
        "grants", "EXECUTE on function audit_private.refuse_change() to public", "was not granted",
    ),
    "objects_to_come_opened": Damage(
        "alter default privileges for role audit_owner in schema audit"
        " grant select on tables to app",
        "grants", "SELECT on future tables of audit_owner to app", "was not granted by auditdb",
    ),
    "functions_to_come_opened_to_all": Damage(
        "alter default privileges for role audit_owner grant execute on functions to public",
        "grants", "EXECUTE on future functions of audit_owner to public", "was not granted",
    ),
    "the_schema_opened": Damage(
        "grant create on schema audit to app_owner",
        "grants", "CREATE on schema audit to app_owner", "was not granted by auditdb",
    ),
}  # fmt: skip

TABLES = {
    "a_table_that_inherits": Damage(
        "create table workflow_archive () inherits (workflow)",
        "tables", "public.workflow_archive", "inherits from public.workflow and is not captured",
        by=OWNER, mended_by=OWNER,
    ),
    "a_table_in_other_hands": Damage(
        "alter table workflow owner to postgres",
        "tables", "public.workflow", "belongs to postgres, and belonged to app_owner",
        severity="notice",
    ),
    "a_column_added": Damage(
        "alter table membership add note text",
        "mappings", "public.membership", "column note is new", by=OWNER, severity="warning",
        mended_by=OWNER,
    ),
    "a_column_retyped": Damage(
        "alter table membership alter role type varchar(20)",
        "mappings", "public.membership", "column role is character varying(20), was text", by=OWNER,
        severity="warning", mended_by=OWNER,
    ),
    "a_mapped_column_renamed": Damage(
        "alter table api_key rename user_id to owner_id",
        "mappings", "public.api_key",
        "column owner_id is new, column user_id is gone; subject: there is no column user_id",
        by=OWNER, severity="warning", mended_by=OWNER,
    ),
    "a_lookup_that_may_no_longer_be_read": Damage(
        "revoke select (id, organization_id) on workflow from audit_mapper",
        "mappings", "public.workflow_step", "organization: permission denied for table workflow",
        by=OWNER, severity="warning", mended_by=OWNER,
    ),
    "a_lookup_hidden_by_row_level_security": Damage(
        "alter table workflow enable row level security",
        "mappings", "public.workflow", "no policy lets audit_mapper read it", by=OWNER,
        severity="warning", mended_by=OWNER,
    ),
    "a_lookup_hidden_by_a_restrictive_policy": Damage(
        "alter table workflow enable row level security;"
        " create policy own on workflow using (true);"
        " create policy shown on workflow as restrictive for select using (name <> 'hidden')",
        "mappings", "public.workflow", "the restrictive policy shown may hide rows", by=OWNER,
        severity="warning", mended_by=OWNER,
    ),
    "a_rule_for_admins_that_fails": Damage(
        "revoke select (role) on membership from audit_mapper",
        "readers", "public.membership", "its rule for admins fails: permission denied", by=OWNER,
        mended_by=OWNER,
    ),
    "a_table_whose_events_are_nobody_s": Damage(
        "create table parcel (id int primary key); select audit.attach('parcel', 'parcel')",
        "tenants", "public.parcel", "its events belong to no organisation", by=OWNER,
        severity="notice", mended_by=OWNER,
    ),
    "events_without_a_month": Damage(
        "set role audit_owner; insert into audit.event (occurred_at, action, result, actor_type,"
        " source) values ('2001-01-01', 'a.b', 'success', 'user', 'web'); reset role",
        "partitions", "audit.event_default", "holds 1 events", severity="warning", mended_by=OWNER,
    ),
    "months_running_out": Damage(
        """
        do $$
        declare
            _month text := 'audit.event_' || to_char(now() at time zone 'UTC' + interval '2 months',
                'YYYY_MM');
        begin
            perform audit_private.close_attestation(_month::regclass, 'test');
            execute 'drop table ' || _month;
        end
        $$
        """,
        "partitions", "audit.event", "has no partition for", severity="warning", mended_by=OWNER,
    ),
    "an_old_key": Damage(
        "update audit_private.signing_key set created_at = now() - interval '100 days'",
        "keys", "key ", "is 100 days old", severity="warning", mended_by=OWNER,
    ),
    "no_key": Damage(
        "delete from audit_private.signing_key", "keys", "audit_private.signing_key",
        "there is no signing key",
        severity="notice", mended_by=OWNER,
    ),
}  # fmt: skip

# Roles belong to the whole server: broken and mended in a transaction that is rolled back.
ROLES = {
    "a_member_of_the_owner": Damage(
        "grant audit_owner to stranger", "roles", "stranger", "is a member of audit_owner",
    ),
    "a_member_of_the_owner_through_a_group": Damage(
        "create role crew; grant audit_owner to crew; grant crew to app",
        "roles", "crew", "is a member of audit_owner",
    ),
    "a_member_of_the_mapper": Damage(
        "grant audit_mapper to app", "roles", "app", "is a member of audit_mapper",
    ),
    "a_mapper_with_rights_of_the_application": Damage(
        "grant app_owner to audit_mapper", "roles", "audit_mapper", "is a member of app_owner",
    ),
    "an_owner_that_may_log_in": Damage(
        "alter role audit_owner login", "roles", "audit_owner", "may log in",
    ),
    "a_login_past_row_level_security": Damage(
        "alter role app bypassrls", "logins", "app", "bypasses row-level security",
        severity="warning",
    ),
    "a_login_that_reads_all_data": Damage(
        "grant pg_read_all_data to app", "logins", "app", "is a member of pg_read_all_data",
        severity="warning",
    ),
}  # fmt: skip


def diagnose(db: Database, role: str | None = SUPERUSER) -> list[Finding]:
    return doctor.diagnose(db.connect(role))


def assert_found(findings: list[Finding], damage: Damage) -> Finding:
    assert [(f.check_name, f.severity) for f in findings] == [(damage.check, damage.severity)]
    finding = findings[0]
    assert finding.object.startswith(damage.object)
    assert damage.problem in finding.problem
    assert finding.why.endswith(".")
    return finding


@pytest.fixture
def healthy(db: Database) -> Database:
    """A database in use, with a key: what the doctor has nothing to say of."""
    assert db.key
    return db


def test_a_healthy_log_is_silent_for_all_who_may_ask(healthy: Database) -> None:
    for role in (SUPERUSER, "app_owner", "app_auditor"):
        assert diagnose(healthy, role) == []


def test_a_log_without_any_application_is_silent(empty_db: Database) -> None:
    assert diagnose(empty_db) == []


@pytest.mark.parametrize("role", ["app", "app_reader", "stranger"])
def test_roles_of_the_application_may_not_ask(healthy: Database, role: str) -> None:
    with pytest.raises(auditdb.Refused, match="permission denied"):
        diagnose(healthy, role)


@pytest.mark.parametrize("damage", [
    pytest.param(damage, id=name)
    for name, damage in (TRIGGERS | GUARDS | LOG | GRANTS | TABLES).items()
])  # fmt: skip
def test_exactly_the_damage_is_found_and_mended(healthy: Database, damage: Damage) -> None:
    run(healthy.connect(damage.by), damage.sql)
    finding = assert_found(diagnose(healthy, "app_auditor"), damage)
    run(healthy.connect(damage.mended_by), finding.mend)
    assert diagnose(healthy) == []


@pytest.mark.parametrize("damage", [
    pytest.param(damage, id=name)
    for name, damage in (TRIGGERS | GUARDS | LOG | TABLES).items()
])  # fmt: skip
def test_fix_mends_what_is_safe_and_nothing_else(healthy: Database, damage: Damage) -> None:
    run(healthy.connect(damage.by), damage.sql)
    findings = diagnose(healthy)
    conn = healthy.connect(damage.mended_by)
    done = doctor.fix(conn, findings)
    assert done == [f.mend for f in findings if f.fixable]
    assert diagnose(healthy) == [f for f in findings if not f.fixable]


@pytest.mark.parametrize("damage", [pytest.param(d, id=name) for name, d in ROLES.items()])
def test_a_dangerous_role_is_found_and_mended(healthy: Database, damage: Damage) -> None:
    with rolled_back(healthy) as conn:
        run(conn, damage.sql)
        finding = assert_found(doctor.diagnose(conn), damage)
        run(conn, finding.mend)
        assert doctor.diagnose(conn) == []


def test_one_who_reads_all_data_reads_no_key_and_no_event(healthy: Database) -> None:
    with rolled_back(healthy) as conn:
        run(conn, "grant pg_read_all_data, pg_write_all_data to app; set role app")
        for table in ("audit_private.signing_key", "audit.event"):
            assert conn.execute(f"select * from {table}".encode()).fetchall() == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            run(conn, "insert into audit_private.signing_key values ('mine', 'x')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            run(
                conn,
                "insert into audit_private.attestation (occasion, scope, kind, relation, name)"
                " select 'attach', oid, 'trigger', oid, 'x' from pg_class limit 1",
            )


@contextmanager
def rolled_back(db: Database) -> Iterator[psycopg.Connection[Any]]:
    conn = db.connect()
    with conn.transaction(force_rollback=True):
        yield conn


def test_a_superuser_of_the_application_is_found_and_one_at_a_console_is_not(
    healthy: Database,
) -> None:
    conn = healthy.connect()
    conn.execute("update membership set role = 'ADMIN' where user_id = 2")
    assert diagnose(healthy) == []
    with auditdb.context(conn, actor_id="2", source="web"):
        conn.execute("update membership set role = 'MEMBER' where user_id = 2")
    [finding] = diagnose(healthy)
    assert (finding.check_name, finding.object) == ("logins", conn.info.user)
    assert "superuser" in finding.problem


def test_a_baseline_is_no_work_of_the_application(healthy: Database) -> None:
    for role in ("app_owner", None):
        auditdb.baseline(healthy.connect(role), "public.membership")
    rows = healthy.connect().execute("select source, db_user from audit.event"
        " where action = 'membership.baseline'")  # fmt: skip
    assert ("sql", "app_owner") not in rows.fetchall() and rows.rowcount > 0
    assert diagnose(healthy) == []


def test_an_application_that_owns_its_tables_is_noticed(healthy: Database) -> None:
    run(healthy.connect("app_owner"), "set local auditdb.context = '{\"source\": \"web\"}';"
        "update membership set role = 'ADMIN' where user_id = 2")  # fmt: skip
    [finding] = diagnose(healthy)
    assert (finding.severity, finding.object) == ("notice", "app_owner")


def test_a_table_dropped_and_created_again_is_found(healthy: Database) -> None:
    conn = healthy.connect("app_owner")
    run(conn, "create table copied (like workflow including all);"
              "drop table workflow cascade; alter table copied rename to workflow")  # fmt: skip
    findings = diagnose(healthy)
    assert [(f.check_name, f.object, f.problem) for f in findings if f.severity == "critical"] == [
        ("tables", "public.workflow", "was dropped and created again")
    ]
    # The steps' organisation was looked up in the table that is gone.
    assert [(f.check_name, f.object) for f in findings if f.severity != "critical"] == [
        ("mappings", "public.workflow_step")
    ]
    for finding in findings:
        run(conn, finding.mend)
    assert diagnose(healthy) == []


def test_a_table_renamed_and_moved_is_noticed_and_critical_where_readers_are_looked_up(
    healthy: Database,
) -> None:
    conn = healthy.connect()
    run(
        conn,
        "create schema product authorization app_owner;"
        "alter table api_key rename to secret_key; alter table secret_key set schema product",
    )
    [finding] = diagnose(healthy)
    assert (finding.severity, finding.object) == ("notice", "product.secret_key")
    assert finding.problem == "was public.api_key when it was attested"
    run(conn, finding.mend)
    assert diagnose(healthy) == []
    run(conn, "alter table membership rename to member")
    # The organisation of a user is that of their membership where the row names none.
    [finding, *users, notice] = diagnose(healthy)
    assert (finding.check_name, finding.object) == ("readers", "public.member")
    assert {(f.check_name, f.object) for f in users} == {("mappings", "public.app_user")}
    assert (notice.check_name, notice.severity) == ("tables", "notice")
    for found in (finding, *users):
        run(conn, found.mend)
    assert diagnose(healthy) == []


def test_a_dropped_membership_table_is_found(healthy: Database) -> None:
    run(healthy.connect("app_owner"), "drop table membership")
    [finding, *users] = diagnose(healthy)
    assert (finding.object, finding.problem) == ("public.membership", "was dropped")
    assert {(f.check_name, f.object) for f in users} == {("mappings", "public.app_user")}
    for found in (finding, *users):
        run(healthy.connect("app_owner"), found.mend)
    assert [f.problem for f in diagnose(healthy)] == ["no table says who is admin or owner"]


def test_members_without_an_admin_among_them_are_found(healthy: Database) -> None:
    owner = healthy.connect("app_owner")
    run(owner, "update membership set role = 'editor'")
    [finding] = diagnose(healthy)
    assert (finding.check_name, finding.severity) == ("readers", "warning")
    assert (finding.object, finding.problem) == (
        "public.membership", "no row makes anybody an admin or owner"
    )  # fmt: skip
    todo = "-- say which rows do: "
    assert finding.mend.startswith(todo)
    run(owner, finding.mend.removeprefix(todo).replace("<condition>", "r.role = ''editor''"))
    assert diagnose(healthy) == []
    run(owner, "delete from membership")
    assert diagnose(healthy) == []


def test_an_admin_by_another_table_is_an_admin(healthy: Database) -> None:
    owner = healthy.connect("app_owner")
    run(owner, "create table boss (organization_id int primary key, user_id int)")
    run(owner, "select audit.attach('boss', 'admin'); update membership set role = 'editor'")
    [finding] = diagnose(healthy)
    assert finding.object == "public.membership, public.boss"
    run(owner, "insert into boss values (1, null)")
    assert len(diagnose(healthy)) == 1
    run(owner, "insert into boss values (2, 2)")
    assert diagnose(healthy) == []


def test_no_more_rows_are_looked_at_for_an_admin_than_ten_thousand(healthy: Database) -> None:
    owner = healthy.connect("app_owner")
    run(owner, "update membership set role = 'editor'; insert into app_user (id, email)"
               " select n, n || '@x' from generate_series(100, 10098) as n;"
               " insert into membership select 1, n, 'x' from generate_series(100, 10098) as n"
               " where n < 10099 - (select count(*) from membership)")  # fmt: skip
    assert [f.check_name for f in diagnose(healthy)] == ["readers"]
    run(owner, "insert into membership values (1, 10098, 'x')")
    assert diagnose(healthy) == []


BENEATH = """
create table team (id int primary key, org int);
insert into team values (1, 1);
alter table team enable row level security;
create policy tenant on team using (org::text = current_setting('app.tenant', true));
create view inner_team {options} as select * from team;
create view outer_team {options} as select id, org from inner_team;
grant select on team, inner_team, outer_team to app, audit_mapper;
create table player (id int primary key, team int);
grant all on player to app;
select audit.attach('player', 'player',
    organization => 'select t.org from public.outer_team as t where t.id = r.team');
"""


@pytest.mark.parametrize(
    ("options", "forced", "reader"),
    [
        ("", "force", "app_owner"),
        ("with (security_invoker)", "force", "audit_mapper"),
        ("", "no force", None),
    ],
)
def test_a_table_that_is_hidden_beneath_a_view_is_found_and_mended(
    healthy: Database, options: str, forced: str, reader: str | None
) -> None:
    owner, app = healthy.connect("app_owner"), healthy.connect("app")
    run(owner, BENEATH.format(options=options))
    run(owner, f"alter table team {forced} row level security")
    if reader == "audit_mapper":
        run(owner, "alter policy tenant on team to app, app_owner")
    found = diagnose(healthy)
    assert [(f.check_name, f.severity, f.object) for f in found] == (
        [("mappings", "warning", "public.team")] if reader else []
    )
    if reader:
        assert f"to {reader} using" in found[0].mend
        run(owner, found[0].mend)
        assert diagnose(healthy) == []
    run(app, "insert into player values (1, 1)")
    assert healthy.events("target_type = 'player'")[-1]["organization_id"] == "1"
    # The application sees no more than before.
    [(seen,)] = app.execute("select count(*) from outer_team").fetchall()
    assert seen == (0 if reader else 1)


def join_months(db: Database, *months: str) -> None:
    """Make months part of the log and attest them, as maintenance does with those to come."""
    run(db.connect(), "set local role audit_owner; "
        + "".join(f"select audit_private.join_month('{month}');" for month in months)
        + "select audit_private.record_attestation('month', 'audit.event', '{trigger}',"
          " renew => false)")  # fmt: skip


def test_a_month_that_maintain_made_and_that_is_taken_away_is_found(healthy: Database) -> None:
    conn = healthy.connect()
    run(conn, "select audit.maintain(ahead => 6)")
    assert diagnose(healthy) == []
    [(month,)] = conn.execute(
        "select max(inhrelid::regclass::text) from pg_inherits"
        " where inhparent = 'audit.event'::regclass and inhrelid::regclass::text ~ '[0-9]$'"
    ).fetchall()
    run(conn, f"drop table {month}")
    assert [(f.object, f.severity) for f in diagnose(healthy)] == [(month, "critical")]


def test_a_month_taken_away_is_found_and_one_dropped_by_retention_is_not(
    healthy: Database,
) -> None:
    conn = healthy.connect()
    join_months(healthy, "2020-01-01", "2020-02-01")
    assert diagnose(healthy) == []
    run(conn, "drop table audit.event_2020_02")
    [finding] = diagnose(healthy)
    assert (finding.object, finding.severity) == ("audit.event_2020_02", "critical")
    assert "retention did not drop it" in finding.problem
    run(conn, "set role audit_owner; insert into audit.event (occurred_at, action, result,"
              "actor_type, source) values (now() - interval '2 days', 'a.b', 'success', 'user',"
              "'x');"
              "reset role")  # fmt: skip
    for _ in range(3):
        run(conn, "select audit.maintain(keep => '1 year')")
    partitions = [f.object for f in diagnose(healthy) if f.check_name == "partitions"]
    assert partitions == ["audit.event_2020_02"]


def test_a_detached_month_is_found(healthy: Database) -> None:
    conn = healthy.connect()
    join_months(healthy, "2020-01-01")
    run(conn, "alter table audit.event detach partition audit.event_2020_01")
    assert "is no longer part of the log" in diagnose(healthy)[0].problem


def test_a_policy_altered_is_found_and_install_mends_it(healthy: Database) -> None:
    run(healthy.connect(), "alter policy viewers_read_their_organization on audit.event"
                           " using (true)")  # fmt: skip
    [finding] = diagnose(healthy)
    assert "is not as it was installed" in finding.problem
    run(healthy.connect(), finding.mend)
    auditdb.install(healthy.dsn)
    assert diagnose(healthy) == []


COLUMNS = "(organization_id, occurred_at desc, id desc, action, actor_id, target_id)"


@pytest.mark.parametrize(
    ("change", "problem", "on"),
    [
        ("", "index audit.event_organization_id_idx is missing", {"audit.event_organization_id_idx"
            " on audit.event"}),
        ("create index event_organization_id_idx on audit.event (organization_id)",
            "index audit.event_organization_id_idx is not as it was installed", {"audit.event"}),
        # As a restore leaves it that could not make them all.
        (f"create index event_2025_01_organization_id_occurred_at_id_action_actor_i_idx"
            f" on audit.event_2025_01 {COLUMNS};"
            f"create index event_organization_id_idx on only audit.event {COLUMNS}",
            "has no part of index audit.event_organization_id_idx", {"audit.event_2025_01",
            "audit.event_default"}),
    ],
    ids=["missing", "altered", "incomplete"],
)  # fmt: skip
def test_an_index_that_is_not_the_release_s_is_found_and_install_mends_it(
    healthy: Database, change: str, problem: str, on: set[str]
) -> None:
    conn = healthy.connect()
    join_months(healthy, "2025-01-01")
    run(conn, f"drop index audit.event_organization_id_idx; {change}")
    found = diagnose(healthy)
    assert {(f.check_name, f.severity, f.mend) for f in found} == {
        ("indexes", "warning", "auditdb install")
    }
    assert {f.problem for f in found} == {problem} and {f.object for f in found} >= on
    auditdb.install(healthy.dsn)
    assert diagnose(healthy) == []
    invalid = "select count(*) from pg_index where not indisvalid"
    assert conn.execute(invalid).fetchone() == (0,)


FAILURES = "where result <> 'success'"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("", {"index audit.event_failure_idx is missing"}),
        (f"create index event_failure_idx on audit.event (organization_id) {FAILURES}",
            {"index audit.event_failure_idx is not as it was installed",
             "index audit.event_failure_idx is none of auditdb's, and holds some of the events"}),
        (f"""create index event_failure_idx on only audit.event
            (organization_id, occurred_at desc, id desc, action, result) {FAILURES}""",
            {"has no part of index audit.event_failure_idx"}),
    ],
    ids=["missing", "altered", "incomplete"],
)  # fmt: skip
def test_an_index_of_some_events_that_is_not_the_release_s_is_found_and_maintenance_mends_it(
    healthy: Database, change: str, problem: set[str]
) -> None:
    conn = healthy.connect()
    join_months(healthy, "2025-01-01")
    run(conn, f"drop index audit.event_failure_idx; {change}")
    found = diagnose(healthy)
    assert {f.problem for f in found} == problem
    mends = {f.mend for f in found if f.check_name == "indexes"}
    assert mends == {"auditdb maintain"}
    planned = conn.execute("select audit.maintain(dry_run => true)").fetchall()
    assert planned == [("would make the index event_failure_idx",)]
    done = []
    while lines := conn.execute("select audit.maintain()").fetchall():
        done += [line for (line,) in lines]
    assert "indexed 2025-01" in done and "made the index event_failure_idx" in done
    assert diagnose(healthy) == []


def test_the_policy_of_a_former_release_is_replaced_by_install(healthy: Database) -> None:
    policies = "select polname, pg_get_expr(polqual, polrelid) from pg_policy order by 1, polrelid"
    conn = healthy.connect()
    new = conn.execute(policies).fetchall()
    run(conn, "alter policy viewers_read_their_organization on audit.event using ("
              "organization_id = (select audit.viewer_organization())"
              " and id >= any ((select audit_private.viewer_start())::bigint[]))")  # fmt: skip
    auditdb.install(healthy.dsn)
    assert conn.execute(policies).fetchall() == new
    assert diagnose(healthy) == []


@pytest.mark.parametrize("damage", [
    "create or replace function audit_private.refuse_change() returns trigger language plpgsql"
    " as 'begin return null; end'",
    "revoke select on audit.event from audit_reader",
    "grant delete on audit.event to audit_writer",
    "create or replace view audit.auth_log with (security_invoker = true)"
    " as select * from audit.log where category = 'nothing'",
])  # fmt: skip
def test_install_puts_back_what_it_defines(healthy: Database, damage: str) -> None:
    run(healthy.connect(), damage)
    assert len(diagnose(healthy)) == 1
    auditdb.install(healthy.dsn)
    assert diagnose(healthy) == []


# How PostgreSQL prints what is attested.
PRINTING = {
    "quote_all_identifiers": "on",
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "xmlbinary": "hex",
    "row_security": "off",
    "search_path": "public",
    "lc_monetary": "C",
}


def printing(db: Database, role: str | None = None, **settings: str) -> psycopg.Connection[Any]:
    """Log in with settings of one's own."""
    conn = db.connect(role)
    for name, value in settings.items():
        conn.execute("select set_config(%s, %s, false)", (name, value))
    return conn


def attach_view(db: Database) -> None:
    """Attach a view of memberships, whose definition is attested, and prints by many settings."""
    run(db.connect(), r"""
        create view public.boss as select organization_id, user_id from public.membership
        where role ~ '^[A-Z]\w+$' and now() > '2020-01-01 10:00+03'::timestamptz
            and '1 day 02:03:04'::interval > '0' and 0.1::float8 < 1 and '\x01'::bytea <> '';
        alter view public.boss owner to app_owner""")  # fmt: skip
    run(db.connect("app_owner"), "select audit.attach('boss', 'admin', organization =>"
                                      " 'organization_id', subject => 'user_id')")  # fmt: skip


def test_no_setting_of_the_session_makes_findings(healthy: Database) -> None:
    attach_view(healthy)
    assert diagnose(healthy) == []
    for role in (SUPERUSER, "app_auditor"):
        for setting, value in PRINTING.items():
            assert doctor.diagnose(printing(healthy, role, **{setting: value})) == [], setting


@pytest.mark.parametrize("setting", PRINTING)
def test_what_is_attested_under_any_setting_is_what_stands(healthy: Database, setting: str) -> None:
    attach_view(healthy)
    conn = printing(healthy, **{setting: PRINTING[setting]})
    facts = "select scope, kind, relation, name, fact from audit_private.attestation where id > %s"
    [(last,)] = conn.execute("select max(id) from audit_private.attestation").fetchall()
    run(conn, "select audit.attest('audit.event'); select audit.attest('public.membership');"
              "select audit.attest('public.boss')")  # fmt: skip
    assert healthy.connect().execute(facts, [last]).fetchall() == []
    name = psycopg.sql.Identifier(conn.info.dbname)
    conn.execute(psycopg.sql.SQL("alter database {} set {} = {}").format(
        name, psycopg.sql.Identifier(setting), PRINTING[setting]))  # fmt: skip
    auditdb.install(healthy.dsn)
    conn.execute(psycopg.sql.SQL("alter database {} reset all").format(name))
    assert diagnose(healthy) == []


def test_degraded_events_are_counted_by_table(healthy: Database) -> None:
    run(healthy.connect("app_owner"), "alter table workflow drop organization_id cascade")
    for name in ("a", "b"):
        run(healthy.connect("app"), f"insert into workflow (name) values ('{name}')")
    findings = {f.check_name: f for f in diagnose(healthy)}
    assert findings["events"].problem.startswith("2 events of the last 7 days are degraded")


def test_code_of_the_application_behind_a_column_is_noticed(healthy: Database) -> None:
    run(healthy.connect("app_owner"), "create type pair as (a int, b int);"
        "create function pair_to_json(pair) returns json language sql as 'select ''1''::json';"
        "create cast (pair as json) with function pair_to_json(pair);"
        "alter table workflow add p pair; select audit.reattach('workflow')")  # fmt: skip
    [finding] = diagnose(healthy)
    assert (finding.check_name, finding.severity) == ("casts", "notice")


def test_an_older_key_that_still_signs_is_found(healthy: Database) -> None:
    run(
        healthy.connect(),
        "update audit_private.signing_key set created_at = now() - interval '20 days'",
    )
    run(healthy.connect(), "insert into audit_private.signing_key values"
        " ('new', 'x', now() - interval '9 days')")  # fmt: skip
    [finding] = diagnose(healthy)
    assert "never retired" in finding.problem
    run(healthy.connect(), finding.mend)
    assert diagnose(healthy) == []


@pytest.mark.parametrize(("version", "vulnerable"), [
    (150008, True), (150014, False), (160009, True), (160010, False), (170000, True),
    (170006, False), (180000, False),
])  # fmt: skip
def test_servers_with_holes_in_row_level_security_are_found(
    empty_db: Database, version: int, vulnerable: bool
) -> None:
    rows = (
        empty_db.connect()
        .execute("select * from audit_private.check_server(%s)", [version])
        .fetchall()
    )
    assert (len(rows) == 1) is vulnerable


def test_a_clone_disabled_on_one_partition_is_found(healthy: Database) -> None:
    conn = healthy.connect("app_owner")
    run(conn, "create table invoice (id int, day date, primary key (id, day))"
              " partition by range (day);"
              "create table invoice_1 partition of invoice for values from ('2020-01-01')"
              " to ('2021-01-01'); select audit.attach('invoice', 'invoice',"
              " organization => 'null::text');"
              "create table invoice_2 partition of invoice for values from ('2021-01-01')"
              " to ('2022-01-01')")  # fmt: skip
    [finding] = diagnose(healthy)
    assert (finding.object, finding.severity) == ("public.invoice_2", "warning")
    assert finding.problem == "auditdb_truncate missing since it became a partition"
    run(conn, finding.mend)
    assert diagnose(healthy) == []
    run(conn, "alter table invoice_2 disable trigger auditdb_delete")
    [finding] = diagnose(healthy)
    assert (finding.object, finding.severity) == ("public.invoice_2", "critical")
    assert doctor.fix(conn, [finding]) == [finding.mend]
    assert diagnose(healthy) == []
    run(conn, "alter table invoice detach partition invoice_1; drop table invoice_1")
    assert diagnose(healthy) == []


def test_a_creator_of_roles_that_installed_is_noticed_and_nothing_else(
    empty_db: Database,
) -> None:
    with rolled_back(empty_db) as conn:
        run(conn, "create role deployer login createrole")
        if conn.info.server_version >= 160000:
            run(conn, "grant audit_owner to deployer with admin true, inherit false, set false")
        [finding] = doctor.diagnose(conn)
        assert (finding.severity, finding.object) == ("notice", "deployer")


def test_where_no_login_may_say_who_acts_the_grant_is_named(healthy: Database) -> None:
    with rolled_back(healthy) as conn:
        holders = conn.execute(
            "select member::regrole::text from pg_auth_members "
            "where roleid = 'audit_writer'::regrole and member <> 'audit_owner'::regrole"
        ).fetchall()
        for (holder,) in holders:
            conn.execute(SQL("revoke audit_writer from {}").format(Identifier(holder)))
        [finding] = [f for f in doctor.diagnose(conn) if f.object == "audit_writer"]
        assert (finding.severity, finding.problem) == ("notice", "no login holds it")
        assert "grant audit_writer to" in finding.mend
        # Another tool says who acts.
        conn.execute("select audit.read_context_from('{request.jwt.claims}')")
        assert [f for f in doctor.diagnose(conn) if f.object == "audit_writer"] == []


def test_findings_are_printed_with_the_command_that_mends_them() -> None:
    finding = Finding(
        check_name="keys", severity="notice", object="audit_private.signing_key",
        problem="there is no signing key", why="Nobody can be given a viewer token.",
        mend="select audit.create_key()", fixable=False,
    )  # fmt: skip
    assert doctor.render([finding]) == (
        "notice: audit_private.signing_key: there is no signing key\n"
        "    Nobody can be given a viewer token.\n    select audit.create_key()"
    )
    assert doctor.render([]) == "healthy: nothing found"


def test_a_fix_that_is_refused_stops_none_of_the_others(healthy: Database) -> None:
    run(healthy.connect("app_owner"), "alter table membership disable trigger auditdb_update")
    run(healthy.connect(), "alter table workflow disable trigger auditdb_update;"
        "alter table workflow owner to stranger")  # fmt: skip
    done = doctor.fix(healthy.connect("app_owner"), diagnose(healthy))
    assert len([line for line in done if "-- refused: " in line]) == 1
    assert [f.object for f in diagnose(healthy) if f.check_name == "triggers"] == [
        "public.workflow"
    ]


def test_a_mapper_that_lost_everything_is_one_finding_and_what_it_says_mends_it(
    healthy: Database,
) -> None:
    run(healthy.connect(), "drop owned by audit_mapper cascade")
    run(healthy.connect("app"), "update membership set role = 'ADMIN' where user_id = 2")
    assert healthy.actions()[-1].startswith("membership.")
    [finding] = diagnose(healthy)
    assert (finding.check_name, finding.mend) == ("mapper", "auditdb install; auditdb doctor --fix")
    auditdb.install(healthy.dsn)
    owner = healthy.connect("app_owner")
    doctor.fix(owner, doctor.diagnose(owner))
    assert [f for f in diagnose(healthy) if f.check_name != "events"] == []
    run(healthy.connect("app"), "update membership set role = 'MEMBER' where user_id = 2")
    assert "degraded" not in healthy.events()[-1]["details"]
