"""A table that its owner changes between the look at it and the reading of its rows by another."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from auditdb.detect.propose import detect
from tests.attacks.report import attack
from tests.conftest import Database

GROUP = "Rights of stored text"
SWAP = "a table that its owner changes, or swaps, while another reads its rows: baseline, sample"

THING = """
create table thing (id int primary key, organization_id int references organization, role text);
insert into thing select g, 1, 'member' from generate_series(1, 40) as g;
create function folded(int) returns int immutable language plpgsql as
    $$ begin raise warning 'ran as %', current_user; return 1; end $$;
"""
# A change, and what its readers have to wait for meanwhile.
SWAPS = {
    "an index": ("create index on thing ((folded(1)))", "public.thing"),
    "statistics": ("create statistics s on (id + folded(1)) from thing; analyze thing",
                   "public.thing"),
    "a child": ("create table more () inherits (thing); create index on more ((folded(1)))",
                "public.thing"),
    "a view of its name": ("alter table thing rename to was;"
                           "create view thing as select * from was where folded(1) = 1", "was"),
    "a table of its name": ("alter table thing rename to was; create table thing (like was);"
                            "create index on thing ((folded(1)))", "was"),
    "a schema of its name": ("alter schema svc rename to was; create schema svc;"
                             "create table svc.thing (like was.thing);"
                             "create index on svc.thing ((was.folded(1)))", "was.thing"),
}  # fmt: skip
NAIVE = """
create schema naive;
create function naive.rows(target text) returns bigint language plpgsql as $$
declare
    _count bigint;
begin
    -- It looks, too.
    if exists (select from pg_index where indrelid = target::regclass and indexprs is not null) then
        raise insufficient_privilege;
    end if;
    execute format('select count(*) from %s', target) into _count;
    return _count;
end $$;
"""


def build(db: Database, schema: str) -> psycopg.Connection[Any]:
    """Let the owner make and attach its table, and become who waits for another to read it."""
    superuser = db.connect()
    superuser.execute(NAIVE)
    superuser.execute(f"grant create on database {superuser.info.dbname} to app_owner".encode())
    owner = db.connect("app_owner")
    if schema == "svc":
        owner.execute("create schema svc")
    owner.execute(f"set search_path = {schema}, public".encode())
    owner.execute(THING)
    owner.execute(f"select audit.attach('{schema}.thing', 'thing')".encode())
    return owner


def reads(db: Database, how: str, table: str, *, level: str = "") -> list[str]:
    """Read the table as a superuser, who looks at it first; return as whom its code ran."""
    ran: list[str] = []
    conn = db.connect()
    conn.add_notice_handler(lambda said: ran.append(str(said.message_primary)))
    if level:
        conn.execute(f"begin isolation level {level}".encode())
        conn.execute("select")
    try:
        if how == "detect":
            proposal = detect(conn, sample=True)
            assert proposal.tables
        elif how == "baseline":
            conn.execute("select audit.baseline(%s)", (table,))
        else:
            conn.execute("select naive.rows(%s)", (table,))
    except pg.Error:
        pass
    finally:
        conn.close()
    return [line for line in ran if line.startswith("ran as")]


def swapped(db: Database, how: str, name: str) -> list[str]:
    """Change the table while the reader waits for it; return as whom its code ran."""
    change, former = SWAPS[name]
    schema = "svc" if "svc" in change else "public"
    owner = build(db, schema)
    ran: list[str] = []
    owner.execute("begin")
    owner.execute(change.encode())
    # Its readers wait, and have looked at the catalogs by then.
    owner.execute(f"lock table {former}".encode())
    thread = threading.Thread(target=lambda: ran.extend(reads(db, how, f"{schema}.thing")))
    thread.start()
    until, waiting = time.monotonic() + 20, False
    watch = db.connect()
    while thread.is_alive() and not waiting and time.monotonic() < until:
        row = watch.execute(
            "select exists (select from pg_stat_activity where wait_event_type = 'Lock'"
            " and datname = current_database())"
        ).fetchone()
        waiting = bool(row and row[0])
    owner.execute("commit")
    thread.join()
    return ran


@attack(GROUP, SWAP, outcome="B")
@pytest.mark.parametrize("change", SWAPS)
@pytest.mark.parametrize("how", ["baseline", "detect"])
def test_what_changes_after_the_look_runs_as_nobody_else(
    db: Database, how: str, change: str
) -> None:
    assert swapped(db, how, change) == []


@attack(GROUP, SWAP, outcome="B")
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("how", ["baseline", "detect"])
def test_a_snapshot_of_before_hides_no_index(db: Database, how: str, level: str) -> None:
    owner = build(db, "public")
    conn = db.connect()
    ran: list[str] = []
    conn.add_notice_handler(lambda said: ran.append(str(said.message_primary)))
    conn.execute(f"begin isolation level {level}".encode())
    conn.execute("select from thing")
    owner.execute(SWAPS["an index"][0].encode())
    if how == "detect":
        assert detect(conn, sample=True).tables
    else:
        with pytest.raises(pg.Error, match="does not see the present state of"):
            conn.execute("select audit.baseline('public.thing')")
    assert [line for line in ran if line.startswith("ran as")] == []


@attack(GROUP, SWAP, outcome="B", twin=True)
@pytest.mark.parametrize("change", SWAPS)
def test_a_naive_look_is_passed_by(db: Database, change: str) -> None:
    assert "ran as postgres" in swapped(db, "naive", change)


def test_an_index_waits_until_another_has_read_the_rows(db: Database) -> None:
    owner = build(db, "public")
    owner.execute("set lock_timeout = '50ms'")
    conn = db.connect()
    conn.execute("begin")
    conn.execute("select audit.baseline('public.thing')")
    with pytest.raises(pg.LockNotAvailable):
        owner.execute(SWAPS["an index"][0].encode())
    # Not so its own rows.
    owner.execute("insert into thing values (50, 1, 'member')")


def test_another_than_the_owner_reads_all_rows_and_leaves_nothing(db: Database) -> None:
    build(db, "public")
    conn = db.connect()
    rows = [conn.execute("select audit.baseline('thing', 15)").fetchone() for _ in range(4)]
    assert rows == [(15,), (15,), (10,), (None,)]
    assert len(db.events("action = 'thing.baseline'")) == 40
    left = "select count(*) from pg_class where relnamespace = pg_my_temp_schema()"
    assert conn.execute(left).fetchone() == (0,)
