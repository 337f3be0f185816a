"""Canonical forms of logged values, equal for equal values.

Settings of a session decide how a value is written in an event: time zone, styles of dates and
intervals, digits of floats. The log keeps the written form.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Hashable
from contextlib import suppress
from decimal import Decimal
from itertools import product
from typing import Any

import psycopg
from psycopg.sql import SQL

# Significant digits that every session sees, unless it asks for fewer still.
_DIGITS = {"double precision": 15, "real": 6}
_TEXTS = ("text", "character varying", "character", "name", "xml", "json", "jsonb", "uuid")
_TIME = re.compile(
    r"(\d{4,})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?"
    r"([+-])(\d\d)(?::?(\d\d))?(?::?(\d\d))?( BC)?"
)
# Types that only the server can parse in every style.
_SPELT = ("interval", "tsrange", "tstzrange", "daterange", "tsmultirange", "tstzmultirange",
          "datemultirange")  # fmt: skip
_ABBREVIATION = re.compile(r"\d ([A-Z]{2,5})\b(?<!BC)")
_STYLES = tuple(product(("ISO, MDY", "SQL, DMY", "SQL, MDY", "German"),
                        ("postgres", "sql_standard")))  # fmt: skip
_DECODER = json.JSONDecoder(parse_float=Decimal)
WITHHELD = ("[redacted", "[unreadable")


def parse(text: str | None) -> Any:
    """Return JSON with its numbers as they are written."""
    return None if text is None else _DECODER.decode(text)


def canonical(value: Any, base: str) -> Hashable:
    """Return a value of an event or of a row so that equal ones are equal.

    Args:
        value: as parsed from JSON.
        base: the type of its column, without domains, as PostgreSQL writes it.

    Example:
        >>> canonical("2026-01-01T01:00:00+01:00", "timestamp with time zone") == canonical(
        ...     "2026-01-01T00:00:00+00:00", "timestamp with time zone")
        True
        >>> canonical(Decimal("0.30000000000000004"), "double precision") == canonical(
        ...     Decimal("0.3"), "double precision")
        True
        >>> canonical(True, "boolean") == canonical(1, "integer")
        False
    """
    if isinstance(value, str):
        return value if base in _TEXTS else _TIME.sub(_instant, value)
    if isinstance(value, bool) or value is None:
        return ("boolean", value) if value is not None else None
    if isinstance(value, int | Decimal):
        return _rounded(Decimal(value), _DIGITS.get(base))
    element = base.removesuffix("[]")
    if isinstance(value, list):
        return ("list", *(canonical(v, element) for v in value))
    return ("object", *((key, canonical(value[key], base)) for key in sorted(value)))


def _rounded(number: Decimal, digits: int | None) -> Decimal:
    if digits is None:
        return number
    # Round like the server: the exact binary value, not its shortest digits.
    bits = float(number)
    if digits == _DIGITS["real"]:
        with suppress(OverflowError):
            (bits,) = struct.unpack("f", struct.pack("f", bits))
    return Decimal(f"{bits:.{digits - 1}e}")


def _instant(match: re.Match[str]) -> str:
    """Return a time with its zone as microseconds, for any year that PostgreSQL knows."""
    year, month, day, hour, minute, second = (int(match[n]) for n in range(1, 7))
    if match[12]:
        year = 1 - year
    # Days from 0000-03-01, by the calendar of now for all times.
    year -= month <= 2
    days = 365 * year + year // 4 - year // 100 + year // 400
    days += (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    offset = int(match[9]) * 3600 + int(match[10] or 0) * 60 + int(match[11] or 0)
    seconds = days * 86400 + hour * 3600 + minute * 60 + second
    seconds -= offset if match[8] == "+" else -offset
    return f"@{seconds * 1_000_000 + int((match[7] or '').ljust(6, '0'))}"


def is_withheld(value: Any) -> bool:
    """Return whether a value is redacted, at least in part."""
    if isinstance(value, str):
        return any(mark in value for mark in WITHHELD)
    if isinstance(value, dict):
        return any(map(is_withheld, (*value, *value.values())))
    return isinstance(value, list) and any(map(is_withheld, value))


class Spelling:
    """Asks the server whether two texts are the same value; results are cached."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        """Ask on a connection, in its transaction."""
        self._conn = conn
        self._known: dict[tuple[str, str, str], bool] = {}
        #: Ambiguous values: IST is the time of India, of Israel and of Ireland.
        self.unread = 0

    def same(self, logged: Any, stored: Any, base: str) -> bool:
        """Return whether the values of event and row are equal, in another form or type."""
        if isinstance(logged, list) and isinstance(stored, list):
            element = base.removesuffix("[]")
            return len(logged) == len(stored) and all(
                canonical(a, element) == canonical(b, element) or self.same(a, b, element)
                for a, b in zip(logged, stored, strict=True)
            )
        if logged is None or stored is None:
            return False
        if not isinstance(logged, str) or not isinstance(stored, str):
            # Of a column that had another type: 5 and "5". In JSON they are two values.
            return base not in ("json", "jsonb") and _plain(logged) == _plain(stored)
        if base == "money":
            return _units(logged) == _units(stored)
        if base not in _SPELT:
            return False
        key = (logged, stored, base)
        if key not in self._known:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[key] = self._ask(*key)
        is_unread = not self._known[key] and _ABBREVIATION.search(logged) is not None
        self.unread += is_unread
        return self._known[key] or is_unread

    def _ask(self, logged: str, stored: str, base: str) -> bool:
        type_ = SQL(base)  # One of _SPELT.
        # As texts, because "=" treats a month as 30 days.
        query = SQL(
            "select %s::pg_catalog.{0}::pg_catalog.text"
            " operator(pg_catalog.=) %s::pg_catalog.{0}::pg_catalog.text"
        )
        for dates, intervals in _STYLES:
            try:
                with self._conn.transaction(force_rollback=True):
                    cursor = psycopg.Cursor(self._conn)
                    cursor.execute(
                        "select pg_catalog.set_config('DateStyle', %s, true),"
                        " pg_catalog.set_config('IntervalStyle', %s, true)", (dates, intervals)
                    )  # fmt: skip
                    row = cursor.execute(query.format(type_), (logged, stored)).fetchone()
            except psycopg.DataError:
                continue
            if row == (True,):
                return True
        return False


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)


def _units(money: str) -> tuple[bool, str]:
    return "-" in money or "(" in money, re.sub(r"\D", "", money)
