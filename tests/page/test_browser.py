"""The page in Chromium: each point of it clicked through, as an admin does."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from PIL import Image
from playwright.sync_api import Browser, Page
from pytest_postgresql.janitor import DatabaseJanitor

from auditdb import auth, record
from auditdb.web import Access, app, words
from tests.conftest import Database, _database, address
from tests.page.browser import MISSING, Open, Seen, Stage, Window, chromium, path_of_chromium
from tests.page.conftest import OTHER, OWNER, day
from tests.page.pictures import FOLDER, SCHEMES, WIDTHS

pytestmark = pytest.mark.skipif(path_of_chromium() is None, reason=MISSING)

# Organisations of the owner of the second: with many events, none, hostile ones, and
# one that is taken along.
MANY, EMPTY, HOSTILE, TAKEN = 3, 4, 5, 6
MARKUP = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
BIDI, ANSI, NUL = "\u202egnp.exe", "\x1b[2J\x1b[31mred", "a\\u0000b"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage().served() as stage:
        yield stage


@pytest.fixture(scope="module")
def played(attached_template: Any) -> Iterator[Database]:
    """The log of tests/page/conftest.py, and beside it what is many, nothing and hostile."""
    name = "auditdb_page"
    janitor = DatabaseJanitor(
        user=address["user"], host=address["host"], port=address["port"], dbname=name,
        template_dbname=attached_template.template_dbname, password=address["password"],
    )  # fmt: skip
    janitor.drop()
    with janitor:
        opened = psycopg.connect(
            dbname=name, **{k: address[k] for k in ("host", "port", "user", "password")}
        )
        for db in _database(opened):
            day(db)
            aside(db)
            yield db


def aside(db: Database) -> None:
    """Play what has organisations of its own."""
    conn = db.connect()
    conn.execute("insert into organization (id, name) values (3, 'Many'), (5, 'Hostile'), (6, 'T')")
    conn.execute("insert into membership values (3, 3, 'OWNER'), (5, 3, 'OWNER'), (6, 3, 'OWNER')")
    # Nobody saw how this one came to have an owner.
    conn.execute("alter table membership disable trigger all")
    conn.execute("insert into membership values (4, 3, 'OWNER')")
    app_conn = db.connect("app")
    app_conn.execute(
        # With the two that made the organisation and its owner.
        "select audit.record_event('report.exported', '3', actor_id => i::text)"
        " from generate_series(1, 112) as i"
    )
    record(app_conn, auth.login(OTHER, organization_id=TAKEN, source="web", result="failure"))
    bad = [MARKUP, BIDI, ANSI, NUL, "w" * 4000, "مرحبا"]
    for text in bad:
        app_conn.execute(
            "select audit.record_event('workflow.modified', '5', 'workflow', %s, %s,"
            " actor_id => %s, source => %s, old_values => %s, new_values => %s, details => %s)",
            [
                text[:200], text[:200], text[:200], text[:60],
                *(json.dumps(values) for values in (
                    {"name": "before", text[:200]: 1}, {"name": text, text[:200]: 2},
                    {"ip": text, "user_agent": text, "request_id": text, text[:200]: [text]})),
            ],
        )  # fmt: skip
    app_conn.execute(
        "select audit.record_event('workflow.created', '5', 'workflow', 'wide', new_values =>"
        " (select jsonb_object_agg('column_' || i, i) from generate_series(1, 3000) as i))"
    )
    app_conn.execute(
        "select audit.record_event('workflow.created', '5', 'workflow', 'long', new_values =>"
        " jsonb_build_object('name', 'long', 'text', repeat(md5(random()::text), 330000)))"
    )


@pytest.fixture
def watched(stage: Stage) -> Iterator[Seen]:
    """What the test's pages do: they ask nobody else, get what they ask for, and are content."""
    seen = Seen()
    yield seen
    assert seen.hosts == {stage.origin.removeprefix("http://")}
    assert seen.failed == []
    assert seen.said == []


@pytest.fixture
def window(browser: Browser, played: Database, stage: Stage, watched: Seen) -> Iterator[Open]:
    """Open the application for one who looks at it, in a window of a size."""
    contexts = []

    def make(
        viewer: str | None = OWNER,
        organizations: Any = (1,),
        *,
        size: tuple[int, int] = (1280, 900),
        site: dict[str, Any] | None = None,
        **given: Any,
    ) -> Window:
        access = viewer and Access(viewer_id=viewer, organizations=organizations)
        settings: dict[str, Any] = {"connect": played.conninfo("app_reader"), "key": played.key}
        stage.application = app(viewer=lambda request: access or None, **settings | (site or {}))
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, accept_downloads=True, **given
        )
        context.set_default_timeout(15_000)
        contexts.append(context)
        watched.watch(context)
        return Window(context.new_page(), stage, watched)

    yield make
    for context in contexts:
        context.close()


