"""A database of an older release is brought up to date while it is written to, and keeps it all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import auditdb
from auditdb.operate import doctor
from tests.conftest import APPLICATION, ATTACH, ROLES, Database
from tests.fingerprint import fingerprint
from tests.test_upgrade import WRITERS, Writer

RELEASES = sorted(Path(__file__).parent.glob("releases/*.sql"))

# What a log in use holds: months that are over, events in DEFAULT, actions, keys, and grants.
USE = """
set role audit_owner;
select audit.prepare_month('2024-01-01');
select audit.attach_month('2024-01-01');
reset role;
insert into audit.event (occurred_at, action, result, actor_type, source, organization_id, actor_id)
select '2024-01-10', 'auth.login', 'success', 'user', 'web', '1', 'u' || mod(n, 10)
from generate_series(1, 3000) as n;
insert into audit.event (occurred_at, action, result, actor_type, source, organization_id)
values ('2019-01-10', 'auth.login', 'success', 'user', 'web', '1');
select audit.define_action('invoice.paid', 'An invoice was paid');
select audit.create_key();
grant select on audit.log to stranger with grant option;
grant select (id, action) on audit.event to stranger;
grant usage on all sequences in schema public to app;
analyze audit.event;
"""

KEPT = {
    # A column that came later is null in what was there before.
    "events": """select to_jsonb(e) - 'db_role', to_jsonb(e) ->> 'db_role' from audit.event as e
        where action !~ '^audit' and id <= %s order by id""",
    "keys": "select * from {schema}.signing_key order by id",
    "mappings": "select id, target::regclass::text, kind, mapping, attached_at, attached_by"
    " from {schema}.attachment order by id",
    "partitions": """select relid::regclass::text from pg_partition_tree('audit.event')
        where relid::regclass::text !~ '_20(2[5-9]|[3-9])' order by 1""",
    "grants": """select c.relname, null, a.privilege_type, a.is_grantable from pg_class as c
        cross join aclexplode(c.relacl) as a where a.grantee = 'stranger'::regrole
        union all select c.relname, t.attname, a.privilege_type, a.is_grantable
        from pg_attribute as t join pg_class as c on c.oid = t.attrelid
        cross join aclexplode(t.attacl) as a where a.grantee = 'stranger'::regrole order by 1, 2""",
    "triggers": """select tgrelid::regclass::text, tgname, tgenabled from pg_trigger
        where tgname like 'auditdb%%' order by 1, 2""",
}


@pytest.fixture(params=RELEASES, ids=lambda path: path.stem)
def old(empty_db: Database, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database of an older release, in use by a small application."""
    admin = empty_db.connect()
    admin.execute("drop schema audit, audit_private cascade")
    for script in (request.param.read_text("utf-8"), ROLES):
        with psycopg.connect(empty_db.dsn) as conn:
            conn.execute(script.encode())
    with psycopg.connect(empty_db.conninfo("app_owner")) as conn:
        conn.execute(APPLICATION.encode())
        conn.execute(ATTACH.encode())
    admin.execute(USE.encode())
    yield empty_db


def kept(db: Database, last: int) -> dict[str, list[tuple[Any, ...]]]:
    with psycopg.connect(db.dsn) as conn:
        old = conn.execute("select to_regclass('audit.attachment')").fetchone()
        schema = "audit_private" if old == (None,) else "audit"
        queries = {name: query.replace("{schema}", schema) for name, query in KEPT.items()}
        return {
            name: conn.execute(query.encode(), [last] if "%s" in query else None).fetchall()
            if "%s" in query
            else conn.execute(query.replace("%%", "%").encode()).fetchall()
            for name, query in queries.items()
        }


def maintain(conn: psycopg.Connection[Any]) -> list[str]:
    """Maintain the log until there is nothing left to do, and return what was done."""
    done: list[str] = []
    while lines := [line for (line,) in conn.execute("select audit.maintain()")]:
        done += lines
    return done


def last_event(db: Database) -> int:
    [(last,)] = db.connect().execute("select max(id) from audit.event").fetchall()
    return int(last)


