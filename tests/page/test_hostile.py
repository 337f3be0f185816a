"""What somebody hostile, or nobody at all, may name and store: the page shows and stays up."""

from __future__ import annotations

import asyncio
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import httpx
import psycopg_pool
import pytest

from auditdb import InvalidInput
from auditdb.web import Access, queries
from tests.conftest import Database
from tests.page.conftest import OWNER, fetch, texts

Make = Callable[..., Any]


@pytest.mark.parametrize("organizations", [[None], [""], {None: "Acme"}, {"": "Acme"}, [1, None]])
def test_who_has_no_organization_is_not_one_who_reads_all(organizations: Any) -> None:
    with pytest.raises(InvalidInput, match="organization"):
        Access(viewer_id=OWNER, organizations=organizations, is_staff=True)


def test_what_a_reader_says_of_an_export_is_shown_by_its_codes(site: Make, db: Database) -> None:
    from tests.test_readings import record
    from tests.viewer import sign

    record(db.connect("app_reader"), sign(db.key, OWNER, "1"), "exported",
           '{"events": "7\u202e<b>"}')  # fmt: skip
    (page,) = fetch(site(), "/")
    assert "\u202e" not in page.text and "7\\u202e&lt;b&gt;" in page.text


def test_a_part_of_the_address_that_is_too_long_is_refused(site: Make, db: Database) -> None:
    long = "x" * 50_000
    for path in ("/", "/api/events", "/events.csv"):
        for name in ("text", "action", "zone", "after", "ip", "organization", "within"):
            (answer,) = fetch(site(), f"{path}?{name}={long}")
            assert answer.status_code == 400, name
            assert len(answer.content) < 5_000
    assert not db.connect().execute(
        "select from audit.event where action like 'audit.export%'"
    ).fetchall()  # fmt: skip


NESTED = "(repeat('[', {0}) || repeat(']', {0}))::jsonb"


@pytest.mark.parametrize("depth", [90, 200, 330, 480, 700, 900, 960, 3000])
def test_a_value_that_is_nested_deeply_does_not_keep_the_page_from_being_read(
    site: Make, db: Database, depth: int
) -> None:
    nested = NESTED.format(depth)
    app_conn = db.connect("app")
    app_conn.execute(
        "insert into workflow (organization_id, name, config)"
        f" values (1, 'deep', {nested})".encode()
    )
    app_conn.execute(
        "select audit.record_event('report.exported', '1', details =>"
        f" jsonb_build_object('new_role', {nested}, 'ip', {nested}, 'reason', {nested}))".encode()
    )
    application = site()
    page, api = fetch(application, "/", "/api/events")
    assert (page.status_code, api.status_code) == (200, 200)
    assert len(texts(page.text)) == 10
    for event in api.json()["events"][:2]:
        one, same = fetch(application, f"/event/{event['place']}", f"/api/events/{event['place']}")
        assert (one.status_code, same.status_code) == (200, 200)


def test_what_the_database_keeps_small_does_not_become_large(site: Make, db: Database) -> None:
    # Compressed, each of these is a hundredth of it.
    db.connect("app").execute(
        "insert into workflow (organization_id, name, config) select 1, 'big' || i,"
        " jsonb_build_object('x', repeat('x', 250000)) from generate_series(1, 49) as i"
    )
    db.connect("app").execute(
        "insert into workflow (organization_id, name, config)"
        " values (1, 'huge', jsonb_build_object('x', repeat('x', 50000000)))"
    )
    application = site()
    page, api = fetch(application, "/", "/api/events")
    assert len(page.content) < 200_000 and len(api.content) < 200_000
    (one,) = fetch(application, f"/api/events/{api.json()['events'][0]['place']}")
    assert len(one.content) < 1_500_000


def test_a_value_that_is_left_out_beside_one_that_is_shown_is_told(
    site: Make, db: Database
) -> None:
    db.connect("app").execute(
        "select audit.record_event('report.exported', '1', new_values => '{\"a\": \"shown\"}',"
        f" details => jsonb_build_object('x', {NESTED.format(3000)}))".encode()
    )
    (api,) = fetch(site(), "/api/events")
    (one,) = fetch(site(), f"/event/{api.json()['events'][0]['place']}")
    assert "shown" in one.text and "6007 bytes, too long to be shown" in one.text


def test_ten_thousand_names_of_values_are_not_all_shown(site: Make, db: Database) -> None:
    db.connect("app").execute(
        "select audit.record_event('report.exported', '1', new_values => v, details => v) from"
        " (select jsonb_object_agg('key' || i, i) from generate_series(1, 40000) as i) as x (v)"
    )
    application = site()
    (api,) = fetch(application, "/api/events")
    (one,) = fetch(application, f"/event/{api.json()['events'][0]['place']}")
    assert one.status_code == 200 and len(one.content) < 1_000_000
    assert "more values: 79000" in one.text


