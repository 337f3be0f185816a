-- Standing: what the log consists of in the catalogs, with a SHA-256 of each definition. The result
-- is the same on every version of PostgreSQL, and after a restore.
-- The bodies read only catalogs, because auditdb doctor also sends them as they are
-- (operate/release.py) to a database that somebody may have tampered with.

create or replace function audit_private.standing_functions()
returns table (kind text, name text, sha256 text, object text, undo text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'function',
        format('%s.%I(%s) returns %s', p.pronamespace::regnamespace, p.proname,
            pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)),
        encode(sha256(convert_to(jsonb_build_array(l.lanname, p.prokind, p.provolatile, p.prosecdef,
            p.proisstrict, p.proparallel, p.proleakproof, p.procost, p.prorows, p.prosupport::text,
            array(select c from unnest(p.proconfig) as c order by c collate "C"),
            p.prosrc, pg_get_function_sqlbody(p.oid))::text, 'UTF8')), 'hex'),
        p.oid::regprocedure::text,
        format('drop routine %s', p.oid::regprocedure)
    from pg_proc as p join pg_language as l on l.oid = p.prolang
    where p.pronamespace = any ('{audit,audit_private}'::regnamespace[]);
$$;
comment on function audit_private.standing_functions is
    'The functions of the log';

-- PostgreSQL 15 prints the table before each column of a view of one table; later versions do not.
create or replace function audit_private.standing_relations()
returns table (kind text, name text, sha256 text, object text, undo text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'relation', c.oid::regclass::text,
        encode(sha256(convert_to(jsonb_build_array(c.relkind, (
                select jsonb_object_agg(a.attname, jsonb_build_array(
                    format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                    a.attgenerated, pg_get_expr(d.adbin, d.adrelid)))
                from pg_attribute as a
                    left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
                where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
            regexp_replace(pg_get_viewdef(c.oid), '[[:<:]](e|log)[.]', '', 'g'))::text,
            'UTF8')), 'hex'),
        c.oid::regclass::text, null
    from pg_class as c
    where c.relnamespace = any ('{audit,audit_private}'::regnamespace[])
        and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition;
$$;
comment on function audit_private.standing_relations is
    'The tables and views of the log, without its partitions';

-- The indexes of partitions are created with those of their parent.
create or replace function audit_private.standing_indexes()
returns table (kind text, name text, sha256 text, object text, undo text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'index', format('%s on %s', i.indexrelid::regclass, i.indrelid::regclass),
        encode(sha256(convert_to(jsonb_build_array(pg_get_indexdef(i.indexrelid), i.indisprimary,
            i.indisexclusion, i.indimmediate)::text, 'UTF8')), 'hex'),
        i.indrelid::regclass::text,
        coalesce('alter table ' || k.conrelid::regclass || ' drop constraint '
            || quote_ident(k.conname), 'drop index ' || i.indexrelid::regclass)
    from pg_index as i
        join pg_class as c on c.oid = i.indrelid and not c.relispartition
        left join pg_constraint as k on k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x')
    where c.relnamespace = any ('{audit,audit_private}'::regnamespace[]);
$$;
comment on function audit_private.standing_indexes is
    'The indexes of the log, without those of its partitions';

create or replace function audit_private.standing_policies()
returns table (kind text, name text, sha256 text, object text, undo text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'policy', format('%I on %s', p.polname, p.polrelid::regclass),
        encode(sha256(convert_to(jsonb_build_array(p.polcmd, p.polpermissive,
            array(select case r when 0 then 'public' else r::regrole::text end collate "C"
                from unnest(p.polroles) as r order by 1),
            pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))::text,
            'UTF8')), 'hex'),
        p.polrelid::regclass::text, format('drop policy %I on %s', p.polname, p.polrelid::regclass)
    from pg_policy as p join pg_class as c on c.oid = p.polrelid
    where c.relnamespace = any ('{audit,audit_private}'::regnamespace[]);
$$;
comment on function audit_private.standing_policies is
    'The policies of row-level security on the log';

create or replace function audit_private.standing_grants()
returns table (kind text, name text, sha256 text, object text, undo text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'grant', format('%s on %s to %s', g.privilege, o.object, g.name), '-', o.object,
        format('revoke %s on %s from %s', g.privilege, o.object, g.name)
    from (
        select 'schema ' || oid::regnamespace, null::name, nspowner, nspacl
        from pg_namespace where nspname in ('audit', 'audit_private')
        union all
        select case relkind when 'S' then 'sequence ' else 'table ' end || oid::regclass,
            null, relowner, relacl
        from pg_class where relnamespace = any ('{audit,audit_private}'::regnamespace[])
        union all
        select 'table ' || attrelid::regclass, attname, relowner, attacl
        from pg_attribute join pg_class as c on c.oid = attrelid
        where relnamespace = any ('{audit,audit_private}'::regnamespace[])
        union all
        select 'function ' || oid::regprocedure, null, proowner,
            coalesce(proacl, acldefault('f', proowner))
        from pg_proc where pronamespace = any ('{audit,audit_private}'::regnamespace[])
        union all
        select 'type ' || t.oid::regtype, null, typowner,
            coalesce(typacl, acldefault('T', typowner))
        from pg_type as t join pg_class as c on c.oid = t.typrelid
        where typnamespace = any ('{audit,audit_private}'::regnamespace[]) and c.relkind = 'c'
    ) as o (object, part, owner, acl)
        cross join lateral aclexplode(o.acl) as x
        cross join lateral (
            select case x.grantee when 0 then 'public' else x.grantee::regrole::text end,
                concat(x.privilege_type, ' (' || o.part || ')')
        ) as g (name, privilege)
    where x.grantee <> o.owner and x.grantee <> 'audit_owner'::regrole;
$$;
comment on function audit_private.standing_grants is
    'Every privilege on the log that a role other than its owner holds';

create or replace function audit_private.standing_defaults()
returns table (kind text, name text, sha256 text, object text, undo text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'grant', format('%s on %s to %s', x.privilege_type, o.object, g.name), '-', o.object,
        format('alter default privileges for role %s%s revoke %s on %s from %s', r.oid::regrole,
            ' in schema ' || nullif(d.schema, 0)::regnamespace, x.privilege_type, k.plural,
            g.name)
    from (
        select defaclrole, defaclobjtype::text, defaclnamespace, defaclacl from pg_default_acl
        union all
        -- Without an access list, everybody may execute a function.
        select a.oid, 'f', 0, acldefault('f', a.oid)
        from pg_roles as a
        where a.rolname = 'audit_owner' and not exists (
            select from pg_default_acl
            where defaclrole = a.oid and defaclobjtype = 'f' and defaclnamespace = 0)
    ) as d (owner, kind, schema, acl)
        join pg_roles as r on r.oid = d.owner and r.rolname in ('audit_owner', 'audit_mapper')
        join (values ('r', 'tables'), ('S', 'sequences'), ('f', 'functions'), ('T', 'types'),
            ('n', 'schemas')) as k (kind, plural) on k.kind = d.kind
        cross join lateral (
            select format('future %s of %s', k.plural, r.oid::regrole)) as o (object)
        cross join lateral aclexplode(d.acl) as x
        cross join lateral (
            select case x.grantee when 0 then 'public' else x.grantee::regrole::text end
        ) as g (name)
    where x.grantee <> r.oid and x.grantee <> 'audit_owner'::regrole;
$$;
comment on function audit_private.standing_defaults is
    'Default privileges that future objects would get';

-- Pins the settings that change how PostgreSQL prints definitions, constants and names.
create or replace function audit_private.standing()
returns table (kind text, name text, sha256 text, object text, undo text)
language sql stable set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off set standard_conforming_strings = on set bytea_output = 'hex'
set datestyle = 'ISO' set intervalstyle = 'postgres' set timezone = 'UTC' set extra_float_digits = 1
set xmlbinary = 'base64' set row_security = on
as $$
    select * from audit_private.standing_functions()
    union all select * from audit_private.standing_relations()
    union all select * from audit_private.standing_indexes()
    union all select * from audit_private.standing_policies()
    union all select * from audit_private.standing_grants()
    union all select * from audit_private.standing_defaults();
$$;
comment on function audit_private.standing is
    'What the log consists of: functions, tables, views, indexes, policies and privileges';
