-- The guard: not even the owner changes or deletes a row of the log. The only exception is an
-- erasure, which removes the personal part of events, and their salts in the seals.
-- Row triggers on audit.event are cloned to every partition; TRUNCATE needs one on each.

create or replace function audit_private.refuse_change() returns trigger
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'UPDATE' and audit_private.is_erasure(tg_relid, to_jsonb(old), to_jsonb(new)) then
        return new;
    end if;
    raise exception '% on %.% is refused: the audit log is append-only',
            tg_op, tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege',
            hint = 'Drop whole months by audit.maintain(keep => ...), and erase personal data '
                'by audit.erase.';
end
$$;
comment on function audit_private.refuse_change is
    'Trigger function: refuses to change or delete rows of the log';

-- After a restore without owners, another role owns the log and the functions that write to it. The
-- policy for audit_owner does not match then, but no statement of a user may fail because of it.
create or replace function audit_private.owns_log() returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select current_user = pg_get_userbyid(relowner) from pg_class
    where oid = 'audit.event'::regclass;
$$;
comment on function audit_private.owns_log is
    'Whether the role in force owns the log: '
    'audit_owner, or the role that restored it without owners';

create or replace function audit_private.guard(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    -- Only if needed: each statement takes a lock that every writer waits for.
    if not (select relrowsecurity and relforcerowsecurity from pg_class
        where oid = guard.target) then
        execute format('alter table %s enable row level security, force row level security',
            guard.target);
    end if;
    if not exists (
        select from pg_trigger where tgrelid = guard.target and tgname = 'refuse_truncate'
    ) then
        execute format('create trigger refuse_truncate before truncate on %s '
            'for each statement execute function audit_private.refuse_change()', guard.target);
    end if;
    if exists (
        select from pg_trigger
        where tgrelid = guard.target and tgname = 'refuse_truncate' and tgenabled <> 'A'
    ) then
        execute format('alter table %s enable always trigger refuse_truncate', guard.target);
    end if;
end
$$;
comment on function audit_private.guard is
    'Puts row-level security and the guard against TRUNCATE on the log or on one of its partitions';

create or replace function audit_private.open_to_backups(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from pg_policy
        where polrelid = open_to_backups.target and polname = 'backups_read_everything')
    then
        execute format('create policy backups_read_everything on %s for select to audit_backup '
            'using (true)', open_to_backups.target);
    end if;
end
$$;
comment on function audit_private.open_to_backups is
    'Lets members of audit_backup read a table of the log without row-level security, for pg_dump';

create or replace function audit_private.append_only() returns regclass[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
    -- No parsed body: a dump restores functions before these tables exist.
    select '{audit_private.attestation,audit_private.organization_start,audit.series,audit.tick,'
        'audit.tick_month,audit.seal,audit.organization_seal,audit.checkpoint,'
        'audit.key_rotation,audit.erasure}'::regclass[];
$$;
comment on function audit_private.append_only is
    'The tables beside the log whose rows are never changed or deleted';

create or replace function audit_private.guarded_tables() returns regclass[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
    -- No parsed body, for the same reason.
    select '{audit_private.signing_key,audit_private.attachment,'
        'audit_private.release,audit_private.recording_limit,audit_private.unfiled,'
        'audit.subscription,audit_private.set_aside,audit.tile,'
        'audit.sealed_organization,audit.legal_hold,audit.visible_retention,'
        'audit.archive,audit.archive_erasure,audit_private.restored_event}'::regclass[];
$$;
comment on function audit_private.guarded_tables is
    'The other tables that row-level security protects from pg_read_all_data and '
    'pg_write_all_data; their rows may change';

create or replace function audit_private.guard_log() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _table regclass;
begin
    foreach _table in array audit_private.append_only() || 'audit.event'::regclass loop
        if not exists (
            select from pg_trigger where tgrelid = _table and tgname = 'refuse_change'
        ) then
            execute format('create trigger refuse_change before update or delete on %s '
                'for each row execute function audit_private.refuse_change()', _table);
        end if;
    end loop;
    for _table in
        select relid from pg_partition_tree('audit.event')
        union all
        select unnest(audit_private.append_only())
    loop
        perform audit_private.guard(_table);
        -- ENABLE ALWAYS on the parent did not reach clones before PostgreSQL 15.
        if exists (
            select from pg_trigger
            where tgrelid = _table and tgname = 'refuse_change' and tgenabled <> 'A'
        ) then
            execute format('alter table %s enable always trigger refuse_change', _table);
        end if;
    end loop;
    -- Otherwise a member of pg_read_all_data could sign tokens,
    -- and a member of pg_write_all_data could change mappings.
    foreach _table in array audit_private.guarded_tables() loop
        if not (select relrowsecurity and relforcerowsecurity from pg_class where oid = _table) then
            execute format('alter table %s enable row level security, force row level security',
                _table);
        end if;
    end loop;
end
$$;
comment on function audit_private.guard_log is
    'Puts the guards on the log, on each of its partitions, on the other append-only tables, and '
    'on the keys';

do $$ begin perform audit_private.guard_log(); end $$;
