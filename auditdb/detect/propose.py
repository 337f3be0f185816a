"""Proposes a mapping file for an unknown database, from its catalog."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import psycopg

from auditdb.connection.checks import raises_audit_errors
from auditdb.detect import catalog as catalogs
from auditdb.detect.credentials import factors, passwords
from auditdb.detect.document import Proposal
from auditdb.detect.draft import Draft
from auditdb.detect.keys import api_keys, machines
from auditdb.detect.left_out import left_out
from auditdb.detect.people import invitations, memberships, organizations, users
from auditdb.detect.recognise import recognise
from auditdb.detect.sample import answer
from auditdb.detect.workflows import workflows
from auditdb.errors import InvalidInput


def detect(
    conn: psycopg.Connection[Any],
    schemas: Sequence[str] | None = None,
    *,
    sample: bool = False,
    read_roles: bool = False,
) -> Proposal:
    """Propose a mapping file from the catalog of an existing database. Writes nothing.

    Args:
        conn: a connection that holds `audit_operator`, because functions of auditdb are called.
        schemas: propose only tables of these schemas; lookups may lead to others.
        sample: answer questions with up to 10,000 rows of each table that the role owns: how often
            columns are null, which roles and states exist.
        read_roles: read only the names in small tables of roles.

    Raises:
        InvalidInput: no such schema.
        Refused: auditdb is not installed there, or no privilege.

    Example:
        >>> print(detect(conn).to_toml())  # doctest: +SKIP
    """
    rows = sample or read_roles
    with raises_audit_errors(conn, "audit_operator"), catalogs.read(conn, rows=rows) as catalog:
        for name in schemas or ():
            if name not in catalog.schemas:
                close = difflib.get_close_matches(name, catalog.schemas, 1)
                hint = f"; did you mean '{close[0]}'?" if close else ""
                raise InvalidInput(f"there is no schema '{name}'{hint}")
        draft = _draft(catalog, frozenset(schemas) if schemas else None)
        if rows:
            answer(draft, only_roles=not sample)
        return Proposal(
            tuple(draft.found.values()),
            draft.notes(),
            draft.unrecognised(),
            tuple(draft.remarks),
            catalog.context_settings(),
        )


# In the order in which attach needs the tables: organisations and members first. The first rule
# that matches takes a table.
_RULES = (
    organizations,
    memberships,
    users,
    api_keys,
    machines,
    workflows,
    passwords,
    factors,
    invitations,
    left_out,
)
_SINGLE = (
    "No organisations were recognised: this looks like an application with one organisation only, "
    "which is called 'instance' below. If there are several, name their table with kind = "
    '"organization" and remove organization = "\'instance\'" (docs/mapping.md, One organisation).'
)


def _draft(catalog: catalogs.Catalog, within: frozenset[str] | None) -> Draft:
    """Apply each rule to the tables that no rule has taken yet."""
    draft = Draft(recognise(catalog), within)
    if draft.tenancy.is_single:
        draft.remarks.append(_SINGLE)
    for rule in _RULES:
        rule(draft)
    return draft
