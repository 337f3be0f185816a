"""Answers open questions of the catalog from a bounded sample of rows, if that is allowed.

It reads whether a column is null and, for roles and states, the labels. No cast, operator or policy
of the application runs, because its author may have fewer rights than the user who samples. Index
and statistics expressions, which the planner may run, run only as the owner of the table.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from auditdb.detect.catalog import Table
from auditdb.detect.draft import INSTANCE, Draft, Question, Suggestion
from auditdb.detect.tenancy import ROLES, Tenancy, names_organization
from auditdb.mapping.vocabulary import is_secret

ROWS = 10_000
_FEW = 20  # too few rows to prove anything
_SMALL = 200  # most rows of a table of roles
_LABELS = 20  # with more different values, they are not labels
_LABEL = re.compile(r"\w[\w:. -]{0,39}")
_PREPARE: LiteralString = """
select set_config('row_security', 'off', true), set_config('statement_timeout', '5s', true)
"""
# Random pages of a large table; all of a small one.
_SHARE: LiteralString = """
select case when reltuples > 2 * %s then 100 * %s / reltuples end from pg_class where oid = %s
"""
_READ: LiteralString = "select audit_private.read_rows(%s::oid, %s)"
_ROLE: LiteralString = "select attname from audit_private.role_column(%s::oid)"
_NAME: LiteralString = """
select coalesce(
    (select attname from audit_private.columns_of(%s::oid)
    where attname = %s and lower(attname) ~ '(slug|name|key|code|identifier|role)$'),
    audit_private.column_like(%s::oid, 'name', 'rolename', 'key', 'slug', 'code', 'label',
        'title', 'identifier'))
"""
_LOOKUP: LiteralString = """
select audit_private.lookup(%s::oid, array[%s::text], array[%s::text], format('r.%%I', %s::text))
"""
_STATUS: LiteralString = """
select attname from audit_private.columns_of(%s::oid)
where category in ('E', 'S') and flat ~ ('^' || audit_private.words('status') || '$')
order by attnum limit 1
"""
_ADMINS: LiteralString = "select audit_private.admin_labels(%s::text[])"
# The labels with a word of the vocabulary.
_KNOWN: LiteralString = """
select array(
    select label from unnest(%s::text[]) as label
    where exists (select from unnest(%s::text[]) as entry
        where audit_private.normal_name(label)
            ~ format('-%%ss?-$', audit_private.words(entry))))
"""
# Whether attach regards them as admins by default.
_COVERED: LiteralString = """
select audit_private.admin_names()
    @> array(select lower(l) from unnest(%s::text[]) as l)
"""
_ADMIN: LiteralString = """
select audit_private.default_admin(o.id, audit_private.one_of(o.value, o.labels),
    jsonb_strip_nulls(jsonb_build_object('organization', o.organization)), false)
