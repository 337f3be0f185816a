-- Checks of the log: guards, partitions, definitions, attestation, the server.
-- Each returns no row if all is well; audit.doctor runs them all.

create or replace function audit_private.check_guards(facts audit_private.fact[])
returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'guards', 'critical', c.oid::regclass::text, 'row-level security is '
            || case when c.relrowsecurity then 'not forced' else 'off' end,
        'Whoever is granted SELECT, or pg_read_all_data, reads all of it.',
        'select audit.mend_guards()', true
    from pg_class as c
    where (c.oid = any (audit_private.append_only() || audit_private.guarded_tables())
            or c.oid in (select relid from pg_partition_tree('audit.event')))
        and not (c.relrowsecurity and c.relforcerowsecurity)
    union all
    select 'guards', 'critical', t.relation::text,
        format('%s %s', string_agg(t.name, ', ' order by t.name), t.state),
        case when m.is_fixable then 'Events can be changed or removed.'
            else 'It was disabled for a while: events may have been changed. '
                'Look into it, then attest.' end,
        case when m.is_fixable then 'select audit.mend_guards()'
            else 'select audit.attest(''audit.event'')' end,
        m.is_fixable
    from audit_private.trigger_states(check_guards.facts) as t
        cross join lateral (select t.state not in (
            'dropped and created again', 'altered and put back')) as m (is_fixable)
    where t.state is not null and t.scope = 'audit.event'::regclass
    group by t.relation, t.state, m.is_fixable;
$$;
comment on function audit_private.check_guards is
    'Finds problems with row-level security and with the triggers that refuse changes, '
    'on the log and on each partition';

create or replace function audit_private.check_log() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'log', 'critical', t.tgrelid::regclass::text,
        format('has trigger %I, none of auditdb''s', t.tgname),
        'A trigger on the log can swallow or change events.',
        format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass), false
    from pg_trigger as t join pg_class as c on c.oid = t.tgrelid
    where c.relnamespace = any ('{audit,audit_private}'::regnamespace[])
        and not t.tgisinternal and t.tgparentid = 0
        and t.tgname not in ('refuse_change', 'refuse_truncate')
        and (t.tgrelid <> 'audit_private.request'::regclass
            or t.tgname not in ('authorize_request', 'carry_out_request', 'refuse_check'))
        and (t.tgrelid <> 'audit_private.unfiled'::regclass or t.tgname <> 'complete_event')
        -- Exempts the trigger of a centre: only auditdb creates functions in that schema.
        and not (t.tgname = 'land' and t.tgenabled = 'R'
            and t.tgfoid = to_regprocedure('audit_collected.land()') and exists (
                select from pg_namespace as n
                where n.nspname = 'audit_collected' and n.nspowner = 'audit_owner'::regrole))
    union all
    select 'log', 'critical', c.oid::regclass::text, format('has rule %I', w.rulename),
        'A rule on the log can swallow or change events.',
        format('drop rule %I on %s', w.rulename, c.oid::regclass), false
    from pg_rewrite as w join pg_class as c on c.oid = w.ev_class
    where c.relnamespace = any ('{audit,audit_private}'::regnamespace[]) and w.rulename <> '_RETURN'
    union all
    select 'log', 'critical', k.conrelid::regclass::text, format('has constraint %I', k.conname),
        'A constraint on the log refuses events, and with them the actions they record.',
        format('alter table %s drop constraint %I', k.conrelid::regclass, k.conname), false
    from pg_constraint as k
    where k.contype in ('c', 'f', 'u', 'x') and k.conislocal
        and k.conrelid in (select relid from pg_partition_tree('audit.event'))
    union all
    select 'log', 'critical', i.indrelid::regclass::text,
        format('index %s is none of auditdb''s, and unique', i.indexrelid::regclass),
        'A unique index on the log refuses events, and with them the actions they record.',
        format('drop index %s', i.indexrelid::regclass), false
    from pg_index as i
    where i.indisunique and not i.indisprimary
        and i.indrelid in (select relid from pg_partition_tree('audit.event'))
        and not exists (select from pg_constraint where conindid = i.indexrelid);
$$;
comment on function audit_private.check_log is
    'Finds rules, triggers, constraints and unique indexes on the log that auditdb did not make';

