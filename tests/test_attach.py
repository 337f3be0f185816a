"""Attach and detach: which tables, by which mapping, and what is refused."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import Database
from tests.viewer import read

ODD = '"weird schema"."Order; drop"'
LONG = "n" * 63


def own(db: Database, *scripts: str, role: str = "app_owner") -> None:
    """Run scripts as the application's owner, or as another role, each in a transaction."""
    with psycopg.connect(db.conninfo(role), autocommit=True) as conn:
        for script in scripts:
            with conn.transaction():
                conn.execute(script.encode())


def log(db: Database, where: str = "true") -> list[tuple[Any, ...]]:
    """Return what happened to the log itself: action, target, old and new values."""
    with psycopg.connect(db.dsn) as conn:
        query = f"""select action, target_id, old_values, new_values from audit.event
            where action in ('audit.attached', 'audit.remapped', 'audit.detached') and ({where})
            order by id"""
        return conn.execute(query.encode()).fetchall()


def value(db: Database, query: str) -> Any:
    with psycopg.connect(db.dsn) as conn:
        row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def refusal(db: Database, script: str, role: str = "app_owner") -> str:
    """Run what must be refused, and return message and hint in one line each."""
    with psycopg.connect(db.conninfo(role)) as conn:
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(script.encode())
    diag = caught.value.diag
    assert diag.sqlstate is not None and not diag.sqlstate.startswith("XX")
    assert "\n" not in (diag.message_primary or "\n")
    return f"{diag.message_primary}\n{diag.message_hint}"


def test_tables_shaped_the_usual_way_need_no_options(db: Database) -> None:
    own(
        db,
        """create table team_member (id uuid primary key default gen_random_uuid(),
            "tenantId" uuid, "memberId" text, "memberRole" text, "deletedAt" timestamptz);
        select audit.attach('team_member', 'membership');
        insert into team_member ("tenantId", "memberId", "memberRole")
            values ('00000000-0000-0000-0000-00000000000a', 'u1', 'viewer');
        update team_member set "memberRole" = 'editor';
        update team_member set "deletedAt" = now()""",
    )
    events = db.events("captured_from = 'public.team_member'")
    assert [e["action"] for e in events] == [
        "membership.added", "membership.role_changed", "membership.removed",
    ]  # fmt: skip
    assert {e["organization_id"] for e in events} == {"00000000-0000-0000-0000-00000000000a"}
    assert {e["subject_id"] for e in events} == {"u1"}
    assert {e["target_id"] for e in events} == {str(value(db, "select id from team_member"))}


WAYS = """
create table "Te""am %s" ("k""ey %I" int primary key, "owner_id" int);
create table usr ("i""d" int primary key, email text);
create table "mem'bers" ("te""am %s" int not null references "Te""am %s",
    user_id int not null references usr, "ro""le" text check ("ro""le" in ('it''s admin', 'x')),
    "isAccepted" boolean, primary key ("te""am %s", user_id));
create table "flow's" (id int primary key, "te""am" int references "Te""am %s", user_id int);
create table flow_step (id int primary key, "flow""s" int not null references "flow's");
grant all on all tables in schema public to app;
select audit.attach('"Te""am %s"', 'organization');
select audit.attach('"mem''bers"', 'membership', role => 'r."ro""le"');
select audit.attach('usr', 'user');
select audit.attach('"flow''s"', 'workflow');
select audit.attach('flow_step', 'workflow');
insert into "Te""am %s" values (1, 9);
insert into usr values (7, 'a@x');
insert into "mem'bers" values (1, 7, 'it''s admin', true);
insert into "flow's" values (2, 1, 7), (3, null, 7);
insert into flow_step values (4, 2), (5, 3);
update usr set email = 'b@x';
"""


def test_ways_lead_by_foreign_keys_whatever_the_names(empty_db: Database) -> None:
    own(empty_db, WAYS)
    told = [(e["action"], e["organization_id"], e["target_id"]) for e in empty_db.events()]
    assert told == [
        ("organization.created", "1", "1"), ("user.created", None, "7"),
        ("membership.added", "1", "1,7"), ("workflow.created", "1", "2"),
        ("workflow.created", "1", "3"), ("workflow.modified", "1", "2"),
        ("workflow.modified", "1", "3"), ("auth.email_changed", "1", "7"),
        # The user came before the membership.
        ("user.created", "1", "7"),
    ]  # fmt: skip


