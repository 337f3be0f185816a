"""standard_conforming_strings = off: a session's setting changes nothing that auditdb reads."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import auditdb
from auditdb.connection.pin import pinned
from auditdb.mapping.apply import apply
from auditdb.mapping.file import TableMapping
from auditdb.mapping.plan import plan
from auditdb.operate import install
from tests.conftest import Database
from tests.server import Server
from tests.test_secrets import TEXTS, holds

SHOW = "show standard_conforming_strings"
OFF = "set standard_conforming_strings = off; set backslash_quote = off"
# What an underscore is to LIKE depends on the backslash before it.
OWNERS = r"case when r.ref like 'ext\_%' then r.owner_org else r.organization_id end"


@pytest.fixture
def notes(empty_db: Database) -> Database:
    owner = empty_db.connect("app_owner")
    owner.execute(
        "create table note (id int generated always as identity primary key, body text, doc jsonb,"
        " raw bytea); grant all on note to app; select audit.attach('note', 'note')"
    )
    return empty_db


def test_no_canary_is_left_where_strings_do_not_conform(notes: Database) -> None:
    conn = notes.connect("app")
    conn.execute(OFF)
    for text in TEXTS.values():
        conn.execute(
            "insert into note (body, doc, raw) values (%s, to_jsonb(array[%s]), %s)",
            [text, text, text.encode()],
        )
    events = notes.events()
    assert len(events) == len(TEXTS)
    assert [e["details"] for e in events if "degraded" in (e["details"] or {})] == []
    left = [n for n, e in zip(TEXTS, events, strict=True) if holds(str(e["new_values"]))]
    assert left == []


def test_a_row_of_a_changed_table_is_recorded_where_strings_do_not_conform(
    notes: Database,
) -> None:
    notes.connect("app_owner").execute("alter table note add column extra int")
    conn = notes.connect("app")
    conn.execute(OFF)
    conn.execute("insert into note (body) values ('Authorization: Bearer CANARY7abc123')")
    (event,) = notes.events()
    assert event["new_values"]["body"] == "Authorization: [redacted]"
    assert "degraded" not in (event["details"] or {})


@pytest.mark.parametrize("is_fallback", [False, True], ids=["generated code", "fallback"])
def test_an_expression_says_the_same_whatever_the_writer_sets(
    empty_db: Database, is_fallback: bool
) -> None:
    owner = empty_db.connect("app_owner")
    owner.execute(
        "create table doc (id int generated always as identity primary key, ref text,"
        " organization_id int, owner_org int); grant all on doc to app"
    )
    owner.execute("select audit.attach('doc', 'doc', organization => %s)", [OWNERS])
    if is_fallback:
        owner.execute("alter table doc add column extra int")
    for setting in ("on", "off"):
        conn = empty_db.connect("app")
        conn.execute(f"set standard_conforming_strings = {setting}".encode())
        for ref in ("ext_1", "extra"):
            conn.execute("insert into doc (ref, organization_id, owner_org) values (%s, 1, 2)",
                [ref])  # fmt: skip
    told = [event["organization_id"] for event in empty_db.events()]
    assert told == ["2", "1", "2", "1"]


def test_an_admin_is_one_whatever_the_reader_sets(empty_db: Database) -> None:
    owner = empty_db.connect("app_owner")
    owner.execute("create table member (organization_id int, user_id int, role text,"
        " primary key (organization_id, user_id));"
        " insert into member values (1, 1, 'extra'), (1, 2, 'ext_1')")  # fmt: skip
    admin = r"r.role like 'ext\_%'"
    owner.execute("select audit.attach('member', 'membership', admin => %s)", [admin])
    conn = empty_db.connect()
    conn.execute(OFF)
    for user, wanted in (("1", False), ("2", True)):
        row = conn.execute("select audit_private.is_admin('1', %s)", [user]).fetchone()
        assert row == (wanted,)


def test_a_mapping_is_compared_and_applied_alike_whatever_the_session_sets(
    notes: Database,
) -> None:
    owner = notes.connect("app_owner")
    mapping = TableMapping("note", "note", {"alive": r"r.body not like '\_%'"})
    owner.execute(OFF)
    assert [c.verb for c in plan(owner, [mapping])] == ["remap"]
    assert [c.verb for c in apply(owner, [mapping])] == ["remap"]
    assert [c.verb for c in plan(owner, [mapping])] == ["unchanged"]
    assert owner.execute(SHOW).fetchone() == ("off",)


def test_in_the_pin_strings_conform(notes: Database) -> None:
    conn = notes.connect()
    conn.execute(OFF)
    with conn.transaction():
        with pinned(conn, writes=True):
            assert conn.execute(SHOW).fetchone() == ("on",)
        assert conn.execute(SHOW).fetchone() == ("off",)


@pytest.fixture
def off(empty_db: Database) -> Iterator[str]:
    """The address of a database that sets it to off, without auditdb."""
    name = f"{conninfo_to_dict(empty_db.dsn)['dbname']}_off"
    admin = empty_db.connect()
    identifier = sql.Identifier(name)
    admin.execute(sql.SQL("create database {} template template0").format(identifier))
    admin.execute(
        sql.SQL("alter database {} set standard_conforming_strings = off").format(identifier)
    )
    yield make_conninfo(empty_db.dsn, dbname=name)
    admin.execute(sql.SQL("drop database {} with (force)").format(identifier))


def redacted(dsn: str) -> Any:
    with psycopg.connect(dsn) as conn:
        row = conn.execute("select audit_private.redact_text('X: Bearer CANARY7abc123')").fetchone()
    assert row is not None
    return row[0]


def test_install_into_a_database_whose_strings_do_not_conform(off: str) -> None:
    auditdb.install(off)
    assert redacted(off) == "X: Bearer [redacted]"
    auditdb.install(off)


def test_the_script_into_a_database_whose_strings_do_not_conform(off: str, server: Server) -> None:
    # The tools may be older than the libpq that wrote the address.
    known = ("host", "port", "user", "dbname")
    address = {k: v for k, v in conninfo_to_dict(off).items() if k in known}
    target = make_conninfo("", **address)
    assert server.bin is not None
    run = subprocess.run(
        [server.bin / "psql", "-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", target],
        input=install.script(), text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert redacted(off) == "X: Bearer [redacted]"
