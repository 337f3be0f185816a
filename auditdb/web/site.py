"""The application: its settings, its routes, and who is let in."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from auditdb.errors import InvalidInput
from auditdb.read.token import mint
from auditdb.read.viewer import Auditor, Viewer
from auditdb.web.access import Access
from auditdb.web.address import Address
from auditdb.web.names import Names, Search
from auditdb.web.reading import Connect, Reading, opened, reading
from auditdb.web.words import Words, words

Answer: TypeAlias = Access | Response | None
# A piece of the host's page: markup, or what makes it for a request.
Piece: TypeAlias = str | Callable[[Request], str]


@dataclass(frozen=True)
class Site:
    """The settings of an application; see `app`."""

    connect: Connect
    key: str
    viewer: Callable[[Request], Answer | Awaitable[Answer]]
    names: Names | None
    search: Search | None
    title: str | None
    header: Piece
    footer: Piece
    stylesheets: Sequence[str]
    frame_ancestors: str
    language: str
    seconds: float
    records_staff: bool = True

    def piece(self, piece: Piece, request: Request) -> str:
        """Return a piece of the host's page."""
        return piece(request) if callable(piece) else piece

    @cached_property
    def headers(self) -> dict[str, str]:
        """What every response says to the browser: nothing from elsewhere, nothing kept."""
        frame = self.frame_ancestors
        policy = [
            "default-src 'none'", "style-src 'self'", "img-src 'self'", "font-src 'self'",
            "form-action 'self'", "base-uri 'none'", f"frame-ancestors {frame}",
        ]  # fmt: skip
        headers = {
            "Content-Security-Policy": "; ".join(policy),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
            "Vary": "Cookie, Authorization",
        }
        if frame in ("'none'", "'self'"):
            headers["X-Frame-Options"] = "DENY" if frame == "'none'" else "SAMEORIGIN"
        return headers


@dataclass(frozen=True)
class Visit:
    """A request of somebody who was let in."""

    site: Site
    request: Request
    access: Access
    address: Address
    words: Words
    zone: ZoneInfo

    @cached_property
    def root(self) -> str:
        """The path under which the application is mounted."""
        return str(self.request.scope.get("root_path", "")).rstrip("/")

    @cached_property
    def organizations(self) -> dict[str, str]:
        """The organisations that are asked for, of those that the viewer may ask for."""
        known = self.access.names
        chosen = self.address["organization"]
        if not chosen:
            return known
        return {chosen: known[chosen]} if chosen in known else {}

    def principal(self, organization_id: str) -> Viewer | Auditor:
        """Return as whom an organisation's log is read."""
        if self.access.is_staff:
            return Auditor(organization_id)
        return Viewer(self.site.key, self.access.viewer_id, organization_id, 60)

    @asynccontextmanager
    async def reading(self, conn: Any, organization_id: str) -> AsyncIterator[Reading]:
        """Open a transaction that reads an organisation's log."""
        principal = self.principal(organization_id)
        async with reading(conn, principal, self.site.seconds) as read:
            yield read

    def opened(self) -> Any:
        """Open a connection."""
        return opened(self.site.connect)


async def admit(site: Site, request: Request) -> Answer:
    """Ask the host who looks at the page."""
    answer = site.viewer(request)
    return await answer if inspect.isawaitable(answer) else answer


def visit(site: Site, request: Request, access: Access) -> Visit:
    """Return the visit of somebody who was let in.

    Raises:
        InvalidInput: the address is none.
    """
    address = Address.of(dict(request.query_params))
    code = address["language"] or access.language or site.language
    return Visit(site, request, access, address, words(code), address.zone(access))


def app(
    *,
    connect: Connect,
    key: str,
    viewer: Callable[[Request], Answer | Awaitable[Answer]],
    names: Names | None = None,
    search: Search | None = None,
    title: str | None = None,
    header: Piece = "",
    footer: Piece = "",
    stylesheets: Sequence[str] = (),
    frame_ancestors: str = "'none'",
    language: str = "en",
    seconds: float = 5.0,
) -> Starlette:
    """Return the page on which an organisation's admin reads the log: an ASGI application.

    It only reads, but for `audit.exported` and `audit.viewed`; it takes GET alone, sets no cookie,
    and needs no JavaScript.

    Args:
        connect: the address of the database as a login that is a member of `audit_reader`, or a
            function that gives an async connection of psycopg as a context manager, such as
            `pool.connection` of an `AsyncConnectionPool`.
        key: a signing key, `key_id.secret`, from `AUDITDB_KEY` or a file.
        viewer: called with each request, returns who looks at it: an `Access`; None, for nobody
            (401); or a response of the host's own, such as a redirect to its sign-in.
        names: called with a kind of object (`user`, `api_key`, …) and ids of it, returns how those
            are called that it knows. Default: names that stand in the values of events.
        search: called with a text that was searched, returns ids of whatever is called so.
        title: of the page. Default: "Audit log" in the language.
        header: markup above the page, or a function that makes it for a request.
        footer: markup below it.
        stylesheets: paths of style sheets of the same host, after the application's own.
        frame_ancestors: who may show the page in a frame, as Content-Security-Policy says it.
        language: of whom `viewer` and the address say nothing: "en", "de".
        seconds: that a query may take, before the page says that it took too long.

    Raises:
        InvalidInput: the key is malformed, or there is no such language.

    Example:
        >>> def viewer(request):  # doctest: +SKIP
        ...     user = request.user
        ...     return Access(viewer_id=user.id, organizations={user.team_id: user.team_name})
        >>> api.mount("/audit", app(connect=dsn, key=key, viewer=viewer))  # doctest: +SKIP
    """
    from auditdb.web import api, errors, export, pages

    mint(key, "viewer", "organization")  # Refused here, and not at the first request.
    words(language)
    if not callable(viewer):
        raise InvalidInput("viewer is no function; it returns who looks at the page")
    site = Site(
        connect, key, viewer, names, search, title, header, footer, tuple(stylesheets),
        frame_ancestors, language, seconds,
    )  # fmt: skip
    routes = [
        Route(path, errors.guarded(site, endpoint, kind), methods=["GET"])
        for path, endpoint, kind in (
            ("/", pages.log, "html"),
            ("/logged", pages.logged, "html"),
            ("/event/{place}", pages.event, "html"),
            ("/events.csv", export.csv, "html"),
            ("/events.jsonl", export.jsonl, "html"),
            ("/api/events", api.events, "json"),
            ("/api/events/{place}", api.event, "json"),
            ("/api/logged", api.logged, "json"),
        )
    ]
    routes += [
        Route("/style.css", pages.style, methods=["GET"]),
        Route("/api/openapi.json", api.openapi, methods=["GET"]),
    ]
    return Starlette(routes=routes, exception_handlers={404: errors.not_found(site)})