create or replace function audit_private.check_tables_of_log() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'log', 'critical', 'audit_private.request',
        format('trigger %s is missing, or not ENABLE ALWAYS', w.name),
        'Another role than the owner can change a mapping, or a mere check takes effect.',
        'select audit.mend_guards()', true
    from (values ('authorize_request', 7), ('carry_out_request', 7), ('refuse_check', 5))
        as w (name, fires)
    where not exists (
        select from pg_trigger as t
        where t.tgrelid = 'audit_private.request'::regclass and t.tgname = w.name
            and t.tgenabled = 'A' and t.tgtype = w.fires and t.tginitdeferred = (w.fires = 5)
            and t.tgfoid = to_regprocedure(format('audit_private.%I()', w.name))
            and t.tgqual is null)
    union all
    select 'log', 'critical', 'audit_private.unfiled',
        'trigger complete_event is missing, or not ENABLE ALWAYS',
        'Events stay without the organisation that a later row of their transaction names.',
        'select audit.mend_guards()', true
    where not exists (
        select from pg_trigger as t
        where t.tgrelid = 'audit_private.unfiled'::regclass and t.tgname = 'complete_event'
            and t.tgenabled = 'A' and t.tgtype = 5 and t.tginitdeferred
            and pg_get_triggerdef(t.oid) like '%WHEN (new.is_first)%'
            and t.tgfoid = to_regprocedure('audit_private.complete_event()'))
    union all
    select 'log', 'critical', c.oid::regclass::text, 'is unlogged', 'A crash empties it.',
        format('alter table %s set logged', c.oid::regclass), false
    from pg_class as c
    where c.relnamespace = any ('{audit,audit_private}'::regnamespace[]) and c.relkind = 'r'
        and c.relpersistence <> 'p'
    union all
    select 'log', 'critical', a.attrelid::regclass::text,
        format('column %I must not be null', a.attname),
        'It refuses events, and with them the actions they record.',
        format('alter table %s alter column %I drop not null', a.attrelid::regclass, a.attname),
        false
    from pg_attribute as a
        join pg_attribute as p on p.attrelid = 'audit.event'::regclass and p.attname = a.attname
    where a.attrelid in (select relid from pg_partition_tree('audit.event')) and a.attnum > 0
        and a.attnotnull and not p.attnotnull;
$$;
comment on function audit_private.check_tables_of_log is
    'Finds tables of the log that reject events, may lose them, '
    'or run requests of others than owners';

create or replace function audit_private.check_keys_of_log() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'log', 'critical', s.seqrelid::regclass::text, 'has other settings than auditdb gave it',
        'It refuses events, and with them the actions they record, or gives them no order.',
        format('alter sequence %s increment 1 no minvalue no maxvalue no cycle cache 1',
            s.seqrelid::regclass), false
    from pg_sequence as s join pg_class as c on c.oid = s.seqrelid
    where c.relnamespace = any ('{audit,audit_private}'::regnamespace[])
        and (s.seqincrement <> 1 or s.seqmin <> 1 or s.seqcycle
            -- With a cache, ids that a session draws later may be lower than those
            -- that a tick has seen.
            or s.seqcache <> 1
            or s.seqmax <> case s.seqtypid when 'bigint'::regtype then 9223372036854775807
                else 2147483647 end)
    union all
    select 'log', 'critical', 'audit.event', 'lacks the primary key of auditdb',
        'Another one refuses events, and with them the actions they record.', 'auditdb install',
        false
    where not exists (
        select from pg_constraint as k
        where k.contype = 'p' and k.conrelid = 'audit.event'::regclass
            and pg_get_constraintdef(k.oid) = 'PRIMARY KEY (occurred_at, id)');
$$;
comment on function audit_private.check_keys_of_log is
    'Finds changes of how ids of events are generated, and of the primary key';

create or replace function audit_private.check_columns() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'columns', case w.problem when 'has statistics' then 'critical' else 'warning' end,
        w.relation::text,
        format('%s: %s', string_agg(w.name, ', ' order by w.name),
            case w.problem when 'has statistics' then 'may have statistics' else w.problem end),
        case w.problem
            when 'has statistics' then 'EXPLAIN tells any reader, by its estimates, what events of '
                'other organisations hold.'
            else 'An upgrade of the C library may hide events from the index that pages are '
                'read by.' end,
        'select audit.mend_columns()', w.problem = 'has statistics'
    from audit_private.wrong_columns() as w
    group by w.relation, w.problem
    union all
    select 'columns', 'critical', s.stxrelid::regclass::text,
        format('has extended statistics %s.%I', s.stxnamespace::regnamespace, s.stxname),
        'EXPLAIN tells any reader, by its estimates, what other organisations'' events hold.',
        format('drop statistics %s.%I', s.stxnamespace::regnamespace, s.stxname), false
    from pg_statistic_ext as s
    where s.stxrelid in (select relid from pg_partition_tree('audit.event'));
