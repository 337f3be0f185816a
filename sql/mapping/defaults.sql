-- Defaults: what the names, keys and types of a table say where audit.attach was told nothing.
-- Each returns an expression over the row r, or null where the table does not tell.

create or replace function audit_private.column_like(target regclass, variadic patterns text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select attname
    from unnest(column_like.patterns) with ordinality as p (pattern, rank),
        pg_attribute
    where attrelid = column_like.target and attnum > 0 and not attisdropped
        and attgenerated <> 'v'
        and lower(replace(attname, '_', '')) ~ ('^(' || pattern || ')$')
    order by rank, attnum
    limit 1
);
comment on function audit_private.column_like(regclass, text[]) is
    'First column whose name, in lower case without underscores, matches a pattern; patterns rank';

create or replace function audit_private.over_row(target regclass, expression text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(
        (
            select 'r.' || quote_ident(attname)
            from pg_attribute
            where attrelid = over_row.target and attnum > 0 and not attisdropped
                and (attname = btrim(over_row.expression)
                    or quote_ident(attname) = btrim(over_row.expression)
                    or '"' || attname || '"' = btrim(over_row.expression))
        ),
        nullif(btrim(over_row.expression), '')
    )
);
comment on function audit_private.over_row(regclass, text) is
    'An option as an expression over the row r: a column name becomes r.<column>';

-- As the session's settings would have it, one value could have several names.
create or replace function audit_private.key_form(type oid, value text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return case
    when key_form.type in ('date'::regtype, 'timestamp'::regtype)
        then format('to_jsonb(%s) #>> ''{}''', value)
    when key_form.type = 'timestamptz'::regtype
        then format('to_jsonb(%s at time zone ''UTC'') #>> ''{}''', value)
    when key_form.type = 'bytea'::regtype then format('encode(%s, ''hex'')', value)
    else value
end;
end
$$;
comment on function audit_private.key_form(oid, text) is
    'Expression that names a value of a type the same way whatever the settings of the session';

-- An identifier reads the same whatever the session's settings are.
create or replace function audit_private.name_of(target regclass, expression text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _expression text := audit_private.over_row(target, name_of.expression);
begin
    return coalesce((
        select audit_private.key_form(atttypid, _expression)
        from pg_attribute
        where attrelid = name_of.target and attnum > 0 and not attisdropped
            and 'r.' || quote_ident(attname) = _expression
    ), _expression);
end
$$;
comment on function audit_private.name_of(regclass, text) is
    'An option that names something, as an expression over the row r';

create or replace function audit_private.key_columns(target regclass) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return (
    select array_agg(attname::text order by n)
    from (
        select indkey, indnkeyatts
        from pg_index
        where indrelid = key_columns.target and indisunique and indisvalid
            and indpred is null and indexprs is null
            and (indisprimary or not exists (
                select from pg_attribute
                where attrelid = indrelid and attnum = any(indkey) and not attnotnull))
        order by indisprimary desc, indexrelid
        limit 1
    ) as best
        cross join unnest(best.indkey) with ordinality as k (attnum, n)
        join pg_attribute as a on a.attrelid = key_columns.target and a.attnum = k.attnum
    where n <= indnkeyatts
);
end
$$;
comment on function audit_private.key_columns(regclass) is
    'Columns of the primary key, else of the first unique key without nulls, else null';

create or replace function audit_private.key_of(target regclass) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return (
    select case count(*)
        when 0 then null
        when 1 then min(form)
        else 'concat_ws('','', ' || string_agg(format('(%s)::text', form), ', ' order by n) || ')'
    end
    from unnest(audit_private.key_columns(key_of.target)) with ordinality as k (name, n)
        join pg_attribute on attrelid = key_of.target and attname = name
        cross join audit_private.key_form(atttypid, format('r.%I', name)) as f (form)
);
end
$$;
comment on function audit_private.key_of(regclass) is
    'Expression for the primary key, else the first unique key without nulls, else null';

create or replace function audit_private.user_facts(target regclass, given jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _email text := coalesce(user_facts.given ->> 'email',
        audit_private.column_like(user_facts.target, 'email', '(primary|user|login)?email(address)?'));
    _password text := coalesce(user_facts.given ->> 'password', audit_private.column_like(user_facts.target,
        '(hashed|encrypted)?password(hash|digest|encrypted)?', '.*passw.*hash.*', 'passwd'));
    _two_factor text := user_facts.given ->> 'two_factor';
    _facts jsonb := '[]';
    _name text;
    _column text;
begin
    if _two_factor is null then
        select attname into _two_factor
        from pg_attribute
        where attrelid = user_facts.target and attnum > 0 and not attisdropped
            and lower(replace(attname, '_',
                '')) ~ '(twofactor|2fa|mfa|totp|twostep)|^otp|otp(enabled|required|active)?$'
            and (atttypid = 'boolean'::regtype
                or atttypid in ('timestamptz'::regtype, 'timestamp'::regtype)
                    and attname ~* '(enabled|confirmed|activated|verified)')
        order by atttypid = 'boolean'::regtype desc, attname ~* '(enabled|active)' desc, attnum
        limit 1;
    end if;
    foreach _name in array array['email', 'password', 'two_factor'] loop
        _column := case _name when 'email' then _email when 'password' then _password
            else _two_factor end;
        continue when _column is null;
        if _name = 'two_factor' and user_facts.given -> 'redact' ? _column then
            raise exception 'option "redact" names column "%", which says whether two-factor is on',
                    _column
                using errcode = 'invalid_parameter_value',
                    hint = 'Leave it readable; secrets and backup codes are redacted by name.';
        end if;
        select attname into strict _column
        from pg_attribute
        where attrelid = user_facts.target and attnum > 0 and not attisdropped
            and _column in (attname, quote_ident(attname), '"' || attname || '"');
        _facts := _facts || jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
            'column', _column,
            'action', case _name when 'email' then 'auth.email_changed'
                when 'password' then 'auth.password_changed' end,
            'columns', case when _name <> 'two_factor' then jsonb_build_array(_column) else (
                -- The secret and the backup codes come and go with the flag.
                select jsonb_agg(attname order by attnum)
                from pg_attribute
                where attrelid = user_facts.target and attnum > 0 and not attisdropped
                    and (attname = _column or lower(replace(attname, '_', ''))
                        ~ '(twofactor|2fa|mfa|totp|twostep|(backup|recovery|scratch)codes?)'
                            '|^otp|otp$')
            ) end
        )));
    end loop;
    return _facts;
