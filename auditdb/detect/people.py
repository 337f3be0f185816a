"""Detection of users, organisations and memberships, and of tables that give members roles."""

from __future__ import annotations

from auditdb.detect.catalog import Table
from auditdb.detect.rules import Rules
from auditdb.detect.tenancy import Membership


class People(Rules):
    """Users, their organisations, and their memberships of these and of parts of them."""

    def organizations(self) -> None:
        """The organisations themselves: where each one's log begins."""
        table = self.tenancy.organization
        if table is not None and table.key is not None:
            self._add(
                table,
                "organization",
                "Organisations: if an identifier is used again, its new admins read from here on.",
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
        way = self.tenancy.reaches(table)
        if not self.tenancy.has_subject(table) or (
            way is None and not self.tenancy.reaches_by_user(table)
        ):
            return
        primary = self.tenancy.primary
        inner = primary is None or group is not self.tenancy.organization
        questions = [self._asks_admin(table)] if not inner else []
        if m.score < 5:
            questions.append(
                f"Are rows of {table.name} memberships? Its name or its keys do not say."
            )
        certain = m.score >= 5 or (m.score >= 3 and (not inner or primary is None))
        if inner and way is None:
            certain = False
            questions.append(f"Nothing says which organisation a {group.name} belongs to.")
        self._add(
            table,
            "membership",
            f"Memberships of {group.name}, which is a part of an organisation: an admin of it is "
            "no admin of the organisation."
            if inner
            else f"Memberships: a row puts a user into {group.name}.",
            questions=questions,
            certain=certain,
        )
        for carrier in [] if inner else self.tenancy.catalog.carriers(table):
            if carrier.oid not in self.found and carrier is not self.tenancy.users:
                self._add(
                    carrier,
                    "membership",
                    f"Gives roles to {table.name}: a row that comes or goes is a change of role.",
                )

    def _asks_admin(self, table: Table) -> str | None:
        """Return what to ask about who may read the log."""
        admin = self.tenancy.catalog.admin(table)
        if admin == "false":
            return "No role was recognised: whose rows make an admin? Nobody reads yet."
        if "lower(" in admin:
            return (
                "The catalog does not list the values of its role or status: does an admin have "
                "others than those that attach takes for one?"
            )
        return None

    def users(self) -> None:
        """The users; where their own row says organisation and role, it is the membership too."""
        table = self.tenancy.users
        if table is None:
            self.notes.append(
                "users: no table with e-mail addresses or passwords of users was recognised."
            )
            return
        why = "Users sign in with it: e-mail, password, two-factor."
        questions = [self._asks_organization(table)]
        if self.tenancy.primary is None:
            if self.tenancy.reaches(table) is not None and self.tenancy.catalog.has_role(table):
                why = "Users belong to one organisation each: their row is the membership as well."
                questions.append(self._asks_admin(table))
            else:
                questions.append("No table of memberships was recognised: who may read the log?")
        self._add(table, "user", why, questions=questions)
