"""What is left behind: every call leaves the session as it was, whatever code it met on its way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.rows import dict_row

from auditdb.operate import doctor
from auditdb.operate.status import status
from tests.attacks import naive
from tests.attacks.conftest import SERVICES, look
from tests.attacks.hostile import ROADS_TO_CAPTURE, Road, build, heard, whom
from tests.attacks.report import attack
from tests.conftest import Database
from tests.viewer import sign

GROUP = "What is left behind"
ROWS = {
    "settings": "Settings of the session after attach, detach, reattach, doctor, status,"
    " maintenance, reading and writing",
    "locks": "Locks and advisory locks of the session, kept by code of a mapping or a rule for"
    " admins",
    "objects": "Current role, temporary objects and channels left by code of a mapping",
    "prepared": "Prepared statements left by code of a mapping",
    "deferred": "Deferred triggers that code of a mapping leaves for the end of another's"
    " transaction",
}
REPLACED = "A prepared statement of the session that code of a mapping replaces by one of its own"
GIVEN_UP = "Advisory locks of the session that code of a mapping or a rule for admins gives up"

SETTINGS = {
    "search_path": "svc, pg_catalog",
    "DateStyle": "German, DMY",
    "TimeZone": "Asia/Kathmandu",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "lock_timeout": "1234ms",
    "statement_timeout": "54321ms",
    "idle_in_transaction_session_timeout": "54321ms",
    "row_security": "off",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "check_function_bodies": "off",
    "enable_seqscan": "off",
    "work_mem": "64kB",
    "application_name": "hostile",
    "client_min_messages": "error",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "synchronous_commit": "off",
    "default_tablespace": "pg_default",
    "auditdb.context": '{"actor_id": "hostile"}',
    "auditdb.viewer": "hostile",
    "svc.left": "hostile",
    "request.jwt.claims": '{"sub": "hostile"}',
}

# Each step on its own, so that one which is refused keeps none of the others back.
STEP = "begin execute {0}; exception when others then null; end;"


def body(*statements: str) -> str:
    """Return the hostile code that says who it is and then tries the statements."""
    steps = "\n".join(STEP.format(f"$s${statement}$s$") for statement in statements)
    return f"begin raise notice 'ran as %', current_user; {steps} end"


BODIES = {
    "settings": body(
        *(
            # Without warning, for this one would be heard no more.
            f"select pg_catalog.set_config('{name}', '{value}', {local})"
            for local in ("true", "false")
            for name, value in SETTINGS.items()
        )
    ),
    "locks": body(
        "select pg_catalog.pg_try_advisory_lock(667001)",
        "select pg_catalog.pg_try_advisory_lock_shared(667002)",
        "select pg_catalog.pg_try_advisory_lock(6670, 3)",
    ),
    "objects": body(
        "create temp table left_behind (i int)",
        "create function pg_temp.left_behind() returns int language sql as 'select 1'",
        "create temp sequence left_sequence",
        "listen left_channel",
        "declare left_cursor cursor with hold for select 1",
        "set local role app",
        "set role app",
        "set session authorization app",
        "insert into svc.loot values (1)",
    ),
    "prepared": body("prepare left_statement as select 1"),
    "deferred": body("insert into svc.later values (1)", "insert into svc.loot values (1)"),
}
LATER = """
create table svc.loot (i int);
create table svc.later (i int);
grant all on svc.loot, svc.later to public;
create function svc.at_the_end() returns trigger language plpgsql as $f$
begin
    raise notice 'ran as %', current_user;
    return null;
end $f$;
create constraint trigger at_the_end after insert on svc.later deferrable initially deferred
    for each row execute function svc.at_the_end();
