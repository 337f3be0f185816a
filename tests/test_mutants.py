"""The list of mutants: each can be tried, and every guarantee has one."""

from __future__ import annotations

import ast
import re
import shlex
from collections import Counter

from tests.mutants import ROOT, Place, Verdict, part, read

MUTANTS = read()
LEAST = 200


def promises() -> list[str]:
    """Return the guarantees of README, by their bold words, and of SECURITY.md, by first cells."""
    found = []
    for file, heading, guarantee in (
        ("README.md", "Guarantees", r"^\d+\. \*\*(.+?)\*\*"),
        ("SECURITY.md", "Guarantees, and the tests that hold them", r"^\| (?!guarantee )(.+?) \|"),
    ):
        text = (ROOT / file).read_text("utf-8")
        section = re.search(rf"^## {heading}$(.*?)^## ", text, re.M | re.S)
        assert section is not None, (file, heading)
        found.append(re.findall(guarantee, section[1], re.M))
    assert all(len(guarantees) >= 5 for guarantees in found)
    return [guarantee for guarantees in found for guarantee in guarantees]


def test_the_number_of_mutants_never_falls() -> None:
    assert len(MUTANTS) >= LEAST


def test_every_change_can_be_made() -> None:
    problems = {mutant.name: mutant.problem(ROOT) for mutant in MUTANTS}
    assert {name: problem for name, problem in problems.items() if problem} == {}


def test_the_parts_of_a_run_are_the_whole() -> None:
    mutants = read()
    parts = [mutants[part(f"{n}/8")] for n in range(1, 9)]
    assert Counter(m.name for some in parts for m in some) == Counter(m.name for m in mutants)


def test_no_two_mutants_are_the_same() -> None:
    for counts in (
        Counter(mutant.name for mutant in MUTANTS),
        Counter((mutant.file, mutant.old, mutant.new) for mutant in MUTANTS),
    ):
        assert [key for key, count in counts.items() if count > 1] == []


def test_every_mutant_says_what_it_breaks_in_a_sentence() -> None:
    for mutant in MUTANTS:
        assert re.fullmatch(r"[A-Za-z_].*\.", mutant.guarantee), mutant.name
        assert re.fullmatch(r"[a-z0-9_]+", mutant.name)


def test_every_named_test_is_there() -> None:
    missing = []
    for test in sorted({word for mutant in MUTANTS for word in shlex.split(mutant.test)}):
        path, _, name = test.partition("[")[0].partition("::")
        if not path.startswith("tests/"):
            continue  # What follows -k.
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        defined = {
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        if name and name not in defined:
            missing.append(test)
    assert missing == []


def test_every_guarantee_has_a_mutant() -> None:
    held = {promise for mutant in MUTANTS for promise in mutant.holds}
    assert [promise for promise in promises() if promise not in held] == []
    assert sorted(held - set(promises())) == [], "no longer a guarantee of README or SECURITY.md"


def test_only_a_test_that_failed_has_noticed() -> None:
    assert Verdict(1, "1 failed, 2 passed in 3.2s", 1.0).is_noticed
    for code, said in (
        (0, "3 passed in 1.0s"),
        (1, "1 error in 2.2s"),  # the setup failed: the change broke more than it should
        (2, "1 error in 0.1s"),  # so did the import
        (5, "no tests ran in 0.01s"),
        (-9, "no answer in 300 seconds"),
    ):
        assert not Verdict(code, said, 1.0).is_noticed


def test_a_server_that_is_not_here_is_told_apart() -> None:
    assert Place("", False).is_here
    assert not Place("1", False).is_here
