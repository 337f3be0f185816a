"""An audit log for multi-tenant products on PostgreSQL."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from auditdb import auth
from auditdb._version import __version__ as __version__
from auditdb.errors import AuditError, ConnectionFailed, InvalidInput, Refused
from auditdb.write.attempt import attempt
from auditdb.write.context import context
from auditdb.write.event import NewEvent
from auditdb.write.record import record
from auditdb.write.scope import update_context

if TYPE_CHECKING:
    from auditdb.mapping.attach import attach, define_kind, detach
    from auditdb.mapping.baseline import baseline
    from auditdb.operate.install import install, script
    from auditdb.read.event import Event, Page
    from auditdb.read.open import auditor, reader
    from auditdb.read.reader import AsyncReader, Reader

__all__ = [
    "AsyncReader",
    "AuditError",
    "ConnectionFailed",
    "Event",
    "InvalidInput",
    "NewEvent",
    "Page",
    "Reader",
    "Refused",
    "attach",
    "attempt",
    "auditor",
    "auth",
    "baseline",
    "context",
    "define_kind",
    "detach",
    "install",
    "reader",
    "record",
    "script",
    "update_context",
]

# Loaded when they are used. They need psycopg, which an application on another driver may lack, and
# take time that one which only writes need not wait for.
_LATER = {
    "attach": "auditdb.mapping.attach",
    "define_kind": "auditdb.mapping.attach",
    "detach": "auditdb.mapping.attach",
    "baseline": "auditdb.mapping.baseline",
    "install": "auditdb.operate.install",
    "script": "auditdb.operate.install",
    "Event": "auditdb.read.event",
    "Page": "auditdb.read.event",
    "auditor": "auditdb.read.open",
    "reader": "auditdb.read.open",
    "AsyncReader": "auditdb.read.reader",
    "Reader": "auditdb.read.reader",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'auditdb' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
