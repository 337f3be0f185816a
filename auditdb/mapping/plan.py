"""A mapping file compared with what is attached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, LiteralString

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import scalar_row, tuple_row
from psycopg.types.json import Jsonb

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.errors import AuditError, InvalidInput, Refused, from_psycopg
from auditdb.mapping.attach import define_kind, no_table, read_context_from
from auditdb.mapping.file import LISTS, OPTIONS, ContextMapping, KindMapping, Mappings, TableMapping
from auditdb.values.plain import plain

_NOTES = {
    "unlisted": " (attached, not in the file: left alone)",
    "detach": " (attached, not in the file)",
    "forget": " (the table is gone)",
}


@dataclass(frozen=True)
class Change:
    """A change that a mapping file makes, or would make, to a table or kind.

    `verb` is `attach`, `remap`, `mend` (a trigger is absent or switched off, or the table is not as
    it was attested), or `unchanged`. A table that is attached but not in the file is `unlisted` and
    left alone, or `detach`; one that was dropped, `forget`. `options` has,
    for each option that differs, its value before and after; of a table that is not attached yet,
    each option as it will be in force, as `ignore` and `redact` where these change. A kind that the
    file defines, other than it is defined now, is `define`, and its `kind` is "kind"; so is what
    `context` of the file names, and its `kind` is "context".
    """

    name: str
    kind: str
    verb: Literal["define", "attach", "remap", "mend", "unchanged", "unlisted", "detach", "forget"]
    options: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return a line of text, and one for each option that differs."""
        note = _NOTES.get(self.verb, "")
        if self.kind == "kind":
            return f"{self.verb:9} kind {plain(self.name)}"
        if self.kind == "context":
            return f"{self.verb:9} context: {_option_text(self.options['settings'][1]) or 'none'}"
        lines = [f"{self.verb:9} {plain(self.name)} as {plain(self.kind)}{note}"]
        for name, (old, new) in self.options.items():
            before = f"{_option_text(old)} -> " if self.verb == "remap" else ""
            lines.append(f"            {name}: {before}{_option_text(new)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Step:
    """A change with its table, its mapping, and the tables that it depends on."""

    change: Change
    oid: int = 0
    mapping: TableMapping | KindMapping | ContextMapping | None = None
    policies: Sequence[int] = ()


def _option_text(value: Any) -> str:
    if value is None:
        return "(default)"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return plain(" ".join(text.split()))


_ATTACHED = """
select c.oid::int8, coalesce(audit_private.table_name(c.oid), a.name), a.kind, a.mapping -> 'given',
    stale is null and (a.kind = 'admin'
        or not exists (select from audit_private.trigger_faults(c.oid, a.id))),
    a.mapping - 'checked'
from audit_private.attachment as a
    left join pg_class as c on c.oid = a.target and c.reltype = a.row_type
    left join audit_private.stale_tables() as stale on stale = a.target
order by 2
"""


def plan(
    conn: psycopg.Connection[Any],
    mappings: Mappings,
    *,
    prune: bool = False,
) -> list[Change]:
    """Compare a mapping file with what is attached; change nothing, and lock no table.

    Args:
        conn: a connection that holds `audit_operator`.
        mappings: what `load` returned.
        prune: whether to detach attached tables that the file does not name.

    Returns:
        In the order in which `apply` takes them, a change for each attached table that is gone or
        is to be detached, for each kind of the file that is defined otherwise, and for each of its
        tables; then one for each attached table that the file does not name.

    Raises:
        Refused: no such table, kind, option or column; no privilege.
        InvalidInput: two names for one table.
    """
    return [step.change for step in steps(conn, mappings, prune=prune)]


def steps(
    conn: psycopg.Connection[Any],
    mappings: Mappings,
    *,
    prune: bool = False,
) -> list[Step]:
    """Return what `plan` says, each change with what carries it out."""
    if prune and not mappings:
        raise InvalidInput(
            "a file without tables would detach them all. Was it written by a command that failed? "
            "To end all capture: auditdb uninstall"
        )
    found: list[Step] = []
    seen: dict[int, str] = {}
    kinds = [mapping for mapping in mappings if isinstance(mapping, KindMapping)]
    is_own = conn.info.transaction_status == TransactionStatus.IDLE
    with raises_audit_errors(conn, "audit_operator"), conn.transaction(force_rollback=True):
        cursor = psycopg.Cursor(conn, row_factory=tuple_row)
        cursor.execute("select audit.version()")  # Raises an error if auditdb is not installed.
        if is_own:
            cursor.execute("select audit_private.end_with_client()")
        # Before the pin, so that names without a schema use the search_path of the session.
        named = [(_oid(conn, mapping), mapping) for mapping in _in_order(mappings)]
        with pinned(conn):
            rows = cursor.execute(_ATTACHED).fetchall()
            attached = {row[0]: row[1:] for row in rows if row[0] is not None}
            gone = [row[1:3] for row in rows if row[0] is None]
            for oid, mapping in named:
                if oid in seen:
                    raise InvalidInput(f"{seen[oid]} and {mapping.name} are the same table")
                seen[oid] = mapping.name
            others = [_other(oid, row, prune) for oid, row in attached.items() if oid not in seen]
            # Detach first, so that the other mappings do not depend on these tables.
            found += [
                Step(Change(name, kind, "forget"))
                for name, kind in gone
                if name not in set(present_names(cursor, seen))
            ]
            found += [step for step in others if step.change.verb == "detach"]
            _without(cursor, found)
            # Mappings depend on kinds, so define them here; this is rolled back.
            found += [step for step in map(partial(_define, conn), kinds) if step]
            found += [step for step in map(partial(_context, conn), mappings) if step]
            for oid, mapping in named:
                found.append(_compare(cursor, mapping, oid, attached.get(oid)))
    return found + [step for step in others if step.change.verb == "unlisted"]


def _other(oid: int, row: tuple[Any, ...], prune: bool) -> Step:
    """Return the change for an attached table that the file does not name."""
    return Step(Change(row[0], row[1], "detach" if prune else "unlisted"), oid)


def present_names(cursor: psycopg.Cursor[Any], oids: Iterable[int]) -> list[str]:
    """Return the names of tables as the attachments keep them."""
    query = "select audit_private.table_name(oid) from unnest(%s::oid[]) as oid"
    return [row[0] for row in cursor.execute(query, (list(oids),))]


def _without(cursor: psycopg.Cursor[Any], others: Iterable[Step]) -> None:
    """Show the database as it will be after the detachments."""
    for step in others:
        if step.change.verb == "detach":
            cursor.execute(
                "insert into audit_private.request (verb, target) values ('check', %s::oid)",
                (step.oid,),
            )


_KIND = "select to_jsonb(k) from audit.kind as k where k.name = %s"


def _define(conn: psycopg.Connection[Any], kind: KindMapping) -> Step | None:
    """Define a kind; return the change, if it is new or different."""
    cursor = psycopg.Cursor(conn, row_factory=tuple_row)
    before = cursor.execute(_KIND, (kind.name,)).fetchone()
    define_kind(conn, kind.name, **kind.arguments)
    after = cursor.execute(_KIND, (kind.name,)).fetchone()
    return Step(Change(kind.name, "kind", "define"), mapping=kind) if before != after else None


def _context(
    conn: psycopg.Connection[Any], mapping: TableMapping | KindMapping | ContextMapping
) -> Step | None:
    """Read the context from other settings; return the change if it was read from others before."""
    if not isinstance(mapping, ContextMapping):
        return None
    before = read_context_from(conn, mapping.settings)
    wanted = list(mapping.settings)
    options = {"settings": (before, wanted)}
    change = Change(mapping.name, "context", "define", options)
    return Step(change, mapping=mapping) if before != wanted else None


def _compare(
    cursor: psycopg.Cursor[Any], mapping: TableMapping, oid: int, row: tuple[Any, ...] | None
) -> Step:
    """Return the change by one mapping, given the attachment of its table, if any."""
    given = dict(mapping.options)
    try:
        # Invalid mappings are refused here. Options that were not given are compared too, because
        # the defaults may redact a column that was added since.
        cursor.execute(
            "select * from audit_private.check_attach(%s::oid::regclass, %s, %s)",
            (oid, mapping.kind, Jsonb(given)),
        )
    except psycopg.Error as error:
        raise name_table(error, mapping.name) from error
    checked = cursor.fetchone()
    assert checked is not None
    if row is None:
        # The options in force, given or by default.
        in_force = given | checked[0]
        wanted: dict[str, tuple[Any, Any]] = {
            name: (None, in_force[name]) for name in OPTIONS if name in in_force
        }
        change = Change(mapping.name, mapping.kind, "attach", wanted)
        return Step(change, oid, mapping, checked[1])
    _, kind, before, stands, stored = row
    options = {
        name: (before.get(name), given.get(name))
        for name in OPTIONS
        if before.get(name) != given.get(name)
    }
    for name in LISTS:
        # Compare the options in force, because defaults decide about new columns.
        was, now = stored.get(name) or [], checked[0].get(name) or []
        if was != now:
            options[name] = (was, now)
    same = kind == mapping.kind and stored == checked[0]
    verb: Literal["remap", "mend", "unchanged"] = (
        "remap" if not same else "mend" if checked[1] or not stands else "unchanged"
    )
    return Step(Change(mapping.name, mapping.kind, verb, options), oid, mapping, checked[1])


def _oid(conn: psycopg.Connection[Any], mapping: TableMapping) -> int:
    """Return the oid of a mapping's table, found in the session's search_path."""
    cursor = psycopg.Cursor(conn, row_factory=scalar_row)
    try:
        # Every name says its schema but the user's.
        query = "select pg_catalog.to_regclass(%s)::pg_catalog.oid::pg_catalog.int8"
        oid = cursor.execute(query, (mapping.name,)).fetchone()
    except psycopg.Error as error:
        raise name_table(error, mapping.name) from error
    if oid is None:
        raise _former(conn, mapping.name) or no_table(conn, mapping.name)
    return int(oid)


_RENAMED = """
select present from unnest(array[%(name)s]
    || array(select format('%%I.', s) || %(name)s from unnest(%(path)s::text[]) as s)) as former
    cross join audit_private.present_name(former) as present
where present is not null limit 1
"""
_DROPPED = """
select exists (
    select from audit_private.attachment as a
    where (a.name = %(name)s
            or a.name in (select format('%%I.', s) || %(name)s from unnest(%(path)s::text[]) as s))
        and not exists (
            select from pg_class as c where c.oid = a.target and c.reltype = a.row_type))
"""


def present_name(conn: psycopg.Connection[Any], name: str) -> str | None:
    """Return the present name of a table that was attached under another name."""
    now: str | None = _of_former(conn, _RENAMED, name)
    return now


def _of_former(conn: psycopg.Connection[Any], query: LiteralString, name: str) -> Any:
    """Return the result of a query about a name that is no longer a table."""
    cursor = psycopg.Cursor(conn, row_factory=scalar_row)
    path = cursor.execute("select pg_catalog.current_schemas(false)::pg_catalog.text[]").fetchone()
    with pinned(conn):
        return cursor.execute(query, {"name": name, "path": path}).fetchone()


def _former(conn: psycopg.Connection[Any], name: str) -> Refused | None:
    """Return the error of a name by which a table was attached, if there was one."""
    now = present_name(conn, name)
    if now is not None:
        return Refused(f"there is no table {name}; the table attached by that name is now {now}")
    if _of_former(conn, _DROPPED, name):
        return Refused(f"{name} was attached and is gone: take it out of the mapping file")
    return None


def name_table(error: psycopg.Error, name: str) -> AuditError:
    """Return the error of a statement about a mapping, with the name of its table."""
    plain = from_psycopg(error)
    return type(plain)(f"{name}: {plain}")


_FIRST = ("organization", "membership", "user")


def _in_order(mappings: Mappings) -> list[TableMapping]:
    """Return the sort key: organisations, members, users first, because others refer to them."""
    tables = [mapping for mapping in mappings if isinstance(mapping, TableMapping)]
    ranks = {kind: rank for rank, kind in enumerate(_FIRST)}
    return sorted(tables, key=lambda m: ("parent" in m.options, ranks.get(m.kind, len(_FIRST))))
