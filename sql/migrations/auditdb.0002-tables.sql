-- The tables: events by month, known actions, attached tables, signing keys, the attestation.
-- Each may be there already, where 0001 brought an older installation to this layout.

create sequence if not exists audit.event_id_seq as bigint;
comment on sequence audit.event_id_seq is 'Source of audit.event.id';

-- A log that is there is left alone: to look at its index alone would keep writers waiting.
do $$
begin
    if pg_catalog.to_regclass('audit.event') is not null then
        return;
    end if;

    -- Nothing here may refuse an event: no foreign key, no check, nothing unique beyond the id.
    create table audit.event (
        id bigint not null default nextval('audit.event_id_seq'),
        occurred_at timestamptz not null default clock_timestamp(),
        transaction_id xid8 not null default pg_current_xact_id(),
        action text not null,
        result text not null,
        actor_id text,
        actor_type text not null,
        impersonator_id text,
        db_user text not null default session_user,
        organization_id text,
        target_type text,
        target_id text,
        subject_id text,
        source text not null,
        captured_from text,
        old_values jsonb,
        new_values jsonb,
        details jsonb,
        db_role text default nullif(nullif(current_setting('role'), 'none'), session_user),
        primary key (occurred_at, id)
    ) partition by range (occurred_at);

    create table audit.event_default partition of audit.event default;

    -- Pages come in its order. The last three are conditions that it answers without a look at the
    -- rows. At their longest, with 800 bytes for each but the action's 200, all six fit a third of
    -- a page.
    create index event_organization_id_idx
        on audit.event (organization_id, occurred_at desc, id desc, action, actor_id, target_id);
end
$$;

comment on table audit.event is
    'The log: one row for each event, append-only, by month, guarded by row-level security';
comment on column audit.event.id is
    'Ascending in the order in which events were written, with gaps where transactions rolled back';
comment on column audit.event.occurred_at is 'Clock of the server when the event was written';
comment on column audit.event.transaction_id is
    'Transaction that made the change; events of one transaction belong together';
comment on column audit.event.action is 'What was done, as category.verb; see audit.action';
comment on column audit.event.result is 'success, failure or denied';
comment on column audit.event.actor_id is
    'Who did it, as claimed by the context; the database role where no context was set';
comment on column audit.event.actor_type is
    'user, api_key, system; database where no context was set';
comment on column audit.event.impersonator_id is 'The administrator who acted as the actor, if any';
comment on column audit.event.db_user is
    'session_user: the role that logged in to the database. No client can claim it';
comment on column audit.event.organization_id is
    'Organisation (tenant) that it belongs to; its admins and owners may read it';
comment on column audit.event.target_type is
    'Kind of object it was done to: membership, api_key, ...';
comment on column audit.event.target_id is 'Identifier of that object';
comment on column audit.event.subject_id is
    'The user it is about: the member, the owner of the key';
comment on column audit.event.source is
    'Way in: web, api, saml, oauth, scim, cli, system, ...; sql where no context was set';
comment on column audit.event.captured_from is
    'Table whose trigger captured it; null for an event that was recorded by a call';
comment on column audit.event.old_values is
    'Values before: of changed columns for an update, of the whole row for a delete';
comment on column audit.event.new_values is
    'Values after: of changed columns for an update, of the whole row for an insert';
comment on column audit.event.details is
    'What else is known: ip, user_agent, request_id, reason, ...; degraded where detail was lost';
do $$
begin
    -- To a log that is there, audit_private.add_db_role() adds it.
    comment on column audit.event.db_role is
        'Role taken by SET ROLE, null where none is or it is db_user. The server lets a login '
        'take those alone that it may become';
exception when undefined_column then
end
$$;
comment on table audit.event_default is 'Events that no monthly partition covers; normally empty';

create table if not exists audit.action (
    name text primary key
        constraint name_is_category_dot_verb check (name ~ '^[a-z][a-z0-9_]*[.][a-z][a-z0-9_]*$'),
    category text not null generated always as (split_part(name, '.', 1)) stored,
    description text not null,
    is_built_in boolean not null default false
);
comment on table audit.action is
    'Known actions: what audit.event.action may say, and what it means';
comment on column audit.action.name is 'category.verb';
comment on column audit.action.category is 'Part before the dot';
comment on column audit.action.description is 'One sentence for the reader of a log';
comment on column audit.action.is_built_in is
    'Whether auditdb itself brings it: then audit.define_action does not describe it anew';

