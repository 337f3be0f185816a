-- The centre keeps events for ever, unless audit_collected.drop_events is called: retention of a
-- source does not apply here, and legal holds of a source are unknown here.

-- Keeps events that tell of hiding or erasure, and those that the doctor still compares.
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
        raise exception 'keeping % would drop the present', coalesce(keep::text, 'nothing')
            using errcode = 'invalid_parameter_value', hint = 'Keep at least 2 months.';
    elsif _partition is null then
        raise exception 'no database is collected as %', coalesce(drop_events.database, 'null')
            using errcode = 'invalid_parameter_value', hint = 'auditdb collect lists the names.';
    end if;
    -- Only the owner can do this, and its lock keeps new events out until the end.
    execute format('alter table %s disable trigger refuse_change', _partition);
    -- Through the parent table: direct access to the partition shows no row.
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
    'Drops collected events of a database that are older than the months to keep, and records an '
    'event. Returns the number of events';
revoke all on function audit_collected.drop_events from public;
grant execute on function audit_collected.drop_events to audit_operator;
