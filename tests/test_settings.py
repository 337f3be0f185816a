"""Settings of a database, as somebody has them for years: every command works, or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from auditdb.cli import main
from tests.conftest import Database
from tests.test_maintenance import fill, yesterday

SETTINGS = {
    "how values are printed": {
        "DateStyle": "German", "IntervalStyle": "sql_standard", "TimeZone": "Asia/Kathmandu",
        "bytea_output": "escape", "client_encoding": "latin1", "extra_float_digits": "-15",
        "xmloption": "document", "client_min_messages": "debug1"},
    "how statements are read": {
        "standard_conforming_strings": "off", "search_path": "nowhere, pg_temp",
        "quote_all_identifiers": "on", "transform_null_equals": "on", "backslash_quote": "off",
        "check_function_bodies": "off"},
    "how transactions run": {
        "default_transaction_isolation": "serializable", "default_transaction_deferrable": "on",
        "lock_timeout": "1s", "synchronous_commit": "off", "session_replication_role": "replica"},
    "how queries are planned": {
        "plan_cache_mode": "force_custom_plan", "jit": "off",
        "enable_partition_pruning": "off", "enable_indexscan": "off", "enable_seqscan": "off"},
}  # fmt: skip
# In this order each finds what it needs.
COMMANDS = [
    "install", "sql", "status", "status --json", "status --format openmetrics --findings",
    "detect", "attach --dry-run FILE", "attach FILE", "attach public.workflow workflow",
    "record auth.login --organization-id 1 --detail price=5€ --actor-id 1", "maintain --dry-run",
    "maintain", "maintain --keep 24months --force", "log --viewer-id 1 --organization-id 1",
    "key create", "key rotate --grace 0", "key list", "key list --json", "doctor --fix",
    "doctor --json", "log --auditor --all",
    "log --auditor --format jsonl --since 2026-01-01", "log --auditor --format csv --limit 1000",
    "detach public.workflow",
]  # fmt: skip
# What the doctor has to say of these very settings, or of a database without a reader.
MAY_FIND = ("doctor --fix", "doctor --json")


def run(db: Database, command: str, file: Path | None = None) -> Result:
    words = [str(file) if word == "FILE" else word for word in command.split()]
    role = "app_reader" if "--viewer-id" in words else None
    env = {"AUDITDB_KEY": db.key} if role else {}
    return CliRunner().invoke(main, ["--dsn", db.conninfo(role), *words], env=env)


def change(db: Database, name: str, value: str) -> None:
    conn = db.connect()
    quoted = value if name == "search_path" else f"'{value}'"
    conn.execute(f"alter database {conn.info.dbname} set {name} = {quoted}".encode())


@pytest.mark.parametrize("what", SETTINGS)
def test_every_command_works_whatever_the_database_sets(
    db: Database, tmp_path: Path, what: str
) -> None:
    fill(db, "2020-03", 5)
    assert db.key
    for name, value in SETTINGS[what].items():
        change(db, name, value)
    file = tmp_path / "auditdb.toml"
    for command in COMMANDS:
        result = run(db, command, file)
        if command == "detect":
            file.write_text(result.stdout, "utf-8")
        assert result.exception is None or isinstance(result.exception, SystemExit), command
        codes = (0, 1) if command in MAY_FIND else (0,)
        assert result.exit_code in codes, (command, result.output)
        if result.exit_code:
            assert "Error:" not in result.output
    assert "5€" in run(db, "log --auditor --format csv --action auth.login").stdout
    assert "2020_03" not in run(db, "status").stdout


def test_in_a_database_that_only_reads_a_command_reads_or_says_so_in_a_line(
    db: Database, tmp_path: Path
) -> None:
    file = tmp_path / "auditdb.toml"
    file.write_text(run(db, "detect").stdout, "utf-8")
    assert db.key
    change(db, "default_transaction_read_only", "on")
    refused = set()
    for command in COMMANDS:
        result = run(db, command, file)
        assert result.exception is None or isinstance(result.exception, SystemExit), command
        if result.exit_code and command not in MAY_FIND:
            [line] = result.stderr.splitlines()
            assert "default_transaction_read_only is on" in line and line.startswith("Error: ")
            refused.add(command.split()[0])
    assert refused == {"install", "attach", "record", "maintain", "key", "detach", "log"}


def test_a_command_that_takes_too_long_says_so_in_a_line(db: Database) -> None:
    change(db, "statement_timeout", "1ms")
    for command in ("status", "doctor", "maintain", "install"):
        result = run(db, command)
        assert result.exception is None or isinstance(result.exception, SystemExit), command
        if result.exit_code:
            [line] = result.stderr.splitlines()
            # Where the limit fell between two statements, the server says the latter.
            reason = line.removeprefix("Error: canceling statement due to ")
            assert reason in ("statement timeout", "user request")


@pytest.mark.parametrize("command", [
    "status", "status --format openmetrics --findings", "maintain --dry-run",
    "maintain --keep 24months", "key list", "doctor --json",
])  # fmt: skip
def test_row_level_security_that_is_off_keeps_no_operator_from_seeing_to_the_log(
    db: Database, command: str
) -> None:
    yesterday(db)
    change(db, "row_security", "off")
    result = run(db, command)
    assert result.exit_code == 0 or command in MAY_FIND, result.output
    assert "Error" not in result.output
