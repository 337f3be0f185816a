"""Export of many events, as lines that the server makes.

Each chunk is a separate read, one COPY. So no snapshot is held while the caller works, no token has
to live longer than a minute, and a demoted admin cannot continue to read. Events of archived months
are sent to the server, which makes their lines in the same way.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Generator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, LiteralString, TextIO, TypeAlias

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.sql import SQL, Composable, Composed

from auditdb.connection.begin import Row, Statement, begin_with, begin_with_async
from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.state import in_pipeline
from auditdb.errors import InvalidInput
from auditdb.read.event import FIRST_ID
from auditdb.read.filters import Filters, filter_conditions, refuse_unknown, shown_filters
from auditdb.read.lines import COPY, JSON_COLUMNS, NAMES, SELECT
from auditdb.read.viewer import Auditor, Viewer
from auditdb.values.blocks import PART, csv_lines, json_lines

if TYPE_CHECKING:
    from auditdb.archive.read import Archive

Format: TypeAlias = Literal["jsonl", "csv"]
Formulas: TypeAlias = Literal["escape", "keep"]
Output: TypeAlias = BinaryIO | TextIO

# Number of events of the first chunk, small so that output begins at once, and of later ones.
_FIRST, _MOST = 500, 20_000
# Number of archived events in a chunk, and its time limit in seconds.
_ARCHIVED, _WAITED = 2_000, 60.0
# No month leaves the database until the chunk is read.
_STAY: LiteralString = "select 1 from audit.event where false"
_LIVE: LiteralString = """copy (
    select {select} from audit.event {where} order by occurred_at desc, id desc limit %(limit)s
) to stdout with ({copy})"""
# Late events of an archived month are in the database.
_WITH_ARCHIVED: LiteralString = """copy (
    select {select} from (
        select * from json_populate_recordset(null::audit.event, %(archived)s)
        union all (
            select * from audit.event {where} order by occurred_at desc, id desc limit %(limit)s
        )
    ) as event order by occurred_at desc, id desc limit %(limit)s
) to stdout with ({copy})"""
# Bytes that are escaped together, and bytes that may be held back until the chunk is read.
_BLOCK, _HELD = 2**19, 2**25


class Export:
    """The state of an export: what is left to read, and rows that are not yet passed on."""

    def __init__(
        self,
        organization_id: str | None,
        format: Format,
        csv_formulas: Formulas,
        limit: int | None,
        filters: Filters,
    ) -> None:
        if format not in ("jsonl", "csv"):
            raise InvalidInput(f"format is {format!r}; it is one of jsonl, csv")
        if csv_formulas not in ("escape", "keep"):
            raise InvalidInput(f"csv_formulas is {csv_formulas!r}; it is one of escape, keep")
        if limit is not None and (isinstance(limit, bool) or limit < 1):
            raise InvalidInput(f"an export cannot hold {limit} events; give 1 or more")
        refuse_unknown(filters)
        self._filters = filters
        self._conditions, self._values = filter_conditions(**filters)
        if organization_id is not None:
            self._conditions.append(SQL("organization_id = %(organization_id)s"))
            self._values["organization_id"] = organization_id
        self.details: dict[str, Any] = {"format": format, "filter": shown_filters(filters)}
        if limit is not None:
            self.details["limit"] = limit
        self._form: str = "jsonl" if format == "jsonl" else csv_formulas
        self._limit = limit
        self._size = _FIRST
        self._blocks: list[bytes] = [] if format == "jsonl" else [self._heading()]
        # Time and id of the event before which the next chunk begins, and where the months end that
        # are read as this one is: of the database, or of database and archive.
        self._place: tuple[str, int] | None = None
        self._floor: datetime | None = None
        self._last: bytes | None = None
        self._held = self._in_chunk = self._expected = 0
        self.count = 0
        self.is_over = False

    def leave_out(self, event_id: int | None) -> None:
        """Leave out the event that records this read."""
        if event_id is not None:
            self._conditions.append(SQL("id <> %(own_id)s"))
            self._values["own_id"] = event_id

    @property
    def outcome(self) -> dict[str, Any]:
        """The number of events read, and whether the export is complete."""
        return {"events": self.count, "is_complete": self.is_over}

    def _heading(self) -> bytes:
        around = '"' if self._form == "escape" else ""
        return (",".join(f"{around}{name}{around}" for name in NAMES) + "\r\n").encode()

    def next_chunk(
        self, archive: Archive | None = None, scope: Row | None = None
    ) -> tuple[Composed, dict[str, Any]]:
        """Return the COPY of the next chunk, and its values.

        Args:
            archive: where months are that left the database.
            scope: what the reader may read there, asked in the transaction of the chunk.
        """
        conditions: list[Composable] = [*self._conditions]
        values = dict(self._values)
        if self._last is not None:
            self._place, self._last = self._place_of(self._last), None
        if self._place is not None:
            # Redundant, but only the first comparison prunes partitions.
            conditions.append(SQL("occurred_at <= %(at)s and (occurred_at, id) < (%(at)s, %(id)s)"))
            values["at"], values["id"] = self._place
        form, limit, self._floor = _LIVE, self._size, None
        self._size = min(self._size * 4, _MOST)
        if self._limit is not None:
            limit = min(limit, self._limit - self.count)
        if archive is not None and scope is not None:
            place = None if self._place is None else (_moment(self._place[0]), self._place[1])
            is_archived, self._floor = archive.since(scope, place)
            if self._floor is not None:
                conditions.append(SQL("occurred_at >= %(floor)s"))
                values["floor"] = self._floor
            if is_archived:
                assert place is not None and self._floor is not None
                form = _WITH_ARCHIVED
                values["archived"], limit = archive.json(
                    scope, self._filters, min(limit, _ARCHIVED),
                    older_than=place, since=self._floor, seconds=_WAITED,
                )  # fmt: skip
        values["limit"] = self._expected = limit
        self._in_chunk = 0
        query = SQL(form).format(
            select=SQL(SELECT[self._form]),
            where=SQL("where " if conditions else "") + SQL(" and ").join(conditions),
            copy=SQL(COPY[self._form]),
        )
        return query, values

    def _place_of(self, row: bytes) -> tuple[str, int]:
        """Return time and id of an event, as its row begins with them."""
        if self._form == "jsonl":
            _, number, _, _, time, *_ = row.split(PART, 5)
        else:
            number, time, _ = row.replace(b'"', b"").split(b",", 2)
        return time.decode(), int(number)

    def add(self, rows: list[bytes]) -> bool:
        """Take rows, and return whether the chunk holds so much that it is to be passed on."""
        if rows:
            self._last = rows[-1]
            self.count += len(rows)
            self._in_chunk += len(rows)
            block = (
                json_lines(rows)
                if self._form == "jsonl"
                else csv_lines(rows, JSON_COLUMNS, keep_formulas=self._form == "keep")
            )
            self._blocks.append(block)
            self._held += len(block)
        return self._held >= _HELD

    def end_chunk(self) -> None:
        """Note that the chunk is read; the last holds fewer than it was asked for."""
        is_read = self._in_chunk < self._expected
        self.is_over = (is_read and self._floor is None) or self.count == self._limit
        if is_read and self._floor is not None:
            self._place, self._last = (self._floor.isoformat(), FIRST_ID), None

    def take(self) -> list[bytes]:
        """Return the lines that can be passed on, and forget them."""
        blocks, self._blocks, self._held = self._blocks, [], 0
        return blocks


def read_blocks(
    conn: Connection[Any],
    principal: Viewer | Auditor,
    export: Export,
    archive: Archive | None = None,
) -> Generator[bytes, None, None]:
    """Read what an export asks for, and return its lines in blocks."""
    while not export.is_over:
        refuse_pipeline(conn)
        statements = _statements(principal, archive)
        with begin_with(conn, principal.role, *statements, undo=True) as (_, scopes):
            query, values = export.next_chunk(archive, scopes[0] if scopes else None)
            with (
                raises_audit_errors(conn, principal.role),
                psycopg.ClientCursor(conn).copy(query, values) as rows,
            ):
                held, size = [], 0
                for row in rows:
                    held.append(bytes(row))
                    size += len(row)
                    if size >= _BLOCK:
                        if export.add(held):
                            yield from export.take()
                        held, size = [], 0
                export.add(held)
        export.end_chunk()
        yield from export.take()


async def read_blocks_async(
    conn: AsyncConnection[Any],
    principal: Viewer | Auditor,
    export: Export,
    archive: Archive | None = None,
) -> AsyncGenerator[bytes, None]:
    """Read as `read_blocks` does."""
    while not export.is_over:
        refuse_pipeline(conn)
        statements = _statements(principal, archive)
        async with begin_with_async(conn, principal.role, *statements, undo=True) as (_, scopes):
            scope = scopes[0] if scopes else None
            if archive is None:
                query, values = export.next_chunk()
            else:
                query, values = await asyncio.get_running_loop().run_in_executor(
                    archive.threads, export.next_chunk, archive, scope
                )
            with raises_audit_errors(conn, principal.role):
                async with psycopg.AsyncClientCursor(conn).copy(query, values) as rows:
                    held, size = [], 0
                    async for row in rows:
                        held.append(bytes(row))
                        size += len(row)
                        if size >= _BLOCK:
                            if export.add(held):
                                for block in export.take():
                                    yield block
                            held, size = [], 0
                    export.add(held)
        export.end_chunk()
        for block in export.take():
            yield block


def _statements(principal: Viewer | Auditor, archive: Archive | None) -> list[Statement]:
    """Return what a chunk begins with; what it may read of the archive is asked last."""
    statements = [principal.become()]
    if archive is not None:
        statements += [(_STAY, ()), archive.scope_query(principal)]
    return statements


def _moment(text: str) -> datetime:
    """Return a time of an event; one beyond datetime's is its end."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return (datetime.min if text.startswith("-") else datetime.max).replace(tzinfo=UTC)


def refuse_pipeline(conn: Connection[Any] | AsyncConnection[Any]) -> None:
    """Refuse a connection in a pipeline, where COPY cannot run.

    Raises:
        InvalidInput: it is in a pipeline.
    """
    if in_pipeline(conn):
        raise InvalidInput("an export cannot run in a pipeline; end the pipeline before it")


def write_block(out: Any, block: bytes) -> None:
    """Write a block to a file of bytes or of text."""
    is_text = isinstance(out, io.TextIOBase) or hasattr(out, "encoding")
    out.write(block.decode("utf-8", "backslashreplace") if is_text else block)
