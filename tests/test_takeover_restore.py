"""However a dump comes back, the application goes on, and install brings the whole log back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import auditdb
from auditdb.operate import doctor
from tests.conftest import ROLES, Database
from tests.server import Server, default_bin, running

HELD = "audit_owner, audit_mapper, audit_operator"
LOGINS = ROLES.partition("grant audit_operator")[0]
# What a dump without privileges lacks, and a cluster without roles: the operator's to give again.
APPLICATION_GRANTS = """
grant usage on schema public to public;
grant select, insert, update, delete on all tables in schema public to app;
"""
LOG_GRANTS = """
grant audit_writer to app;
grant audit_reader to app_reader;
grant audit_auditor to app_auditor;
"""


@dataclass(frozen=True)
class Way:
    """How a dump comes back."""

    role: str
    options: tuple[str, ...] = ()
    has_roles: bool = True


WAYS = {
    "owner, no owners, no privileges": Way("app_owner", ("-O", "-x")),
    "owner, no owners": Way("app_owner", ("-O",)),
    "owner": Way("app_owner"),
    "owner, roles missing": Way("app_owner", (), has_roles=False),
    "owner, no owners, no privileges, roles missing": Way("app_owner", ("-O", "-x"), False),
    "superuser, no owners": Way("postgres", ("-O",)),
    "superuser, no owners, no privileges": Way("postgres", ("-O", "-x")),
    "superuser, roles missing": Way("postgres", (), has_roles=False),
}


def tool(server: Server, name: str, *args: str, check: bool = True) -> str:
    """Run a tool of the server under test; pg_restore goes on after errors, as operators let it."""
    done = subprocess.run(
        [str((server.bin or default_bin()) / name), *args],
        env={**os.environ, "PGPASSWORD": "secret", "PGOPTIONS": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if check and done.returncode:
        raise AssertionError(done.stderr)
    return done.stderr


@pytest.fixture(scope="module")
def bare(server: Server) -> Iterator[Server]:
    """A cluster that knows the application's logins, and no role of auditdb."""
    with running(server.bin) as other:
        with psycopg.connect(address(other, "postgres"), autocommit=True) as conn:
            conn.execute(LOGINS.encode())
            conn.execute("alter role app_owner createrole")
        yield other


def address(server: Server, database: str, role: str | None = None) -> str:
    return make_conninfo(
        "", host=server.host, port=server.port, dbname=database, user=role or server.user,
        password="secret" if role else server.password,
    )  # fmt: skip


@pytest.fixture
def dump(db: Database, server: Server, tmp_path: Path) -> Path:
    """A dump of a log in use, by the superuser."""
    app = db.connect("app")
    app.execute("update membership set role = 'ADMIN' where user_id = 2")
    app.execute("insert into workflow (organization_id, name) values (1, 'first')")
    assert db.key
    # The address of this test's client may say what an older libpq does not know.
    name = str(conninfo_to_dict(db.dsn)["dbname"])
    tool(server, "pg_dump", "-Fc", "-f", str(tmp_path / "dump"), "-d", address(server, name))
    return tmp_path / "dump"