from (select %s::oid, %s::text, %s::text[], %s::text) as o (id, value, labels, organization)
"""
_FACT: LiteralString = "select audit_private.fact_column(%s::oid, %s)"


@dataclass(frozen=True)
class Answer:
    """The answer of a sample: what was seen, and the remaining question, if any."""

    seen: str = ""
    question: Question | None = None
    certain: bool | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """Samples of rows of the application's tables."""

    tenancy: Tenancy
    only_roles: bool  # only the names in small tables of roles

    def ask(self, query: LiteralString, *args: object) -> Any:
        """Return the result of a function of auditdb about the catalog or labels."""
        row = self.tenancy.catalog.cursor.execute(query, args).fetchone()
        return row[0] if row else None

    def read(
        self, table: Table, what: sql.Composable, tail: LiteralString = ""
    ) -> list[dict[str, Any]] | None:
        """Return a query result over the sampled rows `r`, or None if they may not be read."""
        cursor = self.tenancy.catalog.cursor
        try:
            with cursor.connection.transaction(force_rollback=True):
                cursor.execute(_PREPARE)
                share = self.ask(_SHARE, ROWS, ROWS, table.oid)
                if not table.owned:
                    return None
                source = sql.SQL("select {} from (select * from {}{} limit {}) as r {}").format(
                    what,
                    sql.Identifier(table.schema, table.name),
                    sql.SQL(" tablesample system ({})").format(share) if share else sql.SQL(""),
                    ROWS,
                    sql.SQL(tail),
                )
                cursor.execute(_READ, (table.oid, source.as_string(cursor)))
                return [row[0] for row in cursor.fetchall()]
        except psycopg.Error:
            # Row-level security, a missing privilege or a timeout: the question stays open.
            return None

    def count(self, table: Table, condition: sql.Composable) -> tuple[int, int]:
        """Return the number of sampled rows, and of those that fulfil a condition."""
        what = sql.SQL("count(*) as rows, count(*) filter (where {}) as those").format(condition)
        found = self.read(table, what)
        return (found[0]["rows"], found[0]["those"]) if found else (0, 0)

    def labels(self, table: Table, name: str) -> Counter[str] | None:
        """Return the count of each label in a column, or None if they are not labels."""
        if is_secret(name):
            return None
        what = sql.SQL("concat({}) as text, count(*) as rows").format(sql.Identifier("r", name))
        counted: Counter[str] = Counter()
        for said in self.read(table, what, "group by 1") or ():
            # Labels of an array, or separated by commas.
            for label in said["text"].strip("{}").split(","):
                counted[label.strip(' "')] += said["rows"]
        del counted[""]
        known = len(counted) <= _LABELS and all(_LABEL.fullmatch(label) for label in counted)
        return counted if counted and known else None

    def role_labels(self, table: Table) -> tuple[str, Counter[str]] | None:
        """Return the expression for the role of a row, and the labels of the roles."""
        name = self.ask(_ROLE, table.oid)
        if name is not None:
            found = None if self.only_roles else self.labels(table, name)
            return (f"r.{table.named[name].sql}", found) if found else None
        for link in self.tenancy.catalog.links[table.oid]:
            roles = self.tenancy.catalog.tables[link.target]
            if roles.head not in ROLES or len(link.columns) != 1:
                continue
            name = self.ask(_NAME, roles.oid, link.referenced[0], roles.oid)
            # Read whole: a larger table is not a table of roles.
            if name is None or self.count(roles, sql.SQL("true"))[0] > _SMALL:
                continue
            found = self.labels(roles, name)
            value = self.ask(_LOOKUP, roles.oid, link.columns[0].name, link.referenced[0], name)
            if found:
                return str(value), found
        return None


def answer(draft: Draft, *, only_roles: bool = False) -> None:
    """Answer those questions of a draft that rows can answer.

    Args:
        draft: the suggestions, which are changed.
        only_roles: read only the names in small tables of roles.
    """
    sample = Sample(draft.tenancy, only_roles)
    for oid, table in list(draft.found.items()):
        for question in table.questions:
            ask = _ANSWERS.get(question.code)
            if ask is None or (only_roles and ask is not _admins):
                continue
            found = ask(sample, draft.tenancy.catalog.tables[oid], draft.found[oid])
            if found is not None:
                draft.found[oid] = _settle(draft.found[oid], question, found)


def _settle(told: Suggestion, question: Question, found: Answer) -> Suggestion:
    left = [q for q in told.questions if q is not question]
    if found.question:
        left.insert(told.questions.index(question), found.question)
    return replace(
        told,
        why=f"{told.why} {found.seen}".strip(),
        questions=tuple(left),
        certain=told.certain if found.certain is None else found.certain,
        options={**told.options, **found.options},
    )


def _organization(sample: Sample, table: Table, told: Suggestion) -> Answer | None:
    """Whether the nullable way to the organisation is ever null."""
    tenancy = sample.tenancy
    ways = [
        column
        for link in tenancy.catalog.links[table.oid]
        if (target := tenancy.catalog.tables[link.target]) is not tenancy.users
        and tenancy.reaches(target) is not None
        for column in link.columns[:1]
    ] or [column for column in table.columns if names_organization(column)]
    if not ways:
        return None
    nulls = sql.SQL("num_nonnulls({}) = 0").format(
        sql.SQL(", ").join(sql.Identifier("r", column.name) for column in ways)
    )
    rows, without = sample.count(table, nulls)
    if rows < _FEW:
        return None
    if not without:
        return Answer(f"Each row of the sample of {rows} has a way to its organisation.")
    return Answer(
        question=Question(
            "organization-nullable",
            f"Rows of the sample of {rows} without a way to an organisation: {without}. Whose are "
            "they? Their events take organization_id of the context.",
        )
    )


