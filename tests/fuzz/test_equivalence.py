"""Whatever is done to attached tables: it is done no differently, and their events tell it all."""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.fuzz import generator
from tests.fuzz.generator import SCHEMA, SHARED_TYPES, Statement, Table, identifier
from tests.fuzz.replay import Replay, contents, events, frozen
from tests.reconciled import differences

STATEMENTS = int(os.environ.get("AUDITDB_FUZZ_STATEMENTS", "400"))
SEED = int(os.environ.get("AUDITDB_FUZZ_SEED", "1"))
PER_SHAPE = 100


def run(conn: psycopg.Connection[Any], step: Statement, schema: str) -> str:
    """Run a statement and return its outcome: the command tag with its count, or the SQLSTATE."""
    sql = step.sql.replace(SCHEMA, schema).encode()
    try:
        cursor = conn.cursor()
        if step.kind == "copy":
            with cursor.copy(sql) as copy:
                copy.write(step.rows)
        else:
            cursor.execute(sql)
        return str(cursor.statusmessage)
    except psycopg.Error as error:
        return str(error.sqlstate)


def create(db: Database, tables: list[Table]) -> None:
    with psycopg.connect(db.conninfo("app_owner")) as conn:
        conn.execute(SHARED_TYPES)
        for schema in ("watched", "twin"):
            conn.execute(f"grant usage on schema {schema} to app")
            for table in tables:
                for ddl in table.ddl():
                    conn.execute(ddl.replace(SCHEMA, schema).encode())
            conn.execute(f"grant all on all tables in schema {schema} to app")
            conn.execute(f"grant all on all sequences in schema {schema} to app")
        for number, table in enumerate(tables):
            conn.execute(
                # Search vectors and what is computed of other columns would be ignored.
                "select audit.attach(%s::regclass, %s, ignore => (select array_agg('-' || attname)"
                " from pg_attribute where attrelid = %s::regclass"
                " and (attgenerated = 's' or atttypid = 'tsvector'::regtype)))",
                [name := table.sql.replace(SCHEMA, "watched"), f"thing{number}", name],
            )


def replay(conn: psycopg.Connection[Any], tables: list[Table]) -> Replay:
    made = Replay({})
    for table in tables:
        name = table.sql.replace(SCHEMA, "watched")
        source = f"watched.{table.name}"
        made.keys[source] = tuple(c.name for c in table.key) if table.constraint else ()
        for (leaf,) in conn.execute(
            "select relname from pg_partition_tree(%s::regclass) join pg_class on oid = relid",
            [name],
        ):
            made.roots[f"watched.{leaf}"] = source
    for event in events(conn):
        made.apply(event)
    return made


@pytest.mark.parametrize("shape", range(-(-STATEMENTS // PER_SHAPE)))
def test_events_replayed_from_nothing_give_the_tables(empty_db: Database, shape: int) -> None:
    rng = Random(f"{SEED} {shape}")
    tables = generator.tables(rng, 5)
    admin = empty_db.connect()
    for schema in ("watched", "twin"):
        admin.execute(f"create schema {schema} authorization app_owner")
    create(empty_db, tables)
    watched, twin = empty_db.connect("app"), empty_db.connect("app")
    done, outcomes = 0, Counter[str]()
    while done < PER_SHAPE:
        if rng.random() < 0.1:  # Short-lived sessions, as well as long ones.
            watched, twin = empty_db.connect("app"), empty_db.connect("app")
        steps = generator.script(rng, tables, rng.randint(1, 8))
        step: Statement | None = next(steps)
        while step:
            outcome = run(watched, step, "watched")
            assert outcome == run(twin, step, "twin"), (SEED, shape, step)
            done += step.kind != "control"
            outcomes[f"{step.kind}: {outcome}"] += 1
            try:
                step = steps.send(outcome)
            except StopIteration:
                step = None
    rebuilt = replay(admin, tables)
    for table in tables:
        name = identifier(table.name)
        there = contents(admin, f"watched.{name}")
        assert there == contents(admin, f"twin.{name}"), (SEED, shape, "the generator is at fault")
        rows = rebuilt.rows.get(f"watched.{table.name}", [])
        assert sorted(frozen(row) for _, row in rows) == there, (SEED, shape, table)
    degraded = admin.execute(
        "select count(*) from audit.event where details ? 'degraded'"
    ).fetchone()
    assert degraded == (0,), (SEED, shape)
    assert differences(empty_db) == [], (SEED, shape)
    assert len(outcomes) > 5
