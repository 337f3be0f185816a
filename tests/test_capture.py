"""Capture: every change of an attached table is one event, and says what changed and who did it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import Database

CONTEXT = """select audit.set_context('7', source => 'api', impersonator_id => '1',
    details => '{"request_id": "r-1"}')"""


def gives(db: Database, statement: str, role: str = "app") -> list[dict[str, Any]]:
    """Run one statement as the application and return the events that it gave."""
    before = len(db.events())
    with psycopg.connect(db.conninfo(role)) as conn:
        conn.execute(statement.encode())
    return db.events()[before:]


def attach(db: Database, script: str) -> None:
    """Create and attach tables as the application's owner."""
    with psycopg.connect(db.conninfo("app_owner")) as conn:
        conn.execute(script.encode())
        conn.execute("grant select, insert, update, delete on all tables in schema public to app")


def shape(event: dict[str, Any]) -> tuple[Any, ...]:
    return event["action"], event["target_id"], event["old_values"], event["new_values"]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "insert into membership (organization_id, user_id, role) values (1, 3, 'MEMBER')",
            ("membership.added", "1,3", None,
                {"organization_id": 1, "user_id": 3, "role": "MEMBER", "updated_at": None}),
        ),
        (
            "update membership set role = 'ADMIN', updated_at = now() where user_id = 2",
            ("membership.role_changed", "1,2", {"role": "MEMBER"}, {"role": "ADMIN"}),
        ),
        (
            "delete from membership where user_id = 2",
            ("membership.removed", "1,2",
                {"organization_id": 1, "user_id": 2, "role": "MEMBER", "updated_at": None}, None),
        ),
        (
            "insert into workflow (id, organization_id, name) values (5, 1, 'w')",
            ("workflow.created", "5", None,
                {"id": 5, "organization_id": 1, "name": "w", "config": {}}),
        ),
        (
            "update app_user set organization_id = null where id = 2",
            ("user.updated", "2", {"organization_id": 1}, {"organization_id": None}),
        ),
        (
            "insert into app_user (id, email, password_hash) values (8, 'x@y.z', 'h')",
            ("user.created", "8", None, {
                "id": 8, "email": "x@y.z", "password_hash": "[redacted]",
                "two_factor_enabled": False, "two_factor_secret": None,
                "organization_id": None, "updated_at": None,
            }),
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_statement_gives_one_event_with_its_values(
    db: Database, statement: str, expected: tuple[Any, ...]
) -> None:
    (event,) = gives(db, statement)
    assert shape(event) == expected
    assert event["result"] == "success"


def test_role_change_names_both_roles(db: Database) -> None:
    (event,) = gives(db, "update membership set role = 'OWNER' where user_id = 2")
    assert event["details"]["previous_role"] == "MEMBER"
    assert event["details"]["new_role"] == "OWNER"
    assert event["subject_id"] == "2"


@pytest.mark.parametrize(
    ("statement", "action"),
    [
        ("update api_key set revoked_at = now() where name = 'live'", "api_key.revoked"),
        ("update api_key set revoked_at = null where name = 'dead'", "api_key.created"),
        ("update api_key set revoked_at = now() where name = 'dead'", "api_key.updated"),
        ("update api_key set name = 'other' where name = 'live'", "api_key.updated"),
        ("delete from api_key where name = 'live'", "api_key.revoked"),
        ("delete from api_key where name = 'dead'", "api_key.purged"),
        ("insert into api_key (organization_id, name, key_hash) values (1, 'new', 'h')",
            "api_key.created"),
        ("insert into api_key (organization_id, name, key_hash, revoked_at)"
            " values (1, 'new', 'h', now())", "api_key.prepared"),
    ],
)  # fmt: skip
def test_row_comes_alive_and_dies_by_its_soft_delete(
    db: Database, statement: str, action: str
) -> None:
    gives(
        db,
        """insert into api_key (organization_id, user_id, name, key_hash, revoked_at)
        values (1, 2, 'live', 'h', null), (1, 2, 'dead', 'h', '2025-01-01')""",
    )
    assert [e["action"] for e in gives(db, statement)] == [action]


def test_each_fact_of_a_user_s_update_has_its_own_event_and_no_column_is_lost_or_said_twice(
    db: Database,
) -> None:
    events = gives(
        db,
        """update app_user set email = 'new@acme.test', password_hash = 'h2',
        two_factor_enabled = true, two_factor_secret = 's', organization_id = 2 where id = 2""",
    )
    # The organisation that the user left is told the same.
    assert [e["organization_id"] for e in events] == ["2", "1"] * 3
    events = events[::2]
    assert [(e["action"], e["new_values"]) for e in events] == [
        ("auth.email_changed", {"email": "new@acme.test", "organization_id": 2}),
        ("auth.password_changed", {"password_hash": "[redacted]"}),
        ("auth.two_factor_enabled",
            {"two_factor_enabled": True, "two_factor_secret": "[redacted]"}),
    ]  # fmt: skip
    for event in events:
        assert set(event["old_values"]) == set(event["new_values"])
        assert (event["target_type"], event["target_id"], event["subject_id"]) == ("user", "2", "2")
    assert len({e["transaction_id"] for e in events}) == 1


def test_two_facts_of_a_user_who_stays_are_two_events(db: Database) -> None:
    changed = "update app_user set email = 'new@y.z', password_hash = 'new' where id = 2"
    assert [event["action"] for event in gives(db, changed)] == [
        "auth.email_changed",
        "auth.password_changed",
    ]


def test_switching_two_factor_off_and_enrolling_without_confirming_are_told_apart(
    db: Database,
) -> None:
    def change(assignment: str) -> list[str]:
        statement = f"update app_user set {assignment} where id = 2"
        return [e["action"] for e in gives(db, statement)]

    assert change("two_factor_secret = 's'") == ["user.updated"]
    assert change("two_factor_enabled = true") == ["auth.two_factor_enabled"]
    assert change("two_factor_enabled = false, two_factor_secret = null") == [
        "auth.two_factor_disabled"
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "update membership set role = role",
        "update membership set updated_at = now()",
        "update api_key set last_used_at = now()",
        "update app_user set email = email, updated_at = now()",
        "update workflow set config = config",
        "update membership set role = 'X' where false",
        "insert into membership values (1, 2, 'X') on conflict do nothing",
    ],
)
def test_statement_that_changes_nothing_worth_an_event_gives_none(
    db: Database, statement: str
) -> None:
    gives(
        db,
        """insert into api_key (organization_id, name, key_hash) values (1, 'k', 'h');
        insert into workflow (organization_id, name, config) values (1, 'w', '{"a": [1]}')""",
    )
    assert gives(db, statement) == []


