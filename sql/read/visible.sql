-- Visible retention: how far back the viewers of an organisation see. Older events stay in the log,
-- for auditors and exports; the policy for viewers hides them.

create or replace function audit_private.visible_since() returns timestamptz[]
-- Parallel unsafe: before PostgreSQL 17, a guarded block cannot start during a parallel plan.
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
-- Otherwise the time zone of the session would change the length of a month.
set timezone = 'UTC'
as $$
declare
    _organization_id text;
    _keep interval;
begin
    -- Every read calls this: if nothing is hidden from anybody, the token need not be read again.
    if not exists (select from audit.visible_retention) then
        return '{-infinity}';
    end if;
    _organization_id := (audit_private.read_token())[2];
    if _organization_id is null then
        return null;
    end if;
    select v.keep into _keep from audit.visible_retention as v
    where v.organization_id = _organization_id;
    -- The time of this moment: a transaction may stay open.
    return array[coalesce(clock_timestamp() - _keep, '-infinity')];
exception when assert_failure or others then
    return null;
end
$$;
-- Definer: reads the signing keys, and the visible retention of all organisations. Without a valid
-- token, the result is null.
comment on function audit_private.visible_since is
    'The time from which on the viewer token of this transaction shows events; -infinity if '
    'nothing is hidden. An array of one element, for the same reason as in '
    'audit_private.viewer_start()';

create or replace function audit.limit_visibility(organization_id text, keep interval)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    _before interval;
begin
    if coalesce(limit_visibility.organization_id, '') = '' then
        raise exception 'the organisation is missing'
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
-- Definer: no role may write to the table itself.
comment on function audit.limit_visibility is
    'Hides events older than an interval from the viewers of an organisation; null hides none. '
    'Records an event. Nothing is dropped, and auditors see everything';
