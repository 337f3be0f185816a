-- Check of subscriptions: which failed, are late, lapsed, missed events or had some set aside.

create or replace function audit_private.check_streams() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'subscriptions', 'warning', 'streams of organisations',
        format('%s of them were not served for an hour', count(*)),
        'Admins have made them, and no exporter that knows their secret sends them.',
        'auditdb export --all --follow --secrets FILE -- which says stream_secret', false
    from audit.list_subscriptions() as s
    where s.made_by is not null and s.state = 'active' and s.problem is null
        and s.lag_seconds > 3600
    having count(*) > 0;
$$;
comment on function audit_private.check_streams is
    'Streams of organisations that no exporter serves';

create or replace function audit_private.check_subscriptions() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'subscriptions', f.severity, s.name, f.problem, f.why, f.mend, false
    -- No finding for the sink of a customer: the customer sees what is wrong with it.
    from (select * from audit.list_subscriptions() where made_by is null) as s
        cross join lateral (
            select 'warning' as severity, concat_ws(': ', 'failed', s.problem) as problem,
                'Nothing is sent until a person has fixed it; retention waits for it.' as why,
                format('auditdb subscription resume %s -- once it is fixed', s.name) as mend
            where s.state = 'failed'
            union all
            select 'warning', format('is %s events behind, for %s', s.lag_events,
                    date_trunc('minute', make_interval(secs => s.lag_seconds))),
                concat_ws(' ', 'Its events arrive late, and retention waits for it.',
                    'Its sink last said: ' || s.problem),
                format('auditdb export %s', s.name)
            where s.state = 'active' and s.lag_seconds > 3600
            union all
            select 'warning', format('lapsed: nobody served it since %s',
                    to_char(s.served_at, 'YYYY-MM-DD')),
                'Retention no longer waits for it.',
                format('auditdb subscription resume %1$s -- or: auditdb subscription drop %1$s',
                    s.name)
            where s.state = 'lapsed'
            union all
            select 'warning', format('missed up to %s events, which retention dropped', s.missed),
                'They are gone; its sink never got them.',
                format('auditdb subscription resume %s -- confirms that you know', s.name)
            where s.missed > 0
            union all
            select 'warning', format('has %s events set aside in 7 days, which its sink refused',
                    count(*)),
                'They are in the log, and its sink does not have them.',
                format('select * from audit.list_set_aside(%L)', s.name)
            from audit_private.set_aside as a
            where a.subscription = s.name and a.set_aside_at > now() - interval '7 days'
            having count(*) > 0
        ) as f
    union all select * from audit_private.check_streams();
$$;
comment on function audit_private.check_subscriptions is
    'Subscriptions that failed, lapsed, are an hour late, missed events or had some set aside';
