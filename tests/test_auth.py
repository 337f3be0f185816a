"""Authentication events: about whom, and by whom."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from auditdb import NewEvent, auth, context, record
from tests.conftest import Database

SIMPLE = [
    "login", "logout", "session_revoked", "password_changed", "two_factor_enabled",
    "two_factor_disabled", "recovery_code_used", "email_changed", "email_verified",
]  # fmt: skip
IMPERSONATION = ["impersonation_started", "impersonation_stopped"]
SHOWN = "action target_type target_id subject_id actor_id actor_type impersonator_id".split()


def shown(event: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(event[name] for name in SHOWN)


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, db: Database) -> Callable[..., int]:
    """Record what a function of auth returns, on a connection of either kind."""

    def sync(name: str, *args: Any, **kwargs: Any) -> int:
        return record(db.connect("app"), getattr(auth, name)(*args, **kwargs))

    async def awaited(event: NewEvent) -> int:
        async with await psycopg.AsyncConnection.connect(db.conninfo("app")) as conn:
            return await record(conn, event)

    def run(name: str, *args: Any, **kwargs: Any) -> int:
        return asyncio.run(awaited(getattr(auth, name)(*args, **kwargs)))

    return sync if request.param == "sync" else run


@pytest.mark.parametrize("name", SIMPLE)
def test_the_user_is_target_subject_and_actor(
    db: Database, call: Callable[..., int], name: str
) -> None:
    event_id = call(
        name, 7, organization_id=1, result="failure", source="saml", details={"ip": "192.0.2.1"}
    )
    (event,) = db.events()
    assert shown(event) == (f"auth.{name}", "user", "7", "7", "7", "user", None)
    assert (event["id"], event["organization_id"], event["result"]) == (event_id, "1", "failure")
    assert (event["source"], event["details"]) == ("saml", {"ip": "192.0.2.1"})


@pytest.mark.parametrize("name", IMPERSONATION)
def test_an_impersonation_names_the_administrator_and_the_user(
    db: Database, call: Callable[..., int], name: str
) -> None:
    event_id = call(name, 1, 7, organization_id=1, source="web", details={"reason": "ticket 81"})
    (event,) = db.events()
    assert shown(event) == (f"auth.{name}", "user", "7", "7", "1", "user", "1")
    assert (event["id"], event["organization_id"], event["source"]) == (event_id, "1", "web")
    assert event["details"] == {"reason": "ticket 81"}


def test_an_impersonation_stopped_while_impersonating_is_the_administrators_act(
    db: Database,
) -> None:
    conn = db.connect("app")
    record(conn, auth.impersonation_started(1, 7, organization_id=1))
    with context(conn, actor_id=7, impersonator_id=1, organization_id=1):
        record(conn, auth.impersonation_stopped(1, 7))
    rows = db.connect().execute("select user_id, is_open from audit.impersonation").fetchall()
    assert db.events()[1]["actor_id"] == "1"
    assert rows == [("7", False)]


def test_a_failed_sign_in_of_an_unknown_user_has_no_actor_but_the_address_tried(
    db: Database, call: Callable[..., int]
) -> None:
    call("login", None, result="failure", details={"email": "nobody\x00@acme.test"})
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


def test_which_address_was_verified_is_a_detail(db: Database) -> None:
    record(db.connect("app"), auth.email_verified(7, email="a@acme.test", details={"left": 1}))
    assert db.events()[0]["details"] == {"left": 1, "email": "a@acme.test"}


@pytest.mark.parametrize("name", SIMPLE)
def test_the_actor_of_the_context_acts_upon_the_user(db: Database, name: str) -> None:
    conn = db.connect("app")
    with context(conn, actor_id=1):
        record(conn, getattr(auth, name)(7))
    assert shown(db.events()[0]) == (f"auth.{name}", "user", "7", "7", "1", "user", None)


@pytest.mark.parametrize("name", SIMPLE)
def test_in_a_context_that_names_no_actor_the_user_acts(db: Database, name: str) -> None:
    conn = db.connect("app")
    with context(conn, source="oauth", details={"ip": "192.0.2.1"}):
        record(conn, getattr(auth, name)(7))
    (event,) = db.events()
    assert shown(event) == (f"auth.{name}", "user", "7", "7", "7", "user", None)
    assert (event["source"], event["details"]) == ("oauth", {"ip": "192.0.2.1"})


def test_in_a_context_of_the_system_the_system_acts_upon_the_user(db: Database) -> None:
    conn = db.connect("app")
    with context(conn, actor_type="system", source="system"):
        record(conn, auth.two_factor_disabled(7))
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
    functions = {
        name
        for name, value in vars(auth).items()
        if inspect.isfunction(value) and value.__module__ == auth.__name__ and name[0] != "_"
    }
    assert functions == verbs == {*auth.VERBS}


def test_who_asks_for_a_password_is_not_signed_in(db: Database) -> None:
    record(db.connect("app"), auth.password_reset_requested(7))
    (event,) = db.events()
    assert (event["subject_id"], event["actor_id"], event["actor_type"]) == ("7", "app", "database")


@pytest.mark.parametrize("name", ["account_locked", "account_unlocked"])
def test_an_account_is_locked_by_the_system_or_by_whom_the_context_names(
    db: Database, name: str
) -> None:
    conn = db.connect("app")
    record(conn, getattr(auth, name)(7))
    record(conn, getattr(auth, name)(7, actor_id=1))
    with context(conn, actor_id=2):
        record(conn, getattr(auth, name)(7))
    events = db.events()
    assert [(e["actor_id"], e["actor_type"]) for e in events[1:]] == [("1", "user"), ("2", "user")]
    assert (events[0]["actor_type"], events[0]["subject_id"]) == ("system", "7")


def test_how_a_user_signed_in_is_a_detail(db: Database) -> None:
    conn = db.connect("app")
    record(conn, auth.login(7, method="passkey", details={"ip": "192.0.2.1"}))
    record(conn, auth.two_factor_enabled(7, method="totp"))
    details = [event["details"] for event in db.events()]
    assert details == [{"ip": "192.0.2.1", "method": "passkey"}, {"method": "totp"}]


def test_a_session_is_the_target_where_it_is_known(db: Database) -> None:
    record(db.connect("app"), auth.session_revoked(7, session_id=12, actor_id=1))
    (event,) = db.events()
    assert shown(event)[:6] == ("auth.session_revoked", "session", "12", "7", "1", "user")
