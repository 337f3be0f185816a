-- Attach and detach: which tables are captured, and how their rows map to events. The owner of a
-- table calls them and creates the triggers; the rest runs as audit_owner.

-- A mapping may outlive its table: a restore may lack the table, and another one may get its oid.
create or replace function audit_private.is_there(target oid, row_type oid) returns boolean
language sql stable
return exists (
    select from pg_catalog.pg_class as c
    where c.oid = is_there.target and c.reltype = is_there.row_type
);
comment on function audit_private.is_there is
    'Whether the table of an attachment exists: its oid and the type of its rows must both match';

create or replace function audit_private.table_name(target oid) returns text
language sql stable set search_path = pg_catalog, pg_temp set quote_all_identifiers = off
return (
    select format('%I.%I', n.nspname, c.relname)
    from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    where c.oid = table_name.target
);
comment on function audit_private.table_name is
    'Schema and name of a table, quoted as in SQL';

-- Not to_regclass, which requires a privilege on the schema.
create or replace function audit_private.table_of(name text) returns oid
language sql stable set search_path = pg_catalog, pg_temp
return (
    select c.oid
    from parse_ident(table_of.name) as part
        join pg_namespace as n on n.nspname = part[1]
        join pg_class as c on c.relnamespace = n.oid and c.relname = part[2]
);
comment on function audit_private.table_of is
    'The table of a name as audit_private.table_name() says it, or null';

create or replace function audit_private.target_problem(
    class pg_class, kind text, out problem text, out hint text
)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    if audit_private.is_system_schema(class.relnamespace) then
        problem := 'a table of the log or of the system';
        hint := 'Attach the tables of your application.';
    elsif class.relpersistence = 't' then
        problem := 'a temporary table';
        hint := 'Attach a table that outlives the session.';
    elsif target_problem.kind = 'admin' then
        if class.relkind not in ('r', 'p', 'v', 'm') then
            problem := 'neither a table nor a view';
        end if;
    elsif class.relkind in ('v', 'm') then
        problem := 'a view, and a view has no rows of its own';
        hint := 'Attach the tables beneath it.';
    elsif class.relkind = 'f' then
        problem := 'a foreign table, whose changes on the other server no trigger here can see';
        hint := 'Attach the table on its own server.';
    elsif class.relkind not in ('r', 'p') then
        problem := 'not a table';
    elsif class.relispartition then
        problem := 'a partition';
        hint := 'Attach the partitioned table; its partitions are captured with it.';
    elsif exists (
        select from pg_inherits join pg_class as c on c.oid = inhrelid
        where inhparent = class.oid and not c.relispartition
            and not exists (
                select from audit_private.attachment as a
                where a.target = c.oid and a.row_type = c.reltype)
    ) then
        problem := 'inherited by tables whose rows its triggers would not see';
        hint := 'Attach the tables that inherit from it first.';
    end if;
end
$$;
comment on function audit_private.target_problem is
    'Why an object cannot be captured as a kind, and what to attach instead; null if it can';

