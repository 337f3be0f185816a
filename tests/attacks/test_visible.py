"""Visible retention: what is older than an organisation's viewers may see, they see by no way."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

import auditdb
from auditdb import export
from auditdb.cli import main
from auditdb.errors import AuditError, Refused
from auditdb.export.state import State
from auditdb.operate.maintain import maintain
from auditdb.operator import limit_visibility, list_visibility
from auditdb.web import Access, app
from auditdb.web.address import event_path
from tests.attacks.conftest import scratch
from tests.attacks.report import attack
from tests.conftest import Database
from tests.export import test_streams, test_subscriptions
from tests.page.conftest import fetch
from tests.test_rls_matrix import RECORDED, SETUP, SHAPES
from tests.viewer import read, sign

GROUP = "Reading what is not yours"
OLDER = "Events that are older than an organisation's viewers may see"
DAY = "90 days"


@pytest.fixture
def aged(db: Database) -> Database:
    """A log in which organisations 1 and 2 have events of today, and of a hundred days ago."""
    conn = db.connect()
    conn.execute("set role audit_owner")
    conn.execute(
        "insert into audit.event (occurred_at, action, result, actor_type, actor_id, source,"
        " organization_id, target_type, target_id, subject_id, impersonator_id, captured_from,"
        " new_values, old_values, details)"
        " select now() - interval '100 days' - g * interval '1 hour',"
        " a, r, 'user', 'OLD', 'web', o, 'OLD', 'OLD', 'OLD', 'OLD', c, '{\"role\": \"OLD\"}',"
        ' \'{"role": "OLDER"}\', \'{"previous_role": "OLD", "new_role": "OLD"}\''
        " from generate_series(1, 3) as g, unnest('{auth.login,auth.impersonation_started,"
        "membership.role_changed,api_key.created,workflow.modified,membership.added}'::text[])"
        " as a,"
        " unnest('{success,denied,failure}'::text[]) as r, unnest('{1,2}'::text[]) as o,"
        " unnest('{null,public.membership}'::text[]) as c"
    )
    conn.execute("reset role")
    maintain(db.connect("app_owner"))
    for organization in ("1", "2"):
        db.connect("app").execute("select audit.record_event('auth.login', %s)", [organization])
    db.connect("app_auditor").execute("select audit.make_tick()")
    return db


def relations(db: Database) -> list[str]:
    """Return the views and tables that a reader may select from and that show events."""
    names = db.connect().execute(
        "select c.oid::regclass::text from pg_class as c"
        " where relnamespace = 'audit'::regnamespace and relkind in ('v', 'r', 'p')"
        " and has_table_privilege('audit_reader', c.oid, 'select')"
        " and c.oid::regclass::text not in ('audit.action', 'audit.series') order by 1"
    )
    return [name for (name,) in names]


def old_rows(db: Database, user: str, organization: str) -> dict[str, int]:
    """Return of each relation how many rows tell an admin of what is old."""
    return {
        name: read(
            db, user, organization, f"select count(*) from {name} as v where v::text ~ 'OLD'"
        )[0][0]
        for name in relations(db)
    }


@attack(GROUP, OLDER, outcome="B", twin=True)
def test_without_a_limit_old_events_are_in_every_view(aged: Database) -> None:
    told = old_rows(aged, "1", "1")
    assert len(told) > 12
    # Of what is new alone, or of pairs.
    assert {name for name, n in told.items() if not n} <= {
        "audit.login_burst", "audit.unusual_login", "audit.new_owner", "audit.failed_login",
        "audit.denied_attempt", "audit.open_impersonation", "audit.old_api_key"}  # fmt: skip


@attack(GROUP, OLDER, outcome="B")
def test_a_viewer_sees_no_old_event_in_any_view(aged: Database) -> None:
    limit_visibility(aged.connect("app_owner"), 1, keep=DAY)
    assert set(old_rows(aged, "1", "1").values()) == {0}
    assert read(aged, "1", "1", "select count(*) > 0 from audit.event") == [(True,)]
    # Another organisation's are as before, and so is what an auditor sees.
    assert old_rows(aged, "3", "2")["audit.event"] == 3 * 6 * 3 * 2
    everything = "select count(*) from audit.event where actor_id = 'OLD'"
    assert aged.connect("app_auditor").execute(everything).fetchone() == (3 * 6 * 3 * 2 * 2,)


@attack(GROUP, OLDER, outcome="B")
@pytest.mark.parametrize(
    "attempt",
    [
        "select count(*) from audit.event where occurred_at < now() - interval '99 days'",
        "select count(*) from audit.event where actor_id = 'OLD'",
        "select count(*) from only audit.event_default",
        "select count(*) from audit.event where occurred_at = '-infinity' or actor_id = 'OLD'",
        "set local timezone = 'Pacific/Kiritimati';"
        " select count(*) from audit.event where actor_id = 'OLD'",
        "set local intervalstyle = 'sql_standard';"
        " select count(*) from audit.event where actor_id = 'OLD'",
        "set local enable_indexscan = off; set local enable_bitmapscan = off;"
        " select count(*) from audit.event where actor_id = 'OLD'",
        "prepare p as select count(*) from audit.event where actor_id = 'OLD'; execute p",
        "create temporary table now as select 1;"
        " select count(*) from audit.event where actor_id = 'OLD'",
    ],
)  # fmt: skip
def test_no_query_of_a_viewer_finds_what_is_old(aged: Database, attempt: str) -> None:
    limit_visibility(aged.connect("app_owner"), 1, keep=DAY)
    *before, query = attempt.split("; ")
    with psycopg.connect(aged.conninfo("app_reader")) as conn:
        conn.execute("select set_config('auditdb.viewer', %s, true)", [sign(aged.key, "1", "1")])
        try:
            for statement in before:
                conn.execute(statement.encode())
            found = conn.execute(query.encode()).fetchall()
        except psycopg.errors.InsufficientPrivilege:
            return
    assert found == [(0,)]


@attack(GROUP, OLDER, outcome="B")
def test_a_viewer_gets_no_old_event_by_reader_page_or_ticks(aged: Database, tmp_path: Any) -> None:
    def seen() -> list[bool]:
        """Return for each way whether it gives what is old."""
        conn = psycopg.connect(aged.conninfo("app_reader"))
        log = auditdb.reader(conn, key=aged.key, viewer_id=1, organization_id=1)
        with (tmp_path / "log").open("wb") as out:
            log.export(out)
        one = log.page(limit=1000)
        ways = [
            any(e.actor_id == "OLD" for e in one.events),
            any(e.actor_id == "OLD" for e in log.events(since="2000-01-01T00:00Z")),
            b"OLD" in (tmp_path / "log").read_bytes(),
            bool(log.page(limit=10, actor_id="OLD").events),
        ]
        conn.rollback()
        conn.execute("select set_config('auditdb.viewer', %s, false)", [sign(aged.key, "1", "1")])
        cursor, more = None, True
        ticked = []
        while more:
            batch = export.read(conn, cursor)
            ticked += batch.events
            cursor, more = batch.cursor, batch.is_more
        conn.close()
        assert ticked
        return [*ways, any(e.actor_id == "OLD" for e in ticked)]

    assert seen() == [True] * 5
    limit_visibility(aged.connect("app_owner"), 1, keep=DAY)
    assert seen() == [False] * 5


def make_older(admin: psycopg.Connection[Any], tick: int) -> None:
    """Let the ticks up to one have been made a hundred days ago."""
    with admin.transaction():
        admin.execute("alter table audit.tick disable trigger user")
        admin.execute("update audit.tick set made_at = made_at - interval '100 days'"
                      " where id <= %s", [tick])  # fmt: skip
        admin.execute("alter table audit.tick enable always trigger refuse_change,"
                      " enable always trigger refuse_truncate")  # fmt: skip


@attack(GROUP, OLDER, outcome="B")
@pytest.mark.parametrize("keep", [None, DAY])
def test_a_stream_that_was_paused_keeps_nothing_that_became_too_old(
    db: Database, keep: str | None
) -> None:
    admin, auditor = db.connect(), db.connect("app_auditor")
    limit_visibility(db.connect("app_owner"), 1, keep=keep)
    name = test_streams.create(db)
    test_streams.run(db, "select audit.pause_stream(%s)", name)
    ticks = []
    for _ in range(2):
        db.connect("app").execute("select audit.record_event('auth.login', '1')")
        ticks += auditor.execute("select audit.make_tick()").fetchall()
    ((old,), (new,)) = ticks
    make_older(admin, old)
    where = "select tick_id from audit.subscription"
    ((before,),) = admin.execute(where).fetchall()
    assert before < old < new
    test_streams.run(db, "select audit.resume_stream(%s)", name)
    assert admin.execute(where).fetchall() == [(old if keep else before,)]


@attack(GROUP, OLDER, outcome="B")
@pytest.mark.parametrize("is_on_its_way", [False, True])
@pytest.mark.parametrize("keep", [None, DAY])
def test_a_stream_whose_sink_failed_keeps_nothing_that_became_too_old(
    db: Database, keep: str | None, is_on_its_way: bool
) -> None:
    admin, auditor = db.connect(), db.connect("app_auditor")
    ticks = []
    name = test_streams.create(db)
    for _ in range(2):
        db.connect("app").execute("select audit.record_event('auth.login', '1')")
        ticks += auditor.execute("select audit.make_tick()").fetchall()
    ((old,), (new,)) = ticks
    make_older(admin, old)
    where = "select tick_id, pending is not null from audit.subscription"
    ((before, _),) = admin.execute(where).fetchall()
    if is_on_its_way:
        pending = json.dumps(test_subscriptions.batch(before, old))
        admin.execute("update audit.subscription set pending = %s, exporter = 1", [pending])
    limit_visibility(db.connect("app_owner"), 1, keep=keep)

    async def read() -> list[tuple[str, int]]:
        async with await psycopg.AsyncConnection.connect(db.conninfo("app_auditor")) as conn:
            return [(s.name, s.place.tick_id) for s in await State(conn, 1).read(None)]

    assert before < old < new
    assert asyncio.run(read()) == [(name, old if keep else before)]
    assert admin.execute(where).fetchall() == [
        (old, False) if keep else (before, is_on_its_way)]  # fmt: skip


@attack(GROUP, OLDER, outcome="B")
@pytest.mark.parametrize("role", ["app", "app_reader", "app_auditor"])
def test_who_is_no_operator_widens_nothing(aged: Database, role: str) -> None:
    limit_visibility(aged.connect("app_owner"), 1, keep=DAY)
    with pytest.raises(Refused, match="audit_operator"):
        limit_visibility(aged.connect(role), 1, keep=None)
    with psycopg.connect(aged.conninfo(role)) as conn:
        conn.execute("select set_config('auditdb.viewer', %s, false)", [sign(aged.key, "1", "1")])
        conn.commit()
        for statement in (
            "select audit.limit_visibility('1', null)",
            "delete from audit.visible_retention", "truncate audit.visible_retention",
            "update audit.visible_retention set keep = '1 year'",
            "insert into audit.visible_retention values ('9', '1 year')",
            "alter function audit_private.visible_since() set timezone = 'UTC'",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege), conn.transaction():
                conn.execute(statement.encode())
    assert old_rows(aged, "1", "1")["audit.event"] == 0


@attack(GROUP, OLDER, outcome="B")
def test_without_a_good_token_nothing_is_told_of_a_limit(aged: Database) -> None:
    limit_visibility(aged.connect("app_owner"), 1, keep=DAY)
    conn = aged.connect("app_reader")
    for token in ("", sign("k.x", "1", "1"), sign(aged.key, "1", "1", seconds=-60)):
        conn.execute("select set_config('auditdb.viewer', %s, false)", [token])
        assert conn.execute("select audit_private.visible_since()").fetchone() == (None,)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("select from audit.visible_retention")


@pytest.fixture(scope="module")
def hidden(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database whose organisation 1 has every kind of event; all of them can be hidden."""
    with scratch(request, "auditdb_hidden") as database:
        with psycopg.connect(database.conninfo("app_owner")) as conn:
            conn.execute(SETUP.encode())
        with psycopg.connect(database.conninfo("app")) as conn:
            conn.execute(RECORDED.encode())
        with psycopg.connect(database.dsn) as conn:
            conn.execute("alter table audit.visible_retention"
                         " drop constraint keep_is_an_hour_to_a_thousand_years")  # fmt: skip
        yield database


