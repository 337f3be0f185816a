"""Serves subscriptions: three connections, an engine, and reconnects after a lost server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import AsyncConnection, IsolationLevel
from psycopg.rows import tuple_row

from auditdb.connection.address import connect_async
from auditdb.connection.checks import raises_audit_errors
from auditdb.errors import ConnectionFailed
from auditdb.export.deliver import Patience
from auditdb.export.engine import Engine
from auditdb.export.sinks.base import Sink
from auditdb.export.source import Ticks
from auditdb.export.state import State, Subscription

# Seconds between two checks that the exporter still holds its lock.
_LOOK = 5.0


@dataclass(slots=True)
class Served:
    """The delivered events, and the problems of subscriptions."""

    delivered: dict[str, int] = field(default_factory=dict)
    batches: dict[str, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    def add(self, engine: Engine) -> None:
        """Add the results of an engine."""
        for name, stream in engine.streams.items():
            self.delivered[name] = self.delivered.get(name, 0) + stream.delivered
            self.batches[name] = self.batches.get(name, 0) + stream.batches
            if stream.batches:
                self.places[name] = stream.subscription.place.tick_id
        self.problems = dict(engine.problems)
        self.problems |= {n: s.given_up for n, s in engine.streams.items() if s.given_up}


class Exporter:
    """Serves subscriptions of one database.

    Args:
        conninfo: the database; its login is a member of `audit_auditor`.
        open_sink: makes the sink of a subscription.
        names: of the subscriptions; none for all.
        follow: whether to go on when they have all there is.
        tell: called with a line that a person should see.
        patience: how long to wait after failures.
    """

    def __init__(
        self,
        conninfo: str,
        open_sink: Callable[[Subscription], Sink],
        *,
        names: Sequence[str] | None,
        follow: bool,
        tell: Callable[[str], object] = lambda line: None,
        patience: Patience | None = None,
    ) -> None:
        self._conninfo, self._open_sink, self._names = conninfo, open_sink, names
        self._follow, self._tell, self._patience = follow, tell, patience or Patience()
        self._engine: Engine | None = None
        self._ended = asyncio.Event()
        self.served = Served()

    def end(self) -> None:
        """Finish the deliveries in progress, and stop."""
        self._ended.set()
        if self._engine is not None:
            self._engine.end()

    async def run(self) -> Served:
        """Serve; with `follow`, reconnect if the server is lost.

        Raises:
            AuditError: the server refuses, or cannot be reached without `follow`.
        """
        failures = 0
        while not self._ended.is_set():
            before = sum(self.served.batches.values())
            try:
                await self._serve()
                break
            except ConnectionFailed as error:
                if not self._follow:
                    raise
                failures = 1 if sum(self.served.batches.values()) > before else failures + 1
                wait = min(self._patience.wait(failures), 30.0)
                self._tell(f"the database cannot be reached; will retry: {error}")
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), wait)
        return self.served

    async def _serve(self) -> None:
        async with AsyncExitStack() as stack:
            lock, state, ticks = [await self._connect(stack) for _ in range(3)]
            with raises_audit_errors(lock, "audit_auditor"):
                exporter = await _take_lock(lock)
            keeper = State(state, exporter)
            source = Ticks(ticks)
            stack.push_async_callback(source.close)
            engine = Engine(
                source, keeper, self._open_sink, names=self._names, follow=self._follow,
                patience=self._patience, tell=self._tell)  # fmt: skip
            self._engine = engine
            if self._ended.is_set():
                return
            with raises_audit_errors(state, "audit_auditor"):
                await self._look_back(keeper)
                await _both(engine, lock, self.served)

    async def _connect(self, stack: AsyncExitStack) -> AsyncConnection[Any]:
        conn = await connect_async(
            self._conninfo, application_name="auditdb export", autocommit=True)  # fmt: skip
        # It must see what others commit meanwhile, whatever default the database or role has.
        await conn.set_isolation_level(IsolationLevel.READ_COMMITTED)
        # Not with the context manager, which would wait for a server that may be gone.
        stack.push_async_callback(conn.close)
        return conn

    async def _look_back(self, keeper: State) -> None:
        """Report subscriptions whose delivered ticks the database has lost."""
        if not self.served.places:
            return
        for subscription in await keeper.read(list(self.served.places)):
            tick, now = self.served.places[subscription.name], subscription.place.tick_id
            if now < tick:
                self._tell(
                    f"{subscription.name}: tick {tick} was delivered, and the database knows of "
                    f"{now}: it was restored to an earlier moment, or failed over without its "
                    "last transactions; events of the ticks between may come again, or be others"
                )


async def _take_lock(conn: AsyncConnection[Any]) -> int:
    """Take a lock that shows that this exporter is alive, in a transaction that stays open.

    The transaction has no snapshot while idle, so it does not hold back vacuum.
    """
    await conn.set_autocommit(False)
    async with conn.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(
            "select pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)"
        )
        await cursor.execute(
            "select set_config(name, '0', true) from pg_settings "
            "where name in ('idle_in_transaction_session_timeout', 'transaction_timeout')"
        )
        await cursor.execute("select audit_private.begin_exporting()")
        (exporter,) = await cursor.fetchone() or (0,)
    return int(exporter)


async def _both(engine: Engine, lock: AsyncConnection[Any], served: Served) -> None:
    """Run the engine while the lock is held."""
    serving = asyncio.create_task(engine.run())
    watching = asyncio.create_task(_watch(lock))
    try:
        await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            engine.end()
        await serving
        if watching.done():
            watching.result()
    finally:
        for task in (serving, watching):
            task.cancel()
            with suppress(asyncio.CancelledError, psycopg.Error):
                await task
        served.add(engine)


async def _watch(lock: AsyncConnection[Any]) -> None:
    while True:
        await asyncio.sleep(_LOOK)
        await lock.execute("select 1")
