-- Recorded events: events that no table shows, such as a sign-in, a refusal or an impersonation.
-- Their captured_from is null. A caller cannot set the time, id, transaction or db_user.

-- Each limited login has a sequence that counts its calls: a rollback does not undo a drawn number,
-- and no session waits for another. The numbers of a minute begin at a value made from it. Two
-- calls that both find a new minute may count as one.
create or replace function audit_private.count_recording() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _size constant bigint := 1 << 24;
    _now bigint := floor(extract(epoch from clock_timestamp()) / 60) * _size;
    _limit record;
    _count bigint;
begin
    select per_minute, format('audit_private.recorded_%s', id)::regclass as sequence into _limit
    from audit_private.recording_limit
    where login = session_user and per_minute is not null;
    if not found then
        return;
    end if;
    _count := nextval(_limit.sequence) - _now;
    if _count not between 0 and _size - 1 then
        _count := setval(_limit.sequence, _now + 1) - _now;
    end if;
    if _count > _limit.per_minute then
        raise exception 'login "%" records more than % events a minute', session_user,
                _limit.per_minute
            using errcode = 'configuration_limit_exceeded',
                hint = 'Try again in the next minute. An operator can raise the limit: '
                    'select audit.limit_recording(login, per_minute).';
    end if;
end
$$;
comment on function audit_private.count_recording is
    'Counts a call of audit.record_event, and raises if its login has reached its limit per minute';

create or replace function audit.limit_recording(login text, per_minute int) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    _before audit_private.recording_limit;
    _id int;
begin
    if not exists (select from pg_roles where rolname = limit_recording.login) then
        raise exception 'there is no login "%"', limit_recording.login
            using errcode = 'undefined_object', hint = 'Use the name in db_user of its events.';
    elsif limit_recording.per_minute not between 0 and 1000000 then
        raise exception 'the limit is %', limit_recording.per_minute
            using errcode = 'invalid_parameter_value',
                hint = 'Give a number of events a minute up to a million, or null for no limit.';
    end if;
    select * into _before from audit_private.recording_limit as l
    where l.login = limit_recording.login for update;
    if limit_recording.per_minute is not distinct from _before.per_minute then
        return;
    end if;
    -- The row and its sequence stay when the limit ends, because a DROP would make writers wait.
    insert into audit_private.recording_limit (login, per_minute)
    values (limit_recording.login, limit_recording.per_minute)
    on conflict (login) do update set per_minute = excluded.per_minute, set_at = now(),
        set_by = session_user
    returning id into _id;
    perform audit_private.prepare_counter(_id);
    perform audit_private.record_own('recording_limited', limit_recording.login,
        jsonb_build_object('per_minute', _before.per_minute),
        jsonb_build_object('per_minute', limit_recording.per_minute));
end
$$;
-- Definer: operators hold no privilege on the table itself.
comment on function audit.limit_recording is
    'Limits how many events a login may record by audit.record_event per minute; null ends the '
    'limit. Events that triggers capture are never limited. Records an event';

