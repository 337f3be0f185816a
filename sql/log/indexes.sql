-- Indexes of the log that hold only the events they serve. Each begins with organization_id: what a
-- reader asks touches no entry of others. Maintenance makes those that an older log lacks, a month
-- at a time, so that writers wait for this month's alone.

create or replace function audit_private.partial_indexes()
returns table (name text, definition text)
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    values
        ('event_failure_idx',
            '(organization_id, occurred_at DESC, id DESC, action, result) '
            'WHERE (result <> ''success''::text)'),
        -- By user, who is the target of a sign-in, and by key; of readings the newest.
        ('event_sign_in_key_idx',
            '(organization_id, action, target_id, result, occurred_at, id) '
            'WHERE (action = ANY (ARRAY[''auth.login''::text, ''api_key.created''::text, '
            '''api_key.updated''::text, ''api_key.revoked''::text, ''audit.viewed''::text]))');
$$;
comment on function audit_private.partial_indexes is
    'The indexes of the log that hold some of its events, as PostgreSQL prints their definitions';

create or replace function audit_private.has_index(relation regclass, definition text)
returns boolean
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
return exists (
    select from pg_index
    where indrelid = has_index.relation and indisvalid
        and split_part(pg_get_indexdef(indexrelid), ' USING btree ', 2) = has_index.definition);
comment on function audit_private.has_index is
    'Whether a table of the log has an index of this definition, on all its partitions';

create or replace function audit_private.index_months() returns setof text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _month date;
    _table text;
    _definition text;
    _definitions constant text[] := array(
        select definition from audit_private.partial_indexes()
        where not audit_private.has_index('audit.event', definition));
begin
    foreach _month in array audit_private.months_attached() loop
        _table := format('audit.%I', 'event_' || to_char(_month, 'YYYY_MM'));
        continue when (audit_private.month_bounds(_month)).ends > now()
            or not exists (
                select from unnest(_definitions) as d
                where not audit_private.has_index(_table::regclass, d));
        perform audit_private.lock_briefly(_table::regclass, 'share');
        foreach _definition in array _definitions loop
            if not audit_private.has_index(_table::regclass, _definition) then
                execute format('create index on %s %s', _table, _definition);
            end if;
        end loop;
        return next format('indexed %s', to_char(_month, 'YYYY-MM'));
        return;
    end loop;
end
$$;
comment on function audit_private.index_months is
    'Makes what indexes the first month lacks that is over, and says which; nobody writes there';

create or replace function audit_private.furnish_indexes() returns setof text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _lines text[];
    _name text;
    _definition text;
begin
    for _name in
        select name from audit_private.partial_indexes()
        where to_regclass('audit.' || name) is not null
            and not audit_private.has_index('audit.event', definition)
    loop
        perform audit_private.lock_briefly('audit.event', 'access exclusive');
        execute format('drop index audit.%I', _name);
        return next format('dropped the index %s, which was incomplete or altered', _name);
    end loop;
    if found then
        return;
    end if;
    _lines := array(select * from audit_private.index_months());
    if _lines <> '{}' then
        return query select unnest(_lines);
        return;
    end if;
    for _name, _definition in
        select name, definition from audit_private.partial_indexes()
        where not audit_private.has_index('audit.event', definition)
    loop
        -- Takes in those of months that have it. Writers wait while this month's is made.
        perform audit_private.lock_briefly('audit.event', 'share');
        execute format('create index %I on audit.event %s', _name, _definition);
        return next format('made the index %s', _name);
    end loop;
end
$$;
comment on function audit_private.furnish_indexes is
    'Does one step towards the indexes that the log is to have, and says which: part of maintenance'
    ', and of the installation of a new log';
