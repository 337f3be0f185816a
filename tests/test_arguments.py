"""Arguments: what is misspelt is refused with the name that was meant, and never recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import auditdb
from auditdb import (
    InvalidInput,
    attach,
    attempt,
    auth,
    context,
    context_async,
    reader,
    record,
)  # fmt: skip
from auditdb import record_async as recorded
from tests.conftest import Database

# What people write for the arguments of a context, and what they mean.
MISSPELT = {
    "actor": "actor_id",
    "actr_id": "actor_id",
    "actorId": "actor_id",
    "user_id": "actor_id",
    "impersonator": "impersonator_id",
    "organisation_id": "organization_id",
    "organization": "organization_id",
    "org_id": "organization_id",
    "sorce": "source",
    "actor_typ": "actor_type",
}
DETAILS = (
    "ip user_agent request_id session_id trace_id reason method device ticket email url path "
    "country locale client_id provider resource duration status note number organization_name"
).split()


@pytest.mark.parametrize(("given", "meant"), MISSPELT.items())
def test_a_misspelt_argument_of_a_context_is_refused(db: Database, given: str, meant: str) -> None:
    conn = db.connect("app")
    with pytest.raises(TypeError, match=rf"'{given}'\. Did you mean '{meant}'\?"):
        context(conn, **{given: 7})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^context_async\(\) has no argument"):
        context_async(conn, **{given: 7})  # type: ignore[arg-type]


@pytest.mark.parametrize("column", ["target_id", "subject_id", "result", "db_user", "subject"])
def test_a_column_of_the_log_is_no_detail(db: Database, column: str) -> None:
    with pytest.raises(TypeError, match="column of the log and no detail"):
        context(db.connect("app"), actor_id=7, **{column: "x"})


def test_details_in_one_mapping_are_refused(db: Database) -> None:
    with pytest.raises(TypeError, match="Give each detail as an argument"):
        context(db.connect("app"), details={"ip": "192.0.2.1"})


def test_real_details_are_recorded_as_before(db: Database) -> None:
    given = dict.fromkeys(DETAILS, "x")
    conn = db.connect("app")
    with context(conn, actor_id=7, **given):
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
    auth.login(conn, 7, **given)
    changed, login = db.events()
    assert login["details"] == given
    assert {name: changed["details"][name] for name in DETAILS} == given


FUNCTIONS = [
    auth.login, auth.password_changed, auth.two_factor_enabled, auth.two_factor_disabled,
    auth.email_changed, auth.impersonation_started, auth.impersonation_stopped,
]  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", ["impersonator_id", "actor_type", "target_type", "org_id"])
def test_columns_are_no_details_of_authentication(db: Database, function: Any, name: str) -> None:
    users = (7, 8) if "impersonation" in function.__name__ else (7,)
    if name == "impersonator_id" and len(users) == 2:
        name = "impersonated_by"
    with pytest.raises(TypeError, match=rf"auth\.{function.__name__}\(\) has no argument"):
        function(db.connect("app"), *users, **{name: "x"})
    assert db.events() == []


def test_a_misspelt_field_of_a_record_is_refused_by_its_public_name(db: Database) -> None:
    conn = db.connect("app")
    with pytest.raises(TypeError, match=r"record\(\) has no argument 'actor'. Did .* 'actor_id'"):
        record(conn, "a.b", actor=7)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"record\(\) has no argument 'default_actor'"):
        record(conn, "a.b", default_actor=7)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"record_async\(\) has no argument 'colour'. Its arg"):
        asyncio.run(recorded(conn, "a.b", colour=7))  # type: ignore[arg-type, call-arg]
    with pytest.raises(TypeError, match=r"attempt\(\) has no argument 'deny'. Did .* 'denied'"):
        with attempt(conn, "a.b", deny=KeyError):  # type: ignore[call-arg]
            pytest.fail("the block was entered")


def test_an_actor_type_and_a_result_that_are_none_are_named(db: Database) -> None:
    conn = db.connect("app")
    with pytest.raises(InvalidInput, match="actor_type is 'martian'; it is one of user"):
        record(conn, "a.b", actor_type="martian")
    with pytest.raises(InvalidInput, match="result is 'ok'; it is one of success"):
        record(conn, "a.b", result="ok")
    with pytest.raises(InvalidInput, match="result is 'ok'"):
        auth.login(conn, 7, result="ok")


def test_a_misspelt_option_of_attach_does_not_blame_the_installation(db: Database) -> None:
    conn = db.connect("app_owner")
    with pytest.raises(TypeError, match=r"'organisation'.*mean 'organization'"):
        attach(conn, "workflow", "workflow", organisation="organization_id")
    with pytest.raises(TypeError, match=r"'ignor'.*mean 'ignore'"):
        attach(conn, "workflow", "workflow", ignor=["name"])


def test_only_a_database_without_auditdb_is_told_to_install_it(db: Database) -> None:
    conn = db.connect()
    with pytest.raises(psycopg.errors.UndefinedFunction) as caught:
        conn.execute("select audit.attach(organisation => 'x')")
    assert "installed" not in str(auditdb.errors.from_psycopg(caught.value))
    bare = psycopg.connect(db.dsn + " dbname=postgres", autocommit=True)
    with bare, pytest.raises(auditdb.Refused, match="Is auditdb installed in this database"):
        attach(bare, "pg_class", "thing")


@pytest.mark.parametrize("given", ["host=localhost", None])
def test_what_is_no_connection_is_named(given: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: record(given, "a.b"),
        lambda: context(given, actor_id=7),
        lambda: context_async(given, actor_id=7),
        lambda: auth.login(given, 7),
        lambda: reader(given, key="k.s", viewer_id=1, organization_id=1),
        lambda: auditdb.auditor(given),
        lambda: attach(given, "workflow", "workflow"),
        lambda: auditdb.detach(given, "workflow"),
        lambda: asyncio.run(recorded(given, "a.b")),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"give a connection of psycopg, as psycopg\.connect"):
            call()


def test_a_connection_of_the_other_kind_is_told_which_function_takes_it(db: Database) -> None:
    async def refused() -> None:
        async with await psycopg.AsyncConnection.connect(db.conninfo("app")) as conn:
            for call in (
                context,
                auditdb.auditor,
                lambda c: record(c, "a.b"),
                lambda c: auditdb.detach(c, "workflow"),
            ):
                with pytest.raises(TypeError, match="ends in _async, such as context_async"):
                    call(conn)  # type: ignore[arg-type]

    asyncio.run(refused())
    conn: Any = db.connect("app")
    for call in (context_async, auditdb.auditor_async):
        with pytest.raises(TypeError, match=r"give a psycopg\.AsyncConnection, or"):
            call(conn)
    with pytest.raises(TypeError, match=r"give a psycopg\.AsyncConnection, or"):
        asyncio.run(recorded(conn, "a.b"))


@pytest.mark.parametrize("key", [None, b"k.s", "ks"])
def test_a_key_that_is_none_says_where_one_comes_from(db: Database, key: Any) -> None:
    with pytest.raises(InvalidInput, match=r"key_id\.secret; AUDITDB_KEY holds what"):
        reader(db.connect("app_reader"), key=key, viewer_id=1, organization_id=1)
