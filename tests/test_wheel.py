"""The wheel carries the SQL that the repository holds."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_wheel_holds_every_sql_file_of_the_repository_as_it_is(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {
            name.removeprefix("auditdb/sql/"): archive.read(name)
            for name in archive.namelist()
            if name.endswith(".sql")
        }
        names = set(archive.namelist())
    repository = {
        path.relative_to(ROOT / "sql").as_posix(): path.read_bytes()
        for path in (ROOT / "sql").rglob("*.sql")
    }
    assert shipped == repository
    assert {
        "auditdb/__init__.py",
        "auditdb/cli/__init__.py",
        "auditdb/operate/install.py",
        "auditdb/mapping/kinds.toml",
        "auditdb/mapping/vocabulary.toml",
        "auditdb/py.typed",
    } <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
