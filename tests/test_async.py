"""The asynchronous forms when something goes wrong: errors, cancellation, a lost connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from auditdb import (
    ConnectionFailed,
    InvalidInput,
    Refused,
    attempt,
    auth,
    context,
    reader,
    record,
)
from auditdb.connection.one_query import AsyncOneQueryTransaction
from tests.conftest import Database

RENAME = "update workflow set name = name || '.' where id = 1"
AUTOCOMMIT = pytest.mark.parametrize("autocommit", [True, False])


@pytest.fixture
def workflow(db: Database) -> Database:
    """A database with one workflow to change."""
    db.connect().execute("insert into workflow (id, organization_id, name) values (1, 1, 'w')")
    return db


def recorded(db: Database) -> list[dict[str, Any]]:
    return db.events("action <> 'workflow.created'")


def modified(db: Database) -> list[dict[str, Any]]:
    return db.events("action = 'workflow.modified'")


@asynccontextmanager
async def used(db: Database, autocommit: bool) -> AsyncIterator[AsyncConnection[Any]]:
    """Open a connection that has set a context before: the next begins by one simple query."""
    async with await AsyncConnection.connect(db.conninfo("app"), autocommit=autocommit) as conn:
        async with context(conn, actor_id=1):
            pass
        yield conn
        if not conn.closed:
            assert conn.info.transaction_status == TransactionStatus.IDLE
            assert conn.autocommit is autocommit


def go(
    db: Database, work: Callable[[AsyncConnection[Any]], Awaitable[None]], autocommit: bool = True
) -> None:
    async def run() -> None:
        async with used(db, autocommit) as conn:
            await work(conn)

    asyncio.run(run())


@AUTOCOMMIT
def test_an_error_of_the_block_rolls_back_and_reaches_the_caller_unchanged(
    workflow: Database, autocommit: bool
) -> None:
    async def work(conn: AsyncConnection[Any]) -> None:
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with context(conn, actor_id=7):
                await conn.execute(RENAME)
                await conn.execute("select 1 / 0")
        async with context(conn, actor_id=8):
            await conn.execute(RENAME)

    go(workflow, work, autocommit)
    assert [event["actor_id"] for event in modified(workflow)] == ["8"]


def test_the_block_is_the_short_one(workflow: Database) -> None:
    async def work(conn: AsyncConnection[Any]) -> None:
        async with context(conn, actor_id=7) as transaction:
            assert isinstance(transaction, AsyncOneQueryTransaction)

    go(workflow, work)


@AUTOCOMMIT
def test_a_block_left_on_purpose_is_rolled_back(workflow: Database, autocommit: bool) -> None:
    async def work(conn: AsyncConnection[Any]) -> None:
        async with context(conn, actor_id=7) as transaction:
            await conn.execute(RENAME)
            raise psycopg.Rollback(transaction)

    go(workflow, work, autocommit)
    assert modified(workflow) == []


@AUTOCOMMIT
def test_nested_blocks_keep_their_own_errors(workflow: Database, autocommit: bool) -> None:
    async def work(conn: AsyncConnection[Any]) -> None:
        async with context(conn, actor_id=7, source="api"):
            with pytest.raises(ZeroDivisionError):
                async with context(conn, actor_id=8):
                    await conn.execute(RENAME)
                    raise ZeroDivisionError
            await conn.execute(RENAME)

    go(workflow, work, autocommit)
    assert [(e["actor_id"], e["source"]) for e in modified(workflow)] == [("7", "api")]


@AUTOCOMMIT
def test_a_commit_that_fails_reaches_the_caller(db: Database, autocommit: bool) -> None:
    db.connect("app_owner").execute(
        "alter table workflow add unique (name) deferrable initially deferred"
    )

    async def work(conn: AsyncConnection[Any]) -> None:
        with pytest.raises(psycopg.errors.UniqueViolation):
            async with context(conn, actor_id=7):
                for _ in range(2):
                    await conn.execute(
                        "insert into workflow (organization_id, name) values (1, 'w')"
                    )

    go(db, work, autocommit)


@AUTOCOMMIT
def test_a_login_that_may_no_longer_is_refused_and_can_go_on(
    workflow: Database, autocommit: bool
) -> None:
    async def work(conn: AsyncConnection[Any]) -> None:
        # Refused within the simple query that begins the block.
        with pytest.raises(Refused, match="permission denied for function pg_read_file"):
            reads_a_file = b"select pg_catalog.pg_read_file('/etc/passwd')"
            async with AsyncOneQueryTransaction(conn, reads_a_file):
                pytest.fail("the block was entered")
        assert conn.info.transaction_status == TransactionStatus.IDLE
        async with context(conn, actor_id=7):
            await conn.execute(RENAME)

    go(workflow, work, autocommit)
    assert len(modified(workflow)) == 1


@AUTOCOMMIT
def test_a_connection_lost_before_the_block_is_a_failed_connection(
    db: Database, autocommit: bool
) -> None:
    async def work(conn: AsyncConnection[Any]) -> None:
        db.connect().execute("select pg_terminate_backend(%s)", [conn.info.backend_pid])
        with pytest.raises(ConnectionFailed):
            async with context(conn, actor_id=7):
                pytest.fail("the block was entered")
        with pytest.raises(ConnectionFailed):
            async with context(conn, actor_id=7):
                pytest.fail("the block was entered")

    go(db, work, autocommit)


@AUTOCOMMIT
def test_a_connection_lost_in_the_block_is_the_callers_own_error(
    workflow: Database, autocommit: bool
) -> None:
    async def work(conn: AsyncConnection[Any]) -> None:
        with pytest.raises(psycopg.OperationalError):
            async with context(conn, actor_id=7):
                await conn.execute(RENAME)
                workflow.connect().execute(
                    "select pg_terminate_backend(%s)", [conn.info.backend_pid]
                )
                await conn.execute(RENAME)

    go(workflow, work, autocommit)
    assert modified(workflow) == []


@AUTOCOMMIT
def test_a_task_cancelled_in_the_block_rolls_back(workflow: Database, autocommit: bool) -> None:
    async def work(conn: AsyncConnection[Any]) -> None:
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

    go(workflow, work, autocommit)
    assert modified(workflow) == []


@AUTOCOMMIT
def test_records_raise_as_their_twins_and_leave_the_connection(
    db: Database, autocommit: bool
) -> None:
    async def work(conn: AsyncConnection[Any]) -> None:
        with pytest.raises(Refused, match=r"category\.verb"):
            await record(conn, "Login")
        await conn.rollback()
        with pytest.raises(InvalidInput, match="target_id"):
            await record(conn, "a.b", target_id=7.0)  # type: ignore[call-overload]
        await record(conn, "a.b")
        await conn.commit()

    go(db, work, autocommit)
    assert db.actions() == ["a.b"]


@AUTOCOMMIT
def test_an_attempt_that_fails_is_recorded_within_a_context(
    workflow: Database, autocommit: bool
) -> None:
    async def work(conn: AsyncConnection[Any]) -> None:
        with pytest.raises(PermissionError):
            async with context(conn, actor_id=7, source="api"):
                await conn.execute(RENAME)
                async with attempt(conn, "report.exported"):
                    raise PermissionError("no")
        async with attempt(conn, "report.exported", success=True):
            await conn.execute(RENAME)

    go(workflow, work, autocommit)
    seen = [(e["action"], e["result"], e["actor_id"]) for e in recorded(workflow)]
    assert seen[0] == ("report.exported", "denied", "7")
    assert [action for action, *_ in seen[1:]] == ["workflow.modified", "report.exported"]


def test_a_cancelled_attempt_is_no_failure(workflow: Database) -> None:
    async def work(conn: AsyncConnection[Any]) -> None:
        with pytest.raises(asyncio.CancelledError):
            async with attempt(conn, "report.exported"):
                await conn.execute(RENAME)
                raise asyncio.CancelledError

    go(workflow, work)
    assert recorded(workflow) == []


def test_an_attempt_on_a_lost_connection_is_recorded_on_another(workflow: Database) -> None:
    async def work(conn: AsyncConnection[Any]) -> None:
        with pytest.raises(psycopg.OperationalError):
            async with attempt(conn, "report.exported"):
                workflow.connect().execute(
                    "select pg_terminate_backend(%s)", [conn.info.backend_pid]
                )
                await conn.execute(RENAME)

    go(workflow, work)
    (event,) = recorded(workflow)
    assert (event["action"], event["result"]) == ("report.exported", "failure")


def test_if_nothing_can_be_recorded_the_error_has_a_note(workflow: Database) -> None:
    @asynccontextmanager
    async def nowhere() -> AsyncIterator[AsyncConnection[Any]]:
        raise psycopg.OperationalError("no connection left")
        yield

    async def work(conn: AsyncConnection[Any]) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            async with attempt(conn, "report.exported", connect=nowhere):
                raise ZeroDivisionError
        (note,) = caught.value.__notes__
        assert "could not record that report.exported failed" in note

    go(workflow, work)
    assert recorded(workflow) == []


@AUTOCOMMIT
def test_a_reader_that_is_refused_or_lost_raises_as_its_twin(
    db: Database, autocommit: bool
) -> None:
    async def work(conn: AsyncConnection[Any]) -> None:
        log = reader(conn, key=db.key, viewer_id=1, organization_id=1)
        with pytest.raises(Refused, match="grant audit_reader"):
            await log.page()
        with pytest.raises(InvalidInput, match="1 to 10000"):
            log.events(batch=0)
        with pytest.raises(Refused, match="grant audit_reader"):
            async for _ in log.events():
                pytest.fail("an event was read")
        db.connect().execute("select pg_terminate_backend(%s)", [conn.info.backend_pid])
        with pytest.raises(ConnectionFailed):
            await log.page()

    go(db, work, autocommit)


@pytest.mark.parametrize("verb", auth.VERBS)
def test_events_of_authentication_raise_as_on_other_connections(db: Database, verb: str) -> None:
    event = getattr(auth, verb)(*((7, 8) if "impersonation" in verb else (7,)))

    async def work(conn: AsyncConnection[Any]) -> None:
        async with context(conn, source="api"):
            await record(conn, event)
        db.connect().execute("select pg_terminate_backend(%s)", [conn.info.backend_pid])
        with pytest.raises(ConnectionFailed):
            await record(conn, event)

    go(db, work)
    assert [event["source"] for event in db.events()] == ["api"]
