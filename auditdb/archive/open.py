"""Queries of an archive: DuckDB over its Parquet files, alone or with the live log."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from psycopg import Connection

from auditdb.archive.format import COLUMNS, engine, literal, load
from auditdb.archive.place import EVENTS, Place, folder
from auditdb.connection.pin import pinned
from auditdb.errors import AuditError, InvalidInput
from auditdb.mapping.vocabulary import VOCABULARY

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")


class Stored(NamedTuple):
    """A month of an archive.

    Attributes:
        database: the database of the events.
        month: the month, as `YYYY-MM`.
    """

    database: str
    month: str


def months_of(place: Place, database: str | None = None) -> list[Stored]:
    """Return the months of the archive, the oldest first.

    Args:
        place: where the archive is.
        database: only the months of this database.
    """
    databases = place.databases() if database is None else [database]
    return sorted(
        (Stored(name, month) for name in databases for month in place.months(name)),
        key=lambda found: (found.month, found.database),
    )


@contextmanager
def opened(
    url: str, *, database: str | None = None, conn: Connection[Any] | None = None,
    progress: Callable[[int], object] = lambda n: None, locked: bool = False,
) -> Iterator[duckdb.DuckDBPyConnection]:  # fmt: skip
    """Open an archive with DuckDB, as tables and views of a schema `audit`.

    `audit.event` and the views of docs/views.md have the same columns as in PostgreSQL, with JSON
    as text. A last column is `database`. `event` is short for `audit.event`.

    Args:
        url: the root of the archive.
        database: only the months of this database. Default: all databases of the archive.
        conn: a connection of an auditor, in autocommit mode. With it, the live log of that database
            is included. It is copied to this machine first.
        progress: called with the number of events copied since the last call.
        locked: for SQL that somebody else wrote. A query cannot reach other files, databases,
            extensions or settings. `rows_of` then allows only queries.

    Raises:
        InvalidInput: the address is not an archive, months are missing, or DuckDB is missing.
        AuditError: the archive cannot be read.
    """
    place = Place(url)
    months = months_of(place, database)
    if not months and conn is None:
        whose = f" of a database {database}" if database else ""
        raise InvalidInput(f"{url} holds no archived month{whose}: give the root of an archive, "
                           "in which there are directories such as database=shop")  # fmt: skip
    with engine() as (duck, directory):
        place.register(duck)
        parts = []
        if conn is not None:
            with pinned(conn):
                # No month leaves the database between the list and the copy.
                conn.execute("lock table audit.event in access share mode")
                own, away, put = _live(conn)
                if database not in (None, own):
                    raise InvalidInput(f"the live log is that of {own}, not of {database}")
                _refuse_gaps(place, months, own, away, put)
                # A month in both places is read from the database.
                months = [m for m in months if m.database != own or m.month in away]
                load(conn, "true", duck, directory, progress)
            duck.execute("alter table event rename to live_event")
            parts.append(f"select *, {literal(own)} from live_event")
        if months:
            parts.append(scan(place, months))
        _define(duck, parts)
        if locked:
            _lock(duck, place, months)
        yield duck


def _lock(duck: duckdb.DuckDBPyConnection, place: Place, months: Sequence[Stored]) -> None:
    paths = ", ".join(
        literal(place.address(f"{folder(month.database, month.month)}/{EVENTS}"))
        for month in months
    )
    duck.execute(f"set allowed_paths = [{paths}]")
    duck.execute("set enable_external_access = false")
    duck.execute("set lock_configuration = true")


def scan(place: Place, months: Sequence[Stored]) -> str:
    """Return a query of the events of some months, with `database` as the last column."""
    paths: dict[str, list[str]] = {}
    for month in months:
        path = f"{folder(month.database, month.month)}/{EVENTS}"
        paths.setdefault(month.database, []).append(literal(place.address(path)))
    return " union all ".join(
        f"select {', '.join(COLUMNS)}, {literal(database)} as database from read_parquet("
        f"[{', '.join(found)}], hive_partitioning = false)"
        for database, found in paths.items()
    )


def _live(conn: Connection[Any]) -> tuple[str, set[str], str]:
    """Return the name of the database in the archive, its months only there, and their place."""
    rows = conn.execute(
        "select database, to_char(month, 'YYYY-MM'), dropped_at is not null and "
        "restored_at is null, place from audit.list_archive()"
    ).fetchall()
    (name,) = conn.execute("select current_database()").fetchone() or ("",)
    own, *_, put = rows[0] if rows else (name, "")
    return str(own), {month for _, month, is_away, _ in rows if is_away}, str(put)


def _refuse_gaps(
    place: Place, months: Sequence[Stored], own: str, away: set[str], put: str
) -> None:
    """Refuse an archive that lacks months that were dropped from the database."""
    gaps = sorted(away - {stored.month for stored in months if stored.database == own})
    if gaps:
        named = " and ".join([", ".join(gaps[:-1]), gaps[-1]] if gaps[1:] else gaps)
        raise InvalidInput(
            f"{named} of {own} are not at {place.url}: auditdb archive put them at {put}"
        )


def _define(duck: duckdb.DuckDBPyConnection, parts: Sequence[str]) -> None:
    import duckdb

    names = ", ".join((*COLUMNS, "database"))
    duck.execute("create schema audit")
    try:
        duck.execute(f"create view audit.event ({names}) as {' union all '.join(parts)}")
    except duckdb.Error as error:
        raise unreadable(error) from error
    duck.execute("create view event as select * from audit.event")
    duck.execute("create table audit.called_rank (name varchar, part int, rank int)")
    for part, words in enumerate(VOCABULARY["called"].values()):
        for rank, word in enumerate(words):
            duck.execute("insert into audit.called_rank values (?, ?, ?)", [word, part, rank])
    views = importlib.resources.files("auditdb.archive").joinpath("views.sql")
    for statement in duck.extract_statements(views.read_text("utf-8")):
        duck.execute(statement)


def rows_of(
    duck: duckdb.DuckDBPyConnection, sql: str
) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Run a query; return the names of its columns, and an iterator over its rows.

    Raises:
        InvalidInput: DuckDB refuses the SQL, or it is not a query but writes or sets something.
    """
    import duckdb

    def rows() -> Iterator[tuple[Any, ...]]:
        try:
            while part := _interruptible(duck, lambda: duck.fetchmany(1_000)):
                yield from part
        except duckdb.Error as error:
            raise refused(error) from error

    try:
        # DuckDB may also write to an allowed path, so only queries may run.
        statements = duck.extract_statements(sql)
        if not statements or any(s.type != duckdb.StatementType.SELECT for s in statements):
            raise InvalidInput("give a query, such as 'select count(*) from event'; nothing else "
                               "is run here")  # fmt: skip
        for statement in statements:
            _interruptible(duck, partial(duck.execute, statement))
    except duckdb.Error as error:
        raise refused(error) from error
    return [name for name, *_ in duck.description or ()], rows()


def _interruptible(duck: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """Run it in a thread, because DuckDB itself reacts to Ctrl+C too late."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        try:
            return done.result()
        except KeyboardInterrupt:
            duck.interrupt()
            raise


def refused(error: Exception) -> InvalidInput:
    """Return the error of DuckDB in one line."""
    return InvalidInput(" ".join(str(error).split())[:500])


def unreadable(error: Exception) -> AuditError:
    """Return the error of DuckDB about a missing or invalid file, in one line."""
    return AuditError(f"cannot read the archive: {str(error).partition(chr(10))[0][:500]}")
