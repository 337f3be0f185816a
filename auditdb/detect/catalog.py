"""The catalog of a database as frozen objects: tables, columns, keys, links between tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, LiteralString

import psycopg
from psycopg.rows import tuple_row

from auditdb.connection.pin import pinned
from auditdb.detect.naming import labels, words


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    sql: str  # quoted if necessary
    type: str
    category: str  # pg_type.typcategory: B boolean, D time, E enum, S string, N number, A array
    not_null: bool

    def is_like(self, other: Column) -> bool:
        """Whether two columns could hold the same identifiers."""
        return self.type == other.type or self.category == other.category != "U"


@dataclass(frozen=True)
class Link:
    """A foreign key, or columns that look like an undeclared one."""

    source: int
    columns: tuple[Column, ...]
    target: int
    referenced: tuple[str, ...]
    on_delete: str = "a"  # pg_constraint.confdeltype: c cascade, n set null, a none
    declared: bool = True

    @property
    def not_null(self) -> bool:
        """Whether no row has a null in these columns."""
        return all(column.not_null for column in self.columns)


@dataclass(frozen=True)
class Table:
    """A table with its columns in order and its unique keys, the primary key first.

    `label` is the first word of its name if that names an application or a module.
    """

    oid: int
    schema: str
    name: str
    sql: str
    owned: bool
    inherited: bool
    has_primary_key: bool
    columns: tuple[Column, ...]
    keys: tuple[tuple[str, ...], ...]
    partial_keys: tuple[tuple[str, ...], ...]
    label: str = ""

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of its name, without a label that many tables share."""
        return words(self.name.removeprefix(self.label))

    @property
    def head(self) -> str:
        """The last word, which says what a row is."""
        return self.words[-1]

    @cached_property
    def named(self) -> dict[str, Column]:
        """Its columns by name."""
        return {column.name: column for column in self.columns}

    @property
    def key(self) -> Column | None:
        """The one column of its primary key, or of a key where there is no primary key."""
        for key in self.keys[:1] if self.has_primary_key else self.keys:
            if len(key) == 1:
                return self.named[key[0]]
        return None

    def is_unique(self, *names: str) -> bool:
        """Return whether a unique key consists of exactly these columns."""
        return any(set(key) == set(names) for key in self.keys + self.partial_keys)


@dataclass(frozen=True)
class Catalog:
    """The tables of the application, the links between them, and how attach interprets them."""

    tables: dict[int, Table]
    links: dict[int, tuple[Link, ...]]
    schemas: tuple[str, ...]
    cursor: psycopg.Cursor[Any]

    def context_settings(self) -> tuple[str, ...]:
        """The settings of other tools that name the actor, as far as the catalog shows them."""
        return tuple(row[0] for row in self.cursor.execute(_CONTEXT))

    def has_role(self, table: Table) -> bool:
        """Whether a column holds a role."""
        return bool(self._ask("(audit_private.role_of(%s::oid)).value is not null", table.oid))

    def has_acceptance(self, table: Table) -> bool:
        """Whether a column says that an invitation was accepted."""
        return bool(self._ask("audit_private.accepted(%s::oid) is not null", table.oid))

    def has_fact(self, users: Table, fact: str) -> bool:
        """Whether a column of the users holds a password or a two-factor flag."""
        return bool(
            self._ask("audit_private.fact_column(%s::oid, %s) is not null", users.oid, fact)
        )

    def alive(self, table: Table, kind: str) -> str | None:
        """Return the condition under which attach counts a row."""
        found = self._ask("audit_private.default_alive(%s::oid, %s)", table.oid, kind)
        return None if found is None else str(found)

    def admin(self, table: Table) -> str:
        """Return the condition under which attach regards a member as an admin."""
        parts = "audit_private.with_role(%s::oid, 'membership', '{}', '{}') ->> 'admin'"
        return str(self._ask(parts, table.oid))

    def secrets(self, table: Table, kind: str) -> frozenset[str]:
        """Return the columns that attach redacts in a table of this kind."""
        return frozenset(
            self._ask("audit_private.secret_columns(%s::oid, %s)", table.oid, kind) or ()
        )

    def carriers(self, members: Table) -> list[Table]:
        """Return the tables whose rows give roles to members."""
        found = self._ask(
            "array(select relation::oid::int8 from audit_private.carriers_of(%s::oid, %s))",
            members.oid,
            self.has_role(members),
        )
        return [self.tables[oid] for oid in found if oid in self.tables]

    def _ask(self, call: LiteralString, *args: object) -> Any:
        row = self.cursor.execute(f"select {call}", args).fetchone()
        return row[0] if row else None

    def links_to(self, table: Table) -> tuple[Link, ...]:
        """Return the links of other tables to this one."""
        return tuple(
            link
            for links in self.links.values()
            for link in links
            if link.target == table.oid and link.source != table.oid
        )


