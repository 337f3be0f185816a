"""The ladder: a mapping gone stale and a row that cannot be read cost detail, never the event."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import Database

CHANGE = "update membership set role = 'A' where user_id = 2"


def alter(db: Database, script: str) -> None:
    """Run a migration of the application, as its owner."""
    with psycopg.connect(db.conninfo("app_owner")) as conn:
        conn.execute(script.encode())
        conn.execute("grant select, insert, update, delete on all tables in schema public to app")


def one(db: Database, statement: str) -> dict[str, Any]:
    """Run one statement as the application and return the one event that it gave."""
    before = len(db.events())
    with psycopg.connect(db.conninfo("app")) as conn:
        conn.execute(statement.encode())
    (event,) = db.events()[before:]
    return event


def lost(event: dict[str, Any]) -> list[str]:
    degraded = (event["details"] or {}).get("degraded", {})
    return list(degraded.get("lost", []))


def test_naive_trigger_stops_the_application_when_a_column_is_renamed(db: Database) -> None:
    alter(
        db,
        """
        create table naive (role text);
        create function naive() returns trigger language plpgsql as
            $$ begin insert into naive values (new.role); return null; end $$;
        create trigger naive after update on membership for each row execute function naive();
        alter table membership rename role to rank""",
    )
    with pytest.raises(psycopg.errors.UndefinedColumn):
        one(db, "update membership set rank = 'A' where user_id = 2")


def test_added_column_is_in_the_very_next_event(db: Database) -> None:
    alter(db, "alter table membership add seat int, add note json")
    event = one(db, "update membership set seat = 3 where user_id = 2")
    assert (event["action"], event["target_id"]) == ("membership.updated", "1,2")
    assert event["new_values"] == {"seat": 3}
    assert lost(event) == []


def test_renamed_role_column_still_gives_an_event_with_both_values(db: Database) -> None:
    alter(db, "alter table membership rename role to rank")
    event = one(db, "update membership set rank = 'A' where user_id = 2")
    assert event["action"] == "membership.updated"
    assert event["old_values"] == {"rank": "MEMBER"}
    assert event["new_values"] == {"rank": "A"}
    assert (event["organization_id"], event["subject_id"]) == ("1", "2")
    assert lost(event) == ["role"]


def test_dropped_column_that_nothing_maps_costs_nothing(db: Database) -> None:
    alter(db, "alter table workflow drop config")
    event = one(db, "insert into workflow (id, organization_id, name) values (5, 1, 'w')")
    assert event["new_values"] == {"id": 5, "organization_id": 1, "name": "w"}
    assert event["details"].get("degraded") is None


def test_dropped_organization_column_costs_the_organization_only(db: Database) -> None:
    alter(db, "alter table workflow drop organization_id")
    event = one(db, "insert into workflow (id, name) values (5, 'w')")
    assert (event["action"], event["target_id"]) == ("workflow.created", "5")
    assert event["organization_id"] is None
    assert lost(event) == ["organization"]


def test_dropped_soft_delete_column_does_not_hide_rows(db: Database) -> None:
    alter(db, "alter table api_key drop revoked_at")
    event = one(db, "insert into api_key (organization_id, name, key_hash) values (1, 'k', 'h')")
    assert (event["action"], event["organization_id"]) == ("api_key.created", "1")
    assert lost(event) == ["alive"]
    assert event["new_values"]["key_hash"] == "[redacted]"
    assert one(db, "delete from api_key")["action"] == "api_key.revoked"


def test_retyped_column_is_captured_as_it_is_now(db: Database) -> None:
    alter(
        db,
        """alter table membership drop constraint membership_user_id_fkey;
        alter table membership alter user_id type text""",
    )
    event = one(db, "update membership set role = 'A' where user_id = '2'")
    assert (event["action"], event["subject_id"]) == ("membership.role_changed", "2")


def test_secrets_stay_out_when_the_table_has_changed(db: Database) -> None:
    alter(db, "alter table app_user add extra int, add recovery_codes text[]")
    event = one(db, "update app_user set password_hash = 'TOP', recovery_codes = '{SECRET}'"
        " where id = 2")  # fmt: skip
    assert event["action"] == "auth.password_changed"
    assert event["new_values"] == {"password_hash": "[redacted]", "recovery_codes": "[redacted]"}


LOOKUP = """
create table unit (id int primary key, org text);
insert into unit values (1, 'acme');
select audit.attach('public.membership', 'membership',
    organization => 'select u.org from public.unit u where u.id = r.organization_id')
