"""Attempts: what was denied or failed is recorded although its transaction rolled back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from auditdb import InvalidInput, attempt, context, record
from auditdb.write.failure import mask_values
from tests.conftest import Database

INSERT = "insert into workflow (organization_id, name) values (1, 'w')"


class NotAllowed(Exception):
    """The application's own refusal."""


def forbid_workflows(db: Database) -> None:
    db.connect("app_owner").execute("revoke insert on workflow from app")


@pytest.mark.parametrize("autocommit", [True, False])
def test_what_postgresql_denies_is_recorded_as_denied(db: Database, autocommit: bool) -> None:
    forbid_workflows(db)
    conn = db.connect("app", autocommit=autocommit)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        with attempt(
            conn, "workflow.created", organization_id=1, target_type="workflow", details={"n": 1}
        ):
            conn.execute(INSERT)
    (event,) = db.events()
    assert (event["action"], event["result"], event["db_user"]) == (
        "workflow.created",
        "denied",
        "app",
    )
    assert (event["organization_id"], event["target_type"]) == ("1", "workflow")
    assert event["details"] == {
        "n": 1,
        "error": {
            "type": "InsufficientPrivilege",
            "sqlstate": "42501",
            "message": "permission denied for table workflow",
        },
    }
    assert conn.info.transaction_status == TransactionStatus.IDLE
    assert conn.autocommit is autocommit


def test_naive_twin_a_record_in_the_actions_transaction_is_lost(db: Database) -> None:
    forbid_workflows(db)
    conn = db.connect("app")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
        record(conn, "workflow.created", result="denied")
        conn.execute(INSERT)
    assert db.events() == []


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (PermissionError("no"), "denied"),
        (NotAllowed("no"), "denied"),
        (RuntimeError("no"), "failure"),
        (KeyError("no"), "failure"),
    ],
)
def test_refusals_of_the_application_are_denied_and_other_errors_failures(
    db: Database, error: Exception, result: str
) -> None:
    conn = db.connect("app")
    with pytest.raises(type(error)) as caught:
        with attempt(conn, "workflow.created", denied=NotAllowed):
            conn.execute(INSERT)
            raise error
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    (event,) = db.events()
    assert (event["action"], event["result"]) == ("workflow.created", result)
    assert event["details"]["error"]["type"] == type(error).__name__


def test_the_context_in_force_is_carried_over_and_stays(db: Database) -> None:
    conn = db.connect("app")
    with context(conn, actor_id=7, source="api", organization_id=1, details={"ip": "192.0.2.1"}):
        with pytest.raises(psycopg.errors.DivisionByZero), attempt(conn, "report.exported"):
            conn.execute("select 1 / 0")
        conn.execute(INSERT)
    failed, created = db.events("result = 'failure'"), db.events("action = 'workflow.created'")
    for event in (*failed, *created):
        assert (event["actor_id"], event["source"]) == ("7", "api")
        assert event["details"]["ip"] == "192.0.2.1"
    assert failed[0]["organization_id"] == "1"


def test_the_event_outlives_the_rollback_of_every_outer_transaction(db: Database) -> None:
    conn = db.connect("app")
    with pytest.raises(RuntimeError), context(conn, actor_id=7):
        conn.execute(INSERT)
        with attempt(conn, "report.exported"):
            raise RuntimeError("no")
    assert [(e["action"], e["actor_id"]) for e in db.events()] == [("report.exported", "7")]


def test_a_commit_that_fails_is_a_failure(db: Database) -> None:
    db.connect("app_owner").execute(
        "alter table workflow add unique (name) deferrable initially deferred"
    )
    conn = db.connect("app")
    with pytest.raises(psycopg.errors.UniqueViolation), attempt(conn, "workflow.created"):
        conn.execute(INSERT)
        conn.execute(INSERT)
    (event,) = db.events()
    assert (event["result"], event["details"]["error"]["sqlstate"]) == ("failure", "23505")


def test_a_connection_that_is_lost_on_the_way_is_a_recorded_failure(db: Database) -> None:
    conn = db.connect("app", autocommit=False)
    with pytest.raises(psycopg.OperationalError), attempt(conn, "workflow.created"):
        db.connect().execute("select pg_terminate_backend(%s)", (conn.info.backend_pid,))
        conn.execute(INSERT)
    assert db.actions("result = 'failure'") == ["workflow.created"]


