"""The catalog of a database as frozen objects: tables, columns, keys, links between tables."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from auditdb.connection.pin import pinned
from auditdb.detect.naming import words


@dataclass(frozen=True)
class Column:
    """A column: its type, whether it must be there, and the labels that it may hold."""

    name: str
    sql: str  # quoted where it has to be
    type: str
    category: str  # pg_type.typcategory: B boolean, D time, E enum, S string, N number, A array
    not_null: bool
    default: str | None
    labels: tuple[str, ...]  # of the enum, else the literals of check constraints
    is_enum: bool = False  # or an array of one
    modifier: int = -1  # pg_attribute.atttypmod: of varchar the length and 4

    def is_like(self, other: Column) -> bool:
        """Whether the two could hold the same identifiers."""
        return self.type == other.type or self.category == other.category != "U"


@dataclass(frozen=True)
class Link:
    """A foreign key, or columns that are one in all but declaration."""

    source: int
    columns: tuple[Column, ...]
    target: int
    referenced: tuple[str, ...]
    on_delete: str = "a"  # pg_constraint.confdeltype: c cascade, n set null, a none
    declared: bool = True

    @property
    def not_null(self) -> bool:
        """Whether every row has one."""
        return all(column.not_null for column in self.columns)


@dataclass(frozen=True)
class Table:
    """A table with its columns in order and its unique keys, the primary key first."""

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

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words of its name."""
        return words(self.name)

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
        """Return whether some unique key consists of exactly these columns."""
        return any(set(key) == set(names) for key in self.keys + self.partial_keys)

    @property
    def identities(self) -> tuple[tuple[Column, ...], ...]:
        """What tells its rows apart: the primary key, then each unique key without nulls."""
        keys = [tuple(self.named[name] for name in key) for key in self.keys]
        return tuple(
            columns
            for n, columns in enumerate(keys)
            if (n == 0 and self.has_primary_key) or all(c.not_null for c in columns)
        )


@dataclass(frozen=True)
class Catalog:
    """The application's tables and the links between them."""

    tables: dict[int, Table]
    links: dict[int, tuple[Link, ...]]
    schemas: tuple[str, ...]

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
    b.typcategory::text, a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
    array(select e.enumlabel::text from pg_enum as e
        where e.enumtypid = case when b.typcategory = 'A' then b.typelem else b.oid end
        order by e.enumsortorder),
    array(select pg_get_constraintdef(k.oid) from pg_constraint as k
        where k.contype = 'c' and (k.conrelid = a.attrelid and k.conkey = array[a.attnum]
            or k.contypid = t.oid)),
    a.atttypmod
from pg_catalog.pg_attribute as a
    join pg_catalog.pg_type as t on t.oid = a.atttypid
    join pg_catalog.pg_type as b
        on b.oid = case when t.typtype = 'd' then t.typbasetype else t.oid end
    left join pg_catalog.pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
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


def _literals(checks: list[str]) -> tuple[str, ...]:
    """Return the texts that the check constraints of a column name."""
    found = (text for check in checks for text in re.findall(r"'((?:[^']|'')*)'", check))
    return tuple(dict.fromkeys(text.replace("''", "'") for text in found))


def _undeclared(table: Table, tables: dict[int, Table], taken: set[str]) -> list[Link]:
    """Return the links that column names and types show where no foreign key is declared."""
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


def read(conn: psycopg.Connection[Any]) -> Catalog:
    """Return the application's part of the catalog, in a read-only transaction."""
    with pinned(conn), psycopg.Cursor(conn, row_factory=tuple_row) as cursor:
        cursor.execute("set transaction read only")
        heads = cursor.execute(_TABLES).fetchall()
        oids = [head[0] for head in heads]
        columns: dict[int, list[Column]] = defaultdict(list)
        for (
            oid,
            name,
            quoted,
            of_type,
            category,
            not_null,
            default,
            labels,
            checks,
            modifier,
        ) in cursor.execute(_COLUMNS, (oids,)):
            held = tuple(labels) or _literals(checks)
            columns[oid].append(
                Column(
                    name, quoted, of_type, category, not_null, default, held, bool(labels), modifier
                )
            )
        keys: dict[int, list[tuple[str, ...]]] = defaultdict(list)
        partial: dict[int, list[tuple[str, ...]]] = defaultdict(list)
        primary = set()
        for oid, is_primary, is_partial, names in cursor.execute(_KEYS, (oids,)):
            (partial if is_partial else keys)[oid].append(tuple(names))
            if is_primary:
                primary.add(oid)
        foreign = cursor.execute(_FOREIGN_KEYS, (oids, oids)).fetchall()
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
        tables, {oid: tuple(links[oid]) for oid in tables}, tuple(name for (name,) in schemas)
    )
