-- Attach and detach: which tables are captured, and how their rows map to events.
-- Run by the table's owner, who creates the triggers; the rest happens as audit_owner.

create or replace function audit.refuse_target(target regclass, kind text) returns void
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
    if _class.relnamespace in ('audit'::regnamespace, 'pg_catalog'::regnamespace) then
        _problem := 'a table of the log or of the system';
        _hint := 'Attach the tables of your application.';
    elsif refuse_target.kind = 'admin' then
        if _class.relkind not in ('r', 'p', 'v', 'm') then
            _problem := 'neither a table nor a view';
        end if;
    elsif _class.relkind in ('v', 'm') then
        _problem := 'a view, and a view has no rows of its own';
        _hint := 'Attach the tables beneath it.';
    elsif _class.relkind = 'f' then
        _problem := 'a foreign table, whose changes on the other server no trigger here can see';
        _hint := 'Attach the table on its own server.';
    elsif _class.relkind not in ('r', 'p') then
        _problem := 'not a table';
    elsif _class.relpersistence = 't' then
        _problem := 'a temporary table';
    elsif _class.relispartition then
        _problem := 'a partition';
        _hint := 'Attach the partitioned table; its partitions are captured with it.';
    elsif exists (
        select from pg_inherits join pg_class as c on c.oid = inhrelid
        where inhparent = refuse_target.target and not c.relispartition
            and not exists (select from audit.attachment as a where a.target = c.oid)
    ) then
        _problem := 'inherited by tables whose rows its triggers would not see';
        _hint := 'Attach the tables that inherit from it first.';
    end if;
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
comment on function audit.refuse_target(regclass, text) is
    'Raises if the object cannot be captured, or is not the caller''s to attach';

-- What follows runs as audit_owner, to whom every table is open: the login must own this one.
create or replace function audit.refuse_stranger(target regclass) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    if not (
        select pg_has_role(session_user, relowner, 'member')
        from pg_class where oid = refuse_stranger.target
    ) then
        raise exception '% does not own %', session_user, refuse_stranger.target
            using errcode = 'insufficient_privilege', hint = 'Log in as its owner.';
    end if;
end
$$;
comment on function audit.refuse_stranger(regclass) is
    'Raises if the login is no member of the table''s owner; a table that is gone is anyone''s';

create or replace function audit.save_mapping(target regclass, kind text, mapping jsonb) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _before audit.attachment;
    _id int;
    _verb text;
begin
    perform audit.refuse_stranger(save_mapping.target);
    select * into _before from audit.attachment as a where a.target = save_mapping.target;
    if (_before.kind = 'admin') <> (save_mapping.kind = 'admin') then
        raise exception '% is attached as %', save_mapping.target, _before.kind
            using errcode = 'object_in_use',
                hint = format('Detach it first: select audit.detach(%L);', save_mapping.target);
    end if;
    insert into audit.attachment as a (target, kind, mapping)
    values (save_mapping.target, save_mapping.kind, save_mapping.mapping)
    on conflict on constraint a_table_is_attached_once do update
        set kind = excluded.kind, mapping = excluded.mapping,
            attached_at = default, attached_by = default
        where (a.kind, a.mapping) is distinct from (excluded.kind, excluded.mapping)
    returning a.id into _id;
    _verb := case when _id is null then null when _before.id is null then 'attached'
        else 'remapped' end;
    _id := coalesce(_id, _before.id);

    insert into audit.action (name, description)
    select value, format('A row of kind %s %s', save_mapping.kind, case key
        when 'born' then 'came to be' when 'died' then 'ceased to be' else 'changed' end)
    from jsonb_each_text(save_mapping.mapping -> 'verbs')
    union all
    select save_mapping.kind || '.truncated',
        format('All rows of a table of kind %s were removed at once', save_mapping.kind)
    on conflict do nothing;

    if _verb = 'remapped' and _before.mapping ? 'admin' and not save_mapping.mapping ? 'admin' then
        execute format('drop function if exists audit.admin_%s', _id);
    end if;
    perform audit.generate(_id);
    if save_mapping.kind <> 'admin' then
        execute format('grant execute on function audit.capture_%s to audit_operator', _id);
    end if;
    if _verb is not null then
        perform audit.record_own(_verb, save_mapping.target::text,
            case when _before.id is not null then
                jsonb_build_object('kind', _before.kind, 'mapping', _before.mapping -> 'given') end,
            jsonb_build_object('kind', save_mapping.kind, 'mapping',
                save_mapping.mapping -> 'given'));
    end if;
    return _id;
end
$$;
-- Definer: writes to the log's own tables, which the caller cannot.
comment on function audit.save_mapping(regclass, text, jsonb) is
    'Stores a mapping and writes its functions; the part of attach that runs as audit_owner';

create or replace function audit.close_capture(id int) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _owner regrole := (
        select relowner from pg_class join audit.attachment as a on a.target = pg_class.oid
        where a.id = close_capture.id and relkind = 'p'
    );
begin
    perform audit.refuse_stranger(a.target) from audit.attachment as a
        where a.id = close_capture.id;
    execute format('revoke execute on function audit.capture_%s from audit_operator',
        close_capture.id);
    if _owner is not null then
        -- Every partition to come gets the triggers too, which takes the right to use their
        -- function.
        execute format('grant execute on function audit.capture_%s to %s', close_capture.id,
            _owner);
    end if;
