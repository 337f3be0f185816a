"""Makes, rotates and lists the keys that sign viewer tokens."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row, scalar_row

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned


def create_key(conn: psycopg.Connection[Any], *, retire_others_after: str | None = None) -> str:
    """Make a key and return it, key_id.secret; it can be read only this once.

    Args:
        conn: a connection of a member of `audit_operator`.
        retire_others_after: how long all other keys stay valid, as a PostgreSQL interval such as
            `1 hour`; by default they stay.

    Raises:
        Refused: the login is no operator.
        InvalidInput: `retire_others_after` is no interval.

    Example:
        >>> create_key(conn, retire_others_after="1 hour")  # doctest: +SKIP
        'k2.4fO0…'
    """
    with raises_audit_errors(conn, "audit_operator"), conn.transaction():
        cursor = psycopg.Cursor(conn, row_factory=scalar_row)
        key = cursor.execute(
            "select audit.create_key(%s::pg_catalog.interval)", [retire_others_after]
        ).fetchone()
    return str(key)


def list_keys(conn: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Return the keys without their secrets, the columns of `audit.list_keys()`.

    Args:
        conn: a connection of a member of `audit_operator`.

    Raises:
        Refused: the login is no operator.

    Example:
        >>> [key["id"] for key in list_keys(conn)]  # doctest: +SKIP
        ['k1', 'k2']
    """
    with raises_audit_errors(conn, "audit_operator"), pinned(conn):
        cursor = psycopg.Cursor(conn, row_factory=dict_row)
        return cursor.execute("select * from audit.list_keys()").fetchall()
