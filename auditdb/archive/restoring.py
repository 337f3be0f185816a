"""Brings a month back from its archive: the same events, under the same ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import psycopg

from auditdb.archive import format
from auditdb.archive.months import Month, list_months
from auditdb.archive.place import EVENTS, Place, folder
from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.errors import AuditError, InvalidInput

if TYPE_CHECKING:
    import duckdb

# A jsonb holds 256 MB, and an event three values of 16 MB.
_BATCH, _CHARACTERS = 1000, 16_000_000


def restore(
    conn: psycopg.Connection[Any], month: str, place: Place,
    progress: Callable[[int], None] = lambda n: None,
) -> int:  # fmt: skip
    """Restore a month to the database, and return its number of events.

    The server compares the events with what was archived. Retention and archiving keep a restored
    month until they are told to drop it.

    Args:
        conn: a connection of a member of both `audit_auditor` and `audit_operator`, in autocommit
            mode.
        month: such as 2026-01.
        place: the archive.
        progress: called with the number of events copied since the last call.

    Raises:
        Refused: no privilege, or the month was not archived and dropped.
        AuditError: the file of the month is missing or was changed.
    """
    try:
        found = [m for m in list_months(conn) if m.name == month]
    except psycopg.DataError as error:
        raise InvalidInput(f"{month!r} is no month such as 2026-01") from error
    if not found:
        raise InvalidInput(f"{month!r} is no month of the archive; give one such as 2026-01")
    (known,) = found
    try:
        return _restore(conn, known, place, progress, format.MEMORY)
    except format.TooLarge:
        return _restore(conn, known, place, progress, format.ROOMY)


def _restore(
    conn: psycopg.Connection[Any], known: Month, place: Place, progress: Callable[[int], None],
    memory: str,
) -> int:  # fmt: skip
    names = ", ".join("epoch_us(occurred_at) as us" if name == "occurred_at"
                      else f"{name}::varchar as {name}" for name in format.COLUMNS)  # fmt: skip
    with format.engine(memory) as (duck, work):
        path = work / EVENTS
        sha256 = place.read(f"{folder(known.database, known.name)}/{EVENTS}", path)
        if sha256 is None:
            raise AuditError(f"the file of {known.name} is not at {place.url}: auditdb archive put "
                             f"it at {known.place}")  # fmt: skip
        if sha256 not in (known.sha256, known.former_sha256):
            raise AuditError(f"the file of {known.name} was changed: nothing was restored")
        with raises_audit_errors(conn, "audit_operator"), pinned(conn, writes=True):
            conn.execute("select audit_private.begin_restore(%s)", [known.month])
            rows = duck.execute(f"select {names} from {format.file(path)}")
            for events in _batches(rows):
                conn.execute("select audit_private.take_back(%s::jsonb)",
                             ["[" + ",".join(events) + "]"])  # fmt: skip
                progress(len(events))
            row = conn.execute(
                "select audit_private.finish_restore(%s)", [known.month]).fetchone()  # fmt: skip
    return 0 if row is None else int(row[0])


def _batches(rows: duckdb.DuckDBPyConnection) -> Iterator[list[str]]:
    """Yield events as JSON, in batches of a thousand, or fewer if they are long."""
    columns = [column[0] for column in rows.description or []]
    events: list[str] = []
    size = 0
    while part := rows.fetchmany(100):
        for row in part:
            events.append(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False))
            size += len(events[-1])
            if len(events) == _BATCH or size > _CHARACTERS:
                yield events
                events, size = [], 0
    if events:
        yield events
