-- Checks of capture: triggers, tables and mappings that changed since they were attached.
-- Each returns no row if all is well; audit.doctor runs them all.

create or replace function audit_private.expected_triggers()
returns table (
    scope regclass, relation regclass, is_partition boolean, name text, fires int, calls text,
    former text, is_doubled boolean
)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select t.target, t.relation, t.relation <> t.target, 'auditdb_' || o.op, o.fires,
        format('audit_private.capture_%s_%s()', t.id, o.op),
        format('audit_private.capture_%s()', t.id),
        -- On a subscriber, the events of replicated changes arrive from the publisher.
        d.receives and audit_private.is_replicated(t.target, t.relation)
    from audit_private.captured_tables() as t
        cross join audit_private.receives_events() as d (receives)
        cross join (values ('insert', 5), ('update', 17), ('delete', 9), ('truncate', 32))
            as o (op, fires)
    union all
    select 'audit.event', g.relation, false, o.name, o.fires,
        'audit_private.refuse_change()', null, false
    from (
        select relid from pg_partition_tree('audit.event')
        union all
        select unnest(audit_private.append_only())
    ) as g (relation)
        cross join (values ('refuse_change', 27), ('refuse_truncate', 34)) as o (name, fires);
$$;
comment on function audit_private.expected_triggers is
    'The triggers that attached tables and the log must have, with the function and the events of '
    'each, and whether replication brings what it would record';

create or replace function audit_private.trigger_states(facts audit_private.fact[])
returns table (scope regclass, relation regclass, name text, state text, attested text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select e.scope, e.relation, e.name, case
        when s.oid is null and w.oid is null and e.is_partition
            then 'missing since it became a partition'
        when s.oid is null then 'missing'
        when s.calls = e.former and s.fires = e.fires and s.enabled = 'A'
            then 'made by a former release'
        when s.calls <> e.calls or s.fires is distinct from e.fires then 'calling something else'
        when s.enabled = 'D' then 'disabled'
        when s.enabled = 'O' and e.is_doubled then null
        when s.enabled = 'O' then 'downgraded from ENABLE ALWAYS'
        when s.enabled = 'R' then 'downgraded to ENABLE REPLICA'
        when not (f.fact -> 'is_comparable')::boolean then null
        when w.oid <> s.oid then 'dropped and created again'
        when w.xmin <> s.xmin then 'altered and put back'
        end, concat(f.fact ->> 'since', f.fact ->> 'by')
    from audit_private.expected_triggers() as e
        left join unnest(trigger_states.facts) as f on f.kind = 'trigger' and f.scope = e.scope
            and f.relation = e.relation and f.name = e.name
        left join lateral jsonb_to_record(nullif(f.fact -> 'was', 'null'))
            as w (oid oid, xmin text) on true
        left join lateral jsonb_to_record(nullif(f.fact -> 'stands', 'null'))
            as s (oid oid, xmin text, enabled text, calls text, fires int) on true;
$$;
comment on function audit_private.trigger_states is
    'What is wrong with each capture trigger and each guard of the log, '
    'or null, and when it was last attested';

create or replace function audit_private.check_triggers(facts audit_private.fact[])
returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'triggers',
        case when t.state like 'missing since%' or t.state like '%former%' then 'warning'
            else 'critical' end,
        t.relation::text,
        format('%s %s', string_agg(t.name, ', ' order by t.name), t.state || t.attested),
        case t.state
            when 'downgraded from ENABLE ALWAYS' then 'session_replication_role = replica now '
                'silences it; pg_restore --disable-triggers leaves it so.'
            when 'dropped and created again' then 'Changes in between were not recorded.'
            when 'altered and put back' then 'It was disabled, perhaps within one transaction: '
                'changes in between were not recorded. Look into it, then attest.'
            when 'made by a former release' then 'Changes are recorded; each connection needs more '
                'memory for it.'
            when 'missing since it became a partition' then 'PostgreSQL gives a new partition the '
                'triggers for rows only: TRUNCATE of this partition alone is not recorded.'
            else 'Changes are not recorded.'
        end,
        format('select audit.%s(%L)', m.mend, t.scope), m.mend = 'reattach'
    from audit_private.trigger_states(check_triggers.facts) as t
        cross join lateral (
            select case when t.state in ('dropped and created again', 'altered and put back')
                then 'attest' else 'reattach' end as mend
        ) as m
    where t.state is not null and t.scope <> 'audit.event'::regclass
    group by t.scope, t.relation, t.state, t.attested, m.mend
    union all
    select 'triggers', 'critical', t.tgrelid::regclass::text,
        format('%s calls %s, which it must not call', quote_ident(t.tgname),
            t.tgfoid::regprocedure),
        'It records what was not done there. A detached partition keeps such a trigger.',
        format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass), true
    from pg_trigger as t join pg_proc as p on p.oid = t.tgfoid
    where p.pronamespace = any ('{audit,audit_private}'::regnamespace[])
        and p.proname ~ '^capture_[0-9]+(_[a-z]+)?$'
        and not t.tgisinternal and not exists (
            select from audit_private.captured_tables() as c
            where c.relation = t.tgrelid and c.id::text = substring(p.proname, '[0-9]+')
                and t.tgname = 'auditdb_' || coalesce(
                    substring(p.proname, '^capture_[0-9]+_([a-z]+)$'),
                    substring(t.tgname, '^auditdb_([a-z]+)$')));
