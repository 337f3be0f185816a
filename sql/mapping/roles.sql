-- Roles: where a row says what role it gives, and under which condition that makes an admin.
-- Each is an expression over the row r, or null where the table does not tell.

create or replace function audit_private.admin_labels(labels text[]) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
return (
    select coalesce(array_agg(label order by n), '{}')
    from unnest(labels) with ordinality as l (label, n)
    where audit_private.normal_name(label) ~ format('^-((%s|%s)-)*%2$ss?-$',
        audit_private.words('wide'), audit_private.words('admin'))
);
comment on function audit_private.admin_labels is
    'Labels of a role that make an admin or owner of the organisation, and not of a part of it';

create or replace function audit_private.are_roles(labels text[]) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return (
    select coalesce(bool_or(is_admin), false)
        and 2 * count(*) filter (
            where is_admin or name ~ ('-' || audit_private.words('role') || 's?-$')) >= count(*)
    from unnest(labels) as label
        cross join audit_private.normal_name(label) as name
        cross join lateral (
            select name ~ ('-' || audit_private.words('admin') || 's?-$')) as n (is_admin)
);
comment on function audit_private.are_roles is
    'Whether labels are roles: one of an admin, and as many known words as not';

create or replace function audit_private.any_admin(value text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return audit_private.one_of('lower(' || value || '::text)',
    '{owner,admin,administrator,superadmin,super_admin}');
comment on function audit_private.any_admin is
    'Condition that a role whose values are not known makes an admin or owner';

create or replace function audit_private.role_column(target regclass)
returns table (attname name, category "char", labels text[])
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select attname, category, l.labels
    from audit_private.columns_of(role_column.target)
        cross join audit_private.labels_of(target, attnum) as l (labels)
        cross join audit_private.are_roles(l.labels) as r (are_roles)
        cross join lateral (select flat ~ (audit_private.words('role_name') || '$')) as w (named)
    where category in ('E', 'S', 'N', 'A') and flat !~ '(id|ids|uuid)$'
        and audit_private.normal_name(attname) !~ ('-' || audit_private.words('no_role') || '-')
        and case category when 'N' then flat ~ '(roles?|level)$' when 'A' then flat ~ 'roles?$'
            else r.are_roles
                or named and (l.labels <> '{}' or flat ~ '(roles?|level|name|type)$') end
    order by r.are_roles desc, flat = 'role' desc, named desc, l.labels = '{}' desc, attnum
    limit 1;
end;
comment on function audit_private.role_column is
    'The column that holds a role, by its labels and its name';

create or replace function audit_private.role_flags(target regclass, out value text, out admin text)
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select 'case ' || string_agg(format('when r.%I then %L', attname, role), ' ' order by role desc)
            || ' else ''member'' end',
        '(' || string_agg(format('r.%I', attname), ' or ' order by role desc) || ') is true'
    from audit_private.columns_of(role_flags.target)
        cross join unnest('{owner,admin}'::text[]) as role
    where category = 'B' and flat ~ ('^(is)?' || role || '(istrator|user)?$');
end;
comment on function audit_private.role_flags is
    'The role that flags such as is_owner and is_admin make, and whether it makes an admin';

create or replace function audit_private.role_of(target regclass, out value text, out admin text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _c record;
    _flags record;
    _admins text[];
begin
    select * into _flags from audit_private.role_flags(role_of.target);
    select * into _c from audit_private.role_column(role_of.target);
    _admins := audit_private.admin_labels(_c.labels);
    if _flags.value is not null
        and (_c is null or _c.category = 'N' or _c.labels <> '{}' and _admins = '{}')
    then
        value := _flags.value;
        admin := _flags.admin;
    elsif _c.category = 'A' then
        value := format('array_to_string(r.%I::text[], '','')', _c.attname);
        admin := format('r.%I::text[] && %L', _c.attname, case when _admins <> '{}' then _admins
            else '{owner,admin,administrator,superadmin,super_admin}' end);
    elsif _c is not null then
        value := format('r.%I', _c.attname);
        admin := case
            when _admins <> '{}' then audit_private.one_of(value, _admins)
            when _c.labels <> '{}' or _c.category = 'N' then 'false'
            else audit_private.any_admin(value) end;
    end if;
end
$$;
comment on function audit_private.role_of is
    'The role that columns of a row say, and the condition under which it makes an admin';

-- A role that is a row elsewhere: of a table of roles, or of a group that has a role.
create or replace function audit_private.linked_role(
    target regclass,
    is_group boolean,
    out value text,
    out admin text
)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _link record;
    _name text;
begin
    for _link in
        select l.*, l.relation::text ~* 'roles?"?$' as is_role
        from audit_private.links_of(linked_role.target) as l
            left join audit_private.attachment as a on a.target = l.relation
        where l.relation <> linked_role.target and a.kind is null
    loop
        continue when not (_link.is_role or is_group);
        select r.value, r.admin into value, admin from audit_private.role_of(_link.relation) as r;
        _name := case when _link.is_role then audit_private.column_like(_link.relation,
            'name', 'key', 'slug', 'code', 'label', 'title', 'identifier', 'rolename') end;
        if value is null and _name is not null then
            value := format('r.%I', _name);
            admin := audit_private.any_admin(value);
        end if;
        value := audit_private.lookup(_link.relation, _link.here, _link.there, value);
        admin := audit_private.lookup(_link.relation, _link.here, _link.there, admin) || ' is true';
        exit when value is not null;
    end loop;
end
$$;
comment on function audit_private.linked_role is
    'The role of a row by a row of another table that it refers to, and whether it makes an admin';

create or replace function audit_private.given_role(target regclass, out value text, out admin text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    select r.value, r.admin into value, admin from audit_private.role_of(given_role.target) as r;
    if value is null and given_role.target::text ~* '(owner|admin|administrator)s?"?$' then
        value := quote_literal((regexp_match(lower(given_role.target::text),
            '(owner|admin|administrator)s?"?$'))[1]);
        admin := 'true';
    elsif value is null then
        select r.value, r.admin into value, admin
        from audit_private.linked_role(given_role.target, true) as r;
    end if;
end
$$;
comment on function audit_private.given_role is
    'The role that a row gives to the member it refers to: by a column, a group, its table''s name';

-- Rows that refer to a member and give roles: of a table of owners, or of groups that have roles.
create or replace function audit_private.carriers_of(target regclass, has_own boolean)
returns table (relation regclass, here name, there name, value text, admin text)
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select c.conrelid, h.attname, t.attname, r.value,
        -- Not while it is revoked, or only offered.
        concat_ws(' and ', '(' || coalesce(r.admin, 'false') || ')',
            audit_private.default_alive(c.conrelid, 'membership'),
            audit_private.accepted(c.conrelid))
    from pg_constraint as c
        join pg_attribute as h on h.attrelid = c.conrelid and array[h.attnum] = c.conkey
        join pg_attribute as t on t.attrelid = c.confrelid and array[t.attnum] = c.confkey
        join pg_class as k on k.oid = c.conrelid
        cross join audit_private.given_role(c.conrelid) as r
    where c.contype = 'f' and c.confrelid = carriers_of.target and c.conparentid = 0
        and c.conrelid <> c.confrelid and audit_private.have_one_owner(c.conrelid, c.confrelid)
        and r.value is not null
        and case when r.admin = 'true' then k.relnatts <= 8 else not has_own end
        and audit_private.normal_name(k.relname)
            !~ ('-' || audit_private.words('no_carrier') || 's?-')
        and audit_private.normal_name(k.relname) !~ '-(request|application|proposal|approval)s?-'
        -- A role in what else the row refers to, such as a board, is none in the organisation.
        and not exists (
            select from audit_private.links_of(c.conrelid) as l
                left join audit_private.attachment as a on a.target = l.relation
            where l.relation <> c.confrelid and l.relation <> c.conrelid
                and a.kind is distinct from 'organization' and a.kind is distinct from 'user'
                -- As yet they may not be attached: the member's row refers to them, too.
                and l.relation not in (
                    select m.relation from audit_private.links_of(c.confrelid) as m)
                and (audit_private.role_of(l.relation)).value is null
                and l.relation::text !~* 'roles?"?$')
        -- Members of a team, with roles in the team.
        and ((audit_private.role_of(c.conrelid)).value is null or not exists (
            select from audit_private.links_of(c.conrelid) as l
            where l.relation::text ~* '(team|project)s?"?$'
                and (audit_private.role_of(l.relation)).value is null))
    order by c.conrelid;
end;
comment on function audit_private.carriers_of is
    'Tables whose rows give roles to a member: to whom, which role, and whether it is an admin''s';

create or replace function audit_private.carried_role(
    target regclass,
    has_own boolean,
    out value text,
    out admin text
)
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select string_agg(format('(select string_agg(distinct p.role::text, '','') from (select r.%I '
            'as key, (%s) as role from %s as r) as p where p.key = r.%I)', here, c.value, relation,
            there), ' || '','' || '),
        string_agg(format('exists (select from (select r.%I as key, (%s) as admin from %s as r) '
            'as p where p.key = r.%I and p.admin)', here, c.admin, relation, there), ' or ')
    from audit_private.carriers_of(carried_role.target, has_own) as c;
end;
comment on function audit_private.carried_role is
    'The roles that rows of other tables give to a member, and whether one makes an admin';

-- The owner whom the organisation's own row names, in the same way as the member's does.
create or replace function audit_private.named_owner(
    target regclass, subject text, organization text
) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format('(%s)::text = (%s)::text',
        audit_private.lookup(l.relation, l.here, l.there, format('r.%I', owner)),
        named_owner.subject)
    from audit_private.links_of(named_owner.target) as l
        join audit_private.attachment as a on a.target = l.relation
        cross join audit_private.column_like(l.relation, 'owner(user)?(id|uuid)?') as owner
    where a.kind = 'organization' and owner is not null
        and audit_private.lookup(l.relation, l.here, l.there, a.mapping ->> 'organization')
            = named_owner.organization
        and audit_private.may_name_user(l.relation, owner)
        and not exists (
            select from audit_private.links_of(l.relation) as o
                join audit_private.links_of(named_owner.target) as m
                    on format('r.%I', m.here[1]) = named_owner.subject and cardinality(m.here) = 1
            where o.here = array[owner] and o.relation <> m.relation)
    order by l.here limit 1
);
comment on function audit_private.named_owner is
    'Condition that a member is the owner whom the row of the organisation names';
