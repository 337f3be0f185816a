"""The reader: an admin reads one organisation's log, page by page, and nobody else does."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from auditdb import (
    ConnectionFailed,
    Event,
    InvalidInput,
    Reader,
    Refused,
    context,
    reader,
    record,
)
from tests.conftest import Database
from tests.trips import counted

OWNER, MEMBER = 1, 2  # of organisation 1, Acme
ADMIN = 3  # of organisation 2, Globex


def acme(db: Database, conn: psycopg.Connection[Any] | None = None, **options: Any) -> Reader:
    """Return a reader of Acme's log on behalf of its owner."""
    given = {"viewer_id": OWNER, "organization_id": 1, **options}
    return reader(conn or db.connect("app_reader"), key=db.key, **given)


def write(db: Database, count: int, *, at: str = "now() - n * interval '1 second'") -> None:
    """Put events of Acme into the log, as no application can: the expression at says when."""
    query = (
        "insert into audit.event (occurred_at, action, result, actor_type, organization_id, "
        f"source) select {at}, 'report.exported', 'success', 'user', '1', 'api' "
        "from generate_series(1, %s) as n"
    )
    db.connect().execute(query.encode(), (count,))


@pytest.fixture
def logged(db: Database) -> Database:
    """A database with events of two organisations and of none."""
    conn = db.connect("app")
    with context(conn, actor_id=1, source="web", details={"ip": "192.0.2.1"}):
        conn.execute("update membership set role = 'ADMIN' where user_id = 2")
        conn.execute("update membership set role = 'MEMBER' where user_id = 2")
    record(conn, "auth.login", organization_id=1, subject_id=2, result="failure", source="saml")
    record(conn, "auth.login", organization_id=2, subject_id=3)
    record(conn, "auth.login", subject_id=9)
    with context(conn, actor_id=2, impersonator_id=1, source="api"):
        record(conn, "authority.given", organization_id=1, target_type="desk", target_id=5)
    return db


def test_an_admin_sees_the_organizations_events_newest_first(logged: Database) -> None:
    page = acme(logged).page()
    assert [event.action for event in page.events] == [
        "authority.given",
        "auth.login",
        "membership.role_changed",
        "membership.role_changed",
    ]
    assert page.next is None


def test_an_event_is_its_row(logged: Database) -> None:
    rows = {row["id"]: row for row in logged.events("organization_id = '1'")}
    for event in acme(logged).events():
        row = rows.pop(event.id)
        assert {name: getattr(event, name) for name in row} == {
            **row,
            "transaction_id": int(row["transaction_id"]),
        }
    assert rows == {}


def test_an_event_has_exactly_the_columns_of_the_table(db: Database) -> None:
    rows = db.connect().execute(
        "select attname from pg_attribute where attrelid = 'audit.event'::regclass and attnum > 0"
    )
    assert {field.name for field in fields(Event)} - {"series_id"} == {name for (name,) in rows}


def test_an_event_cannot_be_changed_and_knows_its_category(logged: Database) -> None:
    event = acme(logged).page(action="membership.role_changed").events[0]
    assert event.category == "membership"
    with pytest.raises(FrozenInstanceError):
        event.actor_id = "9"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("viewer", "organization"), [(MEMBER, 1), (OWNER, 2), (ADMIN, 1), (9, 1), (OWNER, 9)]
)
@pytest.mark.parametrize("role", [None, "app_reader"])
def test_anyone_else_sees_an_empty_log_even_as_superuser(
    logged: Database, viewer: int, organization: int, role: str | None
) -> None:
    log = acme(logged, logged.connect(role), viewer_id=viewer, organization_id=organization)
    assert log.page().events == []
    assert list(log.events()) == []


def test_naive_twin_a_superuser_with_a_plain_members_token_sees_everything(
    logged: Database,
) -> None:
    from auditdb.read.token import mint

    conn = logged.connect()
    conn.execute("select set_config('auditdb.viewer', %s, false)", (mint(logged.key, MEMBER, 1),))
    row = conn.execute("select count(distinct organization_id) from audit.event").fetchone()
    assert row == (2,)


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("role", [None, "app_reader"])
def test_a_read_leaves_no_trace_on_the_connection(
    logged: Database, autocommit: bool, role: str | None
) -> None:
    conn = logged.connect(role, autocommit=autocommit)
    assert acme(logged, conn).page().events
    assert conn.info.transaction_status == TransactionStatus.IDLE
    assert conn.autocommit is autocommit
    row = conn.execute(
        "select current_user = session_user, current_setting('auditdb.viewer', true), "
        "current_setting('transaction_read_only')"
    ).fetchone()
    assert row is not None
    assert row[0] is True
    assert row[1] in (None, "")
    assert row[2] == "off"


