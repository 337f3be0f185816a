"""The page on one's own machine: auditdb serve, and auditdb demo --web."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import auditdb
from tests.conftest import Database
from tests.page.conftest import texts

PROGRAM = [sys.executable, "-c", "from auditdb.cli import main; main()"]


@contextmanager
def running(*arguments: str, **variables: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a command until it prints an address, and interrupt it in the end."""
    process = subprocess.Popen(
        [*PROGRAM, *arguments], env={**os.environ, **variables}, text=True, bufsize=1,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            found = re.search(r"http://127\.0\.0\.1:\d+/\S*", line)
            if found:
                yield found[0], process
                break
        else:
            assert process.stderr is not None
            raise AssertionError(process.stderr.read())
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def test_it_shows_the_log_to_this_machine_and_ends_at_an_interrupt(shop: Database) -> None:
    arguments = ("--dsn", shop.conninfo("app_reader"), "serve", "--viewer-id", "1",
                 "--organization-id", "1", "--port", "0")  # fmt: skip
    with running(*arguments, AUDITDB_KEY=shop.key) as (address, process):
        page = httpx.get(address)
        assert page.status_code == 200 and len(texts(page.text)) == 8
        # A page elsewhere that has given this machine a name of its own.
        rebound = httpx.get(address, headers={"Host": "evil.example"})
        assert rebound.status_code == 400 and "Ann" not in rebound.text
        # Somebody else on this machine, who knows the port and not what was printed.
        origin, _, secret = address.rstrip("/").rpartition("/")
        assert len(secret) > 20
        for path in ("/", "/api/events", "/events.csv", "/style.css", "/x/"):
            other = httpx.get(origin + path)
            assert other.status_code == 404 and other.text == "Not Found"
        assert f'href="/{secret}/' in page.text
        assert httpx.get(address + "style.css").headers["content-type"].startswith("text/css")
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "key", "said"),
    [
        (("--viewer-id", "1"), True, "--organization-id"),
        (("--viewer-id", "1", "--organization-id", "1"), False, "no signing key"),
        (("--viewer-id", "1", "--organization-id", "1", "--port", "99999"), True, "99999"),
    ],
)
def test_what_is_missing_is_told_in_a_line(
    shop: Database, arguments: tuple[str, ...], key: bool, said: str
) -> None:
    done = subprocess.run(
        [*PROGRAM, "--dsn", shop.conninfo("app_reader"), "serve", *arguments],
        env={**os.environ, "AUDITDB_KEY": shop.key if key else ""}, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 2 and said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_missing_extra_is_told_before_anything_else(tmp_path: Path) -> None:
    # What the extra brings, as if it were not installed.
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError(name='starlette')")
    path = os.pathsep.join([str(tmp_path), str(Path(auditdb.__file__).parents[1])])
    for arguments in (("serve", "--viewer-id", "1", "--organization-id", "1"), ("demo", "--web")):
        done = subprocess.run(
            [*PROGRAM, *arguments], env={**os.environ, "PYTHONPATH": path, "AUDITDB_KEY": ""},
            text=True, capture_output=True,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "Error: the page needs starlette, of the extra web: install 'auditdb[binary,web]' "
            "again, by pip, pipx install --force or uv tool install\n"
        )


def test_a_server_that_is_away_and_a_port_that_is_taken_are_told(shop: Database) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for dsn, said in (
            ("port=1 host=127.0.0.1", "connection failed"),
            (shop.conninfo("app_reader"), f"port {port} cannot be taken"),
        ):
            done = subprocess.run(
                [*PROGRAM, "--dsn", dsn, "serve", "--viewer-id", "1", "--organization-id", "1",
                 "--port", port],
                env={**os.environ, "AUDITDB_KEY": shop.key}, text=True, capture_output=True,
            )  # fmt: skip
            assert done.returncode == 1 and said in done.stderr
            assert len(done.stderr.strip().splitlines()) == 1
        # The demo says so before it plays its day, and not after.
        done = subprocess.run(
            [*PROGRAM, "demo", "--web", "--port", port], text=True, capture_output=True
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"Error: port {port} cannot be taken")


def test_the_demo_shows_its_log() -> None:
    with running("demo", "--web", "--port", "0") as (address, process):
        page = httpx.get(address)
        assert "Ann Archer</bdi></a> changed the role of" in page.text
        assert "Sam of Support" in page.text and "ticket" not in page.text
    assert process.returncode == 0
