-- Ways: from a row to the rows that name what it does not: its parent, organisation and user. They
-- follow foreign keys to tables of the same owner, and names of columns to attached tables. Each
-- function returns an expression over the row r, or null if there is no way.

create or replace function audit_private.have_one_owner(one oid, other oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return (
    select count(*) = 2 and count(distinct c.relowner) = 1
    from unnest(array[one, other]) as t (id) join pg_class as c on c.oid = t.id
);
comment on function audit_private.have_one_owner is
    'Whether two tables have the same owner; the mapping of another owner is not trusted';

-- Finds the table that a column is named after: userId, user_uuid and USERGUID give user.
create or replace function audit_private.named_table(attname name) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return (
    regexp_match(lower(replace(attname, '_', '')), '^(.*?)(uuid|guid|id)$')
)[1];
comment on function audit_private.named_table is
    'The table name within the name of a column, as of a foreign key; null if there is none';

create or replace function audit_private.tables_named(attname name) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
return (
    select array_agg(stem || ending)
    from cast(regexp_replace(attname, '_?(uuid|guid|id)$', '', 'i') as text) as base
        cross join unnest(array[base, upper(left(base, 1)) || substr(base, 2)]) as stem
        cross join unnest('{"",s,es}'::text[]) as ending
    where length(base) > 1
);
comment on function audit_private.tables_named is
    'The names of tables that a column such as team_id or teamId may refer to';

create or replace function audit_private.is_named_as(attname name, relation regclass)
returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(length(stem) > 1 and exists (
        select from unnest(
            array[stem, stem || 's', stem || 'es', regexp_replace(stem, 'y$', 'ies')]) as ending
        where right(lower(replace(relname, '_', '')), length(ending)) = ending), false)
    from pg_class
        cross join audit_private.named_table(attname) as stem
    where oid = is_named_as.relation
);
comment on function audit_private.is_named_as is
    'Whether the name of a column is that of a table with id, as of an undeclared foreign key';

-- An integer key may be referenced by a column that became bigint later.
create or replace function audit_private.are_alike(one oid, other oid) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return one = other
    or array[one, other] <@ array['int2'::regtype, 'int4'::regtype, 'int8'::regtype]::oid[]
    or array[one, other] <@ array['text'::regtype, 'varchar'::regtype]::oid[];
comment on function audit_private.are_alike is
    'Whether columns of two types may hold the same keys';

-- Without a foreign key: by the name of the table, and by the type of its key.
create or replace function audit_private.undeclared_links(target regclass)
returns table (relation regclass, here text[], there text[], is_needed boolean)
language sql stable rows 1 set search_path = pg_catalog, pg_temp
begin atomic
    -- Few columns and few tables match by name: only these are examined closely.
    with free as materialized (
        select h.attname, h.attnotnull, h.atttypid, c.oid, c.relnamespace, c.relowner,
            left(stem, -1) as stem
        from pg_attribute as h
            join pg_class as c on c.oid = h.attrelid
            cross join audit_private.named_table(attname) as stem
        where h.attrelid = undeclared_links.target and h.attnum > 0 and not h.attisdropped
            and length(stem) > 1 and not exists (
                select from pg_constraint as c
                where c.contype = 'f' and c.conrelid = h.attrelid and h.attnum = any (c.conkey))
    ), named as materialized (
        select a.target, a.kind, h.attname, h.attnotnull, h.atttypid
        from free as h
            join pg_class as c on c.relowner = h.relowner and c.relkind in ('r', 'p')
            join audit_private.attachment as a on a.target = c.oid
        where a.target <> undeclared_links.target and a.kind <> 'admin'
            and strpos(lower(replace(c.relname, '_', '')), h.stem) > 0
            and audit_private.is_named_as(h.attname, a.target)
        union
        -- Not attached: only in the same schema, and only by the exact name.
        select c.oid, null::text as kind, h.attname, h.attnotnull, h.atttypid
        from free as h
            join pg_class as c on c.relnamespace = h.relnamespace and c.relowner = h.relowner
                and c.relname = any (audit_private.tables_named(h.attname))
        where c.relkind in ('r', 'p') and c.oid <> h.oid
            and not exists (select from audit_private.attachment as a where a.target = c.oid)
    )
    select n.target, array[n.attname::text], key, n.attnotnull
    from named as n
        cross join audit_private.key_columns(n.target, n.kind) as key
        join pg_attribute as t on t.attrelid = n.target and array[t.attname::text] = key
    where audit_private.are_alike(t.atttypid, n.atttypid);
