"""Misspelt names: a note suggests the known name that is nearest."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any

import psycopg
from psycopg.rows import scalar_row

from auditdb import auth
from auditdb.connection.pin import pinned
from auditdb.mapping.kinds import KINDS

SOURCES = ("web", "api", "saml", "scim", "cli", "system", "sql")
ACTIONS = frozenset(
    action
    for kind in KINDS.values()
    for action in (*kind.verbs.values(), *kind.facts.values())
    if action
) | {f"auth.{verb}" for verb in auth.VERBS}


def nearest(name: str, known: Iterable[str], cutoff: float = 0.8) -> str | None:
    """Return the known name that is similar to a name, but not equal.

    >>> nearest("usr", ["user"]), nearest("user", ["user"]), nearest("invoice", ["user"])
    ('user', None, None)
    """
    names = sorted(known)
    return next((n for n in difflib.get_close_matches(name, names, 1, cutoff) if n != name), None)


def nearest_action(action: str, known: Collection[str]) -> str | None:
    """Return the known action whose category and verb are similar to those of an action.

    >>> nearest_action("auth.loggin", ["auth.login"]), nearest_action("a.login", ["auth.login"])
    ('auth.login', None)
    """
    if action in known:
        return None
    category, _, verb = action.partition(".")
    parts = [name.partition(".")[::2] for name in known]
    suggestion = nearest(category, {c for c, _ in parts}) or category
    verbs = {v for c, v in parts if c == suggestion}
    close = verb if verb in verbs else nearest(verb, verbs)
    return f"{suggestion}.{close}" if close else None


def known_kinds(conn: psycopg.Connection[Any]) -> frozenset[str]:
    """Return the built-in kinds and, if the login may read them, the defined ones.

    >>> known_kinds(conn)  # doctest: +SKIP
    frozenset({'membership', 'user', ...})
    """
    return frozenset(KINDS) | _names(conn, "kind")


def known_actions(conn: psycopg.Connection[Any]) -> frozenset[str]:
    """Return the built-in actions and, if the login may read it, those of audit.action.

    >>> known_actions(conn)  # doctest: +SKIP
    frozenset({'auth.login', ...})
    """
    return ACTIONS | _names(conn, "action")


def _names(conn: psycopg.Connection[Any], table: str) -> frozenset[str]:
    """Return the names in a table of auditdb; none if the login may not read it."""
    name = f"audit.{table}"
    try:
        with pinned(conn):
            cursor = psycopg.Cursor(conn, row_factory=scalar_row)
            # Check the privilege first: a refusal would be an error in the log of the server.
            if not cursor.execute("select has_table_privilege(%s, 'select')", [name]).fetchone():
                return frozenset()
            return frozenset(cursor.execute(f"select name from {name}".encode()).fetchall())
    except psycopg.errors.InsufficientPrivilege:
        return frozenset()
