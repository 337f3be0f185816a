"""The house: modules import one another in one direction, and rooms have no way around the API."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "auditdb").rglob("*.py")
}


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
