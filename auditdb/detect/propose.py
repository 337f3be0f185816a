"""Proposes a mapping file for a database that nobody here has seen, from its catalog."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from auditdb.connection.checks import raises_audit_errors
from auditdb.detect import catalog as catalogs
from auditdb.detect.credentials import factors, passwords
from auditdb.detect.draft import Draft, Suggestion
from auditdb.detect.keys import api_keys, machines
from auditdb.detect.left_out import left_out
from auditdb.detect.people import invitations, memberships, organizations, users
from auditdb.detect.sample import answer
from auditdb.detect.tenancy import Tenancy
from auditdb.detect.workflows import workflows
from auditdb.errors import InvalidInput
from auditdb.mapping.file import toml_value
from auditdb.values.plain import plain

_HEADER = (
    "Proposed by auditdb detect from the tables, columns, keys and enums of this database.",
    'Read it, answer the lines with "# ?", and keep it in your repository.',
    'What is commented out is a guess: if it is right, take the first "# " from each line of it.',
    "The options of a table are those that attach finds: auditdb attach auditdb.toml --dry-run",
    "shows them. Then the same without --dry-run; both may be repeated.",
)


@dataclass(frozen=True)
class Proposal:
    """The tables that a mapping file should name, and what was left out."""

    tables: tuple[Suggestion, ...]
    notes: tuple[str, ...]
    unrecognised: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()  # about all of it

    def to_toml(self) -> str:
        """Return the mapping file: each choice under a comment that says why."""
        parts = ["\n".join(f"# {line}" for line in _HEADER)]
        parts += [_comment(remark, "# ? ") for remark in self.remarks]
        if not any(table.certain for table in self.tables):
            parts.append("# ? Nothing was recognised for certain: no [[table]] is in force below.")
        parts += [_block(table) for table in self.tables]
        if self.notes:
            parts.append(
                "\n".join(("# Left out:", *(_comment(note, "# - ") for note in self.notes)))
            )
        if self.unrecognised:
            names = ", ".join(self.unrecognised)
            parts.append(_comment(f"Left out: no kind was recognised for {names}"))
        return "\n\n".join(parts) + "\n"


def detect(
    conn: psycopg.Connection[Any],
    schemas: Sequence[str] | None = None,
    *,
    sample: bool = False,
    read_roles: bool = False,
) -> Proposal:
    """Propose a mapping file from the catalog of an existing database. Writes nothing.

    Args:
        conn: a connection that holds `audit_operator`: what columns say, auditdb's functions tell.
        schemas: propose only tables of these schemas; lookups may lead to others.
        sample: answer questions by up to 10,000 rows of each table that the role owns: how often
            columns are null, which roles and states there are.
        read_roles: of that only the names in small tables of roles.

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
        draft = _draft(catalog, frozenset(schemas) if schemas else None)
        if sample or read_roles:
            answer(draft, only_roles=not sample)
        return Proposal(
            tuple(draft.found.values()), draft.notes(), draft.unrecognised(), tuple(draft.remarks)
        )


# In the order in which attach finds the way from each to the others: organisations and members
# first. A table is taken by the first rule to want it.
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
    """Apply each rule to the tables that are still free."""
    draft = Draft(Tenancy.of(catalog), within)
    if draft.tenancy.is_single:
        draft.remarks.append(_SINGLE)
    for rule in _RULES:
        rule(draft)
    return draft


def _comment(text: str, prefix: str = "# ") -> str:
    indent = "#" + " " * (len(prefix) - 1)
    return "\n".join(
        textwrap.wrap(
            plain(" ".join(text.split())),
            98,
            initial_indent=prefix,
            subsequent_indent=indent,
            break_long_words=False,
        )
    )


def _block(table: Suggestion) -> str:
    """Return one [[table]], commented out if the table is a guess."""
    lines = ["[[table]]", _comment(table.why), *(_comment(q.text, "# ? ") for q in table.questions)]
    lines += [f"name = {toml_value(table.name)}", f'kind = "{table.kind}"']
    lines += [f"{option} = {toml_value(value)}" for option, value in table.options.items()]
    text = "\n".join(lines)
    if table.certain:
        return text
    # An editor that takes "# " from each line of the block leaves TOML, its prose as comments.
    return "\n".join(f"# {line}" for line in text.splitlines())
