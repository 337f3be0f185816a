-- The capture triggers of a table, and the locks that creating them takes.
-- Writers queue behind a session that waits for a lock. Each attempt therefore waits only 50 ms,
-- and takes either all locks that are needed or none.

create or replace function audit_private.try_locks(relations regclass[], modes text[])
returns boolean
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '50ms'
as $$
declare
    _until timestamptz := clock_timestamp() + interval '50 milliseconds';
begin
    for _i in 1 .. cardinality(relations) loop
        -- 50 ms for all of them together: writers wait at the tables that are locked already.
        perform set_config('lock_timeout', greatest(1, ceil(
            extract(epoch from _until - clock_timestamp()) * 1000))::text, true);
        execute format('lock table only %s in %s mode', relations[_i], modes[_i]);
    end loop;
    return true;
exception when lock_not_available then
    return false;
end
$$;
comment on function audit_private.try_locks is
    'Locks all the given tables, or none if it would take longer than writers may wait; '
    'returns whether it did';

create or replace function audit_private.lock_together(
    relations regclass[], modes text[], attempts int default 20
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    for _attempt in 1 .. attempts loop
        if audit_private.try_locks(relations, modes) then
            return;
        end if;
        perform pg_sleep(0.2) where _attempt < attempts;
    end loop;
    raise exception '% is busy: another transaction uses it', relations[1]
        using errcode = 'lock_not_available', hint = 'Try again when that has ended.';
end
$$;
comment on function audit_private.lock_together is
    'Locks tables together, with many short attempts instead of a long wait';

create or replace function audit_private.trigger_function(id int, op text) returns regprocedure
language sql stable set search_path = pg_catalog, pg_temp
return to_regprocedure(format('audit_private.capture_%s_%s()', id, op));
comment on function audit_private.trigger_function is
    'The function that a capture trigger of a table calls';

-- TRUNCATE of a partition does not fire the trigger of its parent; row triggers are inherited.
create or replace function audit_private.trigger_faults(target regclass, id int)
returns table (relation regclass, op text, is_wrong boolean, is_constraint boolean)
language sql stable rows 4 set search_path = pg_catalog, pg_temp
as $$
    select case when w.op = 'truncate' then p.relation else trigger_faults.target end, w.op,
        bool_or(f.is_wrong), bool_or(coalesce(t.tgconstraint <> 0, false))
    from (
        select trigger_faults.target as relation
        union
        select relid from pg_partition_tree(trigger_faults.target)
    ) as p
        cross join (values ('insert', 5), ('update', 17), ('delete', 9), ('truncate', 32))
            as w (op, type)
        left join pg_trigger as t on t.tgrelid = p.relation and t.tgname = 'auditdb_' || w.op
        cross join lateral (
            -- With another type, a condition or a list of columns, it would fire less often.
            select coalesce(t.tgfoid <> audit_private.trigger_function(trigger_faults.id, w.op)
                or t.tgtype <> w.type or t.tgqual is not null or t.tgattr <> '' or t.tgdeferrable
                or t.tgnargs <> 0, true)
        ) as f (is_wrong)
    where f.is_wrong or t.tgenabled <> 'A'
    group by 1, 2
    order by 1, 2;
$$;
comment on function audit_private.trigger_faults is
    'The capture triggers that a table and its partitions lack, '
    'and those that are disabled or call another function';

create or replace function audit_private.create_trigger(
    relation regclass, id int, op text, is_wrong boolean, is_constraint boolean
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _name text := 'auditdb_' || op;
begin
    if create_trigger.is_constraint then
        execute format('drop trigger %I on %s', _name, relation);
    end if;
    if create_trigger.is_wrong then
        execute format('create or replace trigger %I after %s on %s for each %s '
            'execute function %s', _name, op, relation,
            case op when 'truncate' then 'statement' else 'row' end,
            audit_private.trigger_function(id, op));
    end if;
    execute format('alter table %s enable always trigger %I', relation, _name);
end
$$;
comment on function audit_private.create_trigger is
    'Creates a capture trigger, or replaces one that calls another function, and enables it';

create or replace function audit_private.create_triggers(target regclass, id int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _f record;
begin
    for _f in select * from audit_private.trigger_faults(target, id) loop
        perform audit_private.create_trigger(
            _f.relation, create_triggers.id, _f.op, _f.is_wrong, _f.is_constraint);
    end loop;
end
$$;
comment on function audit_private.create_triggers is
    'Creates the capture triggers of a table and of its partitions where one is missing or wrong';

-- PostgreSQL would lock the partitions too, one after another, and wait long for each.
create or replace function audit_private.trigger_locks(target regclass, mode text)
returns table (relation regclass, mode text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select c.oid, trigger_locks.mode
    from (
        select trigger_locks.target as relation, -1 as level
        union
        select relid, level from pg_partition_tree(trigger_locks.target)
        where relid <> trigger_locks.target
    ) as p
        join pg_class as c on c.oid = p.relation
    where c.relkind in ('r', 'p') and pg_has_role(c.relowner, 'usage')
    order by p.level, c.oid;
$$;
comment on function audit_private.trigger_locks is
    'What creating or dropping the triggers of a table locks, parents first';

-- Only tables that a mapping looks up need a policy for audit_mapper.
create or replace function audit_private.missing_policies(target regclass) returns setof regclass
language sql stable rows 1 set search_path = pg_catalog, pg_temp
as $$
    select c.oid
    from audit_private.attachment as a
        join pg_class as k on k.oid = a.target
        cross join jsonb_each(a.mapping #> '{checked,reads}') as r
        join pg_class as c on c.oid = to_regclass(r.key)
    where a.target = missing_policies.target and c.relrowsecurity
        -- An expression that reads no column needs no policy on the own table.
        and not (c.oid = a.target and r.value = '[]')
        and pg_has_role(k.relowner, c.relowner, 'usage')
        and pg_has_role(c.relowner, 'usage')
        and not exists (
            select from pg_policy where polrelid = c.oid and polname = 'auditdb_mapper')
    order by c.oid;
$$;
comment on function audit_private.missing_policies is
    'Tables with row-level security that a mapping reads, but that have no policy for audit_mapper';

create or replace function audit_private.create_policy(relation regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('create policy auditdb_mapper on %s for select to audit_mapper using (true)',
        create_policy.relation);
end
$$;
comment on function audit_private.create_policy is
    'Lets audit_mapper see the rows of a table through row-level security; '
    'grants decide the columns';

-- One table at a time, so that no session waits longer than necessary.
create or replace function audit_private.open_rows(relation regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s'
as $$
begin
    if not exists (
        select from pg_policy where polrelid = open_rows.relation and polname = 'auditdb_mapper'
    ) then
        perform audit_private.lock_together(array[relation], '{access exclusive}');
        perform audit_private.create_policy(relation);
    end if;
end
$$;
comment on function audit_private.open_rows is
    'Lets audit_mapper see the rows of a table with row-level security, locking it briefly';

create or replace function audit_private.lock_for_attach(target regclass, id int, attempts int)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _relations regclass[];
    _modes text[];
begin
    select array_agg(l.relation), array_agg(l.mode) into _relations, _modes
    from (
        select p as relation, 'access exclusive' as mode
        from audit_private.missing_policies(target) as p
        union all
        select l.relation, l.mode
        from (
            select case when bool_or(is_constraint) then 'access exclusive'
                else 'share row exclusive' end as mode
            from audit_private.trigger_faults(target, id)
            having count(*) > 0
        ) as f
            cross join audit_private.trigger_locks(target, f.mode) as l
    ) as l;
    if _relations is not null then
        perform audit_private.lock_together(_relations, _modes, attempts);
    end if;
end
$$;
comment on function audit_private.lock_for_attach is
    'Takes every lock that the rest of attaching a table needs, at once; none if it needs none';
