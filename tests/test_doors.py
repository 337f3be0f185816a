"""Doors: what is public, what it costs to load, and what an application without psycopg can use."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import auditdb
from auditdb import archive, evidence, export, operator
from auditdb.cli import main

WITHOUT_PSYCOPG = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("psycopg", "psycopg_binary"):
            raise ImportError(f"no pq wrapper available: {name}")

sys.meta_path.insert(0, Blocked())
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("module", [auditdb, operator, export, evidence, archive])
def test_each_public_name_is_there_and_documented(module: object) -> None:
    for name in module.__all__:  # type: ignore[attr-defined]
        assert inspect.getdoc(getattr(module, name)), name
    with pytest.raises(AttributeError, match="has no attribute 'instal'"):
        module.instal  # type: ignore[attr-defined]  # noqa: B018


def test_what_the_command_line_can_do_python_can() -> None:
    done_by = {
        "install": "install", "uninstall": "uninstall", "sql": "script", "status": "status",
        "key": "create_key", "maintain": "maintain", "doctor": "diagnose", "detect": "detect",
        "attach": "apply", "detach": "detach", "record": "record", "log": "reader",
        "export": "Exporter", "subscription": "create_subscription", "reconcile": None,  # a package
        "hold": "hold_organization", "visible": "limit_visibility",
        "demo": None, "serve": None,  # auditdb.web.app, for a process of one's own
        "seal": "Sealer", "verify": "Verifier", "prove": "Bundler", "bundle": "Bundler",
        "erase": "erase", "access": "personal_lines", "archive": "Archiver", "restore": "restore",
        "query": "opened",
        "publish": "publish_log", "collect": "collect_source",
    }  # fmt: skip
    assert set(done_by) == set(main.commands)
    for name in filter(None, done_by.values()):
        assert any(
            callable(getattr(m, name, None)) for m in (operator, auditdb, export, evidence, archive)
        ), name


def test_an_application_without_psycopg_can_import_and_claim() -> None:
    done = python(
        WITHOUT_PSYCOPG + "import auditdb\n"
        "with auditdb.context(actor_id=7): event = auditdb.auth.login(7)\n"
        "print(event.action, 'psycopg' in sys.modules)"
    )
    assert (done.stdout, done.stderr) == ("auth.login False\n", "")


def test_the_command_line_without_psycopg_says_in_a_line_what_to_install() -> None:
    done = python(WITHOUT_PSYCOPG + "import runpy; runpy.run_module('auditdb')")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert (
        line.startswith("Error: the commands of auditdb need psycopg 3") and "pipx install" in line
    )


def test_to_load_the_package_loads_no_driver_and_no_tool() -> None:
    done = python(
        "import sys, auditdb; print(*sorted({'psycopg', 'psycopg2', 'asyncpg', 'yoyo', 'rich', "
        "'click', 'tomlkit', 'tomllib'} & set(sys.modules)))"
    )
    assert done.stdout == "\n"
