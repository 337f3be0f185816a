"""What attaching writes is shown, so that a reviewer sees what a change of the generator does."""

from __future__ import annotations

from pathlib import Path

from tests import generated
from tests.conftest import Database

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "generated.md"


def test_the_generated_code_that_is_shown_is_current(empty_db: Database) -> None:
    assert DOCUMENT.read_text("utf-8") == generated.markdown(empty_db.dsn), "run make reference"
