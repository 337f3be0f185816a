-- Capture at run time: what the generated trigger functions share.
-- Each changed row makes one event, in the transaction of the change; a row that moves to another
-- organisation makes two. No value of a row makes the user's statement fail.

do $$
begin
    -- A restore into a cluster without audit_owner leaves this policy out.
    if (select relrowsecurity from pg_class where oid = 'audit_private.installation'::regclass)
        and not exists (
            select from pg_policy
            where polrelid = 'audit_private.installation'::regclass and polname = 'the_owner_keeps'
        )
    then
        create policy the_owner_keeps on audit_private.installation to audit_owner using (true);
    end if;
    -- 244 random bits. Dump and restore keep them, so that digests stay the same.
    insert into audit_private.installation (secret)
    select encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'hex')
    where not exists (select from audit_private.installation);
end
$$;

-- Uses a key: without one, trying 10,000 PINs finds the PIN of a digest.
create or replace function audit_private.digest(value text) returns text
-- With row_security off, reading the secret would raise an error.
language sql stable set search_path = pg_catalog, pg_temp set row_security = on
return (
    select encode(sha256(convert_to(secret || digest.value, 'UTF8')), 'hex')
    from audit_private.installation
);
comment on function audit_private.digest is
    'What the log shows instead of an identifier that is a secret: equal for equal values';

-- The value of a redacted column must not show in another one, such as a key built from it.
create or replace function audit_private.holds(value text, secrets text[]) returns boolean
language sql immutable set search_path = pg_catalog, pg_temp
return exists (
    select from unnest(holds.secrets) as secret
    where length(secret) >= 6 and strpos(holds.value, secret) > 0);
comment on function audit_private.holds is
    'Whether a text contains one of some secrets';

create or replace function audit_private.safe_name(value text, secrets text[]) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    return case
        when audit_private.holds(value, secrets) or audit_private.redact_text(value) <> value
            then audit_private.digest(value)
        else value end;
end
$$;
comment on function audit_private.safe_name is
    'An identifier, or its digest if it contains one of some secrets, or looks like a secret';

create or replace function audit_private.refuse_long() returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using errcode = 'string_data_right_truncation';
end
$$;
comment on function audit_private.refuse_long is
    'Raises because an identifier is too long for the fast path; the fallback shortens it';

create or replace function audit_private.client_details() returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return jsonb_strip_nulls(jsonb_build_object(
    'application_name', nullif(current_setting('application_name'), ''),
    'client_addr', host(inet_client_addr())
));
comment on function audit_private.client_details is
    'What the server knows of a client whose context names no actor';

-- Runs with the rights of the calling trigger function: there is no other way to the log. All
-- tables share it, so that a session plans its INSERT once. It applies the rules of
-- audit_private.acting() itself: the call would cost 2 microseconds per row.
create or replace function audit_private.append(
    action text, organization_id text, target_type text, target_id text, subject_id text,
    captured_from text, old_values jsonb, new_values jsonb, details jsonb, context jsonb,
    late jsonb default null
) returns jsonb
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    _actor_id text := left(context ->> 'actor_id', 200);
    _actor_type text := coalesce(left(context ->> 'actor_type', 200), 'database');
    _impersonator_id text := left(context ->> 'impersonator_id', 200);
    _source text := coalesce(left(context ->> 'source', 200), 'sql');
    _details jsonb := nullif(context -> 'details', '{}');
    _now timestamptz := clock_timestamp();
