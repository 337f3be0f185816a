-- As Django makes them: application prefixes, is_admin, an owner's table, otp devices.
create table auth_user (
    id serial primary key,
    password varchar(128) not null,
    last_login timestamptz,
    is_superuser boolean not null,
    username varchar(150) unique not null,
    email varchar(254) not null,
    is_staff boolean not null,
    is_active boolean not null,
    date_joined timestamptz not null default now()
);
create table organizations_organization (
    id serial primary key,
    name varchar(200) not null,
    slug varchar(200) unique,
    is_active boolean not null default true,
    created timestamptz default now(),
    modified timestamptz default now()
);
create table organizations_organizationuser (
    id serial primary key,
    created timestamptz default now(),
    modified timestamptz default now(),
    is_admin boolean not null default false,
    organization_id int not null references organizations_organization,
    user_id int not null references auth_user,
    unique (user_id, organization_id)
);
create table organizations_organizationowner (
    id serial primary key,
    organization_id int not null unique references organizations_organization,
    organization_user_id int not null unique references organizations_organizationuser
);
create table authtoken_token (
    key varchar(40) primary key,
    created timestamptz not null default now(),
    user_id int not null unique references auth_user
);
create table rest_framework_api_key_apikey (
    id varchar(150) primary key,
    name varchar(50) not null,
    prefix varchar(8) unique,
    hashed_key varchar(150) not null,
    revoked boolean not null default false,
    expiry_date timestamptz,
    organization_id int not null references organizations_organization
);
create table otp_totp_totpdevice (
    id serial primary key,
    name varchar(64) not null,
    confirmed boolean not null,
    key varchar(80) not null,
    drift smallint,
    last_t bigint,
    user_id int not null references auth_user
);
create table otp_static_statictoken (
    id serial primary key,
    token varchar(16),
    device_id int
);
create table django_session (
    session_key varchar(40) primary key,
    session_data text,
    expire_date timestamptz
);
create table flows_flow (
    id serial primary key,
    name varchar(100),
    is_active boolean default true,
    organization_id int not null references organizations_organization,
    created_by_id int references auth_user
);
create table flows_flownode (
    id serial primary key,
    flow_id int not null references flows_flow,
    kind varchar(20),
    config jsonb
);
create table flows_flownodeinput (
    id serial primary key,
    flow_node_id int not null references flows_flownode on delete cascade,
    name text
);
create table flows_flowrun (
    id serial primary key,
    flow_id int not null references flows_flow,
    started timestamptz
);
create table auth_group (
    id serial primary key,
    name varchar(150)
);
create table auth_user_groups (
    id serial primary key,
    user_id int not null references auth_user,
    group_id int not null references auth_group,
    unique (user_id, group_id)
);
