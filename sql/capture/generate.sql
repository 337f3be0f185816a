-- Generation: writes the functions of one attached table. Each operation gets a trigger function,
-- audit_private.capture_<id>_<operation>, which runs as audit_owner. It meets code of the
-- application only through functions that run as audit_mapper.

-- Variables take the types of columns: PL/pgSQL keeps 2 kB for each type name that it parses.
create or replace function audit_private.variables_code(id int, mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select string_agg(format(E'\n    _%s audit.event.%s%%type;', name, coalesce(type, name)), ''
        order by n)
    from unnest(
        '{context,action,organization,former,target_id,subject,old,new,details,handed,
            said}'::text[],
        '{details,null,organization_id,organization_id,null,subject_id,old_values,new_values,null,
            details,details}'::text[])
        with ordinality as v (name, type, n)
    where case name
        when 'action' then audit_private.action_name(mapping, op) = '_action'
        when 'subject' then not audit_private.is_plain_name(mapping, 'subject')
        when 'target_id' then not audit_private.is_plain_name(mapping, 'target_id')
        when 'organization' then audit_private.whose_name(id, mapping, op) = '_organization'
        when 'former' then op = 'UPDATE' and audit_private.former_name(mapping) = '_former'
        when 'handed' then op = 'UPDATE' and audit_private.handed_parts(mapping) <> '{}'
        when 'old' then op <> 'INSERT'
        when 'new' then op <> 'DELETE'
        else true end
) || concat(
    case when mapping ? 'baseline' then format($sql$
    -- Raises unless the owner of the table asked for it in this transaction.
    _table text[] := audit_private.baselined_table(%s, pg_typeof(new)::oid);
    tg_table_schema text := _table[1];
    tg_table_name text := _table[2];
    tg_op text := 'INSERT';$sql$, id) end,
    case when mapping -> 'raw' <> '[]' then E'\n    _is_read boolean;' end,
    case when mapping -> 'raw' <> '[]' and op <> 'INSERT' then E'\n    _before text[];' end,
    case when mapping -> 'raw' <> '[]' and op <> 'DELETE' then E'\n    _after text[];' end,
    case when audit_private.foreign_code(mapping) is not null then E'\n    _locks text[];' end);
comment on function audit_private.variables_code is
    'Generated declarations of a trigger function';

