"""One database for all attacks that leave nothing behind, with a naive log beside auditdb's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from pytest_postgresql.executors import NoopExecutor

from tests.attacks import naive
from tests.conftest import APPLICATION, ATTACH, Database
from tests.server import Server

# Made after everything else, as next year's maintenance will.
LATER = """
select max(inhrelid::regclass::text) from pg_inherits
where inhparent = 'audit.event'::regclass and inhrelid <> 'audit.event_default'::regclass
"""

# What one who has only a trigger and a table can look at.
NAIVE_CHECK = """
select (select count(*) from naive.log) as events,
    (select count(*) from pg_trigger as t join pg_class as c on c.oid = t.tgrelid
        where c.relnamespace = 'naive'::regnamespace and t.tgenabled not in ('O', 'A')) as disabled
"""

PLAYGROUND = """
create schema playground;
grant usage, create on schema playground to public;
grant create on database {} to app_owner, naive_app;
create table playground.audit_spare (like audit.event including all);
create table playground.naive_spare (like naive.log including all);
alter table playground.audit_spare owner to app;
alter table playground.naive_spare owner to naive_app;
alter table naive.log_default owner to naive_app;
"""


# A second service in the same database, and an operator who owns no table.
SERVICES = """
do $$
begin
    if to_regrole('other_owner') is null then
        create role other_owner login password 'secret';
    end if;
    if to_regrole('oper') is null then
        create role oper login password 'secret';
    end if;
end
$$;
grant audit_operator to other_owner, oper;
create schema svc authorization other_owner;
grant usage on schema svc to public;
"""


def lost(event: dict[str, Any]) -> list[str]:
    """Return what an event says that it lost."""
    return list(((event["details"] or {}).get("degraded") or {}).get("lost") or [])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "attack(group, name, outcome, twin): a row of the threat model"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("attack")
        if marker is not None:
            row = tuple(marker.kwargs[key] for key in ("group", "name", "outcome", "twin"))
            item.user_properties.append(("attack", row))


@dataclass(frozen=True)
class Side:
    """What the same attack is called on either log."""

    log: str
    month: str
    default: str
    later: str
    table: str
    trigger: str
    capture: str
    spare: str
    schema: str

    def write(self, statement: str) -> str:
        """Put this side's names into a statement."""
        for name, value in vars(self).items():
            statement = statement.replace(f"<{name}>", value)
        return statement


NAIVE = Side(
    log="naive.log", month="naive.log_month", default="naive.log_default", later="naive.log_later",
    table="naive.membership", trigger="naive_capture", capture="naive.capture",
    spare="playground.naive_spare", schema="naive",
)  # fmt: skip


