-- Stale functions: those of an older release that this one lacks or defines otherwise. They could
-- make a call ambiguous. This runs before the routines and renames them; drop_stale.sql drops them
-- in the end. They cannot be dropped at once,
-- because functions that the routines will replace depend on them.

do $$
declare
    _stale regprocedure;
    _is_ours boolean;
begin
    for _stale, _is_ours in
        select p.oid, pg_catalog.pg_has_role(p.proowner, 'usage')
        from pg_catalog.pg_proc as p
        where p.pronamespace = any ('{audit,audit_private}'::regnamespace[])
            -- Generated functions belong to their table: the attached one or, if a restore lost the
            -- attachment, the one whose triggers call them.
            and not exists (
                select from (
                    select a.id::text from audit_private.attachment as a
                    union
                    select substring(
                        t.tgfoid::regproc::text from '^audit_private[.]capture_([0-9]+)_')
                    from pg_catalog.pg_trigger as t
                ) as a (id)
                where p.proname ~ format(
                    '^(capture|baseline|image|fall_back|read|organization|admin)_%s'
                        '(_[a-z]+)?$', a.id)
            )
            -- The same names as in audit_private.standing_functions().
            and not exists (
                select from audit_private.release as r
                where r.kind = 'function' and r.name = pg_catalog.format('%s.%I(%s) returns %s',
                    p.pronamespace::regnamespace, p.proname,
                    pg_catalog.pg_get_function_arguments(p.oid),
                    pg_catalog.pg_get_function_result(p.oid))
            )
    loop
        execute case when _is_ours
            then pg_catalog.format('alter routine %s rename to %I', _stale, 'stale ' || _stale::oid)
            else pg_catalog.format('drop routine %s', _stale) end;
    end loop;
end
$$;
