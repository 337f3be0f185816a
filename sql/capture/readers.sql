-- Read: which role reads which part of a row. Values of PostgreSQL's own types and of enums are
-- read where the event is written, as audit_owner (typed). Any other value may run code of the
-- application: a generated function, audit_private.read_<id>, reads it as audit_mapper (raw).

-- PL/pgSQL, like the functions below: SQL functions would plan their queries at each call.
create or replace function audit_private.own_columns(target regclass)
returns table (name text, attnum int2, type pg_type, is_virtual boolean)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select attname::text, a.attnum, t, attgenerated = 'v'
    from pg_attribute as a
        cross join lateral (select t from pg_type as t where t.oid = a.atttypid offset 0) as t (t)
    where attrelid = own_columns.target and a.attnum > 0 and not attisdropped
    order by a.attnum;
end
$$;
comment on function audit_private.own_columns is
    'The columns of a table, in order';

create or replace function audit_private.column_of(target regclass, expression text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return (
        select attname
        from pg_attribute cross join format('r.%I', attname) as own
        where attrelid = column_of.target and attnum > 0 and not attisdropped
            and strpos(expression, own) > 0
            and expression in (own, audit_private.key_form(atttypid, own))
    );
end
$$;
comment on function audit_private.column_of is
    'The column that an expression consists of; null if it is more than a column';

create or replace function audit_private.is_column(expression text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return is_column.expression ~ '^r\.([a-z_][a-z0-9_$]*|"([^"]|"")+")$';
comment on function audit_private.is_column is
    'Whether an expression is just a column of r';

-- Looks at the table as it is now: it may have changed since it was attached.
create or replace function audit_private.redacted_columns(target regclass, mapping jsonb)
returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    with present as (
        select name, attnum, (type).oid as type
        from audit_private.own_columns(redacted_columns.target)
    ), secret as materialized (
        select audit_private.secret_columns(redacted_columns.target,
            redacted_columns.mapping ->> 'kind') as names
    ), renamed as materialized (
        -- A secret may be in any column that is new.
        select exists (
            select from jsonb_array_elements_text(redacted_columns.mapping -> 'redact') as old
            where old not in (select name from present)) as is_so
    )
    select coalesce(jsonb_agg(name order by attnum), '[]')
    from present, secret, renamed
    where redacted_columns.mapping -> 'redact' ? name
        or not redacted_columns.mapping -> 'columns' ? name and renamed.is_so
        or name = any (secret.names)
            and not coalesce(redacted_columns.mapping #> '{given,redact}' ? ('-' || name), false)
);
comment on function audit_private.redacted_columns(regclass, jsonb) is
    'Names of the columns that an event shows without their values';

-- No mapping could except columns that came later.
create or replace function audit_private.ignored_new(target regclass, mapping jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select coalesce(jsonb_agg(name order by n), '[]')
        from jsonb_array_elements_text(audit_private.default_ignore(
            target, mapping ->> 'kind', mapping)) with ordinality as i (name, n)
        where not mapping -> 'columns' ? name
    );
end
$$;
comment on function audit_private.ignored_new is
    'Of the columns that are newer than a mapping, those whose change alone makes no event';

-- For the fallback, which reads a changed table row by row until its code is written again.
create or replace function audit_private.know_new(target regclass, mapping jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    _present constant text[] := array(
        select attname from pg_attribute
        where attrelid = know_new.target and attnum > 0 and not attisdropped);
    _new constant text[] := array(
        select name from unnest(_present) as name where not mapping -> 'columns' ? name);
    _known jsonb := mapping;
    _is_store boolean;
    _is_connector boolean;
begin
    if _new = '{}' then
        return mapping;
    end if;
    _known := mapping || jsonb_build_object('ignore', coalesce(mapping -> 'ignore', '[]')
        || audit_private.ignored_new(target, mapping));
    if not _present @> array(select jsonb_array_elements_text(mapping -> 'redact'))
        or exists (
            select from pg_constraint as c join pg_attribute on attrelid = conrelid
                and attnum = any (conkey)
            where conrelid = know_new.target and contype = 'f' and attname = any (_new))
    then
        return _known || jsonb_build_object('redact',
            audit_private.redacted_columns(target, mapping) || (mapping -> 'redact'));
    end if;
    _is_store := audit_private.is_store(target, mapping ->> 'kind');
    select audit_private.says_connector(audit_private.normal_name(relname)) into _is_connector
    from pg_class where oid = know_new.target;
    return _known || jsonb_build_object('redact', mapping -> 'redact' || to_jsonb(array(
        select attname::text from pg_attribute
        where attrelid = know_new.target and attname = any (_new)
            and audit_private.is_secret_column(target, attnum, _is_store, _is_connector))));
end
$$;
comment on function audit_private.know_new is
    'A mapping that also covers newer columns: it redacts those that are secret, and ignores those '
    'that change by mere use';

-- A column is secret if it is redacted, or if it refers to a secret column.
create or replace function audit_private.shown_secrets(target regclass, mapping jsonb)
returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    _secrets constant text[] := audit_private.secret_columns(target, mapping ->> 'kind');
begin
    return array(
        select jsonb_array_elements_text(shown_secrets.mapping -> 'redact')
        union
        select mine.attname
        from pg_constraint as c
            cross join unnest(c.conkey, c.confkey) as k (here, there)
            join pg_attribute as mine on mine.attrelid = c.conrelid and mine.attnum = k.here
            join pg_attribute as theirs on theirs.attrelid = c.confrelid and theirs.attnum = k.there
            left join audit_private.attachment as a on a.target = c.confrelid
        where c.contype = 'f' and c.conrelid = shown_secrets.target
            and (mine.attname = any (_secrets) or a.mapping -> 'redact' ? theirs.attname::text));
end
$$;
comment on function audit_private.shown_secrets is
    'Columns whose values are secrets, in the table itself or in a table that it refers to';

-- A lookup only compares with a secret and returns something else.
-- Any other expression that reads a secret may show it.
create or replace function audit_private.digested(target regclass, mapping jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _secrets text[] := audit_private.shown_secrets(target, digested.mapping);
    _part text;
    _expression text;
    _plain text;
    _digested jsonb := '[]';
begin
    for _part, _expression in
        select key, value from jsonb_each_text(digested.mapping)
        where key in ('organization', 'target_id', 'subject', 'row_id', 'group_id')
    loop
        _plain := audit_private.own_column(mapping, _expression);
        if (case
            when _plain is not null then _plain = any (_secrets)
            when _expression = mapping ->> 'key_code' then mapping -> 'key' ?| _secrets
            when mapping #> '{checked,secret}' ? _part then true
            else not _expression ~* '\mselect\M' and exists (
                select from unnest(_secrets) as name where strpos(_expression, name) > 0)
        end) then
            _digested := _digested || to_jsonb(_part);
        end if;
    end loop;
    return _digested;
end
$$;
comment on function audit_private.digested is
    'Which identifiers of a mapping are secrets, and are stored as digests';

-- Knows boolean columns, the conditions of audit_private.default_alive, and these joined by AND.
create or replace function audit_private.alive_code(target regclass, mapping jsonb, side text)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
#variable_conflict use_column
declare
    _part text;
    _match text[];
    _code text;
    _codes text[];
begin
    foreach _part in array regexp_split_to_array(mapping ->> 'alive', '\s+and\s+') loop
        _match := regexp_match(btrim(_part), '^(r\..*?)( is (?:not )?(?:null|true|false))?$');
        select format('%s.%I%s', side, name, _match[2]) into _code
        from audit_private.own_columns(target)
        where _match[1] = format('r.%I', name) and audit_private.typed(type, '') is not null
            and not is_virtual
            and (_match[2] is not null or (type).oid = 'boolean'::regtype);
        if _code is null then
            return null;
        end if;
        _codes := _codes || _code;
    end loop;
    return array_to_string(_codes, ' and ');
end
$$;
comment on function audit_private.alive_code is
    'Generated condition for rows that are alive; null if audit_mapper must evaluate it';

create or replace function audit_private.text_code(mapping jsonb, expression text, side text)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _codes text[];
begin
    if expression ~ '^''([^''\\]|'''')*''$' then
        return expression || '::text';
    end if;
    _codes := array(
        select format(c.text, side)
        from unnest(audit_private.named_columns(mapping, expression)) with ordinality as m (name, n)
            join jsonb_to_recordset(mapping -> 'own') as c (name text, text text) using (name)
        order by n);
    return case
        when array_position(_codes, null) is not null then null
        when cardinality(_codes) = 1 then _codes[1]
        when cardinality(_codes) > 1
            then format('concat_ws('','', %s)', array_to_string(_codes, ', ')) end;
end
$$;
comment on function audit_private.text_code is
    'Generated expression for a part of a mapping as text; null if audit_mapper must evaluate it';

-- Code of an extension belongs to a superuser. Reading a domain runs none of its checks.
create or replace function audit_private.runs_code(type oid) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _type pg_type;
begin
    select * into _type from pg_type as t where t.oid = audit_private.base_type(runs_code.type);
    if _type.typcategory = 'A' and _type.typelem <> 0 then
        return audit_private.runs_code(_type.typelem);
    end if;
    return _type.typnamespace <> 'pg_catalog'::regnamespace and (_type.typtype <> 'b' or exists (
        select from pg_cast as k join pg_proc as p on p.oid = k.castfunc
            join pg_roles as r on r.oid = p.proowner
        where k.castsource = _type.oid and k.casttarget in ('json'::regtype, 'text'::regtype)
            and not r.rolsuper));
end
$$;
comment on function audit_private.runs_code is
    'Whether reading a value of a type may run code that belongs to no superuser';

-- A domain of text, or the text type of an extension such as citext:
-- its text equals its JSON value.
create or replace function audit_private.is_plain_text(type oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return (
    select t.oid = any ('{text,varchar}'::regtype[]) or t.typcategory = 'S'
        and t.typnamespace <> 'pg_catalog'::regnamespace and not audit_private.runs_code(t.oid)
        and exists (
            select from pg_cast
            where castsource = t.oid and casttarget = 'text'::regtype and castmethod = 'b')
    from pg_type as t where t.oid = audit_private.base_type(is_plain_text.type)
);
comment on function audit_private.is_plain_text is
    'Whether audit_mapper reads a value of a type as plain text, which is not parsed as JSON';

-- Settings that audit_private.key_form does not neutralise already.
create or replace function audit_private.depends_on_settings(type oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return (
    select t.typcategory in ('A', 'R', 'T')
        or t.oid = any ('{float4,float8,money,timetz,time}'::regtype[])
    from pg_type as t where t.oid = audit_private.base_type(depends_on_settings.type)
);
comment on function audit_private.depends_on_settings is
    'Whether settings of the session change how an identifier of a type is written';

-- These are kept with the mapping while code is written, because every paragraph uses them: `own`,
-- the columns; `code`, what is read as audit_owner, for both sides of an update; `raw`, what
-- audit_mapper reads, in the order of audit_private.read_<id>; `is_foreign`, whether reading it may
-- run code of the application; `long`, the identifiers that may be long or hold a secret;
-- secrets and keys.

-- `plain`, `form`, `typed`, `text` and `json` are formats; their argument is the side, old or new.
create or replace function audit_private.described_columns(target regclass) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return (
        select coalesce(jsonb_agg(jsonb_build_object(
            'name', name, 'attnum', attnum, 'type', (type).oid, 'category', (type).typcategory,
            'is_virtual', is_virtual, 'plain', plain, 'typed', typed,
            'form', audit_private.key_form((type).oid, plain),
            'text', case when typed is not null then audit_private.typed_text(type, plain) end,
            'json', audit_private.typed_json(type, plain),
            'differs', audit_private.differs_code(type, name, typed is not null))
            order by attnum), '[]')
        from (
            select *, audit_private.typed(type, plain) as typed
            from (
                select *, '%1$s.' || replace(quote_ident(name), '%', '%%') as plain
                from audit_private.own_columns(target)
            ) as c
            offset 0  -- evaluate once
        ) as c
    );
end
$$;
comment on function audit_private.described_columns is
    'The columns of a table, in order, each with the code that reads it and that detects a change';

create or replace function audit_private.own_column(mapping jsonb, expression text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    return (
        select c.name
        from jsonb_to_recordset(mapping -> 'own') as c (name text, plain text, form text)
        where expression in (format(plain, 'r'), format(form, 'r'))
    );
end
$$;
comment on function audit_private.own_column is
    'The column that an expression of a completed mapping consists of; '
    'null if it is more than that';

create or replace function audit_private.named_columns(mapping jsonb, expression text)
returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    return case when expression = mapping ->> 'key_code'
        then array(select jsonb_array_elements_text(mapping -> 'key'))
        else array[audit_private.own_column(mapping, expression)] end;
end
$$;
comment on function audit_private.named_columns is
    'The columns of an expression that is only a key or a column; null for any other expression';

create or replace function audit_private.parts_read(target regclass, mapping jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    _part text;
    _expression text;
    _old text;
    _new text;
    _columns text[];
    _code jsonb := '{}';
    _raw text[] := '{}';
    _long text[] := '{}';
    _named text[] := '{}';
begin
    foreach _part in array
        '{organization,target_id,subject,role,row_id,alive,group_id}'::text[] loop
        continue when not mapping ? _part;
        _expression := mapping ->> _part;
        if _part = 'alive' then
            _old := audit_private.alive_code(target, mapping, 'old');
            _new := audit_private.alive_code(target, mapping, 'new');
        else
            _old := audit_private.text_code(mapping, _expression, 'old');
            _new := audit_private.text_code(mapping, _expression, 'new');
        end if;
        if _old is null then
            _raw := _raw || _part;
        else
            _code := _code
                || jsonb_build_object(_part, jsonb_build_object('old', _old, 'new', _new));
        end if;
        _columns := audit_private.named_columns(mapping, _expression);
        _named := _named || _columns;
        if _columns[1] is null or exists (
            select from jsonb_to_recordset(mapping -> 'own') as c (name text, type oid)
            where c.name = any (_columns) and audit_private.is_text(c.type))
        then
            _long := _long || _part;
        end if;
    end loop;
    return jsonb_build_object('code', _code, 'raw', _raw, 'long', _long, 'named', _named);
end
$$;
comment on function audit_private.parts_read is
    'Which role reads each part of a mapping, by which code, and from which columns';

create or replace function audit_private.columns_read(mapping jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    _raw constant jsonb := columns_read.mapping -> 'raw';
    _read constant text[] := array(
        select audit_private.own_column(columns_read.mapping, columns_read.mapping ->> part)
        from jsonb_array_elements_text(_raw) as part);
begin
    return (
        select jsonb_build_object(
            'virtual', coalesce(jsonb_agg(name) filter (where is_virtual), '[]'),
            'columns', coalesce(jsonb_agg(name), '[]'),
            'raw', _raw || coalesce(jsonb_agg('column ' || name) filter (where is_raw), '[]'),
            'is_foreign', _raw <> '[]' and coalesce(mapping -> 'checked' ? 'is_foreign', false)
                or coalesce(bool_or(case when is_raw or name = any (_read)
                    then audit_private.runs_code(type) end), false),
            'settings', coalesce(bool_or(case when mapping -> 'named' ? name
                then audit_private.depends_on_settings(type) end), false),
            -- The values that an identifier may not contain: those of redacted columns, unless
            -- reading them runs code, or they are flags or times.
            'secrets', coalesce(jsonb_agg(jsonb_build_object(
                'old', format(text, 'old'), 'new', format(text, 'new'))) filter (
                where is_redacted and not is_virtual and category not in ('B', 'D', 'E', 'T')
                    and text is not null), '[]'))
        from jsonb_to_recordset(mapping -> 'own')
                as c (name text, type oid, category text, is_virtual boolean, typed text, text text)
            cross join lateral (select mapping -> 'redact' ? name) as r (is_redacted)
            cross join lateral (select not is_redacted and typed is null) as w (is_raw)
    );
end
$$;
comment on function audit_private.columns_read is
    'What the columns of a table add to its mapping: which role reads them, and which are secrets';

create or replace function audit_private.complete_mapping(target regclass, kind text, mapping jsonb)
returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _mapping jsonb := complete_mapping.mapping || jsonb_build_object(
        'kind', complete_mapping.kind, 'own', audit_private.described_columns(target),
        'key', audit_private.key_columns(target, complete_mapping.kind),
        'key_code', audit_private.key_of(target, complete_mapping.kind));
begin
    _mapping := _mapping || jsonb_build_object(
        'redact', audit_private.redacted_columns(target, _mapping),
        'ignore', coalesce(_mapping -> 'ignore', '[]')
            || audit_private.ignored_new(target, _mapping),
        'role_column', audit_private.own_column(_mapping, _mapping ->> 'role'));
    _mapping := _mapping || audit_private.parts_read(target, _mapping);
    _mapping := _mapping || audit_private.columns_read(_mapping)
        || jsonb_build_object('digest', audit_private.digested(target, _mapping));
    _mapping := _mapping || jsonb_build_object('late', audit_private.late_columns(_mapping));
    return _mapping || jsonb_build_object('own', (
        select coalesce(jsonb_agg(c || jsonb_build_object(
            'old', audit_private.value_code(_mapping, c, 'old'),
            'new', audit_private.value_code(_mapping, c, 'new'))), '[]')
        from jsonb_array_elements(_mapping -> 'own') as c));
end
$$;
comment on function audit_private.complete_mapping is
    'A mapping with everything that the generated code needs: which role reads what, secrets, keys';

-- Each function checks its role first. Its owner, and so any code that runs as audit_mapper, may
-- alter it to run as its caller. The default of a variable would be evaluated before the check.
create or replace function audit_private.as_mapper(body text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return format($sql$
#variable_conflict use_column
begin
    -- Code of the application may run here, but only as audit_mapper.
    if current_user operator(pg_catalog.<>) 'audit_mapper'::pg_catalog.name then
        raise exception 'this function runs as %%', current_user;
    end if;
%s
end$sql$, body);
comment on function audit_private.as_mapper is
    'Body of a function of audit_mapper, which raises if it runs as any other role';

create or replace function audit_private.read_code(mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select audit_private.as_mapper(format(E'    return array[\n        %s\n    ];', string_agg(case
        when audit_private.is_plain_text(c.type) then format('r.%I::text', c.name)
        when c.name is not null then format('to_jsonb(r.%I)::text', c.name)
        -- On a line of its own: the expression may end in a comment.
        else format(E'(%s\n        )::text', mapping ->> part) end, E',\n        ' order by n)))
    from jsonb_array_elements_text(mapping -> 'raw') with ordinality as t (part, n)
        left join jsonb_to_recordset(mapping -> 'own') as c (name text, type oid)
            on part = 'column ' || c.name
);
comment on function audit_private.read_code is
    'Body of audit_private.read_<id>, which returns what audit_mapper reads of a row as texts; '
    'null if it reads nothing';

-- A looked-up table may get policies, and an enum may get casts, after the code was written.
create or replace function audit_private.foreign_code(mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case
    when mapping -> 'raw' = '[]' then null
    when (mapping -> 'is_foreign')::boolean then 'true'
    else (
        select string_agg(code, ' or ' order by code)
        from (
            -- By name: a restored database has other oids.
            select format('row_security_active(%L::regclass)', key)
            from jsonb_each(mapping #> '{checked,reads}')
            union all
            select format('exists (select from pg_cast where castsource = %L::regtype)', enum)
            from jsonb_array_elements_text(mapping #> '{checked,enums}') as enum
        ) as c (code)
    ) end;
comment on function audit_private.foreign_code is
    'Generated condition: what audit_mapper reads may run code of the application; null if never';
