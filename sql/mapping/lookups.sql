-- Lookups: mapping expressions are checked without being executed. audit_mapper gets the right to
-- read their columns, as far as the owner of the attached table can grant it.

create or replace function audit_private.probe(
    target regclass, returns text, form text, expression text, body text
) returns regprocedure
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _name text := 'auditdb_probe_' || replace(gen_random_uuid()::text, '-', '');
begin
    execute format('create function pg_temp.%I(r %s) returns %s language sql stable ', _name,
        probe.target, probe.returns) || format(probe.form, format(probe.body, probe.expression));
    return (
        select oid::regprocedure from pg_proc
        where proname = _name and pronamespace = pg_my_temp_schema()
    );
end
$$;
comment on function audit_private.probe is
    'Creates a temporary function over a row; it is never called';

create or replace function audit_private.called_functions(probe regprocedure) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
return (
    select array_agg(distinct f::text)
    from (
        select refobjid::regprocedure from pg_depend
        where classid = 'pg_proc'::regclass and objid = probe and refclassid = 'pg_proc'::regclass
        union all
        select oprcode::oid::regprocedure
        from pg_depend join pg_operator on pg_operator.oid = refobjid
        where classid = 'pg_proc'::regclass and objid = probe
            and refclassid = 'pg_operator'::regclass
    ) as t (f)
);
comment on function audit_private.called_functions is
    'The functions of the application that a temporary function calls, also through operators';

-- The checks make sure that the text is one expression. As a quoted body it closes no quote. It
-- must be valid both alone in a select list and within coalesce(...), which allows no semicolon, no
-- alias and no clause; such a text is one expression once it is in parentheses. PostgreSQL parses
-- both forms and executes neither. Only then is the text put into a body that is parsed at once,
-- for which PostgreSQL stores the dependencies.
create or replace function audit_private.parse_expression(
    target regclass, name text, expression text,
    out tree text, out reads jsonb, out functions text[], out types boolean, out enums text[]
)
language plpgsql volatile set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _probe regprocedure;
    -- No cast to boolean, because PL/pgSQL would make none either.
    _is_condition boolean := parse_expression.name in ('alive', 'admin');
    _returns text := case when _is_condition then 'boolean' else 'text' end;
    _value text := case when _is_condition then E'(%s\n) is true' else E'(%s\n)::text' end;
begin
    perform set_config('check_function_bodies', 'on', true);
    perform audit_private.probe(target, _returns, 'as %L', expression, 'select ' || _value),
        audit_private.probe(target, 'text', 'as %L', expression,
            format('select null::text where coalesce(%s, null) is null', _value));
    _probe := audit_private.probe(target, _returns, 'return %s', expression, _value);
    -- Code that parsing ran may have set another search_path,
    -- which would change how names are printed.
    perform set_config('search_path', 'pg_catalog, pg_temp', true);
    select prosqlbody::text into tree from pg_proc where oid = _probe;
    select jsonb_object_agg(refobjid::regclass::text, columns) into reads
    from (
        select refobjid, coalesce(jsonb_agg(distinct attname) filter (where attname is not null),
            '[]') as columns
        from pg_depend
            left join pg_attribute on attrelid = refobjid and attnum = refobjsubid and attnum > 0
        where classid = 'pg_proc'::regclass and objid = _probe and refclassid = 'pg_class'::regclass
        group by refobjid
    ) as d;
    functions := audit_private.called_functions(_probe);
    -- A conversion to a domain runs its checks; reading a type of another role may run its casts.
    select bool_or(case
        when typtype = 'e' then not rolsuper
            and typowner <> (select relowner from pg_class where oid = target)
        else typtype <> 'b' or typcategory = 'A' end),
        array_agg(t.oid::regtype::text) filter (where typtype = 'e')
    into types, enums
    from pg_depend join pg_type as t on t.oid = refobjid join pg_roles as r on r.oid = typowner
    where classid = 'pg_proc'::regclass and objid = _probe and refclassid = 'pg_type'::regclass
        and typnamespace <> 'pg_catalog'::regnamespace and typrelid <> target;
