"""The context of a request, for any framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from auditdb.write.claim import Claim, ContextFields, make_claim
from auditdb.write.scope import Scope, current_claim

# Length limits for values from a client.
_LONGEST = {"ip": 100, "user_agent": 300, "request_id": 200, "method": 50}


class RequestScope(Scope):
    """The scope of a request, whose route is known once the framework has found it."""

    def __init__(self, claim: Claim, route: Callable[[], object]) -> None:
        outer = current_claim()
        super().__init__(claim if outer is None else outer.with_inner(claim))
        self._route = route

    @property
    def claim(self) -> Claim:
        """Who acts now."""
        route = self._route()
        if not isinstance(route, str) or not route:
            return self._claim
        return Claim(details={"route": route}).with_inner(self._claim)


def check_arguments(get_context: object, proxies: object) -> None:
    """Refuse invalid arguments of a middleware, before the first request.

    Raises:
        TypeError: the message says what to give.
    """
    if get_context is not None and not callable(get_context):
        raise TypeError(f"get_context is {get_context!r}; give a function")
    if type(proxies) is not int or proxies < 0:
        raise TypeError(f"proxies is {proxies!r}; give the number of your own proxies, such as 1")


def request_claim(function: str, seen: Mapping[str, str], given: Mapping[str, Any] | None) -> Claim:
    """Return the claim of a request.

    Args:
        function: what takes what was given, for messages.
        seen: what the request says of itself, as in `request_details`.
        given: fields of a context that the application says; its details add to what was seen, a
            None among them leaves one out.

    Raises:
        TypeError: a field is misspelt.
        InvalidInput: a value is invalid.
    """
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(
            f"{function} returned a {type(given).__name__}; return a mapping, such as "
            "{'actor_id': 7}"
        )
    fields: ContextFields = {"source": "web", "details": request_details(seen)}
    said = make_claim(function, cast(ContextFields, given or {}))
    claim = make_claim(function, fields).with_inner(said)
    left = {name: value for name, value in claim.details.items() if value is not None}
    return replace(claim, details=left)


def request_details(seen: Mapping[str, str]) -> dict[str, str]:
    r"""Return what a request says of itself, such as its `ip`, as details of a context.

    Control characters are replaced and long texts cut, so that nothing that a client sends makes
    the action fail. What is empty is left out.

    >>> request_details({"ip": "203.0.113.9", "user_agent": "curl\0", "request_id": ""})
    {'ip': '203.0.113.9', 'user_agent': 'curl?'}
    """
    return {name: _printable(text)[: _LONGEST.get(name)] for name, text in seen.items() if text}


def seen_in_environ(environ: Mapping[str, Any], proxies: int) -> dict[str, str]:
    """Return what a WSGI environ, or META of a request of Django, says of a request.

    Args:
        environ: it.
        proxies: how many proxies of the application's own append to X-Forwarded-For.
    """
    peer, forwarded = environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", "")
    return {
        "ip": client_ip(peer, forwarded, proxies),
        "user_agent": environ.get("HTTP_USER_AGENT", ""),
        "request_id": environ.get("HTTP_X_REQUEST_ID", ""),
        "method": environ.get("REQUEST_METHOD", ""),
    }


def client_ip(peer: str, forwarded: str, proxies: int) -> str:
    """Return the client's address as the outermost of the application's own proxies saw it.

    Each proxy appends to X-Forwarded-For who called it; what stands before, the client wrote.

    >>> client_ip("10.0.0.2", "6.6.6.6, 203.0.113.9, 10.0.0.1", 2)
    '203.0.113.9'
    >>> client_ip("10.0.0.2", "6.6.6.6", 0)
    '10.0.0.2'
    """
    seen = [part.strip() for part in forwarded.split(",")]
    return (seen[-min(proxies, len(seen))] if proxies > 0 else "") or peer


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
