-- Defaults: what the names, keys and types of a table suggest if an option of audit.attach is not
-- given. Each function returns an expression over the row r, or null if the table does not tell.

create or replace function audit_private.column_like(target regclass, variadic patterns text[])
returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select attname
    from unnest(column_like.patterns) with ordinality as p (pattern, rank),
        pg_attribute
    where attrelid = column_like.target and attnum > 0 and not attisdropped
        and attgenerated <> 'v'
        and lower(replace(attname, '_', '')) ~ ('^(' || pattern || ')$')
    order by rank, attnum
    limit 1
);
comment on function audit_private.column_like is
    'First column whose name, in lower case without underscores, matches a pattern; '
    'earlier patterns win';

create or replace function audit_private.over_row(target regclass, expression text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(
        (
            select 'r.' || quote_ident(attname)
            from pg_attribute
            where attrelid = over_row.target and attnum > 0 and not attisdropped
                and (attname = btrim(over_row.expression)
                    or quote_ident(attname) = btrim(over_row.expression)
                    or '"' || attname || '"' = btrim(over_row.expression))
        ),
        nullif(btrim(over_row.expression), '')
    )
);
comment on function audit_private.over_row is
    'An option as an expression over the row r: a column name becomes r.<column>';

-- Without this, different settings of a session would write the same value in different ways.
create or replace function audit_private.key_form(type oid, value text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return case
    when key_form.type in ('date'::regtype, 'timestamp'::regtype)
        then format('to_jsonb(%s) #>> ''{}''', value)
    when key_form.type = 'timestamptz'::regtype
        then format('to_jsonb(%s at time zone ''UTC'') #>> ''{}''', value)
    when key_form.type = 'bytea'::regtype then format('encode(%s, ''hex'')', value)
    else value
end;
end
$$;
comment on function audit_private.key_form is
    'Expression that writes a value of a type as text in the same way under all settings';

-- The text of an identifier must not depend on the settings of the session.
create or replace function audit_private.name_of(target regclass, expression text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _expression text := audit_private.over_row(target, name_of.expression);
begin
    return coalesce((
        select audit_private.key_form(atttypid, _expression)
        from pg_attribute
        where attrelid = name_of.target and attnum > 0 and not attisdropped
            and 'r.' || quote_ident(attname) = _expression
    ), _expression);
end
$$;
comment on function audit_private.name_of is
    'An option that names something, as an expression over the row r';

create or replace function audit_private.key_columns(target regclass, kind text default null)
returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    _secrets text[];
begin
    -- A secret is used as a key only if there is no other.
    if (select count(*) > 1 from pg_index where indrelid = key_columns.target and indisunique) then
        _secrets := audit_private.secret_columns(key_columns.target, coalesce(
            key_columns.kind,
            (select a.kind from audit_private.attachment as a where a.target = key_columns.target),
            ''));
    end if;
    return (
        select array_agg(attname::text order by n)
        from (
            select indkey, indnkeyatts
            from pg_index
            where indrelid = key_columns.target and indisunique and indisvalid
                and indpred is null and indexprs is null
                and (indisprimary or not exists (
                    select from pg_attribute
                    where attrelid = indrelid and attnum = any(indkey) and not attnotnull))
            order by exists (
                select from pg_attribute
                where attrelid = indrelid and attnum = any(indkey) and attname = any (_secrets)
            ), indisprimary desc, indexrelid
            limit 1
        ) as best
            cross join unnest(best.indkey) with ordinality as k (attnum, n)
            join pg_attribute as a on a.attrelid = key_columns.target and a.attnum = k.attnum
        where n <= indnkeyatts
    );
end
$$;
comment on function audit_private.key_columns is
    'Columns of the primary key, or of the first unique key without nulls; null if there is '
    'neither. Prefers a key that is no secret';

create or replace function audit_private.key_of(target regclass, kind text default null)
returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return (
    select case count(*)
        when 0 then null
        when 1 then min(form)
        else 'concat_ws('','', ' || string_agg(format('(%s)::text', form), ', ' order by n) || ')'
    end
    from unnest(audit_private.key_columns(key_of.target, key_of.kind))
            with ordinality as k (name, n)
        join pg_attribute on attrelid = key_of.target and attname = name
        cross join audit_private.key_form(atttypid, format('r.%I', name)) as f (form)
);
end
$$;
comment on function audit_private.key_of is
    'Expression for the primary key, or for the first unique key without nulls; null if none';

-- Only a table of the same owner, because expressions of another owner are not trusted.
create or replace function audit_private.parent_organization(
    target regclass, kind text, parent text
) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    -- The attached table of the same kind that the column references,
    -- otherwise the first of that kind.
    select format(E'(select p.organization from (select %s as key, (%s\n) as organization '
        'from %s as r) as p where p.key = %s)', a.mapping ->> 'target_id',
        coalesce(a.mapping ->> 'organization', 'null::text'), a.target::regclass,
        parent_organization.parent)
    from audit_private.attachment as a
        join pg_class as theirs on theirs.oid = a.target
        join pg_class as mine on mine.oid = parent_organization.target
    where a.kind = parent_organization.kind and a.target <> parent_organization.target
        and not a.mapping ? 'parent' and theirs.relowner = mine.relowner
    order by exists (
        select from pg_constraint as c
        where c.contype = 'f' and c.conrelid = parent_organization.target
            and c.confrelid = a.target
    ) desc, a.id
    limit 1
);
comment on function audit_private.parent_organization is
    'Expression for the organisation of a child row, by the mapping of the table of its parent';
