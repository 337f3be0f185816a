-- Deliveries: a batch is claimed, and the claim is committed, before it is sent; it is finished
-- after that. If an exporter dies in between, the next one sends the same batch again.

-- The key of the lock is (this number, the pid of the backend), until the transaction ends. Any
-- session may take it, but a lock under the pid of another session is ignored.
create or replace function audit_private.exporter_lock() returns int
language sql immutable set search_path = pg_catalog, pg_temp
return hashtext('auditdb exporter');
comment on function audit_private.exporter_lock is
    'First number of the advisory lock that each exporter holds while it runs';

create or replace function audit_private.begin_exporting() returns int
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if not pg_try_advisory_xact_lock(audit_private.exporter_lock(), pg_backend_pid()) then
        raise exception 'another session holds the lock of this exporter'
            using errcode = 'lock_not_available',
                hint = 'pg_locks shows which: classid is '
                    || (audit_private.exporter_lock()::bigint & 4294967295) || '.';
    end if;
    return pg_backend_pid();
end
$$;
comment on function audit_private.begin_exporting is
    'Takes the lock of an exporter until the transaction ends, which stays open while the exporter '
    'runs; returns the number of the exporter';

create or replace function audit_private.is_exporting(exporter int) returns boolean
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from pg_locks as l
        where l.locktype = 'advisory' and l.granted and l.objsubid = 2
            and l.database = (select d.oid from pg_database as d
                where d.datname = current_database())
            and l.classid = (audit_private.exporter_lock()::bigint & 4294967295)::oid
            and l.objid = is_exporting.exporter::oid
            and l.pid = is_exporting.exporter);
$$;
comment on function audit_private.is_exporting is
    'Whether the exporter of this number is running';

-- Checked, because the next exporter, perhaps another role, builds a path and a header from it.
create or replace function audit_private.is_part(part jsonb) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return coalesce(jsonb_typeof(part), 'null') = 'null'
    or array[jsonb_typeof(part -> 'tick'), jsonb_typeof(part -> 'at'), jsonb_typeof(part -> 'id'),
        jsonb_typeof(part -> 'n')] = array['number', 'string', 'number', 'number'];
comment on function audit_private.is_part is
    'Whether a value is a valid position within a tick; null is valid';

