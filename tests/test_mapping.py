"""What attach finds without options: ways, roles, second factors, tokens, whose a part is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from auditdb.mapping.apply import apply
from auditdb.mapping.file import load
from tests.conftest import Database

# (action, organisation, target, subject) of an event.
Told = tuple[str, str | None, str | None, str | None]


@dataclass
class Application:
    """A database of some application, whose tables belong to app_owner."""

    db: Database
    owner: psycopg.Connection[Any]
    seen: int = 0

    def run(self, *statements: str) -> list[dict[str, Any]]:
        """Run statements, and return the events of them."""
        for statement in statements:
            self.owner.execute(statement.encode())
        events = self.db.events()
        new, self.seen = events[self.seen :], len(events)
        assert not [e for e in new if e["details"] and "degraded" in e["details"]]
        # What the plays write wherever a secret goes.
        assert "SECRET" not in repr(new)
        return new

    def told(self, *statements: str) -> list[Told]:
        return [
            (e["action"], e["organization_id"], e["target_id"], e["subject_id"])
            for e in self.run(*statements)
        ]

    def actions(self, *statements: str) -> list[str]:
        return [event["action"] for event in self.run(*statements)]

    def admins(self, organization: str, *users: str) -> str:
        """Return those of the users who may read the log of the organisation."""
        with psycopg.connect(self.db.dsn) as conn:
            row = conn.execute(
                "select string_agg(u, ' ' order by n) "
                "from unnest(%s::text[]) with ordinality as t (u, n) "
                "where audit_private.is_admin(%s, u)",
                (list(users), organization),
            ).fetchone()
        assert row is not None
        return str(row[0] or "")


def roles(event: dict[str, Any]) -> tuple[str, str]:
    """Return the former and the present role of a change of role."""
    return event["details"]["previous_role"], event["details"]["new_role"]


@pytest.fixture
def app(empty_db: Database) -> Application:
    return Application(empty_db, empty_db.connect("app_owner"))


# Ways to the organisation

TENANTS = """
create table organization (id int primary key);
create table users (id int primary key, email text);
create table project (id int primary key, organization_id int not null references organization);
create table folder (id int primary key, project_id int not null references project);
create table workflow (id int primary key, name text,
    folder_id int references folder on delete cascade);
create table shared_workflow (workflow_id int not null references workflow on delete cascade,
    project_id int not null references project, role text not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (workflow_id, project_id));
create table favorite_project_workflow (workflow_id int not null references workflow,
    project_id int not null references project, primary key (workflow_id, project_id));
