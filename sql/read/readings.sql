-- For a page beside the events: who exported the log, why nothing is shown, what is logged.

create or replace function audit_private.who_reads(
    organization_id text, actor_id text,
    out reader text, out reader_type text, out impersonator text, out source text,
    out log_of text, out details jsonb
)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _viewer text[] := audit_private.read_token();
    _context jsonb := audit_private.context_in_force();
    _acting record := audit_private.acting(_context);
begin
    reader_type := 'user';
    source := case when _context is null then 'web' else _acting.source end;
    -- If a token is set, only the token counts, even a void one:
    -- the membership of an auditor does not.
    if coalesce(current_setting('auditdb.viewer', true), '') <> '' then
        if audit.viewer_organization() = _viewer[2] then
            reader := _viewer[1];
            log_of := _viewer[2];
            return;
        end if;
        raise exception 'the viewer may not read this log'
            using errcode = 'insufficient_privilege';
    elsif not pg_has_role(session_user, 'audit_auditor', 'member') then
        raise exception 'the viewer is unknown'
            using errcode = 'insufficient_privilege',
                hint = 'Set auditdb.viewer to a token, or be a member of audit_auditor.';
    elsif who_reads.actor_id = '' then
        raise exception 'actor_id is empty'
            using errcode = 'invalid_parameter_value',
                hint = 'Name the reader, or leave it out: then the context or your login counts.';
    end if;
    reader := who_reads.actor_id;
    log_of := who_reads.organization_id;
    if reader is null then
        reader := coalesce(_acting.actor_id, session_user);
        reader_type := case when _acting.actor_id is null then 'database'
            else _acting.actor_type end;
        impersonator := _acting.impersonator_id;
        source := _acting.source;
        details := _acting.details;
    end if;
end
$$;
comment on function audit_private.who_reads is
    'Who reads the log of which organisation: by the token; for an auditor by the arguments, '
    'otherwise by the context, otherwise by the login';

-- Uses conditions that event_sign_in_key_idx can answer, so that it reads no other events.
create or replace function audit_private.has_viewed(
    organization_id text, actor_id text, impersonator_id text
) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    -- The time of this moment: a transaction may stay open for hours.
    _since timestamptz := clock_timestamp() - interval '15 minutes';
begin
    return case when has_viewed.organization_id is null then exists (
        select from audit.event as e
        where e.organization_id is null and e.action = 'audit.viewed' and e.target_id is null
            and e.result = 'success' and e.occurred_at > _since
            and e.actor_id = has_viewed.actor_id and e.db_user = session_user
            and e.impersonator_id is not distinct from has_viewed.impersonator_id)
    else exists (
        select from audit.event as e
        where e.organization_id = has_viewed.organization_id
            and e.action = 'audit.viewed' and e.target_id is null
            and e.result = 'success' and e.occurred_at > _since
            and e.actor_id = has_viewed.actor_id and e.db_user = session_user
            and e.impersonator_id is not distinct from has_viewed.impersonator_id)
    end;
end
$$;
comment on function audit_private.has_viewed is
    'Whether a view of a log by this reader and login was recorded in the last 15 minutes';

create or replace function audit.record_reading(
    verb text, details jsonb default null, organization_id text default null,
    actor_id text default null, subject_id text default null
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _who record := audit_private.who_reads(
        record_reading.organization_id, record_reading.actor_id);
    _id bigint;
begin
    perform audit_private.check_reading(record_reading.verb);
    -- Repeated views of a page count as one reading.
    if record_reading.verb = 'viewed'
        and audit_private.has_viewed(_who.log_of, _who.reader, _who.impersonator)
    then
        return null;
    end if;
    perform audit_private.count_recording();
    perform audit_private.check_claim('user', record_reading.details, _who.reader,
        record_reading.subject_id, _who.log_of);
    perform audit_private.take_transaction_id();
    insert into audit.event (
        action, result, actor_id, actor_type, impersonator_id, source, organization_id,
        target_type, subject_id, details
    ) values (
        'audit.' || record_reading.verb, 'success', _who.reader, _who.reader_type,
        _who.impersonator, _who.source, _who.log_of, 'audit', record_reading.subject_id,
        nullif(audit_private.redact_details(
            coalesce(_who.details, '{}') || coalesce(record_reading.details, '{}')), '{}')
    ) returning id into _id;
    return _id;
end
$$;
-- Definer: readers may not write. For a viewer, the token says what is recorded.
comment on function audit.record_reading is
    'Records that the log of an organisation, or of all, was viewed, exported, verified, bundled, '
    'or searched for a person. The reader is the viewer of the token; for an auditor, the one that '
    'the arguments name, otherwise the context, otherwise the login. Views are recorded at most '
    'once in 15 minutes. Returns the id of the event';

create or replace function audit_private.check_reading(verb text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _verbs text[] := '{viewed,export_started,exported}';
begin
    if coalesce(current_setting('auditdb.viewer', true), '') = '' then
        _verbs := _verbs || '{verified,bundled,accessed}'::text[];
    end if;
    if check_reading.verb is null or check_reading.verb <> all (_verbs) then
        raise exception '"%" is an invalid reading', check_reading.verb
            using errcode = 'invalid_parameter_value',
                hint = 'It must be one of ' || array_to_string(_verbs, ', ') || '.';
    elsif current_setting('transaction_read_only')::boolean then
        raise exception 'no reading can be recorded here, so nothing is read: read on the '
                'primary, in a transaction that may write'
            using errcode = 'read_only_sql_transaction';
    end if;
end
$$;
comment on function audit_private.check_reading is
    'Raises if the verb of a reading is invalid, or if nothing can be recorded here';

create or replace function audit.viewer_problem() returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if audit.viewer_organization() is not null then
        return null;
    end if;
    return coalesce(
        (select t.problem from audit_private.examine_token() as t),
        case when exists (select from audit_private.admin_rules()) then 'no admin' else 'no rule'
        end);
exception when assert_failure or others then
    return 'token';
end
$$;
-- Definer: reads the signing keys, which no login role can.
comment on function audit.viewer_problem is
    'Why the viewer token of this transaction shows nothing: "token" (invalid), "key retired", '
    '"clock" (expired, or ends in over an hour), "no rule" (nothing attached says who is an '
    'admin), "no admin"; null if it is valid. Without a signing key, a caller learns only "token"';

create or replace function audit.list_logged()
returns table (kind text, tables bigint, since timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select a.kind, count(*), min(a.attached_at)
    from audit_private.attachment as a
    where a.kind <> 'admin'
        and (audit.viewer_organization() is not null
            or pg_has_role(session_user, 'audit_auditor', 'member'))
    group by a.kind
    order by a.kind;
$$;
-- Definer: readers hold no privilege on the mappings, which name tables and columns.
comment on function audit.list_logged is
    'For a viewer: the kinds of objects whose changes are captured, the number of tables of each, '
    'and since when. No rows without a valid token, except for an auditor';