@attack(GROUP, OLDER, outcome="B")
@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_of_a_query_shows_what_is_hidden(hidden: Database, shape: str) -> None:
    with psycopg.connect(hidden.dsn, autocommit=True) as admin:
        # From tomorrow on: that hides what is new, too.
        for keep, is_shown in ((None, True), ("-1 day", False)):
            admin.execute("delete from audit.visible_retention")
            if keep:
                admin.execute("insert into audit.visible_retention values ('1', %s)", [keep])
            with psycopg.connect(hidden.conninfo("app_reader")) as conn:
                conn.execute(
                    "select set_config('auditdb.viewer', %s, true)", [sign(hidden.key, "1", "1")]
                )
                assert bool(SHAPES[shape](conn)) is is_shown


COUNTED = "How many events are hidden from an organisation's viewers, by EXPLAIN ANALYZE"


def removed(conn: psycopg.Connection[Any], table: str) -> int:
    """Return how many rows a reader's condition was asked of in vain, or the policy's was."""
    for setting in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
        conn.execute(f"set local {setting} = off".encode())
    plan = conn.execute(
        f"explain (analyze, costs off, timing off, summary off) select * from {table}"
        " where action = 'workflow.modified' order by occurred_at desc, id desc".encode()
    )
    return sum(int(n) for (line,) in plan for n in re.findall("Removed by Filter: (.*)", line))