create or replace function audit_private.refuse_target(target regclass, kind text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _class pg_class;
    _problem text;
    _hint text;
begin
    select * into _class from pg_class where oid = refuse_target.target;
    if not found then
        raise exception 'there is no table with oid %', refuse_target.target::oid
            using errcode = 'undefined_table', hint = 'Give its name.';
    end if;
    select problem, hint into _problem, _hint
    from audit_private.target_problem(_class, refuse_target.kind);
    if _problem is not null then
        raise exception '% is %', refuse_target.target, _problem
            using errcode = 'wrong_object_type', hint = coalesce(_hint, 'Attach a table.');
    end if;
    if not pg_has_role(_class.relowner, 'usage') then
        raise exception 'only its owner, %, may attach %', _class.relowner::regrole,
                refuse_target.target
            using errcode = 'insufficient_privilege',
                hint = format('Attach as %s, with: grant audit_operator to %1$s.',
                    _class.relowner::regrole);
    end if;
end
$$;
comment on function audit_private.refuse_target is
    'Raises if the object cannot be captured, or the caller may not attach it';

-- Work that only audit_owner may do is requested by an INSERT into audit_private.request. A
-- SECURITY DEFINER function cannot know its real caller: session_user is a superuser if code of
-- another role runs in a superuser's session. A trigger that is no definer runs as the role that
-- inserts, and nobody can bypass it.

create or replace function audit_private.authorize_request() returns trigger
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _class pg_class;
begin
    select * into _class from pg_class where oid = new.target;
    -- Anybody may detach a table that no longer exists.
    if _class.oid is not null and not pg_has_role(_class.relowner, 'usage')
        or not pg_has_role('audit_operator', 'usage')
    then
        raise exception '% does not own %', current_user, new.target
            using errcode = 'insufficient_privilege',
                hint = 'Only the owner of a table, with audit_operator, may attach or detach it.';
    end if;
    if _class.oid is null and new.verb <> 'detach' then
        raise exception 'there is no table with oid %', new.target::oid
            using errcode = 'undefined_table', hint = 'Give its name.';
    end if;
    if _class.oid is not null and new.verb <> 'detach' and new.kind is not null then
        perform audit_private.refuse_target(new.target, new.kind);
    end if;
    return new;
end
$$;
comment on function audit_private.authorize_request is
    'Trigger function: refuses a request by a role that does not own the table';

create or replace function audit_private.carry_out_request() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform audit_private.refuse_restored();
    case new.verb
        when 'attach' then
            perform audit_private.claim_name(new.target);
            perform audit_private.store_attachment(new.target, new.kind, new.given);
            perform audit_private.write_functions(new.target);
        when 'check' then
            -- Deferred even if the session says otherwise:
            -- a check is refused at the commit, not before.
            set constraints audit_private.refuse_check deferred;
            if new.kind is null then
                delete from audit_private.attachment as a where a.target = new.target;
                perform audit_private.record_own('detached', new.target::text, null, null);
            else
                perform audit_private.claim_name(new.target);
                perform audit_private.store_attachment(new.target, new.kind, new.given);
            end if;
            return new;
        when 'close' then perform audit_private.close_capture(new.target);
        when 'detach' then perform audit_private.forget_attachment(new.target);
        when 'baseline' then perform audit_private.open_baseline(new.target);
        when 'baselined' then perform audit_private.note_baseline(new.target, new.given);
        else
            raise exception '"%" is an invalid request', new.verb
                using errcode = 'invalid_parameter_value';
    end case;
    return null;
end
$$;
-- Definer: it writes to tables of the log, which the caller may not.
comment on function audit_private.carry_out_request is
    'Trigger function: carries out a request, and keeps no row unless it is a check';

-- A check stores a mapping without its functions, or removes one while its triggers remain.
create or replace function audit_private.refuse_check() returns trigger
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'a change of % was only checked, and a check cannot be committed', new.target
        using errcode = 'invalid_transaction_termination',
            hint = 'Roll back. To do it, call audit.attach() or audit.detach().';
end
$$;
comment on function audit_private.refuse_check is
    'Trigger function: refuses the commit of a transaction that only checks a mapping';

create or replace function audit_private.guard_checks() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from pg_policy
        where polrelid = 'audit_private.request'::regclass and polname = 'operators_check'
    ) then
        create policy operators_check on audit_private.request for insert to audit_operator
            with check (verb = 'check');
    end if;
    if not exists (
        select from pg_trigger
        where tgrelid = 'audit_private.request'::regclass and tgname = 'refuse_check'
            and tgtype = 5 and tginitdeferred and tgqual is null
            and tgfoid = 'audit_private.refuse_check()'::regprocedure
    ) then
        drop trigger if exists refuse_check on audit_private.request;
        create constraint trigger refuse_check after insert on audit_private.request
            deferrable initially deferred
            for each row execute function audit_private.refuse_check();
    end if;
    alter table audit_private.request enable always trigger refuse_check;
end
$$;
comment on function audit_private.guard_checks is
    'Puts the trigger that refuses to commit a check on the requests, '
    'and lets operators request a check';