def test_a_read_inside_a_transaction_leaves_it_as_it_was(logged: Database) -> None:
    conn = logged.connect(autocommit=False)
    conn.execute("set local role app")
    conn.execute("insert into workflow (organization_id, name) values (1, 'w')")
    with context(conn, actor_id=7):
        assert acme(logged, conn).page(action="workflow.created").events
        row = conn.execute(
            "select current_user, current_setting('auditdb.viewer', true), "
            "audit.current_context() ->> 'actor_id'"
        )
        assert row.fetchone() == ("app", "", "7")
        conn.execute("insert into workflow (organization_id, name) values (1, 'v')")
    conn.commit()
    assert [e["actor_id"] for e in logged.events("action = 'workflow.created'")] == [
        "postgres",
        "7",
    ]


def test_a_read_works_in_a_read_only_transaction_and_at_any_isolation(logged: Database) -> None:
    conn = logged.connect("app_reader", autocommit=False)
    conn.read_only = True
    conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    assert len(acme(logged, conn).page().events) == 4
    with conn.transaction():
        assert len(acme(logged, conn).page().events) == 4


def test_a_read_inside_a_failed_transaction_is_refused_and_the_caller_can_roll_back(
    logged: Database,
) -> None:
    conn = logged.connect("app_reader", autocommit=False)
    with pytest.raises(psycopg.errors.DivisionByZero):
        conn.execute("select 1 / 0")
    with pytest.raises(Refused, match="current transaction is aborted"):
        acme(logged, conn).page()
    conn.rollback()
    assert acme(logged, conn).page().events


def test_a_read_is_read_only_and_as_audit_reader(logged: Database) -> None:
    """Seen by the check for admins, which is code of the application within the read."""
    logged.connect("app_owner").execute(
        """create function look(role text) returns boolean language plpgsql as $$
            begin
                raise notice '% %', current_setting('transaction_read_only'),
                    current_setting('role');
                return role = 'OWNER';
            end $$;
        select audit.attach('membership', 'membership', admin => 'public.look(r.role)')"""
    )
    conn = logged.connect()
    said: list[str] = []
    conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    assert acme(logged, conn).page().events
    assert set(said) == {"on audit_reader"}


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_page_costs_two_round_trips(logged: Database, autocommit: bool) -> None:
    conn = logged.connect("app_reader", autocommit=autocommit)
    log = acme(logged, conn)
    for _ in range(8):
        with counted(conn) as trips:
            assert len(log.page().events) == 4
        assert trips.count == 2


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_login_that_may_not_read_is_told_the_command_that_mends_it(
    logged: Database, autocommit: bool
) -> None:
    conn = logged.connect("app", autocommit=autocommit)
    with pytest.raises(Refused, match='run: grant audit_reader to "app"') as caught:
        acme(logged, conn).page()
    assert isinstance(caught.value.__cause__, psycopg.errors.InsufficientPrivilege)
    assert conn.info.transaction_status == TransactionStatus.IDLE


def test_a_lost_connection_is_a_failed_connection(logged: Database) -> None:
    conn = logged.connect("app_reader")
    logged.connect().execute("select pg_terminate_backend(%s)", (conn.info.backend_pid,))
    with pytest.raises(ConnectionFailed):
        acme(logged, conn).page()


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({}, [6, 3, 2, 1]),
        ({"action": "auth.login"}, [3]),
        ({"action": "auth.logout"}, []),
        ({"category": "auth"}, [3]),
        ({"category": "membership"}, [2, 1]),
        ({"category": "member"}, []),
        ({"actor_id": 1}, [6, 2, 1]),
        ({"actor_id": "2"}, [6]),
        ({"actor_type": "user"}, [6, 2, 1]),
        ({"actor_type": "database"}, [3]),
        ({"target_type": "desk"}, [6]),
        ({"target_type": "desk", "target_id": 5}, [6]),
        ({"target_id": 6}, []),
        ({"subject_id": 2}, [3, 2, 1]),
        ({"result": "failure"}, [3]),
        ({"source": "web"}, [2, 1]),
        ({"source": "web", "result": "denied"}, []),
        ({"since": date(2020, 1, 1)}, [6, 3, 2, 1]),
        ({"until": "2020-01-01"}, []),
        (
            {"since": "2020-01-01T00:00:00Z", "until": datetime(9000, 1, 1, tzinfo=UTC)},
            [6, 3, 2, 1],
        ),
        ({"subject_id": "' or true --"}, []),
    ],
)
def test_an_event_must_pass_every_filter(
    logged: Database, filters: dict[str, Any], ids: list[int]
) -> None:
    order = [event["id"] for event in logged.events()]
    log = acme(logged)
    expected = [order[number - 1] for number in ids]
    assert [event.id for event in log.page(**filters).events] == expected
    assert [event.id for event in log.events(batch=1, **filters)] == expected


