"""Archived months are read as those of the database are: by views, readers and the page."""

from __future__ import annotations

import asyncio
import io
import json
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from click.testing import CliRunner

import auditdb
from auditdb.archive import Archive, opened
from auditdb.archive.format import COLUMNS, TooLarge
from auditdb.cli import main
from auditdb.errors import AuditError
from auditdb.operator import limit_visibility
from auditdb.read.event import Event
from auditdb.web import Access, app
from auditdb.web.address import event_path
from tests.archive.months import Archived, settle
from tests.conftest import Database
from tests.page.conftest import fetch, texts

VIEWS = (
    "log", "auth_log", "membership_log", "api_key_log", "workflow_log", "role_change",
    "impersonation", "api_key_lifecycle", "login_activity", "failed_login", "denied_attempt",
    "login_burst", "new_owner", "open_impersonation", "unusual_login", "old_api_key",
)  # fmt: skip
INSERT = """
insert into audit.event (id, occurred_at, action, result, actor_id, actor_type, impersonator_id,
    source, organization_id, target_type, target_id, subject_id, captured_from, old_values,
    new_values, details)
values (%s, %s, %s, %s, %s, 'user', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
MICROSECONDS = """
select id, case when isfinite(occurred_at) then extract(epoch from occurred_at) * 1000000 end
from audit.event where id < 20000 order by id
"""
ROLES = ("OWNER", "MEMBER", "org:owner", "admin", "Account Owner")


def play(db: Database, start: datetime, first: int, events: int, seed: int) -> None:
    """Write events of all kinds that views look for, of the organisations 1 and 2."""
    rng = random.Random(seed)
    pick = rng.choice

    def json_of(value: dict[str, Any] | None) -> str | None:
        return None if value is None else json.dumps(value)

    rows = []
    for number in range(events):
        user = f"u{rng.randrange(4)}"
        details: dict[str, Any] = {"ip": f"10.0.0.{rng.randrange(3)}"} if rng.random() < 0.8 else {}
        if rng.random() < 0.5:
            details["user_agent"] = f"agent {rng.randrange(3)}"
        if rng.random() < 0.2:
            details["reason"] = pick(["", "support", 'why: "so" \\ ü'])
        action = pick(["auth.login", "auth.login", "auth.impersonation_started",
                       "auth.impersonation_stopped", "membership.added", "membership.role_changed",
                       "api_key.created", "api_key.revoked", "workflow.modified",
                       "member.baseline"])  # fmt: skip
        captured = None if action.startswith("auth") else "public.t"
        old: dict[str, Any] | None = None
        new: dict[str, Any] | None = None
        if captured:
            new = {"name": f"name {number}", "role": pick(ROLES), "is_owner": pick([True, False])}
            old = {"name": "before", "n": number} if rng.random() < 0.4 else None
            if rng.random() < 0.2:
                new, old = None, new
            if rng.random() < 0.2:
                details |= {"row_id": str(number), "group": {"type": "team", "id": "7"}}
        if action == "membership.role_changed":
            details |= {"previous_role": pick(ROLES), "new_role": pick(ROLES)}
        rows.append(
            (first + number, start + timedelta(minutes=rng.randrange(24_000) / 3),
             action, pick(["success", "success", "failure", "denied"]), user,
             pick([None, "admin", "staff"]), pick(["web", "api"]), pick(["1", "1", "2", None]),
             "thing", pick([user, f"k{rng.randrange(6)}"]), pick([user, None]), captured,
             json_of(old), json_of(new), pick([json_of(details), json_of(details), None]))
        )  # fmt: skip
    for number in range(6):
        rows.append(
            (first + events + number, start + timedelta(minutes=number), "auth.login", "failure",
             "u1", None, "web", "1", "user", "u1", "u1", None, None, None, '{"ip": "10.0.0.9"}')
        )  # fmt: skip
    with psycopg.connect(db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.cursor().executemany(INSERT.encode(), rows)


def play_all(db: Database) -> None:
    """Write events of 2020 and of last week, as if there had been none before."""
    with psycopg.connect(db.dsn) as conn:
        conn.execute("alter table audit.event disable trigger user")
        conn.execute("delete from audit.event")
        conn.execute("alter table audit.event enable trigger user")
        # Or these ids would be of an organisation that was there before.
        conn.execute("delete from audit_private.organization_start")
        conn.execute("select setval('audit.event_id_seq', 20000)")
    play(db, datetime(2020, 3, 2, tzinfo=UTC), 1_000, 300, 1)
    play(db, datetime(2020, 4, 2, tzinfo=UTC), 2_000, 300, 2)
    with psycopg.connect(db.dsn) as conn:
        # Where a month begins, and twice: a page or a chunk may end between them.
        for id_ in (2_700, 2_701):
            conn.execute(INSERT.encode(), (
                id_, datetime(2020, 4, 1, tzinfo=UTC), "test.edge", "success", "u1", None, "web",
                "1", None, None, None, None, None, None, None))  # fmt: skip
    play(db, datetime.now(UTC) - timedelta(days=6), 10_000, 400, 3)
    with psycopg.connect(db.dsn) as conn:
        conn.execute("select audit_private.begin_series('restored', 20000)")
    settle(db)


class Read(Archived):
    """An archive of events of an organisation that has an admin, and a live log after it."""

    def __init__(self, db: Database, path: Path) -> None:
        super().__init__(db, path, play_all)

    @property
    def url(self) -> str:
        return str(self.root)

    def reader(self, **more: Any) -> auditdb.Reader:
        return auditdb.reader(self.db.connect("app_reader"), key=self.db.key, viewer_id=1,
                              organization_id=1, **more)  # fmt: skip


@pytest.fixture
def log(db: Database, tmp_path: Path) -> Read:
    return Read(db, tmp_path)


def comparable(names: list[str], rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Return rows without what depends on the moment, in one order."""
    found = []
    for row in rows:
        values = dict(zip(names, row, strict=True))
        for name in ("age", "database", "series_id"):
            values.pop(name, None)
        for name, value in values.items():
            if name in ("old_values", "new_values", "details") and isinstance(value, str):
                values[name] = json.loads(value)
            if isinstance(value, list):
                values[name] = sorted(value, key=str)
            if name == "transaction_id":
                values[name] = str(value)
        found.append(values)
    return sorted(found, key=lambda values: json.dumps(values, default=str, sort_keys=True))


