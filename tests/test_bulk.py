"""Exports: the same events as a reader reads, in every format, in chunks, in constant memory."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb
from rich.console import Console

import auditdb
from auditdb import Event, InvalidInput, auditor, reader
from auditdb.cli import main
from auditdb.cli.render import print_table
from auditdb.read import export as module
from auditdb.read.token import mint
from auditdb.values.blocks import csv_lines, json_lines
from auditdb.values.plain import as_cell, is_plain, plain_json
from tests.conftest import Database
from tests.test_reader import ADMIN, MEMBER, acme, logged, write
from tests.test_render import event

__all__ = ["logged"]

FORMS: list[dict[str, Any]] = [
    {"format": "jsonl"},
    {"format": "csv"},
    {"format": "csv", "csv_formulas": "keep"},
]


def one_by_one(
    events: Iterable[Event], format: str = "jsonl", csv_formulas: str = "escape"
) -> bytes:
    """Return an export made in Python, value by value: slow, and what the fast one must equal."""
    keep = csv_formulas == "keep"
    rows = [dataclasses.asdict(event) for event in events]
    if format == "jsonl":
        return "".join(f"{plain_json(row)}\n" for row in rows).encode()
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_MINIMAL if keep else csv.QUOTE_ALL)
    writer.writerow(field.name for field in dataclasses.fields(Event))
    for row in rows:
        writer.writerow(as_cell(value, keep_formulas=keep) for value in row.values())
    return out.getvalue().encode()


def exported(log: auditdb.Reader, **given: Any) -> bytes:
    out = io.BytesIO()
    count = log.export(out, **given)
    lines = out.getvalue().count(b"\n") - (given.get("format") == "csv")
    assert count == lines
    return out.getvalue()


def now() -> str:
    """Return the time: before it is what was written; after it, that it was exported."""
    return datetime.now(UTC).isoformat()


# What quotes, parts cells, begins formulas, drives terminals, or is not seen.
ODD = "\"',;=+-@|\\ \t\r\n\x00\x01\x02\x1b\x7f\x85\x9b\xa0\xad\u202e\u200b\u2028\ufe0f\uff1d\uff20"
PIECES = [*ODD.replace("\x00", ""), *"aä\U0001f600\U000e0100\u3000", ";=", "; \"'-", ',"=', '","']
TEXT = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
VALUE = st.none() | st.just("") | st.text(max_size=5).map(
    lambda text: text.replace("\x00", "").encode("utf-8", "ignore").decode()
) | TEXT  # fmt: skip
JSON = st.none() | st.dictionaries(
    TEXT,
    TEXT
    | st.none()
    | st.booleans()
    | st.integers()
    | st.lists(TEXT, max_size=2)
    | st.dictionaries(TEXT, TEXT, max_size=2),
    max_size=3,
)
TEXTS = [field.name for field in dataclasses.fields(Event) if field.type in ("str", "str | None")]
EVENT = st.fixed_dictionaries(
    {
        **{name: VALUE for name in TEXTS},
        **{name: TEXT for name in ("action", "result", "actor_type", "db_user", "source")},
        **{name: JSON for name in ("old_values", "new_values", "details")},
    }
)


def put(conn: psycopg.Connection[Any], rows: list[dict[str, Any]]) -> None:
    """Put events into the log as no application can."""
    for row in rows:
        values = {n: Jsonb(v) if isinstance(v, dict) else v for n, v in row.items()}
        names = ", ".join(row)
        marks = ", ".join(f"%({name})s" for name in row)
        conn.execute(f"insert into audit.event ({names}) values ({marks})".encode(), values)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(EVENT, min_size=1, max_size=6))
def test_an_export_is_byte_for_byte_what_python_makes_of_each_value(
    db: Database, rows: list[dict[str, Any]]
) -> None:
    with psycopg.connect(db.dsn) as conn:
        put(conn, rows)
        log, until = auditor(conn), now()
        events = list(log.events(until=until))[: len(rows)]
        for form in FORMS:
            text = exported(log, limit=len(rows), until=until, **form)
            assert text == one_by_one(events, **form)
            for line in text.decode().replace("\r\n", "\n").split("\n"):
                assert is_plain(line)
        conn.rollback()


def as_copy(cells: list[str], force: bool) -> bytes:
    """Return a row as COPY writes it."""
    odd = '",\r\n'
    return (
        ",".join(
            '"{}"'.format(cell.replace('"', '""')) if force or set(cell) & set(odd) else cell
            for cell in cells
        )
        + "\n"
    ).encode()


@given(
    rows=st.lists(
        st.lists(TEXT | VALUE.filter(bool), min_size=2, max_size=4), min_size=1, max_size=5
    ),
    keep=st.booleans(),
)
def test_rows_of_csv_are_made_safe_as_their_cells_are(rows: list[list[str]], keep: bool) -> None:
    rows = [["1", *(cell or "x" for cell in row)] for row in rows]
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_MINIMAL if keep else csv.QUOTE_ALL)
    writer.writerows([[as_cell(cell, keep_formulas=keep) for cell in row] for row in rows])
    lines = csv_lines([as_copy(row, not keep) for row in rows], (), keep_formulas=keep)
    assert lines == out.getvalue().encode()


@given(st.lists(JSON.filter(bool), min_size=1, max_size=4))
def test_lines_of_json_are_made_safe_as_their_values_are(values: list[dict[str, Any]]) -> None:
    rows = [f"{json.dumps(value, ensure_ascii=False)}\n".encode() for value in values]
    assert json_lines(rows) == "".join(f"{plain_json(value)}\n" for value in values).encode()


def test_a_cell_is_guarded_wherever_it_is_and_what_only_looks_like_a_cell_is_not() -> None:
    rows = [["1", "=1", 'a,"=1', "-2"], ["2", 'x,"', "+3", "@4"], ["3", ",", "=", "\uff1d5"]]
    lines = csv_lines([as_copy(row, True) for row in rows], ()).decode()
    [line] = csv_lines([as_copy(["1", 'a; "=1', '{"b": ";=1"}'], True)], {2}).decode().splitlines()
    assert next(csv.reader([line])) == ["1", "a;' \"=1", '{"b": "\\u003b=1"}']
    assert list(csv.reader(lines.splitlines())) == [
        ["1", "'=1", 'a,"=1', "'-2"],
        ["2", 'x,"', "'+3", "'@4"],
        ["3", ",", "'=", "'\uff1d5"],
    ]


def test_numbers_are_exact_and_a_tree_too_deep_for_python_is_json(db: Database) -> None:
    numbers = '{"n": 0.12345678901234567890123, "big": 1e400}'
    deep = "[" * 2000 + "]" * 2000
    conn = db.connect()
    conn.execute(
        "insert into audit.event (action, result, actor_type, source, new_values, old_values)"
        " values ('a.b', 'success', 'user', 'web', %s::jsonb, jsonb_build_object('a', %s::jsonb))",
        (numbers, deep),
    )
    text = exported(auditor(conn), limit=1).decode()
    assert '"n": 0.12345678901234567890123, "big": 1000' in text
    assert f'"old_values": {{"a": {deep}}}' in text


def test_a_time_that_is_none_and_a_whole_second_are_written_and_reading_goes_on(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST", 1)
    write(db, 1, at="'infinity'::timestamptz")
    write(db, 2, at="timestamptz '2026-01-31 09:00+00' - n * interval '1 second'")
    conn = db.connect()
    conn.execute("set timezone = 'Asia/Kolkata'")
    log = auditor(conn, organization_id=1)
    rows = [json.loads(line) for line in exported(log, action="report.exported").splitlines()]
    assert [row["occurred_at"] for row in rows] == [
        "infinity",
        "2026-01-31T14:29:59+05:30",
        "2026-01-31T14:29:58+05:30",
    ]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a few events."""
    monkeypatch.setattr(module, "_FIRST", 2)
    monkeypatch.setattr(module, "_MOST", 5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "at", ["now() - n * interval '9 days'", "'2026-01-31T00:00Z'::timestamptz"]
)
def test_chunks_meet_without_gap_or_repetition_also_at_equal_times(
    db: Database, at: str, form: dict[str, Any]
) -> None:
    write(db, 23, at=at)
    log, until = acme(db), now()
    events = list(log.events(until=until))
    assert exported(log, until=until, **form) == one_by_one(events, **form)
    for limit in (1, 2, 3, 7, 12, 22, 23, 24, 1000):
        expected = one_by_one(events[:limit], **form)
        assert exported(log, until=until, limit=limit, **form) == expected


