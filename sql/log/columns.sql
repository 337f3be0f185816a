-- Columns of the log: their collation and statistics. Collation "C", so that an upgrade of the C
-- library hides no row from an index. Only id and time have statistics: EXPLAIN prints the
-- planner's estimates, and these would tell a reader about rows that row-level security hides.

create or replace function audit_private.open_columns() returns name[]
language sql immutable set search_path = pg_catalog, pg_temp
return '{id,occurred_at}'::name[];
comment on function audit_private.open_columns is
    'Columns of the log that keep statistics, because these show only how large the log is';

create or replace function audit_private.wrong_columns()
returns table (relation regclass, name name, problem text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select a.attrelid::regclass, a.attname, p.problem
    from pg_partition_tree('audit.event') as t
        join pg_attribute as a on a.attrelid = t.relid and a.attnum > 0 and not a.attisdropped
        cross join lateral (values
            ('is not compared by its bytes', a.atttypid = 'text'::regtype
                and a.attcollation <> 'pg_catalog."C"'::regcollation),
            ('has statistics', a.attname <> all (audit_private.open_columns())
                and (coalesce(a.attstattarget, -1) <> 0 or a.attoptions::text like '%n_distinct%'))
        ) as p (problem, is_so)
    where p.is_so
    union all
    -- An index on an expression has statistics of its own.
    select i.indexrelid::regclass, a.attname, 'has statistics'
    from pg_partition_tree('audit.event') as t
        join pg_index as i on i.indrelid = t.relid and i.indexprs is not null
        join pg_attribute as a on a.attrelid = i.indexrelid
    where coalesce(a.attstattarget, -1) <> 0
        and (string_to_array(i.indkey::text, ' '))[a.attnum] = '0';
$$;
comment on function audit_private.wrong_columns is
    'Columns of the log, of its partitions and of indexes on expressions '
    'whose collation or statistics are wrong';

create or replace function audit_private.close_statistics(relation regclass) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _actions text := (
        select string_agg(format('alter column %I set statistics 0', attname), ', ')
        from pg_attribute
        where attrelid = close_statistics.relation and attnum > 0 and not attisdropped
            and attname <> all (audit_private.open_columns()));
begin
    execute format('alter table only %s %s', close_statistics.relation, _actions);
end
$$;
comment on function audit_private.close_statistics is
    'Stops ANALYZE from sampling the columns of a table of the log; existing statistics stay';

create or replace function audit_private.refuse_dependents() returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _views text := (
        select string_agg(v.oid::regclass::text, ', ' order by v.oid::regclass::text)
        from pg_class as v
        where v.relkind in ('v', 'm')
            and v.relnamespace <> all ('{audit,audit_private}'::regnamespace[])
            and exists (
                select from pg_rewrite as w
                    join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
                        and d.refclassid = 'pg_class'::regclass and d.refobjid <> v.oid
                    join pg_class as c on c.oid = d.refobjid
                where w.ev_class = v.oid
                    and c.relnamespace = any ('{audit,audit_private}'::regnamespace[])
                    and (c.relkind = 'v'
                        or c.oid in (select relid from pg_partition_tree('audit.event')))
            ));
begin
    if _views is not null then
        raise exception 'columns of the log cannot be altered while your own views read it: %',
                _views
            using errcode = 'dependent_objects_still_exist',
                hint = 'Save pg_get_viewdef of each view, drop it, install, and create it again.';
    end if;
end
$$;
comment on function audit_private.refuse_dependents is
    'Raises if views outside of the schema audit read the log: auditdb must not drop these';

create or replace function audit_private.view_commands(out drop_all text, out create_all text[])
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select 'drop view ' || string_agg(v.oid::regclass::text, ', '),
        array_agg(format('create view %s%s as %s', v.oid::regclass,
            ' with (' || array_to_string(v.reloptions, ', ') || ')', pg_get_viewdef(v.oid))
            order by v.oid)
        || array_agg(format('comment on view %s is %L', v.oid::regclass,
            obj_description(v.oid, 'pg_class')))
        || array(
            select format('grant %s%s on %s to %s%s', x.privilege_type, ' (' || g.name || ')',
                g.relation, case x.grantee when 0 then 'public' else x.grantee::regrole::text end,
                case when x.is_grantable then ' with grant option' else '' end)
            from (
                select oid::regclass, null, relacl from pg_class
                union all
                select attrelid::regclass, quote_ident(attname), attacl from pg_attribute
            ) as g (relation, name, acl)
                cross join lateral aclexplode(g.acl) as x
            where g.relation = any (array_agg(v.oid::regclass))
                and x.grantee <> 'audit_owner'::regrole)
    from pg_class as v
    where v.relnamespace = any ('{audit,audit_private}'::regnamespace[]) and v.relkind = 'v'
        and v.relowner = 'audit_owner'::regrole;
$$;
comment on function audit_private.view_commands is
    'Commands that drop the views of the log, and commands that create them again, with grants';

create or replace function audit_private.policy_commands(out drop_all text[], out create_all text[])
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select array_agg(format('drop policy %I on %s', p.polname, p.polrelid::regclass)),
        array_agg(format('create policy %I on %s as %s for %s to %s%s%s', p.polname,
            p.polrelid::regclass,
            case when p.polpermissive then 'permissive' else 'restrictive' end,
            case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
                when 'd' then 'delete' else 'all' end,
            (select string_agg(case o when 0 then 'public' else o::regrole::text end, ', ')
                from unnest(p.polroles) as o),
            ' using (' || pg_get_expr(p.polqual, p.polrelid) || ')',
            ' with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')'))
    from pg_policy as p
    where p.polrelid in (select relid from pg_partition_tree('audit.event'));
$$;
comment on function audit_private.policy_commands is
    'Commands that drop the policies of the log, and commands that create them again';

create or replace function audit_private.alter_columns() returns void
-- Setting a column to its own type again rewrites no row, and removes its statistics.
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _actions text := (
        select string_agg(format('alter column %I type %s%s', attname,
            format_type(atttypid, atttypmod),
            case when atttypid = 'text'::regtype then ' collate pg_catalog."C"' else '' end), ', ')
        from pg_attribute
        where attrelid = 'audit.event'::regclass and attnum > 0 and not attisdropped
            and attname <> all (audit_private.open_columns()));
begin
    execute format('alter table audit.event %s', _actions);
    -- The statistics of an index on an expression cannot be removed.
    if exists (
        select from audit_private.wrong_columns()
        where relation = to_regclass('audit.event_default_arrived_in_idx')
    ) then
        drop index audit.event_default_arrived_in_idx;
        perform audit_private.index_default();
    end if;
end
$$;
comment on function audit_private.alter_columns is
    'Sets the collation of the columns of the log and of its partitions, '
    'and removes their statistics';

create or replace function audit_private.is_index_right() returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return exists (
        -- An index that a partition lacks is invalid.
        select from pg_index
        where indexrelid = to_regclass('audit.event_organization_id_idx') and indisvalid
            and pg_get_indexdef(indexrelid) = 'CREATE INDEX event_organization_id_idx '
                'ON ONLY audit.event USING btree '
                '(organization_id, occurred_at DESC, id DESC, action, actor_id, target_id)')
    and not exists (select from audit_private.wrong_columns() where problem like '%bytes');
comment on function audit_private.is_index_right is
    'Whether the index for reading pages is that of this release';

-- Building the index of a month that is over makes no writer wait. It names its collations, so that
-- it stays valid when the columns get them.
create or replace function audit_private.prebuild_indexes() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _month date;
    _name text;
begin
    foreach _month in array audit_private.months_attached() loop
        continue when (audit_private.month_bounds(_month)).ends > now();
        _name := 'event_' || to_char(_month, 'YYYY_MM');
        execute format('create index %I on audit.%I (organization_id collate pg_catalog."C", '
            'occurred_at desc, id desc, action collate pg_catalog."C", '
            'actor_id collate pg_catalog."C", target_id collate pg_catalog."C")',
            'new ' || _name, _name);
    end loop;
end
$$;
comment on function audit_private.prebuild_indexes is
    'Builds the new index of each month that is over, beside the old one';

create or replace function audit_private.join_indexes() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _index regclass;
    _name text;
begin
    for _index, _name in
        select oid, substr(relname, 5) || '_organization_id_occurred_at_id_action_actor_i_idx'
        from pg_class
        where relnamespace = any ('{audit,audit_private}'::regnamespace[])
            and relkind = 'i' and relname ~ '^new event_'
    loop
        -- An index that a restore left without its parent.
        execute format('drop index if exists audit.%I', _name);
        execute format('alter index %s rename to %I', _index, _name);
    end loop;
    -- Takes over the indexes that months have already, and builds those of the others.
    create index event_organization_id_idx
        on audit.event (organization_id, occurred_at desc, id desc, action, actor_id, target_id);
end
$$;
comment on function audit_private.join_indexes is
    'Replaces the index for reading pages by the one that was built beside it';

create or replace function audit_private.furnish_columns() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _views record;
    _policies record;
    _command text;
    _is_index_right boolean := audit_private.is_index_right();
begin
    if _is_index_right and not exists (select from audit_private.wrong_columns()) then
        return;
    end if;
    perform audit_private.refuse_dependents();
    perform audit_private.close_statistics(relid) from pg_partition_tree('audit.event');
    if not _is_index_right then
        perform audit_private.prebuild_indexes();
    end if;
    -- Writers and readers wait from here to the commit.
    perform audit_private.lock_briefly('audit.event', 'access exclusive');
    select * into _views from audit_private.view_commands();
    select * into _policies from audit_private.policy_commands();
    foreach _command in array _views.drop_all || _policies.drop_all loop
        execute _command;
    end loop;
    if not _is_index_right then
        drop index if exists audit.event_organization_id_idx,
            audit.event_organization_id_occurred_at_id_idx;
    end if;
    perform audit_private.alter_columns();
    if not _is_index_right then
        perform audit_private.join_indexes();
    end if;
    foreach _command in array _policies.create_all || _views.create_all loop
        execute _command;
    end loop;
end
$$;
comment on function audit_private.furnish_columns is
    'Corrects the columns of the log, and the index for reading pages, if they differ from this '
    'release; part of install. Writers wait while the index of this month is built';

create or replace function audit_private.add_db_role() returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
    _relation regclass;
begin
    if exists (
        select from pg_attribute where attrelid = 'audit.event'::regclass and attname = 'db_role'
    ) then
        return;
    end if;
    -- Slow work is done before the lock.
    perform audit_private.regenerate();
    perform audit_private.furnish_columns();
    perform audit_private.lock_briefly('audit.event', 'access exclusive');
    -- Without a default, existing events keep null; a default would give them the present role.
    alter table audit.event add column db_role text collate pg_catalog."C";
    alter table audit.event alter column db_role
        set default nullif(nullif(current_setting('role'), 'none'), session_user);
    for _relation in select relid from pg_partition_tree('audit.event') loop
        perform audit_private.close_statistics(_relation);
        execute format('comment on column %s.db_role is %L', _relation,
            'Role taken by SET ROLE, null where none is or it is db_user. The server lets a login '
            'take those alone that it may become');
    end loop;
end
$$;
comment on function audit_private.add_db_role is
    'Adds the column db_role to the log of an older release; existing events keep null; '
    'part of install';

create or replace function audit.mend_columns() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp set lock_timeout = '2s'
as $$
declare
    _wrong jsonb;
begin
    perform pg_advisory_xact_lock(hashtextextended('auditdb', 0));
    _wrong := (select jsonb_object_agg(concat(relation, ' ', name), problem)
        from audit_private.wrong_columns());
    perform audit_private.furnish_columns();
    perform audit_private.record_own('mended', 'audit.event', _wrong, null);
end
$$;
-- Definer: the log belongs to audit_owner.
comment on function audit.mend_columns is
    'Restores the collation of columns and removes their statistics. Writers and readers wait; if '
    'a collation was wrong, until the indexes are built again';
