"""Estimates: what a reader without a token may learn of other organisations' events by EXPLAIN."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.rows import dict_row

from tests.attacks.conftest import act, scratch
from tests.attacks.report import attack
from tests.conftest import Database
from tests.viewer import sign

GROUP = "Reading what is not yours"
VALUES = (
    "Estimates of EXPLAIN that depend on the value asked for: actors, subjects, targets,"
    " organisations"
)
RUNS = (
    "EXPLAIN ANALYZE that tells whether an event exists by what was executed, without a token or"
    " with another organisation's"
)
STATISTICS = "Statistics views (pg_stats and its like) as a reader"
# Frequent in another organisation's events, rare there, and nowhere at all. Of one length each, for
# a pattern's estimate depends on how long it is, whatever the table holds.
PROBES = {
    "actor_id": [
        "dr-strange@victim.example",
        "nurse-00-3@victim.example",
        "nobody-002@victim.example",
        "aaaaaaaaaa@victim.example",
    ],
    "impersonator_id": ["boss@victim.example", "none@victim.example", "zzzz@victim.example"],
    "subject_id": ["patient-7", "patient-3", "patient-x", "aaaaaaaaa"],
    "target_id": ["record-7", "record-3", "record-x", "zzzzzzzz"],
    "organization_id": ["2", "3", "9", "1"],
    "source": ["ward-7", "ward-8", "zzzzzz"],
    "action": ["chart.opened", "chart.copied", "no.such.verb"],
}
OPERATORS = ["= '{}'", "<> '{}'", "< '{}'", ">= '{}'", "between '{}' and '{}~'", "in ('{}', 'x')",
             "like '{}%'", "~ '^{}'", "= any (array['{}', 'y'])", "ilike '{}'",
             "is not distinct from '{}'", "^@ '{}'"]  # fmt: skip
JSON = [
    "{} @> '{{\"ward\": \"{}\"}}'", "{} ->> 'ward' = '{}'", "{} ? '{}'",
    "{} = '{{\"ward\": \"{}\"}}'",
    "{}::text like '%{}%'",
]  # fmt: skip
FILL = """
insert into {log} (action, result, actor_id, actor_type, impersonator_id, organization_id,
    target_type, target_id, subject_id, source, captured_from, old_values, new_values, details)
select case when i % 9 = 0 then 'chart.printed' else 'chart.opened' end,
    case when i % 50 = 0 then 'denied' else 'success' end,
    case when i % 6 < 4 then 'dr-strange@victim.example'
        else 'nurse-00-' || i % 10 || '@victim.example' end,
    'user', case when i % 100 < 9 then 'boss@victim.example' end,
    case when i % 11 < 9 then '2' else '3' end,
    'chart', 'record-' || least(i % 300, 7), 'patient-' || least(i % 200, 7),
    case when i % 3 = 0 then 'ward-7' else 'web' end, 'victim.chart',
    jsonb_build_object('ward', 'ward-' || i % 5), jsonb_build_object('ward', 'ward-' || i % 7),
    jsonb_build_object('ward', 'ward-7')
from generate_series(1, 6000) as i;
"""
NAIVE = """
create table plain (like audit.event including defaults including indexes);
grant select on plain to app_reader;
alter table plain enable row level security;
create policy mine on plain
    using (organization_id = (select current_setting('plain.organization', true)));
"""


@pytest.fixture(scope="module")
def filled(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A log that is full of another organisation's events, analyzed, beside a plain one."""
    with scratch(request, "auditdb_estimates") as database:
        with psycopg.connect(database.dsn, autocommit=True) as conn:
            conn.execute(NAIVE)
            for log in ("audit.event", "plain"):
                conn.execute(FILL.format(log=log).encode())
            conn.execute("analyze")
            conn.execute("vacuum analyze audit.event")
            conn.execute("analyze audit.event_default")
        yield database


def estimate(conn: psycopg.Connection[Any], query: str) -> Any:
    """Return everything that EXPLAIN guesses, without the query's own text."""

    def numbers(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: numbers(value)
                for key, value in node.items()
                if key in ("Plan", "Plans", "Plan Rows", "Node Type", "Total Cost", "Startup Cost",
                           "Plan Width", "Index Name")
            }  # fmt: skip
        return [numbers(part) for part in node] if isinstance(node, list) else node

    row = conn.execute(f"explain (format json) {query}".encode()).fetchone()
    assert row is not None
    return numbers(next(iter(row.values())))