create or replace function audit_private.guard_requests() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _trigger text;
begin
    -- In the order of their names.
    foreach _trigger in array '{authorize_request,carry_out_request}'::text[] loop
        execute format('create or replace trigger %1$I before insert on audit_private.request '
            'for each row execute function audit_private.%1$I()', _trigger);
        execute format('alter table audit_private.request enable always trigger %I', _trigger);
    end loop;
    if not exists (
        select from pg_policy
        where polrelid = 'audit_private.installation'::regclass and polname = 'the_owner_keeps'
    ) then
        create policy the_owner_keeps on audit_private.installation to audit_owner using (true);
    end if;
    alter table audit_private.installation enable row level security, force row level security;
    alter table audit_private.request enable row level security, force row level security;
    perform audit_private.guard_checks();
end
$$;
comment on function audit_private.guard_requests is
    'Puts the triggers that authorize and carry out requests on their table, '
    'and row-level security';

do $$ begin perform audit_private.guard_requests(); end $$;

comment on column audit_private.attachment.id is
    'Part of the names of the generated functions: audit_private.capture_<id>_insert, _update, '
    '_delete and _truncate, audit_private.read_<id>, audit_private.organization_<id>, '
    'audit_private.admin_<id>';

create or replace function audit_private.store_attachment(target regclass, kind text, given jsonb)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _mapping jsonb := audit_private.check_mapping(
        target, audit_private.resolve_mapping(target, kind, given));
    _before audit_private.attachment;
    _id int;
    _verb text;
begin
    select * into _before from audit_private.attachment as a
    where a.target = store_attachment.target;
    if (_before.kind = 'admin') <> (store_attachment.kind = 'admin') then
        raise exception '% is already attached as %', store_attachment.target, _before.kind
            using errcode = 'object_in_use',
                hint = format('Detach it first: select audit.detach(%L);', store_attachment.target);
    end if;
    insert into audit_private.attachment as a (target, kind, mapping, name, row_type)
    select oid, store_attachment.kind, _mapping, audit_private.table_name(oid), reltype
    from pg_class where oid = store_attachment.target
    on conflict on constraint a_table_is_attached_once do update
        set kind = excluded.kind, mapping = excluded.mapping,
            attached_at = default, attached_by = default
        where (a.kind, a.mapping) is distinct from (excluded.kind, excluded.mapping)
    returning a.id into _id;
    _verb := case when _id is null then null when _before.id is null then 'attached'
        else 'remapped' end;
    perform audit_private.name_actions(kind, _mapping);
    if _verb is not null then
        perform audit_private.record_own(_verb, store_attachment.target::text,
            case when _before.id is not null then
                jsonb_build_object('kind', _before.kind, 'mapping', _before.mapping) end,
            jsonb_build_object('kind', kind, 'mapping', _mapping));
    end if;
end
$$;
comment on function audit_private.store_attachment is
    'Resolves the options of a table to a mapping, checks it and stores it';

