-- The centre keeps events for ever, unless it is told otherwise: retention of a source says nothing
-- here, and no legal hold of a source is known.

-- Events that say what is hidden or erased stay, and those that the doctor still compares.
create or replace function audit_collected.drop_events(database text, keep interval) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on set lock_timeout = '10s'
as $$
declare
    _partition regclass := to_regclass(
        format('audit_collected.%I', 'event_' || coalesce(database, '')));
    _until timestamptz := date_trunc('month', now() - drop_events.keep, 'UTC');
    _former audit_collected.tick := audit_collected.former_tick(drop_events.database);
    _series uuid := audit_collected.series_of(drop_events.database, _former.upper_id);
    _dropped bigint;
begin
    if drop_events.keep < interval '2 months' is not false then
        raise exception 'to keep % would drop the present', coalesce(keep::text, 'nothing')
            using errcode = 'invalid_parameter_value', hint = 'Keep at least 2 months.';
    elsif _partition is null then
        raise exception 'nothing is collected as %', coalesce(drop_events.database, 'null')
            using errcode = 'invalid_parameter_value', hint = 'auditdb collect lists what is.';
    end if;
    -- Whoever is not the owner cannot, and nothing arrives meanwhile.
    execute format('alter table %s disable trigger refuse_change', _partition);
    -- Not from the partition: that lets nobody at its rows.
    delete from audit_collected.event as e
    where e.database = drop_events.database and e.occurred_at < _until
        and e.action not in ('audit.erased', 'audit.visibility_limited')
        and (_former.snapshot is null or e.series <> _series
            or pg_visible_in_snapshot(e.transaction_id, _former.snapshot));
    get diagnostics _dropped = row_count;
    execute format('alter table %s enable always trigger refuse_change', _partition);
    perform audit_private.vacuum_soon(_partition);
    if _dropped > 0 then
        perform audit_private.record_own('collected_dropped', drop_events.database, null, null,
            jsonb_build_object('events', _dropped, 'until', _until, 'keep', drop_events.keep));
    end if;
    return _dropped;
end
$$;
-- Definer: only audit_owner removes what was collected.
comment on function audit_collected.drop_events is
    'Drops what was collected of a database and is of a month before what is to be kept; it is an '
    'event. Returns how many';
revoke all on function audit_collected.drop_events from public;
grant execute on function audit_collected.drop_events to audit_operator;
