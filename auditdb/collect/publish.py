"""A database whose events are collected elsewhere: its publication, and who may read by it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Identifier

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.errors import Refused

PUBLICATION = "auditdb"
# Inserts alone: nothing of these is changed but by an erasure, of which an event tells, and what
# retention drops here stays at the centre.
_PUBLISH = SQL(
    "create publication {} for table audit.event, audit.series, audit.tick,"
    " audit_private.organization_start"
    " with (publish = 'insert', publish_via_partition_root = true)"
).format(Identifier(PUBLICATION))


def publish_log(conn: psycopg.Connection[Any], role: str) -> None:
    """Publish the log to a role, by which a centre may read it; to say it again changes nothing.

    Args:
        conn: a connection of a superuser, since the tables belong to `audit_owner`.
        role: a login with the attribute REPLICATION. It becomes a member of `audit_auditor`, as
            whom it copies the events that there are.

    Raises:
        Refused: it is no superuser, auditdb is not installed, wal_level is not logical, or the role
            is none, or may not replicate.
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
        raise Refused("publishing takes a superuser, since the tables belong to audit_owner")
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
    """Drop the publication, and the slots that nobody reads, and return the names of these.

    Args:
        conn: a connection of a superuser.

    Raises:
        Refused: it is no superuser, auditdb is not installed, or a centre reads by a slot.
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
                f"a centre reads by slot {read[0]}; there run: auditdb collect {source} --drop"
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
