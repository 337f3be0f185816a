"""The progress file of a verification, so that it can continue after an interruption."""

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
    """The progress of a verification: everything up to a seal was checked.

    Attributes:
        about: keys, checkpoints and options of the verification.
        seal: the last seal that was checked.
        good: number of leaves up to the last matching checkpoint.
        size: number of leaves that were checked.
        levels: the right edge of their tree.
        findings: the state of the findings.
        counts: the state of the counts.
        organizations: the state of the organisations.
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
    """The progress file of a verification; without a path, nothing is saved.

    Args:
        path: the file.
        about: what is verified. If the file is about something else, verification starts again.
    """

    def __init__(self, path: Path | None, about: list[str]) -> None:
        self._path, self._last = path, time.monotonic()
        self._about = sha256(json.dumps(about).encode()).hexdigest()

    def read(self) -> Known | None:
        """Return the progress, or None at the start.

        Raises:
            InvalidInput: the file cannot be read or written, or is not a progress file.
        """
        if self._path is None:
            return None
        try:
            known = Known(**json.loads(self._path.read_text("utf-8")))
        except FileNotFoundError:
            # Check that the file is writable before hours of work depend on it.
            write_durably(self._path, b"")
            self._path.unlink()
            return None
        except (OSError, ValueError, TypeError) as error:
            raise InvalidInput(f"{self._path} is not a progress file") from error
        return known if known.about == self._about else None

    def is_due(self) -> bool:
        """Return whether it is time to save."""
        return self._path is not None and time.monotonic() - self._last >= _EVERY

    def write(
        self, seal: int, good: int, edge: Edge, findings: list[Any], counts: list[Any],
        organizations: list[Any],
    ) -> None:  # fmt: skip
        """Save the progress."""
        assert self._path is not None
        known = Known(self._about, seal, good, edge.size, edge.dump(), findings, counts,
                      organizations)  # fmt: skip
        line = json.dumps({name: getattr(known, name) for name in _NAMES})
        write_durably(self._path, line.encode())
        self._last = time.monotonic()

    def end(self) -> None:
        """Delete the file: the verification is complete."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