def _several(sample: Sample, table: Table, told: Suggestion) -> Answer | None:
    """Whether a user is in more than one organisation."""
    tenancy = sample.tenancy
    member = tenancy.primary
    user = tenancy.user_column(member.table) if member else None
    if member is None or user is None:
        return None
    groups = [
        link.columns[0]
        for link in tenancy.catalog.links[member.table.oid]
        if member.group is not None and link.target == member.group.oid
    ] or [column for column in member.table.columns if names_organization(column)]
    if not groups:
        return None
    what = sql.SQL("count(*) as rows, count(distinct concat({})) as groups").format(
        sql.Identifier("r", groups[0].name)
    )
    # TABLESAMPLE takes pages. A user seen twice is in several organisations. If no user is seen
    # twice, that is only a hint.
    by = sql.SQL("{}, concat({}) as member").format(what, sql.Identifier("r", user[0].name))
    found = sample.read(member.table, by, "group by member") or []
    rows, several = sum(said["rows"] for said in found), sum(said["groups"] > 1 for said in found)
    if rows < _FEW:
        return None
    if not several:
        return Answer(f"No member in a sample of {len(found)} is in two organisations.")
    (question,) = (q for q in told.questions if q.code == "user-in-several")
    return Answer(
        question=replace(
            question,
            text=f"{question.text} (Members of the sample of {len(found)} that are in several: "
            f"{several}.)",
        )
    )


def _admins(sample: Sample, table: Table, told: Suggestion) -> Answer | None:
    """Which roles exist, and which of them make an admin."""
    found = sample.role_labels(table)
    if found is None:
        return None
    value, counted = found
    labels = list(counted)
    admins = sample.ask(_ADMINS, labels)
    unknown = set(labels) - set(admins) - set(sample.ask(_KNOWN, labels, ["role"]))
    seen = f"Its roles: {_list(counted)}."
    if not admins:
        written = f"{value}::text in ('{labels[0]}')"
        return Answer(
            seen,
            Question(
                "admin-nobody",
                "None of these makes an admin: which may read the log? Write here "
                f"admin = {json.dumps(written)}, with theirs.",
            ),
        )
    single = INSTANCE if sample.tenancy.is_single else None
    options = {} if sample.ask(_COVERED, admins) else {
        "admin": str(sample.ask(_ADMIN, table.oid, value, admins, single))
    }  # fmt: skip
    left = (
        Question("admin-labels", f"Admins are {_list(admins)}. Is one of {_list(unknown)}, too?")
        if unknown
        else None
    )
    return Answer(seen, left, options=options)


def _status(sample: Sample, table: Table, told: Suggestion) -> Answer | None:
    """Which states exist, and whether each is known to end a row or not."""
    name = sample.ask(_STATUS, table.oid)
    counted = sample.labels(table, name) if name is not None else None
    if counted is None:
        return None
    known = set(sample.ask(_KNOWN, list(counted), ["living", "dead", "pending"]))
    left = (
        Question(
            "status-labels", f"Does one of the states {_list(set(counted) - known)} end a row?"
        )
        if set(counted) - known
        else None
    )
    return Answer(f"Its states: {_list(counted)}.", left)


def _twice(fact: str) -> Callable[[Sample, Table, Suggestion], Answer | None]:
    """Return whether a password or second factor is kept with the user or in this table."""

    def where(sample: Sample, table: Table, told: Suggestion) -> Answer | None:
        users = sample.tenancy.users
        name = sample.ask(_FACT, users.oid, fact) if users is not None else None
        if users is None or name is None:
            return None
        column = sql.Identifier("r", name)
        is_set = (
            sql.SQL("{}").format(column)
            if users.named[name].category == "B"
            else sql.SQL("concat({}) <> ''").format(column)
        )
        rows, there = sample.count(users, is_set)
        here, _ = sample.count(table, sql.SQL("true"))
        if rows < _FEW or (there > 0) == (here > 0):
            return None
        if here:
            return Answer(f"In use: {users.name}.{name} is empty.", certain=True)
        return Answer(f"Empty: {users.name}.{name} is in use.")

    return where


_ANSWERS: dict[str, Callable[[Sample, Table, Suggestion], Answer | None]] = {
    "organization-nullable": _organization,
    "user-in-several": _several,
    "admin-labels": _admins,
    "admin-unknown": _admins,
    "status-labels": _status,
    "password-twice": _twice("password"),
    "factor-twice": _twice("two_factor"),
}


def _list(labels: Iterable[str]) -> str:
    """Return the labels in order, with counts if known."""
    if isinstance(labels, Counter):
        return ", ".join(f"{label} ({n})" for label, n in sorted(labels.items()))
    return ", ".join(sorted(labels))
