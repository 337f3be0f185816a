-- Read: what of a row is read by which role. PostgreSQL's own types and enums are read where the
-- event is written, as audit_owner (typed). Anything else may run code of the application, and is
-- read as audit_mapper, by one generated function a table, audit_private.read_<id> (raw).

-- PL/pgSQL, as what follows: SQL functions would plan their queries at each of many calls.
create or replace function audit_private.own_columns(target regclass)
returns table (name text, attnum int2, type pg_type, is_virtual boolean)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select attname::text, a.attnum, t, attgenerated = 'v'
    from pg_attribute as a join pg_type as t on t.oid = a.atttypid
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
    'The column that an expression is no more than; else null';

create or replace function audit_private.is_column(expression text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return is_column.expression ~ '^r\.([a-z_][a-z0-9_$]*|"([^"]|"")+")$';
comment on function audit_private.is_column is
    'Whether an expression is no more than a column of r';

-- What is secret now: the table may have changed since it was attached.
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
        -- It may be in any column that was not there before.
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

-- For the fallback, which meets a table that has changed since its code was written, at each row.
create or replace function audit_private.redact_new(target regclass, mapping jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    _present constant text[] := array(
        select attname from pg_attribute
        where attrelid = redact_new.target and attnum > 0 and not attisdropped);
    _new constant text[] := array(
        select name from unnest(_present) as name where not mapping -> 'columns' ? name);
    _is_store boolean;
    _is_connector boolean;
begin
    if _new = '{}' then
        return mapping;
    elsif not _present @> array(select jsonb_array_elements_text(mapping -> 'redact'))
        or exists (
            select from pg_constraint as c join pg_attribute on attrelid = conrelid
                and attnum = any (conkey)
            where conrelid = redact_new.target and contype = 'f' and attname = any (_new))
    then
        return mapping || jsonb_build_object('redact',
            audit_private.redacted_columns(target, mapping) || (mapping -> 'redact'));
    end if;
    _is_store := audit_private.is_store(target, mapping ->> 'kind');
    select audit_private.says_connector(audit_private.normal_name(relname)) into _is_connector
    from pg_class where oid = redact_new.target;
    return mapping || jsonb_build_object('redact', mapping -> 'redact' || to_jsonb(array(
        select attname::text from pg_attribute
        where attrelid = redact_new.target and attname = any (_new)
            and audit_private.is_secret_column(target, attnum, _is_store, _is_connector))));
end
$$;
comment on function audit_private.redact_new is
    'A mapping that also redacts what is secret of the columns that came since it was completed';

-- A column is secret where it is redacted, or refers to a column that is.
create or replace function audit_private.shows_secret(target regclass, name text, redacted jsonb)
returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return shows_secret.redacted ? name or exists (
    select from pg_constraint as c
        join pg_attribute as mine on mine.attrelid = c.conrelid and mine.attname = name
        join pg_attribute as theirs on theirs.attrelid = c.confrelid
            and theirs.attnum = c.confkey[array_position(c.conkey, mine.attnum)]
        left join audit_private.attachment as a on a.target = c.confrelid
    where c.contype = 'f' and c.conrelid = shows_secret.target
        and mine.attnum = any (c.conkey)
        and (theirs.attname = any (audit_private.secret_columns(c.confrelid, coalesce(a.kind, '')))
            or a.mapping -> 'redact' ? theirs.attname::text)
);
end
$$;
comment on function audit_private.shows_secret is
    'Whether values of a column are secrets, its own or those of the table that it refers to';

-- What a lookup compares with is not what it returns; anything else that reads a secret
-- may show it.
create or replace function audit_private.digested(target regclass, mapping jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _secrets text[] := array(
        select name from audit_private.own_columns(digested.target)
        where audit_private.shows_secret(target, name, digested.mapping -> 'redact'));
    _key text := audit_private.key_of(target);
    _part text;
    _expression text;
    _plain text;
    _digested jsonb := '[]';
begin
    for _part, _expression in
        select key, value from jsonb_each_text(digested.mapping)
        where key in ('organization', 'target_id', 'subject', 'row_id')
    loop
        _plain := audit_private.column_of(target, _expression);
        if (case
            when _plain is not null then _plain = any (_secrets)
            when _expression = _key then audit_private.key_columns(target) && _secrets
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

-- A boolean column, what audit_private.default_alive says, and conjunctions of the like.
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
    'Generated condition for rows that are alive; null if audit_mapper has to tell';

create or replace function audit_private.text_code(target regclass, expression text, side text)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
#variable_conflict use_column
declare
    _columns text[] := array[audit_private.column_of(target, expression)];
    _codes text[];
begin
    if expression ~ '^''([^''\\]|'''')*''$' then
        return expression || '::text';
    end if;
    if expression = audit_private.key_of(target) then
        _columns := audit_private.key_columns(target);
    end if;
    select array_agg(audit_private.typed_text(type, format('%s.%I', side, name))
        order by array_position(_columns, name)) into _codes
    from audit_private.own_columns(target)
    where name = any (_columns);
    return case
        when array_position(_codes, null) is not null then null
        when cardinality(_codes) = 1 then _codes[1]
        when cardinality(_codes) > 1
            then format('concat_ws('','', %s)', array_to_string(_codes, ', ')) end;
end
$$;
comment on function audit_private.text_code is
    'Generated expression for what a mapping names, as text; null if audit_mapper has to tell';

-- What an extension brings along is a superuser's; reading a domain runs none of its checks.
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
    'Whether reading a value of a type may run code of one who is no superuser';

-- A domain of a text, or a text of an extension's such as citext: as text it is what it is as JSON.
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
    'Whether audit_mapper reads a value of a type as text, without taking it for JSON';

-- How a value is written as text, beyond what audit_private.key_form sees to.
create or replace function audit_private.depends_on_settings(type oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return (
    select t.typcategory in ('A', 'R', 'T')
        or t.oid = any ('{float4,float8,money,timetz,time}'::regtype[])
    from pg_type as t where t.oid = audit_private.base_type(depends_on_settings.type)
);
comment on function audit_private.depends_on_settings is
    'Whether settings of the session decide how an identifier of a type is spelt';

-- Kept with the mapping while code is written, since each paragraph asks for it: `code`,
-- what is read as audit_owner, for both sides of an update; `raw`, what audit_mapper reads, in the
-- order of audit_private.read_<id>; `is_foreign`, whether that may run code of the application;
-- `long`, the names that may be long or hold a secret; secrets and keys.
create or replace function audit_private.complete_mapping(target regclass, kind text, mapping jsonb)
returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    _mapping jsonb := complete_mapping.mapping;
    _part text;
    _old text;
    _code jsonb := '{}';
    _raw jsonb := '[]';
    _long jsonb := '[]';
    _names text[];
    _named text[];
    _read text[];
begin
    _mapping := _mapping || jsonb_build_object('kind', complete_mapping.kind);
    _mapping := _mapping || jsonb_build_object(
        'redact', audit_private.redacted_columns(target, _mapping));
    foreach _part in array '{organization,target_id,subject,role,row_id,alive}'::text[] loop
        continue when not _mapping ? _part;
        _old := case _part when 'alive' then audit_private.alive_code(target, _mapping, 'old')
            else audit_private.text_code(target, _mapping ->> _part, 'old') end;
        if _old is null then
            _raw := _raw || to_jsonb(_part);
            _read := _read || audit_private.column_of(target, _mapping ->> _part);
        else
            _code := _code || jsonb_build_object(_part, jsonb_build_object('old', _old, 'new',
                case _part when 'alive' then audit_private.alive_code(target, _mapping, 'new')
                    else audit_private.text_code(target, _mapping ->> _part, 'new') end));
        end if;
        _names := case
            when _mapping ->> _part = audit_private.key_of(target)
                then audit_private.key_columns(target)
            else array[audit_private.column_of(target, _mapping ->> _part)] end;
        _named := _named || _names;
        if _names[1] is null or exists (
            select from audit_private.own_columns(target)
            where name = any (_names) and audit_private.is_text((type).oid))
        then
            _long := _long || to_jsonb(_part);
        end if;
    end loop;
    _names := array(
        select name from audit_private.own_columns(target)
        where not _mapping -> 'redact' ? name and audit_private.typed(type, '') is null);
    return _mapping || jsonb_build_object(
        'digest', audit_private.digested(target, _mapping),
        'code', _code,
        'raw', _raw || to_jsonb(array(select 'column ' || name from unnest(_names) as name)),
        'is_foreign', _raw <> '[]' and coalesce(_mapping -> 'checked' ? 'is_foreign', false)
            or exists (
                select from audit_private.own_columns(target)
                where name = any (_names || _read) and audit_private.runs_code((type).oid)),
        'long', _long,
        'key', audit_private.key_columns(target),
        'role_column', audit_private.column_of(target, _mapping ->> 'role'),
        'virtual', array(select name from audit_private.own_columns(target) where is_virtual),
        'columns', array(select name from audit_private.own_columns(target)),
        'settings', exists (
            select from audit_private.own_columns(target)
            where name = any (_named) and audit_private.depends_on_settings((type).oid)),
        -- What an identifier may not contain: the values of what is redacted, as far as
        -- reading them runs no code, and they are no flags and times.
        'secrets', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'old', audit_private.typed_text(type, format('old.%I', name)),
                'new', audit_private.typed_text(type, format('new.%I', name)))), '[]')
            from audit_private.own_columns(target)
            where _mapping -> 'redact' ? name and not is_virtual
                and (type).typcategory not in ('B', 'D', 'E', 'T')
                and audit_private.typed_text(type, '') is not null));
end
$$;
comment on function audit_private.complete_mapping is
    'A mapping with what the generated code needs to know: who reads what, secrets, keys';

-- Each looks who it runs as before anything else: a function's owner, and so any code that runs as
-- audit_mapper, may alter it to run as its caller. A default of a variable would come earlier.
create or replace function audit_private.as_mapper(body text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return format($sql$
#variable_conflict use_column
begin
    -- Code of the application may run here: as audit_mapper, or not at all.
    if current_user operator(pg_catalog.<>) 'audit_mapper'::pg_catalog.name then
        raise exception 'this function runs as %%', current_user;
    end if;
%s
end$sql$, body);
comment on function audit_private.as_mapper is
    'Body of a function of audit_mapper, which refuses to run as anyone else';

create or replace function audit_private.read_code(target regclass, mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select audit_private.as_mapper(format(E'    return array[\n        %s\n    ];', string_agg(case
        when audit_private.is_plain_text((c.type).oid) then format('r.%I::text', c.name)
        when c.name is not null then format('to_jsonb(r.%I)::text', c.name)
        -- On a line of its own: the expression may end in a comment.
        else format(E'(%s\n        )::text', mapping ->> part) end, E',\n        ' order by n)))
    from jsonb_array_elements_text(mapping -> 'raw') with ordinality as t (part, n)
        left join audit_private.own_columns(target) as c on part = 'column ' || c.name
);
comment on function audit_private.read_code is
    'Body of audit_private.read_<id>: what audit_mapper reads of a row, as text; null if nothing';