def guesses(conn: psycopg.Connection[Any], log: str, condition: str, values: list[str]) -> set[str]:
    """Return the different estimates of one condition for several values."""
    return {
        json.dumps(estimate(conn, f"select from {log} where " + condition.replace("{}", value)))
        for value in values
    }


@contextlib.contextmanager
def as_reader(database: Database) -> Iterator[psycopg.Connection[Any]]:
    conn = database.connect("app_reader", row_factory=dict_row, prepare_threshold=None)
    try:
        yield conn
    finally:
        conn.close()


LOGS = ["audit.event", "audit.log"]


@attack(GROUP, VALUES, outcome="B")
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("column", PROBES)
def test_an_estimate_does_not_depend_on_the_value_asked_for(
    filled: Database, column: str, operator: str
) -> None:
    with as_reader(filled) as conn:
        found = conn.execute("select count(*) as n from audit.event").fetchone()
        assert found == {"n": 0}
        for log in LOGS:
            seen = guesses(conn, log, f"{column} {operator}", PROBES[column])
            assert len(seen) == 1, f"{len(seen)} estimates of {log}: {sorted(seen)[:2]}"


@attack(GROUP, VALUES, outcome="B")
@pytest.mark.parametrize("column", ["old_values", "new_values", "details"])
@pytest.mark.parametrize("condition", JSON)
def test_an_estimate_does_not_depend_on_what_json_holds(
    filled: Database, column: str, condition: str
) -> None:
    with as_reader(filled) as conn:
        seen = {
            json.dumps(
                estimate(conn, f"select from audit.event where {condition}".format(column, value))
            )
            for value in ("ward-7", "ward-3", "ward-x", "aaaaaa")
        }
    assert len(seen) == 1, seen


PLANS = {
    "grouped": "select {c} from audit.event group by 1",
    "distinct": "select distinct {c} from audit.event",
    "joined": "select from audit.event as a join audit.event as b using ({c})",
    "joined with values": "select from audit.event join (values ('x'), ('{v}')) as v (x)"
    " on {c} = x",
    "two columns": "select from audit.event where {c} = '{v}' and source = 'ward-7'",
    "or": "select from audit.event where {c} = '{v}' or {c} = 'x'",
    "not": "select from audit.event where not ({c} = '{v}')",
    "null": "select from audit.event where {c} is null",
    "having": "select {c} from audit.event group by 1 having {c} = '{v}'",
    "limit": "select from audit.event where {c} = '{v}' order by occurred_at desc limit 10",
    "in a subselect": "select from audit.event where {c} in (select '{v}'::text)",
    "except": "select {c} from audit.event except select '{v}'",
    "length": "select from audit.event where length({c}) = length('{v}')",
    "upper": "select from audit.event where upper({c}) = upper('{v}')",
    "concatenated": "select from audit.event where {c} || '' = '{v}'",
    "another collation": "select from audit.event where {c} collate \"C\" = '{v}'",
    "row": "select from audit.event where ({c}, result) = ('{v}', 'success')",
    "cast": "select from audit.event where {c}::name = '{v}'",
}


@attack(GROUP, VALUES, outcome="B")
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("column", ["actor_id", "subject_id", "target_id", "organization_id"])
def test_no_plan_depends_on_the_value_asked_for(filled: Database, column: str, plan: str) -> None:
    with as_reader(filled) as conn:
        seen = {
            json.dumps(estimate(conn, PLANS[plan].format(c=column, v=value)))
            for value in PROBES[column]
        }
    assert len(seen) == 1, seen


@attack(GROUP, VALUES, outcome="B")
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan", "auto"])
@pytest.mark.parametrize("column", ["actor_id", "organization_id"])
def test_no_prepared_statement_depends_on_its_parameter(
    filled: Database, column: str, mode: str
) -> None:
    with as_reader(filled) as conn:
        conn.execute(f"set plan_cache_mode = {mode}".encode())
        conn.execute(f"prepare p (text) as select from audit.event where {column} = $1".encode())
        seen = {
            json.dumps(estimate(conn, f"execute p ('{value}')")) for value in PROBES[column] * 7
        }
    assert len(seen) == 1, seen


