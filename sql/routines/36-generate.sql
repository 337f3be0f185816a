-- Generation: the functions of one attached table, written from its mapping.
-- Whatever touches a row's values or runs a mapping expression does so as audit_mapper, which may read
-- mapped columns and nothing else: application code that it meets there never runs as audit_owner.

-- One changed column: named only if it differs, so that an update costs what it changes.
create or replace function audit.column_diff(target regclass, mapping jsonb, attnum int2) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format(case
        when column_diff.mapping -> 'redact' ? attname then $sql$
        if %1$s then
            _old := _old || jsonb_build_object(%2$L, case when not old.%3$I is null then '[redacted]' end);
            _new := _new || jsonb_build_object(%2$L, case when not new.%3$I is null then '[redacted]' end);
        end if;$sql$
        else $sql$
        if %1$s then
            _old := _old || jsonb_build_object(%2$L, old.%3$I);
            _new := _new || jsonb_build_object(%2$L, new.%3$I);
        end if;$sql$ end,
        -- Equality where it means the same bytes, else the bytes: 1.0 and 1.00 are a change.
        case when t.typtype = 'e' or t.oid = any (array[
                'bool', 'int2', 'int4', 'int8', 'oid', 'uuid', 'date', 'timestamp', 'timestamptz',
                'time', 'bytea']::regtype[])
            or t.oid in ('text'::regtype, 'varchar'::regtype)
                and (select collisdeterministic from pg_collation where oid = a.attcollation)
            then format('old.%1$I is distinct from new.%1$I', attname)
        else format('row(old.%1$I)::record *<> row(new.%1$I)::record', attname) end,
        attname, attname)
    from pg_attribute as a join pg_type as t on t.oid = a.atttypid
    where attrelid = column_diff.target and a.attnum = column_diff.attnum
);
comment on function audit.column_diff(regclass, jsonb, int2) is
    'Generated code that adds a column to the images of an update if it changed';

create or replace function audit.whole_image(mapping jsonb, side text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format('to_jsonb(%s)', whole_image.side)
        || coalesce(string_agg(' || jsonb_build_object(' || pairs || ')', ''), '')
    from (
        -- A function takes 100 arguments.
        select string_agg(format('%1$L, case when not %2$s.%1$I is null then ''[redacted]'' end',
            name, whole_image.side), ', ') as pairs
        from jsonb_array_elements_text(whole_image.mapping -> 'redact') with ordinality as t (name, n)
        group by n / 50
    ) as p
);
comment on function audit.whole_image(jsonb, text) is
    'Generated expression for all of a row, secrets redacted';

-- What is secret now: the table may have changed since it was attached.
create or replace function audit.redacted_columns(target regclass, mapping jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    with present as (
        select attname::text as name, attnum, atttypid
        from pg_attribute
        where attrelid = redacted_columns.target and attnum > 0 and not attisdropped
    )
    select coalesce(jsonb_agg(name order by attnum), '[]')
    from present
    where redacted_columns.mapping -> 'redact' ? name
        or not redacted_columns.mapping -> 'columns' ? name
            and (audit.is_secret(name) and atttypid <> 'boolean'::regtype
                -- A secret was renamed: it may be in any column that was not there before.
                or exists (
                    select from jsonb_array_elements_text(redacted_columns.mapping -> 'redact') as old
                    where old not in (select name from present)))
);
comment on function audit.redacted_columns(regclass, jsonb) is
    'Names of the columns that an event shows without their values';

