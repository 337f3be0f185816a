-- Mapping: from the options of audit.attach to one SQL expression over the row r for each part of
-- an event. The shape of the table supplies options that are not given.

-- PostgreSQL computes virtual columns when they are read: in a trigger they are null.
create or replace function audit_private.check_generated(target regclass, given jsonb) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _option text;
    _column text;
begin
    select key, attname into _option, _column
    from jsonb_each_text(check_generated.given)
        join pg_attribute on attrelid = check_generated.target and attgenerated = 'v'
            and audit_private.over_row(check_generated.target, value) = 'r.' || quote_ident(attname)
    where key <> 'admin' limit 1;
    if found then
        raise exception 'option "%" names column "%" of %, which is computed when it is read',
                _option, _column, check_generated.target
            using errcode = 'invalid_parameter_value',
                hint = 'Give the expression that it is computed from, over the row r.';
    end if;
end
$$;
comment on function audit_private.check_generated is
    'Raises if an option names a virtual column, which no trigger sees';

create or replace function audit_private.check_options(target regclass, kind text, given jsonb)
returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _option text;
    _column text;
    _options text[] := (audit_private.kind_of(check_options.kind)).options;
begin
    perform audit_private.check_kind_name(check_options.kind);
    perform audit_private.check_generated(target, given);
    for _option in select jsonb_object_keys(check_options.given) loop
        if _option <> all (_options) then
            raise exception 'kind "%" has no option "%"', check_options.kind, _option
                using errcode = 'invalid_parameter_value',
                    hint = format('Its options are %s; %s is an option of %s.',
                        array_to_string(_options, ', '), _option, (
                            select coalesce(string_agg(k.name, ', ' order by k.name), 'no kind')
                            from audit.kind as k where _option = any (k.options)));
        end if;
        continue when _option not in ('ignore', 'redact');
        for _column in select jsonb_array_elements_text(check_options.given -> _option) loop
            if not exists (
                select from pg_attribute
                where attrelid = check_options.target and attnum > 0 and not attisdropped
                    and _column in (attname, '-' || attname)
            ) then
                raise exception 'option "%" names column "%", which % does not have',
                        _option, _column, check_options.target
                    using errcode = 'undefined_column',
                        hint = 'Name a column of the table, without quotes; ''{-note}'' removes '
                            'one that is ignored or redacted by default.';
            end if;
        end loop;
    end loop;
end
$$;
comment on function audit_private.check_options is
    'Raises if a kind or an option is invalid';

-- If a row is part of another one, the mapping of that one supplies what is not given.
create or replace function audit_private.given_parts(target regclass, kind text, given jsonb)
returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _parts jsonb := jsonb_strip_nulls(jsonb_build_object(
        'parent', audit_private.name_of(target, given ->> 'parent'),
        'organization', audit_private.name_of(target, given ->> 'organization'),
        'subject', audit_private.name_of(target, given ->> 'subject'),
        'target_id', audit_private.name_of(target, given ->> 'target_id'),
        'role', audit_private.over_row(target, given ->> 'role'),
        'alive', audit_private.over_row(target, given ->> 'alive'),
        'admin', audit_private.over_row(target, given ->> 'admin')));
    _link record;
begin
    select * into _link from audit_private.parent_link(target, kind) as l
    where case when given ? 'parent'
            then cardinality(l.here) = 1 and _parts ->> 'parent' = format('r.%I', l.here[1])
            -- If one of these was given, the table stands for itself, not for a part.
            else not given ?| '{organization,target_id,subject,role,admin}' end;
    if _link is not null then
        _parts := jsonb_strip_nulls(jsonb_build_object(
            'parent', audit_private.lookup(_link.relation, _link.here, _link.there,
                coalesce(_link.mapping ->> 'parent', _link.mapping ->> 'target_id')),
            'organization', audit_private.lookup(_link.relation, _link.here, _link.there,
                _link.mapping ->> 'organization'),
            'subject', audit_private.lookup(
                _link.relation, _link.here, _link.there, _link.mapping ->> 'subject')))
            || _parts;
    end if;
    return _parts;
end
$$;
comment on function audit_private.given_parts is
    'Options as expressions over the row r, completed by the mapping of the row''s parent';

