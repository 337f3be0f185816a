-- Signals: what an admin should look at; each row is a finding, and shows the event it points to.
-- Each view runs with the rights of its caller, like the views of views.sql.

-- Excludes results instead of asking for one, as in views.sql and event_failure_idx.
create or replace view audit.failed_login with (security_invoker = true) as
select
    e.occurred_at,
    e.organization_id,
    e.subject_id as user_id,
    e.result,
    e.details ->> 'reason' as reason,
    e.source,
    e.details ->> 'ip' as ip,
    e.details ->> 'user_agent' as user_agent,
    e.id
from audit.event as e
where e.action = 'auth.login' and e.result <> 'success'
    and e.occurred_at > now() - interval '7 days';
comment on view audit.failed_login is
    'Sign-ins of the last 7 days that failed or were denied';

create or replace view audit.denied_attempt with (security_invoker = true) as
select
    e.occurred_at,
    e.organization_id,
    e.action,
    e.actor_id,
    e.actor_type,
    e.impersonator_id,
    e.target_type,
    e.target_id,
    e.subject_id,
    e.details ->> 'reason' as reason,
    e.source,
    e.details ->> 'ip' as ip,
    e.id
from audit.event as e
where e.result = 'denied' and e.result <> 'success'
    and e.occurred_at > now() - interval '7 days';
comment on view audit.denied_attempt is
    'Attempts of the last 7 days that were denied';

create or replace view audit.login_burst with (security_invoker = true) as
with mark as (
    select
        f.occurred_at, f.organization_id, f.id, s.user_id, s.ip,
        lag(f.occurred_at, 4) over one >= f.occurred_at - interval '10 minutes' as is_fifth,
        coalesce(lag(f.occurred_at) over one < f.occurred_at - interval '10 minutes', true)
            as is_first
    from audit.failed_login as f
        cross join lateral (values (f.user_id, null), (null, f.ip)) as s (user_id, ip)
    where coalesce(s.user_id, s.ip) is not null
    window one as (
        partition by f.organization_id, s.user_id, s.ip order by f.occurred_at, f.id
    )
),
run as (
    select e.*, count(*) filter (where e.is_first) over (
            partition by e.organization_id, e.user_id, e.ip order by e.occurred_at, e.id
        ) as number
    from mark as e
)
select
    max(e.occurred_at) as occurred_at,
    e.organization_id,
    e.user_id,
    e.ip,
    min(e.occurred_at) as started_at,
    count(*) as failures,
    (array_agg(e.id order by e.occurred_at desc, e.id desc))[1] as id
from run as e
group by e.organization_id, e.user_id, e.ip, e.number
having bool_or(e.is_fifth);
comment on view audit.login_burst is
    'Sign-ins of one user, or from one ip, that failed in the last 7 days, five or more of them '
    'within 10 minutes; a burst ends after 10 minutes without one. The row shows the last one';

create or replace view audit.new_owner with (security_invoker = true) as
select
    e.occurred_at,
    e.organization_id,
    e.subject_id as user_id,
    e.action,
    e.details ->> 'previous_role' as previous_role,
    e.actor_id,
    e.actor_type,
    e.impersonator_id,
    e.source,
    e.captured_from,
    e.id
from audit.event as e
where e.action in ('membership.added', 'membership.role_changed')
    and e.result not in ('failure', 'denied')
    and e.occurred_at > now() - interval '7 days'
    -- Not owners of a team.
    and (e.details ? 'group') is not true
    -- Cheap, and true for few events.
    and concat(e.details ->> 'new_role', e.new_values) ~* 'owner'
    and (audit_private.names_owner(e.details ->> 'new_role')
        or audit_private.gives_owner(e.new_values))
    and audit_private.names_owner(e.details ->> 'previous_role') is not true
    and (e.old_values is null or not audit_private.gives_owner(e.old_values));
comment on view audit.new_owner is
    'Members who became an owner in the last 7 days: added as an owner, or given that role';

create or replace view audit.open_impersonation with (security_invoker = true) as
select
    e.started_at as occurred_at,
    e.organization_id,
    e.impersonator_id,
    e.user_id,
    e.stopped_at,
    e.reason,
    e.is_open,
    e.source,
    e.start_id as id
from audit.impersonation as e
where e.started_at > now() - interval '7 days'
    and (e.is_open or coalesce(e.reason, '') = '');
comment on view audit.open_impersonation is
    'Impersonations of the last 7 days that have not ended, or that have no reason';