@pytest.mark.parametrize("form", FORMS)
def test_every_filter_is_kept(logged: Database, form: dict[str, Any]) -> None:
    for filters in (
        {"category": "auth"}, {"action": "membership.role_changed"}, {"actor_id": 1},
        {"subject_id": 2, "result": "failure"}, {"source": "web"}, {"target_id": 5},
        {"target_type": "desk"}, {"since": "2020-01-01", "until": "2020-01-02"},
        {"source": "'; drop table audit.event; --\\%s %(x)s"},
    ):  # fmt: skip
        log = acme(logged)
        given: Any = {"until": now(), **filters}
        assert exported(log, **form, **given) == one_by_one(log.events(**given), **form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("viewer", "organization"), [(MEMBER, 1), (ADMIN, 1), (99, 1)])
def test_who_is_no_admin_exports_nothing_even_as_superuser(
    logged: Database, viewer: int, organization: int, form: dict[str, Any]
) -> None:
    for conn in (logged.connect(), logged.connect("app_reader")):
        log = reader(conn, key=logged.key, viewer_id=viewer, organization_id=organization)
        assert exported(log, **form) == one_by_one([], **form)


def test_an_auditor_exports_all_or_one_organisation(logged: Database) -> None:
    conn = logged.connect("app_auditor")
    for organization in (None, 1, 2):
        log = auditor(conn, organization_id=organization)
        until = now()
        assert exported(log, until=until) == one_by_one(log.events(until=until))
    assert len(exported(auditor(conn)).splitlines()) > len(exported(log).splitlines())


