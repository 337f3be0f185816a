-- Stale functions: what an older release defined and this one does not, or defines otherwise.
-- Runs first, after the declarations of this release's functions (without bodies, under names that
-- begin with "declared"). drop_stale.sql drops in the end what is renamed here.
-- Renamed and not dropped at once: functions that the routines are about to replace depend on it.

do $$
declare
    _stale regprocedure;
    _declared text;
    _is_ours boolean;
begin
    for _stale, _is_ours in
        select p.oid, pg_catalog.pg_has_role(p.proowner, 'usage')
        from pg_catalog.pg_proc as p
        where p.pronamespace = any ('{audit,audit_private}'::regnamespace[])
            and p.proname !~ '^(declared|stale) '
            -- Generated ones belong to their table.
            and not exists (
                select from audit_private.attachment as a
                where p.proname ~ ('^(capture|read|organization|admin)_' || a.id || '(_[a-z]+)?$')
            )
            -- Those that "create or replace" takes as they are.
            and not exists (
                select from pg_catalog.pg_proc as d
                where d.pronamespace = p.pronamespace and d.proname = 'declared ' || p.proname
                    and d.prokind = p.prokind and d.proargtypes = p.proargtypes
                    and d.proretset = p.proretset and d.prorettype = p.prorettype
                    and d.proallargtypes is not distinct from p.proallargtypes
                    and d.proargmodes is not distinct from p.proargmodes
                    and d.proargnames is not distinct from coalesce(p.proargnames, d.proargnames)
                    and d.pronargdefaults >= p.pronargdefaults
            )
    loop
        execute case when _is_ours
            then pg_catalog.format('alter routine %s rename to %I', _stale, 'stale ' || _stale::oid)
            else pg_catalog.format('drop routine %s', _stale) end;
    end loop;
    select pg_catalog.string_agg(oid::regprocedure::text, ', ') into _declared
    from pg_catalog.pg_proc
    where pronamespace = any ('{audit,audit_private}'::regnamespace[]) and proname ~ '^declared ';
    if _declared is not null then
        execute 'drop function ' || _declared;
    end if;
end
$$;
