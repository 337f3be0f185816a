"""A schema that changes under capture: no action fails for it, no change goes without its event."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.conftest import Database
from tests.reconciled import differences

SEQUENCES = int(os.environ.get("AUDITDB_FUZZ_CHURN", "25"))
SEED = int(os.environ.get("AUDITDB_FUZZ_SEED", "1"))
STEPS = 25

TYPES = ["int", "text", "jsonb", "numeric", "timestamptz", "uuid", "mood", "text[]", "boolean"]
# From a type to one that all of its values can be cast to.
RETYPED = {"int": "bigint", "bigint": "numeric", "numeric": "text", "uuid": "text", "mood": "text",
           "boolean": "text", "timestamptz": "text", "jsonb": "text"}  # fmt: skip

CREATE = """
create type {schema}.mood as enum ('fine');
create table {schema}.lookup (id int primary key, label text);
insert into {schema}.lookup values (1, 'one'), (2, 'two');
create table {schema}.thing (id int primary key, n int not null default 0, org int, note text);
grant usage on schema {schema} to app;
grant all on all tables in schema {schema} to app;
"""
ATTACH = """
select audit.attach('{schema}.thing', 'thing',
    organization => '(select l.label from {schema}.lookup as l where l.id = r.org)',
    subject => 'note', alive => 'r.org is distinct from 7')
"""


@dataclass
class World:
    """Two schemas that change alike, one of them attached, and the sessions that work in them."""

    db: Database
    number: int
    rng: Random
    name: str = "thing"
    moved: bool = False
    key: str = "id"
    counter: str = "n"
    columns: dict[str, str] = field(default_factory=lambda: {"org": "int", "note": "text"})
    made: int = 0
    lookup: bool = True
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admin = self.db.connect(row_factory=dict_row)
        self.owner = self.db.connect("app_owner")
        self.sides = (f"watched_{self.number}", f"twin_{self.number}")
        for side in self.sides:
            for schema in (side, f"{side}_b"):
                self.admin.execute(f"create schema {schema} authorization app_owner")
                self.admin.execute(f"grant usage on schema {schema} to app")
            self.owner.execute(CREATE.format(schema=side))
        self.owner.execute(ATTACH.format(schema=self.sides[0]))
        self.sessions = [
            {side: self.db.connect(role, prepare_threshold=threshold) for side in self.sides}
            for role, threshold in (("app", 5), ("app", 0), ("app_owner", 0))
        ]

    def fresh(self) -> str:
        """Return a name that was not used before."""
        self.made += 1
        return f"c{self.made}"

    def table(self, side: str) -> str:
        """Return the table's name on a side."""
        return f"{side}{'_b' if self.moved else ''}.{self.name}"

    def change(self, sql: str) -> None:
        """Run DDL on both sides: {t} is the table, {s} the first schema."""
        self.log.append(sql)
        for side in self.sides:
            self.owner.execute(sql.format(t=self.table(side), s=side).encode())

    def count(self) -> int:
        """Return how many events there are."""
        row = self.admin.execute(
            "select count(*) as n from audit.event where action like 'thing.%'"
        ).fetchone()
        assert row is not None
        return int(row["n"])

    def last(self) -> dict[str, Any]:
        """Return the last event."""
        row = self.admin.execute("select * from audit.event order by id desc limit 1").fetchone()
        assert row is not None
        return dict(row)


def add_column(w: World) -> None:
    name, type_ = w.fresh(), w.rng.choice(TYPES)
    default = " default 'fine'" if type_ == "mood" else ""
    w.change(f"alter table {{t}} add {name} {type_.replace('mood', '{s}.mood')}{default}")
    w.columns[name] = type_


def rename_column(w: World) -> None:
    which, name = w.rng.choice(["key", "counter", *w.columns]), w.fresh()
    old = getattr(w, which) if which in ("key", "counter") else which
    w.change(f"alter table {{t}} rename {old} to {name}")
    if which in ("key", "counter"):
        setattr(w, which, name)
    else:
        w.columns[name] = w.columns.pop(old)


def swap_columns(w: World) -> None:
    if len(w.columns) > 1:
        a, b = w.rng.sample(list(w.columns), 2)
        w.change(
            f"alter table {{t}} rename {a} to swapping; alter table {{t}} rename {b} to {a};"
            f" alter table {{t}} rename swapping to {b}"
        )
        w.columns[a], w.columns[b] = w.columns[b], w.columns[a]


def drop_column(w: World) -> None:
    if w.columns:
        name = w.rng.choice(list(w.columns))
        w.change(f"alter table {{t}} drop {name}")
        del w.columns[name]


def retype_column(w: World) -> None:
    found = [c for c, t in w.columns.items() if t in RETYPED]
    if found:
        name = w.rng.choice(found)
        to = RETYPED[w.columns[name]]
        w.change(
            f"alter table {{t}} alter {name} drop default,"
            f" alter {name} type {to} using {name}::{to}"
        )
        w.columns[name] = to


def retype_counter(w: World) -> None:
    w.change(f"alter table {{t}} alter {w.counter} type {w.rng.choice(['bigint', 'numeric'])}")


def rename_table(w: World) -> None:
    name = w.fresh()
    w.change(f"alter table {{t}} rename to {name}")
    w.name = name


def move_table(w: World) -> None:
    w.change(f"alter table {{t}} set schema {{s}}{'' if w.moved else '_b'}")
    w.moved = not w.moved


def add_enum_value(w: World) -> None:
    w.change(f"alter type {{s}}.mood add value '{w.fresh()}'")


