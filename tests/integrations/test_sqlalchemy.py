"""SQLAlchemy: engines whose transactions say who acts, on each of its drivers."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import (
    DDL,
    URL,
    Engine,
    NullPool,
    column,
    create_engine,
    func,
    insert,
    literal_column,
    select,
    table,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)
from sqlalchemy.sql.functions import GenericFunction

from auditdb import Refused, auth, context, update_context
from auditdb.integrations.sqlalchemy import attempt, instrument, record
from tests.conftest import Database
from tests.pooler import pooler
from tests.server import Server

DRIVERS = ["psycopg", "psycopg2"]
ASYNC_DRIVERS = ["psycopg", "asyncpg"]
MISSING = r'^permission denied .*; run: grant audit_writer to "stranger"$'


class Base(DeclarativeBase):
    pass


class Workflow(Base):
    __tablename__ = "workflow"
    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[int]
    name: Mapped[str]


def url(db: Database, driver: str, role: str = "app", port: int | None = None) -> URL:
    given: dict[str, Any] = conninfo_to_dict(db.dsn)
    return URL.create(
        f"postgresql+{driver}", role, "secret", given["host"], port or int(given["port"]),
        given["dbname"],
    )  # fmt: skip


@pytest.fixture(params=DRIVERS)
def engine(request: pytest.FixtureRequest, db: Database) -> Iterator[Engine]:
    engine = create_engine(url(db, request.param))
    instrument(engine)
    yield engine
    engine.dispose()


def workflow(name: str) -> Workflow:
    return Workflow(organization_id=1, name=name)


def told(db: Database) -> list[tuple[Any, ...]]:
    return [
        (event["action"], (event["new_values"] or {}).get("name"), event["actor_id"])
        for event in db.events()
    ]


def test_what_a_session_flushes_says_who_acts(engine: Engine, db: Database) -> None:
    with context(actor_id=7, source="api", details={"ip": "192.0.2.1"}), Session(engine) as session:
        session.add_all([workflow("a"), workflow("b")])
        session.commit()
        session.execute(update(Workflow).where(Workflow.name == "a").values(name="c"))
        session.commit()
    assert told(db) == [
        ("workflow.created", "a", "7"), ("workflow.created", "b", "7"),
        ("workflow.modified", "c", "7"),
    ]  # fmt: skip
    assert {(e["source"], e["details"]["ip"]) for e in db.events()} == {("api", "192.0.2.1")}


def test_no_transaction_says_what_another_said(engine: Engine, db: Database) -> None:
    for actor in (7, 7, 8, None, 9):
        with Session(engine) as session:
            if actor is None:
                session.add(workflow("x"))
                session.commit()
            else:
                with context(actor_id=actor):
                    session.add(workflow("x"))
                    session.commit()
    assert [actor for _, _, actor in told(db)] == ["7", "7", "8", "app", "9"]


def test_within_one_transaction_each_statement_says_who_acts_then(
    engine: Engine, db: Database
) -> None:
    with engine.begin() as conn:
        for actor in (7, 8):
            with context(actor_id=actor):
                conn.execute(insert(Workflow).values(organization_id=1, name=str(actor)))
        conn.execute(insert(Workflow).values(organization_id=1, name="nobody"))
    assert [(name, actor) for _, name, actor in told(db)] == [
        ("7", "7"), ("8", "8"), ("nobody", "app")
    ]  # fmt: skip


@pytest.mark.parametrize("first", ["set local lock_timeout = '5s'", "lock table workflow", "/* */"])
def test_the_first_of_several_statements_hides_no_other(
    engine: Engine, db: Database, first: str
) -> None:
    several = f"{first}; insert into workflow (organization_id, name) values (1, 'a');"
    with context(actor_id=7), engine.begin() as conn:
        conn.exec_driver_sql(several)
    with context(actor_id=8), engine.begin() as conn:
        conn.execute(text(several))
    assert [actor for *_, actor in told(db)] == ["7", "8"]


def test_the_rollback_of_a_savepoint_takes_nothing_from_what_follows(
    engine: Engine, db: Database
) -> None:
    with context(actor_id=7), Session(engine) as session:
        session.execute(select(Workflow))
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            session.add(workflow("undone"))
            session.flush()
            raise ZeroDivisionError
        session.add(workflow("kept"))
        session.commit()
    assert told(db) == [("workflow.created", "kept", "7")]


def test_a_savepoint_that_is_rolled_back_brings_no_former_actor_back(
    engine: Engine, db: Database
) -> None:
    with engine.begin() as conn:
        with context(actor_id=7):
            conn.execute(insert(Workflow).values(organization_id=1, name="a"))
        nested = conn.begin_nested()
        conn.execute(insert(Workflow).values(organization_id=1, name="b"))
        nested.rollback()
        conn.execute(insert(Workflow).values(organization_id=1, name="c"))
    assert [(name, actor) for _, name, actor in told(db)] == [("a", "7"), ("c", "app")]


def test_an_actor_that_is_known_late_is_told(engine: Engine, db: Database) -> None:
    with context(source="api"), Session(engine) as session:
        session.add(workflow("before"))
        session.flush()
        update_context(actor_id=7)
        session.add(workflow("after"))
        session.commit()
    assert [(name, actor) for _, name, actor in told(db)] == [("before", None), ("after", "7")]


@pytest.mark.parametrize(
    "statement",
    [
        "insert into workflow (organization_id, name) values (1, 'x')",
        "  with w as (insert into workflow (organization_id, name) values (1, 'x') returning id) "
        "select * from w",
        "/* a remark */ insert into workflow (organization_id, name) values (1, 'x')",
        "select make_workflow()",
        "do $$ begin perform make_workflow(); end $$",
        "call make_workflows()",
    ],
)
def test_sql_that_writes_in_any_way_says_who_acts(
    engine: Engine, db: Database, statement: str
) -> None:
    db.connect().execute("""
        create function make_workflow() returns void language sql as
        'insert into workflow (organization_id, name) values (1, ''x'')';
        create procedure make_workflows() language sql as
        'insert into workflow (organization_id, name) values (1, ''x'')'""")
    with context(actor_id=7), engine.begin() as conn:
        conn.execute(text(statement))
    with context(actor_id=8), engine.begin() as conn:
        conn.exec_driver_sql(statement)
    assert [actor for _, _, actor in told(db)] == ["7", "8"]
    with context(actor_id=9), engine.begin() as conn:
        conn.execute(select(func.make_workflow()))
    assert told(db)[-1][2] == "9"


def test_a_transaction_that_only_reads_is_sent_nothing(engine: Engine, db: Database) -> None:
    sent = "select current_setting('auditdb.context', true)"
    with context(actor_id=7), engine.connect() as conn:
        conn.execute(select(Workflow).where(Workflow.id == 1))
        conn.execute(select(func.count()).select_from(Workflow))
        raw = conn.connection.cursor()
        raw.execute(sent)
        assert (raw.fetchone() or [None])[0] in (None, "")
        conn.execute(select(func.lower("A")))
        raw.execute(sent)
        assert '"actor_id": "7"' in str(raw.fetchone())


def test_many_rows_at_once_say_who_acts(engine: Engine, db: Database) -> None:
    rows = [{"organization_id": 1, "name": str(n)} for n in range(50)]
    with context(actor_id=7), engine.begin() as conn:
        conn.execute(insert(Workflow), rows)
        conn.execute(insert(Workflow).returning(Workflow.id), rows)
    assert [actor for _, _, actor in told(db)] == ["7"] * 100


def test_in_autocommit_each_statement_says_who_acts_or_leaves_nothing(
    engine: Engine, db: Database
) -> None:
    auto = engine.execution_options(isolation_level="AUTOCOMMIT")
    with auto.connect() as conn:
        with context(actor_id=7):
            conn.execute(insert(Workflow).values(organization_id=1, name="a"))
            with pytest.raises(IntegrityError):
                conn.execute(insert(Workflow).values(organization_id=99, name="b"))
            conn.execute(select(Workflow)).all()
            conn.execute(update(Workflow).values(name="A"))
        conn.execute(insert(Workflow).values(organization_id=1, name="c"))
        conn.execute(text("vacuum (analyze) workflow"))
    assert [(name, actor) for _, name, actor in told(db)] == [
        ("a", "7"), ("A", "7"), ("c", "app")
    ]  # fmt: skip
    with engine.begin() as conn:
        conn.execute(insert(Workflow).values(organization_id=1, name="d"))
    assert told(db)[-1][2] == "app"


def test_two_phase_transactions_say_who_acts(engine: Engine, db: Database) -> None:
    with context(actor_id=7), engine.connect() as conn:
        transaction = conn.begin_twophase()
        conn.execute(insert(Workflow).values(organization_id=1, name="a"))
        transaction.prepare()
        transaction.commit()
    assert [actor for _, _, actor in told(db)] == ["7"]


def test_threads_act_each_as_themselves_through_a_pooler(db: Database, server: Server) -> None:
    with pooler(server, size=2) as port:
        engine = create_engine(
            url(db, "psycopg", port=port), poolclass=NullPool,
            connect_args={"prepare_threshold": None},
        )  # fmt: skip
        instrument(engine)

        def act(actor: int) -> None:
            with context(actor_id=actor), Session(engine) as session:
                for _ in range(3):
                    session.add(workflow(str(actor)))
                    session.commit()

        threads = [threading.Thread(target=act, args=(actor,)) for actor in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with Session(engine) as session:
            session.add(workflow("app"))
            session.commit()
    events = told(db)
    assert len(events) == 61
    assert all(name == actor for _, name, actor in events)


def test_a_session_records_and_attempts(engine: Engine, db: Database) -> None:
    with context(actor_id=7, source="api"), Session(engine) as session:
        first = record(session, auth.login(7, organization_id=1, method="passkey"))
        session.commit()
        record(session, "report.exported", target_id=5)
        session.rollback()
        with attempt(session, "workflow.imported", success=True):
            session.add(workflow("a"))
        session.commit()
        with pytest.raises(IntegrityError), attempt(session, "workflow.moved", target_id=5):
            session.add(Workflow(organization_id=99, name="b"))
        with pytest.raises(PermissionError), attempt(session, "workflow.deleted", target_id=5):
            session.add(workflow("undone"))
            session.flush()
            raise PermissionError("only owners delete")
        session.add(workflow("after"))
        session.commit()
    events = db.events()
    assert events[0]["id"] == first
    assert [(e["action"], e["result"], e["actor_id"], e["source"]) for e in events] == [
        ("auth.login", "success", "7", "api"),
        ("workflow.created", "success", "7", "api"),
        ("workflow.imported", "success", "7", "api"),
        ("workflow.moved", "failure", "7", "api"),
        ("workflow.deleted", "denied", "7", "api"),
        ("workflow.created", "success", "7", "api"),
    ]
    assert events[3]["details"]["error"]["sqlstate"] == "23503"


def test_an_attempt_inside_of_a_transaction_takes_back_its_own_work_alone(
    engine: Engine, db: Database
) -> None:
    with Session(engine) as session:
        session.add(workflow("kept"))
        session.flush()
        with pytest.raises(ZeroDivisionError), attempt(session, "workflow.moved"):
            session.add(workflow("undone"))
            session.flush()
            raise ZeroDivisionError
        session.commit()
    assert {(action, name) for action, name, _ in told(db)} == {
        ("workflow.created", "kept"), ("workflow.moved", None)
    }  # fmt: skip


def test_an_event_that_could_not_be_written_is_noted_and_hides_nothing(
    db: Database,
) -> None:
    engine = create_engine(url(db, "psycopg"), pool_size=1, max_overflow=0, pool_timeout=0.1)
    with Session(engine) as session, pytest.raises(ZeroDivisionError) as caught:
        session.add(workflow("a"))
        session.flush()
        with attempt(session, "workflow.moved"):
            raise ZeroDivisionError
    assert "could not record that workflow.moved failed" in caught.value.__notes__[0]
    engine.dispose()


def test_without_an_instrument_records_say_who_acts_all_the_same(db: Database) -> None:
    engine = create_engine(url(db, "psycopg"))
    with context(actor_id=7, source="api"), Session(engine) as session:
        record(session, "report.exported")
        session.commit()
    (event,) = db.events()
    assert (event["actor_id"], event["source"]) == ("7", "api")
    engine.dispose()


FUNCTION = """
    create function make_workflow() returns int language sql as
    'insert into workflow (organization_id, name) values (1, ''f'') returning id';
    create view made as select make_workflow() as id
