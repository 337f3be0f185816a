"""The pages: the list, an event, what is logged."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup
from psycopg import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response

from auditdb.connection.begin import Row
from auditdb.read.event import Event, Page, cursor_of
from auditdb.read.query import PageQuery
from auditdb.values.arguments import RESULTS
from auditdb.values.plain import plain
from auditdb.web import change, queries
from auditdb.web.address import PLAIN, PRESETS, event_path, read_event_path
from auditdb.web.errors import Problem
from auditdb.web.names import (
    Known,
    ask_names,
    ask_search,
    ids_in,
    name_of,
    names_in,
    naming_query,
)
from auditdb.web.reading import Reading, record_reading
from auditdb.web.sentence import Teller
from auditdb.web.site import Site, Visit
from auditdb.web.words import languages, words

LISTED = 50
# Events that a page looks at, and one that looks further back.
LOOKED_AT, FURTHER = 20_000, 500_000
# Events of the same transaction that are shown, and events on each side among which they are.
BESIDE, AROUND = 20, 3_000
HISTOGRAM = 48


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("auditdb.web", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


@cache
def _style() -> str:
    return _templates().get_template("style.css").render()


async def style(request: Request) -> Response:
    """Return the style sheet."""
    del request
    return Response(
        _style(), media_type="text/css", headers={"Cache-Control": "max-age=3600",
                                                  "X-Content-Type-Options": "nosniff"}
    )  # fmt: skip


def render(
    site: Site, request: Request, visited: Visit | None, template: str, values: dict[str, Any],
    status: int = 200,
) -> Response:  # fmt: skip
    """Return a page of a template; `visited` is None where nobody was let in."""
    own = visited.words if visited else words(site.language)
    scheme = visited.address["scheme"] or visited.access.scheme if visited else None
    shared = {
        "t": own,
        "title": site.title or own("title"),
        "scheme": scheme if scheme in ("light", "dark") else None,
        "root": str(request.scope.get("root_path", "")).rstrip("/"),
        "header": Markup(site.piece(site.header, request)),
        "footer": Markup(site.piece(site.footer, request)),
        "stylesheets": site.stylesheets,
        "visit": visited,
        "languages": languages(),
    }
    text = _templates().get_template(template).render(shared | values)
    return Response(text.encode("utf-8", "replace"), status, media_type="text/html")


def time_of(at: datetime, visited: Visit) -> Markup:
    """Return a time in the zone of the page, marked with that of UTC."""
    if at.year >= 9999 or at.year <= 1:
        return Markup("<time>{}</time>").format(at.isoformat())
    local = at.astimezone(visited.zone)
    return Markup('<time datetime="{}">{:%Y-%m-%d %H:%M:%S}</time>').format(
        at.astimezone(UTC).isoformat(), local
    )


def teller(visited: Visit, known: Known) -> Teller:
    """Return who tells events in the words of the page, with names that lead to their history."""

    def mark(kind: str, found: str, name: str) -> Markup:
        if kind in ("system", "database"):
            link = visited.address.only(visited.root + "/", actor_id=found)
        elif kind == "user":
            link = visited.address.only(visited.root + "/", person_id=found)
        else:
            link = visited.address.only(visited.root + "/", target_type=kind, target_id=found)
        return Markup('<a href="{}"><bdi>{}</bdi></a>').format(link, plain(name)[:200])

    return Teller(visited.words, known, mark)


def told(visited: Visit, event: Event, tell: Teller, *, organization: str = "") -> dict[str, Any]:
    """Return what a template shows of an event."""
    details = event.details or {}
    link = visited.address.only(
        f"{visited.root}/event/{event_path(event.occurred_at, event.id)}",
        organization=organization or visited.address["organization"],
    )
    return {
        "event": event,
        "time": time_of(event.occurred_at, visited),
        "sentence": tell.sentence(event),
        "actor": tell.actor(event),
        "action": visited.words.term("action", event.action),
        "result": visited.words.term("result", event.result),
        "source": plain(event.source),
        "ip": plain(str(details.get("ip", "")))[:60],
        "link": link,
        "organization": visited.access.names.get(organization, organization),
        "is_recorded": event.captured_from is None,
        "degraded": change.degraded(event),
    }


async def names_of(visited: Visit, read: Reading, events: list[Event]) -> Known:
    """Return how people and objects of some events are called."""
    wanted = ids_in(events)
    known = names_in(events)
    missing = {one for one in wanted if one not in known}
    hosts = await ask_names(visited.site.names, wanted)
    if missing - hosts.keys():
        rows = await read.rows(naming_query(missing - hosts.keys(), read.organization_id))
        for row in rows:
            own = row["target_type"], row["target_id"]
            name = name_of(row["new_values"]) or name_of(row["old_values"])
            if name and own not in known:
                known[own] = name
    return known | hosts


async def listed(
    visited: Visit, conn: AsyncConnection[Any], limit: int = LISTED
) -> tuple[Page, Known, dict[int, str]]:
    """Return the page of events that the address asks for, of all chosen organisations together.

    Raises:
        Problem: nobody may read any of them.
    """
    filters = visited.address.filters(visited.zone)
    if "text" in filters:
        filters["text_ids"] = await ask_search(visited.site.search, filters["text"])
    within = min(int(visited.address["within"] or LOOKED_AT), FURTHER)
    after, before = visited.address["after"] or None, visited.address["before"] or None
    found: list[Page] = []
    known: Known = {}
    homes: dict[int, str] = {}
    problems = []
    for organization in visited.organizations:
        async with visited.reading(conn, organization) as read:
            query = PageQuery(limit, filters, organization_id=read.organization_id,
                              after=after, before=before, within=within,
                              columns=queries.columns(queries.LISTED))  # fmt: skip
            page = query.page_of(await read.rows(query.statement))
            if not page.events and not visited.access.is_staff:
                (row,) = await read.rows(queries.PROBLEM)
                if row["problem"]:
                    problems.append(row["problem"])
            known |= await names_of(visited, read, page.events)
        homes |= {event.id: organization for event in page.events}
        found.append(page)
    if len(problems) == len(visited.organizations):
        raise Problem(PROBLEMS[problems[0]])
    return together(found, limit, is_before=before is not None, place=after), known, homes


PROBLEMS = {
    "token": "token", "key retired": "key_retired", "clock": "clock", "no rule": "no_rule",
    "no admin": "forbidden",
}  # fmt: skip


def together(pages: list[Page], limit: int, *, is_before: bool, place: str | None) -> Page:
    """Return the page of several organisations' events, of a page of each."""
    if len(pages) == 1:
        return pages[0]
    events = sorted(
        (event for page in pages for event in page.events),
        key=lambda event: (event.occurred_at, event.id),
        reverse=True,
    )
    # Where one was not looked at to the end, what is older of the others waits.
    looked = [page.looked_back_to for page in pages if page.looked_back_to]
    end = (min(looked) if is_before else max(looked)) if looked else None
    if end is not None:
        events = [e for e in events if (e.occurred_at <= end if is_before else e.occurred_at >= end)]
    events = events[-limit:] if is_before else events[:limit]
    more_older = any(page.next for page in pages)
    more_newer = any(page.previous for page in pages)
    oldest = cursor_of(events[-1].occurred_at, events[-1].id) if events else None
    newest = cursor_of(events[0].occurred_at, events[0].id) if events else None
    if end is not None and len(events) < limit:
        edge = cursor_of(end, 0 if not is_before else 2**63 - 1)
        oldest, newest = (oldest, edge) if is_before else (edge, newest)
    total = sum(len(page.events) for page in pages)
    return Page(
        events=events,
        next=oldest if more_older or total > len(events) else None,
        previous=newest if more_newer or is_before and total > len(events) else None,
        looked_back_to=end if len(events) < limit else None,
    )


