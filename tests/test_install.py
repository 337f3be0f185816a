"""Install: on any database, by any address, any number of times, with one end."""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo
from yoyo import get_backend, read_migrations

import auditdb
from auditdb.cli import main
from auditdb.operate import doctor
from auditdb.operate.preview import preview
from tests.conftest import Database
from tests.fingerprint import fingerprint
from tests.server import Server

Create = Callable[..., str]


@pytest.fixture
def address(server: Server) -> str:
    return make_conninfo(
        "", host=server.host, port=server.port, user=server.user, password=server.password
    )


@pytest.fixture
def create(address: str) -> Iterator[Create]:
    """Create databases, and a login role to own them, that are gone when the test ends."""
    made: list[str] = []
    roles: list[str] = []

    def database(owner: str | None = None, attributes: str = "") -> str:
        name = f"install_{secrets.token_hex(4)}"
        with psycopg.connect(address, autocommit=True) as conn:
            if owner:
                conn.execute(f"create role {owner} login password 'secret' {attributes}".encode())
                roles.append(owner)
            conn.execute(f"create database {name} owner {owner or 'default'}".encode())
        made.append(name)
        login = {"user": owner, "password": "secret"} if owner else {}
        return make_conninfo(address, dbname=name, **login)

    yield database
    with psycopg.connect(address, autocommit=True) as conn:
        for name in made:
            conn.execute(f"drop database {name} with (force)".encode())
        for role in roles:
            conn.execute(f"drop role {role}".encode())


def run(dsn: str, script: str) -> None:
    with psycopg.connect(dsn) as conn:
        conn.execute(script.encode())


def is_untouched(dsn: str) -> bool:
    with psycopg.connect(dsn) as conn:
        row = conn.execute("select count(*) from pg_namespace where nspname = 'audit'").fetchone()
    return row == (0,)


def test_install_again_changes_nothing(db: Database) -> None:
    before = fingerprint(db.dsn)
    for _ in range(2):
        assert auditdb.install(db.dsn) == auditdb.__version__
    assert fingerprint(db.dsn) == before
    db.connect("app").execute("update membership set role = 'X' where user_id = 2")
    assert db.actions() == ["membership.role_changed"]


def test_install_on_a_database_with_tables_and_data_leaves_them_alone(create: Create) -> None:
    dsn = create()
    run(
        dsn,
        """create table app (id int primary key, note text);
        insert into app select i, 'n' from generate_series(1, 1000) as i""",
    )
    auditdb.install(dsn)
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select count(*), sum(id) from app").fetchone() == (1000, 500500)
        assert conn.execute("select relacl from pg_class where relname = 'app'").fetchone() == (
            None,
        )


def test_script_and_install_end_in_the_same_schema(create: Create) -> None:
    by_script, by_install, both = create(), create(), create()
    auditdb.install(by_install)
    run(by_script, auditdb.script())
    auditdb.install(both)
    run(both, auditdb.script())
    expected = fingerprint(by_install)
    assert all(expected.values())
    for dsn in (by_script, both):
        found = fingerprint(dsn)
        for kind, rows in expected.items():
            assert found[kind] == rows, kind


def test_script_runs_twice_and_install_after_it(create: Create) -> None:
    dsn = create()
    run(dsn, auditdb.script())
    once = fingerprint(dsn)
    run(dsn, auditdb.script())
    auditdb.install(dsn)
    assert fingerprint(dsn) == once


