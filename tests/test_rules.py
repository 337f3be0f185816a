"""The rules of detection, each on the smallest schema that shows the class of fault it avoids."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from auditdb.detect.document import Proposal
from auditdb.detect.naming import VOCABULARY, words
from auditdb.detect.propose import detect
from tests import schemas
from tests.conftest import Database

USERS = "create table app_user (id int primary key, email text unique, password_hash text);"
COMPANY = (
    USERS
    + """
    create table company (id int primary key, name text);
    create table company_member (company_id int not null references company,
        user_id int not null references app_user, role text check (role in ('owner', 'staff')),
        primary key (company_id, user_id));
    """
)


@pytest.fixture
def owner(empty_db: Database) -> psycopg.Connection[Any]:
    return empty_db.connect("app_owner")


def proposed(owner: psycopg.Connection[Any], ddl: str) -> Proposal:
    owner.execute(ddl.encode())
    return detect(owner)


def certain(proposal: Proposal) -> dict[str, str]:
    return {t.name.removeprefix("public."): t.kind for t in proposal.tables if t.certain}


def guessed(proposal: Proposal) -> dict[str, str]:
    return {t.name.removeprefix("public."): t.kind for t in proposal.tables if not t.certain}


def codes(proposal: Proposal, table: str) -> list[str]:
    (found,) = (t for t in proposal.tables if t.name == f"public.{table}")
    return [question.code for question in found.questions]


def test_a_membership_without_foreign_keys_and_without_a_table_of_organisations_is_found(
    owner: psycopg.Connection[Any],
) -> None:
    proposal = proposed(
        owner,
        USERS
        + """create table membership (organization_id int, user_id int, role text,
            primary key (organization_id, user_id));""",
    )
    assert certain(proposal) == {"membership": "membership", "app_user": "user"}
    assert not proposal.remarks


def test_what_each_team_belongs_to_is_the_organisation_whatever_its_name(
    owner: psycopg.Connection[Any],
) -> None:
    proposal = proposed(
        owner,
        USERS
        + """
        create table gizmo (id int primary key, title text);
        create table team (id int primary key, gizmo_id int not null references gizmo);
        create table team_member (team_id int not null references team,
            user_id int not null references app_user, role text, primary key (team_id, user_id));
        create table hall (id int primary key, gizmo_id int not null references gizmo);
        create table fair (id int primary key, gizmo_id int not null references gizmo);
        create table colour (id int primary key);
        """,
    )
    assert certain(proposal)["gizmo"] == "organization"
    assert "team" not in certain(proposal)


def test_a_set_of_permissions_is_no_organisation(owner: psycopg.Connection[Any]) -> None:
    proposal = proposed(
        owner,
        USERS
        + """
        create table auth_group (id int primary key, name text);
        create table auth_permission (id int primary key, codename text);
        create table auth_group_permissions (id int primary key,
            group_id int not null references auth_group,
            permission_id int not null references auth_permission);
        create table app_user_groups (id int primary key, user_id int not null references app_user,
            group_id int not null references auth_group, unique (user_id, group_id));
        """,
    )
    assert "organization" not in certain(proposal).values()
    assert proposal.remarks and "one organisation only" in proposal.remarks[0]
    assert certain(proposal)["app_user_groups"] == "membership"


def test_an_application_without_organisations_has_one_and_its_user_roles_are_memberships(
    owner: psycopg.Connection[Any],
) -> None:
    proposal = proposed(
        owner,
        USERS
        + """
        create table roles (id int primary key, name text);
        create table role_user (role_id int not null references roles,
            user_id int not null references app_user, project text not null,
            primary key (role_id, user_id, project));
        create table api_tokens (id int primary key, name text, token_hash text,
            created_by int references app_user);
        """,
    )
    assert certain(proposal) == {
        "role_user": "membership", "app_user": "user", "api_tokens": "api_key",
    }  # fmt: skip
    assert {t.options.get("organization") for t in proposal.tables} == {"'instance'"}
    assert "instance" in proposal.to_toml().partition("[[table]]")[0]


def test_a_label_that_tables_share_does_not_decide(owner: psycopg.Connection[Any]) -> None:
    proposal = proposed(
        owner,
        USERS
        + """
        create table event_company (id int primary key);
        create table event_companymember (id int primary key,
            company_id int not null references event_company,
            user_id int not null references app_user, role text, unique (company_id, user_id));
        create table event_workflow (id int primary key,
            company_id int not null references event_company);
        create table event_workflowstep (id int primary key,
            workflow_id int not null references event_workflow);
        """,
    )
    assert certain(proposal) == {
        "event_company": "organization", "event_companymember": "membership", "app_user": "user",
        "event_workflow": "workflow", "event_workflowstep": "workflow",
    }  # fmt: skip


def test_a_way_that_may_be_null_is_a_question(owner: psycopg.Connection[Any]) -> None:
    proposal = proposed(
        owner,
        COMPANY
        + """create table workflow (id int primary key, name text,
            company_id int references company);""",
    )
    assert codes(proposal, "workflow") == ["organization-nullable"]


def test_parts_are_parts_by_structure_and_what_runs_is_none(
    owner: psycopg.Connection[Any],
) -> None:
    parts = ("operations", "gadgets", "canvas")
    noise = (
        "statistics", "deltas", "outbox", "queue", "dependency", "builder_session", "state",
        "poll_cache", "bucket", "history", "build",
    )  # fmt: skip
    proposal = proposed(
        owner,
        COMPANY
        + "create table workflow (id int primary key, company_id int not null references company);"
        + "".join(
            f"create table workflow_{name} (id int primary key, payload text,"
            " workflow_id int not null references workflow on delete cascade);"
            for name in (*parts, *noise)
        )
        + "create table workflow_step (id int primary key, workflow_id int not null);",
    )
    found = {name for name, kind in certain(proposal).items() if kind == "workflow"}
    assert found == {"workflow", *(f"workflow_{name}" for name in parts)}
    assert guessed(proposal) == {"workflow_step": "workflow"}
    noted = {note.partition(": ")[0] for note in proposal.notes}
    assert {f"public.workflow_{name}" for name in noise} <= noted


def test_of_a_flag_and_a_table_one_is_certain(owner: psycopg.Connection[Any]) -> None:
    proposal = proposed(
        owner,
        COMPANY
        + """
        alter table app_user add two_factor_enabled boolean;
        create table totp_device (id int primary key, user_id int not null references app_user,
            secret text);
        create table user_password (user_id int primary key references app_user, hash text);
        create table used_passwords (user_id int references app_user, password_hash text,
            primary key (user_id, password_hash));
        """,
    )
    assert guessed(proposal) == {"totp_device": "two_factor", "user_password": "password"}
    assert any(note.startswith("public.used_passwords: ") for note in proposal.notes)


def test_static_tokens_devices_and_invitations_are_found_by_what_they_hold(
    owner: psycopg.Connection[Any],
) -> None:
    proposal = proposed(
        owner,
        COMPANY
        + """
        create table authtoken_token (key text primary key, created timestamptz not null,
            user_id int not null unique references app_user);
        create table device (id int primary key, company_id int not null references company,
            name text, api_token text unique);
        create table company_asking (id int primary key, guid uuid not null,
            company_id int not null references company, invitee_identifier text not null,
            invited_by_id int references app_user);
        create table outgoing_mail (id int primary key, guid uuid,
            company_id int not null references company, email text, sender text);
        """,
    )
    found = certain(proposal)
    assert (found["authtoken_token"], found["device"]) == ("api_key", "api_key")
    assert found["company_asking"] == "invitation"
    assert "outgoing_mail" not in found


@pytest.mark.parametrize("name", schemas.FACTS)
def test_each_table_about_people_roles_keys_or_workflows_is_mentioned_with_the_reason(
    owner: psycopg.Connection[Any], name: str
) -> None:
    owner.execute(schemas.ddl(name).encode())
    owner.execute("reset search_path")
    proposal = detect(owner)
    related = {"user", "member", "role", "permission", "token", "workflow", "password", "invite"}
    silent = {
        table for table in proposal.unrecognised if related & set(words(table.partition(".")[2]))
    }
    assert silent == set()
    assert all(note.partition(": ")[2] for note in proposal.notes)


CLERKS = """
create table firm (firm_no int primary key, trading_name text);
create table clerk (clerk_no int primary key, email text unique, {});
create table clerk_passkey (id int primary key, clerk_no int not null references clerk,
    public_key bytea, sign_count int);
