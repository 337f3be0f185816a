"""Finds the owner of a row: the column of its user, and the way to its organisation."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from auditdb.detect.catalog import Catalog, Column, Link, Table
from auditdb.detect.naming import flat, has_any, said, weights, words

USERS = weights("people.user")
GROUPS = weights("people.group")
MEMBERS = said("people.member")
ROLES = said("people.role")
NO_MEMBERS = said("people.no_member")
_ORGANIZATION_COLUMNS = said("people.organization_column")
_KEY_WORDS = said("column.key")


@dataclass(frozen=True)
class Membership:
    """A table whose rows put a user (or a member) into a group, or give a user a role.

    Without a group, a column names the organisation, or there is only one organisation.
    """

    table: Table
    group: Table | None
    score: int


def _rank_user_column(column: Column, users: Table | None, linked: bool) -> int | None:
    """Return how well a column names the user of a row: 0 is best, 3 is only its creator."""
    told = tuple(w for w in words(column.name) if w not in _KEY_WORDS)
    if (users is not None and told in {users.words, users.words[-1:]}) or told == ("user",):
        return 0
    if linked and len(told) == 1 and told[0] in said("column.person"):
        return 0
    if not linked and told in {("member",), ("person",)} and words(column.name)[-1] == "id":
        return 1
    if told and told[0] in said("column.holder"):
        return 1
    if told and told[0] in said("column.maker"):
        return 3
    if not linked:
        return None
    return 9 if told and "by" in (told[-1], *told[-2:-1]) else 2


def type_beside(table: Table, column: Column) -> Column | None:
    """Return the column such as owner_type that says which table an owner_id refers to."""
    name = flat(column.name)
    end = next((end for end in ("uuid", "id") if name.endswith(end)), "")
    said_by = name.removesuffix(end) + "type"
    return next(
        (c for c in table.columns if end and c.category in "SE" and flat(c.name) == said_by), None
    )


@dataclass
class Tenancy:
    """The recognised users, organisations and memberships."""

    catalog: Catalog
    users: Table | None = None
    organization: Table | None = None
    memberships: list[Membership] = field(default_factory=list)

    def user_column(self, table: Table) -> tuple[Column, int] | None:
        """Return the column for the user of a row, and how well it fits: 0 best, 3 its creator."""
        ranked: list[tuple[int, bool, int, Column]] = []
        linked: dict[str, bool] = {}
        for link in self.catalog.links[table.oid]:
            for column, name in zip(link.columns, link.referenced, strict=True):
                linked[column.name] = linked.get(column.name, False) or self._is_user(link, name)
        for n, column in enumerate(table.columns):
            if linked.get(column.name) is False or (table is self.users and column is table.key):
                continue
            key = self.users.key if self.users is not None else None
            if column.name not in linked and key is not None and not key.is_like(column):
                continue
            if column.name not in linked and type_beside(table, column) is not None:
                continue
            rank = _rank_user_column(column, self.users, linked.get(column.name, False))
            if rank is not None:
                ranked.append((rank, not column.not_null, n, column))
        if not ranked:
            return None
        best = min(ranked, key=lambda found: found[:3])
        return (best[3], best[0]) if best[0] < 9 else None

    def _is_user(self, link: Link, name: str) -> bool:
        """Whether a link leads to the users, or to a table that is one to one with them."""
        if self.users is None or self.users.key is None:
            return False
        if link.target == self.users.oid:
            return name == self.users.key.name
        target = self.catalog.tables[link.target]
        return target.is_unique(name) and any(
            further.target == self.users.oid and [c.name for c in further.columns] == [name]
            for further in self.catalog.links[target.oid]
        )

    def has_subject(self, table: Table) -> bool:
        """Whether a row leads to its user, directly or through a member or profile."""
        if self.user_column(table) is not None:
            return True
        for link in self.catalog.links[table.oid]:
            target = self.catalog.tables[link.target]
            column = self.user_column(target)
            if target is self.users or column is None or column[1] > 0 or target is table:
                continue
            if target.words[-1] in MEMBERS | {"profile", "person", "employee", "user"}:
                return True
        return False

    def is_permission_set(self, table: Table) -> bool:
        """Whether rows of a table are sets of permissions, not groups that own something."""
        if not set(table.words) & said("people.set"):
            return False
        if table.head in ROLES or any(
            self.catalog.tables[link.target].head == "role"
            for link in self.catalog.links[table.oid]
        ):
            return True
        for link in self.catalog.links_to(table):
            beside = self.catalog.tables[link.source]
            others = [
                self.catalog.tables[other.target]
                for other in self.catalog.links[beside.oid]
                if other is not link
            ]
            if self.users not in others and (
                any(other.head in ROLES for other in others)
                or (beside.head == "permission" and len(beside.columns) < 7)
            ):
                return True
        return False

    def organization_columns(self, table: Table) -> list[Column]:
        """Return the columns that name an organisation without a known table of organisations.

        A column may lead to the users, if people and organisations are in one table.
        """
        linked = {
            c.name: self.catalog.tables[link.target]
            for link in self.catalog.links[table.oid]
            for c in link.columns
        }
        return [
            c
            for c in table.columns
            if names_organization(c)
            and (
                c.name not in linked
                or (linked[c.name] is self.users and words(c.name)[0] not in USERS)
            )
        ]

    @cached_property
    def primary(self) -> Membership | None:
        """The memberships of organisations, without those of teams in them."""
        found = [m for m in self.memberships if m.group is self.organization]
        return max(found, key=lambda m: (m.score, m.table.sql), default=None)

    @cached_property
    def is_single(self) -> bool:
        """Whether there are users but no organisations: an application with one organisation."""
        if self.users is None or self.organization is not None:
            return False
        naming = {t.oid for t in self.catalog.tables.values() if any(self.organization_columns(t))}
        people = {self.users.oid, *(m.table.oid for m in self.memberships)}
        return not naming & people and len(naming) < 2

    # Whether a row leads to an organisation, by the rules of attach.

    def _by_column(self, table: Table) -> bool | None:
        """Whether a column names the organisation in every row; None without such a column."""
        org = self.organization
        if org is None or org.key is None:
            named = [c for c in table.columns if names_organization(c)]
            return any(c.not_null for c in named) if named else None
        links = [
            link
            for link in self.catalog.links[table.oid]
            if link.target == org.oid
            and table is not org
            and not has_any(link.columns[0].name, said("people.other_organization"))
        ]
        return any(link.not_null for link in links) if links else None

    def _through(self, table: Table, seen: frozenset[int]) -> bool | None:
        """Whether the whole that a row is part of leads to the organisation, in every row."""
        found = None
        for link in self.catalog.links[table.oid]:
            target = self.catalog.tables[link.target]
            if target in (self.users, self.organization) or target.oid in seen or len(seen) > 4:
                continue
            if link.not_null or target.head in GROUPS or link.on_delete == "c":
                inner = self.reaches(target, seen | {table.oid})
                if inner is not None:
                    found = found or (inner and link.not_null)
        return found

    def owners(self, table: Table) -> list[Table]:
        """Return the tables that say who owns the rows of a table or shares them."""
        names = said("people.sharing") | GROUPS.keys()
        found = []
        for link in self.catalog.links_to(table):
            beside = self.catalog.tables[link.source]
            linked = {c.name for k in self.catalog.links[beside.oid] for c in k.columns}
            if (
                link.declared
                and link.not_null
                and beside not in (self.users, self.organization)
                and set(beside.words) & names
                and not set(beside.words) & (NO_MEMBERS - set(table.words))
                and any(
                    link.columns[0].name in key and len(key) > 1 and set(key) <= linked
                    for key in beside.keys
                )
            ):
                found.append(beside)
        return found

    def _owned(self, table: Table, seen: frozenset[int]) -> bool:
        return any(
            beside.oid not in seen
            and (
                self.reaches(beside, seen | {table.oid}) is not None
                or (self.catalog.has_role(beside) and self.user_column(beside) is not None)
            )
            for beside in self.owners(table)
        )

    def reaches(self, table: Table, seen: frozenset[int] = frozenset()) -> bool | None:
        """Whether every row leads to an organisation without its user; None if no row does."""
        if table is self.organization:
            return True if table.key is not None else None
        own = self._by_column(table)
        if own or table is self.users:
            return own
        through = self._through(table, seen)
        if not through and not seen and self._owned(table, seen):
            return True
        return through if own is None else bool(through)

    def reaches_by_user(self, table: Table) -> bool:
        """Whether the user of a row leads to an organisation."""
        if self.memberships and table is self.users:
            return True
        column = self.user_column(table)
        if column is None or self.users is None or self.users.key is None:
            return False
        return self.names_user(table, column[0]) and (
            bool(self.memberships) or self._by_column(self.users) is not None
        )

    def names_user(self, table: Table, column: Column) -> bool:
        """Whether attach takes a column for the user of a row.

        It decides by the name. With a foreign key, it also takes a column that is never null and
        the only one to the users.
        """
        links = [
            (link.columns, link.declared)
            for link in self.catalog.links[table.oid]
            if self.users is not None and link.target == self.users.oid
        ]
        name = flat(column.name)
        if re.match("(user|ownerusr|owneruser|(created|issued)by)", name):
            return True
        if not any(columns == (column,) for columns, _ in links):
            return False
        return bool(re.fullmatch("(owner|member|person|profile|account)(id|uuid)", name)) or (
            column.not_null and [columns for columns, declared in links if declared] == [(column,)]
        )


def names_organization(column: Column) -> bool:
    """Whether a column is named like one that holds an organisation."""
    told = words(column.name)
    return told[0] in _ORGANIZATION_COLUMNS and told[1:] in {("id",), ("uuid",)}
