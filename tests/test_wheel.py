"""What is published carries the SQL that the repository holds, and its licence."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def build(target: str, folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (built,) = folder.iterdir()
    return built


def test_wheel_holds_every_sql_file_of_the_repository_as_it_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", tmp_path)) as archive:
        shipped = {
            name.removeprefix("auditdb/sql/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("auditdb/sql/") and name.endswith(".sql")
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


def test_wheel_and_sdist_hold_the_licence_and_say_it(tmp_path: Path) -> None:
    licence = (ROOT / "LICENSE").read_bytes()
    with zipfile.ZipFile(build("wheel", tmp_path / "wheel")) as wheel:
        (folder,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
        in_wheel = wheel.read(f"{folder}/licenses/LICENSE")
        said = wheel.read(f"{folder}/METADATA").decode()
    with tarfile.open(build("sdist", tmp_path / "sdist")) as sdist:
        (member,) = [
            name for name in sdist.getnames() if name.count("/") == 1 and "LICENSE" in name
        ]
        file = sdist.extractfile(member)
        assert file is not None
        in_sdist = file.read()
    assert b"Apache License" in licence and in_wheel == in_sdist == licence
    for line in ("License-Expression: Apache-2.0", "License-File: LICENSE"):
        assert line in said.splitlines()
    assert "Author: the auditdb authors" in said.splitlines()
