-- Code: the paragraphs of a generated trigger function, each a function that returns lines.
-- The mapping is that of audit_private.complete_mapping(); what audit_mapper read stands in _before and _after.

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
comment on function audit_private.part_code(jsonb, text, text) is
    'Generated expression for one thing that the mapping says of a row';

-- Of an update both rows' secrets: one that goes is a secret still.
create or replace function audit_private.secrets_code(mapping jsonb, op text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return (
    select 'array[' || string_agg(code, ', ' order by n, side) || ']'
    from jsonb_array_elements(mapping -> 'secrets') with ordinality as s (of, n)
        cross join jsonb_each_text(s.of) as c (side, code)
    where side <> case op when 'INSERT' then 'old' when 'DELETE' then 'new' else '' end
);
comment on function audit_private.secrets_code(jsonb, text) is
    'Generated array of the values that an identifier may not contain, or null';

-- Fits an index, and shows no secret.
create or replace function audit_private.name_code(mapping jsonb, part text, side text, op text)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _code text := audit_private.part_code(mapping, part, side);
    _secrets text := audit_private.secrets_code(mapping, op);
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
        case when _secrets is null then format('audit_private.may_hold_secret(%s)', _code)
            else format('%s is not null', _code) end,
        coalesce(_secrets, 'null'));
end
$$;
comment on function audit_private.name_code(jsonb, text, text, text) is
    'Generated expression for an identifier: a digest where it is, or contains, a secret';

create or replace function audit_private.who_code() returns text
language sql immutable set search_path = pg_catalog, pg_temp
return format($sql$
        -- Who acts, and from where.
        _context := nullif(current_setting('auditdb.context', true), '')::jsonb;
        if _context is null then
            _actor_id := session_user;
            _actor_type := 'database';
            _source := 'sql';
            _details := audit_private.client_details();
        else
            if jsonb_typeof(_context) <> 'object' then
                raise exception using errcode = 'invalid_parameter_value';
            end if;
            _actor_id := left(_context ->> 'actor_id', 200);
            _actor_type := coalesce(left(_context ->> 'actor_type', 200), 'database');
            _impersonator_id := left(_context ->> 'impersonator_id', 200);
            _source := coalesce(left(_context ->> 'source', 200), 'sql');
            _organization := left(_context ->> 'organization_id', 200);
            _details := nullif(_context -> 'details', '{}');
            if jsonb_typeof(_details) <> 'object'
                or _details ?| %L or _actor_id is null
            then
                _details := audit_private.context_details(_context);
                if _actor_id is null then
                    _details := audit_private.client_details() || coalesce(_details, '{}');
                end if;
            end if;
        end if;$sql$, audit_private.own_details());
comment on function audit_private.who_code() is 'Generated code that says who acts, and from where';

create or replace function audit_private.shape_code(target regclass, side text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format($sql$
        -- The columns and types that it was attached with: else this raises, or is not even parsed.
        if current_setting('row_security') = 'off' or %s *<> row(%s) then
            raise exception using errcode = 'datatype_mismatch';
        end if;$sql$, side,
        string_agg(E'\n            ' || coalesce(audit_private.typed(type, format('%s.%I', side, name)),
            format('%s.%I', side, name)), ',' order by attnum) || E'\n        ')
    from audit_private.own_columns(target)
);
comment on function audit_private.shape_code(regclass, text) is
    'Generated code that raises if the table has changed since it was attached';

