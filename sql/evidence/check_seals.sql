-- Check of seals: if this log is sealed, everything older than an hour must be sealed.

create or replace function audit_private.check_seals() returns setof audit.finding
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _last audit.seal := (select s from audit.seal as s order by id desc limit 1);
    _tick audit.tick := (select t from audit.tick as t where t.id = _last.tick_id);
begin
    if exists (
            select from audit.tick as n
            where n.id >= _tick.id + _last.is_last::int and n.made_at < now() - interval '1 hour')
        -- Only months since the last seal:
        -- earlier ones may be missing, such as those of another server.
        or exists (
            select from audit.event as e
            where e.id > _tick.upper_id and e.occurred_at > _tick.made_at + interval '1 minute'
                and e.occurred_at < now() - interval '1 hour')
    then
        return next ('seals', 'warning', 'audit.seal', format('events since %s are not sealed',
                to_char(_tick.made_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI')),
            'They could be changed unnoticed, and retention waits for them.', 'auditdb seal', false
            )::audit.finding;
    end if;
end
$$;
comment on function audit_private.check_seals is
    'Whether sealing has stopped: there are seals, but unsealed events older than an hour';
