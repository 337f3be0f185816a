"""Misfiled events: a change that its own organisation is not told of, or another one is."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.rows import dict_row

from tests.attacks.conftest import Arena, act, count, look, lost, newest, unnoticed
from tests.attacks.report import attack
from tests.conftest import Database
from tests.viewer import sign

GROUP = "Misfiled events"
FAILS = (
    "The application makes the lookup of an organisation fail and names another one in its context"
)
STACK = "Stack depth on demand, so that only the last rung is left"
MOVES = "A row moves to another organisation and back"
OTHER = '{"actor_id": "2", "organization_id": "2"}'


@pytest.fixture
def steps(db: Database) -> Database:
    """A workflow of organisation 1 with a step."""
    conn = db.connect("app")
    conn.execute("insert into workflow (id, organization_id, name) values (5, 1, 'pay')")
    conn.execute("insert into workflow_step (id, workflow_id, position) values (5, 5, 1)")
    return db


HARM = 'update workflow_step set config = \'{"iban": "evil"}\' where id = 5'
SHORT = {
    "lock_timeout": "set local lock_timeout = '20ms'",
    "a lock_timeout of a millisecond": "set local lock_timeout = '1ms'",
}


@attack(GROUP, FAILS, outcome="S")
@pytest.mark.parametrize("how", SHORT)
@pytest.mark.parametrize("context", ["", OTHER])
def test_a_lookup_that_the_application_locks_out_is_not_filed_with_another(
    steps: Database, how: str, context: str
) -> None:
    blocker, app = steps.connect(), steps.connect("app")
    blocker.execute("begin")
    blocker.execute("lock table workflow in access exclusive mode")
    with app.transaction():
        app.execute(SHORT[how].encode())
        app.execute("select set_config('auditdb.context', %s, true)", (context,))
        app.execute(HARM)
    blocker.execute("rollback")
    event = steps.events("new_values ? 'config' and old_values is not null")[0]
    assert event["organization_id"] is None
    assert "organization" in lost(event)
    assert event["new_values"] == {"config": {"iban": "evil"}}
    assert event["target_id"] == "5"


@attack(GROUP, FAILS, outcome="S")
@pytest.mark.parametrize("setting", ["0", "1h", "1ms"])
def test_a_lookup_waits_as_long_as_the_application_would_or_two_seconds(
    steps: Database, setting: str
) -> None:
    blocker, app, watch = steps.connect(), steps.connect("app"), steps.connect()
    blocker.execute("begin")
    blocker.execute("lock table workflow in access exclusive mode")

    def write() -> None:
        with app.transaction():
            app.execute("select set_config('lock_timeout', %s, true)", (setting,))
            app.execute("select set_config('auditdb.context', %s, true)", (OTHER,))
            app.execute(HARM)

    writer = threading.Thread(target=write)
    writer.start()
    while not watch.execute("select from pg_locks where not granted").fetchall():
        assert writer.is_alive(), "it did not wait"
    if setting == "1ms":
        time.sleep(0.5)  # Longer than that, and shorter than 2 s.
    blocker.execute("rollback")
    writer.join(60)
    event = steps.events("new_values ? 'config' and old_values is not null")[0]
    assert (event["organization_id"], lost(event)) == ("1", [])


@attack(GROUP, FAILS, outcome="S")
@pytest.mark.parametrize(
    "how",
    [
        "alter table workflow rename column organization_id to tenant",
        "revoke select on workflow from audit_mapper;"
        " revoke select (id, organization_id) on workflow from audit_mapper",
        "revoke usage on schema public from audit_mapper, public;"
        " grant usage on schema public to app",
        "alter table workflow enable row level security; create policy all_of_it on workflow"
        " using (true); create policy none on workflow"
        " as restrictive for select to audit_mapper using (1 / (id - id) = 1)",
        "drop table workflow cascade",
        "alter table workflow rename to was; create view workflow as"
        " select id, name, (1 / (id - id))::int as organization_id from was",
    ],
)
def test_a_lookup_that_fails_for_good_takes_nothing_from_the_context(
    steps: Database, how: str
) -> None:
    admin, app = steps.connect(), steps.connect("app")
    for statement in how.split("; "):
        admin.execute(statement.encode())
    with app.transaction():
        app.execute("select set_config('auditdb.context', %s, true)", (OTHER,))
        app.execute(HARM)
    event = steps.events("new_values ? 'config' and old_values is not null")[0]
    assert event["organization_id"] is None, event
    assert "organization" in lost(event), event


@attack(GROUP, FAILS, outcome="S")
@pytest.mark.parametrize(
    ("expression", "organization", "is_lost"),
    [
        ("case when r.v = 'a' then (r.v || 'bc')::int end::text", None, True),
        ("(1 / (r.id - r.id))::text", None, True),
        ("repeat('x', 300)", None, True),
        ("nullif(r.v, 'a')", "2", False),  # the mapping itself says that the row has none
        ("(select t.id::text from public.organization as t where t.id = -1)", "2", False),
    ],
)
def test_the_contexts_organisation_is_taken_only_where_the_row_has_none(
    arena: Arena, expression: str, organization: str | None, is_lost: bool
) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute("create table playground.odd (id int primary key, v text)")
        conn.execute("grant all on playground.odd to app")
        conn.execute(
            "select audit.attach('playground.odd', 'odd', organization => %s)", (expression,)
        )
        act(conn, "app")
        conn.execute("select set_config('auditdb.context', %s, true)", (OTHER,))
        for statement in ("insert into {} values (1, 'a')", "update {} set id = 2",
                          "delete from {}"):  # fmt: skip
            conn.execute(statement.format("playground.odd").encode())
        for event in newest(conn, 3):
            assert event["organization_id"] == organization, event
            assert ("organization" in lost(event)) == is_lost, event


@attack(GROUP, FAILS, outcome="S", twin=True)
def test_a_naive_log_files_what_it_cannot_look_up_with_whom_the_context_names(
    arena: Arena,
) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        for statement in (
            "create table naive.step (id int primary key, workflow_id int)",
            "create function naive.lookup() returns trigger language plpgsql as $$ declare o text;"
            " begin begin o := (select 1 / 0); exception when others then null; end;"
            " insert into naive.log (action, organization_id) values ('x',"
            " coalesce(o, current_setting('naive.organization', true))); return null; end $$",
            "create trigger lookup after insert on naive.step for each row"
            " execute function naive.lookup()",
            "select set_config('naive.organization', '2', true)",
            "insert into naive.step values (1, 1)",
        ):
            conn.execute(statement.encode())
        row = conn.execute(
            "select organization_id as o from naive.log order by id desc limit 1"
        ).fetchone()
        assert row == {"o": "2"}


LATE = (
    "An event without organisation is filed with one of the attacker's choice, by what is looked "
    "at at the commit"
)
ASIDE = [
    "insert into audit_private.unfiled values ({id}, '{at}', '{late}', '{event}')",
    "update audit_private.unfiled set event_id = {id}",
    "delete from audit_private.unfiled",
    "select audit_private.look_again(row({id}, '{at}', '{late}', '{event}', null, null, null,"
    " null, null))",
    "select audit_private.put_aside('{late}', '{at}', 'workflow.created', '1', 'user', null,"
    " 'workflow', '9', null, 'web', 'public.workflow', null, '{{}}', null)",
    "select audit_private.append('workflow.created', null, 'workflow', '1', null, 'public.x',"
    " null, null, null, null, '{late}')",
    "create temporary table unfiled (event_id bigint, occurred_at timestamptz, late jsonb);"
    " create trigger complete_event after insert on unfiled for each row"
    " execute function audit_private.complete_event()",
    """select set_config('auditdb.context',
        '{{"actor_id": "1", "details": {{"completes": {id}}}}}', true);
    delete from public.workflow""",
]


@attack(GROUP, LATE, outcome="B")
@pytest.mark.parametrize("how", ASIDE)
@pytest.mark.parametrize("role", ["app", "app_owner", "app_auditor", "app_reader", "audit_mapper"])
def test_nobody_puts_an_event_aside_to_have_it_filed_elsewhere(
    db: Database, role: str, how: str
) -> None:
    owner, superuser = db.connect("app_owner"), db.connect()
    owner.execute(
        "select audit.attach('workflow', 'workflow', organization =>"
        " '(select min(o.id) from public.organization as o where o.id = -r.id)')"
    )
    db.connect("app").execute(
        "insert into workflow (id, organization_id, name) values (-2, 1, 'x')"
    )
    db.connect("app").execute("insert into workflow (id, organization_id, name) values (9, 1, 'x')")
    event = db.events("target_id = '9'")[0]
    row = superuser.execute("select id from audit_private.attachment where name ~ 'workflow$'")
    late = {"id": row.fetchone()[0], "inputs": ["-2"]}  # type: ignore[index]
    # What the trigger would write, if it were let.
    said = {k: event[k] for k in ("action", "actor_type", "db_user", "source", "captured_from")}
    statement = how.format(
        id=event["id"], at=event["occurred_at"], late=json.dumps(late), event=json.dumps(said)
    )
    superuser.execute("grant pg_write_all_data, pg_read_all_data to app, app_owner")
    try:
        with contextlib.suppress(pg.InsufficientPrivilege), superuser.transaction():
            superuser.execute(f"set local role {role}".encode())
            superuser.execute(statement.encode())
    finally:
        superuser.execute("revoke pg_write_all_data, pg_read_all_data from app, app_owner")
    assert db.events(f"(details ->> 'completes')::bigint = {event['id']}") == []


@attack(GROUP, LATE, outcome="B")
@pytest.mark.parametrize("change", ["set late = '{}'", "set event = event || '{\"action\": \"x\"}'",
                                    "set is_first = true", ""])  # fmt: skip
def test_what_waits_for_the_commit_is_hidden_from_its_own_transaction(
    db: Database, change: str
) -> None:
    db.connect("app_owner").execute(
        "select audit.attach('workflow', 'workflow', organization =>"
        " '(select min(o.id) from public.organization as o where o.id = -r.id)')"
    )
    superuser = db.connect()
    superuser.execute("grant pg_write_all_data, pg_read_all_data to app")
    try:
        with psycopg.connect(db.conninfo("app")) as conn:
            conn.execute("insert into workflow (id, organization_id, name) values (-9, 1, 'x')")
            conn.execute("insert into organization (id, name) values (9, 'n')")
            verb = "update" if change else "delete from"
            for statement in (
                f"{verb} audit_private.unfiled {change}", "select from audit_private.unfiled"
            ):  # fmt: skip
                with pytest.raises(pg.InsufficientPrivilege), conn.transaction():
                    conn.execute(statement.encode())
    finally:
        superuser.execute("revoke pg_write_all_data, pg_read_all_data from app")
    assert [e["organization_id"] for e in db.events("target_id = '-9'")] == [None, "9"]


@attack(GROUP, LATE, outcome="B", twin=True)
def test_a_naive_log_files_what_somebody_puts_aside(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        for statement in (
            "create table naive.aside (id bigint, organization_id text)",
            "create function naive.complete() returns trigger language plpgsql as $$ begin"
            " insert into naive.log (action, organization_id)"
            " select action, new.organization_id from naive.log where id = new.id;"
            " return null; end $$",
            "create constraint trigger complete after insert on naive.aside"
            " deferrable initially deferred for each row execute function naive.complete()",
            "insert into naive.log (action, organization_id) values ('x', null)",
            "insert into naive.aside select max(id), '2' from naive.log",
            "set constraints all immediate",
        ):
            conn.execute(statement.encode())
        row = conn.execute(
            "select organization_id as o from naive.log order by id desc limit 1"
        ).fetchone()
        assert row == {"o": "2"}


WRITES = {
    "child": 'update workflow_step set config = \'{"iban": "evil"}\' where id = 5',
    "plain": "update workflow set name = 'evil' where id = 5",
    "membership": "update membership set role = 'ADMIN' where user_id = 2",
    "user": "update app_user set email = 'evil@x.test' where id = 2",
    "new child": "insert into workflow_step (id, workflow_id, position) values (6, 5, 1)",
    "child gone": "delete from workflow_step where id = 5",
}
TARGETS = {"plain": "5", "membership": "1,2", "user": "2"}


DIVE = """
create function dive(depth int, statement text) returns void language plpgsql as $$
begin
    if depth > 0 then
        perform dive(depth - 1, statement);
    else
        execute statement;
    end if;
