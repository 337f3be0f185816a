"""Triggers of the application that change the row, or other rows, beside those of auditdb."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Database
from tests.test_capture import attach, gives

# Of an attached table: updated_at is ignored, stamp is a column that is told.
TABLE = """
create table doc (
    id int primary key, organization_id int, name text, stamp int default 0,
    updated_at timestamptz, view_count int default 0
);
insert into doc values (1, 1, 'a');
select audit.attach('doc', 'doc');
create function {function} returns trigger language plpgsql as $$ begin {body} end $$;
create trigger {trigger} on doc for each row {when} execute function {function};
"""


def build(db: Database, trigger: str, body: str, when: str = "") -> None:
    attach(db, TABLE.format(function="of_app()", body=body, trigger=trigger, when=when))


def told(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(e["action"], e["old_values"], e["new_values"]) for e in events]


def updated(old: dict[str, Any], new: dict[str, Any]) -> tuple[Any, ...]:
    return ("doc.updated", old, new)


@pytest.mark.parametrize("later", ["", "alter table doc add column later int"])
def test_a_trigger_that_touches_what_is_ignored_makes_no_event_of_its_own(
    db: Database, later: str
) -> None:
    build(
        db, "app_touch before insert or update",
        "new.updated_at := now(); new.view_count := new.view_count + 1; return new;",
    )  # fmt: skip
    db.connect("app_owner").execute(later.encode() or b"select")
    assert gives(db, "update doc set name = name") == []
    assert gives(db, "update doc set updated_at = null") == []
    assert told(gives(db, "update doc set name = 'b'")) == [
        updated({"name": "a"}, {"name": "b"}),
    ]  # fmt: skip
    (created,) = gives(db, "insert into doc (id, organization_id, name) values (2, 1, 'n')")
    assert created["new_values"]["name"] == "n" and created["new_values"]["view_count"] == 1


def test_what_a_before_trigger_makes_of_the_row_is_what_is_told(db: Database) -> None:
    build(
        db, "zz_app before insert or update or delete",
        "if tg_op = 'DELETE' then return null; end if;"
        "if new.name = 'skip' then return null; end if;"
        "new.name := upper(new.name); new.stamp := new.stamp + 1; return new;",
    )  # fmt: skip
    assert told(gives(db, "update doc set name = 'b'")) == [
        updated({"name": "a", "stamp": 0}, {"name": "B", "stamp": 1}),
    ]  # fmt: skip
    # What the trigger keeps from happening has not happened.
    assert gives(db, "delete from doc") == []
    assert gives(db, "update doc set name = 'skip'") == []
    (created,) = gives(db, "insert into doc (id, organization_id, name) values (2, 1, 'n')")
    assert (created["new_values"]["name"], created["new_values"]["stamp"]) == ("N", 1)


@pytest.mark.parametrize("name", ["aa_app", "zz_app"])
def test_an_after_trigger_that_updates_the_row_again_gives_each_change_once(
    db: Database, name: str
) -> None:
    build(
        db, f"{name} after insert or update",
        "update doc set stamp = stamp + 1, updated_at = now() where id = new.id; return null;",
        "when (pg_trigger_depth() = 0)",
    )  # fmt: skip
    events = gives(db, "update doc set name = 'b'")
    assert sorted(told(events), key=str) == sorted([
        updated({"name": "a"}, {"name": "b"}), updated({"stamp": 0}, {"stamp": 1}),
    ], key=str)  # fmt: skip
    events = gives(db, "insert into doc (id, organization_id, name) values (2, 1, 'n')")
    assert sorted(e["action"] for e in events) == ["doc.created", "doc.updated"]
    (created,) = (e for e in events if e["action"] == "doc.created")
    assert created["new_values"]["stamp"] == 0


def test_an_after_trigger_that_touches_what_is_ignored_alone_adds_nothing(db: Database) -> None:
    build(
        db, "app after update",
        "update doc set updated_at = clock_timestamp(), view_count = view_count + 1"
        " where id = new.id; return null;",
        "when (pg_trigger_depth() = 0)",
    )  # fmt: skip
    assert told(gives(db, "update doc set name = 'b'")) == [updated({"name": "a"}, {"name": "b"})]
    assert gives(db, "update doc set updated_at = null") == []
