-- Wanted: what the log must consist of: the definitions of the release, and the code of attached
-- tables as attaching would write it now. An attacker cannot change it together with the objects
-- that are compared with it.

-- If the code of a table cannot be written any more, only the names are known.
create or replace function audit_private.wanted_of(id int)
returns table (kind text, name text, sha256 text, object text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select 'function', format('audit_private.%I(%s) returns %s', g.name, g.arguments, g.returns),
        audit_private.fingerprint(jsonb_build_array(
            'plpgsql', 'f', left(g.volatility, 1), true, false, 'u', false, 100, 0, '-',
            array(
                select distinct c collate "C"
                from unnest(g.settings || '{"search_path=pg_catalog, pg_temp"}' || case
                    when audit_private.is_of_mapper(g.name)
                    then '{standard_conforming_strings=on,bytea_output=hex}'
                    else '{}' end::text[]) as c
                order by 1),
            g.body, null)::text),
        format('audit_private.%I(%s)', g.name, (
            select string_agg(split_part(a, ' ', 2), ',')
            from string_to_table(g.arguments, ', ') as a))
    from audit_private.generated(wanted_of.id) as g;
exception when others then
    return query
    select s.kind, s.name, 'unknown', s.object
    from audit_private.standing_functions() as s
    where audit_private.generated_for(s.name) = wanted_of.id::text;
end
$$;
comment on function audit_private.wanted_of is
    'The functions that an attached table needs, with the hashes of audit_private.standing()';

create or replace function audit_private.wanted()
returns table (kind text, name text, sha256 text, object text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select kind, name, sha256, null from audit_private.release
    union all
    select w.*
    from audit_private.attachment as a
        join pg_class as c on c.oid = a.target and c.reltype = a.row_type
        cross join lateral audit_private.wanted_of(a.id) as w
    union all
    -- Backups read each month, as they read DEFAULT.
    select r.kind, replace(r.name, 'audit.event_default', c.oid::regclass::text), r.sha256, null
    from audit_private.release as r
        join pg_class as c on c.relnamespace = 'audit'::regnamespace and c.relkind = 'r'
            and c.relname ~ '^event_[0-9]{4,}_[0-9]{2}$'
    where r.name in ('backups_read_everything on audit.event_default',
        'SELECT on table audit.event_default to audit_backup')
    union all
    select 'grant', format('EXECUTE on function audit_private.baseline_%s(anyelement,anyelement) '
        'to audit_operator', a.id), '-', null
    from audit_private.attachment as a
    where a.kind <> 'admin' and audit_private.is_there(a.target, a.row_type)
    union all
    select 'grant', format('EXECUTE on function audit_private.image_%s(anyelement,anyelement) '
        'to audit_auditor', a.id), '-', null
    from audit_private.attachment as a
    where a.kind <> 'admin' and audit_private.is_there(a.target, a.row_type)
    union all
    -- The owner of a partitioned table creates partitions whose triggers call these functions.
    select 'grant', format('EXECUTE on function audit_private.capture_%s_%s() to %s', a.id, op,
        c.relowner::regrole), '-', null
    from audit_private.attachment as a
        join pg_class as c on c.oid = a.target and c.reltype = a.row_type and c.relkind = 'p'
        cross join unnest('{insert,update,delete,truncate}'::text[]) as op
    where a.kind <> 'admin';
$$;
comment on function audit_private.wanted is
    'What the log must consist of, by the release and by the attached tables';

-- Functions of a dropped table are reported with that table.
create or replace function audit_private.compare_release() returns setof audit_private.fact
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select v.scope, coalesce(w.kind, s.kind), v.scope, v.name, jsonb_build_object(
        'object', coalesce(s.object, w.object, w.name), 'undo', s.undo, 'state', case
            when w.name is null then 'is none of auditdb''s'
            when s.name is null then 'is missing' else 'is not as it was installed' end)
    from audit_private.wanted() as w
        full join audit_private.standing() as s on s.kind = w.kind and s.name = w.name
        cross join lateral (select coalesce(w.name, s.name)) as n (name)
        left join audit_private.attachment as a on a.id::text = audit_private.generated_for(n.name)
        cross join lateral (
            select case when a.id is null then 'audit.event'::regclass else a.target end, n.name
        ) as v (scope, name)
    where w.sha256 is distinct from s.sha256
        -- Without a stored release everything would be foreign: this is a finding of its own.
        and exists (select from audit_private.release)
        and (a.id is null or audit_private.is_there(a.target, a.row_type));
$$;
comment on function audit_private.compare_release is
    'What of the log is foreign, missing or altered';
