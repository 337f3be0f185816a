"""Every command works through a pooler in transaction mode, and leaves nothing for the next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo

import auditdb
from auditdb.cli import main
from tests.conftest import APPLICATION, Database
from tests.pooler import pooler
from tests.server import Server

# What of a session another client of its server connection would meet.
LEFT = """
select current_user::text, current_setting('search_path'), current_setting('lock_timeout'),
    current_setting('client_min_messages'), current_setting('row_security'),
    current_setting('DateStyle'), current_setting('statement_timeout'),
    (select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'),
    (select count(*) from pg_prepared_statements), (select count(*) from pg_cursors where
        is_holdable), nullif(current_setting('auditdb.before', true), ''),
    nullif(current_setting('auditdb.context', true), ''),
    nullif(current_setting('auditdb.viewer', true), '')
"""


@pytest.fixture(scope="module")
def port(server: Server) -> Iterator[int]:
    with pooler(server) as port:
        yield port


def left(dsn: str, port: int, role: str) -> tuple[object, ...]:
    """Return what a new client meets on the one server connection of a role."""
    through = make_conninfo(dsn, port=port, user=role, password="secret")
    with psycopg.connect(through, autocommit=True, prepare_threshold=None) as conn:
        row = conn.execute(LEFT.encode()).fetchone()
    assert row is not None
    return row


def command(db: Database, port: int, role: str, *args: str, **env: str) -> str:
    """Run a command through the pooler, and demand that it leaves nothing behind."""
    before = left(db.dsn, port, role)
    dsn = make_conninfo(db.conninfo(role), port=port)
    result = CliRunner().invoke(main, ["--dsn", dsn, *args], env=env)
    assert result.exit_code == 0, result.output
    assert left(db.dsn, port, role) == before, args
    return result.stdout


def test_every_command_works_through_a_pooler_and_leaves_nothing(
    empty_db: Database, port: int, tmp_path: Path
) -> None:
    db = empty_db
    db.connect().execute("drop schema audit, audit_private cascade")
    db.connect("app_owner").execute(APPLICATION)
    admin = db.connect()
    admin.execute("alter role app_owner createrole")
    admin.execute(f'grant create on database "{admin.info.dbname}" to app_owner')
    held = "audit_owner, audit_mapper, audit_operator"
    if admin.info.server_version >= 160000:
        admin.execute(f"grant {held} to app_owner with admin true, inherit false, set false")
    try:
        assert "is installed" in command(db, port, "app_owner", "install")
        assert "is installed" in command(db, port, "app_owner", "install")
        mapping = tmp_path / "auditdb.toml"
        mapping.write_text(command(db, port, "app_owner", "detect"))
        command(db, port, "app_owner", "attach", str(mapping), "--dry-run")
        command(db, port, "app_owner", "attach", str(mapping))
        command(db, port, "app_owner", "status")
        key = command(db, port, "app_owner", "key", "create").strip()
        key = command(db, port, "app_owner", "key", "rotate", "--grace", "0").strip()
        command(db, port, "app_owner", "key", "list")
        command(db, port, "app", "record", "auth.login", "--organization-id", "1")
        db.connect("app").execute("update membership set role = 'X' where user_id = 2")
        shown = command(
            db, port, "app_reader", "log", "--viewer-id", "1", "--organization-id", "1",
            AUDITDB_KEY=key,
        )  # fmt: skip
        assert "membership.role_changed" in shown
        every = ["log", "--auditor", "--all", "--organization-id", "1", "--format"]
        for form in ("jsonl", "csv", "table"):
            assert "membership.role_changed" in command(db, port, "app_auditor", *every, form)
        command(db, port, "app_owner", "maintain", "--keep", "24months")
        command(db, port, "app_owner", "detach", "workflow_step")
        for args in (["doctor"], ["doctor", "--fix"]):
            before = left(db.dsn, port, "app_owner")
            dsn = make_conninfo(db.conninfo("app_owner"), port=port)
            result = CliRunner().invoke(main, ["--dsn", dsn, *args])
            assert result.exit_code in (0, 1) and "Error" not in result.stderr
            assert left(db.dsn, port, "app_owner") == before
    finally:
        admin.execute("alter role app_owner nocreaterole")
        admin.execute(f"revoke {held} from app_owner cascade")
        admin.execute("grant audit_operator to app_owner")


def test_the_library_works_through_a_pooler_and_leaves_nothing(db: Database, port: int) -> None:
    before = left(db.dsn, port, "app")
    through = make_conninfo(db.conninfo("app"), port=port)
    with psycopg.connect(through, autocommit=True, prepare_threshold=None) as conn:
        with auditdb.context(conn, actor_id=7, source="web"):
            conn.execute("update membership set role = 'X' where user_id = 2")
        auditdb.record(conn, "auth.login", organization_id=1)
    assert left(db.dsn, port, "app") == before
    assert db.actions() == ["membership.role_changed", "auth.login"]


def test_the_script_leaves_nothing_and_lets_its_transaction_go_on(db: Database, port: int) -> None:
    before = left(db.dsn, port, "postgres")
    through = make_conninfo(db.dsn, port=port, user="postgres")
    with psycopg.connect(through, prepare_threshold=None) as conn:
        conn.execute("set local search_path = public; set local lock_timeout = '7s'")
        conn.execute(auditdb.script().encode())
        row = conn.execute("show search_path").fetchone(), conn.execute("show role").fetchone()
        assert row == (("public",), ("none",))
        assert conn.execute("show lock_timeout").fetchone() == ("7s",)
    assert left(db.dsn, port, "postgres") == before


def test_what_is_set_for_a_session_is_met_by_the_next_client(db: Database, port: int) -> None:
    """The naive twin: what install did once."""
    through = make_conninfo(db.dsn, port=port, user="postgres")
    before = left(db.dsn, port, "postgres")
    with psycopg.connect(through, autocommit=True, prepare_threshold=None) as conn:
        conn.execute("set role audit_owner")
    assert left(db.dsn, port, "postgres")[0] == "audit_owner"
    with psycopg.connect(through, autocommit=True, prepare_threshold=None) as conn:
        conn.execute("reset role")
    assert left(db.dsn, port, "postgres") == before
