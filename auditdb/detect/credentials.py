"""Rules for passwords and second factors in tables of their own."""

from __future__ import annotations

from auditdb.detect.catalog import Column, Table
from auditdb.detect.draft import Draft, Question
from auditdb.detect.naming import flat, has, has_any, said


def passwords(draft: Draft) -> None:
    """Password hashes in a table of their own."""
    users = draft.tenancy.users
    doubled = users is not None and draft.tenancy.catalog.has_fact(users, "password")
    for table in draft.free():
        user = draft.tenancy.user_column(table)
        if user is None or user[1] > 1 or set(table.words) & said("password.other"):
            continue
        if not any(_is_password(table, column) for column in table.columns):
            continue
        named = has_any(table.name, said("password.name"))
        # Accounts for sign-in through a provider: `alive` leaves out rows without a password.
        shared = any(has(c.name, "provider") for c in table.columns)
        only = draft.tenancy.catalog.alive(table, "password") is not None if shared else (
            named
            or table.is_unique(user[0].name)
            or has(table.name, "credential", "auth", "login", "secret")
        )  # fmt: skip
        whose = draft.asks_subject(table, user[0])
        draft.take(
            table,
            "password",
            "Password hashes in a table beside the users.",
            questions=[
                whose or draft.asks_organization(table),
                None
                if only
                else Question(
                    "password-unsure",
                    "Rows without a password are in here too: each would be "
                    "auth.password_changed when it is inserted."
                    if shared
                    else "Does a row hold the password that its user signs in with?",
                ),
                Question(
                    "password-twice",
                    f"{users.name} has a password column as well: which of the two is in use?",
                )
                if doubled and users is not None
                else None,
            ],
            certain=only and not doubled and whose is None,
            options={"ignore": _beside_password(table, user[0])} if shared else None,
        )


def _beside_password(table: Table, user: Column) -> list[str]:
    """Return columns to ignore: they change without the password, such as tokens of a provider."""
    keys = {*(table.keys[0] if table.has_primary_key else ()), user.name}
    return [c.name for c in table.columns if c.name not in keys and not _is_password(table, c)]


def _is_password(table: Table, column: Column) -> bool:
    """Whether a column holds a password, judged by its name and that of its table."""
    if column.category not in "SU":
        return False
    if has_any(column.name, said("password.name")):
        return not has_any(column.name, said("password.other_column"))
    return has(table.name, "password", "passwd", "credential") and flat(column.name) in said(
        "column.password"
    )


def factors(draft: Draft) -> None:
    """Second factors in a table of their own."""
    users = draft.tenancy.users
    flag = users is not None and draft.tenancy.catalog.has_fact(users, "two_factor")
    for table in draft.free():
        told = set(table.words)
        user = draft.tenancy.user_column(table)
        if user is None or user[1] > 1 or told & said("factor.other"):
            continue
        strong = bool(told & said("factor.strong")) or _holds_public_keys(table)
        if not strong and not ("factor" in told or {"security", "key"} <= told
                               or {"security", "device"} <= told):  # fmt: skip
            continue
        passkey = (
            bool(told & said("factor.passkey"))
            or "credential" in told
            or {"security", "key"} <= told
        )
        doubled = flag and not passkey
        whose = draft.asks_subject(table, user[0])
        draft.take(
            table,
            "two_factor",
            "Second factors of users, a row each.",
            questions=[
                whose or draft.asks_organization(table),
                Question(
                    "factor-twice",
                    f"{users.name} has a flag that tells the same: both would make an event.",
                )
                if doubled and users is not None
                else None,
                Question("passkey-counts", "Does a passkey count as a second factor here?")
                if passkey
                else None,
            ],
            certain=not doubled and whose is None,
        )


def _holds_public_keys(table: Table) -> bool:
    """Whether a table of credentials has the columns of passkeys."""
    return (
        "credential" in table.words
        and any(has(c.name, "public") for c in table.columns)
        and any(
            has_any(c.name, said("column.passkey")) and has(c.name, "id", "counter", "transport")
            for c in table.columns
        )
    )
