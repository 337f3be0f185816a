"""The centre: collects events of other databases, each through its own subscription."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.rows import class_row, tuple_row
from psycopg.sql import SQL, Identifier, Literal
from psycopg.types.json import Jsonb

from auditdb.collect.publish import PUBLICATION
from auditdb.connection.address import connect
from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.errors import InvalidInput, Refused
from auditdb.operate.source import centre

_OWNER = SQL("set local role audit_owner")
# A first copy locks the tables until its end. A waiting lock request would block other writers.
_WAIT = SQL("set local lock_timeout = '5s'")
# The only tables that a subscription may write to. A source chooses what it publishes, and a
# superuser applies it.
# Slots on other servers are not visible here, and nothing there waits for this server.
_WORKING = """
select 1 from pg_subscription as s join pg_database as d on d.oid = s.subdbid
where d.datname = current_database() and s.subname = %s and (
    exists (select from pg_stat_get_subscription(s.oid) as w where w.pid is not null)
    or exists (
        select from pg_replication_slots as r
        where r.active and starts_with(r.slot_name, format('pg_%%s_sync_', s.oid))))"""
_PATIENCE = 300
_TABLES = "audit.event", "audit.series", "audit.tick", "audit_private.organization_start"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A database whose events are collected here, with the state of its subscription."""

    database: str
    events: int | None
    """An estimate by PostgreSQL; None before its first ANALYZE."""
    state: str
    """`gone`, `disabled`, `failing`, `copying` or `working`."""
    lag: timedelta | None
    """Time since its last message."""


def furnish(conn: psycopg.Connection[Any]) -> None:
    """Create or update the schema `audit_collected`, which makes a database a centre.

    Args:
        conn: a connection of a superuser to a database in which auditdb is installed. Nothing needs
            to be attached there.
    """
    with pinned(conn, writes=True):
        conn.execute(_WAIT)
        conn.execute("select pg_advisory_xact_lock(hashtextextended('auditdb', 0))")
        conn.execute("create schema if not exists audit_collected authorization audit_owner")
        conn.execute(_OWNER)
        conn.execute(centre().encode())
        conn.execute("reset role")


def collect_source(conn: psycopg.Connection[Any], database: str, source: str) -> str:
    """Collect the events of a database: first the existing ones, then all new ones.

    Called again, it changes the address. If the slot is lost (after a restore, a failover, or a
    limit of the write-ahead log), it copies again; events that are already here stay unchanged.

    Args:
        conn: an autocommit connection of a superuser to the centre.
        database: its name here, in lower-case letters, digits and underscores.
        source: its address, as this server reaches it, with the role that it is published to.

    Returns:
        `collecting`, `going on` or `copying anew`.

    Raises:
        InvalidInput: the name or the address is invalid.
        ConnectionFailed: the database could not be reached from here.
        Refused: the database does not publish its log, is not the one that was collected under this
            name, or cannot be reached by the server of the centre.
    """
    if not re.fullmatch("[a-z][a-z0-9_]{0,39}", database):
        raise InvalidInput(
            f'"{database}" is not a valid name; give a lower-case letter, then at most 39 '
            "letters, digits and underscores"
        )
    with (raises_audit_errors(conn, "audit_owner"), connect(source, autocommit=True) as there,
          _says_busy()):  # fmt: skip
        _refuse(conn, there)
        furnish(conn)
        is_known = _is_subscribed(conn, database)
        has_slot = _has_slot(there, database)
        _refuse_another(conn, there, database)
        if is_known and has_slot:
            _note(conn, there, database)
            _change_address(conn, database, source)
            return "going on"
        if is_known:
            _forget(conn, database)
        if has_slot:
            raise Refused(
                f"slot auditdb_{database} is there already: another centre collects by it, or one "
                "that is gone; there run: auditdb publish --drop, and publish again"
            )
        there.execute(
            "select pg_create_logical_replication_slot(%s, 'pgoutput')", [f"auditdb_{database}"]
        )
        try:
            # Read after the slot exists: a series that begins later arrives through the slot.
            _note(conn, there, database)
            _subscribe(conn, database, source)
        except BaseException:
            there.execute("select pg_drop_replication_slot(%s)", [f"auditdb_{database}"])
            raise
        return "copying anew" if is_known else "collecting"


@contextmanager
def _says_busy() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise Refused(
            "the centre is busy: a first copy or another command holds its tables; run it again "
            "when auditdb collect lists no database as copying"
        ) from error


