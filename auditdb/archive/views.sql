-- The views of docs/views.md for DuckDB, over audit.event there: the same columns and meanings as
-- sql/read/views.sql and signals.sql, which say why. Values are JSON as text: ->> '$."name"'.

create or replace macro audit.detail(details, name) as
    json_extract_string(details, '$."' || name || '"');

create or replace macro audit.has_detail(details, name) as
    coalesce(json_exists(details, '$."' || name || '"'), false);

create or replace macro audit.called(image) as (
    select string_agg(said, ', ' order by part)
    from (
        select r.part, arg_min(v.key || ' ' || to_json(left(v.value ->> '$', 40)),
            (r.rank, length(v.key), v.key)) as said
        from json_each(image) as v
            join audit.called_rank as r on r.name = lower(replace(v.key, '_', ''))
        where v.value ->> '$' not in ('', '[redacted]')
        group by r.part
    ));

create or replace macro audit.changed(old_values, new_values) as (
    select string_agg(n.key || ': ' || coalesce(left(o.value ->> '$', 40), '-') || ' -> '
        || coalesce(left(n.value ->> '$', 40), '-'), ', ' order by n.key)
    from json_each(new_values) as n
        left join (select key, value from json_each(old_values)) as o on o.key = n.key);

create or replace macro audit.normal_name(name) as
    translate('-' || lower(regexp_replace(regexp_replace(name, '([a-z0-9])([A-Z])', '\1-\2', 'g'),
        '([A-Z])([A-Z][a-z])', '\1-\2', 'g')) || '-', ' _./:$@#+[]~', '------------');

create or replace macro audit.names_owner(role) as
    list_bool_or(list_transform(string_split(translate(role, '[]{}"', ''), ','),
        lambda part: regexp_matches(audit.normal_name(part),
            '^-+((organi[sz]ation|org|account|workspace|company|tenant|business|super|primary|'
            || 'system|full|global|co|site|head|role|main)-+)*(co)?owners?-+$')));

create or replace macro audit.gives_owner(image) as (
    select coalesce(bool_or(
        regexp_matches(lower(replace(v.key, '_', '')), 'roles?(name|slug|key|code|type)?$')
            and audit.names_owner(v.value ->> '$')
        or regexp_matches(lower(replace(v.key, '_', '')),
            '^is(account|org|organi[sz]ation|team|workspace)?owner$') and v.value ->> '$' = 'true'
        ), false)
    from json_each(image) as v);

create or replace view audit.log as
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
        when e.captured_from is not null and audit.has_detail(e.details, 'previous_role') then
            coalesce(audit.detail(e.details, 'previous_role'), '-') || ' -> '
                || coalesce(audit.detail(e.details, 'new_role'), '-')
        when e.old_values is not null and e.new_values is not null then
            audit.changed(e.old_values, e.new_values)
        else nullif(concat_ws(', ',
            case when not audit.has_detail(e.details, 'row_id') then null
                when e.new_values is not null then e.captured_from || ' added'
                when e.old_values is not null then e.captured_from || ' removed' end,
            audit.called(coalesce(e.new_values, e.old_values)),
            case when coalesce(e.new_values, e.old_values) is not null
                and e.captured_from is not null then
                'in ' || json_extract_string(e.details, '$.group.type') || ' '
                    || json_extract_string(e.details, '$.group.id') end,
            audit.detail(e.details, 'reason')), '')
    end as change,
    e.source,
    audit.detail(e.details, 'ip') as ip,
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
    e.database
from audit.event as e
where e.captured_from is null or e.action not like '%.baseline';

create or replace view audit.auth_log as
select * from audit.log where category = 'auth';

create or replace view audit.membership_log as
select * from audit.log where category = 'membership';

create or replace view audit.api_key_log as
select * from audit.log where category = 'api_key';

create or replace view audit.workflow_log as
select * from audit.log where category = 'workflow';

