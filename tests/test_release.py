"""The list of what a release makes the log of is that of the files, and finds what is otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

import auditdb
from auditdb.operate import doctor, source
from auditdb.operate import doctor as checks
from auditdb.operate import release as outside
from auditdb.operate.doctor import Finding
from tests.conftest import Database
from tests.release import RELEASE, release

SQL = Path(__file__).resolve().parent.parent / "sql"


@pytest.fixture
def healthy(db: Database) -> Database:
    assert db.key
    return db


def run(db: Database, sql: str) -> None:
    with psycopg.connect(db.dsn) as conn:
        conn.execute(sql.encode())


def inside(db: Database) -> list[Finding]:
    """Return what the database says of itself."""
    cursor = db.connect().cursor(row_factory=psycopg.rows.class_row(Finding))
    return cursor.execute("select * from audit.doctor()").fetchall()


def test_the_list_is_what_an_installation_is_made_of_on_every_version(empty_db: Database) -> None:
    assert RELEASE.read_text("utf-8") == release(empty_db.dsn), "run: make reference"


def test_a_definition_is_printed_again_as_it_was_printed(empty_db: Database) -> None:
    """As pg_dump and a restore do it: else a restored database would be full of findings."""
    before = release(empty_db.dsn)
    conn = empty_db.connect()
    conn.execute("set search_path = pg_catalog, pg_temp")
    for query in (
        "select pg_get_functiondef(oid) from pg_proc where prosqlbody is not null"
        " and pronamespace = any ('{audit,audit_private}'::regnamespace[])",
        "select format('create or replace view %s with (security_invoker) as %s', oid::regclass,"
        " pg_get_viewdef(oid)) from pg_class where relkind = 'v'"
        " and relnamespace = any ('{audit,audit_private}'::regnamespace[])",
    ):
        for (definition,) in conn.execute(query.encode()).fetchall():
            conn.execute(definition.encode())
    assert release(empty_db.dsn).splitlines() == before.splitlines()


# As a superuser would who knows of the list: what stands is what the list says.
FORGE = """
delete from audit_private.release;
insert into audit_private.release (kind, name, sha256)
select kind, name, sha256 from audit_private.standing()
where audit_private.generated_for(name) is null;
select audit.attest('audit.event');
"""
FORGED = {
    "a function": (
        "create or replace function audit_private.refuse_change() returns trigger language plpgsql"
        " set search_path = pg_catalog, pg_temp as 'begin return new; end'",
        "audit_private.refuse_change()",
        "is not as it was installed",
    ),
    "a function with a parsed body": (
        "create or replace function audit_private.open_columns() returns name[] language sql"
        " immutable set search_path = pg_catalog, pg_temp"
        " return array['id', 'occurred_at']::name[]",
        "audit_private.open_columns()",
        "is not as it was installed",
    ),
    "settings of a function": (
        "alter function audit.viewer_organization() set row_security = off",
        "audit.viewer_organization()",
        "is not as it was installed",
    ),
    "a function of one's own": (
        "create function audit_private.mine() returns int language sql as 'select 1';"
        "alter function audit_private.mine() owner to audit_owner;"
        "revoke execute on function audit_private.mine() from public",
        "audit_private.mine()",
        "is none of auditdb's",
    ),
    "a view": (
        "create or replace view audit.auth_log with (security_invoker = true)"
        " as select * from audit.log where category = 'nothing'",
        "audit.auth_log",
        "is not as it was installed",
    ),
    "a column": (
        "alter table audit.event alter captured_from set default 'public.membership'",
        "audit.event",
        "is not as it was installed",
    ),
    "a policy": (
        "alter policy viewers_read_their_organization on audit.event using (true)",
        "audit.event",
        "policy viewers_read_their_organization is not as it was installed",
    ),
    "a policy of one's own": (
        "create policy open on audit.event for select to public using (true)",
        "audit.event",
        "policy open is none of auditdb's",
    ),
    "a policy dropped": (
        "drop policy auditors_read_everything on audit.event",
        "auditors_read_everything on audit.event",
        "policy auditors_read_everything is missing",
    ),
    "a grant": (
        "grant select on audit.event to app",
        "SELECT on table audit.event to app",
        "was not granted by auditdb",
    ),
    "a grant revoked": (
        "revoke select on audit.event from audit_auditor",
        "SELECT on table audit.event to audit_auditor",
        "was granted by install, and is missing",
    ),
    "a grant on objects to come": (
        "alter default privileges for role audit_owner grant select on tables to app",
        "SELECT on future tables of audit_owner to app",
        "was not granted by auditdb",
    ),
}


@pytest.mark.parametrize("how", FORGED)
def test_one_who_rewrites_the_list_too_is_found_from_outside(healthy: Database, how: str) -> None:
    change, object_, problem = FORGED[how]
    run(healthy, change)
    assert [f for f in inside(healthy) if f.object == object_ and f.problem.startswith(problem)]
    run(healthy, FORGE)
    assert inside(healthy) == []  # and so a naive doctor finds nothing
    [finding] = doctor.diagnose(healthy.connect("app_auditor"))
    assert (finding.check_name, finding.severity) == ("release", "critical")
    assert (finding.object, finding.problem) == (
        object_,
        f"{problem}, and audit.doctor() does not say so",
    )


def test_a_doctor_that_was_silenced_is_found_from_outside(healthy: Database) -> None:
    run(healthy, "create or replace function audit.doctor() returns setof audit.finding"
        " language sql stable security definer set search_path = pg_catalog, pg_temp"
        " as 'select null::audit.finding where false';"
        "alter table membership disable trigger auditdb_update")  # fmt: skip
    assert inside(healthy) == []
    [finding] = doctor.diagnose(healthy.connect("app_auditor"))
    assert finding.object == "audit.doctor()"
    run(healthy, "alter table membership enable always trigger auditdb_update")
    auditdb.install(healthy.dsn)
    assert {f.object for f in doctor.diagnose(healthy.connect())} == {"public.membership"}


def test_what_the_database_says_itself_is_not_said_twice(healthy: Database) -> None:
    for change, _, _ in FORGED.values():
        run(healthy, change)
    assert {f.check_name for f in doctor.diagnose(healthy.connect())} <= {
        "functions", "log", "grants", "ownership", "columns",
    }  # fmt: skip


def test_another_version_is_said_in_one_line_and_not_compared(
    healthy: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "__version__", "0.9.0")
    monkeypatch.setattr(checks, "__version__", "0.9.0")
    monkeypatch.setattr(outside, "release", lambda: {("function", "audit.other()"): "x"})
    [finding] = doctor.diagnose(healthy.connect())
    assert (finding.check_name, finding.severity) == ("release", "warning")
    assert finding.problem == f"is {auditdb.__version__}, and this package is 0.9.0"


def test_another_build_of_the_version_is_one_finding_and_install_mends_it(
    healthy: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the code of a later commit meets what an earlier one installed.
    listed = source.read("RELEASE")
    later = listed.replace(listed[:64], "0" * 64, 1)
    with monkeypatch.context() as newer:
        newer.setattr(source, "read", lambda name, read=source.read: (
            later if name == "RELEASE" else read(name)))  # fmt: skip
        for role in ("app_auditor", "app_owner"):
            [finding] = doctor.diagnose(healthy.connect(role))
            assert (finding.check_name, finding.severity) == ("release", "warning")
            assert finding.problem == f"is {auditdb.__version__} of another build than this package"
            assert finding.mend == "auditdb install"
    assert doctor.diagnose(healthy.connect("app_auditor")) == []
    run(healthy, "comment on table audit_private.release is 'of before there were builds'")
    assert [f.mend for f in doctor.diagnose(healthy.connect())] == ["auditdb install"]
    auditdb.install(healthy.dsn)
    assert doctor.diagnose(healthy.connect()) == []


def test_no_setting_of_the_session_makes_a_difference_from_outside(healthy: Database) -> None:
    conn = healthy.connect("app_auditor")
    for name, value in {"quote_all_identifiers": "on", "bytea_output": "escape",
                        "standard_conforming_strings": "off", "search_path": "public",
                        "extra_float_digits": "-15"}.items():  # fmt: skip
        conn.execute("select set_config(%s, %s, false)", (name, value))
    assert doctor.diagnose(conn) == []
    row = conn.execute("select current_setting('quote_all_identifiers')").fetchone()
    assert row == ("on",)


def test_the_query_from_outside_calls_no_function_of_the_log() -> None:
    query = outside.standing_query()
    assert query.count("union all") > 4
    assert "audit_private." not in query and "audit." not in query.replace("'audit.", "")


def test_nobody_but_the_owner_reads_or_writes_the_list(healthy: Database) -> None:
    for role in ("app", "app_reader", "app_owner", "app_auditor"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            healthy.connect(role).execute("select * from audit_private.release")
    conn = healthy.connect()
    with conn.transaction(force_rollback=True):
        conn.execute("grant pg_write_all_data to app; set role app")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            conn.execute("insert into audit_private.release values ('function', 'x', 'y')")


@pytest.mark.parametrize("damage", [
    "delete from audit_private.release", "drop policy the_owner_keeps on audit_private.release",
])  # fmt: skip
def test_a_list_that_is_empty_is_one_finding_and_install_mends_it(
    healthy: Database, damage: str
) -> None:
    run(healthy, damage)
    [finding] = inside(healthy)
    assert (finding.object, finding.severity) == ("audit_private.release", "critical")
    assert finding.problem.startswith("is empty")
    auditdb.install(healthy.dsn)
    assert doctor.diagnose(healthy.connect()) == []


ALTER = """
do $$
begin
    execute (
        select replace(pg_get_functiondef(oid), E'\\nbegin\\n', E'\\nbegin return null;\\n')
        from pg_proc where oid = 'audit_private.capture_1_update()'::regprocedure);
