-- Django: each table's first word is its app's label, and the labels are words that tell of kinds.
create table accounts_person (
    id bigserial primary key,
    password varchar(128) not null,
    last_login timestamptz,
    is_superuser boolean not null default false,
    email varchar(254) not null unique,
    is_active boolean not null default true,
    date_joined timestamptz not null default now()
);
create table team_company (
    id bigserial primary key,
    name varchar(200) not null,
    created timestamptz not null default now(),
    modified timestamptz not null default now()
);
create table team_employment (
    id bigserial primary key,
    company_id bigint not null references team_company deferrable initially deferred,
    person_id bigint not null references accounts_person deferrable initially deferred,
    role varchar(20) not null default 'staff'
        check (role in ('owner', 'administrator', 'staff')),
    created timestamptz not null default now(),
    modified timestamptz not null default now(),
    unique (company_id, person_id)
);
create table team_office (
    id bigserial primary key,
    company_id bigint not null references team_company deferrable initially deferred,
    city varchar(100) not null
);
create table team_preference (
    id bigserial primary key,
    person_id bigint not null references accounts_person deferrable initially deferred,
    key varchar(100) not null,
    value text
);
create table team_holiday (
    id bigserial primary key,
    company_id bigint not null references team_company deferrable initially deferred,
    day date not null
);
create table auth_group (
    id serial primary key,
    name varchar(150) not null unique
);
create table auth_permission (
    id serial primary key,
    codename varchar(100) not null
);
create table auth_group_permissions (
    id bigserial primary key,
    group_id integer not null references auth_group deferrable initially deferred,
    permission_id integer not null references auth_permission deferrable initially deferred,
    unique (group_id, permission_id)
);
create table accounts_person_groups (
    id bigserial primary key,
    person_id bigint not null references accounts_person deferrable initially deferred,
    group_id integer not null references auth_group deferrable initially deferred,
    unique (person_id, group_id)
);
create table workflow_diagram (
    id bigserial primary key,
    company_id bigint not null references team_company deferrable initially deferred,
    author_id bigint references accounts_person deferrable initially deferred,
    title varchar(200) not null,
    is_published boolean not null default false,
    modified timestamptz not null default now()
);
create table workflow_flow (
    id bigserial primary key,
    company_id bigint not null references team_company deferrable initially deferred,
    title varchar(200) not null,
    is_active boolean not null default true,
    modified timestamptz not null default now()
);
create table workflow_node (
    id bigserial primary key,
    flow_id bigint not null references workflow_flow deferrable initially deferred,
    kind varchar(50) not null,
    config jsonb not null default '{}'
);
create table workflow_comment (
    id bigserial primary key,
    flow_id bigint not null references workflow_flow deferrable initially deferred,
    author_id bigint not null references accounts_person deferrable initially deferred,
    body text not null
);
create table workflow_flowrun (
    id bigserial primary key,
    flow_id bigint not null references workflow_flow deferrable initially deferred,
    state varchar(20) not null,
    started timestamptz
);
create table workflow_region (
    id bigserial primary key,
    name varchar(100) not null
);
create table integrations_companyapikey (
    id varchar(150) primary key,
    company_id bigint not null references team_company deferrable initially deferred,
    name varchar(50) not null,
    prefix varchar(8) not null unique,
    hashed_key varchar(150) not null,
    revoked boolean not null default false,
    created timestamptz not null default now()
);
create table authtoken_token (
    key varchar(40) primary key,
    created timestamptz not null default now(),
    person_id bigint not null unique references accounts_person deferrable initially deferred
);
create table django_session (
    session_key varchar(40) primary key,
    session_data text not null,
    expire_date timestamptz not null
);
create table django_admin_log (
    id serial primary key,
    action_time timestamptz not null,
    object_repr varchar(200) not null,
    user_id bigint not null references accounts_person deferrable initially deferred
);
