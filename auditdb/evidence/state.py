"""The state of the sealer outside of the database: the last checkpoint that it signed.

Without it, somebody with access to the database could reset it, and let a different history be
signed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from auditdb.errors import InvalidInput, Refused
from auditdb.evidence.note import Checkpoint, VerificationKey, open_checkpoint
from auditdb.values.plain import counted


class State:
    """A file with the last checkpoint. Its signature prevents forgery."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Lock the file against another sealer on this machine; yield whether that succeeded."""
        try:
            handle = os.open(self.path.with_name(f"{self.path.name}.lock"),
                             os.O_RDWR | os.O_CREAT, 0o600)  # fmt: skip
        except OSError as error:
            raise InvalidInput(f"cannot write beside {self.path}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)

    def read(self, keys: list[VerificationKey]) -> tuple[Checkpoint, str] | None:
        """Return the last checkpoint, parsed and as a signed note; None before the first.

        Raises:
            InvalidInput: the file cannot be read, or is not a checkpoint of these keys.
        """
        try:
            note = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not a text file"
            raise InvalidInput(f"cannot read {self.path}: {reason}") from error
        try:
            return open_checkpoint(note, keys), note
        except InvalidInput as error:
            raise InvalidInput(f"{self.path} is not a checkpoint of this log: {error}") from error

    def write(self, note: str, keys: list[VerificationKey]) -> None:
        """Save a checkpoint to the disk, before it is published.

        Raises:
            Refused: the saved checkpoint is newer.
        """
        new, last = open_checkpoint(note, keys), self.read(keys)
        if last is not None and (
            new.size < last[0].size or (new.size == last[0].size and new.root != last[0].root)
        ):
            raise Refused(
                f"{self.path} has a checkpoint of {counted(last[0].size, 'leaf', 'leaves')}; "
                f"one of {new.size} cannot follow it"
            )
        write_durably(self.path, note.encode())


def write_durably(path: Path, data: bytes) -> None:
    """Write a temporary file, flush it to the disk, and rename it.

    Raises:
        InvalidInput: the file cannot be written.
    """
    apart = path.with_name(f".{path.name}.tmp")
    try:
        with apart.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        apart.replace(path)
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        with suppress(OSError):
            apart.unlink()
        raise InvalidInput(f"cannot write {path}: {error.strerror or error}") from error