def in_postgres(db: Database, view: str) -> list[dict[str, Any]]:
    cursor = db.connect("app_auditor").execute(f"select * from audit.{view}".encode())
    return comparable([column.name for column in cursor.description or ()], cursor.fetchall())


def in_duckdb(duck: duckdb.DuckDBPyConnection, view: str) -> list[dict[str, Any]]:
    duck.execute(f"select * from audit.{view}")
    return comparable([name for name, *_ in duck.description or ()], duck.fetchall())


def test_each_view_says_the_same_of_the_archive_and_of_the_database(log: Read) -> None:
    auditor = log.db.connect("app_auditor")
    before = {view: in_postgres(log.db, view) for view in VIEWS}
    assert all(before.values()), [view for view, rows in before.items() if not rows]
    said = log.archive("24 months")
    assert sum(line.startswith("dropped") for line in said) == 2, said
    # What archiving itself said is later.
    own = {"audit.month_archived", "audit.month_dropped"}
    with opened(log.url, conn=auditor) as duck:
        for view, rows in before.items():
            found = [row for row in in_duckdb(duck, view) if row.get("action") not in own]
            assert found == rows, view
    with opened(log.url) as duck:
        ((events, first, last),) = duck.execute(
            "select count(*), min(month(occurred_at)), max(month(occurred_at)) from event"
        ).fetchall()
        assert (events, first, last) == (614, 3, 4)


def pages(reader: auditdb.Reader, **filters: Any) -> list[Event]:
    """Return all pages forward, and see that they are the same backward."""
    found: list[list[Event]] = []
    page = reader.page(limit=37, **filters)
    while True:
        found.append(page.events)
        if page.next is None:
            break
        page = reader.page(limit=37, after=page.next, **filters)
    back = [page.events]
    while page.previous:
        page = reader.page(limit=37, before=page.previous, **filters)
        back.insert(0, page.events)
    assert [e for part in back for e in part] == [e for part in found for e in part]
    return [event for part in found for event in part]


