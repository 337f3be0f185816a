"""A suggestion for one table, and what the rules of all kinds share in making one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from auditdb.detect.catalog import Link, Table
from auditdb.detect.tenancy import Tenancy

# Words of a table's name that say nothing about what it holds.
NEUTRAL = frozenset(("entity", "definition", "model", "record", "config", "table"))
# Words of tables that hold what something did, not what it is.
RUNS = frozenset(
    "run execution log history job instance invocation reminder attempt delivery".split()
)
RESULTS = frozenset(
    "event result metric stat statistic statistics analytics audit queue output trace error"
    " response enrollment checkpoint comment favorite view status notification message recipient"
    " report participant progress insight summary snapshot lock cache datum".split()
)


@dataclass(frozen=True)
class Suggestion:
    """One table to attach; a guess where it is not certain. Attach finds all other options."""

    name: str
    kind: str
    why: str
    questions: tuple[str, ...] = ()
    certain: bool = True
    options: Mapping[str, str | list[str]] = field(default_factory=dict)


@dataclass
class Rules:
    """What has been suggested so far; each table is taken once, by the first rule to want it."""

    tenancy: Tenancy
    schemas: frozenset[str] | None
    found: dict[int, Suggestion] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def _tables(self) -> list[Table]:
        """Return the tables that no rule has taken yet."""
        return [
            t
            for t in self.tenancy.catalog.tables.values()
            if t.oid not in self.found and (self.schemas is None or t.schema in self.schemas)
        ]

    def _links(self, table: Table) -> tuple[Link, ...]:
        return self.tenancy.catalog.links[table.oid]

    def _add(
        self,
        table: Table,
        kind: str,
        why: str,
        *,
        questions: Iterable[str | None] = (),
        certain: bool = True,
    ) -> None:
        """Take a table; attach finds the options that every kind has."""
        if self.schemas is not None and table.schema not in self.schemas:
            return
        asked = [question for question in questions if question]
        if table.inherited:
            certain = False
            asked.append("Other tables inherit from it: attach those first.")
        if not table.owned and any(t.owned for t in self.tenancy.catalog.tables.values()):
            certain = False
            asked.append("It belongs to another role, which has to attach it.")
        if "lower(" in (self.tenancy.catalog.alive(table, kind) or ""):
            asked.append("The catalog does not list the values of its status: which end a row?")
        self.found[table.oid] = Suggestion(table.sql, kind, why, tuple(asked), certain)

    def _asks_organization(self, table: Table) -> str | None:
        """Return what to ask about the way to the organisation, if there is anything to ask."""
        if self.tenancy.reaches(table):
            return None
        if not self.tenancy.reaches_by_user(table):
            if self.tenancy.reaches(table) is not None:
                return None
            return (
                "No way to an organisation was found: events take organization_id of the context. "
                "Which column, or which way, leads to it?"
            )
        if self.tenancy.primary is None:
            return None
        return (
            "A user in several organisations: is their first one right here? If not, set "
            'organization_id in the context, and organization = "null::text" here.'
        )

    def _source(self, link: Link) -> Table:
        return self.tenancy.catalog.tables[link.source]

    def _note(self, table: Table, why: str) -> None:
        note = f"{table.sql}: {why}."
        if note not in self.notes:
            self.notes.append(note)