exception when no_data_found then
    raise exception 'option "%" names column "%", which % does not have',
            _name, user_facts.given ->> _name, user_facts.target
        using errcode = 'undefined_column',
            hint = 'email, password and two_factor each take the name of a column.';
end
$$;
comment on function audit_private.user_facts(regclass, jsonb) is
    'The facts in a user''s row that have events of their own: e-mail, password, two-factor';

create or replace function audit_private.default_alive(target regclass) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _column text;
begin
    _column := audit_private.column_like(default_alive.target,
        '(deleted|removed|revoked|discarded|archived|deactivated)(at|on|date)');
    if _column is not null then
        return format('r.%I is null', _column);
    end if;
    select attname into _column
    from pg_attribute
    where attrelid = default_alive.target and attnum > 0 and not attisdropped
        and attgenerated <> 'v' and atttypid = 'boolean'::regtype
        and lower(replace(attname, '_', '')) ~ '^(is)?(deleted|removed|revoked|discarded)$'
    order by attnum limit 1;
    if _column is not null then
        return format('r.%I is not true', _column);
    end if;
    return null;
end
$$;
comment on function audit_private.default_alive(regclass) is
    'Expression for rows that a soft delete has not ended, or null where rows are deleted for real';

create or replace function audit_private.default_admin(target regclass, role text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select 'lower(' || default_admin.role || '::text) in (''admin'', ''owner'')'
        || coalesce(string_agg(' and ' || format(case
            when atttypid = 'boolean'::regtype then case
                when name ~ '^(is)?(accepted|confirmed|approved|active|enabled)$'
                    then 'r.%I is true'
                when name ~ '^(is)?(pending|invited|disabled|suspended|blocked|banned)$'
                    then 'r.%I is not true' end
            when atttypid in ('timestamptz'::regtype, 'timestamp'::regtype) then case
                when name ~ '^(invitation|invite)?(accepted|confirmed|joined)(at|on)$'
                    then 'r.%I is not null'
                when name ~ '^(disabled|suspended|blocked|banned)(at|on)$' then 'r.%I is null' end
            when name ~ '^(membership|member|invitation|invite)?(status|state)$'
                then 'lower(r.%I::text) in (''active'', ''accepted'', ''confirmed'', ''approved'', '
                    '''enabled'', ''joined'')'
        end, attname), '' order by attnum), '')
    from pg_attribute cross join lower(replace(attname, '_', '')) as name
    where attrelid = default_admin.target and attnum > 0 and not attisdropped
);
comment on function audit_private.default_admin(regclass, text) is
    'Expression for the admins among members: by their role, not while merely invited or suspended';

-- Only a table of the same owner: another's mapping is another's text.
create or replace function audit_private.parent_organization(target regclass, kind text, parent text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    -- The attached table of the same kind that the column references, else the first of that kind.
    select format(E'(select p.organization from (select %s as key, (%s\n) as organization '
        'from %s as r) as p where p.key = %s)', a.mapping ->> 'target_id',
        coalesce(a.mapping ->> 'organization', 'null::text'), a.target, parent_organization.parent)
    from audit_private.attachment as a
        join pg_class as theirs on theirs.oid = a.target
        join pg_class as mine on mine.oid = parent_organization.target
    where a.kind = parent_organization.kind and a.target <> parent_organization.target
        and not a.mapping ? 'parent' and theirs.relowner = mine.relowner
    order by exists (
        select from pg_constraint as c
        where c.contype = 'f' and c.conrelid = parent_organization.target
            and c.confrelid = a.target
    ) desc, a.id
    limit 1
);
comment on function audit_private.parent_organization(regclass, text, text) is
    'Expression for the organisation of a child row, taken from the mapping of its parent''s table';
