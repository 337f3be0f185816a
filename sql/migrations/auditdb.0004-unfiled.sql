-- Events whose organisation may be known at the commit: capture/late.sql.

create table if not exists audit_private.unfiled (
    event_id bigint not null,
    occurred_at timestamptz not null,
    late jsonb not null
);
comment on table audit_private.unfiled is
    'Always empty: an INSERT asks for an event to be looked at again when its transaction commits';
comment on column audit_private.unfiled.event_id is 'An event that no organisation was found for';
comment on column audit_private.unfiled.occurred_at is 'When it was written';
comment on column audit_private.unfiled.late is
    'Which attached table it is of, and what of the row says the organisation';
