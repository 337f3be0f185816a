"""Gives reasons for left-out tables that relate to people, roles, keys or workflows."""

from __future__ import annotations

from auditdb.detect.catalog import Table
from auditdb.detect.draft import Draft
from auditdb.detect.naming import VOCABULARY, said, words
from auditdb.detect.tenancy import GROUPS, MEMBERS, ROLES, USERS
from auditdb.detect.workflows import references

_PEOPLE = MEMBERS | {"user", "person", "owner", "group", "organization", "tenant", "account"}


def left_out(draft: Draft) -> None:
    """Give a reason for each related table that no rule took, so that people notice it."""
    for table in draft.free():
        why = (
            _by_words(table)
            or _of_a_workflow(draft, table)
            or _of_people(draft, table)
            or _by_columns(draft, table)
        )
        if why:
            draft.leave(table, why)


def _by_words(table: Table) -> str | None:
    """Return the reason that follows from the words of a name."""
    told = set(words(table.name))
    for entry in VOCABULARY["left_out"]:
        found = told & set(entry["words"])
        if "with" in entry and not any((told - {word}) & set(entry["with"]) for word in found):
            continue
        if found:
            return str(entry["why"])
    return None


def _of_a_workflow(draft: Draft, table: Table) -> str | None:
    """Return the reason for a table that refers to a workflow or is named like one."""
    link = references(draft, table)
    if link is not None:
        return f"it references {draft.target(link).name}, but is no part of it"
    if set(table.words) & {"workflow", "automation"}:
        return "its name is about workflows, but no column refers to one"
    return None


def _of_people(draft: Draft, table: Table) -> str | None:
    """Return the reason for a table about users, members, groups or roles."""
    told = set(table.words)
    tenancy = draft.tenancy
    user = tenancy.user_column(table)
    held = {word for column in table.columns for word in words(column.name)}
    if user is not None and "provider" in held and held & {"token", "uid", "subject", "external"}:
        return "signing in by a provider, and its tokens; record sign-ins with auditdb.auth.login"
    if user is not None and user[1] == 0:
        if told & said("people.no_member"):
            return f"what users do or get ({user[0].name}), not who they are"
        return f"it refers to users ({user[0].name}), but is no membership by its keys and names"
    if table.head in ROLES:
        return "roles or permissions themselves: what they allow is no event of auditdb"
    if tenancy.is_permission_set(table):
        return "sets of permissions that users get: no organisation"
    if table.head in GROUPS and any(m.group is table for m in tenancy.memberships):
        return "groups of people: only their members are attached"
    if table.head in GROUPS and tenancy.reaches(table) is not None:
        return "groups inside organisations, without a table of members"
    if told & _PEOPLE or table.head in USERS:
        return "its name is about people, but no rule matches it"
    return None


def _by_columns(draft: Draft, table: Table) -> str | None:
    """Return the reason that follows from columns about secrets, roles or users."""
    secrets = draft.tenancy.catalog.secrets(table, "")
    if secrets:
        return f"it holds secrets ({', '.join(sorted(secrets)[:3])}), but no API keys"
    for column in table.columns:
        told = words(column.name)
        if set(told) & (ROLES - {"right", "policy"}) and column.category in "ESAUN":
            return f"it has a column about roles ({column.name}), but none that names a user"
    # Columns that only name the creator of a row do not count.
    user = draft.tenancy.user_column(table)
    if user is not None and user[1] < 3:
        return f"it refers to users ({user[0].name}), but is none of the kinds of auditdb"
    return None