end
$$;
comment on function audit_private.parse_expression is
    'What an expression consists of: its parse tree, the columns of tables that it reads, the '
    'functions of the application that it calls, and whether it uses types that may run code; '
    'raises if it is not one expression';

-- Parsing converts literals, which may run the check of a domain: as audit_mapper, and rolled back.
create or replace function audit_private.examine(
    target regclass, name text, expression text,
    out tree text, out reads jsonb, out functions text[], out types boolean,
    out enums text[], out problem text, out code text
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if current_user operator(pg_catalog.<>) 'audit_mapper'::pg_catalog.name then
        raise exception 'audit_private.examine runs as %', current_user;
    end if;
    begin
        select p.tree, p.reads, p.functions, p.types, p.enums
        into tree, reads, functions, types, enums
        from audit_private.parse_expression(target, name, expression) as p;
        raise exception using errcode = 'AU001';
    exception
        when sqlstate 'AU001' then
            if tree is null then
                problem := 'it cannot be parsed';
                code := '42601';
            end if;
        when others then
            problem := sqlerrm;
            code := sqlstate;
    end;
end
$$;
-- Definer: expressions of a mapping are evaluated as audit_mapper.
comment on function audit_private.examine is
    'Parses a mapping expression without executing it: what it consists of, or why it is invalid';

-- Volatile functions of PostgreSQL act (locks, sequences, settings, queries in text), and some
-- stable ones read whole tables by name. An expression may only read its row and look up others.
create or replace function audit_private.forbidden_function(tree text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select min(p.oid::regprocedure::text)
    from regexp_matches(tree, ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') as m
        join pg_proc as p on p.oid = m[1]::oid
    where pronamespace = 'pg_catalog'::regnamespace
        and (provolatile = 'v' or proname ~ '_to_xml')
);
comment on function audit_private.forbidden_function is
    'A function of PostgreSQL in an expression that no mapping may call; null if there is none';

create or replace function audit_private.is_system_schema(schema regnamespace) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return schema::text in (
    'audit', 'audit_private', 'pg_catalog', 'pg_toast', 'information_schema');
comment on function audit_private.is_system_schema is
    'Whether a schema belongs to the log or to the system; no table in it can be mapped';

create or replace function audit_private.forbidden_relation(tree text) returns regclass
language sql stable set search_path = pg_catalog, pg_temp
return (
    select min(c.oid::regclass::text)::regclass
    from regexp_matches(tree, ':relid (\d+)', 'g') as m join pg_class as c on c.oid = m[1]::oid
    where audit_private.is_system_schema(c.relnamespace) or c.relpersistence = 't'
);
comment on function audit_private.forbidden_relation is
    'A table of the log or of the system that an expression reads; null if there is none';

create or replace function audit_private.unreadable(reads jsonb, reader regrole) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select min(format('column %I of %s', c.name, r.key))
    from jsonb_each(reads) as r
        cross join jsonb_array_elements_text(r.value) as c (name)
    where not has_column_privilege(reader, r.key::regclass, c.name, 'select')
);
comment on function audit_private.unreadable is
    'A column that an expression reads and a role may not; null if there is none';

-- The message of PostgreSQL only says that r does not exist.
create or replace function audit_private.missing_column(target regclass, expression text)
returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select min(m[1])
    from regexp_matches(missing_column.expression, '\m(r\.(?:[a-z_][a-z0-9_$]*|"(?:[^"]|"")+"))',
        'g') as m
    where m[1] not in (select format('r.%I', name) from audit_private.own_columns(target))
        and not strpos(missing_column.expression, '''') > 0
);
comment on function audit_private.missing_column is
    'A column of r that an expression names and the table lacks; null if there is none';

-- The parser notes the source column of each output of a SELECT that is just a column.
create or replace function audit_private.shows_secret_of(tree text, reads jsonb) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return (
    with secret as (
        select r.key::regclass::oid as relation, a.attnum
        from jsonb_each(shows_secret_of.reads) as r
            left join audit_private.attachment as t on t.target = r.key::regclass
            join pg_attribute as a on a.attrelid = r.key::regclass and r.value ? a.attname::text
        where a.attname = any (audit_private.secret_columns(r.key::regclass, coalesce(t.kind, '')))
            or t.mapping -> 'redact' ? a.attname::text
    ),
    output as (
        select m[1]::oid as relation, m[2]::int as attnum
        from regexp_matches(tree, ':resorigtbl (\d+) :resorigcol (\d+)', 'g') as m
    )
    select exists (select from secret) and (
        exists (select from secret join output using (relation, attnum))
        -- An output without a source column is computed; the expression itself is one of these.
        or (select count(*) from output where relation = 0) > 1)
);
comment on function audit_private.shows_secret_of is
    'Whether an expression that looks up a secret may return it, instead of only comparing with it';

create or replace function audit_private.refusal(
    target regclass, name text, expression text, problem text, tree text, reads jsonb
) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(
        case when refusal.problem is not null then
            'column ' || audit_private.missing_column(target, expression) || ' does not exist' end,
        refusal.problem,
        -- r itself is a parameter without a name.
        case when regexp_replace(expression, '''[^'']*''', '', 'g') ~ '\$[0-9]'
            then 'it names a parameter' end,
        'it calls ' || audit_private.forbidden_function(tree),
        'it reads ' || audit_private.forbidden_relation(tree)
            || ', which is the log''s, the system''s or temporary',
        owner::text || ' may not read ' || audit_private.unreadable(reads, owner),
        case when refusal.name <> 'admin' then 'it reads column ' || (
            select min(quote_ident(c.name)) from audit_private.own_columns(target) as c
            where c.is_virtual and reads -> target::text ? c.name)
            || ', which is computed when it is read' end)
    from cast((select relowner from pg_class where oid = refusal.target) as regrole) as owner
);
comment on function audit_private.refusal is
    'Why a mapping may not contain an expression; null if it may';

create or replace function audit_private.check_expression(
    target regclass, name text, expression text
) returns jsonb
language plpgsql volatile set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _locks text[] := audit_private.held_locks();
    _found record;
    _reason text;
begin
    begin
        _found := audit_private.examine(target, name, expression);
    exception when query_canceled then
        perform audit_private.release_locks(_locks);
        raise;
    end;
    perform audit_private.release_locks(_locks);
    if _found.problem like '%permission denied%temporary%' then
        raise exception '%', _found.problem
            using errcode = _found.code, hint = format('Have the database''s owner run: grant '
                'temporary on database %I to audit_mapper', current_database());
    end if;
    _reason := audit_private.refusal(
        target, name, expression, _found.problem, _found.tree, _found.reads);
    if _reason is not null then
        -- The message stays on one line, whatever the expression contains.
        raise exception 'option "%" of % does not work: %', check_expression.name,
                check_expression.target, regexp_replace(_reason, '\s+', ' ', 'g')
            using errcode = coalesce(_found.code, 'insufficient_privilege'),
                hint = format('It reads: %s. It is SQL over the row r, with every table and '
                    'function named with its schema.%s',
                    regexp_replace(expression, '\s+', ' ', 'g'), case when _found.problem is null
                        then ' It may only read what the owner may, and return one value.' end);
    end if;
    return jsonb_build_object(
        'reads', _found.reads, 'functions', to_jsonb(_found.functions),
        'types', coalesce(_found.types, false), 'enums', to_jsonb(_found.enums),
        'shows_secret', audit_private.shows_secret_of(_found.tree, _found.reads),
        'looks_up', _found.tree ~ ':relid [1-9]',
        -- A scan of the own table, in addition to the given row.
        'scans_itself', _found.tree ~ format(':relid %s\M', target::oid),
        -- If r as a whole is passed on, it may depend on any column.
        'takes_row', regexp_count(_found.tree, '\{PARAM :paramkind 0')
            > regexp_count(_found.tree, '\{FIELDSELECT :arg \{PARAM :paramkind 0'));
end
$$;
comment on function audit_private.check_expression is
    'Raises if an option is not one expression '
    'that reads only what the owner of the table may read';

create or replace function audit_private.add_check(checked jsonb, name text, found jsonb)
returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return checked || jsonb_strip_nulls(jsonb_build_object(
    'is_foreign',
        nullif(found -> 'functions' <> 'null' or (found ->> 'types')::boolean, false),
    'waits', nullif(found -> 'functions' <> 'null' or (found ->> 'looks_up')::boolean, false),
    'functions', case when found -> 'functions' <> 'null'
        then coalesce(checked -> 'functions', '[]') || (found -> 'functions') end,
    'enums', case when found -> 'enums' <> 'null'
        then coalesce(checked -> 'enums', '[]') || (found -> 'enums') end,
    'secret', case when (found ->> 'shows_secret')::boolean
        then coalesce(checked -> 'secret', '[]') || to_jsonb(add_check.name) end));
comment on function audit_private.add_check is
    'The results of checking the expressions of a mapping, with those of one more expression';

create or replace function audit_private.reads_beyond_tables(target regclass, reads jsonb)
returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return exists (
    select from jsonb_object_keys(reads) as t join pg_class on oid = t::regclass
    where oid <> target and (relkind not in ('r', 'p') or relrowsecurity));
comment on function audit_private.reads_beyond_tables is
    'Whether a mapping reads objects that run code: views, and tables with row-level security';

-- Checks each expression that was not generated here, or that reads more than the row.
create or replace function audit_private.check_mapping(target regclass, mapping jsonb) returns jsonb
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _name text;
    _expression text;
    _found jsonb;
    _all jsonb := '{}';
    _table text;
    _inputs jsonb := '[]';
    _takes_row boolean := false;
    _extra jsonb := '{}';
begin
    for _name, _expression in
        select key, value from jsonb_each_text(check_mapping.mapping)
        where key in ('organization', 'target_id', 'subject', 'role', 'alive', 'admin', 'parent')
            and (key in ('alive', 'admin') or audit_private.column_of(target, value) is null)
            and (key in ('alive', 'admin') or value is distinct from audit_private.key_of(target))
            and not (key = 'alive' and audit_private.alive_code(target, mapping, 'r') is not null)
    loop
        _found := audit_private.check_expression(target, _name, _expression);
        for _table in select jsonb_object_keys(coalesce(nullif(_found -> 'reads', 'null'), '{}'))
        loop
            continue when _table = target::text and not (_found ->> 'scans_itself')::boolean;
            _all := _all || jsonb_build_object(_table, coalesce(_all -> _table, '[]')
                || (_found -> 'reads' -> _table));
        end loop;
        _inputs := _inputs || coalesce(_found -> 'reads' -> target::text, '[]');
        _takes_row := _takes_row or (_found ->> 'takes_row')::boolean;
        _extra := audit_private.add_check(_extra, _name, _found);
    end loop;
    if audit_private.reads_beyond_tables(target, _all) then
        _extra := _extra || '{"is_foreign": true}';
    end if;
    if check_mapping.mapping ? 'admin' then
        -- The rule selects from the table itself.
        _all := _all || jsonb_build_object(target::text, coalesce(_all -> target::text, '[]')
            || audit_private.columns_named(target, check_mapping.mapping));
    end if;
    return check_mapping.mapping || jsonb_build_object('checked', _extra || jsonb_strip_nulls(
        jsonb_build_object('reads', _all, 'inputs', case when not _takes_row then _inputs end)));
end
$$;
comment on function audit_private.check_mapping is
    'A mapping whose expressions were checked: what they read, and whether they run foreign code';

create or replace function audit_private.columns_named(target regclass, mapping jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(jsonb_agg(distinct name), '[]')
    from jsonb_each_text(mapping)
        join audit_private.own_columns(target) on strpos(value, format('r.%I', name)) > 0
    where key in ('organization', 'subject', 'role', 'alive', 'admin')
);
comment on function audit_private.columns_named is
    'The columns of a table that its rule for admins names';

-- From here on with the rights of the caller, and never with more than the table's owner has.

create or replace function audit_private.open_schemas(target regclass, given jsonb) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _schema name;
begin
    for _schema in
        select nspname
        from pg_namespace as n
        where nspname !~ '^pg_' and nspname not in ('audit', 'audit_private', 'information_schema')
            and (n.oid = (select relnamespace from pg_class where oid = open_schemas.target)
                or strpos(open_schemas.given::text, nspname) > 0)
            and not has_schema_privilege('audit_mapper', n.oid, 'usage')
            and has_schema_privilege(
                (select relowner from pg_class where oid = open_schemas.target), n.oid,
                'usage with grant option')
    loop
        execute format('grant usage on schema %I to audit_mapper', _schema);
    end loop;
end
$$;
comment on function audit_private.open_schemas is
    'Lets audit_mapper look up names in the schema of the table and in those that options name';

create or replace function audit_private.open_lookups(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _owner oid := (select relowner from pg_class where oid = open_lookups.target);
    _mapping jsonb := (
        select mapping from audit_private.attachment as a where a.target = open_lookups.target);
    _table text;
    _columns jsonb;
begin
    for _table, _columns in select key, value from jsonb_each(_mapping #> '{checked,reads}') loop
        -- An expression that reads no column needs no grant on the own table.
        continue when _table::regclass = open_lookups.target and _columns = '[]';
        perform audit_private.open_lookup(_table, array(
            select distinct jsonb_array_elements_text(_columns)), _owner);
    end loop;
end
$$;
comment on function audit_private.open_lookups is
    'Lets audit_mapper read the columns that a mapping reads';

create or replace function audit_private.open_lookup(relation regclass, columns text[], owner oid)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _class pg_class;
    _column text;
    _is_refused boolean;
begin
    select * into _class from pg_class where oid = open_lookup.relation;
    if _class.relnamespace = any ('{audit,audit_private}'::regnamespace[]) then
        raise exception 'the mapping reads %, a table of the log', open_lookup.relation
            using errcode = 'insufficient_privilege', hint = 'Map tables of your application.';
    end if;
    foreach _column in array open_lookup.columns loop
        continue when has_column_privilege('audit_mapper', open_lookup.relation, _column, 'select')
            or not has_column_privilege(open_lookup.owner, open_lookup.relation, _column,
                'select with grant option');
        execute format('grant select (%I) on %s to audit_mapper', _column, open_lookup.relation);
    end loop;
    -- GRANT by a role without the right only warns.
    select bool_or(not has_column_privilege('audit_mapper', open_lookup.relation, c, 'select'))
    into _is_refused from unnest(open_lookup.columns) as c;
    if not has_schema_privilege('audit_mapper', _class.relnamespace, 'usage')
        or coalesce(_is_refused,
            not has_any_column_privilege('audit_mapper', open_lookup.relation, 'select'))
    then
        raise exception 'the mapping reads %, and % may not let audit_mapper read it',
                open_lookup.relation, open_lookup.owner::regrole
            using errcode = 'insufficient_privilege',
                hint = format('Have its owner run: grant usage on schema %s to audit_mapper; '
                    'grant select on %s to audit_mapper;', _class.relnamespace::regnamespace,
                    open_lookup.relation);
    end if;
end
$$;
comment on function audit_private.open_lookup is
    'Lets audit_mapper read columns of a table, if the owner of the attached table can grant it';
