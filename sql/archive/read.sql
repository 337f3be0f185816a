-- Reading the archive: the rights of the reader are looked up now, before any file is read.
-- auditdb/archive/read.py reads the files.

create or replace function audit_private.archived_months()
returns table (database text, months text[])
language sql stable security definer set search_path = pg_catalog, pg_temp set row_security = on
as $$
    select a.database, array_agg(to_char(a.month, 'YYYY-MM') order by a.month)
    from audit.archive as a
    where a.dropped_at is not null and a.restored_at is null
    group by a.database;
$$;
-- Definer: it shows neither the place nor the size of the archive.
comment on function audit_private.archived_months is
    'The months that only the archive still has, and the name of this database there';