create table engagement (firm_no int not null references firm,
    clerk_no int not null references clerk, capacity text
    check (capacity in ('managing_partner', 'associate')), primary key (firm_no, clerk_no));
create table clerk_star (firm_no int not null references firm,
    clerk_no int not null references clerk, primary key (firm_no, clerk_no));
"""


@pytest.mark.parametrize("column", ["passphrase_digest text", "called text"])
def test_users_and_members_are_known_by_what_they_hold_whatever_they_are_called(
    owner: psycopg.Connection[Any], column: str
) -> None:
    proposal = proposed(owner, CLERKS.format(column))
    assert certain(proposal) == {"firm": "organization", "clerk": "user",
        "clerk_passkey": "two_factor"}  # fmt: skip
    assert guessed(proposal) == {"engagement": "membership"}
    assert "membership-unsure" in codes(proposal, "engagement")


def test_a_word_stands_once_in_an_entry_of_the_vocabulary() -> None:
    for room, entries in VOCABULARY.items():
        for entry, told in entries.items() if isinstance(entries, dict) else ():
            if isinstance(told, list):
                assert len(told) == len(set(told)), f"{room}.{entry}"


def test_where_nobody_signs_in_the_tables_that_may_be_the_users_are_named(
    owner: psycopg.Connection[Any],
) -> None:
    told = proposed(owner, "create table person (id int primary key, name text);").to_toml()
    assert 'If it is public.person, attach that as kind "user".' in " ".join(
        told.replace("# #", "").split()
    )
    owner.execute("drop table person; create table gizmo (id int primary key)")
    assert "attach that as" not in detect(owner).to_toml()


@pytest.mark.parametrize(
    ("column", "is_certain"),
    [
        ("app_user_id int not null references app_user", True), ("user_id int", True),
        ("owner_id int references app_user", True),
        ("app_user_ref int not null references app_user", True),
        ("app_user_ref int references app_user", False), ("owner_id int", False),
        ("member_id int", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("table", "secret"), [("user_passwords", "password_hash"), ("mfa_factors", "secret")]
)
def test_credentials_are_certain_where_attach_sees_whose_they_are(
    owner: psycopg.Connection[Any], table: str, secret: str, column: str, is_certain: bool
) -> None:
    owner.execute(f"{COMPANY} alter table app_user drop password_hash".encode())
    owner.execute(f"create table {table} (id int primary key, {column}, {secret} text)".encode())
    [found] = [t for t in detect(owner).tables if t.name == f"public.{table}"]
    assert found.certain is is_certain
    assert ("subject-unknown" in {q.code for q in found.questions}) is not is_certain
    # What it says is what attach finds.
    for name, kind in (
        ("company", "organization"), ("company_member", "membership"), ("app_user", "user"),
        (table, found.kind),
    ):  # fmt: skip
        owner.execute("select audit.attach(%s, %s)", (name, kind))
    row = owner.execute(
        "select mapping ? 'subject' and mapping ? 'organization'"
        " from audit_private.attachment where name = %s", (f"public.{table}",)
    ).fetchone()  # fmt: skip
    assert row == (is_certain,)
