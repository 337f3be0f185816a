"""Pins: whoever may create objects in the session's path has none of them run by auditdb."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.rows import dict_row, tuple_row

import auditdb
from auditdb import AuditError
from auditdb.cli import main
from auditdb.detect import catalog
from auditdb.detect.propose import detect
from auditdb.mapping import plan as mapping_plan
from auditdb.mapping.apply import apply
from auditdb.mapping.file import TableMapping
from auditdb.operate import doctor
from auditdb.operate.maintain import maintain
from auditdb.operate.status import status
from tests.conftest import Database

# Better matches than PostgreSQL's own wherever public is in the path at all.
NEARER = """
create function public.caught() returns boolean language plpgsql as
    $$ begin raise exception 'shadowed: run as %', current_user; end $$;
create function public.format(text, name, name) returns text language sql
    as 'select public.caught()::pg_catalog.text';
create function public.quote_ident(name) returns text language sql
    as 'select public.caught()::pg_catalog.text';
create function public.unnest(int2[]) returns setof int2 language sql
    as 'select 1::pg_catalog.int2 where public.caught()';
create function public.same(oid, regclass) returns boolean language sql
    as 'select public.caught()';
create operator public.= (leftarg = oid, rightarg = regclass, function = public.same);
create function public.same(name, text) returns boolean language sql as 'select public.caught()';
create operator public.= (leftarg = name, rightarg = text, function = public.same);
create function public.text_of(jsonb, text) returns text language sql
    as 'select public.caught()::pg_catalog.text';
"""
# Equals of PostgreSQL's own, which count where the path names pg_catalog after public.
EQUAL = """
create function public.current_setting(text) returns text language sql
    as 'select public.caught()::pg_catalog.text';
create function public.current_setting(text, boolean) returns text language sql
    as 'select public.caught()::pg_catalog.text';
create function public.set_config(text, text, boolean) returns text language sql
    as 'select public.caught()::pg_catalog.text';
create function public.to_regclass(text) returns regclass language sql
    as 'select null::pg_catalog.regclass where public.caught()';