def query(page: Page) -> str:
    return page.url.partition("?")[2]


def choose(page: Page, name: str, value: str) -> None:
    """Choose a value of the form of filters."""
    page.locator(f"form.filters [name={name}]").select_option(value)


@pytest.mark.parametrize("script", [True, False], ids=["script", "without script"])
def test_filters_are_chosen_in_the_form_saved_as_a_link_and_cleared(
    window: Open, script: bool
) -> None:
    shown = window(java_script_enabled=script)
    page = shown.go()
    assert len(shown.sentences) == 8
    choose(page, "action", "membership")
    choose(page, "result", "denied")
    choose(page, "last", "7d")
    shown.click(page.get_by_role("button", name="Show").first)
    assert shown.sentences == ["bob@new.test tried to change their own role Recorded"]
    assert query(page) == "action=membership&result=denied&last=7d"
    saved = page.url
    assert page.locator("form.filters [name=result]").input_value() == "denied"
    chosen = page.locator("ul.chosen")
    assert chosen.locator("li").all_inner_texts() == [
        "Action: Members ×", "Result: Denied ×", "Period: Last 7 days ×", "Clear filters",
    ]  # fmt: skip
    shown.click(page.get_by_label("Remove the filter Result"))
    assert len(shown.sentences) == 2
    shown.click(page.get_by_text("Clear filters"))
    assert (query(page), len(shown.sentences)) == ("", 8)
    page.goto(saved)
    assert shown.sentences == ["bob@new.test tried to change their own role Recorded"]
    assert (shown.seen.failed, shown.seen.said) == ([], [])


def test_the_rarer_filters_are_behind_more_which_stays_open(window: Open) -> None:
    shown = window()
    page = shown.go()
    more = page.locator("form.filters details")
    assert not page.get_by_label("IP address", exact=True).is_visible()
    more.locator("summary").click()
    page.get_by_label("IP address", exact=True).fill("198.51.100.7")
    page.get_by_label("From (day)", exact=True).fill("2020-01-01")
    shown.click(page.get_by_role("button", name="Show").first)
    assert shown.sentences == ["bob@new.test failed to sign in Recorded"]
    assert page.get_by_label("IP address", exact=True).input_value() == "198.51.100.7"
    assert page.get_by_label("From (day)", exact=True).input_value() == "2020-01-01"
    page.get_by_label("Name, id or value").fill("nothing like it")
    shown.press("Enter")
    assert page.get_by_text("No event matches these filters.").is_visible()


def test_pages_are_turned_both_ways(window: Open) -> None:
    shown = window(OTHER, [MANY])
    page = shown.go()
    seen = [shown.sentences]
    assert page.locator("figure.days svg").is_visible()
    while page.get_by_text("Older events").count():
        shown.click(page.get_by_text("Older events"))
        seen.append(shown.sentences)
    assert [len(rows) for rows in seen] == [50, 50, 14]
    shown.click(page.get_by_text("Newer events"))
    assert shown.sentences == seen[1]
    shown.click(page.get_by_text("Newer events"))
    assert shown.sentences == seen[0]
    shown.click(page.get_by_text("Older events"))
    shown.click(page.get_by_text("Newest events"))
    assert (shown.sentences, query(page)) == (seen[0], "")


def test_an_event_opens_and_leads_on(window: Open) -> None:
    shown = window(site={"names": names})
    page = shown.go("/?action=auth.email_changed&zone=Asia/Tokyo")
    shown.click(page.locator("td.time a"))
    assert page.locator("h1").inner_text() == "Ann changed the e-mail address of Bob"
    changed = page.locator("table.values tr.changed")
    assert "bob@acme.test" in changed.inner_text() and "bob@new.test" in changed.inner_text()
    assert "changed" in changed.locator(".mark").inner_text()
    context = page.locator("dl.context").inner_text()
    for text in ("203.0.113.9", "Firefox", "r-1", "public.app_user"):
        assert text in context
    opened = page.url
    shown.click(page.get_by_text("Permalink"))
    assert page.url == opened.partition("?")[0]
    page.go_back()
    shown.click(page.get_by_text("History of this object"))
    assert "target_id=2" in query(page) and "zone=Asia%2FTokyo" in query(page)
    assert shown.sentences[0] == "Ann changed the e-mail address of Bob"
    page.go_back()
    shown.click(page.get_by_text("Everything of Bob"))
    assert len(shown.sentences) == 5
    page.go_back()
    shown.click(page.locator("dl.context a[href*=transaction_id]"))
    assert "transaction_id=" in query(page) and len(shown.sentences) == 4
    page.go_back()
    shown.click(page.get_by_text("Back to the log"))
    assert query(page) == "zone=Asia%2FTokyo"
    shown.click(page.locator("td.what a", has_text="Sam").first)
    assert shown.sentences == ["Sam as Bob created API key deploy"]


