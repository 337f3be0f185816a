"""Statements in one round trip: how a block ends that fails, or is interrupted, on its way in."""

from __future__ import annotations

import asyncio
import select
import signal
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from auditdb import Refused
from auditdb.connection.begin import begin_with, begin_with_async
from auditdb.connection.one_query import AsyncOneQueryTransaction, OneQueryTransaction
from tests.conftest import Database

FAILS: Any = ("select 1 / 0", ())


class Late:
    """A statement that is sent only when the server has answered the one before."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    def __iter__(self) -> Iterator[Any]:
        assert select.select([self._conn.fileno()], [], [], 30)[0]
        return iter(("select 2", ()))


def test_an_error_that_comes_early_is_raised_and_not_logged(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    conn: Any = db.connect("app", autocommit=False)
    late: Any = Late(conn)
    with (
        pytest.raises(Refused, match="division by zero"),
        begin_with(conn, "audit_writer", FAILS, late),
    ):
        pytest.fail("the block was entered")
    assert caplog.messages == []
    assert conn.execute("select 1").fetchone() == (1,) and not conn.autocommit


def test_an_early_error_of_the_asynchronous_form_is_raised_and_not_logged(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(db.conninfo("app")) as conn:
            late: Any = Late(conn)
            with pytest.raises(Refused, match="division by zero"):
                async with begin_with_async(conn, "audit_writer", FAILS, late):
                    pytest.fail("the block was entered")
            assert not conn.autocommit

    asyncio.run(work())
    assert [m for m in caplog.messages if "ignored" in m] == []


def test_a_connection_that_is_lost_early_is_not_logged(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    conn = db.connect("app")
    db.connect().execute("select pg_terminate_backend(%s)", (conn.info.backend_pid,))
    late: Any = Late(conn)
    with pytest.raises(Exception, match="terminat"), begin_with(conn, "audit_writer", FAILS, late):
        pytest.fail("the block was entered")
    assert caplog.messages == []


def interrupted(self: object) -> Iterator[None]:
    raise KeyboardInterrupt
    yield


def test_an_interrupt_stays_one_and_a_connection_that_is_stuck_is_closed(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn = db.connect("app", autocommit=False)
    monkeypatch.setattr(psycopg.Pipeline, "_exit_gen", interrupted)
    with pytest.raises(KeyboardInterrupt), begin_with(conn, "audit_writer", ("select 1", ())):
        pytest.fail("the block was entered")
    assert conn.closed


def test_an_interrupt_of_the_asynchronous_form_stays_one(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        conn = await psycopg.AsyncConnection.connect(db.conninfo("app"))
        try:
            with pytest.raises(KeyboardInterrupt):
                async with begin_with_async(conn, "audit_writer", ("select 1", ())):
                    pytest.fail("the block was entered")
            assert conn.closed
        finally:
            await conn.close()

    monkeypatch.setattr(psycopg.AsyncPipeline, "_exit_gen", interrupted)
    asyncio.run(work())


SLEEP = b"select pg_sleep(60)"


def wait_until_asleep(db: Database, pid: int) -> None:
    """Return when the server has begun to sleep."""
    query = "select wait_event from pg_stat_activity where pid = %s"
    with psycopg.connect(db.conninfo(), autocommit=True) as watcher:
        while watcher.execute(query, [pid]).fetchone() != ("PgSleep",):
            pass


def test_an_interrupt_on_the_way_into_the_block_leaves_the_connection_usable(db: Database) -> None:
    conn = db.connect("app", autocommit=False)

    def interrupt(pid: int) -> None:
        wait_until_asleep(db, pid)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt, args=[conn.info.backend_pid])
    thread.start()
    with pytest.raises(KeyboardInterrupt), OneQueryTransaction(conn, SLEEP):
        pytest.fail("the block was entered")
    thread.join()
    with conn.transaction():
        assert conn.execute("select 1").fetchone() == (1,)


def test_a_cancelled_task_on_the_way_into_the_block_leaves_the_connection_usable(
    db: Database,
) -> None:
    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(db.conninfo("app")) as conn:

            async def enter() -> None:
                async with AsyncOneQueryTransaction(conn, SLEEP):
                    pytest.fail("the block was entered")

            task = asyncio.create_task(enter())
            await asyncio.to_thread(wait_until_asleep, db, conn.info.backend_pid)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with conn.transaction():
                await conn.execute("select 1")

    asyncio.run(work())


def test_a_block_is_entered_only_once(db: Database) -> None:
    conn = db.connect("app")
    with OneQueryTransaction(conn, b"select 1") as transaction:
        with pytest.raises(TypeError, match="only once"), transaction:
            pytest.fail("the block was entered")
        conn.execute("select 1")
