-- Reading by ticks: every committed event once, in order, after a cursor. An auditor reads all;
-- row-level security shows a viewer with a token the events of their organisation.

-- A cursor names the series, the tick, and the place of the last returned event in it.
create or replace function audit_private.tick_cursor(
    key uuid, tick_id bigint, occurred_at timestamptz, id bigint
) returns text
language sql stable set search_path = pg_catalog, pg_temp set timezone = 'UTC'
    set datestyle = 'ISO'
return translate(encode(convert_to(
    format('1|%s|%s|%s|%s', key, tick_id, occurred_at, id), 'UTF8'), 'base64'),
    '+/=' || chr(10), '-_');
comment on function audit_private.tick_cursor is
    'The cursor of a place in the log; its format may change, so callers must not parse it';

create or replace function audit_private.read_tick_cursor(
    cursor text, out key uuid, out tick_id bigint, out occurred_at timestamptz, out id bigint
)
language plpgsql stable set search_path = pg_catalog, pg_temp set timezone = 'UTC'
    set datestyle = 'ISO'
as $$
declare
    _parts text[];
begin
    if length(read_tick_cursor.cursor) > 300 then
        raise exception using errcode = 'invalid_text_representation';
    end if;
    _parts := string_to_array(audit_private.from_base64url(read_tick_cursor.cursor), '|');
    if cardinality(_parts) <> 5 or _parts[1] <> '1' then
        raise exception using errcode = 'invalid_text_representation';
    end if;
    key := _parts[2];
    tick_id := _parts[3];
    occurred_at := _parts[4];
    id := _parts[5];
exception when data_exception then
    raise exception '"%" is no cursor', left(read_tick_cursor.cursor, 40)
        using errcode = 'invalid_parameter_value',
            hint = 'Give the cursor of a former call, null for the beginning of the log, or now.';
end
$$;
comment on function audit_private.read_tick_cursor is
    'The place in the log that a cursor names; raises if the cursor is invalid';

create or replace function audit_private.last_cursor() returns text
language sql stable security definer set search_path = pg_catalog, pg_temp set row_security = on
return (
    select audit_private.tick_cursor(s.key, m.tick_id, m.last_at, m.last_id)
    from audit.tick as t
        join audit.series as s on s.id = t.series_id
        join audit.tick_month as m on m.tick_id = t.id
    where t.transaction_id is distinct from pg_current_xact_id_if_assigned()
    order by t.id desc, m.month desc
    limit 1
);
-- Definer: only auditors may read ticks.
comment on function audit_private.last_cursor is
    'The cursor of the end of the last tick; null if there is none';

create or replace function audit_private.refuse_unknown_tick(key uuid, tick_id bigint) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _series audit.series;
    _last bigint;
begin
    select * into _series from audit.series as s where s.key = refuse_unknown_tick.key;
    select max(t.id) into _last from audit.tick as t where t.series_id = _series.id;
    if not exists (
        select from audit.tick as t
        where t.id = refuse_unknown_tick.tick_id and t.series_id = _series.id)
    then
        raise exception 'the cursor names tick % of series %, which this database does not know',
                refuse_unknown_tick.tick_id, refuse_unknown_tick.key
            using errcode = 'object_not_in_prerequisite_state', detail = coalesce(
                'It knows the ticks of that series up to ' || _last || '.',
                'It knows no tick of that series.'),
                hint = 'It was restored to an earlier moment, or is another one. Events that were '
                    'read before may be missing here. '
                    'Read again from null on, or from the last known tick on.';
    end if;
end
$$;
comment on function audit_private.refuse_unknown_tick is
    'Raises if the tick of a cursor is unknown, as after a promotion or a recovery that lost it';

