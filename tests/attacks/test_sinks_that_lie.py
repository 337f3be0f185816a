"""Sinks that lie, and what they make of an exporter that serves others too."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from auditdb.errors import InvalidInput
from auditdb.export.sinks.base import Delivery, Line, Progress, Retry
from auditdb.export.sinks.secrets import secrets_of_variables
from auditdb.export.sinks.threads import MOST, in_thread
from tests.export.fakes import FakeSink, Kept, Log
from tests.export.receivers import Answer, Receiver, Request, receiver
from tests.export.test_engine import engine
from tests.export.test_sinks import DELIVERY, NAME, opened, problem, put, url


@pytest.fixture
def web() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@pytest.mark.parametrize(
    ("scheme", "body"),
    [
        ("splunk+http", b"<html>Sign in</html>"),
        ("splunk+http", b""),
        ("splunk+http", b"{}"),
        ("splunk+http", b'{"code":"0"}'),
        ("otlp+http", b"<html>Sign in</html>"),
        ("otlp+http", b'{"partialSuccess":"none"}'),
        ("otlp+http", b'{"partialSuccess":{"rejectedLogRecords":true}}'),
        ("otlp+http", b'{"partialSuccess":{"rejectedLogRecords":"few"}}'),
        ("elastic+http", b'{"errors":false,"items":[]}'),
        ("elastic+http", b'{"items":[{"create":{"status":201}}]}'),
        ("elastic+http", b'{"items":[1,2,3,4,5]}'),
        ("elastic+http", b'{"items":[{},{},{},{},{}]}'),
        ("elastic+http", b'{"items":[{"create":{"status":"x"}},{},{},{},{}]}'),
        ("elastic+http", b'{"items":[' + b",".join([b'{"create":{"status":true}}'] * 5) + b"]}"),
    ],
)
def test_an_answer_that_does_not_say_all_was_taken_counts_for_nothing(
    web: Receiver, scheme: str, body: bytes
) -> None:
    """A proxy, a page to sign in, a balancer: all answer 200."""
    web.script(Answer(body=body))
    problem(opened(url(web, scheme, ""), token="t"), Retry)


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_that_is_a_bomb_is_not_unpacked(web: Receiver, status: int) -> None:
    bomb = gzip.compress(gzip.compress(b"x" * 300_000_000))
    web.script(Answer(status, (("content-encoding", "gzip, gzip"),), bomb))
    sink = opened(url(web))
    tracemalloc.start()
    try:
        if status == 200:
            put(sink)
        else:
            problem(sink, Retry)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert web.requests[0].headers.get("accept-encoding") == "identity"


@pytest.mark.parametrize("token", ["geheim\nx", "geheim\x7f", "geh\u20acim", "a geheim\r\nb: c"])
def test_a_token_that_is_no_header_is_refused_and_not_quoted(token: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        opened("https://a.test/x", token=secrets_of_variables(
            {"AUDITDB_SINK_TOKEN": token}).token)  # fmt: skip
    assert "geh" not in str(raised.value) and "token" in str(raised.value)


def test_what_was_taken_is_not_sent_again_when_the_rest_is_refused_for_now(
    web: Receiver,
) -> None:
    """A receiver that takes three requests a minute gets all of a batch of many in the end."""
    many = [Line(f"k-{n}", None, b'{"id":%d,"text":"%s"}' % (n, b"x" * 100)) for n in range(8000)]
    delivery = Delivery(subscription="siem", name=NAME, lines=many, progress=Progress())
    taken = Answer(body=b'{"text":"Success","code":0}')

    def decide(request: Request) -> Answer:
        return taken if len(web.requests) % 4 else Answer(429)

    web.decide = decide
    sink = opened(url(web, "splunk+http", ""), token="t")
    tries = 0

    async def work() -> None:
        nonlocal tries
        while tries < 20:
            tries += 1
            try:
                await sink.put(delivery)
                break
            except Retry:
                continue
        await sink.close()

    asyncio.run(work())
    sent = [json.loads(line)["event"]["id"] for n, r in enumerate(web.requests, 1) if n % 4
            for line in r.body.splitlines()]  # fmt: skip
    assert sent == list(range(8000))


def test_a_delivery_that_was_taken_is_sent_again_when_it_is_asked_for(web: Receiver) -> None:
    web.decide = lambda request: Answer(body=b'{"text":"Success","code":0}')
    put(opened(url(web, "splunk+http", ""), token="t"), DELIVERY, DELIVERY)
    assert len(web.requests) == 2


def test_sinks_that_hang_delay_no_other_however_many_they_are() -> None:
    log, kept, sinks = Log(), Kept(), {}
    kept.add("ok", delivered=1)

    async def hang(delivery: Delivery) -> None:
        await asyncio.sleep(1)
        raise Retry("did not answer")

    for n in range(200):
        kept.add(f"s{n}")
        sinks[f"s{n}"] = FakeSink(hang)
    log.add("1")

    async def work() -> float:
        made = engine(log, kept, sinks, follow=True)
        serving = asyncio.create_task(made.run())
        async with asyncio.timeout(30):
            while (
                not sinks.get("ok")
                or not sinks["ok"].taken
                or not all(made.streams[f"s{n}"].failures for n in range(200))
            ):
                await asyncio.sleep(0.01)
            log.add("1")
            begin = time.monotonic()
            while len(sinks["ok"].taken) < 2:
                await asyncio.sleep(0.01)
            took = time.monotonic() - begin
        made.end()
        await serving
        return took

    assert asyncio.run(work()) < 0.5


def test_as_many_threads_as_deliveries() -> None:
    """Six files on a disk that hangs, on a small machine, delay no other."""
    gate = threading.Barrier(MOST)

    async def work() -> None:
        def wait() -> None:
            gate.wait(20)

        await asyncio.gather(*[in_thread(wait) for _ in range(MOST)])

    asyncio.run(work())
