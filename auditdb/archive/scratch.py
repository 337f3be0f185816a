"""A temporary directory for copies of events. After a kill, a later run removes it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

_PREFIX = "auditdb-archive-"
# A younger directory may be one whose owner has not locked it yet.
_SECONDS = 3600


@contextmanager
def scratch() -> Iterator[Path]:
    """Create a temporary directory; first remove those that killed processes left."""
    with suppress(OSError):
        for path in Path(gettempdir()).glob(f"{_PREFIX}*"):
            with suppress(OSError):
                _remove(path)
    with TemporaryDirectory(prefix=_PREFIX) as name:
        handle = os.open(name, os.O_RDONLY)
        try:
            _lock(handle)
            yield Path(name)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    found = path.lstat()
    if found.st_uid != os.getuid() or time.time() - found.st_mtime < _SECONDS:
        return
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _lock(handle)  # A lock shows that its owner still uses it.
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
