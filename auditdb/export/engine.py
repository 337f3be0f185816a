"""The engine: one pass over the ticks for any number of subscriptions, each at its own pace.

Subscriptions at the same position share a read, so the cost grows with the events, not with
subscriptions times events. A subscription with a slow sink falls behind alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from auditdb.errors import AuditError, InvalidInput
from auditdb.export.deliver import Outcome, Patience, deliver
from auditdb.export.place import Chunk, Place
from auditdb.export.sinks.base import Progress, Rejected, Retry, Sink, SinkError
from auditdb.export.state import Claim, Subscription
from auditdb.export.stream import Batch, Stream, distribute
from auditdb.values.plain import counted

# Seconds between two saves of the position of subscriptions without matching events.
_NOTE = 30.0
# Concurrent deliveries, and a separate limit for sinks that failed last, because they may hang.
_AT_ONCE = 64
_DOUBTFUL = 16


class Source(Protocol):
    """The source of events."""

    async def head(self) -> int:
        """Close the existing events into a tick, and return the number of the last tick."""

    def due(self) -> float:
        """Return the seconds until `head` can return a new tick."""

    async def last(self) -> int:
        """Return the number of the last known tick."""

    async def read(
        self, after: Place, until: Place, organizations: Sequence[str] | None, *,
        whole: bool = False,
    ) -> Chunk | None:  # fmt: skip
        """Return the events between two places, or the first part of them; None if there are none.

        Args:
            after: the place after the last events taken.
            until: the last tick to read.
            organizations: only events of these. Default: all.
            whole: read to this place in any case, without a size limit.
        """


class Keeper(Protocol):
    """The store of the progress of each subscription; see `State`."""

    async def read(self, names: Sequence[str] | None) -> list[Subscription]:
        """Read."""

    async def claim(self, claims: Iterable[Claim]) -> set[str]:
        """Claim."""

    async def finish(self, name: str, pending: dict[str, Any], delivered: int) -> bool:
        """Finish."""

    async def leave(self, name: str, problem: str, *, failed: bool) -> None:
        """Leave."""

    async def set_aside(self, name: str, tick_id: int, id: int, at: str, problem: str) -> None:
        """Set aside."""

    async def advance(self, claims: Iterable[Claim], tick_id: int) -> set[str]:
        """Advance."""


class Engine:
    """Serves subscriptions until all events are sent or, with `follow`, until it is stopped.

    Args:
        source: the source of events.
        keeper: the store of progress.
        open_sink: opens the sink of a subscription.
        names: names of subscriptions; None for all.
        follow: whether to continue after all events are sent.
        patience: the waits after failures.
        poll: seconds between two checks for new events.
        tell: called with a line for the operator.
    """

    def __init__(
        self,
        source: Source,
        keeper: Keeper,
        open_sink: Callable[[Subscription], Sink],
        *,
        names: Sequence[str] | None,
        follow: bool,
        patience: Patience | None = None,
        poll: float = 0.5,
        tell: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._source, self._keeper, self._open_sink = source, keeper, open_sink
        self._names, self._follow, self._poll, self._tell = names, follow, poll, tell
        self._patience = patience or Patience()
        # Separate limits for streams, because receivers of customers may hang and must not block
        # others, and for sinks that failed last, because they may hang again.
        self._at_once = {
            (is_stream, has_failed): asyncio.Semaphore(_DOUBTFUL if has_failed else _AT_ONCE)
            for is_stream in (False, True)
            for has_failed in (False, True)
        }
        self._noted = time.monotonic()
        self._refreshed = 0.0
        self._ended, self._woken = asyncio.Event(), asyncio.Event()
        self._broken: Exception | None = None
        self.streams: dict[str, Stream] = {}
        self.problems: dict[str, str] = {}

    def end(self) -> None:
        """Finish the deliveries in progress, and stop."""
        self._ended.set()
        self._woken.set()

    async def run(self) -> None:
        """Serve the subscriptions.

        Raises:
            AuditError: there is no such subscription, or its sink cannot be opened.
            psycopg.Error: the connection to the database is lost.
        """
        goal = None if self._follow else await self._source.head()
        try:
            while not self._ended.is_set():
                if self._broken is not None:
                    raise self._broken
                await self._refresh()
                head = goal if goal is not None else await self._source.head()
                worked = await self._resend() | await self._pass(Place(head))
                await self._note()
                if goal is not None and self._is_over(goal):
                    break
                if not worked:
                    await self._rest()
        finally:
            await self._settle()
        if self._broken is not None:
            raise self._broken
        self._noted = -_NOTE
        await self._note()

    async def _settle(self) -> None:
        """Wait for the deliveries in progress, and close the sinks."""
        tasks = [stream.task for stream in self.streams.values() if stream.task]
        if tasks:
            await asyncio.wait(tasks)
        for stream in self.streams.values():
            await stream.sink.close()

    async def _rest(self) -> None:
        """Wait for new events, or for the end of a delivery."""
        self._woken.clear()
        with suppress(TimeoutError):
            # Do not wait longer than until the next tick can be made.
            due = self._source.due() if self._follow else self._poll
            async with asyncio.timeout(max(0.01, min(self._poll, due))):
                await self._woken.wait()

    def _is_over(self, goal: int) -> bool:
        return all(
            stream.task is None and (stream.given_up or stream.place.tick_id >= goal)
            for stream in self.streams.values()
        )

    async def _refresh(self) -> None:
        """Start new subscriptions; stop dropped, paused and failed ones."""
        idle = {name for name, stream in self.streams.items() if stream.task is None}
        is_needed = any(self.streams[name].is_stale for name in idle)
        if not is_needed and time.monotonic() - self._refreshed < self._poll:
            return
        found = {s.name: s for s in await self._keeper.read(self._names)}
        self._refreshed = time.monotonic()
        for name in self._names or ():
            if name not in found:
                raise InvalidInput(f"there is no subscription {name}")
        for name in list(idle):
            if (
                name not in found or found[name].state != "active"
                or found[name].created_at != self.streams[name].subscription.created_at
            ):  # fmt: skip
                idle.discard(name)
                await self.streams.pop(name).sink.close()
        last = None
        for name, subscription in found.items():
            if subscription.state != "active":
                self._say_state(subscription)
            elif name in idle:
                self._renew(self.streams[name], subscription)
            elif name not in self.streams:
                last = await self._source.last() if last is None else last
                if subscription.place.tick_id > last:
                    await self._refuse(subscription, last)
                else:
                    self._begin(subscription)

    def _renew(self, stream: Stream, subscription: Subscription) -> None:
        """Update a stream from the database; somebody else may have moved its position."""
        has_moved = subscription.place != stream.subscription.place
        stream.subscription = subscription
        if stream.is_stale or subscription.pending or has_moved:
            stream.place, stream.is_stale = subscription.place, False
            if not subscription.pending:
                stream.progress = Progress()
            stream.count_from(subscription.counts)

    def _say_state(self, subscription: Subscription) -> None:
        name = subscription.name
        state = {"paused": "is paused", "lapsed": "lapsed"}.get(subscription.state, "failed")
        reason = f": {subscription.problem}" if subscription.problem else ""
        self._report(name, f"{name} {state}{reason}; auditdb subscription resume {name}")

    async def _refuse(self, subscription: Subscription, last: int) -> None:
        """Stop a subscription if ticks were lost: some events may be delivered already."""
        name = subscription.name
        problem = (
            f"tick {subscription.place.tick_id} was delivered, but this database knows ticks only "
            f"up to {last}: it was restored to an earlier moment, or is another one; compare with "
            f"the sink, then: auditdb subscription reset {name}"
        )
        await self._keeper.leave(name, problem, failed=True)
        self._report(name, f"{name} failed: {problem}")

    def _begin(self, subscription: Subscription) -> None:
        name = subscription.name
        try:
            sink = self._open_sink(subscription)
        except AuditError as error:
            if self._names is not None:
                raise
            self._report(name, f"{name}: {error}")
            return
        self.problems.pop(name, None)
        self.streams[name] = Stream(subscription, subscription.place, sink)

    def _report(self, name: str, line: str) -> None:
        if self.problems.get(name) != line:
            self.problems[name] = line
            self._tell(line)

    def _ready(self) -> list[Stream]:
        now = time.monotonic()
        return [
            stream
            for stream in self.streams.values()
            if stream.task is None and stream.ready_at <= now
            and not (stream.given_up or stream.is_stale)
        ]  # fmt: skip

    async def _resend(self) -> bool:
        """Repeat the delivery that was in progress when its exporter died or failed."""
        worked = False
        for stream in self._ready():
            pending = stream.subscription.pending
            if pending is None:
                continue
            if not await self._keeper.claim([Claim(stream.subscription, pending)]):
                self._look_later(stream)
                continue
            batch = await self._read_again(stream, pending)
            stream.task = asyncio.create_task(self._carry(stream, batch))
            worked = True
        return worked

    async def _read_again(self, stream: Stream, pending: dict[str, Any]) -> Batch:
        after = Place.of(**pending["after"])
        until = Place.of(pending["tick_id"], pending["part"])
        chunk = await self._read(after, until, [stream], whole=True)
        rows = stream.again(pending, chunk.rows) if chunk else []
        return stream.batch(pending, rows, is_full=True)

    def _look_later(self, stream: Stream) -> None:
        """Skip a subscription for now, because another exporter serves it."""
        stream.is_stale, stream.ready_at = True, time.monotonic() + self._poll

    async def _pass(self, head: Place) -> bool:
        """Read a chunk for each position of subscriptions, and deliver its events."""
        cohorts: defaultdict[Place, list[Stream]] = defaultdict(list)
        for stream in self._ready():
            if stream.subscription.pending is None and stream.place.tick_id < head.tick_id:
                cohorts[stream.place].append(stream)
        for place, streams in cohorts.items():
            chunk = await self._read(place, head, streams)
            if chunk is not None:
                await self._send(chunk, streams)
                continue
            for stream in streams:
                stream.place = head
        return bool(cohorts)

    async def _read(
        self, after: Place, until: Place, streams: Sequence[Stream], *, whole: bool = False
    ) -> Chunk | None:
        organizations = {stream.subscription.filter.organization_id for stream in streams}
        known = None if None in organizations else sorted(filter(None, organizations))
        return await self._source.read(after, until, known, whole=whole)

    async def _send(self, chunk: Chunk, streams: Sequence[Stream]) -> None:
        """Claim and start a batch for each subscription that has events in a chunk."""
        distribute(chunk.rows, streams)
        claims = {stream.name: stream.claim(chunk) for stream in streams if stream.rows}
        claimed = await self._keeper.claim(claims.values()) if claims else set()
        for stream in streams:
            rows, stream.rows = stream.rows, []
            if not rows:
                stream.place = chunk.end
            elif stream.name in claimed:
                pending = claims[stream.name].pending or {}
                batch = stream.batch(pending, rows, is_full=chunk.is_full)
                stream.task = asyncio.create_task(self._carry(stream, batch))
            else:
                self._look_later(stream)

    async def _carry(self, stream: Stream, batch: Batch) -> None:
        """Deliver a batch, and save the outcome."""
        try:
            try:
                outcome = await self._deliver(stream, batch)
            except Retry as error:
                await self._failed(stream, str(error), error.after)
            except Rejected as error:
                await self._keeper.leave(stream.name, str(error), failed=True)
                stream.given_up = f"{stream.name} failed: {error}"
                self._report(stream.name, stream.given_up)
            else:
                await self._finish(stream, batch, outcome)
        except Exception as error:
            # Probably the database is gone. The next exporter repeats the batch.
            self._broken, stream.is_stale = error, True
        finally:
            stream.task = None
            self._woken.set()

    async def _deliver(self, stream: Stream, batch: Batch) -> Outcome:
        if not batch.delivery.lines:
            return Outcome()
        has_taken = stream.subscription.delivered + stream.delivered > 0
        try:
            async with self._at_once[stream.subscription.is_stream, stream.failures > 0]:
                return await deliver(stream.sink, batch.delivery, has_taken=has_taken)
        except SinkError:
            raise
        except Exception as error:  # It must not stop other subscriptions.
            reason = " ".join(str(error).split())[:300]
            raise Retry(f"{type(error).__name__}: {reason}") from error

    async def _finish(self, stream: Stream, batch: Batch, outcome: Outcome) -> None:
        """Save that a batch was delivered, if it still belongs to this exporter."""
        await self._set_aside(stream, batch, outcome)
        if await self._keeper.finish(stream.name, batch.pending, outcome.taken):
            self._went_on(stream, batch, outcome)
        else:
            stream.is_stale = True

    async def _set_aside(self, stream: Stream, batch: Batch, outcome: Outcome) -> None:
        refused = [(batch.rows[line.key], problem) for line, problem in outcome.refused]
        for row, problem in [*batch.unencoded, *refused]:
            await self._keeper.set_aside(stream.name, row.tick_id, row.id, row.at, problem)
            self._tell(f"{stream.name}: event {row.id} was set aside: {problem}")

    def _went_on(self, stream: Stream, batch: Batch, outcome: Outcome) -> None:
        stream.place, stream.failures = batch.end, 0
        stream.progress = Progress()
        stream.subscription = replace(stream.subscription, place=batch.end, pending=None)
        stream.count_from(batch.pending.get("counts"))
        stream.delivered += outcome.taken
        stream.batches += 1
        self.problems.pop(stream.name, None)
        if self._follow and not batch.is_full:
            stream.ready_at = time.monotonic() + stream.every

    async def _failed(self, stream: Stream, problem: str, after: float | None) -> None:
        """Wait longer after each failure; without `follow`, give up in the end."""
        stream.failures += 1
        stream.is_stale = True
        wait = self._patience.wait(stream.failures, after)
        stream.ready_at = time.monotonic() + wait
        await self._keeper.leave(stream.name, problem, failed=False)
        self._report(stream.name, f"{stream.name}: {problem}")
        if not self._follow and (
            stream.failures >= self._patience.attempts or wait > self._patience.most
        ):
            stream.given_up = f"{stream.name}: {problem}; {counted(stream.failures, 'attempt')}"

    async def _note(self) -> None:
        """From time to time, save the position of subscriptions without matching events."""
        if time.monotonic() - self._noted < _NOTE:
            return
        self._noted = time.monotonic()
        places: defaultdict[int, list[Stream]] = defaultdict(list)
        for stream in self.streams.values():
            is_quiet = stream.task is None and not (stream.failures or stream.is_stale)
            if is_quiet and stream.subscription.pending is None and not stream.place.part:
                places[stream.place.tick_id].append(stream)
        for tick_id, streams in places.items():
            claims = [
                Claim(s.subscription, counts=s.counts.as_json() if s.counts is not None else None)
                for s in streams
            ]
            noted = await self._keeper.advance(claims, tick_id)
            for stream in streams:
                if stream.name in noted:
                    stream.subscription = replace(stream.subscription, place=Place(tick_id))
                else:  # Somebody else changed its position, or serves it.
                    stream.is_stale = True
