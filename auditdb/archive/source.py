"""Archived events for a verification: events by id that the database has no more."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psycopg

from auditdb.archive import format
from auditdb.archive.manifest import differences, read_manifest
from auditdb.archive.months import Month, list_months
from auditdb.archive.place import EVENTS, MANIFEST, Place, folder
from auditdb.errors import AuditError
from auditdb.values.plain import counted

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

# Seals come in the order of time, but some hold events of the month before.
_OPEN = 3
_ARCHIVED = "action = 'audit.month_archived' and details is not null"
# Number of events that are named for each month.
_NAMED = 20


class Archive:
    """The archived months of a log. Each file is copied to this machine once.

    Args:
        conn: a connection of a member of `audit_auditor`.
        place: where the files are.
    """

    def __init__(self, conn: psycopg.Connection[Any], place: Place) -> None:
        self._conn, self._place = conn, place
        self._months = {month.month: month for month in list_months(conn)}
        self._open: dict[str, str | None] = {}
        self._stack = ExitStack()
        # If nobody calls close(), the end of the process does.
        weakref.finalize(self, self._stack.close)
        self._duck: duckdb.DuckDBPyConnection | None = None
        self._work: Path | None = None
        # For each checked month: events that no seal has.
        self._more: dict[str, list[str]] = {}
        # For each month, the details of its last event audit.month_archived.
        self._told: dict[str, tuple[int, dict[str, Any]]] = {}
        # Months whose file and manifest were checked.
        self._checked: set[str] = set()
        self.problems: list[str] = []

    def close(self) -> None:
        """Delete the copies."""
        self._stack.close()

    def settle(self) -> None:
        """Check the files of all months; find events that were added to dropped months."""
        for number, name, details in self._conn.execute(
            f"select id, target_id, details::text from audit.event where {_ARCHIVED}"
        ):
            self._tell(number, name, details)
        away = [month for month in self._months.values() if not month.is_here]
        for month in away:
            if month.month not in self._more:
                self._table(month.month)
        for month in self._months.values():
            if month.is_here and month.state == "verified":
                self._copy(month)
        for month in away:
            _, told = self._told.get(month.name, (0, {}))
            if month.state == "dropped" and told.get("sha256", month.sha256) != month.sha256:
                self.problems.append(f"{month.name} is said to be in another file than the one "
                                     "that the last audit.month_archived of it names")  # fmt: skip
            more = self._more.get(month.month, [])
            if more and told.get("sealed") is not False:
                self.problems += more[:_NAMED]
                if len(more) > _NAMED:
                    rest = counted(len(more) - _NAMED, "more event")
                    self.problems.append(f"{rest} of {month.name} with the same problem")

    def _tell(self, number: int, name: str, details: str) -> None:
        if number > self._told.get(name, (-(2**63), {}))[0]:
            self._told[name] = number, json.loads(details)

    def _added(self, month: Month, table: str) -> list[str]:
        """Return the events in the file of a month that are in no seal, or twice in the file."""
        duck = self._duck
        assert duck is not None
        duck.execute("create or replace table sealed (id bigint)")
        for (ids,) in self._conn.execute(
            "select ids from audit.seal where month = %s order by id", [month.month]
        ):
            duck.execute("insert into sealed select unnest($1)", [ids])
        return [
            f"{month.name} has event {number} "
            + ("twice" if is_sealed else "in its file, which was never sealed")
            for number, is_sealed in duck.execute(
                f"""select e.id, s.id is not null from {table} as e
                    left join (select distinct id from sealed) as s on s.id = e.id
                group by all having count(*) > 1 or s.id is null order by e.id"""
            ).fetchall()
        ]

    def rows(self, month: str, ids: list[int]) -> Iterator[tuple[Any, ...]]:
        """Yield some events of a month as auditdb.evidence.lines reads them.

        Args:
            month: its first day.
            ids: ids of events that are missing in the database.
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
        """Return the table of a month ordered by id, or None if it is not in the archive."""
        if name not in self._open:
            known = self._months.get(name)
            while len(self._open) >= _OPEN:
                former = self._open.pop(next(iter(self._open)))
                if former is not None and self._duck is not None:
                    self._duck.execute(f"drop table {former}")
            self._open[name] = None if known is None else self._load(known)
        return self._open[name]

    def _load(self, month: Month) -> str | None:
        path = self._copy(month)
        if path is None:
            return None
        duck, table = self._engine(), f"month_{month.name.replace('-', '_')}"
        columns = ", ".join(f"{name}::{kind} as {name}" for name, kind in format.COLUMNS.items())
        try:
            with format.raises_audit_errors():
                duck.execute(
                    f"create table {table} as select {columns} from {format.file(path)} order by id"
                )
        except AuditError as error:
            self.problems.append(f"the file of {month.name} at {self._place.url} cannot be read: "
                                 f"{error}")  # fmt: skip
            return None
        finally:
            path.unlink()
        if month.month not in self._more and not month.is_here:
            self._more[month.month] = self._added(month, table)
            for told in duck.execute(
                f"select id, target_id, details from {table} where {_ARCHIVED}"
            ).fetchall():
                self._tell(*told)
        return table

    def _engine(self) -> duckdb.DuckDBPyConnection:
        if self._duck is None:
            self._duck, self._work = self._stack.enter_context(format.engine())
        return self._duck

    def _copy(self, month: Month) -> Path | None:
        """Copy the file of a month here; add problems of the file and of its manifest."""
        duck = self._engine()
        assert self._work is not None
        path, problem = self._work / EVENTS, None
        found = self._place.read(f"{folder(month.database, month.name)}/{EVENTS}", path)
        if found is None:
            problem = f"the file of {month.name} is not at {self._place.url}"
        elif found not in (month.sha256, month.former_sha256):
            problem = (f"the file of {month.name} at {self._place.url} is not the one that was "
                       "written: its SHA-256 is another")  # fmt: skip
        try:
            erasures = [] if found is None else format.erasures(duck, path)
        except AuditError as error:
            found, problem = None, f"{problem or f'the file of {month.name}'}; {error}"
        if month.month not in self._checked:
            self._checked.add(month.month)
            if problem is not None:
                self.problems.append(problem)
            elif month.state in ("verified", "dropped"):
                self._compare(month, erasures)
        return None if found is None else path

    def _compare(self, month: Month, erasures: list[int]) -> None:
        """Add a problem if the manifest of a month differs from the database."""
        assert self._work is not None
        path, its = self._work / MANIFEST, f"the manifest of {month.name}"
        if self._place.read(f"{folder(month.database, month.name)}/{MANIFEST}", path) is None:
            self.problems.append(f"{its} is not at {self._place.url}")
            return
        try:
            found = read_manifest(path)
        except AuditError as error:
            self.problems.append(f"{its} at {self._place.url} is of no use: {error}")
            return
        wrong = differences(self._conn, found, month.as_row(), erasures)
        if wrong:
            self.problems.append(f"{its} at {self._place.url} is not the one that was written: "
                                 f"{', '.join(wrong)}")  # fmt: skip
