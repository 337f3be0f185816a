-- Erasure: the only change that is ever made to a stored event. It removes the personal part: who
-- acted, whom the event is about, values and details, and the salt under which they were sealed.
-- The rest stays, with the hash of the personal part: every seal and every proof stays valid.

-- Takes columns, not an event: install changes the types of the columns of older logs.
create or replace function audit_private.is_of_person(
    person_id text, subject_id text, impersonator_id text, actor_type text, actor_id text,
    target_type text, target_id text
) returns boolean
language sql immutable
return coalesce(is_of_person.person_id in (is_of_person.subject_id, is_of_person.impersonator_id)
    or is_of_person.actor_type = 'user' and is_of_person.actor_id = is_of_person.person_id
    or is_of_person.target_type = 'user' and is_of_person.target_id = is_of_person.person_id,
    false);
comment on function audit_private.is_of_person is
    'Whether an event concerns a user: '
    'as actor, impersonated user, impersonator, subject or target';

-- Exactly as audit.erase leaves it: an application may write similar details.
create or replace function audit_private.is_erased(
    actor_id text, impersonator_id text, subject_id text, target_type text, target_id text,
    old_values jsonb, new_values jsonb, details jsonb
) returns boolean
language sql immutable
return coalesce(num_nonnulls(is_erased.actor_id, is_erased.impersonator_id, is_erased.subject_id,
        is_erased.old_values, is_erased.new_values) = 0
    and (is_erased.target_type is distinct from 'user' or is_erased.target_id is null)
    and is_erased.details::text
        ~ '^[{]"erased": [{]"erasure": [0-9]{1,19}(, "commitment": "[0-9a-f]{64}")?[}][}]$',
    false);
comment on function audit_private.is_erased is
    'Whether the personal part of an event was erased';

create or replace function audit_private.erased_details(erasure_id bigint, commitment text)
returns jsonb
language sql immutable
return jsonb_build_object('erased', jsonb_strip_nulls(jsonb_build_object(
    'erasure', erased_details.erasure_id,
    'commitment', substring(erased_details.commitment from '^[0-9a-f]{64}$'))));
comment on function audit_private.erased_details is
    'Details of an erased event: the id of the erasure and, if the event was sealed, the hash of '
    'the personal part in hexadecimal';

