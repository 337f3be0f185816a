"""Rebuilds tables from nothing but their events."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import psycopg

Row = dict[str, Any]


class DivergedError(Exception):
    """An event that does not fit the rows that the events before it made."""


def parse(text: str | None) -> Row | None:
    """Return an image with its numbers as they are written: 1.0 is not 1.00."""
    if text is None:
        return None

    def number(digits: str) -> tuple[str, str]:
        return ("number", digits)

    image: Row = json.loads(text, parse_int=number, parse_float=number)
    return image


def frozen(row: Row) -> str:
    """Return a row as text that is equal for equal rows."""
    return json.dumps(row, sort_keys=True)


@dataclass
class Replay:
    """Rows of attached tables, by table; applies one event after the other."""

    #: Columns of each table's key; empty where rows have none.
    keys: dict[str, tuple[str, ...]]
    #: Table of each partition.
    roots: dict[str, str] = field(default_factory=dict)
    rows: dict[str, list[tuple[str, Row]]] = field(default_factory=dict)

    def apply(self, event: dict[str, Any]) -> None:
        """Do to the rows what the event says was done."""
        source = event["captured_from"]
        table = self.roots.get(source, source)
        rows = self.rows.setdefault(table, [])
        old, new = parse(event["old_values"]), parse(event["new_values"])
        verb = event["action"].split(".")[1]
        if verb == "created" and new is not None:
            rows.append((source, new))
        elif verb == "truncated":
            rows[:] = [row for row in rows if source not in (table, row[0])]
        elif verb == "deleted" and old is not None:
            rows.remove(self._find(rows, source, old, event))
        elif verb == "updated" and old is not None and new is not None:
            found = self._find(rows, source, old, event, new)
            rows[rows.index(found)] = (source, {**found[1], **new})
        else:
            raise DivergedError(f"no such change: {event}")

    def _find(
        self,
        rows: list[tuple[str, Row]],
        source: str,
        old: Row,
        event: dict[str, Any],
        new: Row | None = None,
    ) -> tuple[str, Row]:
        key = self.keys[self.roots.get(source, source)]
        for leaf, row in rows:
            if leaf == source and (
                # The old values, and what they do not tell of the key from the target's id.
                {**row, **old} == row
                and self._id(key, {**row, **(new or {})}) == event["target_id"]
                if key
                else row == old
            ):
                return leaf, row
        raise DivergedError(f"no such row: {event}")

    @staticmethod
    def _id(key: tuple[str, ...], row: Row) -> str:
        values = (row[column] for column in key)
        return ",".join(v[1] if isinstance(v, tuple) else str(v) for v in values)


def events(conn: psycopg.Connection[Any], after: int = 0) -> list[dict[str, Any]]:
    """Return captured events in the order they were written, images as text."""
    found = conn.execute(
        "select id, action, captured_from, target_id, old_values::text, new_values::text"
        " from audit.event where captured_from is not null and id > %s order by id",
        [after],
    )
    names = [column.name for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found]


def contents(conn: psycopg.Connection[Any], table: str) -> list[str]:
    """Return the rows of a table as `frozen` would."""
    rows = conn.execute(f"select to_jsonb(t)::text from {table} as t").fetchall()
    return sorted(frozen(parse(text) or {}) for (text,) in rows)
