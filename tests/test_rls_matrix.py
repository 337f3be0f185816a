"""Row-level security: role, organisation, membership, token and shape of the query, every cell."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql

from tests.conftest import Database
from tests.viewer import sign

ROLES = ["app_reader", "app_auditor", "app", "app_owner", "stranger"]
ORGANIZATIONS = ["1", "2", "99"]

# Each user's membership of organisation 1, and of organisation 2 but for 5 none.
MEMBERSHIPS = {
    "owner": "1",
    "member": "2",
    "admin elsewhere": "3",
    "admin of both": "5",
    "demoted": "6",
    "removed": "7",
    "invited": "8",
    "unknown": "99",
}
ADMIN_OF = {"owner": {"1"}, "admin elsewhere": {"2"}, "admin of both": {"1", "2"}}

TOKENS = ["good", "none", "expired", "too long-lived", "other key", "retired key", "cut short"]

VIEWS = ["log", "auth_log", "membership_log", "api_key_log", "workflow_log", "role_change",
         "impersonation", "api_key_lifecycle", "login_activity"]  # fmt: skip

SETUP = """
alter table membership add column accepted boolean not null default true;
select audit.attach('public.membership', 'membership');
insert into app_user (id, email) select i, i || '@x.test' from generate_series(5, 8) as i;
insert into membership (organization_id, user_id, role, accepted) values
    (1, 5, 'ADMIN', true), (2, 5, 'OWNER', true), (1, 6, 'ADMIN', true), (1, 7, 'ADMIN', true),
    (1, 8, 'ADMIN', false);
update membership set role = 'MEMBER' where user_id in (6, 8);
update membership set role = 'ADMIN' where user_id = 8;
update membership set role = 'GUEST' where user_id = 4;
delete from membership where user_id = 7;
insert into api_key (organization_id, user_id, name, key_hash)
values (1, 1, 'a', 'x'), (2, 3, 'b', 'y');
insert into workflow (organization_id, name) values (1, 'w'), (2, 'v');
"""
RECORDED = """
select audit.record_event('auth.login', o, 'user', u, u, actor_id => u)
from (values ('1', '1'), ('2', '3')) as v (o, u);
select audit.record_event('auth.impersonation_started', o, 'user', u, u, impersonator_id => 'boss')
from (values ('1', '1'), ('2', '3')) as v (o, u);
"""

_number = itertools.count()
Shape = Callable[[psycopg.Connection[Any]], set[Any]]


def query(statement: str) -> Shape:
    """Return the shape of one statement whose first column is the organisation."""
    return lambda conn: {row[0] for row in conn.execute(statement.encode()).fetchall()}


def prepared(conn: psycopg.Connection[Any]) -> set[Any]:
    """Prepare and run twice under a generic plan."""
    name = f"p{next(_number)}"
    conn.execute("set local plan_cache_mode = force_generic_plan")
    conn.execute(
        f"prepare {name} (text) as select organization_id from audit.event"
        " where source <> $1".encode()
    )
    rows = [row for _ in range(2) for row in conn.execute(f"execute {name} ('x')".encode())]
    conn.execute(f"deallocate {name}".encode())
    return {row[0] for row in rows}


def cursor(conn: psycopg.Connection[Any]) -> set[Any]:
    """Fetch forwards and backwards."""
    conn.execute("declare c scroll cursor for select organization_id from audit.event")
    rows = conn.execute("fetch all from c").fetchall()
    rows += conn.execute("fetch backward all from c").fetchall()
    conn.execute("close c")
    return {row[0] for row in rows}


def copied(conn: psycopg.Connection[Any]) -> set[Any]:
    """Copy the table, and a query, to the client."""
    found: set[Any] = set()
    for source in ("(select organization_id from audit.event)", "audit.event (organization_id)"):
        with conn.cursor() as cur, cur.copy(f"copy {source} to stdout".encode()) as rows:
            found |= {row[0] for row in rows.rows()}
    return found


def explained(conn: psycopg.Connection[Any]) -> set[Any]:
    """EXPLAIN ANALYZE runs the query; its counts are those of the visible rows."""
    plan = conn.execute(
        "explain (analyze, timing off, summary off, costs off) select from audit.event"
    ).fetchall()
    rows = re.search(r"rows=(\d+)", plan[0][0])
    assert rows is not None
    return {"some"} if int(rows[1]) else set()


def function(conn: psycopg.Connection[Any]) -> set[Any]:
    """A SECURITY INVOKER function of the caller's own, and a DO block."""
    conn.execute(
        "create function pg_temp.peek() returns setof text language plpgsql as"
        " $$ begin return query select organization_id from audit.event; end $$"
    )
    return {row[0] for row in conn.execute("select * from pg_temp.peek()").fetchall()}


