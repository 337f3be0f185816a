"""The role that a session took by SET ROLE is recorded beside its login."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Literal

from tests.conftest import Database

CHANGE = "update public.workflow set name = name || '!' where id = 1"


@pytest.fixture
def api(db: Database) -> Iterator[Database]:
    """A database behind PostgREST: one login, which takes the role of each request."""
    db.connect().execute("""
        create role web_user; create role web_admin;
        grant web_user, web_admin to app;
        grant select, insert, update, delete on all tables in schema public to web_user, web_admin;
        grant audit_writer to web_user, web_admin;
        insert into workflow (id, organization_id, name) values (1, 1, 'w');
        create function as_admin() returns void language sql set role = 'web_admin'
            as $$ update public.workflow set name = name || '!' where id = 1 $$;
        create function as_owner() returns void language sql security definer
            as $$ update public.workflow set name = name || '!' where id = 1 $$;
        create function as_owner_as_admin() returns void language plpgsql security definer as $$
        begin
            perform set_config('role', 'web_admin', true);
        exception when insufficient_privilege or invalid_parameter_value then
        end $$;
    """)
    yield db
    db.connect().execute("drop owned by web_user, web_admin; drop role web_user, web_admin")


def last(db: Database) -> tuple[Any, Any]:
    event = db.events()[-1]
    return event["db_user"], event["db_role"]


@pytest.mark.parametrize(
    ("statements", "role"),
    [
        ([CHANGE], None),
        (["set role web_user", CHANGE], "web_user"),
        (["set role web_user", "reset role", CHANGE], None),
        (["set role web_user", "set role none", CHANGE], None),
        (["set role web_user", "set session authorization default", CHANGE], None),
        (["set role web_user", "discard all", CHANGE], None),
        (["set role app", CHANGE], None),
        (["select set_config('role', 'web_user', false)", CHANGE], "web_user"),
        (["begin", "set local role web_user", CHANGE, "commit"], "web_user"),
        (["begin", "set local role web_user", "commit", CHANGE], None),
        (["begin", "set role web_user", "rollback", CHANGE], None),
        (["begin", "set local role web_admin", "savepoint a", "set local role web_user",
          "rollback to a", CHANGE, "commit"], "web_admin"),
        (["select as_admin()"], "web_admin"),
        (["select as_admin()", CHANGE], None),
        (["set role web_user", "select as_admin()"], "web_admin"),
        (["select as_owner()"], None),
        (["set role web_user", "select as_owner()"], "web_user"),
        (["set role web_user", "select as_owner_as_admin()", CHANGE], "web_user"),
    ],
)  # fmt: skip
def test_the_role_in_force_is_recorded_beside_the_login(
    api: Database, statements: list[str], role: str | None
) -> None:
    conn = api.connect("app")
    for statement in statements:
        conn.execute(statement.encode())
    assert last(api) == ("app", role)


def test_a_recorded_event_has_the_role_too_and_no_argument_names_another(api: Database) -> None:
    conn = api.connect("app")
    conn.execute("set role web_user")
    conn.execute("select audit.record_event('auth.login', '1')")
    assert last(api) == ("app", "web_user")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        conn.execute("select audit.record_event('auth.login', '1', db_role => 'web_admin')")


@pytest.mark.parametrize("context", [{"db_role": "boss"}, {"details": {"db_role": "boss"}}])
def test_no_context_names_the_role(api: Database, context: dict[str, Any]) -> None:
    conn = api.connect("app")
    with conn.transaction():
        value = Literal(psycopg.types.json.Jsonb({"actor_id": "7", **context}))
        conn.execute(SQL("select set_config('auditdb.context', ({})::text, true)").format(value))
        conn.execute(CHANGE.encode())
    assert last(api) == ("app", None)


def test_a_login_names_no_role_that_it_may_not_become(api: Database) -> None:
    conn = api.connect("app")
    for statement in ("set role app_owner", "select set_config('role', 'app_owner', false)"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(statement.encode())
    conn.execute(CHANGE.encode())
    assert last(api) == ("app", None)


def test_a_superuser_who_takes_a_role_is_named_with_it(api: Database) -> None:
    conn = api.connect()
    conn.execute("set role web_user")
    conn.execute(CHANGE.encode())
    assert last(api) == (conn.info.user, "web_user")
    conn.execute("reset role")
    conn.execute("set session authorization app")
    conn.execute(CHANGE.encode())
    assert last(api) == ("app", None)


def test_the_degraded_rungs_have_the_role_too(api: Database) -> None:
    api.connect("app_owner").execute("alter table workflow add column late text")
    conn = api.connect("app")
    conn.execute("set role web_user")
    conn.execute(CHANGE.encode())
    assert last(api) == ("app", "web_user")


def test_an_auditor_reads_the_role_in_the_view(api: Database) -> None:
    conn = api.connect("app")
    conn.execute("set role web_user")
    conn.execute(CHANGE.encode())
    for view in ("log", "workflow_log"):
        rows = api.connect("app_auditor").execute(
            SQL("select db_user, db_role from audit.{} order by id desc limit 1").format(SQL(view))
        )
        assert rows.fetchall() == [("app", "web_user")]
