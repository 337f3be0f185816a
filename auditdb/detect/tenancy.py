"""Whose a row is: the tables of users and of organisations, and whether a row leads to both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from auditdb.detect.catalog import Catalog, Column, Link, Table
from auditdb.detect.naming import flat, has, words

_USER_WORDS = {"user": 4, "person": 3, "account": 2, "member": 2, "login": 2, "identity": 1}
_USER_WORDS |= {"profile": 1, "customer": 1, "employee": 1, "principal": 2}
GROUP_WORDS = {"organization": 4, "tenant": 4, "company": 3, "workspace": 3, "account": 3}
GROUP_WORDS |= {"business": 3, "agency": 3, "enterprise": 3, "institution": 3, "firm": 3}
GROUP_WORDS |= dict.fromkeys(("customer", "client", "team", "school", "space", "realm"), 2)
GROUP_WORDS |= dict.fromkeys(("store", "shop", "brand", "merchant", "vendor", "partner"), 2)
GROUP_WORDS |= dict.fromkeys(("group", "project", "department", "club", "community", "unit"), 1)
_MEMBER_WORDS = frozenset(
    "member membership participant collaborator seat affiliation enrollment".split()
)
_ORGANIZATIONS = frozenset("organization tenant workspace company account customer team".split())
_NO_MEMBERS = frozenset(
    "favorite notification log event message session token key invite preference setting"
    " subscription vote like view follow follower bookmark star watch activity comment task order"
    " file audit read request history reminder webhook export import integration setup workflow"
    " credential password domain impersonation waitlist device document".split()
)


@dataclass(frozen=True)
class Membership:
    """A table whose rows put a user (or a member) into a group."""

    table: Table
    group: Table
    score: int


def _rank_user_column(column: Column, users: Table | None, linked: bool) -> int | None:
    """Return how well a column names the user that a row is about: 0 best, 3 its maker."""
    said = tuple(w for w in words(column.name) if w not in {"id", "uuid", "fk", "ref", "guid"})
    if (users is not None and said in {users.words, users.words[-1:]}) or said == ("user",):
        return 0
    if linked and said in {("member",), ("person",), ("profile",), ("account",), ("customer",)}:
        return 0
    if not linked and said in {("member",), ("person",)} and words(column.name)[-1] == "id":
        return 1
    if said and said[0] in {"owner", "holder", "owned"}:
        return 1
    if said and said[0] in {"created", "creator", "author", "issued", "issuer", "generated"}:
        return 3
    if not linked:
        return None
    return (
        9 if column.name.lower().endswith(("by", "by_id", "byid", "byuserid", "by_user_id")) else 2
    )


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
        self.memberships = self._settle(shaped)
        return self

    def _user_score(self, table: Table) -> int:
        said = table.words
        email = any(
            words(c.name)[-1:] == ("email",) or flat(c.name) == "emailaddress"
            for c in table.columns
        )
        password = any(has(c.name, "password", "passwd") for c in table.columns)
        score = _USER_WORDS.get(said[-1] if said else "", 0)
        if not score and not (email and password):
            return 0
        score += 2 * email + 2 * password
        score += any(len(k) == 1 and has(k[0], "email") for k in table.keys)
        score += min(3, len(self.catalog.links_to(table)) // 2)
        if has(
            table.name, "admin", "staff", "system", "invite", "external", "contact", "anonymous"
        ):
            score -= 2
        if not email and any(w in GROUP_WORDS for w in said[:-1]):
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
            if target.words[-1] in _MEMBER_WORDS | {"profile", "person", "employee", "user"}:
                return True
        return False

    def _shapes(self, table: Table) -> list[Membership]:
        """Return the groups that a table might put users into, and how much speaks for it."""
        said = set(table.words)
        user = self.user_column(table)
        if table is self.users or said & _NO_MEMBERS:
            return []
        member = user[0].name if user and user[1] <= 2 else None
        found = []
        for link in self.catalog.links[table.oid]:
            group = self.catalog.tables[link.target]
            names = [c.name for c in link.columns]
            if group is self.users or group is table or member in names:
                continue
            if group.words[-1:] == ("role",):
                continue
            if member is None:
                inner = next(
                    (
                        other
                        for other in self.catalog.links[table.oid]
                        if other is not link
                        and self.catalog.tables[other.target].words[-1:]
                        in {("member",), ("membership",)}
                    ),
                    None,
                )
                if inner is None or group.words[-1:] in {("member",), ("membership",)}:
                    continue
                key = inner.columns[0].name
            else:
                key = member
            score = 0
            if said & _MEMBER_WORDS or (
                "user" in said and (group.words[-1] in said or said & set(GROUP_WORDS))
            ):
                score += 3
            score += 2 * bool(said & _MEMBER_WORDS and group.words[-1] in said)
            score += 3 * (self.catalog.has_role(table))
            score += 2 * table.is_unique(key, *names) + (self.catalog.has_acceptance(table))
            score -= 2 * (len(table.columns) > 25)
            score -= 2 * (group.words[-1] not in GROUP_WORDS and not said & _MEMBER_WORDS)
            found.append(Membership(table, group, score))
        return found

    def _choose_organization(self, shaped: list[Membership]) -> Table | None:
        peopled = {m.group.oid for m in shaped if m.score >= 5}
        candidates = {
            t.oid
            for t in self.catalog.tables.values()
            if t is not self.users
            and ((t.words[-1:] and t.words[-1] in GROUP_WORDS) or t.oid in peopled)
        }
        user_links = self.catalog.links[self.users.oid] if self.users else ()

        def score(table: Table) -> tuple[int, int, str]:
            points = GROUP_WORDS.get(table.words[-1], 0) + 3 * (table.oid in peopled)
            points += 2 * any(link.target == table.oid for link in user_links)
            inside = {
                link.target
                for link in self.catalog.links[table.oid]
                if link.target != table.oid
                and link.target in candidates
                and not (link.on_delete == "n" and table.oid in peopled)
            }
            points -= 3 * bool(inside)
            # An OAuth account, a billing customer: somebody's, and nobody is in it.
            owner = self.user_column(table)
            if table.oid not in peopled and owner is not None and owner[1] == 0:
                points -= 4
            incoming = len(self.catalog.links_to(table))
            return (points + min(2, incoming // 3), incoming, table.sql)

        ranked = sorted((self.catalog.tables[oid] for oid in candidates), key=score)
        return ranked[-1] if ranked and score(ranked[-1])[0] >= 3 else None

    def _settle(self, shaped: list[Membership]) -> list[Membership]:
        """Keep one group for each table: the smallest, if it is part of what makes a row unique."""
        best: dict[int, Membership] = {}
        for m in shaped:
            if m.score < 3:
                continue
            known = best.get(m.table.oid)
            if known is None or (m.score, m.group is self.organization) > (
                known.score,
                known.group is self.organization,
            ):
                best[m.table.oid] = m
        return list(best.values())

    @property
    def primary(self) -> Membership | None:
        """The memberships of organisations, as against those of teams inside them."""
        found = [m for m in self.memberships if m.group is self.organization]
        return max(found, key=lambda m: (m.score, m.table.sql), default=None)

    # Whether a row leads to an organisation, as attach finds the way.

    def _own(self, table: Table) -> bool | None:
        """Whether a column of the row says the organisation, in every row; none if no column."""
        org = self.organization
        if org is None or org.key is None:
            named = [c for c in table.columns if _names_organization(c)]
            return any(c.not_null for c in named) if named else None
        links = [
            link
            for link in self.catalog.links[table.oid]
            if link.target == org.oid
            and table is not org
            and not has(link.columns[0].name, "parent", "source", "invited", "partner", "billing")
        ]
        return any(link.not_null for link in links) if links else None

    def _through(self, table: Table, seen: frozenset[int]) -> bool | None:
        """Whether rows that it is part of say the organisation of a row, and of every row."""
        found = None
        for link in self.catalog.links[table.oid]:
            target = self.catalog.tables[link.target]
            if target in (self.users, self.organization) or target.oid in seen or len(seen) > 4:
                continue
            if link.not_null or target.words[-1] in GROUP_WORDS or link.on_delete == "c":
                inner = self.reaches(target, seen | {table.oid})
                if inner is not None:
                    found = found or (inner and link.not_null)
        return found

    def reaches(self, table: Table, seen: frozenset[int] = frozenset()) -> bool | None:
        """Whether a row leads to an organisation without its user, in every row; none if never."""
        if table is self.organization:
            return True if table.key is not None else None
        own = self._own(table)
        if own or table is self.users:
            return own
        through = self._through(table, seen)
        return through if own is None else bool(through)

    def reaches_by_user(self, table: Table) -> bool:
        """Whether the user of a row leads to an organisation."""
        if self.primary is not None and table is self.users:
            return True
        column = self.user_column(table)
        if column is None or self.users is None or self.users.key is None:
            return False
        return self.primary is not None or self._own(self.users) is not None


def _names_organization(column: Column) -> bool:
    said = words(column.name)
    return said[:1] != () and said[0] in _ORGANIZATIONS and said[1:] in {("id",), ("uuid",)}
