"""Says what an install would do, without doing any of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.rows import scalar_row

from auditdb._version import __version__
from auditdb.connection.address import connect
from auditdb.connection.pin import pinned
from auditdb.errors import from_psycopg
from auditdb.operate.release import differences
from auditdb.operate.source import ROLES, migrations

SCHEMAS = ("audit", "audit_private")


def preview(conninfo: str = "") -> list[str]:
    """Return what `install` would do, a line each.

    Reads in a read-only transaction: nothing is written, and no lock is taken that anybody waits
    for.

    Args:
        conninfo: as `install` takes it, for the role that is to install.

    Raises:
        InvalidInput: the connection string is malformed.
        ConnectionFailed: the server could not be reached.
        Refused: the role may not read what is installed.

    Example:
        >>> preview(dsn)  # doctest: +SKIP
        ['would bring auditdb from 0.1.0 to 0.2.0']
    """
    try:
        with connect(conninfo, application_name="auditdb install --dry-run") as conn:
            conn.read_only = True
            with pinned(conn):
                return list(_preview(conn))
    except psycopg.Error as error:
        raise from_psycopg(error) from error


def _preview(conn: psycopg.Connection[Any]) -> Iterator[str]:
    version = _value(
        conn,
        "select substring(pg_get_functiondef(to_regprocedure('audit.version()'))"
        " from '''([0-9]+(?:[.][0-9]+)+)''')",
    )
    if version is None:
        yield f"would install auditdb {__version__}"
    elif _numbers(version) > _numbers(__version__):
        yield f"would be refused: this database has auditdb {version}, and this is {__version__}"
    elif version != __version__:
        yield f"would bring auditdb from {version} to {__version__}"
    else:
        yield f"would install auditdb {version} again"
    yield from _missing(conn, "role", "select rolname::text from pg_roles", ROLES)
    yield from _missing(conn, "schema", "select nspname::text from pg_namespace", SCHEMAS)
    yield from _owners(conn)
    done = set()
    if _value(conn, "select to_regclass('audit_private.migration')") is not None:
        done = set(_values(conn, "select migration_hash from audit_private.migration"))
    for identity, _ in migrations():
        if hashlib.sha256(identity.encode()).hexdigest() not in done:
            yield f"would run migration {identity}"
    if version is None:
        return
    if _value(conn, "select to_regclass('audit_private.attachment')") is not None:
        count = _value(conn, "select count(*) from audit_private.attachment")
        yield f"would write the functions of {count} attached tables again"
    if not set(ROLES) - set(_values(conn, "select rolname::text from pg_roles")):
        yield from (f"would mend {name}: {problem}" for name, problem in differences(conn))


def _missing(
    conn: psycopg.Connection[Any], what: str, query: str, wanted: tuple[str, ...]
) -> Iterator[str]:
    there = set(_values(conn, query))
    yield from (f"would create {what} {name}" for name in wanted if name not in there)


def _owners(conn: psycopg.Connection[Any]) -> Iterator[str]:
    query = (
        "select nspname::text, pg_get_userbyid(nspowner)::text, current_user::text"
        " from pg_namespace where nspname = any (%s) and pg_get_userbyid(nspowner) <> 'audit_owner'"
        " order by nspname"
    )
    for schema, owner, user in conn.execute(query, [list(SCHEMAS)]).fetchall():
        if owner == user:
            yield f"would give schema {schema}, and what {owner} owns in it, back to audit_owner"
        else:
            yield f"would be refused: schema {schema} belongs to {owner}"


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _values(conn: psycopg.Connection[Any], query: str) -> list[Any]:
    return psycopg.Cursor(conn, row_factory=scalar_row).execute(query.encode()).fetchall()


def _value(conn: psycopg.Connection[Any], query: str) -> Any:
    return _values(conn, query)[0]