$$;
comment on function audit_private.check_triggers is
    'Finds capture triggers that are missing, disabled, downgraded, created again, altered and '
    'restored, or wrongly created on any table';

create or replace function audit_private.check_tables(facts audit_private.fact[])
returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'tables', 'critical', a.name, case
            when n.again is not null then 'was dropped and created again'
            when a.target is null then 'is not in this database'
            else 'was dropped' end,
        case when n.again is null then 'Its mapping is left over.'
            else 'The new table is not captured.' end,
        case when n.again is null then 'select audit_private.forget_gone()'
            else coalesce(audit_private.remedy(n.again, a.kind, a.mapping),
                audit_private.attach_command(a.name, a.kind, a.mapping -> 'given')) end,
        n.again is null
    from audit_private.attachment as a
        left join lateral audit_private.table_of(a.name) as n (again) on not exists (
            select from audit_private.attachment as o where o.target = n.again)
    where not audit_private.is_there(a.target, a.row_type)
    union all
    select 'tables', 'critical', i.inhrelid::regclass::text,
        format('inherits from %s and is not captured', c.target),
        'Triggers do not reach tables that inherit.',
        audit_private.attach_command(i.inhrelid::regclass::text, a.kind, a.mapping -> 'given'),
        false
    from audit_private.captured_tables() as c
        join audit_private.attachment as a on a.id = c.id
        join pg_inherits as i on i.inhparent = c.relation
        join pg_class as child on child.oid = i.inhrelid and not child.relispartition
    where not exists (select from audit_private.attachment as o where o.target = i.inhrelid);
$$;
comment on function audit_private.check_tables is
    'Finds attached tables that were dropped, created again, or have inheriting tables';

