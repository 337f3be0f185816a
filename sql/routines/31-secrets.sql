-- Secrets: which columns of a table hold them, and how they are taken out of values.
-- No function here raises, whatever it is given. Where a value cannot be taken apart and may hold
-- a secret, all of it is redacted: the detail is lost, never the event.

-- Columns

create or replace function audit.base_type(type oid) returns oid
language sql stable set search_path = pg_catalog, pg_temp
return (
    with recursive t (oid, typtype, typbasetype) as (
        select oid, typtype, typbasetype from pg_type where oid = base_type.type
        union all
        select b.oid, b.typtype, b.typbasetype
        from t join pg_type as b on b.oid = t.typbasetype
        where t.typtype = 'd'
    )
    select oid from t where typtype <> 'd'
);
comment on function audit.base_type(oid) is 'The type that a domain is made of, else the type';

create or replace function audit.is_store(target regclass, kind text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case
        when is_store.kind in ('password', 'two_factor', 'api_key') then true
        when is_store.kind in ('user', 'membership', 'admin') then false
        when audit.says_store(n.name) then true
        when audit.says_store_with_a_secret(n.name) then exists (
            select from pg_attribute join pg_type as t on t.oid = atttypid
            where attrelid = is_store.target and attnum > 0 and not attisdropped
                and t.typcategory not in ('B', 'D', 'T') and audit.is_secret(attname))
        else false end
    from pg_class as c cross join audit.normal_name(c.relname) as n (name)
    where c.oid = is_store.target
);
comment on function audit.is_store(regclass, text) is
    'Whether a table holds credentials: by the kind, else by its name and its columns';

create or replace function audit.is_harmless_type(type oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case
        when b.typcategory = 'A' and b.typelem <> 0
            then e.typcategory in ('B', 'D', 'T', 'N', 'I', 'E') or e.oid = 'uuid'::regtype
        else b.typcategory in ('B', 'D', 'T', 'N', 'I', 'E') or b.oid = 'uuid'::regtype end
    from pg_type as b
        left join pg_type as e on e.oid = audit.base_type(b.typelem)
    where b.oid = audit.base_type(is_harmless_type.type)
);
comment on function audit.is_harmless_type(oid) is
    'Whether values of a type are too plain for a credential: flags, times, numbers, enums, uuids';

-- An id that is made of a prefix and the hash of a key has room for the hash.
create or replace function audit.holds_hash(target regclass, attnum int2) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return exists (
    select from pg_attribute as a
        join pg_attribute as h on h.attrelid = a.attrelid and h.attnum > 0 and not h.attisdropped
            and h.attnum <> a.attnum and h.atttypid = a.atttypid and h.atttypmod = a.atttypmod
        join pg_attribute as p on p.attrelid = a.attrelid and p.attnum > 0 and not p.attisdropped
    where a.attrelid = holds_hash.target and a.attnum = holds_hash.attnum
        and a.atttypid = 'varchar'::regtype and a.atttypmod > 64
        and audit.normal_name(h.attname) ~ '(^|_)(hash|hashed|digest)(_|$)'
        and audit.normal_name(p.attname) ~ '(^|_)prefix$'
);
comment on function audit.holds_hash(regclass, int2) is
    'Whether an identifier looks made of the prefix and the hash that stand beside it';

create or replace function audit.is_secret_column(
    target regclass,
    attnum int2,
    store boolean,
    connector boolean
) returns boolean
language sql stable set search_path = pg_catalog, pg_temp
return (
    select case
        when t.typcategory in ('B', 'D', 'T') then false
        -- A number or a uuid that is called an id points at a row, and opens nothing.
        when (t.typcategory = 'N' or t.oid = 'uuid'::regtype) and n.name ~ '(^|_|[a-z])ids?$'
            then false
        when audit.is_secret(a.attname) then true
        when not is_secret_column.store and not is_secret_column.connector
            and not audit.says_headers(n.name) then false
        when audit.is_harmless_type(a.atttypid) then false
        when audit.says_headers(n.name) then true
        when is_secret_column.connector and audit.says_settings(n.name) then true
        when not is_secret_column.store then false
        else not audit.says_harmless(n.name) or audit.holds_hash(a.attrelid, a.attnum) end
    from pg_attribute as a
        join pg_type as t on t.oid = audit.base_type(a.atttypid)
        cross join audit.normal_name(a.attname) as n (name)
    where a.attrelid = is_secret_column.target and a.attnum = is_secret_column.attnum
);
comment on function audit.is_secret_column(regclass, int2, boolean, boolean) is
    'Whether a column is redacted by default, by its name and type and by what its table holds';

