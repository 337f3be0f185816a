"""The months of an archive as the database knows them: one row of `audit.archive` each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """An archived month.

    Attributes:
        month: its first day, such as 2026-01-01.
        state: pending, written, verified or dropped.
        place: address of the archive.
        database: what this database is called there.
        events: number of events in its file.
        bytes: size of its file.
        digest: hash of its events.
        sha256: SHA-256 of its file.
        former_sha256: SHA-256 of the file that this one replaces.
        is_sealed: whether all of its events are sealed.
        verified_at: when the file was last read back and compared.
        dropped_at: when the month was dropped from the database.
        restored_at: when it was restored.
        erasures: number of pending erasures.
    """

    month: str
    state: str
    place: str
    database: str
    events: int | None
    bytes: int | None
    digest: str | None
    sha256: str | None
    former_sha256: str | None
    is_sealed: bool | None
    verified_at: datetime | None
    dropped_at: datetime | None
    restored_at: datetime | None
    erasures: int

    @property
    def name(self) -> str:
        """Its name, such as 2026-01."""
        return self.month[:7]

    @property
    def is_here(self) -> bool:
        """Whether its events are in the database."""
        return self.dropped_at is None or self.restored_at is not None

    def as_row(self) -> dict[str, Any]:
        """Return its columns."""
        return asdict(self)


_QUERY = """
select a.month::text as month, a.state, a.place, a.database, a.events, a.bytes,
    a.digest, a.sha256, a.former_sha256, a.is_sealed, a.verified_at, a.dropped_at, a.restored_at,
    (select count(*) from audit.archive_erasure as r where r.month = a.month) as erasures
from audit.archive as a
where %(month)s::date is null or a.month = %(month)s::date
order by a.month"""


def list_months(conn: psycopg.Connection[Any], month: str | None = None) -> list[Month]:
    """Return the archived months, oldest first.

    Args:
        conn: a connection of a member of `audit_auditor`.
        month: the first day of a month, to return only that one.

    Raises:
        Refused: no privilege.
    """
    with raises_audit_errors(conn, "audit_auditor"), pinned(conn):
        cursor = psycopg.Cursor(conn, row_factory=class_row(Month))
        return cursor.execute(_QUERY, {"month": month}).fetchall()


def check_roles(conn: psycopg.Connection[Any]) -> None:
    """Refuse a login that may not read all events or may not drop a month.

    Raises:
        Refused: a role is missing; the message names it.
    """
    row = conn.execute(
        "select session_user::text, array(select r from unnest('{audit_auditor,audit_operator}'"
        "::name[]) as r where not pg_has_role(session_user, r, 'usage'))::text[]"
    ).fetchone()
    assert row is not None
    if row[1]:
        raise Refused(f"archiving reads every event and drops months; run: grant "
                      f"{', '.join(row[1])} to {row[0]}")  # fmt: skip