@attack(
    GROUP, COUNTED, outcome="U",
    documented="tells a viewer how many events of their own organisation its visible retention",
)  # fmt: skip
def test_explain_counts_what_is_hidden_before_17_alone(aged: Database) -> None:
    limit_visibility(aged.connect("app_owner"), 1, keep=DAY)
    with psycopg.connect(aged.conninfo("app_reader")) as conn:
        conn.execute("select set_config('auditdb.viewer', %s, true)", [sign(aged.key, "1", "1")])
        assert (removed(conn, "audit.event") > 0) is (conn.info.server_version < 170000)


@attack(
    GROUP, COUNTED, outcome="U", twin=True,
    documented="tells a viewer how many events of their own organisation its visible retention",
)  # fmt: skip
def test_explain_counts_what_a_naive_policy_hides(aged: Database) -> None:
    aged.connect().execute(
        "create table plain as select * from audit.event; alter table plain enable row level"
        " security; create policy young on plain using (organization_id = '1' and occurred_at >"
        " now() - interval '1 day'); grant select on plain to app_reader"
    )
    with psycopg.connect(aged.conninfo("app_reader")) as conn:
        assert removed(conn, "public.plain") > 0


@attack(GROUP, OLDER, outcome="B")
def test_no_page_or_file_or_link_of_the_page_shows_what_is_old(aged: Database) -> None:
    access = Access(viewer_id=1, organizations=[1])
    site = app(connect=aged.conninfo("app_reader"), key=aged.key, viewer=lambda request: access)
    [(at, event_id)] = read(aged, "1", "1", "select occurred_at, id from audit.event"
                            " where actor_id = 'OLD' order by id limit 1")  # fmt: skip
    ways = (f"/event/{event_path(at, event_id)}", "/", "/?result=denied", "/api/events",
            "/events.csv", "/events.jsonl", "/logged")  # fmt: skip

    def seen() -> list[tuple[int, bool]]:
        """Return the status of each answer, and whether it tells of what is old."""
        return [(page.status_code, "OLD" in page.text) for page in fetch(site, *ways[:-1])]

    assert seen() == [(200, True)] * 6
    limit_visibility(aged.connect("app_owner"), 1, keep=DAY)
    assert seen() == [(404, False), *[(200, False)] * 5]
    # It says so.
    [logged] = fetch(site, ways[-1])
    assert "Older ones are kept, and hidden from admins here." in logged.text
    limit_visibility(aged.connect("app_owner"), 1, keep=None)
    [logged] = fetch(site, ways[-1])
    assert logged.status_code == 200 and "Older ones" not in logged.text


