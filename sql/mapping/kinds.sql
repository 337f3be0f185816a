-- Kinds: named types of rows. A word that nobody defined is a kind too;
-- its actions begin with that word.

create or replace function audit_private.kind_of(name text) returns audit.kind
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _kind audit.kind;
begin
    select * into _kind from audit.kind as k where k.name = kind_of.name;
    if not found then
        _kind.name := kind_of.name;
        _kind.target_type := kind_of.name;
        _kind.verbs := audit_private.default_verbs(kind_of.name);
        _kind.facts := '{}';
        _kind.options := audit_private.default_options();
    end if;
    return _kind;
end
$$;
comment on function audit_private.kind_of is
    'The definition of a kind; the default definition if it is not defined';

create or replace function audit_private.default_verbs(name text) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return jsonb_build_object('created', default_verbs.name || '.created',
    'updated', default_verbs.name || '.updated', 'deleted', default_verbs.name || '.deleted',
    'prepared', default_verbs.name || '.prepared', 'purged', default_verbs.name || '.purged');
comment on function audit_private.default_verbs is
    'The actions of a kind that defines none';

create or replace function audit_private.default_options() returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
return '{organization,target_id,subject,alive,parent,ignore,redact}'::text[];
comment on function audit_private.default_options is
    'The options of a kind that defines none';

create or replace function audit_private.verbs_of(kind audit.kind) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return (
    select jsonb_strip_nulls(jsonb_build_object('born', verbs -> 'created',
        'died', verbs -> 'deleted', 'changed', verbs -> 'updated',
        'prepared', verbs -> 'prepared', 'purged', verbs -> 'purged',
        'role_changed', verbs -> 'role_changed'))
    -- A former release stored fewer verbs. A kind without verbs captures nothing.
    from cast(case when verbs_of.kind.verbs = '{}' then '{}'
        else audit_private.default_verbs(verbs_of.kind.name) || verbs_of.kind.verbs end as jsonb)
        as verbs
);
comment on function audit_private.verbs_of is
    'The actions of a kind as a mapping names them: when a row begins, ends, changes, changes its '
    'role, and when a row that does not count comes or goes';

create or replace function audit_private.facts_of(kind audit.kind, target regclass) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(jsonb_agg(jsonb_build_object('column', attname, 'action', value,
        'columns', jsonb_build_array(attname)) order by attnum), '[]')
    from jsonb_each_text(facts_of.kind.facts)
        join pg_attribute on attrelid = facts_of.target and attname = key and attnum > 0
            and not attisdropped and attgenerated <> 'v'
);
comment on function audit_private.facts_of is
    'The facts of a kind for which a table has a column';

create or replace function audit_private.is_action(action text) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return coalesce(is_action.action ~ '^[a-z][a-z0-9_]*[.][a-z][a-z0-9_]*$'
    and length(is_action.action) <= 200 and split_part(is_action.action, '.', 1) <> 'audit', false);
comment on function audit_private.is_action is
    'Whether a text is a valid action of an application, that is, not one of the log itself';

