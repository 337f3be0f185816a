-- The archive: whole months, stored elsewhere as Parquet files. This file keeps the state of each
-- month, decides which months may be dropped, and which files must be written again.
-- auditdb/archive/ writes and reads the files; docs/archive.md describes them.


-- The text of an event that is hashed. Each column has its length, so two events never collide.
create or replace function audit_private.digest_expression() returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select string_agg(format($sql$coalesce(octet_length(%1$s)::text || ':' || %1$s, '-')$sql$,
        case a.name when 'occurred_at' then '(e.us::text)'
            else format('(e.%I::text)', a.name) end), ' || ' order by a.n)
    from unnest(array['id', 'occurred_at', 'transaction_id', 'action', 'result', 'actor_id',
        'actor_type', 'impersonator_id', 'db_user', 'organization_id', 'target_type', 'target_id',
        'subject_id', 'source', 'captured_from', 'old_values', 'new_values', 'details', 'db_role'
        ]) with ordinality as a (name, n);
$$;
comment on function audit_private.digest_expression is
    'The SQL expression of what is hashed of an event e; e.us is its time in microseconds';

-- Hashes each hour first: the hashes of a whole month may be too long for one value.
create or replace function audit_private.digest_of(
    relation regclass, month date, out events bigint, out digest text
)
language plpgsql stable set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _bounds record := audit_private.month_bounds(digest_of.month);
begin
    execute format($sql$
        select coalesce(sum(h.events), 0), encode(sha256(convert_to(
            coalesce(string_agg(h.hash, '' order by h.hour), ''), 'UTF8')), 'hex')
        from (
            select e.us / 3600000000 as hour, count(*) as events,
                encode(sha256(convert_to(string_agg(encode(sha256(convert_to(%s, 'UTF8')), 'hex'),
                    '' order by e.us, e.id), 'UTF8')), 'hex') as hash
            from (
                select *, (extract(epoch from occurred_at) * 1000000)::bigint as us from %s
                where occurred_at >= $1 and occurred_at < $2
            ) as e
            group by 1
        ) as h$sql$, audit_private.digest_expression(), digest_of.relation)
    into events, digest using _bounds.starts, _bounds.ends;
end
$$;
comment on function audit_private.digest_of is
    'How many events of a month a table has, and their hash in the order of time and id; '
    'auditdb/archive/format.py computes the same hash of a file';

create or replace function audit_private.past_months() returns date[]
language sql stable set search_path = pg_catalog, pg_temp
return array(
    select m from unnest(audit_private.months_attached()) as m
    where (audit_private.month_bounds(m)).ends < now() - interval '1 day'
    order by m);
comment on function audit_private.past_months is
    'The months that have a partition and ended more than a day ago';

create or replace function audit.list_archive()
returns table (
    month date, state text, events bigint, bytes bigint, is_sealed boolean, verified_at timestamptz,
    dropped_at timestamptz, restored_at timestamptz, erasures bigint, sha256 text, place text,
    database text
)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select a.month, a.state, a.events, a.bytes, a.is_sealed, a.verified_at, a.dropped_at,
        a.restored_at, (
            select count(*) from audit.archive_erasure as r where r.month = a.month),
        a.sha256, a.place, a.database
    from audit.archive as a
    order by a.month;
$$;
comment on function audit.list_archive is
    'The archived months, the state of each, and how many erasures still wait for its file';

