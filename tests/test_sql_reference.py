"""The reference of SQL names every object of the schema audit, as it is."""

from __future__ import annotations

from pathlib import Path

from tests import sql_reference
from tests.conftest import Database

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "sql.md"


def test_the_sql_reference_is_current(empty_db: Database) -> None:
    assert DOCUMENT.read_text("utf-8") == sql_reference.markdown(empty_db.dsn), "run make reference"


def test_the_sql_reference_names_every_object(empty_db: Database) -> None:
    names = empty_db.connect().execute(
        """select 'audit.' || relname from pg_class where relnamespace = 'audit'::regnamespace
               and relkind in ('r', 'p', 'v') and not relispartition
           union all
           select 'audit.' || proname || '()' from pg_proc
           where pronamespace = 'audit'::regnamespace
           union all select '- `' || rolname || '`' from pg_roles where rolname ~ '^audit_'"""
    )
    text = DOCUMENT.read_text("utf-8")
    missing = [name for (name,) in names if f"### {name}\n" not in text and f"{name} " not in text]
    assert missing == []
