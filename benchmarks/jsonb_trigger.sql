-- A plain trigger, after the audit-trigger of 2ndQuadrant (wiki.postgresql.org/wiki/Audit_trigger_91plus):
-- its columns and its indexes, jsonb in the place of hstore, the text of the statement left out. No
-- roles, no months, no redaction, no organisation.
create table logged_action (
    event_id bigint generated always as identity primary key,
    schema_name text not null,
    table_name text not null,
    relid oid not null,
    session_user_name text,
    action_tstamp_tx timestamptz not null,
    action_tstamp_stm timestamptz not null,
    action_tstamp_clk timestamptz not null,
    transaction_id bigint,
    application_name text,
    client_addr inet,
    client_port int,
    action text not null check (action in ('I', 'D', 'U', 'T')),
    row_data jsonb,
    changed_fields jsonb,
    statement_only boolean not null
);
create index on logged_action (relid);
create index on logged_action (action_tstamp_stm);
create index on logged_action (action);

create function log_action() returns trigger
language plpgsql security definer set search_path = pg_catalog, public
as $$
declare
    _row jsonb;
    _changed jsonb;
begin
    if tg_op = 'UPDATE' then
        if old.* is not distinct from new.* then
            return null;
        end if;
        _row := to_jsonb(old);
        -- Both images whole, which costs less than what differs.
        _changed := to_jsonb(new);
    elsif tg_op = 'DELETE' then
        _row := to_jsonb(old);
    else
        _row := to_jsonb(new);
    end if;
    insert into logged_action (
        schema_name, table_name, relid, session_user_name, action_tstamp_tx, action_tstamp_stm,
        action_tstamp_clk, transaction_id, application_name, client_addr, client_port, action,
        row_data, changed_fields, statement_only
    ) values (
        tg_table_schema, tg_table_name, tg_relid, session_user, current_timestamp,
        statement_timestamp(), clock_timestamp(), txid_current(),
        current_setting('application_name'), inet_client_addr(), inet_client_port(),
        substring(tg_op, 1, 1), _row, _changed, false
    );
    return null;
end
$$;

do $$
declare
    _table regclass;
begin
    foreach _table in array '{member,wide,seat,account,project,task,ticket}'::regclass[] loop
        execute format('create trigger log_action after insert or update or delete on %s '
            'for each row execute function log_action()', _table);
    end loop;
end
$$;
