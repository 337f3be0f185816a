-- The secret of the installation, and the requests by which a table's owner has it attached.
-- Every statement may meet its own result: yoyo commits a migration and its mark apart.

create table if not exists audit.installation (
    secret text not null,
    installed_at timestamptz not null default now()
);
comment on table audit.installation is
    'One row: what makes this installation its own; readable by no login role';
comment on column audit.installation.secret is 'Key of the digests that stand for secrets';
comment on column audit.installation.installed_at is 'When it was first installed';

create table if not exists audit.request (
    verb text not null,
    target regclass not null,
    kind text,
    given jsonb
);
comment on table audit.request is
    'Always empty: an INSERT asks for a table to be attached or detached, and is carried out';
comment on column audit.request.verb is 'attach, close or detach';
comment on column audit.request.target is 'The table';
comment on column audit.request.kind is 'Prefix of its actions: membership, api_key, workflow, ...';
comment on column audit.request.given is 'Options of audit.attach, as given';
