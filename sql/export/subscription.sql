-- Subscriptions: auditors, who read every event, make them; operators may pause, resume and drop
-- them. The log itself records which sink gets which events.

create or replace function audit_private.check_subscription(
    name text, sink text, format text, options jsonb, lapses_after interval
) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _problem text := case
        when check_subscription.name is null
            or check_subscription.name !~ '^[a-z0-9][a-z0-9_-]{0,62}$'
            then 'the name of a subscription has a-z, 0-9, - and _, and is at most 63 long'
        when check_subscription.sink is null or check_subscription.sink ~ '[[:cntrl:]]'
            or length(check_subscription.sink) > 1000
            then 'a sink is an address of at most 1000 characters'
        when check_subscription.sink ~ '[@?#]'
            then 'the address of a sink holds no user, password or token: @, ? and # are refused'
        when check_subscription.format is null
            or check_subscription.format not in ('jsonl', 'ocsf', 'cloudevents', 'csv')
            then format('format is %L; it is one of jsonl, ocsf, cloudevents, csv',
                check_subscription.format)
        when check_subscription.options is null
            or jsonb_typeof(check_subscription.options) <> 'object'
            then 'options are an object'
        when check_subscription.lapses_after is null
            or check_subscription.lapses_after < interval '1 hour'
            then 'a subscription lapses after an hour or more'
        end;
begin
    if _problem is not null then
        raise exception '%', _problem using errcode = 'invalid_parameter_value';
    end if;
end
$$;
comment on function audit_private.check_subscription is
    'Raises, with a message of one line, if a setting of a subscription is invalid';

create or replace function audit.subscribe(
    name text,
    sink text,
    format text default 'jsonl',
    organization_id text default null,
    actions text[] default null,
    categories text[] default null,
    results text[] default null,
    options jsonb default '{}',
    lapses_after interval default '30 days',
    from_now boolean default false,
    conditions text[] default null,
    at_least int default null,
    within interval default null,
    per text default null
) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _made audit.subscription;
begin
    perform audit_private.check_subscription(name, sink, format, options, lapses_after);
    perform audit_private.check_conditions(conditions, at_least, within, per);
    insert into audit.subscription (
        name, organization_id, actions, categories, results, conditions, at_least, within, per,
        sink, format, options, lapses_after, tick_id
    ) values (
        subscribe.name, subscribe.organization_id, subscribe.actions, subscribe.categories,
        subscribe.results, subscribe.conditions, subscribe.at_least, subscribe.within,
        subscribe.per, subscribe.sink, subscribe.format, subscribe.options, subscribe.lapses_after,
        case when subscribe.from_now then audit_private.end_of_log()
            else audit_private.first_tick() - 1 end
    ) returning * into _made;
    perform audit_private.record_subscription('subscription_created', _made, null,
        jsonb_build_object('sink', _made.sink, 'format', _made.format, 'filter',
            audit_private.filter_of(_made)));
exception when unique_violation then
    raise exception 'subscription % exists already', subscribe.name
        using errcode = 'duplicate_object', hint = 'auditdb subscription list shows it.';
end
$$;
-- Definer: no role may write to the table itself.
comment on function audit.subscribe is
    'Makes a subscription that starts at the first stored event, or now';

create or replace function audit_private.filter_of(subscription audit.subscription) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return jsonb_strip_nulls(jsonb_build_object('organization_id', subscription.organization_id,
    'actions', subscription.actions, 'categories', subscription.categories,
    'results', subscription.results, 'conditions', subscription.conditions,
    'at_least', subscription.at_least, 'within', subscription.within, 'per', subscription.per));
comment on function audit_private.filter_of is
    'The filters of a subscription, without those that let every event pass';

create or replace function audit_private.last_tick() returns bigint
language sql stable set search_path = pg_catalog, pg_temp
return (select coalesce(max(id), 0) from audit.tick);
comment on function audit_private.last_tick is
    'Number of the last tick; 0 if there is none';