@pytest.mark.parametrize("way", ["install", "script"])
def test_role_without_superuser_installs_attaches_and_keeps_no_hold_on_the_log(
    create: Create, address: str, way: str
) -> None:
    auditdb.install(create())  # The roles of the cluster, also where this test runs alone.
    role = f"deployer_{secrets.token_hex(4)}"
    dsn = create(role, "createrole")
    database = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    roles = "audit_owner, audit_mapper, audit_operator"
    with psycopg.connect(address) as conn:
        if conn.info.server_version >= 160000:
            # The roles are there already: stand where the role that created them stands.
            grant = f"grant {roles} to {role} with admin true, inherit false, set false"
            conn.execute(grant.encode())
    try:
        run(dsn, "create table membership (organization_id int, user_id int, role text)")
        if way == "install":
            auditdb.install(dsn)
            auditdb.install(dsn)
        else:
            run(dsn, auditdb.script())
        run(
            dsn,
            """select audit.attach('membership', 'membership');
            insert into membership values (1, 1, 'OWNER')""",
        )
        with psycopg.connect(dsn) as conn:
            for audit_role, expected in [("audit_operator", True), ("audit_owner", False)]:
                held = conn.execute("select pg_has_role(%s, %s, 'usage')", [role, audit_role])
                assert held.fetchone() == (expected,), audit_role
            for statement in (
                "select from audit.event",
                "insert into audit.event (action, result, actor_type, source) "
                "values ('x.y', 'success', 'user', 'web')",
                "select secret from audit_private.signing_key",
                "drop function audit_private.capture_1_insert() cascade",
                "set role audit_owner",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
                    conn.execute(statement.encode())
        with psycopg.connect(make_conninfo(address, dbname=database)) as conn:
            row = conn.execute("select action from audit.event where action !~ '^audit'")
            assert row.fetchall() == [("membership.added",)]
    finally:
        with psycopg.connect(dsn) as conn:
            conn.execute("drop table if exists membership")
        with psycopg.connect(address) as conn:
            conn.execute(f"revoke {roles} from {role} cascade".encode())


def test_the_script_refuses_to_run_outside_of_a_transaction(create: Create) -> None:
    dsn = create()
    begin = auditdb.script().partition("end\n$$;\n")[0] + "end\n$$;"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(begin.encode())
        with pytest.raises(psycopg.errors.NoActiveSqlTransaction, match="in one transaction"):
            conn.execute(auditdb.script().removeprefix(begin).partition("$$;")[0] + "$$;")
    assert is_untouched(dsn)


NEWER = "create or replace function audit.version() returns text return '0.10.0'"


def test_an_older_release_over_a_newer_one_is_refused_by_name(db: Database) -> None:
    run(db.dsn, f"set role audit_owner; {NEWER}")
    before = fingerprint(db.dsn)
    says = f"this database has auditdb 0.10.0, and this is {auditdb.__version__}"
    with pytest.raises(auditdb.Refused, match=f"{says}. Install 0.10.0 or later"):
        auditdb.install(db.dsn)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=says):
        run(db.dsn, auditdb.script())
    assert preview(db.dsn) == [f"would be refused: {says}"]
    result = CliRunner().invoke(main, ["--dsn", db.dsn, "install", "--dry-run"])
    assert (result.exit_code, result.stdout) == (1, f"would be refused: {says}\n")
    with db.connect() as conn:
        mends = {f.mend for f in doctor.diagnose(conn) if f.object == "audit.version()"}
    assert "-- install the package of that version, or a later one" in mends
    assert fingerprint(db.dsn) == before
    run(db.dsn, f"set role audit_owner; {NEWER.replace('0.10.0', '0.1.99')}")
    assert preview(db.dsn)[0] == f"would bring auditdb from 0.1.99 to {auditdb.__version__}"
    assert auditdb.install(db.dsn) == auditdb.__version__


def test_the_version_of_a_schema_is_read_and_not_run(create: Create) -> None:
    dsn = create()
    run(
        dsn,
        """create schema audit; create schema audit_private;
        create table audit_private.migration (migration_hash varchar(64) primary key,
            migration_id varchar(255), applied_at_utc timestamp);
        create function audit.version() returns text language plpgsql
            as $$ begin raise 'it ran'; return '9.0.0'; end $$""",
    )
    with pytest.raises(auditdb.Refused, match=r"has auditdb 9\.0\.0"):
        auditdb.install(dsn)


