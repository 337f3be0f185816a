-- Ticks: closed sets of events, of which none is lost or changed later: export/tick.sql.

create table if not exists audit.series (
    id int primary key,
    key uuid not null default gen_random_uuid(),
    began text not null
        constraint began_is_installed_restored_or_continued
            check (began in ('installed', 'restored', 'continued')),
    started_at timestamptz not null default clock_timestamp(),
    system_identifier text,
    timeline int not null,
    database oid not null,
    after_id bigint not null
);
comment on table audit.series is
    'Where ticks were made: a server, its timeline and the database. Transaction ids of the log '
    'are unique from one that was installed or restored to the next such. Append-only';
comment on column audit.series.id is 'Ascending';
comment on column audit.series.key is
    'Tells series of two databases apart that were one: after a restore both count on alike';
comment on column audit.series.began is
    'installed, with the first ticks; restored, with other transaction ids; or continued, with '
    'the same: a promotion, a point-in-time recovery, a copy by TEMPLATE';
comment on column audit.series.started_at is 'When it began';
comment on column audit.series.system_identifier is
    'Of the database cluster; null where the server hides it';
comment on column audit.series.timeline is 'Timeline of the write-ahead log';
comment on column audit.series.database is 'Oid of the database';
comment on column audit.series.after_id is
    'Events of this id and below have transaction ids of before';

create table if not exists audit.tick (
    id bigint primary key,
    series_id int not null,
    made_at timestamptz not null default clock_timestamp(),
    transaction_id xid8 not null default pg_current_xact_id(),
    snapshot pg_snapshot not null,
    since timestamptz not null,
    whole_id bigint,
    lower_id bigint not null,
    upper_id bigint not null,
    events bigint not null
);
comment on table audit.tick is
    'Ticks: each holds the events that its snapshot sees and no tick before holds. Append-only';
comment on column audit.tick.id is 'Ascending without gaps, over all series';
comment on column audit.tick.series_id is 'The series that it was made in';
comment on column audit.tick.made_at is 'Clock of the server when it was made';
comment on column audit.tick.transaction_id is 'Transaction that made it';
comment on column audit.tick.snapshot is
    'Which transactions had ended; that of the tick itself never is among them';
comment on column audit.tick.since is
    'It holds events of this time and later; -infinity where it is a whole one, which is made from '
    'time to time, and takes what the clock of its moment put further back';
comment on column audit.tick.whole_id is 'The last whole tick before it; null for the first one';
comment on column audit.tick.lower_id is
    'Transactions of a higher id than its own write events of higher ids than this';
comment on column audit.tick.upper_id is 'No event that its snapshot sees has a higher id';
comment on column audit.tick.events is 'How many it holds; a tick that holds none is not kept';

create table if not exists audit.tick_month (
    tick_id bigint not null,
    month date not null,
    events bigint not null,
    first_at timestamptz not null,
    last_at timestamptz not null,
    first_id bigint not null,
    last_id bigint not null,
    primary key (tick_id, month)
);
comment on table audit.tick_month is
    'What of a tick is in one month of the log: where it is read, and how many there must be. '
    'Append-only';
comment on column audit.tick_month.tick_id is 'The tick';
comment on column audit.tick_month.month is
    'First day of the month (UTC); -infinity and infinity for times before and after all months';
comment on column audit.tick_month.events is 'How many of its events are in that month';
comment on column audit.tick_month.first_at is 'The earliest time of these';
comment on column audit.tick_month.last_at is 'The latest time of these';
comment on column audit.tick_month.first_id is 'The lowest id of these';
comment on column audit.tick_month.last_id is 'The highest id of these';
create index if not exists tick_month_month_idx on audit.tick_month (month) include (events);