-- Equality where it means the same bytes, else the bytes: 1.0 and 1.00 are a change.
-- A collation to which 'a' and 'A' are equal may come later than this code.
create or replace function audit_private.differs_code(type pg_type, name text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return case
    when audit_private.typed(type, '') is null then
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
comment on function audit_private.differs_code(pg_type, text) is
    'Generated condition: a column has another value than before';

-- What reads the same columns of the same statement says the same.
create or replace function audit_private.inputs_code(target regclass, mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when not coalesce(mapping -> 'checked' ? 'inputs', false) then 'old *<> new' else coalesce((
    select string_agg(audit_private.differs_code(type, name), ' or ' order by attnum)
    from audit_private.own_columns(target)
    where mapping #> '{checked,inputs}' ? name or mapping -> 'raw' ? ('column ' || name)
        or name in (
            select audit_private.column_of(target, mapping ->> part)
            from jsonb_array_elements_text(mapping -> 'raw') as part)
), 'false') end;
comment on function audit_private.inputs_code(regclass, jsonb) is
    'Generated condition: an update changed what audit_mapper reads';

-- Columns alone are read only where one of them changed: nothing else is told of an update.
create or replace function audit_private.read_call_code(id int, target regclass, mapping jsonb, op text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when mapping -> 'raw' = '[]' then '' else (
    select format($sql$
        -- Read as audit_mapper: %s.%s%s
        %s := audit_private.read_%s(%s);%s
        if %s then
            raise exception using errcode = 'data_exception';
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
        _before := case when %s then audit_private.read_%s(old) else _after end;$sql$, inputs, id) end,
        (
            select string_agg(format('cardinality(%s) is distinct from %s', v,
                jsonb_array_length(mapping -> 'raw')), ' or ')
            from unnest(case op when 'UPDATE' then '{_after,_before}' when 'INSERT' then '{_after}'
                else '{_before}' end::text[]) as v
        ),
        case when on_change then E'\n        end if;' end)
    from (
        select op = 'UPDATE' and not mapping ? 'whole' and not exists (
            select from jsonb_array_elements_text(mapping -> 'raw') as part
            where part not like 'column %') as on_change
    ) as t
        cross join audit_private.inputs_code(target, mapping) as inputs
) end;
comment on function audit_private.read_call_code(int, regclass, jsonb, text) is
    'Generated code that has audit_mapper read what audit_owner may not';

create or replace function audit_private.value_code(
    mapping jsonb, type pg_type, name text, side text
) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return case
    when mapping -> 'redact' ? name then
        format('case when %s.%I is not null then ''[redacted]'' end', side, name)
    when mapping -> 'raw' ? ('column ' || name) then format(case
            when audit_private.is_plain_text((type).oid) then
                'audit_private.safe_text(%s)'
            when audit_private.is_harmless_type((type).oid) then '%s::jsonb'
            else 'audit_private.redact_json(%s::jsonb)' end,
        audit_private.part_code(mapping, 'column ' || name, side))
    -- A key may be made of a secret.
    when mapping -> 'key' ? name and (type).oid = any (array['text', 'varchar']::regtype[])
        and mapping -> 'secrets' <> '[]'
    then format('case when audit_private.holds(%s.%I, %s) then ''[redacted]'' else %s end', side, name,
        audit_private.secrets_code(mapping, case side when 'old' then 'DELETE' else 'INSERT' end),
        audit_private.typed_json(type, format('%s.%I', side, name)))
    else audit_private.typed_json(type, format('%s.%I', side, name))
end;
end
$$;
comment on function audit_private.value_code(jsonb, pg_type, text, text) is
    'Generated expression for a value as an event shows it';

create or replace function audit_private.image_code(target regclass, mapping jsonb, side text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    -- A function takes 100 arguments.
    select coalesce(string_agg('jsonb_build_object(' || pairs || E'\n        )', ' || ' order by n),
        '''{}''::jsonb')
    from (
        select (attnum - 1) / 50 as n, string_agg(format(E'\n            %L, %s', name,
            audit_private.value_code(mapping, type, name, side)), ',' order by attnum) as pairs
        from audit_private.own_columns(target)
        where not is_virtual
        group by 1
    ) as p
);
comment on function audit_private.image_code(regclass, jsonb, text) is
    'Generated expression for all of a row, secrets redacted';

create or replace function audit_private.change_code(target regclass, mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(string_agg(format($sql$
        if %1$s then
            _old := _old || jsonb_build_object(%2$L, %3$s);
            _new := _new || jsonb_build_object(%2$L, %4$s);
        end if;$sql$, audit_private.differs_code(type, name), name,
            audit_private.value_code(mapping, type, name, 'old'),
            audit_private.value_code(mapping, type, name, 'new')), '' order by attnum), '')
    from audit_private.own_columns(target)
    where not coalesce(mapping -> 'ignore' ? name, false)
);
comment on function audit_private.change_code(regclass, jsonb) is
    'Generated code that puts the columns which changed into _old and _new';

create or replace function audit_private.unchanged_code(target regclass, mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return format($sql$
        if not (%s) then
            return null;
        end if;$sql$, coalesce((
    select string_agg(audit_private.differs_code(type, name), E'\n            or ' order by attnum)
    from audit_private.own_columns(target)
    where not coalesce(mapping -> 'ignore' ? name, false)
), 'false'));
comment on function audit_private.unchanged_code(regclass, jsonb) is
    'Generated code that leaves an update alone which changed nothing that is told';

create or replace function audit_private.values_code(target regclass, mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return E'\n        -- What it was, and what it is.' || case op
    when 'INSERT' then format(E'\n        _new := %s;', audit_private.image_code(target, mapping, 'new'))
    when 'DELETE' then format(E'\n        _old := %s;', audit_private.image_code(target, mapping, 'old'))
    else case when mapping ? 'whole' then format(E'\n        _old := %s;\n        _new := %s;',
            audit_private.image_code(target, mapping, 'old'), audit_private.image_code(target, mapping, 'new'))
        else $sql$
        _old := '{}';
        _new := '{}';$sql$ || audit_private.change_code(target, mapping) end
    end;
comment on function audit_private.values_code(regclass, jsonb, text) is
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
    if mapping ? 'parent' then
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
        when _branches <> '' then format('case%s else %L end', _branches, _verbs ->> 'changed')
        else quote_literal(_verbs ->> case op when 'INSERT' then 'born' when 'DELETE' then 'died'
            else 'changed' end)
    end;
end
$$;
comment on function audit_private.action_code(jsonb, text) is
    'Generated expression: audit_private.action_of for one mapping and operation';

create or replace function audit_private.role_code(mapping jsonb, side text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case when mapping -> 'redact' ? (mapping ->> 'role_column')
        then format('case when %s is not null then ''[redacted]'' end', code) else code end
    from audit_private.part_code(mapping, 'role', side) as code
);
comment on function audit_private.role_code(jsonb, text) is
    'Generated expression for a role as details show it';

create or replace function audit_private.details_code(mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return concat(
    case when mapping ? 'role' and (op = 'UPDATE' or mapping ? 'parent') then format($sql$
        if _action = %L then
            _details := coalesce(_details, '{}') || jsonb_build_object(
                'previous_role', %s, 'new_role', %s);
        end if;$sql$, mapping -> 'verbs' ->> 'role_changed',
        case op when 'INSERT' then 'null' else audit_private.role_code(mapping, 'old') end,
        case op when 'DELETE' then 'null' else audit_private.role_code(mapping, 'new') end)
    end,
    case when mapping ? 'row_id' then format($sql$
        _details := coalesce(_details, '{}') || jsonb_build_object('row_id', %s);$sql$,
        audit_private.name_code(mapping, 'row_id', case op when 'DELETE' then 'old' else 'new' end, op))
    end);
comment on function audit_private.details_code(jsonb, text) is
    'Generated code for details: the roles of a role change, the key of a child row';

-- Of an update, the new row says whose it is; the old one only where that is unknown, and where the
-- row came from another organisation, which is told too.
create or replace function audit_private.whose_code(id int, target regclass, mapping jsonb, op text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when not mapping ? 'organization' then '' else (
    select concat(
        case when op = 'UPDATE' then format($sql$
        if %s then
            _former := %s;
        end if;$sql$, differs, audit_private.name_code(mapping, 'organization', 'old', op)) end,
        format(E'\n        _organization := coalesce(\n            %s,\n            _organization\n'
            '        );', concat_ws(E',\n            ',
            audit_private.name_code(mapping, 'organization', side, op),
            case when op = 'UPDATE' then
                '_former' end,
            -- What this very statement made is visible to a fresh snapshot only.
            case when is_raw then format(
                case when mapping -> 'digest' ? 'organization'
                    then 'audit_private.digest(audit_private.organization_%s(%s))'
                    else 'audit_private.safe_name(audit_private.organization_%s(%s), %s)' end, id, side,
                coalesce(audit_private.secrets_code(mapping, op), 'null')) end)),
        case when op = 'UPDATE' then $sql$
        if _former <> _organization then
            _details := coalesce(_details, '{}') || audit_private.moved(_former, _organization);
        end if;$sql$ end)
    from (
        select case op when 'DELETE' then 'old' else 'new' end as side,
            mapping -> 'raw' ? 'organization' as is_raw,
            coalesce((
                select audit_private.differs_code(type, name) from audit_private.own_columns(target)
                where name = (select audit_private.column_of(target, mapping ->> 'organization'))
                    and audit_private.typed(type, '') is not null
            ), format('%s is distinct from %s',
                audit_private.part_code(mapping, 'organization', 'old'),
                audit_private.part_code(mapping, 'organization', 'new'))) as differs
    ) as s
) end;
comment on function audit_private.whose_code(int, regclass, jsonb, text) is
    'Generated code that says which organisation an event belongs to, and which one a row left';

create or replace function audit_private.names_code(mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return coalesce((
    select string_agg(format(E'\n        _%s := %s;', part, audit_private.name_code(mapping, part,
        case op when 'DELETE' then 'old' else 'new' end, op)), '' order by part)
    from unnest('{subject,target_id}'::text[]) as part
    where mapping ? part
), '');
comment on function audit_private.names_code(jsonb, text) is
    'Generated code that names what the event was done to, and whom it is about';

-- The log of an organisation begins before the event that tells of its row.
create or replace function audit_private.start_code(mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case
    when mapping ->> 'target_type' <> 'organization' or not mapping ? 'organization' then null
    when op <> 'DELETE' then format($sql$
    perform audit_private.start_organization(%s, tg_op, _organization, %s, _target_id);$sql$,
        mapping ->> 'id', case op when 'INSERT' then 'null'
            else audit_private.name_code(mapping, 'target_id', 'old', op) end) end;
comment on function audit_private.start_code(jsonb, text) is
    'Generated code that says that an organisation came to be; null for another kind';

-- The INSERT stands outside of the guarded block: inside, each row would take a subtransaction id,
-- and more than 64 of them in a transaction slow down all others.
create or replace function audit_private.insert_code(mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return concat(
    case when op = 'UPDATE' and mapping -> 'facts' <> '[]' then format($sql$
    if _new ?| %L then
        perform audit_private.append_facts(%L, _action, _action = %L, _organization, _former, %L,
            _target_id, _subject, _captured_from, _old, _new,
            _details - array(select jsonb_object_keys(audit_private.context_details(_context))), _context);
        return null;
    end if;$sql$,
        (select array_agg(f ->> 'column') from jsonb_array_elements(mapping -> 'facts') as f),
        mapping -> 'facts', mapping -> 'verbs' ->> 'changed', mapping ->> 'target_type') end,
    case when op = 'UPDATE' and mapping ? 'organization' then E'\n    loop' end,
    audit_private.start_code(mapping, op),
    format($sql$
    insert into audit.event (
        action, result, actor_id, actor_type, impersonator_id, organization_id,
        target_type, target_id, subject_id, source, captured_from,
        old_values, new_values, details
    ) values (
        _action, 'success', _actor_id, _actor_type, _impersonator_id, _organization,
        %L, _target_id, _subject, _source, _captured_from,
        _old, _new, _details
    );$sql$, mapping ->> 'target_type'),
    case when op = 'UPDATE' and mapping ? 'organization' then $sql$
    exit when _former is null or _former = _organization;
    _organization := _former;
    end loop;$sql$ end,
    E'\n    return null;');
comment on function audit_private.insert_code(jsonb, text) is 'Generated code that writes the event';

-- The last rung: what can be told without any code but PostgreSQL's own.
create or replace function audit_private.last_code(target regclass, mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return concat(
    E'\n        _said := \'{}\';',
    (
        select string_agg(format($sql$
        begin
            _said := _said || jsonb_build_object(%L, %s);
        exception when assert_failure or others then
            null;
        end;$sql$, part || '.' || side, case
            when mapping -> 'digest' ? part then format('audit_private.digest(%s)', code)
            when not mapping -> 'long' ? part then code
            when part = 'organization' then
                format('case when length(%1$s) <= 200 then audit_private.safe_name(%1$s, %2$s) end',
                    code, secrets)
            else format('left(audit_private.safe_name(%s, %s), 200)', code, secrets) end), ''
            order by part)
        from (select case op when 'DELETE' then 'old' else 'new' end as side,
                coalesce(audit_private.secrets_code(mapping, op), 'null') as secrets) as s
            cross join unnest('{organization,subject,target_id}'::text[]) as part
            cross join audit_private.text_code(target, mapping ->> part, side) as code
        where code is not null
    ),
    format($sql$
        perform audit_private.append_said(jsonb_build_object('action', %L, 'op', tg_op, 'said', _said,
            'mapping', %L::jsonb, 'degraded', jsonb_build_object(
                'sqlstate', _reason, 'lost', array_remove(array['row'%s], null), 'op', tg_op)),
            _captured_from);
        return null;$sql$, mapping -> 'verbs' ->> 'changed', jsonb_build_object(
            'id', mapping -> 'id', 'verbs', mapping -> 'verbs', 'redact', mapping -> 'redact',
            'target_type', mapping -> 'target_type'),
        case when mapping ? 'organization' then format(
            $sql$, case when _said ->> 'organization.%s' is null then 'organization' end$sql$,
            case op when 'DELETE' then 'old' else 'new' end) end));
comment on function audit_private.last_code(regclass, jsonb, text) is
    'Generated code for a row of which nothing could be read but plain columns';