-- The log itself tells which tables were attached:
-- a restore of only the schema audit has no mapping.
create or replace function audit_private.check_lost() returns setof audit.finding
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    -- Partitions on another server may be unreadable; check_months reports them.
    if exists (select from audit_private.attachment)
        or exists (select from pg_partition_tree('audit.event') as p
            join pg_foreign_table as f on f.ftrelid = p.relid)
    then
        return;
    end if;
    return query select 'tables', 'critical', e.target_id,
        'was attached, as the log records, but no mapping is left',
        'Nothing of it is captured. A restore without the schema audit_private loses mappings.',
        audit_private.attach_command(e.target_id, e.new_values ->> 'kind',
            e.new_values #> '{mapping,given}'), false
    from (
        select distinct on (target_id) target_id, action, new_values
        from audit.event
        where organization_id is null
            and action in ('audit.attached', 'audit.remapped', 'audit.detached')
        order by target_id, id desc
    ) as e
    where e.action <> 'audit.detached' and audit_private.table_of(e.target_id) is not null;
end;
$$;
comment on function audit_private.check_lost is
    'Finds tables that the log records as attached, if no mapping is left at all';

create or replace function audit_private.check_moves(facts audit_private.fact[])
returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select f.* from unnest(check_moves.facts) as c
        join audit_private.attachment as a on a.target = c.scope
        cross join lateral jsonb_to_record(nullif(c.fact -> 'was', 'null'))
            as w ("on" text, owner text, xmin text)
        cross join lateral jsonb_to_record(nullif(c.fact -> 'stands', 'null'))
            as s ("on" text, owner text, xmin text)
        left join lateral audit_private.table_of(a.name) as other (oid) on a.name <> s."on"
            and not exists (select from audit_private.attachment as o where o.target = other.oid)
        cross join lateral (
            select 'tables', 'critical', a.name,
                format('is another table than the one that was attached (now %s): nothing of it is '
                    'captured', s."on"),
                'After a swap of tables, the application writes to the new one.',
                coalesce(audit_private.remedy(other.oid, a.kind, a.mapping),
                    audit_private.attach_command(a.name, a.kind, a.mapping -> 'given')), false
            where other.oid is not null
            union all
            select 'tables', 'notice', s."on", format('was %s when it was attested', a.name),
                'If another table bore that name meanwhile, its changes were not recorded.',
                format('select audit.attest(%L)', c.scope), false
            where a.name <> s."on" and other.oid is null
            union all
            select 'tables', 'critical', s."on",
                'was renamed or moved, and put back' || (c.fact ->> 'since') || (c.fact ->> 'by'),
                'A table in its place was not captured meanwhile. Look into it, then attest.',
                format('select audit.attest(%L)', c.scope), false
            where a.name = s."on" and (c.fact -> 'is_comparable')::boolean and w.owner = s.owner
                and w.xmin <> s.xmin
            union all
            select 'tables', 'notice', s."on",
                format('belongs to %s, and belonged to %s', s.owner, w.owner),
                'The owner of a table can switch its capture off.',
                format('select audit.reattach(%L)', c.scope), false
            where w.owner <> s.owner
        ) as f
    where c.kind = 'table';
$$;
comment on function audit_private.check_moves is
    'Finds attached tables that were renamed, even if renamed back, or have another owner';

create or replace function audit_private.stale_options(target regclass, mapping jsonb)
returns table (name text, problem text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select o.key, format('%s: %s', o.key, p.problem)
    from jsonb_each_text(stale_options.mapping) as o
        cross join lateral (
            select case
                when not audit_private.is_column(o.value) then audit_private.try_mapper(format(
                    'audit_private.try_expression(%s::oid::regclass, %L, %L)',
                    stale_options.target::oid, o.key, o.value))
                when not exists (
                    select from pg_attribute
                    where attrelid = stale_options.target and attnum > 0 and not attisdropped
                        and 'r.' || quote_ident(attname) = o.value
                ) then format('there is no column %s', substr(o.value, 3))
            end as problem
        ) as p
    where o.key in ('organization', 'target_id', 'subject', 'role', 'alive', 'row_id')
        and p.problem is not null;
$$;
comment on function audit_private.stale_options is
    'The options of a mapping whose expressions fail now';

create or replace function audit_private.column_changes(was jsonb, stands jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select string_agg(format('column %s %s', key, case when w.value is null then 'is new'
        when s.value is null then 'is gone'
        else format('is %s, was %s', s.value, w.value) end), ', ' order by key)
    from jsonb_each_text(column_changes.was) as w
        full join jsonb_each_text(column_changes.stands) as s using (key)
    where w.value is distinct from s.value;
$$;
comment on function audit_private.column_changes is
    'Columns that were added, dropped or got another type, as a text';

create or replace function audit_private.check_mappings(facts audit_private.fact[])
returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'mappings', 'warning', c.oid::regclass::text,
        concat_ws('; ', d.changes, s.problems, n.ignored),
        'Changes are recorded by a slower path, without what the mapping cannot tell any more.',
        coalesce(r.mend, format('select audit.reattach(%L)', c.oid::regclass)), r.mend is null
    from audit_private.attachment as a
        join pg_class as c on c.oid = a.target and c.reltype = a.row_type
        left join lateral (
            select audit_private.column_changes(f.fact #> '{was,columns}',
                f.fact #> '{stands,columns}') as changes
            from unnest(check_mappings.facts) as f
            where f.scope = a.target and f.kind = 'table' and a.kind <> 'admin'
        ) as d on true
        left join lateral (
            select string_agg(o.problem, '; ' order by o.name) as problems
            from audit_private.stale_options(a.target, a.mapping) as o
            where a.kind <> 'admin'
        ) as s on true
        left join lateral (
            select 'a change of these alone makes no event: ' || string_agg(i, ', ') as ignored
            from jsonb_array_elements_text(audit_private.ignored_new(
                a.target, a.mapping || jsonb_build_object('kind', a.kind))) as i
            where a.kind <> 'admin'
        ) as n on true
        cross join lateral (select audit_private.remedy(a.target, a.kind, a.mapping) as mend) as r
    where concat_ws('; ', d.changes, s.problems) <> '';
$$;
comment on function audit_private.check_mappings is
    'Finds mappings that no longer fit their table: columns changed, or expressions fail';

-- Capture looks tables up by name:
-- if a name becomes free, whoever may create a table there takes it.
create or replace function audit_private.check_looked_up(facts audit_private.fact[])
returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'mappings', 'critical', c.fact #>> '{stands,on}',
        format('looks up %s, which belongs to %s, and belonged to %s', key, s.value, w.value),
        'Whoever owns it decides to which organisation events belong, and so who reads them.',
        format('-- look into it, then: select audit.attest(%L)', c.scope), false
    from unnest(check_looked_up.facts) as c
        cross join lateral jsonb_each_text(nullif(c.fact #> '{was,looks_up}', 'null')) as w
        join lateral jsonb_each_text(nullif(c.fact #> '{stands,looks_up}', 'null')) as s
            using (key)
    where c.kind = 'table' and w.value <> s.value
        -- An attached table with another owner has a finding of its own.
        and not exists (
            select from audit_private.attachment as a
            where a.target = to_regclass(key) and audit_private.is_there(a.target, a.row_type));
$$;
comment on function audit_private.check_looked_up is
    'Finds tables that a mapping looks up and whose owner changed since it was attested';

-- Compares a stored mapping with what its options mean in this release.
create or replace function audit_private.mapping_difference(
    target regclass, kind text, mapping jsonb
) returns table (name text, says_less boolean)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _wanted jsonb;
    _late_verbs constant text[] := '{prepared,purged}';
begin
    begin
        _wanted := audit_private.resolve_mapping(target, kind, mapping -> 'given');
    exception when others then
        return;  -- An option names what is gone: reported as a mapping that has gone stale.
    end;
    if _wanted -> 'columns' is distinct from mapping -> 'columns' then
        return;  -- So is a table whose columns have changed.
    end if;
    return query
    select key, case key
        when 'ignore' then not coalesce(w.value, '[]') @> coalesce(m.value, '[]')
        when 'redact' then false
        -- Former releases had no verbs for rows that do not count.
        when 'verbs' then m.value - _late_verbs <> w.value - _late_verbs
        else key in ('target_type', 'facts', 'given', 'whole') end
    from jsonb_each(mapping_difference.mapping) as m
        full join jsonb_each(_wanted) as w using (key)
    where m.value is distinct from w.value and key <> 'checked'
        -- An organisation that came from a parent which is gone or has another owner:
        -- a finding of its own.
        and not (key = 'organization' and w.value is null and mapping -> 'given' ? 'parent');
end
$$;
comment on function audit_private.mapping_difference is
    'Parts of a mapping that differ from the meaning of its options, and whether they record less';

create or replace function audit_private.check_stored(facts audit_private.fact[])
returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'mappings', 'critical', c.fact #>> '{stands,on}',
        'its mapping was changed, and not by audit.attach()',
        'It no longer records what was asked for.',
        format('select audit.reattach(%L)', c.scope), true
    from unnest(check_stored.facts) as c
    where c.kind = 'table' and c.fact #> '{was,mapping}' <> c.fact #> '{stands,mapping}'
    union all
    select 'mappings', case when bool_or(d.says_less) then 'critical' else 'warning' end,
        c.oid::regclass::text, format('its mapping is not what its options mean: %s',
            string_agg(d.name, ', ' order by d.name)),
        case when bool_or(d.says_less) then 'Less is recorded than was asked for.'
            else 'A former release made it, or another table was attached since: secrets may have '
                'been recorded, or names and organisations differ.' end,
        format('select audit.reattach(%L)', c.oid::regclass), true
    from audit_private.attachment as a
        join pg_class as c on c.oid = a.target and c.reltype = a.row_type
        cross join lateral audit_private.mapping_difference(a.target, a.kind, a.mapping) as d
    group by c.oid
    -- A difference that another table with changed columns causes goes away once that one is fixed.
    having bool_or(d.says_less or d.name not in ('organization', 'admin', 'role', 'subject')
            and d.name not like 'group_%')
        or not exists (
            select from unnest(check_stored.facts) as f
            where f.kind = 'table' and f.scope <> c.oid
                and f.fact #> '{was,columns}' <> f.fact #> '{stands,columns}')
    union all
    select 'readers', 'critical', c.fact #>> '{stands,on}',
        format('decides otherwise than attested who is an admin: %s', b.changed),
        'Whoever changed it decides who reads the log. Look into it, then attest.',
        format('select audit.attest(%L)', c.scope), false
    from unnest(check_stored.facts) as c
        cross join lateral (
            select string_agg(key, ', ' order by key) as changed
            from jsonb_each(nullif(c.fact #> '{was,beneath}', 'null')) as w
                full join jsonb_each(nullif(c.fact #> '{stands,beneath}', 'null')) as s using (key)
            where w.value is distinct from s.value
        ) as b
    where c.kind = 'table' and c.fact -> 'was' ? 'mapping' and c.fact -> 'stands' ? 'mapping'
        and b.changed is not null and (c.fact -> 'is_comparable')::boolean;
$$;
comment on function audit_private.check_stored is
    'Finds mappings that somebody changed or a former release made, '
    'and changes of what makes admins';

-- The owner of a view reads the tables beneath it, unless the view has security_invoker.
create or replace function audit_private.hidden_tables()
returns table (relation regclass, reader regrole)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with recursive part (oid, reader) as (
        select to_regclass(r)::oid, 'audit_mapper'::regrole
        from audit_private.attachment as a cross join jsonb_object_keys(
            coalesce(nullif(a.mapping #> '{checked,reads}', 'null'), '{}')) as r
        union
        select d.refobjid, case when coalesce((
                select option_value::boolean from pg_options_to_table(v.reloptions)
                where option_name = 'security_invoker'), false)
            then p.reader else v.relowner::regrole end
        from part as p
            join pg_class as v on v.oid = p.oid and v.relkind = 'v'
            join pg_rewrite as w on w.ev_class = v.oid
            join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
                and d.refclassid = 'pg_class'::regclass and d.refobjid <> v.oid
    ), known as (
        select oid, reader from part
        union
        select oid, 'audit_mapper' from pg_class
        where relrowsecurity and has_any_column_privilege('audit_mapper', oid, 'select')
    )
    select c.oid, k.reader
    from known as k
        join pg_class as c on c.oid = k.oid
        join pg_roles as r on r.oid = k.reader and not r.rolsuper and not r.rolbypassrls
    where c.relrowsecurity and c.relnamespace <> all ('{audit,audit_private}'::regnamespace[])
        and (c.relforcerowsecurity or not pg_has_role(k.reader, c.relowner, 'usage'));
$$;
comment on function audit_private.hidden_tables is
    'Tables with row-level security that mappings read, also through views, and the reading role';

create or replace function audit_private.policies_of(relation regclass, reader regrole)
returns table (name name, permissive boolean, code text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select polname, polpermissive, pg_get_expr(polqual, polrelid)
    from pg_policy
    where polrelid = policies_of.relation and polcmd in ('r', '*') and exists (
        select from unnest(polroles) as r
        where case when r = 0 then true else pg_has_role(policies_of.reader, r, 'usage') end);
$$;
comment on function audit_private.policies_of is
    'The policies that apply when a role reads a table';

-- The owner of a view has policies that separate tenants. Only a policy that lets audit_mapper, or
-- everybody, read all rows hides nothing from a mapping.
create or replace function audit_private.check_lookups() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'mappings', 'warning', h.relation::text,
        'has row-level security, and no policy lets audit_mapper read it'
            || case when v.beneath then format(' through a view of %s', h.reader) else '' end,
        'Mapping expressions that look into it find nothing.',
        format('create policy %I on %s for select to %s using (%s)',
            case when v.beneath then 'auditdb_mapper_beneath' else 'auditdb_mapper' end,
            h.relation, h.reader,
            case when v.beneath then 'current_user = ''audit_mapper''' else 'true' end), false
    from audit_private.hidden_tables() as h
        cross join lateral (select h.reader <> 'audit_mapper'::regrole as beneath) as v
    where not exists (
        select from audit_private.policies_of(h.relation, h.reader) as p
        where p.permissive
            and (not v.beneath or p.code = 'true' or strpos(p.code, 'audit_mapper') > 0))
    union all
    select 'mappings', 'warning', h.relation::text,
        format('the restrictive policy %I may hide rows from audit_mapper', p.name),
        'Mapping expressions that look into it find nothing there.',
        format('alter policy %I on %s using (current_user = ''audit_mapper'' or %s)', p.name,
            h.relation, p.code), false
    from audit_private.hidden_tables() as h
        cross join lateral audit_private.policies_of(h.relation, h.reader) as p
    where not p.permissive
        and p.code not like '((CURRENT_USER = ''audit_mapper''::name) OR %';
$$;
comment on function audit_private.check_lookups is
    'Finds tables that mappings read while row-level security hides rows of them';

create or replace function audit_private.check_readers() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'readers', 'critical', a.target::regclass::text, 'its rule for admins fails: '
            || coalesce(p.problem, 'it says nothing'),
        'While it fails, nobody reads through it.',
        case when v.is_closed then format('select audit.reattach(%L)', a.target::regclass)
            else coalesce(audit_private.remedy(a.target, a.kind, a.mapping),
                audit_private.attach_command(
                    a.target::regclass::text, a.kind, a.mapping -> 'given')) end,
        v.is_closed
    from audit_private.attachment as a
        cross join lateral audit_private.try_mapper(
            format('audit_private.admin_%s(null, null)', a.id)) as p (problem)
        cross join lateral (
            select coalesce(p.problem like 'permission denied for %', false)) as v (is_closed)
    where a.mapping ? 'admin' and p.problem is distinct from 'false'
        and audit_private.is_there(a.target, a.row_type)
    union all
    select 'readers', 'notice', 'audit_private.attachment', 'no table says who is admin or owner',
        'Nobody reads the log through row-level security.',
        '-- attach the memberships: select audit.attach(''...'', ''membership'')', false
    from audit_private.attachment
    having count(*) > 0 and count(*) filter (where mapping ? 'admin') = 0
    union all
    -- Looks at all tables together: one whose rows make no admins may stand beside another
    -- that does.
    select 'readers', 'warning', string_agg(a.target::regclass::text, ', ' order by a.id),
        'no row makes anybody an admin or owner',
        'Nobody reads the log through row-level security.',
        '-- say which rows do: ' || (array_agg(audit_private.attach_command(
            a.target::regclass::text, a.kind, a.mapping -> 'given' || '{"admin": "<condition>"}')
            order by a.mapping ->> 'admin' = 'false', a.id))[1], false
    from audit_private.attachment as a
        cross join lateral audit_private.try_mapper(
            format('audit_private.admin_%s_exists()', a.id)) as p (answer)
    where a.mapping ? 'admin' and audit_private.is_there(a.target, a.row_type)
    having bool_or(p.answer = 'false') and not bool_or(p.answer = 'true');
$$;
comment on function audit_private.check_readers is
    'Finds problems with the rules that say who may read: they fail, or make nobody an admin';

create or replace function audit_private.check_casts() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select distinct 'casts', 'notice', a.target::regclass::text,
        format('column %I is converted by %s, of role %s', t.attname, p.oid::regprocedure,
            p.proowner::regrole),
        'It runs at each change of the table, as audit_mapper, and may show the log another value.',
        '-- see that only the role that owns the table may replace the function', false
    from audit_private.attachment as a
        join pg_attribute as t on t.attrelid = a.target and t.attnum > 0 and not t.attisdropped
        join pg_cast as k on k.castsource = t.atttypid
            and k.casttarget in ('json'::regtype, 'text'::regtype)
        join pg_proc as p on p.oid = k.castfunc
        join pg_roles as r on r.oid = p.proowner
    where a.kind <> 'admin' and not r.rolsuper;
$$;
comment on function audit_private.check_casts is
    'Finds code of the application that capture runs to read a column';