create or replace function audit_private.is_batch(pending jsonb) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return coalesce(jsonb_typeof(pending -> 'tick_id') = 'number'
    and jsonb_typeof(pending #> '{after, tick_id}') = 'number'
    and audit_private.is_part(pending -> 'part')
    and audit_private.is_part(pending #> '{after, part}')
    and pending ->> 'series' ~ '^[0-9a-f-]{36}$'
    and pending ->> 'name' ~ '^[0-9]+-[0-9a-f]{8}/[0-9]+-[0-9]+(-[0-9]+)?$', false);
comment on function audit_private.is_batch is
    'Whether a value is a batch as an exporter notes it';

-- claims: name, created_at, tick_id and part say where the subscription stands; pending is the
-- batch. created_at tells it from a newer subscription of the same name.
create or replace function audit_private.claim_batches(exporter int, claims jsonb)
returns setof text
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    with claim as materialized (
        select s.name, c.pending
        from jsonb_to_recordset(claim_batches.claims)
                as c (name text, created_at timestamptz, tick_id bigint, part jsonb, pending jsonb)
            join audit.subscription as s on (s.name, s.created_at) = (c.name, c.created_at)
        where s.state = 'active' and audit_private.is_batch(c.pending) and s.tick_id = c.tick_id
            and coalesce(s.part, 'null') = coalesce(c.part, 'null')
            and (s.pending is null or s.pending = c.pending)
            and audit_private.is_current(s)
            and (s.exporter is null or s.exporter = claim_batches.exporter
                or not audit_private.is_exporting(s.exporter))
        order by s.name
        for update of s skip locked
    )
    update audit.subscription as s
    set pending = claim.pending, exporter = claim_batches.exporter
    from claim
    where s.name = claim.name
    returning s.name;
$$;
-- Definer: no role may write to the table itself.
comment on function audit_private.claim_batches is
    'Notes batches before they are sent. Returns the names of their subscriptions, without those '
    'that moved on or that another running exporter serves';

create or replace function audit_private.finish_batch(
    exporter int, name text, pending jsonb, delivered bigint
) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    update audit.subscription as s
    set tick_id = (s.pending ->> 'tick_id')::bigint, part = nullif(s.pending -> 'part', 'null'),
        counts = nullif(s.pending -> 'counts', 'null'),
        pending = null, exporter = null, delivered = s.delivered + finish_batch.delivered,
        problem = case when s.state = 'active' then null else s.problem end,
        problem_at = case when s.state = 'active' then null else s.problem_at end,
        served_at = now()
    where s.name = finish_batch.name and s.exporter = finish_batch.exporter
        and s.pending = finish_batch.pending;
    return found;
end
$$;
-- Definer: no role may write to the table itself.
comment on function audit_private.finish_batch is
    'Notes that the sink took a batch; false if the batch no longer belongs to this exporter';

create or replace function audit_private.leave_batch(
    exporter int, name text, problem text, failed boolean
) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    update audit.subscription as s
    set exporter = null, problem = left(leave_batch.problem, 1000), problem_at = now(),
        state = case when leave_batch.failed and s.state = 'active' then 'failed' else s.state end
    where s.name = leave_batch.name
        and (s.exporter is null or s.exporter = leave_batch.exporter
            or not audit_private.is_exporting(s.exporter));
    return found;
end
$$;
-- Definer: no role may write to the table itself.
comment on function audit_private.leave_batch is
    'Notes why a batch could not be sent; it stays pending. '
    'The subscription failed if a person must fix the cause';

-- claims: name, created_at, tick_id and part say where it stood; counts only with a threshold.
create or replace function audit_private.advance_subscriptions(claims jsonb, until bigint)
returns setof text
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    with idle as materialized (
        select s.name, c.counts
        from jsonb_to_recordset(advance_subscriptions.claims)
                as c (name text, created_at timestamptz, tick_id bigint, part jsonb, counts jsonb)
            join audit.subscription as s on (s.name, s.created_at) = (c.name, c.created_at)
        where s.state = 'active' and s.pending is null
            and s.tick_id = c.tick_id and coalesce(s.part, 'null') = coalesce(c.part, 'null')
            and s.tick_id <= advance_subscriptions.until
            and advance_subscriptions.until <= audit_private.last_tick()
        order by s.name
        for update of s skip locked
    )
    update audit.subscription as s
    set tick_id = advance_subscriptions.until, part = null, served_at = now(),
        counts = nullif(idle.counts, 'null'), problem = null, problem_at = null
    from idle
    where s.name = idle.name
    returning s.name;
$$;
-- Definer: no role may write to the table itself.
comment on function audit_private.advance_subscriptions is
    'Notes that ticks held no events for some subscriptions, and returns their names';

create or replace function audit_private.set_event_aside(
    exporter int, name text, tick_id bigint, event_id bigint, occurred_at timestamptz, problem text
) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    insert into audit_private.set_aside (subscription, tick_id, event_id, occurred_at, problem)
    select s.name, set_event_aside.tick_id, set_event_aside.event_id, set_event_aside.occurred_at,
        left(set_event_aside.problem, 1000)
    from audit.subscription as s
    where s.name = set_event_aside.name and s.exporter = set_event_aside.exporter
    on conflict do nothing;
$$;
-- Definer: no role may write to the table itself.
comment on function audit_private.set_event_aside is
    'Sets aside an event that a sink refuses, so that the others go on';

-- For streams that are late, because their sink failed or no exporter ran. The time of the next
-- tick shows which streams these are; it reads nothing else of the others.
create or replace function audit_private.skip_hidden_everywhere() returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
    with behind as materialized (
        select s.name, clock_timestamp() - v.keep as since
        from audit.visible_retention as v
            join audit.subscription as s on s.organization_id = v.organization_id
            join audit.tick as k on k.id = s.tick_id + 1
        where s.made_by is not null and s.state = 'active'
            and k.made_at < clock_timestamp() - v.keep
            and (s.exporter is null or not audit_private.is_exporting(s.exporter))
        order by s.name
        for update of s skip locked
    )
    update audit.subscription as s
    set tick_id = t.id, part = null, pending = null, counts = null, exporter = null
    from behind as b
        cross join lateral (
            select max(k.id) as id from audit.tick as k where k.made_at < b.since) as t
    where s.name = b.name and t.id > s.tick_id;
$$;
-- Definer: no role may write to the table itself.
comment on function audit_private.skip_hidden_everywhere is
    'For an exporter: moves late streams on to the first event that their viewers may still see';

-- Uses the same check of the clock as retention.
create or replace function audit_private.lapse_subscriptions() returns setof text
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    with lapsed as (
        update audit.subscription as s
        set state = 'lapsed', exporter = null
        where s.state <> 'lapsed' and (not audit_private.is_current(s)
            or now() - s.served_at > s.lapses_after and audit_private.is_clock_sane())
        returning s
    ), told as materialized (
        select (l.s).name, (l.s).served_at, audit_private.record_subscription(
            'subscription_changed', l.s, null, '{"state": "lapsed"}')
        from lapsed as l
    )
    select format('subscription %s lapsed: not served since %s', t.name,
        to_char(t.served_at, 'YYYY-MM-DD HH24:MI'))
    from told as t
    order by t.name;
$$;
comment on function audit_private.lapse_subscriptions is
    'Marks subscriptions as lapsed that nobody served for long, so that retention can go on';
