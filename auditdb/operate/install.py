"""Installs the schema; the only module that knows yoyo."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
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
# other settings choose how names and texts are read and printed, what the owner sees, and that
# nobody is told of what is there already.
PINS = {
    "search_path": "pg_catalog, pg_temp",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "row_security": "on",
    "client_min_messages": "error",
}
PIN = "; ".join(f"set {name} = {value}" for name, value in PINS.items())


def sql_directory() -> Traversable:
    """Return the directory of the .sql files: in the wheel, or in the checkout it is edited in."""
    packaged = importlib.resources.files("auditdb") / "sql"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "sql"


def read(name: str) -> str:
    """Return the text of a file of the SQL directory."""
    try:
        return sql_directory().joinpath(*name.split("/")).read_text("utf-8")
    except OSError as error:
        raise AuditError(
            f"{name} is missing: the package is incomplete, install it again"
        ) from error


def migrations() -> list[tuple[str, str]]:
    """Return name and text of each migration, in order; their names and sums are in CHECKSUMS."""
    names = [line.split()[1] for line in read("migrations/CHECKSUMS").splitlines()]
    return [(name.removesuffix(".sql"), read(f"migrations/{name}")) for name in names]


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
        read("bootstrap.sql"),
        "set role audit_owner;",
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
    parts.append(routines())
    parts += ["do $$ begin perform audit_private.finish_install(); end $$;", "reset role;", _RESIGN]
    parts += [f"reset {name};" for name in PINS]
    return "\n".join(parts) + "\n"


def release() -> dict[tuple[str, str], str]:
    """Return what the release makes the log of, kind and name, and the SHA-256 of each."""
    lines = (line.split(" ", 2) for line in read("RELEASE").splitlines())
    return {(kind, name): sha256 for sha256, kind, name in lines}


def routines() -> str:
    """Return what fills audit_private.release, and the files of the manifest in its order."""
    rows = ",\n".join(
        "    ('{}', '{}', '{}')".format(kind, name.replace("'", "''"), sha256)
        for (kind, name), sha256 in release().items()
    )
    names = [line for line in read("manifest").splitlines() if not line.startswith("#")]
    return "\n".join(
        (
            # Its policy may be gone; guard.sql forces it again.
            "alter table audit_private.release no force row level security;",
            "delete from audit_private.release;",
            f"insert into audit_private.release (kind, name, sha256)\nvalues\n{rows};",
            *map(read, names),
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
            conn.execute(f"select pg_advisory_lock({LOCK})")
            _retry(conn, read("bootstrap.sql"))
            try:
                with conn.transaction():
                    conn.execute("set local role audit_owner")
                    _migrate(conn)
                    conn.execute(PIN)  # yoyo chose another search_path
                    conn.execute(routines().encode())
                    conn.execute("select audit_private.finish_install()")
                    row = conn.execute("select audit.version()").fetchone()
            finally:
                _retry(conn, _RESIGN)
            assert row is not None
            return str(row[0])
    except psycopg.Error as error:
        raise from_psycopg(error) from error


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


def _migrate(conn: psycopg.Connection[Any]) -> None:
    """Apply the migrations that the database lacks, through yoyo, in the caller's transaction."""
    # yoyo costs 0.2 s to import and serves here alone.
    from yoyo import read_migrations
    from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
    from yoyo.connections import parse_uri

    class Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
        """Keeps yoyo's books in audit_private, and leaves begin and commit to the caller."""

        log_table = "migration_log"
        lock_table = "migration_lock"
        version_table = "migration_version"
        schema = "audit_private"
        # What yoyo calls a transaction is then a savepoint.
        _in_transaction = True

        def connect(self, dburi: object) -> psycopg.Connection[Any]:
            return conn

        def copy(self) -> Backend:
            return self

        def __exit__(self, *error: object) -> None:
            pass

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
        found = read_migrations(str(folder))
        if len(found) != len(migrations()):
            raise AuditError(f"yoyo does not see every migration in {folder}")
        backend = Backend(parse_uri("postgresql+psycopg:///"), "migration")
        backend.apply_migrations(backend.to_apply(found))
        left = [m.id for m in backend.to_apply(found)]
    if left:
        raise AuditError(f"migration {left[0]} was not applied")


@contextlib.contextmanager
def _on_disk(folder: str) -> Iterator[Path]:
    with importlib.resources.as_file(sql_directory() / folder) as path:
        yield path
