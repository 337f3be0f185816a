-- Uninstall, first part: detaches every table, and revokes everything from audit_mapper. Runs as
-- the uninstalling role, which owns the tables. The log stays as it is.

do $$
declare
    _target regclass;
begin
    for _target in
        select a.target from audit_private.attachment as a
        where audit_private.is_there(a.target, a.row_type)
        order by a.id desc
    loop
        perform audit.detach(_target);
    end loop;
end
$$;

-- Removes what is left of former attachments, and the grants that attaching made.
do $$
declare
    _command text;
    _owner oid;
    _left text[] := '{}';
begin
    for _command, _owner in
        select format('drop trigger %I on %s', t.tgname, c.oid::regclass), c.relowner
        from pg_trigger as t
            join pg_class as c on c.oid = t.tgrelid
            join pg_proc as p on p.oid = t.tgfoid
        where p.pronamespace = 'audit_private'::regnamespace and not t.tgisinternal
            and t.tgparentid = 0
            and c.relnamespace <> all ('{audit,audit_private}'::regnamespace[])
        union all
        select format('drop policy auditdb_mapper on %s', p.polrelid::regclass), c.relowner
        from pg_policy as p join pg_class as c on c.oid = p.polrelid
        where p.polname = 'auditdb_mapper'
        union all
        select format('revoke all (%s) on %s from audit_mapper',
            string_agg(quote_ident(a.attname), ', '), c.oid::regclass), c.relowner
        from pg_attribute as a join pg_class as c on c.oid = a.attrelid
        where c.relnamespace <> all ('{audit,audit_private}'::regnamespace[]) and exists (
            select from aclexplode(a.attacl) where grantee = 'audit_mapper'::regrole)
        group by c.oid, c.relowner
        union all
        select format('revoke all on table %s from audit_mapper', oid::regclass), relowner
        from pg_class
        where relnamespace <> all ('{audit,audit_private}'::regnamespace[])
            and relkind in ('r', 'p', 'v', 'm', 'f') and exists (
                select from aclexplode(relacl) where grantee = 'audit_mapper'::regrole)
        union all
        select format('revoke all on schema %I from audit_mapper', nspname), nspowner
        from pg_namespace
        where nspname not in ('audit', 'audit_private') and exists (
            select from aclexplode(nspacl) where grantee = 'audit_mapper'::regrole)
    loop
        if pg_has_role(_owner, 'usage') then
            execute _command;
        else
            _left := _left || format('left: %s may run: %s', pg_get_userbyid(_owner), _command);
        end if;
    end loop;
    perform set_config('auditdb.left', to_jsonb(_left)::text, true);
end
$$;
