-- Landing: logical replication writes only into tables of the same names. A trigger there takes
-- each row, finds which database the subscription of this process belongs to, and puts the row into
-- the tables of audit_collected, under the name of that database. The tables of the centre's own
-- log do not change.

create or replace function audit_collected.arriving() returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select substr(s.subname, 9)
    from pg_stat_get_subscription(null) as w join pg_subscription as s on s.oid = w.subid
    where w.pid = pg_backend_pid() and s.subname ~ '^auditdb_';
$$;
comment on function audit_collected.arriving is
    'The database whose changes this process of logical replication applies; '
    'null in other processes';

create or replace function audit_collected.erase(erased audit_collected.event) returns void
language sql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
    update audit_collected.event as e
    set actor_id = null, impersonator_id = null, subject_id = null, old_values = null,
        new_values = null,
        target_id = case when not audit_private.names_person(
            e.target_type, e.target_id, e.subject_id) then e.target_id end,
        details = audit_private.erased_details(erased.target_id::bigint, null)
    from jsonb_array_elements_text(erased.details -> 'event_ids') as i (id)
    where e.database = erased.database and e.id = i.id::bigint
        and e.series = coalesce((erased.details ->> 'series')::uuid,
            audit_collected.series_of(erased.database, i.id::bigint))
        and e.action <> 'audit.erased'
        and not audit_private.is_erased(e.actor_id, e.impersonator_id, e.subject_id,
            e.target_type, e.target_id, e.old_values, e.new_values, e.details);
$$;
comment on function audit_collected.erase is
    'Erases the personal part of the events that an arrived audit.erased names';

-- A known event stays as it is: a new copy brings all events again.
create or replace function audit_collected.put(database text, event audit.event) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _put audit_collected.event;
begin
    insert into audit_collected.event (
        database, series, id, occurred_at, transaction_id, action, result, actor_id, actor_type,
        impersonator_id, db_user, organization_id, target_type, target_id, subject_id, source,
        captured_from, old_values, new_values, details, db_role)
    values (put.database, audit_collected.series_of(put.database, event.id), event.id,
        event.occurred_at, event.transaction_id, event.action, event.result, event.actor_id,
        event.actor_type, event.impersonator_id, event.db_user, event.organization_id,
        event.target_type, event.target_id, event.subject_id, event.source, event.captured_from,
        event.old_values, event.new_values, event.details, event.db_role)
    on conflict do nothing
    returning * into _put;
    if _put.action = 'audit.erased' then
        perform audit_collected.erase(_put);
        perform audit_private.vacuum_soon(
            format('audit_collected.%I', 'event_' || put.database)::regclass);
    end if;
    return _put.id is not null;
end
$$;
comment on function audit_collected.put is
    'Stores an event of a database, unless it is there already; returns whether it was new';

create or replace function audit_collected.put_other(database text, relation oid, arrived jsonb)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _series audit.series;
    _tick audit.tick;
begin
    if relation = 'audit.series'::regclass then
        _series := jsonb_populate_record(null::audit.series, arrived);
        insert into audit_collected.series (database, key, id, began, started_at,
            system_identifier, timeline, database_oid, after_id)
        values (put_other.database, _series.key, _series.id, _series.began, _series.started_at,
            _series.system_identifier, _series.timeline, _series.database, _series.after_id)
        on conflict do nothing;
    elsif relation = 'audit.tick'::regclass then
        _tick := jsonb_populate_record(null::audit.tick, arrived);
        insert into audit_collected.tick
        select put_other.database, s.key, _tick.id, _tick.made_at, _tick.transaction_id,
            _tick.snapshot, _tick.since, _tick.lower_id, _tick.upper_id, _tick.events
        from audit_collected.series as s
        where s.database = put_other.database and s.is_present and s.id = _tick.series_id
        on conflict do nothing;
    else
        insert into audit_collected.organization_start
        select put_other.database, o.organization_id, o.first_id, o.started_at
        from jsonb_populate_record(null::audit_private.organization_start, arrived) as o
        on conflict do nothing;
    end if;
end
$$;
comment on function audit_collected.put_other is
    'Stores a row that is no event, such as a tick, for its database';

create or replace function audit_collected.land() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _database text := audit_collected.arriving();
begin
    -- The row comes from a restore, or from a subscription that is not ours.
    if _database is null then
        return new;
    end if;
    if tg_table_name ~ '^event_' then
        perform audit_collected.put(_database, new);
    else
        perform audit_collected.put_other(_database, tg_relid, to_jsonb(new));
    end if;
    return null;
end
$$;
-- Definer: only audit_owner writes what was collected.
comment on function audit_collected.land is
    'Trigger function: takes an arriving row, and stores it with the rows of its database';

do $$
declare
    _table regclass;
begin
    foreach _table in array '{audit.event,audit.series,audit.tick,'
        'audit_private.organization_start}'::regclass[]
    loop
        if not exists (select from pg_trigger where tgrelid = _table and tgname = 'land') then
            execute format('create trigger land before insert on %s for each row '
                'execute function audit_collected.land()', _table);
        end if;
        -- A replica trigger: rows that this database writes itself stay here.
        execute format('alter table %s enable replica trigger land', _table);
    end loop;
end
$$;
