"""Other vehicles on the same roads: what PostgreSQL offers that runs code or moves rows unseen.

Each is tried against capture, against the stored text of mappings, or against the log itself.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from tests.attacks.conftest import Arena, act, count, look, newest
from tests.attacks.hostile import build, heard, whom
from tests.attacks.report import attack
from tests.attacks.test_silencing import findings
from tests.conftest import Database
from tests.viewer import sign

SILENCE = "Silencing the capture"
BREAK = "Breaking the action through the capture"
FORGE = "Forging and rewriting"
RIGHTS = "Rights of stored text"
READ = "Reading what is not yours"
SAYS = "begin raise notice 'ran as %', current_user; end"


NUMBERS = itertools.count()

# What reaches capture: each of these changes rows of a table, and the naive trigger misses it or
# fails. `{t}` is the table: (id int primary key, organization_id int, v text, parent_id int).
TABLE = (
    "create table {t} (id int primary key, organization_id int, v text, parent_id int"
    " references {t} (id) on delete cascade deferrable)"
)
MOVES: dict[str, tuple[list[str], int]] = {
    "a rule that turns an insert into an update": (
        ["create rule turn as on insert to {t} do instead update {t} set v = new.v where id = 1",
         "insert into {t} values (9, 1, 'turned')"], 1),
    "an updatable view": (
        ["create view {t}_view as select * from {t}", "update {t}_view set v = 'view'"], 2),
    "a view with INSTEAD OF trigger": (
        ["create view {t}_view as select * from {t}",
         "create function {t}_instead() returns trigger language plpgsql as"
         " 'begin update {t} set v = new.v where id = old.id; return new; end'",
         "create trigger instead instead of update on {t}_view for each row"
         " execute function {t}_instead()", "update {t}_view set v = 'instead'"], 2),
    "a generated column": (
        ["alter table {t} add column g text generated always as (v || '!') stored",
         "update {t} set v = 'generated'"], 2),
    "a trigger before that changes the row": (
        ["create function {t}_before() returns trigger language plpgsql as"
         " $$ begin new.v := 'before'; return new; end $$",
         "create trigger aaa before update on {t} for each row execute function {t}_before()",
         "update {t} set v = 'other'"], 2),
    "a trigger after that changes it again": (
        ["create function {t}_after() returns trigger language plpgsql as $$ begin"
         " if new.v <> 'again' then update {t} set v = 'again' where id = new.id; end if;"
         " return null; end $$",
         "create trigger zzz after update on {t} for each row execute function {t}_after()",
         "update {t} set v = 'once' where id = 1"], 2),
    "a cascade of foreign keys": (["delete from {t} where id = 1"], 2),
    "deferred constraints": (
        ["set constraints all deferred", "insert into {t} values (5, 1, 'a', 6)",
         "insert into {t} values (6, 1, 'b', null)",
         "set constraints all immediate"], 2),
    "a savepoint and its release": (
        ["savepoint s", "update {t} set v = 'lost'", "rollback to s", "savepoint s",
         "update {t} set v = 'kept'", "release s"], 2),
    "an exception caught": (
        ["do $$ begin begin update {t} set v = 'x'; raise 'no'; exception when others then null;"
         " end; update {t} set v = 'y'; end $$"], 2),
    "a merge that does all three": (
        ["merge into {t} as t using (values (1), (2), (7)) as s (i) on t.id = s.i"
         " when matched and s.i = 1 then update set v = 'm' when matched then delete"
         " when not matched then insert (id, organization_id) values (s.i, 1)"], 3),
    "an upsert that does nothing": (
        ["insert into {t} values (1, 1, 'x') on conflict do nothing"], 0),
    "a writable cte without a look": (
        ["with w as (update {t} set v = 'cte' returning 1) select 1"], 2),
    "a cte in a view's function": (
        ["create function {t}_do() returns int language sql as"
         " $$ update {t} set v = 'sql function' returning id $$", "select {t}_do()"], 2),
    "a prepared statement from before the attachment": (
        ["execute before_attach ('prepared')"], 2),
    "a generic plan": (
        ["set plan_cache_mode = force_generic_plan", "execute before_attach ('generic')"], 2),
    "a cursor over another": (
        ["declare c cursor for select * from {t} for update", "fetch 1 from c",
         "update {t} set v = 'cursor' where current of c"], 1),
    "copy": (["do $$ begin execute 'insert into {t} select 8, 1, ''c''' ; end $$"], 1),
    "a partition attached later": (
        ["create table {t}_p (id int, organization_id int) partition by list (id)",
         "create table {t}_p1 (id int, organization_id int)",
         "select audit.attach('{t}_p', 'thing', organization => 'organization_id')",
         "alter table {t}_p attach partition {t}_p1 for values in (1)",
         "insert into {t}_p1 values (1, 1)"], 1),
    "a partition of a partition": (
        ["create table {t}_p (id int, organization_id int) partition by list (id)",
         "select audit.attach('{t}_p', 'thing', organization => 'organization_id')",
         "create table {t}_p1 partition of {t}_p for values in (1) partition by list (id)",
         "create table {t}_p2 partition of {t}_p1 for values in (1)",
         "insert into {t}_p2 values (1, 1)"], 1),
    "a column added with a default": (
        ["alter table {t} add column d text default 'd'", "update {t} set d = 'e'"], 2),
    "a column dropped and added again": (
        ["alter table {t} drop column v", "alter table {t} add column v text",
         "update {t} set v = 'again'"], 2),
    "columns whose names are swapped": (
        ["alter table {t} rename column v to w", "alter table {t} rename column parent_id to v",
         "alter table {t} rename column w to parent_id", "update {t} set parent_id = 'x'"], 2),
    "an enum label that is new": (
        ["alter table {t} add column e playground.label", "alter type playground.label rename"
         " value 'old' to 'new'", "update {t} set e = 'new'"], 2),
    "identity that is overridden": (
        ["alter table {t} alter id add generated always as identity",
         "insert into {t} (id, organization_id) overriding system value values (50, 1)"], 1),
    "a composite type that changes": (
        ["create type playground.two as (a int)", "alter table {t} add column c playground.two",
         "update {t} set c = row(1)::playground.two",
         "alter type playground.two add attribute b int cascade",
         "update {t} set c = row(1, 2)::playground.two"], 4),
    "a security label's cousin, a comment": (
        ["comment on table {t} is 'x'", "update {t} set v = 'c'"], 2),
    "cluster and vacuum's cousins": (
        ["create index on {t} (v)", "cluster {t} using {k}", "update {t} set v = 'c'"], 2),
    "unlogged": (["alter table {t} set unlogged", "update {t} set v = 'u'"], 2),
    "row security of the table": (
        ["alter table {t} enable row level security", "alter table {t} force row level security",
         "create policy p on {t} using (true)", "update {t} set v = 'r'"], 2),
    "a row hidden from all": (
        ["alter table {t} enable row level security", "create policy p on {t} using (true)"
         " with check (true)", "create policy n on {t} as restrictive for select using (true)",
         "update {t} set v = 'n'"], 2),
    "a role's own settings": (
        ["set row_security = off", "set datestyle = 'German'", "set lock_timeout = 1",
         "set work_mem = '64kB'", "update {t} set v = 's'"], 2),
    "jit and parallel": (
        ["set jit_above_cost = 0", "set parallel_setup_cost = 0", "update {t} set v = 'j'"], 2),
    "a name of 63 bytes": (
        ["alter table {t} rename to " + "n" * 63, "update playground." + "n" * 63 + " set v = 'l'"],
        2),
    "a name in other scripts": (
        ['alter table {t} rename to "t\u00e4bl\u202e\u0430; drop table x; --"',
         'update playground."t\u00e4bl\u202e\u0430; drop table x; --" set v = $$u$$'], 2),
    "a column named as a variable of ours": (
        ["alter table {t} rename column v to _old", "alter table {t} add column old text",
         "alter table {t} add column new text", "alter table {t} add column tg_op text",
         "select audit.reattach('{t}')", "update {t} set _old = 'x', old = 'y', new = 'z',"
         " tg_op = 'DELETE'"], 2),
}  # fmt: skip


@attack(SILENCE, "Statements that fire row triggers in unusual ways", outcome="S")
@pytest.mark.parametrize("how", MOVES)
def test_no_vehicle_moves_a_row_unseen(arena: Arena, how: str) -> None:
    statements, events = MOVES[how]
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute("create type playground.label as enum ('old')")
        conn.execute(TABLE.replace("{t}", "playground.veh").encode())
        conn.execute("insert into playground.veh values (1, 1, 'a', null), (2, 1, 'b', 1)")
        # Prepared statements outlive what is rolled back.
        prepared = f"before_attach_{next(NUMBERS)}"
        conn.execute(f"prepare {prepared} (text) as update playground.veh set v = $1".encode())
        conn.execute("select audit.attach('playground.veh', 'thing')")
        before = count(conn)
        act(conn, "app_owner")
        for statement in statements:
            conn.execute(
                statement.replace("{t}", "playground.veh")
                .replace("{k}", "veh_pkey")
                .replace("before_attach", prepared)
                .encode()
            )
        for setting in ("plan_cache_mode", "row_security", "datestyle", "lock_timeout", "work_mem",
                        "jit_above_cost", "parallel_setup_cost"):  # fmt: skip
            conn.execute(f"reset {setting}".encode())
        assert count(conn) == before + events
        for event in newest(conn, events) if events else []:
            assert event["organization_id"] == "1", event
            assert event["db_user"] == "app_owner"


READ_ONLY = {
    "the transaction, for itself": "perform set_config('transaction_read_only', 'on', true)",
    "the transaction, for good": "perform set_config('transaction_read_only', 'on', false)",
    "the next ones": "perform set_config('default_transaction_read_only', 'on', false)",
    "a statement's time": "perform set_config('statement_timeout', '1ms', false)",
    "a lock's time": "perform set_config('lock_timeout', '1ms', false)",
    "the space for temporary files": "perform set_config('work_mem', '64kB', false)",
    "row security": "perform set_config('row_security', 'off', false)",
    "function bodies": "perform set_config('check_function_bodies', 'off', false)",
    "the way of names": "perform set_config('search_path', '', false)",
    "constraints": "execute 'set constraints all immediate'",
    "the table locked": "execute 'lock table svc.team in access exclusive mode'",
    "asserts off": "perform set_config('plpgsql.check_asserts', 'off', false)",
    "an error of the engine's kind": "raise exception using errcode = 'XX000', message = 'x'",
    "an assert": "assert false",
    "a deadlock's code": "raise exception using errcode = '40P01', message = 'x'",
    "a serialization failure's code": "raise exception using errcode = '40001', message = 'x'",
    "our own code": "raise exception using errcode = 'AU001', message = 'x'",
    "no code": "raise exception using errcode = '00001', message = 'x'",
    "a message of megabytes": "raise exception '%', repeat('x', 1000000)",
    "a division": "perform 1 / 0",
}


@attack(
    BREAK,
    "Code of the application that leaves the transaction read-only, or a setting that breaks the"
    " next statement",
    outcome="S",
)
@pytest.mark.parametrize("how", READ_ONLY)
@pytest.mark.parametrize("road", ["mapping", "cast"])
def test_code_of_another_service_breaks_no_action(arena: Arena, how: str, road: str) -> None:
    """The service owns nothing but an enum, or a function, that somebody else's table uses."""
    with arena.trial() as conn:
        build(conn, f"begin if current_user <> 'other_owner' then {READ_ONLY[how]}; end if; end")
        conn.execute("create cast (svc.mood as json) with function svc.mood_json(svc.mood)")
        act(conn, "app_owner")
        conn.execute("create table playground.used (id int primary key, organization_id int,"
                     " mood svc.mood)")  # fmt: skip
        conn.execute("grant all on playground.used to app")
        if road == "mapping":
            conn.execute(
                "select audit.attach('playground.used', 'thing', organization =>"
                " 'coalesce(r.organization_id::text, svc.hostile_text(r.id * 0 + 1))')"
            )
        else:
            conn.execute("select audit.attach('playground.used', 'thing')")
        before = count(conn)
        act(conn, "app")
        conn.execute("select set_config('auditdb.context', %s, true)",
                     ("no json" if road == "cast" else "",))  # fmt: skip
        own = "null" if road == "mapping" else "1"
        for statement in (
            f"insert into playground.used values (1, {own}, 'fine')",
            "update playground.used set id = 2, mood = 'sad'",
            "create temp table afterwards as select 1 as a",
            "delete from playground.used",
            "update public.membership set role = 'ADMIN' where user_id = 2",
        ):
            conn.execute(statement.encode())
        assert count(conn) == before + 4


