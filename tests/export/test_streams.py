"""Streams: subscriptions that an organisation's admins make themselves, with their token."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.conftest import Database
from tests.export.test_subscriptions import batch
from tests.viewer import sign

# Users of the small application: the owner of 1, a member of it, the owner of 2.
OWNER, MEMBER, OTHER = "1", "2", "3"
HOOK = "https://hooks.acme.test/audit"


@contextmanager
def viewing(
    db: Database, viewer: str = OWNER, organization: str = "1", **given: Any
) -> Iterator[psycopg.Connection[Any]]:
    """Open a transaction of a viewer with a token."""
    with psycopg.connect(db.conninfo("app_reader"), row_factory=dict_row) as conn:
        token = sign(db.key, viewer, organization, **given)
        conn.execute("select set_config('auditdb.viewer', %s, true)", [token])
        yield conn


def create(db: Database, viewer: str = OWNER, organization: str = "1", sink: str = HOOK) -> str:
    with viewing(db, viewer, organization) as conn:
        row = conn.execute("select audit.create_stream(%s) as name", [sink]).fetchone()
    assert row is not None
    return str(row["name"])


def claimed(db: Database) -> list[str]:
    """Claim a batch of each subscription, and return of which it was given."""
    query = (
        "select audit_private.claim_batches(audit_private.begin_exporting(), jsonb_build_array("
        "jsonb_build_object('name', s.name, 'created_at', s.created_at, 'tick_id', s.tick_id, "
        "'pending', %s::jsonb))) from audit.subscription as s"
    )
    rows = db.connect("app_auditor").execute(query, [json.dumps(batch(0, 1))]).fetchall()
    return [name for (name,) in rows]


def streams(db: Database, viewer: str = OWNER, organization: str = "1") -> list[dict[str, Any]]:
    with viewing(db, viewer, organization) as conn:
        return conn.execute("select * from audit.list_streams()").fetchall()


def run(db: Database, query: str, name: str, viewer: str = OWNER, organization: str = "1") -> None:
    with viewing(db, viewer, organization) as conn:
        conn.execute(query.encode(), [name])


def told(db: Database, organization: str = "1") -> list[tuple[Any, ...]]:
    with psycopg.connect(db.dsn) as conn:
        return conn.execute(
            "select action, actor_id, actor_type, source, target_id, new_values ->> 'state' "
            "from audit.event where action ~ 'subscription' and organization_id = %s order by id",
            [organization],
        ).fetchall()


CHANGES = ("select audit.pause_stream(%s)", "select audit.resume_stream(%s)",
           "select audit.drop_stream(%s)")  # fmt: skip


def test_an_admin_makes_pauses_resumes_and_drops_one_and_others_see_it(db: Database) -> None:
    name = create(db)
    (stream,) = streams(db)
    assert (stream["name"], stream["sink"], stream["state"]) == (name, HOOK, "active")
    assert (stream["made_by"], stream["delivered"], stream["has_missed"]) == (OWNER, 0, False)
    for change in CHANGES:
        run(db, change, name)
    assert streams(db) == []
    assert told(db) == [
        ("audit.subscription_created", OWNER, "user", "web", name, None),
        ("audit.subscription_changed", OWNER, "user", "web", name, "paused"),
        ("audit.subscription_changed", OWNER, "user", "web", name, "active"),
        ("audit.subscription_dropped", OWNER, "user", "web", name, None),
    ]


def test_what_the_vendor_does_to_one_its_organisation_sees(db: Database) -> None:
    name = create(db)
    conn = db.connect("app_owner")
    (seen,) = conn.execute("select name, made_by, organization_id from audit.list_subscriptions()")
    assert seen == (name, OWNER, "1")
    conn.execute("select audit.pause_subscription(%s)", [name])
    conn.execute("select audit.drop_subscription(%s)", [name])
    assert [row[:3] for row in told(db)[1:]] == [
        ("audit.subscription_changed", "app_owner", "database"),
        ("audit.subscription_dropped", "app_owner", "database"),
    ]


def test_only_an_admin_of_the_organisation_with_a_good_token(db: Database) -> None:
    name = create(db)
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        (MEMBER, "1", {}), (OTHER, "1", {}), (OWNER, "1", {"seconds": -5}), ("", "1", {}),
    ]  # fmt: skip
    asked = [*CHANGES, "select audit.create_stream('https://a.test/' || %s)",
             "select %s || name from audit.list_streams()"]  # fmt: skip
    for viewer, organization, given in wrong:
        for query in asked:
            with (
                viewing(db, viewer, organization, **given) as conn,
                pytest.raises(psycopg.errors.InsufficientPrivilege, match="the viewer is unknown"),
            ):
                conn.execute(query.encode(), [name])
    for role in ("app_reader", "app_auditor", "app", "stranger"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.connect(role).execute("select audit.create_stream('https://a.test/')")
    db.connect("app").execute("delete from membership where user_id = 1")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        streams(db)
    # It is the organisation's, and goes on.
    with psycopg.connect(db.dsn) as conn:
        assert conn.execute("select state from audit.subscription").fetchall() == [("active",)]


def test_a_stream_of_others_is_none_as_is_a_subscription_of_the_vendor(db: Database) -> None:
    name = create(db, OTHER, "2")
    db.connect("app_auditor").execute(
        "select audit.subscribe('siem', 'https://h/', organization_id => '1')"
    )
    assert streams(db) == []
    said = set()
    for other in (name, "siem", "stream-nobodys"):
        for change in CHANGES:
            with pytest.raises(psycopg.errors.UndefinedObject) as error:
                run(db, change, other)
            said.add(str(error.value).partition("\nCONTEXT")[0])
    assert len(said) == 1, "it tells which of them there are"
    assert [s["state"] for s in streams(db, OTHER, "2")] == ["active"]


def test_of_ten_at_once_five_are_made(db: Database) -> None:
    made: list[str] = []
    refused: list[str] = []
    start = threading.Barrier(10)

    def work() -> None:
        with viewing(db) as conn:
            start.wait()
            try:
                conn.execute("select audit.create_stream(%s)", [HOOK])
                conn.commit()
                made.append("")
            except psycopg.errors.ConfigurationLimitExceeded as error:
                refused.append(str(error))

    assert db.key
    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (5, 5)
    create(db, OTHER, "2")
    run(db, CHANGES[2], streams(db)[0]["name"])
    create(db)
    with viewing(db) as conn, pytest.raises(psycopg.errors.InvalidTransactionState):
        conn.rollback()
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("select set_config('auditdb.viewer', %s, true)", [sign(db.key, OWNER, "1")])
        conn.execute("select audit.create_stream(%s)", [HOOK])


@pytest.mark.parametrize(
    "sink",
    ["http://a.test/", "-", "file:///etc", "s3://b/x", "splunk+https://a.test", "https://", "",
     "https://127.0.0.1/", "https://2130706433/", "https://0x7f.1/", "https://[::1]/",
     "https://localhost/", "https://u:p@a.test/", "https://a.test/?k=v", "https://a.test/#x",
     "https://a.test:22/", "https://a.test:0443/", "https://a.test/a b", "https://a..test/",
     "https://a.test/\n", "https://-a.test/", "https://a.test\\@b.test/", "https://a.test./",
     "https://" + "a." * 300 + "test/", "https://a.test%2f/", "https://a.teſt/"],
)  # fmt: skip
def test_an_address_that_is_none_of_a_stream_is_refused(db: Database, sink: str) -> None:
    with pytest.raises(
        psycopg.errors.InvalidParameterValue, match="a stream needs a sink https://"
    ):
        create(db, sink=sink)
    with viewing(db) as conn, pytest.raises(psycopg.errors.InvalidParameterValue):
        conn.execute("select audit.create_stream('https://a.test/', 'xml')")


def test_an_organisation_that_gets_the_identifier_of_a_former_one_has_no_streams_of_it(
    db: Database,
) -> None:
    name = create(db, OTHER, "2")
    owner = db.connect("app_owner")
    app = db.connect("app")
    with psycopg.connect(db.dsn) as conn:
        conn.execute("insert into audit_private.organization_start (organization_id) values ('2')")
    app.execute("select audit.record_event('auth.login', '2')")
    assert streams(db, OTHER, "2") == []
    for change in CHANGES:
        with pytest.raises(psycopg.errors.UndefinedObject):
            run(db, change, name, OTHER, "2")
    assert claimed(db) == []
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="the organisation of"):
        owner.execute("select audit.resume_subscription(%s)", [name])
    owner.execute("select audit.maintain()")
    with psycopg.connect(db.dsn) as conn:
        assert conn.execute("select state from audit.subscription").fetchall() == [("lapsed",)]
    # Nothing of it is in the log of the new one.
    assert [row[0] for row in told(db, "2")] == ["audit.subscription_created"]


def test_a_stream_begins_now_also_where_nobody_made_ticks(db: Database) -> None:
    db.connect("app").execute("select audit.record_event('auth.login', '1')")
    with psycopg.connect(db.dsn) as conn:
        assert conn.execute("select count(*) from audit.tick").fetchone() == (0,)
        name = create(db)
        behind = (
            "select count(*) from audit.subscription as s join audit.tick as t on t.id > s.tick_id"
        )
        assert conn.execute(behind).fetchone() == (0,)
        conn.commit()
        assert conn.execute("select sum(events) > 0 from audit.tick").fetchone() == (True,)
    db.connect("app_auditor").execute("select audit.subscribe('s', '-', from_now => true)")
    assert name


def test_a_claim_of_a_stream_that_is_current_is_given(db: Database) -> None:
    name = create(db)
    assert claimed(db) == [name]


def test_a_stream_keeps_retention_from_nothing(db: Database) -> None:
    """Else one customer's sink would keep everybody's log."""
    create(db)
    db.connect("app").execute("select audit.record_event('auth.login', '1')")
    db.connect("app_auditor").execute("select audit.make_tick()")
    query = "select audit_private.untaken(date_trunc('month', now())::date)"
    with psycopg.connect(db.dsn) as conn:
        assert conn.execute(query).fetchall() == [(None,)]
        conn.execute("update audit.subscription set made_by = null")
        (row,) = conn.execute(query).fetchall()
        assert "not taken" in row[0]


def test_the_doctor_says_that_nobody_serves_streams_and_no_more(db: Database) -> None:
    name = create(db)
    db.connect("app").execute("select audit.record_event('auth.login', '1')")
    conn = db.connect("app_auditor")
    conn.execute("select audit.make_tick()")
    query = "select object, problem from audit_private.check_subscriptions()"
    with psycopg.connect(db.dsn, autocommit=True) as superuser:
        assert superuser.execute(query).fetchall() == []
        superuser.execute("alter table audit.tick disable trigger all")
        superuser.execute("update audit.tick set made_at = made_at - interval '2 hours'")
        (found,) = superuser.execute(query).fetchall()
        assert found == ("streams of organisations", "1 of them were not served for an hour")
        superuser.execute("update audit.subscription set problem = 'x', state = 'failed'")
        assert superuser.execute(query).fetchall() == []
    assert name
