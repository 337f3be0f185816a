-- What a page says beside the events: who took the log along, why nothing is shown, what is logged.

create or replace function audit_private.who_reads(organization_id text, actor_id text)
returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _viewer text[] := audit_private.read_token();
begin
    -- Who sets a token is judged by it, and be it void: no auditor's word stands in for it.
    if coalesce(current_setting('auditdb.viewer', true), '') <> '' then
        if audit.viewer_organization() = _viewer[2] then
            return _viewer;
        end if;
        raise exception 'the viewer may not read this log'
            using errcode = 'insufficient_privilege';
    elsif not pg_has_role(session_user, 'audit_auditor', 'member') then
        raise exception 'who reads is not known'
            using errcode = 'insufficient_privilege',
                hint = 'Set auditdb.viewer to a token, or be a member of audit_auditor.';
    elsif coalesce(who_reads.actor_id, '') = '' then
        raise exception 'actor_id is missing'
            using errcode = 'invalid_parameter_value', hint = 'Say who reads the log.';
    end if;
    return array[who_reads.actor_id, who_reads.organization_id];
end
$$;
comment on function audit_private.who_reads is
    'Who reads which organisation''s log: as the token says, or for an auditor the arguments';

create or replace function audit.record_reading(
    verb text, details jsonb default null, organization_id text default null,
    actor_id text default null
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _who text[] := audit_private.who_reads(record_reading.organization_id, record_reading.actor_id);
    _id bigint;
begin
    if record_reading.verb not in ('viewed', 'export_started', 'exported') then
        raise exception 'a reading is "%"', record_reading.verb
            using errcode = 'invalid_parameter_value',
                hint = 'It is viewed, export_started or exported.';
    end if;
    -- A page that is looked at again and again is one reading.
    if record_reading.verb = 'viewed' and exists (
        select from audit.event as e
        where e.organization_id = _who[2] and e.occurred_at > now() - interval '15 minutes'
            and e.action = 'audit.viewed' and e.actor_id = _who[1])
    then
        return null;
    end if;
    perform audit_private.count_recording();
    perform audit_private.check_claim('user', record_reading.details,
        _who[1], null, _who[2], 'web', 'audit', null, null);
    perform audit_private.take_transaction_id();
    insert into audit.event (
        action, result, actor_id, actor_type, source, organization_id, target_type, details
    ) values (
        'audit.' || record_reading.verb, 'success', _who[1], 'user', 'web', _who[2], 'audit',
        audit_private.redact_details(record_reading.details)
    ) returning id into _id;
    return _id;
end
$$;
-- Definer: readers hold no privilege to write. What is written of a viewer is their token's word.
comment on function audit.record_reading is
    'Records that the log of an organisation was viewed or exported, by the viewer of the token '
    'or, for an auditor, by whom the arguments name; viewed once in 15 minutes. Returns its id';

create or replace function audit.viewer_problem() returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if audit.viewer_organization() is not null then
        return null;
    end if;
    return coalesce(
        (select t.problem from audit_private.examine_token() as t),
        case when exists (select from audit_private.admin_rules()) then 'no admin' else 'no rule'
        end);
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
    'For a viewer: the kinds of objects whose changes are captured, from how many tables, and '
    'since when; nothing without a good token, unless for an auditor';