-- A foreign key holds what the column holds that it leads to.
create or replace function audit.secret_columns(target regclass, kind text) returns text[]
language sql stable set search_path = pg_catalog, pg_temp
return (
    with recursive way (attname, origin, relid, attnum, is_link) as (
        select attname, attnum, attrelid, attnum, false
        from pg_attribute
        where attrelid = secret_columns.target and pg_attribute.attnum > 0 and not attisdropped
        union
        select way.attname, way.origin, c.confrelid, f.confkey, true
        from way
            join pg_constraint as c on c.conrelid = way.relid and c.contype = 'f'
            cross join unnest(c.conkey, c.confkey) as f (conkey, confkey)
        where f.conkey = way.attnum
    ),
    ends as (
        select way.*, audit.is_store(w.relation, k.kind) as store,
            audit.says_connector(audit.normal_name(r.relname)) as connector
        from way
            cross join lateral (select way.relid::regclass) as w (relation)
            join pg_class as r on r.oid = way.relid
            cross join lateral (
                select case when way.relid = secret_columns.target then secret_columns.kind
                    else (select a.kind from audit.attachment as a where a.target = w.relation) end
            ) as k (kind)
        -- Of a foreign key, what it leads to decides.
        where not exists (
            select from pg_constraint as c
            where c.conrelid = way.relid and c.contype = 'f' and way.attnum = any (c.conkey)
                and (c.confrelid <> way.relid or not way.attnum = any (c.confkey)))
    )
    select coalesce(array_agg(attname::text order by origin), '{}')
    from (
        select attname, origin
        from ends
        where audit.is_secret_column(relid::regclass, attnum, store, connector)
        group by attname, origin
    ) as found
);
comment on function audit.secret_columns(regclass, text) is
    'Columns of a table that are redacted by default: secrets by their names, and in a table of '
    'credentials whatever is not known to be harmless';

-- Values

-- The first look at a text, short so that it is inlined. It asks for what sets off a secret from
-- the text around it: a colon, an equals sign, a tag, an option of a command, bytes in hex, or one
-- of the beginnings that keys are known by.
create or replace function audit.may_hold_secret(value text) returns boolean
language sql immutable parallel safe
return value collate "C" like '%:%' or value collate "C" like '%=%'
    or value collate "C" like '%<%' or value collate "C" like '%--%'
    or value collate "C" like '\\x%' or value collate "C" like '%eyJ%'
    or value collate "C" like '%\___\_%' or value collate "C" like '%AKIA%';
comment on function audit.may_hold_secret(text) is
    'Whether audit.redact_text has anything to look for: false for most short texts, at hardly any '
    'cost';

-- Keys that are known by their shape, wherever they stand.
create or replace function audit.key_shapes() returns text
language sql immutable parallel safe
return '\meyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*'
    '|\m(?:sk|pk|rk|whsec|sbp|key|pat|api)_(?:live|test|prod)_[A-Za-z0-9]{10,}'
    '|\m(?:gh[pousr]|github_pat|glpat|npm|dop_v1|shpat|shpss|lin_api|whsec)[_-][A-Za-z0-9_-]{16,}'
    '|\mxox[abeoprs]-[A-Za-z0-9-]{10,}|\m(?:AKIA|ASIA)[A-Z0-9]{16}\M|\mAIza[A-Za-z0-9_-]{30,}';
comment on function audit.key_shapes() is
    'Pattern for keys that are known by their shape';

