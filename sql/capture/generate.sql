-- Generation: the functions of one attached table, put together and written. For each operation a
-- trigger function of its own, audit_private.capture_<id>_<operation>, which runs as audit_owner and meets
-- code of the application only through what runs as audit_mapper.

-- Policies may come to a table that is looked up, and casts to an enum, after the code was written.
create or replace function audit_private.foreign_code(mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case
    when mapping -> 'raw' = '[]' then null
    when (mapping -> 'is_foreign')::boolean then 'true'
    else (
        select string_agg(code, ' or ' order by code)
        from (
            -- By their names: oids are others in a database that was restored.
            select format('row_security_active(%L)', key)
            from jsonb_each(mapping #> '{checked,reads}')
            union all
            select format('exists (select from pg_cast where castsource = %L::regtype)', enum)
            from jsonb_array_elements_text(mapping #> '{checked,enums}') as enum
        ) as c (code)
    ) end;
comment on function audit_private.foreign_code(jsonb) is
    'Generated condition: what audit_mapper reads may run code of the application; null if never';

-- What stands between begin and end is the same for every table and operation: make the event in a
-- guarded block that writes nothing, fall back where that raised, insert outside of it.
create or replace function audit_private.capture_code(
    id int, target regclass, mapping jsonb, op text
) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format($sql$
declare
    _captured_from text := tg_table_schema || '.' || tg_table_name;
    _reason text;
    _said jsonb;
    _context jsonb;
    _actor_id text;
    _actor_type text;
    _impersonator_id text;
    _source text;
    _details jsonb;
    _organization text;
    _action text;
    _target_id text;
    _subject text;
    _old jsonb;
    _new jsonb;%s
begin
    begin%s%s%s%s%s
        -- What was done, to what, and whose it is.
        _action := %s;%s%s%s%s
    exception%s
        when assert_failure or others then
            _action := null;
            _reason := sqlstate;
    end;%s
    if _action is null then
        _said := audit_private.fall_back(%s, tg_op, old, new, _reason, %L);
        if _said is not null then
            perform audit_private.append_said(_said, _captured_from);
            return null;
        end if;%s
    end if;%s
end$sql$,
        concat(
            case when op = 'UPDATE' then E'\n    _former text;' end,
            case when is_raw and op <> 'INSERT' then E'\n    _before text[];' end,
            case when is_raw and op <> 'DELETE' then E'\n    _after text[];' end,
            case when is_raw then E'\n    _is_read boolean := false;' end,
            case when foreign_if is not null then E'\n    _locks text[];' end),
        audit_private.who_code(),
        audit_private.shape_code(target, case op when 'DELETE' then 'old' else 'new' end),
        case when op = 'UPDATE' and (is_raw or mapping ? 'whole')
            then audit_private.unchanged_code(target, mapping) end,
        concat(case when foreign_if is not null then format(
                E'\n        _locks := case when %s then audit_private.held_locks() end;', foreign_if) end,
            audit_private.read_call_code(id, target, mapping, op)),
        audit_private.values_code(target, mapping, op)
            || case when op = 'UPDATE' and not (is_raw or mapping ? 'whole') then $sql$
        if _new = '{}' then
            return null;
        end if;$sql$ else '' end,
        audit_private.action_code(mapping, op),
        audit_private.whose_code(id, target, mapping, op),
        audit_private.names_code(mapping, op),
        audit_private.details_code(mapping, op),
        -- Rolled back, so that nothing which code of the application sets or does outlives it.
        case when is_raw then $sql$
        _is_read := true;
        raise exception using errcode = 'AU001';$sql$ end,
        case when is_raw then $sql$
        when sqlstate 'AU001' then
            -- Code of the application may raise it too, before.
            if not _is_read then
                _action := null;
                _reason := sqlstate;
            end if;$sql$ end || case when foreign_if is not null then $sql$
        when query_canceled then
            if _locks is not null then
                perform audit_private.release_locks(_locks);
            end if;
            raise;$sql$ else '' end,
        case when foreign_if is not null then $sql$
    if _locks is not null then
        perform audit_private.release_locks(_locks);
    end if;$sql$ end,
        id, audit_private.said_mapping(mapping),
        audit_private.last_code(target, mapping, op),
        audit_private.insert_code(mapping, op)
    )
    from (
        select mapping -> 'raw' <> '[]' as is_raw, audit_private.foreign_code(mapping) as foreign_if
    ) as t
);
comment on function audit_private.capture_code(int, regclass, jsonb, text) is
    'Body of audit_private.capture_<id>_<operation>, the trigger function of an attached table';

create or replace function audit_private.truncate_code(kind text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return format($sql$
begin
    perform audit_private.append(%L, left(audit.current_context() ->> 'organization_id', 200), null, null,
        null, null, tg_table_schema || '.' || tg_table_name, null, null, null,
        audit.current_context());
    return null;
end$sql$, kind || '.truncated');
comment on function audit_private.truncate_code(text) is
    'Body of audit_private.capture_<id>_truncate: all rows of a table went at once';

-- Where triggers of a former release still call the one function that they shared.
create or replace function audit_private.former_code(id int, target regclass, kind text, mapping jsonb)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return format(E'\n#variable_conflict use_variable\nbegin\n    if tg_op = ''INSERT'' then%s;\n'
    '    elsif tg_op = ''UPDATE'' then%s;\n    elsif tg_op = ''DELETE'' then%s;\n    else%s;\n'
    '    end if;\n    return null;\nend',
    audit_private.capture_code(id, target, mapping, 'INSERT'),
    audit_private.capture_code(id, target, mapping, 'UPDATE'),
    audit_private.capture_code(id, target, mapping, 'DELETE'),
    audit_private.truncate_code(kind));
comment on function audit_private.former_code(int, regclass, text, jsonb) is
    'Body of audit_private.capture_<id>, which triggers made by a former release call';

-- The live check behind every read: is this user an admin or owner there, now?
create or replace function audit_private.admin_code(target regclass, mapping jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _subject text := admin_code.mapping ->> 'subject';
    _type text;
begin
    -- Compared in the column's own type, so that its index serves.
    select format_type((type).oid, -1) into _type
    from audit_private.own_columns(admin_code.target)
    where 'r.' || quote_ident(name) = _subject;
    -- $1 and $2: by name they would be ambiguous beside columns called organization and viewer.
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
comment on function audit_private.admin_code(regclass, jsonb) is
    'Body of audit_private.admin_<id>: whether a membership makes its user an admin or owner';

create or replace function audit_private.is_of_mapper(name text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return is_of_mapper.name ~ '^((read|organization|admin)_[0-9]+|rescue|examine|try_expression)$';
comment on function audit_private.is_of_mapper(text) is
    'Whether a function of this name belongs to audit_mapper, since code of the application may '
    'run in it';

create or replace function audit_private.define(
    name text, arguments text, returns text, volatility text, body text, purpose text
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('create or replace function audit_private.%I(%s) returns %s language plpgsql %s '
        'security definer set search_path = pg_catalog, pg_temp%s as %L',
        name, arguments, returns, volatility,
        -- Only these hold text of a mapping, and turn bytes that are within a value into text; each
        -- setting costs time at every row.
        case when audit_private.is_of_mapper(define.name)
            then ' set standard_conforming_strings = on set bytea_output = hex' end, body);
    execute format('revoke all on function audit_private.%I from public', name);
    execute format('comment on function audit_private.%I is %L', name, purpose);
    if audit_private.is_of_mapper(define.name) then
        execute format('alter function audit_private.%I owner to audit_mapper', name);
        execute format('grant execute on function audit_private.%I to audit_owner', name);
    end if;
end
$$;
comment on function audit_private.define(text, text, text, text, text, text) is
    'Creates or replaces a generated function, closed to PUBLIC';

create or replace function audit_private.drop_function(signature text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regprocedure(signature) is not null then
        execute 'drop function ' || to_regprocedure(signature);
    end if;
end
$$;
comment on function audit_private.drop_function(text) is
    'Drops a generated function if it is there, without a word if it is not';

create or replace function audit_private.define_capture(
    id int, target regclass, kind text, mapping jsonb, purpose text
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _op text;
    -- Without the name of the table, which may hold anything: the comment of the function has it.
    _pragma constant text := E'\n-- Generated: audit.attach() writes it again.'
        '\n#variable_conflict use_variable';
    _settings constant text := case when (mapping ->> 'settings')::boolean then
        $sql$ set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
        set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C'$sql$ else '' end;
begin
    if mapping -> 'raw' <> '[]' then
        -- IMMUTABLE is not what it is: PL/pgSQL leaves the snapshot of the statement in force for
        -- it. A team that a statement deletes is still there when its memberships go by cascade.
        perform audit_private.define('read_' || id, 'r anyelement', 'text[]', 'immutable' || _settings,
            audit_private.read_code(target, mapping), 'What audit_mapper reads of a row' || purpose);
    else
        perform audit_private.drop_function(format('audit_private.read_%s(anyelement)', id));
    end if;
    if mapping -> 'raw' ? 'organization' then
        perform audit_private.define('organization_' || id, 'r anyelement', 'text', 'volatile' || _settings,
            audit_private.as_mapper(format(E'    return (%s\n    )::text;', mapping ->> 'organization')),
            'Organisation of a row, by a fresh snapshot' || purpose);
    else
        perform audit_private.drop_function(format('audit_private.organization_%s(anyelement)', id));
    end if;
    foreach _op in array '{INSERT,UPDATE,DELETE}'::text[] loop
        perform audit_private.define(format('capture_%s_%s', id, lower(_op)), '', 'trigger', 'volatile' || _settings,
            _pragma || audit_private.capture_code(id, target, mapping, _op),
            format('Captures %s%s', _op, purpose));
    end loop;
    perform audit_private.define(format('capture_%s_truncate', id), '', 'trigger', 'volatile',
        audit_private.truncate_code(kind), 'Captures TRUNCATE' || purpose);
    if exists (
        select from pg_trigger
        where tgfoid = to_regprocedure(format('audit_private.capture_%s()', define_capture.id))
    ) then
        perform audit_private.define('capture_' || id, '', 'trigger', 'volatile',
            audit_private.former_code(id, target, kind, mapping), 'Captures changes' || purpose);
    else
        perform audit_private.drop_function(format('audit_private.capture_%s()', id));
    end if;
end
$$;
comment on function audit_private.define_capture(int, regclass, text, jsonb, text) is
    'Writes the trigger functions of an attached table, and what audit_mapper reads for them';

create or replace function audit_private.generate(id int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _a audit_private.attachment;
    _of text;
begin
    select * into strict _a from audit_private.attachment as a where a.id = generate.id;
    _a.mapping := audit_private.complete_mapping(_a.target, _a.kind, _a.mapping)
        || jsonb_build_object('id', _a.id);
    _of := format(' of %s (attached as %s)', _a.target, _a.kind);
    -- A function given to audit_mapper needs its CREATE for that moment.
    grant create on schema audit_private to audit_mapper;
    if _a.kind <> 'admin' then
        perform audit_private.define_capture(id, _a.target, _a.kind, _a.mapping, _of);
    end if;
    if _a.mapping ? 'admin' then
        perform audit_private.define('admin_' || id, 'organization text, viewer text', 'boolean', 'stable',
            audit_private.admin_code(_a.target, _a.mapping),
            'Whether a user is an admin or owner, by a row' || _of);
    else
        perform audit_private.drop_function(format('audit_private.admin_%s(text, text)', id));
    end if;
    revoke create on schema audit_private from audit_mapper;
end
$$;
comment on function audit_private.generate(int) is
    'Writes, or writes again, the functions of an attached table';
