"""A sample of rows answers what the catalog leaves open, and shows nothing else of them."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from auditdb.cli import main
from auditdb.detect.document import Proposal
from auditdb.detect.propose import detect
from auditdb.mapping.apply import apply
from auditdb.mapping.file import load
from tests.test_detect import Application, app, found

__all__ = ["app"]

SHOP = """
create table organizations (id int primary key, name text);
create table users (id int primary key, email text, password text);
create table memberships (organization_id int references organizations,
    user_id int references users, role text, status text,
    primary key (organization_id, user_id));
create table folders (id int primary key, organization_id int not null references organizations);
create table workflows (id int primary key, folder_id int references folders on delete cascade,
    name text, definition jsonb);
create table user_passwords (user_id int primary key references users, hash text not null);
insert into organizations select n, n from generate_series(1, 3) as n;
insert into users (id, email) select n, 'PERSONAL' || n || '@x' from generate_series(1, 60) as n;
insert into memberships select n % 3 + 1, n,
    case n % 20 when 7 then 'Org Owner' when 1 then 'chief' else 'member' end,
    case n % 10 when 0 then 'frozen' else 'active' end
    from generate_series(1, 60) as n;
insert into folders select n, n % 3 + 1 from generate_series(1, 9) as n;
insert into workflows select n, n % 9 + 1, 'PERSONAL' from generate_series(1, 40) as n;
insert into user_passwords select id, 'SECRET' from users;
"""
ROLES = """
create table organizations (id int primary key, name text);
create table users (id int primary key, email text, password text);
create table roles (id int primary key, name text);
create table memberships (organization_id int references organizations,
    user_id int references users, role_id int not null references roles,
    primary key (organization_id, user_id));
insert into roles values (1, 'Org Admin'), (2, 'Viewer');
insert into organizations values (1, 'a');
insert into users select n, n || '@x' from generate_series(1, 30) as n;
insert into memberships select 1, n, case n when 1 then 1 else 2 end
    from generate_series(1, 30) as n;
"""


def codes(proposal: Proposal, table: str) -> list[str]:
    return [question.code for question in found(proposal, table).questions]


def test_questions_are_asked_without_a_sample(app: Application) -> None:
    app.build(SHOP)
    proposal = detect(app.owner)
    assert "admin-labels" in codes(proposal, "public.memberships")
    assert codes(proposal, "public.workflows") == ["organization-nullable"]
    assert "password-twice" in codes(proposal, "public.user_passwords")
    assert not found(proposal, "public.user_passwords").certain


def test_a_sample_answers_them(app: Application) -> None:
    app.build(SHOP)
    proposal = detect(app.owner, sample=True)
    members = found(proposal, "public.memberships")
    assert "Its roles: Org Owner (3), chief (3), member (54)." in members.why
    assert [str(q) for q in members.questions] == [
        "Admins are Org Owner. Is one of chief, too?",
        "Does one of the states frozen end a row?",
    ]
    assert codes(proposal, "public.workflows") == []
    assert "Each row of the sample of 40 has a way" in found(proposal, "public.workflows").why
    assert found(proposal, "public.user_passwords").certain
    assert codes(proposal, "public.user_passwords") == []
    text = proposal.to_toml()
    assert "PERSONAL" not in text and "SECRET" not in text


def attach_sampled(app: Application, **options: bool) -> None:
    apply(app.owner, load(detect(app.owner, None, **options).to_toml()))


def test_what_it_answers_makes_the_admins(app: Application) -> None:
    app.build(SHOP + "update memberships set status = 'frozen' where user_id = 47")
    attach_sampled(app, sample=True)
    assert [n for n in (1, 2, 7, 27, 47) if app.may_read(str(n % 3 + 1), str(n))] == [7, 27]
    assert not app.may_read("1", "7")


@pytest.mark.parametrize("option", ["sample", "read_roles"])
def test_the_names_in_a_table_of_roles_make_the_admins(app: Application, option: str) -> None:
    app.build(ROLES)
    assert "admin-labels" in codes(detect(app.owner), "public.memberships")
    proposal = detect(app.owner, None, **{option: True})
    assert "admin-labels" not in codes(proposal, "public.memberships")
    members = found(proposal, "public.memberships")
    assert "Its roles: Org Admin (1), Viewer (1)." in members.why
    attach_sampled(app, **{option: True})
    assert app.may_read("1", "1") and not app.may_read("1", "2")


def test_of_other_rows_than_those_of_roles_nothing_is_read_without_the_sample(
    app: Application,
) -> None:
    app.build(SHOP)
    assert detect(app.owner, read_roles=True) == detect(app.owner)


def test_where_no_role_makes_an_admin_it_says_so(app: Application) -> None:
    app.build(SHOP + "update memberships set role = 'member'")
    assert "admin-nobody" in codes(detect(app.owner, sample=True), "public.memberships")


def test_rows_without_an_organization_are_counted(app: Application) -> None:
    app.build(SHOP + "update workflows set folder_id = null where id < 11")
    (question,) = found(detect(app.owner, sample=True), "public.workflows").questions
    assert question.code == "organization-nullable"
    assert "Rows of the sample of 40 without a way to an organisation: 10." in str(question)


def test_few_rows_prove_nothing(app: Application) -> None:
    app.build(SHOP + "delete from workflows where id > 15; delete from memberships"
                     " where user_id > 15")  # fmt: skip
    assert codes(detect(app.owner, sample=True), "public.workflows") == ["organization-nullable"]


def test_a_user_in_several_organizations_keeps_the_question(app: Application) -> None:
    app.build(SHOP + "create table api_keys (id int primary key, user_id int not null references"
                     " users, name text, key_hash text)")  # fmt: skip
    assert codes(detect(app.owner), "public.api_keys") == ["user-in-several"]
    assert codes(detect(app.owner, sample=True), "public.api_keys") == []
    app.build("insert into memberships values (1, 1, 'member', 'active')")
    (question,) = found(detect(app.owner, sample=True), "public.api_keys").questions
    assert "Members of the sample of 60 that are in several: 1." in str(question)


def test_what_is_no_label_is_not_shown(app: Application) -> None:
    app.build(SHOP + "update memberships set role = 'PERSONAL ' || user_id")
    proposal = detect(app.owner, sample=True)
    assert "PERSONAL" not in proposal.to_toml()
    assert "admin-labels" in codes(proposal, "public.memberships")
    app.build("update memberships set role = case when user_id % 2 = 0 then 'a@b.c' end")
    assert "a@b.c" not in detect(app.owner, sample=True).to_toml()


CODE = """
create function stolen() returns text volatile language plpgsql as
    $$ begin raise warning 'CODE RAN'; return null; end $$;
