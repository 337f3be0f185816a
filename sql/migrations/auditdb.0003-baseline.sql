-- How far the baseline of an attached table is.

alter table audit_private.attachment add column if not exists baseline jsonb;
comment on column audit_private.attachment.baseline is
    'How far audit.baseline() is: rows, since when, after which key; null where it never ran';
