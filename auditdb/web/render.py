"""Makes HTML of templates, in the words and the look that a visit asks for."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from auditdb._version import __version__
from auditdb.values.plain import plain
from auditdb.web.site import Site, Visit, root_of
from auditdb.web.words import languages, words


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("auditdb.web", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["plain"] = plain
    return environment


@cache
def _style() -> str:
    return _templates().get_template("style.css").render()


async def style(request: Request) -> Response:
    """Return the style sheet."""
    del request
    return Response(
        _style(), media_type="text/css", headers={"Cache-Control": "max-age=3600"}
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
        "root": root_of(request),
        "header": Markup(site.piece(site.header, request)),
        "footer": Markup(site.piece(site.footer, request)),
        "stylesheets": site.stylesheets,
        "visit": visited,
        "languages": languages(),
        "version": __version__,
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