@pytest.fixture
def cluster(server: Server, bare: Server, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Where the dump comes back; there app_owner is what a managed server's owner is."""
    way: Way = request.param
    target = server if way.has_roles else bare
    with psycopg.connect(address(target, "postgres"), autocommit=True) as admin:
        admin.execute("alter role app_owner createrole")
        if way.has_roles:
            manage(admin)
        admin.execute("create database auditdb_restored owner app_owner")
        yield target
        admin.execute("drop database auditdb_restored with (force)")
        if way.has_roles:
            admin.execute(f"revoke {HELD} from app_owner cascade".encode())
            admin.execute("alter role app_owner nocreaterole")
            admin.execute("grant audit_operator to app_owner")
        else:
            names = [r for (r,) in admin.execute(
                "select rolname from pg_roles where rolname ~ '^audit_'")]  # fmt: skip
            for name in names:
                admin.execute(f"drop role {name}".encode())


def manage(admin: psycopg.Connection[Any]) -> None:
    """Let app_owner stand where the role that created auditdb's roles stands."""
    if admin.info.server_version >= 160000:
        admin.execute(f"revoke {HELD} from app_owner cascade".encode())
        admin.execute(
            f"grant {HELD} to app_owner with admin true, inherit false, set false".encode()
        )


def restored(cluster: Server, dump: Path, way: Way) -> Database:
    tool(
        cluster, "pg_restore", *way.options, "-d",
        address(cluster, "auditdb_restored", None if way.role == "postgres" else way.role),
        str(dump), check=False,
    )  # fmt: skip
    found = Database(address(cluster, "auditdb_restored"))
    # As the operator has to, whatever is audited.
    owner = "" if way.role == "postgres" else way.role
    found.connect(owner or None).execute(APPLICATION_GRANTS)
    return found


def contents(db: Database, last: int) -> list[tuple[Any, ...]]:
    query = "select e::text from audit.event as e where id <= %s order by id"
    return db.connect().execute(query, [last]).fetchall()


def write(db: Database, number: int, owner: str | None) -> None:
    """Change every table in every way, as the application and its owner do."""
    app = db.connect("app")
    app.execute("insert into organization (id, name) values (%s, 'new')", [number])
    app.execute("insert into app_user (id, email, password_hash) values (%s, %s, 'x')",
                [number, f"u{number}@x"])  # fmt: skip
    app.execute("update app_user set password_hash = 'y' where id = %s", [number])
    app.execute("insert into membership values (%s, %s, 'OWNER')", [number, number])
    app.execute("update membership set role = 'MEMBER' where user_id = %s", [number])
    app.execute("insert into api_key (organization_id, name, key_hash) values (%s, 'k', 'h')",
                [number])  # fmt: skip
    app.execute("update api_key set revoked_at = now() where organization_id = %s", [number])
    app.execute("insert into workflow (organization_id, name) values (%s, 'w')", [number])
    app.execute("insert into workflow_step (workflow_id, position)"
                " select max(id), 1 from workflow")  # fmt: skip
    app.execute("delete from organization where id = %s", [number])
    db.connect(owner).execute("truncate workflow_step")


@pytest.mark.parametrize(
    ("way", "cluster"), [(w, w) for w in WAYS.values()], ids=list(WAYS), indirect=["cluster"]
)
def test_after_a_restore_the_application_goes_on_and_install_brings_the_log_back(
    db: Database, dump: Path, cluster: Server, way: Way
) -> None:
    [(last,)] = db.connect().execute("select max(id) from audit.event").fetchall()
    before = contents(db, last)
    back = restored(cluster, dump, way)
    owner = None if way.role == "postgres" else way.role
    try:
        assert contents(back, last) == before
        write(back, 1001, owner)
        assert len(back.events(f"id > {last}")) == 15
        assert auditdb.install(back.conninfo(owner)) == auditdb.__version__
        back.connect().execute(LOG_GRANTS)
        assert contents(back, last) == before
        [(again,)] = back.connect().execute("select max(id) from audit.event").fetchall()
        write(back, 1002, owner)
        later = back.events(f"id > {again}")
        assert [e["details"]["degraded"] for e in later if "degraded" in (e["details"] or {})] == []
        assert {e["organization_id"] for e in later if e["target_type"] == "workflow"
                and not e["action"].endswith("truncated")} == {"1002"}  # fmt: skip
        key = back.connect(owner).execute("select audit.create_key()").fetchone()
        assert key is not None
        reader = auditdb.reader(
            back.connect("app_reader"), key=key[0], viewer_id=1, organization_id=1
        )
        assert {e.action for e in reader.events()} >= {"membership.role_changed"}
        found = doctor.diagnose(back.connect(owner))
        assert [f for f in found if f.severity != "notice" and f.check_name != "events"] == []
    finally:
        back.close()


@pytest.mark.parametrize(
    ("way", "cluster"), [(WAYS["owner, no owners"],) * 2], indirect=["cluster"], ids=["owner"]
)
def test_without_a_policy_that_follows_the_owner_the_application_s_statements_fail(
    db: Database, dump: Path, cluster: Server, way: Way
) -> None:
    """The naive twin: policies for audit_owner alone."""
    back = restored(cluster, dump, way)
    try:
        owner = back.connect("app_owner")
        owner.execute("drop policy whoever_owns_the_log_writes on audit.event")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            back.connect("app").execute("update membership set role = 'X' where user_id = 2")
    finally:
        back.close()


@pytest.mark.parametrize(
    ("way", "cluster"), [(WAYS["owner, no owners"],) * 2], indirect=["cluster"], ids=["owner"]
)
def test_only_who_restored_the_log_gives_it_back(
    db: Database, dump: Path, cluster: Server, way: Way
) -> None:
    back = restored(cluster, dump, way)
    try:
        for attempt in (
            lambda: auditdb.install(back.dsn),
            lambda: back.connect(autocommit=False).execute(auditdb.script().encode()),
        ):
            with pytest.raises((auditdb.Refused, psycopg.Error)) as caught:
                attempt()
            assert 'of auditdb was restored by "app_owner"' in str(caught.value)
        # What a third role put there would run as whoever installs.
        admin = back.connect()
        admin.execute("create function audit_private.trap() returns int language sql return 1")
        admin.execute("alter function audit_private.trap() owner to stranger")
        with pytest.raises(auditdb.Refused, match=r'routine audit_private.trap\(\) belongs to "st'):
            auditdb.install(back.conninfo("app_owner"))
        owned = admin.execute("select nspowner::regrole::text from pg_namespace"
                              " where nspname = 'audit'").fetchone()  # fmt: skip
        assert owned == ("app_owner",)
        admin.execute("alter function audit_private.trap() owner to app_owner")
        auditdb.install(back.conninfo("app_owner"))
        trap = admin.execute("select to_regprocedure('audit_private.trap()')").fetchone()
        assert trap == (None,)
        taken = admin.execute("select old_values from audit.event where action = 'audit.reclaimed'")
        assert taken.fetchall() == [({"owner": "app_owner"},)]
    finally:
        back.close()


INSERT = (
    "insert into audit.event (action, result, actor_type, source)"
    " values ('x.y', 'success', 'user', 'web')"
)


def test_the_policy_that_follows_the_owner_lets_nobody_else_write(db: Database) -> None:
    admin = db.connect()
    admin.execute("grant usage on schema audit, audit_private to stranger")
    admin.execute("grant insert, select on audit.event to stranger")
    admin.execute("grant select on audit_private.installation to stranger")
    admin.execute("grant usage on sequence audit.event_id_seq to stranger")
    admin.execute("grant execute on function audit_private.owns_log to stranger")
    admin.execute("create role audit_owner_ nologin; grant audit_owner_ to stranger")
    try:
        stranger = db.connect("stranger")
        # Through a view of the owner's, too, whose rights to the table it uses.
        admin.execute("set role audit_owner; create view audit.door as select * from audit.event;"
                      "reset role; grant insert on audit.door to stranger")  # fmt: skip
        for role in ("stranger", "audit_owner_"):
            stranger.execute(f"set role {role}".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                stranger.execute(INSERT)
        stranger.execute("reset role")
        assert stranger.execute("select audit_private.owns_log()").fetchone() == (False,)
        assert stranger.execute("select * from audit_private.installation").fetchall() == []
        assert stranger.execute("select * from audit.event").fetchall() == []
    finally:
        admin.execute("drop view audit.door; drop role audit_owner_")


def test_the_policy_that_follows_the_owner_costs_the_owner_nothing(db: Database) -> None:
    conn = db.connect()
    conn.execute("set role audit_owner")
    plan = "\n".join(line for (line,) in conn.execute(f"explain (verbose, costs off) {INSERT}"))
    assert "owns_log" not in plan and "Filter" not in plan
    # What a plan does not show, the count of calls does.
    conn.execute("reset role; set track_functions = 'all'; set role audit_owner")
    conn.execute(INSERT)
    conn.execute("select audit_private.digest('x')")
    calls = conn.execute(
        "select coalesce(sum(pg_stat_get_xact_function_calls(p.oid)), 0) from pg_proc as p"
        " where proname = 'owns_log'"
    ).fetchone()
    assert calls == (0,)


@pytest.mark.parametrize("how", ["disable", "enable", "enable replica"])
@pytest.mark.parametrize(
    ("way", "cluster"),
    [(WAYS[name],) * 2 for name in ("owner, no owners, no privileges", "superuser, no owners")],
    indirect=["cluster"], ids=["owner", "superuser"],
)  # fmt: skip
def test_a_trigger_that_was_switched_off_before_is_still_found(
    db: Database, server: Server, cluster: Server, way: Way, how: str, tmp_path: Path
) -> None:
    db.connect("app_owner").execute(f"alter table workflow {how} trigger auditdb_update".encode())
    name = str(conninfo_to_dict(db.dsn)["dbname"])
    tool(server, "pg_dump", "-Fc", "-f", str(tmp_path / "dump"), "-d", address(server, name))
    back = restored(cluster, tmp_path / "dump", way)
    try:
        owner = None if way.role == "postgres" else way.role
        auditdb.install(back.conninfo(owner))
        conn = back.connect(owner)
        found = [f for f in doctor.diagnose(conn) if f.check_name == "triggers"]
        assert [(f.object, f.severity, f.fixable) for f in found] == [
            ("public.workflow", "critical", True)
        ]
        doctor.fix(conn, found)
        assert not [f for f in doctor.diagnose(conn) if f.severity != "notice"]
        back.connect("app").execute("insert into workflow (organization_id, name) values (1, 'z')")
        assert back.events()[-1]["details"].get("degraded") is None
    finally:
        back.close()
