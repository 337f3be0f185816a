"""Signed notes (C2SP signed-note) and checkpoints (C2SP tlog-checkpoint), signed with Ed25519."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from auditdb.errors import InvalidInput
from auditdb.evidence.tree import Problem

ED25519 = b"\1"
_DASH = "\N{EM DASH} "
_LARGEST = 1_000_000
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A verification key: a name and an Ed25519 public key."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        """The four bytes with which signatures of this key begin."""
        return sha256(self.name.encode() + b"\n" + ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{encode(ED25519 + self.public)}"


class Unsigned(Problem):
    """A note that no trusted key signed."""


class Signer(Protocol):
    """Whoever holds the private key."""

    key: VerificationKey

    def sign(self, text: bytes) -> bytes:
        """Return the 64 bytes of the signature of a text."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: its name, how many leaves it has, and the root of their tree."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{encode(self.root)}\n"


def encode(data: bytes) -> str:
    """Return bytes in base64."""
    return b64encode(data).decode()


def decode(text: str, what: str) -> bytes:
    """Decode base64; accept only the canonical form."""
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(f"{what} is not valid base64") from error
    if encode(data) != text:
        raise Problem(f"{what} is not canonical base64")
    return data


def check_name(name: str) -> str:
    """Return the name of a log or key, if it is valid."""
    if not name or "+" in name or any(c.isspace() or not c.isprintable() for c in name):
        raise InvalidInput(
            f"{name!r} is not a valid name of a log; give one without spaces and +, such as "
            "example.com/audit"
        )
    return name


def read_key(text: str) -> VerificationKey:
    """Parse a verification key, such as `example.com/audit+530d903a+AekyeR…`.

    Raises:
        Problem: the text is not a key, is of another kind, or has a typing error.
    """
    if text.strip().startswith("PRIVATE+KEY+"):
        raise Problem("this is the sealing key: give the verification key, which auditdb seal init "
                      "printed, and let nobody who verifies read this one")  # fmt: skip
    parts = text.strip().split("+", 2)
    if len(parts) != 3:
        raise Problem(f"{text[:80]!r} is not a verification key (name+id+key)")
    data = decode(parts[2], "the verification key")
    if data[:1] != ED25519 or len(data) != 33:
        raise Problem("the verification key is not an Ed25519 key")
    key = VerificationKey(check_name(parts[0]), data[1:])
    if str(key) != text.strip():
        raise Problem("the verification key was changed: its id does not match the key")
    return key


def sign(text: str, signers: Iterable[Signer]) -> str:
    """Return a note: the text with a signature of each signer."""
    lines = [
        f"{_DASH}{signer.key.name} {encode(signer.key.id + signer.sign(text.encode()))}\n"
        for signer in signers
    ]
    return f"{text}\n{''.join(lines)}"


def open_note(note: str, keys: Iterable[VerificationKey]) -> tuple[str, list[VerificationKey]]:
    """Return the text of a note, and which of the given keys signed it.

    Raises:
        Unsigned: none of the keys signed it.
        Problem: it is not a note, or a signature of one of the keys is wrong.
    """
    text, signatures = _cut(note)
    known = {(key.name, key.id): key for key in keys}
    signed = []
    for name, data in signatures:
        key = known.get((name, data[:4]))
        if key is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(data[4:], text.encode())
        except InvalidSignature as error:
            raise Problem(f"the signature of {name} does not match the text") from error
        signed.append(key)
    if not signed:
        raise Unsigned(
            f"no signature of the keys that were given: it is signed by "
            f"{', '.join(f'{name}+{data[:4].hex()}' for name, data in signatures)}"
        )
    return text, signed


def _cut(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    if len(note) > _LARGEST or any(c < " " and c != "\n" for c in note):
        raise Problem("not a signed note: it is too large or has control characters")
    text, blank, block = note.rpartition("\n\n")
    if not blank or not block.endswith("\n"):
        raise Problem("not a signed note, which is a text, an empty line, and signatures")
    signatures = []
    for line in block[:-1].split("\n"):
        name, _, data = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not name or not data:
            raise Problem(f"{line[:80]!r} is not a signature of a note")
        raw = decode(data, "a signature")
        if len(raw) < 5:
            raise Problem("a signature is too short")
        signatures.append((name, raw))
    return f"{text}\n", signatures


def open_checkpoint(
    note: str, keys: Iterable[VerificationKey], origin: str | None = None
) -> Checkpoint:
    """Check and parse a signed checkpoint.

    Args:
        note: the checkpoint, with its signatures.
        keys: the trusted keys.
        origin: the name of the log. Default: that of the keys.

    Raises:
        Problem: it is not a checkpoint, no trusted key signed it, or it is of another log.
    """
    text, signed = open_note(note, keys)
    checkpoint = parse_checkpoint(text)
    names = {origin} if origin else {key.name for key in signed}
    if checkpoint.origin not in names:
        raise Problem(f"the checkpoint is of the log {checkpoint.origin}, not {min(names)}")
    return checkpoint


def origin_of(note: str) -> str:
    """Return the log name of a checkpoint, without a check of signatures."""
    return note.partition("\n")[0]


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse the text of a checkpoint, without a check of signatures."""
    lines = text.split("\n")
    if len(lines) < 4 or not all(lines[:-1]) or lines[-1] or not _DECIMAL.fullmatch(lines[1]):
        raise Problem("not a checkpoint, which has name, size and root, one line for each")
    root = decode(lines[2], "the root")
    if len(root) != 32:
        raise Problem("the root is not a SHA-256 hash")
    return Checkpoint(lines[0], int(lines[1]), root)
