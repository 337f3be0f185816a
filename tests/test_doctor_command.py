"""`auditdb doctor` as a whole command: what it prints, mends and refuses, and how it exits."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import make_conninfo

from auditdb import ConnectionFailed
from auditdb.cli import main
from auditdb.operate import doctor
from tests.conftest import Database
from tests.server import Server, standby


@pytest.fixture
def healthy(db: Database) -> Database:
    """A database with nothing to find, once a key is made."""
    assert db.key and doctor.diagnose(db.connect()) == []
    return db


def run(db: Database, *args: str, role: str | None = None, options: str = "") -> Result:
    dsn = db.conninfo(role) + (f" options='{options}'" if options else "")
    return CliRunner().invoke(main, ["--dsn", dsn, "doctor", *args])


def break_trigger(db: Database) -> None:
    db.connect("app_owner").execute("alter table membership disable trigger auditdb_update")


def break_guard(db: Database) -> None:
    db.connect().execute("alter table audit.event disable trigger refuse_change")


@pytest.mark.parametrize("args", [(), ("--fix",)])
def test_a_healthy_log_exits_0_and_says_so(healthy: Database, args: tuple[str, ...]) -> None:
    result = run(healthy, *args)
    assert (result.exit_code, result.stdout) == (0, "healthy: nothing found\n")


def test_a_finding_exits_1_and_is_on_standard_output(healthy: Database) -> None:
    break_trigger(healthy)
    result = run(healthy)
    assert (result.exit_code, result.stderr) == (1, "")
    first, why, mend = result.stdout.splitlines()[:3]
    assert first.startswith("critical: ") and "membership" in first
    assert why.startswith("    ") and mend == "    select audit.reattach('public.membership')"


def test_a_notice_alone_exits_0(db: Database) -> None:
    result = run(db)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("notice: audit_private.signing_key: there is no signing key\n")
    (found,) = json.loads(run(db, "--json").stdout)["findings"]
    assert found["severity"] == "notice"


def test_wrong_usage_exits_2(healthy: Database) -> None:
    result = run(healthy, "--fux")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--fix" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("damage", [break_trigger, break_guard])
def test_fix_mends_says_what_and_exits_0(
    healthy: Database, damage: Callable[[Database], None]
) -> None:
    damage(healthy)
    result = run(healthy, "--fix")
    assert result.exit_code == 0, result.output
    mended, *rest = result.stdout.splitlines()
    assert mended.startswith("mended: select audit.") and rest == ["healthy: nothing found"]
    assert run(healthy).exit_code == 0


def test_json_holds_findings_and_what_was_mended(healthy: Database) -> None:
    break_trigger(healthy)
    found = run(healthy, "--json")
    said = json.loads(found.stdout)
    assert (found.exit_code, said["mended"]) == (1, [])
    assert set(said["findings"][0]) == set(doctor.Finding.__slots__)
    fixed = run(healthy, "--json", "--fix")
    assert fixed.exit_code == 0, fixed.output
    assert json.loads(fixed.stdout) == {
        "mended": ["select audit.reattach('public.membership')"],
        "findings": [],
    }


def test_what_is_refused_is_said_and_the_rest_is_mended(healthy: Database) -> None:
    break_trigger(healthy)
    break_guard(healthy)
    healthy.connect().execute("create role other_operator login in role audit_operator")
    with psycopg.connect(healthy.dsn) as conn:
        conn.execute("set session authorization other_operator")
        done = doctor.fix(conn, doctor.diagnose(conn))
    healthy.connect().execute("drop role other_operator")
    refused = [line for line in done if " -- refused: " in line]
    assert len(refused) == 1 and "reattach" in refused[0] and "owner" in refused[0]
    assert "select audit.mend_guards()" in done


def test_the_command_says_refused_and_exits_1(healthy: Database) -> None:
    break_trigger(healthy)
    result = run(healthy, "--fix", role="app_auditor")
    assert result.exit_code == 1
    assert result.stdout.startswith(
        "not mended: select audit.reattach('public.membership') -- refused: permission denied "
    )
    assert "\nmended: " not in result.stdout and "critical: " in result.stdout


@pytest.mark.parametrize("role", ["app", "app_reader", "stranger"])
def test_who_may_not_ask_gets_one_line_and_1(healthy: Database, role: str) -> None:
    result = run(healthy, role=role)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "permission denied" in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_read_only_session_finds_and_mends_nothing(healthy: Database) -> None:
    break_trigger(healthy)
    read_only = "-c default_transaction_read_only=on"
    assert run(healthy, options=read_only).stdout == run(healthy).stdout
    result = run(healthy, "--fix", options=read_only)
    assert result.exit_code == 1
    assert " -- refused: " in result.stdout and "critical: " in result.stdout


def test_a_server_that_is_not_there_gets_one_line_and_1() -> None:
    result = CliRunner().invoke(main, ["--dsn", "host=127.0.0.1 port=1", "doctor", "--fix"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1


def finding(mend: str) -> doctor.Finding:
    return doctor.Finding(
        check_name="x", severity="critical", object="x", problem="x", why="x", mend=mend,
        fixable=True,
    )  # fmt: skip


def test_a_connection_that_is_lost_while_mending_is_an_error(healthy: Database) -> None:
    conn = healthy.connect()
    lost = finding("select pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())")
    with pytest.raises(ConnectionFailed, match="terminat"):
        doctor.fix(conn, [finding("select 1"), lost, finding("select 2")])


def test_the_command_whose_connection_is_lost_gets_one_line_and_1(
    healthy: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(conn: psycopg.Connection[Any]) -> list[doctor.Finding]:
        healthy.connect().execute("select pg_terminate_backend(%s)", [conn.info.backend_pid])
        return [finding("select 1")]

    monkeypatch.setattr(doctor, "diagnose", found)
    result = run(healthy, "--fix")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "terminat" in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_standby_is_examined_and_nothing_is_mended_there(
    healthy: Database, server: Server
) -> None:
    break_trigger(healthy)
    with standby(server) as port:
        dsn = make_conninfo(healthy.dsn, port=port)
        found = CliRunner().invoke(main, ["--dsn", dsn, "doctor"])
        assert (found.exit_code, found.stdout) == (1, run(healthy).stdout)
        fixed = CliRunner().invoke(main, ["--dsn", dsn, "doctor", "--fix"])
    assert fixed.exit_code == 1
    assert " -- refused: " in fixed.stdout and "critical: " in fixed.stdout
