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
    operator,
    reader,
    record,
    update_context,
)  # fmt: skip
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
        context(conn, **{given: 7})  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=rf"^update_context\(\) has no argument '{given}'"):
        update_context(**{given: 7})  # type: ignore[arg-type]


def test_a_detail_beside_the_details_is_told_where_it_goes(db: Database) -> None:
    with pytest.raises(TypeError, match=r"goes into details=\{'ip': \.\.\.\}"):
        context(db.connect("app"), actor_id=7, ip="192.0.2.1")  # type: ignore[call-overload]


def test_details_are_a_mapping(db: Database) -> None:
    conn = db.connect("app")
    calls: list[Callable[[Any], object]] = [
        lambda given: context(conn, details=given),
        lambda given: record(conn, "a.b", details=given),
        lambda given: auth.login(7, details=given),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="details is a list; give a mapping, such as a dict"):
            call([("ip", "192.0.2.1")])


def test_real_details_are_recorded_as_before(db: Database) -> None:
    given = dict.fromkeys(DETAILS, "x")
    conn = db.connect("app")
    with context(conn, actor_id=7, details=given):
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
    record(conn, auth.login(7, details=given))
    changed, login = db.events()
    assert login["details"] == given
    assert {name: changed["details"][name] for name in DETAILS} == given


@pytest.mark.parametrize("verb", auth.VERBS)
@pytest.mark.parametrize("name", ["actor_type", "target_type", "org_id", "impersonated_by", "ip"])
def test_a_misspelt_argument_of_authentication_is_refused(verb: str, name: str) -> None:
    users = (7, 8) if "impersonation" in verb else (7,)
    with pytest.raises(TypeError, match=rf"auth\.{verb}\(\) has no argument '{name}'"):
        getattr(auth, verb)(*users, **{name: "x"})


def test_an_event_takes_no_fields_beside_it(db: Database) -> None:
    conn = db.connect("app")
    with pytest.raises(TypeError, match=r"record\(\) got an event and fields"):
        record(conn, auth.login(7), organization_id=1)
    with pytest.raises(TypeError, match=r"record\(\) got an event and fields"):
        record(conn, auth.login(7), result="failure")
    with pytest.raises(TypeError, match="got a int for an action"):
        record(conn, 7)  # type: ignore[call-overload]


def test_a_misspelt_field_of_a_record_is_refused_by_its_public_name(db: Database) -> None:
    conn = db.connect("app")
    with pytest.raises(TypeError, match=r"record\(\) has no argument 'actor'. Did .* 'actor_id'"):
        record(conn, "a.b", actor=7)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"record\(\) has no argument 'default_actor'"):
        record(conn, "a.b", default_actor=7)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"record\(\) has no argument 'colour'. Its arg"):
        record(conn, "a.b", colour=7)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"attempt\(\) has no argument 'deny'. Did .* 'denied'"):
        with attempt(conn, "a.b", deny=KeyError):  # type: ignore[call-overload]
            pytest.fail("the block was entered")


MISSPELLINGS: list[tuple[Callable[..., Any], str, str]] = [
    (auditdb.reader, "organisation_id", "organization_id"), (auditdb.reader, "viewer", "viewer_id"),
    (auditdb.auditor, "org_id", "organization_id"), (auditdb.install, "progres", "progress"),
    (auditdb.baseline, "progres", "progress"), (operator.maintain, "keeps", "keep"),
    (operator.detect, "samples", "sample"), (operator.apply, "prun", "prune"),
    (operator.create_key, "retire_other_after", "retire_others_after"),
    (operator.uninstall, "logs", "log"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "given", "meant"), MISSPELLINGS)
def test_a_misspelt_argument_of_any_function_is_refused(
    function: Callable[..., Any], given: str, meant: str
) -> None:
    with pytest.raises(TypeError, match=rf"\(\) has no argument '{given}'.*mean '{meant}'"):
        function(**{given: 1})


def test_an_actor_type_and_a_result_that_are_none_are_named(db: Database) -> None:
    conn = db.connect("app")
    with pytest.raises(InvalidInput, match="actor_type is 'martian'; it is one of user"):
        record(conn, "a.b", actor_type="martian")
    with pytest.raises(InvalidInput, match="result is 'ok'; it is one of success"):
        record(conn, "a.b", result="ok")
    with pytest.raises(InvalidInput, match="result is 'ok'"):
        record(conn, auth.login(7, result="ok"))


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
        lambda: record(given, auth.login(7)),
        lambda: attempt(given, "a.b"),
        lambda: reader(given, key="k.s", viewer_id=1, organization_id=1),
        lambda: auditdb.auditor(given),
        lambda: attach(given, "workflow", "workflow"),
        lambda: auditdb.detach(given, "workflow"),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"give a connection of psycopg.*, as psycopg\.connect"):
            call()


def test_what_works_on_one_kind_of_connection_alone_says_so(db: Database) -> None:
    async def refused() -> None:
        async with await psycopg.AsyncConnection.connect(db.conninfo("app")) as conn:
            with pytest.raises(TypeError, match=r"AsyncConnection; give a psycopg\.Connection"):
                auditdb.detach(conn, "workflow")  # type: ignore[arg-type]

    asyncio.run(refused())


@pytest.mark.parametrize("key", [None, b"k.s", "ks"])
def test_a_key_that_is_none_says_where_one_comes_from(db: Database, key: Any) -> None:
    with pytest.raises(InvalidInput, match=r"key_id\.secret; AUDITDB_KEY holds what"):
        reader(db.connect("app_reader"), key=key, viewer_id=1, organization_id=1)
