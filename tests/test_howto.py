"""The how-to guides: what they show runs as it stands there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import auditdb
from auditdb import auth
from tests.conftest import Database
from tests.test_readme import TABLES, blocks


@pytest.fixture
def shop(empty_db: Database) -> Database:
    """A database of two members and some events of theirs."""
    conn = empty_db.connect()
    conn.execute(TABLES.encode())
    for statement in blocks("docs/howto-migrations.md", "sql"):
        conn.execute(statement.encode())
    conn.execute("grant all on all tables in schema public to app")
    app = empty_db.connect("app")
    with auditdb.context(app, actor_id="7", organization_id="1"):
        app.execute("update membership set role = 'ADMIN' where user_id = 2")
        app.execute("insert into invoice values (1, 1, 100)")
    auditdb.record(app, auth.login("2", organization_id="1"))
    return empty_db


def shell(shop: Database, folder: Path, script: str) -> str:
    program = f'auditdb() {{ {sys.executable} -m auditdb "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", program + script],
        cwd=folder, env={**os.environ, "AUDITDB_DSN": shop.dsn, "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("in_a_block", [False, True])
def test_the_script_installs_as_one_query_and_in_a_transaction(
    empty_db: Database, in_a_block: bool
) -> None:
    admin = empty_db.connect()
    admin.execute("create database auditdb_howto template template0")
    try:
        other = make_conninfo(empty_db.dsn, dbname="auditdb_howto")
        with psycopg.connect(other, autocommit=True) as conn:
            with conn.transaction() if in_a_block else nullcontext():
                conn.execute(auditdb.script().encode())
            conn.execute(TABLES.encode())
            attach, reattach = blocks("docs/howto-migrations.md", "sql")
            conn.execute(attach.encode())
            conn.execute("alter table invoice add column note text")
            conn.execute(reattach.encode())
            conn.execute("insert into invoice values (1, 1, 100, 'n')")
            (event,) = conn.execute(
                "select new_values from audit.event where action = 'invoice.created'"
            ).fetchall()
        assert event[0]["note"] == "n"
        assert "${" not in auditdb.script()
    finally:
        admin.execute("drop database auditdb_howto")


def test_the_commands_and_queries_for_auditors_run(shop: Database, tmp_path: Path) -> None:
    seal = "auditdb seal init --key-file seal.key --name example.com/audit\n"
    shell(shop, tmp_path, f"{seal}auditdb seal --key-file seal.key")
    conn = shop.connect("app_auditor")
    login, *queries = blocks("docs/howto-auditors.md", "sql")
    shop.connect().execute(login.replace("carla", "auditdb_carla").encode())
    try:
        for query in queries:
            for statement in filter(str.strip, query.split(";\n")):
                assert conn.execute(statement.encode()).description
        for script in blocks("docs/howto-auditors.md", "sh"):
            shell(shop, tmp_path, script)
    finally:
        shop.connect().execute("drop role auditdb_carla")
    assert "membership.role_changed" in (tmp_path / "log.csv").read_text()
    assert (tmp_path / "acme.zip").stat().st_size > 1000


def test_what_is_kept_about_a_person_is_printed_and_then_erased(
    shop: Database, tmp_path: Path
) -> None:
    scripts = blocks("docs/howto-gdpr.md", "sh")
    shell(shop, tmp_path, scripts[0])
    kept = [json.loads(line) for line in (tmp_path / "person.jsonl").read_text().splitlines()]
    assert {event["action"] for event in kept} == {"membership.role_changed", "auth.login"}
    assert shop.events("subject_id = '2'")
    for script in scripts[1:]:
        shell(shop, tmp_path, script)
    assert shop.events("subject_id = '2'") == []
    assert (tmp_path / "acme.jsonl").read_text().count("\n") > len(kept)
