"""The Django project's database, and the project on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from pytest_postgresql import factories

from tests.conftest import Database, _database, address, load_auditdb
from tests.integrations import django_setup

django_template = factories.postgresql_noproc(
    **address, dbname="auditdb_django", load=[load_auditdb, django_setup.load_project]
)
django_opened = factories.postgresql("django_template")


@pytest.fixture
def django_db(django_opened: psycopg.Connection[Any]) -> Iterator[Database]:
    """A database of the project, with its workflows attached."""
    yield from _database(django_opened)


@pytest.fixture
def project(django_db: Database) -> Iterator[Callable[..., None]]:
    """The project in this process, on that database; called, it varies the entry of DATABASES."""
    from contextlib import ExitStack

    django_setup.set_up()
    with ExitStack() as stack:

        def vary(user: str = "app", **entry: Any) -> None:
            given = django_setup.options(django_db.dsn, user, **entry)
            stack.enter_context(django_setup.using(given))

        vary()
        yield vary