"""
FOLDED = """
create function folded(int) returns int immutable language plpgsql as
    $$ begin perform public.stolen(); return 1; end $$;
"""
VEHICLES = {
    "policy": "create policy p on memberships using (stolen() is null);"
              "alter table memberships enable row level security, force row level security",
    # Of labels without an admin among them the question stays.
    "cast": "update memberships set role = 'boss' where role = 'Org Owner';"
            "create type role_name as enum ('boss', 'chief', 'member');"
            "create function as_text(role_name) returns text language sql as 'select "
            "public.stolen()';"
            "create cast (role_name as text) with function as_text(role_name) as implicit;"
            "alter table memberships alter role type role_name using role::role_name",
    "domain": "create domain role_name as text;"
              "alter table memberships alter role type role_name;"
              "create function is_fine(text) returns boolean language sql as"
              " 'select public.stolen() is null';"
              "alter domain role_name add check (is_fine(value)) not valid",
    # The planner evaluates what is constant in these, as whoever reads the table.
    "index": FOLDED + "create index on memberships ((folded(1)))",
    "predicate": FOLDED + "create index on memberships (role) where folded(1) = 1",
    "operator": FOLDED + "create operator !!! (function = folded, rightarg = int);"
                "create index on memberships ((!!! 1))",
    "statistics": FOLDED + "create statistics s on (user_id + folded(1)) from memberships;"
                  "analyze memberships",
    "child": FOLDED + "create table more () inherits (memberships);"
             "create index on more ((folded(1)))",
}  # fmt: skip


def role_is_text(vehicle: str) -> bool:
    return vehicle not in ("cast", "domain")


@pytest.mark.parametrize("vehicle", VEHICLES)
@pytest.mark.parametrize("role", ["app_owner", None])
def test_no_code_of_the_application_runs(app: Application, vehicle: str, role: str | None) -> None:
    app.build(SHOP + CODE + VEHICLES[vehicle])
    conn = app.db.connect(role)
    ran: list[object] = []
    conn.add_notice_handler(ran.append)
    assert found(detect(conn, sample=True), "public.memberships").kind == "membership"
    if role is not None and "folded" in VEHICLES[vehicle]:
        return  # The owner's own.
    assert ran == []
    conn.execute(b"set role app_owner")
    conn.execute("select user_id from memberships" if role_is_text(vehicle)
                 else "select role::text, 'chief'::role_name from memberships")  # fmt: skip
    assert ran != []


def test_a_table_of_another_owner_is_not_read(app: Application) -> None:
    app.build(SHOP)
    app.db.connect().execute("alter table memberships owner to postgres;"
                             "grant all on memberships to app_owner")  # fmt: skip
    assert "Its roles" not in detect(app.owner, sample=True).to_toml()


def test_a_large_table_is_read_in_part(app: Application) -> None:
    app.build(
        SHOP
        + """
        insert into workflows select n, n % 9 + 1, 'x' from generate_series(100, 60000) as n;
        analyze workflows"""
    )
    why = found(detect(app.owner, sample=True), "public.workflows").why
    (number,) = re.findall(r"Each row of the sample of (\d+)", why)
    assert 100 < int(number) <= 10_000


def test_nothing_of_the_session_changes(app: Application) -> None:
    app.build(SHOP)
    conn = app.db.connect("app_owner", autocommit=False)
    conn.execute("set local statement_timeout = '7min'; set local row_security = on")
    detect(conn, sample=True)
    row = conn.execute("select current_setting('statement_timeout'),"
                       " current_setting('row_security')").fetchone()  # fmt: skip
    assert row == ("7min", "on")


@pytest.mark.parametrize("option", ["--sample", "--read-roles"])
def test_the_command(app: Application, option: str) -> None:
    app.build(ROLES)
    done = CliRunner().invoke(main, ["--dsn", app.db.dsn, "detect", option])
    assert (done.exit_code, "Its roles: Org Admin (1), Viewer (1)." in done.output) == (0, True)
