"""Backups: which role can dump a database with a log, and what it takes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.conftest import Database
from tests.server import Server

LOG = "select * from audit.event order by id"


@pytest.fixture
def tools(server: Server) -> Path:
    if server.bin is None or not (server.bin / "pg_dump").exists():
        pytest.skip("no pg_dump for this server")
    return server.bin


@pytest.fixture
def login(db: Database) -> Iterator[str]:
    """A login that makes the backups of a managed server: no superuser, no BYPASSRLS."""
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        conn.execute("drop role if exists nightly")
        conn.execute("create role nightly login password 'secret' in role audit_backup")
        yield "nightly"
        conn.execute("drop owned by nightly")
        conn.execute("drop role nightly")


def dump(tools: Path, conninfo: str, *options: str) -> str:
    # The tools may be older than the libpq that wrote the address.
    known = ("host", "port", "user", "password", "dbname")
    address = {name: value for name, value in conninfo_to_dict(conninfo).items() if name in known}
    done = subprocess.run(
        [tools / "pg_dump", *options, "-d", make_conninfo("", **address)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def restored(tools: Path, db: Database, script: str) -> Iterator[str]:
    """Yield the address of a database that a dump was restored to by a superuser."""
    name = f"{conninfo_to_dict(db.dsn)['dbname']}_restored"
    with psycopg.connect(db.dsn, dbname="postgres", autocommit=True) as conn:
        conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            known = ("host", "port", "user", "password")
            address = {k: v for k, v in conninfo_to_dict(db.dsn).items() if k in known}
            target = make_conninfo("", **address, dbname=name)
            subprocess.run(
                [tools / "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", target],
                input=script, capture_output=True, text=True, check=True,
            )  # fmt: skip
            yield target
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def test_a_member_of_audit_backup_dumps_every_event_and_key(
    db: Database, tools: Path, login: str
) -> None:
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        conn.execute("grant pg_read_all_data to nightly")
        conn.execute("select audit.create_key()")
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
        conn.execute("select audit.maintain(ahead => 7)")
        before = conn.execute(LOG.encode()).fetchall()
        keys = conn.execute("select * from audit_private.signing_key").fetchall()
        secret = conn.execute("select secret from audit_private.installation").fetchone()
    script = dump(tools, db.conninfo(login), "--enable-row-security")
    for target in restored(tools, db, script):
        with psycopg.connect(target) as conn:
            assert conn.execute(LOG.encode()).fetchall() == before
            assert conn.execute("select * from audit_private.signing_key").fetchall() == keys
            assert (
                conn.execute("select secret from audit_private.installation").fetchone() == secret
            )


def test_a_role_that_bypasses_row_level_security_dumps_without_the_option(
    db: Database, tools: Path, login: str
) -> None:
    """Where tables of the application have policies, --enable-row-security would lose rows."""
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        conn.execute("alter role nightly bypassrls")
        conn.execute("grant pg_read_all_data to nightly")
    assert "COPY audit.event_default" in dump(tools, db.conninfo(login))


def test_the_role_that_makes_backups_is_no_finding(db: Database, login: str) -> None:
    query = "select object, problem from audit.doctor() where object = 'nightly'"
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        conn.execute("alter role nightly bypassrls")
        conn.execute("grant pg_read_all_data to nightly")
        assert conn.execute(query.encode()).fetchall() == []
        # The same attributes are one, with any other role.
        conn.execute("revoke audit_backup from nightly")
        assert [row[1] for row in conn.execute(query.encode())] == [
            "bypasses row-level security",
            "is a member of pg_read_all_data",
        ]


def test_an_application_that_logs_in_as_the_role_of_backups_is_one(
    db: Database, login: str
) -> None:
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        conn.execute("grant audit_writer, app to nightly")
        with psycopg.connect(db.conninfo(login)) as app:
            app.execute("select audit.set_context(actor_id => '1', source => 'web')")
            app.execute("update workflow set name = 'x'")
            app.execute(
                "insert into workflow (organization_id, name) values (1, 'made by a backup')"
            )
        found = conn.execute(
            "select severity, problem from audit.doctor() where object = 'nightly'"
        ).fetchall()
    assert found == [("warning", "reads the log and its keys, and the application logs in as it")]


def test_the_owners_dump_says_what_it_lacks_and_goes_on_without_the_log(
    db: Database, tools: Path
) -> None:
    """As README says: -N for both schemas, or the role of backups."""
    with pytest.raises(RuntimeError, match="permission denied"):
        dump(tools, db.conninfo("app_owner"))
    script = dump(tools, db.conninfo("app_owner"), "-N", "audit", "-N", "audit_private")
    assert "COPY public.membership" in script and "audit.event" not in script
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        conn.execute("grant audit_backup to app_owner")
        try:
            dump(tools, db.conninfo("app_owner"), "--enable-row-security")
        finally:
            conn.execute("revoke audit_backup from app_owner")


def test_nobody_else_reads_a_month_past_the_policies_of_the_log(db: Database) -> None:
    """The policy on each month is for backups alone."""
    months = "select relid::regclass::text from pg_partition_tree('audit.event') where isleaf"
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        partitions = [row[0] for row in conn.execute(months)]
    for role in ("app_reader", "app_auditor", "app_owner", "app", "stranger"):
        with psycopg.connect(db.conninfo(role), autocommit=True) as conn:
            for partition in partitions:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(f"select from {partition}".encode())