def test_a_dry_run_says_what_an_install_does_and_does_nothing(create: Create) -> None:
    dsn = create()
    said = preview(dsn)
    assert said[0] == f"would install auditdb {auditdb.__version__}"
    assert {"would create schema audit", "would create schema audit_private"} <= set(said)
    assert "would run migration auditdb.0002-tables" in said
    assert is_untouched(dsn)
    auditdb.install(dsn)
    run(dsn, "create table t (id int); select audit.attach('t', 'thing')")
    assert preview(dsn) == [
        f"would install auditdb {auditdb.__version__} again",
        "would write the functions of 1 attached table again",
    ]
    run(
        dsn,
        "drop policy auditors_read_everything on audit.event;"
        "drop function audit.list_members();"
        "create function audit.mine() returns int language sql return 1;"
        "revoke select on audit.log from audit_auditor",
    )
    before = fingerprint(dsn)
    assert {line.partition(": ")[2] for line in preview(dsn)[2:]} >= {
        "policy auditors_read_everything is missing", "is missing", "is none of auditdb's",
        "was granted by install, and is missing",
    }  # fmt: skip
    assert fingerprint(dsn) == before
    auditdb.install(dsn)
    assert len(preview(dsn)) == 2


@pytest.mark.parametrize("attributes", ["createrole", ""])
def test_a_dry_run_refuses_whom_an_install_refuses(
    create: Create, db: Database, attributes: str
) -> None:
    auditdb.install(create())  # The roles of the cluster, also where this test runs alone.
    role = f"second_{secrets.token_hex(4)}"
    dsn = create(role, attributes)
    says = f'role "{role}" may not grant the roles of auditdb'
    with psycopg.connect(dsn) as conn:
        may = bool(attributes) and conn.info.server_version < 160000
    if may:
        assert preview(dsn)[0].startswith("would install")
        assert auditdb.install(dsn)
        return
    assert preview(dsn) == [f"would be refused: {says}"]
    with pytest.raises(auditdb.Refused, match=f"{says}.*Install as a superuser"):
        auditdb.install(dsn)


def test_a_dry_run_waits_for_nobody_and_keeps_nobody_waiting(db: Database) -> None:
    conn = db.connect(autocommit=False)
    conn.execute("select pg_advisory_xact_lock(hashtextextended('auditdb', 0))")
    conn.execute("lock table audit.event, audit_private.attachment in row exclusive mode")
    assert preview(make_conninfo(db.dsn, options="-c lock_timeout=1ms"))


