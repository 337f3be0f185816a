"""Proposes a mapping file for a database that nobody here has seen, from its catalog."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import psycopg

from auditdb.connection.checks import raises_audit_errors
from auditdb.detect import catalog as catalogs
from auditdb.detect.credentials import Credentials
from auditdb.detect.document import Proposal
from auditdb.detect.machines import Machines
from auditdb.detect.people import People
from auditdb.detect.tenancy import Tenancy
from auditdb.errors import InvalidInput


def detect(conn: psycopg.Connection[Any], schemas: Sequence[str] | None = None) -> Proposal:
    """Propose a mapping file from the catalog of an existing database. Writes nothing.

    Args:
        conn: a connection that holds `audit_operator`: what columns say, auditdb's functions tell.
        schemas: propose only tables of these schemas; lookups may lead to others.

    Raises:
        InvalidInput: no such schema.
        Refused: auditdb is not installed there, or no privilege.

    Example:
        >>> print(detect(conn).to_toml())  # doctest: +SKIP
    """
    with raises_audit_errors(conn, "audit_operator"), catalogs.read(conn) as catalog:
        for name in schemas or ():
            if name not in catalog.schemas:
                close = difflib.get_close_matches(name, catalog.schemas, 1)
                hint = f"; did you mean '{close[0]}'?" if close else ""
                raise InvalidInput(f"there is no schema '{name}'{hint}")
        return _propose(catalog, frozenset(schemas) if schemas else None)


def _propose(catalog: catalogs.Catalog, within: frozenset[str] | None) -> Proposal:
    """Return the tables in the order in which attach finds the way from each to the others."""
    tenancy = Tenancy.of(catalog)
    people = People(tenancy, within)
    machines = Machines(tenancy, within, people.found, people.notes)
    credentials = Credentials(tenancy, within, people.found, people.notes)
    people.organizations()
    people.memberships()
    people.users()
    machines.keys()
    machines.workflows()
    credentials.passwords()
    credentials.factors()
    credentials.invitations()
    credentials.left_out()
    return Proposal(
        tuple(people.found.values()), tuple(people.notes), tuple(credentials.unrecognised())
    )
