"""What detect and attach make of each schema, held to what an expert says: tests/truth.py.

Each check is a test of its own, so that their number tells how far detection is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo
from pytest_postgresql.executors import NoopExecutor
from pytest_postgresql.janitor import DatabaseJanitor

from tests import schemas, truth
from tests.conftest import address


def checks() -> list[Any]:
    """Return each check of each schema; one that is known to fail must fail."""
    return [
        pytest.param(
            name,
            check,
            id=f"{name}-{re.sub(r'[^0-9A-Za-z]+', '_', check)}",
            marks=[pytest.mark.xfail(strict=True)] if check in truth.read(name).known else [],
        )
        for name in truth.NAMES
        for check in truth.read(name).checks()
    ]


@pytest.fixture(scope="module")
def outcome(template: NoopExecutor) -> Callable[[str], truth.Outcome]:
    """What came of a schema, which is built and played once."""
    known: dict[str, truth.Outcome] = {}

    def of(name: str) -> truth.Outcome:
        if name not in known:
            known[name] = built(template, name)
        return known[name]

    return of


def built(template: NoopExecutor, name: str) -> truth.Outcome:
    """Build and play a schema in a database of its own, which is dropped."""
    dbname = f"{template.dbname}_truth"
    with DatabaseJanitor(
        user=template.user, host=template.host, port=template.port, dbname=dbname,
        template_dbname=template.template_dbname, password=address["password"],
    ):  # fmt: skip
        base = make_conninfo("", host=template.host, port=template.port, dbname=dbname)
        superuser = make_conninfo(base, user=template.user, password=address["password"])
        owner = make_conninfo(base, user="app_owner", password="secret")
        return truth.play(truth.read(name), superuser, owner)


@pytest.mark.parametrize(("name", "check"), checks())
def test_what_an_expert_says_of_a_schema_holds(
    outcome: Callable[[str], truth.Outcome], name: str, check: str
) -> None:
    fault = outcome(name).faults[check]
    assert fault is None, fault


@pytest.mark.parametrize("name", truth.NAMES)
def test_a_known_fault_is_a_check_of_its_schema(name: str) -> None:
    assert truth.read(name).known <= set(truth.read(name).checks())


def test_every_schema_has_its_truth() -> None:
    made = sorted(map(truth.ddl, [*(path.stem for path in schemas.HERE.glob("*.sql")),
        *(f"facts/{name}" for name in schemas.FACTS)]))  # fmt: skip
    assert made == sorted(truth.ddl(truth.read(name).schema) for name in truth.NAMES)
