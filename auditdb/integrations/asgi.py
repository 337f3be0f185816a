"""ASGI: a middleware that sets the context of each request, for FastAPI, Starlette and others.

The context applies to all writes during the request: `auditdb.context(conn)`, `auditdb.record`, an
instrumented engine. `get_context` names the actor, or later `auditdb.update_context`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from auditdb.write.request import RequestScope, check_arguments, client_ip, request_claim
from auditdb.write.scope import before_now, in_force

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class AuditMiddleware:
    """Puts a context in force for each request and WebSocket, until the last byte is sent.

    It says `source` `web`, and in `details` the client's `ip`, `user_agent`, `request_id` (header
    X-Request-ID), `method`, and `route`, the pattern of the path, where the framework puts a route
    into the scope, as FastAPI and Starlette do. Paths are never recorded: they may hold tokens.

    Args:
        app: the application.
        get_context: is called with the scope and returns what else the context says, as
            `auditdb.context` takes it, or None. Its `details` add to those above; a None among
            them leaves one out.
        proxies: how many proxies of your own stand before the application, each of which appends
            to X-Forwarded-For. By default that header is not believed, and `ip` is the address in
            the scope, which a server such as uvicorn may have taken from a proxy that it trusts.

    Raises:
        TypeError: `get_context` cannot be called, or `proxies` is no number.

    Example:
        >>> def get_context(scope):
        ...     return {"actor_id": scope["session"].get("user_id")}
        >>> app.add_middleware(AuditMiddleware, get_context=get_context)  # doctest: +SKIP
    """

    def __init__(
        self,
        app: App,
        get_context: Callable[[Scope], Mapping[str, Any] | None] | None = None,
        *,
        proxies: int = 0,
    ) -> None:
        check_arguments(get_context, proxies)
        self.app = app
        self._get_context = get_context
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, a WebSocket, or the lifespan."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        given = None if self._get_context is None else self._get_context(scope)
        claim = request_claim("get_context", _seen(scope, self._proxies), given)
        outside = before_now()

        async def send_outside(message: Any) -> None:
            if message["type"] != "http.response.body" or message.get("more_body"):
                await send(message)
                return
            # A server may now begin the next request of the connection, in a copy of the context.
            with outside:
                await send(message)

        with in_force(RequestScope(claim, lambda: getattr(scope.get("route"), "path", None))):
            await self.app(scope, receive, send_outside)


def _seen(scope: Scope, proxies: int) -> dict[str, str]:
    headers: dict[bytes, str] = {}
    for name, value in scope.get("headers", ()):
        text = value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    peer = (scope.get("client") or [""])[0] or ""
    return {
        "ip": client_ip(peer, headers.get(b"x-forwarded-for", ""), proxies),
        "user_agent": headers.get(b"user-agent", ""),
        "request_id": headers.get(b"x-request-id", ""),
        "method": scope.get("method", ""),
    }
