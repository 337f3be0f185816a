"""Django: every statement of a project is told who acts, whatever its connection is like."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import auditdb
from auditdb import auth
from tests.conftest import Database
from tests.integrations import django_setup
from tests.pooler import pooler

Project = Callable[..., None]
WAYS: dict[str, dict[str, Any]] = {
    "autocommit": {},
    "atomic": {"ATOMIC_REQUESTS": True},
    "persistent": {"CONN_MAX_AGE": None},
    "server-side binding": {"OPTIONS": {"server_side_binding": True}},
    "both": {"ATOMIC_REQUESTS": True, "OPTIONS": {"server_side_binding": True}},
    "pool": {"OPTIONS": {"pool": {"min_size": 1, "max_size": 24}}},
}


@pytest.fixture(params=WAYS)
def way(request: Any, project: Project) -> str:
    import django

    if request.param == "pool" and django.VERSION < (5, 1):
        pytest.skip("Django has no pool before 5.1")
    project(**WAYS[request.param])
    return str(request.param)


def new_user(name: str, **fields: Any) -> Any:
    from django.contrib.auth import get_user_model

    return get_user_model().objects.create_user(name, password="hunter2", **fields)


def client(user: Any = None, **headers: Any) -> Any:
    from django.test import Client

    made = Client(raise_request_exception=False, **headers)
    if user is not None:
        made.force_login(user)
    return made


def told(db: Database) -> list[dict[str, Any]]:
    """Return the events since the project's rows were made."""
    return db.events("action <> 'workflow.created' or result <> 'success'")


def renames(db: Database) -> list[dict[str, Any]]:
    return db.events("action = 'workflow.modified'")


def test_a_request_acts_as_its_user(django_db: Database, way: str) -> None:
    ann = new_user("ann")
    before = client(HTTP_USER_AGENT="Mozilla/5.0 'quoted' 100% \\ ü", HTTP_X_REQUEST_ID="r-1")
    before.post("/rename/2/", {"name": "nobody's"})
    signed_in = client(ann, HTTP_USER_AGENT="Mozilla/5.0 'quoted' 100% \\ ü", REMOTE_ADDR="::1")
    signed_in.post("/rename/1/?token=hunter2", {"name": "ann's %s"})
    first, second = renames(django_db)
    assert (first["actor_id"], first["source"]) == (None, "web")
    assert {**first["details"], "client_addr": None} == {
        "ip": "127.0.0.1", "user_agent": "Mozilla/5.0 'quoted' 100% \\ ü", "request_id": "r-1",
        "method": "POST", "route": "rename/<int:pk>/", "client_addr": None,
    }  # fmt: skip
    assert (second["actor_id"], second["actor_type"]) == (str(ann.pk), "user")
    assert second["details"]["ip"] == "::1"
    assert second["new_values"]["name"] == "ann's %s"


def test_a_request_that_only_reads_acts_as_the_user_it_looked_at(
    django_db: Database, way: str
) -> None:
    ann = new_user("ann")
    client(ann).get("/rename-get/1/?name=a&look=1")
    client(ann).get("/rename-get/1/?name=b")
    first, second = renames(django_db)
    # Never a query for the user inside of a query: rather no actor.
    assert (first["actor_id"], second["actor_id"]) == (str(ann.pk), None)


def test_a_view_that_fails_rolls_back_as_it_would(django_db: Database, project: Project) -> None:
    ann = new_user("ann")
    assert client(ann).post("/fail/1/", {"name": "kept"}).status_code == 500
    project(ATOMIC_REQUESTS=True)
    assert client(ann).post("/fail/1/", {"name": "lost"}).status_code == 500
    assert [event["new_values"]["name"] for event in renames(django_db)] == ["kept"]


def test_a_body_that_is_made_later_acts_as_the_user(django_db: Database, way: str) -> None:
    ann = new_user("ann")
    bodies = []
    signed_in = client(ann)
    signed_in.post("/rename/2/", {"name": "x"})
    response = signed_in.get("/stream/1/?name=ann")
    other = client()
    parts = iter(response.streaming_content)
    bodies.append(next(parts))
    # Somebody else's request between two parts.
    other.post("/rename/3/", {"name": "y"})
    bodies += parts
    response.close()
    assert bodies == [b"one", b"two"]
    assert auditdb.write.scope.current_claim() is None
    by_name = {event["new_values"]["name"]: event for event in renames(django_db)}
    assert (by_name["ann"]["actor_id"], by_name["y"]["actor_id"]) == (str(ann.pk), None)
    # What the body opened before its first part.
    assert by_name["ann"]["source"] == "stream"


