"""A mapping file compared with what is attached, and applied to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import psycopg
from psycopg.rows import scalar_row, tuple_row
from psycopg.types.json import Jsonb

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.errors import AuditError, InvalidInput, from_psycopg
from auditdb.mapping.attach import attach, define_kind, no_table
from auditdb.mapping.file import OPTIONS, KindMapping, TableMapping
from auditdb.values.plain import plain


@dataclass(frozen=True)
class Change:
    """What applying a mapping does, or would do, to one table or kind.

    `verb` is `attach`, `remap`, `mend` (a trigger is absent or switched off), `unchanged`, or
    `unlisted` for a table that is attached but not in the file: it is left alone. `options` has,
    for each option that differs, its value before and after; of a table that is not attached yet,
    each option as it will be in force. A kind that the file defines, other
    than it is defined now, is `define`, and its `kind` is "kind".
    """

    name: str
    kind: str
    verb: Literal["define", "attach", "remap", "mend", "unchanged", "unlisted"]
    options: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return a line for people, and one for each option that differs."""
        note = " (attached, not in the file: left alone)" if self.verb == "unlisted" else ""
        if self.kind == "kind":
            return f"{self.verb:9} kind {plain(self.name)}"
        lines = [f"{self.verb:9} {plain(self.name)} as {plain(self.kind)}{note}"]
        for name, (old, new) in self.options.items():
            before = f"{_option_text(old)} -> " if self.verb == "remap" else ""
            lines.append(f"            {name}: {before}{_option_text(new)}")
        return "\n".join(lines)


def _option_text(value: Any) -> str:
    if value is None:
        return "(default)"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return plain(" ".join(text.split()))


_ATTACHED = """
select a.target::oid::int8,
    format('%I.%I', n.nspname, c.relname), a.kind, a.mapping -> 'given',
    a.kind = 'admin' or 4 = (select count(*) from pg_trigger as t
        where t.tgrelid = a.target and t.tgenabled = 'A' and t.tgname in
            ('auditdb_insert', 'auditdb_update', 'auditdb_delete', 'auditdb_truncate')),
    a.mapping - 'checked'
from audit_private.attachment as a
    join pg_class as c on c.oid = a.target join pg_namespace as n on n.oid = c.relnamespace
order by 2
"""


def plan(
    conn: psycopg.Connection[Any], mappings: Sequence[TableMapping | KindMapping]
) -> list[Change]:
    """Compare a mapping file with what is attached, and change nothing.

    Args:
        conn: a connection that holds `audit_operator`.
        mappings: what `load` returned.

    Returns:
        A change for each kind of the file that is defined otherwise, and for each of its tables,
        in the order in which `apply` takes them, then one for each attached table that the file
        does not name.

    Raises:
        Refused: no such table, kind, option or column; no privilege.
        InvalidInput: two names for one table.
    """
    changes: list[Change] = []
    seen: dict[int, str] = {}
    kinds = [mapping for mapping in mappings if isinstance(mapping, KindMapping)]
    with raises_audit_errors(conn, "audit_operator"), conn.transaction(force_rollback=True):
        cursor = psycopg.Cursor(conn, row_factory=tuple_row)
        cursor.execute("select audit.version()")  # Says so where auditdb is not installed.
        # Names without a schema are found as the session would find them: before the pin.
        found = [(_oid(conn, mapping), mapping) for mapping in _in_order(mappings)]
        with pinned(conn):
            # What tables mean depends on kinds: rolled back.
            changes += [kind for kind in map(partial(_define, conn), kinds) if kind]
            attached = {row[0]: row[1:] for row in cursor.execute(_ATTACHED)}
            for oid, mapping in found:
                if oid in seen:
                    raise InvalidInput(f"{seen[oid]} and {mapping.name} are the same table")
                seen[oid] = mapping.name
                changes.append(_change(cursor, mapping, oid, attached.get(oid)))
    changes += [
        Change(row[0], row[1], "unlisted") for oid, row in attached.items() if oid not in seen
    ]
    return changes


_KIND = "select to_jsonb(k) from audit.kind as k where k.name = %s"


