"""Recorded events: what no table shows, as the application tells it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import pytest
from click.testing import CliRunner

from auditdb import ConnectionFailed, InvalidInput, Refused, attempt, context, record
from auditdb.cli import main
from tests.conftest import Database


def test_an_event_holds_all_that_was_given_and_its_id_is_returned(db: Database) -> None:
    event_id = record(
        db.connect("app"),
        "report.exported",
        organization_id=1,
        target_type="report",
        target_id=UUID(int=5),
        subject_id=2,
        result="denied",
        actor_id=7,
        actor_type="api_key",
        impersonator_id=1,
        source="api",
        old_values={"rows": 1},
        new_values={"rows": 2},
        details={"ip": "192.0.2.1"},
    )
    (event,) = db.events()
    given = {
        "id": event_id,
        "action": "report.exported",
        "organization_id": "1",
        "target_type": "report",
        "target_id": str(UUID(int=5)),
        "subject_id": "2",
        "result": "denied",
        "actor_id": "7",
        "actor_type": "api_key",
        "impersonator_id": "1",
        "source": "api",
        "old_values": {"rows": 1},
        "new_values": {"rows": 2},
        "details": {"ip": "192.0.2.1"},
        "db_user": "app",
        "captured_from": None,
    }
    assert {name: event[name] for name in given} == given


def test_what_is_not_given_comes_from_the_context(db: Database) -> None:
    conn = db.connect("app")
    with context(conn, actor_id=7, source="api", organization_id=1, details={"ip": "192.0.2.1"}):
        record(conn, "report.exported", details={"rows": 2})
    (event,) = db.events()
    assert (event["actor_id"], event["source"], event["organization_id"]) == ("7", "api", "1")
    assert event["details"] == {"ip": "192.0.2.1", "rows": 2}


def test_a_given_actor_is_a_user_whatever_the_type_of_the_context(db: Database) -> None:
    conn = db.connect("app")
    with context(conn, actor_type="system", source="system"):
        record(conn, "report.exported", actor_id=7)
        record(conn, "report.exported")
    who = [(event["actor_id"], event["actor_type"]) for event in db.events()]
    assert who == [("7", "user"), (None, "system")]


def test_without_context_and_actor_it_is_the_database_role(db: Database) -> None:
    record(db.connect("app"), "report.exported")
    (event,) = db.events()
    assert (event["actor_id"], event["actor_type"], event["source"]) == ("app", "database", "sql")


def test_an_event_is_rolled_back_with_its_transaction(db: Database) -> None:
    conn = db.connect("app", autocommit=False)
    record(conn, "report.exported")
    conn.rollback()
    record(conn, "report.imported")
    conn.commit()
    assert db.actions() == ["report.imported"]


@pytest.mark.parametrize(
    ("action", "result", "says"),
    [
        ("Login", "success", "category.verb"),
        ("audit.installed", "success", "reserved for the log itself"),
        ("report." + "x" * 300, "success", "category.verb"),
    ],
)
def test_what_the_server_refuses_is_one_line_with_the_psycopg_error_as_cause(
    db: Database, action: str, result: str, says: str
) -> None:
    with pytest.raises(Refused, match=says) as caught:
        record(db.connect("app"), action, result=result)
    assert isinstance(caught.value.__cause__, psycopg.errors.InvalidParameterValue)
    assert "\n" not in str(caught.value)


def test_a_login_that_may_not_record_is_told_the_command_that_mends_it(db: Database) -> None:
    with pytest.raises(Refused, match='run: grant audit_writer to "stranger"'):
        record(db.connect("stranger"), "report.exported")


def test_a_lost_connection_is_a_failed_connection(db: Database) -> None:
    conn = db.connect("app")
    db.connect().execute("select pg_terminate_backend(%s)", (conn.info.backend_pid,))
    with pytest.raises(ConnectionFailed):
        record(conn, "report.exported")


@pytest.mark.parametrize("value", [b"5", True, 5.0, "a\x00b"])
def test_an_identifier_that_cannot_be_meant_is_named(db: Database, value: Any) -> None:
    with pytest.raises(InvalidInput, match="target_id"):
        record(db.connect("app"), "report.exported", target_id=value)


def test_values_that_no_json_can_hold_do_not_break_the_record(db: Database) -> None:
    record(db.connect("app"), "report.exported", new_values={"a\x00": ["\ud800", float("nan")]})
    assert db.events()[0]["new_values"] == {"a\ufffd": ["\ufffd", "nan"]}


def test_row_and_cursor_factories_of_the_caller_do_not_matter(db: Database) -> None:
    conn = db.connect("app", row_factory=psycopg.rows.dict_row, cursor_factory=psycopg.RawCursor)
    assert record(conn, "report.exported") == db.events()[0]["id"]


def test_the_asynchronous_form_records_the_same(db: Database) -> None:
    async def work() -> int:
        async with await psycopg.AsyncConnection.connect(db.conninfo("app")) as conn:
            return await record(conn, "report.exported", actor_id=7, details={"rows": 2})

    event_id = asyncio.run(work())
    (event,) = db.events()
    assert (event["id"], event["actor_id"], event["details"]) == (event_id, "7", {"rows": 2})


def test_the_asynchronous_form_raises_the_same(db: Database) -> None:
    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(db.conninfo("app")) as conn:
            with pytest.raises(Refused, match=r"category\.verb"):
                await record(conn, "Login")

    asyncio.run(work())


def test_an_event_of_the_log_itself_names_the_login(db: Database) -> None:
    db.connect("app_owner").execute("select audit.create_key()")
    row = (
        db.connect()
        .execute(
            "select actor_id, actor_type, db_user, source from audit.event"
            " where action = 'audit.key_created'"
        )
        .fetchone()
    )
    assert row == ("app_owner", "database", "app_owner", "system")


def test_each_action_of_the_log_itself_is_one_that_auditdb_brings(db: Database) -> None:
    rows = db.connect().execute(
        "select name from audit.action where category = 'audit' and not is_built_in"
    )
    assert rows.fetchall() == []


def test_an_event_of_the_log_itself_names_the_impersonator(db: Database) -> None:
    conn = db.connect("app_owner", autocommit=False)
    conn.execute("select set_config('auditdb.context', %s, true)", ('{"impersonator_id": "1"}',))
    conn.execute("select audit.create_key()")
    conn.commit()
    query = "select actor_id, impersonator_id from audit.event where action = 'audit.key_created'"
    assert db.connect().execute(query).fetchone() == ("app_owner", "1")


@pytest.mark.parametrize(
    "context",
    [
        "", "no json", "null", "3", "[1]", '"text"', "{}", '{"actor_id": null}', '{"actor_id": 7}',
        '{"actor_id": {"a": 1}, "actor_type": ["x"]}', '{"actor_type": "system"}',
        '{"source": ["web"], "impersonator_id": 1}', '{"actor_id": "7", "details": [1]}',
        '{"actor_id": "7", "details": {}}', '{"details": {"a": 1}}',
        '{"actor_id": "7", "details": {"a": 1, "moved": 2}}',
        '{"actor_id": "' + "é" * 300 + '", "source": "' + "x" * 300 + '"}',
    ],
    ids=lambda context: context[:40],
)  # fmt: skip
def test_what_is_captured_and_what_is_recorded_say_the_same_of_who_acts(
    db: Database, context: str
) -> None:
    db.connect().execute("insert into workflow (id, organization_id, name) values (1, 1, 'w')")
    conn = db.connect("app", autocommit=False)
    conn.execute("select set_config('auditdb.context', %s, true)", (context,))
    conn.execute("update workflow set name = 'v' where id = 1")
    conn.execute("select audit.record_event('report.exported')")
    conn.commit()
    captured, recorded = db.events("action <> 'workflow.created'")
    for name in ("actor_id", "actor_type", "impersonator_id", "source"):
        assert captured[name] == recorded[name], name
    # Capture adds what the server knows of a nameless client, and that a context was lost.
    own = {"application_name", "client_addr", "degraded"}
    told = {key: value for key, value in (captured["details"] or {}).items() if key not in own}
    assert told == (recorded["details"] or {})


def test_sql_records_under_the_context_in_force(db: Database) -> None:
    conn = db.connect("app", autocommit=False)
    conn.execute("select audit.set_context('7', 'api_key', '1', 'api', '2', '{\"a\": 1}')")
    conn.execute("select audit.record_event('report.exported', details => '{\"b\": 2}')")
    conn.commit()
    (event,) = db.events()
    assert (event["actor_id"], event["actor_type"], event["impersonator_id"]) == (
        "7", "api_key", "1",
    )  # fmt: skip
    assert (event["source"], event["organization_id"]) == ("api", "2")
    assert event["details"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("given", ["actor_type => 'martian'", "result => 'maybe'"])
def test_sql_refuses_an_actor_type_or_a_result_that_is_none(db: Database, given: str) -> None:
    says = given.replace(" =>", " is").replace("'", '"')
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=says):
        db.connect("app").execute(f"select audit.record_event('a.b', {given})".encode())
    assert db.events() == []


@pytest.mark.parametrize(
    ("details", "recorded"),
    [("{}", {"b": 2}), ('["a"]', {"b": 2}), ('"a"', {"b": 2}),
     ('{"new_role": "OWNER", "degraded": {}, "a": 1}', {"a": 1, "b": 2})],
)  # fmt: skip
def test_details_of_a_context_are_an_object_and_never_stand_for_the_log_s_own(
    db: Database, details: str, recorded: dict[str, int]
) -> None:
    conn = db.connect("app", autocommit=False)
    context = f'{{"actor_id": "7", "details": {details}}}'
    conn.execute("select set_config('auditdb.context', %s, true)", (context,))
    conn.execute("select audit.record_event('report.exported', details => '{\"b\": 2}')")
    conn.commit()
    assert db.events()[0]["details"] == recorded


SECRETS: dict[str, Any] = {
    "password": "hunter2",
    "url": "https://u:hunter2@x/",
    "k": {"api_key": "hunter2", "n": 1, "token_type": "x"},
    "said": ["Authorization: Bearer hunter2hunter2"],
}
SHOWN = {
    "password": "[redacted]",
    "url": "https://u:[redacted]@x/",
    "k": {"api_key": "[redacted]", "n": 1, "token_type": "x"},
    "said": ["Authorization: [redacted]"],
}


def test_no_secret_is_recorded(db: Database) -> None:
    conn = db.connect("app")
    record(conn, "invoice.paid", details=SECRETS, old_values=SECRETS, new_values=SECRETS)
    (event,) = db.events()
    assert event["details"] == event["old_values"] == event["new_values"] == SHOWN


def test_no_secret_of_the_command_line_is_recorded(db: Database) -> None:
    arguments = ["record", "invoice.paid", "--detail", "password=hunter2"]
    result = CliRunner().invoke(main, ["--dsn", db.conninfo("app"), *arguments])
    assert result.exit_code == 0, result.output
    assert [event["details"] for event in db.events()] == [{"password": "[redacted]"}]


def test_no_secret_of_an_error_is_recorded(db: Database) -> None:
    with pytest.raises(RuntimeError), attempt(db.connect("app"), "invoice.paid"):
        raise RuntimeError("could not connect to postgresql://u:hunter2@h/db")
    (event,) = db.events()
    assert event["details"]["error"]["message"] == (
        "could not connect to postgresql://u:[redacted]@h/db"
    )


def test_details_that_cannot_be_taken_apart_are_an_object_still(db: Database) -> None:
    conn = db.connect()
    conn.execute(
        "create or replace function audit_private.redact_json(value jsonb) returns jsonb"
        " language sql immutable set search_path = pg_catalog, pg_temp"
        """ return '"[redacted]"'::jsonb"""
    )
    record(conn, "invoice.paid", details={"a": 1})
    assert [event["details"] for event in db.events()] == [{"all": "[redacted]"}]


def nested(depth: int, how: str) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if how == "lists" else {"in": value}
    return value


@pytest.mark.parametrize("how", ["lists", "objects"])
@pytest.mark.parametrize("depth", [90, 400, 100_000])
def test_no_depth_of_what_a_client_sends_makes_the_action_fail(
    db: Database, depth: int, how: str
) -> None:
    conn, body = db.connect("app"), nested(depth, how)
    with context(conn, actor_id=7, details={"body": body}):
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
        record(conn, "report.exported", new_values={"body": body})
    with pytest.raises(PermissionError) as caught, context(actor_id=7):
        with attempt(conn, "report.imported", details={"body": body}):
            raise PermissionError
    assert not hasattr(caught.value, "__notes__")
    events = db.events()
    assert [event["actor_id"] for event in events] == ["7"] * 3
    kept = str(events[1]["new_values"])
    assert ("[too deep]" in kept) == (depth > 100)
    assert kept.count("[" if how == "lists" else "{") > 80


def test_what_holds_itself_is_recorded_without_an_end(db: Database) -> None:
    body: list[Any] = [1]
    body += [body, body]
    record(db.connect("app"), "report.exported", details={"body": body})
    assert db.events()[0]["details"] == {"body": [1, "[too deep]", "[too deep]"]}


def test_keys_and_numbers_that_json_lacks_are_texts(db: Database) -> None:
    conn = db.connect("app")
    given: dict[Any, Any] = {1: "a", None: 2**20_000}
    with context(conn, details=given):
        record(conn, "report.exported", new_values=given)
    (event,) = db.events()
    for found in (event["details"], event["new_values"]):
        assert found == {"1": "a", "None": hex(2**20_000)}