def test_a_way_leads_to_no_table_of_another_owner(empty_db: Database) -> None:
    empty_db.connect().execute("grant create on schema public to stranger")
    empty_db.connect().execute("grant audit_operator to stranger")
    try:
        own(
            empty_db,
            "create table org (id int primary key); grant references on org to app_owner",
            "select audit.attach('org', 'organization', target_id => '(7 + 0 * r.id)::text')",
            role="stranger",
        )
    finally:
        empty_db.connect().execute("revoke audit_operator from stranger")
    own(
        empty_db,
        "create table note (id int primary key, org int not null references org);"
        "select audit.attach('note', 'note')",
    )
    mapping = value(empty_db, "select mapping from audit_private.attachment where kind = 'note'")
    assert "organization" not in mapping


@pytest.mark.parametrize(
    ("members", "verb"),
    [
        ("", "membership.added"),
        ("create table seat (org_id int references org, usr_id int references usr);",
         "user.created"),
        ("create table seat (org_id int, user_id int, role text);"
         "select audit.attach('seat', 'membership', target_id => 'user_id');", "user.created"),
    ],
)  # fmt: skip
def test_a_user_is_a_membership_only_where_nothing_else_is(
    empty_db: Database, members: str, verb: str
) -> None:
    own(
        empty_db,
        "create table org (id int primary key);"
        "create table usr (id int primary key, org_id int not null references org, role text);"
        f"{members} select audit.attach('org', 'organization'); select audit.attach('usr', 'user');"
        "insert into org values (1); insert into usr values (2, 1, 'admin')",
    )
    assert [e["action"] for e in empty_db.events()] == ["organization.created", verb]
    admin = value(empty_db, "select audit_private.is_admin('1', '2')")
    assert admin is (verb == "membership.added")


@pytest.mark.parametrize(
    ("options", "target"), [("", "workflow_id"), (", target_id => 'id'", "id")]
)
def test_a_part_is_told_of_the_row_that_it_must_refer_to(
    db: Database, options: str, target: str
) -> None:
    own(
        db,
        "create table workflow_note (id int primary key default 7,"
        " workflow_id int not null references workflow);"
        f"select audit.attach('workflow_note', 'workflow'{options});"
        "insert into workflow (id, organization_id, name) values (5, 1, 'w');"
        "insert into workflow_note (workflow_id) values (5)",
    )
    [event] = db.events("captured_from = 'public.workflow_note'")
    wanted = {"workflow_id": ("workflow.modified", "5"), "id": ("workflow.created", "7")}
    assert (event["action"], event["target_id"]) == wanted[target]
    assert event["organization_id"] == "1"


def test_attaching_again_with_the_same_options_is_silent_and_changes_nothing(db: Database) -> None:
    fingerprint = """select string_agg(concat(t.oid, t.xmin, tgenabled, tgfoid), ' ' order by t.oid)
        from pg_trigger t where tgname like 'auditdb%'"""
    before, triggers = log(db), value(db, fingerprint)
    own(db, "select audit.attach('public.membership', 'membership')")
    assert log(db) == before
    assert value(db, fingerprint) == triggers
    own(db, "update membership set role = 'X' where user_id = 2")
    assert db.actions() == ["membership.role_changed"]


def test_attaching_again_with_other_options_replaces_the_mapping_and_is_an_event(
    db: Database,
) -> None:
    own(db, "select audit.attach('public.membership', 'membership', ignore => '{role}')")
    action, target, old, new = log(db)[-1]
    assert (action, target) == ("audit.remapped", "public.membership")
    assert (old["mapping"]["given"], new["mapping"]["given"]) == ({}, {"ignore": ["role"]})
    # What is in force, not only what was asked for.
    assert (old["mapping"]["ignore"], new["mapping"]["ignore"]) == (
        ["updated_at"], ["role", "updated_at"],
    )  # fmt: skip
    assert new["mapping"]["verbs"]["role_changed"] == "membership.role_changed"
    own(db, "update membership set role = 'X' where user_id = 2")
    assert db.events() == []
    own(
        db,
        "select audit.attach('public.membership', 'seat', organization => '''fixed''')",
        "update membership set role = 'Y' where user_id = 2",
    )
    assert [(e["action"], e["organization_id"]) for e in db.events()] == [("seat.updated", "fixed")]