def test_since_is_included_and_until_is_not(db: Database) -> None:
    write(db, 3, at="'2026-01-31 00:00+00'::timestamptz + n * interval '1 hour'")
    log = acme(db)
    two = datetime(2026, 1, 31, 3, tzinfo=timezone(timedelta(hours=1)))
    assert [e.occurred_at.astimezone(UTC).hour for e in log.events(since=two)] == [3, 2]
    assert [e.occurred_at.astimezone(UTC).hour for e in log.events(until=two)] == [1]
    assert len(log.page(since="2026-01-31", until="2026-02-01").events) == 3
    assert log.page(since=two, until=two).events == []


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        ({"since": datetime(2026, 1, 31)}, "since is 2026-01-31T00:00:00, in no time zone"),
        ({"until": "2026-01-31T09:00"}, "until is 2026-01-31T09:00:00, in no time zone"),
        ({"since": "yesterday"}, "since is 'yesterday'; give a date"),
        ({"since": ""}, "since is ''; give a date"),
        ({"action": "login"}, "give category.verb"),
        ({"category": "auth.login"}, "give what precedes the dot"),
        ({"result": "ok"}, "success, failure, denied"),
        ({"actor_type": "bot"}, "user, api_key, system, database"),
        ({"target_id": b"5"}, "target_id is a bytes"),
        ({"source": "a\x00"}, "source holds a NUL"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_named_before_anything_is_read(
    db: Database, filters: dict[str, Any], says: str
) -> None:
    conn = db.connect("app_reader")
    log = acme(db, conn)
    conn.close()
    with pytest.raises(InvalidInput, match=says):
        log.page(**filters)
    with pytest.raises(InvalidInput, match=says):
        log.events(**filters)


@pytest.mark.parametrize("limit", [0, -1, 10_001, True])
def test_a_page_of_an_impossible_size_is_refused(db: Database, limit: int) -> None:
    log = acme(db)
    with pytest.raises(InvalidInput, match="1 to 10000"):
        log.page(limit=limit)
    with pytest.raises(InvalidInput, match="1 to 10000"):
        log.events(batch=limit)


def test_an_unknown_filter_is_a_type_error(db: Database) -> None:
    with pytest.raises(TypeError, match="a reader has no argument 'colour'"):
        acme(db).page(colour="red")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Did you mean 'actor_id'"):
        acme(db).events(actor=7)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "at",
    [
        "now() - n * interval '20 days'",
        "now() - n * interval '200 days'",
        "'2026-01-31 12:00:00.123456+01'",
    ],
)
def test_pages_meet_without_gap_or_repetition_also_at_equal_times(db: Database, at: str) -> None:
    write(db, 25, at=at)
    log, after, pages = acme(db), None, []
    while True:
        page = log.page(limit=10, after=after)
        pages.append([event.id for event in page.events])
        after = page.next
        if after is None:
            break
    assert [len(page) for page in pages] == [10, 10, 5]
    expected = [event.id for event in log.page(limit=100).events]
    assert [event_id for ids in pages for event_id in ids] == expected
    assert len(set(expected)) == 25


def test_a_page_that_is_exactly_full_is_the_last(db: Database) -> None:
    write(db, 10)
    assert acme(db).page(limit=10).next is None


def test_events_written_meanwhile_do_not_shift_the_pages(db: Database) -> None:
    write(db, 4)
    log = acme(db)
    first = log.page(limit=2)
    record(db.connect("app"), "report.imported", organization_id=1)
    second = log.page(limit=2, after=first.next)
    assert len({event.id for event in first.events + second.events}) == 4


@pytest.mark.parametrize(
    "after", ["", "x", "ü", "!!!!", "MjAyNg", "MjAyNi0wMS0zMSA1", "\x00", "A" * 5000]
)
def test_a_malformed_cursor_is_refused(db: Database, after: str) -> None:
    with pytest.raises(InvalidInput, match="is not a cursor"):
        acme(db).page(after=after)


