-- Streams: subscriptions that the admins of an organisation make of its own events, with their
-- token and within limits. Each change of a stream is an event of that organisation. Exporters that
-- know the secret of streams serve them, and connect to no internal address.

create or replace function audit_private.first_id_of(organization_id text) returns bigint
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(max(s.first_id), 0) from audit_private.organization_start as s
    where s.organization_id = first_id_of.organization_id);
comment on function audit_private.first_id_of is
    'Id of the first event of the organisation that has an identifier now; see '
    'audit_private.viewer_start';

create or replace function audit_private.is_current(subscription audit.subscription)
returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return subscription.made_by is null
    or subscription.start_id = audit_private.first_id_of(subscription.organization_id);
comment on function audit_private.is_current is
    'Whether the organisation of a stream is the one that has the identifier now, not a former '
    'one; true for other subscriptions';

create or replace function audit_private.viewing() returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _viewer text[] := audit_private.read_token();
begin
    if audit.viewer_organization() = _viewer[2] then
        return _viewer;
    end if;
    raise exception 'the viewer is unknown, or may not read this log'
        using errcode = 'insufficient_privilege',
            hint = 'Set auditdb.viewer to the token of an admin.';
end
$$;
comment on function audit_private.viewing is
    'The user and the organisation of the viewer token; raises if the user may not read its log';

create or replace function audit_private.own_stream(name text, organization_id text)
returns audit.subscription
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _found audit.subscription;
begin
    select * into _found from audit.subscription as s
    where s.name = own_stream.name and s.organization_id = own_stream.organization_id
        and s.made_by is not null and audit_private.is_current(s)
    for update;
    if not found then
        raise exception 'the stream does not exist' using errcode = 'undefined_object',
            hint = 'select * from audit.list_streams() lists the streams.';
    end if;
    return _found;
end
$$;
comment on function audit_private.own_stream is
    'The stream of a name and an organisation, locked; raises if it does not exist. Streams of '
    'other organisations make no difference';

