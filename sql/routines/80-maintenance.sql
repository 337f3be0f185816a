-- Maintenance: a partition for each month, always some months ahead.
-- A partition is made apart and guarded before it is attached, which locks out no writer.

create or replace function audit.create_month(month date) returns regclass
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _first timestamptz := date_trunc('month', create_month.month::timestamp) at time zone 'UTC';
    _next timestamptz := (date_trunc('month', create_month.month::timestamp) + interval '1 month')
        at time zone 'UTC';
    _name text := 'event_' || to_char(create_month.month, 'YYYY_MM');
    _partition regclass := to_regclass(format('audit.%I', _name));
begin
    if exists (
        select from pg_inherits where inhrelid = _partition and inhparent = 'audit.event'::regclass
    ) then
        return null;
    end if;
    if exists (
        select from audit.event where occurred_at >= _first and occurred_at < _next
    ) then
        -- Already in DEFAULT: moving them is audit.maintain's work.
        return null;
    end if;
    if _partition is null then
        execute format('create table audit.%I (like audit.event including defaults including comments)',
            _name);
        _partition := format('audit.%I', _name)::regclass;
        execute format('comment on table %s is %L', _partition,
            format('Events of %s (UTC)', to_char(create_month.month, 'YYYY-MM')));
    end if;
    perform audit.guard(_partition);
    execute format('revoke all on %s from public', _partition);
    execute format('alter table audit.event attach partition %s for values from (%L) to (%L)',
        _partition, _first, _next);
    execute format('alter table %s enable always trigger refuse_change', _partition);
    return _partition;
end
$$;
comment on function audit.create_month(date) is
    'Makes the partition of one month (UTC), guarded, and attaches it; null if it is there already';

create or replace function audit.create_months(ahead int default 3) returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
    _month date;
    _made int := 0;
begin
    if create_months.ahead is null or create_months.ahead not between 1 and 120 then
        raise exception 'cannot keep % months ahead', create_months.ahead
            using errcode = 'invalid_parameter_value', hint = 'Give a number from 1 to 120.';
    end if;
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    for _month in
        select generate_series(date_trunc('month', now() at time zone 'UTC'),
            date_trunc('month', now() at time zone 'UTC') + make_interval(months => ahead),
            interval '1 month')::date
    loop
        if audit.create_month(_month) is not null then
            _made := _made + 1;
        end if;
    end loop;
    return _made;
end
$$;
-- Definer: partitions belong to audit_owner.
comment on function audit.create_months(int) is
    'Makes the partitions of this month and of the given number of months after it, where absent';

create or replace function audit.regenerate() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _id int;
begin
    for _id in
        select a.id from audit.attachment as a
        where exists (select from pg_class where oid = a.target)
        order by a.id
    loop
        perform audit.generate(_id);
    end loop;
end
$$;
comment on function audit.regenerate() is
    'Writes the functions of every attached table again, from the mapping in force; part of install';

create or replace function audit.version() returns text
language sql immutable set search_path = pg_catalog, pg_temp
return '0.1.0';
comment on function audit.version() is 'Version of auditdb that was last installed';

create or replace function audit.finish_install() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
begin
    perform audit.create_months();
    perform audit.regenerate();
    perform audit.record_own('installed', audit.version(), null, null);
end
$$;
comment on function audit.finish_install() is
    'Last step of install: partitions, capture functions, and the event that says so';
