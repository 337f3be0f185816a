"""Django: commands, migrations, settings and tasks of a project."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import auditdb
from auditdb.write.scope import current_claim
from tests.conftest import Database
from tests.integrations import django_setup
from tests.integrations.test_django import client, new_user, renames

Project = Callable[..., None]


@pytest.fixture
def settings() -> Iterator[Callable[..., None]]:
    """What a test says in AUDITDB."""
    from django.test import override_settings

    django_setup.set_up()
    changes: list[Any] = []

    def change(**given: Any) -> None:
        changes.append(override_settings(AUDITDB=given))
        changes[-1].enable()

    yield change
    for override in reversed(changes):
        override.disable()


def with_tenant(request: Any) -> dict[str, Any] | None:
    from auditdb.integrations.django import get_context

    if "HTTP_X_NONE" in request.META:
        return None
    said = get_context(request) or {}
    return {**said, "organization_id": 5, "details": {**said["details"], "tenant": "acme"}}


def broken(request: Any) -> dict[str, Any]:
    from auditdb.integrations.django import known_user

    if known_user(request).is_authenticated:
        raise KeyError("tenant")
    return {"source": "web"}


def test_a_project_says_what_its_requests_say(
    django_db: Database, project: Project, settings: Callable[..., None]
) -> None:
    ann = new_user("ann")
    settings(GET_CONTEXT=f"{__name__}.with_tenant", EVENTS=["logout"])
    client(ann).post("/rename/1/", {"name": "a"})
    client(ann, HTTP_X_NONE="1").post("/rename/1/", {"name": "b"})
    first, second = renames(django_db)
    assert (first["actor_id"], first["details"]["tenant"]) == (str(ann.pk), "acme")
    assert (second["actor_id"], second["source"]) == (None, "web")
    assert django_db.actions("action like 'auth%'") == []


def test_a_get_context_that_fails_is_seen_before_the_view_and_stops_no_statement(
    django_db: Database, project: Project, settings: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    ann = new_user("ann")
    settings(GET_CONTEXT=f"{__name__}.broken")
    assert client(ann).post("/rename/1/", {"name": "a"}).status_code == 500
    signing_in = client().post("/login/", {"username": "ann", "password": "hunter2"})
    assert signing_in.content == b"done"
    assert "GET_CONTEXT'] failed" in caplog.text
    assert [event["actor_id"] for event in renames(django_db)] == [None]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"PROXY": 1}, "AUDITDB has no 'PROXY'. Did you mean 'PROXIES'?"),
        ({"EVENTS": ["sign_in"]}, "holds 'sign_in'"),
        ({"EVENTS": "login"}, "AUDITDB['EVENTS'] is 'login'; it is a list: ['login']"),
        ({"DATABASES": ["replica"]}, "holds 'replica'; it may hold default"),
        ({"DATABASES": "default"}, "it is a list: ['default']"),
        ({"PROXIES": "1"}, "AUDITDB['PROXIES'] is '1'; it is a number, such as 1"),
        ({"PROXIES": -1}, "AUDITDB['PROXIES'] is -1; it is a number"),
        ({"ATTACH": "False"}, "AUDITDB['ATTACH'] is 'False'; it is True or False"),
        ({"GET_CONTEXT": "shop.no"}, "it is the path of a function, such as 'shop.audit.get_co"),
        ({"GET_CONTEXT": broken}, "it is the path of a function"),
        ({"GET_CONTEXT": "tests.conftest"}, "which is not a function"),
        ("x", "AUDITDB is a dict"),
    ],
)
def test_settings_that_are_none_are_an_error_of_manage_py_check(given: Any, said: str) -> None:
    from django.core import checks
    from django.test import override_settings

    django_setup.set_up()
    with override_settings(AUDITDB=given):
        errors = [found for found in checks.run_checks() if found.id == "auditdb.E001"]
    assert len(errors) == 1 and said in errors[0].msg


def test_a_project_without_the_middleware_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.core import checks
    from django.test import override_settings

    django_setup.set_up()
    from auditdb.integrations.django.middleware import AuditMiddleware

    derived = type("Derived", (AuditMiddleware,), {})
    monkeypatch.setattr(sys.modules[__name__], "Derived", derived, raising=False)

    def warnings() -> list[Any]:
        return [found for found in checks.run_checks() if found.id == "auditdb.W001"]

    assert warnings() == []
    with override_settings(MIDDLEWARE=[f"{__name__}.Derived"]):
        assert warnings() == []
    with override_settings(MIDDLEWARE=["django.middleware.common.CommonMiddleware", "no.such"]):
        (warning,) = warnings()
    assert "AuditMiddleware" in warning.msg and "behind AuthenticationMiddleware" in warning.hint


def test_the_middleware_without_the_app_says_so() -> None:
    from django.core.exceptions import ImproperlyConfigured
    from django.test import override_settings

    django_setup.set_up()
    from auditdb.integrations.django.middleware import AuditMiddleware

    with (
        override_settings(INSTALLED_APPS=["django.contrib.contenttypes"]),
        pytest.raises(ImproperlyConfigured, match=r"INSTALLED_APPS \+= \['auditdb.integrations"),
    ):
        AuditMiddleware(lambda request: None)


@pytest.mark.parametrize(
    ("proxies", "forwarded", "ip"),
    [
        (0, "192.0.2.1", "127.0.0.1"),
        (1, "192.0.2.66, 192.0.2.1", "192.0.2.1"),
        (2, "192.0.2.66, 192.0.2.1, 192.0.2.2", "192.0.2.1"),
        (2, "192.0.2.1", "192.0.2.1"),
        (1, "", "127.0.0.1"),
    ],
)
def test_an_address_is_what_the_project_s_own_proxies_saw(
    proxies: int, forwarded: str, ip: str, settings: Callable[..., None]
) -> None:
    from django.test import RequestFactory

    from auditdb.integrations.django import get_context

    settings(PROXIES=proxies)
    request = RequestFactory().get("/", HTTP_X_FORWARDED_FOR=forwarded)
    assert (get_context(request) or {})["details"]["ip"] == ip


def test_what_a_client_sends_is_cut_and_has_no_control_characters(
    settings: Callable[..., None],
) -> None:
    from django.test import RequestFactory

    from auditdb.integrations.django import get_context

    settings()
    request = RequestFactory().get("/", HTTP_USER_AGENT="\0\n" * 999, HTTP_X_REQUEST_ID="x" * 999)
    details = (get_context(request) or {})["details"]
    assert details == {
        "ip": "127.0.0.1", "user_agent": "?" * 300, "request_id": "x" * 200, "method": "GET",
    }  # fmt: skip


def test_databases_that_are_not_chosen_are_left_alone(
    django_db: Database, project: Project, settings: Callable[..., None]
) -> None:
    settings(DATABASES=["other"])
    project()
    with auditdb.context(actor_id=7):
        from tests.integrations.django_statements import rename

        rename("x")
    assert [event["source"] for event in renames(django_db)] == ["sql"]


def test_commands_act_as_the_system_by_the_command_line(
    django_db: Database, project: Project
) -> None:
    from django.core.management import call_command
    from django.core.management.base import BaseCommand

    from tests.integrations.django_statements import rename

    class Command(BaseCommand):
        stealth_options = ("name",)

        def handle(self, *args: Any, **options: Any) -> None:
            rename(options["name"])

    call_command(Command(), name="a")
    with auditdb.context(actor_id=7, source="api"):
        call_command(Command(), name="b")
    assert current_claim() is None
    first, second = renames(django_db)
    assert (first["actor_type"], first["actor_id"], first["source"]) == ("system", None, "cli")
    assert first["details"]["command"] == "test_django_project"
    assert (second["actor_id"], second["source"]) == ("7", "api")
    assert second["details"]["command"] == "test_django_project"


def run(*arguments: str) -> str:
    from django.core.management import call_command

    with redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as ended:
        call_command("auditdb", *arguments)
    assert ended.value.code == 0
    return out.getvalue()


def test_manage_py_hands_on_to_the_command_line(
    django_db: Database, project: Project, tmp_path: Path
) -> None:
    project("app_owner")
    mapping = run("detect")
    assert "auth_user" in mapping
    run("attach", "organization", "organization")
    assert "organization" in run("status", "--json")
    entry = django_setup.options(django_db.dsn, "app_owner")
    manage = [sys.executable, "-m", "django"]
    environment = django_setup.environment(database=entry)
    done = subprocess.run([*manage, "auditdb", "--database=other", "status"], env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1 and "'other' is not PostgreSQL" not in done.stdout
    assert "not PostgreSQL" in done.stderr
    done = subprocess.run([*manage, "auditdb", "doctor", "--json"], env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout.startswith("{"), done.stderr


def test_a_migration_attaches_and_detaches(django_db: Database, project: Project) -> None:
    from django.core.management import call_command

    project("app_owner")

    def attached() -> bool:
        with django_db.connect() as conn:
            row = conn.execute(
                "select exists (select from pg_trigger where tgrelid = 'workflow'::regclass "
                "and tgname like 'auditdb%')"
            ).fetchone()
        return row == (True,)

    assert attached()
    with redirect_stdout(io.StringIO()) as out:
        call_command("sqlmigrate", "shop", "0001")
    assert "select audit.attach('\"workflow\"'::pg_catalog.regclass, 'workflow'" in out.getvalue()
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    migration = executor.loader.get_migration("shop", "0001_initial")
    operation = migration.operations[-1]
    state = executor.loader.project_state(("shop", "0001_initial"))
    with connection.schema_editor() as editor:
        operation.database_backwards("shop", editor, state, state)
    assert not attached()
    with connection.schema_editor() as editor:
        operation.database_forwards("shop", editor, state, state)
    assert attached()
    assert operation.describe() == "Keep an audit log of shop.Workflow as workflow"
    from django.db.migrations.writer import OperationWriter

    text, imports = OperationWriter(operation, indentation=0).serialize()
    assert "kind='workflow'" in text and "organization='organization_id'" in text
    assert imports == {"import auditdb.integrations.django.operations"}


def test_a_migration_says_where_auditdb_is_missing(empty_db: Database, project: Project) -> None:
    from django.core.management import call_command

    with empty_db.connect() as conn:
        conn.execute("drop schema audit, audit_private cascade")
    project(**django_setup.options(empty_db.dsn, "app_owner"))
    with pytest.raises(auditdb.Refused, match=r"manage.py auditdb install; or set AUDITDB"):
        call_command("migrate", verbosity=0)


def test_an_attach_that_is_refused_says_why_in_a_line(
    django_db: Database, project: Project
) -> None:
    project("app_owner")
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    from auditdb.integrations.django.operations import Attach

    state = MigrationExecutor(connection).loader.project_state(("shop", "0001_initial"))

    def refusal(**options: Any) -> str:
        operation = Attach("shop.Workflow", **options)
        with pytest.raises(auditdb.Refused) as refused, connection.schema_editor() as editor:
            operation.database_forwards("shop", editor, state, state)
        return str(refused.value)

    misspelt = refusal(kind="workflow", organization="organisation_id")
    assert misspelt.startswith('"workflow" cannot be attached as workflow: ')
    assert "organisation_id" in misspelt and "\n" not in misspelt and "PL/pgSQL" not in misspelt
    with pytest.raises(TypeError, match=r"ignore is a list of columns: ignore=\['name'\]"):
        Attach("shop.Workflow", kind="workflow", ignore="name")


def test_a_mapping_that_is_not_there_is_named(
    django_db: Database, project: Project, settings: Callable[..., None], tmp_path: Path
) -> None:
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import call_command

    settings(MAPPING=tmp_path / "no.toml")
    project("app_owner")
    with pytest.raises(ImproperlyConfigured, match=r"cannot read .*no.toml: No such file.*detect"):
        call_command("migrate", verbosity=0)


def test_migrate_attaches_what_a_mapping_names(
    django_db: Database, project: Project, settings: Callable[..., None], tmp_path: Path
) -> None:
    from django.core.management import call_command

    file = tmp_path / "auditdb.toml"
    file.write_text('[[table]]\nname = "public.organization"\nkind = "organization"\n')
    settings(MAPPING=file)
    project("app_owner")
    with redirect_stdout(io.StringIO()) as out:
        call_command("migrate")
        call_command("migrate")
    assert out.getvalue().count("attach    public.organization as organization") == 1


@pytest.fixture
def celery() -> Iterator[Any]:
    """An app of Celery whose broker is this process's memory, and what its tasks saw."""
    from celery import Celery

    django_setup.set_up()
    app = Celery("project", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.seen = []

    @app.task(name="renames", shared=False)
    def renames(name: str) -> None:
        from tests.integrations.django_statements import rename

        rename(name)

    @app.task(name="publishes", shared=False)
    def publishes(name: str) -> None:
        renames.delay(name)

    app.renames, app.publishes = renames, publishes
    yield app
    app.close()


def test_tasks_act_as_who_published_them(
    django_db: Database, project: Project, celery: Any
) -> None:
    from celery.contrib.testing.worker import start_worker

    with start_worker(celery, pool="solo", perform_ping_check=False):
        with auditdb.context(actor_id=7, impersonator_id=1, details={"ip": "192.0.2.1"}):
            celery.renames.delay("ann's").get(timeout=10, disable_sync_subtasks=False)
            celery.publishes.delay("ann's, of a task").get(timeout=10)
        celery.renames.delay("nobody's").get(timeout=10)
    with auditdb.context(actor_id=8, source="api"):
        celery.renames.apply(["at once"])
    by_name = {event["new_values"]["name"]: event for event in renames(django_db)}
    for name in ("ann's", "ann's, of a task"):
        event = by_name[name]
        assert (event["actor_id"], event["impersonator_id"]) == ("7", "1")
        assert event["source"] == "system"
        assert (event["details"]["ip"], event["details"]["task"]) == ("192.0.2.1", "renames")
    nobody = by_name["nobody's"]
    assert (nobody["actor_type"], nobody["actor_id"]) == ("system", None)
    assert by_name["at once"]["actor_id"] == "8"
    assert current_claim() is None


def test_a_task_that_runs_twice_at_a_time_leaves_no_actor_behind(celery: Any) -> None:
    from celery.contrib.testing.worker import start_worker

    both = threading.Barrier(2, timeout=10)

    @celery.task(name="meets", shared=False)
    def meets() -> None:
        both.wait()

    @celery.task(name="asks", shared=False)
    def asks() -> str | None:
        both.wait()
        claim = current_claim()
        return None if claim is None else claim.actor_id

    with start_worker(celery, pool="threads", concurrency=2, perform_ping_check=False):
        with auditdb.context(actor_id=7):
            # As of a broker that waited for too long.
            twice = [meets.apply_async(task_id="the same") for _ in range(2)]
        twice[0].get(timeout=10)
        asked = [asks.delay() for _ in range(2)]
        assert [one.get(timeout=10) for one in asked] == [None, None]


def test_factors_and_addresses_are_told_where_no_table_is_attached(
    django_db: Database, project: Project, settings: Callable[..., None]
) -> None:
    from allauth.account import signals as account
    from allauth.mfa import signals as mfa
    from django.test import RequestFactory

    class Of:
        def __init__(self, **given: Any) -> None:
            vars(self).update(given)

    request, ann = RequestFactory().get("/"), new_user("ann")

    def send() -> None:
        for kind in ("totp", "recovery_codes"):
            factor = Of(type=kind)
            for signal in (
                mfa.authenticator_added, mfa.authenticator_used, mfa.authenticator_removed,
            ):  # fmt: skip
                signal.send(sender=None, request=request, user=ann, authenticator=factor)
        mfa.authentication_failed.send(
            sender=None, request=request, user=ann, authenticator=Of(type="totp")
        )
        account.email_changed.send(
            sender=None, request=request, user=ann, from_email_address=Of(email="a@acme.test"),
            to_email_address=Of(email="b@acme.test"),
        )  # fmt: skip
        account.password_changed.send(sender=None, request=request, user=ann)

    send()
    assert django_db.actions("action like 'auth%'") == ["auth.recovery_code_used", "auth.login"]
    settings(EVENTS=["email", "password", "two_factor"])
    send()
    assert django_db.actions("action like 'auth%'")[2:] == [
        "auth.two_factor_enabled", "auth.two_factor_disabled", "auth.email_changed",
        "auth.password_changed",
    ]  # fmt: skip