create table if not exists audit_private.attachment (
    id int generated always as identity primary key,
    target oid,
    kind text not null,
    mapping jsonb not null,
    attached_at timestamptz not null default now(),
    attached_by text not null default session_user,
    name text not null,
    row_type oid,
    constraint a_table_is_attached_once unique (target)
);
comment on table audit_private.attachment is
    'Tables whose changes are captured, and how their rows map to events';
comment on column audit_private.attachment.id is
    'Suffix of its functions: audit_private.capture_<id>_insert, ...';
-- No regclass: a dump of it is restored where the table is not.
comment on column audit_private.attachment.target is
    'Oid of the table; null once it was found to be gone';
comment on column audit_private.attachment.kind is
    'Prefix of its actions: membership, api_key, workflow, ...';
comment on column audit_private.attachment.mapping is
    'Options as given to audit.attach under "given"; the expressions in force beside it';
comment on column audit_private.attachment.attached_at is 'When it was last attached or re-mapped';
comment on column audit_private.attachment.attached_by is 'session_user of that moment';
comment on column audit_private.attachment.name is
    'Schema and name of the table, quoted as in SQL, when it was last attached';
comment on column audit_private.attachment.row_type is
    'Oid of the type of its rows: a table that gets the oid of a dropped one has another';

create table if not exists audit_private.signing_key (
    id text primary key,
    secret text not null,
    created_at timestamptz not null default now(),
    created_by text not null default session_user,
    retires_at timestamptz
);
comment on table audit_private.signing_key is
    'Keys that sign viewer tokens; readable by no login role';
comment on column audit_private.signing_key.id is 'Public name of the key, part of each token';
comment on column audit_private.signing_key.secret is 'Key of HMAC-SHA-256, as text';
comment on column audit_private.signing_key.created_at is 'When it was made';
comment on column audit_private.signing_key.created_by is 'session_user of that moment';
comment on column audit_private.signing_key.retires_at is
    'From then on its tokens are void; null while current';

create table if not exists audit_private.attestation (
    id bigint generated always as identity primary key,
    attested_at timestamptz not null default clock_timestamp(),
    attested_by text not null default session_user,
    occasion text not null,
    scope oid not null,
    kind text not null,
    relation oid not null,
    name text not null,
    fact jsonb
);
create index if not exists attestation_scope_kind_relation_name_id_idx
    on audit_private.attestation (scope, kind, relation, name, id desc);

comment on table audit_private.attestation is
    'What stood in the catalogs at install, attach and detach, for audit.doctor(). Append-only';
comment on column audit_private.attestation.id is
    'The highest of the same scope, kind, relation and name is in force';
comment on column audit_private.attestation.attested_at is 'When it was found so';
comment on column audit_private.attestation.attested_by is 'session_user of that moment';
comment on column audit_private.attestation.occasion is
    'install, attach, attest, detach, month, drain, retention, mend or restore';
comment on column audit_private.attestation.scope is
    'The attached table it serves; audit.event for the log itself';
comment on column audit_private.attestation.kind is 'trigger, table or functions';
comment on column audit_private.attestation.relation is
    'The table it is on, for instance a partition; else the scope; 0 if a restore lacks it';
comment on column audit_private.attestation.name is 'Its name there';
comment on column audit_private.attestation.fact is
    'Oid and xmin of the catalog row, columns, owner, ...; null once it is gone';

create table if not exists audit_private.release (
    kind text not null,
    name text not null,
    sha256 text not null,
    primary key (kind, name)
);
comment on table audit_private.release is
    'What the release that was last installed makes the log of, for audit.doctor()';
comment on column audit_private.release.kind is 'function, relation, index, policy or grant';
comment on column audit_private.release.name is
    'A function with its arguments and result, a table or view, ... on ..., ... on ... to ...';
comment on column audit_private.release.sha256 is 'Of its definition; a grant has none';

do $$
begin
    if pg_catalog.to_regtype('audit_private.fact') is null then
        create type audit_private.fact as (
            scope regclass,
            kind text,
            relation regclass,
            name text,
            fact jsonb
        );
    end if;
    if pg_catalog.to_regtype('audit.finding') is null then
        create type audit.finding as (
            check_name text,
            severity text,
            object text,
            problem text,
            why text,
            mend text,
            fixable boolean
        );
    end if;