# One of these at the least crosses a change of summer time, whatever the day.
@pytest.mark.parametrize("keep", ["90 days", "183 days", "300 days"])
def test_a_limit_moves_on_with_the_clock_whatever_the_session_says(
    aged: Database, keep: str
) -> None:
    limit_visibility(aged.connect("app_owner"), 1, keep=keep)
    since = "select (audit_private.visible_since())[1] - now() + %s::interval"
    with psycopg.connect(aged.conninfo("app_reader")) as conn:
        conn.execute("select set_config('auditdb.viewer', %s, true)", [sign(aged.key, "1", "1")])
        for zone in ("UTC", "America/New_York", "Pacific/Kiritimati"):
            conn.execute(f"set local timezone = '{zone}'".encode())
            (late,) = conn.execute(since, [keep]).fetchone() or (None,)
            # Of the moment, and not of the beginning of the transaction.
            assert timedelta() < late < timedelta(minutes=10), zone


def test_a_change_of_a_limit_is_an_event_and_shows(aged: Database) -> None:
    owner = aged.connect("app_owner")
    limit_visibility(owner, 1, keep=DAY)
    limit_visibility(owner, 1, keep=DAY)
    assert [(v.organization_id, v.keep, v.set_by) for v in list_visibility(owner)] == [
        ("1", DAY, "app_owner")]  # fmt: skip
    limit_visibility(owner, 1, keep="1 year")
    limit_visibility(owner, 1, keep=None)
    assert list_visibility(aged.connect("app_auditor")) == []
    assert old_rows(aged, "1", "1")["audit.event"] == 3 * 6 * 3 * 2
    events = aged.connect().execute(
        "select old_values ->> 'keep', new_values ->> 'keep', target_id, organization_id"
        " from audit.event where action = 'audit.visibility_limited' order by id"
    )
    assert events.fetchall() == [
        (None, DAY, "1", None),
        (DAY, "1 year", "1", None),
        ("1 year", None, "1", None),
    ]


