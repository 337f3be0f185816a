"""The Merkle tree of RFC 9162, by tiles of 256 hashes: root, appending, proofs.

The format is C2SP tlog-tiles: a tile of level L holds roots of perfect trees of 256**L leaves.
Only the tiles at the right edge grow, so appending needs only these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, reduce
from hashlib import sha256
from typing import Protocol

from auditdb.errors import InvalidInput

HASH = 32
WIDTH = 256
EMPTY = sha256(b"").digest()


class Problem(InvalidInput):
    """A proof, signature or stored value that is invalid."""


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """The place of a tile: its level, its number there, and how many hashes it holds.

    >>> Tile(1, 1234067, 3).path
    'tile/1/x001/x234/067.p/3'
    """

    level: int
    number: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """The path in C2SP tlog-tiles, below the prefix of the log."""
        parts = [f"{self.number % 1000:03}"]
        rest = self.number // 1000
        while rest:
            parts.insert(0, f"x{rest % 1000:03}")
            rest //= 1000
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{self.level}/{'/'.join(parts)}{partial}"


class Tiles(Protocol):
    """A source of the tiles of a tree."""

    def read(self, tile: Tile) -> bytes:
        """Return the hashes of a tile; of a tile that has grown since, only the first ones."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry of the log."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of two subtrees."""
    return sha256(b"\1" + left + right).digest()


def cut(hashes: bytes) -> list[bytes]:
    """Split joined hashes."""
    return [hashes[at : at + HASH] for at in range(0, len(hashes), HASH)]


def parents(hashes: bytes) -> bytes:
    """Return the hashes of pairs of hashes."""
    step = 2 * HASH
    return b"".join(
        [sha256(b"\1" + hashes[at : at + step]).digest() for at in range(0, len(hashes), step)]
    )


def peaks(hashes: bytes) -> list[bytes]:
    """Return the roots of the perfect trees over some hashes, the largest first."""
    found: list[bytes] = []
    while hashes:
        if len(hashes) // HASH % 2:
            found.append(hashes[-HASH:])
            hashes = hashes[:-HASH]
        hashes = parents(hashes)
    return found[::-1]


def fold(roots: Iterable[bytes]) -> bytes:
    """Return the root over adjacent perfect trees, the largest first."""
    found = list(roots)
    return reduce(lambda right, left: node_hash(left, right), reversed(found)) if found else EMPTY


class Edge:
    """The right edge of a tree: accepts leaves, yields full tiles, computes the root.

    >>> edge = Edge()
    >>> list(edge.append(leaf_hash(b"")))
    []
    >>> edge.root().hex()
    '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d'
    """

    def __init__(self) -> None:
        self.size = 0
        self._levels: list[bytes] = []

    @classmethod
    def read(cls, tiles: Tiles, size: int) -> Edge:
        """Restore a tree of a size from one tile of each level."""
        edge = cls()
        edge.size = size
        edge._levels = [
            tiles.read(Tile(level, number, width)) if width else b""
            for level, number, width in _edge(size)
        ]
        return edge

    def dump(self) -> list[str]:
        """Return the state, for `load`."""
        return [level.hex() for level in self._levels]

    @classmethod
    def load(cls, size: int, levels: list[str]) -> Edge:
        """Restore a tree of a size from the result of `dump`."""
        edge = cls()
        edge.size, edge._levels = size, [bytes.fromhex(level) for level in levels]
        return edge

    def append(self, hashes: bytes) -> Iterator[tuple[Tile, bytes]]:
        """Add the hashes of leaves; yield each tile that becomes full."""
        full = WIDTH * HASH
        level = 0
        number = self.size // WIDTH
        self.size += len(hashes) // HASH
        while hashes:
            if level == len(self._levels):
                self._levels.append(b"")
            hashes = self._levels[level] + hashes
            end = len(hashes) // full * full
            self._levels[level] = hashes[end:]
            above = []
            for at in range(0, end, full):
                data = hashes[at : at + full]
                yield Tile(level, number + at // full), data
                above.append(peaks(data)[0])
            hashes = b"".join(above)
            number, level = number // WIDTH, level + 1

    def partial(self) -> list[tuple[Tile, bytes]]:
        """Return the tiles that are not full."""
        return [
            (Tile(level, number, width), self._levels[level])
            for level, number, width in _edge(self.size)
            if width
        ]

    def root(self) -> bytes:
        """Return the root of the tree."""
        return fold(peak for hashes in reversed(self._levels) for peak in peaks(hashes))


def _edge(size: int) -> Iterator[tuple[int, int, int]]:
    """Yield level, number and width of the tiles at the right edge; width is 0 where none is."""
    level = 0
    while size:
        yield level, size // WIDTH, size % WIDTH
        size, level = size // WIDTH, level + 1


class Tree:
    """A tree of a fixed size, which makes proofs."""

    def __init__(self, tiles: Tiles, size: int, *, cached: int = 64) -> None:
        self.size = size
        self._read = lru_cache(cached)(tiles.read)

    def root(self) -> bytes:
        """Return its root."""
        return self._hash(0, self.size)

    def leaf(self, index: int) -> bytes:
        """Return the hash of a leaf."""
        if not 0 <= index < self.size:
            raise Problem(f"leaf {index} is not in a tree of {self.size}")
        return self._hash(index, index + 1)

    def include(self, index: int) -> list[bytes]:
        """Return the inclusion proof of a leaf (RFC 9162, 2.1.3.1), the sibling first."""
        if not 0 <= index < self.size:
            raise Problem(f"leaf {index} is not in a tree of {self.size}")
        proof = []
        start, end = 0, self.size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                proof.append(self._hash(middle, end))
                end = middle
            else:
                proof.append(self._hash(start, middle))
                start = middle
        return proof[::-1]

    def _hash(self, start: int, end: int) -> bytes:
        """Return the root of the leaves from start up to end, as RFC 9162 divides the tree."""
        found = []
        while start < end:
            # The largest perfect tree that begins here: a proof needs only whole branches.
            height = (end - start).bit_length() - 1
            found.append(self._perfect(height, start >> height))
            start += 1 << height
        return fold(found)

    def _perfect(self, height: int, number: int) -> bytes:
        level, within = divmod(height, 8)
        first = number << within
        tile, at = divmod(first, WIDTH)
        have = min(WIDTH, (self.size >> (8 * level)) - tile * WIDTH)
        data = self._read(Tile(level, tile, have))
        hashes = data[at * HASH : (at + (1 << within)) * HASH]
        if len(hashes) != HASH << within:
            raise Problem(f"tile {level}/{tile} holds {len(data) // HASH} hashes, not {have}")
        return peaks(hashes)[0]


def _split(size: int) -> int:
    """Return the largest power of two below a size."""
    return 1 << ((size - 1).bit_length() - 1)


def check_inclusion(leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> None:
    """Check that a leaf is part of a tree (RFC 9162, 2.1.3.2).

    Raises:
        Problem: the proof does not show it.
    """
    if not 0 <= index < size:
        raise Problem(f"leaf {index} is not in a tree of {size}")
    found, at, last = leaf, index, size - 1
    for other in proof:
        if last == 0:
            raise Problem("the proof of inclusion is too long")
        if at & 1 or at == last:
            found = node_hash(other, found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, other)
        at, last = at >> 1, last >> 1
    if last or found != root:
        raise Problem(f"the proof of inclusion does not lead from leaf {index} to the root")
