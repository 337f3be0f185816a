-- Remedies: which options of a mapping still work, and the call that attaches its table again. The
-- call works as it is, or begins with "--" and says what a person must decide.

-- Runs as audit_mapper, with the privileges that capture has, so that missing ones show. It reads
-- no row, and OFFSET keeps the planner from evaluating the columns of r as nulls. The planner still
-- evaluates constants: an immutable function of literals, or the check of a domain. So code of a
-- mapping may run here too, and audit_private.try_mapper rolls back its effects.
create or replace function audit_private.try_expression(target regclass, name text, expression text)
returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
begin
    if current_user operator(pg_catalog.<>) 'audit_mapper'::pg_catalog.name then
        raise exception 'audit_private.try_expression runs as %', current_user;
    end if;
    if not try_expression.expression ~* '\mselect\M' and not has_schema_privilege(
        (select relnamespace from pg_class where oid = try_expression.target), 'usage')
    then
        return null;  -- Capture is handed the row, and so need not be able to name its table.
    end if;
    begin
        execute format(E'select (%s\n)::%s from (select (null::%s).* offset 0) as r limit 0',
            try_expression.expression,
            case when try_expression.name = 'alive' then 'boolean' else 'text' end,
            try_expression.target);
        -- Rolled back, so that nothing that code of the application sets or does remains.
        raise exception using errcode = 'AU001';
    exception
        when sqlstate 'AU001' then return null;
        when assert_failure or others then return sqlerrm;
    end;
end
$$;
-- Definer: expressions of a mapping are evaluated as audit_mapper.
comment on function audit_private.try_expression is
    'Why a mapping expression does not work; null if it works';

-- By name, and guarded: a function of audit_mapper may be gone, and the doctor must report that.
create or replace function audit_private.try_mapper(call text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _locks text[] := audit_private.held_locks();
    _said text;
begin
    begin
        execute 'select ' || try_mapper.call into _said;
        raise exception using errcode = 'AU001';
    exception
        when sqlstate 'AU001' then null;
        when query_canceled then
            perform audit_private.release_locks(_locks);
            raise;
        when assert_failure or others then _said := sqlerrm;
    end;
    perform audit_private.release_locks(_locks);
    return _said;
end
$$;
comment on function audit_private.try_mapper is
    'The result of a function of audit_mapper, or why it cannot be called; '
    'its effects are rolled back';

create or replace function audit_private.attach_command(target text, kind text, given jsonb)
returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select format('select audit.attach(%L, %L%s)', attach_command.target, attach_command.kind,
        coalesce(string_agg(format(', %I => %L', key, case
            when jsonb_typeof(value) = 'array'
                then array(select jsonb_array_elements_text(value))::text
            else value #>> '{}' end), '' order by key), ''))
    from jsonb_each(attach_command.given);
$$;
comment on function audit_private.attach_command is
    'The call that attached a table, as SQL';

create or replace function audit_private.has_column(target regclass, name text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return audit_private.over_row(target, name) <> btrim(name);
comment on function audit_private.has_column is
    'Whether a table has the column that an option names';

-- A table that audit_mapper may no longer read becomes readable when the table is attached again.
create or replace function audit_private.stale_given(target regclass, given jsonb) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(array_agg(key order by key), '{}')
    from jsonb_each(stale_given.given)
    where case
        when jsonb_typeof(value) = 'array' then exists (
            select from jsonb_array_elements_text(value) as item
            where not audit_private.has_column(target, item)
                and not audit_private.has_column(target, regexp_replace(item, '^-', '')))
        when key in ('email', 'password', 'two_factor', 'token')
            then not audit_private.has_column(target, value #>> '{}')
        else coalesce(audit_private.try_mapper(format(
            'audit_private.try_expression(%s::oid::regclass, %L, %L)', target::oid, key,
            audit_private.over_row(target, value #>> '{}'))) not like 'permission denied for %',
            false)
        end
);
comment on function audit_private.stale_given is
    'The options that no longer fit a table: '
    'they name columns that are gone, or their expressions fail';

-- Removing a name from `ignore`, or an exception "-name" from `redact`, loses nothing.
create or replace function audit_private.without_gone(target regclass, given jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(jsonb_object_agg(key, case when jsonb_typeof(value) = 'array' then (
        select coalesce(jsonb_agg(item), '[]') from jsonb_array_elements_text(value) as item
        where audit_private.has_column(target, regexp_replace(item, '^-', ''))
            or audit_private.has_column(target, item)
        ) else value end), '{}')
    from jsonb_each(without_gone.given)
);
comment on function audit_private.without_gone is
    'Options, with the columns that are gone removed from their lists';

-- If a table has new columns, only a person knows which one replaces a redacted column.
create or replace function audit_private.undecided(
    target regclass, mapping jsonb, wanted jsonb, stale text[]
) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
return array(
    select name from unnest(stale) as name
    where case name
        when 'ignore' then false
        when 'redact' then not mapping -> 'columns' @> (wanted -> 'columns') and exists (
            select from jsonb_array_elements_text(mapping #> '{given,redact}') as item
            where item not like '-%' and not audit_private.has_column(target, item))
        when 'admin' then coalesce(wanted ->> name, 'false') = 'false'
        when 'email' then audit_private.fact_column(target, name) is null
        when 'password' then audit_private.fact_column(target, name) is null
        when 'two_factor' then audit_private.fact_column(target, name) is null
        when 'token' then audit_private.token_column(target) is null
        else not wanted ? name
        end
);
comment on function audit_private.undecided is
    'Options that no longer fit a table, and that its columns do not replace either';

create or replace function audit_private.remedy(target regclass, kind text, mapping jsonb)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _stale text[] := audit_private.stale_given(target, mapping -> 'given');
    _kept jsonb := audit_private.without_gone(target, mapping -> 'given')
        - array(select name from unnest(_stale) as name where name not in ('ignore', 'redact'));
    _open text[];
begin
    begin
        _open := audit_private.undecided(target, mapping,
            audit_private.resolve_mapping(target, kind, _kept), _stale);
    exception when others then
        _open := array_remove(_stale, 'ignore');
    end;
    return case
        when _stale = '{}' then null
        when _open = '{}' then audit_private.attach_command(target::text, kind, _kept)
        else format('-- say what %s is now, or leave it out: %s', array_to_string(_open, ', '),
            audit_private.attach_command(target::text, kind, _kept || (
                select jsonb_object_agg(name, case when name in ('ignore', 'redact')
                    then _kept -> name || '["..."]' else '"..."' end)
                from unnest(_open) as name)))
        end;
end
$$;
comment on function audit_private.remedy is
    'The call that attaches a table again without the options that no longer fit: defaults replace '
    'them, or a person must; null if all of them fit';
