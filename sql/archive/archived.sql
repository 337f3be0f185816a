-- The archive: whole months as Parquet files elsewhere. What of a month is there, which months may
-- go, and what is still to be rewritten. auditdb/archive/ writes and reads them; docs/archive.md.

-- As auditdb/archive/format.py computes it of a Parquet file.
create or replace function audit_private.digest_expression() returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'sum((''x0'' || left(encode(sha256(convert_to(' || string_agg(format(
            'coalesce(octet_length(%1$s)::text || '':'' || %1$s, ''-'')',
            case a.name when 'occurred_at'
                then '((extract(epoch from e.occurred_at) * 1000000)::bigint::text)'
                else format('(e.%I::text)', a.name) end), ' || ' order by a.n)
        || ', ''UTF8'')), ''hex''), 15))::bit(64)::bigint)'
    from unnest(array['id', 'occurred_at', 'transaction_id', 'action', 'result', 'actor_id',
        'actor_type', 'impersonator_id', 'db_user', 'organization_id', 'target_type', 'target_id',
        'subject_id', 'source', 'captured_from', 'old_values', 'new_values', 'details', 'db_role'
        ]) with ordinality as a (name, n);
$$;
comment on function audit_private.digest_expression is
    'A sum of the hashes of events e, which is the same in any order';

create or replace function audit.month_digest(month date, out events bigint, out sum numeric)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _bounds record := audit_private.month_bounds(month_digest.month);
begin
    execute format('select count(*), coalesce(%s, 0) from audit.event as e '
        'where e.occurred_at >= $1 and e.occurred_at < $2', audit_private.digest_expression())
    into events, sum using _bounds.starts, _bounds.ends;
end
$$;
comment on function audit.month_digest is
    'How many events a month of the log has, and a sum of their hashes: what its archive must have';
