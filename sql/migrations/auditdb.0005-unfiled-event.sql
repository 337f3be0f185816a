-- What is put aside has the whole event: capture/late.sql. A writer may come from before.

alter table audit_private.unfiled
    add column if not exists event jsonb,
    add column if not exists old_values jsonb,
    add column if not exists new_values jsonb,
    add column if not exists details jsonb,
    add column if not exists transaction_id xid8,
    add column if not exists is_first boolean not null default true;
create index if not exists unfiled_transaction_id_idx
    on audit_private.unfiled (transaction_id);
comment on column audit_private.unfiled.event is 'The event, but for its values and details';
comment on column audit_private.unfiled.old_values is 'Its values before';
comment on column audit_private.unfiled.new_values is 'Its values after';
comment on column audit_private.unfiled.details is 'Its details';
comment on column audit_private.unfiled.transaction_id is 'Whose commit is waited for';
comment on column audit_private.unfiled.is_first is
    'Whether the trigger waits for the commit: it then takes all of the transaction';
