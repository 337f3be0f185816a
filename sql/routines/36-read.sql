-- Read: what of a row is read by which role. PostgreSQL's own types and enums are read where the
-- event is written, as audit_owner (typed). Anything else may run code of the application, and is
-- read as audit_mapper, by one generated function a table, audit.read_<id> (raw).

create or replace function audit.own_columns(target regclass)
returns table (name text, attnum int2, type pg_type)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select attname::text, a.attnum, t
    from pg_attribute as a join pg_type as t on t.oid = a.atttypid
    where attrelid = own_columns.target and a.attnum > 0 and not attisdropped
    order by a.attnum;
$$;
comment on function audit.own_columns(regclass) is 'The columns of a table, in order';

create or replace function audit.column_of(target regclass, expression text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select name from audit.own_columns(column_of.target)
    where expression in (format('r.%I', name), audit.key_form((type).oid, format('r.%I', name)))
);
comment on function audit.column_of(regclass, text) is
    'The column that an expression is no more than; else null';

create or replace function audit.is_column(expression text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return is_column.expression ~ '^r\.([a-z_][a-z0-9_$]*|"([^"]|"")+")$';
comment on function audit.is_column(text) is 'Whether an expression is no more than a column of r';

-- What is secret now: the table may have changed since it was attached.
create or replace function audit.redacted_columns(target regclass, mapping jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(jsonb_agg(name order by attnum), '[]')
    from audit.own_columns(redacted_columns.target)
    where redacted_columns.mapping -> 'redact' ? name
        or not redacted_columns.mapping -> 'columns' ? name
            and (audit.is_secret(name) and (type).oid <> 'boolean'::regtype
                -- A secret was renamed: it may be in any column that was not there before.
                or exists (
                    select from jsonb_array_elements_text(redacted_columns.mapping -> 'redact')
                        as old
                    where old not in (select name from audit.own_columns(redacted_columns.target))))
        or name = any (audit.secret_columns(redacted_columns.target,
                redacted_columns.mapping ->> 'target_type'))
            and not coalesce(redacted_columns.mapping #> '{given,redact}' ? ('-' || name), false)
);
comment on function audit.redacted_columns(regclass, jsonb) is
    'Names of the columns that an event shows without their values';

-- A column is secret where it is redacted, or refers to a column that is.
create or replace function audit.shows_secret(target regclass, name text, redacted jsonb)
returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return shows_secret.redacted ? name or exists (
    select from pg_constraint as c
        join pg_attribute as mine on mine.attrelid = c.conrelid and mine.attname = name
        join pg_attribute as theirs on theirs.attrelid = c.confrelid
            and theirs.attnum = c.confkey[array_position(c.conkey, mine.attnum)]
        left join audit.attachment as a on a.target = c.confrelid
    where c.contype = 'f' and c.conrelid = shows_secret.target
        and mine.attnum = any (c.conkey)
        and (theirs.attname = any (audit.secret_columns(c.confrelid, coalesce(a.kind, '')))
            or a.mapping -> 'redact' ? theirs.attname::text)
);
comment on function audit.shows_secret(regclass, text, jsonb) is
    'Whether values of a column are secrets, its own or those of the table that it refers to';

-- What a lookup compares with is not what it returns; anything else that reads a secret may show it.
create or replace function audit.digested(target regclass, mapping jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(jsonb_agg(distinct e.key), '[]')
    from jsonb_each_text(digested.mapping) as e
        cross join audit.own_columns(digested.target) as c
    where e.key in ('organization', 'target_id', 'subject', 'row_id')
        and audit.shows_secret(target, c.name, audit.redacted_columns(target, mapping))
        and (c.name = audit.column_of(target, e.value)
            or e.value = audit.key_of(target) and c.name = any (audit.key_columns(target))
            or audit.column_of(target, e.value) is null
                and e.value is distinct from audit.key_of(target)
                and not e.value ~* '\mselect\M' and strpos(e.value, c.name) > 0)
);
comment on function audit.digested(regclass, jsonb) is
    'Which identifiers of a mapping are secrets, and are stored as digests';

create or replace function audit.key_is_typed(target regclass) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return not exists (
    select from audit.own_columns(key_is_typed.target)
    where name = any (audit.key_columns(key_is_typed.target)) and audit.typed(type, '') is null
);
comment on function audit.key_is_typed(regclass) is
    'Whether the columns of the key can be read without code of the application';

-- As audit.default_alive says it, and conjunctions of the like.
create or replace function audit.alive_code(target regclass, mapping jsonb, side text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case when bool_and(t.code is not null) then string_agg(t.code, ' and ' order by n) end
    from regexp_split_to_table(mapping ->> 'alive', '\s+and\s+') with ordinality as p (part, n)
        cross join regexp_match(btrim(part), '^(r\..*) (is (?:not )?(?:null|true|false))$') as m
        left join lateral (
            select format('%s.%I %s', side, name, m[2]) as code
            from audit.own_columns(target)
            where m[1] = format('r.%I', name) and audit.typed(type, '') is not null
        ) as t on true
);
comment on function audit.alive_code(regclass, jsonb, text) is
    'Generated condition for rows that are alive; null if audit_mapper has to tell';

create or replace function audit.text_code(target regclass, expression text, side text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return case
    when expression ~ '^''([^''\\]|'''')*''$' then expression || '::text'
    when audit.column_of(target, expression) is not null then (
        select audit.typed_text(type, format('%s.%I', side, name))
        from audit.own_columns(target) where name = audit.column_of(target, expression))
    when expression = audit.key_of(target) and audit.key_is_typed(target) then (
        select format('concat_ws('','', %s)', string_agg(
            audit.typed_text(type, format('%s.%I', side, name)), ', '
            order by array_position(audit.key_columns(target), name)))
        from audit.own_columns(target) where name = any (audit.key_columns(target)))
end;
comment on function audit.text_code(regclass, text, text) is
    'Generated expression for what a mapping names, as text; null if audit_mapper has to tell';

create or replace function audit.raw_parts(target regclass, mapping jsonb) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
return coalesce((
    select array_agg(n order by i)
    from unnest('{organization,target_id,subject,role,row_id}'::text[]) with ordinality as t (n, i)
    where mapping ? n and audit.text_code(target, mapping ->> n, 'r') is null
), '{}') || case when mapping ? 'alive' and audit.alive_code(target, mapping, 'r') is null
    then '{alive}'::text[] else '{}' end
|| array(
    select 'column ' || name from audit.own_columns(target)
    where audit.typed(type, '') is null and not mapping -> 'redact' ? name
);
comment on function audit.raw_parts(regclass, jsonb) is
    'What of a row audit_mapper reads, in the order in which audit.read_<id> returns it';

-- Each looks who it runs as before anything else: a function's owner, and so any code that runs as
-- audit_mapper, may alter it to run as its caller. A default of a variable would come earlier.
create or replace function audit.as_mapper(body text) returns text
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
comment on function audit.as_mapper(text) is
    'Body of a function of audit_mapper, which refuses to run as anyone else';

create or replace function audit.read_code(target regclass, mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select audit.as_mapper(format(E'    return array[\n        %s\n    ];', string_agg(case
        when part like 'column %' then format('to_jsonb(r.%I)::text', substr(part, 8))
        -- On a line of its own: the expression may end in a comment.
        else format(E'(%s\n        )::text', mapping ->> part) end, E',\n        ' order by n)))
    from unnest(audit.raw_parts(target, mapping)) with ordinality as t (part, n)
);
comment on function audit.read_code(regclass, jsonb) is
    'Body of audit.read_<id>: what audit_mapper reads of a row, as text; null if nothing';
