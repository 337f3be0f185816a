-- Erasures: what was taken out of stored events, by whom and why: evidence/erase.sql.

create table if not exists audit.erasure (
    id bigint generated always as identity primary key,
    erased_at timestamptz not null default clock_timestamp(),
    transaction_id xid8 not null default pg_current_xact_id(),
    erased_by text not null default session_user,
    organization_id text,
    reason text not null,
    events bigint not null
);
comment on table audit.erasure is
    'Who had personal parts of events erased, and why. Not whose: that is erased, too. Append-only';
comment on column audit.erasure.id is 'Ascending; details.erased.erasure of its events';
comment on column audit.erasure.erased_at is 'Clock of the server when it was done';
comment on column audit.erasure.transaction_id is
    'Transaction that did it; the guard lets no other erase under this id';
comment on column audit.erasure.erased_by is 'session_user of that moment';
comment on column audit.erasure.organization_id is
    'Events of this organisation alone; null for those of all';
comment on column audit.erasure.reason is 'What was said of why';
comment on column audit.erasure.events is 'How many events it took';