SHAPES: dict[str, Shape] = {
    "table": query("select organization_id from audit.event"),
    "join": query("select a.organization_id from audit.event as a join audit.event as b"
                  " on a.subject_id = b.subject_id"),
    "union": query("select organization_id from audit.event"
                   " union all select organization_id from audit.log"),
    "subquery": query("select o from (select max(organization_id) as o, id from audit.event"
                      " group by id) as x"),
    "exists": query("select o from unnest('{1,2,99}'::text[]) as o where exists"
                    " (select from audit.event where organization_id = o)"),
    "lateral": query("select e.organization_id from unnest('{1,2,99}'::text[]) as o cross join"
                     " lateral (select * from audit.event where organization_id = o limit 1) as e"),
    "aggregate": query("select unnest(coalesce(array_agg(distinct organization_id), '{}'))"
                       " from audit.event"),
    "window": query("select max(organization_id) over (partition by action) from audit.event"),
    "keyset": query("select organization_id from audit.event where (occurred_at, id) <"
                    " ('infinity', 1) order by occurred_at desc, id desc limit 50"),
    "prepared statement": prepared,
    "cursor": cursor,
    "copy": copied,
    "explain": explained,
    "function": function,
}  # fmt: skip
SHAPES |= {f"view {view}": query(f"select organization_id from audit.{view}") for view in VIEWS}


@pytest.fixture(scope="module")
def board(request: pytest.FixtureRequest) -> Iterator[Database]:
    """One database for all cells, which only read."""
    from tests.attacks.conftest import scratch

    with scratch(request, "auditdb_matrix") as database:
        with psycopg.connect(database.conninfo("app_owner")) as conn:
            conn.execute(SETUP.encode())
        with psycopg.connect(database.conninfo("app")) as conn:
            conn.execute(RECORDED.encode())
        yield database


@pytest.fixture(scope="module")
def tokens(board: Database) -> dict[str, Callable[[str, str], str]]:
    """Every way to sign for a user and an organisation, rightly and wrongly."""
    with psycopg.connect(board.dsn) as conn:
        row = conn.execute("select audit.create_key()").fetchone()
        assert row is not None
        retired = str(row[0])
        conn.execute(
            "update audit_private.signing_key set retires_at = now() - interval '1 second'"
        )
    good = board.key
    return {
        "good": lambda user, org: sign(good, user, org),
        "none": lambda user, org: "",
        "expired": lambda user, org: sign(good, user, org, seconds=-1),
        "too long-lived": lambda user, org: sign(good, user, org, seconds=3700),
        "other key": lambda user, org: sign(good.split(".")[0] + ".secret", user, org),
        "retired key": lambda user, org: sign(retired, user, org),
        "cut short": lambda user, org: sign(good, user, org)[:-1],
    }


def cells() -> Iterator[tuple[str, str, str]]:
    """Return membership, organisation and token of each cell."""
    for state in MEMBERSHIPS:
        for organization in ORGANIZATIONS:
            for token in TOKENS:
                yield state, organization, token


@pytest.mark.parametrize("shape", SHAPES)
def test_every_cell_shows_the_organization_of_a_good_token_of_its_admin_and_nothing_else(
    board: Database, tokens: dict[str, Callable[[str, str], str]], shape: str
) -> None:
    shown = 0
    with psycopg.connect(board.dsn, autocommit=True) as conn:
        for role in ROLES:
            conn.execute("reset session authorization")
            conn.execute(sql.SQL("set session authorization {}").format(sql.Identifier(role)))
            conn.execute("begin")
            for state, organization, token in cells():
                conn.execute("savepoint cell")
                conn.execute(
                    "select set_config('auditdb.viewer', %s, true)",
                    (tokens[token](MEMBERSHIPS[state], organization),),
                )
                if role in ("app", "app_owner", "stranger"):
                    with pytest.raises(pg.InsufficientPrivilege):
                        SHAPES[shape](conn)
                elif role == "app_auditor":
                    assert len(SHAPES[shape](conn) - {None}) >= (1 if shape == "explain" else 2)
                else:
                    may = token == "good" and organization in ADMIN_OF.get(state, ())
                    expected = {"some"} if shape == "explain" else {organization}
                    assert SHAPES[shape](conn) == (expected if may else set()), (
                        role, state, organization, token)  # fmt: skip
                    shown += may
                conn.execute("rollback to cell")
                if role in ("app", "app_owner", "stranger") and token == "none":
                    break  # refused before any token is looked at
            conn.execute("rollback")
    assert shown == 4


