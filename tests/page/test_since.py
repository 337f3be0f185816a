"""Polling over HTTP: every committed event of an organisation once, in order, and no other's."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
from jsonschema import Draft202012Validator
from psycopg.conninfo import make_conninfo

from auditdb.web import since
from tests.conftest import Database
from tests.page.conftest import MEMBER, OTHER, OWNER, fetch
from tests.pooler import pooler
from tests.server import Server

Make = Callable[..., Any]
PATH = "/api/events/since"
SCHEMA = Path(__file__).parents[2] / "docs" / "event-1.schema.json"


def poll(
    application: Any, cursor: str | None = None, limit: int = 1000, more: str = ""
) -> tuple[list[dict[str, Any]], str | None]:
    """Read from a cursor on until there is no more; return the events, and where to go on."""
    events: list[dict[str, Any]] = []
    while True:
        at = f"&cursor={quote(cursor)}" if cursor else ""
        (answer,) = fetch(application, f"{PATH}?limit={limit}{at}{more}")
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert len(found["events"]) <= limit
        events += found["events"]
        cursor = found["cursor"]
        if not found["is_more"]:
            return events, cursor


def logged(db: Database, organization: str) -> list[str]:
    with psycopg.connect(db.dsn) as conn:
        query = "select e.id::text from audit.event as e where organization_id = %s order by e.id"
        return [row[0] for row in conn.execute(query, [organization])]


def record(db: Database, *actions: str, organization: str = "1") -> None:
    conn = db.connect("app")
    for action in actions:
        conn.execute("select audit.record_event(%s, %s)", [action, organization])


def age(db: Database) -> None:
    """Let the last tick be old, so that the next poll makes one."""
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        conn.execute("alter table audit.tick disable trigger all")
        conn.execute("update audit.tick set made_at = made_at - interval '1 minute'")


def test_a_poll_gives_what_was_committed_before_it_as_it_is_exported(
    site: Make, shop: Database
) -> None:
    events, cursor = poll(site())
    assert [event["id"] for event in events] == logged(shop, "1") and len(events) > 5
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    for event in events:
        validator.validate(event)
    assert poll(site(), cursor)[0] == []
    # Long after the last tick: it is there at once, and not one poll later.
    age(shop)
    record(shop, "auth.login")
    found, _ = poll(site(), cursor)
    assert [event["action"] for event in found] == ["auth.login"]


def test_small_batches_and_actions(site: Make, shop: Database) -> None:
    assert [event["id"] for event in poll(site(), limit=2)[0]] == logged(shop, "1")
    assert {e["action"].partition(".")[0] for e in poll(site(), more="&action=auth")[0]} == {"auth"}
    (event,) = poll(site(), more="&action=workflow.created")[0]
    assert event["action"] == "workflow.created"


def test_now_is_the_end_of_the_log(site: Make, shop: Database) -> None:
    events, cursor = poll(site(), "now")
    assert events == []
    age(shop)
    record(shop, "auth.logout")
    assert [event["action"] for event in poll(site(), cursor)[0]] == ["auth.logout"]


def test_a_batch_ends_at_a_number_of_bytes_and_loses_nothing(
    site: Make, shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a thousand large events of somebody would take all memory."""
    conn = shop.connect("app")
    for size in (10, 90_000, 10, 90_000, 90_000, 10):
        conn.execute(
            "select audit.record_event('auth.login', '1', details => "
            "jsonb_build_object('reason', repeat('x', %s)))", [size]
        )  # fmt: skip
    monkeypatch.setattr(since, "BYTES", 100_000)
    (first,) = fetch(site(), f"{PATH}?limit=1000")
    assert first.json()["is_more"] and len(first.content) < 250_000
    events, _ = poll(site())
    assert [event["id"] for event in events] == logged(shop, "1")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("cursor=nonsense", "is no cursor"),
        ("cursor=" + "x" * 999, "is no cursor"),
        ("limit=0", "limit is 0"),
        ("limit=1001", "from 1 to 1000"),
        ("limit=many", "whole number"),
        ("result=denied", "result is no filter here"),
        ("last=24h", "last is no filter here"),
        ("text=x", "text is no filter here"),
        ("action=Auth.", "give category.verb"),
    ],
)
def test_a_wrong_address_is_told_in_a_line(site: Make, query: str, said: str) -> None:
    (answer,) = fetch(site(), f"{PATH}?{query}")
    assert answer.status_code == 400 and said in answer.json()["help"]
    assert len(answer.text.splitlines()) == 1


