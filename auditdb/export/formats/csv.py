"""CSV with a column for each value of the canonical bytes, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re

from auditdb.export.canonical import COLUMNS, VALUES, fields_of
from auditdb.export.formats.base import Format
from auditdb.values.plain import as_cell, as_json_cell


def _row(cells: list[str]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="").writerow(cells)
    return out.getvalue().encode()


# A text that needs no escaping.
_HARMLESS = re.compile(r"[{\w ][ !#-:<-~\"]*", re.ASCII)


def _cell(name: str, value: object) -> str:
    if not isinstance(value, str):
        return as_cell(value)
    if name in VALUES and value == "null":
        return ""
    if _HARMLESS.fullmatch(value):
        return value
    return as_json_cell(value) if name in VALUES and value[:1] in ("{", "[") else as_cell(value)


def _convert(line: bytes) -> bytes:
    fields = fields_of(line)
    return _row([_cell(name, fields[name]) for name in COLUMNS])


CSV = Format(
    name="csv",
    convert=_convert,
    media_type="text/csv; charset=utf-8; header=present",
    suffix="csv",
    head=_row(list(COLUMNS)) + b"\n",
)
