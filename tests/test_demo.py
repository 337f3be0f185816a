"""The demo: what a newcomer sees first."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from click.testing import CliRunner
from rich.console import Console

from auditdb import cli, demo


@pytest.fixture(scope="module")
def shown() -> str:
    out = io.StringIO()
    assert demo.run(console=Console(file=out, width=180))
    return out.getvalue()


def test_it_ends_by_counting_the_fifteen_actions(shown: str) -> None:
    assert shown.rstrip().splitlines()[-1] == "15 of 15 actions recorded"
    assert all(action in shown for action in demo.FIFTEEN)


def test_it_shows_a_role_change_and_every_result(shown: str) -> None:
    assert "MEMBER → ADMIN" in shown
    assert " denied " in shown and " failure " in shown and " success " in shown


def test_it_shows_that_others_read_nothing_and_nobody_changes(shown: str) -> None:
    assert "read by fay, a plain member:     0 events" in shown
    attempts = [line for line in shown.splitlines() if " audit.event" in line]
    assert len(attempts) == 6
    assert all(" refused: " in line for line in attempts)


def test_a_demo_that_goes_wrong_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "FIFTEEN", [*demo.FIFTEEN, "auth.teleported"])
    result = CliRunner().invoke(cli.main, ["demo"])
    assert result.exit_code == 1
    assert result.stdout.rstrip().endswith("15 of 16 actions recorded")


def test_it_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(demo, "_day", lambda app: seen.append(app.info.dsn))
    assert not demo.run(console=Console(file=io.StringIO()))
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(seen[0])


def test_keep_leaves_the_server_and_says_how_to_stop_it() -> None:
    out = io.StringIO()
    assert demo.run(keep=True, console=Console(file=out, width=180))
    said = re.search(r"psql '(\S+)'\s+(kill -INT (\d+); .*; rm -r (\S+))\n", out.getvalue())
    assert said is not None
    dsn, command, pid, data = said.groups()
    try:
        with psycopg.connect(dsn) as conn:
            assert conn.execute("select count(*) > 20 from audit.event").fetchone() == (True,)
    finally:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not Path(data).exists()
    with contextlib.suppress(psutil.NoSuchProcess):
        assert psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def temporary() -> Iterator[dict[str, str]]:
    """The environment of a demo whose temporary folder is its own."""
    with tempfile.TemporaryDirectory(prefix="d", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield {**os.environ, "TMPDIR": folder}


@pytest.mark.parametrize("stage", ["", "PG_VERSION", "global/pg_control", "log"])
def test_an_interrupt_leaves_nothing_behind(temporary: dict[str, str], stage: str) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "auditdb", "demo", "--keep"], env=temporary,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not list(Path(temporary["TMPDIR"]).glob(f"auditdb-*/{stage}")):
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    assert (running.communicate(timeout=60), running.returncode) == (("", ""), 130)
    assert list(Path(temporary["TMPDIR"]).glob("auditdb-*")) == []


def test_a_server_that_cannot_be_made_says_why_and_leaves_nothing(
    temporary: dict[str, str],
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "auditdb", "demo"], env={**temporary, "LC_ALL": "nonsense"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: the embedded PostgreSQL did not start: initdb: error: ")
    assert "locale" in line
    assert list(Path(temporary["TMPDIR"]).glob("auditdb-*")) == []
