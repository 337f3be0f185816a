-- Partial indexes of the log: each holds only the events that it serves. Each begins with
-- organization_id, so that a reader's query touches no entry of another organisation. Maintenance
-- builds the indexes that an older log lacks, month by month; writers wait only for this month's.

create or replace function audit_private.partial_indexes()
returns table (name text, definition text)
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    values
        ('event_failure_idx',
            '(organization_id, occurred_at DESC, id DESC, action, result) '
            'WHERE (result <> ''success''::text)'),
        -- By user, the target of a sign-in, and by key; for readings, the newest.
        ('event_sign_in_key_idx',
            '(organization_id, action, target_id, result, occurred_at, id) '
            'WHERE (action = ANY (ARRAY[''auth.login''::text, ''api_key.created''::text, '
            '''api_key.updated''::text, ''api_key.revoked''::text, ''audit.viewed''::text]))');
$$;
comment on function audit_private.partial_indexes is
    'The partial indexes of the log, with their definitions as PostgreSQL prints them';

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
    'Builds the missing indexes of the first month that is over and lacks some; '
    'returns what it did';

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
        -- Takes over the indexes of the months that have them.
        -- Writers wait while this month's is built.
        perform audit_private.lock_briefly('audit.event', 'share');
        execute format('create index %I on audit.event %s', _name, _definition);
        return next format('made the index %s', _name);
    end loop;
end
$$;
comment on function audit_private.furnish_indexes is
    'Does one step towards the missing indexes of the log, and returns what it did; part of '
    'maintenance, and of the installation of a new log';
