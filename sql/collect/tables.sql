-- The centre: events of many databases, stored as they came; only an erasure at the source changes
-- them. Runs as audit_owner in the central database each time, and creates what is missing.

create table if not exists audit_collected.source (
    database text primary key
        constraint database_is_a_plain_name check (database ~ '^[a-z][a-z0-9_]{0,39}$'),
    added_at timestamptz not null default clock_timestamp(),
    added_by text not null default session_user,
    ended_at timestamptz
);
comment on table audit_collected.source is
    'The databases whose events are collected here, each under a name';
comment on column audit_collected.source.database is
    'Name of the database here; its subscription and its slot are called auditdb_ and this name';
comment on column audit_collected.source.added_at is 'When the database was first named here';
comment on column audit_collected.source.added_by is 'session_user that named it first';
comment on column audit_collected.source.ended_at is
    'When collecting ended; null while the database is collected';

create table if not exists audit_collected.series (
    number bigint generated always as identity,
    database text not null references audit_collected.source,
    key uuid not null,
    id int not null,
    began text not null,
    started_at timestamptz not null,
    system_identifier text,
    timeline int not null,
    database_oid oid not null,
    after_id bigint not null,
    is_present boolean not null default true,
    primary key (database, key)
);
comment on table audit_collected.series is
    'Series of ticks of each database, copied from its audit.series. A database that was restored '
    'from a backup uses ids again, in a new series';
comment on column audit_collected.series.number is 'Ascending in the order of arrival';
comment on column audit_collected.series.database is 'Name of the database here';
comment on column audit_collected.series.key is 'Key of the series, the same as in the source';
comment on column audit_collected.series.id is 'Id in the source; a restored source uses it again';
comment on column audit_collected.series.began is
    'Why the series began: installed, restored or continued';
comment on column audit_collected.series.started_at is 'When the series began';
comment on column audit_collected.series.system_identifier is 'Identifier of the source cluster';
comment on column audit_collected.series.timeline is 'Timeline of the source''s write-ahead log';
comment on column audit_collected.series.database_oid is 'Oid of the database in the source';
comment on column audit_collected.series.after_id is
    'Events with this id or a lower one were written before the series began';
comment on column audit_collected.series.is_present is
    'Whether the source still knows the series; a restore to an earlier moment loses it';

do $$
begin
    if to_regclass('audit_collected.event') is null then
        create table audit_collected.event (
            database text not null,
            series uuid not null,
            like audit.event,
            primary key (database, series, id, occurred_at)
        ) partition by list (database);
        create index event_database_organization_id_idx on audit_collected.event
            (database, organization_id, occurred_at desc, id desc);
        create index event_occurred_at_idx on audit_collected.event (occurred_at desc, id desc);
        create index event_told_idx on audit_collected.event (database, action, target_id)
            where action in ('audit.erased', 'audit.visibility_limited');
    end if;
end
$$;
-- Adds the columns of later releases.
do $$
declare
    _column record;
begin
    for _column in
        select a.attname as name, format_type(a.atttypid, a.atttypmod) as type
        from pg_attribute as a
        where a.attrelid = 'audit.event'::regclass and a.attnum > 0 and not a.attisdropped
            and not exists (
                select from pg_attribute as c
                where c.attrelid = 'audit_collected.event'::regclass and c.attname = a.attname)
        order by a.attnum
    loop
        execute format('alter table audit_collected.event add column %I %s %s', _column.name,
            _column.type, case _column.type when 'text' then 'collate "C"' end);
    end loop;
end
$$;
comment on table audit_collected.event is
    'The events of all databases, in a partition for each database. Append-only';
comment on column audit_collected.event.database is 'Name of the database that wrote the event';
comment on column audit_collected.event.series is
    'Key of the series of the event; ids are unique within a series';

