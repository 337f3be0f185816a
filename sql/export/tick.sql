-- Ticks: each tick closes a set of events that never changes: those whose transactions are visible
-- in its snapshot and in no earlier one. Reading by id would miss late commits;
-- reading by ticks does not.

-- A tick is made under a lock on audit.series, and nobody reads it before its commit: see
-- audit_private.tick_parts().

create or replace function audit_private.month_of(occurred_at timestamptz) returns date
language sql immutable
return case
    when month_of.occurred_at < '0001-01-01 00:00:00+00'::timestamptz then '-infinity'::date
    when audit_private.has_month(month_of.occurred_at)
        then date_trunc('month', month_of.occurred_at at time zone 'UTC')::date
    else 'infinity'::date end;
comment on function audit_private.month_of is
    'First day of the month of a time (UTC); -infinity before the year 1, and infinity for any '
    'other time that can have no partition';

create or replace function audit_private.last_id() returns bigint
language sql volatile set search_path = pg_catalog, pg_temp
return (select case when is_called then last_value else 0 end from audit.event_id_seq);
comment on function audit_private.last_id is
    'The highest event id that was drawn so far; 0 if none was';

-- The first eight digits of the name of a write-ahead log file. pg_control_checkpoint() would show
-- the former timeline for a while after a promotion.
create or replace function audit_private.timeline() returns int
language sql volatile set search_path = pg_catalog, pg_temp
return ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int;
comment on function audit_private.timeline is
    'Timeline of the write-ahead log; a promotion or a point-in-time recovery begins a new one';

create or replace function audit_private.begin_series(began text, after_id bigint)
returns audit.series
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    insert into audit.series (id, began, system_identifier, timeline, database, after_id)
    select coalesce(max(s.id), 0) + 1, begin_series.began, audit_private.cluster_id(),
        audit_private.timeline(), (select oid from pg_database where datname = current_database()),
        begin_series.after_id
    from audit.series as s
    returning *;
$$;
comment on function audit_private.begin_series is
    'Begins a series of ticks on this server and timeline, for events after an id';

