"""Kinds are rows: those that auditdb brings, and an application's own without a line of code."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg import errors as pg

from auditdb import InvalidInput, Refused
from auditdb.mapping.apply import apply
from auditdb.mapping.file import load
from auditdb.mapping.kinds import KINDS
from auditdb.mapping.plan import plan
from auditdb.operate import doctor
from tests import kinds
from tests.conftest import Database

ROOT = Path(__file__).resolve().parent.parent
INVOICE = """
select audit.define_kind('invoice', 'What a customer owes',
    verbs => '{"created": "invoice.issued", "deleted": "invoice.voided"}',
    facts => '{"status": "invoice.status_changed", "total": "billing.total_changed"}',
    subject => 'column')
"""
TABLE = """
create table invoice (
    id int primary key, organization_id int, user_id int, status text, total numeric, note text
);
grant all on invoice to app;
"""


def test_the_sql_of_the_built_in_kinds_is_current() -> None:
    rows = (ROOT / "sql" / "mapping" / "kind_rows.sql").read_text("utf-8")
    assert rows == kinds.sql(), "run make reference"


def test_the_document_of_the_kinds_is_current() -> None:
    assert (ROOT / "docs" / "kinds.md").read_text("utf-8") == kinds.markdown(), "run make reference"


def test_the_rows_are_what_the_file_says(empty_db: Database) -> None:
    rows = empty_db.connect().execute(
        "select name, verbs, options, target_type, subject, target, credentials, facts,"
        " is_built_in from audit.kind"
    )
    assert {row[0]: row[1:] for row in rows} == {
        kind.name: (
            kind.verbs, list(kind.options), kind.target_type, kind.subject, kind.target,
            kind.credentials, kind.facts, True,
        )
        for kind in KINDS.values()
    }  # fmt: skip


def test_a_kind_of_the_application_has_its_own_verbs_and_facts(db: Database) -> None:
    owner, app = db.connect("app_owner"), db.connect("app")
    owner.execute(INVOICE)
    owner.execute(TABLE)
    owner.execute("select audit.attach('invoice', 'invoice')")
    app.execute("insert into invoice values (1, 1, 2, 'open', 10, 'x')")
    app.execute("update invoice set note = 'y'")
    app.execute("update invoice set status = 'paid'")
    app.execute("update invoice set status = 'void', total = 0, note = 'z'")
    app.execute("delete from invoice")
    told = [
        (e["action"], e["new_values"], e["target_type"], e["target_id"], e["subject_id"])
        for e in db.events("captured_from = 'public.invoice'")
    ]
    every = {
        "id": 1,
        "organization_id": 1,
        "user_id": 2,
        "status": "open",
        "total": 10,
        "note": "x",
    }
    assert told == [
        ("invoice.issued", every, "invoice", "1", "2"),
        ("invoice.updated", {"note": "y"}, "invoice", "1", "2"),
        ("invoice.status_changed", {"status": "paid"}, "invoice", "1", "2"),
        ("invoice.status_changed", {"status": "void", "note": "z"}, "invoice", "1", "2"),
        ("billing.total_changed", {"total": 0}, "invoice", "1", "2"),
        ("invoice.voided", None, "invoice", "1", "2"),
    ]
    known = db.connect().execute("select name from audit.action where category = 'billing'")
    assert known.fetchall() == [("billing.total_changed",)]


def test_a_kind_that_is_defined_anew_shows_in_doctor_until_attached_again(db: Database) -> None:
    owner = db.connect("app_owner")
    owner.execute(INVOICE)
    owner.execute(TABLE)
    owner.execute("select audit.attach('invoice', 'invoice')")
    owner.execute(INVOICE)  # The same: no event, no finding.
    owner.execute("select audit.define_kind('invoice', 'What a customer owes')")
    (found,) = [f for f in doctor.diagnose(db.connect()) if f.object == "public.invoice"]
    assert "verbs" in found.problem and found.severity == "critical"
    owner.execute(found.mend.encode())
    assert [f for f in doctor.diagnose(db.connect()) if f.object == "public.invoice"] == []
    rows = db.connect().execute(
        "select old_values ->> 'name', new_values -> 'verbs' ->> 'created', actor_id"
        " from audit.event where action = 'audit.kind_defined' order by id"
    )
    assert rows.fetchall() == [
        (None, "invoice.issued", "app_owner"), ("invoice", "invoice.created", "app_owner"),
    ]  # fmt: skip


def test_an_invitation_that_is_accepted_is_an_event_of_its_own(db: Database) -> None:
    owner = db.connect("app_owner")
    owner.execute(
        "create table invitation (id int primary key, organization_id int, email text,"
        " accepted_at timestamptz)"
    )
    owner.execute("select audit.attach('invitation', 'invitation')")
    owner.execute("insert into invitation values (1, 1, 'a@b')")
    owner.execute("update invitation set accepted_at = now()")
    assert db.actions("target_type = 'invitation'") == [
        "invitation.created", "invitation.accepted",
    ]  # fmt: skip


def test_a_session_is_its_user_s_and_shows_no_token(db: Database) -> None:
    owner = db.connect("app_owner")
    owner.execute("create table session (id text primary key, user_id int, data text)")
    owner.execute("select audit.attach('session', 'session')")
    owner.execute("insert into session values ('canary', 7, 'canary')")
    owner.execute("delete from session")
    started, ended = db.events("target_type = 'session'")
    assert (started["action"], ended["action"]) == ("session.started", "session.ended")
    assert started["subject_id"] == "7" and "canary" not in repr((started, ended))


def test_an_sso_connection_shows_whose_sign_ins_it_takes_and_no_secret(db: Database) -> None:
    owner = db.connect("app_owner")
    owner.execute(
        "create table login_method (id int primary key, organization_id int, domain text,"
        " enabled bool, configuration jsonb, certificate text)"
    )
    owner.execute("select audit.attach('login_method', 'sso_connection')")
    owner.execute(
        "insert into login_method values (1, 2, 'acme.test', true, '\"canary\"', 'canary')"
    )
    owner.execute("update login_method set certificate = 'canary-2', domain = 'evil.test'")
    owner.execute("delete from login_method")
    created, updated, deleted = db.events("target_type = 'sso_connection'")
    assert [event["action"] for event in (created, updated, deleted)] == [
        "sso_connection.created", "sso_connection.updated", "sso_connection.deleted",
    ]  # fmt: skip
    assert (created["organization_id"], created["target_id"]) == ("2", "1")
    assert updated["old_values"]["domain"] == "acme.test"
    assert updated["new_values"]["domain"] == "evil.test"
    assert "canary" not in repr((created, updated, deleted))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("'Invoice'", '"Invoice" is not a kind'),
        ("'auth'", '"auth" is not a kind'),
        ("null", "is not a kind"),
        ("'user'", 'kind "user" belongs to auditdb'),
        ("'x', verbs => '{\"made\": \"x.made\"}'", 'kind "x": it has no verb "made"'),
        ("'x', verbs => '{\"created\": \"audit.made\"}'", '"audit.made" of created is no action'),
        ("'x', verbs => '{\"created\": 5}'", '"5" of created is no action'),
        ("'x', verbs => '[]'", "verbs or facts are no object"),
        ("'x', facts => '{\"status\": \"Changed\"}'", '"Changed" of fact status is no action'),
        ("'x', subject => 'me'", 'subject is "me"'),
        ("'x', options => '{role}'", 'it has no option "role"'),
        ("'x', target_type => 'X'", 'target_type is "X"'),
        ("'x', ' '", "its description is empty"),
    ],
)
def test_a_kind_that_cannot_be_meant_is_one_clear_line(db: Database, call: str, says: str) -> None:
    owner = db.connect("app_owner")
    with pytest.raises(pg.InvalidParameterValue) as caught:
        owner.execute(f"select audit.define_kind({call})".encode())
    assert says in str(caught.value.diag.message_primary)
    assert caught.value.diag.message_hint
    assert owner.execute("select from audit.kind where not is_built_in").fetchall() == []


FILE = """
[[kind]]
name = "invoice"
description = "What a customer owes"
verbs = { created = "invoice.issued" }
facts = { status = "invoice.status_changed" }

