"""Output and operation: what is shown, restored, maintained and installed in a hostile world."""

from __future__ import annotations

import io
import time
from contextlib import redirect_stdout
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.rows import dict_row

import auditdb
from auditdb.cli import main
from tests.attacks.conftest import Arena, act, count, look, newest
from tests.attacks.report import attack
from tests.conftest import Database

GROUP = "Output and operation"
SHOWN = "Control characters and markup in log, doctor, status, detect: table, JSON lines"
SECRETS = "Secrets as identifiers, inside JSON, in innocent columns of credential tables"
RESTORE = "Restore of data only over attached tables, into triggers that are ENABLE ALWAYS"
CLOCK = "Maintenance under a wrong clock"
POOLER = "Install through a transaction pooler: nothing stays on the connection"

EVIL = "\x1b[2J\x1b[1;1Hhealthy\x1b[8m\x07\x9b31m\u202e[/x][red]\r\n"
LOG = ["log", "--viewer-id", "1", "--organization-id", "1"]
CSV = [*LOG, "--format", "csv"]
OUTPUTS = [LOG, [*LOG, "--format", "jsonl"], CSV, ["doctor"],
           ["doctor", "--json"], ["status"], ["status", "--json"], ["detect"],
           ["key", "list"]]  # fmt: skip


def hostile_names(db: Database) -> None:
    """Let everything that is shown hold what drives a terminal."""
    admin = db.connect()
    table = EVIL.replace("\r\n", "").replace('"', "")
    for statement in (
        f'create table public."{table}" (id int primary key, organization_id int, "{table}" text)',
        f'create table public."{table}m" (id int primary key, organization_id int, user_id int,'
        " role text)",
        f"select audit.attach('public.\"{table}\"', 'thing')",
        f'alter table public."{table}" disable trigger auditdb_update',
        f"insert into public.\"{table}\" values (1, 1, 'x')",
    ):
        admin.execute(statement.encode())
    app = db.connect("app")
    app.execute(
        "select audit.record_event('auth.login', '1', 't', %s, %s, 'success', %s, 'user', %s,"
        " details => jsonb_build_object('reason', %s::text, 'degraded',"
        " jsonb_build_object('sqlstate', %s::text)))",
        (EVIL, EVIL, EVIL, EVIL, EVIL, EVIL),
    )


@attack(GROUP, SHOWN, outcome="B")
@pytest.mark.parametrize("command", OUTPUTS, ids=" ".join)
def test_no_output_holds_a_control_character(db: Database, command: list[str]) -> None:
    hostile_names(db)
    # An auditor reads without a token, an admin with one.
    dsn = db.conninfo("app_reader") if command[0] == "log" else db.dsn
    done = CliRunner(env={"AUDITDB_KEY": db.key}).invoke(main, ["--dsn", dsn, *command])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.output and done.exit_code in (0, 1), done.output
    if command == CSV:
        # Machines read it: fields are quoted, and what drives a terminal is not left in them.
        assert "\x1b" not in done.output
        return
    found = [c for c in done.output if not c.isprintable() and c not in "\n"]
    assert found == [], [hex(ord(c)) for c in found]