-- Makes a tick first: otherwise all events since the last tick would count as new.
create or replace function audit_private.end_of_log() returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    perform audit_private.try_tick();
    return audit_private.last_tick();
end
$$;
comment on function audit_private.end_of_log is
    'Number of the last tick. Makes one first, if that is possible and the last is a second old';

create or replace function audit_private.first_tick() returns bigint
language sql stable set search_path = pg_catalog, pg_temp
return (select coalesce(min(id), 1) from audit.tick);
comment on function audit_private.first_tick is
    'Number of the first tick; 1 if there is none';

create or replace function audit_private.find_subscription(name text) returns audit.subscription
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _found audit.subscription;
begin
    select * into _found from audit.subscription as s where s.name = find_subscription.name
    for update;
    if not found then
        raise exception 'there is no subscription %', find_subscription.name
            using errcode = 'undefined_object', hint = 'auditdb subscription list shows all.';
    end if;
    return _found;
end
$$;
comment on function audit_private.find_subscription is
    'The subscription of a name, locked; raises if it does not exist';

-- An organisation sees every change of its streams, whoever makes it.
create or replace function audit_private.record_subscription(
    verb text, subscription audit.subscription, old_values jsonb, new_values jsonb,
    viewer text default null
) returns void
language sql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
    select audit_private.take_transaction_id();
    insert into audit.event (
        action, result, actor_id, actor_type, impersonator_id, source, organization_id,
        target_type, target_id, old_values, new_values
    )
    select 'audit.' || record_subscription.verb, 'success',
        coalesce(record_subscription.viewer, a.actor_id, session_user),
        case when record_subscription.viewer is null then a.actor_type else 'user' end,
        case when record_subscription.viewer is null then a.impersonator_id end,
        case when record_subscription.viewer is null then 'system' else 'web' end,
        case when subscription.made_by is not null and audit_private.is_current(subscription)
            then subscription.organization_id end,
        'audit', subscription.name, record_subscription.old_values,
        record_subscription.new_values
    from audit_private.acting(audit_private.context_in_force()) as a;
$$;
comment on function audit_private.record_subscription is
    'Records a change of a subscription, made by the viewer of a token '
    'or by the actor of the context';

create or replace function audit_private.pause(subscription audit.subscription, viewer text)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if subscription.state = 'paused' then
        return;
    end if;
    update audit.subscription as s set state = 'paused' where s.name = subscription.name;
    perform audit_private.record_subscription('subscription_changed', subscription,
        jsonb_build_object('state', subscription.state), '{"state": "paused"}', viewer);
end
$$;
comment on function audit_private.pause is
    'Pauses a subscription, for audit.pause_subscription and audit.pause_stream';

create or replace function audit.pause_subscription(name text) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select audit_private.pause(audit_private.find_subscription(pause_subscription.name), null);
$$;
-- Definer: no role may write to the table itself.
comment on function audit.pause_subscription is
    'Pauses a subscription: nothing is sent until it is resumed; retention still waits for it';

create or replace function audit_private.resume(subscription audit.subscription, viewer text)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if not audit_private.is_current(subscription) then
        raise exception 'the organisation of % is gone, and another one has its identifier',
                subscription.name
            using errcode = 'object_not_in_prerequisite_state',
                hint = format('auditdb subscription drop %s', subscription.name);
    end if;
    update audit.subscription as s
    set state = 'active', problem = null, problem_at = null, missed = 0, served_at = now()
    where s.name = subscription.name;
    perform audit_private.record_subscription('subscription_changed', subscription,
        jsonb_build_object('state', subscription.state), '{"state": "active"}', viewer);
end
$$;
comment on function audit_private.resume is
    'Resumes a subscription, for audit.resume_subscription and audit.resume_stream';

create or replace function audit.resume_subscription(name text) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select audit_private.resume(audit_private.find_subscription(resume_subscription.name), null);
$$;
-- Definer: no role may write to the table itself.
comment on function audit.resume_subscription is
    'Resumes a subscription where it stopped: after a pause, after it lapsed, or after the cause '
    'of a failure was fixed. Also confirms that missed events are known';

