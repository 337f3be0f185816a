"""The canonical bytes of an event, as `audit.canonical` makes them in SQL; docs/export.md says how.

Export, seal and archive use these bytes. A line begins with the version of the encoding. Another
set of columns would be another version.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any

from auditdb.errors import InvalidInput
from auditdb.read.event import Event

VERSION = 1
# The columns after version and series, in the order of the bytes; jsonb columns are last.
TEXTS = (
    "id", "occurred_at", "transaction_id", "action", "result", "actor_id", "actor_type",
    "impersonator_id", "db_user", "db_role", "organization_id", "target_type", "target_id",
    "subject_id", "source", "captured_from",
)  # fmt: skip
VALUES = ("old_values", "new_values", "details")
COLUMNS = ("version", "series", *TEXTS, *VALUES)
# No value contains these bytes: in a text each quote follows a backslash, and jsonb prints a space
# after each comma.
_MARKS = [f',"{name}":'.encode() for name in VALUES]
_BEGIN = re.compile(
    rb'{"version":1,"series":(?:null|"([0-9a-f-]{36})"),"id":"(-?[0-9]+)","occurred_at":"([^"]+)"'
)
_RFC3339 = re.compile(r"[0-9]{4}-[^ ]+Z")


def line_of(event: Event, series: str | None) -> bytes:
    """Return the canonical bytes of an event, without an end of line.

    The numbers in its values must be as `loads` reads them: a float cannot hold each of them.

    Args:
        event: its `occurred_at` may be text, for a time that datetime cannot hold.
        series: the key of the series of its transaction.

    Raises:
        InvalidInput: a value is not JSON, or contains half a surrogate pair.
    """
    parts = [f'{{"version":{VERSION},"series":{_text(series)}']
    for name in TEXTS:
        value = getattr(event, name)
        if name == "occurred_at":
            value = time_of(value)
        elif name in ("id", "transaction_id"):
            value = str(value)
        parts.append(f'"{name}":{_text(value)}')
    parts += [f'"{name}":{dumps(getattr(event, name))}' for name in VALUES]
    try:
        return f"{','.join(parts)}}}".encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"event {event.id} contains half a surrogate pair: not valid text"
                           ) from error  # fmt: skip


def fields_of(line: bytes) -> dict[str, Any]:
    """Parse the bytes: each column as text or null, jsonb columns as JSON text.

    Raises:
        InvalidInput: they are not the bytes of an event, or of another version.
    """
    if _BEGIN.match(line) is None:
        raise InvalidInput(f"{line[:40]!r} begins no event of version {VERSION}")
    ends = [line.find(mark) for mark in _MARKS]
    if -1 in ends:
        raise InvalidInput(f"{line[:40]!r} is cut off")
    fields: dict[str, Any] = json.loads(line[: ends[0]] + b"}")
    for name, mark, start, end in zip(VALUES, _MARKS, ends, [*ends[1:], -1], strict=True):
        fields[name] = line[start + len(mark) : end].decode()
    return fields


def place_of(line: bytes) -> tuple[str, str | None]:
    """Return the unique key of an event, and its time.

    Returns:
        The key, and the time in RFC 3339, or None for a time that RFC 3339 cannot write.

    Raises:
        InvalidInput: they are not the bytes of an event, or of another version.
    """
    found = _BEGIN.match(line)
    if found is None:
        raise InvalidInput(f"{line[:40]!r} begins no event of version {VERSION}")
    series, number, at = (part.decode() if part else "" for part in found.groups())
    return key_of(series or None, number), at if _RFC3339.fullmatch(at) else None


def key_of(series: str | None, number: object) -> str:
    """Return the key of an event that is unique across databases: series and id."""
    return f"{series or '-'}:{number}"


def time_of(at: datetime | str) -> str:
    """Return a time in UTC with six digits, as in the bytes; text is returned unchanged."""
    if isinstance(at, str):
        return at
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def loads(text: str | bytes) -> Any:
    """Read JSON of PostgreSQL without loss: numbers with a fraction become Decimals.

    >>> loads('[1, 1.10]')
    [1, Decimal('1.10')]
    """
    try:
        return json.loads(text, parse_float=Decimal)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # By default, int() refuses numbers with thousands of digits.
        return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def dumps(value: Any) -> str:
    """Return JSON as PostgreSQL prints jsonb.

    >>> dumps({"bb": 1, "a": [Decimal("1.10"), None]})
    '{"a": [1.10, null], "bb": 1}'

    Raises:
        InvalidInput: the value is not JSON.
    """
    if isinstance(value, str):
        return encode_basestring(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        members = sorted((len(name.encode(errors="surrogatepass")), name.encode(
            errors="surrogatepass"), name) for name in value)  # fmt: skip
        return f"{{{', '.join(f'{_text(m[2])}: {dumps(value[m[2]])}' for m in members)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(dumps, value))}]"
    if isinstance(value, int | float | Decimal):
        return _number(value)
    raise InvalidInput(f"{type(value).__name__} is not a type of JSON")


def _number(value: int | float | Decimal) -> str:
    """Return a number as PostgreSQL prints it: all its digits, no exponent, no sign of zero."""
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not exact.is_finite():
        raise InvalidInput(f"{value} is not a number of JSON")
    return format(exact if exact else abs(exact), "f")


def _text(value: str | None) -> str:
    return "null" if value is None else encode_basestring(value)
