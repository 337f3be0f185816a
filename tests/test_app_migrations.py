"""Migrations of an application: what the doctor says of each, and attaching again mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from auditdb.mapping.apply import apply
from auditdb.mapping.file import TableMapping
from auditdb.operate import doctor
from tests.conftest import APPLICATION, Database, run

PLAIN = """
create table plain (id int primary key, organization_id int, name text, note text);
grant all on plain to app;
select audit.attach('plain', 'plain');
"""
NEW = "create table plain_new (like plain including all); grant all on plain_new to app;"
SWAP = NEW + "alter table plain rename to plain_old; alter table plain_new rename to plain;"
AGAIN = "select audit.attach('plain', 'plain')"
PARTED = """
create table parted (id int, day int, organization_id int, primary key (id, day))
    partition by range (day);
create table parted_1 partition of parted for values from (1) to (2);
create table parted_2 (like parted including all);
grant all on parted, parted_1, parted_2 to app;
select audit.attach('parted', 'plain');
"""


@dataclass(frozen=True)
class Migration:
    """What a migration does, what the doctor says then, and what attaches the table again."""

    sql: str
    # Severity, object, and a part of the problem.
    says: Sequence[tuple[str, str, str]] = ()
    again: str = AGAIN
    # Writes that must be captured afterwards, each once.
    table: str = "plain"
    values: str = "(id, organization_id) values (7, 1)"
    before: str = PLAIN


GONE = "was dropped"
OTHER = "is another table than the one that was attached (now public.plain_old): nothing of it"
MIGRATIONS = {
    "dropped and created again": Migration(
        "drop table plain; create table plain (id int primary key, organization_id int);"
        "grant all on plain to app",
        [("critical", "public.plain", "was dropped and created again")],
    ),
    "renamed": Migration(
        "alter table plain rename to simple",
        [("notice", "public.simple", "was public.plain when it was attested")],
        "select audit.attach('simple', 'plain')", "simple",
    ),
    "moved to another schema": Migration(
        "create schema other; grant usage on schema other to app;"
        "alter table plain set schema other",
        [("notice", "other.plain", "was public.plain when it was attested")],
        "select audit.attach('other.plain', 'plain')", "other.plain",
    ),
    "swapped": Migration(SWAP, [("critical", "public.plain", OTHER)]),
    "swapped and the former one dropped": Migration(
        SWAP + "drop table plain_old",
        [("critical", "public.plain", "was dropped and created again")],
    ),
    "swapped, attached again, and the former one dropped": Migration(
        SWAP + AGAIN + "; drop table plain_old", [],
    ),
    "swapped and swapped back": Migration(
        SWAP + "alter table plain rename to plain_new; alter table plain_old rename to plain",
        [("critical", "public.plain", "was renamed or moved, and put back")],
    ),
    "made a partition of the one that bears its name": Migration(
        "alter table plain rename to plain_old; create table plain (like plain_old including all)"
        " partition by range (id); alter table plain attach partition plain_old"
        " for values from (1) to (100); grant all on plain to app",
        [("critical", "public.plain", OTHER)],
    ),
    "a copy is there, with all that is copied": Migration(NEW),
    "the former one is dropped before the new one bears its name": Migration(
        NEW + "drop table plain; alter table plain_new rename to plain",
        [("critical", "public.plain", "was dropped and created again")],
    ),
    "a column renamed": Migration(
        "alter table plain rename organization_id to org_id",
        [("warning", "public.plain", "column org_id is new, column organization_id is gone")],
        "select audit.attach('plain', 'plain', organization => 'org_id')",
        values="(id, org_id) values (7, 1)",
    ),
    "a column dropped": Migration(
        "alter table plain drop note", [("warning", "public.plain", "column note is gone")],
    ),
    "a column retyped": Migration(
        "alter table plain alter name type varchar(9)",
        [("warning", "public.plain", "column name is character varying(9), was text")],
    ),
    "a partition created": Migration(
        "create table parted_3 partition of parted for values from (3) to (4)",
        [("warning", "public.parted_3", "auditdb_truncate missing since it became a partition")],
        "select audit.attach('parted', 'plain')", "parted", "values (1, 3, 1)", PARTED,
    ),
    "a partition attached": Migration(
        "alter table parted attach partition parted_2 for values from (2) to (3)",
        [("warning", "public.parted_2", "auditdb_truncate missing since it became a partition")],
        "select audit.attach('parted', 'plain')", "parted", "values (1, 2, 1)", PARTED,
    ),
    "a partition detached": Migration(
        "alter table parted detach partition parted_1;"
        "alter table parted attach partition parted_2 for values from (2) to (3)",
        [("warning", "public.parted_2", "auditdb_truncate missing since it became a partition"),
         ("critical", "public.parted_1", "auditdb_truncate calls audit_private.capture_")],
        "drop trigger auditdb_truncate on parted_1; select audit.attach('parted', 'plain')",
        "parted", "values (1, 2, 1)", PARTED,
    ),
}  # fmt: skip


def found(db: Database) -> list[tuple[str, str, str]]:
    return [
        (f.severity, f.object, f.problem)
        for f in doctor.diagnose(db.connect())
        if f.check_name not in ("keys", "tenants")
    ]


@pytest.mark.parametrize("name", MIGRATIONS)
def test_the_doctor_says_it_and_attaching_again_mends_it(db: Database, name: str) -> None:
    migration = MIGRATIONS[name]
    db.connect().execute("grant create on database " + db.connect().info.dbname + " to app_owner")
    owner = db.connect("app_owner")
    run(owner, migration.before)
    assert found(db) == []
    run(owner, migration.sql)
    before = found(db)
    assert len(before) == len(migration.says), before
    for said, (severity, about, problem) in zip(
        sorted(before), sorted(migration.says), strict=True
    ):
        assert said[:2] == (severity, about) and problem in said[2]
    run(owner, migration.again)
    assert found(db) == []
    run(db.connect("app"), f"insert into {migration.table} {migration.values}")
    assert len(db.events("action = 'plain.created'")) == 1
    [attached] = db.connect().execute(
        "select target from audit.list_tables() where kind = 'plain'"
    ).fetchall()  # fmt: skip
    assert attached[0].endswith(migration.table)


def test_a_table_that_the_log_knows_and_no_mapping_is_found_and_attached_again(
    empty_db: Database,
) -> None:
    empty_db.connect().execute((APPLICATION + PLAIN).encode())
    run(empty_db.connect(), "set local session_replication_role = replica;"
                            "delete from audit_private.attachment")  # fmt: skip
    lost = [f for f in doctor.diagnose(empty_db.connect()) if "no mapping is left" in f.problem]
    assert ("critical", "public.plain") in [(f.severity, f.object) for f in lost]
    for finding in lost:
        run(empty_db.connect(), finding.mend)
    assert "no mapping is left" not in str(doctor.diagnose(empty_db.connect()))
    empty_db.connect().execute("insert into plain (id, organization_id) values (7, 1)")
    assert len(empty_db.events("action = 'plain.created'")) == 1


@pytest.mark.parametrize("name", ["swapped", "dropped and created again", "swapped and the former"
                                  " one dropped"])  # fmt: skip
def test_the_command_that_the_doctor_prints_mends_it_too(db: Database, name: str) -> None:
    owner = db.connect("app_owner")
    run(owner, PLAIN + MIGRATIONS[name].sql)
    [finding] = [f for f in doctor.diagnose(db.connect()) if f.severity == "critical"]
    assert finding.mend == "select audit.attach('public.plain', 'plain')"
    run(owner, finding.mend)
    assert found(db) == []


def test_the_trigger_that_a_detached_partition_keeps_is_dropped_by_fix(db: Database) -> None:
    owner = db.connect("app_owner")
    run(owner, PARTED + "alter table parted detach partition parted_1")
    findings = doctor.diagnose(owner)
    assert doctor.fix(owner, findings) == ["drop trigger auditdb_truncate on public.parted_1"]
    assert found(db) == []
    run(owner, "truncate parted_1")
    assert db.events("action = 'plain.truncated'") == []


def test_the_table_that_was_swapped_away_is_detached_and_an_event_says_so(db: Database) -> None:
    owner = db.connect("app_owner")
    run(owner, PLAIN + SWAP + AGAIN)
    [event] = db.connect().execute(
        "select target_id, details from audit.event where action = 'audit.detached'"
    ).fetchall()  # fmt: skip
    assert event == ("public.plain_old", {"attached_as": "public.plain"})
    run(db.connect("app"), "insert into plain_old (id) values (1)")
    assert db.events("target_type = 'plain'") == []


def test_the_memberships_of_before_a_swap_make_no_admins(db: Database) -> None:
    run(db.connect("app_owner"), "create table member_new (like membership including all);"
        "alter table membership rename to member_old;"
        "alter table member_new rename to membership;"
        "select audit.attach('membership', 'membership')")  # fmt: skip
    admins = db.connect().execute(
        "select target from audit.list_tables() where mapping ? 'admin'"
    )  # fmt: skip
    assert admins.fetchall() == [("public.membership",)]


def test_who_does_not_own_the_former_table_leaves_it_attached(db: Database) -> None:
    run(db.connect("app_owner"), PLAIN + SWAP)
    run(db.connect(), "alter table plain_old owner to postgres")
    run(db.connect("app_owner"), AGAIN)
    tables = db.connect().execute("select target from audit.list_tables() where kind = 'plain'")
    assert tables.fetchall() == [("public.plain",), ("public.plain_old",)]
    assert found(db) == []
    run(db.connect("app"), "insert into plain (id) values (1); insert into plain_old values (2)")
    assert len(db.events("action = 'plain.created'")) == 2


def test_a_table_in_other_hands_is_noticed_until_it_is_attached_again(db: Database) -> None:
    run(db.connect("app_owner"), PLAIN)
    run(db.connect(), "alter table plain owner to stranger; grant audit_operator to stranger")
    try:
        assert found(db) == [
            ("notice", "public.plain", "belongs to stranger, and belonged to app_owner")
        ]
        run(db.connect("stranger"), "select audit.attach('public.plain', 'plain')")
        assert found(db) == []
    finally:
        run(db.connect(), "revoke audit_operator from stranger")


def test_a_remedy_leaves_out_an_option_that_names_what_is_gone(db: Database) -> None:
    owner = db.connect("app_owner")
    run(owner, "select audit.attach('membership', 'membership', role => 'role');"
               "alter table membership rename role to member_role")  # fmt: skip
    [finding] = [f for f in doctor.diagnose(db.connect()) if f.object == "public.membership"
                 and f.check_name == "mappings"]  # fmt: skip
    assert finding.mend == "select audit.attach('public.membership', 'membership')"
    run(owner, finding.mend)
    assert found(db) == []


def test_or_says_what_a_person_has_to_fill_in(db: Database) -> None:
    owner = db.connect("app_owner")
    run(owner, "select audit.attach('workflow', 'workflow', target_id => 'r.name');"
               "create table thing (id int, label text, organization_id int);"
               "select audit.attach('thing', 'thing', subject => 'label');"
               "alter table thing rename label to caption")  # fmt: skip
    [finding] = [f for f in doctor.diagnose(db.connect()) if f.object == "public.thing"]
    assert finding.mend == (
        "-- say what subject is now, or leave it out: "
        "select audit.attach('public.thing', 'thing', subject => '...')"
    )
    assert not finding.fixable


def test_status_shows_the_present_name_and_a_mapping_file_may_ask_for_it(db: Database) -> None:
    owner = db.connect("app_owner")
    run(owner, PLAIN + "alter table plain rename to simple")
    for _ in range(2):
        names = db.connect().execute("select target from audit.list_tables() where kind = 'plain'")
        assert names.fetchall() == [("public.simple",)]
        said = owner.execute("select audit_private.present_name('public.plain'),"
                             " audit_private.present_name('public.simple')")  # fmt: skip
        assert said.fetchone() == ("public.simple", None)
        run(owner, "select audit.attest('simple')")


def test_fix_forgets_a_table_that_was_dropped_and_no_other(db: Database) -> None:
    owner = db.connect("app_owner")
    run(owner, PLAIN + "drop table plain")
    [finding] = [f for f in doctor.diagnose(owner) if f.severity == "critical"]
    assert (finding.object, finding.problem) == ("public.plain", "was dropped")
    assert doctor.fix(owner, [finding]) == ["select audit_private.forget_gone()"]
    assert found(db) == []
    kinds = db.connect().execute("select count(*) from audit.list_tables()").fetchone()
    assert kinds == (6,)


def test_fix_keeps_the_mapping_where_another_table_bears_the_name(db: Database) -> None:
    owner = db.connect("app_owner")
    run(owner, PLAIN + "drop table plain; create table plain (id int)")
    run(owner, "select audit_private.forget_gone()")
    [said] = [f for f in found(db) if f[0] == "critical"]
    assert said == ("critical", "public.plain", "was dropped and created again")


def test_all_tables_dropped_and_made_again_are_attached_by_the_file_again(db: Database) -> None:
    owner = db.connect("app_owner")
    names = [row[0] for row in db.connect().execute("select target from audit.list_tables()")]
    run(owner, f"drop table {', '.join(names)} cascade")
    run(owner, APPLICATION)
    kinds = {"public.organization": "organization", "public.membership": "membership",
             "public.app_user": "user", "public.api_key": "api_key"}  # fmt: skip
    apply(owner, [TableMapping(name, kind) for name, kind in kinds.items()])
    [mapping] = db.connect().execute(
        "select mapping from audit.list_tables() where target = 'public.membership'"
    ).fetchall()  # fmt: skip
    assert mapping[0]["subject"] == "r.user_id"


def test_the_former_owner_of_a_partitioned_table_loses_its_capture_functions(db: Database) -> None:
    top, owner = db.connect(), db.connect("app_owner")
    run(owner, PARTED + "select audit.attach('parted', 'plain')")
    run(top, "alter table parted owner to postgres; select audit.attach('parted', 'plain')")
    held = top.execute(
        "select count(*) from audit.list_tables() as l cross join pg_proc as p"
        " where l.target = 'public.parted' and p.proname ~ '^capture_[0-9]+_'"
        " and has_function_privilege('app_owner', p.oid, 'execute')"
    )
    assert held.fetchone() == (0,)
    assert found(db) == []