def test_success_is_recorded_only_if_asked_for_and_in_the_actions_transaction(
    db: Database,
) -> None:
    conn = db.connect("app")
    with attempt(conn, "report.exported"):
        pass
    with attempt(conn, "report.exported", success=True, actor_id=7):
        conn.execute(INSERT)
    with pytest.raises(RuntimeError), conn.transaction():
        with attempt(conn, "report.imported", success=True):
            pass
        raise RuntimeError
    created, exported = db.events()
    assert (exported["action"], exported["result"], exported["actor_id"]) == (
        "report.exported",
        "success",
        "7",
    )
    assert created["transaction_id"] == exported["transaction_id"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interruption_is_no_failure(db: Database, kind: type[BaseException]) -> None:
    conn = db.connect("app")
    with pytest.raises(kind), attempt(conn, "workflow.created"):
        conn.execute(INSERT)
        raise kind
    assert db.events() == []


def test_a_rollback_on_purpose_is_no_failure(db: Database) -> None:
    conn = db.connect("app")
    with attempt(conn, "workflow.created") as transaction:
        conn.execute(INSERT)
        raise psycopg.Rollback(transaction)
    assert db.events() == []


def test_a_rollback_of_the_block_around_is_no_failure_either(db: Database) -> None:
    conn = db.connect("app")
    with conn.transaction() as outer, attempt(conn, "workflow.created"):
        raise psycopg.Rollback(outer)

    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(db.conninfo("app")) as other:
            async with other.transaction() as outer, attempt(other, "workflow.created"):
                raise psycopg.Rollback(outer)

    asyncio.run(work())
    assert db.events() == []


@pytest.mark.parametrize("denied", [[NotAllowed], "NotAllowed", (NotAllowed("no"),)])
def test_what_is_no_type_of_a_refusal_is_refused_before_the_action(
    db: Database, denied: Any
) -> None:
    with pytest.raises(TypeError, match=r"denied is .*; give exception types"):
        with attempt(db.connect("app"), "workflow.created", denied=denied):
            pytest.fail("the block was entered")


def test_a_connection_of_the_caller_is_used_where_one_is_offered(db: Database) -> None:
    second = db.connect("app", application_name="second")
    offered = []

    @contextmanager
    def connect() -> Iterator[psycopg.Connection[Any]]:
        offered.append(second)
        yield second

    with pytest.raises(RuntimeError):
        with attempt(db.connect("app"), "report.exported", connect=connect):
            raise RuntimeError("no")
    assert offered == [second]
    assert db.actions() == ["report.exported"]
    assert second.info.transaction_status == TransactionStatus.IDLE


def test_if_nothing_can_be_recorded_the_error_is_the_actions_own_with_a_note(db: Database) -> None:
    def connect() -> Any:
        raise TimeoutError("the pool is exhausted")

    for action, options in (("report.exported", {"connect": connect}), ("Malformed", {})):
        with pytest.raises(RuntimeError, match="no") as caught:
            with attempt(db.connect("app"), action, **options):  # type: ignore[call-overload]
                raise RuntimeError("no")
        (note,) = caught.value.__notes__
        assert f"could not record that {action} failed" in note
    assert db.events() == []


def test_the_password_of_the_connection_opens_the_second_one(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    connect = psycopg.Connection.connect

    def watched(conninfo: str, **kwargs: Any) -> psycopg.Connection[Any]:
        given.append(psycopg.conninfo.conninfo_to_dict(conninfo))
        return connect(conninfo, **kwargs)

    conn = db.connect("app", application_name="web")
    monkeypatch.setattr(psycopg.Connection, "connect", watched)
    with pytest.raises(RuntimeError), attempt(conn, "report.exported"):
        raise RuntimeError("no")
    (params,) = given
    assert (params["user"], params["password"], params["application_name"]) == (
        "app",
        "secret",
        "web",
    )
    assert params["dbname"] == conn.info.dbname


def test_values_in_messages_are_not_recorded(db: Database) -> None:
    conn = db.connect("app")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation), attempt(conn, "report.exported"):
        conn.execute("select 'hunter2'::text::int")
    with pytest.raises(ValueError, match="hunter2"), attempt(conn, "report.exported"):
        int("hunter2")
    with pytest.raises(psycopg.errors.UniqueViolation), attempt(conn, "user.created"):
        conn.execute("insert into app_user (email) values ('ann@acme.test')")
    details = [str(event["details"]) for event in db.events()]
    assert len(details) == 3
    assert not any("hunter2" in text or "ann@" in text for text in details)


@pytest.mark.parametrize(
    "message",
    [
        'invalid input syntax for type integer: "hunter2\nand more"\nLINE 1: select',
        "ungültige Eingabesyntax für Typ integer: »hunter2«",
        "syntaxe en entrée invalide pour le type integer : « hunter2 »",
        "неверный синтаксис: «hunter2\n»",
        "nieprawidłowa składnia: „hunter2”",
        "neplatná syntaxe: „hunter2“",
        "無効な入力構文: 「hunter2」",
        "it’s ‘hunter2’",
    ],
)
def test_values_are_not_recorded_in_whatever_quotes_a_server_puts_them(message: str) -> None:
    masked = mask_values(message)
    assert "hunter" not in masked and masked.endswith("…")


def test_a_long_message_is_cut_to_its_first_line() -> None:
    assert mask_values("one\ntwo") == "one"
    assert mask_values("it isn't there") == "it isn't there"
    assert len(mask_values("x" * 1000)) == 200


def test_an_identifier_that_cannot_be_meant_is_refused_before_the_action(db: Database) -> None:
    with pytest.raises(InvalidInput, match="target_id"):
        with attempt(db.connect("app"), "report.exported", target_id=b"5"):  # type: ignore[call-overload]
            pytest.fail("the block was entered")


def test_the_asynchronous_form_does_the_same(db: Database) -> None:
    forbid_workflows(db)

    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(db.conninfo("app")) as conn:
            async with context(conn, actor_id=7, details={"ip": "192.0.2.1"}):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    async with attempt(conn, "workflow.created"):
                        await conn.execute(INSERT)
            with pytest.raises(NotAllowed):
                async with attempt(conn, "report.exported", denied=(NotAllowed,)):
                    raise NotAllowed
            async with attempt(conn, "report.imported", success=True):
                pass
            with pytest.raises(asyncio.CancelledError):
                async with attempt(conn, "report.deleted"):
                    raise asyncio.CancelledError
            with pytest.raises(RuntimeError) as caught:
                async with attempt(conn, "Malformed"):
                    raise RuntimeError("no")
            assert "could not record" in caught.value.__notes__[0]
            assert conn.info.transaction_status == TransactionStatus.IDLE
            assert conn.autocommit is False

    asyncio.run(work())
    found = [(event["action"], event["result"], event["actor_id"]) for event in db.events()]
    assert found == [
        ("workflow.created", "denied", "7"),
        ("report.exported", "denied", "app"),
        ("report.imported", "success", "app"),
    ]