create or replace view audit.role_change as
select
    e.occurred_at,
    e.organization_id,
    e.subject_id as user_id,
    audit.detail(e.details, 'previous_role') as previous_role,
    audit.detail(e.details, 'new_role') as new_role,
    e.actor_id,
    e.actor_type,
    e.impersonator_id,
    e.source,
    e.target_id as membership_id,
    e.id,
    e.captured_from,
    e.database
from audit.event as e
where e.action = 'membership.role_changed' and e.result not in ('failure', 'denied')
    and e.captured_from is not null;

-- The first stop of the same pair, unless another start of that pair comes before it.
create or replace view audit.impersonation as
select
    s.occurred_at as started_at,
    s.stopped_at,
    s.stopped_at - s.occurred_at as duration,
    s.impersonator_id,
    s.user_id,
    s.organization_id,
    s.source,
    s.reason,
    s.stop_id is null as is_open,
    s.id as start_id,
    s.stop_id,
    s.database
from (
    select
        e.action, e.occurred_at, e.impersonator_id, e.subject_id as user_id, e.organization_id,
        e.source, audit.detail(e.details, 'reason') as reason, e.id, e.database,
        case when lead(e.action) over pair = 'auth.impersonation_stopped'
            then lead(e.occurred_at) over pair end as stopped_at,
        case when lead(e.action) over pair = 'auth.impersonation_stopped'
            then lead(e.id) over pair end as stop_id
    from audit.event as e
    where e.action in ('auth.impersonation_started', 'auth.impersonation_stopped')
        and e.result not in ('failure', 'denied')
    window pair as (
        partition by e.database, e.organization_id, e.impersonator_id, e.subject_id,
            e.impersonator_id is null or e.subject_id is null, case when e.impersonator_id is null
                or e.subject_id is null then e.id end
        order by e.occurred_at, e.id
    )
) as s
where s.action = 'auth.impersonation_started';

create or replace view audit.api_key_lifecycle as
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
    count(*) as events,
    e.database
from audit.event as e
where e.action in ('api_key.created', 'api_key.updated', 'api_key.revoked')
    and e.captured_from is not null
group by e.database, e.organization_id, e.target_id;

create or replace view audit.login_activity as
select
    e.organization_id,
    e.subject_id as user_id,
    count(*) filter (where e.result = 'success') as successes,
    count(*) filter (where e.result = 'failure') as failures,
    count(*) filter (where e.result = 'denied') as denials,
    max(e.occurred_at) filter (where e.result = 'success') as last_success_at,
    max(e.occurred_at) filter (where e.result <> 'success') as last_failure_at,
    list_sort(array_agg(distinct e.source)) as sources,
    list_sort(array_agg(distinct audit.detail(e.details, 'ip'))
        filter (where audit.has_detail(e.details, 'ip'))) as ips,
    e.database
from audit.event as e
where e.action = 'auth.login'
group by e.database, e.organization_id, e.subject_id;

create or replace view audit.failed_login as
select
    e.occurred_at,
    e.organization_id,
    e.subject_id as user_id,
    e.result,
    audit.detail(e.details, 'reason') as reason,
    e.source,
    audit.detail(e.details, 'ip') as ip,
    audit.detail(e.details, 'user_agent') as user_agent,
    e.id,
    e.database
from audit.event as e
where e.action = 'auth.login' and e.result <> 'success'
    and e.occurred_at > now() - interval '7 days';

create or replace view audit.denied_attempt as
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
    audit.detail(e.details, 'reason') as reason,
    e.source,
    audit.detail(e.details, 'ip') as ip,
    e.id,
    e.database
from audit.event as e
where e.result = 'denied' and e.occurred_at > now() - interval '7 days';

