"""Installs the schema; the only module that knows yoyo."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import re
import socket
import time
import uuid
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors as pg

from auditdb.connection.address import connect
from auditdb.errors import AuditError, from_psycopg

# Held by install, attach and maintenance alike, so that none sees the others' work half done.
LOCK = "hashtextextended('auditdb', 0)"
# Names are looked up when a view or a policy is made: not where others may have put their own. The
# other settings choose how names and texts are read and printed, and what the owner sees.
PINS = {
    "search_path": "pg_catalog, pg_temp",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "row_security": "on",
}
PIN = "; ".join(f"set {name} = {value}" for name, value in PINS.items())


def sql_directory() -> Traversable:
    """Return the directory of the .sql files: in the wheel, or in the checkout it is edited in."""
    packaged = importlib.resources.files("auditdb") / "sql"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "sql"


def _read(*folders: str) -> list[tuple[str, str]]:
    """Return name and text of each .sql file of a folder, in order; never an empty list."""
    folder = sql_directory().joinpath(*folders)
    files = sorted(
        (f.name, f.read_text("utf-8"))
        for f in (folder.iterdir() if folder.is_dir() else ())
        if f.name.endswith(".sql")
    )
    if not files:
        raise AuditError(f"no .sql files in {folder}: the package is incomplete, install it again")
    return files


def script() -> str:
    """Return all of auditdb as one SQL script, for psql and for other migration tools.

    Run it in one transaction, as a superuser or a role with CREATEROLE. It may be run again, over
    an older version too, and ends in the same schema as `install`. Where the database sets
    standard_conforming_strings to off, send it statement by statement, as psql does.

    >>> script().startswith("-- auditdb")
    True
    """
    parts = [
        "-- auditdb: run in one transaction, for instance with: psql -1 -v ON_ERROR_STOP=1 -f",
        f"{PIN};",
        f"do $$ begin perform pg_advisory_xact_lock({LOCK}); end $$;",
        dict(_read())["bootstrap.sql"],
        "set role audit_owner;",
    ]
    for name, text in _read("migrations"):
        identity = name.removesuffix(".sql")
        mark = hashlib.sha256(identity.encode()).hexdigest()
        parts.append(
            "do $migration$\nbegin\n"
            "    if not exists (\n"
            f"        select from audit.migration where migration_hash = '{mark}'\n    ) then\n"
            f"        execute $statements$\n{text}$statements$;\n"
            "        insert into audit.migration\n"
            f"        values ('{mark}', '{identity}', now() at time zone 'utc');\n"
            "    end if;\nend\n$migration$;"
        )
    parts.append(routines())
    parts += ["do $$ begin perform audit.finish_install(); end $$;", "reset role;", _RESIGN]
    parts += [f"reset {name};" for name in PINS]
    return "\n".join(parts) + "\n"


# A function's name, arguments and result: what "create or replace" does not change.
_HEADER = re.compile(
    r"^create or replace function audit\.(\w+)(\(.*?)(?=\s+language (?:sql|plpgsql)\b)",
    re.MULTILINE | re.DOTALL,
)


def routines() -> str:
    """Return the functions and views, after what sets those of an older release aside."""
    text = "\n".join(text for _, text in _read("routines"))
    declarations = "\n".join(
        f"create function audit.\"declared {name}\"{header}\nlanguage plpgsql as '';"
        for name, header in _HEADER.findall(text)
    )
    return "\n".join(
        (
            "do $declarations$\nbegin\n"
            "    if exists (\n"
            "        select from pg_proc where pronamespace = 'audit'::regnamespace\n    ) then\n"
            "        set local check_function_bodies = off;\n"
            f"        execute $declare${declarations}$declare$;\n"
            "        set local check_function_bodies = on;\n"
            "    end if;\nend\n$declarations$;",
            dict(_read())["set-aside.sql"],
            text,
        )
    )


# The installing role ceases to act as audit_owner.
_RESIGN = """do $$
begin
    if exists (
        select from pg_catalog.pg_auth_members
        where roleid = 'audit_owner'::regrole and member = current_user::regrole
            and grantor = current_user::regrole
    ) then
        execute pg_catalog.format('revoke audit_owner from %I', current_user);
    end if;