@attack(GROUP, VALUES, outcome="B")
@pytest.mark.parametrize("how", ["analyze audit.event", "analyze", "vacuum analyze audit.event"])
def test_analyze_brings_no_statistics_back(filled: Database, how: str) -> None:
    conn = filled.connect(row_factory=dict_row)
    conn.execute("select audit_private.create_months(2)")
    conn.execute(how.encode())
    rows = conn.execute(
        "select distinct attname from pg_stats where schemaname = 'audit'"
        " and tablename ~ '^event' and attname = any (%s)"
        " and (most_common_vals is not null or histogram_bounds is not null)",
        (list(PROBES),),
    ).fetchall()
    assert rows == []


@attack(GROUP, VALUES, outcome="B")
def test_a_month_to_come_keeps_no_statistics_either(filled: Database) -> None:
    conn = filled.connect(row_factory=dict_row)
    conn.execute("select audit_private.create_months(30)")
    rows = conn.execute(
        "select attname, array_agg(distinct coalesce(to_jsonb(a) ->> 'attstattarget', '-1'))"
        " as targets from pg_attribute as a where attrelid in"
        " (select relid from pg_partition_tree('audit.event')) and attname = any (%s)"
        " group by attname having array_agg(distinct to_jsonb(a) ->> 'attstattarget') <> '{0}'",
        (["actor_id", "impersonator_id", "subject_id", "target_id", "organization_id"],),
    ).fetchall()
    assert rows == []


@attack(GROUP, VALUES, outcome="B", twin=True)
def test_explain_spells_the_actors_of_a_naive_log(filled: Database) -> None:
    with as_reader(filled) as conn:
        assert conn.execute("select count(*) as n from plain").fetchone() == {"n": 0}
        assert len(guesses(conn, "plain", "actor_id = '{}'", PROBES["actor_id"])) > 1
        assert len(guesses(conn, "plain", "organization_id = '{}'", ["2", "3", "99"])) > 1


# Conditions that are cheaper than the policy's, or as cheap, of a value that exists and of others.
EXISTS = {
    "any": "{} = any (array['{}'])",
    "range": "{0} >= any (array['{1}']) and {0} < any (array['{1}~'])",
    "all": "{} = all (array['{}'])",
    "equal": "{} = '{}'",
    "unequal": "not {} <> '{}'",
    "distinct": "{} is not distinct from '{}'",
    "any of the other organisation": "organization_id = any (array['2'])"
    " and {} = any (array['{}'])",
    "equal in the other organisation": "organization_id = '2' and {} = '{}'",
    "or": "({0} = '{1}' or {0} = 'x') and organization_id = any (array['2'])",
}
# Ones that need no operator at all; the latter of each pair is true of no event.
BARE = [
    ("actor_id is not null", "actor_id is null"),
    ("impersonator_id is null", "subject_id is null"),
    ("organization_id = any (array['2']) and new_values is not null",
     "organization_id = any (array['2']) and new_values is null"),
    ("actor_id <> any (array['x'])", "source <> any (array['x']) and actor_id is null"),
    ("(id > 0) is true", "(id > 0) is not true"),
    ("id > any (array[0])", "id < any (array[0])"),
]  # fmt: skip
SCANS = {
    "indexes": ["enable_indexscan", "enable_bitmapscan", "enable_indexonlyscan"],
    "whole": ["enable_seqscan"],
    "none": [],
}


def executed(conn: psycopg.Connection[Any], log: str, condition: str) -> str:
    """Return what EXPLAIN ANALYZE counts: loops, rows, rows removed, searches of an index."""

    def counts(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: counts(value)
                for key, value in node.items()
                if key in ("Plan", "Plans", "Node Type", "Subplan Name")
                or re.match("Actual|Rows Removed|Index Searches|Heap|Exact|Lossy", key)
            }
        return [counts(part) for part in node] if isinstance(node, list) else node

    row = conn.execute(
        "explain (analyze, timing off, summary off, costs off, format json)"
        f" select from {log} where {condition}".encode()
    ).fetchone()
    assert row is not None
    return json.dumps(counts(next(iter(row.values()))))


