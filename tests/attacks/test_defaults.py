"""Defaults of audit.attach that would hand a row, or the log, to who only seems to own it.

A default is right, or it is none: an event without an organisation is read by auditors alone.
"""

from __future__ import annotations

import psycopg
import pytest

from tests.conftest import Database

# Numbers of users, members, organisations and what is alike overlap. User 1 is of organisation 1.
TENANTS = """
create table organization (id int primary key, owner_id int);
create table app_user (id int primary key, email text);
create table membership (
    id int primary key,
    organization_id int not null references organization on delete cascade,
    user_id int not null references app_user on delete cascade,
    status text{columns}
);
insert into organization values (1), (2);
insert into app_user values (1, 'a'), (2, 'b'), (3, 'c');
"""
MEMBERS = """
insert into membership (id, organization_id, user_id, status) values
    (102, 1, 1, 'active'), (101, 2, 2, 'active'), (103, 2, 3, 'invited');
"""
ATTACH = """
select audit.attach('organization', 'organization'), audit.attach('membership', 'membership',
    admin => 'false'), audit.attach('app_user', 'user');
"""

MENTIONS = {
    "a customer": (
        "create table customer (id int primary key); insert into customer values (2);"
        "create table thing (id int primary key, customer_id int references customer)",
        "insert into thing values (1, 2)",
    ),
    "a member with the number of another user": (
        "update membership set id = 2 where id = 102;"
        "create table thing (id int primary key,"
        " member_id int not null references membership on delete cascade)",
        "insert into thing values (1, 2)",
    ),
    "an organisation of a customer's": (
        "create table crm_organization (id int primary key);"
        "insert into crm_organization values (2);"
        "create table thing ("
        "id int primary key, organization_id int references crm_organization)",
        "insert into thing values (1, 2)",
    ),
    "whom it is shared with": (
        "create table thing (id int primary key,"
        " shared_with_organization_id int references organization,"
        " user_id int references app_user)",
        "insert into thing values (1, 2, 1)",
    ),
    "the template it was made from": (
        "create table template (id int primary key,"
        " organization_id int not null references organization);"
        "insert into template values (7, 2);"
        "create table thing (id int primary key, template_id int not null references template,"
        " user_id int not null references app_user)",
        "insert into thing values (1, 7, 1)",
    ),
    "an account that is no user": (
        "create table account (id int primary key); insert into account values (2);"
        "create table thing (id int primary key, account_id int references account)",
        "insert into thing values (1, 2)",
    ),
    "an owner of any type": (
        "create table thing (id int primary key, owner_type text, owner_id int)",
        "insert into thing values (1, 'team', 2)",
    ),
    "who invited its user": (
        "create table thing (id int primary key, user_id int not null references app_user)",
        "insert into thing values (1, 3)",
    ),
}


@pytest.mark.parametrize("what", MENTIONS)
def test_a_row_is_never_filed_with_an_organisation_that_it_only_mentions(
    empty_db: Database, what: str
) -> None:
    conn = empty_db.connect("app_owner")
    table, statement = MENTIONS[what]
    for script in (TENANTS.format(columns=""), MEMBERS, table, ATTACH):
        conn.execute(script.encode())
    conn.execute("select audit.attach('thing', 'thing')")
    conn.execute(statement.encode())
    (event,) = empty_db.events("action = 'thing.created'")
    assert event["organization_id"] in (None, "1")


def test_who_invites_a_user_is_not_told_of_what_the_user_does(empty_db: Database) -> None:
    conn = empty_db.connect("app_owner")
    for script in (TENANTS.format(columns=""), MEMBERS, ATTACH):
        conn.execute(script.encode())
    conn.execute("update app_user set email = 'new' where id = 3")
    (event,) = empty_db.events("action = 'auth.email_changed'")
    assert event["organization_id"] is None


ROLE = "role text not null check (role in ('owner', 'admin', 'member'))"
MEMBER = "member_id int not null references membership on delete cascade"
NO_ADMINS = {
    "an owner of a document": (
        ", role text",
        f"create table document (id int primary key);"
        f"create table document_owner (document_id int references document, {MEMBER});"
        "insert into document values (1); insert into document_owner values (1, 5)",
    ),
    "an admin of a board": (
        "",
        f"create table board (id int primary key);"
        f"create table board_member (board_id int references board, {MEMBER}, {ROLE});"
        "insert into board values (1); insert into board_member values (1, 5, 'admin')",
    ),
    "one who asked for a role": (
        "",
        f"create table role_request ({MEMBER}, {ROLE});"
        "insert into role_request values (5, 'admin')",
    ),
    "one whose role was revoked": (
        "",
        f"create table member_role ({MEMBER}, {ROLE}, revoked_at timestamptz);"
        "insert into member_role values (5, 'admin', now())",
    ),
    "one with the number of the member who is the owner": (
        ", role text",
        "alter table organization add foreign key (owner_id) references membership;"
        "insert into membership (id, organization_id, user_id) values (2, 1, 1);"
        "update organization set owner_id = 2 where id = 1",
    ),
    "the owner of the organisation that a guest comes from": (
        ", role text, home_organization_id int references organization default 2",
        "update organization set owner_id = 2 where id = 2",
    ),
}


def is_admin(database: Database) -> bool:
    """Return whether user 2 may read the log of organisation 1."""
    with psycopg.connect(database.dsn) as conn:
        row = conn.execute("select audit_private.is_admin('1', '2')").fetchone()
    return row is not None and row[0] is True


@pytest.mark.parametrize("who", NO_ADMINS)
def test_a_member_is_never_taken_for_an_admin(empty_db: Database, who: str) -> None:
    conn = empty_db.connect("app_owner")
    columns, script = NO_ADMINS[who]
    conn.execute(TENANTS.format(columns=columns).encode())
    conn.execute(
        "insert into membership (id, organization_id, user_id, status) values (5, 1, 2, 'active')"
    )
    conn.execute(script.encode())
    conn.execute(
        "select audit.attach('organization', 'organization'), audit.attach('app_user', 'user'),"
        " audit.attach('membership', 'membership')"
    )
    assert not is_admin(empty_db)


@pytest.mark.parametrize("column", ["", "organization_id int references organization,"])
def test_an_owner_of_a_team_is_no_admin_of_its_organisation(
    empty_db: Database, column: str
) -> None:
    conn = empty_db.connect("app_owner")
    for script in (TENANTS.format(columns=", role text"), MEMBERS):
        conn.execute(script.encode())
    conn.execute(
        "create table team (id int primary key,"
        " organization_id int not null references organization);"
        f"create table team_member (id int primary key, {column}"
        " team_id int not null references team on delete cascade,"
        " user_id int not null references app_user, role text);"
        "insert into team values (1, 1);"
        "insert into team_member (id, team_id, user_id, role) values (1, 1, 2, 'owner');".encode()
    )
    for table, kind in (
        ("organization", "organization"), ("app_user", "user"), ("membership", "membership"),
        ("team_member", "membership"),
    ):  # fmt: skip
        conn.execute("select audit.attach(%s::regclass, %s)", (table, kind))
    assert not is_admin(empty_db)
