-- The context: who acts, and from where, for the rest of the current transaction.
-- A claim by whoever holds the connection. Transaction-local, so that a pool cannot leak it.

create or replace function audit.set_context(
    actor_id text default null,
    actor_type text default 'user',
    impersonator_id text default null,
    source text default 'web',
    organization_id text default null,
    details jsonb default null
) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if set_context.actor_type is null
        or set_context.actor_type not in ('user', 'api_key', 'system', 'database')
    then
        raise exception 'actor_type is "%"', set_context.actor_type
            using errcode = 'invalid_parameter_value',
                hint = 'It is one of user, api_key, system, database.';
    end if;
    if jsonb_typeof(set_context.details) <> 'object' then
        raise exception 'details is %, not an object', jsonb_typeof(set_context.details)
            using errcode = 'invalid_parameter_value',
                hint = 'Give a jsonb object, as in ''{"ip": "203.0.113.9"}''.';
    end if;
    if greatest(length(set_context.actor_id), length(set_context.impersonator_id),
        length(set_context.organization_id), length(set_context.source)) > 200
    then
        raise exception 'an identifier of the context is longer than 200 characters'
            using errcode = 'string_data_right_truncation',
                hint = 'Put long values into details.';
    end if;
    perform set_config('auditdb.context', jsonb_strip_nulls(jsonb_build_object(
        'actor_id', set_context.actor_id,
        'actor_type', set_context.actor_type,
        'impersonator_id', set_context.impersonator_id,
        'source', set_context.source,
        'organization_id', set_context.organization_id,
        'details', audit_private.redact_details(set_context.details)
    ))::text, true);
end
$$;
-- Definer: writers may not execute what redacts.
comment on function audit.set_context is
    'Says who acts, and from where, until the current transaction ends. '
    'While impersonating, actor_id is the impersonated user and impersonator_id the administrator. '
    'organization_id serves events whose row belongs to no organisation. details goes into every '
    'event, without the secrets in it';

create or replace function audit.clear_context() returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    select set_config('auditdb.context', '', true);
$$;
comment on function audit.clear_context is
    'Forgets the context for the rest of the transaction';

create or replace function audit.current_context() returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _context jsonb;
begin
    _context := nullif(current_setting('auditdb.context', true), '')::jsonb;
    return case when jsonb_typeof(_context) = 'object' then _context end;
exception when others then
    return null;
end
$$;
comment on function audit.current_context is
    'The context in force, or null';
