-- Reading for exporters: events between two places, in the order of ticks, as canonical bytes.

-- A place is after a tick that was taken as a whole, and maybe a part of the next.
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
        raise exception 'tick % was delivered, and this database knows ticks up to % alone', _tick,
                audit_private.last_tick()
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'It was restored to an earlier moment, or is another. Compare with the '
                    'sink, then: auditdb subscription reset NAME --to now, or start.';
    elsif _key is null then
        return null;
    end if;
    return audit_private.tick_cursor(_key, _tick,
        coalesce((place_cursor.part ->> 'at')::timestamptz, 'infinity'),
        coalesce((place_cursor.part ->> 'id')::bigint, 9223372036854775807));
end
$$;
-- Definer: reads ticks, and gives nothing but a number that is known.
comment on function audit_private.place_cursor is
    'The cursor of a place; null before the first tick';

-- The last row has no event: tick_id, at and id are where it ended, is_end whether at the end of
-- that tick, is_more whether there was more than at_most events, or 16 MB.
create or replace function audit_private.read_batch(
    after_tick bigint, after_part jsonb, until_tick bigint, until_part jsonb, organizations text[],
    at_most int
) returns table (
    tick_id bigint, series_id int, series_key uuid, id bigint, at text, organization_id text,
    action text, result text, line text, is_end boolean, is_more boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO'
as $$
#variable_conflict use_variable
declare
    _most_parts constant int := 500;
    _part record;
    _event record;
    _series int;
    _left bigint := coalesce(at_most, 9223372036854775807);
    _bytes bigint := case when at_most is null then -9223372036854775807 else 0 end;
    _count int := 0;
    _ended boolean := false;
    _all_parts constant int := (
        select count(*) + 2 from audit.tick_month as m
        where m.tick_id >= after_tick and m.tick_id <= until_tick + 1);
begin
    -- Before the snapshots that read: what is moved out of DEFAULT is where it was, or where it is.
    lock table audit.event in access share mode;
    for _part in
        select p.*, lead(p.tick_id) over (order by p.tick_id, p.last_at) is distinct from p.tick_id
            as is_end
        from audit_private.tick_parts(audit_private.place_cursor(after_tick, after_part),
            case when at_most is null then _all_parts else _most_parts + 1 end) as p
    loop
        exit when _part.tick_id > until_tick
            and (until_part is null or _part.tick_id > (until_part ->> 'tick')::bigint)
            or _series <> _part.series_id or _count = _most_parts and at_most is not null;
        _count := _count + 1;
        _series := _part.series_id;
        for _event in execute format(
            'select e.id, e.occurred_at::text as at, e.organization_id, e.action, e.result, '
            'audit.canonical(e, %L) as line from audit.event as e where %s%s%s '
            'order by e.occurred_at, e.id limit %s', _part.key, _part.condition,
            ' and e.organization_id = any (' || quote_literal(organizations::text) || ')',
            case when _part.tick_id > until_tick then format(
                ' and (e.occurred_at, e.id) <= (%L, %s)', until_part ->> 'at', until_part ->> 'id')
                end, _left)
        loop
            tick_id := _part.tick_id;
            id := _event.id;
            at := _event.at;
            organization_id := _event.organization_id;
            action := _event.action;
            result := _event.result;
            line := _event.line;
            return next;
            _left := _left - 1;
            _bytes := _bytes + octet_length(line);
            _ended := _left = 0 or _bytes > 16000000;
            exit when _ended;
        end loop;
        tick_id := _part.tick_id;
        if not _ended then
            is_end := _part.is_end;
            at := _part.last_at::text;
            id := _part.last_id;
        end if;
        exit when _ended;
    end loop;
    if _count > 0 then
        organization_id := null;
        action := null;
        result := null;
        line := null;
        series_id := _series;
        series_key := (select s.key from audit.series as s where s.id = _series);
        is_more := _ended;
        return next;
    end if;
end
$$;
comment on function audit_private.read_batch is
    'The events of ticks between two places, of some organisations or all, for an exporter';
