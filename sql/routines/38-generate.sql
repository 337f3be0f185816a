-- Generation: the other functions of one attached table, and how all of them are written.
-- The trigger function runs as audit_owner and meets no application code but through
-- audit_mapper's.

-- STABLE, so that lookups see the database as the statement found it: the team of a membership that
-- goes by cascade is gone already when the trigger fires. audit.append is VOLATILE and writes.
-- A function of the application can change search_path for good, past every pin around it: from the
-- image on, every name and operator here says its schema.
create or replace function audit.capture_code(id int, kind text, target regclass, mapping jsonb)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return format($sql$
#variable_conflict use_variable
declare
    _captured_from text := tg_table_schema || '.' || tg_table_name;
    _context jsonb;
    _image audit.image;
    _reason text;
    _lost boolean;
    _done boolean;%7$s
begin%8$s
    if tg_op = 'TRUNCATE' then
        _image.action := %1$L;
        _context := audit.current_context();
    else
        begin
            _context := nullif(current_setting('auditdb.context', true), '')::jsonb;
            if jsonb_typeof(_context) <> 'object' then
                raise exception using errcode = 'invalid_parameter_value';
            end if;
            _image := audit.image_%2$s(tg_op, old, new);%3$s
        exception when assert_failure or others then
            _reason := sqlstate;
            _context := audit.current_context();
            _lost := _context is null and nullif(current_setting('auditdb.context', true), '')
                is not null;
            begin
                _image := audit.rescue(tg_op, old, new, %4$L, _reason);
            exception when assert_failure or others then
                _image := row(%5$L, null, null, null, null, null, jsonb_build_object('degraded',
                    jsonb_build_object('sqlstate', sqlstate, 'lost', '{"row"}'::text[], 'op',
                        tg_op)));
            end;
            if _lost then
                _image.details := audit.lose_context(_image.details);
            end if;
        end;
        if _image.action is null then
            return null;
        end if;
    end if;
    _done := %6$s;
    return null;
end$sql$,
    kind || '.truncated',
    id,
    case when not audit.is_column(mapping ->> 'organization') then format($sql$
            if _image.organization_id is null and _image.action is not null then
                -- What this very statement made is visible to a fresh snapshot only.
                if tg_op operator(pg_catalog.=) 'DELETE' then
                    _image.organization_id := audit.organization_%1$s(old);
                else
                    _image.organization_id := audit.organization_%1$s(new);
                end if;
            end if;$sql$, id) else '' end,
    mapping,
    mapping -> 'verbs' ->> 'changed',
    case when mapping -> 'facts' <> '[]' then
        format('audit.append_facts(_image, %L, _captured_from, _context)', mapping -> 'facts')
    else format($sql$audit.append(_image.action, _image.organization_id, %L, _image.target_id,
        _image.subject_id, _captured_from, _image.old_values, _image.new_values, _image.details,
        _context)$sql$,
        mapping ->> 'target_type') end,
    audit.inline_variables(target, mapping),
    audit.inline_code(target, mapping)
);
comment on function audit.capture_code(int, text, regclass, jsonb) is
    'Body of audit.capture_<id>, the trigger function of an attached table';

-- The live check behind every read: is this user an admin or owner there, now?
create or replace function audit.admin_code(target regclass, mapping jsonb) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _subject text := admin_code.mapping ->> 'subject';
    _type text;
begin
    -- Compared in the column's own type, so that its index serves.
    select format_type(atttypid, -1) into _type
    from pg_attribute
    where attrelid = admin_code.target and audit.over_row(admin_code.target, attname) = _subject
        and attnum > 0 and not attisdropped;
    -- $1 and $2: by name they would be ambiguous beside columns called organization and viewer.
    return format(E'\n#variable_conflict use_column\nbegin\n    return exists (\n'
        '        select from %s as r\n        where (%s\n) = ($2)%s and ((%s\n)::text) = $1\n'
        '            and (%s\n) and (%s\n)\n    );\nend',
        admin_code.target,
        case when _type is null then '(' || _subject || E'\n)::text' else _subject end,
        coalesce('::' || _type, ''),
        admin_code.mapping ->> 'organization',
        coalesce(admin_code.mapping ->> 'alive', 'true'),
        admin_code.mapping ->> 'admin');
end
$$;
comment on function audit.admin_code(regclass, jsonb) is
    'Body of audit.admin_<id>: whether a membership makes its user an admin or owner';

create or replace function audit.define(
    name text, arguments text, returns text, volatility text, owner regrole, body text, purpose text
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('create or replace function audit.%I(%s) returns %s language plpgsql %s '
        'security definer set search_path = pg_catalog, pg_temp as %L',
        name, arguments, returns, volatility, body);
    execute format('revoke all on function audit.%I from public', name);
    execute format('comment on function audit.%I is %L', name, purpose);
    if owner <> current_user::regrole then
        execute format('alter function audit.%I owner to %s', name, owner);
        execute format('grant execute on function audit.%I to audit_owner', name);
    end if;
end
$$;
comment on function audit.define(text, text, text, text, regrole, text, text) is
    'Creates or replaces a generated function, closed to PUBLIC';

create or replace function audit.generate(id int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _a audit.attachment;
    _of text;
begin
    select * into strict _a from audit.attachment as a where a.id = generate.id;
    _a.mapping := _a.mapping
        || jsonb_build_object('redact', audit.redacted_columns(_a.target, _a.mapping));
    _of := format(' of %s (attached as %s)', _a.target, _a.kind);
    -- A function given to audit_mapper needs its CREATE for that moment, and to be ours again to
    -- change.
    grant create on schema audit to audit_mapper;
    if _a.kind <> 'admin' then
        perform audit.define('image_' || id, 'op text, old anyelement, new anyelement',
            'audit.image', 'stable', 'audit_mapper', audit.image_code(_a.target, _a.mapping),
            'What a changed row says' || _of);
        if not audit.is_column(_a.mapping ->> 'organization') then
            perform audit.define('organization_' || id, 'r anyelement', 'text', 'volatile',
                'audit_mapper', format(E'\nbegin\n    return (%s\n);\nend',
                    _a.mapping ->> 'organization'), 'Organisation of a row' || _of);
        else
            execute format('drop function if exists audit.organization_%s', id);
        end if;
        perform audit.define('capture_' || id, '', 'trigger',
            case when audit.is_inline(_a.target, _a.mapping) then 'volatile' else 'stable' end,
            'audit_owner', audit.capture_code(id, _a.kind, _a.target, _a.mapping),
            'Captures changes' || _of);
    end if;
    if _a.mapping ? 'admin' then
        perform audit.define('admin_' || id, 'organization text, viewer text', 'boolean', 'stable',
            'audit_mapper', audit.admin_code(_a.target, _a.mapping),
            'Whether a user is an admin or owner, by a row' || _of);
    end if;
    revoke create on schema audit from audit_mapper;
end
$$;
comment on function audit.generate(int) is
    'Writes, or writes again, the functions of an attached table';
