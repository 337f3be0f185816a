-- Long work: reports progress to a client that asked for it, and ends when its client is gone.

create or replace function audit_private.report_progress(n bigint, text text default '')
returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('auditdb.progress', true) = 'on' then
        -- INFO reaches the client whatever client_min_messages is.
        raise info 'auditdb: % %', n, report_progress.text;
    end if;
end
$$;
comment on function audit_private.report_progress is
    'Reports to a client that set auditdb.progress to on how many more items are done';

create or replace function audit_private.end_with_client() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('client_connection_check_interval', '1s', true);
exception when invalid_parameter_value then
    null;  -- Not every system tells that a connection is gone.
end
$$;
comment on function audit_private.end_with_client is
    'Until the end of the transaction: a running statement ends within seconds of its client';
