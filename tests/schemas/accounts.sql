-- Persons and organisations in one table, told apart by a type, as a code host makes them.
create table accounts (
    id bigserial primary key,
    type varchar(20) not null check (type in ('Person', 'Organization')),
    login varchar(100) not null unique,
    email varchar(255),
    password_digest varchar(255),
    otp_secret varchar(255),
    parent_id bigint references accounts,
    suspended_at timestamp,
    repositories_count integer not null default 0,
    last_seen_at timestamp,
    created_at timestamp,
    updated_at timestamp
);
create table account_memberships (
    id bigserial primary key,
    organization_id bigint not null references accounts on delete cascade,
    member_id bigint not null references accounts on delete cascade,
    role varchar(20) not null default 'member' check (role in ('owner', 'admin', 'member')),
    created_at timestamp,
    updated_at timestamp,
    unique (organization_id, member_id)
);
create table access_tokens (
    id bigserial primary key,
    account_id bigint not null references accounts on delete cascade,
    description varchar(255),
    token_digest varchar(255) not null unique,
    scopes varchar(255)[],
    accessed_at timestamp,
    revoked_at timestamp
);
create table ssh_public_keys (
    id bigserial primary key,
    account_id bigint not null references accounts on delete cascade,
    title varchar(255) not null,
    key text not null,
    fingerprint varchar(100) not null
);
create table workflows (
    id bigserial primary key,
    account_id bigint not null references accounts on delete cascade,
    name varchar(255) not null,
    path varchar(255) not null,
    state varchar(20) not null default 'active',
    updated_at timestamp
);
create table workflow_steps (
    id bigserial primary key,
    workflow_id bigint not null references workflows on delete cascade,
    position integer not null,
    uses varchar(255)
);
create table workflow_run_logs (
    id bigserial primary key,
    workflow_id bigint not null references workflows on delete cascade,
    line text
);
create table account_follows (
    id bigserial primary key,
    follower_id bigint not null references accounts on delete cascade,
    followed_id bigint not null references accounts on delete cascade,
    unique (follower_id, followed_id)
);
