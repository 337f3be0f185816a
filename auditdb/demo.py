"""A day at two organisations on an embedded PostgreSQL: the main job, end to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.text import Text

import auditdb
from auditdb import embedded
from auditdb.cli import render
from auditdb.read.summary import change
from auditdb.values.plain import counted

SCHEMA = """
create role shop_owner login;
create role shop_app login;
create role shop_reader login;
grant create, usage on schema public to shop_owner;
grant audit_operator to shop_owner;
grant audit_writer to shop_app;
grant audit_reader to shop_reader;
set role shop_owner;

create table organization (id text primary key, name text not null);
create table users (
    id text primary key,
    organization_id text references organization on delete set null,
    email text not null unique,
    password_hash text,
    two_factor_enabled boolean not null default false
);
create table membership (
    organization_id text not null references organization on delete cascade,
    user_id text not null references users on delete cascade,
    role text not null check (role in ('OWNER', 'ADMIN', 'MEMBER')),
    primary key (organization_id, user_id)
);
create table api_key (
    id text primary key,
    organization_id text not null references organization on delete cascade,
    user_id text not null references users on delete cascade,
    name text not null,
    key_hash text not null,
    revoked_at timestamptz
);
create table workflow (
    id text primary key,
    organization_id text not null references organization on delete cascade,
    name text not null
);
create table workflow_step (
    workflow_id text not null references workflow on delete cascade,
    position int not null,
    sends_to text not null,
    primary key (workflow_id, position)
);
grant usage on schema public to shop_app;
grant select, insert, update, delete on all tables in schema public to shop_app;

insert into organization values ('acme', 'Acme'), ('globex', 'Globex');
insert into users (id, organization_id, email) values
    ('ann', 'acme', 'ann@acme.test'), ('bob', 'acme', 'bob@acme.test'),
    ('eve', 'acme', 'eve@acme.test'), ('fay', 'acme', 'fay@acme.test'),
    ('cat', 'globex', 'cat@globex.test'), ('dan', 'globex', 'dan@globex.test');
insert into membership values ('acme', 'ann', 'OWNER'), ('globex', 'cat', 'OWNER');
"""

# These tables need no options: their columns and keys are enough.
ATTACH = """
select audit.attach('membership', 'membership');
select audit.attach('api_key', 'api_key');
select audit.attach('workflow', 'workflow');
select audit.attach('workflow_step', 'workflow', parent => 'workflow_id');
select audit.attach('users', 'user');
"""

PEOPLE = {
    "ann": "Ann Archer", "bob": "Bob Baker", "cat": "Cat Carter", "dan": "Dan Dyer",
    "eve": "Eve Evans", "fay": "Fay Fox", "support-7": "Sam of Support",
}  # fmt: skip

FIFTEEN = """
    auth.login auth.password_changed auth.two_factor_enabled auth.two_factor_disabled
    auth.impersonation_started auth.impersonation_stopped auth.email_changed
    membership.added membership.removed membership.role_changed
    api_key.created api_key.revoked workflow.created workflow.modified workflow.deleted