"""

STATE = """
select
    (select jsonb_object_agg(name, setting) from pg_catalog.pg_settings) as settings,
    pg_catalog.jsonb_build_array(
        pg_catalog.current_setting('auditdb.context', true),
        pg_catalog.current_setting('auditdb.viewer', true),
        pg_catalog.current_setting('svc.left', true),
        pg_catalog.current_setting('request.jwt.claims', true)) as own_settings,
    array[current_user, session_user]::text[] as users,
    array(select pg_catalog.concat_ws(' ', mode, classid, objid) from pg_catalog.pg_locks
        where pid = pg_catalog.pg_backend_pid() and locktype = 'advisory' order by 1) as locks,
    array(select relname::text from pg_catalog.pg_class
        where relnamespace operator(pg_catalog.=) pg_catalog.pg_my_temp_schema()
        union all select proname::text from pg_catalog.pg_proc
        where pronamespace operator(pg_catalog.=) pg_catalog.pg_my_temp_schema()) as temporary,
    array(select name from pg_catalog.pg_prepared_statements) as prepared,
    array(select name from pg_catalog.pg_cursors where name = 'left_cursor') as cursors,
    array(select pg_catalog.pg_listening_channels()) as channels
"""


def state(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    """Return all that a session remembers, between transactions."""
    row = conn.execute(STATE).fetchone()
    assert row is not None
    found = {key: value for key, value in row.items() if key not in ("settings", "own_settings")}
    found |= {f"setting {name}": value for name, value in row["settings"].items()}
    # A setting that was set for a transaction is empty afterwards, not unknown.
    return found | {"own settings": [value or None for value in row["own_settings"]]}


def left(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what is not as it was."""
    return {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }


def login(db: Database, role: str | None) -> psycopg.Connection[Any]:
    """Log in without statements prepared by the driver, and with PL/pgSQL's settings loaded."""
    conn = db.connect(role, row_factory=dict_row, prepare_threshold=None)
    conn.execute("do $$ begin end $$")
    return conn


def serve(db: Database, what: str, road: Road | None) -> None:
    """Let the service build its code, and commit."""
    conn = login(db, None)
    conn.execute(SERVICES)
    build(conn, BODIES[what], road)
    conn.execute(LATER)
    conn.execute("create table svc.member (id int primary key, organization_id int,"
                 " user_id int, role text)")  # fmt: skip
    conn.execute("insert into svc.member values (1, 1, 66, 'x')")
    conn.execute(
        "select audit.attach('svc.member', 'membership',"
        " organization => $$coalesce((('{1}'::svc.checked[])[1])::text,"
        " svc.hostile_text(r.organization_id))$$,"
        " admin => $$svc.hostile_constant('x') and svc.hostile_true(r.id)$$)"
    )


def assert_nothing_is_left(
    db: Database, role: str | None, call: Callable[[psycopg.Connection[Any]], Any]
) -> None:
    """Assert that a call leaves its session as it was, and none of what the service wrote."""
    conn = login(db, role)
    before = state(conn)
    with heard(conn) as said:
        call(conn)
    assert whom(said) <= {"audit_mapper"}, said
    assert left(before, state(conn)) == {}
    look = login(db, None)
    assert look.execute("select count(*) as n from svc.loot").fetchone() == {"n": 0}


WRITES = (
    "insert into svc.thing values (1, 1, 'fine', '(1,2)', 'a')",
    "update svc.thing set v = 'b', mood = 'sad', pair = '(3,4)'",
    "delete from svc.thing",
)


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=attack(GROUP, row, outcome="B")) for what, row in ROWS.items()],
)
@pytest.mark.parametrize("road", ROADS_TO_CAPTURE)
def test_a_write_leaves_nothing_behind(db: Database, road: str, what: str) -> None:
    serve(db, what, ROADS_TO_CAPTURE[road])

    def write(conn: psycopg.Connection[Any]) -> None:
        for context in ("", "no json"):
            with conn.transaction():
                conn.execute("select set_config('auditdb.context', %s, true)", (context,))
                for statement in WRITES:
                    conn.execute(statement.encode())

    for role in ("app", None):
        assert_nothing_is_left(db, role, write)
    assert len(db.events("captured_from = 'svc.thing'")) == 2 * 2 * len(WRITES)