"""


def test_lookup_resolves_the_organization(db: Database) -> None:
    alter(db, LOOKUP)
    assert one(db, CHANGE)["organization_id"] == "acme"


@pytest.mark.parametrize(
    "fault",
    [
        "drop table unit",
        "alter table unit rename to units",
        "alter table unit rename org to orga",
        "revoke select (org) on unit from audit_mapper",
        "alter table unit drop constraint unit_pkey; insert into unit values (1, 'globex')",
    ],
)
def test_lookup_that_fails_costs_the_organization_only(db: Database, fault: str) -> None:
    alter(db, LOOKUP)
    alter(db, fault)
    event = one(db, CHANGE)
    assert (event["action"], event["target_id"]) == ("membership.role_changed", "1,2")
    assert event["details"]["previous_role"] == "MEMBER"
    assert event["organization_id"] is None
    assert lost(event) == ["organization"]


def test_lookup_that_finds_nothing_is_no_fault(db: Database) -> None:
    alter(db, LOOKUP)
    alter(db, "delete from unit")
    event = one(db, CHANGE)
    assert event["organization_id"] is None
    assert lost(event) == []


def test_lookup_function_that_raises_costs_the_organization_only(db: Database) -> None:
    alter(
        db,
        """
        create function org(id int) returns text language plpgsql as
            $$ begin return 'acme'; end $$;
        select audit.attach('public.membership', 'membership',
            organization => 'public.org(r.organization_id)');
        create or replace function org(id int) returns text language plpgsql as
            $$ begin assert false, 'gone'; end $$""",
    )
    event = one(db, CHANGE)
    assert event["action"] == "membership.role_changed"
    assert lost(event) == ["organization"]


def test_lookup_function_runs_without_the_rights_of_the_log(db: Database) -> None:
    alter(
        db,
        """
        create function org(id int) returns text language plpgsql as $$
        begin
            update audit.event set actor_id = 'forged';
            return 'acme';
        end $$;
        create function who(id int) returns text language sql as 'select current_user::text';
        select audit.attach('public.workflow', 'workflow',
            organization => 'public.who(r.organization_id)');
        select audit.attach('public.membership', 'membership',
            organization => 'public.org(r.organization_id)')""",
    )
    assert lost(one(db, CHANGE)) == ["organization"]
    event = one(db, "insert into workflow (organization_id, name) values (1, 'w')")
    assert event["organization_id"] == "audit_mapper"


def test_value_that_jsonb_cannot_hold_is_recorded_as_text_and_marked(db: Database) -> None:
    alter(
        db,
        """alter table workflow alter config drop default, alter config type json;
        select audit.attach('public.workflow', 'workflow')""",
    )
    event = one(
        db,
        r"""insert into workflow (id, organization_id, name, config)
        values (5, 1, 'w', '{"a": "\u0000"}')""",
    )
    assert (event["action"], event["organization_id"]) == ("workflow.created", "1")
    assert event["new_values"]["config"] == r'{"a": "\u0000"}'
    assert event["details"]["degraded"]["as_text"] == ["config"]


def test_identifier_beyond_reason_is_cut_and_marked(db: Database) -> None:
    alter(
        db,
        """create table doc (id text primary key, organization_id text);
        select audit.attach('public.doc', 'doc')""",
    )
    event = one(db, "insert into doc values (repeat('i', 1000), 'acme')")
    assert (event["target_id"], event["organization_id"]) == ("i" * 200, "acme")
    assert lost(event) == ["target_id"]
    # An organisation cut short could be somebody else's.
    event = one(db, "insert into doc values ('1', repeat('o', 1000))")
    assert (event["target_id"], event["organization_id"]) == ("1", None)
    assert lost(event) == ["organization"]


def test_lost_context_and_lost_row_detail_are_both_named(db: Database) -> None:
    alter(db, "alter table membership rename role to rank")
    with psycopg.connect(db.conninfo("app")) as conn:
        conn.execute("select set_config('auditdb.context', 'no json', true)")
        conn.execute("update membership set rank = 'A' where user_id = 2")
    (event,) = db.events()
    assert sorted(lost(event)) == ["context", "role"]


def test_re_attaching_mends_a_stale_mapping(db: Database) -> None:
    alter(db, "alter table membership rename role to member_role")
    assert lost(one(db, "update membership set member_role = 'A' where user_id = 2")) == ["role"]
    alter(db, "select audit.attach('public.membership', 'membership')")
    event = one(db, "update membership set member_role = 'B' where user_id = 2")
    assert event["action"] == "membership.role_changed"
    assert lost(event) == []


def test_a_secret_that_was_renamed_stays_one_where_code_is_written_anew(db: Database) -> None:
    alter(
        db,
        """create table vault_item (id int primary key, token text, note text);
        select audit.attach('public.vault_item', 'item');
        alter table vault_item rename token to remark""",
    )
    with psycopg.connect(db.dsn) as conn:
        conn.execute("set role audit_owner")
        conn.execute("select audit_private.regenerate()")
    event = one(db, "insert into vault_item values (1, 'canary', 'plain')")
    assert event["new_values"] == {"id": 1, "remark": "[redacted]", "note": "plain"}
