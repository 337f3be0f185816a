"""Functions of an older release: they make no call ambiguous, and go with the install."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import auditdb
from auditdb.operate import source
from tests.conftest import Database
from tests.fingerprint import fingerprint


def by_install(dsn: str) -> None:
    auditdb.install(dsn)


def by_script(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        conn.execute(auditdb.script().encode())


def as_owner(db: Database, statements: str) -> None:
    with psycopg.connect(db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.execute(statements.encode())


# Each stands in the way of the release: a call that is ambiguous, an argument of another name, a
# default too many, another result, functions that call each other.
OLDER = {
    "ambiguous": """create function
            audit_private.is_secret(column_name text, kind text default null)
        returns boolean language sql immutable return false""",
    "argument renamed": """drop function audit_private.guard(regclass);
        create function audit_private.guard(relation regclass) returns void language sql as ''""",
    "default removed": """create or replace function
            audit_private.guard(target regclass default null)
        returns void language plpgsql as 'begin end'""",
    "result changed": """drop function audit.list_keys();
        create function audit.list_keys() returns text language sql as 'select null'""",
    "depends on another": """create function audit.first() returns int language sql return 1;
        create function audit.second() returns int language sql return audit.first()""",
    "called by what stays": """create function audit.gone() returns int language sql return 15;
        create or replace function audit.version() returns text language sql immutable
            set search_path = pg_catalog, pg_temp return audit.gone()::text""",
    "procedure": "create procedure audit.act() language sql as 'select 1'",
    "foreign": """reset role; create function audit.foreign(int) returns int
        language sql return $1""",
}


@pytest.mark.parametrize("upgrade", [by_install, by_script])
@pytest.mark.parametrize("older", OLDER)
def test_what_the_release_does_not_define_is_dropped(
    db: Database, older: str, upgrade: Any
) -> None:
    before = fingerprint(db.dsn)
    as_owner(db, OLDER[older])
    assert fingerprint(db.dsn) != before
    upgrade(db.dsn)
    assert fingerprint(db.dsn) == before
    db.connect("app").execute("update membership set role = 'X' where user_id = 2")
    assert db.actions() == ["membership.role_changed"]


@pytest.mark.parametrize("older", ["ambiguous", "argument renamed", "default removed"])
def test_without_setting_aside_an_older_function_fails_the_install(
    db: Database, older: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_owner(db, OLDER[older])
    read = source.read
    without = read("manifest").replace("operate/set_aside.sql\n", "")
    monkeypatch.setattr(source, "read", lambda name: without if name == "manifest" else read(name))
    with pytest.raises(auditdb.AuditError):
        auditdb.install(db.dsn)


def test_functions_keep_their_oid_whatever_is_set_aside(db: Database) -> None:
    query = (
        "select proname, oid from pg_proc"
        " where pronamespace::regnamespace::text ~ '^audit' order by 2"
    )
    conn = db.connect()
    before = conn.execute(query).fetchall()
    as_owner(db, OLDER["ambiguous"])
    auditdb.install(db.dsn)
    assert conn.execute(query).fetchall() == before


def test_functions_of_tables_that_are_detached_go_and_of_attached_ones_stay(db: Database) -> None:
    as_owner(db, "create function audit_private.image_999() returns int language sql return 1")
    auditdb.install(db.dsn)
    conn = db.connect()
    names = "select proname from pg_proc where pronamespace::regnamespace::text ~ '^audit'"
    found = {name for (name,) in conn.execute(names)}
    assert "image_999" not in found
    assert {"capture_1_insert", "read_4", "admin_1"} <= found


def test_an_object_that_needs_a_stale_function_is_named(db: Database) -> None:
    as_owner(db, "create function audit.gone() returns int language sql return 1")
    db.connect().execute("create view public.report as select audit.gone()")
    with pytest.raises(auditdb.AuditError, match="depend") as refused:
        auditdb.install(db.dsn)
    assert "report" in str(refused.value)
    db.connect().execute("drop view public.report")
    auditdb.install(db.dsn)
