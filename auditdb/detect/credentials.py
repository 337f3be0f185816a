"""Detection of passwords and second factors in tables of their own, and of invitations."""

from __future__ import annotations

from auditdb.detect.naming import OTHER_KEYS, flat, has
from auditdb.detect.rules import RESULTS, RUNS, Rules

_FACTORS = frozenset(
    "twofactor totp factor authenticator passkey webauthn u2f fido fido2 security otp hotp".split()
)
_NOT_FACTORS = frozenset(
    "challenge attempt log token code session backup recovery request policy setting event static"
    " email group question audit history type amr claim".split()
)
_NOT_PASSWORDS = frozenset(
    "reset history token policy old previous forgot request log attempt recovery change link"
    " challenge file".split()
)


class Credentials(Rules):
    """How users prove who they are, and how they are asked in."""

    def passwords(self) -> None:
        """Password hashes in a table of their own."""
        users = self.tenancy.users
        for table in self._tables():
            user = self.tenancy.user_column(table)
            if user is None or user[1] > 1 or set(table.words) & _NOT_PASSWORDS:
                continue
            named = has(table.name, "password", "passwd")
            held = [
                c
                for c in table.columns
                if (
                    has(c.name, "password", "passwd")
                    and c.category in "SU"
                    and not has(c.name, "reset", "token", "hint", "previous", "old")
                )
                or (
                    (named or has(table.name, "credential"))
                    and c.category in "SU"
                    and flat(c.name) in {"hash", "digest", "value", "hashedvalue", "secrethash"}
                )
            ]
            if not held:
                continue
            shared = any(has(c.name, "provider") for c in table.columns)
            certain = named or (
                not shared
                and (
                    table.is_unique(user[0].name)
                    or has(table.name, "credential", "auth", "login", "secret")
                )
            )
            self._add(
                table,
                "password",
                "Password hashes, apart from the users.",
                questions=[
                    self._asks_organization(table),
                    "Rows without a password are in here too: each would be auth.password_changed "
                    "when it is inserted."
                    if shared
                    else None
                    if certain
                    else "Does a row hold the password that its user signs in with?",
                    f"{users.name} has a password column as well: which of the two is in use?"
                    if users is not None and self.tenancy.catalog.has_fact(users, "password")
                    else None,
                ],
                certain=certain and not shared,
            )

    def factors(self) -> None:
        """Second factors in a table of their own."""
        users = self.tenancy.users
        flag = users is not None and self.tenancy.catalog.has_fact(users, "two_factor")
        for table in self._tables():
            said = set(table.words)
            user = self.tenancy.user_column(table)
            if user is None or user[1] > 1 or said & _NOT_FACTORS:
                continue
            strong = said & (_FACTORS - {"security", "factor", "otp"}) or (
                "credential" in said
                and any(
                    has(c.name, "webauthn", "transport", "counter", "credential")
                    and has(c.name, "id", "counter", "transport")
                    for c in table.columns
                )
                and any(has(c.name, "public") for c in table.columns)
            )
            weak = "factor" in said or {"security", "key"} <= said or {"security", "device"} <= said
            if not strong and not weak:
                continue
            passkey = bool(
                said & {"passkey", "webauthn", "u2f", "fido", "fido2"}
                or "credential" in said
                or {"security", "key"} <= said
            )
            state = self.tenancy.catalog.alive(table, "two_factor")
            doubled = flag and not passkey
            self._add(
                table,
                "two_factor",
                "Second factors of users, a row each.",
                questions=[
                    self._asks_organization(table),
                    f"{users.name} has a flag that tells the same: both would make an event."
                    if doubled and users is not None
                    else None,
                    "Does a passkey count as a second factor here?" if passkey else None,
                ],
                certain=not doubled or state is not None,
            )

    def invitations(self) -> None:
        """Invitations that are rows of their own, before there is a membership."""
        for table in self._tables():
            if not {"invite", "invitee"} & set(table.words[-2:]) or set(table.words) & (
                RUNS | RESULTS
            ):
                continue
            self._add(
                table,
                "invitation",
                "Invitations by e-mail: invitation.created, .updated, .deleted.",
                questions=[self._asks_organization(table)],
            )

    def left_out(self) -> None:
        """Say what looks related and was not taken, so that its absence is seen to be meant."""
        for table in self._tables():
            said = set(table.words)
            if "session" in said:
                self._note(table, "sessions; record sign-ins with auditdb.auth.login")
            elif "impersonation" in said:
                self._note(
                    table, "a log of its own; record with auditdb.auth.impersonation_started"
                )
            elif said & {"token", "key"} and said & OTHER_KEYS:
                self._note(table, "not API keys, by its name")
            elif {"password"} & said and said & _NOT_PASSWORDS:
                self._note(table, "not the password that users sign in with, by its name")
            elif said & _FACTORS - {"security"} and said & _NOT_FACTORS:
                self._note(table, "not a second factor itself, by its name")

    def unrecognised(self) -> list[str]:
        """Return the names of the tables that no rule took and no note names."""
        noted = tuple(note.partition(": ")[0] for note in self.notes)
        return sorted(table.sql for table in self._tables() if table.sql not in noted)
