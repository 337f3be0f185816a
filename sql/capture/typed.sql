-- Typed: how generated code reads a value as audit_owner without running code of the application.
-- The conversions of PostgreSQL run no foreign code as long as the column has the type that the
-- code was generated for. audit_private.exactly checks the type when the code is parsed,
-- and costs nothing afterwards.

-- Polymorphic arguments are never cast: if the column has another type, no function matches, and
-- the statement cannot be parsed. These functions pin no search_path, since that would prevent
-- inlining; every name in them is safe without it.
create or replace function audit_private.exactly(value anyelement, type anyarray) returns anyelement
language sql immutable
as 'select value';
comment on function audit_private.exactly(anyelement, anyarray) is
    'The value, which must be of exactly the element type of the array; '
    'a convertible type is an error';

create or replace function audit_private.exactly(value anyarray, element anyelement)
returns anyarray
language sql immutable
as 'select value';
comment on function audit_private.exactly(anyarray, anyelement) is
    'The array, whose elements must be of exactly that type; a convertible type is an error';

create or replace function audit_private.exactly(value anyenum) returns anyenum
language sql immutable
as 'select value';
comment on function audit_private.exactly(anyenum) is
    'The value, which must be of an enum type';

create or replace function audit_private.typed(type pg_type, value text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    _array oid := typed.type.typarray;
begin
    if typed.type.typtype = 'e' then
        return case when not exists (
            select from pg_cast
            where castsource = typed.type.oid and casttarget in ('json'::regtype, 'text'::regtype)
        ) then format('audit_private.exactly(%s)', value) end;
    elsif typed.type.typnamespace <> 'pg_catalog'::regnamespace
        or typed.type.typtype not in ('b', 'r', 'm')
    then
        return null;
    elsif typed.type.typsubscript = 'array_subscript_handler'::regproc and typed.type.typlen = -1
        and typed.type.typelem <> 0
    then
        return (
            select format('audit_private.exactly(%s, null::%s)', typed.value, oid::regtype)
            from pg_type
            where oid = typed.type.typelem and typnamespace = 'pg_catalog'::regnamespace
                and typtype in ('b', 'r', 'm'));
    end if;
    return case when _array <> 0
        then format('audit_private.exactly(%s, null::%s)', value, _array::regtype) end;
end
$$;
comment on function audit_private.typed is
    'Generated expression for a value that must be of exactly this type; null if reading such a '
    'value may run code of the application';

-- An enum is not passed to jsonb or cast to text: both look for casts that its owner may create.
-- Text, json, bytea and their arrays may contain secrets.
create or replace function audit_private.typed_json(type pg_type, value text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return case
    when typed_json.type.typtype = 'e' then format('textin(enum_out(%s))', value)
    when typed_json.type.oid = any ('{text,varchar,name}'::regtype[]) then
        format('audit_private.safe_text(%s)', value)
    when typed_json.type.oid = 'jsonb'::regtype then format('audit_private.redact_json(%s)', value)
    -- Independent of bytea_output.
    when typed_json.type.oid = 'bytea'::regtype then format('audit_private.redact_bytes(%s)', value)
    when typed_json.type.typcategory = 'A' and typed_json.type.typelem = 'bytea'::regtype
        then format('audit_private.redact_byte_array(%s)', value)
    when typed_json.type.oid = any (array['json', 'xml', 'bpchar']::regtype[])
        or typed_json.type.typcategory = 'A' and typed_json.type.typelem = any (
            array['text', 'varchar', 'bpchar', 'name', 'json', 'jsonb', 'xml']::regtype[])
        then format('audit_private.redact_json(to_jsonb(%s))', value)
    else value
end;
end
$$;
comment on function audit_private.typed_json is
    'Generated expression for a typed value as an argument of jsonb_build_object';

create or replace function audit_private.typed_text(type pg_type, value text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return case
    when typed_text.type.typtype = 'e' then format('textin(enum_out(%s))', value)
    when audit_private.key_form(typed_text.type.oid, value) <> value
        then '(' || audit_private.key_form(typed_text.type.oid, value) || ')'
    else value || '::text'
end;
end
$$;
comment on function audit_private.typed_text is
    'Generated expression for a typed value as text';

create or replace function audit_private.is_text(type oid) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return is_text.type <> all (array['bool', 'int2', 'int4', 'int8', 'oid', 'uuid', 'date',
    'timestamp', 'timestamptz']::regtype[]::oid[]);
end
$$;
comment on function audit_private.is_text is
    'Whether an identifier of a type may be long or contain a secret';