begin
    if context is null and audit_private.may_claim() then
        context := audit_private.claimed_context();
        _actor_id := context ->> 'actor_id';
        _actor_type := coalesce(context ->> 'actor_type', 'database');
        _source := coalesce(context ->> 'source', 'sql');
        _details := context -> 'details';
    end if;
    if _actor_id is null or jsonb_typeof(_details) <> 'object'
        or _details ?| audit_private.own_details()
    then
        _details := audit_private.context_details(context);
        if _actor_id is null then
            _details := audit_private.client_details() || coalesce(_details, '{}');
        end if;
        if context is null then
            _actor_id := session_user;
        elsif jsonb_typeof(context) <> 'object' then
            _actor_id := session_user;
            details := coalesce(details, '{}') || '{"degraded": {"lost": ["context"]}}';
        end if;
    end if;
    if details is not null then
        _details := nullif(coalesce(_details, '{}') || details, '{}');
    end if;
    insert into audit.event (
        occurred_at, action, result, actor_id, actor_type, impersonator_id, organization_id,
        target_type, target_id, subject_id, source, captured_from, old_values, new_values, details
    ) values (
        _now, action, 'success', _actor_id, _actor_type, _impersonator_id, organization_id,
        target_type, target_id, subject_id, _source, captured_from, old_values, new_values, _details
    );
    if late is not null then
        perform audit_private.put_aside(late, _now, action, _actor_id, _actor_type,
            _impersonator_id, target_type, target_id, subject_id, _source, captured_from,
            old_values, new_values, _details);
    end if;
    return null;
end
$$;
comment on function audit_private.append is
    'Writes a captured event, and returns null as a trigger does; only capture functions call it';

create or replace function audit_private.moved(former text, present text) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return case when moved.former <> moved.present then jsonb_build_object('moved',
    jsonb_build_object('from', moved.former, 'to', moved.present)) end;
comment on function audit_private.moved is
    'Details of a change that moves a row to another organisation; null for any other change';