@attack(
    BREAK,
    "Code of the application that leaves the transaction read-only, or a setting that breaks the"
    " next statement",
    outcome="S",
    twin=True,
)
@pytest.mark.parametrize(
    "how", ["the transaction, for itself", "a division", "an assert", "our own code"]
)
def test_code_that_a_naive_mapping_calls_breaks_the_action(arena: Arena, how: str) -> None:
    with arena.trial() as conn:
        build(conn, f"begin {READ_ONLY[how]}; end")
        conn.execute(
            "create trigger mapped after insert on svc.thing for each row"
            " execute function naive.mapped()"
        )
        conn.execute("insert into naive.mapping values ('svc.thing', 'svc.hostile_text(r.id)')")
        act(conn, "app")
        with pytest.raises(psycopg.Error):
            conn.execute("insert into svc.thing values (1, 1)")


@attack(BREAK, "statement_timeout, lock_timeout, cancel during capture", outcome="S")
def test_a_cancel_by_a_mapping_is_a_cancel(arena: Arena) -> None:
    """Nobody can tell it from a real one: action and event fail together."""
    with arena.trial() as conn:
        build(conn, "begin raise exception using errcode = 'query_canceled'; end")
        conn.execute("select audit.attach('svc.thing', 'thing', organization =>"
                     " 'svc.hostile_text(r.organization_id)')")  # fmt: skip
        before = count(conn)
        act(conn, "app")
        with pytest.raises(pg.QueryCanceled), conn.transaction():
            conn.execute("insert into svc.thing values (1, 1)")
        assert count(conn) == before
        look(conn)
        assert not conn.execute("select from svc.thing").fetchall()


