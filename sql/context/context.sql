-- The context: who acts, and from where, for the rest of the current transaction. It is a claim of
-- whoever holds the connection. It is local to the transaction, so that a pool cannot leak it.

create or replace function audit_private.check_claim(
    actor_type text, details jsonb, variadic identifiers text[]
) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
    if check_claim.actor_type not in ('user', 'api_key', 'system', 'database') then
        raise exception 'actor_type is "%"', check_claim.actor_type
            using errcode = 'invalid_parameter_value',
                hint = 'It must be one of user, api_key, system, database.';
    end if;
    if jsonb_typeof(check_claim.details) <> 'object' then
        raise exception 'details is %, not an object', jsonb_typeof(check_claim.details)
            using errcode = 'invalid_parameter_value',
                hint = 'Give a jsonb object, as in ''{"ip": "203.0.113.9"}''.';
    end if;
    if (select max(length(i)) from unnest(check_claim.identifiers) as i) > 200 then
        raise exception 'an identifier is longer than 200 characters'
            using errcode = 'string_data_right_truncation',
                hint = 'Put long values into details.';
    end if;
end
$$;
comment on function audit_private.check_claim is
    'Raises if what a context or a recorded event claims does not fit into an event';

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
    perform audit_private.check_claim(coalesce(set_context.actor_type, ''), set_context.details,
        set_context.actor_id, set_context.impersonator_id, set_context.organization_id,
        set_context.source);
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
    'organization_id is used for events whose row belongs to no organisation. details is added to '
    'every event, with its secrets redacted';

create or replace function audit.clear_context() returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    select set_config('auditdb.context', '', true);
$$;
comment on function audit.clear_context is
    'Removes the context for the rest of the transaction';

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
    'The context in force, as jsonb; null if none is set';

-- Only the log itself may set these keys of details.
create or replace function audit_private.own_details() returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
return '{completes,degraded,erased,group,moved,new_role,previous_role,row_id}'::text[];
comment on function audit_private.own_details is
    'Keys of details that a context cannot set, because the log reports its own findings there';

create or replace function audit_private.context_details(context jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return case when jsonb_typeof(context_details.context -> 'details') = 'object'
    then nullif((context_details.context -> 'details') - audit_private.own_details(), '{}') end;
comment on function audit_private.context_details is
    'The details that a context adds to each event, without the keys that only the log sets';

create or replace function audit_private.acting(
    context jsonb,
    out actor_id text, out actor_type text, out impersonator_id text, out source text,
    out organization_id text, out details jsonb
)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select case when jsonb_typeof(context) = 'object' then left(context ->> 'actor_id', 200)
            else session_user::text end,
        coalesce(left(context ->> 'actor_type', 200), 'database'),
        left(context ->> 'impersonator_id', 200),
        coalesce(left(context ->> 'source', 200), 'sql'),
        left(context ->> 'organization_id', 200),
        audit_private.context_details(context);
$$;
comment on function audit_private.acting is
    'Who acts, and from where, by a context; the login if there is none';
