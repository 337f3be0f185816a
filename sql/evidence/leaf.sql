-- The leaves of events and ticks, as the server hashes them. docs/evidence.md defines each byte;
-- auditdb/evidence/lines.py builds the same leaves.

-- Erasure removes the personal part of an event, and its salt: without the salt, nobody can guess
-- the personal part from its hash. The hash hides the rest, the skeleton, too.
create or replace function audit_private.names_person(target_type text, target_id text,
    subject_id text) returns boolean
language sql immutable
return coalesce(names_person.target_type = 'user'
    or position('/' || names_person.subject_id || '/' in '/' || names_person.target_id || '/') > 0,
    false);
comment on function audit_private.names_person is
    'Whether the target of an event is a person, or a part of its key is one; the target then '
    'belongs to the personal part';

-- A text for a query to include: a function call per row takes four times as long. A parsed body
-- would depend on the columns of the log, and install could not alter them.
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
    'SQL expression for the hash of the personal part of an event e under the salt s.salt; '
    'erasure keeps this hash';

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
    'SQL expression for the hash of the leaf of an event e; its further columns series and salt '
    'are the key of the series of its tick, and its salt';

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
    'The hash of the leaf of a tick, which comes after the leaves of its events';

-- From one seed: asking the operating system for each salt would cost as much as all hashing.
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
    'That many random salts of 16 bytes, one after another';
