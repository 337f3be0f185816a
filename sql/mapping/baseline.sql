-- Baseline: an event for each row that was in a table before it was attached. It goes batch by
-- batch: each transaction commits some events and the progress together. The owner of the table
-- reads its rows, and passes each to a function of the log that checks the caller.

create or replace function audit_private.baseline_context() returns jsonb
language sql stable
return jsonb_build_object(
    'actor_id', session_user::text, 'actor_type', 'system', 'source', 'system');
comment on function audit_private.baseline_context is
    'The context of a baseline event: nobody changed the row';

create or replace function audit_private.context_of(op text) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return case op when 'BASELINE' then audit_private.baseline_context()
    else audit_private.context_in_force() end;
comment on function audit_private.context_of is
    'The context of an operation on a row; for a baseline, that of '
    'audit_private.baseline_context()';

create or replace function audit_private.baselined_table(id int, type oid) returns text[]
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _table text[] := (
        select array[n.nspname, c.relname]
        from audit_private.attachment as a
            join pg_class as c on c.oid = a.target and c.reltype = a.row_type
            join pg_namespace as n on n.oid = c.relnamespace
        where a.id = baselined_table.id and a.row_type = baselined_table.type
            and a.baseline ->> 'transaction' = pg_current_xact_id()::text);
begin
    if _table is null then
        raise exception 'the owner of the table opened no baseline in this transaction'
            using errcode = 'insufficient_privilege', hint = 'Call audit.baseline().';
    end if;
    return _table;
end
$$;
comment on function audit_private.baselined_table is
    'Schema and name of a table whose baseline its owner opened in this transaction; '
    'raises if there is none';

create or replace function audit_private.baselined_by_hand(baseline jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    select jsonb_agg(t.id)
    from jsonb_array_elements_text(coalesce(baselined_by_hand.baseline -> 'by_hand', '[]')
        || jsonb_build_array(baselined_by_hand.baseline -> 'transaction')) as t (id)
    where t.id <> coalesce(pg_current_xact_id_if_assigned()::text, '')
);
comment on function audit_private.baselined_by_hand is
    'The transactions that opened a baseline and noted no rows; null if there are none';

