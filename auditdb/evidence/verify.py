#!/usr/bin/env python3
"""Checks the proofs in a bundle of auditdb. It does not need auditdb.

    pip install cryptography
    python verify.py VERIFICATION-KEY [DIRECTORY]

README.txt says what it checks. docs/evidence.md of auditdb describes each byte. It exits with 1 if
any check fails.
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
    """Stop if a check fails."""
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


def read(place: Path, name: str) -> str:
    """The text of a file of the bundle."""
    try:
        return (place / name).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not valid UTF-8") from error


def json_of(text: str, where: str) -> Any:
    """What a text says as JSON; the error names the file."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from error


def follow(keys: list[tuple[str, bytes]], notes: list[str]) -> None:
    """Add the keys that follow by rotation, each in a note signed by a key before."""
    for note in notes:
        first, name, key = lines_of(note, keys)
        right = first == "auditdb key rotation v1" and name == keys[0][0] == key_of(key)[0]
        check(right, "it is not a key rotation of this log")
        keys.append(key_of(key))


def root_of(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """Root of a tree of that size, from a leaf and its inclusion proof (RFC 9162)."""
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
    """The bytes of the leaf of an event: its skeleton, and the commitment to its personal part."""
    if "personal" in line:
        commitment = hash_of(bytes_of(line["salt"], 16), line["personal"].encode())
    else:
        commitment = bytes_of(line["commitment"], 32)  # Erased.
    return b"\1" + commitment + bytes(line["skeleton"].encode())


def bytes_of(text: str, length: int) -> bytes:
    """Bytes from hexadecimal, with a check of their number: other lengths could be ambiguous."""
    data = bytes.fromhex(text)
    check(len(data) == length, f"a value has {len(data)} bytes instead of {length}")
    return data


def place_of(line: dict[str, Any], entry: bytes, size: int, root: bytes) -> int:
    """The index of a leaf, if its proof is valid."""
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

    # The map of the newest tick holds the end of the chain. That map is the last leaf.
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
          f"events in these ticks: {by_then[1] - by_then[0]}, in the bundle: {len(events)}"
          )  # fmt: skip
    return (f"they are all events of {claim['organization']} in the ticks "
            f"{tick.get('before', 0) + 1} to {tick['last']}, of {made['first']} to {made['last']}"
            )  # fmt: skip


def verify(key: str, place: Path) -> str:
    """Check a bundle; say what it shows."""
    keys = [key_of(key)]
    check((place / "manifest.json").is_file(), f"{place.absolute()} is not an unpacked bundle")
    follow(keys, [note.read_text("utf-8") for note in sorted(place.glob("keys/*"))])
    origin, number, text = lines_of(read(place, "checkpoint"), keys)[:3]
    size, root, events = int(number), b64decode(text, validate=True), {}
    claim = json_of(read(place, "manifest.json"), "manifest.json")
    check(claim["version"] == 1 and claim["log"] == origin == keys[0][0], "it is of another log")
    # Not splitlines(): it also splits at characters that texts may contain.
    for number_of_line, row in enumerate(read(place, "events.jsonl").split("\n"), 1):
        if not row:
            continue
        line = json_of(row, f"line {number_of_line} of events.jsonl")
        try:
            events[place_of(line, event_of(line), size, root)] = line
        except (ValueError, KeyError) as error:
            raise ValueError(f"leaf {line.get('index')}: {error}") from error
    check(len(events) == claim["events"],
          f"manifest.json says events: {claim['events']}, but events.jsonl has {len(events)}"
          )  # fmt: skip
    said = (f"1 event is as it was sealed in {origin}" if len(events) == 1 else
            f"{len(events)} events are as they were sealed in {origin}")  # fmt: skip
    if hidden := sum("personal" not in line for line in events.values()):
        said += f", {hidden} of them without their personal part"
    if claim["organization"] is None:
        return f"{said}; whether there are others is not shown"
    shown = json_of(read(place, "complete.json"), "complete.json")
    return f"{said}; {check_complete(claim, shown, events, size, root)}"


def main(key: str, directory: str = ".") -> int:
    """Check a bundle, and print what it proves, or which check failed."""
    try:
        print(verify(key, Path(directory)))
    except (ValueError, LookupError, TypeError, AttributeError, OSError, OverflowError,
            RecursionError, InvalidSignature) as error:  # fmt: skip
        print(f"NOT PROVED: {error or type(error).__name__}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) in (2, 3) else __doc__)
