"""What a verification says."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

# Ids that a finding names; it counts the others.
_NAMED = 20


@dataclass(slots=True)
class Report:
    """What a verification found.

    Attributes:
        events: that were hashed again.
        size: leaves of the tree.
        signed: leaves that a checkpoint covers.
        dropped: events of months that retention dropped, as an event says.
        archived: events that were read from the archive.
        erased: events whose personal part was erased, as an event says.
        findings: what does not hold, a line each.
        notices: what is as it may be, and worth knowing.
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
    """Takes findings, and names the first of each kind alone."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.named: Counter[str] = Counter()

    def add(self, kind: str, text: str) -> None:
        """Add a finding."""
        self.named[kind] += 1
        if self.named[kind] <= _NAMED:
            self.report.findings.append(f"{kind}: {text}")

    def dump(self) -> list[Any]:
        """Return what was found so far, for `load`."""
        return [asdict(self.report), self.named]

    def load(self, noted: list[Any]) -> None:
        """Take what `dump` returned, as JSON has it."""
        for name, value in noted[0].items():
            setattr(self.report, name, value)
        self.named = Counter(noted[1])

    def end(self) -> None:
        """Say how many were not named."""
        for kind, many in self.named.items():
            if many > _NAMED:
                self.report.findings.append(f"{kind}: {many - _NAMED} more")