def test_changes_that_sql_calls_equal_are_recorded_where_their_bytes_differ(db: Database) -> None:
    attach(
        db,
        """
        create table price (id int primary key, amount numeric, note json, ratio float8);
        insert into price values (1, 1.0, '{"a":1}', 0);
        select audit.attach('public.price', 'price')""",
    )
    for assignment in ("amount = 1.00", """note = '{"a": 1}'""", "ratio = '-0'"):
        assert len(gives(db, f"update price set {assignment}")) == 1, assignment


def test_change_of_case_is_recorded_under_a_collation_that_ignores_case(db: Database) -> None:
    try:
        attach(
            db,
            """create collation nocase (provider = icu, locale = 'und-u-ks-level2',
                deterministic = false)""",
        )
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this PostgreSQL was built without ICU")
    attach(
        db,
        """create table person (id int primary key, name text collate nocase);
        insert into person values (1, 'Ann');
        select audit.attach('person', 'person')""",
    )
    (event,) = gives(db, "update person set name = 'ANN'")
    assert (event["old_values"], event["new_values"]) == ({"name": "Ann"}, {"name": "ANN"})


def test_secrets_are_recorded_as_changed_and_never_with_a_value(db: Database) -> None:
    (updated,) = gives(db, "update app_user set password_hash = 'hash-1' where id = 1")
    assert updated["old_values"] == {"password_hash": None}
    assert updated["new_values"] == {"password_hash": "[redacted]"}
    (again,) = gives(db, "update app_user set password_hash = 'hash-2' where id = 1")
    assert again["old_values"] == again["new_values"] == {"password_hash": "[redacted]"}
    (deleted,) = gives(db, "delete from app_user where id = 1")[:1]
    assert deleted["old_values"]["password_hash"] == "[redacted]"
    assert "hash-" not in str(db.events())


@pytest.mark.parametrize("stale", [False, True])
def test_redacted_columns_of_every_type_stay_out_of_the_log(db: Database, stale: bool) -> None:
    attach(
        db,
        """
        create table patient (id int primary key, positive boolean, code int, tags text[],
            seen date);
        select audit.attach('public.patient', 'patient', redact => '{positive,code,tags,seen}')""",
    )
    if stale:
        attach(db, "alter table patient add extra int")
    (event,) = gives(db, "insert into patient values (1, true, 4711, '{x}', '2025-01-01')")
    hidden = ("positive", "code", "tags", "seen")
    assert {event["new_values"][name] for name in hidden} == {"[redacted]"}
    (event,) = gives(db, "update patient set positive = false, code = null")
    assert event["new_values"] == {"positive": "[redacted]", "code": None}


