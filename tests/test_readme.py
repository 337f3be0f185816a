"""The README and docs/views.md: what they show runs as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import auditdb
from tests.conftest import Database

ROOT = Path(__file__).parent.parent
# What the README takes for granted of an application.
TABLES = """
create table membership (
    organization_id int, user_id int, role text, primary key (organization_id, user_id)
);
create table workflow (id int primary key, organization_id int, name text);
create table workflow_step (id int primary key, workflow_id int references workflow, name text);
create table "Team" (id int primary key, "orgId" int);
create table "ApiKey" (
    id int primary key, "teamId" int references "Team", "userId" int, "revokedAt" timestamptz,
    "lastUsedAt" timestamptz, "hashedKey" text
);
create table invoice (id int primary key, organization_id int, total int);
insert into membership values (1, 2, 'MEMBER'), (1, 7, 'OWNER');
insert into workflow values (5, 1, 'w');
"""


def blocks(name: str, language: str) -> list[str]:
    text = (ROOT / name).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def shop(empty_db: Database) -> Database:
    """An application's database with auditdb, attached by the SQL of the README."""
    conn = empty_db.connect()
    conn.execute(TABLES.encode())
    grant, attach = blocks("README.md", "sql")
    conn.execute("grant all on all tables in schema public to app")
    for statements in (grant, attach):
        conn.execute(statements.encode())
    return empty_db


def test_the_sql_attaches_and_records(shop: Database) -> None:
    (event,) = shop.events()
    assert (event["action"], event["actor_id"]) == ("membership.role_changed", "7")
    assert event["details"]["ip"] == "203.0.113.9"
    attached = shop.connect().execute("select count(*) from audit_private.attachment").fetchone()
    assert attached == (5,)


def test_the_python_records_and_reads(
    shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forbidden(Exception):
        pass

    def promote(*_: Any) -> None:
        raise Forbidden

    shop.connect().execute("update membership set role = 'MEMBER' where user_id = 2")
    monkeypatch.setenv("AUDITDB_KEY", shop.key)
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {
        "dsn": shop.conninfo("app"), "reader_dsn": shop.conninfo("app_reader"),
        "auditor_dsn": shop.conninfo("app_auditor"), "user": SimpleNamespace(id=7), "os": os,
        "admin": SimpleNamespace(id=1), "request": SimpleNamespace(ip="192.0.2.1"),
        "Forbidden": Forbidden, "promote": promote,
    }  # fmt: skip
    write, read = blocks("README.md", "python")
    with pytest.raises(Forbidden):
        exec(write, known)
    events = shop.events()[2:]
    assert [(e["action"], e["result"], e["actor_id"], e["impersonator_id"]) for e in events] == [
        ("membership.role_changed", "success", "7", None),
        ("auth.login", "success", "7", None),
        ("auth.impersonation_started", "success", "1", "1"),
        ("workflow.modified", "success", "7", "1"),
        ("membership.role_changed", "denied", "app", None),
    ]
    exec(read, known)
    of_one = [e for e in shop.events() if e["organization_id"] == "1"]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == len(of_one)
    assert len(known["events"]) >= len(of_one) and isinstance(known["page"], auditdb.Page)


@pytest.fixture
def all_roles(shop: Database) -> Iterator[None]:
    """The one login of the README's commands holds each role while they run."""
    roles = "audit_writer, audit_reader, audit_auditor"
    admin = shop.connect()
    admin.execute(f"grant {roles} to app_owner".encode())
    yield
    admin.execute(f"revoke {roles} from app_owner".encode())


@pytest.mark.usefixtures("all_roles")
def test_the_commands_run(shop: Database, tmp_path: Path) -> None:
    """Each block of shell that neither installs the package itself nor runs on for ever."""
    scripts = [
        block
        for block in blocks("README.md", "sh")
        if "make demo" not in block and "--every" not in block
    ]
    assert len(scripts) == 3
    environment = {
        **os.environ, "AUDITDB_DSN": shop.dsn, "LC_ALL": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    for script in scripts:
        lines = [line for line in script.splitlines() if "pipx" not in line and "DSN=" not in line]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), script


def test_the_views_answer(shop: Database) -> None:
    conn = shop.connect("app_auditor")
    queries = blocks("docs/views.md", "sql")
    assert len(queries) >= 7
    for query in queries:
        conn.execute(query.encode())
