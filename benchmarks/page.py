"""Measures the page of admins on a log that has grown: whole requests, and what a writer pays.

python -m benchmarks.page                    # an embedded server; 10 million events
python -m benchmarks.page --millions 1 100   # 100 million take about 60 GB and half an hour
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg_pool
from psycopg.conninfo import make_conninfo

from auditdb.web import Access, app
from benchmarks import read
from benchmarks.capture import address
from benchmarks.report import markdown, summary

# What an admin asks, by the address. The last finds nothing in all the months that there are.
ADDRESSES = {
    "first page": "/",
    "by action": "/?action=api_key.revoked",
    "by person": "/?person_id=u1_7",
    "denied": "/?result=denied",
    "by ip": "/?ip=203.0.113.9",
    "text that is nowhere": "/?text=zebra",
    "ip that is nowhere": "/?ip=192.0.2.1",
    "action that is nowhere": "/?action=report.exported",
    "what is worth a look": "/?signal=unusual_login",
}

DROP_CACHES = Path("/proc/sys/vm/drop_caches")


async def measure(target: str, key: str, rounds: Iterable[int]) -> dict[str, list[float]]:
    """Return the milliseconds of each address, of requests that take turns."""
    access = Access(viewer_id=1, organizations=[1])
    found: dict[str, list[float]] = {}
    async with psycopg_pool.AsyncConnectionPool(target, min_size=2, max_size=4) as pool:

        def client() -> httpx.AsyncClient:
            application = app(connect=pool.connection, key=key, viewer=lambda request: access)
            transport = httpx.ASGITransport(app=application)
            return httpx.AsyncClient(transport=transport, base_url="http://shop")

        async with client() as same:
            first = await same.get("/")
            link = first.text.split('href="/event/')[1].split('"')[0].replace("&amp;", "&")
            paths = {"first page, nothing kept": "/", **ADDRESSES, "an event": f"/event/{link}"}
            for turn in rounds:
                for name, path in paths.items():
                    async with contextlib.AsyncExitStack() as stack:
                        own = same
                        if name.endswith("nothing kept"):
                            own = await stack.enter_async_context(client())
                        started = time.perf_counter()
                        answer = await own.get(path)
                        took = (time.perf_counter() - started) * 1000
                    assert answer.status_code == 200, (name, answer.text[:500])
                    if turn:
                        found.setdefault(name, []).append(took)
    return found


async def cold(target: str, key: str, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each address on a new connection, when the disk has to be read.

    The server keeps its own buffers; that is 128 MB, where it is not set otherwise.
    """
    access = Access(viewer_id=1, organizations=[1])
    application = app(connect=target, key=key, viewer=lambda request: access)
    transport = httpx.ASGITransport(app=application)
    found: dict[str, list[float]] = {name: [] for name in ADDRESSES}
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        for _ in range(rounds):
            for name, path in ADDRESSES.items():
                subprocess.run(["sync"], check=True)
                DROP_CACHES.write_text("3\n", "ascii")
                started = time.perf_counter()
                answer = await client.get(path)
                found[name].append((time.perf_counter() - started) * 1000)
                assert answer.status_code == 200, (name, answer.text[:500])
    return found


async def load(target: str, key: str, at_once: int) -> tuple[float, int]:
    """Return the seconds of so many requests at once, and how many were no page."""
    access = Access(viewer_id=1, organizations=[1])
    async with psycopg_pool.AsyncConnectionPool(target, min_size=2, max_size=4) as pool:
        application = app(connect=pool.connection, key=key, viewer=lambda request: access)
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            started = time.perf_counter()
            answers = await asyncio.gather(*(client.get("/") for _ in range(at_once)))
            took = time.perf_counter() - started
    return took, sum(answer.status_code != 200 for answer in answers)


def main() -> None:
    """Fill a log and ask for its pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, nargs="+", default=[10])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dsn", help="a server that is up, as its superuser")
    given: Any = parser.parse_args()
    with ExitStack() as stack:
        dsn = stack.enter_context(address(given.dsn))
        for millions in given.millions:
            with read.filled(make_conninfo(dsn), int(millions * 1e6)) as (target, _):
                key = read.create_key(target)
                print(f"\n{millions:g} million events; milliseconds, median and minimum")
                times = asyncio.run(measure(target, key, range(given.rounds + 1)))
                print(markdown(summary(times)))
                if os.access(DROP_CACHES, os.W_OK):
                    print("\non a new connection, with a cold cache")
                    print(markdown(summary(asyncio.run(cold(target, key, 3)))))
                took, failed = asyncio.run(load(target, key, 50))
                print(f"50 requests at once: {took:.2f} s, {failed} failed")


if __name__ == "__main__":
    main()
