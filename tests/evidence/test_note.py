"""Signed notes, checkpoints, proofs in files, keys: examples of C2SP, and what is refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditdb.errors import InvalidInput, Refused
from auditdb.evidence.keys import (
    VARIABLE,
    Command,
    PrivateKey,
    follow,
    read_private,
    rotate,
    write_key,
)
from auditdb.evidence.note import Checkpoint, open_checkpoint, open_note, read_key, sign
from auditdb.evidence.proof import Proof, read_proof
from auditdb.evidence.state import State
from auditdb.evidence.tree import EMPTY, Edge, Problem, Tree, leaf_hash
from tests.evidence.tiles import Memory

# The example of c2sp.org/signed-note.
KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NOTE = """\
This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
"""  # noqa: E501
# Of the tests of Go's golang.org/x/mod/sumdb/note.
PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SIGNED = """\
If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""  # noqa: E501


@pytest.fixture
def key() -> PrivateKey:
    return PrivateKey.make("example.com/audit")


def test_the_example_of_the_standard_is_read() -> None:
    text, signed = open_note(NOTE, [read_key(KEY)])
    assert text == "This is an example message.\n"
    assert [str(key) for key in signed] == [KEY]


def test_a_note_of_go_is_signed_again_byte_for_byte() -> None:
    key = PrivateKey.read(PRIVATE)
    assert str(key.key) == PUBLIC
    assert key.text() == PRIVATE
    text, _, _ = SIGNED.rpartition("\n\n")
    assert sign(f"{text}\n", [key]) == SIGNED


@pytest.mark.parametrize(
    "note",
    [
        NOTE.replace("an example", "no example"),
        NOTE.replace("IneyaQM", "IneyaQN"),
        NOTE.replace("\n\n", "\n"),
        NOTE.rstrip("\n"),
        NOTE.replace("— ", "- "),
        NOTE.replace("example.com/foo ", "example.com/bar "),
        NOTE.replace("Uw2Q", "Uw2R"),
        NOTE.replace("This", "\tThis"),
        f"{NOTE}\n",
        "",
        "\n\n",
    ],
)
def test_a_note_that_was_changed_is_refused(note: str) -> None:
    with pytest.raises(Problem):
        open_note(note, [read_key(KEY)])


@pytest.mark.parametrize(
    "text",
    [
        KEY.replace("530d903a", "530d903b"),
        KEY.replace("foo", "fop"),
        KEY[:-2],
        KEY.replace("+A", "+B"),
        "example.com/foo",
        "",
    ],
)
def test_a_key_that_was_typed_wrongly_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_key(text)


def test_a_wrong_private_key_is_refused_and_not_shown() -> None:
    for text in (PRIVATE.replace("c74f", "c74e"), PRIVATE[:-8], "PRIVATE+KEY", "", KEY):
        with pytest.raises(InvalidInput) as caught:
            PrivateKey.read(text)
        assert "AYEKFALVFGyNhPJEM" not in str(caught.value)


@given(st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_says_what_was_signed(size: int, root: bytes) -> None:
    key = PrivateKey.make("example.com/audit")
    head = Checkpoint("example.com/audit", size, root)
    assert open_checkpoint(sign(head.text, [key]), [key.key]) == head


@pytest.mark.parametrize(
    "text",
    [
        "example.com/audit\n1\n",
        "example.com/audit\n01\n{root}\n",
        "example.com/audit\n-1\n{root}\n",
        "example.com/audit\n1\n{root}=\n",
        "example.com/audit\n1\n{root}\n\nmore\n",
        "example.com/audit\n1\nAAAA\n",
        "example.com/other\n1\n{root}\n",
    ],
)
def test_what_is_no_checkpoint_of_the_log_is_refused(key: PrivateKey, text: str) -> None:
    root = Checkpoint("", 0, EMPTY).text.split("\n")[2]
    note = sign(text.format(root=root), [key])
    with pytest.raises(Problem):
        open_checkpoint(note, [key.key])


def test_extension_lines_are_left_alone(key: PrivateKey) -> None:
    head = Checkpoint("example.com/audit", 7, EMPTY)
    assert open_checkpoint(sign(f"{head.text}more\n", [key]), [key.key]) == head


def test_a_proof_is_written_and_read_and_checked(key: PrivateKey) -> None:
    entries = [b"entry %d" % number for number in range(300)]
    tiles, edge = Memory(), Edge()
    tiles.grow(edge, [leaf_hash(entry) for entry in entries])
    note = sign(Checkpoint("example.com/audit", 300, edge.root()).text, [key])
    for index in (0, 255, 256, 299):
        proof = Proof(index, Tree(tiles, 300).include(index), note, b"extra"[: index % 6])
        assert read_proof(str(proof)) == proof
        assert proof.check(entries[index], [key.key]).size == 300
        with pytest.raises(Problem):
            proof.check(entries[1], [key.key])
        with pytest.raises(Problem):
            proof.check(entries[index], [PrivateKey.make("example.com/audit").key])


@pytest.mark.parametrize(
    "change",
    [
        ("tlog-proof@v1", "tlog-proof@v2"),
        ("index 0", "index 00"),
        ("index 0\n", ""),
        ("\n\n", "\n"),
        ("index 0\n", "index 0\nAAAA\n"),
    ],
)
def test_what_is_no_proof_is_refused(key: PrivateKey, change: tuple[str, str]) -> None:
    head = Checkpoint("example.com/audit", 1, leaf_hash(b""))
    text = str(Proof(0, [], sign(head.text, [key])))
    assert read_proof(text).check(b"", [key.key]) == head
    with pytest.raises(Problem):
        read_proof(text.replace(*change)).check(b"", [key.key])


def test_a_key_file_is_its_owners_alone_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "key"
    made = write_key(path, "example.com/audit")
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_private(path).key == made
    with pytest.raises(InvalidInput, match="exists"):
        write_key(path, "example.com/audit")
    path.chmod(0o640)
    with pytest.raises(InvalidInput, match="chmod 600"):
        read_private(path)


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, PRIVATE)
    assert str(read_private(None).key) == PUBLIC
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(InvalidInput, match="auditdb seal init"):
        read_private(None)


