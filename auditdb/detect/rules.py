"""A suggestion for one table, and what the rules of all kinds share in making one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from auditdb.detect.catalog import Column, Link, Table
from auditdb.detect.naming import is_touched, words
from auditdb.detect.organization import Ways
from auditdb.detect.secrets import secret_columns
from auditdb.detect.states import alive
from auditdb.detect.tenancy import Found

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
class Choice:
    """One option of a table, and why it was chosen."""

    option: str
    value: str | tuple[str, ...]
    why: str
    question: str | None = None


@dataclass(frozen=True)
class Suggestion:
    """One table to attach; a guess where it is not certain."""

    name: str
    kind: str
    why: str
    choices: tuple[Choice, ...]
    questions: tuple[str, ...] = ()
    certain: bool = True

    @property
    def options(self) -> dict[str, str | list[str]]:
        """The options, as audit.attach takes them."""
        return {
            c.option: c.value if isinstance(c.value, str) else list(c.value) for c in self.choices
        }


def short(sql: str) -> str:
    """Return an expression as an option: a column alone goes without the r."""
    head, dot, column = sql.partition(".")
    plain = column.replace('""', "")
    quoted = plain.startswith('"') and plain.endswith('"') and '"' not in plain[1:-1]
    if head == "r" and dot and (quoted or column.replace("_", "").replace("$", "").isalnum()):
        return column
    if sql.startswith("(select") and sql.endswith(")") and _closes_at_end(sql):
        return sql[1:-1].replace("\n    ", "\n")
    return sql


def _closes_at_end(sql: str) -> bool:
    """Return whether the parenthesis that opens an expression is closed by its last character."""
    depth, quoted = 0, ""
    for n, c in enumerate(sql):
        if quoted:
            quoted = "" if c == quoted else quoted
        elif c in "'\"":
            quoted = c
        else:
            depth += (c == "(") - (c == ")")
            if depth == 0:
                return n == len(sql) - 1
    return False


def names_of(columns: Iterable[Column]) -> tuple[str, ...]:
    """Return the names of columns."""
    return tuple(column.name for column in columns)


@dataclass
class Rules:
    """What has been suggested so far; each table is taken once, by the first rule to want it."""

    tenancy: Ways
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

    def _target(self, link: Link) -> Table:
        return self.tenancy.catalog.tables[link.target]

    def _add(
        self,
        table: Table,
        kind: str,
        why: str,
        choices: Iterable[Choice | None],
        *,
        questions: Iterable[str | None] = (),
        certain: bool = True,
        ignore: tuple[str, ...] | None = None,
    ) -> None:
        """Take a table, with the options that every kind has."""
        if self.schemas is not None and table.schema not in self.schemas:
            return
        given = [choice for choice in choices if choice is not None]
        asked = [question for question in questions if question]
        if table.inherited:
            certain = False
            asked.append("Other tables inherit from it: attach those first.")
        if not table.owned and any(t.owned for t in self.tenancy.catalog.tables.values()):
            certain = False
            asked.append("It belongs to another role, which has to attach it.")
        if ignore is None:
            ignore = names_of(c for c in table.columns if is_touched(c.name) or self._is_cache(c))
        if ignore:
            why_ignored = (
                "A change of these alone is no event: touch times, last uses, counters."
                if kind != "password"
                else "A change of anything but the password is no change of the password."
            )
            given.append(Choice("ignore", ignore, why_ignored))
        # No redact: attach knows the same names.
        self.found[table.oid] = Suggestion(
            table.sql, kind, why, tuple(given), tuple(asked), certain
        )

    def _is_cache(self, column: Column) -> bool:
        """Whether a column counts the rows of another table, or is made for searching."""
        if column.type == "tsvector":
            return True
        said = words(column.name)
        return (
            column.category == "N"
            and len(said) > 1
            and said[-1] == "count"
            and any(said[:-1] == t.words for t in self.tenancy.catalog.tables.values())
        )

    @staticmethod
    def _chosen(option: str, found: Found | None, question: str | None = None) -> Choice | None:
        if found is None:
            return None
        return Choice(option, short(found.sql), found.why, question or found.question)

    def _organization(self, table: Table) -> Choice:
        """The organisation; none rather than one that a column's name only seems to tell."""
        found = self._chosen("organization", self.tenancy.organization_of(table))
        return found or Choice(
            "organization",
            "null::text",
            "No way to an organisation was found: events take organization_id of the context.",
            "Which column, or which way, leads to the organisation?",
        )

    def _subject(self, table: Table) -> Choice | None:
        return self._chosen("subject", self.tenancy.subject_of(table))

    def _secrets(self, table: Table, kind: str) -> frozenset[str]:
        """Return the columns of a table that attach redacts as one of this kind."""
        return secret_columns(self.tenancy.catalog, table, kind)

    def _identity(self, table: Table, kind: str) -> tuple[Column, ...]:
        """Return what tells the rows of a table apart, no secret if there is another way."""
        secrets = self._secrets(table, kind)
        open_keys = (k for k in table.identities if secrets.isdisjoint(names_of(k)))
        return next(open_keys, next(iter(table.identities), ()))

    def _target_id(self, table: Table, kind: str) -> Choice | None:
        columns = self._identity(table, kind)
        if not columns:
            return None
        primary = table.has_primary_key and columns == table.identities[0]
        why = "The primary key." if primary else "A unique key without nulls."
        if not self._secrets(table, kind).isdisjoint(names_of(columns)):
            why = "The key of the table is a secret: its digest stands for it."
        if len(columns) == 1:
            return Choice("target_id", columns[0].sql, why)
        if any(c.category == "D" or c.type == "bytea" for c in columns):
            # What these look like as text depends on settings; the default of attach sees to it.
            return None
        joined = ", ".join(f"r.{c.sql}" for c in columns)
        return Choice("target_id", f"concat_ws(',', {joined})", why)

    @staticmethod
    def _alive(table: Table, kind: str) -> Choice | None:
        state = alive(table, kind)
        return Choice("alive", state.of("r"), state.why, state.question) if state else None

    def _source(self, link: Link) -> Table:
        return self.tenancy.catalog.tables[link.source]

    def _group_words(self, group: Table | None = None) -> tuple[str, ...]:
        table = group or self.tenancy.organization
        return table.words if table is not None else ()

    def _note(self, table: Table, why: str) -> None:
        note = f"{table.sql}: {why}."
        if note not in self.notes:
            self.notes.append(note)