LIES = {
    "a cast of an enum to json that always says the same": "mood = 'sad'",
    "a cast of a row type to json that always says the same": "pair = '(5,6)'",
}


@attack(
    SILENCE, "A cast of another service that says the same of every value, and a context that"
    " is no JSON", outcome="S",
)  # fmt: skip
@pytest.mark.parametrize("context", ["", "no json"])
@pytest.mark.parametrize("what", LIES)
def test_a_cast_that_lies_hides_no_update(arena: Arena, what: str, context: str) -> None:
    with arena.trial() as conn:
        build(conn, "begin end")
        conn.execute("create cast (svc.mood as json) with function svc.mood_json(svc.mood)")
        conn.execute("create cast (svc.pair as json) with function svc.pair_json(svc.pair)")
        conn.execute("select audit.attach('svc.thing', 'thing')")
        conn.execute("insert into svc.thing values (1, 1, 'fine', '(1,2)')")
        before = count(conn)
        act(conn, "app")
        conn.execute("select set_config('auditdb.context', %s, true)", (context,))
        conn.execute(f"update svc.thing set {LIES[what]}".encode())
        assert count(conn) == before + 1, "the update left no event"


@attack(
    SILENCE, "A cast of another service that says the same of every value, and a context that"
    " is no JSON", outcome="S", twin=True,
)  # fmt: skip
def test_a_naive_log_that_compares_json_believes_the_cast(arena: Arena) -> None:
    with arena.trial() as conn:
        build(conn, "begin end")
        for statement in (
            "create cast (svc.mood as json) with function svc.mood_json(svc.mood)",
            "create function svc.plain() returns trigger language plpgsql security definer as $$"
            " begin if to_jsonb(old) <> to_jsonb(new) then insert into svc.told values (1);"
            " end if; return null; end $$",
            "create table svc.told (i int)",
            "create trigger plain after update on svc.thing for each row"
            " execute function svc.plain()",
            "insert into svc.thing values (1, 1, 'fine')",
            "update svc.thing set mood = 'sad'",
        ):
            conn.execute(statement.encode())
        assert conn.execute("select from svc.told").fetchall() == []


