"""What the server makes of an event for an export: the parts of a line of JSON, or cells of CSV."""

from __future__ import annotations

from dataclasses import fields

from auditdb.read.event import Event
from auditdb.read.query import SERIES
from auditdb.values.blocks import PART

NAMES = [field.name for field in fields(Event)]
_COLUMNS = {"series_id": SERIES}
_JSON = {"old_values", "new_values", "details"}
JSON_COLUMNS = frozenset(number for number, name in enumerate(NAMES) if name in _JSON)
# As datetime.isoformat() has it. Of infinity nothing but its name is known.
_TIME = (
    "coalesce(replace(to_char(occurred_at, 'YYYY-MM-DD\"T\"HH24:MI:SS.USTZH:TZM'), '.000000', ''), "
    "occurred_at::text)"
)
COPY = {
    "jsonl": "format csv, delimiter E'\\x02', quote E'\\x01', null 'null', encoding 'UTF8'",
    "escape": "format csv, force_quote *, encoding 'UTF8'",
    "keep": "format csv, encoding 'UTF8'",
}


def _parts_of_json() -> str:
    """Return what a line of JSON consists of; a join within the server would cost it more."""
    parts = []
    for number, name in enumerate(NAMES):
        parts.append("'{}\"{}\": '".format(", " if number else "{", name))
        if name == "occurred_at":
            parts += ["'\"'", _TIME, "'\"'"]
        else:
            is_text = name not in {"id", "transaction_id", "series_id", *_JSON}
            parts.append(f"to_json({name})" if is_text else _COLUMNS.get(name, name))
    return ", ".join([*parts, "'}'"])


def _cells(empty: str) -> str:
    return ", ".join(
        _TIME if name == "occurred_at" else f"{empty}({_COLUMNS.get(name, name)}::text, '')"
        for name in NAMES
    )


SELECT = {"jsonl": _parts_of_json(), "escape": _cells("coalesce"), "keep": _cells("nullif")}


def event_of(row: bytes) -> tuple[int, int]:
    """Return the id and the transaction of an event, of a row that `SELECT["jsonl"]` made."""
    parts = row.split(PART, 8)
    return int(parts[1]), int(parts[7])
