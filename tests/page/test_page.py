"""The page: finding events, understanding them, and who sees what."""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import auditdb
from auditdb import auth, context, record
from auditdb.operator import limit_visibility
from auditdb.web import Access, app, beside, listing, pages, queries
from auditdb.web.address import Address, event_path, read_event_path
from auditdb.web.site import Site
from auditdb.web.words import languages
from tests.conftest import Database
from tests.page.conftest import MEMBER, OTHER, OWNER, fetch, texts
from tests.pooler import pooler
from tests.server import Server

LANGUAGES = Path(auditdb.__file__).with_name("web") / "languages"

Make = Callable[..., Any]


def test_each_event_is_one_sentence(site: Make) -> None:
    (page,) = fetch(site(), "/")
    assert page.status_code == 200
    assert texts(page.text) == [
        "bob@new.test tried to change their own role Recorded Role changed",
        "support-7 as bob@new.test created API key deploy API key created",
        "1 changed workflow Gentle Workflow changed · name: Reminders → Gentle",
        "1 created workflow Gentle Workflow created",
        "1 changed the e-mail address of bob@new.test E-mail address changed ·"
        " email: bob@acme.test → bob@new.test",
        "1 changed the role of bob@new.test from MEMBER to ADMIN Role changed",
        "bob@new.test failed to sign in Recorded Sign-in · wrong password",
        "1 signed in Recorded Sign-in",
    ]


def test_who_acted_as_another_is_told_once(site: Make, shop: Database) -> None:
    conn = shop.connect("app")
    with context(conn, actor_id=MEMBER, impersonator_id="support-7"):
        record(conn, auth.login(MEMBER, organization_id=1, details={"reason": "ticket 4711"}))
    signed_in, created = texts(fetch(site(), "/?actor_id=support-7")[0].text)
    assert signed_in == "bob@new.test signed in Recorded Sign-in · support-7 as bob@new.test"
    assert created == "support-7 as bob@new.test created API key deploy API key created"


def test_another_language_says_the_same(site: Make) -> None:
    (page,) = fetch(site(), "/?language=de&action=membership.role_changed")
    assert texts(page.text) == [
        "bob@new.test wollte die eigene Rolle ändern Gemeldet Rolle geändert",
        "1 änderte die Rolle von bob@new.test: von MEMBER zu ADMIN Rolle geändert",
    ]
    assert '<html lang="de" dir="ltr">' in page.text


def test_names_of_the_host_stand_in_the_place_of_ids(site: Make) -> None:
    asked: list[tuple[str, list[str]]] = []

    async def names(kind: str, ids: list[str]) -> dict[str, str]:
        asked.append((kind, ids))
        return {"1": "Ann", "2": "Bob <b>", "support-7": "Sam"} if kind == "user" else {}

    (page,) = fetch(site(names=names), "/?action=membership.role_changed&result=success")
    assert texts(page.text) == ["Ann changed the role of Bob <b> from MEMBER to ADMIN Role changed"]
    assert "Bob &lt;b&gt;" in page.text
    assert sorted(asked) == [("membership", ["1,2"]), ("user", ["1", "2"])]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 8),
        ("action=membership", 2),
        ("action=auth.login", 2),
        ("action=auth.login&result=failure", 1),
        ("result=denied", 1),
        ("actor_id=support-7", 1),
        ("actor_type=user", 8),
        ("actor_type=system", 0),
        ("person_id=2", 5),
        ("subject_id=2", 5),
        ("source=api", 1),
        ("ip=203.0.113.9", 5),
        ("ip=203.0.113.8", 0),
        ("text=gentle", 1),
        ("text=WRONG+PASS", 1),
        ("text=nothing+like+it", 0),
        ("target_type=workflow", 2),
        ("last=24h", 8),
        ("to=2001-01-01", 0),
        ("from=2001-01-01", 8),
    ],
)
def test_a_filter_leaves_what_it_says(site: Make, query: str, count: int) -> None:
    page, api = fetch(site(), f"/?{query}", f"/api/events?{query}")
    assert (page.status_code, api.status_code) == (200, 200)
    assert len(texts(page.text)) == len(api.json()["events"]) == count


