"""Every way to change a row makes exactly one event a row, and leaves the action as it was."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import Database

TABLES = """
create table item (id int primary key, n int not null default 0, boss int references item);
create table part (
    id int primary key,
    item int references item on delete cascade on update cascade
);
create table note (id int primary key, item int default 1 references item on delete set null);
create table fallback (
    id int primary key,
    item int default 1 references item on delete set default
);
insert into item select generate_series(1, 5);
"""


@pytest.fixture
def conn(empty_db: Database) -> psycopg.Connection[Any]:
    """A session of the application, with four attached tables."""
    with psycopg.connect(empty_db.conninfo("app_owner")) as owner:
        owner.execute(TABLES)
        for table in ("item", "part", "note", "fallback"):
            owner.execute(f"select audit.attach('{table}', '{table}')")
        owner.execute("grant all on all tables in schema public to app")
    return empty_db.connect("app")


def told(db: Database) -> list[tuple[str, str]]:
    """Return action and target of each event."""
    return [(e["action"], e["target_id"]) for e in db.events()]


def test_copy_is_an_event_a_row(empty_db: Database, conn: psycopg.Connection[Any]) -> None:
    with conn.cursor().copy("copy item (id) from stdin") as copy:
        copy.write("6\n7\n")
    assert told(empty_db) == [("item.created", "6"), ("item.created", "7")]


def test_merge_is_an_event_a_row(empty_db: Database, conn: psycopg.Connection[Any]) -> None:
    cursor = conn.execute(
        "merge into item as t using (values (1), (2), (3), (9)) as s (id) on t.id = s.id"
        " when matched and s.id = 1 then delete when matched and s.id = 2 then update set n = 1"
        " when matched then do nothing when not matched then insert (id) values (s.id)"
    )
    assert cursor.statusmessage == "MERGE 3"
    assert sorted(told(empty_db)) == [
        ("item.created", "9"), ("item.deleted", "1"), ("item.updated", "2"),
    ]  # fmt: skip


def test_on_conflict_is_an_event_only_where_it_writes(
    empty_db: Database, conn: psycopg.Connection[Any]
) -> None:
    conn.execute("insert into item values (1), (6) on conflict do nothing")
    conn.execute(
        "insert into item values (1, 8), (2, 0), (7, 8)"
        " on conflict (id) do update set n = excluded.n"
    )
    # The second row is written anew with the values that it had: nothing changed.
    assert told(empty_db) == [("item.created", "6"), ("item.updated", "1"), ("item.created", "7")]


def test_a_writable_with_is_an_event_a_row(
    empty_db: Database, conn: psycopg.Connection[Any]
) -> None:
    conn.execute(
        "with gone as (delete from item where id = 5 returning id),"
        " put as (insert into item select id + 5 from gone), changed as"
        " (update item set n = 1 where id = 1) select"
    )
    assert sorted(told(empty_db)) == [
        ("item.created", "10"), ("item.deleted", "5"), ("item.updated", "1"),
    ]  # fmt: skip


def test_foreign_key_actions_are_events_of_the_rows_they_reach(
    empty_db: Database, conn: psycopg.Connection[Any]
) -> None:
    for table in ("part", "note", "fallback"):
        conn.execute(f"insert into {table} values (1, 2), (2, 2)")
    seen = len(told(empty_db))
    conn.execute("delete from item where id = 2")
    assert sorted(told(empty_db)[seen:]) == [
        ("fallback.updated", "1"), ("fallback.updated", "2"), ("item.deleted", "2"),
        ("note.updated", "1"), ("note.updated", "2"), ("part.deleted", "1"), ("part.deleted", "2"),
    ]  # fmt: skip
    conn.execute("insert into part values (3, 3)")
    conn.execute("update item set id = 30 where id = 3")
    moved = empty_db.events()[-2:]
    assert sorted((e["action"], e["old_values"]) for e in moved) == [
        ("item.updated", {"id": 3}), ("part.updated", {"item": 3}),
    ]  # fmt: skip


def test_changes_by_triggers_are_events_and_their_values_those_stored(
    empty_db: Database, conn: psycopg.Connection[Any]
) -> None:
    owner = empty_db.connect("app_owner")
    owner.execute(
        """
        create function adjust() returns trigger language plpgsql as $$
        begin
            new.n := new.n * 10;
            return new;
        end $$;
        create function echo() returns trigger language plpgsql as $$
        begin
            if pg_trigger_depth() = 1 then
                update item set n = 7 where id = 1;
            end if;
            return null;
        end $$;
        create trigger adjust before insert on item for each row execute function adjust();
        create trigger echo after insert on item for each row execute function echo();
        """
    )
    conn.execute("insert into item values (6, 2)")
    created, updated = sorted(empty_db.events(), key=lambda e: str(e["action"]))
    assert (created["target_id"], created["new_values"]["n"]) == ("6", 20)
    assert (updated["target_id"], updated["new_values"]) == ("1", {"n": 7})


def test_truncate_and_what_it_cascades_to_are_events(empty_db: Database, conn: Any) -> None:
    conn.execute("insert into part values (1, 1)")
    conn.execute("truncate item cascade")
    assert sorted(empty_db.actions()) == [
        "fallback.truncated", "item.truncated", "note.truncated", "part.created", "part.truncated",
    ]  # fmt: skip


def test_what_is_rolled_back_leaves_no_event(
    empty_db: Database, conn: psycopg.Connection[Any]
) -> None:
    with conn.transaction():
        conn.execute("insert into item values (6)")
        with conn.transaction(force_rollback=True):
            conn.execute("delete from item where id = 1")
            conn.execute("truncate item cascade")
        conn.execute("update item set n = 1 where id = 2")
    with conn.transaction(force_rollback=True):
        conn.execute("delete from item where id = 3")
    assert told(empty_db) == [("item.created", "6"), ("item.updated", "2")]


def test_a_deferred_constraint_that_fails_takes_the_events_along(
    empty_db: Database, conn: psycopg.Connection[Any]
) -> None:
    owner = empty_db.connect("app_owner")
    owner.execute("alter table part alter constraint part_item_fkey deferrable initially deferred")
    with pytest.raises(psycopg.errors.ForeignKeyViolation), conn.transaction():
        conn.execute("insert into part values (1, 99)")
    with conn.transaction():
        conn.execute("insert into part values (1, 99)")
        conn.execute("insert into item values (99)")
    assert told(empty_db) == [("part.created", "1"), ("item.created", "99")]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_two_phase_commit_brings_the_event_with_the_change(
    empty_db: Database, conn: psycopg.Connection[Any], end: str
) -> None:
    conn.execute("begin")
    conn.execute("select set_config('auditdb.context', '{\"actor_id\": \"u\"}', true)")
    conn.execute("insert into item values (6)")
    conn.execute(f"prepare transaction 'auditdb_{end}'")
    assert told(empty_db) == []
    empty_db.connect("app").execute(f"{end} prepared 'auditdb_{end}'")
    assert [e["actor_id"] for e in empty_db.events()] == (["u"] if end == "commit" else [])


@pytest.mark.parametrize(
    "change",
    [
        "select set_config('session_replication_role', 'replica', true)",
        "set constraints all deferred",
    ],
)
def test_no_setting_silences_the_capture(
    empty_db: Database, conn: psycopg.Connection[Any], change: str
) -> None:
    admin = empty_db.connect()
    with admin.transaction():
        admin.execute(change.encode())
        admin.execute("insert into item values (6)")
    assert told(empty_db) == [("item.created", "6")]


def test_row_level_security_of_the_application_hides_no_change(
    empty_db: Database, conn: psycopg.Connection[Any]
) -> None:
    owner = empty_db.connect("app_owner")
    owner.execute(
        "alter table item enable row level security;"
        " create policy p on item to app using (id < 3) with check (true)"
    )
    assert conn.execute("update item set n = 1").rowcount == 2
    assert told(empty_db) == [("item.updated", "1"), ("item.updated", "2")]


def test_a_cursor_and_a_prepared_statement_are_captured(
    empty_db: Database, conn: psycopg.Connection[Any]
) -> None:
    with conn.transaction():
        conn.execute("declare c cursor for select * from item where id = 4 for update")
        conn.execute("fetch c")
        conn.execute("update item set n = 1 where current of c")
    for n in range(8):
        conn.execute("update item set n = %s where id = 1", [n + 1], prepare=True)
    assert told(empty_db) == [("item.updated", "4")] + [("item.updated", "1")] * 8


def subtransactions(conn: psycopg.Connection[Any], *statements: str) -> int:
    """Return how many transaction ids a transaction took beyond its own."""
    with conn.transaction():
        conn.execute("select pg_current_xact_id()")
        for statement in statements:
            conn.execute(statement.encode())
        row = conn.execute("select pg_current_xact_id()::text::bigint").fetchone()
    after = conn.execute("select pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None and after is not None
    return int(after[0]) - int(row[0]) - 1


BULK = [
    "insert into item (id) select generate_series(100, 300)",
    "update item set n = n + 1",
    "delete from item where id >= 100",
]


def test_capture_takes_no_transaction_id_of_its_own(
    empty_db: Database, conn: psycopg.Connection[Any]
) -> None:
    owner = empty_db.connect("app_owner")
    owner.execute("alter table item add stale int; alter table item rename n to m")
    stale = [statement.replace("n = n", "m = m") for statement in BULK]
    owner.execute("alter table item rename m to n")
    assert subtransactions(conn, *BULK) == 0
    owner.execute("alter table item rename n to m")
    # Also on the second step of the ladder, where blocks are many.
    assert subtransactions(conn, *stale) == 0


def test_a_naive_trigger_takes_one_a_row(empty_db: Database, conn: psycopg.Connection[Any]) -> None:
    """The twin: a block around the INSERT, as is usual."""
    owner = empty_db.connect("app_owner")
    owner.execute(
        """
        create table log (row jsonb);
        grant insert on log to app;
        create table naive (id int primary key);
        grant insert on naive to app;
        create function naive() returns trigger language plpgsql as $$
        begin
            insert into log values (to_jsonb(new));
            return null;
        exception when others then
            return null;
        end $$;
        create trigger naive after insert on naive for each row execute function naive();
        """
    )
    assert subtransactions(conn, "insert into naive select generate_series(1, 50)") == 50


@pytest.mark.parametrize(
    "lookup",
    [
        "(select 1 / (r.n - r.n))",
        "(select i.id from public.item as i)",
        "(select i.id from public.item as i where false)",
        "public.fails(r.id)",
        "public.asserts(r.id)",
        "public.bites(r.id)",
    ],
)
def test_a_lookup_that_fails_degrades_the_event_and_nothing_else(
    empty_db: Database, conn: psycopg.Connection[Any], lookup: str
) -> None:
    owner = empty_db.connect("app_owner")
    owner.execute(
        """
        create function fails(id int) returns int language plpgsql as $$
        begin raise exception 'no' using errcode = 'P0002'; end $$;
        create function asserts(id int) returns int language plpgsql as $$
        begin assert false; return 1; end $$;
        create function bites(id int) returns int language plpgsql as $$
        begin insert into item values (id); return 1; end $$;
        """
    )
    owner.execute(
        "select audit.attach('item', 'item', organization => %s)", [lookup], prepare=False
    )
    assert conn.execute("update item set n = 1 where id < 3").rowcount == 2
    events = empty_db.events()
    assert [e["action"] for e in events] == ["item.updated"] * 2
    assert {e["organization_id"] for e in events} == {None}
    lost = {(e["details"].get("degraded") or {}).get("lost", [None])[0] for e in events}
    assert lost == ({None} if "where false" in lookup else {"organization"})
