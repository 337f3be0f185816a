-- What a user may do is said by policies, of the user or of the user's role. One customer a database.
create table app_role (
    id uuid primary key default gen_random_uuid(),
    name varchar(100) not null,
    parent_id uuid references app_role
);
create table app_policy (
    id uuid primary key default gen_random_uuid(),
    name varchar(100) not null,
    admin_access boolean not null default false,
    app_access boolean not null default false,
    enforce_tfa boolean not null default false,
    ip_access text
);
create table app_user (
    id uuid primary key default gen_random_uuid(),
    role_id uuid references app_role on delete set null,
    email varchar(128) unique,
    password varchar(255),
    status varchar(16) not null default 'active',
    token varchar(255) unique,
    tfa_secret varchar(255),
    last_access timestamptz,
    last_page varchar(255)
);
create table app_policy_grant (
    id uuid primary key default gen_random_uuid(),
    policy_id uuid not null references app_policy on delete cascade,
    role_id uuid references app_role on delete cascade,
    user_id uuid references app_user on delete cascade,
    sort integer
);
create table app_permission (
    id serial primary key,
    policy_id uuid not null references app_policy on delete cascade,
    collection varchar(64) not null,
    action varchar(10) not null,
    fields text
);
create table app_session (
    token varchar(64) primary key,
    user_id uuid references app_user on delete cascade,
    expires timestamptz not null,
    next_token varchar(64)
);
create table app_flow (
    id uuid primary key default gen_random_uuid(),
    name varchar(255) not null,
    status varchar(255) not null default 'active',
    trigger varchar(255),
    options json,
    first_operation_id uuid,
    user_created uuid references app_user on delete set null
);
create table app_operation (
    id uuid primary key default gen_random_uuid(),
    flow_id uuid not null references app_flow on delete cascade,
    key varchar(255) not null,
    type varchar(255) not null,
    options json,
    resolve_id uuid references app_operation,
    reject_id uuid references app_operation
);
create table app_setting (
    id serial primary key,
    project_name varchar(100) not null default 'App',
    auth_login_attempts integer default 25,
    mapbox_key varchar(255)
);
create table app_revision (
    id serial primary key,
    collection varchar(64) not null,
    item varchar(255) not null,
    data json
);
