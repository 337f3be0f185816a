"""Reading what is not yours: every way to another organisation's events, and what it gives."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from tests.attacks.conftest import Arena, act, look
from tests.attacks.report import attack
from tests.server import Server, standby
from tests.viewer import sign

GROUP = "Reading what is not yours"
QUERY = "select count(*) as n from audit.event"


def take(notices: list[str], diagnostic: psycopg.errors.Diagnostic) -> None:
    notices.append(str(diagnostic.message_primary))


def b64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@contextlib.contextmanager
def reader(arena: Arena, token: str | None, role: str = "app_reader") -> Iterator[Any]:
    with arena.login(role) as conn:
        if token is not None:
            conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
        yield conn


def seen(conn: psycopg.Connection[Any], query: str = QUERY) -> int:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return int(row["n"])


@attack(GROUP, "No token, garbage, or a token that was tampered with", outcome="B", twin=True)
def test_the_right_token_shows_something_and_a_naive_setting_shows_all(arena: Arena) -> None:
    with reader(arena, sign(arena.key, "1", "1")) as conn:
        assert seen(conn) > 0
    with arena.login("naive_reader") as conn:
        for organization in ("1", "2"):
            conn.execute("select set_config('naive.organization', %s, true)", (organization,))
            assert seen(conn, "select count(*) as n from naive.log") > 0


def bad_tokens(key: str) -> dict[str, str | None]:
    good = sign(key, "1", "1")
    head, mac = good.rsplit(".", 1)
    version, key_id, user, organization, expires = head.split(".")
    secret = key.split(".")[1]
    later = str(int(time.time()) + 4000)
    return {
        "none": None,
        "empty": "",
        "garbage": "x",
        "null byte": "v1.\\x00",
        "truncated": good[:-1],
        "without mac": head + ".",
        "upper-case mac": f"{head}.{mac.upper()}",
        "upper-case version": "V1" + good[2:],
        "other version": "v2" + good[2:],
        "other mac": f"{head}.{'0' * 64}",
        "space before": " " + good,
        "space after": good + " ",
        "newline after": good + "\n",
        "quoted": f"'{good}'",
        "twice": good + "." + good,
        "other key": sign("none." + secret, "1", "1"),
        "other secret": sign(key.split(".")[0] + ".x", "1", "1"),
        "empty secret": sign(key.split(".")[0] + ".", "1", "1"),
        "key id with wildcard": sign("%." + secret, "1", "1"),
        "expired": sign(key, "1", "1", seconds=-1),
        "long ago": sign(key, "1", "1", seconds=-1_000_000_000),
        "too long-lived": sign(key, "1", "1", seconds=4000),
        "expiry moved": ".".join([version, key_id, user, organization, later, mac]),
        "organisation swapped": ".".join([version, key_id, user, b64("2"), expires, mac]),
        "user swapped": ".".join([version, key_id, b64("3"), organization, expires, mac]),
        "fields moved": ".".join([version, key_id, user + organization, "", expires, mac]),
        "padding": ".".join([version, key_id, user + "==", organization, expires, mac]),
        "cyrillic": good.replace("v1", "\u04751", 1),
        "full-width digits": good.replace(expires, expires.translate(
            {ord(str(i)): 0xFF10 + i for i in range(10)})),
        "other organisation": sign(key, "1", "2"),
        "plain member": sign(key, "2", "1"),
        "nobody": sign(key, "99", "1"),
        "no such organisation": sign(key, "1", "99"),
        "wildcards": sign(key, "%", "%"),
        "sql": sign(key, "1' or true --", "1' or true --"),
        "null": sign(key, "null", "null"),
        "space in organisation": sign(key, "1", "1 "),
        "zero in organisation": sign(key, "1", "01"),
        "plus in organisation": sign(key, "1", "+1"),
        "full-width organisation": sign(key, "1", "\uff11"),
        "very long user": sign(key, "1" * 1000, "1"),
        "beyond any length": sign(key, "1" * 1_000_000, "1"),
        "empty user": sign(key, "", "1"),
        "empty organisation": sign(key, "1", ""),
    }  # fmt: skip


BAD = sorted(bad_tokens("id.secret"))


@attack(GROUP, "No token, garbage, or a token that was tampered with", outcome="B")
@pytest.mark.parametrize("how", BAD)
def test_a_bad_token_shows_nothing_and_no_error(arena: Arena, how: str) -> None:
    with reader(arena, bad_tokens(arena.key)[how]) as conn:
        for view in ("event", "log", "membership_log", "role_change", "login_activity"):
            assert seen(conn, f"select count(*) as n from audit.{view}") == 0


LOST = {
    "removed": "delete from membership where user_id = 1",
    "demoted": "update membership set role = 'MEMBER' where user_id = 1",
    "moved": "update membership set organization_id = 2 where user_id = 1",
}


@attack(
    GROUP, "Token of a removed or demoted admin, or of a pending invitee", outcome="B", twin=True
)
@pytest.mark.parametrize("how", LOST)
def test_a_token_is_worth_what_the_membership_is_now(arena: Arena, how: str) -> None:
    token = sign(arena.key, "1", "1")
    with arena.trial() as conn:
        act(conn, "app")
        conn.execute(LOST[how].encode())
        conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
        act(conn, "app_reader")
        assert seen(conn) == 0
        # Twin: the setting says what was true when the user logged in.
        act(conn, "naive_app")
        conn.execute(LOST[how].replace("membership", "naive.membership", 1).encode())
        conn.execute("select set_config('naive.organization', '1', true)")
        act(conn, "naive_reader")
        assert seen(conn, "select count(*) as n from naive.log") > 0


PENDING = {
    "accepted boolean": "false",
    "accepted_at timestamptz": "null",
    "status text": "'PENDING'",
    "is_pending boolean": "true",
    "invitation_status text": "'invited'",
    "suspended_at timestamptz": "now()",
}


@attack(GROUP, "Token of a removed or demoted admin, or of a pending invitee", outcome="B")
@pytest.mark.parametrize("column", PENDING)
def test_one_who_is_merely_invited_as_admin_reads_nothing(arena: Arena, column: str) -> None:
    with arena.trial() as conn:
        act(conn, "app_owner")
        conn.execute(
            "create table playground.member (organization_id int, user_id int, role text,"
            f" {column}, primary key (organization_id, user_id))".encode()
        )
        conn.execute("select audit.attach('playground.member', 'membership')")
        conn.execute(
            f"insert into playground.member values (1, 50, 'ADMIN', {PENDING[column]})".encode()
        )
        look(conn)
        conn.execute("select set_config('auditdb.viewer', %s, true)", (sign(arena.key, "50", "1"),))
        act(conn, "app_reader")
        assert seen(conn) == 0


INJECTED = [
    "select set_config('auditdb.viewer', '2', true), count(*) as n from audit.event group by 1",
    "select count(*) as n from audit.event, set_config('auditdb.viewer', '2', false)"
    " where organization_id = '2'",
    "select count(*) as n from audit.event where set_config('auditdb.viewer', '', true) = ''"
    " and organization_id = '2'",
    "with s as materialized (select set_config('auditdb.context', '{\"user\": 2}', true))"
    " select count(*) as n from s, audit.event where organization_id = '2'",
    "select count(*) as n from audit.event where organization_id <> '1'"
    " and set_config('session_replication_role', 'origin', true) is not null",
    "select (select count(*) from audit.event where organization_id = '2') as n"
    " from set_config('row_security', 'on', true)",
    "select count(*) as n from audit.event where set_config('search_path', 'playground', true)"
    " = 'playground' and organization_id = '2'",
]


@attack(GROUP, "set_config of any setting inside an injected query", outcome="B")
@pytest.mark.parametrize("query", INJECTED)
def test_an_injected_query_sees_no_other_organization(arena: Arena, query: str) -> None:
    with reader(arena, sign(arena.key, "1", "1")) as conn:
        rows: list[dict[str, Any]] = []
        with contextlib.suppress(pg.InsufficientPrivilege):
            rows = conn.execute(query.encode()).fetchall()
        assert all(row["n"] == 0 for row in rows) or "group by" in query
    with reader(arena, None) as conn, contextlib.suppress(pg.InsufficientPrivilege):
        assert all(row["n"] == 0 for row in conn.execute(query.encode()).fetchall())


@attack(GROUP, "set_config of any setting inside an injected query", outcome="B", twin=True)
def test_an_injected_setting_opens_a_naive_log(arena: Arena) -> None:
    with arena.login("naive_reader") as conn:
        conn.execute("select set_config('naive.organization', '1', true)")
        row = conn.execute(
            "with s as materialized (select set_config('naive.organization', '2', true) as o)"
            " select count(*) as n from s cross join lateral (select from naive.log"
            " where organization_id = s.o) as x"
        ).fetchone()
    assert row is not None and row["n"] > 0


ELSEWHERE = [
    "select count(*) as n from <month>",
    "select count(*) as n from <default>",
    "select count(*) as n from <later>",
    "copy <month> to stdout",
    "table audit_private.signing_key",
    "table audit_private.attachment",
    "select audit_private.hmac_sha256('', '')",
    "select audit_private.is_admin('2', '3')",
    "select audit.list_keys()",
    "select * from audit.event for update",
    "select * from audit.event for key share",
    "lock table audit.event in share mode",
    "select * from audit.doctor()",
    "select * from audit.list_members()",
    "select nextval('audit.event_id_seq')",
    "alter role app_reader bypassrls",
    "set role audit_auditor",
    "set role audit_owner",
    "set role app_owner",
    "set session authorization app_auditor",
    "alter view audit.log set (security_invoker = false)",
]


@attack(
    GROUP, "SELECT from a partition, through a view or a function; the keys; SET ROLE", outcome="B"
)
@pytest.mark.parametrize("statement", ELSEWHERE)
def test_a_reader_gets_no_further_than_the_log(arena: Arena, statement: str) -> None:
    arena.refuses("app_reader", statement)


@attack(
    GROUP,
    "SELECT from a partition, through a view or a function; the keys; SET ROLE",
    outcome="B",
    twin=True,
)
def test_a_partition_of_a_naive_log_and_its_view_show_everything(arena: Arena) -> None:
    with arena.login("naive_reader") as conn:
        assert seen(conn, "select count(*) as n from naive.log") == 0
        assert seen(conn, "select count(*) as n from naive.log_month") > 1
        assert seen(conn, "select count(*) as n from naive.report") > 1


@attack(
    GROUP,
    "RESET ROLE, SET ROLE, SET SESSION AUTHORIZATION from the reader",
    outcome="B",
    twin=True,
)
def test_reset_role_and_row_security_off_show_nothing_more(arena: Arena) -> None:
    with reader(arena, sign(arena.key, "1", "1")) as conn:
        mine = seen(conn)
        for statement in ("reset role", "set role none", "reset session authorization"):
            conn.execute(statement.encode())
            assert seen(conn) == mine
        conn.execute("set local row_security = off")
        with pytest.raises(pg.InsufficientPrivilege):
            seen(conn)
    # Twin: the application's own login, which only plays the reader.
    with arena.trial() as conn:
        conn.execute("grant naive_reader to naive_app")
        act(conn, "naive_app")
        conn.execute("set role naive_reader")
        assert seen(conn, "select count(*) as n from naive.log") == 0
        conn.execute("reset role")
        assert seen(conn, "select count(*) as n from naive.log") > 0


@attack(GROUP, "audit_writer, or a role without any", outcome="B", twin=True)
@pytest.mark.parametrize("role", ["app", "stranger", "app_owner"])
@pytest.mark.parametrize(
    "relation",
    [
        "audit.event",
        "audit.log",
        "audit.role_change",
        "audit.impersonation",
        "audit_private.signing_key",
        "audit_private.attestation",
    ],
)
def test_writers_operators_and_strangers_read_no_event(
    arena: Arena, role: str, relation: str
) -> None:
    if (role, relation) == ("app_owner", "audit_private.attestation"):
        return  # it states what stands, and no event
    with reader(arena, sign(arena.key, "1", "1"), role) as conn:
        with pytest.raises(pg.InsufficientPrivilege):
            seen(conn, f"select count(*) as n from {relation}")
    if relation == "audit.event":
        with arena.login("naive_app") as conn:
            assert seen(conn, "select count(*) as n from naive.log") > 0


LEAK = """
create function playground.f_leak(anyelement) returns boolean language plpgsql
cost 0.0000001 as $$ begin raise notice 'leak %', $1; return true; end $$;
create function playground.f_equal(text, text) returns boolean language plpgsql
cost 0.0000001 as $$ begin raise notice 'leak %', $1; return true; end $$;
create operator playground.=== (leftarg = text, rightarg = text, function = playground.f_equal);
"""
LEAKY = [
    "select count(*) as n from {} as e where playground.f_leak(e.organization_id)",
    "select count(*) as n from {} as e where playground.f_leak(e)",
    "select count(*) as n from {} as e where e.organization_id operator(playground.===) 'x'",
    "select count(*) as n from {} as e where playground.f_leak(e.organization_id)"
    " and e.organization_id is not null or playground.f_leak(e.organization_id)",
    "select count(*) as n from (select * from {} offset 0) as e"
    " where playground.f_leak(e.organization_id)",
    "select count(*) as n from {} as e join lateral (select playground.f_leak(e.organization_id))"
    " as x on true",
    "select count(*) as n from {} as e where case when playground.f_leak(e.organization_id)"
    " then true end",
    "select count(*) filter (where playground.f_leak(e.organization_id)) as n from {} as e",
    "select count(*) as n from {} as e tablesample system (100)"
    " where playground.f_leak(e.organization_id)",
    "select count(*) as n from {} as e group by playground.f_leak(e.organization_id)",
]


@attack(
    GROUP, "A cheap leaky function in WHERE, HAVING, JOIN; an operator of one's own", outcome="B"
)
@pytest.mark.parametrize("query", LEAKY)
@pytest.mark.parametrize("relation", ["audit.event", "audit.log"])
@pytest.mark.parametrize("plan", ["", "enable_indexscan enable_bitmapscan enable_indexonlyscan"])
def test_foreign_rows_never_reach_a_leaky_function(
    arena: Arena, query: str, relation: str, plan: str
) -> None:
    if "tablesample" in query and relation == "audit.log":
        return  # views have no samples
    with reader(arena, sign(arena.key, "1", "1")) as conn:
        conn.execute(LEAK.encode())
        for setting in plan.split():
            conn.execute(f"set local {setting} = off".encode())
        notices: list[str] = []
        note = partial(take, notices)
        conn.add_notice_handler(note)
        try:
            conn.execute(query.format(relation).encode())
        finally:
            conn.remove_notice_handler(note)
        assert notices
        for notice in notices:
            assert notice in ("leak 1", "leak <NULL>") or ",1," in notice, notice
            assert ",2,membership" not in notice


@attack(
    GROUP,
    "A cheap leaky function in WHERE, HAVING, JOIN; an operator of one's own",
    outcome="B",
    twin=True,
)
def test_a_filter_of_the_caller_leaks_where_there_is_no_policy(arena: Arena) -> None:
    with arena.trial() as conn:
        # What a library's `where organization_id = $1` gives: no barrier before the injected part.
        conn.execute(LEAK.encode())
        notices: list[str] = []
        note = partial(take, notices)
        conn.add_notice_handler(note)
        conn.execute(
            "select from naive.log where organization_id = '1' and"
            " playground.f_leak(organization_id)"
        )
        conn.remove_notice_handler(note)
        assert "leak 2" in notices


ERRORS = [
    "select count(*) as n from audit.event where 1 / (organization_id::int - 2) < 5",
    "select count(*) as n from audit.event where (case when organization_id = '2' then 'x' else '1'"
    " end)::int = 1",
    "select count(*) as n from audit.event where organization_id <> '2'"
    " or 1 / (length(action) * 0) > 0",
    "select count(*) as n from audit.event"
    " where to_jsonb(event) ->> 'organization_id' <> '2' or 1 / (length(action) * 0) > 0",
    "select sum(1 / (organization_id::int - 2)) as n from audit.event",
]


@attack(GROUP, "Error-based probing: a cast or division on foreign rows", outcome="B", twin=True)
@pytest.mark.parametrize("query", ERRORS)
def test_no_error_comes_of_a_foreign_row(arena: Arena, query: str) -> None:
    with reader(arena, sign(arena.key, "1", "1")) as conn:
        conn.execute(query.encode())
    with arena.login() as conn, pytest.raises(psycopg.DataError):
        probe = "select from naive.log where organization_id = '1' or 1 / (length(action) * 0) > 0"
        conn.execute(probe)


@attack(
    GROUP,
    "A view, a function or a rule of the reader's own, given to others",
    outcome="B",
    twin=True,
)
@pytest.mark.parametrize(
    "make",
    [
        "create view playground.mine as select * from audit.event",
        "create view playground.mine with (security_barrier) as select * from audit.log",
        "create function playground.peek() returns setof audit.event language sql security definer"
        " as 'select * from audit.event'; create view playground.mine as"
        " select * from playground.peek()",
    ],
)
def test_what_a_reader_builds_shows_others_what_their_token_does(arena: Arena, make: str) -> None:
    with arena.trial() as conn:
        act(conn, "app_reader")
        for statement in make.split("; "):
            conn.execute(statement.encode())
        conn.execute("grant select on playground.mine to stranger")
        act(conn, "stranger")
        with contextlib.suppress(pg.InsufficientPrivilege), conn.transaction():
            assert seen(conn, "select count(*) as n from playground.mine") == 0
        act(conn, "naive_app")
        conn.execute("grant select on naive.report to stranger")
        act(conn, "stranger")
        assert seen(conn, "select count(*) as n from naive.report") > 0


@attack(GROUP, "A setting left by the previous user of a pooled connection", outcome="B", twin=True)
def test_a_token_ends_with_its_transaction(arena: Arena) -> None:
    conn = arena.database.connect("app_reader")
    with conn.transaction():
        conn.execute("select set_config('auditdb.viewer', %s, true)", (sign(arena.key, "1", "1"),))
        assert conn.execute("select count(*) from audit.event").fetchone() != (0,)
    assert conn.execute("select count(*) from audit.event").fetchone() == (0,)
    naive = arena.database.connect("naive_reader")
    naive.execute("select set_config('naive.organization', '2', false)")
    assert naive.execute("select count(*) from naive.log").fetchone() != (0,)


@attack(
    GROUP, "Prepared statements, plans and cursors across tokens and roles", outcome="B", twin=True
)
def test_a_cached_plan_asks_again_for_each_token_and_role(arena: Arena) -> None:
    one, two = sign(arena.key, "1", "1"), sign(arena.key, "3", "2")
    with arena.trial() as conn:
        conn.execute("set local plan_cache_mode = force_generic_plan")
        conn.execute("prepare p as select distinct organization_id as o from audit.event")

        def organizations(role: str, token: str) -> list[str]:
            act(conn, role)
            conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
            return sorted(str(row["o"]) for row in conn.execute("execute p").fetchall())

        for _ in range(7):
            assert organizations("app_reader", one) == ["1"]
            assert organizations("app_reader", two) == ["2"]
            assert organizations("app_reader", "") == []
        assert len(organizations("app_auditor", "")) > 2
        assert organizations("app_reader", two) == ["2"]
        act(conn, "app")
        with pytest.raises(pg.InsufficientPrivilege), conn.transaction():
            conn.execute("execute p")
        # Twin: a policy that calls its setting immutable, for speed, is answered by the plan.
        act(conn, "naive_app")
        conn.execute(
            "create function naive.mine() returns text immutable language sql"
            " as $$ select current_setting('naive.organization', true) $$"
        )
        conn.execute("alter policy of_my_organization on naive.log"
                     " using (organization_id = naive.mine())")  # fmt: skip
        act(conn, "naive_reader")
        conn.execute("prepare n as select distinct organization_id as o from naive.log")
        for organization in ("1", "2"):
            conn.execute("select set_config('naive.organization', %s, true)", (organization,))
            assert conn.execute("execute n").fetchall() == [{"o": "1"}]


@attack(GROUP, "Prepared statements, plans and cursors across tokens and roles", outcome="B")
@pytest.mark.parametrize("hold", ["", "with hold"])
def test_a_cursor_shows_the_organization_of_its_first_row(arena: Arena, hold: str) -> None:
    with reader(arena, sign(arena.key, "1", "1")) as conn:
        conn.execute(
            f"declare c cursor {hold} for select organization_id from audit.event".encode()
        )
        first = conn.execute("fetch 1 from c").fetchall()
        conn.execute("select set_config('auditdb.viewer', %s, true)", (sign(arena.key, "3", "2"),))
        rest = conn.execute("fetch all from c").fetchall()
        assert {row["organization_id"] for row in first + rest} == {"1"}
        conn.execute("declare d cursor for select organization_id from audit.event")
        conn.execute("select set_config('auditdb.viewer', '', true)")
        assert conn.execute("fetch all from d").fetchall() == []


@attack(
    GROUP, "A token replayed by another role while it lives", outcome="U", twin=True,
    documented="A viewer token is a bearer token",
)  # fmt: skip
def test_a_token_is_a_bearer_token(arena: Arena) -> None:
    token = sign(arena.key, "1", "1")
    with arena.trial() as conn:
        conn.execute("create role another login")
        conn.execute("grant audit_reader to another")
        conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
        act(conn, "another")
        assert seen(conn) > 0
        look(conn)
        conn.execute("grant naive_reader to another")
        conn.execute("select set_config('naive.organization', '1', true)")
        act(conn, "another")
        assert seen(conn, "select count(*) as n from naive.log") > 0


@attack(
    GROUP, "A cursor WITH HOLD or a temporary table left on a pooled connection", outcome="U",
    twin=True, documented="in a `WITH HOLD` cursor or a temporary table",
)  # fmt: skip
def test_what_a_reader_kept_stays_on_the_connection(arena: Arena) -> None:
    conn = arena.database.connect("app_reader")
    with conn.transaction():
        conn.execute("select set_config('auditdb.viewer', %s, true)", (sign(arena.key, "1", "1"),))
        conn.execute("declare kept cursor with hold for select id from audit.event")
    assert conn.execute("fetch 1 from kept").fetchall()
    conn.execute("discard all")
    with pytest.raises(pg.InvalidCursorName):
        conn.execute("fetch 1 from kept")
    naive = arena.database.connect("naive_reader")
    with naive.transaction():
        naive.execute("select set_config('naive.organization', '1', true)")
        naive.execute("declare kept cursor with hold for select id from naive.log")
    assert naive.execute("fetch 1 from kept").fetchall()


@attack(
    GROUP, "Sizes and estimates: EXPLAIN, pg_class.reltuples", outcome="U", twin=True,
    documented="Sizes and estimates",
)  # fmt: skip
def test_explain_tells_a_reader_how_many_rows_there_are(arena: Arena) -> None:
    with reader(arena, sign(arena.key, "1", "1")) as conn:
        conn.execute("set local enable_indexscan = off")
        conn.execute("set local enable_bitmapscan = off")
        conn.execute("set local enable_indexonlyscan = off")
        plan = conn.execute(
            "explain (analyze, costs off, timing off, summary off) select from audit.event"
        ).fetchall()
    assert any("Rows Removed by Filter" in row["QUERY PLAN"] for row in plan)
    with arena.login("naive_reader") as conn:
        conn.execute("select set_config('naive.organization', '1', true)")
        plan = conn.execute(
            "explain (analyze, costs off, timing off, summary off) select from naive.log"
        ).fetchall()
    assert any("Rows Removed by Filter" in row["QUERY PLAN"] for row in plan)


@attack(GROUP, "Read-only transactions, parallel plans", outcome="S", twin=True)
@pytest.mark.parametrize(
    "settings",
    [
        ["set transaction read only"],
        ["set transaction isolation level serializable, read only, deferrable"],
        [
            "set local min_parallel_table_scan_size = 0", "set local parallel_setup_cost = 0",
            "set local parallel_tuple_cost = 0", "set local enable_indexscan = off",
            "set local enable_bitmapscan = off", "set local max_parallel_workers_per_gather = 4",
        ],
        ["set local debug_parallel_query = on"],
        ["set local plan_cache_mode = force_generic_plan", "set local jit_above_cost = 0"],
    ],
)  # fmt: skip
def test_reading_works_however_it_is_planned(arena: Arena, settings: list[str]) -> None:
    token = sign(arena.key, "1", "1")
    with reader(arena, token) as conn:
        expected = seen(conn)
    with arena.login("app_reader") as conn:
        for setting in settings:
            if "debug_parallel" in setting and conn.info.server_version < 160000:
                setting = "set local force_parallel_mode = on"
            conn.execute(setting.encode())
        conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
        assert seen(conn) == expected > 0
    # Twin: where the viewer is a row, written at the start of each transaction, none can be read.
    if "read only" in settings[0]:
        with arena.login("naive_app") as conn:
            conn.execute(settings[0].encode())
            with pytest.raises(pg.ReadOnlySqlTransaction):
                conn.execute(VIEWER)


VIEWER = "insert into naive.signing_key values (pg_backend_pid(), '1')"


@attack(GROUP, "Reading on a hot standby", outcome="S", twin=True)
def test_a_hot_standby_is_read_by_the_same_rules(arena: Arena, server: Server) -> None:
    if server.bin is None or server.data is None:
        pytest.skip("a server given by its address has no standby to make")
    token = sign(arena.key, "1", "1")
    with reader(arena, token) as conn:
        expected = seen(conn)
    with standby(server) as port:
        address = make_conninfo(arena.database.conninfo("app_reader"), port=port)
        with psycopg.connect(address, row_factory=dict_row) as conn:
            assert seen(conn) == 0
            conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
            assert seen(conn) == expected > 0
            conn.execute(
                "select set_config('auditdb.viewer', %s, true)", (sign(arena.key, "1", "2"),)
            )
            assert seen(conn) == 0
        address = make_conninfo(arena.database.conninfo("naive_app"), port=port)
        with psycopg.connect(address) as naive, pytest.raises(pg.ReadOnlySqlTransaction):
            naive.execute(VIEWER)


@attack(GROUP, "Token visible in pg_stat_activity", outcome="B", twin=True)
def test_a_token_that_is_bound_is_not_in_the_query_text(arena: Arena) -> None:
    token = sign(arena.key, "1", "1")
    with reader(arena, token) as conn:
        mine = conn.execute("select pg_backend_pid() as pid").fetchone()
        conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
        assert mine is not None
        look_on = arena.database.connect()
        row = look_on.execute(
            "select query from pg_stat_activity where pid = %s", (mine["pid"],)
        ).fetchone()
        assert row is not None and "set_config" in row[0] and token not in row[0]
        # Twin: the same, written into the statement.
        conn.execute(f"select set_config('naive.organization', '{token}', true)".encode())
        row = look_on.execute(
            "select query from pg_stat_activity where pid = %s", (mine["pid"],)
        ).fetchone()
        assert row is not None and token in row[0]


IN_PLACE = "A stranger's table under the name of the memberships that were renamed or dropped"
GONE = {
    "renamed": "alter table public.membership rename to membership_2",
    "moved": "alter table public.membership set schema playground",
    "dropped": "drop table public.membership",
    "dropped, and that is known": "drop table public.membership;"
                                  "select audit_private.disown_gone()",
}  # fmt: skip
STRANGERS = (
    "create table {}.membership (organization_id int, user_id int, role text)",
    "insert into {}.membership values (2, 66, 'ADMIN')",
    "grant select on {}.membership to public",
)


@attack(GROUP, IN_PLACE, outcome="B")
@pytest.mark.parametrize("how", GONE)
def test_a_stranger_who_takes_the_name_of_the_memberships_is_no_admin(
    arena: Arena, how: str
) -> None:
    token = sign(arena.key, "66", "2")
    with arena.trial() as conn:
        conn.execute("grant create on schema public to stranger")
        conn.execute(GONE[how].encode())
        act(conn, "stranger")
        for statement in STRANGERS:
            conn.execute(statement.format("public").encode())
        act(conn, "app_reader")
        conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
        assert seen(conn) == 0


@pytest.mark.parametrize("how", ["renamed", "moved", "dropped"])
def test_a_table_of_the_same_owner_under_the_name_goes_on_to_say_who_is_an_admin(
    arena: Arena, how: str
) -> None:
    """As after an online change of the table: whoever owns it decides that anyway."""
    token = sign(arena.key, "66", "2")
    with arena.trial() as conn:
        conn.execute(GONE[how].encode())
        act(conn, "app_owner")
        for statement in STRANGERS:
            conn.execute(statement.format("public").encode())
        act(conn, "app_reader")
        conn.execute("select set_config('auditdb.viewer', %s, true)", (token,))
        assert seen(conn) > 0


@attack(GROUP, IN_PLACE, outcome="B", twin=True)
def test_a_naive_lookup_believes_whatever_bears_the_name(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        conn.execute("create table playground.membership as select * from naive.membership")
        conn.execute(
            "create function playground.is_admin(text) returns boolean language plpgsql as $$ begin"
            " return exists (select from playground.membership where user_id::text = $1"
            " and role = 'ADMIN'); end $$"
        )
        asked = "select playground.is_admin('66')::int as n"
        assert seen(conn, asked) == 0
        conn.execute("alter table playground.membership rename to membership_2")
        act(conn, "stranger")
        for statement in STRANGERS:
            conn.execute(statement.format("playground").encode())
        act(conn, "naive_app")
        assert seen(conn, asked) == 1
