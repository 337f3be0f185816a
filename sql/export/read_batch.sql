-- Reading for exporters: events between two places, in the order of ticks, as canonical bytes.

-- A place is the last tick that was read to its end, and perhaps a part of the next tick.
create or replace function audit_private.place_cursor(tick_id bigint, part jsonb) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO'
as $$
declare
    _tick bigint := coalesce((place_cursor.part ->> 'tick')::bigint, place_cursor.tick_id);
    _key uuid := (
        select s.key from audit.tick as t join audit.series as s on s.id = t.series_id
        where t.id = _tick);
begin
    if _tick > audit_private.last_tick() then
        raise exception 'tick % was delivered, but this database knows ticks only up to %', _tick,
                audit_private.last_tick()
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'It was restored to an earlier moment, or is another one. Compare with the '
                    'sink, then: auditdb subscription reset NAME --to now, or start.';
    elsif _key is null then
        return null;
    end if;
    return audit_private.tick_cursor(_key, _tick,
        coalesce((place_cursor.part ->> 'at')::timestamptz, 'infinity'),
        coalesce((place_cursor.part ->> 'id')::bigint, 9223372036854775807));
end
$$;
-- Definer: it reads ticks, but returns only a place that the caller knows.
comment on function audit_private.place_cursor is
    'The cursor of a place; null before the first tick';

-- At most 500, unless all are wanted. is_end marks the last part of a tick.
create or replace function audit_private.parts_between(
    after_tick bigint, after_part jsonb, until_tick bigint, until_part jsonb, is_whole boolean
) returns table (
    tick_id bigint, series_id int, key uuid, last_at timestamptz, last_id bigint, events bigint,
    condition text, is_end boolean
)
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    with part as materialized (
        select p.*, row_number() over w as n,
            lead(p.tick_id) over w is distinct from p.tick_id as is_end
        from audit_private.tick_parts(
            audit_private.place_cursor(parts_between.after_tick, parts_between.after_part),
            case when parts_between.is_whole then (
                select count(*)::int + 1 from audit.tick_month as m
                where m.tick_id >= parts_between.after_tick
                    and m.tick_id <= parts_between.until_tick + 1)
            else 501 end) as p
        window w as (order by p.tick_id, p.last_at)
    )
    select p.tick_id, p.series_id, p.key, p.last_at, p.last_id, p.events, p.condition,
        p.is_end
    from part as p
    where (parts_between.is_whole or p.n <= 500)
        and p.tick_id <= coalesce(
            (parts_between.until_part ->> 'tick')::bigint, parts_between.until_tick)
    order by p.n;
$$;
comment on function audit_private.parts_between is
    'The parts of ticks between two places, month by month';

-- An event that is too long for a value as text must not stop the events after it.
create or replace function audit_private.line_of(event audit.event, series uuid, most bigint)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _line text;
begin
    if pg_column_size(event.old_values) < 65536 is not false
        and pg_column_size(event.new_values) < 65536 is not false
        and pg_column_size(event.details) < 65536 is not false
    then
        return audit.canonical(event, series);
    end if;
    begin
        _line := audit.canonical(event, series);
    exception when program_limit_exceeded or out_of_memory then
        return null;
    end;
    return case when octet_length(_line) <= most then _line end;
end
$$;
comment on function audit_private.line_of is
    'The canonical bytes of an event; null if they are too long for an exporter';

create or replace function audit_private.part_query(
    key uuid, condition text, events bigint, organizations text[], until jsonb, at_most bigint
) returns text
language sql volatile set search_path = pg_catalog, pg_temp
return format('select e.id, e.occurred_at::text as at, e.organization_id, e.action, e.result, '
    'audit_private.line_of(e, %L, 268435456) as line from %s order by e.occurred_at, e.id limit %s',
    key,
    audit_private.part_events(concat(condition,
        ' and e.organization_id = any (' || quote_literal(organizations::text) || ')',
        case when until is not null then format(' and (e.occurred_at, e.id) <= (%L, %s)',
            until ->> 'at', (until ->> 'id')::bigint) end), events),
    at_most);
comment on function audit_private.part_query is
    'The query for the events of a part of a tick, which lie in one month';

-- The last row has no event. tick_id, at and id say where the batch ended; is_end, whether at the
-- end of that tick; is_more, whether there were more than at_most events, or 16 MB.
create or replace function audit_private.read_batch(
    after_tick bigint, after_part jsonb, until_tick bigint, until_part jsonb, organizations text[],
    at_most int
) returns table (
    tick_id bigint, series_id int, series_key uuid, id bigint, at text, organization_id text,
    action text, result text, line text, is_end boolean, is_more boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO'
set enable_indexscan = on
as $$
#variable_conflict use_variable
declare
    _part record;
    _series_id int;
    _key uuid;
    _left bigint := coalesce(at_most, 9223372036854775807);
    _bytes bigint := case when at_most is null then -9223372036854775807 else 0 end;
begin
    -- Before the snapshots that read: an event that is moved out of DEFAULT is then found either
    -- there or in its month, and never missed.
    lock table audit.event in access share mode;
    is_more := false;
    for _part in
        select * from audit_private.parts_between(
            after_tick, after_part, until_tick, until_part, at_most is null)
    loop
        exit when _series_id <> _part.series_id;
        _series_id := _part.series_id;
        _key := _part.key;
        tick_id := _part.tick_id;
        for id, at, organization_id, action, result, line in execute audit_private.part_query(
            _part.key, _part.condition, _part.events, organizations,
            case when _part.tick_id > until_tick then until_part end, _left)
        loop
            return next;
            _left := _left - 1;
            _bytes := _bytes + coalesce(octet_length(line), 0);
            is_more := _left = 0 or _bytes > 16000000;
            exit when is_more;
        end loop;
        is_end := _part.is_end and not is_more;
        exit when is_more;
        at := _part.last_at::text;
        id := _part.last_id;
    end loop;
    return query
    select tick_id, _series_id, _key, id, at, null, null, null, null, is_end, is_more
    where _series_id is not null;
end
$$;
comment on function audit_private.read_batch is
    'The events of ticks between two places, of some organisations or all, for an exporter';
