"""The Parquet file of a month: its columns, how it is written, and the digest of its events.

docs/archive.md describes the file for readers without auditdb.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from auditdb.archive.scratch import scratch
from auditdb.errors import AuditError, InvalidInput
from auditdb.values.plain import counted

if TYPE_CHECKING:
    import duckdb

# The columns of audit.event in their order, with the DuckDB type of each.
COLUMNS = {
    "id": "BIGINT",
    "occurred_at": "TIMESTAMP WITH TIME ZONE",
    "transaction_id": "UBIGINT",
    "action": "VARCHAR",
    "result": "VARCHAR",
    "actor_id": "VARCHAR",
    "actor_type": "VARCHAR",
    "impersonator_id": "VARCHAR",
    "db_user": "VARCHAR",
    "organization_id": "VARCHAR",
    "target_type": "VARCHAR",
    "target_id": "VARCHAR",
    "subject_id": "VARCHAR",
    "source": "VARCHAR",
    "captured_from": "VARCHAR",
    "old_values": "VARCHAR",
    "new_values": "VARCHAR",
    "details": "VARCHAR",
    "db_role": "VARCHAR",
}
# The same as in auditdb/evidence/lines.py and docs/evidence.md.
LEAF = """id::varchar, strftime(make_timestamp(epoch_us(occurred_at)), '%Y-%m-%dT%H:%M:%S.%fZ'),
    transaction_id::varchar, action, result, actor_type, db_user, db_role, organization_id,
    target_type, target_id, source, captured_from, actor_id, impersonator_id, subject_id,
    old_values, new_values, details"""
# Matches the details that audit_private.erased_details writes; gives the id of the erasure.
ERASURE = r"""regexp_extract(details,
    '^\{"erased": \{"erasure": ([0-9]{1,19})(, "commitment": "[0-9a-f]{64}")?\}\}$', 1)"""
ORDER = "organization_id nulls last, occurred_at, id"
# A row group is read whole, and a page of an organisation lies in one or two of them.
# Each group adds two kilobytes to the footer of the file.
GROUP = 20_480
MEMORY = "512MB"
# For a second try with more memory: DuckDB holds the values of 2,048 events in memory at once.
ROOMY = "80%"
_PART = 64 * 1024 * 1024
# PostgreSQL and DuckDB write years BC differently.
_TIME = """case when e.occurred_at < '0001-01-01 00:00+00' and isfinite(e.occurred_at)
    then to_char(e.occurred_at at time zone 'UTC', 'YYYY-MM-DD "(BC)" HH24:MI:SS.US"+00"')
    else e.occurred_at::text end"""
_HOUR = 3_600_000_000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class TooLarge(AuditError, MemoryError):
    """Events do not fit into the memory that DuckDB may take."""


class Digest(NamedTuple):
    """The number of events, and their hash in the order of time and id.

    audit_private.digest_of computes the same of the events in the database.
    """

    events: int
    hash: str


def need_duckdb() -> ModuleType:
    """Return the module duckdb.

    Raises:
        InvalidInput: it is not installed.
    """
    try:
        import duckdb
    except ImportError as error:
        raise InvalidInput("archives need a package: pip install 'auditdb[archive]'") from error
    return duckdb


@contextmanager
def engine(memory: str = MEMORY) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Open DuckDB on a temporary directory, and yield both; delete the directory at the end.

    Args:
        memory: the memory limit of DuckDB. Above it, DuckDB writes to the directory.

    Raises:
        InvalidInput: DuckDB is not installed.
        AuditError: DuckDB fails, for instance because the disk is full.
    """
    duckdb = need_duckdb()
    with raises_audit_errors(), scratch() as folder:
        conn = duckdb.connect(str(folder / "month.duckdb"))
        try:
            conn.execute(f"set memory_limit = '{memory}'")
            conn.execute(f"set temp_directory = {literal(folder / 'spill')}")
            conn.execute("set timezone = 'UTC'")
            conn.execute("set autoinstall_known_extensions = false")
            conn.execute("set autoload_known_extensions = false")
            conn.execute("set preserve_insertion_order = false")
            yield conn, folder
        except RuntimeError as error:
            if str(error) == "Query interrupted":  # DuckDB raises this error on Ctrl+C.
                raise KeyboardInterrupt from error
            raise
        finally:
            conn.close()


