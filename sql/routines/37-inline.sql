-- The short way: for a table of built-in types and enums whose mapping names columns and nothing
-- more, the trigger function makes the image and inserts the event itself. Where that raises, the
-- event is written by the way that every table can take.

create or replace function audit.inline_text(target regclass, expression text, side text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select audit.typed_text(t, format('%s.%I', inline_text.side, attname))
    from pg_attribute as a join pg_type as t on t.oid = a.atttypid
    where attrelid = inline_text.target and attnum > 0 and not attisdropped
        and 'r.' || quote_ident(attname) = inline_text.expression
);
comment on function audit.inline_text(regclass, text, text) is
    'Generated expression for a mapped column as text; null if it takes the long way';

-- Alive as audit.default_alive says it, and the like.
create or replace function audit.inline_alive(target regclass, mapping jsonb, side text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format('%s %s', audit.typed(t, format('%s.%I', inline_alive.side, attname)),
        substring(mapping ->> 'alive' from ' (is (?:not )?(?:null|true|false))$'))
    from pg_attribute as a join pg_type as t on t.oid = a.atttypid
    where attrelid = inline_alive.target and attnum > 0 and not attisdropped
        and 'r.' || quote_ident(attname)
            = substring(mapping ->> 'alive' from '^(.*) is (?:not )?(?:null|true|false)$')
);
comment on function audit.inline_alive(regclass, jsonb, text) is
    'Generated condition for rows that are alive; null if it takes the long way';

create or replace function audit.is_inline(target regclass, mapping jsonb) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return not mapping ?| '{whole,parent,row_id}'
    and coalesce(mapping -> 'facts', '[]') = '[]'
    and (not mapping ? 'alive' or audit.inline_alive(target, mapping, 'r') is not null)
    and not exists (
        select from jsonb_each_text(mapping)
        where key in ('organization', 'target_id', 'subject', 'role')
            and audit.inline_text(target, value, 'r') is null
    )
    and not exists (
        select from pg_attribute as a join pg_type as t on t.oid = a.atttypid
        where attrelid = target and attnum > 0 and not attisdropped
            and audit.typed(t, '') is null
    );
comment on function audit.is_inline(regclass, jsonb) is
    'Whether changes of the table can be captured without code but PostgreSQL''s own';

-- As audit.append does it. A context that cannot be read raises.
create or replace function audit.inline_context_code() returns text
language sql immutable set search_path = pg_catalog, pg_temp
return $sql$
            _context := nullif(current_setting('auditdb.context', true), '')::jsonb;
            if _context is null then
                _actor_id := session_user;
                _actor_type := 'database';
                _source := 'sql';
                _details := jsonb_strip_nulls(jsonb_build_object(
                    'application_name', nullif(current_setting('application_name'), ''),
                    'client_addr', host(inet_client_addr())
                ));
            else
                if jsonb_typeof(_context) <> 'object' then
                    raise exception using errcode = 'invalid_parameter_value';
                end if;
                _actor_id := left(_context ->> 'actor_id', 200);
                _actor_type := coalesce(left(_context ->> 'actor_type', 200), 'database');
                _impersonator_id := left(_context ->> 'impersonator_id', 200);
                _source := coalesce(left(_context ->> 'source', 200), 'sql');
                _organization := left(_context ->> 'organization_id', 200);
                if jsonb_typeof(_context -> 'details') = 'object' then
                    _details := _context -> 'details';
                end if;
            end if;$sql$;
comment on function audit.inline_context_code() is
    'Generated code that says who acts, and from where';