insert into organization values (1), (2), (3);
insert into project values (10, 1), (20, 2), (30, 3);
insert into folder values (100, 3 * 10);
select audit.attach('organization', 'organization');
"""


def test_a_row_is_its_owners_where_it_may_be_in_no_folder(app: Application) -> None:
    app.run(TENANTS, "select audit.attach('workflow', 'workflow')")
    assert app.told(
        "insert into workflow values (1, 'a')",
        "insert into favorite_project_workflow values (1, 30)",
    ) == [("workflow.created", None, "1", None)]
    # Shared with the second organisation first, owned by the first.
    app.run("insert into shared_workflow values (1, 20, 'workflow:editor')")
    assert app.told("update workflow set name = 'b'") == [("workflow.modified", "2", "1", None)]
    app.run("insert into shared_workflow values (1, 10, 'workflow:owner')")
    assert app.told("update workflow set name = 'c'") == [("workflow.modified", "1", "1", None)]
    # Nobody's, and in a folder.
    app.run("delete from shared_workflow", "update workflow set folder_id = 100")
    assert app.told("update workflow set name = 'd'", "delete from workflow where false") == [
        ("workflow.modified", "3", "1", None)
    ]
    app.run("delete from favorite_project_workflow")
    app.run("insert into shared_workflow values (1, 20, 'workflow:viewer')")
    # The rows that go with it are looked at as they were.
    assert app.told("delete from workflow") == [("workflow.deleted", "2", "1", None)]


def test_only_a_way_that_each_row_has_is_sure(app: Application) -> None:
    app.run(
        TENANTS,
        """create table board (id int primary key, project_id int not null references project);
        create table page (id int primary key, board_id int not null references board);""",
    )
    sure = "select (audit_private.organization_way(%s::text::regclass, '{}', 'workflow')).is_sure"
    found = {
        table: app.owner.execute(sure, (table,)).fetchone()
        for table in ("workflow", "folder", "board", "page")
    }
    assert found == {"workflow": (False,), "folder": (True,), "board": (True,), "page": (True,)}


@pytest.mark.parametrize("role", ["workflow:pending_owner", "former-owner", "non owner"])
def test_who_was_an_owner_or_may_become_one_is_none(app: Application, role: str) -> None:
    app.run(TENANTS, "select audit.attach('workflow', 'workflow')")
    app.run("insert into workflow values (1, 'a')")
    app.run(f"insert into shared_workflow values (1, 20, '{role}')")
    app.run("insert into shared_workflow values (1, 10, 'workflow:owner')")
    (told,) = app.told("update workflow set name = 'b'")
    assert told == ("workflow.modified", "1", "1", None)


def test_a_row_may_be_owned_by_a_user(app: Application) -> None:
    app.run(
        """create table organization (id int primary key);
        create table users (id int primary key, organization_id int not null
            references organization);
        create table workflow (id int primary key);
        create table workflow_user (id int primary key, workflow_id int not null references
            workflow on delete cascade, user_id int not null references users, role text,
            unique (workflow_id, user_id));
        insert into organization values (1), (2);
        insert into users values (1, 1), (2, 2);
        select audit.attach('organization', 'organization');
        select audit.attach('users', 'user');
        select audit.attach('workflow', 'workflow');
        insert into workflow values (1);
        insert into workflow_user values (1, 1, 1, 'viewer'), (2, 1, 2, 'OWNER');"""
    )
    assert app.told("update workflow set id = 2 where false", "delete from workflow") == [
        ("workflow.deleted", "2", "1", None)
    ]


def test_whom_a_user_s_row_is_shared_with_is_not_told_of_it(app: Application) -> None:
    app.run(
        """create table organization (id int primary key);
        create table users (id int primary key, organization_id int not null
            references organization);
        create table workflow (id int primary key, user_id int not null references users);
        create table workflow_share (workflow_id int not null references workflow,
            organization_id int not null references organization, role text,
            primary key (workflow_id, organization_id));
        insert into organization values (1), (2);
        insert into users values (1, 1);
        select audit.attach('organization', 'organization');
        select audit.attach('users', 'user');
        select audit.attach('workflow', 'workflow');
        insert into workflow values (1, 1);
        insert into workflow_share values (1, 2, 'editor');"""
    )
    assert app.told("update workflow set id = 1, user_id = 1 where false", "select 1") == []
    app.run("alter table workflow_share drop constraint workflow_share_workflow_id_fkey")
    assert app.told("delete from workflow") == [("workflow.deleted", "1", "1", None)]


def test_a_stranger_s_table_says_nothing_of_a_row(app: Application) -> None:
    superuser = app.db.connect()
    superuser.execute("grant create on schema public to stranger")
    app.run(
        """create table organization (id int primary key);
        create table workflow (id int primary key, team_id int);
        grant references on workflow, organization to stranger;
        select audit.attach('organization', 'organization');"""
    )
    app.db.connect("stranger").execute(
        """create table team (id int primary key, organization_id int not null);
        create table workflow_owner (workflow_id int not null references workflow,
            organization_id int not null references organization,
            primary key (workflow_id, organization_id));"""
    )
    app.run("select audit.attach('workflow', 'workflow')")
    row = app.owner.execute(
        "select mapping ->> 'organization' from audit_private.attachment where kind = 'workflow'"
    ).fetchone()
    assert row == (None,)


TEAMS = """
create table organizer (id int primary key, name text);
create table users (id int primary key, email text);
create table event_team (id int primary key, organizer_id int not null references organizer);
create table event_team_members (id int primary key, team_id int not null references event_team,
    user_id int not null references users, role text, unique (team_id, user_id));