@attack(GROUP, SHOWN, outcome="B", twin=True)
def test_a_naive_print_drives_the_terminal(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        conn.execute("insert into naive.log (action) values (%s)", (EVIL,))
        shown = io.StringIO()
        with redirect_stdout(shown):
            print(*conn.execute("select action from naive.log order by id").fetchall()[-1].values())
        assert "\x1b[2J" in shown.getvalue()


SECRET = "hunter2-correct-horse"
TABLES = {
    "a primary key that is a secret": (
        "create table public.s (token text primary key, organization_id int)",
        "thing", "insert into public.s values ('{}', 1)"),
    "a subject that is a secret": (
        "create table public.s (id int primary key, organization_id int, reset_token text)",
        "thing', subject => 'reset_token", "insert into public.s values (1, 1, '{}')"),
    "a key inside json": (
        "create table public.s (id int primary key, organization_id int, config jsonb)",
        "thing", "insert into public.s values (1, 1, '{{\"a\": [{{\"password\": \"{}\"}}]}}')"),
    "json as text": (
        "create table public.s (id int primary key, organization_id int, config json)",
        "thing", "insert into public.s values (1, 1, '{{\"apiKey\": \"{}\"}}')"),
    "an innocent column of a credential table": (
        "create table public.s (id int primary key, organization_id int, user_id int, value text,"
        " key text)", "api_key", "insert into public.s values (1, 1, 1, '{0}', '{0}')"),
    "a column of an api key that nobody knows": (
        "create table public.s (id int primary key, organization_id int, user_id int, blob text)",
        "api_key", "insert into public.s values (1, 1, 1, '{0}')"),
    "a default that is a secret": (
        "create table public.s (id int primary key, organization_id int, password text"
        " default '{0}')", "thing", "insert into public.s values (1, 1)"),
    "a unique key that is a secret": (
        "create table public.s (session_token text not null unique, organization_id int)",
        "thing", "insert into public.s values ('{}', 1)"),
}  # fmt: skip


@attack(GROUP, SECRETS, outcome="B")
@pytest.mark.parametrize("context", ["", "no json"])
@pytest.mark.parametrize("what", TABLES)
def test_no_secret_is_in_the_log(arena: Arena, what: str, context: str) -> None:
    create, kind, insert = TABLES[what]
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute(create.replace("{0}", SECRET).encode())
        conn.execute("grant all on public.s to app")
        conn.execute(f"select audit.attach('public.s', '{kind}')".encode())
        before = count(conn)
        act(conn, "app")
        conn.execute("select set_config('auditdb.context', %s, true)", (context,))
        conn.execute(insert.format(SECRET).encode())
        conn.execute("update public.s set organization_id = 2")
        conn.execute("delete from public.s")
        look(conn)
        assert count(conn) >= before + 3
        rows = conn.execute(
            "select e::text as e from audit.event as e where transaction_id = pg_current_xact_id()"
        ).fetchall()
        assert not [row for row in rows if SECRET in row["e"]]


@attack(GROUP, SECRETS, outcome="B", twin=True)
def test_a_naive_log_keeps_every_secret(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        conn.execute("alter table naive.membership add password text")
        conn.execute("update naive.membership set password = %s where user_id = 1", (SECRET,))
        row = conn.execute("select l::text as l from naive.log as l order by id desc limit 1"
                           ).fetchone()  # fmt: skip
        assert row is not None and SECRET in row["l"]


@attack(GROUP, RESTORE, outcome="S", twin=True)
@pytest.mark.parametrize("how", ["as it is", "replica", "row_security off", "context left over"])
def test_a_restore_of_data_is_written_and_told_row_by_row(arena: Arena, how: str) -> None:
    with arena.trial() as conn:
        conn.execute("delete from public.membership")
        before = count(conn), count(conn, "naive.log")
        conn.execute("set local search_path = ''")
        if how == "replica":
            conn.execute("set local session_replication_role = replica")
        elif how == "row_security off":
            conn.execute("set local row_security = off")
        elif how == "context left over":
            conn.execute("select set_config('auditdb.context', '{', true)")
        for table in ("public", "naive"):
            rows = "1\t1\tOWNER\t\\N\n1\t2\tGUEST\t\\N\n" if table == "public" else "8\t8\tx\t\\N\n"
            with (
                conn.cursor() as cursor,
                cursor.copy(f"copy {table}.membership from stdin".encode()) as copy,
            ):
                copy.write(rows.encode())
        events = newest(conn, 2)
        assert count(conn) == before[0] + 2
        assert [(e["action"], e["organization_id"], e["target_id"]) for e in events] == [
            ("membership.added", "1", "1,1"), ("membership.added", "1", "1,2")]  # fmt: skip
        if how == "replica":
            assert count(conn, "naive.log") == before[1]


@attack(GROUP, CLOCK, outcome="B")
@pytest.mark.parametrize("ahead", ["3 years", "30 years"])
def test_retention_refuses_what_only_a_wrong_clock_asks_for(empty_db: Database, ahead: str) -> None:
    """As if the clock had run ahead: every event but those of this moment is that much older."""
    conn = empty_db.connect(row_factory=dict_row)
    conn.execute("select audit_private.create_months(1)")
    conn.execute(
        "insert into audit.event (occurred_at, action, result, actor_type, source)"
        " select now() - %s::interval - i * interval '1 day', 'a.b', 'success', 'user', 'web'"
        " from generate_series(1, 90) as i",
        (ahead,),
    )
    for _ in range(6):
        conn.execute("select * from audit.maintain()")
    with pytest.raises(psycopg.Error) as caught:
        for _ in range(6):
            conn.execute("select * from audit.maintain('24 months')")
    assert caught.value.diag.message_hint
    row = conn.execute("select count(*) as n from audit.event where action = 'a.b'").fetchone()
    assert row == {"n": 90}


@attack(GROUP, CLOCK, outcome="B", twin=True)
def test_a_naive_purge_believes_the_clock(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        conn.execute("update naive.log set occurred_at = now() - interval '30 years'")
        assert conn.execute(
            "delete from naive.log where occurred_at < now() - interval '24 months'"
        ).rowcount > 0  # fmt: skip
        assert conn.execute("select count(*) as n from naive.log").fetchone() == {"n": 0}


KEPT = (
    "select pg_catalog.jsonb_object_agg(name, setting) as s,"
    " (select count(*) from pg_catalog.pg_locks where pid = pg_backend_pid()"
    " and locktype = 'advisory') as locks, current_user::text as u,"
    " (select count(*) from pg_catalog.pg_class where relnamespace = pg_my_temp_schema()) as t"
    " from pg_catalog.pg_settings"
)


@attack(GROUP, POOLER, outcome="S")
@pytest.mark.parametrize("again", [False, True])
def test_the_script_leaves_nothing_on_its_connection(empty_db: Database, again: bool) -> None:
    """A pooler hands the connection on when the transaction ends."""
    conn = empty_db.connect(prepare_threshold=None)
    conn.execute("do $$ begin end $$")  # PL/pgSQL's own settings come with its first use
    with conn.cursor(row_factory=dict_row) as cursor:
        before = cursor.execute(KEPT).fetchone()
        for _ in range(1 + again):
            conn.execute(auditdb.script().encode())
        assert cursor.execute(KEPT).fetchone() == before


@attack(GROUP, POOLER, outcome="S")
def test_install_leaves_no_session_behind(empty_db: Database) -> None:
    auditdb.install(empty_db.dsn)
    conn = empty_db.connect(row_factory=dict_row)
    until = time.monotonic() + 30
    rows: list[Any] = [None]
    while rows and time.monotonic() < until:
        rows = conn.execute(
            "select from pg_locks as l join pg_stat_activity as a using (pid) where locktype ="
            " 'advisory' and datname = current_database() and pid <> pg_backend_pid()"
        ).fetchall()
    assert rows == []


@attack(GROUP, POOLER, outcome="S", twin=True)
def test_a_naive_script_leaves_its_path_on_the_connection(arena: Arena) -> None:
    with arena.trial() as conn:
        before = conn.execute(KEPT).fetchone()
        conn.execute("set search_path = naive, pg_catalog")
        conn.execute("select pg_advisory_lock(7)")
        assert conn.execute(KEPT).fetchone() != before
        conn.execute("select pg_advisory_unlock(7)")
