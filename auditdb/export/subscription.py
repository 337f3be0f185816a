"""Subscriptions for operators: create, change, list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, LiteralString

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from auditdb.connection.checks import raises_audit_errors
from auditdb.connection.pin import pinned
from auditdb.errors import InvalidInput
from auditdb.export.formats import FORMATS
from auditdb.export.sinks.open import check_sink, options_of
from auditdb.values.arguments import as_list


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionStatus:
    """A subscription with its progress; the columns of `audit.list_subscriptions()`."""

    name: str
    sink: str
    format: str
    organization_id: str | None
    actions: list[str] | None
    categories: list[str] | None
    results: list[str] | None
    conditions: list[str] | None
    at_least: int | None
    within: timedelta | None
    per: str | None
    options: dict[str, Any]
    state: str
    problem: str | None
    problem_at: datetime | None
    delivered: int
    lag_events: int
    lag_seconds: float
    set_aside: int
    missed: int
    tick_id: int
    served_at: datetime
    lapses_at: datetime
    created_at: datetime
    created_by: str
    made_by: str | None


def create_subscription(
    conn: psycopg.Connection[Any],
    name: str,
    *,
    sink: str,
    format: str = "jsonl",
    organization_id: str | None = None,
    actions: Sequence[str] = (),
    categories: Sequence[str] = (),
    results: Sequence[str] = (),
    where: Sequence[str] = (),
    at_least: int | None = None,
    within: str | None = None,
    per: str | None = None,
    options: dict[str, Any] | None = None,
    lapses_after: str = "30 days",
    begin: Literal["start", "now"] = "start",
) -> None:
    """Create a subscription.

    Args:
        conn: a connection of a member of `audit_auditor`.
        name: its name.
        sink: the address of the sink, without a secret; see docs/export.md.
        format: jsonl, ocsf, cloudevents or csv.
        organization_id: only events of this organisation.
        actions: only these actions.
        categories: only these categories.
        results: only these results.
        where: only events that fulfil all of these: `COLUMN=VALUE`, `COLUMN!=VALUE`.
        at_least: send only the event that reaches this count.
        within: the interval for this count.
        per: count separately for each value of this column.
        options: options of the sink: compression, timeout, array, every.
        lapses_after: an interval: how long retention waits for it while it is not served.
        begin: with the first event, or with new events.

    Raises:
        InvalidInput: an invalid address, option or condition, or a string instead of a list.
        Refused: no privilege, or the name exists already.

    Example:
        >>> create_subscription(conn, "siem", sink="s3://logs/audit")  # doctest: +SKIP
    """
    check_sink(sink)
    options_of(options or {})
    if format not in FORMATS:
        raise InvalidInput(f"format is {format!r}; it is one of {', '.join(sorted(FORMATS))}")
    query: LiteralString = (
        "select audit.subscribe(%s, %s, %s, %s, %s, %s, %s, %s, %s::interval, %s, %s, %s, "
        "%s::interval, %s)"
    )
    given = [name, sink, format, organization_id, as_list("actions", actions) or None,
             as_list("categories", categories) or None, as_list("results", results) or None,
             Jsonb(options or {}), lapses_after, begin == "now",
             as_list("where", where) or None, at_least, within, per]  # fmt: skip
    _run(conn, query, given, "audit_auditor")


def change_subscription(
    conn: psycopg.Connection[Any], name: str, what: Literal["pause", "resume", "drop"]
) -> None:
    """Pause, resume or drop a subscription.

    Args:
        conn: a connection of a member of `audit_auditor` or `audit_operator`.
        name: its name.
        what: `pause`, `resume` or `drop`.

    Raises:
        Refused: no privilege, or there is no such subscription.
    """
    queries: dict[str, LiteralString] = {
        "pause": "select audit.pause_subscription(%s)",
        "resume": "select audit.resume_subscription(%s)",
        "drop": "select audit.drop_subscription(%s)",
    }
    _run(conn, queries[what], [name], "audit_operator", "audit_auditor")


def reset_subscription(
    conn: psycopg.Connection[Any], name: str, begin: Literal["start", "now"]
) -> None:
    """Reset a subscription: to the first event, or to new events.

    Args:
        conn: a connection of a member of `audit_auditor`.
        name: of the subscription.
        begin: where.

    Raises:
        Refused: no privilege, or there is no such subscription.
    """
    query: LiteralString = "select audit.reset_subscription(%s, %s)"
    _run(conn, query, [name, begin == "now"], "audit_auditor")


def list_subscriptions(conn: psycopg.Connection[Any]) -> list[SubscriptionStatus]:
    """Return the subscriptions with their progress.

    Args:
        conn: a connection of a member of `audit_auditor` or `audit_operator`.

    Raises:
        Refused: no privilege.
    """
    with raises_audit_errors(conn, "audit_auditor", "audit_operator"), pinned(conn):
        cursor = psycopg.Cursor(conn, row_factory=class_row(SubscriptionStatus))
        return cursor.execute("select * from audit.list_subscriptions()").fetchall()


def _run(conn: psycopg.Connection[Any], query: LiteralString, given: list[Any], *roles: str
         ) -> None:  # fmt: skip
    with raises_audit_errors(conn, *roles), pinned(conn, writes=True):
        psycopg.Cursor(conn).execute(query, given)