end;
comment on function audit_private.undeclared_links is
    'What a row refers to without a foreign key: '
    'table, columns on both sides, whether it is required';

create or replace function audit_private.links_of(target regclass)
returns table (relation regclass, here text[], there text[], is_needed boolean, is_part boolean)
language sql stable rows 4 set search_path = pg_catalog, pg_temp
begin atomic
    select c.confrelid, k.here, k.there, k.is_needed, k.is_needed or confdeltype = 'c'
    from pg_constraint as c
        cross join lateral (
            select array_agg(h.attname::text order by n) as here,
                array_agg(t.attname::text order by n) as there,
                bool_and(h.attnotnull) as is_needed
            from unnest(c.conkey, c.confkey) with ordinality as u (here, there, n)
                join pg_attribute as h on h.attrelid = c.conrelid and h.attnum = u.here
                join pg_attribute as t on t.attrelid = c.confrelid and t.attnum = u.there
        ) as k
    where c.contype = 'f' and c.conrelid = links_of.target and c.conparentid = 0
        and audit_private.have_one_owner(c.conrelid, c.confrelid)
    union all
    select u.relation, u.here, u.there, u.is_needed, u.is_needed
    from audit_private.undeclared_links(links_of.target) as u;
end;
comment on function audit_private.links_of is
    'What a row refers to: table, columns on both sides, whether it is required, '
    'and whether the row is part of it';

create or replace function audit_private.lookup(
    relation regclass, here text[], there text[], wanted text
) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return (
    select coalesce(
        min(format('r.%I', h)) filter (where wanted = format('r.%I', t)),
        format(E'(select p.found from (select %s, (%s\n) as found from %s as r) as p where %s)',
            string_agg(format('r.%I as key%s', t, n), ', ' order by n), wanted, relation,
            string_agg(format('p.key%s = r.%I', n, h), ' and ' order by n)))
    from unnest(here, there) with ordinality as u (h, t, n)
    where wanted is not null
    having count(*) > 0
);
comment on function audit_private.lookup is
    'Expression that evaluates another expression for the row that a row refers to';

-- Rejects columns whose foreign key leads to another table than that of users, if that is known:
-- ids of members, accounts and users look alike.
-- A key may be shared, as that of a profile with a user.
create or replace function audit_private.may_name_user(target regclass, attname text)
returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return not exists (
    select from pg_constraint as c
        join pg_attribute as h on h.attrelid = c.conrelid and array[h.attnum] = c.conkey
        left join audit_private.attachment as a on a.target = c.confrelid
    where c.contype = 'f' and c.conrelid = may_name_user.target
        and h.attname = may_name_user.attname
        and a.kind is distinct from 'user'
        and (a.kind is not null or exists (
            select from audit_private.attachment as u
            where u.kind = 'user' and audit_private.have_one_owner(u.target, c.conrelid)))
        and not exists (
            select from pg_constraint as k
                join audit_private.attachment as u on u.target = k.confrelid
            where k.contype = 'f' and k.conrelid = c.confrelid and k.conkey = c.confkey
                and u.kind = 'user'));
comment on function audit_private.may_name_user is
    'Whether a column may name a user: no foreign key says otherwise';

