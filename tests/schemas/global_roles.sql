-- One customer a database, as Laravel makes them: a role by a foreign key, an API token on the user.
create table roles (
    id bigserial primary key,
    name varchar(255) not null unique,
    guard_name varchar(255) not null default 'web',
    created_at timestamp,
    updated_at timestamp
);
create table permissions (
    id bigserial primary key,
    name varchar(255) not null unique,
    guard_name varchar(255) not null default 'web'
);
create table role_has_permissions (
    permission_id bigint not null references permissions on delete cascade,
    role_id bigint not null references roles on delete cascade,
    primary key (permission_id, role_id)
);
create table users (
    id bigserial primary key,
    role_id bigint not null references roles,
    name varchar(255) not null,
    email varchar(255) not null unique,
    email_verified_at timestamp,
    password varchar(255) not null,
    api_token varchar(80) unique,
    two_factor_secret text,
    two_factor_recovery_codes text,
    two_factor_confirmed_at timestamp,
    remember_token varchar(100),
    last_login_at timestamp,
    created_at timestamp,
    updated_at timestamp,
    deleted_at timestamp
);
create table password_reset_tokens (
    email varchar(255) primary key,
    token varchar(255) not null,
    created_at timestamp
);
create table sessions (
    id varchar(255) primary key,
    user_id bigint,
    ip_address varchar(45),
    user_agent text,
    payload text not null,
    last_activity integer not null
);
create table settings (
    id bigserial primary key,
    key varchar(255) not null unique,
    value text,
    updated_at timestamp
);
create table personal_access_tokens (
    id bigserial primary key,
    tokenable_type varchar(255) not null,
    tokenable_id bigint not null,
    name varchar(255) not null,
    token varchar(64) not null unique,
    abilities text,
    last_used_at timestamp,
    expires_at timestamp,
    created_at timestamp,
    updated_at timestamp
);
create table workflows (
    id bigserial primary key,
    user_id bigint references users on delete set null,
    name varchar(255) not null,
    is_active boolean not null default false,
    runs_count integer not null default 0,
    last_run_at timestamp,
    created_at timestamp,
    updated_at timestamp,
    deleted_at timestamp
);
create table workflow_actions (
    id bigserial primary key,
    workflow_id bigint not null references workflows on delete cascade,
    type varchar(255) not null,
    options json,
    created_at timestamp,
    updated_at timestamp
);
create table workflow_runs (
    id bigserial primary key,
    workflow_id bigint not null references workflows on delete cascade,
    status varchar(20) not null,
    started_at timestamp
);
create table jobs (
    id bigserial primary key,
    queue varchar(255) not null,
    payload text not null,
    attempts smallint not null,
    reserved_at integer
);
create table failed_jobs (
    id bigserial primary key,
    uuid varchar(255) not null unique,
    payload text not null,
    exception text not null
);
