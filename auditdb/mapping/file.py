"""The mapping file, auditdb.toml: read, checked, compared with the database, applied to it."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import psycopg
from psycopg.rows import scalar_row, tuple_row
from psycopg.types.json import Jsonb

from auditdb.connection.begin import explained
from auditdb.connection.pin import pinned
from auditdb.errors import AuditError, InvalidInput, from_psycopg
from auditdb.mapping.attach import attach, define_kind, no_table
from auditdb.values.plain import is_plain, plain

EXPRESSIONS = ("organization", "target_id", "subject", "role", "alive", "admin", "parent")
COLUMNS = ("email", "password", "two_factor")
LISTS = ("ignore", "redact")
OPTIONS = EXPRESSIONS + COLUMNS + LISTS
KIND_ARGUMENTS = {
    "description": "text", "verbs": "a table of texts", "facts": "a table of texts",
    "target_type": "text", "subject": "text", "options": "a list of texts",
}  # fmt: skip
_SHAPES: dict[str, type] = {"text": str, "a table of texts": dict, "a list of texts": list}


@dataclass(frozen=True)
class TableMapping:
    """One table of a mapping file: its name as PostgreSQL writes it, kind, options of attach."""

    name: str
    kind: str
    options: Mapping[str, str | list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class KindMapping:
    """One kind that a mapping file defines: its name, and the arguments of `define_kind`."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What applying a mapping does, or would do, to one table or kind.

    `verb` is `attach`, `remap`, `mend` (a trigger is absent or switched off), `unchanged`, or
    `unlisted` for a table that is attached but not in the file: it is left alone. `options` has,
    for each option that differs, its value before and after. A kind that the file defines, other
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
        if self.verb == "remap":
            lines += [
                f"            {name}: {_shown(old)} -> {_shown(new)}"
                for name, (old, new) in self.options.items()
            ]
        return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None:
        return "(default)"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return plain(" ".join(text.split()))


