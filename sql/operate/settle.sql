-- Settle: a restore or pg_upgrade makes new catalogs, with other oids and xmin. Install finds the
-- objects of stored oids again by name. Until then, nothing may change what is known by its oid.

create or replace function audit_private.cluster_id() returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    return (select system_identifier::text from pg_control_system());
exception when insufficient_privilege then
    return null;
end
$$;
comment on function audit_private.cluster_id is
    'Identifier of the database cluster; null if the server hides it';

-- A copy by TEMPLATE, a standby and a point-in-time recovery keep both.
create or replace function audit_private.is_restored() returns boolean
language sql stable set search_path = pg_catalog, pg_temp set row_security = on
return not exists (
    select from audit_private.installation as i
    where i.catalog = 'audit'::regnamespace
        and coalesce(i.cluster = audit_private.cluster_id(), true)
);
comment on function audit_private.is_restored is
    'Whether the catalogs are others than those that install noted';

create or replace function audit_private.refuse_restored() returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if audit_private.is_restored() then
        raise exception 'this database was restored, and its tables have other oids'
            using errcode = 'object_not_in_prerequisite_state', hint = 'Run: auditdb install';
    end if;
end
$$;
-- Definer: the installation is closed to everybody.
comment on function audit_private.refuse_restored is
    'Raises until install has settled what a restore changed';

-- By its triggers, which a restore keeps even if the table was renamed; otherwise by its name.
create or replace function audit_private.table_now(attachment audit_private.attachment) returns oid
language sql stable set search_path = pg_catalog, pg_temp
return (
    select c.oid
    from cast(audit_private.table_of((attachment).name) as oid) as named
        join pg_class as c on c.oid = named or c.oid in (
            select t.tgrelid from pg_trigger as t
            where t.tgname = 'auditdb_insert' and t.tgparentid = 0 and t.tgfoid
                = (select audit_private.trigger_function((attachment).id, 'insert')))
    order by exists (
            select from pg_trigger as t
            where t.tgrelid = c.oid and t.tgname = 'auditdb_insert' and t.tgfoid
                = (select audit_private.trigger_function((attachment).id, 'insert'))
        ) desc, c.oid = named desc
    limit 1
);
comment on function audit_private.table_now is
    'The table of an attachment in the present catalogs; null if there is none';

create or replace function audit_private.settle_attachments(out map jsonb)
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _found jsonb := (
        select jsonb_agg(jsonb_build_object('id', a.id, 'was', a.target,
            'target', audit_private.table_now(a)))
        from audit_private.attachment as a);
begin
    update audit_private.attachment set target = null, row_type = null;
    update audit_private.attachment as a set target = c.oid, row_type = c.reltype
    from jsonb_to_recordset(_found) as f (id int, target oid) join pg_class as c on c.oid = f.target
    where a.id = f.id;
    map := (
        select jsonb_object_agg(f.was, f.target)
        from jsonb_to_recordset(_found) as f (was oid, target oid)
        where f.was is not null);
end
$$;
comment on function audit_private.settle_attachments is
    'Finds the attached tables in the present catalogs; returns their former and present oids';

