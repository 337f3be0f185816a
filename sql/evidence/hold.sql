-- Legal hold: retention drops no month that holds events of an organisation under legal hold, not
-- even with force. Auditors place and release holds; operators cannot.

-- Callers that drop or erase hold the lock of maintenance, which a new hold waits for.
create or replace function audit_private.is_held(organization_id text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from audit.legal_hold as h where h.organization_id = is_held.organization_id);
$$;
comment on function audit_private.is_held is
    'Whether an organisation is under legal hold';

create or replace function audit_private.held_months(organization_id text) returns date[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(m order by m), '{}')
    from unnest(audit_private.months_attached()) as m
        cross join lateral audit_private.month_bounds(m) as b
    where exists (
        select from audit.event as e
        where e.organization_id = held_months.organization_id
            and e.occurred_at >= b.starts and e.occurred_at < b.ends);
$$;
comment on function audit_private.held_months is
    'The months that hold events of an organisation';

create or replace function audit_private.held_line(month date) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select format('keep %s: %s under legal hold, and it has events of then',
        to_char(held_line.month, 'YYYY-MM'),
        case when count(*) = 1 then format('organisation %s is', min(h.organization_id))
            else format('%s organisations, %s among them, are', count(*), min(h.organization_id))
            end)
    from (select distinct l.organization_id from audit.legal_hold as l) as h
        cross join lateral audit_private.month_bounds(held_line.month) as b
    where exists (
        select from audit.event as e
        where e.organization_id = h.organization_id
            and e.occurred_at >= b.starts and e.occurred_at < b.ends)
    having count(*) > 0;
$$;
comment on function audit_private.held_line is
    'Why retention keeps a month even with force: who is under legal hold; null if nobody is';

-- Such a transaction does not see holds that were committed after its snapshot.
create or replace function audit_private.refuse_snapshot() returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise exception 'months cannot be dropped under %', current_setting('transaction_isolation')
            using errcode = 'invalid_transaction_state',
                hint = 'A new legal hold would not be seen. Use read committed.';
    end if;
end
$$;
comment on function audit_private.refuse_snapshot is
    'Raises if the transaction reads by one snapshot from its beginning';

create or replace function audit.hold_organization(organization_id text, reason text)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
begin
    if coalesce(hold_organization.organization_id, '') = ''
        or length(coalesce(hold_organization.reason, '')) not between 1 and 200
    then
        raise exception 'a legal hold needs an organisation, and a reason of 1 to 200 characters'
            using errcode = 'invalid_parameter_value';
    end if;
    -- The lock of maintenance: waits for a running maintenance, which may drop months now.
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    insert into audit.legal_hold (organization_id, reason)
    values (hold_organization.organization_id, hold_organization.reason)
    on conflict do nothing;
    if found then
        perform audit_private.record_own('organization_held', hold_organization.organization_id,
            null, jsonb_build_object('reason', hold_organization.reason));
    end if;
    return cardinality(audit_private.held_months(hold_organization.organization_id));
end
$$;
-- Definer: no role may write to the table itself.
comment on function audit.hold_organization is
    'Puts an organisation under legal hold, for a reason, and records an event. From then on, '
    'retention drops no month that holds its events. Returns how many months hold events of it now';

create or replace function audit.release_organization(organization_id text, reason text)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _others text := (
        select string_agg(h.reason, '; ' order by h.reason) from audit.legal_hold as h
        where h.organization_id = release_organization.organization_id);
begin
    delete from audit.legal_hold as h
    where h.organization_id = release_organization.organization_id
        and h.reason = release_organization.reason;
    if not found then
        raise exception 'organisation % is not under legal hold for this reason',
                release_organization.organization_id
            using errcode = 'undefined_object',
                hint = coalesce('It is held for: ' || _others, 'It is not held at all.');
    end if;
    perform audit_private.record_own('organization_released', release_organization.organization_id,
        jsonb_build_object('reason', release_organization.reason), null);
end
$$;
-- Definer: no role may write to the table itself.
comment on function audit.release_organization is
    'Ends the legal hold that was placed on an organisation for a reason; records an event';

create or replace function audit_private.check_holds() returns setof audit.finding
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _hold record;
begin
    for _hold in
        select h.organization_id as id, min(h.held_at) as since,
            string_agg(h.reason, '; ' order by h.reason) as reasons
        from audit.legal_hold as h
        group by h.organization_id
    loop
        if exists (select from audit.event as e where e.organization_id = _hold.id) then
            return next ('holds', 'notice', _hold.id, format('is under legal hold since %s: %s',
                    to_char(_hold.since, 'YYYY-MM-DD'), _hold.reasons),
                'Retention keeps the months that hold its events.',
                format('-- once it is over: auditdb hold %s --reason ... --release', _hold.id),
                false)::audit.finding;
        else
            return next ('holds', 'warning', _hold.id,
                'is under legal hold, and the log has no event of it',
                'The identifier may be another one: then nothing is kept.',
                format('-- once it is over: auditdb hold %s --reason ... --release', _hold.id),
                false)::audit.finding;
        end if;
    end loop;
end
$$;
comment on function audit_private.check_holds is
    'The organisations under legal hold, and those among them that have no events';
