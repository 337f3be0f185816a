"""Reconciles what a test wrote, and says what was found."""

from __future__ import annotations

from auditdb.cli.reconcile import describe
from auditdb.reconcile import reconcile
from tests.conftest import Database


def differences(db: Database, table: str | None = None, role: str | None = None) -> list[str]:
    """Return every difference between attached tables and their log, as sentences."""
    conn = db.connect(role)
    found = []
    for made in reconcile(conn, table):
        found += [f"{made.table}: {describe(d)}" for d in made.differences]
        if made.skipped:
            found.append(f"{made.table}: {made.skipped}")
    conn.close()
    return found
