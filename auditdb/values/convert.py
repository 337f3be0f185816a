"""Converts input to values that PostgreSQL can hold: identifiers to text, details to JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeAlias, overload
from uuid import UUID

from auditdb.errors import InvalidInput

Id: TypeAlias = str | int | UUID

_DEEPEST, _LONGEST = 100, 2000
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


def is_text(value: str) -> bool:
    """Return whether PostgreSQL can store it: no NUL, no half of a surrogate pair."""
    return not _NO_TEXT.search(value)


@overload
def as_text(name: str, value: Id) -> str: ...


@overload
def as_text(name: str, value: Id | None) -> str | None: ...


def as_text(name: str, value: Id | None) -> str | None:
    """Return an identifier as text.

    Raises:
        InvalidInput: it is not a string, integer or UUID, or PostgreSQL cannot store the text.

    >>> as_text("target_id", 42)
    '42'
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        raise InvalidInput(
            f"{name} is a {type(value).__name__}; give a string, an integer or a UUID"
        )
    text = str.__str__(value) if isinstance(value, str) else str(value)
    if not is_text(text):
        raise InvalidInput(f"{name} holds a NUL or half a surrogate pair, which is not text")
    return text


def from_json(data: bytes | str) -> Any:
    """Parse JSON from PostgreSQL; return the text itself if Python cannot hold it.

    One event must not make a page fail: a number of 5,000 digits becomes a Decimal, and too deeply
    nested JSON stays text.

    >>> from_json('{"n": 1}')
    {'n': 1}
    """
    try:
        return json.loads(data, parse_int=_number)
    except RecursionError:
        return data if isinstance(data, str) else bytes(data).decode()


def _number(digits: str) -> int | Decimal:
    # sys.get_int_max_str_digits() is 4,300 by default.
    return int(digits) if len(digits) < 4000 else Decimal(digits)


def json_value(value: Any, around: tuple[int, ...] = ()) -> Any:
    r"""Convert any value to one that JSON can hold; values of a request may be anything.

    Other types become their `str()`. A NUL or half a surrogate pair becomes U+FFFD. Values deeper
    than 100 levels, or inside themselves, become `[too deep]`.

    Args:
        value: the value.
        around: the ids of the objects around it.

    >>> json_value({"path": "/a\x00b", "took": float("nan")})
    {'path': '/a�b', 'took': 'nan'}
    """
    if type(value) is str:
        return _NO_TEXT.sub("\ufffd", value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        # What Python and PostgreSQL refuse to turn into digits.
        return value if value.bit_length() < _LONGEST else hex(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        if len(around) >= _DEEPEST or id(value) in around:
            return "[too deep]"
        around = (*around, id(value))
        if isinstance(value, Mapping):
            return {json_value(str(k)): json_value(item, around) for k, item in value.items()}
        return [json_value(item, around) for item in value]
    text = str.__str__(value) if isinstance(value, str) else str(value)
    return _NO_TEXT.sub("\ufffd", text)
