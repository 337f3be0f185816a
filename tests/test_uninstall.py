"""Uninstall leaves the application as it was, and the log as it was asked for."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

import auditdb
from auditdb.cli import main
from tests.conftest import APPLICATION, ATTACH, ROLES, Database
from tests.server import Server, default_bin, running
from tests.test_takeover_restore import LOG_GRANTS, address

LOGINS = ROLES.partition("grant audit_operator")[0]


@pytest.fixture(scope="module")
def bare(server: Server) -> Iterator[Server]:
    """A cluster of which no database has auditdb."""
    with running(server.bin) as other:
        with psycopg.connect(address(other, "postgres"), autocommit=True) as conn:
            conn.execute(LOGINS.encode())
            conn.execute("alter role app_owner createrole")
        yield other


@pytest.fixture
def application(bare: Server) -> Iterator[Database]:
    """An application without auditdb, whose owner is that of a managed server."""
    with psycopg.connect(address(bare, "postgres"), autocommit=True) as admin:
        admin.execute("create database shop owner app_owner")
        db = Database(address(bare, "shop"))
        db.connect().execute("alter schema public owner to app_owner")
        owner = db.connect("app_owner")
        owner.execute(APPLICATION)
        owner.execute("revoke usage on schema public from public;"
                      "grant usage on schema public to app; alter table workflow enable row"
                      " level security; create policy mine on workflow using (true)")  # fmt: skip
        yield db
        db.close()
        admin.execute("drop database shop with (force)")
        for (role,) in admin.execute("select rolname from pg_roles where rolname ~ '^audit_'"):
            admin.execute(f"drop role {role}".encode())


def state(db: Database, bare: Server) -> tuple[str, list[tuple[Any, ...]]]:
    """Return the application's schema as pg_dump writes it, and the roles with their members."""
    name = psycopg.conninfo.conninfo_to_dict(db.dsn)["dbname"]
    dump = subprocess.run(
        [str((bare.bin or default_bin()) / "pg_dump"), "-s", "-n", "public",
         "-d", address(bare, str(name))],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    lines = [line for line in dump.splitlines() if not line.startswith(("\\", "--"))]
    roles = db.connect().execute(
        "select r.rolname, r.rolcreaterole, m.rolname from pg_roles as r left join pg_auth_members"
        " on member = r.oid left join pg_roles as m on m.oid = roleid"
        " where r.rolname !~ '^pg_' order by 1, 3"
    )
    return "\n".join(lines), roles.fetchall()


def use(db: Database, who: str | None) -> None:
    auditdb.install(db.conninfo(who))
    db.connect().execute(LOG_GRANTS)
    db.connect("app_owner" if who else None).execute(ATTACH)
    app = db.connect("app")
    app.execute("update membership set role = 'X' where user_id = 2")
    app.execute("insert into workflow (organization_id, name) values (1, 'a\nb \\ \u2028')")


def auditor_lines(db: Database) -> list[str]:
    """Return the log as an auditor exports it, oldest first."""
    out = io.StringIO()
    with psycopg.connect(db.conninfo("app_auditor")) as conn:
        auditdb.auditor(conn).export(out, format="jsonl")
    return out.getvalue().split("\n")[-2::-1]


def run(db: Database, who: str | None, *args: str) -> Result:
    return CliRunner().invoke(main, ["--dsn", db.conninfo(who), "uninstall", *args])


@pytest.mark.parametrize("who", ["app_owner", None], ids=["owner", "superuser"])
def test_the_application_is_as_before_and_so_are_the_roles(
    application: Database, bare: Server, who: str | None, tmp_path: Path
) -> None:
    db = application
    before = state(db, bare)
    use(db, who)
    shown = auditor_lines(db)
    told = state(db, bare)
    assert told != before
    events = db.connect().execute("select count(*) from audit.event").fetchone()
    out = run(db, who, "--log", "drop").output
    assert "would detach public.membership" in out and "would drop the log: about " in out
    assert out.endswith("nothing was done; to do it, add --yes\n")
    assert state(db, bare) == told
    file = tmp_path / "log.jsonl"
    done = run(db, who, "--yes", "--log", "drop", "--export", str(file))
    assert done.exit_code == 0, done.output
    assert "left:" not in done.output
    assert state(db, bare) == before
    lines = [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]]
    # As auditdb log has them, oldest first.
    assert file.read_text("utf-8").split("\n")[: len(shown)] == shown
    # That the tables were detached is told too.
    assert events is not None and {e["action"] for e in lines[events[0] :]} == {"audit.detached"}
    assert len({line["id"] for line in lines}) == len(lines)
    assert [line["new_values"]["name"] for line in lines if line["action"] == "workflow.created"]
    db.connect("app").execute("update membership set role = 'Y' where user_id = 2")
    auditdb.install(db.conninfo(who))


