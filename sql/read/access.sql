-- Access: a signed, short-lived token says who reads for which organisation. Whether they may is
-- looked up live. Every failure looks the same: no rows.

create or replace function audit_private.hmac_sha256(key bytea, message bytea) returns bytea
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    -- RFC 2104, block of 64 bytes.
    _key bytea := (case when length(hmac_sha256.key) > 64 then sha256(hmac_sha256.key)
        else hmac_sha256.key end);
    _hex text;
    _eight bigint;
    _inner bytea := '';
    _outer bytea := '';
begin
    _hex := rpad(encode(_key, 'hex'), 128, '0');
    -- Eight bytes at a time: 0x36 and 0x5c, repeated.
    for _i in 0 .. 7 loop
        _eight := ('x' || substr(_hex, 16 * _i + 1, 16))::bit(64)::bigint;
        _inner := _inner || int8send(_eight # 3906369333256140342);
        _outer := _outer || int8send(_eight # 6655295901103053916);
    end loop;
    return sha256(_outer || sha256(_inner || hmac_sha256.message));
end
$$;
comment on function audit_private.hmac_sha256 is
    'HMAC-SHA-256 (RFC 2104) from core sha256';

create or replace function audit_private.from_base64url(value text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp
return convert_from(decode(
    translate(value, '-_', '+/') || repeat('=', (4 - length(value) % 4) % 4), 'base64'), 'UTF8');
comment on function audit_private.from_base64url is
    'Text from unpadded base64url';

-- A rule names its table. If the name becomes free, whoever may create a table in that schema can
-- take it. A table is therefore trusted only if it is the attached one, or has the same owner as
-- that one had. In a restored database, no oid tells which table is the attached one.
create or replace function audit_private.admin_rules() returns setof int
language plpgsql stable rows 1 set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select a.id
    from audit_private.attachment as a
        join pg_proc as p on p.pronamespace = 'audit_private'::regnamespace
            and p.proname = format('admin_%s', a.id)
        left join pg_class as c on c.oid = audit_private.table_of(
            substring(p.prosrc from 'select from (.+?) as r[[:space:]]'))
    where a.mapping ? 'admin' and (c.oid = a.target and c.reltype = a.row_type
        or c.relowner::regrole::text = (
            select t.fact ->> 'owner' from audit_private.attestation as t
            where t.scope = a.target and t.kind = 'table' and t.relation = a.target
            order by t.id desc limit 1)
        or (select audit_private.is_restored()))
    order by a.id;
end
$$;
comment on function audit_private.admin_rules is
    'The attachments that make admins, without those whose name a table of another owner has taken';

create or replace function audit_private.is_admin(organization_id text, user_id text)
returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _id int;
    _admin boolean;
    -- Always, even if nothing foreign ran when it was attached: casts and policies may come later.
    _locks text[] := audit_private.held_locks();
begin
    for _id in select * from audit_private.admin_rules() loop
        _admin := false;
        -- Always rolled back, so that nothing that code of a mapping sets or does remains. A
        -- mapping that fails does not affect the others.
        -- The token is emptied meanwhile: no code of a mapping may read it.
        begin
            perform set_config('auditdb.viewer', '', true);
            execute format('select audit_private.admin_%s($1, $2)', _id)
                into _admin using is_admin.organization_id, is_admin.user_id;
            raise exception using errcode = 'AU001';
        exception
            when sqlstate 'AU001' then null;
            when query_canceled then
                perform audit_private.release_locks(_locks);
                raise;
            when assert_failure or others then _admin := false;
        end;
        perform audit_private.release_locks(_locks);
        if _admin then
            return true;
        end if;
    end loop;
    return false;
end
$$;
comment on function audit_private.is_admin is
    'Whether a user is an admin or owner of an organisation now, by the attached memberships';

-- v1.key_id.user.organization.expires.mac. Without a key, a caller learns only that it is no token.
create or replace function audit_private.examine_token(out viewer text[], out problem text)
language plpgsql stable set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _token text := current_setting('auditdb.viewer', true);
    _parts text[];
    _key audit_private.signing_key;
    _expires timestamptz;
begin
    problem := 'token';
    if _token is null or length(_token) > 2000 or _token !~
        '^v1\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[0-9]{1,12}\.[0-9a-f]{64}$'
    then
        return;
    end if;
    _parts := string_to_array(_token, '.');
    select * into _key from audit_private.signing_key as k where k.id = _parts[2];
    -- Compares hashes, so that the time of the comparison tells nothing about the right code.
    if not found or sha256(decode(_parts[6], 'hex')) <> sha256(audit_private.hmac_sha256(
        convert_to(_key.secret, 'UTF8'),
        convert_to(array_to_string(_parts[1:5], '.'), 'UTF8')))
    then
        return;
    end if;
    _expires := to_timestamp(_parts[5]::bigint);
    problem := case
        when _key.retires_at <= clock_timestamp() then 'key retired'
        when _expires <= clock_timestamp() or _expires > clock_timestamp() + interval '1 hour'
            then 'clock'
        end;
    if problem is null then
        viewer := array[audit_private.from_base64url(_parts[3]),
            audit_private.from_base64url(_parts[4])];
    end if;
end
$$;
comment on function audit_private.examine_token is
    'Who reads, and for which organisation, by the viewer token of this transaction; or why the '
    'token is void: token, key retired, clock';

create or replace function audit_private.read_token() returns text[]
language sql stable set search_path = pg_catalog, pg_temp
return (select t.viewer from audit_private.examine_token() as t);
comment on function audit_private.read_token is
    'Who reads, and for which organisation, by the viewer token of this transaction; null if void';

create or replace function audit.viewer_organization() returns text
-- Parallel unsafe: before PostgreSQL 17, a guarded block cannot start during a parallel plan.
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _viewer text[];
begin
    _viewer := audit_private.read_token();
    if _viewer is null then
        return null;
    end if;
    if audit_private.is_admin(_viewer[2], _viewer[1]) then
        return _viewer[2];
    end if;
    return null;
exception when assert_failure or others then
    return null;
end
$$;
-- Definer: reads the signing keys, which no login role can.
comment on function audit.viewer_organization is
    'The organisation that the viewer token of this transaction may read; null if there is none';

create or replace function audit_private.viewer_start() returns bigint[]
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _organization_id text;
    _first_id bigint;
begin
    _organization_id := (audit_private.read_token())[2];
    if _organization_id is null then
        return null;
    end if;
    select max(s.first_id) into _first_id from audit_private.organization_start as s
    where s.organization_id = _organization_id;
    return array[coalesce(_first_id, 0)];
exception when assert_failure or others then
    return null;
end
$$;
-- Definer: reads the signing keys, and the starts of organisations. viewer_organization decides
-- whether the viewer is an admin; without a valid token, the result is null.
comment on function audit_private.viewer_start is
    'Id of the first event of the organisation in the viewer token that has the identifier now: '
    'events with a lower id belong to a former organisation of that identifier. The result is an '
    'array of one element: for "at least any of", the planner expects most events, '
    'for a plain "at least", a third';

-- Moving a row between partitions deletes and inserts it: the organisation stays the same. So it
-- does if a transaction deletes it and uses the identifier again.
create or replace function audit_private.start_organization(
    attachment int, op text, organization_id text, former_id text, target_id text
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if start_organization.target_id is distinct from start_organization.organization_id
        or op = 'UPDATE' and start_organization.former_id = start_organization.target_id
        or op = 'DELETE'
        -- Otherwise the owner of another attached table could hide a log from its admins.
        or attachment > (
            select min(a.id) from audit_private.attachment as a
            where a.mapping ->> 'target_type' = 'organization')
    then
        return;
    end if;
    insert into audit_private.organization_start (organization_id)
    select start_organization.target_id
    where op = 'UPDATE' or not exists (
        select from audit.event as e
        where e.organization_id = start_organization.organization_id
            and e.target_id = start_organization.target_id and e.target_type = 'organization'
            and e.transaction_id = pg_current_xact_id()
            and e.occurred_at >= now() - interval '1 day' and e.old_values is not null);
end
$$;
comment on function audit_private.start_organization is
    'Records that an organisation began, by an INSERT or by a change of its identifier. Capture '
    'calls it before it writes the event. From then on, viewers do not see earlier events of that '
    'identifier. Not called if a soft-deleted row is restored';

create or replace function audit.create_key(retire_others_after interval default null) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _id text := left(encode(sha256(uuid_send(gen_random_uuid())), 'hex'), 8);
    -- Two random UUIDs hold 244 random bits; the digest spreads them over 256.
    _secret text := translate(rtrim(encode(sha256(
        uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64'), '='), '+/', '-_');
begin
    if create_key.retire_others_after < interval '0' then
        raise exception 'keys cannot retire % ago', - create_key.retire_others_after
            using errcode = 'invalid_parameter_value', hint = 'Give zero or a positive interval.';
    end if;
    -- Without this lock, of two concurrent calls each would leave the other's key in force.
    perform pg_advisory_xact_lock(hashtextextended('auditdb keys', 0));
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise exception 'keys cannot be made under %', current_setting('transaction_isolation')
            using errcode = 'invalid_transaction_state',
                hint = 'Keys made meanwhile would not be seen. Use read committed.';
    end if;
    if create_key.retire_others_after is not null then
        perform audit_private.record_own('key_retired', id, null, null)
        from audit_private.signing_key
        where retires_at is null or retires_at > clock_timestamp() + create_key.retire_others_after;
        update audit_private.signing_key
        set retires_at = clock_timestamp() + create_key.retire_others_after
        where retires_at is null or retires_at > clock_timestamp() + create_key.retire_others_after;
    end if;
    insert into audit_private.signing_key (id, secret) values (_id, _secret);
    perform audit_private.record_own('key_created', _id, null, null);
    return _id || '.' || _secret;
end
$$;
-- Definer: operators hold no privilege on the keys themselves.
comment on function audit.create_key is
    'Makes a signing key, and returns it as key_id.secret, which cannot be read again; can retire '
    'all other keys after an interval';

create or replace function audit.list_keys()
returns table (id text, created_at timestamptz, created_by text, retires_at timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select id, created_at, created_by, retires_at
    from audit_private.signing_key order by created_at, id;
$$;
-- Definer: it shows all columns of the table except the secrets.
comment on function audit.list_keys is
    'The signing keys, without their secrets';

create or replace function audit_private.set_policy(
    relation regclass, name text, command text, to_role text, qualification text
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (
        select from pg_policy where polrelid = set_policy.relation and polname = set_policy.name
    ) then
        execute format('drop policy %I on %s', name, relation);
    end if;
    execute format('create policy %I on %s for %s to %s %s', name, relation, command, to_role,
        qualification);
end
$$;
comment on function audit_private.set_policy is
    'Creates a policy of the log, or replaces the one of the same name';

-- pg_dump reads each month by itself, so the policies of audit.event do not apply.
create or replace function audit_private.furnish_backups() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _table regclass;
begin
    for _table in
        select c.oid
        from pg_class as c
        where c.relnamespace = any ('{audit,audit_private}'::regnamespace[]) and c.relrowsecurity
            and not exists (
                select from pg_policy
                where polrelid = c.oid and polname = 'backups_read_everything')
        order by c.oid
    loop
        perform audit_private.lock_briefly(_table, 'access exclusive');
        perform audit_private.open_to_backups(_table);
    end loop;
end
$$;
comment on function audit_private.furnish_backups is
    'Lets backups read the tables that row-level security protects, if they cannot; '
    'part of install';

-- A comparison of a column with a parameter is evaluated when a row is found, after cheaper
-- conditions of the reader, and EXPLAIN ANALYZE shows whether it was. "true = (parameter)" needs no
-- row: it is evaluated first, and without a viewer no row is read.
create or replace function audit_private.wanted_policies()
returns table (relation regclass, name text, command text, to_role text, qualification text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    values
        ('audit.event'::regclass, 'viewers_read_their_organization', 'select', 'audit_reader',
            'using ((organization_id, true) = (select v, v is not null '
            'from audit.viewer_organization() as v) '
            'and id >= any ((select audit_private.viewer_start())::bigint[]) '
            'and occurred_at >= any ((select audit_private.visible_since())::timestamptz[]))'),
        ('audit.event', 'auditors_read_everything', 'select', 'audit_auditor', 'using (true)'),
        ('audit.event', 'the_owner_counts', 'select', 'audit_owner', 'using (true)'),
        ('audit_private.organization_start', 'the_owner_looks_up', 'select', 'audit_owner',
            'using (true)'),
        ('audit_private.organization_start', 'auditors_read_everything', 'select',
            'audit_auditor', 'using (true)'),
        ('audit_private.attachment', 'the_owner_maps', 'all', 'audit_owner', 'using (true)'),
        -- For audit_owner itself the planner removes these, since "true or ..." is true.
        ('audit.event', 'whoever_owns_the_log_writes', 'insert', 'public',
            'with check (audit_private.owns_log())'),
        ('audit_private.organization_start', 'whoever_owns_the_log_writes', 'insert', 'public',
            'with check (audit_private.owns_log())'),
        ('audit_private.unfiled', 'whoever_owns_the_log_puts_aside', 'all', 'public',
            'using (audit_private.owns_log())'),
        ('audit_private.installation', 'whoever_owns_the_log_reads', 'select', 'public',
            'using (audit_private.owns_log())')
    union all
    select t, 'the_owner_keeps', 'all', 'audit_owner', 'using (true)'
    from unnest(audit_private.guarded_tables()) as t
    where t <> 'audit_private.attachment'::regclass  -- the_owner_maps
    union all
    select t, 'the_owner_erases', 'update', 'audit_owner', 'using (true)'
    from unnest('{audit.event,audit.seal}'::regclass[]) as t
    union all
    select t, 'the_owner_writes', 'insert', 'audit_owner', 'with check (true)'
    from unnest('{audit.event,audit_private.organization_start,audit.series,audit.tick,'
        'audit.tick_month,audit.seal,audit.organization_seal,audit.checkpoint,audit.key_rotation,'
        'audit.erasure}'::regclass[]) as t
    union all
    select t, 'anyone_granted_reads', 'select', 'public', 'using (true)'
    from unnest('{audit.subscription,audit.tile,audit.sealed_organization,audit.legal_hold,'
        'audit.visible_retention,audit.series,audit.tick,audit.tick_month,audit.seal,'
        'audit.organization_seal,audit.checkpoint,audit.key_rotation,audit.erasure,'
        'audit.archive,audit.archive_erasure,audit_private.attachment}'::regclass[]) as t;
$$;
comment on function audit_private.wanted_policies is
    'The policies that audit_private.furnish_policies() makes';

create or replace function audit_private.furnish_policies() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _policy record;
begin
    for _policy in
        select p.* from audit_private.wanted_policies() as p
        where not exists (
            select from pg_policy as o
            where o.polrelid = p.relation and o.polname = p.name
                -- Policies of former releases ignored former organisations and visible retention,
                -- or checked the viewer only when a row was found.
                and (p.name <> 'viewers_read_their_organization'
                    or pg_get_expr(o.polqual, o.polrelid)
                        like '%IS NOT NULL%viewer_start%visible_since%')
        )
    loop
        if _policy.relation = 'audit.event'::regclass then
            perform audit_private.lock_briefly('audit.event', 'access exclusive');
        end if;
        perform audit_private.set_policy(_policy.relation, _policy.name, _policy.command,
            _policy.to_role, _policy.qualification);
    end loop;
    perform audit_private.furnish_backups();
end
$$;
comment on function audit_private.furnish_policies is
    'Creates the missing policies of the log; part of install';