$$;
comment on function audit_private.check_columns is
    'Finds columns whose statistics tell readers about other organisations, or that have the '
    'collation of the C library';

create or replace function audit_private.check_indexes() returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'columns', 'critical', i.indrelid::regclass::text,
        format('index %s is none of auditdb''s, and %s', i.indexrelid::regclass, case
            when i.indpred is not null then 'holds some of the events'
            else 'does not begin with organization_id' end),
        'EXPLAIN ANALYZE and the size of the index tell any reader how many events of other '
        'organisations hold a value.',
        format('drop index %s', i.indexrelid::regclass), false
    from pg_index as i
        join pg_class as c on c.oid = i.indexrelid and not c.relispartition
    where i.indrelid in (select relid from pg_partition_tree('audit.event'))
        and not i.indisprimary
        -- This index of DEFAULT holds the transactions of all events;
        -- no reader may call its function.
        and i.indexrelid is distinct from to_regclass('audit.event_default_arrived_in_idx')
        -- Unique indexes have a finding of their own.
        and not i.indisunique
        and not exists (
            select from audit_private.partial_indexes() as w
            where i.indexrelid = to_regclass('audit.' || w.name)
                and w.definition = split_part(pg_get_indexdef(i.indexrelid), ' USING btree ', 2))
        and (i.indpred is not null or not exists (
            select from pg_attribute as a
            where a.attrelid = i.indrelid and a.attnum = i.indkey[0]
                and a.attname = 'organization_id'));
$$;
comment on function audit_private.check_indexes is
    'Finds indexes on the log by which a reader could count events of other organisations';

create or replace function audit_private.check_own_indexes(facts audit_private.fact[])
returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'indexes', case when not v.is_foreign then 'warning'
            when i.indisunique or i.indexprs is not null then 'critical' else 'notice' end,
        f.fact ->> 'object', format('index %s %s', v.name, f.fact ->> 'state'),
        case when not v.is_foreign then 'Queries are slow without it, or keys are no longer unique.'
            when i.indisunique or i.indexprs is not null
            then 'It may reject events, or run code when they are written.'
            else 'It makes each write slower.' end,
        case when v.is_foreign then f.fact ->> 'undo'
            when v.name = 'audit.event_organization_id_idx' then 'auditdb install'
            when w.name is not null then 'auditdb maintain'
            else '-- make it as sql/migrations/auditdb.0002-tables.sql does' end, false
    from unnest(check_own_indexes.facts) as f
        cross join lateral (select split_part(f.name, ' on ', 1),
            f.fact ->> 'state' = 'is none of auditdb''s') as v (name, is_foreign)
        left join pg_index as i on i.indexrelid = to_regclass(v.name)
        left join audit_private.partial_indexes() as w on 'audit.' || w.name = v.name
    where f.kind = 'index'
        -- A detached month has a finding of its own.
        and f.fact ->> 'object' !~ '^audit[.]event_[0-9]{4,}_[0-9]{2}$'
        -- Otherwise reported with the indexes of the partitions.
        and not (v.is_foreign and i.indrelid = 'audit.event'::regclass
            and (i.indisunique or i.indpred is not null or not exists (
                select from pg_attribute as a
                where a.attrelid = i.indrelid and a.attnum = i.indkey[0]
                    and a.attname = 'organization_id')))
    union all
    select 'indexes', 'warning', t.relid::regclass::text,
        format('has no part of index %s', i.indexrelid::regclass),
        'Queries of its months read every row.',
        case when i.indisprimary then format('alter table %s add primary key (occurred_at, id)',
            t.relid::regclass)
            when c.relname = 'event_organization_id_idx' then 'auditdb install'
            else 'auditdb maintain' end, false
    from pg_partition_tree('audit.event') as t
        join pg_index as i on i.indrelid = 'audit.event'::regclass and not i.indisvalid
        join pg_class as c on c.oid = i.indexrelid
    where t.isleaf and not exists (
        select from pg_inherits as h join pg_index as p on p.indexrelid = h.inhrelid
        where h.inhparent = i.indexrelid and p.indrelid = t.relid and p.indisvalid);
