"""Starts a PgBouncer in transaction mode in front of the tests' server, and stops it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.server import Server, own_port, system_user

CONFIGURATION = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {size}
logfile = {folder}/log
pidfile = {folder}/pid
"""
USERS = ("postgres", "app_owner", "app", "app_reader", "app_auditor", "stranger")


@contextlib.contextmanager
def pooler(server: Server, *, size: int = 1) -> Iterator[int]:
    """Yield the port of a pooler; each of its clients gets another's server connection."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("there is no pgbouncer; as root: apt-get install pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="auditdb-pooler-"))
    port = own_port()
    (folder / "ini").write_text(
        CONFIGURATION.format(host=server.host, port=server.port, own=port, folder=folder, size=size)
    )
    (folder / "users").write_text("".join(f'"{name}" "secret"\n' for name in USERS))
    user = system_user()
    if user is not None:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user)
    process = subprocess.Popen(
        [program, "-q", str(folder / "ini")], user=user, cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(process, server, port)
        yield port
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(process: subprocess.Popen[bytes], server: Server, port: int) -> None:
    until = time.monotonic() + 30
    while True:
        assert process.poll() is None, "the pooler has ended"
        try:
            psycopg.connect(
                host="127.0.0.1", port=port, user=server.user, dbname="postgres"
            ).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
