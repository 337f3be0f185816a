#!/usr/bin/env python3
"""Checks events of a log of auditdb against a checkpoint; knows nothing of auditdb.

    pip install cryptography
    python verify.py VERIFICATION-KEY [DIRECTORY]

The directory holds a line for each event in events.jsonl, and its proof in proofs/INDEX.tlog-proof.
docs/evidence.md of auditdb says what each byte means. Exits with 1 if anything does not hold.
"""

from __future__ import annotations

import json
import sys
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def hash_of(data: bytes) -> bytes:
    """SHA-256."""
    return sha256(data).digest()


def key_of(text: str) -> tuple[str, bytes]:
    """Name, id and public key of a verification key: name+id+base64(1 || key)."""
    name, number, data = text.split("+", 2)
    raw = b64decode(data, validate=True)
    if raw[:1] != b"\1" or hash_of(name.encode() + b"\n" + raw)[:4].hex() != number:
        raise ValueError("the verification key was typed wrongly")
    return name, raw[1:]


def head_of(note: str, keys: list[tuple[str, bytes]]) -> list[str]:
    """The lines of a note, such as a checkpoint, once a signature of a key is found right."""
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    for line in signatures.splitlines():
        dash, name, data = line.split(" ")
        raw = b64decode(data, validate=True)
        for owner, public in keys:
            number = hash_of(owner.encode() + b"\n\1" + public)[:4]
            if dash == "\N{EM DASH}" and name == owner and raw[:4] == number:
                Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], text.encode())
                return text.split("\n")
    raise ValueError("it is not signed by the verification key")


def follow(keys: list[tuple[str, bytes]], notes: list[str]) -> None:
    """Add the keys to which a key handed over, each in a note that the former one signed."""
    for note in notes:
        first, name, key, _ = head_of(note, keys)
        if first != "auditdb key rotation v1" or name != keys[0][0] or key_of(key)[0] != name:
            raise ValueError("it is no key rotation of this log")
        keys.append(key_of(key))


def root_of(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """Root of a tree of so many leaves, by a leaf and the hashes beside its way up (RFC 9162)."""
    if not 0 <= index < size:
        raise ValueError("the tree has no such leaf")
    last = size - 1
    for other in path:
        if last == 0:
            raise ValueError("the proof is too long")
        if index & 1 or index == last:
            leaf = hash_of(b"\1" + other + leaf)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            leaf = hash_of(b"\1" + leaf + other)
        index, last = index >> 1, last >> 1
    if last:
        raise ValueError("the proof is too short")
    return leaf


def entry_of(line: dict[str, Any]) -> bytes:
    """The bytes of a leaf: an event's own, with what they commit to its personal part."""
    if "tick" in line:
        return b"\2" + str(line["tick"]).encode()
    if "personal" in line:
        commitment = hash_of(bytes.fromhex(line["salt"]) + str(line["personal"]).encode())
    else:
        commitment = bytes.fromhex(line["commitment"])  # Erased.
    return b"\1" + commitment + str(line["skeleton"]).encode()


def check(line: dict[str, Any], proof: str, keys: list[tuple[str, bytes]]) -> int:
    """Size of the tree in which an event is, if it is there."""
    head, _, note = proof.partition("\n\n")
    first, *lines = [part for part in head.split("\n") if not part.startswith("extra ")]
    if first != "c2sp.org/tlog-proof@v1" or lines[0] != f"index {line['index']}":
        raise ValueError("the proof is none of this event")
    origin, size, root = head_of(note, keys)[:3]
    path = [b64decode(part, validate=True) for part in lines[1:]]
    leaf = hash_of(b"\0" + entry_of(line))
    if origin != keys[0][0] or root_of(leaf, line["index"], int(size), path) != b64decode(root):
        raise ValueError("the log does not hold it")
    return int(size)


def main(key: str, directory: str = ".") -> int:
    """Check each event; print what does not hold, and how many do."""
    place, keys, good, bad = Path(directory), [key_of(key)], 0, 0
    follow(keys, [note.read_text("utf-8") for note in sorted(place.glob("keys/*"))])
    for row in (place / "events.jsonl").read_text("utf-8").splitlines():
        line = json.loads(row)
        try:
            proof = place / "proofs" / f"{line['index']:012}.tlog-proof"
            check(line, proof.read_text("utf-8"), keys)
            good += 1
        except (ValueError, KeyError, OSError, InvalidSignature) as error:
            bad += 1
            print(f"leaf {line.get('index')}: {error or type(error).__name__}")
    print(f"{good} events are as they were sealed, {bad} are not")
    return 1 if bad or not good else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) in (2, 3) else __doc__)
