"""Taking the log along: the same filter, no cap, constant memory, and never unseen."""

from __future__ import annotations

import asyncio
import csv
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest

from auditdb import AuditError
from auditdb.web import export, listing
from tests.conftest import Database
from tests.page.conftest import MEMBER, OTHER, OWNER, fetch

Make = Callable[..., Any]


def readings(db: Database) -> list[tuple[Any, ...]]:
    """Return action, actor, organisation, format, count and whether it was complete."""
    return db.connect().execute(
        "select action, actor_id, organization_id, details ->> 'format', details ->> 'events',"
        " details ->> 'is_complete' from audit.event where action like 'audit.export%' order by id"
    ).fetchall()  # fmt: skip


def test_the_same_filter_is_taken_along_and_said(site: Make, db: Database) -> None:
    application = site()
    query = "action=membership&zone=Asia/Tokyo&within=9999"
    api, lines, cells = fetch(
        application, f"/api/events?{query}", f"/events.jsonl?{query}", f"/events.csv?{query}"
    )
    filters = "select distinct details -> 'filter' from audit.event where action like 'audit.exp%'"
    assert db.connect().execute(filters.encode()).fetchall() == [({"action": "membership"},)]
    ids = [event["id"] for event in api.json()["events"]]
    taken = [json.loads(line) for line in lines.text.splitlines()]
    rows = list(csv.DictReader(cells.text.splitlines()))
    assert [event["id"] for event in taken] == [int(row["id"]) for row in rows] == ids
    # UTC, ISO 8601, whatever zone the page shows.
    assert all(event["occurred_at"].endswith("+00:00") for event in taken)
    assert lines.headers["content-disposition"].startswith('attachment; filename="audit-log-2')
    assert readings(db) == [
        ("audit.export_started", OWNER, "1", "jsonl", None, None),
        ("audit.exported", OWNER, "1", "jsonl", "2", "true"),
        ("audit.export_started", OWNER, "1", "csv", None, None),
        ("audit.exported", OWNER, "1", "csv", "2", "true"),
    ]


def test_formulas_are_neutralised_unless_they_are_asked_for(site: Make, db: Database) -> None:
    db.connect("app").execute(
        "select audit.record_event('report.exported', '1', actor_id => '=1+1')"
    )
    safe, kept = fetch(
        site(), "/events.csv?action=report.exported",
        "/events.csv?action=report.exported&formulas=keep",
    )  # fmt: skip
    assert "'=1+1" in safe.text and "'=1+1" not in kept.text and "=1+1" in kept.text


def test_several_organizations_are_taken_along_under_one_heading(site: Make, db: Database) -> None:
    db.connect("app").execute("insert into membership values (2, 1, 'OWNER', now())")
    (page,) = fetch(site(OWNER, [1, 2]), "/events.csv?action=workflow")
    rows = list(csv.DictReader(page.text.splitlines()))
    assert [row["organization_id"] for row in rows] == ["1", "1", "2"]
    assert [(row[1], row[2], row[4]) for row in readings(db) if row[4]] == [
        (OWNER, "1", "2"), (OWNER, "2", "1"),
    ]  # fmt: skip


def test_one_who_is_no_admin_takes_nothing_along(site: Make, db: Database) -> None:
    db.connect("app").execute("update membership set role = 'MEMBER' where user_id = 2")
    (page,) = fetch(site(MEMBER), "/events.csv")
    assert page.status_code == 403 and "workflow" not in page.text
    assert "You may not read this log" in page.text
    assert readings(db) == []
    # Nor does an admin of another organisation.
    (page,) = fetch(site(OTHER, [1]), "/events.csv")
    assert page.status_code == 403 and readings(db) == []
    # Of two, the one is taken along.
    for organizations in ([1, 2], [2, 1]):
        (page,) = fetch(site(OTHER, organizations), "/events.csv?action=workflow")
        rows = list(csv.DictReader(page.text.splitlines()))
        assert [row["organization_id"] for row in rows] == ["2"]
    assert {row[2] for row in readings(db)} == {"2"}


@pytest.mark.usefixtures("auditors")
def test_a_key_that_is_retired_exports_nothing_in_anybodys_name(site: Make, db: Database) -> None:
    application = site()
    db.connect().execute("select audit.create_key('0 seconds')")
    (page,) = fetch(application, "/events.csv")
    assert page.status_code == 503 and "The signing key is retired" in page.text
    assert readings(db) == []


def test_what_cannot_be_recorded_is_not_taken_along(site: Make, shop: Database) -> None:
    with shop.connect() as conn:
        conn.execute(
            "alter role app_reader in database"
            f" {conn.info.dbname} set default_transaction_read_only = on"
        )
    try:
        page, shown = fetch(site(), "/events.csv", "/")
        assert page.status_code == 503 and "standby" in page.text
        assert shown.status_code == 200
    finally:
        with shop.connect() as conn:
            conn.execute(
                f"alter role app_reader in database {conn.info.dbname}"
                " reset default_transaction_read_only"
            )


