"""The engine alone: who gets what, in which order, and what a failing sink does to others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from auditdb.errors import InvalidInput
from auditdb.export.deliver import Patience
from auditdb.export.engine import Engine
from auditdb.export.formats import FORMATS
from auditdb.export.place import Place
from auditdb.export.sinks.base import Delivery, Poison, Rejected, Retry, SinkError
from tests.export.fakes import KEY, FakeKeeper, FakeSink, Kept, Log

QUICK = Patience(first=0.001, most=0.01, attempts=4)


def engine(log: Log, kept: Kept, sinks: dict[str, FakeSink], **given: Any) -> Engine:
    keeper = given.pop("keeper", None) or FakeKeeper(kept)
    kept.living.add(keeper.exporter)
    given.setdefault("names", None)
    given.setdefault("follow", False)
    given.setdefault("patience", QUICK)
    given.setdefault("poll", 0.01)
    return Engine(log, keeper, lambda s: sinks.setdefault(s.name, FakeSink()), **given)


def serve(log: Log, kept: Kept, sinks: dict[str, FakeSink], **given: Any) -> Engine:
    made = engine(log, kept, sinks, **given)
    asyncio.run(asyncio.wait_for(made.run(), 20))
    return made


def failing(*errors: SinkError | None) -> Callable[[Delivery], Awaitable[None]]:
    left = iter(errors)

    async def act(delivery: Delivery) -> None:
        error = next(left, None)
        if error is not None:
            raise error

    return act


def refusing(*ids: int) -> Callable[[Delivery], Awaitable[None]]:
    """Refuse every delivery that holds one of some events."""

    async def act(delivery: Delivery) -> None:
        bad = {f"{KEY}:{id}" for id in ids}
        if bad & {line.key for line in delivery.lines}:
            raise Poison("answers 400")

    return act


def test_each_gets_its_events_in_order_and_once() -> None:
    log, kept, sinks = Log(), Kept(), {}  # type: tuple[Log, Kept, dict[str, FakeSink]]
    for _ in range(20):
        log.add("a", "b", None)
    kept.add("all")
    kept.add("acme", "a")
    serve(log, kept, sinks)
    assert sinks["all"].ids == list(range(1, 61))
    assert sinks["acme"].ids == list(range(1, 61, 3))
    names = [delivery.name for delivery in sinks["all"].taken]
    assert names == sorted(names) and len(set(names)) == len(names) > 5


def test_a_second_run_gives_what_came_since() -> None:
    log, kept, sinks = Log(), Kept(), {}  # type: tuple[Log, Kept, dict[str, FakeSink]]
    kept.add("all")
    log.add("a")
    serve(log, kept, sinks)
    serve(log, kept, sinks)
    assert sinks["all"].ids == [1]
    log.add("b")
    serve(log, kept, sinks)
    assert sinks["all"].ids == [1, 2]


def test_reads_grow_with_events_and_not_with_subscriptions() -> None:
    counts = []
    for subscriptions in (2, 2000):
        log, kept = Log(), Kept()
        for n in range(100):
            log.add(f"o{n % 200}", None)
        for n in range(subscriptions):
            kept.add(f"s{n}", f"o{n}")
        kept.add("all")
        serve(log, kept, {})
        counts.append(log.reads)
    # Those whose batches arrive one loop later read once more: a few, not a hundred times as many.
    assert counts[1] < counts[0] * 6


def test_a_sink_that_hangs_delays_nobody_else() -> None:
    log, kept = Log(), Kept()
    released = asyncio.Event()

    async def hang(delivery: Delivery) -> None:
        await released.wait()

    sinks = {"slow": FakeSink(hang)}
    kept.add("slow")
    kept.add("quick")
    for _ in range(5):
        log.add("a")

    async def work() -> None:
        made = engine(log, kept, sinks, follow=True)
        running = asyncio.create_task(made.run())
        while len(sinks.get("quick", FakeSink()).ids) < 5:
            await asyncio.sleep(0.001)
        log.add("b")
        while len(sinks["quick"].ids) < 6:
            await asyncio.sleep(0.001)
        assert sinks["slow"].ids == []
        released.set()
        while len(sinks["slow"].ids) < 6:
            await asyncio.sleep(0.001)
        made.end()
        await running

    asyncio.run(asyncio.wait_for(work(), 20))
    assert all(sink.is_closed for sink in sinks.values())


def test_what_passes_is_tried_again_with_the_same_delivery() -> None:
    log, kept = Log(), Kept()
    sinks = {"all": FakeSink(failing(Retry("busy"), Retry("busy"), None))}
    kept.add("all")
    log.add("a", "b")
    made = serve(log, kept, sinks)
    first, second, third = sinks["all"].tried
    assert first == second == third and sinks["all"].ids == [1, 2]
    assert made.problems == {}


def test_a_run_gives_up_after_some_attempts_and_loses_nothing() -> None:
    log, kept = Log(), Kept()
    sinks = {"all": FakeSink(failing(*[Retry("no space left")] * 4))}
    kept.add("all")
    log.add("a")
    made = serve(log, kept, sinks)
    assert made.streams["all"].given_up == "all: no space left; 4 attempts"
    assert kept.subscriptions["all"].problem == "no space left"
    assert kept.subscriptions["all"].state == "active"
    serve(log, kept, sinks)
    assert sinks["all"].ids == [1]


def test_retry_after_is_waited_for() -> None:
    log, kept = Log(), Kept()
    sinks = {"all": FakeSink(failing(Retry("busy", after=0.3)))}
    kept.add("all")
    log.add("a")
    before = time.monotonic()
    serve(log, kept, sinks, patience=Patience(first=0.001, most=1, attempts=4))
    assert time.monotonic() - before >= 0.3 and sinks["all"].ids == [1]


def test_what_a_person_has_to_mend_stops_that_one_alone() -> None:
    log, kept = Log(), Kept()
    sinks = {"bad": FakeSink(failing(Rejected("answers 401")))}
    kept.add("bad")
    kept.add("good")
    log.add("a")
    said: list[str] = []
    serve(log, kept, sinks, tell=said.append)
    assert sinks["good"].ids == [1] and sinks["bad"].ids == []
    assert kept.subscriptions["bad"].state == "failed"
    assert said[0] == "bad failed: answers 401"
    kept.change("bad", state="active")
    serve(log, kept, sinks)
    assert sinks["bad"].ids == [1]


def test_poison_is_set_aside_and_the_others_go_on_in_order() -> None:
    log, kept = Log(limit=100), Kept()
    sinks = {"all": FakeSink(refusing(13, 40))}
    kept.add("all")
    for _ in range(25):
        log.add("a", "b")
    said: list[str] = []
    serve(log, kept, sinks, tell=said.append)
    assert sinks["all"].ids == [n for n in range(1, 51) if n not in (13, 40)]
    assert kept.aside == [("all", 13, "answers 400"), ("all", 40, "answers 400")]
    assert said == [f"all: event {n} was set aside: answers 400" for n in (13, 40)]
    assert kept.subscriptions["all"].delivered == 48


def test_a_sink_that_refuses_everything_gets_nothing_set_aside() -> None:
    log, kept = Log(limit=1000), Kept()
    sinks = {"all": FakeSink(failing(*[Poison("no such index")] * 5000))}
    kept.add("all")
    for _ in range(500):
        log.add("a")
    serve(log, kept, sinks)
    assert kept.aside == [] and len(sinks["all"].tried) < 60
    assert kept.subscriptions["all"].state == "failed"
    assert "refuses every event" in str(kept.subscriptions["all"].problem)


def test_the_only_event_is_no_poison_of_a_sink_that_took_none_yet() -> None:
    log, kept = Log(), Kept()
    sinks = {"all": FakeSink(refusing(1, 3))}
    kept.add("all")
    log.add("a")
    serve(log, kept, sinks)
    assert kept.subscriptions["all"].state == "failed" and kept.aside == []
    sinks["all"].act = None
    kept.change("all", state="active")
    serve(log, kept, sinks)
    sinks["all"].act = refusing(2)
    log.add("a")
    serve(log, kept, sinks)
    assert [id for _, id, _ in kept.aside] == [2] and sinks["all"].ids == [1]


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_what_was_on_its_way_is_sent_again_the_same(limit: int) -> None:
    """Whoever died after the sink took it, and however much the next one reads at a time."""
    log, kept, sinks = Log(limit=4), Kept(), {}  # type: tuple[Log, Kept, dict[str, FakeSink]]
    kept.add("acme", "a")
    log.add("b", "a")
    serve(log, kept, sinks)
    sinks.clear()
    for _ in range(6):
        log.add("b", "a", None)
    with pytest.raises(ConnectionError):
        serve(log, kept, sinks, keeper=FakeKeeper(kept, dies_before_finish=True))
    kept.living.clear()
    log.limit = limit
    log.add("a")
    serve(log, kept, sinks, keeper=FakeKeeper(kept, exporter=2))
    first, again, *_ = sinks["acme"].taken
    assert (first.name, first.lines) == (again.name, again.lines)
    rest = [line.key for d in sinks["acme"].taken[1:] for line in d.lines]
    assert rest == [f"{KEY}:{r.id}" for r in log.rows[2:] if r.organization_id == "a"]


def test_one_exporter_at_a_time_serves_a_subscription() -> None:
    log, kept = Log(limit=2), Kept()
    sinks: dict[str, FakeSink] = {}
    kept.add("all")
    for _ in range(50):
        log.add("a")

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            for n in (1, 2, 3):
                made = engine(log, kept, sinks, keeper=FakeKeeper(kept, exporter=n))
                group.create_task(made.run())

    asyncio.run(asyncio.wait_for(work(), 20))
    assert sinks["all"].ids == list(range(1, 51))


def test_a_pause_and_a_reset_are_heeded_while_it_follows() -> None:
    log, kept, sinks = Log(), Kept(), {}  # type: tuple[Log, Kept, dict[str, FakeSink]]
    kept.add("all")
    log.add("a")

    async def work() -> None:
        made = engine(log, kept, sinks, follow=True)
        running = asyncio.create_task(made.run())
        while not sinks.get("all", FakeSink()).ids:
            await asyncio.sleep(0.001)
        kept.change("all", state="paused")
        await asyncio.sleep(0.05)
        log.add("b")
        await asyncio.sleep(0.05)
        assert sinks["all"].ids == [1] and "all is paused" in made.problems["all"]
        kept.change("all", state="active", place=Place(0))
        while sinks["all"].ids != [1, 1, 2]:
            await asyncio.sleep(0.001)
        kept.change("all", place=Place(0))
        while sinks["all"].ids != [1, 1, 2, 1, 2]:
            await asyncio.sleep(0.001)
        made.end()
        await running

    asyncio.run(asyncio.wait_for(work(), 20))


def test_an_event_that_cannot_be_encoded_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(line: bytes) -> bytes:
        if b'"id":"2"' in line:
            raise ValueError("odd")
        return line

    monkeypatch.setitem(FORMATS, "jsonl", replace(FORMATS["jsonl"], convert=convert))
    log, kept, sinks = Log(), Kept(), {}  # type: tuple[Log, Kept, dict[str, FakeSink]]
    kept.add("all")
    log.add("a", "b", "c")
    serve(log, kept, sinks)
    assert sinks["all"].ids == [1, 3]
    assert kept.aside == [("all", 2, "cannot be written as jsonl: odd")]


def test_a_sink_that_fails_in_a_way_of_its_own_stops_no_other() -> None:
    async def act(delivery: Delivery) -> None:
        raise ZeroDivisionError("division\nby zero")

    log, kept = Log(), Kept()
    sinks = {"odd": FakeSink(act)}
    for name in ("all", "odd"):
        kept.add(name)
    log.add("a", "b")
    served = serve(log, kept, sinks)
    assert sinks["all"].ids == [1, 2] and kept.subscriptions["odd"].pending is not None
    assert "ZeroDivisionError: division by zero" in served.problems["odd"]


@pytest.mark.parametrize("error", [Retry("busy"), Rejected("no")])
def test_a_database_that_goes_while_a_failure_is_noted_ends_it(error: SinkError) -> None:
    log, kept = Log(), Kept()
    kept.add("all")
    log.add("a")
    with pytest.raises(ConnectionError):
        serve(log, kept, {"all": FakeSink(failing(error))},
              keeper=FakeKeeper(kept, dies_before_leave=True))  # fmt: skip


def test_a_subscription_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="there is no subscription misspelt"):
        serve(Log(), Kept(), {}, names=["misspelt"])


def test_halves_that_were_taken_are_not_sent_again_with_the_rest() -> None:
    """What is refused for now, in the midst of a poisoned batch, goes on where it was."""
    log, kept, sinks = Log(), Kept(), {"a": FakeSink()}
    kept.add("a", delivered=1)
    log.add(*(["1"] * 8))
    refuse, tries = refusing(5), iter(range(1000))

    async def act(delivery: Delivery) -> None:
        if next(tries) % 2:
            raise Retry("answers 429")
        await refuse(delivery)

    sinks["a"].act = act
    serve(log, kept, sinks, patience=Patience(first=0.001, most=0.01, attempts=100))
    assert sinks["a"].ids == [1, 2, 3, 4, 6, 7, 8]
    assert [id for _, id, _ in kept.aside] == [5]
    assert len(sinks["a"].tried) < 20


def test_it_looks_again_when_a_tick_is_due() -> None:
    """However seldom it looks whether subscriptions were made."""
    log, kept, sinks = Log(), Kept(), {}  # type: tuple[Log, Kept, dict[str, FakeSink]]
    kept.add("all")
    log.wait = 0.02

    async def work() -> None:
        made = engine(log, kept, sinks, follow=True, poll=5.0)
        running = asyncio.create_task(made.run())
        await asyncio.sleep(0.2)
        log.add("a")
        await asyncio.sleep(0.5)
        assert sinks["all"].ids == [1]
        made.end()
        await asyncio.wait_for(running, 10)

    asyncio.run(work())


def test_receivers_of_customers_that_hang_keep_no_other_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("auditdb.export.engine._AT_ONCE", 2)
    log, kept = Log(), Kept()
    log.add("a")
    arrived = asyncio.Event()

    async def hang(delivery: Delivery) -> None:
        await asyncio.wait_for(arrived.wait(), 10)

    async def arrive(delivery: Delivery) -> None:
        arrived.set()

    sinks = {"siem": FakeSink(arrive)}
    for number in range(4):
        kept.add(f"customer-{number}", "a", is_stream=True)
        sinks[f"customer-{number}"] = FakeSink(hang)
    kept.add("siem")
    serve(log, kept, sinks)
    assert {name: sink.ids for name, sink in sinks.items()} == {name: [1] for name in sinks}