def test_detach_ends_capture_keeps_the_events_and_is_an_event(db: Database) -> None:
    own(db, "update membership set role = 'X' where user_id = 2")
    id = value(
        db, "select id from audit_private.attachment where target = 'public.membership'::regclass"
    )
    own(
        db,
        "select audit.detach('public.membership')",
        "update membership set role = 'Y' where user_id = 2",
    )
    assert db.actions() == ["membership.role_changed"]
    assert log(db)[-1][:2] == ("audit.detached", "public.membership")
    left = f"""select (select count(*) from pg_proc
        where pronamespace = 'audit_private'::regnamespace and proname ~ '_{id}$')
        + (select count(*) from pg_trigger
        where tgrelid = 'membership'::regclass and not tgisinternal)"""
    assert value(db, left) == 0
    assert "is not attached" in refusal(db, "select audit.detach('public.membership')")


def test_attach_that_fails_leaves_nothing_half_done(db: Database) -> None:
    own(db, "create table invoice (id int)")
    before = log(db)
    refusal(db, "select audit.attach('invoice', 'invoice', organization => 'no_such_column')")
    assert log(db) == before
    assert value(db, "select count(*) from pg_trigger where tgrelid = 'invoice'::regclass") == 0
    assert value(db, "select count(*) from audit.action where category = 'invoice'") == 0


@pytest.mark.parametrize(
    ("prepare", "target", "message"),
    [
        ("create view v as select 1 as id", "v", "public.v is a view"),
        ("create materialized view m as select 1 as id", "m", "public.m is a view"),
        ("create sequence s", "s", "public.s is not a table"),
        ("create temp table t (id int)", "t", "t is a temporary table"),
        (
            "create table p (id int) partition by list (id);"
            " create table p1 partition of p default",
            "p1",
            "public.p1 is a partition",
        ),
        ("create table a (id int); create table b () inherits (a)", "a", "public.a is inherited"),
        ("", "audit.event", "audit.event is a table of the log"),
        ("", "audit_private.attachment", "audit_private.attachment is a table of the log"),
        ("", "pg_catalog.pg_class", "pg_class is a table of the log or of the system"),
        ("", "123::oid", "there is no table with oid 123"),
    ],
)
def test_target_that_cannot_be_captured_is_refused_by_name(
    db: Database, prepare: str, target: str, message: str
) -> None:
    literal = target if target.endswith("oid") else f"'{target}'"
    said = refusal(db, f"{prepare}; select audit.attach({literal}, 'thing')")
    assert said.startswith(message) and said.endswith(".")


def test_foreign_table_is_refused(db: Database) -> None:
    with db.connect() as conn:
        conn.execute("""create foreign data wrapper nowhere; create server elsewhere
            foreign data wrapper nowhere; create foreign table f (id int) server elsewhere""")
    assert "is a foreign table" in refusal(db, "select audit.attach('f', 'thing')", "postgres")