@pytest.mark.usefixtures("small")
def test_an_admin_who_is_demoted_exports_no_further(db: Database) -> None:
    write(db, 20)
    lines = acme(db).blocks()
    assert len(next(lines).splitlines()) == 2
    db.connect().execute("update membership set role = 'MEMBER' where user_id = 1")
    assert list(lines) == []


@pytest.mark.usefixtures("small")
def test_each_chunk_signs_a_fresh_token_and_leaves_no_transaction_open(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(db, 11)
    conn = db.connect("app_reader")
    lines = acme(db, conn).blocks()
    signed: list[str] = []

    def note(*args: Any, **kwargs: Any) -> str:
        signed.append(mint(*args, **kwargs))
        return signed[-1]

    monkeypatch.setattr("auditdb.read.viewer.mint", note)
    chunks = 0
    for _ in lines:
        chunks += 1
        assert conn.info.transaction_status == TransactionStatus.IDLE
        assert conn.execute("select current_user = session_user").fetchone() == (True,)
    # And one each for that it began and ended.
    assert chunks + 2 == len(signed) > 4


@pytest.mark.parametrize("autocommit", [True, False])
def test_an_export_leaves_no_trace_on_the_connection(logged: Database, autocommit: bool) -> None:
    conn = logged.connect("app_reader", autocommit=autocommit, prepare_threshold=None)
    conn.prepare_threshold = None
    assert exported(acme(logged, conn))
    assert (conn.info.transaction_status, conn.autocommit) == (TransactionStatus.IDLE, autocommit)
    state = conn.execute(
        "select current_user = session_user, current_setting('auditdb.viewer', true),"
        " current_setting('transaction_read_only'), (select count(*) from pg_prepared_statements)"
    ).fetchone()
    assert state is not None and state[1] in (None, "")
    assert (state[0], state[2], state[3]) == (True, "off", 0)


def test_an_export_inside_a_transaction_leaves_it_as_it_was(logged: Database) -> None:
    conn = logged.connect(autocommit=False)
    conn.execute("set local role app")
    conn.execute("insert into workflow (organization_id, name) values (1, 'w')")
    assert b"workflow.created" in exported(acme(logged, conn))
    assert conn.execute("select current_user").fetchone() == ("app",)
    conn.commit()
    assert logged.actions("action = 'workflow.created'") == ["workflow.created"]


def test_an_export_in_a_pipeline_is_refused_in_words(logged: Database) -> None:
    conn = logged.connect("app_reader")
    with conn.pipeline(), pytest.raises(InvalidInput, match="cannot run in a pipeline"):
        exported(acme(logged, conn))


@pytest.mark.parametrize(
    "wrong",
    [{"format": "xml"}, {"csv_formulas": "run"}, {"limit": 0}, {"limit": True}, {"since": "soon"}],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(
    db: Database, wrong: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        acme(db).blocks(**wrong)
    with pytest.raises(InvalidInput):
        acme(db).export(io.BytesIO(), **wrong)


def test_an_unknown_filter_is_named(db: Database) -> None:
    wrong: Any = {"user_id": 1}
    with pytest.raises(TypeError, match="Did you mean 'actor_id'"):
        acme(db).blocks(**wrong)


def test_a_file_of_text_gets_the_same_and_progress_is_told(db: Database, small: None) -> None:
    write(db, 9)
    out, told = io.StringIO(newline=""), list[int]()
    log, until = acme(db), now()
    assert log.export(out, progress=told.append, until=until) == 9
    assert out.getvalue().encode() == exported(log, until=until)
    assert told == sorted(told) and told[-1] == 9 and told[0] < 9


def test_a_chunk_of_large_events_is_passed_on_while_it_is_read(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HELD", 2**20)
    db.connect().execute(
        "insert into audit.event (action, result, actor_type, organization_id, source, new_values)"
        " select 'a.b', 'success', 'user', '1', 'web',"
        " jsonb_build_object('n', repeat(md5(n::text), 10000)) from generate_series(1, 40) as n"
    )
    conn = db.connect("app_reader")
    sizes = [len(block) for block in acme(db, conn).blocks()]
    assert sum(sizes) > 12 * 2**20 and max(sizes) < 2**20
    blocks = acme(db, conn).blocks()
    next(blocks)
    assert conn.info.transaction_status == TransactionStatus.ACTIVE
    blocks.close()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("small")
def test_a_server_that_goes_away_is_a_failed_connection_and_what_is_written_ends_with_a_line(
    db: Database,
) -> None:
    write(db, 20)
    conn = db.connect("app_reader")
    out = io.BytesIO()

    def kill(count: int) -> None:
        if count >= 7:
            db.connect().execute("select pg_terminate_backend(%s)", [conn.info.backend_pid])

    with pytest.raises(auditdb.ConnectionFailed):
        acme(db, conn).export(out, progress=kill)
    assert out.getvalue().endswith(b"}\n") and len(out.getvalue().splitlines()) == 7


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("autocommit", [True, False])
def test_the_asynchronous_reader_exports_the_same(
    db: Database, form: dict[str, Any], autocommit: bool
) -> None:
    write(db, 12)
    until = now()

    async def read() -> tuple[bytes, bytes]:
        conn = await psycopg.AsyncConnection.connect(
            db.conninfo("app_reader"), autocommit=autocommit
        )
        async with conn:
            log = reader(conn, key=db.key, viewer_id=1, organization_id=1)
            mine = b"".join([block async for block in log.blocks(until=until, **form)])
        conn = await psycopg.AsyncConnection.connect(db.conninfo("app_auditor"))
        async with conn:
            log = auditor(conn, organization_id=1)
            return mine, b"".join([block async for block in log.blocks(until=until, **form)])

    expected = exported(acme(db), until=until, **form)
    assert asyncio.run(read()) == (expected, expected)


# The command line.


def run(db: Database, *args: str) -> str:
    result = CliRunner().invoke(
        main, ["--dsn", db.conninfo("app_auditor"), "log", "--auditor", *args]
    )
    assert result.exit_code == 0, result.stderr
    return result.stdout_bytes.decode()


@pytest.mark.usefixtures("small")
def test_the_command_prints_the_same(db: Database) -> None:
    write(db, 12)
    until = ("--until", now())
    log = auditor(db.connect())
    events = list(log.events(until=until[1]))
    assert run(db, "--all", "--format", "jsonl", *until).encode() == one_by_one(events)
    first = run(db, "--limit", "3", "--format", "csv", *until)
    assert first.encode() == one_by_one(events[:3], "csv")
    kept = run(db, "--all", "--format", "csv", "--csv-formulas", "keep", *until).encode()
    assert kept == one_by_one(events, "csv", "keep")


def test_a_table_is_printed_before_all_of_its_events_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = io.StringIO()
    printed: list[int] = []

    def many() -> Iterator[Event]:
        for number in range(2000):
            printed.append(len(out.getvalue()))
            yield event(action=f"auth.{'x' * (number // 200)}", subject_id=str(number))

    assert print_table(Console(file=out, width=100), many()) == 2000
    assert printed[499] == 0 < printed[500] < printed[1999]
    lines = out.getvalue().splitlines()
    assert sum(line.startswith("time") for line in lines) == 1
    assert {line.index("success") for line in lines[1:] if "success" in line} == {
        lines[0].index("result")
    }
    assert max(map(len, lines)) <= 100
    # Line by line it is what one table of all would be.
    fits = [event(subject_id=str(number)) for number in range(1200)]
    several, one = io.StringIO(), io.StringIO()
    assert print_table(Console(file=several, width=200), fits) == 1200
    monkeypatch.setattr("auditdb.cli.render._CHUNK", 1200)
    assert print_table(Console(file=one, width=200), fits) == 1200
    assert [line.rstrip() for line in several.getvalue().splitlines()] == [
        line.rstrip() for line in one.getvalue().splitlines()
    ]


@pytest.mark.parametrize("form", ["jsonl", "csv", "table"])
def test_a_reader_of_a_pipe_that_leaves_ends_the_export_in_silence(db: Database, form: str) -> None:
    write(db, 3000)
    running = subprocess.Popen(
        [sys.executable, "-m", "auditdb", "log", "--auditor", "--all", "--format", form],
        env={**os.environ, "AUDITDB_DSN": db.conninfo("app_auditor")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert running.stdout is not None and running.stderr is not None
    running.stdout.readline()
    running.stdout.close()
    assert (running.stderr.read(), running.wait(60)) == (b"", 0)
    running.stderr.close()
