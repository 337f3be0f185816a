"""Memberships: who is told of one that is handed on, and of which group within an organisation."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Database
from tests.test_capture import attach, gives

# A row of organization_owner makes a member an owner.
OWNERS = """
create table member (
    id int primary key, organization_id int not null references organization,
    user_id int not null references app_user, unique (organization_id, user_id)
);
create table organization_owner (
    id int primary key, member_id int not null unique references member on delete cascade
);
select audit.attach('member', 'membership');
select audit.attach('organization_owner', 'membership', parent => 'member_id', role => '''owner''');
insert into member values (11, 1, 1), (12, 1, 2), (21, 2, 3);
insert into organization_owner values (1, 11);
"""
TEAMS = """
create table team (
    id int primary key, organization_id int not null references organization, name text
);
create table team_member (
    team_id int not null references team, user_id int not null references app_user,
    note text, ended_at timestamptz, primary key (team_id, user_id)
);
select audit.attach('team', 'team');
select audit.attach('team_member', 'membership');
insert into team values (5, 1, 'Sales'), (6, 1, 'Support'), (7, 2, 'Sales');
"""
# What the generated code cannot read any more is told the same by the fallback.
LATER = "alter table {} add column later text; "


def told(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(e["action"], e["organization_id"], e["target_id"], e["subject_id"]) for e in events]


@pytest.mark.parametrize("later", ["", LATER.format("membership")])
def test_both_users_are_told_of_a_membership_that_is_handed_on(db: Database, later: str) -> None:
    attach(db, later or "select 1")
    former, new = gives(db, "update membership set user_id = 3 where user_id = 2")
    assert told([former, new]) == [
        ("membership.removed", "1", "1,2", "2"), ("membership.added", "1", "1,3", "3"),
    ]  # fmt: skip
    whole = {"organization_id": 1, "role": "MEMBER", "updated_at": None}
    whole |= {"later": None} if later else {}
    assert (former["old_values"], former["new_values"]) == ({**whole, "user_id": 2}, None)
    assert (new["old_values"], new["new_values"]) == (None, {**whole, "user_id": 3})


def test_one_that_is_handed_on_to_another_organisation_is_told_to_each_its_part(
    db: Database,
) -> None:
    events = gives(
        db,
        "update membership set user_id = 3, organization_id = 2 where user_id = 2"
        " and not exists (select from membership where organization_id = 2 and user_id = 3)",
    )
    assert events == []
    events = gives(db, "update membership set user_id = 1, organization_id = 2 where user_id = 2")
    assert told(events) == [
        ("membership.removed", "1", "1,2", "2"), ("membership.added", "2", "2,1", "1"),
    ]  # fmt: skip
    assert [e["details"]["moved"] for e in events] == [{"from": "1", "to": "2"}] * 2


def test_a_member_who_moves_to_another_organisation_is_told_to_both_as_before(
    db: Database,
) -> None:
    events = gives(db, "update membership set organization_id = 2 where user_id = 2")
    assert told(events) == [
        ("membership.updated", "2", "2,2", "2"), ("membership.updated", "1", "2,2", "2"),
    ]  # fmt: skip


@pytest.mark.parametrize("later", ["", LATER.format("organization_owner")])
def test_the_former_owner_loses_the_role_that_the_new_one_gets(db: Database, later: str) -> None:
    attach(db, OWNERS + later)
    events = gives(db, "update organization_owner set member_id = 12")
    assert told(events) == [
        ("membership.role_changed", "1", "11", "1"), ("membership.role_changed", "1", "12", "2"),
    ]  # fmt: skip
    roles = [(e["details"]["previous_role"], e["details"]["new_role"]) for e in events]
    assert roles == [("owner", None), (None, "owner")]
    events = gives(db, "update organization_owner set member_id = 21")
    assert told(events) == [
        ("membership.role_changed", "1", "12", "2"), ("membership.role_changed", "2", "21", "3"),
    ]  # fmt: skip


@pytest.mark.parametrize("later", ["", LATER.format("team_member")])
def test_a_member_of_a_team_is_told_apart_from_one_of_the_organisation(
    db: Database, later: str
) -> None:
    attach(db, TEAMS + later)
    events = gives(
        db,
        """insert into team_member values (5, 1);
        update team_member set note = 'x';
        update team_member set team_id = 6;
        update team_member set user_id = 2;
        delete from team_member""",
    )
    assert [(e["action"], e["subject_id"], e["details"]["group"]["id"]) for e in events] == [
        ("membership.added", "1", "5"), ("membership.updated", "1", "5"),
        ("membership.removed", "1", "5"), ("membership.added", "1", "6"),
        ("membership.removed", "1", "6"), ("membership.added", "2", "6"),
        ("membership.removed", "2", "6"),
    ]  # fmt: skip
    assert {e["details"]["group"]["type"] for e in events} == {"team"}
    said = db.connect().execute(
        "select change from audit.log where details ? 'group'"
        " and action <> 'membership.updated' order by id"
    )
    assert [str(change)[-9:] for (change,) in said] == ["in team 5"] * 2 + ["in team 6"] * 4
    (event,) = gives(db, "delete from membership where user_id = 2")
    assert "group" not in event["details"]


def test_of_teams_that_are_organisations_too_only_the_inner_are_groups(empty_db: Database) -> None:
    attach(
        empty_db,
        """create table "Team" (id int primary key, "parentId" int references "Team");
        create table app_user (id int primary key);
        create table "Membership" ("teamId" int not null references "Team",
            "userId" int not null references app_user, role text, unique ("teamId", "userId"));
        select audit.attach('"Team"', 'organization');
        select audit.attach('"Membership"', 'membership');
        insert into "Team" values (1, null), (2, 1);
        insert into app_user values (7)""",
    )
    events = gives(empty_db, "insert into \"Membership\" values (1, 7, 'x'), (2, 7, 'x')")
    assert [(e["organization_id"], e["details"].get("group")) for e in events] == [
        ("1", None), ("1", {"type": "team", "id": "2"}),
    ]  # fmt: skip


def test_a_context_cannot_say_that_a_membership_is_a_team_s_nor_that_an_event_completes_another(
    db: Database,
) -> None:
    (event,) = gives(
        db,
        """select set_config('auditdb.context', '{"actor_id": "7", "details":
            {"group": 1, "completes": 1, "ip": "::1"}}', true);
        delete from membership where user_id = 2""",
    )
    assert event["details"] == {"ip": "::1"}


# Sent, accepted, left, deleted; and one that was never accepted.
STATES = """
create table org_member (
    id int primary key, organization_id int not null references organization,
    user_id int not null references app_user, role text check (role in ('owner', 'member')),
    status text not null check (status in ('active', 'pending', 'removed'))
);
select audit.attach('org_member', 'membership', alive => 'r.status = ''active''');
"""


@pytest.mark.parametrize("later", ["", LATER.format("org_member")])
def test_what_does_not_count_is_invited_and_purged(db: Database, later: str) -> None:
    attach(db, STATES + later)
    events = gives(
        db,
        """insert into org_member values (1, 1, 1, 'member', 'pending');
        update org_member set status = 'active';
        update org_member set status = 'removed';
        delete from org_member;
        insert into org_member values (2, 1, 1, 'member', 'pending');
        delete from org_member;
        insert into org_member values (3, 1, 1, 'member', 'active');
        delete from org_member""",
    )
    assert [e["action"] for e in events] == [
        "membership.invited", "membership.added", "membership.removed", "membership.purged",
        "membership.invited", "membership.purged", "membership.added", "membership.removed",
    ]  # fmt: skip
    known = db.connect().execute(
        "select count(*) from audit.action where is_built_in and name = any (%s)",
        (["membership.invited", "membership.purged", "workflow.purged", "two_factor.prepared"],),
    )
    assert known.fetchone() == (4,)


@pytest.mark.parametrize("later", ["", LATER.format("org_member")])
def test_only_who_counted_is_removed_when_a_membership_is_handed_on(
    db: Database, later: str
) -> None:
    attach(db, STATES + later)
    gives(db, "insert into org_member values (1, 1, 1, 'member', 'pending')")
    change = "update org_member set user_id = {}, status = '{}'"
    assert told(gives(db, change.format(2, "pending"))) == [("membership.updated", "1", "1", "2")]
    assert told(gives(db, change.format(3, "active"))) == [("membership.added", "1", "1", "3")]
    assert told(gives(db, change.format(4, "removed"))) == [("membership.removed", "1", "1", "3")]


def test_a_kind_may_say_nothing_of_what_does_not_count_and_no_other_way_of_silence(
    db: Database,
) -> None:
    owner = db.connect("app_owner")
    owner.execute(
        'select audit.define_kind(\'draft\', verbs => \'{"prepared": "",'
        ' "purged": "draft.shredded"}\')'
    )
    attach(
        db,
        """create table draft (id int primary key, organization_id int, is_live boolean);
        select audit.attach('draft', 'draft', alive => 'is_live')""",
    )
    for later in ("select 1", LATER.format("draft")):
        attach(db, later)
        events = gives(
            db,
            """insert into draft values (1, 1, false);
            update draft set is_live = true;
            update draft set is_live = false;
            delete from draft""",
        )
        assert [e["action"] for e in events] == [
            "draft.created", "draft.deleted", "draft.shredded",
        ]  # fmt: skip
    for verb in ("created", "updated", "deleted"):
        with pytest.raises(Exception, match=f'"" of {verb} is no action'):
            owner.execute(
                "select audit.define_kind('draft', verbs => jsonb_build_object(%s::text, ''))",
                (verb,),
            )


@pytest.mark.parametrize(
    ("roles", "is_admin"),
    [
        ("{owner}", True), ("{member,ADMIN}", True), ("{org:admin}", True), ("{SuperAdmin}", True),
        ("{global:owner}", True), ("{member}", False), ("{}", False), ("{administrative}", False),
    ],
)  # fmt: skip
def test_roles_in_an_array_make_an_admin_as_one_alone_does(
    empty_db: Database, roles: str, is_admin: bool
) -> None:
    conn = empty_db.connect()
    for type_ in ("text", "text[]"):
        conn.execute("drop table if exists membership")
        conn.execute(
            f"create table membership (organization_id int, user_id int, roles {type_})".encode()
        )
        conn.execute("select audit.attach('membership', 'membership')")
        conn.execute(
            "insert into membership values (1, 7, %s)",
            [roles if type_ == "text[]" else roles.strip("{}")],
        )
        row = conn.execute("select audit_private.is_admin('1', '7')").fetchone()
        assert row == (is_admin,), type_
