"""The base of all formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Converts an event to its exported bytes, without a line end.

    Attributes:
        name: the name in `--format`.
        convert: converts the canonical bytes of an event.
        media_type: media type of lines.
        array_media_type: media type of a JSON array of the events, if the format has one.
        suffix: suffix of a file.
        head: the first line of a file, with its line end.
    """

    name: str
    convert: Callable[[bytes], bytes]
    media_type: str = "application/x-ndjson"
    array_media_type: str | None = None
    suffix: str = "jsonl"
    head: bytes = b""
