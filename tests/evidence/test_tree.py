"""The Merkle tree: against the words of RFC 9162, and against proofs that are none."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditdb.evidence.tree import (
    EMPTY,
    HASH,
    Edge,
    Problem,
    Tile,
    Tree,
    check_inclusion,
    leaf_hash,
)
from tests.evidence.tiles import Memory, rfc_root, some_leaves

LEAVES = some_leaves(70_000)
ROOTS = {size: rfc_root(LEAVES[:size]) for size in (0, 1, 255, 256, 257, 65_535, 65_536, 70_000)}
# Of the Certificate Transparency reference, over which RFC 6962's other implementations agree.
KNOWN = [b"", b"\0", b"\x10", b" !", b"01", b"@ABC", b"PQRSTUVW", b"`abcdefghijklmno"]
KNOWN_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.fixture(scope="module")
def tiles() -> Memory:
    memory, edge = Memory(), Edge()
    memory.grow(edge, LEAVES)
    return memory


def test_the_roots_are_those_of_other_implementations() -> None:
    edge = Edge()
    assert edge.root() == EMPTY
    for entry, root in zip(KNOWN, KNOWN_ROOTS, strict=True):
        list(edge.append(leaf_hash(entry)))
        assert edge.root().hex() == root


@pytest.mark.parametrize("size", ROOTS)
def test_the_root_is_that_of_the_rfc_around_the_edges_of_tiles(tiles: Memory, size: int) -> None:
    assert Tree(tiles, size).root() == ROOTS[size]
    assert Edge.read(tiles, size).root() == ROOTS[size]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 700), max_size=6))
def test_however_it_grew_the_tree_and_its_tiles_are_the_same(steps: list[int]) -> None:
    memory, edge, at = Memory(), Edge(), 0
    for step in steps:
        memory.grow(edge, LEAVES[at : at + step])
        at += step
        assert edge.size == at
        edge = Edge.read(memory, at)
    whole, at_once = Memory(), Edge()
    whole.grow(at_once, LEAVES[:at])
    assert memory == whole
    assert edge.root() == at_once.root() == rfc_root(LEAVES[:at])


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_every_leaf_has_a_proof_and_no_other_leaf_passes_with_it(
    tiles: Memory, data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, 70_000))
    index = data.draw(st.integers(0, size - 1))
    tree = Tree(tiles, size)
    proof, root = tree.include(index), tree.root()
    check_inclusion(LEAVES[index], index, size, proof, root)
    other = data.draw(st.integers(0, size - 1).filter(lambda n: n != index) if size > 1
                      else st.just(1))  # fmt: skip
    for leaf, at, of, path, top in [
        (LEAVES[other], index, size, proof, root),
        (LEAVES[index], other, size, proof, root),
        (LEAVES[index], index, size, [*proof, LEAVES[0]], root),
        (LEAVES[index], index, size, proof, LEAVES[1]),
        *([(LEAVES[index], index, size, proof[1:], root)] if proof else []),
        *([(LEAVES[index], index, size, [*proof[:-1], LEAVES[3]], root)] if proof else []),
    ]:
        with pytest.raises(Problem):
            check_inclusion(leaf, at, of, path, top)


@pytest.mark.parametrize("place", [(0, 0), (0, 100), (1, 0), (0, 70_000 // 256)])
def test_with_a_changed_tile_a_leaf_has_no_proof(tiles: Memory, place: tuple[int, int]) -> None:
    changed = Memory(tiles)
    changed[place] = bytes([changed[place][0] ^ 1]) + changed[place][1:]
    tree, index = Tree(changed, 70_000), place[1] * 256 * (1, 256)[place[0]]
    with pytest.raises(Problem):
        # Its own hash in the tile, or one beside its way.
        beside = index if place[0] == 0 else 300
        check_inclusion(tree.leaf(beside), beside, 70_000, tree.include(beside), ROOTS[70_000])


def test_a_tile_that_is_too_short_is_none(tiles: Memory) -> None:
    changed = Memory(tiles)
    changed[0, 3] = changed[0, 3][:-HASH]
    with pytest.raises(Problem, match="tile 0/3 holds 255 hashes, not 256"):
        Tree(changed, 70_000).include(1022)


def test_tiles_have_the_paths_of_the_standard() -> None:
    assert Tile(0, 0).path == "tile/0/000"
    assert Tile(0, 273, 112).path == "tile/0/273.p/112"
    assert Tile(3, 1_234_067).path == "tile/3/x001/x234/067"
    assert Tile(0, 1_000_000, 1).path == "tile/0/x001/x000/000.p/1"


def test_appending_takes_the_memory_of_the_edge_alone() -> None:
    edge = Edge()
    part = b"".join(LEAVES[:1024])
    for _ in edge.append(part):
        pass
    tracemalloc.start()
    for _ in range(300):
        for _ in edge.append(part):
            pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert edge.size == 1024 * 301
    assert peak < 400_000