create or replace function audit_private.prepare_counter(id int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _name text := format('recorded_%s', prepare_counter.id);
begin
    if to_regclass('audit_private.' || _name) is null then
        execute format('create sequence audit_private.%I', _name);
        execute format('comment on sequence audit_private.%I is %L', _name,
            'Minute and number of the calls of a login, of audit_private.recording_limit');
    end if;
end
$$;
comment on function audit_private.prepare_counter is
    'Creates the sequence that counts what a login records';

-- Ticks rely on this (audit_private.tick_floor). A captured change has its transaction id already.
create or replace function audit_private.take_transaction_id() returns xid8
language sql volatile
return pg_current_xact_id();
comment on function audit_private.take_transaction_id is
    'Gives the transaction its id before an event draws its own';

create or replace function audit.record_event(
    action text,
    organization_id text default null,
    target_type text default null,
    target_id text default null,
    subject_id text default null,
    result text default 'success',
    actor_id text default null,
    actor_type text default null,
    impersonator_id text default null,
    source text default null,
    old_values jsonb default null,
    new_values jsonb default null,
    details jsonb default null
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _context jsonb := audit_private.context_in_force();
    _acting record := audit_private.acting(_context);
    _id bigint;
begin
    perform audit_private.count_recording(), audit_private.take_transaction_id();
    if not audit_private.is_action(record_event.action) then
        raise exception 'action is "%"', record_event.action
            using errcode = 'invalid_parameter_value',
                hint = 'An action is category.verb in lower case, such as auth.login. '
                    'Category audit is reserved for the log itself.';
    end if;
    if coalesce(record_event.result, '') not in ('success', 'failure', 'denied') then
        raise exception 'result is "%"', record_event.result
            using errcode = 'invalid_parameter_value', hint = 'It is success, failure or denied.';
    end if;
    perform audit_private.check_claim(record_event.actor_type, record_event.details,
        record_event.actor_id, record_event.impersonator_id, record_event.organization_id,
        record_event.source, record_event.target_type, record_event.target_id,
        record_event.subject_id);
    insert into audit.event (
        action, result, actor_id, actor_type, impersonator_id, organization_id,
        target_type, target_id, subject_id, source, old_values, new_values, details
    ) values (
        record_event.action, record_event.result,
        coalesce(record_event.actor_id, case
            when _context is not null or record_event.actor_type is null then _acting.actor_id end),
        coalesce(record_event.actor_type,
            case when record_event.actor_id is not null then 'user' end, _acting.actor_type),
        coalesce(record_event.impersonator_id, _acting.impersonator_id),
        coalesce(record_event.organization_id, _acting.organization_id),
        record_event.target_type, record_event.target_id, record_event.subject_id,
        coalesce(record_event.source, _acting.source),
        audit_private.redact_json(record_event.old_values),
        audit_private.redact_json(record_event.new_values),
        nullif(audit_private.redact_details(
            coalesce(_acting.details, '{}') || coalesce(record_event.details, '{}')), '{}')
    ) returning id into _id;
    return _id;
end
$$;
-- Definer: writers hold no privilege on the table itself.
comment on function audit.record_event is
    'Records an event that no table shows, and returns its id. The context supplies values that '
    'are not given. Secrets in old_values, new_values and details are redacted';

create or replace function audit_private.record_own(
    verb text, target_id text, old_values jsonb, new_values jsonb, details jsonb default null
) returns void
language sql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
    select audit_private.take_transaction_id();
    insert into audit.event (
        action, result, actor_id, actor_type, impersonator_id, source, target_type, target_id,
        old_values, new_values, details
    )
    select 'audit.' || record_own.verb, 'success', coalesce(a.actor_id, session_user),
        a.actor_type, a.impersonator_id, 'system', 'audit', left(record_own.target_id, 200),
        record_own.old_values, record_own.new_values, record_own.details
    from audit_private.acting(audit_private.context_in_force()) as a;
$$;
comment on function audit_private.record_own is
    'Records what happened to the log itself, such as attached, detached, '
    'key created, month dropped';

create or replace function audit.define_action(name text, description text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    _before audit.action;
begin
    select * into _before from audit.action as a where a.name = define_action.name for update;
    if _before.is_built_in or split_part(define_action.name, '.', 1) = 'audit' then
        raise exception 'action "%" belongs to auditdb', define_action.name
            using errcode = 'invalid_parameter_value',
                hint = 'Its meaning cannot change: define an action of another name.';
    end if;
    if _before.description is not distinct from define_action.description then
        return;
    end if;
    insert into audit.action (name, description)
    values (define_action.name, define_action.description)
    on conflict (name) do update set description = excluded.description;
    perform audit_private.record_own('action_defined', define_action.name,
        case when _before.name is not null
            then jsonb_build_object('description', _before.description) end,
        jsonb_build_object('description', define_action.description));
end
$$;
-- Definer: operators hold no privilege on the table itself.
comment on function audit.define_action is
    'Adds an action of the application to audit.action, or changes its description; actions of '
    'auditdb cannot be changed. Records an event';

insert into audit.action (name, description, is_built_in)
select name, description, true
from (values
    ('auth.login', 'A user signed in, or tried to'),
    ('auth.logout', 'A user signed out'),
    ('auth.session_revoked', 'A session of a user was ended before its time'),
    ('auth.password_reset_requested', 'Somebody asked for a way to set a password anew'),
    ('auth.account_locked', 'A user may not sign in any more'),
    ('auth.account_unlocked', 'A user may sign in again'),
    ('auth.recovery_code_used', 'A user signed in with a recovery code'),
    ('auth.password_changed', 'A password was set or changed'),
    ('auth.two_factor_enabled', 'Two-factor authentication was switched on'),
    ('auth.two_factor_disabled', 'Two-factor authentication was switched off'),
    ('auth.impersonation_started', 'An administrator began to act as a user'),
    ('auth.impersonation_stopped', 'An administrator ceased to act as a user'),
    ('auth.email_changed', 'The e-mail address of a user changed'),
    ('auth.email_verified', 'A user showed that an e-mail address is theirs, or tried to'),
    ('membership.added', 'A user was added to an organisation or team'),
    ('membership.invited', 'A user was invited into an organisation or team, without effect yet'),
    ('membership.removed', 'A user was removed from an organisation or team'),
    ('membership.role_changed', 'A member was given another role'),
    ('membership.updated', 'Something else about a membership changed'),
    ('membership.purged', 'The row of a membership that was over, or never began, was deleted'),
    ('api_key.created', 'An API key was created'),
    ('api_key.revoked', 'An API key was revoked or deleted'),
    ('api_key.updated', 'Something about an API key changed'),
    ('api_key.prepared', 'An API key was inserted that is not in force yet'),
    ('api_key.purged', 'The row of an API key that was revoked already was deleted'),
    ('workflow.created', 'A workflow was created'),
    ('workflow.modified', 'A workflow or one of its steps changed'),
    ('workflow.deleted', 'A workflow was deleted or archived'),
    ('workflow.prepared', 'A workflow was inserted that does not count yet'),
    ('workflow.purged', 'The row of a workflow that was deleted or archived already was deleted'),
    ('two_factor.prepared', 'A second factor was set up, and is not confirmed yet'),
    ('two_factor.updated', 'Something about a second factor changed'),
    ('two_factor.purged', 'A second factor that was not in force was deleted'),
    ('user.created', 'A user account was created'),
    ('user.updated', 'Something else about a user account changed'),
    ('user.deleted', 'A user account was deleted'),
    ('user.prepared', 'A user account was inserted that does not count yet'),
    ('user.purged', 'The row of a user account that was deleted already was deleted'),
    ('audit.installed', 'auditdb was installed or upgraded'),
    ('audit.restored', 'The log was settled in other catalogs: a restore or pg_upgrade'),
    ('audit.reclaimed', 'The log was given back to audit_owner by the role that restored it'),
    ('audit.attached', 'The capture of a table began'),
    ('audit.remapped', 'The mapping of a captured table changed'),
    ('audit.detached', 'The capture of a table ended'),
    ('audit.baselined', 'What the rows of a table were is recorded'),
    ('audit.viewed', 'Somebody of the vendor read the log, of an organisation or of all'),
    ('audit.export_started', 'Somebody began to take the log along, of an organisation or of all'),
    ('audit.exported', 'The log was taken along, of an organisation or of all'),
    ('audit.verified', 'The log was compared with what was sealed of it'),
    ('audit.bundled', 'Events were put into a bundle that proves them'),
    ('audit.accessed', 'All that the log says of a person was put together'),
    ('audit.key_created', 'A signing key was created'),
    ('audit.key_retired', 'A signing key was given an end'),
    ('audit.month_dropped', 'A month of events was dropped by retention'),
    ('audit.month_archived', 'A month of events was written to the archive, and read back'),
    ('audit.month_restored', 'A month of events was brought back from the archive'),
    ('audit.archive_moved', 'It was said that the archive is elsewhere now'),
    ('audit.central_admin_added', 'A user may read an organisation of a collected database'),
    ('audit.central_admin_removed', 'A user may not read an organisation of a collected database'),
    ('audit.collected_dropped', 'Old events of a collected database were dropped here'),
    ('audit.erased', 'The personal parts of events were erased'),
    ('audit.recording_limited', 'How many events a login may record was limited, or is no more'),
    ('audit.subscription_created', 'Somebody began to have events of the log sent to a sink'),
    ('audit.subscription_changed', 'A subscription was paused, resumed, reset, or lapsed'),
    ('audit.subscription_dropped', 'A subscription was ended'),
    ('audit.organization_held', 'An organisation was put under legal hold'),
    ('audit.organization_released', 'A legal hold of an organisation was ended'),
    ('audit.visibility_limited', 'How far back viewers of an organisation see was limited, or '
        'is no more'),
    ('audit.action_defined', 'An action of the application was defined, or described anew')
) as own (name, description)
on conflict (name) do update set description = excluded.description, is_built_in = true;
