"""An audit log for multi-tenant products on PostgreSQL."""

from collections.abc import Callable

from auditdb import auth
from auditdb._attempt import attempt, attempt_async
from auditdb._context import context, context_async
from auditdb._record import record, record_async
from auditdb._version import __version__ as __version__
from auditdb.errors import AuditError, ConnectionFailed, InvalidInput, Refused
from auditdb.mapping.attach import attach, define_kind, detach
from auditdb.mapping.baseline import baseline
from auditdb.read.event import Event, Page
from auditdb.read.open import auditor, auditor_async, reader, reader_async
from auditdb.read.reader import AsyncReader, Reader

__all__ = [
    "AsyncReader",
    "AuditError",
    "ConnectionFailed",
    "Event",
    "InvalidInput",
    "Page",
    "Reader",
    "Refused",
    "attach",
    "attempt",
    "attempt_async",
    "auditor",
    "auditor_async",
    "auth",
    "baseline",
    "context",
    "context_async",
    "define_kind",
    "detach",
    "install",
    "reader",
    "reader_async",
    "record",
    "record_async",
    "script",
]


def install(conninfo: str = "", *, progress: Callable[[int, str], object] | None = None) -> str:
    """Install auditdb in a database; see `auditdb.operate.install.install`."""
    from auditdb.operate.install import install

    return install(conninfo, progress=progress)


def script() -> str:
    """Return all of auditdb as one SQL script; see `auditdb.operate.install.script`."""
    from auditdb.operate.install import script

    return script()
