"""Who is an admin by a policy or by a role with a scope: of one organisation, and of no other."""

from __future__ import annotations

import itertools

import pytest

from tests.attacks.conftest import Arena, act
from tests.attacks.report import attack
from tests.conftest import Database
from tests.viewer import read

GROUP = "Reading what is not yours"
ELSEWHERE = "an admin by a policy, or by a role with a scope, of another organisation"

MEMBERS = """
create table member (
    id int primary key, organization_id int not null references organization,
    user_id int not null references app_user, role_id int references member_role,
    unique (organization_id, user_id)
);
insert into app_user (id, email) select g, g || '@x.test' from generate_series(5, 8) as g;
"""
# Users: 5 is admin in 1 and plain in 2, 6 the other way round, 7 plain in both, 8 admin in both.
POLICIES = f"""
create table access_policy (id int primary key, organization_id int references organization,
    name text, admin_access boolean not null default false);
create table member_role (id int primary key, organization_id int references organization,
    name text);
{MEMBERS}
create table access_policy_grant (id int primary key,
    policy_id int not null references access_policy,
    role_id int references member_role, member_id int references member);
insert into access_policy values (1, 1, 'all', true), (2, 2, 'all', true), (3, 1, 'some', false),
    (4, 2, 'some', false);
insert into member_role values (1, 1, 'r1'), (2, 2, 'r2'), (3, 1, 'r3'), (4, 2, 'r4');
insert into member values (15, 1, 5, 1), (25, 2, 5, 4), (16, 1, 6, 3), (26, 2, 6, 4), (17, 1, 7, 3),
    (27, 2, 7, 4), (18, 1, 8, 1), (28, 2, 8, 4);
insert into access_policy_grant values (1, 1, 1, null), (2, 3, 3, null), (3, 4, 4, null),
    (4, 2, null, 26), (5, 2, null, 28);
"""
SCOPES = f"""
create table member_role (id int primary key, name text not null, scope text not null);
{MEMBERS}
insert into member_role values (1, 'admin', 'organization'), (2, 'admin', 'project'),
    (3, 'member', 'organization');
insert into member values (15, 1, 5, 1), (25, 2, 5, 2), (16, 1, 6, 3), (26, 2, 6, 1), (17, 1, 7, 2),
    (27, 2, 7, 3), (18, 1, 8, 1), (28, 2, 8, 1);
"""
# Said by whoever attaches: members have policies by no rule.
BY_POLICY = """exists (
    select from public.access_policy_grant as g
        join public.access_policy as p on p.id = g.policy_id
    where p.admin_access and (g.member_id = r.id or g.role_id = r.role_id))"""
# One organisation for all: here attach finds the policies.
GLOBAL = """
create table access_role (id int primary key, name text);
create table person (id int primary key, email text, password text,
    role_id int references access_role);
create table access_policy (id int primary key, name text, admin_access boolean not null);
create table access_policy_grant (id int primary key,
    policy_id int not null references access_policy,
    role_id int references access_role, user_id int references person);
insert into access_policy values (1, 'all', true), (2, 'some', false);
insert into access_role values (1, 'r1'), (2, 'r2');
insert into person values (5, 'a', 'h', 1), (6, 'b', 'h', 2), (7, 'c', 'h', null), (8, 'd', 'h', 2);
insert into access_policy_grant values (1, 1, 1, null), (2, 2, 2, null), (3, 1, null, 8),
    (4, 2, null, 7);
"""
ADMINS = {("5", "1"), ("6", "2"), ("8", "1"), ("8", "2")}
QUERIES = [
    "select distinct organization_id from audit.event",
    "select distinct organization_id from audit.log",
    "select distinct organization_id from audit.event where organization_id in ('1', '2')",
]


def attached(db: Database, schema: str) -> None:
    owner = db.connect("app_owner")
    owner.execute("select audit.detach('public.membership')")
    owner.execute(schema.encode())
    owner.execute(
        "select audit.attach('public.member', 'membership', admin => %s)",
        (BY_POLICY if schema == POLICIES else None,),
    )
    owner.execute("insert into workflow (organization_id, name) values (1, 'a'), (2, 'b')")


@attack(GROUP, ELSEWHERE, outcome="B")
@pytest.mark.parametrize("schema", [POLICIES, SCOPES], ids=["policies", "scopes"])
def test_who_is_admin_of_one_organisation_reads_no_other(db: Database, schema: str) -> None:
    attached(db, schema)
    for user, organization in itertools.product(("1", "5", "6", "7", "8"), ("1", "2", "99")):
        seen = {organization} if (user, organization) in ADMINS else set()
        for query in QUERIES:
            assert {row[0] for row in read(db, user, organization, query)} == seen, (
                user, organization, query,
            )  # fmt: skip


@attack(GROUP, ELSEWHERE, outcome="B")
def test_an_admin_of_the_whole_application_reads_no_organisation(db: Database) -> None:
    owner = db.connect("app_owner")
    owner.execute("select audit.detach('public.membership')")
    owner.execute(GLOBAL)
    owner.execute(
        "select audit.attach('public.person', 'user', organization => quote_literal('instance'));"
        "update person set email = 'new';"
        "insert into workflow (organization_id, name) values (1, 'a'), (2, 'b')"
    )
    for user, organization in itertools.product("15678", ("instance", "1", "2")):
        seen = {row[0] for row in read(db, user, organization, QUERIES[0])}
        is_admin = (user, organization) in {("5", "instance"), ("8", "instance")}
        assert seen == ({organization} if is_admin else set()), (user, organization)


@attack(GROUP, ELSEWHERE, outcome="B")
def test_a_policy_that_is_taken_away_or_handed_on_counts_at_once(db: Database) -> None:
    attached(db, POLICIES)
    owner = db.connect("app_owner")

    def admins() -> set[tuple[str, str]]:
        return {
            (user, organization)
            for user, organization in itertools.product("5678", "12")
            if read(db, user, organization, QUERIES[0])
        }

    assert admins() == ADMINS
    owner.execute("delete from access_policy_grant where id = 4")
    assert admins() == ADMINS - {("6", "2")}
    owner.execute("update member set role_id = 1 where id = 17")
    assert admins() == ADMINS - {("6", "2")} | {("7", "1")}
    owner.execute("update access_policy set admin_access = false where id = 1")
    assert admins() == {("8", "2")}


@attack(GROUP, ELSEWHERE, outcome="B", twin=True)
def test_a_naive_rule_for_admins_forgets_the_organisation(arena: Arena) -> None:
    with arena.trial() as conn:
        act(conn, "naive_app")
        conn.execute(
            "insert into naive.mapping values ('naive.membership', default,"
            " 'r.user_id = 3 and r.role = ''ADMIN''')"
        )
        # User 3 is admin of organisation 2.
        row = conn.execute("select naive.is_admin('1') as is_admin").fetchone()
        assert row == {"is_admin": True}