_TABLES = """
select c.oid::int8, n.nspname, c.relname, format('%I.%I', n.nspname, c.relname),
    pg_has_role(c.relowner, 'usage'),
    exists (select from pg_inherits as i join pg_class as k on k.oid = i.inhrelid
        where i.inhparent = c.oid and not k.relispartition)
from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and c.relpersistence <> 't' and not c.relispartition
    and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'audit', 'audit_private')
    and not exists (select from pg_depend where classid = 'pg_class'::regclass
        and objid = c.oid and deptype = 'e')
order by n.nspname, c.relname
"""
_COLUMNS = """
select a.attrelid::int8, a.attname, quote_ident(a.attname), format_type(b.oid, null),
    b.typcategory::text, a.attnotnull
from pg_catalog.pg_attribute as a
    join pg_catalog.pg_type as t on t.oid = a.atttypid
    join pg_catalog.pg_type as b
        on b.oid = case when t.typtype = 'd' then t.typbasetype else t.oid end
where a.attrelid = any (%s) and a.attnum > 0 and not a.attisdropped
order by a.attrelid, a.attnum
"""
_KEYS = """
select i.indrelid::int8, i.indisprimary, i.indpred is not null,
    (select array_agg(a.attname::text order by k.n)
    from unnest(i.indkey::int2[]) with ordinality as k (attnum, n)
        join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
    where k.n <= i.indnkeyatts)
from pg_catalog.pg_index as i
where i.indrelid = any (%s) and i.indisunique and i.indisvalid and i.indexprs is null
order by i.indrelid, i.indisprimary desc, i.indexrelid
"""
_FOREIGN_KEYS = """
select c.conrelid::int8, c.confrelid::int8, c.confdeltype::text,
    (select array_agg(a.attname::text order by k.n) from unnest(c.conkey)
        with ordinality as k (attnum, n)
        join pg_attribute as a on a.attrelid = c.conrelid and a.attnum = k.attnum),
    (select array_agg(a.attname::text order by k.n) from unnest(c.confkey)
        with ordinality as k (attnum, n)
        join pg_attribute as a on a.attrelid = c.confrelid and a.attnum = k.attnum)
from pg_catalog.pg_constraint as c
where c.contype = 'f' and c.conrelid = any (%s) and c.confrelid = any (%s) and c.conparentid = 0
order by c.conrelid, c.conkey, c.oid
"""


def _undeclared(table: Table, tables: dict[int, Table], taken: set[str]) -> list[Link]:
    """Return links without a foreign key, found by the names and types of columns."""
    links = []
    for column in table.columns:
        said = words(column.name)
        if column.name in taken or len(said) < 2 or said[-1] not in {"id", "uuid", "guid"}:
            continue
        found = [
            other
            for other in tables.values()
            if (other.oid != table.oid or said[0] == "parent")
            and (key := other.key) is not None
            and key.is_like(column)
            and other.words[-len(said) + 1 :] == said[:-1]
        ]
        if found:
            best = min(found, key=lambda t: (t.schema != table.schema, len(t.words), t.sql))
            key = best.key
            assert key is not None
            links.append(Link(table.oid, (column,), best.oid, (key.name,), declared=False))
    return links


