"""Requests that change something, protected against cross-site request forgery.

A form holds a token that is signed for its viewer. Browsers send Sec-Fetch-Site, older ones Origin,
which show the site of the sender. Requests without a form must be JSON, which forms cannot send.
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

# Lifetime of a form in seconds, and maximum size of a request in bytes.
_LIFETIME, _LONGEST = 12 * 3600, 10_000


def form_token(visited: Visit, now: float | None = None) -> str:
    """Return the token of a form for this viewer."""
    expires = str(int(time.time() if now is None else now) + _LIFETIME)
    return f"{expires}.{_mac(visited, expires)}"


def _mac(visited: Visit, expires: str) -> str:
    said = json.dumps(["auditdb form", str(visited.access.viewer_id), expires])
    return hmac.new(visited.site.key.encode(), said.encode(), hashlib.sha256).hexdigest()


async def read_form(visited: Visit) -> dict[str, str]:
    """Return the fields of a form of this viewer.

    Raises:
        Problem: it is from another site, of another viewer, or expired.
        InvalidInput: it is not a form.
    """
    _refuse_other_sites(visited.request, "application/x-www-form-urlencoded", {"null"})
    try:
        fields = parse_qs((await _body(visited.request)).decode(), keep_blank_values=True)
    except ValueError as error:
        raise InvalidInput("the request is not a form") from error
    given = {name: values[0].strip() for name, values in fields.items()}
    expires, _, mac = given.pop("token", "").partition(".")
    is_ours = hmac.compare_digest(mac.encode(), _mac(visited, expires).encode())
    if not is_ours or int(expires) < time.time():
        raise Problem("form")
    return given


async def read_json(visited: Visit) -> dict[str, Any]:
    """Return the JSON object of a request; an empty body is an empty object.

    Raises:
        Problem: it is from another site.
        InvalidInput: it is not a JSON object.
    """
    request = visited.request
    _refuse_other_sites(request, None if request.method == "DELETE" else "application/json", set())
    body = await _body(request)
    try:
        given = json.loads(body) if body.strip() else {}
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise InvalidInput("the request is not a JSON object")
    return given


def _refuse_other_sites(request: Request, media_type: str | None, origins: set[str]) -> None:
    """Refuse requests from another site, or with another media type.

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
        raise InvalidInput(f"the media type of the request must be {media_type}")


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST:
            raise InvalidInput(f"the request is longer than {_LONGEST} bytes")
    return body
