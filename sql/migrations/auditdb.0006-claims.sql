-- Settings of other tools that say who acts: context/claims.sql.

alter table audit_private.installation
    add column if not exists context_from text[] not null default '{}';
comment on column audit_private.installation.context_from is
    'Settings that say who acts where auditdb.context is unset; see audit.read_context_from()';
