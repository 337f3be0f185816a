"""An audit log for multi-tenant products on PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from auditdb import auth, operator
from auditdb._version import __version__ as __version__
from auditdb.errors import AuditError, ConnectionFailed, InvalidInput, Refused
from auditdb.values.door import door
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
    "operator",
    "reader",
    "record",
    "script",
    "update_context",
]

# Loaded on first use. They need psycopg, which an application on another driver may lack,
# and they take time to import, which an application that only writes should not spend.
__getattr__ = door(
    __name__,
    {
        "auditdb.mapping.attach": ["attach", "define_kind", "detach"],
        "auditdb.mapping.baseline": ["baseline"],
        "auditdb.operate.install": ["install", "script"],
        "auditdb.read.event": ["Event", "Page"],
        "auditdb.read.open": ["auditor", "reader"],
        "auditdb.read.reader": ["AsyncReader", "Reader"],
    },
)
