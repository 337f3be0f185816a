"""The draft of a proposal: suggestions, open questions, and left-out tables with reasons."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from auditdb.detect.catalog import Column, Link, Table
from auditdb.detect.tenancy import Tenancy

# The organisation of an application with only one.
INSTANCE = "'instance'"


@dataclass(frozen=True)
class Question:
    """A question that the catalog does not answer; `code` is the same for all tables."""

    code: str
    text: str

    def __str__(self) -> str:
        """Return the text of the question."""
        return self.text


@dataclass(frozen=True)
class Suggestion:
    """A table to attach, perhaps a guess. Attach finds all other options."""

    name: str
    kind: str
    why: str
    questions: tuple[Question, ...] = ()
    certain: bool = True
    options: Mapping[str, str | list[str]] = field(default_factory=dict)


@dataclass
class Draft:
    """The suggestions so far. The first rule that matches takes a table."""

    tenancy: Tenancy
    schemas: frozenset[str] | None
    found: dict[int, Suggestion] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def free(self) -> list[Table]:
        """Return the tables that no rule has taken yet."""
        return [
            t
            for t in self.tenancy.catalog.tables.values()
            if t.oid not in self.found and (self.schemas is None or t.schema in self.schemas)
        ]

    def links(self, table: Table) -> tuple[Link, ...]:
        """Return the links of a table."""
        return self.tenancy.catalog.links[table.oid]

    def target(self, link: Link) -> Table:
        """Return the table that a link leads to."""
        return self.tenancy.catalog.tables[link.target]

    def source(self, link: Link) -> Table:
        """Return the table that a link comes from."""
        return self.tenancy.catalog.tables[link.source]

    def is_taken(self, table: Table, kind: str) -> bool:
        """Whether a table is suggested as this kind, and is not a guess."""
        taken = self.found.get(table.oid)
        return taken is not None and taken.kind == kind and taken.certain

    def take(
        self,
        table: Table,
        kind: str,
        why: str,
        *,
        questions: Iterable[Question | None] = (),
        certain: bool = True,
        options: Mapping[str, str | list[str]] | None = None,
        is_part: bool = False,
    ) -> None:
        """Take a table. A part needs no organisation, because it has that of its whole."""
        if self.schemas is not None and table.schema not in self.schemas:
            return
        asked = [question for question in questions if question]
        given = dict(options or {})
        if self.tenancy.is_single and not is_part:
            given.setdefault("organization", INSTANCE)
        if table.inherited:
            certain = False
            asked.append(Question("inherited", "Other tables inherit from it: attach those first."))
        if not table.owned and any(t.owned for t in self.tenancy.catalog.tables.values()):
            certain = False
            asked.append(
                Question("other-owner", "It belongs to another role, which has to attach it.")
            )
        if re.search(r"lower\(r\.[^)]*stat", self.tenancy.catalog.alive(table, kind) or "", re.I):
            asked.append(
                Question(
                    "status-labels",
                    "The catalog does not list the values of its status: which end a row?",
                )
            )
        self.found[table.oid] = Suggestion(table.sql, kind, why, tuple(asked), certain, given)

    def leave(self, table: Table, why: str) -> None:
        """Leave a table out, with a reason; the first reason stays."""
        self.reasons.setdefault(table.oid, why)

    def asks_organization(self, table: Table, kind: str = "") -> Question | None:
        """Return the question about the way to the organisation, if there is one."""
        way = self.tenancy.reaches(table)
        if way or self.tenancy.is_single:
            return None
        if kind != "membership" and self.tenancy.reaches_by_user(table):
            if not self.tenancy.memberships:
                return None
            first = "" if way is None else "Where its row names no organisation: "
            return Question(
                "user-in-several",
                f"{first}A user in several organisations: is their first one right here? If not, "
                'set organization_id in the context, and organization = "null::text" here.',
            )
        if way is False:
            return Question(
                "organization-nullable",
                "The only way to an organisation may be null: are there rows without one, and "
                "whose are they? Their events take organization_id of the context.",
            )
        return Question(
            "organization-unknown",
            "No way to an organisation was found: events take organization_id of the context. "
            "Which column, or which way, leads to it?",
        )

    def asks_subject(self, table: Table, column: Column) -> Question | None:
        """Return the question about a column that may name the user of a row."""
        if self.tenancy.users is None or self.tenancy.names_user(table, column):
            return None
        return Question(
            "subject-unknown",
            f"Does {column.name} name a user? Then write here subject = {json.dumps(column.sql)}, "
            "and the organisation of that user.",
        )

    def notes(self) -> tuple[str, ...]:
        """Return the left-out tables with reasons, one sentence for each."""
        tables = self.tenancy.catalog.tables
        return tuple(
            f"{tables[oid].sql}: {why}."
            for oid, why in sorted(self.reasons.items(), key=lambda found: tables[found[0]].sql)
            if oid not in self.found
            and (self.schemas is None or tables[oid].schema in self.schemas)
        )

    def unrecognised(self) -> tuple[str, ...]:
        """Return the names of the tables that no rule took and no note names."""
        return tuple(sorted(t.sql for t in self.free() if t.oid not in self.reasons))
