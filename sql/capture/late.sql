-- Late: the row that names the organisation of another row may come later in the same transaction.
-- An event without an organisation is looked at again at the commit. If there is an organisation by
-- then, it gets a second event with the same content. details.completes of the second event names
-- the first one, which does not change.

-- The columns that the lookup of the organisation uses, if their text means the same under all
-- settings. Secrets are never put aside.
-- A column that is missing here cannot be used at the commit.
create or replace function audit_private.late_columns(mapping jsonb) returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(jsonb_agg(name order by attnum), '[]')
    from jsonb_to_recordset(mapping -> 'own')
        as c (name text, attnum int, type oid, plain text, form text, is_virtual boolean)
    where mapping -> 'raw' ? 'organization' and mapping -> 'checked' ? 'inputs'
        and not audit_private.is_column(mapping ->> 'organization')
        and strpos(mapping ->> 'organization', format('r.%I', name)) > 0
        and not is_virtual and not mapping -> 'redact' ? name and form = plain
        and not audit_private.depends_on_settings(type) and not audit_private.runs_code(type)
);
comment on function audit_private.late_columns is
    'The columns of a row by which its organisation is looked up again at the commit';

create or replace function audit_private.late_code(mapping jsonb) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select audit_private.as_mapper(format(E'    return (select (%s\n    )::text from (select %s) '
        'as r);', mapping ->> 'organization', string_agg(
            format('($1 ->> %s)::%s as %I', n - 1, type::regtype, name), ', ' order by n)))
    from jsonb_array_elements_text(mapping -> 'late') with ordinality as l (name, n)
        join jsonb_to_recordset(mapping -> 'own') as c (name text, type oid) using (name)
);
comment on function audit_private.late_code is
    'Body of audit_private.organization_<id>_late, which looks an organisation up by some columns';

