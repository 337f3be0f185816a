-- Late: the row that names the organisation of another may come after it, in the same transaction.
-- An event that no organisation was found for is looked at again at the commit. If there is one by
-- then, a second event, the same otherwise, is that organisation's: details.completes names the
-- first one, which stays as it is.

-- Columns that the organisation is looked up by, as far as their text means the same under any
-- settings. No secret is put aside. What is not handed over here is not found there.
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
    'Body of audit_private.organization_<id>_late: the organisation by some columns of a row';

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
    'Generated argument that has an event looked at again, where no organisation was found; '
    'null where that cannot help';

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
    'Has the event that was just written looked at again when the transaction commits';

-- One trigger waits for the commit, and takes all rows of its transaction: PostgreSQL goes through
-- all that waits whenever a subtransaction is rolled back, as capture does for each row. To look
-- for rows would make transactions that are serializable fail, so there each row has a trigger of
-- its own, and is deleted at once, by its address: the trigger gets it all the same. For the same
-- reason the row has the event itself. Its values are apart: together they may be too long for one.
create or replace function audit_private.look_again(aside audit_private.unfiled) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _is_alone boolean := current_setting('transaction_isolation') = 'serializable';
    _place tid;
begin
    -- Whatever the session says: now it would find what the event found.
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
    'Has an event looked at when the transaction commits';

-- As capture looks, with code of the application behind it: nothing that it sets outlives it.
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
    'The organisation of a row that was put aside, or null; never raises but when cancelled';

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
    -- SET CONSTRAINTS comes before the commit. At the commit itself, once is enough.
    elsif left(current_query(), 200) ~* 'constraints'
        and aside.late ->> 'seen' is distinct from statement_timestamp()::text
    then
        aside.late := aside.late || jsonb_build_object('seen', statement_timestamp()::text);
        perform audit_private.look_again(aside);
    end if;
end
$$;
comment on function audit_private.file_aside is
    'Writes the event of an organisation that was not known before the commit, if it is now';

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
-- Definer: the role at the commit may be any.
comment on function audit_private.complete_event is
    'Trigger function: looks again at what a transaction put aside, when it commits';

create or replace function audit_private.guard_unfiled() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    -- Only where needed: each takes a lock that writers wait for.
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
    -- A publication of all tables takes no DELETE of a table that has neither key nor this.
    if (select relreplident from pg_class where oid = 'audit_private.unfiled'::regclass) <> 'f' then
        alter table audit_private.unfiled replica identity full;
    end if;
end
$$;
comment on function audit_private.guard_unfiled is
    'Puts the trigger on what is put aside that looks at it again';

do $$ begin perform audit_private.guard_unfiled(); end $$;