FILTERS: list[dict[str, Any]] = [
    {}, {"action": "auth.login"}, {"category": "api_key"}, {"actor_id": "u1"},
    {"person_id": "u2"}, {"target_id": "k1", "target_type": "thing"}, {"subject_id": "u3"},
    {"actor_type": "system"}, {"result": "denied"}, {"source": "api"}, {"ip": "10.0.0.1"},
    {"text": "NAME 17"},
    {"text": "nobody", "text_ids": ["k2"]}, {"since": "2020-03-05", "until": "2020-04-04"},
    {"baseline": True}, {"transaction_id": 0}, {"series_id": 1}, {"series_id": 99},
]  # fmt: skip


def test_pages_go_on_in_the_archive_as_if_nothing_had_been_dropped(log: Read) -> None:
    transaction = log.reader().page(limit=1, until="2020-05-01").events[0].transaction_id
    wanted = [{**f, "transaction_id": transaction} if "transaction_id" in f else f for f in FILTERS]
    plain = log.reader()
    before = [pages(plain, **filters) for filters in wanted]
    log.archive("24 months")
    without = log.reader()
    archive = log.reader(archive=Archive(log.url))
    counted = 0
    for filters, events in zip(wanted, before, strict=True):
        assert pages(archive, **filters) == events, filters
        counted += len(pages(without, **filters)) < len(events)
    assert counted > 8
    assert list(archive.events(batch=50)) == before[0]


def test_an_auditor_reads_the_archive_of_all_and_of_one(log: Read) -> None:
    auditor = log.db.connect("app_auditor")
    before = list(auditdb.auditor(auditor).events(until="2020-05-01"))
    log.archive("24 months")
    archive = Archive(log.url)
    assert list(auditdb.auditor(auditor, archive=archive).events(until="2020-05-01")) == before
    mine = auditdb.auditor(auditor, organization_id=1, archive=archive).events(until="2020-05-01")
    assert list(mine) == [event for event in before if event.organization_id == "1"]


def test_nobody_reads_more_in_the_archive_than_in_the_database(log: Read) -> None:
    superuser = log.db.connect()
    log.archive("24 months")
    archive = Archive(log.url)
    old: Any = {"until": "2020-05-01"}
    reader = log.reader(archive=archive)
    assert {event.organization_id for event in reader.events(**old)} == {"1"}
    for viewer, organization in ((2, 1), (1, 2), ("1", "3")):
        other = auditdb.reader(log.db.connect("app_reader"), key=log.db.key, viewer_id=viewer,
                               organization_id=organization, archive=archive)  # fmt: skip
        assert list(other.events()) == []
    limit_visibility(superuser, 1, keep="100 days")
    assert list(reader.events(**old)) == []
    assert list(reader.events())
    whole = datetime.now(UTC) - datetime(2020, 4, 5, tzinfo=UTC)
    limit_visibility(superuser, 1, keep=f"{whole.days} days")
    assert {event.occurred_at.month for event in reader.events(**old)} == {4}
    assert min(event.occurred_at.day for event in reader.events(**old)) >= 5
    limit_visibility(superuser, 1, keep=None)
    assert min(event.occurred_at.day for event in reader.events(**old)) < 5
    superuser.execute("insert into audit_private.organization_start (organization_id, first_id) "
                      "values ('1', 2000)")  # fmt: skip
    assert {event.occurred_at.month for event in reader.events(**old)} == {4}
    superuser.execute("delete from membership where user_id = 1")
    assert list(reader.events()) == []


@pytest.mark.parametrize("function", [
    "viewer_start() returns bigint[]", "visible_since() returns timestamptz[]",
])  # fmt: skip
def test_what_cannot_be_looked_up_is_not_shown(log: Read, function: str) -> None:
    log.archive("24 months")
    reader = log.reader(archive=Archive(log.url))
    assert list(reader.events(until="2020-05-01"))
    # As where a lock is waited for too long, or a token is over a moment later.
    log.db.connect().execute(
        f"create or replace function audit_private.{function} language plpgsql stable as "
        "'begin return null; end'".encode()
    )
    assert list(reader.events(until="2020-05-01")) == []


def test_a_month_that_was_restored_is_read_once(log: Read) -> None:
    before = list(log.reader().events())
    log.archive("24 months")
    log.restore("2020-03")
    reader = log.reader(archive=Archive(log.url))
    assert list(reader.events()) == before
    with opened(log.url, conn=log.db.connect("app_auditor")) as duck:
        (count,) = duck.execute("select count(*) from event where id < 9000").fetchone() or (0,)
    assert count == 614


