"""Tables of every shape are attached and captured in whole, or refused with the reason."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import Database


def make(db: Database, *statements: str) -> psycopg.Connection[Any]:
    """Run DDL as the application's owner, who stays connected."""
    conn = db.connect("app_owner")
    for statement in statements:
        conn.execute(statement.encode())
    return conn


def test_a_composite_key_is_the_target_in_key_order(empty_db: Database) -> None:
    conn = make(
        empty_db,
        "create table place (x int, y text, v int, primary key (y, x))",
        "select audit.attach('place', 'place')",
        "insert into place values (1, 'a', 0)",
        "update place set v = 1",
        "delete from place",
    )
    conn.close()
    assert [e["target_id"] for e in empty_db.events()] == ["a,1"] * 3


def test_a_key_that_changes_is_the_new_key_with_the_old_one_beside_it(empty_db: Database) -> None:
    make(
        empty_db,
        "create table place (id int primary key)",
        "select audit.attach('place', 'place')",
        "insert into place values (1)",
        "update place set id = 2",
    )
    event = empty_db.events()[-1]
    assert event["target_id"] == "2"
    assert (event["old_values"], event["new_values"]) == ({"id": 1}, {"id": 2})


@pytest.mark.parametrize(
    "key",
    ["", "unique (x)", "exclude using btree (x with =)"],
    ids=["none", "unique but null", "exclusion"],
)
def test_a_table_without_a_key_carries_the_whole_row_in_each_event(
    empty_db: Database, key: str
) -> None:
    make(
        empty_db,
        f"create table place (x int, secret text, v int{', ' if key else ''}{key})",
        "select audit.attach('place', 'place')",
        "insert into place values (1, 's', 0), (2, null, 0)",
        "update place set v = 1",
        "update place set v = 1",
        "delete from place where x = 1",
    )
    events = empty_db.events()
    images = [(e["old_values"], e["new_values"]) for e in events]
    first, second = {"x": 1, "secret": "[redacted]"}, {"x": 2, "secret": None}
    assert images == [
        (None, {**first, "v": 0}),
        (None, {**second, "v": 0}),
        ({**first, "v": 0}, {**first, "v": 1}),
        ({**second, "v": 0}, {**second, "v": 1}),
        ({**first, "v": 1}, None),
    ]
    assert {e["target_id"] for e in events} == {None}


def test_a_row_without_a_key_that_cannot_be_read_whole_is_carried_whole(empty_db: Database) -> None:
    make(
        empty_db,
        "create table place (x int, j json)",
        "select audit.attach('place', 'place')",
        r"""insert into place values (1, '"\u0000"')""",
        "update place set x = 2",
    )
    event = empty_db.events()[-1]
    assert event["old_values"] == {"x": 1, "j": r'"\u0000"'}
    assert event["new_values"] == {"x": 2, "j": r'"\u0000"'}
    assert event["details"]["degraded"]["as_text"] == ["j"]


