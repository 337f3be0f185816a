-- Claims of other tools: their settings say who acts, if auditdb.context is not set. Such a setting
-- is a claim, like a context. None is read until audit.read_context_from() names it.

-- Only the parts of a setting that are named here get into the log. No key: the setting is the id.
create or replace function audit_private.conventions()
returns table (setting text, id_key text, role_key text, session_key text, system_role text,
    source text)
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    values
        ('request.jwt.claims', 'sub', 'role', 'session_id', 'service_role', 'api'),
        ('hasura.user', 'x-hasura-user-id', 'x-hasura-role', null, 'admin', 'api'),
        ('app.current_user_id', null, null, null, null, 'web'),
        ('pghistory.context_metadata', 'user', null, null, null, 'web'),
        ('jwt.claims.user_id', null, null, null, null, 'api');
$$;
comment on function audit_private.conventions is
    'Settings in which other tools say who acts, and which parts of each are read';

-- Inlined into its callers, which run it for each event without a context.
create or replace function audit_private.may_claim() returns boolean
language sql stable
return concat(current_setting('request.jwt.claims', true), current_setting('hasura.user', true),
    current_setting('app.current_user_id', true),
    current_setting('pghistory.context_metadata', true),
    current_setting('jwt.claims.user_id', true)) <> ''
    and coalesce(current_setting('auditdb.context', true), '') = '';
comment on function audit_private.may_claim is
    'Whether no context is set, but a setting of another tool says who acts';

create or replace function audit_private.claimed_name(value jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _name text := nullif(claimed_name.value #>> '{}', '');
begin
    return case
        when jsonb_typeof(claimed_name.value) not in ('string', 'number') then null
        -- Numbers and UUIDs are no secrets, so they need no search.
        when _name ~ '^[0-9a-f-]{1,36}$' then _name
        else left(audit_private.safe_name(left(_name, 4000), '{}'), 200) end;
end
$$;
comment on function audit_private.claimed_name is
    'An identifier or role that a setting claims; its digest if it looks like a secret';

create or replace function audit_private.claim_of(setting text) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _value text := current_setting(claim_of.setting, true);
    _claims jsonb;
    _by record;
    _id text;
    _role text;
begin
    if coalesce(_value, '') = '' then
        return null;
    end if;
    if length(_value) > 16384 then
        return 'null';
    end if;
    select * into _by from audit_private.conventions() as c where c.setting = claim_of.setting;
    _claims := case when _by.id_key is null then to_jsonb(_value) else _value::jsonb end;
    if _by.id_key is not null and jsonb_typeof(_claims) <> 'object' then
        return 'null';
    end if;
    _id := audit_private.claimed_name(
        case when _by.id_key is null then _claims else _claims -> _by.id_key end);
    _role := audit_private.claimed_name(_claims -> _by.role_key);
    if _id is null and _role is null then
        return null;
    end if;
    return jsonb_strip_nulls(jsonb_build_object(
        'actor_id', _id,
        'actor_type', case when _role = _by.system_role
            and (_id is null or _role = 'service_role') then 'system' else 'user' end,
        'source', _by.source,
        'details', jsonb_build_object('actor_source', claim_of.setting, 'role', _role,
            -- It may be the secret that opens the session.
            'session', audit_private.digest(_claims ->> _by.session_key))));
exception when others then
    return 'null';
end
$$;
comment on function audit_private.claim_of is
    'The context that a setting of another tool says; JSON null if it cannot be read';

create or replace function audit_private.claimed_context() returns jsonb
-- With row_security off, reading the installation would raise an error.
language plpgsql stable set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _settings text[] := (select context_from from audit_private.installation limit 1);
    _setting text;
    _claim jsonb;
begin
    foreach _setting in array coalesce(_settings, '{}') loop
        _claim := audit_private.claim_of(_setting);
        if _claim is not null then
            return _claim;
        end if;
    end loop;
    return null;
end
$$;
comment on function audit_private.claimed_context is
    'The context from the first setting in use that says who acts; null if none does';

create or replace function audit_private.context_in_force() returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return coalesce(audit.current_context(),
    case when audit_private.may_claim() then audit_private.claimed_context() end);
comment on function audit_private.context_in_force is
    'The context; if none is set, the claim of another tool that replaces it';

create or replace function audit.read_context_from(settings text[]) returns text[]
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    set row_security = on
as $$
declare
    _known text[] := array(select c.setting from audit_private.conventions() as c);
    _before text[] := (select i.context_from from audit_private.installation as i limit 1);
    _unknown text := (select quote_nullable(s) from unnest(read_context_from.settings) as s
        where s is null or s <> all (_known) limit 1);
begin
    if _unknown is not null or read_context_from.settings is null then
        raise exception 'no context can be read from the setting %', coalesce(_unknown, 'NULL')
            using errcode = 'invalid_parameter_value',
                hint = 'Known settings are ' || array_to_string(_known, ', ') || '; {} ends it.';
    end if;
    if _before is distinct from read_context_from.settings then
        update audit_private.installation set context_from = read_context_from.settings;
        perform audit_private.record_own('context_read', null,
            jsonb_build_object('settings', _before),
            jsonb_build_object('settings', read_context_from.settings));
    end if;
    return _before;
end
$$;
-- Definer: the installation is closed to everybody.
comment on function audit.read_context_from is
    'Chooses the settings of other tools that say who acts when no context is set, in order; none '
    'by default. Records an event. Returns the former settings';

create or replace function audit.list_settings() returns setof text
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select s.setting
    from audit_private.installation as i,
        unnest(i.context_from) with ordinality as s (setting, place)
    order by s.place;
$$;
-- Definer: the installation is closed to everybody.
comment on function audit.list_settings is
    'The settings that say who acts when no context is set, in order';

insert into audit.action (name, description, is_built_in) values
('audit.context_read', 'Settings of other tools say who acts where no context is set', true)
on conflict (name) do update
    set description = excluded.description, is_built_in = excluded.is_built_in
    where (action.description, action.is_built_in)
        is distinct from (excluded.description, excluded.is_built_in);