end
$$;
comment on type audit_private.fact is 'What an attestation says of one object';
comment on type audit.finding is
    'What audit.doctor() found: severity is critical, warning or notice; fixable by doctor --fix';

create table if not exists audit_private.organization_start (
    organization_id text collate "C" not null,
    first_id bigint not null default nextval('audit.event_id_seq'),
    started_at timestamptz not null default clock_timestamp(),
    primary key (organization_id, first_id)
);
comment on table audit_private.organization_start is
    'Since which event an organisation is the present one of its id. Append-only: the highest '
    'counts';
comment on column audit_private.organization_start.organization_id is
    'Identifier of the organisation; it may have been that of another before';
comment on column audit_private.organization_start.first_id is
    'Events of lower id are a former organisation''s: viewers of this one do not see them';
comment on column audit_private.organization_start.started_at is
    'When its row was inserted, by the clock of the server';

-- From the events of tables of organisations that were attached before there was this table.
insert into audit_private.organization_start (organization_id, first_id, started_at)
select distinct on (e.organization_id) e.organization_id, e.id, e.occurred_at
from audit.event as e
    join audit_private.attachment as a on e.target_type = a.mapping ->> 'target_type'
        and e.action = a.mapping -> 'verbs' ->> 'born'
        and a.mapping ->> 'organization' = a.mapping ->> 'target_id'
where e.captured_from is not null and e.organization_id = e.target_id
    and e.old_values is null and e.new_values is not null
    and not exists (
        select from audit_private.organization_start as s
        where s.organization_id = e.organization_id
    )
order by e.organization_id, e.id desc;

create table if not exists audit_private.installation (
    id boolean primary key default true constraint there_is_one_row check (id),
    secret text not null,
    installed_at timestamptz not null default now(),
    maintained_at timestamptz not null default now(),
    catalog oid,
    cluster text,
    server int
);
comment on table audit_private.installation is
    'One row: what makes this installation its own; readable by no login role';
comment on column audit_private.installation.id is
    'Always true. A publication of all tables takes no update of a table without a key';
comment on column audit_private.installation.secret is 'Key of the digests that stand for secrets';
comment on column audit_private.installation.installed_at is 'When it was first installed';
comment on column audit_private.installation.maintained_at is
    'When maintenance last ran under a clock that fits the run before; at first the install';
comment on column audit_private.installation.catalog is
    'Oid of the schema audit: a restore makes another';
comment on column audit_private.installation.cluster is
    'Identifier of the database cluster: pg_upgrade makes another; null if the server hides it';
comment on column audit_private.installation.server is 'Major version of PostgreSQL';

create table if not exists audit_private.recording_limit (
    id int generated always as identity,
    login text primary key,
    per_minute int,
    set_at timestamptz not null default now(),
    set_by text not null default session_user
);
comment on table audit_private.recording_limit is
    'How many events a login may record by calls in a minute';
comment on column audit_private.recording_limit.id is
    'Suffix of the sequence that counts: audit_private.recorded_<id>';
comment on column audit_private.recording_limit.login is 'session_user of the calls';
comment on column audit_private.recording_limit.per_minute is
    'So many are let through; null for all, where there was a limit';
comment on column audit_private.recording_limit.set_at is 'When it was set';
comment on column audit_private.recording_limit.set_by is 'session_user of that moment';

create table if not exists audit_private.request (
    verb text not null,
    target regclass not null,
    kind text,
    given jsonb
);
comment on table audit_private.request is
    'Always empty: an INSERT asks for a table to be attached or detached, and is carried out';
comment on column audit_private.request.verb is 'attach, check, close or detach';
comment on column audit_private.request.target is 'The table';
comment on column audit_private.request.kind is
    'Prefix of its actions: membership, api_key, workflow, ...';
comment on column audit_private.request.given is 'Options of audit.attach, as given';

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
    'The user that an event is about: row, the row itself; column, whom a column names; null, '
    'nobody';
comment on column audit.kind.target is
    'subject where the user is what was changed; null where the row is';
comment on column audit.kind.credentials is
    'Whether a column is redacted that is not known to be harmless; null: by the names of the '
    'table';
comment on column audit.kind.is_built_in is
    'Whether auditdb brings it: then audit.define_kind does not change it';
