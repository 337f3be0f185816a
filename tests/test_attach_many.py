"""Many tables attached while an application writes: nobody waits for more than one table."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from auditdb.errors import Refused
from auditdb.mapping.apply import apply
from auditdb.mapping.file import load
from auditdb.mapping.plan import plan
from auditdb.operate import doctor, install
from tests.conftest import Database

MANY = 12
CAPTURE = "'^auditdb_(insert|update|delete|truncate)$'"


def tables(*numbers: int) -> str:
    """Return a mapping file of some of the tables."""
    return "".join(f"[[table]]\nname = 'public.t_{n}'\nkind = 'thing'\n" for n in numbers)


ALL = tables(*range(MANY))


@pytest.fixture
def many(empty_db: Database) -> Database:
    """A database with tables that could be attached."""
    with empty_db.connect("app_owner") as conn:
        for n in range(MANY):
            conn.execute(f"create table t_{n} (id int primary key, name text)".encode())
            conn.execute(f"insert into t_{n} values (1, 'a')".encode())
    return empty_db


def attached(db: Database) -> set[str]:
    """Return the tables that have all of their triggers and a mapping."""
    with psycopg.connect(db.dsn) as conn:
        rows = conn.execute(
            "select tgrelid::regclass::text from pg_trigger join audit_private.attachment as a "
            f"on a.target = tgrelid where tgname ~ {CAPTURE} and tgenabled = 'A' "
            "group by 1 having count(*) = 4".encode()
        )
        return {row[0] for row in rows}


@contextmanager
def held(db: Database, statement: str) -> Iterator[psycopg.Connection[Any]]:
    """Keep a transaction open that ran a statement."""
    with psycopg.connect(db.dsn) as conn:
        conn.execute(statement.encode())
        yield conn
        conn.rollback()


def locks(conn: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    """Return what the connection's transaction locks of the application, and how."""
    return conn.execute(
        "select relation::regclass::text, mode from pg_locks "
        "join pg_class as c on c.oid = relation where pid = pg_backend_pid() "
        "and relnamespace = 'public'::regnamespace and relkind <> 'i' "
        "and locktype = 'relation' and mode <> 'AccessShareLock' order by 1, 2"
    ).fetchall()