insert into organizer values (1), (2);
insert into users values (7, 'a@x'), (8, 'b@x');
insert into event_team values (20, 1), (10, 2);
"""


def test_a_team_that_belongs_to_something_is_not_the_organisation(app: Application) -> None:
    app.run(TEAMS, "select audit.attach('event_team_members', 'membership')")
    app.run("select audit.attach('users', 'user')")
    assert app.told(
        "insert into event_team_members values (1, 20, 7, 'owner'), (2, 10, 8, 'member')",
        "update users set email = 'c@x' where id = 7",
    ) == [
        ("membership.added", "1", "1", "7"), ("membership.added", "2", "2", "8"),
        ("auth.email_changed", "1", "7", "7"),
    ]  # fmt: skip
    # An owner of a team is no admin of what the team belongs to.
    assert app.admins("1", "7", "8") == app.admins("2", "7", "8") == app.admins("20", "7") == ""


def test_a_team_s_membership_keeps_its_organisation_without_foreign_keys(app: Application) -> None:
    app.run(
        """create table organization (id text primary key);
        create table "user" (id text primary key, email text);
        create table team (id text primary key, "organizationId" text not null);
        create table "teamMember" (id text primary key, "teamId" text not null,
            "userId" text not null, role text);
        insert into team values ('t', 'o');
        select audit.attach('organization', 'organization');
        select audit.attach('"teamMember"', 'membership');
        select audit.attach('"user"', 'user');
        insert into "user" values ('u');"""
    )
    assert app.told(
        """insert into "teamMember" values ('m', 't', 'u', 'owner')""",
        """update "user" set email = 'a@x'""",
    ) == [("membership.added", "o", "m", "u"), ("auth.email_changed", "o", "u", "u")]
    assert app.admins("o", "u") == app.admins("t", "u") == ""


def test_a_set_of_permissions_is_a_role_and_no_organisation(app: Application) -> None:
    app.run(
        """create table auth_user (id int primary key, email text, is_active boolean not null);
        create table auth_group (id int primary key, name text);
        create table auth_group_permissions (id int primary key,
            group_id int not null references auth_group, permission_id int not null);
        create table auth_user_groups (id int primary key,
            user_id int not null references auth_user,
            group_id int not null references auth_group, unique (user_id, group_id));
        create table note (id int primary key, group_id int not null references auth_group);
        insert into auth_user values (1, 'a@x', true), (2, 'b@x', true);
        insert into auth_group values (5, 'Admin'), (6, 'Editors');
        select audit.attach('auth_user_groups', 'membership', organization => '''instance''');
        select audit.attach('note', 'note');"""
    )
    events = app.run(
        "insert into auth_user_groups values (1, 1, 5), (2, 2, 6)",
        "update auth_user_groups set group_id = 6 where id = 1",
        "insert into note values (1, 5)",
        "update auth_user_groups set group_id = 5 where id = 1",
    )
    assert [(e["action"], e["organization_id"]) for e in events] == [
        ("membership.added", "instance"), ("membership.added", "instance"),
        ("membership.role_changed", "instance"), ("note.created", None),
        ("membership.role_changed", "instance"),
    ]  # fmt: skip
    assert roles(events[2]) == ("Admin", "Editors")
    assert app.admins("instance", "1", "2") == "1"


# Roles

SINGLE = """
create table roles (id int primary key, name text not null%s);
create table users (id int primary key, email text, role_id int references roles%s);
insert into roles values (1, 'Admin'), (2, 'Editor');
select audit.attach('users', 'user', organization => '''instance''');
"""


def test_a_role_is_looked_up_where_users_refer_to_it(app: Application) -> None:
    app.run(SINGLE % ("", ", status text, expires_at timestamptz"))
    events = app.run(
        "insert into users values (1, 'a@x', 2, 'active')",
        "update users set role_id = 1",
        "insert into users values (2, 'b@x', 1, 'suspended')",
        "insert into users values (3, 'c@x', 1, 'active', now() - interval '1 s')",
        "insert into users values (4, 'd@x', 1, 'invited')",
        "insert into users values (5, 'e@x', null, 'active')",
        "delete from users where id = 5",
    )
    assert [e["action"] for e in events] == [
        "membership.added", "membership.role_changed", *["membership.added"] * 4,
        "membership.removed",
    ]  # fmt: skip
    assert {e["organization_id"] for e in events} == {"instance"}
    assert roles(events[1]) == ("Editor", "Admin")
    assert app.admins("instance", "1", "2", "3", "4", "5") == "1"


def test_a_role_of_a_project_makes_no_admin_of_the_instance(app: Application) -> None:
    app.run(
        """create table users (id int primary key, email text);
        create table roles (id int primary key, name text not null, type text not null);
        create table role_user (role_id int not null references roles,
            user_id int not null references users, project text not null default 'default',
            primary key (role_id, user_id, project));
        create table plain_role (id int primary key, name text);
        create table user_role (user_id int not null references users,
            role_id int not null references plain_role, project_id int,
            unique (user_id, role_id, project_id));
        insert into users values (1), (2), (3);
        insert into roles values (1, 'Admin', 'root'), (2, 'Owner', 'project');
        insert into plain_role values (1, 'owner');
        select audit.attach('role_user', 'membership', organization => '''instance''');"""
    )
    events = app.run("insert into role_user values (1, 1), (2, 2)", "delete from role_user")
    assert [(e["action"], e["subject_id"]) for e in events] == [
        ("membership.added", "1"), ("membership.added", "2"),
        ("membership.removed", "1"), ("membership.removed", "2"),
    ]  # fmt: skip
    app.run("insert into role_user values (1, 1), (2, 2), (2, 3)")
    assert app.admins("instance", "1", "2", "3") == "1"
    app.run("select audit.attach('user_role', 'membership', organization => '''other''')")
    app.run("insert into user_role values (1, 1, null), (2, 1, 9)")
    assert app.admins("other", "1", "2", "3") == "1"


@pytest.mark.parametrize(
    ("roles", "member"),
    [
        # A role is one of a resource, or of a project.
        ("resource_type text, resource_id int", ""), ("project_id int", ""),
        ("team_id int not null default 9", ""),
        # That a role was there from the start does not say that it is the organisation's.
        ("type text default 'system'", ", project_id int not null default 9"),
        ("scope text default 'project'", ""), ("type text default 'builtin'", ", team_id int"),
    ],
)  # fmt: skip
def test_an_owner_of_a_part_is_no_admin_of_the_instance(
    app: Application, roles: str, member: str
) -> None:
    app.run(
        f"""create table users (id int primary key, email text);
        create table roles (id int primary key, name text, {roles});
        create table users_roles (user_id int not null references users,
            role_id int not null references roles{member});
        select audit.attach('users_roles', 'membership', organization => '''instance''');
        insert into users values (1);
        insert into roles (id, name) values (1, 'owner');"""
    )
    column = (roles + member).rpartition(", ")[2].split()[0]
    if column in ("resource_id", "project_id", "team_id") and "default" not in roles + member:
        app.run(f"update roles set {column} = 9")
    app.run("insert into users_roles (user_id, role_id) values (1, 1)")
    if member == ", team_id int":
        app.run("update users_roles set team_id = 9")
    assert app.admins("instance", "1") == ""


def test_a_role_s_key_that_is_readable_is_the_role(app: Application) -> None:
    app.run(
        """create table role (slug text primary key, "displayName" text, "roleType" text);
        create table users (id int primary key, email text,
            "roleSlug" text not null references role);
        insert into role values ('global:owner', 'Owner', 'global'),
            ('global:member', 'Member', 'global'), ('project:admin', 'Admin', 'project'),
            ('owner', 'Mine', 'workflow');
        select audit.attach('users', 'user', organization => '''instance''');
        insert into users values (1, 'a', 'global:member'), (2, 'b', 'project:admin'),
            (3, 'c', 'owner');"""
    )
    (event,) = app.run("update users set \"roleSlug\" = 'global:owner' where id = 1")
    assert roles(event) == ("global:member", "global:owner")
    assert app.admins("instance", "1", "2", "3") == "1"


def test_a_role_may_be_named_after_what_is_the_organisation(app: Application) -> None:
    app.run(
        """create table project (id int primary key);
        create table role (slug text primary key, "roleType" text);
        create table users (id int primary key);
        create table project_relation ("projectId" int not null references project,
            "userId" int not null references users, role text not null references role,
            primary key ("projectId", "userId"));
        insert into project values (1);
        insert into users values (1), (2), (3);
        insert into role values ('project:admin', 'project'), ('project:viewer', 'project'),
            ('credential:owner', 'credential'), ('owner', 'workflow');
        select audit.attach('project', 'organization');
        select audit.attach('project_relation', 'membership');"""
    )
    assert app.told(
        "insert into project_relation values (1, 1, 'project:viewer')",
        "update project_relation set role = 'project:admin'",
    ) == [("membership.added", "1", "1,1", "1"), ("membership.role_changed", "1", "1,1", "1")]
    app.run("insert into project_relation values (1, 2, 'credential:owner'), (1, 3, 'owner')")
    assert app.admins("1", "1", "2", "3") == "1"


def test_roles_of_members_are_found_without_foreign_keys(app: Application) -> None:
    app.run(
        """create table memberships (id uuid primary key, organization_id int not null,
            user_id int not null);
        create table roles (id uuid primary key, name text, admin boolean not null);
        create table membership_roles (id int primary key, membership_id uuid not null,
            role_id uuid not null);
        insert into roles values ('00000000-0000-0000-0000-000000000001', 'Boss', true),
            ('00000000-0000-0000-0000-000000000002', 'Admin', false);
        select audit.attach('memberships', 'membership');
        select audit.attach('membership_roles', 'membership');
        insert into memberships values ('00000000-0000-0000-0000-000000000001', 1, 1),
            ('00000000-0000-0000-0000-000000000002', 1, 2);"""
    )
    events = app.run(
        """insert into membership_roles values
            (1, '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001'),
            (2, '00000000-0000-0000-0000-000000000002', '00000000-0000-0000-0000-000000000002')"""
    )
    assert [(e["action"], e["subject_id"], roles(e)[1]) for e in events] == [
        ("membership.role_changed", "1", "Boss"), ("membership.role_changed", "2", "Admin"),
    ]  # fmt: skip
    assert app.admins("1", "1", "2") == "1"


def test_a_role_in_a_project_is_none_of_the_member_that_it_refers_to(app: Application) -> None:
    app.run(
        """create table organization (id int primary key);
        create table users (id int primary key);
        create table project (id int primary key, organization_id int not null
            references organization);
        create table organization_member (id int primary key, organization_id int not null
            references organization, user_id int not null references users, role text,
            unique (id, organization_id));
        create table project_member (project_id int not null references project,
            user_id int not null references users, member_id int not null
            references organization_member on delete cascade, role text,
            primary key (project_id, user_id));
        create table member_role (id int primary key, member_id int not null,
            organization_id int not null, role text, foreign key (member_id, organization_id)
            references organization_member (id, organization_id));
        insert into organization values (1);
        insert into users values (1);
        insert into project values (10, 1);
        select audit.attach('organization', 'organization');
        select audit.attach('organization_member', 'membership');
        select audit.attach('project_member', 'membership');
        insert into organization_member values (5, 1, 1, 'member');"""
    )
    assert app.told("insert into project_member values (10, 1, 5, 'OWNER')") == [
        ("membership.added", "1", "10,1", "1")
    ]
    assert app.admins("1", "1") == ""
    assert app.owner.execute(
        "select relation::text, here, there "
        "from audit_private.referring_tables('organization_member'::regclass) order by 1"
    ).fetchall() == [("member_role", "member_id", "id"), ("project_member", "member_id", "id")]


def test_a_key_s_account_is_its_user_where_users_are_accounts(app: Application) -> None:
    app.run(
        """create table accounts (id int primary key, email text);
        create table access_tokens (id int primary key, account_id int not null
            references accounts);
        create table members (account_id int not null references accounts,
            organization_id int not null, primary key (account_id, organization_id));
        insert into accounts values (1, 'a');
        select audit.attach('members', 'membership');
        select audit.attach('accounts', 'user');
        select audit.attach('access_tokens', 'api_key');
        insert into members values (1, 5);"""
    )
    assert app.told("insert into access_tokens values (9, 1)") == [
        ("api_key.created", "5", "9", "1")
    ]


def test_a_row_may_be_deleted_at_a_number(app: Application) -> None:
    app.run(
        """create table flow (id int primary key, organization_id int, delete_at bigint,
            "delete" boolean);
        select audit.attach('flow', 'workflow');
        insert into flow values (1, 1, 0), (2, 1, null);"""
    )
    assert app.actions("update flow set delete_at = 17", 'update flow set "delete" = true') == [
        *["workflow.deleted"] * 2, *["workflow.modified"] * 2,
    ]  # fmt: skip


def test_a_user_who_is_deleted_is_no_admin(app: Application) -> None:
    app.run(SINGLE % ("", ", deleted_at timestamptz"))
    app.run("insert into users values (1, 'a', 1, null), (2, 'b', 1, now())")
    assert app.admins("instance", "1", "2") == "1"


def test_a_role_beside_a_user_is_one_in_the_organisation_of_the_user(app: Application) -> None:
    app.run(
        """create table organization (id int primary key);
        create table users (id int primary key, email text,
            organization_id int not null references organization);
        create table roles (id int primary key, name text);
        create table user_roles (user_id int not null references users, role_id int not null
            references roles, primary key (user_id, role_id));
        insert into organization values (1), (2);
        insert into users values (1, 'a', 1), (2, 'b', 2), (3, 'c', 1);
        insert into roles values (1, 'admin'), (2, 'member');
        select audit.attach('organization', 'organization');
        select audit.attach('users', 'user');
        select audit.attach('user_roles', 'membership');"""
    )
    assert app.told("insert into user_roles values (1, 1), (2, 1), (3, 2)") == [
        ("membership.added", "1", "1,1", "1"), ("membership.added", "2", "2,1", "2"),
        ("membership.added", "1", "3,2", "3"),
    ]  # fmt: skip
    assert app.admins("1", "1", "2", "3") == "1"
    assert app.admins("2", "1", "2", "3") == "2"


@pytest.mark.parametrize(
    ("role", "is_admin"),
    [
        ("admin", True), ("Owner", True), ("member,admin", True), ("admin , member", True),
        ("Super Admin", True), ("org:admin", True), ("", False), ("member", False),
        ("non-admin", False), ("admins of nothing", False), ("billing_admin", False),
        ("project:admin", False), ("member,team-owner", False), ("adm,in", False),
        ("administrator-invited", False),
    ],
)  # fmt: skip
def test_one_of_several_roles_makes_an_admin(app: Application, role: str, is_admin: bool) -> None:
    app.run(
        """create table member (id int primary key, organization_id int not null,
            user_id int not null, role text);
        select audit.attach('member', 'membership');"""
    )
    app.owner.execute("insert into member values (1, 1, 1, %s)", (role,))
    assert app.admins("1", "1") == ("1" if is_admin else "")


def test_a_policy_of_a_user_or_of_the_role_makes_an_admin(app: Application) -> None:
    app.run(
        """create table x_roles (id int primary key, name text);
        create table x_policies (id int primary key, name text, admin_access boolean not null);
        create table x_users (id int primary key, email text, role int references x_roles,
            status text);
        create table x_access (id int primary key, role int references x_roles,
            "user" int references x_users, policy int not null references x_policies);
        select audit.attach('x_users', 'user', organization => '''instance''');"""
    )
    app.run(
        """insert into x_roles values (1, 'Boss'), (2, 'Admin'), (3, 'Staff');
        insert into x_policies values (1, 'all', true), (2, 'admin', false);
        insert into x_users values (1, 'a', 1, 'active'), (3, 'c', 3, 'active'),
            (4, 'd', 3, 'active'), (5, 'e', 3, 'active'), (6, 'f', 1, 'suspended');
        insert into x_access values (1, 1, null, 1), (2, 2, null, 2), (3, null, 4, 1),
            (4, null, 5, 2)"""
    )
    assert app.admins("instance", "1", "3", "4", "5", "6") == "1 4"
    (event,) = app.run("update x_users set role = 1 where id = 3")
    assert event["action"] == "membership.role_changed"
    assert roles(event) == ("Staff", "Boss")


def test_a_superuser_is_an_admin_of_an_instance_and_of_no_organisation(app: Application) -> None:
    app.run(
        """create table auth_user (id int primary key, email text, is_superuser boolean not null,
            is_active boolean not null);
        create table staff (id int primary key, email text, is_superuser boolean,
            organization_id int);
        select audit.attach('auth_user', 'user', organization => '''instance''');
        select audit.attach('staff', 'user');
        insert into auth_user values (1, 'a', true, true), (2, 'b', false, true),
            (3, 'c', true, false);
        insert into staff values (1, 'a', true, 1);"""
    )
    assert app.admins("instance", "1", "2", "3") == "1"
    assert app.admins("1", "1") == ""


# Second factors

FACTOR_WORDS = [
    ("true", "false"), ("on", "off"), ("enabled", "disabled"), ("ENABLED", "Disabled"),
    ("totp", "none"), ("totp", ""), ("1", "0"), ("yes", "no"), ("sms", "pending"),
]  # fmt: skip


@pytest.mark.parametrize(("on", "off"), FACTOR_WORDS)
def test_two_factor_said_in_words_is_on_or_off(app: Application, on: str, off: str) -> None:
    app.run(
        """create table users (id int primary key, email text, mode text, two_factor_status text);
        select audit.attach('users', 'user', two_factor => 'mode');
        insert into users values (1, 'a', null, null);"""
    )
    play = f"update users set %s = '{on}'", f"update users set %s = '{off}'"
    # The second of two facts in one statement is named elsewhere.
    both = [f"{p % 'mode'}, email = '{n}'" for n, p in enumerate(play)]
    enabled, disabled = "auth.two_factor_enabled", "auth.two_factor_disabled"
    assert app.actions(*(p % "mode" for p in play)) == [enabled, disabled]
    assert app.actions(*both) == [
        "auth.email_changed", enabled, "auth.email_changed", disabled,
    ]  # fmt: skip
    app.run("select audit.attach('users', 'user')")
    assert app.actions(*(p % "two_factor_status" for p in play)) == [enabled, disabled]


def test_a_secret_that_is_there_is_a_second_factor(app: Application) -> None:
    app.run(
        """create table users (id int primary key, email text, tfa_secret text,
            last_failed_login timestamptz);
        select audit.attach('users', 'user');
        insert into users values (1, 'a');"""
    )
    events = app.run(
        "update users set tfa_secret = 'SECRET'",
        "update users set tfa_secret = null",
    )
    assert [(e["action"], e["subject_id"], e["old_values"], e["new_values"]) for e in events] == [
        ("auth.two_factor_enabled", "1", {"tfa_secret": None}, {"tfa_secret": "[redacted]"}),
        ("auth.two_factor_disabled", "1", {"tfa_secret": "[redacted]"}, {"tfa_secret": None}),
    ]


@pytest.mark.parametrize(
    ("type", "codes"),
    [
        ("varchar(20)", "recovery_codes"), ("varchar(20)", "Recovery Codes"),
        ("text check (type in ('totp', 'webauthn', 'recovery_codes'))", "recovery_codes"),
        ("text check (type in ('totp', 'BACKUP_CODE'))", "BACKUP_CODE"),
    ],
)  # fmt: skip
def test_recovery_codes_are_no_second_factor(app: Application, type: str, codes: str) -> None:
    app.run(
        f"""create table authenticator (id int primary key, type {type},
            data jsonb, user_id int not null);
        select audit.attach('authenticator', 'two_factor');"""
    )
    actions = app.actions(
        "insert into authenticator values (1, 'totp', '{}', 7)",
        f"insert into authenticator values (2, '{codes}', '{{}}', 7)",
        "delete from authenticator where id = 2",
        "delete from authenticator where id = 1",
    )
    said = [action for action in actions if action.startswith("auth.")]
    assert said == ["auth.two_factor_enabled", "auth.two_factor_disabled"]
    assert actions[0] == said[0] and actions[-1] == said[-1]


def test_a_factor_of_no_type_counts(app: Application) -> None:
    app.run(
        """create table passkey (id int primary key, type text, user_id int not null);
        select audit.attach('passkey', 'two_factor')"""
    )
    assert app.actions("insert into passkey values (1, null, 7)", "delete from passkey") == [
        "auth.two_factor_enabled", "auth.two_factor_disabled",
    ]  # fmt: skip


# Passwords and tokens


def test_an_account_without_a_password_is_no_password(app: Application) -> None:
    app.run(
        """create table account (id int primary key, user_id int not null, provider text,
            password text);
        select audit.attach('account', 'password');"""
    )
    assert app.owner.execute(
        "select mapping ->> 'alive' from audit_private.attachment"
    ).fetchone() == ("r.password is not null",)
    app.run("insert into account values (1, 7, 'github')")
    assert app.actions("update account set provider = 'gitlab'", "delete from account") == []
    assert (
        app.told(
            "insert into account values (2, 7, 'credential', 'SECRET1')",
            "update account set password = 'SECRET2'",
        )
        == [("auth.password_changed", None, "7", "7")] * 2
    )
    (event,) = app.run("update account set password = null")
    assert (event["action"], event["new_values"]) == ("password.deleted", {"password": None})
    assert app.actions("update account set password = 'SECRET'") == ["auth.password_changed"]


@pytest.mark.parametrize(
    ("column", "option"),
    [("api_token", ""), ("apiKey", ""), ("token", ""), ("auth_token", ""),
     ("rss", ", token => 'rss'")],
)  # fmt: skip
def test_a_token_in_a_user_s_row_is_an_api_key(app: Application, column: str, option: str) -> None:
    app.run(
        f"""create table users (id int primary key, email text, name text, "{column}" text);
        select audit.attach('users', 'user'{option});
        insert into users values (1, 'a');"""
    )
    events = app.run(
        f"""update users set "{column}" = 'SECRET1'""",
        f"""update users set "{column}" = 'SECRET2'""",
        f"""update users set "{column}" = null""",
        f"""update users set "{column}" = 'SECRET3', email = 'b', name = 'n'""",
        f"""update users set "{column}" = null, name = 'o'""",
        "update users set name = 'p'",
    )
    assert [e["action"] for e in events] == [
        "api_key.created", "api_key.updated", "api_key.revoked",
        "auth.email_changed", "api_key.created", "api_key.revoked", "user.updated",
    ]  # fmt: skip
    assert {e["subject_id"] for e in events} == {"1"}
    assert events[1]["new_values"] == {column: "[redacted]"}


@pytest.mark.parametrize(
    "columns",
    ["token text, token_expires_at timestamptz", "token text, token_type text",
     "reset_token text", "remember_token text", "access_token text", "api_token boolean"],
)  # fmt: skip
def test_what_confirms_an_address_or_signs_in_elsewhere_is_no_api_key(
    app: Application, columns: str
) -> None:
    app.run(f"create table users (id int primary key, email text, {columns})")
    found = app.owner.execute("select audit_private.token_column('users'::regclass)").fetchone()
    assert found == (None,)


# Parts


def test_a_part_is_about_the_user_of_the_whole(app: Application) -> None:
    app.run(
        """create table api_key (id int primary key, organization_id int not null,
            owner_id int not null, key_hash text);
        create table api_key_scope (id int primary key,
            api_key_id int not null references api_key on delete cascade, scope text,
            created_by int);
        create table report (id int primary key, organization_id int, for_user int);
        create table report_part (id int primary key,
            report_id int not null references report on delete cascade);
        select audit.attach('api_key', 'api_key');
        select audit.attach('api_key_scope', 'api_key');
        select audit.attach('report', 'report', subject => 'for_user');
        select audit.attach('report_part', 'report');
        insert into api_key values (1, 5, 7, 'SECRET');
        insert into report values (2, 5, 8);"""
    )
    app.run(
        "insert into api_key_scope values (10, 1, 'read', 9)",
        "insert into report_part values (20, 2)",
        "delete from api_key",
    )
    events = app.db.events("captured_from in ('public.api_key_scope', 'public.report_part')")
    assert [
        (e["action"], e["organization_id"], e["target_id"], e["subject_id"]) for e in events
    ] == [
        ("api_key.updated", "5", "1", "7"), ("report.updated", "5", "2", "8"),
        ("api_key.updated", "5", "1", "7"),
    ]  # fmt: skip


TOMBSTONES = """
[[kind]]
name = "revocation"
description = "A row revokes the API key that it refers to"
verbs = { created = "api_key.revoked" }
target_type = "api_key"
subject = "column"

[[table]]
name = "public.users"
kind = "user"
organization = "organization_id"

[[table]]
name = "public.outstanding_token"
kind = "api_key"

[[table]]
name = "public.blacklisted_token"
kind = "revocation"
target_id = "token_id"
"""


def test_a_row_that_revokes_a_token_says_so_of_the_token(app: Application) -> None:
    app.run(
        """create table users (id int primary key, email text, organization_id int);
        create table outstanding_token (id int primary key, jti text,
            user_id int not null references users);
        create table blacklisted_token (id int primary key, blacklisted_at timestamptz,
            token_id int not null unique references outstanding_token);
        insert into users values (7, 'a', 5);"""
    )
    apply(app.owner, load(TOMBSTONES))
    app.run("insert into outstanding_token values (1, 'SECRET', 7)")
    events = app.run("insert into blacklisted_token values (3, now(), 1)")
    assert [
        (e["action"], e["organization_id"], e["target_type"], e["target_id"], e["subject_id"])
        for e in events
    ] == [("api_key.revoked", "5", "api_key", "1", "7")]
