"""Names attacks and prints their outcomes: `pytest tests/attacks -q -p tests.attacks.report`.

B blocked; S survived: the action succeeds and its event is there, complete or marked degraded;
D found by `audit.doctor()`; U can neither be prevented nor found: SECURITY.md says what to do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Literal

import pytest

OUTCOMES = {
    "B": "blocked",
    "S": "survived",
    "D": "detected by doctor",
    "U": "neither prevented nor detected",
}


def attack(group: str, name: str, *, outcome: Literal["B", "S", "D", "U"]) -> pytest.MarkDecorator:
    """Mark a test as (an alternative of) an attack, with the outcome that it asserts."""
    return pytest.mark.attack(group=group, name=name, outcome=outcome)


_seen: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count each test under its attack."""
    row = dict(report.user_properties).get("attack")
    if isinstance(row, tuple) and (report.when == "call" or report.outcome != "passed"):
        _seen[row][report.outcome] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the attacks by group, and the four counts, which are never added up."""
    write = terminalreporter.write_line
    write("")
    for group in dict.fromkeys(group for group, _, _ in _seen):
        write(group)
        for (of, name, outcome), tests in _seen.items():
            if of == group:
                others = ", ".join(f"{n} {what}" for what, n in tests.items() if what != "passed")
                count = f"{tests.total()} test{'s' if tests.total() > 1 else ''}"
                write(f"  {outcome}  {name}  ({count}{': ' + others.upper() if others else ''})")
        write("")
    for letter, meaning in OUTCOMES.items():
        rows = [tests for (_, _, outcome), tests in _seen.items() if outcome == letter]
        held = sum(tests.total() == tests["passed"] for tests in rows)
        write(
            f"{letter}  {meaning}: {held} of {len(rows)} attacks, "
            f"{sum(t.total() for t in rows)} tests"
        )
