"""Describes what an install would do, without doing it."""

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
from auditdb.operate.release import differences, is_newer
from auditdb.operate.source import ROLES, migrations
from auditdb.values.plain import counted

SCHEMAS = ("audit", "audit_private")
REFUSED = "would be refused: "
# The same checks as in bootstrap.sql: the right to create roles, to be their owner, and to create
# schemas.
_MAY = """
    select case
        when r.rolsuper then null
        when not r.rolcreaterole and exists (
            select from unnest(%(roles)s::text[]) as name where to_regrole(name) is null
        ) then format('role "%%s" may not create the roles of auditdb', r.rolname)
        when not has_database_privilege(current_database(), 'create') and exists (
            select from unnest(%(schemas)s::text[]) as name where to_regnamespace(name) is null
        ) then format('role "%%s" may not create schemas in this database', r.rolname)
        when exists (
            select from unnest(array['audit_owner', 'audit_operator']) as name
            where to_regrole(name) is not null and not pg_has_role(name, 'usage')
                and not pg_has_role(name, 'usage with grant option')
                and not (r.rolcreaterole and current_setting('server_version_num')::int < 160000)
        ) then format('role "%%s" may not grant the roles of auditdb', r.rolname)
    end
    from pg_roles as r where r.rolname = current_user
"""
_IS_PART = (
    "select to_regclass('audit_private.attachment') is not null"
    " and to_regclass('audit.event') is null"
)


def preview(conninfo: str = "") -> list[str]:
    """Return what `install` would do, a line each, or only why it would be refused.

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
                refused = list(_refusals(conn))
                return refused or list(_preview(conn))
    except psycopg.Error as error:
        raise from_psycopg(error) from error


def _refusals(conn: psycopg.Connection[Any]) -> Iterator[str]:
    cursor = psycopg.Cursor(conn, row_factory=scalar_row)
    why = cursor.execute(_MAY, {"roles": list(ROLES), "schemas": list(SCHEMAS)}).fetchone()
    if why is not None:
        yield REFUSED + why
        return  # The role may not use the schema.
    others = [(schema, owner) for schema, owner, user in _owners(conn) if owner != user]
    yield from (f"{REFUSED}schema {schema} belongs to {owner}" for schema, owner in others)
    if others:
        return
    if _value(conn, _IS_PART):
        yield f"{REFUSED}schema audit_private exists, but the log, audit.event, does not"
    version = _installed(conn)
    if version is not None and is_newer(version):
        yield f"{REFUSED}this database has auditdb {version}, and this is {__version__}"


def _installed(conn: psycopg.Connection[Any]) -> Any:
    return _value(
        conn,
        "select substring(pg_get_functiondef(to_regprocedure('audit.version()'))"
        " from '''([0-9]+(?:[.][0-9]+)+)''')",
    )


def _preview(conn: psycopg.Connection[Any]) -> Iterator[str]:
    version = _installed(conn)
    if version is None:
        yield f"would install auditdb {__version__}"
    elif version != __version__:
        yield f"would bring auditdb from {version} to {__version__}"
    else:
        yield f"would install auditdb {version} again"
    yield from _missing(conn, "role", "select rolname::text from pg_roles", ROLES)
    yield from _missing(conn, "schema", "select nspname::text from pg_namespace", SCHEMAS)
    for schema, owner, _ in _owners(conn):
        yield f"would give schema {schema}, and what {owner} owns in it, back to audit_owner"
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
        yield f"would write the functions of {counted(count, 'attached table')} again"
    if not set(ROLES) - set(_values(conn, "select rolname::text from pg_roles")):
        yield from (f"would mend {name}: {problem}" for name, problem in differences(conn))


def _missing(
    conn: psycopg.Connection[Any], what: str, query: str, wanted: tuple[str, ...]
) -> Iterator[str]:
    there = set(_values(conn, query))
    yield from (f"would create {what} {name}" for name in wanted if name not in there)


def _owners(conn: psycopg.Connection[Any]) -> list[tuple[str, str, str]]:
    """Return each schema that is not audit_owner's, its owner, and who asks."""
    query = (
        "select nspname::text, pg_get_userbyid(nspowner)::text, current_user::text"
        " from pg_namespace where nspname = any (%s) and pg_get_userbyid(nspowner) <> 'audit_owner'"
        " order by nspname"
    )
    return conn.execute(query, [list(SCHEMAS)]).fetchall()


def _values(conn: psycopg.Connection[Any], query: str) -> list[Any]:
    return psycopg.Cursor(conn, row_factory=scalar_row).execute(query.encode()).fetchall()


def _value(conn: psycopg.Connection[Any], query: str) -> Any:
    return _values(conn, query)[0]