end $$
"""


def dive(
    conn: psycopg.Connection[Any], levels: int, depth: int, write: str
) -> dict[str, Any] | None:
    """Write from so many levels down a stack of so many kilobytes; return the event, if any."""
    look(conn)
    conn.execute(f"set max_stack_depth = '{depth}kB'".encode())
    act(conn, "app")
    with contextlib.suppress(pg.StatementTooComplex), conn.transaction(force_rollback=True):
        conn.execute("select set_config('auditdb.context', %s, true)", (OTHER,))
        conn.execute("select dive(%s, %s)", (levels, write))
        look(conn)
        conn.execute("set local max_stack_depth = '2MB'")
        events = newest(conn, 2)
        assert len(events) == 1, f"{len(events)} events at {depth} kB"
        return events[0]
    return None


@attack(GROUP, STACK, outcome="S")
@pytest.mark.parametrize("table", WRITES)
def test_a_full_stack_fails_both_or_keeps_target_and_organization(
    steps: Database, table: str
) -> None:
    """An application dives until little is left; here it is made shallow."""
    conn = steps.connect(row_factory=dict_row, prepare_threshold=None)
    conn.execute(DIVE)
    first = next(n for n in range(0, 1000, 4) if dive(conn, n, 100, WRITES[table]) is None)
    # A stack is measured in kilobytes, and what decides may be less: a level more moves it.
    for levels in range(first, first + 6):
        refused = complete = 0
        for depth in range(100, 400):
            event = dive(conn, levels, depth, WRITES[table])
            if event is None:
                refused += 1
                continue
            assert "row" not in lost(event), (levels, depth, event)
            complete = complete + 1 if not (event["details"] or {}).get("degraded") else 0
            if table in TARGETS:
                assert event["organization_id"] == "1", (levels, depth, event)
                assert event["target_id"] == TARGETS[table], (levels, depth, event)
            else:
                assert event["target_id"] in ("5", "6"), (levels, depth, event)
                assert event["organization_id"] == "1" or (
                    event["organization_id"] is None and "organization" in lost(event)
                ), (levels, depth, event)
            if complete == 5:
                break
        assert refused and complete == 5, (levels, refused, complete)


@attack(GROUP, STACK, outcome="S", twin=True)
def test_a_naive_log_that_catches_all_loses_the_row_to_a_full_stack(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        for statement in (
            "create function naive.deep(i int) returns text language plpgsql as"
            " 'begin return naive.deep(i + 1); end'",
            "create function naive.image() returns trigger language plpgsql as $$ declare o text;"
            " begin begin o := naive.deep(0); exception when others then null; end;"
            " insert into naive.log (action, organization_id) values ('x', o); return null; end $$",
            "create trigger image after update on naive.membership for each row"
            " execute function naive.image()",
            "update naive.membership set role = 'x' where user_id = 1",
        ):
            conn.execute(statement.encode())
        row = conn.execute(
            "select organization_id as o from naive.log where action = 'x'"
        ).fetchone()
        assert row == {"o": None}


MOVED = {
    "a table of plain columns": (
        "workflow", "insert into workflow (id, organization_id, name) values (50, 1, 'pay')",
        "update workflow set organization_id = {} where id = 50", "50", "workflow.modified",
    ),
    "a membership": (
        "membership", "", "update membership set organization_id = {} where user_id = 2",
        None, "membership.updated",
    ),
    "a user": (
        "app_user", "", "update app_user set organization_id = {} where id = 2", "2",
        "user.updated",
    ),
    "an api key": (
        "api_key", "insert into api_key (organization_id, name, key_hash) values (1, 'k', 'h')",
        "update api_key set organization_id = {}", None, "api_key.updated",
    ),
}  # fmt: skip


@attack(GROUP, MOVES, outcome="S")
@pytest.mark.parametrize("what", MOVED)
def test_a_row_that_moves_is_told_to_both_organizations(arena: Arena, what: str) -> None:
    table, setup, move, target, action = MOVED[what]
    with arena.trial() as conn:
        conn.execute("delete from membership where user_id = 2 and organization_id = 2")
        act(conn, "app")
        if setup:
            conn.execute(setup.encode())
        for origin, to in (("1", "2"), ("2", "1")):
            before = count(conn)
            act(conn, "app")
            conn.execute(move.format(to).encode())
            assert count(conn) == before + 2, f"{origin} or {to} is not told"
            events = newest(conn, 2)
            assert sorted(str(e["organization_id"]) for e in events) == ["1", "2"]
            assert len({e["transaction_id"] for e in events}) == 1
            assert {e["action"] for e in events} == {action}
            if target:
                assert {e["target_id"] for e in events} == {target}
            for event in events:
                assert (event["details"] or {}).get("moved") == {"from": origin, "to": to}, event
                assert event["captured_from"] == f"public.{table}"
                assert (event["old_values"], event["new_values"]) == (
                    {"organization_id": int(origin)}, {"organization_id": int(to)})  # fmt: skip


@attack(GROUP, MOVES, outcome="S")
def test_a_child_moved_to_the_parent_of_another_organization_is_told_to_both(
    arena: Arena,
) -> None:
    with arena.trial() as conn:
        act(conn, "app")
        conn.execute("insert into workflow (id, organization_id, name) values (61, 1, 'a'),"
                     " (62, 2, 'b')")  # fmt: skip
        conn.execute("insert into workflow_step (id, workflow_id, position) values (6, 61, 1)")
        before = count(conn)
        act(conn, "app")
        conn.execute("update workflow_step set workflow_id = 62 where id = 6")
        assert count(conn) == before + 2
        events = newest(conn, 2)
        assert sorted(str(e["organization_id"]) for e in events) == ["1", "2"]
        for event in events:
            assert (event["details"] or {}).get("moved") == {"from": "1", "to": "2"}, event


@attack(GROUP, MOVES, outcome="S")
def test_admins_of_both_organizations_read_the_move_and_nothing_else_of_each_other(
    arena: Arena,
) -> None:
    with arena.trial() as conn:
        act(conn, "app")
        conn.execute("insert into workflow (id, organization_id, name) values (70, 1, 'pay')")
        conn.execute("update workflow set organization_id = 2 where id = 70")
        conn.execute('update workflow set config = \'{"iban": "evil"}\' where id = 70')
        conn.execute("update workflow set organization_id = 1 where id = 70")
        found = {}
        for user, organization in (("1", "1"), ("3", "2")):
            look(conn)
            token = sign(arena.key, user, organization)
            conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
            act(conn, "app_reader")
            found[organization] = [
                row["new_values"]
                for row in conn.execute(
                    "select new_values from audit.event where target_id = '70' order by id"
                ).fetchall()
            ]
        moves = [{"organization_id": 2}, {"organization_id": 1}]
        assert [v for v in found["1"] if v in moves] == moves, found["1"]
        assert [v for v in found["2"] if v in moves] == moves, found["2"]
        assert {"config": {"iban": "evil"}} in found["2"]
        assert {"config": {"iban": "evil"}} not in found["1"]


@attack(GROUP, MOVES, outcome="S")
@pytest.mark.parametrize(
    ("statement", "events", "moved"),
    [
        ("update {} set organization_id = organization_id", 0, None),
        ("update {} set v = 'x'", 1, None),
        # Nobody was told before, or nobody is now: one organisation alone is concerned.
        ("update {} set organization_id = null", 1, None),
        ("update {} set organization_id = 2, v = 'x'", 2, {"from": "1", "to": "2"}),
        ("update {} set organization_id = 2, v = 'x', id = 9", 2, {"from": "1", "to": "2"}),
        ("insert into {} values (1, 2, 'x') on conflict (id) do update set organization_id = 2", 2,
         {"from": "1", "to": "2"}),
        ("merge into {} as t using (values (1)) as s (i) on t.id = s.i when matched then"
         " update set organization_id = 2", 2, {"from": "1", "to": "2"}),
    ],
)  # fmt: skip
def test_only_a_move_between_two_organizations_is_one(
    arena: Arena, statement: str, events: int, moved: dict[str, str] | None
) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute("create table playground.mv (id int primary key, organization_id int, v text)")
        conn.execute("grant all on playground.mv to app")
        conn.execute("select audit.attach('playground.mv', 'thing')")
        act(conn, "app")
        conn.execute("insert into playground.mv values (1, 1, 'a')")
        before = count(conn)
        act(conn, "app")
        conn.execute(statement.format("playground.mv").encode())
        assert count(conn) == before + events
        for event in newest(conn, events) if events else []:
            assert (event["details"] or {}).get("moved") == moved


@attack(GROUP, MOVES, outcome="S", twin=True)
def test_a_naive_log_tells_a_move_to_one_organization(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        conn.execute("delete from naive.log")
        conn.execute("update naive.membership set organization_id = 2 where user_id = 2")
        rows = conn.execute("select organization_id as o from naive.log").fetchall()
        assert rows == [{"o": "2"}]


LOOKED_UP = "A stranger's table under the name of one that a mapping looks up, renamed or dropped"


@attack(GROUP, LOOKED_UP, outcome="D")
@pytest.mark.parametrize("how", ["rename to team_2", "set schema playground"])
def test_a_stranger_who_takes_the_name_of_a_lookup_is_found(arena: Arena, how: str) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        for statement in (
            "create table public.team (id int primary key, org int)",
            "create table public.doc (id int primary key, team_id int)",
            "select audit.attach('public.doc', 'doc', organization =>"
            " 'select t.org from public.team as t where t.id = r.team_id')",
            f"alter table public.team {how}",
        ):
            conn.execute(statement.encode())
        look(conn)
        conn.execute("grant create on schema public to stranger")
        act(conn, "stranger")
        for statement in (
            "create table public.team as select 1 as id, 2 as org",
            "grant select on public.team to public",
        ):
            conn.execute(statement.encode())
        act(conn, "app_owner")
        conn.execute("insert into public.doc values (1, 1)")
        assert newest(conn)[0]["organization_id"] == "2"
        found = conn.execute(
            "select severity, problem from audit.doctor() where object = 'public.doc'"
        ).fetchall()
        assert {
            "severity": "critical",
            "problem": "looks up public.team, which belongs to stranger, and belonged to app_owner",
        } in found


@attack(GROUP, LOOKED_UP, outcome="D", twin=True)
def test_a_naive_doctor_does_not_look_whose_a_lookup_is(arena: Arena) -> None:
    with arena.trial() as conn, unnoticed(conn):
        act(conn, "naive_app")
        conn.execute("create table playground.team as select 1 as id, 1 as org")
        conn.execute(
            "insert into naive.mapping values ('naive.membership',"
            " '(select t.org from playground.team as t where t.id = 1)')"
        )
        conn.execute("alter table playground.team rename to team_2")
        act(conn, "stranger")
        conn.execute("create table playground.team as select 1 as id, 2 as org")
        conn.execute("grant select on playground.team to public")
        act(conn, "naive_app")
        assert conn.execute("select naive.doctor()").fetchall() == []
