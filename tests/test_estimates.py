"""EXPLAIN, statistics, catalogs tell a reader how large the log is, and nothing that is in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.viewer import sign

EVENTS = 6000
# Of each family: from every second event down to none, all of one length.
VALUES = [f"{n:03}" for n in range(0, 300, 3)]

FILL = f"""
insert into audit.event (
    action, result, actor_id, actor_type, impersonator_id, db_user, organization_id, target_type,
    target_id, subject_id, source, captured_from, old_values, new_values, details
)
select 'kind.v' || v, 'success', 'a' || v, 't' || v, 'i' || v, 'd' || v, 'o' || v, 'k' || v,
    'x' || v, 's' || v, 'w' || v, 'c' || v, jsonb_build_object('n', 'n' || v),
    jsonb_build_object('n', 'n' || v),
    jsonb_build_object('ip', 'p' || v, 'k' || v, 1)
from (
    select lpad(floor(200 * power(n::float / {EVENTS}, 8))::text, 3, '0') as v
    from generate_series(0, {EVENTS - 1}) as n
) as e
"""

SHAPES = [
    "select from audit.event where actor_id = 'a{v}'",
    "select from audit.event where organization_id = 'o{v}'",
    "select from audit.event where target_id = 'x{v}' and target_type = 'k{v}'",
    "select from audit.event where subject_id = 's{v}' or impersonator_id = 'i{v}'",
    "select from audit.event where db_user = 'd{v}'",
    "select from audit.event where source = 'w{v}' and action = 'kind.v{v}'",
    "select from audit.event where captured_from = 'c{v}' and actor_type = 't{v}'",
    "select from audit.event where actor_id < 'a{v}'",
    "select from audit.event where actor_id >= 'a{v}' and actor_id < 'a{v}~'",
    "select from audit.event where organization_id > 'o{v}'",
    "select from audit.event where subject_id like 's{v}%'",
    "select from audit.event where target_id like '%{v}'",
    "select from audit.event where actor_id in ('a{v}', 'a999')",
    "select from audit.event where actor_id is distinct from 'a{v}'",
    "select from audit.event where organization_id = 'o{v}' and occurred_at > now()",
    "select from audit.event where details ->> 'ip' = 'p{v}'",
    'select from audit.event where details @> \'{{"ip": "p{v}"}}\'',
    "select from audit.event where details ? 'k{v}'",
    'select from audit.event where new_values = \'{{"n": "{v}"}}\'',
    "select from audit.event as e join (values ('a{v}')) as w (x) on e.actor_id = w.x",
    "select from audit.event as e join (values ('o{v}')) as w (x) on e.organization_id = w.x",
    "select from audit.event as e join audit.event as f using (actor_id) where actor_id = 'a{v}'",
    "select from audit.event where actor_id = (select 'a{v}'::text offset 0)",
    "select subject_id from audit.event where actor_id = 'a{v}' group by subject_id",
    "select max(subject_id) from audit.event where organization_id = 'o{v}'",
    "select * from audit.event where actor_id = 'a{v}' order by occurred_at desc, id desc limit 5",
    "select * from audit.log where actor = 'a{v}' and category = 'kind'",
    "select from audit.event where exists (select from audit.event where actor_id = 'a{v}')",
]

SETTINGS = [
    "select",
    "set local enable_seqscan = off",
    "set local enable_indexscan = off; set local enable_indexonlyscan = off",
    "set local enable_seqscan = off; set local enable_bitmapscan = off;"
    " set local enable_sort = off",
    "set local enable_hashjoin = off; set local enable_nestloop = off",
    "set local enable_partition_pruning = off; set local random_page_cost = 0.01",
    "set local default_statistics_target = 10000; set local constraint_exclusion = on",
]

COUNTS = "analyze, timing off, summary off, buffers off"

ANALYZE = {
    "by the owner": "set role audit_owner; analyze audit.event",
    "by a superuser": "analyze audit.event",
    "with vacuum": "vacuum (analyze) audit.event",
}


@pytest.fixture
def told(db: Database) -> Database:
    """A log of frequent, rare and absent values, of which the owner knows statistics elsewhere."""
    conn = db.connect()
    conn.execute(FILL.encode())
    for statements in ANALYZE.values():
        for statement in statements.split(";"):
            conn.execute(statement.encode())
        conn.execute("reset role")
    return db


@pytest.fixture(params=["no token", "a token of another organisation"])
def conn(told: Database, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(told.conninfo("app_reader")) as conn:
        if request.param != "no token":
            token = sign(told.key, "1", "1", seconds=600)
            conn.execute("select set_config('auditdb.viewer', %s, false)", [token])
            conn.commit()
        yield conn


def plans(
    conn: psycopg.Connection[Any], shape: str, values: list[str], options: str = "costs"
) -> set[str]:
    """Return the different plans of one query for all values, without the values themselves."""
    found = set()
    for value in values:
        query = f"explain ({options}, format json) {shape.format(v=value)}"
        row = conn.execute(query.encode()).fetchone()
        assert row is not None
        # Where it is part of the query: a cost may hold the same digits.
        found.add(re.sub(rf"(?<=[a-z%'\"]){value}", "?", json.dumps(row[0])))
    return found


def test_estimates_do_not_depend_on_the_value(conn: psycopg.Connection[Any]) -> None:
    for setting in SETTINGS:
        for shape in SHAPES:
            with conn.transaction(force_rollback=True):
                conn.execute(setting.encode())
                values = VALUES if setting == "select" else VALUES[::20]
                assert len(plans(conn, shape, values)) == 1, (setting, shape)


def test_what_explain_analyze_counts_does_not_depend_on_the_value(
    conn: psycopg.Connection[Any],
) -> None:
    for setting in SETTINGS:
        for shape in SHAPES:
            with conn.transaction(force_rollback=True):
                conn.execute(setting.encode())
                assert len(plans(conn, shape, VALUES[::33], COUNTS)) == 1, (setting, shape)


def test_with_statistics_the_same_questions_are_answered(
    told: Database, conn: psycopg.Connection[Any]
) -> None:
    told.connect().execute(
        "alter table audit.event alter column actor_id set statistics -1,"
        " alter column organization_id set statistics -1"
    )
    told.connect().execute("analyze audit.event")
    assert len(plans(conn, SHAPES[0], VALUES)) > 1
    assert len(plans(conn, SHAPES[1], VALUES)) > 1


def test_an_index_on_actors_tells_a_reader_nothing_of_them(told: Database) -> None:
    told.connect().execute("create index on audit.event (actor_id)")
    shape = (
        "select from audit.event where actor_id >= 'a{v}' and actor_id <= 'a{v}' order by actor_id"
    )
    with psycopg.connect(told.conninfo("app_reader")) as conn:
        conn.execute("set enable_seqscan = off; set enable_sort = off; set enable_bitmapscan = off")
        found = plans(conn, shape, VALUES[::33], COUNTS)
    assert len(found) == 1


def test_the_number_of_different_values_is_not_told(conn: psycopg.Connection[Any]) -> None:
    def groups(column: str) -> int:
        query = f"explain (format json) select {column} from audit.event group by {column}"
        row = conn.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0][0]["Plan"]["Plan Rows"])

    # Two hundred actors, one result: the planner knows neither.
    columns = ("actor_id", "result", "target_id", "subject_id", "source", "action")
    assert len({groups(column) for column in columns}) == 1


def test_a_transaction_s_size_is_not_told(told: Database, conn: psycopg.Connection[Any]) -> None:
    rows = told.connect().execute("select max(transaction_id)::text from audit.event").fetchall()
    written = int(rows[0][0])
    shape = "select from audit.event where transaction_id = '{v}'"
    assert len(plans(conn, shape, [str(written - n) for n in range(3)])) == 1


def test_catalogs_tell_a_reader_nothing_of_values(
    told: Database, conn: psycopg.Connection[Any]
) -> None:
    for view in ("pg_stats", "pg_stats_ext", "pg_stats_ext_exprs"):
        query = f"select * from {view} where schemaname = 'audit' and tablename like 'event%'"
        assert conn.execute(query.encode()).fetchall() == []
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("select from pg_statistic")
    known = (
        "select distinct attname from pg_stats where schemaname = 'audit' and tablename ~ '^event'"
    )
    assert {name for (name,) in told.connect().execute(known.encode())} <= {"id", "occurred_at"}


def test_the_index_of_default_is_of_no_use_to_a_reader(conn: psycopg.Connection[Any]) -> None:
    for query in (
        "select from audit.event where audit_private.arrived_in(id) = '5'",
        "select from audit.event order by audit_private.arrived_in(id)",
    ):
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            conn.transaction(),
        ):
            conn.execute(f"explain {query}".encode())


@pytest.mark.parametrize("made", ["at install", "ahead", "when DEFAULT was drained"])
def test_every_partition_is_born_without_statistics(db: Database, made: str) -> None:
    conn = db.connect()
    if made == "ahead":
        conn.execute("select audit_private.create_months(9)")
    elif made == "when DEFAULT was drained":
        conn.execute(
            "insert into audit.event (occurred_at, action, result, actor_type, source)"
            " values ('2020-02-02', 'a.b', 'success', 'user', 'web')"
        )
        conn.execute("select audit.maintain()")
    assert conn.execute("select * from audit_private.wrong_columns()").fetchall() == []
    rows = conn.execute(
        "select count(*) from pg_attribute"
        " join pg_partition_tree('audit.event') on attrelid = relid"
        " where attname = 'actor_id' and attstattarget = 0 and attcollation::regcollation::text"
        " = '\"C\"'"
    ).fetchone()
    total = conn.execute("select count(*) from pg_partition_tree('audit.event')").fetchone()
    assert rows == total