create or replace function audit_private.put_aside_code(mapping jsonb, op text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case when op <> 'DELETE' and mapping -> 'late' <> '[]' then (
    select format($sql$
        case when _organization is null then jsonb_build_object('id', %s, 'is_digest', %s,
            'is_foreign', %s, 'inputs', jsonb_build_array(%s)) end$sql$,
        mapping -> 'id',
        case when mapping -> 'digest' ? 'organization' then 'true' else 'false' end,
        case when audit_private.foreign_code(mapping) is null then 'false'
            else '_locks is not null' end,
        string_agg(format('case when new.%1$I is not null then format(''%%s'', new.%1$I) end',
            name), ', ' order by n))
    from jsonb_array_elements_text(mapping -> 'late') with ordinality as l (name, n)
) end;
comment on function audit_private.put_aside_code is
    'Generated argument that has an event looked at again at the commit, if no organisation was '
    'found; null if that cannot help';

create or replace function audit_private.put_aside(
    late jsonb, occurred_at timestamptz, action text, actor_id text, actor_type text,
    impersonator_id text, target_type text, target_id text, subject_id text, source text,
    captured_from text, old_values jsonb, new_values jsonb, details jsonb
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    perform audit_private.look_again(row(currval('audit.event_id_seq'), occurred_at, late,
        jsonb_build_object('action', action, 'actor_id', actor_id, 'actor_type', actor_type,
            'impersonator_id', impersonator_id, 'db_user', session_user,
            'db_role', nullif(nullif(current_setting('role'), 'none'), session_user),
            'target_type', target_type, 'target_id', target_id, 'subject_id', subject_id,
            'source', source, 'captured_from', captured_from),
        old_values, new_values, details, null, null));
end
$$;
comment on function audit_private.put_aside is
    'Puts the event that was just written aside, to look up its organisation again at the commit';

-- One deferred trigger serves all rows of a transaction, since PostgreSQL walks through all pending
-- triggers whenever a subtransaction is rolled back, and capture does that for each row.
-- Serializable transactions must not search for rows, because that makes them fail: there, each row
-- has its own trigger and is deleted at once by its ctid; the trigger still receives it. This is
-- why the row contains the event. The values are in columns of their own:
-- all together may be too long for one.
create or replace function audit_private.look_again(aside audit_private.unfiled) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _is_alone boolean := current_setting('transaction_isolation') = 'serializable';
    _place tid;
begin
    -- Deferred even if the session says otherwise: a lookup now would find nothing new.
    set constraints audit_private.complete_event deferred;
    aside.transaction_id := pg_current_xact_id();
    aside.is_first := _is_alone or not exists (
        select from audit_private.unfiled as u where u.transaction_id = aside.transaction_id);
    insert into audit_private.unfiled select (aside).* returning ctid into _place;
    if _is_alone then
        delete from audit_private.unfiled where ctid = _place;
    end if;
end
$$;
comment on function audit_private.look_again is
    'Adds a row whose deferred trigger looks an event up again when the transaction commits';

-- The same rules as in capture: code of the application may run, and nothing it sets remains.
create or replace function audit_private.late_organization(late jsonb) returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _found text;
    _locks text[] := case when (late ->> 'is_foreign')::boolean
        then audit_private.held_locks() end;
begin
    begin
        perform audit_private.wait_longer();
        execute format('select audit_private.organization_%s_late($1)', (late ->> 'id')::int)
            into _found using late -> 'inputs';
        raise exception using errcode = 'AU001';
    exception
        when sqlstate 'AU001' then null;
        when query_canceled then
            perform audit_private.release_locks(_locks);
            raise;
        when assert_failure or others then _found := null;
    end;
    perform audit_private.release_locks(_locks);
    return case
        when (late ->> 'is_digest')::boolean then audit_private.digest(_found)
        when length(_found) <= 200 then audit_private.safe_name(_found, null) end;
end
$$;
comment on function audit_private.late_organization is
    'The organisation of a row that was put aside, or null; raises only if the query is cancelled';

create or replace function audit_private.file_aside(aside audit_private.unfiled) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _organization text := audit_private.late_organization(aside.late);
begin
    if _organization is not null and aside.event is not null then
        insert into audit.event (
            action, result, actor_id, actor_type, impersonator_id, db_user, db_role,
            organization_id, target_type, target_id, subject_id, source, captured_from,
            old_values, new_values, details
        )
        select e.action, 'success', e.actor_id, e.actor_type, e.impersonator_id, e.db_user,
            e.db_role, _organization, e.target_type, e.target_id, e.subject_id, e.source,
            e.captured_from, aside.old_values, aside.new_values,
            coalesce(aside.details, '{}') || jsonb_build_object('completes', aside.event_id)
        from jsonb_populate_record(null::audit.event, aside.event) as e;
    -- SET CONSTRAINTS ran this before the commit: try once more then.
    -- At the commit, once is enough.
    elsif left(current_query(), 200) ~* 'constraints'
        and aside.late ->> 'seen' is distinct from statement_timestamp()::text
    then
        aside.late := aside.late || jsonb_build_object('seen', statement_timestamp()::text);
        perform audit_private.look_again(aside);
    end if;
end
$$;
comment on function audit_private.file_aside is
    'Writes a second event of a row whose organisation was found at the commit only';

create or replace function audit_private.complete_event() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _aside audit_private.unfiled;
begin
    if tg_relid <> 'audit_private.unfiled'::regclass then
        raise exception 'audit_private.complete_event is a trigger of audit_private.unfiled';
    end if;
    if current_setting('transaction_isolation') = 'serializable' then
        perform audit_private.file_aside(new);
        return null;
    end if;
    for _aside in
        with gone as (
            delete from audit_private.unfiled as u
            where u.transaction_id = pg_current_xact_id()
            returning u.*
        )
        select * from gone order by event_id
    loop
        perform audit_private.file_aside(_aside);
    end loop;
    return null;
end
$$;
-- Definer: any role may be in force at the commit.
comment on function audit_private.complete_event is
    'Trigger function: at the commit, looks again at the events that a transaction put aside';

create or replace function audit_private.guard_unfiled() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    -- Only if needed: each statement takes a lock that writers wait for.
    if not exists (
        select from pg_trigger
        where tgrelid = 'audit_private.unfiled'::regclass and tgname = 'complete_event'
            and tgtype = 5 and tginitdeferred
            and pg_get_triggerdef(oid) like '%WHEN (new.is_first)%'
            and tgfoid = 'audit_private.complete_event()'::regprocedure
    ) then
        drop trigger if exists complete_event on audit_private.unfiled;
        create constraint trigger complete_event after insert on audit_private.unfiled
            deferrable initially deferred
            for each row when (new.is_first) execute function audit_private.complete_event();
    end if;
    if exists (
        select from pg_trigger
        where tgrelid = 'audit_private.unfiled'::regclass and tgname = 'complete_event'
            and tgenabled <> 'A'
    ) then
        alter table audit_private.unfiled enable always trigger complete_event;
    end if;
    -- A publication of all tables rejects DELETE on a table without a key or a replica identity.
    if (select relreplident from pg_class where oid = 'audit_private.unfiled'::regclass) <> 'f' then
        alter table audit_private.unfiled replica identity full;
    end if;
end
$$;
comment on function audit_private.guard_unfiled is
    'Puts the deferred trigger on audit_private.unfiled, if it is missing';

do $$ begin perform audit_private.guard_unfiled(); end $$;