class Arena:
    """The database, and how an attacker of each role gets at it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._logins: dict[str | None, psycopg.Connection[Any]] = {}
        with psycopg.connect(database.dsn) as conn:
            row = conn.execute(LATER.encode()).fetchone()
            month = conn.execute(
                "select 'audit.event_' || to_char(now() at time zone 'UTC', 'YYYY_MM')"
            ).fetchone()
            capture = conn.execute(
                "select tgfoid::regproc::text from pg_trigger where tgname = 'auditdb_update'"
                " and tgrelid = 'public.membership'::regclass"
            ).fetchone()
        assert row and month and capture
        self.audit = Side(
            log="audit.event", month=month[0], default="audit.event_default", later=row[0],
            table="public.membership", trigger="auditdb_update", capture=capture[0],
            spare="playground.audit_spare", schema="audit",
        )  # fmt: skip

    @cached_property
    def key(self) -> str:
        """A signing key."""
        return self.database.key

    @contextlib.contextmanager
    def login(self, role: str | None = None) -> Iterator[psycopg.Connection[Any]]:
        """Log in as a role, or go on with that login; everything is rolled back at the end."""
        conn = self._logins.get(role)
        if conn is None or conn.closed:
            conn = self.database.connect(role, row_factory=dict_row)
            self._logins[role] = conn
        conn.execute("begin")
        try:
            yield conn
        finally:
            conn.execute("rollback")

    @contextlib.contextmanager
    def trial(self) -> Iterator[psycopg.Connection[Any]]:
        """Log in as superuser, to become any role with `act` and look on in one transaction."""
        with self.login() as conn:
            yield conn

    def refuses(self, role: str, *statements: str) -> None:
        """Assert that the last of the statements, on auditdb, lacks a privilege."""
        with self.login(role) as conn:
            for statement in statements[:-1]:
                conn.execute(self.audit.write(statement).encode())
            with pytest.raises(pg.InsufficientPrivilege):
                conn.execute(self.audit.write(statements[-1]).encode())

    def naive_falls(self, *statements: str, role: str = "naive_app") -> None:
        """Assert that the same statements succeed on the naive log."""
        with self.login(role) as conn:
            for statement in statements:
                conn.execute(NAIVE.write(statement).encode())


def act(conn: psycopg.Connection[Any], role: str) -> None:
    """Become a role, as if it had logged in."""
    conn.execute("reset session authorization")
    conn.execute(sql.SQL("set session authorization {}").format(sql.Identifier(role)))


def look(conn: psycopg.Connection[Any]) -> None:
    """Become the superuser again."""
    conn.execute("reset session authorization")


def newest(conn: psycopg.Connection[Any], number: int = 1) -> list[dict[str, Any]]:
    """Return the newest events, oldest first, as the superuser that this becomes."""
    look(conn)
    rows = conn.execute(
        "select * from audit.event where action !~ '^audit[.]' and transaction_id = "
        "pg_current_xact_id() order by id desc limit %s",
        (number,),
    ).fetchall()
    return list(reversed(rows))


def count(conn: psycopg.Connection[Any], log: str = "audit.event") -> int:
    """Return how many events there are, but for those of the log itself."""
    look(conn)
    row = conn.execute(
        f"select count(*) as n from {log} where action !~ '^audit[.]'".encode()
    ).fetchone()
    assert row is not None
    return int(row["n"])


@contextlib.contextmanager
def unnoticed(conn: psycopg.Connection[Any], rows: int = 0) -> Iterator[None]:
    """Assert that what is done to the naive log leaves nothing that its owner could look for.

    That is a trigger that is switched off, and how many rows there are: `rows` more, which pass
    for events.
    """
    look(conn)
    before = conn.execute(NAIVE_CHECK).fetchone()
    assert before is not None
    yield
    look(conn)
    after = conn.execute(NAIVE_CHECK).fetchone()
    assert after == before | {"events": before["events"] + rows}


@contextlib.contextmanager
def scratch(request: pytest.FixtureRequest, name: str) -> Iterator[Database]:
    """Yield a database with auditdb attached to the application, for many tests."""
    server: Server = request.getfixturevalue("server")
    template: NoopExecutor = request.getfixturevalue("template")
    address = make_conninfo(
        "", host=server.host, port=server.port, user=server.user, password=server.password
    )
    with psycopg.connect(address, dbname="postgres", autocommit=True) as admin:
        admin.execute(f"drop database if exists {name}".encode())
        admin.execute(f'create database {name} template "{template.template_dbname}"'.encode())
    database = Database(make_conninfo(address, dbname=name))
    try:
        with psycopg.connect(database.conninfo("app_owner")) as conn:
            conn.execute(APPLICATION.encode())
            conn.execute(ATTACH.encode())
        yield database
    finally:
        database.close()
        with psycopg.connect(address, dbname="postgres", autocommit=True) as admin:
            admin.execute(f"drop database {name} with (force)".encode())


@pytest.fixture(scope="session")
def arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    """A database with auditdb, an application, and a naive log of the same application."""
    with scratch(request, "auditdb_attacks") as database:
        with psycopg.connect(database.dsn) as conn:
            conn.execute(SERVICES.encode())
            conn.execute(naive.SETUP.encode())
            conn.execute(PLAYGROUND.format("auditdb_attacks").encode())
            conn.execute("update public.membership set role = 'GUEST' where user_id in (2, 4)")
            conn.execute(
                "insert into public.workflow (organization_id, name) values (1, 'a'), (2, 'b')"
            )
        with psycopg.connect(database.conninfo("app_owner")) as conn:
            conn.execute("select audit_private.create_months(24)")
        yield Arena(database)
