#!/usr/bin/env python3
"""Checks what a bundle of auditdb shows; knows nothing of auditdb, which wrote it.

    pip install cryptography
    python verify.py VERIFICATION-KEY [DIRECTORY]

README.txt says what it checks, docs/evidence.md of auditdb what each byte means. Exits with 1 if
anything does not hold.
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


def hash_of(*data: bytes) -> bytes:
    """SHA-256."""
    return sha256(b"".join(data)).digest()


def check(holds: bool, problem: str) -> None:
    """Stop where something does not hold."""
    if not holds:
        raise ValueError(problem)


def key_of(text: str) -> tuple[str, bytes]:
    """Name and public key of a verification key: name+id+base64(1 || key)."""
    right = text.count("+") > 1 and not text.startswith("PRIVATE+")
    check(right, "give the verification key itself, name+id+key")
    name, number, data = text.split("+", 2)
    raw = b64decode(data, validate=True)
    right = raw[:1] == b"\1" and hash_of(name.encode(), b"\n", raw)[:4].hex() == number
    check(right, "the verification key was typed wrongly")
    return name, raw[1:]


def lines_of(note: str, keys: list[tuple[str, bytes]]) -> list[str]:
    """The lines of a signed note, such as a checkpoint, if one of the keys signed it."""
    text, _, signatures = note.rpartition("\n\n")
    for line in signatures.splitlines():
        dash, name, data = line.split(" ")
        raw = b64decode(data, validate=True)
        for owner, public in keys:
            number = hash_of(owner.encode(), b"\n\1", public)[:4]
            if dash == "\N{EM DASH}" and name == owner and raw[:4] == number:
                Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], f"{text}\n".encode())
                return text.split("\n")
    raise ValueError("it is not signed by the verification key")


def follow(keys: list[tuple[str, bytes]], notes: list[str]) -> None:
    """Add the keys to which a key handed over, each in a note that the former one signed."""
    for note in notes:
        first, name, key = lines_of(note, keys)
        right = first == "auditdb key rotation v1" and name == keys[0][0] == key_of(key)[0]
        check(right, "it is no key rotation of this log")
        keys.append(key_of(key))


def root_of(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """Root of a tree of so many leaves, by a leaf and the hashes beside its way up (RFC 9162)."""
    check(0 <= index < size, "the tree has no such leaf")
    last = size - 1
    for other in path:
        check(last > 0, "the proof is too long")
        if index & 1 or index == last:
            leaf = hash_of(b"\1", other, leaf)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            leaf = hash_of(b"\1", leaf, other)
        index, last = index >> 1, last >> 1
    check(last == 0, "the proof is too short")
    return leaf


def event_of(line: dict[str, Any]) -> bytes:
    """The bytes of the leaf of an event: its own, with what they commit to its personal part."""
    if "personal" in line:
        commitment = hash_of(bytes_of(line["salt"], 16), line["personal"].encode())
    else:
        commitment = bytes_of(line["commitment"], 32)  # Erased.
    return b"\1" + commitment + bytes(line["skeleton"].encode())


def bytes_of(text: str, length: int) -> bytes:
    """So many bytes, in hexadecimal: of another length they could be taken for something else."""
    data = bytes.fromhex(text)
    check(len(data) == length, f"{length} bytes are to be there")
    return data


def place_of(line: dict[str, Any], entry: bytes, size: int, root: bytes) -> int:
    """The index of a leaf, if the log has it there."""
    index, path = int(line["index"]), [b64decode(part, validate=True) for part in line["proof"]]
    leaf = hash_of(b"\0", entry)
    check(root_of(leaf, index, size, path) == root, "the log does not hold it")
    return index


def check_complete(
    claim: dict[str, Any], shown: dict[str, Any], events: dict[int, Any], size: int, root: bytes
) -> str:
    """Check that the events are all of one organisation in some ticks; say which ticks."""
    salt, link = bytes_of(shown["salt"], 16), bytes_of(shown["before"], 32)
    key, since, until = (
        hash_of(salt, claim["organization"].encode()),
        claim["since"],
        claim["until"],
    )
    maps = {name: json.loads(line["map"]) for name, line in shown["maps"].items()}
    at = {name: place_of(line, b"\3" + line["map"].encode(), size, root)
          for name, line in shown["maps"].items()}  # fmt: skip
    tick = {name: int(said["tick"]) for name, said in maps.items()}
    made = {name: said["made_at"] for name, said in maps.items()}

    # The chain of the organisation ends as the map of the newest tick says, which is the last leaf.
    is_whole, chain = link == hash_of(key, salt), [(0, 0)]
    for number, total in shown["chain"]:
        check(number > chain[-1][0] and total > chain[-1][1], "the chain goes back")
        numbers = number.to_bytes(8, "big") + total.to_bytes(8, "big")
        link = hash_of(b"\4", key, numbers, link)
        chain.append((number, total))
    bucket = [(bytes_of(k, 32), bytes_of(e, 32)) for k, e in shown["bucket"]]
    check((key, link) in bucket, "the chain is not that of the organisation, or is cut off")
    check([k for k, _ in bucket] == sorted({k for k, _ in bucket}), "the bucket is out of order")
    path = [b64decode(part, validate=True) for part in shown["proof"]]
    leaf = hash_of(b"\0", *(k + e for k, e in bucket))
    above = root_of(leaf, key[0], 256, path)
    check(above == bytes.fromhex(maps["newest"]["root"]), "the map does not hold the bucket")
    check(at["newest"] == size - 1, "the checkpoint has ticks that are newer")

    # Between which ticks.
    if "before" in tick:
        check(is_whole or chain[1][0] <= tick["before"], "the chain is short")
        check(tick["first"] == tick["before"] + 1 and made["before"] < since <= made["first"],
              "it begins later or earlier than it says")  # fmt: skip
    else:
        check(is_whole and tick["first"] == 1 and not (since and since > made["first"]),
              "it begins later than it says")  # fmt: skip
    check(tick["first"] <= tick["last"], "it ends before it begins")
    if tick["last"] != tick["newest"]:
        check(tick["after"] == tick["last"] + 1 and made["last"] < until <= made["after"],
              "it ends earlier or later than it says")  # fmt: skip
    else:
        check(not (until and until <= made["last"]), "it ends later than it says")

    start, end = at.get("before", -1), at["last"]
    for index, line in events.items():
        own = json.loads(line["skeleton"])["organization_id"] == claim["organization"]
        check(own and start < index < end, f"leaf {index} is not of it")
    by_then = [max(total for number, total in chain if number <= t)
               for t in (tick.get("before", 0), tick["last"])]  # fmt: skip
    check(by_then[1] - by_then[0] == len(events),
          f"it has {by_then[1] - by_then[0]} events there, {len(events)} are shown")  # fmt: skip
    return (f"they are all events of {claim['organization']} in the ticks "
            f"{tick.get('before', 0) + 1} to {tick['last']}, of {made['first']} to {made['last']}"
            )  # fmt: skip


def verify(key: str, place: Path) -> str:
    """Check a bundle; say what it shows."""
    keys = [key_of(key)]
    check((place / "manifest.json").is_file(), f"{place.absolute()} is no unpacked bundle")
    follow(keys, [note.read_text("utf-8") for note in sorted(place.glob("keys/*"))])
    origin, number, text = lines_of((place / "checkpoint").read_text("utf-8"), keys)[:3]
    size, root, events = int(number), b64decode(text, validate=True), {}
    claim = json.loads((place / "manifest.json").read_text("utf-8"))
    check(claim["version"] == 1 and claim["log"] == origin == keys[0][0], "it is of another log")
    # Texts may hold what splitlines() takes for the end of a line.
    for row in filter(None, (place / "events.jsonl").read_text("utf-8").split("\n")):
        line = json.loads(row)
        try:
            events[place_of(line, event_of(line), size, root)] = line
        except (ValueError, KeyError) as error:
            raise ValueError(f"leaf {line.get('index')}: {error}") from error
    check(len(events) == claim["events"], f"{claim['events']} events are to be there")
    said = f"{len(events)} events are as they were sealed in {origin}"
    if hidden := sum("personal" not in line for line in events.values()):
        said += f", {hidden} of them without their personal part"
    if claim["organization"] is None:
        return f"{said}; whether there are others is not shown"
    shown = json.loads((place / "complete.json").read_text("utf-8"))
    return f"{said}; {check_complete(claim, shown, events, size, root)}"


def main(key: str, directory: str = ".") -> int:
    """Check a bundle, and print what it shows, or what does not hold."""
    try:
        print(verify(key, Path(directory)))
    except (ValueError, LookupError, TypeError, AttributeError, OSError, OverflowError,
            RecursionError, InvalidSignature) as error:  # fmt: skip
        print(f"NOT PROVED: {error or type(error).__name__}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) in (2, 3) else __doc__)
