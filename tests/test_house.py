"""The house: which module imports which, and how lines and functions of the SQL are cut."""

from __future__ import annotations

import ast
import re
import tomllib
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

from packaging.requirements import Requirement

from tests.conftest import ANY_SERVER, left_out, slow_tests

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "auditdb").rglob("*.py")
}
SQL = sorted(path for path in (ROOT / "sql").rglob("*.sql") if path.parent.name != "migrations")


def imports(path: Path) -> set[str]:
    """Return the modules of auditdb that a module imports, also those it imports in a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) or {node.module}
    return found & MODULES.keys()


def test_no_module_imports_one_that_imports_it() -> None:
    graph = {name: imports(path) - {name} for name, path in MODULES.items()}
    # What the public API offers is not what it imports when a program starts.
    graph["auditdb"] = set()
    assert list(TopologicalSorter(graph).static_order())


def test_only_the_command_line_and_the_demo_use_the_public_api() -> None:
    users = {name for name, path in MODULES.items() if "auditdb" in imports(path)}
    assert {name for name in users if not name.startswith("auditdb.cli")} == {"auditdb.demo"}


def test_every_module_says_what_it_is() -> None:
    for name, path in MODULES.items():
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), name


def functions() -> list[tuple[str, str]]:
    """Return name and body of each function of the SQL, but of those of one line in quotes."""
    forms = r"^as \$\$\n(.*?)\n\$\$;|^return\s(.*?);$(?=\ncomment|\n\n)|^begin atomic\n(.*?)\nend;"
    found = []
    for path in SQL:
        for part in re.split(r"(?m)^create or replace function ", path.read_text("utf-8"))[1:]:
            if body := re.search(forms, part, re.M | re.S):
                found.append((part.partition("(")[0], next(filter(None, body.groups()))))
    return found


def test_lines_of_sql_fit_a_screen_and_hold_nothing_unseen() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*SQL, *(ROOT / "sql" / "migrations").glob("*.sql")]
        for number, line in enumerate(path.read_text("utf-8").split("\n"), 1)
        if len(line) > 100 or not line.isascii() or "\t" in line or line != line.rstrip()
    ]
    assert wrong == []


def test_lines_of_prose_fit_a_screen() -> None:
    wrong = []
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        prose = re.sub(r"(?ms)^ *```.*?^ *```$", "", path.read_text("utf-8"))
        wrong += [
            f"{path.name}: {line[:60]}"
            for line in prose.split("\n")
            if len(line) > 120 and not line.startswith("|")
        ]
    assert wrong == []


def test_no_literal_of_sql_is_joined_that_fits_one_line() -> None:
    wrong = []
    for path in SQL:
        lines = path.read_text("utf-8").split("\n")
        for number, (line, following) in enumerate(pairwise(lines), 1):
            first = re.search(r"(?:^ *| )'(?:[^']|'')*[a-z,.:;] '$", line)
            second = re.match(r" *'(.*)", following)
            if first and second and len(line) - 1 + len(second[1]) <= 100:
                wrong.append(f"{path.relative_to(ROOT)}:{number}")
    assert wrong == []


def test_no_function_is_over_forty_lines_but_those_that_the_architecture_names() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    section = re.search(
        r"^\*\*Functions of more than forty lines\*\*.*?\n\n(.*?)\n\n", text, re.M | re.S
    )
    assert section is not None
    named = re.findall(r"^- `(\w+\.\w+)`", section[1], re.M)
    long = {name for name, body in functions() if body.count("\n") + 1 > 40}
    assert long == set(named)


def test_every_file_and_test_that_the_guide_to_contributing_names_is_there() -> None:
    text = (ROOT / "docs" / "contributing.md").read_text("utf-8")
    named = re.findall(r"`((?:[a-zA-Z_]+/)*[a-zA-Z_]+[.](?:py|sql|toml|md))(?:::(\w+))?`", text)
    assert len(named) > 40
    for name, test in named:
        assert (ROOT / name).is_file(), name
        assert f"def {test}" in (ROOT / name).read_text("utf-8") or not test, test
    for name in re.findall(r"`(test_\w+)`", text):
        assert any(f"def {name}(" in p.read_text("utf-8") for p in ROOT.glob("tests/**/test_*.py"))


def test_a_count_of_one_is_printed_in_the_singular() -> None:
    """`counted` writes the noun; a constant or a limit in a message may stand before a plural."""
    nouns = "|".join(
        "batches bytes changes columns differences events findings leaves members months objects "
        "organisations partitions rows tables tiles times triggers".split()
    )
    fixed = re.compile(r"\{(_[A-Z_]+|limit|within|size|self\.size|older|newer|work)\}")
    count = re.compile(rf"(\{{[^{{}}]+\}}) (?:more |archived )?({nouns})\b")
    wrong = [
        f"{path.name}: {found[0]}"
        for path in sorted((ROOT / "auditdb").rglob("*.py"))
        if path.name != "verify.py"
        for found in count.finditer(path.read_text("utf-8"))
        if not fixed.fullmatch(found[1])
    ]
    assert not wrong


def test_the_pinned_development_tools_are_those_that_the_project_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = (ROOT / "requirements-dev.txt").read_text("utf-8").replace("\\\n", " ").splitlines()
    pinned = {line.split("==")[0]: re.split("[ ;]", line.split("==")[1])[0] for line in lines}
    assert all("--hash=sha256:" in line for line in lines)
    waiting = [*project["dependencies"], *extras["dev"]]
    seen: set[str] = set()
    while waiting:
        needed = Requirement(waiting.pop())
        if needed.name == "auditdb":
            waiting += [other for extra in needed.extras for other in extras[extra]]
            continue
        name = re.sub("[-_.]+", "-", needed.name).lower()
        assert needed.specifier.contains(pinned[name]), f"run make lock: {needed}"
        seen.add(name)
    assert len(seen) > 50


def test_every_test_that_is_said_to_be_slow_is_there() -> None:
    for test in slow_tests():
        file, _, name = test.partition("::")
        name = name.rpartition("::")[2]
        assert f"def {name}(" in (ROOT / file).read_text("utf-8"), test


def test_the_shares_of_the_suite_leave_nothing_out() -> None:
    names = [
        f"tests/{name}" for name in ("test_capture.py::a", "test_dml.py::b", "page/test_a.py::c")
    ]
    tests = [f"{name}[{n}]" for name in names for n in range(7)] + ["tests/test_dml.py::few"]
    left = [left_out(tests, f"{own}/3") for own in (1, 2, 3)]
    assert not set.intersection(*left)
    for out in left:
        assert "tests/test_dml.py::few" not in out and len(out) < len(tests) * 0.7
    every = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")]
    assert all(any(file.startswith(start) for file in every) for start in ANY_SERVER)
