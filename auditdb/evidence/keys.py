"""The sealing key: from a file, the environment, or a command that signs."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)  # fmt: skip

from auditdb.errors import InvalidInput
from auditdb.evidence.note import (
    ED25519,
    Unsigned,
    VerificationKey,
    check_name,
    decode,
    encode,
    open_note,
    read_key,
    sign,
)  # fmt: skip
from auditdb.evidence.tree import Problem

VARIABLE = "AUDITDB_SEAL_KEY"
# The format of Go's golang.org/x/mod/sumdb/note.
_PRIVATE = "PRIVATE+KEY+"
_ROTATION = "auditdb key rotation v1"


class PrivateKey:
    """A key that is in memory."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key = VerificationKey(check_name(name), private.public_key().public_bytes_raw())

    @classmethod
    def make(cls, name: str) -> PrivateKey:
        """Make a key for the log of a name."""
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, text: str) -> PrivateKey:
        """Parse a key, `PRIVATE+KEY+name+id+key`.

        Raises:
            Problem: the text is not a key. The message does not quote it.
        """
        name, _, rest = text.strip().removeprefix(_PRIVATE).partition("+")
        try:
            data = decode(rest.partition("+")[2], "the key")
            if not text.startswith(_PRIVATE) or data[:1] != ED25519:
                raise Problem("it does not begin like a key")
            found = cls(name, Ed25519PrivateKey.from_private_bytes(data[1:]))
        except ValueError as error:
            raise Problem(
                "not a sealing key (PRIVATE+KEY+name+id+key); create one with auditdb seal init"
            ) from error
        if found.text() != text.strip():
            raise Problem("the sealing key was changed: its id does not match the key")
        return found

    def text(self) -> str:
        """Return the key as text. It is a secret."""
        data = ED25519 + self._private.private_bytes_raw()
        return f"{_PRIVATE}{self.key.name}+{self.key.id.hex()}+{encode(data)}"

    def sign(self, text: bytes) -> bytes:
        """Return the signature of a text."""
        return self._private.sign(text)


class Command:
    """A command that signs, for a key that never leaves an HSM or a KMS.

    It gets the text on standard input, and prints the 64 bytes of the Ed25519 signature (RFC 8032,
    not prehashed) in base64. The signature is checked.
    """

    def __init__(self, command: str, key: VerificationKey, *, timeout: float = 30) -> None:
        self._command, self.key, self._timeout = shlex.split(command), key, timeout
        if not self._command:
            raise InvalidInput("the command that signs is empty")

    def sign(self, text: bytes) -> bytes:
        """Return the signature of a text.

        Raises:
            Problem: the command failed, or did not print a signature of this key.
        """
        name = self._command[0]
        try:
            ran = subprocess.run(
                self._command, input=text, capture_output=True, timeout=self._timeout, check=True
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
            raise Problem(f"the command {name!r} that signs failed: {said or error}") from error
        signature = decode("".join(ran.stdout.decode(errors="replace").split()), "its output")
        try:
            Ed25519PublicKey.from_public_bytes(self.key.public).verify(signature, text)
        except InvalidSignature as error:
            raise Problem(f"the output of {name!r} is not a signature of {self.key}") from error
        return signature


def write_key(path: Path, name: str) -> VerificationKey:
    """Create a key in a new file that only its owner may read.

    Raises:
        InvalidInput: the file exists already, or cannot be written.
    """
    made = PrivateKey.make(name)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InvalidInput(
            f"{path} already exists; a key file is never overwritten: choose another path"
        ) from error
    except OSError as error:
        raise InvalidInput(f"cannot make {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="ascii") as out:
            out.write(f"{made.text()}\n")
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise
    return made.key


def read_private(path: Path | None) -> PrivateKey:
    """Return the key of a file, or of the environment variable AUDITDB_SEAL_KEY.

    Raises:
        InvalidInput: there is no key, or others may read the file.
    """
    if path is None:
        text = os.environ.get(VARIABLE, "")
        if not text:
            raise InvalidInput(
                f"no sealing key: give --key-file, {VARIABLE}, or --sign-command with --key; "
                "auditdb seal init creates a key"
            )
        return PrivateKey.read(text)
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a text file"
        raise InvalidInput(f"cannot read the sealing key {path}: {reason}") from error
    if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
        raise InvalidInput(f"others may read the sealing key; run: chmod 600 {path}")
    return PrivateKey.read(text)


def rotate(old: PrivateKey | Command, new: VerificationKey) -> str:
    """Return the note with which the old key of a log confirms a new one.

    Raises:
        InvalidInput: the new key is of another log.
    """
    if new.name != old.key.name:
        raise InvalidInput(f"the new key is of {new.name}, the log is {old.key.name}")
    return sign(f"{_ROTATION}\n{new.name}\n{new}\n", [old])


def follow(first: VerificationKey, rotations: list[str]) -> list[VerificationKey]:
    """Return a key and all keys that follow it by rotation.

    Args:
        first: the trusted key.
        rotations: notes of `rotate`, the oldest first. Notes of other keys are ignored.

    Raises:
        Problem: a note of a trusted key was changed.
    """
    keys = [first]
    for note in rotations:
        try:
            text, _ = open_note(note, keys)
        except Unsigned:
            continue
        lines = text.split("\n")
        if lines[0] != _ROTATION or len(lines) != 4 or lines[1] != first.name:
            raise Problem(f"{lines[0][:80]!r} is not a key rotation of {first.name}")
        key = read_key(lines[2])
        if key.name != first.name:
            raise Problem(f"a key of {key.name} cannot follow a key of {first.name}")
        keys.append(key)
    return keys