create or replace function audit.inline_image(target regclass, mapping jsonb, side text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(string_agg('jsonb_build_object(' || pairs || ')', ' || '), '''{}''::jsonb')
    from (
        -- A function takes 100 arguments.
        select string_agg(case
            when inline_image.mapping -> 'redact' ? attname then
                format('%L, case when not %s is null then ''[redacted]'' end', attname,
                    audit.typed(t, format('%s.%I', inline_image.side, attname)))
            else format('%L, %s', attname,
                audit.typed_json(t, format('%s.%I', inline_image.side, attname))) end, ', ')
        from (
            select t, attname, row_number() over (order by attnum) as n
            from pg_attribute as a join pg_type as t on t.oid = a.atttypid
            where attrelid = inline_image.target and attnum > 0 and not attisdropped
        ) as a
        group by n / 50
    ) as p (pairs)
);
comment on function audit.inline_image(regclass, jsonb, text) is
    'Generated expression for all of a row, secrets redacted';

create or replace function audit.inline_action(target regclass, mapping jsonb, op text)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _verbs jsonb := inline_action.mapping -> 'verbs';
    _before text := audit.inline_alive(target, inline_action.mapping, 'old');
    _after text := audit.inline_alive(target, inline_action.mapping, 'new');
    _role text := inline_action.mapping ->> 'role';
    _branches text := '';
begin
    if op = 'INSERT' and _after is not null then
        _branches := format(' when %s then %L', _after, _verbs ->> 'born');
    elsif op = 'DELETE' and _before is not null then
        _branches := format(' when %s then %L', _before, _verbs ->> 'died');
    elsif op = 'UPDATE' and _before is not null then
        _branches := format(
            ' when %1$s and (%2$s) is not true then %3$L when %2$s and (%1$s) is not true then %4$L',
            _after, _before, _verbs ->> 'born', _verbs ->> 'died');
    end if;
    if op = 'UPDATE' and _role is not null then
        _branches := _branches || format(
            ' when (%s) collate "C" is distinct from (%s) then %L',
            audit.inline_text(target, _role, 'old'), audit.inline_text(target, _role, 'new'),
            _verbs ->> 'role_changed');
    end if;
    return case
        when _branches <> '' then format('case%s else %L end', _branches, _verbs ->> 'changed')
        else quote_literal(_verbs ->> case op when 'INSERT' then 'born' when 'DELETE' then 'died'
            else 'changed' end)
    end;
end
$$;
comment on function audit.inline_action(regclass, jsonb, text) is
    'Generated expression: audit.action_of for one mapping and operation';

create or replace function audit.inline_image_code(target regclass, mapping jsonb, op text)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _side text := case op when 'DELETE' then 'old' else 'new' end;
    _role text := inline_image_code.mapping ->> 'role';
    _diff text;
    _shape text;
    _code text;
    _name text;
begin
    select string_agg(audit.column_diff(target, inline_image_code.mapping, attnum, inline => true),
            '' order by attnum)
            filter (where not coalesce(inline_image_code.mapping -> 'ignore' ? attname, false)),
        string_agg(format('%s.%I', _side, attname), ', ' order by attnum)
    into _diff, _shape
    from pg_attribute
    where attrelid = target and attnum > 0 and not attisdropped;

    -- Raises or differs if the table has other columns than when it was attached.
    _code := format($sql$
            if %s *<> row(%s) then
                raise exception using errcode = 'datatype_mismatch';
            end if;$sql$, _side, _shape);
    if op = 'UPDATE' then
        _code := _code || $sql$
            _old := '{}';
            _new := '{}';$sql$ || coalesce(_diff, '') || $sql$
            if _new = '{}' then
                return null;
            end if;$sql$;
    else
        _code := _code || format(E'\n            _%s := %s;', _side,
            audit.inline_image(target, inline_image_code.mapping, _side));
    end if;
    _code := _code || format(E'\n            _action := %s;',
        audit.inline_action(target, inline_image_code.mapping, op));
    if op = 'UPDATE' and _role is not null then
        _code := _code || format($sql$
            if _action = %L then
                _details := coalesce(_details, '{}')
                    || jsonb_build_object('previous_role', %s, 'new_role', %s);
            end if;$sql$, inline_image_code.mapping -> 'verbs' ->> 'role_changed',
            audit.inline_text(target, _role, 'old'), audit.inline_text(target, _role, 'new'));
    end if;
    -- Of an update, the new row says whose it is; the old one only where that is unknown.
    foreach _name in array array['organization', 'target_id', 'subject'] loop
        continue when not inline_image_code.mapping ? _name;
        _code := _code || format(E'\n            _%s := %s;', _name, case
            when _name = 'organization' then format('coalesce(%s%s, _organization)',
                audit.inline_text(target, inline_image_code.mapping ->> _name, _side),
                case op when 'UPDATE' then ', ' || audit.inline_text(target,
                    inline_image_code.mapping ->> _name, 'old') else '' end)
            else audit.inline_text(target, inline_image_code.mapping ->> _name, _side) end);
    end loop;
    return _code;
end
$$;
comment on function audit.inline_image_code(regclass, jsonb, text) is
    'Generated code that says what a changed row says';

-- The INSERT stands outside of the block: inside, each row would take a subtransaction id, and more
-- than 64 of them in a transaction slow down all others. row_security is off in a session that
-- restores a dump, and would turn it into an error.
create or replace function audit.inline_code(target regclass, mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when not audit.is_inline(target, mapping) then '' else format($sql$
    if tg_op <> 'TRUNCATE' and current_setting('row_security') = 'on' then
        begin%1$s
            if tg_op = 'UPDATE' then%2$s
            elsif tg_op = 'INSERT' then%3$s
            else%4$s
            end if;
        exception when assert_failure or others then
            _action := null;
        end;
        if _action is not null then
            insert into audit.event (
                action, result, actor_id, actor_type, impersonator_id, organization_id,
                target_type, target_id, subject_id, source, captured_from,
                old_values, new_values, details
            ) values (
                _action, 'success', _actor_id, _actor_type, _impersonator_id, _organization,
                %5$L, _target_id, _subject, _source, _captured_from,
                _old, _new, _details
            );
            return null;
        end if;
    end if;$sql$,
    audit.inline_context_code(),
    audit.inline_image_code(target, mapping, 'UPDATE'),
    audit.inline_image_code(target, mapping, 'INSERT'),
    audit.inline_image_code(target, mapping, 'DELETE'),
    mapping ->> 'target_type') end;
comment on function audit.inline_code(regclass, jsonb) is
    'Generated code of the short way; empty where the table has none';

create or replace function audit.inline_variables(target regclass, mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when not audit.is_inline(target, mapping) then '' else $sql$
    _actor_id text;
    _actor_type text;
    _impersonator_id text;
    _organization text;
    _source text;
    _details jsonb;
    _action text;
    _target_id text;
    _subject text;
    _old jsonb;
    _new jsonb;$sql$ end;
comment on function audit.inline_variables(regclass, jsonb) is
    'Generated declarations of the short way';
