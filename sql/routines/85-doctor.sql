-- Doctor: finds what cannot be prevented. A check for each concern, silent when all is well.
-- critical: events are or may be lost; warning: weaker than designed; notice: worth knowing.

create or replace function audit.check_roles() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    -- PostgreSQL 15 has no inherit_option and set_option: a member is a member.
    select 'roles', case when v.is_usable then 'critical' else 'notice' end,
        m.member::regrole::text,
        format(case when v.is_usable then 'is a member of %s'
            else 'may make itself a member of %s' end, m.roleid::regrole),
        case when m.roleid = 'audit_owner'::regrole
            then 'It can switch off the guards and rewrite the log.'
            else 'It can change what the capture records, and read what mappings read.' end,
        format('revoke %s from %s', m.roleid::regrole, m.member::regrole), false
    from pg_auth_members as m
        cross join lateral (
            select coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true)
                or coalesce((to_jsonb(m) ->> 'set_option')::boolean, true) as is_usable
        ) as v
    where m.roleid in ('audit_owner'::regrole, 'audit_mapper'::regrole)
        and m.member <> 'audit_owner'::regrole
        and exists (
            select from pg_roles as r
            where pg_has_role(r.oid, m.member, 'member') and r.rolcanlogin and not r.rolsuper
        )
    union all
    select 'roles', 'critical', m.member::regrole::text,
        format('is a member of %s', m.roleid::regrole),
        'What runs in its name can do more than the log needs.',
        format('revoke %s from %s', m.roleid::regrole, m.member::regrole), false
    from pg_auth_members as m
    where m.member in ('audit_owner'::regrole, 'audit_mapper'::regrole)
        and m.roleid <> 'audit_mapper'::regrole
    union all
    select 'roles', 'critical', rolname::text, 'may log in, or do more than its part',
        'The roles of auditdb are held, not used to log in.',
        format('alter role %I nologin nosuperuser nobypassrls nocreaterole nocreatedb '
            'noreplication', rolname), false
    from pg_roles
    where rolname in ('audit_owner', 'audit_mapper', 'audit_operator', 'audit_writer',
            'audit_reader', 'audit_auditor')
        and (rolcanlogin or rolsuper or rolbypassrls or rolcreaterole or rolcreatedb
            or rolreplication);
$$;
comment on function audit.check_roles() is
    'Who is, or can become, the owner of the log; attributes of the roles of auditdb';

create or replace function audit.check_logins() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'logins', 'warning', rolname::text, 'bypasses row-level security',
        'If it is ever granted SELECT on the log, it reads every organisation.',
        format('alter role %I nobypassrls', rolname), false
    from pg_roles
    where rolbypassrls and rolcanlogin and not rolsuper
    union all
    select 'logins', 'notice', rolname::text, 'has CREATEROLE',
        'Before PostgreSQL 16 it may grant itself any role, audit_owner too.',
        format('alter role %I nocreaterole', rolname), false
    from pg_roles
    where rolcreaterole and rolcanlogin and not rolsuper
        and current_setting('server_version_num')::int < 160000
    union all
    select 'logins', 'warning', r.rolname::text, format('is a member of %s', p.rolname),
        'It reaches past privileges to tables or files, the signing keys among them.',
        format('revoke %I from %I', p.rolname, m.rolname), false
    from pg_auth_members as am
        join pg_roles as p on p.oid = am.roleid
        join pg_roles as m on m.oid = am.member
        join pg_roles as r on r.rolcanlogin and not r.rolsuper
            and pg_has_role(r.oid, m.oid, 'member')
    where p.rolname in ('pg_read_all_data', 'pg_write_all_data', 'pg_execute_server_program',
        'pg_read_server_files', 'pg_write_server_files')
    union all
    select 'logins', case when r.rolsuper then 'warning' else 'notice' end, r.rolname::text,
        case when r.rolsuper then 'is a superuser, and the application logs in as it'
            else 'owns attached tables, and the application logs in as it' end,
        'Whoever takes over the application can switch the capture off.',
        '-- let it log in as a role of its own, and: grant audit_writer to that role', false
    from pg_roles as r
    where r.rolname in (
            -- With a context, it was the application and no console.
            select db_user from audit.event
            where occurred_at > now() - interval '7 days' and captured_from is not null
                and source <> 'sql')
        and (r.rolsuper or r.oid in (
            select relowner from pg_class join audit.attachment on target = pg_class.oid));
