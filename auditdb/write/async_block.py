"""Asynchronous blocks, with a clear error for `with` instead of `async with`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NoReturn, ParamSpec, TypeVar

Given = ParamSpec("Given")
Yielded = TypeVar("Yielded")


class AsyncOnly:
    """Refuses `with`."""

    __slots__ = ()

    def __enter__(self) -> NoReturn:
        raise TypeError("the connection is asynchronous: write `async with` instead of `with`")

    def __exit__(self, *error: object) -> None:
        """Never called."""


def async_block(
    function: Callable[Given, AsyncIterator[Yielded]],
) -> Callable[Given, AbstractAsyncContextManager[Yielded]]:
    """Make an asynchronous context manager, as `asynccontextmanager` does, that refuses `with`."""
    make = asynccontextmanager(function)

    class Block(AsyncOnly, AbstractAsyncContextManager[Yielded]):
        def __init__(self, *args: Given.args, **named: Given.kwargs) -> None:
            self._inner = make(*args, **named)

        async def __aenter__(self) -> Yielded:
            return await self._inner.__aenter__()

        async def __aexit__(self, *error: Any) -> bool | None:
            return await self._inner.__aexit__(*error)

    return Block
