-- Maintenance: a partition for each month, and for some months ahead.
-- A partition is created apart and guarded before it is attached, so that no writer waits. Run it
-- hourly, as a member of audit_operator, from cron: auditdb maintain --keep 24months
-- or with pg_cron:
-- select cron.schedule('auditdb', '17 * * * *', $$select audit.maintain('24 months')$$);

create or replace function audit_private.month_bounds(month date, out starts timestamptz,
    out ends timestamptz)
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select date_trunc('month', month_bounds.month::timestamp) at time zone 'UTC',
        (date_trunc('month',
            month_bounds.month::timestamp) + interval '1 month') at time zone 'UTC';
$$;
comment on function audit_private.month_bounds is
    'First instant of a month (UTC), and of the next';

-- Infinity has no month; years of five digits or before Christ have no name for a partition. A SET
-- clause would prevent inlining, and with it the use of an index;
-- the parsed body is safe without it.
create or replace function audit_private.has_month(occurred_at timestamptz) returns boolean
language sql immutable
return has_month.occurred_at >= '0001-01-01 00:00:00+00'::timestamptz
    and has_month.occurred_at < '9999-12-01 00:00:00+00'::timestamptz;
comment on function audit_private.has_month is
    'Whether a time lies in a month that can have a partition: in the years 1 to 9999';

create or replace function audit_private.prepare_month(month date) returns regclass
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _name text := 'event_' || to_char(prepare_month.month, 'YYYY_MM');
    _partition regclass := to_regclass(format('audit.%I', _name));
begin
    if _partition is not null then
        return _partition;
    end if;
    execute format('create table audit.%I (like audit.event including defaults including comments '
        'including indexes)', _name);
    _partition := format('audit.%I', _name)::regclass;
    execute format('comment on table %s is %L', _partition,
        format('Events of %s (UTC)', to_char(prepare_month.month, 'YYYY-MM')));
    perform audit_private.guard(_partition);
    perform audit_private.open_to_backups(_partition);
    perform audit_private.close_statistics(_partition);
    execute format('revoke all on %s from public', _partition);
    return _partition;
end
$$;
comment on function audit_private.prepare_month is
    'Creates the table of one month, guarded, apart from the log';

create or replace function audit_private.join_month(month date) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _partition regclass := audit_private.prepare_month(join_month.month);
    _bounds record;
begin
    _bounds := audit_private.month_bounds(join_month.month);
    execute format('alter table audit.event attach partition %s for values from (%L) to (%L)',
        _partition, _bounds.starts, _bounds.ends);
    execute format('alter table %s enable always trigger refuse_change', _partition);
end
$$;
comment on function audit_private.join_month is
    'Attaches the table of one month to the log; it is not attested yet';

create or replace function audit_private.lock_briefly(target regclass, mode text) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    select audit_private.lock_together(
        array[lock_briefly.target], array[lock_briefly.mode], 100);
$$;
comment on function audit_private.lock_briefly is
    'Locks a table of the log, with many short attempts instead of a long wait';

create or replace function audit_private.months_attached() returns date[]
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(array_agg(to_date(substr(relname, 7), 'YYYY_MM') order by relname), '{}')
    from pg_inherits join pg_class on pg_class.oid = inhrelid
    where inhparent = 'audit.event'::regclass and relname ~ '^event_[0-9]{4,}_[0-9]{2}$'
);
comment on function audit_private.months_attached is
    'The months that have a partition';

create or replace function audit_private.months_in_default() returns date[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(distinct date_trunc('month', occurred_at at time zone 'UTC')::date),
        '{}')
    from audit.event_default
    where audit_private.has_month(occurred_at);
$$;
comment on function audit_private.months_in_default is
    'The months of events that no partition covers yet';