BY_EXPRESSION = [road for road, way in ROADS_TO_CAPTURE.items() if not way.after]


@attack(GROUP, ROWS["locks"], outcome="B")
@pytest.mark.parametrize("road", BY_EXPRESSION)
def test_a_write_to_a_plain_table_leaves_no_lock_behind(db: Database, road: str) -> None:
    """Of which no column runs code: only the mapping does."""
    serve(db, "locks", Road())
    conn = login(db, "other_owner")
    conn.execute("create table svc.plain (id int primary key, organization_id int, v text)")
    conn.execute("grant all on svc.plain to app")
    conn.execute(
        "select audit.attach('svc.plain', 'plain', organization => %s)",
        (ROADS_TO_CAPTURE[road].organization,),
    )

    def write(conn: psycopg.Connection[Any]) -> None:
        conn.execute("insert into svc.plain values (1, 1, 'a')")
        conn.execute("update svc.plain set v = 'b', organization_id = 2")
        conn.execute("delete from svc.plain")

    assert_nothing_is_left(db, "app", write)


@attack(GROUP, ROWS["locks"], outcome="B")
def test_a_cast_that_was_there_before_leaves_no_lock_behind(db: Database) -> None:
    serve(db, "locks", None)
    conn = login(db, "other_owner")
    conn.execute("create cast (svc.mood as json) with function svc.mood_json(svc.mood)")
    conn.execute("select audit.attach('svc.thing', 'thing')")

    def write(conn: psycopg.Connection[Any]) -> None:
        for statement in WRITES:
            conn.execute(statement.encode())

    assert_nothing_is_left(db, "app", write)


def fix(conn: psycopg.Connection[Any]) -> None:
    """Ask doctor and mend what it finds, as `auditdb doctor --fix` does."""
    doctor.fix(conn, doctor.diagnose(conn))


CALLS: dict[str, Callable[[psycopg.Connection[Any]], Any] | str] = {
    "doctor": "select * from audit.doctor()",
    "doctor --fix": fix,
    "status": status,
    "list_tables": "select * from audit.list_tables()",
    "list_partitions": "select * from audit.list_partitions()",
    "attach again": "select audit.attach('svc.member', 'membership', admin =>"
    " 'svc.hostile_constant(''y'') or svc.hostile_true(r.id)')",
    "attach another": "select audit.attach('svc.thing', 'thing',"
    " organization => '(((''{1}''::svc.checked[])[1])::text)')",
    "attach that fails": "do $$ begin perform audit.attach('svc.thing', 'thing', organization =>"
    " '((''{1}''::svc.checked[])[1])::text || r.none'); exception when others then null; end $$",
    "reattach": "select audit.reattach('svc.member')",
    "detach": "select audit.detach('svc.member')",
    "attest": "select audit.attest('svc.member')",
    "maintain": "select * from audit.maintain()",
    "create_months": "select audit_private.create_months(2)",
    "create_key": "select audit.create_key()",
    "record_event": "select audit.record_event('auth.login')",
    "set_context": "select audit.set_context('1')",
    "mend_guards": "select audit.mend_guards()",
}


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=attack(GROUP, row, outcome="B")) for what, row in ROWS.items()],
)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_leaves_nothing_behind(db: Database, call: str, what: str) -> None:
    serve(db, what, None)
    conn = login(db, "other_owner")
    # What doctor --fix mends.
    conn.execute("alter table svc.member enable trigger auditdb_insert")
    run = CALLS[call]
    if callable(run):
        assert_python_leaves_nothing(db.connect(prepare_threshold=None), run)
    else:
        assert_nothing_is_left(db, None, lambda conn: conn.execute(run.encode()))