# Statements of those who hold something, against the log and its functions.
REFUSED = {
    "an event trigger": ("app_owner", "create event trigger e on ddl_command_end"
                         " execute function playground.et()"),
    "a publication of all tables": ("app_owner", "create publication p for all tables"),
    "a publication of the schema": ("app_owner", "create publication p for tables in schema audit"),
    "a subscription": ("app_owner", "create subscription s connection 'dbname=x' publication p"
                       " with (connect = false)"),
    "an extension's home": ("app_owner", "create extension plpgsql schema audit"),
    "a table in the schema": ("app_owner", "create table audit.mine (i int)"),
    "a view in the schema": ("other_owner", "create view audit.log2 as select 1"),
    "a function in the schema": ("other_owner",
                                 "create function audit_private.append(int) returns int"
                                 " language sql as 'select 1'"),
    "an operator in the schema": ("other_owner", "create operator audit.= (leftarg = int4,"
                                  " rightarg = text, function = playground.f)"),
    "a cast of an event": ("other_owner", "create cast (audit.event as text) with inout"),
    "a rule on a view of the log": ("app_auditor", "create rule r as on insert to audit.log"
                                    " do instead nothing"),
    "a trigger on a view of the log": ("app_auditor", "create trigger t instead of insert on"
                                       " audit.log for each row execute function playground.tf()"),
    "statistics of one's own": ("app_reader", "create statistics playground.s on actor_id, source"
                                " from audit.event"),
    "an index of one's own": ("app_auditor", "create index on audit.event (actor_id)"),
    "a column default": ("app_auditor", "alter table audit.event alter source set default 'x'"),
    "a storage": ("app_auditor", "alter table audit.event alter details set storage plain"),
    "the statistics target": ("app_reader", "alter table audit.event alter actor_id"
                              " set statistics 1000"),
    "autovacuum": ("app_owner", "alter table audit.event_default set (autovacuum_enabled = off)"),
    "the sequence moved": ("app", "select setval('audit.event_id_seq', 1)"),
    "the sequence used": ("app_owner", "select nextval('audit.event_id_seq')"),
    "the sequence altered": ("app_owner", "alter sequence audit.event_id_seq restart"),
    "a foreign key to the log": ("app_owner", "create table playground.fk (t timestamptz, i bigint,"
                                 " foreign key (t, i) references audit.event)"),
    "a table that inherits": ("app_owner", "create table playground.i () inherits (audit.action)"),
    "a typed table": ("stranger", "create table playground.l of audit.finding"),
    "default privileges": ("app_owner", "alter default privileges for role audit_owner"
                           " grant all on tables to app"),
    "default privileges in the schema": ("other_owner", "alter default privileges for role"
                                         " audit_mapper grant execute on functions to app"),
    "settings of the owner's role": ("app_owner", "alter role audit_owner set search_path = svc"),
    "settings of the mapper's role": ("other_owner", "alter role audit_mapper set role = app"),
    "settings of the database": ("other_owner", "alter database {db} set search_path = svc"),
    "a function of ours renamed": ("oper", "alter function audit.doctor() rename to d"),
    "a function of ours taken": ("oper", "alter function audit.doctor() owner to oper"),
    "a security label": ("app_owner", "security label on table audit.event is 'x'"),
    "a lock of the log": ("oper", "lock table audit.event in access exclusive mode"),
    "a lock of the attachments": ("oper", "lock table audit_private.attachment in exclusive mode"),
    "vacuum's truncation": ("oper", "truncate audit_private.attestation"),
    "the keys copied": ("oper", "copy audit_private.signing_key to stdout"),
    "the keys by a cursor": ("oper",
                             "declare c cursor for select * from audit_private.signing_key"),
    "the keys by a partition of nothing": ("app_auditor", "select tableoid, * from"
                                           " only audit_private.signing_key"),
    "the keys by a rule": ("app_auditor", "create table playground.k as"
                           " select * from audit_private.signing_key"),
    "set role through a chain": ("app_owner", "set role audit_operator; set role audit_owner"),
    "reassigning": ("app_owner", "reassign owned by audit_mapper to app_owner"),
    "dropping what is owned": ("app_owner", "drop owned by audit_mapper"),
    "a transform": ("app_owner", "create transform for jsonb language plpgsql"
                    " (from sql with function playground.f(internal))"),
    "a language": ("app_owner", "create language plpgsql2 handler plpgsql_call_handler"),
    "a conversion": ("stranger", "create default conversion audit.c for 'UTF8' to 'LATIN1' from"
                     " utf8_to_iso8859_1"),
    "an operator class": ("other_owner", "create operator class svc.o default for type int4 using"
                          " btree as storage int4"),
    "an access method": ("other_owner", "create access method a type index handler bthandler"),
}  # fmt: skip


