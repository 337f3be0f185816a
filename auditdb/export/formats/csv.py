"""CSV, a column for each of the canonical bytes, that is safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io

from auditdb.export.canonical import COLUMNS, VALUES, fields_of
from auditdb.export.formats.base import Format
from auditdb.values.plain import as_cell, as_json_cell


def _row(cells: list[str]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="").writerow(cells)
    return out.getvalue().encode()


def _convert(line: bytes) -> bytes:
    fields = fields_of(line)
    return _row([
        as_cell(fields[name]) if name not in VALUES
        else "" if fields[name] == "null" else as_json_cell(fields[name])
        for name in COLUMNS
    ])  # fmt: skip


CSV = Format(
    name="csv",
    convert=_convert,
    media_type="text/csv; charset=utf-8; header=present",
    suffix="csv",
    head=_row(list(COLUMNS)) + b"\n",
)