def test_only_the_owner_of_a_table_attaches_it(db: Database) -> None:
    with db.connect() as conn:
        conn.execute("create table other (id int); grant all on other to app_owner")
    said = refusal(db, "select audit.attach('other', 'thing')")
    assert said == (
        "only its owner, postgres, may attach public.other\n"
        "Attach as postgres, with: grant audit_operator to postgres."
    )
    assert "permission denied" in refusal(db, "select audit.attach('other', 'thing')", "app")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("'workflow', 'Work Flow'", '"Work Flow" is not a kind'),
        ("'workflow', 'audit'", '"audit" is not a kind'),
        ("'workflow', ''", '"" is not a kind'),
        ("'workflow', null", "is not a kind"),
        ("'workflow', 'workflow', admin => 'true'", 'kind "workflow" has no option "admin"'),
        ("'workflow', 'workflow', ignore => '{nope}'", 'names column "nope"'),
        ("'workflow', 'workflow', redact => '{nope}'", 'names column "nope"'),
        ("'app_user', 'user', email => 'nope'", 'option "email" names column "nope"'),
        (
            "'workflow', 'workflow', organization => 'nope'",
            'option "organization" of public.workflow',
        ),
        ("'workflow', 'workflow', organization => 'r.nope'", "column r.nope does not exist"),
        ("'workflow', 'workflow', alive => 'r.id'", "must be type boolean"),
        ("'workflow', 'workflow', subject => '1 +'", "syntax error"),
        ("'workflow', 'workflow', organization => 'select id from organization'", "organization"),
        ("'organization', 'membership'", "tells the organisation of a membership"),
        ("'workflow', 'workflow', organization => 'max(r.id)'", "aggregate functions"),
        ("'workflow', 'workflow', subject => 'string_agg(r.name, r.name)'", "aggregate functions"),
        ("'membership', 'membership', admin => 'bool_or(true)'", "aggregate functions"),
        ("'workflow', 'workflow', target_id => 'row_number() over ()'", "window functions"),
        ("'workflow', 'workflow', target_id => 'generate_series(1, r.id)'", "set-returning"),
    ],
)
def test_mapping_that_cannot_be_meant_is_refused_with_its_reason(
    db: Database, call: str, said: str
) -> None:
    message = refusal(db, f"select audit.attach({call})")
    assert said in message


@pytest.mark.parametrize(
    "expression",
    [
        "1); drop table workflow; select (1",
        "1)::text as x; create table broken_out (); select (1",
        "1); create table broken_out as select (1",
        "1)::text as x from workflow as r; delete from organization; select (1",
        "1); drop view auditdb_probe; create temp view auditdb_probe as select (1",
        "$$; drop table workflow; $$",
        "$sql$ || (select 1) || $sql$",
        "1 -- comment",
        "1 /* comment",
        "'); drop table workflow; --",
        "1; select 2",
        "r.id\n); return null; --",
        "%s %I %1$L",
    ],
)
def test_expression_cannot_break_out(db: Database, expression: str) -> None:
    with psycopg.connect(db.conninfo("app_owner"), autocommit=True) as conn:
        attached = True
        try:
            conn.execute(
                "select audit.attach('workflow', 'workflow', organization => %s)", [expression]
            )
        except psycopg.Error:
            attached = False
        conn.execute("insert into workflow (id, organization_id, name) values (5, 1, 'w')")
        assert conn.execute("select to_regclass('broken_out')").fetchone() == (None,)
        assert conn.execute("select count(*) from organization").fetchone() == (2,)
    (event,) = db.events()
    assert (event["action"], event["target_id"]) == ("workflow.created", "5")
    # Those that are one expression after all are taken as what they say.
    assert attached == (expression.startswith("$") or expression == "1 -- comment")


def test_lookup_opens_the_columns_that_it_reads_to_audit_mapper_and_to_nobody_else(
    db: Database,
) -> None:
    own(
        db,
        """create table unit (id int primary key, org int, secret text);
        select audit.attach('workflow', 'workflow',
            organization => 'select u.org from public.unit u where u.id = r.organization_id')""",
    )
    acl = "select relacl from pg_class where oid = 'unit'::regclass"
    assert value(db, acl) is None
    granted = """select array_agg(attname::text || ' ' || attacl::text order by attnum)
        from pg_attribute where attrelid = 'unit'::regclass and attacl is not null"""
    assert value(db, granted) == [
        "id {audit_mapper=r/app_owner}", "org {audit_mapper=r/app_owner}",
    ]  # fmt: skip


def test_lookup_reads_past_the_row_level_security_of_the_application(db: Database) -> None:
    own(
        db,
        """create table unit (id int primary key, org text);
        insert into unit values (1, 'acme');
        alter table unit enable row level security, force row level security;
        grant select on unit to app;
        select audit.attach('workflow', 'workflow',
            organization => 'select u.org from public.unit u where u.id = r.organization_id')""",
    )
    conn = db.connect("app")
    assert conn.execute("select count(*) from unit").fetchone() == (0,)
    conn.execute("insert into workflow (organization_id, name) values (1, 'w')")
    assert [e["organization_id"] for e in db.events()] == ["acme"]