@contextmanager
def raises_audit_errors() -> Iterator[None]:
    """Translate errors of DuckDB and of a full disk into one line."""
    duckdb = need_duckdb()
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise TooLarge("the events do not fit into the memory that DuckDB may take") from error
    except duckdb.Error as error:
        raise AuditError(" ".join(str(error).partition("\n\n")[0].split())[:300]) from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        where = error.filename or gettempdir()
        raise AuditError(f"cannot write to {where}: {error.strerror}") from error


def literal(value: object) -> str:
    """Return a text as an SQL literal."""
    return "'" + str(value).replace("'", "''") + "'"


def load(
    source: psycopg.Connection[Any], condition: str, duck: duckdb.DuckDBPyConnection, folder: Path,
    progress: Any = lambda n: None,
) -> int:  # fmt: skip
    """Copy events out of PostgreSQL into a new table `event` of DuckDB; return how many.

    Memory never holds more than a part of them.

    Args:
        source: a connection of an auditor, under the pin.
        condition: which events `e`, as SQL.
        duck: where the table is made.
        folder: for temporary files.
        progress: called with the number of events read since the last call.
    """
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    duck.execute(f"create table event ({columns})")
    names = ", ".join(_TIME if name == "occurred_at" else f"e.{name}" for name in COLUMNS)
    query = (f"copy (select {names} from audit.event as e where {condition}) to stdout "
             r"(format csv, null '\N')")  # fmt: skip
    part = folder / "part.csv"
    events = 0
    with source.cursor() as cursor, cursor.copy(query.encode()) as copy:
        rows = iter(copy)
        while True:
            size = longest = count = 0
            with part.open("wb", 1024 * 1024) as out:
                for row in rows:
                    out.write(row)
                    count += 1
                    size += len(row)
                    if len(row) > longest:
                        longest = len(row)
                    if size >= _PART:
                        break
            if not count:
                break
            duck.execute(f"insert into event select * from {_csv(part, longest)}")
            events += count
            progress(count)
    part.unlink()
    found = duck.execute("select count(*) from event").fetchone()
    if found != (events,):
        raise AuditError(f"read {counted(events, 'event')}, and DuckDB took {found and found[0]}")
    return events


def _csv(part: Path, longest: int) -> str:
    columns = ", ".join(f"'{name}': '{kind}'" for name, kind in COLUMNS.items())
    line = max(longest + 1024, 2_000_000)
    return (
        f"read_csv({literal(part)}, header = false, auto_detect = false, columns = {{{columns}}}, "
        "delim = ',', quote = '\"', escape = '\"', new_line = '\\n', nullstr = '\\N', "
        f"allow_quoted_nulls = false, max_line_size = {line}, buffer_size = {16 * line})"
    )


def write(duck: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Write the table `event` of DuckDB to a Parquet file, sorted.

    Raises:
        duckdb.Error: writing failed, for instance because the disk is full.
    """
    names = ", ".join(COLUMNS)
    duck.execute(
        f"copy (select {names} from event order by {ORDER}) to {literal(path)} "
        f"(format parquet, compression zstd, row_group_size {GROUP})"
    )


def digest(duck: duckdb.DuckDBPyConnection, path: Path) -> Digest:
    """Return the digest of the events in a Parquet file."""
    texts = ["us::varchar" if name == "occurred_at" else f"{name}::varchar" for name in COLUMNS]
    line = " || ".join(f"coalesce(strlen({text}) || ':' || {text}, '-')" for text in texts)
    rows = duck.execute(
        f"select us // {_HOUR}, sha256({line}) from ("
        f"select *, epoch_us(occurred_at) as us from {file(path)}) order by us, id"
    )
    events, hour, of_hour, whole = 0, None, sha256(), sha256()
    while found := rows.fetchmany(10_000):
        events += len(found)
        for at, value in found:
            if at != hour:
                if hour is not None:
                    whole.update(of_hour.hexdigest().encode())
                hour, of_hour = at, sha256()
            of_hour.update(value.encode())
    if hour is not None:
        whole.update(of_hour.hexdigest().encode())
    return Digest(events, whole.hexdigest())


def file(path: Path) -> str:
    """Return the SQL expression by which DuckDB reads a Parquet file."""
    return f"read_parquet({literal(path)}, hive_partitioning = false)"


def erasures(duck: duckdb.DuckDBPyConnection, path: Path) -> list[int]:
    """Return the ids of the erasures that removed data from events in a Parquet file."""
    with raises_audit_errors():
        rows = duck.execute(
            f"select distinct {ERASURE}::bigint as erasure from {file(path)} where {ERASURE} <> '' "
            "order by erasure"
        )
        return [row[0] for row in rows.fetchall()]