create table if not exists audit_collected.tick (
    database text not null references audit_collected.source,
    series uuid not null,
    id bigint not null,
    made_at timestamptz not null,
    transaction_id xid8 not null,
    snapshot pg_snapshot not null,
    since timestamptz not null,
    lower_id bigint not null,
    upper_id bigint not null,
    events bigint not null,
    primary key (database, series, id)
);
comment on table audit_collected.tick is
    'Ticks of each database, copied from its audit.tick. They tell how many events must have '
    'arrived here. Append-only';
comment on column audit_collected.tick.database is 'Name of the database here';
comment on column audit_collected.tick.series is 'Key of the series of the tick';
comment on column audit_collected.tick.id is 'Id in the source, in ascending order';
comment on column audit_collected.tick.made_at is 'When the tick was made';
comment on column audit_collected.tick.transaction_id is 'Transaction of the source that made it';
comment on column audit_collected.tick.snapshot is
    'Snapshot of the source: which of its transactions had ended';
comment on column audit_collected.tick.since is
    'The tick holds events of this time and later; -infinity if it holds events of any time';
comment on column audit_collected.tick.lower_id is
    'Transactions with a higher id than that of the tick write events with higher ids than this';
comment on column audit_collected.tick.upper_id is 'No event of the tick has a higher id';
comment on column audit_collected.tick.events is 'How many events the tick holds';

create table if not exists audit_collected.organization_start (
    database text not null references audit_collected.source,
    organization_id text collate "C" not null,
    first_id bigint not null,
    started_at timestamptz not null,
    primary key (database, organization_id, first_id, started_at)
);
comment on table audit_collected.organization_start is
    'The first event of each organisation since its database gave the identifier '
    'to it. Append-only';
comment on column audit_collected.organization_start.database is 'Name of the database here';
comment on column audit_collected.organization_start.organization_id is
    'Identifier of the organisation';
comment on column audit_collected.organization_start.first_id is
    'Events with a lower id belong to a former organisation of the same identifier';
comment on column audit_collected.organization_start.started_at is 'When the organisation began';

create table if not exists audit_collected.admin (
    database text not null references audit_collected.source,
    organization_id text not null,
    user_id text not null,
    added_at timestamptz not null default clock_timestamp(),
    added_by text not null default session_user,
    primary key (database, organization_id, user_id)
);
comment on table audit_collected.admin is
    'Who may read the events of an organisation at the centre. Admins in the source database have '
    'no access unless they are listed here. Members of audit_operator insert and delete rows';
comment on column audit_collected.admin.database is 'Name of the database here';
comment on column audit_collected.admin.organization_id is 'Identifier of the organisation';
comment on column audit_collected.admin.user_id is 'Identifier of the user who may read';
comment on column audit_collected.admin.added_at is 'When the user was given access';
comment on column audit_collected.admin.added_by is 'session_user that gave access';

create or replace function audit_collected.tell_admin() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _old jsonb := to_jsonb(old) - '{added_at,added_by}'::text[];
    _new jsonb := to_jsonb(new) - '{added_at,added_by}'::text[];
    _now jsonb := coalesce(_new, _old);
begin
    perform audit_private.record_own(
        case when _new is null then 'central_admin_removed' else 'central_admin_added' end,
        (_now ->> 'database') || '/' || (_now ->> 'organization_id'), _old, _new);
    return null;
end
$$;
-- Definer: only audit_owner writes to the log.
comment on function audit_collected.tell_admin is
    'Trigger function: records who gets access to an organisation at the centre, and who loses it';

do $$
begin
    if not exists (
        select from pg_trigger
        where tgrelid = 'audit_collected.admin'::regclass and tgname = 'tell_admin')
    then
        create trigger tell_admin after insert or update or delete on audit_collected.admin
            for each row execute function audit_collected.tell_admin();
        alter table audit_collected.admin enable always trigger tell_admin;
    end if;
end
$$;

create or replace function audit_collected.series_of(database text, event_id bigint) returns uuid
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select s.key from audit_collected.series as s
    where s.database = series_of.database and s.is_present and s.began <> 'continued'
    -- Events older than the first series count as part of it.
    order by s.after_id < series_of.event_id desc,
        case when s.after_id < series_of.event_id then s.id else - s.id end desc
    limit 1;