def test_partitions_are_captured_also_by_direct_changes_and_when_made_later(db: Database) -> None:
    own(
        db,
        """create table sale (id int, organization_id int, region text, primary key (id, region))
            partition by list (region);
        create table sale_eu partition of sale for values in ('eu');
        select audit.attach('sale', 'sale');
        create table sale_us partition of sale for values in ('us');
        create table sale_xx (region text not null, junk int, organization_id int, id int not null);
        alter table sale_xx drop junk;
        alter table sale attach partition sale_xx default;
        insert into sale values (1, 1, 'eu'), (2, 1, 'us'), (3, 2, 'jp');
        update sale_us set organization_id = 2;
        update sale_xx set organization_id = 1;
        delete from sale_eu""",
    )
    assert [(e["action"], e["captured_from"]) for e in db.events()] == [
        ("sale.created", "public.sale_eu"), ("sale.created", "public.sale_us"),
        ("sale.created", "public.sale_xx"),
        ("sale.updated", "public.sale_us"), ("sale.updated", "public.sale_us"),
        ("sale.updated", "public.sale_xx"), ("sale.updated", "public.sale_xx"),
        ("sale.deleted", "public.sale_eu"),
    ]  # fmt: skip
    assert [e["organization_id"] for e in db.events()] == ["1", "1", "2", "2", "1", "1", "2", "1"]
    assert all("degraded" not in (e["details"] or {}) for e in db.events())
    enabled = "select string_agg(distinct tgenabled::text, '') from pg_trigger"
    assert (
        value(db, f"{enabled} where tgname ~ '^auditdb' and tgrelid::regclass::text ~ 'sale'")
        == "A"
    )


def test_odd_and_long_names_are_captured_and_detached(db: Database) -> None:
    with db.connect() as conn:
        conn.execute('create schema "weird schema" authorization app_owner')
    own(
        db,
        f"""create table {ODD} ("Id%" int primary key, "org's" text, "select" text, "a""b" text,
            "{LONG}" text, "%s" text, "r" text, "old" text, "op" text);
        select audit.attach('{ODD}', 'order', organization => 'org''s', subject => '"a""b"',
            ignore => '{{select}}', redact => '{{{LONG}}}');
        insert into {ODD} values (1, 'acme', 's', 'ann', 'hidden', 'p', 'r', 'o', 'op');
        update {ODD} set "%s" = 'q', "{LONG}" = 'hidden too', "r" = 'rr', "old" = 'oo';
        update {ODD} set "select" = 'ignored'""",
    )
    created, updated = db.events()
    assert (created["organization_id"], created["subject_id"]) == ("acme", "ann")
    assert (created["target_id"], created["captured_from"]) == ("1", "weird schema.Order; drop")
    assert updated["new_values"] == {"%s": "q", LONG: "[redacted]", "r": "rr", "old": "oo"}
    assert "degraded" not in updated["details"]
    # Renamed and moved, it is the same table.
    own(
        db,
        f"alter table {ODD} rename to plain",
        'alter table "weird schema".plain set schema public',
        "delete from plain",
        "select audit.detach('plain')",
    )
    assert [e["captured_from"] for e in db.events()][2:] == ["public.plain"]


def test_table_of_sixty_three_byte_name_and_sixty_secrets_is_captured_in_full(
    db: Database,
) -> None:
    columns = ", ".join(f"secret_{n} text default 'hidden'" for n in range(60))
    own(
        db,
        f"create table {LONG} (id int primary key, {columns})",
        f"select audit.attach('{LONG}', 'vault')",
        f"insert into {LONG} (id) values (1)",
    )
    (event,) = db.events()
    assert set(event["new_values"].values()) == {1, "[redacted]"}
    assert event["captured_from"] == f"public.{LONG}"
    assert "degraded" not in event["details"]