@pytest.mark.parametrize("way", ["install", "script"])
def test_writers_go_on_while_an_older_release_is_brought_up_to_date(
    old: Database, way: str
) -> None:
    writers = [Writer(old, number) for number in range(WRITERS)]
    last = last_event(old)
    before = kept(old, last)
    for writer in writers:
        writer.start()
    for writer in writers:
        assert writer.started.wait(30), writer.errors
    try:
        if way == "install":
            auditdb.install(old.dsn)
        else:
            with psycopg.connect(old.dsn) as conn:
                conn.execute(auditdb.script().encode())
    finally:
        for writer in writers:
            writer.stop.set()
            writer.join()
    assert [writer.errors for writer in writers] == [[]] * WRITERS
    assert kept(old, last) == before
    written = sum(4 for w in writers for done in range(0, w.written, 4) if done % 40 != 36)
    captured = old.events(f"target_type = 'workflow' and id > {last}")
    assert len(captured) == written
    assert not any("degraded" in (event["details"] or {}) for event in captured)


def test_it_ends_in_the_schema_of_a_new_installation(old: Database, db: Database) -> None:
    auditdb.install(old.dsn)
    conn = old.connect()
    conn.execute("select audit.reattach(target) from audit_private.attachment order by id")
    maintain(conn)
    upgraded, new = fingerprint(old.dsn), fingerprint(db.dsn)
    # Partitions of its own months, grants and a key of its use.
    months = {row[0] for row in upgraded["relation"]} - {row[0] for row in new["relation"]}
    assert months and all("event_20" in name for name in months), months
    for kind in ("function", "policy", "sequence", "schema", "index"):
        of_both = [
            [row for row in made[kind] if not re.search(r"event_(default|\d)", row[0])]
            for made in (upgraded, new)
        ]
        assert of_both[0] == of_both[1], kind
    by_name = {name: rest for name, *rest in new["column"]}
    for row in upgraded["column"]:
        if row[0] in by_name and row[0] not in ("event", "event_default"):
            assert row in new["column"]


def test_nothing_that_was_analyzed_before_is_left(old: Database) -> None:
    conn = old.connect()
    known = "select attname from pg_stats where schemaname = 'audit' and tablename ~ '^event'"
    assert ("actor_id",) in conn.execute(known.encode()).fetchall()
    auditdb.install(old.dsn)
    assert {name for (name,) in conn.execute(known.encode())} <= {"id", "occurred_at"}
    assert conn.execute("select * from audit_private.wrong_columns()").fetchall() == []


def test_a_month_s_index_is_taken_over_and_an_organisation_is_read_by_it(old: Database) -> None:
    auditdb.install(old.dsn)
    conn = old.connect()
    indexes = conn.execute(
        "select c.relname, i.indisvalid, pg_get_indexdef(i.indexrelid) from pg_index as i"
        " join pg_class as c on c.oid = i.indexrelid"
        " where i.indrelid = 'audit.event_2024_01'::regclass and not i.indisprimary"
    ).fetchall()
    assert len(indexes) == 1
    name, is_valid, definition = indexes[0]
    assert name == "event_2024_01_organization_id_occurred_at_id_action_actor_i_idx"
    assert is_valid and "COLLATE" not in definition and "target_id" in definition
    parents = "select relispartition from pg_class where relname = %s"
    assert conn.execute(parents, [name]).fetchall() == [(True,)]


def test_the_doctor_finds_what_a_former_release_made_and_attaching_again_mends_it(
    old: Database,
) -> None:
    conn = old.connect()
    before = {(f.object, f.check_name) for f in doctor.diagnose(conn)}
    auditdb.install(old.dsn)
    found = [f for f in doctor.diagnose(conn) if (f.object, f.check_name) not in before]
    tables = {
        name
        for (name,) in conn.execute("select target::regclass::text from audit_private.attachment")
    }
    assert {f.object for f in found if f.check_name == "triggers"} == {
        f"public.{name}" for name in tables
    }
    assert all("made by a former release" in f.problem for f in found if f.check_name == "triggers")
    assert {f.check_name for f in found} == {"triggers", "mappings", "tenants", "indexes"}
    assert {f.mend for f in found if f.check_name == "indexes"} == {"auditdb maintain"}
    doctor.fix(conn, found)
    maintain(conn)
    left = {(f.object, f.check_name) for f in doctor.diagnose(conn)}
    assert left - before <= {("public.membership", "tenants")}


