"""What an admin asks the log: the queries of the reader, of the views, and of a report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from zoneinfo import ZoneInfo

import psycopg
from psycopg import sql

from auditdb.read.event import cursor_of
from auditdb.read.filters import Filters
from auditdb.read.query import PageQuery
from auditdb.web import queries

Query = tuple[sql.Composable, dict[str, Any]]


@dataclass(frozen=True)
class Question:
    """A question by name, and how to ask it of one organisation."""

    name: str
    build: Callable[[psycopg.Connection[Any], int], Query]

    @property
    def is_sql(self) -> bool:
        """Whether it is asked in SQL, and not through the reader."""
        return self.name.startswith(("view", "counts"))


def _page(**filters: Any) -> Callable[[psycopg.Connection[Any], int], Query]:
    def build(conn: psycopg.Connection[Any], organization: int) -> Query:
        del conn
        named: Filters = {
            key: value.format(o=organization) if isinstance(value, str) else value
            for key, value in filters.items()
        }  # type: ignore[assignment]
        query, values = PageQuery(50, named).statement
        assert isinstance(query, sql.Composable) and isinstance(values, dict)
        return query, values

    return build


def _page_1000(conn: psycopg.Connection[Any], organization: int) -> Query:
    """Ask for the page after 1,000 pages of 50, by the cursor that the page before it gave."""
    del organization
    row = conn.execute(
        "select occurred_at, id from audit.event order by occurred_at desc, id desc "
        "offset least(49999, (select count(*) from audit.event) / 2) limit 1"
    ).fetchone()
    assert row is not None
    cursor = cursor_of(row[0], row[1])
    query, values = PageQuery(50, {}, after=cursor).statement
    assert isinstance(query, sql.Composable) and isinstance(values, dict)
    return query, values


def _sql(query: LiteralString, view: str = "") -> Callable[[psycopg.Connection[Any], int], Query]:
    def build(conn: psycopg.Connection[Any], organization: int) -> Query:
        del conn, organization
        since = datetime.now(UTC) - timedelta(days=30)
        return sql.SQL(query).format(sql.Identifier(view)), {"since": since}

    return build


def _days(conn: psycopg.Connection[Any], organization: int) -> Query:
    """Ask for the histogram of the page of admins."""
    del conn, organization
    query, values = queries.days_query(ZoneInfo("UTC"), datetime.now(UTC).date(), None)
    assert isinstance(query, sql.Composable) and isinstance(values, dict)
    return query, values


def questions() -> list[Question]:
    """Return the questions, in the order in which the report has them."""
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    before = (month - timedelta(days=1)).replace(day=1)
    return [
        Question("first page", _page()),
        Question("page 1,000 by cursor", _page_1000),
        Question("by actor", _page(actor_id="u{o}_7")),
        Question("history of a target", _page(target_type="workflow", target_id="{o}_7")),
        Question("by action, last month",
            _page(action="api_key.revoked", since=before, until=month)),
        Question("by category", _page(category="membership")),
        Question("view membership_log", _sql(
            "select * from audit.membership_log order by occurred_at desc, id desc limit 50")),
        Question("view role_change", _sql(
            "select * from audit.role_change order by occurred_at desc, id desc limit 50")),
        Question("view login_activity, 30 days", _sql(
            "select subject_id, count(*) from audit.event where action = 'auth.login' "
            "and occurred_at >= %(since)s group by subject_id")),
        Question("view api_key_lifecycle", _sql("select * from audit.api_key_lifecycle")),
        Question("view api_key_lifecycle, a key", _sql(
            "select * from audit.api_key_lifecycle where api_key_id = '1_7'")),
        *(
            Question(f"view {name}", _sql(
                "select * from audit.{} order by occurred_at desc, id desc limit 21", name))
            for name in queries.SIGNALS
        ),
        Question("counts per day, 30 days", _sql(
            "select occurred_at::date as day, count(*) from audit.event "
            "where occurred_at >= %(since)s group by day order by day")),
        Question("histogram of the page", _days),
    ]  # fmt: skip
