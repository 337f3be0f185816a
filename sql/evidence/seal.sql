-- Seals: the events of ticks are hashed to leaves of a Merkle tree, once and in order.
-- docs/evidence.md defines each byte; auditdb/evidence/ builds the tree, signs it, and verifies it.

-- Events of a tick and a month after a given event, in their order. Events in ticks never change.
-- Events that were dropped or deleted before are not sealed; erased ones are, as they are left.
create or replace function audit_private.seal_events(
    tick_id bigint, month date, after_at timestamptz, after_id bigint, at_most int,
    out ids bigint[], out first_at timestamptz, out last_at timestamptz, out salts bytea,
    out leaves bytea, out organizations text[]
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
            select e.*
            from audit.event as e
            where e.occurred_at >= $1 and e.occurred_at <= $2 and e.id >= $3 and e.id <= $4
                and (%s) and (e.occurred_at, e.id) > ($5, $6)
            order by e.occurred_at, e.id
            limit $7
        ), hashed as materialized (
            select e.number, e.id, e.occurred_at, e.organization_id, %s as leaf
            from (
                select *, $8 as series, substr($9, (number * 16 - 15)::int, 16) as salt
                from (select *, row_number() over (order by occurred_at, id) as number from found)
                    as f
            ) as e
        )
        select coalesce(array_agg(h.id order by h.number), '{}'), min(h.occurred_at),
            max(h.occurred_at), coalesce(string_agg(h.leaf, ''::bytea order by h.number), ''),
            array_agg(h.organization_id order by h.number)
        from hashed as h$sql$,
        audit_private.tick_condition(_tick, _former), audit_private.leaf_expression())
    into ids, first_at, last_at, leaves, organizations
    using _month.first_at, _month.last_at, _month.first_id, _month.last_id,
        coalesce(after_at, '-infinity'), coalesce(after_id, -1),
        least(_month.events, at_most), _key, _salts;
    salts := substr(_salts, 1, cardinality(ids) * 16);
end
$$;
comment on function audit_private.seal_events is
    'Salts and leaves of the next events of a tick and a month, and the organisation of each';

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
    -- Only the owner may lock this table so; anybody could take an advisory lock.
    elsif not audit_private.try_locks('{audit.key_rotation}', '{share row exclusive}') then
        raise exception 'another sealer is at work' using errcode = 'lock_not_available';
    elsif current_setting('synchronous_commit') <> 'remote_apply' then
        -- If a crash lost what was signed, it could not be sealed again, because salts are random.
        perform set_config('synchronous_commit', 'on', true);
    end if;
end
$$;
comment on function audit_private.refuse_sealing is
    'Raises if nothing can be sealed now. Otherwise keeps other sealers out, and makes sure that '
    'seals are on disk before they are signed';

-- Skips uncommitted ticks: a crash could lose such a tick, and its number would be used again.
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
    'The months of the next tick to seal, and in each the last event that is sealed already, by '
    'the last seal';

-- Takes no lock that a writer waits for, and may be interrupted and repeated:
-- each call is complete.
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
            perform audit_private.count_organizations(_part.organizations);
            insert into audit.seal (id, tick_id, month, first_leaf, first_at, last_at, ids, salts,
                leaves, is_last)
            values (coalesce(_last.id, 0) + 1, _month.tick_id, _month.month,
                coalesce(_last.first_leaf + octet_length(_last.leaves) / 32, 0), _part.first_at,
                _part.last_at, _part.ids, _part.salts,
                case when _ends then _part.leaves || audit_private.tick_leaf(_month.tick_id)
                    || audit_private.seal_organizations(_month.tick_id)
                    else _part.leaves end, _ends)
            returning * into _last;
            return _last.first_leaf + octet_length(_last.leaves) / 32;
        end if;
    end loop;
    return null;
end
$$;
-- Definer: only audit_owner writes seals.
comment on function audit.seal_next is
    'Hashes the next events of ticks to leaves, and returns the number of all leaves; null if '
    'every tick is sealed. auditdb seal builds their tree and signs it';

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
            raise exception 'tile %/% does not continue the stored one', _new.level,
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
-- Definer: only audit_owner writes tiles.
comment on function audit_private.keep_tiles is
    'Stores tiles of the tree above its leaves; part of auditdb seal';

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
-- Definer: only audit_owner writes checkpoints.
comment on function audit_private.keep_checkpoint is
    'Stores a signed checkpoint, once; part of auditdb seal';

create or replace function audit_private.keep_rotation(note text) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
    insert into audit.key_rotation (note)
    select keep_rotation.note
    where not exists (
        select from audit.key_rotation as r where r.note = keep_rotation.note);
$$;
-- Definer: only audit_owner writes them.
comment on function audit_private.keep_rotation is
    'Stores the note by which one sealing key hands over to another; part of auditdb seal rotate';
