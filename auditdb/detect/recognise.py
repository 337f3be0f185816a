"""Recognises users, then groups that have members, then which group is the organisation."""

from __future__ import annotations

from auditdb.detect.catalog import Catalog, Table
from auditdb.detect.naming import flat, has, has_any, said, words
from auditdb.detect.tenancy import GROUPS, MEMBERS, NO_MEMBERS, ROLES, USERS, Membership, Tenancy


def recognise(catalog: Catalog) -> Tenancy:
    """Return the users, the organisations, and the memberships that connect them."""
    tenancy = Tenancy(catalog)
    tables = catalog.tables.values()
    scored = [(_user_score(tenancy, t), len(t.words), t.sql, t) for t in tables]
    best = min(((-s, n, sql, t) for s, n, sql, t in scored if s >= 4), default=None)
    tenancy.users = best[3] if best else None
    shaped = [m for t in tables for m in _shapes(tenancy, t)]
    tenancy.organization = _choose_organization(tenancy, shaped)
    shaped += [m for t in tables for m in _shapes_without_group(tenancy, t)]
    tenancy.memberships = _settle(tenancy, shaped)
    return tenancy


def _user_score(tenancy: Tenancy, table: Table) -> int:
    told = table.words
    email = any(
        words(c.name)[-1:] == ("email",) or flat(c.name) == "emailaddress" for c in table.columns
    )
    password = any(has_any(c.name, said("password.name")) for c in table.columns)
    signs_in = any(
        set(tenancy.catalog.tables[link.source].words) & said("people.signs_in")
        for link in tenancy.catalog.links_to(table)
    )
    score = USERS.get(told[-1], 0)
    if not score and not (email and (password or signs_in)):
        return 0
    score += 2 * email + 2 * password
    score += any(len(k) == 1 and has(k[0], "email") for k in table.keys)
    score += min(3, len(tenancy.catalog.links_to(table)) // 2)
    if has_any(table.name, said("people.other_users")):
        score -= 2
    if not email and any(w in GROUPS for w in told[:-1]):
        score -= 4
    for link in tenancy.catalog.links[table.oid]:
        if link.target != table.oid and tenancy.catalog.tables[link.target].words[-1:] == ("user",):
            score -= 4
            break
    return score


def _shapes(tenancy: Tenancy, table: Table) -> list[Membership]:
    """Return the groups that a table may put users into, each with a score."""
    user = tenancy.user_column(table)
    if table is tenancy.users or set(table.words) & NO_MEMBERS:
        return []
    member = user[0].name if user and user[1] <= 2 else _inner_member(tenancy, table)
    if member is None:
        return []
    return [
        Membership(table, group, _membership_score(tenancy, table, group, member, names))
        for link in tenancy.catalog.links[table.oid]
        for group in [tenancy.catalog.tables[link.target]]
        for names in [tuple(c.name for c in link.columns)]
        if group is not tenancy.users
        and group is not table
        and member not in names
        and group.head not in ROLES | said("people.member")
    ]


def _inner_member(tenancy: Tenancy, table: Table) -> str | None:
    """Return the column that names a member rather than a user."""
    for link in tenancy.catalog.links[table.oid]:
        if tenancy.catalog.tables[link.target].head in {"member", "membership"}:
            return link.columns[0].name
    return None


def _membership_score(
    tenancy: Tenancy, table: Table, group: Table, member: str, names: tuple[str, ...]
) -> int:
    told = set(table.words)
    score = 3 * tenancy.is_permission_set(group)
    if told & MEMBERS or ("user" in told and (group.head in told or told & GROUPS.keys())):
        score += 3
    score += 2 * bool(told & MEMBERS and group.head in told)
    score += 3 * tenancy.catalog.has_role(table)
    score += 2 * table.is_unique(member, *names) + tenancy.catalog.has_acceptance(table)
    score -= 2 * (len(table.columns) > 25)
    return score - 2 * (group.head not in GROUPS and not told & MEMBERS)


def _shapes_without_group(tenancy: Tenancy, table: Table) -> list[Membership]:
    """Return a membership whose organisation is a column, or that only gives a user a role."""
    told = set(table.words)
    user = tenancy.user_column(table)
    if table is tenancy.users or told & NO_MEMBERS or user is None or user[1] > 1:
        return []
    roles = [
        link
        for link in tenancy.catalog.links[table.oid]
        if tenancy.catalog.tables[link.target].head == "role"
    ]
    named = tenancy.organization_columns(table) if tenancy.organization is None else []
    score = 3 * bool(told & MEMBERS) + 3 * tenancy.catalog.has_role(table)
    score += tenancy.catalog.has_acceptance(table)
    if named:
        score += 2 * any(table.is_unique(user[0].name, column.name) for column in named)
        score += 3 * bool(roles) - 3 * (len(table.columns) > 15)
        return [Membership(table, None, score)]
    # Only a user, a role, and few other columns.
    if (roles or "role" in told) and len(table.columns) <= 8:
        keyed = any(user[0].name in key and len(key) > 1 for key in table.keys)
        return [Membership(table, None, 3 * bool(roles) + 2 * keyed + score)]
    return []


def _choose_organization(tenancy: Tenancy, shaped: list[Membership]) -> Table | None:
    tables = tenancy.catalog.tables
    peopled = {m.group.oid for m in shaped if m.group is not None and m.score >= 5}
    candidates = {
        t.oid
        for t in tables.values()
        if t is not tenancy.users
        and (t.head in GROUPS or t.oid in peopled)
        and not tenancy.is_permission_set(t)
    }
    above = _above(tenancy, candidates, peopled)
    user_links = tenancy.catalog.links[tenancy.users.oid] if tenancy.users else ()
    direct = {link.target for link in user_links}

    def points(table: Table) -> int:
        found = GROUPS.get(table.head, 0) + 3 * (table.oid in peopled or table.oid in above)
        found += 2 * (table.oid in direct)
        inside = {
            link.target
            for link in tenancy.catalog.links[table.oid]
            if link.target != table.oid
            and link.target in candidates | above
            and not (link.on_delete == "n" and table.oid in peopled)
        }
        found -= 3 * bool(inside)
        if inside & above and any(k.not_null for k in tenancy.catalog.links[table.oid]):
            found -= 3
        # An OAuth account or a billing customer belongs to a user, but has no members.
        owner = tenancy.user_column(table)
        if table.oid not in peopled and owner is not None and owner[1] == 0:
            found -= 4
        return found + min(2, len(tenancy.catalog.links_to(table)) // 3)

    known = peopled | above | direct
    ranked = sorted(
        (
            tables[oid]
            for oid in candidates | above
            # A vague name and no members: not an organisation.
            if GROUPS.get(tables[oid].head, 0) > 2 or oid in known
        ),
        key=lambda t: (points(t), len(tenancy.catalog.links_to(t)), t.sql),
    )
    return ranked[-1] if ranked and points(ranked[-1]) >= 3 else None


def _above(tenancy: Tenancy, candidates: set[int], peopled: set[int]) -> set[int]:
    """Return the table that groups belong to and that many other tables refer to."""
    tables = tenancy.catalog.tables
    return {
        link.target
        for oid in candidates & peopled
        for link in tenancy.catalog.links[oid]
        if link.not_null
        and link.target != oid
        and tables[link.target] is not tenancy.users
        and not set(tables[link.target].words) & (said("people.lookup") | NO_MEMBERS)
        and link.columns[0].name
        != (found[0].name if (found := tenancy.user_column(tables[oid])) else None)
        and (
            tables[link.target].head in GROUPS
            or len({other.source for other in tenancy.catalog.links_to(tables[link.target])}) > 2
        )
    }


def _settle(tenancy: Tenancy, shaped: list[Membership]) -> list[Membership]:
    """Keep one group for each table: the smallest, if it is part of a unique key."""
    best: dict[int, Membership] = {}
    for m in shaped:
        if m.score < 3 and not (m.group is tenancy.organization and _is_pair(tenancy, m)):
            continue
        known = best.get(m.table.oid)
        if known is None or _preference(tenancy, m) > _preference(tenancy, known):
            best[m.table.oid] = m
    return list(best.values())


def _is_pair(tenancy: Tenancy, m: Membership) -> bool:
    """Whether a row is one user in one group and refers to nothing else."""
    user = tenancy.user_column(m.table)
    links = tenancy.catalog.links[m.table.oid]
    return (
        user is not None
        and len(links) == 2
        and any(
            link.target == m.group.oid
            and m.table.is_unique(user[0].name, *(c.name for c in link.columns))
            for link in links
            if m.group is not None
        )
    )


def _preference(tenancy: Tenancy, m: Membership) -> tuple[bool, int, bool]:
    return (m.group is not None, m.score, m.group is tenancy.organization)
