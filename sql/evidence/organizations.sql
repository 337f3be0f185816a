-- Which events belong to which organisation, so that a proof can show all of them and none of the
-- others: docs/evidence.md defines the bytes.
-- Part of audit.seal_next, which excludes other sealers.

create or replace function audit_private.count_organizations(organizations text[]) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    with counted as materialized (
        select o.id, count(*) as events
        from unnest(count_organizations.organizations) as o (id)
        where o.id is not null
        group by o.id
    ), new as materialized (
        select c.id, c.events, row_number() over (order by c.id) as number
        from counted as c
        where not exists (
            select from audit.sealed_organization as s where s.organization_id = c.id)
    ), salts as materialized (
        select audit_private.random_salts(count(*)) as salts from new
    ), made as (
        insert into audit.sealed_organization (id, organization_id, counted, salt, key, hash)
        select m.last + n.number, n.id, n.events, x.salt, k.key, sha256(k.key || x.salt)
        from new as n
            cross join salts as s
            cross join lateral (select substr(s.salts, (n.number * 16 - 15)::int, 16)) as x (salt)
            cross join lateral (select sha256(x.salt || convert_to(n.id, 'UTF8'))) as k (key)
            cross join (
                select coalesce(max(e.id), 0) from audit.sealed_organization as e) as m (last)
    )
    update audit.sealed_organization as s
    set counted = s.counted + c.events
    from counted as c
    where s.organization_id = c.id;
$$;
comment on function audit_private.count_organizations is
    'Adds events that are sealed to the counts of their organisations';

-- One bucket for each first byte of a key. A whole bucket shows that a key is in it only once.
create or replace function audit_private.organizations_root() returns bytea
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _nodes bytea[] := array(
        select sha256(decode('00', 'hex') || coalesce(
            string_agg(s.key || s.hash, ''::bytea order by s.key), ''))
        from generate_series(0, 255) as b
            left join audit.sealed_organization as s on get_byte(s.key, 0) = b and s.total > 0
        group by b order by b);
begin
    for _level in reverse 7 .. 0 loop
        _nodes := array(
            select sha256(decode('01', 'hex') || _nodes[2 * n - 1] || _nodes[2 * n])
            from generate_series(1, 1 << _level) as n
            order by n);
    end loop;
    return _nodes[1];
end
$$;
comment on function audit_private.organizations_root is
    'Root of the map of all organisations: a tree of 256 buckets, each sorted by key';

create or replace function audit_private.seal_organizations(tick_id bigint) returns bytea
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _seal audit.organization_seal;
begin
    with ended as (
        update audit.sealed_organization as s
        set total = s.counted, tick_id = seal_organizations.tick_id,
            hash = sha256(decode('04', 'hex') || s.key || int8send(seal_organizations.tick_id)
                || int8send(s.counted) || s.hash)
        from audit.sealed_organization as f
        where f.id = s.id and s.counted <> s.total
        returning s.id, s.total, f.tick_id as former, s.hash
    )
    select coalesce(array_agg(e.id order by e.id), '{}'),
        coalesce(array_agg(e.total order by e.id), '{}'),
        coalesce(array_agg(e.former order by e.id), '{}'),
        coalesce(string_agg(e.hash, ''::bytea order by e.id), '')
    into _seal.organizations, _seal.totals, _seal.former, _seal.entries
    from ended as e;
    _seal.tick_id := seal_organizations.tick_id;
    _seal.root := audit_private.organizations_root();
    insert into audit.organization_seal select _seal.*;
    return (
        select sha256(decode('0003', 'hex') || convert_to(format(
            '{"version":1,"tick":"%s","made_at":"%s","root":"%s"}', t.id,
            audit_private.canonical_time(t.made_at), encode(_seal.root, 'hex')), 'UTF8'))
        from audit.tick as t where t.id = seal_organizations.tick_id);
end
$$;
comment on function audit_private.seal_organizations is
    'Completes the entries of organisations of a tick; returns the hash of the leaf for them';
