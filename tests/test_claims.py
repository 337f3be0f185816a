"""Settings of other tools that say who acts: read where configured, and never in the way."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import errors

import auditdb
from auditdb.cli import main
from auditdb.detect.propose import detect
from auditdb.errors import InvalidInput, Refused
from auditdb.mapping.apply import apply
from auditdb.mapping.attach import read_context_from
from auditdb.mapping.file import load
from auditdb.mapping.plan import plan
from tests.conftest import Database

POSTGREST = "request.jwt.claims"
EVERY = [
    POSTGREST,
    "hasura.user",
    "app.current_user_id",
    "pghistory.context_metadata",
    "jwt.claims.user_id",
]
USER = "6f4e3c1a-0000-4000-8000-000000000007"
SECRETS = ("ann@example.com", "+491701234567", "app-metadata-secret", "the-session-itself")
CLAIMS = {
    "sub": USER,
    "role": "authenticated",
    "email": SECRETS[0],
    "phone": SECRETS[1],
    "app_metadata": {"provider": SECRETS[2]},
    "session_id": SECRETS[3],
}


@pytest.fixture
def read(db: Database) -> Database:
    """A database that reads every setting, with one workflow to change."""
    with db.connect("app_owner") as conn:
        conn.execute("select audit.read_context_from(%s)", [EVERY])
    db.connect().execute("insert into workflow (id, organization_id, name) values (1, 1, 'w')")
    return db


def own(db: Database, action: str) -> list[dict[str, Any]]:
    """Return events of the log itself."""
    with db.connect() as conn:
        query = "select to_jsonb(e) from audit.event as e where action = %s order by id"
        return [row[0] for row in conn.execute(query, [action])]


def configured(db: Database) -> list[dict[str, Any]]:
    return own(db, "audit.context_read")


def change(db: Database, **said: Any) -> dict[str, Any]:
    """Change a row and record an event under settings; return what both say of who acts."""
    with db.connect("app") as conn, conn.transaction():
        for name, value in said.items():
            text = value if isinstance(value, str) else json.dumps(value)
            conn.execute("select set_config(%s, %s, true)", [name, text])
        conn.execute("update workflow set name = name || '.' where id = 1")
        conn.execute("select audit.record_event('report.exported')")
    names = ("actor_id", "actor_type", "source", "details")
    captured, recorded = (
        {name: db.events(f"action = '{action}'")[-1][name] for name in names}
        for action in ("workflow.modified", "report.exported")
    )
    captured_details = captured["details"] or {}
    for name in names[:3]:
        assert captured[name] == recorded[name], name
    for name, value in (recorded["details"] or {}).items():
        assert captured_details[name] == value
    return captured


@pytest.mark.parametrize(
    ("setting", "value", "actor", "source"),
    [
        (POSTGREST, CLAIMS, USER, "api"),
        ("hasura.user", {"x-hasura-user-id": "7", "x-hasura-role": "editor"}, "7", "api"),
        ("app.current_user_id", "7", "7", "web"),
        ("pghistory.context_metadata", {"user": 7, "url": "/reset/MQ/c4-f00d/"}, "7", "web"),
        ("jwt.claims.user_id", "7", "7", "api"),
    ],
)
def test_each_convention_says_who_acts(
    read: Database, setting: str, value: Any, actor: str, source: str
) -> None:
    event = change(read, **{setting: value})
    assert (event["actor_id"], event["actor_type"], event["source"]) == (actor, "user", source)
    assert event["details"]["actor_source"] == setting


def test_nothing_is_read_unless_it_is_configured(read: Database) -> None:
    with read.connect("app_owner") as conn:
        assert read_context_from(conn, [POSTGREST]) == EVERY
    event = change(read, **{"jwt.claims.user_id": "7"})
    assert (event["actor_id"], event["actor_type"], event["source"]) == ("app", "database", "sql")
    assert "actor_source" not in event["details"]


def test_of_a_token_only_who_acts_and_the_role_get_into_the_log(read: Database) -> None:
    event = change(read, **{POSTGREST: CLAIMS})
    assert set(event["details"]) == {"actor_source", "role", "session"}
    assert event["details"]["role"] == "authenticated"
    log = read.connect().execute("select e::text from audit.event as e").fetchall()
    assert not [secret for secret in SECRETS if secret in str(log)]


def test_a_token_in_place_of_an_identifier_is_a_digest(read: Database) -> None:
    token = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0iL3oR6"
    for said in ({POSTGREST: {"sub": token, "role": token}}, {"app.current_user_id": token}):
        event = change(read, **said)
        assert token not in str(event)
        assert event["actor_id"]


@pytest.mark.parametrize(
    ("setting", "claims", "actor", "kind"),
    [
        (POSTGREST, {"role": "anon"}, None, "user"),
        (POSTGREST, {"role": "service_role"}, None, "system"),
        ("hasura.user", {"x-hasura-role": "admin"}, None, "system"),
        ("hasura.user", {"x-hasura-role": "admin", "x-hasura-user-id": "7"}, "7", "user"),
    ],
)
def test_a_role_without_a_user_has_no_actor(
    read: Database, setting: str, claims: Any, actor: str | None, kind: str
) -> None:
    event = change(read, **{setting: claims})
    assert (event["actor_id"], event["actor_type"]) == (actor, kind)


@pytest.mark.parametrize(
    "value",
    ["{", "[]", "7", '"x"', "\\u0000", '{"sub": "\\u0000"}', '{"sub": "' + "x" * 1000000 + '"}'],
)
def test_what_cannot_be_read_never_fails_the_action(read: Database, value: str) -> None:
    for setting in (POSTGREST, "hasura.user", "pghistory.context_metadata"):
        event = change(read, **{setting: value})
        assert (event["actor_id"], event["actor_type"]) == ("app", "database")
        assert event["details"]["degraded"] == {"lost": ["context"]}


def test_status_lists_the_settings_that_are_read(read: Database) -> None:
    runner, line = CliRunner(), "without a context, the actor is read from "
    for role in ("app_owner", "app_auditor"):
        asked = ["--dsn", read.conninfo(role), "status"]
        assert json.loads(runner.invoke(main, [*asked, "--json"]).stdout)["context"] == EVERY
        assert line + ", ".join(EVERY[:2]) in runner.invoke(main, asked).stdout
    with read.connect("app_owner") as conn:
        conn.execute("select audit.read_context_from('{}')")
    assert line not in runner.invoke(main, asked).stdout


@pytest.mark.parametrize("sub", [{"a": 1}, ["7"], True, None, ""])
def test_an_identifier_of_a_wrong_type_is_none(read: Database, sub: Any) -> None:
    event = change(read, **{POSTGREST: {"sub": sub, "role": "authenticated"}})
    assert (event["actor_id"], event["actor_type"]) == (None, "user")


def test_an_identifier_is_cut_at_200_characters(read: Database) -> None:
    assert change(read, **{"app.current_user_id": "ü" * 900})["actor_id"] == "ü" * 200


def test_an_empty_setting_is_unset_and_the_next_is_read(read: Database) -> None:
    event = change(read, **{POSTGREST: "", "hasura.user": {}, "jwt.claims.user_id": "7"})
    assert event["details"]["actor_source"] == "jwt.claims.user_id"
    event = change(read, **{POSTGREST: "", "jwt.claims.user_id": ""})
    assert event["actor_type"] == "database"


def test_a_context_goes_before_every_setting(read: Database) -> None:
    said = {"auditdb.context": {"actor_id": "3", "actor_type": "user", "source": "cli"}}
    event = change(read, **said, **{POSTGREST: CLAIMS})
    assert (event["actor_id"], event["source"], event["details"]) == ("3", "cli", None)
    with read.connect("app") as conn, conn.transaction():
        conn.execute("select set_config('auditdb.context', '{', true)")
        conn.execute("select set_config(%s, %s, true)", [POSTGREST, json.dumps(CLAIMS)])
        conn.execute("update workflow set name = 'x' where id = 1")
    assert read.events("action = 'workflow.modified'")[-1]["actor_type"] == "database"


def test_who_configures_it_is_an_operator_and_it_is_an_event(db: Database) -> None:
    for role in ("app", "app_reader", "app_auditor", "stranger"):
        with db.connect(role) as conn, pytest.raises(errors.InsufficientPrivilege):
            conn.execute("select audit.read_context_from('{request.jwt.claims}')")
    with db.connect("app_owner") as conn:
        conn.execute("select audit.read_context_from('{request.jwt.claims}')")
        conn.execute("select audit.read_context_from('{request.jwt.claims}')")
    (event,) = configured(db)
    assert event["new_values"] == {"settings": [POSTGREST]}
    with db.connect("app_owner") as conn, pytest.raises(errors.InvalidParameterValue):
        conn.execute("select audit.read_context_from(array['x''); drop table audit.event; --'])")


FILE = 'context = ["request.jwt.claims"]\n[[table]]\nname = "public.workflow"\nkind = "workflow"\n'


def test_a_mapping_file_says_it(db: Database) -> None:
    conn = db.connect("app_owner", autocommit=True)
    (defined, *_) = plan(conn, load(FILE))
    assert str(defined) == "define    context: request.jwt.claims"
    assert not configured(db)
    apply(conn, load(FILE))
    assert len(configured(db)) == 1
    assert "context" not in [change.kind for change in plan(conn, load(FILE))]
    with pytest.raises(Refused, match=r"no context can be read from the setting 'x\.y'"):
        plan(conn, load('context = ["x.y"]'))
    with pytest.raises(InvalidInput, match="must be a list"):
        load('context = "x.y"')


@pytest.mark.parametrize(
    ("setting", "schema"),
    [
        (
            POSTGREST,
            "create schema auth; create function auth.uid() returns uuid language sql as "
            "'select null::uuid'",
        ),
        ("hasura.user", "create schema hdb_catalog"),
        (
            "pghistory.context_metadata",
            "create function _pgh_attach_context() returns text language sql as "
            "'select null::text'",
        ),
        (
            "app.current_user_id",
            "create policy own on workflow using "
            "(id::text = current_setting('app.current_user_id', true))",
        ),
        (
            "jwt.claims.user_id",
            "create function me() returns text language sql as $$ select "
            "current_setting('jwt.claims.user_id', true) $$",
        ),
    ],
)
def test_detect_proposes_what_the_catalog_shows(db: Database, setting: str, schema: str) -> None:
    conn = db.connect("app_owner", autocommit=True)
    assert detect(conn).context == ()
    db.connect().execute(schema.encode())
    proposal = detect(conn)
    assert proposal.context == (setting,)
    assert load(proposal.to_toml())[0].name == "context"
    apply(conn, load(proposal.to_toml()))
    assert len(configured(db)) == 1


def test_the_log_itself_says_who_acted(read: Database) -> None:
    with read.connect("app_owner") as conn, conn.transaction():
        conn.execute("select set_config(%s, %s, true)", [POSTGREST, json.dumps(CLAIMS)])
        conn.execute("select audit.define_action('report.seen', 'A report was seen')")
    assert own(read, "audit.action_defined")[-1]["actor_id"] == USER


def test_a_baseline_has_no_actor_of_a_setting(read: Database) -> None:
    conn: psycopg.Connection[Any] = read.connect("app_owner", autocommit=True)
    conn.execute("select set_config(%s, %s, false)", [POSTGREST, json.dumps(CLAIMS)])
    auditdb.baseline(conn, "public.workflow")
    assert {e["actor_type"] for e in read.events("action = 'workflow.baseline'")} == {"system"}
