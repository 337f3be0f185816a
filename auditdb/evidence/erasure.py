"""What is kept about a person or an organisation: all of it for a person, and its erasure."""

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
    """How many events of an organisation an erasure takes; a row of `audit.list_personal`."""

    organization: str | None
    events: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """An event of somebody else that holds a text; a row of `audit.list_mentions`."""

    event_id: int
    occurred_at: datetime
    organization: str | None
    action: str
    name: str


def list_personal(
    conn: psycopg.Connection[Any], *, subject_id: str | None = None,
    organization_id: str | None = None,
) -> list[Personal]:  # fmt: skip
    """Return how many events `erase` would take, by organisation.

    Args:
        conn: a connection of a member of `audit_auditor`.
        subject_id: the user; by default whoever is in the organisation.
        organization_id: the organisation; by default all.

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
    """Take what is personal out of events, for ever, and return of how many.

    Who acted, whom it is about, values and details go. What was done, when, in which organisation
    and with which result stays, and so does every proof of it. The erasure is an event.

    Args:
        conn: a connection of a member of `audit_auditor`.
        reason: why; it stays in the log, and so names nobody.
        subject_id: a user: every event that this user did or is concerned by.
        organization_id: an organisation: every event of it, or those of the user within it.

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
    """Return how many archived months are to be rewritten, since events in them are to be erased.

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
    """Return the events of others whose values or details hold one of some texts.

    Args:
        conn: a connection of a member of `audit_auditor`.
        names: texts that name a person, such as a mail address; case does not count.
        subject_id: whose own events are left out.
        organization_id: of this organisation alone; by default of all.

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
    """Yield every event that a user did or is concerned by, as the bytes of docs/export.md.

    It is an event before the first line, which is not among them.

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
        raise InvalidInput("say whose events: give a subject_id, an organization_id, or both")
