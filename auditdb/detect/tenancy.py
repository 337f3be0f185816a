"""Whose a row is: the tables of users and of organisations, and whether a row leads to both."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from auditdb.detect.catalog import Catalog, Column, Link, Table
from auditdb.detect.naming import flat, has, has_any, said, weights, words

USERS = weights("people.user")
GROUPS = weights("people.group")
MEMBERS = said("people.member")
ROLES = said("people.role")
_NO_MEMBERS = said("people.no_member")
_ORGANIZATION_COLUMNS = said("people.organization_column")
_KEY_WORDS = frozenset(("id", "uuid", "fk", "ref", "guid"))


@dataclass(frozen=True)
class Membership:
    """A table whose rows put a user (or a member) into a group, or give a user a role.

    Without a group, a column of the row names the organisation, or there is one for all.
    """

    table: Table
    group: Table | None
    score: int


def _rank_user_column(column: Column, users: Table | None, linked: bool) -> int | None:
    """Return how well a column names the user that a row is about: 0 best, 3 its maker."""
    told = tuple(w for w in words(column.name) if w not in _KEY_WORDS)
    if (users is not None and told in {users.words, users.words[-1:]}) or told == ("user",):
        return 0
    if linked and told in {("member",), ("person",), ("profile",), ("account",), ("customer",)}:
        return 0
    if not linked and told in {("member",), ("person",)} and words(column.name)[-1] == "id":
        return 1
    if told and told[0] in {"owner", "holder", "owned"}:
        return 1
    if told and told[0] in {"created", "creator", "author", "issued", "issuer", "generated"}:
        return 3
    if not linked:
        return None
    return 9 if told and "by" in (told[-1], *told[-2:-1]) else 2


@dataclass
class Tenancy:
    """What was found out about users, organisations and memberships."""

    catalog: Catalog
    users: Table | None = None
    organization: Table | None = None
    memberships: list[Membership] = field(default_factory=list)

    @classmethod
    def of(cls, catalog: Catalog) -> Self:
        """Find users first, then groups with members, then which group is the organisation."""
        self = cls(catalog)
        scored = [(self._user_score(t), len(t.words), t.sql, t) for t in catalog.tables.values()]
        best = min(((-s, n, sql, t) for s, n, sql, t in scored if s >= 4), default=None)
        self.users = best[3] if best else None
        shaped = [m for t in catalog.tables.values() for m in self._shapes(t)]
        self.organization = self._choose_organization(shaped)
        shaped += [m for t in catalog.tables.values() for m in self._shapes_without_group(t)]
        self.memberships = self._settle(shaped)
        return self

    def _user_score(self, table: Table) -> int:
        told = table.words
        email = any(
            words(c.name)[-1:] == ("email",) or flat(c.name) == "emailaddress"
            for c in table.columns
        )
        password = any(has(c.name, "password", "passwd") for c in table.columns)
        score = USERS.get(told[-1], 0)
        if not score and not (email and password):
            return 0
        score += 2 * email + 2 * password
        score += any(len(k) == 1 and has(k[0], "email") for k in table.keys)
        score += min(3, len(self.catalog.links_to(table)) // 2)
        if has_any(table.name, said("people.other_users")):
            score -= 2
        if not email and any(w in GROUPS for w in told[:-1]):
            score -= 4
        for link in self.catalog.links[table.oid]:
            if link.target != table.oid and self.catalog.tables[link.target].words[-1:] == (
                "user",
            ):
                score -= 4
                break
        return score

    def user_column(self, table: Table) -> tuple[Column, int] | None:
        """Return the column that tells the user of a row, and how well: 0 best, 3 its maker."""
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
            rank = _rank_user_column(column, self.users, linked.get(column.name, False))
            if rank is not None:
                ranked.append((rank, not column.not_null, n, column))
        if not ranked:
            return None
        best = min(ranked, key=lambda found: found[:3])
        return (best[3], best[0]) if best[0] < 9 else None

    def _is_user(self, link: Link, name: str) -> bool:
        """Whether a link's column holds a user's key: of users, or of what is one to one."""
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
        """Whether a row says its user, by its own column or by its member or profile."""
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
        """Whether rows of a table are sets of permissions, and no groups that own anything."""
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

    def _shapes(self, table: Table) -> list[Membership]:
        """Return the groups that a table might put users into, and how much speaks for it."""
        user = self.user_column(table)
        if table is self.users or set(table.words) & _NO_MEMBERS:
            return []
        member = user[0].name if user and user[1] <= 2 else self._inner_member(table)
        if member is None:
            return []
        return [
            Membership(table, group, self._membership_score(table, group, member, names))
            for link in self.catalog.links[table.oid]
            for group in [self.catalog.tables[link.target]]
            for names in [tuple(c.name for c in link.columns)]
            if group is not self.users
            and group is not table
            and member not in names
            and group.head not in ROLES | said("people.member")
        ]

    def _inner_member(self, table: Table) -> str | None:
        """Return the column that names a member rather than a user."""
        for link in self.catalog.links[table.oid]:
            if self.catalog.tables[link.target].head in {"member", "membership"}:
                return link.columns[0].name
        return None

    def _membership_score(
        self, table: Table, group: Table, member: str, names: tuple[str, ...]
    ) -> int:
        told = set(table.words)
        score = 3 * self.is_permission_set(group)
        if told & MEMBERS or ("user" in told and (group.head in told or told & GROUPS.keys())):
            score += 3
        score += 2 * bool(told & MEMBERS and group.head in told)
        score += 3 * self.catalog.has_role(table)
        score += 2 * table.is_unique(member, *names) + self.catalog.has_acceptance(table)
        score -= 2 * (len(table.columns) > 25)
        return score - 2 * (group.head not in GROUPS and not told & MEMBERS)

    def _shapes_without_group(self, table: Table) -> list[Membership]:
        """Return a membership whose organisation is a column, or that gives a user a role."""
        told = set(table.words)
        user = self.user_column(table)
        if table is self.users or told & _NO_MEMBERS or user is None or user[1] > 1:
            return []
        roles = [
            link
            for link in self.catalog.links[table.oid]
            if self.catalog.tables[link.target].head == "role"
        ]
        named = self._organization_columns(table) if self.organization is None else []
        score = 3 * bool(told & MEMBERS) + 3 * self.catalog.has_role(table)
        score += self.catalog.has_acceptance(table)
        if named:
            score += 2 * any(table.is_unique(user[0].name, column.name) for column in named)
            score += 3 * bool(roles) - 3 * (len(table.columns) > 15)
            return [Membership(table, None, score)]
        # A user and a role, and hardly anything else.
        if (roles or "role" in told) and len(table.columns) <= 8:
            keyed = any(user[0].name in key and len(key) > 1 for key in table.keys)
            return [Membership(table, None, 3 * bool(roles) + 2 * keyed + score)]
        return []

    def _organization_columns(self, table: Table) -> list[Column]:
        """Return the columns that name an organisation which no table of them is known for.

        One may lead to the users, where people and organisations are in one table.
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

    def _choose_organization(self, shaped: list[Membership]) -> Table | None:
        tables = self.catalog.tables
        peopled = {m.group.oid for m in shaped if m.group is not None and m.score >= 5}
        candidates = {
            t.oid
            for t in tables.values()
            if t is not self.users
            and (t.head in GROUPS or t.oid in peopled)
            and not self.is_permission_set(t)
        }
        above = self._above(candidates, peopled)
        user_links = self.catalog.links[self.users.oid] if self.users else ()
        direct = {link.target for link in user_links}

        def points(table: Table) -> int:
            found = GROUPS.get(table.head, 0) + 3 * (table.oid in peopled or table.oid in above)
            found += 2 * (table.oid in direct)
            inside = {
                link.target
                for link in self.catalog.links[table.oid]
                if link.target != table.oid
                and link.target in candidates | above
                and not (link.on_delete == "n" and table.oid in peopled)
            }
            found -= 3 * bool(inside)
            if inside & above and any(k.not_null for k in self.catalog.links[table.oid]):
                found -= 3
            # An OAuth account, a billing customer: somebody's, and nobody is in it.
            owner = self.user_column(table)
            if table.oid not in peopled and owner is not None and owner[1] == 0:
                found -= 4
            return found + min(2, len(self.catalog.links_to(table)) // 3)

        known = peopled | above | direct
        ranked = sorted(
            (
                tables[oid]
                for oid in candidates | above
                # A word that says little, and nobody in it, is no organisation.
                if GROUPS.get(tables[oid].head, 0) > 2 or oid in known
            ),
            key=lambda t: (points(t), len(self.catalog.links_to(t)), t.sql),
        )
        return ranked[-1] if ranked and points(ranked[-1]) >= 3 else None

    def _above(self, candidates: set[int], peopled: set[int]) -> set[int]:
        """Return what groups of people belong to, whatever it is called: much else leads there."""
        tables = self.catalog.tables
        return {
            link.target
            for oid in candidates & peopled
            for link in self.catalog.links[oid]
            if link.not_null
            and link.target != oid
            and tables[link.target] is not self.users
            and not set(tables[link.target].words) & (said("people.lookup") | _NO_MEMBERS)
            and link.columns[0].name
            != (found[0].name if (found := self.user_column(tables[oid])) else None)
            and (
                tables[link.target].head in GROUPS
                or len({other.source for other in self.catalog.links_to(tables[link.target])}) > 2
            )
        }

    def _settle(self, shaped: list[Membership]) -> list[Membership]:
        """Keep one group for each table: the smallest, if it is part of what makes a row unique."""
        best: dict[int, Membership] = {}
        for m in shaped:
            if m.score < 3:
                continue
            known = best.get(m.table.oid)
            if known is None or self._preference(m) > self._preference(known):
                best[m.table.oid] = m
        return list(best.values())

    def _preference(self, m: Membership) -> tuple[bool, int, bool]:
        return (m.group is not None, m.score, m.group is self.organization)

    @cached_property
    def primary(self) -> Membership | None:
        """The memberships of organisations, as against those of teams inside them."""
        found = [m for m in self.memberships if m.group is self.organization]
        return max(found, key=lambda m: (m.score, m.table.sql), default=None)

    @cached_property
    def is_single(self) -> bool:
        """Whether there are users and no organisations: one application, one organisation."""
        if self.users is None or self.organization is not None:
            return False
        naming = {t.oid for t in self.catalog.tables.values() if any(self._organization_columns(t))}
        people = {self.users.oid, *(m.table.oid for m in self.memberships)}
        return not naming & people and len(naming) < 2

    # Whether a row leads to an organisation, as attach finds the way.

    def _own(self, table: Table) -> bool | None:
        """Whether a column of the row says the organisation, in every row; none if no column."""
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
        """Whether rows that it is part of say the organisation of a row, and of every row."""
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
        """Return the tables beside a table that say whose its rows are, or with whom shared."""
        names = {"shared", "share", "owner", "user", "member", "access", "relation", *GROUPS}
        found = []
        for link in self.catalog.links_to(table):
            beside = self.catalog.tables[link.source]
            linked = {c.name for k in self.catalog.links[beside.oid] for c in k.columns}
            if (
                link.declared
                and link.not_null
                and beside not in (self.users, self.organization)
                and set(beside.words) & names
                and not set(beside.words) & (_NO_MEMBERS - set(table.words))
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
        """Whether a row leads to an organisation without its user, in every row; none if never."""
        if table is self.organization:
            return True if table.key is not None else None
        own = self._own(table)
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
        return bool(self.memberships) or self._own(self.users) is not None


def names_organization(column: Column) -> bool:
    """Whether a column is named as one that holds an organisation."""
    told = words(column.name)
    return told[0] in _ORGANIZATION_COLUMNS and told[1:] in {("id",), ("uuid",)}
