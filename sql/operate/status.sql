-- Status: what is attached, what is stored, who holds which role. For auditdb status and for psql.

create or replace function audit.list_tables()
returns table (
    target text, kind text, mapping jsonb, attached_at timestamptz, attached_by text, problem text
)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select coalesce(c.oid::regclass::text, a.name), a.kind, a.mapping, a.attached_at,
        a.attached_by, case
        when c.oid is null then 'the table is gone'
        when now_has.columns <> a.mapping -> 'columns'
            then 'its columns changed since it was attached: attach it again'
        end
    from audit_private.attachment as a
        left join pg_class as c on c.oid = a.target and c.reltype = a.row_type
        left join lateral (
            select jsonb_agg(attname order by attnum) as columns
            from pg_attribute
            where attrelid = c.oid and attnum > 0 and not attisdropped
        ) as now_has on true
    order by a.kind, 1;
$$;
comment on function audit.list_tables is
    'The attached tables, how their rows map to events, and whether the mapping is outdated';

create or replace function audit.list_partitions()
returns table (name text, bounds text, events bigint, is_estimate boolean, bytes bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- Counts exactly, unless that would take seconds.
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
comment on function audit.list_partitions is
    'The months of the log, with the number of events and of bytes';

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
            -- PostgreSQL 16 gives the creator of a role the right to grant it,
            -- which does not count.
            and pg_has_role(m.oid, r.oid, 'usage') and not m.rolsuper
    where r.rolname in ('audit_operator', 'audit_writer', 'audit_reader', 'audit_auditor',
        'audit_backup', 'audit_owner')
    group by r.rolname
    order by r.rolname;
$$;
comment on function audit.list_members is
    'The roles of auditdb, with the members of each';

create or replace function audit.list_limits()
returns table (login text, per_minute int, set_at timestamptz, set_by text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select l.login, l.per_minute, l.set_at, l.set_by
    from audit_private.recording_limit as l
    where l.per_minute is not null
    order by l.login;
$$;
-- Definer: nobody holds a privilege on the table itself.
comment on function audit.list_limits is
    'The logins that may record only a limited number of events per minute by calls';
