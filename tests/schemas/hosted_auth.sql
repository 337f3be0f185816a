-- Users in a schema of the platform, profiles one to one, members that reference profiles.
create schema auth;
create table auth.users (
    id uuid primary key,
    email varchar,
    encrypted_password varchar,
    last_sign_in_at timestamptz,
    confirmation_token varchar,
    is_super_admin boolean
);
create table auth.mfa_factors (
    id uuid primary key,
    user_id uuid not null references auth.users on delete cascade,
    status text not null check (status in ('unverified','verified')),
    secret text
);
create table auth.mfa_challenges (
    id uuid primary key,
    factor_id uuid not null references auth.mfa_factors on delete cascade,
    otp_code text
);
create table auth.sessions (
    id uuid primary key,
    user_id uuid not null references auth.users
);
create table auth.refresh_tokens (
    id bigserial primary key,
    token varchar,
    user_id varchar
);
create table public.profiles (
    id uuid primary key references auth.users on delete cascade,
    full_name text
);
create table public.organizations (
    id uuid primary key,
    name text,
    created_by uuid references auth.users
);
create table public.organization_members (
    id uuid primary key,
    org_id uuid not null references public.organizations on delete cascade,
    profile_id uuid not null references public.profiles on delete cascade,
    is_owner boolean,
    is_admin boolean,
    accepted boolean not null default false,
    unique (org_id, profile_id)
);
create table public.api_keys (
    id uuid primary key,
    organization_id uuid not null,
    hashed_secret text,
    name text,
    created_by uuid,
    revoked_at timestamptz
);
create table public.flows (
    id uuid primary key,
    org_id uuid not null references public.organizations on delete cascade,
    name text,
    trigger jsonb
);
create table public.flow_versions (
    id uuid primary key,
    flow_id uuid not null references public.flows on delete cascade,
    graph jsonb
);
create table public.flow_version_nodes (
    id uuid primary key,
    flow_version_id uuid not null references public.flow_versions on delete cascade
);
create table public.cash_flows (
    id uuid primary key,
    org_id uuid references public.organizations,
    amount numeric
);
