-- Retention: months beyond it are dropped as a whole. A clock can be wrong by years, and a dropped
-- month is lost unless it was archived. Retention therefore compares the clock with the log.

create or replace function audit_private.is_clock_sane() returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select now() between maintained_at - interval '1 day' and maintained_at + interval '1 month'
    from audit_private.installation;
$$;
comment on function audit_private.is_clock_sane is
    'Whether the clock is at most a month after the last maintenance, and at most a day before it';

-- A run after a jump of the clock is not noted as the last: an hour later the clock is still wrong.
create or replace function audit_private.note_maintenance(force boolean) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    update audit_private.installation
    set maintained_at = now()
    where note_maintenance.force or audit_private.is_clock_sane();
$$;
comment on function audit_private.note_maintenance is
    'Notes when maintenance last ran, unless its clock jumped and nobody confirmed it by force';

-- Today's events may have the time of a clock that jumped: only older ones are evidence.
create or replace function audit_private.clock_problem(out problem text, out hint text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _now text := to_char(now() at time zone 'UTC', 'YYYY-MM-DD');
    _last timestamptz := (select maintained_at from audit_private.installation);
begin
    if not audit_private.is_clock_sane() then
        problem := format('the clock says %s, and the last maintenance was on %s', _now,
            to_char(_last at time zone 'UTC', 'YYYY-MM-DD'));
        hint := 'If the clock is right, run it once with --force, in SQL with force => true: '
            'that drops what is beyond the retention by this clock. Else set the clock.';
    elsif not exists (
        select from audit.event
        where occurred_at > now() - interval '40 days' and occurred_at < now() - interval '1 day'
    ) then
        problem := format('the clock says %s, and no event is from the 40 days before', _now);
        hint := 'If the clock is right, run it again when the log is a day older than today, or '
            'once with --force, in SQL with force => true.';
    end if;
end
$$;
comment on function audit_private.clock_problem is
    'Why the clock may be wrong, by the last maintenance and by the events; null if it seems right';

-- Ids show in which order events were written, whatever the clock said. An event of a month was
-- written late if its id is higher than the first ids of the retained months. These are taken a
-- week after their beginning, which allows for small steps of the clock.
create or replace function audit_private.expired_months(keep interval, months date[])
returns table (month date, events bigint, late bigint)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    -- Never this month or the last full one.
    _until date := least(
        date_trunc('month', (now() - expired_months.keep) at time zone 'UTC'),
        date_trunc('month', now() at time zone 'UTC') - interval '1 month');
    _retained bigint;
    _bounds record;
begin
    if expired_months.keep < interval '2 months' then
        raise exception 'keeping % would drop the present', expired_months.keep
            using errcode = 'invalid_parameter_value', hint = 'Keep at least 2 months.';
    end if;
    _retained := (
        select min(first.id) from (
            select e.id from audit.event as e
            where e.occurred_at >= (audit_private.month_bounds(_until)).starts + interval '7 days'
                and e.occurred_at <= now()
            order by e.occurred_at, e.id
            limit 1000
        ) as first);
    for month in select distinct m from unnest(months) as m where m < _until order by m loop
        _bounds := audit_private.month_bounds(month);
        select count(*), count(*) filter (where e.id >= _retained) into events, late
        from audit.event as e
        where e.occurred_at >= _bounds.starts and e.occurred_at < _bounds.ends;
        return next;
    end loop;
end
$$;
comment on function audit_private.expired_months is
    'The months that lie wholly before the retention, how many events each holds, and how many of '
    'these were written later than their time says';

create or replace function audit_private.kept_line(month date, events bigint, late bigint)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return format('keep %s: %s of its %s events were written later than they say, as under a clock '
    'that was behind; they are kept as long as events of when they were written, unless forced',
    to_char(kept_line.month, 'YYYY-MM'), kept_line.late, kept_line.events);
comment on function audit_private.kept_line is
    'What maintenance says of a month that retention does not drop yet';

-- Exports read by ticks: nobody has read events that are in none.
create or replace function audit_private.unticked(month date, events bigint) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format('keep %s: it holds %s events, and the ticks hold %s of it; they must agree '
        'before it goes, unless forced: auditdb doctor',
        to_char(unticked.month, 'YYYY-MM'), unticked.events, t.events)
    from (
        select coalesce(sum(m.events), 0)::bigint as events from audit.tick_month as m
        where m.month = unticked.month
    ) as t
    where t.events <> unticked.events);
comment on function audit_private.unticked is
    'Why retention keeps a month: the ticks hold more or fewer events of it; '
    'null if the counts agree';

create or replace function audit_private.reason_to_keep(
    month date, events bigint, late bigint, force boolean, plan boolean default false
) returns text
language sql stable set search_path = pg_catalog, pg_temp
return coalesce(audit_private.held_line(month), audit_private.outdated(month),
    case when not force then coalesce((
        select audit_private.unarchived(month, reason_to_keep.events) from audit.archive as a
        where a.month = reason_to_keep.month and a.state = 'dropped'),
    -- Before it drops, maintenance makes a tick.
    case when not plan then audit_private.unticked(month, reason_to_keep.events) end,
    case when late > 0 then audit_private.kept_line(month, reason_to_keep.events, late) end,
    audit_private.untaken(month), audit_private.unsealed(month),
    audit_private.unarchived(month, reason_to_keep.events)) end);
