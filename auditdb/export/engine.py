"""The engine: one pass over the ticks for any number of subscriptions, each at its own pace.

Subscriptions that stand at the same place are read for together: the cost grows with the events,
not with subscriptions times events. One whose sink is slow or down falls behind alone.
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

# Seconds between two notes of how far those came for whom there was nothing.
_NOTE = 30.0
# Deliveries that are under way at once; and apart, to sinks that failed last: as many as hang.
_AT_ONCE = 64
_DOUBTFUL = 16


class Source(Protocol):
    """Where events come from."""

    async def head(self) -> int:
        """Close what there is into a tick, and return the number of the last."""

    def due(self) -> float:
        """Return for how many seconds `head` gives nothing new."""

    async def last(self) -> int:
        """Return the number of the last tick that is known."""

    async def read(
        self, after: Place, until: Place, organizations: Sequence[str] | None, *,
        whole: bool = False,
    ) -> Chunk | None:  # fmt: skip
        """Return the events between two places, or the first of them; nothing where none are.

        Args:
            after: behind what was taken.
            until: how far to go.
            organizations: of these alone; by default all.
            whole: to there, however much that is.
        """


class Keeper(Protocol):
    """Where it is kept how far each subscription came; see `State`."""

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
    """Serves subscriptions until they have all there is, or, while it follows, until it is ended.

    Args:
        source: where events come from.
        keeper: where it is kept how far each came.
        open_sink: makes the sink of a subscription.
        names: of the subscriptions; none for all.
        follow: whether to go on when they have all there is.
        patience: how long to wait after failures.
        poll: seconds between two looks for new events.
        tell: called with a line that a person should see.
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
        # By whether it is a stream: receivers of customers, which may hang, keep no other waiting.
        # And by whether it failed last: as many as hang.
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
        """Let what is on its way arrive, and end."""
        self._ended.set()
        self._woken.set()

    async def run(self) -> None:
        """Serve.

        Raises:
            AuditError: there is no such subscription, or its sink cannot be opened.
            psycopg.Error: the database cannot be reached any more.
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
        """Wait for what is on its way, and close the sinks."""
        tasks = [stream.task for stream in self.streams.values() if stream.task]
        if tasks:
            await asyncio.wait(tasks)
        for stream in self.streams.values():
            await stream.sink.close()

    async def _rest(self) -> None:
        """Wait for new events, or for a delivery to come to its end."""
        self._woken.clear()
        with suppress(TimeoutError):
            # Not until the next look alone: an event waits for its tick already.
            due = self._source.due() if self._follow else self._poll
            async with asyncio.timeout(max(0.01, min(self._poll, due))):
                await self._woken.wait()

    def _is_over(self, goal: int) -> bool:
        return all(
            stream.task is None and (stream.given_up or stream.place.tick_id >= goal)
            for stream in self.streams.values()
        )

    async def _refresh(self) -> None:
        """Take on new subscriptions, and leave those that were dropped, paused or failed."""
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
        """Take what the database says, which somebody else may have moved."""
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
        """Stop where ticks were lost: nobody knows which of what comes was delivered already."""
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
        """Send again what was on its way when its exporter died, or when it failed."""
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
        """Leave a subscription that another exporter serves, for now."""
        stream.is_stale, stream.ready_at = True, time.monotonic() + self._poll

    async def _pass(self, head: Place) -> bool:
        """Read a chunk for each place where subscriptions stand, and send what it holds."""
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
        """Deliver a batch, and note what became of it."""
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
            # The database is gone, most likely: whoever comes next sends the batch again.
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
        except Exception as error:  # A sink that fails in a way of its own stops no other.
            reason = " ".join(str(error).split())[:300]
            raise Retry(f"{type(error).__name__}: {reason}") from error

    async def _finish(self, stream: Stream, batch: Batch, outcome: Outcome) -> None:
        """Note that a batch was taken, where it is still this exporter's."""
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
        """Wait longer after each failure; a run that does not follow gives up in the end."""
        stream.failures += 1
        stream.is_stale = True
        wait = self._patience.wait(stream.failures, after)
        stream.ready_at = time.monotonic() + wait
        await self._keeper.leave(stream.name, problem, failed=False)
        self._report(stream.name, f"{stream.name}: {problem}")
        if not self._follow and (
            stream.failures >= self._patience.attempts or wait > self._patience.most
        ):
            stream.given_up = f"{stream.name}: {problem}; tried {stream.failures} times"

    async def _note(self) -> None:
        """Note how far those came for whom there was nothing, from time to time."""
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
                else:  # Somebody else moved it, or has it.
                    stream.is_stale = True