def _refuse(conn: psycopg.Connection[Any], there: psycopg.Connection[Any]) -> None:
    if not _one(conn, "select rolsuper from pg_roles where rolname = current_user"):
        raise Refused(
            "collecting takes a superuser at the centre: what applies the changes writes into "
            "tables with forced row-level security"
        )
    if _one(conn, "select to_regclass('audit.event')") is None:
        raise Refused("auditdb is not installed in the centre; run: auditdb install")
    if not _one(there, f"select 1 from pg_publication where pubname = '{PUBLICATION}'"):
        raise Refused("that database does not publish its log; there run: auditdb publish ROLE")
    if not _one(there, "select pg_has_role('audit_auditor', 'usage')"):
        raise Refused("that database publishes its log to another role; there run: auditdb "
                      f"publish {there.info.user}")  # fmt: skip
    if _identity(conn) == _identity(there):
        raise Refused("that database is the centre itself")


def _identity(conn: psycopg.Connection[Any]) -> str:
    query = (
        "select concat(extract(epoch from pg_postmaster_start_time()), ' ', oid) from pg_database"
        " where datname = current_database()"
    )
    return str(_one(conn, query))


def _refuse_another(
    conn: psycopg.Connection[Any], there: psycopg.Connection[Any], database: str
) -> None:
    """Refuse a database that is not the one collected under its name, or is under another name."""
    keys = {row[0] for row in there.execute("select key from audit.series").fetchall()}
    known = set(_one(
        conn, "select array_agg(key) from audit_collected.series where database = %s", database
    ) or ())  # fmt: skip
    if known and not keys & known:
        raise Refused(
            f"that database is another than the one collected as {database}: it knows none of its "
            "series; give it a name of its own"
        )
    (last,) = there.execute("select key from audit.series order by id desc limit 1").fetchone() or (
        None,
    )
    as_ = _one(conn, "select min(database) from audit_collected.series where key = %s"
               " and database <> %s", str(last), database)  # fmt: skip
    if as_:
        raise Refused(
            f"that database is collected as {as_} already: its events would be there twice. If it "
            f"is a copy of {as_}, run there: select audit.make_tick(), which begins its own series"
        )


def _note(conn: psycopg.Connection[Any], there: psycopg.Connection[Any], database: str) -> None:
    series = _one(there, "select jsonb_agg(to_jsonb(s) order by s.id) from audit.series as s")
    with pinned(conn, writes=True):
        conn.execute(_WAIT)
        conn.execute(_OWNER)
        conn.execute("select audit_collected.add_source(%s)", [database])
        conn.execute("select audit_collected.note_series(%s, %s)", [database, Jsonb(series)])
        conn.execute("reset role")


def _subscribe(conn: psycopg.Connection[Any], database: str, source: str) -> None:
    name = Identifier(f"auditdb_{database}")
    # Enabled only after the check of the tables that it writes to.
    options = SQL("create_slot = false, enabled = false, slot_name = {}").format(
        Literal(f"auditdb_{database}")
    )
    if conn.info.server_version >= 160000:
        # Runs as the superuser, because forced row-level security applies to the owner of the
        # tables.
        options += SQL(", run_as_owner = true")
    conn.execute(
        SQL("create subscription {} connection {} publication {} with ({})").format(
            name, Literal(source), Identifier(PUBLICATION), options
        )
    )
    _enable(conn, database)


def _enable(conn: psycopg.Connection[Any], database: str) -> None:
    more = _more(conn, database)
    if more:
        _forget(conn, database)
        raise Refused(
            f"that database publishes {more} as well, and would write to it here; there run: "
            "auditdb publish --drop, and publish again"
        )
    name = Identifier(f"auditdb_{database}")
    # Without a refresh: it would add tables that the source published meanwhile.
    conn.execute(SQL("alter subscription {} enable").format(name))


def _more(conn: psycopg.Connection[Any], database: str) -> str | None:
    """Return the tables that a subscription writes to and that are not part of the log."""
    found: str | None = _one(
        conn,
        "select string_agg(r.srrelid::regclass::text, ', ' order by 1)"
        " from pg_subscription_rel as r join pg_subscription as s on s.oid = r.srsubid"
        " where s.subname = %s and r.srrelid <> all (%s::regclass[])",
        f"auditdb_{database}", f"{{{','.join(_TABLES)}}}",
    )  # fmt: skip
    return found


def _change_address(conn: psycopg.Connection[Any], database: str, source: str) -> None:
    name = Identifier(f"auditdb_{database}")
    conn.execute(SQL("alter subscription {} connection {}").format(name, Literal(source)))
    _enable(conn, database)