$$;
comment on function audit_private.check_own_indexes is
    'Finds indexes of the log that are missing, altered, foreign, or not on every partition';

create or replace function audit_private.check_definitions(facts audit_private.fact[])
returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'log', 'critical', f.fact ->> 'object',
        concat(case f.kind when 'policy'
            then format('policy %s ', regexp_replace(f.name, ' on [^ ]+$', '')) end,
            f.fact ->> 'state'),
        case f.kind when 'policy' then 'Policies decide which organisation is read, and by whom.'
            else 'The log may show wrong events.' end,
        case when f.fact ->> 'state' = 'is none of auditdb''s' and f.kind = 'policy'
            then f.fact ->> 'undo'
            else concat(f.fact ->> 'undo' || '; -- then: ', 'auditdb install') end, false
    from unnest(check_definitions.facts) as f
    where f.kind in ('policy', 'relation')
        -- A detached month has a finding of its own.
        and not (f.fact ->> 'state' = 'is none of auditdb''s' and exists (
            select from unnest(check_definitions.facts) as w
            where w.kind = 'trigger' and w.relation::text = f.name
                and w.name = 'refuse_truncate' and w.fact -> 'was' <> 'null'))
    union all
    select 'log', 'critical', 'audit_private.release', 'is empty, or hidden from its owner',
        'The log cannot be compared with the release.', 'auditdb install', false
    where not exists (select from audit_private.release);
$$;
comment on function audit_private.check_definitions is
    'Finds policies, tables and views of the log that are foreign, missing or altered';

create or replace function audit_private.check_partitions(facts audit_private.fact[])
returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'partitions', 'warning', 'audit.event_default', format('holds %s events', count(*)),
        'They have no month of their own: slower to read, and kept for ever.',
        'select audit.maintain()', true
    from audit.event_default
    where audit_private.has_month(occurred_at)
    having count(*) > 0
    union all
    select 'partitions', 'warning', 'audit.event', format('has no partition for %s',
            string_agg(to_char(m, 'YYYY-MM'), ', ' order by m)),
        'Maintenance has not run: events will go to the DEFAULT partition.',
        'select audit.maintain()', true
    from date_trunc('month', now() at time zone 'UTC') as this
        cross join generate_series(this, this + interval '2 months', interval '1 month') as m
    where m::date <> all (audit_private.months_attached() || audit_private.months_in_default())
    having count(*) > 0
    union all
    select 'partitions', 'critical', f.fact #>> '{was,on}',
        case when c.oid is null then 'is gone' else 'is no longer part of the log' end
            || ', and retention did not drop it',
        'Its events were removed.',
        case when c.oid is null
            then '-- restore it from a backup, then: select audit.attest(''audit.event'')'
            else '-- attach it again: alter table audit.event attach partition ' || c.oid::regclass
                || ' for values ...' end, false
    from unnest(check_partitions.facts) as f
        left join pg_class as c on c.oid = f.relation
    where f.scope = 'audit.event'::regclass and f.kind = 'trigger' and f.name ~ '^refuse_truncate'
        and f.fact -> 'was' <> 'null'
        and f.relation <> all (audit_private.append_only())
        and f.relation not in (select relid from pg_partition_tree('audit.event'));
$$;
comment on function audit_private.check_partitions is
    'Finds events without a partition, months that will be missing, and months that were removed';

create or replace function audit_private.check_attestation(facts audit_private.fact[])
returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'attestation', 'warning', f.scope::text, 'was never attested',
        'Its state when it was attached is unknown.',
        format('select audit.attest(%L)', f.scope), false
    from unnest(check_attestation.facts) as f
    where f.kind = 'table' and f.fact -> 'was' = 'null';
$$;
comment on function audit_private.check_attestation is
    'Finds attached tables that were never attested';

create or replace function audit_private.check_server(
    version int default current_setting('server_version_num')::int
) returns setof audit.finding
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'server', 'warning', 'PostgreSQL ' || check_server.version / 10000 || '.'
            || check_server.version % 10000,
        format('has %s, fixed in %s', string_agg(cve, ', ' order by cve),
            check_server.version / 10000 || '.' || max(mended) % 10000),
        'Row-level security or role changes can be bypassed.',
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
comment on function audit_private.check_server is
    'Finds minor versions of PostgreSQL with published vulnerabilities of row-level security';
