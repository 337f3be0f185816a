-- Checks of ids, months and replication: problems after a restore or a copy of the database.
-- Each returns no row if all is well; audit.doctor runs them all.

-- There is no index by id. Ids ascend with time, except among concurrent writers. It therefore
-- reads the newest events, and one event before each of several moments.
create or replace function audit_private.sampled_ids()
returns table (id bigint, occurred_at timestamptz, is_newest boolean)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    -- With the bounds as literals, the planner considers only the partitions of two months.
    _query constant text := 'select e.id, e.occurred_at, %L::boolean from audit.event as e '
        'where e.occurred_at >= %L and e.occurred_at < %L '
        'order by e.occurred_at desc, e.id desc limit %s';
    _before timestamptz;
begin
    return query execute format(_query, true, now() - interval '1 month', 'infinity', 2000);
    for _before in
        select now() - i.ago
        from unnest('{1 hour,6 hours,1 day,2 days,3 days,5 days,7 days,14 days,21 days,1 month,'
            '2 months,3 months,4 months,6 months,9 months,1 year,2 years}'::interval[]) as i (ago)
    loop
        return query execute format(_query, false, _before - interval '1 month', _before, 1);
    end loop;
end
$$;
comment on function audit_private.sampled_ids is
    'A sample of events whose ids show problems: the newest, and the last before several moments';

create or replace function audit_private.check_ids() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with sampled as materialized (
        select s.*, max(s.id) over (order by s.occurred_at, s.id
                rows between unbounded preceding and 1 preceding) as highest_before,
            max(s.id) filter (where s.is_newest) over (order by s.occurred_at range
                between unbounded preceding and '1 hour' preceding) as highest_an_hour_before,
            case when s.is_newest then count(*) over (partition by s.id, s.is_newest) end as times
        from audit_private.sampled_ids() as s
    ), doubled as (
        select count(distinct id) as n, min(occurred_at) as since from sampled where times > 1
    )
    select 'ids', 'critical', 'audit.event_id_seq',
        format('continues from %s, but there are events up to %s', s.last_value, h.id),
        'Ids will be used twice: a restore or replication brought events without the sequence.',
        'auditdb install', false
    from audit.event_id_seq as s
        cross join lateral (
            select greatest((select max(id) from sampled),
                (select max(first_id) from audit_private.organization_start))
        ) as h (id)
    where s.last_value < h.id
    union all
    select 'ids', 'critical', 'audit.event',
        format('%s ids are used twice among the newest events, since %s', n,
            to_char(since, 'YYYY-MM-DD HH24:MI')),
        'Triggers made events while the data of tables was restored: what they say did not happen.',
        '-- restore again, data with --disable-triggers, then: auditdb install', false
    from doubled where n > 0
    union all
    select 'ids', 'warning', 'audit.event', format('ids restarted at %s: after %s came %s',
            to_char(min(occurred_at), 'YYYY-MM-DD HH24:MI'), max(highest_before), min(id)),
        'Ids are used twice: triggers made events while data was restored, the sequence was lost, '
        'or the clock of the server went back.',
        '-- find out which; after a restore without --disable-triggers, restore again', false
    from sampled
    -- Concurrent writers may be out of order.
    -- A few events that fill gaps of the ids show by their time.
    where (id + 1000 < highest_before
            or id < highest_an_hour_before and is_newest and occurred_at <= now())
        and not exists (select from doubled where n > 0)
    having count(*) > 0;
$$;
comment on function audit_private.check_ids is
    'Finds ids that were used twice or will be, and ids that started again';

create or replace function audit_private.check_months() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'partitions', 'critical', c.oid::regclass::text, p.problem,
        'Maintenance does not know it: events may be kept for ever, or dropped too early.',
        format('-- put its events where they belong, then: alter table audit.event detach '
            'partition %s', c.oid::regclass), false
    from pg_inherits as i
        join pg_class as c on c.oid = i.inhrelid
        cross join lateral regexp_match(pg_get_expr(c.relpartbound, c.oid),
            'FROM [(]''(.*)''[)] TO [(]''(.*)''[)]') as b
        cross join lateral (
            select case when c.relname ~ '^event_[0-9]{4,}_(0[1-9]|1[0-2])$'
                then to_date(substr(c.relname, 7), 'YYYY_MM') end
        ) as m (month)
        cross join lateral audit_private.month_bounds(m.month) as w
        cross join lateral (
            select case
                when c.relkind <> 'r' then 'is a partition of the log that another server holds'
                when c.relnamespace <> 'audit'::regnamespace
                    then 'is a partition of the log outside of the schema audit'
                when c.relname = 'event_default' and b is null then null
                when m.month is null then 'is a partition of the log, and its name is no month'
                when (b[1]::timestamptz, b[2]::timestamptz) is distinct from (w.starts, w.ends)
                    then 'holds other events than those of its month'
                end
        ) as p (problem)
    where i.inhparent = 'audit.event'::regclass and p.problem is not null;
$$;
comment on function audit_private.check_months is
    'Finds partitions of the log that are not months of it';

-- The tables that a subscription of this database writes to.
create or replace function audit_private.replicated() returns oid[]
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(array_agg(distinct r.srrelid), '{}')
    from pg_subscription_rel as r
        join pg_subscription as s on s.oid = r.srsubid
        join pg_database as d on d.oid = s.subdbid
    where d.datname = current_database()
);
comment on function audit_private.replicated is
    'The tables that logical replication writes to';

create or replace function audit_private.receives_events() returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return exists (
    select from pg_partition_tree('audit.event')
    where relid = any (audit_private.replicated())
        -- At a centre, arriving events go to other tables.
        and not exists (
            select from pg_trigger where tgrelid = 'audit.event'::regclass and tgname = 'land')
);
comment on function audit_private.receives_events is
    'Whether logical replication writes to the log';

create or replace function audit_private.is_replicated(target oid, relation oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return array[target, relation] && audit_private.replicated();
comment on function audit_private.is_replicated is
    'Whether logical replication writes to an attached table, or to this partition of it';

create or replace function audit_private.check_replication() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'replication', 'warning', 'publication ' || quote_ident(p.pubname),
        'publishes the log by its months',
        'Replication stops at the next month that maintenance makes, which the subscriber lacks.',
        format('alter publication %I set (publish_via_partition_root = true)', p.pubname), false
    from pg_publication as p
    where not p.pubviaroot and (
        p.puballtables
        or exists (
            select from pg_publication_namespace as n
            where n.pnpubid = p.oid and n.pnnspid = 'audit'::regnamespace)
        or exists (
            select from pg_publication_rel as r
            where r.prpubid = p.oid
                and r.prrelid in (select relid from pg_partition_tree('audit.event'))))
    union all
    select 'replication', 'warning', t.tgrelid::regclass::text,
        'is written by a subscription that writes the log too, and is captured',
        'Each change is an event twice: replicated, and captured here.',
        format('alter table %s %s', t.tgrelid::regclass,
            string_agg(format('enable trigger %I', t.tgname), ', ' order by t.tgname)), false
    from audit_private.captured_tables() as c
        join pg_trigger as t on t.tgrelid = c.relation and t.tgenabled in ('A', 'R')
            and t.tgname ~ '^auditdb_(insert|update|delete|truncate)$'
    where audit_private.receives_events() and audit_private.is_replicated(c.target, c.relation)
    group by t.tgrelid;
$$;
comment on function audit_private.check_replication is
    'Finds publications that fail at a new month, and subscriptions that cause double events';
