-- Reading the archive with the rights of now: who asks is looked up here, and only then is a file
-- read. auditdb/archive/read.py does that.

create or replace function audit_private.archived_months()
returns table (database text, months text[])
language sql stable security definer set search_path = pg_catalog, pg_temp set row_security = on
as $$
    select a.database, array_agg(to_char(a.month, 'YYYY-MM') order by a.month)
    from audit.archive as a
    where a.dropped_at is not null and a.restored_at is null
    group by a.database;
$$;
-- Definer: says nothing of where the archive is, nor how large.
comment on function audit_private.archived_months is
    'The months that are in the archive and no longer here, and what this database is called there';