""".split()


def run(
    *,
    keep: bool = False,
    console: Console | None = None,
    look: Callable[..., object] | None = None,
) -> bool:
    """Run the demo and print it; return whether every result was as expected.

    Args:
        keep: leave the server running and print its address.
        look: called at the end with the arguments of `auditdb.web` to show the log: `access`,
            `connect`, `key`, `names`. The server runs until it returns.
        console: where to print. Default: standard output.

    Raises:
        AuditError: the embedded server is not installed or did not start.
    """
    out = console or render.console()
    with embedded.server(keep=keep) as dsn:
        auditdb.install(dsn)
        with psycopg.connect(dsn) as conn:
            conn.execute(SCHEMA.encode())
            conn.execute(ATTACH.encode())
            conn.execute("reset role")
            key = str(_value(conn, "select audit.create_key()"))
        out.print("An application's tables, auditdb installed, five tables attached.\n")
        with psycopg.connect(_as(dsn, "shop_app"), autocommit=True) as app:
            _day(app)
        good = [_show_reading(out, dsn, key), _show_refusals(out, dsn), _show_count(out, dsn, keep)]
        if look is not None:
            access = {"viewer_id": "bob", "organizations": {"acme": "Acme"}}
            look(access, connect=_as(dsn, "shop_reader"), key=key, names=_names)
    return all(good)


def _day(app: psycopg.Connection[Any]) -> None:
    """Play a day: plain SQL on the tables, and functions for events without a table."""
    phone = {"ip": "203.0.113.9", "user_agent": "Firefox"}
    auditdb.record(
        app, auditdb.auth.login("ann", organization_id="acme", source="web", details=phone)
    )
    auditdb.record(
        app,
        auditdb.auth.login(
            "eve",
            organization_id="acme",
            source="web",
            result="failure",
            details={"reason": "wrong password"},
        ),
    )
    with auditdb.context(app, actor_id="ann", source="web", details={"request_id": "r-1", **phone}):
        app.execute(
            "insert into membership values "
            "('acme', 'bob', 'MEMBER'), ('acme', 'eve', 'MEMBER'), ('acme', 'fay', 'MEMBER')"
        )
        app.execute("update membership set role = 'ADMIN' where user_id = 'bob'")
    with auditdb.context(app, actor_id="bob", source="api", details={"request_id": "r-2"}):
        app.execute("insert into api_key values ('key-1', 'acme', 'bob', 'deploy', 'f00d')")
        app.execute("insert into workflow values ('w-1', 'acme', 'Reminders')")
        app.execute("insert into workflow_step values ('w-1', 1, 'attendee')")
        app.execute("update workflow_step set sends_to = 'host' where workflow_id = 'w-1'")
    with auditdb.context(app, actor_id="eve", source="web"):
        app.execute("update users set email = 'eve@new.test' where id = 'eve'")
        app.execute("update users set password_hash = 'x2' where id = 'eve'")
        app.execute("update users set two_factor_enabled = true where id = 'eve'")
        app.execute("update users set two_factor_enabled = false where id = 'eve'")
        try:
            with auditdb.attempt(
                app, "membership.role_changed", organization_id="acme", target_type="membership",
                target_id="acme,eve", subject_id="eve",
            ):  # fmt: skip
                raise PermissionError("only owners promote")
        except PermissionError:
            pass  # The application would answer 403; the event stays.
    auditdb.record(
        app,
        auditdb.auth.impersonation_started(
            "support-7",
            "bob",
            organization_id="acme",
            source="web",
            details={"reason": "ticket 4711"},
        ),
    )
    with auditdb.context(app, actor_id="bob", impersonator_id="support-7", source="web"):
        app.execute("update workflow set name = 'Gentle reminders' where id = 'w-1'")
    auditdb.record(
        app,
        auditdb.auth.impersonation_stopped(
            "support-7", "bob", organization_id="acme", source="web"
        ),
    )
    with auditdb.context(app, actor_id="ann", source="web"):
        app.execute("update api_key set revoked_at = now() where id = 'key-1'")
        app.execute("delete from workflow where id = 'w-1'")
    with auditdb.context(app, actor_id="scim", actor_type="system", source="scim"):
        app.execute("delete from membership where user_id = 'eve'")

    auditdb.record(app, auditdb.auth.login("cat", organization_id="globex", source="saml"))
    with auditdb.context(app, actor_id="cat", source="web"):
        app.execute("insert into membership values ('globex', 'dan', 'MEMBER')")


def _show_reading(out: Console, dsn: str, key: str) -> bool:
    """Print the log as an admin, a plain member and a stranger see it."""
    seen: dict[tuple[str, str], int] = {}
    with psycopg.connect(_as(dsn, "shop_reader")) as conn:
        reading = auditdb.reader(conn, key=key, viewer_id="bob", organization_id="acme")
        events = list(reading.events())
        render.print_table(
            out, reversed(events), title="The log of Acme, as its admin bob reads it"
        )
        for viewer, organization in (("fay", "acme"), ("cat", "acme"), ("cat", "globex")):
            other = auditdb.reader(conn, key=key, viewer_id=viewer, organization_id=organization)
            seen[viewer, organization] = sum(1 for _ in other.events())
    out.print()
    out.print(
        f"Acme's log, read by fay, a plain member:     {counted(seen['fay', 'acme'], 'event')}"
    )
    out.print(
        f"Acme's log, read by cat, who owns Globex:    {counted(seen['cat', 'acme'], 'event')}"
    )
    out.print(
        f"Globex's log, read by cat:                   {counted(seen['cat', 'globex'], 'event')}\n"
    )
    changes = {change(e) for e in events if e.action == "membership.role_changed"}
    return (
        "MEMBER → ADMIN" in changes
        and {e.organization_id for e in events} == {"acme"}
        and {e.result for e in events} == {"success", "failure", "denied"}
        and seen == {("fay", "acme"): 0, ("cat", "acme"): 0, ("cat", "globex"): 2}
    )


def _show_refusals(out: Console, dsn: str) -> bool:
    """Try to change the log as the application, and even as a superuser."""
    refused = True
    for name, role in (("application", "shop_app"), ("superuser", None)):
        for statement in (
            "update audit.event set actor_id = 'nobody'",
            "delete from audit.event",
            "truncate audit.event",
        ):
            answer = _refusal(lambda: _execute(dsn, role, statement))  # noqa: B023
            out.print(Text(f"{name}: {statement}"), Text(answer or "WAS NOT REFUSED", style="red"))
            refused = refused and bool(answer)
    out.print()
    return refused


def _refusal(statement: Callable[[], None]) -> str:
    try:
        statement()
    except psycopg.errors.InsufficientPrivilege as error:
        return f"refused: {error.diag.message_primary}"
    return ""


def _execute(dsn: str, role: str | None, statement: str) -> None:
    with psycopg.connect(_as(dsn, role)) as conn:
        conn.execute(statement.encode())


def _show_count(out: Console, dsn: str, keep: bool) -> bool:
    """Print what to do next, and how many of the fifteen actions were recorded."""
    with psycopg.connect(dsn) as conn:
        recorded = _value(
            conn, "select count(distinct action) from audit.event where action = any(%s)", [FIFTEEN]
        )
        data = _value(conn, "select current_setting('data_directory')")
        pid = _value(conn, r"select split_part(pg_read_file('postmaster.pid'), e'\n', 1)")
    if keep:
        out.print("The server is still running. To look around, and to stop it:", style="bold")
        wait = f"while [ -e {data}/postmaster.pid ]; do sleep 0.1; done"
        out.print(f"  psql '{dsn}'", soft_wrap=True)
        out.print(f"  kill -INT {pid}; {wait}; rm -r {data}\n", soft_wrap=True)
    out.print("Next, on a database of your own:")
    out.print("  auditdb --dsn postgresql://… install")
    out.print("  auditdb --dsn postgresql://… detect > auditdb.toml")
    out.print("  auditdb --dsn postgresql://… attach auditdb.toml\n")
    out.print(f"{recorded} of {len(FIFTEEN)} actions recorded", highlight=False)
    return bool(recorded == len(FIFTEEN))


def _names(kind: str, ids: Sequence[str]) -> dict[str, str]:
    """Return the names of the people of the demo, as an application would look them up."""
    return {found: PEOPLE[found] for found in ids if kind == "user" and found in PEOPLE}


def _value(conn: psycopg.Connection[Any], query: str, values: list[Any] | None = None) -> Any:
    row = conn.execute(query.encode(), values).fetchone()
    assert row is not None
    return row[0]


def _as(dsn: str, role: str | None) -> str:
    return make_conninfo(dsn, user=role) if role else dsn