end
$$;
-- Definer: once the triggers stand, nobody else may put the function on a table of their own.
comment on function audit.close_capture(int) is
    'Takes back the right to use a capture function in a trigger';

create or replace function audit.create_triggers(target regclass, id int) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _op text;
    _name text;
    _trigger pg_trigger;
    _partition regclass;
begin
    foreach _op in array array['insert', 'update', 'delete', 'truncate'] loop
        _name := 'auditdb_' || _op;
        select * into _trigger from pg_trigger
        where tgrelid = create_triggers.target and tgname = _name;
        if found and _trigger.tgfoid <> format('audit.capture_%s()', id)::regprocedure then
            execute format('drop trigger %I on %s', _name, target);
            _trigger := null;
        end if;
        if _trigger.oid is null then
            execute format('create trigger %I after %s on %s for each %s '
                'execute function audit.capture_%s()',
                _name, _op, target, case _op when 'truncate' then 'statement' else 'row' end, id);
        end if;
        if _trigger.tgenabled is distinct from 'A' or exists (
            select from pg_partition_tree(create_triggers.target) join pg_trigger on tgrelid = relid
            where tgname = _name and tgenabled <> 'A'
        ) then
            execute format('alter table %s enable always trigger %I', target, _name);
        end if;
    end loop;
    -- TRUNCATE of a partition fires no trigger of its parent.
    for _partition in
        select relid from pg_partition_tree(create_triggers.target)
        where relid <> create_triggers.target and not exists (
            select from pg_trigger
            where tgrelid = relid and tgname = 'auditdb_truncate' and tgenabled = 'A'
                and tgfoid = format('audit.capture_%s()', create_triggers.id)::regprocedure)
    loop
        execute format('drop trigger if exists auditdb_truncate on %s', _partition);
        execute format('create trigger auditdb_truncate after truncate on %s '
            'for each statement execute function audit.capture_%s()', _partition,
                create_triggers.id);
        execute format('alter table %s enable always trigger auditdb_truncate', _partition);
    end loop;
end
$$;
comment on function audit.create_triggers(regclass, int) is
    'Creates the capture triggers of a table, or those of them that are absent or not ENABLE '
    'ALWAYS';

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
    two_factor text default null
) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s'
as $$
declare
    _mapping jsonb;
    _id int;
begin
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    perform audit.refuse_target(attach.target, attach.kind);
    _mapping := audit.resolve_mapping(attach.target, attach.kind,
        jsonb_strip_nulls(jsonb_build_object(
        'organization', attach.organization, 'target_id', attach.target_id, 'subject',
            attach.subject,
        'role', attach.role, 'alive', attach.alive, 'admin', attach.admin, 'parent', attach.parent,
        'ignore', to_jsonb(attach.ignore), 'redact', to_jsonb(attach.redact),
        'email', attach.email, 'password', attach.password, 'two_factor', attach.two_factor
    )));
    perform audit.open_lookups(attach.target, _mapping);
    _id := audit.save_mapping(attach.target, attach.kind, _mapping);
    if attach.kind <> 'admin' then
        perform audit.create_triggers(attach.target, _id);
        perform audit.close_capture(_id);
    end if;
    perform audit.attest(attach.target);
end
$$;
comment on function audit.attach(regclass, text, text, text, text, text, text, text, text, text[],
    text[], text, text, text) is
    'Captures every change of a table from now on, or changes how its rows map to events. Each '
    'option '
    'is a column or an SQL expression over the row r; ignore and redact are names of columns. '
    'Kind admin, on a view or table, captures nothing: its rows name who may read which '
    'organisation';

create or replace function audit.forget(target regclass) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _a audit.attachment;
    _prefix text;
begin
    perform audit.refuse_stranger(forget.target);
    delete from audit.attachment as a where a.target = forget.target returning a.* into _a;
    if not found then
        raise exception '% is not attached', forget.target
            using errcode = 'undefined_object', hint = 'auditdb status lists what is.';
    end if;
    foreach _prefix in array array['capture', 'image', 'organization', 'admin'] loop
        execute format('drop function if exists audit.%I', _prefix || '_' || _a.id);
    end loop;
    perform audit.record_own('detached', forget.target::text,
        jsonb_build_object('kind', _a.kind, 'mapping', _a.mapping -> 'given'), null);
end
$$;
-- Definer: removes what audit_owner owns. Fails while triggers stand, so it cannot silence a table.
comment on function audit.forget(regclass) is
    'Removes the mapping and the functions of a table; the part of detach that runs as audit_owner';

create or replace function audit.detach(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp set lock_timeout = '5s'
as $$
declare
    _trigger record;
begin
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    for _trigger in
        select tgname, tgrelid::regclass as relation from pg_trigger
        where (tgrelid = detach.target
                or tgrelid in (select relid from pg_partition_tree(detach.target)))
            and not tgisinternal and tgparentid = 0
            and tgname in ('auditdb_insert', 'auditdb_update', 'auditdb_delete', 'auditdb_truncate')
    loop
        execute format('drop trigger %I on %s', _trigger.tgname, _trigger.relation);
    end loop;
    perform audit.forget(detach.target);
    perform audit.attest(detach.target);
end
$$;
comment on function audit.detach(regclass) is
    'Ends the capture of a table. What was captured stays; that it ended is itself an event';