NAMES = ["select", "Mixed Case", 'qu"ote', "per%cent", "dollar$$", "back\\slash", "apo'strophe",
         "x" * 63, "ü" * 31, "old", "new", "op", "r", "_action", "tg_op", "a.b", " ", "1",
         "{}"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_schema_table_column_and_type_will_do(empty_db: Database, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    owner = empty_db.connect()
    owner.execute(f"create schema {quoted} authorization app_owner".encode())
    make(
        empty_db,
        f"create type {quoted}.\"a kind\" as enum ('a', 'b')",
        f"create table {quoted}.{quoted} ("
        f'{quoted} {quoted}."a kind" primary key, token_{len(name)} int)',
        f"select audit.attach({_literal(f'{quoted}.{quoted}')}::regclass, 'place')",
        f"insert into {quoted}.{quoted} values ('a', 1)",
        f"update {quoted}.{quoted} set {quoted} = 'b'",
        f"delete from {quoted}.{quoted}",
        f"truncate {quoted}.{quoted}",
    )
    events = empty_db.events()
    assert [e["action"].split(".")[1] for e in events] == [
        "created", "updated", "deleted", "truncated",
    ]  # fmt: skip
    assert {e["captured_from"] for e in events} == {f"{name}.{name}"}
    assert events[0]["new_values"] == {name: "a", f"token_{len(name)}": "[redacted]"}
    assert events[1]["new_values"] == {name: "b"}
    assert not any("degraded" in e["details"] for e in events)


def _literal(text: str) -> str:
    return "e'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


PARTITIONED = """
create table gauge (region text, id int, v int, primary key (region, id))
    partition by list (region);
create table gauge_eu (v int, gone int, id int not null, region text not null);
alter table gauge_eu drop gone;
alter table gauge attach partition gauge_eu for values in ('eu');
create table gauge_us partition of gauge for values in ('us') partition by hash (id);
create table gauge_us_0 partition of gauge_us for values with (modulus 2, remainder 0);
create table gauge_us_1 partition of gauge_us for values with (modulus 2, remainder 1);
select audit.attach('gauge', 'gauge');
create table gauge_rest partition of gauge default;
"""


@pytest.fixture
def gauge(empty_db: Database) -> psycopg.Connection[Any]:
    return make(empty_db, *PARTITIONED.strip().split(";\n"))


def test_a_partition_is_captured_however_it_is_reached(
    empty_db: Database, gauge: psycopg.Connection[Any]
) -> None:
    for table in ("gauge", "gauge_eu"):
        gauge.execute(f"insert into {table} (region, id, v) values ('eu', 1, 0)")
        gauge.execute(f"update {table} set v = 1")
        gauge.execute(f"delete from {table}")
    gauge.execute("insert into gauge_us (region, id, v) values ('us', 1, 0), ('us', 3, 0)")
    gauge.execute("insert into gauge_rest (region, id, v) values ('later', 1, 0)")
    events = empty_db.events()
    assert [e["action"] for e in events] == [
        *["gauge.created", "gauge.updated", "gauge.deleted"] * 2, *["gauge.created"] * 3
    ]  # fmt: skip
    assert events[0]["new_values"] == {"region": "eu", "id": 1, "v": 0}
    assert [e["target_id"] for e in events] == ["eu,1"] * 6 + ["us,1", "us,3", "later,1"]
    assert events[0]["captured_from"] == "public.gauge_eu"
    assert not any("degraded" in e["details"] for e in events)


def test_truncate_of_a_partition_is_an_event(
    empty_db: Database, gauge: psycopg.Connection[Any]
) -> None:
    gauge.execute("truncate gauge_us_0")
    assert [(e["action"], e["captured_from"]) for e in empty_db.events()] == [
        ("gauge.truncated", "public.gauge_us_0")
    ]


def test_both_halves_of_a_move_to_another_partition_belong_together(
    empty_db: Database, gauge: psycopg.Connection[Any]
) -> None:
    """PostgreSQL itself makes two of it: transaction and order tie them."""
    gauge.execute("insert into gauge values ('eu', 1, 0), ('eu', 2, 0)")
    gauge.execute("update gauge set region = 'us', v = 5 where region = 'eu'")
    moves = empty_db.events()[2:]
    assert [e["action"] for e in moves] == ["gauge.deleted", "gauge.created"] * 2
    assert len({e["transaction_id"] for e in moves}) == 1
    for gone, come in zip(moves[::2], moves[1::2], strict=True):
        assert come["id"] == gone["id"] + 1
        assert gone["old_values"]["id"] == come["new_values"]["id"]
        assert (gone["old_values"]["region"], come["new_values"]["region"]) == ("eu", "us")


def test_identity_and_generated_columns_are_in_the_image(empty_db: Database) -> None:
    make(
        empty_db,
        "create table place (id int generated always as identity primary key, a int,"
        " twice int generated always as (a * 2) stored)",
        "select audit.attach('place', 'place', ignore => '{-twice}')",
        "insert into place (a) values (1)",
        "update place set a = 2",
    )
    created, updated = empty_db.events()
    assert created["new_values"] == {"id": 1, "a": 1, "twice": 2}
    assert updated["new_values"] == {"a": 2, "twice": 4}


def test_virtual_columns_are_no_obstacle(empty_db: Database) -> None:
    """A trigger is not given their values: they follow from the columns that it is given."""
    conn = make(empty_db)
    if conn.info.server_version < 180000:
        pytest.skip("virtual columns came with PostgreSQL 18")
    make(
        empty_db,
        "create table place (id int primary key, a int, twice int generated always as (a * 2))",
        "select audit.attach('place', 'place')",
        "insert into place (id, a) values (1, 1)",
        "update place set a = 2",
        "delete from place",
    )
    created, updated, deleted = empty_db.events()
    assert created["new_values"] == {"id": 1, "a": 1}
    assert updated["new_values"] == {"a": 2}
    assert deleted["old_values"] == {"id": 1, "a": 2}
    assert not any("degraded" in e["details"] for e in (created, updated, deleted))
    conn.execute("set row_security = off")
    conn.execute("insert into place (id, a) values (1, 1)")
    assert empty_db.events()[-1]["new_values"] == {"id": 1, "a": 1}


@pytest.mark.parametrize(
    "option", ["organization => 'org'", "organization => 'r.org'", "subject => 'r.org || r.id'",
               "target_id => '(select r.org)'", "alive => 'r.org is null'", "parent => 'org'"]
)  # fmt: skip
def test_what_a_trigger_is_not_given_cannot_be_mapped(empty_db: Database, option: str) -> None:
    conn = make(empty_db)
    if conn.info.server_version < 180000:
        pytest.skip("virtual columns came with PostgreSQL 18")
    make(
        empty_db,
        "create table place (id int primary key, ref text, role text generated always as (ref),"
        " org text generated always as (split_part(ref, ':', 1)))",
    )
    with pytest.raises(psycopg.Error, match="computed when it is read"):
        make(empty_db, f"select audit.attach('place', 'place', {option})")
    # By default such a column is taken for nothing.
    make(empty_db, "select audit.attach('place', 'membership', organization => 'ref',"
                   " subject => 'id', admin => 'false')")  # fmt: skip
    mapping = conn.execute("select mapping -> 'role' from audit_private.attachment").fetchone()
    assert mapping == (None,)


@pytest.mark.parametrize("count", [1, 101, 1600])
@pytest.mark.parametrize("prefix", ["c", "token_"])
def test_any_number_of_columns_will_do(empty_db: Database, count: int, prefix: str) -> None:
    names = [f"{prefix}{n}" for n in range(count)]
    make(
        empty_db,
        f"create table wide ({', '.join(f'{n} int' for n in names)}, primary key ({names[0]}))",
        "select audit.attach('wide', 'wide')",
        f"insert into wide values ({', '.join(['1'] * count)})",
        f"update wide set {', '.join(f'{n} = 2' for n in names)}",
        "delete from wide",
    )
    events = empty_db.events()
    assert [e["action"] for e in events] == ["wide.created", "wide.updated", "wide.deleted"]
    shown = [1, 2, 2] if prefix == "c" else ["[redacted]"] * 3
    for event, value in zip(events, shown, strict=True):
        image = event["new_values"] or event["old_values"]
        assert image == dict.fromkeys(names, value)
        assert "degraded" not in event["details"]


def test_a_table_without_columns_is_captured(empty_db: Database) -> None:
    make(
        empty_db,
        "create table nothing ()",
        "select audit.attach('nothing', 'nothing')",
        "insert into nothing default values",
        "delete from nothing",
    )
    assert empty_db.actions() == ["nothing.created", "nothing.deleted"]


def test_dropped_columns_leave_no_trace(empty_db: Database) -> None:
    make(
        empty_db,
        "create table place (gone int, id int primary key, also int, v int)",
        "insert into place values (1, 1, 1, 1)",
        "alter table place drop gone",
        "alter table place drop also",
        "select audit.attach('place', 'place')",
        "update place set v = 2",
        "delete from place",
    )
    updated, deleted = empty_db.events()
    assert updated["new_values"] == {"v": 2}
    assert deleted["old_values"] == {"id": 1, "v": 2}


REFUSED = {
    "a view": ("create view thing as select 1 as id", "view"),
    "a materialized view": ("create materialized view thing as select 1 as id", "view"),
    "a partition": (
        "create table whole (id int) partition by list (id);"
        " create table thing partition of whole default",
        "partition",
    ),
    "a parent": ("create table thing (id int); create table child () inherits (thing)", "inherit"),
    "a sequence": ("create sequence thing", "not a table"),
    "an index": ("create table whole (id int); create index thing on whole (id)", "not a table"),
    "a type": ("create type thing as (id int)", "not a table"),
    "a temporary table": ("create temp table thing (id int)", "temporary"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_captured_is_refused_with_the_reason(empty_db: Database, case: str) -> None:
    ddl, reason = REFUSED[case]
    conn = make(empty_db, ddl)
    with pytest.raises(psycopg.errors.WrongObjectType, match=reason) as caught:
        conn.execute("select audit.attach('thing', 'thing')")
    assert caught.value.diag.message_hint


def test_a_foreign_table_is_refused_with_the_reason(empty_db: Database) -> None:
    admin = empty_db.connect()
    admin.execute("create foreign data wrapper elsewhere")
    admin.execute("create server there foreign data wrapper elsewhere")
    admin.execute("create foreign table thing (id int) server there")
    admin.execute("alter foreign table thing owner to app_owner")
    conn = empty_db.connect("app_owner")
    with pytest.raises(psycopg.errors.WrongObjectType, match="foreign table"):
        conn.execute("select audit.attach('thing', 'thing')")


def test_a_child_and_then_its_parent_are_both_captured(empty_db: Database) -> None:
    make(
        empty_db,
        "create table parent (id int)",
        "create table child (extra int) inherits (parent)",
        "select audit.attach('child', 'child')",
        "select audit.attach('parent', 'parent')",
        "insert into child values (1, 2)",
        "update parent set id = 5",
        "delete from parent",
    )
    assert empty_db.actions() == ["child.created", "child.updated", "child.deleted"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("at, day, noon, raw", "2020-01-31T12:00:00,2020-01-31,2020-01-31T12:00:00,00ff"),
        ("at", "2020-01-31T12:00:00"),
        ("day", "2020-01-31"),
        ("noon", "2020-01-31T12:00:00"),
        ("raw", "00ff"),
    ],
)
def test_an_identifier_does_not_depend_on_the_session(
    empty_db: Database, key: str, expected: str
) -> None:
    """A key of dates or bytes names the same row whatever a client's settings say."""
    make(
        empty_db,
        "create table visit (at timestamptz, day date, noon timestamp, raw bytea, v int,"
        f" primary key ({key}))",
        "select audit.attach('visit', 'visit')",
        "insert into visit values ('2020-01-31 12:00+00', '2020-01-31', '2020-01-31 12:00',"
        r" '\x00ff', 0)",
        "set datestyle = 'sql, dmy'; set timezone = 'Asia/Tokyo';"
        " set bytea_output = 'escape'; update visit set v = 1",
    )
    assert [event["target_id"] for event in empty_db.events()] == [expected] * 2


def test_shapes_attached_in_one_session_do_not_disturb_each_other(empty_db: Database) -> None:
    columns = {
        "plain": "id int primary key, v int",
        "swapped": "v int, id text primary key",
        "keyless": "id uuid, v int",
        "typed": "id bigint primary key, v int, at timestamptz[]",
    }
    statements = [f"create table {name} ({ddl})" for name, ddl in columns.items()]
    statements += [f"select audit.attach('{name}', '{name}')" for name in columns]
    ids = {"keyless": "gen_random_uuid()", "swapped": "'x'"}
    for _ in range(7):  # Past the custom plans of a prepared statement.
        for name in columns:
            statements.append(f"insert into {name} (id, v) values ({ids.get(name, '1')}, 0)")
            statements.append(f"update {name} set v = 1")
            statements.append(f"delete from {name}")
    make(empty_db, *statements)
    events = empty_db.events()
    assert len(events) == 7 * 4 * 3
    assert not any("degraded" in e["details"] for e in events)