@attack(FORGE, "ALTER TABLE, CREATE RULE, CREATE TRIGGER by non-owners", outcome="B")
@pytest.mark.parametrize("how", REFUSED)
def test_no_definition_of_others_touches_the_log(arena: Arena, how: str) -> None:
    role, statement = REFUSED[how]
    with arena.trial() as conn:
        for function in (
            "create function playground.f() returns int language sql as 'select 1'",
            "create function playground.et() returns event_trigger language plpgsql as 'begin end'",
            "create function playground.tf() returns trigger language plpgsql as"
            " 'begin return null; end'",
        ):
            conn.execute(function.encode())
        act(conn, role)
        with pytest.raises(psycopg.Error) as caught:
            for part in statement.format(db=conn.info.dbname).split("; "):
                conn.execute(part.encode())
        assert not isinstance(caught.value, pg.SyntaxError), caught.value


SHADOWED = {
    "a temporary table": "create temp table {} (id int, secret text, mapping jsonb, kind text)",
    "a temporary view": "create temp view {} as select 1 as id, 'x'::text as secret",
    "a table on the path": "create table svc.{} (id int, secret text)",
}


@attack(
    RIGHTS,
    "A login with CREATE on a schema of the caller's path shadows functions and operators",
    outcome="B",
)
@pytest.mark.parametrize("how", SHADOWED)
@pytest.mark.parametrize("name", ["signing_key", "attachment", "event", "pg_class", "pg_roles",
                                  "attestation", "pg_trigger", "request"])  # fmt: skip