def test_odd_times_and_settings_of_the_session_change_nothing(log: Read) -> None:
    odd = ("infinity", "-infinity", "0044-03-15 12:00:00.5+00 BC", "12000-01-01 00:00+00",
           "1850-01-01 00:00+00")  # fmt: skip
    for number, at in enumerate(odd, 15_000):
        log.db.connect().execute(INSERT.encode(), (
            number, at, "test.odd", "success", "u1", None, "web", "1", None, None, None, None, None,
            None, None))  # fmt: skip
    superuser = log.db.connect()
    for setting in ("datestyle = 'German'", "timezone = 'Africa/Monrovia'",
                    "search_path = 'public'"):  # fmt: skip
        superuser.execute(f"alter role app_archiver set {setting}".encode())
        superuser.execute(f"alter role app_auditor set {setting}".encode())
    try:
        before = superuser.execute(MICROSECONDS.encode()).fetchall()
        log.conn = log.db.connect("app_archiver")
        said = log.archive("24 months")
        assert sum(line.startswith("dropped") for line in said) == 2, said
        with opened(log.url, conn=log.db.connect("app_auditor")) as duck:
            found = duck.execute(
                "select id, epoch_us(occurred_at) from event where id < 20000 order by id"
            ).fetchall()
        assert found == [(n, None if us is None else int(us)) for n, us in before]
    finally:
        for role in ("app_archiver", "app_auditor"):
            superuser.execute(f"alter role {role} reset all".encode())


def test_an_asynchronous_reader_reads_it_too(log: Read) -> None:
    before = list(log.reader().events())
    log.archive("24 months")

    async def ask() -> list[Event]:
        conninfo = log.db.conninfo("app_reader")
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as conn:
            reader = auditdb.reader(conn, key=log.db.key, viewer_id=1, organization_id=1,
                                    archive=Archive(log.url))  # fmt: skip
            return [event async for event in reader.events(batch=60)]

    assert asyncio.run(ask()) == before


def test_the_page_shows_archived_months_and_their_events(log: Read) -> None:
    access = Access(viewer_id="1", organizations=[1])
    given: dict[str, Any] = {
        "connect": log.db.conninfo("app_reader"), "key": log.db.key, "viewer": lambda r: access,
    }  # fmt: skip
    event = next(iter(log.reader().events(until="2020-04-01")))
    paths = ("/?to=2020-04-30", f"/event/{event_path(event.occurred_at, event.id)}",
             f"/api/events/{event_path(event.occurred_at, event.id)}")  # fmt: skip
    before = fetch(app(**given), *paths)
    assert [answer.status_code for answer in before] == [200] * 3
    log.archive("24 months")
    gone = fetch(app(**given), *paths)
    assert [answer.status_code for answer in gone] == [200, 404, 404]
    assert texts(gone[0].text) == []
    site = app(**given, archive=Archive(log.url))
    there = fetch(site, *paths)
    assert texts(there[0].text) == texts(before[0].text) != []
    # What a key was called last is what the database says now.
    found, former = ({**answer.json(), "names": None} for answer in (there[2], before[2]))
    assert found == former and found["id"] == event.id
    assert there[1].status_code == 200 and event.action in there[1].text
    nobody = app(**{**given, "viewer": lambda r: Access(viewer_id="2", organizations=[1])},
                 archive=Archive(log.url))  # fmt: skip
    assert [answer.status_code for answer in fetch(nobody, *paths)] == [403, 404, 404]


