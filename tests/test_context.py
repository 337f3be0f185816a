"""The context: who acts, and from where, exactly as long as its block."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.pq import PipelineStatus, TransactionStatus

from auditdb import ConnectionFailed, InvalidInput, Refused, context, record
from auditdb.mapping.vocabulary import VOCABULARY
from auditdb.values.details import WORDS
from tests.conftest import Database
from tests.trips import counted
from tests.vocabulary import likes

TEXT = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
RENAME = "update workflow set name = name || '.' where id = 1"


@pytest.fixture
def workflow(db: Database) -> Database:
    """A database with one workflow to change."""
    db.connect().execute("insert into workflow (id, organization_id, name) values (1, 1, 'w')")
    return db


def modified(db: Database) -> list[dict[str, Any]]:
    return db.events("action = 'workflow.modified'")


def in_force(conn: psycopg.Connection[Any]) -> Any:
    return conn.execute("select audit.current_context()").fetchone()[0]  # type: ignore[index]


@pytest.mark.parametrize("autocommit", [True, False])
def test_events_of_the_block_say_who_acts_and_from_where(
    workflow: Database, autocommit: bool
) -> None:
    conn = workflow.connect("app", autocommit=autocommit)
    with context(
        conn, actor_id=7, source="api", details={"ip": "203.0.113.9", "request_id": UUID(int=5)}
    ):
        conn.execute(RENAME)
    (event,) = modified(workflow)
    assert (event["actor_id"], event["actor_type"]) == ("7", "user")
    assert (event["source"], event["db_user"]) == ("api", "app")
    assert event["details"] == {"ip": "203.0.113.9", "request_id": str(UUID(int=5))}


def test_while_impersonating_captured_events_carry_both_users(workflow: Database) -> None:
    conn = workflow.connect("app")
    with context(conn, actor_id=2, impersonator_id=1):
        conn.execute(RENAME)
    (event,) = modified(workflow)
    assert (event["actor_id"], event["impersonator_id"]) == ("2", "1")


def test_the_block_commits_although_the_connection_does_not_autocommit(workflow: Database) -> None:
    conn = workflow.connect("app", autocommit=False)
    with context(conn, actor_id=7):
        conn.execute(RENAME)
    conn.rollback()
    assert len(modified(workflow)) == 1


def test_the_context_does_not_outlive_its_block(workflow: Database) -> None:
    conn = workflow.connect("app")
    for _ in range(2):  # the second is set at less cost
        with context(conn, actor_id=7):
            pass
        conn.execute(RENAME)
        event = modified(workflow)[-1]
        who = (event["actor_id"], event["actor_type"], event["source"])
        assert who == ("app", "database", "sql")


def test_naive_twin_a_session_setting_outlives_its_block(workflow: Database) -> None:
    conn = workflow.connect("app")
    with conn.transaction():
        conn.execute("""select set_config('auditdb.context', '{"actor_id": "7"}', false)""")
    conn.execute(RENAME)
    assert modified(workflow)[0]["actor_id"] == "7"


@pytest.mark.parametrize("autocommit", [True, False])
def test_entering_costs_exactly_one_round_trip(db: Database, autocommit: bool) -> None:
    conn = db.connect("app", autocommit=autocommit)
    for _ in range(8):  # psycopg prepares a statement at its sixth use
        block = context(conn, actor_id=7, details={"ip": "203.0.113.9"})
        with counted(conn) as entering:
            block.__enter__()
        with counted(conn) as leaving:
            block.__exit__(None, None, None)
        assert (entering.count, leaving.count) == (1, 1)


@pytest.mark.parametrize("autocommit", [True, False])
def test_naive_twin_a_statement_after_begin_costs_two(db: Database, autocommit: bool) -> None:
    conn = db.connect("app", autocommit=autocommit)
    with counted(conn) as entering:
        block = conn.transaction()
        block.__enter__()
        conn.execute("select audit.set_context('7')")
    block.__exit__(None, None, None)
    assert entering.count == 2


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.uuids(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    actor_id=st.none() | st.integers() | st.text(TEXT, max_size=200) | st.uuids(),
    actor_type=st.sampled_from([None, "user", "api_key", "system"]),
    source=st.none() | st.text(TEXT, max_size=200),
    organization_id=st.none() | st.integers(),
    details=st.dictionaries(st.text(), VALUES),
)
@pytest.mark.parametrize("strings", ["on", "off"])
def test_a_connection_sets_each_context_as_it_did_the_first(
    db: Database, strings: str, details: dict[str, Any], **who: Any
) -> None:
    options = f"-c standard_conforming_strings={strings} -c backslash_quote=on"
    settings = []
    with psycopg.connect(db.conninfo("app"), options=options) as conn:
        for _ in range(2):
            with context(conn, **who, details=details):
                settings.append(in_force(conn))
    assert settings[0] == settings[1]


def test_a_character_that_the_client_encoding_lacks_is_named(db: Database) -> None:
    conn = db.connect("app", client_encoding="latin1")
    for _ in range(2):
        with context(conn, details={"name": "é"}):
            row = conn.execute("select audit.current_context() #>> '{details,name}'").fetchone()
            assert row == ("é",)
    with pytest.raises(InvalidInput, match="'€'"), context(conn, details={"name": "€"}):
        pytest.fail("the block was entered")
    assert conn.info.transaction_status == TransactionStatus.IDLE


@pytest.mark.parametrize("is_inside", [True, False])
def test_a_character_that_the_encoding_lacks_is_named_from_the_first_block_on(
    db: Database, is_inside: bool
) -> None:
    conn = db.connect("app", client_encoding="latin1", autocommit=False)
    if is_inside:
        conn.execute("select 1")
    before = conn.info.transaction_status
    with pytest.raises(InvalidInput, match="'€'"), context(conn, actor_id="€"):
        pytest.fail("the block was entered")
    assert (conn.info.transaction_status, conn.autocommit) == (before, False)
    with pytest.raises(InvalidInput, match="'€'"):
        record(conn, "report.exported", actor_id="€")

    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(
            db.conninfo("app"), client_encoding="latin1"
        ) as other:
            with pytest.raises(InvalidInput, match="'€'"):
                async with context(other, actor_id="€"):
                    pytest.fail("the block was entered")
            assert other.info.transaction_status == TransactionStatus.IDLE
            with pytest.raises(InvalidInput, match="'€'"):
                await record(other, "report.exported", actor_id="€")

    asyncio.run(work())


@pytest.mark.parametrize("autocommit", [True, False])
def test_the_block_begins_as_the_connection_wants_it(db: Database, autocommit: bool) -> None:
    conn = db.connect("app", autocommit=autocommit)
    conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    conn.read_only = conn.deferrable = True
    for _ in range(2):
        with context(conn, actor_id=7):
            row = conn.execute(
                "select current_setting('transaction_isolation'), "
                "current_setting('transaction_read_only'), "
                "current_setting('transaction_deferrable')"
            ).fetchone()
        assert row == ("repeatable read", "on", "on")


def test_an_inner_context_too_enters_and_leaves_in_one_round_trip(db: Database) -> None:
    conn = db.connect("app", autocommit=False)
    conn.execute("select 1")
    block = context(conn, actor_id=7)
    with counted(conn) as entering:
        block.__enter__()
    with counted(conn) as leaving:
        block.__exit__(None, None, None)
    assert (entering.count, leaving.count) == (1, 1)


@pytest.mark.parametrize("autocommit", [True, False])
def test_the_connection_is_as_before_in_and_after_the_block(db: Database, autocommit: bool) -> None:
    conn = db.connect("app", autocommit=autocommit)
    with context(conn, actor_id=7):
        assert conn.info.pipeline_status == PipelineStatus.OFF
        inside = conn.info.transaction_status
    assert inside == TransactionStatus.INTRANS
    assert conn.info.transaction_status == TransactionStatus.IDLE
    assert conn.autocommit is autocommit
    with pytest.raises(ZeroDivisionError), context(conn, actor_id=7):
        raise ZeroDivisionError
    assert conn.info.transaction_status == TransactionStatus.IDLE
    assert conn.autocommit is autocommit


def test_a_psycopg_of_other_make_enters_and_commits_as_well(
    workflow: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auditdb.connection.one_query._KNOWS_PSYCOPG", False)
    conn = workflow.connect("app", autocommit=False)
    for _ in range(2):
        with context(conn, actor_id=7):
            conn.execute(RENAME)
    assert [event["actor_id"] for event in modified(workflow)] == ["7", "7"]


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_pipeline_of_the_caller_goes_on(workflow: Database, autocommit: bool) -> None:
    conn = workflow.connect("app", autocommit=autocommit)
    with conn.pipeline():
        with context(conn, actor_id=7):
            conn.execute(RENAME)
            with context(conn, actor_id=8):
                conn.execute(RENAME)
            conn.execute(RENAME)
        assert conn.info.pipeline_status == PipelineStatus.ON
    assert [event["actor_id"] for event in modified(workflow)] == ["7", "8", "7"]


def test_without_pipeline_support_the_block_is_the_same(
    workflow: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg.Pipeline, "is_supported", classmethod(lambda cls: False))
    conn = workflow.connect("app", autocommit=False)
    with context(conn, actor_id=7):
        conn.execute(RENAME)
        with context(conn, source="cli"):
            conn.execute(RENAME)
    who = [(event["actor_id"], event["source"]) for event in modified(workflow)]
    assert who == [("7", "web"), ("7", "cli")]


def test_an_inner_context_inherits_what_it_does_not_give_and_restores_the_outer(
    db: Database,
) -> None:
    conn = db.connect("app")
    with context(
        conn, actor_id=7, source="api", organization_id=1, details={"ip": "192.0.2.1", "step": "a"}
    ):
        outer = in_force(conn)
        with context(conn, impersonator_id=1, details={"step": "b"}):
            assert in_force(conn) == {
                "actor_id": "7",
                "actor_type": "user",
                "impersonator_id": "1",
                "source": "api",
                "organization_id": "1",
                "details": {"ip": "192.0.2.1", "step": "b"},
            }
        assert in_force(conn) == outer


def test_another_actor_does_not_inherit_the_type_of_the_outer_one(db: Database) -> None:
    conn = db.connect("app")
    with context(conn, actor_type="system", source="system"), context(conn, actor_id=7):
        assert in_force(conn) == {"actor_id": "7", "actor_type": "user", "source": "system"}


def test_the_outer_context_is_in_force_after_an_inner_rollback(workflow: Database) -> None:
    conn = workflow.connect("app")
    with context(conn, actor_id=7):
        with pytest.raises(psycopg.errors.DivisionByZero), context(conn, actor_id=8):
            conn.execute(RENAME)
            conn.execute("select 1 / 0")
        conn.execute(RENAME)
        with context(conn, actor_id=9) as inner:
            conn.execute(RENAME)
            raise psycopg.Rollback(inner)
        conn.execute(RENAME)
    assert [event["actor_id"] for event in modified(workflow)] == ["7", "7"]


def test_a_context_set_by_plain_sql_is_inherited_and_restored(db: Database) -> None:
    conn = db.connect("app", autocommit=False)
    conn.execute("select audit.set_context('7', source => 'scim')")
    with context(conn, details={"ip": "192.0.2.1"}):
        assert in_force(conn)["source"] == "scim"
        conn.execute("select audit.clear_context()")
    assert in_force(conn) == {"actor_id": "7", "actor_type": "user", "source": "scim"}


def test_in_a_transaction_without_context_none_remains(db: Database) -> None:
    conn = db.connect("app", autocommit=False)
    conn.execute("select 1")
    with context(conn, actor_id=7):
        pass
    assert in_force(conn) is None


def test_errors_of_the_block_reach_the_caller_unchanged(workflow: Database) -> None:
    conn = workflow.connect("app")
    with pytest.raises(psycopg.errors.NotNullViolation), context(conn, actor_id=7):
        conn.execute(RENAME)
        conn.execute("update workflow set name = null")
    assert modified(workflow) == []


def test_an_error_of_the_commit_reaches_the_caller_unchanged(workflow: Database) -> None:
    workflow.connect("app_owner").execute(
        "alter table workflow add unique (name) deferrable initially deferred"
    )
    conn = workflow.connect("app", autocommit=False)
    with pytest.raises(psycopg.errors.UniqueViolation), context(conn, actor_id=7):
        conn.execute("insert into workflow (organization_id, name) values (1, 'w')")
    assert conn.info.transaction_status == TransactionStatus.IDLE
    assert conn.autocommit is False


def test_an_error_that_the_block_swallowed_is_not_committed_as_success(workflow: Database) -> None:
    conn = workflow.connect("app", autocommit=False)
    conn.execute("select 1")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction), context(conn, actor_id=7):
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute("select 1 / 0")
    conn.rollback()


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_login_that_may_not_is_refused_with_the_command_that_mends_it(
    db: Database, autocommit: bool
) -> None:
    conn = db.connect("stranger", autocommit=autocommit)
    with pytest.raises(Refused, match='grant audit_writer to "stranger"') as caught:
        with context(conn, actor_id=7):
            pytest.fail("the block was entered")
    assert isinstance(caught.value.__cause__, psycopg.errors.InsufficientPrivilege)
    assert conn.info.transaction_status == TransactionStatus.IDLE
    assert conn.autocommit is autocommit
    conn.execute("select 1")


def test_a_lost_connection_is_a_failed_connection(db: Database) -> None:
    conn = db.connect("app", autocommit=False)
    db.connect().execute("select pg_terminate_backend(%s)", (conn.info.backend_pid,))
    with pytest.raises(ConnectionFailed), context(conn, actor_id=7):
        pytest.fail("the block was entered")
    with pytest.raises(ConnectionFailed, match="closed"), context(conn, actor_id=7):
        pytest.fail("the block was entered")


def test_an_unknown_actor_type_is_refused_and_the_connection_stays_usable(db: Database) -> None:
    conn = db.connect("app")
    with context(conn, actor_id=7):
        with pytest.raises(InvalidInput, match="one of user, api_key, system"):
            with context(conn, actor_type="robot"):
                pytest.fail("the block was entered")
        assert in_force(conn)["actor_type"] == "user"


@pytest.mark.parametrize("name", ["actor_id", "impersonator_id", "source", "organization_id"])
def test_sql_sets_identifiers_of_up_to_200_characters_and_refuses_longer_ones(
    db: Database, name: str
) -> None:
    conn = db.connect("app", autocommit=False)
    query = f"select audit.set_context({name} => %s)".encode()
    conn.execute(query, ["é" * 200])
    assert in_force(conn)[name] == "é" * 200
    with pytest.raises(psycopg.errors.StringDataRightTruncation, match="longer than 200"):
        conn.execute(query, ["é" * 201])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("actor_type => 'robot'", 'actor_type is "robot"'),
        ("actor_type => null", "actor_type is"),
        ("details => '[1]'", "details is array, not an object"),
    ],
)
def test_sql_refuses_a_context_that_no_event_could_carry(
    db: Database, arguments: str, says: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=says):
        db.connect("app").execute(f"select audit.set_context({arguments})".encode())


@pytest.mark.parametrize("value", [b"7", True, 7.0, object(), "a\x00b", "a\ud800b"])
def test_an_identifier_that_cannot_be_meant_is_named(db: Database, value: Any) -> None:
    with pytest.raises(InvalidInput, match="actor_id"), context(db.connect("app"), actor_id=value):
        pytest.fail("the block was entered")


def test_details_that_no_json_can_hold_do_not_break_the_action(workflow: Database) -> None:
    conn = workflow.connect("app")
    when = datetime(2026, 1, 31, tzinfo=UTC)
    odd: dict[str, Any] = {
        "user_agent": "a\x00b\ud800",
        "took": float("inf"),
        "at": when,
        "all": {1},
    }
    with context(conn, actor_id=7, details=odd):
        conn.execute(RENAME)
    assert modified(workflow)[0]["details"] == {
        "user_agent": "a\ufffdb\ufffd",
        "took": "inf",
        "at": str(when),
        "all": [1],
    }


def test_row_and_cursor_factories_of_the_caller_do_not_matter(workflow: Database) -> None:
    conn = workflow.connect(
        "app", row_factory=psycopg.rows.dict_row, cursor_factory=psycopg.RawCursor
    )
    with context(conn, actor_id=7), context(conn, source="cli"):
        conn.execute(RENAME)
    assert modified(workflow)[0]["source"] == "cli"


@pytest.mark.parametrize("autocommit", [True, False])
def test_the_asynchronous_context_nests_and_ends_in_the_same_way(
    workflow: Database, autocommit: bool
) -> None:
    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(
            workflow.conninfo("app"), autocommit=autocommit
        ) as conn:
            async with context(conn, actor_id=7, source="api"):
                async with context(conn, actor_id=8):
                    await conn.execute(RENAME)
                async with context(conn, actor_id=9) as inner:
                    await conn.execute(RENAME)
                    raise psycopg.Rollback(inner)
                assert conn.info.pipeline_status == PipelineStatus.OFF
                await conn.execute(RENAME)
            assert conn.autocommit is autocommit
            assert conn.info.transaction_status == TransactionStatus.IDLE
            await conn.execute(RENAME)

    asyncio.run(work())
    who = [(event["actor_id"], event["source"]) for event in modified(workflow)]
    assert who == [("8", "api"), ("7", "api"), ("app", "sql")]


def test_an_asynchronous_refusal_and_a_lost_connection_are_audit_errors(db: Database) -> None:
    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(db.conninfo("stranger")) as conn:
            with pytest.raises(Refused, match="grant audit_writer"):
                async with context(conn, actor_id=7):
                    pytest.fail("the block was entered")
            assert conn.info.transaction_status == TransactionStatus.IDLE
            assert conn.autocommit is False
            await conn.close()
            with pytest.raises(ConnectionFailed):
                async with context(conn, actor_id=7):
                    pytest.fail("the block was entered")

    asyncio.run(work())


def test_a_cancelled_task_rolls_back_and_leaves_the_connection_usable(workflow: Database) -> None:
    async def work() -> None:
        conn = await psycopg.AsyncConnection.connect(workflow.conninfo("app"))
        inside = asyncio.Event()

        async def cancelled() -> None:
            async with context(conn, actor_id=7):
                await conn.execute(RENAME)
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(cancelled())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert conn.info.transaction_status == TransactionStatus.IDLE
        assert conn.autocommit is False
        await conn.close()

    asyncio.run(work())
    assert modified(workflow) == []


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_block_that_cannot_begin_leaves_no_transaction_open(
    db: Database, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """After BEGIN has been sent, whatever raises."""

    class Stopped(Exception):
        pass

    def stopped(self: object) -> None:
        raise Stopped

    def work() -> None:
        conn = db.connect("app", autocommit=False)
        with context(conn, actor_id=7):
            pass
        monkeypatch.setattr(psycopg.Transaction, "_enter_gen", stopped)
        with pytest.raises(Stopped), context(conn, actor_id=7):
            pytest.fail("the block was entered")
        assert conn.info.transaction_status == TransactionStatus.IDLE
        assert conn.autocommit is False

    async def work_async() -> None:
        conn = await psycopg.AsyncConnection.connect(db.conninfo("app"))
        async with context(conn, actor_id=7):
            pass
        monkeypatch.setattr(psycopg.AsyncTransaction, "_enter_gen", stopped)
        with pytest.raises(Stopped):
            async with context(conn, actor_id=7):
                pytest.fail("the block was entered")
        assert conn.info.transaction_status == TransactionStatus.IDLE
        assert conn.autocommit is False
        await conn.close()

    asyncio.run(work_async()) if how == "async" else work()


def test_the_asynchronous_context_sets_each_context_as_it_did_the_first(db: Database) -> None:
    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(db.conninfo("app")) as conn:
            for actor in (7, 8, 9):
                async with context(conn, actor_id=actor, source="api"):
                    row = await (await conn.execute("select audit.current_context()")).fetchone()
                    assert row == ({"actor_id": str(actor), "actor_type": "user", "source": "api"},)
                assert conn.info.transaction_status == TransactionStatus.IDLE
                assert conn.autocommit is False
                with pytest.raises(psycopg.errors.DivisionByZero):
                    async with context(conn, actor_id=actor):
                        await conn.execute("select 1 / 0")

    asyncio.run(work())


@pytest.mark.parametrize("actor", ["O'Brien", "'; drop table workflow; --", "\\'", '"}', "$$"])
def test_no_character_of_a_context_ends_its_statement(db: Database, actor: str) -> None:
    conn = db.connect("app")
    for _ in range(2):  # the second is set at less cost
        with context(conn, actor_id=actor, details={"note": actor}):
            assert in_force(conn)["actor_id"] == in_force(conn)["details"]["note"] == actor


@pytest.mark.parametrize("name", ["actor_id", "impersonator_id", "source", "organization_id"])
def test_python_refuses_identifiers_of_more_than_200_characters(db: Database, name: str) -> None:
    conn = db.connect("app")
    for _ in range(2):
        with context(conn, **{name: "é" * 200}):  # type: ignore[call-overload]
            assert in_force(conn)[name] == "é" * 200
        with pytest.raises(InvalidInput, match=f"{name} is longer than 200"):
            context(conn, **{name: "é" * 201})  # type: ignore[call-overload]


def test_values_under_names_of_secrets_do_not_enter_a_context(workflow: Database) -> None:
    conn = workflow.connect("app")
    given: dict[str, Any] = {"password": "x",
        "proxy": [{"apiKey": 7, "is_secret": "y", "token": None}],
        "headers": {"Accept": "a", "X-Foo": "b", "X-Bar": None}, "has_password": "z",
        "a" * 300 + "_secret": "c"}  # fmt: skip
    shown = {"password": "[redacted]", "proxy": [{"apiKey": "[redacted]", "is_secret": "y"}],
        "headers": {"Accept": "a", "X-Foo": "[redacted]"}, "has_password": "z",
        "a" * 300 + "_secret": "[redacted]"}  # fmt: skip
    for _ in range(2):  # the second is set at less cost
        with context(conn, actor_id=7, details=given):
            conn.execute(RENAME)
            assert in_force(conn)["details"] == shown
            with context(conn, details={"cookie": "x"}):
                assert in_force(conn)["details"] == {**shown, "cookie": "[redacted]"}
    assert [event["details"] for event in modified(workflow)] == [shown, shown]


def test_a_context_set_in_sql_holds_no_secret(db: Database) -> None:
    conn = db.connect("app")
    with conn.transaction():
        conn.execute("""select audit.set_context(details =>
            '{"a": "https://u:hunter2@h/", "passwords": ["x"], "ip": "192.0.2.1"}')""")
        assert in_force(conn)["details"] == {
            "a": "https://u:[redacted]@h/", "passwords": "[redacted]", "ip": "192.0.2.1",
        }  # fmt: skip


@pytest.mark.parametrize(
    "details",
    [
        {"headers": [["Authorization", "Bearer hunter2"], ["Accept", "text/html"]]},
        {"sent": [("x-api-key", "hunter2"), ("cookie", None)]},
        {"form": [{"name": "password", "value": "hunter2"}, {"name": "age", "value": "42"}]},
        {"name": "password", "value": "hunter2"},
        {"Key": "token", "Value": "hunter2", "at": 1},
    ],
)
def test_a_secret_in_pairs_is_redacted_in_every_block_as_the_server_does(
    db: Database, details: dict[str, Any]
) -> None:
    conn = db.connect("app")
    seen = []
    for _ in range(2):
        with context(conn, actor_id=7, details=details):
            seen.append(in_force(conn)["details"])
    query = "select audit_private.redact_json(%s::jsonb)"
    row = db.connect().execute(query, [json.dumps(details)]).fetchone()
    assert row is not None and seen == [row[0]] * 2
    assert "hunter2" not in str(seen)


def test_the_words_of_secrets_are_those_of_the_vocabulary() -> None:
    words = [*VOCABULARY["secret"], "header"]
    assert "|".join(words) == WORDS.pattern
    # Each name of headers has that word, whatever stands around it.
    assert all("header" in like for like in likes("headers"))


def test_names_of_the_usual_details_load_no_vocabulary() -> None:
    code = (
        "import sys; from auditdb.values.details import without_secrets;"
        "without_secrets({'ip': 1, 'user_agent': 'x', 'request_id': 'y', 'reason': 'z'});"
        "assert 'auditdb.mapping.vocabulary' not in sys.modules;"
        "assert without_secrets({'token': 1}) == {'token': '[redacted]'}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
