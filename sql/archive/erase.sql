-- Erasure reaches the archive: what audit.erase asks of it stays until each month was rewritten.
-- auditdb archive does that, since the server reads no files.

-- Months that are here are written again from here.
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
    'Has the archive erase what audit.erase does, month by month, when auditdb archive runs next';

create or replace function audit.count_archive_erasures() returns bigint
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select count(*) from audit.archive as a
    where a.state = 'pending' and a.sha256 is not null
        or exists (select from audit.archive_erasure as r where r.month = a.month);
$$;
comment on function audit.count_archive_erasures is
    'How many archived months still hold, or may hold, what was erased or came late: auditdb '
    'archive rewrites them';

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
        raise exception 'organisation % is under legal hold, and events to erase are of it', _held
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'They stay in the archive until it is released.';
    end if;
    update audit.archive_erasure as r
    set erasure_id = coalesce(r.erasure_id,
        nextval(pg_get_serial_sequence('audit.erasure', 'id')))
    where r.id = begin_archive_erasure.id
    returning r.erasure_id into _erasure;
    return _erasure;
end
$$;
-- Definer: nobody else writes to the table.
comment on function audit_private.begin_archive_erasure is
    'Gives an erasure in an archived month its id, if nobody is under legal hold whose events it '
    'takes; part of auditdb archive';

-- The one time that the digest is not computed here: the events are not.
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
        raise exception '% is not to be rewritten', to_char(note_rewritten.month, 'YYYY-MM')
            using errcode = 'object_not_in_prerequisite_state';
    end if;
end
$$;
-- Definer: nobody else writes to the table.
comment on function audit_private.note_rewritten is
    'Notes what the file of a dropped month will be once events in it are erased, before it is put '
    'there; part of auditdb archive';

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
    'Takes the salts of events of a month out of its seals, for an erasure of this transaction';

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
        -- One that takes nothing waits for no file.
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
-- Definer: nobody else writes to the log.
comment on function audit_private.finish_archive_erasure is
    'Ends an erasure in an archived month that was rewritten: its salts go, and it is an event; '
    'part of auditdb archive';

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
    'Archived months that are stuck, and erasures that the archive does not do';