-- One pass finds the first sign-in of the week from each ip, and by each user agent. Only for these
-- it looks for an earlier one, first within a month, where most are found. A condition on details
-- is not leakproof, so no index can answer it;
-- the index of sign-ins finds those of the user, newest first.
create or replace view audit.unusual_login with (security_invoker = true) as
with first as (
    select
        e.organization_id,
        e.target_id,
        (e.details ->> 'ip') collate "C" as ip,
        (e.details ->> 'user_agent') collate "C" as user_agent,
        min(e.occurred_at) as occurred_at
    from audit.event as e
    where e.action = 'auth.login' and e.result = 'success' and e.target_id is not null
        and e.occurred_at > now() - interval '7 days'
    group by grouping sets (
        (e.organization_id, e.target_id, (e.details ->> 'ip') collate "C"),
        (e.organization_id, e.target_id, (e.details ->> 'user_agent') collate "C"))
),
unseen as (
    select f.*
    from first as f
    where coalesce(f.ip, f.user_agent) is not null
        and coalesce((
            select false from audit.event as e
            where e.action = 'auth.login' and e.result = 'success'
                and e.organization_id = f.organization_id and e.target_id = f.target_id
                and e.occurred_at <= now() - interval '7 days'
                and e.occurred_at > now() - interval '38 days'
                and (e.details ->> 'ip' = f.ip or e.details ->> 'user_agent' = f.user_agent)
            limit 1
        ), (
            select false from audit.event as e
            where e.action = 'auth.login' and e.result = 'success'
                and e.organization_id = f.organization_id and e.target_id = f.target_id
                and e.occurred_at <= now() - interval '38 days'
                and (e.details ->> 'ip' = f.ip or e.details ->> 'user_agent' = f.user_agent)
            limit 1
        ), true)
)
select
    e.occurred_at,
    e.organization_id,
    e.target_id as user_id,
    bool_or(u.ip is not null) as is_new_ip,
    bool_or(u.user_agent is not null) as is_new_user_agent,
    e.details ->> 'ip' as ip,
    e.details ->> 'user_agent' as user_agent,
    e.source,
    e.id
from unseen as u
    join audit.event as e on e.action = 'auth.login' and e.result = 'success'
        and e.organization_id = u.organization_id and e.target_id = u.target_id
        and e.occurred_at = u.occurred_at
        and (e.details ->> 'ip' = u.ip or e.details ->> 'user_agent' = u.user_agent)
where exists (
    select from audit.event as e
    where e.action = 'auth.login' and e.result = 'success'
        and e.organization_id = u.organization_id and e.target_id = u.target_id
        and e.occurred_at < u.occurred_at
)
group by e.occurred_at, e.id, e.organization_id, e.target_id, e.details, e.source;
comment on view audit.unusual_login is
    'Sign-ins of the last 7 days from an ip, or by a user agent, that was new for the user in this '
    'organisation; the very first sign-in of a user does not count';

-- For a viewer of one organisation with many such events, keys are fetched one by one, each with
-- its revocation, so that a page can stop early.
create or replace view audit.old_api_key with (security_invoker = true) as
with recursive organization (is_large) as (
    select count(*) = 20000 and not exists (
        select from audit.event as o
        where o.action = 'api_key.created' and o.organization_id > min(e.organization_id))
    from (
        select e.organization_id
        from audit.event as e
        where e.action = 'api_key.created' and e.organization_id is not null
        limit 20000
    ) as e
),
next (organization_id, target_id) as (
    (
        select e.organization_id, e.target_id
        from audit.event as e
        where e.action = 'api_key.created' and e.occurred_at < now() - interval '1 year'
            and (select o.is_large from organization as o)
        order by e.organization_id, e.target_id
        limit 1
    )
    union all
    select n.organization_id, n.target_id
    from next as b
        cross join lateral (
            select e.organization_id, e.target_id
            from audit.event as e
            where e.action = 'api_key.created' and e.occurred_at < now() - interval '1 year'
                and e.organization_id = b.organization_id and e.target_id > b.target_id
            order by e.organization_id, e.target_id
            limit 1
        ) as n
)
select
    e.created_at as occurred_at,
    e.organization_id,
    e.target_id as api_key_id,
    now() - e.created_at as age,
    e.id
from (
    select e.organization_id, e.target_id, min(e.occurred_at), min(e.id)
    from audit.event as e
    where e.action in ('api_key.created', 'api_key.revoked')
        and not (select o.is_large from organization as o)
    group by e.organization_id, e.target_id
    having bool_and(e.action = 'api_key.created')
    union all
    select n.organization_id, n.target_id, c.occurred_at, c.id
    from next as n
        cross join lateral (
            select where not coalesce((
                select true
                from audit.event as e
                where e.action = 'api_key.revoked' and e.organization_id = n.organization_id
                    and e.target_id = n.target_id
                limit 1
            ), false)
            offset 0
        ) as is_alive
        cross join lateral (
            select e.occurred_at, e.id
            from audit.event as e
            where e.action = 'api_key.created' and e.organization_id = n.organization_id
                and e.target_id = n.target_id
            order by e.occurred_at, e.id
            limit 1
        ) as c
) as e (organization_id, target_id, created_at, id)
where e.created_at < now() - interval '1 year';
comment on view audit.old_api_key is
    'API keys that were created more than a year ago and, by the events, were not revoked';
