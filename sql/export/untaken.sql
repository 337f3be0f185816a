-- What retention waits for, and which events were dropped before a subscription had read them.

create or replace function audit_private.untaken(month date) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select format('keep %s: %s not taken all of its events yet: let the exporter run, drop the '
        'subscription, or use force', to_char(untaken.month, 'YYYY-MM'),
        case when count(*) = 1 then format('subscription %s has', min(s.name))
            else format('%s subscriptions, %s among them, have', count(*), min(s.name)) end)
    from audit.subscription as s
    -- Streams do not count: the sink of one customer must not keep the log of all.
    where s.state <> 'lapsed' and s.made_by is null and exists (
        select from audit.tick_month as m
        where m.month = untaken.month and m.tick_id > s.tick_id)
    having count(*) > 0;
$$;
comment on function audit_private.untaken is
    'Why retention keeps a month: subscriptions that have not read it; null if there are none';

-- Only if the log is sealed: nothing could prove events that were dropped before their seal.
create or replace function audit_private.unsealed(month date) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select format('keep %s: not all of its events are sealed yet: let auditdb seal run, or use '
        'force', to_char(unsealed.month, 'YYYY-MM'))
    from (select * from audit.seal order by id desc limit 1) as s
    where exists (
        select from audit.tick_month as m
        where m.month = unsealed.month and (m.tick_id > s.tick_id
            or m.tick_id = s.tick_id and m.month >= s.month and not s.is_last));
$$;
comment on function audit_private.unsealed is
    'Why retention keeps a month: it has unsealed events; '
    'null if all are sealed, or nothing ever is';

create or replace function audit_private.note_missed(month date) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    update audit.subscription as s
    set missed = s.missed + m.events
    from (
        select u.name, sum(k.events) as events
        from audit.subscription as u
            join audit.tick_month as k on k.month = note_missed.month and k.tick_id > u.tick_id
        group by u.name
    ) as m
    where m.name = s.name;
$$;
comment on function audit_private.note_missed is
    'Notes for each subscription how many events it had not read of a month that is dropped';
