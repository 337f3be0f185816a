-- What must exist before the first migration: the roles, the schemas and yoyo's bookkeeping tables.
-- Safe to run any number of times, by a superuser or by a role with CREATEROLE; creates only what
-- is absent. Part of a transaction, which goes on as audit_owner.

do $$
declare
    _schema text;
    _role text;
    _purpose text;
begin
    if current_setting('server_version_num')::int < 150000 then
        raise exception 'auditdb needs PostgreSQL 15 or later, this server is %',
                current_setting('server_version')
            using errcode = 'feature_not_supported',
                hint = 'Upgrade the server.';
    end if;

    select nspname into _schema from pg_catalog.pg_namespace
    where nspname in ('audit', 'audit_private') and nspowner::regrole::text <> 'audit_owner';
    if _schema is not null then
        raise exception 'schema "%" exists already and is not auditdb''s', _schema
            using errcode = 'duplicate_schema', hint = pg_catalog.format(
                'Rename it (alter schema %s rename to ...); auditdb needs this name.', _schema);
    end if;

    for _role, _purpose in values
        ('audit_owner', 'auditdb: owns the audit schema; nobody is a member of it'),
        ('audit_mapper', 'auditdb: runs mapping expressions; reads mapped columns'),
        ('audit_operator', 'auditdb: attaches tables, manages keys, keeps partitions'),
        ('audit_writer', 'auditdb: sets the context and records events'),
        ('audit_reader', 'auditdb: reads through row-level security'),
        ('audit_auditor', 'auditdb: reads everything')
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

-- The installing role acts as audit_owner until install ends; it stays an operator.
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
        using errcode = 'insufficient_privilege',
            hint = 'Install as a superuser, or as a role with CREATEROLE that holds '
                'audit_owner, audit_mapper and audit_operator with admin option.';
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
    'auditdb: what the schema audit is made of; nobody calls or reads it';

-- An older installation kept them in the schema audit.
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
    'When each migration ran, and as whom (kept by yoyo-migrations)';

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
