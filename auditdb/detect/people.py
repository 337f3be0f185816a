"""Detection of users and of memberships, and of the tables that give members their roles."""

from __future__ import annotations

from dataclasses import replace

from auditdb.detect.catalog import Column, Link, Table
from auditdb.detect.naming import flat, has, singular, words
from auditdb.detect.roles import Role, both, quote, role_column, role_name
from auditdb.detect.rules import Choice, Rules, short
from auditdb.detect.states import accepted
from auditdb.detect.tenancy import Membership, alias_of


class People(Rules):
    """Users, their memberships of organisations and of parts of them."""

    def users(self) -> None:
        """The users; where their own row says organisation and role, it is the membership too."""
        table = self.tenancy.users
        if table is None:
            self.notes.append(
                "users: no table with e-mail addresses or passwords of users was recognised."
            )
            return
        direct = self.tenancy.organization_of(table) is not None
        choices = [
            self._organization(table),
            self._target_id(table, "user"),
            self._alive(table, "user"),
        ]
        why, questions = "Users sign in with it: e-mail, password, two-factor.", []
        role = role_column(table, self._group_words())
        if self.tenancy.primary is None and direct and role is not None:
            why = "Users belong to one organisation each, so their row is the membership as well."
            state = accepted(table)
            choices.append(Choice("role", short(role.value_of("r")), role.why, role.question))
            choices.append(
                Choice(
                    "admin",
                    both(role.admin_of("r"), state.of("r") if state else None),
                    "Whose users may read the log of their organisation.",
                )
            )
        elif self.tenancy.primary is None:
            questions.append("No table of memberships was recognised: who may read the log?")
        for option in ("email", "password", "two_factor"):
            choices.append(fact_of(table, option))
        self._add(table, "user", why, choices, questions=questions)

    def organizations(self) -> None:
        """The organisations themselves: where each one's log begins."""
        table = self.tenancy.organization
        if table is None or table.key is None or table.oid in self.found:
            return
        self._add(
            table,
            "organization",
            "Organisations: if an identifier is used again, its new admins read from here on.",
            [
                self._organization(table),
                self._target_id(table, "organization"),
                self._alive(table, "organization"),
            ],
        )

    def memberships(self) -> None:
        """Memberships of organisations, of teams inside them, and where else their roles live."""
        for m in sorted(
            self.tenancy.memberships,
            key=lambda m: (m.group is not self.tenancy.organization, m.table.sql),
        ):
            if m.table.oid not in self.found:
                self._membership(m)

    def _membership(self, m: Membership) -> None:
        table, group = m.table, m.group
        subject = self._subject(table)
        if subject is None or self.tenancy.organization_of(table) is None:
            return
        organization = self._organization(table)
        primary = self.tenancy.primary
        inner = primary is None or group is not self.tenancy.organization
        role = role_column(table, self._group_words(group)) or self._linked_role(table)
        carriers = [] if inner else self._carriers(table)
        choices = [organization, self._target_id(table, "membership"), subject]
        questions: list[str | None] = []
        admin: list[str] = []
        if role is not None:
            choices.append(Choice("role", short(role.value_of("r")), role.why, role.question))
            admin.append(role.admin_of("r"))
        elif carriers:
            link, carried = carriers[0]
            choices.append(
                Choice(
                    "role",
                    short(self._of_carriers(link, carried)),
                    f"Roles are rows of {self._source(link).name}. {carried.why}",
                    carried.question,
                )
            )
        if not inner:
            for link, carried in carriers:
                admin.append(self._exists(link, carried))
        choices.append(self._alive(table, "membership"))
        if inner:
            why = f"Memberships of {group.name}, which is a part of an organisation."
            choices.append(
                Choice(
                    "admin", "false", f"An admin of {group.name} is no admin of the organisation."
                )
            )
        else:
            why = f"Memberships: a row puts a user into {group.name}."
            choices.append(self._admin(m, admin))
        if m.score < 5:
            questions.append(
                f"Are rows of {table.name} memberships? Its name or its keys do not say."
            )
        certain = m.score >= 5 or (m.score >= 3 and (not inner or primary is None))
        if inner and self.tenancy.organization_of(table, user=False) is None:
            certain = False
            questions.append(f"Nothing says which organisation a {group.name} belongs to.")
        self._add(table, "membership", why, choices, questions=questions, certain=certain)
        for link, carried in carriers:
            self._carrier(table, link, carried)

    def _admin(self, m: Membership, roles: list[str]) -> Choice:
        """Who may read: an admin or owner, accepted, of the organisation and not of a part."""
        state = accepted(m.table)
        why = ["Who may read the log."]
        conditions = [self._any(roles)] if roles else []
        if roles and state:
            conditions.append(state.of("r"))
            why.append(state.why)
        owner = self._owner(m)
        if owner:
            conditions = [self._any([both(*conditions), owner] if conditions else [owner])]
            why.append(f"The owner that {m.group.name} names is one as well.")
        parent = self.tenancy.parent
        if parent is not None and conditions:
            link = next(k for k in self._links(m.table) if k.target == m.group.oid)
            conditions.append(self.tenancy.exists(link, "r", lambda t: f"{t}.{parent.sql} is null"))
            group = m.group.words[-1]
            why.append(f"An admin of a {group} that has a parent is none of the parent's.")
        question = state.question if state else None
        if not conditions:
            conditions = ["false"]
            question = "No role was recognised: whose rows make an admin? Nobody reads yet."
        return Choice("admin", "\nand ".join(conditions), " ".join(why), question)

    @staticmethod
    def _any(conditions: list[str]) -> str:
        """Return the conditions joined by OR, to stand beside others."""
        joined = "\n    or ".join(
            f"({c})" if " and " in c and not c.startswith("exists") else c for c in conditions
        )
        return f"({joined})" if " or " in joined else joined

    def _owner(self, m: Membership) -> str | None:
        """The condition that the organisation's own row names the user as its owner."""
        found = self.tenancy.user_column(m.group)
        subject = self.tenancy.subject_of(m.table)
        if found is None or found[1] != 1 or subject is None:
            return None
        link = next(k for k in self._links(m.table) if k.target == m.group.oid)
        return self.tenancy.exists(link, "r", lambda g: f"{g}.{found[0].sql} = {subject.sql}")

    def _linked_role(self, table: Table) -> Role | None:
        """The role of a row by the table of roles that it references."""
        for link in self._links(table):
            target = self._target(link)
            if target in (self.tenancy.users, self.tenancy.organization, table):
                continue
            if target.words[-1:] == ("role",):
                role = role_name(target)
                if role is not None:
                    return replace(
                        role,
                        value=self.tenancy.lookup(link, "{row}", role.value_of),
                        admin=self.tenancy.exists(link, "{row}", role.admin_of),
                    )
        return None

    def _carriers(self, members: Table) -> list[tuple[Link, Role]]:
        """Tables that give a member roles: by a column, by a group that has one, by their name."""
        found = []
        has_own = (role_column(members) or self._linked_role(members)) is not None
        for link in self.tenancy.catalog.links_to(members):
            table = self._source(link)
            if (
                len(link.columns) != 1
                or table is self.tenancy.users
                or has(table.name, "invite", "log", "event", "session", "token", "key", "history")
            ):
                continue
            if table.words[-1] in {"owner", "admin", "administrator"} and len(table.columns) <= 8:
                name = table.words[-1]
                found.append((link, Role(quote(name), "true", f"A row is an {name}.")))
                continue
            if has_own:
                continue
            if any(
                m.table is table
                and m.group.words[-1] in ("team", "project")
                and role_column(m.group) is None
                for m in self.tenancy.memberships
            ):
                continue
            role = role_column(table, self._group_words()) or self._group_role(table, members)
            if role is not None:
                found.append((link, role))
        return found

    def _group_role(self, table: Table, members: Table) -> Role | None:
        """The role that belongs to the group which a row puts a member into."""
        for link in self._links(table):
            target = self._target(link)
            if target in (members, self.tenancy.users, self.tenancy.organization, table):
                continue
            role = role_column(target, self._group_words()) or role_name(target)
            if role is not None:
                return replace(
                    role,
                    value=self.tenancy.lookup(link, "{row}", role.value_of),
                    admin=self.tenancy.exists(link, "{row}", role.admin_of),
                    why=f"By {target.name}. {role.why}",
                )
        return None

    def _of_carriers(self, link: Link, role: Role) -> str:
        """All roles that the rows of another table give to a member, as one text."""
        table = self._source(link)
        key = self._target(link).named[link.referenced[0]].sql
        return (
            f"(select string_agg(distinct {role.value_of('x')}::text, ',')\n"
            f"    from {table.sql} as x\n"
            f"    where x.{link.columns[0].sql} = r.{key})"
        )

    def _exists(self, link: Link, role: Role) -> str:
        """The condition that some row of another table makes a member an admin."""
        key = self._target(link).named[link.referenced[0]].sql
        more = "" if role.admin == "true" else f" and {role.admin_of('x')}"
        return (
            f"exists (select from {self._source(link).sql} as x "
            f"where x.{link.columns[0].sql} = r.{key}{more})"
        )

    def _carrier(self, members: Table, link: Link, role: Role) -> None:
        """A table that gives members their roles: its rows are role changes of the member."""
        table = self._source(link)
        alias = alias_of(members, "r")
        organization = self.tenancy.organization_of(members, alias)
        user = self.tenancy.subject_of(members, alias)
        if organization is None or user is None or table.oid in self.found:
            return
        column = link.columns[0]

        def of_member(sql: str) -> str:
            return self.tenancy.lookup(link, "r", lambda _: sql)

        self._add(
            table,
            "membership",
            f"Gives roles to {members.name}: a row that comes or goes is a change of role.",
            [
                Choice("parent", column.sql, f"The member whose role it is, in {members.name}."),
                Choice("organization", short(of_member(organization.sql)), "The member's."),
                Choice("subject", short(of_member(user.sql)), "The member's user."),
                Choice("role", short(role.value_of("r")), role.why, role.question),
            ],
        )