-- The second look: what redact_steps would change has one of these, whatever the case.
create or replace function audit.secret_signs() returns text
language sql immutable parallel safe
return audit.secret_stems()
    || '|://[^\s/@]*@|-----begin|\m(?:bearer|basic)\s|\\u00[3-7]|%[3-7][0-9a-f]'
    '|[?&#;][\w.+-]*(?:key|sig|code|sid|auth|ticket|pass|state|nonce|sas|hmac|otp)[\w]*='
    '|eyJ|_(?:live|test|prod)_|gh[pousr]_|_pat_|glpat|npm_|dop_v1|shpat|shpss|lin_api|whsec'
    '|xox[abeoprs]-|akia|asia|aiza|headers?"';
comment on function audit.secret_signs() is
    'Pattern, whatever the case, for texts and documents that have to be taken apart';

-- A value as it may follow a name: in quotes, in quotes that are escaped, or in brackets, whose end
-- no pattern tells, so that all that follows belongs to it.
create or replace function audit.quoted_value() returns text
language sql immutable parallel safe
return '[bru]?"(?:[^"\\]|\\.|"")*(?:"|\\?$)|[bru]?''(?:[^''\\]|\\.|'''')*(?:''|\\?$)'
    '|\\+"(?:[^"]|"(?!\s*[,}\]]))*"?|\\+''(?:[^'']|''(?!\s*[,}\]]))*''?'
    '|(?!\[redacted\])[\[{(].*';
comment on function audit.quoted_value() is
    'Pattern for a value in quotes or brackets';

-- Names whose values are looked at; audit.is_secret decides.
create or replace function audit.assignment() returns text
language sql immutable parallel safe
return '(\m(?:\w+-){0,4}\w*(?:' || audit.secret_names() || ')[\w-]*)'
    || '(?:(\\*["'']\s*(?:=>|[:=])\s*)(' || audit.quoted_value() || '|[^\s,}\]"''\[{(]+)'
    || '|([ \t]*:[ \t]*)(' || audit.quoted_value()
    || '|(?:[|>][-+0-9]*)?[ \t]*(?:\r?\n[ \t]+[^\n]*)+|[^\s"''\[{(][^\r\n]*)'
    || '|(\s*(?:=>|:=|={1,3})\s*)(' || audit.quoted_value() || '|[^\s"''\[{(]\S*|\[redacted\]\S*)'
    || '|((?:\s[^<>]*)?>)((?:<!\[CDATA\[(?:[^\]]|\](?!\]>))*\]\]>|[^<])+|\s*<(?![/!]).*))';
comment on function audit.assignment() is
    'Pattern for a name, what stands between, and the value: of JSON, YAML, code, settings, '
    'headers, XML';

create or replace function audit.named_value() returns text
language sql immutable parallel safe
return '(\m(?:name|key|header|field|k|parameter|id)\\*["'']?\s*(?:=>|[:=])\s*\\*["'']?[\w-]*'
    || '(?:' || audit.secret_names() || ')[\w-]*)'
    || '(\\*["'']?\s*[,;]?\s*\\*["'']?(?:value|val|v|content)\\*["'']?\s*(?:=>|[:=])\s*)(?:'
    || audit.quoted_value() || '|[^\s,}\]"''\[{(]+)';
comment on function audit.named_value() is
    'Pattern for a name and its value that stand beside each other under names of their own';

create or replace function audit.percent_decode(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    _hex text;
    _text text := percent_decode.value;
begin
    for _hex in
        select distinct m[1]
        from regexp_matches(percent_decode.value collate "C", '%([2-7][0-9a-fA-F])', 'g') as m
    loop
        _text := replace(_text, '%' || _hex, chr(get_byte(decode(_hex, 'hex'), 0)));
    end loop;
    return _text;
end
$$;
comment on function audit.percent_decode(text) is
    'An address with its escapes of ASCII undone';

create or replace function audit.redact_value(value text) returns text
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
return case
    when value collate "C" ~* '^(?:null|none|nil|true|false|undefined|\[redacted\])?,?$' then value
    else coalesce(substring(value collate "C" from '^[bru]?\\*["'']'), '') || '[redacted]'
        || case when value collate "C" ~ '^[bru]?\\*["''].*["'']$'
            then substring(value collate "C" from '\\*["'']$') else '' end
end;
comment on function audit.redact_value(text) is
    'A value in a text, redacted, in the quotes that it had; not of null, true and false';

-- Pieces between what a pattern finds, and what it finds, one after the other.
create or replace function audit.redact_addresses(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    _pattern constant text := '([?&#;])([^\s?&#;=/"''<>\\]{1,200})=([^\s&#;"''<>\\]*)';
    _pieces text[] := regexp_split_to_array(redact_addresses.value collate "C", _pattern);
    _text text := _pieces[1];
    _n int := 1;
    _m text[];
    _name text;
    _plain text;
begin
    for _m in select m from regexp_matches(redact_addresses.value collate "C", _pattern, 'g') as m
    loop
        _n := _n + 1;
        _name := audit.percent_decode(_m[2]);
        _plain := case when _m[3] like '%\%%' then audit.percent_decode(_m[3]) end;
        _text := _text || _m[1] || _m[2] || '=' || case
            when _m[3] = '' then ''
            when audit.is_secret(_name) or audit.says_parameter(audit.normal_name(_name))
                then '[redacted]'
            when _plain <> _m[3] and audit.redact_steps(_plain) <> _plain then '[redacted]'
            else _m[3] end || _pieces[_n];
    end loop;
    return _text;
end
$$;
comment on function audit.redact_addresses(text) is
    'A text without the parameters of addresses that are secrets, also where they are escaped';

create or replace function audit.redact_assignments(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    _pieces text[];
    _text text;
    _n int := 1;
    _m text[];
    _value text;
begin
    if redact_assignments.value collate "C" !~* audit.secret_names() then
        return redact_assignments.value;
    end if;
    _pieces := regexp_split_to_array(redact_assignments.value collate "C", audit.assignment(), 'i');
    _text := _pieces[1];
    for _m in
        select m
        from regexp_matches(redact_assignments.value collate "C", audit.assignment(), 'gi') as m
    loop
        _n := _n + 1;
        _value := coalesce(_m[3], _m[5], _m[7], _m[9]);
        _text := _text || _m[1] || coalesce(_m[2], _m[4], _m[6], _m[8])
            || case when audit.is_secret(_m[1]) then audit.redact_value(_value)
                else audit.redact_assignments(_value) end
            || _pieces[_n];
    end loop;
    return _text;
end
$$;
comment on function audit.redact_assignments(text) is
    'A text without the values of names that are secrets';

-- Where a setting stands on a line of its own, all of the line is its value.
create or replace function audit.redact_lines(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    _lines text[];
    _m text[];
begin
    if redact_lines.value collate "C" !~* audit.secret_names() then
        return redact_lines.value;
    end if;
    _lines := string_to_array(redact_lines.value, E'\n');
    for _n in 1 .. cardinality(_lines) loop
        _m := regexp_match(_lines[_n] collate "C",
            '^(\s*(?:export\s+|set\s+|-\s+)?)([\w.-]+)(\s*=\s*)([^\s"''].*)$');
        if audit.is_secret(_m[2]) and _m[4] !~ '\s\S+=' then
            _lines[_n] := _m[1] || _m[2] || _m[3] || '[redacted]';
        end if;
    end loop;
    return array_to_string(_lines, E'\n');
end
$$;
comment on function audit.redact_lines(text) is
    'A text without the values of settings that are secrets, where each stands on its line';

create or replace function audit.redact_steps(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    _text text := redact_steps.value collate "C";
begin
    _text := regexp_replace(_text, '-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----'
        '(?:[^-]|-(?!----END))*(?:-----END [A-Z0-9 ]*-----)?', '[redacted]', 'g');
    _text := regexp_replace(_text, '(://[^\s/?#@:"''<>]*:)(?!\[redacted\]@)'
        '(?:[^\s/?#"''<>]*@|(?!\d{1,5}[/?#])[^\s"''<>@]*@)', '\1[redacted]@', 'g');
    _text := regexp_replace(_text, '://[^\s/?#@:"''<>\[]{16,}@', '://[redacted]@', 'g');
    _text := regexp_replace(_text, '\m(bearer|basic)(\s+)(?=[a-z]*[^a-z\s])[a-z0-9._~+/=-]{8,}',
        '\1\2[redacted]', 'gi');
    _text := regexp_replace(_text, audit.key_shapes(), '[redacted]', 'g');
    if _text like '%=%' then
        _text := audit.redact_addresses(_text);
        _text := audit.redact_lines(_text);
    end if;
    _text := regexp_replace(_text, '(?<=--)([\w-]*(?:' || audit.secret_names()
        || ')[\w-]*)([ \t]+)(?:"[^"]*"?|''[^'']*''?|[^\s"''-]\S*)', '\1\2[redacted]', 'gi');
    _text := regexp_replace(_text, audit.named_value(), '\1\2[redacted]', 'gi');
    return audit.redact_assignments(_text);
end
$$;
comment on function audit.redact_steps(text) is
    'A text that is no document, without the secrets in it';

-- A text is left as it is spelt if nothing was redacted and if nothing was lost in parsing it: of
-- two values under one name a document keeps the last.
create or replace function audit.redact_document(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    _given constant jsonb := redact_document.value::jsonb;
    _node constant jsonb := audit.redact_node(_given, 0, false);
begin
    return case when _node = _given and length(regexp_replace(_given::text, '\s', '', 'g'))
            = length(regexp_replace(redact_document.value, '\s', '', 'g'))
        then redact_document.value else _node::text end;
exception when assert_failure or others then
    -- Names may be spelt with escapes, which only a parser reads.
    return case when redact_document.value collate "C"
            ~ '\\u00(?:3[0-9]|[46][1-9a-fA-F]|[57][0-9aA])' then '[redacted]' end;
end
$$;
comment on function audit.redact_document(text) is
    'A text in JSON without the secrets in it; null if it is no JSON after all';

create or replace function audit.redact_text(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    _text text;
    _last text;
begin
    if value is null or not audit.may_hold_secret(value) then
        return value;
    elsif octet_length(value) > 16000000 then
        return '[redacted]';
    elsif value collate "C" like '\\x%' and value collate "C" ~ '^\\x(?:[0-9a-fA-F]{2})*$' then
        return case audit.redact_bytes(decode(substr(value, 3), 'hex'))
            when '[redacted]' then '[redacted]' else value end;
    elsif value collate "C" !~* audit.secret_signs() then
        return value;
    end if;
    begin
        if value collate "C" ~ '^\s*[\[{"]' then
            _text := audit.redact_document(value);
            if _text is not null then
                return _text;
            end if;
        end if;
        if octet_length(value) > 1000000 then
            return '[redacted]';
        end if;
        _text := value;
        -- What one step leaves another may find.
        for _n in 1 .. 5 loop
            _last := _text;
            _text := audit.redact_steps(_text);
            if _text = _last then
                return _text;
            end if;
        end loop;
        return '[redacted]';
    exception when assert_failure or others then
        return '[redacted]';
    end;
end
$$;
comment on function audit.redact_text(text) is
    'A text without the secrets in it: JSON, addresses, assignments, headers, keys, bytes in hex';

-- Bytes are read as UTF-8, else with all but ASCII escaped, zeros left out: UTF-16 is read as well.
create or replace function audit.redact_bytes(value bytea) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    _text text;
begin
    if octet_length(value) > 16000000 then
        return '[redacted]';
    end if;
    begin
        _text := convert_from(value, 'UTF8');
    exception when assert_failure or others then
        _text := replace(encode(value, 'escape'), '\000', '');
    end;
    return case when audit.redact_text(_text) is distinct from _text then '[redacted]'
        else '\x' || encode(value, 'hex') end;
exception when assert_failure or others then
    return '[redacted]';
end
$$;
comment on function audit.redact_bytes(bytea) is
    'Bytes in hex, or "[redacted]" if they hold text with a secret in it';

create or replace function audit.is_option(value jsonb) returns boolean
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
return jsonb_typeof(value) = 'string' and (value #>> '{}') collate "C" like '-%'
    and (value #>> '{}') collate "C" !~ '[=:\s]' and audit.is_secret(value #>> '{}');
comment on function audit.is_option(jsonb) is
    'Whether a value is an option of a command that a secret follows, such as --password';

create or replace function audit.redact_array(value jsonb, depth int) returns jsonb
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    -- ["Authorization", "Bearer x"] in a list of pairs is a name and its value.
    _pair constant boolean := depth > 0 and jsonb_array_length(value) = 2
        and jsonb_typeof(value -> 0) = 'string' and audit.is_secret(value ->> 0);
begin
    return (
        select coalesce(jsonb_agg(case
            when jsonb_typeof(e) in ('null', 'boolean') then e
            when _pair and n = 2 or after_option and jsonb_typeof(e) = 'string'
                then '"[redacted]"'
            else audit.redact_node(e, depth + 1, false) end order by n), '[]')
        from (
            select e, n, lag(audit.is_option(e)) over (order by n) as after_option
            from jsonb_array_elements(value) with ordinality as a (e, n)
        ) as elements
    );
end
$$;
comment on function audit.redact_array(jsonb, int) is
    'An array of a document at a depth without the secrets in it';

create or replace function audit.redact_object(value jsonb, depth int, header boolean)
returns jsonb
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    -- {"name": "password", "value": "x"}
    _pair constant boolean := exists (
        select from jsonb_each(value) as e (name, held)
        where lower(name) in ('name', 'key', 'header', 'field', 'k', 'parameter', 'id')
            and jsonb_typeof(held) = 'string' and audit.is_secret(held #>> '{}'));
begin
    return (
        select coalesce(jsonb_object_agg(name, case
            when jsonb_typeof(held) in ('null', 'boolean') then held
            when audit.is_secret(name)
                or _pair and lower(name) in ('value', 'val', 'v', 'content')
                or header and not audit.says_harmless(audit.normal_name(name))
                then '"[redacted]"'
            when jsonb_typeof(held) in ('object', 'array') then audit.redact_node(held,
                depth + 1, audit.says_headers(audit.normal_name(name)))
            when jsonb_typeof(held) = 'string' and audit.may_hold_secret(held #>> '{}')
                then audit.redact_node(held, depth + 1, false)
            else held end), '{}')
        from jsonb_each(value) as e (name, held)
    );
end
$$;
comment on function audit.redact_object(jsonb, int, boolean) is
    'An object of a document at a depth, of headers or not, without the secrets in it';

-- So that no document exhausts the stack: deeper than 40 levels all is redacted that may hold a
-- secret.
create or replace function audit.redact_node(value jsonb, depth int, header boolean)
returns jsonb
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return case
        when jsonb_typeof(value) = 'string' then to_jsonb(audit.redact_text(value #>> '{}'))
        when jsonb_typeof(value) not in ('object', 'array') then value
        when depth > 40 then case when value::text collate "C" ~* audit.secret_signs()
            then '"[redacted]"' else value end
        when jsonb_typeof(value) = 'array' then audit.redact_array(value, depth)
        else audit.redact_object(value, depth, header) end;
end
$$;
comment on function audit.redact_node(jsonb, int, boolean) is
    'A part of a document at a depth, of headers or not, without the secrets in it';

create or replace function audit.redact_json(value jsonb) returns jsonb
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    if pg_column_size(value) < 16000000
        and value::text collate "C" !~* audit.secret_signs()
    then
        return value;
    end if;
    begin
        return audit.redact_node(value, 0, false);
    exception when assert_failure or others then
        return '"[redacted]"';
    end;
end
$$;
comment on function audit.redact_json(jsonb) is
    'A document without the secrets in it: under names that are secrets, and in texts';
