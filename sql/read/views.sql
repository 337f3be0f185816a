-- Views for psql and BI tools. Each runs with the rights of its caller: row-level security shows an
-- admin their organisation, an auditor everything, and everybody else nothing.

do $$ begin perform audit_private.add_db_role(); end $$;

create or replace view audit.log with (security_invoker = true) as
select
    e.occurred_at,
    split_part(e.action, '.', 1) as category,
    e.action,
    e.result,
    case when e.impersonator_id is null or e.impersonator_id = e.actor_id then e.actor_id
        else e.impersonator_id || ' as ' || coalesce(e.actor_id, '?') end as actor,
    e.target_type,
    e.target_id,
    e.subject_id,
    case
        when e.captured_from is not null and e.details ? 'previous_role' then
            coalesce(e.details ->> 'previous_role', '-') || ' -> '
                || coalesce(e.details ->> 'new_role', '-')
        when e.old_values is not null and e.new_values is not null then (
            select string_agg(n.key || ': ' || coalesce(left(e.old_values ->> n.key, 40), '-')
                || ' -> ' || coalesce(left(n.value, 40), '-'), ', ' order by n.key)
            from jsonb_each_text(e.new_values) as n
        )
        else nullif(concat_ws(', ',
            -- For a part, since the action is that of the whole.
            -- In the collation that change always had.
            case when e.details ? 'row_id' is not true then null
                when e.new_values is not null then e.captured_from collate "default" || ' added'
                when e.old_values is not null
                    then e.captured_from collate "default" || ' removed' end,
            audit_private.called(coalesce(e.new_values, e.old_values)),
            case when coalesce(e.new_values, e.old_values) is not null
                and e.captured_from is not null then
                -- For a team: this is no membership of the organisation.
                'in ' || (e.details #>> '{group,type}') || ' ' || (e.details #>> '{group,id}') end,
            e.details ->> 'reason'), '')
    end as change,
    e.source,
    e.details ->> 'ip' as ip,
    e.organization_id,
    e.actor_id,
    e.actor_type,
    e.impersonator_id,
    e.db_user,
    e.captured_from,
    e.old_values,
    e.new_values,
    e.details,
    e.transaction_id,
    e.id,
    e.db_role,
    -- Nearly every event belongs to the last series, so that one is looked up only once.
    case
        when e.id > (select max(s.after_id) from audit.series as s where s.began <> 'continued')
            then (select max(s.id) from audit.series as s where s.began <> 'continued')
        else (
            select max(s.id) from audit.series as s
            where s.began <> 'continued' and s.after_id < e.id
        )
    end as series_id
from audit.event as e
-- Nobody did these: the rows existed already.
where (e.captured_from is null or e.action not like '%.baseline');
comment on view audit.log is
    'Every event, with its change in words; without baseline events (<kind>.baseline). '
    'transaction_id is unique within series_id, which is null for events from before the first '
    'series';

-- The prefix "auth." is a range, because "/" comes after "."; written as "at least any of". Without
-- statistics the planner takes a plain range for rare, and would sort all of an organisation.
create or replace view audit.auth_log with (security_invoker = true) as
select * from audit.log
where action >= any (array['auth.']) and action < any (array['auth/']);
comment on view audit.auth_log is
    'Events of sign-ins, passwords, two-factor, impersonation and e-mail addresses';

create or replace view audit.membership_log with (security_invoker = true) as
select * from audit.log
where action >= any (array['membership.']) and action < any (array['membership/']);
comment on view audit.membership_log is
    'Events of members who were added, removed, or given another role';

create or replace view audit.api_key_log with (security_invoker = true) as
select * from audit.log
where action >= any (array['api_key.']) and action < any (array['api_key/']);
comment on view audit.api_key_log is
    'Events of API keys that were created, changed and revoked';

create or replace view audit.workflow_log with (security_invoker = true) as
select * from audit.log
where action >= any (array['workflow.']) and action < any (array['workflow/']);
comment on view audit.workflow_log is
    'Events of workflows that were created, changed and deleted, including their steps';

-- Excludes results instead of asking for one: without statistics the planner takes any value for
-- rare, and would sort all events of an organisation.
create or replace view audit.role_change with (security_invoker = true) as
select
    e.occurred_at,
    e.organization_id,
    e.subject_id as user_id,
    e.details ->> 'previous_role' as previous_role,
    e.details ->> 'new_role' as new_role,
    e.actor_id,
    e.actor_type,
    e.impersonator_id,
    e.source,
    e.target_id as membership_id,
    e.id,
    e.captured_from
from audit.event as e
where e.action = 'membership.role_changed' and e.result not in ('failure', 'denied')
    and e.captured_from is not null;
comment on view audit.role_change is
    'Role changes that succeeded: of whom, from which role to which, by whom, in which table';

create or replace view audit.impersonation with (security_invoker = true) as
select
    s.occurred_at as started_at,
    e.occurred_at as stopped_at,
    e.occurred_at - s.occurred_at as duration,
    s.impersonator_id,
    s.subject_id as user_id,
    s.organization_id,
    s.source,
    s.details ->> 'reason' as reason,
    e.id is null as is_open,
    s.id as start_id,
    e.id as stop_id
from audit.event as s
left join lateral (
    -- The first stop of the same pair, unless another start of the pair comes before it.
    select n.occurred_at, n.id, n.action
    from audit.event as n
    where n.action in ('auth.impersonation_started', 'auth.impersonation_stopped')
        and n.result not in ('failure', 'denied')
        and n.impersonator_id = s.impersonator_id
        and n.subject_id = s.subject_id
        and n.organization_id is not distinct from s.organization_id
        and (n.occurred_at, n.id) > (s.occurred_at, s.id)
    order by n.occurred_at, n.id
    limit 1
) as e on e.action = 'auth.impersonation_stopped'
where s.action = 'auth.impersonation_started' and s.result not in ('failure', 'denied');
comment on view audit.impersonation is
    'Impersonations, with the start and the stop of each; is_open if it has not ended';

create or replace view audit.api_key_lifecycle with (security_invoker = true) as
select
    e.organization_id,
    e.target_id as api_key_id,
    max(e.subject_id) as owner_id,
    min(e.occurred_at) filter (where e.action = 'api_key.created') as created_at,
    (array_agg(e.actor_id order by e.occurred_at, e.id)
        filter (where e.action = 'api_key.created'))[1] as created_by,
    max(e.occurred_at) filter (where e.action = 'api_key.revoked') as revoked_at,
    (array_agg(e.actor_id order by e.occurred_at desc, e.id desc)
        filter (where e.action = 'api_key.revoked'))[1] as revoked_by,
    coalesce(max(e.occurred_at) filter (where e.action = 'api_key.revoked'), now())
        - min(e.occurred_at) filter (where e.action = 'api_key.created') as age,
    count(*) as events
from audit.event as e
where e.action in ('api_key.created', 'api_key.updated', 'api_key.revoked')
    and e.captured_from is not null
group by e.organization_id, e.target_id;
comment on view audit.api_key_lifecycle is
    'Each API key: when and by whom it was created and revoked, and its age';

create or replace view audit.login_activity with (security_invoker = true) as
select
    e.organization_id,
    e.subject_id as user_id,
    count(*) filter (where e.result = 'success') as successes,
    count(*) filter (where e.result = 'failure') as failures,
    count(*) filter (where e.result = 'denied') as denials,
    max(e.occurred_at) filter (where e.result = 'success') as last_success_at,
    max(e.occurred_at) filter (where e.result <> 'success') as last_failure_at,
    array_agg(distinct e.source) as sources,
    array_agg(distinct e.details ->> 'ip') filter (where e.details ? 'ip') as ips
from audit.event as e
where e.action = 'auth.login'
group by e.organization_id, e.subject_id;
comment on view audit.login_activity is
    'Sign-ins by user: how many succeeded and failed, the last one, and from where';