def assert_python_leaves_nothing(
    conn: psycopg.Connection[Any], run: Callable[[psycopg.Connection[Any]], Any]
) -> None:
    """As `assert_nothing_is_left`, on a connection whose rows are tuples."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute("do $$ begin end $$")
        before = cursor.execute(STATE).fetchone()
        with heard(conn) as said:
            run(conn)
        after = cursor.execute(STATE).fetchone()
    assert before is not None and after is not None
    assert whom(said) <= {"audit_mapper"}, said
    for settings in (before, after):  # Set for a transaction, and empty afterwards.
        if "own_settings" in settings:
            settings["own_settings"] = [v or None for v in settings["own_settings"]]
    assert left(before, after) == {}


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=attack(GROUP, row, outcome="B")) for what, row in ROWS.items()],
)
def test_reading_leaves_nothing_behind(db: Database, what: str) -> None:
    serve(db, what, None)
    token = sign(db.key, "66", "1")

    def read(conn: psycopg.Connection[Any]) -> None:
        with conn.transaction():
            conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
            conn.execute("select count(*) from audit.event")
            now = conn.execute("select current_setting('auditdb.viewer') as v").fetchone()
            assert now == {"v": token}

    for role in ("app_reader", None):
        assert_nothing_is_left(db, role, read)


CANCELS = BODIES["locks"].removesuffix("end") + (
    "perform pg_catalog.pg_advisory_lock(667004);"
    " raise exception using errcode = 'query_canceled'; end"
)


@attack(GROUP, ROWS["locks"], outcome="B")
@pytest.mark.parametrize("context", ["", "no json"])
@pytest.mark.parametrize(
    "call",
    [
        "insert into svc.thing values (1, 1, 'fine', '(1,2)', 'a')",
        "select * from audit.doctor()",
        "select audit.attach('svc.other', 'thing', organization =>"
        " '(((''{1}''::svc.checked[])[1])::text)')",
        "select audit_private.is_admin('1', '66')",
    ],
)
def test_code_that_cancels_leaves_no_lock_behind(db: Database, call: str, context: str) -> None:
    serve(db, "locks", ROADS_TO_CAPTURE["a function"])
    conn = login(db, None)
    conn.execute("create table svc.other (id int primary key)")
    conn.execute(
        "create or replace function svc.hostile() returns void language plpgsql as"
        f" $h$ {CANCELS} $h$".encode()
    )
    conn.execute("select set_config('auditdb.context', %s, false)", (context,))
    before = state(conn)
    with pytest.raises(pg.QueryCanceled):
        conn.execute(call.encode())
    assert left(before, state(conn)) == {}


CONTEXT = '{"actor_id": "7", "source": "web"}'


@attack(GROUP, ROWS["settings"], outcome="B")
@pytest.mark.parametrize("road", ["a function", "a domain", "a cast of an enum to json"])
def test_code_of_a_mapping_does_not_choose_who_acts(db: Database, road: str) -> None:
    """Neither of this event nor of those that follow it in the transaction."""
    serve(db, "settings", ROADS_TO_CAPTURE[road])
    conn = login(db, "app")
    with conn.transaction():
        conn.execute("select set_config('auditdb.context', %s, true)", (CONTEXT,))
        for statement in WRITES:
            conn.execute(statement.encode())
        conn.execute("update public.membership set role = 'ADMIN' where user_id = 2")
        now = conn.execute("select current_setting('auditdb.context') as c").fetchone()
        assert now == {"c": CONTEXT}
    events = db.events("db_user = 'app'")
    assert [event["actor_id"] for event in events] == ["7"] * 4


MINE = "prepare mine (int) as select 'mine as ' || current_user || $1 as v"
REPLACES = body("deallocate mine", "prepare mine (int) as select 'evil as ' || current_user as v")
GIVES_UP = body("select pg_catalog.pg_advisory_unlock_all()")
LOCKS = (
    "select pg_advisory_lock(667010), pg_advisory_lock_shared(-667011),"
    " pg_advisory_lock(667, -12), pg_advisory_lock_shared(-667, 13)"
)
FOLDED = """
create function svc.hostile_folded(t text) returns text immutable language plpgsql as $f$
begin
    perform svc.hostile();
    return t;
