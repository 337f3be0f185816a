"""What must hold for every object of both schemas, whoever adds the next one."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from auditdb.operate.source import ROLES, read
from tests.conftest import Database

SQL = Path(__file__).resolve().parent.parent / "sql"
MIGRATIONS = SQL / "migrations"


def found(db: Database, query: str) -> list[Any]:
    with psycopg.connect(db.dsn) as conn:
        return [row[0] for row in conn.execute(query.encode()).fetchall()]


@pytest.mark.parametrize(
    "uncommented",
    [
        pytest.param(
            """select oid::regclass::text from pg_class
            where relnamespace::regnamespace::text ~ '^audit'
                and relkind in ('r', 'p', 'v', 'm', 'S', 'f')
                and obj_description(oid, 'pg_class') is null
                -- Of a column GENERATED AS IDENTITY, whose comment says it.
                and not exists (select from pg_depend where classid = 'pg_class'::regclass
                    and objid = pg_class.oid and deptype = 'i')""",
            id="tables, views, sequences",
        ),
        pytest.param(
            """select format('%s.%s', attrelid::regclass, attname)
            from pg_attribute join pg_class as c on c.oid = attrelid
            where relnamespace::regnamespace::text ~ '^audit'
                and relkind in ('r', 'p') and attnum > 0
                and not attisdropped and col_description(attrelid, attnum) is null
                -- The tables of yoyo are described as wholes.
                and relname !~ '^migration' and not relispartition""",
            id="columns",
        ),
        pytest.param(
            """select oid::regprocedure::text from pg_proc
            where pronamespace::regnamespace::text ~ '^audit'
                and obj_description(oid, 'pg_proc') is null""",
            id="functions",
        ),
        pytest.param(
            """select typname from pg_type as t
            where typnamespace::regnamespace::text ~ '^audit' and typtype in ('c', 'd', 'e', 'r')
                and obj_description(oid, 'pg_type') is null
                and not exists (select from pg_class where oid = typrelid and relkind <> 'c')""",
            id="types",
        ),
    ],
)
def test_every_object_has_a_comment(db: Database, uncommented: str) -> None:
    assert found(db, uncommented) == []


# What people call: the reference manual that \df audit.* prints.
PUBLIC = {
    "attach", "attest", "baseline", "canonical", "clear_context",
    "count_archive_erasures", "create_key", "create_stream", "current_context",
    "define_action", "define_kind", "detach", "doctor", "drop_stream", "drop_subscription",
    "erase", "events_since", "hold_organization", "limit_recording", "limit_visibility",
    "list_archive", "list_keys", "list_limits", "list_logged", "list_members", "list_mentions",
    "list_partitions",
    "list_personal", "list_set_aside", "list_settings", "list_streams", "list_subscriptions",
    "list_tables", "maintain", "make_tick", "mend_columns", "mend_guards", "metrics",
    "move_archive",
    "pause_stream", "pause_subscription", "personal_events", "read_context_from", "reattach",
    "record_event", "record_reading", "release_organization", "reset_subscription",
    "resume_stream", "resume_subscription", "seal_next", "set_context", "subscribe", "version",
    "viewer_organization",
    "viewer_problem",
}  # fmt: skip


def test_the_public_schema_holds_what_people_call_or_read(db: Database) -> None:
    functions = "select proname from pg_proc where pronamespace = 'audit'::regnamespace"
    assert sorted(found(db, functions)) == sorted(PUBLIC)
    # Somebody may call each, and read each table but the source of ids.
    people = "'{audit_operator,audit_writer,audit_reader,audit_auditor}'::regrole[]"
    unused = f"""
        select proname from pg_proc where pronamespace = 'audit'::regnamespace and not exists (
            select from aclexplode(proacl) where grantee = any ({people}))
        union all
        select relname from pg_class
        where relnamespace = 'audit'::regnamespace and relkind in ('r', 'p', 'v')
            and not relispartition and not exists (
                select from aclexplode(relacl) where grantee = any ({people}))"""
    assert found(db, unused) == []


def test_what_creates_and_what_drops_the_roles_name_the_same() -> None:
    created = re.findall(r"\('(audit_\w+)', 'auditdb: ", read("bootstrap.sql"))
    dropped = re.search(
        r"in array '\{([^}]*)\}'", read("operate/drop_log.sql").replace("'\n        '", "")
    )
    assert dropped is not None
    assert tuple(created) == ROLES
    assert sorted(dropped[1].split(",")) == sorted(ROLES)


def test_a_dump_of_the_public_schema_has_the_whole_log(db: Database) -> None:
    outside = """select relid::regclass::text from pg_partition_tree('audit.event')
        join pg_class as c on c.oid = relid where relnamespace <> 'audit'::regnamespace"""
    assert found(db, outside) == []


def test_the_manifest_names_each_file_once() -> None:
    named = [
        line for line in (SQL / "manifest").read_text().splitlines() if not line.startswith("#")
    ]
    files = {path.relative_to(SQL).as_posix() for path in SQL.rglob("*.sql")}
    apart = {"bootstrap.sql", "finish.sql", "operate/uninstall.sql", "operate/drop_log.sql"}
    # Of the centre that collects other databases alone.
    apart |= {f"collect/{name}.sql" for name in ("tables", "land", "read", "check", "drop")}
    apart |= {f"migrations/{path.name}" for path in MIGRATIONS.glob("*.sql")}
    assert sorted(named) == sorted(files - apart)


def test_every_function_pins_its_search_path(db: Database) -> None:
    assert (
        found(
            db,
            # audit_private.exactly names nothing, and a body that was parsed when it was created
            # finds nothing when it runs: neither would be inlined with a setting.
            """select oid::regprocedure::text from pg_proc
        where pronamespace::regnamespace::text ~ '^audit'
            and not coalesce(proconfig @> '{"search_path=pg_catalog, pg_temp"}', false)
            and not (proname = 'exactly' and prosrc = 'select value' and not prosecdef)
            and not (prosqlbody is not null and not prosecdef)""",
        )
        == []
    )


def test_every_function_reads_its_backslashes_alike_in_every_session(db: Database) -> None:
    # Where strings do not conform, a pattern that is no parsed body loses its backslashes.
    read_late = """select oid::regprocedure::text from pg_proc
        where pronamespace::regnamespace::text ~ '^audit' and prosqlbody is null
            and not coalesce(proconfig @> '{standard_conforming_strings=on}', false)"""
    with psycopg.connect(db.dsn) as conn:
        query = read_late.replace("::regprocedure::text", "::regprocedure::text, prosrc")
        sources = conn.execute(query.encode()).fetchall()
    # Those of an escape string are its own in every session.
    escape = re.compile(r"E'(?:[^'\\]|\\.|'')*'")
    assert [name for name, source in sources if "\\" in escape.sub("", source)] == []
    # And what holds text of a mapping, or executes it.
    assert found(db, f"{read_late} and proname ~ '^((read|organization|admin)_[0-9]+|evaluate)$'"
        ) == []  # fmt: skip
    # Each setting costs time at every row.
    assert found(db, f"{read_late} and proname ~ '^capture_[0-9]+_update$' limit 1") != []


def test_every_function_of_the_repository_declares_its_volatility() -> None:
    undeclared = []
    for path in sorted(MIGRATIONS.parent.rglob("*.sql")):
        for part in path.read_text().split("\ncreate or replace function ")[1:]:
            # As written: what is not said is VOLATILE, and nobody knows whether it was meant.
            head = part.replace("\nreturn ", "\nas ").split("\nas ")[0]
            if not {"volatile", "stable", "immutable"} & set(head.split()):
                undeclared.append(f"{path.name}: {head.splitlines()[0]}")
    assert undeclared == []


def test_public_holds_nothing(db: Database) -> None:
    assert (
        found(
            db,
            """
        select object from (
            select oid::regclass::text, coalesce(relacl, acldefault('r', relowner)) from pg_class
            where relnamespace::regnamespace::text ~ '^audit'
                and relkind in ('r', 'p', 'v', 'm', 'f')
            union all
            select oid::regclass::text, coalesce(relacl, acldefault('S', relowner)) from pg_class
            where relnamespace::regnamespace::text ~ '^audit' and relkind = 'S'
            union all
            select oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)) from pg_proc
            where pronamespace::regnamespace::text ~ '^audit'
            union all
            select typname::text, coalesce(typacl, acldefault('T', typowner)) from pg_type as t
            where typnamespace::regnamespace::text ~ '^audit' and typtype in ('c', 'd', 'e', 'r')
                and not exists (select from pg_class where oid = typrelid and relkind <> 'c')
            union all
            select nspname::text, coalesce(nspacl, acldefault('n', nspowner)) from pg_namespace
            where nspname = 'audit'
        ) as o (object, acl), aclexplode(acl) where grantee = 0""",
        )
        == []
    )


def test_functions_to_come_are_closed_to_public(db: Database) -> None:
    conn = db.connect()
    conn.execute("set role audit_owner")
    conn.execute("create function audit.later() returns int language sql return 1")
    conn.execute("reset role")
    row = conn.execute("select has_function_privilege('stranger', 'audit.later()', 'execute')")
    assert row.fetchone() == (False,)


def test_the_schema_belongs_to_audit_owner_who_alone_creates_in_it(empty_db: Database) -> None:
    # No table was attached since: that takes and gives back the right to create.
    for schema in ("audit", "audit_private"):
        owner = f"select nspowner::regrole::text from pg_namespace where nspname = '{schema}'"
        assert found(empty_db, owner) == ["audit_owner"]
        creators = f"""select rolname from pg_roles
            where has_schema_privilege(oid, '{schema}', 'create') and not rolsuper"""
        assert found(empty_db, creators) == ["audit_owner"]


def test_every_table_of_the_log_outlives_a_crash(db: Database) -> None:
    lost = """select oid::regclass::text from pg_class
        where relnamespace::regnamespace::text ~ '^audit' and relpersistence <> 'p'"""
    assert found(db, lost) == []


def test_nobody_but_audit_owner_holds_more_than_select_on_a_table(db: Database) -> None:
    assert (
        found(
            db,
            """
        select distinct format('%s: %s to %s', c.oid::regclass, privilege_type, grantee::regrole)
        from pg_class as c, aclexplode(relacl)
        where relnamespace::regnamespace::text ~ '^audit' and grantee <> relowner
            and privilege_type <> 'SELECT'
            and not (relname = 'request' and privilege_type = 'INSERT')""",
        )
        == []
    )


def test_no_role_that_logs_in_is_a_member_of_the_owner_or_the_mapper(db: Database) -> None:
    assert (
        found(
            db,
            """
        select format('%s is %s', r.rolname, o.rolname) from pg_roles as r, pg_roles as o
        where o.rolname in ('audit_owner', 'audit_mapper') and r.rolcanlogin and not r.rolsuper
            and pg_has_role(r.oid, o.oid, 'member')""",
        )
        == []
    )
    direct = """select member::regrole::text from pg_auth_members
        where roleid = 'audit_owner'::regrole"""
    assert found(db, direct) == []


def test_roles_cannot_log_in_or_do_anything_by_themselves(db: Database) -> None:
    powers = "rolcanlogin or rolsuper or rolcreaterole or rolcreatedb or rolreplication"
    assert (
        found(
            db,
            f"""select rolname from pg_roles where rolname = any('{{{",".join(ROLES)}}}')
        and ({powers} or rolbypassrls)""",
        )
        == []
    )


def test_everything_belongs_to_audit_owner_and_what_runs_expressions_to_audit_mapper(
    db: Database,
) -> None:
    owned = """select owner::regrole || ' ' || name from (
            select relowner, oid::regclass::text from pg_class
            where relnamespace::regnamespace::text ~ '^audit'
            union all select proowner, proname from pg_proc
            where pronamespace::regnamespace::text ~ '^audit'
        ) as o (owner, name) where owner <> 'audit_owner'::regrole"""
    others = found(db, owned)
    assert others != []
    for other in others:
        owner, name = other.split(" ")
        assert owner == "audit_mapper"
        kind = name.removesuffix("_late").removesuffix("_exists").rstrip("0123456789")
        assert kind in {
            "rescue", "examine", "try_expression", "read_", "organization_", "admin_",
        }, name  # fmt: skip


def test_every_view_asks_with_the_rights_of_its_reader(db: Database) -> None:
    views = (
        "select oid::regclass::text from pg_class where relnamespace::regnamespace::text ~ '^audit'"
    )
    assert len(found(db, f"{views} and relkind = 'v'")) >= 9
    assert (
        found(
            db,
            f"""{views} and relkind in ('v', 'm')
        and not coalesce(reloptions @> '{{security_invoker=true}}', false)""",
        )
        == []
    )


UNGUARDED = """
    select format('%s: %s', p.relid, missing) from pg_partition_tree('audit.event') as p
        join pg_class as c on c.oid = p.relid
        cross join lateral (
            select 'row-level security' where not (relrowsecurity and relforcerowsecurity)
            union all
            select t from unnest('{refuse_change,refuse_truncate}'::text[]) as t
            where not exists (select from pg_trigger
                where tgrelid = p.relid and tgname = t and tgenabled = 'A')
        ) as m (missing)"""


def test_log_and_each_partition_is_guarded_also_those_made_later(db: Database) -> None:
    assert found(db, UNGUARDED) == []
    before = found(db, "select count(*) from pg_partition_tree('audit.event')")
    with db.connect() as conn:
        conn.execute("select audit_private.create_months(9)")
    after = found(db, "select count(*) from pg_partition_tree('audit.event')")
    assert after[0] >= before[0] + 6
    assert found(db, UNGUARDED) == []
    # The naive way to make a partition is not guarded: the query finds it.
    with db.connect() as conn:
        conn.execute("""create table audit.event_2099_01 partition of audit.event
            for values from ('2099-01-01') to ('2099-02-01')""")
    assert found(db, UNGUARDED) == [
        "audit.event_2099_01: row-level security",
        "audit.event_2099_01: refuse_truncate",
    ]


def test_every_trigger_of_ours_fires_always(db: Database) -> None:
    mine = "from pg_trigger where tgname ~ '^(auditdb_|refuse_)' and not tgisinternal"
    assert found(db, f"select count(*) {mine}") != [0]
    assert found(db, f"select tgname || ' on ' || tgrelid::regclass {mine} and tgenabled <> 'A'"
        ) == []  # fmt: skip


def test_migrations_are_frozen() -> None:
    recorded = {}
    for line in (MIGRATIONS / "CHECKSUMS").read_text().splitlines():
        checksum, name = line.split()
        recorded[name] = checksum
    present = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(MIGRATIONS.glob("*.sql"))
    }
    assert present == recorded, "a released migration never changes; write another one"
