"""The auditor: reads every event, or one organisation's, also of one that is deleted."""

from __future__ import annotations

import asyncio
import json

import psycopg
import pytest
from click.testing import CliRunner, Result

from auditdb import InvalidInput, Refused, auditor, context, reader
from auditdb.cli import main
from tests.conftest import Database


@pytest.fixture
def gone(db: Database) -> Database:
    """A database whose organisation 1 was deleted after a change in each."""
    with psycopg.connect(db.conninfo("app"), autocommit=True) as conn:
        with context(conn, actor_id=1):
            conn.execute("update membership set role = 'ADMIN' where user_id in (2, 4)")
        conn.execute("delete from organization where id = 1")
    return db


def test_the_log_of_a_deleted_organization_is_read_by_an_auditor(gone: Database) -> None:
    log = auditor(gone.connect("app_auditor"), organization_id=1)
    actions = {event.action for event in log.events()}
    assert actions >= {"membership.removed", "membership.role_changed"}
    assert {event.organization_id for event in log.events(batch=1)} == {"1"}


def test_naive_twin_its_former_owner_reads_nothing_of_it(gone: Database) -> None:
    log = reader(gone.connect("app_reader"), key=gone.key, viewer_id=1, organization_id=1)
    assert list(log.events()) == []


def test_without_an_organization_it_is_every_event(gone: Database) -> None:
    with psycopg.connect(gone.dsn) as conn:
        row = conn.execute("select count(*) from audit.event").fetchone()
    seen = list(auditor(gone.connect("app_auditor")).events(batch=3))
    assert row == (len(seen),)
    assert {event.organization_id for event in seen} >= {None, "1", "2"}


def test_pages_and_filters_are_those_of_a_reader(gone: Database) -> None:
    log = auditor(gone.connect("app_auditor"), organization_id=1)
    first = log.page(limit=1, action="membership.removed")
    assert first.next is not None
    second = log.page(limit=5, after=first.next, action="membership.removed")
    assert {e.subject_id for e in (*first.events, *second.events)} == {"1", "2"}


@pytest.mark.parametrize("role", ["app", "app_reader", "app_owner", "stranger"])
def test_who_is_no_auditor_is_refused(gone: Database, role: str) -> None:
    with pytest.raises(Refused, match="grant audit_auditor to"):
        auditor(gone.connect(role)).page()


def test_a_read_leaves_no_trace_and_does_not_end_a_transaction(gone: Database) -> None:
    conn = gone.connect("app_auditor", autocommit=False)
    conn.execute("select 1")
    auditor(conn).page()
    row = conn.execute(
        "select current_user, current_setting('transaction_read_only'), "
        "current_setting('search_path')"
    ).fetchone()
    assert row == ("app_auditor", "off", '"$user", public')


def test_the_asynchronous_form_reads_the_same(gone: Database) -> None:
    async def work() -> list[str]:
        async with await psycopg.AsyncConnection.connect(gone.conninfo("app_auditor")) as conn:
            log = auditor(conn, organization_id=1)
            page = await log.page(limit=1)
            assert page.next is not None
            return [event.action async for event in log.events(batch=2)]

    log = auditor(gone.connect("app_auditor"), organization_id=1)
    assert asyncio.run(work()) == [event.action for event in log.events()]


def test_an_organization_that_is_no_id_is_named(db: Database) -> None:
    with pytest.raises(InvalidInput, match="organization_id is a float"):
        auditor(db.connect("app_auditor"), organization_id=7.0)  # type: ignore[call-overload]


def log(db: Database, *args: str, role: str = "app_auditor", key: str = "") -> Result:
    return CliRunner().invoke(
        main, ["--dsn", db.conninfo(role), "log", *args], env={"AUDITDB_KEY": key}
    )


def test_the_command_hands_over_the_log_of_a_deleted_organization(gone: Database) -> None:
    args = ("--auditor", "--organization-id", "1", "--all", "--format", "jsonl")
    there = gone.events("organization_id = '1'")
    events = [json.loads(line) for line in log(gone, *args).stdout.splitlines()]
    assert {event["organization_id"] for event in events} == {"1"}
    assert len(events) == len(there)


def test_the_command_reads_all_organizations_without_one(gone: Database) -> None:
    out = log(gone, "--auditor", "--format", "jsonl").stdout
    assert {json.loads(line)["organization_id"] for line in out.splitlines()} >= {"1", "2"}


MISTAKES = {
    "neither": ((), "--viewer-id is missing: give --viewer-id and --organization-id, or --auditor"),
    "no organisation": (("--viewer-id", "1"), "--organization-id is missing"),
    "no viewer": (("--organization-id", "1"), "--viewer-id is missing"),
    "both": (("--auditor", "--viewer-id", "1"), "--auditor reads without --viewer-id"),
    "a key": (("--auditor", "--key-file", "x"), "--auditor reads without"),
}


@pytest.mark.parametrize(("args", "says"), MISTAKES.values(), ids=MISTAKES.keys())
def test_options_that_contradict_are_named(db: Database, args: tuple[str, ...], says: str) -> None:
    result = log(db, *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr


def test_the_command_refuses_who_is_no_auditor(gone: Database) -> None:
    result = log(gone, "--auditor", role="app_reader")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "grant audit_auditor" in result.stderr