create or replace function audit_private.is_event_erasure(old jsonb, new jsonb, erasure_id bigint)
returns boolean
language sql immutable
return jsonb_strip_nulls(is_event_erasure.new - 'details') = jsonb_strip_nulls(
        is_event_erasure.old
        - array['actor_id', 'impersonator_id', 'subject_id', 'old_values', 'new_values', 'details']
        - case when audit_private.names_person(is_event_erasure.old ->> 'target_type',
            is_event_erasure.old ->> 'target_id', is_event_erasure.old ->> 'subject_id')
            then 'target_id' else '' end)
    and is_event_erasure.new -> 'details' = audit_private.erased_details(
        is_event_erasure.erasure_id, is_event_erasure.new #>> '{details,erased,commitment}');
comment on function audit_private.is_event_erasure is
    'Whether a change to an event removes its personal part, and nothing else';

-- The guard calls this for every change. The answer depends only on the row and on an erasure of
-- this transaction. Erasures are append-only, so nobody can change an event in another way, or
-- erase one without a record.
create or replace function audit_private.is_erasure(relation oid, old jsonb, new jsonb)
returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select coalesce(bool_or(case
            when is_erasure.relation = 'audit.seal'::regclass
                then is_erasure.new - 'salts' = is_erasure.old - 'salts'
            when pg_partition_root(is_erasure.relation) = 'audit.event'::regclass
                then audit_private.is_event_erasure(is_erasure.old, is_erasure.new, r.id)
        end), false)
    from audit.erasure as r
    where r.transaction_id = pg_current_xact_id();
$$;
comment on function audit_private.is_erasure is
    'Whether a change is part of an erasure of this transaction';

-- Finds the events, and the place of each event's salt in its seal.
create or replace function audit_private.events_to_erase(
    subject_id text, organization_id text,
    out ids bigint[], out times timestamptz[], out seals bigint[], out numbers int[]
)
language sql stable set search_path = pg_catalog, pg_temp set row_security = on
as $$
    with found as materialized (
        select e.id, e.occurred_at
        from audit.event as e
        where (events_to_erase.subject_id is null
                or audit_private.is_of_person(events_to_erase.subject_id, e.subject_id,
                e.impersonator_id, e.actor_type, e.actor_id, e.target_type, e.target_id))
            and (events_to_erase.organization_id is null
                or e.organization_id = events_to_erase.organization_id)
            and e.action <> 'audit.erased'
            and not audit_private.is_erased(e.actor_id, e.impersonator_id, e.subject_id,
                e.target_type, e.target_id, e.old_values, e.new_values, e.details)
    ), sealed as materialized (
        select s.id as seal, u.n, u.id, s.first_at, s.last_at
        from audit.seal as s cross join unnest(s.ids) with ordinality as u (id, n)
        where s.last_at >= (select min(f.occurred_at) from found as f)
            and s.first_at <= (select max(f.occurred_at) from found as f)
            and u.id in (select f.id from found as f)
    )
    select array_agg(f.id order by f.occurred_at, f.id),
        array_agg(f.occurred_at order by f.occurred_at, f.id),
        array_agg(s.seal order by f.occurred_at, f.id),
        array_agg(s.n order by f.occurred_at, f.id)
    from found as f
        left join sealed as s on s.id = f.id and f.occurred_at between s.first_at and s.last_at;
$$;
comment on function audit_private.events_to_erase is
    'The events of a person, of an organisation or of a person within it that are not erased yet, '
    'each with its place in the seals';

create or replace function audit_private.without_salts(salts bytea, numbers int[]) returns bytea
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select string_agg(case when e.n is null then substr(without_salts.salts, s.n * 16 - 15, 16)
        else decode(repeat('00', 16), 'hex') end, ''::bytea order by s.n)
    from generate_series(1, octet_length(without_salts.salts) / 16) as s (n)
        left join unnest(without_salts.numbers) as e (n) on e.n = s.n;
$$;
comment on function audit_private.without_salts is
    'The salts of a seal, with the salts of some events set to zero';

-- The old row versions must go soon, whatever the settings of autovacuum are.
create or replace function audit_private.vacuum_soon(relation regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '50ms'
as $$
begin
    execute format('alter table %s set (autovacuum_vacuum_threshold = 0, '
        'autovacuum_vacuum_scale_factor = 0)', relation);
exception when lock_not_available then
    null;  -- something vacuums it now
end
$$;
comment on function audit_private.vacuum_soon is
    'Makes autovacuum remove what was erased at its next run';

create or replace function audit_private.erase_events(
    erasure_id bigint, ids bigint[], times timestamptz[], seals bigint[], numbers int[]
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
begin
    execute format($sql$
        with place as materialized (
            select * from unnest($2, $3, $4, $5) as p (id, occurred_at, seal, n)
        ), salt as materialized (
            select p.id, p.occurred_at, substr(l.salts, p.n * 16 - 15, 16) as salt
            from place as p left join audit.seal as l on l.id = p.seal
        )
        update audit.event as e
        set actor_id = null, impersonator_id = null, subject_id = null, old_values = null,
            new_values = null,
            target_id = case when not audit_private.names_person(
                e.target_type, e.target_id, e.subject_id) then e.target_id end,
            details = audit_private.erased_details($1, encode(%s, 'hex'))
        from salt as s
        where (e.occurred_at, e.id) = (s.occurred_at, s.id)$sql$,
        audit_private.commitment_expression())
    using erasure_id, ids, times, seals, numbers;

    update audit.seal as s
    set salts = audit_private.without_salts(s.salts || ''::bytea, p.numbers)
    from (
        select u.seal, array_agg(u.n) as numbers
        from unnest(erase_events.seals, erase_events.numbers) as u (seal, n)
        where u.seal is not null
        group by u.seal
    ) as p
    where s.id = p.seal;
end
$$;
comment on function audit_private.erase_events is
    'Removes the personal part and the salts of some events, for an erasure';

create or replace function audit_private.series_of(event_id bigint) returns uuid
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select s.key from audit.series as s
    where s.began <> 'continued' and s.after_id < series_of.event_id
    order by s.id desc
    limit 1;
$$;
comment on function audit_private.series_of is
    'The key of the series that an event belongs to, by its id';

-- The ids tell those who keep a copy elsewhere what to erase there.
create or replace function audit_private.record_erasure(erasure_id bigint, ids bigint[],
    times timestamptz[], reason text) returns void
language sql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
    insert into audit.event (
        action, result, actor_id, actor_type, impersonator_id, source, organization_id,
        target_type, target_id, details
    )
    select 'audit.erased', 'success', coalesce(a.actor_id, session_user), a.actor_type,
        a.impersonator_id, 'system', p.organization_id, 'audit', record_erasure.erasure_id::text,
        jsonb_build_object('reason', record_erasure.reason, 'series', p.series,
            'events', jsonb_array_length(p.ids), 'event_ids', p.ids)
    from audit_private.acting(audit_private.context_in_force()) as a
        cross join (
            select n.organization_id, n.series, jsonb_agg(n.id::text order by n.id) as ids
            from (
                select e.organization_id, e.id, audit_private.series_of(e.id) as series,
                    row_number() over (partition by e.organization_id order by e.id) as number
                from unnest(record_erasure.ids, record_erasure.times) as i (id, occurred_at)
                    join audit.event as e on (e.occurred_at, e.id) = (i.occurred_at, i.id)
            ) as n
            group by n.organization_id, n.series, (n.number - 1) / 1000
        ) as p
    order by p.organization_id;
$$;
comment on function audit_private.record_erasure is
    'Records an erasure in the log of each organisation, up to a thousand events per record';

create or replace function audit_private.refuse_erasing(
    subject_id text, organization_id text, reason text
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(refuse_erasing.subject_id, refuse_erasing.organization_id, '') = '' then
        raise exception 'no person or organisation to erase is given'
            using errcode = 'invalid_parameter_value',
                hint = 'Give a subject_id, an organization_id, or both.';
    elsif length(trim(coalesce(refuse_erasing.reason, ''))) not between 1 and 1000 then
        raise exception 'an erasure needs a reason of at most 1000 characters'
            using errcode = 'invalid_parameter_value',
                hint = 'The reason stays in the log: name no person in it.';
    elsif current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
        raise exception 'erasure is impossible under %', current_setting('transaction_isolation')
            using errcode = 'invalid_transaction_state', hint = 'Use read committed.';
    elsif position(refuse_erasing.subject_id in refuse_erasing.reason) > 0
        and length(refuse_erasing.subject_id) > 5
    then
        raise exception 'the reason names the person who is to be erased'
            using errcode = 'invalid_parameter_value', hint = 'The reason stays in the log.';
    end if;
end
$$;
comment on function audit_private.refuse_erasing is
    'Raises if the person, the organisation or the reason of an erasure is invalid or missing, or '
    'if the isolation level prevents it';

create or replace function audit_private.refuse_held(ids bigint[], times timestamptz[])
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _held text;
begin
    select min(o.id) into _held
    from (
        select distinct e.organization_id as id
        from unnest(refuse_held.ids, refuse_held.times) as i (id, occurred_at)
            join audit.event as e on (e.occurred_at, e.id) = (i.occurred_at, i.id)
    ) as o
    where audit_private.is_held(o.id);
    if _held is not null then
        raise exception 'the events belong to organisation %, which is under legal hold', _held
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'Nothing was erased. Name another organisation, or wait: auditdb hold.';
    end if;
end
$$;
comment on function audit_private.refuse_held is
    'Raises if one of the events belongs to an organisation under legal hold';

-- The streams themselves go on: they belong to the organisation.
create or replace function audit_private.erase_makers(subject_id text, organization_id text)
returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    update audit.subscription as s
    set made_by = ''
    where s.made_by = coalesce(nullif(erase_makers.subject_id, ''), s.made_by) and s.made_by <> ''
        and s.organization_id = coalesce(erase_makers.organization_id, s.organization_id);
$$;
comment on function audit_private.erase_makers is
    'Removes who made the streams of a person, of an organisation or of a person within it';

create or replace function audit.erase(
    reason text, subject_id text default null, organization_id text default null
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _found record;
    _erasure bigint;
    _relation regclass;
begin
    perform audit_private.refuse_erasing(subject_id, organization_id, reason);
    -- Taken before the snapshot that finds events:
    -- until the end, no event is moved out of DEFAULT, held or sealed.
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    perform audit_private.lock_briefly('audit.key_rotation', 'share row exclusive');
    perform audit_private.erase_makers(subject_id, organization_id);
    _found := audit_private.events_to_erase(subject_id, organization_id);
    perform audit_private.ask_archive(reason, subject_id, organization_id, _found.times);
    if _found.ids is null then
        return 0;
    end if;
    perform audit_private.refuse_held(_found.ids, _found.times);
    insert into audit.erasure (organization_id, reason, events)
    values (erase.organization_id, erase.reason, cardinality(_found.ids))
    returning id into _erasure;
    perform audit_private.erase_events(
        _erasure, _found.ids, _found.times, _found.seals, _found.numbers);
    perform audit_private.record_erasure(_erasure, _found.ids, _found.times, erase.reason);
    foreach _relation in array array(
        select distinct e.tableoid::regclass
        from unnest(_found.ids, _found.times) as i (id, occurred_at)
            join audit.event as e on (e.occurred_at, e.id) = (i.occurred_at, i.id)
    ) || 'audit.seal'::regclass loop
        perform audit_private.vacuum_soon(_relation);
    end loop;
    return cardinality(_found.ids);
end
$$;
-- Definer: only audit_owner may change events.
comment on function audit.erase is
    'Erases the personal part of events for ever: of those that concern a user, of those of an '
    'organisation, or of those that concern a user within an organisation. Skeletons and proofs '
    'stay. Records an event with the reason. Returns the number of events; '
    'audit.list_personal counts them beforehand';

create or replace function audit.list_personal(
    subject_id text default null, organization_id text default null
) returns table (organization text, events bigint, first_at timestamptz, last_at timestamptz)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select e.organization_id, count(*), min(e.occurred_at), max(e.occurred_at)
    from audit.event as e
    where coalesce(list_personal.subject_id, list_personal.organization_id) is not null
        and (list_personal.subject_id is null
            or audit_private.is_of_person(list_personal.subject_id, e.subject_id,
                e.impersonator_id, e.actor_type, e.actor_id, e.target_type, e.target_id))
        and (list_personal.organization_id is null
            or e.organization_id = list_personal.organization_id)
        and e.action <> 'audit.erased'
        and not audit_private.is_erased(e.actor_id, e.impersonator_id, e.subject_id,
                e.target_type, e.target_id, e.old_values, e.new_values, e.details)
    group by 1
    order by 1;
$$;
comment on function audit.list_personal is
    'How many events audit.erase would erase, by organisation; it changes nothing';

create or replace function audit.personal_events(
    subject_id text, organization_id text default null
) returns setof audit.event
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select e.* from audit.event as e
    where audit_private.is_of_person(personal_events.subject_id, e.subject_id,
                e.impersonator_id, e.actor_type, e.actor_id, e.target_type, e.target_id)
        and (personal_events.organization_id is null
            or e.organization_id = personal_events.organization_id)
    order by e.occurred_at, e.id;
$$;
comment on function audit.personal_events is
    'All events that concern a user, for an auditor to give to this person';

create or replace function audit.list_mentions(
    names text[], subject_id text default null, organization_id text default null
) returns table (
    event_id bigint, occurred_at timestamptz, organization text, action text, name text
)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select e.id, e.occurred_at, e.organization_id, e.action, n.name
    from audit.event as e
        cross join unnest(list_mentions.names) as n (name)
    where n.name <> ''
        and position(lower(n.name) in lower(concat(e.old_values, e.new_values, e.details))) > 0
        and (list_mentions.organization_id is null
            or e.organization_id = list_mentions.organization_id)
        and not coalesce(audit_private.is_of_person(list_mentions.subject_id, e.subject_id,
                e.impersonator_id, e.actor_type, e.actor_id, e.target_type, e.target_id), false)
    order by e.occurred_at, e.id, n.name;
$$;
comment on function audit.list_mentions is
    'Events whose values or details contain one of some texts, such as an address, without '
    'concerning the user: an auditor can find there what audit.erase leaves';

create or replace function audit_private.check_erasures() returns setof audit.finding
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _erasure audit.erasure;
    _told bigint;
begin
    for _erasure in
        select * from audit.erasure as r
        -- Older erasures do not count: retention dropped some of their events.
        where r.erased_at >= (
            select min((audit_private.month_bounds(m)).starts)
            from unnest(audit_private.months_attached()) as m)
    loop
        _told := (
            select coalesce(sum((e.details ->> 'events')::bigint), 0)
            from audit.event as e
            where e.action = 'audit.erased' and e.target_id = _erasure.id::text
                and e.occurred_at >= _erasure.erased_at - interval '1 day'
                and e.occurred_at <= _erasure.erased_at + interval '1 day');
        if _told <> _erasure.events then
            return next ('erasures', 'critical', 'audit.erasure', format('erasure %s erased %s '
                    'events, but the events audit.erased name %s', _erasure.id,
                    _erasure.events, _told),
                'Somebody erased events by hand, or removed the record of it.',
                '-- see: select * from audit.erasure where id = ' || _erasure.id, false
                )::audit.finding;
        end if;
    end loop;
end
$$;
comment on function audit_private.check_erasures is
    'Erasures that the log does not record, or records differently';
