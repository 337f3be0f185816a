"""The demo: what a newcomer sees first."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal

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
    said = re.search(r"psql '(\S+)'\s+kill -INT (\d+); rm -r (\S+)", out.getvalue())
    assert said is not None
    dsn, pid, data = said.groups()
    try:
        with psycopg.connect(dsn) as conn:
            assert conn.execute("select count(*) > 20 from audit.event").fetchone() == (True,)
    finally:
        os.kill(int(pid), signal.SIGINT)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(pid)).wait(timeout=60)
    shutil.rmtree(data)
