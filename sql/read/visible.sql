-- Visible retention: how far back the viewers of an organisation see. Older events stay in the log,
-- for auditors and for what is exported; the policy of viewers leaves them out.

create or replace function audit_private.visible_since() returns timestamptz[]
-- Unsafe: before PostgreSQL 17 its guarded block cannot start while a parallel plan runs.
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
-- Else the session says how long a month is.
set timezone = 'UTC'
as $$
declare
    _organization_id text;
    _keep interval;
begin
    -- Every read asks: where nothing is hidden from anybody, no token is looked at once more.
    if not exists (select from audit.visible_retention) then
        return '{-infinity}';
    end if;
    _organization_id := (audit_private.read_token())[2];
    if _organization_id is null then
        return null;
    end if;
    select v.keep into _keep from audit.visible_retention as v
    where v.organization_id = _organization_id;
    -- Of this moment: a transaction may stay open.
    return array[coalesce(clock_timestamp() - _keep, '-infinity')];
exception when assert_failure or others then
    return null;
end
$$;
-- Definer: reads the signing keys, and what is said of all organisations. Without a good token
-- there is no answer.
comment on function audit_private.visible_since is
    'Since when the viewer token of this transaction shows events, -infinity where nothing is '
    'hidden. An array of that one, as audit_private.viewer_start() returns one';

create or replace function audit.limit_visibility(organization_id text, keep interval)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    _before interval;
begin
    if coalesce(limit_visibility.organization_id, '') = '' then
        raise exception 'whose viewers are meant is not said'
            using errcode = 'invalid_parameter_value', hint = 'Name an organisation.';
    elsif limit_visibility.keep not between interval '1 hour' and interval '1000 years' then
        raise exception 'viewers cannot see %: it is not from 1 hour to 1000 years',
            limit_visibility.keep
            using errcode = 'invalid_parameter_value',
                hint = 'Give an interval such as 30 days.';
    end if;
    select v.keep into _before from audit.visible_retention as v
    where v.organization_id = limit_visibility.organization_id for update;
    if limit_visibility.keep is not distinct from _before then
        return;
    end if;
    delete from audit.visible_retention as v
    where v.organization_id = limit_visibility.organization_id and limit_visibility.keep is null;
    insert into audit.visible_retention (organization_id, keep)
    select limit_visibility.organization_id, limit_visibility.keep
    where limit_visibility.keep is not null
    on conflict (organization_id) do update
    set keep = excluded.keep, set_at = excluded.set_at, set_by = excluded.set_by;
    perform audit_private.record_own('visibility_limited', limit_visibility.organization_id,
        jsonb_build_object('keep', _before), jsonb_build_object('keep', limit_visibility.keep));
end
$$;
-- Definer: nobody holds a privilege to write on the table itself.
comment on function audit.limit_visibility is
    'Hides events older than an interval from the viewers of an organisation, or, with null, none; '
    'it is an event. Nothing is dropped, and auditors see all';
