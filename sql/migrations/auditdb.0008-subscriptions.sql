-- Subscriptions of the export, and the events that a sink refused: export/subscription.sql.

create table if not exists audit.subscription (
    name text collate "C" primary key
        constraint name_is_short_and_plain check (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    created_at timestamptz not null default now(),
    created_by text not null default session_user,
    organization_id text,
    actions text[],
    categories text[],
    results text[],
    conditions text[],
    at_least int,
    within interval,
    per text,
    sink text not null,
    format text not null,
    options jsonb not null default '{}',
    state text not null default 'active'
        constraint state_is_known check (state in ('active', 'paused', 'failed', 'lapsed')),
    problem text,
    problem_at timestamptz,
    tick_id bigint not null default 0,
    part jsonb,
    pending jsonb,
    counts jsonb,
    exporter int,
    delivered bigint not null default 0,
    missed bigint not null default 0,
    served_at timestamptz not null default now(),
    lapses_after interval not null default '30 days',
    made_by text,
    start_id bigint,
    constraint a_stream_is_of_an_organization
        check (made_by is null or organization_id is not null and start_id is not null),
    constraint lists_have_one_dimension check (
        greatest(array_ndims(actions), array_ndims(categories), array_ndims(results),
            array_ndims(conditions)) = 1)
);
comment on table audit.subscription is
    'Who gets the events of the log: which of them, where to, and how far it came. No secrets';
comment on column audit.subscription.name is 'What the commands call it';
comment on column audit.subscription.created_at is 'When it was made';
comment on column audit.subscription.created_by is 'session_user of that moment';
comment on column audit.subscription.organization_id is
    'Events of this organisation alone; null for those of all, and of none';
comment on column audit.subscription.actions is 'Events of these actions alone; null for all';
comment on column audit.subscription.categories is 'Events of these categories alone; null for all';
comment on column audit.subscription.results is 'Events of these results alone; null for all';
comment on column audit.subscription.conditions is
    'Events for which all of these hold: COLUMN=VALUE or COLUMN!=VALUE; null for all';
comment on column audit.subscription.at_least is
    'The event alone with which there are so many within the time; null for each';
comment on column audit.subscription.within is 'The time in which they occur';
comment on column audit.subscription.per is
    'They are counted for each value of this column; null for all together';
comment on column audit.subscription.sink is 'Where they go: an address without secrets';
comment on column audit.subscription.format is 'jsonl, ocsf, cloudevents or csv';
comment on column audit.subscription.options is 'What else is said of the sink';
comment on column audit.subscription.state is
    'active; paused by a person; failed where one has to mend something; lapsed where nobody '
    'served it for long, so that retention waits for it no more';
comment on column audit.subscription.problem is 'What last came in the way; null once it is over';
comment on column audit.subscription.problem_at is 'When it last did';
comment on column audit.subscription.tick_id is 'The last tick that was taken as a whole; 0: none';
comment on column audit.subscription.part is
    'How far a larger tick was taken: its number, time and id of the last event, number of parts';
comment on column audit.subscription.pending is
    'The batch that is on its way, committed before it goes: what is sent again is the same';
comment on column audit.subscription.counts is
    'Of a threshold: when the last events occurred, up to where it was taken, for each value';
comment on column audit.subscription.exporter is
    'Who sends it: the lock that this process holds as long as it lives';
comment on column audit.subscription.delivered is 'How many events the sink took';
comment on column audit.subscription.missed is
    'How many events were dropped before they were looked at, by maintenance that was forced';
comment on column audit.subscription.served_at is
    'When it was last known to have all that there was';
comment on column audit.subscription.lapses_after is 'It lapses when it was not served for so long';
comment on column audit.subscription.made_by is
    'Of a stream: the admin of the organisation who made it; null where an auditor did';
comment on column audit.subscription.start_id is
    'Of a stream: first event of the organisation, so that none that gets its identifier has it';

create table if not exists audit_private.set_aside (
    subscription text collate "C" not null
        constraint it_is_of_a_subscription references audit.subscription (name) on delete cascade,
    tick_id bigint not null,
    event_id bigint not null,
    occurred_at timestamptz not null,
    set_aside_at timestamptz not null default now(),
    problem text not null,
    primary key (subscription, tick_id, event_id)
);
comment on table audit_private.set_aside is
    'Events that a sink refused, whatever was tried; they stay in the log';
comment on column audit_private.set_aside.subscription is 'Whose sink it was';
comment on column audit_private.set_aside.tick_id is 'The tick of the event';
comment on column audit_private.set_aside.event_id is 'The event, within the series of that tick';
comment on column audit_private.set_aside.occurred_at is 'When the event occurred';
comment on column audit_private.set_aside.set_aside_at is 'When the sink refused it';
comment on column audit_private.set_aside.problem is 'What the sink said';
