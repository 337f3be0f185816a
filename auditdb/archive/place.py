"""Where an archive is: a directory, or an object store that fsspec knows."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from auditdb.errors import AuditError, InvalidInput
from auditdb.export.sinks.objects import WHOLE, open_objects

EVENTS, MANIFEST = "events.parquet", "manifest.json"
_GIVE = "give a directory, or s3://bucket/prefix"
# Protocols of fsspec that are read-only, in memory, or the same as a directory.
_NONE = {"", "http", "https", "file", "local", "memory", "data"}


class Place:
    """Files below an address. A reader sees a file whole or not at all.

    Args:
        url: a directory, file:///directory, s3://bucket/prefix, or another address of fsspec.

    Raises:
        InvalidInput: it is none, or a package is missing.
    """

    def __init__(self, url: str) -> None:
        if not url.strip():
            raise InvalidInput(f"the address of an archive is empty: {_GIVE}")
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise InvalidInput(f"{url!r} is no place: {_GIVE}") from error
        if "://" in url and parts.fragment:
            raise InvalidInput(f"{url!r} is no place: {_GIVE}")
        is_path = "://" not in url and parts.scheme not in WHOLE
        if parts.username is not None or parts.password is not None or parts.query:
            raise InvalidInput(
                "the address of an archive is kept in the database: leave out user, password and "
                "what follows ?; the store's own variables and files hold credentials"
            )
        self._fs: Any = None
        if is_path or (parts.scheme == "file" and not parts.netloc):
            path = Path(unquote(parts.path) if parts.scheme == "file" else url).absolute()
            with _telling("read", str(path)):
                is_there, is_directory = path.exists(), path.is_dir()
            if is_there and not is_directory:
                raise InvalidInput(f"{path} is no directory")
            if not is_there:
                raise InvalidInput(f"there is no directory {path}: make it first, or mend its name")
            self._root, self.url = str(path), path.as_uri()
        elif "://" not in url or not _may_be_store(parts.scheme):
            raise InvalidInput(f"{url!r} is no place: {_GIVE}")
        elif not parts.netloc and parts.scheme in WHOLE:
            raise InvalidInput(f"{url!r} names no bucket: give s3://bucket/prefix")
        else:
            self.url = (parts.scheme + url[len(parts.scheme) :]).rstrip("/")
            self._fs, self._root = open_objects(self.url, parts.scheme)
            self._is_store = parts.scheme in WHOLE

    def write(self, path: str, source: Path) -> None:
        """Store a file. When this returns, the whole file is stored.

        Raises:
            AuditError: it could not.
        """
        target = f"{self._root}/{path}"
        with _telling("write", target):
            if self._fs is None:
                _copy(source, Path(target), Path(self._root))
            else:
                # Object stores show only whole objects. Elsewhere, write and then rename.
                apart = target if self._is_store else f"{target}.tmp"
                if not self._is_store:
                    self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._fs.put_file(str(source), apart)
                if not self._is_store:
                    self._fs.mv(apart, target)

    def read(self, path: str, target: Path) -> str | None:
        """Copy a file from there and return its SHA-256, or None if there is no such file.

        Raises:
            AuditError: it could not.
        """
        source = f"{self._root}/{path}"
        with _telling("read", source):
            try:
                if self._fs is None:
                    shutil.copyfile(source, target)
                else:
                    self._fs.invalidate_cache()
                    self._fs.get_file(source, str(target))
            except FileNotFoundError:
                return None
        return hash_of(target)

    def has(self, path: str) -> bool:
        """Return whether a file exists.

        Raises:
            AuditError: the store did not answer.
        """
        source = f"{self._root}/{path}"
        with _telling("find", source):
            if self._fs is None:
                return Path(source).exists()
            self._fs.invalidate_cache()
            try:
                self._fs.info(source)
            except FileNotFoundError:
                return False
            return True

    def databases(self) -> list[str]:
        """Return the names of the databases in the archive."""
        with _telling("list", self._root):
            if self._fs is None:
                found = [str(path) for path in Path(self._root).iterdir()]
            else:
                self._fs.invalidate_cache()
                found = self._fs.ls(self._root, detail=False)
        names = (str(path).rstrip("/").rpartition("/")[2] for path in found)
        return sorted(unquote(n.partition("=")[2]) for n in names if n.startswith("database="))

    def months(self, database: str) -> list[str]:
        """Return the archived months of a database, such as 2026-01."""
        folder = f"{self._root}/database={quote(database, safe='')}"
        with _telling("list", folder):
            try:
                if self._fs is None:
                    found = [str(path) for path in Path(folder).iterdir()]
                else:
                    self._fs.invalidate_cache()
                    found = self._fs.ls(folder, detail=False)
            except FileNotFoundError:
                return []
        names = (str(path).rstrip("/").rpartition("/")[2] for path in found)
        return sorted(name.partition("=")[2] for name in names if name.startswith("month="))

    def address(self, path: str) -> str:
        """Return the path by which DuckDB reads a file, after `register` was called."""
        target = f"{self._root}/{path}"
        if self._fs is None:
            return target
        protocol = self._fs.protocol
        return f"{protocol if isinstance(protocol, str) else protocol[0]}://{target}"

    def register(self, duck: Any) -> None:
        """Let DuckDB read through fsspec, so that it needs no extension for a store."""
        if self._fs is not None:
            self._fs.invalidate_cache()
            duck.register_filesystem(self._fs)


def _may_be_store(scheme: str) -> bool:
    try:
        from fsspec import available_protocols
    except ImportError:
        return scheme not in _NONE
    return scheme not in _NONE and scheme in available_protocols()


def folder(database: str, month: str) -> str:
    """Return the directory of a month of a database, relative to the archive."""
    return f"database={quote(database, safe='')}/month={month}"


def hash_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    found = sha256()
    with path.open("rb") as source:
        while data := source.read(1024 * 1024):
            found.update(data)
    return found.hexdigest()


def _copy(source: Path, target: Path, root: Path) -> None:
    """Copy to a temporary file, flush it to the disk, and rename it."""
    if not root.is_dir():
        raise FileNotFoundError(f"the directory {root} is gone")
    target.parent.mkdir(parents=True, exist_ok=True)
    apart = target.with_name(f".{target.name}.tmp")
    try:
        with source.open("rb") as data, apart.open("wb") as out:
            shutil.copyfileobj(data, out, 1024 * 1024)
            out.flush()
            os.fsync(out.fileno())
        apart.replace(target)
    except BaseException:
        with suppress(OSError):
            apart.unlink()
        raise
    for path in (target.parent, target.parent.parent, root):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class _telling:
    """Translates errors of a store or a disk into one line; each store has its own error types."""

    def __init__(self, verb: str, target: str) -> None:
        self._verb, self._target = verb, target

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, AuditError):
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:300]
            raise AuditError(
                f"cannot {self._verb} {self._target}: {reason or type(error).__name__}"
            ) from error