@pytest.mark.parametrize("role", ROLES)
def test_no_partition_is_read_by_its_name(board: Database, role: str) -> None:
    with psycopg.connect(board.dsn, autocommit=True) as admin:
        partitions = admin.execute(
            "select inhrelid::regclass::text from pg_inherits"
            " where inhparent = 'audit.event'::regclass"
        ).fetchall()
    conn = board.connect(role)
    for (partition,) in partitions:
        for statement in (f"select from {partition}", f"copy {partition} to stdout"):
            with pytest.raises(pg.InsufficientPrivilege):
                conn.execute(statement.encode())


EVENTS = 200_000
BULK = f"""
insert into audit.event (action, result, actor_type, source, organization_id, target_type,
    target_id, subject_id, captured_from, occurred_at, old_values, new_values, details)
select (array['membership.role_changed', 'auth.login', 'api_key.created', 'workflow.modified'])
        [1 + n % 4], 'success', 'user', 'web', (n % 1000)::text, 'x', n::text, (n % 97)::text,
    't', now() - ({EVENTS} - n) * interval '1 ms', '{{"a": 1}}', '{{"a": 2}}', '{{"ip": "::1"}}'
from generate_series(1, {EVENTS}) as n;
"""

FAST = {
    "newest": "select * from audit.event order by occurred_at desc, id desc limit 50",
    "keyset": "select * from audit.event where (occurred_at, id) < (now(), 1000000)"
    " order by occurred_at desc, id desc limit 50",
    "since": "select * from audit.event where occurred_at >= now() - interval '1 day'",
    "filter": "select * from audit.event where action = 'auth.login'",
    "aggregate": "select action, count(*) from audit.event group by action",
    "view": "select * from audit.log order by occurred_at desc, id desc limit 50",
    "role_change": "select * from audit.role_change",
    "impersonation": "select * from audit.impersonation",
    "api_key_lifecycle": "select * from audit.api_key_lifecycle",
    "login_activity": "select * from audit.login_activity",
    "prepared": "execute p",
    "cursor": "fetch all from c",
    "copy": "copy (select * from audit.event) to stdout",
}


def test_the_policy_is_asked_once_and_the_index_serves_at_200_000_events(board: Database) -> None:
    with psycopg.connect(board.dsn, autocommit=True) as conn:
        conn.execute(
            "insert into membership (organization_id, user_id, role) values (1, 3, 'OWNER')"
        )
        conn.execute(BULK.encode())
        conn.execute("analyze audit.event")
        conn.execute("set track_functions = 'all'")
        # Empty partitions are scanned as they please.
        partitions = [
            str(row[0]).removeprefix("audit.")
            for row in conn.execute(
                "select distinct tableoid::regclass::text from audit.event"
                " where captured_from = 't'"
            )
        ]
        conn.execute("begin")
        conn.execute("select set_config('auditdb.viewer', %s, true)", (sign(board.key, "1", "1"),))
        conn.execute("set local session authorization app_reader")
        conn.execute("prepare p as select * from audit.event")

        def calls() -> int:
            row = conn.execute(
                "select pg_stat_get_xact_function_calls(oid) from pg_proc"
                " where oid = 'audit.viewer_organization()'::regprocedure"
            ).fetchone()
            assert row is not None
            return int(row[0] or 0)

        for shape, statement in FAST.items():
            if shape == "cursor":
                conn.execute("declare c cursor for select * from audit.event")
            before = calls()
            if shape == "copy":
                with conn.cursor() as cur, cur.copy(statement.encode()) as rows:
                    found = sum(1 for _ in rows.rows())
            else:
                found = len(conn.execute(statement.encode()).fetchall())
            assert found > 0 or shape == "impersonation", shape
            # The view of impersonations reads the log twice, and asks once for each.
            assert calls() - before == (2 if shape == "impersonation" else 1), shape
            if shape in ("cursor", "copy"):
                continue
            plan = conn.execute(f"explain (costs off) {statement}".encode()).fetchall()
            text = "\n".join(row[0] for row in plan)
            for name in partitions:
                # That of all events, or that of sign-ins and keys.
                used = f"{name}_organization_id_(occurred_at_id|action_target_id)_"
                assert re.search(used, text), text
                assert f"Seq Scan on {name} " not in text, text
        conn.execute("rollback")
