-- Fallback: captures a row that the generated code could not read, because the table changed since
-- it was attached, or because a value or a lookup fails. It reads column by column, and expression
-- by expression; details.degraded names what was lost.

create or replace function audit_private.redact(image jsonb, mapping jsonb, secrets text[])
returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return case when redact.image is not null then (
    select coalesce(jsonb_object_agg(key, case
        when value <> 'null' and mapping -> 'redact' ? key
            or jsonb_typeof(value) not in ('null', 'boolean') and audit_private.is_secret(key)
            -- A key may be built from a secret.
            or mapping -> 'key' ? key and audit_private.holds(value #>> '{}', redact.secrets)
        then '"[redacted]"' else audit_private.redact_json(value) end), '{}')
    from jsonb_each(redact.image)
) end;
comment on function audit_private.redact is
    'A row as an event may show it: without the values of redacted columns, of columns that look '
    'like secrets, and of secrets within other values';

create or replace function audit_private.holds_row(type oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return (
    with recursive held (oid) as (
        select holds_row.type
        union
        select coalesce(r.rngsubtype, nullif(t.typbasetype, 0), t.typelem)
        from held join pg_type as t on t.oid = held.oid
            left join pg_range as r on t.oid in (r.rngtypid, r.rngmultitypid)
    )
    select bool_or(t.typtype = 'c') from held join pg_type as t on t.oid = held.oid
);
comment on function audit_private.holds_row is
    'Whether values of a type are rows, or domains, arrays or ranges of rows';

create or replace function audit_private.read_row(
    source anyelement,
    out image jsonb,
    out as_text text[],
    out lost text[]
)
language plpgsql stable set search_path = pg_catalog, pg_temp set bytea_output = hex
as $$
declare
    _column text;
    _holds_row boolean;
    _value jsonb;
begin
    image := to_jsonb(read_row.source);
exception when assert_failure or others then
    image := '{}';
    for _column, _holds_row in
        select attname, audit_private.holds_row(atttypid)
        from pg_attribute
        where attrelid = (select typrelid from pg_type where oid = pg_typeof(read_row.source))
            and attnum > 0 and not attisdropped
        order by attnum
    loop
        begin
            execute format('select to_jsonb(($1).%I)', _column) into _value using read_row.source;
        exception when assert_failure or others then
            begin
                -- A row as text has no column names,
                -- and only these show which of its values are secrets.
                if _holds_row then
                    raise exception using errcode = 'data_exception';
                end if;
                execute format('select to_jsonb(($1).%I::text)', _column)
                    into _value using read_row.source;
                as_text := as_text || _column;
            exception when assert_failure or others then
                _value := to_jsonb(format('[unreadable: %s]', sqlstate));
                lost := lost || _column;
            end;
        end;
        image := image || jsonb_build_object(_column, _value);
    end loop;
end
$$;
comment on function audit_private.read_row is
    'A row as jsonb, with the names of the columns that could be read only as text, or not at all';

create or replace function audit_private.evaluate(expression text, source anyelement) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _value text;
begin
    if evaluate.expression is not null then
        execute format(E'select (%s\n)::text from (select ($1).*) as r', evaluate.expression)
            into _value using evaluate.source;
    end if;
    return _value;
end
$$;
comment on function audit_private.evaluate is
    'The value of a mapping expression for a row';

create or replace function audit_private.action_of(
    mapping jsonb,
    op text,
    was_alive boolean,
    is_alive boolean,
    old_role text,
    new_role text
) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return coalesce(action_of.mapping -> 'verbs' ->> case
    when action_of.mapping ? 'parent' then 'changed'
    when action_of.op = 'INSERT' then case when is_alive then 'born' else 'prepared' end
    when action_of.op = 'DELETE' then case when was_alive then 'died' else 'purged' end
    when is_alive and was_alive is not true then 'born'
    when was_alive and is_alive is not true then 'died'
    when old_role is distinct from new_role then 'role_changed'
    else 'changed'
end, action_of.mapping -> 'verbs' ->> 'changed');
comment on function audit_private.action_of is
    'The action of a change of a row, by the verbs of its kind';

-- Each expression is evaluated on its own: one that fails does not stop the others. A value that
-- becomes a digest is not cut.
create or replace function audit_private.evaluate_each(
    mapping jsonb, old anyelement, new anyelement, op text, secrets text[],
    out said jsonb, out digest text[], out lost text[]
)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _name text;
    _side text;
    _value text;
begin
    said := '{}';
    foreach _name in array array['organization', 'target_id', 'subject', 'role', 'alive', 'row_id',
        'group_id']
    loop
        continue when not evaluate_each.mapping ? _name;
        foreach _side in array array['old', 'new'] loop
            continue when _side = case op when 'INSERT' then 'old' when 'DELETE' then 'new' end;
            begin
                _value := case _side
                    when 'old' then audit_private.evaluate(mapping ->> _name, old)
                    else audit_private.evaluate(mapping ->> _name, new) end;
                if _name in ('role', 'alive') then
                    null;
                elsif mapping -> 'digest' ? _name or audit_private.holds(_value, secrets)
                    or audit_private.redact_text(_value) <> _value
                then
                    digest := digest || (_name || '.' || _side);
                elsif length(_value) > 200 then
                    lost := lost || _name;
                    -- A shortened identifier of an organisation could be that of another one.
                    _value := case when _name <> 'organization' then left(_value, 200) end;
                end if;
            exception
                when statement_too_complex or insufficient_resources then
                    raise;
                when assert_failure or others then
                    lost := lost || _name;
                    _value := case when _name = 'alive' then 'true' end;
            end;
            said := said || jsonb_build_object(_name || '.' || _side, _value);
        end loop;
    end loop;
end
$$;
comment on function audit_private.evaluate_each is
    'The value of each expression of a mapping for both rows, '
    'which values are secrets, and which expressions failed';

-- Compares bytes: an unreadable value looks the same before and after, and a cast may lie.
create or replace function audit_private.changed_among(
    columns text[], old anyelement, new anyelement
) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _column text;
    _differs boolean;
    _changed text[];
begin
    foreach _column in array coalesce(columns, '{}') loop
        execute format('select row(($1).%1$I)::record *<> row(($2).%1$I)::record', _column)
            into _differs using old, new;
        if _differs then
            _changed := _changed || _column;
        end if;
    end loop;
    return _changed;
end
$$;
comment on function audit_private.changed_among is
    'Which of some columns differ, byte by byte, between two rows';

-- The changed columns of an update; otherwise the whole row.
create or replace function audit_private.images_of(
    mapping jsonb, op text, before jsonb, after jsonb, changed text[], secrets text[],
    out old_values jsonb, out new_values jsonb
)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _same text[] := array(select jsonb_array_elements_text(mapping -> 'virtual'));
begin
    if op = 'UPDATE' and not mapping ? 'whole' then
        _same := _same
            || array(select key from jsonb_object_keys(after) as key where key <> all (changed));
    end if;
    old_values := audit_private.redact(before - _same, mapping, secrets);
    new_values := audit_private.redact(after - _same, mapping, secrets);
end
$$;
comment on function audit_private.images_of is
    'The values before and after that an event shows, secrets redacted';

create or replace function audit_private.degraded(lost text[], as_text text[], reason text)
returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return (
    select case when told <> '{}' then told || jsonb_build_object('sqlstate', reason) end
    from jsonb_strip_nulls(jsonb_build_object(
        'lost', (select jsonb_agg(distinct n) from unnest(lost) as n),
        'as_text', (select jsonb_agg(distinct n) from unnest(as_text) as n))) as told
);
comment on function audit_private.degraded is
    'The details of what of a row was lost, and why; null if nothing was';

create or replace function audit_private.late_values(mapping jsonb, image jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return (
    select jsonb_agg(image ->> name order by n)
    from jsonb_array_elements_text(mapping -> 'late') with ordinality as l (name, n)
);
comment on function audit_private.late_values is
    'The values of a row by which its organisation is looked up again at the commit';

create or replace function audit_private.handed_of(
    mapping jsonb, op text, said jsonb, lost text[], before jsonb, after jsonb, secrets text[]
) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    select jsonb_build_object('was', was, 'is', "is",
        'old_values', i.old_values, 'new_values', i.new_values)
    from (
            select coalesce((said ->> 'alive.old')::boolean, true) or mapping ? 'parent',
                coalesce((said ->> 'alive.new')::boolean, true) or mapping ? 'parent'
        ) as alive (was, "is")
        cross join audit_private.images_of(
            mapping || '{"whole": true}', op, before, after, null, secrets) as i
    where op = 'UPDATE' and (was or "is") and exists (
        select from unnest(audit_private.handed_parts(mapping)) as part
        where part <> all (coalesce(lost, '{}'))
            and said ->> (part || '.old') is distinct from said ->> (part || '.new'))
);
comment on function audit_private.handed_of is
    'What audit_private.append_handed() needs if an update hands a membership on; null otherwise';

create or replace function audit_private.read_change(
    op text, old anyelement, new anyelement, mapping jsonb, reason text
) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _before record := audit_private.read_row(read_change.old);
    _after record := audit_private.read_row(read_change.new);
    _said record;
    _images record;
    _secrets text[] := array(
        select distinct value
        from unnest(array[_before.image, _after.image]) as i (image)
            cross join jsonb_each_text(i.image)
        where read_change.mapping -> 'redact' ? key and length(value) >= 6);
    _changed text[];
    _lost text[] := _before.lost || _after.lost;
    _as_text text[] := _before.as_text || _after.as_text;
begin
    if op = 'UPDATE' then
        _changed := audit_private.changed_among(array(
            select key from jsonb_object_keys(_after.image) as key
            where not coalesce(mapping -> 'ignore' ? key, false)), old, new);
        if _changed is null then
            return '{"unchanged": true}';
        elsif not mapping ? 'whole' then
            _lost := array(select n from unnest(_lost) as n where n = any (_changed));
            _as_text := array(select n from unnest(_as_text) as n where n = any (_changed));
        end if;
    end if;
    _images := audit_private.images_of(
        mapping, op, _before.image, _after.image, _changed, _secrets);
    _said := audit_private.evaluate_each(mapping, old, new, op, _secrets);
    return jsonb_build_object(
        'action', audit_private.action_of(mapping, op,
            coalesce((_said.said ->> 'alive.old')::boolean, not mapping ? 'alive'),
            coalesce((_said.said ->> 'alive.new')::boolean, not mapping ? 'alive'),
            _said.said ->> 'role.old', _said.said ->> 'role.new'),
        'said', _said.said, 'digest', to_jsonb(_said.digest),
        'old_values', _images.old_values, 'new_values', _images.new_values,
        'handed', audit_private.handed_of(
            mapping, op, _said.said, _lost || _said.lost, _before.image, _after.image, _secrets),
        'late', audit_private.late_values(mapping, _after.image),
        'degraded', audit_private.degraded(_lost || _said.lost, _as_text, reason));
end
$$;
comment on function audit_private.read_change is
    'What a changed row says, read without the generated code, and what of it was lost';

-- Owned by audit_mapper, because values and expressions may run code of the application. The owner
-- of that code may alter this function, so it checks its role before it does anything else.
create or replace function audit_private.rescue(
    op text,
    old anyelement,
    new anyelement,
    mapping jsonb,
    reason text
) returns jsonb
language plpgsql immutable security definer set search_path = pg_catalog, pg_temp
    -- So that identifiers are written as the generated code writes them.
    set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
    set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C'
as $$
begin
    if current_user operator(pg_catalog.<>) 'audit_mapper'::pg_catalog.name then
        raise exception 'audit_private.rescue runs as %', current_user;
    end if;
    return audit_private.read_change(op, old, new, mapping, reason);
end
$$;
-- Definer: code of the application runs as audit_mapper. IMMUTABLE, so that PL/pgSQL keeps the
-- snapshot of the statement, as in the functions that read a row.
comment on function audit_private.rescue is
    'Does the work of audit_private.read_change() as audit_mapper';

-- Details that the fallback makes: the generated code has its own copies.
create or replace function audit_private.shown_role(mapping jsonb, role jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return case when mapping -> 'redact' ? (mapping ->> 'role_column') and role <> 'null'
    then '"[redacted]"' else coalesce(role, 'null') end;
comment on function audit_private.shown_role is
    'A role as details show it; redacted if the mapping redacts its column';

create or replace function audit_private.said_mapping(mapping jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return said_mapping.mapping
    - '{admin,checked,code,given,is_foreign,key_code,long,named,own,raw,secrets,settings}'::text[]
    || jsonb_build_object('is_fresh', said_mapping.mapping -> 'raw' ? 'organization');
comment on function audit_private.said_mapping is
    'The parts of a completed mapping that the fallback reads';

create or replace function audit_private.fall_back(
    id int,
    op text,
    old anyelement,
    new anyelement,
    reason text,
    mapping jsonb
) returns jsonb
language plpgsql immutable set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _mapping jsonb;
    _said jsonb;
    _fresh jsonb;
    _locks text[] := audit_private.held_locks();
begin
    -- By the type of the row: before a restore is settled, the oid in the attachment may be wrong.
    select audit_private.know_new(t.typrelid, fall_back.mapping) into _mapping
    from pg_type as t where t.oid = pg_typeof(fall_back.new);
    begin
        perform audit_private.wait_longer();
        _said := audit_private.rescue(op, old, new, _mapping, reason);
        -- Only a fresh snapshot sees rows that this very statement inserted.
        if (_mapping ->> 'is_fresh')::boolean and _said #>> '{said,organization.new}' is null
            and not coalesce(_said #> '{degraded,lost}' ? 'organization', false) and op <> 'DELETE'
        then
            execute format('select to_jsonb(audit_private.organization_%s($1))', id)
                into _fresh using new;
            _said := jsonb_set(_said, '{said,organization.new}', coalesce(_fresh, 'null'));
            if _mapping -> 'digest' ? 'organization' then
                _said := jsonb_set(_said, '{digest}',
                    coalesce(nullif(_said -> 'digest', 'null'), '[]') || '"organization.new"');
            end if;
        end if;
        -- Rolled back, so that nothing that code of the application sets or does remains.
        raise exception using errcode = 'AU001';
    exception
        when sqlstate 'AU001' then null;
        when query_canceled or statement_too_complex or insufficient_resources then
            -- A user who exhausts the stack on purpose must not decide what is recorded.
            perform audit_private.release_locks(_locks);
            raise;
        when assert_failure or others then _said := null;
    end;
    perform audit_private.release_locks(_locks);
    return _said || jsonb_build_object('mapping', _mapping, 'op', op);
exception
    when query_canceled or statement_too_complex or insufficient_resources then raise;
    when assert_failure or others then return null;
end
$$;
-- IMMUTABLE for the same reason as audit_private.rescue.
comment on function audit_private.fall_back is
    'What audit_private.rescue() reads of a row; '
    'effects of code that it runs are rolled back; null if it fails too';

create or replace function audit_private.append_said(said jsonb, captured_from text) returns void
-- A session that restores a dump sets row_security to off, which would make the INSERT an error.
language plpgsql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _mapping jsonb := append_said.said -> 'mapping';
    _of jsonb := append_said.said -> 'said';
    _context jsonb := audit_private.context_of(append_said.said ->> 'op');
    _degraded jsonb := nullif(append_said.said -> 'degraded', 'null');
    _organization text;
    _former text;
    _action text := append_said.said ->> 'action';
begin
    if append_said.said ? 'unchanged' or _action = '' then
        return;
    end if;
    select _of || coalesce(jsonb_object_agg(n, audit_private.digest(_of ->> n)), '{}') into _of
    from jsonb_array_elements_text(nullif(append_said.said -> 'digest', 'null')) as n;
    _former := _of ->> 'organization.old';
    _organization := coalesce(_of ->> 'organization.new', _former,
        -- An organisation that was lost is not replaced by that of the context.
        case when not coalesce(_degraded -> 'lost' ? 'organization', false)
            then left(_context ->> 'organization_id', 200) end);
    if _context is null and nullif(current_setting('auditdb.context', true), '') is not null then
        _degraded := coalesce(_degraded, '{}') || jsonb_build_object(
            'lost', coalesce(_degraded -> 'lost', '[]') || '["context"]');
    end if;
    if _mapping ->> 'target_type' = 'organization' and said ->> 'op' <> 'BASELINE' then
        perform audit_private.start_organization(
            (_mapping ->> 'id')::int, append_said.said ->> 'op', _organization,
            _of ->> 'target_id.old', _of ->> 'target_id.new');
    end if;
    perform audit_private.append_read(append_said.said, _of, _organization, _former, captured_from,
        audit_private.said_details(_mapping, _action, _of, _organization)
            || jsonb_strip_nulls(jsonb_build_object('degraded', _degraded)),
        _context);
end
$$;
comment on function audit_private.append_said is
    'Writes the events of a row that audit_private.fall_back() has read';

create or replace function audit_private.append_read(
    said jsonb, told jsonb, organization_id text, former_organization_id text, captured_from text,
    details jsonb, context jsonb
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _mapping jsonb := append_read.said -> 'mapping';
    _action text := append_read.said ->> 'action';
    _late jsonb := case when append_read.organization_id is null
        then audit_private.said_late(append_read.said) end;
begin
    if append_read.said -> 'handed' <> 'null' then
        perform audit_private.append_handed(
            append_read.said -> 'handed'
                || audit_private.said_handed(_mapping, told, organization_id),
            audit_private.handed_verbs(_mapping), organization_id, former_organization_id,
            _mapping ->> 'target_type', told ->> 'target_id.new', told ->> 'subject.new',
            captured_from, details, context, _late);
        return;
    end if;
    perform audit_private.append_facts(
        case when append_read.said ->> 'op' = 'UPDATE' then _mapping -> 'facts' end,
        _action, coalesce(_action = _mapping -> 'verbs' ->> 'changed', false),
        organization_id, former_organization_id, _mapping ->> 'target_type',
        coalesce(told ->> 'target_id.new', told ->> 'target_id.old'),
        coalesce(told ->> 'subject.new', told ->> 'subject.old'),
        captured_from, nullif(append_read.said -> 'old_values', 'null'),
        nullif(append_read.said -> 'new_values', 'null'), details, context, _late);
end
$$;
comment on function audit_private.append_read is
    'Writes the events of a row whose organisation audit_private.append_said() has found';

create or replace function audit_private.said_late(said jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return case when said ->> 'op' <> 'DELETE' and jsonb_typeof(said -> 'late') = 'array'
    and not coalesce(said #> '{degraded,lost}' ? 'organization', false)
    then jsonb_build_object('id', said #> '{mapping,id}', 'inputs', said -> 'late',
        'is_foreign', true,
        'is_digest', coalesce(said #> '{mapping,digest}' ? 'organization', false)) end;
comment on function audit_private.said_late is
    'What audit_private.put_aside() needs of a row that audit_private.fall_back() has read';

create or replace function audit_private.said_handed(mapping jsonb, said jsonb, organization text)
returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return jsonb_build_object('subject', said -> 'subject.old', 'target_id', said -> 'target_id.old',
    'previous_role', audit_private.shown_role(mapping, said -> 'role.old'),
    'new_role', audit_private.shown_role(mapping, said -> 'role.new'),
    'group', audit_private.told_group(mapping ->> 'group_type', said ->> 'group_id.old',
        case when mapping ? 'group_is_nested' then organization end));
comment on function audit_private.said_handed is
    'What a row says of the former member of a membership that was handed on';

create or replace function audit_private.said_details(
    mapping jsonb, action text, said jsonb, organization text
) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return case when action = mapping -> 'verbs' ->> 'role_changed' then jsonb_build_object(
        'previous_role', audit_private.shown_role(mapping, said -> 'role.old'),
        'new_role', audit_private.shown_role(mapping, said -> 'role.new'))
        else '{}' end
    || case when mapping ? 'row_id' then jsonb_build_object(
        'row_id', coalesce(said -> 'row_id.new', said -> 'row_id.old')) else '{}' end
    || case when action like '%.baseline' and said ->> 'alive.new' = 'false'
        then '{"alive": false}' else '{}' end::jsonb
    || audit_private.told_group(mapping ->> 'group_type',
        coalesce(said ->> 'group_id.new', said ->> 'group_id.old'),
        case when mapping ? 'group_is_nested' then organization end);
comment on function audit_private.said_details is
    'Details of a row: the roles of a role change, the key of a child row, the group of a '
    'membership, and a mark for a baseline row that does not count';
