"""Rights of stored text: an operator's mapping runs as audit_mapper, and never as whoever comes.

A second service, an operator of its own tables, tries to become somebody else through what it
stores: the owner of the log, another operator, an auditor, a superuser.
"""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql

from auditdb.operate import doctor
from tests.attacks.conftest import Arena, act, count, look, newest
from tests.attacks.hostile import (
    ROADS_TO_CAPTURE,
    Road,
    build,
    heard,
    mapper_functions,
    whom,
)
from tests.attacks.report import attack
from tests.conftest import Database
from tests.viewer import sign

GROUP = "Rights of stored text"
NOBODY_ELSE = {"audit_mapper"}

# As audit_mapper it opens every function of that role, as anyone else it says what it may read.
CLIMB = """
declare
    _function regprocedure;
begin
    raise notice 'ran as %', current_user;
    if current_user = 'audit_mapper' then
        for _function in
            select oid::regprocedure from pg_catalog.pg_proc
            where proowner = 'audit_mapper'::regrole
        loop
            begin
                execute pg_catalog.format('alter function %s <how>', _function);
            exception when others then
                raise notice 'could not: %', sqlerrm;
            end;
        end loop;
    end if;
    begin
        perform secret from audit_private.signing_key;
        raise notice 'read the keys as %', current_user;
    exception when others then
        null;
    end;
end
"""
HOW = {
    "invoker": "security invoker",
    "invoker with a path": "security invoker set search_path = svc, pg_catalog",
    "invoker without settings": "security invoker reset all",
}
SHADOWS = """
create function svc.is_jsonb(pg_catalog.jsonb) returns boolean language plpgsql as $f$
begin
    perform svc.hostile();
    return true;
end $f$;
create domain svc.jsonb as pg_catalog.jsonb check (svc.is_jsonb(value));
create function svc.is_text(pg_catalog.text) returns boolean language plpgsql as $f$
begin
    perform svc.hostile();
    return true;
end $f$;
create domain svc.text as pg_catalog.text check (svc.is_text(value));
create function svc.is_boolean(pg_catalog.bool) returns boolean language plpgsql as $f$
begin
    perform svc.hostile();
    return true;
end $f$;
create domain svc.boolean as pg_catalog.bool check (svc.is_boolean(value));
create function svc.same(pg_catalog.text, pg_catalog.text) returns boolean language plpgsql as $f$
begin
    perform svc.hostile();
    return true;
end $f$;
create operator svc.= (leftarg = pg_catalog.text, rightarg = pg_catalog.text, function = svc.same);
create function svc.unlike(pg_catalog.name, pg_catalog.name) returns boolean
language plpgsql as $f$
begin
    perform svc.hostile();
    return false;
end $f$;
create operator svc.<> (leftarg = pg_catalog.name, rightarg = pg_catalog.name,
    function = svc.unlike);
"""
WRITES = (
    "insert into svc.thing values (1, 1, 'fine', '(1,2)', 'a')",
    "update svc.thing set v = 'b', mood = 'sad', pair = '(3,4)'",
    "delete from svc.thing",
)


def write_twice(conn: psycopg.Connection[Any], *, context: str, by: str) -> list[str]:
    """Write the service's table twice, and return what its code said meanwhile."""
    look(conn)
    if by != "superuser":
        act(conn, by)
    conn.execute("select set_config('auditdb.context', %s, true)", (context,))
    with heard(conn) as said:
        for statement in WRITES + WRITES:
            conn.execute(statement.encode())
    return said


@attack(
    GROUP,
    "Code that audit_mapper meets makes that role's functions SECURITY INVOKER, or sets their path",
    outcome="B",
)
@pytest.mark.parametrize("road", ROADS_TO_CAPTURE)
@pytest.mark.parametrize("context", ["", "no json"])
@pytest.mark.parametrize("how", HOW)
def test_code_that_audit_mapper_meets_never_runs_as_anyone_else(
    arena: Arena, road: str, context: str, how: str
) -> None:
    assert arena.key
    with arena.trial() as conn:
        build(conn, CLIMB.replace("<how>", HOW[how]), ROADS_TO_CAPTURE[road])
        conn.execute(SHADOWS)
        before = count(conn)
        for by in ("app", "superuser"):
            said = write_twice(conn, context=context, by=by)
            assert whom(said) <= NOBODY_ELSE, f"written by {by}: {sorted(set(said))}"
            assert not [line for line in said if line.startswith("read the keys")]
        assert count(conn) == before + 2 * 2 * len(WRITES)


@attack(
    GROUP,
    "Code that audit_mapper meets makes that role's functions SECURITY INVOKER, or sets their path",
    outcome="B",
)
@pytest.mark.parametrize("how", HOW)
def test_a_function_of_audit_mapper_refuses_to_run_as_anyone_else(arena: Arena, how: str) -> None:
    """As the test before, with the alteration done for the attacker, and there to stay."""
    assert arena.key
    with arena.trial() as conn:
        build(conn, CLIMB.replace("<how>", "cost 1"), ROADS_TO_CAPTURE["a function"])
        conn.execute(SHADOWS)
        for name in mapper_functions(conn):
            conn.execute(f"alter function {name} {HOW[how]}".encode())
        before = count(conn)
        said = write_twice(conn, context="", by="app")
        assert whom(said) <= NOBODY_ELSE, sorted(set(said))
        assert count(conn) == before + 2 * len(WRITES)
        for event in newest(conn, 2 * len(WRITES)):
            assert event["details"].get("degraded"), event
        found = conn.execute(
            "select object, problem from audit.doctor()"
            " where severity = 'critical' and check_name = 'functions'"
        ).fetchall()
        assert found, "doctor finds no altered function"


@attack(
    GROUP,
    "Code that audit_mapper meets makes that role's functions SECURITY INVOKER, or sets their path",
    outcome="B",
    twin=True,
)
def test_a_naive_role_for_mappings_climbs_by_altering_its_own_function(arena: Arena) -> None:
    """Two roles, as here, and a function of the lesser one that does not look who runs it."""
    with arena.trial() as conn:
        build(conn, CLIMB.replace("<how>", "security invoker").replace("audit_mapper", "stranger"))
        look(conn)
        for statement in (
            "grant create, usage on schema naive to stranger",
            "create function naive.image(i int) returns text language plpgsql security definer"
            " set search_path = pg_catalog, pg_temp as 'begin return svc.hostile_text(i); end'",
            "alter function naive.image(int) owner to stranger",
            "create function naive.climb() returns trigger language plpgsql security definer"
            " set search_path = pg_catalog, pg_temp as $$ begin insert into naive.log (action,"
            " organization_id) values ('x', naive.image(new.organization_id)); return null; end $$",
            "alter function naive.climb() owner to naive_app",
            "grant insert on naive.membership to app",
            "create trigger climb after insert on naive.membership for each row"
            " execute function naive.climb()",
        ):
            conn.execute(statement.encode())
        act(conn, "app")
        with heard(conn) as said:
            for user in (7, 8):
                conn.execute("insert into naive.membership values (1, %s, 'x')", (user,))
    assert whom(said) == {"stranger", "naive_app"}


