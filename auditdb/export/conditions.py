"""Conditions of a subscription, `COLUMN=VALUE` and `COLUMN!=VALUE`.

The database checks them when a subscription is created: sql/export/conditions.sql. The rules are in
docs/export.md, Alerts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from auditdb.export.canonical import VALUES, dumps, fields_of, loads
from auditdb.export.place import Row

# Columns that are known without parsing the bytes.
_OF_ROW = ("action", "result", "organization_id")
_PIECES = re.compile(r"\\([\\,])|(,)|(.)", re.DOTALL)

Path = tuple[str, ...]


class Values:
    """The values of an event, parsed on first use."""

    __slots__ = ("_fields", "_read", "row")

    def __init__(self, row: Row) -> None:
        self.row = row
        self._fields: dict[str, Any] | None = None
        self._read: dict[str, Any] | None = None

    def texts(self, path: Path) -> frozenset[str] | None:
        """Return a value as texts: several for an array, the empty text for a missing value.

        None if the value is unknown, because the values are too long or too deeply nested.
        """
        column, *names = path
        if column in _OF_ROW:
            return frozenset((getattr(self.row, column) or "",))
        if not self.row.line:
            return None
        try:
            return frozenset(_texts(self._column(column), names)) or frozenset(("",))
        except RecursionError:
            return None

    def _column(self, name: str) -> Any:
        if self._fields is None:
            self._fields = fields_of(self.row.line)
        if name not in VALUES:
            return self._fields[name]
        if self._read is None:
            self._read = {}
        if name not in self._read:
            self._read[name] = loads(self._fields[name])
        return self._read[name]


def _texts(value: Any, names: list[str]) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _texts(one, names)
    elif names:
        if isinstance(value, dict):
            yield from _texts(value.get(names[0]), names[1:])
    elif value is not None:
        yield value if isinstance(value, str) else dumps(value)


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition: a value is one of some texts, or is none of them."""

    path: Path
    values: frozenset[str]
    is_negated: bool

    @classmethod
    def of(cls, text: str) -> Condition:
        r"""Parse a condition that the database accepted.

        >>> Condition.of(r"details.tag!=a,b\\,c") == Condition(
        ...     ("details", "tag"), frozenset({"a", "b,c"}), True)
        True
        """
        column, _, value = text.partition("=")
        values = [""]
        for escaped, comma, other in _PIECES.findall(value):
            if comma:
                values.append("")
            else:
                values[-1] += escaped or other
        return cls(path_of(column.removesuffix("!")), frozenset(values), column.endswith("!"))

    @property
    def cost(self) -> int:
        """The cost of reading its value."""
        return 0 if self.path[0] in _OF_ROW else 2 if self.path[0] in VALUES else 1

    def holds(self, event: Values) -> bool:
        """Return whether an event fulfils it; true if the value is unknown."""
        texts = event.texts(self.path)
        return texts is None or self.values.isdisjoint(texts) == self.is_negated


def path_of(column: str) -> Path:
    """Return the name of a column, or the path to a value in it."""
    return tuple(column.split("."))
