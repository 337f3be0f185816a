-- What a page says beside the events: who took the log along, why nothing is shown, what is logged.

create or replace function audit.record_reading(
    verb text, details jsonb default null, organization_id text default null,
    actor_id text default null
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _viewer text[] := audit_private.read_token();
    _id bigint;
begin
    if record_reading.verb not in ('viewed', 'export_started', 'exported') then
        raise exception 'a reading is "%"', record_reading.verb
            using errcode = 'invalid_parameter_value', hint = 'It is viewed, export_started or exported.';
    end if;
    if _viewer is not null then
        -- The token says who reads and which organisation's log.
        if audit.viewer_organization() is null then
            raise exception 'the viewer may not read this log'
                using errcode = 'insufficient_privilege';
        end if;
    elsif not pg_has_role(session_user, 'audit_auditor', 'member') then
        raise exception 'who reads is not known'
            using errcode = 'insufficient_privilege',
                hint = 'Set auditdb.viewer to a token, or be a member of audit_auditor.';
    elsif nullif(record_reading.actor_id, '') is null then
        raise exception 'actor_id is missing'
            using errcode = 'invalid_parameter_value', hint = 'Say who reads the log.';
    else
        _viewer := array[record_reading.actor_id, record_reading.organization_id];
    end if;
    -- A page that is looked at again and again is one reading.
    if record_reading.verb = 'viewed' and exists (
        select from audit.event as e
        where e.organization_id = _viewer[2] and e.occurred_at > now() - interval '15 minutes'
            and e.action = 'audit.viewed' and e.actor_id = _viewer[1])
    then
        return null;
    end if;
    perform audit_private.count_recording();
    perform audit_private.check_claim('user', record_reading.details,
        _viewer[1], null, _viewer[2], 'web', 'audit', null, null);
    insert into audit.event (
        action, result, actor_id, actor_type, source, organization_id, target_type, details
    ) values (
        'audit.' || record_reading.verb, 'success', _viewer[1], 'user', 'web', _viewer[2], 'audit',
        audit_private.redact_details(record_reading.details)
    ) returning id into _id;
    return _id;
end
$$;
-- Definer: readers hold no privilege to write. What is written of a viewer is their token's word.
comment on function audit.record_reading is
    'Records that the log of an organisation was viewed or exported, by the viewer of the token or, '
    'for an auditor, by whom the arguments name; viewed once in 15 minutes. Returns the event''s id';

create or replace function audit.viewer_problem() returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _token text := current_setting('auditdb.viewer', true);
    _parts text[];
    _key audit_private.signing_key;
begin
    if audit.viewer_organization() is not null then
        return null;
    end if;
    if _token !~ '^v1\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[0-9]{1,12}\.[0-9a-f]{64}$'
        or length(_token) > 2000
    then
        return 'token';
    end if;
    _parts := string_to_array(_token, '.');
    select * into _key from audit_private.signing_key as k where k.id = _parts[2];
    -- Who holds no key learns nothing.
    if not found or sha256(decode(_parts[6], 'hex')) <> sha256(audit_private.hmac_sha256(
        convert_to(_key.secret, 'UTF8'), convert_to(array_to_string(_parts[1:5], '.'), 'UTF8')))
    then
        return 'token';
    end if;
    return case
        when _key.retires_at <= clock_timestamp() then 'key retired'
        when to_timestamp(_parts[5]::bigint) not between clock_timestamp()
            and clock_timestamp() + interval '1 hour' then 'clock'
        when not exists (select from audit_private.admin_rules()) then 'no rule'
        else 'no admin' end;
exception when assert_failure or others then
    return 'token';
end
$$;
-- Definer: reads the signing keys, which no login role can.
comment on function audit.viewer_problem is
    'Why the viewer token of this transaction shows nothing: "token" (no good one), "key retired", '
    '"clock" (it is over, or of another time), "no rule" (nothing attached says who is an admin), '
    '"no admin"; null where it is good. Only who holds the key learns more than "token"';

create or replace function audit.list_logged()
returns table (kind text, tables bigint, since timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select a.kind, count(*), min(a.attached_at)
    from audit_private.attachment as a
    where a.kind <> 'admin'
        and (audit.viewer_organization() is not null
            or pg_has_role(session_user, 'audit_auditor', 'member'))
    group by a.kind
    order by a.kind;
$$;
-- Definer: readers hold no privilege on the mappings, which name tables and columns.
comment on function audit.list_logged is
    'For a viewer: the kinds of objects whose changes are captured, from how many tables, and since '
    'when; nothing without a good token, unless for an auditor';
