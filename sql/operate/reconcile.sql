-- Reconcile: what an auditor must know of an attached table to compare its rows with its events.
-- auditdb reconcile reads both in one snapshot,
-- passes each row to audit_private.image_<id>, and compares the results.

create or replace function audit_private.unquoted(name text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return array_to_string(parse_ident(unquoted.name), '.');
comment on function audit_private.unquoted is
    'The name of a table as it stands in audit.event.captured_from';

-- Present and former names, of the table and of its partitions.
create or replace function audit_private.captured_names(target regclass) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    select jsonb_object_agg(name, is_present)
    from (
        select audit_private.unquoted(name), bool_or(is_present)
        from (
            select audit_private.table_name(t.relid), true
            from pg_partition_tree(captured_names.target) as t
            union all
            select audit_private.table_name(captured_names.target), true
            union all
            select a.name, false
            from audit_private.attachment as a where a.target = captured_names.target
            union all
            select t.fact ->> 'on', false
            from audit_private.attestation as t
            where t.scope = captured_names.target and t.kind in ('table', 'trigger')
                and t.fact ->> 'on' like '%.%'
        ) as n (name, is_present)
        group by 1
    ) as known (name, is_present)
);
comment on function audit_private.captured_names is
    'The names under which changes of a table were captured, and whether each is a present name';

create or replace function audit_private.tells_apart(target regclass, columns text[])
returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return exists (
    select from pg_index as i
    where i.indrelid = tells_apart.target and i.indisunique and i.indisvalid
        and i.indpred is null and i.indexprs is null
        and not exists (
            select from pg_attribute as a
            where a.attrelid = i.indrelid and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])
                and (not a.attnotnull or a.attname <> all (tells_apart.columns))));
comment on function audit_private.tells_apart is
    'Whether no two rows of a table have the same values in some columns';

-- A column with a higher number than a dropped one may be the same column, created again.
create or replace function audit_private.told_columns(target regclass, mapping jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(jsonb_agg(jsonb_build_object(
        'name', a.attname, 'number', a.attnum, 'type', format_type(a.atttypid, a.atttypmod),
        'base', format_type(audit_private.base_type(a.atttypid), null),
        'is_after_gap', exists (
            select from pg_attribute as gone
            where gone.attrelid = a.attrelid and gone.attisdropped and gone.attnum < a.attnum
                and not exists (
                    select from pg_attribute as between_
                    where between_.attrelid = a.attrelid and not between_.attisdropped
                        and between_.attnum > gone.attnum and between_.attnum < a.attnum)),
        'left_out', case
            when a.attgenerated <> '' then 'generated'
            when mapping -> 'ignore' ? a.attname then 'ignored'
            when mapping -> 'redact' ? a.attname then 'redacted' end)
        order by a.attnum), '[]')
    from pg_attribute as a
    where a.attrelid = told_columns.target and a.attnum > 0 and not a.attisdropped
);
comment on function audit_private.told_columns is
    'The columns of an attached table; for those that are not compared with events, the reason';

create or replace function audit_private.told_types(target regclass) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(jsonb_agg(jsonb_build_object(
        'at', t.attested_at, 'types', t.fact -> 'columns', 'numbers', case
            when (t.fact ->> 'catalog')::oid = 'audit'::regnamespace then t.fact -> 'numbers' end)
        order by t.id), '[]')
    from audit_private.attestation as t
    where t.scope = told_types.target and t.kind = 'table' and t.fact ? 'columns'
);
comment on function audit_private.told_types is
    'Which types and numbers the columns of a table had, and when that was attested';

create or replace function audit_private.describe_rows(target regclass) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set row_security = on
as $$
declare
    _a audit_private.attachment;
    _m jsonb;
    _part text;
    _columns text[];
begin
    select * into _a from audit_private.attachment as a
    where a.target = describe_rows.target and audit_private.is_there(a.target, a.row_type);
    if _a.id is null or _a.kind = 'admin' then
        return null;
    end if;
    _m := audit_private.complete_mapping(target, _a.kind, _a.mapping);
    _part := audit_private.row_part(_m);
    _columns := audit_private.named_columns(_m, _m ->> _part);
    return jsonb_build_object(
        'id', _a.id, 'kind', _a.kind, 'name', audit_private.table_name(target),
        'names', audit_private.captured_names(target), 'part', _part,
        'columns', audit_private.told_columns(target, _m),
        'types', audit_private.told_types(target),
        -- Null if an expression identifies the row, because its value may be different tomorrow.
        'key', case when array_position(_columns, null) is null then to_jsonb(_columns) end,
        'is_secret', coalesce(_m -> 'digest' ? _part, false),
        'is_unique', coalesce(audit_private.tells_apart(target, _columns), false),
        'is_partitioned', (select relkind = 'p' from pg_class where oid = describe_rows.target),
        'target_type', _m -> 'target_type',
        'is_baselined', coalesce(_a.baseline ? 'ended_at', false),
        'may_begin_untold', _m ? 'alive' and _m #>> '{verbs,prepared}' = '',
        'may_end_untold', _m ? 'alive' and _m #>> '{verbs,purged}' = '',
        'may_be_handed_off', _m ? 'alive' and audit_private.handed_parts(_m) <> '{}');
end
$$;
-- Definer: only the log knows how a mapping is completed; the result contains no value.
comment on function audit_private.describe_rows is
    'What identifies the rows of an attached table and their events, and which values are '
    'compared; null for a table that is not captured';
