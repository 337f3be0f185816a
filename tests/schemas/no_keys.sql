-- No foreign key, and no table of organisations: a service that keeps customers elsewhere.
create table app_users (
    id varchar(26) primary key,
    email varchar(128) not null unique,
    display_name varchar(64),
    password_hash varchar(128),
    mfa_active boolean not null default false,
    mfa_secret varchar(128),
    last_password_update bigint,
    last_activity_at bigint,
    update_at bigint,
    delete_at bigint
);
create table workspace_members (
    workspace_id varchar(26) not null,
    user_id varchar(26) not null,
    role varchar(20) not null check (role in ('owner', 'admin', 'member', 'guest')),
    update_at bigint,
    primary key (workspace_id, user_id)
);
create table channel_members (
    channel_id varchar(26) not null,
    user_id varchar(26) not null,
    last_viewed_at bigint,
    msg_count bigint,
    primary key (channel_id, user_id)
);
create table access_keys (
    id varchar(26) primary key,
    workspace_id varchar(26) not null,
    user_id varchar(26) not null,
    description varchar(255),
    secret_hash varchar(64) not null,
    is_active boolean not null default true,
    last_used_at bigint
);
create table flows (
    id varchar(26) primary key,
    workspace_id varchar(26) not null,
    name varchar(64) not null,
    enabled boolean not null default true,
    update_at bigint,
    delete_at bigint
);
create table flow_steps (
    id varchar(26) primary key,
    flow_id varchar(26) not null,
    sort_order integer not null,
    action text
);
create table flow_runs (
    id varchar(26) primary key,
    flow_id varchar(26) not null,
    status varchar(16),
    start_at bigint
);
create table user_sessions (
    id varchar(26) primary key,
    token varchar(26) not null,
    user_id varchar(26) not null,
    expires_at bigint,
    last_activity_at bigint
);
create table user_sso_identities (
    id varchar(26) primary key,
    user_id varchar(26) not null,
    provider varchar(32) not null,
    external_id varchar(128) not null,
    refresh_token text
);
create table posts (
    id varchar(26) primary key,
    channel_id varchar(26) not null,
    user_id varchar(26) not null,
    message text
);
create table job_queue (
    id varchar(26) primary key,
    type varchar(32) not null,
    status varchar(32),
    data jsonb
);
