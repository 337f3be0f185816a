"""Files that are gone, cut, exchanged or edited: each is named, and no drop believes them."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from auditdb.errors import AuditError
from tests.archive.months import Archived
from tests.archive.test_archive import KEEP, lines_of, live
from tests.archive.test_proofs import verify
from tests.conftest import Database


@pytest.fixture
def archived(db: Database, tmp_path: Path) -> Archived:
    return Archived(db, tmp_path)


def cut(archived: Archived) -> None:
    path = archived.file("2020-03")
    path.write_bytes(path.read_bytes()[:100])


def empty(archived: Archived) -> None:
    archived.file("2020-03").write_bytes(b"")


def exchange(archived: Archived) -> None:
    one, other = archived.file("2020-03"), archived.file("2020-04")
    before = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(before)


def remove(archived: Archived) -> None:
    archived.file("2020-03").unlink()


def put_another_database(archived: Archived) -> None:
    # Its files are of the same month and the same length, under another name.
    path = archived.file("2020-03")
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)


DAMAGE = [cut, empty, exchange, remove, put_another_database]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_a_month_that_left_is_named(
    archived: Archived, damage: Callable[[Archived], None]
) -> None:
    archived.archive(KEEP)
    damage(archived)
    assert any("the file of 2020-03" in finding for finding in verify(archived).findings)
    with pytest.raises(AuditError, match="the file of 2020-03"):
        archived.restore("2020-03")
    assert archived.old() == []


@pytest.mark.parametrize("damage", [each for each in DAMAGE if each is not remove])
def test_a_damaged_file_of_a_month_that_is_here_is_named_and_not_believed(
    archived: Archived, damage: Callable[[Archived], None]
) -> None:
    archived.archive()
    damage(archived)
    assert any("the file of 2020-03" in finding for finding in verify(archived).findings)
    archived.archive(KEEP)
    assert len(live(archived, "2020-03")) == 60


def test_a_file_that_is_gone_is_written_again_while_its_month_is_here(archived: Archived) -> None:
    archived.archive()
    archived.file("2020-03").unlink()
    assert any("the file of 2020-03 is not at" in said for said in verify(archived).findings)
    assert archived.archive() == [archived_line(archived)]
    assert lines_of(archived.file("2020-03")) == live(archived, "2020-03")
    assert verify(archived).findings == []
    # One that was changed is somebody's, until he moves it away.
    cut(archived)
    (line, *_) = archived.archive(KEEP)
    assert "was changed" in line and "move it away" in line
    archived.file("2020-03").unlink()
    assert archived.archive(KEEP)[:2] == [archived_line(archived), "dropped 2020-03: 60 events"]


def archived_line(archived: Archived) -> str:
    size = archived.file("2020-03").stat().st_size
    return f"archived 2020-03: 60 events, {size:,} bytes ({size / 60:.0f} an event)"


EDITS: list[tuple[str, object]] = [
    ("database", "other"), ("month", "2020-04"), ("events", 59), ("bytes", 1), ("sha256", "0" * 64),
    ("digest", "0" * 64), ("sealed", False), ("root", "0" * 64), ("checkpoint", None),
    ("checkpoint", "made up"), ("series", []), ("erasures", [1]), ("version", 2),
]  # fmt: skip


@pytest.mark.parametrize("keep", [None, KEEP])
def test_an_edited_manifest_is_named(archived: Archived, keep: str | None) -> None:
    archived.archive(keep)
    assert verify(archived).findings == []
    manifest = archived.manifest("2020-03")
    for name, value in EDITS:
        archived.file("2020-03", "manifest.json").write_text(json.dumps(manifest | {name: value}))
        (finding,) = verify(archived).findings
        assert finding.startswith("archive: the manifest of 2020-03") and name in finding


def test_a_manifest_that_is_gone_or_none_is_named(archived: Archived) -> None:
    archived.archive(KEEP)
    path = archived.file("2020-03", "manifest.json")
    for text in ("", "{}", "[]", "null", '{"version": 1}', "{" * 100_000):
        path.write_text(text)
        (finding,) = verify(archived).findings
        assert finding.startswith("archive: the manifest of 2020-03"), finding
    path.write_bytes(b"\xff")
    (finding,) = verify(archived).findings
    assert finding.startswith("archive: the manifest of 2020-03"), finding
    path.unlink()
    (finding,) = verify(archived).findings
    assert finding.startswith("archive: the manifest of 2020-03"), finding


def test_a_full_disk_here_is_said_in_a_line(archived: Archived) -> None:
    """Files may not be longer, as where TMPDIR is full."""
    archived.archive()

    def limited(*args: str, size: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "auditdb", "--dsn", archived.db.conninfo("app_archiver"), *args],
            capture_output=True, text=True, timeout=120,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        )  # fmt: skip

    root = str(archived.root)
    for size in (1024, 8192):
        done = limited("archive", "--to", root, "--database", "app", "--keep", KEEP, size=size)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        assert [line[:9] for line in done.stdout.splitlines()] == ["2020-03: ", "2020-04: "]
        done = limited("query", "select 1", "--archive", root, size=size)
        assert done.returncode == 1 and done.stderr.startswith("Error: "), done.stderr
    assert len(archived.old()) == 120
    archived.archive(KEEP)
    done = limited("restore", "2020-03", "--archive", root, size=1024)
    assert done.returncode == 1 and done.stderr.startswith("Error: "), done.stderr
    assert archived.states() == {"2020-03": "dropped", "2020-04": "dropped"}
    assert archived.archive() == []
