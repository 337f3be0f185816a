-- What is put aside has the whole event: capture/late.sql. A writer may come from before.

alter table audit_private.unfiled
    add column if not exists event jsonb,
    add column if not exists old_values jsonb,
    add column if not exists new_values jsonb,
    add column if not exists details jsonb;
comment on column audit_private.unfiled.event is 'The event, but for its values and details';
comment on column audit_private.unfiled.old_values is 'Its values before';
comment on column audit_private.unfiled.new_values is 'Its values after';
comment on column audit_private.unfiled.details is 'Its details';