-- Triggers and functions are new, and install attests them. What was attested of tables, and which
-- months the log had, is carried over.
create or replace function audit_private.settle_attestation(map jsonb, server int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _old audit_private.attestation[] := array(select t from audit_private.attested() as t);
    _marks text[] := '{catalog,numbers,oid,xmin}';
begin
    -- Versions of PostgreSQL may print a view differently.
    if server is distinct from current_setting('server_version_num')::int / 10000 then
        _marks := _marks || 'beneath'::text;
    end if;
    insert into audit_private.attestation (occasion, scope, kind, relation, name, fact)
    select 'restore', scope, kind, relation, name, null from unnest(_old);
    insert into audit_private.attestation (occasion, scope, kind, relation, name, fact)
    select 'restore', s.scope, s.kind, s.relation, s.name, s.fact || (w.fact - _marks)
    from audit_private.current_facts() as s
        join unnest(_old) as w on w.kind = s.kind and (map ->> w.scope::text)::oid = s.scope
    where s.kind = 'table';
    insert into audit_private.attestation (occasion, scope, kind, relation, name, fact)
    select distinct on (w.fact ->> 'on') 'restore', 'audit.event'::regclass, w.kind,
        coalesce(m.oid, 0), 'refuse_truncate' || case when m.oid is null
            then ' ' || (w.fact ->> 'on') else '' end,
        w.fact || jsonb_build_object('catalog', 'audit'::regnamespace::bigint)
    from unnest(_old) as w
        cross join lateral (select audit_private.table_of(w.fact ->> 'on')) as m (oid)
    where w.name ~ '^refuse_truncate' and w.fact ->> 'on' ~ '^audit[.]event_'
        -- A future month held no event; a subscriber creates its own.
        and coalesce(to_date(
            substring(w.fact ->> 'on' from '_([0-9]+_[0-9]+)$'), 'YYYY_MM') <= now(), true)
        and not exists (select from pg_partition_tree('audit.event') where relid = m.oid);
end
$$;
comment on function audit_private.settle_attestation is
    'Carries over to the present catalogs what was attested, except what a restore creates anew';

create or replace function audit_private.advance_ids(last_id bigint) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if (select last_value from audit.event_id_seq) < advance_ids.last_id then
        -- Leaves room for ids that other sessions draw at this moment.
        perform setval('audit.event_id_seq', advance_ids.last_id + 1000);
    end if;
end
$$;
comment on function audit_private.advance_ids is
    'Moves the sequence of ids past the highest id of an event';

create or replace function audit_private.advance_own_ids() returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    select setval(pg_get_serial_sequence('audit_private.attachment', 'id'), max(id))
    from audit_private.attachment
    having max(id) > (select last_value from audit_private.attachment_id_seq)
    union all
    select setval(pg_get_serial_sequence('audit_private.attestation', 'id'), max(id))
    from audit_private.attestation
    having max(id) > (select last_value from audit_private.attestation_id_seq);
$$;
comment on function audit_private.advance_own_ids is
    'Moves the sequences of attachments and attestations past their highest ids';

create or replace function audit_private.note_catalogs() returns jsonb
language sql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
    update audit_private.installation
    set catalog = 'audit'::regnamespace, cluster = audit_private.cluster_id(),
        server = current_setting('server_version_num')::int / 10000
    returning jsonb_build_object('catalog', catalog::bigint, 'cluster', cluster, 'server', server);
$$;
comment on function audit_private.note_catalogs is
    'Notes to which catalogs the stored oids belong';

create or replace function audit_private.settle() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _was audit_private.installation;
    _last bigint;
begin
    select * into _was from audit_private.installation limit 1;
    if not audit_private.is_restored() then
        perform audit_private.forget_gone();
        perform audit_private.advance_ids((
            select greatest(max(s.id), (
                select max(first_id) from audit_private.organization_start))
            from audit_private.sampled_ids() as s));
    elsif _was.catalog is null then
        perform audit_private.note_catalogs();
    else
        -- A restore into a cluster without the roles omits their policies;
        -- without one, UPDATE finds no row.
        perform audit_private.furnish_policies();
        _last := greatest((select max(id) from audit.event),
            (select max(first_id) from audit_private.organization_start));
        perform audit_private.advance_own_ids();
        perform audit_private.settle_attestation(
            coalesce(audit_private.settle_attachments(), '{}'), _was.server);
        perform audit_private.advance_ids(_last);
        perform audit_private.renew_series('restored') where exists (select from audit.series);
        perform audit_private.record_own('restored', current_database(),
            jsonb_build_object('catalog', _was.catalog::bigint, 'cluster', _was.cluster,
                'server', _was.server),
            audit_private.note_catalogs(),
            jsonb_build_object('last_id', _last, 'gone', (
                select jsonb_agg(a.name order by a.name) from audit_private.attachment as a
                where a.target is null)));
    end if;
end
$$;
comment on function audit_private.settle is
    'Part of install. After a restore, finds by name what was stored by oid, and moves sequences '
    'on. Otherwise removes the mappings of tables that are gone';

create or replace function audit_private.check_restore() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'restore', case when o.is_ours then 'warning' else 'critical' end, 'schema audit',
        case when o.is_ours then 'the catalogs are not those noted: a restore or pg_upgrade'
            else format('everything belongs to %s: a restore without owners', o.owner) end,
        case when o.is_ours then 'Capture and reading go on. Until it is settled, no table is '
                'attached, and nothing is compared with what was attested.'
            else 'Capture runs with the rights of that role, or fails.' end,
        'auditdb install', false
    from pg_namespace as n
        cross join lateral (
            select pg_get_userbyid(n.nspowner), pg_get_userbyid(n.nspowner) = 'audit_owner'
        ) as o (owner, is_ours)
    where n.nspname = 'audit' and (not o.is_ours or audit_private.is_restored());
$$;
comment on function audit_private.check_restore is
    'Finds that the database was restored, and that install has not run since';

create or replace function audit_private.check_mapper() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'mapper', 'critical', 'audit_mapper',
        'lost its functions and rights: drop owned by audit_mapper',
        'Changes are recorded without what it reads, and nobody reads the log by row-level '
        'security.',
        'auditdb install; auditdb doctor --fix', false
    where not exists (
        select from pg_proc as p
        where p.pronamespace = 'audit_private'::regnamespace
            and p.proname in ('rescue', 'examine', 'try_expression'));
$$;
comment on function audit_private.check_mapper is
    'Finds that audit_mapper has lost everything it needs to read rows';