def spoil_lookup(w: World) -> None:
    if w.lookup:
        w.change(
            w.rng.choice(
                [
                    "drop table {s}.lookup",
                    "alter table {s}.lookup rename label to called",
                    "alter table {s}.lookup drop label",
                    "alter table {s}.lookup alter id type text",
                    "alter table {s}.lookup drop constraint lookup_pkey;"
                    " insert into {s}.lookup select * from {s}.lookup",
                    "alter table {s}.lookup rename to elsewhere",
                ]
            )
        )
        w.lookup = False


def add_key(w: World) -> None:
    w.change(f"alter table {{t}} drop constraint if exists {w.name}_key_{w.made}")
    w.change(f"create unique index on {{t}} ({w.key}, {w.counter})")


def recreate_table(w: World) -> None:
    w.change("drop table {t}")
    w.columns = {"note": "text"}
    w.change(
        f"create table {{t}} ({w.key} int primary key, note text,"
        f" {w.counter} int not null default 0); grant all on {{t}} to app"
    )
    w.owner.execute(f"select audit.attach('{w.table(w.sides[0])}', 'thing')")


def attach_again(w: World) -> None:
    w.owner.execute(f"select audit.attach('{w.table(w.sides[0])}', 'thing')")


def insert(w: World) -> str:
    given = [c for c in w.columns if w.columns[c] in ("text", "int") and w.rng.random() < 0.5]
    names = ", ".join([w.key, *given])
    first = w.rng.randrange(40)
    rows = (
        ", ".join([str(first + i * 50), *("'7'" if w.rng.random() < 0.2 else "'1'" for _ in given)])
        for i in range(w.rng.choice([1, 1, 3]))
    )
    return f"insert into {{t}} ({names}) values {', '.join(f'({row})' for row in rows)}"


def update(w: World) -> str:
    return (
        f"update {{t}} set {w.counter} = {w.counter} + 1"
        f" where {w.key} % {w.rng.choice([2, 3, 7])} = 1"
    )


def delete(w: World) -> str:
    return f"delete from {{t}} where {w.key} = {w.rng.randrange(40)}"


CHANGES: list[Callable[[World], None]] = [
    add_column, add_column, rename_column, rename_column, swap_columns, drop_column, retype_column,
    retype_counter, rename_table, move_table, add_enum_value, spoil_lookup, add_key, recreate_table,
    attach_again,
]  # fmt: skip
ACTIONS: list[Callable[[World], str]] = [insert, insert, update, delete]


def act(w: World, sql: str, session: dict[str, psycopg.Connection[Any]]) -> None:
    """Do the same on both sides, and demand the same outcome and an event for each row."""
    w.log.append(sql)
    before = w.count()
    outcomes: list[int | str] = []
    for side in w.sides:
        try:
            cursor = session[side].execute(sql.format(t=w.table(side)).encode())
            outcomes.append(cursor.rowcount)
        except psycopg.Error as error:
            outcomes.append(str(error.sqlstate))
    assert outcomes[0] == outcomes[1], (SEED, w.number, w.log)
    rows = outcomes[0] if isinstance(outcomes[0], int) else 0
    assert w.count() - before == rows, (SEED, w.number, w.log)
    if rows == 1:
        check_last(w, sql)


def check_last(w: World, sql: str) -> None:
    """The last event is complete, or says that it is not."""
    event = w.last()
    if "degraded" in (event["details"] or {}) or not event["new_values"]:
        return
    row = w.admin.execute(
        f"select to_jsonb(t) as row from {w.table(w.sides[0])} as t"
        f" where {w.key} = %s or to_jsonb(t) @> %s",
        [event["new_values"].get(w.key), json.dumps(event["new_values"])],
    ).fetchone()
    assert row is not None, (SEED, w.number, w.log, event)
    if sql.startswith("insert"):
        assert event["new_values"] == row["row"], (SEED, w.number, w.log, event)
    else:
        assert event["new_values"].keys() == {w.counter}, (SEED, w.number, w.log, event)


@pytest.mark.parametrize("batch", range(-(-SEQUENCES // 25)))
def test_no_change_of_a_schema_stops_an_action_or_loses_an_event(
    empty_db: Database, batch: int
) -> None:
    for number in range(batch * 25, min(SEQUENCES, (batch + 1) * 25)):
        w = World(empty_db, number, Random(f"{SEED} {number}"))
        for _ in range(STEPS):
            if w.rng.random() < 0.4:
                w.rng.choice(CHANGES)(w)
            else:
                session = w.rng.choice(w.sessions)
                if w.rng.random() < 0.1:
                    session = dict.fromkeys(w.sides, w.db.connect("app"))
                act(w, w.rng.choice(ACTIONS)(w), session)
        assert differences(empty_db, w.table(w.sides[0])) == [], (SEED, number, w.log)
        # Attached again, it is as good as new, to sessions old and new alike.
        attach_again(w)
        for session in [*w.sessions, dict.fromkeys(w.sides, w.db.connect("app"))]:
            act(w, f"delete from {{t}} where {w.key} = 1", session)
            act(w, f"insert into {{t}} ({w.key}) values (1)", session)
            event = w.last()
            assert event["action"] == "thing.created", (SEED, number, w.log, event)
            assert "degraded" not in (event["details"] or {}), (SEED, number, w.log, event)
        w.db.close()


def test_a_naive_trigger_stops_the_action_once_a_column_is_renamed(empty_db: Database) -> None:
    """The twin: columns by name, in a session that has its plans already."""
    owner = empty_db.connect("app_owner")
    owner.execute(
        """
        create table thing (id int primary key, org int);
        create table log (id text, org text);
        create function naive() returns trigger language plpgsql as $$
        begin
            insert into log values (new.id, new.org);
            return null;
        end $$;
        create trigger naive after insert on thing for each row execute function naive();
        """
    )
    owner.execute("insert into thing values (1)")
    owner.execute("alter table thing rename org to organization")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        owner.execute("insert into thing values (2)")