def test_a_search_finds_by_names_that_the_host_alone_knows(site: Make) -> None:
    def search(text: str) -> list[str]:
        return ["support-7"] if text == "Sam" else []

    page, none = fetch(site(search=search), "/?text=Sam", "/?text=Tom")
    assert len(texts(page.text)) == 1 and texts(none.text) == []


def test_days_are_those_of_the_zone_and_the_last_is_included() -> None:
    address = Address({"from": "2026-03-29", "to": "2026-03-29", "zone": "Europe/Berlin"})
    access = Access(viewer_id=1, organizations=[1])
    filters = address.filters(address.zone(access))
    # The day has 23 hours: clocks go forward.
    assert filters["since"] == datetime(2026, 3, 28, 23, tzinfo=UTC)
    assert filters["until"] == datetime(2026, 3, 29, 22, tzinfo=UTC)


def test_pages_lead_to_each_other_both_ways(site: Make, db: Database) -> None:
    with db.connect("app") as conn:
        conn.execute(
            "select audit.record_event('report.exported', '1', actor_id => i::text)"
            " from generate_series(1, 112) as i"
        )
    application, seen = site(), []
    (page,) = fetch(application, "/")
    while True:
        seen.append(texts(page.text))
        found = re.search(r'rel="next" href="([^"]*)"', page.text)
        if not found:
            break
        (page,) = fetch(application, "/" + found[1].replace("&amp;", "&"))
    assert [len(rows) for rows in seen] == [50, 50, 20]
    back = []
    while True:
        back.append(texts(page.text))
        found = re.search(r'rel="prev" href="([^"]*)"', page.text)
        if not found:
            break
        (page,) = fetch(application, "/" + found[1].replace("&amp;", "&"))
    assert [row for rows in reversed(back) for row in rows] == [r for rows in seen for r in rows]


