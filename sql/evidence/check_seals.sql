-- Check of seals: where somebody seals, what is older than an hour is sealed.

create or replace function audit_private.check_seals() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'seals', 'warning', 'audit.seal', format('events since %s are not sealed',
            to_char(t.made_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI')),
        'They could be changed unnoticed, and retention waits for them.', 'auditdb seal', false
    from (select * from audit.seal order by id desc limit 1) as s
        join audit.tick as t on t.id = s.tick_id
    where exists (
            select from audit.tick as n
            where n.id >= s.tick_id + s.is_last::int and n.made_at < now() - interval '1 hour')
        or exists (
            select from audit.event as e
            where e.id > t.upper_id and e.occurred_at > t.made_at + interval '1 minute'
                and e.occurred_at < now() - interval '1 hour');
$$;
comment on function audit_private.check_seals is
    'Whether a sealer that once worked is an hour behind';
