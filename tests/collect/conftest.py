"""A server with databases that are sources, and one that is the centre."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row, tuple_row

import auditdb
from auditdb.collect import collect as work
from auditdb.collect.publish import publish_log
from tests.server import Server, running

COLUMNS = (
    "id, occurred_at, transaction_id, action, result, actor_id, actor_type, impersonator_id,"
    " db_user, organization_id, target_type, target_id, subject_id, source, captured_from,"
    " old_values, new_values, details, db_role"
)
_names = itertools.count(1)


def address(server: Server, dbname: str = "postgres") -> str:
    return make_conninfo("", host=server.host, port=server.port, user=server.user, dbname=dbname)


def dbname(dsn: str) -> str:
    return str(conninfo_to_dict(dsn)["dbname"])


def query(dsn: str, sql: str, *values: object, row_factory: Any = tuple_row) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True, row_factory=row_factory) as conn:
        cursor = conn.execute(sql.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def patiently(fulfilled: Callable[[], bool], what: str, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not fulfilled():
        assert time.monotonic() < until, what
        time.sleep(0.1)


@dataclass
class Collection:
    """A centre, and the databases that it collects."""

    server: Server
    centre: str = ""
    sources: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)

    def database(self, server: Server | None = None, *, template: str | None = None) -> str:
        """Return the address of a new database."""
        server = server or self.server
        name = f"made_{next(_names)}"
        extra = f" template {template}" if template else ""
        query(address(server), f"create database {name}{extra}")
        return address(server, name)

    def source(self, name: str, server: Server | None = None) -> str:
        """Make a database that publishes its log, and return its address for a superuser."""
        dsn = self.database(server)
        auditdb.install(dsn)
        self.publish(dsn)
        self.sources[name] = dsn
        return dsn

    def publish(self, dsn: str) -> None:
        query(dsn, "do $$ begin if to_regrole('collector') is null then"
              " create role collector login replication; end if; end $$")  # fmt: skip
        with psycopg.connect(dsn) as conn:
            publish_log(conn, "collector")

    def collect(self, name: str) -> str:
        with psycopg.connect(self.centre, autocommit=True) as conn:
            return work.collect_source(
                conn, name, make_conninfo(self.sources[name], user="collector")
            )

    def events(self, name: str) -> list[Any]:
        return query(self.sources[name], f"select {COLUMNS} from audit.event order by id",
                     row_factory=dict_row)  # fmt: skip

    def collected(self, name: str) -> list[Any]:
        return query(
            self.centre, f"select {COLUMNS} from audit_collected.event where database = %s"
            " order by id, occurred_at", name, row_factory=dict_row)  # fmt: skip

    def targets(self, name: str) -> list[str]:
        """Return the targets of the events that were recorded, as the centre has them."""
        return [e["target_id"] for e in self.collected(name) if e["action"] == "auth.login"]

    def settle(self, *names: str) -> None:
        """Wait until what the sources hold is at the centre."""
        for name in names or self.sources:
            patiently(partial(self.is_settled, name), f"{name} does not arrive: {self.findings()}")

    def is_settled(self, name: str) -> bool:
        ticks = "select coalesce(max(id), 0) from {} where "
        there = query(self.sources[name], ticks.format("audit.tick") + "true")
        here = query(self.centre, ticks.format("audit_collected.tick") + "database = %s", name)
        return len(self.collected(name)) >= len(self.events(name)) and here >= there

    def findings(self) -> list[tuple[str, str, str]]:
        return query(self.centre, "select severity, object, problem from audit_collected.doctor()")

    def end(self) -> None:
        if query(self.centre, "select to_regclass('audit.event')") == [(None,)]:
            return  # It was uninstalled, which takes that nothing is collected any more.
        with psycopg.connect(self.centre, autocommit=True) as conn:
            for source in work.list_sources(conn):
                if source.state != "gone":
                    work.drop_source(conn, source.database)


@pytest.fixture(scope="session")
def collecting_server() -> Iterator[Server]:
    with running() as server:
        query(address(server), "alter system set max_logical_replication_workers = 12")
        query(address(server), "alter system set max_worker_processes = 20")
        # Large transactions come before they end, by workers beside the one that applies.
        query(address(server), "alter system set logical_decoding_work_mem = '64kB'")
        query(address(server), "alter system set max_replication_slots = 40")
        query(address(server), "alter system set max_wal_senders = 40")
        query(address(server), "alter system set wal_retrieve_retry_interval = '200ms'")
        server.run("pg_ctl", "-w", "-l", f"{server.data}/log", "restart")
        query(address(server), "create role collector login replication")
        yield server


@pytest.fixture
def collection(collecting_server: Server) -> Iterator[Collection]:
    made = Collection(collecting_server)
    made.centre = made.database()
    auditdb.install(made.centre)
    try:
        yield made
    finally:
        made.end()
