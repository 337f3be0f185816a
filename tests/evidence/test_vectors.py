"""The examples of docs/evidence.md, checked by the words of that page with verify.py alone."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

from auditdb.evidence import verify
from auditdb.evidence.keys import PrivateKey
from auditdb.evidence.lines import groups_of
from auditdb.evidence.note import encode
from auditdb.evidence.proof import read_proof

PAGE = (Path(__file__).parent.parent.parent / "docs" / "evidence.md").read_text()
VECTORS = PAGE.partition("## Test vectors")[2]
_BLOCKS = re.findall(r"^```(?:json)?\n([^`]*)^```$", VECTORS, re.MULTILINE)
SKELETON, PERSONAL, TICK, MAP = (block.rstrip("\n") for block in _BLOCKS[:4])
TABLE, KEYS, PROOF = _BLOCKS[4:]
NUMBERS = {line[:17].strip(): bytes.fromhex(line[17:]) for line in TABLE.splitlines()}


def test_the_hashes_are_those_of_the_page() -> None:
    commitment = sha256(NUMBERS["salt"] + PERSONAL.encode()).digest()
    assert commitment == NUMBERS["C"]
    event = sha256(b"\0\1" + commitment + SKELETON.encode()).digest()
    tick = sha256(b"\0\2" + TICK.encode()).digest()
    assert (event, tick) == (NUMBERS["leaf of event"], NUMBERS["leaf of tick"])
    above = sha256(b"\1" + event + tick).digest()
    last = sha256(b"\0\3" + MAP.encode()).digest()
    assert last == NUMBERS["leaf of map"]
    assert sha256(b"\1" + above + last).digest() == NUMBERS["root"]


def test_the_chain_and_the_map_are_those_of_the_page() -> None:
    salt = NUMBERS["salt of o1"]
    key = sha256(salt + b"o1").digest()
    begin = sha256(key + salt).digest()
    entry = sha256(b"\4" + key + (1).to_bytes(8, "big") + (1).to_bytes(8, "big") + begin).digest()
    assert key == NUMBERS["key of o1"]
    assert begin == NUMBERS["before its chain"]
    assert entry == NUMBERS["entry of tick 1"]
    nodes = [sha256(b"\0").digest()] * 256
    assert nodes[0] == NUMBERS["empty bucket"]
    nodes[key[0]] = sha256(b"\0" + key + entry).digest()
    assert nodes[key[0]] == NUMBERS["bucket"]
    while len(nodes) > 1:
        nodes = [sha256(b"\1" + a + b).digest() for a, b in zip(*[iter(nodes)] * 2, strict=True)]
    assert nodes[0] == NUMBERS["root of map"]
    assert json.loads(MAP)["root"] == nodes[0].hex()


def test_the_proof_is_that_of_the_page() -> None:
    private, public = KEYS.split()
    proof = read_proof(PROOF)
    line = {"index": 0, "skeleton": SKELETON, "personal": PERSONAL, "salt": NUMBERS["salt"].hex(),
            "proof": [encode(part) for part in proof.hashes]}  # fmt: skip
    _, size, _ = verify.lines_of(proof.checkpoint, [verify.key_of(public)])[:3]
    assert verify.place_of(line, verify.event_of(line), int(size), NUMBERS["root"]) == 0
    assert int(size) == 3
    key = PrivateKey.read(private).key
    assert str(key) == public
    head = proof.check(verify.event_of(line), [key])
    assert head.root == NUMBERS["root"]


def test_the_bytes_are_those_that_are_made() -> None:
    row = (
        "7", "2026-11-28T09:00:00.000001Z", "731", "membership.role_changed", "success", "user",
        "app", None, "o1", "membership", '1/"2"', "web", "public.membership", "ann", None, "bob",
        '{"role": "MEMBER"}', '{"role": "ADMIN"}', '{"ip": "203.0.113.9"}',
    )  # fmt: skip
    made = groups_of(row, "6e1a7a34-6f0c-4b2e-9b8e-0123456789ab")
    assert made == (SKELETON.encode(), PERSONAL.encode())
