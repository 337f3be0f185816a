"""Connections of each driver that auditdb writes on, behind one asynchronous face."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import asyncpg
import psycopg
import psycopg2
import psycopg2.extras
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

import auditdb


class Talk:
    """A connection, and the functions of auditdb on it; what is sync is awaited all the same."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    async def run(self, sql: str) -> Any:
        """Run SQL of the application; return the first value of the first row."""
        if hasattr(self.conn, "fetchval"):
            return _plain(await self.conn.fetchval(sql))
        cursor = self.conn.cursor()
        executed = cursor.execute(sql)
        if isinstance(executed, Awaitable):
            await executed
        if cursor.description is None:
            return None
        row = cursor.fetchone()
        row = await row if isinstance(row, Awaitable) else row
        return None if row is None else _plain(next(iter(_values(row))))

    def context(self, **given: Any) -> Any:
        """Open `auditdb.context` on the connection."""
        return _block(lambda: auditdb.context(self.conn, **given))

    def attempt(self, *args: Any, **given: Any) -> Any:
        """Open `auditdb.attempt` on the connection."""
        return _block(lambda: auditdb.attempt(self.conn, *args, **given))

    async def record(self, *args: Any, **given: Any) -> int:
        """Call `auditdb.record` on the connection."""
        recorded = auditdb.record(self.conn, *args, **given)
        return int(await recorded if isinstance(recorded, Awaitable) else recorded)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Open a transaction as the driver's users do."""
        if isinstance(self.conn, psycopg2.extensions.connection):
            began = self.conn.autocommit
            if began:
                await self.run("begin")
            try:
                await self.run("select 1")
                yield
            except BaseException:
                self.conn.rollback() if not began else await self.run("rollback")
                raise
            self.conn.commit() if not began else await self.run("commit")
        else:
            async with _block(self.conn.transaction):
                yield

    async def commit(self) -> None:
        """Commit what a connection without autocommit has begun by itself."""
        if not self.is_idle:
            self.conn.commit()

    @property
    def is_idle(self) -> bool:
        """Whether no transaction is open."""
        if hasattr(self.conn, "is_in_transaction"):
            return not self.conn.is_in_transaction()
        return bool(self.conn.info.transaction_status == TransactionStatus.IDLE)

    async def close(self) -> None:
        """Close the connection."""
        closing = self.conn.close()
        if isinstance(closing, Awaitable):
            await closing


def _values(row: Any) -> Any:
    return row.values() if isinstance(row, dict) else row


def _plain(value: Any) -> Any:
    """Return JSON that a driver leaves as text as what it says."""
    return json.loads(value) if isinstance(value, str) and value.startswith("{") else value


@asynccontextmanager
async def _block(make: Callable[[], Any]) -> AsyncIterator[Any]:
    block = make()
    if hasattr(block, "__aenter__"):
        async with block as entered:
            yield entered
    else:
        with block as entered:
            yield entered


async def _psycopg_sync(dsn: str) -> Any:
    return psycopg.connect(dsn)


async def _psycopg_async(dsn: str) -> Any:
    return await psycopg.AsyncConnection.connect(dsn, autocommit=True)


async def _psycopg2(dsn: str) -> Any:
    return psycopg2.connect(dsn)


async def _psycopg2_autocommit(dsn: str) -> Any:
    conn = psycopg2.connect(dsn)
    conn.autocommit = True
    return conn


async def _psycopg2_dicts(dsn: str) -> Any:
    return psycopg2.connect(
        dsn,
        connection_factory=psycopg2.extras.DictConnection,
        cursor_factory=psycopg2.extras.RealDictCursor,
    )


def asyncpg_arguments(dsn: str) -> dict[str, Any]:
    """Return what asyncpg.connect takes for an address of libpq's."""
    given = conninfo_to_dict(dsn)
    return {
        "host": given["host"],
        "port": int(given["port"] or 5432),
        "user": given["user"],
        "password": given.get("password"),
        "database": given["dbname"],
    }


async def _asyncpg(dsn: str) -> Any:
    return await asyncpg.connect(**asyncpg_arguments(dsn))


async def _asyncpg_codecs(dsn: str) -> Any:
    conn = await asyncpg.connect(**asyncpg_arguments(dsn), statement_cache_size=0)
    for name in ("json", "jsonb"):
        await conn.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    return conn


Connect: TypeAlias = Callable[[str], Awaitable[Any]]
CONNECT: dict[str, Connect] = {
    "psycopg": _psycopg_sync,
    "psycopg-async": _psycopg_async,
    "psycopg2": _psycopg2,
    "psycopg2-autocommit": _psycopg2_autocommit,
    "psycopg2-dicts": _psycopg2_dicts,
    "asyncpg": _asyncpg,
    "asyncpg-codecs": _asyncpg_codecs,
}


@asynccontextmanager
async def talk(driver: str, dsn: str) -> AsyncIterator[Talk]:
    """Yield a connection of a driver, which is closed at the end."""
    if driver == "asyncpg-pool":
        async with asyncpg.create_pool(
            **asyncpg_arguments(dsn), min_size=1, max_size=2
        ) as pool, pool.acquire() as conn:  # fmt: skip
            yield Talk(conn)
        return
    talking = Talk(await CONNECT[driver](dsn))
    try:
        yield talking
    finally:
        await talking.close()


DRIVERS = [*CONNECT, "asyncpg-pool"]
