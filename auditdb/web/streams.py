"""Streams: admins of an organisation let its events be sent to their own address."""

from __future__ import annotations

from typing import Any, LiteralString
from urllib.parse import quote

from starlette.responses import JSONResponse, RedirectResponse, Response

from auditdb.connection.begin import Row, Statement, begin_with_async
from auditdb.errors import AuditError, InvalidInput
from auditdb.export.sinks.webhook import stream_secret
from auditdb.values.plain import plain, plain_json
from auditdb.web.forms import form_token, read_form, read_json
from auditdb.web.listing import why_nothing
from auditdb.web.problem import STATUS, Problem
from auditdb.web.reading import Reading, bounded
from auditdb.web.render import render, time_of
from auditdb.web.site import Visit

FORMATS = ("jsonl", "ocsf", "cloudevents")
_CHANGES: dict[str, LiteralString] = {
    "pause": "select audit.pause_stream(%s)",
    "resume": "select audit.resume_stream(%s)",
    "drop": "select audit.drop_stream(%s)",
}
# By the state of an error of the database.
_PROBLEMS = {"22023": "stream_address", "53400": "stream_limit", "42704": "not_found",
             "42501": "forbidden"}  # fmt: skip
_SHOWN = ("name", "sink", "format", "state", "problem", "problem_at", "delivered", "set_aside",
          "has_missed", "lag_seconds", "created_at", "made_by", "lapses_at")  # fmt: skip


def _organization(visited: Visit) -> str:
    """Return whose streams these are.

    Raises:
        Problem: the application offers none; staff of the vendor make none for a customer.
        InvalidInput: there are several organisations.
    """
    if not visited.site.stream_secrets or visited.access.is_staff:
        raise Problem("not_found")
    if len(visited.organizations) > 1:
        raise InvalidInput("each organisation has streams of its own; give organization")
    return next(iter(visited.organizations))


async def _listed(visited: Visit) -> list[Row]:
    """Return the streams, each with its signing secret."""
    async with (
        visited.opened() as conn,
        visited.reading(conn, _organization(visited)) as read,
    ):
        if problem := await why_nothing(read):
            raise problem
        rows = await read.rows((f"select {', '.join(_SHOWN)} from audit.list_streams()", []))
    newest = visited.site.stream_secrets[0]
    return [{**row, "secret": stream_secret(newest, row["name"])} for row in rows]


async def _run(visited: Visit, query: LiteralString, *values: str) -> str:
    """Run a change with the token of the viewer; return the result.

    Raises:
        Problem: it may not be, and why.
    """
    principal = visited.principal(_organization(visited))
    first: list[Statement] = [
        ("set transaction isolation level read committed", []),
        bounded(visited.seconds_left),
        ("select pg_catalog.set_config('auditdb.viewer', %s, true)", [principal.token()]),
    ]
    try:
        async with (
            visited.opened() as conn,
            begin_with_async(conn, principal.role, *first),
        ):
            (row,) = await Reading(conn, principal).rows((query, list(values)))
    except AuditError as error:
        key = _PROBLEMS.get(getattr(error.__cause__, "sqlstate", None) or "")
        if key is None:
            raise
        raise Problem(key) from error
    return str(next(iter(row.values())))


async def _create(visited: Visit, given: dict[str, Any]) -> str:
    sink, form = given.get("sink"), given.get("format", FORMATS[0])
    if form not in FORMATS:
        raise InvalidInput(f"format is {form!r}; it is one of {', '.join(FORMATS)}")
    if not isinstance(sink, str) or "\0" in sink:
        raise Problem("stream_address")
    return await _run(visited, "select audit.create_stream(%s, %s)", sink, form)


async def _change(visited: Visit, what: str) -> None:
    if what not in _CHANGES:
        raise Problem("not_found")
    await _run(visited, _CHANGES[what], visited.request.path_params["name"])


async def page(visited: Visit) -> Response:
    """Return the page of an organisation's streams; of several, a choice of one."""
    if visited.site.stream_secrets and len(visited.organizations) > 1:
        return _page(visited, [])
    return _page(visited, await _listed(visited))


def _page(visited: Visit, rows: list[Row], given: dict[str, str] | None = None,
          problem: Problem | None = None) -> Response:  # fmt: skip
    address, root, own = visited.address, f"{visited.root}/streams", visited.words
    values = {
        "back": address.only(visited.root + "/"),
        "choices": [] if len(visited.organizations) == 1 else [
            (name, address.link(root, organization=id))
            for id, name in visited.organizations.items()
        ],
        "streams": [
            {**row, "sink": plain(row["sink"]), "problem": plain(row["problem"] or ""),
             "label": own.term("state", row["state"]), "form": own.term("format", row["format"]),
             "since": time_of(row["created_at"], visited),
             "minutes": int(row["lag_seconds"] // 60) if row["state"] == "active" else 0,
             "actions": {
                 what: address.only(f"{root}/{quote(row['name'], safe='')}/{what}")
                 for what in _CHANGES}}
            for row in rows
        ],
        "action": address.only(root), "token": form_token(visited),
        "formats": [(name, own.term("format", name)) for name in FORMATS],
        "given": given or {}, "problem": problem and own.term("error", problem.key),
        "problem_help": problem and own.term("error", f"{problem.key}_help"),
    }  # fmt: skip
    status = STATUS[problem.key] if problem else 200
    return render(visited.site, visited.request, visited, "streams.html", values, status)


async def create(visited: Visit) -> Response:
    """Make a stream of what a form says, and show the page of streams."""
    _organization(visited)
    given = await read_form(visited)
    try:
        await _create(visited, given)
    except Problem as problem:
        if problem.key not in ("stream_address", "stream_limit"):
            raise
        return _page(visited, await _listed(visited), given, problem)
    return _redirect(visited)


async def change(visited: Visit) -> Response:
    """Pause, resume or drop a stream, and show the page of streams."""
    _organization(visited)
    await read_form(visited)
    await _change(visited, visited.request.path_params["what"])
    return _redirect(visited)


def _redirect(visited: Visit) -> Response:
    return RedirectResponse(visited.address.only(f"{visited.root}/streams"), 303)


class _Json(JSONResponse):
    def render(self, content: Any) -> bytes:
        return plain_json(content).encode("utf-8", "replace")


async def api_list(visited: Visit) -> Response:
    """Return the streams of an organisation."""
    return _Json({"streams": await _listed(visited)})


async def api_create(visited: Visit) -> Response:
    """Make a stream, and return it."""
    _organization(visited)
    name = await _create(visited, await read_json(visited))
    return _Json(next(row for row in await _listed(visited) if row["name"] == name), 201)


async def api_change(visited: Visit) -> Response:
    """Pause or resume a stream, or drop it."""
    _organization(visited)
    await read_json(visited)
    is_drop = visited.request.method == "DELETE"
    await _change(visited, "drop" if is_drop else visited.request.path_params["what"])
    return Response(status_code=204)