"""


class make_workflow(GenericFunction[int]):
    """A function of the application that SQLAlchemy knows by a class."""

    inherit_cache = True


@pytest.mark.parametrize(
    "selected",
    [
        select(make_workflow()),
        select(literal_column("make_workflow()")),
        select(select(func.make_workflow().label("id")).subquery().c.id),
        select(select(func.make_workflow().label("id")).cte().c.id),
        select(func.make_workflow().table_valued("id").render_derived().c.id),
        select(func.public.make_workflow()),
        text("select make_workflow() as id").columns(column("id")),
        text("explain analyze select make_workflow()"),
        DDL("do $$ begin perform make_workflow(); end $$"),  # type: ignore[no-untyped-call]
    ],
)
def test_what_calls_a_function_that_writes_says_who_acts(
    engine: Engine, db: Database, selected: Any
) -> None:
    db.connect().execute(FUNCTION)
    for actor in (7, 8):
        with context(actor_id=actor), engine.begin() as conn:
            conn.execute(selected)
    assert [actor for _, _, actor in told(db)] == ["7", "8"]


def test_a_view_never_acts_for_the_former_actor(engine: Engine, db: Database) -> None:
    db.connect().execute(FUNCTION)
    db.connect().execute("grant select on made to app")
    with engine.begin() as conn:
        with context(actor_id=7):
            conn.execute(insert(Workflow).values(organization_id=1, name="a"))
        with context(actor_id=8):
            conn.execute(select(column("id")).select_from(table("made")))
        conn.execute(select(column("id")).select_from(table("made")))
    assert [actor for _, _, actor in told(db)] == ["7", "8", "app"]


def test_a_savepoint_of_the_applications_own_sql_brings_no_former_actor_back(
    engine: Engine, db: Database
) -> None:
    with engine.begin() as conn:
        with context(actor_id=7):
            conn.execute(insert(Workflow).values(organization_id=1, name="a"))
            conn.exec_driver_sql("savepoint s")
        with context(actor_id=8):
            conn.execute(insert(Workflow).values(organization_id=1, name="b"))
            conn.execute(text("rollback to savepoint s"))
            conn.execute(insert(Workflow).values(organization_id=1, name="c"))
    assert [(name, actor) for _, name, actor in told(db)] == [("a", "7"), ("c", "8")]


def test_a_transaction_that_the_application_began_in_autocommit_stays_its_own(
    engine: Engine, db: Database
) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        with context(actor_id=7):
            conn.exec_driver_sql("begin")
            conn.execute(insert(Workflow).values(organization_id=1, name="a"))
            conn.exec_driver_sql("rollback")
            conn.exec_driver_sql("begin")
            conn.execute(insert(Workflow).values(organization_id=1, name="b"))
        conn.execute(insert(Workflow).values(organization_id=1, name="c"))
        conn.exec_driver_sql("commit")
        conn.execute(insert(Workflow).values(organization_id=1, name="d"))
    assert [(name, actor) for _, name, actor in told(db)] == [
        ("b", "7"), ("c", "app"), ("d", "app")
    ]  # fmt: skip


def test_in_autocommit_functions_remarks_and_late_constraints_are_served(
    engine: Engine, db: Database
) -> None:
    db.connect().execute(FUNCTION)
    db.connect().execute(
        "alter table workflow add constraint one unique (name) deferrable initially deferred"
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        with context(actor_id=7):
            assert conn.execute(select(func.make_workflow())).scalar_one()
            with pytest.raises(IntegrityError):
                conn.execute(insert(Workflow).values(organization_id=1, name="f"))
            conn.execute(text("-- a remark\nupdate workflow set name = 'g'"))
            rows = [{"organization_id": 1, "name": str(n)} for n in range(3)]
            assert len(conn.execute(insert(Workflow).returning(Workflow.id), rows).all()) == 3
        conn.execute(insert(Workflow).values(organization_id=1, name="h"))
    assert [actor for _, _, actor in told(db)] == ["7"] * 5 + ["app"]


def test_a_lost_connection_is_an_error_of_sqlalchemy_and_leaves_the_pool(
    engine: Engine, db: Database
) -> None:
    with context(actor_id=7):
        with pytest.raises(DBAPIError) as caught, engine.begin() as conn:
            own = conn.execute(text("select pg_backend_pid()")).scalar_one()
            conn.execute(text("set application_name = 'x'"))
            db.connect().execute("select pg_terminate_backend(%s, 5000)", (own,))
            update_context(actor_id=8)
            conn.execute(insert(Workflow).values(organization_id=1, name="a"))
        assert caught.value.connection_invalidated
        with engine.begin() as conn:
            conn.execute(insert(Workflow).values(organization_id=1, name="b"))
    assert [(name, actor) for _, name, actor in told(db)] == [("b", "8")]


def test_a_streamed_connection_says_who_acts(engine: Engine, db: Database) -> None:
    db.connect().execute(FUNCTION)
    with context(actor_id=7), engine.connect().execution_options(stream_results=True) as conn:
        conn.execute(select(func.make_workflow())).all()
        conn.commit()
    assert [actor for _, _, actor in told(db)] == ["7"]


def test_an_attempt_says_who_acts_although_it_is_known_late(engine: Engine, db: Database) -> None:
    scoped = scoped_session(sessionmaker(engine))
    with context(source="api"):
        with pytest.raises(PermissionError), attempt(scoped, "workflow.deleted"):
            update_context(actor_id=7)
            raise PermissionError
        record(scoped, "report.exported")
        scoped.commit()
    scoped.remove()
    assert [(action, actor) for action, _, actor in told(db)] == [
        ("workflow.deleted", "7"), ("report.exported", "7")
    ]  # fmt: skip


@pytest.mark.parametrize("driver", DRIVERS)
def test_what_the_server_refuses_is_an_error_of_auditdb(db: Database, driver: str) -> None:
    engine = create_engine(url(db, driver, "stranger"))
    with Session(engine) as session, pytest.raises(Refused, match=MISSING):
        record(session, "report.exported")
    engine.dispose()


def test_to_instrument_twice_changes_nothing(engine: Engine, db: Database) -> None:
    instrument(engine)
    with context(actor_id=7), engine.begin() as conn:
        conn.execute(insert(Workflow).values(organization_id=1, name="a"))
    assert [actor for _, _, actor in told(db)] == ["7"]


@pytest.mark.parametrize("given", [None, "postgresql://", create_engine("sqlite://")])
def test_what_is_no_engine_of_postgresql_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="engine"):
        instrument(given)


def test_what_is_neither_session_nor_connection_is_refused(engine: Engine) -> None:
    wrong: list[Any] = [engine, None, "x"]
    for given in wrong:
        with pytest.raises(TypeError, match="give a session or a connection"):
            record(given, "a.b")
        with pytest.raises(TypeError, match="give a session or a connection"):
            attempt(given, "a.b")
    with engine.connect() as conn, pytest.raises(TypeError, match="instrument the engine"):
        context(conn, actor_id=7)  # type: ignore[call-overload]


@asynccontextmanager
async def async_engine(db: Database, driver: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url(db, driver))
    instrument(engine)
    yield engine
    await engine.dispose()


@pytest.fixture(params=ASYNC_DRIVERS)
def go(request: pytest.FixtureRequest, db: Database) -> Callable[..., None]:
    """Run work on an asynchronous engine of each driver."""

    def run(work: Callable[[AsyncEngine], Awaitable[None]]) -> None:
        async def main() -> None:
            async with async_engine(db, request.param) as engine:
                await work(engine)

        asyncio.run(main())

    return run


def test_tasks_act_each_as_themselves(db: Database, go: Callable[..., None]) -> None:
    async def work(engine: AsyncEngine) -> None:
        async def act(actor: int) -> None:
            with context(actor_id=actor):
                async with AsyncSession(engine) as session:
                    for _ in range(3):
                        session.add(workflow(str(actor)))
                        await session.commit()
                        await asyncio.sleep(0)

        await asyncio.gather(*map(act, range(20)))
        async with AsyncSession(engine) as session:
            session.add(workflow("app"))
            await session.commit()

    go(work)
    events = told(db)
    assert len(events) == 61
    assert all(name == actor for _, name, actor in events)


def test_an_asynchronous_session_records_and_attempts(
    db: Database, go: Callable[..., None]
) -> None:
    async def work(engine: AsyncEngine) -> None:
        with context(actor_id=7, source="api"):
            async with AsyncSession(engine) as session:
                await record(session, auth.login(7, organization_id=1))
                await session.commit()
                with pytest.raises(IntegrityError):
                    async with attempt(session, "workflow.moved"):
                        session.add(Workflow(organization_id=99, name="b"))
                        await session.flush()
                async with attempt(session, "workflow.imported", success=True):
                    session.add(workflow("a"))
                await session.commit()
                with pytest.raises(ZeroDivisionError):
                    async with session.begin_nested():
                        session.add(workflow("undone"))
                        await session.flush()
                        raise ZeroDivisionError
                session.add(workflow("after"))
                await session.commit()
            async with engine.connect() as conn:
                with pytest.raises(PermissionError):
                    async with attempt(conn, "workflow.deleted"):
                        raise PermissionError

    go(work)
    events = db.events()
    assert [(e["action"], e["result"], e["actor_id"]) for e in events] == [
        ("auth.login", "success", "7"), ("workflow.moved", "failure", "7"),
        ("workflow.created", "success", "7"), ("workflow.imported", "success", "7"),
        ("workflow.created", "success", "7"), ("workflow.deleted", "denied", "7"),
    ]  # fmt: skip
    assert events[1]["details"]["error"]["sqlstate"] == "23503"


def test_an_asynchronous_engine_in_autocommit_says_who_acts(
    db: Database, go: Callable[..., None]
) -> None:
    async def work(engine: AsyncEngine) -> None:
        auto = engine.execution_options(isolation_level="AUTOCOMMIT")
        async with auto.connect() as conn:
            with context(actor_id=7):
                await conn.execute(insert(Workflow).values(organization_id=1, name="a"))
                with pytest.raises(IntegrityError):
                    await conn.execute(insert(Workflow).values(organization_id=99, name="b"))
            await conn.execute(insert(Workflow).values(organization_id=1, name="c"))

    go(work)
    assert [(name, actor) for _, name, actor in told(db)] == [("a", "7"), ("c", "app")]


def test_tasks_act_each_as_themselves_through_a_pooler(db: Database, server: Server) -> None:
    async def act(engine: AsyncEngine, actor: int) -> None:
        with context(actor_id=actor):
            async with AsyncSession(engine) as session:
                for _ in range(3):
                    session.add(workflow(str(actor)))
                    await session.commit()

    async def main(port: int) -> None:
        engine = create_async_engine(
            url(db, "asyncpg", port=port), poolclass=NullPool,
            connect_args={
                "statement_cache_size": 0, "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": lambda: f"__{uuid4()}__",
            },
        )  # fmt: skip
        instrument(engine)
        await asyncio.gather(*(act(engine, actor) for actor in range(20)))
        async with AsyncSession(engine) as session:
            session.add(workflow("app"))
            await session.commit()
        await engine.dispose()

    with pooler(server, size=2) as port:
        asyncio.run(main(port))
    events = told(db)
    assert len(events) == 61
    assert all(name == actor for _, name, actor in events)


def test_asynchronous_work_in_autocommit_and_of_a_scoped_session(
    db: Database, go: Callable[..., None]
) -> None:
    db.connect().execute(FUNCTION)

    async def work(engine: AsyncEngine) -> None:
        auto = engine.execution_options(isolation_level="AUTOCOMMIT")
        async with auto.connect() as conn:
            with context(actor_id=7):
                await conn.execute(select(func.make_workflow()))
                await conn.exec_driver_sql("begin")
                await conn.execute(insert(Workflow).values(organization_id=1, name="a"))
                await conn.exec_driver_sql("rollback")
            await conn.execute(insert(Workflow).values(organization_id=1, name="b"))
        scoped = async_scoped_session(async_sessionmaker(engine), asyncio.current_task)
        with context(source="api"), pytest.raises(PermissionError):
            async with attempt(scoped, "workflow.deleted"):
                update_context(actor_id=8)
                raise PermissionError
        await scoped.remove()

    go(work)
    assert [(action, actor) for action, _, actor in told(db)] == [
        ("workflow.created", "7"), ("workflow.created", "app"), ("workflow.deleted", "8")
    ]  # fmt: skip


def test_what_is_refused_asynchronously_is_an_error_of_auditdb(db: Database) -> None:
    async def main() -> None:
        for driver in ASYNC_DRIVERS:
            engine = create_async_engine(url(db, driver, "stranger"))
            async with AsyncSession(engine) as session:
                with pytest.raises(Refused, match=MISSING):
                    await record(session, "report.exported")
            await engine.dispose()

    asyncio.run(main())


def test_what_the_document_shows_runs(db: Database, tmp_path: Path) -> None:
    class Membership(Base):
        __tablename__ = "membership"
        organization_id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[int] = mapped_column(primary_key=True)
        role: Mapped[str]

    class Forbidden(Exception):
        pass

    def promote(*_: Any) -> None:
        raise Forbidden

    db.connect().execute("insert into app_user (id, email) values (9, 'z@acme.test')")
    shown = (Path(__file__).parents[2] / "docs" / "sqlalchemy.md").read_text("utf-8")
    setup, work, events, _, _, _, hook = re.findall(r"```python\n(.*?)```", shown, re.DOTALL)
    known: dict[str, Any] = {
        "url": url(db, "psycopg"), "user": SimpleNamespace(id=7), "Membership": Membership,
        "request": SimpleNamespace(ip="192.0.2.1"), "Forbidden": Forbidden, "promote": promote,
    }  # fmt: skip
    exec(setup, known)
    exec(work, known)
    with pytest.raises(Forbidden):
        exec(events, known)
    told = [(e["action"], e["result"], e["actor_id"]) for e in db.events("subject_id <> '9' or "
            "subject_id is null or action <> 'user.created'")]  # fmt: skip
    assert told == [
        ("membership.added", "success", "7"), ("auth.login", "success", "7"),
        ("membership.role_changed", "denied", "app"),
    ]  # fmt: skip
    mapping = tmp_path / "auditdb.toml"
    mapping.write_text("[[table]]\nname = 'workflow'\nkind = 'workflow'\n")
    known["connectable"] = create_engine(url(db, "psycopg", "postgres"))
    exec(hook.replace('"auditdb.toml"', repr(str(mapping))), known)
    for name in ("engine", "connectable"):
        known[name].dispose()


@pytest.mark.parametrize("recipe", ["FastAPI, AsyncSession", "Flask, Session"])
def test_the_recipe_of_a_framework_runs(db: Database, recipe: str) -> None:
    conn = db.connect()
    conn.execute("insert into app_user (id, email) values (9, 'z@acme.test')")
    conn.execute("insert into membership values (1, 9, 'MEMBER')")
    shown = (Path(__file__).parents[2] / "docs" / "sqlalchemy.md").read_text("utf-8")
    block = shown.partition(f"## {recipe}\n")[2].partition("```python\n")[2].partition("```")[0]
    known: dict[str, Any] = {
        "url": url(db, "psycopg2"), "async_url": url(db, "asyncpg"),
        "current_user": lambda: SimpleNamespace(id=7),
    }  # fmt: skip
    exec(block, known)
    if "FastAPI" in recipe:

        async def main() -> None:
            transport = httpx.ASGITransport(known["app"])
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                assert (await client.post("/members/9")).status_code == 200
            await known["engine"].dispose()

        asyncio.run(main())
    else:
        assert known["app"].test_client().post("/members/9").status_code == 200
        known["engine"].dispose()
    (event,) = db.events("action = 'membership.role_changed'")
    assert (event["actor_id"], event["source"]) == ("7", "web")
    assert "/members/" in event["details"]["route"]
