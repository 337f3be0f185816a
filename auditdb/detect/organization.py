"""The ways from a row to its organisation: a column, groups on the way, the user's membership."""

from __future__ import annotations

from dataclasses import replace

from auditdb.detect.catalog import Column, Link, Table
from auditdb.detect.naming import flat, has, words
from auditdb.detect.states import accepted, alive
from auditdb.detect.tenancy import GROUP_WORDS, Found, Membership, Tenancy, alias_of

# Groups that nest inside an organisation; an organisation with a parent is still one of its own.
_NESTED = frozenset(("team", "group", "unit", "space", "workspace", "department"))


class Ways(Tenancy):
    """Users, organisations and memberships, and how a row leads to its organisation."""

    @property
    def parent(self) -> Column | None:
        """The column of the organisation's table that names the group it belongs to, if any."""
        table = self.organization
        if table is None or table.words[-1] not in _NESTED:
            return None
        for link in self.catalog.links[table.oid]:
            if link.target == table.oid and len(link.columns) == 1:
                return link.columns[0]
        return None

    def _own(self, row: str) -> str:
        """The organisation of a row of the organisations' table."""
        table = self.organization
        assert table is not None and table.key is not None
        key = f"{row}.{table.key.sql}"
        return f"coalesce({row}.{self.parent.sql}, {key})" if self.parent else key

    def _direct(self, table: Table, row: str) -> Found | None:
        """The organisation by a column of the row."""
        org = self.organization
        if org is None or org.key is None:
            return self._by_name(table, row)
        links = [
            link
            for link in self.catalog.links[table.oid]
            if link.target == org.oid
            and (table is not org)
            and not has(link.columns[0].name, "parent", "source", "invited", "partner", "billing")
        ]
        if not links:
            return None
        link = min(
            links,
            key=lambda k: (
                not {*org.words[-1:], "organization"} & set(words(k.columns[-1].name)),
                not k.not_null,
                len(k.columns),
                k.columns[0].name,
            ),
        )
        for column, name in zip(link.columns, link.referenced, strict=True):
            if name == org.key.name and (
                not self.parent
                or (has(column.name, "organization") and org.words[-1] != "organization")
            ):
                why = f"{column.name} references {org.name}."
                return Found(f"{row}.{column.sql}", why, None, column.not_null, column.type)
        why = f"Through {link.columns[0].name} to {org.name}" + (
            f": its {self.parent.name} where it has one, else itself." if self.parent else "."
        )
        return Found(
            self.lookup(link, row, self._own), why, None, link.not_null, org.key.type, steps=1
        )

    def _by_name(self, table: Table, row: str) -> Found | None:
        for wanted in (
            "organization",
            "tenant",
            "workspace",
            "company",
            "account",
            "customer",
            "team",
        ):
            for column in table.columns:
                if words(column.name) in {(wanted, "id"), (wanted, "uuid"), (wanted,)}:
                    if column.category in "BDA" or (
                        len(words(column.name)) == 1 and column.category == "E"
                    ):
                        continue
                    why = (
                        f"{column.name} names the organisation; no table of organisations is here."
                    )
                    return Found(f"{row}.{column.sql}", why, None, column.not_null, column.type)
        return None

    def _through(self, table: Table, row: str, seen: frozenset[int]) -> list[Found]:
        """The organisation by way of other tables, the best ways first."""
        ways = []
        for link in self.catalog.links[table.oid]:
            target = self.catalog.tables[link.target]
            if target in (self.users, self.organization) or target.oid in seen or len(seen) > 4:
                continue
            grouped = target.words[-1] in GROUP_WORDS
            if not link.not_null and not grouped and link.on_delete != "c":
                continue
            inner = self.organization_of(
                target, alias_of(target, row), seen | {table.oid}, user=False
            )
            if inner is None:
                continue
            found = Found(
                self.lookup(link, row, lambda _, sql=inner.sql: sql),  # type: ignore[misc]
                f"Through {link.columns[0].name} to {target.name}. {inner.why}",
                inner.question,
                link.not_null and inner.not_null,
                inner.type,
                inner.steps + 1,
            )
            ways.append(((not found.not_null, found.steps, not grouped, found.sql), found))
        return [found for _, found in sorted(ways, key=lambda way: way[0])]

    def organization_of(
        self, table: Table, row: str = "r", seen: frozenset[int] = frozenset(), user: bool = True
    ) -> Found | None:
        """Return the organisation of a row: by its column, through groups, through its user."""
        if table is self.organization and table.key is not None:
            return Found(self._own(row), "The organisation itself.", None, True, table.key.type)
        direct = self._direct(table, row)
        ways = [direct] if direct else []
        if not (direct and direct.not_null) and table is not self.users:
            through = self._through(table, row, seen)
            ways += through[:1] if through and through[0].not_null else through[:2]
        if user and not any(way.not_null for way in ways):
            ways += self._through_user(table, row)
        return _first_of(ways) if ways else None

    def _through_user(self, table: Table, row: str) -> list[Found]:
        """The organisation of the row's user: by the user's own column, and by a membership."""
        if table is self.users:
            key = table.key
            user = f"{row}.{key.sql}" if key else None
            ways: list[Found] = []
        else:
            column = self.user_column(table)
            if column is None or self.users is None or self.users.key is None:
                return []
            user = f"{row}.{column[0].sql}"
            link = Link(table.oid, (column[0],), self.users.oid, (self.users.key.name,))
            own = self._direct(self.users, alias_of(self.users, row))
            ways = []
            if own is not None:
                ways.append(
                    Found(
                        self.lookup(link, row, lambda _: own.sql),
                        f"Of the user in {column[0].name}: {own.why}",
                        None,
                        own.not_null and column[0].not_null,
                        own.type,
                    )
                )
                if ways[0].not_null:
                    return ways
        membership = self.primary
        if membership is None or user is None:
            return ways
        if table is membership.table:
            return ways
        picked = self._pick(membership, user, row)
        return [*ways, picked] if picked else ways

    def _pick(self, membership: Membership, user: str, row: str) -> Found | None:
        """One membership of a user, the same one every time."""
        table = membership.table
        alias = alias_of(table, row)
        column = self.user_column(table)
        organization = self._direct(table, alias)
        if column is None or organization is None:
            return None
        states = (accepted(table), alive(table, "membership"))
        order = [f"{state.surely(alias)} desc" for state in states if state]
        made = next(
            (c for c in table.columns if flat(c.name) in {"createdat", "created", "joinedat"}), None
        )
        order += [f"{alias}.{c.sql}" for c in (made, table.key) if c]
        if not table.key:
            order.append(organization.sql)
        gap = "\n    "
        return Found(
            f"(select {organization.sql}{gap}from {table.sql} as {alias}{gap}"
            f"where {alias}.{column[0].sql} = {user}{gap}order by {', '.join(order)} limit 1)",
            f"Of the user, through {table.name}"
            + (": accepted first, then the oldest." if len(order) > 2 else ": the oldest."),
            "A user in several organisations: is their first one right here? "
            "If not, set organization_id in the context and leave this out.",
            False,
            organization.type,
            2,
        )


def _first_of(ways: list[Found]) -> Found:
    """Return the first of several ways that leads anywhere."""
    if len(ways) == 1:
        return ways[0]
    cast = "::text" if len({way.type for way in ways}) > 1 else ""
    return replace(
        ways[0],
        sql="coalesce(" + ",\n    ".join(way.sql + cast for way in ways) + ")",
        why=" Else: ".join(way.why for way in ways),
        question=next((way.question for way in ways if way.question), None),
        not_null=any(way.not_null for way in ways),
        type="text" if cast else ways[0].type,
    )
