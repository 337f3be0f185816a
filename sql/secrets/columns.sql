-- Secrets: which columns of a table are redacted unless the mapping says otherwise. The name
-- decides; in a table of credentials, every column is redacted that is not known to be harmless.

create or replace function audit_private.base_type(type oid) returns oid
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _base oid := base_type.type;
    _found oid;
begin
    loop
        _found := _base;
        select typbasetype into _base from pg_type where oid = _found and typtype = 'd';
        exit when not found;
    end loop;
    return _found;
end
$$;
comment on function audit_private.base_type is
    'The base type of a domain; any other type itself';

create or replace function audit_private.is_store(target regclass, kind text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case
        when k.credentials is not null then k.credentials
        when audit_private.says_store(n.name) then true
        when audit_private.says_store_with_a_secret(n.name) then exists (
            select from pg_attribute join pg_type as t on t.oid = atttypid
            where attrelid = is_store.target and attnum > 0 and not attisdropped
                and t.typcategory not in ('B', 'D', 'T') and audit_private.is_secret(attname))
        else false end
    from pg_class as c
        cross join audit_private.normal_name(c.relname) as n (name)
        left join audit.kind as k on k.name = is_store.kind
    where c.oid = is_store.target
);
comment on function audit_private.is_store is
    'Whether a table holds credentials: by its kind, otherwise by its name and its columns';

create or replace function audit_private.is_harmless_type(type oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case
        when b.typcategory = 'A' and b.typelem <> 0
            then e.typcategory in ('B', 'D', 'T', 'N', 'I', 'E') or e.oid = 'uuid'::regtype
        else b.typcategory in ('B', 'D', 'T', 'N', 'I', 'E') or b.oid = 'uuid'::regtype end
    from pg_type as b
        left join pg_type as e on e.oid = audit_private.base_type(b.typelem)
    where b.oid = audit_private.base_type(is_harmless_type.type)
);
comment on function audit_private.is_harmless_type is
    'Whether a type is too simple for a credential: flags, times, numbers, enums, uuids';

-- An id built from the prefix and the hash of a key is long enough for the hash.
create or replace function audit_private.holds_hash(target regclass, attnum int2) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return exists (
    select from pg_attribute as a
        join pg_attribute as h on h.attrelid = a.attrelid and h.attnum > 0 and not h.attisdropped
            and h.attnum <> a.attnum and h.atttypid = a.atttypid and h.atttypmod = a.atttypmod
        join pg_attribute as p on p.attrelid = a.attrelid and p.attnum > 0 and not p.attisdropped
    where a.attrelid = holds_hash.target and a.attnum = holds_hash.attnum
        and a.atttypid = 'varchar'::regtype and a.atttypmod > 64
        and audit_private.normal_name(h.attname) ~ '-(hash|hashed|digest)-'
        and audit_private.normal_name(p.attname) ~ '-prefix-$'
);
comment on function audit_private.holds_hash is
    'Whether an identifier looks built from the prefix and the hash in neighbouring columns';

create or replace function audit_private.is_secret_column(
    target regclass,
    attnum int2,
    store boolean,
    connector boolean
) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _name text;
    _normal text;
    _type oid;
    _category "char";
begin
    select a.attname, audit_private.normal_name(a.attname), t.oid, t.typcategory
    into _name, _normal, _type, _category
    from pg_attribute as a join pg_type as t on t.oid = a.atttypid
    where a.attrelid = is_secret_column.target and a.attnum = is_secret_column.attnum;
    if _type <> audit_private.base_type(_type) then
        _type := audit_private.base_type(_type);
        select typcategory into _category from pg_type where oid = _type;
    end if;
    return case
        when _category in ('B', 'D', 'T') then false
        -- A number or a uuid that is named as an id points to a row, and opens nothing.
        when (_category = 'N' or _type = 'uuid'::regtype) and _normal ~ '[a-z-]ids?-$'
            then false
        when audit_private.is_secret(_name) then true
        -- Whoever has the code or link of an invitation may join.
        when _normal ~ '^-(code|key|link|url)-$' and _category <> 'E' and exists (
            select from pg_class
            where oid = target and audit_private.normal_name(relname) ~ '-invit(e|ation)s?-')
            then true
        when not store and not connector and not audit_private.says_headers(_normal) then false
        when audit_private.is_harmless_type(_type) then false
        when audit_private.says_headers(_normal) then true
        when connector and audit_private.says_settings(_normal) then true
        when not store then false
        else not audit_private.says_harmless(_normal)
            or audit_private.holds_hash(target, attnum) end;
end
$$;
comment on function audit_private.is_secret_column is
    'Whether a column is redacted by default: by its name and type, and by what its table holds';

-- A foreign key holds the same values as the column that it refers to. Each table and foreign key
-- is looked up by itself: otherwise the planner would read all of them.
create or replace function audit_private.secret_columns(target regclass, kind text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
return (
    with recursive way (attname, origin, relid, attnum) as (
        select attname, attnum, attrelid, attnum
        from pg_attribute
        where attrelid = secret_columns.target and pg_attribute.attnum > 0 and not attisdropped
        union
        select way.attname, way.origin, f.relid, f.attnum
        from way
            cross join lateral (
                select c.confrelid, k.there
                from pg_constraint as c cross join unnest(c.conkey, c.confkey) as k (here, there)
                where c.conrelid = way.relid and c.contype = 'f' and k.here = way.attnum
                offset 0
            ) as f (relid, attnum)
    )
    select coalesce(array_agg(attname::text order by origin), '{}')
    from (
        select attname, origin
        from (select distinct relid from way) as w
            cross join lateral (
                select audit_private.is_store(c.oid::regclass, case
                        when c.oid = secret_columns.target then secret_columns.kind
                        else (
                            select a.kind from audit_private.attachment as a where a.target = c.oid
                        ) end) as store,
                    audit_private.says_connector(audit_private.normal_name(c.relname)) as connector
                from pg_class as c where c.oid = w.relid
                offset 0
            ) as t
            join way using (relid)
        where audit_private.is_secret_column(way.relid::regclass, attnum, store, connector)
            -- The column that a foreign key refers to decides.
            and (
                select count(*) = 0 from pg_constraint as c
                where c.conrelid = way.relid and c.contype = 'f' and way.attnum = any (c.conkey)
                    and (c.confrelid <> way.relid or not way.attnum = any (c.confkey)))
        group by attname, origin
    ) as found
);
comment on function audit_private.secret_columns is
    'Columns of a table that are redacted by default: secrets by their names and, in a table of '
    'credentials, every column that is not known to be harmless';