def test_a_filter_that_nothing_passes_says_how_far_it_looked(
    site: Make, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", 3)
    (page,) = fetch(site(), "/?action=auth.login")
    assert texts(page.text) == [] and "Nothing found. Searched back to" in page.text
    found = re.search(r'rel="next" href="([^"]*)"', page.text)
    assert found and "within=" in found[1]
    (further,) = fetch(site(), "/" + found[1].replace("&amp;", "&"))
    assert len(texts(further.text)) == 2


def test_an_event_shows_what_changed_and_how_it_came_about(site: Make) -> None:
    application = site()
    (api,) = fetch(application, "/api/events?action=auth.email_changed")
    (event,) = api.json()["events"]
    (page,) = fetch(application, f"/event/{event['place']}")
    html = page.text
    assert re.search(
        r'<tr class="changed">\s*<th scope="row"><bdi>email</bdi> <span class="mark">changed</span>'
        r".*?bob@acme\.test.*?bob@new\.test",
        html,
        re.DOTALL,
    )
    for shown in ("203.0.113.9", "Firefox", "r-1", "public.app_user", "UTC"):
        assert shown in html
    assert f"target_id={event['target_id']}" in html and "person_id=2" in html


def test_an_event_shows_the_others_of_its_transaction(site: Make, db: Database) -> None:
    with db.connect("app", autocommit=False) as conn:
        conn.execute("insert into workflow (organization_id, name) values (1, 'one'), (1, 'two')")
        conn.execute("insert into workflow (organization_id, name) values (2, 'of others')")
    application = site()
    (api,) = fetch(application, "/api/events?text=two")
    (page,) = fetch(application, f"/event/{api.json()['events'][0]['place']}")
    same = page.text.split("In the same transaction")[1]
    assert "one" in same and "of others" not in same
    link = re.search(r'href="([^"]*transaction_id=[^"]*)"', same)
    assert link
    (all_,) = fetch(application, link[1].replace("&amp;", "&"))
    assert len(texts(all_.text)) == 2


def test_a_link_to_an_event_of_another_organization_is_not_found(site: Make) -> None:
    (api,) = fetch(site(OTHER, [2]), "/api/events?action=workflow.created")
    (event,) = api.json()["events"]
    assert event["organization_id"] == "2"
    own, stranger, claimed = (
        fetch(site(who, organizations), f"/event/{event['place']}{query}")[0]
        for who, organizations, query in (
            (OTHER, [2], ""),
            (OWNER, [1], ""),
            # The database looks up who is an admin: what the host says is not believed.
            (OWNER, [1, 2], "?organization=2"),
        )
    )
    assert own.status_code == 200 and "Secret plan" in own.text
    assert (stranger.status_code, claimed.status_code) == (404, 404)
    assert "Secret plan" not in stranger.text + claimed.text


def test_one_who_is_no_admin_sees_a_page_that_says_so(site: Make, db: Database) -> None:
    db.connect("app").execute("update membership set role = 'MEMBER' where user_id = 2")
    page, asked, exported = fetch(site(MEMBER), "/", "/?organization=2", "/events.csv")
    assert (page.status_code, asked.status_code) == (403, 404)
    assert "Only admins and owners" in page.text and "Reminders" not in page.text
    assert exported.status_code != 200


def test_nobody_and_a_page_of_the_hosts_own(site: Make) -> None:
    from starlette.responses import RedirectResponse

    (nobody,) = fetch(site(None), "/")
    assert nobody.status_code == 401 and "not signed in" in nobody.text
    (own,) = fetch(site(RedirectResponse("/login")), "/")
    assert (own.status_code, own.headers["location"]) == (307, "/login")


def test_an_admin_of_several_sees_them_together_or_one(site: Make, db: Database) -> None:
    db.connect("app").execute("insert into membership values (2, 1, 'OWNER', now())")
    application = site(OWNER, {1: "Acme", 2: "Globex"})
    both, one, other = fetch(application, "/", "/?organization=1", "/?organization=2")
    assert len(texts(both.text)) == 10
    assert "Globex" in both.text and "Secret plan" in both.text
    assert len(texts(one.text)) == 8 and len(texts(other.text)) == 2
    times = re.findall(r'<time datetime="([^"]*)"', both.text)
    assert times == sorted(times, reverse=True)


def test_what_took_long_is_kept_for_a_minute_and_from_nobody_else(
    shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    accesses = [
        Access(viewer_id=OWNER, organizations=[1]),
        Access(viewer_id=OTHER, organizations=[1, 2]),
        Access(viewer_id=OWNER, organizations=[1]),
        Access(viewer_id=OWNER, organizations=[1]),
    ]
    application = app(
        connect=shop.conninfo("app_reader"), key=shop.key, viewer=lambda request: accesses.pop(0)
    )
    monkeypatch.setattr(beside, "LONG", 0)
    (own,) = fetch(application, "/")
    assert "Denied attempts: <strong>1</strong>" in own.text
    (others,) = fetch(application, "/")
    assert "Denied attempts" not in others.text
    assert re.findall(r'<svg [^>]*aria-label="[^"]* (\d+)"', others.text) == ["1"]
    shop.connect("app").execute(
        "select audit.record_event('membership.role_changed', '1', result => 'denied')"
    )
    (kept,) = fetch(application, "/")
    assert "Denied attempts: <strong>1</strong>" in kept.text
    assert len(texts(kept.text)) == len(texts(own.text)) + 1
    later = time.monotonic() + beside.KEPT
    monkeypatch.setattr(beside, "time", SimpleNamespace(monotonic=lambda: later))
    (now,) = fetch(application, "/")
    assert "Denied attempts: <strong>2</strong>" in now.text


def test_what_took_too_long_is_not_kept(shop: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    access = Access(viewer_id=OWNER, organizations=[1])
    application = app(
        connect=shop.conninfo("app_reader"), key=shop.key, viewer=lambda request: access, seconds=1
    )
    # The first is too slow, and the next is not: as of a page that has no time left.
    conn = shop.connect()
    conn.execute("create table busy as select 5 as seconds")
    conn.execute("grant select on busy to audit_reader")
    query = (
        "select 'new_owner' as name, 1 as count "
        "from pg_catalog.pg_sleep((select coalesce(sum(seconds), 0) from public.busy))"
    )
    monkeypatch.setattr(queries, "signals_query", lambda organization_id: (query, {}))
    monkeypatch.setattr(beside, "LONG", 0)
    (slow,) = fetch(application, "/")
    conn.execute("delete from busy")
    (quick,) = fetch(application, "/")
    assert "took too long" in slow.text and "New owners" not in slow.text
    assert "New owners: <strong>1</strong>" in quick.text and "took too long" not in quick.text


@pytest.mark.parametrize("is_pool", [False, True])
def test_the_page_comes_through_a_pooler(
    site: Make, shop: Database, server: Server, is_pool: bool
) -> None:
    shop.connect("app").execute("insert into membership values (2, 1, 'OWNER', now())")
    with pooler(server, size=2) as port:
        dsn = make_conninfo(shop.conninfo("app_reader"), port=port)

        @asynccontextmanager
        async def connect() -> Any:
            async with await psycopg.AsyncConnection.connect(
                dsn, autocommit=True, prepare_threshold=None
            ) as conn:
                yield conn

        application = site(OWNER, [1, 2], connect=connect if is_pool else dsn)
        pages = [page for _ in range(4) for page in fetch(application, "/", "/?text=Gentle")]
    assert {page.status_code for page in pages} == {200}
    assert {len(texts(page.text)) for page in pages[::2]} == {10}


def test_no_more_answers_are_kept_than_a_bound(
    shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Access(viewer_id=OWNER, organizations=[1])
    application = app(
        connect=shop.conninfo("app_reader"), key=shop.key, viewer=lambda request: access
    )
    made: list[Site] = []
    keep = beside.summary

    async def seen(visited: Any, conn: Any) -> Any:
        made.append(visited.site)
        return await keep(visited, conn)

    monkeypatch.setattr(pages, "summary", seen)
    monkeypatch.setattr(beside, "LONG", 0)
    monkeypatch.setattr(beside, "MOST", 3)
    fetch(application, *(f"/?zone={zone}" for zone in ("UTC", "Asia/Tokyo", "Asia/Kolkata")))
    assert len(made) == 3 and len(made[0].kept) == 3


@pytest.mark.parametrize("looked_at", [7, 20_000])
def test_pages_of_several_organizations_miss_nothing(
    site: Make, db: Database, looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LOOKED_AT", looked_at)
    db.connect("app").execute("insert into membership values (2, 1, 'OWNER', now())")
    with db.connect("app") as conn:
        conn.execute(
            "select audit.record_event('report.exported', (1 + i % 3 / 2)::text,"
            " actor_id => i::text), audit.record_event('report.opened', (1 + i % 2)::text)"
            " from generate_series(1, 160) as i"
        )
    application = site(OWNER, [1, 2])
    events: list[int] = []
    after = ""
    while True:
        (page,) = fetch(application, f"/api/events?action=report.exported{after}")
        events += [event["id"] for event in page.json()["events"]]
        if not page.json()["next"]:
            break
        after = f"&after={page.json()['next']}"
    assert len(events) == len(set(events)) == 160
    assert events == sorted(events, reverse=True)
    back: list[int] = []
    before = page.json()["previous"]
    while before:
        (page,) = fetch(application, f"/api/events?action=report.exported&before={before}")
        back = [event["id"] for event in page.json()["events"]] + back
        before = page.json()["previous"]
    assert back == events[: len(back)] and len(back) >= 140


@pytest.mark.usefixtures("auditors")
def test_staff_of_the_vendor_read_under_a_name_that_the_customer_sees(
    site: Make, db: Database
) -> None:
    application = site("support-7", [2], is_staff=True)
    page, _ = fetch(application, "/", "/")
    assert "Secret plan" in page.text
    seen = db.events("action = 'audit.viewed'") or [
        event for event in _own(db) if event["action"] == "audit.viewed"
    ]
    assert [(e["actor_id"], e["organization_id"]) for e in seen] == [("support-7", "2")]
    (customer,) = fetch(site(OTHER, [2]), "/?action=audit.viewed")
    assert texts(customer.text) == [
        "support-7 of the vendor read this log Recorded Log viewed by the vendor"
    ]


def test_staff_whose_login_is_no_auditor_see_nothing(site: Make) -> None:
    (page,) = fetch(site("support-7", [2], is_staff=True), "/")
    assert page.status_code == 503 and "Secret plan" not in page.text


def _own(db: Database) -> list[dict[str, Any]]:
    conn = db.connect()
    rows = conn.execute("select action, actor_id, organization_id from audit.event").fetchall()
    return [dict(zip(("action", "actor_id", "organization_id"), row, strict=True)) for row in rows]


def test_what_is_logged_is_told_to_admins_also_of_one_of_several(site: Make) -> None:
    paths = ("/logged", "/api/logged")
    member = fetch(site("4"), *paths)
    assert [answer.status_code for answer in member] == [403, 403]
    alone = fetch(site(), *paths)
    several = fetch(site(OWNER, [2, 1, 3]), *paths)
    assert several[1].json() == alone[1].json() and alone[1].json()["logged"]
    assert "No table is attached" not in several[0].text and "Members" in several[0].text


def test_where_the_list_ends_it_says_that_older_events_are_hidden(site: Make, db: Database) -> None:
    (page,) = fetch(site(), "/")
    assert "Older ones are kept" not in page.text
    limit_visibility(db.connect(), 1, keep="30 days")
    (page,) = fetch(site(), "/")
    assert re.search(r"Events from <time[^>]+>[0-9: -]+</time> on are shown. Older ones", page.text)
    several, other = fetch(site(OWNER, [1, 2]), "/")[0], fetch(site(OTHER, [2]), "/")[0]
    assert "Older ones are kept" not in several.text + other.text


@pytest.mark.parametrize("code", languages())
def test_each_action_that_there_is_has_words_in_each_language(shop: Database, code: str) -> None:
    own = tomllib.loads(Path(LANGUAGES, f"{code}.toml").read_text("utf-8"))
    query, values = queries.ACTIONS
    for (action,) in shop.connect().execute(str(query), values).fetchall():
        category, _, verb = action.partition(".")
        assert action in own["action"] or (category in own["noun"] and verb in own["done"]), action


def test_the_form_offers_no_action_of_operators(site: Make) -> None:
    (page,) = fetch(site(), "/")
    assert set(re.findall(r'<option value="(audit[^"]*)"', page.text)) == {
        "audit", "audit.viewed", "audit.export_started", "audit.exported", "audit.verified",
        "audit.bundled", "audit.accessed",
        "audit.subscription_created", "audit.subscription_changed", "audit.subscription_dropped",
    }  # fmt: skip


def test_an_event_names_its_request_in_the_language(site: Make) -> None:
    (found,) = fetch(site(), "/api/events?action=workflow.created")
    place = found.json()["events"][0]["place"]
    (page,) = fetch(site(), f"/event/{place}?language=de")
    assert "<dt>Browser (User-Agent)</dt>" in page.text and "<dt>Anfrage</dt>" in page.text


def test_a_permalink_looks_to_a_colleague_as_they_like_it(site: Make) -> None:
    (found,) = fetch(site(), "/api/events?action=workflow.created")
    path = f"/event/{found.json()['events'][0]['place']}"
    looks = "language=de&scheme=dark&zone=Asia/Tokyo"
    (page,) = fetch(site(OWNER, [1, 2]), f"{path}?organization=1&{looks}", root="/audit")
    (link,) = re.findall(r'<a href="([^"]*)">Dauerhafter Verweis', page.text)
    assert link == f"/audit{path}?organization=1"
    # It is found without, too.
    (again,) = fetch(site(OWNER, [1, 2]), path)
    assert again.status_code == 200


def test_what_a_spreadsheet_would_run_is_told_beside_the_links(site: Make) -> None:
    (page,) = fetch(site(), "/")
    assert "cells that a spreadsheet would run begin with ', unless" in page.text


def test_an_id_stands_beside_a_name_alone(site: Make) -> None:
    objects = []
    for action in ("workflow.created", "membership.role_changed&result=success"):
        (found,) = fetch(site(), f"/api/events?action={action}")
        (page,) = fetch(site(), f"/event/{found.json()['events'][0]['place']}")
        (shown,) = re.findall(r"<dt>Object</dt><dd>(.*?)</dd>", page.text)
        objects.append(re.sub("<[^>]*>", "", shown))
    assert objects == ["workflow Gentle 1", "membership 1,2"]


def test_what_is_logged_comes_from_the_mapping(site: Make, db: Database) -> None:
    (page,) = fetch(site(), "/logged")
    kinds = re.findall(r'<th scope="row">([^<]*)</th>', page.text)
    assert kinds == ["API keys", "Members", "Organisation", "Users", "Workflows"]
    assert "Workflow created" in page.text
    db.connect("app_owner").execute("select audit.detach('api_key')")
    (page,) = fetch(site(), "/logged")
    assert "API keys" not in re.findall(r'<th scope="row">([^<]*)</th>', page.text)


def test_times_are_in_the_zone_that_is_asked_for(site: Make) -> None:
    utc, tokyo, of_viewer = (
        fetch(site(zone=zone), f"/?action=membership.role_changed{query}")[0].text
        for zone, query in ((None, ""), (None, "&zone=Asia/Tokyo"), ("Asia/Tokyo", ""))
    )
    (first, shown) = re.findall(r'<time datetime="([^"]*)">([^<]*)</time>', utc)[0]
    at = datetime.fromisoformat(first)
    assert shown == f"{at:%Y-%m-%d %H:%M:%S}" and "Times in UTC" in utc
    for page in (tokyo, of_viewer):
        shown = re.findall(r'<time datetime="[^"]*">([^<]*)</time>', page)[0]
        assert shown == f"{at + timedelta(hours=9):%Y-%m-%d %H:%M:%S}"
        assert "Times in Asia/Tokyo" in page


def test_it_is_mounted_under_a_path(site: Make) -> None:
    (page,) = fetch(site(), "/", root="/account/audit")
    links = re.findall(r'(?:href|action)="(/[^"]*)"', page.text)
    assert links and all(link.startswith("/account/audit/") for link in links)
    (style,) = fetch(site(), "/style.css", root="/account/audit")
    assert style.headers["content-type"].startswith("text/css")


def test_the_host_gives_its_title_header_footer_and_style(site: Make) -> None:
    application = site(
        title="Acme's log", header=lambda request: f"<nav>{request.url.path}</nav>",
        footer="<p>bye</p>", stylesheets=["/static/brand.css"],
    )  # fmt: skip
    (page,) = fetch(application, "/")
    assert "<h1>Acme&#39;s log</h1>" in page.text
    assert "<nav>/</nav>" in page.text and "<p>bye</p>" in page.text
    assert '<link rel="stylesheet" href="/static/brand.css">' in page.text


def test_a_permalink_reads_back() -> None:
    at = datetime(2026, 1, 31, 12, 30, 15, 42, tzinfo=UTC)
    assert event_path(at, 7) == "20260131T123015.000042Z-7"
    assert read_event_path(event_path(at, 7)) == (at, 7)


def test_names_that_the_host_fails_to_give_are_ids(
    site: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def names(kind: str, ids: list[str]) -> dict[str, str]:
        raise ConnectionError("the host's own database is away")

    (page,) = fetch(site(names=names), "/?action=membership.role_changed&result=success")
    assert texts(page.text) == [
        "1 changed the role of bob@new.test from MEMBER to ADMIN Role changed"
    ]
    assert "of the application failed" in caplog.text


def test_of_many_organizations_one_is_shown(site: Make) -> None:
    many = {1: "Acme", **{number: f"Team {number}" for number in range(100, 150)}}
    page, other = fetch(site(OWNER, many), "/", "/?organization=120")
    assert len(texts(page.text)) == 8 and "All organisations" not in page.text
    assert page.text.count("aria-current") == 1
    assert other.status_code == 403
