-- The canonical bytes of an event, for export, seal and archive. docs/export.md defines them;
-- auditdb/export/canonical.py builds the same bytes.

create or replace function audit_private.canonical_time(occurred_at timestamptz) returns text
language sql stable
return coalesce(
    to_char(canonical_time.occurred_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
        || case when canonical_time.occurred_at < '0001-01-01 00:00:00+00'::timestamptz
            then ' BC' else '' end,
    -- For infinity, only its name.
    canonical_time.occurred_at::text);
comment on function audit_private.canonical_time is
    'A time as audit.canonical writes it: UTC, six digits, Z; followed by BC before Christ';

-- Joined by hand: row_to_json would need a type for each version, at no gain. PL/pgSQL, because a
-- parsed body would depend on the columns of the log, and install could not alter them.
create or replace function audit.canonical(event audit.event, series uuid) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    return '{"version":1,"series":' || coalesce(to_json(canonical.series)::text, 'null')
        || ',"id":"' || event.id::text
        || '","occurred_at":"' || audit_private.canonical_time(event.occurred_at)
        || '","transaction_id":"' || event.transaction_id::text || '"'
        || ',"action":' || coalesce(to_json(event.action)::text, 'null')
        || ',"result":' || coalesce(to_json(event.result)::text, 'null')
        || ',"actor_id":' || coalesce(to_json(event.actor_id)::text, 'null')
        || ',"actor_type":' || coalesce(to_json(event.actor_type)::text, 'null')
        || ',"impersonator_id":' || coalesce(to_json(event.impersonator_id)::text, 'null')
        || ',"db_user":' || coalesce(to_json(event.db_user)::text, 'null')
        || ',"db_role":' || coalesce(to_json(event.db_role)::text, 'null')
        || ',"organization_id":' || coalesce(to_json(event.organization_id)::text, 'null')
        || ',"target_type":' || coalesce(to_json(event.target_type)::text, 'null')
        || ',"target_id":' || coalesce(to_json(event.target_id)::text, 'null')
        || ',"subject_id":' || coalesce(to_json(event.subject_id)::text, 'null')
        || ',"source":' || coalesce(to_json(event.source)::text, 'null')
        || ',"captured_from":' || coalesce(to_json(event.captured_from)::text, 'null')
        || ',"old_values":' || coalesce(event.old_values::text, 'null')
        || ',"new_values":' || coalesce(event.new_values::text, 'null')
        || ',"details":' || coalesce(event.details::text, 'null')
        || '}';
end
$$;
comment on function audit.canonical is
    'The canonical bytes of an event, version 1: a line of JSON that does not depend on settings '
    'of the session. series is the key of the series of its transaction';
