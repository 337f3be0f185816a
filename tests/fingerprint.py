"""A fingerprint of everything in both schemas, to tell two installations apart."""

from __future__ import annotations

from typing import Any

import psycopg

QUERIES = {
    "relation": """
        select c.relname, c.relkind, c.relowner::regrole,
            -- A new installation makes its views twice: who was granted first is no difference.
            array(select x::text from unnest(c.relacl) as x order by 1), c.relrowsecurity,
            c.relforcerowsecurity, c.reloptions::text, obj_description(c.oid, 'pg_class'),
            pg_get_expr(c.relpartbound, c.oid),
            case when c.relkind = 'v' then pg_get_viewdef(c.oid) end
        from pg_class as c where c.relnamespace::regnamespace::text ~ '^audit'""",
    "column": """
        select c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
            a.attidentity, a.attgenerated, a.attcollation::regcollation,
            coalesce(a.attstattarget, -1), a.attacl::text, pg_get_expr(d.adbin, d.adrelid),
            col_description(c.oid, a.attnum)
        from pg_attribute as a join pg_class as c on c.oid = a.attrelid
            left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where c.relnamespace::regnamespace::text ~ '^audit'
            and a.attnum > 0 and not a.attisdropped""",
    "constraint": """
        select conrelid::regclass, conname, pg_get_constraintdef(oid) from pg_constraint
        where connamespace::regnamespace::text ~ '^audit'""",
    "index": """
        select indexrelid::regclass, pg_get_indexdef(indexrelid), indisvalid from pg_index
            join pg_class as c on c.oid = indexrelid
        where c.relnamespace::regnamespace::text ~ '^audit'""",
    "function": """
        select p.oid::regprocedure, p.prosrc, pg_get_function_sqlbody(p.oid), p.proacl::text,
            p.proowner::regrole, p.proconfig::text, p.provolatile, p.prosecdef, p.proparallel,
            pg_get_function_result(p.oid), pg_get_function_arguments(p.oid),
            obj_description(p.oid, 'pg_proc')
        from pg_proc as p where p.pronamespace::regnamespace::text ~ '^audit'""",
    "trigger": """
        select tgrelid::regclass, tgname, tgenabled, pg_get_triggerdef(t.oid) from pg_trigger as t
            join pg_class as c on c.oid = tgrelid
        where c.relnamespace::regnamespace::text ~ '^audit' and not tgisinternal""",
    "policy": """
        select polrelid::regclass, polname, polcmd, polpermissive, polroles::regrole[]::text,
            pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)
        from pg_policy join pg_class as c on c.oid = polrelid
        where c.relnamespace::regnamespace::text ~ '^audit'""",
    "type": """
        select typname, typtype, typowner::regrole, typacl::text, obj_description(oid, 'pg_type')
        from pg_type where typnamespace::regnamespace::text ~ '^audit' and typtype <> 'b'""",
    "sequence": """
        select seqrelid::regclass, seqtypid::regtype, seqstart, seqincrement, seqmax, seqcycle
        from pg_sequence join pg_class as c on c.oid = seqrelid
        where c.relnamespace::regnamespace::text ~ '^audit'""",
    "schema": """
        select nspname, nspowner::regrole, nspacl::text, obj_description(oid, 'pg_namespace')
        from pg_namespace where nspname ~ '^audit'""",
    "default privilege": """
        select defaclrole::regrole, nullif(defaclnamespace, 0)::regnamespace, defaclobjtype,
            defaclacl::text
        from pg_default_acl""",
    "action": "select name, category, description, is_built_in from audit.action",
    "migration": "select migration_hash, migration_id from audit_private.migration",
}


def fingerprint(dsn: str) -> dict[str, list[Any]]:
    """Return every fact about both schemas but its oids and times, by kind and in order."""
    with psycopg.connect(dsn) as conn:
        conn.execute("set search_path = pg_catalog")
        return {
            kind: sorted(conn.execute(query.encode()).fetchall(), key=repr)
            for kind, query in QUERIES.items()
        }