def load(text: str, source: str = "auditdb.toml") -> list[TableMapping | KindMapping]:
    r"""Read a mapping file.

    Args:
        text: the file, in TOML.
        source: its name, for error messages.

    Raises:
        InvalidInput: not TOML; a key that is not known, absent or of the wrong type; a table or
            kind twice.

    Example:
        >>> load("[[table]]\nname = 'public.invoice'\nkind = 'invoice'\nignore = ['seen_at']")
        [TableMapping(name='public.invoice', kind='invoice', options={'ignore': ['seen_at']})]
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{source} is not TOML: {error}") from error
    for key in document:
        if key not in ("table", "kind"):
            raise InvalidInput(
                f"{source}: unknown key '{key}'; a file is made of [[table]]s and [[kind]]s"
            )
    mappings: list[TableMapping | KindMapping] = [
        *(_kind(part, source, n) for n, part in enumerate(_parts(document, "kind", source), 1)),
        *(_mapping(part, source, n) for n, part in enumerate(_parts(document, "table", source), 1)),
    ]
    for number, mapping in enumerate(mappings):
        if (type(mapping), mapping.name) in {(type(m), m.name) for m in mappings[:number]}:
            what = "kind" if isinstance(mapping, KindMapping) else "table"
            raise InvalidInput(
                f"{source}: {mapping.name} is there twice; keep one [[{what}]] of it"
            )
    return mappings


def _parts(document: dict[str, Any], name: str, source: str) -> list[dict[str, Any]]:
    """Return the [[table]]s or [[kind]]s of a file."""
    parts = document.get(name, [])
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise InvalidInput(f"{source}: write [[{name}]], with two brackets, above each {name}")
    return parts


def _kind(part: dict[str, Any], source: str, number: int) -> KindMapping:
    """Return one [[kind]], checked; what only the server knows, it checks."""
    named = part.get("name")
    where = f"{source}, kind {named if isinstance(named, str) and named else number}"
    for key, value in part.items():
        if key not in ("name", *KIND_ARGUMENTS):
            close = difflib.get_close_matches(key, KIND_ARGUMENTS, 1, 0.5)
            keys = ", ".join(KIND_ARGUMENTS)
            hint = f"did you mean '{close[0]}'?" if close else f"the keys are {keys}"
            raise InvalidInput(f"{where}: unknown key '{key}'; {hint}")
        shape = KIND_ARGUMENTS.get(key, "text")
        items = value.values() if isinstance(value, dict) else value
        is_meant = isinstance(value, _SHAPES[shape]) and all(isinstance(i, str) for i in items)
        if not is_meant:
            raise InvalidInput(f"{where}: '{key}' must be {shape}")
    if not named:
        raise InvalidInput(f"{where}: 'name' is missing")
    return KindMapping(str(named), {key: part[key] for key in part if key != "name"})


def _mapping(table: dict[str, Any], source: str, number: int) -> TableMapping:
    """Return one [[table]], checked."""
    named = table.get("name")
    where = f"{source}, {named if isinstance(named, str) and named else f'table {number}'}"
    for key in table:
        if key not in {"name", "kind", *OPTIONS}:
            close = difflib.get_close_matches(key, ["name", "kind", *OPTIONS], 1, 0.5)
            hint = f"did you mean '{close[0]}'?" if close else f"the keys are {', '.join(OPTIONS)}"
            raise InvalidInput(f"{where}: unknown key '{key}'; {hint}")
    for key in ("name", "kind"):
        if key not in table:
            raise InvalidInput(f"{where}: '{key}' is missing")
    for key, value in table.items():
        if key in LISTS:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise InvalidInput(f"{where}: '{key}' must be a list of column names")
        elif not isinstance(value, str) or not value.strip():
            raise InvalidInput(f"{where}: '{key}' must be text that is not empty")
    options = {
        key: [str(item) for item in value] if key in LISTS else str(value).strip()
        for key, value in table.items()
        if key not in {"name", "kind"}
    }
    return TableMapping(table["name"].strip(), table["kind"].strip(), options)


def value(given: str | Sequence[str]) -> str:
    r"""Return a text, or a list of texts, in TOML, as readable as SQL in it can be.

    >>> print(value('r."teamId"'), value("r.role = 'x'"), value(["a", "b"]))
    'r."teamId"' "r.role = 'x'" ["a", "b"]
    """
    if not isinstance(given, str):
        return "[" + ", ".join(_basic(item) for item in given) + "]"
    if "'''" in given or any(not (is_plain(c) or c in "\n\t") for c in given):
        return _basic(given)
    if "\n" in given or ("'" in given and ('"' in given or "\\" in given)):
        return f"'''\n{given}\n'''"
    return f"'{given}'" if '"' in given or "\\" in given else f'"{given}"'


def _basic(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if is_plain(c) else f"\\U{ord(c):08X}" for c in escaped) + '"'


_ATTACHED = """
select a.target::oid::int8,
    format('%I.%I', n.nspname, c.relname), a.kind, a.mapping -> 'given',
    a.kind = 'admin' or 4 = (select count(*) from pg_trigger as t
        where t.tgrelid = a.target and t.tgenabled = 'A' and t.tgname in
            ('auditdb_insert', 'auditdb_update', 'auditdb_delete', 'auditdb_truncate')),
    a.mapping - 'checked'
from audit.attachment as a
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
    with explained(conn, "audit_operator"), conn.transaction(force_rollback=True):
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
            "select audit.prepare_attach(%s::oid::regclass, %s, %s)",
            (oid, mapping.kind, Jsonb(given)),
        )
        # Also what was not given: a column added since may be one that the defaults redact.
        cursor.execute(
            "select a.mapping - 'checked' from audit.attachment as a where a.target = %s", (oid,)
        )
    except psycopg.Error as error:
        raise _naming(error, mapping) from error
    found = cursor.fetchone()
    if row is None:
        wanted: dict[str, tuple[Any, Any]] = {name: (None, new) for name, new in given.items()}
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
        raise _naming(error, mapping) from error
    if oid is None:
        raise no_table(conn, mapping.name)
    return int(oid)


def _naming(error: psycopg.Error, mapping: TableMapping) -> AuditError:
    """Return the error of a statement about a mapping, with the name of its table."""
    plain = from_psycopg(error)
    return type(plain)(f"{mapping.name}: {plain}")


def _in_order(mappings: Sequence[TableMapping | KindMapping]) -> list[TableMapping]:
    """Return parents before children: a child takes what it does not say from its parent."""
    tables = [mapping for mapping in mappings if isinstance(mapping, TableMapping)]
    return sorted(tables, key=lambda mapping: "parent" in mapping.options)


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
    with explained(conn, "audit_operator"), conn.transaction():
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
