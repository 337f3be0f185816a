"""Legal holds, and how far back the viewers of an organisation see."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row, scalar_row

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.values.convert import Id, as_text


@dataclass(frozen=True, slots=True, kw_only=True)
class LegalHold:
    """A reason for which the events of an organisation are kept; a row of `audit.legal_hold`."""

    organization_id: str
    reason: str
    held_at: datetime
    held_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleRetention:
    """How far back the viewers of an organisation see; a row of `audit.visible_retention`."""

    organization_id: str
    keep: str
    """As an interval of PostgreSQL: `30 days`, `1 year`."""
    set_at: datetime
    set_by: str


def hold_organization(conn: psycopg.Connection[Any], organization_id: Id, *, reason: str
                      ) -> int:  # fmt: skip
    """Put an organisation under legal hold, for a reason. This is recorded as an event.

    Retention drops no month with events of it, not even with `force`, until all its holds are
    released. A second call with the same reason changes nothing.

    Args:
        conn: a connection of a member of `audit_auditor`.
        organization_id: whose events are kept.
        reason: why, in 1 to 200 characters, such as the number of a case.

    Returns:
        The number of months with events of it.

    Raises:
        Refused: no privilege, or no reason.

    Example:
        >>> hold_organization(conn, 7, reason="case 4711")  # doctest: +SKIP
        14
    """
    with raises_audit_errors(conn, "audit_auditor"), pinned(conn, writes=True):
        cursor = psycopg.Cursor(conn, row_factory=scalar_row)
        return int(
            cursor.execute(
                "select audit.hold_organization(%s, %s)",
                (as_text("organization_id", organization_id), reason),
            ).fetchone()
            or 0
        )


def release_organization(conn: psycopg.Connection[Any], organization_id: Id, *, reason: str
                         ) -> None:  # fmt: skip
    """Release the legal hold of an organisation for a reason. This is recorded as an event.

    Args:
        conn: a connection of a member of `audit_auditor`.
        organization_id: the organisation.
        reason: the reason of the hold.

    Raises:
        Refused: no privilege, or there is no hold for this reason.

    Example:
        >>> release_organization(conn, 7, reason="case 4711")  # doctest: +SKIP
    """
    with raises_audit_errors(conn, "audit_auditor"), pinned(conn, writes=True):
        psycopg.Cursor(conn).execute(
            "select audit.release_organization(%s, %s)",
            (as_text("organization_id", organization_id), reason),
        )


def list_holds(conn: psycopg.Connection[Any]) -> list[LegalHold]:
    """Return the legal holds, the oldest first.

    Args:
        conn: a connection of a member of `audit_auditor` or `audit_operator`.

    Raises:
        Refused: no privilege.
    """
    with raises_audit_errors(conn, "audit_auditor", "audit_operator"), pinned(conn):
        cursor = psycopg.Cursor(conn, row_factory=class_row(LegalHold))
        return cursor.execute(
            "select * from audit.legal_hold order by held_at, organization_id, reason"
        ).fetchall()


def limit_visibility(
    conn: psycopg.Connection[Any], organization_id: Id, *, keep: str | None
) -> None:
    """Hide events older than an interval from the viewers of an organisation.

    The events stay in the log, for auditors and exports. The change is recorded as an event.

    Args:
        conn: a connection of a member of `audit_operator`.
        organization_id: whose viewers.
        keep: an interval such as `30 days`, from an hour to 1000 years; None shows all.

    Raises:
        InvalidInput: `keep` is not an interval.
        Refused: no privilege, or the interval is out of range.

    Example:
        >>> limit_visibility(conn, 7, keep="30 days")  # doctest: +SKIP
    """
    with raises_audit_errors(conn, "audit_operator"), pinned(conn, writes=True):
        psycopg.Cursor(conn).execute(
            "select audit.limit_visibility(%s, %s::interval)",
            (as_text("organization_id", organization_id), keep),
        )


def list_visibility(conn: psycopg.Connection[Any]) -> list[VisibleRetention]:
    """Return the organisations with a limit of visibility.

    Args:
        conn: a connection of a member of `audit_auditor` or `audit_operator`.

    Raises:
        Refused: no privilege.
    """
    with raises_audit_errors(conn, "audit_auditor", "audit_operator"), pinned(conn):
        cursor = psycopg.Cursor(conn, row_factory=class_row(VisibleRetention))
        return cursor.execute(
            "select organization_id, keep::text, set_at, set_by from audit.visible_retention"
            " order by organization_id"
        ).fetchall()