create or replace function audit_private.default_organization(
    target regclass, kind text, parent text
) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _way record;
    _found text := case when parent is not null
        then audit_private.parent_organization(target, kind, parent) end;
begin
    if _found is not null then
        return _found;
    elsif parent is not null and exists (
        select from audit_private.attachment as a
        where a.kind = default_organization.kind and a.target <> default_organization.target
            and not a.mapping ? 'parent'
    ) then
        raise exception 'the tables attached as % belong to another role than %', kind, target
            using errcode = 'insufficient_privilege',
                hint = 'A mapping of another role cannot be used. Give the organisation yourself: '
                    'organization => ''select ... where ... = r....''.';
    elsif kind = 'organization' then
        return audit_private.own_key(target);
    end if;
    select * into _way from audit_private.organization_way(target, '{}', kind) as w;
    return coalesce(audit_private.first_of(array[_way.way, case
        when _way.is_sure or kind = 'admin' then null
        when kind = 'user' then audit_private.first_membership(target)
        when kind = 'membership' then
            case when _way.way is null then audit_private.users_own_organization(target) end
        else coalesce(audit_private.user_organization(target), case when _way.way is null
            then audit_private.referred_part(target, 'organization') end) end]), (
            -- Not the ids of a customer, an account or a team,
            -- which look like ids of organisations.
            select audit_private.name_of(target, name)
            from audit_private.column_like(target, '(tenant|workspace)(id|uuid)') as name
            where not exists (
                select from audit_private.links_of(target) as l where name = any (l.here))));
end
$$;
comment on function audit_private.default_organization is
    'The organisation of a row: that of its parent, otherwise its own, otherwise that of its user';

-- For a row that revokes a token, or belongs to one.
create or replace function audit_private.referred_part(target regclass, part text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select audit_private.lookup(l.relation, l.here, l.there, a.mapping ->> part)
    from audit_private.links_of(referred_part.target) as l
        join audit_private.attachment as a on a.target = l.relation
    where l.is_needed and l.relation <> referred_part.target and a.mapping ? part
        and a.kind not in ('user', 'organization', 'admin')
    order by a.id limit 1
);
comment on function audit_private.referred_part is
    'What the mapping of an attached table says about the row that each row refers to';

-- If each user belongs to one organisation, a role of a user is a role in it.
create or replace function audit_private.users_own_organization(target regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select audit_private.user_organization(users_own_organization.target)
    from audit_private.attachment as a
        join audit_private.links_of(users_own_organization.target) as l on l.relation = a.target
    where a.kind = 'user'
        and l.here = array[audit_private.user_column(users_own_organization.target)]
        and a.mapping ->> 'organization' = (audit_private.own_organization(a.target, '{}')).way
    limit 1
);
comment on function audit_private.users_own_organization is
    'The organisation of the user whom a row is about, if the user''s row names it';

create or replace function audit_private.own_key(target regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    -- A team with a parent is a part of it.
    select coalesce('coalesce(r.' || quote_ident(min(l.here[1])) || ', ' || key || ')', key)
    from audit_private.key_of(target, 'organization') as key
        left join audit_private.links_of(target) as l
            on l.relation = target and cardinality(l.here) = 1
            and l.there = audit_private.key_columns(target, 'organization')
            and lower(target::text) ~ (audit_private.words('nested') || 's?"?$')
    group by key
);
comment on function audit_private.own_key is
    'The organisation of a row in the table of organisations: itself, or the one it is a part of';

