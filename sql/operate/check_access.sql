-- Checks of access: who could become the log's owner, read its keys, or use privileges that auditdb
-- did not grant. Each returns no row if all is well; audit.doctor runs them all.

create or replace function audit_private.check_roles() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    -- PostgreSQL 15 has no inherit_option and set_option: there, every member counts.
    select 'roles', case when v.is_usable then 'critical' else 'notice' end,
        m.member::regrole::text,
        format(case when v.is_usable then 'is a member of %s'
            else 'may make itself a member of %s' end, m.roleid::regrole),
        case when m.roleid = 'audit_owner'::regrole
            then 'It can rewrite the log, of every other database of the cluster too.'
            else 'It can change what the capture records, and read what mappings read.' end,
        case when v.is_usable then format('revoke %s from %s', m.roleid::regrole, m.member::regrole)
            else '-- it installs and upgrades auditdb by this: see to who may log in as it' end,
        false
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
        'Code that runs as it can do more than the log needs.',
        format('revoke %s from %s', m.roleid::regrole, m.member::regrole), false
    from pg_auth_members as m
    where m.member in ('audit_owner'::regrole, 'audit_mapper'::regrole)
        and m.roleid <> 'audit_mapper'::regrole
    union all
    select 'roles', 'critical', rolname::text, 'may log in, or do more than it needs',
        'The roles of auditdb are held, not used to log in.',
        format('alter role %I nologin nosuperuser nobypassrls nocreaterole nocreatedb '
            'noreplication', rolname), false
    from pg_roles
    where rolname in ('audit_owner', 'audit_mapper', 'audit_operator', 'audit_writer',
            'audit_reader', 'audit_auditor', 'audit_backup')
        and (rolcanlogin or rolsuper or rolbypassrls or rolcreaterole or rolcreatedb
            or rolreplication);
$$;
comment on function audit_private.check_roles is
    'Finds roles that are, or can become, the owner of the log, '
    'and roles of auditdb with wrong attributes';

