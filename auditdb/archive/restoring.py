"""Brings a month back from its archive: the same events, under the same ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg

from auditdb.archive import format
from auditdb.archive.months import list_months
from auditdb.archive.place import EVENTS, Place, folder
from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.errors import AuditError, InvalidInput

_BATCH = 1000


def restore(
    conn: psycopg.Connection[Any], month: str, place: Place,
    progress: Callable[[int], None] = lambda n: None,
) -> int:  # fmt: skip
    """Bring a month back, and return how many events it has.

    The server compares them with what was archived. Retention and archiving leave it where it is
    until they are asked to drop it.

    Args:
        conn: a connection of a member of both `audit_auditor` and `audit_operator`, in autocommit
            mode.
        month: such as 2026-01.
        place: the archive.
        progress: is told how many more events were laid apart.

    Raises:
        Refused: no privilege, or the month was not archived and dropped.
        AuditError: its file is not there, or was changed.
    """
    try:
        found = [m for m in list_months(conn) if m.name == month]
    except psycopg.DataError as error:
        raise InvalidInput(f"{month!r} is no month such as 2026-01") from error
    if not found:
        raise InvalidInput(f"{month!r} is no month of the archive; give one such as 2026-01")
    (known,) = found
    names = ", ".join("epoch_us(occurred_at) as us" if name == "occurred_at"
                      else f"{name}::varchar as {name}" for name in format.COLUMNS)  # fmt: skip
    with format.engine() as (duck, work):
        path = work / EVENTS
        sha256 = place.read(f"{folder(known.database, known.name)}/{EVENTS}", path)
        if sha256 is None:
            raise AuditError(f"the file of {month} is not at {place.url}: auditdb archive put it "
                             f"at {known.place}")  # fmt: skip
        if sha256 not in (known.sha256, known.former_sha256):
            raise AuditError(f"the file of {month} was changed: nothing was restored")
        with raises_audit_errors(conn, "audit_operator"), pinned(conn, writes=True):
            conn.execute("select audit_private.begin_restore(%s)", [known.month])
            rows = duck.execute(f"select {names} from {format.file(path)}")
            columns = [column[0] for column in rows.description or []]
            while batch := rows.fetchmany(_BATCH):
                events = [dict(zip(columns, row, strict=True)) for row in batch]
                conn.execute("select audit_private.take_back(%s::jsonb)",
                             [json.dumps(events, ensure_ascii=False)])  # fmt: skip
                progress(len(batch))
            row = conn.execute(
                "select audit_private.finish_restore(%s)", [known.month]).fetchone()  # fmt: skip
    return 0 if row is None else int(row[0])
