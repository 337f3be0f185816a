"""Killed anywhere, the archive goes on: nothing is lost, nothing double."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

from auditdb.archive.place import Place
from auditdb.archive.scratch import scratch
from auditdb.errors import AuditError
from auditdb.evidence.erasure import erase
from tests.archive.months import Archived
from tests.archive.test_archive import lines_of, live
from tests.archive.test_proofs import stored, verify
from tests.conftest import Database

KEEP = "24 months"
# Kills itself at a step: before or after a call to the server, or to the disk.
SCRIPT = """
import os, signal, sys
import psycopg
from auditdb.archive.place import Place
from auditdb.cli import main

left = int(sys.argv.pop(1))

def step():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def stepping(owner, name, when=lambda *given: True):
    real = getattr(owner, name)
    def run(*args, **kwargs):
        if not when(*args):
            return real(*args, **kwargs)
        step()
        found = real(*args, **kwargs)
        step()
        return found
    setattr(owner, name, run)

stepping(Place, "write")
stepping(os, "fsync")
stepping(psycopg.Connection, "execute",
         lambda conn, query, *given: b"select audit_private." in bytes(
             query if isinstance(query, bytes) else str(query).encode()))
main(sys.argv[1:])
"""


@pytest.fixture
def archived(db: Database, tmp_path: Path) -> Archived:
    return Archived(db, tmp_path)


def killed(archived: Archived, step: int, *args: str) -> bool:
    """Run a command and kill it at a step; return whether it came that far."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(step), "--dsn", archived.db.conninfo("app_archiver"),
         "archive", "--to", str(archived.root), "--database", "app", *args],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def test_an_archive_that_was_killed_goes_on(archived: Archived) -> None:
    with psycopg.connect(archived.db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.execute("drop table audit.event_2020_04")
    before = live(archived, "2020-03")
    step = 0
    while killed(archived, step := step + 1, "--keep", KEEP):
        here, file = live(archived, "2020-03"), archived.file("2020-03")
        assert here == before or (here == [] and lines_of(file) == before)
        archived.archive(KEEP)
        assert archived.states() == {"2020-03": "dropped"}
        assert live(archived, "2020-03") == []
        assert lines_of(file) == before
        assert [path.name for path in sorted(file.parent.iterdir()) if path.name[0] != "."] == [
            "events.parquet", "manifest.json"
        ]  # fmt: skip
        # Once more, from the beginning.
        assert archived.restore("2020-03") == 60
        assert live(archived, "2020-03") == before
        with psycopg.connect(archived.db.dsn) as conn:
            conn.execute("delete from audit.archive")
        for path in file.parent.iterdir():
            path.unlink()
    assert step > 20
    assert archived.states() == {"2020-03": "dropped"}


def test_an_erasure_that_was_killed_goes_on(archived: Archived) -> None:
    archived.archive(KEEP)
    with psycopg.connect(archived.db.dsn) as conn:
        conn.execute("delete from audit.archive where month = '2020-04-01'")
    step = 0
    for subject in [f"user-{n}" for n in range(60) if n % 5]:
        erase(archived.auditor, subject_id=subject, reason="request 1")
        was_killed = killed(archived, step := step + 1)
        archived.archive()
        events = stored(archived, "2020-03").values()
        assert len(events) == 60
        assert subject not in {event["actor_id"] for event in events}
        if not was_killed:
            break
    assert not was_killed and step > 15
    with psycopg.connect(archived.db.dsn) as conn:
        conn.execute(
            "insert into audit.archive (month, place, database, state, dropped_at) "
            "select '2020-04-01', place, database, 'dropped', now() from audit.archive"
        )
    report = verify(archived)
    assert [f for f in report.findings if "2020-04" not in f] == []
    counted = archived.conn.execute("select sum(events) from audit.erasure").fetchone()
    assert counted == (report.erased,)


def test_an_erasure_of_nobody_there_does_not_hold_up_one_that_was_killed(
    archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived.archive(KEEP)
    erase(archived.auditor, subject_id="user-1", reason="request 1")
    with monkeypatch.context() as patch:
        patch.setattr(Place, "write", full)
        assert all("is full" in line for line in archived.archive())
    assert set(archived.states().values()) == {"written"}
    erase(archived.auditor, subject_id="nobody", reason="request 2")
    told = archived.archive()
    assert sum(line.startswith("erased 1 event ") for line in told) == 2, told
    assert set(archived.states().values()) == {"dropped"}
    assert archived.db.connect().execute("select 1 from audit.archive_erasure").fetchall() == []


def full(*_: object) -> None:
    raise AuditError("the disk is full")


def test_nothing_stays_of_the_copies_of_one_that_was_killed(
    archived: Archived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    assert killed(archived, 5)
    left = list(place.iterdir())
    assert any(b"ann" in path.read_bytes() for folder in left for path in folder.rglob("*.parquet"))
    with scratch() as working:
        for folder in (working, *left):
            os.utime(folder, (0, 0))
        archived.archive()
        assert list(place.iterdir()) == [working]
    assert list(place.iterdir()) == []