create or replace function audit_private.makes_backups(login oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return exists (
    select from pg_auth_members
    where member = makes_backups.login and roleid = to_regrole('audit_backup'));
comment on function audit_private.makes_backups is
    'Whether a role is a member of audit_backup, so that it may read everything';

create or replace function audit_private.check_logins() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'logins', 'warning', rolname::text, 'bypasses row-level security',
        'If it is ever granted SELECT on the log, it reads every organisation.',
        format('alter role %I nobypassrls', rolname), false
    from pg_roles
    where rolbypassrls and rolcanlogin and not rolsuper
        and not audit_private.makes_backups(oid)
    union all
    select 'logins', 'notice', rolname::text, 'has CREATEROLE',
        'Before PostgreSQL 16 it may grant itself any role, audit_owner too.',
        format('alter role %I nocreaterole', rolname), false
    from pg_roles
    where rolcreaterole and rolcanlogin and not rolsuper
        and current_setting('server_version_num')::int < 160000
    union all
    select 'logins', 'warning', r.rolname::text, format('is a member of %s', p.rolname),
        'It bypasses privileges on tables or files, also on the signing keys.',
        format('revoke %I from %I', p.rolname, m.rolname), false
    from pg_auth_members as am
        join pg_roles as p on p.oid = am.roleid
        join pg_roles as m on m.oid = am.member
        join pg_roles as r on r.rolcanlogin and not r.rolsuper
            and pg_has_role(r.oid, m.oid, 'member')
    where p.rolname in ('pg_read_all_data', 'pg_write_all_data', 'pg_execute_server_program',
            'pg_read_server_files', 'pg_write_server_files')
        and not (p.rolname = 'pg_read_all_data' and audit_private.makes_backups(r.oid));
$$;
comment on function audit_private.check_logins is
    'Finds login roles that can bypass the privileges of the log';

create or replace function audit_private.check_application() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'logins', case when r.rolsuper or k.is_backup then 'warning' else 'notice' end,
        r.rolname::text, case
            when r.rolsuper then 'is a superuser'
            when k.is_backup then 'reads the log and its keys'
            else 'owns attached tables' end || ', and the application logs in as it',
        case when k.is_backup and not r.rolsuper
            then 'Whoever takes over the application reads the log of every organisation.'
            else 'Whoever takes over the application can switch the capture off.' end,
        '-- let it log in as a role of its own, and: grant audit_writer to that role', false
    from pg_roles as r
        cross join lateral (select audit_private.makes_backups(r.oid)) as k (is_backup)
    where r.rolname in (
            -- An event with a context comes from the application, not from a console. A baseline
            -- is of whoever attached.
            select db_user from audit.event
            where occurred_at > now() - interval '7 days' and captured_from is not null
                and source <> 'sql' and action not like '%.baseline')
        and (r.rolsuper or k.is_backup or r.oid in (
            select relowner from pg_class join audit_private.attachment on target = pg_class.oid))
    union all
    select 'logins', 'notice', 'audit_writer', 'no login holds it',
        'No application may call audit.set_context() or record a sign-in.',
        '-- for the login of the application: grant audit_writer to that role', false
    where exists (select from audit_private.attachment)
        and not exists (select from audit_private.installation where context_from <> '{}')
        and not exists (
            select from pg_roles
            where rolcanlogin and not rolsuper and pg_has_role(oid, 'audit_writer', 'usage'));
$$;
comment on function audit_private.check_application is
    'Finds logins of the application with more privileges than it needs, '
    'or that no login may record';

create or replace function audit_private.check_ownership() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'ownership', 'critical', o.object, format('belongs to %s, not to %s', o.owner, o.wanted),
        'Its owner can change or drop it, and what it guards.',
        format('alter %s owner to %s', o.object, o.wanted), false
    from (
        select 'schema ' || nspname, nspowner::regrole, 'audit_owner'::regrole
        from pg_namespace where nspname in ('audit', 'audit_private')
        union all
        select case relkind when 'v' then 'view ' when 'S' then 'sequence ' else 'table ' end
            || oid::regclass, relowner, 'audit_owner'
        from pg_class
        where relnamespace = any ('{audit,audit_private}'::regnamespace[])
            and relkind in ('r', 'p', 'v', 'm', 'S', 'f')
        union all
        select 'function ' || oid::regprocedure, proowner,
            case when audit_private.is_of_mapper(proname) then 'audit_mapper'
                else 'audit_owner' end::regrole
        from pg_proc where pronamespace = any ('{audit,audit_private}'::regnamespace[])
    ) as o (object, owner, wanted)
    where o.owner <> o.wanted
    union all
    select 'ownership', 'critical', 'function ' || p.oid::regprocedure,
        format('runs as %s, and is none of auditdb''s', p.proowner::regrole),
        'Its callers can do what only the log itself may.',
        format('drop routine %s', p.oid::regprocedure), false
    from pg_proc as p
    where p.prosecdef and p.proowner in ('audit_owner'::regrole, 'audit_mapper'::regrole)
        and p.pronamespace <> all ('{audit,audit_private}'::regnamespace[])
        -- Exempts the functions of a centre, where many databases are collected.
        and not exists (
            select from pg_namespace as n
            where n.oid = p.pronamespace and n.nspname = 'audit_collected'
                and n.nspowner = 'audit_owner'::regrole);
$$;
comment on function audit_private.check_ownership is
    'Finds objects of the log that do not belong to audit_owner';

create or replace function audit_private.check_grants(facts audit_private.fact[])
returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'grants', case when v.is_missing then 'warning' else 'critical' end, g.name,
        case when v.is_missing then 'was granted by install, and is missing'
            else 'was not granted by auditdb' end,
        case when v.is_missing then 'The roles that held it can no longer do their work.'
            else 'It gives more access to the log than designed.' end,
        case when not v.is_missing then concat_ws('; ', g.fact ->> 'undo',
                -- A grant changes the catalog row of its function, which is attested.
                case when g.fact ->> 'object' like 'function %'
                    then format('select audit.attest(%L)', g.scope) end)
            when g.scope = 'audit.event'::regclass then 'auditdb install'
            else format('select audit.reattach(%L)', g.scope) end, false
    from unnest(check_grants.facts) as g
        cross join lateral (select g.fact ->> 'state' = 'is missing') as v (is_missing)
    where g.kind = 'grant';
$$;
comment on function audit_private.check_grants is
    'Finds privileges that differ from those of the release: '
    'on objects, columns, and future objects';

-- The generated code depends on the table as it is now. An untouched function is no finding if only
-- the table changed: its changed columns or name are findings of their own.
create or replace function audit_private.check_functions(facts audit_private.fact[])
returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'functions', case when k.is_untouched then 'warning' else 'critical' end,
        c.fact ->> 'object',
        case when k.is_untouched then 'differs from what attaching would write now'
            else c.fact ->> 'state' end || coalesce(w.fact ->> 'since', ''),
        'What it wrote, refused or let pass meanwhile may be wrong.',
        case
            when c.scope = 'audit.event'::regclass then coalesce(v.drop_it, 'auditdb install')
            when k.is_untouched or v.drop_it is null
                then format('select audit.reattach(%L)', c.scope)
            else v.drop_it
        end,
        c.scope <> 'audit.event'::regclass and (k.is_untouched or v.drop_it is null)
    from unnest(check_functions.facts) as c
        left join unnest(check_functions.facts) as w on w.scope = c.scope and w.kind = 'functions'
        left join unnest(check_functions.facts) as t on t.scope = c.scope and t.kind = 'table'
        cross join lateral (
            select
                case when c.fact ->> 'state' = 'is none of auditdb''s' then c.fact ->> 'undo' end,
                c.scope <> 'audit.event'::regclass and (w.fact -> 'is_comparable')::boolean,
                w.fact #> '{was,functions}' -> (c.fact ->> 'object')
                    is not distinct from w.fact #> '{stands,functions}' -> (c.fact ->> 'object'),
                t.fact #> '{was,columns}' = t.fact #> '{stands,columns}'
                    and t.fact #> '{was,on}' = t.fact #> '{stands,on}'
        ) as v (drop_it, is_known, is_as_attested, is_table_as_attested)
        cross join lateral (
            select coalesce(v.is_known and v.is_as_attested, false) as is_untouched,
                coalesce(c.scope = 'audit.event'::regclass or v.is_table_as_attested
                    or v.is_known and not v.is_as_attested, true) as is_finding
        ) as k
    where c.kind = 'function' and k.is_finding;
$$;
comment on function audit_private.check_functions is
    'Finds functions that are missing, foreign, or different from the release or the mapping';

create or replace function audit_private.check_altered(facts audit_private.fact[])
returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'functions', case
            when audit_private.is_of_mapper(substring(s.object from '^audit_private[.](.*)[(]'))
            then 'critical' else 'warning' end,
        s.object, 'was altered or granted, and put back' || (c.fact ->> 'since'),
        'What it wrote, refused or let pass meanwhile may be wrong.',
        format('select audit.attest(%L)', c.scope), false
    from unnest(check_altered.facts) as c
        cross join lateral jsonb_each_text(nullif(c.fact #> '{was,functions}', 'null'))
            as w (object, row)
        join lateral jsonb_each_text(nullif(c.fact #> '{stands,functions}', 'null'))
            as s (object, row) using (object)
    where c.kind = 'functions' and (c.fact -> 'is_comparable')::boolean and w.row <> s.row
        and not exists (
            select from unnest(check_altered.facts) as o
            where o.kind in ('function', 'grant')
                and o.fact ->> 'object' in (s.object, 'function ' || s.object));
$$;
comment on function audit_private.check_altered is
    'Finds functions that were altered and then restored';

create or replace function audit_private.check_keys() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with key as (
        select *, max(created_at) over () as newest from audit_private.signing_key
        where retires_at is null or retires_at > now()
    )
    select 'keys', 'notice', 'audit_private.signing_key', 'there is no signing key',
        'Nobody can be given a viewer token.', 'select audit.create_key()', false
    where not exists (select from key)
        and exists (select from audit_private.attachment where mapping ? 'admin')
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
comment on function audit_private.check_keys is
    'Finds problems with signing keys: none, an old one, or a superseded one that is still valid';

create or replace function audit_private.check_tenants() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'tenants', case when ty.typcategory = 'S' then 'warning' else 'notice' end,
        c.oid::regclass::text,
        'names organisations, and no table of organisations is attached'
            || case when ty.typcategory = 'S' then '; a name can be given twice' else '' end,
        'If an identifier is used again, the admins of the new organisation read the log of '
        'the former one.',
        '-- attach the table whose rows are organisations, as kind organization', false
    from audit_private.attachment as a
        join pg_class as c on c.oid = a.target
        left join pg_attribute as o on o.attrelid = a.target and o.attnum > 0
            and not o.attisdropped
            and audit_private.over_row(a.target, o.attname) = a.mapping ->> 'organization'
        left join pg_type as ty on ty.oid = o.atttypid
    where a.mapping ? 'admin' and not exists (
        select from audit_private.attachment as k
        where k.mapping ->> 'target_type' = 'organization' and k.mapping ? 'organization'
    )
    union all
    select 'tenants', 'warning', c.oid::regclass::text,
        format('is a table of organisations beside %s, which was attached before',
            first.target::regclass),
        'Only the first says when the log of an organisation begins.',
        format('select audit.detach(%L)', c.oid::regclass), false
    from audit_private.attachment as a
        join pg_class as c on c.oid = a.target
        cross join lateral (
            select f.id, f.target from audit_private.attachment as f
            where f.mapping ->> 'target_type' = 'organization' order by f.id limit 1) as first
    where a.mapping ->> 'target_type' = 'organization' and a.id > first.id
    union all
    select 'tenants', 'notice', c.oid::regclass::text,
        'its events belong to no organisation, unless the context names one',
        'Only auditors read what belongs to no organisation.',
        audit_private.attach_command(c.oid::regclass::text, a.kind, a.mapping -> 'given'
            || '{"organization": "null::text"}') || ' -- or say which, if it has one', false
    from audit_private.attachment as a join pg_class as c on c.oid = a.target
    where not a.mapping ? 'organization';
$$;
comment on function audit_private.check_tenants is
    'Finds organisations that could be created and deleted without the log knowing, and tables '
    'whose events belong to none';

create or replace function audit_private.check_views() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select distinct on (v.oid) 'views', 'critical', v.oid::regclass::text,
        case v.relkind when 'm' then 'copies the log'
            else 'reads the log with its owner''s rights' end,
        'Its readers see what row-level security hides from them.',
        case when v.relkind = 'm' then format('drop materialized view %s', v.oid::regclass)
            else format('alter view %s set (security_invoker = true)', v.oid::regclass) end, false
    from pg_class as v
        join pg_rewrite as w on w.ev_class = v.oid
        join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
            and d.refclassid = 'pg_class'::regclass and d.refobjid <> v.oid
        join pg_class as c on c.oid = d.refobjid
            and c.relnamespace = any ('{audit,audit_private}'::regnamespace[])
    where v.relkind = 'm' or v.relkind = 'v' and not coalesce((
        select option_value::boolean from pg_options_to_table(v.reloptions)
        where option_name = 'security_invoker'), false)
    order by v.oid;
$$;
comment on function audit_private.check_views is
    'Finds views of the log, of auditdb or others, that do not run with the rights of the caller';