def test_a_cursor_that_a_recovery_lost_is_told_apart(site: Make, shop: Database) -> None:
    _, cursor = poll(site())
    with psycopg.connect(shop.dsn, autocommit=True) as conn:
        conn.execute("alter table audit.tick disable trigger all")
        conn.execute("update audit.tick set id = id - 1000")
    (answer,) = fetch(site(), f"{PATH}?cursor={cursor}")
    assert (answer.status_code, answer.json()["error"]) == (410, "cursor_lost")


def test_who_may_not_read_polls_nothing(site: Make, shop: Database) -> None:
    (answer,) = fetch(site(MEMBER, [2]), PATH)
    assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
    (nobody,) = fetch(site(None), PATH)
    assert nobody.status_code == 401
    (elsewhere,) = fetch(site(), f"{PATH}?organization=2")
    assert elsewhere.status_code == 404
    _, cursor = poll(site())
    shop.connect("app").execute("delete from membership where user_id = 1")
    (lost,) = fetch(site(), f"{PATH}?cursor={cursor}")
    assert (lost.status_code, lost.json()["error"]) == (403, "forbidden")
    # A cursor is a place in the log of all; it gives the events of whoever shows it.
    theirs, _ = poll(site(OTHER, [2]), cursor)
    assert {event["organization_id"] for event in theirs} <= {"2"}


def test_each_organisation_is_polled_by_itself(site: Make, shop: Database) -> None:
    shop.connect("app").execute("insert into membership values (2, 1, 'OWNER', now())")
    application = site(OWNER, [1, 2])
    (answer,) = fetch(application, PATH)
    assert answer.status_code == 400 and "give organization" in answer.json()["help"]
    events, _ = poll(application, more="&organization=2")
    assert [event["id"] for event in events] == logged(shop, "2")


def test_the_staff_polls_one_organisation_and_is_seen(
    site: Make, shop: Database, auditors: None
) -> None:
    events, _ = poll(site("support-7", [1], is_staff=True))
    assert {event["organization_id"] for event in events} == {"1"}
    assert "audit.viewed" in {event["action"] for event in events}


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_it_reads_committed_whatever_the_database_sets(
    site: Make, shop: Database, isolation: str
) -> None:
    with psycopg.connect(shop.dsn, autocommit=True) as conn:
        conn.execute(f"alter role app_reader set default_transaction_isolation = '{isolation}'")
    try:
        assert len(poll(site())[0]) > 5
    finally:
        with psycopg.connect(shop.dsn, autocommit=True) as conn:
            conn.execute("alter role app_reader reset default_transaction_isolation")


@pytest.mark.parametrize("is_pool", [False, True])
def test_it_comes_through_a_pooler(
    site: Make, shop: Database, server: Server, is_pool: bool
) -> None:
    with pooler(server, size=2) as port:
        dsn = make_conninfo(shop.conninfo("app_reader"), port=port)

        @asynccontextmanager
        async def connect() -> Any:
            async with await psycopg.AsyncConnection.connect(dsn, prepare_threshold=None) as conn:
                yield conn

        application = site(connect=connect if is_pool else dsn)
        assert [e["id"] for e in poll(application, limit=3)[0]] == logged(shop, "1")


def _write(db: Database, number: int, events: int) -> None:
    chance = random.Random(number)
    with psycopg.connect(db.conninfo("app")) as conn:
        for _ in range(events):
            conn.execute("select audit.record_event('auth.login', '1')")
            if chance.random() < 0.5:
                conn.execute("select pg_sleep(0.05)")
            conn.rollback() if chance.random() < 0.1 else conn.commit()


def test_under_writers_each_event_comes_once_and_by_id_some_are_lost(
    site: Make, shop: Database
) -> None:
    threads = [threading.Thread(target=_write, args=(shop, n, 60)) for n in range(5)]
    for thread in threads:
        thread.start()
    application, naive, last = site(), [], 0

    async def work() -> list[str]:
        nonlocal last
        transport = httpx.ASGITransport(app=application)
        ids: list[str] = []
        cursor, after_end = None, 0
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
            while after_end < 2:
                is_over = not any(thread.is_alive() for thread in threads)
                if is_over:
                    # Old enough that the next poll makes another.
                    age(shop)
                given = {"limit": "40"} | ({"cursor": cursor} if cursor else {})
                found = (await client.get(PATH, params=given)).json()
                ids += [event["id"] for event in found["events"]]
                cursor = found["cursor"]
                with psycopg.connect(shop.dsn) as conn:
                    query = "select id from audit.event where organization_id = '1' and id > %s"
                    new = [row[0] for row in conn.execute(query + " order by id", [last])]
                naive.extend(new)
                last = max([last, *new])
                after_end += is_over and not found["is_more"]
        return ids

    ids = asyncio.run(work())
    assert Counter(ids) == Counter(logged(shop, "1"))
    assert len(naive) < len(ids), "nothing committed out of order: nothing was tested"
