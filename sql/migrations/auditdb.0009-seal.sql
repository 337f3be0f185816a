-- Seals: what a Merkle tree says of the events of ticks, so that no change goes unnoticed:
-- evidence/seal.sql.

create table if not exists audit.seal (
    id bigint primary key,
    tick_id bigint not null,
    month date not null,
    sealed_at timestamptz not null default clock_timestamp(),
    first_leaf bigint not null unique,
    first_at timestamptz,
    last_at timestamptz,
    ids bigint[] not null,
    salts bytea not null,
    leaves bytea not null,
    is_last boolean not null
);
create index if not exists seal_tick_id_idx on audit.seal (tick_id);
comment on table audit.seal is
    'Leaves of the Merkle tree, those of some events of a tick and a month a row. Append-only';
comment on column audit.seal.id is 'Ascending without gaps';
comment on column audit.seal.tick_id is 'The tick of the events';
comment on column audit.seal.month is 'The month of the events, as in audit.tick_month';
comment on column audit.seal.sealed_at is 'Clock of the server when it was made';
comment on column audit.seal.first_leaf is 'Place in the tree of its first leaf, from 0';
comment on column audit.seal.first_at is 'Time of the first event; null where it has none';
comment on column audit.seal.last_at is 'Time of the last event';
comment on column audit.seal.ids is 'The events, by time and id; each has a leaf, in this order';
comment on column audit.seal.salts is '16 bytes for each event, which blind its personal part';
comment on column audit.seal.leaves is
    'Hash of each leaf, 32 bytes; behind those of the last events of a tick, that of the tick and '
    'that of its organisations';
comment on column audit.seal.is_last is
    'Whether the tick ends with it, and has its two leaves in it';

create table if not exists audit.sealed_organization (
    id int primary key,
    organization_id text unique,
    salt bytea,
    key bytea not null unique,
    counted bigint not null default 0,
    total bigint not null default 0,
    tick_id bigint not null default 0,
    hash bytea not null
) with (fillfactor = 50);
comment on table audit.sealed_organization is
    'How many events of each organisation are sealed, and the end of the chain that proves it';
comment on column audit.sealed_organization.id is 'Ascending without gaps';
comment on column audit.sealed_organization.organization_id is 'The organisation';
comment on column audit.sealed_organization.salt is '16 bytes, which blind the organisation';
comment on column audit.sealed_organization.key is
    'The organisation, blinded: SHA-256 of salt and organisation';
comment on column audit.sealed_organization.counted is
    'Events that are sealed, with those of a tick of which the rest is not yet';
comment on column audit.sealed_organization.total is 'Events of whole ticks that are sealed';
comment on column audit.sealed_organization.tick_id is
    'The last tick with an event of it; 0 before the first';
comment on column audit.sealed_organization.hash is 'The last entry of its chain, hashed';

create table if not exists audit.organization_seal (
    tick_id bigint primary key,
    organizations int[] not null,
    totals bigint[] not null,
    former bigint[] not null,
    entries bytea not null,
    root bytea not null
);
comment on table audit.organization_seal is
    'What of a tick is of which organisation: an entry of the chain of each. Append-only';
comment on column audit.organization_seal.tick_id is 'The tick';
comment on column audit.organization_seal.organizations is
    'Those with an event in it, by audit.sealed_organization';
comment on column audit.organization_seal.totals is 'How many events each has by then';
comment on column audit.organization_seal.former is
    'The tick of the entry of each before; 0 for none';
comment on column audit.organization_seal.entries is 'The entry of each, hashed to 32 bytes';
comment on column audit.organization_seal.root is
    'Root of the map of all organisations by then, which the last leaf of the tick commits to';

create table if not exists audit.tile (
    level int not null,
    number bigint not null,
    nodes bytea not null,
    primary key (level, number)
);
comment on table audit.tile is
    'The Merkle tree above its leaves, as C2SP tlog-tiles: made of audit.seal, and so not believed';
comment on column audit.tile.level is 'From 1; the leaves are in audit.seal';
comment on column audit.tile.number is 'Place of the tile in its level, from 0';
comment on column audit.tile.nodes is 'Up to 256 hashes; the last tile of a level grows';

create table if not exists audit.checkpoint (
    id bigint generated always as identity primary key,
    made_at timestamptz not null default clock_timestamp(),
    size bigint not null,
    note text not null
);
create index if not exists checkpoint_size_idx on audit.checkpoint (size);
comment on table audit.checkpoint is
    'Heads of the tree as they were signed (C2SP tlog-checkpoint). Append-only';
comment on column audit.checkpoint.id is 'Ascending';
comment on column audit.checkpoint.made_at is 'Clock of the server when it was kept';
comment on column audit.checkpoint.size is 'How many leaves the tree has';
comment on column audit.checkpoint.note is 'The checkpoint, with its signatures';

create table if not exists audit.key_rotation (
    id bigint generated always as identity primary key,
    made_at timestamptz not null default clock_timestamp(),
    note text not null
);
comment on table audit.key_rotation is
    'Where a sealing key handed over to another, signed by the former. Append-only';
comment on column audit.key_rotation.id is 'Ascending';
comment on column audit.key_rotation.made_at is 'Clock of the server when it was kept';
comment on column audit.key_rotation.note is 'The name of the log and the new key, signed';

-- Hashes and salts do not compress.
do $$
begin
    alter table audit.seal alter column salts set storage external;
    alter table audit.seal alter column leaves set storage external;
    alter table audit.organization_seal alter column entries set storage external;
    alter table audit.tile alter column nodes set storage external;
end
$$;