def test_twenty_installs_at_once_are_fine(create: Create) -> None:
    dsn, other = create(), create()
    failures: list[Exception] = []

    def install(target: str) -> None:
        try:
            auditdb.install(target)
        except Exception as error:
            failures.append(error)

    threads = [
        threading.Thread(target=install, args=[other if n % 5 == 0 else dsn]) for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert fingerprint(dsn) == fingerprint(other)


def test_install_waits_for_whoever_works_on_the_log(db: Database) -> None:
    conn = db.connect(autocommit=False)
    conn.execute("select pg_advisory_xact_lock(hashtextextended('auditdb', 0))")
    thread = threading.Thread(target=auditdb.install, args=[db.dsn])
    thread.start()
    waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
    while not (is_waiting := conn.execute(waits).fetchone() == (1,)) and thread.is_alive():
        thread.join(0.01)
    touched = conn.execute(
        "select count(*) from pg_locks as l join pg_class as c on c.oid = l.relation"
        " where c.relnamespace = 'audit_private'::regnamespace and l.pid <> pg_backend_pid()"
    ).fetchone()
    conn.rollback()
    thread.join()
    assert is_waiting and touched == (0,)


def test_foreign_schema_named_audit_is_refused_and_left_as_it_is(create: Create) -> None:
    dsn = create()
    run(dsn, "create schema audit; create table audit.event (mine int)")
    for attempt in (lambda: auditdb.install(dsn), lambda: run(dsn, auditdb.script())):
        with pytest.raises((auditdb.Refused, psycopg.Error)) as caught:
            attempt()
        assert 'schema "audit" exists already and is not auditdb\'s' in str(caught.value)
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select * from audit.event").fetchall() == []
        objects = "select count(*) from pg_class where relnamespace = 'audit'::regnamespace"
        assert conn.execute(objects).fetchone() == (1,)


def test_a_restore_by_another_is_told_from_a_lack_of_rights(create: Create) -> None:
    role = f"owner_{secrets.token_hex(4)}"
    dsn = create(role, "createrole")
    admin = make_conninfo(dsn, user="postgres")
    auditdb.install(admin)
    run(admin, "alter schema audit owner to postgres; alter schema audit_private owner to postgres;"
        "revoke all on schema audit, audit_private from audit_operator;"
        f"grant audit_owner, audit_mapper, audit_operator to {role} with admin option")  # fmt: skip
    try:
        run(admin, "revoke all on schema audit, audit_private from audit_owner")
        with pytest.raises(auditdb.Refused, match=r'restored by "postgres"\. Install as postgres'):
            auditdb.install(dsn)
        assert "would be refused: schema audit belongs to postgres" in preview(dsn)
    finally:
        run(admin, f"revoke audit_owner, audit_mapper, audit_operator from {role} cascade")


def test_a_part_of_the_log_is_refused_and_says_what_to_do(db: Database) -> None:
    run(db.dsn, "drop schema audit cascade")
    says = "schema audit_private exists, but the log, audit.event, does not"
    assert preview(db.dsn) == [f"would be refused: {says}"]
    with pytest.raises(auditdb.Refused, match=f"{says}.*drop schema audit_private cascade"):
        auditdb.install(db.dsn)
    run(db.dsn, "drop schema audit_private cascade")
    assert auditdb.install(db.dsn)
    db.connect("app").execute("update membership set role = 'X' where user_id = 2")


def test_host_s_own_yoyo_is_not_disturbed(create: Create, tmp_path: Path) -> None:
    dsn = create()
    mine = sorted(Path(auditdb.__file__).parent.parent.glob("sql/migrations/*.sql"))
    # The host's migration even has the very name of one of ours.
    (tmp_path / "0001.sql").write_text("create table host_one (id int)")
    (tmp_path / mine[0].name).write_text("create table host_two (id int)")
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    uri = "postgresql+psycopg://{user}:@{host}:{port}/{dbname}".format(**parts)

    def host_applies() -> int:
        with get_backend(uri) as backend:
            todo = backend.to_apply(read_migrations(str(tmp_path)))
            backend.apply_migrations(todo)
            return len(todo)

    assert host_applies() == 2
    auditdb.install(dsn)
    assert host_applies() == 0
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select count(*) from public._yoyo_migration").fetchone() == (2,)
        assert conn.execute("select count(*) from host_one, host_two").fetchone() == (0,)
        ours = conn.execute("select count(*) from audit_private.migration").fetchone()
        assert ours == (len(mine),)
        assert conn.execute("select count(*) from audit.event").fetchone() != (0,)


def test_address_may_be_a_uri_or_pairs_or_the_environment(
    create: Create, monkeypatch: pytest.MonkeyPatch
) -> None:
    for form in ("uri", "pairs", "environment"):
        dsn = create()
        parts = psycopg.conninfo.conninfo_to_dict(dsn)
        if form == "uri":
            auditdb.install("postgresql://{user}@{host}:{port}/{dbname}".format(**parts))
        elif form == "pairs":
            auditdb.install(dsn)
        else:
            for name, key in [("HOST", "host"), ("PORT", "port"), ("USER", "user"),
                ("DATABASE", "dbname"), ("PASSWORD", "password")]:  # fmt: skip
                monkeypatch.setenv(f"PG{name}", str(parts.get(key) or ""))
            auditdb.install()
        assert not is_untouched(dsn)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"port": "1"}, "port 1"),
        ({"dbname": "no_such_database"}, '"no_such_database" does not exist'),
        ({"user": "no_such_role"}, '"no_such_role" does not exist'),
        ({"host": "no-such-host.invalid", "hostaddr": None}, "no-such-host.invalid"),
    ],
)
def test_server_that_cannot_be_reached_is_one_line(
    address: str, change: dict[str, str | None], says: str
) -> None:
    with pytest.raises(auditdb.ConnectionFailed) as caught:
        auditdb.install(make_conninfo(address, connect_timeout=5, **change))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, psycopg.Error)


def test_address_that_is_none_is_one_line() -> None:
    with pytest.raises(auditdb.AuditError) as caught:
        auditdb.install("no address at all")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "postgresq", "mysql", "django"])
def test_address_of_another_scheme_is_told_how_one_begins(scheme: str) -> None:
    with pytest.raises(auditdb.InvalidInput, match=r"begins with postgresql://, ") as caught:
        auditdb.install(f"{scheme}://app:hunter2@localhost/shop")
    assert "hunter2" not in str(caught.value)


