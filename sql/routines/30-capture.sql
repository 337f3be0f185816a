-- Capture at run time: what the generated trigger functions call.
-- Writes one event for each changed row, in the row's transaction, and never fails for what a row
-- holds.

-- Runs with the rights of the trigger function that calls it, which is the only way to the log.
-- Scalars, not an image: a composite value costs more to hand over than all of them. Expressions
-- stand before the INSERT, not in it: it sets up every node anew at each execution.
create or replace function audit.append(
    action text,
    organization_id text,
    target_type text,
    target_id text,
    subject_id text,
    captured_from text,
    old_values jsonb,
    new_values jsonb,
    details jsonb,
    context jsonb
) returns boolean
-- row_security is off in a session that restores a dump, and would turn the INSERT into an error.
language plpgsql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
#variable_conflict use_variable
declare
    _actor_id text;
    _actor_type text := 'database';
    _impersonator_id text;
    _source text := 'sql';
    _given jsonb;
begin
    if context is null then
        _actor_id := session_user;
        _given := jsonb_strip_nulls(jsonb_build_object(
            'application_name', nullif(current_setting('application_name'), ''),
            'client_addr', host(inet_client_addr())
        ));
    else
        _actor_id := left(context ->> 'actor_id', 200);
        _actor_type := coalesce(left(context ->> 'actor_type', 200), 'database');
        _impersonator_id := left(context ->> 'impersonator_id', 200);
        _source := coalesce(left(context ->> 'source', 200), 'sql');
        if organization_id is null then
            organization_id := left(context ->> 'organization_id', 200);
        end if;
        if jsonb_typeof(context -> 'details') = 'object' then
            _given := context -> 'details';
        end if;
    end if;
    if details is null then
        details := _given;
    elsif _given is not null then
        details := _given || details;
    end if;
    insert into audit.event (
        action, result, actor_id, actor_type, impersonator_id, organization_id,
        target_type, target_id, subject_id, source, captured_from,
        old_values, new_values, details
    ) values (
        action, 'success', _actor_id, _actor_type, _impersonator_id, organization_id,
        target_type, target_id, subject_id, _source, captured_from,
        old_values, new_values, details
    );
    return true;
end
$$;
comment on function audit.append(text, text, text, text, text, text, jsonb, jsonb, jsonb, jsonb) is
    'Writes a captured event; callable by capture functions only';