def names(kind: str, ids: list[str]) -> dict[str, str]:
    return {"1": "Ann", "2": "Bob", "support-7": "Sam"} if kind == "user" else {}


def test_an_admin_of_several_switches_organizations(window: Open) -> None:
    shown = window(OTHER, {2: "Globex", MANY: "Many", EMPTY: "Empty"})
    page = shown.go()
    current = page.locator("nav [aria-current=page]")
    assert current.inner_text() == "All organisations"
    assert page.get_by_role("columnheader", name="Organisation").is_visible()
    shown.click(page.get_by_role("link", name="Globex"))
    assert (current.inner_text(), len(shown.sentences)) == ("Globex", 1)
    choose(page, "action", "workflow")
    shown.click(page.get_by_role("button", name="Show").first)
    assert "organization=2" in query(page) and current.inner_text() == "Globex"
    shown.click(page.get_by_role("link", name="Many"))
    assert page.get_by_text("No event matches these filters.").is_visible()
    shown.click(page.get_by_text("Clear filters"))
    assert ("organization=3", 50) == (query(page), len(shown.sentences))


def test_language_zone_and_scheme_are_chosen_and_kept(window: Open) -> None:
    shown = window(color_scheme="light")
    page = shown.go("/?result=failure")
    page.locator("footer.looks summary").click()
    page.get_by_label("Time zone").fill("Asia/Tokyo")
    page.get_by_label("Language").select_option("de")
    page.get_by_label("Colours").select_option("dark")
    shown.click(page.locator("footer.looks button"))
    for part in ("result=failure", "zone=Asia%2FTokyo", "language=de", "scheme=dark"):
        assert part in query(page)
    for _ in range(2):
        assert page.locator("html").get_attribute("lang") == "de"
        assert "Asia/Tokyo" in page.locator("caption, main > p").first.inner_text()
        assert background(page) == DARK
        if page.locator("td.time a").count():
            shown.click(page.locator("td.time a"))
    shown.click(page.locator("header.top a"))
    assert "language=de" in query(page) and "result" not in query(page)


LIGHT, DARK = "rgb(255, 255, 255)", "rgb(20, 23, 27)"


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_the_scheme_is_the_systems_unless_the_address_says_another(window: Open) -> None:
    page = window(color_scheme="dark").go()
    assert background(page) == DARK
    page.emulate_media(color_scheme="light")
    assert background(page) == LIGHT
    for system in ("dark", "light"):
        page.emulate_media(color_scheme=system)
        for scheme, color in (("light", LIGHT), ("dark", DARK)):
            page.goto(f"{page.url.partition('?')[0]}?scheme={scheme}")
            assert background(page) == color


def test_what_was_found_is_taken_along(window: Open, tmp_path: Path) -> None:
    page = window(OTHER, [TAKEN]).go("/?result=failure")
    for link, ending in (("CSV", "csv"), ("CSV, formulas kept", "csv"), ("JSON lines", "jsonl")):
        with page.expect_download() as download:
            page.get_by_role("link", name=link, exact=True).click()
        name = download.value.suggested_filename
        assert re.fullmatch(rf"audit-log-\d{{8}}T\d{{6}}Z\.{ending}", name)
        download.value.save_as(tmp_path / name)
        text = (tmp_path / name).read_text()
        rows = (
            list(csv.DictReader(text.splitlines()))
            if ending == "csv"
            else [json.loads(line) for line in text.splitlines()]
        )
        assert [(row["action"], row["result"]) for row in rows] == [("auth.login", "failure")]
    page.reload()
    page.goto(f"{page.url.partition('?')[0]}?action=audit.exported")
    assert page.locator("td.what").count() == 3