@pytest.mark.parametrize("who", ["app_owner", None], ids=["owner", "superuser"])
def test_by_default_the_log_is_kept_and_auditors_go_on_reading(
    application: Database, bare: Server, who: str | None
) -> None:
    db = application
    before, _ = state(db, bare)
    use(db, who)
    assert run(db, who, "--yes").output == "no table is attached any more, and the log is kept\n"
    assert state(db, bare)[0] == before
    db.connect("app").execute("update membership set role = 'Y' where user_id = 2")
    assert db.actions() == ["membership.role_changed", "workflow.created"]
    with psycopg.connect(db.conninfo("app_auditor")) as conn:
        assert {"membership.role_changed"} <= {e.action for e in auditdb.auditor(conn).events()}
    db.connect("app_owner" if who else None).execute(ATTACH)
    db.connect("app").execute("update membership set role = 'Z' where user_id = 2")
    assert len(db.actions()) == 3


def test_what_is_refused_removes_nothing(
    application: Database, bare: Server, tmp_path: Path
) -> None:
    db = application
    use(db, "app_owner")
    file = tmp_path / "log.jsonl"
    admin = db.connect()
    admin.execute("create view public.mine as select id from audit.event")
    told = state(db, bare)
    refused = run(db, "app_owner", "--yes", "--log", "drop", "--export", str(file))
    assert refused.exit_code == 1 and "public.mine" in refused.stderr
    assert state(db, bare) == told and not file.exists()
    admin.execute("drop view public.mine; alter table api_key owner to stranger")
    told = state(db, bare)
    refused = run(db, "app_owner", "--yes")
    assert refused.exit_code == 1 and "api_key" in refused.stderr
    assert state(db, bare) == told
    file.write_text("mine")
    refused = run(db, None, "--yes", "--export", str(file))
    assert refused.exit_code == 2 and "already exists" in refused.stderr
    assert file.read_text() == "mine" and state(db, bare) == told


def test_a_log_under_legal_hold_is_not_dropped(application: Database, bare: Server) -> None:
    db = application
    use(db, "app_owner")
    db.connect("app_auditor").execute("select audit.hold_organization('7', 'case 1')")
    told = state(db, bare)
    refused = run(db, "app_owner", "--yes", "--log", "drop")
    assert refused.exit_code == 1 and "organisation 7 is under legal hold" in refused.stderr
    assert state(db, bare) == told
    db.connect("app_auditor").execute("select audit.release_organization('7', 'case 1')")
    assert run(db, "app_owner", "--yes", "--log", "drop").exit_code == 0


def test_roles_that_another_database_uses_stay_and_are_named(db: Database) -> None:
    done = run(db, None, "--yes", "--log", "drop")
    assert done.exit_code == 0
    assert re.search("left: role audit_owner, which other databases use: .*_tmpl", done.output)
    schemas = "select count(*) from pg_namespace where nspname ~ '^audit'"
    assert db.connect().execute(schemas).fetchone() == (0,)
    again = run(db, None, "--yes")
    assert again.exit_code == 1 and "not installed in this database" in again.stderr


