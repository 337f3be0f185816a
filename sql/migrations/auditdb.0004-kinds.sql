-- Kinds: what the rows of an attached table are, and what their changes are called.

create table if not exists audit.kind (
    name text primary key,
    description text not null,
    target_type text not null,
    verbs jsonb not null,
    facts jsonb not null,
    options text[] not null,
    subject text,
    target text,
    credentials boolean,
    is_built_in boolean not null default false
);
comment on table audit.kind is
    'What the rows of an attached table may be: auditdb''s own kinds, and those of the application';
comment on column audit.kind.name is 'What audit.attach is told, such as membership';
comment on column audit.kind.description is 'What a row is, in plain words';
comment on column audit.kind.target_type is 'What events of the kind are about, in audit.event';
comment on column audit.kind.verbs is
    'Actions of rows that are created, updated, deleted, and of a role that changed';
comment on column audit.kind.facts is
    'Columns whose update is an event of its own, and its action';
comment on column audit.kind.options is 'The options of audit.attach that the kind understands';
comment on column audit.kind.subject is
    'The user that an event is about: row, the row itself; column, whom a column names; null, nobody';
comment on column audit.kind.target is
    'subject where the user is what was changed; null where the row is';
comment on column audit.kind.credentials is
    'Whether a column is redacted that is not known to be harmless; null: by the names of the table';
comment on column audit.kind.is_built_in is
    'Whether auditdb brings it: then audit.define_kind does not change it';
