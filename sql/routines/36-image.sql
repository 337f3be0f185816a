-- Image: the generated function that says what a changed row of one table says.
-- Whatever touches a row's values or runs a mapping expression does so as audit_mapper, which may
-- read
-- mapped columns and nothing else: application code that it meets there never runs as audit_owner.

-- One changed column: named only if it differs, so that an update costs what it changes.
create or replace function audit.column_diff(target regclass, mapping jsonb, attnum int2,
    inline boolean default false) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format(case
        when column_diff.mapping -> 'redact' ? attname then $sql$
        if %1$s then
            _old := _old || jsonb_build_object(%2$L, case when not old.%3$I is null
                then '[redacted]' end);
            _new := _new || jsonb_build_object(%2$L, case when not new.%3$I is null
                then '[redacted]' end);
        end if;$sql$
        else $sql$
        if %1$s then
            _old := _old || jsonb_build_object(%2$L, %4$s);
            _new := _new || jsonb_build_object(%2$L, %5$s);
        end if;$sql$ end,
        -- Equality where it means the same bytes, else the bytes: 1.0 and 1.00 are a change.
        -- A collation to which 'a' and 'A' are equal may come later than this code.
        case when t.typtype = 'e' or t.oid = any (array[
                'bool', 'int2', 'int4', 'int8', 'oid', 'uuid', 'date', 'timestamp', 'timestamptz',
                'time', 'bytea', 'text', 'varchar']::regtype[])
            then format('%s%s is distinct from new.%I', case when column_diff.inline
                then audit.typed(t, format('old.%I', attname))
                else format('old.%I', attname) end,
                case when t.oid in ('text'::regtype, 'varchar'::regtype)
                    then ' collate "C"' end, attname)
        else format('row(old.%1$I)::record *<> row(new.%1$I)::record', attname) end,
        attname, attname,
        case when column_diff.inline then audit.typed_json(t, format('old.%I', attname))
            else format('old.%I', attname) end,
        case when column_diff.inline then audit.typed_json(t, format('new.%I', attname))
            else format('new.%I', attname) end)
    from pg_attribute as a join pg_type as t on t.oid = a.atttypid
    where attrelid = column_diff.target and a.attnum = column_diff.attnum
);
comment on function audit.column_diff(regclass, jsonb, int2, boolean) is
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
        from jsonb_array_elements_text(whole_image.mapping -> 'redact') with ordinality
            as t (name, n)
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
                    select from jsonb_array_elements_text(redacted_columns.mapping -> 'redact')
                        as old
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
            order by attnum) filter (where not coalesce(image_code.mapping -> 'ignore' ? attname,
                false)),
        string_agg('%1$s.' || replace(quote_ident(attname), '%', '%%'), ', ' order by attnum)
    into _diff, _shape
    from pg_attribute
    where attrelid = image_code.target and attnum > 0 and not attisdropped;

    select coalesce(bool_or(not audit.is_column(value)), false) into _needs_row
    from jsonb_each_text(image_code.mapping)
    where key in ('organization', 'target_id', 'subject', 'role', 'alive', 'row_id');

    foreach _op in array array['INSERT', 'UPDATE', 'DELETE'] loop
        _code := _code || format(E'\n    %s op = %L then', case _op when 'INSERT' then 'if'
            else 'elsif' end, _op)
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
            foreach _name in array array['alive', 'role', 'organization', 'target_id', 'subject',
                'row_id'] loop
                _expression := image_code.mapping ->> _name;
                continue when _expression is null;
                -- Only a change of it is told, but for a child's rows, which give it and take it.
                continue when _name = 'role' and _op <> 'UPDATE'
                    and not image_code.mapping ? 'parent';
                -- Of an update, the new row says whose it is; the old one only where that is
                -- unknown.
                continue when _name in ('target_id', 'subject', 'row_id') and _op = 'UPDATE'
                    and _side = 'old';
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
        _code := _code || format(E'\n        _action := %s;',
            audit.action_code(image_code.mapping, _op));
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
            mapping -> 'verbs' ->> 'born', mapping -> 'verbs' ->> 'died')
                else 'when false then null ' end,
        case when mapping ? 'role' then format('when _old_role is distinct from _new_role then %L',
            mapping -> 'verbs' ->> 'role_changed') else '' end,
        mapping -> 'verbs' ->> 'changed')
end;
comment on function audit.action_code(jsonb, text) is
    'Generated expression: audit.action_of for one mapping';

create or replace function audit.details_code(mapping jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return case
    when mapping ? 'role' then format(
        $sql$case when _action = %L then jsonb_build_object('previous_role', _old_role,
            'new_role', _new_role) end$sql$,
        mapping -> 'verbs' ->> 'role_changed')
    when mapping ? 'row_id' then $sql$jsonb_build_object('row_id', _row_id)$sql$
    else 'null' end;
comment on function audit.details_code(jsonb) is
    'Generated expression for details: the roles of a role change, the key of a child row';