-- Months with events in DEFAULT are left out: audit_private.drain() creates these.
create or replace function audit_private.missing_months(ahead int) returns date[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _this date := date_trunc('month', now() at time zone 'UTC');
    _others constant date[] :=
        audit_private.months_attached() || audit_private.months_in_default();
begin
    if missing_months.ahead is null or missing_months.ahead not between 1 and 120 then
        raise exception 'cannot keep % months ahead', missing_months.ahead
            using errcode = 'invalid_parameter_value', hint = 'Give a number from 1 to 120.';
    end if;
    return array(
        select m::date
        from generate_series(_this, _this + make_interval(months => ahead), interval '1 month') as m
        where m::date <> all (_others)
    );
end
$$;
comment on function audit_private.missing_months is
    'This month and the given number of later months, without those that have a partition';

create or replace function audit_private.create_months(ahead int default 3) returns date[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
    _missing date[];
    _month date;
begin
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    _missing := audit_private.missing_months(create_months.ahead);
    if _missing <> '{}' then
        foreach _month in array _missing loop
            perform audit_private.prepare_month(_month);
        end loop;
        -- Readers of the whole log wait from here to the commit; writers do not.
        perform audit_private.lock_briefly('audit.event', 'share update exclusive');
        perform audit_private.lock_briefly('audit.event_default', 'access exclusive');
        foreach _month in array _missing loop
            perform audit_private.join_month(_month);
        end loop;
        perform audit_private.record_attestation(
            'month', 'audit.event', '{trigger}', renew => false);
    end if;
    return _missing;
end
$$;
-- Definer: partitions belong to audit_owner.
comment on function audit_private.create_months is
    'Creates the missing partitions of this month and of the given number of later months';

create or replace function audit_private.plan_maintenance(
    keep interval, ahead int, force boolean
) returns setof text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _in_default bigint := (
        select count(*) from audit.event_default where audit_private.has_month(occurred_at));
    _clock record := audit_private.clock_problem();
    _month record;
begin
    if _in_default > 0 then
        return next format('would move %s events out of DEFAULT', _in_default);
    end if;
    return query
    select format('would create the partition of %s', to_char(m, 'YYYY-MM'))
    from unnest(audit_private.missing_months(plan_maintenance.ahead)) as m;
    return query
    select format('would make the index %s', name) from audit_private.partial_indexes()
    where not audit_private.has_index('audit.event', definition);
    if plan_maintenance.keep is not null then
        for _month in
            select * from audit_private.expired_months(plan_maintenance.keep,
                audit_private.months_attached() || audit_private.months_in_default())
        loop
            if _clock.problem is not null and not plan_maintenance.force then
                return next concat_ws('. ', 'would drop nothing: ' || _clock.problem, _clock.hint);
                return;
            end if;
            return next 'would ' || coalesce(
                audit_private.reason_to_keep(
                    _month.month, _month.events, _month.late, plan_maintenance.force, true),
                format('drop %s: %s events', to_char(_month.month, 'YYYY-MM'), _month.events));
        end loop;
    end if;
end
$$;
comment on function audit_private.plan_maintenance is
    'What maintenance would do, one line for each step; it writes nothing, and makes nobody wait';

create or replace function audit.maintain(
    keep interval default null,
    ahead int default 3,
    force boolean default false,
    dry_run boolean default false
) returns setof text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' set row_security = on
as $$
declare
    _moved bigint;
    _lines text[];
begin
    if maintain.dry_run then
        return query select * from audit_private.plan_maintenance(
            maintain.keep, maintain.ahead, maintain.force);
        return;
    end if;
    -- The lock of install and attach: a second caller would find nothing left to do.
    if not pg_try_advisory_xact_lock(hashtextextended('auditdb', 0)) then
        return next 'nothing done: install, attach or another maintenance is running';
        return;
    end if;
    perform audit_private.note_maintenance(maintain.force);
    -- A lock lasts until the transaction ends, so no work that needs no lock may follow.
    _moved := audit_private.drain();
    if _moved > 0 then
        return next format('moved %s events out of DEFAULT', _moved);
        return;
    end if;
    _lines := array(
        select format('created the partition of %s', to_char(m, 'YYYY-MM'))
        from unnest(audit_private.create_months(maintain.ahead)) as m
    );
    if _lines = '{}' then
        _lines := array(select * from audit_private.furnish_indexes());
    end if;
    if _lines = '{}' then
        _lines := array(select * from audit_private.close_months());
    end if;
    if _lines = '{}' then
        _lines := array(select * from audit_private.lapse_subscriptions());
    end if;
    if _lines = '{}' and maintain.keep is not null then
        _lines := array(select * from audit_private.drop_months(maintain.keep, maintain.force));
    end if;
    return query select unnest(_lines);
end
$$;
-- Definer: partitions belong to audit_owner.
comment on function audit.maintain is
    'Keeps the log healthy; call it from cron. Empties DEFAULT, creates partitions ahead, builds '
    'the indexes of this release, freezes past months, and drops months beyond the retention. Each '
    'call does the first of these steps that is due, and returns what it did: call it until it '
    'returns nothing, or every hour. Tries for a lock 100 times, 50 ms each. Retention refuses to '
    'run after the clock jumped, unless forced; dry_run only tells what would be done';

create or replace function audit_private.regenerate() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    -- Only once per table: audit_private.add_db_role() calls it too, before writers wait.
    _written int[] := coalesce(nullif(current_setting('auditdb.written', true), ''), '{}');
    _id int;
begin
    for _id in
        select a.id from audit_private.attachment as a
        where audit_private.is_there(a.target, a.row_type) and a.id <> all (_written)
        order by a.id
    loop
        perform audit_private.generate(_id);
        perform audit_private.report_progress(1);
        _written := _written || _id;
    end loop;
    perform set_config('auditdb.written', _written::text, true);
end
$$;
comment on function audit_private.regenerate is
    'Writes the functions of every attached table again, from the mapping in force; '
    'part of install';

create or replace function audit.version() returns text
language sql immutable set search_path = pg_catalog, pg_temp
return '0.2.0';
comment on function audit.version is
    'Version of auditdb that was last installed';

create or replace function audit_private.finish_install() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    -- A restore into a cluster without audit_owner omits the policies:
    -- without them no row is visible.
    if not exists (
        select from pg_policy
        where polrelid = 'audit_private.attachment'::regclass and polname = 'the_owner_maps'
    ) then
        perform audit_private.furnish_policies();
    end if;
    perform audit_private.settle();
    perform audit_private.regenerate();
    perform audit_private.record_attestation('install', kinds => '{functions}');
    -- In a log of an older release, writers may wait from here on.
    -- New months copy the columns as they are then.
    perform audit_private.furnish_columns();
    perform audit_private.furnish_policies();
    -- In an existing log, maintenance builds them.
    if audit_private.months_attached() = '{}' then
        perform audit_private.furnish_indexes();
    end if;
    perform audit_private.create_months();
    perform audit_private.renew_series('installed') where not exists (select from audit.series);
    perform audit_private.record_attestation('install', renew => false);
    perform audit_private.record_own('reclaimed', 'audit', jsonb_build_object('owner', owner), null)
    from nullif(current_setting('auditdb.restored_by', true), '') as owner
    where owner is not null;
    perform audit_private.record_own('installed', audit.version(), null, null);
end
$$;
comment on function audit_private.finish_install is
    'Last step of install: partitions, capture functions, and the event that records the install';
