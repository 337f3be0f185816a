"""Checks of connections, and errors that name the missing role."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.errors import InsufficientPrivilege
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg.sql import Identifier

from auditdb.connection.state import in_pipeline
from auditdb.errors import Refused, describe, from_psycopg, lacks_character


@contextmanager
def raises_audit_errors(
    conn: Connection[Any] | AsyncConnection[Any], role: str, *others: str
) -> Iterator[None]:
    """Translate errors of PostgreSQL into an AuditError that names the role that may be missing.

    Args:
        conn: the connection on which the block works.
        role: the role that the block needs.
        others: roles that are enough too.
    """
    check_connection(conn)
    try:
        yield
    except InsufficientPrivilege as error:
        if _holds_any(conn, [role, *others]):
            raise from_psycopg(error) from error
        user = Identifier(conn.info.user).as_string(None)
        also = f" (or {' or '.join(others)})" if others else ""
        raise Refused(f"{describe(error)}; run: grant {role} to {user}{also}") from error
    except psycopg.Error as error:
        raise from_psycopg(error) from error
    except UnicodeEncodeError as error:
        raise lacks_character(error) from error


def check_connection(conn: object, *, is_async: bool | None = None) -> None:
    """Refuse an object that is not a connection, or not of the right kind.

    Raises:
        TypeError: the message says what to give.
    """
    if not hasattr(conn, "pgconn"):
        raise TypeError(
            f"conn is a {type(conn).__name__}; give a connection of psycopg, as psycopg.connect() "
            "returns it"
        )
    if is_async is False and isinstance(conn, AsyncConnection):
        raise TypeError("conn is an AsyncConnection; give a psycopg.Connection")
    if is_async and isinstance(conn, Connection):
        raise TypeError("conn is a Connection; give a psycopg.AsyncConnection")


def _holds_any(conn: Connection[Any] | AsyncConnection[Any], roles: list[str]) -> bool:
    """Return whether the login is known to hold one of these roles."""
    is_usable = conn.pgconn.transaction_status in (
        TransactionStatus.IDLE,
        TransactionStatus.INTRANS,
    )
    if isinstance(conn, AsyncConnection) or not is_usable or in_pipeline(conn):
        return False
    query = "select 1 from pg_catalog.pg_roles where rolname operator(pg_catalog.=) any (%s)"
    query += " and pg_catalog.pg_has_role(oid, 'usage') limit 1"
    with conn.transaction():
        cursor = psycopg.Cursor(conn, row_factory=tuple_row).execute(query.encode(), [roles])
        return cursor.fetchone() is not None