def test_the_memberships_that_its_owner_gave_itself_stay_where_the_roles_do(
    application: Database, bare: Server
) -> None:
    db = application
    auditdb.install(db.conninfo("app_owner"))
    with psycopg.connect(address(bare, "postgres"), autocommit=True) as admin:
        admin.execute("create database other owner app_owner")
    try:
        other = Database(address(bare, "other"))
        auditdb.install(other.conninfo("app_owner"))
        db.connect("app_owner").execute("grant audit_auditor, audit_writer to app_owner")
        assert run(other, "app_owner", "--yes", "--log", "drop").exit_code == 0
        other.close()
        with psycopg.connect(db.conninfo("app_owner")) as conn:
            assert {"audit.installed"} == {e.action for e in auditdb.auditor(conn).events()}
            held = conn.execute(
                "select rolname from pg_roles"
                " where rolname ~ '^audit_' and pg_has_role(oid, 'usage') order by 1"
            )
            names = [name for (name,) in held]
            assert names == ["audit_auditor", "audit_operator", "audit_writer"]
    finally:
        with psycopg.connect(address(bare, "postgres"), autocommit=True) as admin:
            admin.execute("drop database other with (force)")


def test_events_that_are_committed_while_the_log_is_exported_are_exported_too(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from auditdb.operate import uninstall as work

    app = db.connect("app", autocommit=False)
    app.execute("select audit.record_event('auth.login', '1', actor_id => 'late')")
    # Later than the oldest transaction that runs, and there already.
    db.connect("app").execute("update membership set role = 'X' where user_id = 2")
    export = work._export

    def slow(conn: Any, *args: Any) -> Any:
        found = export(conn, *args)
        if len(args) == 1:
            app.commit()
        return found

    monkeypatch.setattr(work, "_export", slow)
    file = tmp_path / "log.jsonl"
    work.uninstall(db.dsn, log="drop", export=file)
    lines = [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]]
    assert [line["action"] for line in lines if line["actor_id"] == "late"] == ["auth.login"]
    assert len({line["id"] for line in lines}) == len(lines)


@pytest.mark.parametrize("again", [False, True], ids=["dropped", "dropped and created again"])
@pytest.mark.parametrize("known", [False, True], ids=["", "noted"])
def test_a_table_that_was_dropped_keeps_nobody_from_uninstalling(
    db: Database, again: bool, known: bool
) -> None:
    owner = db.connect("app_owner")
    owner.execute("drop table workflow_step")
    if again:
        owner.execute("create table workflow_step (id int)")
    if known:
        owner.execute("select audit_private.forget_gone()")
    done = run(db, None, "--yes")
    assert (done.exit_code, done.output) == (
        0, "no table is attached any more, and the log is kept\n"
    )  # fmt: skip
    admin = db.connect()
    assert admin.execute("select from audit_private.attachment").fetchall() == []
    assert admin.execute(
        "select details, db_user from audit.event where action = 'audit.detached'"
        " and target_id = 'public.workflow_step'"
    ).fetchall()[0][0] == {"gone": True}  # fmt: skip
    assert admin.execute(
        "select from pg_auth_members where roleid = 'audit_owner'::regrole"
    ).fetchall() == []  # fmt: skip


def test_a_setting_of_the_installer_makes_it_no_member_of_what_it_creates(
    application: Database, bare: Server
) -> None:
    admin = application.connect()
    if admin.info.server_version < 160000:
        pytest.skip("PostgreSQL 16 brought createrole_self_grant")
    admin.execute("alter role app_owner set createrole_self_grant = 'set, inherit'")
    try:
        auditdb.install(application.conninfo("app_owner"))
        with application.connect("app_owner", autocommit=False) as owner:
            # As a migration tool, which goes on in the transaction.
            owner.execute(auditdb.script().encode())
            assert owner.execute("show createrole_self_grant").fetchall() == [("set, inherit",)]
    finally:
        admin.execute("alter role app_owner reset createrole_self_grant")
    members = admin.execute(
        "select roleid::regrole::text from pg_auth_members where member = 'app_owner'::regrole"
        " and roleid::regrole::text like 'audit%' and (inherit_option or set_option)"
    ).fetchall()
    assert members == [("audit_operator",)]
