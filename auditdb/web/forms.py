"""Requests that change something: of the page itself, and not of another site in its viewer's name.

A form holds a token that is signed for its viewer. A browser says by Sec-Fetch-Site, an older one
by Origin, whose page sent a request. What is no form is JSON, which no form of another site sends.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request

from auditdb.errors import InvalidInput
from auditdb.web.problem import Problem
from auditdb.web.site import Visit

# Seconds after which a form is to be opened again, and bytes of a request.
_LIFETIME, _LONGEST = 12 * 3600, 10_000


def form_token(visited: Visit, now: float | None = None) -> str:
    """Return what a form of this viewer holds, and no other site can know."""
    expires = str(int(time.time() if now is None else now) + _LIFETIME)
    return f"{expires}.{_mac(visited, expires)}"


def _mac(visited: Visit, expires: str) -> str:
    said = json.dumps(["auditdb form", str(visited.access.viewer_id), expires])
    return hmac.new(visited.site.key.encode(), said.encode(), hashlib.sha256).hexdigest()


async def read_form(visited: Visit) -> dict[str, str]:
    """Return the fields of a form that this viewer was given.

    Raises:
        Problem: it is of another site, of another viewer, or old.
        InvalidInput: it is none.
    """
    _refuse_other_sites(visited.request, "application/x-www-form-urlencoded", {"null"})
    try:
        fields = parse_qs((await _body(visited.request)).decode(), keep_blank_values=True)
    except ValueError as error:
        raise InvalidInput("the request is no form") from error
    given = {name: values[0].strip() for name, values in fields.items()}
    expires, _, mac = given.pop("token", "").partition(".")
    is_ours = hmac.compare_digest(mac.encode(), _mac(visited, expires).encode())
    if not is_ours or int(expires) < time.time():
        raise Problem("form")
    return given


async def read_json(visited: Visit) -> dict[str, Any]:
    """Return the object of JSON that a request holds; none is an empty one.

    Raises:
        Problem: it is of another site.
        InvalidInput: it is none.
    """
    request = visited.request
    _refuse_other_sites(request, None if request.method == "DELETE" else "application/json", set())
    body = await _body(request)
    try:
        given = json.loads(body) if body.strip() else {}
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise InvalidInput("the request is no object of JSON")
    return given


def _refuse_other_sites(request: Request, media_type: str | None, origins: set[str]) -> None:
    """Refuse what another site sends, or sends in another form.

    Args:
        request: what came.
        media_type: what it has to be.
        origins: what a browser without Sec-Fetch-Site may say beside the own one; of a page
            without a referrer, as this one is, it says "null".
    """
    headers = request.headers
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    is_own = origin is None or origin in origins or urlsplit(origin).netloc == headers.get("host")
    if site != "same-origin" if site is not None else not is_own:
        raise Problem("form")
    sent = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type is not None and sent != media_type:
        raise InvalidInput(f"the request is to be {media_type}")


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST:
            raise InvalidInput(f"the request is longer than {_LONGEST} bytes")
    return body
