-- Reading at the centre. An auditor reads everything. A viewer reads one organisation of one
-- database: the token names it as database/organisation, and audit_collected.admin must allow it.

create or replace function audit_collected.viewer(out database text, out organization_id text)
-- Parallel unsafe for the reason given at audit.viewer_organization.
language plpgsql stable parallel unsafe security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _viewer text[];
begin
    _viewer := audit_private.read_token();
    select a.database, a.organization_id into database, organization_id
    from audit_collected.admin as a
    where a.database = split_part(_viewer[2], '/', 1)
        and a.organization_id = substr(_viewer[2], strpos(_viewer[2], '/') + 1)
        and strpos(_viewer[2], '/') > 0
        and a.user_id = _viewer[1];
exception when assert_failure or others then
    database := null;
    organization_id := null;
end
$$;
-- Definer: reads the signing keys, and who is an admin.
comment on function audit_collected.viewer is
    'The database and the organisation that the viewer token of this transaction may read, or null';

create or replace function audit_collected.viewer_start() returns bigint[]
language plpgsql stable parallel unsafe security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _viewer record := audit_collected.viewer();
begin
    return array[(
        select coalesce(max(s.first_id), 0) from audit_collected.organization_start as s
        where s.database = _viewer.database and s.organization_id = _viewer.organization_id)];
exception when assert_failure or others then
    return null;
end
$$;
-- Definer: reads the starts of organisations of all databases.
comment on function audit_collected.viewer_start is
    'Id of the first event of the organisation in view, as its database uses the identifier now';

-- A restored database uses ids again. Events of an earlier series are older, whatever their id.
create or replace function audit_collected.viewer_series() returns uuid[]
language plpgsql stable parallel unsafe security definer
set search_path = pg_catalog, pg_temp set row_security = on
as $$
declare
    _viewer record := audit_collected.viewer();
    _started_at timestamptz;
begin
    select max(s.started_at) into _started_at from audit_collected.organization_start as s
    where s.database = _viewer.database and s.organization_id = _viewer.organization_id;
    return array(
        select s.key from audit_collected.series as s
        where s.database = _viewer.database and s.number >= coalesce((
            select max(f.number) from audit_collected.series as f
            where f.database = s.database and f.began <> 'continued'
                and f.started_at <= _started_at), 0));
exception when assert_failure or others then
    return null;
end
$$;
-- Definer: reads the series and the starts of organisations of all databases.
comment on function audit_collected.viewer_series is
    'Keys of the series that hold events of the organisation in view, '
    'as its database uses the identifier now';

create or replace function audit_collected.visible_since() returns timestamptz[]
language plpgsql stable parallel unsafe security definer
set search_path = pg_catalog, pg_temp set row_security = on set timezone = 'UTC'
as $$
declare
    _viewer record := audit_collected.viewer();
begin
    return array[coalesce(clock_timestamp() - (
        select (e.new_values ->> 'keep')::interval from audit_collected.event as e
        where e.database = _viewer.database and e.action = 'audit.visibility_limited'
            and e.target_id = _viewer.organization_id
        order by e.occurred_at desc, e.id desc
        limit 1), '-infinity')];
exception when assert_failure or others then
    return null;
end
$$;
-- Definer: reads events of each database itself.
comment on function audit_collected.visible_since is
    'Since when the organisation in view may see events, as its database reported last';

-- Built from audit.log, so that it has the same columns in every release.
do $$
declare
    _log text := pg_get_viewdef('audit.log'::regclass);
    _collected text := regexp_replace(replace(_log, 'audit.event e', 'audit_collected.event e'),
        '^\s*SELECT', 'select e.database, e.series,');
begin
    -- The series of an event is the one it arrived with.
    _collected := replace(_collected, 'audit.series s', '(select c.id, ''installed'' as began, '
        '-1 as after_id from audit_collected.series as c '
        'where c.database = e.database and c.key = e.series) as s');
    if position('audit_collected.event e' in _collected) = 0
        or position(' audit.' in _collected) > 0
    then
        raise exception 'the definition of the view audit.log was changed'
            using errcode = 'object_not_in_prerequisite_state', hint = 'Run: auditdb install';
    end if;
    drop view if exists audit_collected.log;
    execute 'create view audit_collected.log with (security_invoker = true) as ' || _collected;
end
$$;
comment on view audit_collected.log is
    'The log of all databases: the columns database and series, then those of audit.log';

do $$
declare
    _table text;
begin
    foreach _table in array '{source,series,event,tick,organization_start,admin}'::text[] loop
        perform audit_private.set_policy('audit_collected.' || _table, 'the_owner_keeps', 'all',
            'audit_owner', 'using (true)');
        perform audit_private.set_policy('audit_collected.' || _table,
            'auditors_read_everything', 'select', 'audit_auditor', 'using (true)');
        perform audit_private.open_to_backups(('audit_collected.' || _table)::regclass);
    end loop;
    perform audit_private.set_policy('audit_collected.admin', 'operators_say_who', 'all',
        'audit_operator', 'using (true)');
    perform audit_private.set_policy('audit_collected.event', 'viewers_read_their_organization',
        'select', 'audit_reader',
        'using ((database, organization_id, true) = (select v.database, v.organization_id, '
        'v.database is not null from audit_collected.viewer() as v) '
        'and id >= any ((select audit_collected.viewer_start())::bigint[]) '
        'and series = any ((select audit_collected.viewer_series())::uuid[]) '
        'and occurred_at >= any ((select audit_collected.visible_since())::timestamptz[]))');
    perform audit_private.set_policy('audit_collected.series', 'viewers_read_their_database',
        'select', 'audit_reader',
        'using (database = (select v.database from audit_collected.viewer() as v))');
    foreach _table in array '{event,tick,organization_start}'::text[] loop
        perform audit_collected.guard(('audit_collected.' || _table)::regclass);
    end loop;
    foreach _table in array '{source,series,admin}'::text[] loop
        execute format('alter table audit_collected.%I enable row level security, '
            'force row level security', _table);
    end loop;
end
$$;

revoke all on schema audit_collected from public;
revoke all on all tables in schema audit_collected from public;
revoke all on all functions in schema audit_collected from public;
grant usage on schema audit_collected
    to audit_operator, audit_reader, audit_auditor, audit_backup;
grant select on audit_collected.event, audit_collected.log, audit_collected.series
    to audit_reader, audit_auditor;
grant execute on function audit_collected.viewer, audit_collected.viewer_start,
    audit_collected.viewer_series, audit_collected.visible_since to audit_reader;
grant select on audit_collected.source, audit_collected.tick, audit_collected.organization_start
    to audit_auditor;
grant select, insert (database, organization_id, user_id), delete
    on audit_collected.admin to audit_operator;
grant select on audit_collected.admin to audit_auditor;
grant select on all tables in schema audit_collected to audit_backup;
