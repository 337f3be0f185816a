"""Which columns of a table attach redacts by default: audit_private.secret_columns in Python."""

from __future__ import annotations

from auditdb.detect.catalog import Catalog, Column, Table
from auditdb.mapping.kinds import KINDS
from auditdb.mapping.vocabulary import is_secret, normal_name, says

_PLAIN_ARRAYS = frozenset(
    "smallint integer bigint numeric real double boolean date uuid inet cidr oid time timestamp"
    " interval money".split()
)


def is_store(table: Table, kind: str) -> bool:
    """Return whether a table holds credentials: by the kind, else by its name and its columns."""
    known = KINDS.get(kind)
    if known is not None and known.credentials is not None:
        return known.credentials
    return says("stores", table.name) or (
        says("stores_with_a_secret", table.name)
        and any(c.category not in "BDT" and is_secret(c.name) for c in table.columns)
    )


def _is_harmless_type(column: Column) -> bool:
    if column.category == "A":
        element = column.type.removesuffix("[]")
        return column.is_enum or element.split()[0] in _PLAIN_ARRAYS
    return column.category in "BDTNIE" or column.type == "uuid"


def _holds_hash(table: Table, column: Column) -> bool:
    """Return whether an identifier looks made of the prefix and the hash that stand beside it."""
    return (
        column.type == "character varying"
        and column.modifier > 64
        and any(normal_name(c.name).endswith("-prefix-") for c in table.columns)
        and any(
            {"hash", "hashed", "digest"} & set(normal_name(c.name).split("-"))
            and (c.type, c.modifier) == (column.type, column.modifier)
            for c in table.columns
            if c is not column
        )
    )


def _is_secret(table: Table, column: Column, store: bool) -> bool:
    name = normal_name(column.name)
    if column.category in "BDT":
        return False
    if (column.category == "N" or column.type == "uuid") and name.endswith(("id-", "ids-")):
        return False
    if is_secret(column.name):
        return True
    if _is_harmless_type(column):
        return False
    if says("headers", column.name):
        return True
    if says("connectors", table.name) and says("connector_columns", column.name):
        return True
    return store and (not says("harmless", column.name) or _holds_hash(table, column))


def secret_columns(catalog: Catalog, table: Table, kind: str) -> frozenset[str]:
    """Return the names of the columns that attach redacts unless it is told otherwise."""
    return frozenset(
        column.name
        for column in table.columns
        if any(
            _is_secret(end, end.named[name], is_store(end, kind if end is table else ""))
            for end, name in _ends(catalog, table, column.name)
        )
    )


def _ends(catalog: Catalog, table: Table, column: str) -> set[tuple[Table, str]]:
    """Return where foreign keys lead from a column; the column itself if nowhere."""
    ends, seen, ahead = set(), set(), [(table, column)]
    while ahead:
        here = ahead.pop()
        if here in seen:
            continue
        seen.add(here)
        further = [
            (catalog.tables[link.target], name)
            for link in catalog.links[here[0].oid]
            if link.declared
            for source, name in zip(link.columns, link.referenced, strict=True)
            if source.name == here[1]
        ]
        if further:
            ahead += further
        else:
            ends.add(here)
    return ends
