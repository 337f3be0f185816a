-- Drain: moves events out of DEFAULT that came before their month had a partition. Writers go on.

-- Declared IMMUTABLE only for the index: its entry stores the transaction that wrote the event,
-- which no column can tell for certain. If a plan calls the function instead, every row looks new;
-- copying a row twice is harmless.
create or replace function audit_private.arrived_in(id bigint) returns xid8
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
    return pg_current_xact_id();
end
$$;
comment on function audit_private.arrived_in is
    'Indexed on DEFAULT: the transaction that wrote an event there; only for audit_private.drain()';

create or replace function audit_private.index_default() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    create index event_default_arrived_in_idx on audit.event_default (audit_private.arrived_in(id));
    alter index audit.event_default_arrived_in_idx alter column 1 set statistics 0;
end
$$;
comment on function audit_private.index_default is
    'Creates the index by which audit_private.drain() finds new events';

create or replace function audit_private.furnish_default() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from pg_policy
        where polrelid = 'audit.event_default'::regclass and polname = 'the_owner_drains')
    then
        create policy the_owner_drains on audit.event_default for select to audit_owner
            using (true);
    end if;
    if to_regclass('audit.event_default_arrived_in_idx') is null then
        perform audit_private.index_default();
    end if;
end
$$;
comment on function audit_private.furnish_default is
    'Gives DEFAULT the policy and the index that audit_private.drain() needs';

do $$ begin perform audit_private.furnish_default(); end $$;

create or replace function audit_private.copy_default(
    inout seen pg_snapshot, inout months date[], out copied bigint
)
-- Forces the index on arrival, which finds new events even if the planner thinks DEFAULT is small.
language plpgsql volatile set search_path = pg_catalog, pg_temp set enable_seqscan = off
as $$
declare
    _now pg_snapshot := pg_current_snapshot();
    _from text := 'audit.event_default';
    _month date;
    _bounds record;
    _count bigint;
begin
    copied := 0;
    if seen is not null then
        _from := format('(select * from audit.event_default '
            'where audit_private.arrived_in(id) >= %L::xid8 '
            'or audit_private.arrived_in(id) = any (%L::xid8[]) offset 0)',
            pg_snapshot_xmax(seen), array(select pg_snapshot_xip(seen)));
    end if;
    for _month in execute format($sql$
        select distinct date_trunc('month', occurred_at at time zone 'UTC')::date
        from %s as e
        where audit_private.has_month(occurred_at)$sql$, _from)
    loop
        _bounds := audit_private.month_bounds(_month);
        if _month <> all (months) then
            -- Until it is attached, the owner writes to it; the check constraint then saves a scan.
            execute format('alter table %s no force row level security, add constraint in_month '
                'check (occurred_at >= %L and occurred_at < %L)',
                audit_private.prepare_month(_month), _bounds.starts, _bounds.ends);
            months := months || _month;
        end if;
        execute format('insert into %s select * from %s as e where occurred_at >= %L '
            'and occurred_at < %L on conflict (occurred_at, id) do nothing',
            audit_private.prepare_month(_month), _from, _bounds.starts, _bounds.ends);
        get diagnostics _count = row_count;
        copied := copied + _count;
        perform audit_private.report_progress(_count, 'copied out of DEFAULT');
    end loop;
    seen := _now;
end
$$;
comment on function audit_private.copy_default is
    'Copies events of DEFAULT that a snapshot did not see, or all, to tables of their months';

create or replace function audit_private.replace_default(months date[]) returns void
-- Writers wait: events without a month are found by the index on time, however full DEFAULT was.
language plpgsql volatile set search_path = pg_catalog, pg_temp set enable_seqscan = off
as $$
declare
    _month date;