@pytest.mark.parametrize("keep", ["0", "-30 days", "59 minutes", "2000 years"])
def test_a_limit_that_shows_nothing_or_cannot_be_reckoned_is_refused(
    db: Database, keep: str
) -> None:
    with pytest.raises(AuditError, match="viewers cannot see"):
        limit_visibility(db.connect("app_owner"), 1, keep=keep)
    with pytest.raises(AuditError, match="the organisation is missing"):
        limit_visibility(db.connect("app_owner"), "", keep="1 day")


def test_the_command_limits_lists_and_shows_all(aged: Database) -> None:
    def run(*args: str) -> tuple[int, str]:
        given = ["--dsn", aged.conninfo("app_owner"), "visible", *args]
        done = CliRunner().invoke(main, given, catch_exceptions=False)
        return done.exit_code, done.output

    assert run("1", "--keep", "30 days") == (0, "viewers of 1 see 30 days\n")
    assert run() == (0, "viewers of 1 see 30 days\n")
    assert [v["keep"] for v in json.loads(run("--json")[1])] == ["30 days"]
    status = CliRunner().invoke(main, ["--dsn", aged.conninfo("app_owner"), "status"])
    assert "viewers of 1 see 30 days" in status.output.splitlines()
    assert run("1", "--all") == (0, "viewers of 1 see all of it\n")
    assert run() == (0, "no limit: all viewers see all events\n")
    assert [run(*wrong)[0] for wrong in (["1"], ["--all"], ["1", "--all", "--keep", "1 day"])] == [
        2] * 3  # fmt: skip
    assert run("1", "--keep", "a while")[0] == 2
