"""Progress: shown on a terminal, silent elsewhere, and reported by the server to who asks."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import psycopg
import pytest

from auditdb.cli.progress import progress
from auditdb.connection.progress import reports_progress
from tests.conftest import Database

SCRIPT = """
from auditdb.cli.progress import progress
with progress("tables", 3000) as advance:
    advance(1200, "public.[b]")
print("done")
"""


def test_on_a_terminal_it_says_how_far_the_work_is() -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=theirs, env=env, check=True
    )
    os.close(theirs)
    shown = b""
    while b"\x1b[?25h" not in shown:
        shown += os.read(ours, 65536)
    os.close(ours)
    assert b"1,200 of 3,000 tables: public.[b]" in shown
    assert done.stdout == b"done\n"


def test_elsewhere_it_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with progress("tables", 3) as advance:
        advance(1, "a")
        advance()
    assert capfd.readouterr() == ("", "")


def test_the_server_reports_to_who_asks_and_to_nobody_else(empty_db: Database) -> None:
    heard: list[tuple[int, str]] = []

    def advance(n: int = 1, text: str = "", /) -> None:
        heard.append((n, text))

    query = "select audit_private.report_progress(7, 'of many'), audit_private.report_progress(1)"
    with psycopg.connect(empty_db.dsn) as conn:
        conn.execute(query.encode())
        conn.commit()
        with reports_progress(conn, advance):
            conn.execute(query.encode())
        conn.commit()
        conn.execute(query.encode())
    assert heard == [(7, "of many"), (1, "")]
