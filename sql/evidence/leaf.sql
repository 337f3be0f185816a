-- The leaves of events and ticks, as the server hashes them: docs/evidence.md says what each byte
-- is, and auditdb/evidence/lines.py makes the same ones.

-- The personal part of an event is what erasure takes away: with the salt gone, nobody can tell
-- from its hash what it was. The rest, its skeleton, is hidden by that hash too.
create or replace function audit_private.names_person(target_type text, target_id text,
    subject_id text) returns boolean
language sql immutable
return coalesce(names_person.target_type = 'user' or names_person.target_id
    = names_person.subject_id, false);
comment on function audit_private.names_person is
    'Whether the target of an event is a person, and so belongs to its personal part';

-- One expression in PL/pgSQL: as audit.canonical has it, and for its reasons.
create or replace function audit_private.event_leaf(event audit.event, series uuid, salt bytea)
returns bytea
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    return sha256(decode('0001', 'hex') || sha256(event_leaf.salt || convert_to(
        '{"version":1'
        || ',"actor_id":' || coalesce(to_json(event.actor_id)::text, 'null')
        || ',"impersonator_id":' || coalesce(to_json(event.impersonator_id)::text, 'null')
        || ',"target_id":' || case when audit_private.names_person(event.target_type,
            event.target_id, event.subject_id)
            then coalesce(to_json(event.target_id)::text, 'null') else 'null' end
        || ',"subject_id":' || coalesce(to_json(event.subject_id)::text, 'null')
        || ',"old_values":' || coalesce(event.old_values::text, 'null')
        || ',"new_values":' || coalesce(event.new_values::text, 'null')
        || ',"details":' || coalesce(event.details::text, 'null')
        || '}', 'UTF8')) || convert_to(
        '{"version":1,"series":"' || event_leaf.series::text || '"'
        || ',"id":"' || event.id::text || '"'
        || ',"occurred_at":"' || audit_private.canonical_time(event.occurred_at) || '"'
        || ',"transaction_id":"' || event.transaction_id::text || '"'
        || ',"action":' || coalesce(to_json(event.action)::text, 'null')
        || ',"result":' || coalesce(to_json(event.result)::text, 'null')
        || ',"actor_type":' || coalesce(to_json(event.actor_type)::text, 'null')
        || ',"db_user":' || coalesce(to_json(event.db_user)::text, 'null')
        || ',"db_role":' || coalesce(to_json(event.db_role)::text, 'null')
        || ',"organization_id":' || coalesce(to_json(event.organization_id)::text, 'null')
        || ',"target_type":' || coalesce(to_json(event.target_type)::text, 'null')
        || ',"target_id":' || case when audit_private.names_person(event.target_type,
            event.target_id, event.subject_id)
            then 'null' else coalesce(to_json(event.target_id)::text, 'null') end
        || ',"source":' || coalesce(to_json(event.source)::text, 'null')
        || ',"captured_from":' || coalesce(to_json(event.captured_from)::text, 'null')
        || '}', 'UTF8'));
end
$$;
comment on function audit_private.event_leaf is
    'The hash of the leaf of an event, under a salt; series is the key of the series of its tick';

create or replace function audit_private.tick_leaf(tick_id bigint) returns bytea
language sql stable set search_path = pg_catalog, pg_temp
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
