"""Verification: hashes the stored events again, and compares the result with the signatures.

Only data that a signature covers is trusted. Leaves, tiles and salts of the database are used to
find out *which* event was changed, and are themselves checked by the root.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, cast

import psycopg

from auditdb.connection.pin import Pinned
from auditdb.errors import InvalidInput, from_psycopg
from auditdb.evidence.counts import Counts
from auditdb.evidence.leaf import SALT, commit, event_entry, tick_entry
from auditdb.evidence.lines import COLUMNS, ORGANIZATION, Erased, erased_of, groups_of
from auditdb.evidence.note import (
    Checkpoint,
    Unsigned,
    VerificationKey,
    open_checkpoint,
    origin_of,
)  # fmt: skip
from auditdb.evidence.organizations import Organizations
from auditdb.evidence.report import Findings, Report
from auditdb.evidence.resume import Resume
from auditdb.evidence.stored import Stored
from auditdb.evidence.tree import HASH, WIDTH, Edge, Problem, Tile, Tiles, leaf_hash
from auditdb.values.plain import counted


@dataclass(slots=True)
class _Seal:
    """A row of audit.seal."""

    id: int
    tick: int
    month: str
    first: int
    since: str | None
    until: str | None
    ids: list[int]
    salts: bytes
    leaves: bytes
    is_last: bool
    series: str


class Archive(Protocol):
    """A source of events that were dropped from the database, such as `auditdb.archive.source`."""

    problems: list[str]
    """Problems of its files, one line for each."""

    def settle(self) -> None:
        """Look for events that were added to its files."""

    def rows(self, month: str, ids: list[int]) -> Iterator[tuple[Any, ...]]:
        """Yield some events of a month as COLUMNS reads them."""


class Verifier:
    """Compares a log with checkpoints.

    Args:
        conn: a connection of an auditor, in autocommit mode.
        keys: the trusted keys, with the keys that followed by rotation.
        checkpoints: signed checkpoints that were kept elsewhere, each with its origin.
        published: the published leaves and their number. Default: leaves of the database tell which
            events were changed.
        archive: the archive of dropped months. Default: their events count as dropped.
    """

    def __init__(
        self, conn: psycopg.Connection[Any], keys: Sequence[VerificationKey],
        checkpoints: Sequence[tuple[str, str]] = (), published: tuple[Tiles, int] | None = None,
        archive: Archive | None = None,
    ) -> None:  # fmt: skip
        conn = cast("psycopg.Connection[Any]", Pinned(conn))
        self._conn, self._keys, self._published = conn, keys, published
        self._stored, self._archive = Stored(conn), archive
        self.report = Report()
        self._findings = Findings(self.report)
        self._find = self._findings.add
        self._counts = Counts(conn, self._findings)
        self._organizations = Organizations(conn, self._findings)
        self._given = sorted(note for _, note in checkpoints)
        self._erasures: set[tuple[Any, ...]] | None = None
        self._marks = self._read_marks(checkpoints)
        self._sizes = sorted({mark.size for _, mark in self._marks})

    def run(
        self, since: str | None = None, progress: Callable[[int], None] = lambda n: None,
        resume: Path | None = None,
    ) -> Report:  # fmt: skip
        """Verify the log.

        Args:
            since: do not hash events of ticks before this time; their leaves are still checked.
            progress: called with the number of leaves compared since the last call.
            resume: a file for the progress, which is deleted at the end.

        Raises:
            InvalidInput: since is not a valid time, or the file is not from a verification.
        """
        info = self._conn.info
        about = [info.host, str(info.port), info.dbname, str(since),
                 str(self._published and self._published[1]), str(self._archive is None),
                 *map(str, self._keys)]  # fmt: skip
        kept = Resume(resume, [*about, *self._given])
        try:
            self._walk(self._time(since), progress, kept)
            self._counts.compare()
            self._organizations.compare()
            if self._archive is not None:
                self._archive.settle()
        except psycopg.Error as error:
            raise from_psycopg(error) from error
        for problem in self._archive.problems if self._archive else ():
            self._find("archive", problem)
        self._findings.end()
        kept.end()
        return self.report

    def _time(self, since: str | None) -> str | None:
        try:
            self._conn.execute("select %s::timestamptz", [since])
        except psycopg.DataError as error:
            raise InvalidInput(f"{since!r} is not a time such as 2026-11-28T09:00Z") from error
        return since

    def _read_marks(self, checkpoints: Sequence[tuple[str, str]]) -> list[tuple[str, Checkpoint]]:
        """Return the trusted checkpoints by size; given ones come first."""
        marks = []
        for name, note in checkpoints:
            try:
                marks.append((name, open_checkpoint(note, self._keys)))
            except Problem as error:
                raise Problem(f"{name}: {error}") from error
        names, others = {key.name for key in self._keys}, set()
        for number, note in self._stored.checkpoints():
            try:
                marks.append((f"checkpoint {number}", open_checkpoint(note, self._keys)))
            except Unsigned as error:
                if (other := origin_of(note)) in names:
                    self._find("checkpoint", f"{number} of the database is not believed: {error}")
                else:
                    others.add(other)
                    self.report.notices.append(
                        f"checkpoint {number} of the database is of another log, {other}"
                    )
            except Problem as error:
                self._find("checkpoint", f"{number} of the database is not believed: {error}")
        if others and not marks and not self.report.findings:
            logs = ", ".join(sorted(others))
            self._find("checkpoint", "the keys that were given signed none, and so nothing is "
                       f"proved: give the verification key of {logs}")  # fmt: skip
        marks.sort(key=lambda mark: mark[1].size)
        for (one, first), (other_, second) in pairwise(marks):
            if first.size == second.size and first.root != second.root:
                self._find("fork", f"{one} and {other_} say different roots of {first.size} "
                           "leaves: both were signed")  # fmt: skip
        return marks

    def _walk(self, since: str | None, progress: Callable[[int], None], kept: Resume) -> None:
        by_leaves, by_events = Edge(), Edge()
        differs = False  # Whether an event differed from its leaf since the last good root.
        good, broken, last = 0, False, 0
        known = kept.read()
        # Also check a checkpoint that was signed meanwhile, of leaves already compared.
        if known and not any(known.good < mark.size <= known.size for _, mark in self._marks):
            by_leaves = Edge.load(known.size, known.levels)
            good, last = known.good, known.seal
            self._findings.load(known.findings)
            self._counts.load(known.counts)
            self._organizations.load(known.organizations)
            progress(by_leaves.size)
        marks = [m for m in self._marks if m[1].size > good]
        for seal in self._seals(last):
            if seal.first != by_leaves.size:
                self._find("tree", f"leaves {by_leaves.size} to {seal.first} are missing")
                broken = True
            leaves = self._reference(seal)
            found = leaves
            if since is None or self._is_after(seal, since):
                found = self._hash(seal, leaves)
            else:
                self._organizations.miss()
            if seal.is_last:
                found = found[:-HASH] + self._organizations.end(seal.tick, leaves[-HASH:])
            size = seal.first + len(leaves) // HASH
            start = seal.first
            while not broken and start < size:
                # Up to the next checkpoint in this row, or to the end of the row.
                end = min([mark.size for _, mark in marks if mark.size > start] + [size])
                part = slice((start - seal.first) * HASH, (end - seal.first) * HASH)
                if not differs and found[part] != leaves[part]:
                    differs, by_events = True, deepcopy(by_leaves)
                for tile, data in by_leaves.append(leaves[part]):
                    self._compare(tile, data)
                if differs:
                    for _ in by_events.append(found[part]):
                        pass
                start = end
                for name, mark in [m for m in marks if m[1].size == end]:
                    root = by_leaves.root()
                    if root == mark.root:
                        good, differs = end, False
                    elif differs and by_events.root() == mark.root:
                        self._find("tree", f"the hashes of leaves {good} to {end} were changed, "
                                   f"the events are those of {name}")  # fmt: skip
                        by_leaves, differs, good = by_events, False, end
                    else:
                        self._find("tree", f"leaves {good} to {end} are not those of {name}: "
                                   "events among them were changed, removed or added, and their "
                                   "hashes with them")  # fmt: skip
                        broken = True
                        break
                marks = [m for m in marks if m[1].size > end]
                if broken:
                    break
            self.report.size = size
            progress(len(leaves) // HASH)
            if not differs and not broken and kept.is_due():
                kept.write(seal.id, good, by_leaves, self._findings.dump(), self._counts.dump(),
                           self._organizations.dump())  # fmt: skip
        if not broken:
            for tile, data in by_leaves.partial():
                self._compare(tile, data, complete=good == by_leaves.size)
        self.report.signed = good
        for name, mark in marks:
            if mark.size > self.report.size:
                self._find("missing", f"the log ends with leaf {self.report.size}, {name} has "
                           f"{mark.size}: {mark.size - self.report.size} are gone")  # fmt: skip
        if not broken and self.report.size > good:
            self.report.notices.append(
                f"leaves that no known checkpoint signs yet: {self.report.size - good:,}"
            )

    def _compare(self, tile: Tile, data: bytes, complete: bool = True) -> None:
        """Compare a computed tile with the stored one, which proofs are made from."""
        if tile.level == 0:
            return
        row = self._conn.execute(
            "select nodes from audit.tile where level = %s and number = %s",
            [tile.level, tile.number],
        ).fetchone()
        stored = b"" if row is None else bytes(row[0])
        if stored != data and (complete or not data.startswith(stored)):
            self._find("tree", f"{tile.path} of the database is not that of its leaves")

    def _seals(self, last: int) -> Iterator[_Seal]:
        query = """select s.id, s.tick_id, s.month::text, s.first_leaf, s.first_at::text,
                s.last_at::text, s.ids, s.salts, s.leaves, s.is_last, r.key::text
            from audit.seal as s left join audit.tick as t on t.id = s.tick_id
                left join audit.series as r on r.id = t.series_id
            where s.id > %s order by s.id limit 1"""
        while row := self._conn.execute(query, [last]).fetchone():
            seal = _Seal(*row)
            yield seal
            last = seal.id

    def _reference(self, seal: _Seal) -> bytes:
        """Return the leaves to compare the events with."""
        count = len(seal.ids) + 2 * seal.is_last
        if len(seal.leaves) != count * HASH or len(seal.salts) != len(seal.ids) * SALT:
            self._find("tree", f"seal {seal.id} (tick {seal.tick}) does not hold a salt and a leaf "
                       "for each event")  # fmt: skip
            leaves = (seal.leaves + bytes(count * HASH))[: count * HASH]
        else:
            leaves = seal.leaves
        if self._published is None:
            return leaves
        tiles, size = self._published
        end = min(size, seal.first + count)
        if end <= seal.first:
            return leaves
        known = leaves_of(tiles, size, seal.first, end)
        return known + leaves[len(known) :]

    def _is_after(self, seal: _Seal, since: str) -> bool:
        row = self._conn.execute(
            "select made_at >= %s::timestamptz from audit.tick where id = %s", [since, seal.tick]
        ).fetchone()
        return row is None or bool(row[0])

    def _hash(self, seal: _Seal, leaves: bytes) -> bytes:
        """Return the leaves computed from the events; for missing events, the stored leaves."""
        rows: dict[int, list[tuple[Any, ...]]] = {}
        if seal.ids:
            # PostgreSQL hashes the array, so events in between are not compared with each id.
            for row in self._conn.execute(
                f"""select {COLUMNS} from audit.event as e
                where e.occurred_at >= %s and e.occurred_at <= %s and e.id = any (%s)
                order by e.occurred_at, e.id""".encode(),
                [seal.since, seal.until, seal.ids],
            ):
                rows.setdefault(int(row[0]), []).append(row)
        absent = [number for number in seal.ids if number not in rows]
        if self._archive is not None and absent:
            for row in self._archive.rows(seal.month, absent):
                rows.setdefault(int(row[0]), []).append(row)
            back = sum(number in rows for number in absent)
            self._counts.archived(seal.month, back)
            self.report.archived += back
        found = []
        gone: list[int] = []
        for at, number in enumerate(seal.ids):
            known = leaves[at * HASH : (at + 1) * HASH]
            salt = seal.salts[at * SALT : (at + 1) * SALT]
            leaf = organization = None
            for row in rows.pop(number, ()):
                skeleton, personal = groups_of(row, seal.series)
                kept = erased_of(row, salt)
                if kept is not None:
                    self._note_erased(number, kept)
                commitment = kept.commitment if kept else commit(salt, personal)
                hashed = leaf_hash(event_entry(skeleton, commitment))
                self.report.events += 1
                if leaf is None or hashed == known:
                    leaf, organization = hashed, row[ORGANIZATION]
            if leaf == known:
                self._organizations.count(organization)
            else:
                self._organizations.miss()
            if leaf is None:
                gone.append(number)
            elif leaf != known:
                self._find("changed", f"event {number} is not as it was sealed "
                           f"{self._between(seal, at)}")  # fmt: skip
            found.append(leaf or known)
        self._counts.gone(seal.month, seal.tick, len(gone), whole=len(gone) == len(seal.ids))
        for number in gone if len(gone) < len(seal.ids) else ():
            self._find("missing", f"event {number} is gone, sealed "
                       f"{self._between(seal, seal.ids.index(number))}")  # fmt: skip
        if seal.is_last:
            found.append(self._hash_tick(seal, leaves[-2 * HASH : -HASH]))
            found.append(leaves[-HASH:])
        return b"".join(found)

    def _note_erased(self, number: int, erased: Erased) -> None:
        """Check that an event audit.erased confirms each erased event."""
        self.report.erased += 1
        if self._erasures is None:
            self._erasures = set(self._conn.execute(
                """select e.target_id, jsonb_array_elements_text(e.details -> 'event_ids')::bigint
                from audit.event as e
                where e.action = 'audit.erased'
                    and jsonb_typeof(e.details -> 'event_ids') = 'array'"""
            ).fetchall())  # fmt: skip
        if (erased.erasure, number) not in self._erasures:
            self._find("changed", f"event {number} lacks its personal part, but no event "
                       "audit.erased says so")  # fmt: skip

    def _hash_tick(self, seal: _Seal, known: bytes) -> bytes:
        row = self._conn.execute(
            """select format('{"version":1,"series":"%%s","began":"%%s","after_id":"%%s",'
                '"tick":"%%s","made_at":"%%s","transaction_id":"%%s","snapshot":"%%s","since":"%%s",'
                '"whole_id":"%%s","lower_id":"%%s",'
                '"upper_id":"%%s","events":"%%s","months":{%%s}}',
                s.key, s.began, s.after_id, t.id, to_char(t.made_at at time zone 'UTC',
                    'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), t.transaction_id, t.snapshot,
                coalesce(to_char(t.since at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                    t.since::text), t.whole_id, t.lower_id, t.upper_id, t.events,
                (select string_agg(format('"%%s":"%%s"', m.month, m.events), ','
                    order by m.month) from audit.tick_month as m where m.tick_id = t.id)),
                array(select m.month::text from audit.tick_month as m
                    where m.tick_id = t.id and m.events <> (select coalesce(sum(cardinality(
                        p.ids)), 0) from audit.seal as p where p.tick_id = t.id
                        and p.month = m.month))
            from audit.tick as t left join audit.series as s on s.id = t.series_id
            where t.id = %s""",
            [seal.tick],
        ).fetchone()
        if row is None:
            self._find("missing", f"tick {seal.tick} is gone")
            return known
        leaf = leaf_hash(tick_entry(str(row[0]).encode()))
        if leaf != known:
            self._find("changed", f"tick {seal.tick} is not as it was sealed "
                       f"{self._between(seal, len(seal.ids))}")  # fmt: skip
        for month in row[1]:
            self._counts.unsealed(month, seal.tick)
        return leaf

    def _between(self, seal: _Seal, at: int) -> str:
        """Return as text between which checkpoints a leaf was sealed."""
        place = bisect_left(self._sizes, seal.first + at + 1)
        after = self._sizes[place - 1] if place else 0
        if place == len(self._sizes):
            last = counted(after, "leaf", "leaves")
            return f"in tick {seal.tick}, after the last checkpoint ({last})"
        return f"in tick {seal.tick}, between the checkpoints of {after} and {self._sizes[place]}"


def leaves_of(tiles: Tiles, size: int, start: int, end: int) -> bytes:
    """Return the hashes of leaves from the tiles of a tree."""
    found = []
    for number in range(start // WIDTH, (end + WIDTH - 1) // WIDTH):
        data = tiles.read(Tile(0, number, min(WIDTH, size - number * WIDTH)))
        first = number * WIDTH
        found.append(data[max(0, start - first) * HASH : (end - first) * HASH])
    return b"".join(found)