def test_async_views_and_streams_act_as_their_users(django_db: Database, way: str) -> None:
    if way in ("atomic", "both"):
        pytest.skip("Django has no ATOMIC_REQUESTS with async views")
    from asgiref.sync import sync_to_async
    from django.test import AsyncClient

    users = [new_user(f"user{n}") for n in range(5)]

    async def act(user: Any, number: int) -> None:
        made = AsyncClient()
        await sync_to_async(made.force_login)(user)
        for _ in range(3):
            await made.post(f"/rename-async/{number}/", {"name": str(user.pk)})
        response = await made.get(f"/stream-async/{number}/?name=s{user.pk}")
        assert [part async for part in response.streaming_content] == [b"one", b"two"]
        await made.post(f"/rename/{number}/", {"name": str(user.pk)})

    async def main() -> None:
        from django.db import connections

        await asyncio.gather(*(act(user, n) for n, user in enumerate(users, 1)))
        await sync_to_async(connections.close_all)()

    asyncio.run(main())
    events = renames(django_db)
    assert len(events) == 15
    for event in events:
        assert event["actor_id"] == event["new_values"]["name"].removeprefix("s")
        is_of_stream = event["new_values"]["name"].startswith("s")
        assert event["source"] == ("stream" if is_of_stream else "web")


def test_threads_act_each_as_its_own_user(django_db: Database, way: str) -> None:
    act_in_threads()
    assert_no_wrong_actor(django_db)


def test_behind_a_pooler_each_acts_as_its_own_user(
    django_db: Database, project: Project, server: Any
) -> None:
    with pooler(server, size=3) as port:
        project(PORT=str(port), HOST="127.0.0.1", DISABLE_SERVER_SIDE_CURSORS=True)
        act_in_threads()
        from django.db import connections

        connections.close_all()
    assert_no_wrong_actor(django_db)


def act_in_threads() -> None:
    from django.db import connections, transaction

    from tests.integrations.django_project.shop.models import Workflow

    users = [new_user(f"user{n}") for n in range(20)]
    failures: list[BaseException] = []
    start = threading.Barrier(len(users))

    def act(number: int, user: Any) -> None:
        try:
            made = client(user)
            start.wait()
            for _ in range(3):
                response = made.post(f"/rename/{number}/", {"name": f"{user.pk} {_}"})
                assert response.content == b"done"
                with auditdb.context(actor_id=user.pk):
                    Workflow.objects.filter(pk=number).update(name=f"{user.pk} by update {_}")
                    with transaction.atomic():
                        Workflow.objects.filter(pk=number).update(name=f"{user.pk} in block {_}")
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=act, args=pair) for pair in enumerate(users, 1)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def assert_no_wrong_actor(db: Database) -> None:
    events = renames(db)
    assert len(events) == 180
    for event in events:
        assert event["actor_id"] == event["new_values"]["name"].split()[0]


def test_rest_framework_s_user_is_known_late(django_db: Database, way: str) -> None:
    from rest_framework.authtoken.models import Token

    ann, bob = new_user("ann"), new_user("bob")
    token = Token.objects.create(user=bob)
    # The session is ann's, the token bob's.
    made = client(ann, HTTP_AUTHORIZATION=f"Token {token.key}")
    assert made.post("/api/rename/1/", {"name": "by token"}).status_code == 200
    client(ann).post("/api/rename/1/", {"name": "by session"})
    first, second = renames(django_db)
    assert (first["actor_id"], first["source"]) == (str(bob.pk), "api")
    assert (second["actor_id"], second["source"]) == (str(ann.pk), "web")
    assert token.key not in str(django_db.events())


def test_who_signs_in_acts_from_then_on(django_db: Database, way: str) -> None:
    ann = new_user("ann")
    made = client(HTTP_USER_AGENT="Mozilla")
    made.post("/login/", {"username": "ann", "password": "wrong"})
    made.post("/login/", {"username": "eve", "password": "wrong"})
    made.post("/login/", {"username": "ann", "password": "hunter2"})
    made.post("/logout/")
    wrong, unknown, login, rename, logout = told(django_db)
    assert (wrong["action"], wrong["result"]) == ("auth.login", "failure")
    assert wrong["subject_id"] == str(ann.pk)
    assert (unknown["subject_id"], unknown["details"]["username"]) == (None, "eve")
    assert (login["action"], login["result"]) == ("auth.login", "success")
    assert login["actor_id"] == login["subject_id"] == str(ann.pk)
    assert login["details"]["user_agent"] == "Mozilla"
    assert (rename["action"], rename["actor_id"]) == ("workflow.modified", str(ann.pk))
    assert (logout["action"], logout["actor_id"]) == ("auth.logout", str(ann.pk))


