"""The chain of one organisation, and where the map of a tick holds its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from auditdb.errors import Refused
from auditdb.evidence.organizations import Link, Map, first_link
from auditdb.evidence.tree import node_hash

# Walks back from the last entry to the first entry at or before a tick, and one more.
_WALK = """
with recursive walk as (
    select o.tick_id, o.totals[p.at] as total, o.former[p.at] as former,
        substr(o.entries, p.at * 32 - 31, 32) as entry, (o.tick_id <= %(tick)s)::int as past
    from audit.organization_seal as o
        cross join lateral (select array_position(o.organizations, %(id)s::int)) as p (at)
    where o.tick_id = %(from)s
    union all
    select o.tick_id, o.totals[p.at], o.former[p.at], substr(o.entries, p.at * 32 - 31, 32),
        w.past + (o.tick_id <= %(tick)s)::int
    from walk as w
        join audit.organization_seal as o on o.tick_id = w.former
        cross join lateral (select array_position(o.organizations, %(id)s::int)) as p (at)
    where w.past < 2
)
select tick_id, total, entry, past from walk order by tick_id
"""


@dataclass(frozen=True, slots=True)
class Chain:
    """Entries of an organisation (tick and total), and the hash of the entry before them."""

    before: bytes
    entries: list[tuple[int, int]]

    def total(self, tick: int) -> int:
        """Return its number of events up to a tick."""
        return max((total for at, total in self.entries if at <= tick), default=0)


class Chains:
    """The proof of the number of events of an organisation.

    Args:
        conn: a connection of an auditor, in one snapshot.
        organization: the organisation.
        tick: the newest tick that is signed.

    Attributes:
        salt: the salt that blinds the organisation.
        bucket: keys and entries of its bucket in the map of that tick.
        path: the sibling hashes from the bucket to the root of the map.

    Raises:
        Refused: it has no sealed event, or the stored data is not what was sealed.
    """

    def __init__(self, conn: psycopg.Connection[Any], organization: str, tick: int) -> None:
        self._conn, self._tick = conn, tick
        row = conn.execute(
            "select id, key, salt, tick_id from audit.sealed_organization "
            "where organization_id = %s", [organization],
        ).fetchone()  # fmt: skip
        if row is None:
            raise Refused(f"no event of organisation {organization} was ever sealed")
        self._id, self._key, self.salt, self._last = row
        found = Map()
        for number, *link in conn.execute(
            "select id, key, total, tick_id, hash from audit.sealed_organization where total > 0"
        ).fetchall():
            end = Link(*link)
            if end.tick > tick:
                # The last entry is sealed but not signed yet: use the entry before.
                former = [row for row in self._walk(number, end.tick, tick) if row[3] == 1]
                if not former:
                    continue
                end = Link(end.key, former[0][1], former[0][0], former[0][2])
            found.put(end)
        leaves, number = found.leaves(), self._key[0]
        self.bucket, self.path = found.bucket(number), []
        while len(leaves) > 1:
            self.path.append(leaves[number ^ 1])
            leaves = [node_hash(*leaves[at : at + 2]) for at in range(0, len(leaves), 2)]
            number >>= 1
        kept = conn.execute(
            "select root from audit.organization_seal where tick_id = %s", [tick]
        ).fetchone()
        if kept is None or kept[0] != leaves[0]:
            raise Refused("the chains of organisations are not as they were sealed. Run: auditdb "
                          "verify")  # fmt: skip

    def links(self, before: int) -> Chain:
        """Return its entries from the last one at or before a tick on; all for 0."""
        rows = self._walk(self._id, self._last, before) if self._last else []
        hashes = [row[2] for row in rows if row[3] == 2]
        entries = [(row[0], row[1]) for row in rows if row[3] < 2 and row[0] <= self._tick]
        return Chain(hashes[0] if hashes else first_link(self._key, self.salt).hash, entries)

    def _walk(self, number: int, start: int, tick: int) -> list[tuple[Any, ...]]:
        return self._conn.execute(
            _WALK.encode(), {"id": number, "from": start, "tick": tick}
        ).fetchall()