SAYS = "begin raise notice 'ran as %', current_user; end"


def attach_all(conn: psycopg.Connection[Any]) -> None:
    """Let the service attach a table with its code in each option, and a rule for admins."""
    act(conn, "other_owner")
    conn.execute("create table svc.member (id int primary key, organization_id int, user_id int,"
                 " role text, ended boolean)")  # fmt: skip
    conn.execute("insert into svc.member values (1, 1, 666, 'ADMIN', false)")
    conn.execute(
        "select audit.attach('svc.member', 'membership',"
        " organization => 'svc.hostile_text(r.organization_id)',"
        " subject => 'svc.hostile_text(r.user_id)', target_id => 'svc.hostile_inlined(r.id)',"
        " alive => 'svc.hostile_true(r.id)', role => 'svc.hostile_text(1)',"
        " admin => 'svc.hostile_constant(''x'') or svc.hostile_true(r.id)')"
    )


BY = ["other_owner", "app_owner", "oper", "app_auditor", "superuser"]
CALLS = {
    "doctor": "select * from audit.doctor()",
    "list_tables": "select * from audit.list_tables()",
    "list_partitions": "select * from audit.list_partitions()",
    "list_members": "select * from audit.list_members()",
    "reattach": "select audit.reattach('svc.member')",
    "attach again": "select audit.attach('svc.member', 'membership',"
    " organization => 'svc.hostile_text(r.organization_id)',"
    " subject => 'svc.hostile_text(r.user_id)')",
    "resolve_mapping": "select audit_private.resolve_mapping('svc.member', 'membership',"
    " mapping -> 'given')"
    " from audit_private.attachment where target = 'svc.member'::regclass",
    "attest": "select audit.attest('svc.member')",
    "maintain": "select audit.maintain()",
    "detach": "select audit.detach('svc.member')",
}


@attack(
    GROUP,
    "An operator stores a mapping that runs when another attaches, re-attaches or asks doctor",
    outcome="B",
)
@pytest.mark.parametrize("by", BY)
def test_no_call_runs_a_stored_mapping(arena: Arena, by: str) -> None:
    """Each call finds the mapping as it was stored, and nothing planned by the call before."""
    with arena.trial() as conn:
        build(conn, SAYS)
        with heard(conn) as said:
            attach_all(conn)
        assert not whom(said), f"attach ran it as {whom(said)}"
        for call, statement in CALLS.items():
            with conn.transaction(force_rollback=True):
                look(conn)
                conn.execute("discard plans")
                if by != "superuser":
                    act(conn, by)
                with heard(conn) as said, contextlib.suppress(psycopg.Error), conn.transaction():
                    conn.execute(statement.encode())
                # doctor tries a rule for admins, with the rights of audit_mapper alone.
                may = {"audit_mapper"} if call == "doctor" else set()
                assert whom(said) <= may, f"{call} by {by} ran it as {whom(said)}"


@attack(
    GROUP,
    "An operator stores a mapping that runs when another attaches, re-attaches or asks doctor",
    outcome="B",
)
@pytest.mark.parametrize("by", ["other_owner", "app_owner", "superuser"])
def test_doctor_fix_runs_no_stored_mapping(arena: Arena, by: str) -> None:
    with arena.trial() as conn:
        build(conn, SAYS)
        attach_all(conn)
        for statement in (
            "alter table svc.member enable trigger auditdb_insert",
            "alter table svc.member add column extra int",
        ):
            conn.execute(statement.encode())
        look(conn)
        if by != "superuser":
            act(conn, by)
        with heard(conn) as said:
            findings = (
                conn.cursor(row_factory=psycopg.rows.dict_row)
                .execute("select * from audit.doctor()")
                .fetchall()
            )
            assert [f for f in findings if "svc.member" in f["object"] and f["fixable"]], findings
            doctor.fix(conn, [doctor.Finding(**finding) for finding in findings])
        assert whom(said) <= {"audit_mapper"}


@attack(
    GROUP,
    "An operator stores a mapping that runs when another attaches, re-attaches or asks doctor",
    outcome="B",
    twin=True,
)
def test_stored_text_of_a_naive_log_runs_as_whoever_comes(arena: Arena) -> None:
    with arena.trial() as conn:
        build(conn, SAYS)
        conn.execute("insert into svc.team values (3, 3)")
        conn.execute(
            "insert into naive.mapping values"
            " ('svc.team', 'svc.hostile_text(r.id)', 'svc.hostile_true(r.id)')"
        )
        conn.execute("grant select on svc.team to naive_app")
        for call in ("naive.reattach('svc.team')", "naive.doctor()"):
            look(conn)
            with heard(conn) as said:
                conn.execute(f"select {call}".encode())
            assert whom(said) == {"postgres"}


@attack(
    GROUP,
    "An operator stores a mapping that runs when another attaches, re-attaches or asks doctor",
    outcome="B",
)
def test_no_function_takes_a_ready_mapping(arena: Arena) -> None:
    with arena.trial() as conn:
        rows = conn.execute(
            "select p.oid::regprocedure::text as name from pg_proc as p"
            " join pg_namespace as n on n.oid = p.pronamespace, pg_roles as r"
            " where n.nspname in ('audit', 'audit_private') and r.rolname = 'other_owner'"
            " and has_function_privilege(r.oid, p.oid, 'execute') and p.prosecdef"
            " and 'mapping' = any (p.proargnames)"
        ).fetchall()
    assert rows == []