async def log(visited: Visit) -> Response:
    """Return the page of the list."""
    address = visited.address
    async with visited.opened() as conn:
        await note_staff(visited, conn)
        page, known, homes = await listed(visited, conn)
        beside = await summary(visited, conn)
    tell = teller(visited, known)
    several = len(visited.organizations) > 1
    within = FURTHER if page.looked_back_to else None
    links = {
        "older": page.next and address.link(after=page.next, within=within),
        "newer": page.previous and address.link(before=page.previous, within=within),
        "newest": address.link() if address["after"] or address["before"] else None,
    }
    values = {
        "rows": [
            told(visited, event, tell, organization=homes[event.id] if several else "")
            for event in page.events
        ],
        "several": several,
        "links": links,
        "looked_back_to": page.looked_back_to and time_of(page.looked_back_to, visited),
        "form": form(visited, beside["actions"], known),
        **beside,
    }
    return render(visited.site, visited.request, visited, "log.html", values)


async def summary(visited: Visit, conn: AsyncConnection[Any]) -> dict[str, Any]:
    """Return what the page says beside the list."""
    is_first = not visited.address["after"] and not visited.address["before"]
    actions: list[str] = []
    logged_rows: list[Row] = []
    bars: dict[Any, Row] = {}
    for organization in visited.organizations:
        async with visited.reading(conn, organization) as read:
            actions = [row["name"] for row in await read.rows(queries.ACTIONS)]
            logged_rows += await read.rows(queries.LOGGED)
            if is_first and not visited.address.is_filtered:
                today = datetime.now(visited.zone).date()
                query = queries.days_query(visited.zone, today, read.organization_id)
                for row in await read.rows(query):
                    own = bars.setdefault(row["day"], {"day": row["day"], "count": 0})
                    own["count"] += row["count"]
    return {
        "actions": actions,
        "signals": [],
        "nothing_attached": not logged_rows,
        "bars": queries.bars(list(bars.values()), HISTOGRAM),
        "histogram": HISTOGRAM,
    }


