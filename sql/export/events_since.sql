-- Reading by ticks: every committed event once, in order, from a cursor on. As an auditor, or as a
-- viewer with a token, to whom row-level security shows the events of their organisation.

-- It names the series, the tick, and the place in it of the last event that was given.
create or replace function audit_private.tick_cursor(
    key uuid, tick_id bigint, occurred_at timestamptz, id bigint
) returns text
language sql stable set search_path = pg_catalog, pg_temp set timezone = 'UTC'
    set datestyle = 'ISO'
return translate(encode(convert_to(
    format('1|%s|%s|%s|%s', key, tick_id, occurred_at, id), 'UTF8'), 'base64'),
    '+/=' || chr(10), '-_');
comment on function audit_private.tick_cursor is
    'The cursor of a place in the log; callers look at none of its parts';

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
    'The place in the log that a cursor means; raises if it is none';

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
    'The cursor of the end of the last tick; null where there is none';

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
        raise exception 'the cursor is of tick % of series %, which this database does not know',
                refuse_unknown_tick.tick_id, refuse_unknown_tick.key
            using errcode = 'object_not_in_prerequisite_state', detail = coalesce(
                'Of that series it knows the ticks up to ' || _last || '.',
                'It knows no tick of that series.'),
                hint = 'It was restored to an earlier moment, or is another. Events that were read '
                    'from the former one may be gone from here; read again from null on, or on '
                    'from the last tick that is known.';
    end if;
end
$$;
comment on function audit_private.refuse_unknown_tick is
    'Raises where a cursor is of a tick that was lost: by a promotion or a recovery';

-- Definer, since nobody but an auditor reads ticks: how many events others have is no viewer's
-- business. What is not committed yet is nobody's: a crash could take it, and use its number again.
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
        raise exception 'who reads is not known, or may not read this log'
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
    'The ticks from a cursor on, month by month: what an event e fulfils that is of each; for '
    'audit.events_since';

-- Writers that work together fill blocks of their own each, so that in the order of time each event
-- is in another block than the one before. So few events are looked up by block, and sorted then;
-- many are read in their order, as far as the batch goes. The caller sets enable_indexscan itself.
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
    'What a query reads that wants events of a tick, of which there are so many; and how';

create or replace function audit_private.filter_condition(organization_id text, actions text[])
returns text
language sql immutable set search_path = pg_catalog, pg_temp
return concat(
    ' and e.organization_id = ' || quote_literal(filter_condition.organization_id),
    case when filter_condition.actions is not null then
        format(' and (e.action = any (%1$L) or split_part(e.action, ''.'', 1) = any (%1$L))',
            filter_condition.actions) end);
comment on function audit_private.filter_condition is
    'What an event e fulfils that is of an organisation, and of some actions or categories';

-- By the role that runs, as row-level security goes: an auditor's own, else the token's.
create or replace function audit_private.refuse_reading() returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    if not pg_has_role(current_user, 'audit_auditor', 'usage')
        and audit.viewer_organization() is null
    then
        raise exception 'who reads is not known, or may not read this log'
            using errcode = 'insufficient_privilege',
                hint = 'Set auditdb.viewer to a token, or be a member of audit_auditor.';
    end if;
end
$$;
comment on function audit_private.refuse_reading is
    'Raises where row-level security would show no event: nobody is to take that for an empty log';

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
    'Raises where so many events, or under this isolation, cannot be read';

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
    -- Before the snapshots that read: what is moved out of DEFAULT is where it was, or where it is.
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
    -- A token that ended meanwhile has hidden what was there.
    perform audit_private.refuse_reading();
    event := null;
    cursor := _cursor;
    is_more := _left = 0 or _parts = _most_parts;
    return next;
end
$$;
comment on function audit.events_since is
    'The events after a cursor, tick by tick, then by time and id: every committed one once. Null '
    'is the beginning of the log, now its end. Of one organisation, of some actions or '
    'categories, if they are given. The last row has no event: its cursor is where to go on, '
    'is_more whether at once. Makes a tick if the last is a second old, to be read after the '
    'commit';
