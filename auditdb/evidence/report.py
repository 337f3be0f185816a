"""The report of a verification."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

# Number of findings of a kind that are named; the rest are counted.
_NAMED = 20


@dataclass(slots=True)
class Report:
    """The result of a verification.

    Attributes:
        events: number of events that were hashed again.
        size: number of leaves of the tree.
        signed: number of leaves that a checkpoint covers.
        dropped: number of events that retention dropped, as an event says.
        archived: number of events that were read from the archive.
        erased: number of events whose personal part was erased, as an event says.
        findings: problems, one line for each.
        notices: remarks that are not problems, one line for each.
    """

    events: int = 0
    size: int = 0
    signed: int = 0
    dropped: int = 0
    archived: int = 0
    erased: int = 0
    findings: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


class Findings:
    """Collects findings; only the first ones of each kind are named."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.named: Counter[str] = Counter()

    def add(self, kind: str, text: str) -> None:
        """Add a finding."""
        self.named[kind] += 1
        if self.named[kind] <= _NAMED:
            self.report.findings.append(f"{kind}: {text}")

    def dump(self) -> list[Any]:
        """Return the state, for `load`."""
        return [asdict(self.report), self.named]

    def load(self, noted: list[Any]) -> None:
        """Restore the state from the result of `dump`, read from JSON."""
        for name, value in noted[0].items():
            setattr(self.report, name, value)
        self.named = Counter(noted[1])

    def end(self) -> None:
        """Add the number of findings that were not named."""
        for kind, many in self.named.items():
            if many > _NAMED:
                self.report.findings.append(f"{kind}: {many - _NAMED} more")