create or replace function audit_private.open_baseline(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _kind text;
begin
    -- A second call waits for the batch of the first, and continues after it.
    update audit_private.attachment as a
    set baseline = coalesce(a.baseline, jsonb_build_object('rows', 0, 'started_at', now(),
            'started_in', pg_current_xact_id()::text))
        -- A baseline that was opened and never noted was done by hand: the doctor reports it.
        || case when a.baseline ->> 'transaction' <> pg_current_xact_id()::text then
            jsonb_build_object('by_hand', audit_private.baselined_by_hand(a.baseline))
            else '{}' end
        || jsonb_build_object('transaction', pg_current_xact_id()::text)
    where a.target = open_baseline.target and a.kind <> 'admin'
        and audit_private.is_there(a.target, a.row_type)
        and not coalesce(a.baseline ? 'ended_at', false)
    returning a.kind into _kind;
    if not found and not exists (
        select from audit_private.attachment as a
        where a.target = open_baseline.target and a.baseline ? 'ended_at')
    then
        raise exception '% is not attached', open_baseline.target
            using errcode = 'undefined_object', hint = 'Attach it first, so that no later '
                'change is missed.';
    end if;
    insert into audit.action (name, description)
    select _kind || '.baseline', format('A row of kind %s was there already', _kind)
    where _kind is not null
    on conflict do nothing;
end
$$;
comment on function audit_private.open_baseline is
    'Allows rows of the table to be recorded for the rest of the transaction';

-- Counted here, because the role that reads the rows could lie.
create or replace function audit_private.note_baseline(target regclass, given jsonb) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _a audit_private.attachment;
    _count bigint;
begin
    select * into _a from audit_private.attachment as a where a.target = note_baseline.target;
    if _a.baseline ->> 'transaction' is distinct from pg_current_xact_id()::text then
        raise exception 'no baseline of % was opened', note_baseline.target
            using errcode = 'object_not_in_prerequisite_state', hint = 'Call audit.baseline().';
    end if;
    select count(*) into _count from audit.event as e
    where e.occurred_at >= now() and e.transaction_id = pg_current_xact_id()
        and e.action = _a.kind || '.baseline'
        and e.captured_from = audit_private.unquoted(audit_private.table_name(_a.target));
    _a.baseline := _a.baseline - '{transaction,after}'::text[]
        || jsonb_build_object('rows', (_a.baseline ->> 'rows')::bigint + _count)
        || case when (given -> 'is_over')::boolean then jsonb_build_object('ended_at', now())
            else jsonb_build_object('after', given -> 'after') end;
    update audit_private.attachment as a set baseline = _a.baseline where a.id = _a.id;
    if _a.baseline ? 'ended_at' then
        perform audit_private.record_own('baselined', audit_private.table_name(_a.target), null,
            jsonb_build_object('kind', _a.kind, 'rows', _a.baseline -> 'rows',
                'started_at', _a.baseline -> 'started_at'));
    end if;
end
$$;
comment on function audit_private.note_baseline is
    'Notes the progress of the baseline of a table, and records its end';

-- Only keys of types that PostgreSQL itself compares, so that no code of the application runs as
-- the reading role. No secret, because the progress can be read.
create or replace function audit_private.walk_key(target regclass, kind text)
returns table (n bigint, name text, type text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with fit as (
        select i.indrelid, i.indkey
        from pg_index as i
        where i.indrelid = walk_key.target and i.indisunique and i.indisvalid
            and i.indpred is null and i.indexprs is null
            and not exists (
                select from pg_attribute as a
                    join pg_type as t on t.oid = audit_private.base_type(a.atttypid)
                where a.attrelid = i.indrelid and a.attnum = any (i.indkey)
                    and (not a.attnotnull or t.typnamespace <> 'pg_catalog'::regnamespace
                        or t.typtype <> 'b' or t.typcategory = 'A'
                        or a.attname = any (audit_private.secret_columns(
                            walk_key.target, walk_key.kind))))
        order by i.indisprimary desc, i.indexrelid
        limit 1
    )
    select k.n, a.attname, format_type(audit_private.base_type(a.atttypid), null)
    from fit cross join unnest(fit.indkey) with ordinality as k (attnum, n)
        join pg_attribute as a on a.attrelid = fit.indrelid and a.attnum = k.attnum
    order by k.n;
$$;
comment on function audit_private.walk_key is
    'The columns, with their types, by which a baseline walks through the rows of a table';

-- FOR SHARE NOWAIT: otherwise a row that a transaction is changing would be recorded in its old
-- form, with a higher id than the event of the change. The lock is on the rows of a batch, until
-- its commit; only sessions that change one of these rows wait. It never waits itself.
create or replace function audit_private.walk_query(
    target regclass, id int, kind text, after jsonb, size int
) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format('select count(*) as rows, jsonb_agg(jsonb_build_array(%s)) -> -1 as after, '
            'count(audit_private.baseline_%s(null::%s, p.r)) as told '
            -- A column may be called r, too.
            'from (select (r.*)::%3$s as r from %s as r%s order by %s limit %s for share nowait) '
            'as p',
        string_agg(format('(p.r).%I::text', k.name), ', ' order by k.n),
        walk_query.id, c.oid::regclass,
        case when c.relkind = 'p' then '' else 'only ' end || c.oid::regclass,
        case when jsonb_typeof(walk_query.after) = 'array' then format(' where (%s) > (%s)',
            string_agg(format('r.%I', k.name), ', ' order by k.n),
            string_agg(format('(%L::jsonb ->> %s)::%s', walk_query.after, k.n - 1, k.type), ', '
                order by k.n)) end,
        string_agg(format('r.%I', k.name), ', ' order by k.n), walk_query.size)
    from pg_class as c
        cross join audit_private.walk_key(walk_query.target, walk_query.kind) as k
    where c.oid = walk_query.target
    group by c.oid, c.relkind
);
comment on function audit_private.walk_query is
    'The statement that records the next rows by their key; null if the table has no key';

-- A row that was changed since the beginning may have moved: its change is an event already.
create or replace function audit_private.block_query(
    target regclass, id int, age text, block bigint, size int
) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format('select %s >= %s as is_over, count(*) as rows, %1$s as after, '
            'count(audit_private.baseline_%3$s(null::%4$s, p.r)) as told '
            'from (select (r.*)::%4$s as r from %5$s as r '
            'where r.ctid >= ''(%6$s,0)''::tid and r.ctid < ''(%1$s,0)''::tid '
            'and age(r.xmin) not between 0 and %7$s for share nowait) as p',
        block_query.block + block_query.size,
        (
            select coalesce(max(pg_relation_size(t.relid)), 0)
                / current_setting('block_size')::int + 1
            from pg_partition_tree(block_query.target) as t
        ),
        block_query.id, c.oid::regclass,
        case when c.relkind = 'p' then '' else 'only ' end || c.oid::regclass,
        block_query.block, block_query.age)
    from pg_class as c where c.oid = block_query.target
);
comment on function audit_private.block_query is
    'The statement that records the rows of the next blocks of a table without a key';

-- The planner evaluates constants in the expressions of indexes, statistics, constraints and
-- partitions, with the rights of the role that reads the table.
create or replace function audit_private.foreign_to_plan(target regclass) returns regclass
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with recursive tree as (
        select foreign_to_plan.target::oid as id
        union
        select i.inhrelid from pg_inherits as i join tree as t on t.id = i.inhparent
    ),
    part as (
        select t.id, 'pg_class'::regclass as class, t.id as object from tree as t
        union all
        select t.id, 'pg_class'::regclass, i.indexrelid
        from tree as t join pg_index as i on i.indrelid = t.id
        union all
        select t.id, 'pg_statistic_ext'::regclass, s.oid
        from tree as t join pg_statistic_ext as s on s.stxrelid = t.id
        union all
        select t.id, 'pg_constraint'::regclass, n.oid
        from tree as t join pg_constraint as n on n.conrelid = t.id and n.contype = 'c'
    )
    select c.oid::regclass
    from part as p
        join pg_class as c on c.oid = p.id and pg_get_userbyid(c.relowner) <> current_user
        join pg_depend as d on d.classid = p.class and d.objid = p.object
            and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass)
    order by c.oid
    limit 1;
