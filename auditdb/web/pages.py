"""The pages: the list, an event, what is logged."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable
from datetime import UTC
from typing import Any

from starlette.responses import RedirectResponse, Response

from auditdb.read.event import Event, cursor_of
from auditdb.read.query import PageQuery
from auditdb.values.arguments import RESULTS
from auditdb.values.plain import plain
from auditdb.web import change, queries
from auditdb.web.address import CHOSEN, LOOKS, PLAIN, PRESETS
from auditdb.web.beside import summary
from auditdb.web.listing import FURTHER, event_of, filters_of, listed, logged_kinds, note_staff
from auditdb.web.names import Known
from auditdb.web.reading import Reading
from auditdb.web.render import render, time_of
from auditdb.web.site import Visit
from auditdb.web.told import hosts_names, names_of, teller, told

# Events of the same transaction that are shown, and events on each side among which they are.
BESIDE, AROUND = 20, 3_000
# Filters that the form shows when it is opened, before the days.
MORE = tuple(name for name in PLAIN if name not in ("action", "result"))


async def log(visited: Visit) -> Response:
    """Return the page of the list."""
    address = visited.address
    if len(visited.request.query_params) > len(address.given):
        # A form sends what was left empty, too: a link that is kept is better short.
        return RedirectResponse(address.link(visited.root + "/"), 303)
    filters = await filters_of(visited)
    async with visited.opened() as conn:
        await note_staff(visited, conn)
        page, known, homes = await listed(visited, conn, filters)
        beside = await summary(visited, conn)
    hosts = await hosts_names(visited, page.events)
    known = {organization: names | hosts for organization, names in known.items()}
    # What one log calls somebody is not what another does.
    tell = {organization: teller(visited, names) for organization, names in known.items()}
    several = len(visited.organizations) > 1
    within = FURTHER if page.looked_back_to else None
    links = {
        "older": page.next and address.link(after=page.next, within=within),
        "newer": page.previous and address.link(before=page.previous, within=within),
        "newest": address.link() if address["after"] or address["before"] else None,
    }
    values = {
        "rows": [
            told(visited, event, tell[home], organization=home if several else "")
            for event in page.events
            for home in (homes[event.id],)
        ],
        "several": several,
        "links": links,
        "looked_back_to": page.looked_back_to and time_of(page.looked_back_to, visited),
        "form": form(visited, beside["actions"], dict(ChainMap(*known.values()))),
        **beside,
    }
    return render(visited.site, visited.request, visited, "log.html", values)


def form(visited: Visit, actions: Iterable[str], known: Known) -> dict[str, Any]:
    """Return what the form of filters offers, and what is chosen."""
    address, own = visited.address, visited.words
    groups: dict[str, list[tuple[str, str]]] = {}
    for action in actions:
        category = action.partition(".")[0]
        groups.setdefault(category, []).append((action, own.term("action", action)))
    chosen = []
    for name in CHOSEN:
        if not address[name]:
            continue
        value: str = address[name]
        if name == "action":
            value = own.term("action" if "." in value else "category", value)
        elif name == "signal":
            value = own.term("signal", value)
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
        chosen.append((own(name), plain(value)[:80], address.without(name)))
    return {
        "groups": {
            category: (name, own("all_of", category=name), those)
            for category, those in groups.items()
            for name in (own.term("category", category),)
        },
        "more": MORE,
        "is_open": any(address[name] for name in (*MORE, "from", "to")),
        "results": [(result, own.term("result", result)) for result in RESULTS],
        "presets": [(preset, own(f"{preset[-1]}{preset[:-1]}")) for preset in PRESETS],
        "chosen": chosen,
        "hidden": [(name, address[name]) for name in ("organization", *LOOKS) if address[name]],
        "address": address,
    }  # fmt: skip


async def event(visited: Visit) -> Response:
    """Return the page of one event."""
    async with event_of(visited) as (found, organization, read):
        same = await beside_it(read, found)
        known = await names_of(read, [found, *same])
    known |= await hosts_names(visited, [found, *same])
    return _event_page(visited, found, same, known, organization)


async def beside_it(read: Reading, found: Event) -> list[Event]:
    """Return other events of the same transaction, of those that were written around it."""
    place = cursor_of(found.occurred_at, found.id)
    same: list[Event] = []
    for where in ({"before": place}, {"after": place}):
        query = PageQuery(
            BESIDE,
            {
                "transaction_id": found.transaction_id,
                "series_id": found.series_id,
                "baseline": True,
            },
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
        "transaction": address.only(
            root, transaction_id=found.transaction_id, series_id=found.series_id),
        "back": address.only(root),
        # For a colleague, to whom it looks as they like it.
        "permalink": address.only(
            visited.request.url.path, organization=address["organization"], **dict.fromkeys(LOOKS)),
    }  # fmt: skip
    details = found.details or {}
    values = {
        **told(visited, found, tell, organization=organization),
        "changes": change.changes(found),
        "cut": change.cut_of(found),
        "left_out": change.left_out(found),
        "context": change.context(found),
        "ip_shown": change.show(details.get("ip")),
        "user_agent": change.show(details.get("user_agent")),
        "request_id": change.show(details.get("request_id")),
        "target": tell.target(found),
        # Beside the name, where one is known.
        "target_id": found.target_id if (found.target_type, found.target_id) in known else None,
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
    rows, actions, since = await logged_kinds(visited)
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
        for row in rows
    ]
    back = visited.address.only(visited.root + "/")
    shown_since = time_of(since, visited) if since else None
    values = {"kinds": kinds, "back": back, "shown_since": shown_since}
    return render(visited.site, visited.request, visited, "logged.html", values)
