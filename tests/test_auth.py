"""Authentication events: about whom, and by whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from auditdb import auth, context
from tests.conftest import Database

SIMPLE = ["login", "password_changed", "two_factor_enabled", "two_factor_disabled", "email_changed"]
IMPERSONATION = ["impersonation_started", "impersonation_stopped"]
SHOWN = "action target_type target_id subject_id actor_id actor_type impersonator_id".split()


def shown(event: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(event[name] for name in SHOWN)


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, db: Database) -> Callable[..., int]:
    """Call a function of auth by name, or its asynchronous twin."""

    def sync(name: str, *args: Any, **kwargs: Any) -> int:
        event_id: int = getattr(auth, name)(db.connect("app"), *args, **kwargs)
        return event_id

    async def twin(name: str, *args: Any, **kwargs: Any) -> int:
        async with await psycopg.AsyncConnection.connect(db.conninfo("app")) as conn:
            event_id: int = await getattr(auth, f"{name}_async")(conn, *args, **kwargs)
            return event_id

    def run_twin(name: str, *args: Any, **kwargs: Any) -> int:
        return asyncio.run(twin(name, *args, **kwargs))

    return sync if request.param == "sync" else run_twin


@pytest.mark.parametrize("name", SIMPLE)
def test_the_user_is_target_subject_and_actor(
    db: Database, call: Callable[..., int], name: str
) -> None:
    event_id = call(name, 7, organization_id=1, result="failure", source="saml", ip="192.0.2.1")
    (event,) = db.events()
    assert shown(event) == (f"auth.{name}", "user", "7", "7", "7", "user", None)
    assert (event["id"], event["organization_id"], event["result"]) == (event_id, "1", "failure")
    assert (event["source"], event["details"]) == ("saml", {"ip": "192.0.2.1"})


@pytest.mark.parametrize("name", IMPERSONATION)
def test_an_impersonation_names_the_administrator_and_the_user(
    db: Database, call: Callable[..., int], name: str
) -> None:
    event_id = call(name, 1, 7, organization_id=1, source="web", reason="ticket 81")
    (event,) = db.events()
    assert shown(event) == (f"auth.{name}", "user", "7", "7", "1", "user", "1")
    assert (event["id"], event["organization_id"], event["source"]) == (event_id, "1", "web")
    assert event["details"] == {"reason": "ticket 81"}


def test_an_impersonation_stopped_while_impersonating_is_the_administrators_act(
    db: Database,
) -> None:
    conn = db.connect("app")
    auth.impersonation_started(conn, 1, 7, organization_id=1)
    with context(conn, actor_id=7, impersonator_id=1, organization_id=1):
        auth.impersonation_stopped(conn, 1, 7)
    rows = db.connect().execute("select user_id, is_open from audit.impersonation").fetchall()
    assert db.events()[1]["actor_id"] == "1"
    assert rows == [("7", False)]


def test_a_failed_sign_in_of_an_unknown_user_has_no_actor_but_the_address_tried(
    db: Database, call: Callable[..., int]
) -> None:
    call("login", None, result="failure", email="nobody\x00@acme.test")
    (event,) = db.events()
    assert shown(event) == ("auth.login", "user", None, None, None, "user", None)
    assert event["details"] == {"email": "nobody\ufffd@acme.test"}


def test_a_changed_address_is_shown_before_and_after(
    db: Database, call: Callable[..., int]
) -> None:
    call("email_changed", 7, old_email="a@acme.test", new_email="b@acme.test")
    call("email_changed", 7, new_email="c@acme.test")
    values = [(event["old_values"], event["new_values"]) for event in db.events()]
    assert values == [
        ({"email": "a@acme.test"}, {"email": "b@acme.test"}),
        (None, {"email": "c@acme.test"}),
    ]


@pytest.mark.parametrize("name", SIMPLE)
def test_the_actor_of_the_context_acts_upon_the_user(db: Database, name: str) -> None:
    conn = db.connect("app")
    with context(conn, actor_id=1):
        getattr(auth, name)(conn, 7)
    assert shown(db.events()[0]) == (f"auth.{name}", "user", "7", "7", "1", "user", None)


@pytest.mark.parametrize("name", SIMPLE)
def test_in_a_context_that_names_no_actor_the_user_acts(db: Database, name: str) -> None:
    conn = db.connect("app")
    with context(conn, source="oauth", ip="192.0.2.1"):
        getattr(auth, name)(conn, 7)
    (event,) = db.events()
    assert shown(event) == (f"auth.{name}", "user", "7", "7", "7", "user", None)
    assert (event["source"], event["details"]) == ("oauth", {"ip": "192.0.2.1"})


def test_in_a_context_of_the_system_the_system_acts_upon_the_user(db: Database) -> None:
    conn = db.connect("app")
    with context(conn, actor_type="system", source="system"):
        auth.two_factor_disabled(conn, 7)
    event = db.events()[0]
    assert (event["actor_id"], event["actor_type"], event["subject_id"]) == (None, "system", "7")


@pytest.mark.parametrize("name", SIMPLE)
def test_an_actor_that_is_given_acts_upon_the_user(
    db: Database, call: Callable[..., int], name: str
) -> None:
    call(name, 7, actor_id=1)
    assert shown(db.events()[0]) == (f"auth.{name}", "user", "7", "7", "1", "user", None)


def test_each_action_of_the_category_has_its_functions(db: Database) -> None:
    rows = db.connect().execute("select name from audit.action where category = 'auth'").fetchall()
    verbs = {name.partition(".")[2] for (name,) in rows}
    functions = {name for name, value in vars(auth).items() if value in _defined()}
    assert functions == verbs | {f"{verb}_async" for verb in verbs}


def _defined() -> list[Any]:
    return [
        value
        for name, value in vars(auth).items()
        if getattr(value, "__module__", "") == auth.__name__ and not name.startswith("_")
    ]
