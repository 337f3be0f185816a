"""What a page asks beside the list: one event, events a day, what is logged, why nothing shows."""

from __future__ import annotations

from dataclasses import fields
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from psycopg.sql import SQL, Composable, Identifier, Literal

from auditdb.connection.begin import Row, Statement
from auditdb.read.event import Event
from auditdb.read.query import column
from auditdb.web.change import CUT

# Bytes of values that a list fetches of an event, and that one event alone does.
LISTED, ALONE = 4_000, 1_000_000
DAYS = 30
# Events of a day that are counted.
MOST_A_DAY = 1_000


def columns(longest: int) -> Composable:
    """Return the columns of an event; instead of values that are too long, their size."""
    return SQL(", ").join(
        SQL(
            # Compressed, what is small may be a hundred times as long.
            "case when pg_column_size({0}) >= {1} then jsonb_build_object({2}, pg_column_size({0}))"
            " when octet_length({0}::text) >= {1} "
            "then jsonb_build_object({2}, octet_length({0}::text)) else {0} end as {0}"
        ).format(Identifier(field.name), Literal(longest), Literal(CUT))
        if field.name in ("old_values", "new_values", "details")
        else column(field.name)
        for field in fields(Event)
    )


def one_event(at: datetime, event_id: int, organization_id: str | None) -> Statement:
    """Return the query of an event by its permalink."""
    where = SQL(" and organization_id = %(organization_id)s" if organization_id is not None else "")
    query = SQL("select {} from audit.event where occurred_at = %(at)s and id = %(id)s{}")
    return query.format(columns(ALONE), where), {
        "at": at, "id": event_id, "organization_id": organization_id,
    }  # fmt: skip


def days_query(zone: ZoneInfo, today: date, organization_id: str | None) -> Statement:
    """Return the query of how many events each of the last days had, up to a bound for each."""
    where = SQL(" and organization_id = %(organization_id)s" if organization_id is not None else "")
    starts = [
        datetime.combine(today - timedelta(days=back), datetime.min.time(), zone)
        for back in range(DAYS - 1, -2, -1)
    ]
    # Between two bounds that it does not know, 18 takes the index of the organisation for dear.
    query = SQL(
        "select d.day, (select count(*) from (select e.occurred_at from audit.event as e "
        "where e.occurred_at >= d.starts{} order by e.occurred_at, e.id limit {}) as c "
        "where c.occurred_at < d.ends) as count "
        "from unnest(%(days)s::date[], %(starts)s::timestamptz[], %(ends)s::timestamptz[]) "
        "as d (day, starts, ends) order by d.day"
    ).format(where, Literal(MOST_A_DAY))
    values: dict[str, Any] = {
        "days": [start.date() for start in starts[:-1]],
        "starts": starts[:-1],
        "ends": starts[1:],
        "organization_id": organization_id,
    }
    return query, values


# Views of what an admin should look at, in the order in which the page has them.
SIGNALS = (
    "login_burst", "unusual_login", "new_owner", "open_impersonation", "denied_attempt",
    "failed_login", "old_api_key",
)  # fmt: skip
# Rows of a signal that are counted, and that its list holds.
MOST_SIGNALS = 100


def signals_query(organization_id: str | None) -> Statement:
    """Return the query of how many rows each signal has, up to a bound."""
    where = SQL(
        "where organization_id = %(organization_id)s" if organization_id is not None else ""
    )
    counts = SQL(" union all ").join(
        SQL("select {}, (select count(*) from (select from audit.{} {} limit {}) as c)").format(
            Literal(name), Identifier(name), where, Literal(MOST_SIGNALS)
        )
        for name in SIGNALS
    )
    query = SQL("select name, count from ({}) as s (name, count) where count > 0")
    return query.format(counts), {"organization_id": organization_id}


def signal_query(name: str, organization_id: str | None) -> Statement:
    """Return the query of the events that a signal points to, newest first."""
    where = SQL(
        "where organization_id = %(organization_id)s " if organization_id is not None else ""
    )
    query = SQL(
        "select {} from (select e.* from (select occurred_at, id from audit.{} {}"
        "order by occurred_at desc, id desc limit {}) as s cross join lateral ("
        "select * from audit.event as e where e.occurred_at = s.occurred_at and e.id = s.id) as e"
        ") as event order by occurred_at desc, id desc"
    )
    values = {"organization_id": organization_id}
    most = Literal(MOST_SIGNALS)
    return query.format(columns(LISTED), Identifier(name), where, most), values


LOGGED: Statement = ("select kind, tables, since from audit.list_logged()", [])
# No driver has a time for what is before all times.
SHOWN_SINCE: Statement = (
    "select nullif((audit_private.visible_since())[1], '-infinity') as since",
    [],
)
PROBLEM: Statement = ("select audit.viewer_problem() as problem", [])
# Of the log itself, what an organisation's own log has.
ACTIONS: Statement = (
    "select name from audit.action where category <> 'audit' "
    "or name in ('audit.viewed', 'audit.export_started', 'audit.exported', 'audit.verified', "
    "'audit.bundled', 'audit.accessed', 'audit.subscription_created', "
    "'audit.subscription_changed', 'audit.subscription_dropped') order by name",
    [],
)


def bars(rows: list[Row], height: int) -> list[dict[str, Any]]:
    """Return the bars of a histogram: day, count and height in pixels of each."""
    most = max([row["count"] for row in rows], default=0) or 1
    return [
        {
            "day": row["day"],
            "count": row["count"],
            "is_most": row["count"] >= MOST_A_DAY,
            # What is there shows, however little it is.
            "height": round(height * row["count"] / most) or (1 if row["count"] else 0),
        }
        for row in rows
    ]