def test_a_cursor_of_another_organization_opens_nothing(logged: Database) -> None:
    cursor = acme(logged).page(limit=1).next
    seen = acme(logged, viewer_id=ADMIN, organization_id=2).page(after=cursor).events
    assert {event.organization_id for event in seen} == {"2"}


def test_events_stream_in_constant_memory_and_leave_the_connection_to_the_caller(
    db: Database,
) -> None:
    write(db, 2000)
    conn = db.connect("app_reader")
    count = most = 0
    for event in acme(db, conn).events(batch=100):
        count += 1
        if count % 90 == 0:
            assert conn.info.transaction_status == TransactionStatus.IDLE
            assert conn.execute("select current_user").fetchone() == ("app_reader",)
            most = max(most, sum(type(known) is Event for known in gc.get_objects()))
        assert event.action == "report.exported"
    assert count == 2000
    assert 100 <= most <= 201


def test_an_admin_who_is_demoted_reads_no_further(db: Database) -> None:
    write(db, 30)
    events = acme(db).events(batch=10)
    seen = [next(events)]
    db.connect("app").execute("update membership set role = 'MEMBER' where user_id = 1")
    seen += events
    assert len(seen) == 10


def test_each_read_signs_a_fresh_token(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    write(db, 30)
    log = acme(db, lifetime=5)
    clock = [datetime.now(tz=UTC).timestamp()]
    monkeypatch.setattr("auditdb.read.token.time.time", lambda: clock[0])
    assert len(log.page().events) == 30
    clock[0] -= 6
    assert log.page().events == []
    clock[0] += 6
    assert len(log.page().events) == 30


def test_a_reader_of_a_malformed_key_is_not_made(db: Database) -> None:
    with pytest.raises(InvalidInput, match="AUDITDB_KEY"):
        reader(db.connect("app_reader"), key="nonsense", viewer_id=1, organization_id=1)


def test_a_key_that_is_not_the_databases_reads_nothing(logged: Database) -> None:
    log = reader(logged.connect("app_reader"), key="k1.secret", viewer_id=1, organization_id=1)
    assert log.page().events == []


def test_settings_and_factories_of_the_caller_do_not_matter(logged: Database) -> None:
    conn = logged.connect(
        "app_reader",
        row_factory=psycopg.rows.scalar_row,
        cursor_factory=psycopg.RawCursor,
        options="-c datestyle=german -c timezone=Asia/Kathmandu",
    )
    expected = acme(logged).page().events
    assert acme(logged, conn).page().events == expected


@pytest.mark.parametrize("autocommit", [True, False])
def test_the_asynchronous_reader_reads_the_same(logged: Database, autocommit: bool) -> None:
    expected = acme(logged).page().events

    async def work() -> None:
        async with await psycopg.AsyncConnection.connect(
            logged.conninfo("app_reader"), autocommit=autocommit
        ) as conn:
            log = reader(conn, key=logged.key, viewer_id=OWNER, organization_id=1)
            page = await log.page(limit=3)
            assert page.events == expected[:3]
            assert (await log.page(limit=3, after=page.next)).events == expected[3:]
            assert [event async for event in log.events(batch=2)] == expected
            assert [event async for event in log.events(action="auth.logout")] == []
            with pytest.raises(InvalidInput):
                log.events(result="ok")
            member = reader(conn, key=logged.key, viewer_id=MEMBER, organization_id=1)
            assert (await member.page()).events == []
            assert conn.info.transaction_status == TransactionStatus.IDLE
            assert conn.autocommit is autocommit
        async with await psycopg.AsyncConnection.connect(logged.conninfo("app")) as conn:
            with pytest.raises(Refused, match="grant audit_reader"):
                await reader(conn, key=logged.key, viewer_id=1, organization_id=1).page()

    asyncio.run(work())


def test_values_beyond_the_limits_of_python_do_not_keep_a_page_from_being_read(
    db: Database,
) -> None:
    app = db.connect("app")
    deep = "[" * 3000 + "]" * 3000
    app.execute(
        "insert into workflow (organization_id, name, config) values "
        "(1, 'deep', jsonb_build_object('x', %s::jsonb)), "
        "(1, 'long', jsonb_build_object('x', repeat('9', 5000)::numeric))",
        [deep],
    )
    long, nested = acme(db).page().events
    assert long.new_values is not None
    assert str(long.new_values["config"]["x"]) == "9" * 5000
    # What is nested deeper than Python recurses is there all the same, as text.
    assert "deep" in str(nested.new_values)
