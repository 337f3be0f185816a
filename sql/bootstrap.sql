-- What must exist before the first migration: the roles, the schemas and yoyo's bookkeeping tables.
-- It creates only what is missing, so it is safe to run again, by a superuser or by a role with
-- CREATEROLE. It is part of a transaction, which continues as audit_owner.

do $$
declare
    _role text;
    _purpose text;
begin
    if current_setting('server_version_num')::int < 150000 then
        raise exception 'auditdb needs PostgreSQL 15 or later, this server is %',
                current_setting('server_version')
            using errcode = 'feature_not_supported',
                hint = 'Upgrade the server.';
    end if;

    if current_setting('server_version_num')::int >= 160000 then
        -- This setting would make the installing role a member of reader, auditor and backup too.
        perform pg_catalog.set_config('auditdb.before', (
            pg_catalog.current_setting('auditdb.before')::jsonb || pg_catalog.jsonb_build_object(
                'createrole_self_grant', pg_catalog.current_setting('createrole_self_grant'))
            )::text, true);
        perform pg_catalog.set_config('createrole_self_grant', '', true);
    end if;

    for _role, _purpose in values
        ('audit_owner', 'auditdb: owns the audit schema; nobody is a member of it'),
        ('audit_mapper', 'auditdb: runs mapping expressions; reads mapped columns'),
        ('audit_operator', 'auditdb: attaches tables, manages keys, keeps partitions'),
        ('audit_writer', 'auditdb: sets the context and records events'),
        ('audit_reader', 'auditdb: reads through row-level security'),
        ('audit_auditor', 'auditdb: reads everything'),
        ('audit_backup', 'auditdb: dumps everything, the keys too')
    loop
        if pg_catalog.to_regrole(_role) is null then
            begin
                execute pg_catalog.format('create role %I nologin', _role);
                execute pg_catalog.format('comment on role %I is %L', _role, _purpose);
            exception when duplicate_object or unique_violation then
                null;  -- another database of this cluster was installed at the same moment
            when insufficient_privilege then
                raise exception 'role "%" may not create the roles of auditdb: %', current_user,
                        sqlerrm
                    using errcode = 'insufficient_privilege',
                        hint = 'Install as a superuser, or as a role with CREATEROLE.';
            end;
        end if;
    end loop;
end
$$;

-- The installing role acts as audit_owner until install ends, and stays an operator.
do $$
declare
    _me text := current_user;
    _with text := case when current_setting('server_version_num')::int >= 160000
        then ' with set true, inherit true' else '' end;
begin
    if not pg_catalog.pg_has_role(_me, 'audit_owner', 'member')
        or current_setting('server_version_num')::int >= 160000
            and not pg_catalog.pg_has_role(_me, 'audit_owner', 'usage')
    then
        execute pg_catalog.format('grant audit_owner to %I%s', _me, _with);
    end if;
    if not exists (
        select from pg_catalog.pg_auth_members
        where roleid = 'audit_mapper'::regrole and member = 'audit_owner'::regrole
    ) then
        grant audit_mapper to audit_owner;
    end if;
    -- Since PostgreSQL 16 the role that created it is a member that inherits nothing.
    if not pg_catalog.pg_has_role(_me, 'audit_operator', 'usage') then
        execute pg_catalog.format('grant audit_operator to %I%s', _me, _with);
    end if;
exception when insufficient_privilege then
    raise exception 'role "%" may not grant the roles of auditdb: %', _me, sqlerrm
        using errcode = 'insufficient_privilege', hint = case
            when current_setting('server_version_num')::int < 160000
            then pg_catalog.format('Install as a superuser, or as a role with CREATEROLE. If %I is '
                'to install too, and may then grant itself any role, have a superuser run: '
                'alter role %I createrole', _me, _me)
            -- The right to grant the roles is enough: the role need not be a member of audit_owner.
            else pg_catalog.format(
                'Install as a superuser%s. If %I is to install too, and may then come to read and '
                'change the log of every database of this cluster, have one of them run: grant '
                'audit_owner, audit_mapper, audit_operator to %I with admin true, inherit false, '
                'set false',
                (
                    select ' or one of: '
                        || pg_catalog.string_agg(distinct member::regrole::text, ', ')
                    from pg_catalog.pg_auth_members
                    where roleid = 'audit_owner'::regrole and admin_option
                ), _me, _me) end;