@pytest.mark.parametrize("name", ["organization", "viewer", "organization_id"])
def test_admins_are_found_whatever_the_membership_s_columns_are_called(
    db: Database, name: str
) -> None:
    own(
        db,
        f"""select audit.detach('membership');
        create table staff ("{name}" text, member_id text, role text);
        insert into staff values ('o1', 'ann', 'Owner'), ('o2', 'bob', 'Owner'),
            ('o1', 'cat', 'member');
        select audit.attach('staff', 'membership', organization => '{name}');
        update staff set role = 'guest' where member_id = 'cat'""",
    )
    count = "select count(*) from audit.event"
    assert read(db, "ann", "o1", count) == [(1,)]
    assert read(db, "ann", "o2", count) == [(0,)]
    assert read(db, "bob", "o1", count) == [(0,)]
    assert read(db, "cat", "o1", count) == [(0,)]


def test_view_may_say_who_the_admins_are(db: Database) -> None:
    own(
        db,
        """select audit.detach('membership');
        create view boss as select organization_id::text as organization_id,
            user_id::text as user_id from membership where role = 'OWNER';
        select audit.attach('boss', 'admin');
        insert into workflow (organization_id, name) values (1, 'w'), (2, 'w')""",
    )
    count = "select count(*) from audit.event"
    assert read(db, "1", "1", count) == [(1,)]
    assert read(db, "3", "2", count) == [(0,)]


def test_attach_and_detach_give_up_on_a_busy_table_before_they_stop_its_writers(
    db: Database,
) -> None:
    unbounded = """select count(*) from pg_proc where pronamespace::regnamespace::text ~ '^audit'
        and proname in ('attach_given', 'detach') and not prosrc || proconfig::text ~
            'lock_timeout(=|'', '')5s'"""
    assert value(db, unbounded) == 0


CLERKS = """
create table firm (firm_no int primary key);
create table clerk (clerk_no int primary key, email text);
create table engagement (firm_no int not null references firm,
    clerk_no int not null references clerk, primary key (firm_no, clerk_no));
create table passkey (id int primary key, clerk_no int not null references clerk);
create table robot (id int primary key, firm_no int not null references firm,
    tested_by int references clerk);
create table handover_key (id int primary key, firm_no int not null references firm,
    giver int not null references clerk, taker int not null references clerk);
select audit.attach('firm', 'organization');
select audit.attach('clerk', 'user');
select audit.attach('engagement', 'membership');
select audit.attach('clerk', 'user');
select audit.attach('passkey', 'two_factor');
select audit.attach('robot', 'api_key');
select audit.attach('handover_key', 'api_key');
insert into firm values (1);
insert into clerk values (7, 'c@x'), (8, 'd@x');
insert into engagement values (1, 7);
insert into passkey values (3, 7);
insert into robot values (4, 1, 7);
insert into handover_key values (5, 1, 7, 8);
"""


def test_user_is_found_by_the_only_key_to_users_whatever_they_are_called(
    empty_db: Database,
) -> None:
    own(empty_db, CLERKS)
    told = [
        (e["action"], e["organization_id"], e["target_id"], e["subject_id"])
        for e in empty_db.events()
        if e["target_type"] != "organization" and e["action"] != "user.created"
    ]
    assert told == [
        ("membership.added", "1", "1,7", "7"),
        ("auth.two_factor_enabled", "1", "7", "7"),
        # Not every row has one, or has one only: that says no user.
        ("api_key.created", "1", "4", None), ("api_key.created", "1", "5", None),
    ]  # fmt: skip


# As Django makes them of a ManyToManyField: nobody has a role there.
MANY_TO_MANY = """
create table organization (id int primary key, name text);
create table customuser (id int primary key, username text);
create table customuser_orgs (
    id int primary key, customuser_id int not null references customuser,
    organization_id int not null references organization, unique (customuser_id, organization_id)
);
select audit.attach('customuser', 'row');
insert into organization values (1, 'Acme');
insert into customuser values (7, 'ann');
insert into customuser_orgs values (1, 7, 1);
update customuser set username = 'Ann' where id = 7;
"""


def test_a_row_is_its_organisation_s_by_a_table_without_roles(empty_db: Database) -> None:
    own(empty_db, MANY_TO_MANY)
    (event,) = empty_db.events("action = 'row.updated'")
    assert event["organization_id"] == "1"
