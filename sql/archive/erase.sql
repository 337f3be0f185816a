-- Erasure in the archive: what audit.erase asks for stays here until each file was rewritten.
-- auditdb archive rewrites them, because the server reads no files.

-- A month that is still in the database is written again from the database.
create or replace function audit_private.ask_archive(
    reason text, subject_id text, organization_id text, times timestamptz[]
) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    insert into audit.archive_erasure (month, subject_id, organization_id, reason)
    select a.month, ask_archive.subject_id, ask_archive.organization_id, ask_archive.reason
    from audit.archive as a
    where a.dropped_at is not null and a.restored_at is null
    order by a.month;
    update audit.archive as a set state = 'pending'
    where a.state in ('written', 'verified') and (a.dropped_at is null or a.restored_at is not null)
        and a.month in (select audit_private.month_of(t) from unnest(ask_archive.times) as t);
$$;
comment on function audit_private.ask_archive is
    'Asks the archive to erase what audit.erase erases; auditdb archive does it month by month';

create or replace function audit.count_archive_erasures() returns bigint
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select count(*) from audit.archive as a
    where a.state = 'pending' and a.sha256 is not null
        or exists (select from audit.archive_erasure as r where r.month = a.month);
$$;
comment on function audit.count_archive_erasures is
    'How many archived months may still hold events that were erased, or lack events that came '
    'late; auditdb archive rewrites them';

create or replace function audit_private.begin_archive_erasure(id bigint, organizations text[])
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _held text := (
        select min(o) from unnest(organizations) as o where audit_private.is_held(o));
    _erasure bigint;
begin
    if _held is not null then
        raise exception 'events to erase belong to organisation %, which is under legal hold', _held
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'They stay in the archive until the hold is released.';
    end if;
    update audit.archive_erasure as r
    set erasure_id = coalesce(r.erasure_id,
        nextval(pg_get_serial_sequence('audit.erasure', 'id')))
    where r.id = begin_archive_erasure.id
    returning r.erasure_id into _erasure;
    return _erasure;
end
$$;
-- Definer: only audit_owner writes to the table.
comment on function audit_private.begin_archive_erasure is
    'Gives an erasure in an archived month its id. Raises if an organisation of its events is '
    'under legal hold; part of auditdb archive';

-- Here alone the caller gives the digest: the database no longer has the events.
create or replace function audit_private.note_rewritten(
    month date, sha256 text, former_sha256 text, bytes bigint, events bigint, digest text
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
begin
    update audit.archive as a
    set state = 'written', digest = note_rewritten.digest, sha256 = note_rewritten.sha256,
        former_sha256 = note_rewritten.former_sha256, bytes = note_rewritten.bytes
    where a.month = note_rewritten.month and a.state in ('dropped', 'written')
        and a.dropped_at is not null and a.restored_at is null
        and a.events = note_rewritten.events and exists (
            select from audit.archive_erasure as r
            where r.month = note_rewritten.month and r.erasure_id is not null);
    if not found then
        raise exception '% needs no rewritten file', to_char(note_rewritten.month, 'YYYY-MM')
            using errcode = 'object_not_in_prerequisite_state';
    end if;
end
$$;
-- Definer: only audit_owner writes to the table.
comment on function audit_private.note_rewritten is
    'Notes what the rewritten file of a dropped month must hold, before the file is stored; '
    'part of auditdb archive';

create or replace function audit_private.forget_salts(month date, ids bigint[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    update audit.seal as s
    set salts = audit_private.without_salts(s.salts || ''::bytea, p.numbers)
    from (
        select l.id, array_agg(u.n::int) as numbers
        from audit.seal as l cross join unnest(l.ids) with ordinality as u (event, n)
        where l.month = forget_salts.month and u.event = any (forget_salts.ids)
        group by l.id
    ) as p
    where s.id = p.id;
$$;
comment on function audit_private.forget_salts is
    'Removes the salts of events of a month from its seals, for an erasure of this transaction';

create or replace function audit_private.finish_archive_erasure(
    id bigint, ids bigint[], organizations text[]
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _row audit.archive_erasure;
begin
    delete from audit.archive_erasure as r
    where r.id = finish_archive_erasure.id and exists (
        select from audit.archive as a
        -- An erasure without events waits for no file.
        where a.month = r.month and (a.state = 'dropped' or finish_archive_erasure.ids = '{}'))
    returning * into strict _row;
    perform audit_private.vacuum_soon('audit.archive_erasure');
    if ids = '{}' then
        return;
    end if;
    perform audit_private.lock_briefly('audit.key_rotation', 'share row exclusive');
    insert into audit.erasure (id, erased_by, organization_id, reason, events)
    overriding system value
    values (_row.erasure_id, _row.asked_by, _row.organization_id, _row.reason, cardinality(ids));
    perform audit_private.forget_salts(_row.month, finish_archive_erasure.ids);
    perform audit_private.vacuum_soon('audit.seal');
    insert into audit.event (
        action, result, actor_id, actor_type, source, organization_id, target_type, target_id,
        details
    )
    select 'audit.erased', 'success', _row.asked_by, 'database', 'system', p.organization_id,
        'audit', _row.erasure_id::text, jsonb_build_object('reason', _row.reason,
            'series', p.series, 'events', jsonb_array_length(p.ids), 'event_ids', p.ids,
            'archived', to_char(_row.month, 'YYYY-MM'))
    from (
        select n.organization_id, n.series, jsonb_agg(n.id::text order by n.id) as ids
        from (
            select u.organization_id, u.id, audit_private.series_of(u.id) as series,
                row_number() over (partition by u.organization_id order by u.id) as number
            from unnest(ids, organizations) as u (id, organization_id)
        ) as n
        group by n.organization_id, n.series, (n.number - 1) / 1000
    ) as p
    order by p.organization_id;
end
$$;
-- Definer: only audit_owner writes to the log.
comment on function audit_private.finish_archive_erasure is
    'Ends an erasure in an archived month whose file was rewritten: removes the salts, and records '
    'an event; part of auditdb archive';

create or replace function audit_private.check_archive() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'archive', 'warning', to_char(a.month, 'YYYY-MM'), case
            when a.state = 'written' and a.dropped_at is not null
                then 'its file was not verified, and the month is not in the database'
            else 'is to be archived since ' || to_char(a.began_at at time zone 'UTC', 'YYYY-MM-DD')
                || ', and is ' || a.state end,
        'Retention waits for it, and nobody reads it there.', 'auditdb archive', false
    from audit.archive as a
    where a.state in ('pending', 'written') and a.began_at < now() - interval '2 days'
        and coalesce(a.verified_at, '-infinity') < now() - interval '2 days'
    union all
    select 'archive', 'warning', to_char(r.month, 'YYYY-MM'),
        format('%s erasures wait for its file to be rewritten, the first since %s', count(*),
            to_char(min(r.asked_at) at time zone 'UTC', 'YYYY-MM-DD')),
        'What was to be erased is still in the archive.', 'auditdb archive', false
    from audit.archive_erasure as r
    where r.asked_at < now() - interval '2 days'
    group by r.month;
$$;
comment on function audit_private.check_archive is
    'Archived months that are stuck, and erasures that the archive has not done yet';
