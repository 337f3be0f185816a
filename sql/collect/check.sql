-- What the doctor checks at the centre: whether the events of each database still arrive, and all.

-- Only ticks without a time limit (since is -infinity):
-- all events between two of them must be here.
create or replace function audit_collected.former_tick(database text)
returns audit_collected.tick
language plpgsql stable set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _tick audit_collected.tick;
begin
    select t.* into _tick
    from audit_collected.tick as t
        join audit_collected.series as s on (s.database, s.key) = (t.database, t.series)
    where t.database = former_tick.database and s.is_present and t.since = '-infinity'
    order by s.id desc, t.id desc limit 1;
    select f.* into _tick
    from (
        select t.* from audit_collected.tick as t
        where t.database = _tick.database and t.series = _tick.series and t.id < _tick.id
            and t.since = '-infinity'
        order by t.id desc limit 6) as f
    order by f.id limit 1;
    return _tick;
end
$$;
comment on function audit_collected.former_tick is
    'The tick of a database after which the doctor compares the counts of its later ticks';

create or replace function audit_collected.between_ticks(
    database text, out series uuid, out tick_id bigint, out events bigint, out arrived bigint
)
language plpgsql stable set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _last audit_collected.tick;
    _former audit_collected.tick;
    _floor bigint;
begin
    select t.* into _last
    from audit_collected.tick as t
        join audit_collected.series as s on (s.database, s.key) = (t.database, t.series)
    where t.database = between_ticks.database and s.is_present and t.since = '-infinity'
    order by s.id desc, t.id desc limit 1;
    select f.* into _former
    from (
        select t.* from audit_collected.tick as t
        where t.database = _last.database and t.series = _last.series and t.id < _last.id
            and t.since = '-infinity'
        order by t.id desc limit 6) as f
    order by f.id limit 1;
    select coalesce(max(t.lower_id), 0) into _floor from audit_collected.tick as t
    where t.database = _former.database and t.series = _former.series
        and t.transaction_id < pg_snapshot_xmin(_former.snapshot);
    if _former.id is null then
        return;
    end if;
    series := _last.series;
    tick_id := _last.id;
    select sum(t.events) into events from audit_collected.tick as t
    where t.database = _last.database and t.series = _last.series
        and t.id > _former.id and t.id <= _last.id;
    select count(*) into arrived from audit_collected.event as e
    where e.database = _last.database and e.id > _floor and e.id <= _last.upper_id
        and e.series = audit_collected.series_of(e.database, _last.upper_id)
        and pg_visible_in_snapshot(e.transaction_id, _last.snapshot)
        and not pg_visible_in_snapshot(e.transaction_id, _former.snapshot);
end
$$;
comment on function audit_collected.between_ticks is
    'How many events the last six whole ticks of a database hold, and how many of them are here';

create or replace function audit_collected.subscriptions()
returns table (
    database text, subscription text, is_there boolean, is_enabled boolean, is_working boolean,
    lag interval, errors bigint, copying bigint
)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select c.database, 'auditdb_' || c.database, s.oid is not null, coalesce(s.subenabled, false),
        w.pid is not null, clock_timestamp() - w.last_msg_receipt_time,
        coalesce(t.apply_error_count + t.sync_error_count, 0), (
            select count(*) from pg_subscription_rel as r
            where r.srsubid = s.oid and r.srsubstate not in ('r', 's'))
    from audit_collected.source as c
        left join pg_subscription as s on s.subname = 'auditdb_' || c.database
            and s.subdbid = (select oid from pg_database where datname = current_database())
        left join pg_stat_subscription_stats as t on t.subid = s.oid
        left join lateral (
            select g.pid, g.last_msg_receipt_time from pg_stat_get_subscription(s.oid) as g
            where g.relid is null and g.pid is not null
            order by g.last_msg_receipt_time desc nulls last limit 1) as w on true
    where c.ended_at is null;
$$;
comment on function audit_collected.subscriptions is
    'Each database that is collected now, and the state of its subscription';

create or replace function audit_collected.check_tables() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'collect', 'critical', s.subname::text,
        'writes to ' || string_agg(r.srrelid::regclass::text, ', ' order by r.srrelid)
            || ' as well',
        'The source says what it publishes, and it is written with the rights of a superuser.',
        format('alter subscription %I disable  -- then, there: auditdb publish --drop, and '
            'publish again; here: auditdb collect %s --from DSN', s.subname,
            substr(s.subname, 9)), false
    from pg_subscription as s join pg_subscription_rel as r on r.srsubid = s.oid
    where s.subname ~ '^auditdb_' and r.srrelid <> all ('{audit.event,audit.series,audit.tick,'
        'audit_private.organization_start}'::regclass[])
        and s.subdbid = (select oid from pg_database where datname = current_database())
    group by s.subname;
$$;
comment on function audit_collected.check_tables is
    'Subscriptions that write to tables which do not belong to the log';

create or replace function audit_collected.check_subscriptions() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'collect', p.severity, s.subscription, p.problem, p.why, p.mend, false
    from audit_collected.subscriptions() as s
        cross join lateral (
            select 'warning', 'is missing, and events of it are here',
                'What ' || s.database || ' writes does not come here any more.',
                'auditdb collect ' || s.database || ' --from DSN  # or leave it ended'
            where not s.is_there
            union all
            select 'critical', 'is disabled',
                'Its slot keeps the write-ahead log of ' || s.database || ', until its disk is '
                'full, or more than max_slot_wal_keep_size: then it is lost.',
                format('alter subscription %I enable', s.subscription)
            where s.is_there and not s.is_enabled
            union all
            select 'critical', format('does not work; it failed %s times', s.errors),
                'Its slot keeps what is to come, until that disk is full, or more than '
                'max_slot_wal_keep_size: then it is lost, as auditdb doctor says there.',
                '-- see the log of this server for the reason: an address, a password, a column '
                'that an older release here lacks (auditdb install), or what was restored there '
                '(auditdb collect ' || s.database || ' --from DSN)'
            where s.is_enabled and not s.is_working
            union all
            select 'warning', format('failed %s times, and works again', s.errors),
                'What failed once was tried again: nothing is lost.',
                format('select pg_stat_reset_subscription_stats(oid) from pg_subscription where '
                    'subname = %L', s.subscription)
            where s.is_working and s.errors > 0
            union all
            select 'warning', format('has heard nothing for %s', date_trunc('second', s.lag)),
                'The events here are older than those there.',
                '-- is ' || s.database || ' up? The network? Its walsender?'
            where s.is_working and s.lag > interval '5 minutes'
            union all
            select 'notice', format('copies %s tables still', s.copying),
                'Until then the newest events of it are not here.', '-- wait'
            where s.is_working and s.copying > 0
        ) as p (severity, problem, why, mend);
$$;
comment on function audit_collected.check_subscriptions is
    'Databases whose events arrive late, or not any more';

create or replace function audit_collected.doctor() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select * from audit_collected.check_subscriptions()
    union all
    select * from audit_collected.check_tables()
    union all
    select 'collect', 'critical', 'audit_collected.event', format('of %s has %s events, and its '
            'ticks up to %s hold %s', c.database, b.arrived, b.tick_id, b.events),
        'Events did not arrive, or somebody took some away here.',
        '-- to have what is missing copied once more: auditdb collect ' || c.database
            || ' --from DSN', false
    from audit_collected.subscriptions() as c
        cross join lateral audit_collected.between_ticks(c.database) as b
    where b.arrived <> b.events and c.copying = 0;
$$;
comment on function audit_collected.doctor is
    'What is wrong with the collected events; part of audit.doctor()';