end $f$;
create table svc.folded (id int primary key, organization_id int);
select audit.attach('svc.folded', 'folded', subject => $$svc.hostile_folded('x')$$);
"""


def meet(db: Database, hostile: str, road: Road | None) -> None:
    """Let the service build its code, and commit."""
    admin = login(db, None)
    admin.execute(SERVICES)
    build(admin, hostile, road)
    look(admin)
    admin.execute("grant insert on svc.thing to public")


def write_thing(conn: psycopg.Connection[Any]) -> None:
    conn.execute("insert into svc.thing values (1, 1, 'fine', '(1,2)', 'a')")


def ask_doctor(conn: psycopg.Connection[Any]) -> None:
    conn.execute("select * from audit.doctor()")


@attack(GROUP, REPLACED, outcome="B")
@pytest.mark.parametrize("context", ["", "no json"])
@pytest.mark.parametrize("road", ROADS_TO_CAPTURE)
def test_a_statement_that_a_write_replaced_is_gone(db: Database, road: str, context: str) -> None:
    meet(db, REPLACES, ROADS_TO_CAPTURE[road])
    conn = login(db, "app")
    conn.execute("select set_config('auditdb.context', %s, false)", (context,))
    conn.execute(MINE)
    with heard(conn) as said:
        write_thing(conn)
    if not said and "cast" in road:  # By the fast path nothing is cast.
        assert conn.execute("execute mine (1)").fetchone() == {"v": "mine as app1"}
        return
    assert whom(said) == {"audit_mapper"}
    with pytest.raises(pg.InvalidSqlStatementName):
        conn.execute("execute mine (1)")


@attack(GROUP, REPLACED, outcome="B")
def test_a_statement_that_is_replaced_within_one_message_is_gone(db: Database) -> None:
    """When it was prepared is then no difference."""
    meet(db, REPLACES, ROADS_TO_CAPTURE["a function"])
    conn = login(db, "app")
    conn.execute(f"{MINE}; insert into svc.thing values (1, 1, 'fine', '(1,2)', 'a')".encode())
    with pytest.raises(pg.InvalidSqlStatementName):
        conn.execute("execute mine (1)")


@attack(GROUP, REPLACED, outcome="B")
@pytest.mark.parametrize("folded", [False, True])
def test_a_statement_that_doctor_replaced_is_gone(db: Database, folded: bool) -> None:
    meet(db, REPLACES, None)
    conn = login(db, "other_owner")
    conn.execute(
        FOLDED
        if folded
        else "create table svc.member (id int primary key, organization_id int, user_id int,"
        " role text); select audit.attach('svc.member', 'membership',"
        " admin => $$svc.hostile_constant('x') and svc.hostile_true(r.id)$$)"
    )
    conn = login(db, None)
    conn.execute(MINE)
    with heard(conn) as said:
        ask_doctor(conn)
    assert whom(said) == {"audit_mapper"}
    with pytest.raises(pg.InvalidSqlStatementName):
        conn.execute("execute mine (1)")


@attack(GROUP, REPLACED, outcome="B")
def test_statements_of_any_name_and_kind_that_nobody_touched_stay(db: Database) -> None:
    meet(db, REPLACES, ROADS_TO_CAPTURE["a function"])
    conn = login(db, "app")
    names = ["mine, 12", "é\n'\"", "statement,1", "x" * 63]
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        conn.execute(f"prepare {quoted} (int[], text) as select $1, $2, '{{,}}'".encode())
    write_thing(conn)
    found = conn.execute("select name from pg_prepared_statements").fetchall()
    assert {row["name"] for row in found} == set(names)


@attack(GROUP, REPLACED, outcome="B")
def test_statements_of_any_name_that_code_prepared_go(db: Database) -> None:
    prepares = body('prepare "ours, 12" as select 1', 'prepare "é\n""" as select 1')
    meet(db, prepares, ROADS_TO_CAPTURE["a function"])
    conn = login(db, "app")
    write_thing(conn)
    assert conn.execute("select name from pg_prepared_statements").fetchall() == []


