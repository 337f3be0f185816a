-- Owners: tables that tell whose rows of another table are: who owns each row, and whom it is
-- shared with. They give the organisation if the row's own columns do not.

-- Each row of such a table names an object and its owner, and the pair is unique.
create or replace function audit_private.owners_of(target regclass)
returns table (relation regclass, here name, there name, way text)
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select c.conrelid, h.attname, t.attname, coalesce(w.way,
        case when (audit_private.role_of(c.conrelid)).value is not null
                or audit_private.normal_name(k.relname) ~ '-(owners?|ownerships?)-'
            then audit_private.user_organization(c.conrelid) end)
    from pg_constraint as c
        join pg_attribute as h on h.attrelid = c.conrelid and array[h.attnum] = c.conkey
        join pg_attribute as t on t.attrelid = c.confrelid and array[t.attnum] = c.confkey
        join pg_class as k on k.oid = c.conrelid
        left join audit_private.attachment as a on a.target = c.conrelid
        cross join audit_private.organization_way(
            c.conrelid, array[owners_of.target], 'membership') as w
    where c.contype = 'f' and c.confrelid = owners_of.target and c.conparentid = 0
        and c.conrelid <> c.confrelid and h.attnotnull
        and audit_private.have_one_owner(c.conrelid, c.confrelid)
        and coalesce(a.kind, '') not in ('organization', 'user')
        and audit_private.normal_name(k.relname)
            ~ ('-(shared?|sharing|owners?|ownerships?|users?|members?|access|relations?|'
                || btrim(audit_private.words('group'), '()') || ')s?-')
        and audit_private.normal_name(k.relname) !~ ('-(favou?rites?|stars?|likes?|watch(es|ers?)?|'
            'follow(s|ers?)?|subscri(bers?|ptions?)|notifications?|views?|reads?|pins?|recents?|'
            'votes?|tags?|labels?|comments?|runs?|executions?|templates?|requests?|settings?|'
            'preferences?|' || btrim(audit_private.words('no_carrier'), '()') || ')s?-')
        and exists (
            select from pg_index as i
            where i.indrelid = c.conrelid and i.indisunique and i.indexprs is null
                and h.attnum = any (i.indkey)
                and not exists (
                    select from unnest(i.indkey) as n (attnum)
                    where n.attnum <> h.attnum and not exists (
                        select from pg_constraint as f
                        where f.contype = 'f' and f.conrelid = c.conrelid
                            and n.attnum = any (f.conkey))))
        and (w.way is not null or audit_private.user_organization(c.conrelid) is not null);
end;
comment on function audit_private.owners_of is
    'Tables that tell who owns the rows of a table, or whom they are shared with';

-- A shared row belongs to its owner first, then to whoever it was shared with first.
create or replace function audit_private.owned_organization(target regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format(E'(select p.found from (select r.%I as key, (%s\n) as found, '
        '(%s) is true as owns, (%s) is true as counts, %s as made, %s as id from %s as r) as p '
        'where p.key = r.%I and p.counts and p.found is not null%s '
        'order by p.owns desc, p.made, p.id limit 1)', o.here, o.way,
        -- A former or future owner is no owner.
        case when role.value is null then 'false' else format(
            'lower((%s)::text) ~ ''(^|[^a-z])owner$'' and lower((%1$s)::text) !~ '
            '''(pending|invited|requested|former|previous|old|ex|non|not|no)[^a-z]*owner$''',
            role.value) end,
        coalesce(audit_private.default_alive(o.relation, 'membership'), 'true'),
        coalesce('r.' || quote_ident(audit_private.column_like(o.relation, 'createdat', 'created',
            'sharedat', 'addedat')), 'null::timestamptz'),
        coalesce(audit_private.key_of(o.relation, 'membership'), 'null::text'),
        o.relation, o.there,
        -- A row of a user belongs to its owner only: others get no events of that user.
        case when audit_private.user_column(owned_organization.target) is not null
            and (role.value is not null
                or audit_private.normal_name(o.relation::text) ~ '-(shared?|sharing|access)s?-')
            then ' and p.owns' end)
    from audit_private.owners_of(owned_organization.target) as o
        cross join audit_private.role_of(o.relation) as role
    order by role.value is not null desc, o.relation
    limit 1
);
comment on function audit_private.owned_organization is
    'The organisation of a row by a table that names its owner; null if there is none';