$$;
comment on function audit.check_logins() is 'Login roles that can go around the log''s privileges';

create or replace function audit.check_ownership() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'ownership', 'critical', o.object, format('belongs to %s, not to %s', o.owner, o.wanted),
        'Its owner can change or drop it, and what it guards.',
        format('alter %s owner to %s', o.object, o.wanted), false
    from (
        select 'schema audit', nspowner::regrole, 'audit_owner'::regrole
        from pg_namespace where nspname = 'audit'
        union all
        select case relkind when 'v' then 'view ' when 'S' then 'sequence ' else 'table ' end
            || oid::regclass, relowner, 'audit_owner'
        from pg_class
        where relnamespace = 'audit'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S', 'f')
        union all
        select 'function ' || oid::regprocedure, proowner, case
            when proname ~ '^(image|organization|admin)_[0-9]+$'
                or proname in ('rescue', 'try_expression')
            then 'audit_mapper' else 'audit_owner' end::regrole
        from pg_proc where pronamespace = 'audit'::regnamespace
    ) as o (object, owner, wanted)
    where o.owner <> o.wanted;
$$;
comment on function audit.check_ownership() is 'Objects of the log that are not audit_owner''s';

create or replace function audit.check_grants() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'grants', case when c.stands is null then 'warning' else 'critical' end, c.name,
        case when c.stands is null then 'was granted by install and is no more'
            else 'was not granted by auditdb' end,
        case when c.stands is null then 'Those who held it can no longer do their part.'
            else 'It opens more of the log than the design does.' end,
        case when c.stands is null then 'auditdb install'
            else concat_ws('; ', c.stands ->> 'revoke',
                -- A grant changes the catalog row of its function, which is attested.
                case when c.stands ->> 'function' <> ''
                    then format('select audit.attest(%L)', c.scope) end) end, false
    from audit.compare_facts() as c
    where c.kind = 'grant' and exists (select from pg_class where oid = c.scope);
$$;
comment on function audit.check_grants() is
    'Privileges now against those that install left: on objects, columns, and objects to come';

create or replace function audit.check_functions() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'functions', case when p.problem like 'was%' then 'warning' else 'critical' end,
        c.name, p.problem || format(', since %s', to_char(c.attested_at, 'YYYY-MM-DD HH24:MI')),
        'What it wrote, refused or let pass meanwhile may be wrong.',
        case
            when c.was is null then format('drop function %s', c.name)
            when p.problem like 'was%' then format('select audit.attest(%L)', c.scope)
            when c.scope = 'audit.event'::regclass then 'auditdb install'
            else format('select audit.reattach(%L)', c.scope)
        end,
        p.problem not like 'was%' and c.was is not null and c.scope <> 'audit.event'::regclass
    from audit.compare_facts() as c
        cross join lateral (
            select case
                when c.was is null then 'is none of auditdb''s'
                when c.stands is null then 'is missing'
                when c.was -> 'sha256' <> c.stands -> 'sha256' then 'is not as it was installed'
                else 'was altered or granted, and put back' end as problem
        ) as p
    where c.kind = 'function'
        and not exists (
            select from audit.compare_facts() as g
            where g.kind = 'grant' and coalesce(g.stands, g.was) ->> 'function' = c.name
                and p.problem like 'was%'
        )
        -- Those of a dropped table are reported with it.
        and exists (select from pg_class where oid = c.scope);
$$;
comment on function audit.check_functions() is
    'Functions that are missing, foreign, altered, or altered and put back';

