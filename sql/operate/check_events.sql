-- Checks of events: details that were lost, impossible times, sudden floods.
-- Each returns no row if all is well; audit.doctor runs them all.

create or replace function audit_private.check_events() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'events', 'warning', captured_from,
        format('%s events of the last 7 days are degraded: %s', count(*),
            string_agg(distinct concat_ws(' ', details -> 'degraded' ->> 'sqlstate',
                details -> 'degraded' -> 'lost'), ', ')),
        'A value could not be read or a mapping failed: the change is recorded, not all of it.',
        format('select details -> ''degraded'', * from audit.event where captured_from = %L '
            'and details ? ''degraded''', captured_from), false
    from audit.event
    where occurred_at > now() - interval '7 days' and details ? 'degraded'
        and captured_from is not null
    group by captured_from;
$$;
comment on function audit_private.check_events is
    'Finds tables whose events lost details lately';

-- Only a notice after a week: an event of the year 2030 would otherwise warn until 2030.
create or replace function audit_private.check_times() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'events', case when max(o.id) >= coalesce(r.id, 0) then 'warning' else 'notice' end,
        o.object, format(o.problem, count(*)), o.why, o.mend, false
    from (
        select id, 'audit.event' as object, 'holds %s events of the future' as problem,
            'A clock was ahead: they are read first, and retention keeps them until then.' as why,
            '-- set the clock; see: select * from audit.event where occurred_at > now() '
                'order by id' as mend
        from audit.event
        where occurred_at > now() + interval '1 day' and audit_private.has_month(occurred_at)
        union all
        select id, 'audit.event_default', 'holds %s events of no month',
            'Of infinity, before Christ or after 9999: they stay in DEFAULT, and keep nothing '
            'else there.',
            '-- see who wrote them: select * from audit.event_default order by id'
        from audit.event_default
        where not audit_private.has_month(occurred_at)
    ) as o
        left join lateral (
            select e.id from audit.event as e
            where e.occurred_at >= now() - interval '7 days' and e.occurred_at <= now()
            order by e.occurred_at, e.id
            limit 1
        ) as r on true
    group by o.object, o.problem, o.why, o.mend, r.id;
$$;
comment on function audit_private.check_times is
    'Finds events in the future, and of no month: a warning for a week, then a notice';

create or replace function audit_private.count_events(
    organization_id text, since timestamptz, until timestamptz, at_most bigint
) returns bigint
-- A generic plan for any organisation and any times could choose the index by time.
language plpgsql stable set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
begin
    if count_events.organization_id is null then
        return (
            select count(*) from (
                select from audit.event as e
                where e.organization_id is null and e.occurred_at >= since
                    and e.occurred_at < until
                    and (e.captured_from is null or e.action not like '%.baseline')
                limit at_most) as found);
    end if;
    return (
        select count(*) from (
            select from audit.event as e
            where e.organization_id = count_events.organization_id and e.occurred_at >= since
                and e.occurred_at < until
                and (e.captured_from is null or e.action not like '%.baseline')
            limit at_most) as found);
end
$$;
comment on function audit_private.count_events is
    'Number of events of an organisation, or of none, between two times; counts up to a limit';

-- A flood is a hundred times the daily mean of four weeks. So it reads no more of the four weeks
-- than 28 hundredths of today's events. An organisation younger than that has no usual day;
-- a silent one has.
create or replace function audit_private.check_floods() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    -- Materialized: otherwise each event would run the query for earlier events.
    with day as materialized (
        select organization_id, count(*) as events
        from audit.event
        where occurred_at > now() - interval '24 hours' and occurred_at <= now()
            -- A baseline is no flood, and does not count as usual.
            and (captured_from is null or action not like '%.baseline')
        group by organization_id
        having count(*) > 1000
    )
    select 'events', 'warning', coalesce('organisation ' || d.organization_id, 'no organisation'),
        format('got %s events in 24 hours, and %s in the 28 days before', d.events, before),
        'Somebody may be hiding one event among many, or a program repeats itself.',
        '-- see what they are; select audit.limit_recording(login, per_minute) limits what a '
            'login records by calls',
        false
    from day as d
        cross join lateral audit_private.count_events(d.organization_id,
            now() - interval '29 days', now() - interval '24 hours', d.events * 28 / 100 + 1
        ) as before
    where before * 100 <= d.events * 28
        and audit_private.count_events(
            d.organization_id, '-infinity', now() - interval '29 days', 1) > 0;
$$;
comment on function audit_private.check_floods is
    'Finds organisations that got a hundred times their usual events within a day';

create or replace function audit_private.check_baselines() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'events', 'warning', audit_private.table_name(a.target),
        format('rows were recorded as its baseline by hand, in transaction %s', (
            select string_agg(t.id, ', ')
            from jsonb_array_elements_text(audit_private.baselined_by_hand(a.baseline)) as t (id))),
        'Its owner can have rows recorded that were never there.',
        format('-- compare: select * from audit.event where action = %L and captured_from = %L',
            a.kind || '.baseline', audit_private.table_name(a.target)),
        false
    from audit_private.attachment as a
    where audit_private.baselined_by_hand(a.baseline) is not null
    union all
    select 'events', 'notice', audit_private.table_name(a.target),
        format('its baseline has not ended: %s rows since %s', a.baseline ->> 'rows',
            to_char((a.baseline ->> 'started_at')::timestamptz, 'YYYY-MM-DD HH24:MI')),
        'Its rows are recorded in part; until it ends, its owner can have more rows recorded.',
        format('select audit.baseline(%L); -- again, until it says null',
            audit_private.table_name(a.target)),
        false
    from audit_private.attachment as a
    where a.baseline ? 'started_at' and not a.baseline ? 'ended_at'
        and audit_private.is_there(a.target, a.row_type);
$$;
comment on function audit_private.check_baselines is
    'Finds tables whose baseline was recorded by hand, or has not ended';
