"""The signals: what an admin should look at, what is left out, and that others see none of it."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.test_views import SIGNALS, play, rows, start, stop
from tests.viewer import read

DETAILS = ("ip", "user_agent", "reason", "previous_role", "new_role", "group")
EVENT = """insert into audit.event (
    occurred_at, action, result, organization_id, subject_id, target_id, actor_id, actor_type,
    source, captured_from, details)
values (now() - %(ago)s::interval, %(action)s, %(result)s, %(organization)s, %(subject)s,
    %(target)s, %(subject)s, 'user', 'web', %(table)s, %(details)s::jsonb)
returning id"""


def happened(db: Database, ago: str, action: str = "auth.login", **named: Any) -> int:
    """Write an event of some time ago and return its id."""
    details = {key: named.pop(key) for key in DETAILS if key in named}
    event = {
        "ago": ago, "action": action, "result": "success", "organization": "1", "subject": "2",
        "target": named.get("subject", "2"), "table": None, "details": json.dumps(details), **named,
    }  # fmt: skip
    [(found,)] = db.connect().execute(EVENT, event).fetchall()
    return int(found)


def failed(db: Database, *ago: str, **named: Any) -> list[int]:
    return [happened(db, at, **{"result": "failure", **named}) for at in ago]


def ids(db: Database, view: str) -> list[int]:
    """Return the events that the admin of the first organisation is pointed to."""
    found = read(db, "1", "1", f"select id from audit.{view} order by occurred_at, id")
    return [id for (id,) in found]


WITHIN, BEFORE = "6 days 23:59", "7 days 00:01"


def test_failed_sign_ins_and_denials_of_a_week_are_shown(db: Database) -> None:
    happened(db, BEFORE, result="failure")
    happened(db, BEFORE, result="denied")
    failure = happened(db, WITHIN, result="failure", reason="bad password", ip="203.0.113.9")
    denied = happened(db, "1 hour", result="denied")
    deleted = happened(db, "1 minute", "workflow.deleted", result="denied", target="5")
    happened(db, "1 minute", "workflow.deleted", result="failure")
    happened(db, "1 minute")
    assert ids(db, "failed_login") == [failure, denied]
    assert ids(db, "denied_attempt") == [denied, deleted]
    [first, _] = rows(db, "select * from audit.failed_login order by occurred_at")
    assert (first["user_id"], first["reason"], first["ip"]) == ("2", "bad password", "203.0.113.9")
    [_, second] = rows(db, "select * from audit.denied_attempt order by occurred_at")
    assert (second["action"], second["target_id"]) == ("workflow.deleted", "5")


# A burst that lies across the bounds of two spans of ten minutes is none in either.
NAIVE_BURST = """select user_id from audit.failed_login
group by user_id, date_bin('10 minutes', occurred_at, '2001-01-01') having count(*) >= 5"""


def test_five_failures_of_a_user_within_ten_minutes_are_a_burst(db: Database) -> None:
    failed(db, "3 days", "2 days 23:57", "2 days 23:54", "2 days 23:51", subject="four", ip=None)
    failed(db, "2:30", "2:27", "2:24", "2:21", "2:18", subject="slow")
    burst = failed(db, "1:09:59", "1:07", "1:05", "1:03", "1:00", "0:55", subject="five")
    again = failed(db, "0:30", "0:29", "0:28", "0:27", "0:26", subject="five")
    for ago in ("0:20", "0:19", "0:18", "0:17"):
        happened(db, ago, result="failure", subject="mixed")
    happened(db, "0:16", subject="mixed")
    failed(db, *["0:10"] * 4, subject="apart")
    failed(db, "0:10", subject="apart", organization="2")
    assert ids(db, "login_burst") == [burst[-1], again[-1]]
    [first, second] = rows(db, "select * from audit.login_burst order by occurred_at")
    assert (first["user_id"], first["ip"], first["failures"]) == ("five", None, 6)
    assert (second["failures"], second["started_at"] > first["occurred_at"]) == (5, True)


def test_a_burst_is_found_wherever_it_lies(db: Database) -> None:
    # Two before and three after the end of ten minutes by the clock.
    db.connect().execute("""insert into audit.event (occurred_at, action, result, organization_id,
        subject_id, actor_type, source)
    select date_bin('10 minutes', now() - interval '1 hour', '2001-01-01')
            + n * interval '1 minute', 'auth.login', 'failure', '1', 'x', 'user', 'web'
    from generate_series(-2, 2) as n""")
    assert rows(db, NAIVE_BURST) == []
    assert len(ids(db, "login_burst")) == 1


def test_five_failures_from_an_ip_are_a_burst_whoever_was_tried(db: Database) -> None:
    tried = [
        happened(db, f"{10 - n} minutes", result="denied", subject=f"{n}", ip="203.0.113.9")
        for n in range(5)
    ]
    for n in range(4):
        happened(db, f"{10 - n} minutes", result="failure", subject=None, ip="203.0.113.8")
    [burst] = rows(db, "select * from audit.login_burst")
    assert (burst["user_id"], burst["ip"], burst["failures"]) == (None, "203.0.113.9", 5)
    assert burst["id"] == tried[-1]


def test_failures_of_more_than_a_week_ago_are_no_burst(db: Database) -> None:
    failed(db, *["7 days 00:01"] * 4, "6 days 23:58")
    assert ids(db, "login_burst") == []
    failed(db, *["6 days 23:58"] * 4)
    assert len(ids(db, "login_burst")) == 1


def test_a_sign_in_from_an_address_or_device_never_seen_is_unusual(db: Database) -> None:
    old = {"ip": "203.0.113.1", "user_agent": "Firefox"}
    new = {"ip": "203.0.113.2", "user_agent": "Chrome"}
    happened(db, "500 days", **old)
    happened(db, BEFORE, ip="203.0.113.3", user_agent="Firefox")
    happened(db, WITHIN, **old)
    happened(db, "6 days", ip="203.0.113.3", user_agent="Firefox")
    address = happened(db, "5 days", **{**new, "user_agent": "Firefox"})
    happened(db, "4 days", **{**new, "user_agent": "Firefox"})
    device = happened(db, "3 days", **{**old, "user_agent": "Chrome"})
    both = happened(db, "2 days", ip="203.0.113.4", user_agent="curl")
    happened(db, "1 day")
    assert ids(db, "unusual_login") == [address, device, both]
    found = rows(db, "select * from audit.unusual_login order by occurred_at")
    assert [(e["is_new_ip"], e["is_new_user_agent"]) for e in found] == [
        (True, False), (False, True), (True, True),
    ]  # fmt: skip
    assert (found[0]["ip"], found[0]["user_agent"]) == ("203.0.113.2", "Firefox")


def test_the_first_sign_in_of_a_user_is_not_unusual_and_the_second_may_be(db: Database) -> None:
    happened(db, "2 hours", ip="203.0.113.1", user_agent="Firefox")
    second = happened(db, "1 hour", ip="203.0.113.2", user_agent="Firefox")
    # Of another user, and of the same elsewhere.
    happened(db, "500 days", subject="7", ip="203.0.113.2")
    happened(db, "500 days", organization="2", ip="203.0.113.2")
    assert ids(db, "unusual_login") == [second]


def test_a_failed_sign_in_makes_no_address_known(db: Database) -> None:
    happened(db, "500 days", ip="203.0.113.1")
    failed(db, "20 days", "2 days", ip="203.0.113.2")
    later = happened(db, "1 day", ip="203.0.113.2")
    assert ids(db, "unusual_login") == [later]


@pytest.mark.parametrize(
    ("role", "is_owner"),
    [
        ("owner", True), ("OWNER", True), ("Account Owner", True), ("org:owner", True),
        ("co-owner", True), ("coOwner", True), ("workspace_owner", True), ("member, owner", True),
        ('["ADMIN", "OWNER"]', True), ("owners", True), ("admin", False), ("Product Owner", False),
        ("project_owner", False), ("landowner", False), ("owner_of_one", False), ("", False),
        ("50", False), (None, None),
    ],
)  # fmt: skip
def test_the_name_of_a_role_tells_owners(db: Database, role: str, is_owner: bool) -> None:
    [found] = db.connect().execute("select audit_private.names_owner(%s)", [role]).fetchall()
    assert bool(found[0]) == bool(is_owner)


def test_an_owner_is_told_by_the_words_that_tell_an_admin(db: Database) -> None:
    query = """select audit_private.words('wide'), pg_get_function_sqlbody(oid)
        from pg_proc where proname = 'names_owner'"""
    [(wide, said)] = db.connect().execute(query.encode()).fetchall()
    assert wide in said


@pytest.mark.parametrize(
    ("image", "is_owner"),
    [
        ({"user_id": 1, "role": "OWNER"}, True), ({"memberRole": "owner"}, True),
        ({"roles": ["member", "owner"]}, True), ({"is_owner": True}, True),
        ({"is_owner": False, "role": "ADMIN"}, False), ({"owner": "true"}, False),
        ({"name": "owner", "role": "MEMBER"}, False), ({}, False),
    ],
)  # fmt: skip
def test_the_values_of_a_membership_tell_owners(
    db: Database, image: dict[str, Any], is_owner: bool
) -> None:
    query = "select audit_private.gives_owner(%s::jsonb)"
    assert db.connect().execute(query, [json.dumps(image)]).fetchall() == [(is_owner,)]


def test_members_who_become_owners_are_shown(db: Database) -> None:
    play(
        db,
        "update membership set role = 'ADMIN' where user_id = 2",
        "update membership set role = 'OWNER' where user_id = 2",
        "update membership set role = 'Owner' where user_id = 2",
        "insert into app_user (id, email) values (9, 'a@b.c'), (10, 'b@b.c')",
        "insert into membership (organization_id, user_id, role) values (1, 9, 'OWNER')",
        "insert into membership (organization_id, user_id, role) values (1, 10, 'MEMBER')",
        """select audit.record_event('membership.role_changed', '1', 'membership', '1,1', '1',
            result => 'denied', details => '{"new_role": "OWNER"}')""",
    )
    found = rows(db, "select * from audit.new_owner order by id")
    assert [(e["user_id"], e["action"], e["previous_role"]) for e in found] == [
        ("2", "membership.role_changed", "ADMIN"),
        ("9", "membership.added", None),
    ]
    assert ids(db, "new_owner") == [e["id"] for e in found]


def test_an_owner_of_more_than_a_week_or_of_a_team_or_of_before_is_not_new(db: Database) -> None:
    changed = "membership.role_changed"
    happened(db, BEFORE, changed, new_role="owner")
    new = happened(db, WITHIN, changed, previous_role="admin", new_role="owner")
    happened(db, WITHIN, changed, previous_role="Owner", new_role="owner")
    happened(db, WITHIN, changed, new_role="owner", group={"type": "team", "id": "5"})
    assert ids(db, "new_owner") == [new]


def test_impersonations_that_are_open_or_without_a_reason_are_shown(db: Database) -> None:
    silent = start("1", "5").replace("ticket 7", "")
    play(db, start("1", "2"), stop("1", "2"), start("1", "3"), silent, stop("1", "5"))
    happened(db, BEFORE, "auth.impersonation_started")
    found = rows(db, "select * from audit.open_impersonation order by occurred_at")
    assert [(e["user_id"], e["is_open"], e["reason"]) for e in found] == [
        ("3", True, "ticket 7"), ("5", False, ""),
    ]  # fmt: skip
    assert ids(db, "open_impersonation") == [e["id"] for e in found]


def keyed(db: Database, ago: str, verb: str, key: str, **named: Any) -> int:
    named = {"target": key, "table": "public.api_key", **named}
    return happened(db, ago, f"api_key.{verb}", **named)


def test_keys_of_more_than_a_year_that_were_not_revoked_are_shown(db: Database) -> None:
    old = keyed(db, "400 days", "created", "a")
    keyed(db, "200 days", "updated", "a")
    keyed(db, "400 days", "created", "revoked")
    keyed(db, "1 day", "revoked", "revoked")
    keyed(db, "300 days", "created", "young")
    keyed(db, "400 days", "updated", "unknown")
    recorded = keyed(db, "390 days", "created", "recorded", table=None)
    assert ids(db, "old_api_key") == [old, recorded]
    [found, _] = rows(db, "select * from audit.old_api_key order by occurred_at")
    assert (found["api_key_id"], found["age"].days) == ("a", 400)


SAME = """select api_key_id from audit.api_key_lifecycle
where revoked_at is null and created_at < now() - interval '1 year' order by 1"""

KEYS = """insert into audit.event (
    occurred_at, action, result, organization_id, target_id, actor_type, source, captured_from)
