"""What every format is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Makes of an event the bytes that go out, without an end of line.

    Attributes:
        name: as in `--format`.
        convert: makes them of the canonical bytes of the event, which the server makes.
        media_type: of lines.
        array_media_type: of an array of JSON that holds the events, where there is one.
        suffix: of a file.
        head: what a file begins with, with its end of line.
    """

    name: str
    convert: Callable[[bytes], bytes]
    media_type: str = "application/x-ndjson"
    array_media_type: str | None = None
    suffix: str = "jsonl"
    head: bytes = b""
