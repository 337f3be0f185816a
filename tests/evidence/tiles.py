"""Tiles in memory, and the tree as RFC 9162 defines it, word by word and slow."""

from __future__ import annotations

from hashlib import sha256

from auditdb.evidence.tree import HASH, Edge, Tile


class Memory(dict[tuple[int, int], bytes]):
    """The tiles of a tree that grew."""

    def read(self, tile: Tile) -> bytes:
        return self[tile.level, tile.number][: tile.width * HASH]

    def grow(self, edge: Edge, leaves: list[bytes]) -> None:
        for tile, data in [*edge.append(b"".join(leaves)), *edge.partial()]:
            self[tile.level, tile.number] = data


def rfc_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1" + rfc_root(leaves[:split]) + rfc_root(leaves[split:])).digest()


def some_leaves(count: int) -> list[bytes]:
    return [sha256(b"leaf %d" % number).digest() for number in range(count)]
