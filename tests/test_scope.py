"""The context variable: one of each task and thread, for whatever connection comes."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from auditdb import InvalidInput, attempt, auth, context, record, update_context
from auditdb.write.scope import current_claim
from tests.conftest import Database

PROMOTE = "update membership set role = role || '.' where user_id = 2"


def told(event: dict[str, Any]) -> tuple[Any, ...]:
    details = {k: v for k, v in (event["details"] or {}).items() if "role" not in k}
    return (event["actor_id"], event["source"], details)


def test_what_is_recorded_says_who_acts_without_a_context_on_its_connection(db: Database) -> None:
    conn = db.connect("app")
    with context(actor_id=7, source="api", organization_id=1, details={"ip": "192.0.2.1"}):
        record(conn, "report.exported", details={"rows": 2})
        record(conn, "report.exported", actor_id=8, source="cli")
    record(conn, "report.exported")
    first, second, third = db.events()
    assert told(first) == ("7", "api", {"ip": "192.0.2.1", "rows": 2})
    assert first["organization_id"] == "1"
    assert told(second) == ("8", "cli", {"ip": "192.0.2.1"})
    assert told(third) == ("app", "sql", {})


def test_a_block_on_a_connection_takes_what_is_in_force(db: Database) -> None:
    conn = db.connect("app")
    with context(actor_id=7, source="api"), context(conn, details={"ip": "192.0.2.1"}):
        conn.execute(PROMOTE)
        with context(actor_id=8), context(conn, source="cli"):
            conn.execute(PROMOTE)
        conn.execute(PROMOTE)
    assert [told(event) for event in db.events()] == [
        ("7", "api", {"ip": "192.0.2.1"}),
        ("8", "cli", {"ip": "192.0.2.1"}),
        ("7", "api", {"ip": "192.0.2.1"}),
    ]


def test_a_block_on_a_connection_is_in_force_for_another(db: Database) -> None:
    conn, other = db.connect("app"), db.connect("app")
    with context(conn, actor_id=7, source="api"):
        record(other, "report.exported")
        with context(other):
            other.execute(PROMOTE)
    assert current_claim() is None
    assert [told(event) for event in db.events()] == [("7", "api", {})] * 2


def test_what_sql_sets_on_the_connection_of_a_block_counts_within_it(db: Database) -> None:
    conn = db.connect("app")
    with context(conn, actor_id=7):
        conn.execute("select audit.set_context('8', source => 'scim')")
        record(conn, "report.exported")
        with context(conn, details={"step": "a"}):
            conn.execute(PROMOTE)
    assert [told(event) for event in db.events()] == [
        ("8", "scim", {}),
        ("8", "scim", {"step": "a"}),
    ]


def test_contexts_nest_and_give_way(db: Database) -> None:
    with context(actor_id=7, source="api", details={"a": 1, "b": 1}):
        with pytest.raises(ZeroDivisionError), context(impersonator_id=1, details={"b": 2}):
            claim = current_claim()
            assert claim is not None
            assert (claim.actor_id, claim.impersonator_id) == ("7", "1")
            assert claim.details == {"a": 1, "b": 2}
            raise ZeroDivisionError
        claim = current_claim()
        assert claim is not None
        assert (claim.impersonator_id, claim.details) == (None, {"a": 1, "b": 1})
    assert current_claim() is None


def test_an_actor_that_is_known_late_is_told_to_the_rest_of_the_block(db: Database) -> None:
    conn = db.connect("app")
    with context(source="api", details={"ip": "192.0.2.1"}):
        record(conn, auth.login(None, result="failure"))
        update_context(actor_id=7, details={"session_id": "s"})
        with context(conn):
            conn.execute(PROMOTE)
    first, second = db.events()
    assert told(first) == (None, "api", {"ip": "192.0.2.1"})
    assert told(second) == ("7", "api", {"ip": "192.0.2.1", "session_id": "s"})
    with pytest.raises(LookupError, match=r"inside of auditdb\.context"):
        update_context(actor_id=7)


def test_an_attempt_is_recorded_under_what_is_in_force(db: Database) -> None:
    conn = db.connect("app")
    with context(actor_id=7, source="api"), pytest.raises(PermissionError):
        with attempt(conn, "membership.role_changed", organization_id=1):
            raise PermissionError("only owners promote")
    (event,) = db.events()
    assert (event["result"], event["actor_id"], event["source"]) == ("denied", "7", "api")


def test_tasks_have_each_their_own(db: Database) -> None:
    async def act(actor: int) -> None:
        async with await psycopg.AsyncConnection.connect(db.conninfo("app")) as conn:
            with context(actor_id=actor, details={"task": actor}):
                for _ in range(5):
                    await asyncio.sleep(0)
                    async with context(conn):
                        await conn.execute(
                            "insert into workflow (organization_id, name) values (1, %s)",
                            [str(actor)],
                        )
                    await record(conn, "report.exported", target_id=actor)

    async def main() -> None:
        await asyncio.gather(*map(act, range(20)))

    asyncio.run(main())
    events = db.events()
    assert len(events) == 200
    for event in events:
        made = (event["new_values"] or {}).get("name", event["target_id"])
        assert event["actor_id"] == made == str(event["details"]["task"])


def test_threads_have_each_their_own_and_share_what_they_are_given(db: Database) -> None:
    def seen() -> str | None:
        claim = current_claim()
        return None if claim is None else claim.actor_id

    def update() -> None:
        update_context(actor_id=8)

    with ThreadPoolExecutor(1) as pool, context(actor_id=7):
        assert pool.submit(seen).result() is None
        assert pool.submit(contextvars.copy_context().run, seen).result() == "7"
        pool.submit(contextvars.copy_context().run, update).result()
        assert seen() == "8"


def test_a_block_may_end_in_another_copy_of_the_context() -> None:
    block = context(actor_id=7)
    contextvars.copy_context().run(block.__enter__)
    contextvars.copy_context().run(block.__exit__, None, None, None)


def acting() -> str | None:
    claim = current_claim()
    return None if claim is None else claim.actor_id


def test_a_task_begun_in_a_block_acts_so_also_on_the_connection_of_the_block(db: Database) -> None:
    async def main() -> None:
        given_back = asyncio.Event()
        options = {"autocommit": True}
        async with AsyncConnectionPool(
            db.conninfo("app"), kwargs=options, max_size=1, min_size=1
        ) as pool:

            async def later() -> None:
                await given_back.wait()
                async with pool.connection() as conn:
                    await record(conn, "report.exported")
                    async with context(conn):
                        await conn.execute(PROMOTE)

            async with pool.connection() as conn, context(conn, actor_id=7, source="api"):
                task = asyncio.create_task(later())
            given_back.set()
            await task

    asyncio.run(main())
    assert [told(event) for event in db.events()] == [("7", "api", {})] * 2


def test_the_block_of_a_generator_that_a_task_leaves_ends() -> None:
    async def rows() -> AsyncIterator[int]:
        with context(actor_id=7):
            yield 1
            yield 2

    async def main() -> str | None:
        with context(actor_id=8):
            async for _ in rows():
                break
            gc.collect()
            # The event loop ends it in a task of its own.
            for _ in range(5):
                await asyncio.sleep(0)
            return acting()

    assert asyncio.run(main()) == "8"
    assert acting() is None


def test_blocks_may_end_in_another_order_than_they_began() -> None:
    def block(actor: int) -> Iterator[None]:
        with context(actor_id=actor):
            yield

    first, second = block(1), block(2)
    next(first), next(second)
    assert next(first, acting()) == "2"
    assert acting() == "2"
    assert next(second, acting()) == "2"
    assert acting() is None


def test_a_context_may_be_entered_again_also_by_threads_at_a_time() -> None:
    system = context(actor_id=7)
    both = threading.Barrier(2, timeout=10)

    def enter() -> list[str | None]:
        with system:
            both.wait()
            seen = [acting()]
            both.wait()
        with context(actor_id=8), system, system:
            seen.append(acting())
        return [*seen, acting()]

    with ThreadPoolExecutor(2) as pool:
        threads = [pool.submit(enter) for _ in range(2)]
        assert [thread.result() for thread in threads] == [["7", "7", None]] * 2


@pytest.mark.parametrize("value", [True, 1.5, b"7", "x" * 201])
def test_an_identifier_that_is_none_is_refused_at_once(value: Any) -> None:
    with pytest.raises(InvalidInput, match="actor_id"):
        context(actor_id=value)


def test_none_is_no_connection() -> None:
    with pytest.raises(TypeError, match="conn is a NoneType; give a connection of psycopg"):
        context(None, actor_id=7)  # type: ignore[call-overload]


def test_secrets_do_not_enter_the_variable() -> None:
    with context(details={"token": "hunter2", "at": {1}}):
        claim = current_claim()
        assert claim is not None and claim.details == {"token": "[redacted]", "at": [1]}
        assert "hunter2" not in claim.setting