create or replace function audit_private.user_column(target regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
return coalesce((
    select attname
    from unnest(array['(user|owner|ownerusr|owneruser)(id|uuid)',
            '(member|person|profile|account)(id|uuid)', '(created|issued)(by|byid|byuserid)'])
        with ordinality as p (pattern, rank)
        cross join audit_private.columns_of(user_column.target) as u
    where flat ~ ('^' || pattern || '$')
        and audit_private.may_name_user(user_column.target, attname)
        -- If there is an owner_type beside owner_id,
        -- only the application knows what owner_id names.
        and not exists (
            select from audit_private.columns_of(user_column.target) as o
            where o.flat = regexp_replace(u.flat, '(id|uuid)$', 'type') and o.flat <> u.flat
                and o.category in ('S', 'E') and not exists (
                    select from pg_constraint as k join pg_attribute as h
                        on h.attrelid = k.conrelid and k.conkey = array[h.attnum]
                    where k.contype = 'f' and k.conrelid = user_column.target
                        and h.attname = u.attname))
    order by rank, attnum
    limit 1
), (
    -- Users may have another name, such as clerks:
    -- then the only foreign key to them, if required, tells the column.
    select min(h.attname::text)
    from pg_constraint as c
        join pg_attribute as h on h.attrelid = c.conrelid and array[h.attnum] = c.conkey
        join audit_private.attachment as a on a.target = c.confrelid
    where c.contype = 'f' and c.conrelid = user_column.target and c.conrelid <> c.confrelid
        and a.kind = 'user' and audit_private.have_one_owner(c.conrelid, c.confrelid)
    having count(*) = 1 and bool_and(h.attnotnull)
));
comment on function audit_private.user_column is
    'The column that names the user whom a row is about, or the user who made it';

create or replace function audit_private.first_of(ways text[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return (
    select case count(*) when 0 then null when 1 then min(way)
        else 'coalesce(' || string_agg('(' || way || ')::text', ', ' order by n) || ')' end
    from unnest(ways) with ordinality as w (way, n)
    where way is not null
);
comment on function audit_private.first_of is
    'Expression for the first of several expressions that is not null';

-- By a row that must exist: the workflow of a step, the member of a role.
create or replace function audit_private.parent_link(target regclass, kind text)
returns table (relation regclass, here text[], there text[], mapping jsonb)
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select l.relation, l.here, l.there, a.mapping
    from audit_private.links_of(parent_link.target) as l
        join audit_private.attachment as a on a.target = l.relation
    where l.is_part and a.kind = parent_link.kind and a.target <> parent_link.target
        and 'parent' = any ((audit_private.kind_of(a.kind)).options)
        and a.kind not in ('organization', 'user')
        -- A user in a group makes a membership, whatever else the row refers to.
        and not (a.kind = 'membership' and audit_private.user_column(parent_link.target) is not null
            and exists (
                select from audit_private.links_of(parent_link.target) as g
                    join pg_class as c on c.oid = g.relation
                    left join audit_private.attachment as o on o.target = g.relation
                where g.is_needed and g.relation <> l.relation
                    and coalesce(o.kind, '') not in ('organization', 'user')
                    and lower(c.relname) ~ (audit_private.words('group') || 's?$')))
    order by a.mapping ? 'parent', a.id
    limit 1;
end;
comment on function audit_private.parent_link is
    'The attached table of the same kind that the rows of a table are parts of';

create or replace function audit_private.named_organization(target regclass, is_known boolean)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return audit_private.name_of(target, audit_private.column_like(
    target, '(organi[sz]ation|org)(id|uuid)', case when not is_known
        then '(tenant|workspace|company|account|customer|team)(id|uuid)' end));
comment on function audit_private.named_organization is
    'The column named after an organisation; if their table is known, only organization_id and the '
    'like, not tenant_id, account_id and others';

-- A group of permissions, as in Django, is a role, not a group of people.
create or replace function audit_private.is_permission_set(relation regclass) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return (
    select lower(g.relname) ~ '(group|role|profile)s?$' and exists (
        select from pg_constraint as c join pg_class as p on p.oid = c.conrelid
        where c.contype = 'f' and c.confrelid = g.oid and p.relnatts <= 6
            and lower(p.relname) ~ 'permissions?$')
    from pg_class as g where g.oid = is_permission_set.relation
);
comment on function audit_private.is_permission_set is
    'Whether the rows of a table are sets of permissions, not groups that people belong to';

create or replace function audit_private.organization_way(
    target regclass,
    seen regclass[],
    kind text default null,
    out way text,
    out is_sure boolean
)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _a audit_private.attachment;
    _groups text[];
begin
    select * into _a from audit_private.attachment as a where a.target = organization_way.target;
    if seen <> '{}' and (_a.kind = 'organization' or _a.mapping -> 'given' ? 'organization') then
        way := _a.mapping ->> 'organization';
        is_sure := true;
        return;
    end if;
    select o.way, o.is_sure into way, is_sure
    from audit_private.own_organization(organization_way.target, seen) as o;
    -- The user of a row is the one it is about, whatever users are called.
    if (audit_private.kind_of(kind)).subject = 'column' and exists (
        select from audit_private.links_of(organization_way.target) as l
            join audit_private.attachment as a on a.target = l.relation
        where a.kind = 'user' and l.here = array[audit_private.user_column(
            organization_way.target)] and way = format('r.%I', l.here[1]))
    then
        way := null;
        is_sure := null;
    end if;
    if is_sure is not true and coalesce(kind, _a.kind) is distinct from 'user' then
        select array_agg(g.way order by n) filter (where n = 1 or not first_is_sure),
            coalesce(bool_or(g.is_sure), false)
        into _groups, is_sure
        from (
            select *, row_number() over () as n, first_value(g.is_sure) over () as first_is_sure
            from audit_private.group_organizations(organization_way.target, seen) as g
        ) as g;
        if not is_sure and seen = '{}'
            and coalesce(kind, '') not in ('membership', 'admin', 'organization')
        then
            _groups := audit_private.owned_organization(organization_way.target) || _groups;
        end if;
        way := audit_private.first_of(way || _groups);
    end if;
end
$$;
comment on function audit_private.organization_way is
    'The organisation of a row by its columns, otherwise by the rows that it is part of; and '
    'whether each row has one';

-- A team that belongs to something is part of it, whatever that is called.
create or replace function audit_private.above_group(target regclass, name text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case when count(*) = 1 then min(audit_private.lookup(l.relation, l.here, l.there,
        audit_private.name_of(l.relation, o.here[1]))) end
    from audit_private.links_of(above_group.target) as l
        join pg_class as c on c.oid = l.relation
        cross join audit_private.links_of(l.relation) as o
        join pg_class as above on above.oid = o.relation
        left join audit_private.attachment as a on a.target = o.relation
    where format('r.%I', l.here[1]) = above_group.name and cardinality(l.here) = 1
        and lower(c.relname) ~ (audit_private.words('nested') || 's?$')
        and o.is_needed and cardinality(o.here) = 1 and o.relation <> l.relation
        and coalesce(a.kind, '') not in ('user', 'membership')
        and o.here[1] <> coalesce(audit_private.user_column(l.relation), '')
        and lower(above.relname) !~ '(user|person|people|member|profile|role|permission|plan)s?$'
);
comment on function audit_private.above_group is
    'What the group in a column belongs to; null if it belongs to nothing';

create or replace function audit_private.own_organization(
    target regclass,
    seen regclass[],
    out way text,
    out is_sure boolean
)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _name text := audit_private.named_organization(own_organization.target, exists (
        select from audit_private.attachment as a
        where a.kind = 'organization'
            and audit_private.have_one_owner(a.target, own_organization.target)));
begin
    -- By a reference to the table of organisations: to the row's own one, not a parent or partner.
    select audit_private.lookup(l.relation, l.here, l.there, a.mapping ->> 'organization'),
        l.is_needed
    into way, is_sure
    from audit_private.links_of(own_organization.target) as l
        join audit_private.attachment as a on a.target = l.relation
    where a.kind = 'organization' and l.relation <> own_organization.target
        and audit_private.normal_name(l.here[1]) !~ '-(parent|source|invited|partner|billing)-'
        -- Rows that are only shared with an organisation name it, but do not belong to it.
        and (l.is_needed or format('r.%I', l.here[1]) = _name
            or audit_private.is_named_as(l.here[1]::name, l.relation)
            or audit_private.normal_name(l.here[1])
                ~ '^-((owner|owning)-)?[^-]+-(id-|uuid-|guid-)?$')
    order by format('r.%I', l.here[1]) = _name desc nulls last,
        audit_private.is_named_as(l.here[1]::name, l.relation) desc, l.is_needed desc, l.here
    limit 1;
    if way is null and not exists (
        select from audit_private.links_of(own_organization.target) as l
        where _name in (select format('r.%I', h) from unnest(l.here) as h)
            and (exists (
                -- If the table of organisations is known, a reference to another table names none.
                select from audit_private.attachment as a
                where a.kind = 'organization' and l.relation <> a.target and cardinality(l.here) = 1
                    and audit_private.have_one_owner(a.target, own_organization.target))
            or case when l.relation <> all (seen || own_organization.target) then
                (audit_private.organization_way(l.relation, seen || own_organization.target)).way
                end is not null)
    ) then
        way := coalesce(audit_private.above_group(own_organization.target, _name), _name);
        is_sure := exists (
            select from audit_private.columns_of(own_organization.target)
            where format('r.%I', attname) = _name and is_needed);
    end if;
end
$$;
comment on function audit_private.own_organization is
    'The organisation of a row by a column of its own, and whether each row has one';

create or replace function audit_private.group_organizations(target regclass, seen regclass[])
returns table (way text, is_sure boolean)
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select audit_private.lookup(l.relation, l.here, l.there, w.way), l.is_needed and w.is_sure
    from audit_private.links_of(group_organizations.target) as l
        join pg_class as c on c.oid = l.relation
        left join audit_private.attachment as a on a.target = l.relation
        cross join audit_private.organization_way(
            l.relation, seen || group_organizations.target) as w
    where l.relation <> all (seen || group_organizations.target) and cardinality(seen) < 2
        and coalesce(a.kind, '') not in ('user', 'organization')
        -- By a user only if there is no other way.
        and l.here <> array[coalesce(audit_private.user_column(group_organizations.target), '')]
        and (l.is_part or lower(c.relname) ~ (audit_private.words('group') || 's?$'))
        and not audit_private.is_permission_set(l.relation)
        -- The template of a row may belong to another organisation.
        and audit_private.normal_name(l.here[1]) || audit_private.normal_name(c.relname)
            !~ ('-(templates?|source|original?|forked|cloned|copied|based|catalog|catalogue|'
                'invited|partner|billing)-')
        and w.way is not null
    order by 2 desc, length(w.way), l.here
    limit 2;
end;
comment on function audit_private.group_organizations is
    'The organisation of a row by the rows that it is part of, the most certain way first';

create or replace function audit_private.members_of(users regclass) returns audit_private.attachment
language sql stable set search_path = pg_catalog, pg_temp
return (
    select a
    from audit_private.attachment as a
    where a.kind = 'membership' and not a.mapping ? 'parent' and a.target <> members_of.users
        and audit_private.have_one_owner(a.target, members_of.users)
    order by exists (
        select from audit_private.links_of(a.target) as l
            join audit_private.attachment as o on o.target = l.relation and o.kind = 'organization'
    ) desc, a.id
    limit 1
);
comment on function audit_private.members_of is
    'The table of memberships of users, preferring those in organisations to those in their parts';

-- Always the same one: active memberships first, then the oldest. An organisation that invites a
-- user is not told what the user does.
create or replace function audit_private.first_membership(users regclass) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _a audit_private.attachment := audit_private.members_of(users);
    _key text := audit_private.key_of(first_membership.users, 'user');
    _cast text;
begin
    if _a.id is null or _key is null then
        return null;
    end if;
    _cast := case when not exists (
        select from pg_attribute as m join pg_attribute as u on u.atttypid = m.atttypid
        where m.attrelid = _a.target and format('r.%I', m.attname) = _a.mapping ->> 'subject'
            and u.attrelid = first_membership.users and format('r.%I', u.attname) = _key
    ) then '::text' else '' end;
    return format(E'(select p.found from (select (%s)%s as subject, (%s\n) as found, '
        '(%s) is true as accepted, (%s) is true as counts, %s as made, %s as key from %s as r) '
        'as p where p.subject = %s%2$s and p.accepted '
        'order by p.counts desc, p.made, p.key limit 1)',
        _a.mapping ->> 'subject', _cast, _a.mapping ->> 'organization',
        coalesce(audit_private.accepted(_a.target), 'true'),
        coalesce(_a.mapping ->> 'alive', 'true'),
        coalesce('r.' || quote_ident(audit_private.column_like(_a.target, 'createdat', 'created',
            'joinedat')), 'null::timestamptz'),
        coalesce(audit_private.key_of(_a.target, 'membership'), 'null::text'),
        _a.target::regclass, _key);
end
$$;
comment on function audit_private.first_membership is
    'The organisation of a user by their memberships';

create or replace function audit_private.user_organization(target regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select audit_private.lookup(a.target, array[h.attname::text], key, a.mapping ->> 'organization')
    from audit_private.attachment as a
        cross join audit_private.key_columns(a.target, a.kind) as key
        join pg_attribute as h on h.attrelid = user_organization.target
            and h.attname = audit_private.user_column(user_organization.target)
        join pg_attribute as t on t.attrelid = a.target and array[t.attname::text] = key
            and audit_private.are_alike(t.atttypid, h.atttypid)
        cross join lateral (
            select exists (
                select from audit_private.links_of(user_organization.target) as l
                where l.relation = a.target and l.here = array[h.attname::text])) as f (is_linked)
    where a.kind = 'user' and audit_private.have_one_owner(a.target, user_organization.target)
        -- Columns such as owner, member or account may name anything.
        and (is_linked or lower(replace(h.attname, '_', ''))
            ~ '^(user|ownerusr|owneruser|(created|issued)by)')
    order by is_linked desc, a.id
    limit 1
);
comment on function audit_private.user_organization is
    'The organisation of the user whom a row is about';
