"""The stored parts of a log: leaves, tiles, checkpoints, key rotations."""

from __future__ import annotations

from typing import Any

import psycopg

from auditdb.evidence.tree import HASH, WIDTH, Problem, Tile


class Stored:
    """The tree in the database. It is not trusted before its root is checked."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn

    def size(self) -> int:
        """Return how many leaves there are."""
        row = self._conn.execute(
            "select first_leaf + octet_length(leaves) / 32 from audit.seal order by id desc limit 1"
        ).fetchone()
        return 0 if row is None else int(row[0])

    def leaves(self, start: int, end: int) -> bytes:
        """Return the hashes of leaves from start up to end.

        Raises:
            Problem: some of them are missing.
        """
        rows = self._conn.execute(
            """select s.first_leaf + f.skip, substr(s.leaves, (f.skip * 32 + 1)::int,
                ((%(end)s - s.first_leaf - f.skip) * 32)::int)
            from audit.seal as s
                cross join lateral (select greatest(0, %(start)s - s.first_leaf) as skip) as f
            where s.first_leaf < %(end)s and s.first_leaf >= (
                    select coalesce(max(b.first_leaf), 0) from audit.seal as b
                    where b.first_leaf <= %(start)s)
            order by s.first_leaf""",
            {"start": start, "end": end},
        ).fetchall()
        found = []
        at = start
        for first, data in rows:
            if first != at and data:
                raise Problem(f"the database has no leaf {at}")
            found.append(bytes(data))
            at += len(data) // HASH
        if at != end:
            raise Problem(f"the database has no leaf {at} of {end}")
        return b"".join(found)

    def read(self, tile: Tile) -> bytes:
        """Return the hashes of a tile.

        Raises:
            Problem: the tile is missing.
        """
        if tile.level == 0:
            start = tile.number * WIDTH
            return self.leaves(start, start + tile.width)
        row = self._conn.execute(
            "select nodes from audit.tile where level = %s and number = %s",
            [tile.level, tile.number],
        ).fetchone()
        data = b"" if row is None else bytes(row[0])[: tile.width * HASH]
        if len(data) != tile.width * HASH:
            raise Problem(f"the database has no {tile.path}")
        return data

    def checkpoints(self) -> list[tuple[int, str]]:
        """Return number and note of each checkpoint, in their order."""
        return self._conn.execute(
            "select id, note from audit.checkpoint order by size, id"
        ).fetchall()

    def rotations(self) -> list[str]:
        """Return the notes of key rotations."""
        return [row[0] for row in self._conn.execute(
            "select note from audit.key_rotation order by id")]  # fmt: skip