@attack(GROUP, REPLACED, outcome="B", twin=True)
def test_a_naive_log_lets_its_mappings_replace_statements(db: Database) -> None:
    admin = login(db, None)
    admin.execute(naive.SETUP)
    admin.execute(SERVICES)
    build(admin, REPLACES)
    admin.execute(NAIVE)
    conn = login(db, None)
    conn.execute(MINE)
    conn.execute("insert into svc.thing values (1, 1)")
    assert conn.execute("execute mine (1)").fetchone() == {"v": "evil as postgres"}


@attack(GROUP, GIVEN_UP, outcome="B")
@pytest.mark.parametrize(
    "road", ["a function", "a domain", "a restrictive policy of a lookup table", None]
)
def test_a_lock_that_code_gave_up_is_taken_again(db: Database, road: str | None) -> None:
    meet(db, GIVES_UP, ROADS_TO_CAPTURE[road] if road else None)
    if not road:
        login(db, "other_owner").execute(FOLDED)
    conn = login(db, "app" if road else None)
    conn.execute(LOCKS)
    before = state(conn)
    assert len(before["locks"]) == 4
    with heard(conn) as said:
        (write_thing if road else ask_doctor)(conn)
    assert left(before, state(conn)) == {}
    assert sum("which was taken again" in line for line in said) >= 4
    # Once: the session gives it back as ever.
    assert conn.execute("select pg_advisory_unlock(667010) as v").fetchone() == {"v": True}
    assert 667010 not in state(conn)["locks"]


@attack(GROUP, GIVEN_UP, outcome="B")
def test_a_lock_that_another_got_hold_of_is_named(db: Database) -> None:
    conn, other = login(db, None), login(db, None)
    held = conn.execute(
        "select pg_advisory_lock(667010), audit_private.held_locks() as v"
    ).fetchone()
    conn.execute("select pg_advisory_unlock_all()")
    other.execute("select pg_advisory_lock(667010)")
    assert held is not None
    with heard(conn) as said:
        conn.execute("select audit_private.release_locks(%s)", (held["v"],))
    assert [line for line in said if "which another session holds now" in line]


@attack(GROUP, GIVEN_UP, outcome="B", twin=True)
def test_a_naive_log_lets_its_mappings_give_up_locks(db: Database) -> None:
    admin = login(db, None)
    admin.execute(naive.SETUP)
    admin.execute(SERVICES)
    build(admin, GIVES_UP)
    admin.execute(NAIVE)
    conn = login(db, None)
    conn.execute(LOCKS)
    conn.execute("insert into svc.thing values (1, 1)")
    assert state(conn)["locks"] == []


UNSEEN = (
    "One hold more of an advisory lock that the session holds, or a cursor of its that is closed"
)
ADMITTED = "How often the session holds a lock cannot be known."
HIDDEN = {
    "a hold": ("select pg_catalog.pg_advisory_lock(667010)", "select pg_advisory_lock(667010)"),
    "a cursor": ("close ours", "declare ours cursor with hold for select 1"),
}


def remains(conn: psycopg.Connection[Any]) -> Any:
    """Return whether lock and cursor are there after one hold was given back."""
    with contextlib.suppress(psycopg.Error):
        conn.execute("select pg_advisory_unlock(667010)")
    return conn.execute(
        "select (select count(*) from pg_locks where locktype = 'advisory') as locks,"
        " (select count(*) from pg_cursors where name = 'ours') as cursors"
    ).fetchone()


