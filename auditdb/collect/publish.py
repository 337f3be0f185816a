"""A source: a database whose events a centre collects. Its publication, and who may read it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.errors import Refused

PUBLICATION = "auditdb"
# Only inserts. Rows change only by an erasure, which an event reports to the centre. Rows that
# retention drops here stay at the centre.
_PUBLISH = SQL(
    "create publication {} for table audit.event, audit.series, audit.tick,"
    " audit_private.organization_start"
    " with (publish = 'insert', publish_via_partition_root = true)"
).format(Identifier(PUBLICATION))


def publish_log(conn: psycopg.Connection[Any], role: str) -> None:
    """Publish the log to a role, as which a centre reads it. A second call changes nothing.

    Args:
        conn: a connection of a superuser, since the tables belong to `audit_owner`.
        role: a login with the attribute REPLICATION. It becomes a member of `audit_auditor`, to
            copy the existing events.

    Raises:
        Refused: the login is not a superuser, auditdb is not installed, wal_level is not logical,
            or the role does not exist or may not replicate.
    """
    with raises_audit_errors(conn, "audit_owner"), pinned(conn, writes=True):
        cursor = psycopg.Cursor(conn, row_factory=tuple_row)
        _refuse_login(cursor)
        _refuse(cursor, role)
        if not _is_published(cursor):
            cursor.execute(_PUBLISH)
        cursor.execute(SQL("grant audit_auditor to {}").format(Identifier(role)))


def _refuse_login(cursor: psycopg.Cursor[Any]) -> None:
    (is_super, is_installed) = cursor.execute(
        "select rolsuper, case when rolsuper then to_regclass('audit.series') is not null end"
        " from pg_roles where rolname = current_user"
    ).fetchone() or (False, False)
    if not is_super:
        raise Refused("publishing needs a superuser, because the tables belong to audit_owner")
    if not is_installed:
        raise Refused("auditdb is not installed in this database; run: auditdb install")


def _refuse(cursor: psycopg.Cursor[Any], role: str) -> None:
    (level,) = cursor.execute("select current_setting('wal_level')").fetchone() or ("",)
    if level != "logical":
        raise Refused(
            f"wal_level is {level}: set it to logical in postgresql.conf and restart the server"
        )
    if cursor.execute("select 1 from audit.series").fetchone() is None:
        raise Refused("the log has no series of ticks yet; run: auditdb install")
    name = Identifier(role).as_string(None)
    found = cursor.execute(
        "select rolcanlogin and (rolreplication or rolsuper) from pg_roles where rolname = %s",
        [role],
    ).fetchone()
    if found is None:
        raise Refused(
            f"there is no role {name}; a superuser runs: create role {name} login replication"
        )
    if not found[0]:
        raise Refused(
            f"role {name} may not replicate; a superuser runs: alter role {name} login replication"
        )


def unpublish_log(conn: psycopg.Connection[Any]) -> list[str]:
    """Drop the publication and the slots that nobody reads; return the names of these slots.

    Args:
        conn: a connection of a superuser.

    Raises:
        Refused: the login is not a superuser, auditdb is not installed, or a centre reads a slot.
    """
    with raises_audit_errors(conn, "audit_owner"), pinned(conn, writes=True):
        cursor = psycopg.Cursor(conn, row_factory=tuple_row)
        _refuse_login(cursor)
        slots = cursor.execute(
            "select slot_name::text, active from pg_replication_slots where slot_type = 'logical'"
            " and database = current_database() and slot_name ~ '^auditdb_' order by 1"
        ).fetchall()
        read = [name for name, active in slots if active]
        if read:
            source = read[0].removeprefix("auditdb_")
            raise Refused(
                f"a centre reads slot {read[0]}; there run: auditdb collect {source} --drop"
            )
        for name, _ in slots:
            cursor.execute("select pg_drop_replication_slot(%s)", [name])
        cursor.execute(SQL("drop publication if exists {}").format(Identifier(PUBLICATION)))
        return [name for name, _ in slots]


def _is_published(cursor: psycopg.Cursor[Any]) -> bool:
    return (
        cursor.execute("select 1 from pg_publication where pubname = %s", [PUBLICATION]).fetchone()
        is not None
    )
