"""Facts about an attached table that the comparison needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

_OWN = """
select e.id, e.action, e.target_id, e.captured_from,
    e.old_values -> 'mapping' -> 'ignore' as ignored,
    e.old_values -> 'mapping' -> 'columns' as columns
from audit.event as e
where e.target_type = 'audit' and e.action = any (
        '{audit.attached,audit.remapped,audit.baselined}')
    or e.captured_from = any (%s) and e.action like '%%.truncated'
order by e.id
"""
_SOURCES = """
select distinct e.captured_from from audit.event as e
where e.captured_from <> all (%s) and e.target_type = %s
    and not exists (
        select from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        where concat(n.nspname, '.', c.relname) = e.captured_from)
    and not exists (
        select from audit.event as a
        where a.target_type = 'audit' and a.action in ('audit.attached', 'audit.detached')
            and a.target_id in (e.captured_from, (
                select string_agg(quote_ident(part), '.' order by n)
                from string_to_table(e.captured_from, '.') with ordinality as t (part, n))))
"""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column, and since when its logged values can be compared."""

    name: str
    base: str
    left_out: str | None
    may_be_new: bool
    #: Values of events before that id, or before that time, may have aged without an event.
    since_id: int
    since_time: float


@dataclass(frozen=True, kw_only=True)
class Told:
    """An attached table according to the log."""

    id: int
    name: str
    part: str | None
    key: list[str] | None
    is_secret: bool
    is_unique: bool
    is_partitioned: bool
    #: Whether every row has an event of its insert.
    has_births: bool
    #: Events from that id on find no row that has none.
    births_until: int
    may_begin_untold: bool
    may_end_untold: bool
    may_be_handed_off: bool
    columns: Mapping[str, Column]
    #: Names under which its changes were captured; up to which event, if another has it now.
    names: Mapping[str, int | None]
    present: frozenset[str]
    since: int
    truncated: list[tuple[int, str]] = field(default_factory=list)

    @property
    def is_keyed(self) -> bool:
        """Whether an identifier is unique, or nearly so."""
        return self.part is not None and self.key is not None and not self.is_secret


def describe(conn: psycopg.Connection[Any], target: int) -> Told | None:
    """Return the facts about a table, or None if it is not captured.

    Args:
        conn: a connection in a transaction, of a member of `audit_auditor`.
        target: the oid of the table.
    """
    cursor = psycopg.Cursor(conn, row_factory=dict_row)
    row = cursor.execute("select audit_private.describe_rows(%s) as told", (target,)).fetchone()
    told = row and row["told"]
    if not told:
        return None
    names: dict[str, int | None] = dict.fromkeys(told["names"])
    if told["is_partitioned"] or len(names) > 1:
        # Dropped partitions, and temporary names of the table.
        found = cursor.execute(_SOURCES, (list(names), told["target_type"])).fetchall()
        names.update(dict.fromkeys(r["captured_from"] for r in found))
    own = cursor.execute(_OWN, (list(names),)).fetchall()
    present = frozenset(name for name, is_present in told["names"].items() if is_present)
    attached = [e for e in own if e["action"] == "audit.attached"]
    mine = [e["id"] for e in attached if unquoted(e["target_id"]) in names]
    since = max(mine, default=0)
    for name in set(names) - present:
        later = [e["id"] for e in attached if unquoted(e["target_id"]) == name and e["id"] > since]
        names[name] = min(later, default=None)
    baselined = [e["id"] for e in own if e["action"] == "audit.baselined" and e["id"] > since
                 and unquoted(e["target_id"]) in names]  # fmt: skip
    return Told(
        **{key: told[key] for key in (
            "id", "name", "part", "key", "is_secret", "is_unique", "is_partitioned",
            "may_begin_untold", "may_end_untold", "may_be_handed_off")},
        has_births=told["is_baselined"] and bool(mine) and not told["may_begin_untold"],
        births_until=max(baselined, default=0),
        columns={
            c["name"]: _column(c, told["types"], [
                e for e in own if e["action"] == "audit.remapped" and e["id"] > since
                and unquoted(e["target_id"]) in names])
            for c in told["columns"]
        },
        names=names, present=present, since=since,
        truncated=[(e["id"], e["captured_from"]) for e in own if e["captured_from"] in names],
    )  # fmt: skip


def _column(column: dict[str, Any], types: list[Any], remapped: list[Any]) -> Column:
    name = column["name"]
    # What was ignored, or was not there yet and may have been, by the mapping of before.
    aged = [e["id"] for e in remapped
            if name in (e["ignored"] or ()) or name not in (e["columns"] or (name,))]  # fmt: skip
    time = float("-inf")
    for attested in types:
        number = (attested["numbers"] or {}).get(name, column["number"])
        if (attested["types"] or {}).get(name) != column["type"] or number != column["number"]:
            time = float("inf")
        elif time == float("inf"):
            time = datetime.fromisoformat(attested["at"]).timestamp()
    return Column(
        name=name, base=column["base"], left_out=column["left_out"],
        may_be_new=column["is_after_gap"] and not (types and types[-1]["numbers"]),
        since_id=max(aged, default=0), since_time=time,
    )  # fmt: skip


def unquoted(name: str | None) -> str:
    """Return the name of a table as `captured_from` has it.

    >>> unquoted('public."Odd.Name"')
    'public.Odd.Name'
    """
    parts, part, is_quoted = [""], 0, False
    for n, c in enumerate(name or ""):
        if c == '"':
            is_quoted = not is_quoted
            if is_quoted and n and (name or "")[n - 1] == '"':
                parts[part] += '"'
        elif c == "." and not is_quoted:
            parts.append("")
            part += 1
        else:
            parts[part] += c
    return ".".join(parts)