-- Definer: only auditors may read ticks, because counts would tell viewers of the events of others.
-- Uncommitted ticks are skipped: a crash could lose one, and its number would be used again.
create or replace function audit_private.tick_parts(cursor text, at_most int)
returns table (tick_id bigint, series_id int, key uuid, last_at timestamptz, last_id bigint,
    events bigint, condition text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
#variable_conflict use_column
declare
    _from record;
begin
    if audit.viewer_organization() is null
        and not pg_has_role(session_user, 'audit_auditor', 'member')
    then
        raise exception 'the viewer is unknown, or may not read this log'
            using errcode = 'insufficient_privilege',
                hint = 'Set auditdb.viewer to a token, or be a member of audit_auditor.';
    end if;
    if tick_parts.cursor is not null then
        _from := audit_private.read_tick_cursor(tick_parts.cursor);
        perform audit_private.refuse_unknown_tick(_from.key, _from.tick_id);
    else
        select null::uuid as key, 0::bigint as tick_id, '-infinity'::timestamptz as occurred_at,
            0::bigint as id into _from;
    end if;
    return query
    select t.id, t.series_id, s.key, m.last_at, m.last_id, m.events,
        format('e.occurred_at >= %L and e.occurred_at <= %L and e.id >= %s and e.id <= %s and (%s)'
                '%s',
            m.first_at, m.last_at, m.first_id, m.last_id,
            audit_private.tick_condition(t, f),
            case when t.id = _from.tick_id and m.first_at <= _from.occurred_at
                then format(' and (e.occurred_at, e.id) > (%L, %s)', _from.occurred_at, _from.id)
                end)
    from audit.tick as t
        join audit.series as s on s.id = t.series_id
        join audit.tick_month as m on m.tick_id = t.id
        left join audit.tick as f on f.id = t.id - 1
    where t.id >= _from.tick_id
        and (t.id > _from.tick_id or (m.last_at, m.last_id) > (_from.occurred_at, _from.id))
        and t.transaction_id is distinct from pg_current_xact_id_if_assigned()
    order by t.id, m.month
    limit tick_parts.at_most;
end
$$;
comment on function audit_private.tick_parts is
    'The ticks after a cursor, month by month: for each, the condition that an event e in it '
    'meets; for audit.events_since';

-- Concurrent writers fill different blocks, so that two events next to each other in time are in
-- different blocks. A few events are therefore fetched by block and sorted. Many events are read in
-- the order of the index, until the batch is full. The caller sets enable_indexscan.
create or replace function audit_private.part_events(condition text, events bigint) returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if part_events.events > 10000 then
        perform set_config('enable_indexscan', 'on', true);
        return format('audit.event as e where %s', part_events.condition);
    end if;
    perform set_config('enable_indexscan', 'off', true);
    return format('(select e.* from audit.event as e where %s offset 0) as e',
        part_events.condition);
end
$$;
comment on function audit_private.part_events is
    'The FROM and WHERE of a query for events of a tick, by the faster plan for their number';

create or replace function audit_private.filter_condition(organization_id text, actions text[])
returns text
language sql immutable set search_path = pg_catalog, pg_temp
return concat(
    ' and e.organization_id = ' || quote_literal(filter_condition.organization_id),
    case when filter_condition.actions is not null then
        format(' and (e.action = any (%1$L) or split_part(e.action, ''.'', 1) = any (%1$L))',
            filter_condition.actions) end);
comment on function audit_private.filter_condition is
    'The condition on an event e for one organisation, and for some actions or categories';

-- By the role in force, as row-level security decides: an auditor needs no token.
create or replace function audit_private.refuse_reading() returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    if not pg_has_role(current_user, 'audit_auditor', 'usage')
        and audit.viewer_organization() is null
    then
        raise exception 'the viewer is unknown, or may not read this log'
            using errcode = 'insufficient_privilege',
                hint = 'Set auditdb.viewer to a token, or be a member of audit_auditor.';
    end if;
end
$$;
comment on function audit_private.refuse_reading is
    'Raises if row-level security would hide every event, which would look like an empty log';

create or replace function audit_private.refuse_batch(at_most int) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    if at_most is null or at_most not between 1 and 100000 then
        raise exception 'cannot read % events at once', at_most
            using errcode = 'invalid_parameter_value', hint = 'Give a number from 1 to 100000.';
    elsif current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise exception 'ticks cannot be read under %', current_setting('transaction_isolation')
            using errcode = 'invalid_transaction_state', hint = 'Events that maintenance moves '
                'meanwhile would be missed. Use read committed.';
    end if;
end
$$;
comment on function audit_private.refuse_batch is
    'Raises if the number of events or the isolation level is invalid for reading';

create or replace function audit.events_since(
    after text default null,
    at_most int default 1000,
    organization_id text default null,
    actions text[] default null
) returns table (series_id int, tick_id bigint, event audit.event, cursor text, is_more boolean)
language plpgsql volatile
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO'
set enable_indexscan = on
as $$
#variable_conflict use_variable
declare
    _most_parts constant int := 500;
    _part record;
    _left int := at_most;
    _parts int := 0;
    _cursor text;
begin
    perform audit_private.refuse_batch(at_most);
    perform audit_private.refuse_reading();
    perform audit_private.try_tick();
    -- Before the snapshots that read: an event that is moved out of DEFAULT is then found either
    -- there or in its month, and never missed.
    lock table audit.event in access share mode;
    _cursor := case when after = 'now' then audit_private.last_cursor() else after end;
    for _part in select * from audit_private.tick_parts(_cursor, _most_parts) loop
        series_id := _part.series_id;
        tick_id := _part.tick_id;
        for event in execute format('select e.* from %s order by e.occurred_at, e.id limit %s',
            audit_private.part_events(_part.condition || audit_private.filter_condition(
                organization_id, actions), _part.events), _left)
        loop
            _left := _left - 1;
            return next;
        end loop;
        _parts := _parts + 1;
        _cursor := case when _left = 0
            then audit_private.tick_cursor(_part.key, tick_id, event.occurred_at, event.id)
            else audit_private.tick_cursor(_part.key, tick_id, _part.last_at, _part.last_id) end;
        exit when _left = 0;
    end loop;
    -- If the token expired meanwhile, rows were hidden.
    perform audit_private.refuse_reading();
    event := null;
    cursor := _cursor;
    is_more := _left = 0 or _parts = _most_parts;
    return next;
end
$$;
comment on function audit.events_since is
    'The committed events after a cursor, each once: in the order of ticks, then of time and id. '
    'The cursor null is the beginning of the log, now its end. Optionally only those of one '
    'organisation, or of some actions or categories. The last row has no event: its cursor is '
    'where to continue, and is_more says whether more can be read at once. Makes a tick if the '
    'last one is a second old; its events can be read after the commit';