def test_rows_of_a_child_table_are_changes_of_their_parent(db: Database) -> None:
    gives(db, "insert into workflow (id, organization_id, name) values (5, 2, 'w')")
    steps = [
        *gives(db, "insert into workflow_step (id, workflow_id, position) values (9, 5, 1)"),
        *gives(db, "update workflow_step set position = 2"),
        *gives(db, "delete from workflow_step"),
    ]
    for event in steps:
        assert (event["action"], event["target_id"]) == ("workflow.modified", "5")
        assert event["organization_id"] == "2"
        assert event["details"]["row_id"] == "9"
        assert event["captured_from"] == "public.workflow_step"


def test_cascade_gives_an_event_for_each_row_with_the_organization_it_had(db: Database) -> None:
    gives(
        db,
        """insert into workflow (id, organization_id, name) values (5, 1, 'w');
        insert into workflow_step (id, workflow_id, position) values (9, 5, 1);
        insert into api_key (organization_id, user_id, name, key_hash) values (1, 2, 'k', 'h')""",
    )
    events = gives(db, "delete from organization where id = 1")
    assert sorted(e["action"] for e in events) == [
        "api_key.revoked", "membership.removed", "membership.removed", "organization.deleted",
        "user.updated", "user.updated", "workflow.deleted", "workflow.modified",
    ]  # fmt: skip
    assert {e["organization_id"] for e in events} == {"1"}
    # ON DELETE SET NULL is an update, and belongs to the organisation that the user left.
    (first, _) = [e for e in events if e["action"] == "user.updated"]
    assert first["old_values"] == {"organization_id": 1}
    assert first["new_values"] == {"organization_id": None}


def test_truncate_is_an_event_on_each_table_that_it_empties(db: Database) -> None:
    events = gives(db, "truncate workflow cascade", "app_owner")
    assert [(e["action"], e["captured_from"]) for e in events] == [
        ("workflow.truncated", "public.workflow"),
        ("workflow.truncated", "public.workflow_step"),
    ]


def test_context_says_who_acts_from_where_and_ends_with_its_transaction(db: Database) -> None:
    conn = db.connect("app", application_name="billing")
    with conn.transaction():
        conn.execute(CONTEXT)
        conn.execute("update membership set role = 'A' where user_id = 2")
    conn.execute("update membership set role = 'B' where user_id = 2")
    inside, after = db.events()
    assert (inside["actor_id"], inside["actor_type"]) == ("7", "user")
    assert (inside["impersonator_id"], inside["source"]) == ("1", "api")
    assert inside["details"] == {
        "request_id": "r-1", "previous_role": "MEMBER", "new_role": "A",
    }  # fmt: skip
    assert (after["actor_id"], after["actor_type"]) == ("app", "database")
    assert (after["impersonator_id"], after["source"]) == (None, "sql")
    assert after["details"]["application_name"] == "billing"
    assert "request_id" not in after["details"]
    assert inside["db_user"] == after["db_user"] == "app"


def test_organization_of_the_context_serves_rows_that_belong_to_none(db: Database) -> None:
    conn = db.connect("app")
    with conn.transaction():
        conn.execute("select audit.set_context('1', organization_id => '2')")
        conn.execute("update app_user set email = 'a@b.c', organization_id = null where id = 1")
        conn.execute("insert into app_user (email) values ('d@e.f')")
    assert [e["organization_id"] for e in db.events()] == ["1", "2"]


@pytest.mark.parametrize("context", ["no json", "[1]", "3", '"x"', "[" * 9000 + "]" * 9000])
def test_context_that_is_no_object_is_marked_as_lost(db: Database, context: str) -> None:
    conn = db.connect("app")
    with conn.transaction():
        conn.execute("select set_config('auditdb.context', %s, true)", [context])
        conn.execute("update membership set role = 'A' where user_id = 2")
    (event,) = db.events()
    assert (event["actor_id"], event["actor_type"], event["source"]) == ("app", "database", "sql")
    assert event["details"]["degraded"]["lost"] == ["context"]
    assert event["details"]["new_role"] == "A"


@pytest.mark.parametrize("details", ["3", "[1]", '"x"', "null"])
def test_context_details_that_are_no_object_do_not_displace_what_the_row_says(
    db: Database, details: str
) -> None:
    conn = db.connect("app")
    with conn.transaction():
        context = f'{{"actor_id": "7", "details": {details}}}'
        conn.execute("select set_config('auditdb.context', %s, true)", [context])
        conn.execute("update membership set role = 'A' where user_id = 2")
    (event,) = db.events()
    assert event["actor_id"] == "7"
    assert event["details"] == {"previous_role": "MEMBER", "new_role": "A"}