@attack(GROUP, UNSEEN, outcome="U", documented=ADMITTED)
@pytest.mark.parametrize(("does", "before"), HIDDEN.values(), ids=HIDDEN)
def test_a_hold_and_a_cursor_are_not_put_back(db: Database, does: str, before: str) -> None:
    meet(db, body(does), ROADS_TO_CAPTURE["a function"])
    conn = login(db, "app")
    conn.execute(before.encode())
    write_thing(conn)
    assert remains(conn) == {"locks": int("lock" in does), "cursors": 0}


@attack(GROUP, UNSEEN, outcome="U", documented=ADMITTED, twin=True)
@pytest.mark.parametrize(("does", "before"), HIDDEN.values(), ids=HIDDEN)
def test_nor_are_they_by_a_naive_log(db: Database, does: str, before: str) -> None:
    admin = login(db, None)
    admin.execute(naive.SETUP)
    admin.execute(SERVICES)
    build(admin, body(does))
    admin.execute(NAIVE)
    conn = login(db, None)
    conn.execute(before.encode())
    conn.execute("insert into svc.thing values (1, 1)")
    assert remains(conn) == {"locks": int("lock" in does), "cursors": 0}


LATER_CODE = {
    "a cast of an enum": """
create type svc.role as enum ('ADMIN', 'OWNER', 'MEMBER');
create table svc.member (organization_id int, user_id int, role svc.role);
insert into svc.member values (55, 5, 'ADMIN');
select audit.attach('svc.member', 'membership', admin => 'lower(r.role::text) = ''admin''');
create function svc.role_text(svc.role) returns text language plpgsql as $f$
begin
    perform svc.hostile();
    return 'ADMIN';
end $f$;
create cast (svc.role as text) with function svc.role_text(svc.role) as implicit;
""",
    "a policy of the table": """
create table svc.member (organization_id int, user_id int, role text);
insert into svc.member values (55, 5, 'ADMIN');
select audit.attach('svc.member', 'membership');
alter table svc.member enable row level security;
create policy later on svc.member using (svc.hostile_true(user_id));
""",
}


@attack(GROUP, ROWS["locks"], outcome="B")
@pytest.mark.parametrize("what", ["locks", "prepared"])
@pytest.mark.parametrize("code", LATER_CODE)
def test_code_that_a_rule_for_admins_meets_later_leaves_nothing(
    db: Database, code: str, what: str
) -> None:
    meet(db, BODIES[what], None)
    login(db, "other_owner").execute(LATER_CODE[code].encode())
    token = sign(db.key, "5", "55")
    conn = login(db, "app_reader")
    before = state(conn)
    with heard(conn) as said, conn.transaction():
        conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
        conn.execute("select count(*) from audit.event")
    assert whom(said) == {"audit_mapper"}
    assert left(before, state(conn)) == {}


NAIVE = """
create trigger mapped after insert on svc.thing for each row execute function naive.mapped();
insert into naive.mapping values
    ('svc.thing', 'svc.hostile_text(r.organization_id)', 'svc.hostile_true(r.id)');
"""


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=attack(GROUP, row, outcome="B", twin=True))
        for what, row in ROWS.items()
    ],
)
def test_a_naive_log_leaves_what_its_mappings_leave(db: Database, what: str) -> None:
    admin = login(db, None)
    admin.execute(naive.SETUP)
    admin.execute(SERVICES)
    build(admin, BODIES[what])
    admin.execute(LATER)
    admin.execute(NAIVE)
    conn = login(db, None)
    before = state(conn)
    with heard(conn) as said, conn.transaction():
        conn.execute("insert into svc.thing values (1, 1)")
        conn.execute("select naive.doctor()")
    assert whom(said)
    loot = admin.execute("select count(*) as n from svc.loot").fetchone()
    assert left(before, state(conn)) or loot != {"n": 0}
    if what == "deferred":
        assert "postgres" in whom(said)