create or replace function audit.expected_triggers()
returns table (target regclass, relation regclass, name text, fact jsonb, function text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select t.target, t.relation, 'auditdb_' || op, f.fact, format('audit.capture_%s()', t.id)
    from audit.captured_tables() as t
        cross join unnest('{insert,update,delete,truncate}'::text[]) as op
        left join audit.trigger_facts() as f
            on f.scope = t.target and f.relation = t.relation and f.name = 'auditdb_' || op;
$$;
comment on function audit.expected_triggers() is
    'The triggers that each attached table should have, and what is there';

create or replace function audit.trigger_states()
returns table (target regclass, relation regclass, name text, state text, attested text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select e.target, e.relation, e.name, case
        when e.fact is null and w.id is null and e.relation <> e.target
            then 'missing since it became a partition'
        when e.fact is null then 'missing'
        when t.tgfoid::regprocedure::text <> e.function
            or w.fact -> 'sha256' <> e.fact -> 'sha256' then 'calling something else'
        when t.tgenabled = 'D' then 'disabled'
        when t.tgenabled = 'O' then 'downgraded from ENABLE ALWAYS'
        when t.tgenabled = 'R' then 'downgraded to ENABLE REPLICA'
        when w.fact -> 'catalog' is distinct from e.fact -> 'catalog' then null
        when w.fact -> 'oid' <> e.fact -> 'oid' then 'dropped and created again'
        when w.fact -> 'xmin' <> e.fact -> 'xmin' then 'altered and put back'
        end,
        case when w.id is null then ''
            else format(', since %s by %s', to_char(w.attested_at, 'YYYY-MM-DD HH24:MI'),
                w.attested_by) end
    from audit.expected_triggers() as e
        left join audit.attested() as w on w.scope = e.target and w.kind = 'trigger'
            and w.relation = e.relation and w.name = e.name
        left join pg_trigger as t on t.oid::text = e.fact ->> 'oid';
$$;
comment on function audit.trigger_states() is
    'What is wrong with each capture trigger, or null, and when it was last attested';

create or replace function audit.check_triggers() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'triggers', case when t.state like 'missing since%' then 'warning' else 'critical' end,
        t.relation::text,
        format('%s %s', string_agg(t.name, ', ' order by t.name), t.state || t.attested),
        case t.state
            when 'downgraded from ENABLE ALWAYS' then 'session_replication_role = replica now '
                'silences it; pg_restore --disable-triggers leaves it so.'
            when 'dropped and created again' then 'Changes in between were not recorded.'
            when 'altered and put back' then 'It was disabled, perhaps within one transaction: '
                'changes in between were not recorded. Look into it, then attest.'
            when 'missing since it became a partition' then 'PostgreSQL gives a new partition the '
                'triggers for rows only: TRUNCATE of this partition alone is not recorded.'
            else 'Changes are not recorded.'
        end,
        format('select audit.%s(%L)', m.mend, t.target), m.mend = 'reattach'
    from audit.trigger_states() as t
        cross join lateral (
            select case when t.state in ('dropped and created again', 'altered and put back')
                then 'attest' else 'reattach' end as mend
        ) as m
    where t.state is not null
    group by t.target, t.relation, t.state, t.attested, m.mend;
$$;
comment on function audit.check_triggers() is
    'Capture triggers missing, disabled, downgraded, created again, or altered and put back';

create or replace function audit.attach_command(target text, kind text, given jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select format('select audit.attach(%L, %L%s)', attach_command.target, attach_command.kind,
        coalesce(string_agg(format(', %I => %L', key, case
            when jsonb_typeof(value) = 'array'
                then array(select jsonb_array_elements_text(value))::text
            else value #>> '{}' end), '' order by key), ''))
    from jsonb_each(attach_command.given);
$$;
comment on function audit.attach_command(text, text, jsonb) is 'The call that attached a table';

create or replace function audit.check_tables() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'tables', 'critical', coalesce(n.name, a.target::text),
        case when again.oid is null then 'was dropped' else 'was dropped and created again' end,
        case when again.oid is null then 'Its mapping is left over.'
            else 'The new table is not captured.' end,
        format('select audit.forget(%L)', a.target::oid) || case when again.oid is not null
            then '; ' || audit.attach_command(n.name, a.kind, a.mapping -> 'given') else '' end,
        false
    from audit.attachment as a
        left join lateral (
            select w.fact ->> 'on' as name from audit.attested() as w
            where w.scope = a.target and w.kind = 'table'
        ) as n on true
        left join pg_class as again on again.oid = to_regclass(n.name)
    where not exists (select from pg_class where oid = a.target)
    union all
    select 'tables', 'critical', i.inhrelid::regclass::text,
        format('inherits from %s and is not captured', a.target),
        'Triggers do not reach tables that inherit.',
        audit.attach_command(i.inhrelid::regclass::text, a.kind, a.mapping -> 'given'), false
    from audit.captured_tables() as c
        join audit.attachment as a on a.id = c.id
        join pg_inherits as i on i.inhparent = c.relation
        join pg_class as child on child.oid = i.inhrelid and not child.relispartition
    where i.inhrelid not in (select target from audit.attachment)
    union all
    select 'tables', 'notice', c.relation::text, format('belongs to %s, and belonged to %s',
            c.stands ->> 'owner', c.was ->> 'owner'),
        'The owner of a table can switch its capture off.',
        format('select audit.reattach(%L)', c.scope), false
    from audit.compare_facts() as c
    where c.kind = 'table' and c.was -> 'owner' <> c.stands -> 'owner';
$$;
comment on function audit.check_tables() is
    'Attached tables that are gone, created again, inherited from, or in other hands';

create or replace function audit.guards()
returns table (relation regclass, name text, state text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select g.relation, n.name, case
        when t.oid is null then 'missing'
        when t.tgfoid <> 'audit.refuse_change()'::regprocedure
            or w.fact -> 'sha256' <> f.fact -> 'sha256' then 'calling something else'
        when t.tgenabled <> 'A' then 'disabled or downgraded'
        when w.fact -> 'catalog' is distinct from f.fact -> 'catalog' then null
        when w.fact -> 'oid' <> f.fact -> 'oid' then 'dropped and created again'
        when w.fact -> 'xmin' <> f.fact -> 'xmin' then 'altered and put back'
        end
    from (
        select relid as relation from pg_partition_tree('audit.event')
        union all
        select 'audit.attestation'::regclass
    ) as g
        cross join (values ('refuse_change'), ('refuse_truncate')) as n (name)
        left join audit.trigger_facts() as f on f.relation = g.relation and f.name = n.name
        left join pg_trigger as t on t.tgrelid = g.relation and t.tgname = n.name
        left join audit.attested() as w on w.scope = 'audit.event'::regclass and w.kind = 'trigger'
            and w.relation = g.relation and w.name = n.name;
$$;
comment on function audit.guards() is
    'The guards that there should be, and what is wrong with them';

create or replace function audit.check_guards() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'guards', 'critical', c.oid::regclass::text, 'row-level security is '
            || case when c.relrowsecurity then 'not forced' else 'off' end,
        'Whoever is granted SELECT, or pg_read_all_data, reads all of it.',
        'select audit.mend_guards()', true
    from pg_class as c
    where (c.oid in ('audit.attestation'::regclass, 'audit.signing_key'::regclass)
            or c.oid in (select relid from pg_partition_tree('audit.event')))
        and not (c.relrowsecurity and c.relforcerowsecurity)
    union all
    select 'guards', 'critical', s.relation::text,
        format('%s %s', string_agg(s.name, ', ' order by s.name), s.state),
        case when s.mend like '%mend_guards%' then 'Events can be changed or removed.'
            else 'It was disabled for a while: events may have been changed. '
                'Look into it, then attest.' end,
        s.mend, s.mend like '%mend_guards%'
    from (
        select g.relation, g.name, g.state, case
            when g.state in ('dropped and created again', 'altered and put back')
            then 'select audit.attest(''audit.event'')'
            else 'select audit.mend_guards()' end as mend
        from audit.guards() as g
    ) as s
    where s.state is not null
    group by s.relation, s.state, s.mend;
$$;
comment on function audit.check_guards() is
    'Row-level security and the triggers that refuse changes, on the log and on each partition';

create or replace function audit.check_log() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'log', 'critical', t.tgrelid::regclass::text,
        format('has trigger %I, none of auditdb''s', t.tgname),
        'A trigger on the log can swallow or change events.',
        format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass), false
    from pg_trigger as t join pg_class as c on c.oid = t.tgrelid
    where c.relnamespace = 'audit'::regnamespace and not t.tgisinternal and t.tgparentid = 0
        and t.tgname not in ('refuse_change', 'refuse_truncate')
    union all
    select 'log', 'critical', c.oid::regclass::text, format('has rule %I', w.rulename),
        'A rule on the log can swallow or change events.',
        format('drop rule %I on %s', w.rulename, c.oid::regclass), false
    from pg_rewrite as w join pg_class as c on c.oid = w.ev_class
    where c.relnamespace = 'audit'::regnamespace and w.rulename <> '_RETURN'
    union all
    select 'log', 'critical', k.conrelid::regclass::text, format('has constraint %I', k.conname),
        'A constraint on the log refuses events, and with them the actions they record.',
        format('alter table %s drop constraint %I', k.conrelid::regclass, k.conname), false
    from pg_constraint as k
    where k.contype in ('c', 'f', 'u', 'x') and k.conislocal
        and k.conrelid in (select relid from pg_partition_tree('audit.event'))
    union all
    select 'log', 'critical', i.indrelid::regclass::text,
        format('has unique index %s', i.indexrelid::regclass),
        'A unique index on the log refuses events, and with them the actions they record.',
        format('drop index %s', i.indexrelid::regclass), false
    from pg_index as i
    where i.indisunique and not i.indisprimary
        and i.indrelid in (select relid from pg_partition_tree('audit.event'))
        and not exists (select from pg_constraint where conindid = i.indexrelid);
$$;
comment on function audit.check_log() is
    'Rules, triggers, constraints and unique indexes on the log that auditdb did not make';

create or replace function audit.check_definitions() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'log', 'critical', coalesce(c.stands, c.was) ->> 'on',
        format('policy %I %s', c.name, case when c.was is null then 'is none of auditdb''s'
            when c.stands is null then 'is missing' else 'is not as it was installed' end),
        'Policies decide which organisation is read, and by whom.',
        case when c.stands is null then 'auditdb install'
            else format('drop policy %I on %s', c.name, c.relation)
                || case when c.was is null then '' else '; -- then: auditdb install' end end, false
    from audit.compare_facts() as c
    where c.kind = 'policy'
    union all
    select 'log', 'critical', c.name, case when c.was is null then 'is none of auditdb''s'
            when c.stands is null then 'is missing' else 'is not as it was installed' end,
        'What the log says may be wrong.', 'auditdb install', false
    from audit.compare_facts() as c
    where c.kind = 'relation'
        -- A month that was detached is reported as such.
        and not (c.was is null and exists (
            select from audit.attested() as w
            where w.relation = to_regclass(c.name) and w.name = 'refuse_truncate'))
        and (c.was - '{owner,oid}'::text[]) is distinct from (c.stands - '{owner,oid}'::text[]);
$$;
comment on function audit.check_definitions() is
    'Policies, tables and views of the log that are foreign, missing or altered';

create or replace function audit.check_partitions() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'partitions', 'warning', 'audit.event_default', format('holds %s events', count(*)),
        'They have no month of their own: slower to read, and kept for ever.',
        'select audit.maintain()', true
    from audit.event where tableoid = 'audit.event_default'::regclass
    having count(*) > 0
    union all
    select 'partitions', 'warning', 'audit.event', format('has no partition for %s',
            string_agg(to_char(m, 'YYYY-MM'), ', ' order by m)),
        'Maintenance has not run: events will go to the DEFAULT partition.',
        'select audit.maintain()', true
    from date_trunc('month', now() at time zone 'UTC') as this
        cross join generate_series(this, this + interval '2 months', interval '1 month') as m
    where m::date <> all (audit.months_attached()) and m::date <> all (audit.months_in_default())
    having count(*) > 0
    union all
    select 'partitions', 'critical', w.fact ->> 'on',
        case when c.oid is null then 'is gone' else 'is no part of the log any more' end
            || ', and retention did not drop it',
        'Its events were taken away.',
        case when c.oid is null
            then '-- restore it from a backup, then: select audit.attest(''audit.event'')'
            else '-- attach it again: alter table audit.event attach partition ' || c.oid::regclass
                || ' for values ...' end, false
    from audit.attested() as w
        left join pg_class as c on c.oid = w.relation
    where w.scope = 'audit.event'::regclass and w.kind = 'trigger' and w.name = 'refuse_truncate'
        and w.relation <> 'audit.attestation'::regclass
        and w.relation not in (select relid from pg_partition_tree('audit.event'));
$$;
comment on function audit.check_partitions() is
    'Events without a month, months that will be missing, months that were taken away';

-- Runs as audit_mapper, whose privileges the capture has: what it may not read shows here. Nothing
-- is evaluated: no row is read, and OFFSET keeps the planner from doing so with constants.
create or replace function audit.try_expression(target regclass, name text, expression text)
returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not try_expression.expression ~* '\mselect\M' and not has_schema_privilege(
        (select relnamespace from pg_class where oid = try_expression.target), 'usage')
    then
        return null;  -- Capture is handed the row, and so need not be able to name its table.
    end if;
    execute format(E'select (%s\n)::%s from (select (null::%s).* offset 0) as r limit 0',
        try_expression.expression,
        case when try_expression.name = 'alive' then 'boolean' else 'text' end,
        try_expression.target);
    -- Rolled back, so that nothing which code of the application sets or does outlives the trial.
    raise exception using errcode = 'AU001';
exception
    when sqlstate 'AU001' then return null;
    when assert_failure or others then return sqlerrm;
end
$$;
comment on function audit.try_expression(regclass, text, text) is
    'Why a mapping expression does not work, or null';

create or replace function audit.stale_options(target regclass, mapping jsonb)
returns table (name text, problem text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select o.key, format('%s: %s', o.key, p.problem)
    from jsonb_each_text(stale_options.mapping) as o
        cross join lateral (
            select case
                when not audit.is_column(o.value)
                    then audit.try_expression(stale_options.target, o.key, o.value)
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
comment on function audit.stale_options(regclass, jsonb) is
    'The expressions of a mapping that fail now';

create or replace function audit.column_changes(was jsonb, stands jsonb) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select string_agg(format('column %s %s', key, case when w.value is null then 'is new'
        when s.value is null then 'is gone'
        else format('is %s, was %s', s.value, w.value) end), ', ' order by key)
    from jsonb_each_text(column_changes.was) as w
        full join jsonb_each_text(column_changes.stands) as s using (key)
    where w.value is distinct from s.value;
$$;
comment on function audit.column_changes(jsonb, jsonb) is
    'Columns added, gone or retyped, in words';

create or replace function audit.check_mappings() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'mappings', 'warning', a.target::text, concat_ws('; ', d.changes, s.problems),
        'Changes are recorded by a slower path, without what the mapping cannot tell any more.',
        case when s.needs_word
            then audit.attach_command(a.target::text, a.kind, a.mapping -> 'given')
            else format('select audit.reattach(%L)', a.target) end,
        not coalesce(s.needs_word, false)
    from audit.attachment as a
        join pg_class as c on c.oid = a.target
        left join lateral (
            select audit.column_changes(f.was -> 'columns', f.stands -> 'columns') as changes
            from audit.compare_facts() as f
            where f.scope = a.target and f.kind = 'table' and a.kind <> 'admin'
        ) as d on true
        left join lateral (
            select string_agg(o.problem, '; ' order by o.name) as problems,
                bool_or(a.mapping -> 'given' ? o.name) as needs_word
            from audit.stale_options(a.target, a.mapping) as o
            where a.kind <> 'admin'
        ) as s on true
    where concat_ws('; ', d.changes, s.problems) <> '';
$$;
comment on function audit.check_mappings() is
    'Mappings that no longer fit their table: columns changed, expressions that fail';

create or replace function audit.check_lookups() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'mappings', 'warning', c.oid::regclass::text,
        'has row-level security, and no policy lets audit_mapper read it',
        'Mapping expressions that look into it find nothing.',
        format('create policy auditdb_mapper on %s for select to audit_mapper using (true)',
            c.oid::regclass), false
    from pg_class as c
    where c.relrowsecurity and c.relnamespace <> 'audit'::regnamespace
        and has_any_column_privilege('audit_mapper', c.oid, 'select')
        and not exists (
            select from pg_policy
            where polrelid = c.oid and polcmd in ('r', '*')
                and ('audit_mapper'::regrole = any (polroles) or 0 = any (polroles))
        );
$$;
comment on function audit.check_lookups() is
    'Tables that mappings read and row-level security hides';

create or replace function audit.try_admin(id int) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('select audit.admin_%s(null, null)', try_admin.id);
    return null;
exception when others then
    return sqlerrm;
end
$$;
comment on function audit.try_admin(int) is 'Why a rule for admins does not work, or null';

create or replace function audit.check_readers() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'readers', 'critical', a.target::text, 'its rule for admins fails: ' || p.problem,
        'While it fails, nobody reads through it.',
        audit.attach_command(a.target::text, a.kind, a.mapping -> 'given'), false
    from audit.attachment as a
        cross join lateral audit.try_admin(a.id) as p (problem)
    where a.mapping ? 'admin' and p.problem is not null
        and exists (select from pg_class where oid = a.target)
    union all
    select 'readers', 'notice', 'audit.attachment', 'no table says who is admin or owner',
        'Nobody reads the log through row-level security.',
        '-- attach the memberships: select audit.attach(''...'', ''membership'')', false
    from audit.attachment
    having count(*) > 0 and count(*) filter (where mapping ? 'admin') = 0;
$$;
comment on function audit.check_readers() is 'Whether the rules that say who may read work';

create or replace function audit.check_keys() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with key as (
        select *, max(created_at) over () as newest from audit.signing_key
        where retires_at is null or retires_at > now()
    )
    select 'keys', 'notice', 'audit.signing_key', 'there is no signing key',
        'Nobody can be given a viewer token.', 'select audit.create_key()', false
    where not exists (select from key)
        and exists (select from audit.attachment where mapping ? 'admin')
    union all
    select 'keys', 'warning', 'key ' || id,
        format('is %s days old', extract(day from now() - created_at)),
        'The longer a key lives, the more places hold it.',
        'select audit.create_key(retire_others_after => ''1 day'')', false
    from key
    where retires_at is null and created_at = newest and created_at < now() - interval '90 days'
    union all
    select 'keys', 'warning', 'key ' || id,
        format('was never retired, though a newer one is %s days old',
            extract(day from now() - newest)),
        'Whoever still holds it signs tokens.',
        'select audit.create_key(retire_others_after => ''1 day'')', false
    from key
    where retires_at is null and created_at < newest and newest < now() - interval '7 days';
$$;
comment on function audit.check_keys() is 'Signing keys: none, old, or superseded and still valid';

create or replace function audit.check_views() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select distinct on (v.oid) 'views', 'critical', v.oid::regclass::text,
        case v.relkind when 'm' then 'copies the log'
            else 'reads the log with its owner''s rights' end,
        'Who may read it, reads what row-level security keeps from them.',
        case when v.relkind = 'm' then format('drop materialized view %s', v.oid::regclass)
            else format('alter view %s set (security_invoker = true)', v.oid::regclass) end, false
    from pg_class as v
        join pg_rewrite as w on w.ev_class = v.oid
        join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
            and d.refclassid = 'pg_class'::regclass and d.refobjid <> v.oid
        join pg_class as c on c.oid = d.refobjid and c.relnamespace = 'audit'::regnamespace
    where v.relkind = 'm' or v.relkind = 'v' and not coalesce((
        select option_value::boolean from pg_options_to_table(v.reloptions)
        where option_name = 'security_invoker'), false)
    order by v.oid;
$$;
comment on function audit.check_views() is
    'Views of the log, auditdb''s and others'', that do not run with the rights of who asks';

create or replace function audit.check_attestation() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'attestation', 'warning', 'audit.attestation', format(
            'the catalogs are not those attested: %s', string_agg(distinct w.scope::text, ', ')),
        'After a restore or pg_upgrade, triggers and functions look created anew. That none was '
        'disabled before cannot be told. Confirm that there was a restore, then attest.',
        'select audit.attest(target) from audit.attachment; select audit.attest(''audit.event'')',
        false
    from audit.attested() as w
    where w.fact ->> 'catalog' <> 'audit'::regnamespace::oid::text
    having count(*) > 0
    union all
    select 'attestation', 'warning', c.scope::text, 'was never attested',
        'Nothing is known of what stood when it was attached.',
        format('select audit.attest(%L)', c.scope), false
    from audit.compare_facts() as c where c.kind = 'table' and c.was is null;
$$;
comment on function audit.check_attestation() is 'Whether the attestation speaks of these catalogs';

create or replace function audit.check_events() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'events', 'warning', captured_from,
        format('%s events of the last 7 days are degraded: %s', count(*),
            string_agg(distinct concat_ws(' ', details -> 'degraded' ->> 'sqlstate',
                details -> 'degraded' -> 'lost'), ', ')),
        'A value could not be read or a mapping failed: the change is recorded, not all of it.',
        format('select details -> ''degraded'', * from audit.event where captured_from = %L '
            'and details ? ''degraded''', captured_from), false
    from audit.event
    where occurred_at > now() - interval '7 days' and details ? 'degraded'
    group by captured_from;
$$;
comment on function audit.check_events() is 'Tables whose events lost detail lately';

create or replace function audit.check_casts() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select distinct 'casts', 'notice', a.target::text,
        format('column %I is converted by %s, of role %s', t.attname, p.oid::regprocedure,
            p.proowner::regrole),
        'It runs at each change of the table, as audit_mapper, and may show the log another value.',
        '-- see that only the role that owns the table may replace the function', false
    from audit.attachment as a
        join pg_attribute as t on t.attrelid = a.target and t.attnum > 0 and not t.attisdropped
        join pg_cast as k on k.castsource = t.atttypid
            and k.casttarget in ('json'::regtype, 'text'::regtype)
        join pg_proc as p on p.oid = k.castfunc
        join pg_roles as r on r.oid = p.proowner
    where a.kind <> 'admin' and not r.rolsuper;
$$;
comment on function audit.check_casts() is
    'Code of the application that capture runs to read a column';

create or replace function audit.check_server(
    version int default current_setting('server_version_num')::int
) returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'server', 'warning', 'PostgreSQL ' || check_server.version / 10000 || '.'
            || check_server.version % 10000,
        format('has %s, mended in %s', string_agg(cve, ', ' order by cve),
            check_server.version / 10000 || '.' || max(mended) % 10000),
        'Row-level security or role changes can be got around.',
        '-- upgrade the server to its latest minor version', false
    from (values
        ('CVE-2023-2455', 150003), ('CVE-2023-39418', 150004),
        ('CVE-2024-10976', 150009), ('CVE-2024-10978', 150009), ('CVE-2025-8713', 150014),
        ('CVE-2024-10976', 160005), ('CVE-2024-10978', 160005), ('CVE-2025-8713', 160010),
        ('CVE-2024-10976', 170001), ('CVE-2024-10978', 170001), ('CVE-2025-8713', 170006)
    ) as known (cve, mended)
    where mended / 10000 = check_server.version / 10000 and check_server.version < mended
    having count(*) > 0;
$$;
comment on function audit.check_server(int) is
    'Minor versions with published vulnerabilities of row-level security';

create or replace function audit.doctor() returns setof audit.finding
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select f.*
    from (
        select * from audit.check_roles()
        union all select * from audit.check_logins()
        union all select * from audit.check_ownership()
        union all select * from audit.check_grants()
        union all select * from audit.check_functions()
        union all select * from audit.check_triggers()
        union all select * from audit.check_tables()
        union all select * from audit.check_guards()
        union all select * from audit.check_log()
        union all select * from audit.check_definitions()
        union all select * from audit.check_partitions()
        union all select * from audit.check_mappings()
        union all select * from audit.check_lookups()
        union all select * from audit.check_readers()
        union all select * from audit.check_keys()
        union all select * from audit.check_views()
        union all select * from audit.check_attestation()
        union all select * from audit.check_events()
        union all select * from audit.check_casts()
        union all select * from audit.check_server()
    ) as f
    order by array_position('{critical,warning,notice}', f.severity),
        f.check_name, f.object, f.problem;
$$;
-- Definer: reads the attestation, and counts events and keys, which operators may not read.
comment on function audit.doctor() is
    'What could let events be lost, forged or read by others; why it matters, and what mends it';

create or replace function audit.reattach(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _command text;
begin
    select audit.attach_command(a.target::text, a.kind, a.mapping -> 'given') into _command
    from audit.attachment as a where a.target = reattach.target;
    if not found then
        raise exception '% is not attached', reattach.target
            using errcode = 'undefined_object', hint = 'auditdb status lists what is.';
    end if;
    execute _command;
end
$$;
comment on function audit.reattach(regclass) is
    'Attaches a table again as it was: mends its triggers, its functions, and its mapping';

create or replace function audit.mend_guards() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
    _changed jsonb;
begin
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    perform audit.guard_log();
    _changed := audit.record_attestation('mend', 'audit.event', '{trigger}');
    perform audit.record_own('mended', 'audit.event', _changed -> 'was', _changed -> 'stands');
end
$$;
-- Definer: the log belongs to audit_owner.
comment on function audit.mend_guards() is
    'Puts back row-level security and the triggers that refuse changes, where missing or off';
