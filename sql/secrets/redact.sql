-- Redaction: how secrets are taken out of texts, documents and bytes. audit_private.redact_text,
-- redact_bytes and redact_json raise for nothing that they are given. Where a value cannot be
-- taken apart and may hold a secret, all of it is redacted: the detail is lost, never the event.
-- Queries over a document keep their generic plan: to plan one anew costs more than to run it.

-- What keys that are known by their shape have in them, and tokens behind "Bearer".
create or replace function audit_private.may_hold_key(value text) returns boolean
language sql immutable parallel safe
return value collate "C" like any
    ('{%earer %,%eyJ%,"%\\_%",%A_IA%,%AIza%,%xox%,%glpat-%}');
comment on function audit_private.may_hold_key is
    'Whether a text may hold a key that is known by its shape, without a name';

-- The first look at a text, short so that it is inlined: a connection keeps it for each column.
-- It asks for what sets off a secret from the text around it: a colon, an equals sign, a tag,
-- an option of a command, bytes in hex, a list of pairs; in a text that has room for one,
-- for a key too. A long text may be compressed, which each question would undo anew:
-- audit_private.redact_text() does it once.
create or replace function audit_private.may_hold_secret(value text) returns boolean
language sql immutable parallel safe
return octet_length(value) > 7 and (octet_length(value) > 2000
    or value collate "C" like any ('{%:%,%=%,%<%,%--%,"\\\\x%",[%[%}')
    or octet_length(value) > 17 and audit_private.may_hold_key(value));
comment on function audit_private.may_hold_secret is
    'Whether audit_private.redact_text has anything to look for: false for most short texts, '
    'at hardly any cost';

-- The second look: whatever is redacted has one of these words, whatever the case. Words alone: of
-- a pattern with more in it, the states cost more than the text.
create or replace function audit_private.secret_signs() returns text
language sql immutable parallel safe
return audit_private.secret_words()
    || '|begin|basic|-user|-u[ =]|@|\\u00|%[3-7]|sig|sid|ticket|state|nonce|sas|hmac|header'
    '|\\x|eyj|_live_|_test_|_prod_|ghp_|gho_|ghu_|ghs_|ghr_|glpat|npm_|whsec|xox|akia|asia|aiza';
comment on function audit_private.secret_signs is
    'Pattern, whatever the case, for texts and documents that have to be taken apart';

-- Keys that are known by their shape, wherever they stand.
create or replace function audit_private.key_shapes() returns text
language sql immutable parallel safe
return '\m(?:sk|rk|sbp|key|pat|api)_(?:live|test|prod)_[A-Za-z0-9]{10,}'
    '|\m(?:gh[pousr]|github_pat|glpat|npm|whsec)[_-][A-Za-z0-9_-]{16,}'
    '|\mxox[abeoprs]-[A-Za-z0-9-]{10,}|\m(?:AKIA|ASIA)[A-Z0-9]{16}|\mAIza[A-Za-z0-9_-]{30,}';
comment on function audit_private.key_shapes is
    'Pattern for keys that are known by their shape';

