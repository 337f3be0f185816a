"""What a verification remembers in a file, so that it may be interrupted."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from auditdb.errors import InvalidInput
from auditdb.evidence.state import write_durably
from auditdb.evidence.tree import Edge

_EVERY = 5.0


@dataclass(frozen=True, slots=True)
class Known:
    """How far a verification came: all up to a seal was looked at.

    Attributes:
        about: what was verified: keys, checkpoints and options.
        seal: the last seal that was looked at.
        good: leaves up to the last checkpoint that they agreed with.
        size: leaves that were looked at.
        levels: the right edge of their tree.
        findings: what was found.
        counts: what was counted.
        organizations: what was seen of organisations.
    """

    about: str
    seal: int
    good: int
    size: int
    levels: list[str]
    findings: list[Any]
    counts: list[Any]
    organizations: list[Any]


_NAMES = [field.name for field in fields(Known)]


class Resume:
    """A file that a verification goes on from; none where no path is given.

    Args:
        path: the file.
        about: what is verified. Where it is not the same, the verification begins anew.
    """

    def __init__(self, path: Path | None, about: list[str]) -> None:
        self._path, self._last = path, time.monotonic()
        self._about = sha256(json.dumps(about).encode()).hexdigest()

    def read(self) -> Known | None:
        """Return how far it came; nothing where it begins.

        Raises:
            InvalidInput: the file cannot be read or written, or is none of a verification.
        """
        if self._path is None:
            return None
        try:
            known = Known(**json.loads(self._path.read_text("utf-8")))
        except FileNotFoundError:
            # Whether it can be written is seen before the hours of work that it is to keep.
            write_durably(self._path, b"")
            self._path.unlink()
            return None
        except (OSError, ValueError, TypeError) as error:
            raise InvalidInput(f"{self._path} is none of an interrupted verification") from error
        return known if known.about == self._about else None

    def is_due(self) -> bool:
        """Return whether it is time to remember."""
        return self._path is not None and time.monotonic() - self._last >= _EVERY

    def write(
        self, seal: int, good: int, edge: Edge, findings: list[Any], counts: list[Any],
        organizations: list[Any],
    ) -> None:  # fmt: skip
        """Remember how far it came."""
        assert self._path is not None
        known = Known(self._about, seal, good, edge.size, edge.dump(), findings, counts,
                      organizations)  # fmt: skip
        line = json.dumps({name: getattr(known, name) for name in _NAMES})
        write_durably(self._path, line.encode())
        self._last = time.monotonic()

    def end(self) -> None:
        """Forget it: the verification is through."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