def test_a_store_that_fails_or_hangs_is_a_problem_of_the_page(
    log: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.archive("24 months")
    access = Access(viewer_id="1", organizations=[1])
    archive = Archive(log.url)
    site = app(connect=log.db.conninfo("app_reader"), key=log.db.key, seconds=0.5,
               viewer=lambda r: access, archive=archive)  # fmt: skip
    log.file("2020-04").write_bytes(b"nothing")
    (page,) = fetch(site, "/?to=2020-05-01")
    assert page.status_code == 503 and "The database refused" in page.text
    assert str(log.root) not in page.text
    with pytest.raises(AuditError, match="cannot read the archive"):
        list(log.reader(archive=archive).events())
    slow = "select count(*) from range(100000000000) as a (n) where n % 7 = 3"
    ask = Archive._ask
    monkeypatch.setattr(Archive, "_ask", lambda self, query, *given: ask(self, slow, *given))
    (page,) = fetch(site, "/?to=2020-05-01")
    assert page.status_code == 503 and "This took too long" in page.text
    archive.threads.submit(int).result(30)


TODAY = f"{datetime.now(UTC):%Y-%m-%d}"
FORMS: list[Any] = [("jsonl", "escape"), ("csv", "escape"), ("csv", "keep")]


def exports(
    log: Read, archive: Archive | None = None, forms: Any = FORMS, **filters: Any
) -> list[bytes]:
    """Return what was written until this morning, in every form, by both kinds of reader."""
    filters = {"until": TODAY, **filters}

    async def ask() -> list[bytes]:
        conninfo = log.db.conninfo("app_auditor")
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as conn:
            reader = auditdb.auditor(conn, archive=archive)
            return [
                b"".join([block async for block in reader.blocks(
                    format=form, csv_formulas=formulas, **filters)])
                for form, formulas in forms
            ]  # fmt: skip

    made = []
    for form, formulas in forms:
        out = io.BytesIO()
        count = log.reader(archive=archive).export(out, format=form, csv_formulas=formulas,
                                                   **filters)  # fmt: skip
        made += [out.getvalue(), str(count).encode()]
    return [*made, *asyncio.run(ask())]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an export take many chunks, which end at every kind of place."""
    for name, size in (("_FIRST", 20), ("_MOST", 250), ("_ARCHIVED", 110)):
        monkeypatch.setattr(f"auditdb.read.export.{name}", size)


@pytest.mark.usefixtures("small")
def test_an_export_is_the_same_to_the_byte_after_its_months_left(log: Read) -> None:
    wanted: list[dict[str, Any]] = [
        {"forms": FORMS}, {"limit": 450}, {"action": "auth.login", "result": "failure"},
        {"baseline": True},
        {"since": "2020-03-20", "until": "2020-04-05"}, {"until": "2020-03-10"}, {"text": "name 7"},
    ]  # fmt: skip
    wanted = [{"forms": FORMS[:1], **filters} for filters in wanted]
    before = [exports(log, **filters) for filters in wanted]
    log.archive("24 months")
    assert log.states() == {"2020-03": "dropped", "2020-04": "dropped"}
    archive = Archive(log.url)
    assert [exports(log, archive, **filters) for filters in wanted] == before
    assert exports(log) != before[0]
    log.restore("2020-04")
    assert [exports(log, archive, **filters) for filters in wanted] == before
    exported = log.actions("audit.exported")[-1]["details"]
    assert exported["is_complete"] and exported["events"] == before[-1][-1].count(b"\n") > 0


@pytest.mark.usefixtures("small")
def test_what_came_late_for_an_archived_month_is_in_its_place(log: Read) -> None:
    late = (43, datetime(2020, 3, 15, tzinfo=UTC), "test.late", "success", "u1", None, "web", "1",
            None, None, None, None, None, None, None)  # fmt: skip
    log.archive("24 months")
    log.db.connect().execute(INSERT.encode(), late)
    lines = exports(log, Archive(log.url))[0].splitlines()
    times = [json.loads(line)["occurred_at"] for line in lines]
    assert times == sorted(times, reverse=True)
    assert sum(b"test.late" in line for line in lines) == 1


@pytest.mark.usefixtures("small")
def test_events_that_do_not_fit_into_memory_are_taken_fewer_at_a_time(
    log: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = exports(log)
    log.archive("24 months")
    ask, asked = Archive._ask, []

    def small_memory(self: Archive, query: str, *given: Any) -> Any:
        asked.append(limit := int(query.rpartition(" ")[2]))
        if limit > 20:
            raise TooLarge("they do not fit")
        return ask(self, query, *given)

    monkeypatch.setattr(Archive, "_ask", small_memory)
    assert exports(log, Archive(log.url)) == before
    assert max(asked) == 110


def test_large_events_that_duckdb_has_no_room_for_are_given_fewer_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "database=app" / "month=2020-03"
    folder.mkdir(parents=True)
    text = "'{\"v\": \"' || repeat(md5(range::varchar), 640) || '\"}'"
    given = {"id": "range", "organization_id": "'1'", "new_values": text,
             "occurred_at": "(timestamptz '2020-03-02 00:00Z' + to_seconds(range))"}  # fmt: skip
    columns = ", ".join(f"{given.get(name, 'null')}::{kind} as {name}"
                        for name, kind in COLUMNS.items())  # fmt: skip
    with duckdb.connect() as duck:
        duck.execute("set timezone = 'UTC'")
        duck.execute(f"copy (select {columns} from range(3000)) to '{folder / 'events.parquet'}' "
                     "(format parquet, row_group_size 2048)")  # fmt: skip
    archive = Archive(str(tmp_path))
    archive._duck.execute("set memory_limit = '100MB'")
    scope = {"database": "app", "months": ["2020-03"], "organization_id": "1", "first_id": None,
             "since": None, "series": [], "after_ids": []}  # fmt: skip
    rows, limit = archive.json(scope, {}, 2_000, older_than=(datetime(2020, 4, 1, tzinfo=UTC), 0),
                               since=datetime(2020, 3, 1, tzinfo=UTC))  # fmt: skip
    assert 1 <= limit < 2_000
    assert [row["id"] for row in json.loads(rows)] == [*range(2_999, 2_999 - limit, -1)]


@pytest.mark.usefixtures("small")
def test_an_export_reads_no_more_than_its_reader_may(log: Read) -> None:
    log.archive("24 months")
    reader = log.reader(archive=Archive(log.url))
    blocks = reader.blocks(until="2020-05-01")
    read = next(blocks)
    log.db.connect().execute("delete from membership where user_id = 1")
    assert b"".join(blocks).count(b"\n") <= 110 and read


def test_the_page_and_the_command_export_archived_months(log: Read) -> None:
    access = Access(viewer_id="1", organizations=[1])
    given: dict[str, Any] = {
        "connect": log.db.conninfo("app_reader"), "key": log.db.key, "viewer": lambda r: access,
    }  # fmt: skip
    paths = ("/events.csv?to=2020-04-30", "/events.jsonl?to=2020-04-30")

    def command(*more: str) -> str:
        args = ("--all", "--auditor", "--until", TODAY, "--format", "csv", *more)
        done = CliRunner().invoke(main, ["--dsn", log.db.conninfo("app_auditor"), "log", *args])
        assert done.exit_code == 0, done.output
        return done.stdout

    before = [answer.content for answer in fetch(app(**given), *paths)]
    printed = command()
    log.archive("24 months")
    site = app(**given, archive=Archive(log.url))
    assert [answer.content for answer in fetch(site, *paths)] == before
    assert before[1].count(b"\n") > 100 > command().count("2020-03-")
    assert command("--archive", log.url) == printed


def test_the_command_asks_the_archive_and_the_live_log(log: Read) -> None:
    log.archive("24 months")
    dsn = log.db.conninfo("app_auditor")
    count = "select count(*) as n, min(database) as of from event where organization_id = '1'"

    def run(*args: str) -> Any:
        return CliRunner().invoke(main, ["--dsn", dsn, "query", *args, "--archive", log.url])

    done = run(count, "--format", "jsonl")
    assert done.exit_code == 0, done.output
    archived = json.loads(done.output)
    assert archived["of"] == "app" and archived["n"] > 100
    with_live = json.loads(run(count, "--format", "jsonl", "--live").output)
    assert with_live["n"] > archived["n"]
    viewed = log.actions("audit.viewed")[-1]
    assert viewed["details"]["filter"]["query"] == count
    assert "n,of\n" in run(count, "--format", "csv").output
    assert "previous_role" in run("select * from audit.role_change limit 3").output
    for sql, said in (("select nothing from event", "nothing"), ("selct 1", "selct")):
        done = run(sql)
        assert done.exit_code == 2 and said in done.output and done.output.count("\n") == 1
    for sql in (";", "/* nothing */"):
        assert "give a query, such as" in run(sql).output
    for format_ in ("table", "csv", "jsonl"):
        closed = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "auditdb", "query",
             "select 1", "--archive", log.url, "--format", format_],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (closed.returncode, closed.stderr) == (0, ""), format_
    missing = CliRunner().invoke(main, ["query", "select 1", "--archive", str(log.path / "no")])
    assert missing.exit_code == 2 and "there is no directory" in missing.output


REACHES = [
    "select * from read_csv('/etc/passwd')", "select * from read_text('/etc/passwd')",
    "select * from read_blob('/proc/self/environ')", "from '/etc/passwd.csv'",
    "select * from glob('/etc/*')", "copy event to '{folder}/x.csv'",
    "copy event to '{file}' (format parquet, use_tmp_file false)",
    "explain analyze copy event to '{file}' (format parquet, use_tmp_file false)",
    "attach '{folder}/x.db'", "attach 'dbname=x' (type postgres)", "install httpfs", "load httpfs",
    "set enable_external_access = true", "set allowed_paths = ['/etc/passwd']",
    "select 1; copy event to '{folder}/x.csv'", "export database '{folder}/x'",
    "create table x as select 1", "create secret (type s3)", "pragma enable_profiling",
    "select * from read_parquet('{folder}/other.parquet')",
]  # fmt: skip


@pytest.mark.parametrize("live", [False, True])
def test_a_query_reaches_the_archive_alone(log: Read, live: bool, tmp_path: Path) -> None:
    log.archive("24 months")
    more = ["--live"] if live else []
    path = log.path / "archive" / "database=app"
    files = {each: each.read_bytes() for each in path.rglob("*.parquet")}
    assert files
    other = tmp_path / "other.parquet"
    other.write_bytes(next(iter(files.values())))
    there = sorted(tmp_path.rglob("*"))

    def run(sql: str) -> Any:
        return CliRunner().invoke(main, ["--dsn", log.db.conninfo("app_auditor"), "query", sql,
                                         "--archive", log.url, *more])  # fmt: skip

    for sql in REACHES:
        done = run(sql.format(folder=tmp_path, file=next(iter(files))))
        assert done.exit_code == 2 and done.output.startswith("Error: "), (sql, done.output)
    assert {each: each.read_bytes() for each in path.rglob("*.parquet")} == files
    assert sorted(tmp_path.rglob("*")) == there
    # What is large goes to a file of its own nevertheless.
    assert "3000000" in run("select count(*) from (select distinct md5(range::varchar) from "
                            "range(3000000))").output  # fmt: skip


def test_what_the_archive_lacks_is_named_and_not_passed_over(log: Read) -> None:
    log.archive("24 months")
    dsn = log.db.conninfo("app_auditor")

    def said(*args: str, query: str = "select count(*) from event", code: int = 2) -> str:
        done = CliRunner().invoke(main, ["--dsn", dsn, "query", query, *args])
        assert done.exit_code == code and done.output.count("\n") == 1, done.output
        return done.output

    here = ("--archive", log.url)
    misspelt = (*here, "--database", "shopp")
    assert "the live log is that of app, not of shopp" in said(*misspelt, "--live")
    assert "holds no archived month of a database shopp" in said(*misspelt)
    assert "give the root of an archive" in said("--archive", f"{log.url}/database=app")
    elsewhere = log.path / "elsewhere"
    elsewhere.mkdir()
    told = said("--archive", str(elsewhere), "--live")
    assert f"2020-03 and 2020-04 of app are not at {elsewhere.as_uri()}" in told
    assert f"auditdb archive put them at {log.root.as_uri()}" in told
    log.file("2020-03").unlink()
    for more in ((), ("--live",)):
        told = said(*here, *more, code=1)
        assert "cannot read the archive: " in told and "month=2020-03" in told
    auditor = auditdb.auditor(log.db.connect("app_auditor"), archive=Archive(log.url))
    with pytest.raises(AuditError, match=r"cannot read the archive: .*month=2020-03"):
        auditor.page(limit=10, until=datetime(2020, 4, 1, tzinfo=UTC))
    assert "give a query" in said(*here, query=" ")


def test_a_log_without_its_archive_says_what_it_did_not_read(log: Read) -> None:
    log.archive("24 months")

    def noted(*args: str) -> str:
        dsn = log.db.conninfo("app_auditor")
        return CliRunner().invoke(main, ["--dsn", dsn, "log", "--auditor", *args]).stderr

    note = "only in the archive: 2020-03, 2020-04;"
    assert note in noted("--all", "--format", "csv") and note in noted("--until", "2021-01-01")
    assert "only in the archive: 2020-04;" in noted("--all", "--since", "2020-04-02")
    for args in (("--limit", "1"), ("--all", "--since", "2020-05-01"), ("--archive", log.url)):
        assert "not read" not in noted(*args), args
