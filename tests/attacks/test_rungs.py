"""A row is told alike, be it read by the generated code, by the fallback or on the last rung."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from auditdb.operate import doctor
from tests.attacks import naive
from tests.attacks.conftest import lost
from tests.attacks.report import attack
from tests.conftest import Database

GROUP = "Misfiled events"
RUNGS = "A writer who has the row read by the fallback, or by nothing, to file or show it otherwise"
FAST, FALLBACK, LAST = "generated code", "fallback", "last rung"
SECRET = "s3cret-canary-0815"
URL = f"https://ann:{SECRET}@h/?token={SECRET}"
OTHER = '{"actor_id": "7", "organization_id": "other", "details": {}}'
INVALID = "no json"

# A table, how it is attached, a row and what becomes of it, and the identifier that it must have:
# a digest where there is none.
CASES: dict[str, tuple[str, str, str, str | None]] = {
    "a composite key": (
        "a int, b boolean, c inet, d char(4), organization_id text, primary key (a, b, c, d)",
        "'thing'", "1, true, '10.0.0.1', 'ab', 'own'", "1,true,10.0.0.1/32,ab",
    ),
    "a key made of a secret": (
        "id text primary key, token text, organization_id text", "'thing'",
        f"'pre_{SECRET}', '{SECRET}', 'own'", None,
    ),
    "a key that is an address with a password": (
        "id text primary key, organization_id text", "'thing'", f"'{URL}', 'own'", None,
    ),
    "a long key with a password": (
        "id text primary key, organization_id text", "'thing'",
        f"'{URL}' || repeat('x', 300), 'own'", None,
    ),
    "a key that holds a uuid which is a secret": (
        "id text primary key, secret uuid, organization_id text", "'thing'",
        "'k:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'own'",
        None,
    ),
    "a key of a range": (
        "id tstzrange primary key, organization_id text", "'thing'",
        "'[2020-01-01 00:00+00,2020-01-02 00:00+00)', 'own'",
        '["2020-01-01 00:00:00+00","2020-01-02 00:00:00+00")',
    ),
    "a key of an interval": (
        "id interval primary key, organization_id text", "'thing'", "'1 day 02:00', 'own'",
        "1 day 02:00:00",
    ),
}  # fmt: skip
SETTINGS = ["set timezone = 'Asia/Kathmandu'", "set datestyle = 'German'",
            "set intervalstyle = 'iso_8601'", "set extra_float_digits = -10"]  # fmt: skip


@pytest.fixture(params=[FAST, FALLBACK, LAST])
def rung(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def descend(db: Database, rung: str) -> psycopg.Connection[Any]:
    """Return a connection of the application on which rows are read by that rung."""
    if rung == LAST:
        db.connect().execute("alter function audit_private.rescue security invoker")
    conn = db.connect("app", row_factory=dict_row)
    if rung != FAST:
        conn.execute("set row_security = off")
    return conn


@attack(GROUP, RUNGS, outcome="S")
@pytest.mark.parametrize("settings", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_an_identifier_is_the_same_on_every_rung(
    db: Database, case: str, rung: str, settings: bool
) -> None:
    columns, kind, row, identifier = CASES[case]
    db.connect("app_owner").execute(
        f"create table thing ({columns}, n int); grant all on thing to app;"
        f" select audit.attach('thing', {kind})".encode()
    )
    conn = descend(db, rung)
    for setting in SETTINGS if settings else ():
        conn.execute(setting.encode())
    conn.execute(f"insert into thing values ({row}, 1)".encode())
    conn.execute("update thing set n = 2")
    conn.execute("delete from thing")
    events = db.events("target_type = 'thing'")
    assert [e["organization_id"] for e in events] == ["own"] * 3
    assert SECRET not in repr(events) and "a0eebc99" not in repr(events)
    targets = {e["target_id"] for e in events}
    if identifier is not None:
        assert targets == {identifier}
    else:
        key = row.split(", '")[0] if "||" not in row else row.rsplit(", ", 1)[0]
        digest = (
            db.connect().execute(f"select array[audit_private.digest({key})]".encode()).fetchone()
        )
        assert digest == ([*targets],)


@attack(GROUP, RUNGS, outcome="S")
@pytest.mark.parametrize("context", [OTHER, "", INVALID])
def test_an_organization_that_the_statement_made_is_not_the_context_s(
    db: Database, rung: str, context: str
) -> None:
    owner = db.connect("app_owner")
    owner.execute("""
        create table team (id int primary key, organization_id text);
        create table work (id int primary key, team_id int);
        grant all on team, work to app;
        select audit.attach('work', 'thing', organization =>
            'select t.organization_id from public.team as t where t.id = r.team_id')""")
    conn = descend(db, rung)
    conn.execute("select set_config('auditdb.context', %s, false)", (context,))
    conn.execute(
        "with made as (insert into team values (1, 'own') returning id)"
        " insert into work select 1, id from made"
    )
    (event,) = db.events("target_type = 'thing'")
    if rung == LAST:
        assert event["organization_id"] is None and "organization" in lost(event)
    else:
        assert event["organization_id"] == "own", event
    assert ("context" in lost(event)) == (context == INVALID)
    assert (event["details"] or {}).get("details") is None


@attack(GROUP, RUNGS, outcome="S")
def test_a_table_without_organizations_takes_the_context_s_on_every_rung(
    db: Database, rung: str
) -> None:
    db.connect("app_owner").execute(
        "create table plain (id int primary key, n int); grant all on plain to app;"
        " select audit.attach('plain', 'plain')"
    )
    conn = descend(db, rung)
    conn.execute("select set_config('auditdb.context', %s, false)", (OTHER,))
    conn.execute("insert into plain values (1, 1)")
    (event,) = db.events("target_type = 'plain'")
    assert (event["organization_id"], event["actor_id"]) == ("other", "7")
    assert "organization" not in lost(event)
    if rung == FAST:
        assert event["details"] is None


@attack(GROUP, RUNGS, outcome="S")
def test_an_organization_that_is_too_long_is_none_and_not_another_on_every_rung(
    db: Database, rung: str
) -> None:
    db.connect("app_owner").execute(
        "create table plain (id int primary key, organization_id text); grant all on plain to app;"
        " select audit.attach('plain', 'plain')"
    )
    conn = descend(db, rung)
    conn.execute("select set_config('auditdb.context', %s, false)", (OTHER,))
    conn.execute("insert into plain values (1, repeat('o', 201))")
    (event,) = db.events("target_type = 'plain'")
    assert event["organization_id"] is None and "organization" in lost(event)


@attack(GROUP, RUNGS, outcome="S", twin=True)
def test_a_naive_fallback_files_a_row_with_the_context(db: Database) -> None:
    """One that catches whatever fails, and has the context alone to say whose it is."""
    admin = db.connect()
    admin.execute(naive.SETUP)
    admin.execute("""
        create table public.work (id int primary key, team_id int);
        create function naive.filed() returns trigger language plpgsql as $$
        declare o text;
        begin
            begin
                select 1 / 0 into o;
            exception when others then
                o := current_setting('auditdb.context', true)::jsonb ->> 'organization_id';
            end;
            insert into naive.log (action, organization_id) values ('x', o);
            return null;
        end $$;
        create trigger filed after insert on public.work
            for each row execute function naive.filed()""")
    admin.execute("select set_config('auditdb.context', %s, false)", (OTHER,))
    admin.execute("insert into work values (1, 1)")
    row = admin.execute("select organization_id from naive.log where action = 'x'").fetchone()
    assert row == ("other",)


def test_a_column_that_came_later_is_redacted_by_the_kind_of_its_table(
    db: Database, rung: str
) -> None:
    db.connect("app_owner").execute(
        "create table hidden (user_id int primary key, hash text); grant all on hidden to app;"
        " select audit.attach('hidden', 'password');"
        " alter table hidden add blob bytea, add data text, add created_at timestamptz"
    )
    conn = descend(db, rung)
    conn.execute("insert into hidden values (1, 'h', 'canary', 'canary', '2020-01-01')")
    (event,) = db.events("captured_from = 'public.hidden'")
    assert "canary" not in repr(event) and "63616e617279" not in repr(event)
    if rung != LAST:
        assert event["new_values"]["created_at"].startswith("2020-01-01")


def test_a_role_that_is_redacted_is_not_in_the_details(db: Database, rung: str) -> None:
    db.connect("app_owner").execute("select audit.attach('membership', 'membership',"
                                    " redact => '{role}')")  # fmt: skip
    descend(db, rung).execute("update membership set role = 'CANARY' where user_id = 2")
    (event,) = db.events()
    assert "CANARY" not in repr(event) and "MEMBER'" not in repr(event["details"])


def test_facts_are_events_also_where_the_role_changes(db: Database, rung: str) -> None:
    db.connect("app_owner").execute("""
        alter table app_user add role text;
        select audit.attach('app_user', 'user', role => 'role', admin => 'false')""")
    if rung == LAST:
        pytest.skip("of which nothing could be read")
    descend(db, rung).execute(
        "update app_user set role = 'admin', password_hash = 'h', email = 'x@y' where id = 1"
    )
    assert db.actions() == [
        "membership.role_changed", "auth.email_changed", "auth.password_changed",
    ]  # fmt: skip
    first, *others = db.events()
    assert first["new_values"] == {"role": "admin"}
    assert first["details"]["new_role"] == "admin"
    assert not any("new_role" in (e["details"] or {}) for e in others)


@pytest.mark.parametrize("when", ["reading", "the fresh look"])
def test_code_that_raises_what_the_log_raises_itself_is_no_success(db: Database, when: str) -> None:
    raises = {"reading": "true", "the fresh look": "n > 1"}[when]
    db.connect("app_owner").execute(
        f"""
        create sequence calls; grant usage on calls to public;
        create table thing (id int primary key, v int); grant all on thing to app;
        create function late() returns text language plpgsql as $$
        declare n int := nextval('public.calls');
        begin
            if {raises} then raise exception using errcode = 'AU001'; end if;
            return null;
        end $$;
        select audit.attach('thing', 'thing', organization => 'public.late()',
            subject => 'r.v')""".encode()
    )
    conn = db.connect("app")
    conn.execute("select set_config('auditdb.context', %s, false)", (OTHER,))
    conn.execute("insert into thing values (1, 2)")
    (event,) = db.events("target_type = 'thing'")
    assert (event["target_id"], event["subject_id"]) == ("1", "2")
    assert event["organization_id"] is None and "organization" in lost(event)


def test_a_lookup_that_returns_a_secret_gives_its_digest(db: Database) -> None:
    owner = db.connect("app_owner")
    owner.execute("""
        create table session_token (id int primary key, token text, organization_id text);
        create table visit (id int primary key, token_id int, token text);
        grant all on session_token, visit to app;
        insert into session_token values (1, 'canary-token', 'own');
        select audit.attach('visit', 'visit',
            organization => 'select t.organization_id from public.session_token as t'
                ' where t.token = r.token',
            target_id => 'select t.token from public.session_token as t where t.id = r.token_id',
            subject => 'select upper(t.token) from public.session_token as t'
                ' where t.id = r.token_id')""")
    db.connect("app").execute("insert into visit values (1, 1, 'canary-token')")
    (event,) = db.events("target_type = 'visit'")
    assert "canary" not in repr(event).lower()
    assert event["organization_id"] == "own"
    assert len(event["target_id"]) == len(event["subject_id"]) == 64


def test_details_of_a_context_that_are_empty_are_none(db: Database) -> None:
    conn = db.connect("app")
    conn.execute("select set_config('auditdb.context', %s, false)", (OTHER,))
    conn.execute("update workflow set name = 'x'; insert into workflow values (5, 1, 'a')")
    assert [e["details"] for e in db.events()] == [None]


def test_a_trigger_that_fires_for_less_is_mended_and_not_attested(db: Database) -> None:
    admin = db.connect()
    for narrowed in ("when (false)", "of name"):
        of, when = (narrowed, "") if narrowed.startswith("of") else ("", narrowed)
        admin.execute(
            f"""
            do $$ begin execute 'create or replace trigger auditdb_update after update {of}
                on workflow for each row {when} execute function ' || (
                select tgfoid::regprocedure from pg_trigger where tgname = 'auditdb_update'
                    and tgrelid = 'workflow'::regclass); end $$""".encode()
        )
        found = [f for f in doctor.diagnose(admin) if f.object == "public.workflow"]
        assert found
        doctor.fix(admin, found)
        assert [f for f in doctor.diagnose(admin) if f.object == "public.workflow"] == []
        before = len(db.events())
        db.connect("app").execute("insert into workflow (organization_id, name) values (1, 'w')")
        db.connect("app").execute("update workflow set organization_id = 2")
        db.connect("app").execute("update workflow set config = '{\"a\": 1}'")
        assert len(db.events()) > before + 2
        db.connect("app").execute("delete from workflow")


def test_detaching_takes_back_what_attaching_opened(db: Database) -> None:
    owner = db.connect("app_owner")
    readable = """select array_agg(attname::text order by attname) from pg_attribute
        where attrelid = 'workflow'::regclass and attnum > 0
            and has_column_privilege('audit_mapper', attrelid, attnum, 'select')"""
    assert owner.execute(readable).fetchone() == (["id", "organization_id"],)
    owner.execute("create table other (id int primary key, workflow_id int)")
    owner.execute("select audit.attach('other', 'workflow', parent => 'workflow_id')")
    owner.execute("select audit.detach('other')")
    assert owner.execute(readable).fetchone() == (["id", "organization_id"],)
    owner.execute("select audit.detach('workflow_step')")
    assert owner.execute(readable).fetchone() == (None,)


def test_an_identifier_that_holds_a_plain_secret_is_a_digest(db: Database) -> None:
    # Letters alone: nothing but the redacted column tells that it is one.
    with psycopg.connect(db.dsn, autocommit=True) as conn:
        conn.execute("create table public.box (id text primary key, org_id int, door_code text)")
        conn.execute("select audit.attach('public.box', 'box', redact => '{door_code}')")
        conn.execute("insert into public.box values ('x-sesamopen', 1, 'sesamopen')")
        told = conn.execute(
            "select target_id, details ? 'degraded' from audit.event where target_type = 'box'"
        ).fetchone()
    assert told is not None
    assert "sesam" not in told[0]
    assert told[1] is not True
