"""Errors as pages: what is wrong, and what to do about it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from auditdb.errors import AuditError, ConnectionFailed, InvalidInput, Refused
from auditdb.web.access import Access
from auditdb.web.site import Site, Visit, admit, visit
from auditdb.web.words import words

_log = logging.getLogger("auditdb.web")
Endpoint: TypeAlias = Callable[[Visit], Awaitable[Response]]

STATUS = {
    "unauthorized": 401, "forbidden": 403, "not_found": 404, "bad_address": 400, "away": 503,
    "slow": 503, "read_only": 503, "not_installed": 503, "refused": 503,
    "key_retired": 503, "token": 503, "clock": 503, "no_rule": 503,
}  # fmt: skip


class Problem(Exception):
    """Something that a page says instead of what was asked for.

    Args:
        key: of the section `error` of the words.
        detail: what else is known, for the reader.
    """

    def __init__(self, key: str, detail: str = "") -> None:
        super().__init__(key)
        self.key, self.detail = key, detail


def problem_of(error: AuditError) -> Problem:
    """Return the problem that an error is; what only concerns operators is logged."""
    state = getattr(error.__cause__, "sqlstate", None)
    if state == "57014":
        return Problem("slow")
    if isinstance(error, InvalidInput):
        return Problem("bad_address", str(error))
    _log.error("%s", error)
    if isinstance(error, ConnectionFailed):
        return Problem("away")
    if state == "25006":
        return Problem("read_only")
    if isinstance(error, Refused) and "auditdb install" in str(error):
        return Problem("not_installed")
    return Problem("refused")


def guarded(site: Site, endpoint: Endpoint, kind: str) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that lets in whom the host names, and whose errors are pages."""

    async def answer(request: Request) -> Response:
        visited: Visit | None = None
        try:
            access = await admit(site, request)
            if isinstance(access, Response):
                return access
            if access is None:
                raise Problem("unauthorized")
            if not isinstance(access, Access):
                raise TypeError(
                    f"viewer returned a {type(access).__name__}; it returns an auditdb.web.Access, "
                    "a response, or None"
                )
            visited = visit(site, request, access)
            if not access.names:
                raise Problem("forbidden")
            if not visited.organizations:
                raise Problem("not_found")
            response = await endpoint(visited)
        except AuditError as error:
            response = page(site, request, visited, problem_of(error), kind)
        except Problem as problem:
            response = page(site, request, visited, problem, kind)
        for name, value in site.headers.items():
            response.headers.setdefault(name, value)
        return response

    return answer


def not_found(site: Site) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return the page for a path that there is not."""

    async def answer(request: Request, error: Exception) -> Response:
        del error
        response = page(site, request, None, Problem("not_found"), "html")
        response.headers.update(site.headers)
        return response

    return answer


def page(
    site: Site, request: Request, visited: Visit | None, problem: Problem, kind: str
) -> Response:
    """Return the page that says what is wrong."""
    from auditdb.web.pages import render

    own = visited.words if visited else words(site.language)
    told = {
        "error": problem.key,
        "message": own.term("error", problem.key),
        "help": problem.detail or own.term("error", f"{problem.key}_help"),
    }
    status = STATUS[problem.key]
    if kind == "json":
        return JSONResponse(told, status)
    return render(site, request, visited, "error.html", {"told": told}, status)
