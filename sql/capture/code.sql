-- Code: the paragraphs of a generated trigger function. Each function here returns one of them.
-- The mapping is that of audit_private.complete_mapping(). The variables _before and _after hold
-- what audit_mapper read.

create or replace function audit_private.part_code(mapping jsonb, part text, side text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce(mapping #>> array['code', part, side], format('%s[%s]%s',
        case side when 'old' then '_before' else '_after' end,
        (
            select n from jsonb_array_elements_text(mapping -> 'raw') with ordinality as t (p, n)
            where p = part_code.part),
        case when part = 'alive' then '::boolean' end));
end
$$;
comment on function audit_private.part_code is
    'Generated expression for one part of a mapping, read from the old or the new row';

-- An update uses the secrets of both rows: a secret that is replaced stays a secret.
create or replace function audit_private.secrets_of(mapping jsonb, op text) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
return array(
    select code
    from jsonb_array_elements(mapping -> 'secrets') with ordinality as s (of, n)
        cross join jsonb_each_text(s.of) as c (side, code)
    where side <> case op when 'INSERT' then 'old' when 'DELETE' then 'new' else '' end
    order by n, side
);
comment on function audit_private.secrets_of is
    'Generated expressions for the values that an identifier may not contain';

create or replace function audit_private.secrets_code(mapping jsonb, op text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return coalesce(
    'array[' || nullif(array_to_string(audit_private.secrets_of(mapping, op), ', '), '') || ']',
    'null');
comment on function audit_private.secrets_code is
    'Generated array of the values that an identifier may not contain, or null';

-- The result fits an index and shows no secret. Cheap checks come before any call, because most
-- identifiers are short numbers.
create or replace function audit_private.name_code(mapping jsonb, part text, side text, op text)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _code text := audit_private.part_code(mapping, part, side);
    _secrets text[] := audit_private.secrets_of(mapping, op);
begin
    if mapping -> 'digest' ? part then
        return format('audit_private.digest(%s)', _code);
    elsif not mapping -> 'long' ? part then
        return _code;
    end if;
    return format(E'case\n'
        '                when octet_length(%1$s) > 200 then audit_private.refuse_long()\n'
        '                when %2$s then audit_private.safe_name(%1$s, %3$s)\n'
        '                else %1$s\n            end', _code,
        format('audit_private.may_hold_secret(%s)', _code) || array_to_string(array(
            select format(E'\n                    or strpos(%s, %s) > 0', _code, secret)
            from unnest(_secrets) as secret), ''),
        audit_private.secrets_code(mapping, op));
end
$$;
comment on function audit_private.name_code is
    'Generated expression for an identifier; a digest if it is a secret or contains one';

-- A number or a time can become text outside of the guarded block: that cannot fail. Any other
-- identifier gets a variable inside of the block.
create or replace function audit_private.is_plain_name(mapping jsonb, part text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return not mapping ? part or mapping -> 'code' ? part
    and not mapping -> 'long' ? part and not mapping -> 'digest' ? part;
comment on function audit_private.is_plain_name is
    'Whether an identifier is read as audit_owner, and is neither long nor a secret';

create or replace function audit_private.told_code(mapping jsonb, part text, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case
    when not mapping ? part then 'null'
    when audit_private.is_plain_name(mapping, part) then
        audit_private.name_code(mapping, part, case op when 'DELETE' then 'old' else 'new' end, op)
    else '_' || part end;
comment on function audit_private.told_code is
    'Generated expression for an identifier, as the INSERT of the event uses it';

create or replace function audit_private.shape_code(mapping jsonb, side text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format($sql$
        -- Raises, or fails to parse, if the columns or types changed since the table was attached.
        if current_setting('row_security') = 'off' or %s *<> row(%s) then
            raise datatype_mismatch;
        end if;$sql$, side,
        string_agg(E'\n            ' || format(coalesce(typed, plain), side), ',' order by attnum)
            || E'\n        ')
    from jsonb_to_recordset(mapping -> 'own') as c (attnum int, typed text, plain text)
);
comment on function audit_private.shape_code is
    'Generated code that raises if the table has changed since it was attached';

-- Equality is used only where it means the same bytes: 1.0 and 1.00 are a change. Text is compared
-- with "C", since a column may later get a collation to which 'a' and 'A' are equal.
create or replace function audit_private.differs_code(type pg_type, name text, is_typed boolean)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return case
    when not is_typed then
        format('row(old.%1$I)::record *<> row(new.%1$I)::record', name)
    when (type).oid in ('text'::regtype, 'varchar'::regtype) then
        format('old.%1$I collate "C" is distinct from new.%1$I', name)
    when (type).typtype = 'e' or (type).oid = any (array['bool', 'int2', 'int4', 'int8', 'oid',
            'uuid', 'date', 'timestamp', 'timestamptz', 'time', 'bytea']::regtype[]) then
        format('old.%1$I is distinct from new.%1$I', name)
    else format('row(old.%1$I)::record *<> row(new.%1$I)::record', name)
end;
end
$$;
comment on function audit_private.differs_code is
    'Generated condition: an update changed a column';

-- If the same statement reads the same columns, the result is the same.
create or replace function audit_private.inputs_code(mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case
    when mapping -> 'checked' ? 'inputs' then coalesce((
        select string_agg(differs, ' or ' order by attnum)
        from jsonb_to_recordset(mapping -> 'own') as c (name text, attnum int, differs text)
        where mapping #> '{checked,inputs}' ? name or mapping -> 'raw' ? ('column ' || name)
            or name in (
                select audit_private.own_column(mapping, mapping ->> part)
                from jsonb_array_elements_text(mapping -> 'raw') as part)
    ), 'false')
    else 'old *<> new' end;
comment on function audit_private.inputs_code is
    'Generated condition: an update changed a column that audit_mapper reads';

-- If audit_mapper reads only columns, an update reads them only if one of them changed: the event
-- shows no others.
create or replace function audit_private.read_call_code(id int, mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when mapping -> 'raw' = '[]' then '' else (
    select format($sql$
        -- Read as audit_mapper: %s.%s%s
        %s := audit_private.read_%s(%s);%s
        if %s then
            raise data_exception;
        end if;%s$sql$,
        (
            select string_agg(regexp_replace(part, '\s+', ' ', 'g'), ', ' order by n)
            from jsonb_array_elements_text(mapping -> 'raw') with ordinality as t (part, n)
        ),
        case when mapping -> 'checked' ? 'waits' then $sql$
        if current_setting('lock_timeout') <> '0' then
            perform audit_private.wait_longer();
        end if;$sql$ end,
        case when on_change then format(E'\n        if %s then', inputs) end,
        case op when 'DELETE' then '_before' else '_after' end, id,
        case op when 'DELETE' then 'old' else 'new' end,
        case when on_change then format(E'\n        _before := audit_private.read_%s(old);', id)
            when op = 'UPDATE' then format($sql$
        _before := case when %s then audit_private.read_%s(old) else _after end;$sql$,
                inputs, id) end,
        (
            select string_agg(format('cardinality(%s) is distinct from %s', v,
                jsonb_array_length(mapping -> 'raw')), ' or ')
            from unnest(case op when 'UPDATE' then '{_after,_before}' when 'INSERT' then '{_after}'
                else '{_before}' end::text[]) as v
        ),
        case when on_change then E'\n        end if;' end)
    from (
        select op = 'UPDATE' and not mapping ? 'whole'
            and audit_private.handed_parts(mapping) = '{}' and not exists (
                select from jsonb_array_elements_text(mapping -> 'raw') as part
                where part not like 'column %') as on_change
    ) as t
        cross join audit_private.inputs_code(mapping) as inputs
) end;
comment on function audit_private.read_call_code is
    'Generated code that lets audit_mapper read what audit_owner may not';

create or replace function audit_private.value_code(mapping jsonb, own jsonb, side text)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _name text := own ->> 'name';
    _type oid := (own ->> 'type')::oid;
    _code text := format(own ->> 'json', side);
begin
    if mapping -> 'redact' ? _name then
        return format('case when %s.%I is not null then ''[redacted]'' end', side, _name);
    elsif mapping -> 'raw' ? ('column ' || _name) then
        return format(case
                when audit_private.is_plain_text(_type) then 'audit_private.safe_text(%s)'
                when audit_private.is_harmless_type(_type) then '%s::jsonb'
                else 'audit_private.redact_json(%s::jsonb)' end,
            audit_private.part_code(mapping, 'column ' || _name, side));
    elsif mapping -> 'key' ? _name and _type = any ('{text,varchar}'::regtype[])
        and mapping -> 'secrets' <> '[]'
    then
        -- A key may be made of a secret.
        return format('case when audit_private.holds(%s.%I, %s) then ''[redacted]'' else %s end',
            side, _name, audit_private.secrets_code(mapping,
                case side when 'old' then 'DELETE' else 'INSERT' end), _code);
    end if;
    return _code;
end
$$;
comment on function audit_private.value_code is
    'Generated expression for a value as an event shows it: redacted if it is a secret';

-- If nothing is redacted, to_jsonb gives the same result in two thirds of the time. The shape of
-- the row has been checked before.
create or replace function audit_private.image_code(mapping jsonb, side text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    with part as (
        select name, attnum, value, value in (plain, safe) as is_told,
            case when value = safe then format('audit_private.may_hold_secret(%s)', plain) end
                as doubt
        from jsonb_to_recordset(mapping -> 'own')
                as c (name text, attnum int, is_virtual boolean, old text, new text)
            cross join cast(case side when 'old' then old else new end as text) as value
            cross join format('%s.%I', side, name) as plain
            cross join format('audit_private.safe_text(%s)', plain) as safe
        where not is_virtual
    ), image as (
        -- A function takes 100 arguments.
        select string_agg(format(E'jsonb_build_object(%s\n        )', pairs), ' || ' order by n)
            as parts
        from (
            select string_agg(format(E'\n            %L, %s', name, value), ',' order by attnum),
                (attnum - 1) / 50
            from part group by 2
        ) as p (pairs, n)
    )
    select case
        when bool_and(is_told) and mapping -> 'virtual' = '[]' then
            case when count(doubt) = 0 then format('to_jsonb(%s)', side)
            else format(E'case when %s\n        then %s\n        else to_jsonb(%s) end',
                string_agg(doubt, E'\n            or ' order by attnum), min(parts), side) end
        else coalesce(min(parts), '''{}''::jsonb') end
    from image left join part on true
);
comment on function audit_private.image_code is
    'Generated expression for a whole row as jsonb, secrets redacted';

-- One statement per column, not one long expression: a session plans only those that it runs.
create or replace function audit_private.change_code(mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(string_agg(format($sql$
        if %1$s then
            _old := coalesce(_old, '{}') || jsonb_build_object(%2$L, %3$s);
            _new := coalesce(_new, '{}') || jsonb_build_object(%2$L, %4$s);
        end if;$sql$, differs, name, old, new), '' order by attnum), '')
    from jsonb_to_recordset(mapping -> 'own')
        as c (name text, attnum int, differs text, old text, new text)
    where not coalesce(mapping -> 'ignore' ? name, false)
);
comment on function audit_private.change_code is
    'Generated code that puts the changed columns into _old and _new';

create or replace function audit_private.unchanged_code(mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return format($sql$
        if not (%s) then
            return null;
        end if;$sql$, coalesce((
    select string_agg(differs, E'\n            or ' order by attnum)
    from jsonb_to_recordset(mapping -> 'own') as c (name text, attnum int, differs text)
    where not coalesce(mapping -> 'ignore' ? name, false)
), 'false'));
comment on function audit_private.unchanged_code is
    'Generated code that returns early from an update which changed only ignored columns';

create or replace function audit_private.values_code(mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return E'\n        -- The values before and after.' || case op
    when 'INSERT' then format(E'\n        _new := %s;', audit_private.image_code(mapping, 'new'))
    when 'DELETE' then format(E'\n        _old := %s;', audit_private.image_code(mapping, 'old'))
    else case when mapping ? 'whole' then format(E'\n        _old := %s;\n        _new := %s;',
            audit_private.image_code(mapping, 'old'), audit_private.image_code(mapping, 'new'))
        else audit_private.change_code(mapping) end
    end;
comment on function audit_private.values_code is
    'Generated code that puts the values before and after into _old and _new';

create or replace function audit_private.action_code(mapping jsonb, op text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _verbs jsonb := action_code.mapping -> 'verbs';
    _branches text := '';
    _was text;
    _is text;
begin
    if mapping ? 'parent' or mapping ? 'baseline' then
        return quote_literal(_verbs ->> 'changed');
    end if;
    if mapping ? 'alive' then
        _was := audit_private.part_code(mapping, 'alive', 'old');
        _is := audit_private.part_code(mapping, 'alive', 'new');
        _branches := case op
            when 'INSERT' then format(' when %s then %L', _is, _verbs ->> 'born')
            when 'DELETE' then format(' when %s then %L', _was, _verbs ->> 'died')
            else format(E'\n            when (%1$s) and (%2$s) is not true then %3$L'
                '\n            when (%2$s) and (%1$s) is not true then %4$L',
                _is, _was, _verbs ->> 'born', _verbs ->> 'died') end;
    end if;
    if mapping ? 'role' and op = 'UPDATE' then
        _branches := _branches || format(
            E'\n            when (%s) collate "C" is distinct from (%s) then %L',
            audit_private.part_code(mapping, 'role', 'old'),
            audit_private.part_code(mapping, 'role', 'new'), _verbs ->> 'role_changed');
    end if;
    return case
        when _branches <> '' then format('case%s else %L end', _branches, coalesce(
            _verbs ->> case op when 'INSERT' then 'prepared' when 'DELETE' then 'purged' end,
            _verbs ->> 'changed'))
        else quote_literal(_verbs ->> case op when 'INSERT' then 'born' when 'DELETE' then 'died'
            else 'changed' end)
    end;
end
$$;
comment on function audit_private.action_code is
    'Generated expression for the action: audit_private.action_of() for one mapping and operation';

-- A variable is needed only if the action depends on the row.
create or replace function audit_private.action_name(mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case when code like 'case%' or op = 'UPDATE' and mapping -> 'facts' <> '[]'
        then '_action' else code end
    from audit_private.action_code(mapping, op) as code
);
comment on function audit_private.action_name is
    'Generated name of the action: a variable, or a literal if it is always the same';

create or replace function audit_private.role_code(mapping jsonb, side text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case when mapping -> 'redact' ? (mapping ->> 'role_column')
        then format('case when %s is not null then ''[redacted]'' end', code) else code end
    from audit_private.part_code(mapping, 'role', side) as code
);
comment on function audit_private.role_code is
    'Generated expression for a role as details show it';

create or replace function audit_private.differs_part(mapping jsonb, part text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return coalesce((
    select differs
    from jsonb_to_recordset(mapping -> 'own') as c (name text, typed text, differs text)
    where name = audit_private.own_column(mapping, mapping ->> part) and typed is not null
), format('%s is distinct from %s', audit_private.part_code(mapping, part, 'old'),
    audit_private.part_code(mapping, part, 'new')));
comment on function audit_private.differs_part is
    'Generated condition: an update changed a part of the mapping, such as the organisation';

create or replace function audit_private.group_code(mapping jsonb, side text, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
return (
    -- audit_private.told_group() gives the same result, but costs 9 microseconds per row.
    select format('case when %1$s%2$s then jsonb_build_object(''group'','
        ' jsonb_build_object(''type'', %3$L, ''id'', %4$s)) else ''{}'' end',
        format('%s.%I is not null', side,
            audit_private.own_column(mapping, mapping ->> 'group_id')),
        -- For groups that may be organisations themselves.
        case when mapping ? 'group_is_nested' then format(' and %s is distinct from _organization',
            audit_private.part_code(mapping, 'group_id', side)) end,
        mapping ->> 'group_type', audit_private.name_code(mapping, 'group_id', side, op))
);
comment on function audit_private.group_code is
    'Generated expression for the details that name the group of a membership';

create or replace function audit_private.handed_code(mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case when audit_private.handed_parts(mapping) <> '{}' then format($sql$
        if (%s)%s then
            _handed := jsonb_build_object('was', %s, 'is', %s, 'subject', %s, 'target_id', %s,
                'previous_role', %s, 'new_role', %s, 'group', %s,
                'old_values', %s,
                'new_values', %s);
        end if;$sql$,
    (
        select string_agg(audit_private.differs_part(mapping, part), ' or ')
        from unnest(audit_private.handed_parts(mapping)) as part),
    case when mapping ? 'alive' and not mapping ? 'parent'
        then format(' and (%s or %s)', was, "is") end,
    was, "is",
    audit_private.name_code(mapping, 'subject', 'old', 'UPDATE'),
    case when mapping ? 'target_id'
        then audit_private.name_code(mapping, 'target_id', 'old', 'UPDATE') else 'null' end,
    case when mapping ? 'role' then audit_private.role_code(mapping, 'old') else 'null' end,
    case when mapping ? 'role' then audit_private.role_code(mapping, 'new') else 'null' end,
    case when mapping ? 'group_id'
        then audit_private.group_code(mapping, 'old', 'UPDATE') else 'null' end,
    audit_private.image_code(mapping, 'old'), audit_private.image_code(mapping, 'new')) end
    from (
    select max(code) filter (where side = 'old') as was,
        max(code) filter (where side = 'new') as "is"
    from unnest('{old,new}'::text[]) as side
        cross join lateral (select case when mapping ? 'alive' and not mapping ? 'parent'
            then format('(%s) is true', audit_private.part_code(mapping, 'alive', side))
            else 'true' end) as c (code)
    ) as alive
);
comment on function audit_private.handed_code is
    'Generated code that sets _handed if an update moves a membership to another member or group';

create or replace function audit_private.details_code(mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return concat(
    case when mapping ? 'role' and (op = 'UPDATE' or mapping ? 'parent') then (
        select case
            when action = '_action' then format(
                E'\n        if _action = %L then%s\n        end if;',
                verb, replace(code, E'\n', E'\n    '))
            when action = quote_literal(verb) then code end
        from format($sql$
        _details := jsonb_build_object(
            'previous_role', %s, 'new_role', %s);$sql$,
            case op when 'INSERT' then 'null' else audit_private.role_code(mapping, 'old') end,
            case op when 'DELETE' then 'null' else audit_private.role_code(mapping, 'new') end)
                as code
            cross join cast(mapping -> 'verbs' ->> 'role_changed' as text) as verb
            cross join audit_private.action_name(mapping, op) as action)
    end,
    case when mapping ? 'row_id' then format($sql$
        _details := jsonb_build_object('row_id', %s);$sql$,
        audit_private.name_code(
            mapping, 'row_id', case op when 'DELETE' then 'old' else 'new' end, op))
    end,
    case when mapping ? 'baseline' and mapping ? 'alive' then format($sql$
        if (%s) is not true then
            _details := coalesce(_details, '{}') || '{"alive": false}';
        end if;$sql$, audit_private.part_code(mapping, 'alive', 'new')) end,
    case when mapping ? 'group_id' then format($sql$
        _details := coalesce(_details, '{}') || %s;$sql$, audit_private.group_code(
            mapping, case op when 'DELETE' then 'old' else 'new' end, op))
    end,
    case when op = 'UPDATE' then audit_private.handed_code(mapping) end);
comment on function audit_private.details_code is
    'Generated code for details: the roles of a role change, the key of a child row, the group of '
    'a membership, and a mark for a baseline row that does not count';

create or replace function audit_private.former_name(mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case
    when not mapping ? 'organization' then null
    when audit_private.is_plain_name(mapping, 'organization')
        then audit_private.part_code(mapping, 'organization', 'old')
    else '_former' end;
comment on function audit_private.former_name is
    'Generated expression for the organisation of the old row of an update; null if there is none';

-- The new row of an update decides; the old one only if the new one names no organisation. If the
-- row moved to another organisation, the former one gets an event too.
create or replace function audit_private.organization_code(id int, mapping jsonb, op text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case when count(*) = 1 then min(code) else format(
        E'coalesce(\n            %s\n        )', string_agg(code, E',\n            ')) end
    from cast(case op when 'DELETE' then 'old' else 'new' end as text) as side
        cross join unnest(array[
            case when mapping ? 'organization' then
                audit_private.name_code(mapping, 'organization', side, op) end,
            case when op = 'UPDATE' then audit_private.former_name(mapping) end,
            -- Only a fresh snapshot sees rows that this very statement inserted.
            case when mapping -> 'raw' ? 'organization' then format(
                case when mapping -> 'digest' ? 'organization'
                    then 'audit_private.digest(audit_private.organization_%s(%s))'
                    else 'audit_private.safe_name(audit_private.organization_%s(%s), %s)' end,
                id, side, audit_private.secrets_code(mapping, op)) end,
            $sql$left(_context ->> 'organization_id', 200)$sql$]) as code
    where code is not null
);
comment on function audit_private.organization_code is
    'Generated expression for the organisation that an event belongs to';

create or replace function audit_private.whose_name(id int, mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when audit_private.is_plain_name(mapping, 'organization')
    then audit_private.organization_code(id, mapping, op) else '_organization' end;
comment on function audit_private.whose_name is
    'Generated expression for the organisation, as the INSERT of the event uses it';

create or replace function audit_private.whose_code(id int, mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when not audit_private.is_plain_name(mapping, 'organization') then concat(
    case when op = 'UPDATE' then format(E'\n        _former := case when %s then %s end;',
        audit_private.differs_part(mapping, 'organization'),
        audit_private.name_code(mapping, 'organization', 'old', op)) end,
    format(E'\n        _organization := %s;',
        audit_private.organization_code(id, mapping, op))) end;
comment on function audit_private.whose_code is
    'Generated code that sets the organisation of an event, and the one that a row left';

create or replace function audit_private.names_code(mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return concat(
    case when audit_private.action_name(mapping, op) = '_action'
        then format(E'\n        _action := %s;', audit_private.action_code(mapping, op)) end,
    (
        select string_agg(format(E'\n        _%s := %s;', part, audit_private.name_code(
            mapping, part, case op when 'DELETE' then 'old' else 'new' end, op)), ''
            order by part)
        from unnest('{subject,target_id}'::text[]) as part
        where mapping ? part and not audit_private.is_plain_name(mapping, part)
    ));
comment on function audit_private.names_code is
    'Generated code that sets the action, the target and the subject of an event';

-- The log of an organisation must start before the event of its own row.
create or replace function audit_private.start_code(id int, mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case
    when mapping ->> 'target_type' <> 'organization' or not mapping ? 'organization'
        or mapping ? 'baseline' then null
    when op <> 'DELETE' then format($sql$
    perform audit_private.start_organization(%s, tg_op, %s, %s, %s);$sql$,
        id, audit_private.whose_name(id, mapping, op), case op when 'INSERT' then 'null'
            else audit_private.name_code(mapping, 'target_id', 'old', op) end,
        audit_private.told_code(mapping, 'target_id', op)) end;
comment on function audit_private.start_code is
    'Generated code that records the start of an organisation; null for another kind';

create or replace function audit_private.several_facts_code(mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format(E'_new ?| %L\n            and (_action <> %L or %s > 1)', array_agg(name),
        mapping -> 'verbs' ->> 'changed', string_agg(format('(_new ? %L)::int', name), ' + '))
    from jsonb_array_elements(mapping -> 'facts') as f
        cross join cast(f ->> 'column' as text) as name
    having count(*) > 0
);
comment on function audit_private.several_facts_code is
    'Generated condition: a fact changed, and there is more than one event to write; null if the '
    'mapping has no facts';

create or replace function audit_private.hand_on_code(id int, mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when op = 'UPDATE' and audit_private.handed_parts(mapping) <> '{}' then format($sql$
    if _handed is not null then
        perform audit_private.append_handed(_handed, %L, %s, %s, %L,
            %s, %s, tg_table_schema || '.' || tg_table_name, _details, _context%s);
        return null;
    end if;$sql$,
    audit_private.handed_verbs(mapping), audit_private.whose_name(id, mapping, op),
    coalesce(audit_private.former_name(mapping), 'null'), mapping ->> 'target_type',
    audit_private.told_code(mapping, 'target_id', op),
    audit_private.told_code(mapping, 'subject', op),
    ',' || audit_private.put_aside_code(mapping, op)) end;
comment on function audit_private.hand_on_code is
    'Generated code that writes an event for each member of a membership that was handed on';

-- A row that moves gets an event in both organisations; each changed fact is an event of its own.
create or replace function audit_private.several_code(id int, mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format($sql$
    if %s then
        perform audit_private.append_facts(%L, %s, %s, %s, %s, %L,
            %s, %s, tg_table_schema || '.' || tg_table_name, _old, _new, _details, _context%s);
        return null;
    end if;$sql$, concat_ws(E'\n        or ', case
                when former = '_former' then '_former <> _organization'
                when former is not null
                    then audit_private.differs_part(mapping, 'organization') end,
            audit_private.several_facts_code(mapping)),
        mapping -> 'facts', action,
        case action when '_action' then format('_action = %L', mapping -> 'verbs' ->> 'changed')
            else 'true' end,
        audit_private.whose_name(id, mapping, op), coalesce(former, 'null'),
        mapping ->> 'target_type', audit_private.told_code(mapping, 'target_id', op),
        audit_private.told_code(mapping, 'subject', op),
        -- A row that moved has an organisation.
        case when mapping -> 'facts' <> '[]'
            then ',' || audit_private.put_aside_code(mapping, op) end)
    from audit_private.action_name(mapping, op) as action
        cross join audit_private.former_name(mapping) as former
    where op = 'UPDATE' and (former is not null or mapping -> 'facts' <> '[]')
);
comment on function audit_private.several_code is
    'Generated code that calls audit_private.append_facts() if a change is more than one event';

-- The same rule as in audit_private.append_facts.
create or replace function audit_private.fact_code(mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format(E'\n    _action := case%s\n        else _action\n    end;', string_agg(
        format(E'\n        when _new ? %L then ', f ->> 'column') || coalesce(
            quote_literal(f ->> 'action'), case when f ? 'verbs' then format(E'case\n'
                '            when _new -> %1$L = ''null'' then %2$L\n'
                '            when _old -> %1$L = ''null'' then %3$L\n            else %4$L\n'
                '        end', f ->> 'column', f -> 'verbs' ->> 'died', f -> 'verbs' ->> 'born',
                f -> 'verbs' ->> 'changed') end, format(E'case\n'
                '            when audit_private.is_off(_new -> %L)\n'
                '            then ''auth.two_factor_disabled'' '
                'else ''auth.two_factor_enabled'' end',
                f ->> 'column')), '' order by n))
    from jsonb_array_elements(mapping -> 'facts') with ordinality as t (f, n)
    where op = 'UPDATE'
    having count(*) > 0
);
comment on function audit_private.fact_code is
    'Generated code that takes the action of an update from the only fact that changed';

-- The INSERT stands outside of the guarded block. Inside, each row would take a subtransaction id,
-- and more than 64 of them in one transaction slow down all other sessions.
create or replace function audit_private.insert_code(id int, mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return concat(
    -- A row that does not count, of a kind that has no action for it.
    case when audit_private.action_code(mapping, op) like 'case%%else '''' end' then $sql$
    if _action = '' then
        return null;
    end if;$sql$ end,
    audit_private.start_code(id, mapping, op),
    audit_private.hand_on_code(id, mapping, op),
    audit_private.several_code(id, mapping, op),
    audit_private.fact_code(mapping, op),
    format($sql$
    return audit_private.append(%s, %s, %L, %s, %s,
        tg_table_schema || '.' || tg_table_name, %s, %s, _details, _context%s);$sql$,
        audit_private.action_name(mapping, op), audit_private.whose_name(id, mapping, op),
        mapping ->> 'target_type', audit_private.told_code(mapping, 'target_id', op),
        audit_private.told_code(mapping, 'subject', op),
        case op when 'INSERT' then 'null' else '_old' end,
        case op when 'DELETE' then 'null' else '_new' end,
        ',' || audit_private.put_aside_code(mapping, op)));
comment on function audit_private.insert_code is
    'Generated code that writes the event';

-- The last resort: only PostgreSQL's own code.
-- The same code serves all operations, so a missing row is null.
create or replace function audit_private.last_code(mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return coalesce((
    select string_agg(format($sql$
    begin
        _said := _said || jsonb_build_object(%L || _side, %s);
    exception when assert_failure or others then
        null;
    end;$sql$, part || '.', case
        when mapping -> 'digest' ? part then format('audit_private.digest(%s)', code)
        when not mapping -> 'long' ? part then code
        when part = 'organization' then
            format('case when length(%1$s) <= 200 then audit_private.safe_name(%1$s, %2$s) end',
                code, audit_private.secrets_code(mapping, 'UPDATE'))
        else format('left(audit_private.safe_name(%s, %s), 200)', code,
            audit_private.secrets_code(mapping, 'UPDATE')) end), '' order by part)
    from unnest('{organization,subject,target_id}'::text[]) as part
        cross join audit_private.text_code(mapping, mapping ->> part, '_row') as code
    where code is not null
), '');
comment on function audit_private.last_code is
    'Generated code for a row of which only plain columns could be read';

create or replace function audit_private.fallback_code(id int, mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return format($sql$
declare
    _said jsonb := audit_private.fall_back(%s, op, old, new, reason, %L);
    _side text := case op when 'DELETE' then 'old' else 'new' end;
    _row record;
begin
    if _said is not null then
        return _said;
    end if;
    _said := '{}';
    if op = 'DELETE' then
        _row := old;
    else
        _row := new;
    end if;%s
    return jsonb_build_object('action', %L, 'op', op, 'said', _said,
        'mapping', %L::jsonb, 'degraded', jsonb_build_object(
            'sqlstate', reason, 'lost', array_remove(array['row'%s], null), 'op', op));
end$sql$, id, audit_private.said_mapping(mapping), audit_private.last_code(mapping),
    mapping -> 'verbs' ->> 'changed', jsonb_build_object(
        'id', mapping -> 'id', 'verbs', mapping -> 'verbs', 'redact', mapping -> 'redact',
        'target_type', mapping -> 'target_type'),
    case when mapping ? 'organization' then $sql$,
                case when _said ->> ('organization.' || _side) is null then 'organization' end$sql$
    end);
comment on function audit_private.fallback_code is
    'Body of audit_private.fall_back_<id>, '
    'which reads a row after the generated code raised an error';
