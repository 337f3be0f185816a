-- Typed: how generated code that runs as audit_owner reads a value without meeting any code of the
-- application. Conversions that PostgreSQL brings along run no other code, as long as the column
-- has the type that it had when the code was generated: audit.exactly makes sure when the code is
-- parsed, and costs nothing afterwards.

-- Polymorphic types take no cast: where the column has another type, no function fits, and the
-- statement is not even parsed. A pinned search_path would keep the planner from inlining them;
-- they name nothing that could be found elsewhere.
create or replace function audit.exactly(value anyelement, type anyarray) returns anyelement
language sql immutable
as 'select value';
comment on function audit.exactly(anyelement, anyarray) is
    'The value, which must be of the array''s element type and not merely convertible to it';

create or replace function audit.exactly(value anyarray, element anyelement) returns anyarray
language sql immutable
as 'select value';
comment on function audit.exactly(anyarray, anyelement) is
    'The array, whose elements must be of that type and not merely convertible to it';

create or replace function audit.exactly(value anyenum) returns anyenum
language sql immutable
as 'select value';
comment on function audit.exactly(anyenum) is 'The value, which must be one of an enum';

create or replace function audit.typed(type pg_type, value text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case
    when exists (
        select from pg_cast
        where castsource = typed.type.oid and casttarget in ('json'::regtype, 'text'::regtype)
            and typed.type.typtype = 'e'
    ) then null
    when typed.type.typtype = 'e' then format('audit.exactly(%s)', value)
    when typed.type.typnamespace <> 'pg_catalog'::regnamespace or typed.type.typtype not in
        ('b', 'r', 'm') then null
    when typed.type.typsubscript = 'array_subscript_handler'::regproc and typed.type.typlen = -1
        and typed.type.typelem <> 0 then (
        select case when typnamespace = 'pg_catalog'::regnamespace and typtype in ('b', 'r', 'm')
            then format('audit.exactly(%s, null::%s)', typed.value, oid::regtype) end
        from pg_type where oid = typed.type.typelem)
    when typed.type.typarray <> 0 then
        format('audit.exactly(%s, null::%s)', value, typed.type.typarray::regtype)
end;
comment on function audit.typed(pg_type, text) is
    'Generated expression for a value that must be of the type; null if reading one of that type '
    'may run code of the application';

-- An enum is not handed to jsonb or cast to text: both look for a cast that somebody created.
create or replace function audit.typed_json(type pg_type, value text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when typed_json.type.typtype = 'e' then
        format('textin(enum_out(%s))', value)
    else audit.typed(typed_json.type, value) end;
comment on function audit.typed_json(pg_type, text) is
    'Generated expression for a value as an argument of jsonb_build_object; or null, as '
    'audit.typed';

create or replace function audit.refuse_long() returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using errcode = 'string_data_right_truncation';
end
$$;
comment on function audit.refuse_long() is
    'Raises: an identifier is too long for the short way; the other one takes care of it';

-- What identifies fits an index: three of them in 600 bytes.
create or replace function audit.typed_text(type pg_type, value text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case when typed_text.type.oid = any (array['bool', 'int2', 'int4', 'int8', 'oid', 'uuid',
            'date', 'timestamp', 'timestamptz']::regtype[]) then t.form
        else format('case when octet_length(%1$s) > 200 then audit.refuse_long() else %1$s end',
            t.form) end
    from (
        select case when typed_text.type.typtype = 'e' then
                audit.typed_json(typed_text.type, typed_text.value)
            else audit.typed(typed_text.type, typed_text.value) || '::text' end
    ) as t (form)
);
comment on function audit.typed_text(pg_type, text) is
    'Generated expression for a value as an identifier; or null, as audit.typed';