end
$$;

-- After a restore without owners, everything belongs to the role that restored it. Only that role
-- can give it back. Taking objects of another role would run its triggers and defaults as us.
do $$
declare
    _me name := current_user;
    -- Not by to_regclass, which fails if another role owns the schema.
    _is_auditdb boolean := exists (
            select from pg_catalog.pg_class as c
                join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
            where n.nspname = 'audit_private' and c.relname = 'migration')
        or exists (
            select from pg_catalog.pg_namespace
            where nspname = 'audit'
                and pg_catalog.obj_description(oid, 'pg_namespace') like 'auditdb: %'
        );
    _schema text;
    _owner name;
begin
    perform pg_catalog.set_config('auditdb.restored_by', '', true);
    select nspname, pg_catalog.pg_get_userbyid(nspowner) into _schema, _owner
    from pg_catalog.pg_namespace
    where nspname in ('audit', 'audit_private') and nspowner <> 'audit_owner'::regrole
    order by pg_catalog.pg_get_userbyid(nspowner) = _me, nspname
    limit 1;
    if _schema is null then
        return;
    elsif not _is_auditdb then
        raise exception 'schema "%" exists already and is not auditdb''s', _schema
            using errcode = 'duplicate_schema', hint = pg_catalog.format(
                'Rename it (alter schema %s rename to ...); auditdb needs this name.', _schema);
    elsif _owner <> _me then
        raise exception 'schema "%" of auditdb was restored by "%"', _schema, _owner
            using errcode = 'insufficient_privilege', hint = pg_catalog.format(
                'Install as %s, who owns it and so can give it back.', _owner);
    end if;
    perform pg_catalog.set_config('auditdb.restored_by', _owner, true);
end
$$;

do $$
begin
    if pg_catalog.to_regclass('audit_private.attachment') is not null
        and pg_catalog.to_regclass('audit.event') is null
    then
        raise exception 'schema audit_private exists, but the log, audit.event, does not: only a '
                'part was restored'
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Restore schema audit too. If there is no log to restore, drop what is left '
                    'with its triggers (drop schema audit_private cascade), and install again.';
    end if;
end
$$;

-- Reads the version from the source of the function: calling it might run foreign code.
do $$
declare
    _release text := pg_catalog.current_setting('auditdb.release');
    _installed text := pg_catalog.substring(
        pg_catalog.pg_get_functiondef(pg_catalog.to_regprocedure('audit.version()')),
        '''([0-9]+(?:[.][0-9]+)+)''');
begin
    if pg_catalog.string_to_array(_installed, '.')::int[]
        > pg_catalog.string_to_array(_release, '.')::int[]
    then
        raise exception 'this database has auditdb %, and this is %', _installed, _release
            using errcode = 'object_not_in_prerequisite_state',
                hint = pg_catalog.format('Install %s or later.', _installed);
    end if;
end
$$;

do $$
declare
    _kind text;
    _object text;
    _owner name;
    _wanted name;
