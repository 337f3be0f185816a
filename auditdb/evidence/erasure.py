"""Personal data of a person or an organisation: access to it, and its erasure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg.rows import class_row, scalar_row

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.errors import InvalidInput
from auditdb.read.recorded import record_reading
from auditdb.read.viewer import Auditor


@dataclass(frozen=True, slots=True, kw_only=True)
class Personal:
    """The events of an organisation that an erasure concerns; a row of `audit.list_personal`."""

    organization: str | None
    events: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """An event of somebody else that contains a text; a row of `audit.list_mentions`."""

    event_id: int
    occurred_at: datetime
    organization: str | None
    action: str
    name: str


def list_personal(
    conn: psycopg.Connection[Any], *, subject_id: str | None = None,
    organization_id: str | None = None,
) -> list[Personal]:  # fmt: skip
    """Return the number of events that `erase` would change, by organisation.

    Args:
        conn: a connection of a member of `audit_auditor`.
        subject_id: the user. Default: all users of the organisation.
        organization_id: the organisation. Default: all.

    Raises:
        InvalidInput: neither is given.
        Refused: no privilege.
    """
    _check(subject_id, organization_id)
    query: LiteralString = "select * from audit.list_personal(%s, %s)"
    with raises_audit_errors(conn, "audit_auditor"), pinned(conn):
        cursor = psycopg.Cursor(conn, row_factory=class_row(Personal))
        return cursor.execute(query, [subject_id, organization_id]).fetchall()


def erase(
    conn: psycopg.Connection[Any], *, reason: str, subject_id: str | None = None,
    organization_id: str | None = None,
) -> int:  # fmt: skip
    """Erase the personal data of events, for ever, and return the number of events.

    Actor, subject, values and details are erased. Action, time, organisation and result stay, and
    every proof stays valid. The erasure is recorded as an event.

    Args:
        conn: a connection of a member of `audit_auditor`.
        reason: the reason. It stays in the log, so do not name a person.
        subject_id: a user: every event that this user did or that concerns them.
        organization_id: an organisation: all its events, or only those of the user in it.

    Raises:
        InvalidInput: neither user nor organisation is given, or no reason.
        Refused: no privilege, or the events are under a legal hold.

    Example:
        >>> erase(conn, subject_id="42", reason="request 2026-117")  # doctest: +SKIP
        318
    """
    _check(subject_id, organization_id)
    query: LiteralString = "select audit.erase(%s, %s, %s)"
    with raises_audit_errors(conn, "audit_auditor"), pinned(conn, writes=True):
        cursor = psycopg.Cursor(conn, row_factory=scalar_row)
        return int(cursor.execute(query, [reason, subject_id, organization_id]).fetchone() or 0)


def count_archive_erasures(conn: psycopg.Connection[Any]) -> int:
    """Return the number of archived months that must be rewritten to erase events in them.

    Args:
        conn: a connection of a member of `audit_auditor`.

    Raises:
        Refused: no privilege.
    """
    query: LiteralString = "select audit.count_archive_erasures()"
    with raises_audit_errors(conn, "audit_auditor"), pinned(conn):
        cursor = psycopg.Cursor(conn, row_factory=scalar_row)
        return int(cursor.execute(query).fetchone() or 0)


def list_mentions(
    conn: psycopg.Connection[Any], names: Sequence[str], *, subject_id: str | None = None,
    organization_id: str | None = None,
) -> list[Mention]:  # fmt: skip
    """Return events of others with one of these texts in their values or details.

    Args:
        conn: a connection of a member of `audit_auditor`.
        names: texts that name a person, such as a mail address; case is ignored.
        subject_id: the user whose own events are left out.
        organization_id: only events of this organisation. Default: all.

    Raises:
        Refused: no privilege.
    """
    query: LiteralString = "select * from audit.list_mentions(%s, %s, %s)"
    with raises_audit_errors(conn, "audit_auditor"), pinned(conn):
        cursor = psycopg.Cursor(conn, row_factory=class_row(Mention))
        return cursor.execute(query, [list(names), subject_id, organization_id]).fetchall()


def personal_lines(
    conn: psycopg.Connection[Any], subject_id: str, organization_id: str | None = None
) -> Iterator[str]:
    """Yield every event that a user did or that concerns them, as the bytes of docs/export.md.

    This access is recorded as an event before the first line; that event is not in the result.

    Args:
        conn: a connection of a member of `audit_auditor`, outside of a transaction.
        subject_id: the user.
        organization_id: of this organisation alone; by default of all.

    Raises:
        Refused: no privilege.
    """
    query: LiteralString = """
        select audit.canonical(e, audit_private.series_of(e.id))
        from audit.personal_events(%s, %s) as e
        where e.id is distinct from %s"""
    told = record_reading(conn, Auditor(organization_id), "accessed", subject_id=subject_id)
    with raises_audit_errors(conn, "audit_auditor"), pinned(conn):
        cursor = psycopg.ServerCursor(conn, "auditdb_personal", row_factory=scalar_row)
        with cursor:
            cursor.execute(query, [subject_id, organization_id, told])
            yield from cursor


def _check(subject_id: str | None, organization_id: str | None) -> None:
    if not (subject_id or organization_id):
        raise InvalidInput("give a subject_id, an organization_id, or both")
