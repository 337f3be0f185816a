-- Attestation: what stood in the catalogs when auditdb last put it there, kept append-only.
-- A trigger disabled and enabled again looks as before, but for the xmin of its catalog row.

do $$
begin
    if not exists (
        select from pg_catalog.pg_policy
        where polrelid = 'audit_private.attestation'::regclass and polname = 'the_owner_attests'
    ) then
        create policy the_owner_attests on audit_private.attestation for insert to audit_owner
            with check (true);
        create policy anyone_granted_reads on audit_private.attestation for select using (true);
    end if;
end
$$;

create or replace function audit_private.fingerprint(variadic parts text[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return encode(sha256(convert_to(array_to_string(fingerprint.parts, E'\n', '-'), 'UTF8')), 'hex');
comment on function audit_private.fingerprint(text[]) is 'SHA-256 of texts, in hexadecimal';

create or replace function audit_private.captured_tables()
returns table (id int, target regclass, relation regclass)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select a.id, a.target, coalesce(t.relid, a.target)
    from audit_private.attachment as a
        left join lateral pg_partition_tree(a.target) as t on true
    where a.kind <> 'admin' and exists (select from pg_class as c where c.oid = a.target);
$$;
comment on function audit_private.captured_tables() is
    'The attached tables that exist, and their partitions';

create or replace function audit_private.function_facts() returns setof audit_private.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select coalesce(a.target, 'audit.event'), 'function', coalesce(a.target, 'audit.event'),
        p.oid::regprocedure::text,
        jsonb_build_object('catalog', 'audit'::regnamespace::bigint, 'oid', p.oid::bigint,
            'xmin', p.xmin::text, 'parsed', p.prosqlbody is not null,
            'sha256', audit_private.fingerprint(p.proowner::regrole::text,
                case when p.prokind in ('f', 'p') then pg_get_functiondef(p.oid) end))
    from pg_proc as p
        left join audit_private.attachment as a
            on a.id::text = substring(p.proname from
                '^(?:capture|read|organization|admin)_([0-9]+)(?:_[a-z]+)?$')
    where p.pronamespace = any ('{audit,audit_private}'::regnamespace[]);
$$;
comment on function audit_private.function_facts() is
    'Every function of the log, generated ones under their table';

create or replace function audit_private.trigger_facts() returns setof audit_private.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select s.scope, 'trigger', s.relation, t.tgname::text, jsonb_build_object(
        'catalog', 'audit'::regnamespace::bigint, 'oid', t.oid::bigint, 'xmin', t.xmin::text,
        'enabled', t.tgenabled, 'on', s.relation::text, 'sha256', audit_private.fingerprint(
            t.tgtype::text, t.tgfoid::regprocedure::text, t.tgattr::text, t.tgqual::text,
            t.tgdeferrable::text))
    from (
        select target as scope, relation from audit_private.captured_tables()
        union all
        select 'audit.event'::regclass, oid from pg_class
        where relnamespace = any ('{audit,audit_private}'::regnamespace[]) and relkind in ('r', 'p')
    ) as s
        join pg_trigger as t on t.tgrelid = s.relation
    where not t.tgisinternal
        and (s.scope = 'audit.event'::regclass
            or t.tgname = any ('{auditdb_insert,auditdb_update,auditdb_delete,auditdb_truncate}'));
$$;
comment on function audit_private.trigger_facts() is
    'Our triggers on attached tables and their partitions, and all triggers on the log';

create or replace function audit_private.policy_facts() returns setof audit_private.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'audit.event', 'policy', polrelid, polname::text, jsonb_build_object(
        'on', polrelid::regclass::text, 'sha256', audit_private.fingerprint(
            polcmd::text, polpermissive::text,
            (select string_agg(coalesce(r.rolname, 'public'), ', ' order by r.rolname)
                from unnest(polroles) as o left join pg_roles as r on r.oid = o),
            pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)))
    from pg_policy join pg_class as c on c.oid = polrelid
    where c.relnamespace = any ('{audit,audit_private}'::regnamespace[]);
$$;
comment on function audit_private.policy_facts() is 'The policies of row-level security on the log';

-- A view says who is an admin by what it is made of; and so does a rule by the functions it calls.
create or replace function audit_private.beneath(target regclass)
returns table (name text, sha256 text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with recursive part (class, oid) as (
        select 'pg_class'::regclass::oid, a.target::oid
        from audit_private.attachment as a
        where a.target = beneath.target
        union
        select 'pg_proc'::regclass::oid, to_regprocedure(f)::oid
        from audit_private.attachment as a
            cross join jsonb_array_elements_text(a.mapping #> '{checked,functions}') as f
        where a.target = beneath.target
        union
        select d.refclassid, d.refobjid
        from part as p
            left join pg_rewrite as w on p.class = 'pg_class'::regclass and w.ev_class = p.oid
            join pg_depend as d on d.refclassid in ('pg_class'::regclass, 'pg_proc'::regclass)
                and (d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
                    or p.class = 'pg_proc'::regclass and d.classid = 'pg_proc'::regclass
                        and d.objid = p.oid)
    )
    select 'view ' || c.oid::regclass,
        audit_private.fingerprint(c.relowner::regrole::text, pg_get_viewdef(c.oid), c.reloptions::text)
    from part join pg_class as c on part.class = 'pg_class'::regclass and c.oid = part.oid
    where c.relkind in ('v', 'm')
    union all
    select 'function ' || f.oid::regprocedure,
        audit_private.fingerprint(f.proowner::regrole::text, pg_get_functiondef(f.oid))
    from part join pg_proc as f on part.class = 'pg_proc'::regclass and f.oid = part.oid
    where f.prokind = 'f';
$$;
comment on function audit_private.beneath(regclass) is
    'The views and functions that say who is an admin by an attached table, and their definitions';

-- Settings as those of audit_private.current_facts.
create or replace function audit_private.relation_facts() returns setof audit_private.fact
language sql stable set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off set standard_conforming_strings = on set bytea_output = 'hex'
set datestyle = 'ISO' set intervalstyle = 'postgres' set timezone = 'UTC' set extra_float_digits = 1
set xmlbinary = 'base64' set row_security = on
as $$
    select s.scope, case when l.is_log then 'relation' else 'table' end, s.scope,
        case when l.is_log then c.oid::regclass::text else '' end,
        jsonb_build_object('catalog', 'audit'::regnamespace::bigint, 'oid', c.oid::bigint,
            'on', c.oid::regclass::text,
            'owner', c.relowner::regrole::text,
            -- Renaming a table, or moving it to another schema, writes the row of its type anew.
            'xmin', case when not l.is_log then (select t.xmin::text from pg_type as t
                where t.oid = c.reltype) end,
            'mapping', (
                select audit_private.fingerprint(a.kind, a.mapping::text) from audit_private.attachment as a
                where a.target = c.oid),
            'beneath', (
                select jsonb_object_agg(b.name, b.sha256)
                from audit_private.attachment as a cross join audit_private.beneath(c.oid) as b
                where a.target = c.oid and a.mapping ? 'admin'),
            'columns', (
                select jsonb_object_agg(attname, format_type(atttypid, atttypmod)) from pg_attribute
                where attrelid = c.oid and attnum > 0 and not attisdropped),
            -- Defaults and views say what the log says; those of the application are its own.
            'sha256', case when l.is_log then audit_private.fingerprint(
                pg_get_viewdef(c.oid),
                (select string_agg(format('%s %s', adnum, pg_get_expr(adbin, adrelid)), ', '
                    order by adnum) from pg_attrdef where adrelid = c.oid)) end)
    from pg_class as c
        cross join lateral (
            select c.relnamespace = any ('{audit,audit_private}'::regnamespace[]) as is_log
        ) as l
        cross join lateral (
            select case when l.is_log then 'audit.event' else c.oid::regclass end as scope
        ) as s
    where l.is_log and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
        or c.oid in (select target from audit_private.attachment);
$$;
comment on function audit_private.relation_facts() is
    'The attached tables; the tables and views of the log, its partitions apart';

create or replace function audit_private.default_privileges()
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
comment on function audit_private.default_privileges() is
    'Privileges that objects to come would be born with';

create or replace function audit_private.privileges()
returns table (object text, attname text, function text, owner oid, acl aclitem[], template text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select o.object, o.attname, o.function, o.owner, o.acl,
        coalesce(o.template, 'revoke %s on ' || o.object || ' from %s')
    from (
        select 'schema ' || nspname, null::name, null::text, nspowner, nspacl, null::text
        from pg_namespace where nspname in ('audit', 'audit_private')
        union all
        select case relkind when 'S' then 'sequence ' else 'table ' end || oid::regclass,
            null, null, relowner, relacl, null
        from pg_class
        where relnamespace = any ('{audit,audit_private}'::regnamespace[]) and relkind in ('r', 'p', 'v', 'm', 'S')
        union all
        select 'table ' || attrelid::regclass, attname, null, relowner, attacl, null
        from pg_attribute join pg_class as c on c.oid = attrelid
        where relnamespace = any ('{audit,audit_private}'::regnamespace[]) and attacl is not null
        union all
        select 'function ' || oid::regprocedure, null, oid::regprocedure::text, proowner,
            coalesce(proacl, acldefault('f', proowner)), null
        from pg_proc where pronamespace = any ('{audit,audit_private}'::regnamespace[])
        union all
        select 'type ' || t.oid::regtype, null, null, typowner,
            coalesce(typacl, acldefault('T', typowner)), null
        from pg_type as t join pg_class as c on c.oid = t.typrelid
        where typnamespace = any ('{audit,audit_private}'::regnamespace[]) and c.relkind = 'c'
        union all
        select * from audit_private.default_privileges()
    ) as o (object, attname, function, owner, acl, template);
$$;
comment on function audit_private.privileges() is 'Privileges on everything of the log';

create or replace function audit_private.grant_facts() returns setof audit_private.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select coalesce(a.target, 'audit.event'), 'grant', coalesce(a.target, 'audit.event'),
        format('%s%s on %s to %s', x.privilege_type, ' (' || g.attname || ')', g.object, r.name),
        jsonb_build_object('revoke', format(g.template, x.privilege_type || coalesce(
            ' (' || g.attname || ')', ''), r.name), 'function', g.function)
    from audit_private.privileges() as g
        left join audit_private.attachment as a
            on a.id::text = substring(g.function from '^audit_private[.]capture_([0-9]+)(?:_[a-z]+)?[(]')
        cross join lateral aclexplode(g.acl) as x
        cross join lateral (
            select case x.grantee when 0 then 'public' else x.grantee::regrole::text end as name
        ) as r
    where x.grantee <> g.owner and x.grantee <> 'audit_owner'::regrole;
$$;
comment on function audit_private.grant_facts() is
    'Every privilege on the log that somebody other than its owner holds, or will hold by default';

-- The settings that choose how PostgreSQL prints definitions, constants and names: what is attested
-- by one session is compared by another.
create or replace function audit_private.current_facts() returns setof audit_private.fact
language sql stable set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off set standard_conforming_strings = on set bytea_output = 'hex'
set datestyle = 'ISO' set intervalstyle = 'postgres' set timezone = 'UTC' set extra_float_digits = 1
set xmlbinary = 'base64' set row_security = on
as $$
    select * from audit_private.function_facts()
    union all select * from audit_private.trigger_facts()
    union all select * from audit_private.policy_facts()
    union all select * from audit_private.relation_facts()
    union all select * from audit_private.grant_facts();
$$;
comment on function audit_private.current_facts() is 'What stands in the catalogs now';

create or replace function audit_private.attested() returns setof audit_private.attestation
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select * from (
        select distinct on (scope, kind, relation, name) *
        from audit_private.attestation
        order by scope, kind, relation, name, id desc
    ) as latest
    where fact is not null;
$$;
comment on function audit_private.attested() is 'The attestation in force';

create or replace function audit_private.compare_facts()
returns table (
    scope regclass, kind text, relation regclass, name text, was jsonb, stands jsonb,
    attested_at timestamptz, attested_by text
)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select scope, kind, relation, name, w.fact, s.fact, w.attested_at, w.attested_by
    from audit_private.attested() as w
        full join audit_private.current_facts() as s using (scope, kind, relation, name)
        cross join lateral (
            -- A name may change. After a restore every row of the catalogs is new, which says
            -- nothing; and a body that is kept parsed is not printed the same way twice.
            select case
                when w.fact -> 'catalog' = s.fact -> 'catalog' then
                    case kind when 'table' then '{}' else '{on}' end
                when kind = 'table' then '{catalog,oid,xmin}'
                when (w.fact ->> 'parsed')::boolean then '{on,catalog,oid,xmin,sha256}'
                else '{on,catalog,oid,xmin}'
            end::text[] as keys
        ) as v
    where (w.fact - v.keys) is distinct from (s.fact - v.keys);
$$;
comment on function audit_private.compare_facts() is 'What stands otherwise than attested';

-- Triggers are attested anew only where somebody answers for them: install changes none.
create or replace function audit_private.record_attestation(
    occasion text,
    scope regclass default null,
    kinds text[] default null,
    renew boolean default true
) returns jsonb
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    with changed as (
        select w.id as was_id, w.fact as was, s.fact as stands, scope, kind, relation, name
        from audit_private.attested() as w
            full join audit_private.current_facts() as s using (scope, kind, relation, name)
        where scope = coalesce(record_attestation.scope, scope)
            and kind = any (coalesce(record_attestation.kinds, array[kind]))
            and w.fact is distinct from s.fact
            and (record_attestation.renew or w.fact is null)
    ), recorded as (
        insert into audit_private.attestation (occasion, scope, kind, relation, name, fact)
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
            select from audit_private.attachment as a
            where a.target = changed.scope and a.attached_at = now()));
$$;
comment on function audit_private.record_attestation(text, regclass, text[], boolean) is
    'Attests what stands now, where it differs; returns what was attested otherwise before';

create or replace function audit_private.complete_attestation() returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    insert into audit_private.attestation (occasion, scope, kind, relation, name, fact)
    select 'install', w.scope, w.kind, w.relation, w.name, s.fact || w.fact
    from audit_private.attested() as w join audit_private.relation_facts() as s using (scope, kind, relation, name)
    where w.kind = 'table' and not w.fact ? 'mapping';
$$;
comment on function audit_private.complete_attestation() is
    'Attests of a table what a former release did not know, and leaves what it did';

create or replace function audit.attest(scope regclass) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off set row_security = on
as $$
declare
    _changed jsonb := audit_private.record_attestation(
        case
            when exists (
                select from audit_private.attachment as a
                where a.target = attest.scope and a.attached_at = now()
            ) then 'attach'
            when attest.scope = 'audit.event'::regclass or exists (
                select from audit_private.attachment as a where a.target = attest.scope
            ) then 'attest'
            else 'detach'
        end,
        attest.scope);
begin
    if _changed ->> 'was' is not null then
        perform audit_private.record_own('attested', attest.scope::text,
            _changed -> 'was', _changed -> 'stands');
    end if;
end
$$;
-- Definer: nobody may write the attestation itself. It states what is, so that any operator may ask
-- for it; who did, and what stood before, is an event.
comment on function audit.attest(regclass) is
    'Attests a table as it is attached now, or with audit.event the log itself: after a finding of '
    'audit.doctor() was looked into, or after a restore. What stood before goes into an event';

create or replace function audit_private.close_attestation(relation regclass, occasion text) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    insert into audit_private.attestation (occasion, scope, kind, relation, name, fact)
    select close_attestation.occasion, scope, kind, a.relation, name, null
    from audit_private.attested() as a
    where a.relation = close_attestation.relation;
$$;
comment on function audit_private.close_attestation(regclass, text) is
    'Says that a partition goes for good: by retention, or emptied into others';

insert into audit.action (name, description) values
    ('audit.attested', 'Somebody answered for triggers or objects that had changed'),
    ('audit.mended', 'The guards of the log were put back')
on conflict (name) do update set description = excluded.description;
