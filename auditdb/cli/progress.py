"""Progress of long work, on standard error while that is a terminal; nothing otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape

from auditdb.values.plain import plain


class Advance(Protocol):
    """Says that so many more are done, and what is being done now."""

    def __call__(self, n: int = 1, text: str = "", /) -> None:
        """Advance."""


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Advance]:
    """Show how far the work of the block is, and leave nothing of it on the terminal.

    Args:
        what: what is counted, such as `events`.
        total: how many there are, if that is known.

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
