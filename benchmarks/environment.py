"""What numbers depend on: the machine, the server and its settings, versions, and the commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

import auditdb
from benchmarks import packages

ROOT = Path(__file__).resolve().parent.parent


def environment(dsn: str) -> dict[str, Any]:
    """Return what the numbers depend on, of this machine and of a server."""
    with psycopg.connect(dsn) as conn:
        ((version, data),) = conn.execute(
            "select version(), current_setting('data_directory')"
        ).fetchall()
        settings = conn.execute(
            "select name, setting from pg_settings where source not in ('default', 'override') and "
            "name !~ '(director|file|host|lc_|log|timezone|TimeZone|DateStyle|path)' order by name"
        ).fetchall()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "auditdb": auditdb.__version__,
        "commit": commit(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "memory_gb": _memory(),
        "kernel": f"{platform.system()} {platform.release()}",
        "filesystem": filesystem(data),
        "server": version,
        "settings": dict(settings),
        "python": platform.python_version(),
        "psycopg": f"{psycopg.__version__} ({psycopg.pq.__impl__})",
        "packages": packages.versions(),
    }


def load_average() -> list[float] | None:
    """Return how many processes wanted a processor in the last 1, 5 and 15 minutes."""
    return [round(n, 2) for n in os.getloadavg()] if hasattr(os, "getloadavg") else None


def commit() -> str | None:
    """Return the commit of this clone, and whether files differ from it; nothing outside of one."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def filesystem(data: str) -> str | None:
    """Return the file system that a folder of this machine lies on; nothing if it is not here."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return None
    above = {str(Path(data)), *map(str, Path(data).parents)}
    found = [(len(place), kind) for place, kind in mounts if place in above]
    return max(found)[1] if found and Path(data).exists() else None


def _cpu() -> str:
    try:
        known = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        known = None
    return known[1] if known else platform.processor() or platform.machine()


def _memory() -> float | None:
    if not hasattr(os, "sysconf"):
        return None
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