@attack(
    GROUP, "A mapping of somebody else's table that becomes part of a child's mapping", outcome="B"
)
@pytest.mark.parametrize("by", ["app_owner", "superuser"])
def test_a_child_takes_no_mapping_from_a_table_of_another_owner(arena: Arena, by: str) -> None:
    with arena.trial() as conn:
        build(conn, SAYS)
        conn.execute(
            "create table svc.inv (id int primary key, organization_id int);"
            "select audit.attach('svc.inv', 'invoice',"
            " organization => 'svc.hostile_text(r.organization_id)')"
        )
        look(conn)
        act(conn, "app_owner")
        conn.execute(
            "create table public.invoice (id int primary key, organization_id int);"
            "create table public.invoice_line (id int primary key,"
            " invoice_id int references invoice);"
            "grant all on public.invoice, public.invoice_line to app;"
            "select audit.attach('public.invoice', 'invoice')"
        )
        if by == "superuser":
            look(conn)
        with heard(conn) as said:
            conn.execute("select audit.attach('public.invoice_line', 'invoice',"
                         " parent => 'invoice_id')")  # fmt: skip
        assert not whom(said)
        # Nor where its own parent is not attached at all.
        act(conn, "app_owner")
        conn.execute("select audit.detach('public.invoice_line')")
        conn.execute("select audit.detach('public.invoice')")
        with contextlib.suppress(psycopg.Error), conn.transaction():
            conn.execute("select audit.attach('public.invoice_line', 'invoice',"
                         " parent => 'invoice_id')")  # fmt: skip
        look(conn)
        stored = conn.execute(
            "select mapping::text as m from audit_private.attachment"
            " where target = 'public.invoice_line'::regclass"
        ).fetchone()
        assert stored is None or "svc." not in stored["m"], stored


@attack(
    GROUP,
    "A mapping of somebody else's table that becomes part of a child's mapping",
    outcome="B",
    twin=True,
)
def test_a_naive_child_takes_what_a_stranger_stored(arena: Arena) -> None:
    with arena.trial() as conn:
        build(conn, SAYS)
        conn.execute("insert into naive.mapping values ('svc.team', 'svc.hostile_text(r.id)')")
        conn.execute("grant select on svc.team to naive_app")
        act(conn, "naive_app")
        conn.execute(
            "insert into naive.mapping select 'naive.membership',"
            " format('(select %s from svc.team as r limit 1)', organization)"
            " from naive.mapping where target = 'svc.team'::regclass"
        )
        with heard(conn) as said:
            conn.execute("select naive.reattach('naive.membership')")
        assert whom(said) == {"naive_app"}


SEVERAL = {
    "closes and opens": "null)::text as a; select nextval('svc.fired'); select (null",
    "closes and opens for a view": "null)::text as a from svc.thing as r; "
    "select nextval('svc.fired'); create temp view x as select (null",
    "copy to program": "null)::text; copy (select 1) to program 'true'; select (null",
    "session lock": "null)::text; select pg_advisory_lock(667788); select (null",
    "two statements": "r.v; select nextval('svc.fired')",
    "ends with a semicolon": "r.v;",
    "only a semicolon": ";",
    "two columns in parentheses closed": "r.v), (r.id",
    "an alias": "r.v as organization",
    "another from": "r.v) from svc.team as t where (true",
    "a union": "null::text) union all select (null::text",
    "unfinished": "(r.v",
    "a comment that is not closed": "r.v /*",
    "a string that is not closed": "'r.v",
    "a dollar quote that is not closed": "$x$ r.v",
    "a dollar quote of a function's body": "$$ r.v $$ || $body$ x $body$ || $function$ y",
    "a parameter": "$1",
    "another parameter": "$9",
    "a subselect of two columns": "(select 1, 2)",
    "into": "r.v into svc.taken",
    "an unknown column": "r.none",
    "an unknown table": "(select x from svc.none)",
    "a data-modifying cte": "(with w as (insert into svc.team values (9, 9) returning id)"
    " select id::text from w)",
    "the end of a function": "null); end; $$ language plpgsql; select nextval('svc.fired'); --",
    "the end of a block": "null); perform nextval('svc.fired'); return (null",
}
DANGEROUS = {
    "nextval": "nextval('svc.fired')::text",
    "nextval, qualified": "pg_catalog.nextval('svc.fired')::text",
    "nextval in a subselect": "(select nextval('svc.fired')::text)",
    "nextval in a case": "case when false then nextval('svc.fired')::text end",
    "setval": "setval('svc.fired', 7)::text",
    "set_config": "set_config('svc.left', 'x', false)",
    "advisory lock": "pg_advisory_lock(667788)::text",
    "shared advisory lock": "pg_advisory_lock_shared(667788)::text",
    "try advisory lock": "pg_try_advisory_lock(667788)::text",
    "query_to_xml": "query_to_xml('select nextval(''svc.fired'')', true, true, '')::text",
    "table_to_xml": "table_to_xml('svc.team', true, true, '')::text",
    "cursor_to_xml": "cursor_to_xml('c', 1, true, true, '')::text",
    "schema_to_xml": "schema_to_xml('svc', true, true, '')::text",
    "database_to_xml": "database_to_xml(true, true, '')::text",
    "query_to_xmlschema": "query_to_xmlschema('select 1', true, true, '')::text",
    "sleep": "pg_sleep(0)::text",
    "random": "random()::text",
    "clock": "clock_timestamp()::text",
    "uuid": "gen_random_uuid()::text",
    "cancel": "pg_cancel_backend(0)::text",
    "terminate": "pg_terminate_backend(0)::text",
    "notify": "pg_notify('a', 'b')::text",
    "file": "pg_read_file('PG_VERSION')",
    "large object": "lo_create(0)::text",
    "large object by oid": "lo_get(1)::text",
    "reload": "pg_reload_conf()::text",
    "setseed": "setseed(0.5)::text",
    "export snapshot": "pg_export_snapshot()",
    "statistics": "pg_stat_reset()::text",
    "message": "pg_logical_emit_message(true, 'a', 'b')::text",
    "aggregate": "max(r.id)::text",
    "text aggregate": "string_agg(r.v, ',')",
    "filtered aggregate": "count(*) filter (where true)::text",
    "ordered-set aggregate": "mode() within group (order by r.v)",
    "grouping": "grouping(r.v)::text",
    "set": "generate_series(1, 2)::text",
    "unnest": "unnest(array[r.v])",
    "set in a case": "case when true then regexp_split_to_table(r.v, ',') end",
    "window": "row_number() over ()::text",
    "window over rows": "lag(r.v) over (order by r.id)",
}
FORBIDDEN = {
    "keys": "(select string_agg(k.secret, '') from audit_private.signing_key as k)",
    "events": "(select max(e.actor_id) from audit.event as e)",
    "a month of events": "(select max(e.actor_id) from audit.event_default as e)",
    "a view of the log": "(select max(e.actor_id) from audit.log as e)",
    "attachments": "(select max(a.kind) from audit_private.attachment as a)",
    "keys through a row": "(select k::text from audit_private.signing_key as k limit 1)",
    "keys in an array": "array(select k.secret from audit_private.signing_key as k)::text",
    "keys in exists": "exists (select from audit_private.signing_key)::text",
    "keys in a cte": "(with k as (select secret from audit_private.signing_key)"
    " select max(secret) from k)",
    "passwords": "(select max(p.rolpassword) from pg_catalog.pg_authid as p)",
    "roles": "(select max(p.rolname::text) from pg_catalog.pg_roles as p)",
    "sessions": "(select max(p.query) from pg_catalog.pg_stat_activity as p)",
    "statistics": "(select max(p.most_common_vals::text) from pg_catalog.pg_stats as p)",
    "settings": "(select max(p.setting) from pg_catalog.pg_settings as p)",
    "large objects": "(select max(p.loid)::text from pg_catalog.pg_largeobject as p)",
    "information schema": "(select max(t.table_name::text) from information_schema.tables as t)",
    "toast": "(select max(chunk_id)::text from pg_toast.pg_toast_2619)",
    "a temporary table": "(select max(id)::text from pg_temp.mine)",
    "a table of another owner": "(select max(o.name) from public.organization as o)",
}


