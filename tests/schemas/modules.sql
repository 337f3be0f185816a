-- A schema for each module, none of them public, and names that need quotes.
create schema "Identity";
create schema "Tenancy";
create schema "Automation Engine";
create table "Identity"."User" (
    "Id" bigint generated always as identity primary key,
    "Email" text not null unique,
    "LockedOut" boolean
);
create table "Identity"."UserCredential" (
    "UserId" bigint primary key references "Identity"."User" on delete cascade,
    "PasswordHash" text not null,
    "FailedAttempts" int default 0
);
create table "Identity"."Authenticator" (
    "Id" bigint generated always as identity primary key,
    "UserId" bigint not null references "Identity"."User" on delete cascade,
    "Secret" text,
    "State" text not null default 'pending' check ("State" in ('pending', 'verified'))
);
create table "Identity"."UserSession" (
    "Id" uuid primary key,
    "UserId" bigint references "Identity"."User",
    "RefreshToken" text
);
create table "Tenancy"."Company" (
    "Id" bigint generated always as identity primary key,
    "Name" text
);
create table "Tenancy"."Role" (
    "Id" int primary key,
    "Name" text not null unique
);
create table "Tenancy"."Company Member" (
    "CompanyId" bigint not null references "Tenancy"."Company" on delete cascade,
    "UserId" bigint not null references "Identity"."User" on delete cascade,
    "RoleId" int not null references "Tenancy"."Role",
    "AcceptedAt" timestamptz,
    primary key ("CompanyId", "UserId")
);
create table "Tenancy"."ApiKey" (
    "Id" bigint generated always as identity primary key,
    "CompanyId" bigint not null references "Tenancy"."Company" on delete cascade,
    "CreatedById" bigint references "Identity"."User",
    "Value" text not null,
    "DisabledAt" timestamptz
);
create table "Automation Engine"."Automation" (
    "Id" bigint generated always as identity primary key,
    "CompanyId" bigint not null references "Tenancy"."Company" on delete cascade,
    "order" int,
    "IsDeleted" boolean default false
);
create table "Automation Engine"."Automation Step" (
    "Id" bigint generated always as identity primary key,
    "AutomationId" bigint not null references "Automation Engine"."Automation" on delete cascade,
    "Kind" text
);
