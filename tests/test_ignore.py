"""What is ignored: the vocabulary's default, with what a mapping adds and excepts."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.types.json import Jsonb

import auditdb
from auditdb.mapping.file import load
from auditdb.mapping.plan import plan
from auditdb.operate.doctor import diagnose
from tests.conftest import Database

NOTE = """
create table note (
    id int primary key,
    text text not null,
    note text,
    updated_at timestamptz,
    last_read_at timestamptz
);
"""


def _noted(empty_db: Database, kind: str = "note", **options: list[str]) -> psycopg.Connection:
    empty_db.connect().execute("grant create on schema public to app_owner")
    conn = empty_db.connect("app_owner")
    conn.execute(NOTE)
    auditdb.attach(conn, "public.note", kind, **options)
    conn.execute("insert into note values (1, 'a')")
    return conn


def _ignored(db: Database, table: str = "public.note") -> list[str]:
    query = "select mapping -> 'ignore' from audit_private.attachment where name = %s"
    row = db.connect().execute(query, (table,)).fetchone()
    assert row is not None
    return row[0] or []


def test_what_is_given_adds_to_the_default(empty_db: Database) -> None:
    conn = _noted(empty_db, ignore=["note"])
    assert _ignored(empty_db) == ["note", "updated_at"]
    conn.execute("update note set note = 'n', updated_at = now()")
    assert empty_db.actions() == ["note.created"]


def test_an_excepted_column_is_told_and_the_rest_stays(empty_db: Database) -> None:
    conn = _noted(empty_db, ignore=["-updated_at", "last_read_at"])
    assert _ignored(empty_db) == ["last_read_at"]
    conn.execute("update note set last_read_at = now()")
    conn.execute("update note set updated_at = '2026-01-01Z'")
    (event,) = empty_db.events("action = 'note.updated'")
    assert list(event["new_values"]) == ["updated_at"]


def test_only_a_column_can_be_excepted(empty_db: Database) -> None:
    conn = _noted(empty_db)
    with pytest.raises(auditdb.Refused, match='names column "-nope"'):
        auditdb.attach(conn, "public.note", "note", ignore=["-nope"])


@pytest.mark.parametrize("through", ["fallback", "generated"])
def test_a_new_column_of_mere_use_is_ignored_at_once(empty_db: Database, through: str) -> None:
    conn = _noted(empty_db, ignore=["note"])
    conn.execute("alter table note add column last_used_at timestamptz, add column color text")
    if through == "generated":
        auditdb.install(empty_db.dsn)
    conn.execute("update note set last_used_at = now()")
    assert empty_db.actions() == ["note.created"]
    conn.execute("update note set last_used_at = now(), color = 'red', note = 'n'")
    (event,) = empty_db.events("action = 'note.updated'")
    assert event["new_values"] == {"color": "red"}


def test_a_new_column_of_a_password_is_ignored_at_once(db: Database) -> None:
    db.connect().execute(
        "create table secret_word (user_id int primary key references app_user, hash text);"
        "alter table secret_word owner to app_owner; grant select on app_user to app_owner"
    )
    conn = db.connect("app_owner")
    auditdb.attach(conn, "public.secret_word", "password")
    conn.execute("insert into secret_word values (1, 'h1')")
    conn.execute("alter table secret_word add column checked int, add column salt text")
    conn.execute("update secret_word set checked = 1")
    count = len(db.actions("captured_from = 'public.secret_word'"))
    conn.execute("update secret_word set salt = 's'")
    assert (count, len(db.actions("captured_from = 'public.secret_word'"))) == (1, 2)


def test_attach_and_doctor_name_what_is_newly_ignored(empty_db: Database) -> None:
    conn = _noted(empty_db)
    conn.execute("alter table note add column last_used_at timestamptz")
    problems = [f.problem for f in diagnose(conn) if f.object == "public.note"]
    assert any("a change of these alone makes no event: last_used_at" in p for p in problems), (
        problems
    )
    mappings = load("[[table]]\nname = 'public.note'\nkind = 'note'")
    (change,) = plan(conn, mappings)
    assert "ignore: updated_at -> updated_at, last_used_at" in str(change)


TOUCHED = (
    "seen_at first_seen_at last_seen_at activity_at last_activity_at last_t updated updatedAt "
    "throttling_failure_count throttling_failure_timestamp failed_verification_count "
    "failed_login_attempts access_failed_count"
).split()
TOLD = (
    "locked locked_at locked_until activity throttling_enabled throttling_limit verified_at seen "
    "last_name failed status first_admin_at login_enabled"
).split()


def test_the_vocabulary_tells_use_from_what_somebody_did(empty_db: Database) -> None:
    conn = empty_db.connect()
    columns = ", ".join(f'"{name}" text' for name in TOLD)
    conn.execute(f"create table told (id int primary key, {columns})".encode())
    columns = ", ".join(f'"{name}" text' for name in TOUCHED)
    conn.execute(f"create table touched (id int primary key, {columns})".encode())
    for table in ("told", "touched"):
        conn.execute("select audit.attach(%s, 'thing')", (f"public.{table}",))
    assert _ignored(empty_db, "public.touched") == TOUCHED
    assert _ignored(empty_db, "public.told") == []


def test_a_time_of_lockout_is_a_programs_where_failures_are_counted(empty_db: Database) -> None:
    conn = empty_db.connect()
    conn.execute("create table by_hand (id int primary key, locked_until date, locked_by text)")
    conn.execute(
        "create table counted (id int primary key, locked_until date, failed_logins int,"
        " locked_at date)"
    )
    for table in ("by_hand", "counted"):
        conn.execute("select audit.attach(%s, 'thing')", (f"public.{table}",))
    assert _ignored(empty_db, "public.by_hand") == []
    assert _ignored(empty_db, "public.counted") == ["locked_until", "failed_logins"]


def test_what_is_derived_is_ignored_unless_it_is_a_fact(empty_db: Database) -> None:
    conn = empty_db.connect()
    conn.execute(
        "create table person (id int primary key, email text, password_hash text, totp bytea,"
        " two_factor_enabled bool generated always as (totp is not null) stored,"
        " words tsvector, shown text generated always as (lower(email)) stored)"
    )
    conn.execute("select audit.attach('public.person', 'user')")
    assert _ignored(empty_db, "public.person") == ["words", "shown"]
    conn.execute("insert into person values (1, 'A@x', 'h')")
    conn.execute("update person set totp = 'abc'")
    conn.execute("update person set email = 'B@x', words = 'b'")
    assert empty_db.actions()[1:] == ["auth.two_factor_enabled", "auth.email_changed"]
    event = empty_db.events("action = 'auth.email_changed'")[0]
    assert event["new_values"] == {"email": "B@x"}


def test_an_older_mapping_keeps_what_was_given_and_gains_the_default(empty_db: Database) -> None:
    conn = _noted(empty_db, ignore=["note"])
    # As former releases stored it: what was given instead of the default.
    empty_db.connect().execute(
        "update audit_private.attachment set mapping = mapping || %s",
        (Jsonb({"ignore": ["note"]}),),
    )
    conn.execute("select audit.attest('public.note')")
    auditdb.install(empty_db.dsn)
    assert _ignored(empty_db) == ["note"]
    (change,) = plan(
        conn, load("[[table]]\nname = 'public.note'\nkind = 'note'\nignore = ['note']")
    )
    assert (change.verb, change.options) == (
        "remap", {"ignore": (["note"], ["note", "updated_at"])},
    )  # fmt: skip
    conn.execute("select audit.reattach('public.note')")
    assert _ignored(empty_db) == ["note", "updated_at"]


@pytest.mark.parametrize(
    ("column", "is_noise"),
    [
        ("members_count", True), ("comments_count", True), ("login_count", True),
        ("license_count", False), ("licenses_count", False), ("seats_count", False),
        ("max_users_count", False), ("purchased_seats_count", False), ("allowed_keys_count", False),
    ],
)  # fmt: skip
def test_what_a_program_counts_is_noise_and_what_was_bought_is_not(
    empty_db: Database, column: str, is_noise: bool
) -> None:
    conn = empty_db.connect()
    conn.execute(f"create table organization (id int, name text, {column} int)".encode())
    auditdb.attach(conn, "public.organization", "organization")
    conn.execute("insert into organization values (1, 'a', 1)")
    conn.execute(f"update organization set {column} = 2".encode())
    told = empty_db.actions("action = 'organization.updated'")
    assert told == ([] if is_noise else ["organization.updated"])