def test_what_is_worth_a_look_leads_to_its_events(window: Open) -> None:
    shown = window()
    page = shown.go("/?zone=Asia/Tokyo")
    worth = page.locator("ul.signals")
    assert "Failed sign-ins: 1" in worth.inner_text() and "Denied attempts: 1" in worth.inner_text()
    shown.click(worth.get_by_role("link", name="Denied attempts"))
    assert shown.sentences == ["bob@new.test tried to change their own role Recorded"]
    assert "signal=denied_attempt" in query(page) and "zone=Asia%2FTokyo" in query(page)
    shown.click(page.get_by_text("Clear filters"))
    assert len(shown.sentences) == 8


def test_what_is_logged_is_a_page(window: Open) -> None:
    shown = window()
    page = shown.go("/?language=de")
    shown.click(page.get_by_text("Was hier protokolliert wird"))
    assert page.locator("tbody tr").count() == 5 and "language=de" in query(page)
    shown.click(page.locator("header.top a"))
    assert page.locator("td.what").count() > 0


@pytest.mark.parametrize(
    ("path", "status", "given"),
    [
        ("/event/20260131T123015.000042Z-7", 404, {}),
        ("/nowhere", 404, {}),
        ("/?last=13h", 400, {}),
        (f"/?zone={'A' * 60}", 400, {}),
        ("/?organization=99", 404, {}),
        ("/", 401, {"viewer": None}),
        ("/", 403, {"organizations": [2]}),
        ("/", 503, {"site": {"connect": "host=127.0.0.1 port=1 connect_timeout=2"}}),
    ],
)
def test_an_error_is_a_page_that_says_what_to_do(
    window: Open, path: str, status: int, given: dict[str, Any]
) -> None:
    shown = window(size=(360, 640), **given)
    page = shown.go(path)
    assert shown.seen.statuses[page.url] == status
    # The browser itself says so of every such page.
    shown.seen.said = [text for text in shown.seen.said if f"a status of {status}" not in text]
    assert page.locator("h1").inner_text() and len(page.locator("main > p").first.inner_text()) > 10
    assert shown.overflow() == [] and violations(page) == []
    back = page.get_by_text("Back to the log")
    if status in (400, 404) and path != "/nowhere":
        shown.click(back)
        assert page.locator("td.what").count() > 0


FOCUS = """() => {
  const e = document.activeElement, b = e.getBoundingClientRect(), s = getComputedStyle(e);
  return {tag: e.tagName, name: (e.name || e.innerText || '').trim(),
          top: b.top + scrollY, left: b.left,
          is_shown: b.width > 0 && b.right > 0 && b.left < innerWidth,
          is_marked: parseFloat(s.outlineWidth) >= 2 && s.outlineStyle !== 'none'};
}"""