$$;
comment on function audit_collected.series_of is
    'Key of the series that an event of a database belongs to, by its id there';

-- A change is allowed only if the row itself and an arrived event show that it is an erasure.
create or replace function audit_collected.refuse_change() returns trigger
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'UPDATE' and tg_table_name ~ '^event_' and audit_collected.is_erasure(
        to_jsonb(old), to_jsonb(new)) then
        return new;
    end if;
    raise exception '% on %.% is refused: collected events are append-only',
            tg_op, tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege',
            hint = 'Only an erasure in the source database removes personal data here.';
end
$$;
comment on function audit_collected.refuse_change is
    'Trigger function: refuses to change or delete collected rows';

create or replace function audit_collected.is_erasure(old jsonb, new jsonb) returns boolean
language sql stable set search_path = pg_catalog, pg_temp set row_security = on
as $$
    select coalesce(bool_or(
        audit_private.is_event_erasure(is_erasure.old, is_erasure.new, e.target_id::bigint)), false)
    from audit_collected.event as e
    where e.database = is_erasure.old ->> 'database' and e.action = 'audit.erased'
        and e.target_id = is_erasure.new #>> '{details,erased,erasure}'
        and e.details -> 'event_ids' ? (is_erasure.old ->> 'id')
        and coalesce((e.details ->> 'series')::uuid, (is_erasure.old ->> 'series')::uuid)
            = (is_erasure.old ->> 'series')::uuid;
$$;
comment on function audit_collected.is_erasure is
    'Whether a change erases the personal part of an event that an arrived audit.erased names, '
    'and nothing else';

create or replace function audit_collected.guard(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _trigger text;
    _events text;
begin
    -- Otherwise the planner's estimates would show viewers what row-level security hides.
    perform audit_private.close_statistics(target);
    execute format('alter table %s enable row level security, force row level security', target);
    for _trigger, _events in values
        ('refuse_change', 'update or delete on %s for each row'),
        ('refuse_truncate', 'truncate on %s for each statement')
    loop
        if not exists (
            select from pg_trigger where tgrelid = guard.target and tgname = _trigger) then
            execute format('create trigger %s before ' || _events
                || ' execute function audit_collected.refuse_change()', _trigger, target);
        end if;
        execute format('alter table %s enable always trigger %s', target, _trigger);
    end loop;
end
$$;
comment on function audit_collected.guard is
    'Puts row-level security and the triggers that refuse changes on a table of the centre';

create or replace function audit_collected.add_source(database text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _partition regclass;
begin
    insert into audit_collected.source as s (database) values (add_source.database)
    on conflict on constraint source_pkey do update set ended_at = null
    where s.ended_at is not null;
    execute format('create table if not exists audit_collected.%I partition of '
        'audit_collected.event for values in (%L)', 'event_' || database, database);
    _partition := format('audit_collected.%I', 'event_' || database)::regclass;
    perform audit_collected.guard(_partition);
    perform audit_private.open_to_backups(_partition);
    execute format('grant select on %s to audit_backup', _partition);
end
$$;
comment on function audit_collected.add_source is
    'Gives a name to a database whose events are to be collected, and creates their partition';

create or replace function audit_collected.note_series(database text, series jsonb) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
begin
    insert into audit_collected.series (database, key, id, began, started_at, system_identifier,
        timeline, database_oid, after_id)
    select note_series.database, s.key, s.id, s.began, s.started_at, s.system_identifier,
        s.timeline, s.database, s.after_id
    from jsonb_populate_recordset(null::audit.series, note_series.series) as s
    order by s.id
    on conflict do nothing;
    update audit_collected.series as s
    set is_present = s.key in (
        select p.key from jsonb_populate_recordset(null::audit.series, note_series.series) as p)
    where s.database = note_series.database;
end
$$;
comment on function audit_collected.note_series is
    'Notes which series a database has now, before any of its rows arrives';
