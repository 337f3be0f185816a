-- As an authentication library makes them: lower camel case, text keys, singular.
create table "user" (
    id text primary key,
    name text not null,
    email text not null unique,
    "emailVerified" boolean not null,
    image text,
    "twoFactorEnabled" boolean,
    role text,
    banned boolean,
    "updatedAt" timestamptz
);
create table session (
    id text primary key,
    token text unique,
    "userId" text not null references "user" on delete cascade,
    "activeOrganizationId" text,
    "impersonatedBy" text
);
create table account (
    id text primary key,
    "accountId" text not null,
    "providerId" text not null,
    "userId" text not null references "user" on delete cascade,
    "accessToken" text,
    "refreshToken" text,
    password text,
    "updatedAt" timestamptz
);
create table verification (
    id text primary key,
    identifier text not null,
    value text not null
);
create table "twoFactor" (
    id text primary key,
    secret text not null,
    "backupCodes" text not null,
    "userId" text not null references "user" on delete cascade
);
create table organization (
    id text primary key,
    name text not null,
    slug text unique,
    metadata text
);
create table member (
    id text primary key,
    "organizationId" text not null references organization on delete cascade,
    "userId" text not null references "user" on delete cascade,
    role text not null default 'member',
    "createdAt" timestamptz not null default now()
);
create table team (
    id text primary key,
    name text not null,
    "organizationId" text not null references organization on delete cascade
);
create table "teamMember" (
    id text primary key,
    "teamId" text not null references team on delete cascade,
    "userId" text not null references "user" on delete cascade
);
create table invitation (
    id text primary key,
    "organizationId" text not null references organization on delete cascade,
    email text not null,
    role text,
    status text not null default 'pending',
    "inviterId" text not null references "user" on delete cascade
);
create table apikey (
    id text primary key,
    name text,
    start text,
    prefix text,
    key text not null,
    "userId" text not null references "user" on delete cascade,
    enabled boolean default true,
    "lastRequest" timestamptz,
    "requestCount" int,
    remaining int
);
create table passkey (
    id text primary key,
    "publicKey" text not null,
    "userId" text not null references "user" on delete cascade,
    "credentialID" text not null,
    counter int not null
);