@contextlib.contextmanager
def as_viewer(database: Database, viewer: str, off: str) -> Iterator[psycopg.Connection[Any]]:
    """Log in as a reader without a token, or with one of organisation 1, with some scans off."""
    with as_reader(database) as conn:
        token = sign(database.key, "1", "1") if viewer == "another's token" else ""
        conn.execute("select set_config('auditdb.viewer', %s, false)", (token,))
        for scan in SCANS[off]:
            conn.execute(f"set {scan} = off".encode())
        yield conn


@attack(GROUP, RUNS, outcome="B")
@pytest.mark.parametrize("off", SCANS)
@pytest.mark.parametrize("viewer", ["no token", "another's token"])
def test_what_is_executed_does_not_depend_on_the_value_asked_for(
    filled: Database, viewer: str, off: str
) -> None:
    with as_viewer(filled, viewer, off) as conn:
        if viewer == "no token":
            assert conn.execute("select count(*) as n from audit.event").fetchone() == {"n": 0}
        for log in LOGS:
            for column in ("actor_id", "subject_id", "target_id", "action"):
                for condition in EXISTS.values():
                    seen = {
                        executed(conn, log, condition.format(column, value))
                        for value in PROBES[column]
                    }
                    assert len(seen) == 1, (log, column, condition, seen)


@attack(GROUP, RUNS, outcome="B")
@pytest.mark.parametrize("off", SCANS)
@pytest.mark.parametrize("pair", BARE)
def test_what_is_executed_without_a_token_does_not_depend_on_what_there_is(
    filled: Database, pair: tuple[str, str], off: str
) -> None:
    with as_viewer(filled, "no token", off) as conn:
        for condition in pair:
            plan = executed(conn, "audit.event", condition)
            assert '"Actual Loops": 1' in plan
            # No scan of a month, and who reads was asked all the same.
            for scan in re.findall(r'"Node Type": "(?:Seq|Index|Bitmap)[^{}]*', plan):
                assert '"Actual Loops": 0' in scan, (condition, plan)
            assert re.search(r'InitPlan 1[^{}]*"Actual Loops": 1', plan), (condition, plan)


@attack(GROUP, RUNS, outcome="B", twin=True)
def test_what_is_executed_tells_the_actors_of_a_naive_log(filled: Database) -> None:
    with as_viewer(filled, "no token", "none") as conn:
        assert conn.execute("select count(*) as n from plain").fetchone() == {"n": 0}
        seen = {
            executed(conn, "plain", EXISTS["any"].format("actor_id", value))
            for value in PROBES["actor_id"]
        }
    assert len(seen) == 2


VIEWS = {
    "pg_stats": "select most_common_vals::text as v from pg_stats where tablename ~ '^event'"
    " and schemaname = 'audit'",
    "pg_statistic": "select stavalues1::text as v from pg_statistic",
    "pg_stats_ext": "select statistics_name as v from pg_stats_ext where schemaname = 'audit'",
    "pg_statistic_ext_data": "select stxdmcv::text as v from pg_statistic_ext_data",
    "pg_stats_ext_exprs": "select expr as v from pg_stats_ext_exprs where schemaname = 'audit'",
    "month": "select count(*)::text as v from audit.event_default",
    "large objects": "select loid::text as v from pg_largeobject",
}


@attack(GROUP, STATISTICS, outcome="B")
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("role", ["app_reader", "app", "app_owner", "stranger"])
def test_no_statistics_view_shows_a_value(filled: Database, view: str, role: str) -> None:
    conn = filled.connect(role, row_factory=dict_row)
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(pg.InsufficientPrivilege, pg.UndefinedTable):
        rows = conn.execute(VIEWS[view].encode()).fetchall()
    assert not [row for row in rows if row["v"] and "victim" in row["v"]]
    assert rows == [] or view not in ("pg_stats", "month")


@attack(GROUP, STATISTICS, outcome="B", twin=True)
def test_the_statistics_of_a_naive_log_show_its_values(filled: Database) -> None:
    conn = filled.connect(row_factory=dict_row)
    conn.execute("alter table plain disable row level security")
    try:
        act(conn, "app_reader")
        rows = conn.execute(
            "select most_common_vals::text as v from pg_stats where tablename = 'plain'"
        ).fetchall()
        assert [row for row in rows if row["v"] and "dr-strange" in row["v"]]
    finally:
        conn.execute("reset session authorization")
        conn.execute("alter table plain enable row level security")