end
$$;"""


def install(conninfo: str = "") -> str:
    """Install auditdb in a database, or bring an older version up to date.

    May be run again at any time, and by many at once. Tables that are attached stay attached, and
    writers may go on.

    Args:
        conninfo: anything libpq accepts: a URI, key=value pairs, or nothing for the PG* variables.
            The role is a superuser, or owns the application's tables and has CREATEROLE and CREATE
            on the database.

    Returns:
        The version that is installed now.

    Raises:
        InvalidInput: the connection string is malformed.
        ConnectionFailed: the server could not be reached.
        Refused: a privilege is missing, or a schema named "audit" belongs to somebody else.

    Example:
        >>> install(dsn)  # doctest: +SKIP
        '0.1.0'
    """
    try:
        with connect(conninfo, autocommit=True, application_name="auditdb install") as conn:
            conn.execute(PIN)
            conn.execute("set client_min_messages = error")
            conn.execute(f"select pg_advisory_lock({LOCK})")
            _bootstrap(conn)
            try:
                _migrate(conninfo)
                with conn.transaction():
                    conn.execute("set local role audit_owner")
                    conn.execute(routines().encode())
                    conn.execute("select audit.finish_install()")
                    row = conn.execute("select audit.version()").fetchone()
            finally:
                _retry(conn, _RESIGN)
            assert row is not None
            return str(row[0])
    except psycopg.Error as error:
        raise from_psycopg(error) from error


def _bootstrap(conn: psycopg.Connection[Any]) -> None:
    _retry(conn, dict(_read())["bootstrap.sql"])


def _retry(conn: psycopg.Connection[Any], text: str) -> None:
    """Run statements on roles, which another database of the cluster may be changing as well."""
    for attempt in range(20):
        try:
            with conn.transaction():
                conn.execute(text.encode())
            return
        except (pg.InternalError_, pg.UniqueViolation):  # "tuple concurrently updated"
            if attempt == 19:
                raise
            time.sleep(0.05 * (attempt + 1))


def _migrate(conninfo: str) -> None:
    """Apply the migrations that the database lacks, through yoyo."""
    # yoyo costs 0.2 s to import and serves here alone.
    from yoyo import read_migrations
    from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
    from yoyo.connections import parse_uri

    class Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
        """Keeps yoyo's books in the audit schema, where they meet no other yoyo's."""

        log_table = "migration_log"
        lock_table = "migration_lock"
        version_table = "migration_version"
        schema = "audit"

        def connect(self, dburi: object) -> psycopg.Connection[Any]:
            # Past yoyo's own parser, which knows fewer addresses than libpq does.
            conn = connect(conninfo, autocommit=True)
            conn.execute(PIN)
            conn.execute("set client_min_messages = error")
            conn.execute("set role audit_owner")
            return conn

        def get_log_data(self, migration: Any = None, operation: str = "apply") -> dict[str, Any]:
            # yoyo's own asks DNS for this host and the system for this user, and may hang or fail.
            return {
                "id": str(uuid.uuid4()),
                "migration_id": migration.id if migration else None,
                "migration_hash": migration.hash if migration else None,
                "username": self.connection.info.user,
                "hostname": socket.gethostname(),
                "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
                "operation": operation,
            }

    with _on_disk("migrations") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        migrations = read_migrations(str(folder))
        if len(migrations) != len(_read("migrations")):
            raise AuditError(f"yoyo does not see every migration in {folder}")
        backend = Backend(parse_uri("postgresql+psycopg:///"), "migration")
        with backend:
            backend.apply_migrations(backend.to_apply(migrations))
            left = [m.id for m in backend.to_apply(migrations)]
    if left:
        raise AuditError(f"migration {left[0]} was not applied")


@contextlib.contextmanager
def _on_disk(folder: str) -> Iterator[Path]:
    with importlib.resources.as_file(sql_directory() / folder) as path:
        yield path
