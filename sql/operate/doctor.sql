-- Doctor: finds what cannot be prevented, and fixes what is safe to fix.
-- critical: events are or may be lost; warning: weaker than designed; notice: worth knowing.

-- Reads the catalogs once. Pins the settings of audit_private.standing except the time zone,
-- because findings contain times.
create or replace function audit_private.check_all() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off set standard_conforming_strings = on set bytea_output = 'hex'
set datestyle = 'ISO' set intervalstyle = 'postgres' set extra_float_digits = 1
set xmlbinary = 'base64' set row_security = on set plan_cache_mode = force_generic_plan
as $$
    with known as materialized (
        select array(select f from audit_private.compare_release() as f)
            || array(select f from audit_private.compare_attested() as f) as facts
    )
    select f.*
    from known as k cross join lateral (
        select * from audit_private.check_roles()
        union all select * from audit_private.check_logins()
        union all select * from audit_private.check_application()
        union all select * from audit_private.check_ownership()
        union all select * from audit_private.check_grants(k.facts)
        union all select * from audit_private.check_functions(k.facts)
        union all select * from audit_private.check_altered(k.facts)
        union all select * from audit_private.check_triggers(k.facts)
        union all select * from audit_private.check_tables(k.facts)
        union all select * from audit_private.check_lost()
        union all select * from audit_private.check_moves(k.facts)
        union all select * from audit_private.check_guards(k.facts)
        union all select * from audit_private.check_log()
        union all select * from audit_private.check_tables_of_log()
        union all select * from audit_private.check_keys_of_log()
        union all select * from audit_private.check_columns()
        union all select * from audit_private.check_indexes()
        union all select * from audit_private.check_own_indexes(k.facts)
        union all select * from audit_private.check_definitions(k.facts)
        union all select * from audit_private.check_partitions(k.facts)
        union all select * from audit_private.check_mappings(k.facts)
        union all select * from audit_private.check_stored(k.facts)
        union all select * from audit_private.check_looked_up(k.facts)
        union all select * from audit_private.check_lookups()
        union all select * from audit_private.check_readers()
        union all select * from audit_private.check_tenants()
        union all select * from audit_private.check_keys()
        union all select * from audit_private.check_views()
        union all select * from audit_private.check_attestation(k.facts)
        union all select * from audit_private.check_events()
        union all select * from audit_private.check_times()
        union all select * from audit_private.check_floods()
        union all select * from audit_private.check_subscriptions()
        union all select * from audit_private.check_seals()
        union all select * from audit_private.check_holds()
        union all select * from audit_private.check_baselines()
        union all select * from audit_private.check_ids()
        union all select * from audit_private.check_ticks()
        union all select * from audit_private.check_erasures()
        union all select * from audit_private.check_archive()
        union all select * from audit_private.check_months()
        union all select * from audit_private.check_replication()
        union all select * from audit_private.check_slots()
        union all select * from audit_private.check_collected()
        union all select * from audit_private.check_casts()
        union all select * from audit_private.check_server()
    ) as f
    order by array_position('{critical,warning,notice}', f.severity),
        f.check_name, f.object, f.problem;
$$;
comment on function audit_private.check_all is
    'The findings of all checks, the most severe first';

-- After a restore, no stored oid is valid; without audit_mapper, nothing works. Then only one
-- finding says so.
create or replace function audit.doctor() returns setof audit.finding
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select * from audit_private.check_restore()
    union all
    select * from audit_private.check_mapper();
    if not found then
        return query select * from audit_private.check_all();
    end if;
end
$$;
-- Definer: reads the attestation, and counts events and keys, which operators may not read.
comment on function audit.doctor is
    'What could let events be lost, forged or read by others; why it matters, and what fixes it';

create or replace function audit.reattach(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _kind text;
    _given jsonb;
begin
    select a.kind, a.mapping -> 'given' into _kind, _given
    from audit_private.attachment as a
    where a.target = reattach.target and audit_private.is_there(a.target, a.row_type);
    if not found then
        raise exception '% is not attached', reattach.target
            using errcode = 'undefined_object', hint = 'auditdb status lists what is.';
    end if;
    perform audit_private.attach_given(reattach.target, _kind, _given);
end
$$;
comment on function audit.reattach is
    'Attaches a table again with its stored options: repairs its triggers, functions and mapping';

create or replace function audit.mend_guards() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
    _changed jsonb;
begin
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    perform audit_private.guard_log();
    perform audit_private.guard_requests();
    perform audit_private.guard_unfiled();
    _changed := audit_private.record_attestation('mend', 'audit.event', '{trigger}');
    perform audit_private.record_own(
        'mended', 'audit.event', _changed -> 'was', _changed -> 'stands');
end
$$;
-- Definer: the log belongs to audit_owner.
comment on function audit.mend_guards is
    'Restores row-level security and the triggers that refuse changes, if missing or disabled';