create or replace function audit.lose_context(details jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return coalesce(details, '{}') || jsonb_build_object('degraded',
    coalesce(details -> 'degraded', '{}') || jsonb_build_object('lost',
        coalesce(details #> '{degraded,lost}', '[]') || '["context"]'));
comment on function audit.lose_context(jsonb) is
    'Details of an event whose context could not be read';

-- A user's row holds several facts. One changed fact names the event; several make an event each,
-- and the columns that belong to none of them go with the first.
create or replace function audit.append_facts(
    image audit.image,
    facts jsonb,
    captured_from text,
    context jsonb
) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _changed jsonb;
    _others text[];
    _fact jsonb;
    _part audit.image;
begin
    select jsonb_agg(f order by n) into _changed
    from jsonb_array_elements(append_facts.facts) with ordinality as t (f, n)
    where append_facts.image.action = 'user.updated'
        and append_facts.image.new_values ? (f ->> 'column');

    if _changed is null then
        _part := append_facts.image;
        perform audit.append(_part.action, _part.organization_id, 'user', _part.target_id,
            _part.subject_id, append_facts.captured_from, _part.old_values, _part.new_values,
            _part.details, append_facts.context);
        return true;
    end if;

    for _fact in select f from jsonb_array_elements(_changed) as f loop
        _part := append_facts.image;
        _part.action := case
            when _fact ? 'action' then _fact ->> 'action'
            when coalesce(_part.new_values -> (_fact ->> 'column'), 'null') in ('false', 'null')
                then 'auth.two_factor_disabled'
            else 'auth.two_factor_enabled'
        end;
        -- Columns that a later event, or an earlier one, shows.
        select coalesce(array_agg(c), '{}') into _others
        from jsonb_array_elements(_changed) as f, jsonb_array_elements_text(f -> 'columns') as c
        where f <> _fact and not (_fact -> 'columns' ? c);
        if _fact = _changed -> 0 then
            _part.old_values := _part.old_values - _others;
            _part.new_values := _part.new_values - _others;
        else
            select jsonb_object_agg(c, _part.old_values -> c),
                jsonb_object_agg(c, _part.new_values -> c)
            into _part.old_values, _part.new_values
            from jsonb_array_elements_text(_fact -> 'columns') as c
            where _part.new_values ? c;
        end if;
        perform audit.append(_part.action, _part.organization_id, 'user', _part.target_id,
            _part.subject_id, append_facts.captured_from, _part.old_values, _part.new_values,
            _part.details, append_facts.context);
    end loop;
    return true;
end
$$;
comment on function audit.append_facts(audit.image, jsonb, text, jsonb) is
    'Writes the events of a user''s row: e-mail, password and two-factor changes under their own '
    'names';

create or replace function audit.is_secret(column_name text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return (column_name ~* '(passw|passphrase|secret|token|hash|salt$|private_?key|api_?key|access_?key'
        '|encrypt|cipher|credential|(backup|recovery|scratch)_?codes?|totp|(^|_)otp|signing_?key)'
        or column_name ~ '[a-z]Otp')
    and column_name !~*
        '(_at|_on|_type|_count|_algorithm|enabled|verified|expires?|expiry|limit|key_?id)$'
    and column_name !~ '[a-z](At|On|Type|Count|Algorithm)$';
comment on function audit.is_secret(text) is
    'Whether values of a column of this name are redacted by default';

create or replace function audit.redact(image jsonb, redacted text[]) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return case when redact.image is not null then (
    select coalesce(jsonb_object_agg(key, case
        when value <> 'null' and key = any(redact.redacted)
            or jsonb_typeof(value) not in ('null', 'boolean') and audit.is_secret(key)
        then '"[redacted]"' else value end), '{}')
    from jsonb_each(redact.image)
) end;
comment on function audit.redact(jsonb, text[]) is
    'An image of a row without the values of the given columns and of those that look like secrets';

-- Column by column where the row as a whole cannot be read.
create or replace function audit.read_row(
    source anyelement,
    out image jsonb,
    out as_text text[],
    out lost text[]
)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _column text;
    _value jsonb;
begin
    image := to_jsonb(read_row.source);
exception when assert_failure or others then
    image := '{}';
    for _column in
        select attname from pg_attribute
        where attrelid = (select typrelid from pg_type where oid = pg_typeof(read_row.source))
            and attnum > 0 and not attisdropped
        order by attnum
    loop
        begin
            execute format('select to_jsonb(($1).%I)', _column) into _value using read_row.source;
        exception when assert_failure or others then
            begin
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
comment on function audit.read_row(anyelement) is
    'A row as jsonb; what could be read only as text, or not at all, is named';

create or replace function audit.evaluate(expression text, source anyelement) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
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
comment on function audit.evaluate(text, anyelement) is 'Value of a mapping expression over a row';

-- The second step of the ladder: taken when the generated code raised, because the table is no
-- longer as it was when attached, or because a value or a lookup cannot be read.
create or replace function audit.rescue(
    op text,
    old anyelement,
    new anyelement,
    mapping jsonb,
    reason text
) returns audit.image
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _image audit.image;
    _before record;
    _after record;
    _lost text[] := '{}';
    _as_text text[] := '{}';
    _redacted text[] := array(select jsonb_array_elements_text(rescue.mapping -> 'redact'));
    _ignored text[] := array(select jsonb_array_elements_text(rescue.mapping -> 'ignore'));
    _values jsonb := '{}';
    _name text;
    _side text;
    _value text;
begin
    _before := audit.read_row(rescue.old);
    _after := audit.read_row(rescue.new);
    _lost := coalesce(_before.lost, '{}') || coalesce(_after.lost, '{}');
    _as_text := coalesce(_before.as_text, '{}') || coalesce(_after.as_text, '{}');
    if not coalesce(_after.image, _before.image) ?& _redacted then
        -- A secret was renamed: it may be in any column that was not there before.
        _redacted := _redacted || array(
            select name from jsonb_object_keys(coalesce(_after.image, _before.image)) as name
            where not rescue.mapping -> 'columns' ? name);
    end if;

    if rescue.op = 'UPDATE' then
        select array_agg(key) into _ignored
        from jsonb_each(_after.image)
        where key = any(_ignored) or value is not distinct from _before.image -> key;
        _image.old_values := _before.image - coalesce(_ignored, '{}');
        _image.new_values := _after.image - coalesce(_ignored, '{}');
        if _image.new_values = '{}' and _lost = '{}' then
            return null;
        end if;
        if rescue.mapping ? 'whole' then
            _image.old_values := _before.image;
            _image.new_values := _after.image;
        end if;
    elsif rescue.op = 'INSERT' then
        _image.new_values := _after.image;
    else
        _image.old_values := _before.image;
    end if;
    _image.old_values := audit.redact(_image.old_values, _redacted);
    _image.new_values := audit.redact(_image.new_values, _redacted);

    -- Each expression on its own, so that one that fails takes no other with it.
    foreach _name in array array['organization', 'target_id', 'subject', 'role', 'alive',
        'row_id'] loop
        foreach _side in array array['old', 'new'] loop
            _value := null;
            continue when _side = case rescue.op when 'INSERT' then 'old' when 'DELETE'
                then 'new' end;
            begin
                _value := case _side
                    when 'old' then audit.evaluate(rescue.mapping ->> _name, rescue.old)
                    else audit.evaluate(rescue.mapping ->> _name, rescue.new) end;
                if length(_value) > 200 then
                    _lost := _lost || _name;
                    -- Cut short, an organisation could be mistaken for another.
                    _value := case when _name <> 'organization' then left(_value, 200) end;
                end if;
            exception when assert_failure or others then
                _lost := _lost || _name;
                if _name = 'alive' then
                    _value := 'true';
                end if;
            end;
            _values := _values || jsonb_build_object(_name || '.' || _side, _value);
        end loop;
    end loop;
    _image.organization_id := coalesce(_values ->> 'organization.new',
        _values ->> 'organization.old');
    _image.target_id := coalesce(_values ->> 'target_id.new', _values ->> 'target_id.old');
    _image.subject_id := coalesce(_values ->> 'subject.new', _values ->> 'subject.old');
    _image.action := audit.action_of(
        rescue.mapping, rescue.op,
        case when rescue.mapping ? 'alive' then (_values ->> 'alive.old')::boolean else true end,
        case when rescue.mapping ? 'alive' then (_values ->> 'alive.new')::boolean else true end,
        _values ->> 'role.old', _values ->> 'role.new'
    );
    if _image.action = rescue.mapping -> 'verbs' ->> 'role_changed' then
        _image.details := jsonb_build_object(
            'previous_role', _values -> 'role.old', 'new_role', _values -> 'role.new');
    end if;
    if rescue.mapping ? 'row_id' then
        _image.details := jsonb_build_object('row_id',
            coalesce(_values -> 'row_id.new', _values -> 'row_id.old'));
    end if;
    if _lost <> '{}' or _as_text <> '{}' then
        _image.details := coalesce(_image.details, '{}') || jsonb_build_object('degraded',
            jsonb_strip_nulls(jsonb_build_object('sqlstate', rescue.reason,
                'lost', (select jsonb_agg(distinct n) from unnest(_lost) as n),
                'as_text', (select jsonb_agg(distinct n) from unnest(_as_text) as n))));
    end if;
    return _image;
end
$$;
comment on function audit.rescue(text, anyelement, anyelement, jsonb, text) is
    'The image of a row that the generated code could not read, with details.degraded naming '
    'what was lost';

create or replace function audit.action_of(
    mapping jsonb,
    op text,
    was_alive boolean,
    is_alive boolean,
    old_role text,
    new_role text
) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return action_of.mapping -> 'verbs' ->> case
    when action_of.mapping ? 'parent' then 'changed'
    when action_of.op = 'INSERT' then case when is_alive then 'born' else 'changed' end
    when action_of.op = 'DELETE' then case when was_alive then 'died' else 'changed' end
    when is_alive and was_alive is not true then 'born'
    when was_alive and is_alive is not true then 'died'
    when old_role is distinct from new_role then 'role_changed'
    else 'changed'
end;
comment on function audit.action_of(jsonb, text, boolean, boolean, text, text) is
    'The action that a change of a row stands for';
