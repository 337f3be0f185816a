"""Verification: hashes again what is stored, and compares it with what was signed.

Nothing that the database says of itself is believed but what a signature covers: leaves, tiles and
salts are looked at because they say *which* event was changed, and checked by the root.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import psycopg

from auditdb.errors import from_psycopg
from auditdb.evidence.leaf import SALT, commit, event_entry, tick_entry
from auditdb.evidence.lines import COLUMNS, groups_of
from auditdb.evidence.note import Checkpoint, VerificationKey, open_checkpoint
from auditdb.evidence.stored import Stored
from auditdb.evidence.tree import HASH, WIDTH, Edge, Problem, Tile, Tiles, leaf_hash

# Ids that a finding names; it counts the others.
_NAMED = 20


@dataclass(slots=True)
class Report:
    """What a verification found.

    Attributes:
        events: that were hashed again.
        size: leaves of the tree.
        signed: leaves that a checkpoint covers.
        dropped: events of months that retention dropped, as an event says.
        erased: events whose personal part was erased, as an event says.
        findings: what does not hold, a line each.
        notices: what is as it may be, and worth knowing.
    """

    events: int = 0
    size: int = 0
    signed: int = 0
    dropped: int = 0
    erased: int = 0
    findings: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


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


class Verifier:
    """Compares a log with checkpoints.

    Args:
        conn: a connection of an auditor, in autocommit mode.
        keys: the keys that are believed, with those that they handed over to.
        checkpoints: signed checkpoints that were kept elsewhere, and where each is from.
        published: the leaves as they were published, with how many there are; by default those
            of the database name what was changed.
    """

    def __init__(
        self, conn: psycopg.Connection[Any], keys: Sequence[VerificationKey],
        checkpoints: Sequence[tuple[str, str]] = (), published: tuple[Tiles, int] | None = None,
    ) -> None:  # fmt: skip
        self._conn, self._keys, self._published = conn, keys, published
        self._stored = Stored(conn)
        self.report = Report()
        self._lost: dict[str, Counter[int]] = {}
        self._gone: Counter[str] = Counter()
        self._named: Counter[str] = Counter()
        self._erasures: set[int] | None = None
        self._marks = self._read_marks(checkpoints)
        self._sizes = sorted({mark.size for _, mark in self._marks})

    def run(self, since: str | None = None, progress: Callable[[int], None] = lambda n: None
            ) -> Report:  # fmt: skip
        """Verify the log.

        Args:
            since: events of ticks before this time are not hashed again, but their leaves are part
                of the tree.
            progress: is told how many leaves more were compared.
        """
        try:
            self._walk(since, progress)
            self._count()
        except psycopg.Error as error:
            raise from_psycopg(error) from error
        for kind, many in self._named.items():
            if many > _NAMED:
                self.report.findings.append(f"{kind}: {many - _NAMED} more")
        return self.report

    def _read_marks(self, checkpoints: Sequence[tuple[str, str]]) -> list[tuple[str, Checkpoint]]:
        """Return the checkpoints that are believed, by size; what was given comes first."""
        marks = [(name, open_checkpoint(note, self._keys)) for name, note in checkpoints]
        for number, note in self._stored.checkpoints():
            try:
                marks.append((f"checkpoint {number}", open_checkpoint(note, self._keys)))
            except Problem as error:
                self._find("checkpoint", f"{number} of the database is not believed: {error}")
        marks.sort(key=lambda mark: mark[1].size)
        for (one, first), (other, second) in pairwise(marks):
            if first.size == second.size and first.root != second.root:
                self._find("fork", f"{one} and {other} say different roots of {first.size} leaves: "
                           "both were signed")  # fmt: skip
        return marks

    def _walk(self, since: str | None, progress: Callable[[int], None]) -> None:
        by_leaves, by_events = Edge(), Edge()
        differs = False  # Whether an event was not as its leaf says since the last good root.
        good, broken = 0, False
        marks = list(self._marks)
        for seal in self._seals():
            if seal.first != by_leaves.size:
                self._find("tree", f"leaves {by_leaves.size} to {seal.first} are not there")
                broken = True
            leaves = self._reference(seal)
            found = leaves
            if since is None or self._is_after(seal, since):
                found = self._hash(seal, leaves)
            size = seal.first + len(leaves) // HASH
            start = seal.first
            while not broken and start < size:
                # Up to the next checkpoint in this row, or its end.
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
                f"{self.report.size - good} leaves are not signed yet by a checkpoint at hand"
            )

    def _compare(self, tile: Tile, data: bytes, complete: bool = True) -> None:
        """Compare a tile above the leaves with the stored one: proofs are made of these."""
        if tile.level == 0:
            return
        row = self._conn.execute(
            "select nodes from audit.tile where level = %s and number = %s",
            [tile.level, tile.number],
        ).fetchone()
        stored = b"" if row is None else bytes(row[0])
        if stored != data and (complete or not data.startswith(stored)):
            self._find("tree", f"{tile.path} of the database is not that of its leaves")

    def _seals(self) -> Iterator[_Seal]:
        query = """select s.id, s.tick_id, s.month::text, s.first_leaf, s.first_at::text,
                s.last_at::text, s.ids, s.salts, s.leaves, s.is_last, r.key::text
            from audit.seal as s left join audit.tick as t on t.id = s.tick_id
                left join audit.series as r on r.id = t.series_id
            where s.id > %s order by s.id limit 1"""
        last = 0
        while row := self._conn.execute(query, [last]).fetchone():
            seal = _Seal(*row)
            yield seal
            last = seal.id

    def _reference(self, seal: _Seal) -> bytes:
        """Return the leaves that events are compared with."""
        count = len(seal.ids) + seal.is_last
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
        """Return the leaves that the events have now; for those that are gone, the former ones."""
        rows: dict[int, list[tuple[Any, ...]]] = {}
        if seal.ids:
            # The array is hashed: what lies between is not read twice.
            for row in self._conn.execute(
                f"""select {COLUMNS} from audit.event as e
                where e.occurred_at >= %s and e.occurred_at <= %s and e.id = any (%s)
                order by e.occurred_at, e.id""".encode(),
                [seal.since, seal.until, seal.ids],
            ):
                rows.setdefault(int(row[0]), []).append(row)
        found = []
        gone: list[int] = []
        for at, number in enumerate(seal.ids):
            known = leaves[at * HASH : (at + 1) * HASH]
            salt = seal.salts[at * SALT : (at + 1) * SALT]
            leaf = None
            for row in rows.pop(number, ()):
                skeleton, personal = groups_of(row, seal.series)
                gone_for = self._commitment(number, row) if salt == bytes(SALT) else None
                hashed = leaf_hash(event_entry(skeleton, gone_for or commit(salt, personal)))
                self.report.events += 1
                if leaf is None or hashed == known:
                    leaf = hashed
            if leaf is None:
                gone.append(number)
            elif leaf != known:
                self._find("changed", f"event {number} is not as it was sealed "
                           f"{self._between(seal, at)}")  # fmt: skip
            found.append(leaf or known)
        self._gone[seal.month] += len(gone)
        if gone and len(gone) == len(seal.ids):
            self._lost.setdefault(seal.month, Counter())[seal.tick] += len(gone)
        for number in gone if len(gone) < len(seal.ids) else ():
            self._find("missing", f"event {number} is gone, sealed "
                       f"{self._between(seal, seal.ids.index(number))}")  # fmt: skip
        if seal.is_last:
            found.append(self._hash_tick(seal, leaves[len(seal.ids) * HASH :]))
        return b"".join(found)

    def _commitment(self, number: int, row: tuple[Any, ...]) -> bytes | None:
        """Return what an erased event keeps of its personal part; an event has to say it was."""
        erased = json.loads(row[-1] or "{}").get("erased")
        if not isinstance(erased, dict) or "commitment" not in erased:
            return None
        self.report.erased += 1
        if self._erasures is None:
            self._erasures = {found for (found,) in self._conn.execute(
                """select distinct jsonb_array_elements_text(e.details -> 'event_ids')::bigint
                from audit.event as e where e.action = 'audit.erased'"""
            )}  # fmt: skip
        if number not in self._erasures:
            self._find("changed", f"event {number} is without its personal part, and no event "
                       "audit.erased says so")  # fmt: skip
        return bytes.fromhex(erased["commitment"])

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
                (select string_agg(format('"%%s":"%%s"', m.month, m.events), ',' order by m.month)
                    from audit.tick_month as m where m.tick_id = t.id)),
                t.events - (select sum(cardinality(p.ids)) from audit.seal as p
                    where p.tick_id = t.id)
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
        elif row[1]:
            self._find("missing", f"{row[1]} events of tick {seal.tick} were gone before it was "
                       "sealed")  # fmt: skip
        return leaf

    def _between(self, seal: _Seal, at: int) -> str:
        """Say between which checkpoints a leaf was sealed."""
        place = bisect_left(self._sizes, seal.first + at + 1)
        after = self._sizes[place - 1] if place else 0
        if place == len(self._sizes):
            return f"in tick {seal.tick}, after the last checkpoint ({after} leaves)"
        return f"in tick {seal.tick}, between the checkpoints of {after} and {self._sizes[place]}"

    def _count(self) -> None:
        """Compare how many events each month has with how many were sealed."""
        pending = self._pending()
        if pending is None:
            return
        stored = dict(self._conn.execute(
            f"""select audit_private.month_of(e.occurred_at)::text, count(*) from audit.event as e
            where not ({pending}) group by 1""".encode()
        ).fetchall())  # fmt: skip
        sealed = dict(self._conn.execute(
            """select coalesce(a.month, b.month)::text,
                (coalesce(a.events, 0) + coalesce(b.events, 0))::bigint
            from (select month, sum(cardinality(ids)) as events from audit.seal group by month) as a
                full join (
                    select m.month, m.events - coalesce((select sum(cardinality(s.ids))
                        from audit.seal as s where s.tick_id = m.tick_id and s.month = m.month), 0)
                        as events
                    from audit.tick_month as m
                    where m.tick_id = (select tick_id from audit.seal order by id desc limit 1)
                        and not (select is_last from audit.seal order by id desc limit 1)
                ) as b on b.month = a.month"""
        ).fetchall())  # fmt: skip
        dropped = {row[0] for row in self._conn.execute(
            "select target_id || '-01' from audit.event where action = 'audit.month_dropped'"
        )}  # fmt: skip
        for month, ticks in self._lost.items():
            if month in dropped and not stored.get(month):
                self.report.dropped += ticks.total()
                continue
            for tick, events in ticks.items():
                self._find("missing", f"{events} events of tick {tick}, all of {month[:7]}, are "
                           "gone")  # fmt: skip
        for month in sorted(stored.keys() | sealed.keys()):
            there = sealed.get(month, 0) - self._gone[month]
            if stored.get(month, 0) != there:
                self._name_added(month, pending, stored.get(month, 0) - there)
        self._refuse_future(pending)

    def _name_added(self, month: str, pending: str, more: int) -> None:
        rows = self._conn.execute(
            f"""select e.id, e.occurred_at::text from audit.event as e
                left join (select unnest(ids) as id from audit.seal where month = %(month)s) as s
                    on s.id = e.id
            where audit_private.month_of(e.occurred_at) = %(month)s and not ({pending})
                and s.id is null
            order by e.id""".encode(),
            {"month": month},
        ).fetchall()
        for number, at in rows:
            self._find("added", f"event {number} of {at} was never sealed, and claims a time that "
                       "was")  # fmt: skip
        if more > len(rows):
            self._find("added", f"{month[:7]} has {more - len(rows)} events twice")
        elif more < len(rows):
            self._find("missing", f"{month[:7]} has {len(rows) - more} events fewer than were "
                       "sealed, of those that the sealed ticks hold")  # fmt: skip

    def _pending(self) -> str | None:
        """Return what an event fulfils that no sealed tick holds yet; nothing before the first."""
        row = self._conn.execute(
            """select s.after_id, t.snapshot::text, t.upper_id, t.since::text, w.snapshot::text, (
                    select n.after_id from audit.series as n
                    where n.id > s.id and n.began <> 'continued' order by n.id desc limit 1)
            from audit.seal as l join audit.tick as t on t.id = l.tick_id
                join audit.series as s on s.id = t.series_id
                left join audit.tick as w on w.id = t.whole_id
            order by l.id desc limit 1"""
        ).fetchone()
        if row is None:
            return None
        after, snapshot, upper, since, whole, renewed = row
        ended = f"'{snapshot}'::pg_snapshot"
        if since != "-infinity":
            # What claims an earlier time may come late: the next whole tick takes it.
            ended = (
                f"case when e.occurred_at >= '{since}' then {ended} "
                f"else '{whole or snapshot}'::pg_snapshot end"
            )
        covered = f"pg_visible_in_snapshot(e.transaction_id, {ended})"
        if renewed is None:
            return f"e.id > {int(after)} and not {covered}"
        return (
            f"e.id > {int(renewed)} or e.id > {int(after)} "
            f"and not (e.id <= {int(upper)} and {covered})"
        )

    def _refuse_future(self, pending: str) -> None:
        try:
            with self._conn.transaction():
                self._conn.execute("select audit_private.refuse_restored()")
        except psycopg.errors.ObjectNotInPrerequisiteState:
            return  # Its transaction ids are those of another server.
        rows = self._conn.execute(
            f"""select e.id from audit.event as e where ({pending})
            and e.transaction_id >= pg_snapshot_xmax(pg_current_snapshot())
            order by e.id""".encode()
        ).fetchall()
        for (number,) in rows:
            self._find("added", f"event {number} claims a transaction that has not been yet")

    def _find(self, kind: str, text: str) -> None:
        self._named[kind] += 1
        if self._named[kind] <= _NAMED:
            self.report.findings.append(f"{kind}: {text}")


def leaves_of(tiles: Tiles, size: int, start: int, end: int) -> bytes:
    """Return the hashes of leaves out of the tiles of a tree of a size."""
    found = []
    for number in range(start // WIDTH, (end + WIDTH - 1) // WIDTH):
        data = tiles.read(Tile(0, number, min(WIDTH, size - number * WIDTH)))
        first = number * WIDTH
        found.append(data[max(0, start - first) * HASH : (end - first) * HASH])
    return b"".join(found)
