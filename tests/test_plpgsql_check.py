"""plpgsql_check reads every function: no error, and no text that would become SQL unquoted."""

from __future__ import annotations

import psycopg
import pytest

from tests.conftest import Database

# Polymorphic functions are read for a row of the table that they were generated for.
CHECK = """
select p.oid::regprocedure::text, regexp_replace(p.proname, '_[0-9]+', ''), f.level, f.message
from pg_proc as p join pg_language as l on l.oid = p.prolang and l.lanname = 'plpgsql'
    left join pg_trigger as t on t.tgfoid = p.oid and t.tgparentid = 0
    left join audit_private.attachment as a on a.id = substring(p.proname, '_([0-9]+)')::int
    cross join lateral public.plpgsql_check_function_tb(p.oid, coalesce(t.tgrelid, 0),
        fatal_errors => false, security_warnings => true, extra_warnings => true,
        anyelememttype => coalesce(a.target::regclass, 'public.membership')::text::regtype) as f
where p.pronamespace::regnamespace::text ~ '^audit'
    and f.level in ('error', 'security', 'warning', 'warning extra') and f.sqlstate <> '42804'
order by 1
"""
UNSANITIZED = "text type variable is not sanitized"

# Text that becomes SQL as it is, and why it may.
ALIASES = {
    ("define", UNSANITIZED): "words of this release's own",
    ("grant_capture", UNSANITIZED): "words of this release's own",
    ("create_trigger", UNSANITIZED): "one of four operations",
    ("set_policy", UNSANITIZED): "conditions of this release's own",
    ("furnish_indexes", UNSANITIZED): "definitions of this release's own",
    ("close_statistics", UNSANITIZED): "types as the catalog spells them",
    ("alter_columns", UNSANITIZED): "types as the catalog spells them",
    ("close_lookups", UNSANITIZED): "names of columns, each quoted",
    ("read_rows", UNSANITIZED): "what the caller may run as itself, run as the caller",
    ("read_rows", 'schema "pg_temp" does not exist'): "it makes it before",
    ("read_rows", 'relation "pg_temp.auditdb_rows" does not exist'): "it makes it before",
    ("probe", UNSANITIZED): "parsed and never run, as audit_mapper",
    ("evaluate", UNSANITIZED): "a mapping's expression, run as audit_mapper",
    ("try_expression", UNSANITIZED): "a mapping's expression, run as audit_mapper",
    ("try_mapper", UNSANITIZED): "calls of this release's own",
    ("events_since", UNSANITIZED): "numbers, times and snapshots of ticks; what is asked is quoted",
    ("events_since", "cannot determinate a result of dynamic SQL"): "it is a row of the log",
    ("events_since", 'composite OUT variable "event" is not single argument'): "so it is read",
    ("read_batch", UNSANITIZED): "numbers, times and snapshots of ticks; what is asked is quoted",
    ("check_collected", 'schema "audit_collected" does not exist'): "it looks for it before",
    ("arrived_in", 'unused parameter "id"'): "an index needs a column",
    ("replace_default", 'relation "audit.event_next" does not exist'): "it makes it before",
    **{
        ("sampled_ids", f'OUT variable "{name}" is maybe unmodified'): "a query returns it"
        for name in ("id", "occurred_at", "is_newest")
    },
}


def test_no_function_has_an_error_or_text_that_becomes_sql(db: Database) -> None:
    conn = db.connect()
    try:
        conn.execute("create extension plpgsql_check schema public")
    except psycopg.Error:
        pytest.skip("plpgsql_check is not there")
    conn.execute("""
        create function audit.naive(name text) returns void language plpgsql as
        'begin execute ''drop table '' || name; perform nothing from nowhere; end'""")
    found = conn.execute(CHECK.encode()).fetchall()
    assert {level for _, name, level, _ in found if name == "naive"} == {"error", "security"}
    found = [row for row in found if row[1] != "naive"]
    assert [row for row in found if (row[1], row[3]) not in ALIASES] == []
    assert {(row[1], row[3]) for row in found} == {*ALIASES}
