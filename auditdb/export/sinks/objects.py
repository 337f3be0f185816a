"""Objects of a store: s3://, gs://, az:// and other protocols of fsspec.

Credentials come from the same places as for the tools of the store. The stores below show only
whole objects. In others, an object is written under a temporary name and renamed.
"""

from __future__ import annotations

import asyncio
from typing import Any

from auditdb.errors import InvalidInput
from auditdb.export.sinks.base import Delivery, Rejected, Retry, SinkError
from auditdb.export.sinks.compress import check_compression, compress
from auditdb.export.sinks.files import file_name
from auditdb.export.sinks.threads import in_thread

WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"}
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs",
             "abfs": "adlfs", "abfss": "adlfs"}  # fmt: skip
# By class name, because botocore and others may not be installed.
_CREDENTIALS = ("NoCredentials", "PartialCredentials", "TokenRetrieval", "DefaultCredentials",
                "ClientAuthentication", "CredentialRetrieval", "ProfileNotFound")  # fmt: skip
_REFUSED = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken",
            "InvalidToken", "AllAccessDisabled", "AccountProblem", "403",
            "401", "Forbidden", "AuthFailure", "InvalidClientTokenId"}  # fmt: skip


class Objects:
    """Writes an object for each delivery below an address that fsspec understands."""

    def __init__(self, url: str, *, compression: str = "gzip", timeout: float = 120) -> None:
        self._url, self._compression = url.rstrip("/"), check_compression(compression)
        self._scheme = url.partition("://")[0]
        self._timeout = timeout
        self._fs, self._root = open_objects(self._url, self._scheme)

    async def put(self, delivery: Delivery) -> None:
        """Write the object. When this returns, it is stored."""
        try:
            async with asyncio.timeout(self._timeout):
                await in_thread(self._write, delivery)
        except TimeoutError as error:
            raise Retry(f"{self._url} did not answer in {self._timeout:g} s") from error
        except Exception as error:
            raise _explained(self._url, error) from error

    def _write(self, delivery: Delivery) -> None:
        target = f"{self._root}/{file_name(delivery, self._compression)}"
        data = compress(delivery.body, self._compression)
        if self._scheme in WHOLE:
            self._fs.pipe_file(target, data)
            return
        folder, _, name = target.rpartition("/")
        self._fs.makedirs(folder, exist_ok=True)
        apart = f"{folder}/.{name}.tmp"
        self._fs.pipe_file(apart, data)
        self._fs.mv(apart, target)

    async def close(self) -> None:
        """Do nothing: fsspec shares its connections."""


def open_objects(url: str, scheme: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it.

    Raises:
        InvalidInput: a package is missing, or the address cannot be opened.
    """
    try:
        import fsspec
    except ImportError as error:
        raise InvalidInput(f"{scheme}:// needs a package: pip install fsspec") from error
    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        package = _PACKAGES.get(scheme)
        reason = " ".join(str(error).split()) if isinstance(error, ImportError) else ""
        advice = f"pip install {package}" if package else reason or "see docs/export.md"
        raise InvalidInput(f"no package for {scheme}:// is installed: {advice}") from error
    except Exception as error:  # Some stores connect here.
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:300]
        raise InvalidInput(f"{url} cannot be opened: {reason or type(error).__name__}") from error
    return fs, str(root).rstrip("/")


def _explained(url: str, error: Exception) -> SinkError:
    """Return the error of a store in one line; fsspec hides its code in the cause."""
    cause = error.__cause__ or error
    names = {kind.__name__ for e in (error, cause) for kind in type(e).__mro__}
    response = getattr(cause, "response", None)
    code = str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:300]
    if any(name.startswith(_CREDENTIALS) for name in names):
        return Rejected(f"no valid credentials for {url}: {reason}")
    if code in _REFUSED or isinstance(error, PermissionError):
        return Rejected(f"{url} refuses the credentials: {reason or code or 'no permission'}")
    if isinstance(error, FileNotFoundError):
        return Rejected(f"there is no bucket or container {url}")
    return Retry(f"cannot write to {url}: {reason or type(error).__name__}")
