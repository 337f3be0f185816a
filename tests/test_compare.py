"""docs/compare.md: its numbers are those that were measured, and it leaves no project out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.report import comparison

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "compare.md").read_text("utf-8")
OTHERS = {
    "supa_audit", "audit-trigger", "pgMemento", "django-pghistory", "django-auditlog",
    "postgresql-audit", "auditrum", "pgaudit", "Bemi", "WorkOS", "Retraced", "Azure SQL Ledger",
}  # fmt: skip


def measured(name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((DOCS / name).read_text("utf-8"))
    return result


def test_numbers_are_those_that_were_measured() -> None:
    for table in comparison(measured("compare.json")).split("\n\n"):
        assert table in PAGE
    ratios, sizes = comparison(measured("compare-15.json"), ("supa_audit",)).split("\n\n")
    assert ratios in PAGE and sizes in PAGE


def test_every_project_is_named_where_it_was_looked_at_and_what_it_does_better() -> None:
    better = re.search(r"^## What each does better.*?(?=^## )", PAGE, re.M | re.S)
    looked_at = re.search(r"^## What was looked at\n.*", PAGE, re.M | re.S)
    assert better is not None and looked_at is not None
    assert set(re.findall(r"^- \*\*(.+?)\*\*:", better[0], re.M)) == OTHERS
    named = re.findall(r"^\| \[(.+?)(?: Audit Logs)?\]\(https://", looked_at[0], re.M)
    assert set(named) == OTHERS


def test_each_row_of_a_table_of_features_has_a_cell_for_each_project() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", PAGE, re.M):
        assert len({line.count("|") for line in table.strip().split("\n")}) == 1
