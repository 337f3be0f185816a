"""What somebody hostile, or nobody at all, may name and store: the page shows and stays up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from auditdb import InvalidInput
from auditdb.web import Access
from tests.conftest import Database
from tests.page.conftest import OWNER, fetch, texts

Make = Callable[..., Any]


@pytest.mark.parametrize("organizations", [[None], [""], {None: "Acme"}, {"": "Acme"}, [1, None]])
def test_who_has_no_organization_is_not_one_who_reads_all(organizations: Any) -> None:
    with pytest.raises(InvalidInput, match="organization"):
        Access(viewer_id=OWNER, organizations=organizations, is_staff=True)


def test_what_a_reader_says_of_an_export_is_shown_by_its_codes(site: Make, db: Database) -> None:
    from tests.test_readings import record
    from tests.viewer import sign

    record(db.connect("app_reader"), sign(db.key, OWNER, "1"), "exported",
           '{"events": "7\u202e<b>"}')  # fmt: skip
    (page,) = fetch(site(), "/")
    assert "\u202e" not in page.text and "7\\u202e&lt;b&gt;" in page.text


def test_a_part_of_the_address_that_is_too_long_is_refused(site: Make, db: Database) -> None:
    long = "x" * 50_000
    for path in ("/", "/api/events", "/events.csv"):
        for name in ("text", "action", "zone", "after", "ip", "organization", "within"):
            (answer,) = fetch(site(), f"{path}?{name}={long}")
            assert answer.status_code == 400, name
            assert len(answer.content) < 5_000
    assert not db.connect().execute(
        "select from audit.event where action like 'audit.export%'"
    ).fetchall()  # fmt: skip
