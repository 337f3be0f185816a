"""A plain trigger-and-table audit log, as most people write it; every attack must succeed on it.

The application logs in as the owner of its tables and of the log. The trigger function is open to
everybody and pins no search_path, the context is a setting, and row-level security trusts another.
Mappings and rules for admins are stored text that anybody may write: they are run as whoever comes.
"""

from __future__ import annotations

SETUP = """
do $$
begin
    if to_regrole('naive_app') is null then
        create role naive_app login password 'secret';
        create role naive_reader login password 'secret';
    end if;
end
$$;
create schema naive authorization naive_app;
set role naive_app;

create sequence naive.log_id_seq;
create table naive.log (
    id bigint not null default nextval('naive.log_id_seq'),
    occurred_at timestamptz not null default clock_timestamp(),
    action text not null,
    result text not null default 'success',
    actor_id text,
    actor_type text not null default 'user',
    organization_id text,
    subject_id text,
    source text not null default 'web',
    old_values jsonb,
    new_values jsonb,
    primary key (occurred_at, id)
) partition by range (occurred_at);
create table naive.log_month partition of naive.log for values from (minvalue) to ('2090-01-01');
create table naive.log_later partition of naive.log
    for values from ('2090-01-01') to ('2091-01-01');
create table naive.log_default partition of naive.log default;

create table naive.membership (
    organization_id int not null,
    user_id int not null,
    role text not null,
    updated_at timestamptz,
    primary key (organization_id, user_id)
);
insert into naive.membership values
    (1, 1, 'OWNER'), (1, 2, 'MEMBER'), (2, 3, 'ADMIN'), (2, 4, 'MEMBER');

create function naive.capture() returns trigger language plpgsql security definer as $$
declare
    _context jsonb := nullif(current_setting('naive.context', true), '')::jsonb;
begin
    insert into naive.log (action, actor_id, organization_id, old_values, new_values)
    values (lower(tg_op) || tg_table_name, _context ->> 'actor_id',
        coalesce(to_jsonb(new) ->> 'organization_id', to_jsonb(old) ->> 'organization_id'),
        to_jsonb(old), to_jsonb(new));
    return null;
end $$;
create trigger naive_capture after insert or update or delete on naive.membership
    for each row execute function naive.capture();

alter table naive.log enable row level security;
create policy of_my_organization on naive.log
    using (organization_id = current_setting('naive.organization', true));
create view naive.report as select action, organization_id from naive.log;
grant usage on schema naive to public;
grant select on naive.log, naive.log_month, naive.report to naive_reader;
create table naive.signing_key (id text, secret text);
insert into naive.log (action, organization_id, occurred_at)
values ('login', '1', now()), ('login', '2', now() - interval '1 s'), ('login', '2', '2090-02-01');

create table naive.mapping (
    target regclass primary key,
    organization text not null default 'r.organization_id',
    admin text not null default 'false'
);
grant select, insert, update, delete on naive.mapping to public;

create function naive.reattach(target regclass) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute (
        select format('select (%s)::text from %s as r limit 1', m.organization, m.target)
        from naive.mapping as m where m.target = reattach.target);
end $$;

create function naive.doctor() returns setof text
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    _m naive.mapping;
begin
    for _m in table naive.mapping loop
        execute format('select (%s)::text from %s as r limit 1', _m.organization, _m.target);
        execute format('select exists (select from %s as r where (%s))', _m.target, _m.admin);
    end loop;
exception when division_by_zero then
    return next sqlerrm;
end $$;

create function naive.is_admin(organization text) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    _m naive.mapping;
    _admin boolean;
begin
    for _m in table naive.mapping loop
        execute format('select exists (select from %s as r where (%s))', _m.target, _m.admin)
            into _admin;
        if _admin then
            return true;
        end if;
    end loop;
    return false;
end $$;

create function naive.mapped() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    _organization text;
begin
    execute (select format('select (%s)::text from (select ($1).*) as r', m.organization)
        from naive.mapping as m where m.target = tg_relid) into _organization using new;
    insert into naive.log (action, organization_id, new_values)
    values (lower(tg_op) || tg_table_name, _organization, to_jsonb(new));
    return null;
end $$;
reset role;
"""
