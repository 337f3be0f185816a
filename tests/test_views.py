"""The views: what each one says, and that row-level security holds behind all of them."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from auditdb.mapping.vocabulary import called
from tests.conftest import Database
from tests.viewer import read

SIGNALS = [
    "failed_login", "denied_attempt", "login_burst", "unusual_login", "new_owner",
    "open_impersonation", "old_api_key",
]  # fmt: skip

VIEWS = [
    "log", "auth_log", "membership_log", "api_key_log", "workflow_log", "role_change",
    "impersonation", "api_key_lifecycle", "login_activity",
]  # fmt: skip


def play(db: Database, *statements: str, actor: str = "1") -> None:
    """Run statements as the application, each in a transaction of its own."""
    with psycopg.connect(db.conninfo("app"), autocommit=True) as conn:
        for statement in statements:
            with conn.transaction():
                conn.execute("select audit.set_context(%s)", [actor])
                conn.execute(statement.encode())


def rows(db: Database, query: str) -> list[dict[str, Any]]:
    """Return what the auditor sees."""
    with psycopg.connect(db.conninfo("app_auditor"), row_factory=dict_row) as conn:
        return conn.execute(query.encode()).fetchall()


def start(who: str, user: str, organization: str = "1") -> str:
    return f"""select audit.record_event('auth.impersonation_started', '{organization}', 'user',
        '{user}', '{user}', actor_id => '{user}', impersonator_id => '{who}',
        details => '{{"reason": "ticket 7"}}')"""


def stop(who: str, user: str, organization: str = "1", result: str = "success") -> str:
    return f"""select audit.record_event('auth.impersonation_stopped', '{organization}', 'user',
        '{user}', '{user}', actor_id => '{user}', impersonator_id => '{who}',
        result => '{result}')"""


def test_log_says_a_change_in_words(db: Database) -> None:
    play(
        db,
        "update membership set role = 'ADMIN' where user_id = 2",
        "insert into workflow (id, organization_id, name) values (5, 1, 'w')",
        "update workflow set name = 'x', organization_id = 2 where id = 5",
        """select audit.set_context('2', impersonator_id => '1');
        delete from workflow""",
        """select audit.record_event('auth.login', '1', 'user', '2', '2', result => 'failure',
            details => '{"reason": "bad password", "ip": "203.0.113.9"}')""",
    )
    log = rows(db, "select * from audit.log where category <> 'audit' order by id")
    assert [(e["category"], e["change"], e["actor"]) for e in log] == [
        ("membership", "MEMBER -> ADMIN", "1"),
        ("workflow", 'name "w"', "1"),
        ("workflow", "name: w -> x, organization_id: 1 -> 2", "1"),
        # Told to the organisation that it left as well.
        ("workflow", "name: w -> x, organization_id: 1 -> 2", "1"),
        ("workflow", 'name "x"', "1 as 2"),
        ("auth", "bad password", "1"),
    ]
    assert log[5]["ip"] == "203.0.113.9"


def test_what_came_or_went_says_what_it_is_called(db: Database) -> None:
    db.connect("app_owner").execute(
        "alter table api_key add label text; alter table workflow_step add title text;"
        "select audit.attach('api_key', 'api_key', redact => '{label}');"
        "select audit.attach('workflow_step', 'workflow', parent => 'workflow_id')"
    )
    play(
        db,
        "insert into app_user (id, email) values (9, 'eve@acme.test')",
        "insert into membership (organization_id, user_id, role) values (1, 9, 'VIEWER')",
        "delete from membership where user_id = 9",
        "insert into api_key (organization_id, name, label, key_hash) values (1, '', 'x', 'h')",
        'insert into workflow (id, organization_id, name) values (5, 1, \'a "b", role "X"\r\')',
        "insert into workflow_step (workflow_id, position, title) values (5, 1, repeat('t', 99))",
        "delete from workflow_step",
        """select audit.set_context('1', details => '{"reason": "ticket 7"}');
        delete from workflow""",
    )
    log = rows(db, "select change from audit.log where category <> 'audit' order by id")
    title = f'title "{"t" * 40}"'
    assert [e["change"] for e in log] == [
        'email "eve@acme.test"',
        'role "VIEWER"',
        'role "VIEWER"',
        None,
        r'name "a \"b\", role \"X\"\r"',
        f"public.workflow_step added, {title}",
        f"public.workflow_step removed, {title}",
        r'name "a \"b\", role \"X\"\r", ticket 7',
    ]


IMAGES: list[dict[str, Any]] = [
    {"id": 1},
    {"name": "n", "title": "t", "email": "e", "role": "r", "url": "u"},
    {"name": None, "Title": "[redacted]", "label": "l", "eMail": "", "role": 3},
    {"DISPLAY_NAME": {"en": "n"}, "role": ["a"], "Role": "b", "name": False, "slug": "s"},
    {"last_name": "l", "first_name": "f", "role_id": 0, "names": "x"},
]


@pytest.mark.parametrize("image", IMAGES)
def test_sql_and_python_call_a_row_by_the_same_columns(db: Database, image: dict[str, Any]) -> None:
    query = "select audit_private.called(%s)"
    [(said,)] = db.connect().execute(query, [Jsonb(image)]).fetchall()
    texts = [(n, v if isinstance(v, str) else json.dumps(v)) for n, v in called(image)]
    assert said == (", ".join(f"{n} {json.dumps(v)}" for n, v in texts) or None)


def test_each_category_has_a_view_of_its_own(db: Database) -> None:
    play(
        db,
        "update app_user set email = 'a@b.c' where id = 1",
        "update membership set role = 'A' where user_id = 2",
        "insert into api_key (organization_id, name, key_hash) values (1, 'k', 'h')",
        "insert into workflow (organization_id, name) values (1, 'w')",
    )
    for name in ("auth", "membership", "api_key", "workflow"):
        (event,) = rows(db, f"select * from audit.{name}_log")
        assert event["category"] == name


def test_role_change_shows_changes_that_happened_and_no_recorded_claim(db: Database) -> None:
    play(
        db,
        "update membership set role = 'ADMIN' where user_id = 2",
        """select audit.record_event('membership.role_changed', '1', 'membership', '1,1', '1',
            details => '{"previous_role": "MEMBER", "new_role": "OWNER"}')""",
        """select audit.record_event('membership.role_changed', '1', 'membership', '1,1', '1',
            result => 'denied')""",
    )
    (change,) = rows(db, "select * from audit.role_change")
    assert (change["user_id"], change["previous_role"], change["new_role"]) == (
        "2", "MEMBER", "ADMIN",
    )  # fmt: skip
    assert (change["actor_id"], change["organization_id"]) == ("1", "1")
    assert change["membership_id"] == "1,2"


def test_impersonation_pairs_a_start_with_its_own_stop(db: Database) -> None:
    play(
        db,
        start("1", "2"),
        start("1", "9"),
        start("8", "2"),
        stop("1", "2", result="denied"),
        stop("1", "2"),
        stop("1", "2"),
    )
    seen = rows(db, "select * from audit.impersonation order by start_id")
    assert [(i["impersonator_id"], i["user_id"], i["is_open"]) for i in seen] == [
        ("1", "2", False), ("1", "9", True), ("8", "2", True),
    ]  # fmt: skip
    closed = seen[0]
    assert closed["reason"] == "ticket 7"
    assert closed["stopped_at"] - closed["started_at"] == closed["duration"]
    results = {e["id"]: e["result"] for e in db.events()}
    assert results[closed["stop_id"]] == "success"
    assert (seen[1]["stopped_at"], seen[1]["duration"]) == (None, None)


def test_impersonation_that_starts_again_without_a_stop_stays_open(db: Database) -> None:
    play(db, start("1", "2"), start("1", "2"), stop("1", "2"))
    seen = rows(db, "select is_open from audit.impersonation order by start_id")
    assert [i["is_open"] for i in seen] == [True, False]


def test_impersonation_of_one_user_in_two_organisations_is_kept_apart(db: Database) -> None:
    play(db, start("1", "2", "1"), start("1", "2", "2"), stop("1", "2", "2"))
    seen = rows(db, "select organization_id, is_open from audit.impersonation order by start_id")
    assert [tuple(i.values()) for i in seen] == [("1", True), ("2", False)]


def test_api_key_lifecycle_says_who_created_and_who_revoked(db: Database) -> None:
    insert = "insert into api_key (id, organization_id, user_id, name, key_hash) values "
    ids = [f"00000000-0000-0000-0000-00000000000{n}" for n in (1, 2)]
    play(db, *(f"{insert} ('{id}', 1, 2, 'k', 'h')" for id in ids))
    play(db, f"update api_key set revoked_at = now() where id = '{ids[0]}'", actor="7")
    play(db, f"update api_key set name = 'n' where id = '{ids[1]}'")
    revoked, current = rows(db, "select * from audit.api_key_lifecycle order by api_key_id")
    assert (revoked["api_key_id"], revoked["owner_id"]) == (ids[0], "2")
    assert (revoked["created_by"], revoked["revoked_by"]) == ("1", "7")
    assert revoked["age"] == revoked["revoked_at"] - revoked["created_at"]
    assert (current["revoked_at"], current["revoked_by"]) == (None, None)
    assert (current["events"], current["age"] is not None) == (2, True)


def test_login_activity_counts_by_user(db: Database) -> None:
    login = """select audit.record_event('auth.login', '1', 'user', '{0}', '{0}',
        result => '{1}', source => '{2}', details => '{{"ip": "{3}"}}')"""
    play(
        db,
        login.format("2", "success", "web", "203.0.113.1"),
        login.format("2", "failure", "web", "203.0.113.2"),
        login.format("2", "denied", "saml", "203.0.113.2"),
        login.format("1", "success", "oauth", "203.0.113.3"),
    )
    ann, bob = rows(db, "select * from audit.login_activity order by user_id")
    assert (bob["successes"], bob["failures"], bob["denials"]) == (1, 1, 1)
    assert bob["last_failure_at"] > bob["last_success_at"]
    assert sorted(bob["sources"]) == ["saml", "web"]
    assert sorted(bob["ips"]) == ["203.0.113.1", "203.0.113.2"]
    assert (ann["user_id"], ann["last_failure_at"]) == ("1", None)


def fill(db: Database) -> None:
    """Give every view a row in each of the two organisations."""
    for organization in ("1", "2"):
        play(
            db,
            f"update membership set role = role || '!' where organization_id = {organization} "
            "and role = 'MEMBER'",
            "insert into api_key (organization_id, name, key_hash) "
            f"values ({organization}, 'k', 'h')",
            f"insert into workflow (organization_id, name) values ({organization}, 'w')",
            f"select audit.record_event('auth.login', '{organization}', 'user', '5', '5')",
            start("6", "5", organization),
        )


@pytest.mark.parametrize("view", VIEWS)
def test_view_shows_an_admin_their_own_organisation_and_nobody_else_anything(
    db: Database, view: str
) -> None:
    fill(db)
    query = f"select distinct organization_id from audit.{view} order by 1"
    assert read(db, "1", "1", query) == [("1",)]
    assert read(db, "3", "2", query) == [("2",)]
    for user, organization in [("2", "1"), ("4", "2"), ("3", "1"), ("1", "2")]:
        assert read(db, user, organization, query) == []
    # Without a token, and for the auditor.
    with psycopg.connect(db.conninfo("app_reader")) as conn:
        assert conn.execute(query.encode()).fetchall() == []
    assert {r["organization_id"] for r in rows(db, query)} >= {"1", "2"}
    for role in ("app", "stranger"):
        with psycopg.connect(db.conninfo(role)) as conn:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(query.encode())


def test_view_without_security_invoker_would_show_everything(db: Database) -> None:
    fill(db)
    with db.connect() as conn:
        conn.execute("create view naive as select * from audit.event")
        conn.execute("grant select on naive to audit_reader")
    naive = read(db, "1", "1", "select distinct organization_id from naive where target_type = "
        "'workflow' order by 1")  # fmt: skip
    assert naive == [("1",), ("2",)]


def test_every_view_is_tested_here(db: Database) -> None:
    with db.connect() as conn:
        found = conn.execute("""select relname from pg_class
            where relnamespace::regnamespace::text ~ '^audit' and relkind = 'v'""").fetchall()
    # Those of signals are tested in test_signals.py.
    assert {name for (name,) in found} == set(VIEWS) | set(SIGNALS)
