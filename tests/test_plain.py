"""What is shown is safe: no value or name drives a terminal, hides, or runs in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier
from rich.console import Console
from rich.text import Text

import auditdb
from auditdb import Event
from auditdb.cli import main
from auditdb.mapping.attach import attach
from auditdb.values.plain import as_cell, is_plain, plain, plain_json
from tests.conftest import Database

# ESC, C1's CSI, backspace, a bidirectional override, a zero-width space, a line separator, markup.
EVIL = "\x1b[2J\x9b8m\b\u202e\u200b\u2028[/x][red]:smile:"
FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\uff1d1",
    "\uff0b1",
    "\uff0d1",
    "\uff201",
]


def run(db: Database, *args: str, role: str | None = None) -> Result:
    result = CliRunner().invoke(
        main, ["--dsn", db.conninfo(role), *args], env={"AUDITDB_KEY": db.key}
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def assert_safe(result: Result) -> None:
    """Every line is safe on a terminal, and markup stands as it is."""
    for text in (result.stdout, result.stderr):
        for line in text.replace("\r\n", "\n").split("\n"):
            assert is_plain(line), repr(line)


@pytest.fixture
def evil(db: Database) -> Database:
    """A database whose names and values are hostile."""
    owner = db.connect("app_owner")
    for name in (EVIL, "[/x]"):
        table = Identifier(name)
        owner.execute(
            SQL("create table public.{} (id int primary key, {} text)").format(table, table)
        )
        attach(owner, table.as_string(), "thing", ignore=[name])
        owner.execute(SQL("insert into public.{} values (1, {})").format(table, EVIL))
    operator = Identifier(EVIL[:8])
    db.connect().execute(SQL("drop role if exists {}").format(operator))
    db.connect().execute(SQL("create role {} login in role audit_operator").format(operator))
    auditdb.record(
        db.connect("app"), "auth.login", actor_id=EVIL, subject_id=EVIL, source=EVIL,
        organization_id=1, details={EVIL: EVIL, "reason": EVIL, "degraded": {"lost": [EVIL]}},
    )  # fmt: skip
    with psycopg.connect(db.dsn) as conn:
        conn.execute(SQL("set session authorization {}").format(operator))
        conn.execute("select audit.create_key()")
    db.connect().execute("alter table public.membership disable trigger auditdb_update")
    return db


COMMANDS = {
    "log": ("log", "--viewer-id", "1", "--organization-id", "1"),
    "log as JSON lines": ("log", "--auditor", "--format", "jsonl"),
    "log as CSV": ("log", "--auditor", "--format", "csv", "--csv-formulas", "keep"),
    "log of an auditor": ("log", "--auditor"),
    "status": ("status",),
    "status --json": ("status", "--json"),
    "doctor": ("doctor",),
    "doctor --fix": ("doctor", "--fix"),
    "doctor --json": ("doctor", "--json"),
    "detect": ("detect",),
    "key list": ("key", "list"),
    "key list --json": ("key", "list", "--json"),
    "maintain": ("maintain",),
    "attach": ("attach", f'public."{EVIL}"', "thing"),
    "attach --dry-run": ("attach", f'public."{EVIL}"', "thing", "--dry-run"),
    "attach of no table": ("attach", f'public."{EVIL}!"', "thing"),
    "attach of no file": ("attach", EVIL),
    "detach": ("detach", f'public."{EVIL}"'),
    "detach of no table": ("detach", EVIL),
    "record refused": ("record", EVIL),
    "record misused": ("record", "a.b", "--detail", EVIL),
    "no command": (EVIL,),
    "no option": ("status", f"--{EVIL}"),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_every_output_is_safe_on_a_terminal(evil: Database, command: tuple[str, ...]) -> None:
    result = run(evil, *command)
    assert result.stdout or result.stderr
    assert_safe(result)


def test_what_is_shown_of_a_name_is_its_codes(evil: Database) -> None:
    assert r"\x1b[2J\x9b8m\x08\u202e\u200b\u2028[/x][red]:smile:" in run(evil, "status").stdout
    assert "public.[/x]" in run(evil, "status").stdout.replace('"', "")


def test_json_holds_what_it_escapes(evil: Database) -> None:
    lines = run(evil, "log", "--auditor", "--format", "jsonl", "--all").stdout.splitlines()
    (login,) = (event for event in map(json.loads, lines) if event["action"] == "auth.login")
    assert (login["actor_id"], login["details"][EVIL]) == (EVIL, EVIL)


def test_a_finding_without_an_object_does_not_say_none(db: Database) -> None:
    auditdb.record(
        db.connect("app"), "auth.login", details={"degraded": {"lost": ["x"], "sqlstate": "22000"}}
    )
    assert "None" not in run(db, "doctor").stdout


def test_the_log_tells_recorded_events_from_captured_ones(db: Database) -> None:
    app = db.connect("app")
    app.execute("update membership set role = 'ADMIN' where user_id = 2")
    auditdb.record(
        app, "membership.role_changed", organization_id=1, subject_id=2,
        details={"previous_role": "MEMBER", "new_role": "ADMIN"},
    )  # fmt: skip
    lines = run(db, "log", "--viewer-id", "1", "--organization-id", "1").stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["how", "recorded", "captured"]
    assert [line.count("MEMBER → ADMIN") for line in lines] == [0, 0, 1]


def test_details_of_the_context_do_not_stand_for_the_change(db: Database) -> None:
    app = db.connect("app")
    app.execute("insert into workflow (id, organization_id, name) values (1, 1, 'w')")
    with auditdb.context(app, actor_id=7, details={"previous_role": "typo", "new_role": "typo"}):
        app.execute("update workflow set name = 'everything'")
    out = run(db, "log", "--viewer-id", "1", "--organization-id", "1", "--limit", "1").stdout
    assert "name: w → everything" in out and "typo" not in out


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_cell_is_no_formula_unless_it_is_asked_for(db: Database, formula: str) -> None:
    auditdb.record(db.connect("app"), "auth.login", actor_id=formula, organization_id=1)

    def actor(*args: str) -> str:
        out = run(db, "log", "--auditor", "--action", "auth.login", "--format", "csv", *args).stdout
        return next(csv.DictReader(io.StringIO(out)))["actor_id"]

    assert actor() == "'" + plain(formula)
    assert actor("--csv-formulas", "keep") == plain(formula)


def cells_by_semicolon(line: str) -> list[str]:
    """Part a line as a spreadsheet does where a semicolon separates.

    A quote opens only at the start of a cell, and after the closing one the cell goes on as it is.
    """
    cells, rest = [], line
    while True:
        quoted = re.match('"((?:[^"]|"")*)"', rest)
        start = quoted[1].replace('""', '"') if quoted else ""
        raw, mark, rest = rest[quoted.end() if quoted else 0 :].partition(";")
        cells.append(start + raw)
        if not mark:
            return cells


SEMICOLONS = [
    ";=cmd|calc!A0",
    "a;=cmd|calc!A0;b",
    'a;"=cmd|calc!A0;',
    "a; +1;",
    'x";@SUM(1)',
    ";-1",
]


@pytest.mark.parametrize("text", SEMICOLONS)
def test_no_cell_is_a_formula_where_a_semicolon_separates(db: Database, text: str) -> None:
    auditdb.record(
        db.connect("app"), "auth.login", actor_id=text, organization_id=1, details={"a": text}
    )
    args = ("log", "--auditor", "--action", "auth.login", "--format", "csv")
    out = run(db, *args).stdout
    [head, line] = out.splitlines()
    assert len(cells_by_semicolon(line)) > 1
    for cell in cells_by_semicolon(line):
        assert not re.match(r"[\s\"']*[=+@]|[\s\"]*-", cell) or cell.lstrip('" ')[0] == "'", cell
    # Every cell is quoted.
    assert line.count('","') == head.count('","') == len(Event.__dataclass_fields__) - 1
    [row] = csv.DictReader(io.StringIO(out))
    assert json.loads(row["details"])["a"] == text
    [kept] = csv.DictReader(io.StringIO(run(db, *args, "--csv-formulas", "keep").stdout))
    assert kept["actor_id"] == text


def test_the_semicolons_of_naive_csv_make_formulas() -> None:
    out = io.StringIO()
    csv.writer(out).writerow([1, "a;=cmd|calc!A0;b"])
    csv.writer(out, quoting=csv.QUOTE_ALL).writerow([1, "a;=cmd|calc!A0;b"])
    for line in out.getvalue().splitlines():
        assert "=cmd|calc!A0" in cells_by_semicolon(line)


@given(st.text() | st.characters())
def test_plain_text_is_plain_and_what_was_plain_is_itself(text: str) -> None:
    assert is_plain(plain(text))
    assert plain(plain(text)) == plain(text)
    assert as_cell(text).lstrip("'")[:1] not in set("=+-@\t\r\n") or as_cell(text)[0] == "'"


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_is_plain_and_says_the_same(value: Any) -> None:
    assert is_plain(plain_json(value))
    assert json.loads(plain_json(value)) == value
    assert json.loads(plain_json(value, indent=2)) == value


def test_a_terminal_of_another_encoding_shows_codes(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = db.connect("app")
    app.execute("update membership set role = 'ADMIN' where user_id = 2")
    result = CliRunner(charset="ascii").invoke(main, ["--dsn", db.dsn, "log", "--auditor"])
    assert result.exit_code == 0, result.output
    assert r"MEMBER \u2192 ADMIN" in result.stdout


def test_naive_twin_rich_alone_keeps_what_drives_a_terminal() -> None:
    out = io.StringIO()
    Console(file=out, width=200).print(Text("\x9b8m\u202e"))
    assert not is_plain(out.getvalue().strip("\n"))
