"""The packages that auditdb is compared with, installed through their own code.

They come with the extra `bench`. Each install runs in a process of its own: ORMs keep global
registries.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

NAMES = ("postgresql-audit", "auditrum", "django-pghistory", "django-auditlog")
# What django-auditlog's log is made of.
AUDITLOG_APPS = ("contenttypes", "auth", "auditlog")


def versions() -> dict[str, str]:
    """Return the version of each package that is installed."""
    found = {}
    for name in NAMES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def installed() -> bool:
    """Whether all of them are."""
    return len(versions()) == len(NAMES)


def _run(module: str, dsn: str, *options: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", f"benchmarks.packages.{module}", dsn, *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{module} failed (pip install -e '.[bench]'?)\n{done.stderr[-1500:]}")


def postgresql_audit_rows(dsn: str) -> None:
    """Install postgresql-audit with row-level triggers."""
    _run("install_postgresql_audit", dsn, "rows")


def postgresql_audit_statements(dsn: str) -> None:
    """Install postgresql-audit with statement-level triggers, its default."""
    _run("install_postgresql_audit", dsn, "statements")


def auditrum(dsn: str) -> None:
    """Install auditrum with its default options."""
    _run("install_auditrum", dsn)


def pghistory(dsn: str) -> None:
    """Install django-pghistory's tables and its row-level triggers for every operation."""
    _run("install_pghistory", dsn)


def auditlog(dsn: str) -> None:
    """Install django-auditlog's table, and those that it refers to."""
    _run("install_auditlog", dsn)