create or replace view audit.login_burst as
with mark as (
    select
        f.occurred_at, f.organization_id, f.id, s.user_id, s.ip, f.database,
        coalesce(lag(f.occurred_at, 4) over one >= f.occurred_at - interval '10 minutes', false)
            as is_fifth,
        coalesce(lag(f.occurred_at) over one < f.occurred_at - interval '10 minutes', true)
            as is_first
    from audit.failed_login as f
        cross join lateral (
            select f.user_id, null union all select null, f.ip) as s (user_id, ip)
    where coalesce(s.user_id, s.ip) is not null
    window one as (
        partition by f.database, f.organization_id, s.user_id, s.ip order by f.occurred_at, f.id
    )
),
run as (
    select e.*, count(*) filter (where e.is_first) over (
            partition by e.database, e.organization_id, e.user_id, e.ip
            order by e.occurred_at, e.id
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
    (array_agg(e.id order by e.occurred_at desc, e.id desc))[1] as id,
    e.database
from run as e
group by e.database, e.organization_id, e.user_id, e.ip, e.number
having bool_or(e.is_fifth);

create or replace view audit.new_owner as
select
    e.occurred_at,
    e.organization_id,
    e.subject_id as user_id,
    e.action,
    audit.detail(e.details, 'previous_role') as previous_role,
    e.actor_id,
    e.actor_type,
    e.impersonator_id,
    e.source,
    e.captured_from,
    e.id,
    e.database
from audit.event as e
where e.action in ('membership.added', 'membership.role_changed')
    and e.result not in ('failure', 'denied')
    and e.occurred_at > now() - interval '7 days'
    and not audit.has_detail(e.details, 'group')
    and (coalesce(audit.names_owner(audit.detail(e.details, 'new_role')), false)
        or audit.gives_owner(e.new_values))
    and not coalesce(audit.names_owner(audit.detail(e.details, 'previous_role')), false)
    and (e.old_values is null or not audit.gives_owner(e.old_values));

create or replace view audit.open_impersonation as
select
    e.started_at as occurred_at,
    e.organization_id,
    e.impersonator_id,
    e.user_id,
    e.stopped_at,
    e.reason,
    e.is_open,
    e.source,
    e.start_id as id,
    e.database
from audit.impersonation as e
where e.started_at > now() - interval '7 days' and (e.is_open or coalesce(e.reason, '') = '');

create or replace view audit.unusual_login as
with login as (
    select
        e.occurred_at, e.organization_id, e.target_id as user_id, e.source, e.id, e.database,
        audit.detail(e.details, 'ip') as ip, audit.detail(e.details, 'user_agent') as user_agent
    from audit.event as e
    where e.action = 'auth.login' and e.result = 'success' and e.target_id is not null
        and e.organization_id is not null
),
known as (
    select
        l.*,
        min(l.occurred_at) over (partition by l.database, l.organization_id, l.user_id) as first,
        min(l.occurred_at) over (
            partition by l.database, l.organization_id, l.user_id, l.ip) as first_ip,
        min(l.occurred_at) over (
            partition by l.database, l.organization_id, l.user_id, l.user_agent) as first_agent
    from login as l
)
select
    k.occurred_at,
    k.organization_id,
    k.user_id,
    coalesce(k.ip is not null and k.first_ip = k.occurred_at, false) as is_new_ip,
    coalesce(k.user_agent is not null and k.first_agent = k.occurred_at, false)
        as is_new_user_agent,
    k.ip,
    k.user_agent,
    k.source,
    k.id,
    k.database
from known as k
where k.occurred_at > now() - interval '7 days' and k.occurred_at > k.first
    and (is_new_ip or is_new_user_agent);

create or replace view audit.old_api_key as
select
    e.created_at as occurred_at,
    e.organization_id,
    e.api_key_id,
    now() - e.created_at as age,
    e.id,
    e.database
from (
    select
        e.database, e.organization_id, e.target_id as api_key_id,
        min(e.occurred_at) as created_at, min(e.id) as id
    from audit.event as e
    where e.action in ('api_key.created', 'api_key.revoked')
    group by e.database, e.organization_id, e.target_id
    having bool_and(e.action = 'api_key.created')
) as e
where e.created_at < now() - interval '1 year';
