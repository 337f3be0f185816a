-- States: what the columns of a table tell of its rows: whether a row counts, and whether a
-- membership is more than an invitation. The result is null if the table does not tell.

create or replace function audit_private.labels_of(target regclass, attnum int2) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
return (
    select coalesce(
        (
            select array_agg(enumlabel::text order by enumsortorder)
            from pg_enum
            where enumtypid in (b.oid, case when b.typcategory = 'A' then b.typelem end)
        ),
        (
            select array_agg(replace(literal[1], '''''', '''') order by c.oid, n)
            from pg_constraint as c
                cross join regexp_matches(pg_get_constraintdef(c.oid), '''((?:[^'']|'''')*)''', 'g')
                    with ordinality as m (literal, n)
            where contype = 'c'
                and (conrelid = a.attrelid and conkey = array[a.attnum] or contypid = a.atttypid)
        ),
        '{}')
    from pg_attribute as a join pg_type as b on b.oid = audit_private.base_type(a.atttypid)
    where a.attrelid = labels_of.target and a.attnum = labels_of.attnum
);
comment on function audit_private.labels_of is
    'The possible values of a column: the labels of its enum, or the literals of its constraints';

create or replace function audit_private.columns_of(target regclass)
returns table (attnum int2, attname name, flat text, category "char", is_needed boolean)
language sql stable set search_path = pg_catalog, pg_temp
begin atomic
    select a.attnum, attname, lower(replace(attname, '_', '')), typcategory, attnotnull
    from pg_attribute as a join pg_type as t on t.oid = audit_private.base_type(atttypid)
    where attrelid = columns_of.target and a.attnum > 0 and not attisdropped
        and attgenerated <> 'v'
    order by 1;
end;
comment on function audit_private.columns_of is
    'Columns of a table that a trigger sees, with their names in lower case without underscores';

create or replace function audit_private.one_of(value text, labels text[]) returns text
language sql immutable set search_path = pg_catalog, pg_temp
return (
    select value || case count(*) when 1 then ' = ' || quote_literal(min(label))
        else ' in (' || string_agg(quote_literal(label), ', ' order by n) || ')' end
    from unnest(labels) with ordinality as l (label, n)
);
comment on function audit_private.one_of is
    'Condition that a value is one of the labels';

create or replace function audit_private.labels_that(labels text[], entry text) returns text[]
language sql immutable set search_path = pg_catalog, pg_temp
return (
    select coalesce(array_agg(label order by n), '{}')
    from unnest(labels) with ordinality as l (label, n)
    where regexp_replace(lower(label), '[^a-z]', '', 'g')
        ~ ('^' || audit_private.words(labels_that.entry) || '$')
);
comment on function audit_private.labels_that is
    'Those of the labels that an entry of the vocabulary matches';

create or replace function audit_private.status_of(target regclass, kind text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case
        when kind = 'accepted' then case
            when s.labels = '{}' then audit_private.one_of(format('lower(r.%I::text)', attname),
                string_to_array(btrim(audit_private.words('living'), '()'), '|'))
            when s.ended <> '{}' then coalesce(audit_private.one_of(format('r.%I', attname), array(
                select label from unnest(s.labels) with ordinality as u (label, n)
                where label <> all (s.ended) order by n)), 'false') end
        when kind = 'two_factor' then
            audit_private.one_of(format('r.%I', attname),
                audit_private.labels_that(s.labels, 'on_two_factor'))
        when audit_private.words('on_' || kind) is null then null
        when s.labels = '{}' then '(' || audit_private.one_of(format('lower(r.%I::text)', attname),
            string_to_array(btrim(audit_private.words('dead'), '()'), '|')) || ') is not true'
        else '(' || audit_private.one_of(format('r.%I', attname), s.dead) || ') is not true' end
    from audit_private.columns_of(status_of.target)
        cross join audit_private.labels_of(target, attnum) as l (labels)
        cross join lateral (
            select l.labels, audit_private.labels_that(l.labels, 'dead') as dead,
                audit_private.labels_that(l.labels, 'dead')
                    || audit_private.labels_that(l.labels, 'pending') as ended
        ) as s
    where category in ('E', 'S') and flat ~ ('^' || audit_private.words('status') || '$')
    order by attnum limit 1
);
comment on function audit_private.status_of is
    'Condition on a column such as status: that a row of a kind counts, or that it is accepted';

create or replace function audit_private.accepted(target regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select string_agg(condition, ' and ' order by attnum)
    from (
        select attnum, format(case
            when category = 'B' and flat ~ ('^(is|has)?' || audit_private.words('accepted') || '$')
                then 'r.%I is true'
            when category = 'B' and flat ~ ('^(is)?' || audit_private.words('pending_flag') || '$')
                then 'r.%I is not true'
            when category = 'D' and flat ~ '^(invitation|invite)acceptedat$'
                and sent is not null then format('(r.%%I is not null or r.%I is null)', sent)
            when category = 'D' and flat
                ~ ('^(invitation|invite)?' || audit_private.words('accepted') || '(at|on)$')
                -- activeat is the time when a user was last seen.
                and flat <> 'activeat'
                then 'r.%I is not null'
            when category = 'D'
                and flat ~ ('^' || audit_private.words('pending_flag') || '(at|on)$')
                and flat !~ 'invit'
                then 'r.%I is null' end, attname)
        from audit_private.columns_of(accepted.target)
            cross join audit_private.column_like(
                accepted.target, '(invitation|invite)sentat', 'invitedat') as sent
        union all
        select 10000, audit_private.status_of(accepted.target, 'accepted')
    ) as said (attnum, condition)
);
comment on function audit_private.accepted is
    'Condition that a membership is more than an invitation, and not suspended';

-- Skipped if the time may be that of an invitation.
create or replace function audit_private.unexpired(target regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format('(r.%1$I is null or r.%1$I > now())', attname)
    from audit_private.columns_of(unexpired.target)
    where category = 'D' and not is_needed and flat ~ '^(access|role)?'
            '(expires?|expiry|expiration|valid(until|to|thru))(at|on|date|time)?$'
        and not exists (
            select from audit_private.columns_of(unexpired.target) as o
            where o.flat ~ '(invit|token)')
    order by attnum limit 1
);
comment on function audit_private.unexpired is
    'Condition that the time of a membership or a role has not expired; null if there is no time';

-- A token that expires, or is sent, confirms an address or resets a password.
create or replace function audit_private.token_column(target regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select c.attname
    from audit_private.columns_of(token_column.target) as c
    where c.category in ('S', 'U')
        and c.flat ~ '^((personal|static)?(api|personalaccess)(token|key)'
            '|(auth|authentication)?token)(hash|digest|sha256)?$'
        and not exists (
            select from audit_private.columns_of(token_column.target) as o
            where o.flat ~ ('^' || c.flat || '(type|purpose|use|kind|scope)$')
                or c.flat !~ 'api|personal'
                    and o.flat ~ ('^' || c.flat || '(.*at|.*on|.*expir.*|.*until|date|time)$'))
    order by c.flat ~ 'api|personal' desc, c.attnum
    limit 1
);
comment on function audit_private.token_column is
    'The column of a user''s row that holds a key with which a program signs in as the user';

create or replace function audit_private.fact_column(target regclass, fact text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return case fact
    when 'email' then audit_private.column_like(target,
        'email', '(primary|user|login)?email(address)?', 'mail')
    when 'password' then audit_private.column_like(target,
        '(hashed|encrypted)?pass(word|phrase)(hash|digest|encrypted)?', '.*passw.*hash.*', 'passwd',
        '(passcode|pwd)(hash|digest)?')
    when 'token' then audit_private.token_column(target)
    else (
        select attname
        from audit_private.columns_of(fact_column.target)
        where flat ~ (audit_private.words('two_factor') || '|^otp|otp(enabled|required|active)?$')
            -- A column that requires or suggests two-factor does not say that it is on.
            and flat !~ '(requir|enforc|mandatory|must|need|skip|prompt|remind|dismiss)'
            and (category = 'B'
                or category = 'D' and flat ~ '(enabled|confirmed|activated|verified)'
                or category in ('S', 'E', 'N') and flat ~ '(enabled|active|status|state)$'
                -- A secret that exists only while two-factor is on.
                or category = 'S' and not is_needed and flat ~ 'secret$')
        order by category = 'B' desc, flat ~ '(enabled|active)' desc, category = 'D' desc, attnum
        limit 1
    ) end;
comment on function audit_private.fact_column is
    'The column of a user''s row whose name fits a fact: an e-mail, a password, two-factor or a '
    'token';

-- An account at another provider has a row in the same table, without a password.
create or replace function audit_private.has_password(target regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select format('r.%I is not null', attname)
    from audit_private.columns_of(has_password.target)
    where attname = coalesce(audit_private.fact_column(target, 'password'),
            audit_private.column_like(target, 'hash', 'digest', 'value', 'hashedvalue',
                'secrethash')) and not is_needed
);
comment on function audit_private.has_password is
    'Condition that a row of a table of passwords holds one; null if each row does';

-- Recovery codes replace a factor, but are none.
create or replace function audit_private.is_factor(target regclass) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case when labels = '{}' then format('(translate(lower(r.%I::text), '' _-'', '''') in '
            '(''recoverycodes'', ''recoverycode'', ''recovery'', ''backupcodes'', ''backupcode'', '
            '''backup'', ''scratchcodes'', ''scratchcode'')) is not true', attname)
        else '(' || audit_private.one_of(format('r.%I', attname), codes) || ') is not true' end
    from audit_private.columns_of(is_factor.target)
        cross join audit_private.labels_of(target, attnum) as l (labels)
        cross join audit_private.labels_that(l.labels, 'recovery') as r (codes)
    where category in ('E', 'S')
        and flat ~ '^((second)?factor|authenticator|device|mfa|tfa|otp|credential)?'
            '(type|kind|method)$'
    order by attnum limit 1
);
comment on function audit_private.is_factor is
    'Condition that a row is a second factor, not recovery codes; null if no column tells';

create or replace function audit_private.default_alive(target regclass, kind text) returns text
language sql stable set search_path = pg_catalog, pg_temp
return (
    select string_agg(condition, ' and ' order by attnum)
    from (
        select attnum, format(case
            when category = 'D' and not is_needed and flat ~ (ended || '(at|on|date)$')
                then 'r.%I is null'
            when category = 'N' and not is_needed and flat ~ (ended || '(at|on)$')
                then 'coalesce(r.%I, 0) = 0'
            when category = 'D' and kind = 'two_factor' and flat ~ (counts || '(at)?$')
                then 'r.%I is not null'
            -- A permission to delete does not end the row.
            when category = 'B' and flat ~ (ended || '$') and flat <> 'delete'
                then 'r.%I is not true'
            when category = 'B' and flat ~ (counts || '$') then 'r.%I is true' end, attname)
        from audit_private.columns_of(default_alive.target)
            cross join (
                select '^(is)?(' || concat_ws('|', 'delete', audit_private.words('ended'),
                        audit_private.words('ended_' || default_alive.kind)) || ')' as ended,
                    '^(is)?' || audit_private.words('on_' || default_alive.kind) as counts
            ) as w
        union all
        select 10000, audit_private.status_of(default_alive.target, default_alive.kind)
        union all
        select 10001, case default_alive.kind
            when 'password' then audit_private.has_password(default_alive.target)
            when 'two_factor' then audit_private.is_factor(default_alive.target) end
    ) as said (attnum, condition)
);
comment on function audit_private.default_alive is
    'Expression for rows that count: not ended by a soft delete or a status; '
    'null if every row counts';

create or replace function audit_private.fact_columns(target regclass, fact text, attname text)
returns jsonb
language sql stable set search_path = pg_catalog, pg_temp
return (
    -- The secret and the backup codes of two-factor come and go with the flag.
    select jsonb_agg(c.attname order by attnum)
    from audit_private.columns_of(fact_columns.target) as c
    where c.attname = fact_columns.attname or fact = 'two_factor'
        and flat ~ (audit_private.words('two_factor')
            || '|(backup|recovery|scratch)codes?|^otp|otp$')
);
comment on function audit_private.fact_columns is
    'Columns whose change makes the event of a fact';

create or replace function audit_private.user_facts(target regclass, given jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    _facts jsonb := '[]';
    _name text;
    _wanted text;
    _column text;
begin
    foreach _name in array array['email', 'password', 'two_factor', 'token'] loop
        _wanted := coalesce(user_facts.given ->> _name, audit_private.fact_column(target, _name));
        continue when coalesce(_wanted, '') = '';
        if _name = 'two_factor' and user_facts.given -> 'redact' ? _wanted then
            raise exception 'option "redact" names column "%", which says whether two-factor is on',
                    _wanted
                using errcode = 'invalid_parameter_value',
                    hint = 'Do not redact it; secrets and backup codes are redacted by name.';
        end if;
        _column := (
            select attname
            from pg_attribute
            where attrelid = user_facts.target and attnum > 0 and not attisdropped
                and _wanted in (attname, quote_ident(attname), '"' || attname || '"'));
        if _column is null then
            raise exception 'option "%" names column "%", which % does not have', _name, _wanted,
                    target
                using errcode = 'undefined_column',
                    hint = 'email, password, two_factor and token each take the name of a column.';
        end if;
        _facts := _facts || jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
            'column', _column,
            'action', case _name when 'email' then 'auth.email_changed'
                when 'password' then 'auth.password_changed' end,
            'verbs', case _name when 'token' then audit_private.verbs_of(
                audit_private.kind_of('api_key')) end,
            'columns', audit_private.fact_columns(target, _name, _column))));
    end loop;
    return _facts;
end
$$;
comment on function audit_private.user_facts is
    'The facts in a user''s row that have events of their own: e-mail, password, two-factor, token';
