"""Installs the schema: one transaction on one connection."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import psycopg
from psycopg import errors as pg

from auditdb._version import __version__
from auditdb.connection.address import connect
from auditdb.connection.progress import Progress, reports_progress
from auditdb.errors import from_psycopg
from auditdb.operate.migrate import migrate
from auditdb.operate.source import centre, migrations, read, routines

# Install, attach and maintenance hold this lock, so that none sees unfinished work of another.
LOCK = "hashtextextended('auditdb', 0)"
# Views and policies resolve names when they are created, so the search_path must not contain
# schemas of others. The other settings fix how names and texts are read and printed and what the
# owner sees, and suppress notices.
PINS = {
    "search_path": "pg_catalog, pg_temp",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "row_security": "on",
    "array_nulls": "on",
    "client_min_messages": "error",
}
PIN = "; ".join(f"set local {name} = {value}" for name, value in PINS.items())

# All settings last only for the transaction, because of poolers. A migration tool may continue in
# the same transaction, so the former values are saved. The first statement runs before the pin.
BEGIN = "\n".join((
    "do $$\nbegin\n    perform pg_catalog.set_config('auditdb.before',"
    " pg_catalog.jsonb_build_object(",
    ",\n".join(
        f"        '{name}', pg_catalog.current_setting('{name}')"
        for name in (*PINS, "lock_timeout", "role")
    ),
    "    )::pg_catalog.text, true);\nend\n$$;",
    f"{PIN};",
    f"set local auditdb.release = '{__version__}';",
    """do $$
begin
    if coalesce(current_setting('auditdb.before', true), '') = '' then
        raise exception 'auditdb is installed in one transaction, and this is none'
            using errcode = 'no_active_sql_transaction',
                hint = 'With psql: psql -1 -v ON_ERROR_STOP=1 -f';
    end if;""",
    f"    perform pg_advisory_xact_lock({LOCK});\nend\n$$;",
))  # fmt: skip
_FINISH = "do $$ begin perform audit_private.finish_install(); end $$;"


def script() -> str:
    """Return all of auditdb as one SQL script, for psql and for other migration tools.

    Run it in one transaction, as a superuser or a role with CREATEROLE. It may be repeated, also
    over an older version, with the same result as `install`. If the database sets
    standard_conforming_strings to off, send it statement by statement, as psql does.

    >>> script().startswith("-- auditdb")
    True
    """
    parts = [
        "-- auditdb: run in one transaction, for instance with: psql -1 -v ON_ERROR_STOP=1 -f",
        BEGIN,
        read("bootstrap.sql"),
    ]
    for identity, text in migrations():
        mark = hashlib.sha256(identity.encode()).hexdigest()
        parts.append(
            "do $migration$\nbegin\n"
            "    if not exists (\n"
            f"        select from audit_private.migration where migration_hash = '{mark}'\n"
            "    ) then\n"
            f"        execute $statements$\n{text}$statements$;\n"
            "        insert into audit_private.migration\n"
            f"        values ('{mark}', '{identity}', now() at time zone 'utc');\n"
            "    end if;\nend\n$migration$;"
        )
    parts += [routines(), _FINISH, read("finish.sql")]
    return "\n".join(parts)


def install(conninfo: str = "", *, progress: Progress | None = None) -> str:
    """Install auditdb in a database, or bring an older version up to date.

    May be run again at any time, and by many at once, also through a pooler. Tables that are
    attached stay attached, and writers may go on. All of it is one transaction.

    Args:
        conninfo: anything libpq accepts: a URI, key=value pairs, or nothing for the PG* variables.
            The role is a superuser, or owns the application's tables and has CREATEROLE and CREATE
            on the database.
        progress: called with how many more attached tables were brought up to date, and a note.

    Returns:
        The version that is installed now.

    Raises:
        InvalidInput: the connection string is malformed.
        ConnectionFailed: the server could not be reached.
        Refused: a privilege is missing, a newer version is installed, or a schema named "audit"
            belongs to somebody else.

    Example:
        >>> install(dsn)  # doctest: +SKIP
        '0.2.0'
    """
    try:
        with connect(conninfo, autocommit=True, application_name="auditdb install") as conn:
            # At a higher level, it would not see the work of an install that it waited for.
            conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            for attempt in range(1, 20):
                try:
                    return _install(conn, progress)
                except (pg.InternalError_, pg.UniqueViolation, pg.DeadlockDetected) as error:
                    if not _is_of_the_cluster(error):
                        raise
                    time.sleep(0.05 * attempt)
            return _install(conn, progress)
    except psycopg.Error as error:
        raise from_psycopg(error) from error


def _install(conn: psycopg.Connection[Any], progress: Progress | None) -> str:
    with conn.transaction(), reports_progress(conn, progress):
        conn.execute(BEGIN.encode())
        conn.execute(read("bootstrap.sql").encode())
        migrate(conn)
        conn.execute(PIN.encode())  # yoyo needs another search_path
        conn.execute(routines().encode())
        conn.execute(_FINISH)
        if is_centre(conn):
            conn.execute(centre().encode())
        row = conn.execute("select audit.version()").fetchone()
        conn.execute(read("finish.sql").encode())
    assert row is not None
    return str(row[0])


def is_centre(conn: psycopg.Connection[Any]) -> bool:
    """Return whether events of other databases are collected here."""
    row = conn.execute("select pg_catalog.to_regclass('audit_collected.source')").fetchone()
    return row is not None and row[0] is not None


def _is_of_the_cluster(error: psycopg.Error) -> bool:
    """Return whether the error is a concurrent change of the same roles in another database."""
    if isinstance(error, pg.UniqueViolation):
        return (error.diag.table_name or "").startswith("pg_")
    return isinstance(error, pg.DeadlockDetected) or "concurrently" in str(error)