def drop_source(conn: psycopg.Connection[Any], database: str) -> bool:
    """End the collection of a database, and keep its collected events.

    Args:
        conn: an autocommit connection of a superuser to the centre.
        database: its name here.

    Returns:
        Whether its slot was dropped too. If not, drop it at the source.

    Raises:
        Refused: nothing of that name is collected.
    """
    with raises_audit_errors(conn, "audit_owner"):
        if database not in {source.database for source in list_sources(conn)}:
            raise Refused(f"no database is collected as {database}; auditdb collect lists them")
        is_dropped = _is_subscribed(conn, database) and _unsubscribe(conn, database)
        with pinned(conn, writes=True):
            conn.execute(_OWNER)
            conn.execute(
                "update audit_collected.source set ended_at = clock_timestamp()"
                " where database = %s",
                [database],
            )
            conn.execute("reset role")
        return is_dropped


def _unsubscribe(conn: psycopg.Connection[Any], database: str) -> bool:
    """Drop a subscription, and return whether its slot was dropped too."""
    _stop(conn, database)
    try:
        conn.execute(SQL("drop subscription {}").format(Identifier(f"auditdb_{database}")))
    except (psycopg.errors.ConnectionException, psycopg.errors.ConnectionFailure,
            psycopg.errors.UndefinedObject):  # fmt: skip
        _forget(conn, database)
        return False
    return True


def _forget(conn: psycopg.Connection[Any], database: str) -> None:
    """Drop a subscription whose slot is lost or cannot be reached."""
    name = Identifier(f"auditdb_{database}")
    _stop(conn, database)
    conn.execute(SQL("alter subscription {} set (slot_name = none)").format(name))
    conn.execute(SQL("drop subscription {}").format(name))


def _stop(conn: psycopg.Connection[Any], database: str) -> None:
    """Disable a subscription, and wait until its workers end.

    This avoids a deadlock if source and centre share a server: the slot for a copy waits for the
    transaction that drops the subscription, and that transaction waits for the slot.
    """
    name = f"auditdb_{database}"
    conn.execute(SQL("alter subscription {} disable").format(Identifier(name)))
    for _ in range(_PATIENCE):
        if not _one(conn, _WORKING, name):
            return
        time.sleep(0.1)
    raise Refused(f"the copy of {database} is still stopping; run the command again")


def list_sources(conn: psycopg.Connection[Any]) -> list[Source]:
    """Return the sources that are collected here, by name.

    Args:
        conn: a connection of a superuser to the centre.
    """
    with raises_audit_errors(conn, "audit_owner"), pinned(conn):
        if not _one(conn, "select rolsuper from pg_roles where rolname = current_user"):
            raise Refused("listing the sources needs a superuser")
        if _one(conn, "select to_regclass('audit.event')") is None:
            raise Refused("auditdb is not installed in this database; run: auditdb install")
        if _one(conn, "select to_regclass('audit_collected.source')") is None:
            return []
        cursor = psycopg.Cursor(conn, row_factory=class_row(Source))
        return cursor.execute("""
            select s.database, nullif(c.reltuples, -1)::bigint as events, case
                    when not s.is_there then 'gone' when not s.is_enabled then 'disabled'
                    when not s.is_working then 'failing' when s.copying > 0 then 'copying'
                    else 'working' end as state, s.lag
            from audit_collected.subscriptions() as s
                left join pg_class as c on c.relname = 'event_' || s.database
                    and c.relnamespace = 'audit_collected'::regnamespace
            order by 1""").fetchall()


def _is_subscribed(conn: psycopg.Connection[Any], database: str) -> bool:
    return bool(_one(conn, "select 1 from pg_subscription as s join pg_database as d"
                     " on d.oid = s.subdbid where d.datname = current_database()"
                     " and s.subname = %s", f"auditdb_{database}"))  # fmt: skip


def _has_slot(there: psycopg.Connection[Any], database: str) -> bool:
    """Return whether the slot still has all unread changes; drop a slot that lost some."""
    name = f"auditdb_{database}"
    status = _one(
        there,
        "select wal_status from pg_replication_slots"
        " where database = current_database() and slot_name = %s",
        name,
    )
    if status == "lost":
        there.execute("select pg_drop_replication_slot(%s)", [name])
        return False
    return status is not None


def _one(conn: psycopg.Connection[Any], query: str, *values: str) -> Any:
    row = psycopg.Cursor(conn, row_factory=tuple_row).execute(
        query.encode(), values or None
    ).fetchone()  # fmt: skip
    return row[0] if row else None
