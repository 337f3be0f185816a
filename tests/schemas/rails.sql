-- As Rails makes them: plural tables, bigint keys, integer roles beside a flag, devise columns.
create table accounts (
    id bigserial primary key,
    name varchar not null,
    created_at timestamp,
    updated_at timestamp
);
create table users (
    id bigserial primary key,
    email varchar not null,
    encrypted_password varchar not null default '',
    reset_password_token varchar,
    sign_in_count int default 0,
    current_sign_in_at timestamp,
    last_sign_in_ip inet,
    otp_secret varchar,
    otp_required_for_login boolean,
    otp_backup_codes varchar[],
    updated_at timestamp
);
create unique index on users (email);
create table account_users (
    id bigserial primary key,
    account_id bigint references accounts,
    user_id bigint references users,
    role integer not null default 0,
    administrator boolean default false,
    deactivated_at timestamp,
    updated_at timestamp
);
create unique index on account_users (account_id, user_id);
create table teams (
    id bigserial primary key,
    account_id bigint not null references accounts,
    name varchar,
    members_count int default 0
);
create table team_members (
    id bigserial primary key,
    team_id bigint not null references teams,
    user_id bigint not null references users
);
create table access_tokens (
    id bigserial primary key,
    user_id bigint not null references users,
    account_id bigint references accounts,
    name varchar,
    token_digest varchar not null,
    scopes text[],
    last_used_at timestamp,
    revoked_at timestamp
);
create table automation_rules (
    id bigserial primary key,
    account_id bigint not null references accounts,
    name varchar,
    active boolean,
    conditions jsonb,
    actions jsonb,
    updated_at timestamp
);
create table sessions (
    id bigserial primary key,
    user_id bigint references users,
    token varchar
);
create table notifications (
    id bigserial primary key,
    user_id bigint references users,
    account_id bigint references accounts,
    body text
);
create table active_storage_attachments (
    id bigserial primary key,
    record_type varchar,
    record_id bigint
);
