-- Maintenance: a partition for each month, always some months ahead.
-- A partition is made apart and guarded before it is attached, which locks out no writer. Run it
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
    perform audit_private.close_statistics(_partition);
    execute format('revoke all on %s from public', _partition);
    return _partition;
end
$$;
comment on function audit_private.prepare_month is
    'Makes the table of one month, guarded, apart from the log';

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
    'Makes the table of one month part of the log, not yet attested';

create or replace function audit_private.try_lock(target regclass, mode text) returns boolean
-- Writers queue behind whoever waits: briefly, and then they go first.
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '50ms'
as $$
begin
    execute format('lock table only %s in %s mode', try_lock.target, try_lock.mode);
    return true;
exception when lock_not_available then
    return false;
end
$$;
comment on function audit_private.try_lock is
    'Locks a table unless that takes longer than writers may wait; whether it did';

create or replace function audit_private.lock_briefly(target regclass, mode text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    for _attempt in 1 .. 50 loop
        if audit_private.try_lock(lock_briefly.target, lock_briefly.mode) then
            return;
        end if;
        perform pg_sleep(0.5);
    end loop;
    raise exception 'no lock on % was to be had', lock_briefly.target
        using errcode = 'lock_not_available',
            hint = 'Some transaction stays open. Run it again when that has ended.';
end
$$;
comment on function audit_private.lock_briefly is
    'Locks a table, trying often rather than waiting long';

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
    from audit.event_default;
$$;
comment on function audit_private.months_in_default is
    'The months of events that no partition covers yet';

create or replace function audit_private.create_months(ahead int default 3) returns date[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
    _this date := date_trunc('month', now() at time zone 'UTC');
    -- Those of which DEFAULT holds events are drain's to make.
    _others constant date[] :=
        audit_private.months_attached() || audit_private.months_in_default();
    _missing date[];
    _month date;
begin
    if create_months.ahead is null or create_months.ahead not between 1 and 120 then
        raise exception 'cannot keep % months ahead', create_months.ahead
            using errcode = 'invalid_parameter_value', hint = 'Give a number from 1 to 120.';
    end if;
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    _missing := array(
        select m::date
        from generate_series(_this, _this + make_interval(months => ahead), interval '1 month') as m
        where m::date <> all (_others)
    );
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
    'Makes the partitions of this month and of the given number of months after it, where absent';

-- A clock that jumped leaves a gap before today; today's own events may be of that clock.
create or replace function audit_private.check_clock() returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from audit.event
        where occurred_at > now() - interval '40 days' and occurred_at < now() - interval '1 day'
    ) then
        raise exception 'the clock says %, and no event is from the 40 days before',
                to_char(now() at time zone 'UTC', 'YYYY-MM-DD')
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'If the clock is right, run it again when the log is a day older than '
                    'today.';
    end if;
end
$$;
comment on function audit_private.check_clock is
    'Raises if the log has a gap before today: months must not be dropped by a wrong clock';

create or replace function audit_private.drop_months(keep interval) returns setof text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    -- Neither this month nor the last full one, whatever is asked.
    _until date := least(
        date_trunc('month', (now() - drop_months.keep) at time zone 'UTC'),
        date_trunc('month', now() at time zone 'UTC') - interval '1 month');
    _month date;
    _months date[];
    _events bigint[] := '{}';
    _bounds record;
    _name text;
begin
    if drop_months.keep < interval '2 months' then
        raise exception 'retention of % would drop the present', drop_months.keep
            using errcode = 'invalid_parameter_value', hint = 'Keep at least 2 months.';
    end if;
    _months := array(select m from unnest(audit_private.months_attached()) as m where m < _until);
    if _months = '{}' then
        return;
    end if;
    perform audit_private.check_clock();
    -- Counted before the lock, which writers wait for.
    foreach _month in array _months loop
        _bounds := audit_private.month_bounds(_month);
        _events := _events || (
            select count(*) from audit.event
            where occurred_at >= _bounds.starts and occurred_at < _bounds.ends);
    end loop;
    perform audit_private.lock_briefly('audit.event', 'access exclusive');
    for _i in 1 .. cardinality(_months) loop
        _bounds := audit_private.month_bounds(_months[_i]);
        _name := 'event_' || to_char(_months[_i], 'YYYY_MM');
        perform audit_private.close_attestation(format('audit.%I', _name)::regclass, 'retention');
        execute format('drop table audit.%I', _name);
        perform audit_private.record_own('month_dropped', to_char(_months[_i], 'YYYY-MM'),
            null, null, jsonb_build_object('from', _bounds.starts, 'to', _bounds.ends,
                'events', _events[_i], 'keep', drop_months.keep));
        return next format('dropped %s: %s events', to_char(_months[_i], 'YYYY-MM'), _events[_i]);
    end loop;
end
$$;
comment on function audit_private.drop_months is
    'Drops the months that lie wholly before the retention, each as an event of its own';

create or replace function audit.maintain(keep interval default null, ahead int default 3)
returns setof text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '100ms'
as $$
declare
    _month date;
    _moved bigint;
    _created boolean := false;
begin
    -- The lock of install and attach: whoever comes second has nothing left to do.
    if not pg_try_advisory_xact_lock(hashtextextended('auditdb', 0)) then
        return next 'nothing done: install, attach or another maintenance is running';
        return;
    end if;
    -- A lock lasts to the end of the transaction: no work may follow that needs none.
    _moved := audit_private.drain();
    if _moved > 0 then
        return next format('moved %s events out of DEFAULT', _moved);
        return;
    end if;
    foreach _month in array audit_private.create_months(maintain.ahead) loop
        return next format('created the partition of %s', to_char(_month, 'YYYY-MM'));
        _created := true;
    end loop;
    if maintain.keep is not null and not _created then
        return query select * from audit_private.drop_months(maintain.keep);
    end if;
end
$$;
-- Definer: partitions belong to audit_owner.
comment on function audit.maintain is
    'Keeps the log healthy, for cron: DEFAULT empty, partitions ahead, months beyond '
    'the retention dropped. Does the first of these that there is to do, and returns what it did: '
    'run it until it returns nothing, or every hour. Tries for a lock 50 times, for 50 ms each';

create or replace function audit_private.regenerate() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    _id int;
begin
    for _id in
        select a.id from audit_private.attachment as a
        where exists (select from pg_class where oid = a.target)
            -- Not twice: audit_private.add_db_role() calls it too, before writers wait.
            and not exists (
                select from pg_proc as p
                where p.pronamespace = 'audit_private'::regnamespace
                    and p.proname = format('capture_%s_insert', a.id)
                    and p.xmin = pg_current_xact_id()::xid)
        order by a.id
    loop
        perform audit_private.generate(_id);
    end loop;
end
$$;
comment on function audit_private.regenerate is
    'Writes the functions of every attached table again, from the mapping in force; '
    'part of install';

create or replace function audit.version() returns text
language sql immutable set search_path = pg_catalog, pg_temp
return '0.1.0';
comment on function audit.version is
    'Version of auditdb that was last installed';

create or replace function audit_private.finish_install() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    perform audit_private.regenerate();
    perform audit_private.record_attestation('install', kinds => '{functions}');
    -- Of an older release, from here on writers may wait. Months to come take the columns as they
    -- stand.
    perform audit_private.furnish_columns();
    perform audit_private.furnish_policies();
    perform audit_private.create_months();
    perform audit_private.record_attestation('install', renew => false);
    perform audit_private.record_own('installed', audit.version(), null, null);
end
$$;
comment on function audit_private.finish_install is
    'Last step of install: partitions, capture functions, and the event that says so';
