-- The conditions and the threshold of a subscription are checked when it is made.
-- export/conditions.py and export/threshold.py evaluate them; docs/export.md has the rules.

create or replace function audit_private.column_problem(path text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select case
        when column_problem.path in ('old_values', 'new_values', 'details')
            then format('say which of %s: %1$s.NAME', column_problem.path)
        when column_problem.path ~ '^(old_values|new_values|details)([.][^.<>~! ]+)+$'
            or column_problem.path = any (c.names) then null
        else format('an event has no column %s; it has %s, and NAME in old_values.NAME, '
            'new_values.NAME, details.NAME', quote_literal(column_problem.path),
            array_to_string(c.names, ', '))
        end
    from (
        select array_agg(a.attname::text order by a.attnum) as names
        from pg_attribute as a
        where a.attrelid = 'audit.event'::regclass and a.attnum > 0 and not a.attisdropped
            and a.atttypid <> 'jsonb'::regtype
    ) as c;
$$;
comment on function audit_private.column_problem is
    'Why a text names no column of an event, and no value in one; null if it does';

create or replace function audit_private.condition_problem(condition text) returns text
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select case
        when condition is null or length(condition) > 500 or condition ~ '[[:cntrl:]]'
            then 'a condition is a text of at most 500 characters, on one line'
        when condition !~ '='
            then format('%L is no condition: it is COLUMN=VALUE or COLUMN!=VALUE', condition)
        when w.value ~ '^[=~]'
            then format('%L is no condition: there are = and != alone', condition)
        when w.path = 'result' and not string_to_array(w.value, ',')
            <@ array['success', 'failure', 'denied']
            then format('%L is no condition: a result is success, failure or denied', condition)
        else audit_private.column_problem(w.path)
        end
    from (
        select regexp_replace(split_part(condition, '=', 1), '!$', '') as path,
            substr(condition, strpos(condition, '=') + 1) as value
    ) as w;
$$;
comment on function audit_private.condition_problem is
    'Why a text is no valid condition of a subscription; null if it is one';

create or replace function audit_private.check_conditions(
    conditions text[], at_least int, within interval, per text
) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _problem text := case
        when cardinality(check_conditions.conditions) > 20
            then 'a subscription has at most 20 conditions'
        when num_nonnulls(check_conditions.at_least, check_conditions.within) = 1
            then 'at_least and within belong together'
        when check_conditions.per is not null and check_conditions.at_least is null
            then 'per belongs to at_least and within'
        when check_conditions.at_least not between 2 and 1000
            then 'at_least is a number from 2 to 1000'
        when check_conditions.within not between interval '1 second' and interval '1 day'
            then 'within is a second to a day'
        when length(check_conditions.per) > 500
            then 'per is a text of at most 500 characters'
        else coalesce(
            (
                select min(p.problem)
                from unnest(check_conditions.conditions) as c (condition)
                    cross join lateral audit_private.condition_problem(c.condition) as p (problem)
            ),
            case when check_conditions.per is not null
                then audit_private.column_problem(check_conditions.per) end)
        end;
begin
    if _problem is not null then
        raise exception '%', _problem using errcode = 'invalid_parameter_value';
    end if;
end
$$;
comment on function audit_private.check_conditions is
    'Raises, with a message of one line, if conditions or a threshold are invalid';
