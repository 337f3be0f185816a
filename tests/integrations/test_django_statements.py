"""Django: a statement of any form, in any transaction, is told who acts; never who does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Database
from tests.integrations import django_setup, django_statements

BINDINGS: dict[str, dict[str, Any]] = {
    "client": {},
    "server": {"OPTIONS": {"server_side_binding": True}},
}


@pytest.fixture(params=BINDINGS)
def binding(request: Any, project: Callable[..., None]) -> str:
    project(**BINDINGS[request.param])
    return str(request.param)


@pytest.fixture
def procedure(django_db: Database) -> None:
    with django_db.connect("app_owner") as conn:
        conn.execute(django_statements.PROCEDURE.encode())
        conn.execute("grant execute on procedure commits to app")


def assert_actors(db: Database) -> int:
    """Check that each event was told who acts, by what its row or target is named."""
    count = 0
    for event in db.events("db_user = 'app'"):
        values = {**(event["old_values"] or {}), **(event["new_values"] or {})}
        name = values.get("name", event["target_id"])
        if event["action"] == "auth.login":
            continue
        who = None if name.startswith("-") else name.split()[0]
        told = None if event["source"] == "sql" else event["actor_id"]
        assert told == who, (event["action"], name, told)
        assert "undone" not in name
        count += 1
    return count


def test_contexts_transactions_and_savepoints(django_db: Database, binding: str) -> None:
    django_statements.scopes()
    assert assert_actors(django_db) == 12


def test_every_form_of_statement(django_db: Database, binding: str, procedure: None) -> None:
    django_statements.forms()
    assert assert_actors(django_db) == 54
    (event,) = django_db.events("new_values ->> 'name' = '7 serializable'")
    assert event["details"]["user_agent"] == "it's 100% \\' \\\" {} ü\n"


def test_rows_that_are_copied_in(django_db: Database, binding: str) -> None:
    django_statements.copies()
    assert assert_actors(django_db) == 1


def test_a_project_on_psycopg2_works_without_psycopg(django_db: Database, procedure: None) -> None:
    entry = django_setup.options(django_db.dsn, "app")
    done = subprocess.run(
        [sys.executable, "-m", "tests.integrations.django_statements"],
        env=django_setup.environment(database=entry), capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("auditdb's commands need psycopg 3") and "pipx" in done.stdout
    assert done.stdout.count("\n") == 1
    assert assert_actors(django_db) == 70


def test_a_quote_in_a_claim_ends_no_literal(django_db: Database, project: Any) -> None:
    import auditdb

    project(OPTIONS={"options": "-c standard_conforming_strings=off"})
    hostile = "\\'; delete from workflow; -- '; delete from workflow; -- %s %(x)s"
    with auditdb.context(actor_id=7, details={"user_agent": hostile}):
        django_statements.rename("7 here")
    assert [e["details"]["user_agent"] for e in django_db.events("source = 'web'")] == [hostile]
    assert django_db.actions("action = 'workflow.deleted'") == []


def test_connections_that_are_open_before_the_app_is_ready(django_db: Database) -> None:
    code = (
        "import django\n"
        "from django.conf import settings\n"
        "from django.db import connection\n"
        "connection.ensure_connection()\n"
        "django.setup()\n"
        "import auditdb\n"
        "from tests.integrations.django_statements import rename\n"
        "with auditdb.context(actor_id=7): rename('7 here')\n"
    )
    entry = django_setup.options(django_db.dsn, "app")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=django_setup.environment(database=entry), capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert assert_actors(django_db) == 1


def test_reads_are_sent_as_they_are(django_db: Database, binding: str) -> None:
    from django.db import connection
    from django.db.models import Case, CharField, Count, Exists, OuterRef, Q, When
    from django.db.models.functions import Cast, Lower, Upper

    import auditdb

    seen: list[str] = []

    def watch(execute: Any, query: Any, params: Any, many: bool, context: Any) -> Any:
        seen.append(query)
        return execute(query, params, many, context)

    from tests.integrations.django_project.shop.models import Workflow

    with auditdb.context(actor_id=7), connection.execute_wrapper(watch):
        assert Workflow.objects.filter(name__contains="w1").count() == 11
        assert Workflow.objects.select_related("organization").order_by("pk")[0].pk == 1
        assert Workflow.objects.filter(pk=1).exists()
        cases = Case(When(Q(pk__in=[1, 2]) & ~Q(name=Upper("name")), then=1), default=2)
        named = Workflow.objects.annotate(n=Lower(Cast("pk", CharField(max_length=9))), c=cases)
        assert named.filter(Exists(Workflow.objects.filter(pk=OuterRef("pk")))).first().n == "1"
        assert Workflow.objects.values("name").annotate(n=Count("pk")).filter(n__gt=9).count() == 0
    assert len(seen) == 5
    assert not [query for query in seen if "auditdb" in query]
