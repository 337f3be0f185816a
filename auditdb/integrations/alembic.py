"""Alembic: auditdb in migrations, and a hook that attaches tables after an upgrade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from psycopg import pq
from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from auditdb.errors import InvalidInput
from auditdb.operate.install import script
from auditdb.write.failure import from_wrapped, sqlstate


def install(op: Any) -> None:
    """Install auditdb, or bring it up to date, in the transaction of a migration.

    The login of the migrations needs CREATEROLE and CREATE on the database, as for `auditdb
    install`. Offline (`--sql`) it writes the script.

    Args:
        op: `alembic.op`.

    Raises:
        TypeError: the database of the migration is not PostgreSQL.
        AuditError: as `auditdb.operator.install`.

    Example:
        >>> def upgrade():  # doctest: +SKIP
        ...     auditdb.integrations.alembic.install(op)
    """
    context = op.get_context()
    if context.dialect.name != "postgresql":
        raise TypeError(f"this migration is for {context.dialect.name}; auditdb is for PostgreSQL")
    if context.as_sql:
        # Not through op.execute(), which would look for parameters in the SQL.
        context.impl.static_output(script())
        return
    conn = op.get_bind()
    # Starts the transaction, which the driver delays.
    conn.exec_driver_sql("select 1")
    try:
        _run(conn, script())
    except Exception as error:
        if sqlstate(error) is None:
            raise
        raise from_wrapped(error, None) from error


def _run(conn: Connection, statements: str) -> None:
    """Run a script with the driver, because an error of SQLAlchemy would print the whole script."""
    if conn.dialect.driver == "asyncpg":
        # As a simple query: a prepared statement can hold only one command.
        driver: Any = conn.connection.driver_connection
        await_only(driver.execute(statements))
        return
    cursor = conn.connection.cursor()
    try:
        cursor.execute(statements)
    finally:
        cursor.close()


def attach_after_upgrade(
    where: Engine | AsyncEngine | URL | str, mapping: str | Path = "auditdb.toml"
) -> list[str]:
    """Attach the tables of a mapping file, once the migrations are committed.

    Call it at the end of `run_migrations_online()` in `env.py`, or of `run_async_migrations()` in
    the asynchronous template. New tables are captured from then on; changed tables are mapped
    again.

    Args:
        where: the engine of the migrations, whatever its driver, or its address. Its login owns the
            tables and holds `audit_operator`. Of the parameters of the address, those of libpq and
            `ssl` of asyncpg are used.
        mapping: the mapping file.

    Returns:
        A line for each change.

    Raises:
        TypeError: `where` is neither an engine nor an address of PostgreSQL.
        AuditError: as `auditdb.operator.load` and `apply`, or the file cannot be read; then nothing
            was attached.

    Example:
        >>> attach_after_upgrade(connectable, "auditdb.toml")  # doctest: +SKIP
        ['attach public.membership as membership']
    """
    from auditdb import operator
    from auditdb.connection.address import connect

    url = _url(where)
    path = Path(mapping)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InvalidInput(
            f"{path.absolute()} cannot be read: {error.strerror}; write it with `auditdb detect`"
        ) from error
    mappings = operator.load(text, source=str(path))
    with connect(url.render_as_string(hide_password=False), autocommit=True) as conn:
        changes = operator.apply(conn, mappings)
    return [str(change) for change in changes if change.verb not in ("unchanged", "unlisted")]


def _url(where: object) -> URL:
    """Return the address in the form for libpq."""
    if isinstance(where, URL | str):
        url = make_url(where)
    elif isinstance(where, Engine | AsyncEngine):
        url = where.url
    else:
        raise TypeError(
            f"where is a {type(where).__name__}; give the engine of the migrations, or its address"
        )
    if url.get_backend_name() != "postgresql":
        raise TypeError(
            f"the address is one of {url.get_backend_name()}; auditdb is for PostgreSQL"
        )
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    query = {"sslmode" if name == "ssl" else name: value for name, value in url.query.items()}
    return URL.create(
        "postgresql", url.username, url.password, url.host, url.port, url.database,
        {name: value for name, value in query.items() if name in known},
    )  # fmt: skip
