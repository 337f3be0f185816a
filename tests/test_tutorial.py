"""The tutorial: each step runs as it stands there, from an empty folder to the page of an admin."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```",
    (ROOT / "docs/tutorial.md").read_text("utf-8"),
    re.DOTALL | re.MULTILINE,
)
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


class Terminal:
    """Runs blocks one after the other, each with the variables that the former exported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # What step 1 makes, without installing again: the environment that runs the tests.
        programs = folder / "venv/bin"
        programs.mkdir(parents=True)
        (programs / "auditdb").write_text(f'#!/bin/sh\nexec {sys.executable} -m auditdb "$@"\n')
        (programs / "auditdb").chmod(0o755)
        (programs / "activate").write_text(
            f'export PYTHONPATH="{ROOT}" PATH="{programs}:{Path(sys.executable).parent}:$PATH"\n'
        )
        self.environment = {
            name: value
            for name, value in {**os.environ, "LC_ALL": "C.UTF-8", "COLUMNS": "200"}.items()
            if not name.startswith(("PG", "AUDITDB_"))
        }
        self.run(". venv/bin/activate")

    def run(self, script: str) -> str:
        """Return what a block printed."""
        after = self.folder / "after"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{script}\nenv -0 > {after}"],
            cwd=self.folder, env=self.environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}{done.stdout}{done.stderr}"
        pairs = after.read_text("utf-8").split("\0")
        self.environment = dict(pair.split("=", 1) for pair in pairs if pair)
        return done.stdout + done.stderr

    @contextmanager
    def start(self, script: str) -> Iterator[str]:
        """Run a block that goes on until Ctrl+C or Enter, and yield the first line it prints."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec env {script}"], cwd=self.folder, env=self.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            yield process.stdout.readline()
        finally:
            if "serve " in script:
                process.send_signal(signal.SIGINT)
            process.communicate("\n", timeout=60)
        assert process.returncode == 0


def words(text: str) -> list[str]:
    """Return what lines say, at whatever time, in columns of whatever width."""
    return [" ".join(TIME.sub("TIME", line).split()) for line in text.splitlines()]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """A folder that holds the files of the tutorial, each of which begins with its name."""
    for _, text in BLOCKS:
        if named := re.match(r"(?:#|--) (\w+\.(?:py|sql))\n", text):
            (tmp_path / named[1]).write_text(text, "utf-8")
    return Terminal(tmp_path)


def test_each_step_of_the_tutorial_runs_and_prints_what_it_says(terminal: Terminal) -> None:
    install, serve, enter, *steps = [block for block in BLOCKS if block[0] in ("sh", "text")]
    assert "pip install" in install[1] and serve[1] == "python server.py\n"
    with terminal.start(serve[1]) as line:
        assert line.startswith("export PGHOST=")
        assert enter[1].startswith("export PGHOST=")
        terminal.run(line + enter[1].split("\n", 1)[1])
        printed, pages = "", 0
        for language, text in steps:
            if language == "text":
                missing = [line for line in words(text) if line not in words(printed)]
                assert missing == [], printed
            elif "auditdb serve" in text:
                see_the_page(terminal, text)
                pages += 1
            else:
                printed = terminal.run(text)
    assert pages == 1
    assert not Path(terminal.environment["PGHOST"]).exists()


def see_the_page(terminal: Terminal, script: str) -> None:
    with terminal.start(f"{script.strip()} --port 0") as line:
        address = re.search(r"http://\S+", line)
        assert address is not None
        with urllib.request.urlopen(address[0], timeout=60) as answer:
            page = answer.read().decode()
    assert all(word in page for word in ("ADMIN", "invoice", "only for owners"))
