"""Applies the migrations; the only module that knows yoyo."""

from __future__ import annotations

import contextlib
import importlib.resources
import socket
import uuid
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from auditdb.errors import AuditError
from auditdb.operate.source import migrations, sql_directory


def migrate(conn: psycopg.Connection[Any]) -> None:
    """Apply the migrations that the database lacks, through yoyo, in the caller's transaction.

    The search_path of the transaction is another one afterwards.
    """
    # It costs 0.2 s to import.
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

        def init_connection(self, connection: psycopg.Connection[Any]) -> None:
            # yoyo's own would stay in the session, which a pooler hands to the next client.
            connection.execute("set local search_path = audit_private")

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