def test_a_view_of_somebody_else_s_is_named_and_left(old: Database) -> None:
    conn = old.connect()
    conn.execute("create view public.report with (security_invoker) as select * from audit.log")
    last = last_event(old)
    before = kept(old, last)
    with pytest.raises(auditdb.AuditError, match=r"your own views read it: public\.report"):
        auditdb.install(old.dsn)
    assert kept(old, last) == before
    old.connect("app").execute("update membership set role = 'X' where user_id = 2")
    assert old.actions(f"id > {last}") == ["membership.role_changed"]
    conn.execute("drop view public.report")
    auditdb.install(old.dsn)
    conn.execute("create view public.report with (security_invoker) as select * from audit.log")
    auditdb.install(old.dsn)


def test_organisations_that_came_to_be_before_are_known(old: Database) -> None:
    owner = old.connect("app_owner")
    owner.execute("select audit.attach('organization', 'organization', organization => 'id')")
    for _ in range(2):
        owner.execute("insert into organization (id, name) values (7, 'x')")
        owner.execute("delete from organization where id = 7")
    owner.execute("update organization set name = 'y' where id = 1")
    [*_, latest] = [e["id"] for e in old.events("action = 'organization.created'")]
    auditdb.install(old.dsn)
    auditdb.install(old.dsn)
    starts = "select organization_id, first_id from audit_private.organization_start"
    assert old.connect().execute(starts).fetchall() == [("7", latest)]


def test_the_column_of_the_role_is_added_everywhere_and_writes_no_event_anew(old: Database) -> None:
    conn = old.connect()
    owner = old.connect("app_owner")
    files = """select relid::regclass::text, pg_relation_filenode(relid)
        from pg_partition_tree('audit.event') where isleaf and level > 0"""
    before = dict(conn.execute(files.encode()).fetchall())
    auditdb.install(old.dsn)
    assert before.items() <= dict(conn.execute(files.encode()).fetchall()).items()
    conn.execute("set role app_owner")
    conn.execute("update membership set role = 'X' where user_id = 2")
    assert old.events()[-1]["db_role"] == "app_owner"
    owner.execute("select audit.maintain()")
    defaults = conn.execute("""
        select count(*), count(distinct pg_get_expr(adbin, adrelid)) from pg_attrdef
            join pg_attribute on attrelid = adrelid and attnum = adnum
        where attname = 'db_role'""").fetchone()
    assert defaults is not None and defaults[0] > len(before) and defaults[1] == 1


INDEXES = ["event_failure_idx", "event_sign_in_key_idx"]


def test_maintenance_makes_the_indexes_of_this_release_while_writers_go_on(old: Database) -> None:
    auditdb.install(old.dsn)
    conn = old.connect()
    made = "select relname from pg_class where relname = any (%s)"
    assert conn.execute(made, [INDEXES]).fetchall() == []
    writers = [Writer(old, number) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        assert writer.started.wait(30), writer.errors
    try:
        done = maintain(conn)
    finally:
        for writer in writers:
            writer.stop.set()
            writer.join()
    assert [writer.errors for writer in writers] == [[]] * WRITERS
    steps = [line for line in done if "index" in line]
    # A month that is over has a step of its own, and another transaction.
    assert steps[-2:] == [f"made the index {name}" for name in INDEXES]
    assert "indexed 2024-01" in steps[:-2]
    valid = """select count(*), count(*) filter (where indisvalid)
        from pg_index join pg_partition_tree('audit.event') on relid = indrelid
        where indpred is not null"""
    parts = conn.execute("select count(*) from pg_partition_tree('audit.event')").fetchone()
    assert parts is not None
    assert conn.execute(valid.encode()).fetchall() == [(2 * parts[0], 2 * parts[0])]
    assert maintain(conn) == []
