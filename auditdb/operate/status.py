"""What is installed: version, attached tables, partitions, members of the roles."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg.rows import class_row, scalar_row

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.export.subscription import SubscriptionStatus
from auditdb.operate.hold import LegalHold, VisibleRetention, list_holds, list_visibility

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedTable:
    """A table whose changes are captured."""

    target: str
    kind: str
    mapping: dict[str, Any]
    attached_at: datetime
    attached_by: str
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A month of the log."""

    name: str
    bounds: str
    events: int
    is_estimate: bool
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleMembers:
    """A role of auditdb and who holds it."""

    role_name: str
    members: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingLimit:
    """How many events a login may record in a minute by calls."""

    login: str
    per_minute: int
    set_at: datetime
    set_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What `status` found."""

    version: str
    tables: list[AttachedTable]
    partitions: list[Partition]
    roles: list[RoleMembers]
    limits: list[RecordingLimit]
    subscriptions: list[SubscriptionStatus]
    holds: list[LegalHold]
    visible: list[VisibleRetention]
    context: list[str]
    """The settings of other tools that say who acts where no context is set."""


def status(conn: psycopg.Connection[Any]) -> Status:
    """Return what is installed in a database.

    Args:
        conn: a connection of a member of `audit_operator` or `audit_auditor`.

    Raises:
        Refused: auditdb is not installed, or the role holds neither.

    Example:
        >>> status(conn).version  # doctest: +SKIP
        '0.2.0'
    """
    with raises_audit_errors(conn, "audit_operator", "audit_auditor"), pinned(conn):
        version = psycopg.Cursor(conn, row_factory=scalar_row).execute("select audit.version()")
        return Status(
            version=str(version.fetchone()),
            tables=_rows(conn, AttachedTable, "select * from audit.list_tables()"),
            partitions=_rows(conn, Partition, "select * from audit.list_partitions()"),
            roles=_rows(conn, RoleMembers, "select * from audit.list_members()"),
            limits=_rows(conn, RecordingLimit, "select * from audit.list_limits()"),
            subscriptions=_rows(
                conn, SubscriptionStatus, "select * from audit.list_subscriptions()"
            ),
            holds=list_holds(conn),
            visible=list_visibility(conn),
            context=psycopg.Cursor(conn, row_factory=scalar_row)
            .execute("select * from audit.list_settings()")
            .fetchall(),
        )


def _rows(conn: psycopg.Connection[Any], row: type[Row], query: str) -> list[Row]:
    return psycopg.Cursor(conn, row_factory=class_row(row)).execute(query.encode()).fetchall()
