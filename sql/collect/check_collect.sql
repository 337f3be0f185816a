-- What the doctor says of collecting. At the centre it runs the checks of collect/check.sql. In
-- each database it checks the slot, which keeps the write-ahead log for the centre.

create or replace function audit_private.check_slots() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'collect', p.severity, 'slot ' || quote_ident(s.slot_name), p.problem, p.why, p.mend,
        false
    from pg_replication_slots as s
        cross join lateral (select case when not pg_is_in_recovery() then
            pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)) end) as k (kept)
        cross join lateral (
            select 'critical', 'lost what it kept: it held more than max_slot_wal_keep_size',
                'The centre goes on only after a new copy; it keeps what it has.',
                'auditdb collect ' || substr(s.slot_name, 9) || ' --from DSN  # at the centre'
            where s.wal_status = 'lost'
            union all
            select 'warning',
                format('is read by nobody, and keeps %s of the write-ahead log', k.kept),
                'It keeps ever more, until the disk is full or max_slot_wal_keep_size (now '
                || current_setting('max_slot_wal_keep_size') || ') is reached.',
                'auditdb doctor  # at the centre; to end it, here: auditdb publish --drop'
            where not s.active and s.wal_status <> 'lost'
            union all
            select 'warning', format('may keep no more than %s', pg_size_pretty(s.safe_wal_size)),
                'Then it is lost, and the centre needs a new copy.',
                '-- why is the centre late? At the centre: auditdb doctor'
            where s.wal_status in ('extended', 'unreserved') and s.safe_wal_size < 1073741824
        ) as p (severity, problem, why, mend)
    where s.database = current_database() and s.slot_type = 'logical'
        and s.slot_name ~ '^auditdb_';
$$;
comment on function audit_private.check_slots is
    'Slots that keep the write-ahead log of this database for a centre that does not read it';

create or replace function audit_private.check_collected() returns setof audit.finding
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regprocedure('audit_collected.doctor()') is not null then
        return query execute 'select * from audit_collected.doctor()';
    end if;
end
$$;
comment on function audit_private.check_collected is
    'What is wrong with the events of other databases that are collected here';