-- The context is read before any code of the application runs, and after the early return for
-- updates that change only ignored columns.
create or replace function audit_private.reading_code(id int, mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select concat(
        case when not is_late then shown || case when op = 'UPDATE' then $sql$
        if _new is null then
            return null;
        end if;$sql$ else '' end
        when op = 'UPDATE' then audit_private.unchanged_code(mapping) end,
        E'\n        -- Who acts, and from where.\n        _context := ', case
            when mapping ? 'baseline' then 'audit_private.baseline_context();'
            else 'nullif(current_setting(''auditdb.context'', true), '''')::jsonb;' end,
        E'\n        _locks := case when ' || audit_private.foreign_code(mapping)
            || ' then audit_private.held_locks() end;',
        audit_private.read_call_code(id, mapping, op),
        case when is_late then shown end)
    from audit_private.values_code(mapping, op) as shown
        -- For columns that audit_mapper reads, and for whole rows.
        cross join cast(mapping ? 'whole' or mapping -> 'raw' @? '$[*] ? (@ starts with "column ")'
            as boolean) as is_late
);
comment on function audit_private.reading_code is
    'Generated code that reads the values, the context, and what audit_mapper has to read';

create or replace function audit_private.rescue_code(id int, mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select concat(
        case when is_foreign then $sql$
        when query_canceled then$sql$ || release || $sql$
            raise;$sql$ end,
        $sql$
        when assert_failure or others then$sql$,
        case when is_foreign then release end,
        -- Tests a variable, not the SQLSTATE: code of the application may raise AU001, too.
        case when is_raw then E'\n            if _is_read is null then'
            || replace(rescue, E'\n', E'\n    ') || E'\n            end if;' else rescue end)
    from (
        select mapping -> 'raw' <> '[]' as is_raw,
            audit_private.foreign_code(mapping) is not null as is_foreign,
            $sql$
            if _locks is not null then
                perform audit_private.release_locks(_locks);
            end if;$sql$ as release,
            format($sql$
            _said := audit_private.fall_back_%s(tg_op, old, new, sqlstate);%s
            perform audit_private.append_said(_said, tg_table_schema || '.' || tg_table_name);
            return null;$sql$, id, case when mapping ? 'baseline' then format(
                E'\n            _said := _said || %L;', jsonb_build_object(
                    'op', 'BASELINE', 'action', mapping -> 'baseline')) end) as rescue
    ) as t
);
comment on function audit_private.rescue_code is
    'Generated code for a row that could not be read; '
    'it runs outside of the subtransaction that failed';

-- The code between begin and end is the same for all tables and operations: a guarded block makes
-- the event and writes nothing; the fallback follows if it raised; the INSERT comes after it.
-- Each session keeps its plans for each table: about 11 kB per statement that ran. That is why
-- statements are few, and the code that all tables share is in audit_private.append.
create or replace function audit_private.capture_code(id int, mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return format($sql$
declare%s
begin
    begin%s%s
        -- What was done, to what, and whose it is.%s%s%s%s
    exception%s
    end;%s
end$sql$,
    audit_private.variables_code(id, mapping, op),
    audit_private.shape_code(mapping, case op when 'DELETE' then 'old' else 'new' end),
    audit_private.reading_code(id, mapping, op),
    audit_private.names_code(mapping, op),
    audit_private.whose_code(id, mapping, op),
    audit_private.details_code(mapping, op),
    -- Rolled back, so that nothing that code of the application sets or does remains.
    case when mapping -> 'raw' <> '[]' then $sql$
        _is_read := true;
        raise sqlstate 'AU001';$sql$ end,
    audit_private.rescue_code(id, mapping),
    audit_private.insert_code(id, mapping, op)
);
comment on function audit_private.capture_code is
    'Body of audit_private.capture_<id>_<operation>, the trigger function of an attached table';

-- An existing row is captured like its INSERT, under an action of its own.
create or replace function audit_private.baseline_code(id int, kind text, mapping jsonb)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return audit_private.capture_code(id, mapping || jsonb_build_object(
    'baseline', kind || '.baseline', 'facts', '[]'::jsonb,
    'verbs', jsonb_build_object('changed', kind || '.baseline')), 'INSERT');
comment on function audit_private.baseline_code is
    'Body of audit_private.baseline_<id>, to which the owner of a table passes its rows';

create or replace function audit_private.truncate_code(kind text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return format($sql$
begin
    return audit_private.append(%L, left(audit.current_context() ->> 'organization_id', 200),
        null, null, null, tg_table_schema || '.' || tg_table_name, null, null, null,
        audit.current_context());
end$sql$, kind || '.truncated');
comment on function audit_private.truncate_code is
    'Body of audit_private.capture_<id>_truncate, which records that a table was truncated';

-- For triggers of a former release, which call one function for all operations.
create or replace function audit_private.former_code(id int, kind text, mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return format(E'\n#variable_conflict use_variable\nbegin\n    if tg_op = ''INSERT'' then%s;\n'
    '    elsif tg_op = ''UPDATE'' then%s;\n    elsif tg_op = ''DELETE'' then%s;\n    else%s;\n'
    '    end if;\n    return null;\nend',
    audit_private.capture_code(id, mapping, 'INSERT'),
    audit_private.capture_code(id, mapping, 'UPDATE'),
    audit_private.capture_code(id, mapping, 'DELETE'),
    audit_private.truncate_code(kind));
comment on function audit_private.former_code is
    'Body of audit_private.capture_<id>, for triggers that a former release made';

-- The live check behind every read: is this user an admin or owner of the organisation now?
create or replace function audit_private.admin_code(target regclass, mapping jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _subject text := admin_code.mapping ->> 'subject';
    _type text;
begin
    -- Compares in the column's own type, so that its index is used.
    select format_type((type).oid, -1) into _type
    from audit_private.own_columns(admin_code.target)
    where 'r.' || quote_ident(name) = _subject;
    -- $1 and $2, because the names organization and viewer could also be columns.
    return audit_private.as_mapper(format(E'    return exists (\n'
        '        select from %s as r\n        where (%s\n) = ($2)%s and ((%s\n)::text) = $1\n'
        '            and (%s\n) and (%s\n)\n    );',
        admin_code.target,
        case when _type is null then '(' || _subject || E'\n)::text' else _subject end,
        coalesce('::' || _type, ''),
        admin_code.mapping ->> 'organization',
        coalesce(admin_code.mapping ->> 'alive', 'true'),
        admin_code.mapping ->> 'admin'));
end
$$;
comment on function audit_private.admin_code is
    'Body of audit_private.admin_<id>: whether a membership makes its user an admin or owner';

-- For the doctor: null if the table is empty.
-- Of more than ten thousand rows, some may make an admin.
create or replace function audit_private.admin_exists_code(target regclass, mapping jsonb)
returns text
language sql immutable set search_path = pg_catalog, pg_temp
return audit_private.as_mapper(format(E'    if exists (\n        select from (\n'
    '            select (%2$s\n) and (%3$s\n) and num_nulls((%4$s\n), (%5$s\n)) = 0 as found\n'
    '            from %1$s as r limit 10000\n        ) as p where p.found\n    ) then\n'
    '        return true;\n    end if;\n'
    '    return (select nullif(count(*), 0) >= 10000 from (select from %1$s limit 10000) as p);',
    target, coalesce(mapping ->> 'alive', 'true'), mapping ->> 'admin',
    mapping ->> 'organization', mapping ->> 'subject'));
comment on function audit_private.admin_exists_code is
    'Body of audit_private.admin_<id>_exists: whether any row makes somebody an admin or owner';

create or replace function audit_private.is_of_mapper(name text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return is_of_mapper.name
    ~ '^((read|organization|admin)_[0-9]+(_(exists|late))?|rescue|examine|try_expression)$';
comment on function audit_private.is_of_mapper is
    'Whether a function of this name belongs to audit_mapper, because code of the application may '
    'run in it';

create or replace function audit_private.define(
    name text, arguments text, returns text, volatility text, body text, purpose text
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _f record;
begin
    execute format('create or replace function audit_private.%I(%s) returns %s language plpgsql %s '
        'security definer set search_path = pg_catalog, pg_temp%s as %L',
        name, arguments, returns, volatility,
        -- Only these functions hold text of a mapping, and turn nested bytes into text; each
        -- setting costs time at every row.
        case when audit_private.is_of_mapper(define.name)
            then ' set standard_conforming_strings = on set bytea_output = hex' end, body);
    select oid, proacl into _f from pg_proc
    where pronamespace = 'audit_private'::regnamespace and proname = define.name;
    -- Only if needed: each statement writes a new version of the function's row.
    if _f.proacl is null or exists (select from aclexplode(_f.proacl) where grantee = 0) then
        execute format('revoke all on function audit_private.%I from public', name);
    end if;
    if obj_description(_f.oid, 'pg_proc') is distinct from purpose then
        execute format('comment on function audit_private.%I is %L', name, purpose);
    end if;
end
$$;
comment on function audit_private.define is
    'Creates or replaces a generated function that PUBLIC may not execute';

-- The new owner of a function needs CREATE on the schema for a moment. Changing the schema makes
-- the session plan every query again, so this is skipped if audit_mapper owns all of them already.
create or replace function audit_private.give_to_mapper(functions regprocedure[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _f regprocedure;
begin
    if exists (
        select from pg_proc
        where oid = any (functions) and proowner <> 'audit_mapper'::regrole)
    then
        grant create on schema audit_private to audit_mapper;
        foreach _f in array functions loop
            execute format('alter function %s owner to audit_mapper', _f);
        end loop;
        revoke create on schema audit_private from audit_mapper;
    end if;
    foreach _f in array functions loop
        execute format('grant execute on function %s to audit_owner', _f);
    end loop;
end
$$;
comment on function audit_private.give_to_mapper is
    'Makes audit_mapper the owner of functions that may run code of the application';

create or replace function audit_private.drop_function(signature text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regprocedure(signature) is not null then
        execute 'drop function ' || to_regprocedure(signature);
    end if;
end
$$;
comment on function audit_private.drop_function is
    'Drops a generated function if it exists, without a notice if it does not';

create or replace function audit_private.generate(id int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _of text := (
        select format(' of %s (attached as %s)', a.target::regclass, a.kind)
        from audit_private.attachment as a where a.id = generate.id);
    _names text[] := '{}';
    _f record;
begin
    for _f in select * from audit_private.generated(generate.id) loop
        _names := _names || _f.name;
        perform audit_private.define(_f.name, _f.arguments, _f.returns, concat(_f.volatility, (
            select string_agg(
                format(' set %s = %L', split_part(s, '=', 1), split_part(s, '=', 2)), '')
            from unnest(_f.settings) as s)), _f.body, _f.purpose || _of);
    end loop;
    perform audit_private.give_to_mapper(array(
        select f from audit_private.functions_of(generate.id) as f join pg_proc as p on p.oid = f
        where pronamespace = 'audit_private'::regnamespace and proname = any (_names)
            and audit_private.is_of_mapper(proname)));
    -- Only the owner of the table calls it: the function checks the caller.
    if 'baseline_' || generate.id = any (_names) then
        execute format('grant execute on function audit_private.baseline_%s to audit_operator',
            generate.id);
        execute format('grant execute on function audit_private.image_%s to audit_auditor',
            generate.id);
    end if;
    -- Functions that the table no longer needs.
    perform audit_private.drop_function(f::text)
    from audit_private.functions_of(generate.id) as f join pg_proc as p on p.oid = f
    where pronamespace = 'audit_private'::regnamespace and proname <> all (_names);
end
$$;
comment on function audit_private.generate is
    'Writes the functions of an attached table, or writes them again';
