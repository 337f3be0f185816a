"""Archived events for a verification: those that the database has no more, by their ids."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psycopg

from auditdb.archive import format
from auditdb.archive.months import Month, list_months
from auditdb.archive.place import EVENTS, Place, folder

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

# Seals come in the order of time, and some hold events of the month before.
_OPEN = 3


class Archive:
    """The archived months of a log, each copied here once and looked at by time.

    Args:
        conn: a connection of a member of `audit_auditor`.
        place: where the files are.
    """

    def __init__(self, conn: psycopg.Connection[Any], place: Place) -> None:
        self._place = place
        self._months = {month.month: month for month in list_months(conn)}
        self._open: dict[str, str | None] = {}
        self._stack = ExitStack()
        # Whoever does not close it: at the end of the process.
        weakref.finalize(self, self._stack.close)
        self._duck: duckdb.DuckDBPyConnection | None = None
        self._work: Path | None = None
        self.problems: list[str] = []

    def close(self) -> None:
        """Remove what was copied here."""
        self._stack.close()

    def rows(self, month: str, ids: list[int]) -> Iterator[tuple[Any, ...]]:
        """Yield some events of a month as auditdb.evidence.lines reads them.

        Args:
            month: its first day.
            ids: of events that the database does not have.
        """
        table = self._table(month)
        if table is None:
            return
        assert self._duck is not None
        yield from self._duck.execute(
            f"select {format.LEAF} from {table} where id in (select unnest($1)) "
            "and id between $2 and $3",
            [ids, min(ids), max(ids)],
        ).fetchall()

    def _table(self, name: str) -> str | None:
        """Return the table of a month, by id; nothing where it is not in the archive."""
        if name not in self._open:
            known = self._months.get(name)
            while len(self._open) >= _OPEN:
                former = self._open.pop(next(iter(self._open)))
                if former is not None and self._duck is not None:
                    self._duck.execute(f"drop table {former}")
            self._open[name] = None if known is None else self._load(known)
        return self._open[name]

    def _load(self, month: Month) -> str | None:
        if self._duck is None:
            self._duck, self._work = self._stack.enter_context(format.engine())
        assert self._work is not None
        path = self._work / EVENTS
        found = self._place.read(f"{folder(month.database, month.name)}/{EVENTS}", path)
        if found is None:
            self.problems.append(f"the file of {month.name} is not at {self._place.url}")
            return None
        if found not in (month.sha256, month.former_sha256):
            self.problems.append(f"the file of {month.name} at {self._place.url} is not the one "
                                 "that was written: its SHA-256 is another")  # fmt: skip
        table = f"month_{month.name.replace('-', '_')}"
        self._duck.execute(f"create table {table} as select * from {format.file(path)} order by id")
        path.unlink()
        return table
