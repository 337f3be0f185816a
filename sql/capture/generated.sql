-- Generated: the functions that one attached table must have, by the mapping in force.
-- audit_private.generate() writes this list, and audit.doctor() compares with it.

create or replace function audit_private.generated(id int)
returns table (
    name text, arguments text, returns text, volatility text, settings text[], body text,
    purpose text
)
language sql stable rows 6 set search_path = pg_catalog, pg_temp
as $$
    with a as materialized (
        select t.id, t.target, t.kind, m.mapping, m.mapping -> 'raw' <> '[]' as is_raw,
            case when (m.mapping ->> 'settings')::boolean then pins else '{}' end as settings,
            pins || '{row_security=on}'::text[] as all_settings,
            -- Without the name of the table, which may contain any text: the comment has it.
            E'\n-- Generated: audit.attach() writes it again.\n#variable_conflict use_variable'
                as pragma
        from audit_private.attachment as t
            cross join lateral (
                select audit_private.complete_mapping(t.target, t.kind, t.mapping)
                    || jsonb_build_object('id', t.id)
                offset 0  -- evaluate once
            ) as m (mapping)
            cross join cast('{TimeZone=UTC,DateStyle=ISO,IntervalStyle=postgres,'
                'extra_float_digits=1,bytea_output=hex,lc_monetary=C}' as text[]) as pins
        where t.id = generated.id
    )
    -- Declared IMMUTABLE, although it is not: PL/pgSQL then keeps the snapshot of the statement. So
    -- a deleted team can still be read when its memberships go by cascade.
    select 'read_' || id, 'r anyelement', 'text[]', 'immutable', settings,
        audit_private.read_code(mapping), 'What audit_mapper reads of a row'
    from a where kind <> 'admin' and is_raw
    union all
    select 'organization_' || id, 'r anyelement', 'text', 'volatile', settings,
        audit_private.as_mapper(
            format(E'    return (%s\n    )::text;', mapping ->> 'organization')),
        'Organisation of a row, by a fresh snapshot'
    from a where kind <> 'admin' and mapping -> 'raw' ? 'organization'
    union all
    select format('organization_%s_late', id), 'inputs jsonb', 'text', 'volatile', settings,
        audit_private.late_code(mapping), 'Organisation of a row that was put aside'
    from a where kind <> 'admin' and mapping -> 'late' <> '[]'
    union all
    -- Declared IMMUTABLE for the same reason: it reads by the snapshot of the statement.
    select 'fall_back_' || id, 'op text, old anyelement, new anyelement, reason text', 'jsonb',
        'immutable', '{}', pragma || audit_private.fallback_code(id, mapping),
        'Fallback for a row'
    from a where kind <> 'admin'
    union all
    select format('capture_%s_%s', id, lower(op)), '', 'trigger', 'volatile', settings,
        pragma || audit_private.capture_code(id, mapping, op), 'Captures ' || op
    from a cross join unnest('{INSERT,UPDATE,DELETE}'::text[]) as op where kind <> 'admin'
    union all
    select 'baseline_' || id, 'old anyelement, new anyelement', 'jsonb', 'volatile',
        settings || '{row_security=on}', pragma || audit_private.baseline_code(id, kind, mapping),
        'Records a row that is there already'
    from a where kind <> 'admin'
    union all
    select 'image_' || id, 'old anyelement, new anyelement', 'jsonb', 'stable',
        all_settings, pragma || audit_private.row_code(id, mapping),
        'Says what capture would of a row'
    from a where kind <> 'admin'
    union all
    select format('capture_%s_truncate', id), '', 'trigger', 'volatile', '{row_security=on}',
        audit_private.truncate_code(kind), 'Captures TRUNCATE'
    from a where kind <> 'admin'
    union all
    select 'capture_' || id, '', 'trigger', 'volatile', '{}',
        audit_private.former_code(id, kind, mapping), 'Captures changes'
    from a where kind <> 'admin' and exists (
        select from pg_trigger
        where tgfoid = to_regprocedure(format('audit_private.capture_%s()', a.id)))
    union all
    select 'admin_' || id, 'organization text, viewer text', 'boolean', 'stable', '{}',
        audit_private.admin_code(target, mapping), 'Whether a user is an admin or owner, by a row'
    from a where mapping ? 'admin'
    union all
    select format('admin_%s_exists', id), '', 'boolean', 'stable', '{}',
        audit_private.admin_exists_code(target, mapping), 'Whether anybody is an admin, by a row'
    from a where mapping ? 'admin';
$$;
comment on function audit_private.generated is
    'The functions that an attached table must have: '
    'each with its body, its settings, and the text of its comment';

create or replace function audit_private.generated_for(name text) returns text
language sql immutable
return substring(generated_for.name,
    'audit_private[.](?:capture|baseline|image|fall_back|read|organization|admin)_([0-9]+)[_(]');
comment on function audit_private.generated_for is
    'The id of the attached table that a generated function belongs to, by the signature of the '
    'function or by the text of a grant on it';

-- Finds them by ranges of names, which use the index of pg_proc.
create or replace function audit_private.functions_of(id int) returns setof regprocedure
language sql stable rows 6 set search_path = pg_catalog, pg_temp
as $$
    select p.oid
    from unnest('{capture,baseline,image,fall_back,read,organization,admin}'::text[]) as what
        cross join cast(format('%s_%s', what, functions_of.id) as text) as name
        join pg_proc as p on p.proname >= name::name and p.proname < (name || '{')::name
    where p.pronamespace = any ('{audit,audit_private}'::regnamespace[])
        and p.proname ~ format('^%s(_[a-z]+)?$', name);
$$;
comment on function audit_private.functions_of is
    'The generated functions of an attached table';
