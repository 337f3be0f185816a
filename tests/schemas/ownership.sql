-- Who owns a workflow is said by another table, whose row comes later, as TypeORM makes them.
create table role (
    slug varchar(128) primary key,
    "displayName" text,
    "roleType" text,
    "systemRole" boolean not null default false
);
create table "user" (
    id uuid primary key default gen_random_uuid(),
    email varchar(255) unique,
    "firstName" varchar(32),
    password varchar(255),
    settings json,
    disabled boolean not null default false,
    "mfaEnabled" boolean not null default false,
    "mfaSecret" text,
    "mfaRecoveryCodes" text,
    "roleSlug" varchar(128) not null default 'global:member' references role (slug),
    "lastActiveAt" date,
    "createdAt" timestamptz not null default now(),
    "updatedAt" timestamptz not null default now()
);
create table project (
    id varchar(36) primary key,
    name varchar(255) not null,
    type varchar(36) not null,
    "createdAt" timestamptz not null default now(),
    "updatedAt" timestamptz not null default now()
);
create table project_relation (
    "projectId" varchar(36) not null references project on delete cascade,
    "userId" uuid not null references "user" on delete cascade,
    role varchar not null references role (slug),
    "createdAt" timestamptz not null default now(),
    "updatedAt" timestamptz not null default now(),
    primary key ("projectId", "userId")
);
create table folder (
    id varchar(36) primary key,
    name varchar(128) not null,
    "parentFolderId" varchar(36) references folder on delete cascade,
    "projectId" varchar(36) not null references project on delete cascade
);
create table workflow_entity (
    id varchar(36) primary key,
    name varchar(128) not null,
    active boolean not null default false,
    nodes json not null default '[]',
    "staticData" json,
    "triggerCount" integer not null default 0,
    "versionId" char(36),
    "isArchived" boolean not null default false,
    "parentFolderId" varchar(36) references folder on delete cascade,
    "createdAt" timestamptz not null default now(),
    "updatedAt" timestamptz not null default now()
);
create table shared_workflow (
    "workflowId" varchar(36) not null references workflow_entity on delete cascade,
    "projectId" varchar(36) not null references project on delete cascade,
    role text not null,
    "createdAt" timestamptz not null default now(),
    "updatedAt" timestamptz not null default now(),
    primary key ("workflowId", "projectId")
);
create table credentials_entity (
    id varchar(36) primary key,
    name varchar(128) not null,
    data text not null,
    type varchar(128) not null,
    "createdAt" timestamptz not null default now(),
    "updatedAt" timestamptz not null default now()
);
create table shared_credentials (
    "credentialsId" varchar(36) not null references credentials_entity on delete cascade,
    "projectId" varchar(36) not null references project on delete cascade,
    role text not null,
    primary key ("credentialsId", "projectId")
);
create table user_api_keys (
    id varchar(36) primary key,
    "userId" uuid not null references "user" on delete cascade,
    label varchar(100) not null,
    "apiKey" varchar not null unique,
    scopes json,
    "createdAt" timestamptz not null default now(),
    "updatedAt" timestamptz not null default now()
);
create table workflow_history (
    "versionId" varchar(36) primary key,
    "workflowId" varchar(36) not null references workflow_entity on delete cascade,
    authors varchar(255) not null,
    nodes json not null
);
create table workflow_statistics (
    id serial primary key,
    "workflowId" varchar(36) not null references workflow_entity on delete cascade,
    name varchar(128) not null,
    count integer not null default 0,
    "latestEvent" timestamptz
);
create table workflow_dependency (
    id serial primary key,
    "workflowId" varchar(36) not null references workflow_entity on delete cascade,
    "dependencyType" varchar(32) not null,
    "dependencyKey" varchar(255) not null
);
create table workflows_tags (
    "workflowId" varchar(36) not null references workflow_entity on delete cascade,
    "tagId" varchar(36) not null,
    primary key ("workflowId", "tagId")
);
create table webhook_entity (
    "webhookPath" varchar not null,
    method varchar not null,
    node varchar not null,
    "workflowId" varchar(36) not null references workflow_entity on delete cascade,
    primary key ("webhookPath", method)
);
create table execution_entity (
    id serial primary key,
    "workflowId" varchar(36) not null references workflow_entity on delete cascade,
    finished boolean not null,
    status varchar not null,
    "startedAt" timestamptz
);
create table auth_identity (
    "providerId" varchar(64) not null,
    "providerType" varchar(32) not null,
    "userId" uuid references "user" on delete cascade,
    primary key ("providerId", "providerType")
);
create table invalid_auth_token (
    token varchar(512) primary key,
    "expiresAt" timestamptz not null
);
create table settings (
    key varchar(255) primary key,
    value text not null,
    "loadOnStartup" boolean not null default false
);
