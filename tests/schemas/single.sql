-- One workspace a user, no table of memberships, few foreign keys, text keys.
create table workspaces (
    id text primary key,
    name text
);
create table users (
    id text primary key,
    workspace_id text not null references workspaces on delete cascade,
    email text not null,
    hashed_password text,
    role text not null default 'member' check (role in ('admin','member')),
    deleted_at timestamptz,
    totp_secret text
);
create table api_tokens (
    id text primary key,
    workspace_id text not null,
    token text not null,
    name text,
    created_by text references users,
    revoked_at timestamptz,
    deleted_at timestamptz
);
create table automations (
    id text primary key,
    workspace_id text not null,
    name text,
    enabled boolean
);
create table automation_triggers (
    id text primary key,
    automation_id text not null,
    kind text
);
