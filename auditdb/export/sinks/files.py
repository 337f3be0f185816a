"""Files in a directory: each is written to a temporary file, flushed to the disk, and renamed.

A repeated delivery writes the same file again, so every event is stored exactly once.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from auditdb.errors import InvalidInput
from auditdb.export.sinks.base import Delivery, Rejected, Retry
from auditdb.export.sinks.compress import SUFFIXES, check_compression, compress
from auditdb.export.sinks.threads import in_thread

# Errors that may pass without an operator: no space, high load.
_PASSES = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.EINTR, errno.ESTALE,
           errno.ETIMEDOUT, errno.ENFILE, errno.EMFILE}  # fmt: skip


def file_name(delivery: Delivery, compression: str) -> str:
    """Return the name of the file of a delivery, relative to the directory of the sink.

    It begins with the subscription, because others may use the same directory and ticks.
    """
    name = f"{delivery.subscription}/{delivery.name}"
    return f"{name}.{delivery.suffix}{SUFFIXES[compression]}"


class Directory:
    """Writes a file for each delivery below an existing directory.

    Raises:
        InvalidInput: the directory does not exist.
    """

    def __init__(self, path: Path, *, compression: str = "gzip") -> None:
        self._path, self._compression = path, check_compression(compression)
        if not path.is_dir():
            raise InvalidInput(f"there is no directory {path}; create it first")

    async def put(self, delivery: Delivery) -> None:
        """Write the file. When this returns, it is on the disk."""
        try:
            await in_thread(self._write, delivery)
        except OSError as error:
            problem = f"cannot write below {self._path}: {error.strerror or error}"
            raise (Retry if error.errno in _PASSES else Rejected)(problem) from error

    def _write(self, delivery: Delivery) -> None:
        if not self._path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "the directory is gone")
        target = self._path / file_name(delivery, self._compression)
        folders = [target.parent, target.parent.parent]
        for folder in reversed(folders):
            folder.mkdir(exist_ok=True)
        apart = target.with_name(f".{target.name}.tmp")
        data = compress(delivery.body, self._compression)
        try:
            with apart.open("wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            apart.replace(target)
        except BaseException:
            with suppress(OSError):
                apart.unlink()
            raise
        for folder in (*folders, self._path):
            _sync(folder)

    async def close(self) -> None:
        """Do nothing: no file stays open."""


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