def refused(conn: psycopg.Connection[Any], text: str) -> psycopg.Error:
    """Return the error that attaching with a mapping gives."""
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute("select audit.attach('svc.thing', 'thing', organization => %s)", (text,))
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, id=name, marks=attack(GROUP, row, outcome="B"))
        for row, texts in {
            "A mapping expression that is several statements, or closes its parenthesis": SEVERAL,
            "A mapping expression that calls volatile or dangerous built-in functions,"
            " aggregates, sets, windows": DANGEROUS,
            "A mapping that reads tables of the log, of the catalogs, or tables that its owner may"
            " not read or grant": FORBIDDEN,
        }.items()
        for name, text in texts.items()
    ],
)
def test_a_mapping_that_is_more_than_an_expression_is_refused_unexecuted(
    arena: Arena, text: str
) -> None:
    assert arena.key
    with arena.trial() as conn:
        build(conn, SAYS)
        conn.execute("create sequence svc.fired; create temp table mine (id int)")
        act(conn, "app_owner")
        conn.execute("grant select on public.membership to other_owner")
        act(conn, "other_owner")
        with contextlib.suppress(psycopg.Error), conn.transaction():
            conn.execute("create view svc.names as select 'x' as name from public.organization")
        act(conn, "other_owner")
        error = refused(conn, text)
        look(conn)
        fired = conn.execute("select is_called from svc.fired").fetchone()
        locks = conn.execute(
            "select from pg_locks where locktype = 'advisory' and objid = 667788"
        ).fetchall()
        conn.execute("select pg_advisory_unlock_all()")
        opened = conn.execute(
            "select has_any_column_privilege("
            "'audit_mapper', 'audit_private.signing_key', 'select') as k,"
            " has_any_column_privilege('audit_mapper', 'public.organization', 'select') as o"
        ).fetchone()
        assert fired == {"is_called": False} and not locks, "it ran"
        assert opened == {"k": False, "o": False}
        assert isinstance(error, pg.Error)
        message, hint = error.diag.message_primary, error.diag.message_hint
        assert message and "\n" not in message, message
        assert "organization" in message or "mapping" in message, message
        assert hint, f"no hint: {message}"
        assert "auditdb_probe" not in message + hint, message
        assert error.sqlstate and not error.sqlstate.startswith("XX"), error.sqlstate


@pytest.mark.parametrize("text", [SEVERAL["closes and opens"], DANGEROUS["nextval"],
                                  "(select secret from naive.signing_key limit 1)"])  # fmt: skip
@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=attack(GROUP, row, outcome="B", twin=True))
        for row in (
            "A mapping expression that is several statements, or closes its parenthesis",
            "A mapping expression that calls volatile or dangerous built-in functions,"
            " aggregates, sets, windows",
            "A mapping that reads tables of the log, of the catalogs, or tables that its owner may"
            " not read or grant",
        )
    ],
)
def test_a_naive_mapping_runs_whatever_it_says(arena: Arena, text: str, row: str) -> None:
    with arena.trial() as conn:
        build(conn, SAYS)
        conn.execute("create sequence svc.fired; insert into svc.thing values (1, 1)")
        conn.execute("insert into naive.mapping values ('svc.thing', %s)", (text,))
        look(conn)
        conn.execute("select naive.reattach('svc.thing')")
        fired = conn.execute("select is_called from svc.fired").fetchone()
        assert fired == {"is_called": "fired" in text}


@attack(
    GROUP,
    "A mapping that reads tables of the log, of the catalogs, or tables that its owner may not read"
    " or grant",
    outcome="B",
)
def test_what_audit_mapper_reads_for_one_service_no_other_maps(arena: Arena) -> None:
    """The owner of public.workflow let audit_mapper read it; svc's owner may not read it."""
    with arena.trial() as conn:
        build(conn, SAYS)
        with pytest.raises(pg.InsufficientPrivilege, match="other_owner may not read column"):
            conn.execute(
                "select audit.attach('svc.thing', 'thing', organization =>"
                " 'select w.organization_id from public.workflow as w where w.id = r.id')"
            )


@attack(
    GROUP,
    "A mapping that reads tables of the log, of the catalogs, or tables that its owner may not read"
    " or grant",
    outcome="B",
)
@pytest.mark.parametrize(
    "path", ["public, pg_catalog", "pg_temp, public, pg_catalog", "svc, public, pg_catalog"]
)
@pytest.mark.parametrize("lookup", ["public.organization", "audit_private.signing_key"])
def test_code_that_runs_while_a_mapping_is_parsed_hides_no_table(
    arena: Arena, path: str, lookup: str
) -> None:
    """The check of a domain runs for a literal, and moves the path by which names are printed."""
    schema, name = lookup.split(".")
    path = path.replace("public", schema)
    with arena.trial() as conn:
        build(conn, f"begin perform set_config('search_path', '{path}', false); end")
        for home in ("pg_temp", "svc"):
            conn.execute(f"create table {home}.{name} (id text, name text, secret text)".encode())
            conn.execute(f"grant all on {home}.{name} to public".encode())
        column = "name" if name == "organization" else "secret"
        error = refused(
            conn,
            f"coalesce((('{{1}}'::svc.checked[])[1])::text || r.v,"
            f" (select o.{column}::text from {lookup} as o where o.id::text = '2'))",
        )
        assert isinstance(error, pg.InsufficientPrivilege), error


ALLOWED = [
    "r.organization_id",
    "organization_id",
    "r.organization_id::text",
    "coalesce(r.v, r.organization_id::text)",
    "case when r.id > 0 then r.v else 'none' end",
    "upper(r.v) || '-' || r.id",
    "(select t.organization_id from svc.team as t where t.id = r.organization_id)",
    "svc.hostile_text(r.organization_id)",
    "'; select (null'",
    "r.v -- the organisation",
    "/* ; */ r.v",
    "(r.v)",
    "to_jsonb(r) ->> 'v'",
    "(to_jsonb(r.pair) ->> 'a')",
    "$$;)$$ || r.v",
]


