"""Whose a row is: the tables of users and of organisations, and the ways from a row to both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from auditdb.detect.catalog import Catalog, Column, Link, Table
from auditdb.detect.naming import flat, has, words
from auditdb.detect.roles import role_column
from auditdb.detect.states import accepted

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
_NO_MEMBERS = frozenset(
    "favorite notification log event message session token key invite preference setting"
    " subscription vote like view follow follower bookmark star watch activity comment task order"
    " file audit read request history reminder webhook export import integration setup workflow"
    " credential password domain impersonation waitlist device document".split()
)


@dataclass(frozen=True)
class Found:
    """An expression over a row, and what the choice rests on."""

    sql: str
    why: str
    question: str | None = None
    not_null: bool = False
    type: str | None = None
    steps: int = 0


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

    def subject_of(self, table: Table, row: str = "r") -> Found | None:
        """Return the user that a row is about, by its own column or by its member or profile."""
        direct = self.user_column(table)
        if direct is not None and direct[1] < 3:
            why = f"{direct[0].name} is the user."
            return Found(f"{row}.{direct[0].sql}", why, not_null=direct[0].not_null)
        for link in self.catalog.links[table.oid]:
            target = self.catalog.tables[link.target]
            column = self.user_column(target)
            if target is self.users or column is None or column[1] > 0 or target is table:
                continue
            if target.words[-1] in _MEMBER_WORDS | {"profile", "person", "employee", "user"}:
                chosen = column[0].sql
                return Found(
                    self.lookup(link, row, lambda t, c=chosen: f"{t}.{c}"),  # type: ignore[misc]
                    f"The user of the {' '.join(target.words)}.",
                )
        if direct is not None:
            why = f"{direct[0].name} made it; no column says whose it is."
            return Found(f"{row}.{direct[0].sql}", why, not_null=direct[0].not_null)
        return None

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
            score += 3 * (role_column(table) is not None)
            score += 2 * table.is_unique(key, *names) + (accepted(table) is not None)
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

    def exists(self, link: Link, row: str, condition: Callable[[str], str]) -> str:
        """Return the condition that a link leads to a row for which another one holds."""
        target = self.catalog.tables[link.target]
        alias = alias_of(target, row)
        return (
            f"exists (select from {target.sql} as {alias} where {self._joined(link, row, alias)}"
            f" and {condition(alias)})"
        )

    def _joined(self, link: Link, row: str, alias: str) -> str:
        target = self.catalog.tables[link.target]
        return " and ".join(
            f"{alias}.{target.named[name].sql} = {row}.{column.sql}"
            for column, name in zip(link.columns, link.referenced, strict=True)
        )

    def lookup(self, link: Link, row: str, inner: Callable[[str], str]) -> str:
        """Return a scalar subquery over the row that a link leads to."""
        target = self.catalog.tables[link.target]
        alias = alias_of(target, row)
        joined = self._joined(link, row, alias)
        wanted = inner(alias)
        gap = "\n    " if "select" in wanted else " "
        return f"(select {wanted}{gap}from {target.sql} as {alias}{gap}where {joined})"


def alias_of(table: Table, row: str) -> str:
    """Return a name for a row of the table that does not hide the row it is reached from."""
    letter = (table.words[-1] if table.words else table.name)[0].lower()
    letter = letter if letter.isascii() and letter.isalpha() and letter not in "rx" else "z"
    depth = 1 if row in {"r", "{row}"} else int(row[1:] or 1) + 1
    return f"{letter}{depth}" if depth > 1 else letter