# A policy or a function of the application may name the setting.
_CONTEXT = """
select c.setting
from (values
    ('request.jwt.claims', exists (
        select from pg_catalog.pg_proc as p
            join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
        where n.nspname = 'auth' and p.proname = 'uid') or 2 = (
        select count(*) from pg_catalog.pg_roles where rolname in ('authenticator', 'anon'))),
    ('hasura.user', exists (
        select from pg_catalog.pg_namespace where nspname = 'hdb_catalog')),
    ('pghistory.context_metadata', exists (
        select from pg_catalog.pg_proc where proname = '_pgh_attach_context')),
    ('app.current_user_id', false),
    ('jwt.claims.user_id', false)) as c (setting, is_there)
where c.is_there
    or exists (
        select from pg_catalog.pg_policy as p
        where strpos(concat(pg_catalog.pg_get_expr(p.polqual, p.polrelid),
            pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)), quote_literal(c.setting)) > 0)
    or exists (
        select from pg_catalog.pg_proc as f
            join pg_catalog.pg_namespace as n on n.oid = f.pronamespace
        where strpos(f.prosrc, quote_literal(c.setting)) > 0
            and n.nspname not in ('audit', 'audit_private', 'pg_catalog', 'information_schema'))
"""


@contextmanager
def read(conn: psycopg.Connection[Any], *, rows: bool = False) -> Iterator[Catalog]:
    """Yield the catalog of the application, in a read-only transaction."""
    with pinned(conn), psycopg.Cursor(conn, row_factory=tuple_row) as cursor:
        if not rows:
            cursor.execute("set transaction read only")
        cursor.execute("select audit.version()")  # Raises an error if auditdb is not installed.
        yield _read(cursor)


def _read(cursor: psycopg.Cursor[Any]) -> Catalog:
    heads = cursor.execute(_TABLES).fetchall()
    oids = [head[0] for head in heads]
    columns: dict[int, list[Column]] = defaultdict(list)
    for oid, *column in cursor.execute(_COLUMNS, (oids,)):
        columns[oid].append(Column(*column))
    keys: dict[int, list[tuple[str, ...]]] = defaultdict(list)
    partial: dict[int, list[tuple[str, ...]]] = defaultdict(list)
    primary = set()
    for oid, is_primary, is_partial, names in cursor.execute(_KEYS, (oids,)):
        (partial if is_partial else keys)[oid].append(tuple(names))
        if is_primary:
            primary.add(oid)
    foreign = cursor.execute(_FOREIGN_KEYS, (oids, oids)).fetchall()
    known = labels(head[2] for head in heads)
    schemas = cursor.execute("select nspname from pg_catalog.pg_namespace").fetchall()
    tables = {
        oid: Table(
            oid=oid,
            schema=schema,
            name=name,
            sql=quoted,
            owned=owned,
            inherited=inherited,
            has_primary_key=oid in primary,
            columns=tuple(columns[oid]),
            keys=tuple(keys[oid]),
            partial_keys=tuple(partial[oid]),
            label=first + "_" if (first := name.partition("_")[0]) in known else "",
        )
        for oid, schema, name, quoted, owned, inherited in heads
    }
    links: dict[int, list[Link]] = defaultdict(list)
    for source, target, on_delete, names, referenced in foreign:
        named = tables[source].named
        links[source].append(
            Link(source, tuple(named[n] for n in names), target, tuple(referenced), on_delete)
        )
    for oid, table in tables.items():
        taken = {column.name for link in links[oid] for column in link.columns}
        links[oid] += _undeclared(table, tables, taken)
    return Catalog(
        tables,
        {oid: tuple(links[oid]) for oid in tables},
        tuple(name for (name,) in schemas),
        cursor,
    )