def test_what_stands_beside_the_list_does_not_keep_it_from_being_shown(
    site: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As of a flood of failed sign-ins, which anybody can make.
    slow: Any = ("select 'login_burst' as name, 1 as count from pg_catalog.pg_sleep(30)", {})
    monkeypatch.setattr(queries, "signals_query", lambda organization_id: slow)
    (page,) = fetch(site(seconds=1), "/")
    assert page.status_code == 200 and len(texts(page.text)) == 8
    assert "the query took too long" in page.text and "<svg" in page.text


def test_a_page_of_many_organizations_takes_no_longer_than_some_queries(
    site: Make, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = db.connect("app")
    own.execute(
        "insert into organization (id, name) select i, 'O' from generate_series(20, 38) as i"
    )
    own.execute("insert into membership select i, 1, 'OWNER' from generate_series(20, 38) as i")
    slow: Any = ("select null as problem from pg_catalog.pg_sleep(0.8)", [])
    monkeypatch.setattr(queries, "PROBLEM", slow)
    started = time.monotonic()
    (page,) = fetch(site(OWNER, [1, *range(20, 39)], seconds=1), "/?text=nothing+like+it")
    assert page.status_code == 503 and "took too long" in page.text
    assert time.monotonic() - started < 8


def test_one_log_names_nothing_in_another(site: Make, db: Database) -> None:
    own = db.connect("app")
    own.execute("insert into membership values (2, 1, 'OWNER', now())")
    for organization, name in (("1", "Ours"), ("2", "Theirs")):
        for action, values in (("created", f'{{"name": "{name}"}}'), ("deleted", None)):
            own.execute(
                "select audit.record_event(%s, %s, 'workflow', 'w9', new_values => %s)",
                [f"workflow.{action}", organization, values],
            )
    page, api = fetch(site(OWNER, [1, 2]), "/?target_id=w9", "/api/events?target_id=w9")
    assert [("Theirs" in row, "Ours" in row) for row in texts(page.text)] == [
        (True, False), (True, False), (False, True), (False, True),
    ]  # fmt: skip
    names = [next(iter(event["names"].values())) for event in api.json()["events"]]
    assert names == ["Theirs", "Theirs", "Ours", "Ours"]


# Times that Python holds, and that are none of UTC, or of no zone that PostgreSQL knows.
BEYOND = ["0001-01-01T00:00+14:00", "9999-12-31T23:59:59-14:00"]
ODD = "2026-01-01T00:00:00+23:59:59.999999"


@pytest.mark.parametrize("organizations", [[1], [1, 2]])
@pytest.mark.parametrize("at", [*BEYOND, ODD])
def test_a_time_at_the_edge_of_all_times_is_answered(
    site: Make, db: Database, organizations: list[int], at: str
) -> None:
    db.connect("app").execute("insert into membership values (2, 1, 'OWNER', now())")
    cursor = urlsafe_b64encode(f"{at} 0".encode()).decode().rstrip("=")
    expected = 400 if at in BEYOND else 200
    for name, value in (("from", at), ("to", at), ("after", cursor), ("before", cursor)):
        for path in ("/", "/api/events", "/events.csv"):
            if path == "/events.csv" and value is cursor:
                continue
            query = urlencode({name: value, "zone": "Asia/Tokyo"})
            (answer,) = fetch(site(OWNER, organizations), f"{path}?{query}")
            assert answer.status_code == expected, (name, path)


def test_the_host_finds_names_with_the_connection_that_the_page_has(
    site: Make, shop: Database
) -> None:
    async def ask() -> list[tuple[int, bool]]:
        async with psycopg_pool.AsyncConnectionPool(
            shop.conninfo("app_reader"), min_size=1, max_size=1, timeout=2
        ) as pool:

            async def names(kind: str, ids: Any) -> dict[str, str]:
                async with pool.connection():
                    return {found: f"Called {found}" for found in ids if kind == "user"}

            async def search(text: str) -> list[str]:
                async with pool.connection():
                    return ["2"]

            application = site(connect=pool.connection, names=names, search=search)
            transport = httpx.ASGITransport(app=application)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                found = await client.get("/api/events?text=zzz&action=membership")
                place = found.json()["events"][0]["place"]
                paths = ["/", "/?text=zzz", f"/event/{place}", f"/api/events/{place}"]
                answers = await asyncio.gather(*(client.get(path) for path in paths))
                taken = await client.get("/events.csv?text=zzz")
            return [(a.status_code, "Called 2" in a.text) for a in (found, *answers, taken)]

    assert asyncio.run(ask()) == [*[(200, True)] * 5, (200, False)]


@pytest.mark.parametrize("hangs", [True, False])
def test_a_host_that_never_answers_keeps_nobody_waiting(site: Make, hangs: bool) -> None:
    async def names(kind: str, ids: Any) -> Any:
        if hangs:
            await asyncio.sleep(10)
        return {1: object(), "2": Unspeakable()}

    async def search(text: str) -> Any:
        await asyncio.sleep(10)

    started = time.monotonic()
    (page,) = fetch(site(names=names, seconds=1), "/")
    assert page.status_code == 200 and len(texts(page.text)) == 8
    with pytest.raises(TimeoutError):
        fetch(site(search=search, seconds=1), "/?text=ann")
    assert time.monotonic() - started < 20


class Unspeakable:
    def __str__(self) -> str:
        raise ValueError("no name")


@pytest.mark.parametrize(
    ("found", "status"),
    [(["1", "\0", "\ud800", 2], 200), ((str(n) for n in range(20_000)), 400), (iter([]), 200)],
)
def test_ids_that_the_host_finds_are_bounded_and_of_events(
    site: Make, found: Any, status: int
) -> None:
    (page,) = fetch(site(search=lambda text: found), "/events.csv?text=ann")
    assert page.status_code == status
    assert ("give a longer part of the name" in page.text) == (status == 400)


@pytest.mark.parametrize("found", [None, "12", b"12", 7])
def test_what_the_host_finds_is_a_list(site: Make, found: Any) -> None:
    with pytest.raises(TypeError):
        fetch(site(search=lambda text: found), "/?text=ann")
