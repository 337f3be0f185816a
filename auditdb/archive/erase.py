"""Erasure in archived months: removes the same columns that audit.erase removes elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from auditdb.archive import format
from auditdb.archive.months import Month
from auditdb.connection.checks import raises_audit_errors
from auditdb.errors import Refused
from auditdb.evidence.leaf import SALT, commit
from auditdb.evidence.lines import groups_of, names_person
from auditdb.values.plain import counted

if TYPE_CHECKING:
    import duckdb

_BATCH = 5000
# The same conditions as audit_private.is_of_person and is_erased.
_FOUND = f"""
from event
where ($subject is null or coalesce(subject_id = $subject or impersonator_id = $subject
        or actor_type = 'user' and actor_id = $subject
        or target_type = 'user' and target_id = $subject, false))
    and ($organization is null or organization_id = $organization)
    and action <> 'audit.erased'
    and not coalesce(actor_id is null and impersonator_id is null and subject_id is null
        and old_values is null and new_values is null
        and (target_type is distinct from 'user' or target_id is null)
        and {format.ERASURE} <> '', false)"""


@dataclass(slots=True)
class Kept:
    """The result of an erasure in a month, before it is written: event count and messages."""

    events: int = 0
    lines: list[str] = field(default_factory=list)


def erase_month(
    conn: psycopg.Connection[Any], duck: duckdb.DuckDBPyConnection, path: Path, month: Month
) -> Kept:
    """Load a month into the table `event` of DuckDB, without the data to erase.

    Args:
        conn: a connection of a member of `audit_auditor`.
        duck: where the table is made.
        path: the file of the month.
        month: the month, for which erasures are pending.
    """
    kept = Kept()
    duck.execute(f"create table event as select * from {format.file(path)}")
    duck.execute("create table gone (id bigint, details varchar, names boolean)")
    query = """select r.id, r.subject_id, r.organization_id from audit.archive_erasure as r
        where r.month = %s order by r.id"""
    for number, subject, organization in conn.execute(query, [month.month]).fetchall():
        given = {"subject": subject, "organization": organization}
        organizations = [row[0] for row in duck.execute(
            f"select distinct organization_id {_FOUND}", given).fetchall()]  # fmt: skip
        try:
            with raises_audit_errors(conn, "audit_auditor"):
                row = conn.execute(
                    "select audit_private.begin_archive_erasure(%s, %s::text[])",
                    [number, organizations],
                ).fetchone()
        except Refused as error:
            kept.lines.append(f"keep {month.name} as it is: {error}")
            continue
        if not organizations:
            _finish(conn, number, [], [])
            continue
        assert row is not None
        kept.events += _take(conn, duck, month.month, int(row[0]), given)
    return kept


def _take(
    conn: psycopg.Connection[Any], duck: duckdb.DuckDBPyConnection, month: str, erasure: int,
    given: dict[str, Any],
) -> int:  # fmt: skip
    """Remove the personal part of events; return the number of events."""
    ids = {row[0] for row in duck.execute(f"select id {_FOUND}", given).fetchall()}
    sealed = dict(_seals(conn, month, ids))
    duck.execute("delete from gone")
    # A second cursor: a cursor that writes loses the result that it was reading.
    reader = duck.cursor()
    reader.execute(f"select {format.LEAF} {_FOUND}", given)
    while rows := reader.fetchmany(_BATCH):
        numbers, details, names = [], [], []
        for row in rows:
            number = int(row[0])
            said = f'"erasure": {erasure}'
            if number in sealed:
                series, salt = sealed[number]
                said += f', "commitment": "{commit(salt, groups_of(row, series)[1]).hex()}"'
            numbers.append(number)
            details.append(f'{{"erased": {{{said}}}}}')
            names.append(names_person(row))
        duck.execute("insert into gone select unnest($1), unnest($2), unnest($3)",
                     [numbers, details, names])  # fmt: skip
    duck.execute(
        """update event set actor_id = null, impersonator_id = null, subject_id = null,
            old_values = null, new_values = null, details = gone.details,
            target_id = case when gone.names then null else target_id end
        from gone where event.id = gone.id"""
    )
    return len(ids)


def _seals(
    conn: psycopg.Connection[Any], month: str, ids: set[int]
) -> Iterator[tuple[int, tuple[str, bytes]]]:
    """Yield the series and the salt of each of these events that is sealed."""
    query = """select s.id, s.ids, s.salts, r.key::text from audit.seal as s
            join audit.tick as t on t.id = s.tick_id join audit.series as r on r.id = t.series_id
        where s.month = %s and s.id > %s order by s.id limit 1"""
    last = 0
    while row := conn.execute(query, [month, last]).fetchone():
        last, numbers, salts, series = row
        for at, number in enumerate(numbers):
            if number in ids:
                yield number, (series, bytes(salts[at * SALT : (at + 1) * SALT]))


def finish_erasures(
    conn: psycopg.Connection[Any], duck: duckdb.DuckDBPyConnection, path: Path, month: Month
) -> Iterator[str]:
    """Mark erasures as done if the file of the month shows them; yield a line for each."""
    query = """select r.id, r.erasure_id from audit.archive_erasure as r
        where r.month = %s and r.erasure_id is not null order by r.id"""
    for number, erasure in conn.execute(query, [month.month]).fetchall():
        rows = duck.execute(
            f"select id, organization_id from {format.file(path)} "
            f"where {format.ERASURE} = $erasure",
            {"erasure": str(erasure)},
        ).fetchall()
        if rows:
            _finish(conn, number, [row[0] for row in rows], [row[1] for row in rows])
            yield f"erased {counted(len(rows), 'event')} of {month.name} in the archive"


def _finish(
    conn: psycopg.Connection[Any], number: int, ids: list[int], organizations: list[str | None]
) -> None:
    with raises_audit_errors(conn, "audit_auditor"):
        conn.execute(
            "select audit_private.finish_archive_erasure(%s, %s::bigint[], %s::text[])",
            [number, ids, organizations],
        )
