-- Gone: mappings of dropped tables, and tables that were renamed. No mapping may ever apply to
-- another table that gets the same oid or name.

-- Another table may get the oid, and with it the attestation of the dropped one.
create or replace function audit_private.disown_gone() returns void
language sql volatile set search_path = pg_catalog, pg_temp
as $$
    with gone as (
        select a.id, a.target from audit_private.attachment as a
        where a.target is not null and not audit_private.is_there(a.target, a.row_type)
    ), closed as (
        insert into audit_private.attestation (occasion, scope, kind, relation, name, fact)
        select 'detach', t.scope, t.kind, t.relation, t.name, null
        from gone cross join lateral audit_private.attested(gone.target) as t
    )
    update audit_private.attachment as a set target = null, row_type = null
    from gone where gone.id = a.id;
$$;
comment on function audit_private.disown_gone is
    'Removes the oid from mappings whose table was dropped';

-- If another table has the name now, it is not captured although somebody asked for it. The mapping
-- is kept until that table is attached.
create or replace function audit_private.forget_gone() returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    _id int;
begin
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    perform audit_private.refuse_restored();
    perform audit_private.disown_gone();
    for _id in
        select a.id from audit_private.attachment as a
        where a.target is null and not exists (
            select from cast(audit_private.table_of(a.name) as oid) as t
            where t is not null
                and not exists (select from audit_private.attachment as o where o.target = t))
        order by a.id
    loop
        begin
            perform audit_private.remove_attachment(_id, '{"gone": true}');
        exception when dependent_objects_still_exist then
            null;  -- A trigger on another table calls its functions, which is a finding.
        end;
    end loop;
end
$$;
-- Definer: the mappings belong to audit_owner. It removes only those that capture nothing.
comment on function audit_private.forget_gone is
    'Removes the mappings of dropped tables, and records an event for each';

-- A table that had the name before stays captured, under its present name.
create or replace function audit_private.claim_name(target regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _name text := audit_private.table_name(target);
    _other audit_private.attachment;
begin
    perform audit_private.forget_gone();
    for _other in
        select * from audit_private.attachment as a
        where a.name = _name and a.target is distinct from claim_name.target
        order by a.id
    loop
        if _other.target is null then
            perform audit_private.remove_attachment(_other.id, '{"gone": true}');
        else
            perform audit_private.answer_for(_other.target, 'attach', '{table}');
        end if;
    end loop;
end
$$;
comment on function audit_private.claim_name is
    'Gives the name of a table to its own mapping: a dropped table of that name loses its mapping, '
    'a renamed one gets its present name';

-- For a mapping file that still uses the former name.
create or replace function audit_private.present_name(former text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select audit_private.table_name(a.target)
    from audit_private.attachment as a
        left join audit_private.attestation as t on t.scope = a.target and t.kind = 'table'
            and t.fact ->> 'on' = present_name.former
    where audit_private.is_there(a.target, a.row_type)
        and (a.name = present_name.former or t.id is not null)
        and audit_private.table_name(a.target) <> present_name.former
    order by t.id desc nulls last limit 1
);
comment on function audit_private.present_name is
    'The present name of an attached table by a former name, quoted as in SQL; null if unknown';
