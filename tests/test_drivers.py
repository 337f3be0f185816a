"""Every driver: context, record and attempt do the same on connections of psycopg's, psycopg2's
and asyncpg's."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from functools import partial, wraps
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import psycopg2
import psycopg2.extensions
import psycopg2.pool
import psycopg_pool
import pytest
from psycopg.conninfo import make_conninfo

import auditdb
from auditdb import AuditError, ConnectionFailed, InvalidInput, Refused
from auditdb.write.scope import current_claim
from tests.conftest import Database
from tests.connections import DRIVERS, Talk, asyncpg_arguments, talk
from tests.pooler import pooler
from tests.server import Server

RENAME = "update workflow set name = name || '.' where id = 1"
INSERT = "insert into workflow (organization_id, name) values (1, 'w')"
ZERO = "select 1 / 0"
CURRENT = "select audit.current_context()"
SLEEPING = """
select count(*) from pg_stat_activity
where wait_event = 'PgSleep' and datname = current_database()
"""

each = pytest.mark.parametrize("driver", DRIVERS)
Case = Callable[[Talk, Database], Awaitable[None]]


def on_each(case: Case) -> Callable[[Database, str], None]:
    """Make a test of each driver of a function that talks on a connection of the application."""

    @each
    @wraps(case)
    def test(db: Database, driver: str) -> None:
        async def main() -> None:
            db.connect().execute(
                "insert into workflow (id, organization_id, name) values (1, 1, 'w')"
            )
            async with talk(driver, db.conninfo("app")) as conn:
                await case(conn, db)

        asyncio.run(main())

    del test.__wrapped__
    return test


def modified(db: Database) -> list[dict[str, Any]]:
    return db.events("action = 'workflow.modified'")


def who(db: Database) -> list[tuple[Any, Any]]:
    return [(event["actor_id"], event["source"]) for event in modified(db)]


def sqlstate(error: Any) -> Any:
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


# The context


@on_each
async def test_events_of_the_block_say_who_acts_and_the_block_commits(
    conn: Talk, db: Database
) -> None:
    for _ in range(2):
        async with conn.context(
            actor_id=7, impersonator_id=1, source="api", details={"ip": "192.0.2.1", "at": [1]}
        ):
            await conn.run(RENAME)
        assert conn.is_idle
        (*_, event) = modified(db)
        assert (event["actor_id"], event["actor_type"], event["source"]) == ("7", "user", "api")
        assert (event["impersonator_id"], event["db_user"]) == ("1", "app")
        assert event["details"] == {"ip": "192.0.2.1", "at": [1]}
    async with conn.transaction():
        await conn.run(RENAME)
    (*_, event) = modified(db)
    assert (event["actor_type"], event["source"]) == ("database", "sql")


@on_each
async def test_an_inner_context_inherits_and_gives_way(conn: Talk, db: Database) -> None:
    async with conn.context(
        actor_id=7, source="api", organization_id=1, details={"ip": "192.0.2.1", "step": "a"}
    ):
        outer = await conn.run(CURRENT)
        async with conn.context(impersonator_id=1, details={"step": "b"}):
            assert await conn.run(CURRENT) == {
                **outer, "impersonator_id": "1", "details": {"ip": "192.0.2.1", "step": "b"},
            }  # fmt: skip
        assert await conn.run(CURRENT) == outer


@on_each
async def test_an_inner_block_that_fails_is_undone_alone(conn: Talk, db: Database) -> None:
    async with conn.context(actor_id=7):
        await conn.run(RENAME)
        with pytest.raises(Exception, match="zero") as caught:
            async with conn.context(actor_id=8):
                await conn.run(RENAME)
                async with conn.context(actor_id=9):
                    await conn.run(RENAME)
                await conn.run(ZERO)
        assert not isinstance(caught.value, AuditError)
        with pytest.raises(ZeroDivisionError):
            async with conn.context(actor_id=8):
                await conn.run(RENAME)
                raise ZeroDivisionError
        await conn.run(RENAME)
    assert who(db) == [("7", "web"), ("7", "web")]


@on_each
async def test_inside_of_a_transaction_the_block_is_a_savepoint(conn: Talk, db: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with conn.transaction():
            async with conn.context(actor_id=7):
                await conn.run(RENAME)
            raise ZeroDivisionError
    assert modified(db) == []
    async with conn.transaction():
        await conn.run("select audit.set_context('7', source => 'scim')")
        async with conn.context(details={"step": "a"}):
            await conn.run(RENAME)
            await conn.run("select audit.clear_context()")
        await conn.run(RENAME)
        await conn.run("savepoint auditdb")
        async with conn.context(actor_id=8):
            await conn.run(RENAME)
        await conn.run("rollback to savepoint auditdb")
        await conn.run(RENAME)
    assert conn.is_idle
    assert who(db) == [("7", "scim")] * 3
    assert [event["details"] for event in modified(db)] == [{"step": "a"}, None, None]


@on_each
async def test_in_a_transaction_without_context_none_remains(conn: Talk, db: Database) -> None:
    async with conn.transaction():
        async with conn.context(actor_id=7):
            pass
        assert await conn.run(CURRENT) is None


@on_each
async def test_errors_of_the_block_and_of_the_commit_are_the_drivers_own(
    conn: Talk, db: Database
) -> None:
    db.connect("app_owner").execute(
        "alter table workflow add unique (name) deferrable initially deferred"
    )
    for sql, state in ((ZERO, "22012"), (INSERT, "23505")):
        with pytest.raises(Exception, match=r"zero|unique") as caught:
            async with conn.context(actor_id=7):
                await conn.run(sql)
        assert sqlstate(caught.value) == state
        assert not isinstance(caught.value, AuditError)
        assert conn.is_idle
    assert current_claim() is None
    async with conn.context(actor_id=7):
        await conn.run(RENAME)
    assert len(modified(db)) == 1


@on_each
async def test_a_transaction_in_an_error_state_is_refused_and_stays(
    conn: Talk, db: Database
) -> None:
    with pytest.raises(Exception, match="aborted"):
        async with conn.transaction():
            with pytest.raises(Exception, match="zero"):
                await conn.run(ZERO)
            with pytest.raises(Refused, match="aborted"):
                async with conn.context(actor_id=7):
                    pytest.fail("the block was entered")
            with pytest.raises(Refused, match="aborted"):
                await conn.record("report.exported")
            await conn.run("select 1")
    assert db.events("action !~ 'workflow'") == []


@on_each
async def test_an_error_that_the_inner_block_swallowed_is_not_committed_as_success(
    conn: Talk, db: Database
) -> None:
    with pytest.raises(Exception, match="aborted"):
        async with conn.transaction():
            await conn.run(RENAME)
            async with conn.context(actor_id=7):
                with pytest.raises(Exception, match="zero"):
                    await conn.run(ZERO)
    assert modified(db) == []


@on_each
async def test_what_is_in_force_without_a_connection_is_taken(conn: Talk, db: Database) -> None:
    with auditdb.context(source="api", details={"ip": "192.0.2.1"}):
        auditdb.update_context(actor_id=7)
        async with conn.context(details={"step": "a"}):
            await conn.run(RENAME)
            with auditdb.context(actor_id=8):
                async with conn.context():
                    await conn.run(RENAME)
        await conn.record("report.exported")
        await conn.commit()
    assert who(db) == [("7", "api"), ("8", "api")]
    assert modified(db)[0]["details"] == {"ip": "192.0.2.1", "step": "a"}
    (event,) = db.events("action = 'report.exported'")
    assert (event["actor_id"], event["source"]) == ("7", "api")


@on_each
async def test_no_value_ends_its_statement(conn: Talk, db: Database) -> None:
    for actor in ("O'Brien", "'; drop table workflow; --", "\\'", '"}', "$$", "%s", "é€"):
        async with conn.context(actor_id=actor, details={"note": actor, "token": "hunter2"}):
            said = await conn.run(CURRENT)
        assert (said["actor_id"], said["details"]) == (
            actor,
            {"note": actor, "token": "[redacted]"},
        )
        await conn.record("report.exported", target_id=actor, details={"note": actor})
        await conn.commit()
        (*_, event) = db.events()
        assert (event["target_id"], event["details"]) == (actor, {"note": actor})


@on_each
async def test_an_interruption_rolls_back(conn: Talk, db: Database) -> None:
    for kind in (KeyboardInterrupt, SystemExit, GeneratorExit):
        with pytest.raises(kind):
            async with conn.context(actor_id=7):
                await conn.run(RENAME)
                raise kind
        with pytest.raises(kind):
            async with conn.attempt("report.exported"):
                await conn.run(RENAME)
                raise kind
        assert conn.is_idle
    assert [*modified(db), *db.events("action = 'report.exported'")] == []


@on_each
async def test_what_is_set_at_less_cost_is_what_the_server_would_set(
    conn: Talk, db: Database
) -> None:
    for given in (
        {},
        {"actor_id": "é€'\\"},
        {"actor_type": "system", "source": "cli", "organization_id": 5},
        {"details": {"a": None, "b": {"c": None, "d": [1, None, 1.5, "€"]}, "token": "x"}},
    ):
        async with conn.context(**given):
            outermost = await conn.run(CURRENT)
        async with conn.transaction(), conn.context(**given):
            assert await conn.run(CURRENT) == outermost


@each
def test_a_reader_may_not_set_a_context(db: Database, driver: str) -> None:
    async def main() -> None:
        async with talk(driver, db.conninfo("app_reader")) as conn:
            with pytest.raises(Refused, match='context; run: grant audit_writer to "app_reader"'):
                async with conn.context(actor_id=7):
                    pytest.fail("the block was entered")
            assert conn.is_idle

    asyncio.run(main())


@each
@pytest.mark.parametrize("work", ["context", "record", "attempt"])
def test_a_login_that_may_not_is_refused_with_the_command_that_mends_it(
    db: Database, driver: str, work: str
) -> None:
    async def main() -> None:
        async with talk(driver, db.conninfo("stranger")) as conn:
            with pytest.raises(Exception, match="grant audit_writer") as caught:
                if work == "context":
                    async with conn.context(actor_id=7):
                        pytest.fail("the block was entered")
                elif work == "record":
                    await conn.record("report.exported")
                else:
                    async with conn.attempt("report.exported", success=True):
                        pass
            assert isinstance(caught.value, Refused)
            assert str(caught.value).endswith('; run: grant audit_writer to "stranger"')
            assert "\n" not in str(caught.value)
            assert sqlstate(caught.value.__cause__) == "42501"
            if work == "record" and not conn.is_idle:
                conn.conn.rollback()
            assert conn.is_idle
            assert await conn.run("select 1") == 1

    asyncio.run(main())


@on_each
async def test_a_lost_connection_and_a_closed_one_are_failed_connections(
    conn: Talk, db: Database
) -> None:
    pid = await conn.run("select pg_backend_pid()")
    await conn.commit()
    db.connect().execute("select pg_terminate_backend(%s, 5000)", [pid])
    for _ in range(2):  # the second finds it closed
        with pytest.raises(ConnectionFailed) as caught:
            async with conn.context(actor_id=7):
                pytest.fail("the block was entered")
        assert str(caught.value) and "\n" not in str(caught.value)
        with pytest.raises(ConnectionFailed, match=r"closed|lost|released"):
            await conn.record("report.exported")
        with pytest.raises(ConnectionFailed):
            async with conn.attempt("report.exported"):
                pytest.fail("the block was entered")


@on_each
async def test_a_connection_that_is_lost_in_the_block_does_not_hide_the_blocks_error(
    conn: Talk, db: Database
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with conn.context(actor_id=7):
            pid = await conn.run("select pg_backend_pid()")
            db.connect().execute("select pg_terminate_backend(%s, 5000)", [pid])
            raise ZeroDivisionError
    assert current_claim() is None


@on_each
async def test_misspelt_arguments_and_invalid_values_are_refused_before_anything(
    conn: Talk, db: Database
) -> None:
    with pytest.raises(TypeError, match="Did you mean 'actor_id'"):
        async with conn.context(actor=7):
            pytest.fail("the block was entered")
    with pytest.raises(TypeError, match="Did you mean 'organization_id'"):
        await conn.record("report.exported", org_id=7)
    with pytest.raises(TypeError, match="Did you mean 'target_id'"):
        async with conn.attempt("report.exported", target_ids=7):
            pytest.fail("the block was entered")
    with pytest.raises(InvalidInput, match="actor_id"):
        async with conn.context(actor_id=b"7"):
            pytest.fail("the block was entered")
    with pytest.raises(InvalidInput, match="actor_type"):
        async with conn.context(actor_type="robot"):
            pytest.fail("the block was entered")
    with pytest.raises(AuditError, match=r"0x00|NUL|null character"):
        async with conn.context(actor_id="a\0b"):
            pytest.fail("the block was entered")
    assert conn.is_idle


# Events and attempts


@on_each
async def test_an_event_is_committed_with_its_transaction(conn: Talk, db: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with conn.transaction():
            await conn.record("report.exported")
            raise ZeroDivisionError
    assert db.events("action = 'report.exported'") == []
    async with conn.context(actor_id=7, details={"ip": "192.0.2.1"}):
        number = await conn.record(
            "report.exported", organization_id=1, target_type="report", target_id=5,
            old_values={"a": 1}, new_values={"a": None}, details={"rows": 2, "password": "x"},
        )  # fmt: skip
        other = await conn.record(auditdb.auth.login(8, organization_id=1, source="saml"))
    exported, login = db.events("action !~ 'workflow'")
    assert (exported["id"], login["id"]) == (number, other)
    assert (exported["actor_id"], exported["target_id"], exported["result"]) == (
        "7", "5", "success",
    )  # fmt: skip
    assert (exported["old_values"], exported["new_values"]) == ({"a": 1}, {"a": None})
    assert exported["details"] == {"ip": "192.0.2.1", "rows": 2, "password": "[redacted]"}
    assert (login["action"], login["actor_id"], login["source"]) == ("auth.login", "7", "saml")
    with pytest.raises(Refused, match="Malformed"):
        await conn.record("Malformed")


@on_each
async def test_what_is_denied_or_fails_is_recorded_although_it_rolled_back(
    conn: Talk, db: Database
) -> None:
    class NotAllowed(Exception):
        pass

    db.connect("app_owner").execute("revoke insert on workflow from app")
    with auditdb.context(actor_id=7, details={"ip": "192.0.2.1"}):
        with pytest.raises(Exception, match="permission denied") as caught:
            async with conn.attempt("workflow.created", organization_id=1, details={"n": 1}):
                await conn.run(RENAME)
                await conn.run(INSERT)
        assert sqlstate(caught.value) == "42501"
        for error in (NotAllowed("no"), RuntimeError("no")):
            with pytest.raises(type(error)) as raised:
                async with conn.attempt("workflow.created", denied=NotAllowed):
                    await conn.run(RENAME)
                    raise error
            assert raised.value is error
            assert not hasattr(error, "__notes__")
    assert conn.is_idle
    events = db.events("action = 'workflow.created' and result <> 'success'")
    assert [event["result"] for event in events] == ["denied", "denied", "failure"]
    assert {event["actor_id"] for event in events} == {"7"}
    assert {event["db_user"] for event in events} == {"app"}
    assert events[0]["details"]["error"]["sqlstate"] == "42501"
    assert events[0]["details"]["n"] == 1 and events[0]["details"]["ip"] == "192.0.2.1"
    assert modified(db) == []


@each
def test_an_attempt_inside_of_a_context_outlives_every_rollback(db: Database, driver: str) -> None:
    async def main() -> None:
        async with (
            talk(driver, db.conninfo("app")) as conn,
            talk(driver, db.conninfo("app")) as other,
        ):
            with pytest.raises(ZeroDivisionError):
                async with conn.context(actor_id=7, source="api"):
                    await conn.run(INSERT)
                    async with conn.attempt("report.exported", connect=lambda: given(other)):
                        raise ZeroDivisionError
            assert other.is_idle

    asyncio.run(main())
    (event,) = db.events()
    assert (event["action"], event["result"]) == ("report.exported", "failure")
    assert (event["actor_id"], event["source"]) == ("7", "api")


class given:
    """A block of either kind that gives a connection."""

    def __init__(self, conn: Talk) -> None:
        self.conn = conn.conn

    def __enter__(self) -> Any:
        return self.conn

    def __exit__(self, *_: object) -> None:
        pass

    async def __aenter__(self) -> Any:
        return self.conn

    async def __aexit__(self, *_: object) -> None:
        pass


@on_each
async def test_success_is_recorded_if_asked_for_in_the_actions_transaction(
    conn: Talk, db: Database
) -> None:
    async with conn.attempt("report.exported"):
        pass
    async with conn.attempt("report.imported", success=True, actor_id=7):
        await conn.run(RENAME)
    renamed, imported = db.events("action ~ 'modified|report'")
    assert (imported["action"], imported["actor_id"]) == ("report.imported", "7")
    assert renamed["transaction_id"] == imported["transaction_id"]


@on_each
async def test_what_cannot_be_recorded_is_a_note_on_the_error(conn: Talk, db: Database) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        async with conn.attempt("Malformed"):
            raise ZeroDivisionError
    (note,) = caught.value.__notes__
    assert "could not record that Malformed failed: Refused" in note
    assert conn.is_idle


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "psycopg2-autocommit"])
def test_a_connection_that_is_lost_on_the_way_is_a_recorded_failure(
    db: Database, driver: str
) -> None:
    async def main() -> None:
        async with talk(driver, db.conninfo("app")) as conn:
            with pytest.raises((psycopg.Error, psycopg2.Error)):
                async with conn.attempt("workflow.created"):
                    pid = await conn.run("select pg_backend_pid()")
                    db.connect().execute("select pg_terminate_backend(%s, 5000)", [pid])
                    await conn.run(INSERT)

    asyncio.run(main())
    assert db.actions("result = 'failure'") == ["workflow.created"]


# What is of one driver


def test_asyncpg_cannot_open_a_second_connection_and_says_so_before_the_action(
    db: Database,
) -> None:
    async def main() -> None:
        async with talk("asyncpg", db.conninfo("app")) as conn, conn.context(actor_id=7):
            with pytest.raises(TypeError, match=r"connect=pool\.acquire"):
                async with conn.attempt("report.exported"):
                    pytest.fail("the block was entered")

    asyncio.run(main())


@pytest.mark.parametrize("driver", ["psycopg-async", "asyncpg", "asyncpg-pool"])
def test_a_cancelled_task_rolls_back_and_leaves_the_connection_usable(
    db: Database, driver: str
) -> None:
    other = db.connect()

    async def main() -> None:
        async with talk(driver, db.conninfo("app")) as conn:
            for work in ("select pg_sleep(60)", None):
                inside = asyncio.Event()

                async def act(work: str | None = work, inside: asyncio.Event = inside) -> None:
                    async with conn.context(actor_id=7):
                        await conn.run(INSERT)
                        async with conn.context(actor_id=8):
                            inside.set()
                            await (conn.run(work) if work else asyncio.Event().wait())

                task = asyncio.create_task(act())
                await inside.wait()
                # A server that has not begun a statement has nothing to cancel.
                while work and other.execute(SLEEPING).fetchone() == (0,):
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert conn.is_idle
                assert await conn.run(CURRENT) is None

    asyncio.run(main())
    assert db.events() == []


@pytest.mark.parametrize("driver", ["psycopg-async", "asyncpg-pool"])
def test_twenty_tasks_act_each_as_itself(db: Database, driver: str) -> None:
    async def act(pool: Any, actor: int) -> None:
        with auditdb.context(actor_id=actor, source="api"):
            for _ in range(5):
                await asyncio.sleep(0)
                async with pool() as conn, auditdb.context(conn):
                    await conn.execute(
                        f"insert into workflow (organization_id, name) values (1, '{actor}')"
                    )
                    await auditdb.record(conn, "report.exported", target_id=actor)

    async def main() -> None:
        if driver == "asyncpg-pool":
            async with asyncpg.create_pool(
                **asyncpg_arguments(db.conninfo("app")), min_size=1, max_size=4
            ) as pool:  # fmt: skip
                await asyncio.gather(*(act(pool.acquire, actor) for actor in range(20)))
        else:
            async with psycopg_pool.AsyncConnectionPool(
                db.conninfo("app"), min_size=1, max_size=4
            ) as others:  # fmt: skip
                await asyncio.gather(*(act(others.connection, actor) for actor in range(20)))

    asyncio.run(main())
    events = db.events()
    assert len(events) == 200
    for event in events:
        made = (event["new_values"] or {}).get("name", event["target_id"])
        assert event["actor_id"] == made


def test_a_connection_given_back_to_its_pool_carries_nothing_and_is_refused(db: Database) -> None:
    async def main() -> None:
        async with asyncpg.create_pool(
            **asyncpg_arguments(db.conninfo("app")), min_size=1, max_size=1
        ) as pool:  # fmt: skip
            async with pool.acquire() as first, auditdb.context(first, actor_id=7):
                pass
            async with pool.acquire() as second:
                assert await second.fetchval(CURRENT) is None
            with pytest.raises(ConnectionFailed, match="released back to the pool"):
                async with auditdb.context(first, actor_id=7):
                    pytest.fail("the block was entered")

    asyncio.run(main())


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg2-autocommit", "asyncpg-codecs"])
def test_through_a_pooler_in_transaction_mode_nobody_acts_as_another(
    db: Database, driver: str, port: int
) -> None:
    dsn = make_conninfo(db.conninfo("app"), port=port)

    async def main() -> None:
        async with talk(driver, dsn) as first, talk(driver, dsn) as second:
            for number in range(5):
                for actor, conn in (("7", first), ("8", second)):
                    async with conn.context(actor_id=actor):
                        await conn.run(INSERT)
                    async with conn.attempt("report.exported", success=True, actor_id=actor):
                        pass
                    await conn.record("report.imported", target_id=number, actor_id=actor)
                    await conn.commit()
                    assert await conn.run(CURRENT) is None
                    await conn.commit()

    asyncio.run(main())
    actors = [event["actor_id"] for event in db.events()]
    assert actors == (["7"] * 3 + ["8"] * 3) * 5


@pytest.fixture(scope="module")
def port(server: Server) -> Iterator[int]:
    with pooler(server) as port:
        yield port


def test_psycopg2_begins_the_block_as_the_connection_wants_it(db: Database) -> None:
    for autocommit in (False, True):
        with closing(psycopg2.connect(db.conninfo("app"))) as conn:
            conn.set_session("REPEATABLE READ", readonly=True, autocommit=autocommit)
            with auditdb.context(conn, actor_id=7), conn.cursor() as cursor:
                cursor.execute(
                    "select current_setting('transaction_isolation'), "
                    "current_setting('transaction_read_only')"
                )
                assert cursor.fetchone() == ("repeatable read", "on")
            assert conn.autocommit is autocommit


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_a_character_that_the_client_encoding_lacks_is_named(db: Database, driver: str) -> None:
    async def main() -> None:
        conn: Any
        if driver == "psycopg2":
            conn = psycopg2.connect(db.conninfo("app"))
            conn.set_client_encoding("LATIN1")
        else:
            conn = await asyncpg.connect(
                **asyncpg_arguments(db.conninfo("app")),
                server_settings={"client_encoding": "latin1"},
            )
        latin = Talk(conn)
        async with latin.context(actor_id="é", details={"name": "é"}):
            assert (await latin.run(CURRENT))["actor_id"] == "é"
        with pytest.raises(InvalidInput, match="client_encoding of the connection has no '€'"):
            async with latin.context(actor_id="€"):
                pytest.fail("the block was entered")
        assert latin.is_idle
        await latin.close()

    asyncio.run(main())


def test_an_asynchronous_connection_of_psycopg2_is_refused(db: Database) -> None:
    conn = psycopg2.connect(db.conninfo("app"), async_=1)
    with pytest.raises(TypeError, match="asynchronous connection of psycopg2; give a plain one"):
        auditdb.context(conn, actor_id=7)


# What is no connection


@on_each
async def test_with_on_an_asynchronous_connection_is_told_what_to_write(
    conn: Talk, db: Database
) -> None:
    if not hasattr(auditdb.context(conn.conn), "__aenter__"):
        return
    for block in (auditdb.context(conn.conn), auditdb.attempt(conn.conn, "report.exported")):
        with pytest.raises(TypeError, match="write `async with` instead of `with`"), block:
            pytest.fail("the block was entered")
    with pytest.raises(TypeError, match="without a connection, write `with`"):
        async with auditdb.context(actor_id=7):  # type: ignore[attr-defined]
            pytest.fail("the block was entered")


def test_what_is_no_connection_is_named_with_what_to_give(db: Database) -> None:
    dsn = db.conninfo("app")

    async def main() -> None:
        asyncpg_pool = asyncpg.create_pool(**asyncpg_arguments(dsn))
        with (
            closing(sqlite3.connect(":memory:")) as lite,
            closing(psycopg2.connect(dsn)) as conn2,
        ):
            pool2 = psycopg2.pool.SimpleConnectionPool(0, 1, dsn)
            any_driver = "give a connection of psycopg, psycopg2 or asyncpg"
            wrong: list[tuple[Any, str]] = [
                (None, any_driver),
                (dsn, any_driver),
                (db, any_driver),
                (lite, "auditdb is for PostgreSQL"),
                (
                    psycopg_pool.ConnectionPool(dsn, open=False),
                    r"with pool\.connection\(\) as conn",
                ),
                (conn2.cursor(), "give a connection of psycopg2"),
                (pool2, r"give a connection of psycopg2, .* pool\.getconn\(\)"),
                (asyncpg_pool, r"give a connection of asyncpg, .* pool\.acquire\(\) as conn"),
                (asyncpg_pool.acquire(), r"asyncpg, .* pool\.acquire\(\) as conn"),
            ]
            for conn, advice in wrong:
                for call in (
                    partial(auditdb.context, conn, actor_id=7),
                    partial(auditdb.record, conn, "report.exported"),
                    partial(auditdb.attempt, conn, "report.exported"),
                ):
                    with pytest.raises(TypeError, match=advice) as caught:
                        call()
                    assert str(caught.value).startswith(f"conn is a {type(conn).__name__}; ")

    asyncio.run(main())


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_a_reader_says_which_connection_it_takes(db: Database, driver: str) -> None:
    async def main() -> None:
        async with talk(driver, db.conninfo("app_reader")) as conn:
            for make in (
                partial(auditdb.reader, key=db.key, viewer_id=1, organization_id=1),
                auditdb.auditor,
            ):
                with pytest.raises(TypeError, match=r"psycopg\.connect\(\)"):
                    make(conn.conn)

    asyncio.run(main())


WITHOUT_PSYCOPG = """
import asyncio, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("psycopg", "psycopg_pool"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
import auditdb
driver, given = sys.argv[1], eval(sys.argv[2])
rename = "update workflow set name = name || '.'"
if driver == "psycopg2":
    import psycopg2
    conn = psycopg2.connect(**given)
    with auditdb.context(conn, actor_id=7):
        conn.cursor().execute(rename)
    try:
        with auditdb.attempt(conn, "report.exported", success=True):
            auditdb.record(conn, auditdb.auth.login(7))
            auditdb.record(conn, "Malformed")
    except auditdb.Refused:
        pass
else:
    import asyncpg
    async def main():
        conn = await asyncpg.connect(**given)
        async with auditdb.context(conn, actor_id=7):
            await conn.execute(rename)
        try:
            async with auditdb.attempt(conn, "report.exported", success=True):
                await auditdb.record(conn, auditdb.auth.login(7))
                await auditdb.record(conn, "Malformed")
        except auditdb.Refused:
            pass
    asyncio.run(main())
try:
    auditdb.context("x", actor_id=7)
except TypeError as error:
    assert "give a connection" in str(error)
assert not any(name.partition(".")[0] == "psycopg" for name in sys.modules)
"""


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_no_psycopg_3_is_needed(db: Database, driver: str) -> None:
    db.connect().execute(INSERT)
    given = asyncpg_arguments(db.conninfo("app"))
    command = [sys.executable, "-W", "error", "-c", WITHOUT_PSYCOPG, driver, repr(given)]
    subprocess.run(command, check=True, cwd=Path(__file__).parent.parent)
    modified, failed = db.events("actor_id = '7' or result = 'failure'")
    assert (modified["action"], modified["actor_id"]) == ("workflow.modified", "7")
    assert (failed["action"], failed["result"]) == ("report.exported", "failure")
