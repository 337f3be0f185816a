"""Names attacks and prints their outcomes: `pytest tests/attacks -q -p tests.attacks.report`.

B blocked; S survived: the action succeeds and its event is there, complete or marked degraded;
D found by `audit.doctor()`; U can neither be prevented nor found: SECURITY.md says what to do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Literal

import pytest

OUTCOMES = {
    "B": "blocked",
    "S": "survived",
    "D": "detected by doctor",
    "U": "neither prevented nor detected",
}


@dataclass(frozen=True)
class Attack:
    """What one test shows of one attack."""

    group: str
    name: str
    outcome: str
    twin: bool
    documented: str


# Filled as the test modules are imported, whichever of their tests are run.
ATTACKS: list[Attack] = []


def attack(
    group: str,
    name: str,
    *,
    outcome: Literal["B", "S", "D", "U"],
    twin: bool = False,
    documented: str = "",
) -> pytest.MarkDecorator:
    """Mark a test as (an alternative of) an attack.

    Args:
        group: the heading under which the threat model has it.
        name: the attack.
        outcome: what the test asserts.
        twin: whether the test also asserts that the naive log falls to the attack.
        documented: for outcome U, the words of SECURITY.md that admit it.
    """
    ATTACKS.append(Attack(group, name, outcome, twin, documented))
    return pytest.mark.attack(group=group, name=name, outcome=outcome, twin=twin)


_seen: defaultdict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
_fallen: set[tuple[str, str, str]] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count each test under its attack."""
    found = dict(report.user_properties).get("attack")
    if isinstance(found, tuple) and (report.when == "call" or report.outcome != "passed"):
        *row, twin = found
        group, name, outcome = row
        _seen[group, name, outcome][report.outcome] += 1
        if twin and report.passed:
            _fallen.add((group, name, outcome))


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
                twin = "twin fell" if (of, name, outcome) in _fallen else "NO TWIN"
                write(
                    f"  {outcome}  {name}  "
                    f"({count}{': ' + others.upper() if others else ''}; {twin})"
                )
        write("")
    for letter, meaning in OUTCOMES.items():
        rows = {row: tests for row, tests in _seen.items() if row[2] == letter}
        held = sum(tests.total() == tests["passed"] for tests in rows.values())
        write(
            f"{letter}  {meaning}: {held} of {len(rows)} attacks, "
            f"{sum(t.total() for t in rows.values())} tests; "
            f"the naive twin fell in {len(_fallen & rows.keys())}"
        )