-- A value as it may follow a name: in quotes, in quotes that are escaped, or in brackets, whose end
-- no pattern tells, so that all that follows belongs to it.
create or replace function audit_private.quoted_value() returns text
language sql immutable parallel safe
return '[bru]?"(?:[^"\\]|\\.|"")*(?:"|\\?$)|[bru]?''(?:[^''\\]|\\.|'''')*(?:''|\\?$)'
    '|\\+"(?:[^"]|"(?!\s*[,}\]]))*"?|\\+''(?:[^'']|''(?!\s*[,}\]]))*''?'
    '|(?!\[redacted\])[\[{(].*';
comment on function audit_private.quoted_value is
    'Pattern for a value in quotes or brackets';

-- What is between a name and its value, and the value: of JSON, Python and hstore, of YAML and
-- headers, of settings and code, of XML.
create or replace function audit_private.assigned_value(tags boolean) returns text
language sql immutable parallel safe
return '(?:(\\*["'']\s*(?:=>|[:=])\s*)(' || audit_private.quoted_value() || '|[^\s,}\]"''\[{(]+)'
    || '|([ \t]*:[ \t]*)(' || audit_private.quoted_value()
    || '|(?:[|>][-+0-9]*)?[ \t]*(?:\r?\n[ \t]+[^\n]*)+|[^\s"''\[{(][^\r\n]*|\[redacted\])'
    || '|(\s*(?:=>|:=|={1,3})\s*)(' || audit_private.quoted_value()
    || '|[^\s"''\[{(]\S*|\[redacted\])'
    || case when tags
        then '|((?:\s[^<>]*)?>)((?:<!\[CDATA\[(?:[^\]]|\](?!\]>))*\]\]>|[^<])+|\s*<(?![/!]).*)'
        else '' end || ')';
comment on function audit_private.assigned_value is
    'Pattern for a separator and a value behind a name';

create or replace function audit_private.find_names(value text, pattern text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
as $$
declare
    _names constant text[] := array(
        select name
        from (
            select distinct m[1]
            from regexp_matches(find_names.value collate "C", find_names.pattern, 'gi') as m
        ) as found (name)
        where audit_private.is_secret(name));
begin
    if cardinality(_names) > 100 then
        -- A pattern of so many takes longer than the text is worth.
        raise exception using errcode = 'program_limit_exceeded';
    end if;
    return nullif(array_to_string(_names, '|'), '');
end
$$;
comment on function audit_private.find_names is
    'Names of secrets that a pattern finds in a text, as a pattern: '
    'they consist of letters, digits, "_" and "-"; raises if there are more than 100, '
    'so that audit_private.redact_text redacts all';

create or replace function audit_private.percent_decode(value text) returns text
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
comment on function audit_private.percent_decode is
    'An address with its escapes of ASCII undone';

create or replace function audit_private.redact_value(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
begin
    return case
        when value collate "C" ~* '^(?:null|none|nil|true|false|undefined|\[redacted\])?,?$'
            then value
        else coalesce(substring(value collate "C" from '^[bru]?\\*["'']'), '') || '[redacted]'
            || case when value collate "C" ~ '^[bru]?\\*["''].*["'']$'
                then substring(value collate "C" from '\\*["'']$') else '' end
    end;
end
$$;
comment on function audit_private.redact_value is
    'A value in a text, redacted, in the quotes that it had; not of null, true and false';

create or replace function audit_private.redact_parameter(parts text[]) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _name text := case when parts[2] like '%\%%' then audit_private.percent_decode(parts[2])
        else parts[2] end;
    _plain text := case when parts[3] like '%\%%' then audit_private.percent_decode(parts[3]) end;
begin
    return parts[1] || parts[2] || '=' || case
        when parts[3] = '' then ''
        when audit_private.is_secret(_name)
            or audit_private.says_parameter(audit_private.normal_name(_name)) then '[redacted]'
        when _plain <> parts[3] and audit_private.redact_steps(_plain) <> _plain then '[redacted]'
        else parts[3] end;
end
$$;
comment on function audit_private.redact_parameter is
    'A parameter of an address (what is before it, its name, its value) without a secret';

-- In these two, pieces between what a pattern finds, and what it finds, one after the other.
create or replace function audit_private.redact_addresses(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
    set plan_cache_mode = force_generic_plan
as $$
declare
    _pattern constant text := '([?&#;])([^\s?&#;=/"''<>\\]{1,200})=([^\s&#;"''<>\\]*)';
begin
    return (
        select string_agg(piece || coalesce(audit_private.redact_parameter(m), ''), '' order by n)
        from unnest(regexp_split_to_array(redact_addresses.value collate "C", _pattern))
                with ordinality as p (piece, n)
            left join regexp_matches(redact_addresses.value collate "C", _pattern, 'g')
                with ordinality as f (m, k) on k = n
    );
end
$$;
comment on function audit_private.redact_addresses is
    'A text without the parameters of addresses that are secrets, also where they are escaped';

-- user[password]=x is a parameter also where nothing stands before it.
create or replace function audit_private.redact_brackets(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _names constant text := audit_private.find_names(redact_brackets.value, '\[([\w-]+)\]=');
begin
    return case when _names is null then redact_brackets.value else regexp_replace(
        redact_brackets.value collate "C", '(\[(?:' || _names || ')\]=)[^\s&#;"''<>\\]+',
        '\1[redacted]', 'gi') end;
end
$$;
comment on function audit_private.redact_brackets is
    'A text without the values of names in brackets that are secrets, as forms send them';

create or replace function audit_private.assignment_names(value text) returns text
language sql immutable parallel safe set search_path = pg_catalog, pg_temp
return audit_private.find_names(assignment_names.value, '\m((?:\w+-){0,4}\w+)(?:\\*["'']?\s*[=:>]'
    || case when assignment_names.value like '%<%>%'
        then '|\s[^<>\s]*=["''][^<>]*>)' else ')' end);
comment on function audit_private.assignment_names is
    'Names of secrets that a text assigns a value to, as a pattern';

create or replace function audit_private.redact_assignments(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
    set plan_cache_mode = force_generic_plan
as $$
declare
    _names constant text := audit_private.assignment_names(redact_assignments.value);
    _tags constant boolean := redact_assignments.value like '%<%>%';
    _pattern constant text :=
        '\m((?:' || _names || '))(?![\w-])' || audit_private.assigned_value(_tags);
    -- The name of a closing tag begins no value. So marked it is no word by itself: to look behind
    -- each name would take as long as all of the text before it.
    _mark constant text := E'<\x02z';
    _text constant text := replace(redact_assignments.value, '</', _mark) collate "C";
begin
    if _names is null then
        return redact_assignments.value;
    elsif _tags and strpos(redact_assignments.value, E'\x02') > 0 then
        return '[redacted]';
    end if;
    return (
        select replace(string_agg(piece || coalesce(m[1] || coalesce(m[2], m[4], m[6], m[8])
            || audit_private.redact_value(coalesce(m[3], m[5], m[7], m[9])), ''), '' order by n),
            _mark, '</')
        from unnest(regexp_split_to_array(_text, _pattern, 'i')) with ordinality as p (piece, n)
            left join regexp_matches(_text, _pattern, 'gi') with ordinality as f (m, k) on k = n
    );
end
$$;
comment on function audit_private.redact_assignments is
    'A text without the values of names that are secrets';

create or replace function audit_private.before_pair() returns text
language sql immutable parallel safe
return '\m(?:name|key|header|field|k|parameter|id)\\*["'']?\s*(?:=>|[:=])\s*\\*["'']?';
comment on function audit_private.before_pair is
    'Pattern for what is before a name that stands beside its value';

-- A name and its value beside each other under names of their own: {name: password, value: x}.
create or replace function audit_private.redact_pairs(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _head constant text := audit_private.before_pair();
    _names constant text := audit_private.find_names(redact_pairs.value, _head || '([\w.-]+)');
    _text text := redact_pairs.value collate "C";
begin
    if _names is null then
        return _text;
    elsif _text like '%<%>%' then
        -- <property name="password">x</property>
        _text := regexp_replace(_text, '(<[^<>]*' || _head || '(?:' || _names || ')\M[^<>]*[^<>/]>'
            '(?:\s*<value[^<>]*>)?)'
            '(?:\s*<!\[CDATA\[(?:[^\]]|\](?!\]>))*(?:\]\]>)?|(?!\s*<)[^<]+)',
            '\1[redacted]', 'gi');
    end if;
    return regexp_replace(_text,
        '(' || _head || '(?:' || _names || ')\\*["'']?\s*[,;]?\s*\\*["'']?'
        || '(?:value|val|v|content)\\*["'']?\s*(?:=>|[:=])\s*)(?:'
        || audit_private.quoted_value() || '|[^\s,}\]"''\[{(]+)', '\1[redacted]', 'gi');
end
$$;
comment on function audit_private.redact_pairs is
    'A text without the values that stand beside names of secrets';

create or replace function audit_private.before_option() returns text
language sql immutable parallel safe
return '(?:^|[\s"''`=,;|&(\[{])--?';
comment on function audit_private.before_option is
    'Pattern for what an option of a command begins with: it stands apart';

-- Two numbers are a user and a group, and //host is an address.
create or replace function audit_private.user_option() returns text
language sql immutable parallel safe
return '(' || audit_private.before_option() || '(?:u|(?:proxy-)?user)(?:[ \t]*=[ \t]*|[ \t]+))'
    '(?:("[^":]+:)[^"]+|(''[^'':]+:)[^'']+'
    '|([^\s:"''/]+:)(?!//|[0-9]+(?:["''\s]|$))[^\s"'']+)';
comment on function audit_private.user_option is
    'Pattern for an option of a command that takes a user and a password in one word';

create or replace function audit_private.redact_options(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _names constant text := audit_private.find_names(
        redact_options.value, audit_private.before_option() || '(\w[\w-]*)\s');
begin
    return regexp_replace(case when _names is null then redact_options.value else regexp_replace(
        redact_options.value collate "C", '(' || audit_private.before_option() || '(?:' || _names
        || ')[ \t]+)'
        || '(?:"[^"]*"?|''[^'']*''?|[^\s"''-]\S*)', '\1[redacted]', 'gi') end collate "C",
        audit_private.user_option(), '\1\2\3\4[redacted]', 'g');
end
$$;
comment on function audit_private.redact_options is
    'A command without the values of options that are secrets';

-- Where a setting stands on a line of its own, all of the line is its value.
create or replace function audit_private.redact_lines(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _head constant text := '(?:^|[\r\n])[ \t]*(?:export[ \t]+|set[ \t]+|-[ \t]+)?';
    _names constant text := audit_private.find_names(
        redact_lines.value, _head || '([\w-]+)[ \t]*=');
begin
    return case when _names is null then redact_lines.value else regexp_replace(
        redact_lines.value collate "C", '(' || _head || '(?:' || _names || ')[ \t]*=[ \t]*)'
        || '([^\s"''=][^\r\n=]*)(?=[\r\n]|$)', '\1[redacted]', 'gi') end;
end
$$;
comment on function audit_private.redact_lines is
    'A text without the values of settings that are secrets, where each stands on its line';

create or replace function audit_private.redact_url(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _text text := redact_url.value;
begin
    if _text not like '%@%' then
        return _text;
    elsif length(_text) > 4000 then
        return '://[redacted]';
    end if;
    _text := regexp_replace(_text, '(://[^\s/?#@:"''<>]*:)(?!\[redacted\]@)'
        '(?:[^\s/?#"''<>]*@|(?![0-9]{1,5}[/?#])[^\s"''<>@]*@)', '\1[redacted]@', 'g');
    return regexp_replace(_text, '://[^\s/?#@:"''<>\[]{16,}@', '://[redacted]@', 'g');
end
$$;
comment on function audit_private.redact_url is
    'An address from its :// on, without the password or the token before its host';

-- Each to its end at once: to look for "@" from each "://" of a long text may take hours.
create or replace function audit_private.redact_urls(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
    set plan_cache_mode = force_generic_plan
as $$
declare
    _pattern constant text := '(://[^\s"''<>]*)';
begin
    return (
        select string_agg(piece || coalesce(audit_private.redact_url(m[1]), ''), '' order by n)
        from unnest(regexp_split_to_array(redact_urls.value collate "C", _pattern))
                with ordinality as p (piece, n)
            left join regexp_matches(redact_urls.value collate "C", _pattern, 'g')
                with ordinality as f (m, k) on k = n
    );
end
$$;
comment on function audit_private.redact_urls is
    'A text without passwords and tokens before the hosts of its addresses';

-- The same questions, without an answer to where the secret ends.
create or replace function audit_private.has_secret(value text) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
begin
    return audit_private.assignment_names(value) is not null
        or audit_private.find_names(value, audit_private.before_pair() || '([\w-]+)') is not null
        or value like '%://%:%@%' or value ~ '-----BEGIN [A-Z0-9 ]*PRIVATE KEY'
        or value ~ audit_private.key_shapes() or value like '%eyJ%.%'
        or value ~* '\m(?:basic|bearer)\s+\S{6,}'
        or audit_private.find_names(value, '\[([\w-]+)\]=') is not null
        or audit_private.find_names(value, audit_private.before_option() || '(\w[\w-]*)\s')
            is not null
        or value ~ audit_private.user_option()
        or exists (
            select from regexp_matches(value, '[?&#;]([^\s?&#;=/"''<>\\]{1,200})=', 'g') as m
                cross join audit_private.percent_decode(m[1]) as name
            where audit_private.is_secret(name)
                or audit_private.says_parameter(audit_private.normal_name(name)));
end
$$;
comment on function audit_private.has_secret is
    'Whether a text that is too long to be taken apart may hold a secret';

create or replace function audit_private.redact_steps(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _text text := redact_steps.value collate "C";
begin
    if _text like '%-----BEGIN %' then
        _text := regexp_replace(_text, '-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----'
            '(?:[^-]|-(?!----END))*(?:-----END [A-Z0-9 ]*-----)?', '[redacted]', 'g');
    end if;
    if _text like '%://%@%' then
        _text := audit_private.redact_urls(_text);
    end if;
    _text := regexp_replace(_text, '\m(bearer|basic)(\s+)(?=[a-z]*[^a-z\s])[a-z0-9._~+/=-]{8,}',
        '\1\2[redacted]', 'gi');
    _text := regexp_replace(_text, audit_private.key_shapes(), '[redacted]', 'g');
    if _text like '%eyJ%' then
        -- From where its characters begin: else each piece of a long text is tried to its end.
        _text := regexp_replace(_text,
            '(^|[^A-Za-z0-9_-])(?:[A-Za-z0-9_-]*[_-])?eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+'
            '(?:\.[A-Za-z0-9_-]*)*', '\1[redacted]', 'g');
    end if;
    if _text like '%=%' then
        _text := audit_private.redact_addresses(_text);
        if _text like '%]=%' then
            _text := audit_private.redact_brackets(_text);
        end if;
        _text := audit_private.redact_lines(_text);
    end if;
    if _text like '%-%' then
        _text := audit_private.redact_options(_text);
    end if;
    return audit_private.redact_assignments(audit_private.redact_pairs(_text));
end
$$;
comment on function audit_private.redact_steps is
    'A text that is no document, without the secrets in it';

-- A text is left as it is spelt if nothing was redacted and if nothing was lost in parsing it: of
-- two values under one name a document keeps the last.
create or replace function audit_private.redact_document(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _given jsonb;
    _node jsonb;
begin
    _given := redact_document.value::jsonb;
    _node := audit_private.redact_json(_given);
    return case when _node = _given and length(regexp_replace(_given::text, '\s', '', 'g'))
            = length(regexp_replace(redact_document.value, '\s', '', 'g'))
        then redact_document.value else _node::text end;
exception when assert_failure or others then
    -- Names may be spelt with escapes, which only a parser reads.
    return case when redact_document.value collate "C"
            ~ '\\u00(?:3[0-9]|[46][1-9a-fA-F]|[57][0-9aA])' then '[redacted]' end;
end
$$;
comment on function audit_private.redact_document is
    'A text in JSON without the secrets in it; null if it is no JSON after all';

create or replace function audit_private.redact_text(value text) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _text text;
    _last text;
begin
    if octet_length(value) > 2000 then
        -- Out of its compression, once.
        value := value || '';
    elsif value is null or not audit_private.may_hold_secret(value) then
        return value;
    end if;
    if octet_length(value) > 16000000 then
        return '[redacted]';
    elsif value collate "C" like '\\x%' and value collate "C" ~ '^\\x(?:[0-9a-fA-F]{2})*$' then
        return case audit_private.redact_bytes(decode(substr(value, 3), 'hex'))
            when '[redacted]' then '[redacted]' else value end;
    elsif value collate "C" !~* audit_private.secret_signs() then
        return value;
    end if;
    begin
        _text := case when value collate "C" ~ '^\s*[\[{"]'
            then audit_private.redact_document(value) end;
        if _text is not null then
            return _text;
        elsif octet_length(value) > 100000 then
            return case when audit_private.has_secret(value) then '[redacted]' else value end;
        end if;
        _text := value;
        -- What one step leaves another may find.
        for _n in 1 .. 5 loop
            _last := _text;
            _text := audit_private.redact_steps(_text);
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
comment on function audit_private.redact_text is
    'A text without the secrets in it: JSON, addresses, assignments, headers, keys, bytes in hex';

-- Inlined where it is used: most short texts cost a look.
create or replace function audit_private.safe_text(value text) returns text
language sql immutable parallel safe
return case when audit_private.may_hold_secret(value) then audit_private.redact_text(value)
    else value end;
comment on function audit_private.safe_text is
    'A text without the secrets in it';

-- Bytes are read as UTF-8, else with all but ASCII escaped, zeros left out: UTF-16 is read as well.
create or replace function audit_private.redact_bytes(value bytea) returns text
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
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
    return case when audit_private.redact_text(_text) is distinct from _text then '[redacted]'
        else '\x' || encode(value, 'hex') end;
exception when assert_failure or others then
    return '[redacted]';
end
$$;
comment on function audit_private.redact_bytes is
    'Bytes in hex, or "[redacted]" if they hold text with a secret in it';

-- The names of secrets in a document, so that each is judged once, however often it is there.
create or replace function audit_private.names_in(value jsonb) returns text[]
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
as $$
begin
    return array(
        select name
        from (
            select distinct k #>> '{}'
            from jsonb_path_query(names_in.value,
                '$.**{0 to 40} ? (@.type() == "object").keyvalue().key') as k
            -- Or the planner would judge each before it looks for those that are the same.
            offset 0
        ) as named (name)
        where audit_private.is_secret(name)
            or audit_private.says_headers(audit_private.normal_name(name))
    );
end
$$;
comment on function audit_private.names_in is
    'Names of secrets, and of headers, in the 40 upper levels of a document';

create or replace function audit_private.is_option(value jsonb) returns boolean
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
begin
    return jsonb_typeof(value) = 'string' and (value #>> '{}') collate "C" like '-%'
        and (value #>> '{}') collate "C" !~ '[=:\s]' and audit_private.is_secret(value #>> '{}');
end
$$;
comment on function audit_private.is_option is
    'Whether a value is an option of a command that a secret follows, such as --password';

create or replace function audit_private.redact_array(
    value jsonb,
    secrets text[],
    needles text[],
    depth int
)
returns jsonb
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
as $$
declare
    -- ["Authorization", "Bearer x"] in a list of pairs is a name and its value.
    _pair constant boolean := depth > 0 and jsonb_array_length(value) = 2
        and jsonb_typeof(value -> 0) = 'string' and audit_private.is_secret(value ->> 0);
begin
    return (
        select coalesce(jsonb_agg(case
            when jsonb_typeof(e) in ('null', 'boolean') then e
            when _pair and n = 2 then '"[redacted]"'
            when jsonb_typeof(e) = 'number' then e
            when jsonb_typeof(e) in ('object', 'array') then case
                when needles is null or e::text collate "C" like any (needles)
                    then audit_private.redact_node(e, secrets, needles, depth + 1, false) else e end
            when n > 1 and audit_private.is_option(value -> (n - 2)::int) then '"[redacted]"'
            when audit_private.may_hold_secret(e #>> '{}')
                then to_jsonb(audit_private.redact_text(e #>> '{}'))
            else e end order by n), '[]')
        from jsonb_array_elements(value) with ordinality as a (e, n)
    );
end
$$;
comment on function audit_private.redact_array is
    'An array of a document at a depth without the secrets in it';

create or replace function audit_private.redact_object(
    value jsonb,
    secrets text[],
    needles text[],
    depth int,
    header boolean
) returns jsonb
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
as $$
declare
    -- {"name": "password", "value": "x"}
    _pair constant boolean := value ?| '{value,val,v,content,Value,VALUE}' and exists (
        select from jsonb_each(value) as e (name, held)
        where lower(name) in ('name', 'key', 'header', 'field', 'k', 'parameter', 'id')
            and jsonb_typeof(held) = 'string' and audit_private.is_secret(held #>> '{}'));
begin
    return (
        select coalesce(jsonb_object_agg(name, case
            when jsonb_typeof(held) in ('null', 'boolean') then held
            when name = any (secrets) and audit_private.is_secret(name)
                or _pair and lower(name) in ('value', 'val', 'v', 'content')
                or header and not audit_private.says_harmless(audit_private.normal_name(name))
                then '"[redacted]"'
            when jsonb_typeof(held) in ('object', 'array') then case
                when needles is null or name = any (secrets)
                        or held::text collate "C" like any (needles)
                    then audit_private.redact_node(
                        held, secrets, needles, depth + 1, name = any (secrets))
                else held end
            when jsonb_typeof(held) = 'string' and audit_private.may_hold_secret(held #>> '{}')
                then to_jsonb(audit_private.redact_text(held #>> '{}'))
            else held end), '{}')
        from jsonb_each(value) as e (name, held)
    );
end
$$;
comment on function audit_private.redact_object is
    'An object of a document at a depth, of headers or not, without the secrets in it';

-- So that no document exhausts the stack: deeper than 40 levels all is redacted that may hold a
-- secret.
create or replace function audit_private.redact_node(
    value jsonb,
    secrets text[],
    needles text[],
    depth int,
    header boolean
) returns jsonb
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
as $$
begin
    return case
        when jsonb_typeof(value) = 'string' then to_jsonb(audit_private.redact_text(value #>> '{}'))
        when jsonb_typeof(value) not in ('object', 'array') then value
        when depth > 40 then case when value::text collate "C" ~* audit_private.secret_signs()
            then '"[redacted]"' else value end
        when jsonb_typeof(value) = 'array'
            then audit_private.redact_array(value, secrets, needles, depth)
        else audit_private.redact_object(value, secrets, needles, depth, header) end;
end
$$;
comment on function audit_private.redact_node is
    'A part of a document at a depth, of headers or not, without the secrets in it';

-- What a part of the document has in it that must be taken apart: one of the names; or null, if a
-- text, or a name that is a value, may hold a secret too.
create or replace function audit_private.needles_in(value jsonb, secrets text[]) returns text[]
language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    _text constant text := value::text collate "C";
begin
    return case
        when jsonb_path_exists(value, '$.**{41}')
            or _text ~ '=|://|\\[\\u"nrt]|--|"-|<|[a-zA-Z0-9_''\s]:|eyJ|earer |_(?:live|test|prod)_'
                '|gh[pousr][_-]|github_pat|glpat|npm[_-]|whsec|xox|A[KS]IA|AIza'
            or _text ~* '"(?:value|val|v|content)": '
                and _text ~* '"(?:name|key|header|field|k|parameter|id)": "'
            or _text like '%["%' and exists (
                -- A pair in a list of pairs. Or each would be judged as often as it is there.
                select from (
                    select distinct m[1] from regexp_matches(_text, '\["([^"\\]+)", ', 'g') as m
                    offset 0
                ) as first (name) where audit_private.is_secret(name))
            or array_to_string(secrets, '') ~ '[\\"\x01-\x1f]'
            or cardinality(secrets) > 100
            then null
        else array(select '%"' || name || '"%' from unnest(secrets) as name) end;
end
$$;
comment on function audit_private.needles_in is
    'LIKE patterns for the parts of a document that hold a secret, given its names of secrets; '
    'null if any part may';

create or replace function audit_private.redact_json(value jsonb) returns jsonb
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    _secrets text[];
    _needles text[];
    _small constant boolean := pg_column_size(value) < 16000000;
begin
    if _small and value::text collate "C" !~* audit_private.secret_signs() then
        return value;
    end if;
    begin
        _secrets := audit_private.names_in(value);
        _needles := case when _small then audit_private.needles_in(value, _secrets) end;
        return case when _needles = '{}' then value
            else audit_private.redact_node(value, _secrets, _needles, 0, false) end;
    exception when assert_failure or others then
        return '"[redacted]"';
    end;
end
$$;
comment on function audit_private.redact_json is
    'A document without the secrets in it: under names that are secrets, and in texts';

create or replace function audit_private.redact_details(value jsonb) returns jsonb
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    _redacted constant jsonb := audit_private.redact_json(value);
begin
    return case when jsonb_typeof(_redacted) = 'object' then _redacted
        else jsonb_build_object('all', _redacted) end;
end
$$;
comment on function audit_private.redact_details is
    'Details without the secrets in them; an object also where all of it is redacted';

create or replace function audit_private.redact_byte_array(value bytea[]) returns jsonb
language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp
    set bytea_output = hex
as $$
begin
    return audit_private.redact_json(to_jsonb(value));
end
$$;
comment on function audit_private.redact_byte_array is
    'Bytes in hex, as audit_private.redact_bytes returns them, in an array of JSON';
