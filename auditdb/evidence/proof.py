"""Proofs in a file (C2SP tlog-proof): a leaf is part of the log of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from auditdb.evidence.note import (
    Checkpoint,
    VerificationKey,
    decode,
    encode,
    open_checkpoint,
)  # fmt: skip
from auditdb.evidence.tree import HASH, Problem, check_inclusion, leaf_hash

_FIRST = "c2sp.org/tlog-proof@v1"
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Proof:
    """The index of a leaf, its path to the root, and the signed checkpoint."""

    index: int
    hashes: list[bytes]
    checkpoint: str
    extra: bytes = b""

    def __str__(self) -> str:
        lines = [_FIRST, *([f"extra {encode(self.extra)}"] if self.extra else [])]
        lines += [f"index {self.index}", *map(encode, self.hashes)]
        return "\n".join(lines) + f"\n\n{self.checkpoint}"

    def check(self, entry: bytes, keys: Iterable[VerificationKey]) -> Checkpoint:
        """Check that an entry is part of the log, and return the head of the log.

        Raises:
            Problem: it is not, or none of the keys signed the checkpoint.
        """
        head = open_checkpoint(self.checkpoint, keys)
        check_inclusion(leaf_hash(entry), self.index, head.size, self.hashes, head.root)
        return head


def read_proof(text: str) -> Proof:
    """Parse the text of a proof file.

    Raises:
        Problem: the text is not a proof.
    """
    head, blank, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if lines.pop(0) != _FIRST or not blank:
        raise Problem(f"not a proof: it does not begin with {_FIRST}")
    extra = b""
    if lines and lines[0].startswith("extra "):
        extra = decode(lines.pop(0)[6:], "what is extra")
    found = _INDEX.fullmatch(lines.pop(0)) if lines else None
    if found is None:
        raise Problem("not a proof: it has no index")
    hashes = [decode(line, "a hash") for line in lines]
    if any(len(data) != HASH for data in hashes):
        raise Problem("a hash of the proof is not a SHA-256 hash")
    return Proof(int(found[1]), hashes, checkpoint, extra)