def form(visited: Visit, actions: Iterable[str], known: Known) -> dict[str, Any]:
    """Return what the form of filters offers, and what is chosen."""
    address, own = visited.address, visited.words
    groups: dict[str, list[tuple[str, str]]] = {}
    for action in actions:
        category = action.partition(".")[0]
        groups.setdefault(category, []).append((action, own.term("action", action)))
    chosen = []
    for name in (*PLAIN, "text", "last", "from", "to"):
        if not address[name]:
            continue
        value: str = address[name]
        if name == "action":
            value = own.term("action" if "." in value else "category", value)
        elif name == "result":
            value = own.term("result", value)
        elif name in ("actor_id", "person_id", "subject_id"):
            value = known.get(("user", value), value)
        elif name == "last" and value in PRESETS:
            value = own(f"{value[-1]}{value[:-1]}")
        elif name == "target_type":
            value = own.term("noun", value)
        elif name == "target_id":
            value = known.get((address["target_type"], value), value)
        chosen.append((own(name), plain(value)[:80], address.link(**{name + "_": None})))
    return {
        "groups": {
            category: (own.term("category", category), own("all_of", category=own.term("category", category)), those)
            for category, those in groups.items()
        },
        "results": [(result, own.term("result", result)) for result in RESULTS],
        "presets": [(preset, own(f"{preset[-1]}{preset[:-1]}")) for preset in PRESETS],
        "chosen": chosen,
        "hidden": [(name, address[name]) for name in ("organization", "zone", "language", "scheme") if address[name]],
        "address": address,
    }  # fmt: skip


async def event(visited: Visit) -> Response:
    """Return the page of one event."""
    at, event_id = read_event_path(visited.request.path_params["place"])
    async with visited.opened() as conn:
        await note_staff(visited, conn)
        for organization in visited.organizations:
            async with visited.reading(conn, organization) as read:
                rows = await read.rows(queries.one_event(at, event_id, read.organization_id))
                if not rows:
                    continue
                found = Event(**rows[0])
                same = await beside_it(read, found)
                known = await names_of(visited, read, [found, *same])
            return _event_page(visited, found, same, known, organization)
    raise Problem("not_found")


async def beside_it(read: Reading, found: Event) -> list[Event]:
    """Return other events of the same transaction, of those that were written around it."""
    place = cursor_of(found.occurred_at, found.id)
    same: list[Event] = []
    for where in ({"before": place}, {"after": place}):
        query = PageQuery(
            BESIDE,
            {"transaction_id": found.transaction_id, "baseline": True},
            organization_id=read.organization_id,
            within=AROUND,
            columns=queries.columns(queries.LISTED),
            **where,
        )
        same += query.page_of(await read.rows(query.statement)).events
    return same


def _event_page(
    visited: Visit, found: Event, same: list[Event], known: Known, organization: str
) -> Response:
    tell = teller(visited, known)
    address, root = visited.address, visited.root + "/"
    person = found.subject_id or (found.actor_id if found.actor_type == "user" else None)
    links = {
        "object": found.target_id and address.only(
            root, target_type=found.target_type, target_id=found.target_id),
        "person": person and address.only(root, person_id=person),
        "transaction": address.only(root, transaction_id=found.transaction_id),
        "back": address.only(root),
    }  # fmt: skip
    details = found.details or {}
    values = {
        **told(visited, found, tell, organization=organization),
        "changes": change.changes(found),
        "cut": change.cut_of(found),
        "context": change.context(found),
        "ip_shown": change.show(details.get("ip")),
        "user_agent": change.show(details.get("user_agent")),
        "request_id": change.show(details.get("request_id")),
        "target": tell.target(found),
        "subject": tell.person(found.subject_id) if found.subject_id else None,
        "person_name": plain(known.get(("user", person), person)) if person else None,
        "same": [
            told(visited, other, tell, organization=organization)
            for other in same
            if other.id != found.id
        ],
        "links": links,
        "utc": found.occurred_at.astimezone(UTC).isoformat(),
    }
    return render(visited.site, visited.request, visited, "event.html", values)


async def logged(visited: Visit) -> Response:
    """Return the page that says what is logged, and since when."""
    rows: dict[str, Row] = {}
    async with visited.opened() as conn:
        for organization in visited.organizations:
            async with visited.reading(conn, organization) as read:
                for row in await read.rows(queries.LOGGED):
                    rows[row["kind"]] = row
                actions = [row["name"] for row in await read.rows(queries.ACTIONS)]
    own = visited.words
    kinds = [
        {
            "kind": own.term("category", row["kind"]),
            "tables": row["tables"],
            "since": time_of(row["since"], visited),
            "actions": [
                own.term("action", name)
                for name in actions
                if name.partition(".")[0] == row["kind"]
            ],
        }
        for row in rows.values()
    ]
    back = visited.address.only(visited.root + "/")
    values = {"kinds": kinds, "back": back}
    return render(visited.site, visited.request, visited, "logged.html", values)


async def note_staff(visited: Visit, conn: AsyncConnection[Any]) -> None:
    """Record that the vendor's staff look at a log, where a customer sees it."""
    if visited.access.is_staff:
        for organization in visited.organizations:
            await record_reading(conn, visited.access, visited.principal(organization), "viewed")
