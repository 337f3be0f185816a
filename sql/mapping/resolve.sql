-- Mapping: from the options of audit.attach, and the shape of the table where they are silent,
-- to one SQL expression over the row r for each thing that an event says.

create or replace function audit_private.check_options(target regclass, kind text, given jsonb) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _option text;
    _column text;
    _options text[] := (audit_private.kind_of(check_options.kind)).options;
begin
    perform audit_private.check_kind_name(check_options.kind);
    -- PostgreSQL computes them when they are read: to a trigger they are null.
    select key, attname into _option, _column
    from jsonb_each_text(check_options.given)
        join pg_attribute on attrelid = check_options.target and attgenerated = 'v'
            and audit_private.over_row(check_options.target, value) = 'r.' || quote_ident(attname)
    where key <> 'admin' limit 1;
    if found then
        raise exception 'option "%" names column "%" of %, which is computed when it is read',
                _option, _column, check_options.target
            using errcode = 'invalid_parameter_value',
                hint = 'Say what it is computed from, as an expression over the row r.';
    end if;
    for _option in select jsonb_object_keys(check_options.given) loop
        if _option <> all (_options) then
            raise exception 'kind "%" has no option "%"', check_options.kind, _option
                using errcode = 'invalid_parameter_value',
                    hint = format('Its options are %s.',
                        array_to_string(_options, ', '));
        end if;
        continue when _option not in ('ignore', 'redact');
        for _column in select jsonb_array_elements_text(check_options.given -> _option) loop
            if not exists (
                select from pg_attribute
                where attrelid = check_options.target and attnum > 0 and not attisdropped
                    and (attname = _column or _option = 'redact' and '-' || attname = _column)
            ) then
                raise exception 'option "%" names column "%", which % does not have',
                        _option, _column, check_options.target
                    using errcode = 'undefined_column',
                        hint = 'Name a column of the table, without quotes; redact => ''{-note}'' shows one '
                        'that is redacted by default.';
            end if;
        end loop;
    end loop;
end
$$;
comment on function audit_private.check_options(regclass, text, jsonb) is
    'Refuses an invalid kind or option';

create or replace function audit_private.resolve_mapping(target regclass, kind text, given jsonb)
returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _mapping jsonb := '{}';
    _kind audit.kind := audit_private.kind_of(resolve_mapping.kind);
    _organization text := audit_private.name_of(target, given ->> 'organization');
    _subject text := audit_private.name_of(target, given ->> 'subject');
    _role text := audit_private.over_row(target, given ->> 'role');
    _alive text := coalesce(audit_private.over_row(target, given ->> 'alive'), audit_private.default_alive(target));
    _parent text := audit_private.name_of(target, given ->> 'parent');
    _key text := audit_private.key_of(target);
    _secrets text[] := audit_private.secret_columns(target, kind);
