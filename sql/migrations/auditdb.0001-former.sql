-- An installation of before there was a schema audit_private is brought to the layout of 0002, with
-- all that it holds. In a new database there is nothing to do.

do $$
declare
    _moved text;
begin
    if pg_catalog.to_regclass('audit.attachment') is null then
        return;
    end if;
    foreach _moved in array '{attachment,attestation,signing_key}'::text[] loop
        execute pg_catalog.format('alter table audit.%I set schema audit_private', _moved);
    end loop;
    if pg_catalog.to_regtype('audit.fact') is not null then
        alter type audit.fact set schema audit_private;
    end if;
    -- By their oids triggers, policies and defaults go on to call them.
    for _moved in
        select pg_catalog.format('%I.%I(%s)', 'audit', proname,
            pg_catalog.pg_get_function_identity_arguments(oid))
        from pg_catalog.pg_proc
        where pronamespace = 'audit'::regnamespace and proname <> all (
            '{attach,attest,clear_context,create_key,current_context,define_action,detach,doctor,'
            'list_keys,list_members,list_partitions,list_tables,maintain,reattach,record_event,'
            'set_context,version,viewer_organization}')
    loop
        execute pg_catalog.format('alter routine %s set schema audit_private', _moved);
    end loop;
    drop type if exists audit.image cascade;
    alter table audit_private.attachment
        alter column target drop not null,
        alter column target type oid,
        add column name text,
        add column row_type oid;
    update audit_private.attachment as a
    set row_type = (select c.reltype from pg_catalog.pg_class as c where c.oid = a.target),
        name = coalesce((
            select pg_catalog.format('%I.%I', n.nspname, c.relname)
            from pg_catalog.pg_class as c
                join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
            where c.oid = a.target
        ), (
            select t.fact ->> 'on' from audit_private.attestation as t
            where t.scope = a.target and t.kind = 'table' and t.fact is not null
            order by t.id desc limit 1
        ), pg_catalog.format('%I', a.target::text));
    alter table audit_private.attachment alter column name set not null;
    alter table audit_private.attestation
        alter column scope type oid, alter column relation type oid;
    alter table audit.action add column is_built_in boolean not null default false;
    delete from audit_private.migration where migration_id = 'auditdb.0001-event-store';
end
$$;
