"""Encodings: what an event is in each format, and what a file or request of it is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from auditdb.export.place import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """A format as sinks see it.

    Attributes:
        media_type: of its lines.
        suffix: of a file.
        encode: makes the line of an event.
        head: what a file begins with.
    """

    media_type: str
    suffix: str
    encode: Callable[[Row], bytes]
    head: bytes = b""


def _line(row: Row) -> bytes:
    assert row.line is not None
    return row.line


ENCODINGS: dict[str, Encoding] = {
    "jsonl": Encoding(media_type="application/x-ndjson", suffix="jsonl", encode=_line),
}
