-- Roles: where a row names the role that it gives, and the condition under which the role makes an
-- admin. Each function returns an expression over the row r, or null if the table does not tell.

create or replace function audit_private.admin_labels(labels text[]) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
return (
    select coalesce(array_agg(label order by n), '{}')
    from unnest(labels) with ordinality as l (label, n)
    where audit_private.normal_name(label) ~ format('^-((%s|%s)-)*%2$ss?-$',
        audit_private.words('wide'), audit_private.words('admin'))
);
comment on function audit_private.admin_labels is
    'Labels of a role that make an admin or owner of the whole organisation, not only of a part';

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
    'Whether labels are roles: one is that of an admin, and at least half of them are known words';

create or replace function audit_private.admin_names() returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
return cast('{owner,admin,administrator,superadmin,super_admin,org:owner,org:admin,global:owner,'
    'global:admin}' as text[]);
comment on function audit_private.admin_names is
    'Names of roles, in lower case, that make an admin or owner if there are no labels';

create or replace function audit_private.any_admin(value text, organization text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return audit_private.one_of('lower(' || value || '::text)', audit_private.admin_names()
    || array[organization || ':owner', organization || ':admin']);
comment on function audit_private.any_admin(text, text) is
    'Condition that the name of a role in another table makes an admin or owner';

-- The text may hold one role, or several with commas between them.
create or replace function audit_private.admin_among(value text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return format('string_to_array(translate(lower(%s::text), '' '', ''''), '','') && %L', value,
    audit_private.admin_names());
comment on function audit_private.admin_among is
    'Condition that one of the roles in a text, whose possible values are unknown, makes an admin';

-- Looks at the table of members, which must be no part itself, and at the table of roles.
create or replace function audit_private.in_no_part(target regclass, roles text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    -- The condition on the scope of the role already excludes roles in a part.
    select case when roles ~ '''root'', ''global''' then null
        when bool_or(is_needed) then 'false'
        else string_agg(format('r.%I is null', attname), ' and ' order by attnum) end
    from audit_private.columns_of(in_no_part.target)
    where category in ('N', 'S', 'U') and flat ~ ('^(project|board|folder|resource|environment|'
            || btrim(audit_private.words('nested'), '()') || ')(id|uuid|slug|name|key|type)?$')
        and not exists (
            select from audit_private.links_of(in_no_part.target) as l
                left join audit_private.attachment as a on a.target = l.relation
            where l.here = array[attname::text]
                and (a.kind = 'organization' or audit_private.is_permission_set(l.relation)))
);
comment on function audit_private.in_no_part is
    'Condition that the role of a row is not limited to a team, project or the like; null if none '
    'can be, false if every one is';

-- A role in a project is no role in the organisation.
create or replace function audit_private.role_scope(
    roles regclass, may_be_in_part boolean, organization text
) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select audit_private.one_of(format('lower(r.%I::text)', attname), cast(
        '{root,global,instance,organization,organisation,org,account,workspace,tenant,company}'
        as text[]) || case when not may_be_in_part
            then '{system,builtin,built_in,predefined,default,standard}'::text[] end
            || organization)
    from audit_private.columns_of(role_scope.roles)
    where category in ('E', 'S') and flat ~ '^(role)?(type|scope|scopetype|kind|context)$'
    order by flat ~ 'scope' desc, attnum limit 1
);
comment on function audit_private.role_scope is
    'Condition that a row of a table of roles is not limited to a part of an organisation';

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

-- A superuser belongs to the application, not to an organisation.
create or replace function audit_private.role_flags(
    target regclass,
    is_global boolean,
    out value text,
    out admin text
)
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select 'case ' || string_agg(format('when r.%I then %L', attname, role), ' ' order by role desc)
            || ' else ''member'' end',
        '(' || string_agg(format('r.%I', attname), ' or ' order by role desc) || ') is true'
    from audit_private.columns_of(role_flags.target)
        cross join unnest('{owner,admin}'::text[]) as role
    where category = 'B' and flat ~ case when role = 'admin' and is_global
        then '^(is|has)?(superuser|(super|global)?admin(istrator|user|access|rights)?)$'
        else '^(is)?(organi[sz]ation|org|account|workspace|company|tenant|business|scheme)?'
            || role || '(istrator|user)?$' end;
end;
comment on function audit_private.role_flags is
    'The role by flags such as is_owner and is_admin, and whether it makes an admin';

create or replace function audit_private.role_of(target regclass, out value text, out admin text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _c record;
    _flags record;
    _admins text[];
begin
    select * into _flags from audit_private.role_flags(role_of.target, false);
    select * into _c from audit_private.role_column(role_of.target);
    _admins := audit_private.admin_labels(_c.labels);
    if _flags.value is not null
        and (_c is null or _c.category = 'N' or _c.labels <> '{}' and _admins = '{}')
    then
        value := _flags.value;
        admin := _flags.admin;
    elsif _c.category = 'A' then
        value := format('array_to_string(r.%I::text[], '','')', _c.attname);
        admin := case
            when _admins <> '{}' then format('r.%I::text[] && %L', _c.attname, _admins)
            else audit_private.admin_among(value) end;
    elsif _c is not null then
        value := format('r.%I', _c.attname);
        admin := case
            when _admins <> '{}' then audit_private.one_of(value, _admins)
            when _c.labels <> '{}' or _c.category = 'N' then 'false'
            else concat_ws(' or ', audit_private.admin_among(value), _flags.admin) end;
    end if;
end
$$;
comment on function audit_private.role_of is
    'The role that the columns of a row give, and the condition under which it makes an admin';

create or replace function audit_private.organization_word(target regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select regexp_replace(lower(c.relname), 's$', '')
    from audit_private.links_of(organization_word.target) as l
        join audit_private.attachment as a on a.target = l.relation and a.kind = 'organization'
        join pg_class as c on c.oid = l.relation
    order by l.here limit 1
);
comment on function audit_private.organization_word is
    'The word for the organisation that a row refers to; names of roles may contain it';

-- The name of a row of a table of roles, and whether it makes an admin.
create or replace function audit_private.named_role(
    roles regclass,
    key text,
    may_be_in_part boolean,
    organization text,
    out value text,
    out admin text
)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _name text := case
        when lower(key) ~ '^(role)?_?(slug|name|key|code|identifier|role)$' then key
        else audit_private.column_like(named_role.roles, 'name', 'rolename', 'key', 'slug', 'code',
            'label', 'title', 'identifier') end;
    _flags record;
begin
    select r.value, r.admin into value, admin from audit_private.role_of(named_role.roles) as r;
    select * into _flags from audit_private.role_flags(named_role.roles, true);
    if _name is not null and (value is null or _flags.value is not null) then
        value := format('r.%I', _name);
        admin := coalesce(_flags.admin, audit_private.any_admin(value, organization));
    end if;
    if value is not null and admin <> 'false' then
        admin := concat_ws(' and ', admin,
            audit_private.role_scope(named_role.roles, may_be_in_part, organization),
            audit_private.in_no_part(named_role.roles, ''));
    end if;
end
$$;
comment on function audit_private.named_role is
    'The name of a row of a table of roles, and whether it makes an admin';

-- A role that is a row of another table: of a table of roles, or of a group that has a role.
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
begin
    for _link in
        select l.*, l.relation::text ~* 'roles?"?$'
            or audit_private.is_permission_set(l.relation) as is_role
        from audit_private.links_of(linked_role.target) as l
            left join audit_private.attachment as a on a.target = l.relation
        where l.relation <> linked_role.target and a.kind is null
            and audit_private.normal_name(l.here[1])
                !~ ('-' || audit_private.words('no_role') || '-')
    loop
        continue when not (_link.is_role or is_group);
        if _link.is_role then
            select r.value, r.admin into value, admin
            from audit_private.named_role(_link.relation, _link.there[1],
                audit_private.in_no_part(target, '') is not null,
                audit_private.organization_word(target)) as r;
        else
            select r.value, r.admin into value, admin
            from audit_private.role_of(_link.relation) as r;
        end if;
        value := audit_private.lookup(_link.relation, _link.here, _link.there, value);
        admin := audit_private.lookup(_link.relation, _link.here, _link.there, admin) || ' is true';
        exit when value is not null;
    end loop;
end
$$;
comment on function audit_private.linked_role is
    'The role of a row by a row of another table that it refers to, and whether it makes an admin';

-- Roles have policies, and users have policies of their own: a flag of a policy makes an admin.
create or replace function audit_private.policy_admin(target regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select string_agg(format('exists (select from (select r.%I as key, (%s) is true as admin '
            'from %s as r) as p where p.key = r.%I and p.admin)', h.attname,
            concat_ws(' and ', audit_private.lookup(l.relation, l.here, l.there, f.admin),
                audit_private.default_alive(c.conrelid, 'membership'),
                audit_private.unexpired(c.conrelid)), c.conrelid::regclass,
            coalesce(m.here, t.attname::text)),
        ' or ' order by m.here is null desc, c.oid)
    from pg_constraint as c
        join pg_attribute as h on h.attrelid = c.conrelid and array[h.attnum] = c.conkey
        join pg_attribute as t on t.attrelid = c.confrelid and array[t.attnum] = c.confkey
        cross join audit_private.links_of(c.conrelid) as l
        cross join audit_private.role_flags(l.relation, true) as f
        left join (
            select r.relation, r.here[1], r.there[1]
            from audit_private.links_of(policy_admin.target) as r
            where cardinality(r.here) = 1 and r.relation::text ~* 'roles?"?$'
        ) as m (relation, here, there) on m.relation = c.confrelid and m.there = t.attname
    where c.contype = 'f' and c.conparentid = 0 and cardinality(l.here) = 1
        and audit_private.have_one_owner(c.conrelid, policy_admin.target)
        and l.relation::text ~* '(polic(y|ies)|permission_?sets?)"?$' and f.admin is not null
        and (c.confrelid = policy_admin.target or m.here is not null)
);
comment on function audit_private.policy_admin is
    'Condition that a policy of a user, or of the user''s role, makes an admin';

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
    'The role that a row gives to its member: by a column, a group, or the name of the table';

-- By a foreign key; without one, by a column that is named after the table.
create or replace function audit_private.referring_tables(target regclass)
returns table (relation regclass, here name, there name)
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select c.conrelid, h.attname, t.attname
    from pg_constraint as c
        cross join unnest(c.conkey, c.confkey) as u (here, there)
        join pg_attribute as h on h.attrelid = c.conrelid and h.attnum = u.here
        join pg_attribute as t on t.attrelid = c.confrelid and t.attnum = u.there
    where c.contype = 'f' and c.confrelid = referring_tables.target and c.conparentid = 0
        -- A foreign key of one column, or of several with the key of the table among them.
        and (cardinality(c.conkey) = 1 or array[t.attname::text] = audit_private.key_columns(
            referring_tables.target))
        and c.conrelid <> c.confrelid and audit_private.have_one_owner(c.conrelid, c.confrelid)
    union all
    select c.oid, h.attname, t.attname
    from pg_class as k
        cross join audit_private.key_columns(k.oid) as key
        join pg_attribute as t on t.attrelid = k.oid and array[t.attname::text] = key
        join pg_class as c on c.relnamespace = k.relnamespace and c.relowner = k.relowner
        join pg_attribute as h on h.attrelid = c.oid
            and audit_private.are_alike(h.atttypid, t.atttypid)
    where k.oid = referring_tables.target and c.relkind in ('r', 'p') and c.oid <> k.oid
        and h.attnum > 0 and lower(left(h.attname, 3)) = lower(left(k.relname, 3))
        and k.relname = any (audit_private.tables_named(h.attname))
        and not exists (
            select from pg_constraint as f
            where f.contype = 'f' and f.conrelid = c.oid and h.attnum = any (f.conkey));
end;
comment on function audit_private.referring_tables is
    'Tables whose rows refer to a row of a table, by one column';

-- Rows that refer to a member and give roles: in a table of owners, or of groups that have roles.
create or replace function audit_private.carriers_of(target regclass, has_own boolean)
returns table (relation regclass, here name, there name, value text, admin text)
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select c.relation, c.here, c.there, r.value,
        -- A revoked or merely offered role does not count.
        concat_ws(' and ', '(' || coalesce(r.admin, 'false') || ')',
            audit_private.default_alive(c.relation, 'membership'),
            audit_private.accepted(c.relation), audit_private.unexpired(c.relation))
    from audit_private.referring_tables(carriers_of.target) as c
        join pg_class as k on k.oid = c.relation
        cross join audit_private.given_role(c.relation) as r
    where r.value is not null
        and case when r.admin = 'true' then k.relnatts <= 8 else not has_own end
        and audit_private.normal_name(k.relname)
            !~ ('-' || audit_private.words('no_carrier') || 's?-')
        and audit_private.normal_name(k.relname) !~ '-(request|application|proposal|approval)s?-'
        -- A role in something else that the row refers to, such as a board,
        -- is no role in the organisation.
        and not exists (
            select from audit_private.links_of(c.relation) as l
                left join audit_private.attachment as a on a.target = l.relation
            where l.relation <> carriers_of.target and l.relation <> c.relation
                and a.kind is distinct from 'organization' and a.kind is distinct from 'user'
                -- These may not be attached yet: the member's row refers to them, too.
                and l.relation not in (
                    select m.relation from audit_private.links_of(carriers_of.target) as m)
                and (audit_private.role_of(l.relation)).value is null
                and l.relation::text !~* 'roles?"?$')
        -- Excludes the members of a team, who have roles in the team.
        and ((audit_private.role_of(c.relation)).value is null or not exists (
            select from audit_private.links_of(c.relation) as l
            where l.relation::text ~* '(team|project)s?"?$'
                and (audit_private.role_of(l.relation)).value is null))
    order by c.relation;
end;
comment on function audit_private.carriers_of is
    'Tables whose rows give roles to a member: '
    'by which columns, which role, and whether it makes an admin';

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
    'The roles that rows of other tables give to a member, and whether one of them makes an admin';

-- The owner that the row of the organisation names must be found by the same key as the member.
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
    'Condition that the row of the organisation names the member as owner';

-- The first words are those of audit_private.words('wide'), which readers may not call.
-- A number names no role.
create or replace function audit_private.names_owner(role text) returns boolean
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
return exists (
    select from unnest(string_to_array(translate(role, '[]{}"', ''), ',')) as part
    where audit_private.normal_name(part)
        ~ ('^-+((organi[sz]ation|org|account|workspace|company|tenant|business|super|primary|'
            'system|full|global|co|site|head|role|main)-+)*(co)?owners?-+$'));
comment on function audit_private.names_owner is
    'Whether the text of one role or several names the owner of an organisation';

create or replace function audit_private.gives_owner(image jsonb) returns boolean
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
return exists (
    select from jsonb_each_text(image) as v
        cross join lateral lower(replace(v.key, '_', '')) as k (name)
    where k.name ~ 'roles?(name|slug|key|code|type)?$' and audit_private.names_owner(v.value)
        or k.name ~ '^is(account|org|organi[sz]ation|team|workspace)?owner$' and v.value = 'true');
comment on function audit_private.gives_owner is
    'Whether the values of a membership make its member an owner';
