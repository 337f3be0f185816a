"""Progress of long work, on standard error if that is a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape

from auditdb.values.plain import plain


class Advance(Protocol):
    """Called with the number of things done since the last call, and the current one."""

    def __call__(self, n: int = 1, text: str = "", /) -> None:
        """Advance."""


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Advance]:
    """Show the progress of the work in the block, and remove it from the terminal at the end.

    Args:
        what: what is counted, such as `events`.
        total: the number of things, if known.

    Example:
        >>> with progress("tables", 300) as advance:  # doctest: +SKIP
        ...     advance(1, "public.invoice")  # "1 of 300 tables: public.invoice"
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda n=1, text="", /: None
        return
    done = 0

    def line(text: str) -> str:
        count = f"{done:,}" if total is None else f"{done:,} of {total:,}"
        return escape(plain(f"{count} {what}{': ' if text else ''}{text}"))

    with console.status(line("")) as status:

        def advance(n: int = 1, text: str = "", /) -> None:
            nonlocal done
            done += n
            status.update(line(text))

        yield advance
