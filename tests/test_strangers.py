"""An operator has no hold on tables that another login owns, whichever function they call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.conftest import Database

# What a captured table's audit rests on: its mapping, its functions and who may use them, its
# triggers, and what audit_mapper may read for it.
STATE = """
select jsonb_build_array(
    (select jsonb_agg(to_jsonb(a) order by id) from audit_private.attachment as a),
    (select jsonb_agg(jsonb_build_array(oid::regprocedure::text, prosrc, proowner, proacl)
        order by oid::regprocedure::text) from pg_proc
        where pronamespace::regnamespace::text ~ '^audit'),
    (select jsonb_agg(jsonb_build_array(tgrelid, tgname, tgfoid, tgenabled) order by oid)
        from pg_trigger where not tgisinternal),
    (select jsonb_agg(jsonb_build_array(attrelid, attname, attacl) order by attrelid, attnum)
        from pg_attribute where attacl is not null))::text
"""

# Every function that an operator may call and that is about a table, with arguments by their types
# that would silence it: the table, its kind, its mapping with every column ignored.
CALLS = """
select format('select %s.%I(%s)', pronamespace::regnamespace, proname, (
    select string_agg(case type::regtype::text
        when 'regclass' then quote_literal(a.target) || '::regclass'
        when 'integer' then a.id::text
        when 'text' then case when n <= pronargs - pronargdefaults
            then quote_literal(a.kind) else 'null' end
        when 'jsonb' then quote_literal(a.mapping || jsonb_build_object(
            'ignore', a.mapping -> 'columns', 'given', '{"ignore": "all"}'::jsonb)) || '::jsonb'
        when 'text[]' then '(select array_agg(attname::text) from pg_attribute where attrelid = '
            || a.target::oid || ' and attnum > 0)'
        else 'null' end, ', ' order by n)
    from unnest(proargtypes) with ordinality as t (type, n)))
from pg_proc cross join audit_private.attachment as a
where pronamespace::regnamespace::text ~ '^audit' and a.target = 'workflow'::regclass
    and has_function_privilege('audit_operator', pg_proc.oid, 'execute')
    and prorettype <> 'trigger'::regtype
    and ('regclass'::regtype = any (proargtypes::oid[])
        or 'integer'::regtype = any (proargtypes::oid[]) and proname !~ 'month')
order by proname
"""


@contextmanager
def operator(db: Database, login: str) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection on which a login that is an operator acts; all is rolled back."""
    conn = db.connect()
    with conn.transaction(force_rollback=True):
        conn.execute(f"grant audit_operator to {login}".encode())
        conn.execute(f"set local session authorization {login}".encode())
        yield conn


def effects(db: Database, login: str) -> list[str]:
    """Return the calls by which a login changes how the table of app_owner is captured."""
    calls = [row[0] for row in db.connect().execute(CALLS.encode()).fetchall()]
    changing = []
    with operator(db, login) as conn:
        for call in calls:
            with conn.transaction(force_rollback=True):
                before = state(conn, login)
                try:
                    with conn.transaction():
                        conn.execute(call.encode())
                except psycopg.Error:
                    continue
                if state(conn, login) != before:
                    changing.append(call)
    return changing


def state(conn: psycopg.Connection[Any], login: str) -> Any:
    conn.execute("reset session authorization")
    row = conn.execute(STATE.encode()).fetchone()
    conn.execute(f"set local session authorization {login}".encode())
    return row


def test_no_operator_changes_the_capture_of_a_table_of_another_login(db: Database) -> None:
    assert effects(db, "stranger") == []


def test_naive_twin_each_of_these_calls_is_open_to_the_owner(db: Database) -> None:
    # Attaching and detaching, at the least: the arguments do bite.
    assert len(effects(db, "app_owner")) >= 2


@pytest.mark.parametrize(
    "call",
    ["audit.attach('workflow', 'workflow', ignore => '{name}')", "audit.attach('workflow', 'x')",
     "audit.detach('workflow')", "audit.reattach('workflow')"],
)  # fmt: skip
def test_no_operator_attaches_or_detaches_a_table_of_another_login(db: Database, call: str) -> None:
    with operator(db, "stranger") as conn:
        before = state(conn, "stranger")
        with conn.transaction(force_rollback=True):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
                conn.execute(f"select {call}".encode())
            assert state(conn, "stranger") == before


def test_what_is_generated_is_closed_to_public_whatever_the_default_privileges(
    db: Database,
) -> None:
    db.connect().execute(
        "alter default privileges for role audit_owner grant execute on functions to public"
    )
    owner = db.connect("app_owner")
    owner.execute("create table invoice (id int primary key, total numeric)")
    owner.execute("select audit.attach('invoice', 'invoice')")
    opened = db.connect().execute(
        "select p.oid::regprocedure::text from pg_proc as p, aclexplode(coalesce(proacl, "
        "acldefault('f', proowner)))"
        " where pronamespace::regnamespace::text ~ '^audit' and grantee = 0"
    )
    assert opened.fetchall() == []
