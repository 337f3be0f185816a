"""The suite itself: no attack of the threat model is missing, and each has a twin that falls."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from tests.attacks import report

HERE = Path(__file__).parent
SECURITY = HERE.parent.parent / "SECURITY.md"
THREATS = HERE / "THREATS.md"
ALIKE = 0.5


@pytest.fixture(scope="module")
def attacks() -> list[report.Attack]:
    """Every attack of the suite, whichever tests are run."""
    for path in sorted(HERE.glob("test_*.py")):
        importlib.import_module(f"tests.attacks.{path.stem}")
    return report.ATTACKS


def words(text: str) -> set[str]:
    """Return the words of a text, without endings and what is in every row."""
    found = {word[:6] for word in re.findall(r"[a-z_0-9]{3,}", text.lower().replace(",", ""))}
    return found - {"the", "and", "that", "with", "from", "audit", "event", "table", "role"}


def threats() -> list[tuple[str, str, set[str]]]:
    """Return group, row and the outcomes of every row of the threat model."""
    rows, group = [], ""
    for line in THREATS.read_text().splitlines():
        if line.startswith("## "):
            group = line[3:].strip()
        elif line.startswith("| ") and not line.startswith("| attack or fault"):
            row, must_be = (cell.strip() for cell in line.strip("| ").rsplit(" | ", 1))
            rows.append((group, row, set(re.findall(r"\b[BSDU]\b", must_be))))
    return rows


def test_every_attack_has_a_naive_twin(attacks: list[report.Attack]) -> None:
    named = {(attack.group, attack.name, attack.outcome) for attack in attacks}
    twins = {(attack.group, attack.name, attack.outcome) for attack in attacks if attack.twin}
    assert sorted(named - twins) == []


def test_what_can_neither_be_prevented_nor_found_is_admitted(
    attacks: list[report.Attack],
) -> None:
    text = SECURITY.read_text()
    section = re.search(r"^## What cannot be prevented or detected.*?(?=^## )", text, re.M | re.S)
    assert section is not None
    admitted = " ".join(section[0].replace("*", "").split())
    undetected = [attack for attack in attacks if attack.outcome == "U"]
    assert undetected
    for attack in undetected:
        assert attack.documented and attack.documented in admitted, attack


def test_every_row_of_the_threat_model_is_attacked(attacks: list[report.Attack]) -> None:
    missing = []
    for group, row, outcomes in threats():
        alike = [
            attack
            for attack in attacks
            if attack.group == group
            and len(words(attack.name) & words(row))
            >= ALIKE * min(len(words(attack.name)), len(words(row)))
        ]
        if not alike or not outcomes <= {attack.outcome for attack in alike}:
            missing.append((row, outcomes, sorted({a.name for a in alike})))
    assert missing == []