def test_who_is_impersonated_is_told_from_who_does_it(django_db: Database, way: str) -> None:
    admin, ann = new_user("admin", is_superuser=True, is_staff=True), new_user("ann")
    made = client(admin)
    made.post("/hijack/acquire/", {"user_pk": ann.pk})
    made.post("/rename/1/", {"name": "as ann"})
    made.post("/hijack/release/")
    made.post("/rename/1/", {"name": "as admin"})
    seen = [
        (event["action"], event["actor_id"], event["impersonator_id"], event["subject_id"])
        for event in told(django_db)
    ]
    who, whom = str(admin.pk), str(ann.pk)
    assert seen == [
        ("auth.login", who, None, who),
        ("auth.impersonation_started", who, who, whom),
        ("workflow.modified", whom, who, None),
        ("auth.impersonation_stopped", who, who, whom),
        ("workflow.modified", who, None, None),
    ]


def test_what_is_refused_is_recorded_although_it_rolls_back(django_db: Database, way: str) -> None:
    ann = new_user("ann")
    assert client(ann).post("/refuse/1/").status_code == 403
    _, event = told(django_db)
    assert (event["action"], event["result"]) == ("workflow.deleted", "denied")
    assert (event["actor_id"], event["target_id"]) == (str(ann.pk), "1")
    assert event["details"]["route"] == "refuse/<int:pk>/"


def test_attempts_and_records(django_db: Database, way: str) -> None:
    from django.db import IntegrityError, transaction

    from auditdb.integrations.django import attempt, record
    from tests.integrations.django_project.shop.models import Workflow

    with auditdb.context(actor_id=7, source="cli"):
        with attempt("workflow.renamed", success=True, target_id=1):
            pass
        with pytest.raises(IntegrityError), attempt("workflow.created"):
            Workflow.objects.create(organization_id=1, name=None)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            record("report.exported")
            raise ZeroDivisionError
        assert record(auth.logout(7)) > 0
        with pytest.raises(TypeError, match="Did you mean 'target_id'"):
            record("report.exported", targt_id=7)  # type: ignore[call-arg]
        with pytest.raises(auditdb.Refused, match="Report"):
            record("Report")
    success, failure, logout = told(django_db)
    assert (success["action"], success["result"]) == ("workflow.renamed", "success")
    assert failure["result"] == "failure"
    assert failure["details"]["error"]["sqlstate"] == "23502"
    assert failure["details"]["error"]["type"] == "IntegrityError"
    for event in (success, failure, logout):
        assert (event["actor_id"], event["source"]) == ("7", "cli")


def test_a_login_that_may_not_record_is_named(django_db: Database, project: Project) -> None:
    from auditdb.integrations.django import record

    for login in ("stranger", "app_auditor"):
        project(**django_setup.options(django_db.dsn, login))
        with pytest.raises(auditdb.Refused, match=f'; run: grant audit_writer to "{login}"$'):
            record("report.exported")


def test_a_database_without_auditdb_stops_no_sign_in(
    empty_db: Database, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    from django.core.management import call_command

    project(**django_setup.options(empty_db.dsn, "postgres"), ATOMIC_REQUESTS=True)
    with empty_db.connect() as conn:
        conn.execute("drop schema audit, audit_private cascade")
    from django.test import override_settings

    with override_settings(AUDITDB={"ATTACH": False}):
        call_command("migrate", verbosity=0)
    new_user("ann")
    from tests.integrations.django_project.shop.models import Organization, Workflow

    Workflow.objects.create(organization=Organization.objects.create(name="a"), name="w")
    made = client()
    response = made.post("/login/", {"username": "ann", "password": "hunter2"})
    assert response.content == b"done"
    assert "auditdb could not record auth.login" in caplog.text


def test_a_user_who_cannot_be_loaded_stops_no_view(caplog: pytest.LogCaptureFixture) -> None:
    django_setup.set_up()
    from django.test import RequestFactory
    from django.utils.functional import SimpleLazyObject

    from auditdb.integrations.django.middleware import AuditMiddleware

    def lost() -> None:
        raise OSError("the store of sessions is away")

    def view(request: Any) -> str:
        assert middleware.process_view(request, view, (), {}) is None
        return "done"

    request = RequestFactory().post("/")
    request.user = SimpleLazyObject(lost)
    middleware = AuditMiddleware(view)
    assert middleware(request) == "done"
    assert "could not be loaded" in caplog.text


def test_the_first_word_of_a_statement_is_found_at_once() -> None:
    from auditdb.integrations.django.sender import _classify_text

    assert _classify_text("-" * 10_000 + ";") == ("", False)
    assert _classify_text("/* select */ -- x.\n (\n(SELECT 1)") == ("select", False)
    assert _classify_text("select count(*) from t") == ("select", False)
    assert _classify_text('select "t"."updated_at" from "t" where "t"."a" in (1)')[1] is False
    assert _classify_text("select 1 from t for no key update") == ("select", False)
    assert _classify_text("with w as (update t set a = 1 returning *) select 1")[1]
    assert _classify_text('select * from "f"(1)')[1] and _classify_text("select audit.f()")[1]
