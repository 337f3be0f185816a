-- The end of an install: the installing role stops acting as audit_owner, attaches tables again
-- whose grants or triggers a restore lost, and gets its former settings back.

do $$
declare
    _before jsonb := current_setting('auditdb.before')::jsonb;
begin
    perform set_config('role', _before ->> 'role', true);
    if exists (
        select from pg_auth_members
        where roleid = 'audit_owner'::regrole and member = quote_ident(current_user)::regrole
            and grantor = member
    ) then
        execute format('revoke audit_owner from %I', current_user);
    end if;
end
$$;

-- Runs as the installing role, which owns the tables: attaching grants audit_mapper access to them.
do $$
declare
    _target regclass;
begin
    if current_setting('auditdb.restored_by') = '' then
        return;
    end if;
    for _target in
        select a.target from audit_private.attachment as a join pg_class as c on c.oid = a.target
        where pg_has_role(c.relowner, 'usage')
            -- A disabled trigger does not come from a restore: audit.doctor() reports it.
            and not exists (
                select from pg_trigger as t
                where (t.tgrelid = a.target
                        or t.tgrelid in (select relid from pg_partition_tree(a.target)))
                    and t.tgname in ('auditdb_insert', 'auditdb_update', 'auditdb_delete',
                        'auditdb_truncate')
                    and not t.tgisinternal and t.tgenabled <> 'A')
        order by a.id
    loop
        begin
            perform audit.reattach(_target);
        exception when others then
            null;  -- audit.doctor() says what is wrong with it
        end;
        perform audit.attest(_target);
    end loop;
    perform audit.attest('audit.event');
end
$$;

do $$
declare
    _before jsonb := current_setting('auditdb.before')::jsonb;
begin
    perform set_config(name, '', true)
    from unnest('{auditdb.before,auditdb.restored_by,auditdb.written}'::text[]) as name;
    perform set_config(key, value, true) from jsonb_each_text(_before) where key <> 'role';
end
$$;
