"""The context of a request. It uses the user if that is loaded, but never loads it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from django.apps import apps
from django.utils.functional import LazyObject, empty

from auditdb.integrations.django import conf
from auditdb.write.claim import Claim, make_claim
from auditdb.write.request import request_details, seen_in_environ
from auditdb.write.scope import Scope

_logger = logging.getLogger("auditdb")


def get_context(request: Any) -> dict[str, Any] | None:
    """Return the actor and origin of a request, as arguments of `auditdb.context`.

    The setting `AUDITDB["GET_CONTEXT"]` can name another function. It may call this one and add to
    the result, or return None for no context. It is called before the view, and again after the
    user of the request changed, for instance by a sign-in. That may be in the middle of a
    statement, so it should not query the database.

    Args:
        request: of Django, also under Django REST framework.

    Example:
        >>> def get_context(request):  # doctest: +SKIP
        ...     return {**auditdb.integrations.django.get_context(request), "source": "mobile"}
    """
    user = known_user(request)
    key = getattr(user, "pk", None)
    said: dict[str, Any] = {"source": _source(request), "details": _details(request)}
    if key is not None and getattr(user, "is_authenticated", False):
        said["actor_id"] = str(key)[:200]
        hijacker = _hijacker(request, said["actor_id"])
        if hijacker is not None:
            said["impersonator_id"] = hijacker
    return said


def known_user(request: Any) -> Any:
    """Return the user of a request if it is loaded, else None. Runs no query.

    Example:
        >>> known_user(request).pk  # doctest: +SKIP
        7
    """
    given = vars(request)
    user = given.get("user")
    if isinstance(user, LazyObject):
        user = user._wrapped
        if user is empty:
            # It may be loaded under a middleware that wraps it, or by auser().
            user = given.get("_cached_user", given.get("_acached_user"))
    return user


class RequestScope(Scope):
    """The scope of a request. Its user is known late and may change."""

    def __init__(self, request: Any) -> None:
        super().__init__(Claim())
        self._request = request
        self._said: Claim | None = None
        self._seen: tuple[Any, ...] | None = None
        self._is_asking = False

    @property
    def claim(self) -> Claim:
        """Who acts now."""
        if not self._is_asking and self._is_other():
            try:
                self.ask()
            except Exception:
                # The statement continues, without an actor.
                _logger.exception("AUDITDB['GET_CONTEXT'] failed; the actor is not recorded")
        return self._claim if self._said is None else self._claim.with_inner(self._said)

    def update(self, claim: Claim) -> None:
        """Add values, which stay when the user changes."""
        self._said = claim if self._said is None else self._said.with_inner(claim)

    def ask(self) -> None:
        """Call the function of the project."""
        self._is_asking = True
        self._seen = self._look()
        self._claim = Claim()
        try:
            given: Mapping[str, Any] | None = conf.get_context()(self._request)
            self._claim = make_claim("GET_CONTEXT", given or {})  # type: ignore[arg-type]
        finally:
            self._is_asking = False

    def _look(self) -> tuple[Any, ...]:
        request = self._request
        return (known_user(request), getattr(request, "auth", None), request.resolver_match)

    def _is_other(self) -> bool:
        seen = self._seen
        return seen is None or any(a is not b for a, b in zip(seen, self._look(), strict=True))


def _source(request: Any) -> str:
    """Return `api` if Django REST framework authenticated the request by its own credentials."""
    scheme = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")[0].lower()
    is_api = getattr(request, "auth", None) is not None or scheme not in ("", "basic")
    return "api" if is_api else "web"


def _details(request: Any) -> dict[str, str]:
    match = request.resolver_match
    seen = seen_in_environ(request.META, conf.current().proxies)
    # Paths and query strings may hold tokens; the pattern holds none.
    return request_details({**seen, "route": match.route if match is not None else ""})


def _hijacker(request: Any, user_id: str) -> str | None:
    """Return the impersonator of django-hijack, if the session is loaded."""
    if not apps.is_installed("hijack"):
        return None
    session = vars(request).get("session")
    if session is None or "_session_cache" not in vars(session):
        return None
    history = session.get("hijack_history")
    return str(history[0]) if history and session.get("_auth_user_id") == user_id else None
