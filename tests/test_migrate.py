"""Each statement of docs/migrate.md is run beside a log of the shape that it leads from."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import auditdb
from tests.server import Server

ROOT = Path(__file__).resolve().parent.parent
STATEMENTS = dict(
    re.findall(
        r"<!-- sql: ([a-z_ -]+) -->\n```sql\n(.*?)```", (ROOT / "docs/migrate.md").read_text(), re.S
    )
)
WORKFLOW = "create table workflow (id int primary key, organization_id int, name text)"

# Of the same shape as theirs, and no more.
SUPA_AUDIT = """
create schema audit;
create type audit.operation as enum ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE');
create table audit.record_version (
    id bigserial primary key, record_id uuid, old_record_id uuid, op audit.operation not null,
    ts timestamptz not null default now(), table_oid oid not null, table_schema name not null,
    table_name name not null, record jsonb, old_record jsonb
);
create function audit.to_op(op text) returns audit.operation language sql
    as $$ select op::audit.operation $$;
create function audit.insert_update_delete_trigger() returns trigger
language plpgsql security definer as $$
begin
    insert into audit.record_version (op, table_oid, table_schema, table_name, record, old_record)
    select audit.to_op(tg_op), tg_relid, tg_table_schema, tg_table_name,
        case when tg_op <> 'DELETE' then to_jsonb(new) end,
        case when tg_op <> 'INSERT' then to_jsonb(old) end;
    return coalesce(new, old);
end $$;
create trigger audit_i_u_d before insert or update or delete on workflow
    for each row execute function audit.insert_update_delete_trigger();
"""
AUDIT_TRIGGER = """
create extension hstore;
create schema audit;
create table audit.logged_actions (
    event_id bigserial primary key, schema_name text not null, table_name text not null,
    relid oid not null, session_user_name text, action_tstamp_tx timestamptz not null,
    action_tstamp_stm timestamptz not null, action_tstamp_clk timestamptz not null,
    transaction_id bigint, application_name text, client_addr inet, client_port integer,
    client_query text, action text not null, row_data hstore, changed_fields hstore,
    statement_only boolean not null
);
create function audit.if_modified_func() returns trigger language plpgsql security definer
    set search_path = pg_catalog, public as $$
declare
    _row audit.logged_actions;
begin
    _row := row(nextval('audit.logged_actions_event_id_seq'), tg_table_schema, tg_table_name,
        tg_relid, session_user, now(), now(), clock_timestamp(), txid_current(), null, null, null,
        null, left(tg_op, 1), hstore(case when tg_op = 'INSERT' then new else old end),
        case when tg_op = 'UPDATE' then hstore(new) - hstore(old) end, false);
    insert into audit.logged_actions values (_row.*);
    return null;
end $$;
create trigger audit_trigger_row after insert or update or delete on workflow
    for each row execute function audit.if_modified_func();
"""
OLD = {
    "supa_audit": (SUPA_AUDIT, "record_version"),
    "audit-trigger": (AUDIT_TRIGGER, "logged_actions"),
}


def test_every_statement_is_run() -> None:
    assert len(STATEMENTS) == 7
    assert STATEMENTS.keys() == {"rename"} | {
        f"{what} {name}" for what in ("end", "close", "together") for name in OLD
    }


@pytest.mark.parametrize("name", OLD)
def test_both_logs_run_side_by_side_and_are_read_together(server: Server, name: str) -> None:
    former, table = OLD[name]
    dsn = make_conninfo(
        host=server.host, port=server.port, user=server.user, password=server.password
    )
    admin = psycopg.connect(dsn, dbname="postgres", autocommit=True)
    admin.execute("drop database if exists migrate with (force)")
    admin.execute("create database migrate template template0")
    dsn = make_conninfo(dsn, dbname="migrate")
    try:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(WORKFLOW)
            conn.execute(former.encode())
            conn.execute("insert into workflow values (1, 1, 'before')")
            with pytest.raises(auditdb.AuditError, match="exists already and is not auditdb's"):
                auditdb.install(dsn)
            conn.execute(STATEMENTS["rename"].encode())
            auditdb.install(dsn)
            auditdb.attach(conn, "public.workflow", "workflow")
            conn.execute("update workflow set name = 'both'")
            conn.execute(STATEMENTS[f"end {name}"].encode())
            conn.execute(STATEMENTS[f"close {name}"].encode())
            conn.execute("update workflow set name = 'after'")
            together = conn.execute(STATEMENTS[f"together {name}"].encode()).fetchall()
            count = sql.SQL("select count(*) from former_audit.{}").format(sql.Identifier(table))
            assert conn.execute(count).fetchone() == (2,)
    finally:
        admin.execute("drop database migrate with (force)")
        admin.close()
    both = {row[1]: row for row in together if row[5] and row[5].get("name") == "both"}
    assert both.keys() == {"auditdb", name}
    assert {row[3] for row in together} == {"public.workflow"}
    assert both[name][4]["name"] == "before"
    assert [(row[1], row[5]["name"]) for row in together if row[5]["name"] != "both"] == [
        (name, "before"),
        ("auditdb", "after"),
    ]
