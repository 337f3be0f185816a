-- auditdb: run in one transaction, for instance with: psql -1 -v ON_ERROR_STOP=1 -f
set search_path = pg_catalog, pg_temp;
do $$ begin perform pg_advisory_xact_lock(hashtextextended('auditdb', 0)); end $$;
-- What must exist before the first migration: the roles, the schema and yoyo's bookkeeping tables.
-- Safe to run any number of times, by a superuser or by a role with CREATEROLE; creates only what
-- is absent.

set lock_timeout = '5s';

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

    if exists (
        select from pg_catalog.pg_namespace
        where nspname = 'audit' and nspowner::regrole::text <> 'audit_owner'
    ) then
        raise exception 'schema "audit" exists already and is not auditdb''s'
            using errcode = 'duplicate_schema',
                hint = 'Rename it (alter schema audit rename to ...); auditdb needs this name.';
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
exception when insufficient_privilege then
    raise exception 'role "%" may not create a schema in database "%"',
            current_user, current_database()
        using errcode = 'insufficient_privilege',
            hint = pg_catalog.format('Have its owner run: grant create on database %I to %I',
                current_database(), current_user);
end
$$;

set role audit_owner;

revoke all on schema audit from public;
comment on schema audit is
    'auditdb: an append-only log of who did what, read through row-level security';

create table if not exists audit.migration (
    migration_hash varchar(64) primary key,
    migration_id varchar(255),
    applied_at_utc timestamp
);
comment on table audit.migration is 'Migrations that were applied (kept by yoyo-migrations)';

create table if not exists audit.migration_log (
    id varchar(36) primary key,
    migration_hash varchar(64),
    migration_id varchar(255),
    operation varchar(10),
    username varchar(255),
    hostname varchar(255),
    comment varchar(255),
    created_at_utc timestamp
);
comment on table audit.migration_log is
    'When each migration ran, and as whom (kept by yoyo-migrations)';

create table if not exists audit.migration_version (
    version int primary key,
    installed_at_utc timestamp
);
comment on table audit.migration_version is
    'Layout of the bookkeeping tables (kept by yoyo-migrations)';

insert into audit.migration_version
values (1, now() at time zone 'utc'), (2, now() at time zone 'utc')
on conflict do nothing;

create table if not exists audit.migration_lock (
    locked int default 1 primary key,
    ctime timestamp,
    pid int not null
);
comment on table audit.migration_lock is
    'Unused: install holds an advisory lock (kept by yoyo-migrations)';

reset role;
reset lock_timeout;

set role audit_owner;
do $migration$
begin
    if not exists (
        select from audit.migration where migration_hash = 'b1674383d16881f4f4629da3c086a422e61d775202a33f27324fef0b4d2b9ad9'
    ) then
        execute $statements$
-- The tables: events by month, known actions, attached tables, signing keys, the attestation.
-- Every statement may meet its own result: yoyo commits a migration and its mark apart.

create sequence if not exists audit.event_id_seq as bigint;
comment on sequence audit.event_id_seq is 'Source of audit.event.id';

-- Nothing here may refuse an event: no foreign key, no check, nothing unique beyond the id.
create table if not exists audit.event (
    id bigint not null default nextval('audit.event_id_seq'),
    occurred_at timestamptz not null default clock_timestamp(),
    transaction_id xid8 not null default pg_current_xact_id(),
    action text not null,
    result text not null,
    actor_id text,
    actor_type text not null,
    impersonator_id text,
    db_user text not null default session_user,
    organization_id text,
    target_type text,
    target_id text,
    subject_id text,
    source text not null,
    captured_from text,
    old_values jsonb,
    new_values jsonb,
    details jsonb,
    primary key (occurred_at, id)
) partition by range (occurred_at);

create table if not exists audit.event_default partition of audit.event default;

-- Pages come in its order. The last three are conditions that it answers without a look at the
-- rows. At their longest, with 800 bytes for each but the action's 200, all six fit a third of a page.
create index if not exists event_organization_id_idx
    on audit.event (organization_id, occurred_at desc, id desc, action, actor_id, target_id);

comment on table audit.event is
    'The log: one row for each event, append-only, by month, guarded by row-level security';
comment on column audit.event.id is
    'Ascending in the order in which events were written, with gaps where transactions rolled back';
comment on column audit.event.occurred_at is 'Clock of the server when the event was written';
comment on column audit.event.transaction_id is
    'Transaction that made the change; events of one transaction belong together';
comment on column audit.event.action is 'What was done, as category.verb; see audit.action';
comment on column audit.event.result is 'success, failure or denied';
comment on column audit.event.actor_id is
    'Who did it, as claimed by the context; the database role where no context was set';
comment on column audit.event.actor_type is
    'user, api_key, system; database where no context was set';
comment on column audit.event.impersonator_id is 'The administrator who acted as the actor, if any';
comment on column audit.event.db_user is
    'session_user: the role that logged in to the database. No client can claim it';
comment on column audit.event.organization_id is
    'Organisation (tenant) that it belongs to; its admins and owners may read it';
comment on column audit.event.target_type is
    'Kind of object it was done to: membership, api_key, ...';
comment on column audit.event.target_id is 'Identifier of that object';
comment on column audit.event.subject_id is
    'The user it is about: the member, the owner of the key';
comment on column audit.event.source is
    'Way in: web, api, saml, oauth, scim, cli, system, ...; sql where no context was set';
comment on column audit.event.captured_from is
    'Table whose trigger captured it; null for an event that was recorded by a call';
comment on column audit.event.old_values is
    'Values before: of changed columns for an update, of the whole row for a delete';
comment on column audit.event.new_values is
    'Values after: of changed columns for an update, of the whole row for an insert';
comment on column audit.event.details is
    'What else is known: ip, user_agent, request_id, reason, ...; degraded where detail was lost';
comment on table audit.event_default is 'Events that no monthly partition covers; normally empty';

create table if not exists audit.action (
    name text primary key
        constraint name_is_category_dot_verb check (name ~ '^[a-z][a-z0-9_]*[.][a-z][a-z0-9_]*$'),
    category text not null generated always as (split_part(name, '.', 1)) stored,
    description text not null
);
comment on table audit.action is
    'Known actions: what audit.event.action may say, and what it means';
comment on column audit.action.name is 'category.verb';
comment on column audit.action.category is 'Part before the dot';
comment on column audit.action.description is 'One sentence for the reader of a log';

create table if not exists audit.attachment (
    id int generated always as identity primary key,
    target regclass not null,
    kind text not null,
    mapping jsonb not null,
    attached_at timestamptz not null default now(),
    attached_by text not null default session_user,
    constraint a_table_is_attached_once unique (target)
);
comment on table audit.attachment is
    'Tables whose changes are captured, and how their rows map to events';
comment on column audit.attachment.id is
    'Suffix of its functions: audit.capture_<id>, audit.image_<id>, ...';
comment on column audit.attachment.target is 'The table';
comment on column audit.attachment.kind is
    'Prefix of its actions: membership, api_key, workflow, ...';
comment on column audit.attachment.mapping is
    'Options as given to audit.attach under "given"; the expressions in force beside it';
comment on column audit.attachment.attached_at is 'When it was last attached or re-mapped';
comment on column audit.attachment.attached_by is 'session_user of that moment';

create table if not exists audit.signing_key (
    id text primary key,
    secret text not null,
    created_at timestamptz not null default now(),
    created_by text not null default session_user,
    retires_at timestamptz
);
comment on table audit.signing_key is 'Keys that sign viewer tokens; readable by no login role';
comment on column audit.signing_key.id is 'Public name of the key, part of each token';
comment on column audit.signing_key.secret is 'Key of HMAC-SHA-256, as text';
comment on column audit.signing_key.created_at is 'When it was made';
comment on column audit.signing_key.created_by is 'session_user of that moment';
comment on column audit.signing_key.retires_at is
    'From then on its tokens are void; null while current';

create table if not exists audit.attestation (
    id bigint generated always as identity primary key,
    attested_at timestamptz not null default clock_timestamp(),
    attested_by text not null default session_user,
    occasion text not null,
    scope regclass not null,
    kind text not null,
    relation regclass not null,
    name text not null,
    fact jsonb
);
create index if not exists attestation_scope_kind_relation_name_id_idx
    on audit.attestation (scope, kind, relation, name, id desc);

comment on table audit.attestation is
    'What stood in the catalogs at install, attach and detach, for audit.doctor(). Append-only';
comment on column audit.attestation.id is
    'The highest of the same scope, kind, relation and name is in force';
comment on column audit.attestation.attested_at is 'When it was found so';
comment on column audit.attestation.attested_by is 'session_user of that moment';
comment on column audit.attestation.occasion is
    'install, attach, attest, detach, month, drain, retention or mend';
comment on column audit.attestation.scope is
    'The attached table it serves; audit.event for the log itself';
comment on column audit.attestation.kind is 'trigger, function, table, relation, policy or grant';
comment on column audit.attestation.relation is
    'The table it is on, for instance a partition; else the scope';
comment on column audit.attestation.name is 'Its name there';
comment on column audit.attestation.fact is
    'Fingerprint of the definition, oid and xmin of the catalog row, ...; null once it is gone';

do $$
begin
    if pg_catalog.to_regtype('audit.image') is null then
        create type audit.image as (
            action text,
            organization_id text,
            target_id text,
            subject_id text,
            old_values jsonb,
            new_values jsonb,
            details jsonb
        );
    end if;
end
$$;
comment on type audit.image is
    'What a captured row says: an event but for who, when and from where';

do $$
begin
    if pg_catalog.to_regtype('audit.fact') is null then
        create type audit.fact as (
            scope regclass,
            kind text,
            relation regclass,
            name text,
            fact jsonb
        );
    end if;
    if pg_catalog.to_regtype('audit.finding') is null then
        create type audit.finding as (
            check_name text,
            severity text,
            object text,
            problem text,
            why text,
            mend text,
            fixable boolean
        );
    end if;
end
$$;
comment on type audit.fact is 'What an attestation says of one object';
comment on type audit.finding is
    'What audit.doctor() found: severity is critical, warning or notice; fixable by doctor --fix';
$statements$;
        insert into audit.migration
        values ('b1674383d16881f4f4629da3c086a422e61d775202a33f27324fef0b4d2b9ad9', 'auditdb.0001-event-store', now() at time zone 'utc');
    end if;
end
$migration$;
-- The guard: nothing in the log is ever changed or taken away, not even by its owner.
-- Row triggers on audit.event are cloned to every partition; TRUNCATE needs one on each.

create or replace function audit.refuse_change() returns trigger
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception '% on %.% is refused: the audit log is append-only',
            tg_op, tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege',
            hint = 'Only whole months go, by audit.maintain(keep => ...).';
end
$$;
comment on function audit.refuse_change() is 'Trigger function: refuses to change or remove events';

