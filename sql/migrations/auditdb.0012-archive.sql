-- The archive: which months are in Parquet files elsewhere, and what is to be erased there:
-- archive/archived.sql.

create table if not exists audit.archive (
    month date primary key,
    place text not null,
    database text not null,
    state text not null default 'pending'
        constraint state_is_pending_written_verified_or_dropped
            check (state in ('pending', 'written', 'verified', 'dropped')),
    events bigint,
    bytes bigint,
    digest text,
    sha256 text,
    former_sha256 text,
    is_sealed boolean,
    began_at timestamptz not null default now(),
    verified_at timestamptz,
    dropped_at timestamptz,
    restored_at timestamptz
);
comment on table audit.archive is
    'The archived months, a Parquet file each, and how far each is';
comment on column audit.archive.month is 'First day of the month (UTC)';
comment on column audit.archive.place is 'Address below which the files are';
comment on column audit.archive.database is 'What this database is called there';
comment on column audit.archive.state is
    'pending: to be written, or again; written: what it is to be is known, and it may be there; '
    'verified: it was read back and compared; dropped: and the month has left the database';
comment on column audit.archive.events is 'How many events the file holds';
comment on column audit.archive.bytes is 'How long it is';
comment on column audit.archive.digest is 'Hash of its events in the order of time and id';
comment on column audit.archive.sha256 is 'SHA-256 of the file';
comment on column audit.archive.former_sha256 is
    'That of the file which it replaces, until it is verified';
comment on column audit.archive.is_sealed is 'Whether all of its events are sealed';
comment on column audit.archive.began_at is 'When it was first to be archived';
comment on column audit.archive.verified_at is 'When it was last read back and compared';
comment on column audit.archive.dropped_at is 'When the month left the database';
comment on column audit.archive.restored_at is
    'When it was brought back; it stays until it is asked for to go';

create table if not exists audit.archive_erasure (
    id bigint generated always as identity primary key,
    month date not null,
    subject_id text,
    organization_id text,
    reason text not null,
    asked_at timestamptz not null default now(),
    asked_by text not null default session_user,
    erasure_id bigint
);
comment on table audit.archive_erasure is
    'Erasures that archived months still wait for; a row goes when its month was rewritten';
comment on column audit.archive_erasure.id is 'Ascending';
comment on column audit.archive_erasure.month is 'The month, as in audit.archive';
comment on column audit.archive_erasure.subject_id is 'Whom it is about; null for whoever';
comment on column audit.archive_erasure.organization_id is
    'Events of this organisation alone; null for those of all';
comment on column audit.archive_erasure.reason is 'What was said of why';
comment on column audit.archive_erasure.asked_at is 'When audit.erase was called';
comment on column audit.archive_erasure.asked_by is 'session_user of that moment';
comment on column audit.archive_erasure.erasure_id is
    'The id in audit.erasure that it will have; null before its month is rewritten';

create table if not exists audit_private.restored_event (
    id bigint not null,
    occurred_at timestamptz not null,
    transaction_id xid8 not null,
    action text not null,
    result text not null,
    actor_id text,
    actor_type text not null,
    impersonator_id text,
    db_user text not null,
    organization_id text,
    target_type text,
    target_id text,
    subject_id text,
    source text not null,
    captured_from text,
    old_values jsonb,
    new_values jsonb,
    details jsonb,
    db_role text
);
comment on table audit_private.restored_event is
    'Events of a month that is brought back from its archive, before they are compared with it';
comment on column audit_private.restored_event.id is 'As in audit.event, and so are all others';
comment on column audit_private.restored_event.occurred_at is 'When';
comment on column audit_private.restored_event.transaction_id is 'In which transaction';
comment on column audit_private.restored_event.action is 'What was done';
comment on column audit_private.restored_event.result is 'With which result';
comment on column audit_private.restored_event.actor_id is 'Who did it';
comment on column audit_private.restored_event.actor_type is 'What that is';
comment on column audit_private.restored_event.impersonator_id is 'Who acted as the actor';
comment on column audit_private.restored_event.db_user is 'Who logged in';
comment on column audit_private.restored_event.organization_id is 'Whose it is';
comment on column audit_private.restored_event.target_type is 'Kind of object';
comment on column audit_private.restored_event.target_id is 'Which object';
comment on column audit_private.restored_event.subject_id is 'Whom it is about';
comment on column audit_private.restored_event.source is 'Way in';
comment on column audit_private.restored_event.captured_from is 'Table whose trigger captured it';
comment on column audit_private.restored_event.old_values is 'Values before';
comment on column audit_private.restored_event.new_values is 'Values after';
comment on column audit_private.restored_event.details is 'What else is known';
comment on column audit_private.restored_event.db_role is 'Role that was set';