class Watch:
    """Records, a transaction each, what is locked for triggers when a statement is about to end."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn
        self.seen: list[list[str]] = []
        execute = psycopg.Cursor.execute

        def spying(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            result = execute(cursor, query, *args, **kwargs)
            if cursor.connection is conn and b"attach_given" in bytes(str(query), "utf-8"):
                rows = execute(
                    psycopg.Cursor(conn),
                    "select relation::regclass::text from pg_locks where pid = pg_backend_pid() "
                    "and locktype = 'relation' and mode = 'ShareRowExclusiveLock' "
                    "and relation::regclass::text ~ '^(public[.])?t_'",
                )
                self.seen.append([row[0] for row in rows])
            return result

        self.patch = spying


def test_each_transaction_locks_one_table(many: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    conn = many.connect("app_owner")
    watch = Watch(conn)
    monkeypatch.setattr(psycopg.Cursor, "execute", watch.patch)
    apply(conn, load(ALL))
    assert len(watch.seen) == MANY
    assert all(len(found) == 1 for found in watch.seen)


def test_in_a_transaction_of_the_caller_it_is_all_or_nothing(many: Database) -> None:
    conn = many.connect("app_owner")
    with conn.transaction(force_rollback=True):
        apply(conn, load(ALL))
        assert len(locks(conn)) >= MANY
    assert attached(many) == set()


def test_a_plan_locks_no_table(many: Database) -> None:
    conn = many.connect("app_owner")
    conn.execute("create table owned (id int primary key, t_id int)")
    conn.execute("alter table t_0 enable row level security, add column org int")
    looking = ALL + (
        "[[table]]\nname = 'public.owned'\nkind = 'owned'\n"
        "organization = '(select org from public.t_0 as t where t.id = r.t_id)'\n"
    )
    apply(conn, load(tables(1)))
    with held(many, "; ".join(f"update t_{n} set name = 'b'" for n in range(MANY))) as writer:
        writer.execute("lock table t_0, t_1, owned in share row exclusive mode")
        assert {c.verb for c in plan(conn, load(looking), prune=True)} == {"attach", "unchanged"}


def test_a_writer_of_one_table_holds_up_only_that_table(many: Database) -> None:
    conn = many.connect("app_owner")
    before = ALL.replace("'thing'", "'thing'", 1)
    with held(many, "update t_3 set name = 'b'"):
        with pytest.raises(Refused, match=r"public.t_3 is busy.*11 of 12 changes are done"):
            apply(conn, load(before))
        assert attached(many) == {f"t_{n}" for n in range(MANY)} - {"t_3"}
    verbs = {c.name: c.verb for c in apply(conn, load(ALL))}
    assert verbs.pop("public.t_3") == "attach"
    assert set(verbs.values()) == {"unchanged"}


def waiting(conn: psycopg.Connection[Any], what: str) -> bool:
    """Return whether somebody waits for a lock on a table."""
    row = conn.execute(
        "select count(*) from pg_locks where relation = %s::regclass and not granted", [what]
    ).fetchone()
    return row is not None and row[0] > 0


def wait_until(is_so: Callable[[], bool], times: int = 20_000) -> None:
    """Ask again and again."""
    for _ in range(times):
        if is_so():
            return
        threading.Event().wait(0.002)
    raise AssertionError("it never came to be")


def test_a_writer_is_not_queued_behind_an_attach_that_waits(many: Database) -> None:
    watcher = many.connect()
    owner = many.connect("app_owner")
    failed: list[BaseException] = []

    def attach() -> None:
        try:
            owner.execute("select audit.attach('t_3', 'thing')")
        except psycopg.Error as error:
            failed.append(error)

    with held(many, "update t_3 set name = 'b'"):
        thread = threading.Thread(target=attach)
        thread.start()
        # It stops waiting, though what it waits for is still there.
        wait_until(lambda: waiting(watcher, "t_3"))
        wait_until(lambda: not waiting(watcher, "t_3"), 5000)
        writer = many.connect()
        writer.execute("insert into t_3 values (2, 'c')")
    thread.join()
    assert failed == []
    assert attached(many) == {"t_3"}


def test_a_transaction_that_writes_two_tables_in_another_order_ends(many: Database) -> None:
    conn = many.connect("app_owner")
    writer = many.connect(autocommit=False)
    writer.execute("update t_11 set name = 'b'")
    thread = threading.Thread(target=lambda: apply(conn, load(ALL)))
    thread.start()
    wait_until(lambda: {"t_0", "t_10"} <= attached(many))
    writer.execute("update t_2 set name = 'b'")
    writer.commit()
    thread.join()
    assert len(attached(many)) == MANY


def test_what_is_unchanged_is_not_locked_and_not_written(many: Database) -> None:
    conn = many.connect("app_owner")
    apply(conn, load(ALL))
    query = "select max(id), (select count(*) from audit_private.attestation) from audit.event"
    before = many.connect().execute(query.encode()).fetchone()
    with held(many, "; ".join(f"update t_{n} set name = 'b' where false" for n in range(MANY))):
        assert {c.verb for c in apply(conn, load(ALL))} == {"unchanged"}
    assert many.connect().execute(query.encode()).fetchone() == before


def test_one_that_is_refused_by_the_check_leaves_all_undone(many: Database) -> None:
    conn = many.connect("app_owner")
    wrong = ALL + "[[table]]\nname = 'public.nope'\nkind = 'thing'\n"
    with pytest.raises(Refused, match=r"there is no table public\.nope"):
        apply(conn, load(wrong))
    assert attached(many) == set()


def test_what_is_refused_after_the_check_is_named_and_the_others_are_done(many: Database) -> None:
    conn = many.connect("app_owner")
    other = many.connect()

    def interfere(change: Any) -> None:
        if change.name == "public.t_0":
            other.execute("drop table t_7")

    with pytest.raises(Refused, match=r"public.t_7: .*11 of 12 changes are done; run it again"):
        apply(conn, load(ALL), done=interfere)
    assert len(attached(many)) == MANY - 1


def run(db: Database, *args: str) -> subprocess.Popen[str]:
    """Start the command line as the owner."""
    return subprocess.Popen(
        [sys.executable, "-m", "auditdb", "--dsn", db.conninfo("app_owner"), *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


BACKENDS = "select count(*) from pg_stat_activity where application_name = 'auditdb'"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_is_stopped_leaves_nothing_running_and_tables_whole(
    many: Database, tmp_path: Any, number: signal.Signals
) -> None:
    (tmp_path / "auditdb.toml").write_text(ALL)
    watcher = many.connect()

    def count() -> int:
        row = watcher.execute(BACKENDS.encode()).fetchone()
        assert row is not None
        return int(row[0])

    with held(
        many,
        "lock table audit_private.migration in access exclusive mode; "
        "create table mark (); select pg_advisory_xact_lock(hashtextextended('auditdb', 0))",
    ):
        process = run(many, "attach", str(tmp_path / "auditdb.toml"))
        wait_until(lambda: waiting_for_advice(watcher))
        os.kill(process.pid, number)
        _, err = process.communicate()
        # Sooner than it would give up by itself.
        wait_until(lambda: count() == 0, 5000)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in err
    assert attached(many) == set()


def waiting_for_advice(conn: psycopg.Connection[Any]) -> bool:
    """Return whether somebody waits for the lock that attach and install take."""
    row = conn.execute("select count(*) from pg_locks where locktype = 'advisory' and not granted")
    found = row.fetchone()
    return found is not None and found[0] > 0


def test_interrupted_midway_it_says_how_far_it_came_and_goes_on(
    many: Database, tmp_path: Any
) -> None:
    (tmp_path / "auditdb.toml").write_text(ALL)
    watcher = many.connect()
    with held(many, "update t_11 set name = 'b'"):
        process = run(many, "attach", str(tmp_path / "auditdb.toml"))
        wait_until(lambda: waiting(watcher, "t_11"))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130
    assert re.search(r"interrupted. 11 of 12 changes are done; run it again", err), (out, err)
    assert len(re.findall("^attach ", out, re.M)) == MANY - 1
    assert len(attached(many)) == MANY - 1
    process = run(many, "attach", str(tmp_path / "auditdb.toml"))
    out, err = process.communicate()
    assert (process.returncode, len(re.findall("^unchanged ", out, re.M))) == (0, MANY - 1), err
    assert len(attached(many)) == MANY


def test_prune_detaches_what_the_file_does_not_name(many: Database) -> None:
    conn = many.connect("app_owner")
    apply(conn, load(ALL))
    fewer = load(tables(1, 2))
    would = {c.name: c.verb for c in plan(conn, fewer, prune=True)}
    assert {n for n, verb in would.items() if verb == "unchanged"} == {"public.t_1", "public.t_2"}
    assert len([n for n, verb in would.items() if verb == "detach"]) == MANY - 2
    assert len(attached(many)) == MANY
    apply(conn, fewer, prune=True)
    assert attached(many) == {"t_1", "t_2"}


def test_without_prune_others_stay(many: Database) -> None:
    conn = many.connect("app_owner")
    apply(conn, load(ALL))
    assert {c.verb for c in apply(conn, load(tables(1)))} == {"unchanged", "unlisted"}
    assert len(attached(many)) == MANY


def test_what_needs_a_table_that_is_pruned_is_refused_before(db: Database) -> None:
    owner = db.connect("app_owner")
    owner.execute("create table part (id int primary key, workflow_id int references workflow)")
    owner.execute("select audit.attach('part', 'workflow', parent => 'workflow_id')")
    file = "[[table]]\nname = 'public.part'\nkind = 'workflow'\nparent = 'workflow_id'\n"
    (change,) = (c for c in plan(owner, load(file), prune=True) if c.name == "public.part")
    assert change.verb == "remap"
    apply(owner, load(file), prune=True)
    assert [c.verb for c in plan(owner, load(file), prune=True)] == ["unchanged"]


def test_a_renamed_table_is_named_as_what_it_is_now(many: Database) -> None:
    conn = many.connect("app_owner")
    apply(conn, load(ALL))
    conn.execute("alter table t_4 rename to t_four")
    for name in ("public.t_4", "t_4"):
        with pytest.raises(
            Refused,
            match=f"there is no table {name}; the table attached by that name is now "
            r"public\.t_four",
        ):
            plan(conn, load(f"[[table]]\nname = '{name}'\nkind = 'thing'\n"))


CHANGES = {
    "renamed": ("alter table t_4 rename to t_four", ALL.replace("t_4'", "t_four'"), "mend"),
    "dropped": ("drop table t_4", ALL.replace(tables(4), ""), "forget"),
    "dropped and created again": (
        "drop table t_4; create table t_4 (id int primary key)", ALL, "attach"),
    "of another owner": ("alter table t_4 owner to postgres", ALL, "mend"),
    "with a column more": ("alter table t_4 add column more int", ALL, "remap"),
    "a trigger off": ("alter table t_4 disable trigger auditdb_update", ALL, "mend"),
    "a trigger off and on": (
        "alter table t_4 disable trigger auditdb_update; "
        "alter table t_4 enable always trigger auditdb_update", ALL, "mend"),
    "a trigger with a condition": (
        "create or replace trigger auditdb_update after update on t_4 for each row "
        "when (new.id = 1) execute function {function}", ALL, "mend"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_one_run_mends_what_a_migration_did(many: Database, what: str) -> None:
    statement, file, verb = CHANGES[what]
    admin = many.connect()
    apply(admin, load(ALL))
    (function,) = admin.execute(
        "select tgfoid::regprocedure::text from pg_trigger "
        "where tgrelid = 't_4'::regclass and tgname = 'auditdb_update'"
    ).fetchone() or ("",)
    admin.execute(statement.replace("{function}", function).encode())
    assert verb in [c.verb for c in apply(admin, load(file))]
    assert {c.verb for c in plan(admin, load(file))} == {"unchanged"}
    found = [
        f
        for f in doctor.diagnose(admin)
        # That nobody's organisation is known is no news here.
        if ("t_4" in f.object or "t_four" in f.object) and f.check_name != "tenants"
    ]
    assert found == []


def test_a_new_partition_gets_its_trigger_by_the_next_run(empty_db: Database) -> None:
    owner = empty_db.connect("app_owner")
    owner.execute(
        "create table p (id int, primary key (id)) partition by range (id); "
        "create table p_1 partition of p for values from (1) to (10)"
    )
    file = load("[[table]]\nname = 'public.p'\nkind = 'p'\n")
    apply(owner, file)
    owner.execute("create table p_2 partition of p for values from (10) to (20)")
    assert [c.verb for c in apply(owner, file)] == ["mend"]
    assert [c.verb for c in apply(owner, file)] == ["unchanged"]
    owner.execute("truncate p_2")
    assert empty_db.actions() == ["p.truncated"]


NOTICED = {
    "attach": "select audit.attach('public.t_0', 'thing')",
    "attach again": "select audit.attach('public.t_0', 'thing', ignore => '{name}')",
    "attach once more": "select audit.attach('public.t_0', 'thing', "
    "organization => '(select t.name from public.t_1 as t where t.id = r.id)')",
    "reattach": "select audit.reattach('public.t_0')",
    "define_kind": "select audit.define_kind('thing')",
    "doctor": "select audit.doctor()",
    "maintain": "select audit.maintain()",
    "detach": "select audit.detach('public.t_0')",
}


def test_no_notice_comes_of_what_is_as_it_should_be(many: Database) -> None:
    noticed: list[str | None] = []
    # Also where triggers are missing, and what is attached has row-level security.
    conn = many.connect("app_owner", options="-c client_min_messages=notice")
    conn.execute("alter table t_1 enable row level security")
    conn.add_notice_handler(lambda diagnostic: noticed.append(diagnostic.message_primary))
    for statement in NOTICED.values():
        conn.execute(statement.encode())
    apply(conn, load(ALL))
    apply(conn, load(tables(1)), prune=True)
    admin = many.connect(options="-c client_min_messages=notice")
    admin.add_notice_handler(lambda diagnostic: noticed.append(diagnostic.message_primary))
    with admin.transaction():
        admin.execute(install.script().encode())
    assert noticed == []
