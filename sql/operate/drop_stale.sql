-- Stale functions, which set_aside.sql renamed before the routines, are dropped once no function of
-- this release calls them.

do $$
declare
    _stale text;
begin
    select string_agg(oid::regprocedure::text, ', ') into _stale
    from pg_proc
    where pronamespace = any ('{audit,audit_private}'::regnamespace[])
        and proname ~ '^stale [0-9]+$';
    if _stale is not null then
        execute 'drop routine ' || _stale;
    end if;
end
$$;