@attack(
    GROUP,
    "A mapping expression that is several statements, or closes its parenthesis",
    outcome="B",
)
@pytest.mark.parametrize("text", ALLOWED)
def test_what_is_one_expression_is_still_taken(arena: Arena, text: str) -> None:
    with arena.trial() as conn:
        build(conn, SAYS)
        with heard(conn) as said:
            conn.execute("select audit.attach('svc.thing', 'thing', organization => %s)", (text,))
        assert not whom(said)
        act(conn, "app")
        conn.execute("insert into svc.thing values (1, 1, 'fine', '(1,2)', '1')")
        event = newest(conn)[0]
        assert event["organization_id"] is not None, event
        assert "degraded" not in (event["details"] or {}), event


@attack(
    GROUP,
    "A mapping expression that is several statements, or closes its parenthesis",
    outcome="B",
)
@pytest.mark.parametrize("option", ["target_id", "subject", "role", "alive", "admin", "parent"])
@pytest.mark.parametrize("text", [SEVERAL["closes and opens"], DANGEROUS["nextval in a case"],
                                  FORBIDDEN["keys"]])  # fmt: skip
def test_every_option_is_held_to_it(arena: Arena, option: str, text: str) -> None:
    with arena.trial() as conn:
        build(conn, SAYS)
        conn.execute("create sequence svc.fired")
        conn.execute("create table svc.m (id int, organization_id int, user_id int, role text)")
        if option in ("alive", "admin"):
            text = f"{text}) is not null and (true" if text.endswith("(null") else f"({text}) > '0'"
        with pytest.raises(psycopg.Error) as caught, conn.transaction():
            conn.execute(
                f"select audit.attach('svc.m', 'membership', {option} => %s,"
                " organization => 'organization_id')".encode(),
                (text,),
            )
        look(conn)
        assert conn.execute("select is_called from svc.fired").fetchone() == {"is_called": False}
        message = str(caught.value.diag.message_primary)
        assert option in message or "mapping" in message, message
        assert caught.value.diag.message_hint


# Whatever an operator may call on a table, called in a superuser's name by code of its own.
DEPUTY = """
declare
    _call text;
begin
    raise notice 'ran as % of %', current_user, session_user;
    if session_user = 'other_owner' then
        return;
    end if;
    foreach _call in array array[
        $c$select audit.detach('public.membership')$c$,
        $c$select audit.detach('public.admins')$c$,
        $c$select audit_private.forget('public.admins')$c$,
        $c$select audit_private.forget('public.membership')$c$,
        $c$select audit.reattach('public.membership')$c$,
        $c$select audit.attach('public.admins', 'admin', subject => '''666''')$c$,
        $c$select audit.attach('public.membership', 'membership', ignore => '{role}')$c$,
        $c$select audit.attach('public.admin_of', 'admin')$c$,
        $c$select audit_private.close_capture(1)$c$,
        $c$insert into audit_private.request (verb, target)
            values ('detach', 'public.membership')$c$,
        $c$insert into audit_private.request (verb, target) values ('detach', 'public.admins')$c$,
        $c$insert into audit_private.request (verb, target, kind)
            values ('close', 'public.membership', 'membership')$c$,
        $c$insert into audit_private.request (verb, target, kind, given) values ('attach',
            'public.membership', 'membership', '{"ignore": ["role"]}')$c$,
        $c$insert into audit_private.request (verb, target, kind, given) values ('attach',
            'public.admin_of', 'admin', '{}')$c$,
        $c$update audit_private.attachment set kind = 'thing'$c$,
        $c$delete from audit_private.attachment$c$,
        $c$insert into audit_private.attachment (target, kind, mapping, name)
            values ('public.organization'::regclass, 'admin', '{}', 'x')$c$
    ] loop
        begin
            execute _call;
            raise notice 'managed %', _call;
        exception when others then
            null;
        end;
    end loop;
end
"""


@attack(
    GROUP,
    "A definer function or an index expression of an operator remaps or detaches a table of"
    " another owner",
    outcome="B",
)
@pytest.mark.parametrize("by", ["superuser", "app_owner"])
@pytest.mark.parametrize("through", ["definer function", "definer trigger", "index", "analyze",
                                     "materialized view", "mapping"])  # fmt: skip
def test_code_of_an_operator_is_no_deputy_of_whoever_logged_in(
    arena: Arena, through: str, by: str
) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute("create table public.admins (organization_id int, user_id int);"
                     "create table public.admin_of (organization_id int, user_id int);"
                     "insert into public.admins values (1, 1);"
                     "select audit.attach('public.admins', 'admin')")  # fmt: skip
        look(conn)
        before = conn.execute(
            "select target, kind, mapping from audit_private.attachment"
        ).fetchall()
        build(conn, DEPUTY)
        # An index wants it immutable; PostgreSQL takes the author's word for it.
        conn.execute(
            "create function svc.lure(i int) returns int immutable security definer"
            " language plpgsql as 'begin perform svc.hostile(); return i; end'"
        )
        conn.execute("create table svc.bait (id int)")
        conn.execute("grant all on svc.bait to app_owner")
        conn.execute("insert into svc.bait values (1), (2)")
        run = "select svc.lure(1)"
        if through == "definer trigger":
            conn.execute(
                "create function svc.lure() returns trigger security definer language plpgsql as"
                " 'begin perform svc.hostile(); return new; end';"
                "create trigger lure before insert on svc.bait for each row"
                " execute function svc.lure()"
            )
            run = "insert into svc.bait values (3)"
        elif through in ("index", "analyze"):
            conn.execute("create index bait_idx on svc.bait (svc.lure(id))")
            run = "reindex table svc.bait" if through == "index" else "analyze svc.bait"
        elif through == "materialized view":
            conn.execute("create materialized view svc.seen as select svc.lure(1) with no data")
            run = "refresh materialized view svc.seen"
        elif through == "mapping":
            conn.execute("grant all on svc.thing to app_owner")
            conn.execute("select audit.attach('svc.thing', 'thing', organization =>"
                         " 'svc.lure(r.organization_id)')")  # fmt: skip
            run = "insert into svc.thing values (1, 1)"
        look(conn)
        if by != "superuser":
            act(conn, by)
        with heard(conn) as said:
            if by == "superuser" or through not in ("index", "analyze", "materialized view"):
                conn.execute(run.encode())
                assert any("ran as" in line for line in said), "the bait was not taken"
        assert not [line for line in said if line.startswith("managed")], said
        look(conn)
        after = conn.execute(
            "select target, kind, mapping from audit_private.attachment where target <>"
            " coalesce(to_regclass('svc.thing'), 0)"
        ).fetchall()
        assert sorted(map(str, after)) == sorted(map(str, before))


