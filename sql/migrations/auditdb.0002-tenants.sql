-- Tenants that come and go: since which event an organisation is the present one.
-- And which actions are auditdb's own, to keep what they mean.
-- Collations and statistics of audit.event are no step of their own: audit.furnish_columns (12).

create table if not exists audit.organization_start (
    organization_id text collate "C" not null,
    first_id bigint not null default nextval('audit.event_id_seq'),
    started_at timestamptz not null default clock_timestamp(),
    primary key (organization_id, first_id)
);
comment on table audit.organization_start is
    'Since which event an organisation is the present one of its id. Append-only: the highest counts';
comment on column audit.organization_start.organization_id is
    'Identifier of the organisation; it may have been that of another before';
comment on column audit.organization_start.first_id is
    'Events of lower id are a former organisation''s: viewers of this one do not see them';
comment on column audit.organization_start.started_at is
    'When its row was inserted, by the clock of the server';

-- From the events of tables of organisations that were attached before there was this table.
insert into audit.organization_start (organization_id, first_id, started_at)
select distinct on (e.organization_id) e.organization_id, e.id, e.occurred_at
from audit.event as e
    join audit.attachment as a on e.target_type = a.mapping ->> 'target_type'
        and e.action = a.mapping -> 'verbs' ->> 'born'
        and a.mapping ->> 'organization' = a.mapping ->> 'target_id'
where e.captured_from is not null and e.organization_id = e.target_id
    and e.old_values is null and e.new_values is not null
    and not exists (
        select from audit.organization_start as s where s.organization_id = e.organization_id
    )
order by e.organization_id, e.id desc;

alter table audit.action add column if not exists is_built_in boolean not null default false;
comment on column audit.action.is_built_in is
    'Whether auditdb itself brings it: then audit.define_action does not describe it anew';