def test_no_temporary_object_is_taken_for_the_logs_own(arena: Arena, how: str, name: str) -> None:
    assert arena.key
    with arena.trial() as conn:
        look(conn)
        before = conn.execute("select * from audit.doctor() order by 1, 2, 3, 4").fetchall()
        act(conn, "other_owner")
        conn.execute(SHADOWED[how].format(name).encode())
        conn.execute("create temp table mine (id int primary key, organization_id int)")
        conn.execute("grant all on all tables in schema svc to public")
        look(conn)
        conn.execute("set search_path = svc, pg_temp, public, pg_catalog")
        assert conn.execute("select * from audit.doctor() order by 1, 2, 3, 4").fetchall() == before
        events = count(conn)
        conn.execute("update public.membership set role = 'ADMIN' where user_id = 2")
        assert count(conn) == events + 1
        conn.execute("select set_config('auditdb.viewer', %s, true)", (sign(arena.key, "1", "1"),))
        act(conn, "app_reader")
        row = conn.execute("select count(*) as n from audit.event").fetchone()
        assert row is not None and row["n"] > 0


ADMINS = {
    "a materialized view that is stale": (
        "create materialized view public.adm as select organization_id, user_id from"
        " public.membership where role in ('OWNER', 'ADMIN')",
        "update public.membership set role = 'MEMBER' where user_id = 1", True),
    "a view whose columns are swapped later": (
        "create view public.adm as select organization_id, user_id from public.membership"
        " where role = 'OWNER'",
        "drop view public.adm; create view public.adm as select user_id as organization_id,"
        " organization_id as user_id from public.membership", False),
    "a table of admins that is emptied": (
        "create table public.adm as select organization_id, user_id from public.membership",
        "delete from public.adm", False),
    "a view that is dropped": (
        "create view public.adm as select organization_id, user_id from public.membership"
        " where role = 'OWNER'", "drop view public.adm", False),
    "a table whose column is renamed": (
        "create table public.adm as select organization_id, user_id from public.membership"
        " where role = 'OWNER'", "alter table public.adm rename column user_id to who", False),
}  # fmt: skip


@attack(READ, "Token of a removed or demoted admin, or of a pending invitee", outcome="B")
@pytest.mark.parametrize("how", ADMINS)
def test_a_rule_for_admins_that_changed_opens_nothing_new(arena: Arena, how: str) -> None:
    make, change, stale = ADMINS[how]
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute(make.encode())
        conn.execute("select audit.attach('public.adm', 'admin')")
        look(conn)
        for part in change.split("; "):
            conn.execute(part.encode())
        for user, organization in (("66", "1"), ("1", "66"), ("4", "2")):
            look(conn)
            token = sign(arena.key, user, organization)
            conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
            act(conn, "app_reader")
            assert conn.execute("select count(*) as n from audit.event").fetchone() == {"n": 0}
        if not stale and "emptied" not in how:
            assert findings(conn, "severity = 'critical' and (object ~ 'adm' or problem ~ 'adm')")


@attack(READ, "SELECT from a partition, through a view or a function; the keys; SET ROLE",
        outcome="B")  # fmt: skip
@pytest.mark.parametrize(
    "statement",
    [
        "create temp table t (like audit.event including all); insert into t select * from"
        " audit.event; select count(*) as n from t",
        "create function pg_temp.f() returns bigint language sql security definer as"
        " 'select count(*) from audit.event'; select pg_temp.f() as n",
        "create temp view v with (security_invoker = false) as select * from audit.event;"
        " select count(*) as n from v",
        "prepare p as select count(*) as n from audit.event; execute p",
        "declare c cursor for select count(*) as n from audit.event; fetch c",
        "select count(*) as n from only audit.event",
        "select count(e) as n from audit.event as e",
        "select count(*) as n from (table audit.event) as t",
        "select count(*) as n from audit.event natural join audit.event as b",
        "select count(*) as n from audit.event as e, lateral (select e.actor_id) as x",
        "select count(*) as n from jsonb_populate_recordset(null::audit.event, (select"
        " jsonb_agg(e) from audit.event as e))",
        "select count(*) as n from audit.log where audit.log.old_values is null",
        "select count(*) as n from audit.event tablesample bernoulli (100)",
    ],
)
def test_no_way_of_asking_shows_a_reader_more(arena: Arena, statement: str) -> None:
    """Without a token: nothing. The last part asks."""
    with arena.login("app_reader") as conn:
        *before, last = statement.split("; ")
        for part in before:
            conn.execute(part.encode())
        row = conn.execute(last.encode()).fetchone()
        assert row is not None and next(iter(row.values())) == 0, row


