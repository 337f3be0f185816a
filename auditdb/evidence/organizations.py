"""The events of each organisation: chains of entries, and the map with the end of each chain.

An organisation has an entry for each tick with events of it. The entry holds its number of events
so far, and the hash of the entry before. The map of a tick holds the last entry of every
organisation, in one of 256 buckets, under a blinded key.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from hashlib import sha256
from typing import Any, NamedTuple

import psycopg

from auditdb.evidence.report import Findings
from auditdb.evidence.tree import HASH, Edge, cut, leaf_hash

MAP = b"\3"
ENTRY = b"\4"
BUCKETS = 256


class Link(NamedTuple):
    """The end of the chain of an organisation: its key, events, last tick, last entry hashed."""

    key: bytes
    total: int
    tick: int
    hash: bytes


def blind(salt: bytes, organization: str) -> bytes:
    """Return the key of an organisation. Without the salt, it does not reveal the organisation."""
    return sha256(salt + organization.encode()).digest()


def first_link(key: bytes, salt: bytes) -> Link:
    """Return the start of a chain."""
    return Link(key, 0, 0, sha256(key + salt).digest())


def next_link(link: Link, tick: int, total: int) -> Link:
    """Return the entry of a tick."""
    numbers = tick.to_bytes(8, "big") + total.to_bytes(8, "big")
    return Link(link.key, total, tick, sha256(ENTRY + link.key + numbers + link.hash).digest())


def map_entry(tick: int, made_at: str, root: bytes) -> bytes:
    """Return the entry of a map, whose leaf is the last one of its tick."""
    return MAP + map_text(tick, made_at, root).encode()


def map_text(tick: int, made_at: str, root: bytes) -> str:
    """Return the text of a map."""
    return f'{{"version":1,"tick":"{tick}","made_at":"{made_at}","root":"{root.hex()}"}}'


class Map:
    """The last entry of every organisation, in buckets by the first byte of their keys."""

    def __init__(self) -> None:
        self._buckets: list[list[tuple[bytes, bytes]]] = [[] for _ in range(BUCKETS)]
        self._leaves = [leaf_hash(b"")] * BUCKETS
        self._changed: set[int] = set()

    def put(self, link: Link) -> None:
        """Replace the last entry of an organisation."""
        bucket = self._buckets[link.key[0]]
        at = bisect_left(bucket, (link.key,))
        if at < len(bucket) and bucket[at][0] == link.key:
            bucket[at] = (link.key, link.hash)
        else:
            insort(bucket, (link.key, link.hash))
        self._changed.add(link.key[0])

    def bucket(self, number: int) -> list[tuple[bytes, bytes]]:
        """Return the keys and entries of a bucket, sorted by key."""
        return self._buckets[number]

    def leaves(self) -> list[bytes]:
        """Return the hash of each bucket."""
        for number in self._changed:
            self._leaves[number] = leaf_hash(
                b"".join(key + entry for key, entry in self._buckets[number])
            )
        self._changed.clear()
        return self._leaves

    def root(self) -> bytes:
        """Return the root of the tree of all buckets."""
        edge = Edge()
        for _ in edge.append(b"".join(self.leaves())):
            pass
        return edge.root()


class Organizations:
    """Compares the stored chains and maps with the events, and with the leaves of ticks.

    Args:
        conn: a connection of an auditor.
        findings: receives the findings.
    """

    def __init__(self, conn: psycopg.Connection[Any], findings: Findings) -> None:
        self._conn, self._find = conn, findings.add
        self._links: dict[int, Link] = {}
        self._names: dict[int, str | None] = {}
        self._numbers: dict[str | None, int] = {}
        self._map = Map()
        self._counted: Counter[str | None] = Counter()
        self._is_whole, self._was_good = True, True

    def count(self, organization: str | None) -> None:
        """Count an event that matches its seal."""
        if organization is not None:
            self._counted[organization] += 1

    def miss(self) -> None:
        """Note that an event of the tick was not counted: it is missing, or was not checked."""
        self._is_whole = False

    def end(self, tick: int, known: bytes) -> bytes:
        """Return the hash of the last leaf of a tick, computed from the stored rows."""
        row = self._conn.execute(
            """select o.organizations, o.totals, o.former, o.entries, o.root,
                to_char(t.made_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            from audit.organization_seal as o join audit.tick as t on t.id = o.tick_id
            where o.tick_id = %s""",
            [tick],
        ).fetchone()
        good, leaf = False, known
        if row is not None:
            good = self._append(tick, *row[:4])
            root = self._map.root()
            leaf = leaf_hash(map_entry(tick, row[5], root))
            good = good and root == bytes(row[4]) and leaf == known
        if not good and self._was_good:
            self._find("tree", f"the organisations of tick {tick} are not as they were sealed")
        self._was_good = good
        self._counted.clear()
        self._is_whole = True
        return leaf

    def _append(
        self, tick: int, organizations: list[int], totals: list[int], former: list[int],
        entries: bytes,
    ) -> bool:  # fmt: skip
        """Read the stored entries of a tick; return whether they are correct."""
        self._know([number for number in organizations if number not in self._links])
        hashes, found, good = cut(entries), Counter[str | None](), True
        if not len(organizations) == len(totals) == len(former) == len(hashes):
            return False
        for number, total, before, entry in zip(organizations, totals, former, hashes, strict=True):
            link = self._links.get(number)
            if link is None:
                good = False
                continue
            new = next_link(link, tick, max(total, 0))
            good = good and new.hash == entry and before == link.tick and total > link.total
            found[self._names[number]] += total - link.total
            self._links[number] = new._replace(hash=entry)
            self._map.put(self._links[number])
        return good and (not self._is_whole or found == self._counted)

    def _know(self, numbers: list[int]) -> None:
        rows = self._conn.execute(
            "select id, organization_id, salt, key from audit.sealed_organization "
            "where id = any (%s)", [numbers],
        ).fetchall() if numbers else []  # fmt: skip
        for number, name, salt, key in rows:
            # Otherwise events could be counted in two chains, and a bundle could show either one.
            if name is None or self._numbers.setdefault(name, number) != number:
                self._find("tree", f"organisation {name or number} is missing, or exists twice")
            elif salt is not None and blind(salt, name) != key:
                self._find("tree", f"organisation {name} has a wrong key")
            self._names[number] = name
            if len(key) == HASH:
                self._links[number] = first_link(key, salt or b"")

    def compare(self) -> None:
        """Compare the end of each chain with the stored end."""
        rows = self._conn.execute(
            "select id, key, total, tick_id, hash, counted from audit.sealed_organization"
        ).fetchall()
        kept = {row[0]: Link(*row[1:5]) for row in rows if row[2]}
        wrong = [n for n in kept.keys() | self._links.keys() if kept.get(n) != self._links.get(n)]
        if wrong and self._was_good:
            self._find("tree", "chains of organisations whose end is not the one that is kept: "
                       f"{len(wrong)}")  # fmt: skip

    def dump(self) -> list[Any]:
        """Return the state, for `load`."""
        links = [
            [number, self._names[number], link.key.hex(), link.total, link.tick, link.hash.hex()]
            for number, link in self._links.items()
        ]
        return [links, self._counted, self._is_whole, self._was_good]

    def load(self, noted: list[Any]) -> None:
        """Restore the state from the result of `dump`, read from JSON."""
        for number, name, key, total, tick, entry in noted[0]:
            self._names[number] = name
            self._numbers[name] = number
            self._links[number] = Link(bytes.fromhex(key), total, tick, bytes.fromhex(entry))
            if total:
                self._map.put(self._links[number])
        self._counted = Counter(noted[1])
        self._is_whole, self._was_good = noted[2:]
