"""The same as JSON, for products that draw a page of their own."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from auditdb._version import __version__
from auditdb.export.canonical import COLUMNS, VALUES
from auditdb.read.event import Event
from auditdb.values.arguments import ACTOR_TYPES, RESULTS
from auditdb.values.plain import plain_json
from auditdb.web import queries
from auditdb.web.address import PLAIN, PRESETS, event_path
from auditdb.web.listing import event_of, filters_of, listed, logged_kinds, note_staff
from auditdb.web.names import Known
from auditdb.web.sentence import Teller
from auditdb.web.site import Visit, root_of
from auditdb.web.streams import FORMATS
from auditdb.web.told import hosts_names, names_of


class _Json(JSONResponse):
    """JSON that holds times, and numbers of any size."""

    def render(self, content: Any) -> bytes:
        return plain_json(content).encode("utf-8", "replace")


def _as_json(visited: Visit, event: Event, known: Known) -> dict[str, Any]:
    tell = Teller(visited.words, known)
    values = {field.name: getattr(event, field.name) for field in fields(Event)}
    people = [("user", event.subject_id), ("user", event.impersonator_id),
              (event.actor_type, event.actor_id), (event.target_type, event.target_id)]  # fmt: skip
    return {
        **values,
        "place": event_path(event.occurred_at, event.id),
        "sentence": tell.sentence(event).unescape(),
        "names": {
            found: known[kind, found]
            for kind, found in people
            if kind and found and (kind, found) in known
        },
    }


async def events(visited: Visit) -> Response:
    """Return a page of events, and the cursors of the pages around it."""
    filters = await filters_of(visited)
    async with visited.opened() as conn:
        await note_staff(visited, conn)
        page, known, homes = await listed(visited, conn, filters)
    hosts = await hosts_names(visited, page.events)
    known = {organization: names | hosts for organization, names in known.items()}
    return _Json(
        {
            "events": [_as_json(visited, event, known[homes[event.id]]) for event in page.events],
            "next": page.next,
            "previous": page.previous,
            "looked_back_to": page.looked_back_to,
        }
    )


async def event(visited: Visit) -> Response:
    """Return one event."""
    async with event_of(visited) as (found, _, read):
        known = await names_of(read, [found])
    known |= await hosts_names(visited, [found])
    return _Json(_as_json(visited, found, known))


async def logged(visited: Visit) -> Response:
    """Return what is logged, and since when."""
    kinds, *_ = await logged_kinds(visited)
    return _Json({"logged": kinds})


async def openapi(request: Request) -> Response:
    """Return the description of this interface."""
    described = json.loads(json.dumps(_described()))
    described["servers"] = [{"url": f"{root_of(request)}/api"}]
    return JSONResponse(described)


_ABOUT = {
    "organization": "The organisation, of those that the viewer may ask for. Default: all of them.",
    "action": "An action, such as membership.role_changed, or a category, such as membership.",
    "result": "success, failure or denied.",
    "person_id": "Who acted, impersonated, or is the person concerned.",
    "actor_id": "Who acted or impersonated.",
    "actor_type": "user, api_key, system or database.",
    "subject_id": "The person concerned.",
    "target_type": "Kind of the object.",
    "target_id": "Id of the object.",
    "source": "Way in: web, api, saml …",
    "ip": "IP address.",
    "transaction_id": "Transaction.",
    "series_id": "Series in which the transaction has its number.",
    "text": "Is in an id, a value or a detail, upper and lower case alike; or names what the "
    "application knows by it.",
    "last": "Period until now: 24h, 7d, 30d or 90d.",
    "from": "From then on: a day of the zone, or a time such as 2026-01-31T09:00Z.",
    "to": "Until then: a day of the zone, which is included, or before a time.",
    "signal": "What is worth a look, a view of the same name; other filters do not count.",
    "zone": "In which days begin, such as Europe/Berlin. Default: UTC, or the viewer's.",
    "language": "Of the sentences.",
    "after": "`next` of the page before.",
    "before": "`previous` of the page after.",
    "within": "Events that are looked at, at most. Default: 20000; at most 500000.",
}
_POLLED = {
    "organization": "The organisation; may be left out where the viewer has one.",
    "action": _ABOUT["action"],
    "cursor": "That of the answer before, or now: the end of the log. Default: its beginning.",
    "limit": "Events of an answer, at most. Default: 100; at most 1000.",
}
_ENUMS = {
    "result": list(RESULTS),
    "actor_type": list(ACTOR_TYPES),
    "last": list(PRESETS),
    "signal": list(queries.SIGNALS),
}
_TYPES: dict[str, Any] = {
    "id": "integer", "transaction_id": "integer", "series_id": "integer", "old_values": "object",
    "new_values": "object", "details": "object", "names": "object",
}  # fmt: skip


@cache
def _described() -> dict[str, Any]:
    """Return the description, OpenAPI 3.1, made of the names that the code has."""
    required = {"id", "occurred_at", "transaction_id", "action", "result", "actor_type", "db_user",
                "source", "place", "sentence", "names"}  # fmt: skip
    properties: dict[str, Any] = {}
    for name in [*(field.name for field in fields(Event)), "place", "sentence", "names"]:
        kind = _TYPES.get(name, "string")
        properties[name] = {"type": kind if name in required else [kind, "null"]}
    properties["occurred_at"]["format"] = "date-time"
    properties["sentence"]["description"] = "What happened, in the language that was asked for."
    properties["place"]["description"] = "The last part of the path of this event."
    event: dict[str, Any] = {"$ref": "#/components/schemas/Event"}
    place = {"name": "place", "in": "path", "required": True, "schema": {"type": "string"}}
    cursor = {"type": ["string", "null"]}
    page = {
        "type": "object",
        "required": ["events", "next", "previous", "looked_back_to"],
        "properties": {
            "events": {"type": "array", "items": event},
            "next": cursor,
            "previous": cursor,
            "looked_back_to": {"type": ["string", "null"], "format": "date-time"},
        },
    }
    names = [
        "organization",
        *PLAIN,
        *(name for name in _ABOUT if name not in (*PLAIN, "organization")),
    ]
    return {
        "openapi": "3.1.0",
        "info": {"title": "auditdb", "version": __version__},
        "paths": {
            "/events": {"get": {
                "summary": "A page of events, newest first",
                "parameters": [_parameter(name) for name in names],
                "responses": _responses(page)}},
            "/events/since": {"get": {
                "summary": "Every committed event once, in order, from a cursor on: to poll",
                "parameters": [_parameter(name, about) for name, about in _POLLED.items()],
                "responses": _responses(_polled()) | {"410": {
                    "description": "The cursor is of what a restored database has lost"}}}},
            "/events/{place}": {"get": {
                "summary": "One event",
                "parameters": [place, _parameter("organization"), _parameter("language")],
                "responses": _responses(event)}},
            **_streams(),
            "/logged": {"get": {
                "summary": "What is logged, and since when",
                "parameters": [_parameter("organization")],
                "responses": _responses({"type": "object"})}},
        },
        "components": {"schemas": {
            "Event": {
                "type": "object", "required": sorted(required), "properties": properties},
            "Exported": {
                "description": "An event as it is exported: docs/event-1.schema.json",
                "type": "object", "required": list(COLUMNS),
                "properties": {name: {} if name in VALUES else {"type": [
                    "integer" if name == "version" else "string", "null"]} for name in COLUMNS}}}},
    }  # fmt: skip


def _polled() -> dict[str, Any]:
    """Return the schema of what polling answers."""
    event = {"$ref": "#/components/schemas/Exported"}
    return {
        "type": "object",
        "required": ["events", "cursor", "is_more"],
        "properties": {
            "events": {"type": "array", "items": event},
            "cursor": {"type": ["string", "null"]},
            "is_more": {"type": "boolean"},
        },
    }


def _streams() -> dict[str, Any]:
    """Return the paths of streams, which there are where the host gives a `stream_secret`."""
    texts = ("name", "sink", "format", "state", "problem", "created_at", "made_by", "secret")
    stream = {
        "type": "object",
        "properties": {
            name: {"type": ["string", "null"] if name == "problem" else "string"} for name in texts
        },
    }
    body = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["sink"],
                    "properties": {
                        "sink": {"type": "string", "description": "An address of https"},
                        "format": {"type": "string", "enum": list(FORMATS)},
                    },
                }
            }
        },
    }
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    what = {
        "name": "what",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": ["pause", "resume"]},
    }
    whose = _parameter("organization", _POLLED["organization"])
    many = {"type": "object", "properties": {"streams": {"type": "array", "items": stream}}}
    problems = {"409": {"description": "There are as many as there may be"}}
    made = _responses(stream)
    made = {"201": made.pop("200"), **made, **problems}
    changed = _responses({})
    changed = {"204": {"description": "It is done"}} | {
        status: told for status, told in changed.items() if status != "200"
    }
    object_ = {"content": {"application/json": {"schema": {"type": "object"}}}}
    return {
        "/streams": {
            "get": {"summary": "Streams of an organisation, with what signs each",
                    "parameters": [whose], "responses": _responses(many)},
            "post": {"summary": "Has events sent to an address, from now on",
                     "parameters": [whose], "requestBody": body, "responses": made}},
        "/streams/{name}": {"delete": {
            "summary": "Ends a stream", "parameters": [name, whose], "responses": changed}},
        "/streams/{name}/{what}": {"post": {
            "summary": "Pauses or resumes a stream", "parameters": [name, what, whose],
            "requestBody": object_, "responses": changed}},
    }  # fmt: skip


def _parameter(name: str, about: str | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if name in _ENUMS:
        schema["enum"] = _ENUMS[name]
    return {"name": name, "in": "query", "description": about or _ABOUT[name], "schema": schema}


def _responses(schema: dict[str, Any]) -> dict[str, Any]:
    told = {name: {"type": "string"} for name in ("error", "message", "help")}
    problem = {"type": "object", "properties": told}
    answers: dict[str, Any] = {
        "200": {"description": "What was asked for",
                "content": {"application/json": {"schema": schema}}},
    }  # fmt: skip
    for status, why in (("400", "The address is wrong"), ("401", "Nobody is signed in"),
                        ("403", "The viewer may not read this log"), ("404", "There is none"),
                        ("503", "The database cannot answer")):  # fmt: skip
        answers[status] = {"description": why, "content": {"application/json": {"schema": problem}}}
    return answers
