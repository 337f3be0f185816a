-- Access: a signed, short-lived token says who reads for which organisation; whether they may is
-- looked up live. Every failure looks the same: no rows.

create or replace function audit.hmac_sha256(key bytea, message bytea) returns bytea
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    -- RFC 2104, block of 64 bytes.
    _key bytea := (case when length(hmac_sha256.key) > 64 then sha256(hmac_sha256.key)
        else hmac_sha256.key end);
    _inner bytea;
    _outer bytea;
begin
    _key := _key || decode(repeat('00', 64 - length(_key)), 'hex');
    _inner := _key;
    _outer := _key;
    for _i in 0 .. 63 loop
        _inner := set_byte(_inner, _i, get_byte(_key, _i) # 54);
        _outer := set_byte(_outer, _i, get_byte(_key, _i) # 92);
    end loop;
    return sha256(_outer || sha256(_inner || hmac_sha256.message));
end
$$;
comment on function audit.hmac_sha256(bytea, bytea) is 'HMAC-SHA-256 (RFC 2104) from core sha256';

create or replace function audit.from_base64url(value text) returns text
language sql immutable strict parallel safe set search_path = pg_catalog, pg_temp
return convert_from(decode(
    translate(value, '-_', '+/') || repeat('=', (4 - length(value) % 4) % 4), 'base64'), 'UTF8');
comment on function audit.from_base64url(text) is 'Text from unpadded base64url';

create or replace function audit.is_admin(organization_id text, user_id text) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _id int;
    _admin boolean;
begin
    for _id in select id from audit.attachment where mapping ? 'admin' order by id loop
        _admin := false;
        -- Always rolled back, so that nothing which a mapping's code sets or does outlives the
        -- answer;
        -- one mapping gone stale leaves the others in force.
        begin
            execute format('select audit.admin_%s($1, $2)', _id)
                into _admin using is_admin.organization_id, is_admin.user_id;
            raise exception using errcode = 'AU001';
        exception
            when sqlstate 'AU001' then null;
            when assert_failure or others then _admin := false;
        end;
        if _admin then
            return true;
        end if;
    end loop;
    return false;
end
$$;
comment on function audit.is_admin(text, text) is
    'Whether a user is an admin or owner of an organisation now, by the attached memberships';

create or replace function audit.viewer_organization() returns text
-- Unsafe: before PostgreSQL 17 its guarded blocks cannot start while a parallel plan runs.
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _token text := current_setting('auditdb.viewer', true);
    _parts text[];
    _secret text;
    _organization text;
    _expires timestamptz;
begin
    -- v1.key_id.user.organization.expires.mac
    if _token is null or length(_token) > 2000 or _token !~
        '^v1\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[0-9]{1,12}\.[0-9a-f]{64}$'
    then
        return null;
    end if;
    _parts := string_to_array(_token, '.');
    _expires := to_timestamp(_parts[5]::bigint);
    if _expires <= clock_timestamp() or _expires > clock_timestamp() + interval '1 hour' then
        return null;
    end if;
    select secret into _secret
    from audit.signing_key
    where id = _parts[2] and (retires_at is null or retires_at > clock_timestamp());
    if not found then
        return null;
    end if;
    -- Hashes are compared, so that the time taken tells nothing about the right one.
    if sha256(decode(_parts[6], 'hex')) <> sha256(audit.hmac_sha256(
        convert_to(_secret, 'UTF8'),
        convert_to(array_to_string(_parts[1:5], '.'), 'UTF8')))
    then
        return null;
    end if;
    _organization := audit.from_base64url(_parts[4]);
    if audit.is_admin(_organization, audit.from_base64url(_parts[3])) then
        return _organization;
    end if;
    return null;
exception when assert_failure or others then
    return null;
end
$$;
-- Definer: reads the signing keys, which no login role can.
comment on function audit.viewer_organization() is
    'The organisation that the viewer token of this transaction may read, or null';

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
            using errcode = 'invalid_parameter_value', hint = 'Give zero or a time to come.';
    end if;
    if create_key.retire_others_after is not null then
        perform audit.record_own('key_retired', id, null, null) from audit.signing_key
        where retires_at is null or retires_at > clock_timestamp() + create_key.retire_others_after;
        update audit.signing_key set retires_at = clock_timestamp() + create_key.retire_others_after
        where retires_at is null or retires_at > clock_timestamp() + create_key.retire_others_after;
    end if;
    insert into audit.signing_key (id, secret) values (_id, _secret);
    perform audit.record_own('key_created', _id, null, null);
    return _id || '.' || _secret;
end
$$;
-- Definer: operators hold no privilege on the keys themselves.
comment on function audit.create_key(interval) is
    'Makes a signing key and returns it, once, as key_id.secret; may retire all others after a '
    'while';

create or replace function audit.list_keys()
returns table (id text, created_at timestamptz, created_by text, retires_at timestamptz)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select id, created_at, created_by, retires_at from audit.signing_key order by created_at, id;
$$;
-- Definer: shows all of the table but the secrets.
comment on function audit.list_keys() is 'The signing keys, without their secrets';

do $$
begin
    if not exists (select from pg_catalog.pg_policy where polrelid = 'audit.event'::regclass
        and polname = 'viewers_read_their_organization')
    then
        create policy viewers_read_their_organization on audit.event for select to audit_reader
            using (organization_id = (select audit.viewer_organization()));
    end if;
    if not exists (select from pg_catalog.pg_policy where polrelid = 'audit.event'::regclass
        and polname = 'auditors_read_everything')
    then
        create policy auditors_read_everything on audit.event for select to audit_auditor
            using (true);
    end if;
    if not exists (select from pg_catalog.pg_policy where polrelid = 'audit.event'::regclass
        and polname = 'the_owner_writes')
    then
        create policy the_owner_writes on audit.event for insert to audit_owner with check (true);
    end if;
    if not exists (select from pg_catalog.pg_policy where polrelid = 'audit.event'::regclass
        and polname = 'the_owner_counts')
    then
        create policy the_owner_counts on audit.event for select to audit_owner using (true);
    end if;
    if not exists (select from pg_catalog.pg_policy where polrelid = 'audit.signing_key'::regclass
        and polname = 'the_owner_keeps')
    then
        create policy the_owner_keeps on audit.signing_key to audit_owner using (true);
    end if;
    if not exists (select from pg_catalog.pg_policy where polrelid = 'audit.attachment'::regclass
        and polname = 'the_owner_maps')
    then
        create policy the_owner_maps on audit.attachment to audit_owner using (true);
        create policy anyone_granted_reads on audit.attachment for select using (true);
    end if;
end
$$;