def test_role_without_any_privilege_on_the_schema_is_recorded_and_not_hindered(
    db: Database,
) -> None:
    attach(db, "grant select, update on membership to stranger")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.connect("stranger").execute("select audit.clear_context()")
    (event,) = gives(db, "update membership set role = 'A' where user_id = 2", "stranger")
    assert (event["actor_id"], event["db_user"]) == ("stranger", "stranger")


def test_event_vanishes_with_the_change_that_is_rolled_back(db: Database) -> None:
    conn = db.connect("app", autocommit=False)
    conn.execute("update membership set role = 'A' where user_id = 2")
    conn.execute("savepoint s")
    conn.execute("update membership set role = 'B' where user_id = 2")
    conn.execute("rollback to s")
    conn.execute("update membership set role = 'C' where user_id = 2")
    conn.commit()
    conn.execute("update membership set role = 'D' where user_id = 2")
    conn.rollback()
    events = db.events()
    assert [e["new_values"]["role"] for e in events] == ["A", "C"]
    assert len({e["transaction_id"] for e in events}) == 1


def test_capture_takes_no_transaction_id_of_its_own(db: Database) -> None:
    attach(
        db,
        """
        create table naive (id int);
        create table plain (id int);
        create function naive() returns trigger language plpgsql as $$
        begin
            begin
                insert into plain values (new.id);
            exception when others then null;
            end;
            return null;
        end $$;
        create trigger naive after insert on naive for each row execute function naive()""",
    )

    def taken(statement: str) -> int:
        conn = db.connect("app_owner")
        query = "select pg_current_xact_id()::text::bigint"
        (before,) = conn.execute(query).fetchone() or (0,)
        conn.execute(statement.encode())
        (after,) = conn.execute(query).fetchone() or (0,)
        return int(after) - int(before)

    rows = "from generate_series(1, 2000) as i"
    # The naive twin guards its INSERT, and takes an id for each row.
    assert taken(f"insert into naive select i {rows}") > 2000
    assert taken(f"insert into workflow (organization_id, name) select 1, 'w' {rows}") < 10
    assert taken("update workflow set name = 'x'") < 10
    assert len(db.events()) == 4000


def test_every_row_of_unusual_statements_gives_exactly_one_event(db: Database) -> None:
    merge = """merge into membership as m using (values (2, 'A'), (3, 'B')) as v (u, r)
        on m.organization_id = 1 and m.user_id = v.u
        when matched then update set role = v.r
        when not matched then insert (organization_id, user_id, role) values (1, v.u, v.r)"""
    assert [e["action"] for e in gives(db, merge)] == [
        "membership.role_changed", "membership.added",
    ]  # fmt: skip
    upsert = """insert into membership values (1, 2, 'C'), (1, 4, 'D')
        on conflict (organization_id, user_id) do update set role = excluded.role"""
    assert sorted(e["action"] for e in gives(db, upsert)) == [
        "membership.added", "membership.role_changed",
    ]  # fmt: skip
    cte = """with gone as (delete from membership where user_id = 4 returning *)
        insert into workflow (organization_id, name) select organization_id, 'w' from gone"""
    assert len(gives(db, cte)) == 4
    with db.connect("app") as conn, conn.cursor() as cursor:
        with cursor.copy("copy workflow (organization_id, name) from stdin") as copy:
            copy.write("1\ta\n2\tb\n")
    assert [e["organization_id"] for e in db.events()[-2:]] == ["1", "2"]


def test_replication_role_does_not_silence_capture(db: Database) -> None:
    conn = db.connect()
    conn.execute("create table naive (id int); create table copied (id int)")
    conn.execute("""create function copy() returns trigger language plpgsql as
        $$ begin insert into copied values (1); return null; end $$;
        create trigger copy after insert on naive for each row execute function copy()""")
    conn.execute("set session_replication_role = replica")
    conn.execute("insert into naive values (1)")
    assert conn.execute("select count(*) from copied").fetchone() == (0,)
    conn.execute("update membership set role = 'A' where user_id = 2")
    assert db.actions() == ["membership.role_changed"]


@pytest.mark.parametrize("table", ["plain", "membership"])
def test_change_whose_event_cannot_be_written_fails_with_it(db: Database, table: str) -> None:
    attach(
        db,
        """create table plain (id int primary key, role text); grant all on plain to app;
        insert into plain values (1, 'MEMBER'); select audit.attach('plain', 'plain')""",
    )
    admin = db.connect()
    admin.execute("alter table audit.event add constraint too_full check (id < 0) not valid")
    with pytest.raises(psycopg.errors.CheckViolation):
        db.connect("app").execute(f"update {table} set role = 'OTHER'".encode())
    row = admin.execute(f"select from {table} where role = 'OTHER'".encode()).fetchone()
    assert row is None