-- The column may be a flag, a time, a word, a number or a list.
create or replace function audit_private.is_off(value jsonb) returns boolean
language sql immutable
return lower(btrim(coalesce(is_off.value #>> '{}', ''))) in ('', 'false', 'f', 'no', 'n', 'off',
    '0', 'none', 'null', 'nil', 'never', 'disabled', 'inactive', 'deactivated', 'unset', 'not_set',
    'pending', 'unverified', 'unconfirmed', 'not_enabled', '[]', '{}');
comment on function audit_private.is_off is
    'Whether a value of a column of two-factor authentication means that it is off';

create or replace function audit_private.fact_action(
    fact jsonb, old_values jsonb, new_values jsonb
) returns text
language sql immutable
return coalesce(fact ->> 'action', fact -> 'verbs' ->> case
    when new_values -> (fact ->> 'column') = 'null' then 'died'
    when old_values -> (fact ->> 'column') = 'null' then 'born'
    else 'changed' end, case
    when not fact ? 'column' then null
    when audit_private.is_off(new_values -> (fact ->> 'column'))
        then 'auth.two_factor_disabled'
    else 'auth.two_factor_enabled' end);
comment on function audit_private.fact_action is
    'The action of a changed fact; null if the column is no fact';

-- A row holds several facts. Each fact that changed is an event. The first of them also shows the
-- columns that are no facts, unless the row began, ended or changed its role:
-- that event comes first.
create or replace function audit_private.append_facts(
    facts jsonb, action text, is_change boolean, organization_id text,
    former_organization_id text, target_type text, target_id text, subject_id text,
    captured_from text, old_values jsonb, new_values jsonb, details jsonb, context jsonb,
    late jsonb default null
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _changed jsonb;
    _others text[];
    _fact jsonb;
    _details jsonb := coalesce(append_facts.details, '{}')
        || coalesce(audit_private.moved(former_organization_id, organization_id), '{}');
    _is_first boolean := true;
begin
    select coalesce(jsonb_agg(f order by n), '[]') into _changed
    from jsonb_array_elements(append_facts.facts) with ordinality as t (f, n)
    where append_facts.new_values ? (f ->> 'column');
    if _changed = '[]' or not is_change then
        _changed := '[{"columns": []}]'::jsonb || _changed;
    end if;
    for _fact in select f from jsonb_array_elements(_changed) as f loop
        -- Columns that another event shows.
        _others := array(
            select c from jsonb_object_keys(append_facts.new_values) as c
            where not _fact -> 'columns' ? c and (not _is_first
                or jsonb_path_query_array(_changed, '$[*].columns[*]') ? c));
        perform audit_private.append(
            coalesce(
                audit_private.fact_action(_fact, append_facts.old_values, append_facts.new_values),
                append_facts.action),
            organization,
            append_facts.target_type, append_facts.target_id, append_facts.subject_id,
            append_facts.captured_from, append_facts.old_values - _others,
            append_facts.new_values - _others,
            case when _is_first then _details
                else _details - '{previous_role,new_role}'::text[] end,
            append_facts.context, append_facts.late)
        from unnest(array[append_facts.organization_id]
            || case when append_facts.former_organization_id <> append_facts.organization_id
                then array[append_facts.former_organization_id] end) with ordinality
            as o (organization, n)
        order by n;
        _is_first := false;
    end loop;
end
$$;
comment on function audit_private.append_facts is
    'Writes one event for each changed fact of an updated row, '
    'such as the e-mail and the password of a user';

-- An update that changes the member or the group of a membership ends one membership and begins
-- another. If the row only gives a role, it takes the role from one member and gives it to the
-- other.
create or replace function audit_private.handed_parts(mapping jsonb) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
return array(
    select part from unnest('{subject,group_id,target_id}'::text[]) as part
    where mapping ->> 'kind' = 'membership' and mapping ? 'subject' and mapping ? part
        and (part <> 'target_id' or mapping ? 'parent')
        and (mapping ? 'role' or not mapping ? 'parent'));
comment on function audit_private.handed_parts is
    'What an update changes of a membership that moves to another member or group';

create or replace function audit_private.handed_verbs(mapping jsonb) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return case when mapping ? 'parent'
    then jsonb_build_object('role_changed', mapping #> '{verbs,changed}')
    else jsonb_build_object('died', mapping #> '{verbs,died}', 'born', mapping #> '{verbs,born}')
end;
comment on function audit_private.handed_verbs is
    'The actions of the two events of a membership that was handed on';

create or replace function audit_private.append_handed(
    handed jsonb, verbs jsonb, organization_id text, former_organization_id text,
    target_type text, target_id text, subject_id text, captured_from text,
    details jsonb, context jsonb, late jsonb default null
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _gives_role boolean := verbs ? 'role_changed';
    _former text := coalesce(former_organization_id, organization_id);
    _details jsonb := coalesce(append_handed.details, '{}') - '{new_role,previous_role}'::text[]
        || coalesce(audit_private.moved(_former, organization_id), '{}');
begin
    if (handed ->> 'was')::boolean then
        perform audit_private.append(coalesce(verbs ->> 'role_changed', verbs ->> 'died'),
            _former, target_type, handed ->> 'target_id', handed ->> 'subject', captured_from,
            handed -> 'old_values', null,
            _details - 'group' || coalesce(nullif(handed -> 'group', 'null'), '{}') || case
                when _gives_role then jsonb_build_object(
                    'previous_role', handed -> 'previous_role', 'new_role', null)
                else '{}' end,
            context, late);
    end if;
    if (handed ->> 'is')::boolean then
        perform audit_private.append(coalesce(verbs ->> 'role_changed', verbs ->> 'born'),
            organization_id, target_type, target_id, subject_id, captured_from,
            null, handed -> 'new_values',
            _details || case
                when _gives_role then jsonb_build_object(
                    'previous_role', null, 'new_role', handed -> 'new_role')
                else '{}' end,
            context, late);
    end if;
end
$$;
comment on function audit_private.append_handed is
    'Writes the events of a membership that was handed on: one for each of the two members';

create or replace function audit_private.told_group(type text, id text, organization text)
returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
return case when told_group.id is not null and told_group.id is distinct from organization
    then jsonb_build_object('group', jsonb_build_object('type', type, 'id', told_group.id))
    else '{}' end;
comment on function audit_private.told_group is
    'Details that name the group within an organisation that a membership belongs to';

-- A lookup waits as long as the session's lock_timeout allows, but at least 2 s: a short one must
-- not decide which organisation an event belongs to. The calling block undoes this setting.
create or replace function audit_private.wait_longer() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('lock_timeout') <> '0'
        and current_setting('lock_timeout')::interval < interval '2 s'
    then
        perform set_config('lock_timeout', '2s', true);
    end if;
end
$$;
comment on function audit_private.wait_longer is
    'Sets lock_timeout to 2 s if it is shorter, until the calling block is rolled back';

-- Advisory locks and prepared statements outlive the block that made them. A statement is listed
-- with its whole text: a replaced one of the same name would run with the rights of whoever
-- executes it next. The types of its result follow from these.
create or replace function audit_private.held_locks() returns text[]
language sql volatile set search_path = pg_catalog, pg_temp
return array(
    select concat_ws(',', classid, objid, objsubid, mode)
    from pg_locks
    where locktype = 'advisory' and pid = pg_backend_pid() and granted
    union all
    select concat_ws(',', 'statement', length(name), name, extract(epoch from prepare_time),
        from_sql, parameter_types::oid[], statement)
    from pg_prepared_statements
);
comment on function audit_private.held_locks is
    'The advisory locks and prepared statements that this session holds';

create or replace function audit_private.turn_lock(lock text, is_taken boolean) returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _part text[] := string_to_array(turn_lock.lock, ',');
    _first int := _part[1]::bigint::bit(32)::int;
    _second int := _part[2]::bigint::bit(32)::int;
    _whole bigint := (_part[1]::bigint << 32) | _part[2]::bigint;
    _is_shared boolean := _part[4] <> 'ExclusiveLock';
begin
    if _part[3] = '1' then
        return case
            when is_taken and _is_shared then pg_try_advisory_lock_shared(_whole)
            when is_taken then pg_try_advisory_lock(_whole)
            when _is_shared then pg_advisory_unlock_shared(_whole)
            else pg_advisory_unlock(_whole) end;
    end if;
    return case
        when is_taken and _is_shared then pg_try_advisory_lock_shared(_first, _second)
        when is_taken then pg_try_advisory_lock(_first, _second)
        when _is_shared then pg_advisory_unlock_shared(_first, _second)
        else pg_advisory_unlock(_first, _second) end;
end
$$;
comment on function audit_private.turn_lock is
    'Takes or releases an advisory lock once; false if it cannot';

-- Strict: null means that no list was made before, and nothing is released.
create or replace function audit_private.release_locks(but text[]) returns void
language plpgsql volatile strict set search_path = pg_catalog, pg_temp
as $$
declare
    _held text[];
    _lock text;
    _length text;
begin
    -- A lock that was taken several times must be released as often.
    for _round in 1 .. 1000 loop
        _held := audit_private.held_locks();
        exit when _held = release_locks.but;
        for _lock in select unnest(_held) except select unnest(release_locks.but) loop
            if _lock like 'statement,%' then
                _length := split_part(_lock, ',', 2);
                execute format('deallocate %I',
                    substr(_lock, 12 + length(_length), _length::int));
            else
                perform audit_private.turn_lock(_lock, false);
            end if;
        end loop;
        exit when not found;
    end loop;
    -- The session relies on a lock that it held. Another session may have taken it in between.
    for _lock in
        select unnest(release_locks.but) except select unnest(_held)
    loop
        continue when _lock like 'statement,%';
        raise warning 'code of a mapping released advisory lock %, which %', _lock, case
            when audit_private.turn_lock(_lock, true) then 'was taken again'
            else 'another session holds now' end;
    end loop;
end
$$;
comment on function audit_private.release_locks is
    'Releases the advisory locks that code of the application took, takes those again that it '
    'released, and drops the statements that it prepared or replaced';