end
$$
"""


def test_an_altered_capture_function_is_critical_and_attaching_again_mends_it(
    healthy: Database,
) -> None:
    run(healthy, ALTER)
    [finding] = inside(healthy)
    assert (finding.severity, finding.object) == ("critical", "audit_private.capture_1_update()")
    assert finding.problem.startswith("is not as it was installed, since ")
    assert doctor.fix(healthy.connect("app_owner"), [finding]) == [finding.mend]
    assert inside(healthy) == []


def test_attesting_an_altered_capture_function_does_not_hide_it(healthy: Database) -> None:
    run(healthy, ALTER)
    run(healthy, "select audit.attest('public.membership'); select audit.attest('audit.event')")
    [finding] = inside(healthy)
    assert (finding.severity, finding.object) == ("warning", "audit_private.capture_1_update()")
    assert finding.problem.startswith("differs from what attaching would write now")
    run(healthy, finding.mend)
    assert inside(healthy) == []


@pytest.mark.parametrize("change", [
    "alter table membership add note text",
    "alter table membership drop updated_at",
    "alter table membership rename updated_at to changed_at",
    "alter table membership alter role type varchar(20)",
    "alter table membership rename to member",
    "alter table membership drop organization_id cascade",
])  # fmt: skip
def test_a_table_that_changed_makes_no_finding_of_its_functions(
    healthy: Database, change: str
) -> None:
    run(healthy, change)
    assert [f for f in inside(healthy) if f.check_name == "functions"] == []
    run(healthy, ALTER.replace("begin return null", "begin null"))
    assert [f.severity for f in inside(healthy) if f.check_name == "functions"] == ["critical"]


def test_a_function_of_a_table_whose_key_went_is_worth_a_word(healthy: Database) -> None:
    run(healthy, "alter table api_key drop constraint api_key_pkey")
    found = inside(healthy)
    # By default the key is also what names the target.
    assert {(f.check_name, f.severity, f.fixable) for f in found} == {
        ("functions", "warning", True), ("mappings", "critical", True),
    }  # fmt: skip
    assert set(doctor.fix(healthy.connect("app_owner"), found)) == {found[0].mend}
    assert inside(healthy) == []


def test_the_owner_of_a_partitioned_table_may_call_its_functions_and_nobody_else(
    healthy: Database,
) -> None:
    conn = healthy.connect("app_owner")
    conn.execute("create table day (id int, d date, primary key (id, d)) partition by range (d);"
                 "select audit.attach('day', 'day', organization => 'null::text')")  # fmt: skip
    assert inside(healthy) == []
    run(healthy, "alter table day owner to stranger")
    assert {f.severity for f in inside(healthy) if f.check_name == "grants"} == {
        "critical", "warning",
    }  # fmt: skip


def test_a_file_that_is_missing_from_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "sql_directory", lambda: SQL / "nowhere")
    with pytest.raises(auditdb.AuditError, match="RELEASE is missing"):
        source.release()


def test_what_is_not_attested_any_more_stays_as_history(healthy: Database) -> None:
    conn: psycopg.Connection[Any] = healthy.connect()
    with conn.transaction():
        conn.execute("set local role audit_owner")
        conn.execute(
            "insert into audit_private.attestation (occasion, scope, kind, relation, name, fact)"
            " select 'install', oid, kind, oid, name, '{}' from pg_class cross join (values"
            " ('function', 'audit.gone()'), ('grant', 'SELECT on x to y')) as v (kind, name)"
            " where oid = 'audit.event'::regclass"
        )
    assert inside(healthy) == []