create or replace function audit_private.default_subject(target regclass, kind text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _subject text := audit_private.name_of(target, audit_private.user_column(target));
begin
    if _subject is null and kind = 'membership' then
        -- A member of a team may be a member of the organisation first.
        select audit_private.lookup(l.relation, l.here, l.there, a.mapping ->> 'subject')
        into _subject
        from audit_private.links_of(target) as l
            join audit_private.attachment as a on a.target = l.relation
        where a.kind = 'membership' and l.relation <> default_subject.target
        order by a.id limit 1;
    elsif _subject is null then
        _subject := audit_private.referred_part(target, 'subject');
    end if;
    return _subject;
end
$$;
comment on function audit_private.default_subject is
    'The user whom a row is about, by a column, otherwise by the member that it refers to';

create or replace function audit_private.default_role(
    target regclass,
    kind text,
    is_global boolean,
    out value text,
    out admin text
)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _more record;
    _column text := audit_private.column_like(target, 'role(name|id)');
begin
    select r.value, r.admin into value, admin from audit_private.role_of(target) as r;
    -- A reference to a table of roles is looked up there.
    if value is null or exists (
        select from audit_private.links_of(target) as l
        where cardinality(l.here) = 1 and format('r.%I', l.here[1]) = value)
    then
        select r.value, r.admin into _more from audit_private.linked_role(target, false) as r;
        value := coalesce(_more.value, value);
        admin := case when _more.value is not null then _more.admin else admin end;
    end if;
    if value is null and is_global then
        select r.value, r.admin into value, admin
        from audit_private.role_flags(target, true) as r;
    end if;
    if value is null and _column is not null then
        value := 'r.' || quote_ident(_column);
        admin := audit_private.admin_among(value);
    end if;
    if kind = 'membership' then
        select * into _more from audit_private.carried_role(target, value is not null);
        value := coalesce(value, _more.value);
        admin := concat_ws(' or ', admin, _more.admin);
    elsif is_global then
        admin := concat_ws(' or ', admin, audit_private.policy_admin(target));
    end if;
end
$$;
comment on function audit_private.default_role is
    'The role of a member, in its row or in another one, and whether it makes an admin';

-- True in an application with only one organisation.
create or replace function audit_private.is_constant(expression text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return coalesce(is_constant.expression ~ '^''([^'']|'''')*''(::text)?$', false);
comment on function audit_private.is_constant is
    'Whether an expression is a constant, the same for every row';

create or replace function audit_private.with_role(
    target regclass,
    kind text,
    given jsonb,
    parts jsonb
) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _role record;
begin
    if kind = 'admin' then
        return parts || '{"admin": "true"}';
    elsif kind = 'membership' and parts ? 'parent' then
        select * into _role from audit_private.given_role(target);
        -- A row that does not count gives no role.
        return jsonb_strip_nulls(jsonb_build_object('role', coalesce('case when ' || coalesce(
            parts ->> 'alive', audit_private.default_alive(target, kind)) || ' then '
            || _role.value || ' end', _role.value))) || parts;
    elsif kind = 'membership'
        or kind = 'user' and not parts ?| '{admin,role}'
            and audit_private.is_membership(target, parts)
    then
        select * into _role from audit_private.default_role(
            target, kind, audit_private.is_constant(parts ->> 'organization'));
        return jsonb_strip_nulls(jsonb_build_object(
            'role', _role.value,
            'admin', audit_private.default_admin(target,
                case when parts ? 'role'
                    then audit_private.admin_among('(' || (parts ->> 'role') || ')')
                    else _role.admin end,
                parts, given ? 'organization'))) || parts;
    end if;
    return parts;
end
$$;
comment on function audit_private.with_role is
    'Parts of a mapping, completed by the role of a row and whether it makes an admin';

-- For databases in which no table of memberships says who may read.
create or replace function audit_private.is_membership(target regclass, parts jsonb) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select (r.value is not null or r.admin <> '')
        and not exists (
            select from audit_private.attachment as a
            where a.kind = 'membership'
                and audit_private.have_one_owner(a.target, is_membership.target))
        and (is_global or (audit_private.own_organization(target, '{}')).way
                = parts ->> 'organization'
            and not exists (
                select from pg_constraint as u join pg_constraint as o on o.conrelid = u.conrelid
                    join audit_private.links_of(is_membership.target) as l
                        on l.relation = o.confrelid
                where u.contype = 'f' and o.contype = 'f' and u.confrelid = is_membership.target
                    and o.conrelid <> o.confrelid and l.relation::text !~* 'roles?"?$'
                    -- An invitation names its sender.
                    and audit_private.normal_name((
                        select relname from pg_class where oid = o.conrelid))
                        !~ ('-' || audit_private.words('no_carrier') || 's?-')))
    from audit_private.is_constant(parts ->> 'organization') as is_global
        cross join audit_private.default_role(target, 'user', is_global) as r;
end;
comment on function audit_private.is_membership is
    'Whether the row of a user is the only one that gives the organisation '
    'and the role of the user';

-- Excludes members who are only invited or suspended, and members of a part of the organisation.
create or replace function audit_private.admin_conditions(
    target regclass, roles text, organization text, is_users_own boolean
) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when roles <> '' then concat_ws(' and ',
    case when roles like '% or %' then '(' || roles || ')' else roles end,
    audit_private.accepted(target), audit_private.unexpired(target),
    case when is_users_own or audit_private.is_constant(organization)
        then audit_private.in_no_part(target, roles) end) end;
comment on function audit_private.admin_conditions is
    'Condition that a role makes an admin, and the row is in force; null if no role does';

create or replace function audit_private.default_admin(
    target regclass,
    roles text,
    parts jsonb,
    is_given boolean
) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _organization text := parts ->> 'organization';
    _is_users_own boolean := coalesce(
        _organization = audit_private.users_own_organization(target), false);
    _conditions text := audit_private.admin_conditions(
        target, roles, _organization, _is_users_own);
    _owner text := audit_private.named_owner(target, parts ->> 'subject',
        parts ->> 'organization');
    _group text;
begin
    -- Members of a part of an organisation are no admins of the organisation.
    if _organization ~ '^(coalesce[(].*)?[(]+select' and not is_given and not _is_users_own then
        select format('r.%I', l.here[1]) into _group
        from audit_private.links_of(target) as l
            join audit_private.attachment as a on a.target = l.relation
        where a.kind = 'organization' order by l.here limit 1;
        _conditions := case when _group is not null then concat_ws(' and ', nullif(_conditions, ''),
            format('(%s)::text = %s::text', _organization, _group)) else 'false' end;
    -- Members of a group are no admins either, if different rows name different groups.
    elsif not is_given and exists (
        select from audit_private.links_of(target) as l
            left join audit_private.attachment as a on a.target = l.relation
            join pg_class as c on c.oid = l.relation
            join pg_attribute as h on h.attrelid = default_admin.target
                and array[h.attname::text] = l.here
            join pg_index as i on i.indrelid = h.attrelid and i.indisunique
                and h.attnum = any (i.indkey)
        where l.is_needed and coalesce(a.kind, '') not in ('organization', 'user', 'membership')
            and lower(c.relname) ~ (audit_private.words('group') || 's?$')
            and exists (
                select from audit_private.links_of(l.relation) as g
                    join audit_private.attachment as o on o.target = g.relation
                where o.kind = 'organization')
    ) then
        _conditions := 'false';
    elsif _owner is not null then
        _conditions := concat_ws(' or ', '(' || nullif(_conditions, '') || ')', _owner);
    end if;
    return coalesce(nullif(_conditions, ''), 'false');
end
$$;
comment on function audit_private.default_admin is
    'Expression for the admins among members: by their role, unless only invited or suspended';

-- A generated column changes only with others. If failures are counted beside a lockout time, a
-- program sets that time; otherwise a person may have locked the user out.
create or replace function audit_private.default_ignore(target regclass, kind text, parts jsonb)
returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return (
        select coalesce(jsonb_agg(c.attname order by c.attnum), '[]')
        from audit_private.columns_of(default_ignore.target) as c
            join pg_attribute as a on a.attrelid = default_ignore.target and a.attnum = c.attnum
        where flat ~ ('^' || audit_private.words('touched') || '$')
            or a.atttypid = 'tsvector'::regtype
            -- A column that makes a fact is never ignored.
            or a.attgenerated = 's' and not coalesce(jsonb_path_query_array(
                default_ignore.parts, '$.facts[*].column') ? c.attname::text, false)
            or flat ~ ('^' || audit_private.words('throttled') || '$') and exists (
                select from audit_private.columns_of(default_ignore.target) as f
                where f.category = 'N' and f.flat ~ ('^' || audit_private.words('failures') || '$'))
            or category = 'N' and flat ~ ('^' || audit_private.words('counted') || '$')
            -- A count of the rows of another table.
            or category = 'N' and flat ~ '.count$' and exists (
                select from pg_class as own join pg_class as other
                    on other.relnamespace = own.relnamespace and other.relkind in ('r', 'p')
                where own.oid = default_ignore.target
                    and audit_private.is_named_as(left(flat, -5) || 'id', other.oid))
            -- In a table of passwords, only a change of the password counts.
            or default_ignore.kind = 'password'
                and c.attname <> all (audit_private.secret_columns(target, kind))
                and format('r.%I', c.attname) is distinct from parts ->> 'subject'
                and c.attname <> all (coalesce(audit_private.key_columns(target, kind), '{}'))
    );
end
$$;
comment on function audit_private.default_ignore is
    'Columns whose change alone makes no event: times of use, counters, derived columns';

create or replace function audit_private.ignored_columns(
    target regclass, kind text, parts jsonb, given jsonb
) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    select jsonb_agg(attname order by attnum)
    from pg_attribute cross join audit_private.default_ignore(target, kind, parts) as usual
    where attrelid = ignored_columns.target and attnum > 0 and not attisdropped
        and (given -> 'ignore' ? attname::text or usual ? attname::text
            and not coalesce(given -> 'ignore' ? ('-' || attname), false))
);
comment on function audit_private.ignored_columns is
    'Columns whose change alone makes no event: those given, and defaults that were not excepted';

create or replace function audit_private.redacted_columns(target regclass, kind text, given jsonb)
returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    select jsonb_agg(attname order by attnum)
    from pg_attribute cross join audit_private.secret_columns(target, kind) as secrets
    where attrelid = target and attnum > 0 and not attisdropped
        and (given -> 'redact' ? attname or given ->> 'token' in (attname, quote_ident(attname))
            or attname = any (secrets)
            and not coalesce(given -> 'redact' ? ('-' || attname), false))
);
comment on function audit_private.redacted_columns(regclass, text, jsonb) is
    'Columns whose changes are recorded, but never their values';

create or replace function audit_private.resolve_mapping(target regclass, kind text, given jsonb)
returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _kind audit.kind := audit_private.kind_of(kind);
    _parts jsonb;
    _key text := audit_private.key_of(target, kind);
begin
    perform audit_private.check_options(target, kind, given);
    _parts := audit_private.given_parts(target, kind, given);
    if not _parts ? 'organization' then
        _parts := _parts || jsonb_strip_nulls(jsonb_build_object('organization',
            case when kind = 'organization' and given ? 'target_id' then _parts ->> 'target_id'
            else audit_private.default_organization(target, kind, _parts ->> 'parent') end));
    end if;
    if _kind.subject = 'column' then
        _parts := jsonb_strip_nulls(
            jsonb_build_object('subject', audit_private.default_subject(target, kind))) || _parts;
    end if;
    _parts := audit_private.with_role(target, kind, given, _parts);
    _parts := jsonb_strip_nulls(jsonb_build_object(
        'alive', audit_private.default_alive(target, kind),
        'target_id', coalesce(_parts ->> 'parent',
            case when _kind.target = 'subject' then _parts ->> 'subject' end, _key))) || _parts;
    if _parts ? 'admin' and not (_parts ? 'organization'
        and (_parts ? 'subject' or _kind.subject = 'row'))
    then
        raise exception '% has no column that tells the % of a %', target,
                case when not _parts ? 'organization' then 'organisation' else 'user' end, kind
            using errcode = 'invalid_parameter_value',
                hint = format('Give it: %s => ''a column or an expression over the row r''; or '
                    'attach what it refers to first, in the order of auditdb detect.',
                    case when not _parts ? 'organization' then 'organization' else 'subject' end);
    end if;
    return audit_private.finish_mapping(target, kind, given, _parts);
end
$$;
comment on function audit_private.resolve_mapping is
    'The mapping of a table: the given options, completed from its columns and keys';

-- A member of a team is not a member of the organisation: events name the team.
create or replace function audit_private.group_of(target regclass, parts jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    select jsonb_strip_nulls(jsonb_build_object(
        'group_id', audit_private.name_of(group_of.target, l.here[1]),
        'group_type', case when a.kind is not null and is_nested is not true
            then (audit_private.kind_of(a.kind)).target_type
            else regexp_replace(regexp_replace(lower(c.relname), 'ies$', 'y'), '(?<=[^s])s$', '')
        end,
        'group_is_nested', case when is_nested then true end))
    from audit_private.links_of(group_of.target) as l
        join pg_class as c on c.oid = l.relation
        left join audit_private.attachment as a on a.target = l.relation
        -- If groups contain groups, the outermost ones are the organisations.
        cross join lateral (
            select coalesce(a.kind, '') = 'organization' or bool_or(c.confrelid = c.conrelid)
                and not bool_or(o.kind = 'organization' and c.confrelid <> c.conrelid)
            from pg_constraint as c
                left join audit_private.attachment as o on o.target = c.confrelid
            where c.conrelid = l.relation and c.contype = 'f'
        ) as n (is_nested)
        cross join format('r.%I', l.here[1]) as named
    where cardinality(l.here) = 1 and l.relation <> group_of.target
        and coalesce(a.kind, '') not in ('user', 'membership')
        and not audit_private.is_permission_set(l.relation)
        and named not in (
            coalesce(parts ->> 'organization', ''), coalesce(parts ->> 'subject', ''))
        and (strpos(parts ->> 'organization', named) > 0
                and strpos(parts ->> 'organization', l.relation::text) > 0
            or is_nested is not true and l.is_needed
                and lower(c.relname) ~ (audit_private.words('group') || 's?$')
                and exists (
                    select from pg_index join pg_attribute on attrelid = indrelid
                        and attnum = any (indkey)
                    where indrelid = group_of.target and indisunique and attname = l.here[1]))
    order by l.here limit 1
);
comment on function audit_private.group_of is
    'The group within an organisation that the rows of a table make their users members of, as '
    'parts of a mapping';

create or replace function audit_private.mapped_verbs(kind text, parts jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return audit_private.verbs_of(audit_private.kind_of(kind)) || case
    -- A row that gives a member a role: an insert or a delete changes the member's role.
    when kind = 'membership' and parts ? 'parent' and parts ? 'role'
        then '{"changed": "membership.role_changed"}'
    -- A user whose row gives the organisation and the role: the row is the membership.
    when kind = 'user' and parts ? 'role'
        then audit_private.verbs_of(audit_private.kind_of('membership'))
            || '{"changed": "user.updated", "purged": "user.purged"}'
    else '{}' end::jsonb;
comment on function audit_private.mapped_verbs is
    'The actions of the rows of a table: those of its kind, or of the role that a row gives';

create or replace function audit_private.finish_mapping(
    target regclass,
    kind text,
    given jsonb,
    parts jsonb
) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _kind audit.kind := audit_private.kind_of(kind);
    _key text := audit_private.key_of(target, kind);
    _facts jsonb := case
        when kind = 'user' then audit_private.user_facts(target, given)
        when _kind.facts <> '{}' then audit_private.facts_of(_kind, target) end;
begin
    return jsonb_strip_nulls(parts || case when kind = 'membership' and not parts ? 'parent'
        then coalesce(audit_private.group_of(target, parts), '{}') else '{}' end
        || jsonb_build_object(
        'given', given,
        'verbs', audit_private.mapped_verbs(kind, parts),
        'target_type', _kind.target_type,
        'row_id', case when parts ? 'parent' and not parts ? 'role' then _key end,
        -- Nothing identifies a row, so each event contains all of it.
        'whole', case when _key is null and _kind.subject is distinct from 'row'
            and not given ? 'target_id' then true end,
        'subject', case
            when _kind.subject = 'row' then coalesce(parts ->> 'subject', parts ->> 'target_id')
            else parts ->> 'subject' end,
        'ignore', audit_private.ignored_columns(target, kind, parts || jsonb_build_object(
            'facts', _facts), given),
        'redact', audit_private.redacted_columns(target, kind, given),
        'facts', _facts,
        'columns', (
            select jsonb_agg(attname order by attnum)
            from pg_attribute
            where attrelid = target and attnum > 0 and not attisdropped
        )));
end
$$;
comment on function audit_private.finish_mapping is
    'A mapping of its parts: what they make of actions, identifiers and columns';