[[table]]
name = "public.invoice"
kind = "invoice"
"""


def test_a_mapping_file_defines_kinds_and_tables_at_once(db: Database) -> None:
    owner = db.connect("app_owner")
    owner.execute(TABLE)

    def lines() -> list[str]:
        changes = [str(change) for change in plan(owner, load(FILE)) if change.verb != "unlisted"]
        return [change.splitlines()[0] for change in changes]

    assert lines() == ["define    kind invoice", "attach    public.invoice as invoice"]
    assert owner.execute("select from audit.kind where not is_built_in").fetchall() == []
    apply(owner, load(FILE))
    assert lines() == ["unchanged public.invoice as invoice"]
    db.connect("app").execute("insert into invoice (id, organization_id) values (1, 1)")
    assert db.actions("target_type = 'invoice'") == ["invoice.issued"]
    again = FILE.replace("invoice.issued", "invoice.sent")
    assert [c.verb for c in plan(owner, load(again))][:2] == ["define", "remap"]


def test_a_file_whose_tables_fail_defines_no_kind(db: Database) -> None:
    owner = db.connect("app_owner")
    with pytest.raises(Refused, match=r"there is no table public\.invoice"):
        apply(owner, load(FILE))
    assert owner.execute("select from audit.kind where not is_built_in").fetchall() == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[kind]]", "f, kind 1: 'name' is missing"),
        ("[[kind]]\nname = 5", "f, kind 1: 'name' must be text"),
        ("[[kind]]\nname = 'x'\nverb = {}", "f, kind x: unknown key 'verb'; did you mean 'verbs'?"),
        ("[[kind]]\nname = 'x'\nverbs = 'y'", "f, kind x: 'verbs' must be a table of texts"),
        ("[[kind]]\nname = 'x'\nverbs = { created = 1 }", "'verbs' must be a table of texts"),
        ("[[kind]]\nname = 'x'\n[[kind]]\nname = 'x'", "x is there twice; keep one [[kind]]"),
        ("kind = 'x'", "write [[kind]], with two brackets, above each kind"),
    ],
)
def test_a_kind_in_a_file_that_cannot_be_meant_is_one_clear_line(text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(text, "f")
    assert says in str(caught.value)


@pytest.mark.parametrize("role", ["app", "app_reader", "app_auditor", "stranger"])
def test_only_operators_define_kinds(db: Database, role: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.connect(role).execute("select audit.define_kind('invoice')")
