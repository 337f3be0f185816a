-- Lookups: mapping expressions are checked, and audit_mapper is let at the columns that they read.
-- Run by the owner of the tables, who alone can grant that.

-- A view made and thrown away checks the expression under the path that it will run under, and
-- names each column that it reads.
create or replace function audit.columns_read(target regclass, name text, expression text)
returns table (relation regclass, columns text[])
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _relations regclass[] := '{}';
    _columns jsonb[] := '{}';
    _i int;
    -- An expression that closes the parenthesis cannot name a view or a column that it cannot
    -- guess.
    _probe text := 'auditdb_probe_' || replace(gen_random_uuid()::text, '-', '');
begin
    begin
        -- In WHERE too, which refuses aggregates: an expression is about one row.
        execute format(E'create temp view %1$I as select (%2$s\n)%3$s as %1$I from %4$s as r '
            'where (%2$s\n) is null', _probe,
            columns_read.expression,
            -- No cast: PL/pgSQL would not make it either.
            case when columns_read.name in ('alive', 'admin') then ' is true' else '::text' end,
            columns_read.target);
        if not exists (
            select from pg_attribute
            where attrelid = to_regclass('pg_temp.' || _probe) and attname = _probe and attnum = 1
        ) then
            raise exception 'it is more than one expression' using errcode = 'syntax_error';
        end if;
        select array_agg(d.relation), array_agg(d.columns) into _relations, _columns
        from (
            select refobjid::regclass as relation,
                jsonb_agg(distinct a.attname) filter (where refobjsubid > 0) as columns
            from pg_rewrite as w
                join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
                    and d.refclassid = 'pg_class'::regclass
                left join pg_attribute as a on a.attrelid = refobjid and a.attnum = refobjsubid
            where w.ev_class = to_regclass('pg_temp.' || _probe)
                and refobjid <> to_regclass('pg_temp.' || _probe)
            group by refobjid
        ) as d;
        raise exception using errcode = 'AU001';
    exception
        when sqlstate 'AU001' then
            null;
        when others then
            if sqlerrm like '%permission denied%temporary%' then
                raise;
            end if;
            raise exception 'option "%" of % does not work: %', columns_read.name,
                    columns_read.target, sqlerrm
                using errcode = sqlstate,
                    hint = format('It reads: %s. It is SQL over the row r, with every table and '
                        'function named with its schema.', columns_read.expression);
    end;
    for _i in 1 .. coalesce(cardinality(_relations), 0) loop
        relation := _relations[_i];
        columns := array(select jsonb_array_elements_text(_columns[_i]));
        return next;
    end loop;
end
$$;
comment on function audit.columns_read(regclass, text, text) is
    'Checks a mapping expression and returns the columns of each table that it reads';

-- audit_mapper gets the columns that lookups read, no others, past row-level security of the host.
create or replace function audit.open_lookups(target regclass, mapping jsonb) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _name text;
    _expression text;
    _read record;
begin
    for _name, _expression in
        select key, value from jsonb_each_text(open_lookups.mapping)
        where key in ('organization', 'target_id', 'subject', 'role', 'alive', 'admin', 'parent')
    loop
        for _read in
            select * from audit.columns_read(open_lookups.target, _name, _expression)
        loop
            -- The row itself is handed over; only the check for admins selects from the table.
            continue when _read.relation = open_lookups.target
                and not open_lookups.mapping ? 'admin'
                and audit.is_column(_expression);
            -- A constant reads nothing of the row that it is asked of.
            continue when _read.relation = open_lookups.target and _read.columns = '{}';
            perform audit.open_lookup(_read.relation, _read.columns);
        end loop;
    end loop;
end
$$;
comment on function audit.open_lookups(regclass, jsonb) is
    'Checks every expression of a mapping and lets audit_mapper read what they need';

create or replace function audit.open_lookup(relation regclass, columns text[]) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _schema regnamespace := (select relnamespace from pg_class where oid = open_lookup.relation);
    _column text;
begin
    if not has_schema_privilege('audit_mapper', _schema::oid, 'usage') then
        execute format('grant usage on schema %s to audit_mapper', _schema);
    end if;
    if not has_table_privilege('audit_mapper', open_lookup.relation, 'select') then
        foreach _column in array open_lookup.columns loop
            if not has_column_privilege('audit_mapper', open_lookup.relation, _column,
                'select') then
                execute format('grant select (%I) on %s to audit_mapper', _column,
                    open_lookup.relation);
            end if;
        end loop;
    end if;
    if (select relrowsecurity from pg_class where oid = open_lookup.relation) and not exists (
        select from pg_policy
        where polrelid = open_lookup.relation and polname = 'auditdb_mapper'
    ) then
        execute format('create policy auditdb_mapper on %s for select to audit_mapper using (true)',
            open_lookup.relation);
    end if;
    -- GRANT by a role that may not only warns.
    if not has_schema_privilege('audit_mapper', _schema::oid, 'usage')
        or not has_any_column_privilege('audit_mapper', open_lookup.relation, 'select')
    then
        raise exception 'the mapping reads %, and % may not let audit_mapper read it',
                open_lookup.relation, current_user
            using errcode = 'insufficient_privilege',
                hint = format('Have its owner run: grant usage on schema %s to audit_mapper; '
                    'grant select on %s to audit_mapper;', _schema, open_lookup.relation);
    end if;
exception when insufficient_privilege then
    raise exception 'the mapping reads %, and % may not let audit_mapper read it',
            open_lookup.relation, current_user
        using errcode = 'insufficient_privilege',
            hint = format('Have its owner run: grant usage on schema %s to audit_mapper; '
                'grant select on %s to audit_mapper;', _schema, open_lookup.relation);
end
$$;
comment on function audit.open_lookup(regclass, text[]) is
    'Lets audit_mapper read columns of a table';
