"""WSGI: a middleware that sets the context of each request, for Flask and others.

The context applies to all writes during the request: `auditdb.context(conn)`, `auditdb.record`, an
instrumented engine. `get_context` names the actor, or later `auditdb.update_context`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from auditdb.write.request import RequestScope, check_arguments, request_claim, seen_in_environ
from auditdb.write.scope import Scope, in_force, in_turns

Environ: TypeAlias = dict[str, Any]
App: TypeAlias = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class AuditMiddleware:
    """Puts a context in force for each request, until the server closes its response.

    It says `source` `web`, and in `details` the client's `ip`, `user_agent`, `request_id` (header
    X-Request-ID), `method`, and under Flask `route`, the pattern of the path. Paths are never
    recorded: they may hold tokens.

    Args:
        app: the application.
        get_context: is called with the environ and returns what else the context says, as
            `auditdb.context` takes it, or None. Its `details` add to those above; a None among
            them leaves one out.
        proxies: how many proxies of your own stand before the application, each of which appends
            to X-Forwarded-For. By default that header is not believed, and `ip` is REMOTE_ADDR.

    Raises:
        TypeError: `get_context` cannot be called, or `proxies` is no number.

    Example:
        >>> app.wsgi_app = AuditMiddleware(app.wsgi_app)  # doctest: +SKIP
    """

    def __init__(
        self,
        app: App,
        get_context: Callable[[Environ], Mapping[str, Any] | None] | None = None,
        *,
        proxies: int = 0,
    ) -> None:
        check_arguments(get_context, proxies)
        self.app = app
        self._get_context = get_context
        self._proxies = proxies

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve a request."""
        given = None if self._get_context is None else self._get_context(environ)
        claim = request_claim("get_context", seen_in_environ(environ, self._proxies), given)
        scope = RequestScope(claim, lambda: _route(environ))
        with in_force(scope):
            body = self.app(environ, start_response)
        # Servers treat lists and files in special ways, and neither runs more code of the
        # application.
        file = environ.get("wsgi.file_wrapper")
        if isinstance(body, list | tuple) or (isinstance(file, type) and isinstance(body, file)):
            return body
        return _Body(body, scope)


class _Body:
    """A response that is made and closed under the context of its request."""

    def __init__(self, body: Iterable[bytes], scope: Scope) -> None:
        self._body = body
        self._in_force = in_turns(scope)

    def __iter__(self) -> Iterator[bytes]:
        with self._in_force:
            parts = iter(self._body)
        while True:
            # Not while the server sends: its thread may serve another request meanwhile.
            with self._in_force:
                try:
                    part = next(parts)
                except StopIteration:
                    return
            yield part

    def close(self) -> None:
        """End the response."""
        if hasattr(self._body, "close"):
            with self._in_force:
                self._body.close()


def _route(environ: Environ) -> object:
    """Return the rule that Flask has matched."""
    return getattr(getattr(environ.get("werkzeug.request"), "url_rule", None), "rule", None)