-- Allows a host name, but no numeric address:
-- the exporter checks where the name leads each time it connects.
create or replace function audit_private.check_stream(sink text, format text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
    if check_stream.sink is null or check_stream.sink !~* (
        '^https://([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])+[a-z]([a-z0-9-]{0,61}[a-z0-9])?'
        '(:(443|8443))?(/[a-z0-9._~!$&''()*+,;=:%/-]*)?$')
        or length(check_stream.sink) > 500
    then
        raise exception 'a stream needs a sink https://name/path of at most 500 characters'
            using errcode = 'invalid_parameter_value', hint = 'Give the name of a host, port 443 '
                'or 8443, and no ? or #.';
    elsif check_stream.format is null
        or check_stream.format not in ('jsonl', 'ocsf', 'cloudevents')
    then
        raise exception 'format is %', quote_nullable(check_stream.format)
            using errcode = 'invalid_parameter_value',
                hint = 'It must be one of jsonl, ocsf, cloudevents.';
    end if;
end
$$;
comment on function audit_private.check_stream is
    'Raises if the address or the format of a stream is invalid';

create or replace function audit.create_stream(sink text, format text default 'jsonl')
returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _most constant int := 5;
    _viewer text[] := audit_private.viewing();
    _made audit.subscription;
begin
    perform audit_private.check_stream(sink, format);
    perform audit_private.count_recording();
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise exception 'streams cannot be made under %', current_setting('transaction_isolation')
            using errcode = 'invalid_transaction_state',
                hint = 'Streams made meanwhile would not be counted. Use read committed.';
    end if;
    -- Without this lock, concurrent calls would not count each other's streams.
    perform pg_advisory_xact_lock(hashtextextended('auditdb streams ' || _viewer[2], 0));
    if (select count(*) from audit.subscription as s
        where s.organization_id = _viewer[2] and s.made_by is not null
            and audit_private.is_current(s)) >= _most
    then
        raise exception 'an organisation has at most % streams', _most
            using errcode = 'configuration_limit_exceeded', hint = 'Drop one of them first.';
    end if;
    insert into audit.subscription (
        name, organization_id, sink, format, options, tick_id, made_by, start_id
    ) values (
        'stream-' || replace(gen_random_uuid()::text, '-', ''), _viewer[2], create_stream.sink,
        create_stream.format, '{"timeout": 10, "array": true, "compression": "none"}',
        audit_private.end_of_log(), _viewer[1], audit_private.first_id_of(_viewer[2])
    ) returning * into _made;
    perform audit_private.record_subscription('subscription_created', _made, null,
        jsonb_build_object('sink', _made.sink, 'format', _made.format), _viewer[1]);
    return _made.name;
end
$$;
-- Definer: readers hold no privilege on the table itself. The token decides the organisation.
comment on function audit.create_stream is
    'For a viewer: makes a stream, which sends the events of their organisation to an https '
    'address from now on. An organisation has at most five. Returns the name of the stream';

-- Viewers must not learn how many events there are, or who else has streams.
create or replace function audit.list_streams()
returns table (
    name text, sink text, format text, state text, problem text, problem_at timestamptz,
    delivered bigint, set_aside bigint, has_missed boolean, lag_seconds double precision,
    served_at timestamptz, lapses_at timestamptz, created_at timestamptz, made_by text
)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select s.name, s.sink, s.format, s.state, s.problem, s.problem_at, s.delivered,
        (select count(*) from audit_private.set_aside as a where a.subscription = s.name),
        s.missed > 0,
        coalesce((select extract(epoch from now() - min(k.made_at)) from audit.tick as k
            where k.id > s.tick_id), 0)::double precision,
        s.served_at, s.served_at + s.lapses_after, s.created_at, s.made_by
    from (select audit_private.viewing() as viewer offset 0) as v
        join audit.subscription as s on s.organization_id = v.viewer[2]
    where s.made_by is not null and audit_private.is_current(s)
    order by s.created_at, s.name;
$$;
-- Definer: readers hold no privilege on the table itself.
comment on function audit.list_streams is
    'For a viewer: the streams of their organisation, with the progress and problems of each';

create or replace function audit.pause_stream(name text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _viewer text[] := audit_private.viewing();
begin
    perform audit_private.pause(
        audit_private.own_stream(pause_stream.name, _viewer[2]), _viewer[1]);
end
$$;
-- Definer: readers hold no privilege on the table itself.
comment on function audit.pause_stream is
    'For a viewer: pauses a stream: nothing is sent until audit.resume_stream is called';

create or replace function audit_private.skip_hidden(name text) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    update audit.subscription as s
    set tick_id = t.id, part = null, pending = null, counts = null, exporter = null
    from (
        select max(k.id) as id from audit.tick as k
        where k.made_at < (select (audit_private.visible_since())[1])
    ) as t
    where s.name = skip_hidden.name and t.id > s.tick_id;
$$;
comment on function audit_private.skip_hidden is
    'Moves a stream on to the first tick that its viewer may see';

create or replace function audit.resume_stream(name text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _viewer text[] := audit_private.viewing();
begin
    perform audit_private.resume(
        audit_private.own_stream(resume_stream.name, _viewer[2]), _viewer[1]);
    -- Without this, a pause would preserve events that have become too old to be seen.
    perform audit_private.skip_hidden(resume_stream.name);
end
$$;
-- Definer: readers hold no privilege on the table itself.
comment on function audit.resume_stream is
    'For a viewer: resumes a stream where it stopped, or at the first event that they may see';

create or replace function audit.drop_stream(name text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _viewer text[] := audit_private.viewing();
begin
    perform audit_private.drop(
        audit_private.own_stream(drop_stream.name, _viewer[2]), _viewer[1]);
end
$$;
-- Definer: readers hold no privilege on the table itself.
comment on function audit.drop_stream is
    'For a viewer: ends and removes a stream';
