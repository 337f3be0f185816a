"""Archives months: writes them, reads them back, drops them. After a kill, a new run continues.

The hash of the new file of a month is committed before the file is stored. So the hash of the
stored file shows what is left to do: a former file is replaced, a new file is verified.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from auditdb.archive import format
from auditdb.archive.erase import erase_month, finish_erasures
from auditdb.archive.manifest import manifest_of, read_manifest, root_of, write_manifest
from auditdb.archive.months import Month, check_roles, list_months
from auditdb.archive.place import EVENTS, MANIFEST, Place, folder, hash_of
from auditdb.archive.scratch import scratch
from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned_session
from auditdb.errors import AuditError, InvalidInput, Refused, from_psycopg
from auditdb.values.plain import counted

_ATTEMPTS = 3
# A lock of the session: two runs on the same month would each reject the file of the other.
_LOCK = "hashtextextended('auditdb archive', 0)"


class Archiver:
    """Archives the months of a log.

    Args:
        conn: a connection of a member of both `audit_auditor` and `audit_operator`, in autocommit
            mode.
        place: where the files go.
        database: the name of this database in the archive. Default: its own name.
        progress: called with the number of events read since the last call.
    """

    def __init__(
        self, conn: psycopg.Connection[Any], place: Place, database: str | None = None,
        progress: Callable[[int], None] = lambda n: None,
    ) -> None:  # fmt: skip
        self._conn, self._place, self._progress = conn, place, progress
        self._database = database or conn.info.dbname
        self._memory = format.MEMORY
        self.problems = 0

    def run(self, keep: str | None = None, restored: bool = False) -> Iterator[str]:
        """Archive complete months, do the pending erasures, and yield what was done.

        Args:
            keep: drop months older than this interval from the database. Default: none.
            restored: with `keep`, also drop restored months.

        Raises:
            Refused: a role is missing, or the log is archived elsewhere.
            InvalidInput: keep is no interval, or less than two months.
        """
        with pinned_session(self._conn):
            yield from self._alone(keep, restored)

    def _alone(self, keep: str | None, restored: bool) -> Iterator[str]:
        with raises_audit_errors(self._conn, "audit_operator"):
            check_roles(self._conn)
            list_months(self._conn, "2000-01-01")  # Or auditdb is not installed.
            self._check_keep(keep)
            self._lock()
        try:
            yield from self._run(keep, restored)
        finally:
            if not self._conn.closed and not self._conn.broken:
                self._conn.execute(f"select pg_advisory_unlock({_LOCK})")

    def _lock(self) -> None:
        # The server needs a moment to notice that another run was killed.
        for _ in range(100):
            if self._conn.execute(f"select pg_try_advisory_lock({_LOCK})").fetchone() == (True,):
                return
            time.sleep(0.05)
        raise Refused("another auditdb archive is at work")

    def _run(self, keep: str | None, restored: bool) -> Iterator[str]:
        with raises_audit_errors(self._conn, "audit_operator"):
            self._conn.execute("select audit.make_tick()")
            self._call("begin_archive", self._place.url, self._database)
        for month in list_months(self._conn):
            try:
                yield from self._do(month.month, keep, restored)
            except (AuditError, OSError, psycopg.Error) as error:
                said = from_psycopg(error) if isinstance(error, psycopg.Error) else error
                if self._conn.closed:
                    raise said from error
                self.problems += 1
                yield f"{month.name}: {' '.join(str(said).split())}"

    def _do(self, month: str, keep: str | None, restored: bool) -> Iterator[str]:
        """Archive a month, and drop it if allowed."""
        for self._memory in (format.MEMORY, format.ROOMY):
            try:
                (known,) = list_months(self._conn, month)
                yield from self._archive(known)
                yield from self._drop(month, keep, restored)
            except format.TooLarge:
                if self._memory == format.ROOMY:
                    raise
            else:
                return

    def _check_keep(self, keep: str | None) -> None:
        try:
            row = self._conn.execute(
                "select %s::interval < interval '2 months', now() - %s::interval", [keep, keep]
            ).fetchone()
        except psycopg.DataError as error:
            raise InvalidInput(f"{keep!r} is no interval such as 6months") from error
        if row and row[0]:
            raise InvalidInput(f"to keep {keep} would drop the present: keep at least 2 months")

    def _archive(self, month: Month) -> Iterator[str]:
        for _ in range(_ATTEMPTS):
            if month.state in ("pending", "written"):
                with scratch() as work:
                    yield from self._bring(month, work)
            elif month.state == "dropped" and month.erasures:
                yield from self._erase(month)
            elif month.state == "verified" and not self._place.has(self._path(month, EVENTS)):
                self._call("note_lost", month.month)
            else:
                return
            (now,) = list_months(self._conn, month.month)
            if now == month:
                return
            month = now
        if month.state not in ("verified", "dropped"):
            raise AuditError("events come or go while it is written; run it again")

    def _bring(self, month: Month, work: Path) -> Iterator[str]:
        """Write a month, or continue an interrupted run."""
        found = self._place.read(self._path(month, EVENTS), work / EVENTS)
        known = {month.sha256, month.former_sha256}
        if found is not None and found not in known:
            raise Refused(f"{self._path(month, EVENTS)} at {self._place.url} is not a file that "
                          "this database wrote; it is left as it is")  # fmt: skip
        if month.state == "written" and found == month.sha256:
            yield from self._finish(month)
        elif month.is_here:
            yield from self._write(month, found)
        elif month.erasures and found == month.former_sha256 and found is not None:
            yield from self._erase(month)
        else:
            raise AuditError("its file is gone, or is an older one, and its events are not in the "
                             "database")  # fmt: skip

    def _write(self, month: Month, found: str | None) -> Iterator[str]:
        with format.engine(self._memory) as (duck, work):
            condition = (
                f"e.occurred_at >= '{month.month} 00:00+00' and e.occurred_at < "
                f"(date '{month.month}' + interval '1 month') at time zone 'UTC'"
            )
            with raises_audit_errors(self._conn, "audit_auditor"):
                events = format.load(self._conn, condition, duck, work, self._progress)
            path = work / EVENTS
            format.write(duck, path)
            _, sealed, _ = root_of(self._conn, month.month)
            self._call("note_written", month.month, hash_of(path), found,
                       path.stat().st_size, bool(events) and sealed == events)  # fmt: skip
            self._place.write(self._path(month, EVENTS), path)
        (month,) = list_months(self._conn, month.month)
        yield from self._finish(month)

    def _erase(self, month: Month) -> Iterator[str]:
        """Rewrite a month that exists only in the archive."""
        with format.engine(self._memory) as (duck, work):
            old = work / "former.parquet"
            found = self._read(month, old, {month.sha256, month.former_sha256})
            if month.state == "dropped":  # A killed run may have rewritten the file already.
                yield from finish_erasures(self._conn, duck, old, month)
            kept = erase_month(self._conn, duck, old, month)
            yield from kept.lines
            if kept.events:
                path = work / EVENTS
                format.write(duck, path)
                digest = format.digest(duck, path)
                self._call("note_rewritten", month.month, hash_of(path), found,
                           path.stat().st_size, digest.events, digest.hash)  # fmt: skip
                self._place.write(self._path(month, EVENTS), path)
        if kept.events:
            (month,) = list_months(self._conn, month.month)
            yield from self._finish(month)

    def _finish(self, month: Month) -> Iterator[str]:
        """Store the manifest, read both files back, and mark the month as verified."""
        with format.engine(self._memory) as (duck, work):
            path = work / EVENTS
            self._read(month, path, {month.sha256})
            manifest = manifest_of(
                self._conn, month.month, month.as_row(), format.erasures(duck, path)
            )
            write_manifest(work / "manifest.json", manifest)
            self._place.write(self._path(month, MANIFEST), work / "manifest.json")
            self._place.read(self._path(month, MANIFEST), work / "back.json")
            if read_manifest(work / "back.json") != manifest:
                raise AuditError("the manifest is not what was written a moment ago")
            digest = format.digest(duck, path)
            with raises_audit_errors(self._conn, "audit_operator"):
                if not self._call("note_verified", month.month, month.sha256, digest.hash):
                    return
            if not month.is_here:
                yield from finish_erasures(self._conn, duck, path, month)
        size = (month.bytes or 0) / max(month.events or 0, 1)
        yield (f"archived {month.name}: {counted(month.events or 0, 'event')}, "
               f"{counted(month.bytes or 0, 'byte')} "
               f"({size:.0f} an event){'' if month.is_sealed else ', not sealed'}")  # fmt: skip

    def _drop(self, month: str, keep: str | None, restored: bool) -> Iterator[str]:
        row = self._conn.execute(
            """select a.month from audit.archive as a
            where a.month = %s::date and a.state = 'verified'
                and a.month < date_trunc('month', (now() - %s::interval) at time zone 'UTC')""",
            [month, keep],
        ).fetchone()
        if row is None:
            return
        (known,) = list_months(self._conn, month)
        with format.engine(self._memory) as (duck, work):
            self._read(known, work / EVENTS, {known.sha256})
            digest = format.digest(duck, work / EVENTS)
        with raises_audit_errors(self._conn, "audit_operator"):
            line = self._call("drop_archived", month, keep, digest.hash, restored)
        if line is not None:
            yield str(line)

    def _read(self, month: Month, path: Path, known: set[str | None]) -> str:
        """Copy the file of a month here, if its hash is one of the expected ones."""
        found = self._place.read(self._path(month, EVENTS), path)
        if found is None:
            raise AuditError(f"{self._path(month, EVENTS)} is not at {self._place.url}")
        if found not in known:
            mend = "; move it away, and the next run writes it again" if month.is_here else ""
            raise AuditError(f"{self._path(month, EVENTS)} at {self._place.url} was changed: its "
                             f"SHA-256 is not that which was written{mend}")  # fmt: skip
        return found

    def _path(self, month: Month, name: str) -> str:
        return f"{folder(month.database, month.name)}/{name}"

    def _call(self, function: str, *arguments: object) -> Any:
        marks = ", ".join(["%s"] * len(arguments))
        row = self._conn.execute(
            f"select audit_private.{function}({marks})".encode(), arguments
        ).fetchone()
        return None if row is None else row[0]
