"""The middleware: a request acts as its user until the last byte of its response."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from auditdb.integrations.django.request import RequestScope
from auditdb.write.scope import in_force, in_turns

_logger = logging.getLogger("auditdb")
_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")


class AuditMiddleware:
    """Sets the context of a request. Place it after the authentication middleware."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Any) -> None:
        if not apps.is_installed("auditdb.integrations.django"):
            raise ImproperlyConfigured(
                "AuditMiddleware needs INSTALLED_APPS += ['auditdb.integrations.django']: without "
                "it, changes do not say who acts"
            )
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Serve a request."""
        if self._is_async:
            return self._serve_async(request)
        request._auditdb = scope = RequestScope(request)
        with in_force(scope):
            response = self._get_response(request)
        return _with_stream(response, scope)

    async def _serve_async(self, request: Any) -> Any:
        request._auditdb = scope = RequestScope(request)
        with in_force(scope):
            response = await self._get_response(request)
        return _with_stream(response, scope)

    @property
    def process_view(self) -> Any:
        """The hook that Django calls before the view."""
        return self._ask_async if self._is_async else self._ask

    def _ask(self, request: Any, *_: Any) -> None:
        _load_user(request)
        request._auditdb.ask()

    async def _ask_async(self, request: Any, *_: Any) -> None:
        if request.method not in _SAFE:
            await sync_to_async(_load_user)(request)
        request._auditdb.ask()


def _load_user(request: Any) -> None:
    """Load the user if the view is likely to write, because at the write it is too late."""
    if request.method not in _SAFE:
        try:
            bool(getattr(request, "user", None))
        except Exception:
            # Ignore the error: the view may not need the user. If it does, it fails itself.
            _logger.exception("the user of a request could not be loaded; no actor is recorded")


def _with_stream(response: Any, scope: RequestScope) -> Any:
    """Return the response; a streamed body is made under the same scope."""
    # A file runs no code, and servers send files in special ways.
    if getattr(response, "streaming", False) and getattr(response, "file_to_stream", None) is None:
        stream = _stream_async if getattr(response, "is_async", False) else _stream
        response.streaming_content = stream(response.streaming_content, scope)
    return response


def _stream(content: Any, scope: RequestScope) -> Iterator[Any]:
    acting = in_turns(scope)
    parts = iter(content)
    try:
        while True:
            with acting:
                try:
                    part = next(parts)
                except StopIteration:
                    return
            yield part
    finally:
        with acting:
            if hasattr(parts, "close"):
                parts.close()


async def _stream_async(content: Any, scope: RequestScope) -> AsyncIterator[Any]:
    acting = in_turns(scope)
    parts = aiter(content)
    try:
        while True:
            with acting:
                try:
                    part = await anext(parts)
                except StopAsyncIteration:
                    return
            yield part
    finally:
        with acting:
            if hasattr(parts, "aclose"):
                await parts.aclose()
