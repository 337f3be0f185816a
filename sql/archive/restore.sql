-- Restore of a month from its archive. Its events go into a staging table first. They join the log
-- only if they are the events that were archived.

create or replace function audit_private.begin_restore(month date) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    if not exists (
        select from audit.archive as a
        where a.month = begin_restore.month and a.state = 'dropped')
    then
        raise exception 'month % was not archived and then dropped',
                to_char(begin_restore.month, 'YYYY-MM')
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'auditdb archive --status lists the months that were.';
    end if;
    delete from audit_private.restored_event;
end
$$;
-- Definer: only audit_owner writes to the log.
comment on function audit_private.begin_restore is
    'Prepares the restore of a month; part of auditdb restore';

create or replace function audit_private.take_back(events jsonb) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
    insert into audit_private.restored_event (
        id, occurred_at, transaction_id, action, result, actor_id, actor_type, impersonator_id,
        db_user, organization_id, target_type, target_id, subject_id, source, captured_from,
        old_values, new_values, details, db_role
    )
    select e.id, timestamptz 'epoch' + e.us * interval '1 microsecond', e.transaction_id::xid8,
        e.action, e.result, e.actor_id, e.actor_type, e.impersonator_id, e.db_user,
        e.organization_id, e.target_type, e.target_id, e.subject_id, e.source, e.captured_from,
        e.old_values::jsonb, e.new_values::jsonb, e.details::jsonb, e.db_role
    from jsonb_to_recordset(take_back.events) as e (
        id bigint, us bigint, transaction_id text, action text, result text, actor_id text,
        actor_type text, impersonator_id text, db_user text, organization_id text,
        target_type text, target_id text, subject_id text, source text, captured_from text,
        old_values text, new_values text, details text, db_role text);
$$;
-- Definer: only audit_owner writes to the log.
comment on function audit_private.take_back is
    'Puts events of a restored month into a staging table; part of auditdb restore';

create or replace function audit_private.attach_month(month date) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if attach_month.month = any (audit_private.months_attached()) then
        return;  -- Events came late, and have made it again.
    end if;
    perform audit_private.prepare_month(attach_month.month);
    perform audit_private.lock_briefly('audit.event', 'share update exclusive');
    perform audit_private.lock_briefly('audit.event_default', 'access exclusive');
    perform audit_private.join_month(attach_month.month);
    perform audit_private.record_attestation('month', 'audit.event', '{trigger}', renew => false);
end
$$;
comment on function audit_private.attach_month is
    'Creates the partition of a month if it is missing';

-- PL/pgSQL, because install creates it while an older log still lacks the column db_role.
create or replace function audit_private.put_back() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
begin
    insert into audit.event (
        id, occurred_at, transaction_id, action, result, actor_id, actor_type, impersonator_id,
        db_user, organization_id, target_type, target_id, subject_id, source, captured_from,
        old_values, new_values, details, db_role
    )
    select id, occurred_at, transaction_id, action, result, actor_id, actor_type, impersonator_id,
        db_user, organization_id, target_type, target_id, subject_id, source, captured_from,
        old_values, new_values, details, db_role
    from audit_private.restored_event
    order by occurred_at, id
    on conflict (occurred_at, id) do nothing;
    delete from audit_private.restored_event;
end
$$;
comment on function audit_private.put_back is
    'Moves the events from the staging table into the log; skips those that the log has already';

create or replace function audit_private.finish_restore(month date) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '2s' set row_security = on
as $$
declare
    _row audit.archive;
    _found record := audit_private.digest_of('audit_private.restored_event', finish_restore.month);
begin
    update audit.archive as a set state = 'verified', restored_at = now()
    where a.month = finish_restore.month and a.state = 'dropped'
    returning * into _row;
    if (_found.events, _found.digest) is distinct from (_row.events, _row.digest)
        or _found.events <> (select count(*) from audit_private.restored_event)
    then
        raise exception 'these are not the events of % that were archived',
                to_char(finish_restore.month, 'YYYY-MM')
            using errcode = 'integrity_constraint_violation', hint = 'Nothing was restored.';
    elsif exists (select from audit.archive_erasure as r where r.month = finish_restore.month) then
        raise exception 'the file of % must be rewritten for an erasure first',
                to_char(finish_restore.month, 'YYYY-MM')
            using errcode = 'object_not_in_prerequisite_state', hint = 'Run: auditdb archive';
    end if;
    perform audit_private.attach_month(finish_restore.month);
    perform audit_private.put_back();
    perform audit_private.record_own('month_restored', to_char(_row.month, 'YYYY-MM'), null, null,
        jsonb_build_object('events', _row.events, 'sha256', _row.sha256));
    return _row.events;
end
$$;
-- Definer: only audit_owner writes to the log.
comment on function audit_private.finish_restore is
    'Ends the restore of a month: moves its events into the log if they are those that were '
    'archived, and records an event; part of auditdb restore. Returns the number of events';
