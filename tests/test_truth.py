"""What detect and attach make of each schema, held to what an expert says: tests/truth.py."""

from __future__ import annotations

import pytest
from psycopg.conninfo import make_conninfo
from pytest_postgresql.executors import NoopExecutor
from pytest_postgresql.janitor import DatabaseJanitor

from tests import schemas, truth
from tests.conftest import address


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


@pytest.mark.parametrize("name", truth.NAMES)
def test_what_an_expert_says_of_a_schema_holds(template: NoopExecutor, name: str) -> None:
    told = truth.read(name)
    found = built(template, name).faults
    assert found.keys() == set(told.checks())
    faults = {check: text for check, text in found.items() if text}
    assert {check: text for check, text in faults.items() if check not in told.known} == {}
    # A fault that is mended is known no more.
    assert told.known - faults.keys() == set()


@pytest.mark.parametrize("name", truth.NAMES)
def test_a_known_fault_is_a_check_of_its_schema(name: str) -> None:
    assert truth.read(name).known <= set(truth.read(name).checks())


def test_every_schema_has_its_truth() -> None:
    made = sorted(map(truth.ddl, [*(path.stem for path in schemas.HERE.glob("*.sql")),
        *(f"facts/{name}" for name in schemas.FACTS)]))  # fmt: skip
    assert made == sorted(truth.ddl(truth.read(name).schema) for name in truth.NAMES)
