"""Events as templates show them, with names instead of ids."""

from __future__ import annotations

from functools import cache
from typing import Any

from markupsafe import Markup

from auditdb.read import summary
from auditdb.read.event import Event
from auditdb.values.plain import plain
from auditdb.web import change
from auditdb.web.address import event_path
from auditdb.web.names import Known, ask_names, ids_in, name_of, names_in, naming_query
from auditdb.web.reading import Reading
from auditdb.web.render import time_of
from auditdb.web.sentence import Teller, is_impersonated
from auditdb.web.site import Visit


def teller(visited: Visit, known: Known) -> Teller:
    """Return who tells events in the words of the page, with names that lead to their history."""

    @cache  # A page names few people, and each of them often.
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
    # Of an admin of one organisation, the address need not say which.
    several = len(visited.access.names) > 1
    link = visited.address.only(
        f"{visited.root}/event/{event_path(event.occurred_at, event.id)}",
        organization=(several and organization) or visited.address["organization"],
    )
    sentence, actor = tell.sentence(event), tell.actor(event)
    return {
        "event": event,
        "time": time_of(event.occurred_at, visited),
        "sentence": sentence,
        "actor": actor,
        "says_who": not is_impersonated(event) or actor in sentence,
        "action": visited.words.term("action", event.action),
        "change": _change(event),
        "result": visited.words.term("result", event.result),
        "source": plain(event.source),
        "ip": plain(str(details.get("ip", "")))[:60],
        "link": link,
        "organization": visited.access.names.get(organization, organization),
        "is_recorded": event.captured_from is None,
        "degraded": change.degraded(event),
    }


def _change(event: Event) -> str:
    """Return what an update changed, or why it failed, where the sentence does not say it."""
    if event.result != "success":
        return plain(summary.reason(event))[:300]
    old, new = event.old_values, event.new_values
    if old is None or new is None or event.action.endswith(".role_changed"):
        return ""
    if change.CUT in old or change.CUT in new:
        return ""
    return plain(summary.change(event))[:300]


async def names_of(read: Reading, events: list[Event]) -> Known:
    """Return how people and objects of some events are called in the log."""
    known = names_in(events)
    missing = {one for one in ids_in(events) if one not in known}
    if missing:
        rows = await read.rows(naming_query(missing, read.organization_id))
        for row in rows:
            own = row["target_type"], row["target_id"]
            name = name_of(row["new_values"]) or name_of(row["old_values"])
            if name and own not in known:
                known[own] = name
    return known


async def hosts_names(visited: Visit, events: list[Event]) -> Known:
    """Return how people and objects of some events are called by the host.

    It may need a connection of the same pool to find out: none is held meanwhile.
    """
    return await ask_names(visited.site.names, ids_in(events), visited.site.seconds)
