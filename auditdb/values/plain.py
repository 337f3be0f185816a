r"""Text that is safe to show: what clients sent may hold escape sequences, or hide what it says.

Control characters could drive a terminal; bidirectional overrides, line separators and characters
without width could show one name as another. They are shown by their codes.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

# Invisible, although str.isprintable() is true: fillers, joiners, variation selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
# What a spreadsheet takes for a formula at the start of a cell, also in full width.
_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
# Spreadsheets in much of Europe split cells at semicolons. They do so even inside quotes of a
# comma-separated line, because these quotes are not at the start of a cell.
_NEXT_FORMULA = re.compile(f";(?=[\\s\"']*{_FORMULA.pattern})")


def is_plain(text: str) -> bool:
    r"""Return whether a text is visible as it is, in one line.

    >>> is_plain("naïve"), is_plain("a\x1b[2J"), is_plain("a\u202eb"), is_plain("a\u3164")
    (True, False, False, False)
    """
    return text.isprintable() and not _INVISIBLE.search(text)


def plain(value: object) -> str:
    r"""Return text that is safe on a terminal, in one line.

    >>> plain("a\x1b[2Jb\u202ec")
    'a\\x1b[2Jb\\u202ec'
    """
    text = str(value)
    if is_plain(text):
        return text
    return "".join(c if is_plain(c) else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun, in the singular or the plural.

    >>> counted(1, "event"), counted(0, "event"), counted(2_000, "leaf", "leaves")
    ('1 event', '0 events', '2,000 leaves')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def plain_json(value: object, *, indent: int | None = None) -> str:
    r"""Return JSON that is safe on a terminal and says the same; times as ISO 8601.

    >>> plain_json({"a": "\x9b\u202e"})
    '{"a": "\\u009b\\u202e"}'
    """
    return _plain_in_json(json.dumps(value, indent=indent, default=_text, ensure_ascii=False))


def _plain_in_json(text: str) -> str:
    if is_plain(text.replace("\n", "")):
        return text
    # JSON escapes newlines inside strings, so the remaining ones are from the indentation.
    return "".join(c if c == "\n" or is_plain(c) else json.dumps(c)[1:-1] for c in text)


def _text(value: Any) -> str:
    """Return a value as text; times as ISO 8601."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def as_cell(value: object, *, keep_formulas: bool = False) -> str:
    r"""Return a cell of CSV: safe on a terminal, and no formula to a spreadsheet.

    >>> as_cell("=HYPERLINK(1)"), as_cell({"a": 1}), as_cell(None)
    ("'=HYPERLINK(1)", '{"a": 1}', '')
    >>> print(as_cell("a;=1"), as_cell({"a": ";=1"}))
    a;'=1 {"a": "\u003b=1"}
    """
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return as_json_cell(plain_json(value), keep_formulas=keep_formulas)
    text = _text(value)
    if keep_formulas:
        return plain(text)
    quote = "'" if _FORMULA.match(text) else ""
    return quote + _NEXT_FORMULA.sub(";'", plain(text))


def as_json_cell(text: str, *, keep_formulas: bool = False) -> str:
    """Return a cell of CSV that holds an object or a list, of its JSON."""
    text = _plain_in_json(text)
    # Inside a string, the escape has the same meaning.
    return text if keep_formulas else _NEXT_FORMULA.sub(r"\\u003b", text)
