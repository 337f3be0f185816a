-- Tenants under a word of their own, projects in them, crews in projects, as Go tools make them.
create table organizers (
    id bigint generated always as identity primary key,
    slug text not null unique,
    title text not null,
    created_at timestamptz not null default now()
);
create table people (
    id bigint generated always as identity primary key,
    email text not null unique,
    password_hash text,
    full_name text not null default '',
    last_login_at timestamptz
);
create table organizer_people (
    organizer_id bigint not null references organizers on delete cascade,
    person_id bigint not null references people on delete cascade,
    level text not null default 'helper' check (level in ('owner', 'admin', 'helper')),
    primary key (organizer_id, person_id)
);
create table projects (
    id bigint generated always as identity primary key,
    organizer_id bigint not null references organizers on delete cascade,
    title text not null
);
create table crews (
    id bigint generated always as identity primary key,
    project_id bigint not null references projects on delete cascade,
    title text not null
);
create table crew_members (
    crew_id bigint not null references crews on delete cascade,
    person_id bigint not null references people on delete cascade,
    is_lead boolean not null default false,
    joined_at timestamptz not null default now(),
    primary key (crew_id, person_id)
);
create table project_keys (
    id bigint generated always as identity primary key,
    project_id bigint not null references projects on delete cascade,
    created_by bigint references people on delete set null,
    label text not null,
    key_hash bytea not null unique,
    key_prefix text not null,
    last_used_at timestamptz,
    revoked_at timestamptz
);
create table pipelines (
    id bigint generated always as identity primary key,
    project_id bigint not null references projects on delete cascade,
    crew_id bigint references crews on delete set null,
    title text not null,
    definition jsonb not null default '{}',
    build_count bigint not null default 0,
    updated_at timestamptz not null default now()
);
create table pipeline_stages (
    pipeline_id bigint not null references pipelines on delete cascade,
    position integer not null,
    command text not null,
    primary key (pipeline_id, position)
);
create table pipeline_builds (
    id bigint generated always as identity primary key,
    pipeline_id bigint not null references pipelines on delete cascade,
    number integer not null,
    state text not null default 'queued'
);
create table pipeline_stage_stats (
    pipeline_id bigint not null references pipelines on delete cascade,
    day date not null,
    builds integer not null default 0,
    seconds bigint not null default 0,
    primary key (pipeline_id, day)
);
create table pipeline_build_queue (
    id bigint generated always as identity primary key,
    pipeline_id bigint not null references pipelines on delete cascade,
    locked_until timestamptz
);
create table organizer_invites (
    id uuid primary key default gen_random_uuid(),
    organizer_id bigint not null references organizers on delete cascade,
    invited_by bigint not null references people,
    email text not null,
    code text not null unique,
    accepted_at timestamptz
);