async def leaving(application: Any, after: int, query: bytes = b"") -> None:
    """Ask for the export, and leave once so many bytes have come."""
    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
        "method": "GET", "path": "/events.jsonl", "raw_path": b"/events.jsonl",
        "query_string": query, "headers": [], "root_path": "", "scheme": "http",
        "server": ("shop.test", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    got = 0

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        nonlocal got
        got += len(message.get("body", b""))
        if got > after:
            raise OSError("the client is gone")

    with pytest.raises(Exception):  # noqa: B017
        await application(scope, receive, send)


def test_who_leaves_before_the_end_is_said_too(site: Make, db: Database) -> None:
    with db.connect("app") as conn:
        conn.execute(
            "select audit.record_event('report.exported', '1', details => jsonb_build_object('x',"
            " repeat('y', 3000))) from generate_series(1, 3000)"
        )
    asyncio.run(leaving(site(), 2_000_000))
    started, ended = readings(db)
    assert started[0] == "audit.export_started"
    assert ended[0] == "audit.exported" and ended[5] == "false" and 0 < int(ended[4]) < 3000


def test_a_million_bytes_or_many_more_are_taken_along_in_the_same_memory(
    site: Make, db: Database
) -> None:
    with db.connect("app") as conn:
        conn.execute(
            "select audit.record_event('report.exported', '1', details => jsonb_build_object('x',"
            " repeat('y', 1000))) from generate_series(1, 60000)"
        )

    async def count(query: str) -> tuple[int, int]:
        scope_bytes, lines = 0, 0

        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            nonlocal scope_bytes, lines
            scope_bytes += len(message.get("body", b""))
            lines += message.get("body", b"").count(b"\n")

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1", "method": "GET", "path": "/events.jsonl",
            "raw_path": b"/events.jsonl", "query_string": query.encode(), "headers": [],
            "root_path": "", "scheme": "http", "server": ("shop.test", 80),
            "client": ("127.0.0.1", 1),
        }  # fmt: skip
        await site()(scope, receive, send)
        return scope_bytes, lines

    asyncio.run(count("action=auth"))
    tracemalloc.start()
    size, lines = asyncio.run(count("action=report.exported"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines == 60_000 and size > 80_000_000
    assert peak < 45_000_000, peak


def test_the_page_looks_at_no_more_than_it_says_and_an_export_at_all(
    site: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", 2)
    api, taken = fetch(site(), "/api/events?action=auth.login", "/events.jsonl?action=auth.login")
    assert api.json()["events"] == [] and api.json()["looked_back_to"]
    assert len(taken.text.splitlines()) == 2


def scope_of(path: str) -> dict[str, Any]:
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1",
        "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [], "root_path": "", "scheme": "http", "server": ("shop.test", 80),
        "client": ("127.0.0.1", 1),
    }  # fmt: skip


def test_exports_that_take_all_connections_of_a_pool_are_said_to_end(
    site: Make, shop: Database
) -> None:
    class Pool:
        def __init__(self) -> None:
            self.free = asyncio.Semaphore(2)

        @asynccontextmanager
        async def connection(self) -> AsyncIterator[Any]:
            try:
                await asyncio.wait_for(self.free.acquire(), 5)
            except TimeoutError:
                raise psycopg.OperationalError("the pool is empty") from None
            try:
                dsn = shop.conninfo("app_reader")
                async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
                    yield conn
            finally:
                self.free.release()

    async def take() -> list[int]:
        application = site(connect=Pool().connection)
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            asked = (client.get("/events.csv") for _ in range(2))
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert asyncio.run(take()) == [200, 200]
    assert sorted(str(row[5]) for row in readings(shop)) == ["None", "None", "true", "true"]


def test_one_viewer_takes_no_connections_of_others(
    site: Make, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "STALLED", 1)

    async def take() -> list[int]:
        application, said = site(), []

        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                said.append(message["status"])
            # Who is let in never reads on.
            await asyncio.sleep(0 if said[-1] == 429 else 600)

        asked = (application(scope_of("/events.jsonl"), receive, send) for _ in range(9))
        await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 60)
        stalled = fetch_async(application, "/events.jsonl")
        return [*said, await stalled]

    async def fetch_async(application: Any, path: str) -> int:
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return (await client.get(path)).status_code

    said = asyncio.run(take())
    assert sorted(said) == [200, 200, 200, *[429] * 7] and said[-1] == 200
    assert [row[0] for row in readings(db)].count("audit.exported") == 3


def test_who_is_demoted_meanwhile_takes_no_more_and_gets_no_whole_file(
    site: Make, db: Database
) -> None:
    with db.connect("app") as conn:
        conn.execute(
            "select audit.record_event('report.exported', '1', details => jsonb_build_object('x',"
            " repeat('y', 3000))) from generate_series(1, 3000)"
        )
    got: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        got.append(message)
        if len(got) == 2:
            db.connect("app").execute("update membership set role = 'MEMBER' where user_id = 1")

    with pytest.raises(AuditError):
        asyncio.run(site()(scope_of("/events.jsonl"), receive, send))
    taken = b"".join(message.get("body", b"") for message in got)
    assert taken.count(b"\n") < 3000 and got[-1].get("more_body")
    assert [row[0] for row in readings(db)] == ["audit.export_started"]


def test_no_other_site_and_no_question_of_its_headers_takes_the_log_along(
    site: Make, db: Database
) -> None:
    application = site()
    # Nor one beside it: on a sub-domain of its own, a product may show what its users write.
    for site_of in ("cross-site", "same-site"):
        (other,) = fetch(application, "/events.csv", **{"sec-fetch-site": site_of})
        assert other.status_code == 403 and "workflow" not in other.text
    (own,) = fetch(application, "/events.csv", **{"sec-fetch-site": "same-origin"})
    assert own.status_code == 200

    async def head() -> httpx.Response:
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.head("/events.csv")

    assert asyncio.run(head()).status_code == 200
    assert len(readings(db)) == 2


def test_of_several_organisations_those_are_taken_that_the_viewer_may_read(site: Make) -> None:
    (alone,) = fetch(site(), "/events.csv?action=workflow")
    (several,) = fetch(site(OWNER, [3, 1, 2]), "/events.csv?action=workflow")
    assert several.status_code == 200 and several.text == alone.text
    (stranger,) = fetch(site("4", [1, 2]), "/events.csv")
    assert stranger.status_code == 403 and "You may not read this log" in stranger.text
