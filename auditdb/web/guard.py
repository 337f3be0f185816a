"""Admits the viewers that the host names, and turns errors into pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from auditdb.errors import AuditError
from auditdb.web.access import Access
from auditdb.web.problem import STATUS, Problem, problem_of
from auditdb.web.render import render
from auditdb.web.site import Site, Visit, admit, visit
from auditdb.web.words import words

Endpoint: TypeAlias = Callable[[Visit], Awaitable[Response]]


def guarded(site: Site, endpoint: Endpoint, kind: str) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that admits viewers of the host and turns errors into pages."""

    async def answer(request: Request) -> Response:
        visited: Visit | None = None
        # Errors in the function of the host, also an invalid Access, are errors of the host.
        access = await admit(site, request)
        try:
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
        return response

    return answer


class Headers:
    """Adds security headers to every response, including those of Starlette."""

    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self.app, self.headers = app, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the application does, with the headers that it leaves out."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, told)


def not_found(site: Site) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return the page for an unknown path."""

    async def answer(request: Request, error: Exception) -> Response:
        del error
        return page(site, request, None, Problem("not_found"), _kind(request))

    return answer


def failed(site: Site) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return the page for an error of the host; the error continues to its server and log."""

    async def answer(request: Request, error: Exception) -> Response:
        del error
        try:
            response = page(site, request, None, Problem("host"), _kind(request))
        except Exception:  # The header of the host may be the cause.
            bare = replace(site, header="", footer="")
            response = page(bare, request, None, Problem("host"), _kind(request))
        # This answer passes by `Headers`.
        response.headers.update(site.headers)
        return response

    return answer


def _kind(request: Request) -> str:
    path = str(request.scope["path"]).removeprefix(str(request.scope.get("root_path", "")))
    return "json" if path.startswith("/api/") else "html"


def page(
    site: Site, request: Request, visited: Visit | None, problem: Problem, kind: str
) -> Response:
    """Return the page that says what is wrong."""
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