select now() - interval '30 days' - n * interval '600 days' / {events},
    'api_key.' || (array['created', 'updated', 'revoked'])[1 + mod(n / 40, 3) % (1 + mod(k, 3))],
    'success', {organization}, 'k' || k, 'user', 'web', 'public.api_key'
from generate_series(1, {events}) as n, generate_series(10, 40) as k"""


# Of 31 keys. From 20,000 events of an organisation on, keys are looked up one by one.
@pytest.mark.parametrize("events", [3, 2000], ids=["few", "many"])
def test_however_many_events_keys_have_the_same_are_old(db: Database, events: int) -> None:
    conn = db.connect()
    # Of every second: some of the others are revoked, some were created of late.
    for organization in ("'1'", "case when mod(k, 2) = 0 then '1' else '2' end"):
        conn.execute(KEYS.format(events=events, organization=organization).encode())
        keyed(db, "30 days", "created", "young")
        keyed(db, "500 days", "created", "zz")
        seen = read(db, "1", "1", "select api_key_id from audit.old_api_key order by 1")
        assert seen == read(db, "1", "1", SAME) and ("zz",) in seen
        query = "select organization_id, api_key_id from audit.old_api_key order by 1, 2"
        same = SAME.replace("select", "select organization_id,").replace("by 1", "by 1, 2")
        assert rows(db, query) == rows(db, same)


def test_a_signal_is_shown_to_its_own_organisation_and_to_the_auditor(db: Database) -> None:
    for organization in ("1", "2"):
        happened(db, "20 days", organization=organization, ip="203.0.113.1")
        happened(db, "20 hours", organization=organization, ip="203.0.113.2")
        failed(db, *["2 days"] * 5, organization=organization, result="denied")
        keyed(db, "500 days", "created", "a", organization=organization)
        play(
            db,
            f"update membership set role = 'OWNER' where organization_id = {organization} "
            "and role = 'MEMBER'",
            start("6", "5", organization),
        )
    for view in SIGNALS:
        query = f"select distinct organization_id from audit.{view} order by 1"
        assert read(db, "1", "1", query) == [("1",)], view
        assert read(db, "3", "2", query) == [("2",)], view
        for user, organization in [("3", "1"), ("1", "2"), ("99", "1")]:
            assert read(db, user, organization, query) == [], view
        with psycopg.connect(db.conninfo("app_reader")) as conn:
            assert conn.execute(query.encode()).fetchall() == [], view
        assert [r["organization_id"] for r in rows(db, query)] == ["1", "2"], view
        for role in ("app", "stranger"):
            with (
                psycopg.connect(db.conninfo(role)) as conn,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                conn.execute(query.encode())


@pytest.mark.parametrize("view", SIGNALS)
def test_a_signal_begins_with_when_and_whose_and_ends_with_the_event(
    db: Database, view: str
) -> None:
    conn = db.connect()
    found = [c.name for c in conn.execute(f"select * from audit.{view}".encode()).description or []]
    assert (found[:2], found[-1]) == (["occurred_at", "organization_id"], "id")
