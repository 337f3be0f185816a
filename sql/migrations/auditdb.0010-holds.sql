-- Legal holds, and how far back the viewers of an organisation see: evidence/hold.sql,
-- read/visible.sql.

create table if not exists audit.legal_hold (
    organization_id text collate "C" not null
        constraint organization_id_is_not_empty check (organization_id <> ''),
    reason text collate "C" not null
        constraint reason_is_told_in_200_characters check (length(reason) between 1 and 200),
    held_at timestamptz not null default now(),
    held_by text not null default session_user,
    primary key (organization_id, reason)
);
comment on table audit.legal_hold is
    'The organisations under legal hold: retention drops no month that holds their events';
comment on column audit.legal_hold.organization_id is 'Whose events are kept';
comment on column audit.legal_hold.reason is
    'Why, such as the number of a case; an organisation may be held for several reasons';
comment on column audit.legal_hold.held_at is 'Since when';
comment on column audit.legal_hold.held_by is 'session_user of that moment';

create table if not exists audit.visible_retention (
    organization_id text collate "C" primary key
        constraint organization_id_is_not_empty check (organization_id <> ''),
    keep interval not null
        constraint keep_is_an_hour_to_a_thousand_years
            check (keep between interval '1 hour' and interval '1000 years'),
    set_at timestamptz not null default now(),
    set_by text not null default session_user
);
comment on table audit.visible_retention is
    'How far back the viewers of an organisation see; without a row, all that there is';
comment on column audit.visible_retention.organization_id is 'Whose viewers';
comment on column audit.visible_retention.keep is 'Older events are hidden from them';
comment on column audit.visible_retention.set_at is 'When it was last said';
comment on column audit.visible_retention.set_by is 'session_user of that moment';
