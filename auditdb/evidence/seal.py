"""Sealing: makes a tick, hashes it to leaves, extends the tree, signs its root, publishes it.

The last signed tree is kept outside of the database (`state`). If the tree in the database is not
an extension of it, nothing more is signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import psycopg

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import Pinned
from auditdb.errors import Refused, from_psycopg
from auditdb.evidence.note import (
    Checkpoint,
    Signer,
    VerificationKey,
    open_checkpoint,
    origin_of,
    parse_checkpoint,
    sign,
)
from auditdb.evidence.places import Place, Unpublished
from auditdb.evidence.state import State
from auditdb.evidence.stored import Stored
from auditdb.evidence.tree import Edge, Problem, Tile, Tree

BUSY = "another sealer is at work"
_GO_ON = (
    "bring back the newer database, or, where it is lost, begin another log on this one: auditdb "
    "seal init with another --name, and auditdb seal --new-log"
)
_PART = 65_536


class Fork(Refused):
    """The history in the database is not the one that was signed."""


class Busy(Refused):
    """Another sealer or maker of ticks is at work."""


@dataclass(slots=True)
class Sealed:
    """The result of a run of the sealer.

    Attributes:
        size: number of leaves of the signed log.
        added: number of new leaves.
        problems: places that could not be written, one line for each.
    """

    size: int = 0
    added: int = 0
    problems: list[str] = field(default_factory=list)


class Sealer:
    """Seals the log of a database. Only one sealer works at a time; a second run is safe.

    Args:
        conn: a connection of an auditor, in autocommit mode.
        signer: signs with the key.
        state: the state file with the last signed checkpoint.
        places: where the log is published.
        new_log: begin a log with a new name over the sealed leaves of a former one, for instance
            after an older backup was restored.
    """

    def __init__(
        self, conn: psycopg.Connection[Any], signer: Signer, state: State,
        places: Sequence[tuple[str, Place]] = (), *, new_log: bool = False,
    ) -> None:  # fmt: skip
        self._plain = conn
        conn = cast("psycopg.Connection[Any]", Pinned(conn))
        self._conn, self._signer, self._state, self._places = conn, signer, state, places
        self._new_log = new_log
        self._stored = Stored(conn)
        self._keys: list[VerificationKey] = [signer.key]

    def run(self, progress: Callable[[int], None] = lambda added: None) -> Sealed:
        """Seal everything that is committed now.

        Raises:
            Fork: the database does not hold the tree that was signed before.
            Refused: another sealer is at work, or the server refuses.
        """
        with self._state.lock() as held:
            if not held:
                raise Busy(BUSY)
            with raises_audit_errors(self._plain, "audit_auditor"):
                try:
                    return self._run(progress)
                except psycopg.errors.LockNotAvailable as error:
                    raise Busy(str(from_psycopg(error))) from error

    def _run(self, progress: Callable[[int], None]) -> Sealed:
        last = self._take_up()
        self._conn.execute("select audit.make_tick()")
        at = self._stored.size()
        while (row := self._conn.execute("select audit.seal_next()").fetchone()) and row[0]:
            progress(row[0] - at)
            at = row[0]
        edge, tiles = self._extend(last)
        done = Sealed(edge.size, edge.size - (last.size if last else 0))
        if not edge.size:
            return done
        if last is None or done.added:
            self._keep(tiles)
            note = sign(Checkpoint(self._signer.key.name, edge.size, edge.root()).text,
                        [self._signer])  # fmt: skip
            # Saved before it is published, so that no other tree of this size is ever signed.
            self._state.write(note, self._keys)
        found = self._state.read(self._keys)
        assert found is not None
        head, note = found
        # Repeated after a crash: each step is idempotent.
        self._conn.execute("select audit_private.keep_checkpoint(%s, %s)", [note, head.size])
        for name, place in self._places:
            try:
                self._publish(place, head, note)
            except (Unpublished, Problem) as error:
                done.problems.append(f"{name}: {error}")
        return done

    def _take_up(self) -> Checkpoint | None:
        """Return the last signed checkpoint, after a check that the database continues it.

        Without a checkpoint, the log must never have been signed before.
        """
        found = self._state.read(self._keys)
        if found is None:
            former = {origin_of(note) for _, note in self._stored.checkpoints()}
            if former and not (self._new_log and self._signer.key.name not in former):
                raise Refused(
                    f"there is no {self._state.path}, but this log was sealed before, as "
                    f"{', '.join(sorted(former))}: bring it here, or give the last checkpoint that "
                    "you trust with --trust"
                )
            return None
        head = found[0]
        try:
            root = Tree(self._stored, head.size).root()
        except Problem as error:
            raise Fork(
                f"{error}. They were signed: an older backup was restored, or they were taken "
                f"away. Nothing is signed any more: {_GO_ON}"
            ) from error
        if root != head.root:
            raise Fork(
                f"the leaves up to {head.size} are not those that were signed: nothing is signed "
                f"any more. Run auditdb verify. After a restore, {_GO_ON}"
            )
        return head

    def _extend(self, last: Checkpoint | None) -> tuple[Edge, dict[tuple[int, int], bytes]]:
        """Return the right edge of the tree, and the new tiles above its leaves."""
        at = last.size if last else 0
        edge = Edge.read(self._stored, at)
        tiles: dict[tuple[int, int], bytes] = {}
        size = self._stored.size()
        while at < size:
            end = min(size, at + _PART)
            for tile, data in edge.append(self._stored.leaves(at, end)):
                if tile.level:
                    tiles[tile.level, tile.number] = data
            at = end
        for tile, data in edge.partial():
            if tile.level:
                tiles[tile.level, tile.number] = data
        return edge, tiles

    def _keep(self, tiles: dict[tuple[int, int], bytes]) -> None:
        levels, numbers = [place[0] for place in tiles], [place[1] for place in tiles]
        self._conn.execute("select audit_private.keep_tiles(%s, %s, %s)",
                           [levels, numbers, list(tiles.values())])  # fmt: skip

    def _publish(self, place: Place, head: Checkpoint, note: str) -> None:
        """Publish a checkpoint in a place: first its tiles, so that readers of it find them."""
        tree = Tree(self._stored, head.size)
        published = place.read("checkpoint")
        at = 0
        if published is not None:
            # Any signer is accepted: it is enough that this log extends the published one.
            text, _, _ = published.decode(errors="replace").rpartition("\n\n")
            there = parse_checkpoint(f"{text}\n")
            if (
                there.origin != head.origin
                or there.size > head.size
                or Tree(self._stored, there.size).root() != there.root
            ):
                raise Problem("it holds another log, or another history of this one")
            at = there.size
        if published == note.encode():
            return
        for number, rotation in enumerate(self._stored.rotations(), 1):
            place.write(f"keys/{number:03}", rotation.encode())
        for tile in tiles_between(at, tree.size):
            place.write(tile.path, self._stored.read(tile))
        place.write("checkpoint", note.encode())

    def trust(self, note: str) -> Checkpoint:
        """Use a checkpoint signed by this key as the last one, if the state was lost.

        Raises:
            Problem: this key did not sign it.
        """
        with self._state.lock():
            self._state.write(note, self._keys)
        return open_checkpoint(note, self._keys)


def tiles_between(older: int, newer: int) -> list[Tile]:
    """Return the tiles that a tree gained since it was smaller."""
    found = []
    level = 0
    while newer:
        for number in range(older >> 8, (newer + 255) >> 8):
            width = min(256, newer - number * 256)
            if older < number * 256 + width:
                found.append(Tile(level, number, width))
        older, newer, level = older >> 8, newer >> 8, level + 1
    return found