def _define(conn: psycopg.Connection[Any], kind: KindMapping) -> Change | None:
    """Define a kind; return the change if it was none before, or another."""
    cursor = psycopg.Cursor(conn, row_factory=tuple_row)
    before = cursor.execute(_KIND, (kind.name,)).fetchone()
    define_kind(conn, kind.name, **kind.arguments)
    after = cursor.execute(_KIND, (kind.name,)).fetchone()
    return Change(kind.name, "kind", "define") if before != after else None


def _change(
    cursor: psycopg.Cursor[Any], mapping: TableMapping, oid: int, row: tuple[Any, ...] | None
) -> Change:
    """Return what one mapping changes, given the attachment of its table, if any."""
    given = dict(mapping.options)
    try:
        # Done but for the triggers, to be rolled back: an expression that fails is refused here.
        cursor.execute(
            "select audit_private.prepare_attach(%s::oid::regclass, %s, %s)",
            (oid, mapping.kind, Jsonb(given)),
        )
        # Also what was not given: a column added since may be one that the defaults redact.
        cursor.execute(
            "select a.mapping - 'checked' from audit_private.attachment as a where a.target = %s",
            (oid,),
        )
    except psycopg.Error as error:
        raise _name_table(error, mapping) from error
    found = cursor.fetchone()
    if row is None:
        # What is in force, by what was given or by what the table says.
        in_force = given | (found[0] if found else {})
        wanted: dict[str, tuple[Any, Any]] = {
            name: (None, in_force[name]) for name in OPTIONS if name in in_force
        }
        return Change(mapping.name, mapping.kind, "attach", wanted)
    _, kind, before, enabled, stored = row
    options = {
        name: (before.get(name), given.get(name))
        for name in OPTIONS
        if before.get(name) != given.get(name)
    }
    same = kind == mapping.kind and found is not None and stored == found[0]
    verb: Literal["remap", "mend", "unchanged"] = (
        "remap" if not same else "unchanged" if enabled else "mend"
    )
    return Change(mapping.name, mapping.kind, verb, options)


def _oid(conn: psycopg.Connection[Any], mapping: TableMapping) -> int:
    """Return the oid of a mapping's table, found in the session's search_path."""
    cursor = psycopg.Cursor(conn, row_factory=scalar_row)
    try:
        # Every name says its schema but the user's.
        query = "select pg_catalog.to_regclass(%s)::pg_catalog.oid::pg_catalog.int8"
        oid = cursor.execute(query, (mapping.name,)).fetchone()
    except psycopg.Error as error:
        raise _name_table(error, mapping) from error
    if oid is None:
        raise no_table(conn, mapping.name)
    return int(oid)


def _name_table(error: psycopg.Error, mapping: TableMapping) -> AuditError:
    """Return the error of a statement about a mapping, with the name of its table."""
    plain = from_psycopg(error)
    return type(plain)(f"{mapping.name}: {plain}")


_FIRST = ("organization", "membership", "user")


def _in_order(mappings: Sequence[TableMapping | KindMapping]) -> list[TableMapping]:
    """Return what others are found by first: organisations, members, users; children last."""
    tables = [mapping for mapping in mappings if isinstance(mapping, TableMapping)]
    ranks = {kind: rank for rank, kind in enumerate(_FIRST)}
    return sorted(tables, key=lambda m: ("parent" in m.options, ranks.get(m.kind, len(_FIRST))))


def apply(
    conn: psycopg.Connection[Any], mappings: Sequence[TableMapping | KindMapping]
) -> list[Change]:
    """Define every kind of a mapping file and attach its tables, in one transaction: all or none.

    Applying a file again changes nothing that has not changed, and mends what went stale. Tables
    that are attached and not in the file stay attached.

    Args:
        conn: a connection of the tables' owner, who holds `audit_operator`.
        mappings: what `load` returned.

    Returns:
        What was done, as `plan` would have said before.

    Raises:
        Refused: no such table, kind, option or column; an expression that fails; no privilege.
        InvalidInput: two names for one table.
    """
    with raises_audit_errors(conn, "audit_operator"), conn.transaction():
        changes = plan(conn, mappings)
        for kind in mappings:
            if isinstance(kind, KindMapping):
                define_kind(conn, kind.name, **kind.arguments)
        for mapping in _in_order(mappings):
            try:
                attach(conn, mapping.name, mapping.kind, **mapping.options)
            except AuditError as error:
                if mapping.name in str(error):
                    raise
                raise type(error)(f"{mapping.name}: {error}") from error.__cause__
    return changes