@pytest.mark.parametrize("name", ["", "with space", "a+b", "a\nb", "a\u00a0b"])
def test_a_name_that_no_note_can_hold_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        PrivateKey.make(name)


SIGN = """
import sys
from base64 import b64encode
from auditdb.evidence.keys import PrivateKey
print(b64encode(PrivateKey.read(sys.argv[1]).sign(sys.stdin.buffer.read())).decode())
"""


def test_a_command_signs_and_is_not_believed(tmp_path: Path, key: PrivateKey) -> None:
    script = tmp_path / "sign.py"
    script.write_text(SIGN)
    command = f"{sys.executable} {script} '{key.text()}'"
    head = Checkpoint("example.com/audit", 7, EMPTY)
    note = sign(head.text, [Command(command, key.key)])
    assert note == sign(head.text, [key])
    for wrong, said in [
        (f"{sys.executable} {script} '{PRIVATE}'", "is not a signature of example.com"),
        (f"{sys.executable} -c 'print(1)'", "not valid base64"),
        (f"{sys.executable} -c 'raise SystemExit(3)'", "failed"),
        (os.fspath(tmp_path / "nothing"), "failed"),
    ]:
        with pytest.raises(Problem, match=said):
            sign(head.text, [Command(wrong, key.key)])
    with pytest.raises(InvalidInput, match="empty"):
        Command(" ", key.key)


def test_the_old_key_hands_over_to_the_new_one(key: PrivateKey) -> None:
    second, third = (PrivateKey.make("example.com/audit") for _ in range(2))
    notes = [rotate(key, second.key), rotate(second, third.key)]
    keys = follow(key.key, notes)
    assert keys == [key.key, second.key, third.key]
    head = Checkpoint("example.com/audit", 7, EMPTY)
    assert open_checkpoint(sign(head.text, [third]), keys) == head
    # Whoever believes the second key alone does not come to believe the first.
    assert follow(second.key, notes) == [second.key, third.key]


def test_a_key_that_nobody_handed_over_to_is_not_believed(key: PrivateKey) -> None:
    thief = PrivateKey.make("example.com/audit")
    assert follow(key.key, [rotate(thief, thief.key)]) == [key.key]
    with pytest.raises(Problem):
        follow(key.key, [rotate(key, thief.key).replace("v1", "v2")])
    with pytest.raises(InvalidInput, match=r"is of example\.com/other"):
        rotate(key, PrivateKey.make("example.com/other").key)
    # A checkpoint is no rotation, and a rotation no checkpoint.
    with pytest.raises(Problem):
        follow(key.key, [sign(Checkpoint("example.com/audit", 7, EMPTY).text, [key])])
    with pytest.raises(Problem):
        open_checkpoint(rotate(key, thief.key), [key.key])


def test_the_sealer_remembers_and_goes_no_step_back(tmp_path: Path, key: PrivateKey) -> None:
    state = State(tmp_path / "state")
    assert state.read([key.key]) is None

    def note(size: int, root: bytes) -> str:
        return sign(Checkpoint("example.com/audit", size, root).text, [key])

    state.write(note(7, EMPTY), [key.key])
    state.write(note(7, EMPTY), [key.key])
    for size, root in [(6, EMPTY), (7, leaf_hash(b""))]:
        with pytest.raises(Refused):
            state.write(note(size, root), [key.key])
    state.write(note(8, EMPTY), [key.key])
    assert state.read([key.key]) == (Checkpoint("example.com/audit", 8, EMPTY), note(8, EMPTY))
    state.path.write_text(note(6, EMPTY).replace("6", "5"))
    with pytest.raises(InvalidInput, match="is not a checkpoint of this log"):
        state.read([key.key])


def test_one_sealer_holds_the_state_at_a_time(tmp_path: Path) -> None:
    first, second = State(tmp_path / "state"), State(tmp_path / "state")
    with first.lock() as held:
        assert held
        with second.lock() as both:
            assert not both
    with second.lock() as held:
        assert held