begin
    perform audit_private.check_options(target, kind, given);

    -- A child belongs where its parent does, whatever its own columns are called.
    if _organization is null and _parent is not null then
        _organization := audit_private.parent_organization(target, kind, _parent);
        if _organization is null and exists (
            select from audit_private.attachment as a join pg_class as c on c.oid = a.target
            where a.kind = resolve_mapping.kind and a.target <> resolve_mapping.target
                and not a.mapping ? 'parent'
        ) then
            raise exception 'the tables attached as % belong to another role than %', kind, target
                using errcode = 'insufficient_privilege',
                    hint = 'A mapping is nobody else''s to use. Say the organisation yourself: '
                        'organization => ''select ... where ... = r....''.';
        end if;
    end if;
    if kind = 'organization' then
        _organization := coalesce(_organization, audit_private.name_of(target, given ->> 'target_id'), _key);
    end if;
    _organization := coalesce(_organization, audit_private.name_of(target, audit_private.column_like(target,
        '(organi[sz]ation|org)id', '(tenant|workspace|company|account|customer|team)id')));
    if _kind.subject is distinct from 'row' then
        _subject := coalesce(_subject, audit_private.name_of(target, audit_private.column_like(target,
            '(user|owner|ownerusr|owneruser)id', '(member|person|profile|account)id',
            'created(by|byid|byuserid)')));
    end if;
    if kind = 'membership' then
        _role := coalesce(_role, 'r.' || quote_ident(audit_private.column_like(target,
            'role', '(membership|member|organi[sz]ation|org|team|user)role(name)?',
                'role(name|id)')));
    end if;

    _mapping := jsonb_build_object(
        'given', given,
        'verbs', audit_private.verbs_of(_kind) || case
            -- A row that gives a member a role: that it comes or goes changes the member's role.
            when kind = 'membership' and _parent is not null and _role is not null
                then '{"changed": "membership.role_changed"}'
            -- A user with a role in the one organisation of their row: the row is the membership.
            when kind = 'user' and _role is not null
                then audit_private.verbs_of(audit_private.kind_of('membership')) || '{"changed": "user.updated"}'
            else '{}' end::jsonb,
        'target_type', _kind.target_type,
        'organization', _organization,
        'target_id', coalesce(
            audit_private.name_of(target, given ->> 'target_id'),
            _parent,
            case when _kind.target = 'subject' then _subject end,
            _key),
        'row_id', case when _parent is not null and _role is null then _key end,
        -- Nothing tells its rows apart, so that each event carries all of the row.
        'whole', case when _key is null and _kind.subject is distinct from 'row'
            and not given ? 'target_id'
            then true end,
        'subject', case
            when _kind.subject = 'row' then
                coalesce(_subject, audit_private.name_of(target, given ->> 'target_id'), _key)
            when _kind.subject = 'column' or given ? 'subject' then _subject end,
        'role', _role,
        'alive', _alive,
        'parent', _parent,
        'ignore', coalesce(given -> 'ignore', (
            select jsonb_agg(attname order by attnum)
            from pg_attribute
            where attrelid = target and attnum > 0 and not attisdropped
                and lower(replace(attname, '_', '')) ~
                    '^((updated|modified)(at|on)'
                    '|(last|current)(used|seen|active|activity|login|signin'
                    '|signedin)(at|on|ip)?|(login|signin|usage|use|used)count|counter|signcount'
                    '|lockversion)$'
        )),
        'redact', (
            select jsonb_agg(attname order by attnum)
            from pg_attribute
            where attrelid = target and attnum > 0 and not attisdropped
                and (given -> 'redact' ? attname
                    or attname = any (_secrets)
                        and not coalesce(given -> 'redact' ? ('-' || attname), false))
        ),
        'facts', case
            when kind = 'user' then audit_private.user_facts(target, given)
            when _kind.facts <> '{}' then audit_private.facts_of(_kind, target) end,
        'columns', (
            select jsonb_agg(attname order by attnum)
            from pg_attribute
            where attrelid = target and attnum > 0 and not attisdropped
        )
    );
    if kind = 'membership' and _parent is null or given ? 'admin' then
        _mapping := _mapping || jsonb_build_object('admin', coalesce(
            audit_private.over_row(target, given ->> 'admin'),
            audit_private.default_admin(target, _role)));
    elsif kind = 'admin' then
        _mapping := _mapping || '{"admin": "true"}';
    end if;
    if _mapping ? 'admin' and (_organization is null or _mapping ->> 'subject' is null) then
        raise exception '% has no column that tells the % of a %', target,
                case when _organization is null then 'organisation' else 'user' end, kind
            using errcode = 'invalid_parameter_value',
                hint = format('Say it: %s => ''a column or an expression over the row r''.',
                    case when _organization is null then 'organization' else 'subject' end);
    end if;
    return jsonb_strip_nulls(_mapping);
end
$$;
comment on function audit_private.resolve_mapping(regclass, text, jsonb) is
    'The mapping in force for a table: what was given, completed from its columns and keys';