create or replace function audit.is_column(expression text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return is_column.expression ~ '^r\.([a-z_][a-z0-9_$]*|"([^"]|"")+")$';
comment on function audit.is_column(text) is 'Whether an expression is no more than a column of r';

create or replace function audit.image_code(target regclass, mapping jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _diff text;
    _shape text;
    -- r is copied only where an expression is more than a column.
    _needs_row boolean;
    _code text := '';
    _op text;
    _side text;
    _name text;
    _expression text;
begin
    select string_agg(audit.column_diff(image_code.target, image_code.mapping, attnum), ''
            order by attnum) filter (where not coalesce(image_code.mapping -> 'ignore' ? attname, false)),
        string_agg('%1$s.' || replace(quote_ident(attname), '%', '%%'), ', ' order by attnum)
    into _diff, _shape
    from pg_attribute
    where attrelid = image_code.target and attnum > 0 and not attisdropped;

    select coalesce(bool_or(not audit.is_column(value)), false) into _needs_row
    from jsonb_each_text(image_code.mapping)
    where key in ('organization', 'target_id', 'subject', 'role', 'alive', 'row_id');

    foreach _op in array array['INSERT', 'UPDATE', 'DELETE'] loop
        _code := _code || format(E'\n    %s op = %L then', case _op when 'INSERT' then 'if' else 'elsif' end, _op)
            -- Raises or differs if the table has other columns than when it was attached.
            || format($sql$
        if %1$s *<> row(%2$s) then
            raise exception using errcode = 'datatype_mismatch';
        end if;$sql$, case _op when 'DELETE' then 'old' else 'new' end,
                format(_shape, case _op when 'DELETE' then 'old' else 'new' end));
        if _op = 'UPDATE' then
            _code := _code || coalesce(_diff, '') || $sql$
        if _new = '{}' then
            return null;
        end if;$sql$ || case when image_code.mapping ? 'whole' then format($sql$
        _old := %s;
        _new := %s;$sql$, audit.whole_image(image_code.mapping, 'old'),
                audit.whole_image(image_code.mapping, 'new')) else '' end;
        elsif _op = 'INSERT' then
            _code := _code || format($sql$
        _old := null;
        _new := %s;$sql$, audit.whole_image(image_code.mapping, 'new'));
        else
            _code := _code || format($sql$
        _old := %s;
        _new := null;$sql$, audit.whole_image(image_code.mapping, 'old'));
        end if;

        foreach _side in array array['old', 'new'] loop
            continue when _side = case _op when 'INSERT' then 'old' when 'DELETE' then 'new' end;
            if _needs_row then
                _code := _code || format(E'\n        r := %s;', _side);
            end if;
            foreach _name in array array['alive', 'role', 'organization', 'target_id', 'subject', 'row_id'] loop
                _expression := image_code.mapping ->> _name;
                continue when _expression is null;
                -- Only a change of it is told, but for a child's rows, which give it and take it.
                continue when _name = 'role' and _op <> 'UPDATE' and not image_code.mapping ? 'parent';
                -- Of an update, the new row says whose it is; the old one only where that is unknown.
                continue when _name in ('target_id', 'subject', 'row_id') and _op = 'UPDATE' and _side = 'old';
                if audit.is_column(_expression) then
                    _expression := _side || substr(_expression, 2);
                end if;
                _code := _code || case
                    when _name in ('alive', 'role') then
                        format(E'\n        _%s_%s := (%s\n);', _side, _name, _expression)
                    when _name = 'organization' and _op = 'UPDATE' and _side = 'new' then
                        format(E'\n        _organization := coalesce((%s\n)::text, _organization);',
                            _expression)
                    else format(E'\n        _%s := (%s\n);', _name, _expression) end;
            end loop;
        end loop;
        _code := _code || format(E'\n        _action := %s;', audit.action_code(image_code.mapping, _op));
    end loop;

    return $sql$#variable_conflict use_column
declare
    _old jsonb := '{}';
    _new jsonb := '{}';
    _action text;
    _organization text;
    _target_id text;
    _subject text;
    _row_id text;
    _old_alive boolean := true;
    _new_alive boolean := true;
    _old_role text;
    _new_role text;$sql$ || case when _needs_row then E'\n    r record;' else '' end || $sql$
begin$sql$ || _code || $sql$
    end if;
    if octet_length(concat(_organization, _target_id, _subject)) > 600 then
        raise exception using errcode = 'string_data_right_truncation';
    end if;
    return row(_action, _organization, _target_id, _subject, _old, _new, $sql$
        || audit.details_code(image_code.mapping) || $sql$)::audit.image;
end$sql$;
end
$$;
comment on function audit.image_code(regclass, jsonb) is
    'Body of audit.image_<id>: what a changed row of the table says';

create or replace function audit.action_code(mapping jsonb, op text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return case
    when mapping ? 'parent' then format('%L', mapping -> 'verbs' ->> 'changed')
    when op = 'INSERT' then format('case when _new_alive then %L else %L end',
        mapping -> 'verbs' ->> 'born', mapping -> 'verbs' ->> 'changed')
    when op = 'DELETE' then format('case when _old_alive then %L else %L end',
        mapping -> 'verbs' ->> 'died', mapping -> 'verbs' ->> 'changed')
    else format('case %s%s else %L end',
        case when mapping ? 'alive' then format(
            'when _new_alive and _old_alive is not true then %L '
            'when _old_alive and _new_alive is not true then %L ',
            mapping -> 'verbs' ->> 'born', mapping -> 'verbs' ->> 'died') else 'when false then null ' end,
        case when mapping ? 'role' then format('when _old_role is distinct from _new_role then %L',
            mapping -> 'verbs' ->> 'role_changed') else '' end,
        mapping -> 'verbs' ->> 'changed')
end;
comment on function audit.action_code(jsonb, text) is 'Generated expression: audit.action_of for one mapping';

create or replace function audit.details_code(mapping jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return case
    when mapping ? 'role' then format(
        $sql$case when _action = %L then jsonb_build_object('previous_role', _old_role, 'new_role', _new_role) end$sql$,
        mapping -> 'verbs' ->> 'role_changed')
    when mapping ? 'row_id' then $sql$jsonb_build_object('row_id', _row_id)$sql$
    else 'null' end;
comment on function audit.details_code(jsonb) is 'Generated expression for details: the roles of a role change, the key of a child row';

-- STABLE, so that lookups see the database as the statement found it: the team of a membership that
-- goes by cascade is gone already when the trigger fires. audit.append is VOLATILE and writes.
-- A function of the application can change search_path for good, past every pin around it: from the
-- image on, every name and operator here says its schema.
create or replace function audit.capture_code(id int, kind text, mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return format($sql$
declare
    _context jsonb;
    _image audit.image;
    _reason text;
    _lost boolean;
    _done boolean;
begin
    if tg_op = 'TRUNCATE' then
        _image.action := %1$L;
        _context := audit.current_context();
    else
        begin
            _context := nullif(current_setting('auditdb.context', true), '')::jsonb;
            if jsonb_typeof(_context) <> 'object' then
                raise exception using errcode = 'invalid_parameter_value';
            end if;
            _image := audit.image_%2$s(tg_op, old, new);%3$s
        exception when assert_failure or others then
            _reason := sqlstate;
            _context := audit.current_context();
            _lost := _context is null and nullif(current_setting('auditdb.context', true), '') is not null;
            begin
                _image := audit.rescue(tg_op, old, new, %4$L, _reason);
            exception when assert_failure or others then
                _image := row(%5$L, null, null, null, null, null, jsonb_build_object('degraded',
                    jsonb_build_object('sqlstate', sqlstate, 'lost', '{"row"}'::text[], 'op', tg_op)));
            end;
            if _lost then
                _image.details := audit.lose_context(_image.details);
            end if;
        end;
        if _image.action is null then
            return null;
        end if;
    end if;
    _done := %6$s;
    return null;
end$sql$,
    kind || '.truncated',
    id,
    case when not audit.is_column(mapping ->> 'organization') then format($sql$
            if _image.organization_id is null and _image.action is not null then
                -- What this very statement made is visible to a fresh snapshot only.
                if tg_op operator(pg_catalog.=) 'DELETE' then
                    _image.organization_id := audit.organization_%1$s(old);
                else
                    _image.organization_id := audit.organization_%1$s(new);
                end if;
            end if;$sql$, id) else '' end,
    mapping,
    mapping -> 'verbs' ->> 'changed',
    case when mapping -> 'facts' <> '[]' then format($sql$audit.append_facts(_image, %L,
        tg_table_schema operator(pg_catalog.||) '.' operator(pg_catalog.||) tg_table_name, _context)$sql$,
        mapping -> 'facts')
    else format($sql$audit.append(_image.action, _image.organization_id, %L, _image.target_id,
        _image.subject_id,
        tg_table_schema operator(pg_catalog.||) '.' operator(pg_catalog.||) tg_table_name,
        _image.old_values, _image.new_values, _image.details, _context)$sql$,
        mapping ->> 'target_type') end
);
comment on function audit.capture_code(int, text, jsonb) is
    'Body of audit.capture_<id>, the trigger function of an attached table';

-- The live check behind every read: is this user an admin or owner there, now?
create or replace function audit.admin_code(target regclass, mapping jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _subject text := admin_code.mapping ->> 'subject';
    _type text;
begin
    -- Compared in the column's own type, so that its index serves.
    select format_type(atttypid, -1) into _type
    from pg_attribute
    where attrelid = admin_code.target and audit.over_row(admin_code.target, attname) = _subject
        and attnum > 0 and not attisdropped;
    -- $1 and $2: by name they would be ambiguous beside columns called organization and viewer.
    return format(E'\n#variable_conflict use_column\nbegin\n    return exists (\n'
        '        select from %s as r\n        where (%s\n) = ($2)%s and ((%s\n)::text) = $1\n'
        '            and (%s\n) and (%s\n)\n    );\nend',
        admin_code.target,
        case when _type is null then '(' || _subject || E'\n)::text' else _subject end,
        coalesce('::' || _type, ''),
        admin_code.mapping ->> 'organization',
        coalesce(admin_code.mapping ->> 'alive', 'true'),
        admin_code.mapping ->> 'admin');
end
$$;
comment on function audit.admin_code(regclass, jsonb) is
    'Body of audit.admin_<id>: whether a membership makes its user an admin or owner';

create or replace function audit.define(
    name text, arguments text, returns text, volatility text, owner regrole, body text, purpose text
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('create or replace function audit.%I(%s) returns %s language plpgsql %s '
        'security definer set search_path = pg_catalog, pg_temp as %L',
        name, arguments, returns, volatility, body);
    execute format('revoke all on function audit.%I from public', name);
    execute format('comment on function audit.%I is %L', name, purpose);
    if owner <> current_user::regrole then
        execute format('alter function audit.%I owner to %s', name, owner);
        execute format('grant execute on function audit.%I to audit_owner', name);
    end if;
end
$$;
comment on function audit.define(text, text, text, text, regrole, text, text) is
    'Creates or replaces a generated function, closed to PUBLIC';

create or replace function audit.generate(id int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _a audit.attachment;
    _of text;
begin
    select * into strict _a from audit.attachment as a where a.id = generate.id;
    _a.mapping := _a.mapping
        || jsonb_build_object('redact', audit.redacted_columns(_a.target, _a.mapping));
    _of := format(' of %s (attached as %s)', _a.target, _a.kind);
    -- A function given to audit_mapper needs its CREATE for that moment, and to be ours again to change.
    grant create on schema audit to audit_mapper;
    if _a.kind <> 'admin' then
        perform audit.define('image_' || id, 'op text, old anyelement, new anyelement',
            'audit.image', 'stable', 'audit_mapper', audit.image_code(_a.target, _a.mapping),
            'What a changed row says' || _of);
        if not audit.is_column(_a.mapping ->> 'organization') then
            perform audit.define('organization_' || id, 'r anyelement', 'text', 'volatile',
                'audit_mapper', format(E'\nbegin\n    return (%s\n);\nend',
                    _a.mapping ->> 'organization'), 'Organisation of a row' || _of);
        else
            execute format('drop function if exists audit.organization_%s', id);
        end if;
        perform audit.define('capture_' || id, '', 'trigger', 'stable', 'audit_owner',
            audit.capture_code(id, _a.kind, _a.mapping), 'Captures changes' || _of);
    end if;
    if _a.mapping ? 'admin' then
        perform audit.define('admin_' || id, 'organization text, viewer text', 'boolean', 'stable',
            'audit_mapper', audit.admin_code(_a.target, _a.mapping),
            'Whether a user is an admin or owner, by a row' || _of);
    end if;
    revoke create on schema audit from audit_mapper;
end
$$;
comment on function audit.generate(int) is 'Writes, or writes again, the functions of an attached table';
