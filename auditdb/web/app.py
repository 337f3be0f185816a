"""The application, made of what the host says."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route

from auditdb.connection.address import check
from auditdb.errors import InvalidInput
from auditdb.export.sinks.webhook import check_masters
from auditdb.read.token import mint
from auditdb.web import api, export, pages, since, streams
from auditdb.web.guard import Headers, failed, guarded, not_found
from auditdb.web.names import Names, Search
from auditdb.web.reading import Connect
from auditdb.web.render import style
from auditdb.web.site import Answer, Piece, Site
from auditdb.web.words import words

if TYPE_CHECKING:
    from auditdb.archive.read import Archive


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
    stream_secret: str | Sequence[str] = (),
    archive: Archive | None = None,
) -> Starlette:
    """Return the page on which an organisation's admin reads the log: an ASGI application.

    It only reads, but for `audit.exported` and `audit.viewed`, and for streams where there is a
    `stream_secret`; it sets no cookie, and needs no JavaScript.

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
        stream_secret: lets admins have their events sent to an address of theirs; it signs what is
            sent, and is that of `auditdb export --all`. A list while one takes the place of the
            other, the new one first. Default: there are no streams.
        archive: where months are that were dropped from the database, `auditdb.archive.Archive`:
            lists, events and exports go on there, with the same right; signals do not.

    Raises:
        InvalidInput: the key or the address is malformed, there is no such language, or another
            argument is none.

    Example:
        >>> def viewer(request):  # doctest: +SKIP
        ...     user = request.user
        ...     return Access(viewer_id=user.id, organizations={user.team_id: user.team_name})
        >>> api.mount("/audit", app(connect=dsn, key=key, viewer=viewer))  # doctest: +SKIP
    """
    mint(key, "viewer", "organization")  # Refused here, and not at the first request.
    words(language)
    if isinstance(connect, str):
        check(connect)
    elif not callable(connect):
        raise InvalidInput("connect is neither an address nor a function that gives a connection")
    if not callable(viewer):
        raise InvalidInput("viewer is no function; it returns who looks at the page")
    if isinstance(stylesheets, str):
        raise InvalidInput("stylesheets is a string; give a list of paths")
    if re.search(r"[^\x21-\x7e ]|[;,]", frame_ancestors):
        raise InvalidInput(f"frame_ancestors is {frame_ancestors!r}; give sources, such as 'self'")
    if not 0 < seconds < 1_000_000:
        raise InvalidInput(f"seconds is {seconds!r}; give how long a query may take, such as 5")
    site = Site(
        connect, key, viewer, names, search, title, header, footer, tuple(stylesheets),
        frame_ancestors, language, seconds, check_masters(stream_secret), archive,
    )  # fmt: skip
    routes = [
        Route(path, guarded(site, endpoint, kind), methods=[method])
        for method, path, endpoint, kind in (
            ("GET", "/", pages.log, "html"),
            ("GET", "/logged", pages.logged, "html"),
            ("GET", "/event/{place}", pages.event, "html"),
            ("GET", "/events.csv", export.csv, "html"),
            ("GET", "/events.jsonl", export.jsonl, "html"),
            ("GET", "/streams", streams.page, "html"),
            ("POST", "/streams", streams.create, "html"),
            ("POST", "/streams/{name}/{what}", streams.change, "html"),
            ("GET", "/api/events", api.events, "json"),
            ("GET", "/api/events/since", since.since, "json"),
            ("GET", "/api/events/{place}", api.event, "json"),
            ("GET", "/api/logged", api.logged, "json"),
            ("GET", "/api/streams", streams.api_list, "json"),
            ("POST", "/api/streams", streams.api_create, "json"),
            ("DELETE", "/api/streams/{name}", streams.api_change, "json"),
            ("POST", "/api/streams/{name}/{what}", streams.api_change, "json"),
        )
    ]
    routes += [
        Route("/style.css", style, methods=["GET"]),
        Route("/api/openapi.json", api.openapi, methods=["GET"]),
    ]
    application = Starlette(
        routes=routes,
        exception_handlers={404: not_found(site), Exception: failed(site)},
        middleware=[Middleware(Headers, site.headers)],
    )
    # A redirect to an address with or without the last slash would name a host, as the request did.
    application.router.redirect_slashes = False
    return application
