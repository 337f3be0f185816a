"""Types, as a consumer of the installed package sees them, under two strict checkers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONSUMER = Path(__file__).parent / "consumer.py"
LINES = CONSUMER.read_text("utf-8").splitlines()
MISUSES = {
    number
    for number, line in enumerate(LINES, 1)
    if number > LINES.index('    """Use what is refused: each line is an error."""') + 1
    if line.strip()
}
CHECKERS = {
    "mypy": ["-m", "mypy", "--strict", "--no-error-summary", "--config-file="],
    "pyright": ["-m", "basedpyright", "--level", "error", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_what_works_has_its_type_and_each_misuse_is_found(checker: str, tmp_path: Path) -> None:
    copy = tmp_path / "consumer.py"
    shutil.copy(CONSUMER, copy)
    done = subprocess.run(
        [sys.executable, *CHECKERS[checker], str(copy)],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    found = re.findall(r"consumer\.py:(\d+):.*\berror", done.stdout)
    assert {int(line) for line in found} == MISUSES, done.stdout + done.stderr
    assert len(MISUSES) == 7
