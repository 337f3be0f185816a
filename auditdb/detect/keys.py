"""Rules for API keys: tables named so, tokens of users and devices, and what keys may do."""

from __future__ import annotations

import json

from auditdb.detect.catalog import Table
from auditdb.detect.draft import Draft, Question
from auditdb.detect.naming import flat, has_any, said, words
from auditdb.detect.tenancy import GROUPS, type_beside

_NEUTRAL = said("spelling.neutral")
_OWNERS = said("column.typed_owner")
_UNSURE = Question(
    "key-unsure",
    "Are these keys to sign in here, and no sessions, one-time tokens or keys of other services?",
)


def api_keys(draft: Draft) -> None:
    """API keys and tokens, and the tables that say what a key may do."""
    roots = []
    for table in draft.free():
        strength = _strength(table)
        if not strength:
            continue
        secret = bool(draft.tenancy.catalog.secrets(table, "api_key"))
        owned = draft.tenancy.has_subject(table) or draft.tenancy.reaches(table) is not None
        owned = owned or draft.tenancy.is_single
        whose = _asks_owner(draft, table)
        owned = owned or whose is not None
        shown = _is_shown(table)
        if (not secret and not shown) or (not owned and strength < 2):
            continue
        certain = (
            owned
            and not _is_borrowed(table)
            and (
                (strength > 1 and secret)
                or (strength > 1 and shown)
                or (shown and secret and not _has_purpose(table))
                or _is_static(draft, table)
            )
        )
        roots.append(table)
        draft.take(
            table,
            "api_key",
            "Keys or tokens for programs, judged by name and columns.",
            questions=[draft.asks_organization(table), whose, None if certain else _UNSURE],
            # No wrong user is named, but the organisation may depend on the owner.
            certain=certain and (whose is None or draft.asks_organization(table) is None),
        )
    for root in roots:
        if draft.is_taken(root, "api_key"):
            _parts(draft, root)


def machines(draft: Draft) -> None:
    """Devices, bots and similar that sign in with a token in their own row."""
    for table in draft.free():
        tokens = [c for c in table.columns if flat(c.name) in said("column.token")]
        if table.head in said("key.machine") and tokens:
            owned = (
                draft.tenancy.has_subject(table)
                or draft.tenancy.reaches(table) is not None
                or draft.tenancy.is_single
            )
            draft.take(
                table,
                "api_key",
                f"A row signs in by a token of its own, {tokens[0].name}.",
                questions=[draft.asks_organization(table), None if owned else _UNSURE],
                certain=owned,
            )


def _asks_owner(draft: Draft, table: Table) -> Question | None:
    """Return the question about a type column that says to what kind of owner a key belongs."""
    if draft.tenancy.user_column(table) is not None or draft.tenancy.users is None:
        return None
    for column in table.columns:
        kind = type_beside(table, column)
        if kind is None or not set(words(column.name)) & _OWNERS:
            continue
        subject = f"case when r.{kind.sql} = 'User' then r.{column.sql} end"
        return Question(
            "owner-by-type",
            f"Whose a key is, {kind.name} says: a user for which of its values? Write here subject "
            f"= {json.dumps(subject)}, with the value that this application has for users.",
        )
    return None


def _strength(table: Table) -> int:
    """Return 2 if a table is named like API keys, 1 if it may be, else 0."""
    told = list(dict.fromkeys(w for w in table.words if w not in _NEUTRAL))
    if not told or set(told) & said("key.other"):
        return 0
    if told[-1] == "pat":
        return 2
    if told[-1] not in said("key.head"):
        return 0
    before = set(told[:-1])
    if before & said("key.strong") or {"personal", "access"} <= before:
        return 2
    if told[-1] in {"key", "token"}:
        return 1
    return 0


def _is_shown(table: Table) -> bool:
    """Whether rows have a name or permissions, as keys made by people have."""
    return any(
        words(c.name)[-1] in said("column.label") or has_any(c.name, said("column.scope"))
        for c in table.columns
    )


def _is_borrowed(table: Table) -> bool:
    """Whether its tokens belong to another sign-in or another service."""
    return any(
        has_any(c.name, said("column.borrowed")) or flat(c.name) == "clientid"
        for c in table.columns
    )


def _has_purpose(table: Table) -> bool:
    """Whether a column says that tokens of several sorts are in one table."""
    return any(c.name in said("column.purpose") for c in table.columns)


def _is_static(draft: Draft, table: Table) -> bool:
    """Whether each user has exactly one token, which does not expire."""
    user = draft.tenancy.user_column(table)
    told = set(table.words)
    return (
        user is not None
        and user[1] == 0
        and table.is_unique(user[0].name)
        and bool(told & {"auth", "access", "api"} or told <= {"token", "key", "user"})
        and not any(has_any(c.name, said("column.end")) for c in table.columns)
    )


def _parts(draft: Draft, root: Table) -> None:
    """Tables whose rows say what a key may do."""
    for link in draft.tenancy.catalog.links_to(root):
        child = draft.source(link)
        told = set(child.words)
        if child.oid in draft.found or child in (draft.tenancy.users, draft.tenancy.organization):
            continue
        if not (link.on_delete == "c" or link.not_null):
            continue
        if told & said("key.other") or child.head in said("workflow.result"):
            draft.leave(child, f"what {root.name} did, not what it is")
        elif child.head in said("key.part") or (
            told & {"key", "token"} and child.head in GROUPS.keys()
        ):
            draft.take(
                child,
                "api_key",
                f"Part of {root.name}: a change here is a change of that api_key, "
                "and belongs to the same organisation.",
                certain=link.declared,
                questions=[None if link.declared else _guess(root)],
                is_part=True,
            )
        else:
            draft.leave(child, f"it references {root.name}, but is no part of it by name")


def _guess(root: Table) -> Question:
    """Return the question about a part that only names, and no foreign key, connect."""
    return Question("part-unsure", f"Is it a part of {root.name}? No foreign key says so.")