def test_the_keyboard_alone_does_it(window: Open) -> None:
    shown = window()
    page = shown.go()
    page.keyboard.press("Tab")
    skip = page.evaluate(FOCUS)
    assert skip["name"] == "Skip to the events" and skip["is_shown"] and skip["is_marked"]
    reached = []
    for _ in range(100):
        page.keyboard.press("Tab")
        at = page.evaluate(FOCUS)
        if at["tag"] == "BODY":
            break
        assert at["is_shown"] and at["is_marked"], at
        reached.append(at)
    order = [at["name"] for at in reached]
    start = order.index("text")
    assert order[start : start + 6] == ["text", "action", "result", "last", "Show", "More"]
    assert order[-5:-1] == ["CSV", "CSV, formulas kept", "JSON lines", "What is logged here"]
    # Downwards, and within a line from the left.
    places = [(at["top"], at["left"]) for at in reached if at["tag"] == "A"]
    assert all(b > a or abs(b[0] - a[0]) < 12 for a, b in pairwise(places))
    # A whole trip: skip, search, choose, open an event, go back.
    shown.go()
    for key in ("Tab", "Enter", "Tab"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.closest('main') !== null")
    page.locator("form.filters [name=text]").focus()
    page.keyboard.type("gentle")
    for key in ("Tab", "Tab", "Tab", "Tab"):
        page.keyboard.press(key)
    shown.press("Space")
    assert len(shown.sentences) == 1
    page.locator("td.time a").focus()
    shown.press("Enter")
    for key in ("Tab", "Tab"):
        page.keyboard.press(key)
    shown.press("Enter")
    assert len(shown.sentences) == 8


def event_of(page: Page, which: str) -> str:
    """Return the path of the first event that a query finds."""
    base = page.url.partition("?")[0]
    (found, *_) = page.request.get(f"{base}api/events?{which}").json()["events"]
    return f"/event/{found['place']}"


SIZES = [(360, 740), (640, 450), (800, 900), (1280, 900)]


@pytest.mark.parametrize("direction", ["ltr", "rtl"])
def test_nothing_stands_out_or_lies_on_something_else(
    window: Open, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    english = words.words("en")
    monkeypatch.setattr(english, "direction", direction)
    shown = window(
        OTHER, {2: "Globex", MANY: "An organisation with a rather long name", HOSTILE: "H" * 60}
    )
    page = shown.go()
    paths = [
        "/", "/?organization=5", "/?action=workflow&result=success&text=e&last=90d&ip=1.1.1.1",
        "/?action=workflow&last=90d&source=web", "/logged",
        event_of(page, "action=workflow.created&organization=2"),
        event_of(page, "action=workflow.modified&organization=5"),
        event_of(page, f"target_id={'w' * 200}&organization=5"),
    ]  # fmt: skip
    found = {}
    for path in paths:
        shown.go(path)
        assert page.locator("html").get_attribute("dir") == direction
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            if out := shown.overflow():
                found[path, width] = out
    assert found == {}


def test_words_of_headings_and_times_stay_whole(
    window: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = window(OTHER, {2: "Globex", HOSTILE: "H" * 60}, size=(800, 900))
    for path in ("/", "/logged"):
        page = shown.go(path)
        assert page.evaluate(LINES, "thead th, tbody th") <= 1
        assert page.evaluate(LINES, "time") == 1
    # Day before time, which a text from right to left would turn round.
    monkeypatch.setattr(words.words("en"), "direction", "rtl")
    page = shown.go()
    first, last = page.evaluate("""() => {
      const text = document.querySelector('td.time time').firstChild, range = new Range();
      return [0, text.length - 1].map(i => {
        range.setStart(text, i); range.setEnd(text, i + 1);
        return range.getBoundingClientRect().left;
      });
    }""")
    assert first < last


# The most lines that a word of these elements goes over.
LINES = """selector => Math.max(...[...document.querySelectorAll(selector)].flatMap(e =>
  [...e.childNodes].filter(n => n.nodeType === 3 && n.data.trim()).flatMap(n =>
    [...n.data.matchAll(/\\S+/g)].map(word => {
      const range = new Range();
      range.setStart(n, word.index); range.setEnd(n, word.index + word[0].length);
      return new Set([...range.getClientRects()].map(b => Math.round(b.top))).size;
    }))))"""


def violations(page: Page) -> list[str]:
    """Return what axe-core finds, and where."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    options = {"resultTypes": ["violations"], "preload": False}
    answer = page.evaluate("options => axe.run(options)", options)
    return [f"{v['id']}: {n['target']} {n['failureSummary']}" for v in answer["violations"]
            for n in v["nodes"]]  # fmt: skip


PAGES = {
    "several": "/",
    "hostile": "/?organization=5",
    "filtered": "/?organization=2&action=workflow&from=2020-01-01",
    "no match": "/?organization=2&text=nothing+like+it",
    "no events": "/?organization=4",
    "logged": "/logged",
    "changed": "action=workflow.modified&organization=5",
    "created": "action=workflow.created&organization=2",
}


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(window: Open, name: str) -> None:
    organizations = {2: "Globex", EMPTY: "Empty", HOSTILE: "Hostile"}
    shown = window(OTHER, organizations, color_scheme="light")
    path, page = PAGES[name], shown.page
    if not path.startswith("/"):
        path = event_of(shown.go(), path)
    shown.go(path)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    found = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for width in (360, 800, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            if out := violations(page):
                found[scheme, width] = out
    assert found == {}


def test_results_show_by_a_shape_and_not_by_colour_alone(window: Open) -> None:
    page = window().go()
    shapes = {}
    for result in ("success", "failure", "denied"):
        shapes[result] = page.evaluate(
            "result => getComputedStyle(document.querySelector(`.result.${result}`), '::before')"
            ".content[1]",
            result,
        )
    assert len(set(shapes.values())) == 3


def test_hostile_names_and_values_show_harmless(window: Open) -> None:
    shown = window(OTHER, {2: "Globex", HOSTILE: MARKUP + BIDI})
    page = shown.go("/?organization=5")
    title = page.title()
    places = [link.get_attribute("href") for link in page.locator("td.time a").all()]
    assert len(places) == 10
    harmless(page, title)
    text = page.locator("table.events").inner_text()
    for shows in ("<script>", "\\u202egnp.exe", "\\x1b[2J", "a\\u0000b", "مرحبا"):
        assert shows in text
    for place in places:
        page.goto(f"{shown.stage.origin}{place}")
        harmless(page, page.title())
        assert len(page.content()) < 3_000_000
    shown.go("/?organization=5&text=" + "%3Cscript%3Ealert(1)%3C/script%3E%E2%80%AEx")
    harmless(page, title)


def harmless(page: Page, title: str) -> None:
    """Nothing of the values became markup, ran, or hides what it says."""
    assert page.title() == title
    assert page.locator("img, script, iframe").count() == 0
    text = page.evaluate("document.documentElement.textContent + document.title")
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_print_shows_the_log_alone(window: Open) -> None:
    shown = window(OTHER, {2: "Globex", MANY: "Many"}, color_scheme="dark")
    page = shown.go("/?organization=2&last=90d&scheme=dark")
    page.emulate_media(media="print")
    for hidden in ("form.filters", "nav.pages", "section.take", "footer.looks", ".chosen .plain"):
        assert page.locator(hidden).count() and not page.locator(hidden).is_visible(), hidden
    assert page.locator("ul.tabs").inner_text() == "Globex"
    assert page.locator("ul.chosen").inner_text().startswith("Period: Last 90 days")
    assert page.locator("table.events").is_visible()
    assert page.locator("h2").count() and not page.locator("h2").first.is_visible()
    # On paper, which is white.
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(26, 29, 33)"
    shown.go(event_of(page, "action=workflow.created&organization=2"))
    assert page.locator("table.values").is_visible()
    for hidden in ("header.top a", "#further", "ul.links"):
        assert not page.locator(hidden).is_visible(), hidden


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["list", "event"])
def test_the_pictures_of_the_documentation_are_there_and_small(
    name: str, scheme: str, width: int
) -> None:
    taken = FOLDER / f"{name}-{scheme}-{width}.png"
    with Image.open(taken) as image:
        assert image.size == (width, WIDTHS[width])
    assert taken.stat().st_size < 150_000


MASTER = {"stream_secret": "0123456789abcdef0123456789abcdef"}


def refused_once(shown: Window) -> None:
    """The browser tells of the form that was refused, and of nothing else."""
    (said,) = shown.seen.said
    assert "400" in said
    shown.seen.said.clear()


def test_streams_are_made_and_dropped_by_keyboard_and_without_script(window: Open) -> None:
    shown = window(OWNER, site=MASTER, java_script_enabled=False)
    page = shown.go()
    shown.click(page.get_by_role("link", name="Streams"))
    page.get_by_label("Address").fill("https://127.0.0.1/hook")
    shown.click(page.get_by_role("button", name="Make it"))
    assert page.get_by_role("alert").inner_text().startswith("This is no address of a stream")
    field = page.get_by_label("Address")
    assert field.input_value() == "https://127.0.0.1/hook"
    assert field.get_attribute("aria-invalid") == "true"
    field.fill("https://hooks.acme.test/audit")
    field.focus()
    shown.press("Enter")
    assert page.get_by_role("heading", name="https://hooks.acme.test/audit").count() == 1
    page.get_by_text("Signing secret").click()
    assert page.locator("code").inner_text().startswith("whsec_")
    shown.click(page.get_by_role("button", name="Pause"))
    assert page.get_by_role("button", name="Resume").count() == 1
    page.get_by_text("Drop …").click()
    shown.click(page.get_by_role("button", name="Drop this stream"))
    assert page.get_by_text("There is no stream yet.").count() == 1
    refused_once(shown)


def test_the_page_of_streams_is_whole_and_axe_finds_nothing(window: Open, played: Database) -> None:
    with psycopg.connect(played.dsn) as conn:
        conn.execute(
            "insert into audit.subscription (name, organization_id, sink, format, state, problem,"
            " made_by, start_id) select 'stream-' || i, '2', 'https://hooks' || i || '.globex.test/"
            "' || repeat('audit/', i * 20), 'ocsf', (array['active', 'failed', 'lapsed'])[i],"
            " (array[null, 'hooks2.globex.test answers 401', null])[i], '3',"
            " audit_private.first_id_of('2') from generate_series(1, 3) as i"
        )
    shown = window(OTHER, (2,), site=MASTER)
    page = shown.go("/streams")
    page.get_by_label("Address").fill("http://x.test/")
    shown.click(page.get_by_role("button", name="Make it"))
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for width in (360, 800, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert violations(page) == [] and shown.overflow() == []
    refused_once(shown)