def test_where_nothing_says_where_the_database_is_the_variables_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PGUSER", "no_such_role")
    with pytest.raises(auditdb.ConnectionFailed, match="Set AUDITDB_DSN, or PGHOST"):
        auditdb.install()
    monkeypatch.setenv("PGHOST", "/no/such/socket")
    with pytest.raises(auditdb.ConnectionFailed) as caught:
        auditdb.install()
    assert "AUDITDB_DSN" not in str(caught.value)


def test_role_that_may_not_install_is_told_what_it_lacks(create: Create) -> None:
    auditdb.install(create())  # The roles of the cluster, also where this test runs alone.
    dsn = create(f"nobody_{secrets.token_hex(4)}")
    with pytest.raises(auditdb.Refused) as caught:
        auditdb.install(dsn)
    assert "\n" not in str(caught.value)
    assert re.search("run: (grant audit_owner|alter role nobody_)", str(caught.value))
    assert is_untouched(dsn)


HELD = "audit_owner, audit_mapper, audit_operator"


@pytest.mark.parametrize("state", ["another owner installed", "upgraded from PostgreSQL 15"])
@pytest.mark.parametrize("by", ["superuser", "first owner"])
def test_a_second_owner_installs_by_following_the_message_and_becomes_no_member(
    create: Create, address: str, by: str, state: str
) -> None:
    first, second = (f"deployer_{secrets.token_hex(4)}" for _ in range(2))
    attributes = "createrole" if state.startswith("upgraded") else ""
    dsns = [create(first, "createrole"), create(second, attributes)]
    auditdb.install(create())
    try:
        with psycopg.connect(address, autocommit=True) as admin:
            is_modern = admin.info.server_version >= 160000
            if is_modern:
                options = "with admin true, inherit false, set false"
                admin.execute(f"grant {HELD} to {first} {options}".encode())
            if state.startswith("upgraded"):
                # As the first install on 15 has left it, where CREATEROLE granted every role.
                admin.execute(f"grant audit_operator to {second}".encode())
            auditdb.install(dsns[0])
            if is_modern or not attributes:
                with pytest.raises(auditdb.Refused) as caught:
                    auditdb.install(dsns[1])
                assert is_untouched(dsns[1])
                command = re.search(r"run: ((?:grant|alter) .*)$", str(caught.value))
                assert command is not None
                says = admin
                if by == "first owner" and is_modern:
                    says = psycopg.connect(dsns[0], autocommit=True)
                says.execute(command[1].encode())
                says.close()
        auditdb.install(dsns[1])
        auditdb.install(dsns[1])
        for dsn, role in zip(dsns, (first, second), strict=True):
            with psycopg.connect(dsn, autocommit=True) as conn:
                found = doctor.diagnose(conn)
                assert not [f for f in found if f.severity == "critical"], found
                if is_modern:
                    [notice] = [f for f in found if f.object == role and "audit_owner" in f.problem]
                    assert notice.severity == "notice"
                    assert "every other database of the cluster" in notice.why
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute("select from audit.event")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute("set role audit_owner")
    finally:
        with psycopg.connect(address) as conn:
            conn.execute(f"revoke {HELD} from {second}, {first} cascade".encode())


def test_install_leaves_the_environment_alone(create: Create) -> None:
    before = dict(os.environ)
    auditdb.install(create())
    assert dict(os.environ) == before


def test_no_search_path_redirects_the_install(create: Create) -> None:
    dsn = create()
    # Nearer than the functions of PostgreSQL, for whoever asks in the path of the database.
    run(dsn, "create schema evil; grant usage on schema evil to public;"
        "create function evil.split_part(text, text, int) returns text language sql immutable"
        " as $$ select 'redirected' $$;"
        # Which bootstrap.sql asks, before yoyo's work is pinned once more.
        "create function evil.current_setting(text) returns text language plpgsql"
        " as $$ begin raise 'redirected'; end $$")  # fmt: skip
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    run(dsn, f'alter database "{name}" set search_path = evil, pg_catalog')
    auditdb.install(dsn)
    with psycopg.connect(dsn) as conn:
        conn.execute("set search_path = pg_catalog")
        view = conn.execute("select pg_get_viewdef('audit.log'::regclass)").fetchone()
    assert view is not None
    assert "split_part" in view[0] and "evil" not in view[0]