begin
    create table audit.event_next (like audit.event including defaults including comments);
    -- Events that no month can hold stay in DEFAULT.
    insert into audit.event_next
    select * from audit.event_default where not audit_private.has_month(occurred_at);
    perform audit_private.close_attestation('audit.event_default', 'drain');
    drop table audit.event_default;
    alter table audit.event_next rename to event_default;
    foreach _month in array months loop
        execute format('alter table %s force row level security',
            audit_private.prepare_month(_month));
        perform audit_private.join_month(_month);
        execute format('alter table %s drop constraint in_month',
            audit_private.prepare_month(_month));
    end loop;
    comment on table audit.event_default
        is 'Events that no monthly partition covers; normally empty';
    revoke all on audit.event_default from public;
    perform audit_private.guard('audit.event_default');
    perform audit_private.open_to_backups('audit.event_default');
    perform audit_private.close_statistics('audit.event_default');
    perform audit_private.furnish_default();
    alter table audit.event attach partition audit.event_default default;
    alter table audit.event_default enable always trigger refuse_change;
    perform audit_private.record_attestation('drain', 'audit.event', '{trigger}', renew => false);
end
$$;
comment on function audit_private.replace_default is
    'Replaces the copied DEFAULT by an empty one, and attaches the months of its events';

-- If the lock cannot be had in the end, the copy is wasted. A transaction that keeps the log open
-- during this wait would probably keep it open then, too.
create or replace function audit_private.await_transactions() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _open text[];
    _who text;
begin
    for _attempt in 1 .. 50 loop
        select array_agg(l.virtualtransaction), min(l.pid)::text into _open, _who
        from pg_locks as l
        where l.locktype = 'relation' and l.granted and l.pid is distinct from pg_backend_pid()
            and l.database = (select oid from pg_database where datname = current_database())
            and l.relation = any ('{audit.event,audit.event_default}'::regclass[])
            and (_open is null or l.virtualtransaction = any (_open));
        if _open is null then
            return;
        end if;
        perform pg_sleep(0.1);
    end loop;
    raise exception 'events are not moved out of DEFAULT: % has had the log open for 5 seconds',
            coalesce('process ' || _who, 'a prepared transaction')
        using errcode = 'lock_not_available',
            hint = 'Run it again when that has ended; pg_stat_activity shows it.';
end
$$;
comment on function audit_private.await_transactions is
    'Raises if a transaction keeps the log open for 5 seconds; '
    'takes no lock, and makes nobody wait';

-- Copies while writers write, until few new events are left. Then locks the log, copies the rest,
-- and replaces DEFAULT: the time that writers wait does not grow with the number of events.
create or replace function audit_private.drain() returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _seen pg_snapshot;
    _months date[] := '{}';
    _copied bigint;
    _moved bigint := 0;
    _is_locked boolean := false;
begin
    if not exists (
        select from audit.event_default where audit_private.has_month(occurred_at)
    ) then
        return 0;
    end if;
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise exception 'events cannot be moved under %', current_setting('transaction_isolation')
            using errcode = 'invalid_transaction_state',
                hint = 'Events that arrive meanwhile would not be seen. Use read committed.';
    end if;
    perform audit_private.await_transactions();
    -- Blocks vacuum and DDL, but no writer.
    perform audit_private.lock_briefly('audit.event', 'share update exclusive');
    perform audit_private.lock_briefly('audit.event_default', 'share update exclusive');
    for _attempt in 1 .. 200 loop
        select * into _seen, _months, _copied from audit_private.copy_default(_seen, _months);
        _moved := _moved + _copied;
        continue when _copied > 100 and mod(_attempt, 4) > 0;
        _is_locked := audit_private.try_locks('{audit.event}', '{access exclusive}');
        exit when _is_locked;
        perform pg_sleep(0.5);
    end loop;
    if not _is_locked then
        raise exception 'audit.event is busy: another transaction uses it'
            using errcode = 'lock_not_available',
                hint = 'Try again when that has ended.';
    end if;
    lock table only audit.event_default in access exclusive mode;
    select * into _seen, _months, _copied from audit_private.copy_default(_seen, _months);
    _moved := _moved + _copied;
    perform audit_private.replace_default(_months);
    return _moved;
end
$$;
comment on function audit_private.drain is
    'Moves events out of DEFAULT into partitions of their months, and returns how many';
