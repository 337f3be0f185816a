"""Escapes many rows of COPY output at once, by the rules of `plain`.

Fast path: plain blocks pass unchanged. Only rows with special characters are split.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterable

from auditdb.values.plain import as_cell, as_json_cell, is_plain

# Delimiter and quote for COPY: JSON contains no control characters.
PART, AROUND = b"\x02", b"\x01"
# What lasts while bytes of UTF-8 and the ends of rows are taken out.
_ALL_BUT_CONTROLS = bytes({*range(256)} - {*range(32), 127} | {10})
_ASCII = bytes(range(128))
_FORMULA = (b"=", b"+", b"-", b"@", *(c.encode() for c in "\uff1d\uff0b\uff0d\uff20"))
_NEXT_FORMULA = re.compile(b";(?=[ \"']*(?:" + b"|".join(map(re.escape, _FORMULA)) + b"))")
_CELL = re.compile(r'(?:^|,)(?:"([^"]*(?:""[^"]*)*)"|([^,"]*))')


def json_lines(rows: Iterable[bytes]) -> bytes:
    r"""Return lines of JSON, safe on a terminal, of rows that consist of parts of JSON.

    >>> json_lines([b'{"a": \x02"\xe2\x80\xae\xc3\xa4"\x02}\n'])
    b'{"a": "\\u202e\xc3\xa4"}\n'
    """
    block = b"".join(rows).translate(None, PART + AROUND)
    for char in _unsafe(block):
        block = block.replace(_bytes(char), json.dumps(char)[1:-1].encode())
    return block


def csv_lines(
    rows: Collection[bytes], json_columns: Collection[int], *, keep_formulas: bool = False
) -> bytes:
    """Return lines of CSV as `as_cell` makes its cells, of rows of CSV.

    Args:
        rows: each ends with a newline; all cells are quoted, unless formulas are kept.
        json_columns: numbers of the columns that hold JSON, the first being 0.
        keep_formulas: escape no formulas.
    """
    block = _plain_rows(b"".join(rows), len(rows), keep_formulas)
    if block is not None:
        return block
    return b"".join(
        _plain_rows(row, 1, keep_formulas) or _any_row(row, json_columns, keep_formulas)
        for row in rows
    )


def _plain_rows(block: bytes, count: int, keep_formulas: bool) -> bytes | None:
    """Return escaped rows of CSV, or None if a row must be handled cell by cell."""
    if block.count(b"\n") != count or block.translate(None, _ALL_BUT_CONTROLS):
        return None
    unsafe = _unsafe(block)
    # Other characters have different escapes in JSON and in text.
    if not all("\u0100" <= char <= "\uffff" for char in unsafe):
        return None
    if not keep_formulas:
        if b";" in block and _NEXT_FORMULA.search(block):
            return None
        # Within a cell each quote is doubled: one that is not begins the cell.
        for start in _FORMULA:
            block = block.replace(b',"' + start, b",\"'" + start)
    for char in unsafe:
        block = block.replace(_bytes(char), char.encode("unicode_escape"))
    return block.replace(b"\n", b"\r\n")


def _any_row(row: bytes, json_columns: Collection[int], keep_formulas: bool) -> bytes:
    """Return a row of CSV, escaped cell by cell."""
    found = _CELL.findall(row.decode("utf-8", "surrogateescape").removesuffix("\n"))
    cells = [quoted.replace('""', '"') or bare for quoted, bare in found]
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_MINIMAL if keep_formulas else csv.QUOTE_ALL).writerow(
        (as_json_cell if number in json_columns and cell[:1] in ("{", "[") else as_cell)(
            cell, keep_formulas=keep_formulas
        )
        for number, cell in enumerate(cells)
    )
    return out.getvalue().encode()


def _unsafe(block: bytes) -> list[str]:
    """Return the characters that are not plain, of those above ASCII and DEL."""
    chars = {"\x7f"} if b"\x7f" in block else set()
    if not block.isascii():
        chars.update(block.translate(None, _ASCII).decode("utf-8", "surrogateescape"))
    return [char for char in chars if not is_plain(char)]


def _bytes(char: str) -> bytes:
    return char.encode("utf-8", "surrogateescape")