create or replace function audit.reset_subscription(name text, from_now boolean default false)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _was audit.subscription := audit_private.find_subscription(name);
    _tick bigint := case when reset_subscription.from_now then audit_private.end_of_log()
        else audit_private.first_tick() - 1 end;
begin
    update audit.subscription as s
    set tick_id = _tick, part = null, pending = null, counts = null, exporter = null,
        problem = null, problem_at = null, missed = 0, served_at = now(), state = 'active'
    where s.name = reset_subscription.name;
    delete from audit_private.set_aside as a where a.subscription = reset_subscription.name;
    perform audit_private.record_subscription('subscription_changed', _was,
        jsonb_build_object('tick_id', _was.tick_id), jsonb_build_object('tick_id', _tick));
end
$$;
-- Definer: no role may write to the table itself.
comment on function audit.reset_subscription is
    'Starts a subscription again: at the first stored event, so that all are sent again, or now';

create or replace function audit_private.drop(subscription audit.subscription, viewer text)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    delete from audit.subscription as s where s.name = subscription.name;
    perform audit_private.record_subscription('subscription_dropped', subscription,
        jsonb_build_object('sink', subscription.sink, 'delivered', subscription.delivered), null,
        viewer);
end
$$;
comment on function audit_private.drop is
    'Drops a subscription, for audit.drop_subscription and audit.drop_stream';

create or replace function audit.drop_subscription(name text) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select audit_private.drop(audit_private.find_subscription(drop_subscription.name), null);
$$;
-- Definer: no role may write to the table itself.
comment on function audit.drop_subscription is
    'Drops a subscription; retention no longer waits for it';

-- Events without a tick show only in the age, which is at least that of the last tick.
create or replace function audit.list_subscriptions()
returns table (
    name text, sink text, format text, organization_id text, actions text[], categories text[],
    results text[], conditions text[], at_least int, within interval, per text, options jsonb,
    state text, problem text, problem_at timestamptz,
    delivered bigint, lag_events bigint, lag_seconds double precision, set_aside bigint,
    missed bigint, tick_id bigint, served_at timestamptz, lapses_at timestamptz,
    created_at timestamptz, created_by text,
    made_by text
)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    -- One pass for all subscriptions: tick numbers have no gaps.
    with ahead as materialized (
        select k.id, sum(k.events) over w as events, min(k.made_at) over w as since
        from audit.tick as k
        where k.id > (select min(l.tick_id) from audit.subscription as l)
        window w as (order by k.id desc)
    )
    select s.name, s.sink, s.format, s.organization_id, s.actions, s.categories, s.results,
        s.conditions, s.at_least, s.within, s.per, s.options,
        s.state, s.problem, s.problem_at, s.delivered,
        coalesce(t.events, 0)::bigint,
        coalesce(extract(epoch from now() - t.since), 0)::double precision,
        (select count(*) from audit_private.set_aside as a where a.subscription = s.name),
        s.missed, s.tick_id, s.served_at, s.served_at + s.lapses_after, s.created_at, s.created_by,
        s.made_by
    from audit.subscription as s
        left join ahead as t on t.id = s.tick_id + 1
    order by s.name;
$$;
-- Definer: counts ticks and what was set aside, which operators may not read.
comment on function audit.list_subscriptions is
    'The subscriptions, with the progress and problems of each. The lag counts all events that a '
    'subscription has not looked at yet, including those that its filters will reject';

create or replace function audit.list_set_aside(subscription text default null)
returns table (
    subscription text, tick_id bigint, event_id bigint, occurred_at timestamptz,
    set_aside_at timestamptz, problem text
)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select a.subscription, a.tick_id, a.event_id, a.occurred_at, a.set_aside_at, a.problem
    from audit_private.set_aside as a
    where a.subscription = coalesce(list_set_aside.subscription, a.subscription)
    order by 1, 2, 3;
$$;
-- Definer: nobody holds a privilege on the table itself.
comment on function audit.list_set_aside is
    'The events that a sink refused, each with its answer';
