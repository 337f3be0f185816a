"""Other people's tools accept what we publish, and refuse what was changed.

metamorphic-log (Rust) checks notes, checkpoints and both kinds of proofs; tlog-scales (Python)
reads the published tiles and makes proofs of them itself; verify.py knows nothing of auditdb.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import metamorphic_log
import pytest
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey, VkeySet
from tlog_scales.tlog import InclusionProof

from auditdb.evidence import verify
from auditdb.evidence.keys import PrivateKey, rotate
from auditdb.evidence.leaf import commit, event_entry
from auditdb.evidence.note import Checkpoint, encode, open_checkpoint, sign
from auditdb.evidence.places import Directory, Published
from auditdb.evidence.proof import Proof
from auditdb.evidence.tree import Edge, Tree, leaf_hash

SIZES = [1, 255, 256, 300, 66_000]


class Log:
    """A published log, with a checkpoint at each of some sizes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = PrivateKey.make("example.com/audit")
        self.entries = [
            event_entry(b'{"id":"%d"}' % number, commit(b"s" * 16, b"%d" % number))
            for number in range(SIZES[-1])
        ]
        self.notes: dict[int, str] = {}
        edge, place = Edge(), Directory(path)
        for size in SIZES:
            leaves = b"".join(leaf_hash(entry) for entry in self.entries[edge.size : size])
            for tile, data in [*edge.append(leaves), *edge.partial()]:
                place.write(tile.path, data)
            head = Checkpoint(self.key.key.name, size, edge.root())
            self.notes[size] = sign(head.text, [self.key])
            place.write("checkpoint", self.notes[size].encode())
        self.tiles = Published(place)

    def proof(self, index: int, size: int) -> Proof:
        return Proof(index, Tree(self.tiles, size).include(index), self.notes[size])


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return Log(tmp_path_factory.mktemp("log"))


@pytest.mark.parametrize("size", SIZES)
def test_metamorphic_log_accepts_checkpoints_and_inclusion(log: Log, size: int) -> None:
    note, keys = log.notes[size], [str(log.key.key)]
    head = metamorphic_log.checkpoint_verify(note, keys)
    assert (head.origin, head.size) == ("example.com/audit", size)
    assert metamorphic_log.verify_signed_note(note, keys) == 1
    for index in {0, size // 2, size - 1}:
        proof = log.proof(index, size)
        leaf = leaf_hash(log.entries[index])
        metamorphic_log.checkpoint_verify_inclusion(note, keys, index, leaf, proof.hashes)
        with pytest.raises(metamorphic_log.VerifyError):
            metamorphic_log.checkpoint_verify_inclusion(
                note, keys, index, leaf_hash(b"another"), proof.hashes
            )


@pytest.mark.parametrize(("older", "newer"), [*combinations(SIZES, 2)])
def test_one_stranger_proves_that_the_log_grew_and_another_accepts_it(
    log: Log, older: int, newer: int
) -> None:
    reader = TilesReader(LocalBackend(log.path))
    reader.get_checkpoint()
    proof = reader.get_consistency_proof(older, newer)
    keys = [str(log.key.key)]
    metamorphic_log.checkpoint_verify_consistency(
        log.notes[older], log.notes[newer], keys, proof.node_hashes
    )
    with pytest.raises(metamorphic_log.VerifyError):
        metamorphic_log.checkpoint_verify_consistency(
            log.notes[older], log.notes[newer], keys, [leaf_hash(b"another"), *proof.node_hashes]
        )


def test_tlog_scales_reads_the_published_log_and_proves_the_same(log: Log) -> None:
    reader = TilesReader(LocalBackend(log.path))
    head = reader.get_checkpoint()
    assert head.size == SIZES[-1]
    assert reader.calculate_root_hash() == head.root_hash
    assert VkeySet(Vkey.from_string(str(log.key.key))).verify(head.signatures, head)
    for index in (0, 255, 256, 65_535, 65_536, SIZES[-1] - 1):
        theirs = reader.get_inclusion_proof(index, head.size)
        assert theirs.node_hashes == log.proof(index, head.size).hashes
        theirs.check(leaf_hash(log.entries[index]), head.root_hash)
    InclusionProof(3, 300, log.proof(3, 300).hashes).check(
        leaf_hash(log.entries[3]), open_checkpoint(log.notes[300], [log.key.key]).root
    )


def _lines(log: Log) -> list[dict[str, Any]]:
    salt = b"s" * 16
    lines: list[dict[str, Any]] = [
        {"index": 5, "skeleton": '{"id":"5"}', "salt": salt.hex(), "personal": "5"},
        {"index": 256, "skeleton": '{"id":"256"}', "commitment": commit(salt, b"256").hex()},
    ]
    for line in lines:
        line["proof"] = [encode(h) for h in log.proof(line["index"], SIZES[-1]).hashes]
    return lines


def _bundle(log: Log, to: Path, lines: list[dict[str, Any]]) -> list[str]:
    (to / "keys").mkdir()
    (to / "events.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (to / "checkpoint").write_text(log.notes[SIZES[-1]])
    claim = {"version": 1, "log": log.key.key.name, "events": 2, "organization": None}
    (to / "manifest.json").write_text(json.dumps(claim))
    return [sys.executable, verify.__file__, str(log.key.key), str(to)]


def _run(command: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, cwd=place, check=False)


def test_verify_py_alone_accepts_events_whole_and_erased(log: Log, tmp_path: Path) -> None:
    ran = _run(_bundle(log, tmp_path, _lines(log)), tmp_path)
    assert ran.stdout == (
        "2 events are as they were sealed in example.com/audit, 1 of them without their personal "
        "part; whether there are others is not shown\n"
    )
    assert ran.returncode == 0


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        (0, "personal", "6"),
        (0, "skeleton", '{"id":"6"}'),
        (0, "salt", "00" * 16),
        (0, "index", 6),
        (0, "proof", []),
        (1, "commitment", "00" * 32),
        (1, "personal", "256"),
        (1, "map", "256"),
    ],
)
def test_verify_py_finds_what_was_changed(
    log: Log, tmp_path: Path, line: int, name: str, value: object
) -> None:
    lines = _lines(log)
    is_ignored = name == "map"
    lines[line][name] = value
    ran = _run(_bundle(log, tmp_path, lines), tmp_path)
    assert ran.returncode == (0 if is_ignored else 1)
    assert ran.stdout.startswith("NOT PROVED: leaf ") != is_ignored


def test_verify_py_believes_no_other_key_but_one_handed_over_to(log: Log, tmp_path: Path) -> None:
    former = PrivateKey.make("example.com/audit")
    command = _bundle(log, tmp_path, _lines(log))
    command[2] = str(former.key)
    assert _run(command, tmp_path).returncode == 1
    (tmp_path / "keys" / "000").write_text(rotate(former, log.key.key))
    assert _run(command, tmp_path).returncode == 0


def test_verify_py_is_short_and_knows_nothing_of_auditdb() -> None:
    source = Path(verify.__file__).read_text()
    assert len(source.splitlines()) < 240
    assert "import auditdb" not in source and "from auditdb" not in source
