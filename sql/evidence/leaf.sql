-- The leaves of events and ticks, as the server hashes them: docs/evidence.md says what each byte
-- is, and auditdb/evidence/lines.py makes the same ones.

-- The personal part of an event is what erasure takes away: with the salt gone, nobody can tell
-- from its hash what it was. The rest, its skeleton, is hidden by that hash too.
create or replace function audit_private.names_person(target_type text, target_id text,
    subject_id text) returns boolean
language sql immutable
return coalesce(names_person.target_type = 'user'
    or position('/' || names_person.subject_id || '/' in '/' || names_person.target_id || '/') > 0,
    false);
comment on function audit_private.names_person is
    'Whether the target of an event is a person, or a part of its key is one, so that it belongs '
    'to the personal part';

-- Text, for a query to have in it: a function that is called for each row takes four times as long,
-- and a parsed body would depend on the columns of the log, which could not be altered then.
create or replace function audit_private.commitment_expression() returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select $sql$
        sha256(s.salt || convert_to('{"version":1'
            || ',"actor_id":' || coalesce(to_json(e.actor_id)::text, 'null')
            || ',"impersonator_id":' || coalesce(to_json(e.impersonator_id)::text, 'null')
            || ',"target_id":' || case when audit_private.names_person(e.target_type, e.target_id,
                e.subject_id) then coalesce(to_json(e.target_id)::text, 'null') else 'null' end
            || ',"subject_id":' || coalesce(to_json(e.subject_id)::text, 'null')
            || ',"old_values":' || coalesce(e.old_values::text, 'null')
            || ',"new_values":' || coalesce(e.new_values::text, 'null')
            || ',"details":' || coalesce(e.details::text, 'null')
            || '}', 'UTF8'))$sql$;
$$;
comment on function audit_private.commitment_expression is
    'The hash of the personal part of an event e under s.salt: what is left once it is erased';

create or replace function audit_private.leaf_expression() returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select $sql$
        sha256(decode('0001', 'hex') || $sql$
        || replace(audit_private.commitment_expression(), 's.salt', 'e.salt') || $sql$
        || convert_to('{"version":1,"series":"' || e.series::text
            || '","id":"' || e.id::text
            || '","occurred_at":"' || audit_private.canonical_time(e.occurred_at)
            || '","transaction_id":"' || e.transaction_id::text || '"'
            || ',"action":' || coalesce(to_json(e.action)::text, 'null')
            || ',"result":' || coalesce(to_json(e.result)::text, 'null')
            || ',"actor_type":' || coalesce(to_json(e.actor_type)::text, 'null')
            || ',"db_user":' || coalesce(to_json(e.db_user)::text, 'null')
            || ',"db_role":' || coalesce(to_json(e.db_role)::text, 'null')
            || ',"organization_id":' || coalesce(to_json(e.organization_id)::text, 'null')
            || ',"target_type":' || coalesce(to_json(e.target_type)::text, 'null')
            || ',"target_id":' || case when audit_private.names_person(e.target_type, e.target_id,
                e.subject_id) then 'null' else coalesce(to_json(e.target_id)::text, 'null') end
            || ',"source":' || coalesce(to_json(e.source)::text, 'null')
            || ',"captured_from":' || coalesce(to_json(e.captured_from)::text, 'null')
            || '}', 'UTF8'))$sql$;
$$;
comment on function audit_private.leaf_expression is
    'The hash of the leaf of an event e, whose further columns series and salt are the key of the '
    'series of its tick and its salt';

create or replace function audit_private.tick_leaf(tick_id bigint) returns bytea
language sql stable set search_path = pg_catalog, pg_temp set datestyle = 'ISO'
as $$
    select sha256(decode('0002', 'hex') || convert_to(format(
        '{"version":1,"series":"%s","began":"%s","after_id":"%s","tick":"%s","made_at":"%s",'
            '"transaction_id":"%s","snapshot":"%s","since":"%s","whole_id":"%s",'
            '"lower_id":"%s","upper_id":"%s",'
            '"events":"%s","months":{%s}}',
        s.key, s.began, s.after_id, t.id, audit_private.canonical_time(t.made_at),
        t.transaction_id, t.snapshot, audit_private.canonical_time(t.since), t.whole_id,
        t.lower_id, t.upper_id, t.events, (
            select string_agg(format('"%s":"%s"', m.month, m.events), ',' order by m.month)
            from audit.tick_month as m where m.tick_id = t.id)), 'UTF8'))
    from audit.tick as t join audit.series as s on s.id = t.series_id
    where t.id = tick_leaf.tick_id;
$$;
comment on function audit_private.tick_leaf is
    'The hash of the leaf of a tick, which follows those of its events';

-- From one seed: to ask the operating system for each salt costs as much as all hashing does.
create or replace function audit_private.random_salts(count bigint) returns bytea
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    with seed as materialized (
        select uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) as seed
    )
    select coalesce(substr(string_agg(sha256(s.seed || int8send(n)), ''::bytea), 1,
        (random_salts.count * 16)::int), '')
    from seed as s, generate_series(1, (random_salts.count + 1) / 2) as n;
$$;
comment on function audit_private.random_salts is
    'So many random salts of 16 bytes, one behind the other';