create or replace function audit_private.begin_archive(place text, database text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _other audit.archive;
    _month date;
begin
    select * into _other from audit.archive as a
    where (a.place, a.database) <> (begin_archive.place, begin_archive.database) limit 1;
    if found then
        raise exception 'the months of this log are archived at %, as database=%', _other.place,
                _other.database
            using errcode = 'object_not_in_prerequisite_state',
                hint = format('Name that place. If its files were moved: select '
                    'audit.move_archive(%L, %L)', begin_archive.place, begin_archive.database);
    end if;
    insert into audit.archive (month, place, database)
    select m, begin_archive.place, begin_archive.database
    from unnest(audit_private.past_months()) as m
    on conflict do nothing;
    -- Months whose events changed since they were archived, or that got late events.
    for _month in
        select a.month from audit.archive as a
        where a.state = 'verified' and a.month = any (audit_private.past_months())
    loop
        update audit.archive as a set state = 'pending'
        where a.month = _month and a.events <> (
            select count(*) from audit.event as e, audit_private.month_bounds(_month) as b
            where e.occurred_at >= b.starts and e.occurred_at < b.ends);
    end loop;
end
$$;
-- Definer: only audit_owner writes to the table.
comment on function audit_private.begin_archive is
    'Notes which months must be archived, and where; part of auditdb archive';

create or replace function audit.move_archive(place text, database text) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _old audit.archive;
    _months bigint;
begin
    if move_archive.place not like '%_://_%' or move_archive.database = '' then
        raise exception 'the address or the database name of the archive is invalid'
            using errcode = 'invalid_parameter_value',
                hint = 'Give an address such as s3://bucket/prefix, and a name such as shop.';
    end if;
    select * into _old from audit.archive limit 1;
    update audit.archive as a
    set place = rtrim(move_archive.place, '/'), database = move_archive.database;
    get diagnostics _months = row_count;
    if _months > 0 then
        perform audit_private.record_own('archive_moved', move_archive.database,
            jsonb_build_object('place', _old.place, 'database', _old.database),
            jsonb_build_object('place', rtrim(move_archive.place, '/'),
                'database', move_archive.database));
    end if;
    return _months;
end
$$;
-- Definer: only audit_owner writes to the table.
comment on function audit.move_archive is
    'Notes a new address of the archive, or a new name of this database in it; records an '
    'event. It moves no file. Returns the number of months';

-- The database computes what the file must hold, so that the archiving role cannot forge it.
create or replace function audit_private.note_written(
    month date, sha256 text, former_sha256 text, bytes bigint, is_sealed boolean
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _digest record := audit_private.digest_of('audit.event', note_written.month);
begin
    update audit.archive as a
    set state = 'written', events = _digest.events, digest = _digest.digest,
        sha256 = note_written.sha256, former_sha256 = note_written.former_sha256,
        bytes = note_written.bytes, is_sealed = note_written.is_sealed
    where a.month = note_written.month and a.state in ('pending', 'written')
        and (a.dropped_at is null or a.restored_at is not null);
    if not found then
        raise exception '% needs no new file in the archive', to_char(note_written.month, 'YYYY-MM')
            using errcode = 'object_not_in_prerequisite_state';
    end if;
end
$$;
-- Definer: only audit_owner writes to the table.
comment on function audit_private.note_written is
    'Notes what the file of a month must hold, before the file is stored; part of auditdb archive';

create or replace function audit_private.note_verified(month date, sha256 text, digest text)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _row audit.archive;
begin
    update audit.archive as a
    set state = case when a.dropped_at is null or a.restored_at is not null then 'verified'
            else 'dropped' end,
        former_sha256 = null, verified_at = now()
    where a.month = note_verified.month and a.state = 'written'
        and (a.sha256, a.digest) = (note_verified.sha256, note_verified.digest)
    returning * into _row;
    if not found then
        -- Events came or were erased while the file was written.
        update audit.archive as a set state = 'pending'
        where a.month = note_verified.month and a.state = 'written'
            and (a.dropped_at is null or a.restored_at is not null);
        return false;
    end if;
    perform audit_private.record_own('month_archived', to_char(_row.month, 'YYYY-MM'), null, null,
        jsonb_build_object('events', _row.events, 'bytes', _row.bytes, 'sha256', _row.sha256,
            'sealed', _row.is_sealed, 'place', _row.place, 'database', _row.database));
    return true;
end
$$;
-- Definer: only audit_owner writes to the table.
comment on function audit_private.note_verified is
    'Notes that the file of a month was read back, and whether it holds the events of the month; '
    'returns that, and records an event; part of auditdb archive';

create or replace function audit_private.note_lost(month date) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    update audit.archive as a set state = 'pending'
    where a.month = note_lost.month and a.state = 'verified';
$$;
-- Definer: only audit_owner writes to the table.
comment on function audit_private.note_lost is
    'Notes that the file of a month is gone whose events are still in the database, so that it is '
    'written again; part of auditdb archive';

-- The digest is of the file as it was read back a moment ago.
create or replace function audit_private.drop_archived(
    month date, keep interval, digest text, even_restored boolean
) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' set row_security = on
as $$
declare
    _name text := to_char(drop_archived.month, 'YYYY-MM');
    _row audit.archive;
    _live record;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('auditdb', 0)) then
        return 'nothing done: install, attach or another maintenance is running';
    end if;
    select * into _row from audit.archive as a where a.month = drop_archived.month for update;
    if _row.state is distinct from 'verified' then
        return format('keep %s: it is not archived yet', _name);
    elsif exists (select from audit.archive_erasure as r where r.month = drop_archived.month) then
        return format('keep %s: its file must be rewritten for an erasure', _name);
    elsif _row.restored_at is not null and not even_restored then
        return null;
    end if;
    -- A month that is over has no writers; one that comes nevertheless waits for this lock.
    perform audit_private.lock_briefly(
        format('audit.event_%s', to_char(_row.month, 'YYYY_MM'))::regclass, 'share');
    _live := audit_private.digest_of('audit.event', _row.month);
    if (_live.events, _live.digest) is distinct from (_row.events, _row.digest)
        or _row.digest is distinct from drop_archived.digest
    then
        update audit.archive as a set state = 'pending' where a.month = _row.month;
        return format('keep %s: its file holds other events, and will be written again', _name);
    end if;
    update audit.archive as a set restored_at = null where a.month = _row.month;
    return (select line from audit_private.drop_months(keep, false, _row.month) as line);
end
$$;
-- Definer: partitions belong to audit_owner.
comment on function audit_private.drop_archived is
    'Drops a month that is older than retention keeps, if its file holds the same events; part of '
    'auditdb archive. Returns what it did, or why it did nothing; null if the month is not due';
