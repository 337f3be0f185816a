"""The audit of the audit: what an auditor reads, and what anybody takes along, is an event."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql
from psycopg.conninfo import make_conninfo

import auditdb
from auditdb import Refused, auditor, context, reader
from auditdb.cli import main
from auditdb.read.recorded import record_reading, record_reading_async
from auditdb.read.viewer import Auditor
from tests.conftest import Database
from tests.server import Server, standby

LOGIN = "app_auditor"
Conn = psycopg.Connection[Any]


def readings(db: Database) -> list[tuple[Any, ...]]:
    """Return action, actor, organisation and details of what was written of readings."""
    return db.connect().execute(
        "select action, actor_id, organization_id, details from audit.event"
        " where target_type = 'audit' and captured_from is null and action ~ any(%s) order by id",
        [["viewed", "export", "verified", "bundled", "accessed"]],
    ).fetchall()  # fmt: skip


def verbs(db: Database) -> list[str]:
    return [row[0].partition(".")[2] for row in readings(db)]


def fill(db: Database, organization: int | None, count: int) -> None:
    """Write events as others would."""
    db.connect().execute(
        "insert into audit.event (action, result, actor_id, actor_type, organization_id, source)"
        " select 'auth.logout', 'success', 'x', 'user', %s, 'web' from generate_series(1, %s)",
        [organization and str(organization), count],
    )


def take(conn: Conn, **given: Any) -> list[bytes]:
    return list(auditor(conn, organization_id=1).blocks(**given))


async def gather(db: Database, how: str) -> None:
    async with await psycopg.AsyncConnection.connect(db.conninfo(LOGIN)) as conn:
        log = auditor(conn, organization_id=1)
        if how == "page":
            await log.page(action="auth.login")
        elif how == "events":
            assert [event async for event in log.events(action="auth.login", batch=1)] == []
        else:
            assert [block async for block in log.blocks(action="auth.login")] == []


def command(db: Database, *args: str, login: str = LOGIN, **env: str) -> Result:
    return CliRunner().invoke(main, ["--dsn", db.conninfo(login), "log", *args], env=env)


def by_command(db: Database, *args: str) -> None:
    more = ("--auditor", "--organization-id", "1", "--action", "auth.login", *args)
    assert command(db, *more).exit_code == 0


FILTER = {"filter": {"action": "auth.login"}}
VIEWED = [("audit.viewed", FILTER)]


def taken(form: str, **more: Any) -> list[tuple[str, Any]]:
    begun = {"format": form, **FILTER, **more}
    return [
        ("audit.export_started", begun),
        ("audit.exported", {**begun, "events": 0, "is_complete": True}),
    ]


WAYS: dict[str, tuple[Callable[[Database], object], list[tuple[str, Any]]]] = {
    "page": (
        lambda db: auditor(db.connect(LOGIN), organization_id=1).page(action="auth.login"), VIEWED,
    ),
    "events": (
        lambda db: list(auditor(db.connect(LOGIN), organization_id=1).events(action="auth.login")),
        VIEWED,
    ),
    "blocks": (lambda db: take(db.connect(LOGIN), action="auth.login"), taken("jsonl")),
    "export": (
        lambda db: auditor(db.connect(LOGIN), organization_id=1).export(
            io.BytesIO(), format="csv", action="auth.login", limit=7
        ),
        taken("csv", limit=7),
    ),
    "page, async": (lambda db: asyncio.run(gather(db, "page")), VIEWED),
    "events, async": (lambda db: asyncio.run(gather(db, "events")), VIEWED),
    "blocks, async": (lambda db: asyncio.run(gather(db, "blocks")), taken("jsonl")),
    "command": (by_command, VIEWED),
    "command, jsonl": (
        lambda db: by_command(db, "--format", "jsonl", "--all"), taken("jsonl"),
    ),
    "command, csv": (lambda db: by_command(db, "--format", "csv"), taken("csv", limit=50)),
}  # fmt: skip


@pytest.mark.parametrize(("read", "said"), WAYS.values(), ids=WAYS.keys())
def test_each_way_in_which_an_auditor_reads_is_an_event(
    db: Database, read: Callable[[Database], object], said: list[tuple[str, Any]]
) -> None:
    read(db)
    found = readings(db)
    assert [(action, details) for action, _, _, details in found] == said
    assert {row[1:3] for row in found} == {(LOGIN, "1")}
    (row,) = db.connect().execute(
        "select distinct actor_type, db_user, db_role, result, now() - occurred_at < '1 minute',"
        " subject_id is null and target_id is null from audit.event where action ~ '^audit.[ve]'"
    ).fetchall()  # fmt: skip
    assert row == ("database", LOGIN, "audit_auditor", "success", True, True)


def test_naive_twin_plain_sql_by_an_auditor_is_no_event(db: Database) -> None:
    conn = db.connect(LOGIN)
    assert conn.execute("select count(*) from audit.event").fetchone() != (0,)
    with conn.cursor().copy("copy (select * from audit.log) to stdout") as rows:
        assert list(rows)
    assert readings(db) == []


def test_the_way_in_is_told_apart(db: Database) -> None:
    by_command(db, "--format", "csv")
    take(db.connect(LOGIN))
    rows = db.connect().execute("select source from audit.event where action = 'audit.exported'")
    assert [source for (source,) in rows] == ["cli", "sql"]


def test_an_admin_who_reads_what_is_theirs_leaves_no_event_but_of_what_they_take_along(
    db: Database,
) -> None:
    fill(db, 1, 3)
    conn = db.connect("app_reader")
    log = reader(conn, key=db.key, viewer_id=1, organization_id=1)
    log.page()
    assert list(log.events()) == list(log.events(batch=1)) != []
    given = ("--viewer-id", "1", "--organization-id", "1")
    assert command(db, *given, login="app_reader", AUDITDB_KEY=db.key).exit_code == 0
    assert readings(db) == []
    assert log.export(io.BytesIO()) > 0
    done = command(db, *given, "--format", "jsonl", login="app_reader", AUDITDB_KEY=db.key)
    assert done.exit_code == 0 and done.stdout
    assert verbs(db) == ["export_started", "exported"] * 2
    assert {row[1:3] for row in readings(db)} == {("1", "1")}
    kinds = "select distinct actor_type, db_user from audit.event where action = 'audit.exported'"
    assert db.connect().execute(kinds.encode()).fetchall() == [("user", "app_reader")]


@pytest.mark.parametrize(("viewer", "organization"), [(2, 1), (1, 2), (99, 1)])
def test_who_may_not_read_takes_nothing_along_and_is_told_nothing(
    db: Database, viewer: int, organization: int
) -> None:
    conn = db.connect("app_reader")
    log = reader(conn, key=db.key, viewer_id=viewer, organization_id=organization)
    assert log.export(io.BytesIO()) == 0
    assert readings(db) == []


def test_who_reads_is_whom_the_context_names(db: Database) -> None:
    conn = db.connect(LOGIN)
    with context(actor_id="sam", impersonator_id="kim", source="api", details={"ip": "192.0.2.1"}):
        auditor(conn, organization_id=1).page()
    conn.execute("select set_config('auditdb.context', '{\"actor_id\": \"lee\"}', false)")
    auditor(conn).page()
    conn.execute("reset auditdb.context")
    auditor(conn).page()
    assert [row[:3] for row in readings(db)] == [
        ("audit.viewed", "sam", "1"), ("audit.viewed", "lee", None), ("audit.viewed", LOGIN, None),
    ]  # fmt: skip
    first, *_ = db.connect().execute(
        "select actor_type, impersonator_id, source, details from audit.event"
        " where action = 'audit.viewed' order by id"
    ).fetchall()  # fmt: skip
    assert first == ("user", "kim", "api", {"ip": "192.0.2.1", "filter": {}})


def test_a_context_that_names_nobody_leaves_the_login(db: Database) -> None:
    with context(source="api"):
        auditor(db.connect(LOGIN)).page()
    row = db.connect().execute(
        "select actor_id, actor_type, source from audit.event where action = 'audit.viewed'"
    ).fetchone()  # fmt: skip
    assert row == (LOGIN, "database", "api")


def test_the_same_log_viewed_again_is_one_event_also_of_all_organizations(db: Database) -> None:
    conn = db.connect(LOGIN)
    for organization in (1, None, 2, 1, None, 2):
        for number in range(2):
            auditor(conn, organization_id=organization).page(limit=number + 1)
    assert [row[2] for row in readings(db)] == ["1", None, "2"]
    with context(actor_id="sam"):
        auditor(conn).page()
        with context(actor_id="sam", impersonator_id="kim"):
            auditor(conn).page()
    assert [row[1] for row in readings(db)[3:]] == ["sam", "sam"]
    # A name that another login claims hides nothing of it.
    with context(actor_id="sam"):
        auditor(db.connect()).page()
    assert len(readings(db)) == 6


@pytest.mark.parametrize(("minutes", "written"), [(14, 0), (16, 1)])
def test_after_a_quarter_of_an_hour_it_is_another(db: Database, minutes: int, written: int) -> None:
    db.connect().execute(
        "insert into audit.event"
        " (occurred_at, action, result, actor_id, actor_type, db_user, source, target_type)"
        " values (now() - %s * interval '1 minute', 'audit.viewed', 'success', %s, 'database', %s,"
        " 'sql', 'audit')",
        [minutes, LOGIN, LOGIN],
    )
    for _ in range(2):
        auditor(db.connect(LOGIN)).page()
    assert len(readings(db)) == 1 + written


def test_filters_are_kept_short_and_without_secrets(db: Database) -> None:
    conn = db.connect(LOGIN)
    log = auditor(conn, organization_id=1)
    list(log.blocks(text="password=hunter2", actor_id=7, since="2026-01-31", result=None))
    list(log.blocks(text="x" * 5000, text_ids=[str(n) for n in range(5000)]))
    first, _, second, _ = (row[3]["filter"] for row in readings(db))
    assert first == {"text": "password=[redacted]", "actor_id": 7, "since": "2026-01-31"}
    assert len(json.dumps(second)) < 1000 and second["text"] == "x" * 200


def test_no_event_leaves_before_it_is_recorded_that_it_does(db: Database) -> None:
    db.connect("app_owner").execute("select audit.limit_recording('app_auditor', 0)")
    try:
        log = auditor(db.connect(LOGIN))
        reads: list[Callable[[], object]] = [
            log.page, lambda: next(log.events()), lambda: next(log.blocks())
        ]  # fmt: skip
        for read in reads:
            with pytest.raises(Refused, match="records more than 0 events"):
                read()
    finally:
        db.connect("app_owner").execute("select audit.limit_recording('app_auditor', null)")
    assert readings(db) == []
    # Another sees it while the first block or event is there.
    next(log.blocks())
    assert verbs(db)[0] == "export_started"
    next(log.events())
    assert verbs(db)[-1] == "viewed"


@pytest.mark.parametrize("commits", [True, False])
def test_within_a_transaction_of_the_caller_it_is_part_of_it(db: Database, commits: bool) -> None:
    conn = db.connect(LOGIN, autocommit=False)
    conn.execute("select 1")
    auditor(conn).page()
    take(conn)
    assert readings(db) == []
    conn.commit() if commits else conn.rollback()
    assert verbs(db) == (["viewed", "export_started", "exported"] if commits else [])


@pytest.mark.parametrize("transaction", [True, False])
@pytest.mark.parametrize("autocommit", [True, False])
def test_the_connection_is_left_as_it_was(
    db: Database, transaction: bool, autocommit: bool
) -> None:
    conn = db.connect("postgres", autocommit=True)
    conn.execute("set auditdb.viewer = 'v1.a.token'")
    conn.execute('set auditdb.context = \'{"actor_id": "lee"}\'')
    conn.execute("set role app_auditor")
    conn.autocommit = autocommit
    settings = """select current_user::text, current_setting('role'),
        current_setting('auditdb.viewer'), current_setting('auditdb.context'),
        current_setting('transaction_read_only'), current_setting('search_path')"""
    if transaction:
        conn.execute("begin" if autocommit else "select 1")
    with context(actor_id="sam", source="api"):
        auditor(conn).page()
        take(conn, limit=1)
    row = conn.execute(settings.encode()).fetchone()
    assert row == (
        "app_auditor", "app_auditor", "v1.a.token", '{"actor_id": "lee"}', "off", '"$user", public',
    )  # fmt: skip
    conn.commit()
    assert [row[1] for row in readings(db)] == ["sam"] * 3


def test_within_a_pipeline_of_the_caller_a_page_is_recorded(db: Database) -> None:
    conn = db.connect(LOGIN)
    with conn.pipeline():
        auditor(conn).page()
        with pytest.raises(auditdb.InvalidInput, match="pipeline"):
            take(conn)
    assert verbs(db) == ["viewed"]


READ_ONLY = "no reading can be recorded here, so nothing is read: read on the primary"


@pytest.mark.parametrize("how", ["connection", "session", "transaction"])
def test_where_nothing_can_be_recorded_nothing_is_read(db: Database, how: str) -> None:
    fill(db, 1, 1)
    conn = db.connect(LOGIN)
    auditor(conn).page()
    if how == "connection":
        conn.read_only = True
    elif how == "session":
        conn.execute("set default_transaction_read_only = on")
    else:
        conn.execute("begin read only")
    for read in (auditor(conn).page, lambda: take(conn)):
        with pytest.raises(Refused, match=READ_ONLY):
            read()
    viewer = reader(db.connect("app_reader"), key=db.key, viewer_id=1, organization_id=1)
    viewer._conn.execute("set default_transaction_read_only = on")
    assert viewer.page().events
    with pytest.raises(Refused, match=READ_ONLY):
        viewer.export(io.BytesIO())
    assert verbs(db) == ["viewed"]


def test_on_a_standby_the_command_says_what_to_do(db: Database, server: Server) -> None:
    if server.bin is None or server.data is None:
        pytest.skip("a server given by its address has no standby to make")
    with standby(server) as port:
        address = make_conninfo(db.conninfo(LOGIN), port=port)
        done = CliRunner().invoke(main, ["--dsn", address, "log", "--auditor"])
        assert (done.exit_code, done.stdout) == (1, "") and READ_ONLY in done.stderr
        assert len(done.stderr.splitlines()) == 1
        # Plain SQL is read there, and is no event anywhere.
        with psycopg.connect(address) as conn:
            assert conn.execute("select count(*) from audit.event").fetchone() != (0,)


def test_an_export_that_is_given_up_says_how_much_left(db: Database) -> None:
    fill(db, 1, 3000)
    conn = db.connect(LOGIN)
    blocks = auditor(conn).blocks()
    next(blocks)
    blocks.close()  # type: ignore[attr-defined]
    end = readings(db)[-1]
    assert end[0] == "audit.exported" and end[3]["is_complete"] is False and end[3]["events"] > 0

    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        auditor(conn).export(Full())
    assert verbs(db) == ["export_started", "exported"] * 2

    async def abandon() -> None:
        async with await psycopg.AsyncConnection.connect(db.conninfo(LOGIN)) as other:
            blocks = auditor(other).blocks()
            await anext(blocks)
            await blocks.aclose()  # type: ignore[attr-defined]

    asyncio.run(abandon())
    assert verbs(db) == ["export_started", "exported"] * 3


def test_a_connection_that_is_lost_leaves_that_the_export_began(db: Database) -> None:
    fill(db, 1, 3000)
    conn = db.connect(LOGIN)
    blocks = auditor(conn).blocks()
    next(blocks)
    conn.close()
    with pytest.raises((auditdb.AuditError, psycopg.Error)):
        list(blocks)
    assert verbs(db) == ["export_started"]


def test_a_login_that_inherits_nothing_reads_and_is_recorded(db: Database) -> None:
    name = f"noinherit_{os.getpid()}"
    admin = db.connect()
    admin.execute(sql.SQL("create role {} login noinherit").format(sql.Identifier(name)))
    try:
        admin.execute(sql.SQL("grant audit_auditor to {}").format(sql.Identifier(name)))
        with psycopg.connect(db.conninfo(name), autocommit=True) as conn:
            auditor(conn).page()
        assert [row[:2] for row in readings(db)] == [("audit.viewed", name)]
    finally:
        admin.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_verifications_bundles_and_answers_to_a_person_are_events(db: Database) -> None:
    conn = db.connect(LOGIN)
    record_reading(conn, Auditor(None), "verified", {"checkpoint": 7})
    record_reading(conn, Auditor(2), "bundled", {"events": 3})
    with context(actor_id="sam"):
        record_reading(conn, Auditor(None), "accessed", subject_id=42)

    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(db.conninfo(LOGIN)) as other:
            await record_reading_async(other, Auditor(1), "accessed", subject_id=43)

    asyncio.run(work())
    assert readings(db) == [
        ("audit.verified", LOGIN, None, {"checkpoint": 7}),
        ("audit.bundled", LOGIN, "2", {"events": 3}),
        ("audit.accessed", "sam", None, None), ("audit.accessed", LOGIN, "1", None),
    ]  # fmt: skip
    subjects = "select subject_id from audit.event where action = 'audit.accessed' order by id"
    assert [row[0] for row in db.connect().execute(subjects.encode())] == ["42", "43"]
    with pytest.raises(Refused, match="is an invalid reading"):
        record_reading(conn, Auditor(None), "month_dropped")


def test_an_admin_claims_no_verification(db: Database) -> None:
    from tests.viewer import sign

    conn = db.connect("app_reader", autocommit=False)
    for verb in ("verified", "bundled", "accessed"):
        conn.execute("select set_config('auditdb.viewer', %s, true)", [sign(db.key, "1", "1")])
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="is an invalid reading"):
            conn.execute("select audit.record_reading(%s)", [verb])
        conn.rollback()
    assert readings(db) == []


SCANS = """
    select i.indexrelid::regclass::text
    from pg_partition_tree('audit.event') as t
        join pg_index as i on i.indrelid = t.relid
    where t.isleaf and pg_stat_get_xact_numscans(i.indexrelid) > 0
"""


@pytest.mark.parametrize("organization", [None, 1])
def test_what_others_write_is_not_looked_at(db: Database, organization: int | None) -> None:
    fill(db, organization, 20_000)
    db.connect().execute("analyze audit.event")
    conn = db.connect(LOGIN, autocommit=False)
    log = Auditor(organization)
    # More often than a plan is made anew.
    for _ in range(8):
        record_reading(conn, log, "viewed")
        conn.commit()
    conn.execute("select audit.record_reading('viewed', null, %s)", [log.organization_id])
    scanned = [name for (name,) in conn.execute(SCANS.encode())]
    # The planner asks the primary key for the newest time there is.
    assert [name for name in scanned if "action_target_id" in name], scanned
    assert not [name for name in scanned if "organization_id_occurred_at" in name], scanned
    read = (
        "select sum(pg_stat_get_xact_tuples_fetched(relid)) from pg_partition_tree('audit.event')"
    )
    assert (conn.execute(read.encode()).fetchone() or [99])[0] <= 1