@attack(SILENCE, "Attached table dropped and recreated", outcome="D")
@pytest.mark.parametrize("how", [
    "drop table {t}; create table {t} (id int primary key, organization_id int, v text)",
    "create table playground.other (like {t} including all); drop table {t}; alter table"
    " playground.other rename to veh",
    "drop table {t}; create view {t} as select 1 as id, 1 as organization_id, 'x'::text as v",
    "drop table {t}; create table {t} (id int, organization_id int, v text) partition by list (id)",
])  # fmt: skip
def test_a_table_put_in_the_place_of_another_is_found(arena: Arena, how: str) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute("create table playground.veh (id int primary key, organization_id int,"
                     " v text)")  # fmt: skip
        conn.execute("select audit.attach('playground.veh', 'thing')")
        for part in how.replace("{t}", "playground.veh").split("; "):
            conn.execute(part.encode())
        assert findings(conn, "severity = 'critical' and object ~ 'veh'")


@attack(SILENCE, "DISABLE TRIGGER by the owner, also when re-enabled within the transaction",
        outcome="D")  # fmt: skip
@pytest.mark.parametrize("how", [
    "create rule hide as on update to {t} do instead nothing",
    "create rule turn as on delete to {t} do instead update {t} set v = v",
    "alter table {t} rename column organization_id to v2",
    "create table playground.child () inherits ({t})",
    "alter trigger auditdb_update on {t} rename to auditdb_update2",
    "drop trigger auditdb_update on {t}; create trigger auditdb_update after update on {t} for each"
    " row execute function suppress_redundant_updates_trigger()",
    "drop trigger auditdb_update on {t}; create trigger auditdb_update after update on {t} for each"
    " statement execute function suppress_redundant_updates_trigger()",
    "alter table {t} owner to other_owner",
    "update pg_trigger set tgqual = null where false; alter table {t} disable trigger"
    " auditdb_update; alter table {t} enable trigger auditdb_update",
    "create function playground.never() returns trigger language plpgsql as 'begin return null;"
    "end'; create trigger aaa before update on {t} for each row execute function"
    " playground.never()",
])  # fmt: skip
def test_what_its_owner_does_to_a_table_is_found(arena: Arena, how: str) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute("create table playground.veh (id int primary key, organization_id int,"
                     " v text)")  # fmt: skip
        conn.execute("select audit.attach('playground.veh', 'thing')")
        before = findings(conn, "object ~ 'veh' or problem ~ 'veh'")
        if "owner to" not in how and "pg_trigger" not in how:
            act(conn, "app_owner")
        for part in how.replace("{t}", "playground.veh").split("; "):
            conn.execute(part.encode())
        harmless = "create rule" in how or "playground.never" in how
        # Of these the application itself sees that its statement did nothing, or something else.
        assert harmless or findings(conn, "object ~ 'veh|child' or problem ~ 'veh'") != before


@attack(RIGHTS, "An operator stores a mapping that runs when another attaches, re-attaches or asks"
        " doctor", outcome="B")  # fmt: skip
@pytest.mark.parametrize("what", ["default", "check", "generated", "index", "policy", "statistics",
                                  "trigger", "rule", "view"])  # fmt: skip
@pytest.mark.parametrize("call", ["doctor", "reattach", "attach", "detach", "list_tables"])
def test_no_code_on_a_table_runs_when_others_look_at_it(arena: Arena, what: str, call: str) -> None:
    """Defaults, checks, policies and the like are code too; nobody has to write a mapping."""
    with arena.trial() as conn:
        build(conn, SAYS)
        conn.execute(
            "create function svc.frozen(i int) returns int immutable language plpgsql as"
            " 'begin perform svc.hostile(); return i; end'"
        )
        conn.execute("create table svc.bait (id int primary key, organization_id int)")
        conn.execute("insert into svc.bait values (1, 1)")
        for statement in {
            "default": ["alter table svc.bait alter organization_id set default svc.frozen(1)"],
            "check": ["alter table svc.bait add check (svc.frozen(id) = id) not valid"],
            "generated": ["alter table svc.bait add g int generated always as (svc.frozen(id))"
                          " stored"],
            "index": ["create unique index on svc.bait (svc.frozen(id))"],
            "policy": ["alter table svc.bait enable row level security",
                       "alter table svc.bait force row level security",
                       "create policy p on svc.bait using (svc.hostile_true(id))"],
            "statistics": ["create statistics svc.s on svc.frozen(id), id from svc.bait"],
            "trigger": ["create function svc.t() returns trigger language plpgsql as"
                        " 'begin perform svc.hostile(); return null; end'",
                        "create trigger t after insert or update or delete on svc.bait"
                        " for each statement execute function svc.t()"],
            "rule": ["create rule r as on insert to svc.bait do also select svc.hostile()"],
            "view": ["create view svc.v as select id, organization_id from svc.bait"
                     " where svc.hostile_true(id)"],
        }[what]:  # fmt: skip
            conn.execute(statement.encode())
        target = "svc.v" if what == "view" else "svc.bait"
        kind = "admin" if what == "view" else "thing"
        attach = f"audit.attach('{target}', '{kind}', organization => 'organization_id'" + (
            ", subject => 'id')" if kind == "admin" else ")"
        )
        if call != "attach":
            conn.execute(f"select {attach}".encode())
        look(conn)
        statement = {
            "doctor": "select * from audit.doctor()", "list_tables": "select audit.list_tables()",
            "reattach": f"select audit.reattach('{target}')", "attach": f"select {attach}",
            "detach": f"select audit.detach('{target}')",
        }[call]  # fmt: skip
        with heard(conn) as said, contextlib.suppress(psycopg.Error), conn.transaction():
            conn.execute(statement.encode())
        assert whom(said) <= {"audit_mapper"}, f"{call} ran it as {whom(said)}"