create or replace function audit.guard(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    -- Only where needed: each takes a lock that every writer waits for.
    if not (select relrowsecurity and relforcerowsecurity from pg_class
        where oid = guard.target) then
        execute format('alter table %s enable row level security, force row level security',
            guard.target);
    end if;
    if not exists (
        select from pg_trigger where tgrelid = guard.target and tgname = 'refuse_truncate'
    ) then
        execute format('create trigger refuse_truncate before truncate on %s '
            'for each statement execute function audit.refuse_change()', guard.target);
    end if;
    if exists (
        select from pg_trigger
        where tgrelid = guard.target and tgname = 'refuse_truncate' and tgenabled <> 'A'
    ) then
        execute format('alter table %s enable always trigger refuse_truncate', guard.target);
    end if;
end
$$;
comment on function audit.guard(regclass) is
    'Puts row-level security and the guard against TRUNCATE on the log or on one of its partitions';

create or replace function audit.guard_log() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _table regclass;
begin
    foreach _table in array '{audit.event,audit.attestation}'::regclass[] loop
        if not exists (
            select from pg_trigger where tgrelid = _table and tgname = 'refuse_change'
        ) then
            execute format('create trigger refuse_change before update or delete on %s '
                'for each row execute function audit.refuse_change()', _table);
        end if;
    end loop;
    for _table in
        select relid from pg_partition_tree('audit.event')
        union all
        select 'audit.attestation'::regclass
    loop
        perform audit.guard(_table);
        -- ENABLE ALWAYS on the parent did not reach clones before PostgreSQL 15.
        if exists (
            select from pg_trigger
            where tgrelid = _table and tgname = 'refuse_change' and tgenabled <> 'A'
        ) then
            execute format('alter table %s enable always trigger refuse_change', _table);
        end if;
    end loop;
    -- Or a member of pg_read_all_data could sign tokens, and one of pg_write_all_data map tables
    -- anew.
    foreach _table in array '{audit.signing_key,audit.attachment}'::regclass[] loop
        if not (select relrowsecurity and relforcerowsecurity from pg_class where oid = _table) then
            execute format('alter table %s enable row level security, force row level security',
                _table);
        end if;
    end loop;
end
$$;
comment on function audit.guard_log() is
    'Puts the guards on the log, on each of its partitions, on the attestation, and on the keys';

do $$ begin perform audit.guard_log(); end $$;

-- The context: who acts, and from where, for the rest of the current transaction.
-- A claim by whoever holds the connection. Transaction-local, so that a pool cannot leak it.

create or replace function audit.set_context(
    actor_id text default null,
    actor_type text default 'user',
    impersonator_id text default null,
    source text default 'web',
    organization_id text default null,
    details jsonb default null
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if set_context.actor_type is null
        or set_context.actor_type not in ('user', 'api_key', 'system', 'database')
    then
        raise exception 'actor_type is "%"', set_context.actor_type
            using errcode = 'invalid_parameter_value',
                hint = 'It is one of user, api_key, system, database.';
    end if;
    if jsonb_typeof(set_context.details) <> 'object' then
        raise exception 'details is %, not an object', jsonb_typeof(set_context.details)
            using errcode = 'invalid_parameter_value',
                hint = 'Give a jsonb object, as in ''{"ip": "203.0.113.9"}''.';
    end if;
    if greatest(length(set_context.actor_id), length(set_context.impersonator_id),
        length(set_context.organization_id), length(set_context.source)) > 200
    then
        raise exception 'an identifier of the context is longer than 200 characters'
            using errcode = 'string_data_right_truncation',
                hint = 'Put long values into details.';
    end if;
    perform set_config('auditdb.context', jsonb_strip_nulls(jsonb_build_object(
        'actor_id', set_context.actor_id,
        'actor_type', set_context.actor_type,
        'impersonator_id', set_context.impersonator_id,
        'source', set_context.source,
        'organization_id', set_context.organization_id,
        'details', set_context.details
    ))::text, true);
end
$$;
comment on function audit.set_context(text, text, text, text, text, jsonb) is
    'Says who acts, and from where, until the current transaction ends. While impersonating, '
    'actor_id '
    'is the impersonated user and impersonator_id the administrator. organization_id serves events '
    'whose row belongs to no organisation. details goes into every event';

create or replace function audit.clear_context() returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    select set_config('auditdb.context', '', true);
$$;
comment on function audit.clear_context() is 'Forgets the context for the rest of the transaction';

create or replace function audit.current_context() returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _context jsonb;
begin
    _context := nullif(current_setting('auditdb.context', true), '')::jsonb;
    return case when jsonb_typeof(_context) = 'object' then _context end;
exception when others then
    return null;
end
$$;
comment on function audit.current_context() is 'The context in force, or null';

-- Capture at run time: what the generated trigger functions call.
-- Writes one event for each changed row, in the row's transaction, and never fails for what a row
-- holds.

-- Runs with the rights of the trigger function that calls it, which is the only way to the log.
-- Scalars, not an image: a composite value costs more to hand over than all of them. Expressions
-- stand before the INSERT, not in it: it sets up every node anew at each execution.
create or replace function audit.append(
    action text,
    organization_id text,
    target_type text,
    target_id text,
    subject_id text,
    captured_from text,
    old_values jsonb,
    new_values jsonb,
    details jsonb,
    context jsonb
) returns boolean
-- row_security is off in a session that restores a dump, and would turn the INSERT into an error.
language plpgsql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
#variable_conflict use_variable
declare
    _actor_id text;
    _actor_type text := 'database';
    _impersonator_id text;
    _source text := 'sql';
    _given jsonb;
begin
    if context is null then
        _actor_id := session_user;
        _given := jsonb_strip_nulls(jsonb_build_object(
            'application_name', nullif(current_setting('application_name'), ''),
            'client_addr', host(inet_client_addr())
        ));
    else
        _actor_id := left(context ->> 'actor_id', 200);
        _actor_type := coalesce(left(context ->> 'actor_type', 200), 'database');
        _impersonator_id := left(context ->> 'impersonator_id', 200);
        _source := coalesce(left(context ->> 'source', 200), 'sql');
        if organization_id is null then
            organization_id := left(context ->> 'organization_id', 200);
        end if;
        if jsonb_typeof(context -> 'details') = 'object' then
            _given := context -> 'details';
        end if;
    end if;
    if details is null then
        details := _given;
    elsif _given is not null then
        details := _given || details;
    end if;
    insert into audit.event (
        action, result, actor_id, actor_type, impersonator_id, organization_id,
        target_type, target_id, subject_id, source, captured_from,
        old_values, new_values, details
    ) values (
        action, 'success', _actor_id, _actor_type, _impersonator_id, organization_id,
        target_type, target_id, subject_id, _source, captured_from,
        old_values, new_values, details
    );
    return true;
end
$$;
comment on function audit.append(text, text, text, text, text, text, jsonb, jsonb, jsonb, jsonb) is
    'Writes a captured event; callable by capture functions only';

create or replace function audit.lose_context(details jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return coalesce(details, '{}') || jsonb_build_object('degraded',
    coalesce(details -> 'degraded', '{}') || jsonb_build_object('lost',
        coalesce(details #> '{degraded,lost}', '[]') || '["context"]'));
comment on function audit.lose_context(jsonb) is
    'Details of an event whose context could not be read';

-- A user's row holds several facts. One changed fact names the event; several make an event each,
-- and the columns that belong to none of them go with the first.
create or replace function audit.append_facts(
    image audit.image,
    facts jsonb,
    captured_from text,
    context jsonb
) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _changed jsonb;
    _others text[];
    _fact jsonb;
    _part audit.image;
begin
    select jsonb_agg(f order by n) into _changed
    from jsonb_array_elements(append_facts.facts) with ordinality as t (f, n)
    where append_facts.image.action = 'user.updated'
        and append_facts.image.new_values ? (f ->> 'column');

    if _changed is null then
        _part := append_facts.image;
        perform audit.append(_part.action, _part.organization_id, 'user', _part.target_id,
            _part.subject_id, append_facts.captured_from, _part.old_values, _part.new_values,
            _part.details, append_facts.context);
        return true;
    end if;

    for _fact in select f from jsonb_array_elements(_changed) as f loop
        _part := append_facts.image;
        _part.action := case
            when _fact ? 'action' then _fact ->> 'action'
            when coalesce(_part.new_values -> (_fact ->> 'column'), 'null') in ('false', 'null')
                then 'auth.two_factor_disabled'
            else 'auth.two_factor_enabled'
        end;
        -- Columns that a later event, or an earlier one, shows.
        select coalesce(array_agg(c), '{}') into _others
        from jsonb_array_elements(_changed) as f, jsonb_array_elements_text(f -> 'columns') as c
        where f <> _fact and not (_fact -> 'columns' ? c);
        if _fact = _changed -> 0 then
            _part.old_values := _part.old_values - _others;
            _part.new_values := _part.new_values - _others;
        else
            select jsonb_object_agg(c, _part.old_values -> c),
                jsonb_object_agg(c, _part.new_values -> c)
            into _part.old_values, _part.new_values
            from jsonb_array_elements_text(_fact -> 'columns') as c
            where _part.new_values ? c;
        end if;
        perform audit.append(_part.action, _part.organization_id, 'user', _part.target_id,
            _part.subject_id, append_facts.captured_from, _part.old_values, _part.new_values,
            _part.details, append_facts.context);
    end loop;
    return true;
end
$$;
comment on function audit.append_facts(audit.image, jsonb, text, jsonb) is
    'Writes the events of a user''s row: e-mail, password and two-factor changes under their own '
    'names';

create or replace function audit.is_secret(column_name text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return (column_name ~* '(passw|passphrase|secret|token|hash|salt$|private_?key|api_?key|access_?key'
        '|encrypt|cipher|credential|(backup|recovery|scratch)_?codes?|totp|(^|_)otp|signing_?key)'
        or column_name ~ '[a-z]Otp')
    and column_name !~*
        '(_at|_on|_type|_count|_algorithm|enabled|verified|expires?|expiry|limit|key_?id)$'
    and column_name !~ '[a-z](At|On|Type|Count|Algorithm)$';
comment on function audit.is_secret(text) is
    'Whether values of a column of this name are redacted by default';

create or replace function audit.redact(image jsonb, redacted text[]) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return case when redact.image is not null then (
    select coalesce(jsonb_object_agg(key, case
        when value <> 'null' and key = any(redact.redacted)
            or jsonb_typeof(value) not in ('null', 'boolean') and audit.is_secret(key)
        then '"[redacted]"' else value end), '{}')
    from jsonb_each(redact.image)
) end;
comment on function audit.redact(jsonb, text[]) is
    'An image of a row without the values of the given columns and of those that look like secrets';

-- Column by column where the row as a whole cannot be read.
create or replace function audit.read_row(
    source anyelement,
    out image jsonb,
    out as_text text[],
    out lost text[]
)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _column text;
    _value jsonb;
begin
    image := to_jsonb(read_row.source);
exception when assert_failure or others then
    image := '{}';
    for _column in
        select attname from pg_attribute
        where attrelid = (select typrelid from pg_type where oid = pg_typeof(read_row.source))
            and attnum > 0 and not attisdropped
        order by attnum
    loop
        begin
            execute format('select to_jsonb(($1).%I)', _column) into _value using read_row.source;
        exception when assert_failure or others then
            begin
                execute format('select to_jsonb(($1).%I::text)', _column)
                    into _value using read_row.source;
                as_text := as_text || _column;
            exception when assert_failure or others then
                _value := to_jsonb(format('[unreadable: %s]', sqlstate));
                lost := lost || _column;
            end;
        end;
        image := image || jsonb_build_object(_column, _value);
    end loop;
end
$$;
comment on function audit.read_row(anyelement) is
    'A row as jsonb; what could be read only as text, or not at all, is named';

create or replace function audit.evaluate(expression text, source anyelement) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _value text;
begin
    if evaluate.expression is not null then
        execute format(E'select (%s\n)::text from (select ($1).*) as r', evaluate.expression)
            into _value using evaluate.source;
    end if;
    return _value;
end
$$;
comment on function audit.evaluate(text, anyelement) is 'Value of a mapping expression over a row';

-- The second step of the ladder: taken when the generated code raised, because the table is no
-- longer as it was when attached, or because a value or a lookup cannot be read.
create or replace function audit.rescue(
    op text,
    old anyelement,
    new anyelement,
    mapping jsonb,
    reason text
) returns audit.image
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _image audit.image;
    _before record;
    _after record;
    _lost text[] := '{}';
    _as_text text[] := '{}';
    _redacted text[] := array(select jsonb_array_elements_text(rescue.mapping -> 'redact'));
    _ignored text[] := array(select jsonb_array_elements_text(rescue.mapping -> 'ignore'));
    _values jsonb := '{}';
    _name text;
    _side text;
    _value text;
begin
    _before := audit.read_row(rescue.old);
    _after := audit.read_row(rescue.new);
    _lost := coalesce(_before.lost, '{}') || coalesce(_after.lost, '{}');
    _as_text := coalesce(_before.as_text, '{}') || coalesce(_after.as_text, '{}');
    if not coalesce(_after.image, _before.image) ?& _redacted then
        -- A secret was renamed: it may be in any column that was not there before.
        _redacted := _redacted || array(
            select name from jsonb_object_keys(coalesce(_after.image, _before.image)) as name
            where not rescue.mapping -> 'columns' ? name);
    end if;

    if rescue.op = 'UPDATE' then
        select array_agg(key) into _ignored
        from jsonb_each(_after.image)
        where key = any(_ignored) or value is not distinct from _before.image -> key;
        _image.old_values := _before.image - coalesce(_ignored, '{}');
        _image.new_values := _after.image - coalesce(_ignored, '{}');
        if _image.new_values = '{}' and _lost = '{}' then
            return null;
        end if;
        if rescue.mapping ? 'whole' then
            _image.old_values := _before.image;
            _image.new_values := _after.image;
        end if;
    elsif rescue.op = 'INSERT' then
        _image.new_values := _after.image;
    else
        _image.old_values := _before.image;
    end if;
    _image.old_values := audit.redact(_image.old_values, _redacted);
    _image.new_values := audit.redact(_image.new_values, _redacted);

    -- Each expression on its own, so that one that fails takes no other with it.
    foreach _name in array array['organization', 'target_id', 'subject', 'role', 'alive',
        'row_id'] loop
        foreach _side in array array['old', 'new'] loop
            _value := null;
            continue when _side = case rescue.op when 'INSERT' then 'old' when 'DELETE'
                then 'new' end;
            begin
                _value := case _side
                    when 'old' then audit.evaluate(rescue.mapping ->> _name, rescue.old)
                    else audit.evaluate(rescue.mapping ->> _name, rescue.new) end;
                if length(_value) > 200 then
                    _lost := _lost || _name;
                    -- Cut short, an organisation could be mistaken for another.
                    _value := case when _name <> 'organization' then left(_value, 200) end;
                end if;
            exception when assert_failure or others then
                _lost := _lost || _name;
                if _name = 'alive' then
                    _value := 'true';
                end if;
            end;
            _values := _values || jsonb_build_object(_name || '.' || _side, _value);
        end loop;
    end loop;
    _image.organization_id := coalesce(_values ->> 'organization.new',
        _values ->> 'organization.old');
    _image.target_id := coalesce(_values ->> 'target_id.new', _values ->> 'target_id.old');
    _image.subject_id := coalesce(_values ->> 'subject.new', _values ->> 'subject.old');
    _image.action := audit.action_of(
        rescue.mapping, rescue.op,
        case when rescue.mapping ? 'alive' then (_values ->> 'alive.old')::boolean else true end,
        case when rescue.mapping ? 'alive' then (_values ->> 'alive.new')::boolean else true end,
        _values ->> 'role.old', _values ->> 'role.new'
    );
    if _image.action = rescue.mapping -> 'verbs' ->> 'role_changed' then
        _image.details := jsonb_build_object(
            'previous_role', _values -> 'role.old', 'new_role', _values -> 'role.new');
    end if;
    if rescue.mapping ? 'row_id' then
        _image.details := jsonb_build_object('row_id',
            coalesce(_values -> 'row_id.new', _values -> 'row_id.old'));
    end if;
    if _lost <> '{}' or _as_text <> '{}' then
        _image.details := coalesce(_image.details, '{}') || jsonb_build_object('degraded',
            jsonb_strip_nulls(jsonb_build_object('sqlstate', rescue.reason,
                'lost', (select jsonb_agg(distinct n) from unnest(_lost) as n),
                'as_text', (select jsonb_agg(distinct n) from unnest(_as_text) as n))));
    end if;
    return _image;
end
$$;
comment on function audit.rescue(text, anyelement, anyelement, jsonb, text) is
    'The image of a row that the generated code could not read, with details.degraded naming '
    'what was lost';

create or replace function audit.action_of(
    mapping jsonb,
    op text,
    was_alive boolean,
    is_alive boolean,
    old_role text,
    new_role text
) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return action_of.mapping -> 'verbs' ->> case
    when action_of.mapping ? 'parent' then 'changed'
    when action_of.op = 'INSERT' then case when is_alive then 'born' else 'changed' end
    when action_of.op = 'DELETE' then case when was_alive then 'died' else 'changed' end
    when is_alive and was_alive is not true then 'born'
    when was_alive and is_alive is not true then 'died'
    when old_role is distinct from new_role then 'role_changed'
    else 'changed'
end;
comment on function audit.action_of(jsonb, text, boolean, boolean, text, text) is
    'The action that a change of a row stands for';

-- Defaults: what the names, keys and types of a table say where audit.attach was told nothing.
-- Each returns an expression over the row r, or null where the table does not tell.

create or replace function audit.column_like(target regclass, variadic patterns text[]) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select attname
    from unnest(column_like.patterns) with ordinality as p (pattern, rank),
        pg_attribute
    where attrelid = column_like.target and attnum > 0 and not attisdropped
        and lower(replace(attname, '_', '')) ~ ('^(' || pattern || ')$')
    order by rank, attnum
    limit 1
);
comment on function audit.column_like(regclass, text[]) is
    'First column whose name, in lower case without underscores, matches a pattern; patterns rank';

create or replace function audit.over_row(target regclass, expression text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(
        (
            select 'r.' || quote_ident(attname)
            from pg_attribute
            where attrelid = over_row.target and attnum > 0 and not attisdropped
                and (attname = btrim(over_row.expression)
                    or quote_ident(attname) = btrim(over_row.expression)
                    or '"' || attname || '"' = btrim(over_row.expression))
        ),
        nullif(btrim(over_row.expression), '')
    )
);
comment on function audit.over_row(regclass, text) is
    'An option as an expression over the row r: a column name becomes r.<column>';

create or replace function audit.key_of(target regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case count(*)
        when 0 then null
        when 1 then min(form)
        else 'concat_ws('','', ' || string_agg(form, ', ' order by n) || ')'
    end
    from (
        select indrelid, indkey, indnkeyatts
        from pg_index
        where indrelid = key_of.target and indisunique and indisvalid
            and indpred is null and indexprs is null
            and (indisprimary or not exists (
                select from pg_attribute
                where attrelid = indrelid and attnum = any(indkey) and not attnotnull))
        order by indisprimary desc, indexrelid
        limit 1
    ) as best
        cross join unnest(best.indkey) with ordinality as k (attnum, n)
        join pg_attribute as a on a.attrelid = key_of.target and a.attnum = k.attnum
        -- Never as the session's settings would have it: they would name the same row differently.
        cross join lateral (
            select format(case
                -- A key that is a secret itself, such as a token, is named by its digest.
                when audit.is_secret(attname)
                    then 'encode(sha256(convert_to(r.%I::text, ''UTF8'')), ''hex'')'
                when atttypid in ('date'::regtype, 'timestamp'::regtype)
                    then 'to_jsonb(r.%I) #>> ''{}'''
                when atttypid = 'timestamptz'::regtype
                    then 'to_jsonb(r.%I at time zone ''UTC'') #>> ''{}'''
                when atttypid = 'bytea'::regtype then 'encode(r.%I, ''hex'')'
                else 'r.%I' end, attname)
        ) as f (form)
    where n <= indnkeyatts
);
comment on function audit.key_of(regclass) is
    'Expression for the primary key, else the first unique key without nulls, else null';

create or replace function audit.verbs_of(kind text) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return case kind
    when 'membership' then '{"born": "membership.added", "died": "membership.removed",
        "changed": "membership.updated", "role_changed": "membership.role_changed"}'
    when 'api_key' then '{"born": "api_key.created", "died": "api_key.revoked",
        "changed": "api_key.updated"}'
    when 'workflow' then '{"born": "workflow.created", "died": "workflow.deleted",
        "changed": "workflow.modified"}'
    when 'password' then '{"born": "auth.password_changed", "died": "password.deleted",
        "changed": "auth.password_changed"}'
    when 'two_factor' then '{"born": "auth.two_factor_enabled",
        "died": "auth.two_factor_disabled", "changed": "two_factor.updated"}'
    else jsonb_build_object('born', kind || '.created', 'died', kind || '.deleted',
        'changed', kind || '.updated')
end;
comment on function audit.verbs_of(text) is
    'The actions of a kind: when a row is born, dies, changes, or changes its role';

create or replace function audit.options_of(kind text) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
return case kind
    when 'membership' then
        '{organization,target_id,subject,role,alive,admin,parent,ignore,redact}'
    when 'user' then
        '{organization,target_id,subject,role,alive,admin,email,password,two_factor,ignore,redact}'
    when 'admin' then '{organization,subject}'
    when 'password' then '{organization,target_id,subject,ignore,redact}'
    when 'two_factor' then '{organization,target_id,subject,alive,ignore,redact}'
    else '{organization,target_id,subject,alive,parent,ignore,redact}'
end::text[];
comment on function audit.options_of(text) is 'The options that a kind understands';

create or replace function audit.facts_of(target regclass, given jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _email text := coalesce(facts_of.given ->> 'email',
        audit.column_like(facts_of.target, 'email', '(primary|user|login)?email(address)?'));
    _password text := coalesce(facts_of.given ->> 'password', audit.column_like(facts_of.target,
        '(hashed|encrypted)?password(hash|digest|encrypted)?', '.*passw.*hash.*', 'passwd'));
    _two_factor text := facts_of.given ->> 'two_factor';
    _facts jsonb := '[]';
    _name text;
    _column text;
begin
    if _two_factor is null then
        select attname into _two_factor
        from pg_attribute
        where attrelid = facts_of.target and attnum > 0 and not attisdropped
            and lower(replace(attname, '_',
                '')) ~ '(twofactor|2fa|mfa|totp|twostep)|^otp|otp(enabled|required|active)?$'
            and (atttypid = 'boolean'::regtype
                or atttypid in ('timestamptz'::regtype, 'timestamp'::regtype)
                    and attname ~* '(enabled|confirmed|activated|verified)')
        order by atttypid = 'boolean'::regtype desc, attname ~* '(enabled|active)' desc, attnum
        limit 1;
    end if;
    foreach _name in array array['email', 'password', 'two_factor'] loop
        _column := case _name when 'email' then _email when 'password' then _password
            else _two_factor end;
        continue when _column is null;
        if _name = 'two_factor' and facts_of.given -> 'redact' ? _column then
            raise exception 'option "redact" names column "%", which says whether two-factor is on',
                    _column
                using errcode = 'invalid_parameter_value',
                    hint = 'Leave it readable; secrets and backup codes are redacted by name.';
        end if;
        select attname into strict _column
        from pg_attribute
        where attrelid = facts_of.target and attnum > 0 and not attisdropped
            and _column in (attname, quote_ident(attname), '"' || attname || '"');
        _facts := _facts || jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
            'column', _column,
            'action', case _name when 'email' then 'auth.email_changed'
                when 'password' then 'auth.password_changed' end,
            'columns', case when _name <> 'two_factor' then jsonb_build_array(_column) else (
                -- The secret and the backup codes come and go with the flag.
                select jsonb_agg(attname order by attnum)
                from pg_attribute
                where attrelid = facts_of.target and attnum > 0 and not attisdropped
                    and (attname = _column or lower(replace(attname, '_', ''))
                        ~ '(twofactor|2fa|mfa|totp|twostep|(backup|recovery|scratch)codes?)'
                            '|^otp|otp$')
            ) end
        )));
    end loop;
    return _facts;
exception when no_data_found then
    raise exception 'option "%" names column "%", which % does not have',
            _name, facts_of.given ->> _name, facts_of.target
        using errcode = 'undefined_column',
            hint = 'email, password and two_factor each take the name of a column.';
end
$$;
comment on function audit.facts_of(regclass, jsonb) is
    'The facts in a user''s row that have events of their own: e-mail, password, two-factor';

create or replace function audit.default_alive(target regclass) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _column text;
begin
    _column := audit.column_like(default_alive.target,
        '(deleted|removed|revoked|discarded|archived|deactivated)(at|on|date)');
    if _column is not null then
        return format('r.%I is null', _column);
    end if;
    select attname into _column
    from pg_attribute
    where attrelid = default_alive.target and attnum > 0 and not attisdropped
        and atttypid = 'boolean'::regtype
        and lower(replace(attname, '_', '')) ~ '^(is)?(deleted|removed|revoked|discarded)$'
    order by attnum limit 1;
    if _column is not null then
        return format('r.%I is not true', _column);
    end if;
    return null;
end
$$;
comment on function audit.default_alive(regclass) is
    'Expression for rows that a soft delete has not ended, or null where rows are deleted for real';

