-- Attestation: facts that cannot be computed later, kept append-only. If a trigger is disabled and
-- enabled again, or a function is altered and restored, only the xmin of the catalog row shows it.
-- Nothing else tells which columns a table had when it was attached.

do $$
begin
    if not exists (
        select from pg_catalog.pg_policy
        where polrelid = 'audit_private.attestation'::regclass and polname = 'the_owner_attests'
    ) then
        create policy the_owner_attests on audit_private.attestation for insert to audit_owner
            with check (true);
    end if;
    if not exists (
        select from pg_catalog.pg_policy
        where polrelid = 'audit_private.attestation'::regclass and polname = 'anyone_granted_reads'
    ) then
        create policy anyone_granted_reads on audit_private.attestation for select using (true);
    end if;
end
$$;

create or replace function audit_private.fingerprint(variadic parts text[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return encode(sha256(convert_to(array_to_string(fingerprint.parts, E'\n', '-'), 'UTF8')), 'hex');
comment on function audit_private.fingerprint is
    'SHA-256 of texts, in hexadecimal';

create or replace function audit_private.captured_tables(scope regclass default null)
returns table (id int, target regclass, relation regclass)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select a.id, a.target, coalesce(t.relid, a.target)
    from audit_private.attachment as a
        left join lateral pg_partition_tree(a.target) as t on true
    where a.kind <> 'admin' and a.target = coalesce(captured_tables.scope, a.target)
        and audit_private.is_there(a.target, a.row_type);
$$;
comment on function audit_private.captured_tables is
    'The attached tables that exist, and their partitions';

create or replace function audit_private.function_facts(scope regclass)
returns setof audit_private.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select s.scope, 'functions', s.scope, '', jsonb_build_object(
        'catalog', 'audit'::regnamespace::bigint,
        'functions', jsonb_object_agg(p.oid::regprocedure::text, concat(p.oid, ' ', p.xmin)))
    from (
        select f.oid
        from pg_proc as f
        where f.pronamespace = any ('{audit,audit_private}'::regnamespace[])
            and coalesce(function_facts.scope, 'audit.event') = 'audit.event'::regclass
        union all
        select audit_private.functions_of(a.id)
        from audit_private.attachment as a where a.target = function_facts.scope
    ) as f
        join pg_proc as p on p.oid = f.oid
        left join audit_private.attachment as a
            on a.id::text = audit_private.generated_for(p.oid::regprocedure::text)
        cross join lateral (
            select case when a.id is null then 'audit.event'::regclass else a.target end
        ) as s (scope)
    where s.scope = coalesce(function_facts.scope, s.scope)
    group by s.scope;
$$;
comment on function audit_private.function_facts is
    'The functions of the log, each with its xmin, which every change renews; generated functions '
    'under their table; for one scope, or for all';

create or replace function audit_private.trigger_facts(scope regclass)
returns setof audit_private.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select s.scope, 'trigger', s.relation, t.tgname::text, jsonb_build_object(
        'catalog', 'audit'::regnamespace::bigint, 'oid', t.oid::bigint, 'xmin', t.xmin::text,
        'enabled', t.tgenabled, 'on', s.relation::text, 'calls', t.tgfoid::regprocedure::text,
        -- With a condition, a list of columns or arguments, it would fire less often.
        'fires', case when t.tgqual is null and t.tgattr = '' and not t.tgdeferrable
            and t.tgnargs = 0 then t.tgtype end)
    from (
        select target as scope, relation from audit_private.captured_tables(trigger_facts.scope)
        union all
        select 'audit.event'::regclass, oid from pg_class
        where relnamespace = any ('{audit,audit_private}'::regnamespace[]) and relkind in ('r', 'p')
            and coalesce(trigger_facts.scope, 'audit.event') = 'audit.event'::regclass
    ) as s
        join pg_trigger as t on t.tgrelid = s.relation
    where not t.tgisinternal
        and (s.scope = 'audit.event'::regclass
            or t.tgname = any ('{auditdb_insert,auditdb_update,auditdb_delete,auditdb_truncate}'));
$$;
comment on function audit_private.trigger_facts is
    'The triggers of auditdb on attached tables and their partitions, and all triggers on the log';

-- The definition of a view decides who is an admin, and so do the functions that a rule calls.
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
        audit_private.fingerprint(
            c.relowner::regrole::text, pg_get_viewdef(c.oid), c.reloptions::text)
    from part join pg_class as c on part.class = 'pg_class'::regclass and c.oid = part.oid
    where c.relkind in ('v', 'm')
    union all
    select 'function ' || f.oid::regprocedure,
        audit_private.fingerprint(f.proowner::regrole::text, pg_get_functiondef(f.oid))
    from part join pg_proc as f on part.class = 'pg_proc'::regclass and f.oid = part.oid
    where f.prokind = 'f';
$$;
comment on function audit_private.beneath is
    'The views and functions beneath an attached table that decide who is an admin, '
    'with definitions';

create or replace function audit_private.table_facts(scope regclass)
returns setof audit_private.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select c.oid, 'table', c.oid, '', jsonb_build_object(
        'catalog', 'audit'::regnamespace::bigint, 'oid', c.oid::bigint, 'on', c.oid::regclass::text,
        'owner', c.relowner::regrole::text,
        -- Renaming a table, or moving it to another schema,
        -- writes a new version of its row in pg_type.
        'xmin', (select t.xmin::text from pg_type as t where t.oid = c.reltype),
        'mapping', audit_private.fingerprint(a.kind, a.mapping::text),
        'beneath', case when a.mapping ? 'admin' then (
            select jsonb_object_agg(b.name, b.sha256)
            from audit_private.beneath(a.target) as b) end,
        -- By name, as capture looks them up.
        'looks_up', (
            select jsonb_object_agg(r.name, k.relowner::regrole::text)
            from jsonb_object_keys(a.mapping #> '{checked,reads}') as r (name)
                join pg_class as k on k.oid = audit_private.table_of(r.name) and k.oid <> c.oid),
        'columns', (
            select jsonb_object_agg(attname, format_type(atttypid, atttypmod)) from pg_attribute
            where attrelid = c.oid and attnum > 0 and not attisdropped),
        -- Numbers identify columns that were renamed, or created again under the same name.
        'numbers', (
            select jsonb_object_agg(attname, attnum) from pg_attribute
            where attrelid = c.oid and attnum > 0 and not attisdropped))
    from audit_private.attachment as a
        join pg_class as c on c.oid = a.target and c.reltype = a.row_type
    where a.target = coalesce(table_facts.scope, a.target);
$$;
comment on function audit_private.table_facts is
    'The attached tables: their names, owners, columns and mappings, what makes admins, and the '
    'owners of the tables that they look up';

-- Pins the settings of audit_private.standing: another session compares what one session attests.
create or replace function audit_private.current_facts(scope regclass default null)
returns setof audit_private.fact
language sql stable set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off set standard_conforming_strings = on set bytea_output = 'hex'
set datestyle = 'ISO' set intervalstyle = 'postgres' set timezone = 'UTC' set extra_float_digits = 1
set xmlbinary = 'base64' set row_security = on
as $$
    select * from audit_private.function_facts(current_facts.scope)
    union all select * from audit_private.trigger_facts(current_facts.scope)
    union all select * from audit_private.table_facts(current_facts.scope);
$$;
comment on function audit_private.current_facts is
    'The present state of everything that is attested, for one scope or for all';

-- Kinds of facts of former releases are history.
create or replace function audit_private.attested(scope regclass default null)
returns setof audit_private.attestation
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select * from (
        select distinct on (t.scope, kind, relation, name) *
        from audit_private.attestation as t
        where kind in ('trigger', 'table', 'functions')
            and t.scope = coalesce(attested.scope, t.scope)
        order by t.scope, kind, relation, name, id desc
    ) as latest
    where fact is not null;
$$;
comment on function audit_private.attested is
    'The attestation in force: the last one of each fact';

-- A former release attested no numbers: this is no change.
create or replace function audit_private.as_attested(stands jsonb, was jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return case when was ? 'numbers' then stands else stands - 'numbers' end;
comment on function audit_private.as_attested is
    'The present state of a fact, without parts that its attestation lacks';

create or replace function audit_private.compare_attested() returns setof audit_private.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select scope, kind, relation, name, jsonb_build_object('was', w.fact,
        'stands', audit_private.as_attested(s.fact, w.fact),
        'is_comparable', coalesce(w.fact -> 'catalog' = s.fact -> 'catalog', false),
        'since', ', since ' || to_char(w.attested_at, 'YYYY-MM-DD HH24:MI'),
        'by', ' by ' || w.attested_by)
    from audit_private.attested() as w
        full join audit_private.current_facts() as s using (scope, kind, relation, name);
$$;
comment on function audit_private.compare_attested is
    'The attestation beside the present state; not comparable if a restore made new catalogs';

create or replace function audit_private.stale_tables() returns setof oid
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return query
        select distinct f.scope::oid from audit_private.compare_attested() as f
        where f.fact -> 'was' is distinct from f.fact -> 'stands'
            and f.scope <> 'audit.event'::regclass;
end
$$;
-- Definer: reads what the owner of the log may; it only names tables, and only to operators.
comment on function audit_private.stale_tables is
    'Attached tables that differ from their attestation: renamed, altered, of another owner, or '
    'with other triggers or functions';

-- Triggers are attested again only if a person answers for them: install changes none.
create or replace function audit_private.record_attestation(
    occasion text,
    scope regclass default null,
    kinds text[] default null,
    renew boolean default true
) returns jsonb
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    with changed as (
        select w.fact as was, s.fact as stands, scope, kind, relation, name
        from audit_private.attested(record_attestation.scope) as w
            full join audit_private.current_facts(record_attestation.scope) as s
                using (scope, kind, relation, name)
        where scope = coalesce(record_attestation.scope, scope)
            and kind = any (coalesce(record_attestation.kinds, array[kind]))
            and w.fact is distinct from case
                when w.fact is null then s.fact else audit_private.as_attested(s.fact, w.fact) end
            and (record_attestation.renew or w.fact is null)
    ), recorded as (
        insert into audit_private.attestation (occasion, scope, kind, relation, name, fact)
        select record_attestation.occasion, scope, kind, relation, name, stands from changed
        order by kind, coalesce(stands, was) ->> 'on', name
    )
    select jsonb_build_object(
        'was', jsonb_object_agg(concat_ws(' on ', kind || ' ' || name, was ->> 'on'), was),
        'stands', jsonb_object_agg(concat_ws(' on ', kind || ' ' || name, was ->> 'on'), stands))
    from changed
    where was is not null and stands is not null and (kind = 'trigger'
        or kind = 'table' and not exists (
            select from audit_private.attachment as a
            where a.target = changed.scope and a.attached_at = now()));
$$;
comment on function audit_private.record_attestation is
    'Attests the present state where it differs; returns the former attestations that differ';

create or replace function audit_private.answer_for(
    scope regclass, occasion text, kinds text[] default null
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _changed jsonb := audit_private.record_attestation(
        answer_for.occasion, answer_for.scope, answer_for.kinds);
begin
    update audit_private.attachment as a set name = audit_private.table_name(a.target)
    where a.target = answer_for.scope and audit_private.is_there(a.target, a.row_type)
        and a.name <> audit_private.table_name(a.target);
    if _changed ->> 'was' is not null then
        perform audit_private.record_own('attested', answer_for.scope::text,
            _changed -> 'was', _changed -> 'stands');
    end if;
end
$$;
comment on function audit_private.answer_for is
    'Attests the present state, and records the former attestations that differ';

create or replace function audit.attest(scope regclass) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off set row_security = on
as $$
begin
    perform audit_private.refuse_restored();
    perform audit_private.answer_for(attest.scope, case
        when exists (
            select from audit_private.attachment as a
            where a.target = attest.scope and a.attached_at = now()
        ) then 'attach'
        when attest.scope = 'audit.event'::regclass or exists (
            select from audit_private.attachment as a where a.target = attest.scope
        ) then 'attest'
        else 'detach' end);
end
$$;
-- Definer: nobody may write to the attestation. The function only states what is, so any operator
-- may call it; an event records the caller and the former state.
comment on function audit.attest is
    'Attests the present state of an attached table, or with audit.event that of the log itself. '
    'Use it after you looked into a finding of audit.doctor(). An event records the former state';

create or replace function audit_private.close_attestation(relation regclass, occasion text)
returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    insert into audit_private.attestation (occasion, scope, kind, relation, name, fact)
    select close_attestation.occasion, scope, kind, a.relation, name, null
    from audit_private.attested() as a
    where a.relation = close_attestation.relation;
$$;
comment on function audit_private.close_attestation is
    'Attests that a partition is gone for good: dropped by retention, or emptied into others';

insert into audit.action (name, description, is_built_in) values
    ('audit.attested', 'Somebody answered for triggers or objects that had changed', true),
    ('audit.mended', 'The guards of the log were put back', true)
on conflict (name) do update set description = excluded.description, is_built_in = true;