create operator public.->> (leftarg = jsonb, rightarg = text, function = public.text_of);
create function public.same(text, text) returns boolean language sql as 'select public.caught()';
create operator public.= (leftarg = text, rightarg = text, function = public.same);
create operator public.<> (leftarg = jsonb, rightarg = jsonb, function = public.differ);
create domain public.oid as pg_catalog.oid check (public.caught());
create domain public.int8 as pg_catalog.int8 check (public.caught());
create domain public.regclass as pg_catalog.regclass check (public.caught());
create domain public.jsonb as pg_catalog.jsonb check (public.caught());
""".replace(
    "create operator public.<>",
    "create function public.differ(jsonb, jsonb) returns boolean language sql\n"
    "    as 'select public.caught()';\ncreate operator public.<>",
)
PATHS = {"public before the others": "public", "pg_catalog last": "public, pg_catalog"}


@pytest.fixture(params=list(PATHS.values()), ids=list(PATHS))
def shadowed(db: Database, request: pytest.FixtureRequest) -> Database:
    """A database where a stranger shadows what PostgreSQL defines, in the path of everybody."""
    path = request.param
    db.connect("app_owner").execute("grant create on schema public to stranger")
    name = psycopg.sql.Identifier(db.connect().info.dbname)
    db.connect("stranger").execute((NEARER + EQUAL).encode())
    db.connect().execute(
        psycopg.sql.SQL("alter database {} set search_path = {}").format(
            name, psycopg.sql.SQL(path)
        )
    )
    return db


COMMANDS = {
    "detect": ("detect",),
    "attach --dry-run": ("attach", "workflow", "workflow", "--dry-run"),
    "attach --dry-run of a table that is not": ("attach", "workflows", "workflow", "--dry-run"),
    "attach": ("attach", "workflow", "workflow", "--target-id", "id"),
    "attach of a mapping file": ("attach", "auditdb.toml"),
    "detach": ("detach", "workflow"),
    "doctor": ("doctor",),
    "doctor --fix": ("doctor", "--fix"),
    "status": ("status",),
    "key create": ("key", "create"),
    "key list": ("key", "list"),
    "log": (
        "log",
        "--viewer-id",
        "1",
        "--organization-id",
        "1",
        "--actor-id",
        "7",
        "--since",
        "2026-01-01",
    ),
    "record": ("record", "auth.login", "--subject-id", "7", "--detail", "a=b"),
    "maintain": ("maintain", "--keep", "24 months"),
    "install": ("install",),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_no_command_runs_what_a_stranger_put_into_the_path(
    shadowed: Database, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("auditdb.toml").write_text(
        "[[table]]\nname = 'public.workflow'\nkind = 'workflow'\n"
        "[[table]]\nname = 'membership'\nkind = 'membership'\n"
    )
    owner = shadowed.connect("app_owner")
    owner.execute("alter table public.membership disable trigger auditdb_update")
    result = CliRunner().invoke(
        main, ["--dsn", shadowed.dsn, *command], env={"AUDITDB_KEY": shadowed.key}
    )
    assert "shadowed" not in result.output + str(result.exception)
    refused = {"attach --dry-run of a table that is not", "doctor"}
    assert result.exit_code == (command in [COMMANDS[name] for name in refused]), result.output


@pytest.mark.parametrize(
    "query",
    [catalog._TABLES, "select quote_ident(relname) from pg_class"],
    ids=["tables", "quoting"],
)
def test_naive_twin_the_same_queries_without_the_pin_run_it(shadowed: Database, query: str) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match="shadowed: run as postgres"):
        shadowed.connect().execute(query.encode())


def test_contexts_and_records_of_the_library_run_nothing_of_it(shadowed: Database) -> None:
    conn = shadowed.connect("app")
    for _ in range(2):
        with auditdb.context(conn, actor_id=7, details={"ip": "192.0.2.1"}):
            with auditdb.context(conn, source="api"):
                auditdb.record(conn, auditdb.auth.login(7))
            with pytest.raises(ZeroDivisionError), auditdb.attempt(conn, "a.b"):
                raise ZeroDivisionError
    assert {e["details"]["ip"] for e in shadowed.events()} == {"192.0.2.1"}


def test_a_name_without_schema_is_found_in_the_path_of_the_login(db: Database) -> None:
    owner = db.connect("app_owner")
    db.connect().execute("grant create on database " + owner.info.dbname + " to app_owner")
    owner.execute("create schema shop")
    owner.execute('create table shop."Invoice" (id int primary key)')
    owner.execute("set search_path = shop, public")
    change = apply(owner, [TableMapping('"Invoice"', "invoice")])[0]
    assert change.verb == "attach"
    change = mapping_plan.plan(owner, [TableMapping('shop."Invoice"', "invoice")])[0]
    assert change.verb == "unchanged"
    auditdb.detach(owner, '"Invoice"')
    auditdb.attach(owner, '"Invoice"', "invoice")


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_name_that_is_not_in_the_path_gets_one_line(db: Database, dry: tuple[str, ...]) -> None:
    db.connect("app_owner").execute("create table public.invoice (id int primary key)")
    dsn = db.conninfo("app_owner") + " options='-c search_path=pg_catalog'"
    result = CliRunner().invoke(main, ["--dsn", dsn, "attach", "invoice", "invoice", *dry])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no table invoice" in result.stderr and "public.invoice" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_times_are_read_whatever_the_style_of_the_session(db: Database) -> None:
    db.connect().execute(f"alter database {db.connect().info.dbname} set datestyle = 'German'")
    db.connect().execute("select audit.create_key()")
    for args in (("status",), ("key", "list"), ("doctor", "--json"), ("status", "--json")):
        result = CliRunner().invoke(main, ["--dsn", db.dsn, *args])
        assert not isinstance(result.exception, NotImplementedError), args


def raising(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(AuditError):
        mapping_plan.plan(conn, [TableMapping("workflow", "Nope")])


def refused(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(AuditError):
        apply(conn, [TableMapping("workflow", "workflow", {"subject": "nope"})])


def unfixed(conn: psycopg.Connection[Any]) -> None:
    command = "select set_config('search_path', 'nowhere', false), 1 / 0"
    bad = doctor.Finding(
        check_name="x", severity="notice", object="x", problem="x", why="x", mend=command,
        fixable=True,
    )  # fmt: skip
    assert "refused: division by zero" in doctor.fix(conn, [bad])[0]


CALLS: dict[str, Callable[[psycopg.Connection[Any]], object]] = {
    "detect": detect,
    "plan": lambda conn: mapping_plan.plan(conn, [TableMapping("workflow", "workflow")]),
    "plan refused": raising,
    "apply": lambda conn: apply(conn, [TableMapping("workflow", "workflow")]),
    "apply refused": refused,
    "attach": lambda conn: auditdb.attach(conn, "workflow", "workflow", ignore=["name"]),
    "diagnose": doctor.diagnose,
    "fix": lambda conn: doctor.fix(conn, doctor.diagnose(conn)),
    "fix refused": unfixed,
    "status": status,
    "maintain": maintain,
}


@contextmanager
def _around(conn: psycopg.Connection[Any], inside: bool) -> Iterator[None]:
    if not inside:
        yield
        return
    with conn.transaction(force_rollback=True):
        conn.execute("set local statement_timeout = '1h'")
        yield


def settings(conn: psycopg.Connection[Any]) -> dict[str, str]:
    return dict(
        psycopg.Cursor(conn, row_factory=tuple_row)
        .execute("select name, setting from pg_settings")
        .fetchall()
    )


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_the_settings_of_the_session_are_as_they_were(
    db: Database, call: Callable[[psycopg.Connection[Any]], object]
) -> None:
    owner = db.connect("app_owner")
    conn = db.connect(row_factory=dict_row, cursor_factory=psycopg.RawCursor)
    conn.execute("set search_path = public, pg_catalog")
    conn.execute("set datestyle = 'SQL, DMY'")
    conn.execute("set intervalstyle = 'iso_8601'")
    conn.execute("do $$ begin end $$")  # Its first use defines settings of PL/pgSQL.
    before = settings(conn)
    for autocommit, inside in ((True, False), (True, True), (False, False), (False, True)):
        owner.execute("alter table workflow disable trigger auditdb_update")
        conn.autocommit = autocommit
        with _around(conn, inside):
            within = settings(conn)
            if not inside:
                conn.commit()
            call(conn)
            assert settings(conn) == within
        conn.commit()
        assert settings(conn) == before
        conn.commit()
        assert conn.autocommit is autocommit


POOLED = ["detect", "attach", "detach", "doctor", "status", "key list", "log", "record", "maintain"]


@pytest.mark.parametrize("command", POOLED)
def test_a_pooler_hands_on_nothing_of_a_command(
    db: Database, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn = db.connect(autocommit=False)
    conn.execute("do $$ begin end $$")
    before = settings(conn)
    conn.commit()

    @contextmanager
    def pooled(*_: object, **__: object) -> Iterator[psycopg.Connection[Any]]:
        with conn.transaction():
            pass
        yield conn
        conn.commit()

    monkeypatch.setattr("psycopg.connect", pooled)
    result = CliRunner().invoke(main, COMMANDS[command], env={"AUDITDB_KEY": db.key})
    assert result.exit_code == 0, result.output
    assert settings(conn) == before


def test_json_of_a_status_in_another_style_is_iso(db: Database) -> None:
    dsn = db.conninfo() + " options='-c datestyle=German'"
    result = CliRunner().invoke(main, ["--dsn", dsn, "status", "--json"])
    assert result.exit_code == 0, result.output
    attached = json.loads(result.stdout)["tables"][0]["attached_at"]
    assert attached[4] == attached[7] == "-"