begin
    -- audit_owner may take over objects only in a schema that it owns itself.
    for _kind, _object, _owner, _wanted in
        select 'schema', nspname::text, pg_catalog.pg_get_userbyid(nspowner), 'audit_owner'
        from pg_catalog.pg_namespace
        where nspname in ('audit', 'audit_private')
        union all
        select case relkind when 'S' then 'sequence' when 'v' then 'view'
                when 'm' then 'materialized view' when 'f' then 'foreign table' else 'table' end,
            c.oid::regclass::text, pg_catalog.pg_get_userbyid(relowner), 'audit_owner'
        from pg_catalog.pg_class as c
        where relnamespace::regnamespace::text in ('audit', 'audit_private')
            and relkind in ('r', 'p', 'v', 'm', 'f', 'S')
            -- The sequence of an identity column goes with its table.
            and not exists (
                select from pg_catalog.pg_depend
                where classid = 'pg_class'::regclass and objid = c.oid and deptype = 'i'
                    and relkind = 'S'
            )
        union all
        select 'type', t.oid::regtype::text, pg_catalog.pg_get_userbyid(typowner),
            'audit_owner'
        from pg_catalog.pg_type as t
        where typnamespace::regnamespace::text in ('audit', 'audit_private')
            and typelem = 0 and (typrelid = 0 or exists (
                select from pg_catalog.pg_class as c where c.oid = typrelid and relkind = 'c'))
        union all
        select 'routine', oid::regprocedure::text, pg_catalog.pg_get_userbyid(proowner),
            -- The rule of audit_private.is_of_mapper, which may be missing here.
            case when proname ~ '^((read|organization|admin)_[0-9]+(_(exists|late))?|rescue|examine'
                '|try_expression)$'
                then 'audit_mapper' else 'audit_owner' end
        from pg_catalog.pg_proc
        where pronamespace::regnamespace::text in ('audit', 'audit_private')
    loop
        if _owner = current_user then
            if _wanted = 'audit_mapper' then
                grant create on schema audit_private to audit_mapper;
            end if;
            execute pg_catalog.format('alter %s %s owner to %s', _kind, _object, _wanted);
        elsif _owner not in ('audit_owner', 'audit_mapper')
            and pg_catalog.current_setting('auditdb.restored_by') <> ''
        then
            raise exception '% % belongs to "%", and the rest of the log to "%"',
                    _kind, _object, _owner, current_user
                using errcode = 'insufficient_privilege', hint = pg_catalog.format(
                    'Its code would run as the role that installs. If you know it: '
                    'alter %s %s owner to %I; then install again.', _kind, _object, current_user);
        end if;
    end loop;
end
$$;

do $$
begin
    if pg_catalog.to_regnamespace('audit') is null then
        create schema audit authorization audit_owner;
    end if;
    if pg_catalog.to_regnamespace('audit_private') is null then
        create schema audit_private authorization audit_owner;
    end if;
exception when insufficient_privilege then
    raise exception 'role "%" may not create a schema in database "%"',
            current_user, current_database()
        using errcode = 'insufficient_privilege',
            hint = pg_catalog.format('Have its owner run: grant create on database %I to %I',
                current_database(), current_user);
end
$$;

set local role audit_owner;
set local lock_timeout = '5s';

revoke all on schema audit, audit_private from public;
comment on schema audit is
    'auditdb: an append-only log of who did what, read through row-level security';
comment on schema audit_private is
    'auditdb: the implementation of schema audit; nobody calls or reads it directly';

-- An older release kept these tables in schema audit.
do $$
declare
    _table text;
begin
    foreach _table in array
        '{migration,migration_log,migration_version,migration_lock}'::text[]
    loop
        if pg_catalog.to_regclass('audit.' || _table) is not null then
            execute pg_catalog.format('alter table audit.%I set schema audit_private', _table);
        end if;
    end loop;
end
$$;

create table if not exists audit_private.migration (
    migration_hash varchar(64) primary key,
    migration_id varchar(255),
    applied_at_utc timestamp
);
comment on table audit_private.migration is
    'Migrations that were applied (kept by yoyo-migrations)';

create table if not exists audit_private.migration_log (
    id varchar(36) primary key,
    migration_hash varchar(64),
    migration_id varchar(255),
    operation varchar(10),
    username varchar(255),
    hostname varchar(255),
    comment varchar(255),
    created_at_utc timestamp
);
comment on table audit_private.migration_log is
    'When each migration ran, and which role ran it (kept by yoyo-migrations)';

create table if not exists audit_private.migration_version (
    version int primary key,
    installed_at_utc timestamp
);
comment on table audit_private.migration_version is
    'Layout of the bookkeeping tables (kept by yoyo-migrations)';

insert into audit_private.migration_version
values (1, now() at time zone 'utc'), (2, now() at time zone 'utc')
on conflict do nothing;

create table if not exists audit_private.migration_lock (
    locked int default 1 primary key,
    ctime timestamp,
    pid int not null
);
comment on table audit_private.migration_lock is
    'Unused: install holds an advisory lock (kept by yoyo-migrations)';

do $$
begin
    perform pg_catalog.set_config('lock_timeout',
        pg_catalog.current_setting('auditdb.before')::jsonb ->> 'lock_timeout', true);
end
$$;
