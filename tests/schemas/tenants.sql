-- A product in snake_case: tenants, uuid keys, people, statuses as enums and checks.
create type member_role as enum ('owner','admin','billing_admin','member');
create type member_status as enum ('invited','active','suspended','removed');
create table tenants (
    id uuid primary key default gen_random_uuid(),
    name text not null,
    owner_id uuid
);
create table people (
    id uuid primary key default gen_random_uuid(),
    primary_email text unique not null,
    password_digest text,
    mfa_enabled boolean default false,
    mfa_secret text,
    recovery_codes text[],
    deleted_at timestamptz,
    last_seen_at timestamptz
);
create table tenant_members (
    tenant_id uuid not null references tenants on delete cascade,
    person_id uuid not null references people on delete cascade,
    role member_role not null default 'member',
    status member_status not null default 'invited',
    updated_at timestamptz,
    primary key (tenant_id, person_id)
);
create table projects (
    id uuid primary key default gen_random_uuid(),
    tenant_id uuid not null references tenants on delete cascade,
    name text
);
create table project_users (
    project_id uuid references projects on delete cascade,
    person_id uuid references people on delete cascade,
    role text check (role in ('admin','viewer')),
    primary key (project_id, person_id)
);
create table service_accounts (
    id uuid primary key default gen_random_uuid(),
    project_id uuid not null references projects on delete cascade,
    name text
);
create table service_account_keys (
    id uuid primary key default gen_random_uuid(),
    service_account_id uuid not null references service_accounts on delete cascade,
    key_hash bytea not null,
    status text not null default 'active' check (status in ('active','revoked')),
    use_count bigint default 0
);
create table personal_access_tokens (
    id uuid primary key default gen_random_uuid(),
    person_id uuid not null references people on delete cascade,
    label text,
    token_hash text not null,
    is_active boolean not null default true,
    last_used_at timestamptz
);
create table pipelines (
    id uuid primary key default gen_random_uuid(),
    project_id uuid not null references projects on delete cascade,
    name text,
    definition jsonb,
    archived_at timestamptz
);
create table pipeline_stages (
    id uuid primary key default gen_random_uuid(),
    pipeline_id uuid not null references pipelines on delete cascade,
    position int,
    config jsonb
);
create table pipeline_runs (
    id uuid primary key default gen_random_uuid(),
    pipeline_id uuid not null references pipelines on delete cascade,
    state text
);
create table password_reset_tokens (
    id uuid primary key default gen_random_uuid(),
    person_id uuid references people,
    token_hash text
);
create table mfa_factors (
    id uuid primary key default gen_random_uuid(),
    person_id uuid not null references people on delete cascade,
    secret text,
    verified_at timestamptz
);
create table audit_logs (
    id bigserial primary key,
    tenant_id uuid references tenants,
    person_id uuid references people,
    action text
);
