"""The settings of an application, and the visit of somebody whom the host lets in."""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import Response

from auditdb.connection.begin import Row, Statement
from auditdb.read.viewer import Auditor, Viewer
from auditdb.web.access import Access
from auditdb.web.address import Address
from auditdb.web.names import Names, Search
from auditdb.web.reading import Connect, Reading, opened, reading
from auditdb.web.words import Words, nearest, words

if TYPE_CHECKING:
    from auditdb.archive.read import Archive

# Organisations that are shown together; of more, one is chosen.
TOGETHER = 20
# Times as long as a query that a page may take, before what is left of it takes too long.
PATIENCE = 3

Answer: TypeAlias = Access | Response | None
# A piece of the host's page: markup, or what makes it for a request.
Piece: TypeAlias = str | Callable[[Request], str | None]


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
    stream_secrets: tuple[str, ...] = ()
    archive: Archive | None = None
    exporting: Counter[str] = field(default_factory=Counter)
    # By question: until when it is kept, and the answer; see `beside.py`.
    kept: dict[tuple[str, str], tuple[float, list[Row]]] = field(default_factory=dict)

    def piece(self, piece: Piece, request: Request) -> str:
        """Return a piece of the host's page; None is nothing."""
        made = piece(request) if callable(piece) else piece
        if inspect.isawaitable(made):
            raise TypeError("header and footer are not asynchronous; return their markup")
        return "" if made is None else made

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
    began: float = field(default_factory=time.monotonic)

    @cached_property
    def root(self) -> str:
        """The path under which the application is mounted."""
        return root_of(self.request)

    @property
    def is_together(self) -> bool:
        """Whether several organisations can be shown together."""
        return 1 < len(self.access.names) <= TOGETHER

    @cached_property
    def organizations(self) -> dict[str, str]:
        """The organisations that are asked for, of those that the viewer may ask for."""
        known = self.access.names
        chosen = self.address["organization"]
        if not chosen:
            return known if len(known) <= TOGETHER else dict(islice(known.items(), 1))
        return {chosen: known[chosen]} if chosen in known else {}

    def principal(self, organization_id: str) -> Viewer | Auditor:
        """Return as whom an organisation's log is read."""
        if self.access.is_staff:
            return Auditor(organization_id)
        return Viewer(self.site.key, self.access.viewer_id, organization_id, 60)

    @property
    def seconds_left(self) -> float:
        """How long the next query may take."""
        left = PATIENCE * self.site.seconds - (time.monotonic() - self.began)
        return max(min(self.site.seconds, left), 0.01)

    @asynccontextmanager
    async def reading(
        self, conn: Any, organization_id: str, *first: Statement
    ) -> AsyncIterator[Reading]:
        """Open a transaction that reads an organisation's log; some statements may come first."""
        principal = self.principal(organization_id)
        async with reading(conn, principal, self.seconds_left, *first) as read:
            yield read

    def opened(self) -> Any:
        """Open a connection."""
        return opened(self.site.connect)


def root_of(request: Request) -> str:
    """Return the path under which the application is mounted, which names no other host."""
    path = str(request.scope.get("root_path", "")).strip("/")
    return f"/{quote(path)}" if path else ""


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
    own = words(address["language"] or nearest(access.language) or site.language)
    return Visit(site, request, access, address, own, address.zone(access))
