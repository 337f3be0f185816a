-- Metrics: numbers for a monitoring system. Cheap enough for every minute: it reads the events of
-- one day, and at most 100,000 of DEFAULT.

create or replace function audit_private.metrics_of_day(organizations int)
returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with day as materialized (
        select organization_id,
            case when details ? 'degraded' then captured_from end as degraded,
            count(*) filter (where captured_from is null or action not like '%.baseline') as events,
            count(*) as degraded_events
        from audit.event
        where occurred_at > now() - interval '24 hours' and occurred_at <= now()
        group by 1, 2
    )
    select 'auditdb_recent_events', '{}'::jsonb, coalesce(sum(events), 0) from day
    union all
    (
        select 'auditdb_organization_recent_events',
            jsonb_build_object('organization', organization_id), sum(events)
        from day
        where organization_id is not null
        group by organization_id
        having sum(events) > 0
        order by sum(events) desc, organization_id
        limit metrics_of_day.organizations
    )
    union all
    select 'auditdb_recent_degraded_events', jsonb_build_object('table', degraded),
        sum(degraded_events)
    from day
    where degraded is not null
    group by degraded;
$$;
comment on function audit_private.metrics_of_day is
    'Numbers of events of the last 24 hours: in all, by organisation, and of those that lost '
    'details. Baseline events count only among the last';

create or replace function audit_private.metrics_of_subscriptions(most int)
returns table (name text, labels jsonb, value double precision)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with behind as materialized (
        select * from audit.list_subscriptions() as s
        order by s.lag_seconds desc, s.name
        limit metrics_of_subscriptions.most
    )
    select 'auditdb_subscriptions', jsonb_build_object('state', s.state), count(*)
    from audit.subscription as s
    group by s.state
    union all
    select m.name, jsonb_build_object('subscription', s.name), m.value
    from behind as s
        cross join lateral (values
            ('auditdb_subscription_lag_seconds', s.lag_seconds),
            ('auditdb_subscription_lag_events', s.lag_events),
            ('auditdb_subscription_delivered_events', s.delivered),
            ('auditdb_subscription_set_aside_events', s.set_aside),
            ('auditdb_subscription_missed_events', s.missed)
        ) as m (name, value);
$$;
comment on function audit_private.metrics_of_subscriptions is
    'Subscriptions by state, and the lag of those that are furthest behind';

create or replace function audit.metrics(organizations int default 20)
returns table (name text, labels jsonb, value double precision)
language sql stable security definer set search_path = pg_catalog, pg_temp set row_security = on
as $$
    select 'auditdb_info', jsonb_build_object('version', audit.version()), 1
    union all
    select * from audit_private.metrics_of_day(metrics.organizations)
    union all
    select 'auditdb_default_events', '{}', count(*)
    from (select from audit.event_default limit 100000) as found
    union all
    select 'auditdb_months_ahead', '{}', count(*)
    from unnest(audit_private.months_attached()) as m
    where m > now() at time zone 'UTC'
    union all
    select 'auditdb_last_maintenance_timestamp_seconds', '{}', extract(epoch from maintained_at)
    from audit_private.installation
    union all
    select 'auditdb_attached_tables', '{}', count(*) from audit.list_tables()
    union all
    select 'auditdb_problem_tables', '{}', count(problem) from audit.list_tables()
    union all
    select 'auditdb_partition_size_bytes', jsonb_build_object('partition', c.relname),
        pg_total_relation_size(c.oid)
    from pg_partition_tree('audit.event') as t join pg_class as c on c.oid = t.relid
    where t.isleaf
    union all
    select * from audit_private.metrics_of_subscriptions(metrics.organizations);
$$;
-- Definer: counts events, which operators may not read.
comment on function audit.metrics is
    'Numbers for a monitoring system: name, labels and value of each; of organisations, only those '
    'with the most events in 24 hours. auditdb status --format openmetrics prints the same';