-- Part of install. It waits for all writers, so that every earlier event has this id or a lower
-- one, whatever its transaction id.
-- Every later event has a transaction id of this database, and a higher id.
create or replace function audit_private.renew_series(began text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    perform audit_private.lock_briefly('audit.event', 'share');
    perform audit_private.begin_series(renew_series.began,
        greatest(audit_private.last_id(), (select max(id) from audit.event)));
end
$$;
comment on function audit_private.renew_series is
    'Begins a series whose transaction ids cannot be compared with those of the events before it';

-- After a promotion, a recovery or a copy of the whole database, transaction ids continue those of
-- its log. The new series therefore only continues the last one.
create or replace function audit_private.present_series() returns audit.series
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _last audit.series;
begin
    select * into _last from audit.series order by id desc limit 1;
    if not found then
        raise exception 'the log has no series of ticks yet'
            using errcode = 'object_not_in_prerequisite_state', hint = 'Run: auditdb install';
    end if;
    if (_last.timeline, _last.database) = (audit_private.timeline(),
        (select oid from pg_database where datname = current_database()))
    then
        return _last;
    end if;
    return audit_private.begin_series('continued', _last.after_id);
end
$$;
comment on function audit_private.present_series is
    'The series of new ticks; begins one if the timeline or the oid of the database has changed';

-- The own events of a transaction that makes a tick belong to the next tick,
-- because it may still write more.
create or replace function audit_private.snapshot_without(snapshot pg_snapshot, transaction_id xid8)
returns pg_snapshot
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select case when transaction_id >= pg_snapshot_xmax(snapshot) then snapshot else (
        select format('%s:%s:%s', least(pg_snapshot_xmin(snapshot), transaction_id),
            pg_snapshot_xmax(snapshot), string_agg(x.id::text, ',' order by x.id))::pg_snapshot
        from (select pg_snapshot_xip(snapshot) union select transaction_id) as x (id)) end;
$$;
comment on function audit_private.snapshot_without is
    'The same snapshot, but with one transaction as not yet ended';

-- Covers the events since the last restore before the tick.
create or replace function audit_private.covered_condition(tick audit.tick) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case
    when (tick).id is null then 'false'
    when (tick).since = '-infinity'
        then format('pg_visible_in_snapshot(e.transaction_id, %L)', (tick).snapshot)
    else format('pg_visible_in_snapshot(e.transaction_id, '
            'case when e.occurred_at >= %L then %L else %L end::pg_snapshot)',
        (tick).since, (tick).snapshot,
        (select t.snapshot from audit.tick as t where t.id = (tick).whole_id)) end;
comment on function audit_private.covered_condition is
    'SQL condition for an event e that belongs to a tick or to an earlier one';

-- The only definition of what a tick holds. After a restore, earlier snapshots are compared only
-- with transaction ids of their own series. Events older than a series belong to earlier ticks, and
-- have no higher id than those ticks saw.
create or replace function audit_private.tick_condition(tick audit.tick, former audit.tick)
returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select format(case
            when former.id is null or exists (
                select from audit.series as s
                where s.id > former.series_id and s.id <= tick.series_id and s.began <> 'continued')
            then '(e.id > %1$s and pg_visible_in_snapshot(e.transaction_id, %2$L)'
                ' or e.id <= %1$s and not (e.id <= %4$s or e.id <= %5$s and %6$s))'
            else '(e.occurred_at >= %3$L and e.id > %1$s'
                ' and pg_visible_in_snapshot(e.transaction_id, %2$L) and not %6$s)' end,
        n.after_id, tick.snapshot, tick.since, coalesce(f.after_id, -9223372036854775807),
        coalesce(former.upper_id, 0), audit_private.covered_condition(former))
    from audit.series as n left join audit.series as f on f.id = former.series_id
    where n.id = tick.series_id;
$$;
comment on function audit_private.tick_condition is
    'SQL condition for an event e that belongs to a tick, by its snapshot and the tick before';

-- The transaction of an event in a later tick either began after the former snapshot, or was
-- running in it and has ended in this one. If the transaction of a tick is older than all of these,
-- then its lower_id is below all of their events.
create or replace function audit_private.tick_floor(tick audit.tick, former audit.tick)
returns bigint
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select coalesce((
        select t.lower_id from audit.tick as t
        where t.series_id >= (
                select max(s.id) from audit.series as s where s.began <> 'continued')
            and t.transaction_id < all (array(
                select x from pg_snapshot_xip(former.snapshot) as x
                where pg_visible_in_snapshot(x, tick.snapshot)
            ) || pg_snapshot_xmax(former.snapshot))
        order by t.id desc limit 1), 0);
$$;
comment on function audit_private.tick_floor is
    'A lower bound: events of a tick that are in no tick up to a former one have higher ids';

-- There is no index by id alone, because each index costs writers. Most ticks therefore look only
-- at the last minutes. Events further back, which come after a change of the clock or from a long
-- transaction, wait for the next whole tick. A whole tick reads every entry of the primary key;
-- while the log is small, each tick is one.
create or replace function audit_private.is_whole_due(tick audit.tick, former audit.tick)
returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _whole audit.tick;
begin
    if former.series_id is distinct from tick.series_id
        or (
            select sum(pg_relation_size(i.indexrelid)) < 16 * 1024 * 1024
            from pg_partition_tree('audit.event') as p
                join pg_index as i on i.indrelid = p.relid and i.indisprimary
            where p.isleaf)
    then
        return true;
    end if;
    select * into _whole from audit.tick as t
    where t.id = case when former.since = '-infinity' then former.id else former.whole_id end;
    return clock_timestamp() not between _whole.made_at and _whole.made_at + interval '10 minutes'
            -- No whole tick while nobody writes.
            and tick.upper_id > former.upper_id
        -- A transaction has ended that may have written events further back than other ticks look.
        or exists (
            select from pg_snapshot_xip(former.snapshot) as x
            where pg_visible_in_snapshot(x, tick.snapshot) and x < (
                select t.transaction_id from audit.tick as t
                where t.id <= _whole.id and t.id > _whole.id - 1000
                    and t.made_at > audit_private.tick_since(_whole)
                order by t.id limit 1));
end
$$;
comment on function audit_private.is_whole_due is
    'Whether the next tick must be a whole one, which looks at events of all times';

create or replace function audit_private.tick_since(whole audit.tick) returns timestamptz
language sql immutable set search_path = pg_catalog, pg_temp
return (whole).made_at - interval '1 minute';
comment on function audit_private.tick_since is
    'How far back the ticks after a whole one look';

-- Each part is a range of the primary key. It skips events of earlier ticks by id.
create or replace function audit_private.tick_search(tick audit.tick, former audit.tick)
returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select string_agg(format('select e.occurred_at, e.id from audit.event as e where %s and %s',
        p.range, audit_private.tick_condition(tick, former)), ' union all ')
    from (
        select 'true' where former.id is null or former.series_id <> tick.series_id
        union all
        select format('e.occurred_at >= %L and e.id > %s', s.since,
            audit_private.tick_floor(tick, former))
        from (values (
            case when former.since = '-infinity' and tick.since = '-infinity'
                then audit_private.tick_since(former)
                else greatest(former.since, tick.since) end)) as s (since)
        where former.series_id = tick.series_id
        union all
        select format('e.occurred_at < %L and e.id > %s',
            case when former.since = '-infinity' then audit_private.tick_since(former)
                else former.since end,
            audit_private.tick_floor(tick, case when former.since = '-infinity' then former
                else w end))
        from (select) as one
            left join audit.tick as w on w.id = former.whole_id
        where former.series_id = tick.series_id and tick.since = '-infinity'
    ) as p (range);
$$;
comment on function audit_private.tick_search is
    'A query that finds the events of a new tick';

-- The last id, if the transaction has no id of its own yet. If it has one, transactions with higher
-- ids could have drawn event ids before: then the lower_id of an earlier tick is taken.
create or replace function audit_private.lower_id() returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if pg_current_xact_id_if_assigned() is null then
        return audit_private.last_id();
    end if;
    return coalesce((
        select t.lower_id from audit.tick as t
        where t.series_id >= (
                select max(s.id) from audit.series as s where s.began <> 'continued')
            and t.transaction_id < pg_current_xact_id()
        order by t.id desc limit 1), 0);
end
$$;
comment on function audit_private.lower_id is
    'An event id: transactions with a higher id than this one write only events with higher ids';

create or replace function audit_private.add_tick(is_whole boolean default false) returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp set enable_seqscan = off
set timezone = 'UTC' set datestyle = 'ISO'
as $$
declare
    _former audit.tick;
    _tick audit.tick;
begin
    select * into _former from audit.tick as t order by t.id desc limit 1;
    _tick.id := coalesce(_former.id, 0) + 1;
    _tick.lower_id := audit_private.lower_id();
    _tick.transaction_id := pg_current_xact_id();
    _tick.series_id := (audit_private.present_series()).id;
    _tick.made_at := clock_timestamp();
    _tick.snapshot := audit_private.snapshot_without(pg_current_snapshot(), _tick.transaction_id);
    _tick.upper_id := audit_private.last_id();
    _tick.whole_id := case when _former.since = '-infinity' then _former.id
        else _former.whole_id end;
    _tick.since := case
        when is_whole or audit_private.is_whole_due(_tick, _former) then '-infinity'
        when _former.since = '-infinity' then audit_private.tick_since(_former)
        else _former.since end;
    execute format($sql$
        with found as materialized (
            select audit_private.month_of(e.occurred_at) as month, count(*) as events,
                min(e.occurred_at), max(e.occurred_at), min(e.id), max(e.id)
            from (%s) as e
            group by 1
        ), months as (
            insert into audit.tick_month select $1, f.* from found as f returning events
        )
        select sum(m.events) from months as m$sql$, audit_private.tick_search(_tick, _former))
    into _tick.events using _tick.id;
    if _tick.events is null then
        return null;
    end if;
    insert into audit.tick select _tick.*;
    return _tick.id;
end
$$;
comment on function audit_private.add_tick is
    'Makes a tick of the events that have none yet, and returns its id; null if there are no such '
    'events. The caller holds the locks';

-- A table lock that only the owner may take; anybody could take an advisory lock. The lock on the
-- log comes before the snapshot: an event that is moved out of DEFAULT meanwhile would be missed in
-- both places. The commit is synchronous, so that a crash loses no tick that somebody has read.
create or replace function audit_private.lock_ticks(wait boolean) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    for _attempt in 1 .. case when wait then 100 else 1 end loop
        perform pg_sleep(0.05) where _attempt > 1;
        if audit_private.try_locks(
            '{audit.series, audit.event}', '{share row exclusive, access share}')
        then
            if current_setting('synchronous_commit') <> 'remote_apply' then
                perform set_config('synchronous_commit', 'on', true);
            end if;
            return true;
        end if;
    end loop;
    return false;
end
$$;
comment on function audit_private.lock_ticks is
    'Keeps others from making ticks until the transaction ends; false if another transaction does';

create or replace function audit_private.tick_problem(out problem text, out hint text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    if pg_is_in_recovery() or current_setting('transaction_read_only')::boolean then
        problem := 'nothing can be written here';
        hint := 'Make ticks on the primary, in a transaction that may write.';
    elsif current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        problem := format('a tick cannot be made under %s',
            current_setting('transaction_isolation'));
        hint := 'Its snapshot may be older than the last tick. Use read committed.';
    elsif audit_private.is_restored() then
        problem := 'this database was restored, and its transaction ids have changed';
        hint := 'Run: auditdb install';
    elsif audit_private.receives_events() then
        problem := 'replication writes this log, with transaction ids of another database';
        hint := 'Make ticks there.';
    end if;
end
$$;
comment on function audit_private.tick_problem is
    'Why no tick can be made here and now, with a hint; null if one can be made';

create or replace function audit.make_tick() returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _problem record := audit_private.tick_problem();
begin
    if _problem.problem is not null then
        raise exception '%', _problem.problem
            using errcode = 'object_not_in_prerequisite_state', hint = _problem.hint;
    elsif not audit_private.lock_ticks(wait => true) then
        raise exception 'another transaction is making a tick, or has the log locked'
            using errcode = 'lock_not_available', hint = 'Try again when that has ended.';
    end if;
    return audit_private.add_tick();
end
$$;
-- Definer: only audit_owner writes ticks.
comment on function audit.make_tick is
    'Closes the set of events that were committed since the last tick, and returns the id of the '
    'new tick; null if there are none. Commit before you read the tick';

-- Does not raise for temporary problems: the caller then reads the ticks that exist.
create or replace function audit_private.try_tick() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
begin
    if (audit_private.tick_problem()).problem is null
        and not exists (
            select from audit.tick as t
            where t.id = (select max(id) from audit.tick)
                and t.made_at between clock_timestamp() - interval '1 second' and clock_timestamp())
        and audit_private.lock_ticks(wait => false)
    then
        perform audit_private.add_tick();
    end if;
end
$$;
-- Definer: only audit_owner writes ticks.
comment on function audit_private.try_tick is
    'Makes a tick if the last one is a second old and no other session makes one; '
    'part of audit.events_since';

-- Counts every month of a small log. Of a large log, counts only the newest ticks; retention counts
-- the months that it drops.
create or replace function audit_private.count_tick(tick audit.tick) returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO'
as $$
declare
    _former audit.tick;
    _month audit.tick_month;
    _events bigint;
    _count bigint := 0;
begin
    select * into _former from audit.tick as t where t.id = tick.id - 1;
    for _month in select * from audit.tick_month as m where m.tick_id = tick.id loop
        execute format('select count(*) from audit.event as e where e.occurred_at >= %L '
            'and e.occurred_at <= %L and e.id >= %s and e.id <= %s and (%s)', _month.first_at,
            _month.last_at, _month.first_id, _month.last_id,
            audit_private.tick_condition(tick, _former))
        into _events;
        _count := _count + _events;
    end loop;
    return _count;
end
$$;
comment on function audit_private.count_tick is
    'How many events of a tick are in the log';

create or replace function audit_private.check_ticks() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'ticks', 'critical', 'audit.tick', format('%s of the last 100 ticks, the first of them '
            '%s, have other counts of events than the log', count(*), min(t.id)),
        'Events were removed or inserted, or the clock or the ids of the log were set back.',
        '-- compare: select * from audit.tick where id >= ' || min(t.id), false
    from (select * from audit.tick order by id desc limit 100) as t
    where audit_private.count_tick(t) <> t.events
        -- Retention dropped events of older ticks.
        and not exists (
            select from audit.tick_month as m
            where m.tick_id = t.id and isfinite(m.month)
                and m.month < all (audit_private.months_attached()))
    having count(*) > 0;
$$;
comment on function audit_private.check_ticks is
    'Ticks whose count of events differs from the log';