@attack(FORGE, "A context that claims another actor", outcome="S")
@pytest.mark.parametrize(
    "context",
    [
        '{"actor_id": "boss", "actor_id": "me"}',
        '{"ACTOR_ID": "boss"}',
        '{"actor_id": "a\\n2026-01-01 boss"}',
        '{"actor_id": "\u202eboss"}',
        '{"actor_id": "boss", "db_user": "postgres", "id": 1, "occurred_at": "2001-01-01"}',
        '{"actor_id": "boss", "transaction_id": "1", "captured_from": "x", "action": "a.b"}',
        '{"actor_id": "boss", "organization_id": "2", "target_id": "9", "subject_id": "9"}',
        '{"actor_id": "boss", "result": "denied", "old_values": {}, "new_values": {"role": "x"}}',
    ],
)
def test_a_context_changes_nothing_that_the_server_knows(arena: Arena, context: str) -> None:
    with arena.trial() as conn:
        act(conn, "app")
        conn.execute("select set_config('auditdb.context', %s, true)", (context,))
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
        event = newest(conn)[0]
        assert (event["db_user"], event["action"], event["captured_from"], event["result"]) == (
            "app", "membership.role_changed", "public.membership", "success")  # fmt: skip
        assert (event["organization_id"], event["target_id"], event["subject_id"]) == (
            "1", "1,2", "2")  # fmt: skip
        assert event["occurred_at"].year > 2025
        assert event["new_values"] == {"role": "ADMIN"}


@attack(FORGE, "SET ROLE audit_owner by the installing role, after install", outcome="B")
@pytest.mark.parametrize("target", ["audit.event", "audit_private.signing_key",
                                    "audit_private.attachment",
                                    "audit.event_default", "audit.log", "pg_catalog.pg_class",
                                    "information_schema.tables"])  # fmt: skip
@pytest.mark.parametrize("kind", ["admin", "thing", "membership"])
def test_nothing_of_the_log_or_the_system_is_attached(
    empty_db: Database, target: str, kind: str
) -> None:
    """Nor by one who may make themselves owner of the log, as the installing role may."""
    admin = empty_db.connect()
    admin.execute("grant create on schema audit to app_owner")
    for by in (None, "app_owner"):
        conn = empty_db.connect(by)
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(
                "select audit.attach(%s::regclass, %s, organization => 'null::text',"
                " subject => 'null::text')" if kind != "thing" else
                "select audit.attach(%s::regclass, %s)", (target, kind))  # fmt: skip
        assert "internal" not in str(caught.value)
    admin.execute("revoke create on schema audit from app_owner")


def names(rows: list[dict[str, Any]]) -> set[str]:
    """Return the names in rows."""
    return {str(row["name"]) for row in rows}


@attack(RIGHTS, "Code that audit_mapper meets makes that role's functions SECURITY INVOKER, or sets"
        " their path", outcome="B")  # fmt: skip
def test_every_definer_function_of_the_log_pins_its_path_and_is_owned_by_two_roles(
    arena: Arena,
) -> None:
    with arena.trial() as conn:
        loose = conn.execute(
            "select p.oid::regprocedure::text as name from pg_proc as p join pg_namespace as n"
            " on n.oid = p.pronamespace where n.nspname in ('audit', 'audit_private')"
            " and prosecdef and (not coalesce(proconfig, '{}') @>"
            " array['search_path=pg_catalog, pg_temp'] or proowner not in"
            " ('audit_owner'::regrole, 'audit_mapper'::regrole))"
        ).fetchall()
        strict = conn.execute(
            "select p.oid::regprocedure::text as name from pg_proc as p"
            " where proowner = 'audit_mapper'::regrole and (proisstrict or not prosecdef)"
        ).fetchall()
        assert names(loose) == set()
        assert names(strict) == set()