-- The verbs for rows that do not count may be empty: then there is no event.
create or replace function audit_private.verb_problem(verbs jsonb, facts jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return (
    select min(case when is_verb then format('"%s" of %s is no action', value, key)
        else format('it has no verb "%s"', key) end)
    from (
        select key, value, audit_private.default_verbs('') ? key from jsonb_each_text(verbs)
        union all
        select 'fact ' || key, value, true from jsonb_each_text(facts)
    ) as v (key, value, is_verb)
    where value like '%.baseline' or not (is_verb and (audit_private.is_action(value)
        or key in ('prepared', 'purged') and value = ''))
);
comment on function audit_private.verb_problem is
    'Why the verbs or facts of a kind are invalid; null if they are valid';

create or replace function audit_private.check_kind(kind audit.kind) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _problem text;
    _hint text;
begin
    perform audit_private.check_kind_name(kind.name);
    if kind.target_type !~ '^[a-z][a-z0-9_]{0,39}$' then
        _problem := format('target_type is "%s"', kind.target_type);
        _hint := 'It is a word in lower case, such as invoice.';
    elsif kind.subject not in ('row', 'column') then
        _problem := format('subject is "%s"', kind.subject);
        _hint := 'It is row, column or null.';
    elsif kind.description !~ '\S' or length(kind.description) > 1000 then
        _problem := 'its description is empty or longer than 1,000 characters';
        _hint := 'Say in a sentence what a row is.';
    elsif not kind.options <@ audit_private.default_options() then
        _problem := format('it has no option "%s"', (
            select min(o) from unnest(kind.options) as o
            where o <> all (audit_private.default_options())));
        _hint := format('Options are %s.', array_to_string(audit_private.default_options(), ', '));
    elsif jsonb_typeof(kind.verbs) <> 'object' or jsonb_typeof(kind.facts) <> 'object' then
        _problem := 'verbs or facts are no object';
        _hint := 'Verbs are as in ''{"created": "invoice.issued"}'', facts as in '
            '''{"status": "invoice.status_changed"}''.';
    else
        _problem := audit_private.verb_problem(kind.verbs, kind.facts);
        _hint := 'Verbs are created, updated, deleted, and of rows that do not count prepared and '
            'purged. An action is category.verb in lower case, such as invoice.issued, and not of '
            'category audit.';
    end if;
    if _problem is not null then
        raise exception 'kind "%": %', kind.name, _problem
            using errcode = 'invalid_parameter_value', hint = _hint;
    end if;
end
$$;
comment on function audit_private.check_kind is
    'Raises if a kind is invalid';

create or replace function audit_private.check_kind_name(name text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
    if check_kind_name.name is null or check_kind_name.name !~ '^[a-z][a-z0-9_]{0,39}$'
        or check_kind_name.name in ('audit', 'auth')
    then
        raise exception '"%" is not a kind', check_kind_name.name
            using errcode = 'invalid_parameter_value',
                hint = 'Use a kind of audit.kind, such as membership, or a word of your own: lower '
                    'case, digits and underscores, at most 40 characters.';
    end if;
end
$$;
comment on function audit_private.check_kind_name is
    'Raises if a word is no valid name of a kind';

create or replace function audit.define_kind(
    name text,
    description text default null,
    verbs jsonb default '{}',
    facts jsonb default '{}',
    target_type text default null,
    subject text default null,
    options text[] default null
) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    _before audit.kind;
    _kind audit.kind := audit_private.kind_of(define_kind.name);
begin
    select * into _before from audit.kind as k where k.name = define_kind.name for update;
    if _before.is_built_in then
        raise exception 'kind "%" belongs to auditdb', define_kind.name
            using errcode = 'invalid_parameter_value', hint = 'Choose another name.';
    end if;
    _kind.description := coalesce(define_kind.description, 'A row of ' || define_kind.name);
    _kind.verbs := define_kind.verbs;
    _kind.facts := coalesce(define_kind.facts, '{}');
    _kind.target_type := coalesce(define_kind.target_type, define_kind.name);
    _kind.subject := define_kind.subject;
    _kind.options := coalesce(define_kind.options, audit_private.default_options());
    _kind.is_built_in := false;
    perform audit_private.check_kind(_kind);
    _kind.verbs :=
        audit_private.default_verbs(define_kind.name) || coalesce(define_kind.verbs, '{}');
    if _kind = _before then
        return;
    end if;
    delete from audit.kind as k where k.name = define_kind.name;
    insert into audit.kind select _kind.*;
    perform audit_private.record_own('kind_defined', define_kind.name,
        case when _before.name is not null then to_jsonb(_before) end, to_jsonb(_kind));
end
$$;
-- Definer: operators hold no privilege to write the table.
comment on function audit.define_kind is
    'Defines a kind of the application: the actions of its rows. Tables attached as this kind '
    'change with the next audit.reattach(). Records an event';

insert into audit.action (name, description, is_built_in) values
    ('audit.kind_defined', 'A kind of the application was defined, or defined anew', true)
on conflict (name) do update set description = excluded.description, is_built_in = true;
