-- Seals: hash what ticks hold to leaves of a Merkle tree, once and in their order. docs/evidence.md
-- says what each byte is; auditdb/evidence/ builds the tree, signs it, and verifies.

-- The personal part of an event is what erasure takes away: with the salt gone, nobody can tell
-- from its hash what it was. The rest, its skeleton, is hidden by that hash too.
create or replace function audit_private.names_person(target_type text, target_id text,
    subject_id text) returns boolean
language sql immutable
return coalesce(names_person.target_type = 'user'
    or names_person.subject_id = any (string_to_array(names_person.target_id, '/')), false);
comment on function audit_private.names_person is
    'Whether the target of an event is a person, or a part of its key is one, so that it belongs '
    'to the personal part';

-- One expression in PL/pgSQL: as audit.canonical has it, and for its reasons.
create or replace function audit_private.personal_commitment(event audit.event, salt bytea)
returns bytea
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
    return sha256(personal_commitment.salt || convert_to(
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
        || '}', 'UTF8'));
end
$$;
comment on function audit_private.personal_commitment is
    'The hash of the personal part of an event under a salt: what is left of it once it is erased';

create or replace function audit_private.event_leaf(event audit.event, series uuid, salt bytea)
returns bytea
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    return sha256(decode('0001', 'hex')
        || audit_private.personal_commitment(event, event_leaf.salt) || convert_to(
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

-- Events of a tick and a month after a place among them, in their order. What is read is part of
-- ticks, and so never changes; what was dropped or taken away before is not sealed.
create or replace function audit_private.seal_events(
    tick_id bigint, month date, after_at timestamptz, after_id bigint, at_most int,
    out ids bigint[], out first_at timestamptz, out last_at timestamptz, out salts bytea,
    out leaves bytea
)
language plpgsql volatile set search_path = pg_catalog, pg_temp set row_security = on
    set timezone = 'UTC' set datestyle = 'ISO'
as $$
declare
    _month audit.tick_month;
    _tick audit.tick;
    _former audit.tick;
    _key uuid;
    _salts bytea;
begin
    select * into strict _month from audit.tick_month as m
    where m.tick_id = seal_events.tick_id and m.month = seal_events.month;
    select * into strict _tick from audit.tick as t where t.id = seal_events.tick_id;
    select * into _former from audit.tick as t where t.id = seal_events.tick_id - 1;
    select s.key into strict _key from audit.series as s where s.id = _tick.series_id;
    _salts := audit_private.random_salts(least(_month.events, at_most));
    execute format($sql$
        with found as (
            select e.id, e.occurred_at, e.*::audit.event as e
            from audit.event as e
            where e.occurred_at >= $1 and e.occurred_at <= $2 and e.id >= $3 and e.id <= $4
                and (%s) and (e.occurred_at, e.id) > ($5, $6)
            order by e.occurred_at, e.id
            limit $7
        ), hashed as materialized (
            select f.number, f.id, f.occurred_at, audit_private.event_leaf(f.e, $8,
                substr($9, (f.number * 16 - 15)::int, 16)) as leaf
            from (
                select *, row_number() over (order by occurred_at, id) as number from found
            ) as f
        )
        select coalesce(array_agg(h.id order by h.number), '{}'), min(h.occurred_at),
            max(h.occurred_at), coalesce(string_agg(h.leaf, ''::bytea order by h.number), '')
        from hashed as h$sql$,
        audit_private.tick_condition(_tick, _former))
    into ids, first_at, last_at, leaves
    using _month.first_at, _month.last_at, _month.first_id, _month.last_id,
        coalesce(after_at, '-infinity'), coalesce(after_id, -1),
        least(_month.events, at_most), _key, _salts;
    salts := substr(_salts, 1, cardinality(ids) * 16);
end
$$;
comment on function audit_private.seal_events is
    'Salts and leaves of the next events of a tick and a month';

create or replace function audit_private.refuse_sealing(at_most int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if at_most is null or at_most not between 1 and 1000000 then
        raise exception 'cannot seal % events at once', at_most
            using errcode = 'invalid_parameter_value', hint = 'Give a number from 1 to 1000000.';
    elsif current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise exception 'ticks cannot be sealed under %', current_setting('transaction_isolation')
            using errcode = 'invalid_transaction_state', hint = 'Use read committed.';
    elsif not pg_try_advisory_xact_lock(hashtextextended('auditdb seal', 0)) then
        raise exception 'another sealer is at work' using errcode = 'lock_not_available';
    end if;
end
$$;
comment on function audit_private.refuse_sealing is
    'Raises where nothing can be sealed here and now; else keeps other sealers away';

-- A tick that a transaction has made and not committed, a crash could take and make again.
create or replace function audit_private.months_to_seal(last audit.seal)
returns table (tick_id bigint, month date, is_last boolean, after_at timestamptz, after_id bigint)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select m.tick_id, m.month, lead(m.month) over (order by m.month) is null,
        case when m.month = f.month then (months_to_seal.last).last_at end,
        case when m.month = f.month then (months_to_seal.last).ids[
            cardinality((months_to_seal.last).ids)] end
    from (
        select case when (months_to_seal.last).is_last is false
                then (months_to_seal.last).tick_id
                else coalesce((months_to_seal.last).tick_id + 1, (select min(id) from audit.tick))
                end,
            case when (months_to_seal.last).is_last is false then (months_to_seal.last).month end
    ) as f (tick_id, month)
        join audit.tick as t on t.id = f.tick_id
        join audit.tick_month as m on m.tick_id = t.id
    where t.transaction_id is distinct from pg_current_xact_id_if_assigned()
        and m.month >= coalesce(f.month, '-infinity')
    order by m.month;
$$;
comment on function audit_private.months_to_seal is
    'The months of the next tick from which something is to be sealed, and after which event, by '
    'the last seal';

-- Takes no lock that a writer could meet, and may be repeated and interrupted: each call is whole.
create or replace function audit.seal_next(at_most int default 10000) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _last audit.seal;
    _month record;
    _part record;
    _ends boolean;
begin
    perform audit_private.refuse_sealing(at_most);
    lock table audit.event in access share mode;
    select * into _last from audit.seal order by id desc limit 1;
    for _month in select * from audit_private.months_to_seal(_last) loop
        _part := audit_private.seal_events(_month.tick_id, _month.month, _month.after_at,
            _month.after_id, at_most);
        if _part.ids <> '{}' or _month.is_last then
            _ends := _month.is_last and cardinality(_part.ids) < at_most;
            insert into audit.seal (id, tick_id, month, first_leaf, first_at, last_at, ids, salts,
                leaves, is_last)
            values (coalesce(_last.id, 0) + 1, _month.tick_id, _month.month,
                coalesce(_last.first_leaf + octet_length(_last.leaves) / 32, 0), _part.first_at,
                _part.last_at, _part.ids, _part.salts,
                case when _ends then _part.leaves || audit_private.tick_leaf(_month.tick_id)
                    else _part.leaves end, _ends)
            returning * into _last;
            return _last.first_leaf + octet_length(_last.leaves) / 32;
        end if;
    end loop;
    return null;
end
$$;
-- Definer: nobody else writes seals.
comment on function audit.seal_next is
    'Hashes the next events of ticks to leaves, and returns how many leaves there are then; null '
    'where every tick is sealed. auditdb seal builds the tree of them and signs it';

create or replace function audit_private.keep_tiles(levels int[], numbers bigint[], nodes bytea[])
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _new record;
    _old bytea;
begin
    for _new in
        select * from unnest(levels, numbers, nodes) as t (level, number, nodes)
        order by t.level, t.number
    loop
        select t.nodes into _old from audit.tile as t
        where (t.level, t.number) = (_new.level, _new.number);
        if _new.level not between 1 and 7 or octet_length(_new.nodes) not between 32 and 8192
            or substr(_new.nodes, 1, octet_length(_old)) <> _old
        then
            raise exception 'tile %/% does not go on from that which is there', _new.level,
                    _new.number
                using errcode = 'integrity_constraint_violation',
                    hint = 'Run: auditdb verify';
        end if;
        insert into audit.tile (level, number, nodes)
        values (_new.level, _new.number, _new.nodes)
        on conflict (level, number) do update set nodes = excluded.nodes;
    end loop;
end
$$;
-- Definer: nobody else writes tiles.
comment on function audit_private.keep_tiles is
    'Keeps tiles of the tree above its leaves; part of auditdb seal';

create or replace function audit_private.keep_checkpoint(note text, size bigint) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
    insert into audit.checkpoint (note, size)
    select keep_checkpoint.note, keep_checkpoint.size
    where not exists (
        select from audit.checkpoint as c
        where c.size = keep_checkpoint.size and c.note = keep_checkpoint.note);
$$;
-- Definer: nobody else writes checkpoints.
comment on function audit_private.keep_checkpoint is
    'Keeps a signed checkpoint, once; part of auditdb seal';

create or replace function audit_private.keep_rotation(note text) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
    insert into audit.key_rotation (note)
    select keep_rotation.note
    where not exists (
        select from audit.key_rotation as r where r.note = keep_rotation.note);
$$;
-- Definer: nobody else writes them.
comment on function audit_private.keep_rotation is
    'Keeps the note in which a sealing key hands over to another; part of auditdb seal rotate';
