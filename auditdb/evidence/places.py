"""Places where a log is published (C2SP tlog-tiles): directories, object stores, HTTPS."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from auditdb.errors import AuditError, InvalidInput
from auditdb.evidence.state import write_durably
from auditdb.evidence.tree import HASH, Problem, Tile

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Unpublished(AuditError):
    """A place could not be written or read. A retry may succeed."""


class Place(Protocol):
    """Stores the files of a published log."""

    def write(self, path: str, data: bytes) -> None:
        """Write a file. When this returns, the whole file is stored.

        Raises:
            Unpublished: the file could not be written.
        """

    def read(self, path: str) -> bytes | None:
        """Return a file, or None if it does not exist.

        Raises:
            Unpublished: the file could not be read.
        """


class Directory:
    """An existing directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_dir():
            raise InvalidInput(f"there is no directory {path}; create it, or correct the path")

    def write(self, path: str, data: bytes) -> None:
        """Write a temporary file, and rename it."""
        target = self._path / path
        if not self._path.is_dir():
            raise Unpublished(f"the directory {self._path} no longer exists")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_durably(target, data)
        except (OSError, InvalidInput) as error:
            raise Unpublished(f"cannot write {target}: {error}") from error

    def read(self, path: str) -> bytes | None:
        """Return a file."""
        try:
            return (self._path / path).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unpublished(f"cannot read {self._path / path}: {error.strerror}") from error


class Objects:
    """An object store that fsspec knows: s3://, gs://, az:// and others."""

    def __init__(self, url: str) -> None:
        scheme = url.partition("://")[0]
        try:
            import fsspec

            self._fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InvalidInput(
                f"{scheme}:// needs a package: pip install fsspec and that of the store, such as "
                "s3fs, gcsfs, adlfs"
            ) from error
        self._root = str(root).rstrip("/")

    def write(self, path: str, data: bytes) -> None:
        """Write an object; stores show only whole objects."""
        self._try("write", path, lambda target: self._fs.pipe_file(target, data))

    def read(self, path: str) -> bytes | None:
        """Return an object."""
        try:
            return bytes(self._try("read", path, self._fs.cat_file))
        except FileNotFoundError:
            return None

    def _try(self, verb: str, path: str, run: Any) -> Any:
        target = f"{self._root}/{path}"
        try:
            return run(target)
        except FileNotFoundError:
            if verb == "read":
                raise
            raise Unpublished(f"there is no bucket or container for {target}") from None
        except Exception as error:  # Each store has its own error types.
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise Unpublished(f"cannot {verb} {target}: {reason}") from error


class Web:
    """A web server with PUT and GET."""

    def __init__(self, url: str, token: str | None, *, timeout: float = 30) -> None:
        self._url, self._token, self._timeout = url.rstrip("/"), token, timeout

    def write(self, path: str, data: bytes) -> None:
        """PUT a file."""
        self._ask("PUT", path, data)

    def read(self, path: str) -> bytes | None:
        """GET a file."""
        return self._ask("GET", path, None)

    def _ask(self, method: str, path: str, data: bytes | None) -> bytes | None:
        url = f"{self._url}/{path}"
        kind = "text/plain; charset=utf-8" if path == "checkpoint" else "application/octet-stream"
        headers = {"Content-Type": kind} if data is not None else {}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(url, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                if method == "GET" and error.code in (404, 410):
                    return None
                raise Unpublished(f"{method} {url}: {error.code} {error.reason}") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise Unpublished(f"{method} {url}: {reason}") from error


def open_place(url: str, token: str | None = None) -> Place:
    """Open a place by its address, without a connection yet.

    Args:
        url: file:///directory, s3://bucket/prefix, https://host/prefix, or what fsspec knows.
        token: sent to a web server as a bearer token.

    Raises:
        InvalidInput: the address is invalid, or a package is missing.
    """
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InvalidInput(
            "the address of a published log is shown: leave out user, password and what follows "
            "? or #, and give a token as AUDITDB_SEAL_TOKEN"
        )
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return Directory(Path(unquote(parts.path)))
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return Web(url, token)
    if parts.scheme == "http":
        raise InvalidInput("http:// to another machine is not encrypted: https:// is")
    if not parts.scheme or "://" not in url or parts.scheme == "file":
        raise InvalidInput(
            f"{url!r} is invalid; give file:///directory, s3://bucket/prefix, https://host/prefix"
        )
    return Objects(url)


class Published:
    """The tiles of a published log."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def read(self, tile: Tile) -> bytes:
        """Return the hashes of a tile, partial or meanwhile full."""
        full = Tile(tile.level, tile.number)
        data = self._place.read(tile.path)
        if data is None and tile != full:
            data = self._place.read(full.path)
        if data is None or len(data) < tile.width * HASH:
            raise Problem(f"the published log lacks {tile.path}")
        return data[: tile.width * HASH]