comment on function audit_private.reason_to_keep is
    'What maintenance says of a month that retention must keep; null if the month may be dropped';

create or replace function audit_private.tick_before_drop(keep interval) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from unnest(audit_private.months_attached()) as m where m < now() - keep)
        and (audit_private.tick_problem()).problem is null
        and audit_private.lock_ticks(wait => true)
    then
        perform audit_private.add_tick(is_whole => true);
    end if;
end
$$;
comment on function audit_private.tick_before_drop is
    'Makes a tick of all events without one, if possible, before retention counts';

create or replace function audit_private.drop_month(month date, events bigint, keep interval)
returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _bounds record := audit_private.month_bounds(drop_month.month);
    _name text := 'event_' || to_char(drop_month.month, 'YYYY_MM');
begin
    perform audit_private.close_attestation(format('audit.%I', _name)::regclass, 'retention');
    execute format('drop table audit.%I', _name);
    perform audit_private.note_missed(drop_month.month);
    perform audit_private.note_gone(drop_month.month);
    perform audit_private.record_own('month_dropped', to_char(drop_month.month, 'YYYY-MM'),
        null, null, jsonb_build_object('from', _bounds.starts, 'to', _bounds.ends,
            'events', drop_month.events, 'keep', drop_month.keep));
    return format('dropped %s: %s events', to_char(drop_month.month, 'YYYY-MM'), drop_month.events);
end
$$;
comment on function audit_private.drop_month is
    'Drops a month, and records an event. The caller has counted its events, and holds the lock';

create or replace function audit_private.drop_months(
    keep interval, force boolean, only_month date default null
) returns setof text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _clock record := audit_private.clock_problem();
    _months date[] := '{}';
    _events bigint[] := '{}';
    _month record;
    _kept text;
begin
    perform audit_private.tick_before_drop(drop_months.keep);
    -- Counted before the lock, which writers wait for.
    for _month in
        select * from audit_private.expired_months(
            drop_months.keep, audit_private.months_attached())
        where only_month is null or month = only_month
    loop
        _kept := audit_private.reason_to_keep(_month.month, _month.events, _month.late, force);
        if _clock.problem is not null and not drop_months.force then
            raise exception '%: no month is dropped', _clock.problem
                using errcode = 'object_not_in_prerequisite_state', hint = _clock.hint;
        elsif _kept is not null then
            return next _kept;
        else
            _months := _months || _month.month;
            _events := _events || _month.events;
        end if;
    end loop;
    perform audit_private.refuse_snapshot() where _months <> '{}';
    perform audit_private.lock_briefly('audit.event', 'access exclusive') where _months <> '{}';
    return query
    select audit_private.drop_month(d.month, d.events, drop_months.keep)
    from unnest(_months, _events) as d (month, events);
end
$$;
comment on function audit_private.drop_months is
    'Drops the months that lie wholly before the retention, or only the given one of them, and '
    'records an event for each';

create or replace function audit_private.is_closed(month date) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select coalesce(reloptions @> '{autovacuum_vacuum_insert_threshold=0}', false)
    from pg_class
    where oid = to_regclass('audit.event_' || to_char(is_closed.month, 'YYYY_MM'));
$$;
comment on function audit_private.is_closed is
    'Whether the partition of a month has the settings for a month that is over';

-- With these settings, autovacuum freezes and analyses the month once, in full, and then leaves it
-- alone, because it counts inserts. A restored dump inserts them again. Nobody needs the right to
-- VACUUM, which operators lack before PostgreSQL 17.
create or replace function audit_private.close_months() returns setof text
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '50ms'
as $$
declare
    _options constant text[] := '{autovacuum_vacuum_insert_threshold=0,'
        'autovacuum_vacuum_insert_scale_factor=0,autovacuum_analyze_threshold=0,'
        'autovacuum_analyze_scale_factor=0,autovacuum_freeze_min_age=0,'
        'autovacuum_freeze_table_age=0}';
    _month date;
    _is_over boolean;
begin
    if (audit_private.clock_problem()).problem is not null then
        return;
    end if;
    foreach _month in array audit_private.months_attached() loop
        _is_over := (audit_private.month_bounds(_month)).ends < now() - interval '1 day';
        continue when _is_over = audit_private.is_closed(_month);
        begin
            execute format('alter table audit.%I %s (%s)', 'event_' || to_char(_month, 'YYYY_MM'),
                case when _is_over then 'set' else 'reset' end, (
                    select string_agg(case when _is_over then o else split_part(o, '=', 1) end,
                        ', ')
                    from unnest(_options) as o));
            return next format('%s %s', case when _is_over then 'closed' else 'reopened' end,
                to_char(_month, 'YYYY-MM'));
        exception when lock_not_available then
            null;  -- something vacuums it: the next maintenance will do
        end;
    end loop;
end
$$;
comment on function audit_private.close_months is
    'Makes autovacuum freeze and analyse, once, each month that ended over a day ago';