@attack(
    GROUP,
    "A definer function or an index expression of an operator remaps or detaches a table of"
    " another owner",
    outcome="B",
    twin=True,
)
def test_a_naive_log_that_asks_session_user_is_remapped_by_a_deputy(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        conn.execute("insert into naive.mapping values ('naive.membership', 'r.organization_id')")
        conn.execute(
            "create function naive.remap(target regclass, organization text) returns void"
            " language plpgsql security definer as $$ begin"
            " if not pg_has_role(session_user, (select relowner from pg_class where oid ="
            " remap.target), 'member') then raise 'not yours'; end if;"
            " update naive.mapping as m set organization = remap.organization"
            " where m.target = remap.target; end $$"
        )
        act(conn, "other_owner")
        conn.execute("revoke usage on schema svc from stranger")
        conn.execute(
            "create function svc.lure(i int) returns int immutable language plpgsql as"
            " $$ begin if session_user <> 'other_owner' then"
            " perform naive.remap('naive.membership', 'null'); end if; return i; end $$"
        )
        conn.execute("create table svc.bait (id int)")
        conn.execute("insert into svc.bait values (1)")
        conn.execute("create index on svc.bait (svc.lure(id))")
        look(conn)
        conn.execute("reindex table svc.bait")
        row = conn.execute("select organization as o from naive.mapping").fetchone()
        assert row == {"o": "null"}


TAKES = """
begin
    raise notice 'ran as %', current_user;
    perform set_config('search_path', 'svc, pg_catalog', false);
end
"""
EQ = """
create function svc.eq(text, text) returns boolean language plpgsql as $f$
begin
    raise notice 'compared as %', current_user;
    if (select rolsuper from pg_catalog.pg_roles
        where rolname operator(pg_catalog.=) current_user) then
        execute 'alter role other_owner superuser';
    end if;
    return $1 operator(pg_catalog.=) $2;
end $f$;
create operator svc.= (leftarg = text, rightarg = text, function = svc.eq);
"""


@attack(
    GROUP,
    "Doctor leaves a search_path behind that hands the caller's operators to the service",
    outcome="B",
)
@pytest.mark.parametrize("by", ["superuser", "app_auditor", "app_owner"])
@pytest.mark.parametrize("rule", ["svc.hostile_constant('x')", "svc.hostile_true(1)",
                                  "(select svc.hostile_true(1))",
                                  "svc.hostile_true(r.id)"])  # fmt: skip
def test_doctor_leaves_no_path_behind(arena: Arena, rule: str, by: str) -> None:
    with arena.trial() as conn:
        build(conn, TAKES)
        conn.execute(EQ)
        conn.execute("create table svc.member (id int primary key, organization_id int,"
                     " user_id int, role text)")  # fmt: skip
        conn.execute("insert into svc.member values (1, 1, 666, 'x')")
        conn.execute("select audit.attach('svc.member', 'membership', admin => %s)", (rule,))
        look(conn)
        path = conn.execute("show search_path").fetchone()
        if by != "superuser":
            act(conn, by)
        with heard(conn) as said:
            conn.execute("select count(*) from audit.doctor()")
            if by != "app_owner":
                conn.execute("select count(*) from audit.event where actor_id = '7'")
        assert not [line for line in said if line.startswith("compared")], said
        assert conn.execute("show search_path").fetchone() == path
        look(conn)
        assert conn.execute(
            "select rolsuper as s from pg_roles where rolname = 'other_owner'"
        ).fetchone() == {"s": False}


@attack(
    GROUP,
    "Doctor leaves a search_path behind that hands the caller's operators to the service",
    outcome="B",
    twin=True,
)
def test_a_naive_doctor_hands_a_superuser_over(arena: Arena) -> None:
    with arena.trial() as conn:
        build(conn, TAKES)
        conn.execute(EQ)
        conn.execute("insert into naive.mapping values"
                     " ('svc.team', 'r.organization_id', 'svc.hostile_true(r.id)')")  # fmt: skip
        look(conn)
        conn.execute("select naive.doctor()")
        conn.execute("select count(*) from naive.log where actor_id = '7'")
        assert conn.execute(
            "select rolsuper as s from pg_catalog.pg_roles where rolname"
            " operator(pg_catalog.=) 'other_owner'"
        ).fetchone() == {"s": True}


# What a login with CREATE on a schema of the path puts there: better matches than PostgreSQL's own.
SHADOW = """
create function {schema}.format({arguments}) returns text language plpgsql as $f$
begin
    raise notice 'ran as %', current_user;
    return pg_catalog.format($1, $2{more});
end $f$;
"""
OTHER_SHADOWS = """
create function {schema}.quote_ident(name) returns text language plpgsql as $f$
begin
    raise notice 'ran as %', current_user;
    return pg_catalog.quote_ident($1::text);
end $f$;
create function {schema}.set_config(text, text, bool) returns text language plpgsql as $f$
begin
    raise notice 'ran as %', current_user;
    return pg_catalog.set_config($1, $2, $3);
end $f$;
create function {schema}.same(name, text) returns bool language plpgsql as $f$
begin
    raise notice 'ran as %', current_user;
    return $1::text operator(pg_catalog.=) $2;
end $f$;
create operator {schema}.= (leftarg = name, rightarg = text, function = {schema}.same);
create function {schema}.joined(text, name) returns text language plpgsql as $f$
begin
    raise notice 'ran as %', current_user;
    return $1 operator(pg_catalog.||) $2::text;
end $f$;
create operator {schema}.|| (leftarg = text, rightarg = name, function = {schema}.joined);
"""
PUBLIC_CALLS = [
    "select * from audit.doctor()",
    "select * from audit.list_tables()",
    "select * from audit.list_partitions()",
    "select * from audit.list_members()",
    "select audit.attach('public.organization', 'thing', organization => 'id')",
    "select audit.reattach('public.membership')",
    "select audit.detach('public.membership')",
    "select * from audit.maintain()",
    "select audit_private.create_months(25)",
    "select audit.create_key('1 day')",
    "select * from audit.list_keys()",
    "select audit.attest('audit.event')",
    "select audit.mend_guards()",
    "select audit.set_context('1', details => '{}')",
    "select audit.record_event('auth.login')",
    "select count(*) from audit.log",
    "select count(*) from audit.role_change",
    "update public.membership set role = 'ADMIN'",
]


def shadow(conn: psycopg.Connection[Any], schema: str) -> None:
    """Let one who holds nothing but CREATE on a schema shadow what queries may call."""
    look(conn)
    conn.execute(f"grant create on schema {schema} to stranger".encode())
    act(conn, "stranger")
    for arguments, more in (
        ("text, name", ""), ("text, name, name", ", $3"), ("text, text", ""),
        ("text, text, text", ", $3"), ("text, oid", ""), ("text, regclass", ""),
    ):  # fmt: skip
        conn.execute(SHADOW.format(schema=schema, arguments=arguments, more=more).encode())
    conn.execute(OTHER_SHADOWS.format(schema=schema).encode())


@attack(
    GROUP,
    "A login with CREATE on a schema of the caller's path shadows functions and operators",
    outcome="B",
)
@pytest.mark.parametrize("path", ["public, pg_catalog", "public"])
@pytest.mark.parametrize("call", PUBLIC_CALLS)
def test_no_call_takes_a_function_from_the_callers_path(arena: Arena, call: str, path: str) -> None:
    with arena.trial() as conn:
        shadow(conn, "public")
        look(conn)
        conn.execute(f"set search_path = {path}".encode())
        with heard(conn) as said:
            conn.execute(call.encode())
        assert whom(said) <= {"audit_mapper"}


@attack(
    GROUP,
    "A login with CREATE on a schema of the caller's path shadows functions and operators",
    outcome="B",
    twin=True,
)
def test_a_naive_query_takes_what_is_on_the_path(arena: Arena) -> None:
    with arena.trial() as conn:
        shadow(conn, "public")
        look(conn)
        with heard(conn) as said:
            conn.execute("select format('%I.%I', nspname, relname) from pg_class as c"
                         " join pg_namespace as n on n.oid = relnamespace limit 1")  # fmt: skip
        assert whom(said) == {"postgres"}


@attack(
    GROUP,
    "A login with CREATE on a schema of the caller's path shadows functions and operators",
    outcome="B",
)
@pytest.mark.parametrize("command", [["detect"], ["status"], ["doctor"], ["doctor", "--fix"],
                                     ["attach", "--dry-run", "{file}"], ["attach", "{file}"],
                                     ["install"], ["maintain"], ["key", "list"],
                                     ["log"]])  # fmt: skip
def test_no_command_takes_a_function_from_the_callers_path(
    db: Database, tmp_path: Any, command: list[str]
) -> None:
    from click.testing import CliRunner

    from auditdb.cli import main

    file = tmp_path / "auditdb.toml"
    file.write_text('[[table]]\nname = "organisation"\nkind = "thing"\norganization = "id"\n')
    conn = db.connect(row_factory=psycopg.rows.dict_row)
    shadow(conn, "public")
    look(conn)
    # What a notice says nobody hears; a file of the server is there to stay.
    conn.execute(
        "do $d$ declare f record; begin for f in select oid::regprocedure::text as name,"
        " pg_get_functiondef(oid) as def from pg_proc where pronamespace = 'public'::regnamespace"
        " and prolang = (select oid from pg_language where lanname = 'plpgsql') and"
        " prosrc like '%%ran as%%' loop execute replace(f.def, 'raise notice ''ran as %%'',"
        " current_user;', 'if (select rolsuper from pg_catalog.pg_roles where rolname::text"
        " operator(pg_catalog.=) current_user::text) then copy (select 1) to program ''cat >"
        " shadowed''; end if;'); end loop; end $d$"
    )
    exists = "select (pg_stat_file('shadowed', true)).size is not null as taken"
    assert conn.execute(exists).fetchone() == {"taken": False}
    arguments = [part.format(file=file) for part in command]
    done = CliRunner().invoke(main, ["--dsn", db.dsn, *arguments])
    taken = conn.execute(exists).fetchone()
    conn.execute("copy (select 1) to program 'cat > /dev/null; rm -f shadowed'")
    assert taken == {"taken": False}, done.output


TOKEN = """
begin
    raise notice 'token %', nullif(current_setting('auditdb.viewer', true), '');
    raise notice 'query %', current_query();
end
"""


@attack(GROUP, "A rule for admins reads the viewer's token", outcome="B")
@pytest.mark.parametrize("rule", ["svc.hostile_constant('x')", "svc.hostile_true(r.id)"])
def test_a_rule_for_admins_does_not_see_the_token(arena: Arena, rule: str) -> None:
    token = sign(arena.key, "66", "1")
    with arena.trial() as conn:
        build(conn, TOKEN)
        conn.execute("create table svc.member (id int, organization_id int, user_id int,"
                     " role text)")  # fmt: skip
        conn.execute("insert into svc.member values (1, 1, 66, 'x')")
        conn.execute("select audit.attach('svc.member', 'membership', admin => %s)", (rule,))
        look(conn)
        conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
        act(conn, "app_reader")
        with heard(conn) as said:
            assert conn.execute("select count(*) as n from audit.event").fetchone() is not None
        assert any(line.startswith("query") for line in said), "the rule was not asked"
        assert "token <NULL>" in said, said
        assert not [line for line in said if token[-20:] in line]
        now = conn.execute("select current_setting('auditdb.viewer') as t").fetchone()
        assert now == {"t": token}, "the viewer's own setting is gone"


@attack(GROUP, "A rule for admins reads the viewer's token", outcome="B", twin=True)
def test_a_naive_rule_for_admins_reads_the_token(arena: Arena) -> None:
    with arena.trial() as conn:
        build(conn, TOKEN.replace("auditdb.viewer", "naive.organization"))
        conn.execute("insert into naive.mapping values"
                     " ('svc.team', 'r.organization_id', 'svc.hostile_true(r.id)')")  # fmt: skip
        conn.execute("grant select on svc.team to naive_app")
        look(conn)
        conn.execute("select set_config('naive.organization', 'secret', true)")
        act(conn, "naive_reader")
        with heard(conn) as said:
            conn.execute("select naive.is_admin('1')")
        assert "token secret" in said


KINDS = ["admin", "membership", "user", "api_key", "workflow", "password", "two_factor", "thing"]


@attack(GROUP, "A temporary table as a rule for admins, or of any other kind", outcome="B")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["temp table", "temp view", "temp view on a table"])
def test_nothing_temporary_is_attached(arena: Arena, kind: str, what: str) -> None:
    with arena.trial() as conn:
        act(conn, "oper")
        columns = "1 as organization_id, 666 as user_id, 'OWNER' as role, 1 as id"
        if what == "temp table":
            conn.execute(f"create temp table me as select {columns}".encode())
        elif what == "temp view":
            conn.execute(f"create temp view me as select {columns}".encode())
        else:
            conn.execute(f"create temp table mine as select {columns}".encode())
            conn.execute("create temp view me as select * from mine")
        with pytest.raises(pg.WrongObjectType) as caught, conn.transaction():
            conn.execute("select audit.attach('pg_temp.me', %s)", (kind,))
        if what == "temp table":
            assert "temporary" in str(caught.value.diag.message_primary)
        assert caught.value.diag.message_hint


