"""Uninstalls auditdb: detaches all tables, and keeps, exports or drops the log."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

import psycopg
from psycopg.rows import tuple_row

from auditdb.connection.address import connect
from auditdb.connection.pin import pinned
from auditdb.errors import InvalidInput, Refused, from_psycopg
from auditdb.operate.install import BEGIN
from auditdb.operate.source import read
from auditdb.read.export import write_block
from auditdb.read.lines import COPY, SELECT, event_of
from auditdb.values.blocks import json_lines
from auditdb.values.plain import counted

_END = """do $$
declare
    _before jsonb := current_setting('auditdb.before')::jsonb;
begin
    perform set_config('auditdb.before', '', true), set_config('auditdb.left', '', true);
    perform set_config(key, value, true) from jsonb_each_text(_before);
end
$$;"""
# Read as the owner of the log; the same transaction revokes this grant.
_OWN = """do $$
begin
    perform set_config('auditdb.is_owner', pg_has_role('audit_owner', 'usage')::text, true);
    if not pg_has_role('audit_owner', 'usage') then
        execute format('grant audit_owner to %I%s', current_user, case
            when current_setting('server_version_num')::int >= 160000
                then ' with set true, inherit true' else '' end);
    end if;
end
$$;
set local role audit_owner;"""
_DISOWN = """do $$
begin
    perform set_config('role', current_setting('auditdb.before')::jsonb ->> 'role', true);
    if current_setting('auditdb.is_owner') = 'false' then
        execute format('revoke audit_owner from %I', current_user);
    end if;
end
$$;"""
# The remaining mappings have no table to detach.
_FORGET = """do $$
declare
    _id int;
begin
    perform audit_private.disown_gone();
    for _id in select a.id from audit_private.attachment as a where a.target is null order by 1 loop
        perform audit_private.remove_attachment(_id, '{"gone": true}');
    end loop;
end
$$;"""
# As exports have them.
_EVENTS = (
    f"copy (select {SELECT['jsonl']} from audit.event where {{where}} order by occurred_at, id)"
    f" to stdout with ({COPY['jsonl']})"
)


def describe(conninfo: str = "", *, log: Literal["keep", "drop"] = "keep") -> list[str]:
    """Return what `uninstall` would do, as lines, and do nothing.

    Args:
        conninfo: as `uninstall` takes it.
        log: `keep` or `drop`, as in `uninstall`.
    """
    try:
        with connect(conninfo, application_name="auditdb uninstall") as conn:
            conn.read_only = True
            with pinned(conn):
                _check(conn)
                tables = [n for (n,) in _rows(conn, "select target from audit.list_tables()")]
                ((events,),) = _rows(conn, "select sum(events) from audit.list_partitions()")
    except psycopg.Error as error:
        raise from_psycopg(error) from error
    size = f"about {counted(int(events or 0), 'event')}"
    lines = [f"would detach {name}, and drop its triggers and functions" for name in tables]
    lines.append("would take from audit_mapper what attaching has granted")
    if log == "keep":
        lines.append(f"would keep the log: {size}, for auditors to read")
    else:
        lines.append(f"would drop the log: {size}, schemas audit and audit_private")
        lines.append("would drop the roles audit_* that no other database of the cluster uses")
    return lines


def uninstall(
    conninfo: str = "", *, log: Literal["keep", "drop"] = "keep", export: Path | None = None
) -> list[str]:
    """Detach all tables, and keep or drop the log, in one transaction.

    Args:
        conninfo: anything libpq accepts; the role is a superuser, or the one that installed.
        log: `keep` leaves both schemas, which auditors go on reading; `drop` drops them, and the
            roles that no other database of the cluster uses.
        export: a file that is written first, a JSON object a line for each event.

    Returns:
        What is left over and why, as lines.

    Raises:
        InvalidInput: the file exists already, or cannot be written.
        Refused: auditdb is not installed, a table is somebody else's, or something that is not
            auditdb's depends on the log. Then nothing was removed.

    Example:
        >>> uninstall(dsn, log="drop", export=Path("log.jsonl"))  # doctest: +SKIP
        []
    """
    try:
        with (
            connect(conninfo, autocommit=True, application_name="auditdb uninstall") as conn,
            _new_file(export) as file,
            _transaction(conn),
        ):
            _check(conn)
            conn.execute(BEGIN.encode())
            written = _export(conn, file) if file else None
            conn.execute(read("operate/uninstall.sql").encode())
            for statement in (_OWN, _FORGET, _DISOWN):
                conn.execute(statement.encode())
            if log == "drop":
                # Writers are locked out now, so export the events that came meanwhile.
                if file and written is not None:
                    _export(conn, file, written)
                conn.execute(read("operate/drop_log.sql").encode())
            ((left,),) = _rows(conn, "select current_setting('auditdb.left')")
            conn.execute(_END.encode())
            if file:
                file.flush()
                os.fsync(file.fileno())
        return [str(line) for line in json.loads(left)]
    except psycopg.Error as error:
        raise from_psycopg(error) from error


def _transaction(conn: psycopg.Connection[Any]) -> psycopg.Transaction:
    conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    return psycopg.Transaction(conn)


def _check(conn: psycopg.Connection[Any]) -> None:
    query = "select pg_catalog.to_regclass('audit_private.attachment') is not null"
    if _rows(conn, query) != [(True,)]:
        raise Refused("auditdb is not installed in this database: there is nothing to remove")


@contextlib.contextmanager
def _new_file(path: Path | None) -> Iterator[IO[str] | None]:
    """Create a file, and delete it if the block fails."""
    if path is None:
        yield None
        return
    try:
        # Readable only by its owner, like the log.
        file = open(path, "x", encoding="utf-8", opener=partial(os.open, mode=0o600))
    except FileExistsError:
        raise InvalidInput(f"{path} already exists; give another file") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from None
    with file:
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _export(
    conn: psycopg.Connection[Any], file: IO[str], before: tuple[int, set[int]] | None = None
) -> tuple[int, set[int]]:
    """Write the events, or those since a former call; return the state for a later call.

    Args:
        conn: the connection, in the transaction.
        file: where to.
        before: the oldest transaction that ran when the former call looked, and the events of that
            and of later ones that it wrote.
    """
    conn.execute(_OWN.encode())
    if before is not None:
        conn.execute("lock table audit.event in share row exclusive mode")
    ((oldest,),) = _rows(conn, "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
    where = "true" if before is None else f"transaction_id >= '{before[0]}'::xid8"
    done = set() if before is None else before[1]
    late = set()
    with psycopg.Cursor(conn).copy(_EVENTS.replace("{where}", where).encode()) as rows:
        for row in map(bytes, rows):
            number, transaction = event_of(row)
            if number not in done:
                write_block(file, json_lines([row]))
            if transaction >= oldest:
                late.add(number)
    conn.execute(_DISOWN.encode())
    return oldest, late


def _rows(conn: psycopg.Connection[Any], query: str) -> list[Any]:
    return psycopg.Cursor(conn, row_factory=tuple_row).execute(query.encode()).fetchall()
