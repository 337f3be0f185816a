-- Uninstall, second part, only on request: drops both schemas with the whole log, and the roles
-- that no other database of the cluster uses.

do $$
declare
    _slot text := (
        select min(slot_name) from pg_replication_slots
        where slot_type = 'logical' and database = current_database()
            and slot_name ~ '^auditdb_');
begin
    if to_regnamespace('audit_collected') is not null then
        raise exception 'this database collects the logs of others, in schema audit_collected'
            using errcode = 'dependent_objects_still_exist', hint = 'If that is to go, too: '
                'auditdb collect SOURCE --drop for each of them, then, as a superuser: drop '
                'schema audit_collected cascade. Nothing was removed.';
    elsif _slot is not null then
        raise exception 'slot % keeps this log for a centre', _slot
            using errcode = 'object_in_use', hint = format('It would keep the write-ahead log '
                'until the disk is full. At the centre: auditdb collect %s --drop; then here: '
                'auditdb publish --drop. Nothing was removed.', substr(_slot, 9));
    end if;
end
$$;

do $$
declare
    _others text := (
        select string_agg(distinct format('%s %s', i.type, i.identity), ', ')
        from pg_depend as d
            cross join lateral pg_identify_object(d.classid, d.objid, 0) as i
        where d.deptype in ('n', 'a')
            and (d.refclassid = 'pg_class'::regclass and d.refobjid in (
                    select oid from pg_class
                    where relnamespace = any ('{audit,audit_private}'::regnamespace[]))
                or d.refclassid = 'pg_proc'::regclass and d.refobjid in (
                    select oid from pg_proc
                    where pronamespace = any ('{audit,audit_private}'::regnamespace[]))
                or d.refclassid = 'pg_type'::regclass and d.refobjid in (
                    select oid from pg_type
                    where typnamespace = any ('{audit,audit_private}'::regnamespace[])))
            and coalesce(i.schema, '') not in ('audit', 'audit_private', 'pg_toast')
            and i.identity !~ '(^| |for )(audit|audit_private)[.]');
begin
    if _others is not null then
        raise exception 'other objects use the log: %', _others
            using errcode = 'dependent_objects_still_exist',
                hint = 'Drop them first. Nothing was removed.';
    end if;
end
$$;

do $$
declare
    _me name := current_user;
    _held text;
    _with text := case when current_setting('server_version_num')::int >= 160000
        then ' with set true, inherit true' else '' end;
begin
    if not pg_has_role('audit_owner', 'usage') then
        execute format('grant audit_owner to %I%s', _me, _with);
    end if;
    set local role audit_owner;
    if to_regclass('audit.legal_hold') is not null then
        execute 'select min(organization_id) from audit.legal_hold' into _held;
    end if;
    if _held is not null then
        raise exception 'organisation % is under legal hold: the log is not dropped', _held
            using errcode = 'object_not_in_prerequisite_state', hint = 'An auditor may end it: '
                'select audit.release_organization(...). Nothing was removed.';
    end if;
    drop schema if exists audit, audit_private cascade;
    perform set_config('role', current_setting('auditdb.before')::jsonb ->> 'role', true);
end
$$;

do $$
declare
    _role text;
    _databases text;
    _is_held boolean;
    _left jsonb := current_setting('auditdb.left')::jsonb;
begin
    -- audit_owner is a member of audit_mapper.
    foreach _role in array '{audit_reader,audit_writer,audit_auditor,audit_backup,audit_operator,'
        'audit_owner,audit_mapper}'::text[]
    loop
        select string_agg(distinct datname, ', ') into _databases
        from pg_shdepend as s join pg_database as d on d.oid = s.dbid
        where s.refclassid = 'pg_authid'::regclass and s.refobjid = _role::regrole
            and d.datname <> current_database();
        -- A role that granted the membership to itself keeps it, for the other databases.
        _is_held := _role not in ('audit_owner', 'audit_mapper') and exists (
            select from pg_auth_members
            where roleid = to_regrole(_role) and member = quote_ident(current_user)::regrole
                and grantor = member);
        begin
            if not pg_has_role(_role, 'usage') then
                execute format('grant %I to %I%s', _role, current_user,
                    case when current_setting('server_version_num')::int >= 160000
                        then ' with set true, inherit true' else '' end);
            end if;
            execute format('drop owned by %I', _role);
            if _databases is null then
                execute format('drop role %I', _role);
            else
                _left := _left || to_jsonb(
                    format('left: role %s, which other databases use: %s', _role, _databases));
            end if;
        exception when insufficient_privilege or dependent_objects_still_exist then
            _left := _left || to_jsonb(format('left: role %s: %s', _role, sqlerrm));
        end;
        -- Revokes what was granted only for this.
        if not _is_held and _role <> 'audit_operator' and exists (
            select from pg_auth_members
            where roleid = to_regrole(_role) and member = quote_ident(current_user)::regrole
                and grantor = member)
        then
            execute format('revoke %I from %I', _role, current_user);
        end if;
    end loop;
    perform set_config('auditdb.left', _left::text, true);
end
$$;