@attack(
    GROUP, "A temporary table as a rule for admins, or of any other kind", outcome="B", twin=True
)
def test_a_naive_rule_takes_a_temporary_table(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "oper")
        conn.execute("create temp table me as select 1 as organization_id")
        conn.execute("grant select on me to naive_app")
        conn.execute("insert into naive.mapping values ('pg_temp.me', 'null', 'true')")
        act(conn, "naive_reader")
        assert conn.execute("select naive.is_admin('1') as a").fetchone() == {"a": True}


VIEW = """
create table public.staff (organization_id int, user_id int, boss boolean);
create function public.is_boss(boolean) returns boolean stable language sql as 'select $1';
create view public.bosses as select * from public.staff where public.is_boss(boss);
create view public.admins as select organization_id, user_id from public.bosses;
select audit.attach('public.admins', 'admin');
"""
LATER = {
    "the view itself": "create or replace view public.admins as select organization_id, user_id"
    " from public.bosses union all select 1, 666",
    "the view beneath": "create or replace view public.bosses as select * from public.staff"
    " where public.is_boss(boss) union all select 1, 666, true",
    "the function beneath": "create or replace function public.is_boss(boolean) returns boolean"
    " stable language sql as 'select true'",
    "the view's rights": "alter view public.admins set (security_invoker = true)",
    "the owner of the view beneath": "alter view public.bosses owner to postgres",
    "the view dropped and created again": "drop view public.admins; create view public.admins as"
    " select 1 as organization_id, 666 as user_id",
    "the view beneath, renamed away": "alter view public.bosses rename to was",
    "a function of the view beneath, given away": "alter function public.is_boss(boolean)"
    " owner to other_owner",
    "the function beneath, a definer": "alter function public.is_boss(boolean) security definer",
}