def fact_of(table: Table, option: str) -> Choice | None:
    """Return the column of a user's row that holds the e-mail address, password or factor."""
    if option == "email":
        for wanted in ("email", "emailaddress", "primaryemail", "useremail", "loginemail", "mail"):
            for c in table.columns:
                if flat(c.name) == wanted and c.category in "SU":
                    return Choice("email", c.name, "Its change is auth.email_changed.")
        return None
    if option == "password":
        ranked = [
            (not has(c.name, "hash", "digest", "encrypted", "hashed", "crypted"), n, c)
            for n, c in enumerate(table.columns)
            if (has(c.name, "password", "passwd", "pwd") or flat(c.name) in {"pwhash", "passhash"})
            and c.category in "SU"
            and not has(
                c.name, "reset", "token", "salt", "hint", "algorithm", "confirmation", "old"
            )
            and not has(c.name, "previous", "expired", "change", "type", "temp", "history")
        ]
        if not ranked:
            return None
        return Choice(
            "password",
            min(ranked, key=lambda f: f[:2])[2].name,
            "Its change is auth.password_changed.",
        )
    return _factor_fact(table)


def _factor_fact(table: Table) -> Choice | None:
    """Return the column that tells whether a user's second factor is on."""
    ranked: list[tuple[int, int, Column]] = []
    for n, c in enumerate(table.columns):
        if not any(
            mark in flat(c.name)
            for mark in ("twofactor", "2fa", "mfa", "totp", "otp", "twostep", "multifactor")
        ):
            continue
        if has(c.name, "required", "enforced") and "login" not in words(c.name):
            continue
        on = has(c.name, "enabled", "active", "confirmed", "activated", "verified", "enrolled")
        if c.category == "B":
            ranked.append((0 if on else 1, n, c))
        elif c.category == "D" and on:
            ranked.append((2, n, c))
        elif c.category in "SU" and not c.not_null and singular(words(c.name)[-1]) == "secret":
            ranked.append((3, n, c))
    if not ranked:
        return None
    rank, _, column = min(ranked, key=lambda found: found[:2])
    return Choice(
        "two_factor",
        column.name,
        "Its change is auth.two_factor_enabled or _disabled.",
        "No flag was found: is a secret there only while two-factor is on?" if rank == 3 else None,
    )