create or replace function audit.default_admin(target regclass, role text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select 'lower(' || default_admin.role || '::text) in (''admin'', ''owner'')'
        || coalesce(string_agg(' and ' || format(case
            when atttypid = 'boolean'::regtype then case
                when name ~ '^(is)?(accepted|confirmed|approved|active|enabled)$'
                    then 'r.%I is true'
                when name ~ '^(is)?(pending|invited|disabled|suspended|blocked|banned)$'
                    then 'r.%I is not true' end
            when atttypid in ('timestamptz'::regtype, 'timestamp'::regtype) then case
                when name ~ '^(invitation|invite)?(accepted|confirmed|joined)(at|on)$'
                    then 'r.%I is not null'
                when name ~ '^(disabled|suspended|blocked|banned)(at|on)$' then 'r.%I is null' end
            when name ~ '^(membership|member|invitation|invite)?(status|state)$'
                then 'lower(r.%I::text) in (''active'', ''accepted'', ''confirmed'', ''approved'', '
                    '''enabled'', ''joined'')'
        end, attname), '' order by attnum), '')
    from pg_attribute cross join lower(replace(attname, '_', '')) as name
    where attrelid = default_admin.target and attnum > 0 and not attisdropped
);
comment on function audit.default_admin(regclass, text) is
    'Expression for the admins among members: by their role, not while merely invited or suspended';

create or replace function audit.parent_organization(target regclass, kind text, parent text)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _parents record;
begin
    -- The attached table of the same kind that the column references, else the only one of that
    -- kind.
    for _parents in
        select a.target, a.mapping ->> 'organization' as organization, a.mapping ->> 'target_id'
            as key
        from audit.attachment as a
        where a.kind = parent_organization.kind and a.target <> parent_organization.target
            and not a.mapping ? 'parent'
        order by exists (
            select from pg_constraint as c
            where c.contype = 'f' and c.conrelid = parent_organization.target
                and c.confrelid = a.target
        ) desc, a.id
        limit 1
    loop
        return format('(select p.organization'
            ' from (select %s as key, (%s) as organization from %s as r)'
            ' as p where p.key = %s)', _parents.key,
            coalesce(_parents.organization, 'null::text'), _parents.target,
                parent_organization.parent);
    end loop;
    return null;
end
$$;
comment on function audit.parent_organization(regclass, text, text) is
    'Expression for the organisation of a child row, taken from the mapping of its parent''s table';

-- Mapping: from the options of audit.attach, and the shape of the table where they are silent,
-- to one SQL expression over the row r for each thing that an event says.

create or replace function audit.check_options(target regclass, kind text, given jsonb) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _option text;
    _column text;
begin
    if check_options.kind is null or check_options.kind !~ '^[a-z][a-z0-9_]{0,39}$'
        or check_options.kind in ('audit', 'auth')
    then
        raise exception '"%" is not a kind', check_options.kind
            using errcode = 'invalid_parameter_value',
                hint = 'Use membership, api_key, workflow, user, password, two_factor or a word of '
                    'your own: lower case, digits and underscores, at most 40 characters.';
    end if;
    for _option in select jsonb_object_keys(check_options.given) loop
        if _option <> all (audit.options_of(check_options.kind)) then
            raise exception 'kind "%" has no option "%"', check_options.kind, _option
                using errcode = 'invalid_parameter_value',
                    hint = format('Its options are %s.',
                        array_to_string(audit.options_of(check_options.kind), ', '));
        end if;
        continue when _option not in ('ignore', 'redact');
        for _column in select jsonb_array_elements_text(check_options.given -> _option) loop
            if not exists (
                select from pg_attribute
                where attrelid = check_options.target and attname = _column
                    and attnum > 0 and not attisdropped
            ) then
                raise exception 'option "%" names column "%", which % does not have',
                        _option, _column, check_options.target
                    using errcode = 'undefined_column',
                        hint = 'Name a column of the table, without quotes.';
            end if;
        end loop;
    end loop;
end
$$;
comment on function audit.check_options(regclass, text, jsonb) is
    'Refuses a kind or an option that cannot be meant';

create or replace function audit.resolve_mapping(target regclass, kind text, given jsonb)
returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _mapping jsonb := '{}';
    _organization text := audit.over_row(target, given ->> 'organization');
    _subject text := audit.over_row(target, given ->> 'subject');
    _role text := audit.over_row(target, given ->> 'role');
    _alive text := coalesce(audit.over_row(target, given ->> 'alive'), audit.default_alive(target));
    _parent text := audit.over_row(target, given ->> 'parent');
    _key text := audit.key_of(target);
begin
    perform audit.check_options(target, kind, given);

    -- A child belongs where its parent does, whatever its own columns are called.
    if _organization is null and _parent is not null then
        _organization := audit.parent_organization(target, kind, _parent);
    end if;
    _organization := coalesce(_organization, 'r.' || quote_ident(audit.column_like(target,
        '(organi[sz]ation|org)id', '(tenant|workspace|company|account|customer|team)id')));
    if kind <> 'user' then
        _subject := coalesce(_subject, 'r.' || quote_ident(audit.column_like(target,
            '(user|owner|ownerusr|owneruser)id', '(member|person|profile|account)id',
            'created(by|byid|byuserid)')));
    end if;
    if kind = 'membership' then
        _role := coalesce(_role, 'r.' || quote_ident(audit.column_like(target,
            'role', '(membership|member|organi[sz]ation|org|team|user)role(name)?',
                'role(name|id)')));
    end if;

    _mapping := jsonb_build_object(
        'given', given,
        'verbs', audit.verbs_of(kind) || case
            -- A row that gives a member a role: that it comes or goes changes the member's role.
            when kind = 'membership' and _parent is not null and _role is not null
                then '{"changed": "membership.role_changed"}'
            -- A user with a role in the one organisation of their row: the row is the membership.
            when kind = 'user' and _role is not null
                then audit.verbs_of('membership') || '{"changed": "user.updated"}'
            else '{}' end::jsonb,
        'target_type', case when kind in ('password', 'two_factor') then 'user' else kind end,
        'organization', _organization,
        'target_id', coalesce(
            audit.over_row(target, given ->> 'target_id'),
            _parent,
            case when kind in ('password', 'two_factor') then _subject end,
            _key),
        'row_id', case when _parent is not null and _role is null then _key end,
        -- Nothing tells its rows apart, so that each event carries all of the row.
        'whole', case when _key is null and kind <> 'user' and not given ? 'target_id'
            then true end,
        'subject', case
            when kind = 'user' then coalesce(_subject, audit.over_row(target,
                given ->> 'target_id'),
                _key)
            when kind in ('membership', 'api_key', 'password', 'two_factor', 'admin')
                or given ? 'subject' then _subject end,
        'role', _role,
        'alive', _alive,
        'parent', _parent,
        'ignore', coalesce(given -> 'ignore', (
            select jsonb_agg(attname order by attnum)
            from pg_attribute
            where attrelid = target and attnum > 0 and not attisdropped
                and lower(replace(attname, '_', '')) ~
                    '^((updated|modified)(at|on)'
                    '|(last|current)(used|seen|active|activity|login|signin'
                    '|signedin)(at|on|ip)?|(login|signin|usage|use|used)count|counter|signcount'
                    '|lockversion)$'
        )),
        'redact', (
            select jsonb_agg(attname order by attnum)
            from pg_attribute
            where attrelid = target and attnum > 0 and not attisdropped
                and (audit.is_secret(attname) or given -> 'redact' ? attname
                    or kind = 'api_key'
                        and lower(replace(attname, '_', '')) ~ '^(key|value|secret|digest)$'
                    or kind = 'password' and lower(attname) ~ '(hash|digest|passw|^value$)')
                and (atttypid <> 'boolean'::regtype or given -> 'redact' ? attname)
        ),
        'facts', case when kind = 'user' then audit.facts_of(target, given) end,
        'columns', (
            select jsonb_agg(attname order by attnum)
            from pg_attribute
            where attrelid = target and attnum > 0 and not attisdropped
        )
    );
    if kind = 'membership' and _parent is null or given ? 'admin' then
        _mapping := _mapping || jsonb_build_object('admin', coalesce(
            audit.over_row(target, given ->> 'admin'),
            audit.default_admin(target, _role)));
    elsif kind = 'admin' then
        _mapping := _mapping || '{"admin": "true"}';
    end if;
    if _mapping ? 'admin' and (_organization is null or _mapping ->> 'subject' is null) then
        raise exception '% has no column that tells the % of a %', target,
                case when _organization is null then 'organisation' else 'user' end, kind
            using errcode = 'invalid_parameter_value',
                hint = format('Say it: %s => ''a column or an expression over the row r''.',
                    case when _organization is null then 'organization' else 'subject' end);
    end if;
    return jsonb_strip_nulls(_mapping);
end
$$;
comment on function audit.resolve_mapping(regclass, text, jsonb) is
    'The mapping in force for a table: what was given, completed from its columns and keys';

-- Typed: how generated code that runs as audit_owner reads a value without meeting any code of the
-- application. Conversions that PostgreSQL brings along run no other code, as long as the column
-- has the type that it had when the code was generated: audit.exactly makes sure when the code is
-- parsed, and costs nothing afterwards.

-- Polymorphic types take no cast: where the column has another type, no function fits, and the
-- statement is not even parsed. A pinned search_path would keep the planner from inlining them;
-- they name nothing that could be found elsewhere.
create or replace function audit.exactly(value anyelement, type anyarray) returns anyelement
language sql immutable
as 'select value';
comment on function audit.exactly(anyelement, anyarray) is
    'The value, which must be of the array''s element type and not merely convertible to it';

create or replace function audit.exactly(value anyarray, element anyelement) returns anyarray
language sql immutable
as 'select value';
comment on function audit.exactly(anyarray, anyelement) is
    'The array, whose elements must be of that type and not merely convertible to it';

create or replace function audit.exactly(value anyenum) returns anyenum
language sql immutable
as 'select value';
comment on function audit.exactly(anyenum) is 'The value, which must be one of an enum';

create or replace function audit.typed(type pg_type, value text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case
    when exists (
        select from pg_cast
        where castsource = typed.type.oid and casttarget in ('json'::regtype, 'text'::regtype)
            and typed.type.typtype = 'e'
    ) then null
    when typed.type.typtype = 'e' then format('audit.exactly(%s)', value)
    when typed.type.typnamespace <> 'pg_catalog'::regnamespace or typed.type.typtype not in
        ('b', 'r', 'm') then null
    when typed.type.typsubscript = 'array_subscript_handler'::regproc and typed.type.typlen = -1
        and typed.type.typelem <> 0 then (
        select case when typnamespace = 'pg_catalog'::regnamespace and typtype in ('b', 'r', 'm')
            then format('audit.exactly(%s, null::%s)', typed.value, oid::regtype) end
        from pg_type where oid = typed.type.typelem)
    when typed.type.typarray <> 0 then
        format('audit.exactly(%s, null::%s)', value, typed.type.typarray::regtype)
end;
comment on function audit.typed(pg_type, text) is
    'Generated expression for a value that must be of the type; null if reading one of that type '
    'may run code of the application';

-- An enum is not handed to jsonb or cast to text: both look for a cast that somebody created.
create or replace function audit.typed_json(type pg_type, value text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when typed_json.type.typtype = 'e' then
        format('textin(enum_out(%s))', value)
    else audit.typed(typed_json.type, value) end;
comment on function audit.typed_json(pg_type, text) is
    'Generated expression for a value as an argument of jsonb_build_object; or null, as '
    'audit.typed';

create or replace function audit.refuse_long() returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using errcode = 'string_data_right_truncation';
end
$$;
comment on function audit.refuse_long() is
    'Raises: an identifier is too long for the short way; the other one takes care of it';

-- What identifies fits an index: three of them in 600 bytes.
create or replace function audit.typed_text(type pg_type, value text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case when typed_text.type.oid = any (array['bool', 'int2', 'int4', 'int8', 'oid', 'uuid',
            'date', 'timestamp', 'timestamptz']::regtype[]) then t.form
        else format('case when octet_length(%1$s) > 200 then audit.refuse_long() else %1$s end',
            t.form) end
    from (
        select case when typed_text.type.typtype = 'e' then
                audit.typed_json(typed_text.type, typed_text.value)
            else audit.typed(typed_text.type, typed_text.value) || '::text' end
    ) as t (form)
);
comment on function audit.typed_text(pg_type, text) is
    'Generated expression for a value as an identifier; or null, as audit.typed';

-- Image: the generated function that says what a changed row of one table says.
-- Whatever touches a row's values or runs a mapping expression does so as audit_mapper, which may
-- read
-- mapped columns and nothing else: application code that it meets there never runs as audit_owner.

-- One changed column: named only if it differs, so that an update costs what it changes.
create or replace function audit.column_diff(target regclass, mapping jsonb, attnum int2,
    inline boolean default false) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format(case
        when column_diff.mapping -> 'redact' ? attname then $sql$
        if %1$s then
            _old := _old || jsonb_build_object(%2$L, case when not old.%3$I is null
                then '[redacted]' end);
            _new := _new || jsonb_build_object(%2$L, case when not new.%3$I is null
                then '[redacted]' end);
        end if;$sql$
        else $sql$
        if %1$s then
            _old := _old || jsonb_build_object(%2$L, %4$s);
            _new := _new || jsonb_build_object(%2$L, %5$s);
        end if;$sql$ end,
        -- Equality where it means the same bytes, else the bytes: 1.0 and 1.00 are a change.
        -- A collation to which 'a' and 'A' are equal may come later than this code.
        case when t.typtype = 'e' or t.oid = any (array[
                'bool', 'int2', 'int4', 'int8', 'oid', 'uuid', 'date', 'timestamp', 'timestamptz',
                'time', 'bytea', 'text', 'varchar']::regtype[])
            then format('%s%s is distinct from new.%I', case when column_diff.inline
                then audit.typed(t, format('old.%I', attname))
                else format('old.%I', attname) end,
                case when t.oid in ('text'::regtype, 'varchar'::regtype)
                    then ' collate "C"' end, attname)
        else format('row(old.%1$I)::record *<> row(new.%1$I)::record', attname) end,
        attname, attname,
        case when column_diff.inline then audit.typed_json(t, format('old.%I', attname))
            else format('old.%I', attname) end,
        case when column_diff.inline then audit.typed_json(t, format('new.%I', attname))
            else format('new.%I', attname) end)
    from pg_attribute as a join pg_type as t on t.oid = a.atttypid
    where attrelid = column_diff.target and a.attnum = column_diff.attnum
);
comment on function audit.column_diff(regclass, jsonb, int2, boolean) is
    'Generated code that adds a column to the images of an update if it changed';

create or replace function audit.whole_image(mapping jsonb, side text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format('to_jsonb(%s)', whole_image.side)
        || coalesce(string_agg(' || jsonb_build_object(' || pairs || ')', ''), '')
    from (
        -- A function takes 100 arguments.
        select string_agg(format('%1$L, case when not %2$s.%1$I is null then ''[redacted]'' end',
            name, whole_image.side), ', ') as pairs
        from jsonb_array_elements_text(whole_image.mapping -> 'redact') with ordinality
            as t (name, n)
        group by n / 50
    ) as p
);
comment on function audit.whole_image(jsonb, text) is
    'Generated expression for all of a row, secrets redacted';

-- What is secret now: the table may have changed since it was attached.
create or replace function audit.redacted_columns(target regclass, mapping jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    with present as (
        select attname::text as name, attnum, atttypid
        from pg_attribute
        where attrelid = redacted_columns.target and attnum > 0 and not attisdropped
    )
    select coalesce(jsonb_agg(name order by attnum), '[]')
    from present
    where redacted_columns.mapping -> 'redact' ? name
        or not redacted_columns.mapping -> 'columns' ? name
            and (audit.is_secret(name) and atttypid <> 'boolean'::regtype
                -- A secret was renamed: it may be in any column that was not there before.
                or exists (
                    select from jsonb_array_elements_text(redacted_columns.mapping -> 'redact')
                        as old
                    where old not in (select name from present)))
);
comment on function audit.redacted_columns(regclass, jsonb) is
    'Names of the columns that an event shows without their values';

create or replace function audit.is_column(expression text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return is_column.expression ~ '^r\.([a-z_][a-z0-9_$]*|"([^"]|"")+")$';
comment on function audit.is_column(text) is 'Whether an expression is no more than a column of r';

create or replace function audit.image_code(target regclass, mapping jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _diff text;
    _shape text;
    -- r is copied only where an expression is more than a column.
    _needs_row boolean;
    _code text := '';
    _op text;
    _side text;
    _name text;
    _expression text;
begin
    select string_agg(audit.column_diff(image_code.target, image_code.mapping, attnum), ''
            order by attnum) filter (where not coalesce(image_code.mapping -> 'ignore' ? attname,
                false)),
        string_agg('%1$s.' || replace(quote_ident(attname), '%', '%%'), ', ' order by attnum)
    into _diff, _shape
    from pg_attribute
    where attrelid = image_code.target and attnum > 0 and not attisdropped;

    select coalesce(bool_or(not audit.is_column(value)), false) into _needs_row
    from jsonb_each_text(image_code.mapping)
    where key in ('organization', 'target_id', 'subject', 'role', 'alive', 'row_id');

    foreach _op in array array['INSERT', 'UPDATE', 'DELETE'] loop
        _code := _code || format(E'\n    %s op = %L then', case _op when 'INSERT' then 'if'
            else 'elsif' end, _op)
            -- Raises or differs if the table has other columns than when it was attached.
            || format($sql$
        if %1$s *<> row(%2$s) then
            raise exception using errcode = 'datatype_mismatch';
        end if;$sql$, case _op when 'DELETE' then 'old' else 'new' end,
                format(_shape, case _op when 'DELETE' then 'old' else 'new' end));
        if _op = 'UPDATE' then
            _code := _code || coalesce(_diff, '') || $sql$
        if _new = '{}' then
            return null;
        end if;$sql$ || case when image_code.mapping ? 'whole' then format($sql$
        _old := %s;
        _new := %s;$sql$, audit.whole_image(image_code.mapping, 'old'),
                audit.whole_image(image_code.mapping, 'new')) else '' end;
        elsif _op = 'INSERT' then
            _code := _code || format($sql$
        _old := null;
        _new := %s;$sql$, audit.whole_image(image_code.mapping, 'new'));
        else
            _code := _code || format($sql$
        _old := %s;
        _new := null;$sql$, audit.whole_image(image_code.mapping, 'old'));
        end if;

        foreach _side in array array['old', 'new'] loop
            continue when _side = case _op when 'INSERT' then 'old' when 'DELETE' then 'new' end;
            if _needs_row then
                _code := _code || format(E'\n        r := %s;', _side);
            end if;
            foreach _name in array array['alive', 'role', 'organization', 'target_id', 'subject',
                'row_id'] loop
                _expression := image_code.mapping ->> _name;
                continue when _expression is null;
                -- Only a change of it is told, but for a child's rows, which give it and take it.
                continue when _name = 'role' and _op <> 'UPDATE'
                    and not image_code.mapping ? 'parent';
                -- Of an update, the new row says whose it is; the old one only where that is
                -- unknown.
                continue when _name in ('target_id', 'subject', 'row_id') and _op = 'UPDATE'
                    and _side = 'old';
                if audit.is_column(_expression) then
                    _expression := _side || substr(_expression, 2);
                end if;
                _code := _code || case
                    when _name in ('alive', 'role') then
                        format(E'\n        _%s_%s := (%s\n);', _side, _name, _expression)
                    when _name = 'organization' and _op = 'UPDATE' and _side = 'new' then
                        format(E'\n        _organization := coalesce((%s\n)::text, _organization);',
                            _expression)
                    else format(E'\n        _%s := (%s\n);', _name, _expression) end;
            end loop;
        end loop;
        _code := _code || format(E'\n        _action := %s;',
            audit.action_code(image_code.mapping, _op));
    end loop;

    return $sql$#variable_conflict use_column
declare
    _old jsonb := '{}';
    _new jsonb := '{}';
    _action text;
    _organization text;
    _target_id text;
    _subject text;
    _row_id text;
    _old_alive boolean := true;
    _new_alive boolean := true;
    _old_role text;
    _new_role text;$sql$ || case when _needs_row then E'\n    r record;' else '' end || $sql$
begin$sql$ || _code || $sql$
    end if;
    if octet_length(concat(_organization, _target_id, _subject)) > 600 then
        raise exception using errcode = 'string_data_right_truncation';
    end if;
    return row(_action, _organization, _target_id, _subject, _old, _new, $sql$
        || audit.details_code(image_code.mapping) || $sql$)::audit.image;
end$sql$;
end
$$;
comment on function audit.image_code(regclass, jsonb) is
    'Body of audit.image_<id>: what a changed row of the table says';

create or replace function audit.action_code(mapping jsonb, op text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return case
    when mapping ? 'parent' then format('%L', mapping -> 'verbs' ->> 'changed')
    when op = 'INSERT' then format('case when _new_alive then %L else %L end',
        mapping -> 'verbs' ->> 'born', mapping -> 'verbs' ->> 'changed')
    when op = 'DELETE' then format('case when _old_alive then %L else %L end',
        mapping -> 'verbs' ->> 'died', mapping -> 'verbs' ->> 'changed')
    else format('case %s%s else %L end',
        case when mapping ? 'alive' then format(
            'when _new_alive and _old_alive is not true then %L '
            'when _old_alive and _new_alive is not true then %L ',
            mapping -> 'verbs' ->> 'born', mapping -> 'verbs' ->> 'died')
                else 'when false then null ' end,
        case when mapping ? 'role' then format('when _old_role is distinct from _new_role then %L',
            mapping -> 'verbs' ->> 'role_changed') else '' end,
        mapping -> 'verbs' ->> 'changed')
end;
comment on function audit.action_code(jsonb, text) is
    'Generated expression: audit.action_of for one mapping';

create or replace function audit.details_code(mapping jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return case
    when mapping ? 'role' then format(
        $sql$case when _action = %L then jsonb_build_object('previous_role', _old_role,
            'new_role', _new_role) end$sql$,
        mapping -> 'verbs' ->> 'role_changed')
    when mapping ? 'row_id' then $sql$jsonb_build_object('row_id', _row_id)$sql$
    else 'null' end;
comment on function audit.details_code(jsonb) is
    'Generated expression for details: the roles of a role change, the key of a child row';

-- The short way: for a table of built-in types and enums whose mapping names columns and nothing
-- more, the trigger function makes the image and inserts the event itself. Where that raises, the
-- event is written by the way that every table can take.

create or replace function audit.inline_text(target regclass, expression text, side text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select audit.typed_text(t, format('%s.%I', inline_text.side, attname))
    from pg_attribute as a join pg_type as t on t.oid = a.atttypid
    where attrelid = inline_text.target and attnum > 0 and not attisdropped
        and 'r.' || quote_ident(attname) = inline_text.expression
);
comment on function audit.inline_text(regclass, text, text) is
    'Generated expression for a mapped column as text; null if it takes the long way';

-- Alive as audit.default_alive says it, and the like.
create or replace function audit.inline_alive(target regclass, mapping jsonb, side text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format('%s %s', audit.typed(t, format('%s.%I', inline_alive.side, attname)),
        substring(mapping ->> 'alive' from ' (is (?:not )?(?:null|true|false))$'))
    from pg_attribute as a join pg_type as t on t.oid = a.atttypid
    where attrelid = inline_alive.target and attnum > 0 and not attisdropped
        and 'r.' || quote_ident(attname)
            = substring(mapping ->> 'alive' from '^(.*) is (?:not )?(?:null|true|false)$')
);
comment on function audit.inline_alive(regclass, jsonb, text) is
    'Generated condition for rows that are alive; null if it takes the long way';

create or replace function audit.is_inline(target regclass, mapping jsonb) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return not mapping ?| '{whole,parent,row_id}'
    and coalesce(mapping -> 'facts', '[]') = '[]'
    and (not mapping ? 'alive' or audit.inline_alive(target, mapping, 'r') is not null)
    and not exists (
        select from jsonb_each_text(mapping)
        where key in ('organization', 'target_id', 'subject', 'role')
            and audit.inline_text(target, value, 'r') is null
    )
    and not exists (
        select from pg_attribute as a join pg_type as t on t.oid = a.atttypid
        where attrelid = target and attnum > 0 and not attisdropped
            and audit.typed(t, '') is null
    );
comment on function audit.is_inline(regclass, jsonb) is
    'Whether changes of the table can be captured without code but PostgreSQL''s own';

-- As audit.append does it. A context that cannot be read raises.
create or replace function audit.inline_context_code() returns text
language sql immutable set search_path = pg_catalog, pg_temp
return $sql$
            _context := nullif(current_setting('auditdb.context', true), '')::jsonb;
            if _context is null then
                _actor_id := session_user;
                _actor_type := 'database';
                _source := 'sql';
                _details := jsonb_strip_nulls(jsonb_build_object(
                    'application_name', nullif(current_setting('application_name'), ''),
                    'client_addr', host(inet_client_addr())
                ));
            else
                if jsonb_typeof(_context) <> 'object' then
                    raise exception using errcode = 'invalid_parameter_value';
                end if;
                _actor_id := left(_context ->> 'actor_id', 200);
                _actor_type := coalesce(left(_context ->> 'actor_type', 200), 'database');
                _impersonator_id := left(_context ->> 'impersonator_id', 200);
                _source := coalesce(left(_context ->> 'source', 200), 'sql');
                _organization := left(_context ->> 'organization_id', 200);
                if jsonb_typeof(_context -> 'details') = 'object' then
                    _details := _context -> 'details';
                end if;
            end if;$sql$;
comment on function audit.inline_context_code() is
    'Generated code that says who acts, and from where';

create or replace function audit.inline_image(target regclass, mapping jsonb, side text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(string_agg('jsonb_build_object(' || pairs || ')', ' || '), '''{}''::jsonb')
    from (
        -- A function takes 100 arguments.
        select string_agg(case
            when inline_image.mapping -> 'redact' ? attname then
                format('%L, case when not %s is null then ''[redacted]'' end', attname,
                    audit.typed(t, format('%s.%I', inline_image.side, attname)))
            else format('%L, %s', attname,
                audit.typed_json(t, format('%s.%I', inline_image.side, attname))) end, ', ')
        from (
            select t, attname, row_number() over (order by attnum) as n
            from pg_attribute as a join pg_type as t on t.oid = a.atttypid
            where attrelid = inline_image.target and attnum > 0 and not attisdropped
        ) as a
        group by n / 50
    ) as p (pairs)
);
comment on function audit.inline_image(regclass, jsonb, text) is
    'Generated expression for all of a row, secrets redacted';

create or replace function audit.inline_action(target regclass, mapping jsonb, op text)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _verbs jsonb := inline_action.mapping -> 'verbs';
    _before text := audit.inline_alive(target, inline_action.mapping, 'old');
    _after text := audit.inline_alive(target, inline_action.mapping, 'new');
    _role text := inline_action.mapping ->> 'role';
    _branches text := '';
begin
    if op = 'INSERT' and _after is not null then
        _branches := format(' when %s then %L', _after, _verbs ->> 'born');
    elsif op = 'DELETE' and _before is not null then
        _branches := format(' when %s then %L', _before, _verbs ->> 'died');
    elsif op = 'UPDATE' and _before is not null then
        _branches := format(
            ' when %1$s and (%2$s) is not true then %3$L when %2$s and (%1$s) is not true then %4$L',
            _after, _before, _verbs ->> 'born', _verbs ->> 'died');
    end if;
    if op = 'UPDATE' and _role is not null then
        _branches := _branches || format(
            ' when (%s) collate "C" is distinct from (%s) then %L',
            audit.inline_text(target, _role, 'old'), audit.inline_text(target, _role, 'new'),
            _verbs ->> 'role_changed');
    end if;
    return case
        when _branches <> '' then format('case%s else %L end', _branches, _verbs ->> 'changed')
        else quote_literal(_verbs ->> case op when 'INSERT' then 'born' when 'DELETE' then 'died'
            else 'changed' end)
    end;
end
$$;
comment on function audit.inline_action(regclass, jsonb, text) is
    'Generated expression: audit.action_of for one mapping and operation';

create or replace function audit.inline_image_code(target regclass, mapping jsonb, op text)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _side text := case op when 'DELETE' then 'old' else 'new' end;
    _role text := inline_image_code.mapping ->> 'role';
    _diff text;
    _shape text;
    _code text;
    _name text;
begin
    select string_agg(audit.column_diff(target, inline_image_code.mapping, attnum, inline => true),
            '' order by attnum)
            filter (where not coalesce(inline_image_code.mapping -> 'ignore' ? attname, false)),
        string_agg(format('%s.%I', _side, attname), ', ' order by attnum)
    into _diff, _shape
    from pg_attribute
    where attrelid = target and attnum > 0 and not attisdropped;

    -- Raises or differs if the table has other columns than when it was attached.
    _code := format($sql$
            if %s *<> row(%s) then
                raise exception using errcode = 'datatype_mismatch';
            end if;$sql$, _side, _shape);
    if op = 'UPDATE' then
        _code := _code || $sql$
            _old := '{}';
            _new := '{}';$sql$ || coalesce(_diff, '') || $sql$
            if _new = '{}' then
                return null;
            end if;$sql$;
    else
        _code := _code || format(E'\n            _%s := %s;', _side,
            audit.inline_image(target, inline_image_code.mapping, _side));
    end if;
    _code := _code || format(E'\n            _action := %s;',
        audit.inline_action(target, inline_image_code.mapping, op));
    if op = 'UPDATE' and _role is not null then
        _code := _code || format($sql$
            if _action = %L then
                _details := coalesce(_details, '{}')
                    || jsonb_build_object('previous_role', %s, 'new_role', %s);
            end if;$sql$, inline_image_code.mapping -> 'verbs' ->> 'role_changed',
            audit.inline_text(target, _role, 'old'), audit.inline_text(target, _role, 'new'));
    end if;
    -- Of an update, the new row says whose it is; the old one only where that is unknown.
    foreach _name in array array['organization', 'target_id', 'subject'] loop
        continue when not inline_image_code.mapping ? _name;
        _code := _code || format(E'\n            _%s := %s;', _name, case
            when _name = 'organization' then format('coalesce(%s%s, _organization)',
                audit.inline_text(target, inline_image_code.mapping ->> _name, _side),
                case op when 'UPDATE' then ', ' || audit.inline_text(target,
                    inline_image_code.mapping ->> _name, 'old') else '' end)
            else audit.inline_text(target, inline_image_code.mapping ->> _name, _side) end);
    end loop;
    return _code;
end
$$;
comment on function audit.inline_image_code(regclass, jsonb, text) is
    'Generated code that says what a changed row says';

-- The INSERT stands outside of the block: inside, each row would take a subtransaction id, and more
-- than 64 of them in a transaction slow down all others. row_security is off in a session that
-- restores a dump, and would turn it into an error.
create or replace function audit.inline_code(target regclass, mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when not audit.is_inline(target, mapping) then '' else format($sql$
    if tg_op <> 'TRUNCATE' and current_setting('row_security') = 'on' then
        begin%1$s
            if tg_op = 'UPDATE' then%2$s
            elsif tg_op = 'INSERT' then%3$s
            else%4$s
            end if;
        exception when assert_failure or others then
            _action := null;
        end;
        if _action is not null then
            insert into audit.event (
                action, result, actor_id, actor_type, impersonator_id, organization_id,
                target_type, target_id, subject_id, source, captured_from,
                old_values, new_values, details
            ) values (
                _action, 'success', _actor_id, _actor_type, _impersonator_id, _organization,
                %5$L, _target_id, _subject, _source, _captured_from,
                _old, _new, _details
            );
            return null;
        end if;
    end if;$sql$,
    audit.inline_context_code(),
    audit.inline_image_code(target, mapping, 'UPDATE'),
    audit.inline_image_code(target, mapping, 'INSERT'),
    audit.inline_image_code(target, mapping, 'DELETE'),
    mapping ->> 'target_type') end;
comment on function audit.inline_code(regclass, jsonb) is
    'Generated code of the short way; empty where the table has none';

create or replace function audit.inline_variables(target regclass, mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when not audit.is_inline(target, mapping) then '' else $sql$
    _actor_id text;
    _actor_type text;
    _impersonator_id text;
    _organization text;
    _source text;
    _details jsonb;
    _action text;
    _target_id text;
    _subject text;
    _old jsonb;
    _new jsonb;$sql$ end;
comment on function audit.inline_variables(regclass, jsonb) is
    'Generated declarations of the short way';

-- Generation: the other functions of one attached table, and how all of them are written.
-- The trigger function runs as audit_owner and meets no application code but through
-- audit_mapper's.

-- STABLE, so that lookups see the database as the statement found it: the team of a membership that
-- goes by cascade is gone already when the trigger fires. audit.append is VOLATILE and writes.
-- A function of the application can change search_path for good, past every pin around it: from the
-- image on, every name and operator here says its schema.
create or replace function audit.capture_code(id int, kind text, target regclass, mapping jsonb)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return format($sql$
#variable_conflict use_variable
declare
    _captured_from text := tg_table_schema || '.' || tg_table_name;
    _context jsonb;
    _image audit.image;
    _reason text;
    _lost boolean;
    _done boolean;%7$s
begin%8$s
    if tg_op = 'TRUNCATE' then
        _image.action := %1$L;
        _context := audit.current_context();
    else
        begin
            _context := nullif(current_setting('auditdb.context', true), '')::jsonb;
            if jsonb_typeof(_context) <> 'object' then
                raise exception using errcode = 'invalid_parameter_value';
            end if;
            _image := audit.image_%2$s(tg_op, old, new);%3$s
        exception when assert_failure or others then
            _reason := sqlstate;
            _context := audit.current_context();
            _lost := _context is null and nullif(current_setting('auditdb.context', true), '')
                is not null;
            begin
                _image := audit.rescue(tg_op, old, new, %4$L, _reason);
            exception when assert_failure or others then
                _image := row(%5$L, null, null, null, null, null, jsonb_build_object('degraded',
                    jsonb_build_object('sqlstate', sqlstate, 'lost', '{"row"}'::text[], 'op',
                        tg_op)));
            end;
            if _lost then
                _image.details := audit.lose_context(_image.details);
            end if;
        end;
        if _image.action is null then
            return null;
        end if;
    end if;
    _done := %6$s;
    return null;
end$sql$,
    kind || '.truncated',
    id,
    case when not audit.is_column(mapping ->> 'organization') then format($sql$
            if _image.organization_id is null and _image.action is not null then
                -- What this very statement made is visible to a fresh snapshot only.
                if tg_op operator(pg_catalog.=) 'DELETE' then
                    _image.organization_id := audit.organization_%1$s(old);
                else
                    _image.organization_id := audit.organization_%1$s(new);
                end if;
            end if;$sql$, id) else '' end,
    mapping,
    mapping -> 'verbs' ->> 'changed',
    case when mapping -> 'facts' <> '[]' then
        format('audit.append_facts(_image, %L, _captured_from, _context)', mapping -> 'facts')
    else format($sql$audit.append(_image.action, _image.organization_id, %L, _image.target_id,
        _image.subject_id, _captured_from, _image.old_values, _image.new_values, _image.details,
        _context)$sql$,
        mapping ->> 'target_type') end,
    audit.inline_variables(target, mapping),
    audit.inline_code(target, mapping)
);
comment on function audit.capture_code(int, text, regclass, jsonb) is
    'Body of audit.capture_<id>, the trigger function of an attached table';

-- The live check behind every read: is this user an admin or owner there, now?
create or replace function audit.admin_code(target regclass, mapping jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _subject text := admin_code.mapping ->> 'subject';
    _type text;
begin
    -- Compared in the column's own type, so that its index serves.
    select format_type(atttypid, -1) into _type
    from pg_attribute
    where attrelid = admin_code.target and audit.over_row(admin_code.target, attname) = _subject
        and attnum > 0 and not attisdropped;
    -- $1 and $2: by name they would be ambiguous beside columns called organization and viewer.
    return format(E'\n#variable_conflict use_column\nbegin\n    return exists (\n'
        '        select from %s as r\n        where (%s\n) = ($2)%s and ((%s\n)::text) = $1\n'
        '            and (%s\n) and (%s\n)\n    );\nend',
        admin_code.target,
        case when _type is null then '(' || _subject || E'\n)::text' else _subject end,
        coalesce('::' || _type, ''),
        admin_code.mapping ->> 'organization',
        coalesce(admin_code.mapping ->> 'alive', 'true'),
        admin_code.mapping ->> 'admin');
end
$$;
comment on function audit.admin_code(regclass, jsonb) is
    'Body of audit.admin_<id>: whether a membership makes its user an admin or owner';

create or replace function audit.define(
    name text, arguments text, returns text, volatility text, owner regrole, body text, purpose text
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('create or replace function audit.%I(%s) returns %s language plpgsql %s '
        'security definer set search_path = pg_catalog, pg_temp as %L',
        name, arguments, returns, volatility, body);
    execute format('revoke all on function audit.%I from public', name);
    execute format('comment on function audit.%I is %L', name, purpose);
    if owner <> current_user::regrole then
        execute format('alter function audit.%I owner to %s', name, owner);
        execute format('grant execute on function audit.%I to audit_owner', name);
    end if;
end
$$;
comment on function audit.define(text, text, text, text, regrole, text, text) is
    'Creates or replaces a generated function, closed to PUBLIC';

create or replace function audit.generate(id int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _a audit.attachment;
    _of text;
begin
    select * into strict _a from audit.attachment as a where a.id = generate.id;
    _a.mapping := _a.mapping
        || jsonb_build_object('redact', audit.redacted_columns(_a.target, _a.mapping));
    _of := format(' of %s (attached as %s)', _a.target, _a.kind);
    -- A function given to audit_mapper needs its CREATE for that moment, and to be ours again to
    -- change.
    grant create on schema audit to audit_mapper;
    if _a.kind <> 'admin' then
        perform audit.define('image_' || id, 'op text, old anyelement, new anyelement',
            'audit.image', 'stable', 'audit_mapper', audit.image_code(_a.target, _a.mapping),
            'What a changed row says' || _of);
        if not audit.is_column(_a.mapping ->> 'organization') then
            perform audit.define('organization_' || id, 'r anyelement', 'text', 'volatile',
                'audit_mapper', format(E'\nbegin\n    return (%s\n);\nend',
                    _a.mapping ->> 'organization'), 'Organisation of a row' || _of);
        else
            execute format('drop function if exists audit.organization_%s', id);
        end if;
        perform audit.define('capture_' || id, '', 'trigger',
            case when audit.is_inline(_a.target, _a.mapping) then 'volatile' else 'stable' end,
            'audit_owner', audit.capture_code(id, _a.kind, _a.target, _a.mapping),
            'Captures changes' || _of);
    end if;
    if _a.mapping ? 'admin' then
        perform audit.define('admin_' || id, 'organization text, viewer text', 'boolean', 'stable',
            'audit_mapper', audit.admin_code(_a.target, _a.mapping),
            'Whether a user is an admin or owner, by a row' || _of);
    end if;
    revoke create on schema audit from audit_mapper;
end
$$;
comment on function audit.generate(int) is
    'Writes, or writes again, the functions of an attached table';

-- Lookups: mapping expressions are checked, and audit_mapper is let at the columns that they read.
-- Run by the owner of the tables, who alone can grant that.

-- A view made and thrown away checks the expression under the path that it will run under, and
-- names each column that it reads.
create or replace function audit.columns_read(target regclass, name text, expression text)
returns table (relation regclass, columns text[])
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _relations regclass[] := '{}';
    _columns jsonb[] := '{}';
    _i int;
    -- An expression that closes the parenthesis cannot name a view or a column that it cannot
    -- guess.
    _probe text := 'auditdb_probe_' || replace(gen_random_uuid()::text, '-', '');
begin
    begin
        -- In WHERE too, which refuses aggregates: an expression is about one row.
        execute format(E'create temp view %1$I as select (%2$s\n)%3$s as %1$I from %4$s as r '
            'where (%2$s\n) is null', _probe,
            columns_read.expression,
            -- No cast: PL/pgSQL would not make it either.
            case when columns_read.name in ('alive', 'admin') then ' is true' else '::text' end,
            columns_read.target);
        if not exists (
            select from pg_attribute
            where attrelid = to_regclass('pg_temp.' || _probe) and attname = _probe and attnum = 1
        ) then
            raise exception 'it is more than one expression' using errcode = 'syntax_error';
        end if;
        select array_agg(d.relation), array_agg(d.columns) into _relations, _columns
        from (
            select refobjid::regclass as relation,
                jsonb_agg(distinct a.attname) filter (where refobjsubid > 0) as columns
            from pg_rewrite as w
                join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
                    and d.refclassid = 'pg_class'::regclass
                left join pg_attribute as a on a.attrelid = refobjid and a.attnum = refobjsubid
            where w.ev_class = to_regclass('pg_temp.' || _probe)
                and refobjid <> to_regclass('pg_temp.' || _probe)
            group by refobjid
        ) as d;
        raise exception using errcode = 'AU001';
    exception
        when sqlstate 'AU001' then
            null;
        when others then
            if sqlerrm like '%permission denied%temporary%' then
                raise;
            end if;
            raise exception 'option "%" of % does not work: %', columns_read.name,
                    columns_read.target, sqlerrm
                using errcode = sqlstate,
                    hint = format('It reads: %s. It is SQL over the row r, with every table and '
                        'function named with its schema.', columns_read.expression);
    end;
    for _i in 1 .. coalesce(cardinality(_relations), 0) loop
        relation := _relations[_i];
        columns := array(select jsonb_array_elements_text(_columns[_i]));
        return next;
    end loop;
end
$$;
comment on function audit.columns_read(regclass, text, text) is
    'Checks a mapping expression and returns the columns of each table that it reads';

-- audit_mapper gets the columns that lookups read, no others, past row-level security of the host.
create or replace function audit.open_lookups(target regclass, mapping jsonb) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _name text;
    _expression text;
    _read record;
begin
    for _name, _expression in
        select key, value from jsonb_each_text(open_lookups.mapping)
        where key in ('organization', 'target_id', 'subject', 'role', 'alive', 'admin', 'parent')
    loop
        for _read in
            select * from audit.columns_read(open_lookups.target, _name, _expression)
        loop
            -- The row itself is handed over; only the check for admins selects from the table.
            continue when _read.relation = open_lookups.target
                and not open_lookups.mapping ? 'admin'
                and audit.is_column(_expression);
            -- A constant reads nothing of the row that it is asked of.
            continue when _read.relation = open_lookups.target and _read.columns = '{}';
            perform audit.open_lookup(_read.relation, _read.columns);
        end loop;
    end loop;
end
$$;
comment on function audit.open_lookups(regclass, jsonb) is
    'Checks every expression of a mapping and lets audit_mapper read what they need';

create or replace function audit.open_lookup(relation regclass, columns text[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _schema regnamespace := (select relnamespace from pg_class where oid = open_lookup.relation);
    _column text;
begin
    if not has_schema_privilege('audit_mapper', _schema::oid, 'usage') then
        execute format('grant usage on schema %s to audit_mapper', _schema);
    end if;
    if not has_table_privilege('audit_mapper', open_lookup.relation, 'select') then
        foreach _column in array open_lookup.columns loop
            if not has_column_privilege('audit_mapper', open_lookup.relation, _column,
                'select') then
                execute format('grant select (%I) on %s to audit_mapper', _column,
                    open_lookup.relation);
            end if;
        end loop;
    end if;
    if (select relrowsecurity from pg_class where oid = open_lookup.relation) and not exists (
        select from pg_policy
        where polrelid = open_lookup.relation and polname = 'auditdb_mapper'
    ) then
        execute format('create policy auditdb_mapper on %s for select to audit_mapper using (true)',
            open_lookup.relation);
    end if;
    -- GRANT by a role that may not only warns.
    if not has_schema_privilege('audit_mapper', _schema::oid, 'usage')
        or not has_any_column_privilege('audit_mapper', open_lookup.relation, 'select')
    then
        raise exception 'the mapping reads %, and % may not let audit_mapper read it',
                open_lookup.relation, current_user
            using errcode = 'insufficient_privilege',
                hint = format('Have its owner run: grant usage on schema %s to audit_mapper; '
                    'grant select on %s to audit_mapper;', _schema, open_lookup.relation);
    end if;
exception when insufficient_privilege then
    raise exception 'the mapping reads %, and % may not let audit_mapper read it',
            open_lookup.relation, current_user
        using errcode = 'insufficient_privilege',
            hint = format('Have its owner run: grant usage on schema %s to audit_mapper; '
                'grant select on %s to audit_mapper;', _schema, open_lookup.relation);
end
$$;
comment on function audit.open_lookup(regclass, text[]) is
    'Lets audit_mapper read columns of a table';

-- Attach and detach: which tables are captured, and how their rows map to events.
-- Run by the table's owner, who creates the triggers; the rest happens as audit_owner.

create or replace function audit.refuse_target(target regclass, kind text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _class pg_class;
    _problem text;
    _hint text;
begin
    select * into _class from pg_class where oid = refuse_target.target;
    if not found then
        raise exception 'there is no table with oid %', refuse_target.target::oid
            using errcode = 'undefined_table', hint = 'Give its name.';
    end if;
    if _class.relnamespace in ('audit'::regnamespace, 'pg_catalog'::regnamespace) then
        _problem := 'a table of the log or of the system';
        _hint := 'Attach the tables of your application.';
    elsif refuse_target.kind = 'admin' then
        if _class.relkind not in ('r', 'p', 'v', 'm') then
            _problem := 'neither a table nor a view';
        end if;
    elsif _class.relkind in ('v', 'm') then
        _problem := 'a view, and a view has no rows of its own';
        _hint := 'Attach the tables beneath it.';
    elsif _class.relkind = 'f' then
        _problem := 'a foreign table, whose changes on the other server no trigger here can see';
        _hint := 'Attach the table on its own server.';
    elsif _class.relkind not in ('r', 'p') then
        _problem := 'not a table';
    elsif _class.relpersistence = 't' then
        _problem := 'a temporary table';
    elsif _class.relispartition then
        _problem := 'a partition';
        _hint := 'Attach the partitioned table; its partitions are captured with it.';
    elsif exists (
        select from pg_inherits join pg_class as c on c.oid = inhrelid
        where inhparent = refuse_target.target and not c.relispartition
            and not exists (select from audit.attachment as a where a.target = c.oid)
    ) then
        _problem := 'inherited by tables whose rows its triggers would not see';
        _hint := 'Attach the tables that inherit from it first.';
    end if;
    if _problem is not null then
        raise exception '% is %', refuse_target.target, _problem
            using errcode = 'wrong_object_type', hint = coalesce(_hint, 'Attach a table.');
    end if;
    if not pg_has_role(_class.relowner, 'usage') then
        raise exception 'only its owner, %, may attach %', _class.relowner::regrole,
                refuse_target.target
            using errcode = 'insufficient_privilege',
                hint = format('Attach as %s, with: grant audit_operator to %1$s.',
                    _class.relowner::regrole);
    end if;
end
$$;
comment on function audit.refuse_target(regclass, text) is
    'Raises if the object cannot be captured, or is not the caller''s to attach';

-- What follows runs as audit_owner, to whom every table is open: the login must own this one.
create or replace function audit.refuse_stranger(target regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    if not (
        select pg_has_role(session_user, relowner, 'member')
        from pg_class where oid = refuse_stranger.target
    ) then
        raise exception '% does not own %', session_user, refuse_stranger.target
            using errcode = 'insufficient_privilege', hint = 'Log in as its owner.';
    end if;
end
$$;
comment on function audit.refuse_stranger(regclass) is
    'Raises if the login is no member of the table''s owner; a table that is gone is anyone''s';

create or replace function audit.save_mapping(target regclass, kind text, mapping jsonb) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _before audit.attachment;
    _id int;
    _verb text;
begin
    perform audit.refuse_stranger(save_mapping.target);
    select * into _before from audit.attachment as a where a.target = save_mapping.target;
    if (_before.kind = 'admin') <> (save_mapping.kind = 'admin') then
        raise exception '% is attached as %', save_mapping.target, _before.kind
            using errcode = 'object_in_use',
                hint = format('Detach it first: select audit.detach(%L);', save_mapping.target);
    end if;
    insert into audit.attachment as a (target, kind, mapping)
    values (save_mapping.target, save_mapping.kind, save_mapping.mapping)
    on conflict on constraint a_table_is_attached_once do update
        set kind = excluded.kind, mapping = excluded.mapping,
            attached_at = default, attached_by = default
        where (a.kind, a.mapping) is distinct from (excluded.kind, excluded.mapping)
    returning a.id into _id;
    _verb := case when _id is null then null when _before.id is null then 'attached'
        else 'remapped' end;
    _id := coalesce(_id, _before.id);

    insert into audit.action (name, description)
    select value, format('A row of kind %s %s', save_mapping.kind, case key
        when 'born' then 'came to be' when 'died' then 'ceased to be' else 'changed' end)
    from jsonb_each_text(save_mapping.mapping -> 'verbs')
    union all
    select save_mapping.kind || '.truncated',
        format('All rows of a table of kind %s were removed at once', save_mapping.kind)
    on conflict do nothing;

    if _verb = 'remapped' and _before.mapping ? 'admin' and not save_mapping.mapping ? 'admin' then
        execute format('drop function if exists audit.admin_%s', _id);
    end if;
    perform audit.generate(_id);
    if save_mapping.kind <> 'admin' then
        execute format('grant execute on function audit.capture_%s to audit_operator', _id);
    end if;
    if _verb is not null then
        perform audit.record_own(_verb, save_mapping.target::text,
            case when _before.id is not null then
                jsonb_build_object('kind', _before.kind, 'mapping', _before.mapping -> 'given') end,
            jsonb_build_object('kind', save_mapping.kind, 'mapping',
                save_mapping.mapping -> 'given'));
    end if;
    return _id;
end
$$;
-- Definer: writes to the log's own tables, which the caller cannot.
comment on function audit.save_mapping(regclass, text, jsonb) is
    'Stores a mapping and writes its functions; the part of attach that runs as audit_owner';

create or replace function audit.close_capture(id int) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _owner regrole := (
        select relowner from pg_class join audit.attachment as a on a.target = pg_class.oid
        where a.id = close_capture.id and relkind = 'p'
    );
begin
    perform audit.refuse_stranger(a.target) from audit.attachment as a
        where a.id = close_capture.id;
    execute format('revoke execute on function audit.capture_%s from audit_operator',
        close_capture.id);
    if _owner is not null then
        -- Every partition to come gets the triggers too, which takes the right to use their
        -- function.
        execute format('grant execute on function audit.capture_%s to %s', close_capture.id,
            _owner);
    end if;
end
$$;
-- Definer: once the triggers stand, nobody else may put the function on a table of their own.
comment on function audit.close_capture(int) is
    'Takes back the right to use a capture function in a trigger';

create or replace function audit.create_triggers(target regclass, id int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _op text;
    _name text;
    _trigger pg_trigger;
    _partition regclass;
begin
    foreach _op in array array['insert', 'update', 'delete', 'truncate'] loop
        _name := 'auditdb_' || _op;
        select * into _trigger from pg_trigger
        where tgrelid = create_triggers.target and tgname = _name;
        if found and _trigger.tgfoid <> format('audit.capture_%s()', id)::regprocedure then
            execute format('drop trigger %I on %s', _name, target);
            _trigger := null;
        end if;
        if _trigger.oid is null then
            execute format('create trigger %I after %s on %s for each %s '
                'execute function audit.capture_%s()',
                _name, _op, target, case _op when 'truncate' then 'statement' else 'row' end, id);
        end if;
        if _trigger.tgenabled is distinct from 'A' or exists (
            select from pg_partition_tree(create_triggers.target) join pg_trigger on tgrelid = relid
            where tgname = _name and tgenabled <> 'A'
        ) then
            execute format('alter table %s enable always trigger %I', target, _name);
        end if;
    end loop;
    -- TRUNCATE of a partition fires no trigger of its parent.
    for _partition in
        select relid from pg_partition_tree(create_triggers.target)
        where relid <> create_triggers.target and not exists (
            select from pg_trigger
            where tgrelid = relid and tgname = 'auditdb_truncate' and tgenabled = 'A'
                and tgfoid = format('audit.capture_%s()', create_triggers.id)::regprocedure)
    loop
        execute format('drop trigger if exists auditdb_truncate on %s', _partition);
        execute format('create trigger auditdb_truncate after truncate on %s '
            'for each statement execute function audit.capture_%s()', _partition,
                create_triggers.id);
        execute format('alter table %s enable always trigger auditdb_truncate', _partition);
    end loop;
end
$$;
comment on function audit.create_triggers(regclass, int) is
    'Creates the capture triggers of a table, or those of them that are absent or not ENABLE '
    'ALWAYS';

create or replace function audit.attach(
    target regclass,
    kind text,
    organization text default null,
    target_id text default null,
    subject text default null,
    role text default null,
    alive text default null,
    admin text default null,
    parent text default null,
    ignore text[] default null,
    redact text[] default null,
    email text default null,
    password text default null,
    two_factor text default null
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s'
as $$
declare
    _mapping jsonb;
    _id int;
begin
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    perform audit.refuse_target(attach.target, attach.kind);
    _mapping := audit.resolve_mapping(attach.target, attach.kind,
        jsonb_strip_nulls(jsonb_build_object(
        'organization', attach.organization, 'target_id', attach.target_id, 'subject',
            attach.subject,
        'role', attach.role, 'alive', attach.alive, 'admin', attach.admin, 'parent', attach.parent,
        'ignore', to_jsonb(attach.ignore), 'redact', to_jsonb(attach.redact),
        'email', attach.email, 'password', attach.password, 'two_factor', attach.two_factor
    )));
    perform audit.open_lookups(attach.target, _mapping);
    _id := audit.save_mapping(attach.target, attach.kind, _mapping);
    if attach.kind <> 'admin' then
        perform audit.create_triggers(attach.target, _id);
        perform audit.close_capture(_id);
    end if;
    perform audit.attest(attach.target);
end
$$;
comment on function audit.attach(regclass, text, text, text, text, text, text, text, text, text[],
    text[], text, text, text) is
    'Captures every change of a table from now on, or changes how its rows map to events. Each '
    'option '
    'is a column or an SQL expression over the row r; ignore and redact are names of columns. '
    'Kind admin, on a view or table, captures nothing: its rows name who may read which '
    'organisation';

create or replace function audit.forget(target regclass) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _a audit.attachment;
    _prefix text;
begin
    perform audit.refuse_stranger(forget.target);
    delete from audit.attachment as a where a.target = forget.target returning a.* into _a;
    if not found then
        raise exception '% is not attached', forget.target
            using errcode = 'undefined_object', hint = 'auditdb status lists what is.';
    end if;
    foreach _prefix in array array['capture', 'image', 'organization', 'admin'] loop
        execute format('drop function if exists audit.%I', _prefix || '_' || _a.id);
    end loop;
    perform audit.record_own('detached', forget.target::text,
        jsonb_build_object('kind', _a.kind, 'mapping', _a.mapping -> 'given'), null);
end
$$;
-- Definer: removes what audit_owner owns. Fails while triggers stand, so it cannot silence a table.
comment on function audit.forget(regclass) is
    'Removes the mapping and the functions of a table; the part of detach that runs as audit_owner';

create or replace function audit.detach(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s'
as $$
declare
    _trigger record;
begin
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    for _trigger in
        select tgname, tgrelid::regclass as relation from pg_trigger
        where (tgrelid = detach.target
                or tgrelid in (select relid from pg_partition_tree(detach.target)))
            and not tgisinternal and tgparentid = 0
            and tgname in ('auditdb_insert', 'auditdb_update', 'auditdb_delete', 'auditdb_truncate')
    loop
        execute format('drop trigger %I on %s', _trigger.tgname, _trigger.relation);
    end loop;
    perform audit.forget(detach.target);
    perform audit.attest(detach.target);
end
$$;
comment on function audit.detach(regclass) is
    'Ends the capture of a table. What was captured stays; that it ended is itself an event';

-- Recorded events: what no table shows, such as a sign-in, a refusal or an impersonation.
-- Marked by captured_from being null; time, id, transaction and db_user are never the caller's to
-- give.

create or replace function audit.record_event(
    action text,
    organization_id text default null,
    target_type text default null,
    target_id text default null,
    subject_id text default null,
    result text default 'success',
    actor_id text default null,
    actor_type text default null,
    impersonator_id text default null,
    source text default null,
    old_values jsonb default null,
    new_values jsonb default null,
    details jsonb default null
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
#variable_conflict use_column
declare
    _context jsonb := audit.current_context();
    _id bigint;
begin
    if record_event.action is null
        or record_event.action !~ '^[a-z][a-z0-9_]*[.][a-z][a-z0-9_]*$'
        or length(record_event.action) > 200
    then
        raise exception 'action is "%"', record_event.action
            using errcode = 'invalid_parameter_value',
                hint = 'An action is category.verb in lower case, such as auth.login.';
    end if;
    if split_part(record_event.action, '.', 1) = 'audit' then
        raise exception 'action "%" is kept for the log itself', record_event.action
            using errcode = 'invalid_parameter_value', hint = 'Choose another category.';
    end if;
    if coalesce(record_event.result, '') not in ('success', 'failure', 'denied') then
        raise exception 'result is "%"', record_event.result
            using errcode = 'invalid_parameter_value',
                hint = 'A result is success, failure or denied.';
    end if;
    if jsonb_typeof(record_event.details) <> 'object' then
        raise exception 'details is %, not an object', jsonb_typeof(record_event.details)
            using errcode = 'invalid_parameter_value',
                hint = 'Give a jsonb object, as in ''{"ip": "203.0.113.9"}''.';
    end if;
    if greatest(length(record_event.organization_id), length(record_event.target_type),
        length(record_event.target_id), length(record_event.subject_id),
        length(record_event.actor_id), length(record_event.actor_type),
        length(record_event.impersonator_id), length(record_event.source)) > 200
    then
        raise exception 'an identifier of % is longer than 200 characters', record_event.action
            using errcode = 'string_data_right_truncation',
                hint = 'Put long values into details.';
    end if;
    insert into audit.event (
        action, result, actor_id, actor_type, impersonator_id, organization_id,
        target_type, target_id, subject_id, source, old_values, new_values, details
    ) values (
        record_event.action,
        record_event.result,
        coalesce(record_event.actor_id, left(_context ->> 'actor_id', 200),
            case when _context is null and record_event.actor_type is null then session_user end),
        coalesce(record_event.actor_type,
            case when record_event.actor_id is not null then 'user' end,
            left(_context ->> 'actor_type', 200), 'database'),
        coalesce(record_event.impersonator_id, left(_context ->> 'impersonator_id', 200)),
        coalesce(record_event.organization_id, left(_context ->> 'organization_id', 200)),
        record_event.target_type,
        record_event.target_id,
        record_event.subject_id,
        coalesce(record_event.source, left(_context ->> 'source', 200), 'sql'),
        record_event.old_values,
        record_event.new_values,
        nullif(coalesce(_context -> 'details', '{}') || coalesce(record_event.details, '{}'), '{}')
    ) returning id into _id;
    return _id;
end
$$;
-- Definer: writers hold no privilege on the table itself.
comment on function audit.record_event(text, text, text, text, text, text, text, text, text, text,
    jsonb, jsonb, jsonb) is
    'Records an event that no table shows and returns its id. What is not given comes from the '
    'context';

create or replace function audit.record_own(
    verb text, target_id text, old_values jsonb, new_values jsonb, details jsonb default null
) returns void
language sql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
    insert into audit.event (action, result, actor_id, actor_type, source, target_type, target_id,
        old_values, new_values, details)
    values ('audit.' || record_own.verb, 'success',
        coalesce(left(audit.current_context() ->> 'actor_id', 200), session_user),
        coalesce(left(audit.current_context() ->> 'actor_type', 200), 'database'),
        'system', 'audit', left(record_own.target_id, 200),
        record_own.old_values, record_own.new_values, record_own.details);
$$;
comment on function audit.record_own(text, text, jsonb, jsonb, jsonb) is
    'Records what happened to the log itself: attached, detached, key created, month dropped';

create or replace function audit.define_action(name text, description text) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    insert into audit.action (name, description)
    values (define_action.name, define_action.description)
    on conflict (name) do update set description = excluded.description;
$$;
-- Definer: operators hold no privilege on the table itself.
comment on function audit.define_action(text, text) is
    'Adds an action of the application to the catalogue, or describes it anew';

insert into audit.action (name, description) values
    ('auth.login', 'A user signed in, or tried to'),
    ('auth.password_changed', 'A password was set or changed'),
    ('auth.two_factor_enabled', 'Two-factor authentication was switched on'),
    ('auth.two_factor_disabled', 'Two-factor authentication was switched off'),
    ('auth.impersonation_started', 'An administrator began to act as a user'),
    ('auth.impersonation_stopped', 'An administrator ceased to act as a user'),
    ('auth.email_changed', 'The e-mail address of a user changed'),
    ('membership.added', 'A user was added to, or invited into, an organisation or team'),
    ('membership.removed', 'A user was removed from an organisation or team'),
    ('membership.role_changed', 'A member was given another role'),
    ('membership.updated', 'Something else about a membership changed'),
    ('api_key.created', 'An API key was created'),
    ('api_key.revoked', 'An API key was revoked or deleted'),
    ('api_key.updated', 'Something about an API key changed'),
    ('workflow.created', 'A workflow was created'),
    ('workflow.modified', 'A workflow or one of its steps changed'),
    ('workflow.deleted', 'A workflow was deleted'),
    ('user.created', 'A user account was created'),
    ('user.updated', 'Something else about a user account changed'),
    ('user.deleted', 'A user account was deleted'),
    ('audit.installed', 'auditdb was installed or upgraded'),
    ('audit.attached', 'The capture of a table began'),
    ('audit.remapped', 'The mapping of a captured table changed'),
    ('audit.detached', 'The capture of a table ended'),
    ('audit.key_created', 'A signing key was created'),
    ('audit.key_retired', 'A signing key was given an end'),
    ('audit.month_dropped', 'A month of events was dropped by retention')
on conflict (name) do update set description = excluded.description;

-- Views for psql and BI tools. Each runs with the rights of the one who asks, so row-level security
-- shows an admin their organisation, an auditor everything, and anyone else nothing.

create or replace view audit.log with (security_invoker = true) as
select
    e.occurred_at,
    split_part(e.action, '.', 1) as category,
    e.action,
    e.result,
    case when e.impersonator_id is null or e.impersonator_id = e.actor_id then e.actor_id
        else e.impersonator_id || ' as ' || coalesce(e.actor_id, '?') end as actor,
    e.target_type,
    e.target_id,
    e.subject_id,
    case
        when e.details ? 'previous_role' then
            coalesce(e.details ->> 'previous_role', '-') || ' -> '
                || coalesce(e.details ->> 'new_role', '-')
        when e.old_values is not null and e.new_values is not null then (
            select string_agg(n.key || ': ' || coalesce(left(e.old_values ->> n.key, 40), '-')
                || ' -> ' || coalesce(left(n.value, 40), '-'), ', ' order by n.key)
            from jsonb_each_text(e.new_values) as n
        )
        else e.details ->> 'reason'
    end as change,
    e.source,
    e.details ->> 'ip' as ip,
    e.organization_id,
    e.actor_id,
    e.actor_type,
    e.impersonator_id,
    e.db_user,
    e.captured_from,
    e.old_values,
    e.new_values,
    e.details,
    e.transaction_id,
    e.id
from audit.event as e;
comment on view audit.log is 'Every event, with its change in words';

-- A prefix as a range, "/" following upon ".": unlike a function's result, it can be estimated.
create or replace view audit.auth_log with (security_invoker = true) as
select * from audit.log where action collate "C" > 'auth.' and action collate "C" < 'auth/';
comment on view audit.auth_log is
    'Sign-ins, passwords, two-factor, impersonation, e-mail addresses';

create or replace view audit.membership_log with (security_invoker = true) as
select * from audit.log where action collate "C" > 'membership.' and action collate "C" < 'membership/';
comment on view audit.membership_log is 'Who was added, removed, or given another role';

create or replace view audit.api_key_log with (security_invoker = true) as
select * from audit.log where action collate "C" > 'api_key.' and action collate "C" < 'api_key/';
comment on view audit.api_key_log is 'API keys created, changed and revoked';

create or replace view audit.workflow_log with (security_invoker = true) as
select * from audit.log where action collate "C" > 'workflow.' and action collate "C" < 'workflow/';
comment on view audit.workflow_log is
    'Workflows created, modified and deleted, their steps included';

create or replace view audit.role_change with (security_invoker = true) as
select
    e.occurred_at,
    e.organization_id,
    e.subject_id as user_id,
    e.details ->> 'previous_role' as previous_role,
    e.details ->> 'new_role' as new_role,
    e.actor_id,
    e.actor_type,
    e.impersonator_id,
    e.source,
    e.target_id as membership_id,
    e.id
from audit.event as e
where e.action = 'membership.role_changed' and e.result = 'success'
    and e.captured_from is not null;
comment on view audit.role_change is
    'Role changes that happened: whose, from what, to what, by whom';

create or replace view audit.impersonation with (security_invoker = true) as
select
    s.occurred_at as started_at,
    e.occurred_at as stopped_at,
    e.occurred_at - s.occurred_at as duration,
    s.impersonator_id,
    s.subject_id as user_id,
    s.organization_id,
    s.source,
    s.details ->> 'reason' as reason,
    e.id is null as is_open,
    s.id as start_id,
    e.id as stop_id
from audit.event as s
left join lateral (
    -- The first stop of the same pair, unless another start of that pair comes before it.
    select n.occurred_at, n.id, n.action
    from audit.event as n
    where n.action in ('auth.impersonation_started', 'auth.impersonation_stopped')
        and n.result = 'success'
        and n.impersonator_id = s.impersonator_id
        and n.subject_id = s.subject_id
        and n.organization_id is not distinct from s.organization_id
        and (n.occurred_at, n.id) > (s.occurred_at, s.id)
    order by n.occurred_at, n.id
    limit 1
) as e on e.action = 'auth.impersonation_stopped'
where s.action = 'auth.impersonation_started' and s.result = 'success';
comment on view audit.impersonation is
    'Impersonations, start paired with stop; is_open where none came yet';

create or replace view audit.api_key_lifecycle with (security_invoker = true) as
select
    e.organization_id,
    e.target_id as api_key_id,
    max(e.subject_id) as owner_id,
    min(e.occurred_at) filter (where e.action = 'api_key.created') as created_at,
    (array_agg(e.actor_id order by e.occurred_at, e.id)
        filter (where e.action = 'api_key.created'))[1] as created_by,
    max(e.occurred_at) filter (where e.action = 'api_key.revoked') as revoked_at,
    (array_agg(e.actor_id order by e.occurred_at desc, e.id desc)
        filter (where e.action = 'api_key.revoked'))[1] as revoked_by,
    coalesce(max(e.occurred_at) filter (where e.action = 'api_key.revoked'), now())
        - min(e.occurred_at) filter (where e.action = 'api_key.created') as age,
    count(*) as events
from audit.event as e
where e.action in ('api_key.created', 'api_key.updated', 'api_key.revoked')
    and e.captured_from is not null
group by e.organization_id, e.target_id;
comment on view audit.api_key_lifecycle is
    'Each API key: created, revoked, by whom, and how old it is or was';

create or replace view audit.login_activity with (security_invoker = true) as
select
    e.organization_id,
    e.subject_id as user_id,
    count(*) filter (where e.result = 'success') as successes,
    count(*) filter (where e.result = 'failure') as failures,
    count(*) filter (where e.result = 'denied') as denials,
    max(e.occurred_at) filter (where e.result = 'success') as last_success_at,
    max(e.occurred_at) filter (where e.result <> 'success') as last_failure_at,
    array_agg(distinct e.source) as sources,
    array_agg(distinct e.details ->> 'ip') filter (where e.details ? 'ip') as ips
from audit.event as e
where e.action = 'auth.login'
group by e.organization_id, e.subject_id;
comment on view audit.login_activity is
    'Sign-ins by user: how many succeeded and failed, when last, from where';

-- Access: a signed, short-lived token says who reads for which organisation; whether they may is
-- looked up live. Every failure looks the same: no rows.

create or replace function audit.hmac_sha256(key bytea, message bytea) returns bytea
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    -- RFC 2104, block of 64 bytes.
    _key bytea := (case when length(hmac_sha256.key) > 64 then sha256(hmac_sha256.key)
        else hmac_sha256.key end);
    _inner bytea;
    _outer bytea;
begin
    _key := _key || decode(repeat('00', 64 - length(_key)), 'hex');
    _inner := _key;
    _outer := _key;
    for _i in 0 .. 63 loop
        _inner := set_byte(_inner, _i, get_byte(_key, _i) # 54);
        _outer := set_byte(_outer, _i, get_byte(_key, _i) # 92);
    end loop;
    return sha256(_outer || sha256(_inner || hmac_sha256.message));
end
$$;
comment on function audit.hmac_sha256(bytea, bytea) is 'HMAC-SHA-256 (RFC 2104) from core sha256';

create or replace function audit.from_base64url(value text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp
return convert_from(decode(
    translate(value, '-_', '+/') || repeat('=', (4 - length(value) % 4) % 4), 'base64'), 'UTF8');
comment on function audit.from_base64url(text) is 'Text from unpadded base64url';

create or replace function audit.is_admin(organization_id text, user_id text) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _id int;
    _admin boolean;
begin
    for _id in select id from audit.attachment where mapping ? 'admin' order by id loop
        _admin := false;
        -- Always rolled back, so that nothing which a mapping's code sets or does outlives the
        -- answer;
        -- one mapping gone stale leaves the others in force.
        begin
            execute format('select audit.admin_%s($1, $2)', _id)
                into _admin using is_admin.organization_id, is_admin.user_id;
            raise exception using errcode = 'AU001';
        exception
            when sqlstate 'AU001' then null;
            when assert_failure or others then _admin := false;
        end;
        if _admin then
            return true;
        end if;
    end loop;
    return false;
end
$$;
comment on function audit.is_admin(text, text) is
    'Whether a user is an admin or owner of an organisation now, by the attached memberships';

create or replace function audit.viewer_organization() returns text
-- Unsafe: before PostgreSQL 17 its guarded blocks cannot start while a parallel plan runs.
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _token text := current_setting('auditdb.viewer', true);
    _parts text[];
    _secret text;
    _organization text;
    _expires timestamptz;
begin
    -- v1.key_id.user.organization.expires.mac
    if _token is null or length(_token) > 2000 or _token !~
        '^v1\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[0-9]{1,12}\.[0-9a-f]{64}$'
    then
        return null;
    end if;
    _parts := string_to_array(_token, '.');
    _expires := to_timestamp(_parts[5]::bigint);
    if _expires <= clock_timestamp() or _expires > clock_timestamp() + interval '1 hour' then
        return null;
    end if;
    select secret into _secret
    from audit.signing_key
    where id = _parts[2] and (retires_at is null or retires_at > clock_timestamp());
    if not found then
        return null;
    end if;
    -- Hashes are compared, so that the time taken tells nothing about the right one.
    if sha256(decode(_parts[6], 'hex')) <> sha256(audit.hmac_sha256(
        convert_to(_secret, 'UTF8'),
        convert_to(array_to_string(_parts[1:5], '.'), 'UTF8')))
    then
        return null;
    end if;
    _organization := audit.from_base64url(_parts[4]);
    if audit.is_admin(_organization, audit.from_base64url(_parts[3])) then
        return _organization;
    end if;
    return null;
exception when assert_failure or others then
    return null;
end
$$;
-- Definer: reads the signing keys, which no login role can.
comment on function audit.viewer_organization() is
    'The organisation that the viewer token of this transaction may read, or null';

create or replace function audit.create_key(retire_others_after interval default null) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _id text := left(encode(sha256(uuid_send(gen_random_uuid())), 'hex'), 8);
    -- Two random UUIDs hold 244 random bits; the digest spreads them over 256.
    _secret text := translate(rtrim(encode(sha256(
        uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64'), '='), '+/', '-_');
begin
    if create_key.retire_others_after < interval '0' then
        raise exception 'keys cannot retire % ago', - create_key.retire_others_after
            using errcode = 'invalid_parameter_value', hint = 'Give zero or a time to come.';
    end if;
    if create_key.retire_others_after is not null then
        perform audit.record_own('key_retired', id, null, null) from audit.signing_key
        where retires_at is null or retires_at > clock_timestamp() + create_key.retire_others_after;
        update audit.signing_key set retires_at = clock_timestamp() + create_key.retire_others_after
        where retires_at is null or retires_at > clock_timestamp() + create_key.retire_others_after;
    end if;
    insert into audit.signing_key (id, secret) values (_id, _secret);
    perform audit.record_own('key_created', _id, null, null);
    return _id || '.' || _secret;
end
$$;
-- Definer: operators hold no privilege on the keys themselves.
comment on function audit.create_key(interval) is
    'Makes a signing key and returns it, once, as key_id.secret; may retire all others after a '
    'while';

create or replace function audit.list_keys()
returns table (id text, created_at timestamptz, created_by text, retires_at timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select id, created_at, created_by, retires_at from audit.signing_key order by created_at, id;
$$;
-- Definer: shows all of the table but the secrets.
comment on function audit.list_keys() is 'The signing keys, without their secrets';

do $$
begin
    if not exists (select from pg_catalog.pg_policy where polrelid = 'audit.event'::regclass
        and polname = 'viewers_read_their_organization')
    then
        create policy viewers_read_their_organization on audit.event for select to audit_reader
            using (organization_id = (select audit.viewer_organization()));
    end if;
    if not exists (select from pg_catalog.pg_policy where polrelid = 'audit.event'::regclass
        and polname = 'auditors_read_everything')
    then
        create policy auditors_read_everything on audit.event for select to audit_auditor
            using (true);
    end if;
    if not exists (select from pg_catalog.pg_policy where polrelid = 'audit.event'::regclass
        and polname = 'the_owner_writes')
    then
        create policy the_owner_writes on audit.event for insert to audit_owner with check (true);
    end if;
    if not exists (select from pg_catalog.pg_policy where polrelid = 'audit.event'::regclass
        and polname = 'the_owner_counts')
    then
        create policy the_owner_counts on audit.event for select to audit_owner using (true);
    end if;
    if not exists (select from pg_catalog.pg_policy where polrelid = 'audit.signing_key'::regclass
        and polname = 'the_owner_keeps')
    then
        create policy the_owner_keeps on audit.signing_key to audit_owner using (true);
    end if;
    if not exists (select from pg_catalog.pg_policy where polrelid = 'audit.attachment'::regclass
        and polname = 'the_owner_maps')
    then
        create policy the_owner_maps on audit.attachment to audit_owner using (true);
        create policy anyone_granted_reads on audit.attachment for select using (true);
    end if;
end
$$;

-- Status: what is attached, what is stored, who holds which role. For auditdb status and for psql.

create or replace function audit.list_tables()
returns table (
    target text, kind text, mapping jsonb, attached_at timestamptz, attached_by text, problem text
)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select a.target::text, a.kind, a.mapping, a.attached_at, a.attached_by, case
        when c.oid is null then 'the table is gone'
        when now_has.columns <> a.mapping -> 'columns'
            then 'its columns changed since it was attached: attach it again'
        end
    from audit.attachment as a
        left join pg_class as c on c.oid = a.target
        left join lateral (
            select jsonb_agg(attname order by attnum) as columns
            from pg_attribute
            where attrelid = c.oid and attnum > 0 and not attisdropped
        ) as now_has on true
    order by a.kind, a.target::text;
$$;
comment on function audit.list_tables() is
    'The attached tables, how their rows map to events, and whether the mapping has gone stale';

create or replace function audit.list_partitions()
returns table (name text, bounds text, events bigint, is_estimate boolean, bytes bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- Counting is exact until it would take seconds.
    _is_small boolean := (
        select sum(pg_relation_size(relid)) < 256 * 1024 * 1024
        from pg_partition_tree('audit.event')
    );
begin
    return query
    with counts as (
        select e.tableoid as oid, count(*) as n from audit.event as e where _is_small
            group by e.tableoid
    )
    select c.relname::text, pg_get_expr(c.relpartbound, c.oid),
        case when _is_small then coalesce(counts.n, 0) else greatest(c.reltuples, 0)::bigint end,
        not _is_small, pg_total_relation_size(c.oid)
    from pg_partition_tree('audit.event') as t
        join pg_class as c on c.oid = t.relid
        left join counts on counts.oid = c.oid
    where t.isleaf
    order by c.relname = 'event_default', c.relname;
end
$$;
-- Definer: counts events, which operators may not read.
comment on function audit.list_partitions() is
    'The months of the log: how many events, how many bytes';

create or replace function audit.list_members()
returns table (role_name text, members text[])
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select r.rolname::text,
        coalesce(array_agg(distinct m.rolname::text order by m.rolname::text)
            filter (where m.rolname is not null), '{}')
    from pg_roles as r
        left join pg_auth_members as am on am.roleid = r.oid
        left join pg_roles as m on m.oid = am.member
            -- PostgreSQL 16 gives a role's creator the right to grant it, which is no use of it.
            and pg_has_role(m.oid, r.oid, 'usage') and not m.rolsuper
    where r.rolname in ('audit_operator', 'audit_writer', 'audit_reader', 'audit_auditor',
        'audit_owner')
    group by r.rolname
    order by r.rolname;
$$;
comment on function audit.list_members() is 'Who holds which role of auditdb';

-- Maintenance: a partition for each month, always some months ahead.
-- A partition is made apart and guarded before it is attached, which locks out no writer. Run it
-- hourly, as a member of audit_operator, from cron: auditdb maintain --keep 24months
-- or with pg_cron:
-- select cron.schedule('auditdb', '17 * * * *', $$select audit.maintain('24 months')$$);

create or replace function audit.month_bounds(month date, out starts timestamptz,
    out ends timestamptz)
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select date_trunc('month', month_bounds.month::timestamp) at time zone 'UTC',
        (date_trunc('month',
            month_bounds.month::timestamp) + interval '1 month') at time zone 'UTC';
$$;
comment on function audit.month_bounds(date) is 'First instant of a month (UTC), and of the next';

create or replace function audit.prepare_month(month date) returns regclass
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _name text := 'event_' || to_char(prepare_month.month, 'YYYY_MM');
    _partition regclass := to_regclass(format('audit.%I', _name));
begin
    if _partition is not null then
        return _partition;
    end if;
    execute format('create table audit.%I (like audit.event including defaults including comments '
        'including indexes)', _name);
    _partition := format('audit.%I', _name)::regclass;
    execute format('comment on table %s is %L', _partition,
        format('Events of %s (UTC)', to_char(prepare_month.month, 'YYYY-MM')));
    perform audit.guard(_partition);
    execute format('revoke all on %s from public', _partition);
    return _partition;
end
$$;
comment on function audit.prepare_month(date) is
    'Makes the table of one month, guarded, apart from the log';

create or replace function audit.join_month(month date) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _partition regclass := audit.prepare_month(join_month.month);
    _bounds record;
begin
    _bounds := audit.month_bounds(join_month.month);
    execute format('alter table audit.event attach partition %s for values from (%L) to (%L)',
        _partition, _bounds.starts, _bounds.ends);
    execute format('alter table %s enable always trigger refuse_change', _partition);
end
$$;
comment on function audit.join_month(date) is
    'Makes the table of one month part of the log, not yet attested';

create or replace function audit.attach_month(month date) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    perform audit.join_month(attach_month.month);
    perform audit.record_attestation('month', 'audit.event', '{trigger}', renew => false);
end
$$;
comment on function audit.attach_month(date) is 'Makes the table of one month part of the log';

create or replace function audit.try_lock(target regclass, mode text) returns boolean
-- Writers queue behind whoever waits: briefly, and then they go first.
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '50ms'
as $$
begin
    execute format('lock table only %s in %s mode', try_lock.target, try_lock.mode);
    return true;
exception when lock_not_available then
    return false;
end
$$;
comment on function audit.try_lock(regclass, text) is
    'Locks a table unless that takes longer than writers may wait; whether it did';

create or replace function audit.lock_briefly(target regclass, mode text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    for _attempt in 1 .. 50 loop
        if audit.try_lock(lock_briefly.target, lock_briefly.mode) then
            return;
        end if;
        perform pg_sleep(0.5);
    end loop;
    raise exception 'no lock on % was to be had', lock_briefly.target
        using errcode = 'lock_not_available',
            hint = 'Some transaction stays open. Run it again when that has ended.';
end
$$;
comment on function audit.lock_briefly(regclass, text) is
    'Locks a table, trying often rather than waiting long';

create or replace function audit.months_attached() returns date[]
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(array_agg(to_date(substr(relname, 7), 'YYYY_MM') order by relname), '{}')
    from pg_inherits join pg_class on pg_class.oid = inhrelid
    where inhparent = 'audit.event'::regclass and relname ~ '^event_[0-9]{4,}_[0-9]{2}$'
);
comment on function audit.months_attached() is 'The months that have a partition';

create or replace function audit.months_in_default() returns date[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(distinct date_trunc('month', occurred_at at time zone 'UTC')::date),
        '{}')
    from audit.event_default;
$$;
comment on function audit.months_in_default() is
    'The months of events that no partition covers yet';

create or replace function audit.create_months(ahead int default 3) returns date[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
    _this date := date_trunc('month', now() at time zone 'UTC');
    _missing date[];
    _month date;
begin
    if create_months.ahead is null or create_months.ahead not between 1 and 120 then
        raise exception 'cannot keep % months ahead', create_months.ahead
            using errcode = 'invalid_parameter_value', hint = 'Give a number from 1 to 120.';
    end if;
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    _missing := array(
        select m::date
        from generate_series(_this, _this + make_interval(months => ahead), interval '1 month') as m
        where m::date <> all (audit.months_attached())
            -- Those of which DEFAULT holds events are drain's to make.
            and m::date <> all (audit.months_in_default())
    );
    if _missing <> '{}' then
        foreach _month in array _missing loop
            perform audit.prepare_month(_month);
        end loop;
        -- Readers of the whole log wait from here to the commit; writers do not.
        perform audit.lock_briefly('audit.event', 'share update exclusive');
        perform audit.lock_briefly('audit.event_default', 'access exclusive');
        foreach _month in array _missing loop
            perform audit.join_month(_month);
        end loop;
        perform audit.record_attestation('month', 'audit.event', '{trigger}', renew => false);
    end if;
    return _missing;
end
$$;
-- Definer: partitions belong to audit_owner.
comment on function audit.create_months(int) is
    'Makes the partitions of this month and of the given number of months after it, where absent';

create or replace function audit.drop_months(keep interval) returns setof text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    -- Neither this month nor the last full one, whatever is asked.
    _until date := least(
        date_trunc('month', (now() - drop_months.keep) at time zone 'UTC'),
        date_trunc('month', now() at time zone 'UTC') - interval '1 month');
    _month date;
    _months date[] := '{}';
    _events bigint[] := '{}';
    _bounds record;
    _name text;
begin
    if drop_months.keep < interval '2 months' then
        raise exception 'retention of % would drop the present', drop_months.keep
            using errcode = 'invalid_parameter_value', hint = 'Keep at least 2 months.';
    end if;
    -- Counted before the lock, which writers wait for.
    foreach _month in array audit.months_attached() loop
        continue when _month >= _until;
        _bounds := audit.month_bounds(_month);
        _events := _events || (
            select count(*) from audit.event
            where occurred_at >= _bounds.starts and occurred_at < _bounds.ends);
        _months := _months || _month;
    end loop;
    if _months = '{}' then
        return;
    end if;
    perform audit.lock_briefly('audit.event', 'access exclusive');
    for _i in 1 .. cardinality(_months) loop
        _bounds := audit.month_bounds(_months[_i]);
        _name := 'event_' || to_char(_months[_i], 'YYYY_MM');
        perform audit.close_attestation(format('audit.%I', _name)::regclass, 'retention');
        execute format('drop table audit.%I', _name);
        perform audit.record_own('month_dropped', to_char(_months[_i], 'YYYY-MM'), null, null,
            jsonb_build_object('from', _bounds.starts, 'to', _bounds.ends, 'events', _events[_i],
                'keep', drop_months.keep));
        return next format('dropped %s: %s events', to_char(_months[_i], 'YYYY-MM'), _events[_i]);
    end loop;
end
$$;
comment on function audit.drop_months(interval) is
    'Drops the months that lie wholly before the retention, each as an event of its own';

create or replace function audit.maintain(keep interval default null, ahead int default 3)
returns setof text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '100ms'
as $$
declare
    _month date;
    _moved bigint;
    _created boolean := false;
begin
    -- The lock of install and attach: whoever comes second has nothing left to do.
    if not pg_try_advisory_xact_lock(hashtextextended('auditdb', 0)) then
        return next 'nothing done: install, attach or another maintenance is running';
        return;
    end if;
    -- A lock lasts to the end of the transaction: no work may follow that needs none.
    _moved := audit.drain();
    if _moved > 0 then
        return next format('moved %s events out of DEFAULT', _moved);
        return;
    end if;
    foreach _month in array audit.create_months(maintain.ahead) loop
        return next format('created the partition of %s', to_char(_month, 'YYYY-MM'));
        _created := true;
    end loop;
    if maintain.keep is not null and not _created then
        return query select * from audit.drop_months(maintain.keep);
    end if;
end
$$;
-- Definer: partitions belong to audit_owner.
comment on function audit.maintain(interval, int) is
    'Keeps the log healthy, for cron: DEFAULT empty, partitions ahead, months beyond the retention '
    'dropped. Does the first of these that there is to do, and returns what it did: run it until '
    'it returns nothing, or every hour. Tries for a lock for 50 ms at a time, 50 times';

create or replace function audit.regenerate() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _id int;
begin
    for _id in
        select a.id from audit.attachment as a
        where exists (select from pg_class where oid = a.target)
        order by a.id
    loop
        perform audit.generate(_id);
    end loop;
end
$$;
comment on function audit.regenerate() is
    'Writes the functions of every attached table again, from the mapping in force; part of '
    'install';

create or replace function audit.version() returns text
language sql immutable set search_path = pg_catalog, pg_temp
return '0.1.0';
comment on function audit.version() is 'Version of auditdb that was last installed';

create or replace function audit.finish_install() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    perform audit.create_months();
    perform audit.regenerate();
    perform audit.record_attestation('install', 'audit.event', '{function,policy,relation,grant}');
    perform audit.record_attestation('install', kinds => '{function}');
    perform audit.record_attestation('install', renew => false);
    perform audit.record_own('installed', audit.version(), null, null);
end
$$;
comment on function audit.finish_install() is
    'Last step of install: partitions, capture functions, and the event that says so';

-- Drain: events that arrived before their month had a partition leave DEFAULT, while writers write.

-- Immutable is a claim that only an index makes use of: an entry keeps the transaction that wrote
-- it, which no column can say for certain. Where a plan calls it instead, every row looks new, and
-- copying a row twice does nothing.
create or replace function audit.arrived_in(id bigint) returns xid8
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
    return pg_current_xact_id();
end
$$;
comment on function audit.arrived_in(bigint) is
    'Indexed on DEFAULT: the transaction that wrote an event there, for audit.drain()';

create or replace function audit.furnish_default() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from pg_policy
        where polrelid = 'audit.event_default'::regclass and polname = 'the_owner_drains')
    then
        create policy the_owner_drains on audit.event_default for select to audit_owner
            using (true);
        create index event_default_arrived_in_idx on audit.event_default (audit.arrived_in(id));
    end if;
end
$$;
comment on function audit.furnish_default() is 'Gives DEFAULT what audit.drain() reads it by';

do $$ begin perform audit.furnish_default(); end $$;

create or replace function audit.copy_default(
    inout seen pg_snapshot, inout months date[], out copied bigint
)
-- The index on arrival must find the newcomers, however few the planner takes DEFAULT to hold.
language plpgsql volatile set search_path = pg_catalog, pg_temp set enable_seqscan = off
as $$
declare
    _now pg_snapshot := pg_current_snapshot();
    _from text := 'audit.event_default';
    _month date;
    _bounds record;
    _count bigint;
begin
    copied := 0;
    if seen is not null then
        _from := format('(select * from audit.event_default where audit.arrived_in(id) >= %L::xid8 '
            'or audit.arrived_in(id) = any (%L::xid8[]) offset 0)',
            pg_snapshot_xmax(seen), array(select pg_snapshot_xip(seen)));
    end if;
    for _month in execute format($sql$
        select distinct date_trunc('month', occurred_at at time zone 'UTC')::date
        from %s as e$sql$, _from)
    loop
        _bounds := audit.month_bounds(_month);
        if _month <> all (months) then
            -- Until it is attached the owner writes into it; the check saves a scan then.
            execute format('alter table %s no force row level security, add constraint in_month '
                'check (occurred_at >= %L and occurred_at < %L)',
                audit.prepare_month(_month), _bounds.starts, _bounds.ends);
            months := months || _month;
        end if;
        execute format('insert into %s select * from %s as e where occurred_at >= %L '
            'and occurred_at < %L on conflict (occurred_at, id) do nothing',
            audit.prepare_month(_month), _from, _bounds.starts, _bounds.ends);
        get diagnostics _count = row_count;
        copied := copied + _count;
    end loop;
    seen := _now;
end
$$;
comment on function audit.copy_default(pg_snapshot, date[]) is
    'Copies events of DEFAULT that a snapshot did not see, or all, to tables of their months';

create or replace function audit.replace_default(months date[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _month date;
begin
    perform audit.close_attestation('audit.event_default', 'drain');
    drop table audit.event_default;
    foreach _month in array months loop
        execute format('alter table %s force row level security', audit.prepare_month(_month));
        perform audit.join_month(_month);
        execute format('alter table %s drop constraint in_month', audit.prepare_month(_month));
    end loop;
    create table audit.event_default (like audit.event including defaults including comments);
    comment on table audit.event_default
        is 'Events that no monthly partition covers; normally empty';
    revoke all on audit.event_default from public;
    perform audit.guard('audit.event_default');
    perform audit.furnish_default();
    alter table audit.event attach partition audit.event_default default;
    alter table audit.event_default enable always trigger refuse_change;
    perform audit.record_attestation('drain', 'audit.event', '{trigger,policy}', renew => false);
end
$$;
comment on function audit.replace_default(date[]) is
    'Puts an empty DEFAULT and the months of its events in the place of the one that was copied';

-- Copies while writers write, until little is new; then locks the log, copies what came last, and
-- replaces DEFAULT: what writers wait for does not grow with the number of events.
create or replace function audit.drain() returns bigint
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _seen pg_snapshot;
    _months date[] := '{}';
    _copied bigint;
    _moved bigint := 0;
    _is_locked boolean := false;
begin
    if not exists (select from audit.event_default) then
        return 0;
    end if;
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise exception 'events cannot be moved under %', current_setting('transaction_isolation')
            using errcode = 'invalid_transaction_state',
                hint = 'Those that arrive meanwhile would not be seen. Use read committed.';
    end if;
    -- Keeps vacuum and others' DDL out, and no writer.
    perform audit.lock_briefly('audit.event', 'share update exclusive');
    perform audit.lock_briefly('audit.event_default', 'share update exclusive');
    for _attempt in 1 .. 200 loop
        select * into _seen, _months, _copied from audit.copy_default(_seen, _months);
        _moved := _moved + _copied;
        continue when _copied > 100 and mod(_attempt, 4) > 0;
        _is_locked := audit.try_lock('audit.event', 'access exclusive');
        exit when _is_locked;
        perform pg_sleep(0.5);
    end loop;
    if not _is_locked then
        raise exception 'no lock on audit.event was to be had'
            using errcode = 'lock_not_available',
                hint = 'Some transaction stays open. Run it again when that has ended.';
    end if;
    lock table only audit.event_default in access exclusive mode;
    select * into _seen, _months, _copied from audit.copy_default(_seen, _months);
    _moved := _moved + _copied;
    perform audit.replace_default(_months);
    return _moved;
end
$$;
comment on function audit.drain() is
    'Moves events out of DEFAULT into partitions of their months, and returns how many';

-- Attestation: what stood in the catalogs when auditdb last put it there, kept append-only.
-- A trigger disabled and enabled again looks as before, but for the xmin of its catalog row.

do $$
begin
    if not exists (
        select from pg_catalog.pg_policy
        where polrelid = 'audit.attestation'::regclass and polname = 'the_owner_attests'
    ) then
        create policy the_owner_attests on audit.attestation for insert to audit_owner
            with check (true);
        create policy anyone_granted_reads on audit.attestation for select using (true);
    end if;
end
$$;

create or replace function audit.fingerprint(variadic parts text[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return encode(sha256(convert_to(array_to_string(fingerprint.parts, E'\n', '-'), 'UTF8')), 'hex');
comment on function audit.fingerprint(text[]) is 'SHA-256 of texts, in hexadecimal';

create or replace function audit.captured_tables()
returns table (id int, target regclass, relation regclass)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select a.id, a.target, coalesce(t.relid, a.target)
    from audit.attachment as a
        left join lateral pg_partition_tree(a.target) as t on true
    where a.kind <> 'admin' and exists (select from pg_class as c where c.oid = a.target);
$$;
comment on function audit.captured_tables() is
    'The attached tables that exist, and their partitions';

create or replace function audit.function_facts() returns setof audit.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select coalesce(a.target, 'audit.event'), 'function', coalesce(a.target, 'audit.event'),
        p.oid::regprocedure::text,
        jsonb_build_object('catalog', p.pronamespace::bigint, 'oid', p.oid::bigint,
            'xmin', p.xmin::text, 'parsed', p.prosqlbody is not null,
            'sha256', audit.fingerprint(p.proowner::regrole::text,
                case when p.prokind in ('f', 'p') then pg_get_functiondef(p.oid) end))
    from pg_proc as p
        left join audit.attachment as a
            on a.id::text = substring(p.proname from
                '^(?:capture|image|organization|admin)_([0-9]+)$')
    where p.pronamespace = 'audit'::regnamespace;
$$;
comment on function audit.function_facts() is
    'Every function of the log, generated ones under their table';

create or replace function audit.trigger_facts() returns setof audit.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select s.scope, 'trigger', s.relation, t.tgname::text, jsonb_build_object(
        'catalog', 'audit'::regnamespace::bigint, 'oid', t.oid::bigint, 'xmin', t.xmin::text,
        'enabled', t.tgenabled, 'on', s.relation::text, 'sha256', audit.fingerprint(
            t.tgtype::text, t.tgfoid::regprocedure::text, t.tgattr::text, t.tgqual::text,
            t.tgdeferrable::text))
    from (
        select target as scope, relation from audit.captured_tables()
        union all
        select 'audit.event'::regclass, oid from pg_class
        where relnamespace = 'audit'::regnamespace and relkind in ('r', 'p')
    ) as s
        join pg_trigger as t on t.tgrelid = s.relation
    where not t.tgisinternal
        and (s.scope = 'audit.event'::regclass
            or t.tgname = any ('{auditdb_insert,auditdb_update,auditdb_delete,auditdb_truncate}'));
$$;
comment on function audit.trigger_facts() is
    'Our triggers on attached tables and their partitions, and all triggers on the log';

create or replace function audit.policy_facts() returns setof audit.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'audit.event', 'policy', polrelid, polname::text, jsonb_build_object(
        'on', polrelid::regclass::text, 'sha256', audit.fingerprint(
            polcmd::text, polpermissive::text,
            (select string_agg(coalesce(r.rolname, 'public'), ', ' order by r.rolname)
                from unnest(polroles) as o left join pg_roles as r on r.oid = o),
            pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)))
    from pg_policy join pg_class as c on c.oid = polrelid
    where c.relnamespace = 'audit'::regnamespace;
$$;
comment on function audit.policy_facts() is 'The policies of row-level security on the log';

create or replace function audit.relation_facts() returns setof audit.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select s.scope, case when s.is_log then 'relation' else 'table' end, s.scope,
        case when s.is_log then c.oid::regclass::text else '' end,
        jsonb_build_object('catalog', 'audit'::regnamespace::bigint, 'oid', c.oid::bigint,
            'on', c.oid::regclass::text,
            'owner', c.relowner::regrole::text,
            'columns', (
                select jsonb_object_agg(attname, format_type(atttypid, atttypmod)) from pg_attribute
                where attrelid = c.oid and attnum > 0 and not attisdropped),
            -- Defaults and views say what the log says; those of the application are its own.
            'sha256', case when s.is_log then audit.fingerprint(
                pg_get_viewdef(c.oid),
                (select string_agg(format('%s %s', adnum, pg_get_expr(adbin, adrelid)), ', '
                    order by adnum) from pg_attrdef where adrelid = c.oid)) end)
    from pg_class as c
        cross join lateral (
            select c.relnamespace = 'audit'::regnamespace as is_log, case c.relnamespace
                when 'audit'::regnamespace then 'audit.event'::regclass else c.oid::regclass
                end as scope
        ) as s
    where s.is_log and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
        or c.oid in (select target from audit.attachment);
$$;
comment on function audit.relation_facts() is
    'The attached tables; the tables and views of the log, its partitions apart';

create or replace function audit.default_privileges()
returns table (object text, attname name, function text, owner oid, acl aclitem[], template text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select format('future %s of %s', k.plural, r.oid::regrole), null::name, null::text, r.oid,
        -- Where nothing was said, functions and types are open to all.
        coalesce(d.defaclacl, case when d.defaclrole is null then acldefault('f', r.oid) end),
        format('alter default privileges for role %s%s revoke %%s on %s from %%s', r.oid::regrole,
            ' in schema ' || n.nspname, k.plural)
    from pg_roles as r
        left join pg_default_acl as d on d.defaclrole = r.oid
        left join pg_namespace as n on n.oid = d.defaclnamespace
        join (values ('r', 'tables'), ('S', 'sequences'), ('f', 'functions'), ('T', 'types'),
            ('n', 'schemas')) as k (kind, plural)
            on k.kind = coalesce(d.defaclobjtype, 'f')::text
    where r.rolname in ('audit_owner', 'audit_mapper')
        and (d.defaclrole is not null or r.rolname = 'audit_owner');
$$;
comment on function audit.default_privileges() is
    'Privileges that objects to come would be born with';

create or replace function audit.privileges()
returns table (object text, attname text, function text, owner oid, acl aclitem[], template text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select o.object, o.attname, o.function, o.owner, o.acl,
        coalesce(o.template, 'revoke %s on ' || o.object || ' from %s')
    from (
        select 'schema audit', null::name, null::text, nspowner, nspacl, null::text
        from pg_namespace where nspname = 'audit'
        union all
        select case relkind when 'S' then 'sequence ' else 'table ' end || oid::regclass,
            null, null, relowner, relacl, null
        from pg_class
        where relnamespace = 'audit'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S')
        union all
        select 'table ' || attrelid::regclass, attname, null, relowner, attacl, null
        from pg_attribute join pg_class as c on c.oid = attrelid
        where relnamespace = 'audit'::regnamespace and attacl is not null
        union all
        select 'function ' || oid::regprocedure, null, oid::regprocedure::text, proowner,
            coalesce(proacl, acldefault('f', proowner)), null
        from pg_proc where pronamespace = 'audit'::regnamespace
        union all
        select 'type ' || t.oid::regtype, null, null, typowner,
            coalesce(typacl, acldefault('T', typowner)), null
        from pg_type as t join pg_class as c on c.oid = t.typrelid
        where typnamespace = 'audit'::regnamespace and c.relkind = 'c'
        union all
        select * from audit.default_privileges()
    ) as o (object, attname, function, owner, acl, template);
$$;
comment on function audit.privileges() is 'Privileges on everything in the schema audit';

create or replace function audit.grant_facts() returns setof audit.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select coalesce(a.target, 'audit.event'), 'grant', coalesce(a.target, 'audit.event'),
        format('%s%s on %s to %s', x.privilege_type, ' (' || g.attname || ')', g.object, r.name),
        jsonb_build_object('revoke', format(g.template, x.privilege_type || coalesce(
            ' (' || g.attname || ')', ''), r.name), 'function', g.function)
    from audit.privileges() as g
        left join audit.attachment as a on g.function = format('audit.capture_%s()', a.id)
        cross join lateral aclexplode(g.acl) as x
        cross join lateral (
            select case x.grantee when 0 then 'public' else x.grantee::regrole::text end as name
        ) as r
    where x.grantee <> g.owner and x.grantee <> 'audit_owner'::regrole;
$$;
comment on function audit.grant_facts() is
    'Every privilege on the log that somebody other than its owner holds, or will hold by default';

create or replace function audit.current_facts() returns setof audit.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select * from audit.function_facts()
    union all select * from audit.trigger_facts()
    union all select * from audit.policy_facts()
    union all select * from audit.relation_facts()
    union all select * from audit.grant_facts();
$$;
comment on function audit.current_facts() is 'What stands in the catalogs now';

create or replace function audit.attested() returns setof audit.attestation
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select * from (
        select distinct on (scope, kind, relation, name) *
        from audit.attestation
        order by scope, kind, relation, name, id desc
    ) as latest
    where fact is not null;
$$;
comment on function audit.attested() is 'The attestation in force';

create or replace function audit.compare_facts()
returns table (
    scope regclass, kind text, relation regclass, name text, was jsonb, stands jsonb,
    attested_at timestamptz, attested_by text
)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select scope, kind, relation, name, w.fact, s.fact, w.attested_at, w.attested_by
    from audit.attested() as w
        full join audit.current_facts() as s using (scope, kind, relation, name)
        cross join lateral (
            -- A name may change. After a restore every row of the catalogs is new, which says
            -- nothing; and a body that is kept parsed is not printed the same way twice.
            select case
                when w.fact -> 'catalog' = s.fact -> 'catalog' then '{on}'
                when (w.fact ->> 'parsed')::boolean then '{on,catalog,oid,xmin,sha256}'
                else '{on,catalog,oid,xmin}'
            end::text[] as keys
        ) as v
    where (w.fact - v.keys) is distinct from (s.fact - v.keys);
$$;
comment on function audit.compare_facts() is 'What stands otherwise than attested';

-- Triggers are attested anew only where somebody answers for them: install changes none.
create or replace function audit.record_attestation(
    occasion text,
    scope regclass default null,
    kinds text[] default null,
    renew boolean default true
) returns jsonb
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    with changed as (
        select w.id as was_id, w.fact as was, s.fact as stands, scope, kind, relation, name
        from audit.attested() as w
            full join audit.current_facts() as s using (scope, kind, relation, name)
        where scope = coalesce(record_attestation.scope, scope)
            and kind = any (coalesce(record_attestation.kinds, array[kind]))
            and w.fact is distinct from s.fact
            and (record_attestation.renew or w.fact is null)
    ), recorded as (
        insert into audit.attestation (occasion, scope, kind, relation, name, fact)
        select record_attestation.occasion, scope, kind, relation, name, stands from changed
        order by kind, relation::text, name
    )
    select jsonb_build_object(
        'was', jsonb_object_agg(concat_ws(' on ', kind || ' ' || name, was ->> 'on'), was),
        'stands', jsonb_object_agg(concat_ws(' on ', kind || ' ' || name, was ->> 'on'), stands))
    from changed
    where was is not null and stands is not null
        -- Attaching writes the functions anew, mostly with the same text.
        and (kind <> 'function' or was ->> 'sha256' <> stands ->> 'sha256')
        and not (kind in ('function', 'table') and exists (
            select from audit.attachment as a
            where a.target = changed.scope and a.attached_at = now()));
$$;
comment on function audit.record_attestation(text, regclass, text[], boolean) is
    'Attests what stands now, where it differs; returns what was attested otherwise before';

create or replace function audit.attest(scope regclass) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _changed jsonb := audit.record_attestation(
        case
            when exists (
                select from audit.attachment as a
                where a.target = attest.scope and a.attached_at = now()
            ) then 'attach'
            when attest.scope = 'audit.event'::regclass or exists (
                select from audit.attachment as a where a.target = attest.scope
            ) then 'attest'
            else 'detach'
        end,
        attest.scope);
begin
    if _changed ->> 'was' is not null then
        perform audit.record_own('attested', attest.scope::text,
            _changed -> 'was', _changed -> 'stands');
    end if;
end
$$;
-- Definer: nobody may write the attestation itself. It states what is, so that any operator may ask
-- for it; who did, and what stood before, is an event.
comment on function audit.attest(regclass) is
    'Attests a table as it is attached now, or with audit.event the log itself: after a finding of '
    'audit.doctor() was looked into, or after a restore. What stood before goes into an event';

create or replace function audit.close_attestation(relation regclass, occasion text) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    insert into audit.attestation (occasion, scope, kind, relation, name, fact)
    select close_attestation.occasion, scope, kind, a.relation, name, null
    from audit.attested() as a
    where a.relation = close_attestation.relation;
$$;
comment on function audit.close_attestation(regclass, text) is
    'Says that a partition goes for good: by retention, or emptied into others';

insert into audit.action (name, description) values
    ('audit.attested', 'Somebody answered for triggers or objects that had changed'),
    ('audit.mended', 'The guards of the log were put back')
on conflict (name) do update set description = excluded.description;

-- Checks of access: who could become the log's owner, read its keys, or use what was not granted.
-- Each is silent when all is well; audit.doctor (86) asks them all.

create or replace function audit.check_roles() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    -- PostgreSQL 15 has no inherit_option and set_option: a member is a member.
    select 'roles', case when v.is_usable then 'critical' else 'notice' end,
        m.member::regrole::text,
        format(case when v.is_usable then 'is a member of %s'
            else 'may make itself a member of %s' end, m.roleid::regrole),
        case when m.roleid = 'audit_owner'::regrole
            then 'It can switch off the guards and rewrite the log.'
            else 'It can change what the capture records, and read what mappings read.' end,
        format('revoke %s from %s', m.roleid::regrole, m.member::regrole), false
    from pg_auth_members as m
        cross join lateral (
            select coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true)
                or coalesce((to_jsonb(m) ->> 'set_option')::boolean, true) as is_usable
        ) as v
    where m.roleid in ('audit_owner'::regrole, 'audit_mapper'::regrole)
        and m.member <> 'audit_owner'::regrole
        and exists (
            select from pg_roles as r
            where pg_has_role(r.oid, m.member, 'member') and r.rolcanlogin and not r.rolsuper
        )
    union all
    select 'roles', 'critical', m.member::regrole::text,
        format('is a member of %s', m.roleid::regrole),
        'What runs in its name can do more than the log needs.',
        format('revoke %s from %s', m.roleid::regrole, m.member::regrole), false
    from pg_auth_members as m
    where m.member in ('audit_owner'::regrole, 'audit_mapper'::regrole)
        and m.roleid <> 'audit_mapper'::regrole
    union all
    select 'roles', 'critical', rolname::text, 'may log in, or do more than its part',
        'The roles of auditdb are held, not used to log in.',
        format('alter role %I nologin nosuperuser nobypassrls nocreaterole nocreatedb '
            'noreplication', rolname), false
    from pg_roles
    where rolname in ('audit_owner', 'audit_mapper', 'audit_operator', 'audit_writer',
            'audit_reader', 'audit_auditor')
        and (rolcanlogin or rolsuper or rolbypassrls or rolcreaterole or rolcreatedb
            or rolreplication);
$$;
comment on function audit.check_roles() is
    'Who is, or can become, the owner of the log; attributes of the roles of auditdb';

create or replace function audit.check_logins() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'logins', 'warning', rolname::text, 'bypasses row-level security',
        'If it is ever granted SELECT on the log, it reads every organisation.',
        format('alter role %I nobypassrls', rolname), false
    from pg_roles
    where rolbypassrls and rolcanlogin and not rolsuper
    union all
    select 'logins', 'notice', rolname::text, 'has CREATEROLE',
        'Before PostgreSQL 16 it may grant itself any role, audit_owner too.',
        format('alter role %I nocreaterole', rolname), false
    from pg_roles
    where rolcreaterole and rolcanlogin and not rolsuper
        and current_setting('server_version_num')::int < 160000
    union all
    select 'logins', 'warning', r.rolname::text, format('is a member of %s', p.rolname),
        'It reaches past privileges to tables or files, the signing keys among them.',
        format('revoke %I from %I', p.rolname, m.rolname), false
    from pg_auth_members as am
        join pg_roles as p on p.oid = am.roleid
        join pg_roles as m on m.oid = am.member
        join pg_roles as r on r.rolcanlogin and not r.rolsuper
            and pg_has_role(r.oid, m.oid, 'member')
    where p.rolname in ('pg_read_all_data', 'pg_write_all_data', 'pg_execute_server_program',
        'pg_read_server_files', 'pg_write_server_files')
    union all
    select 'logins', case when r.rolsuper then 'warning' else 'notice' end, r.rolname::text,
        case when r.rolsuper then 'is a superuser, and the application logs in as it'
            else 'owns attached tables, and the application logs in as it' end,
        'Whoever takes over the application can switch the capture off.',
        '-- let it log in as a role of its own, and: grant audit_writer to that role', false
    from pg_roles as r
    where r.rolname in (
            -- With a context, it was the application and no console.
            select db_user from audit.event
            where occurred_at > now() - interval '7 days' and captured_from is not null
                and source <> 'sql')
        and (r.rolsuper or r.oid in (
            select relowner from pg_class join audit.attachment on target = pg_class.oid));
$$;
comment on function audit.check_logins() is 'Login roles that can go around the log''s privileges';

create or replace function audit.check_ownership() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'ownership', 'critical', o.object, format('belongs to %s, not to %s', o.owner, o.wanted),
        'Its owner can change or drop it, and what it guards.',
        format('alter %s owner to %s', o.object, o.wanted), false
    from (
        select 'schema audit', nspowner::regrole, 'audit_owner'::regrole
        from pg_namespace where nspname = 'audit'
        union all
        select case relkind when 'v' then 'view ' when 'S' then 'sequence ' else 'table ' end
            || oid::regclass, relowner, 'audit_owner'
        from pg_class
        where relnamespace = 'audit'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S', 'f')
        union all
        select 'function ' || oid::regprocedure, proowner, case
            when proname ~ '^(image|organization|admin)_[0-9]+$'
                or proname in ('rescue', 'try_expression')
            then 'audit_mapper' else 'audit_owner' end::regrole
        from pg_proc where pronamespace = 'audit'::regnamespace
    ) as o (object, owner, wanted)
    where o.owner <> o.wanted;
$$;
comment on function audit.check_ownership() is 'Objects of the log that are not audit_owner''s';

create or replace function audit.check_grants() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'grants', case when c.stands is null then 'warning' else 'critical' end, c.name,
        case when c.stands is null then 'was granted by install and is no more'
            else 'was not granted by auditdb' end,
        case when c.stands is null then 'Those who held it can no longer do their part.'
            else 'It opens more of the log than the design does.' end,
        case when c.stands is null then 'auditdb install'
            else concat_ws('; ', c.stands ->> 'revoke',
                -- A grant changes the catalog row of its function, which is attested.
                case when c.stands ->> 'function' <> ''
                    then format('select audit.attest(%L)', c.scope) end) end, false
    from audit.compare_facts() as c
    where c.kind = 'grant' and exists (select from pg_class where oid = c.scope);
$$;
comment on function audit.check_grants() is
    'Privileges now against those that install left: on objects, columns, and objects to come';

create or replace function audit.check_functions() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'functions', case when p.problem like 'was%' then 'warning' else 'critical' end,
        c.name, p.problem || format(', since %s', to_char(c.attested_at, 'YYYY-MM-DD HH24:MI')),
        'What it wrote, refused or let pass meanwhile may be wrong.',
        case
            when c.was is null then format('drop function %s', c.name)
            when p.problem like 'was%' then format('select audit.attest(%L)', c.scope)
            when c.scope = 'audit.event'::regclass then 'auditdb install'
            else format('select audit.reattach(%L)', c.scope)
        end,
        p.problem not like 'was%' and c.was is not null and c.scope <> 'audit.event'::regclass
    from audit.compare_facts() as c
        cross join lateral (
            select case
                when c.was is null then 'is none of auditdb''s'
                when c.stands is null then 'is missing'
                when c.was -> 'sha256' <> c.stands -> 'sha256' then 'is not as it was installed'
                else 'was altered or granted, and put back' end as problem
        ) as p
    where c.kind = 'function'
        and not exists (
            select from audit.compare_facts() as g
            where g.kind = 'grant' and coalesce(g.stands, g.was) ->> 'function' = c.name
                and p.problem like 'was%'
        )
        -- Those of a dropped table are reported with it.
        and exists (select from pg_class where oid = c.scope);
$$;
comment on function audit.check_functions() is
    'Functions that are missing, foreign, altered, or altered and put back';

create or replace function audit.check_keys() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with key as (
        select *, max(created_at) over () as newest from audit.signing_key
        where retires_at is null or retires_at > now()
    )
    select 'keys', 'notice', 'audit.signing_key', 'there is no signing key',
        'Nobody can be given a viewer token.', 'select audit.create_key()', false
    where not exists (select from key)
        and exists (select from audit.attachment where mapping ? 'admin')
    union all
    select 'keys', 'warning', 'key ' || id,
        format('is %s days old', extract(day from now() - created_at)),
        'The longer a key lives, the more places hold it.',
        'select audit.create_key(retire_others_after => ''1 day'')', false
    from key
    where retires_at is null and created_at = newest and created_at < now() - interval '90 days'
    union all
    select 'keys', 'warning', 'key ' || id,
        format('was never retired, though a newer one is %s days old',
            extract(day from now() - newest)),
        'Whoever still holds it signs tokens.',
        'select audit.create_key(retire_others_after => ''1 day'')', false
    from key
    where retires_at is null and created_at < newest and newest < now() - interval '7 days';
$$;
comment on function audit.check_keys() is 'Signing keys: none, old, or superseded and still valid';

create or replace function audit.check_views() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select distinct on (v.oid) 'views', 'critical', v.oid::regclass::text,
        case v.relkind when 'm' then 'copies the log'
            else 'reads the log with its owner''s rights' end,
        'Who may read it, reads what row-level security keeps from them.',
        case when v.relkind = 'm' then format('drop materialized view %s', v.oid::regclass)
            else format('alter view %s set (security_invoker = true)', v.oid::regclass) end, false
    from pg_class as v
        join pg_rewrite as w on w.ev_class = v.oid
        join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
            and d.refclassid = 'pg_class'::regclass and d.refobjid <> v.oid
        join pg_class as c on c.oid = d.refobjid and c.relnamespace = 'audit'::regnamespace
    where v.relkind = 'm' or v.relkind = 'v' and not coalesce((
        select option_value::boolean from pg_options_to_table(v.reloptions)
        where option_name = 'security_invoker'), false)
    order by v.oid;
$$;
comment on function audit.check_views() is
    'Views of the log, auditdb''s and others'', that do not run with the rights of who asks';

-- Checks of capture: triggers, tables and mappings that are no longer as they were attached.
-- Each is silent when all is well; audit.doctor (86) asks them all.

create or replace function audit.expected_triggers()
returns table (target regclass, relation regclass, name text, fact jsonb, function text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select t.target, t.relation, 'auditdb_' || op, f.fact, format('audit.capture_%s()', t.id)
    from audit.captured_tables() as t
        cross join unnest('{insert,update,delete,truncate}'::text[]) as op
        left join audit.trigger_facts() as f
            on f.scope = t.target and f.relation = t.relation and f.name = 'auditdb_' || op;
$$;
comment on function audit.expected_triggers() is
    'The triggers that each attached table should have, and what is there';

create or replace function audit.trigger_states()
returns table (target regclass, relation regclass, name text, state text, attested text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select e.target, e.relation, e.name, case
        when e.fact is null and w.id is null and e.relation <> e.target
            then 'missing since it became a partition'
        when e.fact is null then 'missing'
        when t.tgfoid::regprocedure::text <> e.function
            or w.fact -> 'sha256' <> e.fact -> 'sha256' then 'calling something else'
        when t.tgenabled = 'D' then 'disabled'
        when t.tgenabled = 'O' then 'downgraded from ENABLE ALWAYS'
        when t.tgenabled = 'R' then 'downgraded to ENABLE REPLICA'
        when w.fact -> 'catalog' is distinct from e.fact -> 'catalog' then null
        when w.fact -> 'oid' <> e.fact -> 'oid' then 'dropped and created again'
        when w.fact -> 'xmin' <> e.fact -> 'xmin' then 'altered and put back'
        end,
        case when w.id is null then ''
            else format(', since %s by %s', to_char(w.attested_at, 'YYYY-MM-DD HH24:MI'),
                w.attested_by) end
    from audit.expected_triggers() as e
        left join audit.attested() as w on w.scope = e.target and w.kind = 'trigger'
            and w.relation = e.relation and w.name = e.name
        left join pg_trigger as t on t.oid::text = e.fact ->> 'oid';
$$;
comment on function audit.trigger_states() is
    'What is wrong with each capture trigger, or null, and when it was last attested';

create or replace function audit.check_triggers() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'triggers', case when t.state like 'missing since%' then 'warning' else 'critical' end,
        t.relation::text,
        format('%s %s', string_agg(t.name, ', ' order by t.name), t.state || t.attested),
        case t.state
            when 'downgraded from ENABLE ALWAYS' then 'session_replication_role = replica now '
                'silences it; pg_restore --disable-triggers leaves it so.'
            when 'dropped and created again' then 'Changes in between were not recorded.'
            when 'altered and put back' then 'It was disabled, perhaps within one transaction: '
                'changes in between were not recorded. Look into it, then attest.'
            when 'missing since it became a partition' then 'PostgreSQL gives a new partition the '
                'triggers for rows only: TRUNCATE of this partition alone is not recorded.'
            else 'Changes are not recorded.'
        end,
        format('select audit.%s(%L)', m.mend, t.target), m.mend = 'reattach'
    from audit.trigger_states() as t
        cross join lateral (
            select case when t.state in ('dropped and created again', 'altered and put back')
                then 'attest' else 'reattach' end as mend
        ) as m
    where t.state is not null
    group by t.target, t.relation, t.state, t.attested, m.mend;
$$;
comment on function audit.check_triggers() is
    'Capture triggers missing, disabled, downgraded, created again, or altered and put back';

create or replace function audit.attach_command(target text, kind text, given jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select format('select audit.attach(%L, %L%s)', attach_command.target, attach_command.kind,
        coalesce(string_agg(format(', %I => %L', key, case
            when jsonb_typeof(value) = 'array'
                then array(select jsonb_array_elements_text(value))::text
            else value #>> '{}' end), '' order by key), ''))
    from jsonb_each(attach_command.given);
$$;
comment on function audit.attach_command(text, text, jsonb) is 'The call that attached a table';

create or replace function audit.check_tables() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'tables', 'critical', coalesce(n.name, a.target::text),
        case when again.oid is null then 'was dropped' else 'was dropped and created again' end,
        case when again.oid is null then 'Its mapping is left over.'
            else 'The new table is not captured.' end,
        format('select audit.forget(%L)', a.target::oid) || case when again.oid is not null
            then '; ' || audit.attach_command(n.name, a.kind, a.mapping -> 'given') else '' end,
        false
    from audit.attachment as a
        left join lateral (
            select w.fact ->> 'on' as name from audit.attested() as w
            where w.scope = a.target and w.kind = 'table'
        ) as n on true
        left join pg_class as again on again.oid = to_regclass(n.name)
    where not exists (select from pg_class where oid = a.target)
    union all
    select 'tables', 'critical', i.inhrelid::regclass::text,
        format('inherits from %s and is not captured', a.target),
        'Triggers do not reach tables that inherit.',
        audit.attach_command(i.inhrelid::regclass::text, a.kind, a.mapping -> 'given'), false
    from audit.captured_tables() as c
        join audit.attachment as a on a.id = c.id
        join pg_inherits as i on i.inhparent = c.relation
        join pg_class as child on child.oid = i.inhrelid and not child.relispartition
    where i.inhrelid not in (select target from audit.attachment)
    union all
    select 'tables', 'notice', c.relation::text, format('belongs to %s, and belonged to %s',
            c.stands ->> 'owner', c.was ->> 'owner'),
        'The owner of a table can switch its capture off.',
        format('select audit.reattach(%L)', c.scope), false
    from audit.compare_facts() as c
    where c.kind = 'table' and c.was -> 'owner' <> c.stands -> 'owner';
$$;
comment on function audit.check_tables() is
    'Attached tables that are gone, created again, inherited from, or in other hands';

-- Runs as audit_mapper, whose privileges the capture has: what it may not read shows here. Nothing
-- is evaluated: no row is read, and OFFSET keeps the planner from doing so with constants.
create or replace function audit.try_expression(target regclass, name text, expression text)
returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not try_expression.expression ~* '\mselect\M' and not has_schema_privilege(
        (select relnamespace from pg_class where oid = try_expression.target), 'usage')
    then
        return null;  -- Capture is handed the row, and so need not be able to name its table.
    end if;
    execute format(E'select (%s\n)::%s from (select (null::%s).* offset 0) as r limit 0',
        try_expression.expression,
        case when try_expression.name = 'alive' then 'boolean' else 'text' end,
        try_expression.target);
    -- Rolled back, so that nothing which code of the application sets or does outlives the trial.
    raise exception using errcode = 'AU001';
exception
    when sqlstate 'AU001' then return null;
    when assert_failure or others then return sqlerrm;
end
$$;
comment on function audit.try_expression(regclass, text, text) is
    'Why a mapping expression does not work, or null';

create or replace function audit.stale_options(target regclass, mapping jsonb)
returns table (name text, problem text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select o.key, format('%s: %s', o.key, p.problem)
    from jsonb_each_text(stale_options.mapping) as o
        cross join lateral (
            select case
                when not audit.is_column(o.value)
                    then audit.try_expression(stale_options.target, o.key, o.value)
                when not exists (
                    select from pg_attribute
                    where attrelid = stale_options.target and attnum > 0 and not attisdropped
                        and 'r.' || quote_ident(attname) = o.value
                ) then format('there is no column %s', substr(o.value, 3))
            end as problem
        ) as p
    where o.key in ('organization', 'target_id', 'subject', 'role', 'alive', 'row_id')
        and p.problem is not null;
$$;
comment on function audit.stale_options(regclass, jsonb) is
    'The expressions of a mapping that fail now';

create or replace function audit.column_changes(was jsonb, stands jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select string_agg(format('column %s %s', key, case when w.value is null then 'is new'
        when s.value is null then 'is gone'
        else format('is %s, was %s', s.value, w.value) end), ', ' order by key)
    from jsonb_each_text(column_changes.was) as w
        full join jsonb_each_text(column_changes.stands) as s using (key)
    where w.value is distinct from s.value;
$$;
comment on function audit.column_changes(jsonb, jsonb) is
    'Columns added, gone or retyped, in words';

create or replace function audit.check_mappings() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'mappings', 'warning', a.target::text, concat_ws('; ', d.changes, s.problems),
        'Changes are recorded by a slower path, without what the mapping cannot tell any more.',
        case when s.needs_word
            then audit.attach_command(a.target::text, a.kind, a.mapping -> 'given')
            else format('select audit.reattach(%L)', a.target) end,
        not coalesce(s.needs_word, false)
    from audit.attachment as a
        join pg_class as c on c.oid = a.target
        left join lateral (
            select audit.column_changes(f.was -> 'columns', f.stands -> 'columns') as changes
            from audit.compare_facts() as f
            where f.scope = a.target and f.kind = 'table' and a.kind <> 'admin'
        ) as d on true
        left join lateral (
            select string_agg(o.problem, '; ' order by o.name) as problems,
                bool_or(a.mapping -> 'given' ? o.name) as needs_word
            from audit.stale_options(a.target, a.mapping) as o
            where a.kind <> 'admin'
        ) as s on true
    where concat_ws('; ', d.changes, s.problems) <> '';
$$;
comment on function audit.check_mappings() is
    'Mappings that no longer fit their table: columns changed, expressions that fail';

create or replace function audit.check_lookups() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'mappings', 'warning', c.oid::regclass::text,
        'has row-level security, and no policy lets audit_mapper read it',
        'Mapping expressions that look into it find nothing.',
        format('create policy auditdb_mapper on %s for select to audit_mapper using (true)',
            c.oid::regclass), false
    from pg_class as c
    where c.relrowsecurity and c.relnamespace <> 'audit'::regnamespace
        and has_any_column_privilege('audit_mapper', c.oid, 'select')
        and not exists (
            select from pg_policy
            where polrelid = c.oid and polcmd in ('r', '*')
                and ('audit_mapper'::regrole = any (polroles) or 0 = any (polroles))
        );
$$;
comment on function audit.check_lookups() is
    'Tables that mappings read and row-level security hides';

create or replace function audit.try_admin(id int) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('select audit.admin_%s(null, null)', try_admin.id);
    return null;
exception when others then
    return sqlerrm;
end
$$;
comment on function audit.try_admin(int) is 'Why a rule for admins does not work, or null';

create or replace function audit.check_readers() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'readers', 'critical', a.target::text, 'its rule for admins fails: ' || p.problem,
        'While it fails, nobody reads through it.',
        audit.attach_command(a.target::text, a.kind, a.mapping -> 'given'), false
    from audit.attachment as a
        cross join lateral audit.try_admin(a.id) as p (problem)
    where a.mapping ? 'admin' and p.problem is not null
        and exists (select from pg_class where oid = a.target)
    union all
    select 'readers', 'notice', 'audit.attachment', 'no table says who is admin or owner',
        'Nobody reads the log through row-level security.',
        '-- attach the memberships: select audit.attach(''...'', ''membership'')', false
    from audit.attachment
    having count(*) > 0 and count(*) filter (where mapping ? 'admin') = 0;
$$;
comment on function audit.check_readers() is 'Whether the rules that say who may read work';

create or replace function audit.check_casts() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select distinct 'casts', 'notice', a.target::text,
        format('column %I is converted by %s, of role %s', t.attname, p.oid::regprocedure,
            p.proowner::regrole),
        'It runs at each change of the table, as audit_mapper, and may show the log another value.',
        '-- see that only the role that owns the table may replace the function', false
    from audit.attachment as a
        join pg_attribute as t on t.attrelid = a.target and t.attnum > 0 and not t.attisdropped
        join pg_cast as k on k.castsource = t.atttypid
            and k.casttarget in ('json'::regtype, 'text'::regtype)
        join pg_proc as p on p.oid = k.castfunc
        join pg_roles as r on r.oid = p.proowner
    where a.kind <> 'admin' and not r.rolsuper;
$$;
comment on function audit.check_casts() is
    'Code of the application that capture runs to read a column';

-- Checks of the log: guards, partitions, definitions, attestation, the server.
-- Each is silent when all is well; audit.doctor (86) asks them all.

create or replace function audit.guards()
returns table (relation regclass, name text, state text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select g.relation, n.name, case
        when t.oid is null then 'missing'
        when t.tgfoid <> 'audit.refuse_change()'::regprocedure
            or w.fact -> 'sha256' <> f.fact -> 'sha256' then 'calling something else'
        when t.tgenabled <> 'A' then 'disabled or downgraded'
        when w.fact -> 'catalog' is distinct from f.fact -> 'catalog' then null
        when w.fact -> 'oid' <> f.fact -> 'oid' then 'dropped and created again'
        when w.fact -> 'xmin' <> f.fact -> 'xmin' then 'altered and put back'
        end
    from (
        select relid as relation from pg_partition_tree('audit.event')
        union all
        select 'audit.attestation'::regclass
    ) as g
        cross join (values ('refuse_change'), ('refuse_truncate')) as n (name)
        left join audit.trigger_facts() as f on f.relation = g.relation and f.name = n.name
        left join pg_trigger as t on t.tgrelid = g.relation and t.tgname = n.name
        left join audit.attested() as w on w.scope = 'audit.event'::regclass and w.kind = 'trigger'
            and w.relation = g.relation and w.name = n.name;
$$;
comment on function audit.guards() is
    'The guards that there should be, and what is wrong with them';

create or replace function audit.check_guards() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'guards', 'critical', c.oid::regclass::text, 'row-level security is '
            || case when c.relrowsecurity then 'not forced' else 'off' end,
        'Whoever is granted SELECT, or pg_read_all_data, reads all of it.',
        'select audit.mend_guards()', true
    from pg_class as c
    where (c.oid in ('audit.attestation'::regclass, 'audit.signing_key'::regclass)
            or c.oid in (select relid from pg_partition_tree('audit.event')))
        and not (c.relrowsecurity and c.relforcerowsecurity)
    union all
    select 'guards', 'critical', s.relation::text,
        format('%s %s', string_agg(s.name, ', ' order by s.name), s.state),
        case when s.mend like '%mend_guards%' then 'Events can be changed or removed.'
            else 'It was disabled for a while: events may have been changed. '
                'Look into it, then attest.' end,
        s.mend, s.mend like '%mend_guards%'
    from (
        select g.relation, g.name, g.state, case
            when g.state in ('dropped and created again', 'altered and put back')
            then 'select audit.attest(''audit.event'')'
            else 'select audit.mend_guards()' end as mend
        from audit.guards() as g
    ) as s
    where s.state is not null
    group by s.relation, s.state, s.mend;
$$;
comment on function audit.check_guards() is
    'Row-level security and the triggers that refuse changes, on the log and on each partition';

create or replace function audit.check_log() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'log', 'critical', t.tgrelid::regclass::text,
        format('has trigger %I, none of auditdb''s', t.tgname),
        'A trigger on the log can swallow or change events.',
        format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass), false
    from pg_trigger as t join pg_class as c on c.oid = t.tgrelid
    where c.relnamespace = 'audit'::regnamespace and not t.tgisinternal and t.tgparentid = 0
        and t.tgname not in ('refuse_change', 'refuse_truncate')
    union all
    select 'log', 'critical', c.oid::regclass::text, format('has rule %I', w.rulename),
        'A rule on the log can swallow or change events.',
        format('drop rule %I on %s', w.rulename, c.oid::regclass), false
    from pg_rewrite as w join pg_class as c on c.oid = w.ev_class
    where c.relnamespace = 'audit'::regnamespace and w.rulename <> '_RETURN'
    union all
    select 'log', 'critical', k.conrelid::regclass::text, format('has constraint %I', k.conname),
        'A constraint on the log refuses events, and with them the actions they record.',
        format('alter table %s drop constraint %I', k.conrelid::regclass, k.conname), false
    from pg_constraint as k
    where k.contype in ('c', 'f', 'u', 'x') and k.conislocal
        and k.conrelid in (select relid from pg_partition_tree('audit.event'))
    union all
    select 'log', 'critical', i.indrelid::regclass::text,
        format('has unique index %s', i.indexrelid::regclass),
        'A unique index on the log refuses events, and with them the actions they record.',
        format('drop index %s', i.indexrelid::regclass), false
    from pg_index as i
    where i.indisunique and not i.indisprimary
        and i.indrelid in (select relid from pg_partition_tree('audit.event'))
        and not exists (select from pg_constraint where conindid = i.indexrelid);
$$;
comment on function audit.check_log() is
    'Rules, triggers, constraints and unique indexes on the log that auditdb did not make';

create or replace function audit.check_definitions() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'log', 'critical', coalesce(c.stands, c.was) ->> 'on',
        format('policy %I %s', c.name, case when c.was is null then 'is none of auditdb''s'
            when c.stands is null then 'is missing' else 'is not as it was installed' end),
        'Policies decide which organisation is read, and by whom.',
        case when c.stands is null then 'auditdb install'
            else format('drop policy %I on %s', c.name, c.relation)
                || case when c.was is null then '' else '; -- then: auditdb install' end end, false
    from audit.compare_facts() as c
    where c.kind = 'policy'
    union all
    select 'log', 'critical', c.name, case when c.was is null then 'is none of auditdb''s'
            when c.stands is null then 'is missing' else 'is not as it was installed' end,
        'What the log says may be wrong.', 'auditdb install', false
    from audit.compare_facts() as c
    where c.kind = 'relation'
        -- A month that was detached is reported as such.
        and not (c.was is null and exists (
            select from audit.attested() as w
            where w.relation = to_regclass(c.name) and w.name = 'refuse_truncate'))
        and (c.was - '{owner,oid}'::text[]) is distinct from (c.stands - '{owner,oid}'::text[]);
$$;
comment on function audit.check_definitions() is
    'Policies, tables and views of the log that are foreign, missing or altered';

create or replace function audit.check_partitions() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'partitions', 'warning', 'audit.event_default', format('holds %s events', count(*)),
        'They have no month of their own: slower to read, and kept for ever.',
        'select audit.maintain()', true
    from audit.event_default
    having count(*) > 0
    union all
    select 'partitions', 'warning', 'audit.event', format('has no partition for %s',
            string_agg(to_char(m, 'YYYY-MM'), ', ' order by m)),
        'Maintenance has not run: events will go to the DEFAULT partition.',
        'select audit.maintain()', true
    from date_trunc('month', now() at time zone 'UTC') as this
        cross join generate_series(this, this + interval '2 months', interval '1 month') as m
    where m::date <> all (audit.months_attached()) and m::date <> all (audit.months_in_default())
    having count(*) > 0
    union all
    select 'partitions', 'critical', w.fact ->> 'on',
        case when c.oid is null then 'is gone' else 'is no part of the log any more' end
            || ', and retention did not drop it',
        'Its events were taken away.',
        case when c.oid is null
            then '-- restore it from a backup, then: select audit.attest(''audit.event'')'
            else '-- attach it again: alter table audit.event attach partition ' || c.oid::regclass
                || ' for values ...' end, false
    from audit.attested() as w
        left join pg_class as c on c.oid = w.relation
    where w.scope = 'audit.event'::regclass and w.kind = 'trigger' and w.name = 'refuse_truncate'
        and w.relation <> 'audit.attestation'::regclass
        and w.relation not in (select relid from pg_partition_tree('audit.event'));
$$;
comment on function audit.check_partitions() is
    'Events without a month, months that will be missing, months that were taken away';

create or replace function audit.check_attestation() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'attestation', 'warning', 'audit.attestation', format(
            'the catalogs are not those attested: %s', string_agg(distinct w.scope::text, ', ')),
        'After a restore or pg_upgrade, triggers and functions look created anew. That none was '
        'disabled before cannot be told. Confirm that there was a restore, then attest.',
        'select audit.attest(target) from audit.attachment; select audit.attest(''audit.event'')',
        false
    from audit.attested() as w
    where w.fact ->> 'catalog' <> 'audit'::regnamespace::oid::text
    having count(*) > 0
    union all
    select 'attestation', 'warning', c.scope::text, 'was never attested',
        'Nothing is known of what stood when it was attached.',
        format('select audit.attest(%L)', c.scope), false
    from audit.compare_facts() as c where c.kind = 'table' and c.was is null;
$$;
comment on function audit.check_attestation() is 'Whether the attestation speaks of these catalogs';

create or replace function audit.check_events() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'events', 'warning', captured_from,
        format('%s events of the last 7 days are degraded: %s', count(*),
            string_agg(distinct concat_ws(' ', details -> 'degraded' ->> 'sqlstate',
                details -> 'degraded' -> 'lost'), ', ')),
        'A value could not be read or a mapping failed: the change is recorded, not all of it.',
        format('select details -> ''degraded'', * from audit.event where captured_from = %L '
            'and details ? ''degraded''', captured_from), false
    from audit.event
    where occurred_at > now() - interval '7 days' and details ? 'degraded'
    group by captured_from;
$$;
comment on function audit.check_events() is 'Tables whose events lost detail lately';

create or replace function audit.check_server(
    version int default current_setting('server_version_num')::int
) returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'server', 'warning', 'PostgreSQL ' || check_server.version / 10000 || '.'
            || check_server.version % 10000,
        format('has %s, mended in %s', string_agg(cve, ', ' order by cve),
            check_server.version / 10000 || '.' || max(mended) % 10000),
        'Row-level security or role changes can be got around.',
        '-- upgrade the server to its latest minor version', false
    from (values
        ('CVE-2023-2455', 150003), ('CVE-2023-39418', 150004),
        ('CVE-2024-10976', 150009), ('CVE-2024-10978', 150009), ('CVE-2025-8713', 150014),
        ('CVE-2024-10976', 160005), ('CVE-2024-10978', 160005), ('CVE-2025-8713', 160010),
        ('CVE-2024-10976', 170001), ('CVE-2024-10978', 170001), ('CVE-2025-8713', 170006)
    ) as known (cve, mended)
    where mended / 10000 = check_server.version / 10000 and check_server.version < mended
    having count(*) > 0;
$$;
comment on function audit.check_server(int) is
    'Minor versions with published vulnerabilities of row-level security';

-- Doctor: finds what cannot be prevented, and mends what is safe to mend.
-- critical: events are or may be lost; warning: weaker than designed; notice: worth knowing.

create or replace function audit.doctor() returns setof audit.finding
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select f.*
    from (
        select * from audit.check_roles()
        union all select * from audit.check_logins()
        union all select * from audit.check_ownership()
        union all select * from audit.check_grants()
        union all select * from audit.check_functions()
        union all select * from audit.check_triggers()
        union all select * from audit.check_tables()
        union all select * from audit.check_guards()
        union all select * from audit.check_log()
        union all select * from audit.check_definitions()
        union all select * from audit.check_partitions()
        union all select * from audit.check_mappings()
        union all select * from audit.check_lookups()
        union all select * from audit.check_readers()
        union all select * from audit.check_keys()
        union all select * from audit.check_views()
        union all select * from audit.check_attestation()
        union all select * from audit.check_events()
        union all select * from audit.check_casts()
        union all select * from audit.check_server()
    ) as f
    order by array_position('{critical,warning,notice}', f.severity),
        f.check_name, f.object, f.problem;
$$;
-- Definer: reads the attestation, and counts events and keys, which operators may not read.
comment on function audit.doctor() is
    'What could let events be lost, forged or read by others; why it matters, and what mends it';

create or replace function audit.reattach(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _command text;
begin
    select audit.attach_command(a.target::text, a.kind, a.mapping -> 'given') into _command
    from audit.attachment as a where a.target = reattach.target;
    if not found then
        raise exception '% is not attached', reattach.target
            using errcode = 'undefined_object', hint = 'auditdb status lists what is.';
    end if;
    execute _command;
end
$$;
comment on function audit.reattach(regclass) is
    'Attaches a table again as it was: mends its triggers, its functions, and its mapping';

create or replace function audit.mend_guards() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
    _changed jsonb;
begin
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    perform audit.guard_log();
    _changed := audit.record_attestation('mend', 'audit.event', '{trigger}');
    perform audit.record_own('mended', 'audit.event', _changed -> 'was', _changed -> 'stands');
end
$$;
-- Definer: the log belongs to audit_owner.
comment on function audit.mend_guards() is
    'Puts back row-level security and the triggers that refuse changes, where missing or off';

-- Grants: the one place that opens anything. Everything is closed to PUBLIC first.

do $$
begin
    -- Code of the application meets this one function: it may not run as audit_owner.
    grant create on schema audit to audit_mapper;
    alter function audit.rescue(text, anyelement, anyelement, jsonb, text) owner to audit_mapper;
    alter function audit.try_expression(regclass, text, text) owner to audit_mapper;
    revoke create on schema audit from audit_mapper;
end
$$;

alter default privileges for role audit_owner revoke execute on functions from public;
revoke all on all tables in schema audit from public;
revoke all on all sequences in schema audit from public;
revoke all on all functions in schema audit from public;
revoke usage on type audit.image, audit.fact, audit.finding from public;
-- What somebody granted by hand does not outlive an upgrade.
revoke all on all tables in schema audit
    from audit_operator, audit_writer, audit_reader, audit_auditor;
revoke all on all functions in schema audit
    from audit_operator, audit_writer, audit_reader, audit_auditor;

grant usage on schema audit to audit_mapper, audit_operator, audit_writer, audit_reader,
    audit_auditor;

-- audit_mapper: what the second step of the ladder is made of.
grant usage on type audit.image to audit_mapper;
grant execute on function
    audit.rescue(text, anyelement, anyelement, jsonb, text),
    audit.try_expression(regclass, text, text)
    to audit_owner;
grant execute on function
    audit.read_row(anyelement),
    audit.evaluate(text, anyelement),
    audit.redact(jsonb, text[]),
    audit.is_secret(text),
    audit.action_of(jsonb, text, boolean, boolean, text, text)
    to audit_mapper;

grant execute on function
    audit.set_context(text, text, text, text, text, jsonb),
    audit.clear_context(),
    audit.current_context(),
    audit.record_event(text, text, text, text, text, text, text, text, text, text, jsonb, jsonb,
        jsonb),
    audit.version()
    to audit_writer;

grant select on
    audit.event, audit.action,
    audit.log, audit.auth_log, audit.membership_log, audit.api_key_log, audit.workflow_log,
    audit.role_change, audit.impersonation, audit.api_key_lifecycle, audit.login_activity
    to audit_reader, audit_auditor;
grant execute on function audit.viewer_organization(), audit.version() to audit_reader;
grant execute on function
    audit.list_tables(), audit.list_partitions(), audit.list_members(), audit.version()
    to audit_auditor;
grant select on audit.attachment to audit_auditor;

-- audit_operator: attach and detach run as the table's owner and call these on the way.
grant select on audit.attachment, audit.action, audit.migration to audit_operator;
grant execute on function
    audit.attach(regclass, text, text, text, text, text, text, text, text, text[], text[], text,
        text, text),
    audit.detach(regclass),
    audit.refuse_target(regclass, text),
    audit.resolve_mapping(regclass, text, jsonb),
    audit.check_options(regclass, text, jsonb),
    audit.options_of(text),
    audit.verbs_of(text),
    audit.facts_of(regclass, jsonb),
    audit.column_like(regclass, text[]),
    audit.over_row(regclass, text),
    audit.key_of(regclass),
    audit.default_alive(regclass),
    audit.default_admin(regclass, text),
    audit.parent_organization(regclass, text, text),
    audit.is_secret(text),
    audit.is_column(text),
    audit.columns_read(regclass, text, text),
    audit.open_lookups(regclass, jsonb),
    audit.open_lookup(regclass, text[]),
    audit.save_mapping(regclass, text, jsonb),
    audit.create_triggers(regclass, int),
    audit.close_capture(int),
    audit.forget(regclass),
    audit.define_action(text, text),
    audit.create_key(interval),
    audit.list_keys(),
    audit.create_months(int),
    audit.maintain(interval, int),
    audit.list_tables(),
    audit.list_partitions(),
    audit.list_members(),
    audit.version()
    to audit_operator;

-- The attestation says what was set up, and no secret.
grant select on audit.attestation to audit_operator, audit_auditor;
grant usage on type audit.finding to audit_operator, audit_auditor;
grant execute on function audit.doctor() to audit_operator, audit_auditor;
grant execute on function
    audit.attest(regclass),
    audit.reattach(regclass),
    audit.attach_command(text, text, jsonb),
    audit.mend_guards()
    to audit_operator;

do $$ begin perform audit.finish_install(); end $$;
reset role;
do $$
begin
    if exists (
        select from pg_catalog.pg_auth_members
        where roleid = 'audit_owner'::regrole and member = current_user::regrole
            and grantor = current_user::regrole
    ) then
        execute pg_catalog.format('revoke audit_owner from %I', current_user);
    end if;
end
$$;
reset search_path;