@attack(
    GROUP,
    "A view of kind admin altered later: itself, a view beneath, a function beneath",
    outcome="D",
)
@pytest.mark.parametrize("what", LATER)
def test_a_view_of_admins_that_was_altered_is_found(arena: Arena, what: str) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute(VIEW)
        look(conn)
        ask = (
            "select object, problem from audit.doctor() where severity = 'critical'"
            " and (object ~ 'admins|bosses|is_boss' or problem ~ 'admins|bosses|is_boss')"
        )
        assert not conn.execute(ask).fetchall()
        if "owner" not in what and "given" not in what:
            act(conn, "app_owner")
        for statement in LATER[what].split("; "):
            conn.execute(statement.encode())
        look(conn)
        if "renamed away" in what:
            return  # the view knows it by its oid; nothing that it says has changed
        assert conn.execute(ask).fetchall(), "doctor finds nothing"


@attack(
    GROUP,
    "A view of kind admin altered later: itself, a view beneath, a function beneath",
    outcome="D",
    twin=True,
)
def test_a_naive_doctor_does_not_see_that_a_view_changed(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        conn.execute("create view naive.admins as select 1 as organization_id")
        conn.execute("insert into naive.mapping values ('naive.admins', 'null', 'true')")
        assert conn.execute("select naive.doctor()").fetchall() == []
        conn.execute("create or replace view naive.admins as select 1 as organization_id"
                     " union all select 2")  # fmt: skip
        assert conn.execute("select naive.doctor()").fetchall() == []


def test_the_roads_lead_to_the_code(arena: Arena) -> None:
    """A mapping that no capture evaluates any more would let its attack pass for nothing.

    Casts are not asked for: capture may well do without them.
    """
    for name, road in ROADS_TO_CAPTURE.items():
        if road.organization == Road().organization:
            continue
        with arena.trial() as conn:
            build(conn, SAYS, road)
            said = write_twice(conn, context="no json", by="app")
            assert whom(said), f"nothing ran over {name}"


# What ends a comment or a literal of PL/pgSQL, and what would then run.
ENDS = [
    "\r",
    "\n",
    "\r\n",
    "\f",
    "\v",
    "\u2028",
    "\u0085",
    "*/",
    "$$",
    "$sql$",
    "'",
    "\\'",
    '"',
    "%s",
]
NAMED = "Names of tables, columns and types that would end a comment or a literal of generated code"


@attack(GROUP, NAMED, outcome="B")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("what", ["table", "column", "kind of an enum"])
def test_no_name_ends_a_comment_or_a_literal_of_generated_code(
    arena: Arena, end: str, what: str
) -> None:
    name = f"{end}declare a int=svc.f();--"[:60]
    quoted = '"' + name.replace('"', '""') + '"'
    with arena.trial() as conn:
        act(conn, "other_owner")
        conn.execute("set check_function_bodies = off")
        conn.execute(
            "create function svc.f() returns int language plpgsql as"
            " $$ begin raise notice 'ran as %', current_user; return 1; end $$"
        )
        table = quoted if what == "table" else "plain"
        column = quoted if what == "column" else "v"
        type_ = quoted if what == "kind of an enum" else "mood2"
        conn.execute(f"create type svc.{type_} as enum ('a', 'b')".encode())
        conn.execute(
            f"create table svc.{table} (id int primary key, organization_id int,"
            f" {column} svc.{type_})".encode()
        )
        with heard(conn) as said:
            conn.execute(
                sql.SQL("select audit.attach({}::regclass, 'thing')").format(f"svc.{table}")
            )
            conn.execute(f"insert into svc.{table} values (1, 1, 'a')".encode())
            conn.execute(f"update svc.{table} set {column} = 'b'".encode())
            conn.execute(f"delete from svc.{table}".encode())
            event = newest(conn)[0]
        assert whom(said) == set(), said
        assert event["action"] == "thing.deleted"
        assert "degraded" not in (event["details"] or {})


@attack(GROUP, NAMED, outcome="B", twin=True)
def test_a_naive_generator_takes_a_name_for_code(arena: Arena) -> None:
    with arena.trial() as conn, heard(conn) as said:
        conn.execute(
            "create function naive.f() returns int language plpgsql as"
            " $$ begin raise notice 'ran as %', current_user; return 1; end $$"
        )
        body = "begin -- for the table \r perform naive.f(); --\n return null; end"
        conn.execute(
            sql.SQL("create function naive.named() returns trigger language plpgsql as {}").format(
                body
            )
        )
        conn.execute("create table naive.plain (i int)")
        conn.execute(
            "create trigger named after insert on naive.plain for each row"
            " execute function naive.named()"
        )
        conn.execute("insert into naive.plain values (1)")
        assert whom(said)