$$;
comment on function audit_private.foreign_to_plan is
    'A table whose owner''s code would run as the caller if the given table were read; '
    'null if none';

create or replace function audit_private.is_own(target regclass) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with recursive tree as (
        select is_own.target::oid as id
        union
        select i.inhrelid from pg_inherits as i join tree as t on t.id = i.inhparent
    )
    select bool_and(pg_get_userbyid(c.relowner) = current_user)
    from tree as t join pg_class as c on c.oid = t.id;
$$;
comment on function audit_private.is_own is
    'Whether the caller owns a table, all its partitions and all tables that inherit from it';

-- The owner may rename the table, or change what the planner evaluates, at any moment. A view keeps
-- pointing to the table whatever its name is, and a lock keeps what was checked.
create or replace function audit_private.read_rows(target regclass, query text)
returns setof jsonb
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _owner text;
begin
    if audit_private.is_own(target) then
        return query execute format('select to_jsonb(v) from (%s) as v', query);
        return;
    end if;
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'a transaction that is % does not see the present state of %',
                current_setting('transaction_isolation'), target
            using errcode = 'invalid_transaction_state',
                hint = 'Read its rows at READ COMMITTED, or as its owner.';
    end if;
    execute 'create temporary view auditdb_rows as ' || query;
    if exists (
        select from pg_rewrite as w join pg_depend as d on d.objid = w.oid
        where w.ev_class = 'pg_temp.auditdb_rows'::regclass and d.classid = 'pg_rewrite'::regclass
            and d.refclassid = 'pg_class'::regclass and d.refobjid not in (w.ev_class, target)
    ) then
        raise exception '% was renamed meanwhile', target
            using errcode = 'object_in_use', hint = 'Try again.';
    end if;
    lock table pg_temp.auditdb_rows in share update exclusive mode;
    _owner := (select relowner::regrole from pg_class as c
        where c.oid = audit_private.foreign_to_plan(target));
    if _owner is not null then
        raise exception 'reading % would run functions of its owner as %', target, current_user
            using errcode = 'insufficient_privilege', hint = format('Call it as %s.', _owner);
    end if;
    return query select to_jsonb(v) from pg_temp.auditdb_rows as v;
    drop view pg_temp.auditdb_rows;
end
$$;
comment on function audit_private.read_rows is
    'Runs a query that reads a table. If the caller is not the owner, code of the owner never runs';

create or replace function audit_private.record_page(
    a audit_private.attachment, size int, out after jsonb, out rows bigint, out is_over boolean
)
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _query text := audit_private.walk_query(a.target, a.id, a.kind, a.baseline -> 'after', size);
    _block bigint := coalesce(case jsonb_typeof(a.baseline -> 'after')
        when 'number' then (a.baseline ->> 'after')::bigint end, 0);
begin
    -- If a policy hides rows from the owner, this is an error, not a smaller baseline.
    perform set_config('row_security', 'off', true);
    if _query is null then
        _query := audit_private.block_query(a.target, a.id, (
            (a.baseline ->> 'transaction')::bigint - (a.baseline ->> 'started_in')::bigint)::text,
            _block, greatest(1, size / 50));
    end if;
    select p -> 'after', (p -> 'rows')::bigint,
        coalesce((p -> 'is_over')::boolean, (p -> 'rows')::bigint < size)
    into after, rows, is_over
    from audit_private.read_rows(a.target, _query) as p;
    perform set_config('row_security', 'on', true);
end
$$;
comment on function audit_private.record_page is
    'Records the next rows of a table, and returns the key or block that it reached';

create or replace function audit.baseline(target regclass, batch int default 200) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp set row_security = on set lock_timeout = '2s'
-- So that keys are written as they are read later.
set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
set extra_float_digits = 1 set bytea_output = 'hex' set lc_monetary = 'C'
as $$
declare
    _a audit_private.attachment;
    _size int := greatest(1, baseline.batch);
    _page record;
begin
    insert into audit_private.request (verb, target) values ('baseline', baseline.target);
    select * into _a from audit_private.attachment as a where a.target = baseline.target;
    if _a.baseline ? 'ended_at' then
        return null;
    end if;
    loop
        begin
            select * into _page from audit_private.record_page(_a, _size);
            exit;
        exception when lock_not_available then
            if _size = 1 then
                raise exception '% is busy: a transaction is changing the next row', target
                    using errcode = 'lock_not_available', hint = 'Try again when that has ended.';
            end if;
            -- Up to the row that another transaction is changing.
            _size := greatest(1, _size / 10);
        end;
    end loop;
    insert into audit_private.request (verb, target, given) values ('baselined', baseline.target,
        jsonb_build_object('after', _page.after, 'is_over', _page.is_over));
    return _page.rows;
end
$$;
comment on function audit.baseline is
    'Records the next rows of an attached table, as they are now, as events <kind>.baseline, and '
    'returns how many; null once all are recorded. '
    'Call it until then, each time in a new transaction';