create or replace function audit_private.write_functions(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _a audit_private.attachment;
begin
    select * into _a from audit_private.attachment as a where a.target = write_functions.target;
    perform audit_private.generate(_a.id);
    if _a.kind <> 'admin' then
        perform audit_private.grant_capture(_a.id, 'grant', 'to', 'audit_operator');
    end if;
end
$$;
comment on function audit_private.write_functions is
    'Writes the functions of an attached table, which its owner then puts into triggers';

create or replace function audit_private.name_actions(kind text, mapping jsonb) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    insert into audit.action (name, description)
    select value, format('A row of kind %s %s', name_actions.kind, case key
        when 'born' then 'came to be' when 'died' then 'ceased to be'
        when 'prepared' then 'was inserted that does not count yet'
        when 'purged' then 'was deleted that did not count any more' else 'changed' end)
    from jsonb_each_text(name_actions.mapping -> 'verbs')
    where value <> ''
    union all
    select f ->> 'action', format('Of a row of kind %s, column %s changed', name_actions.kind,
        f ->> 'column')
    from jsonb_array_elements(name_actions.mapping -> 'facts') as f
    where f ? 'action'
    union all
    select name_actions.kind || '.truncated',
        format('All rows of a table of kind %s were removed at once', name_actions.kind)
    on conflict do nothing;
$$;
comment on function audit_private.name_actions is
    'Adds the actions of a kind to audit.action';

create or replace function audit_private.grant_capture(
    id int, verb text, preposition text, role text
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('%1$s execute on function audit_private.capture_%2$s_insert, '
        'audit_private.capture_%2$s_update, audit_private.capture_%2$s_delete, '
        'audit_private.capture_%2$s_truncate %3$s %4$I',
        grant_capture.verb, grant_capture.id, grant_capture.preposition, grant_capture.role);
end
$$;
comment on function audit_private.grant_capture is
    'Grants or revokes the right to use the capture functions of a table in a trigger';

-- Once the triggers exist, nobody else may use the functions on a table of their own.
create or replace function audit_private.close_capture(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _id int := (
        select a.id from audit_private.attachment as a where a.target = close_capture.target);
    _owner name := (
        select rolname from pg_class join pg_roles as r on r.oid = relowner
        where pg_class.oid = close_capture.target and relkind = 'p');
    _other name;
begin
    -- Revokes from operators, who held the right for a moment, and from a former owner.
    for _other in
        select distinct r.rolname
        from unnest('{insert,update,delete,truncate}'::text[]) as op
            join pg_proc as p on p.oid = audit_private.trigger_function(_id, op)
            cross join aclexplode(p.proacl) as x
            join pg_roles as r on r.oid = x.grantee
        where r.oid <> p.proowner and r.rolname not in ('audit_owner', 'audit_mapper')
            and r.rolname is distinct from _owner
    loop
        perform audit_private.grant_capture(_id, 'revoke', 'from', _other);
    end loop;
    if _owner is not null then
        -- Each new partition gets the triggers too, which requires the right to use their function.
        perform audit_private.grant_capture(_id, 'grant', 'to', _owner);
    end if;
    if not exists (
        select from pg_trigger
        where tgfoid = to_regprocedure(format('audit_private.capture_%s()', _id))
    ) then
        perform audit_private.drop_function(format('audit_private.capture_%s()', _id));
    end if;
end
$$;
comment on function audit_private.close_capture is
    'Revokes the right to use the capture functions of a table in a trigger';

-- Fails while triggers exist, so that it cannot silence a table.
create or replace function audit_private.remove_attachment(id int, details jsonb default null)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _a audit_private.attachment;
    _function regprocedure;
begin
    delete from audit_private.attachment as a where a.id = remove_attachment.id
    returning a.* into _a;
    for _function in
        select * from audit_private.functions_of(_a.id)
    loop
        execute format('drop function %s', _function);
    end loop;
    perform audit_private.record_own('detached',
        coalesce(audit_private.table_name(_a.target), _a.name),
        jsonb_build_object('kind', _a.kind, 'mapping', _a.mapping), null, details);
end
$$;
comment on function audit_private.remove_attachment is
    'Removes a mapping and its functions, and records this as an event';

create or replace function audit_private.forget_attachment(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _id int := (
        select a.id from audit_private.attachment as a
        where a.target = forget_attachment.target
            and audit_private.is_there(a.target, a.row_type));
begin
    if _id is null then
        raise exception '% is not attached', forget_attachment.target
            using errcode = 'undefined_object', hint = 'auditdb status lists what is.';
    end if;
    perform audit_private.remove_attachment(_id, (
        select jsonb_build_object('attached_as', a.name) from audit_private.attachment as a
        where a.id = _id and a.name <> audit_private.table_name(a.target)));
end
$$;
comment on function audit_private.forget_attachment is
    'Removes the mapping and the functions of a table';

-- Locks no table of the application.
create or replace function audit_private.prepare_attach(target regclass, kind text, given jsonb)
returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '60s'
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    perform set_config('lock_timeout', '5s', true);
    perform audit_private.refuse_target(prepare_attach.target, prepare_attach.kind);
    perform audit_private.open_schemas(prepare_attach.target, prepare_attach.given);
    insert into audit_private.request (verb, target, kind, given)
    values ('attach', prepare_attach.target, prepare_attach.kind, prepare_attach.given);
    perform audit_private.open_lookups(prepare_attach.target);
end
$$;
comment on function audit_private.prepare_attach is
    'The part of attaching that locks no table: '
    'checks and stores the mapping, writes the functions';

-- After a swap of tables, the application writes to the table that has the name now. The former one
-- becomes outdated, and its memberships would still make admins.
create or replace function audit_private.leave_former(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _former oid;
begin
    for _former in
        select a.target from audit_private.attachment as a
            join pg_class as c on c.oid = a.target and c.reltype = a.row_type
        where a.name = audit_private.table_name(leave_former.target)
            and a.target <> leave_former.target and pg_has_role(c.relowner, 'usage')
    loop
        perform audit.detach(_former);
    end loop;
end
$$;
comment on function audit_private.leave_former is
    'Detaches the table that was attached under the present name of this one';

-- The other tables of a mapping file are checked against the mapping that this one would get.
create or replace function audit_private.check_attach(target regclass, kind text, given jsonb)
returns table (mapping jsonb, policies oid[])
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '60s'
set plan_cache_mode = force_generic_plan
as $$
begin
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    perform set_config('lock_timeout', '5s', true);
    perform audit_private.refuse_target(check_attach.target, check_attach.kind);
    perform audit_private.open_schemas(check_attach.target, check_attach.given);
    insert into audit_private.request (verb, target, kind, given)
    values ('check', check_attach.target, check_attach.kind, check_attach.given);
    perform audit_private.open_lookups(check_attach.target);
    return query
        select a.mapping - 'checked',
            array(select p::oid from audit_private.missing_policies(a.target) as p)
        from audit_private.attachment as a where a.target = check_attach.target;
end
$$;
comment on function audit_private.check_attach is
    'Checks attaching a table, for a transaction that is rolled back: raises if attaching would; '
    'locks no table and writes no function';

create or replace function audit_private.attach_given(
    target regclass, kind text, given jsonb, attempts int default 20
) returns void
-- Its queries of the catalogs take the planner longer than the executor.
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '60s'
set plan_cache_mode = force_generic_plan
as $$
declare
    _id int;
begin
    -- Writers do not wait for this lock, but they wait for those on the tables.
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    perform set_config('lock_timeout', '5s', true);
    perform audit_private.leave_former(attach_given.target);
    if exists (select from audit_private.attachment as a where a.target = attach_given.target) then
        -- An event records the broken state before it is fixed.
        perform audit.attest(attach_given.target);
    end if;
    perform audit_private.prepare_attach(
        attach_given.target, attach_given.kind, attach_given.given);
    if attach_given.kind <> 'admin' then
        _id := (
            select a.id from audit_private.attachment as a where a.target = attach_given.target);
    end if;
    -- The slow part is done. From here to the commit, writers wait if a trigger must be fixed.
    perform audit_private.lock_for_attach(attach_given.target, _id, attach_given.attempts);
    perform audit_private.create_policy(p)
    from audit_private.missing_policies(attach_given.target) as p;
    if _id is not null then
        perform audit_private.create_triggers(attach_given.target, _id);
        insert into audit_private.request (verb, target, kind)
        values ('close', attach_given.target, attach_given.kind);
    end if;
    perform audit.attest(attach_given.target);
end
$$;
comment on function audit_private.attach_given is
    'Attaches a table with its options in an object, for audit.attach and audit.reattach';

create or replace function audit.attach(
    target regclass,
    kind text,
    organization text default null,
    target_id text default null,
    subject text default null,
    role text default null,
    alive text default null,
    admin text default null,
    parent text default null,
    ignore text[] default null,
    redact text[] default null,
    email text default null,
    password text default null,
    two_factor text default null,
    token text default null
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    perform audit_private.attach_given(target, kind, jsonb_strip_nulls(jsonb_build_object(
        'organization', attach.organization, 'target_id', attach.target_id,
        'subject', attach.subject, 'role', attach.role, 'alive', attach.alive,
        'admin', attach.admin, 'parent', attach.parent,
        'ignore', to_jsonb(attach.ignore), 'redact', to_jsonb(attach.redact),
        'email', attach.email, 'password', attach.password, 'two_factor', attach.two_factor,
        'token', attach.token
    )));
end
$$;
comment on function audit.attach is
    'Captures every change of a table from now on, or changes how its rows map to events. '
    'Each option is a column or an SQL expression over the row r; '
    'ignore and redact are lists of columns. Kind admin, for a view or table, captures nothing: '
    'its rows name the users who may read an organisation';

create or replace function audit_private.forget(target regclass) returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    insert into audit_private.request (verb, target) values ('detach', forget.target);
$$;
comment on function audit_private.forget is
    'Removes the mapping of a table whose triggers are gone';

create or replace function audit_private.capture_triggers(target regclass)
returns setof pg_trigger
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select t.* from pg_trigger as t
    where (t.tgrelid = capture_triggers.target
            or t.tgrelid in (select relid from pg_partition_tree(capture_triggers.target)))
        and not t.tgisinternal and t.tgparentid = 0
        and t.tgname in ('auditdb_insert', 'auditdb_update', 'auditdb_delete', 'auditdb_truncate');
$$;
comment on function audit_private.capture_triggers is
    'The capture triggers of a table, and those of its partitions that do not come from the table';

create or replace function audit_private.lock_for_detach(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _relations regclass[];
begin
    select array_agg(l.relation) into _relations
    from audit_private.trigger_locks(target, 'access exclusive') as l
    where exists (select from audit_private.capture_triggers(target));
    -- A policy may be dropped with it.
    _relations := _relations || array(
        select c.oid::regclass
        from audit_private.attachment as a
            cross join jsonb_object_keys(a.mapping #> '{checked,reads}') as r
            join pg_class as c on c.oid = to_regclass(r) and pg_has_role(c.relowner, 'usage')
            join pg_policy as p on p.polrelid = c.oid and p.polname = 'auditdb_mapper'
        where a.target = lock_for_detach.target and c.oid <> all (coalesce(_relations, '{}'))
            and not exists (
                select from audit_private.attachment as o
                where o.target <> a.target and o.mapping #> '{checked,reads}' ? r));
    if _relations <> '{}' then
        perform audit_private.lock_together(
            _relations, array_fill('access exclusive'::text, array[cardinality(_relations)]));
    end if;
end
$$;
comment on function audit_private.lock_for_detach is
    'Takes every lock that detaching a table needs, at once';

-- Only what attaching granted, if no other mapping reads it and the caller may revoke it.
create or replace function audit_private.close_lookups(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _relation regclass;
    _columns text;
    _is_read boolean;
begin
    for _relation, _columns, _is_read in
        select r.key::regclass, string_agg(quote_ident(c.name), ', ')
                filter (where not coalesce(others.reads ? c.name, false)), others.reads is not null
        from audit_private.attachment as a
            cross join jsonb_each(a.mapping #> '{checked,reads}') as r
            join pg_class as k on k.oid = to_regclass(r.key) and pg_has_role(k.relowner, 'usage')
            cross join jsonb_array_elements_text(r.value) as c (name)
            left join lateral (
                select jsonb_agg(o_column) as reads
                from audit_private.attachment as o
                    cross join jsonb_array_elements_text(
                        o.mapping #> array['checked', 'reads', r.key]) as o_column
                where o.id <> a.id
            ) as others on true
        where a.target = close_lookups.target
            and has_column_privilege('audit_mapper', k.oid, c.name, 'select')
        group by r.key, others.reads
    loop
        if _columns is not null then
            execute format('revoke select (%s) on %s from audit_mapper', _columns, _relation);
        end if;
        if not _is_read and exists (
            select from pg_policy where polrelid = _relation and polname = 'auditdb_mapper')
        then
            execute format('drop policy auditdb_mapper on %s', _relation);
        end if;
    end loop;
end
$$;
comment on function audit_private.close_lookups is
    'Revokes from audit_mapper what it could read only for the mapping of this table';

create or replace function audit.detach(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '60s'
as $$
declare
    _trigger record;
begin
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    perform set_config('lock_timeout', '5s', true);
    perform audit_private.lock_for_detach(detach.target);
    for _trigger in
        select t.tgname, t.tgrelid::regclass as relation
        from audit_private.capture_triggers(detach.target) as t
    loop
        execute format('drop trigger %I on %s', _trigger.tgname, _trigger.relation);
    end loop;
    perform audit_private.close_lookups(detach.target);
    perform audit_private.forget(detach.target);
    perform audit.attest(detach.target);
end
$$;
comment on function audit.detach is
    'Ends the capture of a table. Its events stay, and an event records the end';
