"""Writes docs/generated.md, the functions that attaching writes: python -m tests.generated."""

from __future__ import annotations

import re

import psycopg

import auditdb
from tests.conftest import ROLES
from tests.server import running

EXAMPLE = """\
create type plan as enum ('free', 'paid');
create table team (id int primary key, organization_id int not null);
create table project (
    id int primary key,
    team_id int not null references team,
    plan plan not null,
    name text not null,
    deploy_token text,
    updated_at timestamptz
);
select audit.attach('project', 'project',
    organization => 'select t.organization_id from public.team as t where t.id = r.team_id');
"""
FUNCTIONS = """
select pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc')
from pg_proc as p join audit_private.attachment as a on a.target = 'project'::regclass
where p.pronamespace::regnamespace::text ~ '^audit'
    and p.proname
        ~ format('^(capture|baseline|image|fall_back|read|organization)_%s(_[a-z]+)?$', a.id)
order by array_position('{update,insert,delete,truncate}', substring(p.proname, '_([a-z]+)$')),
    p.proname
"""
HEADER = """\
# Generated code

What `audit.attach` writes for one table, made by `make reference`. Each operation has a function of
its own, so that a connection compiles what it uses. It runs as `audit_owner`, and meets code of the
application only by what runs as `audit_mapper` (`audit_private.read_1`,
`audit_private.organization_1`), in a block that is rolled back. `audit_private.append`, which all
tables share, adds who acts and inserts the event.
"""


def markdown(dsn: str) -> str:
    """Return the document, from a database in which auditdb is installed."""
    with psycopg.connect(dsn) as conn:
        conn.execute("set search_path = public")
        conn.execute(EXAMPLE.encode())
        rows = conn.execute(FUNCTIONS.encode()).fetchall()
        conn.rollback()
    parts = [HEADER.rstrip(), f"```sql\n{EXAMPLE.rstrip()}\n```"]
    for definition, comment in rows:
        parts += [f"{comment}:", f"```sql\n{definition.rstrip()}\n```"]
    return (
        re.sub(
            r"\b(capture|baseline|image|fall_back|read|organization)_\d+",
            r"\1_1",
            "\n\n".join(parts),
        )
        + "\n"
    )


def main() -> None:
    """Print the document, from a server of its own."""
    with running() as server:
        dsn = f"host={server.host} port={server.port} user={server.user} dbname=postgres"
        auditdb.install(dsn)
        with psycopg.connect(dsn) as conn:
            conn.execute(ROLES.encode())
        print(markdown(dsn), end="")


if __name__ == "__main__":
    main()
